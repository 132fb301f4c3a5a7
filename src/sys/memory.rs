//! Address ranges, and hints about them.

use super::check;
use std::io;
use std::ptr::{NonNull, null_mut};

/// Reserves `len` bytes of address range, 4 KiB aligned. Nothing in it may be touched yet.
pub fn reserve(len: usize) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: no address is asked for, so no existing mapping is touched.
    let base = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))
}

/// Gives back a range.
///
/// # Safety
/// `base` and `len` are one whole range of [`reserve`], and nobody refers to it any more.
pub unsafe fn release(base: NonNull<u8>, len: usize) {
    // SAFETY: the caller owns the whole mapping.
    unsafe { libc::munmap(base.as_ptr().cast(), len) };
}

/// Makes part of a reserved range readable and writable; it is zero.
///
/// # Safety
/// The part lies inside a range of [`reserve`]; `base` and `len` are multiples of 4 KiB.
pub unsafe fn commit(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: only protection is widened, of memory the caller owns.
    check(unsafe { libc::mprotect(base.as_ptr().cast(), len, libc::PROT_READ | libc::PROT_WRITE) })
}

/// Returns the memory behind a committed part to the system. The part stays usable and reads as zero.
///
/// # Safety
/// As for [`commit`]; nobody holds a reference into the part.
pub unsafe fn discard(base: NonNull<u8>, len: usize) {
    // SAFETY: the contents are the caller's to throw away.
    unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTNEED) };
}

/// Asks for huge pages behind a range; no more than a hint.
///
/// # Safety
/// The range lies inside one of [`reserve`].
pub unsafe fn prefer_huge_pages(base: NonNull<u8>, len: usize) {
    // SAFETY: a hint about memory the caller owns.
    unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

/// Gets the memory behind a committed part now, without changing what is in it. Linux 5.14 can.
///
/// # Safety
/// As for [`commit`].
pub unsafe fn populate(base: NonNull<u8>, len: usize) -> io::Result<()> {
    // SAFETY: no byte changes, of memory the caller owns.
    check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) })
}
