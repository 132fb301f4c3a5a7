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
pub mod line;
pub mod meta;
pub mod text;
pub mod token;

use binary::{Response, Status};

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

/// Longest value that a text or meta length may announce: it and its `\r\n` must fit an int32.
const VALUE_MAX: i32 = i32::MAX - 2;

/// Answer to a line that does not have the form of its command.
pub const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";

/// What the bytes at the start of the input are.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A request, all of it but perhaps for its value.
    Request(Cut<'a>),
    /// Not complete. Call again when more bytes are there, and at least `need` in all.
    Partial {
        /// A lower bound of the bytes needed; 0 when it is not known.
        need: usize,
    },
    /// A client's mistake.
    Bad(Bad),
}

/// A request and its lengths: `head` bytes, then `body` bytes of value, then `tail` bytes.
#[derive(Debug)]
pub struct Cut<'a> {
    /// What is asked for.
    pub request: Request<'a>,
    /// Bytes of the line, its end included, or of the packet before the value.
    pub head: usize,
    /// Bytes of the value; 0 when there is none.
    pub body: usize,
    /// Bytes after the value: 2 for text and meta, if there is a value, and 0 for binary.
    pub tail: usize,
}

impl<'a> Cut<'a> {
    /// A request without a value.
    #[inline]
    pub(crate) fn new(request: Request<'a>, head: usize) -> Cut<'a> {
        Cut { request, head, body: 0, tail: 0 }
    }

    /// Whether it stores a value.
    #[inline]
    pub fn is_store(&self) -> bool {
        matches!(self.request, Request::Store(_))
    }

    /// All its bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.head + self.body + self.tail
    }
}

/// A request that was refused while parsing, or by a command before its data came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Bytes of the line or packet that are done with.
    pub consumed: usize,
    /// Bytes after those to read and drop before the reply is sent.
    pub swallow: u64,
    /// What to answer.
    pub reply: Refusal,
    /// Close after answering.
    pub close: bool,
}

/// A refused text or meta line; `reply` is sent after `swallow` more bytes were dropped.
fn bad<'a>(consumed: usize, swallow: u64, reply: &'static [u8]) -> Parsed<'a> {
    Parsed::Bad(Bad { consumed, swallow, reply: Refusal::Line(reply), close: false })
}

/// What a refused request is answered: made of constants, so that it can be kept until it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Complete with its line end; empty for nothing.
    Line(&'static [u8]),
    /// A packet: the opcode and opaque of the request, and what the body says.
    #[allow(missing_docs, reason = "told above")]
    Packet { opcode: u8, opaque: [u8; 4], status: Status, text: &'static [u8] },
}

impl Refusal {
    /// Appends it.
    pub fn push_to(self, out: &mut Vec<u8>) {
        match self {
            Refusal::Line(line) => out.extend_from_slice(line),
            Refusal::Packet { opcode, opaque, status, text } => {
                Response { opcode, status, opaque, cas: 0, extras: b"", key: b"", value_len: text.len() }.encode(out);
                out.extend_from_slice(text);
            }
        }
    }
}

/// What a client asks for.
#[derive(Debug)]
pub enum Request<'a> {
    /// A text command without a value.
    Text(text::TextCommand<'a>),
    /// A meta command without a value.
    Meta(meta::MetaCommand<'a>),
    /// A packet without a value.
    Binary(binary::Packet<'a>),
    /// A store of any protocol; its value stands behind it.
    Store(StoreHeader<'a>),
}

impl<'a> Request<'a> {
    /// The key as it is stored, decoded into `buffer` if need be. Empty where there is none, or where there are several.
    #[inline]
    pub fn key<'k>(&'k self, buffer: &'k mut meta::KeyBuffer) -> &'k [u8] {
        match self {
            Request::Text(command) => command.key(),
            Request::Meta(command) | Request::Store(StoreHeader::Meta(command)) => command.key(buffer),
            Request::Binary(packet) | Request::Store(StoreHeader::Binary(packet)) => packet.key,
            Request::Store(StoreHeader::Text(store)) => store.key,
        }
    }

    /// The refusal of this request that says `line` in text and meta, `status` and `text` in binary.
    pub fn refusal(&self, line: &'static [u8], status: Status, text: &'static [u8]) -> Refusal {
        match self {
            Request::Binary(packet) | Request::Store(StoreHeader::Binary(packet)) => packet.refusal(status, text),
            _ => Refusal::Line(line),
        }
    }
}

/// A store request without its value.
#[derive(Debug)]
pub enum StoreHeader<'a> {
    /// set, add, replace, append, prepend, cas.
    Text(text::TextStore<'a>),
    /// ms.
    Meta(meta::MetaCommand<'a>),
    /// Set, Add, Replace, Append, Prepend and their quiet twins.
    Binary(binary::Packet<'a>),
}

/// What a store command does with an existing or missing item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever is there.
    Set,
    /// Only when nothing is there.
    Add,
    /// Only when something is there.
    Replace,
    /// Behind the existing value.
    Append,
    /// In front of the existing value.
    Prepend,
}

/// The length of a text or meta value, when it is one.
fn data_length(text: &[u8]) -> Option<usize> {
    token::strict_i32(text).filter(|len| (0..=VALUE_MAX).contains(len)).map(|len| len as usize)
}

/// Parses the start of `input` if it has one of the forms that nearly all requests have, at little cost. For any other
/// see [`parse`].
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
