//! The checks find what is wrong in histories made by hand.

use super::by_hand::{at, delete, get, set, told, unknown};
use crate::checks::{Tenure, deposed, longest_silence, stale};
use crate::history::{Answer, COUNTERS, Event, Op, Outcome};

/// How many were lost, came back, and were invented.
fn counts(events: &[Event]) -> (usize, usize, usize) {
    let stale = stale(events);
    (stale.lost.len(), stale.undeleted.len(), stale.invented.len())
}

#[test]
fn reads_of_the_newest_are_good() {
    let good: [&[Event]; 7] = [
        &[get(0, None, 0, 1), set(0, 1, 2, 3), get(0, 1, 4, 5)],
        // Concurrent writes: either may be the last.
        &[set(0, 1, 0, 10), set(1, 2, 5, 12), get(0, 1, 20, 21)],
        &[set(0, 1, 0, 10), set(1, 2, 5, 12), get(0, 2, 20, 21)],
        // A later write that is in doubt, seen or not seen.
        &[set(0, 1, 0, 10), unknown(1, Op::Set(2), 11), get(0, 1, 20, 21), get(0, 2, 30, 31)],
        &[set(0, 1, 0, 10), unknown(1, Op::Delete, 11), get(0, None, 20, 21)],
        // One in doubt may take effect even after a later one that was acknowledged.
        &[unknown(1, Op::Set(2), 0), set(0, 1, 10, 20), get(0, 2, 30, 31)],
        &[set(0, 1, 0, 10), delete(0, 20, 30), get(1, 1, 25, 40), get(1, None, 50, 60)],
    ];
    for events in good {
        assert_eq!(counts(events), (0, 0, 0), "{events:?}");
    }
}

#[test]
fn lost_writes_are_found() {
    assert_eq!(counts(&[set(0, 1, 0, 10), get(0, None, 20, 21)]), (1, 0, 0));
    assert_eq!(counts(&[set(0, 1, 0, 10), set(0, 2, 20, 30), get(0, 1, 40, 41)]), (1, 0, 0));
    let cas = told(0, Op::Cas { seen: 1, new: 2 }, Answer::Stored, 20, 30);
    assert_eq!(counts(&[set(0, 1, 0, 10), cas, get(0, 1, 40, 41)]), (1, 0, 0));
    // Refused: it can be no excuse.
    let refused = Event { outcome: Outcome::Refused, ..unknown(1, Op::Delete, 11) };
    assert_eq!(counts(&[set(0, 1, 0, 10), refused, get(0, None, 20, 21)]), (1, 0, 0));
}

#[test]
fn what_was_deleted_and_comes_back_is_found() {
    assert_eq!(counts(&[set(0, 1, 0, 10), delete(0, 20, 30), get(0, 1, 40, 41)]), (0, 1, 0));
    let not_found = told(0, Op::Delete, Answer::NotFound, 20, 30);
    assert_eq!(counts(&[set(0, 1, 0, 10), not_found, get(0, 1, 40, 41)]), (0, 1, 0));
}

#[test]
fn values_from_nowhere_are_found() {
    assert_eq!(counts(&[get(0, 5, 0, 10)]), (0, 0, 1));
    assert_eq!(counts(&[get(0, 5, 0, 10), set(0, 5, 20, 30)]), (0, 0, 1));
    let refused = Event { outcome: Outcome::Refused, ..unknown(1, Op::Set(2), 0) };
    assert_eq!(counts(&[refused, get(0, 2, 20, 21)]), (0, 0, 1));
}

#[test]
fn counters_are_counted() {
    let on = |events: &[Event]| counts(&events.iter().map(|&e| Event { key: COUNTERS, ..e }).collect::<Vec<_>>());
    let incr = |number, start| told(0, Op::Incr(1), Answer::Number(number), start, start + 5);
    assert_eq!(on(&[incr(1, 0), unknown(1, Op::Incr(1), 3), incr(3, 10), get(0, 3, 20, 21)]), (0, 0, 0));
    assert_eq!(on(&[incr(1, 0), incr(1, 10)]), (1, 0, 0));
    assert_eq!(on(&[incr(1, 0), get(0, 0, 10, 11)]), (1, 0, 0));
    assert_eq!(on(&[incr(2, 0)]), (0, 0, 1));
}

#[test]
fn a_deposed_owner_that_answers_is_found() {
    let tenure = |epoch, server| Tenure { epoch, server };
    let (a, b) = (|start| at(1, get(0, None, start, start + 5)), |start| at(2, get(1, None, start, start + 5)));
    let once = [tenure(1, 1), tenure(2, 2)];
    assert_eq!(deposed(&[a(0), a(10), b(12), b(20)], &once), [""; 0]);
    // Sent before the new owner's first reply was seen: nobody can tell which was first.
    assert_eq!(deposed(&[b(10), a(14)], &once), [""; 0]);
    assert_eq!(deposed(&[a(0), b(10), a(16), b(20)], &once).len(), 1);
    // It became the owner again.
    let again = [tenure(1, 1), tenure(2, 2), tenure(4, 1)];
    assert_eq!(deposed(&[a(0), b(10), a(20)], &again), [""; 0]);
    assert_eq!(deposed(&[a(0), b(10), a(20), b(30)], &again).len(), 1);
    // A server that never was an owner.
    assert_eq!(deposed(&[at(3, get(0, None, 0, 5))], &again).len(), 1);
}

#[test]
fn silence_is_measured() {
    let events = [get(0, None, 0, 10), get(0, None, 15, 30), unknown(0, Op::Get, 31), get(0, None, 90, 95)];
    assert_eq!(longest_silence(&events, 0, 100), 65);
    assert_eq!(longest_silence(&events, 20, 60), 30);
}
