//! Logging in: the `set` of `-Y`, and the SASL packets of `-S`.
//!
//! ```text
//!  protocol: AsciiLogin  ── user and password are right ──> Ascii
//!            BinaryLogin ── PLAIN is told the right ones ─> Binary ── and then wrong ones ──> BinaryLogin
//!              └── begun without data ──> is_started ── step ──┘
//! ```
//!
//! Not here: what else may be said before (`protocol::login`), who may log in (`users`).

use super::reply::{respond, respond_text};
use super::users::MECHANISM;
use super::{Context, Next, Output};
use crate::protocol::binary::{Packet, Status};
use crate::protocol::{Login, Protocol, SaslLogin};

/// Longest name of a mechanism.
const MECHANISM_MAX: usize = 32;

const BAD_TERMINATION: &[u8] = b"CLIENT_ERROR bad command line termination\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad authentication token format\r\n";
const FAILURE: &[u8] = b"CLIENT_ERROR authentication failure\r\n";

/// Answers a login, of which the value has `body` bytes.
#[cold]
pub(super) fn log_in(
    login: &Login<'_>,
    (value, body): (&[u8], usize),
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let (said, tail) = value.split_at(body);
    match login {
        Login::Text => text(said, tail, context, out),
        Login::Sasl(_) if !context.shared.config.sasl => respond_unknown(login, out),
        Login::Sasl(sasl) => plain(sasl, said, context, out),
    }
}

/// Answers the question for the mechanisms.
pub(super) fn mechanisms(packet: &Packet<'_>, context: &Context<'_>, out: &mut Output) {
    match context.shared.config.sasl {
        true => respond_text(packet, Status::Ok, MECHANISM.as_bytes(), out),
        false => respond(packet, Status::UnknownCommand, out),
    }
}

fn text(said: &[u8], tail: &[u8], context: &Context<'_>, out: &mut Output) -> Next {
    if tail != b"\r\n" {
        out.push(BAD_TERMINATION);
        return Next::Continue;
    }
    let Some(space) = memchr::memchr(b' ', said) else {
        out.push(BAD_TOKEN);
        return Next::Continue;
    };
    let is_user = context.shared.users.admits_text(&said[..space], &said[space + 1..]);
    count(is_user, context);
    if !is_user {
        out.push(FAILURE);
        return Next::Continue;
    }
    out.push(b"STORED\r\n");
    Next::Speak(Protocol::Ascii)
}

fn respond_unknown(login: &Login<'_>, out: &mut Output) -> Next {
    if let Login::Sasl(sasl) = login {
        respond(&sasl.packet, Status::UnknownCommand, out);
    }
    Next::Continue
}

// COMPAT(sasl_answers): who is logged in and then fails has to log in again.
fn plain(sasl: &SaslLogin<'_>, said: &[u8], context: &Context<'_>, out: &mut Output) -> Next {
    let packet = &sasl.packet;
    if packet.key.len() > MECHANISM_MAX {
        respond(packet, Status::Invalid, out);
        return Next::Continue;
    }
    let is_plain = if sasl.is_step { sasl.is_started } else { packet.key.eq_ignore_ascii_case(MECHANISM.as_bytes()) };
    if is_plain && !sasl.is_step && said.is_empty() {
        respond(packet, Status::AuthContinue, out);
        return Next::Speak(Protocol::BinaryLogin { is_started: true });
    }
    let is_user = is_plain && context.shared.users.admits_plain(said);
    count(is_user, context);
    if is_user {
        respond_text(packet, Status::Ok, b"Authenticated", out);
        return Next::Speak(Protocol::Binary);
    }
    respond(packet, Status::AuthError, out);
    // COMPAT(sasl_answers): a step that fails leaves the mechanism begun.
    Next::Speak(Protocol::BinaryLogin { is_started: sasl.is_step && sasl.is_started })
}

fn count(is_user: bool, context: &Context<'_>) {
    context.counters.auth_cmds.add(1);
    context.counters.auth_errors.add(u64::from(!is_user));
}
