//! Tests of the tests: each check can fail, and the rig does what it is told.

mod by_hand;
mod checks;
mod client;
mod linear;
mod rig;
mod starved;
mod workload;
