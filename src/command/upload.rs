//! Stores whose values come in pieces: when they begin and end, and what becomes of those for which there is no memory.
//!
//! Not here: the pieces (`store/upload`, `net/conn/upload`), what a store does when its value is whole (`write`).

use super::write::{self, Order, Outcome, TAIL, Value, memory_refusal, refusal, refuse_memory, refused, spec};
use super::{Context, Next, Output};
use crate::protocol::binary::Status;
use crate::protocol::meta::KeyBuffer;
use crate::protocol::{Bad, StoreHeader};
use crate::stats::hot_keys::SampledKey;
use crate::store::{Hash, Upload};

const NO_MEMORY_READING: &[u8] = b"SERVER_ERROR Out of memory during read\r\n";

/// Whether a store request whose value of `len` bytes will arrive in pieces is to wait for memory before it begins.
pub fn must_wait(header: &StoreHeader<'_>, len: usize, context: &Context<'_>) -> bool {
    let mut buffer = None;
    let order = order_again(header, &mut buffer, context);
    context.shared.store.must_wait_for(order.hash, &spec(&order), len)
}

/// Begins a store request whose value of `len` bytes will arrive in pieces. On refusal `Bad::consumed` is 0
/// and `Bad::swallow` counts value and tail.
pub fn begin(header: &StoreHeader<'_>, len: usize, context: &Context<'_>) -> Result<Upload, Bad> {
    let mut buffer = None;
    let order = order_again(header, &mut buffer, context);
    let upload = context.shared.store.upload(order.hash, &spec(&order), len);
    upload.map_err(|error| {
        let outcome = refused(error);
        refuse_memory(header, &order, outcome, context);
        let tail = if matches!(header, StoreHeader::Binary(_)) { 0 } else { TAIL.len() };
        let reply = memory_refusal(header, outcome);
        Bad { consumed: 0, swallow: (len + tail) as u64, reply, close: false }
    })
}

/// Ends a store request that [`begin`] began; `tail` is what follows the value. What was received has counted already: only
/// [`Next::Join`] says something.
pub fn finish(header: &StoreHeader<'_>, upload: Upload, tail: &[u8], context: &Context<'_>, out: &mut Output) -> Next {
    let mut buffer = None;
    let hash = order_again(header, &mut buffer, context).hash;
    write::run(header, hash, Value::Uploaded(Box::new(upload)), tail, context, out)
}

/// Notes one whose value of so many bytes has come as a sample of what the worker is asked for.
#[cold]
pub fn sample_upload(header: &StoreHeader<'_>, bytes: usize, context: &Context<'_>) {
    let mut buffer = None;
    let order = order_again(header, &mut buffer, context);
    let sample = SampledKey { key: order.key, hash: order.hash.0, written: Some(bytes) };
    context.shared.sample(&sample, context.counters);
}

/// A large value ran out of chunks on its way in: what to answer when the rest (`left` bytes of value and
/// tail) has been swallowed.
pub fn out_of_memory(header: &StoreHeader<'_>, left: u64, context: &Context<'_>) -> Bad {
    let mut buffer = None;
    let order = order_again(header, &mut buffer, context);
    refuse_memory(header, &order, Outcome::NoMemory, context);
    let reply = refusal(header, NO_MEMORY_READING, Status::NoMemory, b"Out of memory during read");
    Bad { consumed: 0, swallow: left, reply, close: false }
}

/// The order of a store that takes several turns: its key is hashed each time that it is needed.
pub(super) fn order_again<'a>(
    header: &'a StoreHeader<'_>,
    buffer: &'a mut KeyBuffer,
    context: &Context<'_>,
) -> Order<'a> {
    let mut order = write::order(header, Hash(0), buffer, context);
    order.hash = context.shared.store.hash(order.key);
    order
}
