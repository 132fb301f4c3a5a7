//! What the sidecar shows of itself.
//!
//! ```text
//!   GET /health ─> http ─> health ─┐
//!   GET /metrics ─> http ─> metrics┴─> figures, which each link publishes
//! ```

pub(super) mod figures;
pub(super) mod health;
pub(super) mod http;
pub(super) mod metrics;
pub(super) mod standby;
