//! What a connection is in the middle of: bytes in, replies out, no socket.
//!
//! ```text
//!              Bad with data to drop          all dropped: reply
//!   Command ───────────────────────> Swallow ────────────────────> Command | Closing
//!    │ │ │ ── large body ──> Upload ── value and tail are in ──> Command
//!    │ │ │ ── small body, not whole ──> Body ── whole ──> Command
//!    │ │ ├─── Next::Join, also of an Upload ─> Join ── its turn; copied, in slices ──> Command
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
//! [`Session::want`] bytes. Large values are read straight to where they will be stored ([`Session::upload_rooms`]).
//!
//! Not here: reading, writing and buffers (`conn`), what bytes mean (`protocol`), what requests do (`command`).

use super::chat::{choose, say_reply, say_request};
use super::long_line::{GET_LINE_MAX, LINE_TOO_LONG, LineFate};
use super::other_end::{LOGIN_TIME, Leave, OtherEnd};
use super::turn::{After, CloseReason, LINE_BYTE, PART, Quota, TurnContext};
use super::upload::{Joining, Uploading};
use crate::command;
use crate::command::batch::{Batch, End, Prepared};
use crate::command::{Context, Filled, JOINED_AT_ONCE, LongJoin, Next, Output};
use crate::net::reply_hold::OutputPlace;
use crate::protocol;
use crate::protocol::{Bad, Cut, Protocol, Refusal};
use crate::stats::{CommandKind, ConnInfo};
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
    pub(super) protocol: Option<Protocol>,
    pub(super) state: SessionState,
    want: usize,
    /// The unused input begins with this many bytes without a line feed.
    scanned: usize,
    last_cmd: u32,
    /// The second of its last turn.
    moved: u32,
    /// The last request was a large value: the next one may be, too.
    pub(super) after_upload: bool,
    pub(super) other_end: OtherEnd,
}

/// With a tag of its own: read out of the fields of others, it took five instructions each time, 40 in a turn.
#[derive(Debug)]
#[repr(u8)]
pub(super) enum SessionState {
    /// A request may begin.
    Command,
    /// A request has begun whose small body is on its way.
    Body,
    /// The get at hand goes on.
    Resume(Resume),
    Upload(Box<Uploading>),
    Join(Box<Joining>),
    Swallow(Swallow),
    Dump(Box<command::LongAnswer>),
    Watch(Streams),
    /// Nothing more is run; close when the output has gone.
    Closing(CloseReason),
}

/// A get that is answered in parts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Resume {
    /// Where the command wants to go on.
    at: usize,
    /// It has not begun to answer.
    is_checking: bool,
    /// Bytes of the line.
    line: usize,
}

#[derive(Debug)]
pub(super) struct Swallow {
    left: u64,
    reply: Refusal,
    close: bool,
}

/// What else there is to do for each request of a connection: where this is None, requests are run and nothing else.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Their replies may have to wait, or they are logged.
    is_followed: bool,
    /// The first of them is a get that goes on.
    is_begun: bool,
    /// Whether they are run at all.
    gate: Leave,
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
            moved: now,
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

    /// Whether the client has begun no request for more than `limit` seconds while one could begin; where it is in the
    /// middle of something, or `is_stuck` with replies, whether nothing has moved for so long.
    pub(crate) fn is_idle(&self, now: u32, limit: u32, is_stuck: bool) -> bool {
        let is_between = matches!(self.state, SessionState::Command) && !is_stuck;
        let since = if is_between { self.last_cmd } else { self.last_cmd.max(self.moved) };
        now.saturating_sub(since) > limit
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
    pub(crate) fn begin_turn(&mut self, now: u32) {
        self.moved = now;
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
            SessionState::Command | SessionState::Resume(_) | SessionState::Dump(_) | SessionState::Join(_) => {
                INFO_READ
            }
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
        let filled = dump.fill(&turn.shared.clock, &turn.shared.stats, turn.out);
        // Of which it took most, also when there was nothing to print.
        quota.bytes = 0;
        match filled {
            Filled::More => {}
            Filled::End => self.state = SessionState::Command,
            Filled::Lost => self.state = SessionState::Closing(CloseReason::Error),
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
    pub(super) fn fall_silent(&mut self, input: &[u8], turn: &mut TurnContext<'_>) -> Step {
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
        let resume = if let SessionState::Resume(resume) = self.state { resume } else { Resume::default() };
        if !matches!(self.state, SessionState::Command) {
            self.state = SessionState::Command;
        }
        self.restart_idle(turn.now);
        let mut context = self.context_of(turn, resume);
        let manner = self.manner(resume.line > 0, turn);
        let (mut used, count) = (0, range.len() as u32);
        for (before, prepared) in batch.requests(range).enumerate() {
            let next = match manner {
                None => prepared.run(&mut context, turn.out),
                Some(manner) => match self.run_so(manner, prepared, &input[used..], &mut context, turn) {
                    Some(next) => next,
                    None => return quota.give_up(Step::Ends(used)),
                },
            };
            let cut = &prepared.cut;
            if !matches!(next, Next::Continue) {
                quota.take_requests(before as u32 + 1);
                return self.follow(next, (input, used), cut, quota);
            }
            quota.take_bytes(cut.head * LINE_BYTE);
            used += cut.size();
            if quota.bytes == 0 || turn.out.is_of(turn.output_high) {
                quota.take_requests(before as u32 + 1);
                return Step::Ends(used);
            }
        }
        quota.take_requests(count);
        if quota.is_spent() { Step::Ends(used) } else { Step::Took(used) }
    }

    /// What there is to do besides running requests, if there is something.
    #[inline(always)]
    fn manner(&self, is_begun: bool, turn: &TurnContext<'_>) -> Option<Manner> {
        let is_common = turn.voice.is_none() && !turn.reply_hold.is_on() && !self.tells_all();
        if is_common { None } else { self.rare_manner(is_begun, turn) }
    }

    #[cold]
    fn rare_manner(&self, is_begun: bool, turn: &TurnContext<'_>) -> Option<Manner> {
        let is_followed = turn.reply_hold.is_on() || self.tells_all();
        let gate = self.other_end.gate(turn.voice);
        (is_followed || gate != Leave::Open).then_some(Manner { is_followed, is_begun, gate })
    }

    /// Runs a request in this manner. None: it has to wait.
    #[cold]
    fn run_so(
        &self,
        manner: Manner,
        prepared: &Prepared<'_>,
        input: &[u8],
        context: &mut Context<'_>,
        turn: &mut TurnContext<'_>,
    ) -> Option<Next> {
        let before = (OutputPlace::end_of(turn.out), turn.last_lsn.get());
        let next = match manner.gate {
            Leave::Open => prepared.run(context, turn.out),
            Leave::Barred => prepared.run_barred(context, turn.out),
            Leave::Held => prepared.run_held(context, turn.out)?,
        };
        match next {
            Next::Join(_) | Next::InLine => turn.forget_seen(),
            Next::Later => {}
            _ if !manner.is_followed => {}
            _ => {
                let goes_on = matches!(next, Next::More(_) | Next::Check(_));
                self.follow_up(&prepared.cut, input, before, (manner.is_begun, goes_on), turn);
            }
        }
        Some(next)
    }

    /// Marks the reply to a request that has changed something, and logs both, where that is wanted.
    #[cold]
    fn follow_up(
        &self,
        cut: &Cut<'_>,
        input: &[u8],
        (start, lsn): (OutputPlace, u64),
        (is_begun, goes_on): (bool, bool),
        turn: &mut TurnContext<'_>,
    ) {
        if turn.notes_change(lsn) {
            turn.reply_hold.mark_reply(&cut.request, start, goes_on, turn.out);
        }
        if self.tells_all() {
            if !is_begun {
                say_request(self.info.fd, input);
            }
            if !goes_on {
                say_reply(self.info.fd, input, start, turn.out);
            }
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
                SessionState::Dump(_) | SessionState::Watch(_) | SessionState::Join(_) => Step::Ends(0),
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
            if is_done || turn.out.len() >= turn.output_high {
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
            batch.sample(turn.shared, turn.counters);
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
                quota.take_requests(1);
                self.restart_idle(turn.now);
                assert!(bad.consumed > 0 || bad.close, "a refused request must get out of the way");
                self.refuse(bad, turn)
            }
        };
        // A value that is refused may have deleted the old one already; its reply comes when it has been swallowed.
        turn.notes_change(before);
        match step {
            Step::Took(n) => {
                if self.tells_all() {
                    say_request(self.info.fd, rest);
                    say_reply(self.info.fd, rest, start, turn.out);
                }
                Step::Took(used + n)
            }
            Step::Ends(n) => Step::Ends(used + n),
        }
    }

    /// Whether each request and its reply are logged (`-vv`).
    #[inline]
    fn tells_all(&self) -> bool {
        log::log_enabled!(log::Level::Debug) && matches!(self.protocol, Some(Protocol::Ascii | Protocol::Binary))
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

    pub(super) fn context<'a>(&'a self, turn: &TurnContext<'a>) -> Context<'a> {
        self.context_of(turn, Resume::default())
    }

    #[inline]
    fn context_of<'a>(&'a self, turn: &TurnContext<'a>, resume: Resume) -> Context<'a> {
        let TurnContext { shared, counters, last_lsn, replies_at, part, may_be_long, room, .. } = *turn;
        let (fd, source) = (self.info.fd, self.other_end.source());
        let Resume { at: resume, is_checking, .. } = resume;
        Context {
            shared,
            counters,
            fd,
            last_lsn,
            source,
            replies_at,
            resume,
            is_checking,
            part,
            may_be_long,
            joined_at_once: JOINED_AT_ONCE,
            room,
            reads_copy: false,
        }
    }

    /// Does what a request wants besides being answered; `used` bytes stand before it.
    #[cold]
    fn follow(&mut self, next: Next, (input, used): (&[u8], usize), cut: &Cut<'_>, quota: &mut Quota) -> Step {
        match next {
            Next::More(at) | Next::Check(at) => {
                quota.take_bytes(PART);
                let is_checking = matches!(next, Next::Check(_));
                self.state = SessionState::Resume(Resume { at, is_checking, line: cut.head });
                return Step::Ends(used);
            }
            Next::Later => return quota.put_off(Step::Ends(used)),
            Next::InLine => return quota.get_in_line(Step::Ends(used)),
            Next::Join(join) => {
                let (head, join) = (input[used..used + cut.head].into(), LongJoin::new(join));
                self.state = SessionState::Join(Box::new(Joining { head, in_input: cut.size(), join }));
                return quota.get_in_line(Step::Ends(used));
            }
            Next::Spent(bytes) => {
                quota.take_bytes(bytes);
                return Step::Ends(used + cut.size());
            }
            _ => {}
        }
        quota.take_bytes(cut.head * LINE_BYTE);
        self.state = match next {
            Next::Continue
            | Next::More(_)
            | Next::Check(_)
            | Next::Later
            | Next::InLine
            | Next::Spent(_)
            | Next::Join(_) => SessionState::Command,
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

    pub(super) fn refuse(&mut self, bad: Bad, turn: &mut TurnContext<'_>) -> Step {
        turn.counters.commands.count(CommandKind::Other);
        let Bad { consumed, swallow, reply, close } = bad;
        self.state = if swallow > 0 {
            SessionState::Swallow(Swallow { left: swallow, reply, close })
        } else {
            reply.push_to(&mut turn.out.bytes);
            if close { SessionState::Closing(CloseReason::Error) } else { SessionState::Command }
        };
        Step::Took(consumed)
    }

    pub(super) fn await_bytes(&mut self, want: usize, state: SessionState) -> Step {
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
        match LineFate::of(input, turn.is_tight) {
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
