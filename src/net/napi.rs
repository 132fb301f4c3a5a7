//! Which worker serves what comes from which receive queue of a network card (`-N`).
//!
//! ```text
//!  an accepted socket's NAPI id ── 0: a loopback, a Unix socket ──────────> the next worker in turn
//!                                ── one that a worker has ────────────────> that worker
//!                                ── a new one ── a worker has none yet ───> that worker, from now on
//!                                             └─ all have one ────────────> all are forgotten: worker 0
//! ```
//!
//! So with as many queues as workers, and each queue's interrupts on its worker's CPU, what a client sends stays on one
//! CPU from the card to the reply. The rules are memcached's.
//!
//! Invariant: no id is in the list twice, and there are no more of them than workers.
//!
//! Not here: the turns (`admission`).

use crate::stats::Registry;
use std::sync::atomic::Ordering;

/// NAPI ids, each at the number of its worker.
#[derive(Debug)]
pub(super) struct NapiIds {
    ids: Vec<u32>,
    workers: usize,
}

impl NapiIds {
    /// None yet, of so many workers.
    pub(super) fn new(workers: usize) -> NapiIds {
        NapiIds { ids: Vec::with_capacity(workers), workers }
    }

    /// The worker for what has this id; none for 0, which is no queue's.
    pub(super) fn worker(&mut self, id: u32, stats: &Registry) -> Option<usize> {
        if id == 0 {
            stats.round_robin_fallback.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        if let Some(worker) = self.ids.iter().position(|&known| known == id) {
            return Some(worker);
        }
        if self.ids.len() == self.workers {
            // The card has been set up anew, or has more queues than there are workers.
            stats.unexpected_napi_ids.fetch_add(1, Ordering::Relaxed);
            self.ids.clear();
        }
        self.ids.push(id);
        Some(self.ids.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_has_its_worker_until_there_are_too_many() {
        let (stats, mut ids) = (Registry::default(), NapiIds::new(3));
        let counts = |stats: &Registry| {
            let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
            (of(&stats.round_robin_fallback), of(&stats.unexpected_napi_ids))
        };
        assert_eq!(
            [8, 9, 8, 0, 10, 9].map(|id| ids.worker(id, &stats)),
            [Some(0), Some(1), Some(0), None, Some(2), Some(1)]
        );
        assert_eq!(counts(&stats), (1, 0));
        assert_eq!([11, 10, 11, 8].map(|id| ids.worker(id, &stats)), [Some(0), Some(1), Some(0), Some(2)]);
        assert_eq!(counts(&stats), (1, 1));
        stats.reset();
        assert_eq!(counts(&stats), (0, 0));
    }
}
