//! Every call to the operating system that std, mio and socket2 lack.
//!
//! One of the two modules that may hold `unsafe`; each block names the invariant it rests on.
//! Not here: policy. A function does one call and returns its error.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::time::Duration;

// ---- the process: user, limits, background, signals ----

/// A user of the system, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
}

/// Whether the process has root's rights, or may take them back.
pub fn is_root() -> bool {
    // SAFETY: both only read the process's own ids and cannot fail.
    unsafe { libc::getuid() == 0 || libc::geteuid() == 0 }
}

/// Looks a user up by name; None when there is none.
pub fn find_user(name: &str) -> io::Result<Option<User>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0; 16 << 10];
    // SAFETY: all zeros is a valid passwd: numbers and null pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: name is a C string; entry, buffer (with its true length) and found outlive the call.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    match code {
        0 if found.is_null() => Ok(None),
        0 => Ok(Some(User { uid: entry.pw_uid, gid: entry.pw_gid })),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Leaves all supplementary groups.
pub fn drop_groups() -> io::Result<()> {
    // SAFETY: with a count of 0 the pointer is not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })
}

/// Becomes `user` for good: group first, because it needs the rights that the second call gives up.
pub fn become_user(user: User) -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::setgid(user.gid) })?;
    // SAFETY: takes a number only.
    check(unsafe { libc::setuid(user.uid) })
}

/// A limit that the kernel holds the process to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Open file descriptors.
    Files,
    /// Bytes of a core file.
    Core,
    /// Bytes of memory that may be locked.
    LockedMemory,
}

/// No limit.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// The soft and the hard limit of now.
pub fn limit(of: Limit) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limit outlives the call.
    check(unsafe { libc::getrlimit(resource(of), &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and the hard limit.
pub fn set_limit(of: Limit, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit outlives the call, which only reads it.
    check(unsafe { libc::setrlimit(resource(of), &limit) })
}

fn resource(limit: Limit) -> libc::__rlimit_resource_t {
    match limit {
        Limit::Files => libc::RLIMIT_NOFILE,
        Limit::Core => libc::RLIMIT_CORE,
        Limit::LockedMemory => libc::RLIMIT_MEMLOCK,
    }
}

/// Lets the kernel write a core file although the process has changed its user.
pub fn allow_core_dump() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one number; the other arguments are not read.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })
}

/// Locks all memory of the process, present and future, page by page as it is first touched: address space that
/// is only reserved takes no memory.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: changes how pages are kept, not what is in them.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })
}

/// Goes on in a child with a session of its own; the parent ends here with exit code 0. The caller must have
/// no other thread: it would not exist in the child, and locks it held would stay locked.
pub fn detach() -> io::Result<()> {
    // SAFETY: the process has one thread (see above), so the child is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: takes a number, returns nothing.
        0 => check(unsafe { libc::setsid() }),
        // SAFETY: ends the process without running what belongs to the child now: buffers, atexit.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Makes stdin, stdout and stderr ends of /dev/null.
pub fn close_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for stdio in 0..=2 {
        // SAFETY: both are open descriptors or plain numbers; null stays open until the end.
        check(unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&null), stdio) })?;
    }
    Ok(())
}

/// The signals that the server is run by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM: stop.
    Stop,
    /// SIGUSR1: stop gracefully.
    StopGracefully,
    /// SIGHUP: read files again.
    Reload,
}

/// Keeps the signals of [`Signal`] from this thread and from those it will start, so that they wait for
/// [`wait_signal`].
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &signal_set(), std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The next signal, or None after about `timeout`. [`block_signals`] comes first.
pub fn wait_signal(timeout: Duration) -> Option<Signal> {
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos() as libc::c_long };
    // SAFETY: set and timeout outlive the call; the details of the signal are not asked for.
    match unsafe { libc::sigtimedwait(&signal_set(), std::ptr::null_mut(), &timeout) } {
        libc::SIGINT | libc::SIGTERM => Some(Signal::Stop),
        libc::SIGUSR1 => Some(Signal::StopGracefully),
        libc::SIGHUP => Some(Signal::Reload),
        // Nothing within the time, or interrupted by a signal of somebody else's.
        _ => None,
    }
}

/// Sends a signal to this process, not to this thread: it waits for whoever is in [`wait_signal`].
pub fn signal_self(signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Stop => libc::SIGINT,
        Signal::StopGracefully => libc::SIGUSR1,
        Signal::Reload => libc::SIGHUP,
    };
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(libc::getpid(), number) })
}

fn signal_set() -> libc::sigset_t {
    // SAFETY: a sigset is plain bits; sigemptyset makes a good one of any, and the numbers are signals.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// CPU time of the process so far, in user mode and in the kernel.
pub fn cpu_times() -> (Duration, Duration) {
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: usage outlives the call, which cannot fail for RUSAGE_SELF.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    (duration(usage.ru_utime), duration(usage.ru_stime))
}

/// CPU time of the calling thread so far.
pub fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: time outlives the call, which cannot fail for a thread's own clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The time since the machine started, with the time that it slept: what a client means by "in an hour" goes on while a
/// virtual machine stands still.
pub fn time_since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: time outlives the call, which cannot fail for a clock that every Linux since 2.6.39 has.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Adds so much to the calling thread's niceness, up to the highest there is, and returns what it is then: the higher,
/// the more others go first.
pub fn add_nice(more: i32) -> i32 {
    // SAFETY: both take numbers; 0 is the calling thread.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, libc::getpriority(libc::PRIO_PROCESS, 0) + more);
        libc::getpriority(libc::PRIO_PROCESS, 0)
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000)
}

/// The error of a call that returned -1.
fn check(returned: libc::c_int) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// ---- sockets ----

/// Has a socket report input only when there are so many bytes (SO_RCVLOWAT), or the end.
pub fn set_receive_low_water(socket: std::os::fd::RawFd, bytes: u32) -> io::Result<()> {
    let len = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the option is an int, which outlives the call; a wrong descriptor is an error.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), len) };
    check(done)
}

// ---- memory: address ranges, and hints about them ----

/// Reserves `len` bytes of address range, 4 KiB aligned. Nothing in it may be touched yet.
pub fn reserve(len: usize) -> std::io::Result<std::ptr::NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: no address is asked for, so no existing mapping is touched.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    std::ptr::NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("mapped at address 0"))
}

/// Gives back a range.
///
/// # Safety
/// `base` and `len` are one whole range of [`reserve`], and nobody refers to it any more.
pub unsafe fn release(base: std::ptr::NonNull<u8>, len: usize) {
    // SAFETY: the caller owns the whole mapping.
    unsafe { libc::munmap(base.as_ptr().cast(), len) };
}

/// Makes part of a reserved range readable and writable; it is zero.
///
/// # Safety
/// The part lies inside a range of [`reserve`]; `base` and `len` are multiples of 4 KiB.
pub unsafe fn commit(base: std::ptr::NonNull<u8>, len: usize) -> std::io::Result<()> {
    // SAFETY: only protection is widened, of memory the caller owns.
    match unsafe { libc::mprotect(base.as_ptr().cast(), len, libc::PROT_READ | libc::PROT_WRITE) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Returns the memory behind a committed part to the system. The part stays usable and reads as zero.
///
/// # Safety
/// As for [`commit`]; nobody holds a reference into the part.
pub unsafe fn discard(base: std::ptr::NonNull<u8>, len: usize) {
    // SAFETY: the contents are the caller's to throw away.
    unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_DONTNEED) };
}

/// Asks for huge pages behind a range; no more than a hint.
///
/// # Safety
/// The range lies inside one of [`reserve`].
pub unsafe fn prefer_huge_pages(base: std::ptr::NonNull<u8>, len: usize) {
    // SAFETY: a hint about memory the caller owns.
    unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}

/// Gets the memory behind a committed part now, without changing what is in it. Linux 5.14 can.
///
/// # Safety
/// As for [`commit`].
pub unsafe fn populate(base: std::ptr::NonNull<u8>, len: usize) -> std::io::Result<()> {
    // SAFETY: no byte changes, of memory the caller owns.
    check(unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) })
}

/// Hints the CPU to fetch the cache line at `address`. Any address will do.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch(address.cast(), std::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Bit i for byte i of `bytes`, lowest first, that is `byte`. All are compared at once: a lookup in the hash table takes
/// 60 instructions less so.
#[inline]
pub fn equal_bytes(bytes: u128, byte: u8) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
        // SAFETY: every x86_64 has SSE2.
        unsafe {
            let bytes = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
            _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8))) as u32
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    equal_in_wide(bytes, byte)
}

/// [`equal_bytes`] anywhere: `x & 0x7f + 0x7f` carries into the top bit of a byte unless its low bits are 0.
#[cfg(any(not(target_arch = "x86_64"), test))]
fn equal_in_wide(bytes: u128, byte: u8) -> u32 {
    const EACH_BYTE: u128 = u128::MAX / 0xff;
    let x = bytes ^ (u128::from(byte) * EACH_BYTE);
    let low = 0x7f * EACH_BYTE;
    let mut tops = !(((x & low) + low) | x | low);
    let mut bits = 0;
    while tops != 0 {
        bits |= 1 << (tops.trailing_zeros() / 8);
        tops &= tops - 1;
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn niceness_is_a_threads_own_and_only_grows() {
        let before = add_nice(0);
        let thread = std::thread::spawn(|| [0, 3, 2, 100].map(add_nice));
        let expected = [0, 3, 5, 100].map(|more| (before + more).min(19));
        assert_eq!(thread.join().expect("no panic"), expected);
        assert_eq!(add_nice(0), before);
    }

    #[test]
    fn which_bytes_are_equal() {
        let mut random = 1_u128;
        for _ in 0..10_000 {
            random = random.wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645) | 1;
            // Few different bytes, those that differ in one bit among them.
            let bytes = random.rotate_left(64) & 0x8181_0101_0303_8181_0101_8080_0303_8181;
            for byte in [0, 1, 2, 3, 0x80, 0x81] {
                let expected = (0..16).filter(|i| (bytes >> (8 * i)) as u8 == byte).fold(0, |bits, i| bits | 1 << i);
                assert_eq!((equal_bytes(bytes, byte), equal_in_wide(bytes, byte)), (expected, expected));
            }
        }
    }

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(find_user("root").unwrap(), Some(User { uid: 0, gid: 0 }));
        assert_eq!(find_user("no such user").unwrap(), None);
        assert!(find_user("ro\0ot").is_err());
    }

    #[test]
    fn limits_are_read_back() {
        let (soft, hard) = limit(Limit::Files).unwrap();
        assert!(0 < soft && soft <= hard);
        set_limit(Limit::Files, soft, hard).unwrap();
        assert_eq!(limit(Limit::Files).unwrap(), (soft, hard));
        assert!(set_limit(Limit::Files, hard, hard - 1).is_err(), "soft above hard");
    }

    #[test]
    fn a_blocked_signal_waits_to_be_taken() {
        // A thread of its own: the mask is the thread's, and the signal goes to this thread alone.
        std::thread::spawn(|| {
            block_signals().unwrap();
            assert_eq!(wait_signal(Duration::ZERO), None);
            // SAFETY: takes a number; the signal is blocked, so it ends nothing.
            unsafe { libc::raise(libc::SIGHUP) };
            assert_eq!(wait_signal(Duration::from_secs(1)), Some(Signal::Reload));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn cpu_time_passes() {
        let (user, system) = cpu_times();
        let mut sum = 0u64;
        while cpu_times().0 + cpu_times().1 == user + system {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(cpu_times().0 >= user);
        assert!(thread_cpu_time() > Duration::ZERO);
    }
}
