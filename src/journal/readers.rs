//! All readers of the journal: which are attached, which have gone, how far enough of them have confirmed, and which
//! records nobody needs any more.
//!
//! ```text
//! ring ──> read, for each reader: runs of neighbours that it is to be sent, copied out
//!   │
//!   ├── room is needed: the oldest record is lost to readers that have not read it
//!   └── the head leaves a segment: records that nobody needs any more are dropped
//! ```
//!
//! A change is confirmed when as many readers as are required have it, or all members; a reader that has refused it has
//! it not. It is refused when so many have refused it that it cannot be confirmed any more. So nobody refuses for others,
//! and in a shard nobody refuses but its members.
//!
//! What is remembered of a reader that has gone says what its peer lacks for as long as all that changes here is journalled,
//! and the peer takes changes from nobody else. The end of a refresh drops items without a record, and between two tenures
//! of this server another owner may have fed the peer: in both cases a reader of before begins anew, whether it is attached
//! or not. A reader that has attached since the last tenure ended belongs to the next one, and goes on.
//!
//! Invariants ([`Readers::check`]): `slowest` is the least position of the readers, so that an append looks at nothing
//! else while there is room; every position lies in the ring; no name is attached twice; a reader is either attached or
//! remembered.
//!
//! Not here: the lock (`journal`), what becomes of a record (`reader`).

use super::reader::{Delivery, Notice, Reader, ReaderCounts, ReaderState};
use super::record::{Head, PAD, RecordKind, make_delete, range_of};
use super::refused::{PeerRefusals, Suspect};
use super::ring::Ring;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The most readers at a time.
pub const READERS_MAX: usize = 8;

/// The most readers that are remembered after they have gone.
const REMEMBERED_MAX: usize = 32;

/// Bytes of the ring that are read under one lock. It takes some 5 us, so that a thread that waits to append does not
/// go to sleep.
const SCAN: u64 = if cfg!(test) { 1 << 10 } else { 32 << 10 };

/// Samples of the head for the lag in time.
pub(super) const SAMPLES: usize = 1024;

/// A request to read the journal.
#[derive(Clone, Copy, Debug)]
pub struct Attach<'a> {
    /// The reader's name. It takes the place of a reader of this name that is attached.
    pub name: &'a str,
    /// The peer's identity; another identity has other data.
    pub identity: &'a str,
    /// The run whose changes the peer has, if that is known.
    pub run_id: Option<u64>,
    /// The peer has everything up to this lsn of the run. An lsn without a run: what it has is to be sent again.
    pub lsn: Option<u64>,
}

/// Why a reader was not attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The peer is this server.
    Itself,
    /// The peer is a server whose changes come here.
    Upstream,
    /// There are [`READERS_MAX`] already.
    TooMany,
    /// The peer is fed already, under another name.
    Twice,
}

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// The reader's number.
    pub id: u64,
    /// Whether it begins with a full sync.
    pub is_full_sync: bool,
    /// The first record that it reads comes after this one.
    pub lsn: u64,
}

/// The result of reading.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// The reader is not attached any more.
    Detached,
    /// The consumer is told this first; nothing was read.
    Notice(Notice, u64),
    /// The consumer is told something before it reads on, but after what is in `out`; nothing was read.
    NoticeWaits,
    /// It has read up to this lsn; the flag says whether there is more.
    Upto(u64, bool),
}

/// A reader, for `stats replication`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of `stats replication`")]
pub struct ConsumerStatus {
    pub name: String,
    pub identity: String,
    pub state: ReaderState,
    /// The lsn of the last record that was read; the last that was acknowledged; and up to where the peer has
    /// everything.
    pub read: u64,
    pub acked: u64,
    pub complete: u64,
    /// How many records it has not acknowledged, how many bytes it has not read, and since when it lacks the oldest.
    pub lag: u64,
    pub lag_bytes: u64,
    pub lag_ms: u64,
    /// Ranges to be scanned.
    pub dirty: u64,
    /// Ranges of which the peer has refused something.
    pub refused: u64,
    pub counts: ReaderCounts,
}

/// Which changes no reply need wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decided {
    /// All up to this one.
    pub upto: u64,
    /// Those of them that were refused: after one number, up to the other. Each is told once.
    pub refused: Vec<(u64, u64)>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Readers {
    attached: Vec<Reader>,
    remembered: VecDeque<Remembered>,
    /// Number of the reader that was attached last.
    last_id: u64,
    /// How many tenures of this server as an owner have ended.
    tenure: u64,
    /// Least position of a reader.
    slowest: u64,
    /// How many must confirm a change.
    pub required: u32,
    /// Who must: all of these, and there must be as many as are required. None: anybody counts. A name may end in `@` and
    /// an identity: then another run of that peer does not count.
    pub members: Option<Vec<String>>,
    /// The last change that was confirmed or refused.
    decided: u64,
    samples: Samples,
    pub full_syncs_started: u64,
    pub full_syncs_finished: u64,
}

/// A reader that has gone.
#[derive(Clone, Debug)]
struct Remembered {
    name: String,
    identity: String,
    complete: u64,
    /// The last change when it went. It was sent nothing after that.
    last: u64,
    refused: PeerRefusals,
}

/// Whether an identity names the server with this run id.
pub fn is_named(run_id: u64, identity: &str) -> bool {
    is_run_id(identity) && u64::from_str_radix(identity, 16) == Ok(run_id)
}

/// Whether an identity is a run id, which no two servers share: then the peer is a twincached.
pub fn is_run_id(identity: &str) -> bool {
    identity.len() == 16 && identity.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Readers {
    pub(super) fn new() -> Readers {
        Readers {
            attached: Vec::new(),
            remembered: VecDeque::new(),
            last_id: 0,
            tenure: 0,
            slowest: u64::MAX,
            required: 0,
            members: None,
            decided: 0,
            samples: Samples::default(),
            full_syncs_started: 0,
            full_syncs_finished: 0,
        }
    }

    pub(super) fn get(&mut self, id: u64) -> Option<&mut Reader> {
        self.attached.iter_mut().find(|reader| reader.id == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attached.is_empty()
    }

    /// Why nobody of that name and identity can be attached to the journal `run_id`, which changes that came from
    /// `upstreams`.
    pub(super) fn admit(&self, run_id: u64, name: &str, identity: &str, upstreams: &[u64]) -> Result<(), AttachError> {
        let others = || self.attached.iter().filter(|other| other.name != name);
        if is_named(run_id, identity) {
            Err(AttachError::Itself)
        } else if upstreams.iter().any(|&run_id| is_named(run_id, identity)) {
            Err(AttachError::Upstream)
        } else if is_run_id(identity) && others().any(|other| other.identity == identity) {
            Err(AttachError::Twice)
        } else if others().count() == READERS_MAX {
            Err(AttachError::TooMany)
        } else {
            Ok(())
        }
    }

    /// Whether one of that name and identity is attached or was.
    pub(super) fn knows(&self, name: &str, identity: &str) -> bool {
        // Processes in containers may have the same number and second of start: of these the name counts, too.
        let is_it = |known: &str, as_name: &str| known == identity && (is_run_id(identity) || as_name == name);
        self.attached.iter().any(|other| is_it(&other.identity, &other.name))
            || self.remembered.iter().any(|other| is_it(&other.identity, &other.name))
    }

    /// Whether the server with this run id is the peer of one.
    pub(super) fn feeds(&self, run_id: u64) -> bool {
        self.attached.iter().any(|reader| is_named(run_id, &reader.identity))
    }

    /// Attaches one to the journal `run_id`, in place of another one of its name. With a full sync it needs, if that is
    /// pending, the flush_all that was asked for before.
    pub(super) fn attach(&mut self, attach: &Attach<'_>, run_id: u64, ranges: u32, ring: &Ring) -> Start {
        self.remove(ring.lsn(), |reader| reader.name == attach.name);
        self.last_id += 1;
        let mut reader = Reader::new(self.last_id, attach.name, attach.identity, ranges);
        reader.tenure = self.tenure;
        let from = self.goes_on_from(attach, run_id);
        let before =
            self.remembered.iter().find(|other| other.name == attach.name && other.identity == attach.identity);
        before.iter().for_each(|before| reader.refused = before.refused.clone());
        self.remembered.retain(|other| other.name != attach.name);
        let place = from.and_then(|lsn| Some((lsn, ring.after(lsn)?)));
        match place {
            Some((lsn, position)) => reader.go_on(lsn, position),
            None => {
                reader.begin_full_sync(ring.lsn(), ring.head(), None);
                self.full_syncs_started += 1;
            }
        }
        let start = Start { id: reader.id, is_full_sync: place.is_none(), lsn: reader.lsn };
        self.attached.push(reader);
        self.find_slowest();
        start
    }

    /// Lets one go, and remembers how far it has got.
    pub(super) fn detach(&mut self, id: u64, last: u64) {
        self.remove(last, |reader| reader.id == id);
    }

    fn remove(&mut self, last: u64, is_it: impl Fn(&Reader) -> bool) {
        let Some(at) = self.attached.iter().position(is_it) else { return };
        let reader = self.attached.remove(at);
        let has_lost_all = reader.has_lost_all();
        let Reader { name, identity, complete, refused, .. } = reader;
        let (complete, refused) = (if has_lost_all { 0 } else { complete }, refused.remembered());
        self.remembered.retain(|other| other.name != name);
        self.remembered.push_back(Remembered { name, identity, complete, last, refused });
        if self.remembered.len() > REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.find_slowest();
    }

    /// The lsn up to which a peer has everything: the lower one of what the reader says and what is remembered. A peer that
    /// has more than there was when its reader went has it from elsewhere, as an owner that has handed a shard over: what
    /// is remembered says nothing of that.
    fn goes_on_from(&self, attach: &Attach<'_>, run_id: u64) -> Option<u64> {
        if attach.run_id.is_none() && attach.lsn.is_some() {
            return None;
        }
        let given = attach.lsn.filter(|_| attach.run_id == Some(run_id));
        let before =
            self.remembered.iter().find(|other| other.name == attach.name && other.identity == attach.identity);
        match before.filter(|before| given.is_none_or(|lsn| lsn <= before.last)) {
            Some(Remembered { complete: 0, .. }) => None,
            Some(Remembered { complete, .. }) => Some(given.unwrap_or(u64::MAX).min(*complete)),
            None => given,
        }
    }

    /// The ring is freed: who was here is remembered, but not from where it could go on.
    pub(super) fn forget_positions(&mut self) {
        self.remembered.iter_mut().for_each(|known| known.complete = 0);
        self.samples = Samples::default();
    }

    /// Makes every one begin anew, also those that come back.
    pub(super) fn lose_all(&mut self) {
        self.attached.iter_mut().for_each(Reader::lose_all);
        self.remembered.iter_mut().for_each(|known| known.complete = 0);
    }

    /// Makes those begin anew who were attached in an earlier tenure: another owner may have fed their peers since. Where a
    /// reader that attaches says up to where its peer has everything, that still counts.
    pub(super) fn begin_tenure(&mut self) {
        for known in self.remembered.iter_mut().filter(|known| known.complete > 0) {
            (known.complete, known.last) = (0, 0);
        }
        self.attached.iter_mut().filter(|reader| reader.tenure != self.tenure).for_each(Reader::lose_all);
    }

    /// Readers that attach from now on belong to the next tenure. Those that are attached go on, to confirm the last changes.
    pub(super) fn end_tenure(&mut self) {
        self.tenure += 1;
    }

    /// What is confirmed or refused by now.
    pub(super) fn decide(&mut self) -> Decided {
        let mut decided = Decided { upto: self.answered(), refused: Vec::new() };
        let mut at = self.decided;
        while let Some((after, upto)) = self.next_refused(at).filter(|&(after, _)| after < decided.upto) {
            let upto = upto.min(decided.upto);
            let has = |reader: &&Reader| reader.complete >= upto;
            let may_have = |reader: &&Reader| has(reader) || reader.state == ReaderState::Streaming;
            let takers = || {
                let takes = |reader: &&Reader| reader.refused.lsns.after(after).is_none_or(|(start, _)| start >= upto);
                self.attached.iter().filter(|reader| self.counts(reader)).filter(takes)
            };
            if takers().filter(has).count() < self.needed() {
                if takers().filter(may_have).count() >= self.needed() {
                    decided.upto = after;
                    break;
                }
                decided.refused.push((after, upto));
            }
            at = upto;
        }
        self.decided = self.decided.max(decided.upto);
        self.attached.iter_mut().for_each(|reader| reader.refused.lsns.forget(self.decided));
        decided
    }

    /// The first changes after this one of which somebody has refused some: so many that each reader has refused all or
    /// none of them.
    fn next_refused(&self, after: u64) -> Option<(u64, u64)> {
        let of_each = || self.attached.iter().filter_map(|reader| reader.refused.lsns.after(after));
        let start = of_each().map(|(start, _)| start.max(after)).min()?;
        let upto = of_each().flat_map(|(start, end)| [start, end]).filter(|&end| end > start).min()?;
        Some((start, upto))
    }

    /// Whether what this reader says counts.
    fn counts(&self, reader: &Reader) -> bool {
        self.members.as_ref().is_none_or(|members| members.iter().any(|name| reader.is_called(name)))
    }

    /// How many must have a change.
    fn needed(&self) -> usize {
        (self.required as usize).max(self.members.as_ref().map_or(0, Vec::len))
    }

    /// The lsn up to which everybody has everything, or has refused it, who is required.
    fn answered(&self) -> u64 {
        if let Some(members) = &self.members {
            let has =
                |name: &String| self.attached.iter().find(|it| it.is_called(name)).map_or(0, |reader| reader.complete);
            let is_enough = members.len() >= self.required as usize;
            return members.iter().map(has).min().filter(|_| is_enough).unwrap_or(0);
        }
        let mut complete: Vec<u64> = self.attached.iter().map(|reader| reader.complete).collect();
        complete.sort_unstable_by(|a, b| b.cmp(a));
        let at = (self.required as usize).checked_sub(1);
        at.and_then(|at| complete.get(at).copied()).unwrap_or(0)
    }

    /// How many of those who must confirm a change are not there, or have not caught up.
    pub(super) fn missing(&self) -> u32 {
        let confirms = |reader: &&Reader| reader.state == ReaderState::Streaming && self.counts(reader);
        self.needed().saturating_sub(self.attached.iter().filter(confirms).count()) as u32
    }

    /// Drops records that nobody needs any more, so that their memory is used again while it is warm.
    #[cold]
    pub(super) fn release(&mut self, ring: &mut Ring) {
        ring.release(self.not_needed(ring));
        let tail = ring.tail();
        self.attached.iter_mut().for_each(|reader| reader.position = reader.position.max(tail));
        self.find_slowest();
    }

    /// The last record that nobody needs: every reader has read it, and none that comes back has to be sent it again.
    fn not_needed(&self, ring: &Ring) -> u64 {
        let goes_on = |&complete: &u64| complete != 0 && complete + 1 >= ring.first();
        let read = self.attached.iter().map(|reader| reader.lsn);
        let complete = self.attached.iter().map(|reader| reader.complete);
        let remembered = self.remembered.iter().map(|other| other.complete);
        read.chain(complete.chain(remembered).filter(goes_on)).min().unwrap_or(ring.lsn())
    }

    /// Whether there is a reader that has not read the oldest record.
    #[inline]
    pub(super) fn need_oldest(&self, ring: &Ring) -> bool {
        ring.tail() >= self.slowest
    }

    /// Tells the readers that have not read the oldest record that it is lost.
    #[cold]
    pub(super) fn lose_oldest(&mut self, ring: &Ring) {
        let (tail, (head, bytes)) = (ring.tail(), ring.oldest());
        for reader in self.attached.iter_mut().filter(|reader| reader.position == tail) {
            reader.position += head.size() as u64;
            if head.kind != PAD {
                reader.lsn += 1;
                reader.lose(head.kind, range_of(bytes), head.key(bytes), head.key_is_binary());
            }
            reader.check();
        }
        self.find_slowest();
    }

    fn find_slowest(&mut self) {
        self.slowest = self.attached.iter().map(|reader| reader.position).min().unwrap_or(u64::MAX);
    }

    /// Lets one begin again that has lost too much. Whether it has.
    pub(super) fn sync_again(&mut self, id: u64, ring: &Ring) -> bool {
        let Some(reader) = self.get(id).filter(|reader| reader.has_lost_all()) else { return false };
        reader.begin_full_sync(ring.lsn(), ring.head(), Some(Notice::FullSync));
        self.full_syncs_started += 1;
        self.find_slowest();
        true
    }

    /// See [`super::Journal::read`].
    pub(super) fn read(&mut self, ring: &Ring, id: u64, until: u64, max: usize, out: &mut Vec<u8>) -> Reading {
        let slowest = self.slowest;
        let Some(reader) = self.get(id) else { return Reading::Detached };
        if reader.has_notice() && !out.is_empty() {
            return Reading::NoticeWaits;
        }
        if let Some(notice) = reader.notice() {
            return Reading::Notice(notice, reader.lsn);
        }
        if ring.head() - reader.position > ring.capacity() as u64 / 2 {
            reader.coalesces_to = ring.head();
        }
        let was_slowest = reader.position == slowest;
        copy(ring, reader, until, max, out);
        reader.check();
        let reading = Reading::Upto(reader.lsn, reader.position < ring.head());
        if was_slowest {
            self.find_slowest();
        }
        reading
    }

    /// Notes where the head is now, and says how long it is since the last time.
    pub(super) fn sample(&mut self, now: Instant, lsn: u64) -> Duration {
        self.samples.add(now, lsn)
    }

    /// The last record that was there at this time, or an older one.
    pub(super) fn lsn_at(&self, time: Instant) -> u64 {
        self.samples.at(time)
    }

    /// All that are attached, for statistics.
    pub(super) fn status(&self, ring: &Ring, now: Instant) -> Vec<ConsumerStatus> {
        self.attached.iter().map(|reader| self.status_of(reader, ring, now)).collect()
    }

    fn status_of(&self, reader: &Reader, ring: &Ring, now: Instant) -> ConsumerStatus {
        let since = self.samples.after(reader.acked).filter(|_| reader.acked < ring.lsn());
        ConsumerStatus {
            name: reader.name.clone(),
            identity: reader.identity.clone(),
            state: reader.state,
            read: reader.lsn,
            acked: reader.acked,
            complete: reader.complete,
            lag: ring.lsn().saturating_sub(reader.acked),
            lag_bytes: ring.head() - reader.position,
            lag_ms: since.map_or(0, |since| now.saturating_duration_since(since).as_millis() as u64),
            dirty: reader.dirty() as u64,
            refused: reader.refused.count(),
            counts: reader.counts,
        }
    }

    /// Whether all agrees with each other and with the ring: after each step but an append.
    pub(super) fn check(&self, ring: &Ring) {
        for reader in &self.attached {
            reader.check();
            let has = ring.tail() <= reader.position && reader.position <= ring.head() && reader.lsn <= ring.lsn();
            assert!(has, "{} is where the ring is not", reader.name);
            debug_assert!(self.remembered.iter().all(|other| other.name != reader.name));
            debug_assert_eq!(self.attached.iter().filter(|other| other.name == reader.name).count(), 1);
        }
        let slowest = self.attached.iter().map(|reader| reader.position).min();
        assert_eq!(slowest.unwrap_or(u64::MAX), self.slowest, "the slowest reader is another one");
        assert!(self.attached.len() <= READERS_MAX && self.remembered.len() <= REMEMBERED_MAX);
    }
}

/// The changes after one number and up to the other that a peer may refuse, because they may come with a value. None:
/// they are not in the ring any more.
pub(super) fn suspects(ring: &Ring, after: u64, upto: u64) -> Option<Vec<Suspect>> {
    let (mut lsn, mut position, mut found) = (after, ring.after(after)?, Vec::new());
    while lsn < upto.min(ring.lsn()) {
        let bytes = ring.from(position);
        let head = Head::read(bytes);
        position += head.size() as u64;
        if head.kind == PAD {
            continue;
        }
        lsn += 1;
        if (RecordKind::Set as u8..=RecordKind::State as u8).contains(&head.kind) {
            let (key, key_is_binary) = (head.key(bytes).to_vec(), head.key_is_binary());
            found.push(Suspect { lsn, key, key_is_binary, range: range_of(bytes) });
        }
    }
    Some(found)
}

/// Copies the records that a reader is sent, in runs of neighbours, from at most [`SCAN`] bytes of the ring. For a
/// reader that is sent every change, a change costs 20 instructions less so.
fn copy(ring: &Ring, reader: &mut Reader, until: u64, max: usize, out: &mut Vec<u8>) {
    let (bytes, takes_all) = (ring.from(reader.position), reader.takes_all());
    let (mut at, mut run) = (0, 0);
    while at < bytes.len() && at < SCAN as usize && reader.lsn < until && out.len() + at - run < max {
        let record = &bytes[at..];
        let head = Head::read(record);
        let size = head.size();
        let delivery = match head.kind {
            _ if takes_all && head.is_change() => Delivery::Sent,
            PAD => Delivery::Skipped,
            kind => reader.delivery(kind, || range_of(record)),
        };
        if delivery != Delivery::Sent {
            out.extend_from_slice(&bytes[run..at]);
            run = at + size;
        }
        if delivery == Delivery::SentAsDelete {
            let start = out.len();
            out.extend_from_slice(&record[..size]);
            make_delete(&mut out[start..]);
        }
        reader.lsn += u64::from(head.kind != PAD);
        reader.position += size as u64;
        at += size;
    }
    out.extend_from_slice(&bytes[run..at]);
}

/// Where the head was at several moments.
#[derive(Debug, Default)]
struct Samples(VecDeque<(Instant, u64)>);

impl Samples {
    /// Adds a sample, and returns how long it is since the last. When there are too many, every other one is dropped.
    fn add(&mut self, now: Instant, lsn: u64) -> Duration {
        if self.0.len() == SAMPLES {
            let mut keep = false;
            self.0.retain(|_| {
                keep = !keep;
                keep
            });
        }
        let passed = self.0.back().map_or(Duration::ZERO, |&(last, _)| now.saturating_duration_since(last));
        self.0.push_back((now, lsn));
        passed
    }

    /// The last record that was there at this time, or an older one.
    fn at(&self, time: Instant) -> u64 {
        let at = self.0.partition_point(|&(sampled, _)| sampled <= time);
        at.checked_sub(1).map_or(0, |at| self.0[at].1)
    }

    /// About when the first record after `lsn` was there.
    fn after(&self, lsn: u64) -> Option<Instant> {
        let at = self.0.partition_point(|&(_, head)| head <= lsn);
        self.0.get(at).or(self.0.back()).map(|&(at, _)| at)
    }
}

#[cfg(test)]
#[path = "tests/decided.rs"]
mod tests;
