//! The processor: time, who goes first, and instructions that std does not have.

use std::time::Duration;

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

/// The nanoseconds of the clock that `std::time::Instant` reads, which never goes back.
#[inline]
pub fn clock_nanos() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: time outlives the call, which cannot fail for a clock that every Linux has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The time since the machine started, including the time that it slept. An hour that a client asks for goes on while a
/// virtual machine stands still.
pub fn time_since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: time outlives the call, which cannot fail for a clock that every Linux since 2.6.39 has.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Adds so much to the calling thread's niceness, up to the highest there is, and returns the new value. The higher it
/// is, the more other threads go first.
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

/// Sets bit i of the result when byte i of `bytes`, counted from the lowest, is `byte`. All bytes are compared at once,
/// which saves 60 instructions of a lookup in the hash table.
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

/// [`equal_bytes`] for any processor: `x & 0x7f + 0x7f` carries into the top bit of a byte unless its low bits are 0.
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
