//! The shard record as this node knows it, and what this node has sent to replace it.
//!
//! ```text
//!   send ──> flight ──┬─ won ──> seen; it counts from when it was sent
//!                     ├─ lost ─> seen: somebody else's
//!                     └─ unknown ──> doubts: when the record changes, it tells which of them it was, if any
//!
//!   what is seen follows from what was there ──> it is the record
//!   it does not: deleted, damaged, or etcd was put back to an older state
//!        the owner within its right      ──> its record goes on to count, and it writes it over what stands there
//!        anybody else, or too late       ──> nothing that stands there is believed for a lease and its margin, nor, by who
//!                                            is not known to have been a member until then, for the wait for a bootstrap
//!                                            after that; if it is no record, the last one counts then, as one that was
//!                                            given back at the end of the lease
//! ```
//!
//! The record may be heard of by the watch before the swap is answered, or instead of that. Each swap of a process has a
//! sequence number of its own, and each process signs what it writes, so a record tells which swap it is. The process before
//! this one has sent swaps, too, for the same node and run and with the same numbers: one of them, done late, says nothing of
//! what this one has sent.
//!
//! etcd that was restored from a backup gives old records, and revisions for a second time. It is noticed by an answer
//! that was asked for after a higher revision of etcd had been heard of, and by a record whose epoch or number is lower
//! than before. A watch that tells of lower revisions tells either old news or that, so it does not put off the next
//! reading. Whoever owned the shard in the lost past may serve until the end of a lease; who that was, the old record
//! does not say. A swap names the value that it replaces, besides its revision, so it cannot replace something else that
//! has got the same revision.
//!
//! A member need not wait for what other members may have promised, since the owner needs its promise, too. But it may have
//! been taken out of a record that it has not seen: only where a watch has told what stood there before, and then that it is
//! lost, is it known to have been a member to the end. And a promise is that of a run: the next one waits as long as that lasts.
//!
//! Invariants: what is seen never gets older, but by a restored etcd; there are at most [`DOUBTS_MAX`] doubts.
//!
//! Not here: what to send (`keeper`). Not noticed: a backup of exactly what this node had seen last, and, by a sidecar that
//! was started while etcd was away, any backup.

use super::claim::{lease_of, margin_of};
use super::orders::{Expected, RecordValue, Sighting};
use crate::cluster::record::ShardRecord;
use std::time::Duration;

/// The pause after a swap that was not done.
const RETRY: Duration = Duration::from_millis(20);

/// Swaps that differ in more than their number, and whose outcome is not known. A pair has two or three, while etcd
/// hangs.
const DOUBTS_MAX: usize = 16;

/// The record as it was seen last.
#[derive(Clone, Debug, Hash)]
pub(super) struct Seen {
    pub revision: i64,
    /// What stands there.
    value: RecordValue,
    /// What counts although it does not stand there: the owner's own record, or the last one, given back.
    kept: Option<ShardRecord>,
    /// When this revision was first heard of, or when whoever owned the shard before is silent, if it is no record.
    pub at: Duration,
    /// Nothing that stands there is believed before this.
    settles: Duration,
    /// And by a run of the server, not before it was there for so long: the one before may have promised to wait.
    pub run_waits: Duration,
    /// This node was in sync to the end, whatever stands there now.
    pub was_member: bool,
}

impl Seen {
    /// The record that counts.
    pub(super) fn record(&self) -> Option<&ShardRecord> {
        self.kept.as_ref().or(self.value.record.as_ref())
    }
}

/// Until when a node that owns the shard has the right to serve, and how long an owner may have it that is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    pub until: Option<Duration>,
    pub wait: Duration,
    /// The node is a member by the last record: no owner goes on without its promise, and its server keeps that.
    pub is_member: bool,
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
    /// The highest epoch that a record had.
    pub epoch: u64,
    /// Epoch and number of the last record, deleted or not.
    place: (u64, u64),
    /// The highest revision of etcd that was heard of, and when that was.
    store: (i64, Duration),
    /// The swap that was sent and not answered.
    flight: Option<SentSwap>,
    /// Swaps whose outcome is not known.
    doubts: Vec<SentSwap>,
    retry_at: Duration,
    /// What this process signs with.
    process: String,
    seq: u64,
    /// When the record was last heard of, or asked for.
    asked_at: Option<Duration>,
}

impl Ledger {
    /// Nothing is known yet; records are signed with this.
    pub(super) fn new(process: &str) -> Ledger {
        Ledger { process: process.to_owned(), ..Ledger::default() }
    }

    /// The record.
    pub(super) fn known(&self) -> Option<&ShardRecord> {
        self.seen.as_ref()?.record()
    }

    /// When the record was first heard of, as it is.
    pub(super) fn seen_at(&self) -> Duration {
        self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.at)
    }

    /// Before this nothing follows from the record: it may be a past one, while somebody serves by what is lost.
    pub(super) fn settles(&self) -> Duration {
        self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.settles)
    }

    /// Whether something stands there that is not the record that counts.
    pub(super) fn is_replaced(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.kept.is_some())
    }

    /// What is wrong with what stands there, if it is no record.
    pub(super) fn damage(&self) -> Option<String> {
        self.seen.as_ref()?.value.damage()
    }

    /// The record, and those that may be it or become it.
    pub(super) fn records(&self) -> impl Iterator<Item = &ShardRecord> + Clone {
        self.doubts.iter().chain(&self.flight).map(|sent| &sent.record).chain(self.known())
    }

    /// Notes what stands there. False: that is old news.
    pub(super) fn note(&mut self, sighting: Sighting, rights: Rights, now: Duration) -> bool {
        let is_lower = self.seen.as_ref().is_some_and(|seen| sighting.revision < seen.revision);
        if sighting.asked.is_some() || !is_lower {
            self.asked_at = Some(now);
        }
        let is_back = self.is_put_back(&sighting);
        let Sighting { revision, store, value, follows, .. } = sighting;
        let was_last = self.seen.as_ref().is_some_and(|seen| follows == Some(seen.revision));
        let rights = Rights { is_member: rights.is_member && was_last, ..rights };
        if is_back || store > self.store.0 {
            self.store = (store, now);
        }
        if let Some(seen) = self.seen.as_mut().filter(|_| !is_back) {
            if revision <= seen.revision {
                return false;
            }
            if value == RecordValue::default() && seen.value == value {
                // Without a value each revision is news of something else.
                seen.revision = revision;
                return false;
            }
        }
        if let Some(record) = &value.record {
            self.place = (record.epoch, record.seq);
            (self.epoch, self.seq) = (self.epoch.max(record.epoch), self.seq.max(record.seq));
        }
        let seen = Seen {
            revision,
            value,
            kept: None,
            at: now,
            settles: Duration::ZERO,
            run_waits: Duration::ZERO,
            was_member: false,
        };
        let seen = if is_back || seen.value.record.is_none() { self.odd(seen, rights) } else { self.next(seen) };
        self.seen = Some(seen);
        self.doubts.clear();
        true
    }

    /// Whether etcd was put back to an older state since it was last heard of.
    fn is_put_back(&self, sighting: &Sighting) -> bool {
        let Some(seen) = &self.seen else { return false };
        let Sighting { revision, store, asked, value, .. } = sighting;
        let place = value.record.as_ref().map(|record| (record.epoch, record.seq));
        if *revision > seen.revision && place.is_some_and(|place| place < self.place) {
            return true;
        }
        // Reads are linearizable, so what was asked for later shows nothing older.
        let is_later = asked.is_some_and(|asked| asked > self.store.1);
        let is_there = *value != RecordValue::default();
        let is_older = *revision < seen.revision || *revision == seen.revision && *value != seen.value;
        is_later && (*store < self.store.0 || is_there && is_older)
    }

    /// What follows from what was there before.
    fn next(&mut self, mut seen: Seen) -> Seen {
        let record = seen.value.record.as_ref();
        let sent = self.doubts.iter().chain(&self.flight).find(|sent| Some(&sent.record) == record);
        // What an operator's tool has changed in the owner's record does not end the owner's right: others count from
        // this revision on, which is later.
        let is_kept = self.known().zip(record).is_some_and(|(known, now)| is_same_tenure(known, now));
        self.renewed = sent.map(|sent| sent.at).or(self.renewed.filter(|_| is_kept));
        if let Some(last) = self.seen.as_ref().filter(|_| is_kept) {
            (seen.settles, seen.run_waits, seen.was_member) = (last.settles, last.run_waits, last.was_member);
        }
        seen
    }

    /// What does not follow from what was there before, or is no record.
    fn odd(&mut self, mut seen: Seen, rights: Rights) -> Seen {
        if rights.until.is_some_and(|until| seen.at < until) {
            // Nobody can have taken over yet, and whoever does so later replaces what stands there now.
            seen.kept = self.known().cloned();
            return seen;
        }
        self.renewed = None;
        let leases =
            self.known().into_iter().chain(&seen.value.record).map(|record| lease_of(record) + margin_of(record));
        seen.was_member = rights.is_member;
        seen.run_waits = leases.chain([rights.wait]).max().expect("there is one");
        let silent = seen.at + seen.run_waits;
        // An owner whose lease has ended may live on the promises of members alone for so long.
        let promised = self.known().filter(|_| !rights.is_member).map_or(0, |record| record.bootstrap_ms);
        seen.settles = self.settles().max(silent + Duration::from_millis(promised));
        if seen.value.record.is_none() {
            (seen.kept, seen.at) = (self.known().cloned().map(given_back), silent);
        }
        seen
    }

    /// Whether a swap is on its way, or has to wait.
    pub(super) fn is_swapping(&self, now: Duration) -> bool {
        self.flight.is_some() || now < self.retry_at
    }

    /// Notes that this is sent to replace what stands there: that, and the record with its number.
    pub(super) fn send(&mut self, record: ShardRecord, now: Duration) -> (Expected, ShardRecord) {
        let expected = self.seen.as_ref().map_or(Expected::default(), |seen| {
            let is_there = seen.value != RecordValue::default();
            Expected { revision: if is_there { seen.revision } else { 0 }, value: seen.value.clone() }
        });
        let record = ShardRecord { writer: self.process.clone(), ..record };
        let is_full = self.doubts.len() >= DOUBTS_MAX;
        let is_other = is_full && !self.doubts.iter().any(|sent| is_same_but_number(&sent.record, &record));
        // With something else still it would be one doubt more. The last one renews the lease as well.
        let last = self.doubts.last().filter(|_| is_other).map(|sent| sent.record.clone());
        self.seq += 1;
        let record = ShardRecord { seq: self.seq, ..last.unwrap_or(record) };
        self.flight = Some(SentSwap { record: record.clone(), at: now });
        self.swapped_at = Some(now);
        (expected, record)
    }

    /// The swap on its way was done, and is the record of this revision.
    pub(super) fn won(&mut self, revision: i64, rights: Rights, now: Duration) -> bool {
        let record = self.flight.as_ref().map(|sent| sent.record.clone());
        let value = RecordValue { record, odd: None };
        let is_news = self.note(Sighting { revision, store: revision, asked: None, follows: None, value }, rights, now);
        self.flight = None;
        is_news
    }

    /// It was not done.
    pub(super) fn lost(&mut self, now: Duration) {
        self.flight = None;
        self.retry_at = now + RETRY;
    }

    /// etcd has failed. In doubt, it may have been done, or be done later.
    pub(super) fn failed(&mut self, is_in_doubt: bool, now: Duration) {
        if let Some(sent) = self.flight.take().filter(|_| is_in_doubt) {
            // If it is the older one that was done, the owner's right counts from the last renewal that is known.
            self.doubts.retain(|doubt| !is_same_but_number(&doubt.record, &sent.record));
            self.doubts.push(sent);
        }
        self.retry_at = now + RETRY;
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

/// The owner had everything, too.
fn given_back(record: ShardRecord) -> ShardRecord {
    let owner = record.whole_owner();
    let mut record = record.without_owner();
    record.members.extend(owner);
    record
}

/// Whether the owner of both is the same, by the same right.
fn is_same_tenure(one: &ShardRecord, other: &ShardRecord) -> bool {
    let right = |record: &ShardRecord| (record.epoch, record.lease_ms, record.bootstrap_ms);
    right(one) == right(other) && one.owner == other.owner && one.run == other.run
}

/// Whether one says nothing that the other does not.
fn is_same_but_number(one: &ShardRecord, other: &ShardRecord) -> bool {
    ShardRecord { seq: one.seq, ..other.clone() } == *one
}

#[cfg(test)]
#[path = "tests/shift_ledger.rs"]
mod shift;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const LATE: Rights = Rights { until: None, wait: SECOND, is_member: false };

    fn owned() -> (Ledger, ShardRecord) {
        let mut ledger = Ledger::new("p");
        let record =
            ShardRecord { epoch: 1, owner: "a".into(), nodes: vec!["a".into(), "b".into()], ..Default::default() };
        let (expected, record) = ledger.send(record, SECOND);
        assert_eq!(expected, Expected::default());
        assert!(ledger.won(10, LATE, 2 * SECOND));
        assert_eq!(ledger.renewed, Some(SECOND));
        (ledger, record)
    }

    fn told(revision: i64, record: Option<ShardRecord>) -> Sighting {
        Sighting { revision, store: revision, value: RecordValue { record, odd: None }, ..Sighting::default() }
    }

    #[test]
    fn a_node_that_is_removed_by_others_ends_no_lease() {
        let (mut ledger, record) = owned();
        let (_, _) = ledger.send(record.clone(), 3 * SECOND);
        ledger.lost(Duration::ZERO);
        let without = ShardRecord { nodes: vec!["a".into()], ..record };
        assert!(ledger.note(told(11, Some(without.clone())), LATE, 3 * SECOND));
        assert_eq!((ledger.renewed, ledger.known()), (Some(SECOND), Some(&without)));
    }

    #[test]
    fn a_watch_that_tells_of_lower_revisions_puts_off_no_reading() {
        for (revision, is_due) in [(9, true), (10, false), (11, false)] {
            let (mut ledger, record) = owned();
            ledger.note(told(revision, Some(record)), LATE, 9 * SECOND);
            assert_eq!(ledger.ask(SECOND, 9 * SECOND), is_due, "{revision}");
        }
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
            assert!(ledger.note(told(11, other), LATE, 3 * SECOND));
            assert_eq!(ledger.renewed, None);
        }
    }
}
