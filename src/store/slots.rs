//! Dumps at a time, and who loses its place when there are too many.
//!
//! A dump is work without end for a client that takes it, so there are few: memcached has one. One whose client takes
//! nothing does no work, but it has a slot. So it loses that to another dump that wants one, after a while.
//!
//! Not here: what a dump does (`dump`).

use std::time::{Duration, Instant};

/// Dumps at a time.
const DUMPS_MAX: usize = 4;

/// A dump whose client has taken nothing for so long loses its slot to another one.
const STANDS_STILL: Duration = Duration::from_secs(2);

/// The slots of a store.
#[derive(Debug, Default)]
pub struct DumpSlots {
    /// Number of the dump, and when its client last took something.
    taken: Vec<(u64, Instant)>,
    last: u64,
}

impl DumpSlots {
    /// A slot for one more dump. None: all are in use.
    pub fn take(&mut self, now: Instant) -> Option<u64> {
        if self.taken.len() == DUMPS_MAX {
            let (at, _) = self.taken.iter().enumerate().min_by_key(|(_, (_, since))| *since)?;
            if now.saturating_duration_since(self.taken[at].1) < STANDS_STILL {
                return None;
            }
            self.taken.swap_remove(at);
        }
        self.last += 1;
        self.taken.push((self.last, now));
        Some(self.last)
    }

    /// Says that this dump goes on. False when it has lost its slot.
    pub fn keep(&mut self, slot: u64, now: Instant) -> bool {
        let found = self.taken.iter_mut().find(|(taken, _)| *taken == slot);
        found.map(|(_, since)| *since = now).is_some()
    }

    /// Ends a dump.
    pub fn give_back(&mut self, slot: u64) {
        self.taken.retain(|(taken, _)| *taken != slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_loses_its_place() {
        let (mut slots, start) = (DumpSlots::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let first: Vec<u64> = (0..4).map(|_| slots.take(start).unwrap()).collect();
        assert_eq!(slots.take(at(1)), None);
        assert!(slots.keep(first[0], at(2)));
        let new = slots.take(at(3)).unwrap();
        assert!(slots.keep(first[0], at(3)) && slots.keep(new, at(3)));
        assert_eq!((1..4).filter(|&i| slots.keep(first[i], at(3))).count(), 2);
        slots.give_back(new);
        assert!(slots.take(at(4)).is_some() && slots.take(at(4)).is_none());
    }
}
