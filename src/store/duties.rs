//! The store's part in what the server is: taking a role, telling it, and dropping all for one.
//!
//! ```text
//! set_role   the role changes │ who is shut out has written its last │ nobody is being answered │ all is dropped, if it
//!            is to be │ clients may come
//! ```
//!
//! Who claims a shard without its data drops what it holds here and not before: until the claim is won it may be a member,
//! whose acknowledgements the owner counts, and a claim can be lost.
//!
//! Not here: which role follows on which, and what each allows (`role`).

use super::role::first_cas;
use super::{Duty, RoleError, RoleOrder, Store};
use crate::sys::cpu::time_since_boot;
use std::time::{Duration, Instant};

/// The least of [`decided_after`].
const DECIDED_AFTER: Duration = Duration::from_secs(5);

/// What the server is, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleView {
    /// What it is there for.
    pub duty: Duty,
    /// The highest epoch that was heard of.
    pub epoch: u64,
    /// Another server feeds it, or was the last to do so.
    pub is_fed: bool,
}

impl Store {
    /// Takes a role, or a later deadline. When it returns, nobody changes anything or is answered who could before and
    /// cannot now.
    pub fn set_role(&self, order: RoleOrder<'_>) -> Result<(), RoleError> {
        let role = &self.core.role;
        let was_primary = matches!(role.lock().duty(), Duty::Primary { .. });
        let aftermath = role.obey(order)?;
        self.shut_out(aftermath.shuts_out);
        if aftermath.silences {
            role.tell_listener();
        }
        if aftermath.drops_all {
            self.drop_all();
        }
        if let RoleOrder::Primary { epoch, .. } = order {
            self.core.follow_cas(first_cas(epoch), u64::MAX);
        }
        let is_primary = matches!(order, RoleOrder::Primary { .. });
        if is_primary != was_primary {
            self.core.journal.note_tenure(is_primary);
        }
        if let (Some(recent), RoleOrder::Primary { .. }, false) = (&self.core.recent, order, was_primary) {
            let long_ago = Instant::now().checked_sub(decided_after(order));
            recent.excuse(long_ago.map_or(0, |time| self.core.journal.lsn_at(time)));
        }
        role.open();
        Ok(())
    }

    /// Waits, if somebody `is` shut out, until it has written its last: who still writes was admitted before, and holds
    /// one of these locks.
    pub(super) fn shut_out(&self, is: bool) {
        if is {
            self.lock_each().for_each(drop);
        }
    }

    /// What the server is.
    pub fn role_view(&self) -> RoleView {
        let standing = self.core.role.lock();
        RoleView { duty: standing.duty(), epoch: standing.epoch(), is_fed: standing.is_fed() }
    }

    /// Sets what is called when clients are not to be answered any more. It returns when none is.
    pub fn on_silence(&self, listener: impl Fn() + Send + Sync + 'static) {
        self.core.role.listen(listener);
    }

    /// Lets the changes of clients wait for so many milliseconds; 0: no more. The last change that there is: who is told to
    /// go on after a switchover has to journal what comes after it, or the others would need a full sync.
    pub fn hold_changes(&self, ms: u64) -> u64 {
        self.core.role.hold_changes(ms);
        match ms == 0 && self.is_managed() {
            true => self.core.journal.begin(Instant::now()),
            false => self.core.journal.lsn_under_lock(),
        }
    }

    /// Whether it was primary a moment ago.
    pub fn was_primary_just_now(&self) -> bool {
        self.core.role.was_primary_just_now()
    }

    /// Whether the changes of clients wait.
    #[inline]
    pub fn holds_changes(&self) -> bool {
        self.core.role.holds_changes()
    }

    /// Whether its role is told to it (`-o managed`).
    pub fn is_managed(&self) -> bool {
        self.core.role.is_managed()
    }

    /// Whether clients are refused.
    #[inline]
    pub fn bars_clients(&self) -> bool {
        self.core.role.bars_clients()
    }

    /// Whether clients that are refused may read all the same (`-o standby_reads`).
    pub fn answers_reads(&self) -> bool {
        self.core.config.standby_reads && self.core.role.is_standby()
    }

    /// In which term the server is; each demotion begins one.
    pub fn term(&self) -> u64 {
        self.core.role.term()
    }

    /// Whether a client may be sent, just now, what was answered in this term.
    pub fn may_answer(&self, term: u64) -> bool {
        self.core.role.may_answer(term)
    }

    /// Items, dead ones that were not reclaimed yet among them.
    pub fn items(&self) -> u64 {
        self.lock_each().map(|shard| shard.table.items() as u64).sum()
    }

    /// Drops all items. Nobody writes or is answered meanwhile.
    fn drop_all(&self) {
        let role = self.core.role.lock();
        let (flushed, _) = self.core.journal.flush_all(&self.core.flush, 0);
        self.keep_flush();
        self.core.copied.dropped();
        drop(role);
        self.unlink_flushed(flushed, |_| true);
    }
}

/// After this an owner has acknowledged a change, or given it up: some leases, with the time that replies wait.
fn decided_after(order: RoleOrder<'_>) -> Duration {
    let RoleOrder::Primary { deadline_ms, .. } = order else { return DECIDED_AFTER };
    let lease = Duration::from_millis(deadline_ms).saturating_sub(time_since_boot());
    DECIDED_AFTER + 3 * lease
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an owner with a lease of a minute, what was changed half a minute ago may still be in the air.
    #[test]
    fn what_is_decided_depends_on_the_lease() {
        let order = |lease: u64| {
            let deadline_ms = time_since_boot().as_millis() as u64 + 1000 * lease;
            decided_after(RoleOrder::Primary { epoch: 1, deadline_ms, drops_all: false })
        };
        assert!(order(60) > Duration::from_secs(2 * 60) && order(1) >= DECIDED_AFTER && order(1) < 2 * DECIDED_AFTER);
    }
}
