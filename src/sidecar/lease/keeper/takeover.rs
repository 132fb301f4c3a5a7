//! How a node that does not own the shard follows the owner, and becomes the owner when it may.
//!
//! ```text
//!   follow ── it has the right ──> the server is asked to be a candidate (and to drop all, without the data) ──> claim
//! ```
//!
//! Not here: the rest of the keeper (`keeper`), who has the right when (`claim`).

use super::super::claim::{Candidacy, Claimant, Right, claimed};
use super::super::local::{LocalServer, ServerState};
use super::super::orders::ServerOrder;
use super::{Keeper, RENEWALS_PER_LEASE};
use crate::cluster::record::ShardRecord;
use std::time::Duration;

impl Keeper {
    /// Somebody else owns the shard, or nobody.
    pub(super) fn follow(&mut self, now: Duration) {
        self.retire();
        // A primary is no candidate, not even when its deadline has passed long ago: first it follows.
        let may_serve = self.server.up().is_some_and(LocalServer::may_serve);
        if may_serve || !self.take_over(now) && self.candidacy.is_none() && self.known().is_some() {
            let Some(server) = self.server.up() else { return };
            let (epoch, secret) =
                self.known().map_or((0, &self.config.secret), |record| (record.epoch, &record.secret));
            let order = ServerOrder::Standby { epoch: epoch.max(server.epoch), secret: secret.clone() };
            self.tell_role(order, now);
        }
    }

    /// Becomes the owner, if it may. Whether it tries.
    fn take_over(&mut self, now: Duration) -> bool {
        let ServerState::Up(server) = &self.server else { return false };
        let Some(seen) = &self.ledger.seen else { return false };
        if let Some(candidacy) = self.candidacy {
            if candidacy.unanswered == 0 && !self.ledger.is_swapping(now) {
                self.claim(candidacy.epoch, now);
            }
            return true;
        }
        if self.ledger.is_swapping(now) || now < self.stands_back {
            return false;
        }
        let who = (self.config.node.as_str(), server.run.as_str());
        let times = (now.saturating_sub(server.met), self.config.lease + self.config.lease / RENEWALS_PER_LEASE);
        let claimant = Claimant::new(who, (now < self.forced_until, self.is_paused), times);
        let revision = seen.revision;
        let is_empty = match claimant.right(seen.record.as_ref(), now.saturating_sub(seen.at)) {
            Right::None => return false,
            Right::Strike => {
                let members = seen.record.iter().flat_map(|record| &record.members);
                let members = members.filter(|member| member.node != self.config.node).cloned().collect();
                let record = seen.record.clone().unwrap_or_default();
                self.swap(ShardRecord { members, ..record }, now);
                return false;
            }
            Right::Whole => false,
            Right::Empty => true,
        };
        let epoch = self.known().map_or(0, |record| record.epoch).max(server.epoch) + 1;
        let level = if self.tried == revision { log::Level::Debug } else { log::Level::Info };
        self.tried = revision;
        log::log!(level, "wants to be the owner in epoch {epoch}{}", if is_empty { ", without data" } else { "" });
        self.candidacy = Some(Candidacy { expected: revision, epoch, unanswered: 1 + u32::from(is_empty) });
        self.order(ServerOrder::Candidate { epoch }, now);
        if is_empty {
            self.order(ServerOrder::Empty, now);
        }
        true
    }

    /// The server agrees: swaps this node in.
    fn claim(&mut self, epoch: u64, now: Duration) {
        let ServerState::Up(server) = &self.server else { return };
        let old = self.known().cloned().unwrap_or_default();
        let record = claimed(old, epoch, &server.run, &self.config);
        let record = self.config.stamp(record, server.replicas_ack);
        self.swap(record, now);
    }
}
