//! How the server's threads are told to end.

use std::sync::atomic::{AtomicU8, Ordering};

/// Whether the server's threads are to go on.
#[derive(Debug, Default)]
pub(super) struct Stop(AtomicU8);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopMode {
    Run,
    Now,
    Graceful,
}

impl Stop {
    pub(super) fn mode(&self) -> StopMode {
        match self.0.load(Ordering::Relaxed) {
            0 => StopMode::Run,
            1 => StopMode::Now,
            _ => StopMode::Graceful,
        }
    }

    pub(super) fn set(&self, mode: StopMode) {
        self.0.store(mode as u8, Ordering::Relaxed);
    }
}
