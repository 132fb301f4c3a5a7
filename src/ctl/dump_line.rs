//! A line of a dump, checked before it is sent.
//!
//! ```text
//!   ms <key> <length> [b] [F<flags>] [T<time>] [E<cas>] [q]     its value follows
//!   md <key> [b] [I] [T<time>] [E<cas>] [q]
//!   mg <key> [b] [R<time>] [T<time>] [q]
//! ```
//!
//! memcached refuses some lines of `ms` without swallowing the value, and then takes the value for commands: a key that
//! is too long, more flags than it counts, a number that is none. So a line passes only if a server takes it, or refuses
//! it together with its value. A key may have any byte but NUL, at which an older memcached ends a line: dumps have tabs.
//!
//! Invariant: what passes has nothing that `dump` does not write.
//!
//! Not here: reading lines and values (`load`), what a server takes of them.

use crate::protocol::KEY_MAX;
use crate::protocol::base64;
use crate::protocol::token::{strict_u64, words};

/// The largest item that a server can be told to take.
const LENGTH_MAX: u64 = 1 << 30;

/// A line that may be sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DumpLine {
    /// The length of the value that follows an `ms`.
    pub len: Option<u64>,
    /// What `T` says.
    pub expiry: Option<i64>,
    /// How long the key is, if it is in base64.
    pub base64_len: usize,
}

impl DumpLine {
    /// Reads a line without its end. The error says what no dump has.
    pub(super) fn read(line: &[u8]) -> Result<DumpLine, &'static str> {
        let flags: &[u8] = match line.get(..3) {
            Some(b"ms ") => b"bFTEq",
            Some(b"md ") => b"bITEq",
            Some(b"mg ") => b"bRTq",
            _ => return Err("neither ms, md, mg nor mn: this is no dump"),
        };
        let mut words = words(&line[3..]);
        let key = words.next();
        let mut read = DumpLine::default();
        if line.starts_with(b"ms ") {
            let len = words.next().and_then(|word| number(word, LENGTH_MAX));
            read.len = Some(len.ok_or("ms without a key and a length of at most 1 GiB")?);
        }
        let is_base64 = read.flags(words, flags)?;
        let key = key.filter(|key| is_key(key, is_base64)).ok_or("the key is none that a dump has")?;
        read.base64_len = if is_base64 { key.len() } else { 0 };
        Ok(read)
    }

    /// Reads these, each of which may come once; returns whether `b` is there.
    fn flags<'l>(&mut self, words: impl Iterator<Item = &'l [u8]>, known: &[u8]) -> Result<bool, &'static str> {
        let mut seen = 0u8;
        for (letter, argument) in words.filter_map(<[u8]>::split_first) {
            let at = known.iter().position(|flag| flag == letter).ok_or("it has a flag that no dump has")?;
            if seen >> at & 1 == 1 {
                return Err("it has a flag twice");
            }
            seen |= 1 << at;
            let is_good = match letter {
                b'F' => number(argument, u32::MAX.into()).is_some(),
                b'E' => number(argument, u64::MAX).is_some(),
                b'R' => time(argument).is_some(),
                b'T' => {
                    self.expiry = time(argument);
                    self.expiry.is_some()
                }
                _ => argument.is_empty(),
            };
            if !is_good {
                return Err("a flag has an argument that no dump has");
            }
        }
        // `b` is the first of every command.
        Ok(seen & 1 == 1)
    }
}

/// Digits alone, and no more of them than the largest one has.
fn number(text: &[u8], most: u64) -> Option<u64> {
    let is_short = text.len() <= most.to_string().len() && text.iter().all(u8::is_ascii_digit);
    strict_u64(text).filter(|number| is_short && *number <= most)
}

/// Seconds, which fit 32 bits.
fn time(text: &[u8]) -> Option<i64> {
    let (digits, sign) = text.strip_prefix(b"-").map_or((text, 1), |digits| (digits, -1));
    number(digits, i32::MAX as u64).map(|seconds| sign * seconds as i64)
}

/// Base64 counts only as an encoder writes it: what decoders skip, they need not agree on.
fn is_key(word: &[u8], is_base64: bool) -> bool {
    if !is_base64 {
        return (1..=KEY_MAX).contains(&word.len()) && !word.contains(&0);
    }
    let (mut buffer, mut again) = ([0; KEY_MAX], Vec::new());
    base64::decode(word, &mut buffer).is_some_and(|key| {
        base64::encode(key, &mut again);
        again == word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<DumpLine, &'static str> {
        DumpLine::read(line.as_bytes())
    }

    #[test]
    fn what_a_dump_writes() {
        let set = |len, expiry, base64_len| Ok(DumpLine { len: Some(len), expiry, base64_len });
        assert_eq!(read("ms k 0 T0 q"), set(0, Some(0), 0));
        assert_eq!(read("ms a\tb\u{7f}é 12 F4294967295 T-1 E18446744073709551615 q"), set(12, Some(-1), 0));
        assert_eq!(read("ms aGk= 1073741824 b T2147483647"), set(1 << 30, Some(i32::MAX.into()), 4));
        let (plain, base64) = ("k".repeat(250), format!("{}AA==", "AAAA".repeat(83)));
        assert_eq!(read(&format!("ms {plain} 1")), set(1, None, 0));
        assert_eq!(read(&format!("ms {base64} 1 b")), set(1, None, 336));
        for line in ["md k q", "md aGk= b I T0 E7 q", "mg k q", "mg k R2147483647 T5 q", "mg aGk= b T-1 q"] {
            assert_eq!(read(line).map(|read| read.len), Ok(None), "{line}");
        }
    }

    #[test]
    fn what_no_dump_has() {
        let long = format!("ms {} 1", "k".repeat(251));
        let long_base64 = format!("ms {} 1 b", "AAAA".repeat(84));
        let flags: String = ('a'..='z').map(|flag| format!(" {flag}")).collect();
        let many = format!("ms k 1{flags}");
        let (over, huge) = ("ms k 1073741825", "ms k 18446744073709551617");
        let bad =
            [&long, &long_base64, &many, over, huge, "ms", "ms ", "ms k", "ms k -1", "ms k +1", "ms k 00000000001"];
        bad.iter().for_each(|line| assert!(read(line).is_err(), "{line}"));
        let bad = ["ms k 1 T0 T0", "ms k 1 q q", "ms k 1 qq", "ms k 1 b", "ms aGk 1 b", "ms aG-k= 1 b", "ms aGl= 1 b"];
        bad.iter().for_each(|line| assert!(read(line).is_err(), "{line}"));
        let bad = ["ms k 1 T", "ms k 1 T-", "ms k 1 T--1", "ms k 1 T+1", "ms k 1 T2147483648", "ms k 1 F4294967296"];
        bad.iter().for_each(|line| assert!(read(line).is_err(), "{line}"));
        let bad =
            ["ms k 1 E-1", "ms k 1 I", "ms k\0 1", "md k v", "mg k v", "mg k E1", "md ", "mg", "mn x", "flush_all"];
        bad.iter().for_each(|line| assert!(read(line).is_err(), "{line}"));
    }
}
