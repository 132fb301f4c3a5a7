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
