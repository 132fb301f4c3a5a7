//! A thread for each server, which asks it at each interval and leaves a row for the screen.
//!
//! ```text
//!   dial ──> stats, stats latency buckets, stats replication; of the chosen server: hotkeys, slabs, items
//!     ^         └──> TopRow ──> the slot                      … wait for the interval, ask again
//!     └── a pause <── away: why
//! ```
//!
//! Nobody waits for these threads: one that hangs on a name or a server ends with the process. What a memcached does not
//! know is asked once for each connection.
//!
//! Invariants: one slot a server, so that nothing queues up; replies have an end (`dial`).
//!
//! Not here: what rows are made of (`rates`).

use super::super::dial::{Dialed, ToldStats};
use super::super::exit::CtlExit;
use super::super::options::{DialOptions, TopOptions};
use super::latency::LatencyBuckets;
use super::rates::{TopRow, TopSample};
use crate::sync::lock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may say nothing before it is away.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// The pause before a server that was away is tried again: the interval, but not less than the first and not more than the second.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How soon a thread notices that the screen goes on or that another server was chosen.
const NAP: Duration = Duration::from_millis(50);

/// What the threads and the screen share.
#[derive(Debug)]
pub(super) struct TopBoard {
    slots: Vec<Mutex<TopSlot>>,
    interval: Duration,
    /// Grows with each new row.
    version: AtomicU64,
    is_paused: AtomicBool,
    /// The server whose details are asked for.
    chosen: AtomicUsize,
}

#[derive(Debug)]
struct TopSlot {
    row: TopRow,
    /// Looks and failures so far.
    looks: u64,
}

/// Details of every server, and not of the chosen one only.
pub(super) const ALL_CHOSEN: usize = usize::MAX;

impl TopBoard {
    /// Begins to look at these servers.
    pub(super) fn start(options: &TopOptions, chosen: usize) -> Result<Arc<TopBoard>, CtlExit> {
        let TopOptions { servers, interval, dial, .. } = options;
        let slot = |server: &String| Mutex::new(TopSlot { row: TopRow::new(server), looks: 0 });
        let board = Arc::new(TopBoard {
            slots: servers.iter().map(slot).collect(),
            interval: *interval,
            version: AtomicU64::new(0),
            is_paused: AtomicBool::new(false),
            chosen: AtomicUsize::new(chosen),
        });
        for (number, server) in servers.iter().enumerate() {
            let poller = TopPoller { board: board.clone(), number, server: server.clone(), dial: dial.clone() };
            let started = thread::Builder::new().name(format!("poll {number}")).spawn(move || poller.run());
            started.map_err(|error| CtlExit::not_done(&format!("a thread for {server}: {error}")))?;
        }
        Ok(board)
    }

    /// What is known of each, in the order in which they were given.
    pub(super) fn rows(&self) -> Vec<TopRow> {
        self.slots.iter().map(|slot| lock(slot).row.clone()).collect()
    }

    /// Grows with each new row.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether each server has been looked at so often, or has failed.
    pub(super) fn has_looks(&self, least: u64) -> bool {
        self.slots.iter().map(lock).all(|slot| slot.looks >= least || slot.row.trouble.is_some())
    }

    /// Tells the threads what the operator looks at.
    pub(super) fn choose(&self, server: usize, is_paused: bool) {
        self.chosen.store(server, Ordering::Relaxed);
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// From what waiting on there was a pause, of the screen or of the process, and rates would be of long ago.
    fn wait_max(&self) -> Duration {
        self.interval * 2 + Duration::from_secs(1)
    }

    fn put(&self, number: usize, row: TopRow) {
        let mut slot = lock(&self.slots[number]);
        slot.row = row;
        slot.looks += 1;
        drop(slot);
        self.version.fetch_add(1, Ordering::Release);
    }

    fn is_chosen(&self, number: usize) -> bool {
        [number, ALL_CHOSEN].contains(&self.chosen.load(Ordering::Relaxed))
    }
}

struct TopPoller {
    board: Arc<TopBoard>,
    number: usize,
    server: String,
    dial: DialOptions,
}

impl TopPoller {
    fn run(self) {
        loop {
            let dialed = Dialed::with_patience(&self.server, &self.dial, SILENCE_MAX);
            if let Err(exit) = dialed.and_then(|dialed| self.look(dialed)) {
                self.away(&exit);
            }
            self.wait(Instant::now() + self.board.interval.clamp(RETRY.0, RETRY.1), || false);
        }
    }

    /// Looks at a server until it is away.
    fn look(&self, dialed: Dialed) -> Result<(), CtlExit> {
        let mut asked = AskedServer { dialed, unknown: Vec::new() };
        let mut before = None;
        loop {
            let has_details = self.board.is_chosen(self.number);
            let now = asked.sample(has_details)?;
            self.board.put(self.number, TopRow::of(&self.server, before.as_ref(), &now));
            let due = now.at + self.board.interval;
            let waiting = Instant::now();
            // A server that is chosen shows its details at once, and rates as soon as there are two looks.
            self.wait(due, || !has_details && self.board.is_chosen(self.number));
            // A pause would count as one long interval.
            before = Some(now).filter(|_| waiting.elapsed() <= self.board.wait_max());
        }
    }

    fn away(&self, exit: &CtlExit) {
        let mut row = lock(&self.board.slots[self.number]).row.clone();
        let said = exit.reason();
        let said = said.strip_prefix(self.server.as_str()).and_then(|said| said.strip_prefix(": ")).unwrap_or(said);
        row.trouble = Some(said.to_owned());
        self.board.put(self.number, row);
    }

    /// Sleeps until then, or until there is a reason not to; and as long as the screen is paused.
    fn wait(&self, due: Instant, is_over: impl Fn() -> bool) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let is_paused = self.board.is_paused.load(Ordering::Relaxed);
            if is_over() || left.is_zero() && !is_paused {
                return;
            }
            thread::sleep(if is_paused { NAP } else { left.min(NAP) });
        }
    }
}

struct AskedServer {
    dialed: Dialed,
    /// Kinds of statistics that it does not have.
    unknown: Vec<&'static str>,
}

impl AskedServer {
    fn sample(&mut self, has_details: bool) -> Result<TopSample, CtlExit> {
        let general = self.dialed.stats("")?;
        let at = Instant::now();
        let latency = self.ask("latency buckets")?.map(|rows| LatencyBuckets::parse(&rows));
        let replication = self.ask("replication")?;
        let (mut hot_keys, mut slabs) = (None, None);
        if has_details {
            hot_keys = self.ask("hotkeys")?;
            slabs = self.ask("slabs")?;
            if let Some(slabs) = &mut slabs {
                slabs.extend(self.ask("items")?.unwrap_or_default());
            }
        }
        Ok(TopSample { at, general, latency, replication, hot_keys, slabs })
    }

    /// None if the server does not know what that is, or has no answer this time.
    fn ask(&mut self, what: &'static str) -> Result<Option<ToldStats>, CtlExit> {
        if self.unknown.contains(&what) {
            return Ok(None);
        }
        let told = self.dialed.try_stats(what)?;
        // A SERVER_ERROR is of this moment, such as that memory is short.
        if matches!(&told, Err(said) if said == "ERROR" || said.starts_with("CLIENT_ERROR")) {
            self.unknown.push(what);
        }
        Ok(told.ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    /// Looks twice at a server that gives these answers, one a request.
    fn looks(answers: [&'static str; 5]) -> [TopSample; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let requests = BufReader::new(stream.try_clone().unwrap()).lines();
            for (answer, _) in answers.into_iter().zip(requests) {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        let dialed = Dialed::with_patience(&address, &DialOptions::default(), SILENCE_MAX).unwrap();
        let mut asked = AskedServer { dialed, unknown: Vec::new() };
        let samples = [asked.sample(false).unwrap(), asked.sample(false).unwrap()];
        server.join().unwrap();
        samples
    }

    #[test]
    fn a_passing_error_is_not_remembered() {
        let end = "STAT a 1\r\nEND\r\n";
        let [first, second] = looks([end, "SERVER_ERROR out of memory\r\n", "ERROR\r\n", end, end]);
        assert!(first.latency.is_none() && second.latency.is_some());
        // What is unknown is not asked again.
        assert!(second.replication.is_none());
        let [_, second] = looks([end, "CLIENT_ERROR what\r\n", "SERVER_ERROR busy\r\n", end, end]);
        assert!(second.latency.is_none() && second.replication.is_some());
    }
}
