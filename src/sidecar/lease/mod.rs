//! Who of a shard's nodes is its primary, and what follows from that on this one.
//!
//! ```text
//!   driver ──> keeper ──> claim, members, handover, ledger, local, …   who owns the shard: without sockets and clocks
//!          ──> etcd_threads, server_thread, promises ──> news          what is heard from outside
//!          ──> topology                                                which shards the server tells clients
//!          ──> feeds                                                   the links of the owner to the other nodes
//!          ──> address ──> announcing    what is done about the address, and when
//!                      ──> floating      the address on an interface ──> frames
//!                      ──> hooks         the operator's programs
//! ```
//!
//! One key holds the owner and the members, who may take over. Every change of it is a compare-and-swap on the revision
//! that was seen, so renewals, changes of the members and takeovers exclude each other: a takeover that succeeds proves
//! that no renewal has succeeded since the revision it saw.
//!
//! ```text
//!   owner:    send a renewal at s ──────────── may answer until s + lease - margin
//!   standby:        sees it at r >= s ─────────────────────────────────── waits until r + lease + margin, then swaps
//! ```
//!
//! So the owner is silent before anybody else can serve, unless two clocks drift apart by more than the margin within a
//! lease. No wall clock is compared. A swap whose outcome is not known does not count: the record tells later, by its
//! sequence number and the process that signed it, whether it was done.
//!
//! While etcd is away, a promise takes the place of a renewal. Every node that could take over promises the owner not to
//! become a candidate for the length of a lease; the promise begins when it was asked for. The server of that node keeps
//! the promise, since it is the one that has to agree to a candidacy. If only the members promise, other nodes could
//! claim the shard after `bootstrap_ms`, so these promises end before that.

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
mod repeats;
mod server_thread;
mod topology;
mod unwilling;

#[cfg(test)]
mod tests {
    mod model;
    pub(super) mod shift;
    mod simulation;
}
