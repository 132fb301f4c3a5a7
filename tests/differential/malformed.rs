//! Random lines and packets that are wrong, or odd: words that lack or are too many, numbers that do not fit, blanks in
//! odd places, keys that are too long, base64 that is none, lengths of packets that contradict each other.
//!
//! What 1.6.18 takes otherwise than 1.6.45 is left out (`+` before a number, more digits than a number needs, md's
//! errors) or sent to it in another way. `tests/malformed.rs` replays what 1.6.45 itself was recorded to answer.

use crate::common::{Packet, Rng};
use crate::keys;
use crate::run::Command;
use crate::text::{bad_format, line};

/// A key that no other command names. It may be made and changed here, in the same way on both sides.
const ODD_KEY: &[u8] = b"oddo";

/// The base64 of a key that no other command names: that of `odd`.
const ODD_BASE64: &[u8] = b"b2Rk";

/// A classic command.
pub fn text(rng: &mut Rng) -> Command {
    match rng.below(6) {
        0 => too_few_words(rng),
        1 => noreply_for_an_argument(rng),
        2 | 3 => store_with_odd_numbers(rng),
        4 => odd_number(rng),
        _ => admin(rng),
    }
}

/// 1.6.18 answers `ERROR`, or nothing behind noreply.
fn too_few_words(rng: &mut Rng) -> Command {
    let commands: [&[&[u8]]; 10] = [
        &[b"set", b"k0", b"0", b"0"],
        &[b"add", b"k0", b"0", b"0"],
        &[b"cas", b"k0", b"0", b"0"],
        &[b"prepend", b"k0", b"0", b"0"],
        &[b"incr", b"n6"],
        &[b"decr", b"n6"],
        &[b"touch", b"k0"],
        &[b"gat", b"0"],
        &[b"delete"],
        &[b"get"],
    ];
    let words = rng.pick(&commands);
    let mut words = words[..1 + rng.below(words.len())].to_vec();
    // A word more is not enough where two lacked before.
    if rng.one_in(3) && words[0] != b"get" && words[0] != b"delete" && words.len() < 2 {
        words.push(b"noreply");
    }
    Command::split(line(rng, &words), bad_format())
}

fn noreply_for_an_argument(rng: &mut Rng) -> Command {
    let key = keys::key(keys::number(rng));
    let verb: &[u8] = rng.pick::<&[u8]>(&[b"incr", b"decr", b"touch"]);
    Command::both(line(rng, &[verb, &key, b"noreply"]))
}

/// Client flags or an exptime that are refused or taken by both. 1.6.18 takes the data of a refused one for a command.
fn store_with_odd_numbers(rng: &mut Rng) -> Command {
    let index = keys::speakable(rng);
    let (key, value) = (keys::key(index), keys::value(rng, 0));
    let len = value.len().to_string();
    let refused: [&[u8]; 7] = [b"x", b"1x", b"0x1", b"1.5", b"--1", b"-", b"99999999999999999999"];
    let taken: [&[u8]; 5] = [b"+1", b"007", b"-0", b"00000000000000000000000000001", b"4294967296"];
    let is_refused = rng.one_in(2);
    let odd: &[u8] = if is_refused { rng.pick(&refused) } else { rng.pick(&taken) };
    // An exptime of one second would pass.
    let (flags, exptime): (&[u8], &[u8]) = if is_refused && rng.one_in(2) { (b"0", odd) } else { (odd, b"0") };
    let noreply: &[u8] = if rng.one_in(3) { b"noreply" } else { b"" };
    let verb: &[u8] = rng.pick::<&[u8]>(&[b"set", b"add", b"replace"]);
    let surplus: &[u8] = if rng.one_in(4) { b"surplus" } else { b"" };
    let mut whole = |surplus| {
        let head = line(rng, &[verb, &key, flags, exptime, len.as_bytes(), surplus, noreply]);
        [&head, &value[..], b"\r\n"].concat()
    };
    let ours = whole(surplus);
    let theirs = match is_refused {
        // 1.6.18 refuses a word too many.
        false if !surplus.is_empty() => whole(b""),
        false => ours.clone(),
        true if noreply.is_empty() => bad_format(),
        true => Vec::new(),
    };
    Command::split(ours, theirs).writes(index)
}

/// A number that is none, or is out of range, for a command of one line.
fn odd_number(rng: &mut Rng) -> Command {
    let key = keys::key(keys::speakable(rng));
    let not_32: [&[u8]; 5] = [b"x", b"1x", b"0x1", b"1.5", b"-"];
    let not_64: [&[u8]; 5] = [b"x", b"1x", b"-1", b"18446744073709551616", b"1.5"];
    let noreply: &[u8] = if rng.one_in(3) { b"noreply" } else { b"" };
    let odd_32: &[u8] = rng.pick(&not_32);
    let odd_64: &[u8] = rng.pick(&not_64);
    let words: [&[u8]; 4] = match rng.below(5) {
        0 => [b"touch", &key, odd_32, noreply],
        1 => [b"gat", odd_32, &key, b""],
        2 => [b"incr", &key, odd_64, noreply],
        3 => [b"decr", &key, odd_64, noreply],
        _ => [b"verbosity", odd_64, noreply, b""],
    };
    Command::both(line(rng, &words))
}

/// Administrative commands with words that lack, are unknown, or are too many.
fn admin(rng: &mut Rng) -> Command {
    let lines: [&[u8]; 30] = [
        b"slabs",
        b"slabs x",
        b"slabs reassign",
        b"slabs reassign 1",
        b"slabs reassign 1 2 3",
        b"slabs reassign x 1",
        b"slabs reassign 1 1",
        b"slabs reassign 1 99",
        b"slabs automove",
        b"slabs automove x",
        b"slabs automove 3",
        b"slabs automove ratio",
        b"slabs automove ratio x",
        b"lru",
        b"lru x",
        b"lru tune",
        b"lru tune 10 20",
        b"lru_crawler",
        b"lru_crawler x",
        b"lru_crawler tocrawl",
        b"lru_crawler sleep x",
        b"lru_crawler sleep 1000001",
        b"lru_crawler enable x y",
        b"cache_memlimit",
        b"cache_memlimit x",
        b"cache_memlimit 7",
        b"cache_memlimit 1000000001",
        b"stats cachedump 1",
        b"stats cachedump x 1",
        b"stats detail x",
    ];
    Command::both([rng.pick(&lines), b"\r\n"].concat())
}

/// A meta command whose flags are at odds: each letter with arguments that fit it and that do not, letters that there are
/// not, letters twice, and too many.
pub fn meta(rng: &mut Rng) -> Command {
    let verb: &[u8] = rng.pick::<&[u8]>(&[b"mg", b"mg", b"ms", b"ms", b"ma"]);
    let key = if rng.one_in(2) { ODD_KEY } else { ODD_BASE64 };
    let count = if verb == b"mg" && rng.one_in(12) { 19 } else { rng.below(5) };
    let flags: Vec<Vec<u8>> = (0..count).map(|_| odd_flag(rng, verb)).collect();
    let (len, data): (&[u8], &[u8]) = if verb == b"ms" { (b"2", b"ab\r\n") } else { (b"", b"") };
    let words: Vec<&[u8]> = [verb, key, len].into_iter().chain(flags.iter().map(Vec::as_slice)).collect();
    Command::both([line(rng, &words), data.to_vec()].concat())
}

fn odd_flag(rng: &mut Rng, verb: &[u8]) -> Vec<u8> {
    // What 1.6.18 does with the others of these differs when nothing is wrong.
    let letters: &[u8] = match verb {
        b"mg" => b"bbkqvtfhlucsNTRMODJCIFLP",
        b"ms" => b"bbkqTCMODJFLP",
        _ => b"bbkvCMDJLP",
    };
    let letter = if rng.one_in(12) { rng.pick(b"AZade") } else { rng.pick(letters) };
    let arguments: &[&str] = match letter {
        b'N' | b'T' => &["", "x", "0", "5000", "5x"],
        b'R' => &["", "x", "30", "5x"],
        b'D' | b'J' | b'C' => &["", "x", "-1", "1", "18446744073709551616"],
        b'F' => &["", "x", "5", "5x"],
        b'M' if verb == b"ma" => &["x", "I", "+", "D", "-", "i"],
        b'M' => &["x", "S", "E", "R", "s"],
        b'O' => &["", "o", "ooooooooooooooooooooooooooooooo"],
        b'q' | b'I' => &[""],
        _ => &["", "", "x"],
    };
    [&[letter][..], rng.pick(arguments).as_bytes()].concat()
}

/// A packet whose lengths are odd, but not so that it closes the connection.
pub fn packet(rng: &mut Rng) -> Command {
    let (extras, key) = ([0; 24], [b'k'; 24]);
    let (extras, key) = (&extras[..rng.below(24)], &key[..rng.below(24)]);
    if rng.one_in(2) {
        // memcached drops extras and key once more behind an unknown one.
        let op = rng.pick(&[0x1f, 0x25, 0x2f, 0x40, 0x77, 0xff]);
        let packet = Packet { value: vec![b'v'; rng.below(24)], ..Packet::new(op, key, extras) };
        let eaten = vec![b'e'; extras.len() + key.len()];
        return Command::packet([packet.request(), eaten].concat());
    }
    // A value that is a packet.
    let op = rng.pick(&[0x1c, 0x1d, 0x1e, 0x23, 0x24]);
    let index = keys::any(rng);
    let inner = Packet { opaque: 7, ..Packet::new(crate::binary::NOOP, b"", b"") }.request();
    let packet = Packet { value: inner, ..Packet::new(op, &keys::key(index), &[0; 4]) };
    Command::packet(packet.request()).reads(1 << index)
}

/// A packet whose lengths do not fit its opcode, or each other, which closes the connection.
pub fn closing_packet(rng: &mut Rng) -> Command {
    let extras_of = |op: u8| match op {
        0x01..=0x03 | 0x11..=0x13 => 8,
        0x05 | 0x06 | 0x15 | 0x16 => 20,
        0x1c..=0x1e | 0x23 | 0x24 => 4,
        _ => 0,
    };
    let ops = [0, 1, 2, 3, 4, 5, 6, 9, 0xc, 0xd, 0xe, 0xf, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x19, 0x1a, 0x1c, 0x1d];
    let op = rng.pick(&ops);
    let extras = [0; 24];
    let wrong = (extras_of(op) + 1 + rng.below(23)) % 24;
    let right = &extras[..extras_of(op)];
    let packet = match rng.below(4) {
        0 => Packet::new(op, b"", right),
        1 => Packet::new(op, b"key", &extras[..wrong]),
        2 => Packet::new(op, &keys::too_long(), right),
        _ => Packet::new(op, b"key", right),
    };
    let mut bytes = packet.request();
    if packet.key == b"key" && packet.extras == right {
        // The body is shorter than the key.
        bytes[8..12].copy_from_slice(&1_u32.to_be_bytes());
    }
    Command::packet(bytes)
}
