//! What a standby knows of its copy: from whom it is, whether it is whole, and how far a full sync has come.
//!
//! ```text
//!   none ── begin ──> partial ── end ──> whole <── caught up ── overtaken
//!                        ^                 │ └───── overtaken ──────^
//!                        └───── begin ─────┴────────────────────────┘
//! ```
//!
//! Only the end of a full sync makes a partial copy whole. When the feeder dies in the middle, or its sidecar starts
//! anew, the copy stays partial until a full sync has ended. Numbers of items are the feeder's, which counts what it has
//! sent: the standby would count changes, too. Whole is the copy up to the feeder's last word, not for all time.
//!
//! Not here: who may say such things (`sources`, `role`), dropping what was not sent again (`journal::flush`).

use crate::sync::lock;
use crate::sys::cpu::time_since_boot;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How much of the feeder's items is here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyState {
    /// No full sync has begun since the start.
    #[default]
    None,
    /// A full sync has begun and not ended.
    Partial,
    /// Everything is here, up to the feeder's last word.
    Whole,
    /// It was whole, but the feeder's journal has gone past: some changes are missing, and are being sent again.
    Overtaken,
}

/// How far a full sync has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncProgress {
    /// Items that were sent.
    pub items: u64,
    /// Items that there were to send when it began.
    pub expected: u64,
    /// Bytes that were sent, of items and of changes.
    pub bytes: u64,
}

/// What is known of the copy. See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyStatus {
    /// How much is here.
    pub state: CopyState,
    /// The run that fed this server last, 0 none, and the address of the connection.
    pub run_id: u64,
    /// See `run_id`.
    pub address: String,
    /// Everything of that run up to this lsn is here, when the copy is whole: as the feeder says, now and then.
    pub lsn: u64,
    /// Of the full sync that goes on, or of the last.
    pub progress: SyncProgress,
    /// Full syncs begun and ended.
    pub syncs: u64,
    /// See `syncs`.
    pub syncs_ended: u64,
    /// How long ago the feeder said something. None: it never did.
    pub silent: Option<Duration>,
    /// How long the last full sync took that has ended.
    pub took: Duration,
    /// When the last full sync began, since boot.
    began: Duration,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Copied {
    status: Mutex<CopyStatus>,
    /// Milliseconds since boot when the feeder last said something, 0 never.
    heard: AtomicU64,
}

impl SyncProgress {
    /// Which part of the items was sent, of a hundred. Some may have gone meanwhile, so this need not come to 100.
    pub fn percent(&self) -> u64 {
        (self.items.saturating_mul(100)).checked_div(self.expected).map_or(100, |percent| percent.min(100))
    }
}

impl CopyState {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            CopyState::None => "none",
            CopyState::Partial => "partial",
            CopyState::Whole => "whole",
            CopyState::Overtaken => "overtaken",
        }
    }
}

impl Copied {
    /// What is known now.
    pub fn status(&self) -> CopyStatus {
        let heard = self.heard.load(Ordering::Relaxed);
        let silent = (heard > 0).then(|| time_since_boot().saturating_sub(Duration::from_millis(heard)));
        CopyStatus { silent, ..lock(&self.status).clone() }
    }

    /// The feeder has said something.
    pub fn heard(&self) {
        self.heard.store(time_since_boot().as_millis() as u64, Ordering::Relaxed);
    }

    /// A connection from this address brings the changes of this run from now on.
    pub(super) fn fed_by(&self, run_id: u64, address: String) {
        let mut status = lock(&self.status);
        (status.run_id, status.address) = (run_id, address);
    }

    /// A full sync of so many items begins.
    pub(super) fn begin(&self, expected: u64) {
        let mut status = lock(&self.status);
        (status.state, status.lsn) = (CopyState::Partial, 0);
        status.progress = SyncProgress { expected, ..SyncProgress::default() };
        status.syncs += 1;
        status.began = time_since_boot();
    }

    /// So much of it has been sent.
    pub(super) fn sent(&self, items: u64, bytes: u64) {
        let mut status = lock(&self.status);
        if status.state == CopyState::Partial {
            (status.progress.items, status.progress.bytes) = (items, bytes);
        }
    }

    /// Everything of the feeder's run up to here is here, if the copy is whole.
    pub(super) fn at(&self, lsn: u64) {
        let mut status = lock(&self.status);
        if status.state == CopyState::Whole {
            status.lsn = lsn;
        }
    }

    /// It has ended.
    pub(super) fn end(&self) {
        let mut status = lock(&self.status);
        status.state = CopyState::Whole;
        status.syncs_ended += 1;
        status.took = time_since_boot().saturating_sub(status.began);
    }

    /// All items were dropped: there is no copy.
    pub(super) fn dropped(&self) {
        let mut status = lock(&self.status);
        (status.state, status.lsn, status.progress) = (CopyState::None, 0, SyncProgress::default());
    }

    /// Changes were lost, or what was lost has been sent again.
    pub(super) fn overtaken(&self, is_overtaken: bool) {
        let mut status = lock(&self.status);
        status.state = match (status.state, is_overtaken) {
            (CopyState::Whole, true) => CopyState::Overtaken,
            (CopyState::Overtaken, false) => CopyState::Whole,
            (state, _) => state,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_full_sync_makes_it_whole() {
        let copied = Copied::default();
        let is = |state| assert_eq!(copied.status().state, state);
        is(CopyState::None);
        assert_eq!(copied.status().silent, None);
        copied.overtaken(true);
        copied.overtaken(false);
        is(CopyState::None);
        copied.fed_by(7, "1.2.3.4:5".to_owned());
        copied.heard();
        copied.begin(200);
        copied.sent(50, 1000);
        // The feeder dies here, and another sidecar goes on.
        copied.fed_by(7, "1.2.3.4:6".to_owned());
        copied.overtaken(true);
        copied.overtaken(false);
        is(CopyState::Partial);
        let status = copied.status();
        assert_eq!((status.progress.percent(), status.progress.items, status.syncs), (25, 50, 1));
        assert_eq!((status.run_id, status.address.as_str()), (7, "1.2.3.4:6"));
        assert!(status.silent.is_some_and(|silent| silent < Duration::from_secs(60)));
        copied.begin(0);
        copied.end();
        is(CopyState::Whole);
        assert_eq!((copied.status().progress.percent(), copied.status().syncs_ended), (100, 1));
        copied.sent(7, 7);
        assert_eq!(copied.status().progress.items, 0, "it has ended");
        copied.at(77);
        assert_eq!(copied.status().lsn, 77);
        copied.begin(9);
        copied.at(78);
        assert_eq!(copied.status().lsn, 0, "of a part nobody can say up to where it goes");
        copied.end();
        copied.overtaken(true);
        is(CopyState::Overtaken);
        copied.overtaken(false);
        is(CopyState::Whole);
        copied.dropped();
        is(CopyState::None);
    }
}
