//! Input for the fuzz tests: valid streams from a grammar, and what may happen to them on the way.
//!
//! ```text
//!   Rng ──> text() | binary()  valid requests on few keys ──> mutate() ──> flips, cuts, splices, huge numbers
//!      └──> garbage()          any bytes
//! ```
//!
//! Left out on purpose, because they change what the tests measure: `cache_memlimit` (memory), `verbosity`
//! (the size of stderr), `shutdown`.

use super::common::{Packet, Rng};

/// Few keys, so that requests meet each other's items.
const KEYS: [&[u8]; 6] = [b"a", b"bb", b"key:3", b"k\x01\xff", b"0123456789012345678901234567890123456789", b"n"];

/// Numbers that parsers get wrong.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2",
    "60",
    "-0",
    "+5",
    "007",
    "250",
    "2048",
    "2592001",
    "2147483647",
    "2147483648",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
];

/// Administrative lines.
const ADMIN: [&str; 36] = [
    "version",
    "mn",
    "stats",
    "stats items",
    "stats slabs",
    "stats settings",
    "stats sizes",
    "stats conns",
    "stats reset",
    "stats detail on",
    "stats detail dump",
    "stats detail off",
    "stats cachedump 1 10",
    "stats bogus",
    "flush_all",
    "flush_all 1",
    "flush_all -1",
    "flush_all noreply",
    "slabs reassign 1 2",
    "slabs reassign -1 3",
    "slabs automove 1",
    "slabs automove 9",
    "lru tune 10 20 0.3 1.5",
    "lru mode segmented",
    "lru temp_ttl 60",
    "lru_crawler crawl all",
    "lru_crawler crawl 1,2,3",
    "lru_crawler metadump all",
    "lru_crawler metadump hash",
    "lru_crawler mgdump all",
    "lru_crawler enable",
    "watch bogus",
    "GET a",
    "extstore item_age 5",
    "",
    "me a",
];

/// Flags of meta commands.
const META_FLAGS: [&str; 32] = [
    "b", "k", "q", "v", "s", "f", "c", "t", "h", "l", "u", "x", "I", "O123", "T30", "T-1", "T0", "N30", "R30", "E77",
    "C77", "C0", "F5", "MS", "ME", "MA", "MP", "MR", "MI", "MD", "J5", "D3",
];

/// `count` valid text and meta requests.
pub fn text(rng: &mut Rng, count: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..count {
        text_request(rng, &mut out);
    }
    out
}

fn text_request(rng: &mut Rng, out: &mut Vec<u8>) {
    match rng.below(10) {
        0..3 => text_store(rng, out),
        3 => meta_store(rng, out),
        4 => meta(rng, out),
        5..7 => text_lookup(rng, out),
        7 => line(out, &[rng.pick(&["incr", "decr"]).as_bytes(), key(rng), number(rng)], rng.one_in(4)),
        8 => line(out, &[b"delete", key(rng)], rng.one_in(4)),
        _ => line(out, &[rng.pick(&ADMIN).as_bytes()], false),
    }
}

fn line(out: &mut Vec<u8>, words: &[&[u8]], noreply: bool) {
    out.extend_from_slice(&words.join(&b' '));
    out.extend_from_slice(if noreply { b" noreply\r\n" } else { b"\r\n" });
}

fn text_store(rng: &mut Rng, out: &mut Vec<u8>) {
    let verb = rng.pick(&["set", "set", "add", "replace", "append", "prepend", "cas"]);
    let value = value(rng);
    let len = value.len().to_string();
    let mut words =
        vec![verb.as_bytes(), key(rng), number(rng), rng.pick(&["0", "0", "100", "-1"]).as_bytes(), len.as_bytes()];
    if verb == "cas" {
        words.push(number(rng));
    }
    line(out, &words, rng.one_in(4));
    out.extend_from_slice(&value);
    out.extend_from_slice(b"\r\n");
}

fn meta_store(rng: &mut Rng, out: &mut Vec<u8>) {
    let value = value(rng);
    let len = value.len().to_string();
    let mut words = vec![&b"ms"[..], key(rng), len.as_bytes()];
    words.extend(flags(rng));
    line(out, &words, false);
    out.extend_from_slice(&value);
    out.extend_from_slice(b"\r\n");
}

fn meta(rng: &mut Rng, out: &mut Vec<u8>) {
    let mut words = vec![rng.pick(&["mg", "mg", "md", "ma", "me"]).as_bytes(), key(rng)];
    words.extend(flags(rng));
    line(out, &words, false);
}

fn text_lookup(rng: &mut Rng, out: &mut Vec<u8>) {
    let verb = rng.pick(&["get", "gets", "gat", "gats", "touch"]);
    let mut words = vec![verb.as_bytes()];
    match verb {
        "touch" => words.extend([key(rng), number(rng)]),
        "gat" | "gats" => words.extend([number(rng), key(rng), key(rng)]),
        _ => words.extend((0..1 + rng.below(60)).map(|_| key(rng))),
    }
    line(out, &words, false);
}

fn key(rng: &mut Rng) -> &'static [u8] {
    rng.pick(&KEYS)
}

fn number(rng: &mut Rng) -> &'static [u8] {
    rng.pick(&NUMBERS).as_bytes()
}

fn flags(rng: &mut Rng) -> Vec<&'static [u8]> {
    (0..rng.below(6)).map(|_| rng.pick(&META_FLAGS).as_bytes()).collect()
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(40) {
        0 => rng.below(200_000),
        1..5 => rng.below(5000),
        5..10 => 0,
        _ => rng.below(60),
    };
    if rng.one_in(4) { rng.next().to_string().into_bytes() } else { bytes(rng, len) }
}

/// Any bytes.
pub fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next() as u8).collect()
}

/// `count` valid binary packets.
pub fn binary(rng: &mut Rng, count: usize) -> Vec<u8> {
    (0..count).flat_map(|_| packet(rng).request()).collect()
}

/// Opcodes that bring a login.
const SASL_AUTH: u8 = 0x21;
const SASL_STEP: u8 = 0x22;

fn packet(rng: &mut Rng) -> Packet {
    let op = rng.below(0x26) as u8;
    let (extras, keyed, valued) = match op {
        0x01..=0x03 | 0x11..=0x13 => (8, true, true),
        0x05 | 0x06 | 0x15 | 0x16 => (20, true, false),
        0x0e | 0x0f | 0x19 | 0x1a => (0, true, true),
        0x1c..=0x1e | 0x23 | 0x24 => (4, true, false),
        0x08 | 0x18 => (4, false, false),
        SASL_AUTH | SASL_STEP => (0, true, true),
        0x00 | 0x04 | 0x09 | 0x0c | 0x0d | 0x10 | 0x14 => (0, true, false),
        // Quit, noop, version, SASL list, and what is unknown.
        _ => (0, false, false),
    };
    let cas = if rng.one_in(6) { rng.next() % 100 } else { 0 };
    let extras = (0..extras).map(|_| if rng.one_in(4) { rng.next() as u8 } else { 0 }).collect();
    let key = match op {
        SASL_AUTH | SASL_STEP if !rng.one_in(3) => b"PLAIN".to_vec(),
        _ if keyed => key(rng).to_vec(),
        _ => Vec::new(),
    };
    let value = if valued { value(rng) } else { Vec::new() };
    Packet { op, cas, extras, key, value, opaque: rng.next() as u32, ..Packet::default() }
}

/// Damages a stream in one to four places.
pub fn mutate(rng: &mut Rng, stream: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(4) {
        if stream.is_empty() {
            return;
        }
        let at = rng.below(stream.len());
        match rng.below(8) {
            0 => stream[at] ^= 1 << rng.below(8),
            1 => stream[at] = rng.pick(&[0, b' ', b'\r', b'\n', 0x80, 0x81, 0xff]),
            2 => stream.truncate(at),
            3 => drop(stream.drain(..at)),
            4 => splice(rng, stream, at),
            5 => insert(stream, at, rng.pick(&NUMBERS).as_bytes()),
            6 => insert(stream, at, &bytes(&mut rng.clone(), 1 + at % 40)),
            _ => huge_length(rng, stream, at),
        }
    }
}

/// Puts a copy of one part somewhere else.
fn splice(rng: &mut Rng, stream: &mut Vec<u8>, at: usize) {
    let from = rng.below(stream.len());
    let to = (from + rng.below(200)).min(stream.len());
    let part = stream[from..to].to_vec();
    insert(stream, at, &part);
}

fn insert(stream: &mut Vec<u8>, at: usize, part: &[u8]) {
    stream.splice(at..at, part.iter().copied());
}

/// Writes a large big-endian number, as a binary header might hold, or a long run of digits, spaces or letters.
fn huge_length(rng: &mut Rng, stream: &mut Vec<u8>, at: usize) {
    match rng.below(3) {
        0 => {
            let number = (u64::MAX >> rng.below(40)).to_be_bytes();
            let end = (at + 8).min(stream.len());
            stream[at..end].copy_from_slice(&number[..end - at]);
        }
        1 => insert(stream, at, &vec![rng.pick(b"9 x"); 1 + rng.below(5000)]),
        _ => {
            let line = format!("\r\nset big 0 0 {}\r\n", rng.next() % (4 << 30));
            insert(stream, at, line.as_bytes());
        }
    }
}
