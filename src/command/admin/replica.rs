//! `replica`: what twincache-sidecar tells the server that it keeps a copy on. memcached has no such command.
//!
//! ```text
//! replica who              OK <own run id> <told ms> <unix ms>    changes nothing
//! replica key <epoch> <secret>    OK                    this connection feeds a standby of this epoch (-o managed), and
//!                                                       nobody without does
//! replica promise <epoch> <secret> <ms>   OK <ms>       this server owns no other epoch for so long
//! replica from <run id>…   the same                     who feeds this server, who feeds that one, and so on; said again
//!                                                       every second
//! replica begin [<items>]  OK                           everything is going to be sent, and how much that is
//! replica sent <items> <bytes>    OK                    so much of it has been
//! replica end              OK                           it has been: what was not is dropped
//! replica at <lsn>         OK                           everything of the feeder's run up to here was sent
//! replica overtaken, caught-up    OK                    changes were lost, and have been sent again
//! ```
//!
//! The told time is the one by which the server takes expiries from a source, see [`crate::clock`]; the other is its wall
//! clock.
//!
//! One connection is the source of a run's changes: the newest that has said so. What an older one still brings is not
//! applied, and it is closed without an answer; see [`crate::store::Role`].
//!
//! Not here: the stream itself, which is ordinary meta commands.

use crate::command::reply::OK;
use crate::command::{Context, Next, Output, Shared};
use crate::protocol::control::{self, Introduction, ReplicaLine};
use crate::protocol::text::UNKNOWN;
use crate::store::{CopyStatus, KeyError, SourceError, SyncProgress};
use crate::supervisor;
use crate::sync::lock;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOT_ALLOWED: &[u8] = b"CLIENT_ERROR flush_all not allowed\r\n";

const NO_KEY: &[u8] = b"CLIENT_ERROR only who knows the key of its epoch feeds this server\r\n";

const NO_STANDBY: &[u8] =
    b"CLIENT_ERROR this server takes no changes from this address: start it with -o standby=<address>\r\n";

/// The longest promise: a server that does not take over is of no use.
const PROMISE_MAX_MS: u64 = 60_000;

/// Runs `replica <args>`.
pub(crate) fn run(args: &[&[u8]], noreply: bool, context: &Context<'_>, out: &mut Output) -> Next {
    let start = out.bytes.len();
    let source = context.source.map(|source| &**source);
    let mut next = Next::Continue;
    match ReplicaLine::parse(args) {
        Some(line) if says_what_it_brings(&line) && !may_feed(context) => {
            out.push(match context.shared.store.is_managed() {
                true => NO_KEY,
                false => NO_STANDBY,
            })
        }
        Some(ReplicaLine::Who) => introduce(context, out),
        Some(ReplicaLine::Key(epoch, secret)) => match context.shared.store.let_feed(epoch, secret) {
            Ok(source) => {
                out.push(OK);
                next = Next::Source(source);
            }
            Err(error) => refuse(error, out),
        },
        Some(ReplicaLine::Promise { epoch, secret, ms }) => promise(epoch, secret, ms, context, out),
        Some(ReplicaLine::From(runs)) => next = from(&runs, context, out),
        Some(ReplicaLine::Begin(_) | ReplicaLine::End) if !context.shared.config.flush_enabled => out.push(NOT_ALLOWED),
        Some(ReplicaLine::Begin(items)) => {
            context.shared.store.begin_refresh(source, items.unwrap_or(0));
            out.push(OK);
        }
        Some(ReplicaLine::Sent(items, bytes)) => {
            context.shared.store.note_progress(source, items, bytes);
            out.push(OK);
        }
        Some(ReplicaLine::At(lsn)) => {
            context.shared.store.note_position(source, lsn);
            out.push(OK);
        }
        Some(line @ (ReplicaLine::Overtaken | ReplicaLine::CaughtUp)) => {
            context.shared.store.note_overtaken(source, line == ReplicaLine::Overtaken);
            out.push(OK);
        }
        Some(ReplicaLine::End) => out.push(match context.shared.store.end_refresh(source) {
            true => {
                supervisor::notice(&whole_copy(&context.shared.store.copied().status()));
                OK
            }
            false => b"CLIENT_ERROR nothing was begun, or it is too long ago\r\n",
        }),
        None => out.push(UNKNOWN),
    }
    if noreply {
        out.bytes.truncate(start);
    }
    next
}

fn from(runs: &[&str], context: &Context<'_>, out: &mut Output) -> Next {
    let parsed: Option<Vec<u64>> = runs.iter().map(|run| control::parse_run(run)).collect();
    let Some(run_ids) = parsed else {
        out.push(b"CLIENT_ERROR a run id is 16 hex digits\r\n");
        return Next::Continue;
    };
    match context.shared.store.announce(&run_ids, context.source, Instant::now()) {
        Err(SourceError::Itself) => out.push(b"CLIENT_ERROR this is the server itself\r\n"),
        Err(SourceError::Circle) => out.push(b"CLIENT_ERROR replication would go in a circle\r\n"),
        Err(SourceError::NoStandby) => out.push(b"CLIENT_ERROR this server is no standby\r\n"),
        Err(SourceError::NoKey) => out.push(NO_KEY),
        Err(SourceError::Replaced) => {}
        Ok(source) => {
            context.shared.store.copied().heard();
            if context.source.is_none_or(|known| !Arc::ptr_eq(known, &source)) {
                let conn = lock(&context.shared.stats.conns).get(&context.fd).map(|conn| conn.addr.clone());
                context.shared.store.note_address(&source, conn.unwrap_or_default());
            }
            introduce(context, out);
            return Next::Source(source);
        }
    }
    Next::Continue
}

fn whole_copy(status: &CopyStatus) -> String {
    let SyncProgress { items, bytes, .. } = status.progress;
    let CopyStatus { run_id, address, took, .. } = status;
    let seconds = took.as_secs_f64();
    format!("a whole copy from {address} (run {run_id:016x}): {items} items, {bytes} bytes in {seconds:.1} s")
}

/// Whether only who feeds this server says this.
fn says_what_it_brings(line: &ReplicaLine<'_>) -> bool {
    !matches!(line, ReplicaLine::Who | ReplicaLine::Key(..) | ReplicaLine::Promise { .. })
}

/// Whether a connection is one that feeds this server, or may become one.
fn may_feed(context: &Context<'_>) -> bool {
    let Shared { store, config, stats, .. } = context.shared;
    if context.source.is_some() || store.is_managed() {
        return context.source.is_some();
    }
    let info = lock(&stats.conns).get(&context.fd).cloned();
    let address = info.and_then(|conn| conn.addr.split_once(':')?.1.parse::<SocketAddr>().ok());
    config.standby.iter().any(|range| range.has(address.map(|address| address.ip())))
}

fn promise(epoch: u64, secret: &str, ms: u64, context: &Context<'_>, out: &mut Output) {
    let ms = ms.min(PROMISE_MAX_MS);
    match context.shared.store.promise(epoch, secret, Duration::from_millis(ms)) {
        Ok(()) => {
            out.push(b"OK ");
            out.push_number(ms);
            out.push(b"\r\n");
        }
        Err(error) => refuse(error, out),
    }
}

fn refuse(error: KeyError, out: &mut Output) {
    out.push(format!("CLIENT_ERROR {error}\r\n").as_bytes());
}

fn introduce(context: &Context<'_>, out: &mut Output) {
    let (run, clock) = (&control::run_word(context.shared.store.journal().run_id()), &context.shared.clock);
    let (told_ms, unix_ms) = (clock.told_ms(), clock.unix_ms());
    let written = write!(out.bytes, "{}\r\n", Introduction { run, told_ms, unix_ms });
    debug_assert!(written.is_ok(), "a Vec takes everything");
}
