//! What goes into the keeper and what comes out of it.
//!
//! Not here: what it makes of it (`keeper`).

use super::members::Requirement;
use crate::cluster::record::ShardRecord;
use std::time::Duration;

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
    /// It serves until this time since boot.
    Primary { epoch: u64, deadline: Duration },
    /// It drops everything.
    Empty,
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
    /// It does not, for this reason.
    Refused(String),
}

/// What came of a swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SwapOutcome {
    /// It was done, and this is the record's revision.
    Won(i64),
    /// The record is another one.
    Lost { revision: i64, record: Option<Box<ShardRecord>> },
    /// It may have been done, or be done later.
    Unknown,
    /// It was certainly not done.
    NotDone,
}

/// What the owner of the sockets has to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Replace the record of this revision (0: there is none), then call `Keeper::swapped`.
    Swap { expected: i64, record: ShardRecord },
    /// Read the record, then call `Keeper::record`.
    Read,
    /// Tell the server, then call `Keeper::answered` once for each, in order.
    Order(ServerOrder),
    /// Ask the servers of these nodes for a promise of a lease, then call `Keeper::promised`.
    Promise { epoch: u64, nodes: Vec<String> },
    /// Bring the address here.
    Serve { epoch: u64 },
    /// Give the address away.
    Retire,
    /// Tell who asked what came of it.
    Reply { id: String, is_done: bool, text: String },
}
