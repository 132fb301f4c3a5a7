//! The small key space, and values, times and flags to use with it.
//!
//! Keys are named by their index, so that a set of keys is a bit mask.
//!
//! Values say nothing about the key: the two servers are compared, not checked.

use crate::common::Rng;
use std::time::{SystemTime, UNIX_EPOCH};

/// Index of the first of four keys that mostly hold numbers.
const NUMBERS: usize = 6;
/// Index of the first of two keys that hold large values.
const LARGE: usize = 10;
/// Index of the first of two keys that meta commands give a cas of the client's choice (`E`).
pub const CHOSEN_CAS: usize = 16;
/// Index of the key that only base64 and binary requests can name.
const UNSPEAKABLE: usize = 18;
/// How many keys there are.
pub const KEYS: usize = 19;

/// An absolute exptime that has passed.
pub const LONG_AGO: u32 = 2_592_001;

/// Longest value that fits with a 4-byte key and no client flags, by the recording: 3 bytes of key leave 1048514.
const LARGEST_VALUE: usize = 1_048_513;

/// The key of an index.
pub fn key(index: usize) -> Vec<u8> {
    match index {
        0..NUMBERS => format!("k{index}").into(),
        NUMBERS..LARGE => format!("n{index}").into(),
        LARGE..12 => format!("big{}", index - LARGE).into(),
        12 => vec![b'a'; 250],
        13 => [vec![b'a'; 249], vec![b'b']].concat(),
        14 => vec![1, 0x80, 0xff, 9],
        15 => b"pre:fix".to_vec(),
        CHOSEN_CAS..UNSPEAKABLE => format!("e{index}").into(),
        UNSPEAKABLE => vec![0, b' ', 0x80],
        _ => panic!("no such key"),
    }
}

/// Any key.
pub fn any(rng: &mut Rng) -> usize {
    frequent(rng, KEYS)
}

/// A key that a line can name.
pub fn speakable(rng: &mut Rng) -> usize {
    frequent(rng, UNSPEAKABLE)
}

/// Large keys are rare: they cost a megabyte a time.
fn frequent(rng: &mut Rng, below: usize) -> usize {
    let index = rng.below(below);
    if is_large(index) && !rng.one_in(30) { rng.below(NUMBERS) } else { index }
}

/// A key that mostly holds a number.
pub fn number(rng: &mut Rng) -> usize {
    if rng.one_in(10) { joined(rng) } else { NUMBERS + rng.below(LARGE - NUMBERS) }
}

/// A key to append and prepend to. Not one with items whose key came as base64, which 1.6.18 forgets when it
/// joins, and not a number, which could come to 2^63.
pub fn joined(rng: &mut Rng) -> usize {
    let index = speakable(rng);
    if can_be_joined(index) { index } else { 0 }
}

/// Whether this is one of those.
pub fn can_be_joined(index: usize) -> bool {
    !is_base64(index) && !(NUMBERS..LARGE).contains(&index)
}

/// Whether items are stored under this key in base64, too.
pub fn is_base64(index: usize) -> bool {
    index == 14 || index == UNSPEAKABLE
}

fn is_large(index: usize) -> bool {
    (LARGE..12).contains(&index)
}

/// A key that is too long by one byte.
pub fn too_long() -> Vec<u8> {
    vec![b'k'; 251]
}

/// A value to store under a key.
pub fn value(rng: &mut Rng, index: usize) -> Vec<u8> {
    match index {
        NUMBERS..LARGE => number_value(rng),
        _ if is_large(index) => large_value(rng),
        _ => small_value(rng),
    }
}

fn number_value(rng: &mut Rng) -> Vec<u8> {
    let odd = ["", " 7", "+5", "12  ", "-1", "1.5", "abc", "18446744073709551616", "007"];
    match rng.below(4) {
        0 => rng.pick(&odd).as_bytes().to_vec(),
        1 => rng.below(12).to_string().into(),
        _ => start(rng).to_string().into(),
    }
}

/// A number to count from. No number comes to 2^63: above it, 1.6.18 looks for a minus sign beyond the value's
/// end, and may find one.
pub fn start(rng: &mut Rng) -> u64 {
    rng.next() >> (3 + rng.below(61))
}

/// A number to count by: small enough that no run comes to 2^63.
pub fn step(rng: &mut Rng) -> u64 {
    rng.next() >> (24 + rng.below(40))
}

fn small_value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(10) {
        0 => 0,
        1..=6 => rng.below(24),
        7 | 8 => rng.below(300),
        _ => rng.below(3000),
    };
    let values: [&[u8]; 3] = [b"\r\nEND\r\n", b"VALUE a 0 1\r\n", b"\x80\x0a\0\0\0"];
    if rng.one_in(20) { rng.pick(&values).to_vec() } else { filled(rng, len) }
}

fn large_value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(6) {
        0 => rng.below(2000),
        1 => LARGEST_VALUE - 3 + rng.below(7),
        2 => 524_288 - 150 + rng.below(200),
        3 => 1_100_000,
        _ => 15_000 + rng.below(600_000),
    };
    filled(rng, len)
}

/// Bytes whose every window of some size differs, so that a chunk out of its place shows. They do not begin with a
/// blank: of a value that is all blanks, 1.6.18 reads a number beyond its end.
fn filled(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(len + 8);
    while value.len() < len {
        value.extend_from_slice(&(rng.next() & 0x7f7f_7f7f_7f7f_7f7f | 0x2020_2020_2020_2020).to_le_bytes());
    }
    value.truncate(len);
    if let Some(first @ b' ') = value.first_mut() {
        *first = b'_';
    }
    value
}

/// An exptime as text: never, expired, or far enough away that no run reaches it.
pub fn exptime(rng: &mut Rng) -> String {
    let far = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs()) + 100_000;
    match rng.below(24) {
        0 => "-1".into(),
        1 => LONG_AGO.to_string(),
        2 => "2592000".into(),
        3 => far.to_string(),
        4 | 5 => "1000".into(),
        6 | 7 => "100000".into(),
        _ => "0".into(),
    }
}

/// Client flags as text.
pub fn flags(rng: &mut Rng) -> &'static str {
    rng.pick(&["0", "0", "0", "5", "65536", "4294967295"])
}
