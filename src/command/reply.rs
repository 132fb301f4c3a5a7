//! What replies are made of.
//!
//! ```text
//! text     one of memcached's lines, a constant
//! meta     HD | VA <len> | EN | …  <reply flags, in the order of the request> \r\n  [value \r\n]
//! binary   a packet that repeats the opcode and opaque of the request
//! ```
//!
//! Not here: where a reply goes (`output`), which one it is (the commands).

use super::Output;
use crate::protocol::base64;
use crate::protocol::binary::{Packet, Response, Status};
use crate::protocol::meta::{LetterSet, MetaCommand};

/// A complete text reply.
pub(crate) type Reply = &'static [u8];

pub(super) const OK: Reply = b"OK\r\n";
pub(super) const END: Reply = b"END\r\n";

/// Flags that a reply repeats, whatever it says.
const REPEATED: LetterSet = LetterSet::of(b"kO");

/// Answers the flags of a request in their order: `k` and `O` here, those in `others` by `push`. `key_is_base64` says
/// that the client is told the key so.
#[inline]
pub(super) fn push_flags(
    command: &MetaCommand<'_>,
    key: &[u8],
    key_is_base64: bool,
    others: LetterSet,
    out: &mut Output,
    mut push: impl FnMut(u8, &mut Output),
) {
    if !command.has_any(REPEATED.with(others)) {
        return;
    }
    for flag in command.flags() {
        match flag[0] {
            b'k' => push_key(key, key_is_base64, out),
            b'O' => {
                out.push(b" ");
                out.push(flag);
            }
            letter if others.has(letter) => push(letter, out),
            _ => {}
        }
    }
}

/// A reply that says `code` and no more than what the request says, with its line end.
pub(super) fn push_code(code: &[u8; 2], command: &MetaCommand<'_>, key: &[u8], out: &mut Output) {
    out.push(code);
    push_flags(command, key, command.has(b'b'), LetterSet::default(), out, |_, _| {});
    out.push(b"\r\n");
}

/// The `k` of a reply, with the `b` that a base64 key carries along.
fn push_key(key: &[u8], is_base64: bool, out: &mut Output) {
    out.push(b" k");
    match is_base64 {
        false => out.push(key),
        true => {
            base64::encode(key, &mut out.bytes);
            out.push(b" b");
        }
    }
}

pub(super) fn push_flag_number(flag: &[u8; 2], number: u64, out: &mut Output) {
    out.push(flag);
    out.push_number(number);
}

/// Seconds to live as the protocols print them: -1 never.
// COMPAT(ttl_wraps): the seconds of an item that has expired print as an unsigned 32-bit number.
pub(super) fn push_ttl(expires_at: u32, now: u32, out: &mut Output) {
    match expires_at {
        0 => out.push(b"-1"),
        _ => out.push_number(u64::from(expires_at.wrapping_sub(now))),
    }
}

pub(super) fn response<'a>(
    packet: &Packet<'_>,
    status: Status,
    cas: u64,
    extras: &'a [u8],
    key: &'a [u8],
    value_len: usize,
) -> Response<'a> {
    Response { opcode: packet.opcode, status, opaque: packet.opaque, cas, extras, key, value_len }
}

/// Answers a packet with a status and that status's text.
pub(super) fn respond(packet: &Packet<'_>, status: Status, out: &mut Output) {
    respond_text(packet, status, status.text(), out);
}

pub(super) fn respond_text(packet: &Packet<'_>, status: Status, text: &[u8], out: &mut Output) {
    response(packet, status, 0, b"", b"", text.len()).encode(&mut out.bytes);
    out.push(text);
}

pub(super) fn respond_unless_quiet(packet: &Packet<'_>, out: &mut Output) {
    if !packet.quiet {
        respond(packet, Status::Ok, out);
    }
}
