//! How a node that does not own the shard follows the owner, and becomes the owner when it may.
//!
//! ```text
//!   follow ── it has the right ──> the server is asked to be a candidate ──> claim ──> own
//! ```
//!
//! A claim without data says so in the record. What the server holds is dropped when the claim is won, with the order that
//! makes it primary of that epoch, and until it is known to be done the record says so. Before that it is kept: a claim may
//! be refused or lost, and a node that is cut off from etcd alone may be a member without knowing it.
//!
//! Not here: the rest of the keeper (`keeper`), who has the right when (`claim`).

use super::super::claim::{Candidacy, Claimant, EPOCHS_LOW, Right, claimed};
use super::super::local::{LocalServer, ServerState};
use super::super::orders::ServerOrder;
use super::Keeper;
use crate::cluster::record::{EPOCH_MAX, RequestRecord, ShardRecord};
use std::time::Duration;

/// What helps when no epoch is left.
const HOW: &str =
    "stop all of its servers and sidecars, delete its keys in etcd, and start them; see THE EPOCHS in twincache(7)";

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
            let is_stopped = self.is_paused && !self.is_forced(now) && self.known().is_some();
            if is_stopped && !self.ledger.is_swapping(now) {
                self.candidacy = None;
                return false;
            }
            if candidacy.is_agreed && !self.ledger.is_swapping(now) {
                self.claim(candidacy, now);
            }
            return true;
        }
        if self.ledger.is_swapping(now) || now < self.stands_back || server.is_pausing(now) {
            return false;
        }
        let who = (self.config.node.as_str(), server.run.as_str());
        let (met, epochs) = (now.saturating_sub(server.met), (server.epoch, self.heard_epoch, self.ledger.epoch));
        let epochs = if seen.was_member && seen.record().is_some() { (0, 0, 0) } else { epochs };
        if met < seen.run_waits {
            return false;
        }
        let wants = (self.is_forced(now), self.is_paused);
        let claimant = Claimant::new(who, wants, met, epochs, self.config.bootstrap_wait);
        let revision = seen.revision;
        let is_empty = match claimant.right(seen.record(), now.saturating_sub(seen.at)) {
            Right::None => {
                let (record, known) = (seen.record(), server.epoch.max(self.heard_epoch));
                if !record.is_some_and(|record| claimant.has_stepped_down(record)) {
                    self.warn_of_past(record.map(|record| record.epoch), server.epoch, known, now);
                }
                return false;
            }
            Right::Strike => {
                let record = seen.record().cloned().unwrap_or_default();
                let members = record.members.iter().filter(|member| member.node != self.config.node).cloned().collect();
                self.swap(ShardRecord { members, ..record }, now);
                return false;
            }
            Right::Whole => false,
            Right::Empty => true,
        };
        let epoch = self.ledger.epoch.max(server.epoch).max(self.heard_epoch) + 1;
        if self.has_to_wait(epoch, is_empty, now) {
            return false;
        }
        let level = if self.tried == revision { log::Level::Debug } else { log::Level::Info };
        self.tried = revision;
        log::log!(level, "wants to be the owner in epoch {epoch}{}", if is_empty { ", without data" } else { "" });
        self.candidacy = Some(Candidacy { expected: revision, epoch, is_agreed: false, is_empty });
        self.order(ServerOrder::Candidate { epoch }, now);
        true
    }

    /// Says that the record is lost or a past one, as far as this node can tell.
    fn warn_of_past(&mut self, record: Option<u64>, epoch: u64, known: u64, now: Duration) {
        let what = match record {
            None if known > 0 => format!("etcd has no record of the shard, whose servers know of epoch {known}"),
            Some(record) if epoch > record => {
                format!("the shard record in etcd is of the past: of epoch {record}, and the server knows of {epoch}")
            }
            _ => return,
        };
        let wait = self.known().map_or(self.config.bootstrap_wait.as_millis() as u64, |record| record.bootstrap_ms);
        let how = match self.known().is_some_and(|record| self.is_stranger(record)) {
            true => "The record does not name this node, which takes the shard only if it is promoted by force,",
            false => "This node takes the shard without data,",
        };
        if self.waits.is_news(&what, now) {
            log::error!("{what}. {how} but not before a lease and {wait} ms");
        }
    }

    /// Whether no epoch is left, or so few that they have to last: see `Empties`.
    fn has_to_wait(&mut self, epoch: u64, is_empty: bool, now: Duration) -> bool {
        let wait = self.empties.wait(epoch).filter(|_| is_empty);
        let until = self.ledger.seen_at() + wait.unwrap_or_default();
        let why = match epoch {
            _ if epoch > EPOCH_MAX => format!("all {EPOCH_MAX} epochs of the shard are used: {HOW}"),
            _ if now < until => {
                let seconds = wait.unwrap_or_default().as_secs();
                format!("the shard was lost {} times: this node waits for {seconds} s", self.empties.count())
            }
            _ => {
                self.warn_of_last(epoch);
                return false;
            }
        };
        if self.waits.is_news(&why, now) {
            log::error!("{why}");
        }
        true
    }

    /// Says once of each epoch that few are left.
    pub(super) fn warn_of_last(&mut self, epoch: u64) {
        if epoch > EPOCHS_LOW && epoch > self.warned_of {
            self.warned_of = epoch;
            log::error!("the shard has used {epoch} of {EPOCH_MAX} epochs; when they are used up: {HOW}");
        }
    }

    /// An operator wants this node to be the owner.
    pub(super) fn force(&mut self, request: RequestRecord, now: Duration) {
        let epoch = self.known().map_or(0, |record| record.epoch);
        if request.epoch > 0 && request.epoch != epoch {
            return self.reply(request.id, false, "the owner has changed since that was asked for");
        }
        let past = self.server.up().map_or(0, |server| server.epoch);
        if past <= epoch && self.known().is_some_and(|record| self.is_stranger(record)) {
            let why = "the record does not name this node, so its owner may serve for as long as those that it names \
                       promise to wait: when it is gone for certain, delete the record of the shard in etcd";
            return self.reply(request.id, false, why);
        }
        self.stands_back = Duration::ZERO;
        self.forced = (now + (self.lease() + self.config.bootstrap_wait) * 2, epoch);
        self.reply(request.id, true, "it takes over as soon as the lease of the owner has passed");
    }

    /// Whether the shard has an owner that does not know this node.
    fn is_stranger(&self, record: &ShardRecord) -> bool {
        !record.owner.is_empty() && !record.nodes.contains(&self.config.node)
    }

    fn is_forced(&self, now: Duration) -> bool {
        let (until, epoch) = self.forced;
        now < until && self.known().is_none_or(|record| record.epoch == epoch)
    }

    /// The server agrees: swaps this node in.
    fn claim(&mut self, candidacy: Candidacy, now: Duration) {
        let ServerState::Up(server) = &self.server else { return };
        let old = self.known().cloned().unwrap_or_default();
        let record = claimed(old, candidacy, &server.run, &self.config);
        let record = self.config.stamp(record, server.replicas_ack);
        self.swap(record, now);
    }
}
