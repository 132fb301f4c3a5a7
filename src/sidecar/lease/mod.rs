//! Who of a shard's nodes is its primary, and what follows from that on this one.
//!
//! ```text
//!   address ──> announcing    what is done about the address, and when
//!           ──> floating      the address on an interface ──> frames
//!           ──> hooks         the operator's programs
//! ```

pub mod address;
mod announcing;
mod floating;
mod frames;
mod hooks;
