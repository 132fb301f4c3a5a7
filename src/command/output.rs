//! Replies on their way out.
//!
//! ```text
//! bytes   VALUE a 0 5\r\nhello\r\nVALUE b 0 1048000\r\n | \r\nEND\r\n
//! values                                                ^ at: a value that leaves by reference
//! ```
//!
//! Invariant: `values` is in order of `at`, and no `at` is beyond the end of `bytes`.

use crate::store::Pinned;

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

    /// Queues a value by reference.
    pub fn push_value(&mut self, value: Pinned) {
        self.values.push(Inserted { at: self.bytes.len(), value });
    }

    /// Bytes queued, values by reference included.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.values.iter().map(|v| v.value.len()).sum::<usize>()
    }
}
