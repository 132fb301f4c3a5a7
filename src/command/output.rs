//! Replies on their way out.
//!
//! ```text
//! bytes   VALUE a 0 5\r\nhello\r\nVALUE b 0 1048000\r\n | \r\nEND\r\n
//! values                                                ^ at: a value that leaves by reference
//! ```
//!
//! Invariant: `values` is in order of `at`, and no `at` is beyond the end of `bytes`.

use crate::store::{ItemId, Locked, Pinned};

/// Values of at least this many bytes leave by reference: below it a copy costs less than keeping the item
/// in place and a longer vector of slices.
const BY_REFERENCE_MIN: usize = 16 * 1024;

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

    /// Queues an item's value: a small one copied, a large one by reference. Returns its length.
    #[inline]
    pub(super) fn push_item_value(&mut self, shard: &mut Locked<'_>, id: ItemId) -> usize {
        let len = shard.item(id).value_len();
        if len >= BY_REFERENCE_MIN
            && let Some(value) = shard.pin(id)
        {
            self.push_value(value);
        } else {
            shard.item(id).copy_value(&mut self.bytes);
        }
        len
    }

    /// Queues a value by reference.
    pub fn push_value(&mut self, value: Pinned) {
        self.values.push(Inserted { at: self.bytes.len(), value });
    }

    /// Bytes queued, values by reference included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.values.iter().map(|v| v.value.len()).sum::<usize>()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 99, 12345678909, u64::MAX] {
            assert_eq!(decimal(number, &mut [0; DIGITS_MAX]), number.to_string().as_bytes());
        }
    }
}
