//! What the peer answers, and who it is.
//!
//! ```text
//!   mn, version, replica who, stats ─> Peer: its identity, what it holds ─> settling, then the guard
//!   MN of a barrier ─> confirmed: ack <lsn>, or refuse <lsn> when a change before it was answered with an error
//! ```
//!
//! Not here: the states (`pump`), the lines (`answers`).

use super::{Mark, Now, Pump, Resume, SETTLE, Stage, State, Trouble};
use crate::sidecar::link::answers::{Answer, Ask, Expect};
use crate::sidecar::link::clock_skew::Grain;
use crate::sidecar::observe::figures::Phase;
use crate::sidecar::wire;

/// Who the peer is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    pub(crate) identity: String,
    pub(crate) is_stock: bool,
    pid: String,
    time: i64,
    uptime: i64,
    pub(crate) items: Option<u64>,
}

impl Pump {
    pub(super) fn take(&mut self, answer: Answer<Mark>, now: Now) {
        match answer {
            _ if self.is_draining() => {}
            Answer::Confirmed(mark) => self.confirm(mark),
            Answer::Line(ask, line) => self.take_line(ask, line, now),
            Answer::Stat(name, value) => self.peer.learn(name, value),
            Answer::StatsEnd(is_good) => self.take_stats(is_good, now),
            Answer::Error(line) => {
                // The first of each thousand: a peer that is full has the same to say of every change.
                if self.figures.errors.is_multiple_of(1000) {
                    log::warn!("{}: the peer does not take a change: {}", self.name, line.escape_ascii());
                }
                self.figures.errors += 1;
                self.figures.error = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
                self.error_at = Some(now.at);
                self.lacks_some = true;
            }
            Answer::Nothing => {}
        }
    }

    fn confirm(&mut self, mark: Mark) {
        self.back_off.reset();
        self.figures.barriers += 1;
        self.figures.confirmed = mark.lsn;
        self.figures.bytes_in_flight = self.figures.body_bytes - mark.bytes;
        while self.marks.front().is_some_and(|known| known.0 <= mark.lsn) {
            self.marks.pop_front();
        }
        if mark.ends_walk {
            log::info!("{}: full walk done at lsn {}", self.name, mark.lsn);
            self.figures.walks_finished += 1;
        }
        if mark.stage == Stage::Clean && mark.walks == self.figures.walks_started {
            match std::mem::take(&mut self.lacks_some) {
                true => (self.refuse_due, self.ack_due) = (Some(mark.lsn), None),
                false => self.ack_due = Some(mark.lsn),
            }
            if self.stage == Stage::Clean {
                self.stream = Phase::Streaming;
            }
            self.resume = Some(Resume { run: self.run.clone(), identity: self.peer.identity.clone(), lsn: mark.lsn });
        }
    }

    fn take_line(&mut self, ask: Ask, line: &[u8], now: Now) {
        let text = String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned();
        match ask {
            Ask::Hello if line == b"MN" => {}
            Ask::Hello => {
                let text = format!("the peer answers `{text}` to `mn`: memcached 1.6 or later is needed");
                self.fail(Trouble::Refused(text), now);
            }
            Ask::Who(asked) => self.take_who(&text, asked, now),
            Ask::ReplicaFrom(asked) => self.take_from(&text, asked, now),
            Ask::Version => self.figures.kind = format!("memcached {}", text.trim_start_matches("VERSION ")),
            Ask::Probe if text.starts_with("CLIENT_ERROR") || text.starts_with("ERROR") => {
                let text = format!("the peer answers `{text}` to `ms`: memcached 1.6.9 or later is needed");
                self.fail(Trouble::Refused(text), now);
            }
            Ask::Begin | Ask::End if text != "OK" => {
                let what = if self.peer.is_stock { "flush_all" } else { "replica begin or end" };
                self.fail(Trouble::Refused(format!("the peer answers `{text}` to {what}")), now);
            }
            Ask::Begin | Ask::End | Ask::Probe => {}
        }
    }

    /// The answer to `replica who`: `OK <run id> <unix ms>` of a twincached, `ERROR` of a stock memcached.
    fn take_who(&mut self, text: &str, asked: i64, now: Now) {
        match introduced(text) {
            Some((run, _)) if run == self.run => {
                return self.fail(Trouble::Refused("the peer is the server itself".to_owned()), now);
            }
            Some((run, told)) => {
                self.skew.resume(Grain::Millisecond);
                self.sample_clock(asked, told, now);
                self.peer = Peer { identity: run.to_owned(), ..Peer::default() };
                self.figures.kind = "twincached".to_owned();
            }
            None if text == "ERROR" => {
                self.skew.resume(Grain::Second);
                self.peer = Peer { is_stock: true, ..Peer::default() };
                // To replace what is not there: nothing stays, so that the peer's items are its own.
                self.ask(b"ms twincache.probe 2 MR T-1\r\nok\r\n".as_slice(), Expect::Line(Ask::Probe));
            }
            None => return self.refused(text, now),
        }
        self.ask_stats(now);
    }

    /// The answer to `replica from`, which is that to `replica who`.
    fn take_from(&mut self, text: &str, asked: i64, now: Now) {
        let Some((run, told)) = introduced(text) else { return self.refused(text, now) };
        if run != self.peer.identity {
            return self.fail(Trouble::Broken("the peer has become another one".to_owned()), now);
        }
        self.sample_clock(asked, told, now);
        self.from_answered = now.at;
        if self.state == State::Announcing {
            self.attach(now);
        }
    }

    fn refused(&mut self, text: &str, now: Now) {
        self.fail(Trouble::Refused(format!("the peer refuses: {text}")), now);
    }

    fn take_stats(&mut self, is_good: bool, now: Now) {
        match self.state {
            State::Meeting if is_good && self.peer.is_known() => {
                if self.peer.is_stock {
                    // Constant for as long as it runs: both numbers are made of the same one.
                    let started = self.peer.time.saturating_sub(self.peer.uptime);
                    self.peer.identity = format!("mc-{}-{started}", self.peer.pid);
                }
                self.state = State::Settling { until: now.at + SETTLE };
            }
            State::Meeting => {
                self.fail(
                    Trouble::Refused("the peer does not tell pid, time and curr_items by `stats`".to_owned()),
                    now,
                );
            }
            _ => {}
        }
        if is_good && self.peer.is_stock {
            self.sample_clock(self.stats_asked, self.peer.time.saturating_mul(1000), now);
        }
    }

    fn sample_clock(&mut self, asked: i64, told: i64, now: Now) {
        let has_changed = self.skew.sample(asked, told, now.unix_ms);
        (self.figures.clock, self.figures.clock_is_off) = (self.skew.bounds(), self.skew.is_off());
        let Some(bounds) = self.skew.bounds().filter(|_| has_changed) else { return };
        if self.skew.is_off() {
            let (low, high) = (bounds.low, bounds.high);
            log::warn!("{}: the peer's clock is off by {low} to {high} ms: expiry will be, too", self.name);
        } else {
            log::info!("{}: the peer's clock is right again", self.name);
        }
    }
}

impl Peer {
    /// Whether its statistics said what has to be known of it.
    fn is_known(&self) -> bool {
        self.time > 0 && self.items.is_some() && wire::is_word(&self.pid)
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

/// The run id and the time of `OK <run id> <unix ms>`.
fn introduced(text: &str) -> Option<(&str, i64)> {
    let (run, told) = text.strip_prefix("OK ")?.split_once(' ')?;
    Some((run, told.parse().ok()?)).filter(|_| wire::is_word(run))
}
