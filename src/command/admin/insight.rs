//! `stats latency`, `stats latency buckets`, `stats hotkeys` and `watch hotkeys`, which memcached does not have. Their forms
//! are told at the heads of `stats::latency` and `stats::hot_keys`.
//!
//! Not here: what is measured, and how (`crate::stats`).

use super::sheet::{Micros, Sheet};
use crate::command::Shared;
use crate::protocol::token::strict_u32;
use crate::stats::fine::KindLatency;
use crate::stats::hot_keys::{HotKey, HotKeys, KEYS_MAX, SECONDS};
use crate::store::Store;
use crate::watch::{Streams, Uri};

/// Keys of `stats hotkeys` without a number, and of `watch hotkeys`.
const KEYS: usize = 20;
const KEYS_WATCHED: usize = 10;

/// Puts every row of `stats <argument>` on the sheet; false when there is no such argument.
pub(super) fn each(argument: &[u8], shared: &Shared, sheet: &mut Sheet<'_>) -> bool {
    match argument {
        b"latency" => kinds(shared).iter().for_each(|kind| latency(kind, sheet)),
        b"latency buckets" => kinds(shared).iter().for_each(|kind| buckets(kind, sheet)),
        _ => match hot_keys_wanted(argument) {
            Some(most) if shared.config.dump_enabled => hot_keys(most, shared, sheet),
            _ => return false,
        },
    }
    true
}

/// Nothing if requests are not measured.
fn kinds(shared: &Shared) -> Vec<KindLatency> {
    let stats = &shared.stats;
    let mut kinds = stats.latencies.kinds();
    if !kinds.is_empty() {
        kinds.push(stats.event_loops.turns());
    }
    kinds
}

fn latency(kind: &KindLatency, sheet: &mut Sheet<'_>) {
    let name = kind.name;
    sheet.row(format_args!("{name}:count"), kind.count());
    for (quantile, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)] {
        sheet.row(format_args!("{name}:{quantile}_us"), Micros(kind.quantile(share)));
    }
    sheet.row(format_args!("{name}:max_us"), Micros(kind.longest));
}

fn buckets(kind: &KindLatency, sheet: &mut Sheet<'_>) {
    let name = kind.name;
    sheet.row(format_args!("{name}:count"), kind.count());
    sheet.row(format_args!("{name}:sum_ns"), kind.sum().as_nanos());
    for bucket in &kind.buckets {
        sheet.row(format_args!("{name}:{}", bucket.below), bucket.count);
    }
}

/// How many keys `hotkeys [N]` asks for.
fn hot_keys_wanted(argument: &[u8]) -> Option<usize> {
    let rest = argument.strip_prefix(b"hotkeys")?;
    let [b' ', number @ ..] = rest else { return rest.is_empty().then_some(KEYS) };
    strict_u32(number).map(|number| KEYS_MAX.min(number as usize))
}

fn hot_keys(most: usize, shared: &Shared, sheet: &mut Sheet<'_>) {
    let told = shared.stats.hot_keys.make(shared.clock.now());
    // Of no second, if none is looked at: so a client can tell that from seconds without a hot key.
    sheet.put("seconds", if shared.config.hot_keys { SECONDS } else { 0 });
    sheet.put("operations", told.operations);
    for (at, key) in told.keys.iter().take(most).enumerate() {
        let (rank, sent) = (at + 1, sent(key, &shared.store));
        sheet.row(format_args!("{rank}:key"), Uri(&key.key));
        sheet.row(format_args!("{rank}:operations"), key.all());
        sheet.row(format_args!("{rank}:percent"), format_args!("{:.2}", percent(key, &told)));
        sheet.row(format_args!("{rank}:reads"), key.operations[0]);
        sheet.row(format_args!("{rank}:writes"), key.operations[1]);
        sheet.row(format_args!("{rank}:bytes_sent"), sent);
        sheet.row(format_args!("{rank}:bytes_received"), key.written);
    }
}

/// Of an estimate there may be more than of all.
fn percent(key: &HotKey, told: &HotKeys) -> f64 {
    (key.all() as f64 / told.operations.max(1) as f64 * 100.0).min(100.0)
}

/// What the reads of a key have sent, as far as its value is as long as it was.
fn sent(key: &HotKey, store: &Store) -> u64 {
    let hash = store.hash(&key.key);
    let mut shard = store.lock(hash);
    let bytes = shard.find(&key.key, hash).map_or(0, |id| shard.item(id).value_len());
    key.operations[0].saturating_mul(bytes as u64)
}

/// The lines of `watch hotkeys`.
pub(super) fn lines(told: &HotKeys, store: &Store) -> Vec<(Streams, String)> {
    let line = |(at, key): (usize, &HotKey)| {
        let (rank, name, all, percent) = (at + 1, Uri(&key.key), key.all(), percent(key, told));
        let ([reads, writes], sent, received) = (key.operations, sent(key, store), key.written);
        let line = format!(
            "type=hotkey rank={rank} key={name} operations={all} percent={percent:.2} reads={reads} writes={writes} \
             bytes_sent={sent} bytes_received={received}"
        );
        (Streams::HOTKEYS, line)
    };
    told.keys.iter().take(KEYS_WATCHED).enumerate().map(line).collect()
}
