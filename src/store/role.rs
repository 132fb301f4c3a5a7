//! The server's role: which server feeds it, and who may still write to it. This is decided only here.
//!
//! ```text
//!   standalone ── announce: a connection says that it brings the changes of a run ──> standby
//!       ^                                                                                │
//!       └───────────── attach: this server feeds the one that its changes came from ─────┘
//!   waiting, primary      for leases, which do not exist yet: nothing sets them today
//! ```
//!
//! A connection that brings the changes of another server is a [`ChangeSource`]. Each run has one source: a connection
//! that announces the same run later takes its place. The older connection may have much input that was read and not
//! run yet, and a killed sidecar may have left megabytes in a socket. Nothing of that may be applied after what the new
//! source sends. So the question is asked where the write happens:
//!
//! ```text
//!   write       lock the shard │ admits(source)? │ change │ unlock
//!   take over   replaced = true │ lock and unlock every shard │ answer the new source
//! ```
//!
//! So a write of the old source either happened before the new source was answered, or does not happen. What concerns
//! the whole store (flush_all, the beginning and the end of a refresh) is done under the role's own lock, and so is
//! taking over.
//!
//! Invariants: of one run, at most one source is not replaced, and a replaced one stays so. The role's lock is taken
//! before the journal's and before a shard's, never within them.
//!
//! Not here: which items a refresh drops (`journal::flush`), what is sent to the servers that this one feeds
//! (`journal`).

use crate::journal::is_named;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// An upstream that was silent for so long is not live any more: this server may then feed it.
pub(super) const UPSTREAM: Duration = Duration::from_secs(5);

/// The most servers that an upstream may name; a longer circle is not found.
const UPSTREAMS_MAX: usize = 8;

/// What the server is there for.
///
/// A lease will set it as a whole. `epoch` will grow with every owner of the data; it is 0 while there is no lease. A
/// source of an older epoch will be a replaced [`ChangeSource`], so that [`Role::admits`] stays the only question.
#[derive(Clone, Debug, Default)]
pub enum Duty {
    /// Nobody has told it anything: it serves as a memcached does.
    #[default]
    Standalone,
    /// It is going to be told its role, and serves nobody before that.
    Waiting,
    /// It serves clients until `deadline`.
    Primary {
        /// The epoch that it owns.
        epoch: u64,
        /// No reply leaves after this.
        deadline: Instant,
    },
    /// It holds a copy of another server's items.
    Standby {
        /// The epoch of what it is sent.
        epoch: u64,
        /// Where its items come from.
        upstream: Upstream,
    },
}

/// The server that this one's items come from.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// The upstream's run id, that of the server whose changes the upstream gets, and so on.
    run_ids: Vec<u64>,
    /// When it was last announced.
    heard: Instant,
}

/// A connection that brings the changes of another server.
#[derive(Debug)]
pub struct ChangeSource {
    run_id: u64,
    is_replaced: AtomicBool,
}

/// Why a connection cannot be a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// It would bring this server's own changes.
    Itself,
    /// It would bring the changes of a server that this one feeds.
    Circle,
    /// Another connection has taken its place. This one must be closed without an answer.
    Replaced,
}

/// Whether this server has its items from a peer that it is going to feed, or the peer from this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Neither has its items from the other.
    Stranger,
    /// The peer has items from this server, which has fed it before.
    Copy,
    /// This server has items from the peer, which was the last to feed it.
    Source,
}

impl ChangeSource {
    /// The run whose changes it brings.
    pub fn run_id(&self) -> u64 {
        self.run_id
    }

    /// Whether another connection has taken its place, so that nothing of it is applied any more.
    #[inline]
    pub fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Role {
    standing: Mutex<Standing>,
}

/// What the role's lock guards.
#[derive(Debug, Default)]
pub struct Standing {
    duty: Duty,
    /// One source for each run that is announced on an open connection.
    sources: Vec<Arc<ChangeSource>>,
}

impl Role {
    /// Whether a change may be made that `source` has sent, or a client if there is none. Ask this under the lock of
    /// what is changed. Taking over sets its mark and then takes every lock once, so a relaxed load will do here.
    #[inline]
    pub fn admits(&self, source: Option<&ChangeSource>) -> bool {
        source.is_none_or(|source| !source.is_replaced())
    }

    /// The lock, for a change of the whole store that `source` has sent. None if the role does not admit the source.
    pub fn admit(&self, source: Option<&ChangeSource>) -> Option<MutexGuard<'_, Standing>> {
        let standing = self.lock();
        self.admits(source).then_some(standing)
    }

    /// The lock.
    pub fn lock(&self) -> MutexGuard<'_, Standing> {
        lock(&self.standing)
    }
}

impl Standing {
    /// Notes that a connection brings the changes of the first of these runs; the connection was `source` before.
    /// Returns its source from now on, and whether that has replaced another one. If it has, the caller locks every
    /// shard once before it answers.
    pub fn follow(
        &mut self,
        run_ids: &[u64],
        source: Option<&Arc<ChangeSource>>,
        now: Instant,
    ) -> (Arc<ChangeSource>, bool) {
        let run_ids = run_ids[..run_ids.len().min(UPSTREAMS_MAX)].to_vec();
        let run_id = run_ids[0];
        self.duty = Duty::Standby { epoch: 0, upstream: Upstream { run_ids, heard: now } };
        if let Some(source) = source.filter(|source| source.run_id == run_id) {
            return (source.clone(), false);
        }
        // If nobody else refers to a source, its connection has gone.
        self.sources.retain(|other| Arc::strong_count(other) > 1);
        let older = self.sources.iter().position(|other| other.run_id == run_id);
        let older = older.map(|at| self.sources.swap_remove(at));
        older.iter().for_each(|older| older.is_replaced.store(true, Ordering::Relaxed));
        let source = Arc::new(ChangeSource { run_id, is_replaced: AtomicBool::new(false) });
        self.sources.push(source.clone());
        debug_assert!(self.sources.iter().all(|source| !source.is_replaced()));
        (source, older.is_some())
    }

    /// Notes that this server feeds the peer with this identity.
    pub fn feed(&mut self, identity: &str) {
        if self.is_from(identity) {
            self.duty = Duty::Standalone;
        }
    }

    /// Whether this server has its items from the server with this identity, live or not.
    pub fn is_from(&self, identity: &str) -> bool {
        self.upstream().is_some_and(|upstream| is_named(upstream.run_ids[0], identity))
    }

    /// Run ids of the live upstream, of the server whose changes that gets, and so on.
    pub fn live_upstreams(&self, now: Instant) -> &[u64] {
        let live = self.upstream().filter(|upstream| now.saturating_duration_since(upstream.heard) < UPSTREAM);
        live.map_or(&[], |upstream| &upstream.run_ids)
    }

    fn upstream(&self) -> Option<&Upstream> {
        match &self.duty {
            Duty::Standby { upstream, .. } => Some(upstream),
            Duty::Standalone | Duty::Waiting | Duty::Primary { .. } => None,
        }
    }
}
