//! The columns of `top`: one row each, for the screen, the plain table, JSON, and the order of the servers.
//!
//! Invariant: a cell is not wider than its column, but for names of servers, which are cut.
//!
//! Not here: which of them a screen has room for (`draw`).

use super::super::exit::harmless;
use super::figures::{UNKNOWN, percent, short, short_bytes, short_micros, short_seconds};
use super::rates::{TopLag, TopRow};
use std::cmp::Ordering;

/// One column.
pub(super) struct TopColumn {
    pub head: &'static str,
    pub width: usize,
    /// Which columns go first where there is no room for all: the largest.
    pub leaves: u8,
    pub cell: fn(&TopRow) -> String,
    /// By what servers are put in order; the name if it is None.
    pub weight: Option<fn(&TopRow) -> Option<f64>>,
}

const fn column(
    head: &'static str,
    width: usize,
    leaves: u8,
    cell: fn(&TopRow) -> String,
    weight: fn(&TopRow) -> Option<f64>,
) -> TopColumn {
    TopColumn { head, width, leaves, cell, weight: Some(weight) }
}

/// Every column, from left to right. The first is the name of the server, as wide as it has to be.
pub(super) const COLUMNS: &[TopColumn] = &[
    TopColumn { head: "SERVER", width: 6, leaves: 0, cell: |row| harmless(&row.server), weight: None },
    column("ROLE", 10, 7, role, |_| None),
    column("OPS/S", 5, 1, |row| known(row.operations, short), |row| row.operations),
    column("GET/S", 5, 4, |row| known(row.gets, short), |row| row.gets),
    column("SET/S", 5, 5, |row| known(row.sets, short), |row| row.sets),
    column("OTHER/S", 7, 13, |row| known(row.others, short), |row| row.others),
    column("HIT", 6, 2, |row| known(row.hit_share, percent), |row| row.hit_share),
    column("P50", 6, 12, |row| known(row.p50, short_micros), |row| row.p50),
    column("P99", 6, 3, |row| known(row.p99, short_micros), |row| row.p99),
    column("MEMORY", 11, 6, memory, |row| row.bytes.map(|bytes| bytes as f64)),
    column("ITEMS", 5, 9, |row| known_whole(row.items, short), |row| row.items.map(|items| items as f64)),
    column("EVICT/S", 7, 10, |row| known(row.evictions, short), |row| row.evictions),
    column("CONNS", 5, 11, |row| known_whole(row.connections, short), |row| row.connections.map(|count| count as f64)),
    column("UPTIME", 6, 14, |row| row.uptime.map_or_else(unknown, short_seconds), |row| row.uptime.map(|s| s as f64)),
    column("LAG", 9, 8, lag, lag_weight),
];

/// The servers in the order of a column, the largest first; as they were given without one. What is not known comes last.
pub(super) fn in_order(rows: &[TopRow], by: Option<usize>, is_reversed: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    let Some(column) = by.map(|by| &COLUMNS[by]) else {
        if is_reversed {
            order.reverse();
        }
        return order;
    };
    order.sort_by(|&a, &b| match column.weight {
        Some(weight) => by_weight(weight(&rows[a]), weight(&rows[b]), is_reversed),
        None if is_reversed => rows[b].server.cmp(&rows[a].server),
        None => rows[a].server.cmp(&rows[b].server),
    });
    order
}

fn by_weight(a: Option<f64>, b: Option<f64>, is_reversed: bool) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) if is_reversed => a.total_cmp(&b),
        (Some(a), Some(b)) => b.total_cmp(&a),
        (a, b) => b.is_some().cmp(&a.is_some()),
    }
}

/// A number that may not be known.
pub(super) fn known(number: Option<f64>, write: fn(f64) -> String) -> String {
    number.map_or_else(unknown, write)
}

/// The same of a whole one.
pub(super) fn known_whole(number: Option<u64>, write: fn(f64) -> String) -> String {
    known(number.map(|number| number as f64), write)
}

fn unknown() -> String {
    UNKNOWN.to_owned()
}

fn role(row: &TopRow) -> String {
    row.role.as_deref().map_or_else(unknown, |role| harmless(role).chars().take(10).collect())
}

fn memory(row: &TopRow) -> String {
    match (row.bytes, row.limit) {
        (None, _) => unknown(),
        (Some(bytes), limit) => {
            format!("{}/{}", short_bytes(bytes as f64), known_whole(limit, short_bytes))
        }
    }
}

fn lag(row: &TopRow) -> String {
    match row.lag {
        None => unknown(),
        Some(TopLag::Behind(ms)) => short_micros(ms as f64 * 1e3),
        Some(TopLag::Syncing(None)) => "sync".to_owned(),
        Some(TopLag::Syncing(Some(percent))) => format!("sync {}%", percent.min(100)),
    }
}

fn lag_weight(row: &TopRow) -> Option<f64> {
    Some(match row.lag? {
        TopLag::Behind(ms) => ms as f64,
        TopLag::Syncing(_) => f64::INFINITY,
    })
}
