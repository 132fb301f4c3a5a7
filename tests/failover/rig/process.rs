//! A program on a host, with a log of its own that outlives it.

use super::clock::Clock;
use crate::common::{Host, freeze, signal};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

/// A running program; killed when dropped.
pub struct Process {
    child: Child,
    is_frozen: bool,
}

impl Process {
    /// Starts a program; what it says goes to the end of this log. It may have a wall clock of its own.
    pub fn start(host: &Host, program: &str, words: &[String], log: &Path, clock: Option<&Clock>) -> Process {
        let log = File::options().create(true).append(true).open(log).expect("a log");
        let mut command = host.command(program);
        command.args(words).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.env("RUST_LOG", "info").env("RUST_BACKTRACE", "1");
        command.envs(clock.into_iter().flat_map(Clock::variables));
        let child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
        Process { child, is_frozen: false }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<String> {
        self.child.try_wait().expect("a child").map(|status| status.to_string())
    }

    /// kill -9, and waits.
    pub fn kill(mut self) {
        self.end();
    }

    /// Stops all its threads where they stand.
    pub fn freeze(&mut self) {
        freeze(self.pid());
        self.is_frozen = true;
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        if std::mem::take(&mut self.is_frozen) {
            signal(self.pid(), "CONT");
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// The last lines of every log in a folder.
pub fn last_lines(folder: &Path, count: usize) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| is_log(path)).collect();
    logs.sort();
    let mut text = String::new();
    for log in logs {
        let lines = String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = lines.lines().collect();
        let last = lines[lines.len().saturating_sub(count)..].join("\n");
        text.push_str(&format!("---- {} ({} lines)\n{last}\n", log.display(), lines.len()));
    }
    text
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}
