//! What a connection keeps between turns: input that is not yet a whole request, output that the socket
//! did not take.
//!
//! ```text
//! Leftover   . . . . | g e t   a b       done bytes, then the start of a request; no memory when empty
//! Pending    Output + Cursor             a copy of what is left of a batch's replies; or all of them, waiting (`reply_hold`)
//! ```
//!
//! Invariants: an idle connection owns neither; a [`Cursor`] never passes the end of its output.
//!
//! Not here: the worker's shared read buffer and shared output, which `worker` owns and lends.

use crate::command::Output;
use crate::command::output::Inserted;
use crate::io::edge::Edge;
use crate::net::reply_hold;
use crate::net::reply_hold::{PendingAck, Refused, ReplyHold, ReplyMark};
use crate::net::voice::Voice;
use crate::stats::event_loop::LoopTimer;
use crate::stats::latency::Withheld;
use std::io::{self, IoSlice, Write};
use std::time::Instant;

/// Slices handed to one vectored write. The kernel takes at most 1024; a batch has rarely more than two per value.
const SLICES_MAX: usize = 64;

/// A line that grows gets so much more room each time. Doubled, it would take up to twice of what it is.
const GROWTH: usize = 1 << 20;

/// Memory of a value that leaves by reference, beside the value.
const INSERTED: usize = size_of::<Inserted>();

/// Input that waits for more.
#[derive(Debug, Default)]
pub(crate) struct Leftover {
    data: Vec<u8>,
    /// Bytes of `data` that are done with.
    start: usize,
    /// When its last bytes were read.
    read_at: Option<Instant>,
    /// The system had no memory for it: what has come is lost.
    is_lost: bool,
}

impl Leftover {
    /// The bytes that wait.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Whether none wait.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Whether the system had no memory for it. Then nothing is left to do but to close.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// When its last bytes were read.
    pub(crate) fn read_at(&self) -> Option<Instant> {
        self.read_at
    }

    /// Replaces everything by `rest`, which has just been read, with room for `want` bytes in all.
    #[inline]
    pub(crate) fn keep(&mut self, rest: &[u8], want: usize, meter: &LoopTimer) {
        // Nearly always.
        if rest.is_empty() && self.data.capacity() == 0 {
            self.start = 0;
            return;
        }
        self.keep_some(rest, want, meter);
    }

    fn keep_some(&mut self, rest: &[u8], want: usize, meter: &LoopTimer) {
        (self.start, self.read_at) = (0, Some(meter.read_at()));
        self.data.clear();
        if rest.is_empty() {
            self.data = Vec::new();
            return;
        }
        self.grow(want.max(rest.len()), rest);
    }

    /// Adds bytes, with room for `room` of them.
    fn grow(&mut self, room: usize, bytes: &[u8]) {
        if self.data.try_reserve_exact(room).is_err() {
            *self = Leftover { is_lost: true, ..Leftover::default() };
            return;
        }
        self.data.extend_from_slice(bytes);
    }

    /// Adds bytes that came later.
    pub(crate) fn append(&mut self, bytes: &[u8], meter: &LoopTimer) {
        self.read_at = Some(meter.read_at());
        if self.start > 0 {
            self.data.drain(..self.start);
            self.start = 0;
        }
        let has_room = self.data.capacity() - self.data.len() >= bytes.len();
        self.grow(if has_room { 0 } else { bytes.len().max(self.data.len().min(GROWTH)) }, bytes);
    }

    /// Says that the first `n` bytes are done with.
    pub(crate) fn advance(&mut self, n: usize) {
        self.start += n;
        assert!(self.start <= self.data.len(), "consumed more than there was");
        if self.is_empty() {
            *self = Leftover::default();
        }
    }
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Everything is with the kernel.
    All,
    /// The socket may take more; others have their turn.
    Paused,
    /// The socket takes no more until it says so.
    Blocked,
    /// The peer is gone, or nothing may be said to it any more.
    Broken,
    /// Nothing was written: it begins to wait for replicas.
    Withheld,
}

/// One write, as far as `voice` allows it; how it ended and how many bytes went.
#[inline(always)]
pub(crate) fn write_bytes(socket: &mut Edge<impl Write>, bytes: &[u8], voice: Option<&Voice>) -> (Sent, usize) {
    write_once(socket, bytes.len(), voice, |stream| stream.write(bytes))
}

#[inline(always)]
fn write_once<S: Write>(
    socket: &mut Edge<S>,
    offered: usize,
    voice: Option<&Voice>,
    write: impl FnMut(&mut S) -> io::Result<usize>,
) -> (Sent, usize) {
    match voice {
        None => outcome(socket.write_by(offered, write), offered),
        Some(voice) => write_as(voice, socket, offered, write),
    }
}

/// The same in a server that is told its role.
#[inline(never)]
fn write_as<S: Write>(
    voice: &Voice,
    socket: &mut Edge<S>,
    offered: usize,
    write: impl FnMut(&mut S) -> io::Result<usize>,
) -> (Sent, usize) {
    let written = voice.speak(|| socket.write_by(offered, write));
    written.map_or((Sent::Broken, 0), |written| outcome(written, offered))
}

#[inline(always)]
fn outcome(written: io::Result<Option<usize>>, offered: usize) -> (Sent, usize) {
    match written {
        Ok(Some(n)) if n == offered => (Sent::All, n),
        Ok(Some(0)) | Err(_) => (Sent::Broken, 0),
        Ok(n) => (Sent::Blocked, n.unwrap_or(0)),
    }
}

/// How far an [`Output`] has been written.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    /// Bytes of [`Output::bytes`] written.
    bytes: usize,
    /// Values written.
    value: usize,
    /// Bytes of the next value written.
    within: usize,
}

impl Cursor {
    /// Writes `most` bytes of `out` from here on, and returns how it ended and how many bytes went.
    pub(crate) fn write(
        &mut self,
        socket: &mut Edge<impl Write>,
        out: &Output,
        voice: Option<&Voice>,
        most: usize,
    ) -> (Sent, usize) {
        let mut total = 0;
        while !self.is_end(out) {
            if total == most {
                return (Sent::Paused, total);
            }
            let (sent, n) = self.write_some(socket, out, voice, most - total);
            self.advance(out, n);
            total += n;
            if sent != Sent::All {
                return (sent, total);
            }
        }
        (Sent::All, total)
    }

    fn is_end(&self, out: &Output) -> bool {
        self.bytes == out.bytes.len() && self.value == out.values.len()
    }

    fn write_some(
        &self,
        socket: &mut Edge<impl Write>,
        out: &Output,
        voice: Option<&Voice>,
        most: usize,
    ) -> (Sent, usize) {
        if self.value == out.values.len() {
            let rest = &out.bytes[self.bytes..];
            return write_bytes(socket, &rest[..rest.len().min(most)], voice);
        }
        let slices = self.slices(out, most);
        let offered = slices.iter().map(|s| s.len()).sum();
        write_once(socket, offered, voice, |stream| stream.write_vectored(&slices))
    }

    /// Of `most` bytes, and as many as one write takes.
    fn slices<'a>(&self, out: &'a Output, mut most: usize) -> Vec<IoSlice<'a>> {
        let mut slices = Vec::with_capacity(SLICES_MAX);
        let (mut at, mut within) = (self.bytes, self.within);
        let mut push = |bytes: &'a [u8]| {
            let n = bytes.len().min(most);
            most -= n;
            if n > 0 {
                slices.push(IoSlice::new(&bytes[..n]));
            }
            most > 0 && slices.len() < SLICES_MAX
        };
        for inserted in &out.values[self.value..] {
            let before = &out.bytes[at..inserted.at];
            at = inserted.at;
            if !push(before) || !inserted.value.slices(within).all(&mut push) {
                return slices;
            }
            within = 0;
        }
        push(&out.bytes[at..]);
        slices
    }

    fn advance(&mut self, out: &Output, mut n: usize) {
        loop {
            let next = out.values.get(self.value);
            let end = next.map_or(out.bytes.len(), |inserted| inserted.at);
            let step = n.min(end - self.bytes);
            self.bytes += step;
            n -= step;
            let Some(inserted) = next else { return };
            let step = n.min(inserted.value.len() - self.within);
            self.within += step;
            n -= step;
            if self.bytes < end || self.within < inserted.value.len() {
                return;
            }
            self.value += 1;
            self.within = 0;
        }
    }
}

/// Values that others need the memory of are kept for a client that has taken nothing for so many seconds no longer, or
/// is at the same replies for so many.
const STANDS_STILL: u32 = 2;
const SLOW: u32 = 30;

/// Replies that the socket did not take.
#[derive(Debug)]
pub(crate) struct Pending {
    out: Output,
    cursor: Cursor,
    /// It waits for replicas: for what, and the marks of its replies to changes.
    waiting: Option<(PendingAck, Box<[ReplyMark]>)>,
    /// What was measured of them.
    pub(super) withheld: Option<Withheld>,
    /// The seconds since which it has waited, and in which the client last took some of it.
    since: u32,
    moved: u32,
}

impl Pending {
    /// Takes a copy of what is left of `out` from `cursor` on, and leaves `out` empty with its memory. Values that have
    /// gone are let go of. None: the system has no memory for it.
    pub(crate) fn take(out: &mut Output, cursor: Cursor, now: u32) -> Option<Pending> {
        let values = out.values.drain(..).skip(cursor.value);
        let values: Vec<Inserted> =
            values.map(|inserted| Inserted { at: inserted.at - cursor.bytes, ..inserted }).collect();
        let mut pending = Pending::of(&out.bytes[cursor.bytes..], now);
        out.bytes.clear();
        if let Some(pending) = &mut pending {
            (pending.out.values, pending.cursor.within) = (values, cursor.within);
        }
        pending
    }

    /// Takes a copy of what is left. None: the system has no memory for it.
    pub(crate) fn of(rest: &[u8], now: u32) -> Option<Pending> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(rest.len()).ok()?;
        bytes.extend_from_slice(rest);
        let out = Output { bytes, values: Vec::new() };
        Some(Pending { out, cursor: Cursor::default(), waiting: None, withheld: None, since: now, moved: now })
    }

    /// Takes all of `out` to hold it. The buffers of `out` and `reply_hold` stay where they are: batches that wait are
    /// short, and the next one need not grow them again.
    pub(crate) fn hold(out: &mut Output, reply_hold: &mut ReplyHold, ack: PendingAck, now: u32) -> Pending {
        let copy = Output { bytes: out.bytes.as_slice().to_vec(), values: std::mem::take(&mut out.values) };
        out.bytes.clear();
        let waiting = Some((ack, reply_hold.take_marks()));
        Pending { out: copy, cursor: Cursor::default(), waiting, withheld: None, since: now, moved: now }
    }

    /// What it waits for, if it does.
    pub(crate) fn waits_for(&self) -> Option<PendingAck> {
        self.waiting.as_ref().map(|(ack, _)| *ack)
    }

    /// How many replies to changes wait in it.
    pub(crate) fn waiting_replies(&self) -> u64 {
        self.waiting.as_ref().map_or(0, |(_, marks)| marks.len() as u64)
    }

    /// It waits no more: replies to changes of which `is_missing` become errors.
    pub(crate) fn refuse(&mut self, is_missing: impl Fn(u64) -> bool) -> Refused {
        self.waiting
            .take()
            .map_or_else(Refused::default, |(_, marks)| reply_hold::refuse(&mut self.out, &marks, is_missing))
    }

    /// Bytes that are still to be written.
    pub(crate) fn len(&self) -> usize {
        self.out.len() - self.cursor.bytes - self.cursor.within
    }

    /// Writes on, `most` bytes.
    pub(crate) fn write(
        &mut self,
        socket: &mut Edge<impl Write>,
        voice: Option<&Voice>,
        now: u32,
        most: usize,
    ) -> (Sent, usize) {
        let result = self.cursor.write(socket, &self.out, voice, most);
        if result.1 > 0 {
            self.moved = now;
        }
        self.out.values.drain(..self.cursor.value);
        self.cursor.value = 0;
        result
    }

    /// Memory held, but for the values.
    pub(crate) fn capacity(&self) -> usize {
        let of_values: usize = self.out.values.iter().map(|inserted| inserted.value.held()).sum();
        self.out.bytes.capacity() + self.out.values.capacity() * INSERTED + of_values
    }

    /// Whether it keeps values where they are for a client that takes them too slowly.
    pub(crate) fn blocks_values(&self, now: u32) -> bool {
        let stands_still = now.saturating_sub(self.moved) >= STANDS_STILL;
        let is_slow = now.saturating_sub(self.since) >= SLOW;
        !self.out.values.is_empty() && (stands_still || is_slow)
    }
}
