//! A large value on its way in, straight to where it will be stored; or one that is being appended to.
//!
//! ```text
//!  line or packet | value, in pieces: from the socket, or copied from a buffer | tail (`\r\n`, or nothing)
//! ```
//!
//! Not here: where the pieces come from (`conn`), what becomes of the value (`session`, `command`).

use crate::command::LongJoin;
use crate::protocol::Cut;
use crate::store::{AllocError, ROOMS_MAX, Upload};
use std::io::IoSliceMut;

/// Longest tail after a value: `\r\n`.
const TAIL_MAX: usize = 2;

/// Where the next bytes of a large value go.
pub(crate) struct UploadRooms<'a> {
    /// So many slices of these, and room for one more behind.
    pub(super) slices: [IoSliceMut<'a>; ROOMS_MAX + 1],
    pub(super) count: usize,
    /// Bytes of them.
    pub(super) len: usize,
    /// Whether they may be the last of the value.
    pub(super) are_last: bool,
}

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

/// An append to a large value.
#[derive(Debug)]
pub(super) struct Joining {
    /// As [`Uploading::head`].
    pub(super) head: Box<[u8]>,
    /// Bytes at the start of the connection's input that are this request: all of it, while it waits and was not an upload.
    pub(super) in_input: usize,
    pub(super) join: LongJoin,
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

    /// Where the next bytes go, at most `max` of them. The error is: out of memory.
    pub(super) fn rooms(&mut self, max: usize) -> Result<UploadRooms<'_>, AllocError> {
        let left = self.left;
        let mut slices = std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let mut count = 0;
        let len = self.upload.rooms(max.min(left), |slice| {
            slices[count] = slice;
            count += 1;
        })?;
        Ok(UploadRooms { slices, count, len, are_last: len == left })
    }

    /// Says that the first `n` bytes of that room were filled.
    pub(super) fn filled(&mut self, n: usize) {
        self.upload.filled(n);
        self.left -= n;
    }

    /// Whether the memory for what comes next is not ready yet.
    pub(super) fn must_wait(&self) -> bool {
        self.upload.must_wait()
    }

    /// Takes what it can of `input`: less than it could only if memory is not ready yet. The error is the same when it ran
    /// out.
    pub(super) fn take(&mut self, input: &[u8]) -> Result<usize, usize> {
        let mut used = 0;
        while self.left > 0 && used < input.len() {
            if self.must_wait() {
                return Ok(used);
            }
            let Ok(room) = self.upload.room() else { return Err(used) };
            let n = room.len().min(self.left).min(input.len() - used);
            assert!(n > 0, "an upload that is not complete has room");
            room[..n].copy_from_slice(&input[used..used + n]);
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
