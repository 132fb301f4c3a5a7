//! Failover end to end: hosts, a real etcd, real clients, and something that breaks.
//!
//! ```text
//!   rig        hosts (network namespaces), servers and sidecars, etcds; how each of them fails
//!   workload   clients that write down what they ask and are told   (client, history)
//!   rounds     calm, a fault under load, mended, calm again; then everything is checked
//!   checks     nothing acknowledged is lost, nothing deleted comes back, who was deposed is silent
//!   linear     the history of each key is linearizable
//!   starved    what is expected only where the machine gives everybody turns is tried again where it did not
//!
//!   kills, cables, authority, copies, clocks: the faults; own: tests of all this
//! ```
//!
//! Needs root, `ip`, `nft` and `etcd`; else what needs them says in a line that it is skipped. `TWINCACHE_FAILOVER_ROUNDS`
//! is how often each fault happens (1), `TWINCACHE_FAILOVER_SEED` replays the choices of clients and faults,
//! `TWINCACHED` and `TWINCACHE_SIDECAR` are other programs than those that cargo built.

mod authority;
mod cables;
mod checks;
mod client;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod history;
mod kills;
mod linear;
mod own;
#[allow(dead_code, reason = "scripts/bench.sh failover uses it, too")]
mod rig;
mod rounds;
mod starved;
mod workload;
