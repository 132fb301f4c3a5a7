//! What each worker counts.

use super::hot_keys::KeySampler;
use super::tally::CommandTally;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter with one writer. Readers may be a little late.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning thread may call this: it is a load and a store, not a locked add.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// The count since start.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One worker's counters. Padded so that two workers never share a cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            /// Commands since the worker last looked at the clock, by kind: for `latency`.
            pub commands: CommandTally,
            /// Looks at some of the keys: for `hot_keys`.
            pub keys: Arc<KeySampler>,
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The sum of all workers' counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Totals {
            /// Adds the counters of one worker.
            pub fn add(&mut self, counters: &Counters) {
                $(self.$name = self.$name.wrapping_add(counters.$name.get());)*
            }

            /// What was counted since an earlier moment.
            pub fn since(&self, base: &Totals) -> Totals {
                Totals { $($name: self.$name.wrapping_sub(base.$name),)* }
            }
        }
    };
}

counters! {
    /// Keys asked for by get, gets, mg and binary gets.
    get_cmds,
    /// Of those, found.
    get_hits,
    /// Of those, not found (expired and flushed ones included).
    get_misses,
    /// Misses because the item had expired.
    get_expired,
    /// Misses because the item had been flushed.
    get_flushed,
    /// Stores whose item was allocated.
    set_cmds,
    /// flush_all.
    flush_cmds,
    /// touch, gat, and mg with a new TTL.
    touch_cmds,
    /// Of those, found.
    touch_hits,
    /// Of those, not found.
    touch_misses,
    /// `me`.
    meta_cmds,
    /// delete: found.
    delete_hits,
    /// delete: not found.
    delete_misses,
    /// incr: found.
    incr_hits,
    /// incr: not found.
    incr_misses,
    /// decr: found.
    decr_hits,
    /// decr: not found.
    decr_misses,
    /// cas: stored.
    cas_hits,
    /// cas: no such key.
    cas_misses,
    /// cas: another value was there.
    cas_badval,
    /// Text and meta stores refused for their size.
    store_too_large,
    /// Text and meta stores refused for want of memory.
    store_no_memory,
    /// Bytes read from clients.
    bytes_read,
    /// Bytes written to clients.
    bytes_written,
    /// Times a connection gave way after `-R` requests.
    conn_yields,
    /// Connections closed for what they held of requests, as it was too much.
    read_buf_oom,
    /// Connections closed for replies that they did not read, as those were too much.
    response_obj_oom,
    /// Connections closed for being idle.
    idle_kicks,
    /// Replies to changes that waited for replicas.
    replies_held,
    /// Of those, answered with an error because it took too long.
    replies_timed_out,
    /// Of those, answered with an error because a replica refused the change.
    replies_refused,
    /// Attempts to log in.
    auth_cmds,
    /// Of those, in vain.
    auth_errors,
}
