//! The status page, and `/status`, the JSON that it is made of.
//!
//! ```text
//!   GET /                  one HTML page without foreign resources; it asks for the next every two seconds
//!   GET /status            what is now
//!   GET /status?history    with the samples of the last hour
//! ```
//!
//! The fields of the JSON are those of the man page, and stay; others may be added. What is not known is `null`.
//!
//! Not here: where figures come from (`monitor`), what is drawn (`page.html`).

use super::figures::{Figures, NamedFigures};
use super::history::Sample;
use super::monitor::{Monitor, unix_seconds};
use super::server_stats::{ServerStats, number, value};
use crate::sidecar::observe::lease_status::LeaseStatus;
use crate::sidecar::server_socket::StatRows;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The page.
pub(crate) const PAGE: &str = include_str!("page.html");

/// The JSON of `/status`, with the hour's samples or without.
pub(crate) fn status(monitor: &Monitor, with_history: bool, shows_keys: bool) -> String {
    let server = monitor.server();
    let history = monitor.history();
    let mut status = json!({
        "time": unix_seconds(),
        "version": env!("CARGO_PKG_VERSION"),
        "server": match &server {
            Ok(stats) => server_json(stats),
            Err(why) => json!({ "up": false, "error": why }),
        },
        "latency": server.as_ref().map_or(Value::Null, |stats| latency(&stats.latency)),
        "slabs": server.as_ref().map_or(Value::Null, slabs),
        "hot_keys": server.as_ref().map_or(Value::Null, |stats| hot_keys(&stats.hot_keys, shows_keys)),
        "copy": server.as_ref().map_or(Value::Null, |stats| own_copy(&stats.replication)),
        "copies": monitor.figures().iter().map(copy).collect::<Vec<_>>(),
        // A lease that is nobody's yet has nothing to show.
        "shard": monitor.lease().as_ref().filter(|lease| !lease.shard.is_empty()).map(shard),
        "events": history.events().collect::<Vec<_>>(),
        "now": history.samples().last(),
    });
    if with_history {
        status["history"] = json!(history.samples().collect::<Vec<&Sample>>());
    }
    status.to_string()
}

fn server_json(stats: &ServerStats) -> Value {
    let ServerStats { general, settings, replication, own, .. } = stats;
    let (hits, misses) = (number(general, "get_hits"), number(general, "get_misses"));
    let ratio = hits.zip(misses).filter(|(hits, misses)| hits + misses > 0);
    json!({
        "up": true,
        "version": value(general, "version"),
        "pid": number(general, "pid"),
        "uptime_seconds": number(general, "uptime"),
        "role": value(replication, "role"),
        "epoch": number(replication, "epoch"),
        "run": value(replication, "run_id"),
        "threads": number(general, "threads"),
        "limit_bytes": number(general, "limit_maxbytes"),
        "bytes": number(general, "bytes"),
        "items": number(general, "curr_items"),
        "evictions": number(general, "evictions"),
        "connections": number(general, "curr_connections"),
        "connections_limit": number(settings, "maxconns"),
        "hit_ratio": ratio.map(|(hits, misses)| hits as f64 / (hits + misses) as f64),
        "ghost_hits": number(own, "ghost_hits"),
        "changes_refused": number(replication, "replies_refused"),
        "replicas_missing": number(replication, "replicas_missing"),
    })
}

/// Rows `<kind>:<figure>` as an object for each kind that has requests.
fn latency(rows: &StatRows) -> Value {
    let counts = rows.iter().filter_map(|(name, count)| Some((name.strip_suffix(":count")?, count)));
    let of = |kind: &str, figure: &str| -> Option<f64> { value(rows, &format!("{kind}:{figure}"))?.parse().ok() };
    let kinds = counts.filter(|(_, count)| *count != "0").map(|(kind, count)| {
        json!({
            "kind": kind,
            "count": count.parse::<u64>().ok(),
            "p50_us": of(kind, "p50_us"),
            "p90_us": of(kind, "p90_us"),
            "p99_us": of(kind, "p99_us"),
            "p999_us": of(kind, "p999_us"),
            "max_us": of(kind, "max_us"),
        })
    });
    kinds.collect()
}

/// Each slab class that has pages: what it holds, what is free, and what rounding up to a chunk loses.
fn slabs(stats: &ServerStats) -> Value {
    let classes = stats.slabs.iter().filter_map(|(name, _)| name.strip_suffix(":chunk_size")).map(|class| {
        let slab = |figure: &str| number(&stats.slabs, &format!("{class}:{figure}")).unwrap_or(0);
        let item = |figure: &str| number(&stats.items, &format!("items:{class}:{figure}"));
        let (chunk, used) = (slab("chunk_size"), slab("used_chunks"));
        let asked = item("mem_requested").unwrap_or(0);
        json!({
            "class": class.parse::<u64>().ok(),
            "chunk_bytes": chunk,
            "pages": slab("total_pages"),
            "items": item("number").unwrap_or(0),
            "held_bytes": asked,
            "lost_bytes": (used * chunk).saturating_sub(asked),
            "free_bytes": slab("free_chunks") * chunk,
            "evicted": item("evicted").unwrap_or(0),
            "evicted_age_seconds": item("evicted_time").filter(|_| item("evicted") > Some(0)),
        })
    });
    classes.collect()
}

/// Rows `<rank>:<figure>` as an object for each rank; keys are shown only to those who may see them.
fn hot_keys(rows: &StatRows, shows_keys: bool) -> Value {
    let mut ranks: BTreeMap<u64, Map<String, Value>> = BTreeMap::new();
    for (name, value) in rows {
        let Some((rank, figure)) = name.split_once(':') else { continue };
        let Ok(rank) = rank.parse() else { continue };
        let shown = match figure {
            "key" if !shows_keys => continue,
            "key" => json!(value),
            _ => json!(value.parse::<f64>().ok()),
        };
        let row = ranks.entry(rank).or_insert_with(|| Map::from_iter([("rank".to_owned(), json!(rank))]));
        row.insert(figure.to_owned(), shown);
    }
    ranks.into_values().collect()
}

/// The server's own copy, if it is fed.
fn own_copy(rows: &StatRows) -> Value {
    match value(rows, "copy") {
        None | Some("none") => Value::Null,
        Some(state) => json!({
            "state": state,
            "from": value(rows, "copy_from"),
            "silent_ms": number(rows, "copy_silent_ms"),
            "percent": number(rows, "copy_percent"),
            "items": number(rows, "copy_items"),
            "items_expected": number(rows, "copy_items_expected"),
        }),
    }
}

fn copy((name, figures): &NamedFigures) -> Value {
    let Figures { phase, kind, head, confirmed, lag, sync, trouble, clock, .. } = figures;
    json!({
        "peer": name,
        "state": if figures.is_upstream { "feeds this server" } else { phase.name() },
        "is_whole": phase.is_streaming() && figures.lacking.unwrap_or(0) == 0,
        "kind": kind,
        "lag_ms": lag.map(|lag| lag.as_millis() as u64),
        "lag_changes": head.saturating_sub(*confirmed),
        "sync_percent": sync.percent(),
        "sync_seconds_left": sync.left().map(|left| left.as_secs()),
        "refused": figures.errors,
        "lacking_ranges": figures.lacking,
        "clock_offset_ms": clock.map(|bounds| bounds.middle()),
        "trouble": if phase.is_streaming() { "" } else { trouble.as_str() },
    })
}

fn shard(lease: &LeaseStatus) -> Value {
    json!({
        "shard": lease.shard,
        "node": lease.node,
        "epoch": lease.epoch,
        "owner": lease.owner,
        "is_primary": lease.is_primary().0,
        "state": lease.state(),
        "in_sync": lease.members,
        "lag_ms": lease.lag_now().map(|lag| lag.as_millis() as u64),
        "no_etcd": lease.no_etcd,
        "line": lease.line().trim_end(),
    })
}
