//! Replies that wait until replicas have what they tell of (`-o replicas_ack`).
//!
//! ```text
//!  request ── its change has lsn 7 ──> ReplyHold: 7 is pending, and a ReplyMark: where the reply lies, how to refuse instead
//!                                        │ the output is to be written
//!                ┌───────────────────────┴─ 7 is safe ──> the socket
//!                │ 7 is not safe yet
//!                v
//!  the connection waits: its output in Pending, with the marks; it is not read. Its slot in the worker's AckQueue
//!                ├── more is safe ── AckWaker ──> worker ──> written as it is, but for what a replica refused
//!                └── deadline ──┬─ strict ──> marked replies that are not safe become errors; written
//!                               └─ ack_degrade ──> everything is safe, until replicas have caught up
//! ```
//!
//! All output of a connection waits behind a change that is pending, so replies stay in order; a change that has no
//! reply is waited for by the replies that follow. Other connections go on. Nothing of this is touched while nobody waits.
//!
//! Invariants: a connection that waits is in the queue exactly once, and is not closed before it was taken out; in the
//! queue lsn and deadline never decrease; nothing is pending or marked between turns.
//!
//! Not here: what is safe ([`crate::journal::acks::Acks`]), the output itself (`conn/buffer`).

use crate::command::Output;
use crate::journal::acks::Acks;
use crate::protocol::binary::Status;
use crate::protocol::{Refusal, Request, StoreHeader};
use mio::Waker;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What takes the place of a reply in text and meta.
pub(super) const REFUSAL: &[u8] = b"SERVER_ERROR not replicated\r\n";

/// The lsn that an [`AckWaker`] waits for when it waits for none.
const NOTHING: u64 = u64::MAX;

/// A change that is not safe yet, and how long to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PendingAck {
    /// Its place in the journal.
    pub lsn: u64,
    /// When to give up.
    pub deadline: Instant,
}

impl PendingAck {
    /// Whether it is to be given up.
    pub(super) fn is_late(&self, now: Instant, safe: u64) -> bool {
        self.deadline <= now && self.lsn > safe
    }
}

/// A place in an [`Output`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutputPlace {
    bytes: usize,
    values: usize,
}

impl OutputPlace {
    /// Where the next reply would begin.
    #[inline]
    pub(super) fn end_of(out: &Output) -> OutputPlace {
        OutputPlace { bytes: out.bytes.len(), values: out.values.len() }
    }

    /// The bytes before it.
    pub(super) fn bytes(self) -> usize {
        self.bytes
    }
}

/// The reply to a change.
#[derive(Debug)]
pub(super) struct ReplyMark {
    bytes: Range<usize>,
    values: Range<usize>,
    lsn: u64,
    /// What takes its place if it comes to nothing.
    refusal: Refusal,
    /// This is not all of the reply: the get goes on when it has been written.
    goes_on: bool,
}

/// What the replies of a turn must wait for. See the module's head.
#[derive(Debug)]
pub(super) struct ReplyHold {
    is_on: bool,
    now: Instant,
    timeout: Duration,
    pending: Option<PendingAck>,
    /// The change that was noted last.
    noted: u64,
    marks: Vec<ReplyMark>,
}

impl ReplyHold {
    /// For changes that have `timeout` to become safe.
    pub(super) fn new(timeout: Duration) -> ReplyHold {
        ReplyHold { is_on: false, now: Instant::now(), timeout, pending: None, noted: 0, marks: Vec::new() }
    }

    /// Looks whether replies to changes have to wait just now. `now` is when the event loop began.
    pub(super) fn begin_loop(&mut self, acks: &Acks, now: impl FnOnce() -> Instant) {
        self.is_on = acks.holds();
        if self.is_on {
            self.now = now();
        }
    }

    /// Whether they do: then replies to changes are marked.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// A turn begins of a connection for which this is pending.
    pub(super) fn begin_turn(&mut self, pending: Option<PendingAck>) {
        assert!(self.marks.is_empty() && self.pending.is_none(), "a turn left marks that belong to its connection");
        self.pending = pending;
    }

    /// It ends: what is pending for the connection now.
    pub(super) fn end_turn(&mut self) -> Option<PendingAck> {
        self.marks.clear();
        self.pending.take()
    }

    /// Whether something may have to wait.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Notes a change.
    pub(super) fn note_change(&mut self, lsn: u64) {
        // What was read may be older than what was changed before.
        let lsn_of_all = self.pending.map_or(lsn, |pending| pending.lsn.max(lsn));
        // Replies may have begun to wait in this turn.
        let now = if self.is_on { self.now } else { Instant::now() };
        self.pending = Some(PendingAck { lsn: lsn_of_all, deadline: now + self.timeout });
        self.noted = lsn;
    }

    /// Notes that the reply to `request`, which is the last change noted, is what `out` has from `start` on. A text command
    /// without a reply wanted none.
    #[cold]
    pub(super) fn mark_reply(&mut self, request: &Request<'_>, start: OutputPlace, goes_on: bool, out: &Output) {
        if self.pending.is_none() {
            return;
        }
        let lsn = self.noted;
        let end = OutputPlace::end_of(out);
        let is_text = matches!(request, Request::Text(_) | Request::Store(StoreHeader::Text(_)));
        if is_text && start == end {
            return;
        }
        let status = Status::NotReplicated;
        let refusal = request.refusal(REFUSAL, status, status.text());
        let (bytes, values) = (start.bytes..end.bytes, start.values..end.values);
        self.marks.push(ReplyMark { bytes, values, lsn, refusal, goes_on });
    }

    /// What the output has to wait for, if anything. What was refused by now is told when it is let go.
    pub(super) fn take_pending(&mut self, acks: &Acks, out: &Output) -> Option<PendingAck> {
        let ack = self.pending?;
        let is_safe = ack.lsn <= acks.replicated_lsn() && !self.marks.iter().any(|mark| acks.is_refused(mark.lsn));
        // Without a mark it is a change of an earlier turn, whose deadline may be over.
        if is_safe || ack.deadline <= self.now {
            self.pending = None;
            self.marks.clear();
            return None;
        }
        if out.is_empty() && self.marks.is_empty() {
            return None;
        }
        self.pending.take()
    }

    /// Takes the marks of an output that waits.
    pub(super) fn take_marks(&mut self) -> Box<[ReplyMark]> {
        self.marks.drain(..).collect()
    }
}

/// What came of giving up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// Replies that became errors.
    pub replies: u64,
    /// One of them was the first part of a get that has not been answered to its end.
    pub cuts_get: bool,
}

/// Replaces the marked replies in `out` to changes of which `is_missing` by errors.
pub(super) fn refuse(out: &mut Output, marks: &[ReplyMark], is_missing: impl Fn(u64) -> bool) -> Refused {
    let old = std::mem::take(out);
    let mut values = old.values.into_iter().enumerate().peekable();
    let mut refused = Refused::default();
    let mut at = 0;
    for mark in marks.iter().filter(|mark| is_missing(mark.lsn)) {
        while let Some((_, mut inserted)) = values.next_if(|(number, _)| *number < mark.values.start) {
            inserted.at = inserted.at - at + out.bytes.len();
            out.values.push(inserted);
        }
        while values.next_if(|(number, _)| *number < mark.values.end).is_some() {}
        out.bytes.extend_from_slice(&old.bytes[at..mark.bytes.start]);
        mark.refusal.push_to(&mut out.bytes);
        at = mark.bytes.end;
        refused = Refused { replies: refused.replies + 1, cuts_get: mark.goes_on };
    }
    for (_, mut inserted) in values {
        inserted.at = inserted.at - at + out.bytes.len();
        out.values.push(inserted);
    }
    out.bytes.extend_from_slice(&old.bytes[at..]);
    refused
}

/// A worker's connections that wait, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct AckQueue(VecDeque<(PendingAck, usize)>);

impl AckQueue {
    /// Adds the connection in slot `key`.
    pub(super) fn push(&mut self, ack: PendingAck, key: usize) {
        // Nearly always the last: only who waits for a change of an earlier turn does not come last.
        let at = self.0.partition_point(|(other, _)| other.lsn <= ack.lsn);
        self.0.insert(at, (ack, key));
    }

    /// Takes out the connection in slot `key`. Whether it was there.
    pub(super) fn remove(&mut self, key: usize) -> bool {
        let before = self.0.len();
        self.0.retain(|&(_, other)| other != key);
        self.0.len() < before
    }

    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is waited for first.
    pub(super) fn first(&self) -> Option<PendingAck> {
        self.0.front().map(|(ack, _)| *ack)
    }

    /// Takes out a connection whose change is safe.
    pub(super) fn pop_safe(&mut self, safe: u64) -> Option<usize> {
        self.pop_if(|ack| ack.lsn <= safe)
    }

    /// Takes out a connection whose deadline is over. Those whose change is safe by now are let go of as such, however
    /// late.
    pub(super) fn pop_expired(&mut self, now: Instant, safe: u64) -> Option<usize> {
        self.pop_if(|ack| ack.is_late(now, safe))
    }

    fn pop_if(&mut self, is_due: impl FnOnce(PendingAck) -> bool) -> Option<usize> {
        let due = self.first().is_some_and(is_due);
        due.then(|| self.0.pop_front()).flatten().map(|(_, key)| key)
    }
}

/// Wakes a worker when the first change that it waits for is safe.
#[derive(Debug)]
pub(super) struct AckWaker {
    first: AtomicU64,
    waker: Arc<Waker>,
}

impl AckWaker {
    /// One that waits for nothing.
    pub(super) fn new(waker: Arc<Waker>) -> AckWaker {
        AckWaker { first: AtomicU64::new(NOTHING), waker }
    }

    /// Waits for a change from now on. Look at what is safe after this and before sleeping.
    pub(super) fn wait_for(&self, first: Option<PendingAck>) {
        self.first.store(first.map_or(NOTHING, |ack| ack.lsn), Ordering::SeqCst);
    }

    /// Wakes the worker if it waits for one of the changes up to `safe`; once, until it waits again.
    pub(super) fn on_safe(&self, safe: u64) {
        let first = self.first.load(Ordering::SeqCst);
        if first == NOTHING || first > safe {
            return;
        }
        let taken = self.first.compare_exchange(first, NOTHING, Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_ok()
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake a worker: {error}");
        }
    }
}

#[cfg(test)]
#[path = "tests/reply_hold.rs"]
mod tests;
