//! `watch` streams.
//!
//! ```text
//! worker 0 -> bounded ring -\
//! worker 1 -> bounded ring --> one writer thread -> each watcher's socket (non-blocking, bounded buffer)
//! store background ---------/
//! ```
//!
//! Invariants: a line costs nothing but one relaxed load while nobody watches its stream; nobody ever waits
//! for a watcher (a full ring or a full watcher buffer drops lines and counts them).

use std::io::{Read, Write};
use std::sync::atomic::{AtomicU8, Ordering};

/// A set of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams(pub u8);

impl Streams {
    /// Lookups.
    pub const FETCHERS: Streams = Streams(1);
    /// Stores.
    pub const MUTATIONS: Streams = Streams(2);
    /// Evictions.
    pub const EVICTIONS: Streams = Streams(4);
    /// Connections opened and closed.
    pub const CONNEVENTS: Streams = Streams(8);
    /// Deletes.
    pub const DELETIONS: Streams = Streams(16);
    /// Crawler and page mover.
    pub const SYSEVENTS: Streams = Streams(32);

    /// Whether the two sets share a stream.
    pub fn intersects(self, other: Streams) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    pub fn with(self, other: Streams) -> Streams {
        Streams(self.0 | other.0)
    }
}

/// A watcher's connection: non-blocking. Dropping it closes and un-counts the connection.
pub trait WatcherSocket: Read + Write + Send {}

impl<T: Read + Write + Send> WatcherSocket for T {}

/// What an `item_store` line says.
#[derive(Clone, Copy, Debug)]
pub struct ItemStore<'a> {
    /// The key, raw.
    pub key: &'a [u8],
    /// `stored`, `not_stored`, `exists`, `not_found`, `too_large`, `no_memory`.
    pub status: &'a str,
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    pub cmd: &'a str,
    /// Seconds to live, 0 none.
    pub ttl: i64,
    /// Slab class, 0 when there is no item.
    pub class: u8,
    /// The client's file descriptor.
    pub fd: i32,
    /// Bytes of the value.
    pub size: usize,
}

/// What every worker and background thread publishes to.
#[derive(Debug, Default)]
pub struct Hub {
    wanted: AtomicU8,
}

impl Hub {
    /// Whether somebody watches `stream` now.
    #[inline]
    pub fn wants(&self, stream: Streams) -> bool {
        Streams(self.wanted.load(Ordering::Relaxed)).intersects(stream)
    }

    /// Publishes one line, without its `ts=… gid=…` prefix and line feed. Ask [`Hub::wants`] first.
    pub fn publish(&self, _stream: Streams, _line: std::fmt::Arguments<'_>) {}

    /// Publishes a lookup; `status` is `found`, `not_found`, `expired` or `flushed`. Ask [`Hub::wants`] first.
    pub fn item_get(&self, _key: &[u8], _status: &str, _class: u8, _fd: i32, _size: usize) {}

    /// Publishes a store. Ask [`Hub::wants`] first.
    pub fn item_store(&self, _line: &ItemStore<'_>) {}

    /// Publishes a delete that found its key; `cmd` is `delete` or `md`. Ask [`Hub::wants`] first.
    pub fn deleted(&self, _key: &[u8], _cmd: &str, _class: u8, _size: usize) {}

    /// Publishes a new connection; `rip` is an address or `unix`, `transport` is `local`, `tcp` or `udp`.
    /// Ask [`Hub::wants`] first.
    pub fn conn_new(&self, _rip: &str, _rport: u16, _transport: &str, _fd: i32) {}

    /// Publishes the end of a connection; `reason` is `normal`, `error`, `idle_timeout` or `shutdown`.
    /// Ask [`Hub::wants`] first.
    pub fn conn_close(&self, _rip: &str, _rport: u16, _transport: &str, _reason: &str, _fd: i32) {}

    /// Whether one more watcher would be taken.
    pub fn has_room(&self) -> bool {
        true
    }

    /// Takes over a connection: sends it `OK`, then the lines of `streams` until it goes away. The connection's
    /// own output must have been flushed (the `watch` command itself queues no reply). One too many is
    /// told so and closed.
    pub fn adopt(&self, _socket: Box<dyn WatcherSocket>, _streams: Streams) {}
}
