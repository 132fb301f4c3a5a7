//! What the journal's lock guards: the ring, who reads it, who has read it, and what is sent to whom.
//!
//! ```text
//! append ──> ring ──> read, for each consumer: runs of neighbours that it is to be sent, copied out
//!             │
//!             ├── room is needed: the oldest record is lost to those who have not read it
//!             └── a segment is left: what nobody needs any more is given up
//! ```
//!
//! Invariants: `slowest` is the least position of the consumers, so an append asks for nothing else while there is
//! room; no name is attached twice, and who is attached is not remembered.
//!
//! Not here: the lock and what is around it (`journal`), what becomes of a record (`consumer`).

use super::reader::{Consumer, Fate};
use super::record::{Entry, Head, Kind, PAD, make_delete, range_of};
use super::ring::Ring;
use super::{Attach, AttachError, ConsumerStatus, Read};
use crate::clock::Clock;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Consumers at a time.
pub const CONSUMERS_MAX: usize = 8;

/// Consumers that are remembered after they have gone.
const REMEMBERED_MAX: usize = 32;

/// Bytes of the ring that are read under one lock: some 5 us, so that whoever waits to append does not go to sleep.
const SCAN: u64 = if cfg!(test) { 1 << 10 } else { 32 << 10 };

/// Read hits are sampled for at most one byte in so many of changes,
pub const HIT_SHARE: u64 = 100;
/// and for so many bytes a second beside, about 200 keys, so that a standby of a primary that is only read stays warm.
pub const HIT_FLOOR: u64 = 12 << 10;
/// Bytes that samples may save up.
const HIT_BURST: u64 = 64 << 10;

/// Samples of the head for the lag in time.
pub const SAMPLES: usize = 1024;

#[derive(Debug)]
pub struct Inner {
    pub on: bool,
    pub ring: Ring,
    /// Least position of the consumers.
    slowest: u64,
    pub consumers: Vec<Consumer>,
    pub remembered: VecDeque<Remembered>,
    pub attached: u64,
    pub required: u32,
    /// When the last consumer went, or none was needed any more.
    pub idle_since: Option<Instant>,
    /// Second of a flush_all that has not taken effect, 0 none.
    pub pending_flush: u32,
    /// In bytes times [`HIT_SHARE`].
    pub hit_allowance: u64,
    samples: Samples,
    pub walks_started: u64,
    pub walks_finished: u64,
}

/// A consumer that has gone.
#[derive(Clone, Debug)]
pub struct Remembered {
    pub name: String,
    pub identity: String,
    complete: u64,
}

/// Whether an identity is that of the server with this run id.
pub fn is_named(run_id: u64, identity: &str) -> bool {
    is_run_id(identity) && u64::from_str_radix(identity, 16) == Ok(run_id)
}

/// Whether an identity is a run id, which no two servers share.
pub fn is_run_id(identity: &str) -> bool {
    identity.len() == 16 && identity.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Inner {
    pub fn new() -> Inner {
        Inner {
            on: false,
            ring: Ring::new(),
            slowest: u64::MAX,
            consumers: Vec::new(),
            remembered: VecDeque::new(),
            attached: 0,
            required: 0,
            idle_since: None,
            pending_flush: 0,
            hit_allowance: 0,
            samples: Samples::default(),
            walks_started: 0,
            walks_finished: 0,
        }
    }

    /// One lsn is left out: what was read of an earlier journal cannot be continued, and 0 says that nothing is known.
    pub fn switch_on(&mut self, capacity: usize) {
        self.ring.allocate(capacity, self.ring.lsn() + 1);
        self.on = true;
    }

    /// Why nobody of that name and identity can be attached.
    pub fn check(&self, run_id: u64, name: &str, identity: &str, upstreams: &[u64]) -> Result<(), AttachError> {
        let others = || self.consumers.iter().filter(|other| other.name != name);
        if is_named(run_id, identity) {
            Err(AttachError::Itself)
        } else if upstreams.iter().any(|&run_id| is_named(run_id, identity)) {
            Err(AttachError::Upstream)
        } else if is_run_id(identity) && others().any(|other| other.identity == identity) {
            Err(AttachError::Twice)
        } else if others().count() == CONSUMERS_MAX {
            Err(AttachError::TooMany)
        } else {
            Ok(())
        }
    }

    /// Returns the memory to be freed. Who was here is remembered, but not from where it could go on.
    pub fn switch_off(&mut self) -> Vec<u8> {
        self.on = false;
        self.idle_since = None;
        self.remembered.iter_mut().for_each(|known| known.complete = 0);
        self.samples = Samples::default();
        self.ring.free()
    }

    pub fn note_idle(&mut self, now: Instant) {
        let needed = !self.on || self.required > 0 || !self.consumers.is_empty();
        self.idle_since = if needed { None } else { Some(self.idle_since.unwrap_or(now)) };
    }

    pub fn remove(&mut self, at: usize) {
        let Consumer { name, identity, complete, .. } = self.consumers.remove(at);
        self.remembered.retain(|other| other.name != name);
        self.remembered.push_back(Remembered { name, identity, complete });
        if self.remembered.len() > REMEMBERED_MAX {
            self.remembered.pop_front();
        }
        self.find_slowest();
    }

    /// The lsn up to which a consumer has everything. Where it is remembered it may know of less than was confirmed,
    /// never of more.
    pub fn goes_on_from(&self, attach: &Attach<'_>, run_id: u64) -> Option<u64> {
        let given = attach.lsn.filter(|_| attach.run_id == Some(run_id));
        let before =
            self.remembered.iter().find(|other| other.name == attach.name && other.identity == attach.identity);
        match before {
            Some(Remembered { complete: 0, .. }) => None,
            Some(Remembered { complete, .. }) => Some(given.unwrap_or(u64::MAX).min(*complete)),
            None => given,
        }
    }

    /// The lsn up to which as many consumers as are required have everything.
    pub fn confirmed(&self) -> u64 {
        let mut complete: Vec<u64> = self.consumers.iter().map(|consumer| consumer.complete).collect();
        complete.sort_unstable_by(|a, b| b.cmp(a));
        let at = (self.required as usize).checked_sub(1);
        at.and_then(|at| complete.get(at).copied()).unwrap_or(0)
    }

    #[inline]
    pub fn append(&mut self, entry: &Entry<'_>) -> u64 {
        let size = entry.size();
        if !self.ring.stays(size) {
            self.release();
        }
        while !self.ring.has_room(size) {
            if self.ring.tail() >= self.slowest {
                self.lose_oldest();
            }
            self.ring.drop_oldest();
        }
        self.hit_allowance += size as u64;
        self.ring.push(entry)
    }

    /// Gives up what nobody needs any more, so that its memory is used again while it is warm.
    #[cold]
    fn release(&mut self) {
        self.ring.release(self.not_needed());
        let tail = self.ring.tail();
        self.consumers.iter_mut().for_each(|consumer| consumer.position = consumer.position.max(tail));
        self.find_slowest();
    }

    /// The last record that every consumer has read, and that those who come back need not be sent again: of what
    /// they have completely, as far as they can go on from there.
    fn not_needed(&self) -> u64 {
        let goes_on = |&complete: &u64| complete != 0 && complete + 1 >= self.ring.first();
        let read = self.consumers.iter().map(|consumer| consumer.lsn);
        let complete = self.consumers.iter().map(|consumer| consumer.complete);
        let remembered = self.remembered.iter().map(|other| other.complete);
        read.chain(complete.chain(remembered).filter(goes_on)).min().unwrap_or(self.ring.lsn())
    }

    /// Takes the oldest record from those who have not read it.
    #[cold]
    fn lose_oldest(&mut self) {
        let (tail, (head, bytes)) = (self.ring.tail(), self.ring.oldest());
        for consumer in self.consumers.iter_mut().filter(|consumer| consumer.position == tail) {
            consumer.position += head.size() as u64;
            if head.kind != PAD {
                consumer.lsn += 1;
                consumer.lose(head.kind, range_of(bytes), head.key(bytes), head.key_is_binary());
            }
        }
        self.find_slowest();
    }

    pub fn find_slowest(&mut self) {
        self.slowest = self.consumers.iter().map(|consumer| consumer.position).min().unwrap_or(u64::MAX);
    }

    /// Appends the flush_all for later that is in effect now.
    #[inline]
    pub fn append_early_flush(&mut self, now: u32) {
        if self.pending_flush != 0 && now + 1 >= self.pending_flush {
            self.pending_flush = 0;
            if self.on {
                self.append_flush(0);
            }
        }
    }

    /// Appends the flush_all that was asked for before somebody listened.
    pub fn append_pending_flush(&mut self, clock: &Clock) {
        self.append_early_flush(clock.now());
        if self.pending_flush != 0 {
            self.append_flush(clock.unix(self.pending_flush));
        }
    }

    pub fn append_flush(&mut self, at: i64) -> u64 {
        self.append(&Entry { expires_at: at, ..Entry::of(Kind::Flush as u8, 0, b"", false) })
    }

    pub fn read(&mut self, id: u64, until: u64, max: usize, clock: &Clock, out: &mut Vec<u8>) -> Read {
        let Inner { ring, consumers, .. } = self;
        let Some(consumer) = consumers.iter_mut().find(|consumer| consumer.id == id) else { return Read::Gone };
        if consumer.is_fallen() {
            consumer.begin_walk(ring.lsn(), ring.head());
            consumer.say_walk();
            self.walks_started += 1;
            self.find_slowest();
            self.append_pending_flush(clock);
            return self.read(id, until, max, clock, out);
        }
        if consumer.has_turn() && !out.is_empty() {
            return Read::TurnWaits;
        }
        if let Some(turn) = consumer.turn() {
            return Read::Turn(turn, consumer.lsn);
        }
        if ring.head() - consumer.position > ring.capacity() as u64 / 2 {
            consumer.coalesces_to = ring.head();
        }
        let slowest = consumer.position == self.slowest;
        copy(ring, consumer, until, max, out);
        let read = Read::Upto(consumer.lsn, consumer.position < ring.head());
        if slowest {
            self.find_slowest();
        }
        read
    }

    pub fn sample(&mut self, now: Instant) {
        let passed = self.samples.add(now, self.ring.lsn());
        let floor = (HIT_FLOOR as f64 * passed.as_secs_f64()) as u64;
        self.hit_allowance = (self.hit_allowance + floor * HIT_SHARE).min(HIT_BURST * HIT_SHARE);
    }

    pub fn status_of(&self, consumer: &Consumer, now: Instant) -> ConsumerStatus {
        let since = self.samples.after(consumer.acked).filter(|_| consumer.acked < self.ring.lsn());
        ConsumerStatus {
            name: consumer.name.clone(),
            identity: consumer.identity.clone(),
            state: consumer.state,
            read: consumer.lsn,
            acked: consumer.acked,
            complete: consumer.complete,
            lag: self.ring.lsn().saturating_sub(consumer.acked),
            lag_bytes: self.ring.head() - consumer.position,
            lag_ms: since.map_or(0, |since| now.saturating_duration_since(since).as_millis() as u64),
            dirty: consumer.dirty() as u64,
            counts: consumer.counts,
        }
    }
}

/// Copies what a consumer is to be sent, in runs of neighbours, of [`SCAN`] bytes of the ring at most. For one that
/// takes all, a change costs 20 instructions less.
fn copy(ring: &Ring, consumer: &mut Consumer, until: u64, max: usize, out: &mut Vec<u8>) {
    let (bytes, takes_all) = (ring.from(consumer.position), consumer.takes_all());
    let (mut at, mut run) = (0, 0);
    while at < bytes.len() && at < SCAN as usize && consumer.lsn < until && out.len() + at - run < max {
        let record = &bytes[at..];
        let head = Head::read(record);
        let size = head.size();
        let fate = match head.kind {
            _ if takes_all && head.is_change() => Fate::Sent,
            PAD => Fate::Skipped,
            kind => consumer.fate(kind, || range_of(record)),
        };
        if fate != Fate::Sent {
            out.extend_from_slice(&bytes[run..at]);
            run = at + size;
        }
        if fate == Fate::SentAsDelete {
            let start = out.len();
            out.extend_from_slice(&record[..size]);
            make_delete(&mut out[start..]);
        }
        consumer.lsn += u64::from(head.kind != PAD);
        consumer.position += size as u64;
        at += size;
    }
    out.extend_from_slice(&bytes[run..at]);
}

/// When the head was where.
#[derive(Debug, Default)]
struct Samples(VecDeque<(Instant, u64)>);

impl Samples {
    /// Adds one, and says how long it is since the last. When there are too many, each second one goes.
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

    /// When there first was a later record than `lsn`, about.
    fn after(&self, lsn: u64) -> Option<Instant> {
        let at = self.0.partition_point(|&(_, head)| head <= lsn);
        self.0.get(at).or(self.0.back()).map(|&(at, _)| at)
    }
}
