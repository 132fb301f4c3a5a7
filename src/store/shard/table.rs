//! The hash table of one shard: from a key's hash to an item.
//!
//! ```text
//! buckets  | 0 | 1 | … | n-1 | not used yet …           overflow  | 0 unused | 1 | 2 | …
//!
//! hash, 64 bits:  | shard … | … | tag 8 at 32 | … bucket 32 |
//! ```
//!
//! Linear hashing: with `m` the smallest power of two that is at least `n`, a hash belongs to bucket
//! `hash % m`, or to `hash % (m/2)` when there is no such bucket yet. Growing adds bucket `n`, which takes its
//! items from bucket `n - m/2`, so the table grows by one bucket at a time and is never copied.
//!
//! Invariants: tag 0 is an empty slot. A chain of overflow buckets has no empty bucket. The table never shrinks,
//! so bucket `b` of a table of size 2^k holds, at any later size, what is in the buckets `b, b + 2^k, b + 2·2^k, …`.
//! Nothing is inserted unless [`Table::has_room`] has said so: memory that the system refuses is a refused store.

use crate::store::memory::arena::{Region, Stretch};
use crate::store::memory::layout::Bucket;
use crate::store::memory::prefetcher::Prefetcher;
use crate::store::{Hash, ItemId};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Items per bucket, on the average, that a growing table keeps. Of 12 slots 7 are used: about 9 bytes an item,
/// and one lookup in ten goes on to an overflow bucket.
pub(crate) const LOAD: usize = 7;

/// Buckets a table can have: 7 times 2^27 items of the smallest size fill a window.
pub(crate) const MAX_BUCKETS: usize = 1 << 27;

/// Items until it is tried again to grow, where the system had no memory for another bucket: a call of the system in so
/// many sets.
const RETRY: usize = 1024;

/// The tag of a hash, never 0.
#[inline]
fn tag(hash: Hash) -> u8 {
    ((hash.0 >> 32) as u8).max(1)
}

/// The bucket of a hash among `buckets`.
#[inline]
pub(crate) fn address(hash: Hash, buckets: usize) -> usize {
    // As `next_power_of_two() - 1`, in half of the instructions.
    let mask = usize::MAX >> ((buckets - 1) | 1).leading_zeros();
    let at = hash.0 as usize & mask;
    if at < buckets { at } else { at & (mask >> 1) }
}

/// See the module's head.
#[derive(Debug)]
pub struct Table {
    buckets: Region<Bucket>,
    overflow: Region<Bucket>,
    free_overflow: u32,
    /// `buckets.len()`, for who has not locked the shard.
    published: Arc<AtomicUsize>,
    items: usize,
    /// With more items than that it is time for another bucket.
    grows_at: usize,
    moving: Vec<(u8, ItemId)>,
}

impl Table {
    /// A table of `buckets` buckets. With `grows` false it stays so.
    pub fn new(buckets: usize, grows: bool, max_buckets: usize) -> std::io::Result<Table> {
        let buckets = buckets.min(MAX_BUCKETS);
        let max = max_buckets.clamp(buckets, MAX_BUCKETS);
        let mut table = Table {
            buckets: Region::new(max)?,
            overflow: Region::new(max)?,
            free_overflow: 0,
            published: Arc::new(AtomicUsize::new(buckets)),
            items: 0,
            grows_at: if grows { buckets * LOAD } else { usize::MAX },
            moving: Vec::new(),
        };
        if !table.buckets.extend(buckets) || !table.overflow.extend(1) || !table.has_room() {
            return Err(std::io::ErrorKind::OutOfMemory.into());
        }
        Ok(table)
    }

    /// Asks for huge pages.
    pub fn prefer_huge_pages(&mut self) {
        self.buckets.prefer_huge_pages();
    }

    /// As [`crate::store::memory::arena::Window::asks`], and the same of the next three.
    #[inline]
    pub fn asks(&self) -> bool {
        self.buckets.asks()
    }

    pub fn asked(&mut self) {
        self.buckets.asked();
    }

    pub fn next_stretch(&self) -> Option<Stretch> {
        self.buckets.next_stretch()
    }

    pub fn adopt(&mut self, stretch: &Stretch, done: bool) -> bool {
        self.buckets.adopt(stretch, done)
    }

    /// Buckets, without those of overflow.
    #[inline]
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Items in it.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Buckets, perhaps a little late, to be read without the shard's lock.
    pub fn published(&self) -> Arc<AtomicUsize> {
        self.published.clone()
    }

    /// For prefetching without the shard's lock.
    pub fn prefetcher(&self) -> Prefetcher {
        self.buckets.prefetcher()
    }

    /// The item of this hash for which `is_it` holds. A call of its own would take 25 instructions of each lookup.
    #[inline(always)]
    pub fn find(&self, hash: Hash, mut is_it: impl FnMut(ItemId) -> bool) -> Option<ItemId> {
        let tag = tag(hash);
        let mut bucket = self.buckets.get(address(hash, self.buckets.len()));
        loop {
            for slot in bucket.matches(tag) {
                if is_it(bucket.ids[slot]) {
                    return Some(bucket.ids[slot]);
                }
            }
            if bucket.overflow == 0 {
                return None;
            }
            bucket = self.overflow.get(bucket.overflow as usize);
        }
    }

    /// Hints the CPU to fetch the bucket of a hash.
    pub fn prefetch(&self, hash: Hash) {
        self.buckets.prefetch(address(hash, self.buckets.len()));
    }

    /// Calls `each` with the items that [`Table::find`] would ask about first.
    #[inline]
    pub fn candidates(&self, hash: Hash, mut each: impl FnMut(ItemId)) {
        let bucket = self.buckets.get(address(hash, self.buckets.len()));
        for slot in bucket.matches(tag(hash)) {
            each(bucket.ids[slot]);
        }
    }

    /// Adds an item, and a bucket when it is time for one. `rehash` gives the hash of an item, and `soon` is told
    /// of items that the next calls of `rehash` will be for.
    pub fn insert(&mut self, hash: Hash, id: ItemId, rehash: impl Fn(ItemId) -> Hash, soon: impl Fn(ItemId)) {
        self.put(address(hash, self.buckets.len()), tag(hash), id);
        self.items += 1;
        if self.wants_growth() {
            self.split(rehash);
            // About LOAD inserts from now these are read: without this, each waits for memory in its turn.
            let next = self.splits_next();
            self.buckets.get(next).ids.iter().filter(|&&id| id != ItemId::NONE).for_each(|&id| soon(id));
        }
    }

    /// Whether it is time for another bucket.
    #[inline]
    pub fn wants_growth(&self) -> bool {
        self.items > self.grows_at
    }

    /// Whether one more item finds room, also where its bucket is full: an insert takes one overflow bucket at most, and a
    /// split no more than it frees. Ask before an item is made that is to be inserted.
    #[inline]
    pub fn has_room(&mut self) -> bool {
        self.free_overflow != 0 || self.overflow.reserve(self.overflow.len() + 1)
    }

    /// Puts `new` in the slot of `old`, which has the same hash.
    pub fn replace(&mut self, hash: Hash, old: ItemId, new: ItemId) {
        let (place, slot) = self.locate(hash, old);
        self.at_mut(place).ids[slot] = new;
    }

    /// Takes an item out.
    pub fn remove(&mut self, hash: Hash, id: ItemId) {
        let (place, slot) = self.locate(hash, id);
        let bucket = self.at_mut(place);
        bucket.tags[slot] = 0;
        bucket.ids[slot] = ItemId::NONE;
        self.items -= 1;
        let first = BucketPlace::Bucket(address(hash, self.buckets.len()));
        if self.at(first).overflow != 0 {
            self.close_gap(first, place);
        }
    }

    /// Calls `each` with every item that was or would have been in bucket `at` of a table of `size` buckets, a
    /// power of two that this table has reached.
    pub fn visit(&self, at: usize, size: usize, mut each: impl FnMut(ItemId)) {
        for index in (at..self.buckets.len()).step_by(size) {
            let mut bucket = self.buckets.get(index);
            loop {
                bucket.ids.iter().filter(|&&id| id != ItemId::NONE).for_each(|&id| each(id));
                if bucket.overflow == 0 {
                    break;
                }
                bucket = self.overflow.get(bucket.overflow as usize);
            }
        }
    }

    /// Bytes of all buckets.
    pub fn bytes(&self) -> usize {
        (self.buckets.len() + self.overflow.len() - 1) * size_of::<Bucket>()
    }

    fn put(&mut self, index: usize, tag: u8, id: ItemId) {
        let mut place = BucketPlace::Bucket(index);
        while !self.at_mut(place).put(tag, id) {
            if self.at(place).overflow == 0 {
                let overflow = self.take_overflow();
                self.at_mut(place).overflow = overflow;
            }
            place = BucketPlace::Overflow(self.at(place).overflow as usize);
        }
    }

    fn at(&self, place: BucketPlace) -> &Bucket {
        match place {
            BucketPlace::Bucket(index) => self.buckets.get(index),
            BucketPlace::Overflow(index) => self.overflow.get(index),
        }
    }

    fn at_mut(&mut self, place: BucketPlace) -> &mut Bucket {
        match place {
            BucketPlace::Bucket(index) => self.buckets.get_mut(index),
            BucketPlace::Overflow(index) => self.overflow.get_mut(index),
        }
    }

    #[inline]
    fn locate(&self, hash: Hash, id: ItemId) -> (BucketPlace, usize) {
        let mut place = BucketPlace::Bucket(address(hash, self.buckets.len()));
        loop {
            let bucket = self.at(place);
            if let Some(slot) = bucket.ids.iter().position(|&other| other == id) {
                return (place, slot);
            }
            assert!(bucket.overflow != 0, "an item is missing in the table");
            place = BucketPlace::Overflow(bucket.overflow as usize);
        }
    }

    /// Fills the slot that became empty in `gap` from the end of the chain, and frees what is empty then.
    fn close_gap(&mut self, first: BucketPlace, gap: BucketPlace) {
        let (mut before, mut last) = (first, first);
        while self.at(last).overflow != 0 {
            before = last;
            last = BucketPlace::Overflow(self.at(last).overflow as usize);
        }
        if last != gap {
            let bucket = self.at_mut(last);
            let slot = bucket.ids.iter().position(|&id| id != ItemId::NONE).expect("a chain has no empty bucket");
            let (tag, id) = (bucket.tags[slot], bucket.ids[slot]);
            bucket.tags[slot] = 0;
            bucket.ids[slot] = ItemId::NONE;
            assert!(self.at_mut(gap).put(tag, id));
        }
        if self.at(last).is_empty() {
            let index = std::mem::take(&mut self.at_mut(before).overflow);
            self.free_overflow(index);
        }
    }

    fn take_overflow(&mut self) -> u32 {
        if self.free_overflow != 0 {
            let index = self.free_overflow;
            let bucket = self.overflow.get_mut(index as usize);
            self.free_overflow = std::mem::take(&mut bucket.overflow);
            return index;
        }
        let index = self.overflow.len();
        assert!(self.overflow.extend(index + 1), "an item was inserted that nobody made room for");
        index as u32
    }

    fn free_overflow(&mut self, index: u32) {
        *self.overflow.get_mut(index as usize) = Bucket { overflow: self.free_overflow, ..Bucket::default() };
        self.free_overflow = index;
    }

    /// Adds one bucket. When there is no memory for it, it is tried again some items later.
    pub fn split(&mut self, rehash: impl Fn(ItemId) -> Hash) {
        let (old, new) = (self.splits_next(), self.buckets.len());
        if !self.buckets.extend(new + 1) {
            self.grows_at = self.items + RETRY;
            return;
        }
        self.grows_at = (new + 1) * LOAD;
        self.published.store(new + 1, Ordering::Relaxed);
        let mut moving = std::mem::take(&mut self.moving);
        self.drain(old, &mut moving);
        for (tag, id) in moving.drain(..) {
            let to = address(rehash(id), new + 1);
            assert!(to == old || to == new, "a split bucket leads astray");
            self.put(to, tag, id);
        }
        self.moving = moving;
    }

    fn splits_next(&self) -> usize {
        let new = self.buckets.len();
        new - (new + 1).next_power_of_two() / 2
    }

    fn drain(&mut self, index: usize, into: &mut Vec<(u8, ItemId)>) {
        let mut bucket = std::mem::take(self.buckets.get_mut(index));
        loop {
            into.extend(std::iter::zip(bucket.tags, bucket.ids).filter(|&(_, id)| id != ItemId::NONE));
            let next = bucket.overflow;
            if next == 0 {
                return;
            }
            bucket = *self.overflow.get(next as usize);
            self.free_overflow(next);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BucketPlace {
    Bucket(usize),
    Overflow(usize),
}

#[cfg(test)]
#[path = "tests/table.rs"]
mod tests;
