//! Whether a node that does not own the shard may become its owner now.
//!
//! ```text
//!                        owner given back                 owner silent: after lease + margin
//!   a member             at once + rank * 50 ms           + rank * 50 ms
//!   another node         at once, empty, if no member     + bootstrap_ms, empty, if the record knows the node
//!                        is left; else + bootstrap_ms
//!   who stepped down     after lease + margin (+ bootstrap_ms, of three nodes and more) + rank * 50 ms, behind the members:
//!                        its sidecar ended in the middle of a switchover, of which the record tells, and no other node and
//!                        no record that was seen knows of a later epoch
//!   nothing recorded     whoever is first, after a lease and its margin; if it was deleted, as one that was given back
//!     but there was      + bootstrap_ms, empty: a server knows of an epoch, so the record was deleted before this sidecar
//!                        was started, and nobody can tell who was in sync
//!   a past record        after lease + margin + bootstrap_ms, empty: the node's own server knows of a later epoch, so etcd
//!                        was put back, and who is in sync by the record may have fallen behind since; with what it has,
//!                        and if the record does not know it, only by an operator's force
//! ```
//!
//! A node whose server was restarted is no member: it first takes its old run out of the members of a shard that was
//! given back, so that the others need not wait for what is gone for ever.
//!
//! Epochs are few: they stand in the upper 15 bits of cas uniques. A takeover with data uses one, and has needed a copy
//! that was made before. A takeover without data needs nothing, so servers that crash again and again, with nobody left
//! who has data, would use them all within hours. So claims without data become slow ([`Empties`]), and the slower the
//! fewer epochs are left:
//!
//! ```text
//!   claims without data within ten minutes     5th 1 s, 6th 2 s, 7th 4 s … 60 s
//!   epochs that are used                       1/2: 10 s, and an error in the log    7/8: 60 s    all: nobody claims
//! ```
//!
//! So a loop of crashes lasts for eleven days before the error, and for eleven more before the end.
//!
//! Not here: the compare-and-swap that decides between candidates (`keeper`).

use super::orders::KeeperConfig;
use crate::cluster::record::{EPOCH_MAX, ShardRecord};
use std::time::Duration;

/// The part of a lease that pays for clocks that drift apart: one tenth of it.
const MARGINS_PER_LEASE: u32 = 10;

/// What one candidate waits longer than the candidate before it.
const RANK_WAIT: Duration = Duration::from_millis(50);

/// Epochs above this are scarce.
pub(super) const EPOCHS_LOW: u64 = EPOCH_MAX / 2;

/// Claims without data that need not wait.
const EMPTIES_FREE: u32 = 4;

/// Claims are in a row when less time than this passes between them.
const EMPTIES_APART: Duration = Duration::from_secs(600);

/// Longest wait of one.
const EMPTIES_WAIT_MAX: Duration = Duration::from_secs(60);

/// What a node may do about a shard that it does not own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// Nothing now.
    None,
    /// Take its own old run out of the members.
    Strike,
    /// Take over with what it has.
    Whole,
    /// Take over without data.
    Empty,
}

/// A try to become the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Candidacy {
    /// The revision that it wants to replace.
    pub expected: i64,
    pub epoch: u64,
    /// Whether the server has agreed.
    pub is_agreed: bool,
    /// What the server holds is dropped when the claim is won.
    pub is_empty: bool,
}

/// The claims without data that this node has made in a row.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Empties {
    count: u32,
    last: Duration,
}

impl Empties {
    /// Notes one.
    pub(super) fn note(&mut self, now: Duration) {
        self.count = if now < self.last + EMPTIES_APART { self.count + 1 } else { 1 };
        self.last = now;
    }

    /// How many there were.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// How long the next one waits, which is of this epoch; None: not at all.
    pub(super) fn wait(&self, epoch: u64) -> Option<Duration> {
        let row = self.count.checked_sub(EMPTIES_FREE).map(|more| Duration::from_secs(1 << more.min(6)));
        let scarce = match epoch {
            _ if epoch > EPOCH_MAX / 8 * 7 => Some(EMPTIES_WAIT_MAX),
            _ if epoch > EPOCHS_LOW => Some(EMPTIES_WAIT_MAX / 6),
            _ => None,
        };
        row.max(scarce).map(|wait| wait.min(EMPTIES_WAIT_MAX))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant<'a> {
    pub node: &'a str,
    /// The run of its server.
    pub run: &'a str,
    /// An operator wants it to be the owner.
    pub is_forced: bool,
    /// Nobody takes over but when an operator wants it.
    is_paused: bool,
    /// For how long its server has been known. The run before may have promised to wait, and a promise goes with it.
    met: Duration,
    /// The epoch that its server knows of,
    epoch: u64,
    /// the highest one that another node's does,
    heard: u64,
    /// and the highest one that a record had.
    recorded: u64,
    /// How long it waits for a bootstrap, if no record says so.
    bootstrap: Duration,
}

impl<'a> Claimant<'a> {
    pub(super) fn new(
        (node, run): (&'a str, &'a str),
        (is_forced, is_paused): (bool, bool),
        met: Duration,
        (epoch, heard, recorded): (u64, u64, u64),
        bootstrap: Duration,
    ) -> Claimant<'a> {
        Claimant { node, run, is_forced, is_paused, met, epoch, heard, recorded, bootstrap }
    }

    /// What it may do, if this record was first seen `ago`, when now is the time.
    pub(super) fn right(&self, record: Option<&ShardRecord>, ago: Duration) -> Right {
        let Some(record) = record else {
            // It was never there, as far as this node knows.
            let is_new = self.epoch == 0 && self.heard == 0;
            return if is_new { Right::Whole } else { self.last_resort(ago >= self.bootstrap) };
        };
        let is_free = record.owner.is_empty();
        let free_after = if is_free { Duration::ZERO } else { lease_of(record) + margin_of(record) };
        let kept = ago.min(self.met);
        let may_claim = is_free || record.nodes.iter().any(|node| node == self.node);
        let bootstrap = if is_free { Duration::ZERO } else { Duration::from_millis(record.bootstrap_ms) };
        let silent = lease_of(record) + margin_of(record);
        if self.has_stepped_down(record) {
            // Were etcd put back, a successor may live on what the third node promises.
            let promised = if record.nodes.len() > 2 { record.bootstrap_ms } else { 0 };
            let after = silent + Duration::from_millis(promised) + RANK_WAIT * record.members.len() as u32;
            let is_time = kept >= silent && ago >= after;
            return if is_time && (self.is_forced || !self.is_paused) { Right::Whole } else { Right::None };
        }
        if self.epoch > record.epoch {
            let is_time = kept >= silent && ago >= silent + Duration::from_millis(record.bootstrap_ms);
            // Whom the past owner knew is no matter to an operator: it may be that none of them is left.
            return self.last_resort((may_claim || self.is_forced) && is_time);
        }
        // The owner may live on the promises of members alone for so long.
        if self.is_forced && may_claim && kept >= free_after && ago >= free_after + bootstrap {
            return Right::Whole;
        }
        let rank = record.members.iter().position(|member| member.node == self.node && member.run == self.run);
        if let Some(rank) = rank {
            let is_time = ago >= free_after + RANK_WAIT * rank as u32;
            return if is_time && !self.is_paused { Right::Whole } else { Right::None };
        }
        if is_free && record.members.iter().any(|member| member.node == self.node) {
            return Right::Strike;
        }
        let wait = match is_free && record.members.is_empty() && self.heard <= record.epoch {
            true => Duration::ZERO,
            false => Duration::from_millis(record.bootstrap_ms),
        };
        if may_claim && !self.is_paused && ago >= free_after + wait && kept >= free_after {
            Right::Empty
        } else {
            Right::None
        }
    }

    /// Whether this node's server stepped down for a successor by this record, which nobody has replaced since: it has
    /// everything. Were etcd put back to just this record, the successor would have written its own over it meanwhile, or
    /// somebody would know of its epoch.
    pub(super) fn has_stepped_down(&self, record: &ShardRecord) -> bool {
        let is_it = record.owner == self.node && record.run == self.run;
        let is_last = self.heard.max(self.recorded) <= record.epoch;
        record.hands_over && is_it && is_last && self.epoch == record.epoch + 1
    }

    /// Nobody knows who has everything: an operator may say so, else it begins without data.
    fn last_resort(&self, is_time: bool) -> Right {
        match (self.is_forced, self.is_paused) {
            _ if !is_time => Right::None,
            (true, _) => Right::Whole,
            (_, true) => Right::None,
            (_, false) => Right::Empty,
        }
    }
}

/// The record that comes of a candidacy, in which this node owns the shard with this run of its server.
pub(super) fn claimed(old: ShardRecord, candidacy: Candidacy, run: &str, config: &KeeperConfig) -> ShardRecord {
    let Candidacy { epoch, is_empty: drops_all, .. } = candidacy;
    // They and the old owner still have all that was acknowledged: the new one acknowledges nothing without them, or
    // takes them out before.
    let owner = old.whole_owner();
    let holders = old.members.into_iter().chain(owner);
    let members = holders.filter(|member| member.node != config.node).collect();
    let mut nodes = old.nodes;
    if !nodes.contains(&config.node) {
        nodes.push(config.node.clone());
    }
    let (owner, run) = (config.node.clone(), run.to_owned());
    let secret = if old.secret.is_empty() { config.secret.clone() } else { old.secret };
    ShardRecord { epoch, owner, run, members, nodes, secret, drops_all, ..ShardRecord::default() }
}

/// The lease that a record gives to its owner.
pub(super) fn lease_of(record: &ShardRecord) -> Duration {
    Duration::from_millis(record.lease_ms)
}

/// What the owner stops before the end of the lease, and others wait after it.
pub(super) fn margin_of(record: &ShardRecord) -> Duration {
    lease_of(record) / MARGINS_PER_LEASE
}

/// Until when a node may use a right that it asked for at that time and that lasts for a lease: a margin before the lease
/// ends. Others wait for a margin longer than the lease.
pub(super) fn right_until(asked: Duration, lease: Duration) -> Duration {
    (asked + lease).saturating_sub(lease / MARGINS_PER_LEASE)
}

#[cfg(test)]
#[path = "tests/shift_claim.rs"]
mod shift;
