//! When the address is added, announced and removed.

use super::{AddressStep, Announcing, FAST_FOR, KEPT_FOR, LEAVES_AFTER, RENEW_EVERY, SLOW, Wish};
use crate::testing::{Rng, seeds};
use std::time::Duration;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const LATER: Duration = ms(1_000_000);

fn here(epoch: u64, until: Duration) -> Wish {
    Wish::Here { epoch, until, is_settled: false }
}

/// An address on an interface, and what was done about it.
struct Rig {
    announcing: Announcing,
    now: Duration,
    /// Whether it can be added.
    works: bool,
    is_there: bool,
    done: Vec<(u64, AddressStep)>,
}

impl Rig {
    fn new() -> Rig {
        Rig { announcing: Announcing::new(), now: ms(0), works: true, is_there: false, done: Vec::new() }
    }

    fn follow(&mut self, wish: Wish) {
        self.announcing.follow(wish, self.now);
        self.act();
    }

    /// Lets time pass up to this moment.
    fn pass(&mut self, until: u64) {
        while let Some(due) = self.announcing.due(self.now).filter(|due| *due <= ms(until)) {
            self.now = due.max(self.now);
            self.act();
        }
        self.now = ms(until);
    }

    fn act(&mut self) {
        while let Some(step) = self.announcing.next(self.now) {
            self.done.push((self.now.as_millis() as u64, step));
            match step {
                AddressStep::Renew(_) => {
                    let is_new = !self.is_there && self.works;
                    self.is_there |= self.works;
                    self.announcing.renewed(self.works, is_new, self.now);
                }
                AddressStep::Remove => self.is_there = false,
                _ => {}
            }
        }
    }

    fn take(&mut self) -> Vec<AddressStep> {
        self.done.drain(..).map(|(_, step)| step).collect()
    }

    /// When it was announced.
    fn announced(&mut self) -> Vec<u64> {
        let done = std::mem::take(&mut self.done);
        done.into_iter().filter(|(_, step)| *step == AddressStep::Announce).map(|(at, _)| at).collect()
    }
}

#[test]
fn it_is_up_and_announced_before_the_program_runs() {
    let mut rig = Rig::new();
    rig.follow(here(3, ms(1000)));
    let kept = AddressStep::Renew(ms(1000) + KEPT_FOR);
    assert_eq!(rig.take(), [kept, AddressStep::Announce, AddressStep::Promote(3)]);
    rig.follow(Wish::Away);
    assert_eq!(rig.take(), [AddressStep::Demote(3), AddressStep::Remove]);
    rig.follow(Wish::Away);
    assert_eq!((rig.take(), rig.announcing.due(rig.now)), (vec![], None));
}

#[test]
fn announcements_become_slow() {
    let mut rig = Rig::new();
    rig.follow(here(1, LATER));
    rig.pass(40_000);
    let mut expected: Vec<u64> = [0, 10].into_iter().chain((50..10_200).step_by(200)).collect();
    expected.extend([20_050, 30_050]);
    let expected: Vec<u64> = expected.into_iter().filter(|at| *at <= 10_050 || *at > 20_000).collect();
    assert_eq!(rig.announced(), expected);
}

#[test]
fn they_are_slow_soon_when_nobody_else_answers() {
    let mut rig = Rig::new();
    rig.follow(here(1, LATER));
    rig.pass(500);
    rig.follow(Wish::Here { epoch: 1, until: LATER, is_settled: true });
    rig.pass(25_000);
    assert_eq!(rig.announced(), [0, 10, 50, 250, 450, 500, 700, 900, 1100, 1300, 1500, 11_500, 21_500]);
    rig.follow(here(2, LATER));
    assert!(rig.take().starts_with(&[AddressStep::Demote(1)]), "the next epoch is not settled");
    rig.follow(Wish::Here { epoch: 2, until: LATER, is_settled: true });
    rig.pass(25_700);
    assert_eq!(rig.announced(), [25_000, 25_040, 25_240, 25_440, 25_640], "three of them in any case");
}

#[test]
fn who_hands_over_leaves_the_address_for_a_moment() {
    let mut rig = Rig::new();
    rig.follow(here(1, LATER));
    rig.pass(1000);
    rig.take();
    rig.follow(Wish::Leaving);
    assert_eq!(rig.take(), [AddressStep::Demote(1)], "and says nothing more");
    rig.pass(1199);
    assert!(rig.take().is_empty() && rig.is_there);
    rig.pass(1300);
    assert_eq!((rig.take(), rig.is_there), (vec![AddressStep::Remove], false));
    rig.follow(here(2, LATER));
    rig.follow(Wish::Leaving);
    rig.follow(here(3, LATER));
    rig.pass(5000);
    assert!(rig.is_there, "it came back at once");
    rig.follow(Wish::Leaving);
    rig.take();
    rig.follow(Wish::Away);
    assert_eq!((rig.take(), rig.announcing.due(rig.now)), (vec![AddressStep::Remove], None));
}

#[test]
fn nothing_is_said_after_the_deadline() {
    let mut rig = Rig::new();
    rig.follow(here(1, ms(300)));
    rig.pass(5000);
    assert!(rig.done.iter().all(|(at, _)| *at < 300) && rig.is_there, "{:?}", rig.done);
    rig.follow(here(1, ms(5300)));
    rig.take();
    // The process is frozen, with things to do, and thaws.
    rig.now = ms(5400);
    rig.act();
    assert_eq!((rig.take(), rig.announcing.due(rig.now)), (vec![], None));
    rig.follow(here(1, ms(6000)));
    assert_eq!(rig.take(), [AddressStep::Renew(ms(600) + KEPT_FOR), AddressStep::Announce], "and goes on");
    rig.follow(here(2, ms(4000)));
    assert_eq!(rig.take(), [AddressStep::Demote(1)], "too late: no promotion");
    rig.follow(Wish::Away);
    assert_eq!(rig.take(), [AddressStep::Remove]);
}

#[test]
fn what_others_remove_comes_back() {
    let mut rig = Rig::new();
    rig.follow(here(1, LATER));
    rig.pass(FAST_FOR.as_millis() as u64 + 500);
    rig.take();
    rig.is_there = false;
    rig.pass(12_000);
    assert!(rig.is_there);
    assert_eq!(rig.announced(), [11_000, 11_010, 11_050], "and is announced anew");
    rig.works = false;
    rig.is_there = false;
    rig.pass(14_000);
    rig.works = true;
    rig.pass(15_000);
    let first = rig.done.iter().position(|(_, step)| *step == AddressStep::Announce).unwrap();
    let tries = rig.done.iter().filter(|(at, step)| *at < 14_000 && matches!(step, AddressStep::Renew(_))).count();
    assert!(tries == 5 && rig.done[first].0 >= 14_000 && rig.done[first].0 <= 14_200, "{:?}", rig.done);
}

#[test]
fn an_earlier_run_is_cleaned_up_after_once() {
    let mut rig = Rig::new();
    rig.follow(Wish::Unknown);
    assert_eq!(rig.take(), []);
    rig.follow(Wish::Away);
    assert_eq!(rig.take(), [AddressStep::Demote(0)]);
    rig.follow(Wish::Away);
    assert_eq!(rig.take(), []);
}

/// Whatever the lease says, and however late it is heard.
#[test]
fn any_course_of_things() {
    for seed in seeds(300) {
        let mut rng = Rng(seed);
        let mut rig = Rig::new();
        let (mut wish, mut epoch, mut promoted) = (Wish::Unknown, 0, Some(0));
        let mut left = 0;
        for _ in 0..200 {
            let now = rig.now.as_millis() as u64;
            let until = ms(now + rng.below(3000)).saturating_sub(ms(500));
            let before = wish;
            wish = match rng.below(5) {
                0 => Wish::Away,
                4 => Wish::Leaving,
                1 => {
                    epoch += 1;
                    here(epoch, until)
                }
                2 if matches!(wish, Wish::Here { .. }) => Wish::Here { epoch, until, is_settled: rng.below(2) == 0 },
                _ => wish,
            };
            rig.works = rng.below(8) > 0;
            if rng.below(8) == 0 {
                rig.is_there = false;
            }
            rig.follow(wish);
            rig.pass(now + rng.below(2500));
            let right = if let Wish::Here { until, .. } = wish { until } else { ms(0) };
            let mut is_renewed = false;
            for (at, step) in std::mem::take(&mut rig.done) {
                match step {
                    AddressStep::Promote(epoch) => assert_eq!(promoted.replace(epoch).filter(|old| *old > 0), None),
                    AddressStep::Demote(epoch) => assert_eq!(promoted.take(), Some(epoch)),
                    AddressStep::Remove => continue,
                    AddressStep::Renew(_) => is_renewed = true,
                    AddressStep::Announce => {}
                }
                let is_demotion = matches!(step, AddressStep::Demote(_));
                assert!(is_demotion || ms(at) < right, "{step:?} at {at} is after {right:?}");
            }
            if before != Wish::Leaving {
                left = now;
            }
            let has_left = wish == Wish::Leaving && rig.now >= ms(left) + LEAVES_AFTER;
            let is_away = has_left || matches!(wish, Wish::Away | Wish::Unknown);
            assert!(!(is_away && (rig.is_there || is_renewed)), "{wish:?}");
            let is_due = rig.announcing.due(rig.now).is_some();
            assert!(!is_due || rig.announcing.due(rig.now).unwrap() <= rig.now + RENEW_EVERY.min(SLOW));
        }
    }
}
