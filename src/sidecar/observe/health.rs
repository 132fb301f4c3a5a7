//! The text of `/health`: whether every peer has everything, and why not.

use super::figures::{ClockBounds, Figures, NamedFigures};
use std::fmt::Write;
use std::time::Duration;

/// A peer does not count as healthy for so long after it refused a change.
const REFUSED_RECENTLY: Duration = Duration::from_secs(60);

/// Wall clocks that differ by less are said to be equal.
const SAME_CLOCK_MS: u64 = 500;

/// Whether every peer has everything but what is younger than `max_lag`, and a line about each.
pub(crate) fn health(peers: &[NamedFigures], max_lag: Duration) -> (bool, String) {
    let is_good = peers.iter().all(|(_, figures)| has_everything(figures, max_lag));
    let mut text = if is_good { "ok\n" } else { "not every peer has everything\n" }.to_owned();
    for (name, figures) in peers {
        let _ = write!(text, "{name}: {}", figures.phase.name());
        if !figures.phase.is_streaming() && !figures.trouble.is_empty() {
            let _ = write!(text, ": {}", figures.trouble);
        }
        if let Some(lag) = figures.lag {
            let _ = write!(text, ", {} ms behind", lag.as_millis());
        }
        if figures.clock_is_off || figures.server_clock_is_off {
            add_clocks(&mut text, figures);
        }
        if let Some(ago) = figures.error_ago {
            let (count, error) = (figures.errors, &figures.error);
            let changes = if count == 1 { "change" } else { "changes" };
            let _ = write!(text, ", {count} {changes} refused, the last {} s ago: {error}", ago.as_secs());
        }
        text.push('\n');
    }
    (is_good, text)
}

/// Says whose wall clock differs from whose. It harms no item's life, but what clients mean by absolute times.
fn add_clocks(text: &mut String, figures: &Figures) {
    let middle = |bounds: Option<ClockBounds>| bounds.map_or(0, ClockBounds::middle);
    let (peer, server) = (middle(figures.clock), middle(figures.server_clock));
    let mut add = |what: &str, whose: &str, ahead: i64| {
        let side = if ahead < 0 { "behind" } else { "ahead of" };
        let _ = write!(text, ", {what} wall clock is {} ms {side} {whose}", ahead.unsigned_abs());
    };
    if figures.clock_is_off != figures.server_clock_is_off || peer.abs_diff(server) > SAME_CLOCK_MS {
        add("its", "the server's", peer.saturating_sub(server));
    }
    if figures.server_clock_is_off {
        add("the server's", "this machine's", server);
    }
}

fn has_everything(figures: &Figures, max_lag: Duration) -> bool {
    let is_near = figures.phase.is_streaming() && figures.lag.is_some_and(|lag| lag <= max_lag);
    is_near && figures.error_ago.is_none_or(|ago| ago >= REFUSED_RECENTLY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::observe::figures::{PeerPhase, Stage};

    #[test]
    fn health_says_why() {
        let health = |peers: &[NamedFigures]| health(peers, Duration::from_millis(9));
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
            let (is_good, text) = health(&[("a:1".into(), figures)], Duration::ZERO);
            assert!(is_good && text.ends_with(end), "{text}");
        }
    }

    fn streaming() -> Figures {
        let (phase, lag) = (PeerPhase::Attached(Stage::Clean), Some(Duration::ZERO));
        Figures { phase, lag, kind: "twincached".into(), ..Figures::default() }
    }
}
