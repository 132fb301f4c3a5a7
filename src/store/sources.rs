//! What other servers send here: who may, and the refresh that a full sync at the other end is at this one.
//!
//! ```text
//! replica from   announce        the connection is the source of a run's changes
//! replica begin  begin_refresh   everything is going to be stored again
//! replica end    end_refresh     what was not is dropped
//! ```
//!
//! Locks: the role's, then the journal's.
//!
//! Not here: what a source may still write (`role`), what other servers are sent (`resync`).

use super::{ChangeSource, Relation, SourceError, Store};
use crate::journal::AttachError;
use std::sync::Arc;
use std::time::Instant;

impl Store {
    /// Whether a consumer of that name and identity could be attached, and if so, what its peer and this server have of
    /// each other. And where this server's own changes come from.
    pub fn meet(&self, name: &str, identity: &str, now: Instant) -> Result<(Relation, Vec<u64>), AttachError> {
        let role = self.core.role.lock();
        let upstreams = role.live_upstreams(now);
        let was_here = self.core.journal.knows(name, identity, upstreams)?;
        let relation = match was_here {
            _ if role.is_from(identity) => Relation::Source,
            true => Relation::Copy,
            false => Relation::Stranger,
        };
        Ok((relation, upstreams.to_vec()))
    }

    /// Run id of the live server that this one gets its changes from.
    pub fn upstream(&self, now: Instant) -> Option<u64> {
        self.core.role.lock().live_upstreams(now).first().copied()
    }

    /// Says that a connection, which was `source` before, brings the changes of the first of these run ids, which has
    /// its own from the second, and so on. It stays so for some seconds. When this returns, nothing is applied any more
    /// of a connection that brought the changes of the same run before.
    pub fn announce(
        &self,
        run_ids: &[u64],
        source: Option<&Arc<ChangeSource>>,
        now: Instant,
    ) -> Result<Arc<ChangeSource>, SourceError> {
        let mut role = self.core.role.admit(source.map(|source| &**source)).ok_or(SourceError::Replaced)?;
        let journal = &self.core.journal;
        if run_ids.first() == Some(&journal.run_id()) {
            return Err(SourceError::Itself);
        }
        if run_ids.iter().any(|&run_id| run_id == journal.run_id() || journal.feeds(run_id)) {
            return Err(SourceError::Circle);
        }
        let (source, took_over) = role.follow(run_ids, source, now);
        self.core.flush.renew_refresh(self.core.clock.now());
        drop(role);
        if took_over {
            // Whoever writes for the one that was replaced has asked before, and holds one of these locks.
            self.lock_each().for_each(drop);
        }
        Ok(source)
    }

    /// Begins a refresh: what is not stored again until its end is dropped then. Nothing is done if the role does not
    /// admit `source`.
    pub fn begin_refresh(&self, source: Option<&ChangeSource>) {
        if let Some(_role) = self.core.role.admit(source) {
            self.core.journal.begin_refresh(&self.core.flush);
        }
    }

    /// Ends it. False when there is none, or its upstream was silent for too long.
    pub fn end_refresh(&self, source: Option<&ChangeSource>) -> bool {
        let Some(role) = self.core.role.admit(source) else { return false };
        let ended = self.core.flush.end_refresh(self.core.clock.now());
        drop(role);
        if ended {
            self.core.journal.sync_again();
            self.unlink_dead();
        }
        ended
    }
}
