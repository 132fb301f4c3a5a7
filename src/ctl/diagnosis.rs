//! What is wrong with a shard, in plain words, the worst first.
//!
//! Invariant: all is well exactly when nothing is said.

use super::view::{NodeView, ShardView};
use crate::cluster::record::{EPOCH_MAX, ShardRecord};

/// One line for each thing that is wrong.
pub(super) fn problems(shard: &ShardView) -> Vec<String> {
    let mut found = Vec::new();
    match shard.record() {
        None => found.push("no owner: nobody has owned this shard yet".to_owned()),
        Some(record) => {
            found.extend(of_owner(shard, record).into_iter().chain(of_members(shard, record)));
            if record.epoch > EPOCH_MAX / 2 {
                let epoch = record.epoch;
                found.push(format!(
                    "epochs are scarce: {epoch} of {EPOCH_MAX} are used; see THE EPOCHS in twincache(7)"
                ));
            }
        }
    }
    if shard.is_paused {
        found.push("paused: no node takes over by itself until `resume`".to_owned());
    }
    found.extend(shard.nodes.iter().filter_map(|(name, node)| of_node(shard, name, node)));
    found
}

fn of_owner(shard: &ShardView, record: &ShardRecord) -> Option<String> {
    let epoch = record.epoch;
    let Some(owner) = shard.owner() else {
        return Some(format!("no owner: it was given back in epoch {epoch}, and no node has taken it over"));
    };
    if shard.is_owner_silent {
        return Some(format!("the owner is silent: {owner} does not renew its lease of {} ms", record.lease_ms));
    }
    let said = shard.node_record(owner)?;
    if said.run != record.run {
        return Some(format!("the server of the owner {owner} has been started again, and has no data yet"));
    }
    (said.role != "primary" || said.epoch != epoch)
        .then(|| format!("{owner} owns the shard, but says that it is {}", said.role))
}

fn of_members(shard: &ShardView, record: &ShardRecord) -> Option<String> {
    let (in_sync, asked) = (shard.in_sync(), record.replicas_ack as usize);
    let owner = shard.owner();
    if owner.is_some() && in_sync < asked {
        return Some(format!("changes are refused: they wait for {asked} nodes in sync, and there are {in_sync}"));
    }
    let is_alone = shard.nodes.len() < 2;
    match in_sync {
        0 if is_alone => Some("no copy: the shard has a single node".to_owned()),
        0 => Some("nobody is in sync: no node can take over with the data".to_owned()),
        _ => None,
    }
}

fn of_node(shard: &ShardView, name: &str, node: &NodeView) -> Option<String> {
    let Some(record) = node.record() else {
        return Some(format!("{name} has said nothing yet, or was removed"));
    };
    if node.is_silent {
        return Some(match node.silent_ms {
            Some(ms) => format!("{name} has not been heard of for {} s", ms / 1000),
            None => format!("{name} is not heard of any more"),
        });
    }
    if record.role == "down" {
        return Some(format!("the server of {name} is not there"));
    }
    if let Some(ms) = node.clock_ms {
        let (seconds, word) = (ms.unsigned_abs() / 1000, if ms > 0 { "ahead of" } else { "behind" });
        return Some(format!("the clock of {name} is {seconds} s {word} this machine's"));
    }
    let is_standby = shard.owner().is_some_and(|owner| owner != name);
    (is_standby && !shard.is_in_sync(name)).then(|| match shard.peer(name) {
        Some(peer) => format!("{name} is not in sync: {}", peer.state),
        None => format!("{name} is not in sync: the owner does not send to it"),
    })
}
