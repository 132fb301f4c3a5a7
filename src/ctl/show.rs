//! `list` and `status`.
//!
//! Not here: what is wrong (`diagnosis`), the layout (`table`, `json`).

use super::console::Console;
use super::diagnosis::problems;
use super::exit::CtlExit;
use super::json;
use super::look::{glance, look};
use super::table::table;
use super::view::{ClusterView, NodeView, ShardView};
use std::collections::BTreeMap;

/// All shards, or these, in one table, and below it what is wrong.
pub(super) fn list(console: &mut Console, names: &[String], is_json: bool) -> Result<(), CtlExit> {
    let shards = seen(console, names)?;
    if is_json {
        console.print(&json::json(&console.cluster, shards.iter()));
        return Ok(());
    }
    if shards.is_empty() {
        console.say(&format!("cluster {} has no shards", console.cluster));
        return Ok(());
    }
    console.print(&table(shards.iter()));
    let lines = shards.iter().flat_map(|(name, shard)| problems(shard).into_iter().map(move |line| (name, line)));
    for (at, (name, line)) in lines.enumerate() {
        console.print(if at == 0 { "\n" } else { "" });
        console.say(&format!("{name}: {line}"));
    }
    Ok(())
}

/// The same in detail; an error that says nothing if something is wrong.
pub(super) fn status(console: &mut Console, names: &[String], is_json: bool) -> Result<(), CtlExit> {
    let shards = seen(console, names)?;
    if is_json {
        console.print(&json::json(&console.cluster, shards.iter()));
    } else {
        let texts: Vec<String> = shards.iter().map(|(name, shard)| detail(&console.cluster, name, shard)).collect();
        console.print(&texts.join("\n"));
    }
    if shards.is_empty() {
        return Err(CtlExit::not_done(&format!("cluster {} has no shards", console.cluster)));
    }
    match shards.values().all(|shard| problems(shard).is_empty()) {
        true => Ok(()),
        false => Err(CtlExit::silent(CtlExit::NOT_DONE)),
    }
}

/// The shards that are asked for; all if none is.
pub(super) fn seen(console: &mut Console, names: &[String]) -> Result<BTreeMap<String, ShardView>, CtlExit> {
    let ClusterView { mut shards, damaged, .. } = look(&mut console.etcd, &console.keys)?;
    for (key, why) in damaged {
        console.warn(&format!("{key} in etcd is damaged: {why}"));
    }
    if let Some(name) = names.iter().find(|name| !shards.contains_key(*name)) {
        return Err(CtlExit::not_done(&no_shard(&console.cluster, name, &shards)));
    }
    shards.retain(|name, _| names.is_empty() || names.contains(name));
    Ok(shards)
}

/// Where the servers of all nodes are reached.
pub(super) fn addresses(console: &mut Console) -> Result<Vec<String>, CtlExit> {
    let shards = glance(&mut console.etcd, &console.keys)?.shards;
    let nodes = shards.values().flat_map(|shard| shard.nodes.values()).filter_map(NodeView::record);
    let found: Vec<String> = nodes.map(|record| record.advertise.clone()).filter(|it| !it.is_empty()).collect();
    match found.is_empty() {
        true => Err(CtlExit::not_done(&format!("cluster {} has no servers", console.cluster))),
        false => Ok(found),
    }
}

/// That there is no such shard, and which there are.
pub(super) fn no_shard(cluster: &str, name: &str, shards: &BTreeMap<String, ShardView>) -> String {
    let names: Vec<&str> = shards.keys().map(String::as_str).collect();
    let there = if names.is_empty() { "no shards".to_owned() } else { format!("these: {}", names.join(", ")) };
    format!("there is no shard {name}; cluster {cluster} has {there}")
}

/// One shard: its record, its nodes, and what is wrong.
pub(super) fn detail(cluster: &str, name: &str, shard: &ShardView) -> String {
    let mut text = format!("shard {name} of cluster {cluster}\n");
    if let Some(record) = shard.record() {
        let owner = match shard.owner() {
            Some(owner) => format!("{owner}, run {}, at {}", record.run, record.advertise),
            None => "nobody".to_owned(),
        };
        let members: Vec<&str> = record.members.iter().map(|member| member.node.as_str()).collect();
        let members = if members.is_empty() { "nobody".to_owned() } else { members.join(", ") };
        text += &format!("  owner    {owner}\n  epoch    {}\n  lease    {} ms\n", record.epoch, record.lease_ms);
        text += &format!("  in sync  {members}\n");
        let waits = match record.replicas_ack {
            0 => "for nobody".to_owned(),
            number => format!("for all nodes in sync, at least {number}"),
        };
        text += &format!("  replies  wait {waits}\n");
    }
    if let Some((_, request)) = &shard.request {
        text += &format!("  asked    {request}\n");
    }
    text += &format!("\n{}\n", table([(&name.to_owned(), shard)].into_iter()));
    let problems = problems(shard);
    text += if problems.is_empty() { "all is well\n" } else { "what is wrong:\n" };
    problems.iter().for_each(|line| text += &format!("  {line}\n"));
    text
}
