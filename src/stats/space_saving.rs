//! The keys that come most often among many, in a fixed number of counters: Space-Saving, by Metwally, Agrawal and
//! El Abbadi.
//!
//! ```text
//!  key with a counter      its count + 1
//!  key without             takes over the counter with the lowest count c: count c + 1, of which c may be others' (error)
//! ```
//!
//! So a count is never too low, and too high by its error at most; and with 128 counters every key with more than a 128th
//! of all has one. The lowest is not searched for each time: `floor` is what it was, and counts only grow, so the search
//! goes on from where it ended, and looks at each counter once before the floor has to be looked for again.
//!
//! A key is looked for where its tag belongs in an index, which knows how many counters belong there and which of them came
//! last; if it is another one, all are looked at.
//!
//! Keys are any bytes, and are copied into the counter's own room.
//!
//! Not here: which keys are counted, and for how long (`hot_keys`).

/// How many keys are counted at a time.
pub(super) const COUNTERS: usize = 128;

/// The longest key.
const KEY_MAX: usize = 250;

/// Slots of the index.
const SLOTS: usize = 4 * COUNTERS;

/// What is counted of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyCounts {
    /// Reads and writes.
    pub operations: [u64; 2],
    /// Bytes that were written.
    pub written: u64,
    /// Of the operations, so many may have been others'.
    pub error: u64,
}

impl KeyCounts {
    /// Reads and writes together: as many as there were at most.
    #[cfg(test)]
    pub(super) fn most(&self) -> u64 {
        self.operations[0] + self.operations[1] + self.error
    }

    /// As many as there were at least.
    pub(super) fn least(&self) -> u64 {
        self.operations[0] + self.operations[1]
    }

    /// Adds what was counted elsewhere.
    pub(super) fn add(&mut self, other: &KeyCounts) {
        for i in 0..2 {
            self.operations[i] += other.operations[i];
        }
        self.written += other.written;
        self.error += other.error;
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct SpaceSaving {
    tags: [u32; COUNTERS],
    /// Of each slot, how many counters have a tag that belongs there, and the one of them that was found last.
    index: [(u8, u8); SLOTS],
    /// Operations and error together, of each.
    counts: [u32; COUNTERS],
    keys: Vec<([u8; KEY_MAX], u8)>,
    told: Vec<KeyCounts>,
    floor: u32,
    /// Where the search for a counter at the floor goes on.
    next: usize,
}

impl SpaceSaving {
    /// One that has counted nothing.
    pub(super) fn new() -> SpaceSaving {
        SpaceSaving {
            tags: [0; COUNTERS],
            index: [(0, 0); SLOTS],
            counts: [0; COUNTERS],
            keys: Vec::with_capacity(COUNTERS),
            told: Vec::with_capacity(COUNTERS),
            floor: 0,
            next: 0,
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.told.clear();
        self.index = [(0, 0); SLOTS];
        (self.floor, self.next) = (0, 0);
    }

    /// Counts an operation of `key`, a read or a write of so many bytes, to which the bits of `tag` belong, which tell most keys from each other.
    pub(super) fn count(&mut self, key: &[u8], tag: u32, written: Option<usize>) {
        let Some(key) = key.get(..key.len().min(KEY_MAX)) else { return };
        let at = self.find(key, tag).unwrap_or_else(|| self.take(key, tag));
        self.counts[at] += 1;
        self.told[at].operations[usize::from(written.is_some())] += 1;
        self.told[at].written += written.unwrap_or(0) as u64;
    }

    /// Each key and its counts.
    pub(super) fn each(&self) -> impl Iterator<Item = (&[u8], &KeyCounts)> {
        self.keys.iter().map(|(key, len)| &key[..usize::from(*len)]).zip(&self.told)
    }

    fn find(&mut self, key: &[u8], tag: u32) -> Option<usize> {
        let (shared_by, last) = self.index[slot(tag)];
        let is_it = |at: usize| self.tags[at] == tag && self.key(at) == key;
        // Nearly always either nobody or the last one.
        if shared_by == 0 || is_it(last.into()) {
            return (shared_by > 0).then_some(last.into());
        }
        let found = (0..self.keys.len()).find(|&at| is_it(at));
        if let Some(at) = found {
            self.index[slot(tag)].1 = at as u8;
        }
        found
    }

    fn key(&self, at: usize) -> &[u8] {
        let (key, len) = &self.keys[at];
        &key[..usize::from(*len)]
    }

    /// A counter for a key that has none.
    fn take(&mut self, key: &[u8], tag: u32) -> usize {
        let at = if self.keys.len() < COUNTERS { self.add() } else { self.give_up() };
        let (shared_by, last) = &mut self.index[slot(tag)];
        (*shared_by, *last) = (*shared_by + 1, at as u8);
        let (room, len) = &mut self.keys[at];
        room[..key.len()].copy_from_slice(key);
        *len = key.len() as u8;
        self.tags[at] = tag;
        self.told[at] = KeyCounts { error: self.counts[at].into(), ..KeyCounts::default() };
        at
    }

    fn add(&mut self) -> usize {
        let at = self.keys.len();
        self.keys.push(([0; KEY_MAX], 0));
        self.told.push(KeyCounts::default());
        self.counts[at] = 0;
        at
    }

    /// The counter with the lowest count, which is its key's no more.
    fn give_up(&mut self) -> usize {
        let at = self.lowest();
        self.index[slot(self.tags[at])].0 -= 1;
        at
    }

    fn lowest(&mut self) -> usize {
        loop {
            if let Some(step) = (self.next..COUNTERS).find(|&at| self.counts[at] <= self.floor) {
                self.next = step;
                return step;
            }
            // None is left from there on: either some before it are, or the floor has risen.
            self.floor = self.counts.iter().copied().min().unwrap_or(0);
            self.next = 0;
        }
    }
}

fn slot(tag: u32) -> usize {
    tag as usize % SLOTS
}

#[cfg(test)]
#[path = "tests/space_saving.rs"]
mod tests;
