//! Classic text commands.
//!
//! ```text
//! <word> <token>* [noreply] \r\n        TextCommand; spaces may stand before some administrative ones
//! <word> <key> <client flags> <exptime> <length> [cas] [noreply] \r\n <data> \r\n        Store
//! ```
//!
//! Administrative commands are only recognised here; their arguments are read by `command::admin`.
//!
//! Not here: where a line ends, and which words are meta (`line`).

pub use super::request::{Admin, Get, TextCommand, TextStore};
use super::request::{BAD_FORMAT, Bad, Cut, Mode, Parsed, Refusal, Request, StoreHeader, bad};
use super::token;
use super::token::Tokens;
use super::token::{KEY_MAX, VALUE_MAX, data_length};

/// Answer to data that does not end in `\r\n`.
pub const BAD_CHUNK: &[u8] = b"CLIENT_ERROR bad data chunk\r\n";

/// Answer to an exptime that is not a number.
pub const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";

/// Answer to a delta that is not a number.
pub const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";

/// Answer to an unknown command.
pub const UNKNOWN: &[u8] = b"ERROR\r\n";

/// The fast path: parses the line at the start of `input` if it is as nearly every client sends it: get of one key, or
/// set with numbers that are not too large; single spaces, nothing more, and `\r\n`. It takes one pass and needs no
/// search for the end of the line. None for any other line, which is left to [`parse_line`].
#[inline(always)]
pub(super) fn parse_common(input: &[u8]) -> Option<Cut<'_>> {
    if !input.starts_with(b"get ") && !input.starts_with(b"set ") {
        return None;
    }
    let rest = &input[4..];
    let (key, behind) = rest.split_at(token::word_len(&rest[..rest.len().min(KEY_MAX + 1)]));
    if key.is_empty() || key.len() > KEY_MAX {
        return None;
    }
    let head = |end: &[u8]| input.len() - end.len() + 2;
    if input[0] == b'g' {
        let get = Get { keys: key, single: true, with_cas: false, exptime: None };
        return behind.starts_with(b"\r\n").then(|| Cut::new(Request::Text(TextCommand::Get(get)), head(behind)));
    }
    let (client_flags, text) = spaced_number(behind)?;
    let (exptime, text) = spaced_number(text)?;
    let (len, text) = spaced_number(text)?;
    let end = text.strip_prefix(b" noreply").unwrap_or(text);
    if len > VALUE_MAX as u64 || !end.starts_with(b"\r\n") {
        return None;
    }
    let (client_flags, exptime, quiet) =
        (client_flags.try_into().ok()?, exptime.try_into().ok()?, end.len() < text.len());
    let store = TextStore { mode: Mode::Set, key, client_flags, exptime, compare: None, quiet };
    Some(Cut { request: Request::Store(StoreHeader::Text(store)), head: head(end), body: len as usize, tail: 2 })
}

/// The number of up to ten digits behind a space, and what follows it.
#[inline]
fn spaced_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let [b' ', digits @ ..] = text else { return None };
    let (mut number, mut count) = (0_u64, 0);
    while let Some(digit) = digits.get(count).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        number = number.wrapping_mul(10).wrapping_add(digit.into());
        count += 1;
    }
    // With more digits the number may have wrapped.
    (1..=10).contains(&count).then(|| (number, &digits[count..]))
}

/// Parses again a get, gets, gat or gats that was accepted as the first `head` bytes of `input`, to go on with its
/// answer. Its keys, which may be many, are not checked again.
pub fn get_again(input: &[u8], head: usize) -> Cut<'_> {
    let (word, rest) = split_word(token::without_end(&input[..head - 1]));
    let mut words = token::words(rest);
    let exptime = if word.starts_with(b"gat") { words.next().and_then(token::strict_i32) } else { None };
    let get = Get { keys: words.rest(), single: false, with_cas: word.ends_with(b"s"), exptime };
    Cut::new(Request::Text(TextCommand::Get(get)), head)
}

/// The bytes before the first space, and the rest.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    line.split_at(memchr::memchr(b' ', line).unwrap_or(line.len()))
}

/// Parses a line of `consumed` bytes with its end.
pub(super) fn parse_line(line: &[u8], consumed: usize) -> Parsed<'_> {
    let (word, rest) = split_word(line);
    match word {
        b"get" => parse_get(rest, consumed, false),
        b"gets" => parse_get(rest, consumed, true),
        b"set" => parse_store(line, consumed, Mode::Set, false),
        b"add" => parse_store(line, consumed, Mode::Add, false),
        b"replace" => parse_store(line, consumed, Mode::Replace, false),
        b"append" => parse_store(line, consumed, Mode::Append, false),
        b"prepend" => parse_store(line, consumed, Mode::Prepend, false),
        b"cas" => parse_store(line, consumed, Mode::Set, true),
        b"delete" => parse_delete(line, consumed),
        b"incr" => parse_arith(line, consumed, true),
        b"decr" => parse_arith(line, consumed, false),
        b"touch" => parse_touch(line, consumed),
        b"gat" => parse_gat(rest, consumed, false),
        b"gats" => parse_gat(rest, consumed, true),
        b"quit" => request(TextCommand::Quit, consumed),
        _ => parse_rare(word, line, consumed),
    }
}

fn request(command: TextCommand<'_>, consumed: usize) -> Parsed<'_> {
    Parsed::Request(Cut::new(Request::Text(command), consumed))
}

#[inline]
fn parse_get(arguments: &[u8], consumed: usize, with_cas: bool) -> Parsed<'_> {
    let keys = arguments.strip_prefix(b" ").unwrap_or(arguments);
    let single = !keys.is_empty() && keys.len() <= KEY_MAX && memchr::memchr(b' ', keys).is_none();
    match single || check_keys(keys) {
        true => request(TextCommand::Get(Get { keys, single, with_cas, exptime: None }), consumed),
        false => bad(consumed, 0, refuse_get(&Get { keys, single, with_cas, exptime: None })),
    }
}

fn parse_gat(arguments: &[u8], consumed: usize, with_cas: bool) -> Parsed<'_> {
    let mut words = token::words(arguments);
    let exptime = words.next();
    let keys = words.rest();
    if words.next().is_none() {
        return bad(consumed, 0, BAD_FORMAT);
    }
    let Some(exptime) = exptime.and_then(token::strict_i32) else {
        return bad(consumed, 0, BAD_EXPTIME);
    };
    match check_keys(keys) {
        true => request(TextCommand::Get(Get { keys, single: false, with_cas, exptime: Some(exptime) }), consumed),
        false => bad(consumed, 0, BAD_FORMAT),
    }
}

/// Keys of more bytes than this together are looked at in parts of as many: 0.1 ms.
pub const CHECKED_AT_ONCE: usize = 64 << 10;

/// Whether there is at least one key, and none that is too long. One long key refuses the whole line before anything is
/// answered. Where they are many they are not looked at yet: see [`check_some`].
fn check_keys(keys: &[u8]) -> bool {
    if keys.len() > CHECKED_AT_ONCE {
        return true;
    }
    let mut words = token::words(keys);
    words.next().is_some_and(|key| key.len() <= KEY_MAX) && words.all(|key| key.len() <= KEY_MAX)
}

/// Looks at some of the keys of an accepted get. How many bytes are left to be looked at; None if one is too long.
pub fn check_some(keys: &[u8]) -> Option<usize> {
    let part = &keys[..keys.len().min(CHECKED_AT_ONCE)];
    let is_last = part.len() == keys.len();
    let mut words = token::words(part);
    let mut left = keys.len() - part.len();
    while let Some(key) = words.next() {
        if key.len() > KEY_MAX {
            return None;
        }
        // The part may end within it.
        if words.rest().is_empty() && !is_last {
            left += key.len();
        }
    }
    Some(left)
}

/// The refusal of a get, a key of which is too long.
pub fn refuse_get(get: &Get<'_>) -> &'static [u8] {
    let is_quiet = get.exptime.is_none() && get.keys.ends_with(b" noreply");
    if is_quiet { b"" } else { BAD_FORMAT }
}

fn parse_store(line: &[u8], consumed: usize, mode: Mode, cas: bool) -> Parsed<'_> {
    let tokens = Tokens::new(line);
    let quiet = tokens.ends_with_noreply();
    // COMPAT(store_format): noreply is not honoured before the length is known, since what follows is taken for commands.
    let Some(len) = tokens.get(4).and_then(data_length) else {
        return bad(consumed, 0, BAD_FORMAT);
    };
    match store_header(&tokens, mode, cas, quiet) {
        Some(store) => Parsed::Request(Cut {
            request: Request::Store(StoreHeader::Text(store)),
            head: consumed,
            body: len,
            tail: 2,
        }),
        None => bad(consumed, len as u64 + 2, if quiet { b"" } else { BAD_FORMAT }),
    }
}

fn store_header<'a>(tokens: &Tokens<'a>, mode: Mode, cas: bool, quiet: bool) -> Option<TextStore<'a>> {
    Some(TextStore {
        mode,
        key: tokens.get(1).filter(|key| key.len() <= KEY_MAX)?,
        client_flags: token::c_flags(tokens.get(2)?)?,
        exptime: token::c_exptime(tokens.get(3)?)?,
        compare: if cas { Some(token::strict_u64(tokens.get(5)?)?) } else { None },
        quiet,
    })
}

/// The key of a command that has one, and whether the command is quiet; None when tokens are missing or the key is too
/// long.
fn key_command<'a>(tokens: &Tokens<'a>, least: usize) -> Option<(&'a [u8], bool)> {
    let key = tokens.get(1).filter(|key| key.len() <= KEY_MAX)?;
    let enough = tokens.as_slice().len() >= least;
    enough.then(|| (key, is_quiet(tokens, least)))
}

/// Whether `noreply` is the last of enough tokens. It may be one of those that the command needs.
// COMPAT(noreply_argument): `incr <key> noreply` lacks its delta and is silent, as memcached's is.
fn is_quiet(tokens: &Tokens<'_>, least: usize) -> bool {
    tokens.as_slice().len() >= least && tokens.ends_with_noreply()
}

fn bad_format<'a>(tokens: &Tokens<'_>, least: usize, consumed: usize) -> Parsed<'a> {
    bad(consumed, 0, if is_quiet(tokens, least) { b"" } else { BAD_FORMAT })
}

// COMPAT(delete_words): any words may stand behind the key.
fn parse_delete(line: &[u8], consumed: usize) -> Parsed<'_> {
    let tokens = Tokens::new(line);
    match key_command(&tokens, 2) {
        Some((key, quiet)) => request(TextCommand::Delete { key, quiet }, consumed),
        None => bad_format(&tokens, 2, consumed),
    }
}

fn parse_arith(line: &[u8], consumed: usize, incr: bool) -> Parsed<'_> {
    let tokens = Tokens::new(line);
    let Some((key, quiet)) = key_command(&tokens, 3) else {
        return bad_format(&tokens, 3, consumed);
    };
    match tokens.get(2).and_then(token::strict_u64) {
        Some(delta) => request(TextCommand::Arith { key, incr, delta, quiet }, consumed),
        None => bad(consumed, 0, if quiet { b"" } else { BAD_DELTA }),
    }
}

fn parse_touch(line: &[u8], consumed: usize) -> Parsed<'_> {
    let tokens = Tokens::new(line);
    let Some((key, quiet)) = key_command(&tokens, 3) else {
        return bad_format(&tokens, 3, consumed);
    };
    match tokens.get(2).and_then(token::strict_i32) {
        Some(exptime) => request(TextCommand::Touch { key, exptime, quiet }, consumed),
        None => bad(consumed, 0, if quiet { b"" } else { BAD_EXPTIME }),
    }
}

fn parse_rare<'a>(word: &[u8], line: &'a [u8], consumed: usize) -> Parsed<'a> {
    let tokens = Tokens::new(line);
    let word = if word.is_empty() { late_word(&tokens) } else { word };
    let verb = match word {
        b"stats" => Admin::Stats,
        b"flush_all" => Admin::FlushAll,
        b"version" => Admin::Version,
        b"verbosity" => Admin::Verbosity,
        b"shutdown" => Admin::Shutdown,
        b"cache_memlimit" => Admin::CacheMemlimit,
        b"slabs" => Admin::Slabs,
        b"lru" => Admin::Lru,
        b"lru_crawler" => Admin::LruCrawler,
        b"watch" => Admin::Watch,
        b"refresh_certs" => Admin::RefreshCerts,
        b"extstore" => Admin::Extstore,
        b"config" if tokens.as_slice()[1..] == [&b"get"[..], b"cluster"] => Admin::Config,
        b"replica" => Admin::Replica,
        b"misbehave" => Admin::Misbehave,
        b"debugtime" => Admin::Debugtime,
        b"debugitem" => Admin::Debugitem,
        _ => return unknown(&tokens, consumed),
    };
    let noreply = verb.honours_noreply() && tokens.as_slice().len() > 1 && tokens.ends_with_noreply();
    request(TextCommand::Admin { verb, line, noreply }, consumed)
}

/// The word of a command before which spaces may stand.
// COMPAT(leading_spaces): they make an unknown command of all but these.
fn late_word<'a>(tokens: &Tokens<'a>) -> &'a [u8] {
    match tokens.get(0) {
        Some(
            word @ (b"flush_all" | b"verbosity" | b"shutdown" | b"cache_memlimit" | b"slabs" | b"lru" | b"lru_crawler"
            | b"extstore" | b"refresh_certs"),
        ) => word,
        _ => b"",
    }
}

/// An unknown command. A line that looks like HTTP closes: a browser was tricked into posting here, and what
/// follows may be commands of the attacker's choice.
fn unknown<'a>(tokens: &Tokens<'_>, consumed: usize) -> Parsed<'a> {
    let http = match tokens.as_slice() {
        [_, .., last] => last.starts_with(b"HTTP/"),
        _ => false,
    };
    if http {
        return Parsed::Bad(Bad { consumed, swallow: 0, reply: Refusal::Line(b""), close: true });
    }
    bad(consumed, 0, if tokens.ends_with_noreply() { b"" } else { UNKNOWN })
}

#[cfg(test)]
#[path = "tests/text.rs"]
mod tests;
