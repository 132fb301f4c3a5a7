//! Uploads that stand still, and who of them loses its memory to who moves.
//!
//! ```text
//!          the uploader uses its memory          it waits for its client, and another one needs room
//!   IDLE ── begin_use ──> IN_USE ── end_use ──> IDLE ── revoke ──> REVOKED: freed; the uploader finds that out
//! ```
//!
//! A client that has said how large its value will be, and then says nothing, holds memory for all of it. It keeps that
//! as long as nobody else needs it. Then who has been silent for longest loses it first, if that is [`SILENT`]: silent is
//! who has not sent [`PACE`] bytes since.
//!
//! Invariant: who moves an upload from IDLE to REVOKED frees what it holds, and nobody else does; while it is IN_USE,
//! nobody but its uploader touches it.
//!
//! Not here: the memory (`upload`), readers that stand still (`net/worker`).

use super::ItemId;
use crate::sync::lock;
use crate::sys::cpu::time_since_boot;
use slab::Slab;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// For how long an upload has to be silent to lose its memory.
const SILENT: Duration = Duration::from_millis(300);

/// Who sends less than this is silent: a client of 50 KB/s is not.
const PACE: usize = 16 << 10;

/// Uploads looked at for the most silent one, each time from where the last look ended: 5 us.
const LOOKS: usize = 64;

const IDLE: u8 = 0;
const IN_USE: u8 = 1;
const REVOKED: u8 = 2;

/// What others may know of an upload, and do to it.
#[derive(Debug)]
pub struct Loan {
    /// Its shard and its item.
    pub shard: usize,
    /// The item.
    pub id: ItemId,
    state: AtomicU8,
    /// The bytes that it adds to [`crate::store::shard::Core::lent`].
    pub bytes: AtomicU64,
    /// When its client last moved, in milliseconds.
    moved: AtomicU64,
}

impl Loan {
    /// Says that the uploader touches the memory from now on. False: it has it no more.
    #[inline]
    pub fn begin_use(&self) -> bool {
        self.state.compare_exchange(IDLE, IN_USE, Ordering::AcqRel, Ordering::Acquire) != Err(REVOKED)
    }

    /// Says that the uploader waits for its client.
    #[inline]
    pub fn end_use(&self) {
        self.state.store(IDLE, Ordering::Release);
    }

    /// Ends it. False: that has been done.
    pub fn revoke(&self) -> bool {
        self.state.compare_exchange(IDLE, REVOKED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Notes that so many bytes have come since `moved` was renewed; whether that renews it.
    #[inline]
    pub fn note_bytes(&self, bytes: usize) -> bool {
        let renews = bytes >= PACE;
        if renews {
            self.moved.store(now(), Ordering::Relaxed);
        }
        renews
    }
}

/// All uploads of a store.
#[derive(Debug, Default)]
pub struct Loans {
    all: Mutex<(Slab<Arc<Loan>>, usize)>,
}

impl Loans {
    /// Enters an upload that is in use. What it holds, and its number here.
    pub fn enter(&self, shard: usize, id: ItemId) -> (Arc<Loan>, usize) {
        let (state, bytes, moved) = (AtomicU8::new(IN_USE), AtomicU64::new(0), AtomicU64::new(now()));
        let loan = Arc::new(Loan { shard, id, state, bytes, moved });
        let number = lock(&self.all).0.insert(loan.clone());
        (loan, number)
    }

    /// Forgets an upload.
    pub fn leave(&self, number: usize) {
        lock(&self.all).0.remove(number);
    }

    /// Ends the upload that has been silent for longest, if any was silent for long enough: its memory is the caller's to
    /// free.
    pub fn revoke_silent(&self) -> Option<Arc<Loan>> {
        let (all, hand) = &mut *lock(&self.all);
        let mut most: Option<&Arc<Loan>> = None;
        for _ in 0..LOOKS.min(all.capacity()) {
            *hand = (*hand + 1) % all.capacity();
            if let Some(loan) = all.get(*hand)
                && loan.state.load(Ordering::Relaxed) == IDLE
                && most.is_none_or(|most| loan.moved.load(Ordering::Relaxed) < most.moved.load(Ordering::Relaxed))
            {
                most = Some(loan);
            }
        }
        let loan =
            most.filter(|loan| now().saturating_sub(loan.moved.load(Ordering::Relaxed)) >= SILENT.as_millis() as u64)?;
        loan.revoke().then(|| loan.clone())
    }
}

fn now() -> u64 {
    time_since_boot().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(loan: &Loan, ms: u64) {
        loan.moved.store(now() - ms, Ordering::Relaxed);
        loan.end_use();
    }

    #[test]
    fn the_most_silent_goes_first_and_nobody_who_moves() {
        let loans = Loans::default();
        let [a, b, c, d] = [1, 2, 3, 4].map(|id| loans.enter(0, ItemId(id)));
        assert!(loans.revoke_silent().is_none(), "all are in use");
        silence(&a.0, 400);
        silence(&b.0, 500);
        silence(&c.0, 20);
        silence(&d.0, 9000);
        assert!(d.0.begin_use(), "it moves just now");
        assert_eq!(loans.revoke_silent().unwrap().id, ItemId(2));
        assert!(!b.0.begin_use() && !b.0.revoke() && a.0.begin_use());
        a.0.end_use();
        assert!(!a.0.note_bytes(PACE - 1));
        assert_eq!(loans.revoke_silent().unwrap().id, ItemId(1));
        assert!(loans.revoke_silent().is_none());
        assert!(c.0.begin_use() && d.0.note_bytes(PACE));
        d.0.end_use();
        assert!(loans.revoke_silent().is_none());
        [a.1, b.1, c.1, d.1].into_iter().for_each(|number| loans.leave(number));
        assert!(loans.revoke_silent().is_none());
    }
}
