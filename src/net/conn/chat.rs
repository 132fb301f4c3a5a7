//! What a connection says of itself in the log, with `-vv`.
//!
//! ```text
//! <28 get a                                >28 END                                 a line, and the last line of its reply
//! <28 Read binary protocol data:           >28 Writing bin response:               a packet's header, four bytes a line
//! ```
//!
//! Values are not said. Not here: whether it is to say so (`session`).

use crate::command::Output;
use crate::net::reply_hold::OutputPlace;
use crate::protocol::{Protocol, binary};

/// What `-vv` says of a request and its reply.
#[cold]
pub(super) fn chat(fd: i32, request: &[u8], start: OutputPlace, out: &Output) {
    let reply = &out.bytes[start.bytes()..];
    if request.first() == Some(&binary::REQUEST) {
        dump_header(format_args!("<{fd}"), "Read binary protocol data:", request);
        return dump_header(format_args!(">{fd}"), "Writing bin response:", reply);
    }
    let end = memchr::memchr(b'\n', request).unwrap_or(request.len());
    log::debug!("<{fd} {}", request[..end].trim_ascii_end().escape_ascii());
    let reply = last_line(reply);
    if !reply.is_empty() {
        log::debug!(">{fd} {}", reply.escape_ascii());
    }
}

/// The last line of a reply that is no value.
fn last_line(reply: &[u8]) -> &[u8] {
    // What mg or ma return is one line and one value.
    if reply.starts_with(b"VA ") {
        let end = memchr::memchr(b'\n', reply).unwrap_or(reply.len());
        return reply[..end].trim_ascii_end();
    }
    let reply = reply.trim_ascii_end();
    &reply[memchr::memrchr(b'\n', reply).map_or(0, |at| at + 1)..]
}

fn dump_header(who: std::fmt::Arguments<'_>, title: &str, packet: &[u8]) {
    if packet.is_empty() {
        return;
    }
    log::debug!("{who} {title}");
    for row in packet[..packet.len().min(binary::HEADER)].chunks(4) {
        let bytes: String = row.iter().map(|byte| format!(" {byte:#04x}")).collect();
        log::debug!("{who}   {bytes}");
    }
}

/// The protocol that begins with this byte.
pub(super) fn choose(first: u8, fd: i32) -> Protocol {
    let (protocol, name) =
        if first == binary::REQUEST { (Protocol::Binary, "binary") } else { (Protocol::Ascii, "ascii") };
    log::debug!("{fd}: Client using the {name} protocol");
    protocol
}
