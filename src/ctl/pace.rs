//! How fast a dump or a load goes, and what the operator sees of it.
//!
//! ```text
//!   moved(bytes) ──> sleeps as long as the limit wants it
//!   shown ──> twice a second, on a terminal:   34567 of about 1000000 items, 12.3 MB, 5.1 MB/s, 35 s left
//!                                              34567 items, 12.3 MB, 5.1 MB/s, 43 %, 35 s left
//! ```
//!
//! Not here: what is moved.

use super::dial::Dialed;
use super::exit::CtlExit;
use super::options::DialOptions;
use super::table::scaled;
use crate::sys::stderr;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

/// How often the line is written again.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// What is left takes as long as it would at the rate of this time.
const RATE_OVER: Duration = Duration::from_secs(10);

/// What may be caught up after a pause that others caused: more would make a burst.
const BURST: Duration = Duration::from_millis(100);

/// From where or to where items are moved.
#[derive(Debug)]
pub(super) struct MovedServer<'o> {
    /// As it was typed.
    pub server: &'o str,
    pub dial: &'o DialOptions,
    /// Most megabits a second.
    pub limit_megabits: Option<u64>,
}

impl MovedServer<'_> {
    pub(super) fn dial(&self) -> Result<Dialed, CtlExit> {
        Dialed::to(self.server, self.dial)
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct MovePace {
    /// Bytes a second, or no limit.
    limit: Option<u64>,
    /// When what was moved so far may have been moved.
    due: Instant,
    began: Instant,
    shown: Option<Instant>,
    is_seen: bool,
    /// Bytes so far.
    pub bytes: u64,
    /// All that is to be done, as far as that is known.
    pub total: Option<MoveTotal>,
    /// How much had been done, and when, the latest last.
    recent: VecDeque<(Instant, u64)>,
}

/// What is counted from nothing to the end.
#[derive(Clone, Copy, Debug)]
pub(super) enum MoveTotal {
    /// About so many items.
    Items(u64),
    /// So many bytes of a file.
    Bytes(u64),
}

impl MovePace {
    /// Begins, with a limit in megabits a second.
    pub(super) fn new(limit_megabits: Option<u64>) -> MovePace {
        let now = Instant::now();
        let limit = limit_megabits.map(|megabits| megabits.saturating_mul(125_000).max(1));
        MovePace {
            limit,
            due: now,
            began: now,
            shown: None,
            is_seen: std::io::stderr().is_terminal(),
            bytes: 0,
            total: None,
            recent: VecDeque::new(),
        }
    }

    /// Counts bytes, and waits if they came too early.
    pub(super) fn moved(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let Some(limit) = self.limit else { return };
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        self.due = self.due.max(earliest) + Duration::from_secs_f64(bytes as f64 / limit as f64);
        thread::sleep(self.due.saturating_duration_since(now));
    }

    /// Says how far it is, if it is time and somebody looks: so many items, and so much of the total.
    pub(super) fn shown(&mut self, items: u64, done: u64) {
        let now = Instant::now();
        if !self.is_seen || self.shown.is_some_and(|last| now < last + SHOWN_EVERY) {
            return;
        }
        self.shown = Some(now);
        let line = self.line(items, done, now);
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", stderr::fitting(&line));
    }

    fn line(&mut self, items: u64, done: u64, now: Instant) -> String {
        let left = self.left(done, now).map_or(String::new(), |left| {
            format!(", {} left", scaled(left.as_secs_f64().ceil(), 60.0, &["s", "min", "h"]))
        });
        match self.total {
            Some(MoveTotal::Items(total)) => format!("{items} of about {total} items, {}{left}", self.volume()),
            Some(MoveTotal::Bytes(total)) => {
                let percent = done.min(total) as f64 / total.max(1) as f64 * 100.0;
                format!("{items} items, {}, {} %{left}", self.volume(), percent.floor())
            }
            None => format!("{items} items, {}", self.volume()),
        }
    }

    /// What the rest takes at the rate of the last seconds.
    fn left(&mut self, done: u64, now: Instant) -> Option<Duration> {
        let (MoveTotal::Items(total) | MoveTotal::Bytes(total)) = self.total?;
        while self.recent.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= RATE_OVER) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, done));
        let (began, before) = *self.recent.front()?;
        let rate = done.saturating_sub(before) as f64 / now.saturating_duration_since(began).as_secs_f64();
        let left = total.saturating_sub(done) as f64 / rate;
        // Nothing was done yet, or next to nothing.
        Duration::try_from_secs_f64(left).ok()
    }

    /// Takes the line away.
    pub(super) fn end(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }

    /// Bytes, and bytes a second.
    pub(super) fn volume(&self) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        format!("{:.1} MB, {:.1} MB/s", self.bytes as f64 / 1e6, self.bytes as f64 / 1e6 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_by_the_last_seconds() {
        let mut pace = MovePace::new(None);
        let start = Instant::now();
        let mut line = |total, done, seconds| {
            pace.total = total;
            let line = pace.line(7, done, start + Duration::from_secs(seconds));
            line.split("MB/s").nth(1).unwrap().to_owned()
        };
        let items = Some(MoveTotal::Items(2000));
        assert_eq!(line(items, 0, 0), "");
        assert_eq!(line(items, 100, 1), ", 19 s left");
        assert_eq!(line(items, 100, 2), ", 38 s left");
        assert_eq!(line(items, 110, 20), ", 56.7 min left", "the first second is long ago");
        assert_eq!(line(items, 2005, 21), ", 0 s left", "more than was thought");
        assert_eq!(line(None, 2005, 21), "");
        assert_eq!(line(Some(MoveTotal::Bytes(4010)), 2005, 21), ", 50 %, 20 s left");
        assert_eq!(line(Some(MoveTotal::Bytes(0)), 2005, 40), ", 0 %");
    }
}
