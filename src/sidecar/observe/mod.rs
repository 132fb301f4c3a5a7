//! What the sidecar shows of itself.

pub mod figures;
pub mod http;
pub mod metrics;
