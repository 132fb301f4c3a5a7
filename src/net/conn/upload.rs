//! A large value on its way in, straight to where it will be stored.
//!
//! ```text
//!  line or packet | value, in pieces: from the socket, or copied from a buffer | tail (`\r\n`, or nothing)
//! ```
//!
//! Not here: where the pieces come from (`conn`), what becomes of the value (`session`, `command`).

use crate::protocol::Cut;
use crate::store::{AllocError, Upload};

/// Longest tail after a value: `\r\n`.
const TAIL_MAX: usize = 2;

/// A large value on its way in.
#[derive(Debug)]
pub(super) struct Uploading {
    /// Everything before the value; parsed again at the end, which costs less than keeping it parsed.
    pub(super) head: Box<[u8]>,
    pub(super) upload: Upload,
    /// Bytes of the value still to come.
    left: usize,
    pub(super) tail: [u8; TAIL_MAX],
    tail_have: usize,
    pub(super) tail_len: usize,
}

impl Uploading {
    /// The value of the request that `input` begins with, on its way to `upload`.
    pub(super) fn new(input: &[u8], cut: &Cut<'_>, upload: Upload) -> Uploading {
        let (left, tail_len) = (cut.body, cut.tail);
        Uploading { head: input[..cut.head].into(), upload, left, tail: [0; TAIL_MAX], tail_have: 0, tail_len }
    }

    /// Bytes of the value that are still to come.
    pub(super) fn missing(&self) -> usize {
        self.left
    }

    /// Bytes of the value and its tail that are still to come.
    pub(super) fn missing_with_tail(&self) -> usize {
        self.left + self.tail_len - self.tail_have
    }

    /// Where the next bytes go, at most `max`, and whether they may be the last of the value. The error is: out of memory.
    pub(super) fn room(&mut self, max: usize) -> Result<(&mut [u8], bool), AllocError> {
        let left = self.left;
        let room = self.upload.room()?;
        let len = room.len().min(left).min(max);
        Ok((&mut room[..len], len == left))
    }

    /// Says that the first `n` bytes of that room were filled.
    pub(super) fn filled(&mut self, n: usize) {
        self.upload.filled(n);
        self.left -= n;
    }

    /// Takes what it can of `input`; the error is the same when memory ran out.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, usize> {
        let mut used = 0;
        while self.left > 0 && used < input.len() {
            let Ok((room, _)) = self.room(input.len() - used) else { return Err(used) };
            let n = room.len();
            assert!(n > 0, "an upload that is not complete has room");
            room.copy_from_slice(&input[used..used + n]);
            self.filled(n);
            used += n;
        }
        while self.tail_have < self.tail_len && used < input.len() {
            self.tail[self.tail_have] = input[used];
            self.tail_have += 1;
            used += 1;
        }
        Ok(used)
    }

    /// Whether value and tail are there.
    pub(super) fn is_complete(&self) -> bool {
        self.left == 0 && self.tail_have == self.tail_len
    }
}
