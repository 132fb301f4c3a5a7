//! What `--json` prints: the fields are those of the man page, and stay.
//!
//! A number that is not known is `null`. Names and keys are strangers' texts, and this may go to a terminal: what would
//! command one is escaped.

use super::diagnosis::problems;
use super::table::role;
use super::view::{NodeView, ShardView, lag_of};
use crate::cluster::record::RequestRecord;
use serde::Serialize;

/// All that is shown.
#[derive(Serialize)]
struct ClusterJson<'a> {
    cluster: &'a str,
    shards: Vec<ShardJson<'a>>,
}

/// A shard.
#[derive(Serialize)]
struct ShardJson<'a> {
    shard: &'a str,
    epoch: u64,
    owner: Option<&'a str>,
    is_owner_silent: bool,
    is_paused: bool,
    lease_ms: u64,
    replicas_ack: u32,
    request: Option<&'a RequestRecord>,
    nodes: Vec<NodeJson<'a>>,
    problems: Vec<String>,
}

/// A node.
#[derive(Serialize)]
struct NodeJson<'a> {
    node: &'a str,
    role: String,
    epoch: u64,
    is_owner: bool,
    is_in_sync: bool,
    is_silent: bool,
    silent_ms: Option<u64>,
    state: Option<&'a str>,
    lag_ms: Option<u64>,
    lag_bytes: Option<u64>,
    sync_percent: Option<u64>,
    items: u64,
    bytes: u64,
    lsn: u64,
    run: &'a str,
    address: &'a str,
    http: &'a str,
}

/// These shards as one object, with a line end.
pub(super) fn json<'a>(cluster: &str, shards: impl Iterator<Item = (&'a String, &'a ShardView)>) -> String {
    let shards = shards.map(|(name, shard)| shard_json(name, shard)).collect();
    pretty(&ClusterJson { cluster, shards })
}

/// A value as JSON, with a line end.
pub(super) fn pretty(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("there are no maps with odd keys");
    format!("{}\n", inert(&text))
}

/// JSON in which nothing commands a terminal or turns its text around: escapes what serde leaves as it is. Outside of
/// strings JSON has no such letters.
fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\u{7f}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}'
            | '\u{feff}' => text += &format!("\\u{:04x}", u32::from(letter)),
            _ => text.push(letter),
        }
    }
    text
}

fn shard_json<'a>(name: &'a str, shard: &'a ShardView) -> ShardJson<'a> {
    let record = shard.record();
    ShardJson {
        shard: name,
        epoch: record.map_or(0, |record| record.epoch),
        owner: shard.owner(),
        is_owner_silent: shard.is_owner_silent,
        is_paused: shard.is_paused,
        lease_ms: record.map_or(0, |record| record.lease_ms),
        replicas_ack: record.map_or(0, |record| record.replicas_ack),
        request: shard.request.as_ref().map(|(_, request)| request),
        nodes: shard.nodes.iter().map(|(name, node)| node_json(shard, name, node)).collect(),
        problems: problems(shard),
    }
}

fn node_json<'a>(shard: &'a ShardView, name: &'a str, node: &'a NodeView) -> NodeJson<'a> {
    let record = node.record();
    let peer = shard.peer(name);
    let number = |of: fn(&crate::cluster::record::NodeRecord) -> u64| record.map_or(0, of);
    NodeJson {
        node: name,
        role: role(shard, name, node),
        epoch: number(|record| record.epoch),
        is_owner: shard.is_owner(name),
        is_in_sync: !shard.is_owner(name) && shard.is_in_sync(name),
        is_silent: node.is_silent,
        silent_ms: node.silent_ms,
        state: peer.map(|peer| peer.state.as_str()),
        lag_ms: peer.and_then(lag_of),
        lag_bytes: peer.map(|peer| peer.lag_bytes),
        sync_percent: peer.and_then(|peer| peer.sync_percent),
        items: number(|record| record.items),
        bytes: number(|record| record.bytes),
        lsn: number(|record| record.lsn),
        run: record.map_or("", |record| &record.run),
        address: record.map_or("", |record| &record.advertise),
        http: record.map_or("", |record| &record.http),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_json() {
        let name = "a\u{7f}\u{9b}2J\u{200f}\u{202e}\u{2066}\u{feff}\u{1b}é\u{1f600}";
        let text = pretty(&name);
        assert_eq!(text, "\"a\\u007f\\u009b2J\\u200f\\u202e\\u2066\\ufeff\\u001bé\u{1f600}\"\n");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), name);
    }
}
