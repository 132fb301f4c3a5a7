//! incr, decr, ma, and the binary Increment and Decrement.
//!
//! A number is the decimal text of the value. The result takes the old text's place when it is not longer,
//! padded with blanks to the old length; else a new item of its exact length does.

use super::lookup::lookup;
use super::read::answer_item_flag;
use super::reply::{push_code, push_flags, respond, respond_text, response};
use super::{Context, JOINED_MIN, Next, Output};
use crate::protocol::binary::{Packet, Status};
use crate::protocol::meta::{LetterSet, MetaCommand};
use crate::protocol::token;
use crate::protocol::token::{DIGITS_MAX, decimal};
use crate::store::{AllocError, Hash, ItemId, ItemSpec, Locked, Part};
use crate::watch::{ItemStore, Streams};

/// The exptime of a binary request that must not create a missing item.
pub(crate) const NEVER_CREATE: u32 = u32::MAX;

/// What to add.
#[derive(Clone, Copy, Debug)]
struct Delta {
    incr: bool,
    by: u64,
    /// The cas unique that the item must have.
    compare: Option<u64>,
    /// The cas to give.
    cas: Option<u64>,
}

/// What to create when the key is missing.
#[derive(Clone, Copy, Debug)]
struct Initial {
    value: u64,
    expires_at: u32,
    key_is_binary: bool,
}

/// Why nothing was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArithError {
    NotFound,
    Exists,
    /// So many bytes were looked at.
    NonNumeric(usize),
    /// A grown number found no room.
    NoMemory,
    /// A missing item could not be created.
    NotCreated,
    /// It is so long that others come first.
    InLine,
}

/// What came of it.
struct ArithResult {
    id: ItemId,
    number: u64,
    /// The item was created for it.
    made: bool,
    /// Bytes of the value that was looked at.
    len: usize,
}

/// incr and decr.
pub(crate) fn text(
    (key, hash): (&[u8], Hash),
    incr: bool,
    by: u64,
    quiet: bool,
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let mut shard = context.lock(hash);
    let delta = Delta { incr, by, compare: None, cas: None };
    let result = run(&mut shard, (key, hash), delta, None, context);
    drop(shard);
    match &result {
        Err(ArithError::InLine) => {}
        _ if quiet => {}
        Ok(sum) => {
            out.push_number(sum.number);
            out.push(b"\r\n");
        }
        Err(refusal) => out.push(text_refusal(*refusal)),
    }
    next(&result)
}

/// What follows such a request.
fn next(result: &Result<ArithResult, ArithError>) -> Next {
    match result {
        Err(ArithError::InLine) => Next::InLine,
        &Ok(ArithResult { len, .. }) | &Err(ArithError::NonNumeric(len)) if len >= JOINED_MIN => Next::Spent(len),
        _ => Next::Continue,
    }
}

fn text_refusal(refusal: ArithError) -> &'static [u8] {
    match refusal {
        ArithError::NotFound => b"NOT_FOUND\r\n",
        ArithError::Exists => b"EXISTS\r\n",
        ArithError::NonNumeric(_) => b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
        ArithError::NoMemory => b"SERVER_ERROR out of memory\r\n",
        ArithError::NotCreated => b"SERVER_ERROR Out of memory allocating new item\r\n",
        ArithError::InLine => b"",
    }
}

/// ma.
pub(crate) fn meta(
    command: &MetaCommand<'_>,
    (key, hash): (&[u8], Hash),
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let delta = Delta { incr: !command.decr, by: command.delta(), compare: command.compare(), cas: command.cas() };
    let initial = command.vivify().is_some().then(|| Initial {
        value: command.initial(),
        // Its TTL comes when N's turn comes among the flags.
        expires_at: 0,
        // As with mg, see COMPAT(vivified_key).
        key_is_binary: command.has(b'b') && token::word_len(key) < key.len(),
    });
    let mut shard = context.lock(hash);
    let result = run(&mut shard, (key, hash), delta, initial, context);
    match &result {
        Ok(sum) => answer_meta(&mut shard, sum, command, key, context, out),
        Err(ArithError::NotFound) => {
            if command.has(b'T') {
                shard.invalidate_copies(key, command.has(b'b'), hash);
            }
            push_code(b"NF", command, key, out)
        }
        Err(ArithError::Exists) => push_code(b"EX", command, key, out),
        Err(refusal) => out.push(text_refusal(*refusal)),
    }
    next(&result)
}

/// Flags of ma that do or say something besides `k` and `O`.
const MA_FLAGS: LetterSet = LetterSet::of(b"TNtc");

fn answer_meta(
    shard: &mut Locked<'_>,
    sum: &ArithResult,
    command: &MetaCommand<'_>,
    key: &[u8],
    context: &Context<'_>,
    out: &mut Output,
) {
    let start = out.bytes.len();
    let mut buffer = [0; DIGITS_MAX];
    let digits = decimal(sum.number, &mut buffer);
    if command.has(b'v') {
        out.push(b"VA ");
        out.push_number(digits.len() as u64);
    } else {
        out.push(b"HD");
    }
    let key_is_base64 = shard.item(sum.id).key_is_binary() || command.has(b'b');
    push_flags(command, key, key_is_base64, MA_FLAGS, out, |letter, out| {
        answer_item_flag(shard, (sum.id, sum.made), letter, command, context, out);
    });
    out.push(b"\r\n");
    if command.has(b'v') {
        out.push(digits);
        out.push(b"\r\n");
    }
    if command.quiet() {
        out.bytes.truncate(start);
    }
}

/// Increment and Decrement; `create` is (initial value, exptime) where a missing item is to be created.
pub(crate) fn binary(
    packet: &Packet<'_>,
    hash: Hash,
    incr: bool,
    by: u64,
    create: Option<(u64, u32)>,
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let delta = Delta { incr, by, compare: (packet.cas != 0).then_some(packet.cas), cas: None };
    let initial = create.map(|(value, exptime)| Initial {
        value,
        expires_at: context.expires_at(exptime.into()),
        key_is_binary: false,
    });
    let mut shard = context.lock(hash);
    let result = run(&mut shard, (packet.key, hash), delta, initial, context);
    match &result {
        Err(ArithError::InLine) => {}
        Ok(_) if packet.quiet => {}
        &Ok(ArithResult { id, number, .. }) => {
            let cas = shard.item(id).cas();
            response(packet, Status::Ok, cas, b"", b"", size_of::<u64>()).encode(&mut out.bytes);
            out.push(&number.to_be_bytes());
        }
        Err(ArithError::NotFound) => respond(packet, Status::NotFound, out),
        Err(ArithError::Exists) => respond(packet, Status::Exists, out),
        Err(ArithError::NonNumeric(_)) => respond(packet, Status::NonNumeric, out),
        Err(ArithError::NoMemory) => respond_text(packet, Status::NoMemory, b"Out of memory incrementing value", out),
        Err(ArithError::NotCreated) => respond(packet, Status::NoMemory, out),
    }
    next(&result)
}

/// Adds, or creates what is missing: the item and its number.
fn run(
    shard: &mut Locked<'_>,
    (key, hash): (&[u8], Hash),
    delta: Delta,
    initial: Option<Initial>,
    context: &Context<'_>,
) -> Result<ArithResult, ArithError> {
    let counters = context.counters;
    match (lookup(shard, key, hash, context), initial) {
        (Ok(id), _) => {
            let item = shard.item(id);
            if item.value_len() > context.room.max(JOINED_MIN) && !item.is_chunked() {
                return Err(ArithError::InLine);
            }
            let sum = add(shard, id, (key, hash), delta)?;
            if delta.incr {
                counters.incr_hits.add(1)
            } else {
                counters.decr_hits.add(1)
            }
            Ok(sum)
        }
        (Err(_), Some(initial)) => {
            let id = create(shard, key, &initial).map_err(|_| ArithError::NotCreated)?;
            shard.link(id, hash, delta.cas);
            watch_create(shard, key, id, &initial, context);
            Ok(ArithResult { id, number: initial.value, made: true, len: 0 })
        }
        (Err(_), None) => {
            if delta.incr {
                counters.incr_misses.add(1)
            } else {
                counters.decr_misses.add(1)
            }
            Err(ArithError::NotFound)
        }
    }
}

/// Tells watchers what memcached does here: it looks the key up again and adds it.
fn watch_create(shard: &Locked<'_>, key: &[u8], id: ItemId, initial: &Initial, context: &Context<'_>) {
    let (watch, fd) = (&context.shared.watch, context.fd);
    if watch.wants(Streams::FETCHERS) {
        watch.item_get(key, "not_found", 0, fd, 0);
    }
    if watch.wants(Streams::MUTATIONS) {
        let (class, size) = (shard.item(id).class(), shard.item(id).value_len());
        let ttl = match initial.expires_at {
            0 => 0,
            second => i64::from(second.wrapping_sub(context.shared.clock.now())),
        };
        watch.item_store(&ItemStore { key, status: "stored", cmd: "add", ttl, class, fd, size });
    }
}

fn create(shard: &mut Locked<'_>, key: &[u8], initial: &Initial) -> Result<ItemId, AllocError> {
    let mut buffer = [0; DIGITS_MAX];
    let spec = ItemSpec { key, key_is_binary: initial.key_is_binary, client_flags: 0, expires_at: initial.expires_at };
    shard.create(&spec, &[Part::Bytes(decimal(initial.value, &mut buffer))])
}

fn add(
    shard: &mut Locked<'_>,
    id: ItemId,
    (key, hash): (&[u8], Hash),
    delta: Delta,
) -> Result<ArithResult, ArithError> {
    let item = shard.item(id);
    // COMPAT(no_number_in_chunks): a value in chained chunks is no number, whatever it says.
    // COMPAT(no_number_before_cas): that, and that it is empty, is found before the cas is compared.
    let value =
        item.value().filter(|value| !item.is_chunked() && !value.is_empty()).ok_or(ArithError::NonNumeric(0))?;
    if delta.compare.is_some_and(|given| given != item.cas() || given == 0) {
        return Err(ArithError::Exists);
    }
    let len = value.len();
    let old = token::stored_number(value).ok_or(ArithError::NonNumeric(len))?;
    let number = if delta.incr { old.wrapping_add(delta.by) } else { old.saturating_sub(delta.by) };
    let counters = shard.class_counters(id);
    *(if delta.incr { &mut counters.incr_hits } else { &mut counters.decr_hits }) += 1;
    let mut buffer = [0; DIGITS_MAX];
    let digits = decimal(number, &mut buffer);
    // COMPAT(cas_beside_e): a number is taken even where the client names one.
    let next = shard.next_cas();
    let cas = delta.cas.unwrap_or(next);
    let id = if overwrite(shard, id, digits) {
        shard.set_cas(id, cas);
        shard.set_accessed(id);
        id
    } else {
        renew(shard, id, (key, hash), digits, cas)?
    };
    Ok(ArithResult { id, number, made: false, len })
}

/// Writes the digits over the old text, when they fit and nobody reads it.
fn overwrite(shard: &mut Locked<'_>, id: ItemId, digits: &[u8]) -> bool {
    let len = shard.item(id).value_len();
    if digits.len() > len {
        return false;
    }
    let mut short = [b' '; DIGITS_MAX];
    short[..digits.len()].copy_from_slice(digits);
    if let Some(text) = short.get(..len) {
        return shard.overwrite(id, text);
    }
    let mut long = digits.to_vec();
    long.resize(len, b' ');
    shard.overwrite(id, &long)
}

/// Puts a new item with the digits in the place of the old one, its client flags and TTL kept.
fn renew(
    shard: &mut Locked<'_>,
    old: ItemId,
    (key, hash): (&[u8], Hash),
    digits: &[u8],
    cas: u64,
) -> Result<ItemId, ArithError> {
    let item = shard.item(old);
    let spec = ItemSpec {
        key,
        key_is_binary: item.key_is_binary(),
        client_flags: item.client_flags(),
        expires_at: item.expires_at(),
    };
    let new = shard.create(&spec, &[Part::Bytes(digits)]).map_err(|_| ArithError::NoMemory)?;
    // Making room may have evicted the old one.
    match shard.find(key, hash) {
        Ok(old) => shard.replace(old, new, hash, Some(cas)),
        Err(_) => shard.link(new, hash, Some(cas)),
    }
    Ok(new)
}
