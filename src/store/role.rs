//! The server's role: whether clients may change and read here, which server feeds it, and who may still write to it.
//! This is decided only here.
//!
//! ```text
//!   standalone            a server without -o managed: serves whoever comes, whether or not it is fed
//!
//!   waiting ──> standby <──> candidate        (-o managed: told so over the control socket)
//!      ^           ^│            │            clients are refused, a source may write
//!      │           │└─────┬──────┘
//!      │           │      v
//!      └───────────┴── primary                clients may write until the deadline, no source may
//! ```
//!
//! The *epoch* grows with every owner. The highest that was heard of is kept, and no order of a lower one is obeyed.
//!
//! A connection that brings the changes of another server is a [`ChangeSource`]. Each run has one source: a connection
//! that announces the same run later takes its place. The older connection may have much input that was read and not
//! run yet, and a killed sidecar may have left megabytes in a socket. Nothing of that may be applied after what the new
//! source sends. So the question is asked where the write happens:
//!
//! ```text
//!   write       lock the shard │ admits(source)? │ change │ unlock
//!   take over   replaced = true │ lock and unlock every shard │ answer the new source
//!   promotion   all sources are replaced = true │ lock and unlock every shard │ answer
//!   demotion    clients are barred = true │ another term │ lock and unlock every shard │ tell the listener │ answer
//! ```
//!
//! So a write of the old source either happened before the new source was answered, or does not happen; and so do the
//! changes of clients and the answer to a demotion. What concerns the whole store (flush_all, the beginning and the end
//! of a refresh) is done under the role's own lock, and so is taking over.
//!
//! Replies are another matter: between a change and the reply to it the role may change. Each demotion begins a new
//! *term*. Who is about to send a reply asks [`Role::may_answer`] with the term in which the request was run: in another
//! one, or past the deadline, nothing is said. The listener waits until nobody is in the middle of such a reply.
//!
//! Invariants: of one run, at most one source is not replaced, and a replaced one stays so. The role's lock is taken
//! before the journal's and before a shard's, never within them. The epoch and the term never decrease.
//!
//! Not here: which items a refresh drops (`journal::flush`), what is sent to the servers that this one feeds
//! (`journal`), who decides on roles (the sidecar), the sending of replies (`net`).

use super::refusals::{EPOCH_MAX, KeyError, RoleError, SourceError};
use crate::journal::is_named;
use crate::sync::lock;
use crate::sys::cpu::time_since_boot;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// An upstream that was silent for so long is not live any more: this server may then feed it.
pub(super) const UPSTREAM: Duration = Duration::from_secs(5);

/// The most servers that an upstream may name; a longer circle is not found.
const UPSTREAMS_MAX: usize = 8;

/// The deadline of who has none.
const NO_DEADLINE: u64 = u64::MAX;

/// Longest time for which the changes of clients are held.
const HOLD_MAX_MS: u64 = 60_000;

/// From where an owner of this epoch counts cas uniques: above all that earlier owners gave, whether or not their changes
/// have come here.
pub(super) fn first_cas(epoch: u64) -> u64 {
    epoch << (u64::BITS - 1 - EPOCH_MAX.count_ones())
}

/// For so long after a demotion the address may still be on its way to the new primary.
const MOVING_MS: u64 = 1000;

/// What the server is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Nobody tells it anything: it serves as a memcached does.
    Standalone,
    /// It is going to be told its role, and serves nobody before that.
    Waiting,
    /// It serves clients.
    Primary {
        /// The epoch that it owns.
        epoch: u64,
        /// No reply leaves after this: milliseconds since boot.
        deadline_ms: u64,
    },
    /// It holds a copy of another server's items.
    Standby {
        /// The epoch of who may feed it.
        epoch: u64,
    },
    /// A standby that is about to become the owner of an epoch.
    Candidate {
        /// The epoch that it will own.
        epoch: u64,
    },
}

/// What a server is told to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as the duties")]
pub enum RoleOrder<'a> {
    Waiting,
    Standby {
        epoch: u64,
        secret: &'a str,
    },
    Candidate {
        epoch: u64,
    },
    /// With `drops_all` it first drops what it has from before it owned this epoch.
    Primary {
        epoch: u64,
        deadline_ms: u64,
        drops_all: bool,
    },
}

/// What has to follow when the role has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Aftermath {
    /// Somebody may not change anything any more who could: every shard is to be locked once.
    pub shuts_out: bool,
    /// Clients are not to be answered any more: the listener is to be told.
    pub silences: bool,
    /// All items are to be dropped before clients come.
    pub drops_all: bool,
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
    /// The run whose changes it brings; None before it has said so.
    run_id: Option<u64>,
    /// The epoch of which it has shown the key, 0 for none.
    epoch: u64,
    is_replaced: AtomicBool,
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
    fn new(run_id: Option<u64>, epoch: u64) -> Arc<ChangeSource> {
        Arc::new(ChangeSource { run_id, epoch, is_replaced: AtomicBool::new(false) })
    }

    /// The run whose changes it brings, if it has said so.
    pub fn run_id(&self) -> Option<u64> {
        self.run_id
    }

    /// The highest cas unique of it that the own counter follows. A source passes on any cas that a client has named. The
    /// counters of owners begin at their epochs (see [`first_cas`]), and what is above the next one is none of theirs;
    /// without epochs nobody can have counted up to one in the upper half, and to follow it would let the counter run over.
    #[inline]
    pub fn cas_max(&self) -> u64 {
        if self.epoch > 0 { first_cas(self.epoch + 1) - 1 } else { u64::MAX / 2 }
    }

    /// Whether another connection has taken its place, so that nothing of it is applied any more.
    #[inline]
    pub fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::Relaxed)
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Role {
    is_managed: bool,
    standing: Mutex<Standing>,
    /// Clients are not to change anything.
    bars_clients: AtomicBool,
    /// It is a standby, or a candidate: there is a copy to read.
    is_standby: AtomicBool,
    /// No reply to a client leaves after this.
    deadline_ms: AtomicU64,
    /// When it was primary last, by milliseconds since boot; 0: never.
    demoted_ms: AtomicU64,
    /// The changes of clients wait until then, by milliseconds since boot; 0: they do not.
    held_until: AtomicU64,
    /// Grows with each demotion.
    term: AtomicU64,
    listener: Mutex<Option<RoleListener>>,
}

#[derive(Clone)]
struct RoleListener(Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for RoleListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoleListener")
    }
}

/// What the role's lock guards.
#[derive(Debug)]
pub struct Standing {
    duty: Duty,
    /// The highest epoch that was heard of.
    epoch: u64,
    /// By which who owns `epoch` shows that it does. None: it need not show it, or nobody knows it here.
    secret: Option<Box<str>>,
    /// Where its items come from, if it was fed and has not fed them back since.
    upstream: Option<Upstream>,
    /// One source for each run that is announced on an open connection, and those who have shown a key.
    sources: Vec<Arc<ChangeSource>>,
    /// To which epoch's owner it was promised that this server does not own another one, and until when.
    promise: Option<(u64, Duration)>,
}

impl Role {
    /// Of a server that is going to be told what it is, or of one that serves by itself.
    pub(super) fn new(is_managed: bool) -> Role {
        let duty = if is_managed { Duty::Waiting } else { Duty::Standalone };
        let standing = Standing { duty, epoch: 0, secret: None, upstream: None, sources: Vec::new(), promise: None };
        Role {
            is_managed,
            standing: Mutex::new(standing),
            bars_clients: AtomicBool::new(is_managed),
            is_standby: AtomicBool::new(false),
            deadline_ms: AtomicU64::new(NO_DEADLINE),
            demoted_ms: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            term: AtomicU64::new(0),
            listener: Mutex::new(None),
        }
    }

    /// Whether a change may be made that `source` has sent, or a client if there is none. Ask this under the lock of
    /// what is changed. Who takes that right away sets a mark and then takes every lock once, so a relaxed load will do
    /// here.
    #[inline]
    pub fn admits(&self, source: Option<&ChangeSource>) -> bool {
        match source {
            None => !self.bars_clients.load(Ordering::Relaxed),
            Some(source) => !source.is_replaced(),
        }
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

    /// Whether it is told what it is.
    pub fn is_managed(&self) -> bool {
        self.is_managed
    }

    /// Whether clients are refused. Who has heard that they are not knows the deadline as well.
    #[inline]
    pub fn bars_clients(&self) -> bool {
        self.bars_clients.load(Ordering::Acquire)
    }

    /// Whether there is a copy that clients could read.
    pub fn is_standby(&self) -> bool {
        self.is_standby.load(Ordering::Relaxed)
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::SeqCst)
    }

    /// Whether it was primary a moment ago. Clients that come now have not found the new one yet: they had better try again
    /// than be refused.
    pub fn was_primary_just_now(&self) -> bool {
        let at = self.demoted_ms.load(Ordering::Relaxed);
        at != 0 && now_ms() < at + MOVING_MS
    }

    /// Lets the changes of clients wait for so long; 0: they wait no more. It is a courtesy, so that a switchover has little
    /// to wait for: a change that is already under way is still made.
    pub fn hold_changes(&self, ms: u64) {
        let until = if ms == 0 { 0 } else { now_ms() + ms.min(HOLD_MAX_MS) };
        self.held_until.store(until, Ordering::SeqCst);
    }

    /// Whether the changes of clients wait.
    #[inline]
    pub fn holds_changes(&self) -> bool {
        let until = self.held_until.load(Ordering::Relaxed);
        until != 0 && now_ms() < until
    }

    /// Whether a client may be sent, just now, what was answered in this term.
    pub fn may_answer(&self, term: u64) -> bool {
        // In this order: who sees that the deadline was taken back sees the term that did so.
        let deadline_ms = self.deadline_ms.load(Ordering::SeqCst);
        (deadline_ms == NO_DEADLINE || time_since_boot().as_millis() < u128::from(deadline_ms)) && self.term() == term
    }

    /// Sets what is called after a demotion, and returns when no client is being answered any more. There is one listener.
    pub(super) fn listen(&self, listener: impl Fn() + Send + Sync + 'static) {
        *lock(&self.listener) = Some(RoleListener(Arc::new(listener)));
    }

    /// Tells the listener.
    pub(super) fn tell_listener(&self) {
        let listener = lock(&self.listener).clone();
        if let Some(RoleListener(listener)) = listener {
            listener();
        }
    }

    /// Takes another role, or a later deadline.
    pub(super) fn obey(&self, order: RoleOrder<'_>) -> Result<Aftermath, RoleError> {
        let mut standing = self.lock();
        let (before, known) = (standing.duty, standing.epoch);
        standing.obey(order)?;
        let after = standing.duty;
        if let (Duty::Primary { epoch: old, deadline_ms: earlier }, Duty::Primary { epoch, deadline_ms }) =
            (before, after)
            && old == epoch
        {
            let deadline_ms = deadline_ms.max(earlier);
            standing.duty = Duty::Primary { epoch, deadline_ms };
            self.deadline_ms.store(deadline_ms, Ordering::SeqCst);
            return Ok(Aftermath::default());
        }
        self.is_standby.store(matches!(after, Duty::Standby { .. } | Duty::Candidate { .. }), Ordering::Relaxed);
        let silences = matches!(before, Duty::Primary { .. });
        if silences {
            self.demoted_ms.store(now_ms(), Ordering::SeqCst);
            self.held_until.store(0, Ordering::SeqCst);
            self.bars_clients.store(true, Ordering::SeqCst);
            self.term.fetch_add(1, Ordering::SeqCst);
            self.deadline_ms.store(NO_DEADLINE, Ordering::SeqCst);
        }
        let had_sources = match after {
            Duty::Standby { epoch } => standing.shut_out_sources(epoch),
            Duty::Candidate { .. } => false,
            Duty::Standalone | Duty::Waiting | Duty::Primary { .. } => standing.shut_out_sources(u64::MAX),
        };
        // Who was primary, or has owned this epoch already, has dropped it then. All orders of a tenure say so until it is
        // known to be done, and one of them may come twice.
        let is_new = !silences && standing.epoch > known;
        let drops_all = is_new && matches!(order, RoleOrder::Primary { drops_all: true, .. });
        let aftermath = Aftermath { shuts_out: silences || had_sources, silences, drops_all };
        if let Duty::Primary { deadline_ms, .. } = after {
            self.deadline_ms.store(deadline_ms, Ordering::SeqCst);
        }
        Ok(aftermath)
    }

    /// Lets clients in if it is primary: call this when what a promotion shuts out is out.
    pub(super) fn open(&self) {
        let standing = self.lock();
        if matches!(standing.duty, Duty::Primary { .. }) {
            self.bars_clients.store(false, Ordering::SeqCst);
        }
    }
}

impl Standing {
    /// What the server is there for.
    pub fn duty(&self) -> Duty {
        self.duty
    }

    /// The highest epoch that was heard of.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether another server feeds it, or was the last to do so.
    pub fn is_fed(&self) -> bool {
        self.upstream.is_some()
    }

    fn obey(&mut self, order: RoleOrder<'_>) -> Result<(), RoleError> {
        let epoch = match order {
            _ if self.duty == Duty::Standalone => return Err(RoleError::Unmanaged),
            RoleOrder::Waiting => {
                self.duty = Duty::Waiting;
                return Ok(());
            }
            RoleOrder::Standby { epoch, .. } | RoleOrder::Candidate { epoch } | RoleOrder::Primary { epoch, .. } => {
                epoch
            }
        };
        if epoch > EPOCH_MAX {
            return Err(RoleError::TooHigh);
        }
        if epoch < self.epoch {
            return Err(RoleError::Old(self.epoch));
        }
        if let Some((promised, until)) = self.promise
            && epoch != promised
            && !matches!(order, RoleOrder::Standby { .. })
            && time_since_boot() < until
        {
            return Err(RoleError::Promised(promised));
        }
        self.duty = match (order, self.duty) {
            (RoleOrder::Standby { secret, .. }, _) => {
                (self.epoch, self.secret) = (epoch, Some(secret.into()));
                Duty::Standby { epoch }
            }
            (RoleOrder::Candidate { .. }, Duty::Primary { .. }) => return Err(RoleError::Primary),
            // Whoever owns it has a secret.
            (_, _) if epoch == self.epoch && self.secret.is_some() => return Err(RoleError::Taken),
            // The epoch is not owned yet, and may never be.
            (RoleOrder::Candidate { .. }, _) => Duty::Candidate { epoch },
            (RoleOrder::Primary { deadline_ms, .. }, _) => {
                (self.epoch, self.secret, self.upstream) = (epoch, None, None);
                Duty::Primary { epoch, deadline_ms }
            }
            (RoleOrder::Waiting, _) => unreachable!("told above"),
        };
        Ok(())
    }

    /// Replaces the sources of lower epochs. Whether there were any.
    fn shut_out_sources(&mut self, epoch: u64) -> bool {
        let before = self.sources.len();
        self.sources.retain(|source| {
            let stays = source.epoch >= epoch;
            source.is_replaced.fetch_or(!stays, Ordering::Relaxed);
            stays
        });
        self.sources.len() < before
    }

    /// Checks a feeder's key; an epoch that was not heard of becomes the present one. Whether that has shut out others.
    fn check_key(&mut self, epoch: u64, secret: &str) -> Result<bool, KeyError> {
        if self.duty == Duty::Standalone {
            return Err(KeyError::Unmanaged);
        }
        let (Duty::Standby { .. } | Duty::Candidate { .. }, Some(known)) = (self.duty, &self.secret) else {
            return Err(KeyError::NoStandby);
        };
        if !is_same_secret(known, secret) {
            return Err(KeyError::WrongSecret);
        }
        if epoch < self.epoch {
            return Err(KeyError::Old(self.epoch));
        }
        if epoch > EPOCH_MAX {
            return Err(KeyError::TooHigh);
        }
        if epoch == self.epoch {
            return Ok(false);
        }
        self.epoch = epoch;
        // Who is a candidate for a later epoch still is.
        if !matches!(self.duty, Duty::Candidate { epoch: wanted } if wanted > epoch) {
            self.duty = Duty::Standby { epoch };
        }
        Ok(self.shut_out_sources(epoch))
    }

    /// Notes that a connection has shown the key of an epoch. Its source, and whether others were shut out by that.
    pub fn let_feed(&mut self, epoch: u64, secret: &str) -> Result<(Arc<ChangeSource>, bool), KeyError> {
        let shuts_out = self.check_key(epoch, secret)?;
        self.forget_gone_sources();
        let source = ChangeSource::new(None, epoch);
        self.sources.push(source.clone());
        Ok((source, shuts_out))
    }

    /// Promises the owner of an epoch that this server owns no other one for so long. Whether others were shut out by its
    /// key.
    pub fn promise(&mut self, epoch: u64, secret: &str, time: Duration) -> Result<bool, KeyError> {
        let shuts_out = self.check_key(epoch, secret)?;
        if matches!(self.duty, Duty::Candidate { .. }) {
            return Err(KeyError::Candidate);
        }
        let until = time_since_boot() + time;
        let until =
            self.promise.filter(|(promised, _)| *promised == epoch).map_or(until, |(_, known)| until.max(known));
        self.promise = Some((epoch, until));
        Ok(shuts_out)
    }

    fn forget_gone_sources(&mut self) {
        // If nobody else refers to a source, its connection has gone.
        self.sources.retain(|other| Arc::strong_count(other) > 1);
    }

    /// Whether a connection that was `source` before may say whose changes it brings.
    pub fn admits_announcement(&self, source: Option<&Arc<ChangeSource>>) -> Result<(), SourceError> {
        match (self.duty, source) {
            (_, Some(source)) if source.is_replaced() => Err(SourceError::Replaced),
            (Duty::Standalone, _) => Ok(()),
            (Duty::Waiting | Duty::Primary { .. }, _) => Err(SourceError::NoStandby),
            (Duty::Standby { .. } | Duty::Candidate { .. }, Some(source)) if source.epoch == self.epoch => Ok(()),
            (Duty::Standby { .. } | Duty::Candidate { .. }, _) => Err(SourceError::NoKey),
        }
    }

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
        self.upstream = Some(Upstream { run_ids, heard: now });
        if let Some(source) = source.filter(|source| source.run_id == Some(run_id)) {
            return (source.clone(), false);
        }
        self.forget_gone_sources();
        let older = self.sources.iter().position(|other| other.run_id == Some(run_id));
        let older = older.map(|at| self.sources.swap_remove(at));
        older.iter().for_each(|older| older.is_replaced.store(true, Ordering::Relaxed));
        let source = ChangeSource::new(Some(run_id), source.map_or(0, |source| source.epoch));
        self.sources.push(source.clone());
        debug_assert!(self.sources.iter().all(|source| !source.is_replaced()));
        (source, older.is_some())
    }

    /// Notes that this server feeds the peer with this identity.
    pub fn feed(&mut self, identity: &str) {
        if self.is_from(identity) {
            self.upstream = None;
        }
    }

    /// Whether this server has its items from the server with this identity, live or not.
    pub fn is_from(&self, identity: &str) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| is_named(upstream.run_ids[0], identity))
    }

    /// The live upstreams, if to feed them would be to go in a circle.
    pub fn upstreams_not_to_feed(&self, now: Instant) -> &[u64] {
        if self.has_epochs() { &[] } else { self.live_upstreams(now) }
    }

    /// Whether feeds may go in a circle, of which only the newest is of the present epoch.
    pub fn has_epochs(&self) -> bool {
        self.duty != Duty::Standalone
    }

    /// Run ids of the live upstream, of the server whose changes that gets, and so on.
    pub fn live_upstreams(&self, now: Instant) -> &[u64] {
        let live = self.upstream.as_ref().filter(|upstream| now.saturating_duration_since(upstream.heard) < UPSTREAM);
        live.map_or(&[], |upstream| &upstream.run_ids)
    }
}

fn now_ms() -> u64 {
    time_since_boot().as_millis() as u64
}

/// Takes as long wherever they differ.
fn is_same_secret(known: &str, told: &str) -> bool {
    let differences = std::iter::zip(known.bytes(), told.bytes()).fold(0, |bits, (a, b)| bits | (a ^ b));
    known.len() == told.len() && differences == 0
}
