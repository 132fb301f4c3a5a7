//! What a verb means: the only place that knows both `protocol` and `store`.
//!
//! ```text
//! conn ── run_plain(input, limits, context, output) > how far    all that is plain at the start of the input, else:
//!      ── Lone::of(input), Lone::run ──────────────>            one that is plain and the whole input, in a wave
//!      ── run(request, context, output) ────────────> Next       requests without a data block
//!      ── store(header, value, context, output) ────> Next       the value is in the read buffer
//!      ── begin(header, len, context) ──────────────> Upload | Bad
//!             … conn reads the value straight into the upload …
//!      ── finish(header, upload, context, output) ──> Next
//! ```
//!
//! Each call locks one shard at a time and leaves none locked. Replies go to [`Output`]; what the connection
//! must do besides is the returned [`Next`].

pub mod admin;
pub mod ahead;
pub mod arith;
pub mod output;
pub mod plain;
pub mod read;
pub mod write;

#[cfg(test)]
mod tests;

pub use ahead::{Wanted, fetch_items};
pub use output::Output;
pub use plain::{Limits, Lone, run as run_plain};

use crate::clock::Clock;
use crate::config::Config;
use crate::journal::acks::LastLsn;
use crate::protocol::binary::{Op, Packet, Response, Status};
use crate::protocol::token::Tokens;
use crate::protocol::{Bad, Protocol, Request, StoreHeader, meta, text};
use crate::stats::{Counters, PrefixEvent, Registry};
use crate::store::{Hash, ItemId, Locked, Miss, Store, Upload};
use crate::watch;
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
    /// Where to go on in a request that returned [`Next::More`]: bytes of keys left; 0 for a fresh one.
    pub resume: usize,
}

impl<'a> Context<'a> {
    /// Locks the shard of a key: the one way of a command to the items.
    #[inline]
    pub fn lock(&self, hash: Hash) -> Locked<'a> {
        self.shared.store.lock_for(hash, self.last_lsn)
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
    /// Stop the server, `shutdown` (SIGINT) or `shutdown graceful` (SIGUSR1), and close.
    Shutdown {
        /// SIGUSR1.
        graceful: bool,
    },
}

/// Runs a request that has no data block.
#[inline]
pub fn run(request: &Request<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    match request {
        Request::Text(command) => run_text(command, context, out),
        Request::Meta(command) => run_meta(command, context, out),
        Request::Binary(packet) => run_binary(packet, context, out),
    }
}

/// Starts fetching what the requests at the start of `input` will need; call it where several may be there.
/// Returns how many bytes it has looked at.
pub fn fetch_ahead(protocol: Protocol, input: &[u8], shared: &Shared) -> usize {
    ahead::fetch(protocol, input, &shared.store)
}

/// What the request at the start of `input` will most likely need, if anything: for whoever fetches it in time.
pub fn wanted(protocol: Protocol, input: &[u8], shared: &Shared) -> Option<Wanted> {
    Wanted::of(protocol, input, &shared.store)
}

/// Runs a store request whose whole value and tail (for text and meta the two bytes after it) are at hand.
#[inline]
pub fn store(header: &StoreHeader<'_>, value: &[u8], tail: &[u8], context: &mut Context<'_>, out: &mut Output) -> Next {
    write::run(header, write::Value::Bytes(value), tail, context, out);
    Next::Continue
}

/// Begins a store request whose value of `len` bytes will arrive in pieces. On refusal `Bad::consumed` is 0
/// and `Bad::swallow` counts value and tail.
pub fn begin(header: &StoreHeader<'_>, len: usize, context: &mut Context<'_>) -> Result<Upload, Bad> {
    write::begin(header, len, context)
}

/// Ends a store request that [`begin`] began; `tail` as in [`store`].
pub fn finish(
    header: &StoreHeader<'_>,
    upload: Upload,
    tail: &[u8],
    context: &mut Context<'_>,
    out: &mut Output,
) -> Next {
    write::run(header, write::Value::Uploaded(upload), tail, context, out);
    Next::Continue
}

/// A large value ran out of chunks on its way in: what to answer when the rest (`left` bytes of value and
/// tail) has been swallowed.
pub fn out_of_memory(header: &StoreHeader<'_>, left: u64, context: &mut Context<'_>) -> Bad {
    write::out_of_memory(header, left, context)
}

fn run_text(command: &text::Command<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    match command {
        text::Command::Get(get) => return read::get(get, context, out),
        text::Command::Delete { key, quiet } => write::delete(key, *quiet, context, out),
        text::Command::Arith { key, incr, delta, quiet } => arith::text(key, *incr, *delta, *quiet, context, out),
        text::Command::Touch { key, exptime, quiet } => read::touch(key, *exptime, *quiet, context, out),
        text::Command::Quit => return Next::Close,
        text::Command::Admin { verb, line, noreply } => {
            return admin::run(*verb, &Tokens::new(line), *noreply, context, out);
        }
    }
    Next::Continue
}

fn run_meta(command: &meta::Command<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    match command.verb {
        meta::Verb::Get => read::meta_get(command, context, out),
        meta::Verb::Delete => write::meta_delete(command, context, out),
        meta::Verb::Arith => arith::meta(command, context, out),
        meta::Verb::Debug => read::meta_debug(command, context, out),
        meta::Verb::Noop => out.push(b"MN\r\n"),
        meta::Verb::Set => unreachable!("the parser gives ms as a store request"),
    }
    Next::Continue
}

fn run_binary(packet: &Packet<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    match packet.op {
        Op::Get => read::binary_get(packet, None, context, out),
        Op::GetAndTouch { exptime } => read::binary_get(packet, Some(exptime), context, out),
        Op::Touch { exptime } => read::binary_touch(packet, exptime, context, out),
        Op::Delete => write::binary_delete(packet, context, out),
        Op::Arith { incr, delta, initial, exptime } => {
            let create = (exptime != arith::NEVER_CREATE).then_some((initial, exptime));
            arith::binary(packet, incr, delta, create, context, out);
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
    context.last_lsn.note(context.shared.store.flush_all(context.shared.clock.expires_at(i64::from(exptime))));
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

fn response<'a>(
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
fn respond(packet: &Packet<'_>, status: Status, out: &mut Output) {
    respond_text(packet, status, status.text(), out);
}

fn respond_text(packet: &Packet<'_>, status: Status, text: &[u8], out: &mut Output) {
    response(packet, status, 0, b"", b"", text.len()).encode(&mut out.bytes);
    out.push(text);
}

fn respond_unless_quiet(packet: &Packet<'_>, out: &mut Output) {
    if !packet.quiet {
        respond(packet, Status::Ok, out);
    }
}

/// Finds an item, and tells watchers and the counters of dead items about it.
#[inline]
fn lookup(shard: &mut Locked<'_>, key: &[u8], hash: Hash, context: &Context<'_>) -> Result<ItemId, Miss> {
    let found = shard.find(key, hash);
    match found {
        Err(Miss::Expired) => context.counters.get_expired.add(1),
        Err(Miss::Flushed) => context.counters.get_flushed.add(1),
        _ => {}
    }
    if context.shared.watch.wants(watch::Streams::FETCHERS) {
        watch_lookup(shard, key, found, context);
    }
    found
}

#[cold]
fn watch_lookup(shard: &Locked<'_>, key: &[u8], found: Result<ItemId, Miss>, context: &Context<'_>) {
    let (status, class, size) = match found {
        Ok(id) => {
            let item = shard.item(id);
            ("found", item.class(), item.value_len())
        }
        Err(Miss::NotFound) => ("not_found", 0, 0),
        Err(Miss::Expired) => ("expired", 0, 0),
        Err(Miss::Flushed) => ("flushed", 0, 0),
    };
    context.shared.watch.item_get(key, status, class, context.fd, size);
}

/// Counts for `stats detail`, when that is on.
#[inline]
fn count_prefix(key: &[u8], event: PrefixEvent, context: &Context<'_>) {
    let prefixes = &context.shared.stats.prefixes;
    if prefixes.enabled() {
        prefixes.count(key, event);
    }
}

/// Seconds to live as the protocols print them: -1 never.
// COMPAT(ttl_wraps): the seconds of an item that has expired print as an unsigned 32-bit number.
fn push_ttl(expires_at: u32, now: u32, out: &mut Output) {
    match expires_at {
        0 => out.push(b"-1"),
        _ => out.push_number(u64::from(expires_at.wrapping_sub(now))),
    }
}
