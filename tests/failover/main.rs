//! Failover end to end: hosts, a real etcd, real clients, and something that breaks.

mod checks;
mod client;
#[path = "../common/mod.rs"]
mod common;
mod history;
mod linear;
mod workload;
