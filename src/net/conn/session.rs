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
//! Requests are cut into a [`Batch`] and then run. The batch may be shared: a worker cuts what several connections have
//! sent before it runs any of it ([`Session::cut`], [`Session::run`]); what is left after that, and what comes later, is
//! done here one batch after the other ([`Session::consume`]).
//!
//! Input that is not used up is kept by the caller and offered again when there is more of it: at least
//! [`Session::want`] bytes. Large values are read straight to where they will be stored ([`Session::upload_room`]).
//!
//! Not here: reading, writing and buffers (`conn`), what bytes mean (`protocol`), what requests do (`command`).

use super::chat::{chat, choose};
use super::long_line::{GET_LINE_MAX, LINE_TOO_LONG, LineFate};
use super::other_end::{LOGIN_TIME, Leave, OtherEnd};
use super::turn::{After, CloseReason, LINE_BYTE, OUTPUT_HIGH, PART, Quota, TurnContext};
use super::upload::Uploading;
use crate::command;
use crate::command::batch::{Batch, End};
use crate::command::{Context, Filled, Next, Output};
use crate::net::reply_hold::OutputPlace;
use crate::protocol;
use crate::protocol::{Bad, Cut, Parsed, Protocol, Refusal};
use crate::stats::ConnInfo;
use crate::store::Store;
use crate::sys::process::{Signal, signal_self};
use crate::watch::Streams;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Values up to this (with their tail) wait in a buffer until they are whole; larger ones go straight to where they
/// will be stored. So this bounds what a slow sender of small values holds.
pub(crate) const SMALL_BODY_MAX: usize = 16 << 10;

// Indices into `stats::CONN_STATES`.
const INFO_READ: u8 = 1;
const INFO_PARSE: u8 = 2;
const INFO_NREAD: u8 = 3;
const INFO_SWALLOW: u8 = 4;
const INFO_MWRITE: u8 = 5;
const INFO_WATCH: u8 = 6;
const INFO_CLOSING: u8 = 7;

/// A client's requests, one after the other.
#[derive(Debug)]
pub(crate) struct Session {
    info: Arc<ConnInfo>,
    /// None until the first byte decides.
    protocol: Option<Protocol>,
    state: SessionState,
    want: usize,
    /// The unused input begins with this many bytes without a line feed.
    scanned: usize,
    last_cmd: u32,
    /// The last request was a large value: the next one may be, too.
    after_upload: bool,
    pub(super) other_end: OtherEnd,
}

/// With a tag of its own: read out of the fields of others, it took five instructions each time, 40 in a turn.
#[derive(Debug)]
#[repr(u8)]
enum SessionState {
    /// A request may begin.
    Command,
    /// A request has begun whose small body is on its way.
    Body,
    /// The get at hand goes on.
    Resume(Resume),
    Upload(Box<Uploading>),
    Swallow(Swallow),
    Dump(Box<command::LongAnswer>),
    Watch(Streams),
    /// Nothing more is run; close when the output has gone.
    Closing(CloseReason),
}

/// A get that is answered in parts.
#[derive(Clone, Copy, Debug)]
struct Resume {
    /// Where the command wants to go on.
    at: usize,
    /// Bytes of the line.
    line: usize,
}

#[derive(Debug)]
struct Swallow {
    left: u64,
    reply: Refusal,
    close: bool,
}

/// What one step of [`Session::consume`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Used this many bytes; go on.
    Took(usize),
    /// Used this many bytes, and can do no more: what is queued is to be written first, more bytes must come, or others
    /// have their turn.
    Ends(usize),
}

impl Session {
    /// The session of a new connection, whose first byte decides the protocol where that is not given. `now` is the
    /// clock's second.
    pub(crate) fn new(info: Arc<ConnInfo>, protocol: Option<Protocol>, now: u32) -> Session {
        Session {
            info,
            protocol,
            state: SessionState::Command,
            want: 0,
            scanned: 0,
            last_cmd: now,
            after_upload: false,
            other_end: OtherEnd::default(),
        }
    }

    /// Who sends the requests.
    #[inline]
    pub(crate) fn other_end(&self) -> &OtherEnd {
        &self.other_end
    }

    /// From how many bytes on unused input is worth offering again; 0 is any.
    pub(crate) fn want(&self) -> usize {
        self.want
    }

    /// Whether the client has said nothing for more than `limit` seconds while a request could begin.
    pub(crate) fn is_idle(&self, now: u32, limit: u32) -> bool {
        matches!(self.state, SessionState::Command) && now.saturating_sub(self.last_cmd) > limit
    }

    /// Whether the client was to log in, and has taken too long.
    pub(crate) fn is_late(&self, now: u32) -> bool {
        self.protocol.is_some_and(Protocol::is_login) && now.saturating_sub(self.last_cmd) > LOGIN_TIME
    }

    /// What is to become of the socket once the output has gone, if this session is over.
    pub(crate) fn end(&self) -> Option<After> {
        match self.state {
            SessionState::Closing(reason) => Some(After::Close(reason)),
            SessionState::Watch(streams) => Some(After::Watch(streams)),
            _ => None,
        }
    }

    /// Whether it waits for a request and nothing else.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.state, SessionState::Command) && self.want == 0
    }

    /// Notes for `stats conns` that a turn begins.
    pub(crate) fn begin_turn(&mut self) {
        self.info.state.store(INFO_PARSE, Ordering::Relaxed);
    }

    /// Notes for `stats conns` what the connection waits for.
    pub(crate) fn end_turn(&self, is_stuck: bool) {
        let state = match self.state {
            _ if is_stuck => INFO_MWRITE,
            SessionState::Body | SessionState::Upload(_) => INFO_NREAD,
            SessionState::Swallow(_) => INFO_SWALLOW,
            SessionState::Watch(_) => INFO_WATCH,
            SessionState::Closing(_) => INFO_CLOSING,
            SessionState::Command | SessionState::Resume(_) | SessionState::Dump(_) => INFO_READ,
        };
        self.info.state.store(state, Ordering::Relaxed);
    }

    /// What `stats conns` prints as the state.
    #[cfg(test)]
    pub(crate) fn info_state_name(&self) -> &'static str {
        crate::stats::CONN_STATES[usize::from(self.info.state.load(Ordering::Relaxed))]
    }

    /// Whether [`Session::dump`] has something to do.
    pub(crate) fn is_dumping(&self) -> bool {
        matches!(self.state, SessionState::Dump(_))
    }

    /// Queues a piece of a dump, which is all of a turn. The output must be empty.
    pub(crate) fn dump(&mut self, turn: &mut TurnContext<'_>, quota: &mut Quota) {
        let SessionState::Dump(dump) = &mut self.state else { return };
        let filled = dump.fill(&turn.shared.clock, &turn.shared.stats.prefixes, turn.out);
        // Of which it took most, also when there was nothing to print.
        quota.bytes = 0;
        match filled {
            Filled::More => {}
            Filled::End => self.state = SessionState::Command,
            Filled::Lost => self.state = SessionState::Closing(CloseReason::Error),
        }
    }

    /// Where the next bytes of a large value go, at most `max`, and whether they may be its last. None when no
    /// large value is on its way.
    pub(crate) fn upload_room(&mut self, max: usize, turn: &mut TurnContext<'_>) -> Option<(&mut [u8], bool)> {
        // The room is asked for twice because a borrow that may be returned cannot be given up on the way.
        let SessionState::Upload(uploading) = &mut self.state else { return None };
        if uploading.missing() > 0 && uploading.room(max).is_err() {
            self.abandon_upload(turn);
        }
        match &mut self.state {
            SessionState::Upload(uploading) if uploading.missing() > 0 => uploading.room(max).ok(),
            _ => None,
        }
    }

    /// Bytes of a large value that are still to come.
    #[inline]
    pub(crate) fn upload_missing(&self) -> usize {
        match &self.state {
            SessionState::Upload(uploading) => uploading.missing(),
            _ => 0,
        }
    }

    /// Whether the next request is likely to be a large value. Says so once for each one that there was.
    pub(crate) fn expects_upload(&mut self) -> bool {
        std::mem::take(&mut self.after_upload)
    }

    /// Says that the first `n` bytes of that room were filled.
    pub(crate) fn upload_filled(&mut self, n: usize) {
        if let SessionState::Upload(uploading) = &mut self.state {
            uploading.filled(n);
        }
    }

    /// Cuts up to `most` requests at the start of `input`, as far as the batch has room. Only between two requests, or
    /// where one goes on.
    #[inline(always)]
    pub(crate) fn cut<'a>(&mut self, input: &'a [u8], most: usize, batch: &mut Batch<'a>, store: &Store) -> End<'a> {
        if let SessionState::Resume(Resume { line, .. }) = self.state {
            batch.push(protocol::text::get_again(input, line), &input[..line], store);
            return End::Full;
        }
        self.want = 0;
        let scanned = std::mem::take(&mut self.scanned);
        let Some(&first) = input.first() else { return End::Full };
        let protocol = *self.protocol.get_or_insert_with(|| choose(first, self.info.fd));
        batch.cut(protocol, input, scanned, most, store)
    }

    /// Runs requests of a batch, which are the first of `input`.
    #[inline(always)]
    pub(crate) fn run(
        &mut self,
        batch: &Batch<'_>,
        range: Range<usize>,
        input: &[u8],
        turn: &mut TurnContext<'_>,
        quota: &mut Quota,
    ) -> Step {
        let step = self.run_requests(batch, range, input, turn, quota);
        if self.other_end.is_replaced(turn.voice) { self.fall_silent(input, turn) } else { step }
    }

    /// Ends it without the replies of this turn, which would say that everything was done.
    #[cold]
    fn fall_silent(&mut self, input: &[u8], turn: &mut TurnContext<'_>) -> Step {
        turn.out.bytes.truncate(turn.replies_at);
        turn.out.values.clear();
        turn.reply_hold.end_turn();
        self.state = SessionState::Closing(CloseReason::Normal);
        Step::Ends(input.len())
    }

    #[inline(always)]
    fn run_requests(
        &mut self,
        batch: &Batch<'_>,
        range: Range<usize>,
        input: &[u8],
        turn: &mut TurnContext<'_>,
        quota: &mut Quota,
    ) -> Step {
        let resume = if let SessionState::Resume(Resume { at, .. }) = self.state { at } else { 0 };
        if !matches!(self.state, SessionState::Command) {
            self.state = SessionState::Command;
        }
        self.restart_idle(turn.now);
        let mut context = self.context(turn, resume);
        let is_followed = turn.reply_hold.is_on() || self.tells_all();
        let gate = self.other_end.gate(turn.voice);
        let mut used = 0;
        for prepared in batch.requests(range) {
            let before = is_followed.then(|| (OutputPlace::end_of(turn.out), turn.last_lsn.get()));
            let next = match gate {
                Leave::Open => prepared.run(&mut context, turn.out),
                Leave::Barred => prepared.run_barred(&mut context, turn.out),
                Leave::Held => match prepared.run_held(&mut context, turn.out) {
                    Some(next) => next,
                    None => return quota.give_up(Step::Ends(used)),
                },
            };
            let cut = &prepared.cut;
            quota.take_request();
            if let Some(before) = before {
                self.follow_up(cut, &input[used..], before, matches!(next, Next::More(_)), turn);
            }
            if !matches!(next, Next::Continue) {
                return self.follow(next, used, cut, quota);
            }
            quota.take_bytes(cut.head * LINE_BYTE);
            used += cut.size();
            if quota.is_spent() || turn.out.len() >= OUTPUT_HIGH {
                return Step::Ends(used);
            }
        }
        Step::Took(used)
    }

    /// Marks the reply to a request that has changed something, and logs both, where that is wanted.
    #[cold]
    fn follow_up(
        &self,
        cut: &Cut<'_>,
        input: &[u8],
        (start, lsn): (OutputPlace, u64),
        goes_on: bool,
        turn: &mut TurnContext<'_>,
    ) {
        if turn.notes_change(lsn) {
            turn.reply_hold.mark_reply(&cut.request, start, goes_on, turn.out);
        }
        if self.tells_all() {
            chat(self.info.fd, input, start, turn.out);
        }
    }

    /// Runs what `input` holds and returns how many bytes are done with.
    pub(crate) fn consume(&mut self, input: &[u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> usize {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let step = match &self.state {
                SessionState::Command | SessionState::Body | SessionState::Resume(_) => {
                    self.run_batch(rest, turn, quota)
                }
                SessionState::Upload(_) => self.receive(rest, turn, quota),
                SessionState::Swallow(_) => self.swallow(rest, turn.out),
                SessionState::Dump(_) | SessionState::Watch(_) => Step::Ends(0),
                SessionState::Closing(_) => return input.len(),
            };
            if self.other_end.is_replaced(turn.voice) {
                self.fall_silent(input, turn);
                return input.len();
            }
            match step {
                Step::Took(n) => used += n,
                Step::Ends(n) => return used + n,
            }
            let is_done = used == input.len() && matches!(self.state, SessionState::Command);
            if is_done || turn.out.len() >= OUTPUT_HIGH {
                return used;
            }
        }
    }

    /// Runs the requests at the start of `input`, as many as a batch holds, and does what the first one asks for that
    /// could not be run.
    fn run_batch(&mut self, input: &[u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> Step {
        let (store, mut batch) = (&turn.shared.store, Batch::default());
        let end = self.cut(input, quota.requests as usize, &mut batch, store);
        let mut used = 0;
        if batch.count() > 0 {
            batch.prefetch(store);
            match self.run(&batch, 0..batch.count(), input, turn, quota) {
                Step::Took(n) => used = n,
                ends => return ends,
            }
        }
        let (rest, start, before) = (&input[used..], OutputPlace::end_of(turn.out), turn.last_lsn.get());
        let step = match end {
            End::Full if batch.count() == 0 => Step::Ends(0),
            End::Full => return Step::Took(used),
            End::Partial(0) if self.protocol == Some(Protocol::Ascii) => self.await_line(rest, turn),
            End::Partial(need) => self.await_bytes(need.max(rest.len() + 1), SessionState::Command),
            End::Value(cut) => self.begin_value(rest, &cut, turn, quota),
            End::Bad(bad) => {
                quota.take_request();
                self.restart_idle(turn.now);
                assert!(bad.consumed > 0 || bad.close, "a refused request must get out of the way");
                self.refuse(bad, turn.out)
            }
        };
        // A value that is refused may have deleted the old one already; its reply comes when it has been swallowed.
        turn.notes_change(before);
        match step {
            Step::Took(n) => {
                if self.tells_all() {
                    chat(self.info.fd, rest, start, turn.out);
                }
                Step::Took(used + n)
            }
            Step::Ends(n) => Step::Ends(used + n),
        }
    }

    /// Whether each request and its reply are logged (`-vv`).
    #[inline]
    fn tells_all(&self) -> bool {
        log::log_enabled!(log::Level::Debug) && self.protocol == Some(Protocol::Ascii)
    }

    /// Drops what is left of a get, a part of which was refused.
    pub(crate) fn cut_get(&mut self) {
        if let SessionState::Resume(Resume { line, .. }) = self.state {
            self.state = SessionState::Swallow(Swallow { left: line as u64, reply: Refusal::Line(b""), close: false });
        }
    }

    /// Says that the client was not idle until `now`.
    pub(crate) fn restart_idle(&mut self, now: u32) {
        // Before a client has logged in nothing that it says counts: see `LOGIN_TIME`.
        if self.last_cmd != now && !self.protocol.is_some_and(Protocol::is_login) {
            self.last_cmd = now;
            self.info.last_cmd.store(now, Ordering::Relaxed);
        }
    }

    fn context<'a>(&'a self, turn: &TurnContext<'a>, resume: usize) -> Context<'a> {
        let TurnContext { shared, counters, last_lsn, replies_at, .. } = *turn;
        let (fd, source) = (self.info.fd, self.other_end.source());
        Context { shared, counters, fd, last_lsn, source, replies_at, resume, reads_copy: false }
    }

    /// Does what a request wants besides being answered; `used` bytes stand before it.
    #[cold]
    fn follow(&mut self, next: Next, used: usize, cut: &Cut<'_>, quota: &mut Quota) -> Step {
        if let Next::More(at) = next {
            quota.take_bytes(PART);
            self.state = SessionState::Resume(Resume { at, line: cut.head });
            return Step::Ends(used);
        }
        quota.take_bytes(cut.head * LINE_BYTE);
        self.state = match next {
            Next::Continue | Next::More(_) => SessionState::Command,
            Next::Speak(protocol) => {
                self.protocol = Some(protocol);
                SessionState::Command
            }
            Next::Source(source) => {
                self.other_end = OtherEnd::Feeder(source);
                SessionState::Command
            }
            Next::Close => SessionState::Closing(CloseReason::Normal),
            Next::Watch(streams) => SessionState::Watch(streams),
            Next::Dump(dump) => SessionState::Dump(dump),
            Next::Shutdown { graceful } => {
                let signal = if graceful { Signal::StopGracefully } else { Signal::Stop };
                if let Err(error) = signal_self(signal) {
                    log::error!("cannot stop the server: {error}");
                }
                SessionState::Closing(CloseReason::Shutdown)
            }
        };
        Step::Ends(used + cut.size())
    }

    /// A store some of whose value has not come: small and to be waited for, or large and to be received in pieces.
    fn begin_value(&mut self, input: &[u8], cut: &Cut<'_>, turn: &mut TurnContext<'_>, quota: &mut Quota) -> Step {
        if cut.body + cut.tail <= SMALL_BODY_MAX || !cut.is_store() {
            self.restart_idle(turn.now);
            return self.await_bytes(cut.size(), SessionState::Body);
        }
        quota.take_request();
        self.restart_idle(turn.now);
        if self.other_end.is_barred(turn.voice)
            && let Some(reply) = command::barred::refusal(&cut.request, turn.shared)
        {
            let swallow = (cut.body + cut.tail) as u64;
            return self.refuse(Bad { consumed: cut.head, swallow, reply, close: false }, turn.out);
        }
        match command::begin(cut.store_header(), cut.body, &self.context(turn, 0)) {
            Ok(upload) => {
                self.state = SessionState::Upload(Box::new(Uploading::new(input, cut, upload)));
                Step::Took(cut.head)
            }
            Err(bad) => self.refuse(Bad { consumed: cut.head, ..bad }, turn.out),
        }
    }

    /// Takes a piece of a large value, and its tail; stores it when that was the last.
    fn receive(&mut self, input: &[u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> Step {
        let SessionState::Upload(uploading) = &mut self.state else { return Step::Ends(0) };
        match uploading.take(input) {
            Err(used) => {
                self.abandon_upload(turn);
                Step::Took(used)
            }
            Ok(used) if uploading.is_complete() => {
                quota.take_request();
                self.finish_upload(turn);
                Step::Took(used)
            }
            Ok(0) => Step::Ends(0),
            Ok(used) => Step::Took(used),
        }
    }

    fn finish_upload(&mut self, turn: &mut TurnContext<'_>) {
        let SessionState::Upload(uploading) = std::mem::replace(&mut self.state, SessionState::Command) else { return };
        let Uploading { head, upload, tail, tail_len, .. } = *uploading;
        self.after_upload = true;
        // The client was not idle while it sent its value, however long that took.
        self.restart_idle(turn.now);
        let (cut, start, before) = (self.cut_again(&head), OutputPlace::end_of(turn.out), turn.last_lsn.get());
        command::finish(cut.store_header(), upload, &tail[..tail_len], &self.context(turn, 0), turn.out);
        if turn.notes_change(before) {
            turn.reply_hold.mark_reply(&cut.request, start, false, turn.out);
        }
    }

    /// No memory half way: what is still to come is swallowed.
    fn abandon_upload(&mut self, turn: &mut TurnContext<'_>) {
        let SessionState::Upload(uploading) = std::mem::replace(&mut self.state, SessionState::Command) else { return };
        let left = uploading.missing_with_tail();
        let before = turn.last_lsn.get();
        let cut = self.cut_again(&uploading.head);
        let bad = command::out_of_memory(cut.store_header(), left as u64, &self.context(turn, 0));
        self.refuse(bad, turn.out);
        turn.notes_change(before);
    }

    /// The request of an upload, which was cut once before.
    fn cut_again<'a>(&self, line: &'a [u8]) -> Cut<'a> {
        let protocol = self.protocol.expect("an upload began, so the protocol is known");
        match protocol::parse(protocol, line, 0) {
            Parsed::Request(cut) => cut,
            other => unreachable!("a store header parsed differently the second time: {other:?}"),
        }
    }

    fn swallow(&mut self, input: &[u8], out: &mut Output) -> Step {
        let SessionState::Swallow(swallow) = &mut self.state else { return Step::Ends(0) };
        if input.is_empty() {
            return Step::Ends(0);
        }
        let n = swallow.left.min(input.len() as u64);
        swallow.left -= n;
        if swallow.left == 0 {
            swallow.reply.push_to(&mut out.bytes);
            self.state = if swallow.close { SessionState::Closing(CloseReason::Error) } else { SessionState::Command };
        }
        Step::Took(n as usize)
    }

    fn refuse(&mut self, bad: Bad, out: &mut Output) -> Step {
        let Bad { consumed, swallow, reply, close } = bad;
        self.state = if swallow > 0 {
            SessionState::Swallow(Swallow { left: swallow, reply, close })
        } else {
            reply.push_to(&mut out.bytes);
            if close { SessionState::Closing(CloseReason::Error) } else { SessionState::Command }
        };
        Step::Took(consumed)
    }

    fn await_bytes(&mut self, want: usize, state: SessionState) -> Step {
        self.want = want;
        self.state = state;
        if want > GET_LINE_MAX {
            // No request without a large body is anywhere near this long.
            self.state = SessionState::Closing(CloseReason::Error);
            return Step::Took(0);
        }
        Step::Ends(0)
    }

    fn await_line(&mut self, input: &[u8], turn: &mut TurnContext<'_>) -> Step {
        match LineFate::of(input, turn.long_lines) {
            LineFate::Wait => {
                self.scanned = input.len();
                return self.await_bytes(input.len() + 1, SessionState::Command);
            }
            LineFate::Refuse => turn.out.push(LINE_TOO_LONG),
            LineFate::Close => {}
        }
        self.state = SessionState::Closing(CloseReason::Error);
        Step::Took(0)
    }
}
