//! get, gets, gat, gats, touch, mg, me, and the binary gets and touches.

use super::ahead::BATCH;
use super::output::Decimals;
use super::{Context, Next, Output, count_prefix, lookup, push_ttl, respond, response};
use crate::protocol::binary::{Packet, Status};
use crate::protocol::meta::Command;
use crate::protocol::{base64, text, token};
use crate::stats::PrefixEvent;
use crate::store::{ClassCounter, Hash, Item, ItemId, ItemSpec, Locked};

/// A line with many keys pauses for its output to be written when it has produced this many bytes.
const PART: usize = 256 * 1024;

/// What a key counts for beside what it produces, so that a line of misses pauses as well: a part is at most 1024 keys,
/// which take a quarter of a millisecond.
const KEY_COST: usize = 256;

/// get, gets, gat, gats.
pub(crate) fn get(get: &text::Get<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    let expires_at = get.exptime.map(|exptime| context.shared.clock.expires_at(exptime.into()));
    if get.single {
        let hash = context.shared.store.hash(get.keys);
        answer(get.keys, hash, get.with_cas, expires_at, b"\r\n", context, out);
        out.push(b"END\r\n");
        return Next::Continue;
    }
    // Counted from the end, which is the same for whoever comes back; where the keys begin need not be.
    let start = if context.resume == 0 { 0 } else { get.keys.len() - context.resume };
    let mut words = token::words(&get.keys[start..]);
    let mut produced = 0;
    loop {
        let (mut keys, mut hashes) = ([&b""[..]; BATCH], [(Hash(0), false); BATCH]);
        let mut len = 0;
        for key in words.by_ref().take(BATCH) {
            let hash = context.shared.store.hash(key);
            context.shared.store.prefetch(hash);
            (keys[len], hashes[len].0) = (key, hash);
            len += 1;
        }
        context.shared.store.prefetch_items(&hashes[..len]);
        for (key, &(hash, _)) in keys[..len].iter().zip(&hashes) {
            produced += KEY_COST + answer(key, hash, get.with_cas, expires_at, b"\r\n", context, out);
        }
        if len < BATCH {
            out.push(b"END\r\n");
            return Next::Continue;
        }
        if produced > PART && !words.rest().is_empty() {
            return Next::More(words.rest().len());
        }
    }
}

/// `get <key>`.
#[inline]
pub(crate) fn plain_get(key: &[u8], hash: Hash, context: &Context<'_>, out: &mut Output) {
    if answer(key, hash, false, None, b"\r\nEND\r\n", context, out) == 0 {
        out.push(b"END\r\n");
    }
}

/// Answers one key of a get, with `end` behind the value; the bytes of key and value, 0 for a miss. Each caller has its
/// own copy, without what it does not ask for.
#[inline(always)]
fn answer(
    key: &[u8],
    hash: Hash,
    with_cas: bool,
    expires_at: Option<u32>,
    end: &[u8],
    context: &Context<'_>,
    out: &mut Output,
) -> usize {
    let mut shard = context.lock(hash);
    let Ok(id) = lookup(&mut shard, key, hash, context) else {
        drop(shard);
        count_get(key, false, expires_at.is_some(), context);
        return 0;
    };
    fetched(&mut shard, id, expires_at);
    let item = shard.item(id);
    push_value_line(key, &item, with_cas, out);
    let len = out.push_item_value(&mut shard, id);
    drop(shard);
    out.push(end);
    count_get(key, true, expires_at.is_some(), context);
    key.len() + len
}

/// `VALUE <key> <client flags> <length> [<cas>]`.
#[inline]
fn push_value_line(key: &[u8], item: &Item<'_>, with_cas: bool, out: &mut Output) {
    out.push(b"VALUE ");
    out.push(key);
    let (len, client_flags) = (item.value_len() as u64, item.client_flags().into());
    if !with_cas && out.push_line_end(client_flags, len) {
        return;
    }
    let mut tail = Decimals::new(b"\r\n");
    if with_cas {
        tail.put(item.cas());
    }
    tail.put(len);
    tail.put(client_flags);
    out.push(tail.bytes());
}

/// Notes a fetch in the item, under the shard's lock.
#[inline]
fn fetched(shard: &mut Locked<'_>, id: ItemId, expires_at: Option<u32>) {
    match expires_at {
        Some(expires_at) => {
            shard.set_expires_at(id, expires_at);
            shard.count(id, ClassCounter::TouchHits);
        }
        None => shard.count(id, ClassCounter::GetHits),
    }
    shard.bump(id);
}

/// Notes a get in this worker's counters: a gat is a touch and no get.
#[inline]
fn count_get(key: &[u8], hit: bool, touch: bool, context: &Context<'_>) {
    let counters = context.counters;
    match (touch, hit) {
        (false, true) => counters.get_hits.add(1),
        (false, false) => counters.get_misses.add(1),
        (true, true) => counters.touch_hits.add(1),
        (true, false) => counters.touch_misses.add(1),
    }
    match touch {
        false => counters.get_cmds.add(1),
        true => counters.touch_cmds.add(1),
    }
    count_prefix(key, if hit { PrefixEvent::Hit } else { PrefixEvent::Miss }, context);
}

/// touch.
pub(crate) fn touch(key: &[u8], exptime: i32, quiet: bool, context: &mut Context<'_>, out: &mut Output) {
    let reply = match touch_key(key, exptime.into(), context) {
        Some(_) => b"TOUCHED\r\n".as_slice(),
        None => b"NOT_FOUND\r\n",
    };
    if !quiet {
        out.push(reply);
    }
}

/// Sets an item's TTL; its client flags and cas, if it is there.
fn touch_key(key: &[u8], exptime: i64, context: &Context<'_>) -> Option<(u32, u64)> {
    let hash = context.shared.store.hash(key);
    let mut shard = context.lock(hash);
    let found = lookup(&mut shard, key, hash, context).ok().map(|id| {
        fetched(&mut shard, id, Some(context.shared.clock.expires_at(exptime)));
        let item = shard.item(id);
        (item.client_flags(), item.cas())
    });
    drop(shard);
    context.counters.touch_cmds.add(1);
    match found {
        Some(_) => context.counters.touch_hits.add(1),
        None => context.counters.touch_misses.add(1),
    }
    found
}

/// mg.
pub(crate) fn meta_get(command: &Command<'_>, context: &mut Context<'_>, out: &mut Output) {
    let mut buffer = None;
    let key = command.key(&mut buffer);
    let hash = context.shared.store.hash(key);
    let mut shard = context.lock(hash);
    let found = lookup(&mut shard, key, hash, context).ok();
    let vivified = match (found, command.flags.vivify()) {
        (None, Some(_)) => vivify(&mut shard, command, key, hash),
        _ => Ok(None),
    };
    match (found, vivified) {
        (Some(id), _) => answer_meta(&mut shard, id, false, command, context, out),
        (None, Ok(Some(id))) => answer_meta(&mut shard, id, true, command, context, out),
        (None, Ok(None)) => {
            count_get_meta(false, false, context);
            push_meta_miss(command, key, out);
        }
        (None, Err(())) => {
            count_get_meta(false, false, context);
            out.push(b"SERVER_ERROR out of memory\r\n");
        }
    }
}

/// Makes the empty item that `N` asks for; its TTL comes when `N`'s turn comes among the flags.
fn vivify(shard: &mut Locked<'_>, command: &Command<'_>, key: &[u8], hash: Hash) -> Result<Option<ItemId>, ()> {
    let spec = ItemSpec { key, key_is_binary: command.flags.has(b'b'), client_flags: 0, expires_at: 0 };
    let id = shard.create(&spec, &[]).map_err(|_| ())?;
    shard.link(id, hash, command.flags.cas());
    Ok(Some(id))
}

/// An item as it was before mg touched it, for `h` and `l`.
struct Before {
    fetched: bool,
    last_access: u32,
}

/// Answers mg on an item; `made` says that it was made for this request.
fn answer_meta(
    shard: &mut Locked<'_>,
    id: ItemId,
    made: bool,
    command: &Command<'_>,
    context: &Context<'_>,
    out: &mut Output,
) {
    let item = shard.item(id);
    let before = Before { fetched: item.is_fetched(), last_access: item.last_access() };
    let unchanged = command.flags.compare().is_some_and(|cas| cas == item.cas());
    let with_value = command.flags.has(b'v') && !unchanged;
    if with_value {
        out.push(b"VA ");
        out.push_number(item.value_len() as u64);
    } else {
        out.push(b"HD");
    }
    let won = push_meta_flags(shard, id, made, &before, command, context, out);
    push_win(shard, id, won, out);
    out.push(b"\r\n");
    if with_value {
        out.push_item_value(shard, id);
        out.push(b"\r\n");
    }
    let touch = command.flags.has(b'T');
    count_hit_meta(shard, id, made, touch, context);
    if !command.flags.has(b'u') {
        shard.bump(id);
    }
}

/// Executes and answers the flags in the order of the request. Whether the client won the right to recache.
fn push_meta_flags(
    shard: &mut Locked<'_>,
    id: ItemId,
    made: bool,
    before: &Before,
    command: &Command<'_>,
    context: &Context<'_>,
    out: &mut Output,
) -> bool {
    let clock = &context.shared.clock;
    let mut won = made;
    for flag in command.flags.iter() {
        let item = shard.item(id);
        match flag[0] {
            b'T' => shard.set_expires_at(id, clock.expires_at(command.flags.ttl().unwrap_or(0).into())),
            // COMPAT(vivify_in_turn): a `t` or `T` before it still finds, and sets, an item that never expires.
            b'N' if made => shard.set_expires_at(id, clock.expires_at(command.flags.vivify().unwrap_or(0).into())),
            b'R' if !made && !item.is_win_sent() && item.expires_at() != 0 => {
                won |= item.expires_at() < clock.expires_at(command.flags.recache().unwrap_or(0).into());
            }
            b's' => push_flag_number(b" s", item.value_len() as u64, out),
            b'f' => push_flag_number(b" f", item.client_flags().into(), out),
            b'c' => push_flag_number(b" c", item.cas(), out),
            b'h' => out.push(if before.fetched { b" h1" } else { b" h0" }),
            b'l' => push_flag_number(b" l", clock.now().saturating_sub(before.last_access).into(), out),
            b't' => {
                out.push(b" t");
                push_ttl(item.expires_at(), clock.now(), out);
            }
            b'k' => push_key_flag(item.key(), item.key_is_binary(), out),
            b'O' => push_opaque(flag, out),
            _ => {}
        }
    }
    won
}

/// Says whether the item is stale, and who is to renew it: `Z` somebody else, `W` this client.
fn push_win(shard: &mut Locked<'_>, id: ItemId, mut won: bool, out: &mut Output) {
    let item = shard.item(id);
    let (sent, stale) = (item.is_win_sent(), item.is_stale());
    if sent {
        out.push(b" Z");
    }
    if stale {
        out.push(b" X");
        won |= !sent;
    }
    if won {
        out.push(b" W");
        shard.set_win_sent(id, true);
    }
}

pub(crate) fn push_flag_number(flag: &[u8; 2], number: u64, out: &mut Output) {
    out.push(flag);
    out.push_number(number);
}

pub(crate) fn push_opaque(flag: &[u8], out: &mut Output) {
    out.push(b" ");
    out.push(flag);
}

/// The `k` of a reply, with the `b` that a base64 key carries along.
pub(crate) fn push_key_flag(key: &[u8], is_binary: bool, out: &mut Output) {
    out.push(b" k");
    match is_binary {
        false => out.push(key),
        true => {
            base64::encode(key, &mut out.bytes);
            out.push(b" b");
        }
    }
}

fn push_meta_miss(command: &Command<'_>, key: &[u8], out: &mut Output) {
    if command.quiet() {
        return;
    }
    out.push(b"EN");
    push_key_and_opaque(command, key, out);
    out.push(b"\r\n");
}

/// `k` and `O` in the order of the request, the key as the request has it.
pub(crate) fn push_key_and_opaque(command: &Command<'_>, key: &[u8], out: &mut Output) {
    for flag in command.flags.iter() {
        match flag[0] {
            b'k' => push_key_flag(key, command.flags.has(b'b'), out),
            b'O' => push_opaque(flag, out),
            _ => {}
        }
    }
}

fn count_hit_meta(shard: &mut Locked<'_>, id: ItemId, made: bool, touch: bool, context: &Context<'_>) {
    if !made {
        shard.count(id, if touch { ClassCounter::TouchHits } else { ClassCounter::GetHits });
    }
    count_get_meta(true, touch, context);
}

// COMPAT(mg_counts): a hit with `T` counts as a touch, in place of a get. An mg that makes its item hits it.
fn count_get_meta(hit: bool, touch: bool, context: &Context<'_>) {
    let counters = context.counters;
    match (hit, touch) {
        (true, true) => {
            counters.touch_cmds.add(1);
            counters.touch_hits.add(1);
            return;
        }
        (true, false) => counters.get_hits.add(1),
        (false, _) => counters.get_misses.add(1),
    }
    counters.get_cmds.add(1);
}

/// me.
pub(crate) fn meta_debug(command: &Command<'_>, context: &mut Context<'_>, out: &mut Output) {
    let mut buffer = None;
    let key = command.key(&mut buffer);
    let hash = context.shared.store.hash(key);
    let mut shard = context.lock(hash);
    context.counters.meta_cmds.add(1);
    let Ok(id) = lookup(&mut shard, key, hash, context) else {
        out.push(b"EN\r\n");
        return;
    };
    let (item, now) = (shard.item(id), context.shared.clock.now());
    out.push(b"ME ");
    match item.key_is_binary() {
        true => base64::encode(key, &mut out.bytes),
        false => out.push(key),
    }
    out.push(b" exp=");
    push_ttl(item.expires_at(), now, out);
    out.push(b" la=");
    out.push_number(now.saturating_sub(item.last_access()).into());
    out.push(b" cas=");
    out.push_number(item.cas());
    out.push(if item.is_fetched() { b" fetch=yes cls=".as_slice() } else { b" fetch=no cls=" });
    out.push_number(item.class().into());
    out.push(b" size=");
    out.push_number(item.size() as u64);
    out.push(b"\r\n");
}

/// Get, GetK, GAT, GATK and their quiet twins.
pub(crate) fn binary_get(packet: &Packet<'_>, exptime: Option<u32>, context: &mut Context<'_>, out: &mut Output) {
    let hash = context.shared.store.hash(packet.key);
    let expires_at = exptime.map(|exptime| context.shared.clock.expires_at(exptime.into()));
    let mut shard = context.lock(hash);
    let key = if packet.with_key { packet.key } else { b"" };
    let found = lookup(&mut shard, packet.key, hash, context);
    if let Ok(id) = found {
        fetched(&mut shard, id, expires_at);
        let item = shard.item(id);
        let extras = item.client_flags().to_be_bytes();
        response(packet, Status::Ok, item.cas(), &extras, key, item.value_len()).encode(&mut out.bytes);
        out.push_item_value(&mut shard, id);
    }
    drop(shard);
    count_get(packet.key, found.is_ok(), exptime.is_some(), context);
    if found.is_err() && !packet.quiet {
        match packet.with_key {
            true => response(packet, Status::NotFound, 0, b"", key, 0).encode(&mut out.bytes),
            false => respond(packet, Status::NotFound, out),
        }
    }
}

/// Touch.
pub(crate) fn binary_touch(packet: &Packet<'_>, exptime: u32, context: &mut Context<'_>, out: &mut Output) {
    match touch_key(packet.key, exptime.into(), context) {
        Some((client_flags, cas)) => {
            let extras = client_flags.to_be_bytes();
            response(packet, Status::Ok, cas, &extras, b"", 0).encode(&mut out.bytes);
        }
        None => respond(packet, Status::NotFound, out),
    }
}
