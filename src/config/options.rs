//! The tables of options: what each is called, what it takes, what `--help` says of it, what it sets.
//!
//! ```text
//! -p 11211 -vA --list=… -o modern,idle_timeout=5
//!    walk (getopt_long's rules)  -> (row of FLAGS, argument)…  -> row.apply(draft, argument)
//!                                   -o: row of SUBOPTIONS, value… -> row.apply(draft, value)
//! ```
//!
//! A row with an empty help text is accepted but not claimed by `--help`: test libraries read that text to
//! learn what is built in. The man page names every row; `tests/man.rs` holds it to that.
//!
//! Arguments are walked here and not by a crate, because both unique prefixes of long names and the order
//! between different options (`-o no_modern` before `-o slab_reassign`) matter to those who wrote the
//! command lines that this server takes over.
//!
//! Not here: what the values mean together (`Draft::finish`).

use super::{Binding, Draft, Exit, HashAlgorithm};
use crate::store::Accounting;
use std::fmt::Write;
use std::str::FromStr;
use std::time::Duration;

/// One option.
#[derive(Debug)]
pub struct Opt {
    /// The letter of a flag.
    pub letter: Option<char>,
    /// The long name of a flag, empty when it has none; the name of a suboption.
    pub name: &'static str,
    /// What it takes.
    pub argument: Argument,
    /// What `--help` says; empty: nothing.
    pub help: &'static str,
    apply: fn(&mut Draft, &str) -> Result<(), Exit>,
}

/// What an option takes, and how `--help` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    Without,
    /// A value.
    Needed(&'static str),
    /// A value, or nothing: then it is applied with an empty one.
    Optional(&'static str),
}

use Argument::{Needed, Optional, Without};

/// The most `-t` takes: each worker costs a thread, an event loop and a shared buffer.
const MAX_THREADS: usize = 1024;

/// From here on `-t` draws a warning, as in memcached.
const MANY_THREADS: usize = 64;

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

const fn flag(letter: char, name: &'static str, argument: Argument, help: &'static str, apply: Apply) -> Opt {
    Opt { letter: Some(letter), name, argument, help, apply }
}

const fn sub(name: &'static str, argument: Argument, help: &'static str, apply: Apply) -> Opt {
    Opt { letter: None, name, argument, help, apply }
}

type Apply = fn(&mut Draft, &str) -> Result<(), Exit>;

/// Every option with a letter.
#[rustfmt::skip]
pub const FLAGS: &[Opt] = &[
    flag('p', "port", Needed("<num>"), "TCP port to listen on, 0 for none, -1 for any free one (default: 11211)",
        |d, v| set(&mut d.config.tcp_port, port(v))),
    flag('U', "udp-port", Needed("<num>"), "UDP port to listen on; only 0, off, is built in (default: 0)",
        udp_port),
    flag('s', "unix-socket", Needed("<file>"), "UNIX socket to listen on, instead of TCP",
        |d, v| put(&mut d.config.unix_socket, Some(v.to_owned()))),
    flag('a', "unix-mask", Needed("<mask>"), "access mode of the UNIX socket, in octal (default: 700)",
        |d, v| set(&mut d.config.unix_mask, octal_mode(v))),
    flag('A', "enable-shutdown", Without, "enable the \"shutdown\" command",
        |d, _| put(&mut d.config.shutdown_command, true)),
    flag('l', "listen", Needed("<addr>"), "addresses to listen on, host or host:port, comma-separated;\n\
        may be given several times (default: every address)",
        |d, v| { d.listen(v); Ok(()) }),
    flag('d', "daemon", Without, "run in the background",
        |d, _| put(&mut d.config.daemonize, true)),
    flag('r', "enable-coredumps", Without, "raise the core file limit",
        |d, _| put(&mut d.config.coredumps, true)),
    flag('u', "user", Needed("<user>"), "become this user (needed, and only used, when started as root)",
        |d, v| put(&mut d.config.user, Some(v.to_owned()))),
    flag('m', "memory-limit", Needed("<num>"), "memory for items, in megabytes (default: 64)",
        |d, v| set(&mut d.config.store.memory_limit, megabytes(v))),
    flag('M', "disable-evictions", Without, "answer an error instead of evicting when memory is full",
        |d, _| put(&mut d.config.store.evict, false)),
    flag('c', "conn-limit", Needed("<num>"), "most connections at once (default: 1024)",
        |d, v| set(&mut d.config.max_conns, above_zero(v, "Maximum connections must be greater than 0"))),
    flag('k', "lock-memory", Without, "lock all memory, so that nothing is paged out",
        |d, _| put(&mut d.config.lock_memory, true)),
    flag('v', "verbose", Optional(""), "say more on stderr; -vv: connections, text commands and replies",
        |d, _| { d.config.verbosity = d.config.verbosity.saturating_add(1); Ok(()) }),
    flag('h', "help", Without, "print this help and exit",
        |_, _| Err(Exit::print(help()))),
    flag('i', "license", Without, "print the license and exit",
        |_, _| Err(Exit::print(license()))),
    flag('V', "version", Without, "print the version and exit",
        |_, _| Err(Exit::print(version()))),
    flag('P', "pidfile", Needed("<file>"), "write the process id to a file; removed at exit with -d only",
        |d, v| put(&mut d.config.pidfile, Some(v.to_owned()))),
    flag('f', "slab-growth-factor", Needed("<num>"), "growth of chunk sizes from class to class\n\
        (default: finer steps than memcached's 1.25)",
        |d, v| set(&mut d.config.store.growth_factor, growth_factor(v).map(Some))),
    flag('n', "slab-min-size", Needed("<bytes>"), "least room for key, value and flags (default: 48)",
        |d, v| set(&mut d.config.store.chunk_size,
            above_zero(v, "Chunk size must be greater than 0").map(|n| n as usize))),
    flag('L', "enable-largepages", Without, "take all memory at start",
        |d, _| put(&mut d.config.store.preallocate, true)),
    flag('D', "", Needed("<char>"), "character between the prefix of a key and the rest, for \"stats detail\",\n\
        which this turns on (default: \":\", and off)",
        delimiter),
    flag('t', "threads", Needed("<num>"), "worker threads (default: 4)",
        threads),
    flag('R', "max-reqs-per-event", Needed("<num>"), "most requests of one connection before others have\n\
        their turn (default: 20)",
        |d, v| set(&mut d.config.reqs_per_event, above_zero(v, "Number of requests per event must be greater than 0"))),
    flag('C', "disable-cas", Without, "keep no cas uniques",
        |d, _| put(&mut d.config.store.cas_enabled, false)),
    flag('b', "listen-backlog", Needed("<num>"), "connections that may wait to be accepted (default: 1024)",
        |d, v| set(&mut d.config.backlog, backlog(v))),
    flag('B', "protocol", Needed("<name>"), "protocol: auto, ascii or binary (default: auto, by the first byte)",
        protocol),
    flag('I', "max-item-size", Needed("<num>"), "largest item, in bytes or with k or m\n\
        (default: 1m, least: 1k, most: 1024m)",
        |d, v| set(&mut d.config.store.item_size_max, item_size(v))),
    flag('S', "enable-sasl", Without, "",
        |d, _| put(&mut d.sasl, true)),
    flag('F', "disable-flush-all", Without, "disable the flush_all command",
        |d, _| put(&mut d.config.flush_enabled, false)),
    flag('X', "disable-dumping", Without, "disable stats cachedump and detail, lru_crawler metadump and mgdump",
        |d, _| put(&mut d.config.dump_enabled, false)),
    flag('W', "disable-watch", Without, "disable the watch command",
        |d, _| put(&mut d.config.watch_enabled, false)),
    flag('Y', "auth-file", Needed("<file>"), "",
        |_, _| not_built_in("Authentication for the text protocol (-Y)")),
    flag('e', "memory-file", Needed("<file>"), "",
        |_, _| not_built_in("Warm restart (-e)")),
    flag('Z', "enable-ssl", Without, "",
        |_, _| not_built_in("TLS (-Z)")),
    flag('o', "extended", Needed("<list>"), "comma-separated list of extended options:",
        extended),
    flag('N', "napi-ids", Needed("<num>"), "",
        |d, v| set(&mut d.napi_ids, above_zero(v, "Maximum number of NAPI IDs must be greater than 0"))),
];

/// Every suboption of `-o`.
#[rustfmt::skip]
pub const SUBOPTIONS: &[Opt] = &[
    sub("maxconns_fast", Without, "close connections above -c at once (default)",
        |d, _| put(&mut d.config.maxconns_fast, true)),
    sub("no_maxconns_fast", Without, "let connections above -c wait instead",
        |d, _| put(&mut d.config.maxconns_fast, false)),
    sub("hashpower", Needed("<num>"), "size of the hash table at start, as a power of two: 12 to 32",
        |d, v| set(&mut d.config.store.hash_power, hash_power(v).map(Some))),
    sub("no_hashexpand", Without, "never grow the hash table",
        |d, _| put(&mut d.config.store.hash_expand, false)),
    sub("tail_repair_time", Needed("<sec>"), "accepted and reported: no reference can leak here",
        |d, v| set(&mut d.config.store.tail_repair_time, tail_repair_time(v))),
    sub("hash_algorithm", Needed("<name>"), "jenkins, murmur3 or xxh3: accepted and reported, keys are always\n\
        hashed by xxh3",
        |d, v| set(&mut d.config.hash_algorithm, hash_algorithm(v))),
    sub("lru_crawler", Without, "look for expired items in the background (default)",
        |d, _| put(&mut d.config.store.crawler, true)),
    sub("no_lru_crawler", Without, "do not",
        |d, _| put(&mut d.config.store.crawler, false)),
    sub("lru_crawler_sleep", Needed("<usec>"), "microseconds between slices of a crawl (default: 100)",
        |d, v| set(&mut d.config.store.tuning.crawler_sleep_us, crawler_sleep(v))),
    sub("lru_crawler_tocrawl", Needed("<num>"), "most items to look at per LRU and crawl (default: 0, all)",
        |d, v| set(&mut d.config.store.tuning.crawler_tocrawl, tocrawl(v))),
    sub("lru_maintainer", Without, "segmented LRU, kept in order in the background (default)",
        |d, _| { maintainer(d, true); Ok(()) }),
    sub("no_lru_maintainer", Without, "one flat LRU, nothing in the background",
        |d, _| { maintainer(d, false); Ok(()) }),
    sub("hot_lru_pct", Needed("<num>"), "share of a class for its hot LRU, percent (default: 20)",
        |d, v| set(&mut d.config.store.tuning.hot_pct, lru_share("hot_lru_pct", v))),
    sub("warm_lru_pct", Needed("<num>"), "share of a class for its warm LRU, percent (default: 40)",
        |d, v| set(&mut d.config.store.tuning.warm_pct, lru_share("warm_lru_pct", v))),
    sub("hot_max_factor", Needed("<num>"), "items idle for longer than the age of the cold LRU times this\n\
        leave the hot one (default: 0.20)",
        |d, v| set(&mut d.config.store.tuning.hot_max_factor, lru_factor("hot_max_factor", v))),
    sub("warm_max_factor", Needed("<num>"), "the same for the warm one (default: 2.00)",
        |d, v| set(&mut d.config.store.tuning.warm_max_factor, lru_factor("warm_max_factor", v))),
    sub("temporary_ttl", Needed("<sec>"), "items with a TTL up to this are never evicted (default: off)",
        |d, v| set(&mut d.config.store.tuning.temporary_ttl, number("temporary_ttl", v).map(Some))),
    sub("idle_timeout", Needed("<sec>"), "close TCP connections that are idle for this long (default: 0, never)",
        |d, v| set(&mut d.config.idle_timeout, number("idle_timeout", v))),
    sub("read_buf_mem_limit", Needed("<MB>"), "limit for connection buffers (default: 0, none)",
        |d, v| set(&mut d.config.read_buf_mem_limit, scaled("read_buf_mem_limit", v, 1 << 20))),
    sub("slab_chunk_max", Needed("<KB>"), "larger items are kept in pieces of this size (default: 512)",
        |d, v| { d.chunk_max_given = true; set(&mut d.config.store.slab_chunk_max, chunk_max(v)) }),
    sub("no_chunked_items", Without, "keep every item up to a page in one piece",
        |d, _| put(&mut d.config.store.slab_chunk_max, PAGE)),
    sub("slab_sizes", Needed("<a-b-c>"), "chunk sizes of the slab classes, ascending",
        |d, v| put(&mut d.slab_sizes, Some(v.to_owned()))),
    sub("slab_accounting", Needed("<name>"), "native, or memcached: slab classes and item sizes exactly as\n\
        memcached's (default: native)",
        |d, v| set(&mut d.config.store.accounting, accounting(v))),
    sub("slab_reassign", Without, "allow pages to move between slab classes (default)",
        |d, _| put(&mut d.config.store.slab_reassign, true)),
    sub("no_slab_reassign", Without, "forbid it",
        |d, _| put(&mut d.config.store.slab_reassign, false)),
    sub("slab_automove", Optional("<0|1|2>"), "page mover: off, gentle, at every eviction (default: 1)",
        |d, v| set(&mut d.config.store.tuning.automove, automove(v))),
    sub("no_slab_automove", Without, "the same as slab_automove=0",
        |d, _| put(&mut d.config.store.tuning.automove, 0)),
    sub("slab_automove_ratio", Needed("<num>"), "how much younger a class must be to be given a page (default: 0.80)",
        |d, v| set(&mut d.config.store.tuning.automove_ratio, automove_ratio(v))),
    sub("slab_automove_window", Needed("<sec>"), "seconds of history the page mover looks at (default: 10)",
        |d, v| set(&mut d.config.store.tuning.automove_window, automove_window(v))),
    sub("slab_automove_freeratio", Needed("<num>"), "share of memory the page mover keeps free (default: 0.010)",
        |d, v| set(&mut d.config.store.tuning.automove_freeratio, automove_freeratio(v))),
    sub("track_sizes", Without, "keep the histogram of \"stats sizes\"",
        |d, _| put(&mut d.config.store.track_sizes, true)),
    sub("watcher_logbuf_size", Needed("<KB>"), "buffer of each watcher (default: 256)",
        |d, v| set(&mut d.config.watcher_logbuf_size, scaled("watcher_logbuf_size", v, 1 << 10))),
    sub("worker_logbuf_size", Needed("<KB>"), "buffer of each worker for what is watched (default: 64)",
        |d, v| set(&mut d.config.worker_logbuf_size, scaled("worker_logbuf_size", v, 1 << 10))),
    sub("control_socket", Needed("<file>"), "UNIX socket, for this user only, on which changes are streamed to\n\
        twincache-sidecar (default: none)",
        control_socket),
    sub("journal_mem", Needed("<MB>"), "memory for changes that are not streamed yet (default: 64)",
        |d, v| set(&mut d.config.store.journal_bytes, journal_mem(v))),
    sub("replicas_ack", Needed("<num>"), "answer a change when this many replicas have it (default: 0, at once)",
        |d, v| set(&mut d.config.replicas_ack, replicas_ack(v))),
    sub("ack_timeout", Needed("<ms>"), "how long replicas_ack waits, then it answers an error (default: 1000)",
        |d, v| set(&mut d.config.ack_timeout, ack_timeout(v))),
    sub("ack_degrade", Without, "no error then: answer, and wait no more until the replicas are back",
        |d, _| put(&mut d.config.ack_degrade, true)),
    sub("modern", Without, "no effect: these are the defaults",
        |_, _| Ok(())),
    sub("no_modern", Without, "memcached 1.4's defaults: a flat LRU, nothing in the background",
        |d, _| { no_modern(d); Ok(()) }),
    sub("inline_ascii_resp", Without, "", |_, _| Ok(())),
    sub("no_inline_ascii_resp", Without, "", |_, _| Ok(())),
    sub("resp_obj_mem_limit", Optional("<MB>"), "", |d, _| {
        d.config.warnings.push("DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit,".into());
        Ok(())
    }),
    sub("drop_privileges", Without, "", |_, _| Ok(())),
    sub("no_drop_privileges", Without, "", |_, _| Ok(())),
    sub("sock_cookie_id", Needed("<num>"), "mark of the listening sockets (SO_MARK), for packet filters",
        |d, v| set(&mut d.config.sock_cookie_id, number("sock_cookie_id", v))),
    #[cfg(feature = "debug-commands")]
    sub("relaxed_privileges", Without, "", |_, _| Ok(())),
    sub("ssl_chain_cert", Optional("<file>"), "", |_, _| no_tls()),
    sub("ssl_key", Optional("<file>"), "", |_, _| no_tls()),
    sub("ssl_verify_mode", Optional("<num>"), "", |_, _| no_tls()),
    sub("ssl_keyformat", Optional("<num>"), "", |_, _| no_tls()),
    sub("ssl_ciphers", Optional("<list>"), "", |_, _| no_tls()),
    sub("ssl_ca_cert", Optional("<file>"), "", |_, _| no_tls()),
    sub("ssl_wbuf_size", Optional("<KB>"), "", |_, _| no_tls()),
    sub("ssl_session_cache", Without, "", |_, _| no_tls()),
    sub("ssl_kernel_tls", Without, "", |_, _| no_tls()),
    sub("ssl_min_version", Optional("<num>"), "", |_, _| no_tls()),
];

/// Applies every argument, in order.
pub(super) fn apply_all(args: &[String], draft: &mut Draft) -> Result<(), Exit> {
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if arg == "--" {
            draft.stray(args.by_ref());
        } else if let Some(long) = arg.strip_prefix("--") {
            apply_long(long, &mut args, draft)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            apply_letters(&arg[1..], &mut args, draft)?;
        } else {
            draft.stray(std::iter::once(arg));
        }
    }
    Ok(())
}

/// `name`, `name=value` or `name` with the next argument.
fn apply_long<'a>(text: &'a str, rest: &mut impl Iterator<Item = &'a str>, draft: &mut Draft) -> Result<(), Exit> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let opt = find_long(name)?;
    let value = match (opt.argument, value) {
        (Without, None) => "",
        (Without, Some(_)) => return Err(misused(&format!("option '--{}' doesn't allow an argument", opt.name))),
        (Needed(_), None) => {
            rest.next().ok_or_else(|| misused(&format!("option '--{}' requires an argument", opt.name)))?
        }
        (_, value) => value.unwrap_or_default(),
    };
    (opt.apply)(draft, value)
}

/// The flag of this long name, or of the only one that begins so.
fn find_long(name: &str) -> Result<&'static Opt, Exit> {
    if let Some(exact) = FLAGS.iter().find(|opt| !opt.name.is_empty() && opt.name == name) {
        return Ok(exact);
    }
    let found: Vec<&Opt> = FLAGS.iter().filter(|opt| opt.name.starts_with(name) && !opt.name.is_empty()).collect();
    match found[..] {
        [only] => Ok(only),
        [] => Err(misused(&format!("unrecognized option '--{name}'"))),
        _ => {
            let mut line = format!("option '--{name}' is ambiguous; possibilities:");
            for opt in found {
                let _ = write!(line, " '--{}'", opt.name);
            }
            Err(misused(&line))
        }
    }
}

/// The letters behind one dash. The first that needs an argument takes the rest, or the next argument.
fn apply_letters<'a>(text: &'a str, rest: &mut impl Iterator<Item = &'a str>, draft: &mut Draft) -> Result<(), Exit> {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let opt = FLAGS
            .iter()
            .find(|opt| opt.letter == Some(letter))
            .ok_or_else(|| misused(&format!("invalid option -- '{letter}'")))?;
        if !matches!(opt.argument, Needed(_)) {
            (opt.apply)(draft, "")?;
            continue;
        }
        let value = match letters.as_str() {
            "" => rest.next().ok_or_else(|| misused(&format!("option requires an argument -- '{letter}'")))?,
            attached => attached,
        };
        return (opt.apply)(draft, value);
    }
    Ok(())
}

fn misused(line: &str) -> Exit {
    Exit::refuse(1, format!("twincached: {line}\nIllegal argument \"?\""))
}

/// `-o`: each suboption of the list in turn.
fn extended(draft: &mut Draft, list: &str) -> Result<(), Exit> {
    // One comma at the end is no empty suboption.
    let list = list.strip_suffix(',').unwrap_or(list);
    if list.is_empty() {
        return Ok(());
    }
    for text in list.split(',') {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let opt = SUBOPTIONS
            .iter()
            .find(|opt| opt.name == name)
            .ok_or_else(|| Exit::refuse(1, format!("Illegal suboption \"{text}\"")))?;
        if matches!(opt.argument, Needed(_)) && value.is_none() {
            return Err(Exit::refuse(1, value_missing(name)));
        }
        (opt.apply)(draft, value.unwrap_or_default())?;
    }
    Ok(())
}

fn value_missing(name: &str) -> String {
    match name {
        "hashpower" | "tail_repair_time" | "idle_timeout" => format!("Missing numeric argument for {name}"),
        "lru_crawler_sleep" | "lru_crawler_tocrawl" => format!("Missing {name} value"),
        _ => format!("Missing {name} argument"),
    }
}

fn put<T>(place: &mut T, value: T) -> Result<(), Exit> {
    *place = value;
    Ok(())
}

fn set<T>(place: &mut T, value: Result<T, Exit>) -> Result<(), Exit> {
    put(place, value?)
}

fn not_built_in(what: &str) -> Result<(), Exit> {
    Err(Exit::usage(format!("{what} is not built in yet")))
}

fn no_tls() -> Result<(), Exit> {
    not_built_in("TLS (-Z and the ssl_ options)")
}

/// A whole number and nothing else: no sign but a minus, no blanks.
pub(super) fn whole<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// The number of a suboption.
fn number<T: FromStr>(name: &str, text: &str) -> Result<T, Exit> {
    whole(text).ok_or_else(|| Exit::refuse(1, format!("could not parse argument to {name}")))
}

fn fraction(name: &str, text: &str) -> Result<f64, Exit> {
    let parsed = text.parse::<f64>().ok().filter(|value| value.is_finite());
    parsed.ok_or_else(|| Exit::refuse(1, format!("could not parse argument to {name}")))
}

/// A size in units of `unit` bytes.
fn scaled<T: TryFrom<u64>>(name: &str, text: &str, unit: u64) -> Result<T, Exit> {
    let bytes = number::<u64>(name, text)?.checked_mul(unit).and_then(|bytes| T::try_from(bytes).ok());
    bytes.ok_or_else(|| Exit::refuse(1, format!("could not parse argument to {name}")))
}

/// A number from 1 to what an `int` holds, which is what those who read it back from `stats settings` expect.
fn above_zero(text: &str, message: &str) -> Result<u32, Exit> {
    let parsed = whole::<i32>(text).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
    parsed.ok_or_else(|| Exit::refuse(1, message))
}

fn port(text: &str) -> Result<Option<u16>, Exit> {
    match whole::<i64>(text) {
        Some(-1) => Ok(None),
        Some(n @ 0..=65535) => Ok(Some(n as u16)),
        _ => Err(Exit::usage(format!("ERROR: Invalid port number {text}."))),
    }
}

fn udp_port(_: &mut Draft, text: &str) -> Result<(), Exit> {
    match port(text)? {
        Some(0) => Ok(()),
        _ => not_built_in("UDP (-U other than 0)"),
    }
}

fn octal_mode(text: &str) -> Result<u32, Exit> {
    let mode = if text.starts_with('+') { None } else { u32::from_str_radix(text, 8).ok() };
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| Exit::usage(format!("-a needs an access mode in octal, 0 to 777, not \"{text}\"")))
}

fn megabytes(text: &str) -> Result<u64, Exit> {
    let megabytes = whole::<u64>(text).filter(|megabytes| *megabytes <= MAX_MEGABYTES);
    megabytes.map(|n| n << 20).ok_or_else(|| {
        Exit::usage(format!("-m needs a whole number of megabytes, at most {MAX_MEGABYTES}, not \"{text}\""))
    })
}

fn growth_factor(text: &str) -> Result<f64, Exit> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 1.0);
    factor.ok_or_else(|| Exit::refuse(1, "Factor must be greater than 1"))
}

/// COMPAT(delimiter_of_one_byte): only the first byte counts.
fn delimiter(draft: &mut Draft, text: &str) -> Result<(), Exit> {
    let first = text.bytes().next().ok_or_else(|| Exit::refuse(1, "No delimiter specified"))?;
    draft.config.prefix_delimiter = first;
    put(&mut draft.config.detail_enabled, true)
}

fn threads(draft: &mut Draft, text: &str) -> Result<(), Exit> {
    let threads = above_zero(text, "Number of threads must be greater than 0")? as usize;
    if threads > MAX_THREADS {
        return Err(Exit::refuse(1, format!("Number of threads must be at most {MAX_THREADS}")));
    }
    if threads > MANY_THREADS {
        let warning = "WARNING: Setting a high number of worker threads is not recommended.\n \
                       Set this value to the number of cores in your machine or less.";
        draft.config.warnings.push(warning.into());
    }
    draft.config.store.threads = threads;
    put(&mut draft.config.threads, threads)
}

fn backlog(text: &str) -> Result<u32, Exit> {
    let parsed = whole::<i32>(text).and_then(|n| u32::try_from(n).ok());
    parsed.ok_or_else(|| Exit::usage(format!("-b needs a whole number, not \"{text}\"")))
}

fn protocol(draft: &mut Draft, text: &str) -> Result<(), Exit> {
    draft.protocol_given = true;
    let binding = match text {
        "auto" => Ok(Binding::Auto),
        "ascii" => Ok(Binding::Ascii),
        "binary" => Ok(Binding::Binary),
        _ => Err(Exit::usage(format!(
            "Invalid value for binding protocol: {text}\n -- should be one of auto, binary, or ascii"
        ))),
    };
    set(&mut draft.config.binding, binding)
}

fn item_size(text: &str) -> Result<usize, Exit> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 1 << 20),
        _ => (text, 1),
    };
    let bytes = whole::<usize>(digits).and_then(|n| n.checked_mul(unit));
    bytes.ok_or_else(|| Exit::usage(format!("-I needs a number of bytes, or one with k or m, not \"{text}\"")))
}

fn hash_power(text: &str) -> Result<u8, Exit> {
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

fn tail_repair_time(text: &str) -> Result<u32, Exit> {
    let seconds: u32 = number("tail_repair_time", text)?;
    within(seconds, 10..=u32::MAX, "Cannot set tail_repair_time to less than 10 seconds")
}

fn hash_algorithm(text: &str) -> Result<HashAlgorithm, Exit> {
    let known = [HashAlgorithm::Jenkins, HashAlgorithm::Murmur3, HashAlgorithm::Xxh3];
    let found = known.into_iter().find(|algorithm| algorithm.name() == text);
    found.ok_or_else(|| Exit::refuse(1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"))
}

fn crawler_sleep(text: &str) -> Result<u32, Exit> {
    let message = "LRU crawler sleep must be between 0 and 1 second";
    within(whole(text).unwrap_or(u32::MAX), 0..=1_000_000, message)
}

fn tocrawl(text: &str) -> Result<u32, Exit> {
    whole(text).ok_or_else(|| Exit::refuse(1, "lru_crawler_tocrawl takes a numeric 32bit value"))
}

fn maintainer(draft: &mut Draft, on: bool) {
    draft.config.store.maintainer = on;
    draft.config.store.tuning.segmented = on;
}

fn lru_share(name: &str, text: &str) -> Result<u32, Exit> {
    within(whole(text).unwrap_or(0), 1..=79, &format!("{name} must be > 1 and < 80"))
}

fn lru_factor(name: &str, text: &str) -> Result<f64, Exit> {
    let factor = text.parse::<f64>().ok().filter(|factor| factor.is_finite() && *factor > 0.0);
    factor.ok_or_else(|| Exit::refuse(1, format!("{name} must be > 0")))
}

fn chunk_max(text: &str) -> Result<usize, Exit> {
    let kilobytes: usize = number("slab_chunk_max", text)?;
    within(kilobytes, 1..=PAGE >> 10, "slab_chunk_max must be 1 to 1024 kilobytes").map(|n| n << 10)
}

fn accounting(text: &str) -> Result<Accounting, Exit> {
    match text {
        "native" => Ok(Accounting::Native),
        "memcached" => Ok(Accounting::Memcached),
        _ => Err(Exit::refuse(1, "Unknown slab_accounting option (native, memcached)")),
    }
}

fn automove(text: &str) -> Result<u8, Exit> {
    let mode = if text.is_empty() { Some(1) } else { whole(text) };
    within(mode.unwrap_or(u8::MAX), 0..=2, "slab_automove must be between 0 and 2")
}

/// COMPAT(automove_ratio_of_one): what the message forbids is taken.
fn automove_ratio(text: &str) -> Result<f64, Exit> {
    let ratio = fraction("slab_automove_ratio", text)?;
    if ratio > 0.0 && ratio <= 1.0 {
        return Ok(ratio);
    }
    Err(Exit::refuse(1, "slab_automove_ratio must be > 0 and < 1"))
}

fn automove_window(text: &str) -> Result<u32, Exit> {
    let seconds: u32 = number("slab_automove_window", text)?;
    let seconds = within(seconds, 3..=u32::MAX, "slab_automove_window must be > 2")?;
    within(seconds, 3..=1800, "slab_automove_window must be at most 1800")
}

fn automove_freeratio(text: &str) -> Result<f64, Exit> {
    let ratio = fraction("slab_automove_freeratio", text)?;
    if (0.0..=1.0).contains(&ratio) {
        return Ok(ratio);
    }
    Err(Exit::refuse(1, "slab_automove_freeratio must be between 0 and 1"))
}

fn control_socket(draft: &mut Draft, path: &str) -> Result<(), Exit> {
    if path.is_empty() {
        return Err(Exit::refuse(1, value_missing("control_socket")));
    }
    put(&mut draft.config.control_socket, Some(path.to_owned()))
}

fn journal_mem(text: &str) -> Result<usize, Exit> {
    let megabytes = number("journal_mem", text)?;
    within(megabytes, JOURNAL_MEGABYTES, "journal_mem must be 8 to 65536 megabytes").map(|n| n << 20)
}

fn replicas_ack(text: &str) -> Result<u32, Exit> {
    within(number("replicas_ack", text)?, 0..=REPLICAS_MAX, "replicas_ack must be 0 to 5")
}

fn ack_timeout(text: &str) -> Result<Duration, Exit> {
    let ms = number("ack_timeout", text)?;
    let ms = within(ms, 1..=ACK_TIMEOUT_MAX_MS, "ack_timeout must be 1 to 3600000 milliseconds")?;
    Ok(Duration::from_millis(ms.into()))
}

fn no_modern(draft: &mut Draft) {
    if !draft.chunk_max_given {
        draft.config.store.slab_chunk_max = PAGE;
    }
    draft.config.store.slab_reassign = false;
    draft.config.store.tuning.automove = 0;
    draft.config.maxconns_fast = false;
    draft.config.hash_algorithm = HashAlgorithm::Jenkins;
    draft.config.store.crawler = false;
    maintainer(draft, false);
}

fn within<T: PartialOrd>(value: T, range: std::ops::RangeInclusive<T>, message: &str) -> Result<T, Exit> {
    if range.contains(&value) { Ok(value) } else { Err(Exit::refuse(1, message)) }
}

/// `-V`. Scripts cut the number out of the first line and expect no second one.
fn version() -> String {
    format!("memcached {}\n", crate::VERSION)
}

fn license() -> String {
    format!("{}twincached {}\n\n{}", version(), env!("CARGO_PKG_VERSION"), include_str!("../../LICENSE"))
}

/// Where the explanations of `--help` begin.
const HELP_COLUMN: usize = 26;

fn help() -> String {
    let mut text = version();
    let _ = writeln!(text, "as offered by twincached {}", env!("CARGO_PKG_VERSION"));
    for opt in FLAGS.iter().filter(|opt| !opt.help.is_empty()) {
        push_help(&mut text, &flag_usage(opt), opt.help);
    }
    for opt in SUBOPTIONS.iter().filter(|opt| !opt.help.is_empty()) {
        push_help(&mut text, &suboption_usage(opt), opt.help);
    }
    text
}

fn flag_usage(opt: &Opt) -> String {
    let letter = opt.letter.unwrap_or(' ');
    match (opt.name, opt.argument) {
        ("", Needed(argument)) => format!("-{letter} {argument}"),
        (name, Needed(argument)) => format!("-{letter}, --{name}={argument}"),
        (name, _) => format!("-{letter}, --{name}"),
    }
}

fn suboption_usage(opt: &Opt) -> String {
    match opt.argument {
        Without => format!("   - {}:", opt.name),
        Needed(argument) => format!("   - {}={argument}:", opt.name),
        Optional(argument) => format!("   - {}[={argument}]:", opt.name),
    }
}

/// One option: its usage, then its explanation in a column, on the next line where the usage is too wide.
fn push_help(text: &mut String, usage: &str, help: &str) {
    let _ = write!(text, "{usage:HELP_COLUMN$}");
    let mut lines = help.lines();
    if usage.len() < HELP_COLUMN {
        let _ = writeln!(text, "{}", lines.next().unwrap_or_default());
    } else {
        text.push('\n');
    }
    for line in lines {
        let _ = writeln!(text, "{:HELP_COLUMN$}{line}", "");
    }
}
