//! What a connection is in the middle of: bytes in, replies out, no socket.
//!
//! ```text
//!              Bad with data to drop          all dropped: reply
//!   Command ───────────────────────> Swallow ────────────────────> Command | Closing
//!    │ │ │ ── large body ──> Upload ── value and tail are in ──> Command
//!    │ │ │ ── small body, not whole ──> Body ── whole ──> Command
//!    │ │ └─── Next::More ──> Resume ── output flushed ──> the rest of the same get
//!    │ └───── Next::Dump ──> Dump ── a piece per flush ──> Command
//!    └─────── Next::Watch ─> Watch          Next::Close ─> Closing
//! ```
//!
//! Input that is not used up is kept by the caller and offered again, from its start, when there is more of it: at
//! least [`Session::want`] bytes. Values too large to wait in a buffer are read straight to where they will be
//! stored ([`Session::upload_room`]).
//!
//! Not here: reading, writing and buffers (`conn`), what bytes mean (`protocol`), what requests do (`command`).

use super::{After, LONG_LINE, Lent, Reason};
use crate::command;
use crate::command::{Context, Limits, Lone, Next, Output, Shared, Wanted};
use crate::config::Binding;
use crate::net::worker::reply_hold::{Origin, Place};
use crate::protocol;
use crate::protocol::{Bad, Parsed, Protocol, Request, StoreHeader};
use crate::stats::ConnInfo;
use crate::store::Upload;
use crate::sys::process::{Signal, signal_self};
use crate::watch::Streams;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Values up to this (with their tail) wait in a buffer until they are whole; larger ones go straight to where they
/// will be stored. So this bounds what a slow sender of small values holds.
pub const SMALL_BODY_MAX: usize = 16 << 10;

/// Replies beyond this are written before the next request of the batch is run.
pub const OUTPUT_HIGH: usize = 256 << 10;

/// What a byte of a line counts for: a key of 20 bytes takes 0.3 us, which is what 1 KiB of a large value takes.
const LINE_BYTE: usize = 32;

/// What a plain request counts for: as much as its line would with a key of 26 bytes.
const PLAIN_REQUEST: usize = 32 * LINE_BYTE;

/// What a part of a long get counts for, a whole turn: it takes 0.25 ms and more.
const PART: usize = 4 * OUTPUT_HIGH;

/// Less input than this is taken for a single request, for which there is nothing to fetch ahead.
const AHEAD_MIN: usize = 64;

/// memcached's bound on a line without its end.
const LINE_MAX: usize = 2048;

/// Spaces skipped before the command word of a line that is longer.
const LEADING_SPACES_MAX: usize = 100;

/// Bound on a get or gets line, which memcached does not bound: 60,000 of the longest keys, and still little
/// enough that many clients must conspire to make it matter.
pub const GET_LINE_MAX: usize = 16 << 20;

/// Bound on the memory of a worker's long lines together, beside [`GET_LINE_MAX`] for each: four of the longest.
const GET_LINES_MAX: usize = 4 * GET_LINE_MAX;

/// memcached's answer when a get line finds no memory to grow.
const LINE_TOO_LONG: &[u8] = b"SERVER_ERROR out of memory reading request\r\n";

/// Longest tail after a value: `\r\n`.
const TAIL_MAX: usize = 2;

// Indices into `stats::CONN_STATES`.
const INFO_READ: u8 = 1;
const INFO_PARSE: u8 = 2;
const INFO_NREAD: u8 = 3;
const INFO_SWALLOW: u8 = 4;
const INFO_MWRITE: u8 = 5;
const INFO_WATCH: u8 = 6;
const INFO_CLOSING: u8 = 7;

/// What a turn may still do.
#[derive(Debug)]
pub struct Quota {
    /// Requests.
    pub requests: u32,
    /// Bytes read, written or dumped, and what takes as long: see [`LINE_BYTE`] and [`PART`].
    pub bytes: usize,
}

impl Quota {
    /// Whether it is others' turn.
    pub fn is_spent(&self) -> bool {
        self.requests == 0 || self.bytes == 0
    }

    /// Counts bytes.
    pub fn take_bytes(&mut self, n: usize) {
        self.bytes = self.bytes.saturating_sub(n);
    }

    fn take_request(&mut self) {
        self.requests = self.requests.saturating_sub(1);
    }
}

/// A client's requests, one after the other.
#[derive(Debug)]
pub struct Session {
    info: Arc<ConnInfo>,
    /// None until the first byte decides.
    protocol: Option<Protocol>,
    state: State,
    want: usize,
    /// The unused input begins with this many bytes without a line feed.
    scanned: usize,
    last_cmd: u32,
    /// The last request was a large value: the next one may be, too.
    after_upload: bool,
}

/// With a tag of its own: read out of the fields of others, it took five instructions each time, 40 in a turn.
#[derive(Debug)]
#[repr(u8)]
enum State {
    /// A request may begin.
    Command,
    /// A request has begun whose small body is on its way.
    Body,
    /// The get at hand goes on.
    Resume(Resume),
    Upload(Box<Uploading>),
    Swallow(Swallow),
    Dump(Box<command::admin::Dump>),
    Watch(Streams),
    /// Nothing more is run; close when the output has gone.
    Closing(Reason),
}

/// A get that is answered in parts.
#[derive(Clone, Copy, Debug)]
struct Resume {
    /// Where [`command::run`] wants to go on.
    at: usize,
    /// Bytes of the line.
    line: usize,
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

/// What one step of [`Session::consume`] did.
enum Step {
    /// Used this many bytes; go on.
    Took(usize),
    /// Used this many bytes; stop, write what is queued first.
    Flush(usize),
    /// Nothing can be done until more bytes come or, with the quota spent, before the next turn.
    Stop,
}

impl Session {
    /// The session of a new connection. `now` is the clock's second.
    pub fn new(info: Arc<ConnInfo>, binding: Binding, now: u32) -> Session {
        let protocol = match binding {
            Binding::Auto => None,
            Binding::Ascii => Some(Protocol::Ascii),
            Binding::Binary => Some(Protocol::Binary),
        };
        Session { info, protocol, state: State::Command, want: 0, scanned: 0, last_cmd: now, after_upload: false }
    }

    /// From how many bytes on unused input is worth offering again; 0 is any.
    pub fn want(&self) -> usize {
        self.want
    }

    /// Whether the client has said nothing for more than `limit` seconds while a request could begin.
    pub fn is_idle(&self, now: u32, limit: u32) -> bool {
        matches!(self.state, State::Command) && now.saturating_sub(self.last_cmd) > limit
    }

    /// What is to become of the socket once the output has gone, if this session is over.
    pub fn end(&self) -> Option<After> {
        match self.state {
            State::Closing(reason) => Some(After::Close(reason)),
            State::Watch(streams) => Some(After::Watch(streams)),
            _ => None,
        }
    }

    /// Whether it waits for a request and nothing else.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.state, State::Command) && self.want == 0
    }

    /// What the request at the start of `input` will need, see [`command::wanted`].
    #[inline]
    pub fn wanted(&self, input: &[u8], shared: &Shared) -> Option<Wanted> {
        command::wanted(self.protocol?, input, shared)
    }

    /// The plain request that `input` is, if it can be run without a turn. Not of a feeder: whether it still is one is
    /// seen when its turn begins.
    #[inline]
    pub fn lone<'a>(&self, input: &'a [u8], shared: &Shared) -> Option<Lone<'a>> {
        if self.takes_plain() && !self.info.feeder.has_spoken() { Lone::of(input, &shared.store) } else { None }
    }

    /// Runs it.
    #[inline]
    pub fn run_lone(&mut self, lone: &Lone<'_>, lent: &mut Lent<'_>) {
        lone.run(&self.context(lent, 0), lent.out);
        self.restart_idle(lent.now);
    }

    /// Notes for `stats conns` that a turn begins.
    pub fn begin_turn(&mut self) {
        self.info.state.store(INFO_PARSE, Ordering::Relaxed);
        if self.info.feeder.is_over() {
            self.state = State::Closing(Reason::Normal);
        }
    }

    /// Notes for `stats conns` what the connection waits for.
    pub fn end_turn(&self, is_stuck: bool) {
        let state = match self.state {
            _ if is_stuck => INFO_MWRITE,
            State::Body | State::Upload(_) => INFO_NREAD,
            State::Swallow(_) => INFO_SWALLOW,
            State::Watch(_) => INFO_WATCH,
            State::Closing(_) => INFO_CLOSING,
            State::Command | State::Resume(_) | State::Dump(_) => INFO_READ,
        };
        self.info.state.store(state, Ordering::Relaxed);
    }

    /// What `stats conns` prints as the state.
    #[cfg(test)]
    pub fn info_state_name(&self) -> &'static str {
        crate::stats::CONN_STATES[usize::from(self.info.state.load(Ordering::Relaxed))]
    }

    /// Whether [`Session::dump`] has something to do.
    pub fn is_dumping(&self) -> bool {
        matches!(self.state, State::Dump(_))
    }

    /// Queues a piece of a dump, which is all of a turn. The output must be empty.
    pub fn dump(&mut self, lent: &mut Lent<'_>, quota: &mut Quota) {
        let mut context = self.context(lent, 0);
        let State::Dump(dump) = &mut self.state else { return };
        let more = dump.fill(&mut context, lent.out);
        // Of which it took most, also when there was nothing to print.
        quota.bytes = 0;
        if !more {
            self.state = State::Command;
        }
    }

    /// Where the next bytes of a large value go, at most `max`, and whether they may be its last. None when no
    /// large value is on its way.
    pub fn upload_room(&mut self, max: usize, lent: &mut Lent<'_>) -> Option<(&mut [u8], bool)> {
        if !matches!(&self.state, State::Upload(uploading) if uploading.left > 0) {
            return None;
        }
        // The room is asked for twice because a borrow that may be returned cannot be given up on the way.
        if let State::Upload(uploading) = &mut self.state
            && uploading.upload.room().is_err()
        {
            self.abandon_upload(lent);
            return None;
        }
        let State::Upload(uploading) = &mut self.state else { return None };
        let left = uploading.left;
        let room = uploading.upload.room().ok()?;
        let len = room.len().min(left).min(max);
        Some((&mut room[..len], len == left))
    }

    /// Bytes of a large value that are still to come.
    #[inline]
    pub fn upload_missing(&self) -> usize {
        match &self.state {
            State::Upload(uploading) => uploading.left,
            _ => 0,
        }
    }

    /// Whether the next request is likely to be a large value. Says so once for each one that there was.
    pub fn expects_upload(&mut self) -> bool {
        std::mem::take(&mut self.after_upload)
    }

    /// Says that the first `n` bytes of that room were filled.
    pub fn upload_filled(&mut self, n: usize) {
        if let State::Upload(uploading) = &mut self.state {
            uploading.upload.filled(n);
            uploading.left -= n;
        }
    }

    /// Runs what `input` holds and returns how many bytes are done with.
    pub fn consume(&mut self, input: &[u8], lent: &mut Lent<'_>, quota: &mut Quota) -> usize {
        if lent.ledger.is_on() {
            return self.consume_marking(input, lent, quota);
        }
        match self.run_plain(input, lent, quota) {
            used if used > 0 && (used == input.len() || lent.out.len() >= OUTPUT_HIGH) => used,
            used => self.consume_any(used, input, OUTPUT_HIGH, lent, quota),
        }
    }

    /// As [`Session::consume`], where so many bytes are used already. Stops at `high` bytes of output; 0 is one request.
    fn consume_any(
        &mut self,
        mut used: usize,
        input: &[u8],
        high: usize,
        lent: &mut Lent<'_>,
        quota: &mut Quota,
    ) -> usize {
        let mut ahead = if high == 0 { input.len() } else { 0 };
        loop {
            let rest = &input[used..];
            if used >= ahead && rest.len() >= AHEAD_MIN {
                ahead = used + self.fetch_ahead(rest, lent.shared);
            }
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
            if lent.out.len() >= high {
                return used;
            }
            used += self.run_plain(&input[used..], lent, quota);
            if lent.out.len() >= high {
                return used;
            }
        }
    }

    /// Whether plain requests can be run past the state, which they do not change: only between two requests, and not
    /// where each is logged.
    #[inline]
    fn takes_plain(&self) -> bool {
        let between = matches!(self.state, State::Command) && self.scanned == 0;
        between && self.protocol == Some(Protocol::Ascii) && !log::log_enabled!(log::Level::Debug)
    }

    /// Runs the plain requests at the start of `input`; their bytes.
    #[inline]
    fn run_plain(&mut self, input: &[u8], lent: &mut Lent<'_>, quota: &mut Quota) -> usize {
        if quota.requests == 0 || !self.takes_plain() {
            return 0;
        }
        let limits = Limits { requests: quota.requests, output: OUTPUT_HIGH };
        let (used, requests) = command::run_plain(input, limits, &mut self.context(lent, 0), lent.out);
        if requests > 0 {
            quota.requests -= requests;
            quota.take_bytes(requests as usize * PLAIN_REQUEST);
            self.restart_idle(lent.now);
        }
        used
    }

    /// As [`Session::consume`], and marks the replies to changes: steps through the requests, and sees whether the
    /// journal has grown.
    #[cold]
    fn consume_marking(&mut self, input: &[u8], lent: &mut Lent<'_>, quota: &mut Quota) -> usize {
        let (mut used, mut ahead) = (0, 0);
        loop {
            let rest = &input[used..];
            if used >= ahead && rest.len() >= AHEAD_MIN {
                ahead = used + self.fetch_ahead(rest, lent.shared);
            }
            let (origin, start, before) = (self.origin(rest), Place::end_of(lent.out), lent.last_lsn.get());
            let n = self.consume_any(0, rest, 0, lent, quota);
            if lent.last_lsn.get() != before {
                self.mark(origin, start, lent);
            }
            used += n;
            if n == 0 || lent.out.len() >= OUTPUT_HIGH {
                return used;
            }
        }
    }

    /// Who asks with the request at the start of `input`, or with the one whose value is on its way.
    fn origin(&self, input: &[u8]) -> Origin {
        let head = if let State::Upload(uploading) = &self.state { &uploading.line } else { input };
        let is_binary = match self.protocol {
            Some(protocol) => protocol == Protocol::Binary,
            None => head.first() == Some(&protocol::binary::REQUEST),
        };
        Origin::of(head, is_binary)
    }

    fn mark(&self, origin: Origin, start: Place, lent: &mut Lent<'_>) {
        lent.ledger.owe(lent.last_lsn.get());
        // A value that is refused may have deleted the old one already; its reply comes when it has been swallowed.
        if !matches!(self.state, State::Swallow(_) | State::Upload(_)) {
            lent.ledger.mark(origin, start, matches!(self.state, State::Resume(_)), lent.out);
        }
    }

    /// Drops what is left of a get, a part of which was refused.
    pub fn cut_get(&mut self) {
        if let State::Resume(Resume { line, .. }) = self.state {
            self.state = State::Swallow(Swallow { left: line as u64, reply: Cow::Borrowed(b""), close: false });
        }
    }

    fn fetch_ahead(&self, input: &[u8], shared: &Shared) -> usize {
        match (self.protocol, &self.state) {
            // What has been scanned for a line feed before had none, and is not searched again.
            (Some(protocol), State::Command) if self.scanned == 0 => command::fetch_ahead(protocol, input, shared),
            _ => 0,
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
        if let State::Resume(Resume { at, line }) = self.state {
            return self.run(&protocol::text::get_again(input, line), line, at, lent, quota);
        }
        let protocol = *self.protocol.get_or_insert_with(|| choose(first, self.info.fd));
        if !log::log_enabled!(log::Level::Debug) {
            return self.parse(protocol, input, scanned, lent, quota);
        }
        let replies = lent.out.bytes.len();
        let step = self.parse(protocol, input, scanned, lent, quota);
        if protocol == Protocol::Ascii && !matches!(step, Step::Stop) {
            chat(self.info.fd, input, &lent.out.bytes[replies..]);
        }
        step
    }

    #[inline]
    fn parse(
        &mut self,
        protocol: Protocol,
        input: &[u8],
        scanned: usize,
        lent: &mut Lent<'_>,
        quota: &mut Quota,
    ) -> Step {
        match protocol::parse(protocol, input, scanned) {
            Parsed::Request { request, consumed } => self.run(&request, consumed, 0, lent, quota),
            Parsed::NeedBody { header, head, body, tail } => {
                self.begin_request(lent.now, quota);
                self.body(input, &header, [head, body, tail], lent)
            }
            Parsed::Partial { need: 0 } if protocol == Protocol::Ascii => self.await_line(input, lent),
            Parsed::Partial { need } => self.await_bytes(need.max(input.len() + 1), State::Command),
            Parsed::Bad(bad) => {
                self.begin_request(lent.now, quota);
                assert!(bad.consumed > 0 || bad.close, "a refused request must get out of the way");
                self.refuse(bad, lent.out)
            }
        }
    }

    /// Runs the request of `consumed` bytes at the start of the input, from `resume` on.
    fn run(
        &mut self,
        request: &Request<'_>,
        consumed: usize,
        resume: usize,
        lent: &mut Lent<'_>,
        quota: &mut Quota,
    ) -> Step {
        self.begin_request(lent.now, quota);
        let next = command::run(request, &mut self.context(lent, resume), lent.out);
        quota.take_bytes(if matches!(next, Next::More(_)) { PART } else { consumed * LINE_BYTE });
        self.follow(next, consumed)
    }

    fn begin_request(&mut self, now: u32, quota: &mut Quota) {
        quota.take_request();
        self.restart_idle(now);
    }

    /// Says that the client was not idle until `now`.
    pub fn restart_idle(&mut self, now: u32) {
        if self.last_cmd != now {
            self.last_cmd = now;
            self.info.last_cmd.store(now, Ordering::Relaxed);
        }
    }

    fn context<'a>(&self, lent: &Lent<'a>, resume: usize) -> Context<'a> {
        let Lent { shared, counters, last_lsn, .. } = *lent;
        Context { shared, counters, fd: self.info.fd, last_lsn, resume }
    }

    fn follow(&mut self, next: Next, consumed: usize) -> Step {
        self.state = State::Command;
        self.state = match next {
            Next::Continue => return Step::Took(consumed),
            Next::More(at) => {
                self.state = State::Resume(Resume { at, line: consumed });
                return Step::Flush(0);
            }
            Next::Close => State::Closing(Reason::Normal),
            Next::Watch(streams) => State::Watch(streams),
            Next::Dump(dump) => State::Dump(dump),
            Next::Shutdown { graceful } => {
                let signal = if graceful { Signal::StopGracefully } else { Signal::Stop };
                if let Err(error) = signal_self(signal) {
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
        self.after_upload = true;
        // The client was not idle while it sent its value, however long that took.
        self.restart_idle(lent.now);
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

    fn await_line(&mut self, input: &[u8], lent: &mut Lent<'_>) -> Step {
        match judge_line(input, lent.long_lines) {
            LineFate::Wait => {
                self.scanned = input.len();
                return self.await_bytes(input.len() + 1, State::Command);
            }
            LineFate::Refuse => lent.out.push(LINE_TOO_LONG),
            LineFate::Close => {}
        }
        self.state = State::Closing(Reason::Error);
        Step::Took(0)
    }
}

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

/// What `-vv` says of a text request: its line, and the last line of its reply.
#[cold]
fn chat(fd: i32, request: &[u8], reply: &[u8]) {
    let end = memchr::memchr(b'\n', request).unwrap_or(request.len());
    log::debug!("<{fd} {}", request[..end].trim_ascii_end().escape_ascii());
    let reply = reply.trim_ascii_end();
    let start = memchr::memrchr(b'\n', reply).map_or(0, |at| at + 1);
    if !reply.is_empty() {
        log::debug!(">{fd} {}", reply[start..].escape_ascii());
    }
}

fn choose(first: u8, fd: i32) -> Protocol {
    let (protocol, name) =
        if first == protocol::binary::REQUEST { (Protocol::Binary, "binary") } else { (Protocol::Ascii, "ascii") };
    log::debug!("{fd}: Client using the {name} protocol");
    protocol
}

#[derive(Debug, PartialEq, Eq)]
enum LineFate {
    Wait,
    Refuse,
    Close,
}

/// What becomes of a line whose end has not come; others hold `long_lines` bytes of such lines.
// COMPAT(long_line): beyond 2048 bytes only get and gets may go on, after at most 100 spaces.
fn judge_line(line: &[u8], long_lines: usize) -> LineFate {
    if line.len() <= LINE_MAX {
        return LineFate::Wait;
    }
    let word = line.iter().position(|&b| b != b' ').unwrap_or(line.len());
    let is_get = line[word..].starts_with(b"get ") || line[word..].starts_with(b"gets ");
    match is_get && word <= LEADING_SPACES_MAX {
        true if line.len() > GET_LINE_MAX => LineFate::Refuse,
        true if line.len() > LONG_LINE && long_lines > GET_LINES_MAX => LineFate::Refuse,
        true => LineFate::Wait,
        false => LineFate::Close,
    }
}
