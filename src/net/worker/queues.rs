//! Connections that wait for their turns: those who ask for little, then those who move large values, then those who ask
//! for much.
//!
//! ```text
//!   a turn of the loop:   ready ──────> events ──────> large ──────> long
//!   its time, in us       400 together            50, 200 or 400    400, every 4 ms
//!                                                      `─ if a crowd waits, others, or nobody: a slice for one at least
//! ```
//!
//! Beside them are those who wait for memory or for their turn to copy (`hungry`), who get in the large line after that.
//!
//! Not here: what a turn does (`conn`), who has one at once (`worker`).

use super::batch::ReadBatch;
use super::{EVENTS, LONG_EVERY, TURN, Worker};
use crate::net::conn::turn::{LARGE, Quota, SLICE, Share, TURN_BYTES};
use crate::store::CopyPlace;
use std::time::Instant;

/// Bytes that the first turns of a crowd move together, half of [`LARGE`] for each at least: in 10 ms.
const FIRST_TURNS: usize = 8 << 20;

impl Worker {
    /// Shares the next turn of the loop among so many. This is remembered if nobody is in line.
    #[cold]
    pub(super) fn share(&mut self, crowd: usize) {
        let is_free = self.large.is_empty();
        let of_crowd = |bytes: usize| bytes / crowd.max(1);
        let room = match is_free {
            true => of_crowd(TURN_BYTES).max(of_crowd(FIRST_TURNS).clamp(LARGE / 2, LARGE)),
            false => LARGE / 2,
        };
        let quota = Quota::new(&self.shared.config, crowd).with_room(room);
        self.each = Share::new(quota, self.part_high.min(room), self.part_high);
        self.each_of = if is_free { crowd } else { usize::MAX };
    }

    pub(super) fn enqueue(&mut self, key: usize, since: Instant) {
        let client = &mut self.clients[key];
        // It is there already if it waited, had an event late in a turn, and was let go in the same.
        if !std::mem::replace(&mut client.queued, true) {
            self.ready.push_back((key, since));
        }
    }

    /// Whether anybody waits.
    pub(super) fn has_queues(&self) -> bool {
        !self.ready.is_empty() || !self.large.is_empty() || !self.long.is_empty()
    }

    pub(super) fn enqueue_large(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if !std::mem::replace(&mut client.queued, true) {
            self.large.push_back((key, Instant::now()));
        }
    }

    pub(super) fn enqueue_long(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if !std::mem::replace(&mut client.queued, true) {
            self.long.push_back((key, Instant::now()));
        }
    }

    pub(super) fn enqueue_hungry(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if !std::mem::replace(&mut client.queued, true) {
            self.hungry.push(key);
        }
    }

    /// Has one wait for its turn to copy, in the order of their places.
    pub(super) fn enqueue_copier(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if let Some(place) = client.connection.session().copy_place()
            && !std::mem::replace(&mut client.queued, true)
        {
            self.hungry.push_copier(key, place.number());
        }
    }

    /// Puts those in line who wait for memory, if some was made ready since the last time; and who may copy now.
    #[cold]
    pub(super) fn feed_hungry(&mut self) {
        if self.hungry.has_news(self.shared.store.memory_looks()) {
            while let Some(key) = self.hungry.pop() {
                if self.is_next(key) {
                    self.enqueue_large(key);
                }
            }
        }
        while let Some((number, key)) = self.hungry.first_copier() {
            let place = self.clients.get(key).and_then(|client| client.connection.session().copy_place());
            // Where a connection has gone, its place has, too.
            let is_first = place.filter(|place| place.number() == number).map(CopyPlace::is_first);
            if is_first == Some(false) {
                return;
            }
            self.hungry.pop_copier();
            if is_first.is_some() && self.is_next(key) {
                self.enqueue_large(key);
            }
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

    /// Moves a slice for each who waits to move a large value, as far as there is time: for one at least.
    pub(super) fn run_large(&mut self, are_there_others: bool) {
        let Some(&(_, oldest)) = self.large.front() else { return };
        let (time, slice) = match self.ready.len() {
            EVENTS.. => (TURN / 8, SLICE / 4),
            1.. => (TURN / 2, SLICE),
            _ if are_there_others => (TURN / 2, SLICE),
            _ => (TURN, if self.large.len() > 1 { SLICE } else { TURN_BYTES }),
        };
        let until = self.meter.elapsed() + time;
        let quota = Quota::new(&self.shared.config, 0).with_slice(slice);
        let before = std::mem::replace(&mut self.each, Share::new(quota, self.part_high, self.part_high));
        let polled = self.meter.set_since(oldest);
        for _ in 0..self.large.len() {
            let Some((key, _)) = self.large.pop_front() else { break };
            if self.is_next(key) {
                self.meter.count(1);
                self.turn(key, false);
                self.meter.look();
            }
            if self.meter.elapsed() > until {
                break;
            }
        }
        self.meter.set_since(polled);
        self.each = before;
    }

    /// Serves those who ask for much, one at least, unless there are others and it is not long ago.
    pub(super) fn run_long(&mut self, reads: &mut ReadBatch, are_there_others: bool) {
        let now = self.meter.since() + self.meter.elapsed();
        if (are_there_others || !self.ready.is_empty()) && now.saturating_duration_since(self.long_at) < LONG_EVERY {
            return;
        }
        let Some(&(_, oldest)) = self.long.front() else { return };
        let until = self.meter.elapsed() + TURN;
        let quota = Quota::new(&self.shared.config, 0).with_slice(TURN_BYTES);
        let before = std::mem::replace(&mut self.each, Share::new(quota, self.part_high, self.part_high));
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
        self.each = before;
    }

    /// Takes a connection out of its queue, unless its slot has changed hands meanwhile.
    fn is_next(&mut self, key: usize) -> bool {
        self.clients.get_mut(key).is_some_and(|client| std::mem::take(&mut client.queued))
    }
}
