//! What a command runs in, and what it may want of its connection afterwards.

use super::Output;
use super::discovery::Discovery;
use super::dump::LongAnswer;
use super::refresh::RefreshAhead;
use super::users::Users;
use crate::clock::Clock;
use crate::config::Config;
use crate::journal::acks::LastLsn;
use crate::protocol::Protocol;
use crate::stats::hot_keys::SampledKey;
use crate::stats::{CommandKind, Counters, Registry};
use crate::store::{ChangeSource, Hash, ItemId, Locked, Store, Upload};
use crate::tls::ServerTls;
use crate::watch;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    /// What clients are told of the servers of their ring.
    pub discovery: Discovery,
    /// Who may log in, where clients have to.
    pub users: Users,
    /// Hot items that are made anew before they expire.
    pub refresh: Option<RefreshAhead>,
    /// Certificates, if TLS is spoken.
    pub tls: Option<Arc<ServerTls>>,
}

impl Shared {
    /// What the workers of a server on `store` share, with the store's own clock.
    pub fn new(config: Config, clock: Arc<Clock>, store: Arc<Store>) -> Shared {
        let stats = Registry::default();
        stats.prefixes.set_delimiter(config.prefix_delimiter);
        stats.prefixes.enable(config.detail_enabled);
        let refresh = RefreshAhead::new(config.refresh_ahead, &config.refresh_prefix);
        stats.samples_keys.store(config.hot_keys || refresh.is_some(), Ordering::Relaxed);
        let watch = watch::Hub::new(config.watcher_logbuf_size, config.worker_logbuf_size);
        let (discovery, users) = (Discovery::default(), Users::default());
        Shared { config, clock, store, stats, watch, discovery, users, refresh, tls: None }
    }
}

impl Shared {
    /// Notes a key that was sampled.
    #[cold]
    pub(super) fn sample(&self, sample: &SampledKey<'_>, counters: &Counters) {
        let now = self.clock.now();
        counters.keys.note(sample, now);
        if let Some(refresh) = &self.refresh
            && sample.written.is_none()
            && refresh.concerns(sample.key)
        {
            let hash = Hash(sample.hash);
            let mut shard = self.store.lock(hash);
            let found = shard.find(sample.key, hash).ok().map(|id| shard.item(id).expires_at());
            drop(shard);
            found.iter().for_each(|&expires_at| refresh.learn(hash, expires_at, now));
        }
    }
}

/// What an append makes at once for a connection, under the shard's lock: in 0.05 to 0.5 ms.
pub const JOINED_AT_ONCE: usize = 256 << 10;

/// What is copied within the store counts from so many bytes on: below it the request itself takes longer.
pub(super) const JOINED_MIN: usize = 16 << 10;

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
    /// Where to go on in a request that returned [`Next::More`] or [`Next::Check`]: bytes of keys left; 0 for a fresh one.
    pub resume: usize,
    /// It was [`Next::Check`].
    pub is_checking: bool,
    /// A line with many keys pauses for its output to be written when it has produced this many bytes.
    pub part: usize,
    /// What takes longer than a lookup may be done now. Else it is [`Next::Later`].
    pub may_be_long: bool,
    /// An append that makes a value of more bytes is [`Next::Join`]; one that has come in its chunks, also if it makes one of
    /// more than [`Context::room`].
    pub joined_at_once: usize,
    /// A request that copies more bytes than this within the store, and than [`JOINED_MIN`], is [`Next::InLine`].
    pub room: usize,
    /// It only reads, and what a client may read of a standby.
    pub reads_copy: bool,
}

impl<'a> Context<'a> {
    /// Locks the shard of a key: the one way of a command to the items.
    #[inline]
    pub fn lock(&self, hash: Hash) -> Locked<'a> {
        if self.reads_copy {
            self.lock_copy(hash)
        } else {
            self.shared.store.lock_for(hash, self.last_lsn, self.source)
        }
    }

    /// An append that makes a value of more bytes is not done now.
    pub(super) fn joined_in_turn(&self) -> usize {
        self.joined_at_once.min(self.room.max(JOINED_MIN))
    }

    #[cold]
    fn lock_copy(&self, hash: Hash) -> Locked<'a> {
        self.shared.store.lock(hash)
    }

    /// Counts a request that is answered.
    #[inline(always)]
    pub(super) fn count(&self, kind: CommandKind) {
        self.counters.commands.count(kind);
    }

    /// Whether a get of an item misses, so that its client makes it anew.
    #[inline(always)]
    pub(super) fn must_refresh(&self, shard: &Locked<'_>, id: ItemId, hash: Hash) -> bool {
        let is_due = |refresh: &RefreshAhead| {
            let expires_at = shard.item(id).expires_at();
            expires_at != 0 && !self.reads_copy && refresh.is_due(hash, expires_at, self.shared.clock.now())
        };
        self.shared.refresh.as_ref().is_some_and(is_due)
    }

    /// Turns the exptime of a request into `expires_at`: a feeder says it by the time that it was told.
    #[inline]
    pub(super) fn expires_at(&self, exptime: i64) -> u32 {
        match self.source {
            None => self.shared.clock.expires_at(exptime),
            Some(_) => self.shared.clock.expires_at_told(exptime),
        }
    }

    /// Flushes everything, after so many seconds or at such a time. False when clients have asked for too many of late.
    pub(super) fn flush_all(&self, exptime: i64) -> bool {
        let at = self.expires_at(exptime);
        // COMPAT(flush_past): a client's flush_all for a time before the server started flushes nothing.
        if self.source.is_none() && exptime > 0 && at <= 1 {
            return true;
        }
        if self.source.is_none() && self.shared.store.is_flushed_too_often() {
            return false;
        }
        self.last_lsn.note(self.shared.store.flush_all(at, self.source.map(|source| &**source)));
        true
    }

    /// Whether nothing waits to be sent to the connection.
    pub(super) fn is_first_reply(&self, out: &Output) -> bool {
        out.bytes.len() == self.replies_at && out.values.is_empty()
    }
}

/// What the connection does after a request.
#[derive(Debug)]
pub enum Next {
    /// The next request.
    Continue,
    /// The next request; this one has copied so many bytes, which its reply does not show.
    Spent(usize),
    /// Nothing was done: it is an append to a large value, to be done in turns by a [`super::LongJoin`]; this has arrived in
    /// its chunks for it, if it is not in a buffer.
    Join(Option<Box<Upload>>),
    /// Flush what is queued, then close.
    Close,
    /// The output is long enough: flush it, then run the same request again with this `resume`.
    More(usize),
    /// The same, before anything is answered: it takes a while to see whether it can be.
    Check(usize),
    /// Nothing was done: run the request again when those have been answered who ask for less, and with
    /// [`Context::may_be_long`].
    Later,
    /// Nothing was done or counted, though watchers may have been told of a lookup: run the request again when those have
    /// been answered who move less, with a larger [`Context::room`].
    InLine,
    /// Hand the socket to the watch writer, after the output is flushed.
    Watch(watch::Streams),
    /// Call [`LongAnswer::fill`] each time the output has been flushed, until it says that it is done.
    Dump(Box<LongAnswer>),
    /// The next request, which is to be read as this: the client has logged in, or has to.
    Speak(Protocol),
    /// The next request, of what is from now on the source of another server's changes.
    Source(Arc<ChangeSource>),
    /// Stop the server, `shutdown` (SIGINT) or `shutdown graceful` (SIGUSR1), and close.
    Shutdown {
        /// SIGUSR1.
        graceful: bool,
    },
}
