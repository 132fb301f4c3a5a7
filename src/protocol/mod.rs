//! Bytes in, values out: memcached's text, meta and binary protocols.
//!
//! ```text
//!   input ── parse ──> Request(what is asked, where its value lies) | Partial | Bad(what to answer, what to swallow)
//!              ├─ line ──┬─ text
//!              │         └─ meta
//!              ├─ binary
//!              └─ login, before a client has logged in
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
pub mod login;
pub mod members_line;
pub mod meta;
mod request;
mod status;
pub mod text;
pub mod token;
pub mod topology;

pub use request::{BAD_FORMAT, Bad, Cut, Login, Mode, Parsed, Refusal, Request, SaslLogin, StoreHeader};
pub use token::KEY_MAX;

/// A connection's protocol, decided by its first byte unless `-B` decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Text and meta.
    Ascii,
    /// Binary.
    Binary,
    /// Text, before the client has logged in.
    AsciiLogin,
    /// Binary, before the client has logged in.
    BinaryLogin {
        /// A SASL mechanism waits for its next step.
        is_started: bool,
    },
}

impl Protocol {
    /// Whether the client has not logged in, and has to.
    pub fn is_login(self) -> bool {
        matches!(self, Protocol::AsciiLogin | Protocol::BinaryLogin { .. })
    }
}

/// The fast path: parses the start of `input` if it has one of the forms that nearly all requests have. [`parse`] does
/// all others.
#[inline(always)]
pub(crate) fn parse_common(protocol: Protocol, input: &[u8]) -> Option<Cut<'_>> {
    match protocol {
        Protocol::Ascii => text::parse_common(input),
        _ => None,
    }
}

/// Parses the start of `input`. The first `scanned` bytes are known to hold no line feed.
#[inline]
pub fn parse(protocol: Protocol, input: &[u8], scanned: usize) -> Parsed<'_> {
    match protocol {
        Protocol::Ascii => line::parse(input, scanned),
        Protocol::Binary => binary::parse(input),
        Protocol::AsciiLogin => login::parse_line(input, scanned),
        Protocol::BinaryLogin { is_started } => login::parse_packet(input, is_started),
    }
}
