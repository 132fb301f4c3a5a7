//! One reader of the journal: how far it has read, and what it must be told again.
//!
//! ```text
//!           attach                    all ranges scanned once           attach (its lsn is still in the ring)
//!             v                                  v                                  v
//!          Syncing ───────── synced ─────> Streaming <──── caught up ───── Lagged
//!             ^                                 └── records were lost ──────^  │
//!             └── too much was lost: a Flush, or too many deletes ────────────┘
//!
//! dirty      a bit for each range: what the peer holds of these keys may be old; the range will be scanned
//! scanning   the range that was scanned last: some of its keys were sent before all of its records were read
//! deleted    keys of Deletes that the reader has not read: a scan of their ranges does not find them
//! ```
//!
//! What becomes of a record, by its range:
//!
//! ```text
//!                           clean      scanning    dirty          lost (dirty from then on)
//! Set, Touch, State, Hit    sent       sent        skipped        -
//! Delete                    sent       sent        sent           noted in `deleted`
//! Evicted                   skipped    a delete    a delete       noted in `deleted`, unless the range is clean
//! Flush                     sent       sent        sent           all must be scanned
//! ```
//!
//! An eviction is no change: if the peer was sent the last Set of a key, it may keep the value when the item is evicted
//! here. But in a dirty range the peer may hold a value that is older than the evicted one. So it is told a delete.
//!
//! Invariants ([`Reader::check`]): nothing is confirmed that was not read, and nothing is complete that was not
//! confirmed; a streaming reader has no dirty range and no lost delete; a full sync has at most as many ranges to go as
//! there are.

use super::ranges::Ranges;
use super::record::{CHECKPOINT, EVICTED, RecordKind};
use super::refused::{PeerRefusals, Suspect, Verdict};
use std::time::Instant;

/// The most bytes of keys in `deleted`. When there are more, most ranges are dirty anyway.
const DELETED_MAX: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// What a reader is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderState {
    /// All items, once, and changes between them.
    Syncing,
    /// Every change.
    Streaming,
    /// Changes, and what the changes were about that it has missed.
    Lagged,
}

/// What a consumer is told before it reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A full sync begins again.
    FullSync,
    /// Every range was scanned.
    Synced,
    /// Changes were lost; so many ranges are scanned again.
    Lagged(usize),
    /// The ranges of lost changes were scanned.
    CaughtUp,
}

/// What becomes of a record when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Sent,
    SentAsDelete,
    Skipped,
}

/// What to scan next.
#[derive(Debug)]
pub enum NextScan {
    /// Keys of lost deletes; for each, whether it came base64-encoded.
    Keys(Vec<(Vec<u8>, bool)>),
    /// A range of keys.
    Range(u32),
    /// A range of keys of which the peer has refused some: its items are journalled again.
    Again(u32),
    /// Nothing.
    None,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Reader {
    pub id: u64,
    pub name: String,
    pub identity: String,
    /// How many tenures had ended when it was attached.
    pub tenure: u64,
    pub state: ReaderState,
    /// Where in the ring it reads on.
    pub position: u64,
    /// The last record it has read.
    pub lsn: u64,
    /// Up to this position all records but deletes count as lost, so that a scan makes one of many changes of a key.
    pub coalesces_to: u64,
    /// The last lsn it has acknowledged.
    pub acked: u64,
    /// The peer has everything up to this lsn, and has acknowledged that.
    pub complete: u64,
    /// An acknowledgement from this lsn on means that the peer has everything. Snapshot slices and the end of a full
    /// sync have no numbers of their own, so a number is taken for that.
    clean_at: u64,
    dirty: Ranges,
    scanning: Option<u32>,
    /// Where the scan of dirty ranges goes on.
    at: u32,
    /// Ranges until the full sync is done.
    pass: u32,
    deleted: Keys,
    /// What the peer has refused.
    pub refused: PeerRefusals,
    /// Whether too much was lost, so that only a full sync helps.
    lost_all: bool,
    notices: [Option<Notice>; 2],
    pub counts: ReaderCounts,
}

/// What is counted of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReaderCounts {
    /// Full syncs that began.
    pub full_syncs_started: u64,
    /// Full syncs that ended.
    pub full_syncs_finished: u64,
    /// Times that it began to lose records.
    pub lagged: u64,
    /// Records that it lost, or that were left to a scan because the reader was far behind.
    pub lost: u64,
    /// Acknowledgements that said that the peer did not take all.
    pub refusals: u64,
}

impl Reader {
    /// A reader that has to be told everything.
    pub(super) fn new(id: u64, name: &str, identity: &str, ranges: u32) -> Reader {
        Reader {
            id,
            name: name.to_owned(),
            identity: identity.to_owned(),
            tenure: 0,
            state: ReaderState::Syncing,
            position: 0,
            lsn: 0,
            coalesces_to: 0,
            acked: 0,
            complete: 0,
            clean_at: u64::MAX,
            dirty: Ranges::new(ranges),
            scanning: None,
            at: 0,
            pass: 0,
            deleted: Keys::default(),
            refused: PeerRefusals::new(ranges),
            lost_all: false,
            notices: [None; 2],
            counts: ReaderCounts::default(),
        }
    }

    /// It has everything up to `lsn`, and reads on at `position`.
    pub(super) fn go_on(&mut self, lsn: u64, position: u64) {
        (self.lsn, self.position, self.state) = (lsn, position, ReaderState::Streaming);
        (self.acked, self.complete, self.clean_at) = (lsn, lsn, lsn);
    }

    /// It has nothing, and reads on at `position`, after `lsn`. Its consumer is to be told that by `notice`.
    pub(super) fn begin_full_sync(&mut self, lsn: u64, position: u64, notice: Option<Notice>) {
        (self.lsn, self.position, self.state) = (lsn, position, ReaderState::Syncing);
        (self.complete, self.clean_at, self.lost_all) = (0, u64::MAX, false);
        self.dirty.set_all();
        self.deleted = Keys::default();
        self.refused = PeerRefusals::new(self.dirty.len);
        self.notices = [notice, None];
        self.pass = self.dirty.len;
        self.counts.full_syncs_started += 1;
    }

    /// Whether this is its name, or its name with `@` and the identity of its peer.
    pub(super) fn is_called(&self, name: &str) -> bool {
        match name.split_once('@') {
            Some((name, identity)) => self.name == name && self.identity == identity,
            None => self.name == name,
        }
    }

    /// Notes what its peer has confirmed.
    pub(super) fn acknowledge(&mut self, lsn: u64, now: Instant) {
        self.acked = self.acked.max(lsn.min(self.lsn));
        self.refused.confirm(self.acked, now);
        self.complete_acked();
    }

    fn complete_acked(&mut self) {
        if self.state == ReaderState::Streaming && self.acked >= self.clean_at && !self.refused.is_held() {
            self.complete = self.acked;
        }
    }

    /// Notes that its peer has refused some of `among`, the changes since the last acknowledgement; None: nobody knows
    /// these any more. With `settles` it is found out which.
    pub(super) fn refuse(&mut self, lsn: u64, among: Option<&[Suspect]>, settles: bool, now: Instant) -> Verdict {
        self.counts.refusals += 1;
        let (before, was_clean) = (self.acked, self.acked >= self.clean_at);
        self.acked = self.acked.max(lsn.min(self.lsn));
        let among = among.filter(|_| was_clean && self.state == ReaderState::Streaming);
        let verdict = self.refused.judge((before, self.acked), among, settles, now);
        if settles {
            verdict.refused.iter().for_each(|&(after, upto)| self.refused.lsns.add(after, upto));
        }
        self.complete_acked();
        verdict
    }

    /// Suspects were journalled again; see [`PeerRefusals::sent_again`].
    pub(super) fn sent_again(&mut self, sent: &[(u64, u64)], now: Instant) {
        self.refused.sent_again(sent);
        self.refused.confirm(self.acked, now);
        self.complete_acked();
    }

    /// Whether it is sent every change, so that no [`Delivery`] need be asked for.
    #[inline]
    pub(super) fn takes_all(&self) -> bool {
        self.dirty.count == 0 && self.position >= self.coalesces_to
    }

    /// What becomes of a record.
    #[inline]
    pub(super) fn delivery(&mut self, kind: u8, range: impl FnOnce() -> u32) -> Delivery {
        if kind == RecordKind::Delete as u8 || kind == RecordKind::Flush as u8 {
            return Delivery::Sent;
        }
        if kind == CHECKPOINT {
            return Delivery::Skipped;
        }
        if kind == EVICTED {
            let kept = self.is_clean(range());
            return if kept { Delivery::Skipped } else { Delivery::SentAsDelete };
        }
        if self.position < self.coalesces_to {
            self.lose_item(kind, range());
            return Delivery::Skipped;
        }
        if self.dirty.count > 0 && self.dirty.has(range()) { Delivery::Skipped } else { Delivery::Sent }
    }

    /// The next record, which it has not read, is dropped.
    pub(super) fn lose(&mut self, kind: u8, range: u32, key: &[u8], key_is_binary: bool) {
        let noted = match kind {
            _ if kind == RecordKind::Flush as u8 => false,
            CHECKPOINT => return,
            EVICTED if self.is_clean(range) => return,
            _ if kind == EVICTED || kind == RecordKind::Delete as u8 => self.deleted.add(key, key_is_binary),
            _ => return self.lose_item(kind, range),
        };
        self.counts.lost += 1;
        self.lost_all |= !noted;
        self.lag();
    }

    /// Notes that a record of an item is lost.
    fn lose_item(&mut self, kind: u8, range: u32) {
        if kind != RecordKind::Hit as u8 {
            self.counts.lost += 1;
            self.dirty.set(range);
            self.lag();
        }
    }

    fn is_clean(&self, range: u32) -> bool {
        self.scanning != Some(range) && !self.dirty.has(range)
    }

    fn lag(&mut self) {
        if self.state == ReaderState::Streaming {
            self.state = ReaderState::Lagged;
            self.clean_at = u64::MAX;
            self.counts.lagged += 1;
            self.notices[1] = Some(Notice::Lagged(0));
        }
    }

    /// Whether it must begin from nothing.
    pub(super) fn has_lost_all(&self) -> bool {
        self.lost_all
    }

    /// Only a full sync can tell it what it lacks from now on.
    pub(super) fn lose_all(&mut self) {
        self.lost_all = true;
    }

    /// Whether it is to be told something before it reads on.
    pub(super) fn has_notice(&self) -> bool {
        self.notices != [None; 2]
    }

    /// What that is; then it has been told.
    pub(super) fn notice(&mut self) -> Option<Notice> {
        let [first, second] = &mut self.notices;
        match first.take().or_else(|| second.take()) {
            Some(Notice::Lagged(_)) => Some(Notice::Lagged(self.dirty.count)),
            notice => notice,
        }
    }

    /// What to scan, now that everything was read and every slice was handed out.
    pub(super) fn next_scan(&mut self, most: usize, now: Instant) -> NextScan {
        let keys = self.deleted.take(most);
        if !keys.is_empty() {
            return NextScan::Keys(keys);
        }
        let next = self.dirty.next(self.at);
        let distance = next.map(|range| (range + self.dirty.len - self.at) % self.dirty.len);
        if self.state == ReaderState::Syncing && distance.is_none_or(|distance| distance >= self.pass) {
            self.at = (self.at + self.pass) % self.dirty.len;
            self.end_pass();
            return NextScan::None;
        }
        let (Some(range), Some(distance)) = (next, distance) else {
            self.end_lag();
            return self.next_refused(now);
        };
        self.pass = self.pass.saturating_sub(distance + 1);
        self.at = (range + 1) % self.dirty.len;
        self.dirty.clear(range);
        self.scanning = Some(range);
        NextScan::Range(range)
    }

    /// When nothing else is to be scanned, what the peer has refused is sent again.
    fn next_refused(&mut self, now: Instant) -> NextScan {
        let is_settled = self.state == ReaderState::Streaming && self.acked >= self.clean_at;
        let next = if is_settled { self.refused.next(self.acked, now) } else { None };
        next.map_or(NextScan::None, NextScan::Again)
    }

    fn end_pass(&mut self) {
        self.pass = 0;
        self.counts.full_syncs_finished += 1;
        self.notices[0] = Some(Notice::Synced);
        self.state = ReaderState::Streaming;
        if self.dirty.count > 0 {
            self.lag();
        }
    }

    fn end_lag(&mut self) {
        if self.state == ReaderState::Lagged {
            self.state = ReaderState::Streaming;
            self.notices = [None, Some(Notice::CaughtUp)];
        }
    }

    /// Whether it is clean, and nobody has noted since when.
    pub(super) fn wants_checkpoint(&self) -> bool {
        self.state == ReaderState::Streaming && self.clean_at == u64::MAX
    }

    /// Whoever acknowledges record `lsn` has all that was handed out before it, slices and notices included.
    pub(super) fn note_checkpoint(&mut self, lsn: u64) {
        self.clean_at = lsn;
    }

    /// Ranges to be scanned.
    pub(super) fn dirty(&self) -> usize {
        self.dirty.count
    }

    /// Whether what is kept agrees with itself: after each step.
    pub(super) fn check(&self) {
        assert!(
            self.complete <= self.acked && self.acked <= self.lsn,
            "{} has confirmed what it has not read",
            self.name
        );
        let owes_nothing = self.dirty.count == 0 && self.deleted.keys.is_empty();
        assert!(self.state != ReaderState::Streaming || owes_nothing, "{} streams and lacks something", self.name);
        assert!(self.pass <= self.dirty.len, "{} syncs more ranges than there are", self.name);
        self.dirty.check();
        self.refused.check();
        assert!(!self.refused.is_held() || self.complete < self.acked, "{} passes what is not settled", self.name);
    }
}

/// Keys, each with whether it is binary, in a bounded number of bytes.
#[derive(Debug, Default)]
struct Keys {
    keys: Vec<(Vec<u8>, bool)>,
    bytes: usize,
}

impl Keys {
    /// Adds a key. False when there is no room.
    fn add(&mut self, key: &[u8], key_is_binary: bool) -> bool {
        let bytes = self.bytes + size_of::<(Vec<u8>, bool)>() + key.len();
        if bytes > DELETED_MAX {
            return false;
        }
        self.bytes = bytes;
        self.keys.push((key.to_vec(), key_is_binary));
        true
    }

    /// Takes out at most so many keys.
    fn take(&mut self, most: usize) -> Vec<(Vec<u8>, bool)> {
        let taken = self.keys.split_off(self.keys.len().saturating_sub(most));
        if self.keys.is_empty() {
            *self = Keys::default();
        }
        taken
    }
}
