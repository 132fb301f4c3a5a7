//! The values in etcd, as JSON.
//!
//! Invariants: unknown fields are ignored, and fields that were added later have defaults, so that nodes of
//! different versions can be in one shard. What reads a value checks no more than its types: names and numbers in it
//! are whatever somebody wrote.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The highest epoch: the servers keep it in the upper bits of cas uniques.
pub const EPOCH_MAX: u64 = (1 << 15) - 1;

/// Who owns a shard, and who may take it over. Each change of it is a compare-and-swap, so that renewals, changes of
/// the members and takeovers exclude each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Grows by one with every change of the owner.
    pub epoch: u64,
    /// The owner's name; empty: given back.
    pub owner: String,
    /// The owner's run.
    pub run: String,
    /// Grows with each renewal.
    pub seq: u64,
    /// The process of a sidecar that wrote it: another one after each start. Empty: one of an earlier version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub writer: String,
    /// How long the owner's right lasts.
    pub lease_ms: u64,
    /// Where the owner's peers reach it.
    pub advertise: String,
    /// Who is in sync.
    #[serde(default)]
    pub members: Vec<MemberRecord>,
    /// The shard's nodes, as far as the owners have met them. No other node takes over from an owner that is silent.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// How long after the lease a node that is no member may claim the shard.
    #[serde(default)]
    pub bootstrap_ms: u64,
    /// How many members must have a change before its reply goes out.
    #[serde(default)]
    pub replicas_ack: u32,
    /// What the shard's servers know each other by.
    #[serde(default)]
    pub secret: String,
    /// The owner has taken the shard without being a member: it drops what it holds before it serves, and nobody knows yet
    /// that it has done so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drops_all: bool,
    /// The owner hands the shard over: its server may have stepped down, and then knows the next epoch, which nobody has yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hands_over: bool,
    /// Who gave the shard to the owner, if it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handover_from: Option<MemberRecord>,
    /// Who else had everything at that moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handover_whole: Vec<MemberRecord>,
}

impl ShardRecord {
    /// The owner, if there is one that has everything.
    pub fn whole_owner(&self) -> Option<MemberRecord> {
        let is_whole = !self.owner.is_empty() && !self.drops_all;
        is_whole.then(|| MemberRecord { node: self.owner.clone(), run: self.run.clone() })
    }

    /// The same, given back.
    pub fn without_owner(self) -> ShardRecord {
        let (owner, run, drops_all, hands_over) = (String::new(), String::new(), false, false);
        ShardRecord { owner, run, drops_all, hands_over, handover_from: None, handover_whole: Vec::new(), ..self }
    }
}

/// A run of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its name.
    pub node: String,
    /// Its run: another one after each restart of the server.
    pub run: String,
}

/// How a node is, in its own words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeRecord {
    /// Its name.
    pub node: String,
    /// Its run.
    pub run: String,
    /// Where peers reach its server.
    pub advertise: String,
    /// Where its sidecar serves HTTP; empty: nowhere.
    pub http: String,
    /// The role of its server.
    pub role: String,
    /// The epoch of that role.
    pub epoch: u64,
    /// The highest epoch that its server has heard of: it takes nothing of a lower one.
    pub highest: u64,
    /// The last change that it has.
    pub lsn: u64,
    /// How many items it holds.
    pub items: u64,
    /// How many bytes they take.
    pub bytes: u64,
    /// Its wall clock at that time, for people: clocks of two nodes are never compared.
    pub unix_ms: u64,
    /// Whom it sends to.
    pub peers: Vec<PeerRecord>,
}

/// A peer, as the node that sends to it sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerRecord {
    /// Its name.
    pub node: String,
    /// What the sender is about.
    pub state: String,
    /// How far it is behind, in time.
    pub lag_ms: u64,
    /// How far it is behind, in bytes.
    pub lag_bytes: u64,
    /// How much of a full sync it has, of a hundred; None: there is none, or the sender is of an earlier build.
    #[serde(default)]
    pub sync_percent: Option<u64>,
}

/// What a shard is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// What its answer is known by.
    pub id: String,
    /// What is asked for.
    pub what: RequestKind,
    /// The node that it is about.
    pub to: String,
    /// The epoch that it was made for; it is void in another one. 0: in any.
    #[serde(default)]
    pub epoch: u64,
}

impl fmt::Display for RequestRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.what, self.to.as_str()) {
            (RequestKind::Switchover, "") => out.write_str("switchover"),
            (RequestKind::Switchover, to) => write!(out, "switchover to {to}"),
            (RequestKind::Promote, to) => write!(out, "promote {to}"),
        }
    }
}

/// The kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// The owner gives the shard to a member.
    Switchover,
    /// The node takes the shard, whatever is lost.
    Promote,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    /// The request's.
    pub id: String,
    /// Whether it was done.
    pub is_done: bool,
    /// What happened, or why not.
    pub text: String,
}

/// Where clients find the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyRecord {
    /// Grows by one with each change; from 1, and below 2^31.
    pub version: u32,
    /// The shards. Their order never changes.
    pub shards: Vec<ShardAddress>,
}

/// As the servers are told: the line of the control socket, without its end.
impl fmt::Display for TopologyRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "topology {}", self.version)?;
        self.shards.iter().try_for_each(|shard| write!(out, " {}|{}|{}", shard.host, shard.ip, shard.port))
    }
}

/// Where clients find one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardAddress {
    /// The shard's name.
    pub name: String,
    /// Its host, as a name.
    pub host: String,
    /// Its host, as an address.
    #[serde(default)]
    pub ip: String,
    /// Its port.
    pub port: u16,
}

/// A record as a value.
pub fn to_bytes(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("a record has no maps with odd keys")
}

/// A value as a record, or one line that says what is wrong with it.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_as_another_version_wrote_it() {
        let text = br#"{"epoch":3,"owner":"a","run":"00","seq":17,"lease_ms":1000,"advertise":"10.0.0.1:11211",
            "members":[{"node":"b","run":"01","weight":7}],"colour":{"deep":[1]}}"#;
        let shard: ShardRecord = from_bytes(text).unwrap();
        assert_eq!((shard.epoch, shard.owner.as_str(), shard.members.len()), (3, "a", 1));
        assert_eq!((shard.replicas_ack, shard.secret.as_str(), &shard.handover_from), (0, "", &None));
        let bytes = String::from_utf8(to_bytes(&shard)).unwrap();
        let is_there = |name: &&str| bytes.contains(name);
        assert!(!["handover_from", "drops_all", "hands_over"].iter().any(is_there), "{bytes}");
        let bare = ShardRecord { drops_all: true, hands_over: true, ..shard.clone() };
        for shard in [shard, bare] {
            assert_eq!(from_bytes(&to_bytes(&shard)), Ok(shard));
        }
    }

    #[test]
    fn requests_are_those_we_know() {
        let request: RequestRecord = from_bytes(br#"{"id":"1","what":"switchover","to":"b"}"#).unwrap();
        assert_eq!(request.what, RequestKind::Switchover);
        assert_eq!(from_bytes::<RequestRecord>(&to_bytes(&request)), Ok(request));
        assert!(from_bytes::<RequestRecord>(br#"{"id":"1","what":"dance","to":"b"}"#).is_err());
    }

    #[test]
    fn what_is_no_record_is_a_line() {
        for text in [&b""[..], b"[]", b"null", b"{\"epoch\":-1}", b"\xff", b"{\"epoch\":1e99}"] {
            let error = from_bytes::<ShardRecord>(text).unwrap_err();
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        assert_eq!(from_bytes::<NodeRecord>(b"{}"), Ok(NodeRecord::default()));
    }
}
