//! Tests of the network.

pub(crate) mod connection;
mod takeover;
