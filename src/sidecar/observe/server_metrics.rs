//! The server's statistics as metrics, under the names of the memcached exporter of Prometheus, so that dashboards and
//! alerts made for that work here: memcached_up, memcached_commands_total{command,status}, memcached_slab_…{slab}.
//!
//! Its names and labels are kept letter for letter, since that is what dashboards ask for, and so are its types, but for
//! five counters without `_total`, which Prometheus's rules make gauges; queries do not look at types. A statistic that the
//! server does not have makes no sample, as there.
//!
//! ```text
//!   stats ──────────> GENERAL     one sample for each row that is named
//!   stats settings ─> SETTINGS    the same; yes and no are 1 and 0
//!   stats items ────> ITEMS  ┐    one sample for each slab class, which is the label `slab`
//!   stats slabs ────> SLABS  ┘
//!   stats twincache > OWN         twincached_…: what memcached does not have
//!   stats latency buckets ──> histograms of twenty buckets: those of the server are too many for a time series each
//! ```
//!
//! Not here: the copies and the lease (`metrics`, `replication_metrics`).

use super::exposition::{Exposition, MetricKind, MetricKind::Counter, MetricKind::Gauge};
use super::server_stats::{ServerStats, number, value};
use crate::sidecar::server_socket::StatRows;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Labels of a sample: names and values.
type Labels = &'static [(&'static str, &'static str)];

/// A family and the rows that are its samples.
struct Family {
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    rows: &'static [(&'static str, Labels)],
}

const fn of(
    name: &'static str,
    kind: MetricKind,
    help: &'static str,
    rows: &'static [(&'static str, Labels)],
) -> Family {
    Family { name, kind, help, rows }
}

#[rustfmt::skip]
const GENERAL: &[Family] = &[
    of("memcached_uptime_seconds", Gauge, "Seconds since the server started.", &[("uptime", &[])]),
    of("memcached_time_seconds", Gauge, "The server's wall clock, in Unix seconds.", &[("time", &[])]),
    of("memcached_process_user_cpu_seconds_total", Counter, "Seconds of CPU that the server has used in user mode.", &[("rusage_user", &[])]),
    of("memcached_process_system_cpu_seconds_total", Counter, "Seconds of CPU that the kernel has used for the server.", &[("rusage_system", &[])]),
    of("memcached_commands_total", Counter, "Requests by command, and by what became of them; a set is a hit when it was a valid request.", &[
        ("get_hits", &[("command", "get"), ("status", "hit")]), ("get_misses", &[("command", "get"), ("status", "miss")]),
        ("delete_hits", &[("command", "delete"), ("status", "hit")]), ("delete_misses", &[("command", "delete"), ("status", "miss")]),
        ("incr_hits", &[("command", "incr"), ("status", "hit")]), ("incr_misses", &[("command", "incr"), ("status", "miss")]),
        ("decr_hits", &[("command", "decr"), ("status", "hit")]), ("decr_misses", &[("command", "decr"), ("status", "miss")]),
        ("cas_hits", &[("command", "cas"), ("status", "hit")]), ("cas_misses", &[("command", "cas"), ("status", "miss")]),
        ("cas_badval", &[("command", "cas"), ("status", "badval")]),
        ("touch_hits", &[("command", "touch"), ("status", "hit")]), ("touch_misses", &[("command", "touch"), ("status", "miss")]),
        ("cmd_flush", &[("command", "flush"), ("status", "hit")]), (SETS, &[("command", "set"), ("status", "hit")]),
    ]),
    of("memcached_current_bytes", Gauge, "Bytes that items take, with their headers.", &[("bytes", &[])]),
    of("memcached_limit_bytes", Gauge, "Bytes that the server may use for items (-m).", &[("limit_maxbytes", &[])]),
    of("memcached_current_items", Gauge, "Items that the server holds.", &[("curr_items", &[])]),
    of("memcached_items_total", Counter, "Items that were stored since the start.", &[("total_items", &[])]),
    of("memcached_read_bytes_total", Counter, "Bytes that were read from clients.", &[("bytes_read", &[])]),
    of("memcached_written_bytes_total", Counter, "Bytes that were sent to clients.", &[("bytes_written", &[])]),
    of("memcached_current_connections", Gauge, "Connections that are open.", &[("curr_connections", &[])]),
    of("memcached_connections_total", Counter, "Connections that were accepted since the start.", &[("total_connections", &[])]),
    of("memcached_connections_rejected_total", Counter, "Connections that were closed at once because there were -c already.", &[("rejected_connections", &[])]),
    of("memcached_connections_yielded_total", Counter, "Times that a connection let others go first after -R requests.", &[("conn_yields", &[])]),
    of("memcached_connections_listener_disabled_total", Counter, "Times that nobody was accepted because there were -c connections.", &[("listen_disabled_num", &[])]),
    of("memcached_accepting_connections", Gauge, "1 while connections are accepted.", &[("accepting_conns", &[])]),
    of("memcached_items_evicted_total", Counter, "Items that were dropped alive to make room.", &[("evictions", &[])]),
    of("memcached_items_reclaimed_total", Counter, "Items that were stored in the room of dead ones.", &[("reclaimed", &[])]),
    of("memcached_item_too_large_total", Counter, "Items that were refused because they are larger than -I allows.", &[("store_too_large", &[])]),
    of("memcached_item_no_memory_total", Counter, "Items that were refused because there was no room for them.", &[("store_no_memory", &[])]),
    of("memcached_direct_reclaims_total", Counter, "Times that a request had to make room by itself.", &[("direct_reclaims", &[])]),
    of("memcached_lru_crawler_starts_total", Counter, "Times that the crawler set out.", &[("lru_crawler_starts", &[])]),
    of("memcached_lru_crawler_items_checked_total", Counter, "Items that the crawler looked at.", &[("crawler_items_checked", &[])]),
    of("memcached_lru_crawler_reclaimed_total", Counter, "Dead items that the crawler took away.", &[("crawler_reclaimed", &[])]),
    of("memcached_lru_crawler_moves_to_cold_total", Counter, "Items that went from HOT or WARM to COLD.", &[("moves_to_cold", &[])]),
    of("memcached_lru_crawler_moves_to_warm_total", Counter, "Items that went from COLD to WARM.", &[("moves_to_warm", &[])]),
    of("memcached_lru_crawler_moves_within_lru_total", Counter, "Items that were put to the front of their own list.", &[("moves_within_lru", &[])]),
    of("memcached_malloced_bytes", Gauge, "Bytes of pages that slab classes have.", &[("total_malloced", &[])]),
];

/// No row: those of `cmd_set` that are no cas.
const SETS: &str = "(sets)";

#[rustfmt::skip]
const SETTINGS: &[Family] = &[
    of("memcached_max_connections", Gauge, "Connections that there may be (-c).", &[("maxconns", &[])]),
    of("memcached_lru_crawler_enabled", Gauge, "1 when there is a crawler.", &[("lru_crawler", &[])]),
    of("memcached_lru_crawler_sleep", Gauge, "Microseconds that the crawler rests between steps.", &[("lru_crawler_sleep", &[])]),
    of("memcached_lru_crawler_to_crawl", Gauge, "Items that the crawler looks at in a list at most; 0: all.", &[("lru_crawler_tocrawl", &[])]),
    of("memcached_lru_crawler_maintainer_thread", Gauge, "1 when items are moved between lists in the background.", &[("lru_maintainer_thread", &[])]),
    of("memcached_lru_crawler_hot_percent", Gauge, "Share of a class's memory for HOT, in percent.", &[("hot_lru_pct", &[])]),
    of("memcached_lru_crawler_warm_percent", Gauge, "Share of a class's memory for WARM, in percent.", &[("warm_lru_pct", &[])]),
    of("memcached_lru_crawler_hot_max_factor", Gauge, "Greatest age in HOT, as a part of that in COLD.", &[("hot_max_factor", &[])]),
    of("memcached_lru_crawler_warm_max_factor", Gauge, "Greatest age in WARM, as a part of that in COLD.", &[("warm_max_factor", &[])]),
];

#[rustfmt::skip]
const ITEMS: &[Family] = &[
    of("memcached_slab_current_items", Gauge, "Items of this slab class.", &[("number", &[])]),
    of("memcached_slab_items_age_seconds", Gauge, "Seconds since the oldest item of the class was used.", &[("age", &[])]),
    of("memcached_slab_lru_hits_total", Counter, "Gets that found an item in this list.", &[
        ("hits_to_hot", &[("lru", "hot")]), ("hits_to_warm", &[("lru", "warm")]),
        ("hits_to_cold", &[("lru", "cold")]), ("hits_to_temp", &[("lru", "temporary")]),
    ]),
    of("memcached_slab_items_crawler_reclaimed_total", Counter, "Dead items of the class that the crawler took away.", &[("crawler_reclaimed", &[])]),
    of("memcached_slab_items_evicted_total", Counter, "Items of the class that were dropped alive to make room.", &[("evicted", &[])]),
    of("memcached_slab_items_evicted_nonzero_total", Counter, "Of these, those that would have expired some time.", &[("evicted_nonzero", &[])]),
    of("memcached_slab_items_evicted_time_seconds", Gauge, "Seconds since its last use, of the item that was evicted last.", &[("evicted_time", &[])]),
    of("memcached_slab_items_evicted_unfetched_total", Counter, "Items that were evicted and had never been read.", &[("evicted_unfetched", &[])]),
    of("memcached_slab_items_expired_unfetched_total", Counter, "Items that expired and had never been read.", &[("expired_unfetched", &[])]),
    of("memcached_slab_items_outofmemory_total", Counter, "Items that were refused because there was no room in the class.", &[("outofmemory", &[])]),
    of("memcached_slab_items_reclaimed_total", Counter, "Items that were stored in the room of dead ones of the class.", &[("reclaimed", &[])]),
    of("memcached_slab_items_tailrepairs_total", Counter, "Items with a broken count of references; there are none here.", &[("tailrepairs", &[])]),
    of("memcached_slab_items_moves_to_cold", Gauge, "Items of the class that went from HOT or WARM to COLD.", &[("moves_to_cold", &[])]),
    of("memcached_slab_items_moves_to_warm", Gauge, "Items of the class that went from COLD to WARM.", &[("moves_to_warm", &[])]),
    of("memcached_slab_items_moves_within_lru", Gauge, "Items of the class that were put to the front of their own list.", &[("moves_within_lru", &[])]),
    of("memcached_slab_hot_items", Gauge, "Items of the class in HOT.", &[("number_hot", &[])]),
    of("memcached_slab_warm_items", Gauge, "Items of the class in WARM.", &[("number_warm", &[])]),
    of("memcached_slab_cold_items", Gauge, "Items of the class in COLD.", &[("number_cold", &[])]),
    of("memcached_slab_temporary_items", Gauge, "Items of the class in TEMP.", &[("number_temp", &[])]),
    of("memcached_slab_hot_age_seconds", Gauge, "Seconds since the oldest item in HOT was used.", &[("age_hot", &[])]),
    of("memcached_slab_warm_age_seconds", Gauge, "Seconds since the oldest item in WARM was used.", &[("age_warm", &[])]),
];

#[rustfmt::skip]
const SLABS: &[Family] = &[
    of("memcached_slab_chunk_size_bytes", Gauge, "Bytes of a chunk of this slab class.", &[("chunk_size", &[])]),
    of("memcached_slab_chunks_per_page", Gauge, "Chunks in a page of the class.", &[("chunks_per_page", &[])]),
    of("memcached_slab_current_pages", Gauge, "Pages that the class has.", &[("total_pages", &[])]),
    of("memcached_slab_current_chunks", Gauge, "Chunks that the class has.", &[("total_chunks", &[])]),
    of("memcached_slab_chunks_used", Gauge, "Chunks with an item in them.", &[("used_chunks", &[])]),
    of("memcached_slab_chunks_free", Gauge, "Chunks without an item in them.", &[("free_chunks", &[])]),
    of("memcached_slab_chunks_free_end", Gauge, "Chunks at the end of the last page that were never used; there are none here.", &[("free_chunks_end", &[])]),
    of("memcached_slab_mem_requested_bytes", Gauge, "Bytes that the items of the class take.", &[("mem_requested", &[])]),
    of("memcached_slab_commands_total", Counter, "Requests for items of the class, by command and by what became of them.", &[
        ("get_hits", &[("command", "get"), ("status", "hit")]), ("delete_hits", &[("command", "delete"), ("status", "hit")]),
        ("incr_hits", &[("command", "incr"), ("status", "hit")]), ("decr_hits", &[("command", "decr"), ("status", "hit")]),
        ("cas_hits", &[("command", "cas"), ("status", "hit")]), ("cas_badval", &[("command", "cas"), ("status", "badval")]),
        ("touch_hits", &[("command", "touch"), ("status", "hit")]), (SETS, &[("command", "set"), ("status", "hit")]),
    ]),
];

#[rustfmt::skip]
const OWN: &[Family] = &[
    of("twincached_ghost_hits_total", Counter, "Gets that missed a key which had been evicted shortly before.", &[("ghost_hits", &[])]),
    of("twincached_ghost_bytes", Gauge, "Bytes that are kept to know evicted keys again.", &[("ghost_bytes", &[])]),
];

/// Upper bounds of the buckets of durations, in seconds.
const BOUNDS: [&str; 19] = [
    "0.00001", "0.00002", "0.00005", "0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005", "0.01", "0.02", "0.05",
    "0.1", "0.2", "0.5", "1", "2", "5", "10",
];

/// Among the kinds of requests, what is none.
const TURN: &str = "turn";

/// Adds all that the server has told.
pub(super) fn add(server: &Result<ServerStats, String>, text: &mut Exposition) {
    let is_up = u8::from(server.is_ok());
    text.single("memcached_up", Gauge, "1 when the server answers at its control socket.", is_up);
    let Ok(stats) = server else { return };
    if let Some(version) = value(&stats.general, "version") {
        text.family("memcached_version", Gauge, "Always 1; the label is the server's version.");
        text.sample(&[("version", version)], 1);
    }
    let total = value(&stats.slabs, "total_malloced").map(|bytes| ("total_malloced".to_owned(), bytes.to_owned()));
    let general = stats.general.iter().cloned().chain(total).collect();
    add_rows(GENERAL, &general, text);
    add_rows(SETTINGS, &stats.settings, text);
    add_classes(ITEMS, &by_class(&stats.items, "items:"), text);
    add_classes(SLABS, &with_requested(by_class(&stats.slabs, ""), &stats.items), text);
    add_rows(OWN, &stats.own, text);
    add_durations(&stats.buckets, text);
}

/// Adds the keys that are asked for most, by rank; by name as well if that may be. They come and go, so names could make
/// time series without end.
pub(super) fn add_hot_keys(rows: &StatRows, shows_keys: bool, text: &mut Exposition) {
    let ranks: Vec<(&str, &str)> =
        rows.iter().filter_map(|(name, key)| Some((name.strip_suffix(":key")?, key.as_str()))).collect();
    let mut family = |name: &str, help: &str, label: &str, figures: &[(&str, &str)]| {
        text.family(name, Gauge, help);
        for (rank, key) in &ranks {
            for (of, figure) in figures {
                let Some(value) = number(rows, &format!("{rank}:{figure}")) else { continue };
                let labels = [("rank", *rank), (label, *of), ("key", *key)];
                text.sample(&labels[..if shows_keys { 3 } else { 2 }], value);
            }
        }
    };
    let operations = "Operations on the key of this rank in the last minute, as estimated from samples.";
    family("twincached_hot_key_operations", operations, "kind", &[("read", "reads"), ("write", "writes")]);
    let bytes =
        "Bytes of the values that the key of this rank has had sent and received in the last minute, as estimated.";
    let directions = [("sent", "bytes_sent"), ("received", "bytes_received")];
    family("twincached_hot_key_bytes", bytes, "direction", &directions);
}

/// Adds the histograms: buckets are told from short to long, each with its own requests only.
fn add_durations(rows: &StatRows, text: &mut Exposition) {
    let kinds: Vec<&str> = rows.iter().filter_map(|(name, _)| name.strip_suffix(":count")).collect();
    let requests = "How long requests took, from the read that brought them to the write of their replies.";
    text.family("twincached_request_duration_seconds", MetricKind::Histogram, requests);
    kinds.iter().filter(|kind| **kind != TURN).for_each(|kind| add_histogram(rows, kind, &[("kind", kind)], text));
    let turns = "How long turns of the event loops took; a turn counts once for each connection that it served.";
    text.family("twincached_loop_turn_duration_seconds", MetricKind::Histogram, turns);
    kinds.iter().filter(|kind| **kind == TURN).for_each(|kind| add_histogram(rows, kind, &[], text));
}

fn add_histogram(rows: &StatRows, kind: &str, labels: &[(&str, &str)], text: &mut Exposition) {
    let of = |figure: &str| number(rows, &format!("{kind}:{figure}"));
    let (Some(count), Some(sum_ns)) = (of("count"), of("sum_ns")) else { return };
    let mut buckets = rows.iter().filter_map(|(name, count)| {
        let end = name.strip_prefix(kind)?.strip_prefix(':')?.parse::<u64>().ok()?;
        Some((end, count.parse::<u64>().ok()?))
    });
    let (mut below, mut next) = (0, buckets.next());
    let with = |le: &str, text: &mut Exposition, value: u64| {
        let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", le)]).collect();
        text.part("_bucket", &labels, value);
    };
    for le in BOUNDS {
        let bound_ns = (le.parse::<f64>().unwrap_or(f64::INFINITY) * 1e9).round() as u64;
        while let Some((_, requests)) = next.filter(|(end, _)| *end <= bound_ns) {
            below += requests;
            next = buckets.next();
        }
        with(le, text, below);
    }
    // A request that ends meanwhile may be in a bucket and not yet in the count.
    let all = count.max(below + next.map_or(0, |(_, requests)| requests) + buckets.map(|(_, n)| n).sum::<u64>());
    with("+Inf", text, all);
    text.part("_sum", labels, sum_ns as f64 / 1e9);
    text.part("_count", labels, all);
}

fn add_rows(families: &[Family], rows: &StatRows, text: &mut Exposition) {
    for family in families {
        text.family(family.name, family.kind, family.help);
        for (row, labels) in family.rows {
            if let Some(value) = sample(rows, row) {
                text.sample(labels, value);
            }
        }
    }
}

fn add_classes(families: &[Family], classes: &BTreeMap<u8, StatRows>, text: &mut Exposition) {
    for family in families {
        text.family(family.name, family.kind, family.help);
        for (class, rows) in classes {
            let class = class.to_string();
            for (row, labels) in family.rows {
                if let Some(value) = sample(rows, row) {
                    let labels: Vec<(&str, &str)> =
                        [("slab", class.as_str())].into_iter().chain(labels.iter().copied()).collect();
                    text.sample(&labels, value);
                }
            }
        }
    }
}

/// The number of a row, as it stands there.
fn sample<'r>(rows: &'r StatRows, row: &str) -> Option<Cow<'r, str>> {
    if row == SETS {
        let cas = ["cas_hits", "cas_misses", "cas_badval"].map(|row| number(rows, row).unwrap_or(0));
        let sets = number(rows, "cmd_set")?.saturating_sub(cas.iter().sum());
        return Some(sets.to_string().into());
    }
    match value(rows, row)? {
        "yes" => Some("1".into()),
        "no" => Some("0".into()),
        text => text.parse::<f64>().is_ok_and(f64::is_finite).then(|| text.into()),
    }
}

/// Rows `<prefix><class>:<figure>` by class.
fn by_class(rows: &StatRows, prefix: &str) -> BTreeMap<u8, StatRows> {
    let mut classes: BTreeMap<u8, StatRows> = BTreeMap::new();
    for (name, value) in rows {
        let parts = name.strip_prefix(prefix).and_then(|rest| rest.split_once(':'));
        if let Some((class, figure)) = parts
            && let Ok(class) = class.parse()
        {
            classes.entry(class).or_default().push((figure.to_owned(), value.clone()));
        }
    }
    classes
}

/// Newer servers tell of the bytes that are in use among the items.
fn with_requested(mut slabs: BTreeMap<u8, StatRows>, items: &StatRows) -> BTreeMap<u8, StatRows> {
    for (class, rows) in &mut slabs {
        if value(rows, "mem_requested").is_none()
            && let Some(bytes) = value(items, &format!("items:{class}:mem_requested"))
        {
            rows.push(("mem_requested".to_owned(), bytes.to_owned()));
        }
    }
    slabs
}
