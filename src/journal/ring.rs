//! The bytes of the journal: the newest records, in segments that are used again while they are warm.
//!
//! ```text
//!  used, oldest first     | pad … tail, its record is `first` … pad | records … pad | records … head, after `lsn` |
//!  free, a stack                                                | used last | … | never used |
//! position = bytes ever written, pads included; a segment is so many of them, wherever it lies
//! ```
//!
//! A simple ring of 64 MiB would write every record to cold memory and read it from there: that cost the reading thread
//! 879 ns for a set, and segments cost it 810 ns, on a busy machine. When the head leaves a segment, the segments whose
//! records nobody needs any more are freed, and the one that was freed last is used next. While all readers are near
//! the head, two or three segments are used in turn, and stay in a processor's second cache. A reader that falls behind
//! keeps segments from being freed, until there are `capacity` bytes of records. From then on the oldest record is
//! dropped for the next one.
//!
//! A record is never split. One that does not fit into the rest of a segment begins the next one; a pad fills the rest.
//!
//! Invariants: positions and places are multiples of 8; `base <= tail <= head <= tail + capacity`, so there is a free
//! segment when the head needs one; `first` is the record at the tail, or the first one after a pad there, and
//! `lsn + 1` if there is none; at least one segment is used.
//!
//! Not here: which reader has read what, which records are needed, and what becomes of a dropped record that a reader
//! has not read (`readers`).

use super::record::{Head, PAD, RecordDraft, write_pad};
use std::collections::VecDeque;

/// Bytes of a segment. Three segments fit into a second cache of 512 KiB, and with the largest records, of 16 KiB, pads
/// take one byte in sixteen on average.
const SEGMENT: usize = 128 << 10;

/// The least number of segments in the capacity. A record takes half a segment or less, and all of one in tests.
const SEGMENTS_MIN: usize = 2;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Ring {
    bytes: Vec<u8>,
    /// The most bytes of records, and the bytes of a segment.
    capacity: usize,
    segment: usize,
    used: VecDeque<Segment>,
    /// Where the free segments lie, the warmest last.
    free: Vec<usize>,
    /// Position of the first used segment.
    base: u64,
    head: u64,
    /// Where the head lies, and how many bytes its segment has from there on.
    head_at: usize,
    room: usize,
    tail: u64,
    lsn: u64,
    first: u64,
}

/// A segment with records.
#[derive(Debug)]
struct Segment {
    /// Where it lies.
    at: usize,
    /// Number of its first record.
    first: u64,
}

impl Ring {
    /// A ring without room, whose next record is number 1.
    pub(super) fn new() -> Ring {
        Ring { first: 1, ..Ring::default() }
    }

    /// Gives it room, untouched memory until it is used. The next record has number `lsn + 1`.
    pub(super) fn allocate(&mut self, capacity: usize, lsn: u64) {
        let segment = SEGMENT.min((capacity / SEGMENTS_MIN) & !7);
        let capacity = capacity / segment * segment;
        // One segment more, for the records that are left in the oldest one.
        let bytes = vec![0; capacity + segment];
        let mut free: Vec<usize> = (0..=capacity / segment).rev().map(|number| number * segment).collect();
        let at = free.pop().expect("several");
        let used = VecDeque::from([Segment { at, first: lsn + 1 }]);
        *self = Ring {
            bytes,
            capacity,
            segment,
            used,
            free,
            room: segment,
            head_at: at,
            lsn,
            first: lsn + 1,
            ..Ring::default()
        };
    }

    /// Forgets all records and gives up the memory, which is returned: freeing it takes long.
    #[must_use]
    pub(super) fn free(&mut self) -> Vec<u8> {
        let old = std::mem::take(self);
        (self.lsn, self.first) = (old.lsn, old.lsn + 1);
        old.bytes
    }

    /// Number of the last record.
    #[inline]
    pub(super) fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Number of the oldest record in it.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// Position after the last record.
    #[inline]
    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// Position of the oldest record.
    #[inline]
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes of records there may be.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the head stays in its segment with a record of `size` bytes.
    #[inline]
    pub(super) fn stays(&self, size: usize) -> bool {
        size <= self.room
    }

    /// Whether a record of `size` bytes can be written without dropping another.
    #[inline]
    pub(super) fn has_room(&self, size: usize) -> bool {
        let needed = if size > self.room { self.room + size } else { size };
        self.head + needed as u64 <= self.tail + self.capacity as u64
    }

    /// Writes a record for which there is room.
    #[inline]
    pub(super) fn push(&mut self, entry: &RecordDraft<'_>) -> u64 {
        let size = entry.size();
        if size > self.room {
            self.enter_next();
        }
        entry.write(&mut self.bytes[self.head_at..][..size]);
        self.lsn += 1;
        self.advance(size);
        self.lsn
    }

    #[cold]
    fn enter_next(&mut self) {
        let room = self.room;
        if room > 0 {
            write_pad(&mut self.bytes[self.head_at..][..room]);
            self.advance(room);
        }
        let at = self.free.pop().expect("there is room");
        self.used.push_back(Segment { at, first: self.lsn + 1 });
        (self.head_at, self.room) = (at, self.segment);
        self.leave_empty();
        self.check();
    }

    #[inline]
    fn advance(&mut self, size: usize) {
        self.head += size as u64;
        self.head_at += size;
        self.room -= size;
    }

    /// Frees the segments that are before the tail.
    fn leave_empty(&mut self) {
        while self.used.len() > 1 && self.tail >= self.base + self.segment as u64 {
            self.free_first();
        }
    }

    fn free_first(&mut self) {
        self.free.extend(self.used.pop_front().map(|segment| segment.at));
        self.base += self.segment as u64;
    }

    /// Drops the records up to number `lsn`, as far as they fill segments that the head has left.
    pub(super) fn release(&mut self, lsn: u64) {
        while self.used.get(1).is_some_and(|next| next.first <= lsn + 1) {
            self.free_first();
            self.tail = self.base;
            self.first = self.used[0].first;
        }
        self.check();
    }

    /// Asserts the invariants; called each time that a segment is taken or freed.
    fn check(&self) {
        assert!(self.base <= self.tail && self.tail <= self.head && self.first <= self.lsn + 1);
        assert!(self.head <= self.tail + self.capacity as u64, "more records than there may be");
        assert_eq!(self.head + self.room as u64, self.base + (self.used.len() * self.segment) as u64);
        assert_eq!((self.used.len() + self.free.len()) * self.segment, self.bytes.len(), "a segment is lost");
        assert!(self.used.len() == 1 || self.tail < self.base + self.segment as u64, "a segment is kept for nothing");
    }

    /// The oldest record, or a pad: its head and its bytes. There must be one.
    pub(super) fn oldest(&self) -> (Head, &[u8]) {
        let bytes = &self.bytes[self.used[0].at + (self.tail - self.base) as usize..];
        (Head::read(bytes), bytes)
    }

    /// Drops the oldest record or pad. There must be one.
    pub(super) fn drop_oldest(&mut self) {
        assert!(self.tail < self.head, "there is no oldest record");
        let (head, _) = self.oldest();
        self.tail += head.size() as u64;
        self.first += u64::from(head.kind != PAD);
        self.leave_empty();
    }

    /// The bytes from a position on, up to the head or the end of a segment.
    pub(super) fn from(&self, position: u64) -> &[u8] {
        assert!(self.tail <= position && position <= self.head, "no record is there");
        if position == self.head {
            return b"";
        }
        let (distance, segment) = ((position - self.base) as usize, self.segment);
        let len = (self.head - position).min((segment - distance % segment) as u64);
        &self.bytes[self.used[distance / segment].at + distance % segment..][..len as usize]
    }

    /// Position of the record after number `lsn`; None when that one, or one before it, is not here any more. It looks
    /// at the records of one segment at most, some 20 us.
    pub(super) fn after(&self, lsn: u64) -> Option<u64> {
        if lsn > self.lsn || lsn + 1 < self.first {
            return None;
        }
        let number = self.used.partition_point(|segment| segment.first <= lsn + 1).saturating_sub(1);
        let (mut next, mut position) = match number {
            0 => (self.first, self.tail),
            _ => (self.used[number].first, self.base + (number * self.segment) as u64),
        };
        while next <= lsn {
            let head = Head::read(self.from(position));
            position += head.size() as u64;
            next += u64::from(head.kind != PAD);
        }
        Some(position)
    }
}

#[cfg(test)]
#[path = "tests/ring.rs"]
mod tests;
