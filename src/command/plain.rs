//! Plain requests: get of one key, and set of a value that has come, as nearly every client sends them
//! ([`text::plain`]).
//!
//! ```text
//! get a | set b … | get c | …      parse and hash up to 16, fetch their buckets
//!   │        │        │            fetch their items, and around those to be set
//!   v        v        v            run each: nothing is parsed or hashed again
//! ```
//!
//! Whatever is not plain ends this, and goes the general way ([`super::run`], [`super::store`]). There each request is
//! parsed, hashed and run by itself after a glance ahead ([`super::ahead`]), and passes through the connection's state.
//! A pipelined get takes 460 instructions less here, a set 490.
//!
//! Invariant: what a request does and answers is the same as on the general way.

use super::ahead::BATCH;
use super::{Context, Output, read, write};
use crate::protocol::text::{self, Store};
use crate::store::Hash;

/// A plain request.
#[derive(Debug)]
enum Request<'a> {
    Get(&'a [u8]),
    Set(Store<'a>, &'a [u8]),
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests.
    pub requests: u32,
    /// Bytes of output, after which there is no further request.
    pub output: usize,
}

/// Runs the plain requests at the start of `input`, and returns the bytes and the number of those that were run. 0 may
/// as well mean that one is plain and not all of it has come.
#[inline(never)]
pub fn run(input: &[u8], limits: Limits, context: &mut Context<'_>, out: &mut Output) -> (usize, u32) {
    let (mut used, mut count) = (0, 0);
    while count < limits.requests
        && out.len() < limits.output
        && let Some((first, len)) = parse(&input[used..])
    {
        if used + len == input.len() {
            // Alone, or the last: nothing to gain from looking ahead.
            first.run(context.shared.store.hash(first.key()), context, out);
            return (input.len(), count + 1);
        }
        let most = BATCH.min((limits.requests - count) as usize);
        let batch = Batch::new(first, len, &input[used..], most, context);
        let (n, requests) = batch.run(limits.output, context, out);
        used += n;
        count += requests;
    }
    (used, count)
}

#[inline]
fn parse(input: &[u8]) -> Option<(Request<'_>, usize)> {
    match text::plain(input)? {
        (text::Plain::Get(key), len) => Some((Request::Get(key), len)),
        (text::Plain::Set(set, value_len), head) => {
            let value = input[head..].get(..value_len + 2)?.strip_suffix(b"\r\n")?;
            Some((Request::Set(set, value), head + value_len + 2))
        }
    }
}

impl Request<'_> {
    #[inline]
    fn key(&self) -> &[u8] {
        match self {
            Request::Get(key) => key,
            Request::Set(set, _) => set.key,
        }
    }

    #[inline]
    fn run(&self, hash: Hash, context: &mut Context<'_>, out: &mut Output) {
        match self {
            Request::Get(key) => read::plain_get(key, hash, context, out),
            Request::Set(set, value) => write::plain_set(set, hash, value, context, out),
        }
    }
}

/// Requests whose items are on their way into the cache.
struct Batch<'a> {
    /// With their bytes; as many as there are hashes.
    requests: [Option<(Request<'a>, usize)>; BATCH],
    /// And whether it is a set.
    hashes: [(Hash, bool); BATCH],
    len: usize,
}

impl<'a> Batch<'a> {
    /// `first` and its bytes, and up to `most` in all from the start of `input`.
    #[inline]
    fn new(first: Request<'a>, len: usize, input: &'a [u8], most: usize, context: &Context<'_>) -> Batch<'a> {
        let store = &context.shared.store;
        let mut batch = Batch { requests: [const { None }; BATCH], hashes: [(Hash(0), false); BATCH], len: 0 };
        let (mut next, mut at) = (Some((first, len)), 0);
        while let Some((request, len)) = next {
            let hash = store.hash(request.key());
            store.prefetch(hash);
            batch.hashes[batch.len] = (hash, matches!(request, Request::Set(..)));
            batch.requests[batch.len] = Some((request, len));
            batch.len += 1;
            at += len;
            next = if batch.len < most { parse(&input[at..]) } else { None };
        }
        store.prefetch_items(&batch.hashes[..batch.len]);
        batch
    }

    /// Runs them until there is so much output; the bytes and the number of those that were run.
    #[inline]
    fn run(&self, output: usize, context: &mut Context<'_>, out: &mut Output) -> (usize, u32) {
        let (mut used, mut count) = (0, 0);
        for (request, &(hash, _)) in self.requests.iter().zip(&self.hashes[..self.len]) {
            let Some((request, len)) = request else { break };
            request.run(hash, context, out);
            used += len;
            count += 1;
            if out.len() >= output {
                break;
            }
        }
        (used, count)
    }
}
