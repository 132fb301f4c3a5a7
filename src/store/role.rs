//! The server's role: who feeds it, and who may still write to it. Nobody else decides that.
//!
//! ```text
//!   standalone ── announce: a connection says that it brings the changes of a run ──> standby
//!       ^                                                                                │
//!       └───────────── attach: this server feeds the one that its changes came from ─────┘
//!   waiting, primary      what a lease is going to say; nothing sets them today
//! ```
//!
//! A connection that brings the changes of another server is a [`ChangeSource`]. Of each run there is one: whoever
//! announces the same run later takes its place. An older connection may have much input that was read and not run, and
//! a killed sidecar may have left megabytes in a socket; nothing of that may come after what the new source sends. So
//! the question is asked where the write happens:
//!
//! ```text
//!   write       lock the shard │ admits(source)? │ change │ unlock
//!   take over   replaced = true │ lock and unlock every shard │ answer the new source
//! ```
//!
//! A write of the old source was therefore done before the new one was answered, or it is not done. What concerns the
//! whole store (flush_all, the begin and the end of a refresh) is done under the role's own lock, as taking over is.
//!
//! Invariants: of one run, at most one source is not replaced, and a replaced one stays so. The role's lock is taken
//! before the journal's and before a shard's, never within them.
//!
//! Not here: which items a refresh drops (`journal::flush`), what is sent to those that this server feeds (`journal`).

use crate::journal::is_named;
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// An upstream that was silent for so long is not live any more: this server may then feed it.
pub(super) const UPSTREAM: Duration = Duration::from_secs(5);

/// Servers that an upstream may name before itself; a longer circle is not found.
const UPSTREAMS_MAX: usize = 8;

/// What the server is there for.
///
/// A lease sets it as a whole. `epoch` grows with every owner of the data and is 0 while there is no lease; who was
/// replaced by a later epoch is a replaced [`ChangeSource`], so that [`Role::admits`] stays the only question.
#[derive(Clone, Debug, Default)]
pub enum Duty {
    /// Nobody has told it anything: it serves as a memcached does.
    #[default]
    Standalone,
    /// It is going to be told, and serves nobody before.
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
    /// Its run id, that of the server which its own items come from, and so on.
    run_ids: Vec<u64>,
    /// When it said so last.
    heard: Instant,
}

/// A connection by which the changes of another server come.
#[derive(Debug)]
pub struct ChangeSource {
    run_id: u64,
    is_replaced: AtomicBool,
}

/// Why a connection is no source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// It would bring this server's own changes.
    Itself,
    /// It would bring the changes of a server that this one feeds.
    Circle,
    /// Another one has taken its place. It is to be closed without an answer.
    Replaced,
}

/// Which of this server and a peer that it is to feed has its items from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Neither has its items from the other.
    Stranger,
    /// The peer: it was fed before.
    Copy,
    /// This server: the peer was the last to feed it.
    Source,
}

impl ChangeSource {
    /// Whether another connection has taken its place: nothing of it is applied any more.
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
    /// One for each run that is announced on an open connection.
    sources: Vec<Arc<ChangeSource>>,
}

impl Role {
    /// Whether a change may be made that `source` has sent, or a client if there is none. Ask it under the lock of what
    /// is to be changed: taking over passes through every lock after it has said so, which is why no stronger ordering
    /// is needed here.
    #[inline]
    pub fn admits(&self, source: Option<&ChangeSource>) -> bool {
        source.is_none_or(|source| !source.is_replaced())
    }

    /// The lock, for what concerns the whole store. None if that may not be done any more.
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
    /// Notes that the changes of the first of these runs come by a connection, which was `source` before: what it is
    /// now, and whether another one was replaced. Then every shard is to be locked once, before that is answered.
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
        // One that nobody else holds is of a connection that has gone.
        self.sources.retain(|other| Arc::strong_count(other) > 1);
        let older = self.sources.iter().position(|other| other.run_id == run_id);
        let older = older.map(|at| self.sources.swap_remove(at));
        older.iter().for_each(|older| older.is_replaced.store(true, Ordering::Relaxed));
        let source = Arc::new(ChangeSource { run_id, is_replaced: AtomicBool::new(false) });
        self.sources.push(source.clone());
        debug_assert!(self.sources.iter().all(|source| !source.is_replaced()));
        (source, older.is_some())
    }

    /// Notes that this server feeds the peer with that identity.
    pub fn feed(&mut self, identity: &str) {
        if self.is_from(identity) {
            self.duty = Duty::Standalone;
        }
    }

    /// Whether what this server holds came from the one with that identity, be that live or not.
    pub fn is_from(&self, identity: &str) -> bool {
        self.upstream().is_some_and(|upstream| is_named(upstream.run_ids[0], identity))
    }

    /// Run ids of the server that changes come from just now, of the one that its own come from, and so on.
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
