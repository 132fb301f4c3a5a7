//! What the machine itself holds up: a thread on the servers' CPU that does nothing but look at the clock, while another
//! keeps the load's CPU busy. A virtual machine whose CPUs are all busy is stopped by its host more often.
//!
//! ```text
//! look ── look ── look ───────────────── look ── look
//!                  `── longest gap ──────┘        by the clock: others ran, here or on the host below
//!                                                 by CPU time: interrupts, and what the host does without telling
//! ```
//!
//! It is run when no server is. A server cannot have shorter pauses than a thread that does nothing; what it has above
//! that may be its own.
//!
//! Not here: the pauses of a server (`time`).

use crate::server::{self, LOAD_CPU, SERVER_CPU};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use twincache::sys::cpu;

/// How long it is looked for.
const LONG: Duration = Duration::from_secs(3);

const MS: Duration = Duration::from_millis(1);

/// Gaps between looks.
#[derive(Debug, Default)]
struct Gaps {
    longest: Duration,
    /// Of more than a millisecond.
    long: u32,
}

impl Gaps {
    fn note(&mut self, gap: Duration) {
        self.longest = self.longest.max(gap);
        self.long += u32::from(gap > MS);
    }
}

/// What such a thread has seen.
#[derive(Debug)]
pub struct Hiccups {
    clock: Gaps,
    cpu: Gaps,
    seconds: f64,
    /// Share of the time that it was on the CPU.
    ran: f64,
}

impl Hiccups {
    /// Looks for some seconds.
    pub fn look() -> Result<Hiccups, String> {
        let load = std::thread::spawn(|| server::pin_thread(LOAD_CPU).map(|()| spin()));
        let thread = std::thread::spawn(|| server::pin_thread(SERVER_CPU).map(|()| spin()));
        let _ = load.join();
        thread.join().map_err(|_| "the thread that looks for hiccups panicked")?
    }

    /// A line about them.
    pub fn text(&self, when: &str) -> String {
        format!(
            "A thread that does nothing on the servers' CPU, {when}: longest gap {} us, {:.1} above 1 ms a second; by its \
             CPU time {} us and {:.1}; ran {:.1} % of the time",
            self.clock.longest.as_micros(),
            f64::from(self.clock.long) / self.seconds,
            self.cpu.longest.as_micros(),
            f64::from(self.cpu.long) / self.seconds,
            100.0 * self.ran,
        )
    }

    pub fn json(&self) -> Value {
        json!({
            "longest_us": self.clock.longest.as_micros() as u64,
            "above_1_ms_per_second": f64::from(self.clock.long) / self.seconds,
            "longest_cpu_us": self.cpu.longest.as_micros() as u64,
            "ran": self.ran,
        })
    }
}

fn spin() -> Hiccups {
    let (mut clock, mut cpu) = (Gaps::default(), Gaps::default());
    let began = (Instant::now(), cpu::thread_cpu_time());
    let mut last = began;
    while last.0 - began.0 < LONG {
        let now = (Instant::now(), cpu::thread_cpu_time());
        clock.note(now.0 - last.0);
        cpu.note(now.1 - last.1);
        last = now;
    }
    let seconds = (last.0 - began.0).as_secs_f64();
    Hiccups { clock, cpu, seconds, ran: (last.1 - began.1).as_secs_f64() / seconds }
}
