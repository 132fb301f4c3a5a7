//! What a verb means: the only place that knows both `protocol` and `store`.
//!
//! ```text
//! net ── Batch::cut(input) … prefetch ── Prepared::run(context, output) ──> Next     whole requests (batch.rs)
//!     ── begin(header, len, context) ──────────────────────────> Upload | Bad       a large value is on its way
//!             … net reads the value straight into the upload …
//!     ── finish(header, upload, context, output)
//! ```
//!
//! Each call locks one shard at a time and leaves none locked. Replies go to [`Output`]; what the connection
//! must do besides is the returned [`Next`]; whether something was changed shows in [`Context::last_lsn`].

pub mod admin;
mod arith;
pub mod batch;
mod delete;
mod lookup;
pub mod output;
mod read;
mod reply;
mod write;

#[cfg(test)]
mod tests;

pub use output::Output;
pub use write::{begin, finish, out_of_memory};

use crate::clock::Clock;
use crate::config::Config;
use crate::journal::acks::LastLsn;
use crate::protocol::binary::{Op, Packet, Status};
use crate::protocol::token::Tokens;
use crate::protocol::{Request, meta, text};
use crate::stats::{Counters, Registry};
use crate::store::{ChangeSource, Hash, Locked, Store};
use crate::watch;
use batch::Prepared;
use reply::{respond, respond_text, respond_unless_quiet, response};
use std::sync::Arc;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The command line.
    pub config: Config,
    /// The server's clock.
    pub clock: Arc<Clock>,
    /// The items.
    pub store: Arc<Store>,
    /// Counters and gauges.
    pub stats: Registry,
    /// Watchers.
    pub watch: watch::Hub,
}

impl Shared {
    /// What the workers of a server on `store` share, with the store's own clock.
    pub fn new(config: Config, clock: Arc<Clock>, store: Arc<Store>) -> Shared {
        let stats = Registry::default();
        stats.prefixes.set_delimiter(config.prefix_delimiter);
        stats.prefixes.enable(config.detail_enabled);
        let watch = watch::Hub::new(config.watcher_logbuf_size, config.worker_logbuf_size);
        Shared { config, clock, store, stats, watch }
    }
}

/// What a command runs in: its worker and its connection.
#[derive(Debug)]
pub struct Context<'a> {
    /// What all workers share.
    pub shared: &'a Shared,
    /// This worker's counters.
    pub counters: &'a Counters,
    /// The connection's file descriptor, as `watch` prints it.
    pub fd: i32,
    /// The last change that the worker's requests have journalled.
    pub last_lsn: &'a LastLsn,
    /// That the connection brings another server's changes. None: it is a client's.
    pub source: Option<&'a Arc<ChangeSource>>,
    /// Where the connection's replies begin in the output: what stands before them is for others.
    pub replies_at: usize,
    /// Where to go on in a request that returned [`Next::More`]: bytes of keys left; 0 for a fresh one.
    pub resume: usize,
}

impl<'a> Context<'a> {
    /// Locks the shard of a key: the one way of a command to the items.
    #[inline]
    pub fn lock(&self, hash: Hash) -> Locked<'a> {
        self.shared.store.lock_for(hash, self.last_lsn, self.source)
    }

    /// Flushes everything, after so many seconds or at such a time.
    fn flush_all(&self, exptime: i64) {
        let at = self.shared.clock.expires_at(exptime);
        self.last_lsn.note(self.shared.store.flush_all(at, self.source.map(|source| &**source)));
    }

    /// Whether nothing waits to be sent to the connection.
    fn is_first_reply(&self, out: &Output) -> bool {
        out.bytes.len() == self.replies_at && out.values.is_empty()
    }
}

/// What the connection does after a request.
#[derive(Debug)]
pub enum Next {
    /// The next request.
    Continue,
    /// Flush what is queued, then close.
    Close,
    /// The output is long enough: flush it, then run the same request again with this `resume`.
    More(usize),
    /// Hand the socket to the watch writer, after the output is flushed.
    Watch(watch::Streams),
    /// Call [`admin::Dump::fill`] each time the output has been flushed, until it says that it is done.
    Dump(Box<admin::Dump>),
    /// The next request, of what is from now on the source of another server's changes.
    Source(Arc<ChangeSource>),
    /// Stop the server, `shutdown` (SIGINT) or `shutdown graceful` (SIGUSR1), and close.
    Shutdown {
        /// SIGUSR1.
        graceful: bool,
    },
}

/// See [`Prepared::run`].
#[inline(always)]
fn run_request(prepared: &Prepared<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    let hash = prepared.hash;
    match &prepared.cut.request {
        Request::Text(command) => return run_text(command, hash, context, out),
        Request::Store(header) => {
            let (value, tail) = prepared.value.split_at(prepared.cut.body);
            write::run(header, hash, write::Value::Bytes(value), tail, context, out);
        }
        Request::Meta(command) => run_meta(command, hash, context, out),
        Request::Binary(packet) => return run_binary(packet, hash, context, out),
    }
    Next::Continue
}

#[inline]
fn run_text(command: &text::Command<'_>, hash: Hash, context: &mut Context<'_>, out: &mut Output) -> Next {
    match command {
        text::Command::Get(get) if get.single => return read::get_one(get, hash, context, out),
        text::Command::Get(get) => return read::get_many(get, context, out),
        text::Command::Delete { key, quiet } => delete::text(key, hash, *quiet, context, out),
        text::Command::Arith { key, incr, delta, quiet } => {
            arith::text((key, hash), *incr, *delta, *quiet, context, out);
        }
        text::Command::Touch { key, exptime, quiet } => read::touch(key, hash, *exptime, *quiet, context, out),
        text::Command::Quit => return Next::Close,
        text::Command::Admin { verb, line, noreply } => {
            return admin::run(*verb, &Tokens::new(line), *noreply, context, out);
        }
    }
    Next::Continue
}

fn run_meta(command: &meta::Command<'_>, hash: Hash, context: &mut Context<'_>, out: &mut Output) {
    let mut buffer = None;
    let key = command.key(&mut buffer);
    match command.verb {
        meta::Verb::Get => read::meta_get(command, (key, hash), context, out),
        meta::Verb::Delete => delete::meta(command, (key, hash), context, out),
        meta::Verb::Arith => arith::meta(command, (key, hash), context, out),
        meta::Verb::Debug => read::meta_debug((key, hash), context, out),
        meta::Verb::Noop => out.push(b"MN\r\n"),
        meta::Verb::Set => unreachable!("the parser gives ms as a store request"),
    }
}

fn run_binary(packet: &Packet<'_>, hash: Hash, context: &mut Context<'_>, out: &mut Output) -> Next {
    match packet.op {
        Op::Get => read::binary_get(packet, hash, None, context, out),
        Op::GetAndTouch { exptime } => read::binary_get(packet, hash, Some(exptime), context, out),
        Op::Touch { exptime } => read::binary_touch(packet, hash, exptime, context, out),
        Op::Delete => delete::binary(packet, hash, context, out),
        Op::Arith { incr, delta, initial, exptime } => {
            let create = (exptime != arith::NEVER_CREATE).then_some((initial, exptime));
            arith::binary(packet, hash, incr, delta, create, context, out);
        }
        Op::Noop => respond(packet, Status::Ok, out),
        Op::Version => respond_text(packet, Status::Ok, crate::VERSION.as_bytes(), out),
        Op::Flush { exptime } => binary_flush(packet, exptime, context, out),
        Op::Stat => binary_stat(packet, context, out),
        Op::Quit => {
            respond_unless_quiet(packet, out);
            return Next::Close;
        }
        Op::Store { .. } => unreachable!("the parser gives it as a store request"),
    }
    Next::Continue
}

fn binary_flush(packet: &Packet<'_>, exptime: u32, context: &mut Context<'_>, out: &mut Output) {
    if !context.shared.config.flush_enabled {
        return respond(packet, Status::AuthError, out);
    }
    context.flush_all(exptime.into());
    context.counters.flush_cmds.add(1);
    respond_unless_quiet(packet, out);
}

fn binary_stat(packet: &Packet<'_>, context: &mut Context<'_>, out: &mut Output) {
    let known = match packet.key.strip_prefix(b"detail") {
        Some(argument) => binary_stat_detail(packet, argument, context, out),
        None => admin::stats::each((!packet.key.is_empty()).then_some(packet.key), context, &mut |name, value| {
            push_stat(packet, name.as_bytes(), value.as_bytes(), out);
        }),
    };
    match known {
        true => respond(packet, Status::Ok, out),
        false => respond(packet, Status::NotFound, out),
    }
}

/// `detail on|off|dump`; false for anything else, and for all of it under `-X`.
fn binary_stat_detail(packet: &Packet<'_>, argument: &[u8], context: &Context<'_>, out: &mut Output) -> bool {
    if !context.shared.config.dump_enabled {
        return false;
    }
    let prefixes = &context.shared.stats.prefixes;
    match argument {
        b" on" => prefixes.enable(true),
        b" off" => prefixes.enable(false),
        b" dump" => {
            let mut text = Vec::new();
            prefixes.dump(&mut text);
            text.extend_from_slice(b"END\r\n");
            push_stat(packet, b"detailed", &text, out);
        }
        _ => return false,
    }
    true
}

fn push_stat(packet: &Packet<'_>, name: &[u8], value: &[u8], out: &mut Output) {
    response(packet, Status::Ok, 0, b"", name, value.len()).encode(&mut out.bytes);
    out.push(value);
}
