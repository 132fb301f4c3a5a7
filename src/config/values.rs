//! What the value of an option may be: one function for each kind, and the words of its refusal.
//!
//! Messages and exit codes are memcached's wherever it has one. Numbers are taken strictly here.
//!
//! Not here: which option takes which, and which numbers are cut short first (`settings`).

use super::exit::Exit;
use crate::store::{Accounting, AutomoveWeight, LruPolicy};
use crate::tls::{KeyFormat, VerifyMode};
use std::str::FromStr;
use std::time::Duration;

/// The most `-t` takes: each worker costs a thread, an event loop and a shared buffer.
const MAX_THREADS: usize = 1024;

/// From here on `-t` draws a warning, as in memcached.
pub(super) const MANY_THREADS: usize = 64;

/// The largest `-m`, in megabytes: what `cache_memlimit` takes, too.
const MAX_MEGABYTES: u64 = 1_000_000_000;

/// `-o journal_mem` in megabytes: below, two large batches of changes would fill it; above, it is a mistyped number.
const JOURNAL_MEGABYTES: std::ops::RangeInclusive<usize> = 8..=65536;

/// The most consumers that `-o replicas_ack` and the control socket's `replicas_ack` wait for.
pub const REPLICAS_MAX: u32 = 5;

/// The longest `-o ack_timeout`, an hour: clients have long gone by then.
const ACK_TIMEOUT_MAX_MS: u32 = 3_600_000;

/// Bytes in a slab page: what `slab_chunk_max` has to divide.
pub(super) const PAGE: usize = 1 << 20;

/// `-o hash_algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// memcached's default.
    Murmur3,
    /// Bob Jenkins' one.
    Jenkins,
    /// What really hashes here.
    Xxh3,
}

impl HashAlgorithm {
    /// As `stats settings` prints it.
    pub fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Murmur3 => "murmur3",
            HashAlgorithm::Jenkins => "jenkins",
            HashAlgorithm::Xxh3 => "xxh3",
        }
    }
}

/// A switch that is given.
pub(super) fn on(_: &str) -> Result<bool, Exit> {
    Ok(true)
}

/// A switch that is given, and turns off.
pub(super) fn off(_: &str) -> Result<bool, Exit> {
    Ok(false)
}

/// Anything.
pub(super) fn text(text: &str) -> Result<Option<String>, Exit> {
    Ok(Some(text.to_owned()))
}

/// A whole number and nothing else: no sign but a minus, no blanks.
pub(super) fn whole<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The number of a suboption.
pub(super) fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Exit> {
    whole(text).ok_or_else(|| Exit::refuse(1, format!("could not parse argument to {name}")))
}

pub(super) fn fraction(name: &str, text: &str) -> Result<f64, Exit> {
    let parsed = text.parse::<f64>().ok().filter(|value| value.is_finite());
    parsed.ok_or_else(|| Exit::refuse(1, format!("could not parse argument to {name}")))
}

/// A size in units of `unit` bytes.
pub(super) fn scaled<T: TryFrom<u64>>(name: &str, text: &str, unit: u64) -> Result<T, Exit> {
    let bytes = number::<u64>(name, text)?.checked_mul(unit).and_then(|bytes| T::try_from(bytes).ok());
    bytes.ok_or_else(|| Exit::refuse(1, format!("could not parse argument to {name}")))
}

/// A number from 1 to what an `int` holds, which is what those who read it back from `stats settings` expect.
pub(super) fn above_zero(text: &str, message: &str) -> Result<u32, Exit> {
    let parsed = whole::<i32>(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    parsed.ok_or_else(|| Exit::refuse(1, message))
}

pub(super) fn port(text: &str) -> Result<Option<u16>, Exit> {
    match whole::<i64>(text) {
        Some(-1) => Ok(None),
        Some(n @ 0..=65535) => Ok(Some(n as u16)),
        _ => Err(Exit::usage(format!("ERROR: Invalid port number {text}."))),
    }
}

pub(super) fn octal_mode(text: &str) -> Result<u32, Exit> {
    let mode = if text.starts_with('+') { None } else { u32::from_str_radix(text, 8).ok() };
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Exit::usage(format!("-a needs an access mode in octal, 0 to 777, not \"{text}\"")))
}

pub(super) fn megabytes(text: &str) -> Result<u64, Exit> {
    let megabytes = whole::<u64>(text).filter(|megabytes| *megabytes <= MAX_MEGABYTES);
    megabytes.map(|n| n << 20).ok_or_else(|| {
        Exit::usage(format!("-m needs a whole number of megabytes, at most {MAX_MEGABYTES}, not \"{text}\""))
    })
}

pub(super) fn growth_factor(text: &str) -> Result<f64, Exit> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 1.0);
    factor.ok_or_else(|| Exit::refuse(1, "Factor must be greater than 1"))
}

pub(super) fn thread_count(text: &str) -> Result<usize, Exit> {
    let threads = above_zero(text, "Number of threads must be greater than 0")? as usize;
    within(threads, 1..=MAX_THREADS, &format!("Number of threads must be at most {MAX_THREADS}"))
}

pub(super) fn backlog(text: &str) -> Result<u32, Exit> {
    let parsed = whole::<i32>(text).and_then(|n| u32::try_from(n).ok());
    parsed.ok_or_else(|| Exit::usage(format!("-b needs a whole number, not \"{text}\"")))
}

pub(super) fn item_size(text: &str) -> Result<usize, Exit> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let bytes = whole::<usize>(digits).and_then(|n| n.checked_mul(unit));
    bytes.ok_or_else(|| Exit::usage(format!("-I needs a number of bytes, or one with k or m, not \"{text}\"")))
}

pub(super) fn hash_power(text: &str) -> Result<u8, Exit> {
    let power: i64 = number("hashpower", text)?;
    match power {
        12..=32 => Ok(power as u8),
        ..12 => Err(Exit::refuse(1, format!("Initial hashtable multiplier of {power} is too low"))),
        33.. => Err(Exit::refuse(
            1,
            format!(
                "Initial hashtable multiplier of {power} is too high\n\
                 Choose a value based on \"STAT hash_power_level\" from a running instance"
            ),
        )),
    }
}

pub(super) fn tail_repair_time(text: &str) -> Result<u32, Exit> {
    let seconds: u32 = number("tail_repair_time", text)?;
    within(seconds, 10..=u32::MAX, "Cannot set tail_repair_time to less than 10 seconds")
}

pub(super) fn hash_algorithm(text: &str) -> Result<HashAlgorithm, Exit> {
    let known = [HashAlgorithm::Jenkins, HashAlgorithm::Murmur3, HashAlgorithm::Xxh3];
    let found = known.into_iter().find(|algorithm| algorithm.name() == text);
    found.ok_or_else(|| Exit::refuse(1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"))
}

pub(super) fn crawler_sleep(text: &str) -> Result<u32, Exit> {
    let message = "LRU crawler sleep must be between 0 and 1 second";
    within(whole(text).unwrap_or(u32::MAX), 0..=1_000_000, message)
}

pub(super) fn tocrawl(text: &str) -> Result<u32, Exit> {
    whole(text).ok_or_else(|| Exit::refuse(1, "lru_crawler_tocrawl takes a numeric 32bit value"))
}

pub(super) fn lru_share(name: &str, text: &str) -> Result<u32, Exit> {
    within(whole(text).unwrap_or(0), 1..=79, &format!("{name} must be > 1 and < 80"))
}

pub(super) fn lru_factor(name: &str, text: &str) -> Result<f64, Exit> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 0.0);
    factor.ok_or_else(|| Exit::refuse(1, format!("{name} must be > 0")))
}

pub(super) fn chunk_max(text: &str) -> Result<usize, Exit> {
    let kilobytes: usize = number("slab_chunk_max", text)?;
    within(kilobytes, 1..=PAGE >> 10, "slab_chunk_max must be 1 to 1024 kilobytes").map(|n| n << 10)
}

pub(super) fn lru_policy(text: &str) -> Result<LruPolicy, Exit> {
    match text {
        "s3fifo" => Ok(LruPolicy::S3Fifo),
        "memcached" => Ok(LruPolicy::Memcached),
        _ => Err(Exit::refuse(1, "Unknown lru_policy option (s3fifo, memcached)")),
    }
}

pub(super) fn automove_weight(text: &str) -> Result<AutomoveWeight, Exit> {
    match text {
        "objects" => Ok(AutomoveWeight::Objects),
        "balanced" => Ok(AutomoveWeight::Balanced),
        "bytes" => Ok(AutomoveWeight::Bytes),
        _ => Err(Exit::refuse(1, "Unknown automove_weight option (objects, balanced, bytes)")),
    }
}

pub(super) fn accounting(text: &str) -> Result<Accounting, Exit> {
    match text {
        "native" => Ok(Accounting::Native),
        "memcached" => Ok(Accounting::Memcached),
        _ => Err(Exit::refuse(1, "Unknown slab_accounting option (native, memcached)")),
    }
}

pub(super) fn automove(text: &str) -> Result<u8, Exit> {
    let mode = if text.is_empty() { Some(1) } else { whole(text) };
    within(mode.unwrap_or(u8::MAX), 0..=2, "slab_automove must be between 0 and 2")
}

/// COMPAT(automove_ratio_of_one): what the message forbids is taken.
pub(super) fn automove_ratio(text: &str) -> Result<f64, Exit> {
    let ratio = fraction("slab_automove_ratio", text)?;
    within(ratio, f64::MIN_POSITIVE..=1.0, "slab_automove_ratio must be > 0 and < 1")
}

pub(super) fn automove_window(text: &str) -> Result<u32, Exit> {
    let seconds: u32 = number("slab_automove_window", text)?;
    let seconds = within(seconds, 3..=u32::MAX, "slab_automove_window must be > 2")?;
    within(seconds, 3..=1800, "slab_automove_window must be at most 1800")
}

pub(super) fn automove_freeratio(text: &str) -> Result<f64, Exit> {
    let ratio = fraction("slab_automove_freeratio", text)?;
    within(ratio, 0.0..=1.0, "slab_automove_freeratio must be between 0 and 1")
}

pub(super) fn refresh_ahead(text: &str) -> Result<u32, Exit> {
    within(number("refresh_ahead", text)?, 1..=99, "refresh_ahead must be between 1 and 99: percent of an item's TTL")
}

pub(super) fn journal_mem(text: &str) -> Result<usize, Exit> {
    let megabytes = number("journal_mem", text)?;
    within(megabytes, JOURNAL_MEGABYTES, "journal_mem must be 8 to 65536 megabytes").map(|n| n << 20)
}

pub(super) fn replicas_ack(text: &str) -> Result<u32, Exit> {
    within(number("replicas_ack", text)?, 0..=REPLICAS_MAX, "replicas_ack must be 0 to 5")
}

pub(super) fn ack_timeout(text: &str) -> Result<Duration, Exit> {
    let ms = number("ack_timeout", text)?;
    let ms = within(ms, 1..=ACK_TIMEOUT_MAX_MS, "ack_timeout must be 1 to 3600000 milliseconds")?;
    Ok(Duration::from_millis(ms.into()))
}

pub(super) fn verify_mode(text: &str) -> Result<VerifyMode, Exit> {
    match number("ssl_verify_mode", text)? {
        0 => Ok(VerifyMode::None),
        1 => Ok(VerifyMode::Request),
        2 => Ok(VerifyMode::Require),
        3 => Ok(VerifyMode::Once),
        _ => Err(Exit::refuse(1, "Invalid ssl_verify_mode. Use help to see valid options.")),
    }
}

pub(super) fn key_format(text: &str) -> Result<KeyFormat, Exit> {
    match number("ssl_keyformat", text)? {
        1 => Ok(KeyFormat::Pem),
        2 => Ok(KeyFormat::Der),
        _ => Err(Exit::refuse(1, "Invalid ssl_keyformat: 1 is PEM, 2 is ASN.1")),
    }
}

/// By memcached's numbers, 0 to 3: TLS 1.0 to 1.3.
pub(super) fn min_version(text: &str) -> Result<u8, Exit> {
    within(number("ssl_min_version", text)?, 0..=3, "Invalid ssl_min_version. Use help to see valid options.")
}

fn within<T: PartialOrd>(value: T, range: std::ops::RangeInclusive<T>, message: &str) -> Result<T, Exit> {
    if range.contains(&value) { Ok(value) } else { Err(Exit::refuse(1, message)) }
}
