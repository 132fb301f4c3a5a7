//! The memory of a socket that speaks TLS: buffers that all of a thread share, and what is kept between calls.
//!
//! Not here: records (`stream`).

use std::cell::RefCell;
use std::io::{IoSlice, IoSliceMut};
use std::ops::RangeInclusive;

/// Plain bytes in a record of ours.
const RECORD: usize = 16 << 10;

/// What a record of ours has besides: its header, a nonce, a tag, a type; or a notice. Generously.
pub(super) const OVERHEAD: usize = 256;

/// Most bytes taken from the socket at a time.
pub(super) const READ_MOST: usize = 64 << 10;

/// Least: a whole record.
pub(super) const READ_LEAST: usize = RECORD + 512;

/// A read takes apart a record for so many bytes of its room, and at least and at most so many, each in 0.8 us if it is of
/// a byte; or more, until the rest can be kept ([`CIPHER_MAX`]). In a crowd the room is small, and a thousand clients that
/// send tiny records hold up nobody.
const RECORD_ROOM: usize = 512;
const RECORDS_MOST: RangeInclusive<usize> = 16..=128;

/// Bytes of a record's header.
const RECORD_HEADER: usize = 5;

/// Where so many records end of those with which `input` begins, if another whole one follows them.
pub(super) fn end_of_records(input: &[u8], most: usize) -> Option<usize> {
    let (mut at, mut left) = (0, most);
    while let Some(header) = input.get(at..at + RECORD_HEADER) {
        let end = at + RECORD_HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if left == 0 {
            return (end <= input.len()).then_some(at);
        }
        (at, left) = (end, left - 1);
    }
    None
}

/// The beginning of a record, or of a message of a handshake, is not longer: a chain of a dozen certificates.
pub(super) const CIPHER_MAX: usize = 40 << 10;

/// Plain bytes that are made records before a write.
pub(super) const WRITE_MOST: usize = 64 << 10;

/// Most bytes of records that wait: what one write left, and answers of the protocol itself.
pub(super) const OUT_MAX: usize = 2 * WRITE_MOST;

thread_local! {
    /// Made when a thread first speaks TLS.
    pub(super) static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers {
        incoming: vec![0; CIPHER_MAX + READ_MOST].into(),
        outgoing: vec![0; WRITE_MOST + RECORD + 8 * OVERHEAD].into(),
        gathered: vec![0; RECORD].into(),
    });
}

/// What all sockets of a thread share.
pub(super) struct Buffers {
    /// Records to be taken apart.
    pub incoming: Box<[u8]>,
    /// Records to be sent.
    pub outgoing: Box<[u8]>,
    /// What becomes one record, where it lies in pieces.
    pub gathered: Box<[u8]>,
}

/// Bytes that wait.
#[derive(Debug, Default)]
pub(super) struct KeptBytes {
    data: Vec<u8>,
    start: usize,
}

impl KeptBytes {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[self.start..]
    }

    pub(super) fn len(&self) -> usize {
        self.data.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds bytes. False: the system has no memory for them.
    #[must_use]
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let has_room = self.data.try_reserve(bytes.len()).is_ok();
        if has_room {
            self.data.extend_from_slice(bytes);
        }
        has_room
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        self.data.capacity()
    }

    /// Room for so many bytes behind those that wait, which the caller fills.
    pub(super) fn grow(&mut self, n: usize) -> &mut [u8] {
        let len = self.data.len();
        self.data.resize(len + n, 0);
        &mut self.data[len..]
    }

    /// The first `n` are done with.
    pub(super) fn advance(&mut self, n: usize) {
        self.start += n;
        if self.is_empty() {
            *self = KeptBytes::default();
        }
    }
}

/// Where a reader wants its bytes.
#[derive(Default)]
pub(super) struct Room<'r, 'b> {
    bufs: &'r mut [IoSliceMut<'b>],
    /// Bytes that are there.
    filled: usize,
}

impl<'r, 'b> Room<'r, 'b> {
    pub(super) fn new(bufs: &'r mut [IoSliceMut<'b>]) -> Room<'r, 'b> {
        Room { bufs, filled: 0 }
    }

    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// How many records are taken apart for it at a time.
    pub(super) fn records_most(&self) -> usize {
        (self.left() / RECORD_ROOM).clamp(*RECORDS_MOST.start(), *RECORDS_MOST.end())
    }

    pub(super) fn left(&self) -> usize {
        self.bufs.iter().map(|buf| buf.len()).sum::<usize>() - self.filled
    }

    /// Puts what has room, and says how much that was.
    pub(super) fn put(&mut self, bytes: &[u8]) -> usize {
        let (mut skip, mut taken) = (self.filled, 0);
        for buf in self.bufs.iter_mut() {
            let start = skip.min(buf.len());
            skip -= start;
            let n = (buf.len() - start).min(bytes.len() - taken);
            buf[start..start + n].copy_from_slice(&bytes[taken..taken + n]);
            taken += n;
        }
        self.filled += taken;
        taken
    }
}

/// What a writer offers, in pieces that become a record each.
pub(super) struct Pieces<'a> {
    bufs: &'a [IoSlice<'a>],
    /// Bytes of the first that are done with.
    within: usize,
}

impl<'a> Pieces<'a> {
    pub(super) fn new(bufs: &'a [IoSlice<'a>]) -> Pieces<'a> {
        Pieces { bufs, within: 0 }
    }

    /// Passes over so many bytes, or as many as there are. How many that were.
    pub(super) fn skip(&mut self, n: usize) -> usize {
        let mut left = n;
        while let Some(first) = self.first().filter(|_| left > 0) {
            let step = first.len().min(left);
            left -= step;
            self.within += step;
        }
        n - left
    }

    /// The next piece: as it lies there, or gathered from several. Empty at the end.
    pub(super) fn next<'g>(&mut self, gathered: &'g mut [u8]) -> &'g [u8]
    where
        'a: 'g,
    {
        let Some(first) = self.first() else { return &[] };
        if first.len() >= RECORD || self.bufs.len() == 1 {
            let n = first.len().min(RECORD);
            self.within += n;
            return &first[..n];
        }
        let mut len = 0;
        while let Some(first) = self.first().filter(|_| len < gathered.len()) {
            let n = first.len().min(gathered.len() - len);
            gathered[len..len + n].copy_from_slice(&first[..n]);
            len += n;
            self.within += n;
        }
        &gathered[..len]
    }

    /// What is left of the first slice that has something left.
    fn first(&mut self) -> Option<&'a [u8]> {
        while self.within == self.bufs.first()?.len() {
            self.bufs = &self.bufs[1..];
            self.within = 0;
        }
        Some(&self.bufs[0][self.within..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_records_that_follow_the_last_are_found() {
        let record = |len: u8| [&[23, 3, 3, 0, len][..], &vec![7; len.into()]].concat();
        let input = [record(20), record(0), record(30), record(10)].concat();
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|most| end_of_records(&input, most)),
            [Some(0), Some(25), Some(30), Some(65), None, None]
        );
        // Of what is not whole there is more to come.
        assert_eq!(end_of_records(&input[..input.len() - 1], 3), None);
        assert_eq!(end_of_records(&input[..26], 1), None);
        assert_eq!(end_of_records(&[], 1), None);
    }

    #[test]
    fn a_small_room_is_for_few_records() {
        let most = |len: usize| Room::new(&mut [IoSliceMut::new(&mut vec![0; len])]).records_most();
        assert_eq!([0, 100, 8 << 10, 16 << 10, 64 << 10, 1 << 20].map(most), [16, 16, 16, 32, 128, 128]);
    }
}
