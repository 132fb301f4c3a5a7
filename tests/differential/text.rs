//! Random classic text commands, good and bad.
//!
//! Not here: meta commands, which share the connection.

use crate::common::Rng;
use crate::keys;
use crate::run::{CAS, Command};

/// A command.
pub fn command(rng: &mut Rng) -> Command {
    match rng.below(100) {
        0..30 => get(rng),
        30..36 => get_and_touch(rng),
        36..62 => store(rng),
        62..68 => cas(rng),
        68..76 => arith(rng),
        76..82 => delete(rng),
        82..86 => touch(rng),
        86..89 => bad_chunk(rng),
        89..92 => refused_store(rng),
        92..94 => bad_length(rng),
        94..97 => bad_line(rng),
        _ => other(rng),
    }
}

/// A command that closes the connection, and whether it must be alone.
pub fn closing(rng: &mut Rng) -> (Command, bool) {
    let long = [b"set ".to_vec(), vec![b'k'; 2100]].concat();
    let lines: [(&[u8], bool); 4] =
        [(b"quit\r\n", false), (b"quit now\r\n", false), (b"GET / HTTP/1.1\r\n", true), (&long, true)];
    let (line, alone) = rng.pick(&lines);
    (Command::both(line.to_vec()), alone)
}

/// What makes 1.6.18 answer `CLIENT_ERROR bad command line format` and nothing else happen.
pub fn bad_format() -> Vec<u8> {
    [b"touch ".to_vec(), keys::too_long(), b" 0\r\n".to_vec()].concat()
}

/// Joins words with single, now and then double blanks, and ends the line.
pub fn line(rng: &mut Rng, words: &[&[u8]]) -> Vec<u8> {
    let mut line = Vec::new();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let blanks = if line.is_empty() { 0 } else { 1 + usize::from(rng.one_in(60)) };
        line.extend(std::iter::repeat_n(b' ', blanks));
        line.extend_from_slice(word);
    }
    line.extend_from_slice(if rng.one_in(40) { b"  " } else { b"" });
    line.extend_from_slice(if rng.one_in(30) { b"\n" } else { b"\r\n" });
    line
}

fn noreply(rng: &mut Rng) -> &'static [u8] {
    if rng.one_in(6) { b"noreply" } else { b"" }
}

fn get(rng: &mut Rng) -> Command {
    let verb: &[u8] = if rng.one_in(3) { b"gets" } else { b"get" };
    let (mask, keys) = several(rng, 30);
    let words: Vec<&[u8]> = std::iter::once(verb).chain(keys.iter().map(Vec::as_slice)).collect();
    Command::both(line(rng, &words)).reads(mask)
}

/// Several keys; a line of more than 2048 bytes is for get and gets alone.
fn several(rng: &mut Rng, most: usize) -> (u32, Vec<Vec<u8>>) {
    let count = match rng.below(8) {
        0 => 2 + rng.below(4),
        1 if rng.one_in(8) => most,
        _ => 1,
    };
    let indexes: Vec<usize> = (0..count).map(|_| keys::speakable(rng)).collect();
    let mask = indexes.iter().fold(0, |mask, index| mask | 1 << index);
    (mask, indexes.into_iter().map(keys::key).collect())
}

fn get_and_touch(rng: &mut Rng) -> Command {
    let verb: &[u8] = if rng.one_in(2) { b"gats" } else { b"gat" };
    let exptime = if rng.one_in(15) { "abc".into() } else { keys::exptime(rng) };
    let (mask, keys) = several(rng, 6);
    let words: Vec<&[u8]> = [verb, exptime.as_bytes()].into_iter().chain(keys.iter().map(Vec::as_slice)).collect();
    Command::both(line(rng, &words)).reads(mask)
}

fn store(rng: &mut Rng) -> Command {
    let verbs: [&[u8]; 8] = [b"set", b"set", b"set", b"set", b"add", b"replace", b"append", b"prepend"];
    let verb = rng.pick(&verbs);
    let joins = verb.ends_with(b"pend");
    let index = if joins { keys::joined(rng) } else { keys::speakable(rng) };
    let value = keys::value(rng, index);
    let noreply = noreply(rng);
    let header = store_header(rng, verb, index, value.len(), &[noreply]);
    Command::both([header, value, b"\r\n".to_vec()].concat()).writes(index)
}

fn store_header(rng: &mut Rng, verb: &[u8], index: usize, len: usize, more: &[&[u8]]) -> Vec<u8> {
    let (key, flags, exptime, len) = (keys::key(index), keys::flags(rng), keys::exptime(rng), len.to_string());
    let mut words = vec![verb, &key, flags.as_bytes(), exptime.as_bytes(), len.as_bytes()];
    words.extend_from_slice(more);
    line(rng, &words)
}

fn cas(rng: &mut Rng) -> Command {
    let index = keys::speakable(rng);
    let value = keys::value(rng, index);
    let wrong: [&[u8]; 3] = [b"0", b"9223372036854775808", b"18446744073709551615"];
    let unique = if rng.one_in(4) { rng.pick(&wrong) } else { CAS };
    let noreply = noreply(rng);
    let header = store_header(rng, b"cas", index, value.len(), &[unique, noreply]);
    Command::both([header, value, b"\r\n".to_vec()].concat()).writes(index).with_cas_of(index)
}

/// 1.6.18 takes a plus before the delta.
fn arith(rng: &mut Rng) -> Command {
    let verb: &[u8] = if rng.one_in(2) { b"incr" } else { b"decr" };
    let index = keys::number(rng);
    let delta = match rng.below(12) {
        0 if verb == b"decr" => "18446744073709551615".into(),
        1 => rng.pick(&["abc", "-1", "18446744073709551616", "+1"]).to_string(),
        2 => keys::step(rng).to_string(),
        _ => rng.below(20).to_string(),
    };
    let (key, noreply) = (keys::key(index), noreply(rng));
    let line = |delta: &str| line(&mut rng.clone(), &[verb, &key, delta.as_bytes(), noreply]);
    Command::split(line(&delta), line(if delta == "+1" { "abc" } else { &delta })).counts(index)
}

/// 1.6.18 refuses an argument other than 0; 1.6.45 ignores it.
fn delete(rng: &mut Rng) -> Command {
    let index = keys::speakable(rng);
    let (key, noreply) = (keys::key(index), noreply(rng));
    let time: &[u8] = rng.pick::<&[u8]>(&[b"", b"", b"", b"0", b"5"]);
    let ours = line(rng, &[b"delete", &key, time, noreply]);
    let theirs = line(rng, &[b"delete", &key, noreply]);
    if time == b"5" { Command::split(ours, theirs) } else { Command::both(ours) }.writes(index)
}

fn touch(rng: &mut Rng) -> Command {
    let index = keys::speakable(rng);
    let exptime = if rng.one_in(15) { "abc".into() } else { keys::exptime(rng) };
    let noreply = noreply(rng);
    Command::both(line(rng, &[b"touch", &keys::key(index), exptime.as_bytes(), noreply])).writes(index)
}

/// Data that does not end where it should: length + 2 bytes are gone, the rest is a command.
fn bad_chunk(rng: &mut Rng) -> Command {
    let index = keys::speakable(rng);
    let len = 2 + rng.below(40);
    let mut data = vec![b'd'; len];
    data.extend_from_slice(rng.pick(&[b"xy", b"\n\r", b"\r\r", b"\n\n"]));
    if rng.one_in(3) {
        data[len / 2] = b'\r';
        data[len / 2 + 1] = b'\n';
    }
    data.extend_from_slice(b"bogus\r\n");
    let noreply = noreply(rng);
    let header = store_header(rng, b"set", index, len, &[noreply]);
    Command::both([header, data].concat()).writes(index)
}

/// A line with a bad key, flags, exptime or cas: 1.6.45 swallows the data and answers one error, or nothing
/// after noreply; 1.6.18 takes the data for a command.
fn refused_store(rng: &mut Rng) -> Command {
    let value = keys::value(rng, 0);
    let (len, key, long) = (value.len().to_string(), keys::key(keys::speakable(rng)), keys::too_long());
    let len = len.as_bytes();
    let noreply = noreply(rng);
    let words: Vec<&[u8]> = match rng.below(6) {
        0 => vec![b"set", &long, b"0", b"0", len],
        1 => vec![b"add", &key, b"abc", b"0", len],
        2 => vec![b"append", &key, b"-1", b"0", len],
        3 => vec![b"replace", &key, b"99999999999999999999", b"0", len],
        4 => vec![b"set", &key, b"0", b"abc", len],
        _ => vec![b"cas", &key, b"0", b"0", len, b"18446744073709551616"],
    };
    let words: Vec<&[u8]> = words.into_iter().chain([noreply]).collect();
    let ours = [line(rng, &words), value, b"\r\n".to_vec()].concat();
    let theirs = if noreply.is_empty() { bad_format() } else { Vec::new() };
    Command::split(ours, theirs)
}

/// A length that is none: nothing is swallowed, the next line is a command. 1.6.18 accepts `+5`.
fn bad_length(rng: &mut Rng) -> Command {
    let key = keys::key(keys::speakable(rng));
    let len: &[u8] = rng.pick::<&[u8]>(&[b"abc", b"-1", b"2147483647", b"+5", b"5x"]);
    let ours = line(rng, &[b"set", &key, b"0", b"0", len]);
    let theirs = if len == b"+5" { bad_format() } else { ours.clone() };
    let next = b"bogus\r\n";
    Command::split([&ours[..], next].concat(), [&theirs[..], next].concat())
}

/// Lines that 1.6.18 answers with `ERROR`, or not at all, where 1.6.45 answers `CLIENT_ERROR`; and the other
/// way round.
fn bad_line(rng: &mut Rng) -> Command {
    let too_few: [&[u8]; 13] = [
        b"\r\n",
        b"\n",
        b"a\r\n",
        b"mn\n",
        b"get\r\n",
        b"gets \r\n",
        b"gat\r\n",
        b"gat 0\r\n",
        b"set a 0 0\r\n",
        b"delete\r\n",
        b"incr a\r\n",
        b"touch a\r\n",
        b"verbosity\r\n",
    ];
    let error: [&[u8]; 3] = [b"  get k0\r\n", b" \r\n\r\n", b"    mn\r\n"];
    let (ours, theirs) = match rng.below(4) {
        0 => (rng.pick(&error), b"bogus\r\n".to_vec()),
        1 => (b"bogus noreply\r\n".as_slice(), Vec::new()),
        _ => (rng.pick(&too_few), bad_format()),
    };
    if ours == b" \r\n\r\n" {
        // Three bytes, then two: two short lines.
        return Command::split(ours.to_vec(), [bad_format(), bad_format()].concat());
    }
    Command::split(ours.to_vec(), theirs)
}

fn other(rng: &mut Rng) -> Command {
    let long = keys::too_long();
    let lines: [&[&[u8]]; 15] = [
        &[b"flush_all"],
        &[b"flush_all", b"0"],
        &[b"flush_all", b"-5", b"noreply"],
        &[b"flush_all", b"abc"],
        &[b"version"],
        &[b"version", b"a", b"b"],
        &[b"verbosity", b"0"],
        &[b"verbosity", b"0", b"noreply"],
        &[b"bogus"],
        &[b"GET", b"k0"],
        &[b"delete", &long],
        &[b"incr", &long, b"1"],
        &[b"touch", &long, b"0"],
        &[b"stats", b"bogus"],
        &[b"config", b"get", b"cluster"],
    ];
    // A flush empties the key space: seldom, or everything is a miss.
    let first = if rng.one_in(20) { 0 } else { 4 };
    let words = lines[first + rng.below(lines.len() - first)];
    let command = Command::both(line(rng, words));
    if words[0] == b"flush_all" { command.writes_all() } else { command }
}
