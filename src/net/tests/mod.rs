//! Tests of the network.

pub(crate) mod connection;
mod demotion;
mod held_replies;
mod joins;
mod large;
mod takeover;
