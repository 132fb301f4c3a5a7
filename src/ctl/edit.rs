//! `pause`, `resume`, `remove` and `topology`: values in etcd that the sidecars obey.
//!
//! Invariants: a record that others write, too, is changed by compare-and-swap only; the order of the topology never
//! changes, and its version grows by one with each change.
//!
//! Not here: who obeys (`sidecar::lease`).

use super::console::Console;
use super::exit::CtlExit;
use super::json::pretty;
use super::look::{PATIENCE, glance};
use super::request::{check_node, shard};
use super::show::no_shard;
use super::table::aligned;
use crate::cluster::Swap;
use crate::cluster::record::{ShardAddress, ShardRecord, TopologyRecord, from_bytes, to_bytes};
use crate::protocol::topology::TopologyLine;
use std::time::Duration;

/// Tries of a compare-and-swap. The owner of a shard changes its record several times in a lease.
const TRIES: u32 = 100;

/// The pause after a try that has lost.
const RETRY: Duration = Duration::from_millis(7);

/// How long an owner may take to see that a node has been removed, and to name it no more.
const OWNER_NOTICES: Duration = Duration::from_millis(500);

/// Switches automatic takeovers off, or on again, for these shards; None is all.
pub(super) fn pause(console: &mut Console, names: Option<&[String]>, is_paused: bool) -> Result<(), CtlExit> {
    let shards = glance(&mut console.etcd, &console.keys)?.shards;
    let all: Vec<String> = shards.keys().cloned().collect();
    let names = names.unwrap_or(&all);
    if let Some(name) = names.iter().find(|name| !shards.contains_key(*name)) {
        return Err(CtlExit::not_done(&no_shard(&console.cluster, name, &shards)));
    }
    for name in names {
        let key = console.keys.pause(name);
        let said = if is_paused {
            console.etcd.put(&key, b"{}", PATIENCE)?;
            "paused: from a second from now on, no node takes over by itself"
        } else {
            console.etcd.delete(&key, PATIENCE)?;
            "not paused: nodes take over by themselves"
        };
        console.say(&format!("{name}: {said}"));
    }
    Ok(())
}

/// Forgets a node of a shard.
pub(super) fn remove(console: &mut Console, name: &str, node: &str, is_dry: bool) -> Result<(), CtlExit> {
    let shard = shard(console, name)?;
    check_node(name, node, &shard)?;
    if shard.is_owner(node) {
        return Err(CtlExit::not_done(&format!("{node} owns {name}: another node has to take over first")));
    }
    let view = &shard.nodes[node];
    let items = view.record().map_or(0, |record| record.items);
    let is_there = view.record().is_some() && !view.is_silent;
    let in_sync = if shard.is_in_sync(node) { ", and is in sync" } else { "" };
    console.say(&format!("{node} holds {items} items{in_sync}; {} other nodes remain", shard.nodes.len() - 1));
    if is_dry {
        return Ok(());
    }
    if is_there {
        return Err(CtlExit::not_done(&format!("{node} is there and would come back: stop its sidecar first")));
    }
    console.etcd.delete(&console.keys.node(name, node), PATIENCE)?;
    strike(console, name, node)?;
    if !shard.is_owner_silent && shard.owner().is_some() {
        // An owner that still fed it may have named it again.
        std::thread::sleep(OWNER_NOTICES);
        strike(console, name, node)?;
    }
    console.say(&format!("{name}: {node} is removed"));
    Ok(())
}

/// Takes a node out of the shard's record, unless it owns the shard.
fn strike(console: &mut Console, name: &str, node: &str) -> Result<(), CtlExit> {
    let key = console.keys.shard(name);
    let mut there = console.etcd.get(&key, PATIENCE)?;
    for _ in 0..TRIES {
        let Some(value) = &there.value else { return Ok(()) };
        let damaged = |why: String| CtlExit::not_done(&format!("{key} in etcd is damaged: {why}"));
        let mut record: ShardRecord = from_bytes(&value.bytes).map_err(damaged)?;
        if record.owner == node {
            return Err(CtlExit::not_done(&format!("{node} has become the owner meanwhile, and stays")));
        }
        let before = (record.nodes.len(), record.members.len());
        record.nodes.retain(|name| name != node);
        record.members.retain(|member| member.node != node);
        if before == (record.nodes.len(), record.members.len()) {
            return Ok(());
        }
        match console.etcd.swap(&key, value.mod_revision, &to_bytes(&record), PATIENCE)? {
            Swap::Won(_) => return Ok(()),
            Swap::Lost(now) => there = now,
        }
        std::thread::sleep(RETRY);
    }
    Err(CtlExit::not_done("the record changes all the time: try again"))
}

// ---- topology ----

/// Shows where clients that discover are sent.
pub(super) fn list_topology(console: &mut Console, is_json: bool) -> Result<(), CtlExit> {
    let there = glance(&mut console.etcd, &console.keys)?.topology;
    let record = there.map(|(_, record)| record).unwrap_or_default();
    if is_json {
        console.print(&pretty(&record));
    } else if record.shards.is_empty() {
        console.say("no topology: clients that ask for one are told that there is none");
    } else {
        let row = |shard: &ShardAddress| {
            let ip = if shard.ip.is_empty() { "-" } else { &shard.ip };
            [shard.name.clone(), shard.host.clone(), ip.to_owned(), shard.port.to_string()]
        };
        let heads = ["SHARD", "HOST", "IP", "PORT"].map(str::to_owned);
        let rows: Vec<_> = [heads].into_iter().chain(record.shards.iter().map(row)).collect();
        console.print(&format!("version {}\n{}", record.version, aligned(&rows)));
    }
    Ok(())
}

/// Adds a shard at the end, or gives one another address in its place.
pub(super) fn add_to_topology(console: &mut Console, address: &ShardAddress) -> Result<(), CtlExit> {
    change_topology(console, |shards| {
        match shards.iter_mut().find(|shard| shard.name == address.name) {
            Some(shard) => *shard = address.clone(),
            None => shards.push(address.clone()),
        }
        Ok(())
    })
}

/// Takes a shard out.
pub(super) fn remove_from_topology(console: &mut Console, name: &str) -> Result<(), CtlExit> {
    change_topology(console, |shards| match (shards.iter().position(|shard| shard.name == name), shards.len()) {
        (None, _) => Err(format!("the topology has no shard {name}")),
        (Some(_), 1) => Err(format!("{name} is the only one, and clients must be told of one at least")),
        (Some(at), _) => {
            shards.remove(at);
            Ok(())
        }
    })
}

fn change_topology(
    console: &mut Console,
    change: impl Fn(&mut Vec<ShardAddress>) -> Result<(), String>,
) -> Result<(), CtlExit> {
    let key = console.keys.topology();
    let mut there = console.etcd.get(&key, PATIENCE)?;
    for _ in 0..TRIES {
        let damaged = |why: String| CtlExit::not_done(&format!("{key} in etcd is damaged: {why}"));
        let before: TopologyRecord = match &there.value {
            Some(value) => from_bytes(&value.bytes).map_err(damaged)?,
            None => TopologyRecord::default(),
        };
        let mut record = before.clone();
        change(&mut record.shards).map_err(|why| CtlExit::not_done(&why))?;
        if record == before {
            console.say(&format!("the topology is that already, in version {}", record.version));
            return Ok(());
        }
        record.version += 1;
        if TopologyLine::parse(record.to_string().as_bytes()).is_none() {
            return Err(CtlExit::not_done("not possible: clients take 64 shards at most, and 2147483647 versions"));
        }
        match console.etcd.swap(&key, there.mod_revision(), &to_bytes(&record), PATIENCE)? {
            Swap::Won(_) => {
                console.say(&format!("the topology has version {} now", record.version));
                return Ok(());
            }
            Swap::Lost(now) => there = now,
        }
        std::thread::sleep(RETRY);
    }
    Err(CtlExit::not_done("the topology changes all the time: try again"))
}
