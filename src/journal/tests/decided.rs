//! Which changes count as confirmed and which as refused, when readers do not agree.

use super::*;
use crate::clock::Clock;
use crate::journal::record::RecordDraft;
use crate::journal::{Acks, Journal};
use crate::testing::{Rng, seeds_from};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A journal and the moment at which all happens.
struct TestJournal {
    journal: Journal,
    now: Instant,
}

impl TestJournal {
    fn new() -> TestJournal {
        let journal = Journal::new(Arc::new(Clock::new()), 1 << 20, 4);
        let now = Instant::now();
        journal.set_required(1, now);
        TestJournal { journal, now }
    }

    /// A reader that has everything.
    fn attach(&self, name: &str) -> u64 {
        let (run_id, lsn) = (Some(self.journal.run_id()), Some(self.journal.lsn()));
        let start = self.journal.attach(&Attach { name, identity: "peer", run_id, lsn }, &[]).unwrap();
        assert!(!start.is_full_sync);
        start.id
    }

    /// Makes a change, which all these readers read, and returns its number.
    fn change(&self, readers: &[u64]) -> u64 {
        let lsn = self.journal.lock().append(&RecordDraft::of(RecordKind::Set as u8, 0, b"key", false));
        for &id in readers {
            let reading = self.journal.read(id, u64::MAX, 1000, &mut Vec::new());
            assert!(matches!(reading, Reading::Upto(upto, false) if upto == lsn), "{reading:?}");
        }
        lsn
    }

    fn take(&self, id: u64) {
        self.journal.acknowledge(id, self.journal.lsn(), self.now);
    }

    fn refuse(&self, id: u64) {
        self.journal.refuse(id, self.journal.lsn(), self.now);
    }

    fn fate(&self, lsn: u64) -> Fate {
        fate(self.journal.acks(), lsn)
    }
}

/// What is known of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Confirmed,
    Refused,
}

fn fate(acks: &Acks, lsn: u64) -> Fate {
    match acks.is_refused(lsn) {
        _ if acks.replicated_lsn() < lsn => Fate::Open,
        true => Fate::Refused,
        false => Fate::Confirmed,
    }
}

type Setting = fn(&Journal, Instant);

#[test]
fn a_refusal_speaks_for_nobody_else() {
    let one: Setting = |journal, now| journal.set_required(1, now);
    let two: Setting = |journal, now| journal.set_required(2, now);
    let member_a: Setting = |journal, now| _ = journal.set_members(1, &["a"], now);
    let member_b: Setting = |journal, now| _ = journal.set_members(1, &["b"], now);
    let both: Setting = |journal, now| _ = journal.set_members(1, &["a", "b"], now);
    let table: [(&str, Setting, bool, [Fate; 2]); 10] = [
        ("one, a first", one, true, [Fate::Open, Fate::Confirmed]),
        ("one, b first", one, false, [Fate::Confirmed, Fate::Confirmed]),
        ("two, a first", two, true, [Fate::Open, Fate::Refused]),
        ("two, b first", two, false, [Fate::Open, Fate::Refused]),
        ("member a, a first", member_a, true, [Fate::Refused, Fate::Refused]),
        ("member a, b first", member_a, false, [Fate::Open, Fate::Refused]),
        ("member b, a first", member_b, true, [Fate::Open, Fate::Confirmed]),
        ("member b, b first", member_b, false, [Fate::Confirmed, Fate::Confirmed]),
        ("both, a first", both, true, [Fate::Open, Fate::Refused]),
        ("both, b first", both, false, [Fate::Open, Fate::Refused]),
    ];
    for (name, setting, a_is_first, fates) in table {
        let test = TestJournal::new();
        let readers @ [a, b] = ["a", "b"].map(|name| test.attach(name));
        setting(&test.journal, test.now);
        for _ in 0..3 {
            let lsn = test.change(&readers);
            for (is_a, expected) in [a_is_first, !a_is_first].into_iter().zip(fates) {
                if is_a {
                    test.refuse(a)
                } else {
                    test.take(b)
                }
                assert_eq!(test.fate(lsn), expected, "{name}");
            }
            // What comes after a refused change is not held up by it.
            let next = test.change(&readers);
            readers.iter().for_each(|&id| test.take(id));
            assert_eq!(test.fate(next), Fate::Confirmed, "{name}");
        }
    }
}

#[test]
fn who_is_alone_in_refusing_decides() {
    let test = TestJournal::new();
    let [a, b] = ["a", "b"].map(|name| test.attach(name));
    let lsn = test.change(&[a, b]);
    test.refuse(a);
    assert_eq!(test.fate(lsn), Fate::Open, "b may take it");
    test.journal.detach(b, test.now);
    assert_eq!(test.fate(lsn), Fate::Refused, "b has gone");
    let lsn = test.change(&[a]);
    test.refuse(a);
    assert_eq!(test.fate(lsn), Fate::Refused);
}

/// A connection that breaks makes no confirmation of a refusal.
#[test]
fn who_comes_back_has_still_refused() {
    let test = TestJournal::new();
    test.journal.set_required(2, test.now);
    let [a, b] = ["a", "b"].map(|name| test.attach(name));
    let lsn = test.change(&[a, b]);
    test.refuse(a);
    test.journal.detach(a, test.now);
    test.attach("a");
    test.take(b);
    assert_eq!(test.fate(lsn), Fate::Refused);
}

/// Three readers at their own pace, each of which refuses some changes.
#[test]
fn in_any_order_the_same_is_decided() {
    for seed in seeds_from(0, 300) {
        let mut rng = Rng(seed);
        let test = TestJournal::new();
        let readers = ["a", "b", "c"].map(|name| test.attach(name));
        let needed = match rng.below(4) {
            0 => {
                test.journal.set_members(1, &["b", "c"], test.now);
                None
            }
            n => {
                test.journal.set_required(n as u32, test.now);
                Some(n as usize)
            }
        };
        let lsns: Vec<u64> = (0..30).map(|_| test.change(&readers)).collect();
        let (first, last) = (lsns[0], lsns[lsns.len() - 1]);
        let refusals = readers.map(|_| lsns.iter().copied().filter(|_| rng.one_in(4)).collect::<BTreeSet<u64>>());
        let is_confirmed = |lsn: u64, done: &[u64; 3]| {
            let has = |n: &usize| done[*n] >= lsn && !refusals[*n].contains(&lsn);
            needed.map_or((1..3).all(|n| has(&n)), |needed| (0..3).filter(has).count() >= needed)
        };
        let mut done = [first - 1; 3];
        while done != [last; 3] {
            let n = rng.below(3) as usize;
            if done[n] == last {
                continue;
            }
            done[n] += 1;
            match refusals[n].contains(&done[n]) {
                true => _ = test.journal.refuse(readers[n], done[n], test.now),
                false => test.journal.acknowledge(readers[n], done[n], test.now),
            }
            for &lsn in &lsns {
                let is_right = match test.fate(lsn) {
                    Fate::Open => true,
                    Fate::Confirmed => is_confirmed(lsn, &done),
                    Fate::Refused => !is_confirmed(lsn, &[last; 3]),
                };
                assert!(is_right, "TWINCACHE_SEED={seed}: {lsn} at {done:?}");
            }
        }
        assert!(lsns.iter().all(|&lsn| test.fate(lsn) != Fate::Open), "TWINCACHE_SEED={seed}");
    }
}
