//! The text of `/health`: whether every peer has everything, and why not.

use super::figures::{ClockBounds, Figures, NamedFigures, PeerPhase, Stage, SyncFigures};
use super::standby::StandbyHealth;
use std::fmt::Write;
use std::time::Duration;

/// A peer does not count as healthy for so long after it refused a change, unless the server says what it lacks.
const REFUSED_RECENTLY: Duration = Duration::from_secs(60);

/// Wall clocks that differ by less are said to be equal.
const SAME_CLOCK_MS: u64 = 500;

/// Whether every peer has everything but what is younger than `max_lag`, and a line about each. A peer that feeds this
/// server gets nothing from it: then the server's own copy, of which `own` tells, has to be good.
pub(crate) fn health(peers: &[NamedFigures], own: Option<&StandbyHealth>, max_lag: Duration) -> (bool, String) {
    let is_fed = |figures: &Figures| figures.is_upstream && own.is_some();
    let peers_are_good = peers.iter().all(|(_, figures)| is_fed(figures) || has_everything(figures, max_lag));
    let is_good = peers_are_good && own.is_none_or(|own| own.is_good);
    let trouble =
        if peers_are_good { "the server's own copy is not good\n" } else { "not every peer has everything\n" };
    let mut text = if is_good { "ok\n" } else { trouble }.to_owned();
    own.iter().for_each(|own| _ = writeln!(text, "{}", own.text));
    for (name, figures) in peers {
        if is_fed(figures) {
            let _ = writeln!(text, "{name}: feeds this server");
            continue;
        }
        let _ = write!(text, "{name}: {}", figures.phase.name());
        if figures.phase == PeerPhase::Attached(Stage::Syncing) {
            add_progress(&mut text, &figures.sync);
        }
        if !figures.phase.is_streaming() && !figures.trouble.is_empty() {
            let _ = write!(text, ": {}", figures.trouble);
            // What it says was true then: a server that was empty may have been filled since.
            if figures.trouble_ago >= Duration::from_secs(1) {
                let _ = write!(text, " (said {} s ago)", figures.trouble_ago.as_secs());
            }
        }
        if let Some(silent) = figures.server_silent {
            let _ = write!(text, ", the server hangs: it has said nothing for {} ms or more", silent.as_millis());
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
            match figures.lacking {
                Some(0) => text.push_str("; what it lacked it has by now"),
                Some(ranges) => _ = write!(text, "; it lacks some of {ranges} ranges of keys, which are sent again"),
                None => {}
            }
        }
        text.push('\n');
    }
    (is_good, text)
}

fn add_progress(text: &mut String, sync: &SyncFigures) {
    let SyncFigures { items, expected, .. } = sync;
    let _ = write!(text, ", full sync {} %, {items} of {expected} items", sync.percent());
    if let Some(left) = sync.left() {
        let _ = write!(text, ", about {} s to go", left.as_secs() + 1);
    }
}

/// A line if changes of clients fail, by the rows of `stats replication`.
pub(crate) fn writes(rows: &[(String, String)]) -> String {
    let get = |name: &str| rows.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.parse().ok());
    let [required, missing, degraded] = ["replicas_ack", "replicas_missing", "degraded"].map(|it| get(it).unwrap_or(0));
    let role = rows.iter().find(|(name, _)| name == "role").map_or("", |(_, role)| role.as_str());
    let remedy = match role {
        "waiting" | "standby" | "candidate" => return String::new(),
        "primary" => "start another node of the shard, or all servers with a lower one",
        _ => "the line `replicas_ack 0` to the control socket lets writes go on without them",
    };
    match missing {
        1_u64.. if degraded == 0 => format!(
            "writes fail now: replicas_ack is {required}, and {missing} of those who must confirm are missing; {remedy}\n"
        ),
        _ => String::new(),
    }
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
    is_near && figures.server_silent.is_none() && !lacks_some(figures)
}

/// Whether there is something that the peer has refused and does not have.
fn lacks_some(figures: &Figures) -> bool {
    let was_refused = figures.error_ago.is_some_and(|ago| ago < REFUSED_RECENTLY);
    figures.lacking.map_or(was_refused, |ranges| ranges > 0)
}

#[cfg(test)]
#[path = "tests/health.rs"]
mod tests;
