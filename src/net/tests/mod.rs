//! Tests of the network.

pub(crate) mod connection;
mod held_replies;
mod takeover;
