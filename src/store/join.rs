//! Two values of one shard that become one, outside the shard's lock: an append or a prepend to a large value.
//!
//! ```text
//! old    linked, pinned   ──┐ copied,          is old still what the key has?
//! new    floating, pinned ──┴ some at a time ──> upload ── yes ──> takes old's place
//!                                                  `────── no ───> dropped: new meets what is there now
//! ```
//!
//! To copy 60 MB takes 30 to 120 ms, in which nobody else could have the shard. Nothing is copied under the lock here: what
//! is copied stays as it is because it is pinned, and where it goes nobody else sees. So others may change the key
//! meanwhile. Who is done looks, under the lock, and begins again if they have: one of those who change a key at a time is
//! always done at the first try, and no change is lost.
//!
//! Invariants: while it is pinned, an item's value does not change and its number is no other item's, so a key that still
//! has `old` has the value that was copied. A handle is dropped, and items are with it, when the shard is not locked.
//!
//! Not here: what is done to the key (`command/join`), when it is one's turn (`net`).

use super::pin::Pinned;
use super::shard::locked::Locked;
use super::upload::Upload;
use super::{AllocError, ItemId, ItemSpec};

/// See the module's head.
#[derive(Debug)]
pub struct Join {
    pins: JoinPins,
    upload: Upload,
    /// Bytes that were copied.
    copied: usize,
    len: usize,
    /// There was no memory for all of it.
    is_lost: bool,
}

/// What two values are kept by while they become one.
#[derive(Debug)]
pub struct JoinPins {
    /// The item that the key had.
    pub old: ItemId,
    /// What is added to it. It is nobody's: without being linked it goes with this handle.
    pub new: ItemId,
    /// In the order in which they are copied.
    parts: [Pinned; 2],
}

impl Join {
    /// Begins to join the item of a key and a new one that is nobody's yet, which stands behind the old one or before it.
    /// The new one is freed on an error.
    pub fn new(
        mut shard: Locked<'_>,
        key: &[u8],
        (old, new): (ItemId, ItemId),
        is_behind: bool,
    ) -> Result<Join, AllocError> {
        let item = shard.item(old);
        let (key_is_binary, client_flags) = (item.key_is_binary(), item.client_flags());
        let spec = ItemSpec { key, key_is_binary, client_flags, expires_at: item.expires_at() };
        let parts = if is_behind { [old, new] } else { [new, old] }.map(|id| shard.pin(id));
        let pins = JoinPins { old, new, parts };
        let (shards, number) = (shard.shards().clone(), shard.number);
        drop(shard);
        let len = pins.parts.iter().map(Pinned::len).sum();
        let upload = Upload::new(&shards, number, &spec, len)?;
        Ok(Join { pins, upload, copied: 0, len, is_lost: false })
    }

    /// Bytes of both.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether both are empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are still to be copied.
    pub fn missing(&self) -> usize {
        self.len - self.copied
    }

    /// Copies so many bytes at most. How many it were: 0 if all are copied, or memory is to be waited for.
    pub fn copy(&mut self, most: usize) -> usize {
        let begin = self.copied;
        while self.copied < self.len.min(begin.saturating_add(most)) && !self.upload.must_wait() {
            let Ok(room) = self.upload.room() else {
                self.is_lost = true;
                break;
            };
            let bytes = self.pins.from(self.copied);
            let n = room.len().min(bytes.len()).min(begin.saturating_add(most) - self.copied);
            room[..n].copy_from_slice(&bytes[..n]);
            self.upload.filled(n);
            self.copied += n;
        }
        self.copied - begin
    }

    /// Whether there is nothing more to copy: all was, or there was no memory.
    pub fn is_over(&self) -> bool {
        self.is_lost || self.copied == self.len
    }

    /// What to put in the old one's place, None if there was no memory; and what keeps the others meanwhile.
    pub fn end(self) -> (Option<Upload>, JoinPins) {
        ((!self.is_lost).then_some(self.upload), self.pins)
    }
}

impl JoinPins {
    /// The bytes from there on, as far as they lie together.
    fn from(&self, at: usize) -> &[u8] {
        let [first, second] = &self.parts;
        let bytes = if at < first.len() { first.slices(at).next() } else { second.slices(at - first.len()).next() };
        bytes.expect("there are bytes left")
    }
}
