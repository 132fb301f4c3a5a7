//! What a connection says of itself in the log, with `-vv`.
//!
//! ```text
//! <28 get a                                >28 END                                 a line, and the last line of its reply
//! <28 Read binary protocol data:           >28 Writing bin response:               a packet's header, four bytes a line
//! ```
//!
//! Values are not said, and of a long line its beginning. Not here: whether it is to say so (`session`).

use super::long_line::LINE_MAX;
use crate::command::Output;
use crate::net::reply_hold::OutputPlace;
use crate::protocol::{Protocol, binary};

/// Bytes of a line that are said: all of any line but a get's, of which there may be megabytes.
const SAID_MAX: usize = LINE_MAX;

/// What `-vv` says of a request; `input` begins with it.
#[cold]
pub(super) fn say_request(fd: i32, input: &[u8]) {
    if input.first() == Some(&binary::REQUEST) {
        return dump_header(format_args!("<{fd}"), "Read binary protocol data:", input);
    }
    let said = &input[..input.len().min(SAID_MAX + 1)];
    let line = match memchr::memchr(b'\n', said) {
        Some(end) => said[..end].trim_ascii_end(),
        None => said,
    };
    say_line(format_args!("<{fd}"), line);
}

/// What it says of the reply to that, which is all that was answered from `start` on, or its last part.
#[cold]
pub(super) fn say_reply(fd: i32, input: &[u8], start: OutputPlace, out: &Output) {
    let reply = &out.bytes[start.bytes()..];
    if input.first() == Some(&binary::REQUEST) {
        return dump_header(format_args!(">{fd}"), "Writing bin response:", reply);
    }
    let line = last_line(reply);
    if !line.is_empty() {
        say_line(format_args!(">{fd}"), line);
    }
}

fn say_line(who: std::fmt::Arguments<'_>, line: &[u8]) {
    let (said, more) = if line.len() > SAID_MAX { (&line[..SAID_MAX], "...") } else { (line, "") };
    log::debug!("{who} {}{more}", said.escape_ascii());
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
