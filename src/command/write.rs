//! set, add, replace, append, prepend, cas, delete, ms, md, and the binary stores and delete.
//!
//! ```text
//! header of any protocol -> Order -> apply(order, value) -> Done { outcome, cas, len } -> reply of that protocol
//! ```
//!
//! `apply` is the one place that decides what a store does to an existing or missing item. A plain set of an item
//! that has room is done in place. Else the new item is made before the old one is looked at, so that what the
//! allocation evicts can never be an item already decided on; for append and prepend the old value is a part of the
//! new one, and the store keeps it meanwhile.

use super::read::{push_flag_number, push_key_and_opaque, push_key_flag, push_opaque};
use super::{Context, Output, count_prefix, lookup, respond, respond_unless_quiet, response};
use crate::protocol::binary::{Op, Packet, Status};
use crate::protocol::meta::{Command, KeyBuffer};
use crate::protocol::text::{BAD_CHUNK, Mode, PlainSet};
use crate::protocol::{Bad, StoreHeader};
use crate::stats::PrefixEvent;
use crate::store::{AllocError, ClassCounter, Hash, ItemId, ItemSpec, Locked, Part, Upload};
use crate::watch::{ItemStore, Streams};
use std::borrow::Cow;

/// What must follow the data of a text store.
const TAIL: &[u8] = b"\r\n";

const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
const NO_MEMORY_READING: &[u8] = b"SERVER_ERROR Out of memory during read\r\n";

/// A value on its way into the store.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    /// In the connection's buffer.
    Bytes(&'a [u8]),
    /// In its chunks already.
    Uploaded(Upload),
}

/// What a store request asks for, whatever its protocol.
#[derive(Debug)]
struct Order<'a> {
    mode: Mode,
    key: &'a [u8],
    key_is_binary: bool,
    hash: Hash,
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
}

/// How a store ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Stored,
    NotStored,
    Exists,
    NotFound,
    TooLarge,
    NoMemory,
}

/// How a store ended, and the item's cas and length where it was stored.
#[derive(Clone, Copy, Debug)]
struct Done {
    outcome: Outcome,
    cas: u64,
    len: usize,
}

/// Runs a store request whose value has arrived.
#[inline]
pub(crate) fn run(header: &StoreHeader<'_>, value: Value<'_>, tail: &[u8], context: &Context<'_>, out: &mut Output) {
    let mut buffer = None;
    let order = order(header, &mut buffer, context);
    count_prefix_of(header, order.key, context);
    if !matches!(header, StoreHeader::Binary(_)) && tail != TAIL {
        context.counters.set_cmds.add(1);
        return refuse_chunk(header, out);
    }
    let done = apply(&order, value, context);
    match done.outcome {
        Outcome::TooLarge | Outcome::NoMemory => answer_refusal(header, &order, done.outcome, context, out),
        _ => reply(header, &done, order.key, out),
    }
}

/// `set` of a value that has come, with its tail.
#[inline]
pub(crate) fn plain_set(set: &PlainSet, key: &[u8], hash: Hash, value: &[u8], context: &Context<'_>, out: &mut Output) {
    let expires_at = context.shared.clock.expires_at(set.exptime.into());
    let order = Order { client_flags: set.client_flags, expires_at, hash, ..plain_order(Mode::Set, key) };
    count_prefix(key, PrefixEvent::Set, context);
    match apply(&order, Value::Bytes(value), context).outcome {
        outcome @ (Outcome::TooLarge | Outcome::NoMemory) => {
            answer_refusal(&StoreHeader::Text(set.store(key)), &order, outcome, context, out);
        }
        _ if set.quiet => {}
        outcome => out.push(text_reply(outcome)),
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
    if let Some(reply) = memory_reply(header, outcome) {
        out.push(&reply);
    }
}

/// See [`super::begin`].
pub(crate) fn begin(header: &StoreHeader<'_>, len: usize, context: &Context<'_>) -> Result<Upload, Bad> {
    let mut buffer = None;
    let order = order(header, &mut buffer, context);
    let upload = context.shared.store.upload(order.hash, &spec(&order), len);
    upload.map_err(|error| {
        let outcome = refused(error);
        refuse_memory(header, &order, outcome, context);
        let tail = if matches!(header, StoreHeader::Binary(_)) { 0 } else { TAIL.len() };
        let reply = memory_reply(header, outcome).unwrap_or_default();
        Bad { consumed: 0, swallow: (len + tail) as u64, reply, close: false }
    })
}

/// See [`super::out_of_memory`].
pub(crate) fn out_of_memory(header: &StoreHeader<'_>, left: u64, context: &Context<'_>) -> Bad {
    let mut buffer = None;
    let order = order(header, &mut buffer, context);
    refuse_memory(header, &order, Outcome::NoMemory, context);
    let reply = match header {
        StoreHeader::Binary(packet) => Cow::Owned(packet.refusal(Status::NoMemory, b"Out of memory during read")),
        StoreHeader::Text(store) if store.quiet => Cow::Borrowed(&b""[..]),
        _ => Cow::Borrowed(NO_MEMORY_READING),
    };
    Bad { consumed: 0, swallow: left, reply, close: false }
}

#[inline]
fn order<'a>(header: &'a StoreHeader<'_>, buffer: &'a mut KeyBuffer, context: &Context<'_>) -> Order<'a> {
    let mut order = match header {
        StoreHeader::Text(store) => Order {
            compare: store.compare,
            client_flags: store.client_flags,
            expires_at: context.shared.clock.expires_at(store.exptime.into()),
            ..plain_order(store.mode, store.key)
        },
        StoreHeader::Meta(command) => meta_order(command, buffer, context),
        StoreHeader::Binary(packet) => binary_order(packet, context),
    };
    order.hash = context.shared.store.hash(order.key);
    order
}

fn plain_order(mode: Mode, key: &[u8]) -> Order<'_> {
    Order {
        mode,
        key,
        key_is_binary: false,
        hash: Hash(0),
        client_flags: 0,
        expires_at: 0,
        compare: None,
        invalidate: false,
        cas: None,
        vivify: None,
    }
}

fn meta_order<'a>(command: &'a Command<'_>, buffer: &'a mut KeyBuffer, context: &Context<'_>) -> Order<'a> {
    let (flags, clock) = (&command.flags, &context.shared.clock);
    Order {
        key_is_binary: flags.has(b'b'),
        client_flags: flags.client_flags(),
        expires_at: clock.expires_at(flags.ttl().unwrap_or(0).into()),
        // Add stores only where nothing is: there is nothing to compare.
        compare: flags.compare().filter(|_| flags.mode != Mode::Add),
        invalidate: flags.has(b'I'),
        cas: flags.cas(),
        vivify: flags.vivify().map(|exptime| clock.expires_at(exptime.into())),
        ..plain_order(flags.mode, command.key(buffer))
    }
}

fn binary_order<'a>(packet: &'a Packet<'_>, context: &Context<'_>) -> Order<'a> {
    let Op::Store { mode, client_flags, exptime } = packet.op else {
        unreachable!("the parser gives only stores a body");
    };
    let compare = (packet.cas != 0).then_some(packet.cas);
    let mode = match mode {
        // COMPAT(binary_add_with_cas): a cas makes one command of Set, Add and Replace.
        Mode::Add | Mode::Replace if compare.is_some() => Mode::Set,
        mode => mode,
    };
    let expires_at = context.shared.clock.expires_at(exptime.into());
    Order { client_flags, expires_at, compare, ..plain_order(mode, packet.key) }
}

fn spec<'a>(order: &Order<'a>) -> ItemSpec<'a> {
    ItemSpec {
        key: order.key,
        key_is_binary: order.key_is_binary,
        client_flags: order.client_flags,
        expires_at: order.expires_at,
    }
}

/// Carries out an order.
#[inline]
fn apply(order: &Order<'_>, value: Value<'_>, context: &Context<'_>) -> Done {
    let mut shard = context.lock(order.hash);
    if let Value::Bytes(bytes) = value
        && let Some(done) = rewrite(&mut shard, order, bytes, context)
    {
        drop(shard);
        context.counters.set_cmds.add(1);
        return done;
    }
    let new = match value {
        Value::Bytes(bytes) => shard.create(&spec(order), &[Part::Bytes(bytes)]),
        Value::Uploaded(upload) => Ok(shard.finish(upload)),
    };
    let done = match new {
        Ok(new) => place(&mut shard, order, new, context),
        Err(error) => return Done { outcome: refused(error), cas: 0, len: 0 },
    };
    drop(shard);
    context.counters.set_cmds.add(1);
    done
}

/// The common case: a set of an item that is there and has room, and nobody watches.
#[inline]
fn rewrite(shard: &mut Locked<'_>, order: &Order<'_>, value: &[u8], context: &Context<'_>) -> Option<Done> {
    let watched = context.shared.watch.wants(Streams::FETCHERS.with(Streams::MUTATIONS));
    if order.mode != Mode::Set || order.compare.is_some() || watched {
        return None;
    }
    let id = shard.rewrite(&spec(order), order.hash, value, order.cas)?;
    shard.count(id, ClassCounter::SetCmds);
    Some(Done { outcome: Outcome::Stored, cas: shard.item(id).cas(), len: value.len() })
}

/// Decides what becomes of the new item, and does it.
#[inline]
fn place(shard: &mut Locked<'_>, order: &Order<'_>, new: ItemId, context: &Context<'_>) -> Done {
    shard.count(new, ClassCounter::SetCmds);
    // COMPAT(cas_per_try): every store takes a number, also one that then stores nothing.
    let cas = Some(order.cas.unwrap_or_else(|| shard.next_cas()));
    let old = lookup(shard, order.key, order.hash, context).ok();
    let (outcome, stored) = match old {
        Some(old) => meet(shard, order, (old, new), cas, context),
        None => meet_nothing(shard, order, new, cas, context),
    };
    let id = stored.unwrap_or(new);
    let item = shard.item(id);
    let done = Done { outcome, cas: item.cas(), len: item.value_len() };
    if context.shared.watch.wants(Streams::MUTATIONS) {
        watch_store(shard, order, id, outcome, context);
    }
    match stored {
        Some(id) if id == new => {}
        _ => shard.abandon(new),
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
        (Fits::Stale, _) => {
            keep_stale(shard, old, new);
            shard.replace(old, new, order.hash, cas);
            (Outcome::Stored, Some(new))
        }
        (Fits::Yes, _) => {
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
enum Fits {
    Yes,
    No,
    /// It is newer, and the client wants its value stored as stale then.
    Stale,
}

/// 0 is no cas unique: it never fits, and neither does anything without cas (`-C`).
fn compare(shard: &Locked<'_>, order: &Order<'_>, old: ItemId) -> Fits {
    let cas = shard.item(old).cas();
    match order.compare {
        None => Fits::Yes,
        Some(given) if given == cas && given != 0 => Fits::Yes,
        Some(given) if order.invalidate && given < cas && given != 0 => Fits::Stale,
        Some(_) => Fits::No,
    }
}

fn count_cas(shard: &mut Locked<'_>, order: &Order<'_>, old: ItemId, fits: Fits, context: &Context<'_>) {
    if order.compare.is_none() {
        return;
    }
    match fits {
        Fits::Yes | Fits::Stale => {
            context.counters.cas_hits.add(1);
            shard.count(old, ClassCounter::CasHits);
        }
        Fits::No => {
            context.counters.cas_badval.add(1);
            shard.count(old, ClassCounter::CasBadval);
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
    match shard.create(&spec, &parts) {
        Ok(joined) => {
            shard.replace(old, joined, order.hash, cas);
            (Outcome::Stored, Some(joined))
        }
        Err(_) => (Outcome::NotStored, None),
    }
}

fn refused(error: AllocError) -> Outcome {
    match error {
        AllocError::TooLarge => Outcome::TooLarge,
        AllocError::NoMemory => Outcome::NoMemory,
    }
}

/// What a refusal for size or memory does besides answering: a plain set, and any ms, leaves no older value
/// behind that a client would take for the new one.
fn refuse_memory(header: &StoreHeader<'_>, order: &Order<'_>, outcome: Outcome, context: &Context<'_>) {
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
    if deletes {
        let mut shard = context.lock(order.hash);
        if let Ok(old) = lookup(&mut shard, order.key, order.hash, context) {
            shard.unlink(old, order.hash);
        }
    }
}

/// The answer to a refusal for size or memory.
fn memory_reply(header: &StoreHeader<'_>, outcome: Outcome) -> Option<Cow<'static, [u8]>> {
    let too_large = outcome == Outcome::TooLarge;
    match header {
        StoreHeader::Text(store) if store.quiet => None,
        StoreHeader::Text(_) | StoreHeader::Meta(_) => {
            Some(Cow::Borrowed(if too_large { TOO_LARGE } else { NO_MEMORY }))
        }
        StoreHeader::Binary(packet) => {
            let status = if too_large { Status::TooLarge } else { Status::NoMemory };
            Some(Cow::Owned(packet.refusal(status, status.text())))
        }
    }
}

// COMPAT(ms_q_bad_chunk): the q flag does not hide this one.
fn refuse_chunk(header: &StoreHeader<'_>, out: &mut Output) {
    match header {
        StoreHeader::Text(store) if store.quiet => {}
        _ => out.push(BAD_CHUNK),
    }
}

#[inline]
fn reply(header: &StoreHeader<'_>, done: &Done, key: &[u8], out: &mut Output) {
    match header {
        StoreHeader::Text(store) if store.quiet => {}
        StoreHeader::Text(_) => out.push(text_reply(done.outcome)),
        StoreHeader::Meta(command) => meta_reply(command, done, key, out),
        StoreHeader::Binary(packet) => binary_reply(packet, done, out),
    }
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

fn meta_reply(command: &Command<'_>, done: &Done, key: &[u8], out: &mut Output) {
    let code = match done.outcome {
        Outcome::Stored if command.quiet() => return,
        Outcome::Stored => b"HD",
        Outcome::Exists => b"EX",
        Outcome::NotFound => b"NF",
        _ => b"NS",
    };
    out.push(code);
    let cas = if done.outcome == Outcome::Stored { done.cas } else { 0 };
    for flag in command.flags.iter() {
        match flag[0] {
            b'k' => push_key_flag(key, command.flags.has(b'b'), out),
            b'O' => push_opaque(flag, out),
            b'c' => push_flag_number(b" c", cas, out),
            b's' => push_flag_number(b" s", done.len as u64, out),
            _ => {}
        }
    }
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

fn count_prefix_of(header: &StoreHeader<'_>, key: &[u8], context: &Context<'_>) {
    if !matches!(header, StoreHeader::Meta(_)) {
        count_prefix(key, PrefixEvent::Set, context);
    }
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

/// delete.
pub(crate) fn delete(key: &[u8], quiet: bool, context: &Context<'_>, out: &mut Output) {
    count_prefix(key, PrefixEvent::Delete, context);
    let hash = context.shared.store.hash(key);
    let mut shard = context.lock(hash);
    let found = lookup(&mut shard, key, hash, context).ok();
    if let Some(id) = found {
        remove(&mut shard, id, key, hash, "delete", context);
    }
    drop(shard);
    count_delete(found.is_some(), context);
    if !quiet {
        out.push(if found.is_some() { b"DELETED\r\n".as_slice() } else { b"NOT_FOUND\r\n" });
    }
}

fn remove(shard: &mut Locked<'_>, id: ItemId, key: &[u8], hash: Hash, cmd: &str, context: &Context<'_>) {
    shard.count(id, ClassCounter::DeleteHits);
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
pub(crate) fn meta_delete(command: &Command<'_>, context: &Context<'_>, out: &mut Output) {
    let mut buffer = None;
    let key = command.key(&mut buffer);
    let hash = context.shared.store.hash(key);
    let mut shard = context.lock(hash);
    let Ok(empty) = empty(&mut shard, key, command, context) else {
        out.push(b"SERVER_ERROR out of memory\r\n");
        return;
    };
    let (code, used) = match lookup(&mut shard, key, hash, context) {
        Ok(id) => meta_delete_item(&mut shard, id, empty, (key, hash), command, context),
        Err(_) => {
            count_delete(false, context);
            (b"NF", false)
        }
    };
    if let (Some(empty), false) = (empty, used) {
        shard.abandon(empty);
    }
    drop(shard);
    if code != b"HD" || !command.quiet() {
        out.push(code);
        push_key_and_opaque(command, key, out);
        out.push(b"\r\n");
    }
}

/// md `x`: the empty item for the old one's place, made before the old one is looked at.
fn empty(
    shard: &mut Locked<'_>,
    key: &[u8],
    command: &Command<'_>,
    context: &Context<'_>,
) -> Result<Option<ItemId>, AllocError> {
    let flags = &command.flags;
    if !flags.has(b'x') {
        return Ok(None);
    }
    let expires_at = context.shared.clock.expires_at(flags.ttl().unwrap_or(0).into());
    let spec = ItemSpec { key, key_is_binary: flags.has(b'b'), client_flags: flags.client_flags(), expires_at };
    shard.create(&spec, &[]).map(Some)
}

/// md on an item: its reply code, and whether `empty` was put in the item's place.
fn meta_delete_item(
    shard: &mut Locked<'_>,
    id: ItemId,
    empty: Option<ItemId>,
    (key, hash): (&[u8], Hash),
    command: &Command<'_>,
    context: &Context<'_>,
) -> (&'static [u8; 2], bool) {
    let flags = &command.flags;
    let cas = shard.item(id).cas();
    if flags.compare().is_some_and(|given| given != cas || given == 0) {
        count_delete(false, context);
        return (b"EX", false);
    }
    if empty.is_none() && !flags.has(b'I') {
        remove(shard, id, key, hash, "md", context);
        count_delete(true, context);
        return (b"HD", false);
    }
    // COMPAT(cas_beside_e): a number is taken even where the client names one, or the item keeps its own.
    let next = shard.next_cas();
    if let Some(empty) = empty {
        shard.replace(id, empty, hash, Some(flags.cas().unwrap_or(cas)));
    }
    if flags.has(b'I') {
        invalidate(shard, empty.unwrap_or(id), command, next, context);
    }
    (b"HD", empty.is_some())
}

/// md `I`: the next client that asks is told to renew it.
fn invalidate(shard: &mut Locked<'_>, id: ItemId, command: &Command<'_>, next_cas: u64, context: &Context<'_>) {
    if let Some(ttl) = command.flags.ttl() {
        shard.set_expires_at(id, context.shared.clock.expires_at(ttl.into()));
    }
    shard.set_cas(id, command.flags.cas().unwrap_or(next_cas));
    shard.set_stale(id, true);
    shard.set_win_sent(id, false);
}

/// Delete.
pub(crate) fn binary_delete(packet: &Packet<'_>, context: &Context<'_>, out: &mut Output) {
    count_prefix(packet.key, PrefixEvent::Delete, context);
    let hash = context.shared.store.hash(packet.key);
    let mut shard = context.lock(hash);
    let Ok(id) = lookup(&mut shard, packet.key, hash, context) else {
        drop(shard);
        count_delete(false, context);
        return respond(packet, Status::NotFound, out);
    };
    if packet.cas != 0 && packet.cas != shard.item(id).cas() {
        return respond(packet, Status::Exists, out);
    }
    shard.count(id, ClassCounter::DeleteHits);
    shard.unlink(id, hash);
    drop(shard);
    count_delete(true, context);
    respond_unless_quiet(packet, out);
}
