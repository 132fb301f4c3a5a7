//! The pauses between attempts, and the limit of bandwidth.
//!
//! ```text
//!   BackOff           pauses of 100 ms, 200 ms, … 5 s, of each a random part from a half up; longer after a refusal
//!   BandwidthBucket   fills at the rate, and holds 50 ms of it; a write takes at most what is in it
//! ```
//!
//! Time is an argument everywhere. It counts from the start of the program.

use std::time::Duration;

/// First pause after a connection broke. It is longer than a peer needs to see that the old connection has ended.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause: a peer that is back is found within this time.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Shortest pause after a refusal; the longest is twice as long. A server remembers for 5 s which
/// server feeds it: if two sidecars that feed each other's servers asked sooner, both would be refused for ever.
const REFUSED_MIN: Duration = Duration::from_millis(5500);

/// How much of its rate a bucket holds, as a fraction of a second: 50 ms.
const BUCKETS_PER_SECOND: u64 = 20;

/// Least size of a bucket, so that a low rate does not cut the stream into crumbs.
const BUCKET_MIN: u64 = 16 << 10;

/// The limit makes no write smaller than this.
const WRITE_MIN: u64 = 4 << 10;

/// The pauses between attempts.
#[derive(Debug)]
pub(super) struct BackOff {
    next: Duration,
    /// The state of splitmix64, which is good enough for jitter.
    random: u64,
}

impl BackOff {
    /// Starts with the shortest pause.
    pub(super) fn new(seed: u64) -> BackOff {
        BackOff { next: PAUSE_MIN, random: seed }
    }

    /// The pause before the next attempt. Random, so that many sidecars do not come back at the same moment.
    pub(super) fn pause(&mut self) -> Duration {
        let whole = self.next.as_micros() as u64;
        self.next = (self.next * 2).min(PAUSE_MAX);
        Duration::from_micros(whole / 2 + self.below(whole / 2)).max(PAUSE_MIN)
    }

    /// The pause after a refusal: nothing gets better by asking soon.
    pub(super) fn long_pause(&mut self) -> Duration {
        self.next = PAUSE_MAX;
        REFUSED_MIN + Duration::from_micros(self.below(REFUSED_MIN.as_micros() as u64))
    }

    /// A random number below `n`.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.next = PAUSE_MIN;
    }
}

/// A token bucket of bytes. It is never overdrawn: a write takes at most what is in it.
#[derive(Debug)]
pub(super) struct BandwidthBucket {
    /// Bytes a second; None: no limit.
    rate: Option<u64>,
    tokens: u64,
    filled_at: Duration,
}

impl BandwidthBucket {
    /// A bucket for this many megabits (of 1,000,000) a second.
    pub(super) fn new(megabits: Option<u64>) -> BandwidthBucket {
        BandwidthBucket { rate: megabits.map(|megabits| megabits * 125_000), tokens: 0, filled_at: Duration::ZERO }
    }

    /// Bytes that may be written now of `wanted`; 0 while it is not worth a write.
    pub(super) fn allows(&mut self, wanted: usize, now: Duration) -> usize {
        let Some(rate) = self.rate else { return wanted };
        let new = u128::from(rate) * now.saturating_sub(self.filled_at).as_micros() / 1_000_000;
        if new > 0 {
            self.filled_at = now;
        }
        let size = (rate / BUCKETS_PER_SECOND).max(BUCKET_MIN);
        self.tokens = self.tokens.saturating_add(new as u64).min(size);
        let wanted = wanted as u64;
        if self.tokens < wanted.min(WRITE_MIN) { 0 } else { self.tokens.min(wanted) as usize }
    }

    /// Bytes that may be written in a second, if there is a limit.
    pub(super) fn second(&self) -> Option<u64> {
        self.rate
    }

    /// That many were written.
    pub(super) fn take(&mut self, n: usize) {
        self.tokens = self.tokens.saturating_sub(n as u64);
    }

    /// When `wanted` bytes are worth another look, for a caller that was allowed none.
    pub(super) fn worth_at(&self, wanted: usize) -> Option<Duration> {
        let missing = (wanted as u64).min(WRITE_MIN).saturating_sub(self.tokens);
        Some(self.filled_at + Duration::from_micros(missing * 1_000_000 / self.rate? + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_in_bounds() {
        let mut back_off = BackOff::new(1);
        let pauses: Vec<Duration> = (0..20).map(|_| back_off.pause()).collect();
        assert!(pauses.iter().all(|pause| (PAUSE_MIN..=PAUSE_MAX).contains(pause)), "{pauses:?}");
        assert!(pauses[19] >= PAUSE_MAX / 2 && pauses[0] < PAUSE_MIN * 2);
        back_off.reset();
        assert!(back_off.pause() < PAUSE_MIN * 2);
        assert!((REFUSED_MIN..=REFUSED_MIN * 2).contains(&back_off.long_pause()));
        let other: Vec<Duration> = (0..20)
            .map({
                let mut back_off = BackOff::new(2);
                move |_| back_off.pause()
            })
            .collect();
        assert_ne!(pauses, other);
    }

    #[test]
    fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = BandwidthBucket::new(Some(8));
        let (mut now, mut sent) = (Duration::from_secs(7), 0u64);
        let end = now + Duration::from_secs(10);
        while now < end {
            match bucket.allows(100_000, now) {
                0 => now = bucket.worth_at(100_000).unwrap().max(now + Duration::from_nanos(1)),
                n => {
                    bucket.take(n);
                    sent += n as u64;
                }
            }
        }
        let whole = 10_000_000;
        assert!((whole - 100_000..=whole + 100_000).contains(&sent), "{sent}");
        assert_eq!(BandwidthBucket::new(None).allows(12345, now), 12345);
    }
}
