//! One connection of the control socket: lines in; greeting, replies and the stream of changes out.
//!
//! ```text
//!   client's lines ─> ClientLine ─> what it asks for
//!   journal ─> records ─> batches of meta commands ─> output
//! ```
//!
//! The lines stand in [`crate::protocol::control`], the bodies in [`crate::protocol::change`]. A batch that ends in the
//! middle of what belongs together names an older lsn.
//!
//! Invariants: a batch holds at most [`BATCH_MAX`] bytes, or one item; nothing is read from the journal while
//! anything that was read before is not in a batch. Sockets and clocks are the caller's.
//!
//! Not here: when to send (`net::control`), in which order, what is lost and what is sent again (`journal`).

use crate::command::admin::stats;
use crate::command::{Output, Shared};
use crate::config::REPLICAS_MAX;
use crate::journal::{Attach, AttachError, Notice, Record, RecordKind, records};
use crate::protocol::change;
use crate::protocol::change::{Expiry, WireKey};
use crate::protocol::control::{
    self, AttachLine, BATCH_LINE, ClientError, ClientLine, Descent, LINE_MAX, Position, ServerInfo, ServerLine,
};
use crate::store;
use crate::store::Relation;
use crate::store::Update;
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

/// A heartbeat is due at least every tenth of a second; a busy machine may be late for it.
const BEAT: Duration = Duration::from_millis(50);

/// What was appended longer ago than this is late: half the time for which a touch tells the value as well. The other
/// half is for what is on its way.
const LATE: Duration = Duration::from_secs(30);

/// The moment at which something is done.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For what is due.
    pub at: Instant,
    /// For the other side to compare its clock with.
    pub unix_ms: i64,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Feed {
    /// The start of a line.
    line: Vec<u8>,
    stream: Option<Box<Stream>>,
}

impl Feed {
    /// What the server says first.
    pub fn greet(&self, shared: &Shared, out: &mut Output) {
        let journal = shared.store.journal();
        let run = &control::run_word(journal.run_id());
        say(out, ServerLine::Greeting(control::VERSION, Position { run, lsn: journal.lsn() }));
    }

    /// Takes what the client sent; false: close, after `out`.
    pub fn input(&mut self, mut bytes: &[u8], shared: &Shared, now: Now, out: &mut Output) -> bool {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let text = line.strip_suffix(b"\r").unwrap_or(&line);
            if text.len() > LINE_MAX || !self.obey(text, shared, now, out) {
                return false;
            }
            line.clear();
            self.line = line;
        }
        self.line.extend_from_slice(bytes);
        self.line.len() <= LINE_MAX
    }

    /// Puts what comes next of the stream into `out`. Whether there was anything.
    pub fn fill(&mut self, shared: &Shared, now: Now, out: &mut Output) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.fill(shared, now, out))
    }

    /// Says that the server is alive, when that is due.
    pub fn beat(&mut self, shared: &Shared, now: Now, out: &mut Output) {
        let Some(stream) = &mut self.stream else { return };
        if now.at >= stream.beat_due {
            stream.beat_due = now.at + BEAT;
            say(out, ServerLine::Alive(shared.store.journal().lsn(), now.unix_ms));
        }
    }

    /// Whether it is a consumer's.
    pub fn is_attached(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether the last [`Feed::fill`] ended before there was nothing left.
    pub fn is_behind(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_behind)
    }

    /// Whether the peer has not confirmed all that was sent.
    pub fn awaits(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.acked < stream.said)
    }

    /// Whether the stream has ended: another consumer has taken this one's place.
    pub fn is_gone(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_gone)
    }

    /// Whether the peer has not confirmed everything.
    pub fn lacks(&self, shared: &Shared) -> bool {
        self.stream.as_ref().is_some_and(|stream| !stream.is_gone && stream.acked < shared.store.journal().lsn())
    }

    fn obey(&mut self, line: &[u8], shared: &Shared, now: Now, out: &mut Output) -> bool {
        match (ClientLine::parse(line), &mut self.stream) {
            (Ok(ClientLine::Ack(lsn)), Some(stream)) => return stream.acknowledge(lsn, true, shared, out),
            (Ok(ClientLine::Refuse(lsn)), Some(stream)) => return stream.acknowledge(lsn, false, shared, out),
            (Err(ClientError::Lsn), Some(_)) => return refuse_ack(shared, out),
            (Ok(ClientLine::Attach(line)), None) => return self.attach(&line, shared, now, out),
            (Err(ClientError::Attach), None) => return refuse(control::ATTACH_USAGE, out),
            (Ok(ClientLine::Hello(name, identity)), _) => return inform(name, identity, shared, now, out),
            (Err(ClientError::Hello), _) => return refuse(control::HELLO_USAGE, out),
            (Ok(ClientLine::ReplicasAck(n)), _) if n <= REPLICAS_MAX => {
                shared.store.journal().set_required(n, now.at);
                out.push(b"OK\r\n");
            }
            (Ok(ClientLine::ReplicasAck(_)) | Err(ClientError::ReplicasAck), _) => {
                out.push(b"CLIENT_ERROR replicas_ack takes a number, 0 to 5\r\n");
            }
            (Ok(ClientLine::Status), _) => {
                stats::replication(shared, now.at, &mut |name, value| say(out, ServerLine::Stat(name, value)));
                say(out, ServerLine::End);
            }
            _ => out.push(b"ERROR\r\n"),
        }
        true
    }

    fn attach(&mut self, line: &AttachLine<'_>, shared: &Shared, now: Now, out: &mut Output) -> bool {
        let &AttachLine { name, identity, run, lsn, with_cas } = line;
        let Ok(run_id) = run.map(|run| control::parse_run(run).ok_or(())).transpose() else {
            return refuse(control::ATTACH_USAGE, out);
        };
        let feed = match shared.store.attach(&Attach { name, identity, run_id, lsn }, now.at) {
            Ok(feed) => feed,
            Err(error) => return refuse(reason(error), out),
        };
        let stream = Stream::new(feed, with_cas, now);
        let run = &control::run_word(shared.store.journal().run_id());
        let began = if stream.feed.began_with_full_sync() { ServerLine::FullSync } else { ServerLine::Continuing };
        say(out, began(Position { run, lsn: stream.lsn }));
        self.stream = Some(Box::new(stream));
        true
    }
}

fn say(out: &mut Output, line: ServerLine<'_>) {
    let written = write!(out.bytes, "{line}\r\n");
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// Says no; the connection does not stay.
fn refuse(reason: &str, out: &mut Output) -> bool {
    say(out, ServerLine::Refused(reason));
    false
}

fn refuse_ack(shared: &Shared, out: &mut Output) -> bool {
    refuse(&format!("ack of a change that was not sent, of {}", shared.store.journal().lsn()), out)
}

fn inform(name: &str, identity: &str, shared: &Shared, now: Now, out: &mut Output) -> bool {
    let (relation, upstreams) = match shared.store.meet(name, identity, now.at) {
        Ok(known) => known,
        Err(error) => return refuse(reason(error), out),
    };
    let descent = match relation {
        Relation::Stranger => Descent::First,
        Relation::Copy => Descent::Again,
        Relation::Source => Descent::Back,
    };
    let (items, uptime) = (shared.store.stats().curr_items, shared.clock.now().into());
    let runs: Vec<String> = upstreams.iter().map(|&run_id| control::run_word(run_id)).collect();
    let upstreams = runs.iter().map(String::as_str).collect();
    say(out, ServerLine::Info(ServerInfo { items, uptime, descent, upstreams }));
    true
}

fn reason(error: AttachError) -> &'static str {
    match error {
        AttachError::Itself => "the peer is this server itself",
        AttachError::Upstream => "replication would go in a circle: the peer is the server that this one follows",
        AttachError::TooMany => "there are as many consumers as there may be",
        AttachError::Twice => "the peer is the same server as another one that is fed already",
    }
}

/// An attached consumer.
#[derive(Debug)]
struct Stream {
    feed: store::Subscription,
    /// The peer takes cas uniques.
    with_cas: bool,
    /// What was read from the journal, and how much of it is in batches.
    records: Vec<u8>,
    done: usize,
    /// Where in the output the batch in the making begins: room for its line, then its body.
    begun: Option<usize>,
    /// Everything up to here is in batches.
    lsn: u64,
    /// The batch in the making says so much more.
    said: u64,
    acked: u64,
    /// What came after one lsn and up to the other had changes that no command can tell.
    untold: Option<(u64, u64)>,
    /// When everything had been read.
    read_all_at: Option<Instant>,
    is_behind: bool,
    is_gone: bool,
    beat_due: Instant,
}

impl Stream {
    fn new(feed: store::Subscription, with_cas: bool, now: Now) -> Stream {
        let lsn = feed.lsn();
        let acked = if feed.began_with_full_sync() { 0 } else { lsn };
        Stream {
            feed,
            with_cas,
            records: Vec::new(),
            done: 0,
            begun: None,
            lsn,
            said: lsn,
            acked,
            untold: None,
            read_all_at: None,
            is_behind: true,
            is_gone: false,
            beat_due: now.at + BEAT,
        }
    }

    /// Whether the connection may stay.
    fn acknowledge(&mut self, lsn: u64, is_all: bool, shared: &Shared, out: &mut Output) -> bool {
        if lsn > self.said {
            return refuse_ack(shared, out);
        }
        self.acked = self.acked.max(lsn);
        match is_all && self.untold.is_none_or(|(after, _)| lsn <= after) {
            true => self.feed.acknowledge(lsn),
            false => self.feed.refuse(lsn),
        }
        self.untold.take_if(|(_, upto)| *upto <= lsn);
        true
    }

    fn fill(&mut self, shared: &Shared, now: Now, out: &mut Output) -> bool {
        let before = out.len();
        self.is_behind = true;
        let is_late = self.read_all_at.is_none_or(|at| now.at.saturating_duration_since(at) > LATE);
        for _ in 0..STEPS_MAX {
            if !self.push_records(is_late, shared, out) {
                break;
            }
            self.lsn = self.feed.lsn();
            if !self.step(shared, out) {
                self.is_behind = false;
                self.read_all_at = Some(now.at);
                break;
            }
        }
        self.end_batch(out);
        out.len() > before
    }

    /// Reads on; false: there is nothing to read.
    fn step(&mut self, shared: &Shared, out: &mut Output) -> bool {
        self.done = 0;
        let step = self.feed.next(READ_MAX, &mut self.records);
        let lsn = self.feed.lsn();
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
        let form = Form { with_cas: self.with_cas, is_late };
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
                    self.untold = Some(leave_out(self.untold, &record, self.lsn, self.feed.lsn()));
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
struct Form {
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
fn push(record: &Record<'_>, form: Form, shared: &Shared, room: usize, out: &mut Output) -> Pushed {
    let lines = LINES_MAX + LINES_PER_RECORD * record.key.len();
    if lines + record.value.len() > room {
        return Pushed::NoRoom;
    }
    if record.kind == RecordKind::Flush {
        change::flush(record.expires_at, &mut out.bytes);
        return Pushed::Whole;
    }
    let Some(key) = WireKey::new(record.key, record.key_is_binary) else { return Pushed::Never };
    let state = change::State {
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
    form: Form,
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
    let state = change::State {
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
