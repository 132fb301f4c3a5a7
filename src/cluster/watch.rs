//! A stream of the changes under a prefix.
//!
//! ```text
//!   watch ──> open: POST, the answer stays open ──> {"created"} ──> {"events"} … ──> on_event
//!               ^                                                       |
//!               +<─── nothing for as long as `idle`, or it is old <────+
//! ```
//!
//! etcd says nothing while nothing changes (its progress reports are ten minutes apart), so silence may be peace, or a
//! peer that is gone. After `idle` the stream is opened anew from where it was, and etcd must confirm that within
//! `idle`: a dead peer is noticed after at most twice that time, and no change is missed.
//!
//! Invariants: changes come in the order of their revisions, each once; a line is no longer than an answer.

use super::error::EtcdError;
use super::etcd::{Etcd, Versioned, named};
use super::transport::{ANSWER_MAX, Patience};
use super::wire::{Int64, WatchAnswer, WatchCreate, WatchLine, WatchRequest, WireEvent, end_of};
use std::io::{BufRead, BufReader, Read};
use std::time::Duration;
use ureq::BodyReader;

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A key was put, or deleted.
    Changed {
        /// The key.
        key: String,
        /// The revision of the change.
        revision: i64,
        /// What is there now; None: deleted.
        value: Option<Versioned>,
    },
    /// etcd is there, and every change up to this revision was told: comes when the stream is opened (at least once in
    /// twice `idle`) and after the changes of a batch. A watch that failed goes on from the next revision.
    UpTo(i64),
}

/// How a watch ends without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEnd {
    /// `on_event` said so.
    Stopped,
    /// Changes were forgotten before they could be told, or etcd was put back to an older revision; what is there now
    /// must be listed, and watched from the revision after that.
    Compacted,
}

/// How a line, or a stream, went.
enum Onward {
    More,
    Reopen,
    End(WatchEnd),
}

/// A watch between two revisions.
struct WatchStream<'a, F> {
    etcd: &'a mut Etcd,
    prefix: &'a str,
    /// The first revision that was not told.
    from: i64,
    idle: Duration,
    on_event: F,
    /// When the stream was opened last, etcd was not as far as what was told.
    was_behind: bool,
}

impl Etcd {
    /// Tells the changes under a prefix from a revision on, until `on_event` gives false. Blocks; see [`WatchEvent`].
    pub fn watch(
        &mut self,
        prefix: &str,
        from: i64,
        idle: Duration,
        on_event: impl FnMut(WatchEvent) -> bool,
    ) -> Result<WatchEnd, EtcdError> {
        let mut stream = WatchStream { etcd: self, prefix, from, idle, on_event, was_behind: false };
        loop {
            if let Onward::End(end) = stream.run()? {
                return Ok(end);
            }
        }
    }
}

impl<F: FnMut(WatchEvent) -> bool> WatchStream<'_, F> {
    /// Opens the stream and reads it as long as it is good.
    fn run(&mut self) -> Result<Onward, EtcdError> {
        let create =
            WatchCreate { key: self.prefix.into(), range_end: end_of(self.prefix), start_revision: Int64(self.from) };
        let request = WatchRequest { create_request: create };
        let response = self.etcd.transport.open("/v3/watch", &request, Patience::Idle(self.idle))?;
        let mut lines = BufReader::new(response.into_body().into_reader());
        let mut is_created = false;
        let mut line = Vec::new();
        loop {
            line.clear();
            match read_line(&mut lines, &mut line) {
                Ok(true) => {}
                Ok(false) => return Err(self.broken("the watch was closed")),
                Err(error) if is_created && line.is_empty() && is_timeout(&error) => return Ok(Onward::Reopen),
                Err(error) => return Err(self.broken(&error.to_string())),
            }
            match self.line(&line, &mut is_created)? {
                Onward::More => {}
                next => return Ok(next),
            }
        }
    }

    fn line(&mut self, line: &[u8], is_created: &mut bool) -> Result<Onward, EtcdError> {
        let parsed: Result<WatchLine, _> = serde_json::from_slice(line);
        let answer = match parsed {
            Ok(WatchLine { error: Some(failure), .. }) => return Err(self.etcd.transport.said_no(&failure)),
            Ok(WatchLine { result: Some(answer), .. }) => answer,
            _ => return Err(self.malformed()),
        };
        if answer.compact_revision.0 > 0 {
            return Ok(Onward::End(WatchEnd::Compacted));
        }
        if answer.canceled {
            let failure = super::wire::Failure { message: answer.cancel_reason, ..Default::default() };
            return Err(self.etcd.transport.said_no(&failure));
        }
        if !answer.created && answer.events.is_empty() {
            return Ok(Onward::More);
        }
        if answer.created {
            *is_created = true;
            // A member may be late. One that still is after `idle` has another past: of a backup, for example.
            let is_behind = answer.header.revision.0 < self.from - 1;
            if std::mem::replace(&mut self.was_behind, is_behind) && is_behind {
                return Ok(Onward::End(WatchEnd::Compacted));
            }
        }
        self.tell(answer)
    }

    fn tell(&mut self, answer: WatchAnswer) -> Result<Onward, EtcdError> {
        let mut last = self.from - 1;
        for event in answer.events {
            let Some((key, revision, value)) = change(event) else { return Err(self.malformed()) };
            if revision < last.max(self.from) || !key.starts_with(self.prefix) {
                return Err(self.malformed());
            }
            last = revision;
            if !(self.on_event)(WatchEvent::Changed { key, revision, value }) {
                return Ok(Onward::End(WatchEnd::Stopped));
            }
        }
        self.from = last + 1;
        if (self.on_event)(WatchEvent::UpTo(last)) { Ok(Onward::More) } else { Ok(Onward::End(WatchEnd::Stopped)) }
    }

    fn broken(&mut self, why: &str) -> EtcdError {
        self.etcd.transport.failed(EtcdError::Unknown, why)
    }

    fn malformed(&mut self) -> EtcdError {
        self.etcd.transport.failed(EtcdError::Malformed, "a line of a watch that is none of etcd's")
    }
}

/// Key, revision and value of a change; None if it cannot be.
fn change(event: WireEvent) -> Option<(String, i64, Option<Versioned>)> {
    let revision = event.kv.mod_revision.0;
    match event.kind.as_str() {
        "" | "PUT" => named(event.kv, i64::MAX - 1).map(|(key, value)| (key, revision, Some(value))),
        "DELETE" => {
            let key = String::from_utf8(event.kv.key.0).ok()?;
            (1..i64::MAX).contains(&revision).then_some((key, revision, None))
        }
        _ => None,
    }
}

/// Reads a line; false at the end of the stream.
fn read_line(lines: &mut BufReader<BodyReader<'static>>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    lines.take(ANSWER_MAX).read_until(b'\n', line)?;
    if line.len() as u64 == ANSWER_MAX {
        return Err(std::io::Error::other("a line that does not end"));
    }
    Ok(!line.is_empty())
}

fn is_timeout(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<ureq::Error>());
    matches!(cause, Some(ureq::Error::Timeout(_))) || error.kind() == std::io::ErrorKind::TimedOut
}
