//! What goes into the keeper and what comes out of it.
//!
//! Not here: what it makes of it (`keeper`).

use super::members::Requirement;
use crate::cluster::record::{EPOCH_MAX, ShardRecord, from_bytes, to_bytes};
use std::time::Duration;

/// No owner's lease is longer: a record that gives more is none.
const LEASE_MAX_MS: u64 = 3_600_000;

/// What stays the same.
#[derive(Clone, Debug, Hash)]
pub(crate) struct KeeperConfig {
    /// This node's name.
    pub node: String,
    /// Where clients and peers reach its server.
    pub advertise: String,
    /// How long a renewal is good for, on the owner that this node becomes.
    pub lease: Duration,
    /// How long after the lease a node that is no member may claim the shard.
    pub bootstrap_wait: Duration,
    /// A secret for feeders, if this node is the first owner.
    pub secret: String,
    /// What this process signs records with: no other one, before it or beside it, has the same.
    pub process: String,
}

impl KeeperConfig {
    /// A record of this node as the owner, whose server waits for at least so many replicas.
    pub(super) fn stamp(&self, record: ShardRecord, replicas_ack: u32) -> ShardRecord {
        ShardRecord {
            replicas_ack,
            lease_ms: self.lease.as_millis() as u64,
            bootstrap_ms: self.bootstrap_wait.as_millis() as u64,
            advertise: self.advertise.clone(),
            ..record
        }
    }
}

/// What the local server is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ServerOrder {
    /// It follows the owner of this epoch, whose feeder knows this secret.
    Standby { epoch: u64, secret: String },
    /// It is going to be the primary of this epoch, and gives no promise any more.
    Candidate { epoch: u64 },
    /// It serves until this time since boot. With `drops_all` it first drops what it has from before this epoch.
    Primary { epoch: u64, deadline: Duration, drops_all: bool },
    /// For whose acknowledgements replies wait.
    Members(Requirement),
    /// Changes of clients wait for so long at most.
    Hold(Duration),
    /// They wait no longer.
    Go,
}

/// What the local server answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum OrderAnswer {
    /// It does so; this is its last change.
    Done { lsn: u64 },
    /// It does not, for this reason; it has heard of this epoch, if it says so.
    Refused { why: String, epoch: u64 },
}

/// What was found at the shard's key in etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Sighting {
    /// The revision of the value; of all of etcd, if there is none.
    pub revision: i64,
    /// The revision of all of etcd.
    pub store: i64,
    /// When it was asked for. None: etcd told it by itself, perhaps long after it was so.
    pub asked: Option<Duration>,
    /// The revision of what stood there just before, if that is known: a watch tells each change.
    pub follows: Option<i64>,
    pub value: RecordValue,
}

/// What may stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RecordValue {
    /// The record; None: there is no value, or it is none of a record.
    pub record: Option<ShardRecord>,
    /// The value, if it is not exactly what would be written for the record.
    pub odd: Option<Vec<u8>>,
}

impl RecordValue {
    /// Of these bytes, or of an absent key.
    pub(super) fn new(bytes: Option<Vec<u8>>) -> RecordValue {
        let Some(bytes) = bytes else { return RecordValue::default() };
        match sound(&bytes) {
            Ok(record) if to_bytes(&record) == bytes => RecordValue { record: Some(record), odd: None },
            Ok(record) => RecordValue { record: Some(record), odd: Some(bytes) },
            Err(_) => RecordValue { record: None, odd: Some(bytes) },
        }
    }

    /// As it is written; None: the key is absent.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        self.odd.clone().or_else(|| self.record.as_ref().map(to_bytes))
    }

    /// What is wrong with it, if it is there and is no record.
    pub(super) fn damage(&self) -> Option<String> {
        self.odd.as_ref().filter(|_| self.record.is_none()).and_then(|bytes| sound(bytes).err())
    }
}

/// A record that can be one of ours.
fn sound(bytes: &[u8]) -> Result<ShardRecord, String> {
    let record: ShardRecord = from_bytes(bytes)?;
    let is_sound = record.epoch <= EPOCH_MAX && record.lease_ms <= LEASE_MAX_MS && record.seq <= u64::MAX / 2;
    if is_sound { Ok(record) } else { Err("its epoch, its number or its lease is too high".to_owned()) }
}

/// What a swap replaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Expected {
    /// The revision of the value; 0: the key is absent.
    pub revision: i64,
    pub value: RecordValue,
}

/// What came of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SwapOutcome {
    /// It was done, and this is the record's revision.
    Won(i64),
    /// Something else stands there.
    Lost(Box<Sighting>),
    /// It may have been done, or be done later.
    Unknown,
    /// It was certainly not done.
    NotDone,
}

/// What the owner of the sockets has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Replace what stands there, if it is this, then call `Keeper::swapped`.
    Swap { expected: Box<Expected>, record: Box<ShardRecord> },
    /// Read the record, then call `Keeper::record`.
    Read,
    /// Tell the server, then call `Keeper::answered` once for each, in order.
    Order(ServerOrder),
    /// Ask the servers of these nodes for a promise that lasts so long, then call `Keeper::promised`.
    Promise { epoch: u64, lease: Duration, nodes: Vec<String> },
    /// Bring the address here.
    Serve { epoch: u64 },
    /// Give the address away.
    Retire,
    /// Tell who asked what came of it.
    Reply { id: String, is_done: bool, text: String },
}
