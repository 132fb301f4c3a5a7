//! Which changes are replicated: confirmed by as many readers of the journal as the operator asked for.
//!
//! ```text
//!  required 0   nobody waits                                    replicated = every lsn
//!     │  ^ set_required
//!     v  │
//!  waiting      a reply waits until its lsn is replicated         replicated = lsn that `required` readers have
//!     │  ^ advance: they have what had been changed when it fell back
//!     v  │ degrade: one of them took too long, and `ack_degrade` is set
//!  degraded     nobody waits                                    replicated = every lsn
//! ```
//!
//! `replicated` passes a change that replicas have refused, like any other, so that later changes need not wait for it.
//! The refusal is noted before that, so that the client that waits is told.
//!
//! Invariants: while replies wait, `replicated` only grows, except that [`Acks::set_required`] sets it anew. A refused
//! change stays refused.
//!
//! Not here: who has confirmed what, and whose refusal counts (`readers`), the replies that wait
//! (`net/worker/reply_hold`).

use super::lsn_ranges::LsnRanges;
use crate::sync::lock;
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// [`Acks::replicated_lsn`] while nobody waits.
pub const EVERYTHING: u64 = u64::MAX;

/// The lsn of the last change that one worker's requests have appended to the journal; 0 before the first. A locked
/// shard writes it. A worker that reads it before and after a request knows what that request has changed.
#[derive(Debug, Default)]
pub struct LastLsn {
    last: Cell<u64>,
    /// The last change of what was read since this was taken.
    seen: Cell<u64>,
}

impl LastLsn {
    /// The last change.
    #[inline]
    pub fn get(&self) -> u64 {
        self.last.get()
    }

    /// Notes a change, if there was one.
    #[inline]
    pub fn note(&self, appended: Option<u64>) {
        if let Some(lsn) = appended {
            self.last.set(lsn);
        }
    }

    /// Notes that what was read or changed had this as its last change.
    #[inline]
    pub fn see(&self, lsn: u64) {
        self.seen.set(self.seen.get().max(lsn));
    }

    /// The last change of what was seen since this was last asked; 0 if there is none.
    #[inline]
    pub fn take_seen(&self) -> u64 {
        self.seen.replace(0)
    }
}

/// What replies wait for. See the module's head. It lies apart from the other numbers of the store, because every
/// change writes those, and every worker reads this for each batch of events.
#[derive(Debug)]
#[repr(align(128))]
pub struct Acks {
    replicated: AtomicU64,
    required: AtomicU32,
    is_degraded: AtomicBool,
    /// The last lsn that was refused.
    refused: AtomicU64,
    /// Locked while `replicated`, `required` and `refused` change together.
    state: Mutex<AckState>,
}

#[derive(Debug, Default)]
struct AckState {
    /// The last lsn at the moment of degrading; None while it is not degraded.
    degraded_at: Option<u64>,
    refused: LsnRanges,
    listener: Option<AckListener>,
}

#[derive(Clone)]
struct AckListener(Arc<dyn Fn(u64) + Send + Sync>);

impl fmt::Debug for AckListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AckListener")
    }
}

impl Default for Acks {
    fn default() -> Acks {
        Acks {
            replicated: AtomicU64::new(EVERYTHING),
            required: AtomicU32::new(0),
            is_degraded: AtomicBool::new(false),
            refused: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }
}

impl Acks {
    /// Changes up to this one are replicated; [`EVERYTHING`] while nobody waits.
    #[inline]
    pub fn replicated_lsn(&self) -> u64 {
        self.replicated.load(Ordering::SeqCst)
    }

    /// Whether replies to changes wait.
    #[inline]
    pub fn holds(&self) -> bool {
        self.replicated.load(Ordering::Relaxed) != EVERYTHING
    }

    /// How many readers must confirm a change; 0 is none.
    pub fn required(&self) -> u32 {
        self.required.load(Ordering::Relaxed)
    }

    /// Whether replies should wait and do not.
    pub fn is_degraded(&self) -> bool {
        self.is_degraded.load(Ordering::Relaxed)
    }

    /// Sets how many readers must confirm a change from now on. So many readers have everything up to `acked`.
    pub fn set_required(&self, required: u32, acked: u64) {
        let mut state = self.lock();
        self.required.store(required, Ordering::Relaxed);
        self.enter(&mut state, None, if required == 0 { EVERYTHING } else { acked });
        tell(state, self.replicated_lsn());
    }

    /// Notes that as many readers as are required have every change up to `acked`. An old `acked` changes nothing.
    /// Call it without the journal's lock: it wakes the threads whose replies wait.
    pub fn advance(&self, acked: u64) {
        let mut state = self.lock();
        match state.degraded_at {
            _ if self.required() == 0 => return,
            Some(at) if acked < at => return,
            Some(_) => {
                self.enter(&mut state, None, acked);
                log::warn!("replicas have caught up: replies wait for {} of them again", self.required());
            }
            None if self.replicated.fetch_max(acked, Ordering::SeqCst) >= acked => return,
            None => {}
        }
        tell(state, self.replicated_lsn());
    }

    /// Notes that so many replicas have refused some of the changes after one lsn and up to the other that they cannot be
    /// confirmed. Call it before [`Acks::advance`].
    pub fn refuse(&self, after: u64, upto: u64) {
        let mut state = self.lock();
        if self.required() == 0 {
            return;
        }
        state.refused.add(after, upto);
        self.refused.fetch_max(upto, Ordering::SeqCst);
    }

    /// Whether a change that counts as replicated was refused.
    #[inline]
    pub fn is_refused(&self, lsn: u64) -> bool {
        lsn <= self.refused.load(Ordering::SeqCst) && self.lock().refused.has(lsn)
    }

    /// Stops waiting, until `required` readers have `head`, which is the last lsn now.
    pub fn degrade(&self, head: u64) {
        let mut state = self.lock();
        if self.required() == 0 || state.degraded_at.is_some() {
            return;
        }
        self.enter(&mut state, Some(head), EVERYTHING);
        log::warn!(
            "replicas did not confirm in time: no reply waits for them until {} of them have caught up",
            self.required()
        );
        tell(state, self.replicated_lsn());
    }

    /// Sets what is called, with the lsn, each time that more is replicated. There is one listener.
    pub fn listen(&self, listener: impl Fn(u64) + Send + Sync + 'static) {
        self.lock().listener = Some(AckListener(Arc::new(listener)));
    }

    fn lock(&self) -> MutexGuard<'_, AckState> {
        lock(&self.state)
    }

    fn enter(&self, state: &mut AckState, degraded_at: Option<u64>, replicated: u64) {
        assert!(self.required() > 0 || replicated == EVERYTHING, "nobody is required, and replies wait");
        state.degraded_at = degraded_at;
        self.is_degraded.store(degraded_at.is_some(), Ordering::Relaxed);
        // Stored before the listener looks for replies that wait. A reply notes that it waits, and then looks at this.
        self.replicated.store(replicated, Ordering::SeqCst);
    }
}

/// Calls the listener outside of the lock.
fn tell(state: MutexGuard<'_, AckState>, replicated: u64) {
    let listener = state.listener.clone();
    drop(state);
    if let Some(AckListener(listen)) = listener {
        listen(replicated);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lsn_ranges::LSN_RANGES_MAX;
    use super::*;

    #[test]
    fn a_change_is_safe_when_it_is_confirmed() {
        let acks = Acks::default();
        assert!(!acks.holds());
        acks.advance(5);
        assert_eq!(acks.replicated_lsn(), EVERYTHING, "nobody is required");
        acks.set_required(2, 3);
        assert!(acks.holds());
        for (acked, safe) in [(3, 3), (7, 7), (5, 7), (0, 7)] {
            acks.advance(acked);
            assert_eq!(acks.replicated_lsn(), safe);
        }
        acks.set_required(3, 2);
        assert_eq!(acks.replicated_lsn(), 2, "fewer consumers have it");
        acks.set_required(0, 9);
        assert!(!acks.holds());
    }

    #[test]
    fn who_falls_back_returns_when_replicas_have_caught_up() {
        let acks = Acks::default();
        acks.degrade(1);
        assert!(!acks.is_degraded(), "there is nothing to fall back from");
        acks.set_required(1, 4);
        acks.degrade(10);
        acks.degrade(20);
        assert!(acks.is_degraded() && !acks.holds());
        acks.advance(9);
        assert!(acks.is_degraded());
        acks.advance(10);
        assert_eq!((acks.is_degraded(), acks.replicated_lsn()), (false, 10));
        acks.degrade(30);
        acks.set_required(1, 10);
        assert!(!acks.is_degraded() && acks.holds(), "the operator asks anew");
    }

    #[test]
    fn what_was_refused_stays_so() {
        let acks = Acks::default();
        acks.refuse(3, 9);
        assert!(!acks.is_refused(5), "nobody waits");
        acks.set_required(1, 0);
        let refused = |lsns: &[u64]| lsns.iter().map(|&lsn| acks.is_refused(lsn)).collect::<Vec<_>>();
        acks.refuse(3, 5);
        acks.refuse(7, 8);
        acks.advance(10);
        assert_eq!(refused(&[3, 4, 5, 6, 7, 8, 9, 10]), [false, true, true, false, false, true, false, false]);
        (0..LSN_RANGES_MAX as u64).for_each(|n| acks.refuse(100 + 2 * n, 101 + 2 * n));
        assert_eq!(
            refused(&[3, 4, 6, 8, 9, 101, 102, 131, 132]),
            [false, true, true, true, true, true, false, true, false]
        );
    }

    #[test]
    fn the_listener_hears_of_what_became_safe() {
        let heard = Arc::new(AtomicU64::new(0));
        let acks = Acks::default();
        let listener = heard.clone();
        acks.listen(move |_| {
            listener.fetch_add(1, Ordering::Relaxed);
        });
        let calls: [fn(&Acks); 4] = [|s| s.set_required(1, 0), |s| s.advance(3), |s| s.advance(3), |s| s.degrade(9)];
        let counts = calls.map(|call| {
            call(&acks);
            heard.load(Ordering::Relaxed)
        });
        assert_eq!(counts, [1, 2, 2, 3]);
    }
}
