//! A peer's side of a stream: which server it is, what it is asked, and what it answers.
//!
//! ```text
//!   open ─> mn, version, replica who ─> stats ─> known: its identity, its items
//!   body mn ─> … MN: confirmed, and whether a change before it was answered with an error
//!   replica from, every second ─> its clocks
//! ```
//!
//! Bodies and our own commands stand in the sink's relay in the order in which they go out.
//!
//! Not here: sockets, the states of the whole (`pump`), how lines are told apart (`answers`).

use super::answers::{Answer, Answers, AskedAt, Expect, Query};
use super::clock_skew::{ClockSkew, Grain};
use super::lag::Lag;
use super::peer_cas::{self, PeerCas};
use super::peer_clock::PeerClock;
use super::peer_info::PeerInfo;
use super::relay::Relay;
use crate::protocol::control::{Introduction, ReplicaLine};
use crate::sidecar::moment::{Moment, Trouble};
use crate::sidecar::observe::figures::{Figures, PeerPhase, Stage, SyncFigures};
use crate::supervisor;
use std::borrow::Cow;
use std::io::IoSlice;
use std::time::Duration;

/// A connection is given up when the peer has had a whole command for so long and answers nothing, or when it takes
/// nothing for so long. That it takes what it is sent is no sign of life: the kernel does that, and so does a proxy whose
/// other end is gone. A new connection does not help if the peer itself has stopped.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// How often `replica from` is sent again: the peer forgets after 5 s which server feeds it.
const FROM_EVERY: Duration = Duration::from_secs(1);

/// A peer without `replica from` forgets after 5 s which server feeds it, and after 10 s that a full sync goes on: it
/// would begin again. When its answer is so late, because of a large item and a low limit, the limit is ignored.
const FROM_LATE: Duration = Duration::from_secs(4);

/// How often a stock peer is asked for its time. It is not a whole number of seconds, so that the samples fall on
/// different parts of a second.
const STATS_EVERY: Duration = Duration::from_millis(1100);

/// The server says every 50 ms what time it is. What is read was said at most so long ago, in milliseconds, or the
/// sample is dropped for contradicting others.
const SAID_WITHIN: i64 = 200;

/// For so long a server may be starting. Units start the sidecar first.
const ABSENT_MAX: Duration = Duration::from_secs(5);

/// How often the log is told of refusals.
const REFUSED_EVERY: Duration = Duration::from_secs(60);

/// The most answers that a peer may owe. While it owes so many, the server is not read.
const OWED_MAX: usize = 16 << 10;

/// The log says how far a full sync has come, when it takes longer than so many seconds, and then as often.
const LOG_EVERY: u64 = 10;

/// Bytes of a peer's line that are shown.
const SHOWN_MAX: usize = 200;

/// What a barrier confirms.
#[derive(Clone, Copy, Debug)]
pub(super) struct Barrier {
    /// Everything up to here.
    pub lsn: u64,
    /// The stage of the stream after the barrier.
    pub stage: Stage,
    /// How many full syncs had begun before the barrier. If another one has begun since, the barrier confirms nothing.
    pub walks: u64,
    /// Bytes of bodies before the barrier.
    pub bytes: u64,
    /// Whether the barrier stands at the end of a full sync.
    pub ends_full_sync: bool,
}

/// What an answer means to the pump.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answered {
    /// Nothing that others have to know.
    Nothing,
    /// The peer has done everything before this barrier.
    Confirmed(Barrier),
    /// The peer's statistics have come; false when they were refused.
    Stats(bool),
    /// The peer knows now which server feeds it.
    Announced,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct StreamSink {
    /// How the log calls it.
    pub name: String,
    /// Whether there is a connection.
    pub is_open: bool,
    /// Whether a connection is by TLS.
    pub is_over_tls: bool,
    /// The epoch and the secret of the shard that both servers are in.
    pub key: Option<(u64, String)>,
    /// Who the peer is.
    pub peer: PeerInfo,
    /// What is on its way to the peer.
    pub relay: Relay,
    /// What the peer is expected to answer.
    pub answers: Answers<Barrier>,
    /// How far it is behind.
    pub lag: Lag,
    /// What is shown of the peer.
    pub figures: Figures,
    /// Whether the peer has refused changes since the last acknowledgement.
    pub lacks_some: bool,
    refused_at: Option<Duration>,
    /// When the log was told of refusals, and how many there had been by then.
    said_refused: Option<(Duration, u64)>,
    /// When the full sync that goes on began, and how many bytes of bodies there had been.
    sync_began: Option<(Duration, u64)>,
    /// Since when the server's socket has not been there.
    absent_since: Option<Duration>,
    /// Whether the last trouble was not worth a line yet.
    is_unsaid: bool,
    /// When the last trouble was.
    trouble_at: Duration,
    /// Whether a stock peer is sent cas uniques.
    cas: PeerCas,
    /// The clock by which the peer takes expiries.
    pub clock: PeerClock,
    /// Whether it is asked for it.
    pub awaits_clock: bool,
    /// Its wall clock, against that of this machine.
    wall: ClockSkew,
    /// The server's, as the server takes it.
    server_wall: ClockSkew,
    /// Since when it has owed an answer to what it has been sent, and said nothing.
    owes_since: Option<Duration>,
    /// When it last took something.
    took: Duration,
    /// When the next regular question to the peer is due.
    due: Duration,
    from_answered: Duration,
    stats_asked: AskedAt,
}

impl StreamSink {
    /// A peer of this name that was not tried yet.
    pub(super) fn new(name: &str) -> StreamSink {
        StreamSink { name: name.to_owned(), ..StreamSink::default() }
    }

    /// Nothing is asked or owed any more: the next connection is a new one.
    pub(super) fn reset(&mut self) {
        self.relay.clear();
        self.answers.clear();
        self.lag.forget_answers();
        self.lacks_some = false;
        self.sync_began = None;
        self.owes_since = None;
    }

    /// The connection is there: asks who this is.
    pub(super) fn opened(&mut self, now: Moment) {
        self.is_open = true;
        self.took = now.at;
        self.ask(b"mn\r\n".as_slice(), Expect::Line(Query::Hello));
        self.ask(b"version\r\n".as_slice(), Expect::Line(Query::Version));
        if let Some((epoch, secret)) = &self.key {
            let line = format!("replica key {epoch} {secret}\r\n");
            self.ask(line.into_bytes(), Expect::Line(Query::Key));
        }
        // With these there are more than 24 bytes: a server that speaks only the binary protocol waits for as many, and
        // then closes the connection.
        self.ask_clock(&ReplicaLine::Who, Query::Who(asked(now)));
    }

    /// The peer has said something, which was looked at.
    pub(super) fn heard(&mut self, now: Duration) {
        self.owes_since = None;
        self.note_owed(now);
        self.lag.heard(self.answers.is_owed(), now);
    }

    fn note_owed(&mut self, now: Duration) {
        let is_due = self.answers.is_due(self.figures.sent_bytes);
        self.owes_since = self.owes_since.or(Some(now)).filter(|_| is_due);
    }

    /// Whether it owes so many answers that it is not to be sent more.
    pub(super) fn owes_too_many(&self) -> bool {
        self.answers.count() >= OWED_MAX
    }

    /// The peer has taken so many bytes.
    pub(super) fn wrote(&mut self, n: usize, now: Moment) {
        self.took = now.at;
        self.figures.sent_bytes += n as u64;
        self.relay.written(n);
        self.note_owed(now.at);
    }

    /// Whether not even the first answer of a connection has come.
    pub(super) fn has_said_nothing(&self) -> bool {
        matches!(self.answers.next_expected(), Some(Expect::Line(Query::Hello)))
    }

    /// From when on its silence has lasted too long.
    pub(super) fn silent_at(&self) -> Duration {
        let is_stuck = self.relay.pending() > 0;
        let since = self.owes_since.into_iter().chain(is_stuck.then_some(self.took)).min();
        since.filter(|_| self.is_open).map_or(Duration::MAX, |since| since + SILENCE_MAX)
    }

    /// Whether the peer's answer to `replica from` is so late that the limit of bandwidth has to wait.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        !self.peer.is_stock && now >= self.from_answered + FROM_LATE
    }

    /// When it is to be asked again what it is asked regularly: not in the midst of a body.
    pub(super) fn due(&self) -> Duration {
        if self.relay.is_between_batches() { self.due } else { Duration::MAX }
    }

    /// Asks for its statistics.
    pub(super) fn ask_stats(&mut self, now: Moment) {
        self.due = now.at + STATS_EVERY;
        self.stats_asked = asked(now);
        self.awaits_clock = true;
        self.ask(b"stats\r\n".as_slice(), Expect::Stats);
    }

    /// Tells a twincached who feeds it: this run, and those behind it.
    pub(super) fn announce(&mut self, run: &str, upstreams: &[String], now: Moment) {
        self.due = now.at + FROM_EVERY;
        let runs = [run].into_iter().chain(upstreams.iter().map(String::as_str)).collect();
        self.ask_clock(&ReplicaLine::From(runs), Query::ReplicaFrom(asked(now)));
    }

    /// Whether the stream to the peer names cas uniques.
    pub(super) fn takes_cas(&self) -> bool {
        !self.peer.is_stock || self.cas.is_sent_to(&self.peer.identity)
    }

    /// A stream begins after this change: with a full sync, or where the last one ended.
    pub(super) fn begin_stream(&mut self, lsn: u64) {
        self.figures.attached += 1;
        self.figures.trouble.clear();
        (self.figures.is_guarded, self.figures.is_upstream) = (false, false);
        self.absent_since = None;
        self.figures.lacking = None;
        (self.figures.head, self.figures.confirmed, self.figures.bytes_in_flight) = (lsn, lsn, 0);
    }

    /// The server says what the peer lacks. It does so again when it has heard of what was refused since.
    pub(super) fn note_lacking(&mut self, ranges: u64) {
        if !self.lacks_some {
            self.figures.lacking = Some(ranges);
        }
    }

    /// Says that everything is going to be sent, and that there are so many items.
    pub(super) fn begin_full_sync(&mut self, expected: u64, now: Moment) {
        self.figures.walks_started += 1;
        self.figures.sync = SyncFigures { expected, ..SyncFigures::default() };
        self.sync_began = Some((now.at, self.figures.body_bytes));
        if !self.peer.is_stock {
            return self.tell(&ReplicaLine::Begin(Some(expected)), Query::Begin);
        }
        if self.takes_cas() {
            self.ask(peer_cas::COUNT_ONE, Expect::Line(Query::Any));
        }
        self.ask(b"flush_all\r\n".as_slice(), Expect::Line(Query::Begin));
        self.ask_for_low_cas();
    }

    /// Sees whether a stock peer that is sent cas uniques keeps items of a low one.
    pub(super) fn ask_for_low_cas(&mut self) {
        if self.peer.is_stock && self.takes_cas() {
            self.ask(peer_cas::STORE, Expect::Line(Query::CasStored));
            self.ask(peer_cas::TAKE_AWAY, Expect::Line(Query::CasKept));
        }
    }

    /// Says how whole the copy is: how much of the full sync was sent, or that everything was up to this lsn.
    pub(super) fn tell_copy(&mut self, stage: Stage, lsn: u64, now: Moment) {
        let line = match (stage, self.sync_began) {
            (Stage::Syncing, Some((at, bytes))) => self.progress(now.at.saturating_sub(at), bytes),
            (Stage::Clean, _) => ReplicaLine::At(lsn),
            _ => return,
        };
        if !self.peer.is_stock {
            self.tell(&line, Query::Progress);
        }
    }

    fn progress(&mut self, took: Duration, bytes: u64) -> ReplicaLine<'static> {
        let sync = &mut self.figures.sync;
        let is_slow = took.as_secs() / LOG_EVERY > sync.took.as_secs() / LOG_EVERY;
        (sync.took, sync.bytes) = (took, self.figures.body_bytes - bytes);
        if is_slow {
            let SyncFigures { items, expected, .. } = *sync;
            log::info!("{}: full sync {} %, {items} of {expected} items", self.name, sync.percent());
        }
        ReplicaLine::Sent(sync.items, sync.bytes)
    }

    /// Says that everything has been sent.
    pub(super) fn end_full_sync(&mut self, lsn: u64, now: Moment) {
        self.tell_copy(Stage::Syncing, lsn, now);
        if !self.peer.is_stock {
            self.tell(&ReplicaLine::End, Query::End);
        }
        self.tell_copy(Stage::Clean, lsn, now);
    }

    /// Says that changes were lost on their way to the peer, or that what was lost has been sent again.
    pub(super) fn tell_overtaken(&mut self, is_overtaken: bool) {
        let line = if is_overtaken { ReplicaLine::Overtaken } else { ReplicaLine::CaughtUp };
        if !self.peer.is_stock {
            self.tell(&line, Query::Progress);
        }
    }

    /// The body of a batch goes to the peer next.
    pub(super) fn begin_batch(&mut self, bytes: u64) {
        self.relay.begin_body(bytes);
        self.figures.batches += 1;
        self.figures.body_bytes += bytes;
        self.figures.bytes_in_flight += bytes;
    }

    /// Asks for the confirmation of everything up to this change.
    pub(super) fn barrier(&mut self, lsn: u64, stage: Stage, ends_full_sync: bool) {
        let (walks, bytes) = (self.figures.walks_started, self.figures.body_bytes);
        self.ask(b"mn\r\n".as_slice(), Expect::Barrier(Barrier { lsn, stage, walks, bytes, ends_full_sync }));
    }

    /// The peer has confirmed everything before this barrier. Whether it has everything up to there then.
    pub(super) fn confirm(&mut self, barrier: Barrier, now: Moment) -> bool {
        self.figures.barriers += 1;
        self.figures.confirmed = barrier.lsn;
        self.figures.bytes_in_flight = self.figures.body_bytes - barrier.bytes;
        self.lag.confirm(barrier.lsn);
        if barrier.ends_full_sync {
            self.figures.walks_finished += 1;
        }
        if barrier.ends_full_sync && barrier.walks == self.figures.walks_started {
            self.note_full_sync(barrier.lsn, now);
        }
        barrier.stage == Stage::Clean && barrier.walks == self.figures.walks_started
    }

    fn note_full_sync(&mut self, lsn: u64, now: Moment) {
        let Some((at, _)) = self.sync_began.take() else { return };
        self.figures.sync.took = now.at.saturating_sub(at);
        let SyncFigures { items, bytes, took, .. } = self.figures.sync;
        let seconds = took.as_secs_f64();
        let name = &self.name;
        supervisor::notice(&format!(
            "{name}: full sync done at lsn {lsn}: {items} items, {bytes} bytes in {seconds:.1} s"
        ));
    }

    /// The server has come to this change.
    pub(super) fn note_head(&mut self, lsn: u64, now: Moment) {
        self.figures.head = self.figures.head.max(lsn);
        self.lag.note_head(lsn, self.figures.confirmed, now.at);
    }

    /// The guard lets a server replace what the peer holds, which has so many items.
    pub(super) fn note_permission(&self, items: u64) {
        if self.figures.is_guarded {
            let held = self.peer.items.unwrap_or(0);
            let name = &self.name;
            log::warn!("{name}: no longer left as it is: its {held} items are replaced by the server's {items}");
        }
    }

    /// The connection cannot be used. A socket that is not there is no news while the server may be starting.
    pub(super) fn note_trouble(&mut self, trouble: Trouble, now: Duration) {
        let figures = &mut self.figures;
        let is_broken = matches!(trouble, Trouble::Broken(_) | Trouble::Absent(_));
        *if is_broken { &mut figures.breaks } else { &mut figures.refusals } += 1;
        let is_guarded = matches!(trouble, Trouble::Guarded(_));
        let is_absent = matches!(trouble, Trouble::Absent(_));
        let since = *self.absent_since.get_or_insert(now);
        self.absent_since = self.absent_since.filter(|_| is_absent);
        let (is_starting, was_unsaid) = (is_absent && now < since + ABSENT_MAX, self.is_unsaid);
        (self.trouble_at, self.is_unsaid) = (now, is_starting);
        let text = trouble.text();
        // A reason of the guard has numbers in it that change each time.
        let is_known = text == figures.trouble && !was_unsaid || is_guarded && figures.is_guarded;
        if is_known || is_starting {
            log::debug!("{}: {text}", self.name);
        } else {
            log::warn!("{}: {text}", self.name);
        }
        (figures.trouble, figures.is_guarded, figures.is_upstream) = (text, is_guarded, false);
    }

    /// The figures of now, when it is in this phase.
    pub(super) fn figures(&mut self, phase: PeerPhase, now: Moment) -> &Figures {
        self.figures.phase = phase;
        self.figures.trouble_ago = now.at.saturating_sub(self.trouble_at);
        self.figures.error_ago = self.refused_at.map(|at| now.at.saturating_sub(at));
        if phase.is_streaming() {
            self.lag.observe(self.answers.is_owed(), now.at);
        }
        self.figures.lag = self.lag.figure(now.at);
        self.figures.identity.clone_from(&self.peer.identity);
        if let Some((at, bytes)) = self.sync_began {
            self.progress(now.at.saturating_sub(at), bytes);
        }
        &self.figures
    }

    /// What to write to the peer next, `limit` bytes at most.
    pub(super) fn output(&self, limit: usize) -> Vec<IoSlice<'_>> {
        // A memcached reads no further than a large value. What follows in the same TLS record, it looks at when more
        // comes, so our barrier comes in the next one.
        self.relay.slices(limit, self.is_over_tls && self.peer.is_stock)
    }

    fn tell(&mut self, line: &ReplicaLine<'_>, query: Query) {
        self.ask(format!("{line}\r\n").into_bytes(), Expect::Line(query));
    }

    fn ask_clock(&mut self, line: &ReplicaLine<'_>, query: Query) {
        self.awaits_clock = true;
        self.tell(line, query);
    }

    fn ask(&mut self, command: impl Into<Cow<'static, [u8]>>, expect: Expect<Barrier>) {
        self.relay.add(command);
        self.answers.expect(expect, self.figures.sent_bytes + self.relay.pending() as u64);
    }

    // ---- what the peer answers ----

    /// Takes a line of the peer; `run` is the server's. An error is why the connection cannot be used.
    pub(super) fn take(&mut self, line: &[u8], run: &str, now: Moment) -> Result<Answered, Trouble> {
        match self.answers.take(line) {
            Answer::Confirmed(barrier) => return Ok(Answered::Confirmed(barrier)),
            Answer::Line(query, line) => return self.take_answer(query, line, run, now),
            Answer::StatsEnd(is_good) => {
                if is_good && self.peer.is_stock && self.peer.complete() {
                    let told = self.peer.time.saturating_mul(1000);
                    self.sample_clocks(Grain::Second, self.stats_asked, (told, told), now);
                }
                return Ok(Answered::Stats(is_good));
            }
            Answer::Stat(name, value) => self.peer.learn(name, value),
            Answer::Error(line) => self.take_refusal(line, now),
            Answer::Nothing => {}
        }
        Ok(Answered::Nothing)
    }

    fn take_refusal(&mut self, line: &[u8], now: Moment) {
        // A peer that is full answers every change in the same way.
        self.figures.errors += 1;
        self.figures.lacking = None;
        if self.said_refused.is_none_or(|(at, _)| now.at >= at + REFUSED_EVERY) {
            let more = self.figures.errors - self.said_refused.map_or(0, |(_, errors)| errors);
            let changes = if more == 1 { "a change".to_owned() } else { format!("{more} changes") };
            log::warn!("{}: the peer does not take {changes}: {}", self.name, line.escape_ascii());
            self.said_refused = Some((now.at, self.figures.errors));
        }
        self.figures.error = shown(line);
        self.refused_at = Some(now.at);
        self.lacks_some = true;
    }

    fn take_answer(&mut self, query: Query, line: &[u8], run: &str, now: Moment) -> Result<Answered, Trouble> {
        let text = shown(line);
        let needs = |command, version| {
            let text = format!("the peer answers `{text}` to `{command}`: memcached {version} or later is needed");
            Err(Trouble::Refused(text))
        };
        match query {
            Query::Hello if line != b"MN" => return needs("mn", "1.6"),
            Query::Who(asked) => self.take_who(&text, asked, run, now)?,
            Query::ReplicaFrom(asked) => {
                let Some(peer) = Introduction::parse(&text) else { return Err(refused(&text)) };
                if peer.run != self.peer.identity {
                    return Err(Trouble::Broken("the peer has become another one".to_owned()));
                }
                self.sample_clocks(Grain::Millisecond, asked, (peer.told_ms, peer.unix_ms), now);
                self.from_answered = now.at;
                return Ok(Answered::Announced);
            }
            Query::Version => self.figures.kind = format!("memcached {}", text.trim_start_matches("VERSION ")),
            Query::Probe if text.starts_with("CLIENT_ERROR") || text.starts_with("ERROR") => {
                return needs("ms", "1.6.10");
            }
            Query::TakesCas if !self.cas.asked(line) => self.figures.kind.push_str(" without cas"),
            Query::CasStored => self.cas.stored(line),
            Query::CasKept if !self.cas.taken_away(line, &self.peer.identity) => {
                let text = "the peer drops items by their cas after flush_all: it is sent them without, from the start";
                return Err(Trouble::Broken(text.to_owned()));
            }
            Query::Key if text != "OK" => {
                // It may not have been told of this epoch yet.
                return Err(Trouble::Broken(format!("the peer answers `{text}` to the shard's key")));
            }
            Query::Begin | Query::Progress | Query::End if text != "OK" => {
                let what = if self.peer.is_stock { "flush_all" } else { "replica begin, sent, or end" };
                return Err(Trouble::Refused(format!("the peer answers `{text}` to {what}")));
            }
            Query::Hello | Query::Key | Query::Begin | Query::Progress | Query::End | Query::Probe => {}
            Query::TakesCas | Query::CasKept | Query::Any => {}
        }
        Ok(Answered::Nothing)
    }

    /// The answer to `replica who`: an introduction of a twincached, `ERROR` of a stock memcached.
    fn take_who(&mut self, text: &str, asked: AskedAt, run: &str, now: Moment) -> Result<(), Trouble> {
        match Introduction::parse(text) {
            Some(peer) if peer.run == run => {
                return Err(Trouble::Refused("the peer is the server itself".to_owned()));
            }
            Some(peer) => {
                self.wall.resume(Grain::Millisecond);
                self.peer = PeerInfo::twincached(peer.run);
                self.sample_clocks(Grain::Millisecond, asked, (peer.told_ms, peer.unix_ms), now);
                self.figures.kind = "twincached".to_owned();
            }
            None if text == "ERROR" => {
                self.wall.resume(Grain::Second);
                self.peer = PeerInfo::stock();
                // This replaces an item that is not there, so that the peer's items stay as they are.
                self.ask(b"ms twincache.probe 2 MR T-1\r\nok\r\n".as_slice(), Expect::Line(Query::Probe));
                self.ask(peer_cas::TAKES_CAS, Expect::Line(Query::TakesCas));
            }
            None => return Err(refused(text)),
        }
        self.ask_stats(now);
        Ok(())
    }

    /// Takes what the peer tells of its clocks: the one by which it takes expiries, and its wall clock.
    fn sample_clocks(&mut self, grain: Grain, asked: AskedAt, (told, wall): (i64, i64), now: Moment) {
        self.awaits_clock = false;
        self.clock.sample(&self.peer.identity, grain, (asked.boot_ms, told, now.boot_ms));
        if self.wall.sample(asked.unix_ms, wall, now.unix_ms) {
            note_change(&self.name, "peer", &self.wall);
        }
        (self.figures.clock, self.figures.clock_is_off) = (self.wall.bounds(), self.wall.is_off());
    }

    /// Takes what the server has said of its wall clock.
    pub(super) fn sample_server(&mut self, told: i64, now: Moment) {
        // When the server is not read at once, its words say how late we are, and not what time it is there.
        if self.relay.pending() > 0 {
            return;
        }
        if self.server_wall.sample(now.unix_ms - SAID_WITHIN, told, now.unix_ms) {
            note_change(&self.name, "server", &self.server_wall);
        }
        let figures = &mut self.figures;
        (figures.server_clock, figures.server_clock_is_off) = (self.server_wall.bounds(), self.server_wall.is_off());
    }
}

fn note_change(name: &str, whose: &str, wall: &ClockSkew) {
    match wall.bounds().filter(|_| wall.is_off()) {
        Some(bounds) => {
            let (low, high) = (bounds.low, bounds.high);
            log::warn!("{name}: the {whose}'s wall clock is {low} to {high} ms ahead of this machine's");
        }
        None => log::info!("{name}: the {whose}'s wall clock is right again"),
    }
}

fn asked(now: Moment) -> AskedAt {
    AskedAt { unix_ms: now.unix_ms, boot_ms: now.boot_ms }
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN_MAX)]).into_owned()
}

fn refused(text: &str) -> Trouble {
    Trouble::Refused(format!("the peer refuses: {text}"))
}
