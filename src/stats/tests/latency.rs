//! Latencies as they are measured, kept and told.

use super::*;
use crate::stats::CommandKind;
use crate::testing::{Rng, seeds};
use hdrhistogram::Histogram as Hdr;

const US: Duration = Duration::from_micros(1);

fn worker(latencies: &Latencies) -> RequestTimer {
    latencies.timer(Arc::default())
}

fn count(timer: &RequestTimer, kind: CommandKind, times: usize) {
    (0..times).for_each(|_| timer.counters.commands.count(kind));
}

fn kind(latencies: &Latencies, name: &str) -> KindLatency {
    latencies.kinds().into_iter().find(|kind| kind.name == name).expect("there are all kinds")
}

/// What the crate of that name says, with two significant digits as well.
#[test]
fn quantiles_are_those_of_hdrhistogram() {
    for seed in seeds(5) {
        let mut rng = Rng(seed);
        let latencies = Latencies::default();
        let (a, b) = (worker(&latencies), worker(&latencies));
        let mut hdr = Hdr::<u64>::new(2).unwrap();
        for _ in 0..20_000 {
            // From 1 us to 1 s, as likely in each power of two.
            let ns = (1000_u64 << rng.below(20)) + rng.below(1000) as u64;
            let ns = ns + rng.below(ns as usize) as u64;
            let timer = if rng.below(2) == 0 { &a } else { &b };
            timer.record.note(0, Duration::from_nanos(ns), 3);
            hdr.record_n(ns, 3).unwrap();
        }
        let get = kind(&latencies, "get");
        assert_eq!(get.count(), 60_000);
        for share in [0.0, 0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let (found, truth) = (get.quantile(share).as_nanos() as f64, hdr.value_at_quantile(share) as f64);
            // Each of them is within 0.8 %.
            assert!((found / truth - 1.0).abs() < 0.017, "{share}: {found} and not {truth}");
        }
        assert!((get.sum.as_nanos() as f64 / 60_000.0 / hdr.mean() - 1.0).abs() < 0.01);
    }
}

#[test]
fn memory_is_bounded() {
    let record = LatencyRecord::new(Arc::default());
    assert!(size_of::<LatencyRecord>() + size_of_val(&*record.counts) < 64 << 10);
}

#[test]
fn a_request_takes_from_its_read_to_the_next_look() {
    let latencies = Latencies::default();
    let mut timer = worker(&latencies);
    timer.read_at(10 * US);
    count(&timer, CommandKind::Get, 2);
    timer.end(30 * US);
    // Read with them, and answered later.
    count(&timer, CommandKind::Get, 1);
    timer.end(60 * US);
    timer.read_before(1000 * US);
    count(&timer, CommandKind::Set, 1);
    timer.end(70 * US);
    let told = |name: &str| {
        let kind = kind(&latencies, name);
        (kind.count(), kind.sum / 1000, kind.longest / 1000)
    };
    assert_eq!(told("get"), (3, 90 * US / 1000, 50 * US / 1000));
    assert_eq!(told("set"), (1, 1070 * US / 1000, 1070 * US / 1000));
    timer.end_turn(70 * US);
    assert_eq!(kind(&latencies, "turn").quantile(0.5), 70 * US, "the middle of its bucket is above the longest");
}

#[test]
fn those_before_a_long_turn_end_before_it() {
    let latencies = Latencies::default();
    let mut timer = worker(&latencies);
    count(&timer, CommandKind::Get, 2);
    timer.mark_written();
    assert!(timer.has_written());
    count(&timer, CommandKind::Get, 1);
    timer.end_written(10 * US);
    timer.end(500 * US);
    let get = kind(&latencies, "get");
    assert_eq!((get.count(), get.sum, get.longest), (3, 520 * US, 500 * US));
}

#[test]
fn what_is_withheld_ends_when_it_is_let_go() {
    let latencies = Latencies::default();
    let mut timer = worker(&latencies);
    let began = Instant::now();
    timer.read_at(100 * US);
    count(&timer, CommandKind::Get, 1);
    timer.mark_written();
    count(&timer, CommandKind::Set, 2);
    let withheld = timer.withhold(began);
    timer.end(200 * US);
    assert_eq!(kind(&latencies, "set").count(), 0);
    assert_eq!(kind(&latencies, "get").sum, 100 * US);
    timer.end_withheld(&withheld, began + 5000 * US);
    assert_eq!((kind(&latencies, "set").count(), kind(&latencies, "set").longest), (2, 4900 * US));
}

#[test]
fn a_full_count_is_moved() {
    let latencies = Latencies::default();
    let timer = worker(&latencies);
    for _ in 0..6 {
        timer.record.note(2, 10 * US, FULL - 1);
    }
    let set = kind(&latencies, "set");
    assert_eq!(set.count(), 6 * u64::from(FULL - 1));
    assert_eq!(set.buckets.len(), 1);
    latencies.reset();
    assert_eq!(kind(&latencies, "set").count(), 0);
    timer.record.note(2, 10 * US, 7);
    assert_eq!(kind(&latencies, "set").count(), 7);
}

#[test]
fn buckets_stand_side_by_side() {
    let counts = vec![1; BUCKETS];
    let buckets = LatencyBucket::all(&counts);
    assert!(buckets.windows(2).all(|pair| pair[0].below == pair[1].from));
    let last = buckets[BUCKETS - 1];
    assert_eq!((buckets[0].from, last.below, last.from), (0, 1 << 34, 127 << 27));
}

#[test]
fn a_reset_forgets_and_no_timer_measures_nothing() {
    let latencies = Latencies::default();
    assert!(latencies.kinds().is_empty());
    let mut timer = worker(&latencies);
    count(&timer, CommandKind::Other, 1);
    timer.end(Duration::from_secs(100));
    let other = kind(&latencies, "other");
    assert_eq!((other.longest, other.buckets[0].below), (Duration::from_secs(100), 1 << 34));
    latencies.reset();
    let other = kind(&latencies, "other");
    assert_eq!((other.count(), other.sum, other.longest), (0, Duration::ZERO, Duration::ZERO));
    assert_eq!(other.quantile(0.99), Duration::ZERO);
}
