//! Which stamps a flush_all and a refresh take, and when.

use super::*;

#[test]
fn a_second_is_told_apart() {
    let flush = Flush::default();
    let before = flush.cut(9).stamp(9);
    assert!(!flush.cut(9).takes(before));
    assert!(flush.now(9));
    assert!(flush.cut(9).takes(before));
    let after = flush.cut(9).stamp(9);
    assert!(!flush.cut(9).takes(after));
    assert!(flush.now(9));
    assert!(flush.cut(10).takes(after));
    assert!(!flush.cut(10).takes(flush.cut(10).stamp(10)));
}

#[test]
fn what_is_renewed_while_a_flush_all_comes_is_flushed() {
    let flush = Flush::default();
    let old = flush.stamp(8);
    let before = flush.moment(9);
    assert!(flush.now(9));
    let renewed = flush.renewed_by(before, old, 9).unwrap();
    assert!(flush.cut(9).takes(renewed));
}

#[test]
fn any_number_in_one_second_takes_what_came_before() {
    let flush = Flush::default();
    let mut before = flush.stamp(9);
    for _ in 0..1000 {
        assert!(flush.now(9) && flush.cut(9).takes(before));
        before = flush.stamp(9);
        assert!(!flush.cut(9).takes(before));
        assert_eq!(flush.renewed(before, 9), Some(before));
    }
    // Time catches up.
    assert!(flush.stamp(9 + 1000 / 15 + 2) > before && !flush.cut(100).takes(flush.stamp(100)));
}

#[test]
fn stamps_are_not_ahead_without_bound() {
    let flush = Flush::default();
    let most = (0..100_000).take_while(|_| flush.now(9)).count();
    assert!((15 * LEAD as usize..16 * LEAD as usize + 16).contains(&most), "{most}");
    assert!(flush.is_exhausted(9) && !flush.now(9) && flush.now(10));
}

#[test]
fn a_pending_one_takes_what_was_stamped_ahead_of_its_second() {
    let flush = Flush::default();
    (0..100).for_each(|_| assert!(flush.now(9)));
    let stored = flush.stamp(9);
    flush.later(9, 12);
    assert!(!flush.cut(10).takes(stored));
    assert!(flush.cut(12).takes(stored) && !flush.cut(12).takes(flush.stamp(12)));
    // In the second before its own it takes what is stored, too; stamps are ahead of both.
    flush.later(13, 14);
    let early = flush.stamp(13);
    assert!(flush.cut(13).takes(stored) && flush.cut(13).takes(early) && early >> 4 > 14);
    assert!(flush.cut(14).takes(early) && !flush.cut(14).takes(flush.stamp(14)));
}

#[test]
fn flush_early() {
    let flush = Flush::default();
    let old = flush.cut(9).stamp(9);
    flush.later(9, 12);
    assert!(!flush.cut(10).takes(old));
    assert!(flush.cut(11).takes(old));
    assert!(flush.cut(11).takes(flush.cut(11).stamp(11)));
    assert!(!flush.cut(12).takes(flush.cut(12).stamp(12)));
}

#[test]
fn an_early_one_that_is_replaced() {
    let flush = Flush::default();
    flush.later(9, 10);
    let old = flush.cut(9).stamp(9);
    assert!(flush.cut(9).takes(old));
    flush.later(9, 30);
    assert!(flush.cut(9).takes(old));
    assert!(!flush.cut(9).takes(flush.cut(9).stamp(9)));
}

#[test]
fn a_refresh_takes_what_was_not_stored_again() {
    let flush = Flush::default();
    let (old, again) = (flush.stamp(9), flush.stamp(9));
    flush.begin_refresh(9);
    assert_eq!(flush.renewed(old, 9), None, "a fetch does not save it");
    let new = [flush.stamp(9), flush.stamp(10), flush.renewed(flush.stamp(10), 12).unwrap()];
    assert!(!flush.cut(12).takes(old), "not before its end");
    assert!(flush.end_refresh(12) && !flush.end_refresh(12));
    assert!(flush.cut(12).takes(old) && flush.cut(12).takes(again));
    assert!(new.iter().all(|&stamp| !flush.cut(12).takes(stamp)));
    assert!(!flush.cut(12).takes(flush.stamp(12)));
}

#[test]
fn a_flush_all_in_a_refresh_takes_what_was_stored_since() {
    let flush = Flush::default();
    (0..10).for_each(|_| assert!(flush.now(9)));
    flush.begin_refresh(9);
    let new = flush.stamp(9);
    assert!(flush.now(9) && flush.cut(9).takes(new));
    let newer = flush.stamp(9);
    assert!(flush.end_refresh(9) && !flush.cut(9).takes(newer));
    // As many as a second has: the mark is in the next, and so is a flush_all.
    (0..3).for_each(|_| assert!(flush.now(9)));
    flush.begin_refresh(9);
    let new = flush.stamp(9);
    assert!(flush.now(9) && flush.cut(9).takes(new));
    let newer = flush.stamp(9);
    assert!(flush.end_refresh(9));
    assert!(!flush.cut(9).takes(flush.stamp(9)) && !flush.cut(9).takes(newer));
}

#[test]
fn a_refresh_that_nobody_renews_lapses() {
    let flush = Flush::default();
    let old = flush.stamp(9);
    flush.begin_refresh(9);
    flush.renew_refresh(9 + LAPSE - 1);
    assert_eq!(flush.renewed(old, 9 + LAPSE), None);
    let later = 9 + 2 * LAPSE;
    flush.renew_refresh(later);
    assert!(flush.renewed(old, later).is_some());
    assert!(!flush.end_refresh(later) && !flush.cut(later).takes(old));
    flush.begin_refresh(later);
    let new = flush.stamp(later);
    assert!(flush.end_refresh(later) && flush.cut(later).takes(old) && !flush.cut(later).takes(new));
}

#[test]
fn a_refresh_forgets_a_pending_one() {
    let flush = Flush::default();
    let old = flush.stamp(9);
    flush.later(9, 12);
    flush.begin_refresh(11);
    let new = flush.stamp(11);
    assert!(flush.cut(11).takes(old));
    assert!(flush.end_refresh(11));
    assert!(!flush.cut(12).takes(new));
}

#[test]
fn a_pending_one_neither_revives_nor_survives() {
    let flush = Flush::default();
    let old = flush.cut(9).stamp(9);
    assert!(flush.now(9));
    flush.later(9, 20);
    assert!(flush.cut(9).takes(old));
    let stored = flush.cut(10).stamp(10);
    flush.later(10, 30);
    assert!(!flush.cut(25).takes(stored));
    flush.later(29, 40);
    assert!(flush.cut(29).takes(stored));
    assert!(flush.now(31));
    assert!(!flush.cut(45).takes(flush.cut(45).stamp(32)));
}
