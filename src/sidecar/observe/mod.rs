//! What the sidecar shows of itself.
//!
//! ```text
//!   GET /health ─> http ─> health ─┐
//!   GET /metrics ─> http ─> metrics┴─> figures, which each link publishes
//! ```

pub mod figures;
pub mod health;
pub mod http;
pub mod metrics;
