//! What may be said on a connection before its client has logged in (`-Y`, `-S`): how to log in, and nothing else.
//!
//! ```text
//! text     set <any> <any> <any> <len>\r\n<user> <password>\r\n          Login::Text; any other line is refused
//! binary   list, auth and step of SASL: Login::Sasl; version; any other packet is refused, and the connection closed
//! ```
//!
//! Strangers cost little: a login has at most [`LOGIN_MAX`] bytes, a line at most [`LINE_MAX`].
//!
//! Also what a client says that has its login in a file: `of_first_line`.
//!
//! Not here: who may log in, and what that changes (`command::auth`).

use super::request::{Bad, Cut, Login, Parsed, Refusal, Request, bad};
use super::{binary, token};
use binary::{HEADER, REQUEST, Status};

/// Most bytes of user and password, or of what a SASL mechanism is told at a time.
pub const LOGIN_MAX: usize = binary::SASL_MAX;

/// Longest line without its end.
const LINE_MAX: usize = 2048;

/// No line that is shorter, without its line feed, can be a login.
const LINE_LEAST: usize = 6;

const UNAUTHENTICATED: &[u8] = b"CLIENT_ERROR unauthenticated\r\n";
const TOO_LONG: &[u8] = b"CLIENT_ERROR auth token too long\r\n";

/// Version and the three of SASL.
const OPEN_TO_ALL: [u8; 4] = [0x0b, 0x20, 0x21, 0x22];

/// User and password of the first line of a file, `user:password`; None if it is no line that a login can say.
pub fn of_first_line(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (user, password) = line.split_at(line.iter().position(|byte| *byte == b':')?);
    // A blank would end the user.
    let is_sayable = !user.is_empty() && !user.contains(&b' ') && line.len() <= LOGIN_MAX;
    is_sayable.then_some((user, &password[1..]))
}

/// Parses the line at the start of `input`, of which the first `scanned` bytes hold no line feed.
pub(super) fn parse_line(input: &[u8], scanned: usize) -> Parsed<'_> {
    let hang_up = Parsed::Bad(Bad { consumed: 0, swallow: 0, reply: Refusal::Line(b""), close: true });
    let Some(found) = memchr::memchr(b'\n', &input[scanned..]) else {
        return if input.len() > LINE_MAX { hang_up } else { Parsed::Partial { need: input.len() + 1 } };
    };
    let end = scanned + found;
    // COMPAT(short_line_before_login): it ends the connection.
    if end < LINE_LEAST {
        return hang_up;
    }
    let mut words = token::words(token::without_end(&input[..end]));
    let is_set = words.next() == Some(b"set");
    // COMPAT(login_is_any_set): key, client flags and exptime may be anything, and more words may follow.
    match words.nth(3).and_then(token::strict_u32) {
        Some(len) if is_set && len as usize <= LOGIN_MAX => {
            Parsed::Request(Cut { request: Request::Login(Login::Text), head: end + 1, body: len as usize, tail: 2 })
        }
        Some(_) if is_set => bad(end + 1, 0, TOO_LONG),
        _ => bad(end + 1, 0, UNAUTHENTICATED),
    }
}

/// Parses the packet at the start of `input`. `is_started` says that a mechanism waits for its next step.
pub(super) fn parse_packet(input: &[u8], is_started: bool) -> Parsed<'_> {
    let Some(header) = input.first_chunk::<HEADER>() else { return Parsed::Partial { need: HEADER } };
    let opcode = header[1];
    match binary::parse(input) {
        // Lengths that contradict each other are found first.
        Parsed::Bad(bad) if header[0] != REQUEST || (bad.close && is_unknown(&bad)) => Parsed::Bad(bad),
        _ if !OPEN_TO_ALL.contains(&opcode) => refuse(header, Status::AuthError, Status::AuthError.text()),
        // memcached swallows it, up to a gigabyte of it.
        Parsed::Bad(bad) if bad.swallow > 0 => refuse(header, Status::NoMemory, b"Out of memory"),
        Parsed::Request(Cut { request: Request::Login(Login::Sasl(mut sasl)), head, body, tail }) => {
            sasl.is_started = is_started;
            Parsed::Request(Cut { request: Request::Login(Login::Sasl(sasl)), head, body, tail })
        }
        other => other,
    }
}

fn is_unknown(bad: &Bad) -> bool {
    matches!(bad.reply, Refusal::Packet { status: Status::UnknownCommand, .. })
}

/// Refuses a packet of which no more is read.
fn refuse<'a>(header: &[u8; HEADER], status: Status, text: &'static [u8]) -> Parsed<'a> {
    let opaque = [header[12], header[13], header[14], header[15]];
    let reply = Refusal::Packet { opcode: header[1], opaque, status, text };
    Parsed::Bad(Bad { consumed: HEADER, swallow: 0, reply, close: true })
}

#[cfg(test)]
#[path = "tests/login.rs"]
mod tests;
