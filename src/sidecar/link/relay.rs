//! The one buffer of a peer's stream: it is filled from the control socket, and written from there to the peer.
//!
//! ```text
//!   buffer   ....|header|body body body|header|body bo|..free..|
//!                ^start                        parsed^  ^end
//!   segments      Skip   Body           Skip   Body          and between them our own commands: Own("mn\r\n")
//! ```
//!
//! Bodies are neither copied nor looked at. Headers are skipped when the bytes before them have been written. The
//! rest moves to the front only when half of the buffer has been written, so that a byte moves at most once. While a
//! peer keeps up, the buffer is emptied before that, and nothing moves.
//!
//! Invariants: `start <= parsed <= end`; the segments from the buffer, without what was written of them, cover
//! `start..parsed`; `pending` counts all bytes that go to the peer. They are asserted after each step.
//!
//! Not here: what the lines mean, after which of them a body comes, and when commands are added.

use crate::protocol::control::LINE_MAX;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::IoSlice;

/// The most bytes between the two sockets: two of the server's batches, so that one can be read while the other is
/// written.
const CAPACITY: usize = 512 << 10;

/// The most slices in one vectored write. A batch takes two, and 32 small batches in a write are enough.
const SLICES_MAX: usize = 64;

#[derive(Debug)]
enum RelaySegment {
    /// Bytes of the buffer that go to the peer.
    Body(usize),
    /// Bytes of the buffer that do not go to the peer.
    Skip(usize),
    /// Bytes of our own that go to the peer.
    Own(Cow<'static, [u8]>),
}

/// What comes next from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A line.
    Line,
    /// The end of a body.
    BodyEnd,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Relay {
    buffer: Box<[u8]>,
    start: usize,
    parsed: usize,
    end: usize,
    segments: VecDeque<RelaySegment>,
    /// Bytes that were written of the first segment, if it is our own.
    own_taken: usize,
    /// Bytes for the peer that are not written yet.
    pending: usize,
    /// Bytes of the present body that have not been read yet; None between batches.
    body_left: Option<u64>,
}

impl Default for Relay {
    fn default() -> Relay {
        Relay {
            buffer: vec![0; CAPACITY].into(),
            start: 0,
            parsed: 0,
            end: 0,
            segments: VecDeque::new(),
            own_taken: 0,
            pending: 0,
            body_left: None,
        }
    }
}

impl Relay {
    /// Forgets everything: both connections are new.
    pub(super) fn clear(&mut self) {
        (self.start, self.parsed, self.end) = (0, 0, 0);
        self.segments.clear();
        (self.own_taken, self.pending, self.body_left) = (0, 0, None);
    }

    /// Where to read the control socket into; empty while the peer is slower than the server.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start >= CAPACITY / 2 || self.start == self.end {
            self.buffer.copy_within(self.start..self.end, 0);
            self.parsed -= self.start;
            self.end -= self.start;
            self.start = 0;
            self.check();
        }
        &mut self.buffer[self.end..]
    }

    /// Whether [`Relay::room`] is empty.
    pub(super) fn is_full(&self) -> bool {
        self.end == CAPACITY && self.start < CAPACITY / 2 && self.start < self.end
    }

    /// `n` bytes were read into [`Relay::room`].
    pub(super) fn filled(&mut self, n: usize) {
        self.end += n;
        self.check();
    }

    /// What comes next: a line, put into `line` without its end, or the end of the body that was begun. None when more
    /// has to be read first.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<Option<Incoming>, &'static str> {
        if let Some(left) = self.body_left {
            let here = (self.end - self.parsed).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.pass(here);
            let left = left - here as u64;
            self.body_left = (left > 0).then_some(left);
            return Ok((left == 0).then_some(Incoming::BodyEnd));
        }
        let rest = &self.buffer[self.parsed..self.end];
        let Some(end) = memchr::memchr(b'\n', &rest[..rest.len().min(LINE_MAX)]) else {
            return if rest.len() < LINE_MAX { Ok(None) } else { Err("a line without end") };
        };
        line.clear();
        line.extend_from_slice(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]));
        self.skip(end + 1);
        Ok(Some(Incoming::Line))
    }

    /// Says that a body of so many bytes follows the last line.
    pub(super) fn begin_body(&mut self, bytes: u64) {
        assert!(self.body_left.is_none(), "a body within a body");
        self.body_left = Some(bytes);
    }

    fn pass(&mut self, n: usize) {
        self.parsed += n;
        self.pending += n;
        match self.segments.back_mut() {
            Some(RelaySegment::Body(before)) => *before += n,
            _ if n > 0 => self.segments.push_back(RelaySegment::Body(n)),
            _ => {}
        }
        self.check();
    }

    fn skip(&mut self, n: usize) {
        self.parsed += n;
        match self.segments.back_mut() {
            None => self.start += n,
            Some(RelaySegment::Skip(before)) => *before += n,
            Some(_) => self.segments.push_back(RelaySegment::Skip(n)),
        }
        self.check();
    }

    /// Asserts the invariants of the module's head; in release builds only those that cost little.
    fn check(&self) {
        assert!(self.start <= self.parsed && self.parsed <= self.end && self.end <= CAPACITY, "offsets out of order");
        if cfg!(debug_assertions) {
            let (mut parsed, mut goes_on) = (self.start, 0);
            for segment in &self.segments {
                match segment {
                    RelaySegment::Body(n) => (parsed, goes_on) = (parsed + n, goes_on + n),
                    RelaySegment::Skip(n) => parsed += n,
                    RelaySegment::Own(own) => goes_on += own.len(),
                }
            }
            assert_eq!((parsed, goes_on), (self.parsed, self.pending + self.own_taken), "what the segments cover");
        }
    }

    /// Whether a command of our own can be added here: not in the midst of a body.
    pub(super) fn is_between_batches(&self) -> bool {
        self.body_left.is_none()
    }

    /// Adds a command of our own after what was passed so far.
    pub(super) fn add(&mut self, own: impl Into<Cow<'static, [u8]>>) {
        assert!(self.is_between_batches(), "a command within a body");
        let own = own.into();
        self.pending += own.len();
        self.segments.push_back(RelaySegment::Own(own));
        self.check();
    }

    /// Bytes that wait to be written to the peer.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// What to write to the peer next, `limit` bytes at most; a command of our own not together with a body before it,
    /// if it is to be `apart`.
    pub(super) fn slices(&self, limit: usize, apart: bool) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::with_capacity(self.segments.len().min(SLICES_MAX));
        let (mut at, mut left, mut is_after_body) = (self.start, limit, false);
        for (number, segment) in self.segments.iter().enumerate() {
            let bytes: &[u8] = match segment {
                RelaySegment::Skip(n) => {
                    at += n;
                    continue;
                }
                RelaySegment::Body(n) => {
                    at += n;
                    is_after_body = true;
                    &self.buffer[at - n..at]
                }
                RelaySegment::Own(_) if apart && is_after_body => break,
                RelaySegment::Own(own) => &own[if number == 0 { self.own_taken } else { 0 }..],
            };
            if left == 0 || slices.len() == SLICES_MAX {
                break;
            }
            let bytes = &bytes[..bytes.len().min(left)];
            left -= bytes.len();
            slices.push(IoSlice::new(bytes));
        }
        slices
    }

    /// The first `n` bytes of [`Relay::slices`] were written.
    pub(super) fn written(&mut self, n: usize) {
        self.pending -= n;
        self.drop_written(n);
        self.check();
    }

    fn drop_written(&mut self, mut n: usize) {
        while let Some(segment) = self.segments.front_mut() {
            match segment {
                RelaySegment::Skip(skipped) => self.start += *skipped,
                RelaySegment::Body(len) if *len <= n => {
                    self.start += *len;
                    n -= *len;
                }
                RelaySegment::Own(own) if own.len() - self.own_taken <= n => {
                    n -= own.len() - self.own_taken;
                    self.own_taken = 0;
                }
                RelaySegment::Body(len) => {
                    self.start += n;
                    *len -= n;
                    return;
                }
                RelaySegment::Own(_) => {
                    self.own_taken += n;
                    return;
                }
            }
            self.segments.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "tests/relay.rs"]
mod tests;
