//! What the sidecar shows of itself and of its server.
//!
//! ```text
//!   GET /health ──┐          ┌─> health ──┬─> figures, which each link publishes
//!   GET /metrics ─┼─> http ──┼─> metrics ─┤
//!   GET /status ──┤   pages  └─> page ────┴─> monitor ─> server_stats, which the server is asked for
//!   GET / ────────┘                                  └─> history, the last hour
//! ```

mod exposition;
pub(super) mod figures;
pub(super) mod health;
mod history;
pub(super) mod http;
pub(super) mod lease_status;
mod metrics;
pub(super) mod monitor;
mod page;
pub(super) mod pages;
mod process;
mod replication_metrics;
mod server_metrics;
mod server_stats;
mod standby;
