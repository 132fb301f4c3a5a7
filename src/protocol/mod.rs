//! Bytes in, values out: memcached's text, meta and binary protocols.
//!
//! ```text
//!   input ── parse ──> Request(what is asked, where its value lies) | Partial | Bad(what to answer, what to swallow)
//!              ├─ line ──┬─ text
//!              │         └─ meta
//!              └─ binary
//! ```
//!
//! Pure: no I/O, no clock, no store, no allocation per request. A request that is not complete is an
//! answer, not an error. Keys and tokens are slices of the input.

pub mod base64;
pub mod binary;
pub mod change;
pub mod control;
pub mod duty_line;
pub mod line;
pub mod members_line;
pub mod meta;
mod request;
pub mod text;
pub mod token;
pub mod topology;

pub use request::{BAD_FORMAT, Bad, Cut, Mode, Parsed, Refusal, Request, StoreHeader};
pub use token::KEY_MAX;

/// A connection's protocol, decided by its first byte unless `-B` decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Text and meta.
    Ascii,
    /// Binary.
    Binary,
}

/// The fast path: parses the start of `input` if it has one of the forms that nearly all requests have. [`parse`] does
/// all others.
#[inline(always)]
pub(crate) fn parse_common(protocol: Protocol, input: &[u8]) -> Option<Cut<'_>> {
    match protocol {
        Protocol::Ascii => text::parse_common(input),
        Protocol::Binary => None,
    }
}

/// Parses the start of `input`. The first `scanned` bytes are known to hold no line feed.
#[inline]
pub fn parse(protocol: Protocol, input: &[u8], scanned: usize) -> Parsed<'_> {
    match protocol {
        Protocol::Ascii => line::parse(input, scanned),
        Protocol::Binary => binary::parse(input),
    }
}
