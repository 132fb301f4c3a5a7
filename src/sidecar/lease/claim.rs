//! Whether a node that does not own the shard may become its owner now.
//!
//! ```text
//!                        owner given back                 owner silent: after lease + margin
//!   a member             at once + rank * 50 ms           + rank * 50 ms
//!   another node         at once, empty, if no member     + bootstrap_ms, empty, if the record knows the node
//!                        is left; else + bootstrap_ms
//!   nothing recorded     whoever is first, after a lease and its margin
//! ```
//!
//! A node whose server was restarted is no member: it first takes its old run out of the members of a shard that was
//! given back, so that the others need not wait for what is gone for ever.
//!
//! Not here: the compare-and-swap that decides between candidates (`keeper`).

use super::orders::KeeperConfig;
use crate::cluster::record::{MemberRecord, ShardRecord};
use std::time::Duration;

/// The part of a lease that pays for clocks that drift apart: one tenth of it.
const MARGINS_PER_LEASE: u32 = 10;

/// What one candidate waits longer than the candidate before it.
const RANK_WAIT: Duration = Duration::from_millis(50);

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
    /// Answers of the server that it waits for.
    pub unanswered: u32,
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
    /// How long it waits for a record that is not there.
    wait: Duration,
}

impl<'a> Claimant<'a> {
    pub(super) fn new(
        (node, run): (&'a str, &'a str),
        (is_forced, is_paused): (bool, bool),
        (met, wait): (Duration, Duration),
    ) -> Claimant<'a> {
        Claimant { node, run, is_forced, is_paused, met, wait }
    }

    /// What it may do, if this record was first seen `ago`, when now is the time.
    pub(super) fn right(&self, record: Option<&ShardRecord>, ago: Duration) -> Right {
        // It was never there, or somebody has deleted it: then there may be an owner who serves until its deadline.
        let Some(record) = record else { return if ago >= self.wait { Right::Whole } else { Right::None } };
        let is_free = record.owner.is_empty();
        let free_after = if is_free { Duration::ZERO } else { lease_of(record) + margin_of(record) };
        let kept = ago.min(self.met);
        let may_claim = is_free || record.nodes.iter().any(|node| node == self.node);
        let bootstrap = if is_free { Duration::ZERO } else { Duration::from_millis(record.bootstrap_ms) };
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
        let wait = match is_free && record.members.is_empty() {
            true => Duration::ZERO,
            false => Duration::from_millis(record.bootstrap_ms),
        };
        if may_claim && !self.is_paused && ago >= free_after + wait && kept >= free_after {
            Right::Empty
        } else {
            Right::None
        }
    }
}

/// The record of this epoch, in which this node owns the shard with this run of its server.
pub(super) fn claimed(old: ShardRecord, epoch: u64, run: &str, config: &KeeperConfig) -> ShardRecord {
    // They and the old owner still have all that was acknowledged: the new one acknowledges nothing without them, or
    // takes them out before.
    let owner = MemberRecord { node: old.owner, run: old.run };
    let holders = old.members.into_iter().chain(Some(owner).filter(|owner| !owner.node.is_empty()));
    let members = holders.filter(|member| member.node != config.node).collect();
    let mut nodes = old.nodes;
    if !nodes.contains(&config.node) {
        nodes.push(config.node.clone());
    }
    let (owner, run) = (config.node.clone(), run.to_owned());
    let secret = if old.secret.is_empty() { config.secret.clone() } else { old.secret };
    ShardRecord { epoch, owner, run, members, nodes, secret, ..ShardRecord::default() }
}

/// The lease that a record gives to its owner.
pub(super) fn lease_of(record: &ShardRecord) -> Duration {
    Duration::from_millis(record.lease_ms)
}

/// What the owner stops before the end of the lease, and others wait after it.
pub(super) fn margin_of(record: &ShardRecord) -> Duration {
    lease_of(record) / MARGINS_PER_LEASE
}
