//! One connection: read, run, write, in order and within bounds.
//!
//! ```text
//!              Bad with data to drop          all dropped: reply
//!   Command ───────────────────────> Swallow ────────────────────> Command | Closing
//!    │ │ │ ── large body ──> Upload ── value and tail are in ──> Command
//!    │ │ │ ── small body, not whole ──> Body ── whole ──> Command
//!    │ │ └─── Next::More ──> Resume ── output flushed ──> the same request again
//!    │ └───── Next::Dump ──> Dump ── a piece per flush ──> Command
//!    └─────── Next::Watch ─> Watch          Next::Close ─> Closing
//! ```
//!
//! A turn is: write what is queued; run requests that are here; read; and so on until the socket has no more,
//! takes no more, or the turn's quota is spent. Input that is run lies in the worker's read buffer or, after a
//! turn that was cut short, in the connection's [`Leftover`].
//!
//! Invariants:
//! - nothing is read and no request is run while output is stuck (`pending`);
//! - the worker's output is empty before and after a turn;
//! - no memory is held by a connection that waits for a request.
//!
//! Not here: what bytes mean (`protocol`), what requests do (`command`), when a turn comes (`worker`).

use super::buffer::{Cursor, Leftover, Pending, Sent};
use crate::command::{self, Context, Next, Output, Shared};
use crate::config::Binding;
use crate::protocol::{self, Bad, Parsed, Protocol, StoreHeader};
use crate::stats::{ConnInfo, Counters};
use crate::store::Upload;
use crate::sys::{self, Signal};
use crate::watch::Streams;
use std::borrow::Cow;
use std::io::{ErrorKind, IoSliceMut, Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of the worker's shared read buffer. A batch of a thousand short requests fits, and it stays in a core's
/// second-level cache beside what the requests touch.
pub const READ_BUFFER: usize = 64 << 10;

/// Least room for a read behind what is left over. With less, the new bytes are appended to the leftover.
const READ_MIN: usize = READ_BUFFER / 4;

/// Values up to this (with their tail) wait in the leftover until they are whole; larger ones go straight to
/// where they will be stored. So this bounds what a slow sender of small values holds.
pub const SMALL_BODY_MAX: usize = 16 << 10;

/// Bytes read in one turn before others get theirs: one value of the default size limit.
const TURN_BYTES: usize = 1 << 20;

/// What a piece of a dump costs of [`TURN_BYTES`] even when it printed nothing.
const DUMP_PIECE_MIN: usize = 64 << 10;

/// Queued output is written, even in the middle of a batch, from here on.
pub const OUTPUT_HIGH: usize = 256 << 10;

/// memcached's bound on a line without its end.
const LINE_MAX: usize = 2048;

/// Spaces skipped before the command word of a line that is longer.
const LEADING_SPACES_MAX: usize = 100;

/// Bound on a get or gets line, which memcached does not bound: 60,000 of the longest keys, and still little
/// enough that many clients must conspire to make it matter.
const GET_LINE_MAX: usize = 16 << 20;

/// Unread input dropped before closing, so that the kernel ends the connection in order and does not throw away
/// replies on their way. More than this in flight, and the client is not listening anyway.
const FAREWELL_MAX: usize = 256 << 10;

/// memcached's answer when a get line finds no memory to grow.
const LINE_TOO_LONG: &[u8] = b"SERVER_ERROR out of memory reading request\r\n";

/// Longest tail after a value: `\r\n`.
const TAIL_MAX: usize = 2;

/// What a worker lends a connection for a turn.
#[derive(Debug)]
pub struct Lent<'a> {
    /// What all workers share.
    pub shared: &'a Shared,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// Where replies go. Empty between turns.
    pub out: &'a mut Output,
    /// The clock's second.
    pub now: u32,
}

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub enum After {
    /// Until the socket has news.
    Wait,
    /// There is more to do; others first.
    Again,
    /// Close the socket.
    Close(Reason),
    /// Hand the socket to the watch writer.
    Watch(Streams),
}

/// Why a connection ends, as `watch connevents` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The client broke the rules, or the network did.
    Error,
    /// The client left or said quit.
    Normal,
    /// Nothing came for `idle_timeout` seconds.
    IdleTimeout,
    /// The shutdown command.
    Shutdown,
}

impl Reason {
    /// The word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Error => "error",
            Reason::Normal => "normal",
            Reason::IdleTimeout => "idle_timeout",
            Reason::Shutdown => "shutdown",
        }
    }
}

/// What the socket reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    /// Bytes, or the end, may be there.
    pub readable: bool,
    /// Room may be there.
    pub writable: bool,
    /// The peer has closed or broken its side: only a read that finds the end has seen everything.
    pub hangup: bool,
}

/// A client's connection over the socket `S`.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    info: Arc<ConnInfo>,
    /// None until the first byte decides.
    protocol: Option<Protocol>,
    state: State,
    leftover: Leftover,
    /// The leftover is worth parsing from this many bytes on.
    want: usize,
    /// This many bytes of it hold no line feed.
    scanned: usize,
    pending: Option<Box<Pending>>,
    ready: Readiness,
    last_cmd: u32,
}

#[derive(Debug)]
enum State {
    /// A request may begin.
    Command,
    /// A request has begun whose small body is on its way.
    Body,
    /// The request at hand goes on here.
    Resume(usize),
    Upload(Box<Uploading>),
    Swallow(Swallow),
    Dump(Box<command::admin::Dump>),
    Watch(Streams),
    /// Nothing more is run; close when the output has gone.
    Closing(Reason),
}

/// A large value on its way in.
#[derive(Debug)]
struct Uploading {
    /// Everything before the value; parsed again at the end, which costs less than keeping it parsed.
    line: Box<[u8]>,
    upload: Upload,
    /// Bytes of the value still to come.
    left: usize,
    tail: [u8; TAIL_MAX],
    tail_have: usize,
    tail_len: usize,
}

#[derive(Debug)]
struct Swallow {
    left: u64,
    reply: Cow<'static, [u8]>,
    close: bool,
}

/// What one step of [`Connection::consume`] did.
enum Step {
    /// Used this many bytes; go on.
    Took(usize),
    /// Used this many bytes; stop, write what is queued first.
    Flush(usize),
    /// Nothing can be done until more bytes come or, with the quota spent, before the next turn.
    Stop,
}

/// What a turn may still do.
struct Quota {
    requests: u32,
    bytes: usize,
}

impl Quota {
    fn is_spent(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    fn take_request(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }

    fn take_bytes(&mut self, n: usize) {
        self.bytes = self.bytes.saturating_sub(n);
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection that has just been accepted. `now` is the clock's second.
    pub fn new(stream: S, info: Arc<ConnInfo>, binding: Binding, now: u32) -> Connection<S> {
        let protocol = match binding {
            Binding::Auto => None,
            Binding::Ascii => Some(Protocol::Ascii),
            Binding::Binary => Some(Protocol::Binary),
        };
        Connection {
            stream,
            info,
            protocol,
            state: State::Command,
            leftover: Leftover::default(),
            want: 0,
            scanned: 0,
            pending: None,
            // A new socket takes output; whether it has input, the first event tells.
            ready: Readiness { readable: false, writable: true, hangup: false },
            last_cmd: now,
        }
    }

    /// The socket.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Gives the socket away.
    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Notes what the socket reported.
    pub fn notify(&mut self, news: Readiness) {
        self.ready.readable |= news.readable;
        self.ready.writable |= news.writable;
        self.ready.hangup |= news.hangup;
    }

    /// Whether the client has said nothing for more than `limit` seconds and nothing is owed to it.
    pub fn is_idle(&self, now: u32, limit: u32) -> bool {
        matches!(self.state, State::Command) && self.pending.is_none() && now.saturating_sub(self.last_cmd) > limit
    }

    /// Does what can be done now. `buffer` is the worker's, of [`READ_BUFFER`] bytes.
    pub fn turn(&mut self, buffer: &mut [u8], lent: &mut Lent<'_>) -> After {
        self.info.state.store(INFO_PARSE, Ordering::Relaxed);
        let mut quota = Quota { requests: lent.shared.config.reqs_per_event.max(1), bytes: TURN_BYTES };
        let after = loop {
            match self.flush(lent) {
                Sent::All => {}
                Sent::Blocked => break After::Wait,
                Sent::Broken => break After::Close(Reason::Error),
            }
            match self.state {
                State::Closing(reason) => break After::Close(reason),
                State::Watch(streams) => break After::Watch(streams),
                _ => {}
            }
            if !self.has_work() {
                break After::Wait;
            }
            if quota.is_spent() {
                lent.counters.conn_yields.add(u64::from(quota.requests == 0));
                break After::Again;
            }
            if let Err(reason) = self.advance(buffer, lent, &mut quota) {
                break After::Close(reason);
            }
        };
        self.info.state.store(self.info_state(), Ordering::Relaxed);
        after
    }

    /// Writes what is stuck, once, as far as the socket takes it: the last chance before the server stops.
    pub fn flush_pending(&mut self, counters: &Counters) -> Sent {
        let Some(pending) = &mut self.pending else { return Sent::All };
        let (sent, n) = pending.write(&mut self.stream);
        counters.bytes_written.add(n as u64);
        match sent {
            Sent::All => self.pending = None,
            Sent::Blocked => self.ready.writable = false,
            Sent::Broken => {}
        }
        sent
    }

    /// Reads and drops what has come in already, so that closing is in order. See [`FAREWELL_MAX`].
    pub fn farewell(&mut self, buffer: &mut [u8]) {
        let mut dropped = 0;
        while self.ready.readable && dropped < FAREWELL_MAX {
            match self.stream.read(buffer) {
                Ok(0) => return,
                Ok(n) if n < buffer.len() => return,
                Ok(n) => dropped += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn flush(&mut self, lent: &mut Lent<'_>) -> Sent {
        if self.pending.is_some() {
            return if self.ready.writable { self.flush_pending(lent.counters) } else { Sent::Blocked };
        }
        if lent.out.is_empty() {
            return Sent::All;
        }
        let mut cursor = Cursor::default();
        let (sent, n) = cursor.write(&mut self.stream, lent.out);
        lent.counters.bytes_written.add(n as u64);
        if sent == Sent::Blocked {
            self.ready.writable = false;
            self.pending = Some(Box::new(Pending::take(lent.out, cursor)));
        } else {
            lent.out.bytes.clear();
            lent.out.values.clear();
        }
        sent
    }

    fn has_work(&self) -> bool {
        self.ready.readable || self.has_input() || matches!(self.state, State::Dump(_))
    }

    fn has_input(&self) -> bool {
        !self.leftover.is_empty() && self.leftover.len() >= self.want
    }

    /// One piece of work that is not writing. The error is: close at once.
    fn advance(&mut self, buffer: &mut [u8], lent: &mut Lent<'_>, quota: &mut Quota) -> Result<(), Reason> {
        match &self.state {
            State::Dump(_) => self.dump(lent, quota),
            _ if self.has_input() => self.run_leftover(lent, quota),
            State::Upload(uploading) if uploading.left > 0 => return self.read_upload(buffer, lent, quota),
            _ => return self.read_input(buffer, lent, quota),
        }
        Ok(())
    }

    fn dump(&mut self, lent: &mut Lent<'_>, quota: &mut Quota) {
        let State::Dump(dump) = &mut self.state else { return };
        let mut context = Context { shared: lent.shared, counters: lent.counters, fd: self.info.fd, resume: 0 };
        let more = dump.fill(&mut context, lent.out);
        quota.take_bytes(lent.out.len().max(DUMP_PIECE_MIN));
        if !more {
            self.state = State::Command;
        }
    }

    fn run_leftover(&mut self, lent: &mut Lent<'_>, quota: &mut Quota) {
        let mut input = std::mem::take(&mut self.leftover);
        let used = self.consume(input.bytes(), lent, quota);
        input.advance(used);
        self.leftover = input;
    }

    /// Reads behind what is left over and runs both.
    fn read_input(&mut self, buffer: &mut [u8], lent: &mut Lent<'_>, quota: &mut Quota) -> Result<(), Reason> {
        let kept = self.leftover.len();
        if kept + READ_MIN > buffer.len() {
            let n = self.read(buffer, lent, quota)?;
            self.leftover.append(&buffer[..n]);
            return Ok(());
        }
        let len = kept + self.read(&mut buffer[kept..], lent, quota)?;
        if len < self.want {
            self.leftover.append(&buffer[kept..len]);
            return Ok(());
        }
        if len == kept {
            return Ok(());
        }
        buffer[..kept].copy_from_slice(self.leftover.bytes());
        let used = self.consume(&buffer[..len], lent, quota);
        self.leftover.keep(&buffer[used..len], self.want);
        Ok(())
    }

    /// Reads into the upload and, when that may complete it, whatever follows into `buffer` with the same call.
    fn read_upload(&mut self, buffer: &mut [u8], lent: &mut Lent<'_>, quota: &mut Quota) -> Result<(), Reason> {
        let State::Upload(uploading) = &mut self.state else { return Ok(()) };
        let left = uploading.left;
        let Ok(room) = uploading.upload.room() else {
            self.abandon_upload(lent);
            return Ok(());
        };
        let is_last = room.len() >= left && left <= quota.bytes;
        let room_len = room.len().min(left).min(quota.bytes);
        let room = &mut room[..room_len];
        let behind: &mut [u8] = if is_last { &mut *buffer } else { &mut [] };
        let n = read_once(&mut self.stream, &mut self.ready, room, behind)?;
        lent.counters.bytes_read.add(n as u64);
        quota.take_bytes(n);
        let filled = n.min(room_len);
        uploading.upload.filled(filled);
        uploading.left -= filled;
        let extra = n - filled;
        let used = self.consume(&buffer[..extra], lent, quota);
        self.leftover.keep(&buffer[used..extra], self.want);
        Ok(())
    }

    /// 0 is: nothing there.
    fn read(&mut self, buffer: &mut [u8], lent: &Lent<'_>, quota: &mut Quota) -> Result<usize, Reason> {
        let n = read_once(&mut self.stream, &mut self.ready, buffer, &mut [])?;
        lent.counters.bytes_read.add(n as u64);
        quota.take_bytes(n);
        Ok(n)
    }

    /// Runs what `input` holds and returns how many bytes are done with.
    fn consume(&mut self, input: &[u8], lent: &mut Lent<'_>, quota: &mut Quota) -> usize {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let step = match &self.state {
                State::Command | State::Body | State::Resume(_) => self.request(rest, lent, quota),
                State::Upload(_) => self.receive(rest, lent, quota),
                State::Swallow(_) => self.swallow(rest, lent.out),
                State::Dump(_) | State::Watch(_) => Step::Stop,
                State::Closing(_) => return input.len(),
            };
            match step {
                Step::Took(n) => used += n,
                Step::Flush(n) => return used + n,
                Step::Stop => return used,
            }
            if lent.out.len() > OUTPUT_HIGH {
                return used;
            }
        }
    }

    /// Runs the request at the start of `input`.
    fn request(&mut self, input: &[u8], lent: &mut Lent<'_>, quota: &mut Quota) -> Step {
        let scanned = std::mem::take(&mut self.scanned);
        self.want = 0;
        let Some(&first) = input.first() else { return Step::Stop };
        if quota.requests == 0 {
            return Step::Stop;
        }
        let protocol = *self.protocol.get_or_insert_with(|| choose(first, self.info.fd));
        match protocol::parse(protocol, input, scanned) {
            Parsed::Request { request, consumed } => {
                self.begin_request(lent.now, quota);
                let resume = if let State::Resume(at) = self.state { at } else { 0 };
                let next = command::run(&request, &mut self.context(lent, resume), lent.out);
                self.follow(next, consumed)
            }
            Parsed::NeedBody { header, head, body, tail } => {
                self.begin_request(lent.now, quota);
                self.body(input, &header, [head, body, tail], lent)
            }
            Parsed::Partial { need: 0 } if protocol == Protocol::Ascii => self.await_line(input, lent.out),
            Parsed::Partial { need } => self.await_bytes(need.max(input.len() + 1), State::Command),
            Parsed::Bad(bad) => {
                self.begin_request(lent.now, quota);
                assert!(bad.consumed > 0 || bad.close, "a refused request must get out of the way");
                self.refuse(bad, lent.out)
            }
        }
    }

    fn begin_request(&mut self, now: u32, quota: &mut Quota) {
        quota.take_request();
        if self.last_cmd != now {
            self.last_cmd = now;
            self.info.last_cmd.store(now, Ordering::Relaxed);
        }
    }

    fn context<'a>(&self, lent: &Lent<'a>, resume: usize) -> Context<'a> {
        Context { shared: lent.shared, counters: lent.counters, fd: self.info.fd, resume }
    }

    fn follow(&mut self, next: Next, consumed: usize) -> Step {
        self.state = State::Command;
        self.state = match next {
            Next::Continue => return Step::Took(consumed),
            Next::More(at) => {
                self.state = State::Resume(at);
                return Step::Flush(0);
            }
            Next::Close => State::Closing(Reason::Normal),
            Next::Watch(streams) => State::Watch(streams),
            Next::Dump(dump) => State::Dump(dump),
            Next::Shutdown { graceful } => {
                let signal = if graceful { Signal::StopGracefully } else { Signal::Stop };
                if let Err(error) = sys::signal_self(signal) {
                    log::error!("cannot stop the server: {error}");
                }
                State::Closing(Reason::Shutdown)
            }
        };
        Step::Flush(consumed)
    }

    /// A store request: whole, small and to be waited for, or large and to be received in pieces.
    fn body(&mut self, input: &[u8], header: &StoreHeader<'_>, lens: [usize; 3], lent: &mut Lent<'_>) -> Step {
        let [head, body, tail] = lens;
        let rest = &input[head..];
        if rest.len() >= body + tail {
            let (value, tail) = rest[..body + tail].split_at(body);
            let next = command::store(header, value, tail, &mut self.context(lent, 0), lent.out);
            return self.follow(next, head + value.len() + tail.len());
        }
        if body + tail <= SMALL_BODY_MAX {
            return self.await_bytes(head + body + tail, State::Body);
        }
        match command::begin(header, body, &mut self.context(lent, 0)) {
            Ok(upload) => {
                let line = input[..head].into();
                let uploading = Uploading { line, upload, left: body, tail: [0; 2], tail_have: 0, tail_len: tail };
                self.state = State::Upload(Box::new(uploading));
                Step::Took(head)
            }
            Err(bad) => self.refuse(Bad { consumed: head, ..bad }, lent.out),
        }
    }

    /// Takes a piece of a large value, and its tail; stores it when that was the last.
    fn receive(&mut self, input: &[u8], lent: &mut Lent<'_>, quota: &mut Quota) -> Step {
        let State::Upload(uploading) = &mut self.state else { return Step::Stop };
        match uploading.take(input) {
            Err(used) => {
                self.abandon_upload(lent);
                Step::Took(used)
            }
            Ok(used) if uploading.is_complete() => {
                quota.take_request();
                match self.finish_upload(lent) {
                    Step::Flush(_) => Step::Flush(used),
                    _ => Step::Took(used),
                }
            }
            Ok(0) => Step::Stop,
            Ok(used) => Step::Took(used),
        }
    }

    fn finish_upload(&mut self, lent: &mut Lent<'_>) -> Step {
        let State::Upload(uploading) = std::mem::replace(&mut self.state, State::Command) else { return Step::Stop };
        let Uploading { line, upload, tail, tail_len, .. } = *uploading;
        let header = self.header(&line);
        let next = command::finish(&header, upload, &tail[..tail_len], &mut self.context(lent, 0), lent.out);
        self.follow(next, 0)
    }

    /// No memory half way: what is still to come is swallowed.
    fn abandon_upload(&mut self, lent: &mut Lent<'_>) {
        let State::Upload(uploading) = std::mem::replace(&mut self.state, State::Command) else { return };
        let left = uploading.left + uploading.tail_len - uploading.tail_have;
        let line = uploading.line;
        let header = self.header(&line);
        let bad = command::out_of_memory(&header, left as u64, &mut self.context(lent, 0));
        self.refuse(bad, lent.out);
    }

    /// The header of an upload, whose bytes were parsed once before.
    fn header<'a>(&self, line: &'a [u8]) -> StoreHeader<'a> {
        let protocol = self.protocol.expect("an upload began, so the protocol is known");
        match protocol::parse(protocol, line, 0) {
            Parsed::NeedBody { header, .. } => header,
            other => unreachable!("a store header parsed differently the second time: {other:?}"),
        }
    }

    fn swallow(&mut self, input: &[u8], out: &mut Output) -> Step {
        let State::Swallow(swallow) = &mut self.state else { return Step::Stop };
        if input.is_empty() {
            return Step::Stop;
        }
        let n = swallow.left.min(input.len() as u64);
        swallow.left -= n;
        if swallow.left == 0 {
            out.push(&swallow.reply);
            self.state = if swallow.close { State::Closing(Reason::Error) } else { State::Command };
        }
        Step::Took(n as usize)
    }

    fn refuse(&mut self, bad: Bad, out: &mut Output) -> Step {
        let Bad { consumed, swallow, reply, close } = bad;
        self.state = if swallow > 0 {
            State::Swallow(Swallow { left: swallow, reply, close })
        } else {
            out.push(&reply);
            if close { State::Closing(Reason::Error) } else { State::Command }
        };
        Step::Took(consumed)
    }

    fn await_bytes(&mut self, want: usize, state: State) -> Step {
        self.want = want;
        self.state = state;
        if want > GET_LINE_MAX {
            // No request without a large body is anywhere near this long.
            self.state = State::Closing(Reason::Error);
            return Step::Took(0);
        }
        Step::Stop
    }

    fn await_line(&mut self, input: &[u8], out: &mut Output) -> Step {
        match judge_line(input) {
            LineFate::Wait => {
                self.scanned = input.len();
                return self.await_bytes(input.len() + 1, State::Command);
            }
            LineFate::Refuse => out.push(LINE_TOO_LONG),
            LineFate::Close => {}
        }
        self.state = State::Closing(Reason::Error);
        Step::Took(0)
    }

    fn info_state(&self) -> u8 {
        match self.state {
            _ if self.pending.is_some() => INFO_MWRITE,
            State::Body | State::Upload(_) => INFO_NREAD,
            State::Swallow(_) => INFO_SWALLOW,
            State::Watch(_) => INFO_WATCH,
            State::Closing(_) => INFO_CLOSING,
            State::Command | State::Resume(_) | State::Dump(_) => INFO_READ,
        }
    }
}

// Indices into `stats::CONN_STATES`.
const INFO_READ: u8 = 1;
const INFO_PARSE: u8 = 2;
const INFO_NREAD: u8 = 3;
const INFO_SWALLOW: u8 = 4;
const INFO_MWRITE: u8 = 5;
const INFO_WATCH: u8 = 6;
const INFO_CLOSING: u8 = 7;

impl Uploading {
    /// Takes what it can of `input`; the error is the same when memory ran out.
    fn take(&mut self, input: &[u8]) -> Result<usize, usize> {
        let mut used = 0;
        while self.left > 0 && used < input.len() {
            let Ok(room) = self.upload.room() else { return Err(used) };
            let n = room.len().min(self.left).min(input.len() - used);
            assert!(n > 0, "an upload that is not complete has room");
            room[..n].copy_from_slice(&input[used..used + n]);
            self.upload.filled(n);
            self.left -= n;
            used += n;
        }
        while self.tail_have < self.tail_len && used < input.len() {
            self.tail[self.tail_have] = input[used];
            self.tail_have += 1;
            used += 1;
        }
        Ok(used)
    }

    fn is_complete(&self) -> bool {
        self.left == 0 && self.tail_have == self.tail_len
    }
}

fn choose(first: u8, fd: i32) -> Protocol {
    let (protocol, name) =
        if first == protocol::binary::REQUEST { (Protocol::Binary, "binary") } else { (Protocol::Ascii, "ascii") };
    log::debug!("{fd}: Client using the {name} protocol");
    protocol
}

/// One read, into `room` and then `behind`; 0 is: nothing there. One that fills less than it could has drained the
/// socket, unless the peer has hung up: then the end is still to be read.
fn read_once(
    stream: &mut impl Read,
    ready: &mut Readiness,
    room: &mut [u8],
    behind: &mut [u8],
) -> Result<usize, Reason> {
    let len = room.len() + behind.len();
    loop {
        let result = if behind.is_empty() {
            stream.read(room)
        } else {
            stream.read_vectored(&mut [IoSliceMut::new(room), IoSliceMut::new(behind)])
        };
        match result {
            Ok(0) => return Err(Reason::Normal),
            Ok(n) => {
                ready.readable = n == len || ready.hangup;
                return Ok(n);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                ready.readable = false;
                return Ok(0);
            }
            Err(_) => return Err(Reason::Error),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum LineFate {
    Wait,
    Refuse,
    Close,
}

/// What becomes of a line whose end has not come.
// COMPAT(long-line): beyond 2048 bytes only get and gets may go on, after at most 100 spaces.
fn judge_line(line: &[u8]) -> LineFate {
    if line.len() <= LINE_MAX {
        return LineFate::Wait;
    }
    let word = line.iter().position(|&b| b != b' ').unwrap_or(line.len());
    let is_get = line[word..].starts_with(b"get ") || line[word..].starts_with(b"gets ");
    match is_get && word <= LEADING_SPACES_MAX {
        true if line.len() > GET_LINE_MAX => LineFate::Refuse,
        true => LineFate::Wait,
        false => LineFate::Close,
    }
}
