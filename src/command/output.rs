//! Replies on their way out.
//!
//! ```text
//! bytes   VALUE a 0 5\r\nhello\r\nVALUE b 0 1048000\r\n | \r\nEND\r\n
//! values                                                ^ at: a value that leaves by reference
//! ```
//!
//! Invariant: `values` is in order of `at`, and no `at` is beyond the end of `bytes`.

use crate::protocol::token::{DIGITS_MAX, decimal};
use crate::store::{ItemId, Locked, Pinned};

/// Values of at least this many bytes leave by reference: below it a copy costs less than keeping the item
/// in place and a longer vector of slices.
const BY_REFERENCE_MIN: usize = 16 * 1024;

/// What [`Output::push_line_end`] can do: four digits, seven, and four bytes.
const LINE_END_FLAGS_MAX: u64 = 9999;
const LINE_END_LEN_MAX: u64 = 9_999_999;

/// A value that leaves by reference.
#[derive(Debug)]
pub struct Inserted {
    /// It goes out before this byte of [`Output::bytes`].
    pub at: usize,
    /// The value.
    pub value: Pinned,
}

/// What is to be written to one connection, in order.
#[derive(Debug, Default)]
pub struct Output {
    /// Everything but the values that leave by reference.
    pub bytes: Vec<u8>,
    /// Values that leave by reference.
    pub values: Vec<Inserted>,
}

impl Output {
    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.values.is_empty()
    }

    /// Queues bytes.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Queues a number in decimal.
    #[inline]
    pub fn push_number(&mut self, number: u64) {
        let mut buffer = [0; DIGITS_MAX];
        self.push(decimal(number, &mut buffer));
    }

    /// Queues ` <client flags> <length>\r\n`, the end of nearly every value's line, if that is up to 16 bytes: put together
    /// in a register from the last one on, and copied without a call. 60 instructions less than [`Decimals`].
    #[inline]
    pub(crate) fn push_line_end(&mut self, client_flags: u64, len: u64) -> bool {
        if client_flags > LINE_END_FLAGS_MAX || len > LINE_END_LEN_MAX {
            return false;
        }
        let mut text = u128::from(u16::from_le_bytes(*b"\r\n"));
        let mut bits = 16;
        for mut number in [len, client_flags] {
            while number >= 10 {
                text = text << 8 | u128::from(b'0' as u64 + number % 10);
                number /= 10;
                bits += 8;
            }
            text = text << 16 | u128::from((b'0' as u64 + number) << 8 | b' ' as u64);
            bits += 16;
        }
        let end = self.bytes.len() + bits / 8;
        self.bytes.extend_from_slice(&text.to_le_bytes());
        self.bytes.truncate(end);
        true
    }

    /// Queues an item's value: a small one copied, a large one by reference. Returns its length.
    #[inline(always)]
    pub(crate) fn push_item_value(&mut self, shard: &mut Locked<'_>, id: ItemId) -> usize {
        let item = shard.item(id);
        let len = item.value_len();
        if len < BY_REFERENCE_MIN {
            item.copy_value(&mut self.bytes);
        } else {
            self.push_large_value(shard, id);
        }
        len
    }

    #[inline(never)]
    fn push_large_value(&mut self, shard: &mut Locked<'_>, id: ItemId) {
        let value = shard.pin(id);
        self.push_value(value);
    }

    /// Queues a value by reference.
    pub fn push_value(&mut self, value: Pinned) {
        self.values.push(Inserted { at: self.bytes.len(), value });
    }

    /// Drops the first `n` bytes, among which there are no values.
    #[inline]
    pub fn drop_front(&mut self, n: usize) {
        if n == self.bytes.len() {
            self.bytes.clear();
        } else if n > 0 {
            self.bytes.drain(..n);
        }
        self.values.iter_mut().for_each(|inserted| inserted.at -= n);
    }

    /// Whether so many bytes are queued.
    #[inline]
    pub fn is_of(&self, len: usize) -> bool {
        self.bytes.len() >= len || !self.values.is_empty() && self.len() >= len
    }

    /// Bytes queued, values by reference included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.values.iter().map(|v| v.value.len()).sum::<usize>()
    }
}

/// Bytes of three numbers with a blank each, and a line end.
const DECIMALS_MAX: usize = 3 * (DIGITS_MAX + 1) + 2;

/// Up to three numbers, each after a blank, and a line end: written from the end, so that no digit is moved
/// and the output grows once.
#[derive(Debug)]
pub(crate) struct Decimals {
    buffer: [u8; DECIMALS_MAX],
    start: usize,
}

impl Decimals {
    /// Just the line end.
    #[inline]
    pub(crate) fn new(end: &[u8; 2]) -> Decimals {
        let mut buffer = [0; DECIMALS_MAX];
        let start = DECIMALS_MAX - end.len();
        buffer[start..].copy_from_slice(end);
        Decimals { buffer, start }
    }

    /// Puts a blank and a number in front.
    #[inline]
    pub(crate) fn put(&mut self, mut number: u64) {
        while number >= 10 {
            self.start -= 1;
            self.buffer[self.start] = b'0' + (number % 10) as u8;
            number /= 10;
        }
        self.start -= 2;
        self.buffer[self.start] = b' ';
        self.buffer[self.start + 1] = b'0' + number as u8;
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_decimals() {
        let mut line = Decimals::new(b"\r\n");
        line.put(u64::MAX);
        line.put(0);
        line.put(u64::MAX);
        assert_eq!(line.bytes(), b" 18446744073709551615 0 18446744073709551615\r\n");
    }

    #[test]
    fn line_ends() {
        for client_flags in [0, 9, 10, 9999, 10_000, u64::from(u32::MAX)] {
            for len in [0, 7, 99, 100, 65_535, 1_048_576, 9_999_999, 10_000_000] {
                let mut out = Output { bytes: b"key".to_vec(), ..Output::default() };
                let fits = out.push_line_end(client_flags, len);
                assert_eq!(fits, client_flags < 10_000 && len < 10_000_000);
                let expected = if fits { format!("key {client_flags} {len}\r\n") } else { "key".to_owned() };
                assert_eq!(String::from_utf8(out.bytes).unwrap(), expected);
            }
        }
    }
}
