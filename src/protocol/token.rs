//! A command line cut into tokens, and numbers as memcached reads them.
//!
//! Only the space (0x20) separates; every other byte, NUL and tab included, belongs to a token. Two kinds
//! of numbers: *strict* ones (lengths, deltas, cas, meta arguments) are plain digits; *C* ones (client flags
//! and exptime of the classic store commands) are what `strtoul` and `strtol` accept.

/// Longest key in bytes.
pub const KEY_MAX: usize = 250;

/// Tokens kept of a line; later ones are ignored.
pub const TOKENS_MAX: usize = 23;

/// Longest value that a text or meta length may announce: it and its `\r\n` must fit an int32.
pub(super) const VALUE_MAX: i32 = i32::MAX - 2;

/// Longest text of a strict 32-bit number, leading zeros included.
const DIGITS_32: usize = 11;

/// Longest text of a strict 64-bit number, leading zeros included.
const DIGITS_64: usize = 22;

/// The tokens of a line: slices between spaces.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    list: [&'a [u8]; TOKENS_MAX],
    len: usize,
}

impl<'a> Tokens<'a> {
    /// Cuts a line (without its end) at runs of spaces.
    pub fn new(line: &'a [u8]) -> Tokens<'a> {
        let mut tokens = Tokens { list: [b""; TOKENS_MAX], len: 0 };
        for word in words(line).take(TOKENS_MAX) {
            tokens.list[tokens.len] = word;
            tokens.len += 1;
        }
        tokens
    }

    /// All tokens, the command word first.
    pub fn as_slice(&self) -> &[&'a [u8]] {
        &self.list[..self.len]
    }

    /// Token `i`, if there are that many.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        self.as_slice().get(i).copied()
    }

    /// Whether the last token is `noreply`.
    pub fn ends_with_noreply(&self) -> bool {
        self.as_slice().last() == Some(&b"noreply".as_slice())
    }
}

/// A line, its line feed gone already, without the carriage return.
#[inline]
pub fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Whether `text` is `word` or a beginning of it.
pub fn means(text: &[u8], word: &str) -> bool {
    word.as_bytes().starts_with(text)
}

/// The tokens of a line, without a limit.
pub fn words(line: &[u8]) -> Words<'_> {
    Words { rest: line }
}

/// See [`words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    /// What has not been cut yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while let [b' ', rest @ ..] = self.rest {
            self.rest = rest;
        }
        if self.rest.is_empty() {
            return None;
        }
        // Most flags of meta commands are one letter.
        let end = match self.rest {
            [_] | [_, b' ', ..] => 1,
            rest => find_first(rest, spaces),
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(word)
    }
}

/// How many bytes come before the first space or control character. Eight bytes are looked at together: a key of 20
/// bytes takes 32 instructions. With `memchr` it takes 51, and what ends the key is still to be looked at.
#[inline]
pub fn word_len(text: &[u8]) -> usize {
    find_first(text, controls)
}

/// How many bytes come before the first one that `which` finds. `which` sets the top bits of the bytes that it looks
/// for among eight, or at least that of the first of them.
#[inline]
fn find_first(text: &[u8], which: impl Fn(u64) -> u64) -> usize {
    let mut at = 0;
    while let Some(eight) = text[at..].first_chunk::<8>() {
        let found = which(u64::from_le_bytes(*eight));
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    // The bytes that are left. What fills them up to eight does not count: the result is at most the length.
    let mut last = [b'x'; 8];
    if let Some(eight) = text.last_chunk::<8>() {
        let left = text.len() - at;
        let seen = u64::from_le_bytes(*eight).checked_shr(64 - 8 * left as u32).unwrap_or(0);
        last = seen.to_le_bytes();
    } else {
        last[..text.len()].copy_from_slice(text);
    }
    text.len().min(at + which(u64::from_le_bytes(last)).trailing_zeros() as usize / 8)
}

/// The low bit of each byte.
const EACH: u64 = u64::MAX / 0xff;

/// Sets the top bit of each byte that is at most a space: adding to the lower bits of a larger one carries into it.
#[inline]
fn controls(eight: u64) -> u64 {
    let low = 0x7f * EACH;
    !(((eight & low) + (0x7f - b' ' as u64) * EACH) | eight) & !low
}

/// Sets the top bit of the first byte that is a space, and perhaps of some behind it, where the subtraction borrows.
#[inline]
fn spaces(eight: u64) -> u64 {
    let other = eight ^ (b' ' as u64 * EACH);
    other.wrapping_sub(EACH) & !other & (0x80 * EACH)
}

/// A strict unsigned 64-bit number.
pub fn strict_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > DIGITS_64 {
        return None;
    }
    digits(text)
}

/// A strict unsigned 32-bit number.
pub fn strict_u32(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > DIGITS_32 {
        return None;
    }
    digits(text)?.try_into().ok()
}

/// A strict signed 64-bit number.
pub fn strict_i64(text: &[u8]) -> Option<i64> {
    if text.len() > DIGITS_64 {
        return None;
    }
    signed(text)
}

/// A strict signed 32-bit number.
pub fn strict_i32(text: &[u8]) -> Option<i32> {
    if text.len() > DIGITS_32 {
        return None;
    }
    signed(text)?.try_into().ok()
}

/// The length of a text or meta value; None when it is not a valid one.
pub(super) fn data_length(text: &[u8]) -> Option<usize> {
    strict_i32(text).filter(|len| (0..=VALUE_MAX).contains(len)).map(|len| len as usize)
}

/// Client flags as the classic store commands read them: `strtoul`, cut to 32 bits. A minus is accepted
/// only when the negated number is not negative as a signed one.
// COMPAT(c_flags): leading blanks, `+`, and values of 2^32 and more are accepted.
pub fn c_flags(text: &[u8]) -> Option<u32> {
    let (negative, magnitude) = c_number(text)?;
    let value = if negative { magnitude.wrapping_neg() } else { magnitude };
    if negative && (value as i64) < 0 {
        return None;
    }
    Some(value as u32)
}

/// exptime as the classic store commands read it: `strtol`, cut to 32 bits.
// COMPAT(c_exptime): 2147483648 is negative, 4294967296 is 0.
pub fn c_exptime(text: &[u8]) -> Option<i32> {
    let (negative, magnitude) = c_number(text)?;
    let value = if negative { 0i64.checked_sub_unsigned(magnitude)? } else { i64::try_from(magnitude).ok()? };
    Some(value as i32)
}

/// The number at the start of a stored value, as incr and decr read it: blanks, a `+`, digits, then the end
/// or a blank.
pub fn stored_number(value: &[u8]) -> Option<u64> {
    match c_number(value)? {
        (false, magnitude) => Some(magnitude),
        // A negative number is one only when its wrapped form is not negative, as with client flags.
        (true, magnitude) => Some(magnitude.wrapping_neg()).filter(|&v| (v as i64) >= 0),
    }
}

/// Digits of the largest u64.
pub const DIGITS_MAX: usize = 20;

/// The decimal digits of a number.
#[inline]
pub fn decimal(mut number: u64, buffer: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut start = DIGITS_MAX;
    loop {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}

/// Longest word: a name, an identity, a run id.
pub(super) const WORD_MAX: usize = 128;

/// What can stand as one word of a line: printable, without blanks, not too long.
pub(super) fn word(text: &[u8]) -> Option<&str> {
    let fits = (1..=WORD_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
    if fits { std::str::from_utf8(text).ok() } else { None }
}

fn digits(text: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

fn signed(text: &[u8]) -> Option<i64> {
    match text {
        [] | [b'-'] => None,
        [b'-', rest @ ..] => 0i64.checked_sub_unsigned(digits(rest)?),
        _ => digits(text)?.try_into().ok(),
    }
}

/// (minus, magnitude) of what C's number functions find at the start of `text`, when a blank or the end follows.
fn c_number(text: &[u8]) -> Option<(bool, u64)> {
    let start = text.iter().position(|&b| !is_blank(b))?;
    let (negative, rest) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    if end == 0 || rest.get(end).is_some_and(|&b| !is_blank(b)) {
        return None;
    }
    Some((negative, digits(&rest[..end])?))
}

/// C's `isspace`.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
#[path = "tests/token.rs"]
mod tests;
