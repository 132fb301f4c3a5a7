//! The way of a request, of one or of many: cut, hash, prefetch, run.
//!
//! ```text
//!  input of A          input of B            (A, B: connections; one alone is a batch of one)
//!  get a | set b …     ms c … | half a …
//!    │       │           │        └─ End::Partial: B waits for the rest
//!    v       v           v
//!  cut: the parser of the protocol says what is asked, and where key and value lie; nothing is copied
//!  hash: the key, once ──> hint: fetch its bucket
//!  prefetch, when there are several: the items that the buckets lead to; for stores, their neighbours in the LRU
//!    │       │           │
//!    v       v           v
//!  run: one after the other, each replies to the end of one Output
//! ```
//!
//! Up to [`BATCH`] requests wait for memory together: alone, each would wait for its bucket and for its item, 0.3 us
//! each with a million items. What is run was cut and hashed once.
//!
//! Invariants:
//! - a batch holds whole requests only; what is not whole, or refused, ends the cut and is told by [`End`];
//! - cutting changes nothing: requests that were cut and not run are cut again another time;
//! - a request is run after all that stand before it in the input of its connection, and its reply stands behind theirs.
//!
//! Not here: what a verb does (`read`, `write`, …), what is left of an input (`net/conn/session`), who shares a batch
//! (`net/worker`).

use super::{Context, Next, Output, Shared, barred, run};
use crate::protocol;
use crate::protocol::{Bad, Cut, Parsed, Protocol};
use crate::stats::hot_keys::SampledKey;
use crate::stats::{CommandKind, Counters};
use crate::store::{AHEAD_MAX, Hash, Store};
use std::ops::Range;

/// Most requests in a batch: enough to overlap their cache misses, few enough that the first is still in the cache when
/// its turn comes.
pub const BATCH: usize = AHEAD_MAX;

/// A whole request.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// What is asked for.
    pub cut: Cut<'a>,
    /// Of its key.
    hash: Hash,
    /// The value, and what follows it.
    value: &'a [u8],
}

impl Prepared<'_> {
    /// Answers it.
    #[inline(always)]
    pub fn run(&self, context: &mut Context<'_>, out: &mut Output) -> Next {
        run::request(&self.cut.request, self.hash, (self.value, self.cut.body), context, out)
    }

    /// Notes it as a sample of what a worker is asked for. A multiget sees to that itself.
    #[cold]
    fn sample(&self, shared: &Shared, counters: &Counters) {
        let (request, mut buffer) = (&self.cut.request, None);
        let (key, is_write) = (request.key(&mut buffer), barred::changes_items(request));
        if key.is_empty() {
            return;
        }
        let written = is_write.then_some(self.cut.body);
        shared.sample(&SampledKey { key, hash: self.hash.0, written }, counters);
    }

    /// Answers it, unless it is one of those that have to wait while changes are held.
    #[cold]
    pub fn run_held(&self, context: &mut Context<'_>, out: &mut Output) -> Option<Next> {
        (!barred::changes_items(&self.cut.request)).then(|| self.run(context, out))
    }

    /// Answers it for a client that is barred.
    #[cold]
    pub fn run_barred(&self, context: &mut Context<'_>, out: &mut Output) -> Next {
        if context.shared.store.answers_reads() && barred::is_read(&self.cut.request) {
            context.reads_copy = true;
            let next = self.run(context, out);
            context.reads_copy = false;
            return next;
        }
        let Some(refusal) = barred::refusal(&self.cut.request, context.shared) else { return self.run(context, out) };
        if context.shared.store.was_primary_just_now() {
            return Next::Close;
        }
        context.count(CommandKind::Other);
        refusal.push_to(&mut out.bytes);
        Next::Continue
    }
}

/// Why no more requests were cut from an input.
#[derive(Debug)]
pub enum End<'a> {
    /// There are no more, or there is no room for more.
    Full,
    /// The next one is not whole, see [`Parsed::Partial`].
    Partial(usize),
    /// The next one is a store, some of whose value has not come.
    Value(Cut<'a>),
    /// The next one is refused.
    Bad(Bad),
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    requests: [Option<Prepared<'a>>; BATCH],
    len: usize,
}

impl<'a> Batch<'a> {
    /// How many there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.len
    }

    /// Whether no more can be added.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == BATCH
    }

    /// Cuts up to `most` requests at the start of `input`, of which the first `scanned` bytes hold no line feed, and adds
    /// them, as far as there is room.
    #[inline(always)]
    pub fn cut(
        &mut self,
        protocol: Protocol,
        mut input: &'a [u8],
        scanned: usize,
        most: usize,
        store: &Store,
    ) -> End<'a> {
        let (first, end) = (self.len, BATCH.min(self.len + most));
        while self.len < end && !input.is_empty() {
            // What most requests are is put where it stays at once, which saves 100 instructions.
            input = match protocol::parse_common(protocol, input) {
                Some(cut) if cut.size() <= input.len() => self.push(cut, input, store),
                Some(cut) => return End::Value(cut),
                None => match self.cut_any(protocol, &mut input, if self.len == first { scanned } else { 0 }, store) {
                    None => input,
                    Some(end) => return end,
                },
            };
        }
        End::Full
    }

    /// Cuts one request of any form.
    #[inline(never)]
    fn cut_any(&mut self, protocol: Protocol, input: &mut &'a [u8], scanned: usize, store: &Store) -> Option<End<'a>> {
        match protocol::parse(protocol, input, scanned) {
            Parsed::Request(cut) if cut.size() <= input.len() => *input = self.push(cut, input, store),
            Parsed::Request(cut) => return Some(End::Value(cut)),
            Parsed::Partial { need } => return Some(End::Partial(need)),
            Parsed::Bad(bad) => return Some(End::Bad(bad)),
        }
        None
    }

    /// Adds a request, all of which `input` begins with. What follows it.
    #[inline(always)]
    pub fn push(&mut self, cut: Cut<'a>, input: &'a [u8], store: &Store) -> &'a [u8] {
        let mut buffer = None;
        let hash = store.hash(cut.request.key(&mut buffer));
        store.prefetch(hash);
        let (bytes, rest) = input.split_at(cut.size());
        let value = &bytes[cut.head..];
        self.requests[self.len] = Some(Prepared { cut, hash, value });
        self.len += 1;
        rest
    }

    /// Starts to fetch what the requests will need, where that is worth it.
    #[inline]
    pub fn prefetch(&self, store: &Store) {
        if self.len > 1 {
            self.prefetch_items(store);
        }
    }

    /// Not inlined: of one request alone nothing of this frame is touched.
    #[inline(never)]
    fn prefetch_items(&self, store: &Store) {
        let mut keys = [(Hash(0), false); BATCH];
        for (key, prepared) in keys.iter_mut().zip(self.requests.iter().flatten()) {
            *key = (prepared.hash, prepared.cut.is_store());
        }
        store.prefetch_items(&keys[..self.len]);
        store.prefetch_around(&keys[..self.len]);
    }

    /// Looks at one of the requests now and then, to see which keys are asked for most.
    #[inline(always)]
    pub fn sample(&self, shared: &Shared, counters: &Counters) {
        if let Some(sampled) = counters.keys.due(self.len).and_then(|at| self.requests[at].as_ref()) {
            sampled.sample(shared, counters);
        }
    }

    /// Some of the requests.
    #[inline]
    pub fn requests(&self, range: Range<usize>) -> impl Iterator<Item = &Prepared<'a>> {
        self.requests[range].iter().flatten()
    }
}
