//! What a consumer of the journal is sent, in the order that makes its copy converge.
//!
//! ```text
//! Feed::next:   records ..............., up to L | slice | records after L ........ | slice | …
//!                                                ^ taken under a shard's lock, when the last record was L
//! ```
//!
//! A slice is items as they are, of one range of hashes: every 2^k-th bucket of a shard, from one to all of them. It is
//! taken under the shard's lock, and L is read there: what was changed of these items before is in records up to L,
//! what is changed after in records after L. So order alone makes the copy what the store is, whatever the consumer
//! held before; no item is kept from changing, and nothing is noted for the walk's sake.
//!
//! Ranges are walked that are dirty: all of them at first, and those of which records were lost
//! (`journal/consumer.rs`). Sets of a range that is still dirty are skipped: its walk will bring what they brought. A
//! walk yields to live changes: it takes a slice only when all records were read.
//!
//! Invariants: at most one slice has been taken and not been handed out. A table only grows at its end, from buckets
//! before it, so a range that is walked bucket by bucket, ascending, misses no item that stays.
//!
//! Not here: bytes of a protocol (`command`), which ranges are dirty (`journal`).

use super::lock_time::{By, Slice};
use super::shard::Shard;
use super::{Miss, Relation, Source, SourceError, Store};
use crate::journal::{Attach, AttachError, Begin, Entry, Journal, Kind, Read, Target, Turn};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long [`Feed::next`] looks for something to be sent before it lets its caller do something else. A walk may have
/// nothing to send for long: of 6 million items that a flush_all had taken it looked at all in one go, and nobody was
/// heard or told anything for 620 ms.
const LOOK: Duration = Duration::from_micros(100);

/// Bytes of items that one slice may have; one more range or bucket may come on top.
const SLICE_BYTES: usize = if cfg!(test) { 1 << 10 } else { 64 << 10 };

/// What [`Feed::next`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records, in the order to be sent; none, when the position is all that is new, or nothing was found yet.
    Records,
    /// A full walk begins again: everything is to be sent, and what was there before is to go.
    Walk,
    /// All ranges were walked once.
    Walked,
    /// Changes were lost, and so many ranges are walked again.
    Overtaken(usize),
    /// They were, and nothing is missing.
    CaughtUp,
    /// There is nothing to be sent.
    Idle,
    /// Another consumer with this name has taken over.
    Gone,
}

/// A consumer of the journal. Dropping it detaches.
#[derive(Debug)]
pub struct Feed {
    store: Arc<Store>,
    begin: Begin,
    /// The last record that was handed out or left out.
    lsn: u64,
    /// Taken, and not yet handed out: L and its records.
    slice: Option<(u64, Vec<u8>)>,
    /// Where the walk of a range goes on: the range and the next bucket.
    at: Option<(u32, usize)>,
    /// Items of a bucket.
    found: Vec<u32>,
    /// There was nothing to be walked when it last looked.
    settled: bool,
}

impl Store {
    /// The journal.
    #[inline]
    pub fn journal(&self) -> &Journal {
        &self.core.journal
    }

    /// Attaches a consumer.
    pub fn attach(self: &Arc<Store>, attach: &Attach<'_>, now: Instant) -> Result<Feed, AttachError> {
        let mut role = self.core.role.lock();
        let begin = self.core.journal.attach(attach, role.live_upstreams(now))?;
        role.feed(attach.identity);
        drop(role);
        let store = self.clone();
        Ok(Feed { store, begin, lsn: begin.lsn, slice: None, at: None, found: Vec::new(), settled: false })
    }

    /// How many consumers must confirm a change before its reply goes out, from now on.
    pub fn set_replicas_ack(&self, required: u32, now: Instant) {
        self.core.journal.set_required(&self.core.safety, required, now);
    }

    /// Whether a consumer of that name and identity could be attached, and if so, what its peer and this server have of
    /// each other. And where this server's own changes come from.
    pub fn meet(&self, name: &str, identity: &str, now: Instant) -> Result<(Relation, Vec<u64>), AttachError> {
        let role = self.core.role.lock();
        let upstreams = role.live_upstreams(now);
        let was_here = self.core.journal.knows(name, identity, upstreams)?;
        let relation = match was_here {
            _ if role.is_from(identity) => Relation::Source,
            true => Relation::Copy,
            false => Relation::Stranger,
        };
        Ok((relation, upstreams.to_vec()))
    }

    /// Run id of the live server that this one gets its changes from.
    pub fn upstream(&self, now: Instant) -> Option<u64> {
        self.core.role.lock().live_upstreams(now).first().copied()
    }

    /// Says that a connection, which was `source` before, brings the changes of the first of these run ids, which has
    /// its own from the second, and so on. It stays so for some seconds. When this returns, nothing is applied any more
    /// of a connection that brought the changes of the same run before.
    pub fn announce(
        &self,
        run_ids: &[u64],
        source: Option<&Arc<Source>>,
        now: Instant,
    ) -> Result<Arc<Source>, SourceError> {
        let mut role = self.core.role.admit(source.map(|source| &**source)).ok_or(SourceError::Replaced)?;
        let journal = &self.core.journal;
        if run_ids.first() == Some(&journal.run_id()) {
            return Err(SourceError::Itself);
        }
        if run_ids.iter().any(|&run_id| run_id == journal.run_id() || journal.feeds(run_id)) {
            return Err(SourceError::Circle);
        }
        let (source, took_over) = role.follow(run_ids, source, now);
        self.core.flush.renew_refresh(self.core.clock.now());
        self.core.role.follow_cas();
        drop(role);
        if took_over {
            // Whoever writes for the one that was replaced has asked before, and holds one of these locks.
            self.shards().for_each(drop);
        }
        Ok(source)
    }

    /// Begins a refresh: what is not stored again until its end is dropped then. Nothing is done if the role does not
    /// admit `source`.
    pub fn begin_refresh(&self, source: Option<&Source>) {
        if let Some(_role) = self.core.role.admit(source) {
            self.core.journal.forget_flush(|now| self.core.flush.begin_refresh(now));
        }
    }

    /// Ends it. False when there is none, or its upstream was silent for too long.
    pub fn end_refresh(&self, source: Option<&Source>) -> bool {
        let Some(role) = self.core.role.admit(source) else { return false };
        let ended = self.core.flush.end_refresh(self.core.clock.now());
        drop(role);
        if ended {
            self.core.journal.walk_again();
            self.unlink_dead();
        }
        ended
    }
}

impl Feed {
    /// Whether it began with a full walk; else it goes on where it was.
    pub fn began_with_walk(&self) -> bool {
        self.begin.walk
    }

    /// The last record that was handed out, or that needed not be.
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Notes that the peer has confirmed everything up to `lsn`.
    pub fn acknowledge(&self, lsn: u64) {
        let core = &self.store.core;
        core.journal.acknowledge(&core.safety, self.begin.id, lsn);
    }

    /// The same, but for some of what came since the last time, which the peer does not have.
    pub fn refuse(&self, lsn: u64) {
        let core = &self.store.core;
        core.journal.refuse(&core.safety, self.begin.id, lsn);
    }

    /// What comes next. With [`Step::Records`] they are in `records`, about `max` bytes or a slice more.
    pub fn next(&mut self, max: usize, records: &mut Vec<u8>) -> Step {
        records.clear();
        let (before, end) = (self.lsn, Instant::now() + LOOK);
        self.settled = false;
        while records.len() < max {
            match self.advance(max, records) {
                None if !self.settled && Instant::now() >= end => break,
                None => {}
                Some(Step::Idle) if records.is_empty() && self.lsn == before => return Step::Idle,
                Some(Step::Idle) => break,
                Some(step) => return step,
            }
        }
        Step::Records
    }

    /// One piece of reading or walking. None when there may be more.
    pub(crate) fn advance(&mut self, max: usize, records: &mut Vec<u8>) -> Option<Step> {
        let until = self.slice.as_ref().map_or(u64::MAX, |&(lsn, _)| lsn);
        match self.store.core.journal.read(self.begin.id, until, max, records) {
            Read::Gone => return Some(Step::Gone),
            Read::Turn(turn, lsn) => return Some(self.take_turn(turn, lsn)),
            Read::TurnWaits => return Some(Step::Records),
            Read::Upto(lsn, more) => {
                self.lsn = lsn;
                if more && lsn < until {
                    return None;
                }
            }
        }
        if let Some((_, slice)) = self.slice.take() {
            records.extend_from_slice(&slice);
            return None;
        }
        // Where nothing is left to be walked, there may be a turn to be told of that.
        let walked = self.walk_on();
        let settled = std::mem::replace(&mut self.settled, !walked);
        (settled && !walked).then_some(Step::Idle)
    }

    fn take_turn(&mut self, turn: Turn, lsn: u64) -> Step {
        self.lsn = lsn;
        match turn {
            Turn::Walk => {
                (self.slice, self.at) = (None, None);
                Step::Walk
            }
            Turn::Walked => Step::Walked,
            Turn::Overtaken(ranges) => Step::Overtaken(ranges),
            Turn::CaughtUp => Step::CaughtUp,
        }
    }

    /// Takes the next slice, or looks up lost deletes. False when there is nothing to be walked.
    fn walk_on(&mut self) -> bool {
        if self.at.is_none() {
            match self.store.core.journal.target(self.begin.id) {
                Target::None => return false,
                Target::Keys(keys) => {
                    keys.iter().for_each(|(key, key_is_binary)| self.store.delete_again(key, *key_is_binary));
                    return true;
                }
                Target::Range(range) => self.at = Some((range, self.store.core.journal.buckets_of(range).1)),
            }
        }
        self.take_slice();
        true
    }

    fn take_slice(&mut self) {
        let Some((range, mut bucket)) = self.at.take() else { return };
        let (index, _, step) = self.store.core.journal.buckets_of(range);
        let shard = self.store.hold(index, By::Walk);
        // Before any item is looked at.
        let lsn = self.store.core.journal.lsn_under_lock();
        let (mut slice, mut out) = (Slice::new(), Vec::new());
        while bucket < shard.table.buckets() {
            shard.table.visit(bucket, usize::MAX, |id| {
                shard.window.prefetch(id);
                self.found.push(id);
            });
            bucket += step;
            let mut is_over = slice.is_over();
            for id in self.found.drain(..) {
                shard.push_walked(id, &mut out);
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

impl Drop for Feed {
    fn drop(&mut self) {
        self.store.core.journal.detach(self.begin.id, Instant::now());
    }
}

impl Store {
    /// Journals once more that a key was deleted, if it is not there.
    fn delete_again(&self, key: &[u8], key_is_binary: bool) {
        let hash = self.core.hash(key);
        let mut shard = self.shard(self.shard_of(hash));
        if shard.find(key, hash).is_err() {
            let range = self.core.journal.range(hash.0);
            let entry = Entry::of(Kind::Delete as u8, range, key, key_is_binary);
            self.core.journal.append(&self.core.flush, &entry, u64::MAX);
        }
    }
}

impl Shard {
    /// Appends an item as a change that makes it what it is: an expired one as a delete, for there may be an older
    /// value of it. What was flushed, a Flush tells.
    fn push_walked(&self, id: u32, out: &mut Vec<u8>) {
        let item = self.item(id);
        match self.death(id) {
            None => self.entry(id, 0, Kind::Set).push(out),
            Some(Miss::Flushed) => {}
            Some(_) => Entry::of(Kind::Delete as u8, 0, item.key(), item.key_is_binary()).push(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Kind, records};
    use crate::store::StoreConfig;
    use crate::store::tests::rig::{TestStore, tiny};

    const ATTACH: Attach<'_> = Attach { name: "name", identity: "peer", run_id: None, lsn: None };

    /// All there is, until there is nothing more.
    fn drain(feed: &mut Feed) -> (Vec<Step>, Vec<(Kind, Vec<u8>)>) {
        let (mut steps, mut all, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let step = feed.next(1000, &mut bytes);
            if step == Step::Idle {
                return (steps, all);
            }
            if step != Step::Records {
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
        assert!(feed.began_with_walk());
        let (steps, all) = drain(&mut feed);
        assert_eq!((steps, all.len()), (vec![Step::Walked], 300));
        rig.set("key7", b"new", 0);
        rig.unlink("key8");
        rig.store.flush_all(0, None);
        let (steps, all) = drain(&mut feed);
        let expected = [(Kind::Set, &b"key7"[..]), (Kind::Delete, b"key8"), (Kind::Flush, b"")];
        assert_eq!(steps, []);
        assert!(all.iter().map(|(kind, key)| (*kind, &key[..])).eq(expected));
        feed.acknowledge(feed.lsn());
        drop(feed);
        rig.set("key9", b"new", 0);
        let mut feed = rig.store.attach(&ATTACH, Instant::now()).unwrap();
        assert!(!feed.began_with_walk());
        assert_eq!(drain(&mut feed).1, [(Kind::Set, b"key9".to_vec())]);
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
        while feed.next(1000, &mut bytes) == Step::Records {
            assert!(bytes.is_empty());
            looks += 1;
        }
        assert!(looks > 2, "{looks}");
        assert_eq!(drain(&mut feed), (vec![], vec![]));
    }
}
