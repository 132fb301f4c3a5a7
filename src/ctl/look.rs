//! Looking at a cluster for as long as it takes to know who is silent.
//!
//! ```text
//!   list all ──> owner?   its record changes with each renewal: within a lease it was seen to change, or it is silent
//!                node?    its record's time is about now: it is there
//!                         else: the record changes within NODE_SETTLES (another clock), or it is silent
//!   list again, every LOOK_EVERY, until all is known
//! ```
//!
//! Clocks of two machines only save the second look; they never decide.

use super::exit::CtlExit;
use super::view::{ClusterView, NodeView, ShardView};
use crate::cluster::Etcd;
use crate::cluster::keys::ClusterKeys;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Nodes write their record about once a second.
const NODE_SETTLES: Duration = Duration::from_millis(2500);

/// A record of a node that is not further from now needs no second look.
const FRESH: Duration = Duration::from_secs(3);

/// Longest look at an owner. One whose lease is longer is judged by the record of its node.
const OWNER_SETTLES_MAX: Duration = Duration::from_secs(3);

/// Longest wait for an answer of etcd.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Everything, and who is silent.
pub(super) fn look(etcd: &mut Etcd, keys: &ClusterKeys) -> Result<ClusterView, CtlExit> {
    let start = Instant::now();
    let first = glance(etcd, keys)?;
    let mut view = first.clone();
    while !is_settled(&first, &mut view, start.elapsed(), unix_ms()) {
        std::thread::sleep(LOOK_EVERY);
        view = glance(etcd, keys)?;
    }
    Ok(view)
}

/// Everything as it is now; nobody counts as silent.
pub(super) fn glance(etcd: &mut Etcd, keys: &ClusterKeys) -> Result<ClusterView, CtlExit> {
    Ok(ClusterView::new(keys, &etcd.list(keys.all(), PATIENCE)?.items))
}

pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// Sets who is silent, by what was there when the look began, `ago`. False: it is not known yet.
pub(super) fn is_settled(first: &ClusterView, view: &mut ClusterView, ago: Duration, unix_ms: u64) -> bool {
    let mut is_settled = true;
    for (name, shard) in &mut view.shards {
        let before = first.shards.get(name);
        for (name, node) in &mut shard.nodes {
            let before = before.and_then(|shard| shard.nodes.get(name));
            is_settled &= is_node_settled(before, node, ago, unix_ms);
        }
        is_settled &= is_owner_settled(before, shard, ago);
    }
    is_settled
}

fn is_node_settled(before: Option<&NodeView>, node: &mut NodeView, ago: Duration, unix_ms: u64) -> bool {
    let Some((revision, record)) = &node.record else {
        node.is_silent = true;
        return true;
    };
    let differs = record.unix_ms as i64 - unix_ms as i64;
    if Duration::from_millis(differs.unsigned_abs()) <= FRESH {
        return true;
    }
    if before.and_then(|node| node.record.as_ref()).is_none_or(|(before, _)| before != revision) {
        node.clock_ms = Some(differs);
        return true;
    }
    node.is_silent = true;
    node.silent_ms = u64::try_from(-differs).ok();
    ago >= NODE_SETTLES
}

fn is_owner_settled(before: Option<&ShardView>, shard: &mut ShardView, ago: Duration) -> bool {
    let (Some((revision, record)), Some(owner)) = (&shard.record, shard.owner()) else { return true };
    if before.and_then(|shard| shard.record.as_ref()).is_none_or(|(before, _)| before != revision) {
        return true;
    }
    let lease = Duration::from_millis(record.lease_ms);
    let settles = lease + lease / 10;
    let is_silent = match settles > OWNER_SETTLES_MAX {
        true => shard.nodes.get(owner).is_none_or(|node| node.is_silent),
        false => true,
    };
    shard.is_owner_silent = is_silent;
    ago >= settles.min(OWNER_SETTLES_MAX)
}
