//! Who is closed for standing still, or for what that keeps from others.
//!
//! ```text
//!   as it comes       no memory       ──> who comes
//!   after each turn   too much is held ──> who holds most, until it is not
//!   once a second     idle_timeout     ──> who has been idle for longer
//!                     no login in time ──> who was to log in
//!                     starved          ──> who keeps values where they are and takes none of them
//! ```
//!
//! Not here: how much is too much (`budget`), who is idle (`conn/session`), uploads that stand still (`store/lent`).

use super::Worker;
use super::batch::Members;
use super::client::may_grow;
use crate::net::admission::Arrival;
use crate::net::conn::Holdings;
use crate::net::conn::turn::CloseReason;

/// Connections that are closed between two polls when their time is over: 0.02 ms each, or 0.3 ms where much was sent that
/// nobody has read.
const CLOSES: usize = 8;

impl Worker {
    /// The next connection that was left here, if there are any. Who comes where the system has no memory for one more is
    /// closed.
    pub(super) fn next_arrival(&mut self) -> Option<Arrival> {
        while let Ok(arrival) = self.arrivals.try_recv() {
            if may_grow(&self.clients) {
                return Some(arrival);
            }
            arrival.record.log_close(&self.shared, CloseReason::Error.name());
        }
        None
    }

    /// Notes what a connection holds after a turn, and closes who holds most if that is too much. False: it was this one.
    #[inline]
    pub(super) fn account(&mut self, key: usize) -> bool {
        let client = &self.clients[key];
        let holdings = client.connection.holdings();
        holdings == client.holdings || self.recount(key, holdings)
    }

    /// Notes what sockets hold after a batch: of TLS, a beginning of what follows a request. While others of a batch are
    /// answered nobody of it may have to go.
    #[cold]
    pub(super) fn account_sockets(&mut self, members: Members<'_>) {
        for i in 0..members.len() {
            let (key, _) = members.get(i);
            if self.clients.contains(key) {
                self.account(key);
            }
        }
    }

    #[cold]
    fn recount(&mut self, key: usize, holdings: Holdings) -> bool {
        let before = std::mem::replace(&mut self.clients[key].holdings, holdings);
        self.budget.change(key, before, holdings, &self.shared.stats);
        while self.budget.is_over(&self.shared.stats) {
            // Whoever wants more goes where all hold little.
            let worst = self.budget.worst().unwrap_or(key);
            let Holdings { input, output } = self.clients[worst].holdings;
            self.counters.read_buf_oom.add(u64::from(input >= output));
            self.counters.response_obj_oom.add(u64::from(input < output));
            self.close(worst, CloseReason::Error);
            if worst == key {
                return false;
            }
        }
        true
    }

    /// Whether there may be somebody to close for standing still.
    pub(super) fn sweeps(&self) -> bool {
        self.idle_sweep.is_wanted() && !self.clients.is_empty() || self.budget.has_stuck()
    }

    /// Closes what has been idle for too long, or has not logged in for too long, and who keeps values from others; a slice
    /// at a time.
    pub(super) fn sweep(&mut self) {
        // One that is on goes to its end, even if the last for whom it began was just closed: no poll waits meanwhile.
        if !self.idle_sweep.is_on() && !self.sweeps() {
            return;
        }
        let Some(slots) = self.idle_sweep.next_slots(self.clients.capacity()) else { return };
        let limit = self.shared.config.idle_timeout;
        let (now, is_starved) = (self.shared.clock.now(), self.shared.store.is_starved());
        let mut closed = 0;
        for key in slots {
            if closed == CLOSES {
                return self.idle_sweep.pause_at(key);
            }
            let Some(client) = self.clients.get_mut(key) else { continue };
            if client.is_late(now) || limit > 0 && client.is_idle(now, limit) {
                self.counters.idle_kicks.add(1);
                self.close(key, CloseReason::IdleTimeout);
                closed += 1;
            } else if is_starved && !client.queued && client.connection.blocks_values(now) {
                self.counters.response_obj_oom.add(1);
                self.close(key, CloseReason::Error);
                closed += 1;
            }
        }
    }
}
