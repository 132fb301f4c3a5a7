//! Tests of the network.

pub(crate) mod connection;
mod reply_hold;
mod takeover;
