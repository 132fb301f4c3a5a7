//! The ring holds the newest records, and finds each lsn that it holds.

use super::*;
use crate::journal::record::{RecordKind, range_of};

fn push(ring: &mut Ring, range: u32, value: &[u8]) {
    let body = [b"key", value].concat();
    let value_len = value.len() as u32;
    let entry = RecordDraft { value_len, body: &body, ..RecordDraft::of(RecordKind::Set as u8, range, b"key", false) };
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
        assert_eq!(ring.lsn(), u64::from(lsn));
        assert!(ring.head() - ring.tail() <= 200_000);
        check(&ring);
        if lsn > 20_000 && random >> 32 & 63 == 0 {
            let kept = ring.first() + (random >> 40) % (ring.lsn() - ring.first() + 1);
            ring.release(kept);
            assert!(ring.first() <= kept + 1 && ring.used.get(1).is_none_or(|next| next.first > kept + 1));
            check(&ring);
        }
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
    assert_eq!(ring.free().len(), 300_000);
    assert_eq!((ring.capacity(), ring.lsn(), ring.first()), (0, 29_999, 30_000));
}

#[test]
fn who_keeps_up_needs_two_segments() {
    let mut ring = Ring::new();
    ring.allocate(80_000, 0);
    let mut touched = std::collections::BTreeSet::new();
    for lsn in 1..5000_u32 {
        if !ring.stays(80) {
            ring.release(ring.lsn() - 3);
        }
        push(&mut ring, lsn, &[1; 43]);
        check(&ring);
        touched.insert(ring.used.back().unwrap().at);
    }
    assert_eq!(touched.len(), 2);
    // Who falls behind keeps all there is room for, and nothing is left of that when it has caught up.
    (5000..9000).for_each(|lsn| push(&mut ring, lsn, &[1; 43]));
    assert!(ring.head() - ring.tail() > 80_000 - 160);
    ring.release(ring.lsn());
    check(&ring);
    assert!(ring.used.len() == 1 && ring.head() - ring.tail() <= 40_000);
}

/// Every segment is used or free, once; the records are those from `first` to `lsn`, and each knows its own.
fn check(ring: &Ring) {
    let mut places: Vec<usize> = ring.used.iter().map(|segment| segment.at).chain(ring.free.iter().copied()).collect();
    places.sort_unstable();
    assert!(places.iter().copied().eq((0..places.len()).map(|number| number * ring.segment)));
    assert_eq!(places.len() * ring.segment, ring.bytes.len());
    assert!(ring.base <= ring.tail && ring.tail <= ring.head);
    assert!(ring.used.len() == 1 || ring.tail < ring.base + ring.segment as u64);
    assert_eq!(ring.head + ring.room as u64, ring.base + (ring.used.len() * ring.segment) as u64);
    if ring.lsn.is_multiple_of(64) {
        let (mut position, mut next) = (ring.tail, ring.first);
        while position < ring.head {
            let bytes = ring.from(position);
            let head = Head::read(bytes);
            if head.kind != PAD {
                assert_eq!(u64::from(range_of(bytes)), next);
                next += 1;
            }
            position += head.size() as u64;
        }
        assert_eq!(next, ring.lsn + 1);
    }
}
