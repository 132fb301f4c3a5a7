//! The server's side of a stream: what the server is asked and told, and what is known of it.
//!
//! ```text
//!   open ─> greeting (its run) ─> meet … met ─> attach ─> the stream
//!                                                 ack | refuse  <── what the sinks have confirmed
//! ```
//!
//! Not here: sockets, the states of the whole (`pump`), the stream's bytes (`relay`).

use crate::protocol::control::{AttachLine, ClientLine};
use std::time::Duration;

/// A place in the server's changes up to which a peer has everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ResumePoint {
    /// The server's run.
    pub run: String,
    /// The peer's identity.
    pub identity: String,
    /// The last change.
    pub lsn: u64,
}

/// From where a stream is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum ResumeFrom {
    /// From where the server remembers the peer to be.
    #[default]
    Unknown,
    /// From there, or from where the server remembers it, if that is less.
    After(ResumePoint),
    /// From nowhere: everything is to be sent again.
    Void,
}

impl ResumeFrom {
    /// `attach` says so: the run, the lsn, or `-` for either.
    fn words(&self, run: &str, identity: &str) -> (Option<&str>, Option<u64>) {
        match self {
            ResumeFrom::After(known) if known.run == run && known.identity == identity => {
                (Some(known.run.as_str()), Some(known.lsn))
            }
            ResumeFrom::After(_) | ResumeFrom::Unknown => (None, None),
            ResumeFrom::Void => (None, Some(0)),
        }
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct StreamSource {
    /// The control socket is connected.
    pub is_open: bool,
    /// The server's run.
    pub run: String,
    /// The runs whose changes the server gets.
    pub upstreams: Vec<String>,
    /// Items that the server holds, when it was asked last.
    pub items: u64,
    heard: Duration,
    output: Vec<u8>,
    /// Whether the answer to `meet` is due.
    is_asked: bool,
    ack_due: Option<u64>,
}

impl StreamSource {
    /// Nothing is asked or owed any more: the next connection is a new one.
    pub(super) fn reset(&mut self, now: Duration) {
        *self = StreamSource {
            run: std::mem::take(&mut self.run),
            upstreams: std::mem::take(&mut self.upstreams),
            items: self.items,
            heard: now,
            ..StreamSource::default()
        };
    }

    /// The server has said something, or could not have been heard until now.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// When that was last.
    pub(super) fn heard_at(&self) -> Duration {
        self.heard
    }

    /// Asks what there is to copy to a peer, unless that was asked already. Before it attaches, and then now and then,
    /// because a server may get another upstream at any time.
    pub(super) fn ask(&mut self, name: &str, identity: &str) {
        if !std::mem::replace(&mut self.is_asked, true) {
            self.say(ClientLine::Hello(name, identity));
        }
    }

    /// The answer has come: these are its upstreams. Whether that is news.
    pub(super) fn answered(&mut self, upstreams: &[&str]) -> bool {
        self.is_asked = false;
        let is_news = self.upstreams != upstreams;
        self.upstreams = upstreams.iter().map(|&run| run.to_owned()).collect();
        is_news
    }

    /// Asks for the stream, from where the peer is known to be.
    pub(super) fn attach(&mut self, name: &str, identity: &str, with_cas: bool, resume: &ResumeFrom, now: Duration) {
        self.heard = now;
        let (run, lsn) = resume.words(&self.run, identity);
        self.say(ClientLine::Attach(AttachLine { name, identity, run, lsn, with_cas }));
    }

    /// Tells what the peer's clock showed when this machine had just booted.
    pub(super) fn tell_clock(&mut self, at_boot_ms: i64) {
        self.say(ClientLine::Clock(at_boot_ms));
    }

    /// The peer has everything up to here, or lacks some of what came since the last time. What it has is said before
    /// what it lacks, so that the server knows among which changes the refused ones are.
    pub(super) fn acknowledge(&mut self, lsn: u64, lacks_some: bool) {
        if lacks_some {
            self.ack_due.take().into_iter().for_each(|lsn| self.say(ClientLine::Ack(lsn)));
            self.say(ClientLine::Refuse(lsn));
        } else {
            self.ack_due = Some(lsn);
        }
    }

    /// What to write to the control socket.
    pub(super) fn output(&mut self) -> &[u8] {
        if self.output.is_empty() {
            self.ack_due.take().into_iter().for_each(|lsn| self.say(ClientLine::Ack(lsn)));
        }
        &self.output
    }

    /// So many bytes of [`StreamSource::output`] were written.
    pub(super) fn wrote(&mut self, n: usize) {
        self.output.drain(..n);
    }

    fn say(&mut self, line: ClientLine<'_>) {
        self.output.extend_from_slice(format!("{line}\r\n").as_bytes());
    }
}
