//! The shard record as this node knows it, and what this node has sent to replace it.
//!
//! ```text
//!   send ──> flight ──┬─ won ──> seen; it counts from when it was sent
//!                     ├─ lost ─> seen: somebody else's
//!                     └─ unknown ──> doubts: when the record changes, it tells which of them it was, if any
//! ```
//!
//! The record may be heard of by the watch before the swap is answered, or instead of that. Each swap has a sequence
//! number of its own, so a record tells who sent it.
//!
//! Invariant: what is seen never gets older. Not here: what to send (`keeper`).

use crate::cluster::record::ShardRecord;
use std::time::Duration;

/// The pause after a swap that was not done, or the server did not agree to.
const RETRY: Duration = Duration::from_millis(20);

/// The record as it was seen last.
#[derive(Clone, Debug, Hash)]
pub(super) struct Seen {
    pub revision: i64,
    pub record: Option<ShardRecord>,
    /// When this revision was first heard of.
    pub at: Duration,
}

/// A swap that was sent.
#[derive(Clone, Debug, Hash)]
struct SentSwap {
    record: ShardRecord,
    at: Duration,
}

/// See the module's head. Times are since boot.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Ledger {
    pub seen: Option<Seen>,
    /// When the last swap was sent that renewed the lease, if this node owns the shard by it.
    pub renewed: Option<Duration>,
    /// When a swap was last sent.
    pub swapped_at: Option<Duration>,
    /// The swap that was sent and not answered.
    flight: Option<SentSwap>,
    /// Swaps whose outcome is not known.
    doubts: Vec<SentSwap>,
    retry_at: Duration,
    seq: u64,
    /// When the record was last heard of, or asked for.
    asked_at: Option<Duration>,
}

impl Ledger {
    /// The record.
    pub(super) fn known(&self) -> Option<&ShardRecord> {
        self.seen.as_ref()?.record.as_ref()
    }

    /// When the record was first heard of, as it is.
    pub(super) fn seen_at(&self) -> Duration {
        self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.at)
    }

    /// The record, and those that may be it or become it.
    pub(super) fn records(&self) -> impl Iterator<Item = &ShardRecord> + Clone {
        self.doubts.iter().chain(&self.flight).map(|sent| &sent.record).chain(self.known())
    }

    /// Notes that the record is this. False: that is old news.
    pub(super) fn note(&mut self, revision: i64, record: Option<ShardRecord>, now: Duration) -> bool {
        self.asked_at = Some(now);
        if self.seen.as_ref().is_some_and(|seen| revision <= seen.revision) {
            return false;
        }
        if record.is_none()
            && let Some(seen) = self.seen.as_mut().filter(|seen| seen.record.is_none())
        {
            // Without a record each revision is news of something else.
            seen.revision = revision;
            return false;
        }
        let sent = self.doubts.iter().chain(&self.flight).find(|sent| Some(&sent.record) == record.as_ref());
        // What an operator's tool has changed in the owner's record does not end the owner's right: others count from
        // this revision on, which is later.
        let is_kept = self.known().zip(record.as_ref()).is_some_and(|(seen, now)| is_same_tenure(seen, now));
        self.renewed = sent.map(|sent| sent.at).or(self.renewed.filter(|_| is_kept));
        self.doubts.clear();
        self.seq = record.as_ref().map_or(self.seq, |record| self.seq.max(record.seq));
        self.seen = Some(Seen { revision, record, at: now });
        true
    }

    /// Whether a swap is on its way, or has to wait.
    pub(super) fn is_swapping(&self, now: Duration) -> bool {
        self.flight.is_some() || now < self.retry_at
    }

    /// Nothing is tried again for a moment.
    pub(super) fn pause(&mut self, now: Duration) {
        self.retry_at = now + RETRY;
    }

    /// Whether something has to wait for the end of that pause.
    pub(super) fn is_pausing(&self, now: Duration) -> bool {
        now < self.retry_at
    }

    /// Notes that this is sent to replace the record: the revision that it replaces, and the record with its number.
    pub(super) fn send(&mut self, record: ShardRecord, now: Duration) -> (i64, ShardRecord) {
        let expected = self.seen.as_ref().map_or(0, |seen| if seen.record.is_some() { seen.revision } else { 0 });
        self.seq += 1;
        let record = ShardRecord { seq: self.seq, ..record };
        self.flight = Some(SentSwap { record: record.clone(), at: now });
        self.swapped_at = Some(now);
        (expected, record)
    }

    /// The swap on its way was done, and is the record of this revision.
    pub(super) fn won(&mut self, revision: i64, now: Duration) -> bool {
        let record = self.flight.as_ref().map(|sent| sent.record.clone());
        let is_news = self.note(revision, record, now);
        self.flight = None;
        is_news
    }

    /// It was not done.
    pub(super) fn lost(&mut self, now: Duration) {
        self.flight = None;
        self.pause(now);
    }

    /// etcd has failed. In doubt, it may have been done, or be done later.
    pub(super) fn failed(&mut self, is_in_doubt: bool, now: Duration) {
        self.doubts.extend(self.flight.take().filter(|_| is_in_doubt));
        self.pause(now);
    }

    /// Whether the record has to be read, since nothing was heard for so long. What is watched tells changes; a watch
    /// that has broken tells nothing.
    pub(super) fn ask(&mut self, every: Duration, now: Duration) -> bool {
        let is_due = self.asked_at.is_none_or(|at| now >= at + every);
        if is_due {
            self.asked_at = Some(now);
        }
        is_due
    }
}

/// Whether the owner of both is the same, by the same right.
fn is_same_tenure(one: &ShardRecord, other: &ShardRecord) -> bool {
    let right = |record: &ShardRecord| (record.epoch, record.lease_ms, record.bootstrap_ms);
    right(one) == right(other) && one.owner == other.owner && one.run == other.run
}

#[cfg(test)]
#[path = "tests/shift_ledger.rs"]
mod shift;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn owned() -> (Ledger, ShardRecord) {
        let mut ledger = Ledger::default();
        let record =
            ShardRecord { epoch: 1, owner: "a".into(), nodes: vec!["a".into(), "b".into()], ..Default::default() };
        let (expected, record) = ledger.send(record, SECOND);
        assert_eq!(expected, 0);
        assert!(ledger.won(10, 2 * SECOND));
        assert_eq!(ledger.renewed, Some(SECOND));
        (ledger, record)
    }

    #[test]
    fn a_node_that_is_removed_by_others_ends_no_lease() {
        let (mut ledger, record) = owned();
        let (_, _) = ledger.send(record.clone(), 3 * SECOND);
        ledger.lost(Duration::ZERO);
        let without = ShardRecord { nodes: vec!["a".into()], ..record };
        assert!(ledger.note(11, Some(without.clone()), 3 * SECOND));
        assert_eq!((ledger.renewed, ledger.known()), (Some(SECOND), Some(&without)));
    }

    #[test]
    fn another_owner_ends_it() {
        let (_, record) = owned();
        let others = [
            ShardRecord { epoch: 2, ..record.clone() },
            ShardRecord { owner: "b".into(), ..record.clone() },
            ShardRecord { run: "other".into(), ..record.clone() },
            ShardRecord { lease_ms: 1, ..record },
        ];
        for other in others.map(Some).into_iter().chain([None]) {
            let (mut ledger, _) = owned();
            assert!(ledger.note(11, other, 3 * SECOND));
            assert_eq!(ledger.renewed, None);
        }
    }
}
