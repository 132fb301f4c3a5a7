//! The state machine of one peer: bytes and time in, bytes and actions out. It opens, reads and writes nothing.
//!
//! ```text
//!            OpenServer            OpenPeer            100 ms           meet           replica from  attach
//!   Waiting ───────────> Greeting ──────────> Identifying ────> Settling ────> Checking ────> Announcing ─> Attaching
//!      ^                 (run id)   mn, version, replica who;                  (guard)    a stock peer: attach   │
//!      │                            stats; a stock peer: ms                             walk | continuing        v
//!      │                                                                                                      Attached
//!      └───────── pause ────────── Draining <──── on any trouble the server's connection is closed, and the peer's for
//!                                  writing; the pump waits for the peer to end it, so that the peer does nothing of
//!                                  the old connection after something of the new one
//!
//!   control socket ──> Relay ────> peer:   replica begin   body mn  body mn …  replica end mn   body mn …
//!                                                             MN       MN            MN            MN
//!   control socket <── ack <lsn> ──────────────────────────────┴────────┴─────────────┴─────────────┘
//! ```
//!
//! A peer may refuse a change: it is full and may not evict, or does not take items of that size. It then holds nothing
//! under that key, as after an eviction, and sending the change again would not help. A refused change must not count
//! as confirmed: the next acknowledgement is `refuse <lsn>`, and the server gives an error to the clients that wait for
//! a change since the last acknowledgement. The pump does not read the stream, so it does not know which change was
//! refused; the server knows what was in the batch, and finds it out by sending that again one by one.
//!
//! Invariants, which `simulation` drives through thousands of schedules:
//! - only what the peer answered with `MN` is acknowledged, in order, and with `ack` only what it did not refuse;
//! - nothing is acknowledged in the midst of a full sync: its batches and its end share one lsn, so that an `ack` could
//!   not say which of them it means;
//! - every body goes out whole, once, in order; our own commands stand between batches, right after a barrier;
//! - nothing at the peer is changed before the guard has compared what both sides hold;
//! - what was sent while the peer's clock jumped is sent again: the server is told the new time, and the stream goes on
//!   from what was confirmed when the clock was last looked at;
//! - (run, lsn) is offered to `attach` only if the same peer, by its run, confirmed everything up to this lsn and no
//!   full sync has begun since;
//! - answers are read whether or not anything can be written, so that the two ends cannot wait for each other.
//!
//! A stock peer gets the stream with cas if it takes and keeps that: `peer_cas` says how this is found out.
//!
//! Not here: sockets and clocks (`link`), what is in a body, and what each side is asked and told (`source`, `sink`).

use super::guard::OverwriteGuard;
use super::peer_clock::ClockSample;
pub(crate) use super::pump_state::Action;
use super::pump_state::{PumpState, StreamState};
use super::relay::Incoming;
use super::sink::{Answered, Barrier, StreamSink};
use super::source::{ResumeFrom, ResumePoint, StreamSource};
use crate::protocol::control::{self, ServerInfo, ServerLine};
use crate::sidecar::moment::{Moment, Trouble};
use crate::sidecar::observe::figures::{Figures, PeerPhase, Stage};
use crate::sidecar::pace::{BackOff, BandwidthBucket};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

/// How long the peer may take to end an old connection.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// The pause between the first answer of a peer and the stream. In it the peer does what an earlier connection has left
/// in its socket, if that connection was not seen to end: a few megabytes at most, which take some milliseconds.
const SETTLE: Duration = Duration::from_millis(100);

/// A server that has said nothing for so long hangs: it says every 50 ms that it is alive.
const HANGS_AFTER: Duration = Duration::from_millis(500);

/// A control socket is given up after so long a silence.
const SERVER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Pump {
    state: PumpState,
    actions: VecDeque<Action>,
    source: StreamSource,
    sink: StreamSink,
    /// A line of the server while it is looked at.
    line: Vec<u8>,
    resume: ResumeFrom,
    /// What the peer of this identity has at first, by the lease.
    heir_of: Option<(String, u64)>,
    /// What `resume` was when the peer's clock was last looked at: what was confirmed by then has the right expiry.
    timed: ResumeFrom,
    back_off: BackOff,
    bucket: BandwidthBucket,
    guard: OverwriteGuard,
}

impl Pump {
    /// A pump for the consumer of this name, which is also how the log calls the peer.
    pub(crate) fn new(name: &str, limit_megabits: Option<u64>, guard: OverwriteGuard, seed: u64) -> Pump {
        Pump {
            state: PumpState::Waiting { until: Duration::ZERO, is_refused: false },
            actions: VecDeque::new(),
            source: StreamSource::default(),
            sink: StreamSink::new(name),
            line: Vec::new(),
            resume: ResumeFrom::Unknown,
            heir_of: None,
            timed: ResumeFrom::Void,
            back_off: BackOff::new(seed),
            bucket: BandwidthBucket::new(limit_megabits),
            guard,
        }
    }

    /// One that shows this key to the peer.
    /// The peer of that identity has everything up to that change of the server, and does nothing of older connections.
    pub(crate) fn with_key(mut self, key: Option<(u64, String)>, has: Option<(String, u64)>) -> Pump {
        self.sink.key = key;
        self.heir_of = has;
        self
    }

    /// One whose peer is spoken to by TLS, if so.
    pub(crate) fn over_tls(mut self, is_over_tls: bool) -> Pump {
        self.sink.is_over_tls = is_over_tls;
        self
    }

    // ---- what the owner of the sockets calls ----

    /// What to do next; call it until it says None, at the latest at [`Pump::deadline`].
    pub(crate) fn action(&mut self, now: Moment) -> Option<Action> {
        if self.actions.is_empty() && now.at >= self.deadline() {
            self.on_deadline(now);
        }
        self.actions.pop_front()
    }

    /// When [`Pump::action`] has to be called although nothing was read or written.
    pub(crate) fn deadline(&self) -> Duration {
        match self.state {
            PumpState::Waiting { until, .. } | PumpState::Draining { until, .. } => until,
            PumpState::Settling { until } => until.min(self.silent_at()),
            PumpState::Attached(_) => self.sink.due().min(self.silent_at()),
            _ => self.silent_at(),
        }
    }

    /// The control socket is connected.
    pub(crate) fn server_opened(&mut self, now: Moment) {
        self.source.is_open = true;
        self.source.heard(now.at);
    }

    /// The control socket could not be connected, or has broken.
    pub(crate) fn server_gone(&mut self, trouble: Trouble, now: Moment) {
        if self.source.is_open || self.state == PumpState::Greeting {
            self.source.is_open = false;
            self.fail(trouble, now);
        }
    }

    /// Where to read the control socket into; empty when it shall not be read now.
    pub(crate) fn server_room(&mut self) -> &mut [u8] {
        if self.source.is_open && self.reads_server() { self.sink.relay.room() } else { &mut [] }
    }

    /// Whether there is room for more of the server's. More than a second ahead of what may be sent our own commands
    /// would wait for too long.
    fn reads_server(&self) -> bool {
        let is_ahead = self.bucket.second().is_some_and(|bytes| self.sink.relay.pending() as u64 > bytes);
        !is_ahead && !self.sink.relay.is_full() && !self.sink.owes_too_many()
    }

    /// Since when the server has said nothing, although it is listened to.
    fn server_heard(&self) -> Option<Duration> {
        let speaks = matches!(
            self.state,
            PumpState::Greeting | PumpState::Checking | PumpState::Attaching | PumpState::Attached(_)
        );
        (speaks && self.reads_server()).then(|| self.source.heard_at())
    }

    /// When [`Pump::figures`] will show that the server hangs, if it says nothing until then.
    pub(crate) fn hangs_at(&self) -> Option<Duration> {
        let is_attached = matches!(self.state, PumpState::Attached(_));
        self.server_heard().filter(|_| is_attached).map(|heard| heard + HANGS_AFTER)
    }

    /// So many bytes were read into [`Pump::server_room`].
    pub(crate) fn server_read(&mut self, n: usize, now: Moment) {
        self.source.heard(now.at);
        self.sink.relay.filled(n);
        let mut line = std::mem::take(&mut self.line);
        while self.source.is_open {
            match self.sink.relay.next(&mut line) {
                Ok(Some(Incoming::Line)) => self.on_line(&line, now),
                Ok(Some(Incoming::BodyEnd)) => self.on_body_end(),
                Ok(None) => break,
                Err(what) => self.fail(not_a_control_socket(what), now),
            }
        }
        self.line = line;
    }

    /// What to write to the control socket.
    pub(crate) fn server_output(&mut self) -> &[u8] {
        self.source.output()
    }

    /// So many bytes of [`Pump::server_output`] were written.
    pub(crate) fn server_wrote(&mut self, n: usize) {
        self.source.wrote(n);
    }

    /// The peer is connected.
    pub(crate) fn peer_opened(&mut self, now: Moment) {
        self.sink.opened(now);
    }

    /// The peer could not be connected, or its connection has broken or ended.
    pub(crate) fn peer_gone(&mut self, why: &str, now: Moment) {
        self.sink.is_open = false;
        match self.state {
            PumpState::Draining { is_refused, .. } => self.end_draining(is_refused, now),
            PumpState::Waiting { .. } => {}
            _ if self.sink.has_said_nothing() => {
                let text = format!("the peer ends the connection at `mn` ({why}): is it a memcached's text port?");
                self.fail(Trouble::Broken(text), now);
            }
            _ => self.fail(Trouble::Broken(format!("the peer: {why}")), now),
        }
    }

    /// Whether what the peer says next may be its clock, so that it matters when that was read.
    pub(crate) fn awaits_clock(&self) -> bool {
        self.sink.awaits_clock
    }

    /// These bytes were read from the peer.
    pub(crate) fn peer_read(&mut self, bytes: &[u8], now: Moment) {
        let was_read = self.reads_server();
        let (mut at, mut joined) = (0, Vec::new());
        while let Some((line, len)) = self.sink.answers.line(&bytes[at..], &mut joined) {
            at += len;
            if self.is_draining() {
                self.sink.answers.take(line);
                continue;
            }
            match self.sink.take(line, &self.source.run, now) {
                Ok(answered) => {
                    self.follow_clock(now);
                    self.on_answer(answered, now);
                }
                Err(trouble) => self.fail(trouble, now),
            }
        }
        self.sink.heard(now.at);
        self.listen_again(was_read, now);
    }

    /// What to write to the peer; empty when there is nothing, or when it has to wait for bandwidth.
    pub(crate) fn peer_output(&mut self, now: Moment) -> Vec<IoSlice<'_>> {
        let pending = if self.sink.is_open && !self.is_draining() { self.sink.relay.pending() } else { 0 };
        let is_late = matches!(self.state, PumpState::Attached(_)) && self.sink.is_late(now.at);
        let allowed = if pending == 0 || is_late { pending } else { self.bucket.allows(pending, now.at) };
        if allowed == 0 { Vec::new() } else { self.sink.output(allowed) }
    }

    /// When [`Pump::peer_output`] gives something again, after it gave nothing for want of bandwidth.
    pub(crate) fn bandwidth_at(&self) -> Option<Duration> {
        let pending = if self.is_draining() { 0 } else { self.sink.relay.pending() };
        if pending == 0 { None } else { self.bucket.worth_at(pending) }
    }

    /// So many bytes of [`Pump::peer_output`] were written.
    pub(crate) fn peer_wrote(&mut self, n: usize, now: Moment) {
        let was_read = self.reads_server();
        self.sink.wrote(n, now);
        self.listen_again(was_read, now);
        self.bucket.take(n);
    }

    /// While the server was not read, its silence said nothing: so it begins now.
    fn listen_again(&mut self, was_read: bool, now: Moment) {
        if !was_read {
            self.source.heard(now.at);
        }
    }

    /// The figures of now.
    pub(crate) fn figures(&mut self, now: Moment) -> &Figures {
        let phase = match self.state {
            PumpState::Waiting { is_refused: true, .. } | PumpState::Draining { is_refused: true, .. } => {
                PeerPhase::Refused
            }
            PumpState::Waiting { .. } => PeerPhase::Waiting,
            PumpState::Draining { .. } => PeerPhase::Draining,
            PumpState::Attached(stream) => PeerPhase::Attached(stream.shown),
            _ => PeerPhase::Connecting,
        };
        let is_hanging = self.hangs_at().is_some_and(|at| now.at >= at);
        self.sink.figures.server_silent = is_hanging.then(|| now.at.saturating_sub(self.source.heard_at()));
        self.sink.figures(phase, now)
    }

    // ---- what the server says ----

    fn on_line(&mut self, line: &[u8], now: Moment) {
        let Some(line) = ServerLine::parse(line) else {
            let text = line[..line.len().min(80)].escape_ascii();
            return self.fail(not_a_control_socket(format_args!("`{text}`")), now);
        };
        match (self.state, line) {
            (PumpState::Greeting, ServerLine::Greeting(control::VERSION, position)) => {
                self.source.run = position.run.to_owned();
                self.state = PumpState::Identifying;
                self.actions.push_back(Action::OpenPeer);
            }
            (PumpState::Greeting, ServerLine::Greeting(version, _)) => {
                let ours = control::VERSION;
                let text = format!("the server's control socket speaks version {version}, this is for {ours}");
                self.fail(Trouble::Refused(text), now);
            }
            (PumpState::Checking | PumpState::Attached(_), ServerLine::Info(info)) => self.check(&info, now),
            (_, ServerLine::Refused(reason)) => {
                self.fail(Trouble::Refused(format!("the server refuses: {reason}")), now);
                self.sink.figures.is_upstream = reason == control::FEEDS_US;
            }
            (PumpState::Attaching, ServerLine::Continuing(after)) => self.go_on(after.lsn, now),
            (PumpState::Attaching, ServerLine::FullSync(head)) => {
                self.sink.begin_stream(head.lsn);
                self.sink.lag.begin();
                self.begin_full_sync(head.lsn, now);
            }
            (PumpState::Attached(_), ServerLine::FullSync(head)) => self.begin_full_sync(head.lsn, now),
            (PumpState::Attached(stream), line) => self.on_stream_line(stream, line, now),
            (_, ServerLine::Alive(..)) => {}
            (_, line) => self.fail(not_a_control_socket(format_args!("`{line}` out of turn")), now),
        }
    }

    fn on_stream_line(&mut self, mut stream: StreamState, line: ServerLine<'_>, now: Moment) {
        match line {
            ServerLine::Batch(lsn, bytes) => {
                stream.batch_lsn = lsn;
                self.sink.begin_batch(bytes);
                self.sink.note_head(lsn, now);
            }
            ServerLine::Alive(lsn, unix_ms) => {
                self.sink.sample_server(unix_ms, now);
                self.sink.lag.place_first_mark(lsn, self.sink.figures.confirmed);
                self.sink.note_head(lsn, now);
            }
            ServerLine::Lacking(ranges) => self.sink.note_lacking(ranges),
            ServerLine::FullSyncItems(items) => self.sink.figures.sync.items = items,
            ServerLine::FullSyncEnd(lsn) => {
                stream.stage = Stage::Clean;
                self.sink.end_full_sync(lsn, now);
                self.sink.barrier(lsn, stream.stage, true);
            }
            ServerLine::Lagged(_, ranges) => {
                self.sink.figures.overtaken += 1;
                if stream.stage == Stage::Clean {
                    log::info!("{}: overtaken by the journal, {ranges} ranges are copied again", self.sink.name);
                    (stream.stage, stream.shown) = (Stage::Lagged, Stage::Lagged);
                    self.sink.tell_overtaken(true);
                }
            }
            ServerLine::CaughtUp(lsn) => {
                if stream.stage == Stage::Lagged {
                    stream.stage = Stage::Clean;
                    self.sink.tell_overtaken(false);
                }
                self.sink.barrier(lsn, stream.stage, false);
            }
            other => return self.fail(not_a_control_socket(format_args!("`{other}` out of turn")), now),
        }
        self.state = PumpState::Attached(stream);
    }

    fn on_body_end(&mut self) {
        // A body follows a batch line, which no other state accepts.
        if let PumpState::Attached(stream) = self.state {
            self.sink.barrier(stream.batch_lsn, stream.stage, false);
        }
    }

    /// Asks the guard, now that it is known what both sides hold. This is repeated now and then.
    fn check(&mut self, info: &ServerInfo<'_>, now: Moment) {
        let is_news = self.source.answered(&info.upstreams);
        self.source.items = info.items;
        if let PumpState::Attached(_) = self.state {
            if is_news {
                self.announce(now);
            }
            return;
        }
        if let Some(objection) = self.guard.objection(info, self.sink.peer.items.unwrap_or(0), now.at) {
            return self.fail(Trouble::Guarded(objection), now);
        }
        self.sink.note_permission(info.items);
        if self.sink.peer.is_stock {
            return self.attach(now);
        }
        self.announce(now);
        self.state = PumpState::Announcing;
    }

    fn announce(&mut self, now: Moment) {
        self.sink.announce(&self.source.run, &self.source.upstreams, now);
    }

    fn attach(&mut self, now: Moment) {
        self.sink.clock.forget_said();
        self.sink.clock.news().into_iter().for_each(|at_boot_ms| self.source.tell_clock(at_boot_ms));
        let (identity, with_cas) = (&self.sink.peer.identity, self.sink.takes_cas());
        self.source.attach(&self.sink.name, identity, with_cas, &self.resume, now.at);
        self.state = PumpState::Attaching;
    }

    fn go_on(&mut self, lsn: u64, now: Moment) {
        log::info!("{}: {}, goes on after lsn {lsn}", self.sink.name, self.sink.figures.kind);
        self.sink.begin_stream(lsn);
        self.sink.figures.continued += 1;
        self.sink.lag.go_on(now.at);
        self.sink.tell_overtaken(false);
        self.sink.ask_for_low_cas();
        self.state = PumpState::Attached(StreamState::new(Stage::Clean, lsn));
        self.remember(lsn);
    }

    /// A full sync begins, perhaps in the middle of a stream.
    fn begin_full_sync(&mut self, lsn: u64, now: Moment) {
        let (kind, items) = (&self.sink.figures.kind, self.source.items);
        log::info!("{}: {kind}, full sync of {items} items from lsn {lsn}", self.sink.name);
        (self.resume, self.timed) = (ResumeFrom::Unknown, ResumeFrom::Void);
        self.sink.begin_full_sync(self.source.items, now);
        self.state = PumpState::Attached(StreamState::new(Stage::Syncing, lsn));
    }

    /// Notes that the peer has everything of this run up to `lsn`.
    fn remember(&mut self, lsn: u64) {
        let (run, identity) = (self.source.run.clone(), self.sink.peer.identity.clone());
        self.resume = ResumeFrom::After(ResumePoint { run, identity, lsn });
    }

    /// The pause before the stream. It is not needed when the peer was the owner before, since it takes nothing of an older
    /// epoch; then it is known as well where the stream goes on.
    fn settle_time(&mut self) -> Duration {
        let identity = &self.sink.peer.identity;
        let Some((_, lsn)) = self.heir_of.take().filter(|(of, _)| of == identity) else { return SETTLE };
        let (run, identity) = (self.source.run.clone(), identity.clone());
        self.resume = ResumeFrom::After(ResumePoint { run, identity, lsn });
        self.timed = self.resume.clone();
        Duration::ZERO
    }

    // ---- what the peer answers ----

    fn on_answer(&mut self, answered: Answered, now: Moment) {
        match (self.state, answered) {
            (_, Answered::Confirmed(barrier)) => self.confirm(barrier, now),
            (PumpState::Identifying, Answered::Stats(is_good)) => {
                if is_good && self.sink.peer.complete() {
                    self.state = PumpState::Settling { until: now.at + self.settle_time() };
                } else {
                    let text = "the peer does not tell pid, time and curr_items by `stats`";
                    self.fail(Trouble::Refused(text.to_owned()), now);
                }
            }
            (PumpState::Announcing, Answered::Announced) => self.attach(now),
            _ => {}
        }
    }

    /// Looks at what the peer's last answer says of its clock.
    fn follow_clock(&mut self, now: Moment) {
        let Some(sample) = self.sink.clock.take_sample() else { return };
        let is_attached = matches!(self.state, PumpState::Attaching | PumpState::Attached(_));
        if let ClockSample::Jump(jump_ms) = sample {
            self.sink.figures.clock_jumps += 1;
            self.resume = self.timed.clone();
            self.sink.clock.forget_said();
            if is_attached {
                let text = format!("the peer's clock has jumped by {jump_ms} ms: what it was sent last is sent again");
                self.fail(Trouble::Broken(text), now);
            }
            return;
        }
        if sample == ClockSample::Right && matches!(self.resume, ResumeFrom::After(_)) {
            self.timed.clone_from(&self.resume);
        }
        if is_attached {
            self.sink.clock.news().into_iter().for_each(|at_boot_ms| self.source.tell_clock(at_boot_ms));
        }
    }

    fn confirm(&mut self, barrier: Barrier, now: Moment) {
        self.back_off.reset();
        if self.sink.confirm(barrier, now) {
            self.source.acknowledge(barrier.lsn, std::mem::take(&mut self.sink.lacks_some));
            if let PumpState::Attached(StreamState { stage: Stage::Clean, shown, .. }) = &mut self.state {
                *shown = Stage::Clean;
            }
            self.remember(barrier.lsn);
        }
    }

    // ---- time ----

    fn on_deadline(&mut self, now: Moment) {
        match self.state {
            PumpState::Waiting { .. } => {
                self.sink.reset();
                self.source.reset(now.at);
                self.state = PumpState::Greeting;
                self.actions.push_back(Action::OpenServer);
            }
            PumpState::Draining { is_refused, .. } => {
                log::debug!("{}: the peer does not end the old connection", self.sink.name);
                self.sink.is_open = false;
                self.end_draining(is_refused, now);
            }
            _ if now.at >= self.silent_at() => self.give_up_silence(now),
            PumpState::Settling { .. } => {
                self.ask_server();
                self.source.heard(now.at);
                self.state = PumpState::Checking;
            }
            PumpState::Attached(_) if self.sink.peer.is_stock => self.sink.ask_stats(now),
            PumpState::Attached(stream) => {
                self.announce(now);
                self.sink.tell_copy(stream.stage, stream.batch_lsn, now);
                self.ask_server();
            }
            _ => {}
        }
    }

    fn ask_server(&mut self) {
        self.source.ask(&self.sink.name, &self.sink.peer.identity);
    }

    /// When one of the two sides has been silent for too long.
    fn silent_at(&self) -> Duration {
        self.server_heard().map_or(Duration::MAX, |heard| heard + SERVER_SILENCE_MAX).min(self.sink.silent_at())
    }

    fn give_up_silence(&mut self, now: Moment) {
        let text = match self.state {
            PumpState::Greeting if self.source.run.is_empty() => {
                "nothing is said on the control socket: is it one of twincached's?"
            }
            _ if self.sink.silent_at() > now.at => "the server hangs: it says nothing on its control socket",
            _ => "the peer does not answer",
        };
        self.fail(Trouble::Broken(text.to_owned()), now);
    }

    // ---- ends ----

    fn is_draining(&self) -> bool {
        matches!(self.state, PumpState::Draining { .. } | PumpState::Waiting { .. })
    }

    fn fail(&mut self, trouble: Trouble, now: Moment) {
        let is_refused = matches!(trouble, Trouble::Refused(_) | Trouble::Guarded(_));
        self.sink.note_trouble(trouble, now.at);
        self.source.is_open = false;
        self.actions = VecDeque::from([Action::CloseServer]);
        if self.sink.is_open {
            self.actions.push_back(Action::ShutPeer);
            self.state = PumpState::Draining { until: now.at + DRAIN_MAX, is_refused };
        } else {
            self.end_draining(is_refused, now);
        }
    }

    fn end_draining(&mut self, is_refused: bool, now: Moment) {
        self.actions.push_back(Action::ClosePeer);
        let pause = if is_refused { self.back_off.long_pause() } else { self.back_off.pause() };
        self.state = PumpState::Waiting { until: now.at + pause, is_refused };
    }
}

fn not_a_control_socket(what: impl std::fmt::Display) -> Trouble {
    Trouble::Refused(format!("this is no control socket of twincached: {what}"))
}

#[cfg(test)]
#[path = "tests/pump.rs"]
mod tests;
