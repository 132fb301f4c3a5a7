//! What a worker does for its clients when its server ends.
//!
//! Not here: when that is (`stop`).

use super::batch::ReadBatch;
use super::{EVENTS, Worker};
use crate::net::conn::buffer::Sent;
use mio::Events;
use std::time::Instant;

impl Worker {
    /// Runs the requests that have been read, and waits a moment for those who are slow to take their replies and
    /// for replicas. What is not safe then is not answered.
    pub(super) fn finish(mut self, mut reads: ReadBatch) {
        let end = Instant::now() + self.shared.config.stop_grace;
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.meter.begin(false, false);
            self.reply_hold.begin_loop(self.shared.store.journal().acks(), || self.meter.began());
            self.release_waiting();
            self.run_ready(&mut reads);
            self.feed_hungry();
            self.run_large(false);
            self.run_long(&mut reads, false);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || (!self.has_queues() && self.hungry.is_empty() && self.flush_pending()) {
                return;
            }
            let timeout = self.timeout().map_or(left, |timeout| timeout.min(left));
            if self.poll.poll(&mut events, Some(timeout)).is_err() {
                return;
            }
            for event in &events {
                if let Some(client) = self.clients.get_mut(event.token().0) {
                    client.connection.socket().note(event.into());
                }
            }
        }
    }

    /// Whether all replies have gone.
    pub(super) fn flush_pending(&mut self) -> bool {
        let (mut is_done, now) = (true, self.shared.clock.now());
        for (_, client) in &mut self.clients {
            is_done &= client.connection.flush_pending(&self.counters, self.voice.as_ref(), now) != Sent::Blocked;
        }
        is_done
    }
}
