//! The connections of a worker whose replies wait for replicas: who begins to wait, and who waits no more.
//!
//! ```text
//!   After::WaitForAcks ── hold ──> AckQueue ── release_waiting: safe, refused or late ──> a turn
//! ```
//!
//! Not here: what waits, and in which order (`reply_hold`).

use super::Worker;
use crate::io::stream::Stream;
use crate::net::conn::Connection;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a turn goes on with those whose replies wait no more; the next poll does not wait while there are others.
const RELEASES: Duration = Duration::from_micros(200);

impl Worker {
    #[cold]
    pub(super) fn hold(&mut self, key: usize) {
        let connection = &mut self.clients[key].connection;
        connection.withhold(self.meter.withhold());
        let (Some(ack), replies) = (connection.waits_for(), connection.waiting_replies()) else { return };
        self.counters.replies_held.add(replies);
        self.shared.stats.replies_waiting.fetch_add(replies, Ordering::Relaxed);
        self.waiting.push(ack, key);
    }

    /// Gives those a turn whose replies wait no more.
    pub(super) fn release_waiting(&mut self) {
        if !self.waiting.is_empty() {
            self.release_safe();
            self.give_up_expired();
            self.ack_waker.wait_for(None);
        }
    }

    #[cold]
    fn release_safe(&mut self) {
        let shared = self.shared.clone();
        let acks = shared.store.journal().acks();
        let is_refused = |lsn| !shared.config.ack_degrade && acks.is_refused(lsn);
        let safe = acks.replicated_lsn();
        let end = self.meter.elapsed() + RELEASES;
        while self.meter.elapsed() <= end
            && let Some(key) = self.waiting.pop_safe(safe)
        {
            let counters = self.counters.clone();
            // Before they are written: who has read one may ask another worker how many there were.
            self.let_go(key, |connection| counters.replies_refused.add(connection.release_but(is_refused).replies));
        }
    }

    #[cold]
    fn give_up_expired(&mut self) {
        let (now, safe) = (Instant::now(), self.shared.store.journal().acks().replicated_lsn());
        // What is safe may still be here, late or not: see `RELEASES`.
        if self.waiting.first().is_none_or(|ack| !ack.is_late(now, safe)) {
            return;
        }
        let shared = self.shared.clone();
        let acks = shared.store.journal().acks();
        if shared.config.ack_degrade {
            acks.degrade(shared.store.journal().lsn());
            return self.release_safe();
        }
        let is_missing = |lsn| lsn > safe || acks.is_refused(lsn);
        let end = self.meter.elapsed() + RELEASES;
        while self.meter.elapsed() <= end
            && let Some(key) = self.waiting.pop_expired(now, safe)
        {
            let counters = self.counters.clone();
            self.let_go(key, |connection| counters.replies_timed_out.add(connection.release_but(is_missing).replies));
        }
    }

    /// Lets go of the replies of a connection that is in the queue no more, and gives it its turn.
    fn let_go<R>(&mut self, key: usize, how: impl FnOnce(&mut Connection<Stream>) -> R) -> R {
        let connection = &mut self.clients[key].connection;
        self.shared.stats.replies_waiting.fetch_sub(connection.waiting_replies(), Ordering::Relaxed);
        let (withheld, result) = (connection.withheld(), how(connection));
        self.turn(key, false);
        self.meter.look();
        withheld.iter().for_each(|withheld| self.meter.end_withheld(withheld));
        result
    }
}
