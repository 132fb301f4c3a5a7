//! What can be changed of an item that stays where it is.
//!
//! Not here: new values in other chunks, and in the item's own (`shard`).

use super::journaling::Change;
use super::{Shard, TOUCH_LATEST};
use crate::store::ItemId;
use crate::store::memory::arena::offset;
use crate::store::memory::layout::{ItemHeader, state};

impl Shard {
    /// Sets the last access to now. An item that was flushed since it was found stays flushed.
    #[inline]
    pub fn set_accessed(&mut self, id: ItemId) {
        let now = self.core.clock.now();
        if let Some(stamp) = self.core.flush.renewed(self.window.header(id).stamp(), now) {
            self.change(id, |header| header.set_stamp(stamp));
        }
    }

    /// Sets the cas unique of a linked item (0 stays with `-C`).
    pub fn set_cas(&mut self, id: ItemId, cas: u64) {
        // The seal's part of the head, off and on again.
        self.seal_head(id);
        self.give_cas(id, Some(cas));
        self.seal_head(id);
        self.remember(id, Change::CAS);
    }

    /// Sets the expiry.
    #[inline]
    pub fn set_expires_at(&mut self, id: ItemId, expires_at: u32) {
        let now = self.core.clock.now();
        let before = self.change(id, |header| std::mem::replace(&mut header.expires_at, expires_at));
        let soon = before != 0 && before < now.saturating_add(TOUCH_LATEST);
        self.remember(id, if soon { Change::SET } else { Change::EXPIRY });
    }

    /// Marks stale (meta `I`) or not.
    pub fn set_stale(&mut self, id: ItemId, stale: bool) {
        self.change(id, |header| header.chunk.set(state::STALE, stale));
        self.remember(id, Change::STATE);
    }

    /// Notes that a client was told to recache (meta `W`).
    pub fn set_win_sent(&mut self, id: ItemId, sent: bool) {
        self.change(id, |header| header.chunk.set(state::WIN_SENT, sent));
        self.remember(id, Change::STATE);
    }

    /// Overwrites the value with one of the same length, in place. False when somebody reads it just now
    /// or it is in chained chunks; then nothing changed.
    pub fn overwrite(&mut self, id: ItemId, value: &[u8]) -> bool {
        let chunk = *self.window.chunk(id);
        if chunk.pins > 0 || chunk.is(state::CHUNKED) || chunk.len as usize != value.len() {
            return false;
        }
        let at = offset(id) + self.window.value_at(&chunk);
        self.window.bytes_mut(at, value.len()).copy_from_slice(value);
        self.seal_anew(id);
        self.remember(id, Change::SET);
        true
    }

    /// Changes the head of an item, and its seal with it.
    #[inline]
    pub fn change<R>(&mut self, id: ItemId, change: impl FnOnce(&mut ItemHeader) -> R) -> R {
        let before = *self.window.header(id);
        let changed = change(self.window.header_mut(id));
        self.seal_change(id, &before);
        changed
    }
}
