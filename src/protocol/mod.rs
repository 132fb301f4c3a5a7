//! Bytes in, values out: memcached's text, meta and binary protocols.
//!
//! ```text
//!   input ──parse──> Request | NeedBody(header, lengths) | Partial | Bad(exact wire bytes, what to swallow)
//! ```
//!
//! Pure: no I/O, no clock, no store, no allocation per request. A request that is not complete is an
//! answer, not an error. Keys and tokens are slices of the input.

pub mod base64;
pub mod binary;
pub mod change;
pub mod control;
pub mod meta;
pub mod text;
pub mod token;

use std::borrow::Cow;

/// Longest key in bytes.
pub const KEY_MAX: usize = 250;

/// A connection's protocol, decided by its first byte unless `-B` decides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Text and meta.
    Ascii,
    /// Binary.
    Binary,
}

/// What the bytes at the start of the input are.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A whole request of `consumed` bytes that has no data block.
    Request {
        /// The request.
        request: Request<'a>,
        /// Its bytes, line end included.
        consumed: usize,
    },
    /// A store request: `head` bytes, then `body` bytes of value, then `tail` bytes (`\r\n` or none).
    NeedBody {
        /// Everything but the value.
        header: StoreHeader<'a>,
        /// Bytes before the value.
        head: usize,
        /// Bytes of the value.
        body: usize,
        /// Bytes after it: 2 for text and meta, 0 for binary.
        tail: usize,
    },
    /// Not complete. Call again when more bytes are there, and at least `need` in all.
    Partial {
        /// A lower bound of the bytes needed; 0 when it is not known.
        need: usize,
    },
    /// A client's mistake.
    Bad(Bad),
}

/// A request that was refused while parsing, or by a command before its data came.
#[derive(Debug, PartialEq, Eq)]
pub struct Bad {
    /// Bytes of the line or packet that are done with.
    pub consumed: usize,
    /// Bytes after those to read and drop before the reply is sent.
    pub swallow: u64,
    /// What to answer, complete with its line end; empty for nothing.
    pub reply: Cow<'static, [u8]>,
    /// Close after answering.
    pub close: bool,
}

/// A request without a data block.
#[derive(Debug)]
pub enum Request<'a> {
    /// Text and meta commands.
    Text(text::Command<'a>),
    /// Meta commands.
    Meta(meta::Command<'a>),
    /// Binary packets.
    Binary(binary::Packet<'a>),
}

/// A store request without its value.
#[derive(Debug)]
pub enum StoreHeader<'a> {
    /// set, add, replace, append, prepend, cas.
    Text(text::Store<'a>),
    /// ms.
    Meta(meta::Command<'a>),
    /// Set, Add, Replace, Append, Prepend and their quiet twins.
    Binary(binary::Packet<'a>),
}

/// Parses the start of `input`. The first `scanned` bytes are known to hold no line feed.
#[inline]
pub fn parse(protocol: Protocol, input: &[u8], scanned: usize) -> Parsed<'_> {
    match protocol {
        Protocol::Ascii => text::parse(input, scanned),
        Protocol::Binary => binary::parse(input),
    }
}
