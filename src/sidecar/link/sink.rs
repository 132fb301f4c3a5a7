//! A peer's side of a stream: who it is, what it is asked, and what it answers.
//!
//! ```text
//!   open ─> mn, version, replica who ─> stats ─> known: its identity, its items
//!   body mn ─> … MN: confirmed, and whether a change before it was answered with an error
//!   replica from, every second ─> its clock
//! ```
//!
//! Not here: sockets, the states of the whole (`pump`), how lines are told apart (`answers`).

use super::answers::{Answer, Answers, Expect, Query};
use super::clock_skew::{ClockSkew, Grain};
use super::relay::Relay;
use crate::protocol::control::{self, Introduction, ReplicaLine};
use crate::sidecar::moment::{Moment, Trouble};
use crate::sidecar::observe::figures::Figures;
use std::borrow::Cow;
use std::time::Duration;

/// Silence after which a peer that owes an answer is given up. A stopped one is no better reached anew, so this is
/// only for what stands between: some proxies keep a connection whose other end is gone.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How often `replica from` is sent again: the peer forgets after 5 s who feeds it.
const FROM_EVERY: Duration = Duration::from_secs(1);

/// A peer forgets after 5 s without `replica from` who feeds it, and after 10 s that a copy of everything goes on, which
/// would begin anew then. When its answer is so late, because of a large item and a low limit, the limit has to wait.
const FROM_LATE: Duration = Duration::from_secs(4);

/// How often a stock peer is asked for its time; not whole seconds, so that samples fall on ever other parts of one.
const STATS_EVERY: Duration = Duration::from_millis(1100);

/// Bytes of a peer's line that are shown.
const SHOWN_MAX: usize = 200;

/// What has been passed on so far is, as far as it is confirmed, …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// … part of a full sync.
    #[default]
    Syncing,
    /// … everything.
    Clean,
    /// … with gaps.
    Lagged,
}

/// What a barrier confirms.
#[derive(Clone, Copy, Debug)]
pub struct Barrier {
    /// Everything up to here.
    pub lsn: u64,
    /// What is so from here on.
    pub stage: Stage,
    /// Full syncs begun before it: what it says is void when another one has begun.
    pub walks: u64,
    /// Bytes of bodies up to here.
    pub bytes: u64,
    /// It stands at the end of a full sync.
    pub ends_full_sync: bool,
}

/// What an answer says to the whole.
#[derive(Clone, Copy, Debug)]
pub enum Answered {
    /// Nothing that others have to know.
    Nothing,
    /// The peer has done everything before this barrier.
    Confirmed(Barrier),
    /// Its statistics have come; false when they were refused.
    Stats(bool),
    /// It knows who feeds it.
    Announced,
}

/// Who the peer is.
#[derive(Clone, Debug, Default)]
pub struct PeerInfo {
    /// Its run, or what stands for one with a stock memcached.
    pub identity: String,
    /// It is no twincached.
    pub is_stock: bool,
    /// Items that it holds.
    pub items: Option<u64>,
    pid: String,
    time: i64,
    uptime: i64,
}

/// See the module's head.
#[derive(Debug)]
pub struct StreamSink {
    /// The connection is there.
    pub is_open: bool,
    /// Who the peer is.
    pub peer: PeerInfo,
    /// It has refused changes since the last acknowledgement.
    pub lacks_some: bool,
    /// When it last refused a change.
    pub refused_at: Option<Duration>,
    name: String,
    answers: Answers<Barrier>,
    clock: ClockSkew,
    heard: Duration,
    from_due: Duration,
    from_answered: Duration,
    stats_due: Duration,
    stats_asked: i64,
}

impl StreamSink {
    /// A peer of this name that was not tried yet.
    pub fn new(name: &str) -> StreamSink {
        StreamSink {
            is_open: false,
            peer: PeerInfo::default(),
            lacks_some: false,
            refused_at: None,
            name: name.to_owned(),
            answers: Answers::default(),
            clock: ClockSkew::new(Grain::Millisecond),
            heard: Duration::ZERO,
            from_due: Duration::ZERO,
            from_answered: Duration::ZERO,
            stats_due: Duration::ZERO,
            stats_asked: 0,
        }
    }

    /// Nothing is asked or owed any more: the next connection is a new one.
    pub fn reset(&mut self) {
        self.answers.clear();
        self.lacks_some = false;
    }

    /// The connection is there: asks who this is.
    pub fn opened(&mut self, relay: &mut Relay, now: Moment) {
        self.is_open = true;
        self.heard = now.at;
        self.ask(b"mn\r\n".as_slice(), Expect::Line(Query::Hello), relay);
        self.ask(b"version\r\n".as_slice(), Expect::Line(Query::Version), relay);
        // By now these are more than the 24 bytes that one who knows packets only waits for before he hangs up.
        self.tell(ReplicaLine::Who, Query::Who(now.unix_ms), relay);
    }

    /// The peer has said something, or taken something.
    pub fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// Whether any answer is missing.
    pub fn owes(&self) -> bool {
        self.answers.is_owed()
    }

    /// Whether not even the first answer of a connection has come.
    pub fn has_said_nothing(&self) -> bool {
        matches!(self.answers.next_expected(), Some(Expect::Line(Query::Hello)))
    }

    /// From when on its silence has lasted too long.
    pub fn silent_at(&self, pending: usize) -> Duration {
        let owes = self.is_open && (self.owes() || pending > 0);
        if owes { self.heard + SILENCE_MAX } else { Duration::MAX }
    }

    /// Whether the peer's answer to `replica from` is so late that the limit of bandwidth has to wait.
    pub fn is_late(&self, now: Duration) -> bool {
        !self.peer.is_stock && now >= self.from_answered + FROM_LATE
    }

    /// When it is to be asked again what it is asked regularly.
    pub fn due(&self) -> Duration {
        if self.peer.is_stock { self.stats_due } else { self.from_due }
    }

    /// Asks a stock peer for its statistics.
    pub fn ask_stats(&mut self, relay: &mut Relay, now: Moment) {
        self.stats_due = now.at + STATS_EVERY;
        self.stats_asked = now.unix_ms;
        self.ask(b"stats\r\n".as_slice(), Expect::Stats, relay);
    }

    /// Tells a twincached who feeds it: this run, and those behind it.
    pub fn announce(&mut self, run: &str, upstreams: &[String], relay: &mut Relay, now: Moment) {
        self.from_due = now.at + FROM_EVERY;
        let runs = [run].into_iter().chain(upstreams.iter().map(String::as_str)).collect();
        self.tell(ReplicaLine::From(runs), Query::ReplicaFrom(now.unix_ms), relay);
    }

    /// Says that everything is going to be sent.
    pub fn begin_full_sync(&mut self, relay: &mut Relay) {
        match self.peer.is_stock {
            true => self.ask(b"flush_all\r\n".as_slice(), Expect::Line(Query::Begin), relay),
            false => self.tell(ReplicaLine::Begin, Query::Begin, relay),
        }
    }

    /// Says that everything has been sent.
    pub fn end_full_sync(&mut self, relay: &mut Relay) {
        if !self.peer.is_stock {
            self.tell(ReplicaLine::End, Query::End, relay);
        }
    }

    /// Asks for the confirmation of everything before.
    pub fn barrier(&mut self, barrier: Barrier, relay: &mut Relay) {
        self.ask(b"mn\r\n".as_slice(), Expect::Barrier(barrier), relay);
    }

    fn tell(&mut self, line: ReplicaLine<'_>, query: Query, relay: &mut Relay) {
        self.ask(format!("{line}\r\n").into_bytes(), Expect::Line(query), relay);
    }

    fn ask(&mut self, command: impl Into<Cow<'static, [u8]>>, expect: Expect<Barrier>, relay: &mut Relay) {
        relay.add(command);
        self.answers.expect(expect);
    }

    /// The first line of these bytes, and its length; see [`Answers::line`].
    pub fn line<'a>(&mut self, bytes: &'a [u8], joined: &'a mut Vec<u8>) -> Option<(&'a [u8], usize)> {
        self.answers.line(bytes, joined)
    }

    /// Drops a line of a peer that is not listened to any more.
    pub fn ignore(&mut self, line: &[u8]) {
        self.answers.take(line);
    }

    /// Takes a line of the peer; `run` is the server's. An error is why the connection cannot be used.
    pub fn take(
        &mut self,
        line: &[u8],
        run: &str,
        relay: &mut Relay,
        figures: &mut Figures,
        now: Moment,
    ) -> Result<Answered, Trouble> {
        match self.answers.take(line) {
            Answer::Confirmed(barrier) => return Ok(Answered::Confirmed(barrier)),
            Answer::Line(query, line) => return self.take_answer(query, line, run, relay, figures, now),
            Answer::StatsEnd(is_good) => {
                if is_good && self.peer.is_stock {
                    self.sample_clock(self.stats_asked, self.peer.time.saturating_mul(1000), figures, now);
                }
                return Ok(Answered::Stats(is_good));
            }
            Answer::Stat(name, value) => self.peer.learn(name, value),
            Answer::Error(line) => self.take_refusal(line, figures, now),
            Answer::Nothing => {}
        }
        Ok(Answered::Nothing)
    }

    fn take_refusal(&mut self, line: &[u8], figures: &mut Figures, now: Moment) {
        // The first of each thousand: a peer that is full has the same to say of every change.
        if figures.errors.is_multiple_of(1000) {
            log::warn!("{}: the peer does not take a change: {}", self.name, line.escape_ascii());
        }
        figures.errors += 1;
        figures.error = shown(line);
        self.refused_at = Some(now.at);
        self.lacks_some = true;
    }

    fn take_answer(
        &mut self,
        query: Query,
        line: &[u8],
        run: &str,
        relay: &mut Relay,
        figures: &mut Figures,
        now: Moment,
    ) -> Result<Answered, Trouble> {
        let text = shown(line);
        match query {
            Query::Hello if line == b"MN" => {}
            Query::Hello => {
                return Err(Trouble::Refused(format!(
                    "the peer answers `{text}` to `mn`: memcached 1.6 or later is needed"
                )));
            }
            Query::Who(asked) => self.take_who(&text, asked, run, relay, figures, now)?,
            Query::ReplicaFrom(asked) => {
                let Some(peer) = Introduction::parse(&text) else { return Err(refused(&text)) };
                if peer.run != self.peer.identity {
                    return Err(Trouble::Broken("the peer has become another one".to_owned()));
                }
                self.sample_clock(asked, peer.unix_ms, figures, now);
                self.from_answered = now.at;
                return Ok(Answered::Announced);
            }
            Query::Version => figures.kind = format!("memcached {}", text.trim_start_matches("VERSION ")),
            Query::Probe if text.starts_with("CLIENT_ERROR") || text.starts_with("ERROR") => {
                return Err(Trouble::Refused(format!(
                    "the peer answers `{text}` to `ms`: memcached 1.6.9 or later is needed"
                )));
            }
            Query::Begin | Query::End if text != "OK" => {
                let what = if self.peer.is_stock { "flush_all" } else { "replica begin or end" };
                return Err(Trouble::Refused(format!("the peer answers `{text}` to {what}")));
            }
            Query::Begin | Query::End | Query::Probe => {}
        }
        Ok(Answered::Nothing)
    }

    /// The answer to `replica who`: an introduction of a twincached, `ERROR` of a stock memcached.
    fn take_who(
        &mut self,
        text: &str,
        asked: i64,
        run: &str,
        relay: &mut Relay,
        figures: &mut Figures,
        now: Moment,
    ) -> Result<(), Trouble> {
        match Introduction::parse(text) {
            Some(peer) if peer.run == run => {
                return Err(Trouble::Refused("the peer is the server itself".to_owned()));
            }
            Some(peer) => {
                self.clock.resume(Grain::Millisecond);
                self.sample_clock(asked, peer.unix_ms, figures, now);
                self.peer = PeerInfo { identity: peer.run.to_owned(), ..PeerInfo::default() };
                figures.kind = "twincached".to_owned();
            }
            None if text == "ERROR" => {
                self.clock.resume(Grain::Second);
                self.peer = PeerInfo { is_stock: true, ..PeerInfo::default() };
                // To replace what is not there: nothing stays, so that the peer's items are its own.
                self.ask(b"ms twincache.probe 2 MR T-1\r\nok\r\n".as_slice(), Expect::Line(Query::Probe), relay);
            }
            None => return Err(refused(text)),
        }
        self.ask_stats(relay, now);
        Ok(())
    }

    fn sample_clock(&mut self, asked: i64, told: i64, figures: &mut Figures, now: Moment) {
        let has_changed = self.clock.sample(asked, told, now.unix_ms);
        (figures.clock, figures.clock_is_off) = (self.clock.bounds(), self.clock.is_off());
        let Some(bounds) = self.clock.bounds().filter(|_| has_changed) else { return };
        if self.clock.is_off() {
            let (low, high) = (bounds.low, bounds.high);
            log::warn!("{}: the peer's clock is off by {low} to {high} ms: expiry will be, too", self.name);
        } else {
            log::info!("{}: the peer's clock is right again", self.name);
        }
    }
}

impl PeerInfo {
    /// Completes what the statistics have told; false when they left out what has to be known.
    pub fn complete(&mut self) -> bool {
        if self.is_stock {
            // Constant for as long as it runs: both numbers are made of the same one.
            let started = self.time.saturating_sub(self.uptime);
            self.identity = format!("mc-{}-{started}", self.pid);
        }
        self.time > 0 && self.items.is_some() && control::is_word(&self.pid)
    }

    fn learn(&mut self, name: &[u8], value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        match name {
            b"pid" => self.pid = text.to_owned(),
            b"time" => self.time = text.parse().unwrap_or(0),
            b"uptime" => self.uptime = text.parse().unwrap_or(0),
            b"curr_items" => self.items = text.parse().ok(),
            _ => {}
        }
    }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN_MAX)]).into_owned()
}

fn refused(text: &str) -> Trouble {
    Trouble::Refused(format!("the peer refuses: {text}"))
}
