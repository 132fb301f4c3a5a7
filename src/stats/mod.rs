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
//! Not here: durations (`stats/turns`), names on the wire and their order (`command/stats.rs`), what the store counts under its
//! shard locks (`store`).

pub mod event_loop;

use crate::sys::cpu;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Prefixes counted at most: a client that makes them up cannot fill the memory.
const PREFIXES_MAX: usize = 65536;

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
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The sum of all workers' counters at one moment.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Totals {
            fn add(&mut self, counters: &Counters) {
                $(self.$name = self.$name.wrapping_add(counters.$name.get());)*
            }

            fn since(&self, base: &Totals) -> Totals {
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
    /// Connections closed for being idle.
    idle_kicks,
    /// Replies to changes that waited for replicas.
    replies_held,
    /// Of those, answered with an error because it took too long.
    replies_timed_out,
    /// Of those, answered with an error because a replica refused the change.
    replies_refused,
}

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
    pub state: std::sync::atomic::AtomicU8,
    /// The clock's second of the last command.
    pub last_cmd: std::sync::atomic::AtomicU32,
    /// Whose changes come by it.
    pub feeder: Feeder,
}

/// What `replica from` has said on a connection, and on those after it.
#[derive(Debug, Default)]
pub struct Feeder {
    run_id: AtomicU64,
    is_over: AtomicBool,
}

impl Feeder {
    /// Whether another connection has taken over: nothing of this one is run any more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Whether it has said anything: then another connection may take over between any two requests.
    #[inline]
    pub fn has_spoken(&self) -> bool {
        self.run_id.load(Ordering::Relaxed) != 0
    }
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
    pub conns: Mutex<std::collections::BTreeMap<i32, Arc<ConnInfo>>>,
    /// Open connections, listeners included.
    pub curr_conns: AtomicU64,
    /// Connections opened since start or the last reset.
    pub total_conns: AtomicU64,
    /// Connections refused because of `-c`.
    pub rejected_conns: AtomicU64,
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
    /// Replies to changes that wait for replicas just now.
    pub replies_waiting: AtomicU64,
    /// Prefix statistics (`stats detail`, `-D`).
    pub prefixes: Prefixes,
    /// How long the event loops' turns take.
    pub turns: event_loop::Turns,
}

impl Registry {
    /// Makes the counters of one more worker.
    pub fn worker(&self) -> Arc<Counters> {
        let counters = Arc::new(Counters::default());
        self.workers.lock().unwrap().push(counters.clone());
        counters
    }

    /// Notes that the changes of the server with this run come by connection `fd`. What still arrives by another one
    /// is older: a connection that a killed sidecar has left may hold some megabytes.
    pub fn feed_by(&self, fd: i32, run_id: u64) {
        let conns = self.conns.lock().unwrap();
        let Some(own) = conns.get(&fd) else { return };
        if own.feeder.run_id.swap(run_id, Ordering::Relaxed) == run_id {
            return;
        }
        let others = conns.values().filter(|other| other.fd != fd);
        let older = others.filter(|other| other.feeder.run_id.load(Ordering::Relaxed) == run_id);
        older.for_each(|other| other.feeder.is_over.store(true, Ordering::Relaxed));
    }

    /// The counters since start or the last reset.
    pub fn totals(&self) -> Totals {
        // Locked before it is summed: a later baseline would be above the sum.
        let baseline = self.baseline.lock().unwrap();
        self.sum().since(&baseline)
    }

    /// `stats reset`, as far as it concerns this registry.
    pub fn reset(&self) {
        *self.baseline.lock().unwrap() = self.sum();
        self.total_conns.store(0, Ordering::Relaxed);
        self.rejected_conns.store(0, Ordering::Relaxed);
        self.listen_disabled.store(0, Ordering::Relaxed);
        self.listen_disabled_us.store(0, Ordering::Relaxed);
        self.prefixes.clear();
        self.turns.reset();
    }

    fn sum(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in self.workers.lock().unwrap().iter() {
            totals.add(counters);
        }
        totals
    }
}

/// Counts per key prefix: the part of a key before the first delimiter. Keys without one are not counted.
#[derive(Debug)]
pub struct Prefixes {
    enabled: AtomicBool,
    delimiter: AtomicU8,
    counts: Mutex<HashMap<Box<[u8]>, PrefixCounts>>,
}

/// What happened to a key, for [`Prefixes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixEvent {
    /// A lookup that found nothing.
    Miss,
    /// A lookup that found the item.
    Hit,
    /// A store.
    Set,
    /// A delete.
    Delete,
}

impl Prefixes {
    /// Whether prefixes are counted.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// `stats detail on|off`.
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Ordering::Relaxed);
    }

    /// `-D`. Call before anything is counted.
    pub fn set_delimiter(&self, delimiter: u8) {
        self.delimiter.store(delimiter, Ordering::Relaxed);
    }

    /// Counts one event. Call only while [`Prefixes::enabled`].
    pub fn count(&self, key: &[u8], event: PrefixEvent) {
        let Some(end) = memchr::memchr(self.delimiter.load(Ordering::Relaxed), key) else { return };
        let prefix = &key[..end];
        let mut counts = self.counts.lock().unwrap();
        if let Some(count) = counts.get_mut(prefix) {
            count.add(event);
        } else if counts.len() < PREFIXES_MAX {
            counts.entry(prefix.into()).or_default().add(event);
        }
    }

    /// Forgets all counts.
    pub fn clear(&self) {
        self.counts.lock().unwrap().clear();
    }

    /// Appends the lines of `stats detail dump`, without the last one, in order of prefixes.
    pub fn dump(&self, out: &mut Vec<u8>) {
        let counts = self.counts.lock().unwrap();
        let mut lines: Vec<_> = counts.iter().collect();
        lines.sort_unstable_by_key(|(prefix, _)| *prefix);
        for (prefix, PrefixCounts { gets, hits, sets, deletes }) in lines {
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            out.extend_from_slice(format!(" get {gets} hit {hits} set {sets} del {deletes}\r\n").as_bytes());
        }
    }
}

impl Default for Prefixes {
    fn default() -> Prefixes {
        Prefixes { enabled: AtomicBool::new(false), delimiter: AtomicU8::new(b':'), counts: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct PrefixCounts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

impl PrefixCounts {
    fn add(&mut self, event: PrefixEvent) {
        match event {
            PrefixEvent::Miss => self.gets += 1,
            PrefixEvent::Hit => (self.gets, self.hits) = (self.gets + 1, self.hits + 1),
            PrefixEvent::Set => self.sets += 1,
            PrefixEvent::Delete => self.deletes += 1,
        }
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

    #[test]
    fn prefixes_are_counted() {
        let prefixes = Prefixes::default();
        for key in ["a:b", "a:c:d", "none", ":x", "b:"] {
            prefixes.count(key.as_bytes(), PrefixEvent::Set);
        }
        prefixes.count(b"a:b", PrefixEvent::Hit);
        prefixes.count(b"a:b", PrefixEvent::Miss);
        prefixes.count(b"a:b", PrefixEvent::Delete);
        assert_eq!(
            dump(&prefixes),
            "PREFIX  get 0 hit 0 set 1 del 0\r\nPREFIX a get 2 hit 1 set 2 del 1\r\nPREFIX b get 0 hit 0 set 1 del 0\r\n"
        );
        prefixes.clear();
        prefixes.set_delimiter(b'/');
        prefixes.count(b"a:b/c", PrefixEvent::Miss);
        assert_eq!(dump(&prefixes), "PREFIX a:b get 1 hit 0 set 0 del 0\r\n");
    }

    #[test]
    fn prefixes_are_bounded() {
        let prefixes = Prefixes::default();
        for n in 0..PREFIXES_MAX + 10 {
            prefixes.count(format!("{n}:").as_bytes(), PrefixEvent::Set);
        }
        prefixes.count(b"0:", PrefixEvent::Set);
        let dump = dump(&prefixes);
        assert_eq!(dump.lines().count(), PREFIXES_MAX);
        assert!(dump.contains("PREFIX 0 get 0 hit 0 set 2 del 0\r\n"));
    }

    fn dump(prefixes: &Prefixes) -> String {
        let mut out = Vec::new();
        prefixes.dump(&mut out);
        String::from_utf8(out).unwrap()
    }
}
