//! Small types that the whole store uses: names of items, what an item is made from, and why one is missing or refused.

/// The hash of a key: picks the shard, the bucket and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

/// Names an item of one shard while that shard is locked: the offset of its chunk in the shard's memory, in units of
/// eight bytes. Inside the store it may name any chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct ItemId(pub(crate) u32);

impl ItemId {
    /// No item: the end of a list.
    pub(crate) const NONE: ItemId = ItemId(0);
}

/// Why a lookup found nothing. A lookup that finds an expired or flushed item reclaims it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No such key.
    NotFound,
    /// The item had expired.
    Expired,
    /// The item had been flushed.
    Flushed,
}

/// Why an item could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// Its size is above `-I`.
    TooLarge,
    /// There is no free chunk, and nothing may be evicted.
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
pub struct ClassSet(pub u128);

impl ClassSet {
    /// All classes that items can have.
    pub const ALL: ClassSet = ClassSet(!1);
}

/// The number of ranges in all shards together. With ten million items a range has 600 of them, which are scanned in
/// one slice or two. A set of ranges takes 2 KiB.
const RANGES: usize = 1 << 14;

/// Ranges of keys by their hashes. When a reader of the journal has missed changes, whole ranges are scanned again.
/// Each shard has as many ranges; the buckets of a range are those whose numbers end in the same bits.
#[derive(Clone, Copy, Debug)]
pub struct KeyRanges {
    shard_bits: u32,
    range_bits: u32,
}

/// The buckets of a range: every `step`th bucket of a shard.
#[derive(Clone, Copy, Debug)]
pub struct RangeBuckets {
    pub shard: usize,
    pub first: usize,
    pub step: usize,
}

impl KeyRanges {
    /// The ranges of a store of `shards` shards with at least `buckets` buckets each; both are powers of two.
    pub fn new(shards: usize, buckets: usize) -> KeyRanges {
        let ranges = (RANGES / shards).min(1 << buckets.ilog2()).max(1);
        KeyRanges { shard_bits: shards.ilog2(), range_bits: ranges.ilog2() }
    }

    /// How many ranges there are.
    pub fn count(self) -> u32 {
        1 << (self.shard_bits + self.range_bits)
    }

    /// The range of a key.
    #[inline]
    pub fn of(self, hash: Hash) -> u32 {
        let shard = (hash.0 >> 32 >> (32 - self.shard_bits)) as u32;
        shard << self.range_bits | hash.0 as u32 & ((1 << self.range_bits) - 1)
    }

    /// The buckets that hold the items of a range.
    pub fn buckets_of(self, range: u32) -> RangeBuckets {
        let step = 1 << self.range_bits;
        RangeBuckets { shard: range as usize >> self.range_bits, first: range as usize & (step - 1), step }
    }
}
