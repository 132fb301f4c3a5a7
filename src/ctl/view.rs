//! What etcd holds of a cluster, put together by shards and nodes.
//!
//! ```text
//!   shards/s ──┐
//!   nodes/s/n ─┼──> ShardView: record, is_paused, request, nodes ──> NodeView
//!   pause/s ───┤
//!   requests/s ┘
//! ```
//!
//! A node is one that has a record of its own, or that the shard record names.
//!
//! Invariant: a value that is no record makes nothing else unreadable; it is in `damaged`. Not here: who is silent
//! (`look`), what is wrong (`diagnosis`).

use crate::cluster::Versioned;
use crate::cluster::keys::ClusterKeys;
use crate::cluster::record::{NodeRecord, PeerRecord, RequestRecord, ShardRecord, TopologyRecord, from_bytes};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// A cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClusterView {
    /// The shards by name.
    pub shards: BTreeMap<String, ShardView>,
    /// Where clients find them, with the revision of that.
    pub topology: Option<(i64, TopologyRecord)>,
    /// Keys whose values are no records, with what is wrong.
    pub damaged: Vec<(String, String)>,
}

/// A shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ShardView {
    /// Who owns it, with the revision of that.
    pub record: Option<(i64, ShardRecord)>,
    /// Whether nobody takes over by himself.
    pub is_paused: bool,
    /// What it is asked for, with the revision of that.
    pub request: Option<(i64, RequestRecord)>,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// Whether the owner does not renew its lease.
    pub is_owner_silent: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeView {
    /// How it is, in its own words, with the revision of that.
    pub record: Option<(i64, NodeRecord)>,
    /// Whether it does not write its record any more.
    pub is_silent: bool,
    /// Since when, by the clocks of the node and of this machine, if they say something that can be.
    pub silent_ms: Option<u64>,
    /// Its clock is ahead of this machine's by so much, if that is worth a word.
    pub clock_ms: Option<i64>,
}

impl ClusterView {
    /// What these keys and values say.
    pub(super) fn new(keys: &ClusterKeys, items: &[(String, Versioned)]) -> ClusterView {
        let mut view = ClusterView::default();
        for (key, value) in items {
            view.add(keys, key, value);
        }
        let shards = view.shards.values_mut();
        shards.for_each(ShardView::add_named_nodes);
        view
    }

    fn add(&mut self, keys: &ClusterKeys, key: &str, value: &Versioned) {
        let Some(words) = key.strip_prefix(keys.all()) else { return };
        match words.split('/').collect::<Vec<_>>()[..] {
            ["shards", shard] => {
                let record = self.parsed(key, value);
                self.shard(shard).record = record;
            }
            ["nodes", shard, node] => {
                let record = self.parsed(key, value);
                self.shard(shard).nodes.entry(node.to_owned()).or_default().record = record;
            }
            ["requests", shard] => {
                let request = self.parsed(key, value);
                self.shard(shard).request = request;
            }
            ["pause", shard] => self.shard(shard).is_paused = true,
            ["topology"] => self.topology = self.parsed(key, value),
            _ => {}
        }
    }

    fn shard(&mut self, name: &str) -> &mut ShardView {
        self.shards.entry(name.to_owned()).or_default()
    }

    fn parsed<T: DeserializeOwned>(&mut self, key: &str, value: &Versioned) -> Option<(i64, T)> {
        let parsed = from_bytes(&value.bytes).map_err(|why| self.damaged.push((key.to_owned(), why)));
        Some((value.mod_revision, parsed.ok()?))
    }
}

impl ShardView {
    /// The owner's name, if there is one.
    pub(super) fn owner(&self) -> Option<&str> {
        self.record().map(|record| record.owner.as_str()).filter(|owner| !owner.is_empty())
    }

    pub(super) fn record(&self) -> Option<&ShardRecord> {
        self.record.as_ref().map(|(_, record)| record)
    }

    pub(super) fn is_owner(&self, node: &str) -> bool {
        self.owner() == Some(node)
    }

    /// Whether a node may take over: it stands in the record with the run that it is now.
    pub(super) fn is_in_sync(&self, node: &str) -> bool {
        let run = self.node_record(node).map(|record| &record.run);
        let mut members = self.record().into_iter().flat_map(|record| &record.members);
        members.any(|member| member.node == node && run.is_none_or(|run| *run == member.run))
    }

    /// How many may take over.
    pub(super) fn in_sync(&self) -> usize {
        self.nodes.keys().filter(|node| self.is_in_sync(node)).count()
    }

    /// How the owner sees a node that it sends to.
    pub(super) fn peer(&self, node: &str) -> Option<&PeerRecord> {
        self.node_record(self.owner()?)?.peers.iter().find(|peer| peer.node == node)
    }

    pub(super) fn node_record(&self, node: &str) -> Option<&NodeRecord> {
        self.nodes.get(node).and_then(NodeView::record)
    }

    fn add_named_nodes(&mut self) {
        let Some((_, record)) = &self.record else { return };
        let members = record.members.iter().map(|member| &member.node);
        for name in record.nodes.iter().chain(members).chain(Some(&record.owner)).filter(|name| !name.is_empty()) {
            self.nodes.entry(name.clone()).or_default();
        }
    }
}

impl NodeView {
    pub(super) fn record(&self) -> Option<&NodeRecord> {
        self.record.as_ref().map(|(_, record)| record)
    }
}

/// How far a peer is behind, if that is known.
pub(super) fn lag_of(peer: &PeerRecord) -> Option<u64> {
    (peer.lag_ms != u64::MAX).then_some(peer.lag_ms)
}
