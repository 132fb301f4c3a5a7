//! One reader of the journal: how far it has read, and what it must be told again.
//!
//! ```text
//!           attach                    all ranges walked once            attach (its lsn is still in the ring)
//!             v                                  v                                  v
//!          Walking ──────── walked ──────> Streaming <──── caught up ──── Overtaken
//!             ^                                 └── records were lost ──────^  │
//!             └── too much was lost: a Flush, or too many deletes ────────────┘
//!
//! dirty      a bit for each range: what it holds of these keys may be old; the range will be walked
//! walking    the range that was walked last: some of its keys had been walked when some of its records were not read
//! deleted    keys of Deletes that it has not seen; their ranges' walks cannot tell them
//! ```
//!
//! What becomes of a record, by its range:
//!
//! ```text
//!                           clean      walking     dirty          lost (dirty from then on)
//! Set, Touch, State, Hit    sent       sent        skipped        -
//! Delete                    sent       sent        sent           noted in `deleted`
//! Gone                      skipped    a delete    a delete       noted in `deleted`, unless the range is clean
//! Flush                     sent       sent        sent           all must be walked
//! ```
//!
//! Gone needs the care because an older value than the one that went may be left with the consumer: of a key whose last
//! Set it has got, it may keep the value when the item is evicted here, because each side has its own memory.

use super::record::{GONE, Kind, NOTE};

/// Bytes of keys in `deleted`. When these do not do, most ranges are dirty anyway.
const DELETED_MAX: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// How a consumer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It gets all items, once.
    Walking,
    /// It gets every change.
    Streaming,
    /// It has missed changes, and gets again what they were about.
    Overtaken,
}

/// What a consumer is to be told before it reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A full walk begins, again.
    Walk,
    /// Every range was walked.
    Walked,
    /// Changes were lost; so many ranges are walked again.
    Overtaken(usize),
    /// They were walked.
    CaughtUp,
}

/// What becomes of a record when a consumer reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Sent,
    SentAsDelete,
    Skipped,
}

/// What to walk next.
#[derive(Debug)]
pub enum Target {
    /// Keys of lost deletes, each with whether it is binary.
    Keys(Vec<(Vec<u8>, bool)>),
    Range(u32),
    None,
}

/// A reader. See the module's head.
#[derive(Debug)]
pub struct Consumer {
    pub id: u64,
    pub name: String,
    pub identity: String,
    pub state: State,
    /// Where it reads on.
    pub position: u64,
    /// The last record it has read.
    pub lsn: u64,
    /// Up to this position it reads as if the records were lost, except for deletes.
    pub coalesces_to: u64,
    /// The last lsn it has acknowledged.
    pub acked: u64,
    /// The last lsn that it has completely, as far as it has acknowledged that.
    pub complete: u64,
    /// From here on acknowledgements say that it is complete: a slice, and the end of a walk, have no number of their
    /// own, so one is taken for it.
    clean_at: u64,
    dirty: Ranges,
    walking: Option<u32>,
    /// Where the walk goes on.
    at: u32,
    /// Ranges until the full walk is through.
    pass: u32,
    deleted: Keys,
    /// Too much was lost.
    fallen: bool,
    turns: [Option<Turn>; 2],
    pub counts: Counts,
}

/// What is counted of a consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Full walks.
    pub walks_started: u64,
    pub walks_finished: u64,
    /// Times that it began to lose records.
    pub overtaken: u64,
    /// Records that it lost, or that were left to a walk because it was far behind.
    pub lost: u64,
    /// Times that it has acknowledged with a reservation: its peer did not take all.
    pub refusals: u64,
}

impl Consumer {
    /// A consumer that has to be told everything.
    pub fn new(id: u64, name: &str, identity: &str, ranges: u32) -> Consumer {
        Consumer {
            id,
            name: name.to_owned(),
            identity: identity.to_owned(),
            state: State::Walking,
            position: 0,
            lsn: 0,
            coalesces_to: 0,
            acked: 0,
            complete: 0,
            clean_at: u64::MAX,
            dirty: Ranges::new(ranges),
            walking: None,
            at: 0,
            pass: 0,
            deleted: Keys::default(),
            fallen: false,
            turns: [None; 2],
            counts: Counts::default(),
        }
    }

    /// It has everything up to `lsn`, and reads on at `position`.
    pub fn go_on(&mut self, lsn: u64, position: u64) {
        (self.lsn, self.position, self.state) = (lsn, position, State::Streaming);
        (self.acked, self.complete, self.clean_at) = (lsn, lsn, lsn);
    }

    /// It has nothing, and reads on at `position`, after `lsn`.
    pub fn begin_walk(&mut self, lsn: u64, position: u64) {
        (self.lsn, self.position, self.state) = (lsn, position, State::Walking);
        (self.complete, self.clean_at, self.fallen) = (0, u64::MAX, false);
        self.dirty.set_all();
        self.deleted.clear();
        self.turns = [None; 2];
        self.pass = self.dirty.len;
        self.counts.walks_started += 1;
    }

    /// Notes what its peer has confirmed.
    pub fn acknowledge(&mut self, lsn: u64) {
        self.acked = self.acked.max(lsn.min(self.lsn));
        if self.state == State::Streaming && self.acked >= self.clean_at {
            self.complete = self.acked;
        }
    }

    /// Whether every change is sent: a [`Fate`] need not be asked for.
    #[inline]
    pub fn takes_all(&self) -> bool {
        self.dirty.count == 0 && self.position >= self.coalesces_to
    }

    /// What becomes of a record.
    #[inline]
    pub fn fate(&mut self, kind: u8, range: impl FnOnce() -> u32) -> Fate {
        if kind == Kind::Delete as u8 || kind == Kind::Flush as u8 {
            return Fate::Sent;
        }
        if kind == NOTE {
            return Fate::Skipped;
        }
        if kind == GONE {
            let kept = self.is_clean(range());
            return if kept { Fate::Skipped } else { Fate::SentAsDelete };
        }
        if self.position < self.coalesces_to {
            self.lose_item(kind, range());
            return Fate::Skipped;
        }
        if self.dirty.count > 0 && self.dirty.has(range()) { Fate::Skipped } else { Fate::Sent }
    }

    /// A record was dropped that it had not read.
    pub fn lose(&mut self, kind: u8, range: u32, key: &[u8], key_is_binary: bool) {
        let noted = match kind {
            _ if kind == Kind::Flush as u8 => false,
            NOTE => return,
            GONE if self.is_clean(range) => return,
            _ if kind == GONE || kind == Kind::Delete as u8 => self.deleted.add(key, key_is_binary),
            _ => return self.lose_item(kind, range),
        };
        self.counts.lost += 1;
        self.fallen |= !noted;
        self.overtake();
    }

    /// What it will not be told of an item.
    fn lose_item(&mut self, kind: u8, range: u32) {
        if kind != Kind::Hit as u8 {
            self.counts.lost += 1;
            self.dirty.set(range);
            self.overtake();
        }
    }

    fn is_clean(&self, range: u32) -> bool {
        self.walking != Some(range) && !self.dirty.has(range)
    }

    fn overtake(&mut self) {
        if self.state == State::Streaming {
            self.state = State::Overtaken;
            self.clean_at = u64::MAX;
            self.counts.overtaken += 1;
            self.turns[1] = Some(Turn::Overtaken(0));
        }
    }

    /// Whether it must begin from nothing.
    pub fn is_fallen(&self) -> bool {
        self.fallen
    }

    /// Makes it fall: only a full walk can tell it what it lacks.
    pub fn fall(&mut self) {
        self.fallen = true;
    }

    /// Notes what is to be told first.
    pub fn say_walk(&mut self) {
        self.turns[0] = Some(Turn::Walk);
    }

    /// Whether it is to be told something before it reads on.
    pub fn has_turn(&self) -> bool {
        self.turns != [None; 2]
    }

    /// What that is; then it has been told.
    pub fn turn(&mut self) -> Option<Turn> {
        let [first, second] = &mut self.turns;
        match first.take().or_else(|| second.take()) {
            Some(Turn::Overtaken(_)) => Some(Turn::Overtaken(self.dirty.count)),
            turn => turn,
        }
    }

    /// What to walk, now that everything was read and every slice was handed out.
    pub fn target(&mut self, most: usize) -> Target {
        let keys = self.deleted.take(most);
        if !keys.is_empty() {
            return Target::Keys(keys);
        }
        let next = self.dirty.next(self.at);
        let distance = next.map(|range| (range + self.dirty.len - self.at) % self.dirty.len);
        if self.state == State::Walking && distance.is_none_or(|distance| distance >= self.pass) {
            self.at = (self.at + self.pass) % self.dirty.len;
            self.end_pass();
            return Target::None;
        }
        let (Some(range), Some(distance)) = (next, distance) else {
            self.end_overtaken();
            return Target::None;
        };
        self.pass = self.pass.saturating_sub(distance + 1);
        self.at = (range + 1) % self.dirty.len;
        self.dirty.clear(range);
        self.walking = Some(range);
        Target::Range(range)
    }

    fn end_pass(&mut self) {
        self.pass = 0;
        self.counts.walks_finished += 1;
        self.turns[0] = Some(Turn::Walked);
        self.state = State::Streaming;
        if self.dirty.count > 0 {
            self.overtake();
        }
    }

    fn end_overtaken(&mut self) {
        if self.state == State::Overtaken {
            self.state = State::Streaming;
            self.turns = [None, Some(Turn::CaughtUp)];
        }
    }

    /// Whether it is clean, and nobody has noted since when.
    pub fn wants_note(&self) -> bool {
        self.state == State::Streaming && self.clean_at == u64::MAX
    }

    /// Whoever acknowledges record `lsn` has all that was handed out before it, slices and turns included.
    pub fn note(&mut self, lsn: u64) {
        self.clean_at = lsn;
    }

    /// Ranges to be walked.
    pub fn dirty(&self) -> usize {
        self.dirty.count
    }
}

/// A set of ranges.
#[derive(Debug)]
struct Ranges {
    bits: Vec<u64>,
    len: u32,
    count: usize,
}

impl Ranges {
    fn new(len: u32) -> Ranges {
        Ranges { bits: vec![0; len.div_ceil(64) as usize], len, count: 0 }
    }

    #[inline]
    fn has(&self, range: u32) -> bool {
        self.bits[range as usize / 64] >> (range % 64) & 1 != 0
    }

    fn set(&mut self, range: u32) {
        self.count += usize::from(!self.has(range));
        self.bits[range as usize / 64] |= 1 << (range % 64);
    }

    fn clear(&mut self, range: u32) {
        self.count -= usize::from(self.has(range));
        self.bits[range as usize / 64] &= !(1 << (range % 64));
    }

    fn set_all(&mut self) {
        (0..self.len).for_each(|range| self.set(range));
    }

    /// The first one from `at` on, then from 0 on.
    fn next(&self, at: u32) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let (word, bit) = (at as usize / 64, at % 64);
        let first = self.bits[word] & (u64::MAX << bit);
        let words = self.bits.len();
        let later = (word + 1..=word + words).map(|word| (word % words, self.bits[word % words]));
        let (word, bits) = std::iter::once((word, first)).chain(later).find(|&(_, bits)| bits != 0)?;
        Some(word as u32 * 64 + bits.trailing_zeros())
    }
}

/// Keys in a bounded number of bytes, each with two bytes after it: its length, and whether it is binary.
#[derive(Debug, Default)]
struct Keys(Vec<u8>);

impl Keys {
    /// False when there is no room.
    fn add(&mut self, key: &[u8], key_is_binary: bool) -> bool {
        if self.0.len() + key.len() + 2 > DELETED_MAX {
            return false;
        }
        self.0.extend_from_slice(key);
        self.0.extend([key.len() as u8, u8::from(key_is_binary)]);
        true
    }

    /// Takes some out.
    fn take(&mut self, most: usize) -> Vec<(Vec<u8>, bool)> {
        let keys = std::iter::from_fn(|| {
            let &[.., len, binary] = &self.0[..] else { return None };
            let key = self.0.split_off(self.0.len() - 2 - usize::from(len));
            Some((key[..usize::from(len)].to_vec(), binary != 0))
        });
        let keys = keys.take(most).collect();
        if self.0.is_empty() {
            self.clear();
        }
        keys
    }

    fn clear(&mut self) {
        self.0 = Vec::new();
    }
}
