//! The allocator of the program: the system's, and a reserve for when the system refuses.
//!
//! ```text
//! alloc ── malloc ── null? ── its turn ── malloc again ── null? ── give the reserve back to the system ── malloc again
//!                       ^                                              │ is_short: who holds much lets go of it    │
//!                       └───────────── a moment later <────────────────┼─────────────────────────────────── null? ─┘
//!                             for a second; then the program ends      └── refill, ten times a second: until the
//!                                                                          system gives it again
//! ```
//!
//! Where memory is limited for a process (RLIMIT_DATA, `vm.overcommit_memory=2`), any vector that grows may find none,
//! and Rust ends the program then. Vectors that clients make long are grown by who asks first; all the others are short
//! and come out of the reserve until memory is there again.
//!
//! Invariants: nothing is allocated here; `RESERVE` is null or a mapping of [`RESERVED`] bytes that nobody uses.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::thread;
use std::time::Duration;

/// Bytes of the reserve. They are never touched, so they take no memory unless all of it is locked (`-k`).
const RESERVED: usize = 4 << 20;

/// Allocations beyond this do not take the reserve, of which they would leave nothing to others.
const SMALL: usize = 1 << 20;

/// For how long who is refused a little tries again, and how often. Who needs it cannot go on without; others can, and close
/// connections that hold much.
const TRY_EVERY: Duration = Duration::from_millis(1);
const TRIES: u32 = 1000;

static RESERVE: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());

/// The reserve was used, and the system has not given another one.
static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// A thread has its turn: see [`InsistTurn`].
static INSISTS: AtomicBool = AtomicBool::new(false);

/// See the module's head.
#[derive(Debug)]
pub struct ReservingAllocator;

// SAFETY: all memory comes from and goes to `System`, which keeps the contract of each call that is passed on.
unsafe impl GlobalAlloc for ReservingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, passed on.
        let at = unsafe { System.alloc(layout) };
        if at.is_null() {
            // SAFETY: as above.
            return insist(layout.size(), || unsafe { System.alloc(layout) });
        }
        at
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, passed on.
        let at = unsafe { System.alloc_zeroed(layout) };
        if at.is_null() {
            // SAFETY: as above.
            return insist(layout.size(), || unsafe { System.alloc_zeroed(layout) });
        }
        at
    }

    #[inline]
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's block and layout, passed on.
        unsafe { System.dealloc(at, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's block and layout, passed on.
        let new = unsafe { System.realloc(at, layout, size) };
        if new.is_null() {
            // SAFETY: as above: a realloc that failed has left the block as it was.
            return insist(size, || unsafe { System.realloc(at, layout, size) });
        }
        new
    }
}

/// Tries again, `by` the call that was refused, with the reserve, and then for as long as those who hold much may need to let
/// go of it. Null when there is nothing to be had.
#[cold]
fn insist(size: usize, mut by: impl FnMut() -> *mut u8) -> *mut u8 {
    if size > SMALL {
        return null_mut();
    }
    IS_SHORT.store(true, Ordering::Relaxed);
    for _ in 0..TRIES {
        let turn = InsistTurn::take();
        // Who was before this one may have made room for both.
        let mut at = by();
        if at.is_null() && give_back_reserve() {
            at = by();
        }
        drop(turn);
        if !at.is_null() {
            return at;
        }
        thread::sleep(TRY_EVERY);
    }
    null_mut()
}

/// One thread at a time gives the reserve back and takes of it: another one that was refused meanwhile would find that
/// there is none, and be lost although there is memory.
struct InsistTurn;

impl InsistTurn {
    fn take() -> InsistTurn {
        while INSISTS.swap(true, Ordering::Acquire) {
            thread::yield_now();
        }
        InsistTurn
    }
}

impl Drop for InsistTurn {
    fn drop(&mut self) {
        INSISTS.store(false, Ordering::Release);
    }
}

/// Whether there was a reserve, which the system has back now.
fn give_back_reserve() -> bool {
    let reserve = RESERVE.swap(null_mut(), Ordering::AcqRel);
    // SAFETY: a whole mapping that nobody uses; the swap has made it this thread's.
    !reserve.is_null() && unsafe { libc::munmap(reserve, RESERVED) == 0 }
}

/// Keeps what clients make long out of the heap, so that it grows without a copy: a line of 16 MiB, whose memory comes bit
/// by bit, was copied for 7 ms. By itself glibc raises this bound to the largest block that was freed.
pub fn prepare() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a setting of the allocator, at the start.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, SMALL as libc::c_int);
    }
}

/// Whether the system has refused memory, and would not give it yet.
#[inline]
pub fn is_short() -> bool {
    IS_SHORT.load(Ordering::Relaxed)
}

/// Takes a reserve if there is none. One thread calls this, again and again.
pub fn refill() {
    if !RESERVE.load(Ordering::Relaxed).is_null() {
        return;
    }
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: no address is asked for, so no existing mapping is touched.
    let reserve = unsafe { libc::mmap(null_mut(), RESERVED, access, flags, -1, 0) };
    if reserve != libc::MAP_FAILED {
        RESERVE.store(reserve, Ordering::Release);
        IS_SHORT.store(false, Ordering::Relaxed);
    }
}
