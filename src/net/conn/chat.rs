//! What a connection says of itself in the log, with `-vv`.
//!
//! Not here: whether it is to say so (`session`).

use crate::command::Output;
use crate::net::reply_hold::OutputPlace;
use crate::protocol::{Protocol, binary};

/// What `-vv` says of a text request: its line, and the last line of its reply.
#[cold]
pub(super) fn chat(fd: i32, request: &[u8], start: OutputPlace, out: &Output) {
    let end = memchr::memchr(b'\n', request).unwrap_or(request.len());
    log::debug!("<{fd} {}", request[..end].trim_ascii_end().escape_ascii());
    let reply = out.bytes[start.bytes()..].trim_ascii_end();
    let start = memchr::memrchr(b'\n', reply).map_or(0, |at| at + 1);
    if !reply.is_empty() {
        log::debug!(">{fd} {}", reply[start..].escape_ascii());
    }
}

/// The protocol that begins with this byte.
pub(super) fn choose(first: u8, fd: i32) -> Protocol {
    let (protocol, name) =
        if first == binary::REQUEST { (Protocol::Binary, "binary") } else { (Protocol::Ascii, "ascii") };
    log::debug!("{fd}: Client using the {name} protocol");
    protocol
}
