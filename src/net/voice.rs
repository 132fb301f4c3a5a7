//! Whether replies to clients may still leave: only in a server that is told its role.
//!
//! ```text
//!   worker        is_sending = true │ in this term, before the deadline? │ send │ is_sending = false
//!   demotion      another term │ wake the workers │ wait while is_sending │ answer
//!   worker        another term: close every client's connection
//! ```
//!
//! So when a demotion has been answered, no client is sent anything of what was answered before it. The look at the
//! deadline comes right before each system call: a thread that stood still in between has then all of the lease's margin
//! to make its call.
//!
//! Invariant: what waits in a worker's connections was answered in the worker's term, or its connection is closed unsent.
//!
//! Not here: when a role changes (`store::role`), the closing of connections (`worker`).

use crate::store::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A worker's right to answer clients.
#[derive(Debug)]
pub(super) struct Voice {
    store: Arc<Store>,
    shared: Arc<VoiceState>,
}

/// What a demotion looks at.
#[derive(Debug)]
pub(super) struct VoiceState {
    /// The term of what the worker has answered.
    term: AtomicU64,
    is_sending: AtomicBool,
}

impl Voice {
    /// Of a worker of this server; None if nobody can take it away.
    pub(super) fn new(store: &Arc<Store>) -> Option<Voice> {
        let state = VoiceState { term: AtomicU64::new(store.term()), is_sending: AtomicBool::new(false) };
        store.is_managed().then(|| Voice { store: store.clone(), shared: Arc::new(state) })
    }

    /// What to wait for in a demotion.
    pub(super) fn state(&self) -> Arc<VoiceState> {
        self.shared.clone()
    }

    /// Whether clients' requests are to be refused.
    pub(super) fn bars_clients(&self) -> bool {
        self.store.bars_clients()
    }

    /// Whether the changes of clients wait.
    pub(super) fn holds_changes(&self) -> bool {
        self.store.holds_changes()
    }

    /// Whether there is another term than the worker knows of.
    pub(super) fn is_stale(&self) -> bool {
        self.store.term() != self.shared.term.load(Ordering::Relaxed)
    }

    /// Goes on in the present term. Close the clients' connections then.
    pub(super) fn renew(&self) {
        self.shared.term.store(self.store.term(), Ordering::Relaxed);
    }

    /// Makes a call that sends to a client. None: it may not be made.
    pub(super) fn speak<R>(&self, send: impl FnOnce() -> R) -> Option<R> {
        let VoiceState { term, is_sending } = &*self.shared;
        // Either this store comes before the demotion's look at it, or this look at the term after the demotion.
        is_sending.swap(true, Ordering::SeqCst);
        let sent = self.store.may_answer(term.load(Ordering::Relaxed)).then(send);
        is_sending.store(false, Ordering::Release);
        sent
    }
}

impl VoiceState {
    /// Waits until the worker is not in the middle of [`Voice::speak`].
    pub(super) fn wait_for_silence(&self) {
        while self.is_sending.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }
}
