//! What a consumer of the journal is sent, in the order that makes its copy converge.
//!
//! ```text
//! Subscription::next:   records ..............., up to L | slice | records after L ........ | slice | …
//!                                                        ^ taken under a shard's lock, when the last record was L
//! ```
//!
//! A snapshot slice holds the present items of one range of hashes: of every 2^k-th bucket of a shard. It is taken
//! under the shard's lock, and L is read there. Earlier changes of these items are in records up to L, and later ones
//! in records after L. So the order alone makes the copy equal to the store, whatever the consumer held before. A scan
//! keeps no item from changing, and needs no notes about items.
//!
//! Dirty ranges are scanned: in a full sync all ranges, else those of which records were lost (`journal/reader.rs`).
//! Sets in a range that is still dirty are skipped, because its scan will bring what they brought. A scan gives way to
//! live changes: a slice is taken only when all records were read.
//!
//! Invariants: at most one slice was taken and not handed out. A table grows only at its end, by buckets that get their
//! items from earlier ones; so a range that is scanned in ascending order of buckets misses no item that stays.
//!
//! Not here: bytes of a protocol (`replication`), which ranges are dirty (`journal`), what other servers send here
//! (`sources`).

use super::lock_time::{Holder, Slice};
use super::shard::Shard;
use super::{ItemId, Miss, Store};
use crate::journal::{Attach, AttachError, Journal, NextScan, Notice, Reading, RecordDraft, RecordKind, Start};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long [`Subscription::next`] looks for something to send before it lets its caller do something else. A scan may
/// find nothing for long: when a flush_all had flushed 6 million items it looked at all of them in one go, and for 620
/// ms the control thread neither read nor sent anything.
const LOOK: Duration = Duration::from_micros(100);

/// The most bytes of items in a slice; the last range or bucket may exceed it.
const SLICE_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 10 };

/// What [`Subscription::next`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Records, in the order in which they are sent. There are none if only the position is new, or nothing was found
    /// yet.
    Records,
    /// The consumer is told this, after all records that were handed out.
    Notice(Notice),
    /// There is nothing to send.
    Idle,
    /// Another consumer with this name has taken over.
    Detached,
}

/// A consumer's reading of the journal. Dropping it detaches the consumer.
#[derive(Debug)]
pub struct Subscription {
    store: Arc<Store>,
    start: Start,
    /// The last record that was handed out or left out.
    lsn: u64,
    /// The slice that was taken and not handed out yet: L and its records.
    slice: Option<(u64, Vec<u8>)>,
    /// Where the scan of a range goes on: the range and the next bucket.
    at: Option<(u32, usize)>,
    /// The same of a range whose items are journalled again.
    again: Option<(u32, usize)>,
    /// When the peer last refused something, or was last sent again what it had refused.
    trouble: Option<Instant>,
    /// Items of a bucket.
    found: Vec<ItemId>,
    /// Whether there was nothing to scan at the last look.
    settled: bool,
    /// Items of slices that were handed out since the last full sync began.
    items: u64,
    /// Items of the slice that was not.
    slice_items: u64,
}

impl Store {
    /// The journal.
    #[inline]
    pub fn journal(&self) -> &Journal {
        &self.core.journal
    }

    /// Attaches a consumer.
    pub fn attach(self: &Arc<Store>, attach: &Attach<'_>, now: Instant) -> Result<Subscription, AttachError> {
        let mut role = self.core.role.lock();
        let start = self.core.journal.attach(attach, role.upstreams_not_to_feed(now))?;
        role.feed(attach.identity);
        drop(role);
        let store = self.clone();
        let (lsn, found) = (start.lsn, Vec::new());
        Ok(Subscription {
            store,
            start,
            lsn,
            slice: None,
            at: None,
            again: None,
            trouble: None,
            found,
            settled: false,
            items: 0,
            slice_items: 0,
        })
    }

    /// Journals once more what a key holds, or that it holds nothing. The number of the record; if a flush_all has taken
    /// the item, of the last one, which comes after that.
    fn journal_again(&self, key: &[u8], key_is_binary: bool) -> u64 {
        let hash = self.core.hash(key);
        let mut shard = self.lock(hash);
        let appended = match shard.find(key, hash) {
            Ok(id) => shard.journal_again(id).0,
            Err(_) => shard.journal_absence(key, key_is_binary, hash),
        };
        drop(shard);
        appended.unwrap_or_else(|| self.core.journal.lsn_under_lock())
    }

    /// Journals once more that a key was deleted, unless there is an item again.
    fn delete_again(&self, key: &[u8], key_is_binary: bool) {
        let hash = self.core.hash(key);
        let mut shard = self.lock(hash);
        if shard.find(key, hash).is_err() {
            shard.journal_absence(key, key_is_binary, hash);
        }
    }
}

impl Subscription {
    /// Whether it began with a full sync. If not, it goes on where it was.
    pub fn began_with_full_sync(&self) -> bool {
        self.start.is_full_sync
    }

    /// The last record that was handed out or left out.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Items of the store that were handed out since the last full sync began, apart from changes.
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Notes that the peer has confirmed everything up to `lsn`.
    pub fn acknowledge(&self, lsn: u64) {
        self.store.core.journal.acknowledge(self.start.id, lsn, Instant::now());
    }

    /// Notes that the peer has confirmed everything up to `lsn`, except some of what came since the last time. If
    /// clients wait to hear which, all of that is journalled again: send it one by one.
    pub fn refuse(&mut self, lsn: u64) {
        let (journal, now) = (&self.store.core.journal, Instant::now());
        let suspects = journal.refuse(self.start.id, lsn, now);
        let again = suspects.iter().map(|it| (it.lsn, self.store.journal_again(&it.key, it.key_is_binary)));
        let again: Vec<_> = again.collect();
        if !again.is_empty() {
            journal.sent_again(self.start.id, &again, now);
        }
        self.trouble = Some(now);
    }

    /// When the peer last refused something, or was last sent again what it had refused.
    pub fn last_trouble(&self) -> Option<Instant> {
        self.trouble
    }

    /// Ranges of keys of which the peer has refused something.
    pub fn refused_ranges(&self) -> u64 {
        self.store.core.journal.refused_ranges(self.start.id)
    }

    /// What comes next. Records are appended to `records`, until it has about `max` bytes, or a slice more.
    pub fn next(&mut self, max: usize, records: &mut Vec<u8>) -> Update {
        records.clear();
        let (before, end) = (self.lsn, Instant::now() + LOOK);
        self.settled = false;
        while records.len() < max {
            match self.advance(max, records) {
                None if !self.settled && Instant::now() >= end => break,
                None => {}
                Some(Update::Idle) if records.is_empty() && self.lsn == before => return Update::Idle,
                Some(Update::Idle) => break,
                Some(update) => return update,
            }
        }
        Update::Records
    }

    /// Reads or scans one piece. None: there may be more.
    pub(crate) fn advance(&mut self, max: usize, records: &mut Vec<u8>) -> Option<Update> {
        let until = self.slice.as_ref().map_or(u64::MAX, |&(lsn, _)| lsn);
        match self.store.core.journal.read(self.start.id, until, max, records) {
            Reading::Detached => return Some(Update::Detached),
            Reading::Notice(notice, lsn) => {
                self.lsn = lsn;
                if notice == Notice::FullSync {
                    (self.slice, self.at, self.again, self.items) = (None, None, None, 0);
                }
                return Some(Update::Notice(notice));
            }
            Reading::NoticeWaits => return Some(Update::Records),
            Reading::Upto(lsn, more) => {
                self.lsn = lsn;
                if more && lsn < until {
                    return None;
                }
            }
        }
        if let Some((_, slice)) = self.slice.take() {
            records.extend_from_slice(&slice);
            self.items += self.slice_items;
            return None;
        }
        // When nothing is left to scan, there may be a notice of that.
        let scanned = self.scan_on();
        let settled = std::mem::replace(&mut self.settled, !scanned);
        (settled && !scanned).then_some(Update::Idle)
    }

    /// Takes the next slice, or looks up lost deletes. False when there is nothing to scan.
    fn scan_on(&mut self) -> bool {
        if self.again.is_some() {
            self.send_again();
            return true;
        }
        if self.at.is_none() {
            match self.store.core.journal.next_scan(self.start.id, Instant::now()) {
                NextScan::None => return false,
                NextScan::Keys(keys) => {
                    keys.iter().for_each(|(key, key_is_binary)| self.store.delete_again(key, *key_is_binary));
                    return true;
                }
                NextScan::Again(range) => {
                    self.again = Some((range, self.store.core.ranges.buckets_of(range).first));
                    return true;
                }
                NextScan::Range(range) => self.at = Some((range, self.store.core.ranges.buckets_of(range).first)),
            }
        }
        self.take_slice();
        true
    }

    /// Journals again a part of a range of which the peer has refused something.
    fn send_again(&mut self) {
        let Some((range, mut bucket)) = self.again.take() else { return };
        let (buckets, now) = (self.store.core.ranges.buckets_of(range), Instant::now());
        self.trouble = Some(now);
        let shard = self.store.lock_timed(buckets.shard, Holder::Walk);
        let (mut slice, mut bytes) = (Slice::new(), 0);
        while bucket < shard.table.buckets() && !slice.is_over() && bytes < SLICE_BYTES {
            shard.table.visit(bucket, usize::MAX, |id| self.found.push(id));
            bucket += buckets.step;
            let living = self.found.drain(..).filter(|&id| shard.death(id).is_none());
            bytes += living.map(|id| shard.journal_again(id).1).sum::<usize>();
        }
        self.again = (bucket < shard.table.buckets()).then_some((range, bucket));
        drop(shard);
        if self.again.is_none() {
            self.store.core.journal.range_done(self.start.id, now);
        }
    }

    fn take_slice(&mut self) {
        debug_assert!(self.slice.is_none(), "the last one was handed out");
        let Some((range, mut bucket)) = self.at.take() else { return };
        let buckets = self.store.core.ranges.buckets_of(range);
        let shard = self.store.lock_timed(buckets.shard, Holder::Walk);
        // This is read before any item is looked at.
        let lsn = self.store.core.journal.lsn_under_lock();
        let (mut slice, mut out) = (Slice::new(), Vec::new());
        self.slice_items = 0;
        while bucket < shard.table.buckets() {
            shard.table.visit(bucket, usize::MAX, |id| {
                shard.window.prefetch(id);
                self.found.push(id);
            });
            bucket += buckets.step;
            let mut is_over = slice.is_over();
            for id in self.found.drain(..) {
                self.slice_items += u64::from(shard.push_snapshot(id, &mut out));
                is_over |= slice.is_over();
            }
            if (is_over || out.len() >= SLICE_BYTES) && bucket < shard.table.buckets() {
                self.at = Some((range, bucket));
                break;
            }
        }
        self.slice = Some((lsn, out));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.store.core.journal.detach(self.start.id, Instant::now());
    }
}

impl Shard {
    /// Appends the change that makes an item what it is now. An expired item becomes a delete, because the peer may
    /// hold an older value. A flushed item is left out, because the record of the flush_all covers it. Whether it lives.
    fn push_snapshot(&self, id: ItemId, out: &mut Vec<u8>) -> bool {
        let item = self.item(id);
        let death = self.death(id);
        match death {
            None => self.entry(id, 0, RecordKind::Set).push(out),
            Some(Miss::Flushed) => {}
            Some(_) => RecordDraft::of(RecordKind::Delete as u8, 0, item.key(), item.key_is_binary()).push(out),
        }
        death.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{RecordKind, records};
    use crate::store::StoreConfig;
    use crate::store::tests::rig::{TestStore, tiny};

    const ATTACH: Attach<'_> = Attach { name: "name", identity: "peer", run_id: None, lsn: None };

    /// All there is, until there is nothing more.
    fn drain(feed: &mut Subscription) -> (Vec<Update>, Vec<(RecordKind, Vec<u8>)>) {
        let (mut steps, mut all, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let step = feed.next(1000, &mut bytes);
            if step == Update::Idle {
                return (steps, all);
            }
            if step != Update::Records {
                steps.push(step);
            }
            all.extend(records(&bytes).map(|record| (record.kind, record.key.to_vec())));
        }
    }

    #[test]
    fn a_walk_and_what_follows() {
        let rig = TestStore::new(tiny());
        assert!((0..300).all(|i| rig.set(&format!("key{i}"), b"value", 0)));
        let mut feed = rig.store.attach(&ATTACH, Instant::now()).unwrap();
        assert!(feed.began_with_full_sync());
        let (steps, all) = drain(&mut feed);
        assert_eq!((steps, all.len()), (vec![Update::Notice(Notice::Synced)], 300));
        rig.set("key7", b"new", 0);
        rig.unlink("key8");
        rig.store.flush_all(0, None);
        let (steps, all) = drain(&mut feed);
        let expected = [(RecordKind::Set, &b"key7"[..]), (RecordKind::Delete, b"key8"), (RecordKind::Flush, b"")];
        assert_eq!(steps, []);
        assert!(all.iter().map(|(kind, key)| (*kind, &key[..])).eq(expected));
        feed.acknowledge(feed.lsn());
        drop(feed);
        rig.set("key9", b"new", 0);
        let mut feed = rig.store.attach(&ATTACH, Instant::now()).unwrap();
        assert!(!feed.began_with_full_sync());
        assert_eq!(drain(&mut feed).1, [(RecordKind::Set, b"key9".to_vec())]);
        rig.store.check().unwrap();
    }

    #[test]
    fn a_walk_that_finds_nothing_does_not_look_on_for_long() {
        let items = if cfg!(miri) { 2_000 } else { 100_000 };
        let rig = TestStore::new(StoreConfig { memory_limit: 64 << 20, ..tiny() });
        assert!((0..items).all(|i| rig.set(&i.to_string(), b"", 0)));
        assert!(rig.store.core.flush.now(rig.clock.now()), "without unlinking them");
        let mut feed = rig.store.attach(&ATTACH, Instant::now()).unwrap();
        let (mut looks, mut bytes) = (0, Vec::new());
        while feed.next(1000, &mut bytes) == Update::Records {
            assert!(bytes.is_empty());
            looks += 1;
        }
        assert!(looks > 2, "{looks}");
        assert_eq!(drain(&mut feed), (vec![], vec![]));
    }
}
