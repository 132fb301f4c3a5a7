//! set, add, replace, append, prepend, cas, ms, and the binary stores.
//!
//! ```text
//! header of any protocol -> Order -> rewrite or apply -> Done { outcome, cas, len } -> reply of that protocol
//! ```
//!
//! `apply` is the one place that decides what a store does to an existing or missing item. A plain set of an item
//! that has room is done in place. Else the new item is made before the old one is looked at, so that what the
//! allocation evicts can never be an item already decided on; for append and prepend the old value is a part of the
//! new one, and the store keeps it meanwhile. What has to wait is known before anything is done (`join`).
//!
//! Not here: values that come in pieces (`upload`), appends to large ones (`join`).

use super::lookup::{count_prefix, lookup};
use super::reply::{push_flag_number, push_flags, respond, response};
use super::{Context, Next, Output, join};
use crate::protocol::binary::{Op, Packet, Status};
use crate::protocol::meta::{KeyBuffer, LetterSet, MetaCommand};
use crate::protocol::text::BAD_CHUNK;
use crate::protocol::{Mode, Refusal, StoreHeader};
use crate::stats::{CommandKind, PrefixEvent};
use crate::store::{AllocError, Hash, ItemId, ItemSpec, Locked, Part, Upload};
use crate::watch::{ItemStore, Streams};

/// What must follow the data of a text store.
pub(super) const TAIL: &[u8] = b"\r\n";

const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";

/// A value on its way into the store.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    /// In the connection's buffer.
    Bytes(&'a [u8]),
    /// In its chunks already.
    Uploaded(Box<Upload>),
}

impl Value<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Value::Bytes(bytes) => bytes.len(),
            Value::Uploaded(upload) => upload.value_len(),
        }
    }
}

/// What a store request asks for, whatever its protocol.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) mode: Mode,
    pub(super) key: &'a [u8],
    key_is_binary: bool,
    pub(super) hash: Hash,
    client_flags: u32,
    expires_at: u32,
    /// The cas unique that the item must have.
    compare: Option<u64>,
    /// ms `I`: a given cas below the item's stores all the same, as stale.
    invalidate: bool,
    /// ms `E`: the cas to give.
    cas: Option<u64>,
    /// ms `N` with append and prepend: store a missing item, to expire then.
    vivify: Option<u32>,
    /// append and prepend: what comes of it, if that was made already of what the key still has.
    pub(super) joined: Option<ItemId>,
}

/// How a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stored,
    NotStored,
    Exists,
    NotFound,
    TooLarge,
    NoMemory,
}

/// How a store ended, and the item's cas and length where it was stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    pub(super) cas: u64,
    pub(super) len: usize,
}

/// Runs a store request whose value has arrived; `tail` is what follows the value. An append says how much it copied.
#[inline]
pub(super) fn run(
    header: &StoreHeader<'_>,
    hash: Hash,
    value: Value<'_>,
    tail: &[u8],
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let mut buffer = None;
    let order = order(header, hash, &mut buffer, context);
    if matches!(order.mode, Mode::Append | Mode::Prepend) {
        return join::run(header, hash, value, tail, context, out);
    }
    count(header, &order, context);
    if is_broken(header, tail) {
        return refuse_chunk(header, context, out);
    }
    let mut shard = context.lock(hash);
    if let Value::Bytes(bytes) = value
        && let Some(cas) = rewrite(&mut shard, &order, bytes, context)
    {
        drop(shard);
        context.counters.set_cmds.add(1);
        reply(header, Done { outcome: Outcome::Stored, cas, len: bytes.len() }, order.key, out);
        return Next::Continue;
    }
    run_new(header, hash, shard, value, context, out)
}

/// Counts a request that is answered.
#[inline(always)]
pub(super) fn count(header: &StoreHeader<'_>, order: &Order<'_>, context: &Context<'_>) {
    if matches!(header, StoreHeader::Meta(_)) {
        context.count(CommandKind::Meta);
    } else {
        context.count(CommandKind::Set);
        count_prefix(order.key, PrefixEvent::Set, context);
    }
}

/// Whether something else follows the value than what has to.
#[inline(always)]
pub(super) fn is_broken(header: &StoreHeader<'_>, tail: &[u8]) -> bool {
    !matches!(header, StoreHeader::Binary(_)) && tail != TAIL
}

/// Runs one that calls for a new item. Its order is made anew, under the lock: one that is passed on lies in memory, and that
/// costs the common case 20 instructions, and to take the lock again costs more than to make the order.
#[inline(never)]
fn run_new(
    header: &StoreHeader<'_>,
    hash: Hash,
    shard: Locked<'_>,
    value: Value<'_>,
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let mut buffer = None;
    let order = order(header, hash, &mut buffer, context);
    let done = apply(shard, &order, value, context);
    answer(header, &order, done, context, out);
    Next::Continue
}

#[inline]
pub(super) fn answer(header: &StoreHeader<'_>, order: &Order<'_>, done: Done, context: &Context<'_>, out: &mut Output) {
    match done.outcome {
        Outcome::TooLarge | Outcome::NoMemory => answer_refusal(header, order, done.outcome, context, out),
        _ => reply(header, done, order.key, out),
    }
}

#[inline]
fn reply(header: &StoreHeader<'_>, done: Done, key: &[u8], out: &mut Output) {
    match header {
        StoreHeader::Text(store) if store.quiet => {}
        StoreHeader::Text(_) => out.push(text_reply(done.outcome)),
        StoreHeader::Meta(command) => meta_reply(command, &done, key, out),
        StoreHeader::Binary(packet) => binary_reply(packet, &done, out),
    }
}

#[cold]
fn answer_refusal(
    header: &StoreHeader<'_>,
    order: &Order<'_>,
    outcome: Outcome,
    context: &Context<'_>,
    out: &mut Output,
) {
    refuse_memory(header, order, outcome, context);
    memory_refusal(header, outcome).push_to(&mut out.bytes);
}

#[inline(always)]
pub(super) fn order<'a>(
    header: &'a StoreHeader<'_>,
    hash: Hash,
    buffer: &'a mut KeyBuffer,
    context: &Context<'_>,
) -> Order<'a> {
    match header {
        StoreHeader::Text(store) => Order {
            compare: store.compare,
            client_flags: store.client_flags,
            expires_at: context.expires_at(store.exptime.into()),
            ..simple_order(store.mode, store.key, hash)
        },
        StoreHeader::Meta(command) => meta_order(command, hash, buffer, context),
        StoreHeader::Binary(packet) => binary_order(packet, hash, context),
    }
}

#[inline]
fn simple_order(mode: Mode, key: &[u8], hash: Hash) -> Order<'_> {
    Order {
        mode,
        key,
        key_is_binary: false,
        hash,
        client_flags: 0,
        expires_at: 0,
        compare: None,
        invalidate: false,
        cas: None,
        vivify: None,
        joined: None,
    }
}

fn meta_order<'a>(
    command: &'a MetaCommand<'_>,
    hash: Hash,
    buffer: &'a mut KeyBuffer,
    context: &Context<'_>,
) -> Order<'a> {
    Order {
        key_is_binary: command.has(b'b'),
        client_flags: command.client_flags(),
        expires_at: context.expires_at(command.ttl().unwrap_or(0).into()),
        // Add stores only where nothing is: there is nothing to compare.
        compare: command.compare().filter(|_| command.mode != Mode::Add),
        invalidate: command.has(b'I'),
        cas: command.cas(),
        vivify: command.vivify().map(|exptime| context.expires_at(exptime.into())),
        ..simple_order(command.mode, command.key(buffer), hash)
    }
}

fn binary_order<'a>(packet: &'a Packet<'_>, hash: Hash, context: &Context<'_>) -> Order<'a> {
    let Op::Store { mode, client_flags, exptime } = packet.op else {
        unreachable!("the parser gives only stores a body");
    };
    // COMPAT(binary_store_without_cas): with `-C` a packet's cas says nothing; a delete or a count that has one finds no match.
    let compare = (packet.cas != 0 && context.shared.config.store.cas_enabled).then_some(packet.cas);
    let mode = match mode {
        // COMPAT(binary_add_with_cas): a cas makes one command of Set, Add and Replace.
        Mode::Add | Mode::Replace if compare.is_some() => Mode::Set,
        mode => mode,
    };
    let expires_at = context.expires_at(exptime.into());
    Order { client_flags, expires_at, compare, ..simple_order(mode, packet.key, hash) }
}

pub(super) fn spec<'a>(order: &Order<'a>) -> ItemSpec<'a> {
    ItemSpec {
        key: order.key,
        key_is_binary: order.key_is_binary,
        client_flags: order.client_flags,
        expires_at: order.expires_at,
    }
}

/// Carries out an order by a new item.
#[inline]
pub(super) fn apply(mut shard: Locked<'_>, order: &Order<'_>, value: Value<'_>, context: &Context<'_>) -> Done {
    match make(&mut shard, order, value) {
        Ok(new) => put(shard, order, new, context),
        Err(error) => Done { outcome: refused(error), cas: 0, len: 0 },
    }
}

/// Makes the new item, which is nobody's yet.
#[inline]
pub(super) fn make(shard: &mut Locked<'_>, order: &Order<'_>, value: Value<'_>) -> Result<ItemId, AllocError> {
    match value {
        Value::Bytes(bytes) => shard.create(&spec(order), &[Part::Bytes(bytes)]),
        Value::Uploaded(upload) => shard.finish(*upload),
    }
}

/// Does with a new item what the order says.
#[inline]
pub(super) fn put(mut shard: Locked<'_>, order: &Order<'_>, new: ItemId, context: &Context<'_>) -> Done {
    let done = place(&mut shard, order, new, context);
    drop(shard);
    context.counters.set_cmds.add(1);
    done
}

/// The common case: a set of an item that is there and has room, and nobody watches. The cas unique that it has now.
#[inline(always)]
fn rewrite(shard: &mut Locked<'_>, order: &Order<'_>, value: &[u8], context: &Context<'_>) -> Option<u64> {
    let watched = context.shared.watch.wants(Streams::FETCHERS.with(Streams::MUTATIONS));
    if order.mode != Mode::Set || order.compare.is_some() || watched {
        return None;
    }
    let (_, class, cas) = shard.rewrite(&spec(order), order.hash, value, order.cas)?;
    shard.counters_of(class).cmd_set += 1;
    Some(cas)
}

/// Decides what becomes of the new item, and does it.
#[inline]
fn place(shard: &mut Locked<'_>, order: &Order<'_>, new: ItemId, context: &Context<'_>) -> Done {
    shard.class_counters(new).cmd_set += 1;
    // COMPAT(cas_per_try): every store takes a number, also one that then stores nothing.
    let cas = Some(order.cas.unwrap_or_else(|| shard.next_cas()));
    let old = lookup(shard, order.key, order.hash, context).ok();
    let (outcome, stored) = match old {
        Some(old) => meet(shard, order, (old, new), cas, context),
        None => meet_nothing(shard, order, new, cas, context),
    };
    let id = stored.unwrap_or(new);
    if context.shared.watch.wants(Streams::MUTATIONS) {
        watch_store(shard, order, id, outcome, context);
    }
    let done = Done { outcome, cas: shard.item(id).cas(), len: shard.item(id).value_len() };
    match stored {
        Some(id) if id == new => {}
        _ => shard.free(new),
    }
    if let Some(joined) = order.joined.filter(|&joined| stored != Some(joined)) {
        shard.free(joined);
    }
    done
}

/// The key has an item. The item now stored under it, if that changed.
fn meet(
    shard: &mut Locked<'_>,
    order: &Order<'_>,
    (old, new): (ItemId, ItemId),
    cas: Option<u64>,
    context: &Context<'_>,
) -> (Outcome, Option<ItemId>) {
    let fits = compare(shard, order, old);
    match order.mode {
        Mode::Add => {
            shard.set_accessed(old);
            return (Outcome::NotStored, None);
        }
        Mode::Set | Mode::Replace => count_cas(shard, order, old, fits, context),
        Mode::Append | Mode::Prepend => {}
    }
    match (fits, order.mode) {
        (Fits::No, _) | (Fits::Stale, Mode::Append | Mode::Prepend) => (Outcome::Exists, None),
        (_, Mode::Append) => join(shard, order, (old, cas), [Part::Value(old), Part::Value(new)]),
        (_, Mode::Prepend) => join(shard, order, (old, cas), [Part::Value(new), Part::Value(old)]),
        (fits, _) => {
            if fits == Fits::Stale {
                keep_stale(shard, old, new);
            }
            shard.replace(old, new, order.hash, cas);
            (Outcome::Stored, Some(new))
        }
    }
}

/// The key has no item.
fn meet_nothing(
    shard: &mut Locked<'_>,
    order: &Order<'_>,
    new: ItemId,
    cas: Option<u64>,
    context: &Context<'_>,
) -> (Outcome, Option<ItemId>) {
    match (order.mode, order.compare, order.vivify) {
        (Mode::Set | Mode::Replace, Some(_), _) => {
            context.counters.cas_misses.add(1);
            return (Outcome::NotFound, None);
        }
        (Mode::Append | Mode::Prepend, _, Some(expires_at)) => shard.set_expires_at(new, expires_at),
        (Mode::Append | Mode::Prepend | Mode::Replace, _, _) => return (Outcome::NotStored, None),
        (Mode::Set | Mode::Add, _, _) => {}
    }
    shard.link(new, order.hash, cas);
    (Outcome::Stored, Some(new))
}

/// Whether an item is the one that the client compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fits {
    Yes,
    No,
    /// It is newer, and the client wants its value stored as stale then.
    Stale,
}

/// 0 is no cas unique: it never fits, and neither does anything without cas (`-C`).
pub(super) fn compare(shard: &Locked<'_>, order: &Order<'_>, old: ItemId) -> Fits {
    let cas = shard.item(old).cas();
    match order.compare {
        None => Fits::Yes,
        // COMPAT(join_without_cas): with `-C` an append or a prepend compares nothing.
        Some(_) if matches!(order.mode, Mode::Append | Mode::Prepend) && !shard.core.config.cas_enabled => Fits::Yes,
        Some(given) if given == cas && given != 0 => Fits::Yes,
        Some(given) if order.invalidate && given < cas && given != 0 => Fits::Stale,
        Some(_) => Fits::No,
    }
}

fn count_cas(shard: &mut Locked<'_>, order: &Order<'_>, old: ItemId, fits: Fits, context: &Context<'_>) {
    match fits {
        _ if order.compare.is_none() => {}
        Fits::Yes | Fits::Stale => {
            context.counters.cas_hits.add(1);
            shard.class_counters(old).cas_hits += 1;
        }
        Fits::No => {
            context.counters.cas_badval.add(1);
            shard.class_counters(old).cas_badval += 1;
        }
    }
}

/// The stale item keeps the TTL of the one it replaces, and whether a client was told to renew it.
fn keep_stale(shard: &mut Locked<'_>, old: ItemId, new: ItemId) {
    let item = shard.item(old);
    let (expires_at, sent) = (item.expires_at(), item.is_win_sent());
    shard.set_expires_at(new, expires_at);
    shard.set_stale(new, true);
    shard.set_win_sent(new, sent);
}

/// append and prepend: an item of both values with the old one's client flags and TTL. Where it cannot be made,
/// nothing changes.
fn join(
    shard: &mut Locked<'_>,
    order: &Order<'_>,
    (old, cas): (ItemId, Option<u64>),
    parts: [Part<'_>; 2],
) -> (Outcome, Option<ItemId>) {
    let item = shard.item(old);
    let spec = ItemSpec {
        key: order.key,
        key_is_binary: item.key_is_binary(),
        client_flags: item.client_flags(),
        expires_at: item.expires_at(),
    };
    if let Some(joined) = order.joined {
        // The old one may have been touched since.
        shard.set_expires_at(joined, spec.expires_at);
    }
    match order.joined.map_or_else(|| shard.create(&spec, &parts), Ok) {
        Ok(joined) => {
            shard.replace(old, joined, order.hash, cas);
            (Outcome::Stored, Some(joined))
        }
        Err(_) => (Outcome::NotStored, None),
    }
}

pub(super) fn refused(error: AllocError) -> Outcome {
    match error {
        AllocError::TooLarge => Outcome::TooLarge,
        AllocError::NoMemory => Outcome::NoMemory,
    }
}

/// What a refusal for size or memory does besides answering: a plain set, and any ms, leaves no older value
/// behind that a client would take for the new one.
pub(super) fn refuse_memory(header: &StoreHeader<'_>, order: &Order<'_>, outcome: Outcome, context: &Context<'_>) {
    let deletes = match header {
        StoreHeader::Text(store) => store.mode == Mode::Set && store.compare.is_none(),
        StoreHeader::Meta(_) => true,
        StoreHeader::Binary(packet) => matches!(packet.op, Op::Store { mode: Mode::Set, .. }),
    };
    if !matches!(header, StoreHeader::Binary(_)) {
        match outcome {
            Outcome::TooLarge => context.counters.store_too_large.add(1),
            _ => context.counters.store_no_memory.add(1),
        }
    }
    if context.shared.watch.wants(Streams::MUTATIONS) {
        publish(order, outcome, 0, 0, 0, context);
    }
    if outcome == Outcome::NoMemory {
        context.shared.store.note_refusal();
    }
    if deletes {
        let mut shard = context.lock(order.hash);
        match lookup(&mut shard, order.key, order.hash, context) {
            Ok(old) => shard.unlink(old, order.hash),
            Err(_) => shard.invalidate_copies(order.key, order.key_is_binary, order.hash),
        }
    }
}

/// The answer to a refusal for size or memory.
pub(super) fn memory_refusal(header: &StoreHeader<'_>, outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::TooLarge => refusal(header, TOO_LARGE, Status::TooLarge, Status::TooLarge.text()),
        _ => refusal(header, NO_MEMORY, Status::NoMemory, Status::NoMemory.text()),
    }
}

pub(super) fn refusal(header: &StoreHeader<'_>, line: &'static [u8], status: Status, text: &'static [u8]) -> Refusal {
    match header {
        StoreHeader::Text(store) if store.quiet => Refusal::Line(b""),
        StoreHeader::Text(_) | StoreHeader::Meta(_) => Refusal::Line(line),
        StoreHeader::Binary(packet) => packet.refusal(status, text),
    }
}

// COMPAT(ms_q_bad_chunk): the q flag does not hide this one.
pub(super) fn refuse_chunk(header: &StoreHeader<'_>, context: &Context<'_>, out: &mut Output) -> Next {
    context.counters.set_cmds.add(1);
    match header {
        StoreHeader::Text(store) if store.quiet => {}
        _ => out.push(BAD_CHUNK),
    }
    Next::Continue
}

fn text_reply(outcome: Outcome) -> &'static [u8] {
    match outcome {
        Outcome::Stored => b"STORED\r\n",
        Outcome::NotStored => b"NOT_STORED\r\n",
        Outcome::Exists => b"EXISTS\r\n",
        Outcome::NotFound => b"NOT_FOUND\r\n",
        Outcome::TooLarge => TOO_LARGE,
        Outcome::NoMemory => NO_MEMORY,
    }
}

/// Flags of ms that say something besides `k` and `O`.
const MS_FLAGS: LetterSet = LetterSet::of(b"cs");

fn meta_reply(command: &MetaCommand<'_>, done: &Done, key: &[u8], out: &mut Output) {
    let code = match done.outcome {
        Outcome::Stored if command.quiet() => return,
        Outcome::Stored => b"HD",
        Outcome::Exists => b"EX",
        Outcome::NotFound => b"NF",
        _ => b"NS",
    };
    out.push(code);
    push_flags(command, key, command.has(b'b'), MS_FLAGS, out, |letter, out| match letter {
        b'c' => push_flag_number(b" c", if done.outcome == Outcome::Stored { done.cas } else { 0 }, out),
        _ => push_flag_number(b" s", done.len as u64, out),
    });
    out.push(b"\r\n");
}

fn binary_reply(packet: &Packet<'_>, done: &Done, out: &mut Output) {
    let Op::Store { mode, .. } = packet.op else {
        unreachable!("the parser gives only stores a body");
    };
    let status = match (done.outcome, mode) {
        (Outcome::Stored, _) if packet.quiet => return,
        (Outcome::Stored, _) => return response(packet, Status::Ok, done.cas, b"", b"", 0).encode(&mut out.bytes),
        (Outcome::Exists, _) => Status::Exists,
        (Outcome::NotFound, _) | (_, Mode::Replace) => Status::NotFound,
        (_, Mode::Add) => Status::Exists,
        _ => Status::NotStored,
    };
    respond(packet, status, out);
}

#[cold]
fn watch_store(shard: &Locked<'_>, order: &Order<'_>, id: ItemId, outcome: Outcome, context: &Context<'_>) {
    let item = shard.item(id);
    publish(order, outcome, item.expires_at(), item.class(), item.value_len(), context);
}

fn publish(order: &Order<'_>, outcome: Outcome, expires_at: u32, class: u8, size: usize, context: &Context<'_>) {
    let status = match outcome {
        Outcome::Stored => "stored",
        Outcome::NotStored => "not_stored",
        Outcome::Exists => "exists",
        Outcome::NotFound => "not_found",
        Outcome::TooLarge => "too_large",
        Outcome::NoMemory => "no_memory",
    };
    let cmd = match (order.mode, order.compare) {
        (Mode::Set | Mode::Replace, Some(_)) => "cas",
        (Mode::Set, None) => "set",
        (Mode::Add, _) => "add",
        (Mode::Replace, None) => "replace",
        (Mode::Append, _) => "append",
        (Mode::Prepend, _) => "prepend",
    };
    let ttl = match expires_at {
        0 => 0,
        _ => i64::from(expires_at.wrapping_sub(context.shared.clock.now())),
    };
    context.shared.watch.item_store(&ItemStore { key: order.key, status, cmd, ttl, class, fd: context.fd, size });
}
