//! From two looks at a server to what a row shows of it.
//!
//! ```text
//!   TopSample  a second ago ──┐
//!   TopSample  now ───────────┴──> TopRow: counters a second, shares, quantiles of what happened between the two
//! ```
//!
//! Everything that a server says may be missing, huge or nonsense: what is no number is not known. A counter that went
//! back, or another process, has no rate: the server was started again.
//!
//! Not here: how the samples come (`poll`), how numbers are written (`columns`).

use super::super::dial::{ToldStats, number_of};
use super::super::insight::are_hot_keys_off;
use super::latency::{LatencyBuckets, TopKind};
use std::collections::BTreeMap;
use std::time::Instant;

/// The most keys and classes that are shown of one server.
const GROUPS_MAX: usize = 128;

/// What a server said at one time. None: it does not know this, or was not asked.
#[derive(Debug)]
pub(super) struct TopSample {
    pub at: Instant,
    pub general: ToldStats,
    pub latency: Option<LatencyBuckets>,
    pub replication: Option<ToldStats>,
    pub hot_keys: Option<ToldStats>,
    /// `stats slabs` and `stats items`.
    pub slabs: Option<ToldStats>,
}

/// What is known of a server. A field of None is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct TopRow {
    /// As it was typed.
    pub server: String,
    /// Why there is nothing new of it.
    pub trouble: Option<String>,
    /// When it last said something.
    pub heard: Option<Instant>,
    pub role: Option<String>,
    /// All operations a second, and of each kind.
    pub operations: Option<f64>,
    pub gets: Option<f64>,
    pub sets: Option<f64>,
    pub others: Option<f64>,
    pub hit_share: Option<f64>,
    /// Of requests for data, in microseconds.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
    pub bytes: Option<u64>,
    pub limit: Option<u64>,
    pub items: Option<u64>,
    pub evictions: Option<f64>,
    pub connections: Option<u64>,
    pub uptime: Option<u64>,
    pub lag: Option<TopLag>,
    /// Empty if the server has that off.
    pub kinds: Option<Vec<TopKind>>,
    pub hot_keys: Option<Vec<TopHotKey>>,
    pub are_hot_keys_off: bool,
    pub slabs: Option<Vec<TopSlab>>,
}

/// How far the copy is behind that a server feeds or is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TopLag {
    /// So many milliseconds.
    Behind(u64),
    /// A full sync goes on: so many percent, if that is known.
    Syncing(Option<u64>),
}

/// A key that is asked for most.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TopHotKey {
    pub rank: u64,
    pub key: String,
    /// Of all operations.
    pub percent: Option<f64>,
    /// In the seconds that the server tells of.
    pub reads: Option<u64>,
    pub writes: Option<u64>,
    pub per_second: Option<f64>,
}

/// A slab class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TopSlab {
    pub class: u64,
    pub chunk: Option<u64>,
    pub pages: Option<u64>,
    pub used: Option<u64>,
    pub free: Option<u64>,
    pub evicted: Option<u64>,
    pub age: Option<u64>,
}

impl TopRow {
    /// Of a server that has said nothing yet.
    pub(super) fn new(server: &str) -> TopRow {
        TopRow { server: server.to_owned(), ..TopRow::default() }
    }

    /// By what it says now, and said before.
    pub(super) fn of(server: &str, before: Option<&TopSample>, now: &TopSample) -> TopRow {
        let before = before.filter(|before| before.is_of_the_same_run(now));
        let rate = |names: &[&str]| before.and_then(|before| rate(before, now, names));
        let latency = now.latency.as_ref().map(|latency| {
            let before = before.and_then(|before| Some((before.latency.as_ref()?, now.seconds_since(before))));
            latency.since(before)
        });
        let [gets, sets] = ["cmd_get", "cmd_set"].map(|name| rate(&[name]));
        let others = rate(&[
            "cmd_touch",
            "delete_hits",
            "delete_misses",
            "incr_hits",
            "incr_misses",
            "decr_hits",
            "decr_misses",
        ]);
        let (hits, misses) = (rate(&["get_hits"]), rate(&["get_misses"]));
        let told = now.replication.as_ref();
        TopRow {
            server: server.to_owned(),
            trouble: None,
            heard: Some(now.at),
            role: told.and_then(|rows| text_of(rows, "role")).map(str::to_owned),
            operations: gets.zip(sets).zip(others).map(|((gets, sets), others)| gets + sets + others),
            gets,
            sets,
            others,
            hit_share: hits.zip(misses).and_then(|(hits, misses)| share(hits, hits + misses)),
            p50: latency.as_ref().and_then(|latency| latency.p50),
            p99: latency.as_ref().and_then(|latency| latency.p99),
            bytes: now.number("bytes"),
            limit: now.number("limit_maxbytes"),
            items: now.number("curr_items"),
            evictions: rate(&["evictions"]),
            connections: now.number("curr_connections"),
            uptime: now.number("uptime"),
            lag: told.and_then(lag),
            kinds: latency.map(|latency| latency.kinds),
            hot_keys: now.hot_keys.as_ref().map(hot_keys),
            are_hot_keys_off: now.hot_keys.as_ref().is_some_and(are_hot_keys_off),
            slabs: now.slabs.as_ref().map(slabs),
        }
    }
}

impl TopSample {
    fn number(&self, name: &str) -> Option<u64> {
        number_of(&self.general, name)
    }

    fn is_of_the_same_run(&self, now: &TopSample) -> bool {
        let same = |name| self.number(name) == now.number(name);
        same("pid") && self.number("uptime") <= now.number("uptime")
    }

    fn seconds_since(&self, before: &TopSample) -> f64 {
        self.at.saturating_duration_since(before.at).as_secs_f64()
    }
}

/// The sum of these counters a second. Those that a server does not have count nothing, unless it has none of them.
fn rate(before: &TopSample, now: &TopSample, names: &[&str]) -> Option<f64> {
    let mut sum = None;
    for name in names {
        let Some((before, now)) = before.number(name).zip(now.number(name)) else { continue };
        *sum.get_or_insert(0.0) += now.checked_sub(before)? as f64;
    }
    share(sum?, now.seconds_since(before))
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

fn text_of<'r>(rows: &'r ToldStats, name: &str) -> Option<&'r str> {
    rows.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// Of who is fed, the copy that is made; of who feeds, the one that is worst off.
fn lag(rows: &ToldStats) -> Option<TopLag> {
    if matches!(text_of(rows, "copy"), Some("partial" | "overtaken")) {
        return Some(TopLag::Syncing(number_of(rows, "copy_percent")));
    }
    let consumers = groups(rows);
    let of = |fields: &BTreeMap<String, String>| match fields.get("state").map(String::as_str) {
        Some("streaming") => Some(TopLag::Behind(fields.get("lag_ms")?.parse().ok()?)),
        Some(_) => Some(TopLag::Syncing(None)),
        None => None,
    };
    let lags = consumers.values().filter_map(of);
    lags.max_by_key(|lag| match lag {
        TopLag::Behind(ms) => (0, *ms),
        TopLag::Syncing(_) => (1, 0),
    })
}

fn hot_keys(rows: &ToldStats) -> Vec<TopHotKey> {
    let seconds = number_of(rows, "seconds").unwrap_or(0) as f64;
    let of = |(rank, fields): (u64, BTreeMap<String, String>)| {
        let text = |name: &str| fields.get(name).map(String::as_str);
        let number = |name: &str| text(name)?.parse::<u64>().ok();
        let percent = text("percent").and_then(|text| text.parse::<f64>().ok());
        Some(TopHotKey {
            rank,
            key: fields.get("key")?.clone(),
            percent: percent.filter(|percent| percent.is_finite()),
            reads: number("reads"),
            writes: number("writes"),
            per_second: number("operations").and_then(|all| share(all as f64, seconds)),
        })
    };
    groups(rows).into_iter().filter_map(of).collect()
}

fn slabs(rows: &ToldStats) -> Vec<TopSlab> {
    let of = |(class, fields): (u64, BTreeMap<String, String>)| {
        let number = |name: &str| fields.get(name).and_then(|value| value.parse().ok());
        TopSlab {
            class,
            chunk: number("chunk_size"),
            pages: number("total_pages"),
            used: number("used_chunks"),
            free: number("free_chunks"),
            evicted: number("evicted"),
            age: number("age"),
        }
    };
    groups(rows).into_iter().map(of).collect()
}

/// Rows as `1:chunk_size` or `items:1:age` by their number, not more than [`GROUPS_MAX`].
fn groups(rows: &ToldStats) -> BTreeMap<u64, BTreeMap<String, String>> {
    let mut found: BTreeMap<u64, BTreeMap<String, String>> = BTreeMap::new();
    for (name, value) in rows {
        let name = name.strip_prefix("items:").unwrap_or(name);
        let Some((number, field)) = name.split_once(':') else { continue };
        let Ok(number) = number.parse() else { continue };
        if found.len() < GROUPS_MAX || found.contains_key(&number) {
            found.entry(number).or_default().insert(field.to_owned(), value.clone());
        }
    }
    found
}

impl TopHotKey {
    /// The part of its operations that read.
    pub(super) fn read_share(&self) -> Option<f64> {
        let (reads, writes) = self.reads.zip(self.writes)?;
        share(reads as f64, reads as f64 + writes as f64)
    }
}

#[cfg(test)]
#[path = "tests/rates.rs"]
mod tests;
