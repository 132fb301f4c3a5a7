//! What the threads around the keeper tell it.
//!
//! Not here: who tells it (`etcd_threads`, `server_thread`, `promises`), what comes of it (`driver`).

use super::orders::{OrderAnswer, Sighting, SwapOutcome};
use crate::cluster::record::{NodeRecord, RequestRecord};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// One piece of news.
#[derive(Debug)]
pub(super) enum News {
    /// A swap was answered.
    Swapped(SwapOutcome),
    /// What stands at the shard's key.
    Record(Sighting),
    /// A node of the shard has said how it is; None: it was removed.
    Node(String, Option<NodeRecord>),
    /// Somebody asks for something; it stands in etcd with this revision.
    Request(RequestRecord, i64),
    /// Whether automatic takeovers are switched off.
    Paused(bool),
    /// etcd does not answer, and why.
    NoEtcd(String),
    /// The server is there.
    ServerUp(ServerHello),
    /// The server has answered an order.
    ServerSays(OrderAnswer),
    /// The server holds so many items.
    ServerHolds(u64),
    /// The connection to the server has ended.
    ServerDown,
    /// A node has promised the owner of this epoch to wait, and the owner may count on that until then.
    Promised { node: String, epoch: u64, until: Duration },
}

/// What the server says at first.
#[derive(Debug)]
pub(super) struct ServerHello {
    pub run: String,
    pub lsn: u64,
    pub replicas_ack: u32,
    pub epoch: u64,
    /// Its process.
    pub pid: Option<u32>,
    /// To tell it something.
    pub socket: UnixStream,
}
