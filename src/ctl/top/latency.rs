//! `stats latency buckets`, and the quantiles of what happened between two of them.
//!
//! ```text
//!   STAT get:8200 17      17 gets took less than 8200 ns, and more than the bucket before
//!        now - before ──> how many of each in the last interval ──> p50, p90, p99, p99.9 as upper bounds
//! ```
//!
//! Invariant: sums do not overflow, and counts that went back (`stats reset`) begin anew.

use super::super::dial::ToldStats;
use std::collections::BTreeMap;

/// The most kinds of requests that are kept of one server.
const KINDS_MAX: usize = 32;

/// What is no request for data: `other` has those of this program, `turn` is of the event loop.
const NOT_DATA: [&str; 2] = ["other", "turn"];

/// Upper bounds in nanoseconds, and counts.
type BucketCounts = BTreeMap<u64, u64>;

/// The buckets by kind, in the order of the server.
#[derive(Debug, Default)]
pub(super) struct LatencyBuckets(Vec<(String, BucketCounts)>);

/// Requests of one kind in the last interval.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TopKind {
    pub name: String,
    /// How many a second; not known of the first look.
    pub per_second: Option<f64>,
    /// p50, p90, p99 and p99.9 in microseconds; None if there was no request.
    pub quantiles: Option<[f64; 4]>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct LatencySpan {
    pub kinds: Vec<TopKind>,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

impl LatencyBuckets {
    pub(super) fn parse(rows: &ToldStats) -> LatencyBuckets {
        let mut found = LatencyBuckets::default();
        for (name, value) in rows {
            let Some((kind, bound)) = name.split_once(':') else { continue };
            let at = match found.0.iter().position(|(name, _)| name == kind) {
                Some(at) => at,
                None if found.0.len() == KINDS_MAX => continue,
                None => {
                    found.0.push((kind.to_owned(), BucketCounts::new()));
                    found.0.len() - 1
                }
            };
            // `count` and `sum_ns` are no buckets.
            if let (Ok(bound), Ok(count)) = (bound.parse(), value.parse()) {
                found.0[at].1.insert(bound, count);
            }
        }
        found
    }

    /// What came since then, so many seconds ago; everything without that.
    pub(super) fn since(&self, before: Option<(&LatencyBuckets, f64)>) -> LatencySpan {
        let (mut kinds, mut data) = (Vec::new(), BucketCounts::new());
        for (name, now) in &self.0 {
            let new = match before.and_then(|(before, _)| before.of(name)) {
                Some(before) => difference(before, now),
                None => now.clone(),
            };
            let seconds = before.map(|(_, seconds)| seconds).filter(|seconds| *seconds > 0.0);
            let per_second = seconds.map(|seconds| total(&new) as f64 / seconds);
            if !NOT_DATA.contains(&name.as_str()) {
                new.iter().for_each(|(bound, count)| add(data.entry(*bound).or_default(), *count));
            }
            kinds.push(TopKind { name: name.clone(), per_second, quantiles: quantiles(&new) });
        }
        let all = quantiles(&data);
        LatencySpan { kinds, p50: all.map(|all| all[0]), p99: all.map(|all| all[2]) }
    }

    fn of(&self, kind: &str) -> Option<&BucketCounts> {
        self.0.iter().find(|(name, _)| name == kind).map(|(_, buckets)| buckets)
    }
}

fn difference(before: &BucketCounts, now: &BucketCounts) -> BucketCounts {
    let mut new = BucketCounts::new();
    for (bound, count) in now {
        match count.checked_sub(before.get(bound).copied().unwrap_or(0)) {
            Some(0) => {}
            Some(more) => drop(new.insert(*bound, more)),
            // It was reset.
            None => return now.clone(),
        }
    }
    if before.keys().any(|bound| !now.contains_key(bound)) { now.clone() } else { new }
}

fn quantiles(buckets: &BucketCounts) -> Option<[f64; 4]> {
    let all = total(buckets);
    let of = |share: f64| {
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let found = buckets.iter().find(|(_, count)| {
            add(&mut seen, **count);
            seen >= rank
        });
        found.or(buckets.last_key_value()).map_or(0.0, |(bound, _)| *bound as f64 / 1e3)
    };
    (all > 0).then(|| [0.5, 0.9, 0.99, 0.999].map(of))
}

fn total(buckets: &BucketCounts) -> u64 {
    buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
}

fn add(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}
