//! The search decides as stateright does, and histories of thousands of operations, too.

use super::by_hand::{delete, get, set, told, unknown};
use crate::common::{Rng, from_env, seed};
use crate::history::{Answer, Event, FOREVER, Op, Outcome};
use crate::linear::{Register, Verdict, verdict};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

fn is_broken(events: &[Event]) -> bool {
    matches!(verdict(events), Verdict::Broken(_))
}

#[test]
fn what_one_register_can_do_is_linearizable() {
    let cas = told(0, Op::Cas { seen: 2, new: 3 }, Answer::Stored, 50, 60);
    let good: [&[Event]; 6] = [
        &[set(0, 1, 0, 10), get(1, 1, 20, 30)],
        // Concurrent: before or after.
        &[set(0, 1, 0, 10), get(1, None, 5, 30), get(1, 1, 40, 50)],
        &[set(0, 1, 0, 10), set(1, 2, 0, 40), get(0, 2, 20, 30), cas, get(1, 3, 70, 80)],
        &[set(0, 1, 0, 10), delete(1, 20, 30), get(0, None, 40, 50)],
        // It takes effect long after the client has given up, between two reads.
        &[set(0, 1, 0, 10), unknown(1, Op::Set(2), 11), get(0, 1, 20, 30), get(0, 2, 40, 50)],
        // Or never.
        &[set(0, 1, 0, 10), unknown(1, Op::Delete, 11), get(0, 1, 20, 30)],
    ];
    for events in good {
        assert_eq!(verdict(events), Verdict::Linearizable);
    }
}

#[test]
fn what_no_register_can_do_is_found() {
    let cas = |seen, answer| told(2, Op::Cas { seen, new: 9 }, answer, 30, 40);
    let bad: [&[Event]; 7] = [
        // A lost write, a read of the past, a value from nowhere.
        &[set(0, 1, 0, 10), get(1, None, 20, 30)],
        &[set(0, 1, 0, 10), set(0, 2, 20, 30), get(1, 1, 40, 50)],
        &[get(1, 7, 0, 10)],
        // The new value, then the old one, while the write goes on.
        &[set(0, 1, 0, 10), set(0, 2, 20, 100), get(1, 2, 30, 40), get(1, 1, 50, 60)],
        // A value that was deleted, a token that was not current.
        &[set(0, 1, 0, 10), delete(0, 20, 30), get(1, 1, 40, 50)],
        &[set(0, 1, 0, 10), set(0, 2, 15, 20), cas(1, Answer::Stored)],
        // An unknown write can take effect only once.
        &[unknown(0, Op::Set(1), 0), get(1, 1, 10, 20), delete(1, 30, 40), get(1, 1, 50, 60)],
    ];
    for events in bad {
        assert!(is_broken(events), "{events:?}");
    }
}

#[test]
fn a_counter_counts_each_once() {
    let incr = |client, number, start| told(client, Op::Incr(1), Answer::Number(number), start, start + 15);
    let on_counter = |events: &[Event]| -> Vec<Event> {
        events.iter().map(|event| Event { key: crate::history::COUNTERS, ..*event }).collect()
    };
    assert_eq!(verdict(&on_counter(&[incr(0, 2, 0), incr(1, 1, 5)])), Verdict::Linearizable);
    assert!(is_broken(&on_counter(&[incr(0, 1, 0), incr(1, 1, 5)])));
    assert_eq!(verdict(&on_counter(&[unknown(0, Op::Incr(1), 0), incr(1, 2, 5)])), Verdict::Linearizable);
}

/// Long histories with operations in doubt, good and with one wrong read, are decided.
#[test]
fn long_histories_are_decided() {
    let mut rng = Rng(7);
    let mut events = random(&mut rng, 4000, 200);
    assert_eq!(verdict(&events), Verdict::Linearizable);
    let last = events.iter().map(|event| event.end).filter(|&end| end < FOREVER).max().unwrap();
    // No delete in doubt can excuse it.
    events.push(get(9, 1 << 40, last + 10, last + 11));
    assert!(!matches!(verdict(&events), Verdict::Linearizable));
}

/// What one register answers to operations that overlap; some replies are lost.
fn random(rng: &mut Rng, count: u32, unknown_one_in: u64) -> Vec<Event> {
    let (mut register, mut at) = (Register(None), 100);
    let one = |client: u32| {
        let new = u64::from(client) + 1;
        let seen = register.0.unwrap_or(0) + u64::from(rng.one_in(3));
        let op = match rng.below(10) {
            0..4 => Op::Get,
            4..6 => Op::Set(new),
            6 => Op::Delete,
            7 => Op::Add(new),
            _ => Op::Cas { seen, new },
        };
        at += 1 + rng.below(10_u64);
        let (start, end) = (at - rng.below(20_u64), at + rng.below(20_u64));
        match rng.one_in(unknown_one_in) {
            true if rng.one_in(2) => unknown(client, op, start),
            is_lost => {
                let event = told(client, op, register.invoke(&op), start, end);
                if is_lost { unknown(client, op, start) } else { event }
            }
        }
    };
    (0..count).map(one).collect()
}

/// stateright's own verdict.
fn tester_says(events: &[Event]) -> bool {
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        moments.push((event.start, false, at));
        moments.push((event.end, true, at));
    }
    moments.sort_unstable();
    let mut tester = LinearizabilityTester::new(Register(None));
    // A thread that was not answered never goes on: each operation is a thread of its own.
    for (_, is_end, at) in moments {
        match (is_end, events[at].answer()) {
            (false, _) => drop(tester.on_invoke(at, events[at].op).expect("one at a time")),
            (true, Some(answer)) => drop(tester.on_return(at, answer).expect("it was asked")),
            (true, None) => {}
        }
    }
    tester.is_consistent()
}

#[test]
fn verdicts_are_those_of_stateright() {
    let seed = seed("FAILOVER_SEED");
    println!("verdicts: FAILOVER_SEED={seed}");
    let mut rng = Rng(seed);
    let (mut good, mut bad) = (0, 0);
    for _ in 0..from_env("FAILOVER_VERDICTS").unwrap_or(1500) {
        let mut events = random(&mut rng, 8, 8);
        if rng.one_in(2) && !events.is_empty() {
            let at = rng.below(events.len());
            if events[at].op == Op::Get {
                events[at].outcome = Outcome::Answered(Answer::Value(Some(1 + rng.below(8_u64))));
            }
        }
        let expected = tester_says(&events);
        assert_eq!(verdict(&events) == Verdict::Linearizable, expected, "{events:#?}");
        *if expected { &mut good } else { &mut bad } += 1;
    }
    assert!(good > 100 && bad > 50, "{good} good, {bad} bad: this shows nothing");
}
