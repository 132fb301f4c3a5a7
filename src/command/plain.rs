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
use super::{Context, Output, Wanted, read, write};
use crate::protocol::text;
use crate::store::{Hash, Store};

/// A plain request that is all of a connection's input.
#[derive(Clone, Copy, Debug)]
pub struct Lone<'a> {
    request: Request<'a>,
    hash: Hash,
}

impl<'a> Lone<'a> {
    /// The one that `input` is.
    #[inline]
    pub fn of(input: &'a [u8], store: &Store) -> Option<Lone<'a>> {
        let request = Request::parse(input).filter(|request| request.len() == input.len())?;
        Some(Lone { request, hash: store.hash(request.line.key) })
    }

    /// What it will need.
    #[inline]
    pub fn wanted(&self) -> Wanted {
        Wanted(self.hash)
    }

    /// Answers it.
    #[inline]
    pub fn run(&self, context: &Context<'_>, out: &mut Output) {
        self.request.run(self.hash, context, out);
    }
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests, at least one.
    pub requests: u32,
    /// Bytes of output, after which there is no further request.
    pub output: usize,
}

/// Runs the plain requests at the start of `input`, and returns the bytes and the number of those that were run. 0 may
/// as well mean that one is plain and not all of it has come.
#[inline]
pub fn run(input: &[u8], limits: Limits, context: &mut Context<'_>, out: &mut Output) -> (usize, u32) {
    if !text::may_be_plain(input) {
        return (0, 0);
    }
    match Request::parse(input) {
        // Nothing to gain from looking ahead.
        Some(only) if only.len() == input.len() => {
            only.run(context.shared.store.hash(only.line.key), context, out);
            (input.len(), 1)
        }
        Some(_) => run_batches(input, limits, context, out),
        None => (0, 0),
    }
}

/// Not inlined: where there is only one request, nothing of this large frame is touched.
#[inline(never)]
fn run_batches(input: &[u8], limits: Limits, context: &mut Context<'_>, out: &mut Output) -> (usize, u32) {
    let (mut used, mut left) = (0, limits.requests);
    let mut requests = [Request::default(); BATCH];
    let mut hashes = [(Hash(0), false); BATCH];
    while left > 0 && out.len() < limits.output {
        let most = BATCH.min(left as usize);
        let len = prepare(&input[used..], &mut requests[..most], &mut hashes, context);
        if len == 0 {
            break;
        }
        for (request, &(hash, _)) in requests.iter().zip(&hashes[..len]) {
            request.run(hash, context, out);
            used += request.len();
            left -= 1;
            if out.len() >= limits.output {
                break;
            }
        }
    }
    (used, limits.requests - left)
}

/// Parses and hashes the plain requests at the start of `input`, as many as fit, and starts to fetch what they need.
/// Returns how many there are.
#[inline]
fn prepare<'a>(
    input: &'a [u8],
    requests: &mut [Request<'a>],
    hashes: &mut [(Hash, bool); BATCH],
    context: &Context<'_>,
) -> usize {
    let store = &context.shared.store;
    let (mut at, mut len) = (0, 0);
    for (slot, hashed) in requests.iter_mut().zip(hashes.iter_mut()) {
        let Some(request) = Request::parse(&input[at..]) else { break };
        let hash = store.hash(request.line.key);
        store.prefetch(hash);
        *hashed = (hash, request.line.set.is_some());
        at += request.len();
        *slot = request;
        len += 1;
    }
    store.prefetch_items(&hashes[..len]);
    store.prefetch_around(&hashes[..len]);
    len
}

/// A plain request, all of which has come.
#[derive(Clone, Copy, Debug, Default)]
struct Request<'a> {
    line: text::Plain<'a>,
    /// Of a set, with the line end.
    value: &'a [u8],
}

impl<'a> Request<'a> {
    #[inline]
    fn parse(input: &'a [u8]) -> Option<Request<'a>> {
        let line = text::plain(input)?;
        let Some(set) = &line.set else { return Some(Request { line, value: b"" }) };
        let value = input[line.len..].get(..set.len as usize + 2)?;
        value.ends_with(b"\r\n").then_some(Request { line, value })
    }

    /// Its bytes.
    #[inline]
    fn len(&self) -> usize {
        self.line.len + self.value.len()
    }

    #[inline]
    fn run(&self, hash: Hash, context: &Context<'_>, out: &mut Output) {
        let key = self.line.key;
        match &self.line.set {
            None => read::plain_get(key, hash, context, out),
            Some(set) => write::plain_set(set, key, hash, &self.value[..set.len as usize], context, out),
        }
    }
}
