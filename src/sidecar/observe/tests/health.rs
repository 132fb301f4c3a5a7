//! What `/health` says of peers, clocks, full syncs and the own copy.

use super::*;

#[test]
fn health_says_why() {
    let health = |peers: &[NamedFigures]| health(peers, None, Duration::from_millis(9));
    for (lag, is_good) in [(Some(9), true), (Some(10), false), (None, false)] {
        let figures = Figures { lag: lag.map(Duration::from_millis), ..streaming() };
        assert_eq!(health(&[("a:1".into(), figures)]).0, is_good, "{lag:?}");
    }
    let good = ("a:1".to_owned(), streaming());
    assert_eq!(health(std::slice::from_ref(&good)), (true, "ok\na:1: streaming, 0 ms behind\n".to_owned()));
    let bounds = Some(ClockBounds { low: 700, high: 900 });
    let off = Figures { clock: bounds, clock_is_off: true, ..streaming() };
    let error = "SERVER_ERROR no".to_owned();
    let lacking = Figures { errors: 3, error, error_ago: Some(Duration::from_secs(59)), ..streaming() };
    let (is_good, text) = health(&[("a:1".into(), lacking)]);
    assert!(!is_good && text.ends_with(", 3 changes refused, the last 59 s ago: SERVER_ERROR no\n"), "{text}");
    let refused = Figures { phase: PeerPhase::Refused, trouble: "no".into(), ..Figures::default() };
    let (is_good, text) = health(&[good, ("b:1".into(), off), ("c:1".into(), refused)]);
    assert!(
        !is_good && text.contains("b:1: streaming, 0 ms behind, its wall clock is 800 ms ahead of the server's\n"),
        "{text}"
    );
    assert!(text.ends_with("c:1: refused: no\n"), "{text}");
}

#[test]
fn health_says_whose_clock_differs() {
    let bounds = |ms: i64| Some(ClockBounds { low: ms - 5, high: ms + 5 });
    let table = [
        (
            (0, false),
            (-7_200_000, true),
            ", its wall clock is 7200000 ms ahead of the server's, the server's wall \
                                           clock is 7200000 ms behind this machine's\n",
        ),
        ((900, true), (900, true), "behind, the server's wall clock is 900 ms ahead of this machine's\n"),
        ((0, false), (0, false), "streaming, 0 ms behind\n"),
    ];
    for ((peer, clock_is_off), (server, server_clock_is_off), end) in table {
        let (clock, server_clock) = (bounds(peer), bounds(server));
        let figures = Figures { clock, clock_is_off, server_clock, server_clock_is_off, ..streaming() };
        let (is_good, text) = health(&[("a:1".into(), figures)], None, Duration::ZERO);
        assert!(is_good && text.ends_with(end), "{text}");
    }
}

#[test]
fn health_says_how_far_a_full_sync_is() {
    let sync = SyncFigures { items: 12_345, expected: 28_000, bytes: 5, took: Duration::from_secs(10) };
    let figures = Figures { phase: PeerPhase::Attached(Stage::Syncing), sync, ..Figures::default() };
    let (is_good, text) = health(&[("a:1".into(), figures)], None, Duration::ZERO);
    assert!(!is_good && text.ends_with("walking, full sync 44 %, 12345 of 28000 items, about 13 s to go\n"), "{text}");
    let begun = SyncFigures { expected: 0, ..SyncFigures::default() };
    assert_eq!((begun.percent(), begun.left()), (100, None));
}

#[test]
fn who_is_fed_by_the_peer_is_as_good_as_its_own_copy() {
    let trouble = "would go in a circle".to_owned();
    let feeder = Figures { phase: PeerPhase::Refused, is_upstream: true, trouble, ..Figures::default() };
    let feeder = ("a:1".to_owned(), feeder);
    for is_good in [true, false] {
        let own = StandbyHealth { is_good, text: "own".to_owned() };
        let (found, text) = health(std::slice::from_ref(&feeder), Some(&own), Duration::ZERO);
        let first = if is_good { "ok" } else { "the server's own copy is not good" };
        assert_eq!((found, text), (is_good, format!("{first}\nown\na:1: feeds this server\n")));
    }
    let (is_good, text) = health(&[feeder], None, Duration::ZERO);
    assert!(!is_good && text.ends_with("a:1: refused: would go in a circle\n"), "{text}");
}

fn streaming() -> Figures {
    let (phase, lag) = (PeerPhase::Attached(Stage::Clean), Some(Duration::ZERO));
    Figures { phase, lag, kind: "twincached".into(), ..Figures::default() }
}
