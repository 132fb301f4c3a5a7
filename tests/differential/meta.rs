//! Random meta commands, good and bad.
//!
//! 1.6.18 does not know `E`; it is left out of what 1.6.18 is sent, and the two cas values are equal in the
//! sense of compare.rs. A chosen cas is not in the order of the counter, so only the keys from
//! [`keys::CHOSEN_CAS`] get one, and those never meet `C` with `I`, which compares by size.

use crate::common::Rng;
use crate::keys;
use crate::run::{CAS, Command, OPAQUE};
use crate::text::{bad_format, line};

/// A command.
pub fn command(rng: &mut Rng) -> Command {
    match rng.below(100) {
        0..42 => get(rng),
        42..68 => set(rng),
        68..78 => delete(rng),
        78..88 => arith(rng),
        88..91 => debug(rng),
        91..94 => bad_chunk(rng),
        94..98 => bad(rng),
        _ => Command::both(b"mn\r\n".to_vec()),
    }
}

/// Flags in random order, `b` and the base64 key or the plain one, and what the other side gets.
struct Words {
    ours: Vec<Vec<u8>>,
    theirs: Vec<Vec<u8>>,
}

impl Words {
    /// The command word and the key; `after_key` comes before the flags.
    fn new(rng: &mut Rng, verb: &[u8], index: usize, after_key: &[u8], flags: Vec<Vec<u8>>) -> Words {
        let key = keys::key(index);
        let speakable = !key.iter().any(|byte| b"\0 ".contains(byte));
        let stores = verb == b"ms" || has(&flags, b'N');
        let may_be_base64 = keys::is_base64(index) || !stores && key.len() < 180;
        let plain = speakable && !(may_be_base64 && rng.one_in(10));
        let mut flags = flags;
        if !plain {
            flags.push(b"b".to_vec());
        }
        shuffle(rng, &mut flags);
        let key = if plain { key } else { base64(&key) };
        let head = [verb.to_vec(), key, after_key.to_vec()];
        let known = flags.iter().filter(|flag| flag[0] != b'E').cloned();
        Words { theirs: head.iter().cloned().chain(known).collect(), ours: head.into_iter().chain(flags).collect() }
    }

    /// The command, followed by `data` on both sides.
    fn command(self, rng: &mut Rng, data: &[u8]) -> Command {
        let seed = rng.clone();
        let join = |words: &[Vec<u8>], rng: &mut Rng| {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            [line(rng, &words), data.to_vec()].concat()
        };
        let ours = join(&self.ours, rng);
        let theirs = if self.ours == self.theirs { ours.clone() } else { join(&self.theirs, &mut seed.clone()) };
        Command::split(ours, theirs)
    }
}

fn shuffle(rng: &mut Rng, list: &mut [Vec<u8>]) {
    for at in (1..list.len()).rev() {
        list.swap(at, rng.below(at + 1));
    }
}

/// Each of these with some probability.
fn some(rng: &mut Rng, from: &[&str]) -> Vec<Vec<u8>> {
    let one_in = 1 + rng.below(4);
    from.iter().filter(|_| rng.one_in(one_in)).map(|flag| flag.as_bytes().to_vec()).collect()
}

fn with_number(flag: &str, number: &str) -> Vec<u8> {
    format!("{flag}{number}").into()
}

fn get(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let mut flags = some(rng, &["s", "f", "c", "t", "h", "k", "u", OPAQUE, "q", "L", "P"]);
    if !rng.one_in(4) {
        flags.push(if rng.one_in(20) { b"vfoo".to_vec() } else { b"v".to_vec() });
    }
    if rng.one_in(8) {
        flags.push(with_number("T", &keys::exptime(rng)));
    }
    if rng.one_in(8) && !keys::is_base64(index) {
        flags.push(with_number("N", &keys::exptime(rng)));
    }
    if rng.one_in(8) {
        flags.push(with_number("R", rng.pick(&["30", "50000", "0", "10"])));
    }
    if rng.one_in(4) {
        flags.push(b"l".to_vec());
    }
    choose_cas(rng, index, &mut flags);
    Words::new(rng, b"mg", index, b"", flags).command(rng, b"").reads(1 << index)
}

fn choose_cas(rng: &mut Rng, index: usize, flags: &mut Vec<Vec<u8>>) {
    if (keys::CHOSEN_CAS..keys::CHOSEN_CAS + 2).contains(&index) && rng.one_in(2) {
        let unique = rng.next() >> 2 | 1 << 61;
        flags.push(with_number("E", &unique.to_string()));
    }
}

fn compare_cas(rng: &mut Rng, flags: &mut Vec<Vec<u8>>) {
    if rng.one_in(4) {
        let wrong: [&[u8]; 2] = [b"C9223372036854775808", b"C18446744073709551615"];
        flags.push(if rng.one_in(4) { rng.pick(&wrong).to_vec() } else { [b"C", CAS].concat() });
    }
}

fn has(flags: &[Vec<u8>], letter: u8) -> bool {
    flags.iter().any(|flag| flag[0] == letter)
}

fn may_invalidate(rng: &mut Rng, index: usize, flags: &mut Vec<Vec<u8>>) {
    if rng.one_in(4) && index < keys::CHOSEN_CAS {
        flags.push(b"I".to_vec());
    }
}

fn set(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let value = keys::value(rng, index);
    let mut flags = some(rng, &["c", "k", OPAQUE, "q"]);
    if rng.one_in(3) {
        flags.push(with_number("T", &keys::exptime(rng)));
    }
    if rng.one_in(3) {
        flags.push(with_number("F", keys::flags(rng)));
    }
    if rng.one_in(2) {
        let modes: &[&str] =
            if !keys::can_be_joined(index) { &["S", "E", "R"] } else { &["S", "E", "A", "P", "R", "s"] };
        flags.push(with_number("M", rng.pick(modes)));
    }
    compare_cas(rng, &mut flags);
    may_invalidate(rng, index, &mut flags);
    choose_cas(rng, index, &mut flags);
    let data = [&value[..], b"\r\n"].concat();
    let words = Words::new(rng, b"ms", index, value.len().to_string().as_bytes(), flags);
    words.command(rng, &data).writes(index).with_cas_of(index)
}

fn delete(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let mut flags = some(rng, &["k", OPAQUE, "q"]);
    compare_cas(rng, &mut flags);
    may_invalidate(rng, index, &mut flags);
    if has(&flags, b'I') && rng.one_in(2) {
        flags.push(with_number("T", &keys::exptime(rng)));
    }
    Words::new(rng, b"md", index, b"", flags).command(rng, b"").writes(index).with_cas_of(index)
}

fn arith(rng: &mut Rng) -> Command {
    let index = keys::number(rng);
    let mut flags = some(rng, &["c", "k", OPAQUE, "q", "t", "v"]);
    // With q, 1.6.18 answers when it has made the item.
    if rng.one_in(3) && !has(&flags, b'q') {
        flags.push(with_number("N", &keys::exptime(rng)));
    }
    if rng.one_in(3) {
        flags.push(with_number("J", &keys::start(rng).to_string()));
    }
    // 1.6.18 gives the TTL to the item that it has just replaced when the number has grown.
    if rng.one_in(4) {
        flags.push(with_number("T", &keys::exptime(rng)));
        flags.push(b"D0".to_vec());
    } else if rng.one_in(3) {
        flags.push(with_number("D", &keys::step(rng).to_string()));
    }
    if rng.one_in(2) {
        flags.push(with_number("M", rng.pick(&["I", "+", "D", "-", "x"])));
    }
    compare_cas(rng, &mut flags);
    choose_cas(rng, index, &mut flags);
    Words::new(rng, b"ma", index, b"", flags).command(rng, b"").counts(index).with_cas_of(index)
}

fn debug(rng: &mut Rng) -> Command {
    let index = keys::speakable(rng);
    Command::both(line(rng, &[b"me", &keys::key(index)])).reads(1 << index)
}

/// As in text.rs; `q` does not silence it.
fn bad_chunk(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let len = 2 + rng.below(40);
    let data = [vec![b'd'; len], b"xybogus\r\n".to_vec()].concat();
    let flags = some(rng, &["c", "k", OPAQUE, "q"]);
    Words::new(rng, b"ms", index, len.to_string().as_bytes(), flags).command(rng, &data).writes(index)
}

/// Mistakes; where 1.6.18 has another text for one, it is sent another mistake that has the text. They name a key
/// that does not exist: 1.6.18 sees some of them only after it has looked for the item.
fn bad(rng: &mut Rng) -> Command {
    let long = String::from_utf8(keys::too_long()).expect("text");
    let (opaque, data) = ("O".repeat(33), "\r\nhi\r\n");
    let bad_format = String::from_utf8(bad_format()).expect("text");
    let mistakes: [(String, Option<&str>); 19] = [
        ("mg\r\n".into(), Some(&bad_format)),
        ("ma\r\n".into(), Some(&bad_format)),
        ("mg nobody !\r\n".into(), Some(&bad_format)),
        ("mg nobody S\r\n".into(), None),
        ("mg nobody v v\r\n".into(), None),
        ("mg nobody T\r\n".into(), None),
        ("mg nobody Nabc\r\n".into(), None),
        (format!("mg {long}\r\n"), None),
        ("mg Zm9 b\r\n".into(), None),
        ("ms nobody abc\r\n".into(), None),
        ("ms nobody -1\r\n".into(), None),
        (format!("ms nobody 2 S{data}"), None),
        (format!("ms nobody 2 c c{data}"), None),
        (format!("ms nobody 2 Tx{data}"), None),
        (format!("ms nobody 2 MX{data}"), None),
        (format!("ms nobody 2 {opaque}{data}"), None),
        ("md nobody S\r\n".into(), Some("mg nobody S\r\n")),
        ("md nobody q q\r\n".into(), Some("mg nobody v v\r\n")),
        ("ma nobody Dx\r\n".into(), None),
    ];
    let (ours, theirs) = &mistakes[rng.below(mistakes.len())];
    let theirs = theirs.unwrap_or(ours).as_bytes().to_vec();
    Command::split(ours.as_bytes().to_vec(), theirs)
}

fn base64(bytes: &[u8]) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::new();
    for piece in bytes.chunks(3) {
        let bits = piece.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - piece.len()));
        let digit = |at: usize| alphabet[(bits >> (18 - 6 * at)) as usize & 63];
        out.extend((0..4).map(|at| if at <= piece.len() { digit(at) } else { b'=' }));
    }
    out
}
