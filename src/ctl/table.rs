//! The cluster as text.
//!
//! ```text
//!   SHARD  NODE  ROLE     EPOCH  LAG   IN SYNC  ITEMS  ADDRESS
//!   s1     a     primary  3      -     -        100    10.0.0.1:11211
//!   s1     b     standby  3      2 ms  yes      100    10.0.0.2:11211
//! ```
//!
//! Not here: where it comes from (`look`).

use super::view::{NodeView, ShardView, lag_of};
use crate::cluster::record::PeerRecord;

/// The heads of the columns, after the shard's name.
const HEADS: [&str; 8] = ["SHARD", "NODE", "ROLE", "EPOCH", "LAG", "IN SYNC", "ITEMS", "ADDRESS"];

/// The table of these shards.
pub(super) fn table<'a>(shards: impl Iterator<Item = (&'a String, &'a ShardView)>) -> String {
    let mut rows = vec![HEADS.map(str::to_owned)];
    for (name, shard) in shards {
        let before = rows.len();
        rows.extend(shard.nodes.iter().map(|(node, view)| row(name, shard, node, view)));
        if rows.len() == before {
            rows.push([name, "-", "-", "-", "-", "-", "-", "-"].map(str::to_owned));
        }
    }
    aligned(&rows)
}

/// Rows of cells in columns.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(name: &str, shard: &ShardView, node: &str, view: &NodeView) -> [String; 8] {
    let dash = || "-".to_owned();
    let is_owner = shard.is_owner(node);
    let record = view.record();
    let lag = match shard.peer(node) {
        _ if is_owner || view.is_silent || shard.is_owner_silent => dash(),
        Some(PeerRecord { state, sync_percent: Some(percent), .. }) if state != "streaming" => {
            format!("{state} {}%", percent.min(&100))
        }
        Some(peer) if peer.state != "streaming" => peer.state.clone(),
        Some(peer) => lag_of(peer).map_or_else(dash, |ms| format!("{ms} ms")),
        None => dash(),
    };
    let in_sync = match (is_owner, shard.is_in_sync(node)) {
        (true, _) => "-",
        (_, true) => "yes",
        (_, false) => "no",
    };
    [
        name.to_owned(),
        node.to_owned(),
        role(shard, node, view),
        record.map_or_else(dash, |record| record.epoch.to_string()),
        lag,
        in_sync.to_owned(),
        record.map_or_else(dash, |record| record.items.to_string()),
        record.map_or_else(dash, |record| record.advertise.clone()),
    ]
}

/// What a node is, as far as anybody can tell.
pub(super) fn role(shard: &ShardView, node: &str, view: &NodeView) -> String {
    match view.record() {
        None => "unknown".to_owned(),
        Some(_) if view.is_silent || shard.is_owner(node) && shard.is_owner_silent => "silent".to_owned(),
        Some(record) => record.role.clone(),
    }
}

/// A number in the largest unit in which it is at least 1.
pub(super) fn scaled(mut number: f64, step: f64, units: &[&str]) -> String {
    let mut at = 0;
    while number >= step && at + 1 < units.len() {
        number /= step;
        at += 1;
    }
    let digits = usize::from(number < 100.0 && number.fract() != 0.0);
    format!("{number:.digits$} {}", units[at])
}
