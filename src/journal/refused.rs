//! What one peer has refused: which changes that were, and what is to be sent again.
//!
//! ```text
//!   refuse: something of (before, acked]
//!     one change there          it was that one
//!     several, nobody waits     their ranges are noted
//!     several, replies wait     each is journalled again, as it is now; the stream sends them one by one, so that
//!                               each has an answer of its own. Until then nothing after `before` is complete.
//!
//!   ranges ── next ──> attempt: 1, 2, 4 … ranges journalled again ── confirmed ──> the next, twice as many
//!     ^                                                        └── refused again: one by one, after a pause
//!     └── a refused change
//! ```
//!
//! A peer refuses what it has no room for, or what is too large for it, and answers with an error that names nothing.
//! What it lacks it gets when it has room: nobody knows when that is, so it is tried now and then.
//!
//! Invariants: a change is held back only while a record that stands for it is on its way; a range leaves the set only
//! to be sent again, and comes back if anything of it is refused.
//!
//! Not here: finding the changes in the ring, and whether a refusal fails a reply (`readers`), journalling them again
//! (`store::resync`), who waits (`acks`).

use super::lsn_ranges::LsnRanges;
use super::ranges::Ranges;
use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// The most changes that are held back while it is found out which of them was refused. A stream has a few thousand on
/// their way. If there are more, all of the last acknowledgement count as refused.
const HELD_MAX: usize = 16 << 10;

/// The most ranges that are sent again before the peer has confirmed them.
const ATTEMPT_MAX: u32 = 256;

/// The pause after an attempt of which something was refused.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A change that may have been refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its number.
    pub lsn: u64,
    /// Its key.
    pub key: Vec<u8>,
    /// Whether the key came base64-encoded.
    pub key_is_binary: bool,
    /// The range of the key.
    pub(super) range: u32,
}

/// What comes of a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The refused changes: after one number, up to the other.
    pub refused: Vec<(u64, u64)>,
    /// Whether the changes among which they are have to be sent again one by one.
    pub is_open: bool,
}

/// See the module's head.
#[derive(Clone, Debug)]
pub(super) struct PeerRefusals {
    ranges: Ranges,
    /// The changes for which replies may wait still.
    pub lsns: LsnRanges,
    /// Changes that are held back: the number of each, and of the record whose answer is awaited. The latter ascend.
    held: VecDeque<(u64, u64)>,
    attempt: Option<Attempt>,
    /// Ranges of the next attempt.
    size: u32,
    pause: Duration,
    due: Option<Instant>,
    /// Where the search for the next range goes on.
    at: u32,
}

/// Ranges that are being sent again.
#[derive(Clone, Debug, Default)]
struct Attempt {
    ranges: Vec<u32>,
    /// How many more there may be.
    left: u32,
    /// Whether the last of them is being journalled.
    is_scanning: bool,
    /// The number of the last record.
    upto: u64,
    has_failed: bool,
}

impl PeerRefusals {
    /// Nothing, of so many ranges.
    pub(super) fn new(ranges: u32) -> PeerRefusals {
        PeerRefusals {
            ranges: Ranges::new(ranges),
            lsns: LsnRanges::default(),
            held: VecDeque::new(),
            attempt: None,
            size: 1,
            pause: PAUSE_MIN,
            due: None,
            at: 0,
        }
    }

    /// Ranges of which the peer lacks something, or may.
    pub(super) fn count(&self) -> u64 {
        let tried = self.attempt.as_ref().map_or(0, |attempt| attempt.ranges.len());
        (self.ranges.count + tried + usize::from(self.is_held())) as u64
    }

    /// Whether changes are held back.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Something of the changes after one number and up to the other was refused; see [`super::reader::Reader::refuse`].
    pub(super) fn judge(
        &mut self,
        (before, acked): (u64, u64),
        among: Option<&[Suspect]>,
        settles: bool,
        now: Instant,
    ) -> Verdict {
        if self.ranges.count == 0 && self.attempt.is_none() {
            self.due = Some(now + self.pause);
        }
        let Some(suspects) = among.filter(|suspects| !suspects.is_empty()) else {
            self.ranges.set_all();
            self.confirm(acked, now);
            return Verdict { refused: vec![(before, acked)], is_open: false };
        };
        let is_open = settles && suspects.len() > 1 && suspects.len() + self.held.len() <= HELD_MAX;
        let is_suspect = |lsn: u64| suspects.binary_search_by_key(&lsn, |suspect| suspect.lsn).is_ok();
        let answered = self.take_answered(acked);
        if is_open {
            let open = answered.into_iter().filter(|&(_, by)| is_suspect(by)).collect::<Vec<_>>();
            let stood_for: BTreeSet<u64> = open.iter().map(|&(_, by)| by).collect();
            let new = suspects.iter().map(|suspect| suspect.lsn).filter(|lsn| !stood_for.contains(lsn));
            new.map(|lsn| (lsn, lsn)).chain(open).for_each(|held| self.held.push_front(held));
            return Verdict { refused: Vec::new(), is_open };
        }
        suspects.iter().for_each(|suspect| self.ranges.set(suspect.range));
        self.attempt.iter_mut().for_each(|attempt| attempt.has_failed = true);
        let stood_for = answered.into_iter().filter(|&(_, by)| is_suspect(by)).map(|(lsn, _)| (lsn - 1, lsn));
        let itself = match suspects {
            [one] => (one.lsn - 1, one.lsn),
            _ => (before, acked),
        };
        let refused = stood_for.chain([itself]).collect();
        self.confirm(acked, now);
        Verdict { refused, is_open }
    }

    /// Suspects were journalled again: in ascending order the old numbers, each with the new one.
    pub(super) fn sent_again(&mut self, sent: &[(u64, u64)]) {
        for (_, by) in &mut self.held {
            if let Ok(at) = sent.binary_search_by_key(by, |&(lsn, _)| lsn) {
                *by = sent[at].1;
            }
        }
        self.held.make_contiguous().sort_unstable_by_key(|&(_, by)| by);
    }

    /// Takes out those whose answer has come.
    fn take_answered(&mut self, acked: u64) -> Vec<(u64, u64)> {
        let count = self.held.iter().take_while(|&&(_, by)| by <= acked).count();
        self.held.drain(..count).collect()
    }

    /// The peer has answered everything up to here, and refused nothing that is not judged.
    pub(super) fn confirm(&mut self, acked: u64, now: Instant) {
        self.take_answered(acked);
        self.conclude(acked, now);
    }

    /// The next range to send again, if it is time.
    pub(super) fn next(&mut self, acked: u64, now: Instant) -> Option<u32> {
        if self.attempt.is_none() {
            if self.ranges.count == 0 || self.due.is_some_and(|due| now < due) {
                return None;
            }
            self.attempt = Some(Attempt { left: self.size, ..Attempt::default() });
        }
        let attempt = self.attempt.as_mut().filter(|attempt| attempt.left > 0)?;
        let Some(range) = self.ranges.next(self.at) else {
            attempt.left = 0;
            self.conclude(acked, now);
            return None;
        };
        self.ranges.clear(range);
        self.at = (range + 1) % self.ranges.len;
        attempt.ranges.push(range);
        (attempt.left, attempt.is_scanning) = (attempt.left - 1, true);
        Some(range)
    }

    /// The range was journalled again, up to this record.
    pub(super) fn range_done(&mut self, lsn: u64, acked: u64, now: Instant) {
        self.attempt.iter_mut().for_each(|attempt| (attempt.upto, attempt.is_scanning) = (lsn, false));
        self.conclude(acked, now);
    }

    /// Ends the attempt, if it is over.
    fn conclude(&mut self, acked: u64, now: Instant) {
        let is_over = |attempt: &Attempt| attempt.left == 0 && !attempt.is_scanning && acked >= attempt.upto;
        let Some(attempt) = self.attempt.take_if(|attempt| is_over(attempt)) else { return };
        if attempt.has_failed {
            (self.size, self.due) = (1, Some(now + self.pause));
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        } else {
            (self.size, self.pause, self.due) = ((self.size * 2).min(ATTEMPT_MAX), PAUSE_MIN, None);
        }
    }

    /// What to remember of it when the reader goes: what was on its way is to be sent again.
    pub(super) fn remembered(mut self) -> PeerRefusals {
        let attempt = self.attempt.take().unwrap_or_default();
        attempt.ranges.iter().for_each(|&range| self.ranges.set(range));
        self.held.clear();
        self
    }

    /// Whether it agrees with itself.
    pub(super) fn check(&self) {
        self.ranges.check();
    }
}

#[cfg(test)]
#[path = "tests/refused.rs"]
mod tests;
