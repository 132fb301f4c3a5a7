//! Appends and prepends; those to large values go on for several turns.
//!
//! ```text
//! run ──> at once, if that copies little, or its connection is in line (`Next::InLine`)
//!  └─ Next::Join ──> in line ── first ──> Join::copy, in turns ──> the key still has what was copied ──> reply
//!                                                 ^                       │ else
//!                                                 └───── TRIES times ─────┴── as if it had come now ───────> reply
//! ```
//!
//! So it takes place when it ends: whatever was done to the key meanwhile came before. There is one at a time that copies,
//! so that only short changes can come in between; who is late all the same, time and again, or has no memory to copy to,
//! is done at once, under the lock, as a short one is.
//!
//! Not here: the copying (`store/join`), when it goes on (`net`), what becomes of the new item (`write`).

use super::upload::order_again;
use super::write::{self, Done, Fits, Order, Outcome, Value};
use super::{Context, JOINED_MIN, Next, Output};
use crate::protocol::{Mode, StoreHeader};
use crate::store::{CopyPlace, Hash, ItemId, Join, Locked, Upload};

/// How often one copies before it is done under the lock.
const TRIES: u32 = 3;

/// An append or a prepend to a large value.
#[derive(Debug)]
pub struct LongJoin {
    state: JoinState,
    tries: u32,
    /// Its place in the line of those who copy. It is dropped last, when what was kept is nobody's any more.
    place: Option<CopyPlace>,
}

#[derive(Debug)]
enum JoinState {
    /// It waits; what is added has arrived in its chunks, or is in a buffer.
    Waits(Option<Box<Upload>>),
    Copies(Box<Join>),
    Over,
}

/// What a step has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// Others are before it.
    Waits,
    /// Its memory is not ready yet.
    WaitsForMemory,
    /// There is more to do.
    GoesOn,
    /// It is answered. This has copied so many bytes at most.
    Ends(usize),
}

/// Runs an append or a prepend, unless it is to copy so much that others come first.
#[inline(never)]
pub(super) fn run(
    header: &StoreHeader<'_>,
    hash: Hash,
    value: Value<'_>,
    tail: &[u8],
    context: &Context<'_>,
    out: &mut Output,
) -> Next {
    let mut buffer = None;
    let order = write::order(header, hash, &mut buffer, context);
    if write::is_broken(header, tail) {
        write::count(header, &order, context);
        return write::refuse_chunk(header, context, out);
    }
    let shard = context.lock(hash);
    let len = find_joined(&shard, &order, value.len()).map_or(0, |(_, len)| len);
    let is_bytes = matches!(value, Value::Bytes(_));
    if is_bytes && len <= context.joined_at_once && len > context.joined_in_turn() {
        return Next::InLine;
    }
    write::count(header, &order, context);
    match value {
        // It cannot be run again: what has arrived is in its chunks.
        Value::Uploaded(upload) if len > context.joined_in_turn() && !upload.is_scarce() => Next::Join(Some(upload)),
        Value::Bytes(_) if len > context.joined_at_once => Next::Join(None),
        value => {
            let done = write::apply(shard, &order, value, context);
            write::answer(header, &order, done, context, out);
            if len >= JOINED_MIN { Next::Spent(len) } else { Next::Continue }
        }
    }
}

/// The item to which an append or a prepend of `more` bytes adds, and how long that makes it. None: nothing is copied.
fn find_joined(shard: &Locked<'_>, order: &Order<'_>, more: usize) -> Option<(ItemId, usize)> {
    shard.find_to_join(order.key, order.hash, more).filter(|&(old, _)| write::compare(shard, order, old) == Fits::Yes)
}

impl LongJoin {
    /// What [`super::Next::Join`] asks for.
    pub fn new(added: Option<Box<Upload>>) -> LongJoin {
        added.iter().for_each(|upload| upload.keep());
        LongJoin { state: JoinState::Waits(added), tries: 0, place: None }
    }

    /// Whether nothing was done yet.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, JoinState::Waits(_))
    }

    /// Its place among those who copy, if it has one.
    pub fn place(&self) -> Option<&CopyPlace> {
        self.place.as_ref()
    }

    /// Bytes that are to be copied now.
    pub fn missing(&self) -> usize {
        if let JoinState::Copies(join) = &self.state { join.missing() } else { 0 }
    }

    /// Goes on, and copies `most` bytes of it at most. `added` is what is added, if that is in a buffer, as long as it waits.
    pub fn go_on(
        &mut self,
        header: &StoreHeader<'_>,
        added: &[u8],
        most: usize,
        context: &Context<'_>,
        out: &mut Output,
    ) -> JoinStep {
        if self.place.is_some() || !self.is_short(header, added, context) {
            let place = self.place.get_or_insert_with(|| context.shared.store.copy_place());
            if !place.is_first() {
                return JoinStep::Waits;
            }
        }
        let mut buffer = None;
        let mut order = order_again(header, &mut buffer, context);
        let done = match std::mem::replace(&mut self.state, JoinState::Over) {
            JoinState::Waits(upload) => {
                self.begin(&order, upload.map_or(Value::Bytes(added), Value::Uploaded), context)
            }
            JoinState::Copies(mut join) => {
                let copied = join.copy(most);
                if !join.is_over() {
                    self.state = JoinState::Copies(join);
                    return if copied == 0 { JoinStep::WaitsForMemory } else { JoinStep::GoesOn };
                }
                self.end(&mut order, *join, context)
            }
            JoinState::Over => unreachable!("it was answered"),
        };
        let Some(done) = done else { return JoinStep::GoesOn };
        write::answer(header, &order, done, context, out);
        JoinStep::Ends(done.len)
    }

    /// Whether it copies no more than is done at once: only others who move less came first.
    fn is_short(&self, header: &StoreHeader<'_>, added: &[u8], context: &Context<'_>) -> bool {
        let JoinState::Waits(upload) = &self.state else { return false };
        let more = upload.as_ref().map_or(added.len(), |upload| upload.value_len());
        let mut buffer = None;
        let order = order_again(header, &mut buffer, context);
        let found = find_joined(&context.lock(order.hash), &order, more);
        found.is_none_or(|(_, len)| len <= context.joined_in_turn())
    }

    fn begin(&mut self, order: &Order<'_>, value: Value<'_>, context: &Context<'_>) -> Option<Done> {
        let mut shard = context.lock(order.hash);
        match write::make(&mut shard, order, value) {
            Ok(new) => self.meet(shard, order, new, context),
            Err(error) => Some(Done { outcome: write::refused(error), cas: 0, len: 0 }),
        }
    }

    /// All is copied, or there was no memory for it.
    fn end(&mut self, order: &mut Order<'_>, join: Join, context: &Context<'_>) -> Option<Done> {
        let (mut upload, pins) = join.end();
        let mut shard = context.lock(order.hash);
        let is_same = shard.may_add() && shard.peek(order.key, order.hash) == Some(pins.old);
        if let Some(upload) = upload.take_if(|_| is_same) {
            // By the next look at it the old item may be dead: then what came of it is not stored.
            order.joined = shard.finish(upload).ok();
            return Some(put(shard, order, pins.new, context));
        }
        drop(shard);
        if upload.is_none() {
            self.tries = TRIES;
        }
        // Their memory may be needed.
        drop(upload);
        let new = pins.keep_new();
        self.meet(context.lock(order.hash), order, new.id(), context)
    }

    /// Begins to copy to what the key has now; or does all at once, if that is not long or others were faster too often.
    fn meet(&mut self, shard: Locked<'_>, order: &Order<'_>, new: ItemId, context: &Context<'_>) -> Option<Done> {
        let more = shard.item(new).value_len();
        let found = find_joined(&shard, order, more).filter(|&(_, len)| len > context.joined_in_turn());
        // Without a place it was short a moment ago.
        let Some((old, _)) = found.filter(|_| self.tries < TRIES && self.place.is_some()) else {
            return Some(put(shard, order, new, context));
        };
        self.tries += 1;
        match Join::new(shard, order.key, (old, new), order.mode == Mode::Append) {
            Ok(join) => {
                self.state = JoinState::Copies(Box::new(join));
                None
            }
            Err(new) => Some(put(context.lock(order.hash), order, new.id(), context)),
        }
    }
}

/// As [`write::put`], of an item that was perhaps made under another lock.
fn put(mut shard: Locked<'_>, order: &Order<'_>, new: ItemId, context: &Context<'_>) -> Done {
    if shard.may_add() {
        return write::put(shard, order, new, context);
    }
    shard.free(new);
    Done { outcome: Outcome::NoMemory, cas: 0, len: 0 }
}
