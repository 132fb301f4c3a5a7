//! Whether a history of one key is linearizable: whether the operations, put in some order that respects real time,
//! give the answers that were given.
//!
//! ```text
//!   state, done ──> candidates: started before the first end of what is not done ──> next state ──┐
//!        ^                 answers must fit; what is unknown fits always, or is left out           │
//!        └─── back, where (done, state) was seen before or nothing fits <──────────────────────────┘
//! ```
//!
//! The search is Wing and Gong's with Lowe's memory of configurations, which stateright's `LinearizabilityTester`
//! lacks: thousands of operations with some that are unknown take milliseconds, not for ever. Its verdicts are held
//! to the tester's on small histories.
//!
//! Linearizability is local: a history is linearizable if that of each key is (Herlihy and Wing 1990).

use crate::history::{Answer, COUNTERS, Event, Op, Outcome, by_key, line};
use stateright::semantics::SequentialSpec;
use std::collections::HashSet;

/// Configurations that are looked at before the search is given up.
const STEPS_MAX: usize = 200_000;

/// Operations shown around the one that does not fit.
const SHOWN: usize = 12;

/// One key of a cache without evictions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Register(pub Option<u64>);

impl SequentialSpec for Register {
    type Op = Op;
    type Ret = Answer;

    fn invoke(&mut self, op: &Op) -> Answer {
        match (*op, self.0) {
            (Op::Get, value) => Answer::Value(value),
            (Op::Set(new), _) => self.store(new),
            (Op::Add(_), Some(_)) => Answer::NotStored,
            (Op::Add(new), None) => self.store(new),
            (Op::Cas { .. } | Op::Incr(_) | Op::Delete, None) => Answer::NotFound,
            (Op::Cas { seen, new }, Some(value)) if seen == value => self.store(new),
            (Op::Cas { .. }, Some(_)) => Answer::Exists,
            (Op::Delete, Some(_)) => {
                self.0 = None;
                Answer::Deleted
            }
            (Op::Incr(by), Some(value)) => {
                self.0 = Some(value + by);
                Answer::Number(value + by)
            }
        }
    }
}

impl Register {
    fn store(&mut self, new: u64) -> Answer {
        self.0 = Some(new);
        Answer::Stored
    }
}

/// What is found of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// Not, and what was done where the search got furthest.
    Broken(String),
    /// The search was given up.
    Undecided,
}

/// Keys whose history is not linearizable, and how many could not be decided.
pub fn check(events: &[Event]) -> (Vec<String>, usize) {
    let (mut broken, mut undecided) = (Vec::new(), 0);
    for (key, events) in by_key(events) {
        match verdict(&events) {
            Verdict::Linearizable => {}
            Verdict::Broken(why) => broken.push(format!("key {key} is not linearizable:\n{why}")),
            Verdict::Undecided => undecided += 1,
        }
    }
    (broken, undecided)
}

/// The verdict on one key, which begins absent, a counter at 0.
pub fn verdict(events: &[Event]) -> Verdict {
    let is_counter = events.first().is_some_and(|event| event.key >= COUNTERS);
    Search::new(events).run(Register(is_counter.then_some(0)))
}

struct Search {
    /// Answered operations by start, then unknown ones.
    calls: Vec<Event>,
    answered: usize,
    done: Vec<u64>,
    /// Answered operations before this are all done.
    low: usize,
    left: usize,
}

/// A step that can be taken: an operation, and the state after it.
type Step = (usize, Register);

impl Search {
    fn new(events: &[Event]) -> Search {
        let of = |wanted: fn(&Event) -> bool| events.iter().filter(move |event| wanted(event)).copied();
        let mut calls: Vec<Event> = of(|event| event.answer().is_some()).collect();
        calls.sort_by_key(|event| event.start);
        let answered = calls.len();
        // Nobody can tell whether a read took place.
        calls.extend(of(|event| event.outcome == Outcome::Unknown && event.op != Op::Get));
        let done = vec![0; calls.len().div_ceil(64)];
        Search { calls, answered, done, low: 0, left: answered }
    }

    fn run(mut self, mut state: Register) -> Verdict {
        let mut seen = HashSet::new();
        let mut path: Vec<(usize, Register, usize)> = Vec::new();
        let mut choices: Vec<Vec<Step>> = vec![self.candidates(state)];
        let (mut least, mut stuck) = (self.left, self.describe(state));
        while self.left > 0 {
            let Some(top) = choices.last_mut() else { return Verdict::Broken(stuck) };
            let Some((call, after)) = top.pop() else {
                choices.pop();
                if let Some((call, before, low)) = path.pop() {
                    self.set(call, false);
                    (state, self.low) = (before, low);
                }
                continue;
            };
            let low = self.low;
            self.set(call, true);
            if !seen.insert((self.done.clone(), after)) {
                self.set(call, false);
                self.low = low;
                continue;
            }
            if seen.len() > STEPS_MAX {
                return Verdict::Undecided;
            }
            path.push((call, state, low));
            state = after;
            if self.left < least {
                (least, stuck) = (self.left, self.describe(state));
            }
            choices.push(self.candidates(state));
        }
        Verdict::Linearizable
    }

    fn is_done(&self, call: usize) -> bool {
        self.done[call / 64] >> (call % 64) & 1 == 1
    }

    fn set(&mut self, call: usize, is_done: bool) {
        self.done[call / 64] ^= 1 << (call % 64);
        if call < self.answered {
            self.left = if is_done { self.left - 1 } else { self.left + 1 };
        }
        while self.low < self.answered && self.is_done(self.low) {
            self.low += 1;
        }
    }

    /// Answered operations that may come next, and the first end among those not done.
    fn window(&self) -> (Vec<usize>, u64) {
        let (mut window, mut end) = (Vec::new(), u64::MAX);
        for call in self.low..self.answered {
            if self.calls[call].start > end {
                break;
            }
            if !self.is_done(call) {
                end = end.min(self.calls[call].end);
                window.push(call);
            }
        }
        window.retain(|&call| self.calls[call].start <= end);
        (window, end)
    }

    /// What can come next, the most likely last: answered operations in the order of their ends before unknown ones.
    fn candidates(&self, state: Register) -> Vec<Step> {
        let (mut window, end) = self.window();
        window.sort_by_key(|&call| std::cmp::Reverse(self.calls[call].end));
        let unknown = (self.answered..self.calls.len()).filter(|&call| self.calls[call].start <= end);
        let next = unknown.filter(|&call| !self.is_done(call)).chain(window);
        next.filter_map(|call| self.step(call, state)).collect()
    }

    fn step(&self, call: usize, before: Register) -> Option<Step> {
        let mut after = before;
        let answer = after.invoke(&self.calls[call].op);
        match self.calls[call].answer() {
            Some(told) => (told == answer).then_some((call, after)),
            // Without effect it is as good as left out.
            None => (after != before).then_some((call, after)),
        }
    }

    fn describe(&self, state: Register) -> String {
        let (window, _) = self.window();
        let first = window.first().copied().unwrap_or(0).saturating_sub(SHOWN / 2);
        let last = (first + SHOWN).min(self.answered);
        let mut lines = vec![format!("  then {:?}, and none of those marked fits", state.0)];
        for call in (first..last).chain(self.answered..self.calls.len()) {
            let mark = if window.contains(&call) { "!" } else { " " };
            let done = if self.is_done(call) { "done" } else { "    " };
            lines.push(format!("  {mark} {done} {}", line(&self.calls[call])));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::{Register, Verdict, verdict};
    use crate::common::{Rng, from_env, seed};
    use crate::history::by_hand::{delete, get, set, told, unknown};
    use crate::history::{Answer, Event, FOREVER, Op, Outcome};
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
}
