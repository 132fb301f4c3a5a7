//! Counters and the registry that sums them.
//!
//! ```text
//! worker i is the only writer of Counters i (padded, relaxed load + store, no locked instruction)
//! Registry: all Counters + gauges + the baseline of the last `stats reset`
//! a statistic = sum over workers - baseline
//! ```
//!
//! `stats reset` takes a baseline instead of writing zeros, so it needs no lock and loses no count.
//!
//! Not here: durations (`histogram`, `fine`, `event_loop`, `latency`), counts per prefix (`prefixes`), and keys that are hot (`hot_keys`), names on the wire and their order
//! (`command/admin/stats.rs`), what the store counts under its shard locks (`store`).

mod counters;
pub mod event_loop;
pub mod fine;
pub mod histogram;
pub mod hot_keys;
pub mod latency;
mod prefixes;
mod space_saving;
mod tally;

pub use counters::{Counter, Counters, Totals};
pub use prefixes::{PrefixEvent, PrefixWalk, Prefixes};
pub use tally::{CommandKind, CommandTally, Tallied};

use crate::sync::lock;
use crate::sys::cpu;
use event_loop::EventLoops;
use hot_keys::HotKeysMaker;
use latency::Latencies;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// State of one open connection, for `stats conns`. Written by its worker, read by any.
#[derive(Debug)]
pub struct ConnInfo {
    /// The file descriptor.
    pub fd: i32,
    /// The peer as `stats conns` prints it: `tcp:1.2.3.4:5`, `unix:…`.
    pub addr: String,
    /// The listening address, absent for listeners.
    pub listen_addr: Option<String>,
    /// What the connection is doing: an index into [`CONN_STATES`].
    pub state: AtomicU8,
    /// The clock's second of the last command.
    pub last_cmd: AtomicU32,
}

/// Names of connection states, as memcached prints them.
pub const CONN_STATES: [&str; 8] = [
    "conn_listening",
    "conn_read",
    "conn_parse_cmd",
    "conn_nread",
    "conn_swallow",
    "conn_mwrite",
    "conn_watch",
    "conn_closing",
];

/// Gauges and counters that belong to no worker.
#[derive(Debug, Default)]
pub struct Registry {
    workers: Mutex<Vec<Arc<Counters>>>,
    baseline: Mutex<Totals>,
    /// Open connections by file descriptor, listeners included.
    pub conns: Mutex<BTreeMap<i32, Arc<ConnInfo>>>,
    /// Open connections, listeners included.
    pub curr_conns: AtomicU64,
    /// Connections opened since start or the last reset.
    pub total_conns: AtomicU64,
    /// Connections refused because of `-c`.
    pub rejected_conns: AtomicU64,
    /// With `-N`: connections that came by no queue of a network card, and went to the next worker in turn.
    pub round_robin_fallback: AtomicU64,
    /// With `-N`: times that a queue was one too many for the workers.
    pub unexpected_napi_ids: AtomicU64,
    /// The most connections that were ever open at once.
    pub conn_structs: AtomicU64,
    /// Times accepting stopped for want of descriptors.
    pub listen_disabled: AtomicU64,
    /// Microseconds during which accepting was stopped.
    pub listen_disabled_us: AtomicU64,
    /// Whether accepting is stopped now.
    pub not_accepting: AtomicBool,
    /// Bytes of the workers' read buffers.
    pub read_buf_bytes: AtomicU64,
    /// Bytes that connections hold for input that is not a whole request yet.
    pub held_input: AtomicU64,
    /// How many do.
    pub held_inputs: AtomicU64,
    /// Bytes that connections hold for replies that are not read.
    pub held_output: AtomicU64,
    /// How many do.
    pub held_outputs: AtomicU64,
    /// Replies to changes that wait for replicas now.
    pub replies_waiting: AtomicU64,
    /// Prefix statistics (`stats detail`, `-D`).
    pub prefixes: Prefixes,
    /// How long the turns of the event loops take.
    pub event_loops: EventLoops,
    /// How long requests take.
    pub latencies: Latencies,
    /// Whether workers look at the keys that they are asked for. Set this before there are workers.
    pub samples_keys: AtomicBool,
    /// The keys that are asked for most.
    pub hot_keys: Arc<HotKeysMaker>,
}

impl Registry {
    /// Makes the counters of one more worker.
    pub fn worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        if self.samples_keys.load(Ordering::Relaxed) {
            counters.keys.start(RandomState::new().hash_one(0));
            self.hot_keys.add(counters.keys.clone());
        }
        lock(&self.workers).push(counters.clone());
        counters
    }

    /// The counters since start or the last reset.
    pub fn totals(&self) -> Totals {
        // The lock is taken before the sum: else a later baseline could be above the sum.
        let baseline = lock(&self.baseline);
        self.sum().since(&baseline)
    }

    /// `stats reset`, as far as it concerns this registry.
    pub fn reset(&self) {
        *lock(&self.baseline) = self.sum();
        self.total_conns.store(0, Ordering::Relaxed);
        self.rejected_conns.store(0, Ordering::Relaxed);
        self.round_robin_fallback.store(0, Ordering::Relaxed);
        self.unexpected_napi_ids.store(0, Ordering::Relaxed);
        self.listen_disabled.store(0, Ordering::Relaxed);
        self.listen_disabled_us.store(0, Ordering::Relaxed);
        self.prefixes.clear();
        self.event_loops.reset();
        self.latencies.reset();
    }

    fn sum(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in lock(&self.workers).iter() {
            totals.add(counters);
        }
        totals
    }
}

/// CPU time of this process so far: in user mode and in the kernel.
pub fn process_times() -> (Duration, Duration) {
    cpu::cpu_times()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_is_a_baseline() {
        let registry = Registry::default();
        let (a, b) = (registry.worker(), registry.worker());
        a.get_hits.add(3);
        b.get_hits.add(4);
        assert_eq!(registry.totals().get_hits, 7);
        registry.reset();
        assert_eq!(registry.totals().get_hits, 0);
        b.get_hits.add(1);
        assert_eq!(registry.totals().get_hits, 1);
    }
}
