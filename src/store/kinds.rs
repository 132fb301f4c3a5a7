//! Words that the whole store has in common: how an item is named, made, missed, refused.
//!
//! Not here: anything that does something.

/// The hash of a key: picks the shard, the bucket and the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub u64);

/// Names an item of one shard, while that shard is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemId(pub(crate) u32);

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
