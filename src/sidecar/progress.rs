//! The line at a terminal that says how far full syncs are. Elsewhere the log says it, every ten seconds.
//!
//! ```text
//!   b: full sync 43 %, 1234 of 2871 items, 12.3 MB/s, 8 s left   c: full sync 7 %, …
//! ```
//!
//! Not here: how a line comes to stand at the bottom (`supervisor`).

use super::link::PeerFigures;
use super::observe::figures::{Figures, SyncFigures};
use crate::supervisor;
use crate::sync::lock;
use std::sync::{Arc, Mutex};

/// Shows it of these peers and of the nodes that are fed, or takes it away when nothing is synced any more.
pub(super) fn show(peers: &[Arc<PeerFigures>], nodes: &Mutex<Vec<Arc<PeerFigures>>>) {
    let nodes = lock(nodes).clone();
    let texts = peers.iter().chain(&nodes).filter_map(|peer| text(&peer.name, &peer.figures()));
    let line = texts.collect::<Vec<String>>().join("   ");
    supervisor::show(Some(line.as_str()).filter(|line| !line.is_empty()));
}

/// None while no full sync goes on.
fn text(name: &str, figures: &Figures) -> Option<String> {
    let SyncFigures { items, expected, bytes, took } = figures.sync;
    let seconds = took.as_secs_f64();
    let rate = if seconds > 0.0 { bytes as f64 / 1e6 / seconds } else { 0.0 };
    let left = figures.sync.left().map_or(String::new(), |left| format!(", {} s left", left.as_secs()));
    let percent = figures.sync.percent();
    let text = format!("{name}: full sync {percent} %, {items} of {expected} items, {rate:.1} MB/s{left}");
    figures.is_syncing().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sidecar::observe::figures::{PeerPhase, Stage};
    use std::time::Duration;

    #[test]
    fn how_far_it_is() {
        let sync = SyncFigures { items: 250, expected: 1000, bytes: 50_000_000, took: Duration::from_secs(10) };
        let mut figures = Figures { sync, phase: PeerPhase::Attached(Stage::Syncing), ..Figures::default() };
        let wanted = "b: full sync 25 %, 250 of 1000 items, 5.0 MB/s, 30 s left";
        assert_eq!(text("b", &figures).as_deref(), Some(wanted));
        figures.sync = SyncFigures { expected: 1000, ..SyncFigures::default() };
        let wanted = "b: full sync 0 %, 0 of 1000 items, 0.0 MB/s";
        assert_eq!(text("b", &figures).as_deref(), Some(wanted));
        figures.phase = PeerPhase::Attached(Stage::Clean);
        assert_eq!(text("b", &figures), None);
    }
}
