//! The bytes of the journal: the newest records, as many as fit.
//!
//! ```text
//!            tail, its lsn is `first`        head, after the record with `lsn`
//!              v                               v
//! |  free …… | record | record | … | record | free …… | pad |      `capacity` bytes
//! position = bytes ever written; modulo the capacity it is a place
//! ```
//!
//! A record is never split: what does not fit before the end of the ring begins at its start, after a pad. So that
//! an lsn is found again without a walk over everything, every [`MARK_EVERY`]-th record has its position noted.
//!
//! Invariants: positions and places are multiples of 8; `tail <= head <= tail + capacity`; without records
//! `first == lsn + 1`.
//!
//! Not here: who has read what, and what becomes of a record that nobody has read when its room is needed.

use super::record::{Entry, Head, PAD, write_pad};
use std::collections::VecDeque;

/// Records between two marks: finding an lsn looks at so many at most, some 10 us.
const MARK_EVERY: u64 = 1024;

/// Bytes of the smallest record.
const RECORD_MIN: usize = 40;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Ring {
    bytes: Vec<u8>,
    head: u64,
    head_at: usize,
    tail: u64,
    tail_at: usize,
    lsn: u64,
    first: u64,
    /// (lsn, position), ascending.
    marks: VecDeque<(u64, u64)>,
}

impl Ring {
    /// A ring without room, whose next record is number 1.
    pub fn new() -> Ring {
        Ring { first: 1, ..Ring::default() }
    }

    /// Gives it room, untouched memory until it is used. The next record has number `lsn + 1`.
    pub fn allocate(&mut self, capacity: usize, lsn: u64) {
        let marks = capacity / (RECORD_MIN * MARK_EVERY as usize) + 2;
        let (bytes, marks) = (vec![0; capacity & !7], VecDeque::with_capacity(marks));
        *self = Ring { bytes, marks, lsn, first: lsn + 1, ..Ring::default() };
    }

    /// Forgets all records and gives up the memory, which is returned: freeing it takes long.
    #[must_use]
    pub fn free(&mut self) -> Vec<u8> {
        let old = std::mem::take(self);
        (self.lsn, self.first) = (old.lsn, old.lsn + 1);
        old.bytes
    }

    /// Number of the last record.
    #[inline]
    pub fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Number of the oldest record in it.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Position after the last record.
    #[inline]
    pub fn head(&self) -> u64 {
        self.head
    }

    /// Position of the oldest record.
    #[inline]
    pub fn tail(&self) -> u64 {
        self.tail
    }

    /// Bytes there are.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a record of `size` bytes can be written without dropping another.
    #[inline]
    pub fn has_room(&self, size: usize) -> bool {
        let to_end = self.bytes.len() - self.head_at;
        let needed = if size > to_end { to_end + size } else { size };
        self.head + needed as u64 <= self.tail + self.bytes.len() as u64
    }

    /// Writes a record for which there is room.
    #[inline]
    pub fn push(&mut self, entry: &Entry<'_>) -> u64 {
        let size = entry.size();
        if size > self.bytes.len() - self.head_at {
            self.pad();
        }
        entry.write(&mut self.bytes[self.head_at..][..size]);
        self.lsn += 1;
        if self.lsn.is_multiple_of(MARK_EVERY) {
            self.marks.push_back((self.lsn, self.head));
        }
        self.advance(size);
        self.lsn
    }

    #[cold]
    fn pad(&mut self) {
        let pad = &mut self.bytes[self.head_at..];
        let size = pad.len();
        write_pad(pad);
        self.advance(size);
    }

    #[inline]
    fn advance(&mut self, size: usize) {
        self.head += size as u64;
        self.head_at += size;
        if self.head_at == self.bytes.len() {
            self.head_at = 0;
        }
    }

    /// The oldest record, or a pad: its head and its bytes. There must be one.
    pub fn oldest(&self) -> (Head, &[u8]) {
        let bytes = &self.bytes[self.tail_at..];
        (Head::read(bytes), bytes)
    }

    /// Drops the oldest record or pad. There must be one.
    #[inline]
    pub fn drop_oldest(&mut self) {
        debug_assert!(self.tail < self.head);
        let head = Head::read(&self.bytes[self.tail_at..]);
        let size = head.size();
        self.tail += size as u64;
        self.tail_at += size;
        if self.tail_at == self.bytes.len() {
            self.tail_at = 0;
        }
        if head.kind != PAD {
            if self.marks.front().is_some_and(|&(lsn, _)| lsn == self.first) {
                self.marks.pop_front();
            }
            self.first += 1;
        }
    }

    /// The bytes from a position on, up to the head or the ring's end.
    pub fn from(&self, position: u64) -> &[u8] {
        debug_assert!(self.tail <= position && position <= self.head);
        if position == self.head {
            return b"";
        }
        let at = (position % self.bytes.len() as u64) as usize;
        let len = (self.head - position).min((self.bytes.len() - at) as u64);
        &self.bytes[at..][..len as usize]
    }

    /// Position of the record after number `lsn`; None when that one, or one before it, is not here any more.
    pub fn after(&self, lsn: u64) -> Option<u64> {
        if lsn > self.lsn || lsn + 1 < self.first {
            return None;
        }
        let known = self.marks.partition_point(|&(marked, _)| marked <= lsn + 1).checked_sub(1);
        let (mut next, mut position) = known.map_or((self.first, self.tail), |at| self.marks[at]);
        while next <= lsn {
            let head = Head::read(self.from(position));
            position += head.size() as u64;
            next += u64::from(head.kind != PAD);
        }
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Kind, range_of};
    use super::*;

    fn push(ring: &mut Ring, range: u32, value: &[u8]) {
        let body = [b"key", value].concat();
        let value_len = value.len() as u32;
        let entry = Entry { value_len, body: &body, ..Entry::of(Kind::Set as u8, range, b"key", false) };
        while !ring.has_room(entry.size()) {
            ring.drop_oldest();
        }
        ring.push(&entry);
    }

    #[test]
    fn holds_the_newest_and_finds_every_lsn() {
        let mut ring = Ring::new();
        ring.allocate(200_000, 7);
        assert_eq!((ring.after(6), ring.after(7), ring.after(8)), (None, Some(0), None));
        assert_eq!(ring.after(u64::MAX), None);
        let mut random = 1_u64;
        for lsn in 8..30_000_u32 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            push(&mut ring, lsn, &vec![0; (random >> 60) as usize * 8]);
            assert_eq!(ring.lsn(), lsn.into());
            assert!(ring.head() - ring.tail() <= 200_000);
            let asked = ring.first() - 1 + random % (ring.lsn() - ring.first() + 2);
            let position = ring.after(asked).unwrap();
            let mut bytes = ring.from(position);
            if !bytes.is_empty() && Head::read(bytes).kind == PAD {
                bytes = ring.from(position + bytes.len() as u64);
            }
            assert_eq!(bytes.is_empty(), asked == ring.lsn());
            assert!(bytes.is_empty() || u64::from(range_of(bytes)) == asked + 1);
        }
        assert_eq!(ring.after(ring.first() - 2), None);
        assert!(ring.lsn() - ring.first() > 1000 && ring.first() > 20_000);
        assert_eq!(ring.free().len(), 200_000);
        assert_eq!((ring.capacity(), ring.lsn(), ring.first()), (0, 29_999, 30_000));
    }
}
