//! What a turn of a connection is: what it may use, how much it may do, and how it ends.
//!
//! Not here: what is done in it (`conn`, `session`), when it comes (`worker`).

use crate::command::{Output, Shared};
use crate::config::Config;
use crate::journal::acks::LastLsn;
use crate::net::reply_hold::ReplyHold;
use crate::net::voice::Voice;
use crate::stats::Counters;
use crate::stats::event_loop::LoopTimer;
use crate::watch::Streams;

/// Replies beyond this are written before the next request of the batch is run.
pub(crate) const OUTPUT_HIGH: usize = 256 << 10;

/// Bytes read or written in one turn before others get theirs: one value of the default size limit, and its line. What
/// else costs time counts as some of them ([`Quota`]), so that a turn takes 0.4 ms at most.
pub(crate) const TURN_BYTES: usize = (1 << 20) + (1 << 10);

/// Replies and values from this size on are large: to move one costs as much as ten requests do.
pub(crate) const LARGE: usize = 16 << 10;

/// Bytes of a large value that are moved before it is others' turn who move one: in 0.05 ms, or in 1 ms where the kernel
/// has to find memory for them first.
pub(crate) const SLICE: usize = 256 << 10;

/// What is read of a connection in a crowd: a value that is not large, and its line.
const FIRST_READ: usize = LARGE + (1 << 10);

/// What a byte of a line counts for: a key of 20 bytes takes 0.3 us, which is what 1 KiB of a large value takes.
pub(crate) const LINE_BYTE: usize = 32;

/// What a part of a long get counts for, a whole turn: it takes 0.25 ms and more.
pub(crate) const PART: usize = 4 * OUTPUT_HIGH;

/// Connections that wait for their turns beyond which turns are shorter: 64 turns of 13 us are as long as two others.
const CROWD: usize = 64;

/// The least of a turn: 20 requests of text, and more of binary.
const TURN_BYTES_MIN: usize = 32 << 10;

/// The least that a part of a long get is.
const PART_MIN: usize = 8 << 10;

/// What of its worker's a connection uses in a turn.
#[derive(Debug)]
pub(crate) struct TurnContext<'a> {
    /// What all workers share.
    pub shared: &'a Shared,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// The clock, as the worker last looked at it.
    pub meter: &'a LoopTimer,
    /// Where replies go.
    pub out: &'a mut Output,
    /// Where this connection's begin: before them are others' that have not been written.
    pub replies_at: usize,
    /// The clock's second.
    pub now: u32,
    /// Replies beyond this are written before the next request is run: see [`OUTPUT_HIGH`].
    pub output_high: usize,
    /// A long get pauses when it has produced so much. It may be more than `output_high`: what it has produced is then
    /// written in slices.
    pub part: usize,
    /// No more memory is to be held for lines longer than [`super::long_line::LONG_LINE`].
    pub is_tight: bool,
    /// See [`crate::command::Context::may_be_long`].
    pub may_be_long: bool,
    /// See [`crate::command::Context::room`].
    pub room: usize,
    /// What the replies of the turn must wait for. Empty between turns.
    pub reply_hold: &'a mut ReplyHold,
    /// The last change that the worker's requests have journalled.
    pub last_lsn: &'a LastLsn,
    /// Whether clients may be answered, where that is not certain.
    pub voice: Option<&'a Voice>,
    /// The connection is that of a shard's feeder: its owner waits for this server, and this one for nobody.
    pub waits_for_nobody: bool,
}

impl TurnContext<'_> {
    /// Whether something has been journalled since the last lsn was `before`, or something was read that replicas may not
    /// have (`-o linearizable`), and replies wait for that: then it is noted that one has to.
    #[inline]
    pub(crate) fn notes_change(&mut self, before: u64) -> bool {
        let (last, seen) = (self.last_lsn.get(), self.last_lsn.take_seen());
        if last == before && seen > self.shared.store.journal().acks().replicated_lsn() && !self.waits_for_nobody {
            self.reply_hold.note_change(seen);
            return true;
        }
        let waits = last != before && self.reply_hold.is_on() && !self.waits_for_nobody;
        if waits {
            self.reply_hold.note_change(last);
        }
        waits
    }

    /// A request has looked at items and is not answered yet: it looks again, and its reply then waits for what it sees.
    pub(crate) fn forget_seen(&self) {
        self.last_lsn.take_seen();
    }
}

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// Until the socket has news.
    Wait,
    /// Until what its replies wait for has come, or the deadline is over; then the next turn.
    WaitForAcks,
    /// There is more to do; others first.
    Again,
    /// A large value is to be moved, or some of one; others first, and then those who wait to do the same.
    Large,
    /// The memory of a large value is being got ready; others meanwhile.
    WaitForMemory,
    /// Until it is its turn to copy a large value.
    WaitToCopy,
    /// Close the socket.
    Close(CloseReason),
    /// Hand the socket to the watch writer.
    Watch(Streams),
}

/// Why a connection ends, as `watch connevents` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The client broke the rules, or does not read its replies.
    Error,
    /// A read failed, with this number of the system.
    Lost(i32),
    /// The client left or said quit.
    Normal,
    /// Nothing came for `idle_timeout` seconds.
    IdleTimeout,
    /// The shutdown command.
    Shutdown,
}

impl CloseReason {
    /// The word on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            CloseReason::Error | CloseReason::Lost(_) => "error",
            CloseReason::Normal => "normal",
            CloseReason::IdleTimeout => "idle_timeout",
            CloseReason::Shutdown => "shutdown",
        }
    }
}

/// What a turn may still do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quota {
    /// Requests.
    pub requests: u32,
    /// Bytes read, written or dumped, and what takes as long: see [`LINE_BYTE`] and [`PART`].
    pub bytes: usize,
    /// Who wants to move more than this, of replies or of a large value, gets in line ([`After::Large`]).
    pub room: usize,
    /// Bytes that are written at most.
    pub slice: usize,
    /// What the connection waits for when that is spent.
    awaits: Awaited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Others,
    Line,
    Memory,
    Copying,
}

impl Quota {
    /// Of a new turn, while so many connections wait for theirs: who asks for little is not to wait for a thousand who ask
    /// for much.
    #[inline]
    pub(crate) fn new(config: &Config, crowd: usize) -> Quota {
        let bytes = if crowd <= CROWD { TURN_BYTES } else { (TURN_BYTES * CROWD / 2 / crowd).max(TURN_BYTES_MIN) };
        let requests = config.reqs_per_event.max(1);
        let (room, slice) = (usize::MAX, TURN_BYTES);
        Quota { requests, bytes, room, slice, awaits: Awaited::Others }
    }

    /// The same for who may move so much at once, because others wait.
    #[inline]
    pub(crate) fn with_room(self, room: usize) -> Quota {
        Quota { room, slice: room, ..self }
    }

    /// The same for who was in line, and moves so much.
    pub(crate) fn with_slice(self, slice: usize) -> Quota {
        Quota { bytes: slice, slice, ..self }
    }

    /// What a part of a long get may produce in such a turn.
    #[inline]
    pub(crate) fn part(&self) -> usize {
        (self.bytes / 4).clamp(PART_MIN, OUTPUT_HIGH)
    }

    /// Whether it is others' turn.
    pub(crate) fn is_spent(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    /// There is no room for what is next.
    pub(crate) fn get_in_line<R>(&mut self, result: R) -> R {
        (self.bytes, self.awaits) = (0, Awaited::Line);
        result
    }

    /// There is no memory yet for what is next.
    pub(crate) fn wait_for_memory<R>(&mut self, result: R) -> R {
        (self.bytes, self.awaits) = (0, Awaited::Memory);
        result
    }

    /// Others copy large values, who came before.
    pub(crate) fn wait_to_copy<R>(&mut self, result: R) -> R {
        (self.bytes, self.awaits) = (0, Awaited::Copying);
        result
    }

    /// How a turn ends in which it was spent. `is_large` says that a large value is to be moved.
    pub(crate) fn after(&self, is_large: bool) -> After {
        match self.awaits {
            Awaited::Memory => After::WaitForMemory,
            Awaited::Copying => After::WaitToCopy,
            Awaited::Others if !is_large => After::Again,
            Awaited::Line | Awaited::Others => After::Large,
        }
    }

    /// Counts bytes that were written.
    pub(crate) fn take_written(&mut self, n: usize) {
        self.take_bytes(n);
        self.room = self.room.saturating_sub(n);
        self.slice = self.slice.saturating_sub(n);
    }

    /// Counts bytes.
    pub(crate) fn take_bytes(&mut self, n: usize) {
        self.bytes = self.bytes.saturating_sub(n);
    }

    /// Nothing more can be done now: it is others' turn.
    pub(crate) fn give_up<R>(&mut self, result: R) -> R {
        self.requests = 0;
        result
    }

    /// What is next takes long: it is the turn of who wants less.
    pub(crate) fn put_off<R>(&mut self, result: R) -> R {
        self.bytes = 0;
        result
    }

    /// Counts requests.
    pub(crate) fn take_requests(&mut self, n: u32) {
        self.requests = self.requests.saturating_sub(n);
    }
}

/// What each connection may do in its turn, made once for all who have one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// The turn's quota.
    pub quota: Quota,
    /// Replies beyond this are written before the next request is run.
    pub output_high: usize,
    /// What a part of a long get may produce.
    pub part: usize,
    /// What is read before the turn.
    pub first_read: usize,
}

impl Share {
    /// Of such a quota.
    pub(crate) fn new(quota: Quota, output_high: usize, part_high: usize) -> Share {
        let first_read = (quota.bytes / 4).max(FIRST_READ);
        Share { quota, output_high, part: quota.part().min(part_high), first_read }
    }
}
