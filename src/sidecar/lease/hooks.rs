//! The operator's programs, which are told of promotions and demotions.
//!
//! ```text
//!   tell ──> pending ──> thread: /bin/sh -c CMD, one at a time ──> log
//! ```
//!
//! Invariants:
//!
//! - nobody waits for a program but its own thread;
//! - programs run one after the other, in the order in which they were told;
//! - what is pending when something newer comes need not run any more, except that the last demotion runs before
//!   the promotion that follows it: at most one of each is pending;
//! - a program has 30 s, then it and all that it has started in its process group are killed.

use crate::sidecar::options::AddressOptions;
use crate::sync::{lock, sound};
use crate::sys::process;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest time for one program.
const RUN_MAX: Duration = Duration::from_secs(30);

/// How often a program that runs is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much of the end of what a program writes to stderr is kept: the last line is logged.
const STDERR_MAX: usize = 1 << 10;

/// What a program is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HookCall {
    Promote(u64),
    Demote(u64),
}

/// The programs and their thread.
pub(super) struct Hooks {
    shared: Arc<HookQueue>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct HookQueue {
    calls: Mutex<HookCalls>,
    changed: Condvar,
}

#[derive(Default)]
struct HookCalls {
    pending: VecDeque<HookCall>,
    is_ended: bool,
}

/// What the programs are and what is always told to them.
struct HookRunner {
    options: AddressOptions,
    shard: String,
    node: String,
    longest: Duration,
}

impl Hooks {
    /// Starts the thread.
    pub(super) fn start(options: &AddressOptions, shard: &str, node: &str) -> io::Result<Hooks> {
        Hooks::start_with(options, shard, node, RUN_MAX)
    }

    fn start_with(options: &AddressOptions, shard: &str, node: &str, longest: Duration) -> io::Result<Hooks> {
        let shared = Arc::new(HookQueue::default());
        let runner = HookRunner { options: options.clone(), shard: shard.into(), node: node.into(), longest };
        let queue = Arc::clone(&shared);
        let run = move || {
            while let Some(call) = queue.take() {
                runner.run(call);
            }
        };
        let thread = std::thread::Builder::new().name("hooks".into()).spawn(run)?;
        Ok(Hooks { shared, thread })
    }

    /// Lets a program run, as soon as those before it have ended.
    pub(super) fn tell(&self, call: HookCall) {
        push(&mut lock(&self.shared.calls).pending, call);
        self.shared.changed.notify_one();
    }

    /// Nothing more will be told.
    pub(super) fn end(&self) {
        lock(&self.shared.calls).is_ended = true;
        self.shared.changed.notify_one();
    }

    /// Whether all has run, after the end.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// A demotion makes everything before it void, a promotion the promotion before it.
fn push(pending: &mut VecDeque<HookCall>, call: HookCall) {
    match call {
        HookCall::Demote(_) => pending.clear(),
        HookCall::Promote(_) => pending.retain(|old| matches!(old, HookCall::Demote(_))),
    }
    pending.push_back(call);
}

impl HookQueue {
    /// The next call, or None at the end.
    fn take(&self) -> Option<HookCall> {
        let mut calls = lock(&self.calls);
        loop {
            if let Some(call) = calls.pending.pop_front() {
                return Some(call);
            }
            if calls.is_ended {
                return None;
            }
            calls = sound(self.changed.wait(calls));
        }
    }
}

impl HookRunner {
    fn run(&self, call: HookCall) {
        let (option, program, role, epoch) = match call {
            HookCall::Promote(epoch) => ("--on-promote", &self.options.on_promote, "primary", epoch),
            HookCall::Demote(epoch) => ("--on-demote", &self.options.on_demote, "standby", epoch),
        };
        let Some(program) = program else { return };
        let begin = Instant::now();
        let ended = self.command(program, role, epoch).spawn().and_then(|child| end_of(child, self.longest));
        let ms = begin.elapsed().as_millis();
        match ended {
            Ok((Some(status), _)) if status.success() => log::info!("{option} for epoch {epoch}: done in {ms} ms"),
            Ok((Some(status), said)) => log::error!("{option} for epoch {epoch}: {status} after {ms} ms: {said}"),
            Ok((None, said)) => log::error!("{option} for epoch {epoch}: killed after {ms} ms: {said}"),
            Err(error) => log::error!("{option} for epoch {epoch}: {error}"),
        }
    }

    fn command(&self, program: &str, role: &str, epoch: u64) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", program]).process_group(0).stdin(Stdio::null()).stderr(Stdio::piped());
        command.env("TWINCACHE_SHARD", &self.shard).env("TWINCACHE_NODE", &self.node);
        command.env("TWINCACHE_ROLE", role).env("TWINCACHE_EPOCH", epoch.to_string());
        let vip = self.options.vip.as_ref().map(ToString::to_string);
        command.env("TWINCACHE_VIP", vip.unwrap_or_default());
        process::unblock_signals_for(&mut command);
        command
    }
}

/// Waits for a program, and kills it when it takes too long (None). What it said last.
fn end_of(mut child: Child, longest: Duration) -> io::Result<(Option<ExitStatus>, String)> {
    let end = Instant::now() + longest;
    let mut stderr = child.stderr.take().map(mio::unix::pipe::Receiver::from);
    if let Some(stderr) = &stderr {
        stderr.set_nonblocking(true)?;
    }
    let mut said = Vec::new();
    loop {
        let status = child.try_wait()?;
        // After its end, too: what it said last. What it has started may hold the pipe open, and is not waited for.
        if let Some(stderr) = &mut stderr {
            read_end(stderr, &mut said);
        }
        if status.is_some() {
            return Ok((status, last_line(&said)));
        }
        if Instant::now() >= end {
            process::kill_group(&child)?;
            child.wait()?;
            return Ok((None, last_line(&said)));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Reads what there is, and keeps the end of it.
fn read_end(from: &mut impl Read, into: &mut Vec<u8>) {
    let mut piece = [0; STDERR_MAX];
    // A bound: a program that writes for ever must not keep us from looking at the time.
    for _ in 0..64 {
        let Ok(n @ 1..) = from.read(&mut piece) else { return };
        into.extend_from_slice(&piece[..n]);
        into.drain(..into.len().saturating_sub(STDERR_MAX));
    }
}

fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing on stderr");
    line.trim().escape_debug().to_string()
}

#[cfg(test)]
#[path = "tests/hooks.rs"]
mod tests;
