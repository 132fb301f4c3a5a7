//! Latencies as they are measured, kept and told.

use super::*;
use crate::stats::CommandKind;

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

#[test]
fn a_request_takes_from_its_read_to_the_next_look() {
    let latencies = Latencies::default();
    let mut timer = worker(&latencies);
    timer.read_at(10_000);
    count(&timer, CommandKind::Get, 2);
    timer.end(30000);
    // Read with them, and answered later.
    count(&timer, CommandKind::Get, 1);
    timer.end(60000);
    timer.read_before(1000 * US);
    count(&timer, CommandKind::Set, 1);
    timer.end(70000);
    let told = |name: &str| {
        let kind = kind(&latencies, name);
        (kind.count(), kind.buckets[0].from / 1000, kind.longest)
    };
    assert_eq!(told("get"), (3, 19, 50 * US));
    assert_eq!(told("set"), (1, 1064, 1070 * US));
    let set = kind(&latencies, "set");
    assert_eq!((set.quantile(0.5), set.bound(0.5)), (1070 * US, 1070 * US), "nothing is above the longest");
}

#[test]
fn those_before_a_long_turn_end_before_it() {
    let latencies = Latencies::default();
    let mut timer = worker(&latencies);
    count(&timer, CommandKind::Get, 2);
    timer.mark_written();
    assert!(timer.has_written());
    count(&timer, CommandKind::Get, 1);
    timer.end_written(10000);
    timer.end(500000);
    let get = kind(&latencies, "get");
    assert_eq!((get.count(), get.quantile(0.6) / 1000, get.longest), (3, Duration::from_nanos(10), 500 * US));
}

#[test]
fn what_is_withheld_ends_when_it_is_let_go() {
    let latencies = Latencies::default();
    let mut timer = worker(&latencies);
    let began = Instant::now();
    timer.read_at(100_000);
    count(&timer, CommandKind::Get, 1);
    timer.mark_written();
    count(&timer, CommandKind::Set, 2);
    let withheld = timer.withhold(began);
    timer.end(200000);
    assert_eq!(kind(&latencies, "set").count(), 0);
    assert_eq!(kind(&latencies, "get").longest, 100 * US);
    timer.end_withheld(&withheld, began + 5000 * US);
    assert_eq!((kind(&latencies, "set").count(), kind(&latencies, "set").longest), (2, 4900 * US));
}

#[test]
fn a_reset_forgets_and_no_timer_measures_nothing() {
    let latencies = Latencies::default();
    assert!(latencies.kinds().is_empty());
    let mut timer = worker(&latencies);
    count(&timer, CommandKind::Other, 1);
    timer.end(100_000_000_000);
    let other = kind(&latencies, "other");
    assert_eq!((other.longest, other.buckets[0].below), (Duration::from_secs(100), 1 << 34));
    latencies.reset();
    let other = kind(&latencies, "other");
    assert_eq!((other.count(), other.sum(), other.longest), (0, Duration::ZERO, Duration::ZERO));
    assert_eq!(other.quantile(0.99), Duration::ZERO);
}
