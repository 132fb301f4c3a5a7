//! Words that the whole store has in common: how an item is named, made, missed, refused.
//!
//! Not here: anything that does something.

/// The hash of a key: picks the shard, the bucket and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

/// Names an item of one shard, while that shard is locked: its chunk's offset in the shard's memory, in units of eight
/// bytes. Inside the store it names any chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct ItemId(pub(crate) u32);

impl ItemId {
    /// No item: the end of a list.
    pub(crate) const NONE: ItemId = ItemId(0);
}

/// Why a lookup found nothing. An expired or flushed item is reclaimed by the lookup that meets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No such key.
    NotFound,
    /// Its time had come.
    Expired,
    /// flush_all had taken it.
    Flushed,
}

/// Why an item could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// Its size is above `-I`.
    TooLarge,
    /// No free chunk, and nothing may be evicted.
    NoMemory,
}

/// What a new item is made from.
#[derive(Clone, Copy, Debug)]
pub struct ItemSpec<'a> {
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// The key came base64-encoded.
    pub key_is_binary: bool,
    /// Opaque to the server.
    pub client_flags: u32,
    /// As [`crate::clock::Clock::expires_at`] gives it.
    pub expires_at: u32,
}

/// A piece of a new item's value.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes from outside.
    Bytes(&'a [u8]),
    /// The value of an item of the same shard. It is kept from eviction while the new item is made.
    Value(ItemId),
}

/// An answer of [`super::Store::reassign`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassign {
    /// Queued.
    Ok,
    /// Source and destination are one class.
    Same,
    /// No such class.
    BadClass,
    /// The source has fewer than two pages.
    NoSpare,
    /// A page is on the move already.
    Busy,
}

/// A set of slab classes, bit i for class i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassSet(pub u64);

impl ClassSet {
    /// All that items can have.
    pub const ALL: ClassSet = ClassSet(!1);
}

/// Ranges of all shards together: one of ten million items is 600 items, scanned in one slice or two; a set of them
/// takes 2 KiB.
const RANGES: usize = 1 << 14;

/// Ranges of keys by their hashes, the smallest parts of a store that a reader of the journal can have missed something
/// of: in each shard as many, and of each the buckets of which a number ends in the same bits.
#[derive(Clone, Copy, Debug)]
pub struct KeyRanges {
    shard_bits: u32,
    range_bits: u32,
}

/// Where the items of a range are: in every `step`th bucket of a shard.
#[derive(Clone, Copy, Debug)]
pub struct RangeBuckets {
    pub shard: usize,
    pub first: usize,
    pub step: usize,
}

impl KeyRanges {
    /// Of a store of `shards` shards with at least `buckets` buckets each, both powers of two.
    pub fn new(shards: usize, buckets: usize) -> KeyRanges {
        let ranges = (RANGES / shards).min(1 << buckets.ilog2()).max(1);
        KeyRanges { shard_bits: shards.ilog2(), range_bits: ranges.ilog2() }
    }

    /// How many.
    pub fn count(self) -> u32 {
        1 << (self.shard_bits + self.range_bits)
    }

    /// The range of a key.
    #[inline]
    pub fn of(self, hash: Hash) -> u32 {
        let shard = (hash.0 >> 32 >> (32 - self.shard_bits)) as u32;
        shard << self.range_bits | hash.0 as u32 & ((1 << self.range_bits) - 1)
    }

    /// Where the items of a range are.
    pub fn buckets_of(self, range: u32) -> RangeBuckets {
        let step = 1 << self.range_bits;
        RangeBuckets { shard: range as usize >> self.range_bits, first: range as usize & (step - 1), step }
    }
}
