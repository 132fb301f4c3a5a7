//! Clients that work on few keys for as long as they are told to, and write down what they see.
//!
//! Each client is a thread with one connection. It goes on through everything: what it cannot reach it tries again.

use crate::client::{Client, Patience};
use crate::common::Rng;
use crate::history::{COUNTERS, Event, FOREVER, Op, Outcome, now};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two tries to connect.
const RETRY: Duration = Duration::from_millis(5);

/// Longest time in which clients wait for service that must come.
const SERVED_MAX: Duration = Duration::from_secs(30);

/// What clients do.
#[derive(Clone, Debug)]
pub struct Work {
    /// Where the shard is reached: one address that floats, or all.
    pub addresses: Vec<SocketAddr>,
    pub clients: u32,
    /// Keys that are set, and counters.
    pub keys: u32,
    pub counters: u32,
    /// Between two operations of a client.
    pub pause: Duration,
    pub patience: Patience,
    /// Before each key's number: another one begins a new history.
    pub prefix: String,
}

impl Work {
    /// What most tests do.
    pub fn at(addresses: &[SocketAddr], prefix: &str) -> Work {
        Work {
            addresses: addresses.to_vec(),
            clients: 6,
            keys: 24,
            counters: 4,
            pause: Duration::from_millis(2),
            patience: Patience::default(),
            prefix: prefix.to_owned(),
        }
    }

    /// The name of a key.
    pub fn key(&self, key: u32) -> String {
        format!("{}:{key}", self.prefix)
    }

    /// Keys and counters.
    pub fn all_keys(&self) -> impl Iterator<Item = u32> {
        (0..self.keys).chain(COUNTERS..COUNTERS + self.counters)
    }

    /// Makes the counters, at 0; then starts.
    pub fn start(&self, seed: u64) -> Workload {
        self.make_counters();
        let shared = Arc::new(Shared::default());
        let thread = |number: u32| {
            let (work, shared, rng) = (self.clone(), shared.clone(), Rng(seed ^ u64::from(number) << 40));
            let client = Client::new(&self.addresses, self.patience);
            let worker = Worker { number, work, client, rng, written: 0, events: Vec::new(), shared };
            std::thread::spawn(move || worker.run())
        };
        Workload { shared: shared.clone(), threads: (0..self.clients).map(thread).collect() }
    }

    fn make_counters(&self) {
        let mut client = Client::new(&self.addresses, self.patience);
        for counter in COUNTERS..COUNTERS + self.counters {
            crate::common::until("a counter is made", || {
                client.connect() && matches!(client.run(&self.key(counter), Op::Set(0)), Outcome::Answered(_))
            });
        }
    }

    /// Reads every key once, when all is calm again: the end of a history.
    pub fn read_all(&self) -> Vec<Event> {
        let client = Client::new(&self.addresses, self.patience);
        let (work, shared) = (self.clone(), Arc::default());
        let (rng, events) = (Rng(0), Vec::new());
        let mut reader = Worker { number: self.clients, work, client, rng, written: 0, events, shared };
        for key in self.all_keys() {
            crate::common::until("a key is read", || {
                reader.one(key, Op::Get).is_some_and(|outcome| matches!(outcome, Outcome::Answered(_)))
            });
        }
        reader.events
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Operations that were answered.
    answered: AtomicU64,
}

/// Clients at work; they stop when told to or dropped.
pub struct Workload {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Event>>>,
}

impl Workload {
    /// Operations answered so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    pub fn wait_for(&self, more: u64) {
        assert!(self.is_served(more), "clients are not served");
    }

    /// The same, and whether they were.
    pub fn is_served(&self, more: u64) -> bool {
        let (enough, end) = (self.answered() + more, Instant::now() + SERVED_MAX);
        while self.answered() < enough && Instant::now() < end {
            std::thread::sleep(RETRY);
        }
        self.answered() >= enough
    }

    /// Stops the clients. What they have seen.
    pub fn stop(mut self) -> Vec<Event> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        threads.into_iter().flat_map(|thread| thread.join().expect("a client failed")).collect()
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

struct Worker {
    number: u32,
    work: Work,
    client: Client,
    rng: Rng,
    written: u64,
    events: Vec<Event>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) -> Vec<Event> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let (key, op) = self.choose();
            self.client.speaks_meta = self.rng.one_in(2);
            let pause = if self.one(key, op).is_some() { self.work.pause } else { RETRY };
            std::thread::sleep(pause);
        }
        self.events
    }

    fn choose(&mut self) -> (u32, Op) {
        if self.work.counters > 0 && self.rng.one_in(8) {
            let op = if self.rng.one_in(3) { Op::Get } else { Op::Incr(1) };
            return (COUNTERS + self.rng.below(self.work.counters), op);
        }
        let key = self.rng.below(self.work.keys);
        // No other client, and this one never again, writes this number.
        self.written += 1;
        let new = u64::from(self.number + 1) << 40 | self.written;
        let op = match self.rng.below(20) {
            0..7 => Op::Get,
            7..13 => Op::Set(new),
            13..16 => Op::Delete,
            16 => Op::Add(new),
            _ => self.client.seen(&self.work.key(key)).map_or(Op::Get, |seen| Op::Cas { seen, new }),
        };
        (key, op)
    }

    /// Does one operation and writes it down, if there is a connection.
    fn one(&mut self, key: u32, op: Op) -> Option<Outcome> {
        if !self.client.connect() {
            return None;
        }
        let (server, start) = (self.client.server(), now());
        let outcome = self.client.run(&self.work.key(key), op);
        let end = now();
        if let Outcome::Answered(_) = outcome {
            self.shared.answered.fetch_add(1, Ordering::Relaxed);
        }
        let end = if outcome == Outcome::Unknown { FOREVER } else { end };
        self.events.push(Event { client: self.number, key, op, outcome, server, start, end });
        Some(outcome)
    }
}
