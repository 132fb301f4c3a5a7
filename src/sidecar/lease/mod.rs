//! Who of a shard's nodes is its primary, and what follows from that on this one.
//!
//! ```text
//!   driver ──> keeper ──> claim, members, handover, ledger, local      who owns the shard: without sockets and clocks
//!          ──> etcd_threads, server_thread, promises ──> news          what is heard from outside
//!          ──> topology                                                which shards the server tells clients
//!          ──> feeds                                                   the links of the owner to the other nodes
//!          ──> address ──> announcing    what is done about the address, and when
//!                      ──> floating      the address on an interface ──> frames
//!                      ──> hooks         the operator's programs
//! ```

pub mod address;
mod announcing;
mod claim;
pub(super) mod driver;
mod etcd_threads;
pub(super) mod feeds;
mod floating;
mod frames;
mod handover;
mod hooks;
mod keeper;
mod ledger;
mod local;
mod members;
mod news;
mod orders;
mod promises;
mod server_thread;
pub(super) mod status;
mod topology;

#[cfg(test)]
mod tests {
    mod simulation;
}
