//! The allocator of the program: the system's, and a reserve for when the system refuses.
//!
//! ```text
//! alloc ── malloc ── null? ── give the reserve back to the system ── malloc again ── null? ── what it was for is lost
//!                                  │ is_short: who holds much lets go of it
//!                                  └── refill, ten times a second: until the system gives it again
//! ```
//!
//! Where memory is limited for a process (RLIMIT_DATA, `vm.overcommit_memory=2`), any vector that grows may find none,
//! and Rust ends the program then. Vectors that clients make long are grown by who asks first; all the others are short
//! and come out of the reserve until memory is there again.
//!
//! Invariant: `RESERVE` is null or a mapping of [`RESERVED`] bytes that nobody uses.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Bytes of the reserve. They are never touched, so they take no memory unless all of it is locked (`-k`).
const RESERVED: usize = 4 << 20;

/// Allocations beyond this do not take the reserve, of which they would leave nothing to others.
const SMALL: usize = 1 << 20;

static RESERVE: AtomicPtr<libc::c_void> = AtomicPtr::new(null_mut());

/// The reserve was used, and the system has not given another one.
static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// See the module's head.
#[derive(Debug)]
pub struct ReservingAllocator;

// SAFETY: all memory comes from and goes to `System`, which keeps the contract of each call that is passed on.
unsafe impl GlobalAlloc for ReservingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, passed on.
        let at = unsafe { System.alloc(layout) };
        if at.is_null() && use_reserve(layout.size()) {
            // SAFETY: as above.
            return unsafe { System.alloc(layout) };
        }
        at
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's layout, passed on.
        let at = unsafe { System.alloc_zeroed(layout) };
        if at.is_null() && use_reserve(layout.size()) {
            // SAFETY: as above.
            return unsafe { System.alloc_zeroed(layout) };
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
        if new.is_null() && use_reserve(size) {
            // SAFETY: as above: a realloc that failed has left the block as it was.
            return unsafe { System.realloc(at, layout, size) };
        }
        new
    }
}

/// Whether there was a reserve, which the system has back now.
#[cold]
fn use_reserve(size: usize) -> bool {
    if size > SMALL {
        return false;
    }
    IS_SHORT.store(true, Ordering::Relaxed);
    let reserve = RESERVE.swap(null_mut(), Ordering::AcqRel);
    if reserve.is_null() {
        return false;
    }
    // SAFETY: a whole mapping that nobody uses; the swap has made it this thread's.
    unsafe { libc::munmap(reserve, RESERVED) == 0 }
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
