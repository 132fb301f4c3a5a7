//! The state machine of one peer: bytes and time in, bytes and actions out. It opens, reads and writes nothing.
//!
//! ```text
//!            OpenServer            OpenPeer            100 ms           meet           replica from  attach
//!   Waiting ───────────> Greeting ──────────> Knowing ────────> Settling ────> Checking ────> Announcing ─> Attaching
//!      ^                 (run id)   mn, version, replica who;                  (guard)    a stock peer: attach   │
//!      │                            stats; a stock peer: ms                             walk | continuing        v
//!      │                                                                                                      Attached
//!      └───────── pause ────────── Draining <──── whatever goes wrong: the server's connection is closed at once,
//!                                  the peer's for writing; its end is awaited, so that nothing of the old
//!                                  connection can be done after something of the new one
//!
//!   control socket ──> Relay ────> peer:   replica begin   body mn  body mn …  replica end mn   body mn …
//!                                                             MN       MN            MN            MN
//!   control socket <── ack <lsn> ──────────────────────────────┴────────┴─────────────┴─────────────┘
//! ```
//!
//! A peer may refuse changes: it is full and may not evict, or takes no items so large. It holds nothing of the key
//! then, as if it had evicted it, and to send it again would be no better. What was refused must only not pass for
//! confirmed: the next acknowledgement is `refuse <lsn>`, and the server tells the clients who wait for something
//! since the last one. Which change it was is not known, the stream is not looked at: its neighbours in the batch
//! share its fate.
//!
//! Invariants, which `simulation` drives through thousands of schedules:
//! - only what the peer answered with `MN` is acknowledged, in order, and with `ack` only what it did not refuse;
//! - it is acknowledged only where the peer then has everything:
//!   within a full sync several batches share one lsn, and so does its end, so an `ack` there could not say of which;
//! - every body goes out whole, once, in order; our own commands stand between batches, right after a barrier;
//! - nothing at the peer is changed before the guard has seen what both sides hold;
//! - (run, lsn) is offered to `attach` only if the same peer, by its run, confirmed everything up to this lsn and no
//!   full sync has begun since;
//! - answers are read whether or not anything can be written, so that the two ends cannot wait for each other.
//!
//! A stock peer gets the stream without cas, whatever its version: it drops items with a cas below its own counter
//! after a flush_all, and an explicit cas does not move that counter.
//!
//! Not here: sockets and clocks (`link`), what is in a body, and what each side is asked and told (`source`, `sink`).

use super::guard::OverwriteGuard;
use super::lag::Lag;
use super::relay::{Incoming, Relay};
use super::sink::{Answered, Barrier, Stage, StreamSink};
use super::source::{ResumePoint, StreamSource};
use crate::protocol::control::{self, ServerInfo, ServerLine};
use crate::sidecar::moment::{Moment, Trouble};
use crate::sidecar::observe::figures::{Figures, PeerPhase};
use crate::sidecar::pace::{BackOff, BandwidthBucket};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

/// How long the peer may take to end an old connection.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// Between the first answer of a peer and the stream: time to work off what an earlier connection has left, if that
/// was not seen to end. One of its sockets holds a few megabytes, some milliseconds of work.
const SETTLE: Duration = Duration::from_millis(100);

/// What the owner of the sockets shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect to the control socket, then call [`Pump::server_opened`] or [`Pump::server_gone`].
    OpenServer,
    /// Connect to the peer, then call [`Pump::peer_opened`] or [`Pump::peer_gone`].
    OpenPeer,
    /// Close the control socket.
    CloseServer,
    /// Close the peer's connection for writing; go on reading.
    ShutPeer,
    /// Close the peer's connection.
    ClosePeer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PumpState {
    Waiting {
        until: Duration,
    },
    Greeting,
    /// Who the peer is.
    Knowing,
    Settling {
        until: Duration,
    },
    /// What both sides hold.
    Checking,
    Announcing,
    Attaching,
    Attached(StreamState),
    Draining {
        until: Duration,
    },
}

/// A stream that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StreamState {
    /// At the end of what was passed on.
    stage: Stage,
    /// What is shown of it.
    phase: PeerPhase,
    /// The last change of the batch whose body passes.
    batch_lsn: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Pump {
    name: String,
    state: PumpState,
    actions: VecDeque<Action>,
    source: StreamSource,
    sink: StreamSink,
    relay: Relay,
    /// A line of the server while it is looked at.
    line: Vec<u8>,
    resume: Option<ResumePoint>,
    /// The last trouble was a refusal.
    is_refused: bool,
    back_off: BackOff,
    bucket: BandwidthBucket,
    guard: OverwriteGuard,
    lag: Lag,
    figures: Figures,
}

impl Pump {
    /// A pump for the consumer of this name, which is also how the log calls the peer.
    pub fn new(name: &str, limit_megabits: Option<u64>, may_replace: bool, seed: u64) -> Pump {
        Pump {
            name: name.to_owned(),
            state: PumpState::Waiting { until: Duration::ZERO },
            actions: VecDeque::new(),
            source: StreamSource::default(),
            sink: StreamSink::new(name),
            relay: Relay::default(),
            line: Vec::new(),
            resume: None,
            is_refused: false,
            back_off: BackOff::new(seed),
            bucket: BandwidthBucket::new(limit_megabits),
            guard: OverwriteGuard::new(may_replace),
            lag: Lag::default(),
            figures: Figures::default(),
        }
    }

    // ---- what the owner of the sockets calls ----

    /// What to do next; call it until it says None, at the latest at [`Pump::deadline`].
    pub fn action(&mut self, now: Moment) -> Option<Action> {
        if self.actions.is_empty() {
            self.look_at_the_time(now);
        }
        self.actions.pop_front()
    }

    /// When [`Pump::action`] has to be called although nothing was read or written.
    pub fn deadline(&self) -> Duration {
        match self.state {
            PumpState::Waiting { until } | PumpState::Draining { until } => until,
            PumpState::Settling { until } => until.min(self.silent_at()),
            PumpState::Attached(_) => {
                let own = if self.relay.is_between_batches() { self.sink.due() } else { Duration::MAX };
                own.min(self.silent_at())
            }
            _ => self.silent_at(),
        }
    }

    /// The control socket is connected.
    pub fn server_opened(&mut self, now: Moment) {
        self.source.is_open = true;
        self.source.heard(now.at);
    }

    /// The control socket could not be connected, or has broken.
    pub fn server_gone(&mut self, trouble: Trouble, now: Moment) {
        if self.source.is_open || self.state == PumpState::Greeting {
            self.source.is_open = false;
            self.fail(trouble, now);
        }
    }

    /// Where to read the control socket into; empty when it shall not be read now.
    pub fn server_room(&mut self) -> &mut [u8] {
        // More than a second ahead of what may be sent our own commands would wait for too long.
        let is_ahead = self.bucket.second().is_some_and(|bytes| self.relay.pending() as u64 > bytes);
        if self.source.is_open && !is_ahead { self.relay.room() } else { &mut [] }
    }

    /// So many bytes were read into [`Pump::server_room`].
    pub fn server_read(&mut self, n: usize, now: Moment) {
        self.source.heard(now.at);
        self.relay.filled(n);
        let mut line = std::mem::take(&mut self.line);
        while self.source.is_open {
            match self.relay.next(&mut line) {
                Ok(Some(Incoming::Line)) => self.on_line(&line, now),
                Ok(Some(Incoming::BodyEnd)) => self.on_body_end(),
                Ok(None) => break,
                Err(what) => self.fail(not_a_control_socket(&what), now),
            }
        }
        self.line = line;
    }

    /// What to write to the control socket.
    pub fn server_output(&mut self) -> &[u8] {
        self.source.output()
    }

    /// So many bytes of [`Pump::server_output`] were written.
    pub fn server_wrote(&mut self, n: usize) {
        self.source.wrote(n);
    }

    /// The peer is connected.
    pub fn peer_opened(&mut self, now: Moment) {
        self.sink.opened(&mut self.relay, now);
    }

    /// The peer could not be connected, or its connection has broken or ended.
    pub fn peer_gone(&mut self, why: &str, now: Moment) {
        self.sink.is_open = false;
        match self.state {
            PumpState::Draining { .. } => {
                self.actions.push_back(Action::ClosePeer);
                self.wait(now);
            }
            PumpState::Waiting { .. } => {}
            _ if self.sink.has_said_nothing() => {
                let text = format!("the peer ends the connection at `mn` ({why}): is it a memcached's text port?");
                self.fail(Trouble::Broken(text), now);
            }
            _ => self.fail(Trouble::Broken(format!("the peer: {why}")), now),
        }
    }

    /// These bytes were read from the peer.
    pub fn peer_read(&mut self, bytes: &[u8], now: Moment) {
        self.sink.heard(now.at);
        let (mut at, mut joined) = (0, Vec::new());
        while let Some((line, len)) = self.sink.line(&bytes[at..], &mut joined) {
            at += len;
            if self.is_draining() {
                self.sink.ignore(line);
                continue;
            }
            match self.sink.take(line, &self.source.run, &mut self.relay, &mut self.figures, now) {
                Ok(answered) => self.on_answer(answered, now),
                Err(trouble) => self.fail(trouble, now),
            }
        }
        self.lag.heard(self.sink.owes(), now.at);
    }

    /// What to write to the peer; empty when there is nothing, or when it has to wait for bandwidth.
    pub fn peer_output(&mut self, now: Moment) -> Vec<IoSlice<'_>> {
        let pending = if self.sink.is_open && !self.is_draining() { self.relay.pending() } else { 0 };
        let is_late = matches!(self.state, PumpState::Attached(_)) && self.sink.is_late(now.at);
        let allowed = if pending == 0 || is_late { pending } else { self.bucket.allows(pending, now.at) };
        if allowed == 0 { Vec::new() } else { self.relay.slices(allowed) }
    }

    /// When [`Pump::peer_output`] gives something again, after it gave nothing for want of bandwidth.
    pub fn bandwidth_at(&self) -> Option<Duration> {
        let pending = if self.is_draining() { 0 } else { self.relay.pending() };
        if pending == 0 { None } else { self.bucket.worth_at(pending) }
    }

    /// So many bytes of [`Pump::peer_output`] were written.
    pub fn peer_wrote(&mut self, n: usize, now: Moment) {
        self.sink.heard(now.at);
        // While the relay was full the server could not be heard.
        self.source.heard(now.at);
        self.figures.sent_bytes += n as u64;
        self.bucket.take(n);
        self.relay.written(n);
    }

    /// The figures of now.
    pub fn figures(&mut self, now: Moment) -> &Figures {
        self.figures.phase = match self.state {
            PumpState::Waiting { .. } | PumpState::Draining { .. } if self.is_refused => PeerPhase::Refused,
            PumpState::Waiting { .. } => PeerPhase::Waiting,
            PumpState::Draining { .. } => PeerPhase::Draining,
            PumpState::Attached(stream) => stream.phase,
            _ => PeerPhase::Connecting,
        };
        self.figures.error_ago = self.sink.refused_at.map(|at| now.at.saturating_sub(at));
        self.figures.is_attached = matches!(self.state, PumpState::Attached(_));
        if self.figures.phase == PeerPhase::Streaming {
            self.lag.observe(self.sink.owes(), now.at);
        }
        self.figures.lag = self.lag.figure(now.at);
        &self.figures
    }

    // ---- what the server says ----

    fn on_line(&mut self, line: &[u8], now: Moment) {
        let Some(line) = ServerLine::parse(line) else {
            let text = format!("`{}`", line[..line.len().min(80)].escape_ascii());
            return self.fail(not_a_control_socket(&text), now);
        };
        match (self.state, line) {
            (PumpState::Greeting, ServerLine::Greeting(control::VERSION, position)) => {
                self.source.run = position.run.to_owned();
                self.state = PumpState::Knowing;
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
            }
            (PumpState::Attaching, ServerLine::Continuing(after)) => self.go_on(after.lsn, now),
            (PumpState::Attaching | PumpState::Attached(_), ServerLine::FullSync(head)) => {
                self.begin_full_sync(head.lsn)
            }
            (PumpState::Attached(stream), line) => self.on_stream_line(stream, line, now),
            (_, ServerLine::Alive(..)) => {}
            (_, line) => self.fail(not_a_control_socket(&format!("`{line}` out of turn")), now),
        }
    }

    fn on_stream_line(&mut self, mut stream: StreamState, line: ServerLine<'_>, now: Moment) {
        match line {
            ServerLine::Batch(lsn, bytes) => {
                stream.batch_lsn = lsn;
                self.relay.begin_body(bytes);
                self.figures.batches += 1;
                self.figures.body_bytes += bytes;
                self.figures.bytes_in_flight += bytes;
                self.note_head(lsn, now);
            }
            ServerLine::Alive(lsn, _) => {
                self.lag.place_first_mark(lsn, self.figures.confirmed);
                self.note_head(lsn, now);
            }
            ServerLine::FullSyncEnd(lsn) => {
                stream.stage = Stage::Clean;
                self.sink.end_full_sync(&mut self.relay);
                self.barrier(stream.stage, lsn, true);
            }
            ServerLine::Lagged(_, ranges) => {
                self.figures.overtaken += 1;
                if stream.stage == Stage::Clean {
                    log::info!("{}: overtaken by the journal, {ranges} ranges are copied again", self.name);
                    (stream.stage, stream.phase) = (Stage::Lagged, PeerPhase::Overtaken);
                }
            }
            ServerLine::CaughtUp(lsn) => {
                if stream.stage == Stage::Lagged {
                    stream.stage = Stage::Clean;
                }
                self.barrier(stream.stage, lsn, false);
            }
            other => return self.fail(not_a_control_socket(&format!("`{other}` out of turn")), now),
        }
        self.state = PumpState::Attached(stream);
    }

    fn on_body_end(&mut self) {
        // A body begins with a batch, which is understood in no other state.
        if let PumpState::Attached(stream) = self.state {
            self.barrier(stream.stage, stream.batch_lsn, false);
        }
    }

    /// Asks the peer to confirm everything up to here.
    fn barrier(&mut self, stage: Stage, lsn: u64, ends_full_sync: bool) {
        let (walks, bytes) = (self.figures.walks_started, self.figures.body_bytes);
        self.sink.barrier(Barrier { lsn, stage, walks, bytes, ends_full_sync }, &mut self.relay);
    }

    fn note_head(&mut self, lsn: u64, now: Moment) {
        self.figures.head = self.figures.head.max(lsn);
        self.lag.note_head(lsn, self.figures.confirmed, now.at);
    }

    /// What both sides hold is known: may the one be made equal to the other? Asked again now and then.
    fn check(&mut self, info: &ServerInfo<'_>, now: Moment) {
        let is_news = self.source.answered(&info.upstreams);
        if let PumpState::Attached(_) = self.state {
            if is_news {
                self.announce(now);
            }
            return;
        }
        if let Some(objection) = self.guard.objection(info, self.sink.peer.items.unwrap_or(0), now.at) {
            return self.fail(Trouble::Guarded(objection), now);
        }
        if self.sink.peer.is_stock {
            return self.attach(now);
        }
        self.announce(now);
        self.state = PumpState::Announcing;
    }

    fn announce(&mut self, now: Moment) {
        self.sink.announce(&self.source.run, &self.source.upstreams, &mut self.relay, now);
    }

    fn attach(&mut self, now: Moment) {
        let (identity, with_cas) = (&self.sink.peer.identity, !self.sink.peer.is_stock);
        self.source.attach(&self.name, identity, with_cas, self.resume.as_ref(), now.at);
        self.state = PumpState::Attaching;
    }

    fn go_on(&mut self, lsn: u64, now: Moment) {
        log::info!("{}: {}, goes on after lsn {lsn}", self.name, self.figures.kind);
        self.attached(Stage::Clean, PeerPhase::Streaming, lsn);
        self.figures.continued += 1;
        self.lag.go_on(now.at);
        self.remember(lsn);
    }

    /// A full sync begins, maybe in the midst of a stream.
    fn begin_full_sync(&mut self, lsn: u64) {
        if self.state == PumpState::Attaching {
            self.attached(Stage::Syncing, PeerPhase::Walking, lsn);
            self.lag.begin();
        }
        log::info!("{}: {}, full sync from lsn {lsn}", self.name, self.figures.kind);
        self.resume = None;
        self.set_stream(Stage::Syncing, PeerPhase::Walking);
        self.figures.walks_started += 1;
        self.sink.begin_full_sync(&mut self.relay);
    }

    fn attached(&mut self, stage: Stage, phase: PeerPhase, lsn: u64) {
        self.state = PumpState::Attached(StreamState { stage, phase, batch_lsn: lsn });
        self.figures.attached += 1;
        self.figures.trouble.clear();
        self.figures.is_guarded = false;
        (self.figures.head, self.figures.confirmed, self.figures.bytes_in_flight) = (lsn, lsn, 0);
    }

    fn set_stream(&mut self, stage: Stage, phase: PeerPhase) {
        if let PumpState::Attached(stream) = &mut self.state {
            (stream.stage, stream.phase) = (stage, phase);
        }
    }

    /// The peer has everything of this run up to here.
    fn remember(&mut self, lsn: u64) {
        let (run, identity) = (self.source.run.clone(), self.sink.peer.identity.clone());
        self.resume = Some(ResumePoint { run, identity, lsn });
    }

    // ---- what the peer answers ----

    fn on_answer(&mut self, answered: Answered, now: Moment) {
        match (self.state, answered) {
            (_, Answered::Confirmed(barrier)) => self.confirm(barrier),
            (PumpState::Knowing, Answered::Stats(is_good)) => {
                if is_good && self.sink.peer.complete() {
                    self.state = PumpState::Settling { until: now.at + SETTLE };
                } else {
                    let text = "the peer does not tell pid, time and curr_items by `stats`";
                    self.fail(Trouble::Refused(text.to_owned()), now);
                }
            }
            (PumpState::Announcing, Answered::Announced) => self.attach(now),
            _ => {}
        }
    }

    fn confirm(&mut self, barrier: Barrier) {
        self.back_off.reset();
        self.figures.barriers += 1;
        self.figures.confirmed = barrier.lsn;
        self.figures.bytes_in_flight = self.figures.body_bytes - barrier.bytes;
        self.lag.confirm(barrier.lsn);
        if barrier.ends_full_sync {
            log::info!("{}: full sync done at lsn {}", self.name, barrier.lsn);
            self.figures.walks_finished += 1;
        }
        if barrier.stage == Stage::Clean && barrier.walks == self.figures.walks_started {
            self.source.acknowledge(barrier.lsn, std::mem::take(&mut self.sink.lacks_some));
            if let PumpState::Attached(StreamState { stage: Stage::Clean, phase, .. }) = &mut self.state {
                *phase = PeerPhase::Streaming;
            }
            self.remember(barrier.lsn);
        }
    }

    // ---- time ----

    fn look_at_the_time(&mut self, now: Moment) {
        if now.at < self.deadline() {
            return;
        }
        match self.state {
            PumpState::Waiting { .. } => {
                self.relay.clear();
                self.sink.reset();
                self.source.reset(now.at);
                self.lag.forget_answers();
                self.state = PumpState::Greeting;
                self.actions.push_back(Action::OpenServer);
            }
            PumpState::Draining { .. } => {
                log::debug!("{}: the peer does not end the old connection", self.name);
                self.sink.is_open = false;
                self.actions.push_back(Action::ClosePeer);
                self.wait(now);
            }
            _ if now.at >= self.silent_at() => self.give_up_silence(now),
            PumpState::Settling { until } if now.at >= until => {
                self.source.ask(&self.name, &self.sink.peer.identity);
                self.source.heard(now.at);
                self.state = PumpState::Checking;
            }
            PumpState::Attached(_) if self.relay.is_between_batches() => self.ask_again(now),
            _ => {}
        }
    }

    /// When the silence of one of the two has lasted too long.
    fn silent_at(&self) -> Duration {
        self.server_silent_at().min(self.sink.silent_at(self.relay.pending()))
    }

    fn server_silent_at(&self) -> Duration {
        let speaks = matches!(
            self.state,
            PumpState::Greeting | PumpState::Checking | PumpState::Attaching | PumpState::Attached(_)
        );
        // A server that is not read, because the peer is slow, cannot be heard.
        if speaks && self.relay.pending() == 0 { self.source.silent_at() } else { Duration::MAX }
    }

    fn give_up_silence(&mut self, now: Moment) {
        let text = match self.state {
            PumpState::Greeting => "nothing is said on the control socket: is it one of twincached's?",
            _ if self.sink.silent_at(self.relay.pending()) > now.at => "the server is silent",
            _ => "the peer is silent",
        };
        self.fail(Trouble::Broken(text.to_owned()), now);
    }

    /// Asks both sides what they are asked regularly.
    fn ask_again(&mut self, now: Moment) {
        if now.at < self.sink.due() {
            return;
        }
        if self.sink.peer.is_stock {
            return self.sink.ask_stats(&mut self.relay, now);
        }
        self.announce(now);
        self.source.ask(&self.name, &self.sink.peer.identity);
    }

    // ---- ends ----

    fn is_draining(&self) -> bool {
        matches!(self.state, PumpState::Draining { .. } | PumpState::Waiting { .. })
    }

    fn fail(&mut self, trouble: Trouble, now: Moment) {
        let is_refusal = !matches!(trouble, Trouble::Broken(_));
        let is_guarded = matches!(trouble, Trouble::Guarded(_));
        let (Trouble::Broken(text) | Trouble::Refused(text) | Trouble::Guarded(text)) = trouble;
        *if is_refusal { &mut self.figures.refusals } else { &mut self.figures.breaks } += 1;
        // What the guard says has numbers that are ever others.
        if text == self.figures.trouble || is_guarded && self.figures.is_guarded {
            log::debug!("{}: {text}", self.name);
        } else {
            log::warn!("{}: {text}", self.name);
        }
        self.figures.trouble = text;
        self.figures.is_guarded = is_guarded;
        self.is_refused = is_refusal;
        self.source.is_open = false;
        self.actions.clear();
        self.actions.push_back(Action::CloseServer);
        if self.sink.is_open {
            self.actions.push_back(Action::ShutPeer);
            self.state = PumpState::Draining { until: now.at + DRAIN_MAX };
        } else {
            self.actions.push_back(Action::ClosePeer);
            self.wait(now);
        }
    }

    fn wait(&mut self, now: Moment) {
        let pause = if self.is_refused { self.back_off.long_pause() } else { self.back_off.pause() };
        self.state = PumpState::Waiting { until: now.at + pause };
    }
}

fn not_a_control_socket(what: &str) -> Trouble {
    Trouble::Refused(format!("this is no control socket of twincached: {what}"))
}

#[cfg(test)]
#[path = "tests/pump.rs"]
mod tests;
