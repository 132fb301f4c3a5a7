//! The last hour in figures, and what has happened in it: what the status page draws and lists.
//!
//! ```text
//!   every second      states of peers, server and lease ── changed? ──> events, the last EVENTS
//!   every STEP        statistics of the server ── minus those before ──> samples, the last SAMPLES
//! ```
//!
//! Invariants: memory is bounded by SAMPLES and EVENTS, however long the process runs. A rate is of the time between two
//! looks at the same start of the server; there is none where the server was away or was started again.
//!
//! Not here: who looks (`monitor`), how it is shown (`page`).

use super::server_stats::{ServerStats, number, value};
use crate::sidecar::server_socket::StatRows;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Between two samples.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// An hour of samples.
const SAMPLES: usize = 3600 / STEP.as_secs() as usize;

/// Events that are kept.
const EVENTS: usize = 100;

/// Longest text of an event, in characters.
const EVENT_MAX: usize = 300;

/// One look at the server. What is not known is `null`: then the server did not answer, or was started meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Unix seconds.
    pub at: u64,
    /// Requests a second.
    pub gets: Option<f64>,
    pub sets: Option<f64>,
    pub deletes: Option<f64>,
    pub others: Option<f64>,
    /// Hits of all gets since the sample before, 0 to 1.
    pub hit_ratio: Option<f64>,
    /// Items evicted a second.
    pub evictions: Option<f64>,
    /// Bytes a second, from clients and to them.
    pub read: Option<f64>,
    pub written: Option<f64>,
    /// Of the requests since the sample before, in microseconds.
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    /// Now.
    pub bytes: Option<u64>,
    pub items: Option<u64>,
    pub connections: Option<u64>,
    /// Milliseconds that the worst copy is behind, or that this copy is.
    pub lag_ms: Option<u64>,
}

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct StatusEvent {
    /// Unix seconds.
    pub at: u64,
    /// A sentence.
    pub text: String,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    events: VecDeque<StatusEvent>,
    last: Option<Counted>,
}

/// Counters at the last look.
#[derive(Debug)]
struct Counted {
    run: String,
    at: Duration,
    general: BTreeMap<String, u64>,
    buckets: BTreeMap<u64, u64>,
}

impl History {
    /// Adds a look, at this time since some start; `None`: the server did not answer.
    pub(super) fn add(&mut self, unix: u64, at: Duration, stats: Option<&ServerStats>, lag_ms: Option<u64>) {
        let mut sample = Sample { at: unix, lag_ms, ..Sample::default() };
        let now = stats.map(|stats| Counted::new(at, stats));
        if let (Some(now), Some(stats)) = (&now, stats) {
            sample.bytes = number(&stats.general, "bytes");
            sample.items = number(&stats.general, "curr_items");
            sample.connections = number(&stats.general, "curr_connections");
            if let Some(before) = self.last.as_ref().filter(|before| before.run == now.run && before.at < now.at) {
                now.fill(before, &mut sample);
            }
        }
        self.last = now;
        if self.samples.len() >= SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Notes that something has happened.
    pub(super) fn tell(&mut self, unix: u64, text: &str) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(StatusEvent { at: unix, text: text.chars().take(EVENT_MAX).collect() });
    }

    /// The samples, the oldest first.
    pub(super) fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The events, the newest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &StatusEvent> {
        self.events.iter().rev()
    }
}

impl Counted {
    fn new(at: Duration, stats: &ServerStats) -> Counted {
        let run = value(&stats.replication, "run_id").unwrap_or_default().to_owned();
        let numbers = |rows: &StatRows| -> BTreeMap<String, u64> {
            rows.iter().filter_map(|(name, value)| Some((name.clone(), value.parse().ok()?))).collect()
        };
        Counted { run, at, general: numbers(&stats.general), buckets: request_buckets(&stats.buckets) }
    }

    fn fill(&self, before: &Counted, sample: &mut Sample) {
        let seconds = (self.at - before.at).as_secs_f64();
        // `stats reset` lets a counter begin again.
        let grown = |name: &str| -> Option<f64> {
            Some(self.general.get(name)?.saturating_sub(*before.general.get(name)?) as f64)
        };
        let sum = |names: &[&str]| names.iter().try_fold(0.0, |sum, name| Some(sum + grown(name)?));
        let rate = |names: &[&str]| sum(names).map(|sum| sum / seconds);
        sample.gets = rate(&["cmd_get"]);
        sample.sets = rate(&["cmd_set"]);
        sample.deletes = rate(&["delete_hits", "delete_misses"]);
        sample.others = rate(&["cmd_touch", "incr_hits", "incr_misses", "decr_hits", "decr_misses", "cmd_flush"]);
        sample.evictions = rate(&["evictions"]);
        sample.read = rate(&["bytes_read"]);
        sample.written = rate(&["bytes_written"]);
        sample.hit_ratio = match (grown("get_hits"), grown("get_misses")) {
            (Some(hits), Some(misses)) if hits + misses > 0.0 => Some(hits / (hits + misses)),
            _ => None,
        };
        let grown: BTreeMap<u64, u64> = self
            .buckets
            .iter()
            .map(|(&end, &count)| (end, count.saturating_sub(before.buckets.get(&end).copied().unwrap_or(0))))
            .collect();
        sample.p50_us = quantile_us(&grown, 0.5);
        sample.p99_us = quantile_us(&grown, 0.99);
    }
}

/// Rows `<kind>:<nanoseconds> <number>` of all requests together; turns of the event loop are none.
fn request_buckets(rows: &StatRows) -> BTreeMap<u64, u64> {
    let mut buckets = BTreeMap::new();
    for (name, count) in rows {
        if let Some((kind, end)) = name.split_once(':')
            && kind != "turn"
            && let (Ok(end), Ok(count)) = (end.parse(), count.parse::<u64>())
        {
            *buckets.entry(end).or_default() += count;
        }
    }
    buckets
}

/// The end of the bucket in which that share is reached, in microseconds.
fn quantile_us(buckets: &BTreeMap<u64, u64>, share: f64) -> Option<f64> {
    let all: u64 = buckets.values().sum();
    let wanted = ((all as f64 * share).ceil() as u64).max(1);
    let mut seen = 0;
    buckets.iter().find_map(|(&end, count)| {
        seen += count;
        (seen >= wanted).then_some(end as f64 / 1000.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(run: &str, gets: u64, hits: u64) -> ServerStats {
        let rows = |rows: &[(&str, String)]| rows.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        ServerStats {
            general: rows(&[
                ("cmd_get", gets.to_string()),
                ("get_hits", hits.to_string()),
                ("get_misses", (gets - hits).to_string()),
                ("curr_items", "3".into()),
            ]),
            buckets: rows(&[
                ("get:count", gets.to_string()),
                ("get:1000", hits.to_string()),
                ("set:8000", (gets - hits).to_string()),
                ("turn:5", "99".into()),
            ]),
            replication: rows(&[("run_id", run.into())]),
            ..ServerStats::default()
        }
    }

    #[test]
    fn rates_are_of_one_run() {
        let mut history = History::default();
        let second = Duration::from_secs;
        history.add(100, second(0), Some(&stats("a", 100, 50)), None);
        history.add(105, second(5), Some(&stats("a", 200, 148)), Some(7));
        history.add(110, second(10), Some(&stats("b", 300, 150)), None);
        history.add(115, second(15), None, None);
        history.add(120, second(20), Some(&stats("b", 310, 150)), None);
        let samples: Vec<&Sample> = history.samples().collect();
        assert_eq!((samples[0].gets, samples[0].items), (None, Some(3)));
        assert_eq!((samples[1].gets, samples[1].hit_ratio, samples[1].lag_ms), (Some(20.0), Some(0.98), Some(7)));
        assert_eq!((samples[1].p50_us, samples[1].p99_us, samples[1].sets), (Some(1.0), Some(8.0), None));
        assert_eq!((samples[2].gets, samples[3].items, samples[4].gets), (None, None, None));
    }

    #[test]
    fn an_hour_and_some_events_are_kept() {
        let mut history = History::default();
        for second in 0..10_000 {
            history.add(second, Duration::from_secs(second), None, None);
            history.tell(second, &"é".repeat(1000));
        }
        assert_eq!((history.samples().count(), history.events().count()), (SAMPLES, EVENTS));
        assert_eq!(history.samples().last().map(|sample| sample.at), Some(9999));
        let newest = history.events().next().unwrap();
        assert_eq!((newest.at, newest.text.chars().count()), (9999, EVENT_MAX));
    }
}
