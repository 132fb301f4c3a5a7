//! The state machine of one peer: bytes and time in, bytes and actions out. It opens, reads and writes nothing.
//!
//! ```text
//!            OpenServer            OpenPeer            100 ms           meet           replica from  attach
//!   Waiting ───────────> Greeting ──────────> Meeting ────────> Settling ────> Weighing ────> Announcing ─> Attaching
//!      ^                 (run id)   mn, version, replica who;                  (guard)    a stock peer: attach   │
//!      │                            stats; a stock peer: ms                             walk | continuing        v
//!      │                                                                                                      Attached
//!      └───────── pause ────────── Draining <──── whatever goes wrong: the server's connection is closed at once,
//!                                  the peer's for writing; its end is awaited, so that nothing of the old
//!                                  connection can be done after something of the new one
//!
//!   control socket ──> Passage ──> peer:  replica begin   body mn  body mn …  replica end mn   body mn …
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
//!   within a walk several batches share one lsn, and so does its end, so an `ack` there could not say of which;
//! - every body goes out whole, once, in order; our own commands stand between batches, right after a barrier;
//! - nothing at the peer is changed before the guard has seen what both sides hold;
//! - (run, lsn) is offered to `attach` only if the same peer, by its run, confirmed everything up to this lsn and no
//!   walk has begun since;
//! - answers are read whether or not anything can be written, so that the two ends cannot wait for each other.
//!
//! A stock peer gets the stream without cas, whatever its version: it drops items with a cas below its own counter
//! after a flush_all, and an explicit cas does not move that counter.
//!
//! Not here: sockets and clocks (`link`), and what is in a body. What the two sides say stands in `server` and `peer`.

mod sink;
mod source;

use super::answers::{Answers, Ask, Expect};
use super::clock_skew::{Grain, Skew};
use super::guard::Guard;
use super::relay::Passage;
use crate::sidecar::observe::figures::{Figures, Phase};
use crate::sidecar::pace::{BackOff, Bucket};
use sink::Peer;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

/// The version of the control socket's protocol that is spoken here.
const PROTOCOL: u64 = 1;

/// Silence after which a control socket is given up: it says that it is alive ten times a second.
const SERVER_SILENCE_MAX: Duration = Duration::from_secs(5);

/// Silence after which a peer that owes an answer is given up. A stopped one is no better reached anew, so this is
/// only for what stands between: some proxies keep a connection whose other end is gone.
const PEER_SILENCE_MAX: Duration = Duration::from_secs(15);

/// How long the peer may take to end an old connection.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// Between the first answer of a peer and the stream: time to work off what an earlier connection has left, if that
/// was not seen to end. One of its sockets holds a few megabytes, some milliseconds of work.
const SETTLE: Duration = Duration::from_millis(100);

/// How often `replica from` is sent again: the peer forgets after 5 s who feeds it.
const FROM_EVERY: Duration = Duration::from_secs(1);

/// A peer forgets after 5 s without `replica from` who feeds it, and after 10 s that a copy of everything goes on, which
/// would begin anew then. When its answer is so late, because of a large item and a low limit, the limit has to wait.
const FROM_LATE: Duration = Duration::from_secs(4);

/// How often a stock peer is asked for its time; not whole seconds, so that samples fall on ever other parts of one.
const STATS_EVERY: Duration = Duration::from_millis(1100);

/// Known lsns that are kept to tell the lag; one more than 10 ms after the last.
const MARKS_MAX: usize = 1024;
const MARK_EVERY: Duration = Duration::from_millis(10);

/// The lsn of the first mark of a stream that goes on, until the server says how far it is.
const UNTOLD: u64 = u64::MAX;

/// The time of a call.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Since the start of the program.
    pub at: Duration,
    /// Milliseconds since 1970.
    pub unix_ms: i64,
}

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

/// Why a connection cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It broke or could not be made: soon tried again.
    Broken(String),
    /// One side said no, or is not what it should be: tried again now and then.
    Refused(String),
    /// The guard said no: looked at again now and then.
    Guarded(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting {
        until: Duration,
    },
    Greeting,
    Meeting,
    Settling {
        until: Duration,
    },
    /// What both sides hold.
    Weighing,
    Announcing,
    Attaching,
    Attached,
    Draining {
        until: Duration,
    },
}

/// What has been passed on so far is, as far as it is confirmed, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// … part of a walk.
    Walking,
    /// … everything.
    Clean,
    /// … with gaps.
    Overtaken,
}

/// What a barrier confirms.
#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: u64,
    /// What is so from here on.
    stage: Stage,
    /// Walks begun before it: what it says is void when another one has begun.
    walks: u64,
    /// Bytes of bodies up to here.
    bytes: u64,
    ends_walk: bool,
}

/// Up to where a peer is known to have everything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resume {
    run: String,
    identity: String,
    lsn: u64,
}

/// See the module's head.
#[derive(Debug)]
pub struct Pump {
    name: String,
    state: State,
    actions: VecDeque<Action>,
    server_is_open: bool,
    peer_is_open: bool,
    passage: Passage,
    answers: Answers<Mark>,
    to_server: Vec<u8>,
    ack_due: Option<u64>,
    /// Acknowledged before that, with the reservation that some of it was refused.
    refuse_due: Option<u64>,
    /// The peer has refused changes since the last acknowledgement.
    lacks_some: bool,
    /// The server's run of this connection, and those of the servers that it gets its changes from.
    run: String,
    upstreams: String,
    /// The answer to `meet` is due.
    is_meeting: bool,
    peer: Peer,
    resume: Option<Resume>,
    /// At the end of what was passed on.
    stage: Stage,
    /// What the stream is, while there is one.
    stream: Phase,
    /// The last trouble was a refusal.
    is_refused: bool,
    batch_lsn: u64,
    back_off: BackOff,
    bucket: Bucket,
    skew: Skew,
    guard: Guard,
    server_heard: Duration,
    peer_heard: Duration,
    from_due: Duration,
    from_answered: Duration,
    stats_due: Duration,
    stats_asked: i64,
    marks: VecDeque<(u64, Duration)>,
    /// Since when the peer owes an answer, and has said nothing else.
    owed_since: Option<Duration>,
    /// When the peer was last known to have everything.
    whole_at: Option<Duration>,
    /// When the peer last refused a change.
    error_at: Option<Duration>,
    figures: Figures,
}

impl Pump {
    /// A pump for the consumer of this name, which is also how the log calls the peer.
    pub fn new(name: &str, limit_megabits: Option<u64>, may_replace: bool, seed: u64) -> Pump {
        Pump {
            name: name.to_owned(),
            state: State::Waiting { until: Duration::ZERO },
            actions: VecDeque::new(),
            server_is_open: false,
            peer_is_open: false,
            passage: Passage::default(),
            answers: Answers::default(),
            to_server: Vec::new(),
            ack_due: None,
            refuse_due: None,
            lacks_some: false,
            run: String::new(),
            upstreams: String::new(),
            is_meeting: false,
            peer: Peer::default(),
            resume: None,
            stage: Stage::Walking,
            stream: Phase::Walking,
            is_refused: false,
            batch_lsn: 0,
            back_off: BackOff::new(seed),
            bucket: Bucket::new(limit_megabits),
            skew: Skew::new(Grain::Millisecond),
            guard: Guard::new(may_replace),
            server_heard: Duration::ZERO,
            peer_heard: Duration::ZERO,
            from_due: Duration::ZERO,
            from_answered: Duration::ZERO,
            stats_due: Duration::ZERO,
            stats_asked: 0,
            marks: VecDeque::new(),
            owed_since: None,
            whole_at: None,
            error_at: None,
            figures: Figures::default(),
        }
    }

    // ---- what the owner of the sockets calls ----

    /// What to do next; call it until it says None, at the latest at [`Pump::deadline`].
    pub fn action(&mut self, now: Now) -> Option<Action> {
        if self.actions.is_empty() {
            self.look_at_the_time(now);
        }
        self.actions.pop_front()
    }

    /// When [`Pump::action`] has to be called although nothing was read or written.
    pub fn deadline(&self) -> Duration {
        match self.state {
            State::Waiting { until } | State::Draining { until } => until,
            State::Settling { until } => until.min(self.silent_at()),
            State::Attached => {
                let due = if self.peer.is_stock { self.stats_due } else { self.from_due };
                let own = if self.passage.is_between_batches() { due } else { Duration::MAX };
                own.min(self.silent_at())
            }
            State::Greeting | State::Meeting | State::Weighing | State::Announcing | State::Attaching => {
                self.silent_at()
            }
        }
    }

    /// The control socket is connected.
    pub fn server_opened(&mut self, now: Now) {
        self.server_is_open = true;
        self.server_heard = now.at;
    }

    /// The control socket could not be connected, or has broken.
    pub fn server_gone(&mut self, trouble: Trouble, now: Now) {
        if self.server_is_open || self.state == State::Greeting {
            self.server_is_open = false;
            self.fail(trouble, now);
        }
    }

    /// Where to read the control socket into; empty when it shall not be read now.
    pub fn server_room(&mut self) -> &mut [u8] {
        // More than a second ahead of what may be sent our own commands would wait for too long.
        let is_ahead = self.bucket.second().is_some_and(|bytes| self.passage.pending() as u64 > bytes);
        if self.server_is_open && !is_ahead { self.passage.room() } else { &mut [] }
    }

    /// So many bytes were read into [`Pump::server_room`].
    pub fn server_read(&mut self, n: usize, now: Now) {
        self.server_heard = now.at;
        self.passage.filled(n);
        while self.server_is_open {
            match self.passage.next() {
                Ok(Some(said)) => self.hear(said, now),
                Ok(None) => break,
                Err(what) => self.fail(not_a_control_socket(&what), now),
            }
        }
    }

    /// What to write to the control socket.
    pub fn server_output(&mut self) -> &[u8] {
        if self.to_server.is_empty() {
            let due = [("refuse", self.refuse_due.take()), ("ack", self.ack_due.take())];
            for (word, lsn) in due.into_iter().filter_map(|(word, lsn)| Some((word, lsn?))) {
                self.to_server.extend_from_slice(format!("{word} {lsn}\r\n").as_bytes());
            }
        }
        &self.to_server
    }

    /// So many bytes of [`Pump::server_output`] were written.
    pub fn server_wrote(&mut self, n: usize) {
        self.to_server.drain(..n);
    }

    /// The peer is connected.
    pub fn peer_opened(&mut self, now: Now) {
        self.peer_is_open = true;
        self.peer_heard = now.at;
        self.ask(b"mn\r\n".as_slice(), Expect::Line(Ask::Hello));
        self.ask(b"version\r\n".as_slice(), Expect::Line(Ask::Version));
        // By now these are more than the 24 bytes that one who knows packets only waits for before he hangs up.
        self.ask(b"replica who\r\n".as_slice(), Expect::Line(Ask::Who(now.unix_ms)));
    }

    /// The peer could not be connected, or its connection has broken or ended.
    pub fn peer_gone(&mut self, why: &str, now: Now) {
        self.peer_is_open = false;
        match self.state {
            State::Draining { .. } => {
                self.actions.push_back(Action::ClosePeer);
                self.wait(now);
            }
            State::Waiting { .. } => {}
            _ if matches!(self.answers.next_expected(), Some(Expect::Line(Ask::Hello))) => {
                let text = format!("the peer ends the connection at `mn` ({why}): is it a memcached's text port?");
                self.fail(Trouble::Broken(text), now);
            }
            _ => self.fail(Trouble::Broken(format!("the peer: {why}")), now),
        }
    }

    /// These bytes were read from the peer.
    pub fn peer_read(&mut self, bytes: &[u8], now: Now) {
        self.peer_heard = now.at;
        let (mut at, mut joined) = (0, Vec::new());
        while let Some((line, len)) = self.answers.line(&bytes[at..], &mut joined) {
            at += len;
            let answer = self.answers.take(line);
            self.take(answer, now);
        }
        self.owed_since = self.answers.is_owed().then_some(now.at);
    }

    /// What to write to the peer; empty when there is nothing, or when it has to wait for bandwidth.
    pub fn peer_output(&mut self, now: Now) -> Vec<IoSlice<'_>> {
        let pending = if self.peer_is_open && !self.is_draining() { self.passage.pending() } else { 0 };
        let feeds_twincached = self.state == State::Attached && !self.peer.is_stock;
        let is_late = feeds_twincached && now.at >= self.from_answered + FROM_LATE;
        let allowed = if pending == 0 || is_late { pending } else { self.bucket.allows(pending, now.at) };
        if allowed == 0 { Vec::new() } else { self.passage.slices(allowed) }
    }

    /// When [`Pump::peer_output`] gives something again, after it gave nothing for want of bandwidth.
    pub fn bandwidth_at(&self) -> Option<Duration> {
        let pending = if self.is_draining() { 0 } else { self.passage.pending() };
        if pending == 0 { None } else { self.bucket.worth_at(pending) }
    }

    /// So many bytes of [`Pump::peer_output`] were written.
    pub fn peer_wrote(&mut self, n: usize, now: Now) {
        self.peer_heard = now.at;
        // While the passage was full nobody could hear it.
        self.server_heard = now.at;
        self.figures.sent_bytes += n as u64;
        self.bucket.take(n);
        self.passage.written(n);
    }

    /// The figures of now.
    pub fn figures(&mut self, now: Now) -> &Figures {
        self.figures.phase = match self.state {
            State::Waiting { .. } | State::Draining { .. } if self.is_refused => Phase::Refused,
            State::Waiting { .. } => Phase::Waiting,
            State::Draining { .. } => Phase::Draining,
            State::Attached => self.stream,
            _ => Phase::Connecting,
        };
        self.figures.error_ago = self.error_at.map(|at| now.at.saturating_sub(at));
        self.figures.is_attached = self.state == State::Attached;
        if self.figures.phase == Phase::Streaming {
            let known = self.marks.front().map_or(now.at, |mark| mark.1);
            self.owed_since = self.answers.is_owed().then(|| self.owed_since.unwrap_or(now.at));
            self.whole_at = Some(known.min(self.owed_since.unwrap_or(now.at)));
        }
        self.figures.lag = self.whole_at.map(|at| now.at.saturating_sub(at));
        &self.figures
    }

    // ---- time ----

    fn look_at_the_time(&mut self, now: Now) {
        if now.at < self.deadline() {
            return;
        }
        match self.state {
            State::Waiting { .. } => {
                self.passage.clear();
                self.answers.clear();
                self.to_server.clear();
                (self.ack_due, self.refuse_due, self.lacks_some) = (None, None, false);
                (self.owed_since, self.is_meeting) = (None, false);
                self.state = State::Greeting;
                self.server_heard = now.at;
                self.actions.push_back(Action::OpenServer);
            }
            State::Draining { .. } => {
                log::debug!("{}: the peer does not end the old connection", self.name);
                self.peer_is_open = false;
                self.actions.push_back(Action::ClosePeer);
                self.wait(now);
            }
            _ if now.at >= self.silent_at() => self.give_up_silence(now),
            State::Settling { until } if now.at >= until => {
                self.meet();
                self.server_heard = now.at;
                self.state = State::Weighing;
            }
            State::Attached if self.passage.is_between_batches() => self.ask_again(now),
            _ => {}
        }
    }

    /// When the silence of one of the two has lasted too long.
    fn silent_at(&self) -> Duration {
        // A server that is not read, because the peer is slow, cannot be heard.
        let server_speaks =
            matches!(self.state, State::Greeting | State::Weighing | State::Attaching | State::Attached);
        let is_read = self.passage.pending() == 0;
        let server = if server_speaks && is_read { self.server_heard + SERVER_SILENCE_MAX } else { Duration::MAX };
        server.min(self.peer_silent_at())
    }

    fn peer_silent_at(&self) -> Duration {
        let owes = self.peer_is_open && (self.answers.is_owed() || self.passage.pending() > 0);
        if owes { self.peer_heard + PEER_SILENCE_MAX } else { Duration::MAX }
    }

    fn give_up_silence(&mut self, now: Now) {
        let trouble = match self.state {
            State::Greeting => {
                Trouble::Broken("nothing is said on the control socket: is it one of twincached's?".to_owned())
            }
            _ if self.peer_silent_at() > now.at => Trouble::Broken("the server is silent".to_owned()),
            _ => Trouble::Broken("the peer is silent".to_owned()),
        };
        self.fail(trouble, now);
    }

    /// Asks the peer what it is asked regularly.
    fn ask_again(&mut self, now: Now) {
        match self.peer.is_stock {
            true if now.at >= self.stats_due => self.ask_stats(now),
            false if now.at >= self.from_due => {
                self.ask_from(now);
                self.meet();
            }
            _ => {}
        }
    }

    fn ask_stats(&mut self, now: Now) {
        self.stats_due = now.at + STATS_EVERY;
        self.stats_asked = now.unix_ms;
        self.ask(b"stats\r\n".as_slice(), Expect::Stats);
    }

    fn ask_from(&mut self, now: Now) {
        self.from_due = now.at + FROM_EVERY;
        let command = format!("replica from {}{}\r\n", self.run, self.upstreams);
        self.ask(command.into_bytes(), Expect::Line(Ask::ReplicaFrom(now.unix_ms)));
    }

    fn ask(&mut self, command: impl Into<std::borrow::Cow<'static, [u8]>>, expect: Expect<Mark>) {
        self.passage.add(command);
        self.answers.expect(expect);
    }

    // ---- ends ----

    fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. } | State::Waiting { .. })
    }

    fn fail(&mut self, trouble: Trouble, now: Now) {
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
        self.server_is_open = false;
        self.actions.clear();
        self.actions.push_back(Action::CloseServer);
        if self.peer_is_open {
            self.actions.push_back(Action::ShutPeer);
            self.state = State::Draining { until: now.at + DRAIN_MAX };
        } else {
            self.actions.push_back(Action::ClosePeer);
            self.wait(now);
        }
    }

    fn wait(&mut self, now: Now) {
        let pause = if self.is_refused { self.back_off.long_pause() } else { self.back_off.pause() };
        self.state = State::Waiting { until: now.at + pause };
    }
}

fn not_a_control_socket(what: &str) -> Trouble {
    Trouble::Refused(format!("this is no control socket of twincached: {what}"))
}

#[cfg(test)]
#[path = "tests/pump.rs"]
mod tests;
