//! What other servers send here: which connections are their sources, and refreshes. A refresh is what a full sync is
//! at the standby.
//!
//! ```text
//! replica key    let_feed        the connection may be a source: it knows the secret of the epoch
//! replica promise   promise       this server does not take over for so long
//! replica from   announce        the connection is the source of a run's changes
//! replica begin  begin_refresh   everything is going to be stored again
//! replica end    end_refresh     what was not stored again is dropped
//! replica sent, at, overtaken, caught-up             how whole the copy is (`copied`)
//! ```
//!
//! Locks: the role's, then the journal's.
//!
//! Not here: what a source may still write (`role`), what other servers are sent (`resync`).

use super::{ChangeSource, Copied, KeyError, Relation, SourceError, Store};
use crate::journal::AttachError;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Store {
    /// Whether its peer has items from this server or the other way round, for a consumer of this name and identity;
    /// and the runs whose changes come here. An error if the consumer could not be attached.
    pub fn meet(&self, name: &str, identity: &str, now: Instant) -> Result<(Relation, Vec<u64>), AttachError> {
        let role = self.core.role.lock();
        let upstreams = role.live_upstreams(now);
        let was_here = self.core.journal.knows(name, identity, role.upstreams_not_to_feed(now))?;
        let relation = match was_here {
            _ if role.is_from(identity) => Relation::Source,
            true => Relation::Copy,
            false => Relation::Stranger,
        };
        Ok((relation, upstreams.to_vec()))
    }

    /// Run id of the live server whose changes come here.
    pub fn upstream(&self, now: Instant) -> Option<u64> {
        self.core.role.lock().live_upstreams(now).first().copied()
    }

    /// Notes that a connection brings the changes of the first of these runs, which gets those of the second, and so
    /// on; the connection was `source` before. This holds for some seconds. When it returns, nothing more is applied of
    /// another connection that brought the changes of the same run before.
    pub fn announce(
        &self,
        run_ids: &[u64],
        source: Option<&Arc<ChangeSource>>,
        now: Instant,
    ) -> Result<Arc<ChangeSource>, SourceError> {
        let mut role = self.core.role.lock();
        role.admits_announcement(source)?;
        let journal = &self.core.journal;
        if run_ids.first() == Some(&journal.run_id()) {
            return Err(SourceError::Itself);
        }
        // In a shard the lease decides who feeds whom, and a feeder of before may not have noticed yet.
        let is_fed_by_this = |run_id| run_id == journal.run_id() || journal.feeds(run_id);
        if !role.has_epochs() && run_ids.iter().any(|&run_id| is_fed_by_this(run_id)) {
            return Err(SourceError::Circle);
        }
        let (source, took_over) = role.follow(run_ids, source, now);
        self.core.flush.renew_refresh(self.core.clock.now());
        drop(role);
        self.shut_out(took_over);
        Ok(source)
    }

    /// Notes that a connection has shown the key of an epoch, and is the source of its owner's changes. When it returns,
    /// nothing more is applied of the sources of earlier epochs.
    pub fn let_feed(&self, epoch: u64, secret: &str) -> Result<Arc<ChangeSource>, KeyError> {
        let (source, shuts_out) = self.core.role.lock().let_feed(epoch, secret)?;
        self.shut_out(shuts_out);
        Ok(source)
    }

    /// Promises the owner of an epoch that this server owns no other one for so long.
    pub fn promise(&self, epoch: u64, secret: &str, time: Duration) -> Result<(), KeyError> {
        let shuts_out = self.core.role.lock().promise(epoch, secret, time)?;
        self.shut_out(shuts_out);
        Ok(())
    }

    /// What is known of the copy that sources bring.
    pub fn copied(&self) -> &Copied {
        &self.core.copied
    }

    /// Notes from which address a source sends.
    pub fn note_address(&self, source: &ChangeSource, address: String) {
        self.core.copied.fed_by(source.run_id().unwrap_or_default(), address);
    }

    /// Begins a refresh of so many items: what is not stored again before its end is dropped then. Does nothing if the
    /// role does not admit `source`.
    pub fn begin_refresh(&self, source: Option<&ChangeSource>, expected: u64) {
        if let Some(_role) = self.core.role.admit(source) {
            self.core.journal.begin_refresh(&self.core.flush);
            self.keep_flush();
            self.core.copied.begin(expected);
        }
    }

    /// Notes how much of the full sync has been sent.
    pub fn note_progress(&self, source: Option<&ChangeSource>, items: u64, bytes: u64) {
        if let Some(_role) = self.core.role.admit(source) {
            self.core.copied.sent(items, bytes);
        }
    }

    /// Notes that everything of the source's run up to here was sent.
    pub fn note_position(&self, source: Option<&ChangeSource>, lsn: u64) {
        if let Some(_role) = self.core.role.admit(source) {
            self.core.copied.at(lsn);
        }
    }

    /// Notes that changes were lost on their way here, or that what was lost has been sent again.
    pub fn note_overtaken(&self, source: Option<&ChangeSource>, is_overtaken: bool) {
        if let Some(_role) = self.core.role.admit(source) {
            self.core.copied.overtaken(is_overtaken);
        }
    }

    /// Ends a refresh. False when there is none, or when its upstream was silent for too long.
    pub fn end_refresh(&self, source: Option<&ChangeSource>) -> bool {
        let Some(role) = self.core.role.admit(source) else { return false };
        let ended = self.core.flush.end_refresh(self.core.clock.now());
        if ended {
            self.keep_flush();
            self.core.copied.end();
        }
        drop(role);
        if ended {
            self.core.journal.sync_again();
            self.unlink_dead();
        }
        ended
    }
}
