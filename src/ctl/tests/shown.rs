//! What is shown of clusters that the tests put together, with fixed times.

use super::diagnosis::problems;
use super::json::json;
use super::look::is_settled;
use super::show::detail;
use super::table::table;
use super::view::ClusterView;
use crate::cluster::Versioned;
use crate::cluster::keys::ClusterKeys;
use crate::cluster::record::{MemberRecord, NodeRecord, PeerRecord, ShardRecord, to_bytes};
use serde::Serialize;
use std::time::Duration;

/// The time of this machine.
const NOW: u64 = 1_000_000_000;

/// Values that are being put into etcd.
#[derive(Clone, Default)]
struct Keyed(Vec<(String, Versioned)>);

impl Keyed {
    fn put(mut self, key: &str, record: &impl Serialize) -> Keyed {
        let key = format!("/twincache/c/{key}");
        let mod_revision = self.0.iter().map(|(_, value)| value.mod_revision).max().unwrap_or(0) + 1;
        self.0.retain(|(other, _)| *other != key);
        self.0.push((key, Versioned { bytes: to_bytes(record), mod_revision, version: 1 }));
        self
    }

    /// As seen at once and after so many milliseconds, when nothing has changed.
    fn view(&self, ago: u64) -> ClusterView {
        self.seen_after(self, ago).0
    }

    /// As seen now, with what was there at first; whether all is known.
    fn seen_after(&self, first: &Keyed, ago: u64) -> (ClusterView, bool) {
        let keys = ClusterKeys::new("c");
        let first = ClusterView::new(&keys, &first.0);
        let mut view = ClusterView::new(&keys, &self.0);
        let is_settled = is_settled(&first, &mut view, Duration::from_millis(ago), NOW);
        (view, is_settled)
    }

    fn problems(&self) -> Vec<String> {
        problems(&self.renewed().seen_after(self, 100).0.shards["s1"])
    }

    /// The same after all owners have renewed their leases.
    fn renewed(&self) -> Keyed {
        let mut later = self.clone();
        let shards = later.0.iter_mut().filter(|(key, _)| key.contains("/shards/"));
        shards.for_each(|(_, value)| value.mod_revision += 1000);
        later
    }
}

fn shard(owner: &str, members: &[&str]) -> ShardRecord {
    let members = members.iter().map(|node| MemberRecord { node: (*node).into(), run: format!("run-{node}") });
    ShardRecord {
        epoch: 3,
        owner: owner.into(),
        run: format!("run-{owner}"),
        lease_ms: 1000,
        advertise: format!("10.0.0.1:1121{owner}"),
        members: members.collect(),
        nodes: ["a", "b"].map(str::to_owned).into(),
        ..ShardRecord::default()
    }
}

fn node(name: &str, role: &str, peers: &[(&str, &str, u64)]) -> NodeRecord {
    let peers = peers.iter().map(|(node, state, lag_ms)| PeerRecord {
        node: (*node).into(),
        state: (*state).into(),
        lag_ms: *lag_ms,
        lag_bytes: 0,
        sync_percent: (*state == "walking").then_some(43),
    });
    NodeRecord {
        node: name.into(),
        run: format!("run-{name}"),
        advertise: format!("{name}.example:11211"),
        role: role.into(),
        epoch: 3,
        items: 1200,
        unix_ms: NOW - 500,
        peers: peers.collect(),
        ..NodeRecord::default()
    }
}

/// Two nodes, and all is well.
fn pair() -> Keyed {
    Keyed::default()
        .put("shards/s1", &shard("a", &["b"]))
        .put("nodes/s1/a", &node("a", "primary", &[("b", "streaming", 2)]))
        .put("nodes/s1/b", &node("b", "standby", &[]))
}

#[test]
fn a_table_of_two_shards() {
    let cluster = pair()
        .put("shards/second", &shard("", &[]))
        .put("nodes/second/a", &node("a", "waiting", &[]))
        .put("nodes/second/b", &NodeRecord { unix_ms: NOW - 61_000, ..node("b", "standby", &[]) })
        .put("pause/third", &"");
    let view = cluster.renewed().seen_after(&cluster, 100).0;
    let expected = "\
SHARD   NODE  ROLE     EPOCH  LAG   IN SYNC  ITEMS  ADDRESS
s1      a     primary  3      -     -        1200   a.example:11211
s1      b     standby  3      2 ms  yes      1200   b.example:11211
second  a     waiting  3      -     no       1200   a.example:11211
second  b     silent   3      -     no       1200   b.example:11211
third   -     -        -      -     -        -      -
";
    assert_eq!(table(view.shards.iter()), expected);
}

#[test]
fn a_shard_in_detail() {
    let expected = "\
shard s1 of cluster c
  owner    a, run run-a, at 10.0.0.1:1121a
  epoch    3
  lease    1000 ms
  in sync  b
  replies  wait for nobody

SHARD  NODE  ROLE     EPOCH  LAG   IN SYNC  ITEMS  ADDRESS
s1     a     primary  3      -     -        1200   a.example:11211
s1     b     standby  3      2 ms  yes      1200   b.example:11211

";
    let view = pair().renewed().seen_after(&pair(), 100).0;
    assert_eq!(detail("c", "s1", &view.shards["s1"]), format!("{expected}all is well\n"));
    let paused = pair().put("pause/s1", &"").renewed().seen_after(&pair(), 100).0;
    let wrong = "what is wrong:\n  paused: no node takes over by itself until `resume`\n";
    assert_eq!(detail("c", "s1", &paused.shards["s1"]), format!("{expected}{wrong}"));
}

#[test]
fn what_is_wrong_is_said() {
    let a = node("a", "primary", &[("b", "walking", u64::MAX)]);
    let table = [
        (pair(), ""),
        (pair().put("shards/s1", &shard("", &["b"])), "no owner: it was given back in epoch 3, and no node has"),
        (pair().put("shards/s1", &shard("a", &[])), "nobody is in sync: no node can take over with the data"),
        (pair().put("nodes/s1/a", &a).put("shards/s1", &shard("a", &[])), "b is not in sync: walking"),
        (
            pair().put("shards/s1", &ShardRecord { replicas_ack: 2, ..shard("a", &["b"]) }),
            "changes are refused: they wait for 2 nodes in sync, and there are 1",
        ),
        (pair().put("nodes/s1/b", &NodeRecord { run: "new".into(), ..node("b", "standby", &[]) }), "nobody is in sync"),
        (
            pair().put("nodes/s1/a", &NodeRecord { run: "new".into(), ..a }),
            "server of the owner a has been started again",
        ),
        (pair().put("nodes/s1/a", &node("a", "standby", &[])), "a owns the shard, but says that it is standby"),
        (pair().put("nodes/s1/b", &node("b", "down", &[])), "the server of b is not there"),
        (
            pair().put("nodes/s1/b", &NodeRecord { unix_ms: NOW - 61_000, ..node("b", "standby", &[]) }),
            "b has not been heard of for 61 s",
        ),
        (
            pair().put("nodes/s1/b", &NodeRecord { unix_ms: NOW + 61_000, ..node("b", "standby", &[]) }),
            "b is not heard of any more",
        ),
        (pair().put("shards/s1", &shard("a", &["b", "c"])), "c has said nothing yet, or was removed"),
        (Keyed::default().put("nodes/s1/a", &node("a", "waiting", &[])), "no owner: nobody has owned this shard yet"),
    ];
    for (cluster, expected) in table {
        let problems = cluster.problems();
        let is_said = problems.iter().any(|line| line.contains(expected));
        assert!(if expected.is_empty() { problems.is_empty() } else { is_said }, "{expected}: {problems:?}");
    }
}

#[test]
fn an_owner_is_silent_when_a_lease_has_passed_without_a_change() {
    let (view, is_settled) = pair().seen_after(&pair(), 1000);
    assert!(view.shards["s1"].is_owner_silent && !is_settled);
    let (view, is_settled) = pair().seen_after(&pair(), 1100);
    assert!(view.shards["s1"].is_owner_silent && is_settled);
    assert_eq!(problems(&view.shards["s1"]), ["the owner is silent: a does not renew its lease of 1000 ms"]);
    let (view, is_settled) = pair().renewed().seen_after(&pair(), 100);
    assert!(!view.shards["s1"].is_owner_silent && is_settled);
    // A minute is too long to look at: its node is there, so it is.
    let long = pair().put("shards/s1", &ShardRecord { lease_ms: 60_000, ..shard("a", &["b"]) });
    assert!(!long.seen_after(&long, 3000).0.shards["s1"].is_owner_silent);
    let gone = long.put("nodes/s1/a", &NodeRecord { unix_ms: 0, ..node("a", "primary", &[]) });
    let (view, is_settled) = gone.seen_after(&gone, 3000);
    assert!(view.shards["s1"].is_owner_silent && is_settled);
}

#[test]
fn a_node_with_another_clock_is_not_silent() {
    let first = pair().put("nodes/s1/b", &NodeRecord { unix_ms: NOW + 60_000, ..node("b", "standby", &[]) });
    let (view, is_settled) = first.renewed().seen_after(&first, 1000);
    assert!(view.shards["s1"].nodes["b"].is_silent && !is_settled);
    let later = first.renewed().put("nodes/s1/b", &NodeRecord { unix_ms: NOW + 61_000, ..node("b", "standby", &[]) });
    let (view, is_settled) = later.seen_after(&first, 1000);
    assert!(!view.shards["s1"].nodes["b"].is_silent && is_settled);
    assert_eq!(problems(&view.shards["s1"]), ["the clock of b is 61 s ahead of this machine's"]);
}

#[test]
fn what_is_no_record_hides_nothing_else() {
    let view = pair().put("nodes/s1/b", &"nonsense").put("shards/other", &7).view(0);
    let keys: Vec<&str> = view.damaged.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["/twincache/c/nodes/s1/b", "/twincache/c/shards/other"]);
    assert_eq!((view.shards.len(), view.shards["s1"].nodes.len()), (2, 2));
}

#[test]
fn json_has_the_fields_that_are_documented() {
    let view = pair().renewed().seen_after(&pair(), 100).0;
    let value: serde_json::Value = serde_json::from_str(&json("c", view.shards.iter())).unwrap();
    let page = include_str!("../../../man/twincachectl.1");
    let section = &page[page.find(".SH JSON").expect("the section")..];
    let shard = &value["shards"][0];
    for object in [&value, shard, &shard["nodes"][0]] {
        for field in object.as_object().unwrap().keys() {
            assert!(section.contains(&format!("\n.B {field}\n")), "{field}");
        }
    }
    assert_eq!(
        (&shard["owner"], &shard["epoch"], &shard["problems"]),
        (&"a".into(), &3.into(), &serde_json::json!([]))
    );
    let standby = &shard["nodes"][1];
    assert_eq!(
        (&standby["lag_ms"], &standby["is_in_sync"], &standby["items"]),
        (&2.into(), &true.into(), &1200.into())
    );
    assert_eq!((&standby["silent_ms"], &standby["state"]), (&serde_json::Value::Null, &"streaming".into()));
}
