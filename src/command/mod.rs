//! What a verb means: the only place that knows both `protocol` and `store`.
//!
//! ```text
//! conn ── run(request, context, output) ────────────> Next       requests without a data block
//!      ── store(header, value, context, output) ────> Next       the value is in the read buffer
//!      ── begin(header, len, context) ──────────────> Upload | Bad
//!             … conn reads the value straight into the upload …
//!      ── finish(header, upload, context, output) ──> Next
//! ```
//!
//! Each call locks one shard at a time and leaves none locked. Replies go to [`Output`]; what the connection
//! must do besides is the returned [`Next`].

pub mod admin;
pub mod arith;
pub mod dump;
pub mod events;
pub mod output;
pub mod read;
pub mod stats;
pub mod write;

pub use output::Output;

use crate::clock::Clock;
use crate::config::Config;
use crate::protocol::{Bad, Request, StoreHeader};
use crate::stats::{Counters, Registry};
use crate::store::{Store, Upload};
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
    /// Where to go on in a request that returned [`Next::More`]; 0 for a fresh one.
    pub resume: usize,
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
pub fn run(_request: &Request<'_>, _context: &mut Context<'_>, _out: &mut Output) -> Next {
    todo!()
}

/// Runs a store request whose whole value (and, for text and meta, the two bytes after it) is at hand.
pub fn store(
    _header: &StoreHeader<'_>,
    _value: &[u8],
    _tail: &[u8],
    _context: &mut Context<'_>,
    _out: &mut Output,
) -> Next {
    todo!()
}

/// Begins a store request whose value of `len` bytes will arrive in pieces. On refusal `Bad::consumed` is 0
/// and `Bad::swallow` counts value and tail.
pub fn begin(_header: &StoreHeader<'_>, _len: usize, _context: &mut Context<'_>) -> Result<Upload, Bad> {
    todo!()
}

/// Ends a store request that [`begin`] began; `tail` as in [`store`].
pub fn finish(
    _header: &StoreHeader<'_>,
    _upload: Upload,
    _tail: &[u8],
    _context: &mut Context<'_>,
    _out: &mut Output,
) -> Next {
    todo!()
}

/// A large value ran out of chunks on its way in: what to answer when the rest (`left` bytes of value and
/// tail) has been swallowed.
pub fn out_of_memory(_header: &StoreHeader<'_>, _left: u64, _context: &mut Context<'_>) -> Bad {
    todo!()
}
