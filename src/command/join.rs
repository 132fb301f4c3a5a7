//! Appends and prepends to large values, which go on for several turns.
//!
//! ```text
//! write ── long ──> Next::Join ──> Join::copy, in turns ──> end_join ── the key still has what was copied ──> reply
//!                       ^                                       │ else
//!                       └───────────────── long ────────────────┴── as if it had come now ── short ─────────> reply
//! ```
//!
//! So it takes place when it ends: whatever was done to the key meanwhile came before.
//!
//! Not here: the copying (`store/join`), whose turn it is (`net`), short ones (`write`).

use super::lookup::lookup;
use super::upload::order_again;
use super::write::{self, Done, Fits, Order, Outcome, put};
use super::{Context, Next, Output};
use crate::protocol::StoreHeader;
use crate::store::{Join, JoinPins, Locked, Upload};

/// Ends what copies no more.
pub fn end_join(header: &StoreHeader<'_>, join: Join, context: &Context<'_>, out: &mut Output) -> Next {
    let mut buffer = None;
    let order = order_again(header, &mut buffer, context);
    let (mut upload, pins) = join.end();
    let mut shard = context.lock(order.hash);
    let done = if shard.locate(order.key, order.hash) == Some(pins.old) && shard.death(pins.old).is_none() {
        let done = put_joined(&mut shard, &order, &pins, &mut upload, context);
        drop(shard);
        context.counters.set_cmds.add(1);
        Ok(done)
    } else {
        drop(shard);
        // Its memory may be needed for the next try.
        drop(upload.take());
        put(context.lock(order.hash), &order, pins.new, context)
    };
    drop((upload, pins));
    match done {
        Ok(done) => {
            write::answer(header, &order, done, context, out);
            Next::Continue
        }
        Err(join) => Next::Join(join),
    }
}

/// Does all of what is left of one, at once.
pub fn finish_join(header: &StoreHeader<'_>, mut join: Box<Join>, context: &Context<'_>, out: &mut Output) {
    loop {
        while !join.is_over() {
            if join.copy(usize::MAX) == 0 {
                std::thread::yield_now();
            }
        }
        match end_join(header, *join, context, out) {
            Next::Join(next) => join = next,
            _ => return,
        }
    }
}

/// As `write::place`, of what was copied already.
fn put_joined(
    shard: &mut Locked<'_>,
    order: &Order<'_>,
    pins: &JoinPins,
    upload: &mut Option<Upload>,
    context: &Context<'_>,
) -> Done {
    let JoinPins { old, new, .. } = *pins;
    // Watchers are told.
    let _ = lookup(shard, order.key, order.hash, context);
    shard.class_counters(new).cmd_set += 1;
    let cas = Some(order.cas.unwrap_or_else(|| shard.next_cas()));
    if write::compare(shard, order, old) != Fits::Yes {
        return write::done(shard, order, new, Outcome::Exists, context);
    }
    match upload.take().map(|upload| shard.finish(upload)) {
        Some(Ok(joined)) => {
            // It may have been touched meanwhile.
            let expires_at = shard.item(old).expires_at();
            shard.set_expires_at(joined, expires_at);
            shard.replace(old, joined, order.hash, cas);
            write::done(shard, order, joined, Outcome::Stored, context)
        }
        _ => write::done(shard, order, new, Outcome::NotStored, context),
    }
}
