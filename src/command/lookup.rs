//! Finding the item of a key, and what is told and counted of that.
//!
//! Not here: what a command then does with it.

use super::Context;
use crate::stats::PrefixEvent;
use crate::store::{Hash, ItemId, Locked, Miss};
use crate::watch::Streams;

/// Finds an item, and tells watchers and the counters of dead items about it.
#[inline]
pub(super) fn lookup(shard: &mut Locked<'_>, key: &[u8], hash: Hash, context: &Context<'_>) -> Result<ItemId, Miss> {
    let found = shard.find(key, hash);
    match found {
        Err(Miss::Expired) => context.counters.get_expired.add(1),
        Err(Miss::Flushed) => context.counters.get_flushed.add(1),
        _ => {}
    }
    if context.shared.watch.wants(Streams::FETCHERS) {
        watch_lookup(shard, key, found, context);
    }
    found
}

#[cold]
fn watch_lookup(shard: &Locked<'_>, key: &[u8], found: Result<ItemId, Miss>, context: &Context<'_>) {
    let (status, class, size) = match found {
        Ok(id) => {
            let item = shard.item(id);
            ("found", item.class(), item.value_len())
        }
        Err(Miss::NotFound) => ("not_found", 0, 0),
        Err(Miss::Expired) => ("expired", 0, 0),
        Err(Miss::Flushed) => ("flushed", 0, 0),
    };
    context.shared.watch.item_get(key, status, class, context.fd, size);
}

/// Counts for `stats detail`, when that is on.
#[inline]
pub(super) fn count_prefix(key: &[u8], event: PrefixEvent, context: &Context<'_>) {
    let prefixes = &context.shared.stats.prefixes;
    if prefixes.enabled() {
        prefixes.count(key, event);
    }
}
