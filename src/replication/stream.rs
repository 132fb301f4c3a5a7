//! The stream of changes to one consumer: records read from the journal, as meta commands in batches.
//!
//! ```text
//!   Subscription ─ records, READ_MAX bytes ─> push ─> | batch line | meta commands … | batch line | …
//!                └ a notice ─> ends the batch ─> its own line
//! ```
//!
//! Bodies are what [`crate::protocol::change`] writes. A batch says that everything up to its lsn has been sent, so one
//! that ends in the middle of what belongs together names an older lsn.
//!
//! Invariants: a batch holds at most [`BATCH_MAX`] bytes, or one item; nothing is read from the journal while
//! anything that was read before is not in a batch; nothing is confirmed that was not sent.
//!
//! Not here: in which order, what is lost and what is sent again (`journal`, `store::resync`).

use crate::command::{Output, Shared};
use crate::journal::{Notice, Record, RecordKind, records};
use crate::protocol::change;
use crate::protocol::change::{Expiry, WireKey};
use crate::protocol::control::{self, BATCH_LINE, Position, ServerLine};
use crate::store::{Subscription, Update};
use std::io::Write;
use std::time::{Duration, Instant};

/// The most bytes in the body of a batch, unless it is one item.
pub const BATCH_MAX: usize = 256 << 10;

/// A batch ends when it has so many: enough that its line and its system call count for nothing, and so few that what
/// is read, written and sent stays in the processor's cache.
const BATCH_FULL: usize = 64 << 10;

/// Bytes of records read from the journal at a time, so few that they are in the first cache while they are written:
/// the thread took 212 ns of CPU for a change of 100 bytes, and 236 with 64 KiB.
const READ_MAX: usize = 16 << 10;

/// Steps taken for one batch: each may walk for some 70 us, and others wait.
const STEPS_MAX: usize = 16;

/// The most lines that one record takes.
const LINES_PER_RECORD: usize = 3;

/// Bytes that they take besides key and value, at most.
const LINES_MAX: usize = LINES_PER_RECORD * 2 * 112;

/// What was appended longer ago than this is late: half the time for which a touch tells the value as well. The other
/// half is for what is on its way.
const LATE: Duration = Duration::from_secs(30);

/// What an attached consumer is sent. See the module's head.
#[derive(Debug)]
pub struct ChangeStream {
    subscription: Subscription,
    /// The peer takes cas uniques.
    with_cas: bool,
    /// What was read from the journal, and how much of it is in batches.
    records: Vec<u8>,
    done: usize,
    /// Where in the output the batch in the making begins: room for its line, then its body.
    begun: Option<usize>,
    /// Everything up to here is in batches.
    pub(super) lsn: u64,
    /// The batch in the making says so much more.
    pub(super) said: u64,
    pub(super) acked: u64,
    /// What came after one lsn and up to the other had changes that no command can tell.
    untold: Option<(u64, u64)>,
    /// What was not read yet was appended after this; none: perhaps long ago.
    fresh_since: Option<Instant>,
    /// The last [`ChangeStream::fill`] ended before there was nothing left.
    pub(super) is_behind: bool,
    /// Another consumer has taken this one's place.
    pub(super) is_gone: bool,
}

impl ChangeStream {
    /// A stream of what is read by a subscription that has just begun.
    pub fn new(subscription: Subscription, with_cas: bool, now: Instant) -> ChangeStream {
        let lsn = subscription.lsn();
        let is_full_sync = subscription.began_with_full_sync();
        let acked = if is_full_sync { 0 } else { lsn };
        ChangeStream {
            subscription,
            with_cas,
            records: Vec::new(),
            done: 0,
            begun: None,
            lsn,
            said: lsn,
            acked,
            untold: None,
            fresh_since: is_full_sync.then_some(now),
            is_behind: true,
            is_gone: false,
        }
    }

    /// Notes what the peer has confirmed: all up to `lsn`, or all but some of what came since the last time. Whether the
    /// connection may stay.
    pub fn acknowledge(&mut self, lsn: u64, is_all: bool, shared: &Shared, out: &mut Output) -> bool {
        if lsn > self.said {
            return refuse_ack(shared, out);
        }
        self.acked = self.acked.max(lsn);
        match is_all && self.untold.is_none_or(|(after, _)| lsn <= after) {
            true => self.subscription.acknowledge(lsn),
            false => self.subscription.refuse(lsn),
        }
        self.untold.take_if(|(_, upto)| *upto <= lsn);
        true
    }

    /// Puts what comes next into `out`. Whether there was anything.
    pub fn fill(&mut self, shared: &Shared, now: Instant, out: &mut Output) -> bool {
        let before = out.len();
        self.is_behind = true;
        let is_late = self.fresh_since.is_none_or(|at| now.saturating_duration_since(at) > LATE);
        for _ in 0..STEPS_MAX {
            if !self.push_records(is_late, shared, out) {
                break;
            }
            self.lsn = self.subscription.lsn();
            if !self.step(shared, now, out) {
                self.is_behind = false;
                self.fresh_since = Some(now);
                break;
            }
        }
        self.end_batch(out);
        assert!(self.acked <= self.said && self.said == self.lsn && self.begun.is_none(), "not all is said");
        assert!(self.done <= self.records.len(), "more is in batches than was read");
        out.len() > before
    }

    /// Reads on; false: there is nothing to read.
    fn step(&mut self, shared: &Shared, now: Instant, out: &mut Output) -> bool {
        self.done = 0;
        let step = self.subscription.next(READ_MAX, &mut self.records);
        let lsn = self.subscription.lsn();
        let notice = match step {
            Update::Records => return true,
            Update::Idle => return false,
            Update::Notice(notice) => notice,
            Update::Detached => {
                self.end_batch(out);
                self.is_gone = true;
                return refuse("another connection of this consumer's name has taken its place", out);
            }
        };
        self.end_batch(out);
        self.records.clear();
        self.lsn = lsn;
        self.said = lsn;
        match notice {
            Notice::FullSync => {
                self.fresh_since = Some(now);
                let run = &control::run_word(shared.store.journal().run_id());
                say(out, ServerLine::FullSync(Position { run, lsn }));
            }
            Notice::Synced => say(out, ServerLine::FullSyncEnd(lsn)),
            Notice::Lagged(ranges) => say(out, ServerLine::Lagged(lsn, ranges as u64)),
            Notice::CaughtUp => say(out, ServerLine::CaughtUp(lsn)),
        }
        true
    }

    /// Puts what was read into the batch; false when that is full.
    fn push_records(&mut self, is_late: bool, shared: &Shared, out: &mut Output) -> bool {
        let form = WireForm { with_cas: self.with_cas, is_late };
        let mut left = records(&self.records[self.done..]);
        loop {
            let rest = left.rest().len();
            let Some(record) = left.next() else { break };
            let body = *self.begun.get_or_insert_with(|| begin_batch(out)) + BATCH_LINE;
            let room = match body_len(body, out) {
                0 => usize::MAX,
                taken if taken < BATCH_FULL => BATCH_MAX - taken,
                _ => 0,
            };
            match push(&record, form, shared, room, out) {
                Pushed::Whole => {}
                Pushed::NoRoom => {
                    self.done = self.records.len() - rest;
                    return false;
                }
                Pushed::Never if record.kind == RecordKind::Hit => {}
                Pushed::Never => {
                    self.untold = Some(leave_out(self.untold, &record, self.lsn, self.subscription.lsn()));
                }
            }
        }
        self.records.clear();
        self.done = 0;
        true
    }

    /// Heads the batch, if there is one, or if more can be said than was.
    fn end_batch(&mut self, out: &mut Output) {
        if self.begun.is_none() && self.said == self.lsn {
            return;
        }
        self.said = self.lsn;
        let start = self.begun.take().unwrap_or_else(|| begin_batch(out));
        let body = start + BATCH_LINE;
        let len = body_len(body, out);
        let mut line = &mut out.bytes[start..body];
        let written = write!(line, "{}\r\n", ServerLine::Batch(self.lsn, len as u64));
        debug_assert!(written.is_ok() && line.is_empty(), "as long as it always is");
    }
}

/// Says a line.
pub fn say(out: &mut Output, line: ServerLine<'_>) {
    let written = write!(out.bytes, "{line}\r\n");
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// Says no; the connection does not stay.
pub fn refuse(reason: &str, out: &mut Output) -> bool {
    say(out, ServerLine::Refused(reason));
    false
}

/// The same to who has confirmed what it was not sent.
pub fn refuse_ack(shared: &Shared, out: &mut Output) -> bool {
    refuse(&format!("ack of a change that was not sent, of {}", shared.store.journal().lsn()), out)
}

/// Leaves room for the line of a batch, whose body is to follow.
fn begin_batch(out: &mut Output) -> usize {
    let start = out.bytes.len();
    out.bytes.extend_from_slice(&[0; BATCH_LINE]);
    start
}

/// Bytes of the body that begins there and is the last in `out`.
#[inline]
fn body_len(body: usize, out: &Output) -> usize {
    let bytes = out.bytes.len() - body;
    if out.values.is_empty() {
        return bytes;
    }
    let values = out.values.iter().filter(|inserted| inserted.at >= body).map(|inserted| inserted.value.len());
    bytes + values.sum::<usize>()
}

/// How records are written.
#[derive(Clone, Copy)]
struct WireForm {
    with_cas: bool,
    /// They may be so old that an item that was touched has expired at the peer: it is sent as it is now.
    is_late: bool,
}

/// Adds a change that no command can name to what is untold.
#[cold]
fn leave_out(untold: Option<(u64, u64)>, record: &Record<'_>, after: u64, upto: u64) -> (u64, u64) {
    if untold.is_none() {
        log::warn!("a key of {} bytes with blanks or the like cannot be replicated", record.key.len());
    }
    // A slice has no number of its own: it tells of what came before, so the next acknowledgement counts.
    (untold.map_or(after.min(upto.saturating_sub(1)), |(after, _)| after), upto)
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pushed {
    Whole,
    NoRoom,
    /// No command can name its key.
    Never,
}

/// Writes a record as meta commands, unless that might take more than `room`.
#[inline]
fn push(record: &Record<'_>, form: WireForm, shared: &Shared, room: usize, out: &mut Output) -> Pushed {
    let lines = LINES_MAX + LINES_PER_RECORD * record.key.len();
    if lines + record.value.len() > room {
        return Pushed::NoRoom;
    }
    if record.kind == RecordKind::Flush {
        change::flush(record.expires_at, &mut out.bytes);
        return Pushed::Whole;
    }
    let Some(key) = WireKey::new(record.key, record.key_is_binary) else { return Pushed::Never };
    let state = change::ItemState {
        expiry: Expiry::new(record.expires_at),
        cas: form.with_cas.then_some(record.cas),
        stale: record.stale,
        win: record.win,
    };
    let bytes = &mut out.bytes;
    match record.kind {
        RecordKind::Set => {
            change::set(key, record.value.len(), record.client_flags, &state, bytes);
            bytes.extend_from_slice(record.value);
            change::set_end(key, &state, bytes);
        }
        RecordKind::SetBig => return push_present(record.key, key, form, shared, room - lines, out),
        RecordKind::Touch | RecordKind::State if form.is_late => {
            return push_present(record.key, key, form, shared, room - lines, out);
        }
        // To touch a stale item as others are would take its win token.
        RecordKind::Touch if !record.stale => change::touch(key, state.expiry, bytes),
        RecordKind::Touch | RecordKind::State => change::marks(key, &state, bytes),
        RecordKind::Delete => change::delete(key, bytes),
        RecordKind::Hit => change::fetch(key, bytes),
        RecordKind::Flush => unreachable!("it names no key"),
    }
    Pushed::Whole
}

/// Writes an item as it is now, unless its value takes more than `room`.
fn push_present(
    key: &[u8],
    wire_key: WireKey<'_>,
    form: WireForm,
    shared: &Shared,
    room: usize,
    out: &mut Output,
) -> Pushed {
    let hash = shared.store.hash(key);
    let mut shard = shared.store.lock(hash);
    let Ok(id) = shard.find(key, hash) else {
        change::delete(wire_key, &mut out.bytes);
        return Pushed::Whole;
    };
    let item = shard.item(id);
    if item.value_len() > room {
        return Pushed::NoRoom;
    }
    let expires_at = match item.expires_at() {
        0 => 0,
        second => shared.clock.unix(second),
    };
    let state = change::ItemState {
        expiry: Expiry::new(expires_at),
        cas: form.with_cas.then_some(item.cas()),
        stale: item.is_stale(),
        win: item.is_win_sent(),
    };
    change::set(wire_key, item.value_len(), item.client_flags(), &state, &mut out.bytes);
    out.push_item_value(&mut shard, id);
    change::set_end(wire_key, &state, &mut out.bytes);
    Pushed::Whole
}
