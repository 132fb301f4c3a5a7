//! What the server's threads are told: to end, or to show that they turn.
//!
//! ```text
//! who watches   asked = 7, and wakes every thread
//! event loop    poll returns ─> shown = asked ─> serves …          a loop that hangs shows nothing
//! who watches   every shown == 7?
//! ```
//!
//! Not here: how threads are woken ([`super::Server`]).

use crate::sync::lock;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// What all threads of a server are told.
#[derive(Debug, Default)]
pub(super) struct Stop {
    mode: AtomicU8,
    /// How often somebody has asked whether the event loops turn.
    asked: AtomicU32,
    /// What `asked` was when each event loop turned last.
    shown: Mutex<Vec<Arc<AtomicU32>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopMode {
    Run,
    Now,
    Graceful,
}

impl Stop {
    fn mode(&self) -> StopMode {
        match self.mode.load(Ordering::Relaxed) {
            0 => StopMode::Run,
            1 => StopMode::Now,
            _ => StopMode::Graceful,
        }
    }

    pub(super) fn set(&self, mode: StopMode) {
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// Asks every event loop to show that it turns.
    pub(super) fn ask(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether every event loop has turned since.
    pub(super) fn all_turned(&self) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        lock(&self.shown).iter().all(|shown| shown.load(Ordering::Relaxed) == asked)
    }
}

/// What one event loop is told, and what it has shown.
#[derive(Debug)]
pub(super) struct Orders {
    stop: Arc<Stop>,
    shown: Arc<AtomicU32>,
}

impl Orders {
    pub(super) fn new(stop: Arc<Stop>) -> Orders {
        let shown = Arc::new(AtomicU32::new(stop.asked.load(Ordering::Relaxed)));
        lock(&stop.shown).push(shown.clone());
        Orders { stop, shown }
    }

    /// Whether to go on. An event loop calls this once for each return of poll, and shows by it that it turns.
    #[inline]
    pub(super) fn mode(&self) -> StopMode {
        let asked = self.stop.asked.load(Ordering::Relaxed);
        // The server's threads read `stop` in every turn, so it is written to only when there is something to say.
        if asked != self.shown.load(Ordering::Relaxed) {
            self.shown.store(asked, Ordering::Relaxed);
        }
        self.stop.mode()
    }
}
