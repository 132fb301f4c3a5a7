//! How long the machine lets nobody run: some expectations hold only while processes get their turns.
//!
//! ```text
//!   a round that went as expected           done, whatever the machine did
//!   a round that did not, and no long gap   a failure
//!   a round that did not, and a long gap    says nothing about the programs: once more, a few times
//! ```
//!
//! A lease of a second with an etcd that stands still for 200 ms leaves less than half a second for everything else, which
//! several processes do one after the other. Where that passes without a turn, the owner has to fall silent, and somebody else to take over. Threads that sleep for a
//! millisecond at a time see such gaps; they have the same right to run as the programs.
//!
//! What must hold in any case (`checks`, `linear`) is not asked here: no gap excuses it.

use crate::rig::Cluster;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds that may be spoilt.
const ROUNDS_MAX: u32 = 10;

/// How long the threads sleep at a time.
const NAP: Duration = Duration::from_millis(1);

/// A gap in which an owner can lose a lease of a second: etcd's stalls, and the pause between renewals, come on top.
pub const GAP: Duration = Duration::from_millis(150);

/// Runs rounds until one goes as it should. `long` is the gap that excuses one that did not.
pub fn unless_starved(long: Duration, mut round: impl FnMut() -> Result<(), String>) {
    for number in 1..=ROUNDS_MAX {
        let gaps = Gaps::start();
        let Err(why) = round() else { return };
        let longest = gaps.longest();
        assert!(longest >= long, "{why}\nand nobody had to wait for longer than {longest:.0?}");
        println!("round {number} is spoilt, the machine let nobody run for {longest:.0?}: {why}");
    }
    panic!("the machine has spoilt all of {ROUNDS_MAX} rounds: it has too much else to do");
}

/// As [`unless_starved`], with a cluster: does something to it, and the owner remains the owner, without a break.
pub fn stays(cluster: &mut Cluster, way: impl Fn(&mut Cluster, usize)) {
    unless_starved(GAP, || {
        let (owner, epochs) = (cluster.wait_calm(), cluster.owners().len());
        way(cluster, owner);
        let after = (cluster.wait_primary(), cluster.owners().len());
        let is_same = after == (owner, epochs);
        if !is_same {
            cluster.mend();
        }
        is_same.then_some(()).ok_or(format!("{after:?}, and {:?} before", (owner, epochs)))
    });
}

/// Threads that see how late they are, one for each core.
pub struct Gaps {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Duration>>,
}

impl Gaps {
    /// Begins to look.
    pub fn start() -> Gaps {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let look = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || longest_until(&stop))
        };
        Gaps { threads: (0..cores).map(look).collect(), stop }
    }

    /// The longest that a thread was late.
    pub fn longest(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).map(|thread| thread.join().expect("it only sleeps")).max().unwrap_or_default()
    }
}

impl Drop for Gaps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn longest_until(stop: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        std::thread::sleep(NAP);
        longest = longest.max(began.elapsed().saturating_sub(NAP));
    }
    longest
}
