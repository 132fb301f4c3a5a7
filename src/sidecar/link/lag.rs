//! How far a peer is behind, in time.
//!
//! ```text
//!   the server's lsn   7 ── 9 ────── 12 ──── 20        a mark is an lsn, and when it was heard of
//!   the peer confirms  9                               marks up to 9 go; the lag is the age of the oldest left
//! ```
//!
//! A stream that goes on where it was begins with a mark whose lsn is not known yet. Its time is when the peer last had
//! everything, because the changes that the peer has missed came after that.
//!
//! Invariant: lsns and times of the marks ascend.

use std::collections::VecDeque;
use std::time::Duration;

/// The most marks; a new one is made when the last is older than [`MARK_EVERY`].
const MARKS_MAX: usize = 1024;
const MARK_EVERY: Duration = Duration::from_millis(10);

/// The lsn of the first mark of a stream that goes on, until the server tells its last lsn.
const UNTOLD: u64 = u64::MAX;

/// See the module's head. Times are since the start of the program.
#[derive(Debug, Default)]
pub(super) struct Lag {
    marks: VecDeque<(u64, Duration)>,
    /// Since when the peer owes an answer and has been silent.
    owed_since: Option<Duration>,
    /// When the peer was last known to have everything.
    whole_at: Option<Duration>,
}

impl Lag {
    /// The peer is not asked anything any more.
    pub(super) fn forget_answers(&mut self) {
        self.owed_since = None;
    }

    /// The peer has said something, and owes an answer or not.
    pub(super) fn heard(&mut self, is_owed: bool, now: Duration) {
        self.owed_since = is_owed.then_some(now);
    }

    /// A full sync begins.
    pub(super) fn begin(&mut self) {
        self.marks.clear();
    }

    /// A stream goes on where it was.
    pub(super) fn go_on(&mut self, now: Duration) {
        self.marks.clear();
        self.marks.push_back((UNTOLD, self.whole_at.unwrap_or(now)));
    }

    /// The server has come to this lsn; the peer has confirmed that one.
    pub(super) fn note_head(&mut self, lsn: u64, confirmed: u64, now: Duration) {
        let is_new = match self.marks.back() {
            Some(&(known, at)) => known < lsn && now >= at + MARK_EVERY,
            None => confirmed < lsn,
        };
        if is_new && self.marks.len() < MARKS_MAX {
            self.marks.push_back((lsn, now));
        }
    }

    /// The server says how far it is: the first mark of a stream that went on gets its lsn.
    pub(super) fn place_first_mark(&mut self, head: u64, confirmed: u64) {
        if let Some(&(UNTOLD, at)) = self.marks.front() {
            self.marks.clear();
            if head > confirmed {
                self.marks.push_back((head, at));
            }
        }
    }

    /// The peer has confirmed everything up to here.
    pub(super) fn confirm(&mut self, lsn: u64) {
        while self.marks.front().is_some_and(|known| known.0 <= lsn) {
            self.marks.pop_front();
        }
    }

    /// The stream is one that the peer follows change by change: takes note of when the peer had everything.
    pub(super) fn observe(&mut self, is_owed: bool, now: Duration) {
        let known = self.marks.front().map_or(now, |mark| mark.1);
        self.owed_since = is_owed.then(|| self.owed_since.unwrap_or(now));
        self.whole_at = Some(known.min(self.owed_since.unwrap_or(now)));
    }

    /// For how long the peer has not had everything, or has not answered; None when it never had everything.
    pub(super) fn figure(&self, now: Duration) -> Option<Duration> {
        self.whole_at.map(|at| now.saturating_sub(at))
    }
}
