//! Turns and requests of event loops, as they are measured and told.

use super::*;

const US: Duration = Duration::from_micros(1);

#[test]
fn quantiles_of_all_workers() {
    let loops = EventLoops::default();
    let (a, b) = (loops.timer().record, loops.timer().record);
    a.turns.note(10 * US, 989);
    b.turns.note(100 * US, 10);
    b.turns.note(3000 * US, 1);
    b.in_server.note(70 * US, 1);
    let stats = loops.stats();
    let within = |found: Duration, us: u32| us * US <= found && found < us * US * 17 / 16;
    assert_eq!(stats.served, 1000);
    assert!(within(stats.turns.p50, 10) && within(stats.turns.p99, 100) && within(stats.turns.p999, 100));
    assert!(within(stats.in_server.p50, 70), "{stats:?}");
    loops.reset();
    assert_eq!(loops.stats(), LoopStats::default());
    a.turns.note(20 * US, 1);
    assert!(within(loops.stats().turns.p999, 20));
}

#[test]
fn a_request_is_in_the_server_since_the_poll_before() {
    let loops = EventLoops::default();
    let mut timer = loops.timer();
    timer.begin(false, false);
    let first = timer.began();
    assert!(timer.since() <= first);
    timer.end();
    timer.begin(false, true);
    let second = timer.began();
    assert_eq!(timer.since(), first);
    timer.end();
    timer.begin(false, false);
    let third = timer.began();
    assert_eq!(timer.since(), first, "the second poll was full");
    timer.end();
    timer.begin(false, false);
    assert_eq!(timer.since(), third);
    timer.end();
    std::thread::sleep(2 * Duration::from_nanos(WAITED));
    timer.begin(false, false);
    assert!(timer.since() > second, "it could not wait: that was something else");
    timer.end();
    std::thread::sleep(2 * Duration::from_nanos(WAITED));
    timer.begin(true, false);
    let last = timer.began();
    assert_eq!(timer.since(), last);
}

#[test]
fn a_turn_is_told_by_the_clock_and_by_its_work() {
    let loops = EventLoops::default();
    let mut timer = loops.timer();
    timer.begin(true, false);
    timer.count(2);
    std::thread::sleep(1000 * US);
    timer.look();
    timer.count(1);
    timer.end();
    let stats = loops.stats();
    assert_eq!(stats.served, 3);
    assert!(stats.longest >= 1000 * US && stats.longest_cpu <= stats.longest, "{stats:?}");
    assert_eq!(stats.turns.p999, stats.longest, "the end of its bucket is above it");
    assert!(stats.in_server.p50 >= 1000 * US, "{stats:?}");
}

#[test]
fn a_reset_meanwhile_takes_nothing_below_zero() {
    let loops = EventLoops::default();
    let worker = loops.timer().record;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3000 {
                worker.turns.note(10 * US, 1);
                loops.reset();
            }
        });
        (0..3000).for_each(|_| assert!(loops.stats().served <= 3000));
    });
}
