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
//! meanwhile. Who is done looks, under the lock, and no change is lost.
//!
//! Invariants: while it is pinned, an item's value does not change and its number is no other item's, so a key that still
//! has `old` has the value that was copied. A handle is dropped, and items are with it, when the shard is not locked.
//!
//! Not here: whose turn it is (`copy_line`), what is done to the key and what else if others were faster (`command/join`).

use super::pin::Pinned;
use super::shard::locked::Locked;
use super::upload::Upload;
use super::{Hash, ItemId, ItemSpec};

/// See the module's head.
#[derive(Debug)]
pub struct Join {
    pins: JoinPins,
    upload: Upload,
    /// Where to go on: which of the parts, which of its pieces, and bytes of that.
    part: usize,
    piece: usize,
    within: usize,
    /// Bytes that are still to be copied.
    left: usize,
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

impl Locked<'_> {
    /// The live item of a key and the length of its value with `more` bytes, if an item can be as long.
    pub fn find_to_join(&self, key: &[u8], hash: Hash, more: usize) -> Option<(ItemId, usize)> {
        let old = self.peek(key, hash)?;
        let (item, sizing) = (self.item(old), &self.core.sizing);
        let len = item.value_len() + more;
        let fits = sizing.total(key.len(), item.client_flags() != 0, len) <= sizing.item_max;
        fits.then_some((old, len))
    }
}

impl Join {
    /// Begins to join the item of a key and a new one that is nobody's yet, which stands behind the old one or before it.
    /// The error is that there is no memory for it; it keeps the new one.
    pub fn new(
        mut shard: Locked<'_>,
        key: &[u8],
        (old, new): (ItemId, ItemId),
        is_behind: bool,
    ) -> Result<Join, Pinned> {
        let item = shard.item(old);
        let (key_is_binary, client_flags) = (item.key_is_binary(), item.client_flags());
        let spec = ItemSpec { key, key_is_binary, client_flags, expires_at: item.expires_at() };
        let parts = if is_behind { [old, new] } else { [new, old] }.map(|id| shard.pin(id));
        let pins = JoinPins { old, new, parts };
        let (shards, number) = (shard.shards().clone(), shard.number);
        drop(shard);
        let left = pins.parts.iter().map(Pinned::len).sum();
        match Upload::of_server(&shards, number, &spec, left) {
            Ok(upload) => Ok(Join { pins, upload, part: 0, piece: 0, within: 0, left, is_lost: false }),
            Err(_) => Err(pins.keep_new()),
        }
    }

    /// Bytes that are still to be copied.
    pub fn missing(&self) -> usize {
        self.left
    }

    /// Copies so many bytes at most. How many it were: 0 if all are copied, or memory is to be waited for.
    pub fn copy(&mut self, most: usize) -> usize {
        let mut copied = 0;
        while self.left > 0 && copied < most && !self.upload.must_wait() {
            let Ok(room) = self.upload.room() else {
                self.is_lost = true;
                break;
            };
            let Some(bytes) = self.pins.parts[self.part].piece(self.piece) else {
                (self.part, self.piece, self.within) = (self.part + 1, 0, 0);
                continue;
            };
            let bytes = &bytes[self.within..];
            let n = room.len().min(bytes.len()).min(most - copied);
            room[..n].copy_from_slice(&bytes[..n]);
            let is_end = n == bytes.len();
            self.upload.filled(n);
            (self.piece, self.within) = if is_end { (self.piece + 1, 0) } else { (self.piece, self.within + n) };
            self.left -= n;
            copied += n;
        }
        copied
    }

    /// Whether there is nothing more to copy: all was, or there was no memory.
    pub fn is_over(&self) -> bool {
        self.is_lost || self.left == 0
    }

    /// What to put in the old one's place, None if there was no memory; and what keeps the others meanwhile.
    pub fn end(self) -> (Option<Upload>, JoinPins) {
        ((!self.is_lost).then_some(self.upload), self.pins)
    }
}

impl JoinPins {
    /// Keeps the new item and lets go of the old one.
    pub fn keep_new(self) -> Pinned {
        let [first, second] = self.parts;
        if first.id() == self.new { first } else { second }
    }
}
