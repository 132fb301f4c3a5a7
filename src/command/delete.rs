//! delete, md, and the binary Delete.
//!
//! md can do without deleting: `I` marks the item stale, so that one client is told to renew it, and `x` puts an empty
//! item in its place.

use super::lookup::{count_prefix, lookup};
use super::reply::{push_code, respond, respond_unless_quiet};
use super::{Context, Output};
use crate::protocol::binary::{Packet, Status};
use crate::protocol::meta::MetaCommand;
use crate::stats::PrefixEvent;
use crate::store::{AllocError, Hash, ItemId, ItemSpec, Locked};
use crate::watch::Streams;

/// delete.
pub(super) fn text(key: &[u8], hash: Hash, quiet: bool, context: &Context<'_>, out: &mut Output) {
    count_prefix(key, PrefixEvent::Delete, context);
    let mut shard = context.lock(hash);
    let found = lookup(&mut shard, key, hash, context).ok();
    match found {
        Some(id) => remove(&mut shard, id, key, hash, "delete", context),
        None => shard.invalidate_copies(key, false, hash),
    }
    drop(shard);
    count_delete(found.is_some(), context);
    if !quiet {
        out.push(if found.is_some() { b"DELETED\r\n".as_slice() } else { b"NOT_FOUND\r\n" });
    }
}

fn remove(shard: &mut Locked<'_>, id: ItemId, key: &[u8], hash: Hash, cmd: &str, context: &Context<'_>) {
    shard.class_counters(id).delete_hits += 1;
    if context.shared.watch.wants(Streams::DELETIONS) {
        let item = shard.item(id);
        context.shared.watch.deleted(key, cmd, item.class(), item.value_len());
    }
    shard.unlink(id, hash);
}

fn count_delete(hit: bool, context: &Context<'_>) {
    match hit {
        true => context.counters.delete_hits.add(1),
        false => context.counters.delete_misses.add(1),
    }
}

/// md.
pub(super) fn meta(command: &MetaCommand<'_>, (key, hash): (&[u8], Hash), context: &Context<'_>, out: &mut Output) {
    let mut shard = context.lock(hash);
    let Ok(empty) = empty(&mut shard, key, command, context) else {
        out.push(b"SERVER_ERROR out of memory\r\n");
        return;
    };
    let (code, used) = match lookup(&mut shard, key, hash, context) {
        Ok(id) => delete_item(&mut shard, id, empty, (key, hash), command, context),
        Err(_) => {
            shard.invalidate_copies(key, command.has(b'b'), hash);
            count_delete(false, context);
            (b"NF", false)
        }
    };
    if let (Some(empty), false) = (empty, used) {
        shard.free(empty);
    }
    drop(shard);
    if code != b"HD" || !command.quiet() {
        push_code(code, command, key, out);
    }
}

/// md `x`: the empty item for the old one's place, made before the old one is looked at.
fn empty(
    shard: &mut Locked<'_>,
    key: &[u8],
    command: &MetaCommand<'_>,
    context: &Context<'_>,
) -> Result<Option<ItemId>, AllocError> {
    if !command.has(b'x') {
        return Ok(None);
    }
    let expires_at = context.expires_at(command.ttl().unwrap_or(0).into());
    let spec = ItemSpec { key, key_is_binary: command.has(b'b'), client_flags: command.client_flags(), expires_at };
    shard.create(&spec, &[]).map(Some)
}

/// md on an item: its reply code, and whether `empty` was put in the item's place.
fn delete_item(
    shard: &mut Locked<'_>,
    id: ItemId,
    empty: Option<ItemId>,
    (key, hash): (&[u8], Hash),
    command: &MetaCommand<'_>,
    context: &Context<'_>,
) -> (&'static [u8; 2], bool) {
    let cas = shard.item(id).cas();
    if command.compare().is_some_and(|given| given != cas || given == 0) {
        count_delete(false, context);
        return (b"EX", false);
    }
    if empty.is_none() && !command.has(b'I') {
        remove(shard, id, key, hash, "md", context);
        count_delete(true, context);
        return (b"HD", false);
    }
    // COMPAT(cas_beside_e): a number is taken even where the client names one, or the item keeps its own.
    let next = shard.next_cas();
    if let Some(empty) = empty {
        shard.replace(id, empty, hash, Some(command.cas().unwrap_or(cas)));
    }
    if command.has(b'I') {
        invalidate(shard, empty.unwrap_or(id), command, next, context);
    }
    (b"HD", empty.is_some())
}

/// md `I`: the next client that asks is told to renew it.
fn invalidate(shard: &mut Locked<'_>, id: ItemId, command: &MetaCommand<'_>, next_cas: u64, context: &Context<'_>) {
    if let Some(ttl) = command.ttl() {
        shard.set_expires_at(id, context.expires_at(ttl.into()));
    }
    shard.set_cas(id, command.cas().unwrap_or(next_cas));
    shard.set_stale(id, true);
    shard.set_win_sent(id, false);
}

/// Delete.
pub(super) fn binary(packet: &Packet<'_>, hash: Hash, context: &Context<'_>, out: &mut Output) {
    count_prefix(packet.key, PrefixEvent::Delete, context);
    let mut shard = context.lock(hash);
    let Ok(id) = lookup(&mut shard, packet.key, hash, context) else {
        shard.invalidate_copies(packet.key, false, hash);
        drop(shard);
        count_delete(false, context);
        return respond(packet, Status::NotFound, out);
    };
    if packet.cas != 0 && packet.cas != shard.item(id).cas() {
        return respond(packet, Status::Exists, out);
    }
    shard.class_counters(id).delete_hits += 1;
    shard.unlink(id, hash);
    drop(shard);
    count_delete(true, context);
    respond_unless_quiet(packet, out);
}
