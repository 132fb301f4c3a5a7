//! How fast a dump or a load goes, and what the operator sees of it.
//!
//! ```text
//!   moved(bytes) ──> sleeps as long as the limit wants it
//!   shown(items) ──> twice a second, on a terminal:   34567 of about 1000000 items, 12.3 MB, 5.1 MB/s
//! ```
//!
//! Not here: what is moved.

use super::dial::Dialed;
use super::exit::CtlExit;
use super::options::DialOptions;
use std::io::{IsTerminal, Write};
use std::thread;
use std::time::{Duration, Instant};

/// How often the line is written again.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

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
    /// About so many items are there, as far as that is known.
    pub total: Option<u64>,
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

    /// Says how far it is, if it is time and somebody looks.
    pub(super) fn shown(&mut self, items: u64) {
        let now = Instant::now();
        if !self.is_seen || self.shown.is_some_and(|last| now < last + SHOWN_EVERY) {
            return;
        }
        self.shown = Some(now);
        let of = self.total.map_or(String::new(), |total| format!(" of about {total}"));
        let _ = write!(std::io::stderr(), "\r{items}{of} items, {}\x1b[K", self.volume());
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
