//! `replica`: what twincache-sidecar tells the server that it keeps a copy on. memcached has no such command.
//!
//! ```text
//! replica who              OK <own run id> <unix ms>    changes nothing
//! replica from <run id>…   OK <own run id> <unix ms>    who feeds this server, who feeds that one, and so on; said again
//!                                                       every second; own clock
//! replica begin            OK                           everything is going to be sent
//! replica end              OK                           it has been: what was not is dropped
//! ```
//!
//! One connection feeds for a run: the newest that has said so. What an older one still brings is not run, and it is
//! closed; a sidecar that was killed may have left megabytes there, which must not come after what the next one sends.
//!
//! Not here: the stream itself, which is ordinary meta commands.

use crate::command::reply::OK;
use crate::command::{Context, Next, Output};
use crate::journal::UpstreamError;
use crate::protocol::text::UNKNOWN;
use std::io::Write;
use std::time::Instant;

const NOT_ALLOWED: &[u8] = b"CLIENT_ERROR flush_all not allowed\r\n";

/// Runs `replica <args>`.
pub(crate) fn run(args: &[&[u8]], noreply: bool, context: &Context<'_>, out: &mut Output) -> Next {
    let start = out.bytes.len();
    match args {
        [b"who"] => introduce(context, out),
        [b"from", run_ids @ ..] if !run_ids.is_empty() => from(run_ids, context, out),
        [b"begin" | b"end"] if !context.shared.config.flush_enabled => out.push(NOT_ALLOWED),
        [b"begin"] => {
            context.shared.store.begin_refresh();
            out.push(OK);
        }
        [b"end"] => out.push(match context.shared.store.end_refresh() {
            true => OK,
            false => b"CLIENT_ERROR nothing was begun, or it is too long ago\r\n",
        }),
        _ => out.push(UNKNOWN),
    }
    if noreply {
        out.bytes.truncate(start);
    }
    Next::Continue
}

fn from(run_ids: &[&[u8]], context: &Context<'_>, out: &mut Output) {
    let parse = |text: &&[u8]| u64::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok();
    let parsed: Option<Vec<u64>> = run_ids.iter().map(parse).collect();
    let Some(run_ids) = parsed else { return out.push(b"CLIENT_ERROR a run id is 16 hex digits\r\n") };
    match context.shared.store.set_upstream(&run_ids, Instant::now()) {
        Err(UpstreamError::Itself) => out.push(b"CLIENT_ERROR this is the server itself\r\n"),
        Err(UpstreamError::Circle) => out.push(b"CLIENT_ERROR replication would go in a circle\r\n"),
        Ok(()) => {
            context.shared.stats.feed_by(context.fd, run_ids[0]);
            introduce(context, out);
        }
    }
}

fn introduce(context: &Context<'_>, out: &mut Output) {
    let (run_id, unix_ms) = (context.shared.store.journal().run_id(), context.shared.clock.unix_ms());
    let written = write!(out.bytes, "OK {run_id:016x} {unix_ms}\r\n");
    debug_assert!(written.is_ok(), "a Vec takes everything");
}
