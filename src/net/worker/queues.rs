//! Connections that wait for their turns: those who ask for little, and then those who ask for much.
//!
//! Not here: what a turn does (`conn`), who has one at once (`worker`).

use super::batch::ReadBatch;
use super::{LONG_EVERY, TURN, Worker};
use std::time::Instant;

impl Worker {
    pub(super) fn enqueue(&mut self, key: usize, since: Instant) {
        let client = &mut self.clients[key];
        // It is there already if it waited, had an event late in a turn, and was let go in the same.
        if !std::mem::replace(&mut client.queued, true) {
            self.ready.push_back((key, since));
        }
    }

    pub(super) fn enqueue_long(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if !std::mem::replace(&mut client.queued, true) {
            self.long.push_back((key, Instant::now()));
        }
    }

    /// What was read is not a request's, or not yet.
    #[cold]
    pub(super) fn come_to_nothing(&mut self, key: usize) {
        if self.account(key) && self.clients[key].connection.socket().is_readable() {
            self.enqueue_long(key);
        }
    }

    /// Keeps what a member of a batch has sent for which there was no time.
    #[cold]
    pub(super) fn postpone(&mut self, key: usize, input: &[u8]) {
        let client = &mut self.clients[key];
        client.connection.keep_input(input, &self.counters, &self.meter);
        self.meter.discount();
        if self.account(key) {
            self.enqueue(key, self.meter.since());
        }
    }

    /// Serves the connections that are in the queue, as far as there is time.
    pub(super) fn run_ready(&mut self, reads: &mut ReadBatch) {
        let Some(&(_, oldest)) = self.ready.front() else { return };
        let polled = self.meter.set_since(oldest);
        for _ in 0..self.ready.len() {
            let Some((key, _)) = self.ready.pop_front() else { break };
            if self.is_next(key) {
                self.serve(key, reads, false);
            } else {
                self.resume_udp(key);
            }
            if self.meter.is_longer_than(TURN) {
                break;
            }
        }
        self.answer_batch(reads);
        self.meter.look();
        self.meter.set_since(polled);
    }

    /// Serves those who ask for much, one at least, unless there are others and it is not long ago.
    pub(super) fn run_long(&mut self, reads: &mut ReadBatch, are_there_others: bool) {
        let now = self.meter.since() + self.meter.elapsed();
        if (are_there_others || !self.ready.is_empty()) && now.saturating_duration_since(self.long_at) < LONG_EVERY {
            return;
        }
        let Some(&(_, oldest)) = self.long.front() else { return };
        let until = self.meter.elapsed() + TURN;
        self.crowd = 0;
        let polled = self.meter.set_since(oldest);
        for _ in 0..self.long.len() {
            let Some((key, _)) = self.long.pop_front() else { break };
            if self.is_next(key) {
                self.serve(key, reads, true);
            }
            if self.meter.elapsed() > until {
                break;
            }
        }
        self.answer_batch(reads);
        self.meter.look();
        self.meter.set_since(polled);
        self.long_at = now;
    }

    /// Takes a connection out of its queue, unless its slot has changed hands meanwhile.
    fn is_next(&mut self, key: usize) -> bool {
        self.clients.get_mut(key).is_some_and(|client| std::mem::take(&mut client.queued))
    }
}
