//! Address ranges, and hints about them.

use super::check;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

#[cfg(miri)]
pub use stand_in::{commit, discard, map_file, populate, prefer_huge_pages, release, reserve, touch};
#[cfg(not(miri))]
pub use system::{commit, discard, map_file, populate, prefer_huge_pages, release, reserve, touch};

/// Flags for opening what the path itself names: no symbolic link, and not to wait for whoever is at the other end of it.
pub const NO_DETOUR: i32 = libc::O_NOFOLLOW | libc::O_NONBLOCK;

/// A flag for opening a folder: what is opened is a new file in it that has no name, and goes when it is closed.
pub const UNNAMED: i32 = libc::O_TMPFILE;

/// Whether a file was not opened because it is a symbolic link.
pub fn is_link(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

/// Takes the blocks of a part of a file, without changing what is in it.
pub fn take_blocks(file: &File, at: u64, len: usize) -> io::Result<()> {
    // SAFETY: a call about a descriptor that is open.
    check(unsafe { libc::fallocate(file.as_raw_fd(), 0, at as libc::off_t, len as libc::off_t) })
}

/// Bytes that are free in the file system of a file.
pub fn free_bytes(file: &File) -> io::Result<u64> {
    // SAFETY: all zeros is a valid statvfs.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a call about a descriptor that is open; `about` outlives it.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), &mut about) })?;
    Ok(about.f_bavail.saturating_mul(about.f_frsize))
}

/// Locks a file for this process, until it is closed. An error when another one has.
pub fn lock_file(file: &File) -> io::Result<()> {
    // SAFETY: a call about a descriptor that is open.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })
}

#[cfg(not(miri))]
mod system {
    use super::check;
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::ptr::{NonNull, null_mut};

    /// The least that the system gets at a time.
    #[cfg(target_arch = "x86_64")]
    const SYSTEM_PAGE: usize = 4096;

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

    /// Puts a part of a file in the place of a reserved range: what is written there is written to the file. Nothing in it may
    /// be touched yet.
    ///
    /// # Safety
    /// `base` and `len` lie inside one range of [`reserve`] to which nobody refers, and are multiples of 4 KiB, as `at` is.
    pub unsafe fn map_file(base: NonNull<u8>, len: usize, file: &File, at: u64) -> io::Result<()> {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE;
        let (base, fd) = (base.as_ptr().cast(), file.as_raw_fd());
        // SAFETY: the range is the caller's, and nobody refers to it.
        let mapped = unsafe { libc::mmap(base, len, libc::PROT_NONE, flags, fd, at as libc::off_t) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
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

    /// The same of memory that is no file's, as any store to it does. That takes no lock that is needed to change the
    /// process's address ranges, as `malloc` does when it grows: beside [`populate`] that waited for 2 ms on the average
    /// and 98 at worst, beside this for 0.01.
    ///
    /// # Safety
    /// As for [`commit`].
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn touch(base: NonNull<u8>, len: usize) -> io::Result<()> {
        for at in (0..len).step_by(SYSTEM_PAGE) {
            // SAFETY: inside the caller's memory, of which no byte changes; the CPU does it in one step, so that nothing is
            // lost that another thread writes there.
            unsafe {
                std::arch::asm!("lock or byte ptr [{}], 0", in(reg) base.as_ptr().add(at), options(nostack));
            }
        }
        Ok(())
    }

    /// The same as [`populate`].
    ///
    /// # Safety
    /// As for [`commit`].
    #[cfg(not(target_arch = "x86_64"))]
    pub unsafe fn touch(base: NonNull<u8>, len: usize) -> io::Result<()> {
        // SAFETY: as the caller says.
        unsafe { populate(base, len) }
    }
}

/// miri knows no protection of memory: a heap block stands in, so keep windows small there.
#[cfg(miri)]
mod stand_in {
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::fs::File;
    use std::io;
    use std::ptr::NonNull;

    /// Ranges begin on this boundary.
    const ALIGN: usize = 2 << 20;

    pub fn reserve(len: usize) -> io::Result<NonNull<u8>> {
        // SAFETY: the layout is not empty.
        let base = unsafe { alloc_zeroed(Layout::from_size_align(len, ALIGN).unwrap()) };
        NonNull::new(base).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// # Safety
    /// `base` and `len` came from `reserve`.
    pub unsafe fn release(base: NonNull<u8>, len: usize) {
        // SAFETY: came from `reserve` with the same layout.
        unsafe { dealloc(base.as_ptr(), Layout::from_size_align(len, ALIGN).unwrap()) };
    }

    /// # Safety
    /// None: miri maps no files.
    pub unsafe fn map_file(_base: NonNull<u8>, _len: usize, _file: &File, _at: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// # Safety
    /// None.
    pub unsafe fn commit(_base: NonNull<u8>, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// # Safety
    /// The part is usable.
    pub unsafe fn discard(base: NonNull<u8>, len: usize) {
        // SAFETY: as the caller says.
        unsafe { base.write_bytes(0, len) };
    }

    /// # Safety
    /// None.
    pub unsafe fn prefer_huge_pages(_base: NonNull<u8>, _len: usize) {}

    /// # Safety
    /// None.
    pub unsafe fn populate(_base: NonNull<u8>, _len: usize) -> io::Result<()> {
        Ok(())
    }

    /// # Safety
    /// None.
    pub unsafe fn touch(_base: NonNull<u8>, _len: usize) -> io::Result<()> {
        Ok(())
    }
}
