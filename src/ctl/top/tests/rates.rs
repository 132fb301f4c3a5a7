//! Rows of samples: what is known, what is not, and what nonsense does.

use super::*;
use std::time::Duration;

fn rows(text: &str) -> ToldStats {
    let pairs = text.split_whitespace().map(|word| word.split_once('=').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn sample(at: Instant, general: &str) -> TopSample {
    TopSample { at, general: rows(general), latency: None, replication: None, hot_keys: None, slabs: None }
}

fn two(before: &str, now: &str) -> TopRow {
    let start = Instant::now();
    let later = sample(start + Duration::from_secs(2), now);
    TopRow::of("a:1", Some(&sample(start, before)), &later)
}

#[test]
fn counters_become_rates() {
    let row = two(
        "pid=1 uptime=5 cmd_get=100 cmd_set=10 delete_hits=0 get_hits=50 get_misses=50 evictions=0",
        "pid=1 uptime=7 cmd_get=300 cmd_set=30 delete_hits=4 get_hits=200 get_misses=100 evictions=5 bytes=7",
    );
    assert_eq!((row.gets, row.sets, row.others, row.operations), (Some(100.0), Some(10.0), Some(2.0), Some(112.0)));
    assert_eq!((row.hit_share, row.evictions, row.bytes), (Some(0.75), Some(2.5), Some(7)));
    assert_eq!((row.role, row.lag, row.p50), (None, None, None));
}

#[test]
fn a_server_that_was_started_again_has_no_rates_yet() {
    let table = [
        ("pid=1 uptime=9 cmd_get=100 cmd_set=1", "pid=2 uptime=9 cmd_get=500 cmd_set=1"),
        ("pid=1 uptime=9 cmd_get=100 cmd_set=1", "pid=1 uptime=2 cmd_get=500 cmd_set=1"),
        ("pid=1 uptime=9 cmd_get=100 cmd_set=1", "pid=1 uptime=9 cmd_get=50 cmd_set=1"),
        ("pid=1 uptime=9", "pid=1 uptime=9 cmd_get=x cmd_set=-1"),
    ];
    for (before, now) in table {
        let row = two(before, now);
        assert_eq!((row.gets, row.operations), (None, None), "{now}");
    }
}

#[test]
fn huge_numbers_are_no_trouble() {
    let most = u64::MAX;
    let general = format!("cmd_get={most} cmd_set={most} cmd_touch={most} delete_hits={most} delete_misses={most}");
    let row = two("cmd_get=0 cmd_set=0 cmd_touch=0 delete_hits=0 delete_misses=0", &general);
    assert!(row.operations.unwrap() > 3e19);
    assert_eq!(two("cmd_get=0", "cmd_get=99999999999999999999999").gets, None);
}

fn lag_of(text: &str) -> Option<TopLag> {
    lag(&rows(text))
}

#[test]
fn the_worst_copy_is_told() {
    assert_eq!(lag_of("role=standalone copy=none consumers=0"), None);
    assert_eq!(lag_of("copy=partial copy_percent=42"), Some(TopLag::Syncing(Some(42))));
    let two = "copy=none 0:state=streaming 0:lag_ms=3 1:state=streaming 1:lag_ms=12";
    assert_eq!(lag_of(two), Some(TopLag::Behind(12)));
    assert_eq!(lag_of(&format!("{two} 2:state=walking")), Some(TopLag::Syncing(None)));
}

#[test]
fn details_are_bounded() {
    let many: String = (0..10_000).map(|at| format!("{at}:key=k{at} {at}:operations=60 ")).collect();
    let keys = hot_keys(&rows(&format!("seconds=60 {many}")));
    assert_eq!((keys.len(), keys[0].per_second), (GROUPS_MAX, Some(1.0)));
    let keys =
        hot_keys(&rows("seconds=60 1:key=a 1:percent=NaN 1:reads=3 1:writes=1 2:key=b 2:percent=0.50 2:reads=-1"));
    assert_eq!((keys[0].percent, keys[0].read_share(), keys[0].rank), (None, Some(0.75), 1));
    assert_eq!((keys[1].percent, keys[1].read_share(), keys[1].per_second), (Some(0.5), None, None));
    let slabs = slabs(&rows("1:chunk_size=96 items:1:age=5 active_slabs=1 x:y=1 99999999999999999999:age=1"));
    assert_eq!((slabs.len(), slabs[0].chunk, slabs[0].age, slabs[0].free), (1, Some(96), Some(5), None));
}

#[test]
fn quantiles_are_of_the_interval() {
    let of = |text: &str| LatencyBuckets::parse(&rows(text));
    let before = of("get:count=100 get:sum_ns=5 get:1000=100 other:5000=1");
    let now = of("get:count=110 get:sum_ns=9 get:1000=101 get:9000=9 other:5000=3 turn:7=8");
    let span = now.since(Some((&before, 2.0)));
    assert_eq!((span.p50, span.p99), (Some(9.0), Some(9.0)), "neither other nor turns count");
    assert_eq!((span.kinds[0].per_second, span.kinds[0].quantiles.unwrap()), (Some(5.0), [9.0; 4]));
    let first = now.since(None);
    assert_eq!((first.p50, first.kinds[0].per_second), (Some(1.0), None));
    let again = of("get:count=1 get:2000=1").since(Some((&now, 2.0)));
    assert_eq!((again.p50, again.kinds[0].per_second), (Some(2.0), Some(0.5)), "after a reset it begins anew");
    let none = now.since(Some((&now, 2.0)));
    assert_eq!((none.p50, none.kinds[0].quantiles), (None, None));
    let huge = of(&format!("get:1={0} get:2={0} set:3={0}", u64::MAX)).since(None);
    assert_eq!(huge.p50, Some(0.001));
}
