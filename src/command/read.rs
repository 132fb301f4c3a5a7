//! get, gets, gat, gats, touch, mg, me, and the binary gets and touches.

use super::lookup::{count_prefix, lookup};
use super::output::Decimals;
use super::reply::{push_code, push_flag_number, push_flags, push_ttl, respond, response};
use super::{Context, Next, Output};
use crate::protocol::binary::{Packet, Status};
use crate::protocol::meta::{LetterSet, MetaCommand};
use crate::protocol::{base64, text, token};
use crate::stats::hot_keys::SampledKey;
use crate::stats::{CommandKind, PrefixEvent};
use crate::store::{AHEAD_MAX, AllocError, Hash, Item, ItemId, ItemSpec, Locked};

/// What a key counts for beside what it produces, so that a line of misses pauses as well: a part of 256 KiB is at most
/// 1024 keys, which take a quarter of a millisecond.
const KEY_COST: usize = 256;

/// get, gets, gat, gats of one key.
#[inline]
pub(crate) fn get_one(get: &text::Get<'_>, hash: Hash, context: &Context<'_>, out: &mut Output) -> Next {
    let found = match (get.with_cas, get.exptime) {
        (false, None) => {
            context.count(CommandKind::Get);
            answer(get.keys, hash, false, None, b"\r\nEND\r\n", context, out)
        }
        (with_cas, exptime) => {
            context.count(if exptime.is_none() { CommandKind::Get } else { CommandKind::Touch });
            let expires_at = exptime.map(|exptime| context.expires_at(exptime.into()));
            answer_any(get.keys, hash, with_cas, expires_at, b"\r\nEND\r\n", context, out)
        }
    };
    if found == 0 {
        out.push(b"END\r\n");
    }
    Next::Continue
}

/// get, gets, gat, gats of many keys.
pub(crate) fn get_many(get: &text::Get<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    // Counted from the end, which is the same for whoever comes back; where the keys begin need not be.
    let start = if context.resume == 0 { 0 } else { get.keys.len().saturating_sub(context.resume) };
    let rest = &get.keys[start..];
    if context.is_checking || context.resume == 0 && get.keys.len() > text::CHECKED_AT_ONCE {
        return check_part(get, rest, out);
    }
    let expires_at = get.exptime.map(|exptime| context.expires_at(exptime.into()));
    let now = first_words(rest);
    let mut words = token::words(now);
    let mut produced = 0;
    loop {
        let (mut keys, mut hashes) = ([&b""[..]; AHEAD_MAX], [(Hash(0), false); AHEAD_MAX]);
        let mut len = 0;
        for key in words.by_ref().take(AHEAD_MAX) {
            let hash = context.shared.store.hash(key);
            context.shared.store.prefetch(hash);
            (keys[len], hashes[len].0) = (key, hash);
            len += 1;
        }
        context.shared.store.prefetch_items(&hashes[..len]);
        let sampled = context.counters.keys.due(len);
        if let Some(at) = sampled {
            let written = expires_at.map(|_| 0);
            let sample = SampledKey { key: keys[at], hash: hashes[at].0.0, written };
            context.shared.sample(&sample, context.counters);
        }
        for (key, &(hash, _)) in keys[..len].iter().zip(&hashes) {
            // The common one has a copy of its own: a key costs 80 instructions less.
            produced += KEY_COST
                + match (get.with_cas, expires_at) {
                    (false, None) => answer(key, hash, false, None, b"\r\n", context, out),
                    (with_cas, expires_at) => answer_any(key, hash, with_cas, expires_at, b"\r\n", context, out),
                };
            if produced > context.part {
                let left = rest.as_ptr_range().end as usize - key.as_ptr_range().end as usize;
                if left > 0 {
                    return Next::More(left);
                }
            }
        }
        if len < AHEAD_MAX {
            break;
        }
    }
    if now.len() < rest.len() {
        return Next::More(rest.len() - now.len());
    }
    out.push(b"END\r\n");
    Next::Continue
}

/// Of many keys, those that are looked at without a pause, be there ever so many blanks between them.
fn first_words(keys: &[u8]) -> &[u8] {
    if keys.len() <= text::CHECKED_AT_ONCE {
        return keys;
    }
    let part = &keys[..text::CHECKED_AT_ONCE];
    // No key is longer than that: it was checked.
    &part[..memchr::memrchr(b' ', part).map_or(part.len(), |blank| blank + 1)]
}

/// Checks some of many keys before the first is answered.
#[cold]
fn check_part(get: &text::Get<'_>, rest: &[u8], out: &mut Output) -> Next {
    match text::check_some(rest) {
        None => {
            out.push(text::refuse_get(get));
            Next::Continue
        }
        Some(0) => Next::More(get.keys.len()),
        Some(left) => Next::Check(left),
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
    let found = lookup(&mut shard, key, hash, context).ok();
    let Some(id) = found.filter(|&id| expires_at.is_some() || !context.must_refresh(&shard, id, hash)) else {
        shard.count_miss(hash);
        if expires_at.is_some() {
            shard.invalidate_copies(key, false, hash);
        }
        drop(shard);
        count_get(key, false, expires_at.is_some(), context);
        let discovery = &context.shared.discovery;
        return if expires_at.is_none() && discovery.has(key) { discovery.answer_get(with_cas, end, out) } else { 0 };
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

/// As [`answer`], for who asks for more than the value.
#[inline(never)]
fn answer_any(
    key: &[u8],
    hash: Hash,
    with_cas: bool,
    expires_at: Option<u32>,
    end: &[u8],
    context: &Context<'_>,
    out: &mut Output,
) -> usize {
    answer(key, hash, with_cas, expires_at, end, context, out)
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
#[inline(always)]
fn fetched(shard: &mut Locked<'_>, id: ItemId, expires_at: Option<u32>) {
    match expires_at {
        Some(expires_at) => {
            shard.set_expires_at(id, expires_at);
            shard.class_counters(id).touch_hits += 1;
        }
        None => shard.count_get(id),
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
pub(crate) fn touch(key: &[u8], hash: Hash, exptime: i32, quiet: bool, context: &Context<'_>, out: &mut Output) {
    let reply = match touch_key(key, hash, exptime.into(), context) {
        Some(_) => b"TOUCHED\r\n".as_slice(),
        None => b"NOT_FOUND\r\n",
    };
    if !quiet {
        out.push(reply);
    }
}

/// Sets an item's TTL; its client flags and cas, if it is there.
fn touch_key(key: &[u8], hash: Hash, exptime: i64, context: &Context<'_>) -> Option<(u32, u64)> {
    let mut shard = context.lock(hash);
    let found = lookup(&mut shard, key, hash, context).ok().map(|id| {
        fetched(&mut shard, id, Some(context.expires_at(exptime)));
        let item = shard.item(id);
        (item.client_flags(), item.cas())
    });
    if found.is_none() {
        shard.invalidate_copies(key, false, hash);
    }
    drop(shard);
    context.counters.touch_cmds.add(1);
    match found {
        Some(_) => context.counters.touch_hits.add(1),
        None => context.counters.touch_misses.add(1),
    }
    found
}

/// mg.
pub(crate) fn meta_get(command: &MetaCommand<'_>, (key, hash): (&[u8], Hash), context: &Context<'_>, out: &mut Output) {
    let mut shard = context.lock(hash);
    let found = lookup(&mut shard, key, hash, context).ok();
    if found.is_none() {
        shard.count_miss(hash);
    }
    let item = match (found, command.vivify()) {
        (Some(id), _) => Ok(Some((id, false))),
        (None, Some(_)) => vivify(&mut shard, command, key, hash).map(|id| Some((id, true))),
        (None, None) => Ok(None),
    };
    if let Ok(Some((id, made))) = item {
        return answer_meta(&mut shard, id, made, command, key, context, out);
    }
    if command.has(b'T') {
        shard.invalidate_copies(key, command.has(b'b'), hash);
    }
    drop(shard);
    count_get_meta(false, false, context);
    match item {
        Err(_) => out.push(b"SERVER_ERROR out of memory\r\n"),
        Ok(_) if command.quiet() => {}
        Ok(_) => push_code(b"EN", command, key, out),
    }
}

/// Makes the empty item that `N` asks for; its TTL comes when `N`'s turn comes among the flags.
// COMPAT(vivified_key): such an item does not remember that its key came base64-encoded. Here it does where the key
// would break the line that names it.
fn vivify(shard: &mut Locked<'_>, command: &MetaCommand<'_>, key: &[u8], hash: Hash) -> Result<ItemId, AllocError> {
    let key_is_binary = command.has(b'b') && token::word_len(key) < key.len();
    let spec = ItemSpec { key, key_is_binary, client_flags: 0, expires_at: 0 };
    let id = shard.create(&spec, &[])?;
    shard.link(id, hash, command.cas());
    Ok(id)
}

/// An item that mg answers from, and as it was before that, for `h` and `l`.
struct Hit {
    id: ItemId,
    /// It was made for this request.
    made: bool,
    was_fetched: bool,
    last_access: u32,
}

/// Flags of mg that do or say something besides `k` and `O`.
const MG_FLAGS: LetterSet = LetterSet::of(b"TNRsfchlt");

/// Answers mg on an item.
fn answer_meta(
    shard: &mut Locked<'_>,
    id: ItemId,
    made: bool,
    command: &MetaCommand<'_>,
    key: &[u8],
    context: &Context<'_>,
    out: &mut Output,
) {
    let item = shard.item(id);
    let hit = Hit { id, made, was_fetched: item.is_fetched(), last_access: item.last_access() };
    let key_is_base64 = item.key_is_binary();
    let unchanged = command.compare().is_some_and(|cas| cas == item.cas());
    let with_value = command.has(b'v') && !unchanged;
    if with_value {
        out.push(b"VA ");
        out.push_number(item.value_len() as u64);
    } else {
        out.push(b"HD");
    }
    let mut won = made;
    push_flags(command, key, key_is_base64, MG_FLAGS, out, |letter, out| {
        won |= answer_flag(shard, &hit, letter, command, context, out);
    });
    let wins = push_win(shard, id, won, out);
    // The one who won at a standby does not keep clients of the owner from winning.
    if wins && !context.reads_copy {
        shard.set_win_sent(id, true);
    }
    out.push(b"\r\n");
    if with_value {
        out.push_item_value(shard, id);
        out.push(b"\r\n");
    }
    let touch = command.has(b'T');
    match (made, touch) {
        (true, _) => {}
        (false, true) => shard.class_counters(id).touch_hits += 1,
        (false, false) => shard.count_get(id),
    }
    count_get_meta(true, touch, context);
    if !command.has(b'u') {
        shard.bump(id);
    }
}

/// Executes and answers one flag. Whether the client won the right to recache.
fn answer_flag(
    shard: &mut Locked<'_>,
    hit: &Hit,
    letter: u8,
    command: &MetaCommand<'_>,
    context: &Context<'_>,
    out: &mut Output,
) -> bool {
    let (item, clock) = (shard.item(hit.id), &context.shared.clock);
    match letter {
        b'R' if !hit.made && !item.is_win_sent() && item.expires_at() != 0 => {
            return item.expires_at() < context.expires_at(command.recache().unwrap_or(0).into());
        }
        b's' => push_flag_number(b" s", item.value_len() as u64, out),
        b'f' => push_flag_number(b" f", item.client_flags().into(), out),
        b'h' => out.push(if hit.was_fetched { b" h1" } else { b" h0" }),
        b'l' => push_flag_number(b" l", clock.now().saturating_sub(hit.last_access).into(), out),
        _ => answer_item_flag(shard, (hit.id, hit.made), letter, command, context, out),
    }
    false
}

/// Executes and answers a flag that mg and ma have in common.
pub(super) fn answer_item_flag(
    shard: &mut Locked<'_>,
    (id, made): (ItemId, bool),
    letter: u8,
    command: &MetaCommand<'_>,
    context: &Context<'_>,
    out: &mut Output,
) {
    let clock = &context.shared.clock;
    match letter {
        b'T' => shard.set_expires_at(id, context.expires_at(command.ttl().unwrap_or(0).into())),
        // COMPAT(vivify_in_turn): a `t` or `T` before it still finds, and sets, an item that never expires.
        b'N' if made => shard.set_expires_at(id, context.expires_at(command.vivify().unwrap_or(0).into())),
        b'c' => push_flag_number(b" c", shard.item(id).cas(), out),
        b't' => {
            out.push(b" t");
            push_ttl(shard.item(id).expires_at(), clock.now(), out);
        }
        _ => {}
    }
}

/// Says whether the item is stale, and who is to renew it: `Z` somebody else, `W` this client. Whether it is this one.
fn push_win(shard: &Locked<'_>, id: ItemId, mut won: bool, out: &mut Output) -> bool {
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
    }
    won
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
pub(crate) fn meta_debug((key, hash): (&[u8], Hash), context: &Context<'_>, out: &mut Output) {
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
pub(crate) fn binary_get(
    packet: &Packet<'_>,
    hash: Hash,
    exptime: Option<u32>,
    context: &Context<'_>,
    out: &mut Output,
) {
    let expires_at = exptime.map(|exptime| context.expires_at(exptime.into()));
    let mut shard = context.lock(hash);
    let key = if packet.with_key { packet.key } else { b"" };
    let found = lookup(&mut shard, packet.key, hash, context).ok();
    let found = found.filter(|&id| expires_at.is_some() || !context.must_refresh(&shard, id, hash));
    if let Some(id) = found {
        fetched(&mut shard, id, expires_at);
        let item = shard.item(id);
        let extras = item.client_flags().to_be_bytes();
        response(packet, Status::Ok, item.cas(), &extras, key, item.value_len()).encode(&mut out.bytes);
        out.push_item_value(&mut shard, id);
    } else {
        shard.count_miss(hash);
        if exptime.is_some() {
            shard.invalidate_copies(packet.key, false, hash);
        }
    }
    drop(shard);
    count_get(packet.key, found.is_some(), exptime.is_some(), context);
    if found.is_none() && !packet.quiet {
        match packet.with_key {
            true => response(packet, Status::NotFound, 0, b"", key, 0).encode(&mut out.bytes),
            false => respond(packet, Status::NotFound, out),
        }
    }
}

/// Touch.
pub(crate) fn binary_touch(packet: &Packet<'_>, hash: Hash, exptime: u32, context: &Context<'_>, out: &mut Output) {
    match touch_key(packet.key, hash, exptime.into(), context) {
        Some((client_flags, cas)) => {
            let extras = client_flags.to_be_bytes();
            response(packet, Status::Ok, cas, &extras, b"", 0).encode(&mut out.bytes);
        }
        None => respond(packet, Status::NotFound, out),
    }
}
