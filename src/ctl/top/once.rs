//! `top --once` and `top --json`: two looks, an interval apart, and what they say as a plain table or as JSON.
//!
//! Not here: what a row says (`rates`), how it is written (`columns`).

use super::super::exit::{CtlExit, harmless, to_stdout};
use super::super::json::pretty;
use super::super::options::TopOptions;
use super::columns::COLUMNS;
use super::poll::{ALL_CHOSEN, TopBoard};
use super::rates::{TopLag, TopRow};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for two looks, on top of the interval: a server that says nothing is away before.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks at the board.
const NAP: Duration = Duration::from_millis(5);

/// Prints what these servers do. An error without words if one is away.
pub(super) fn once(options: &TopOptions, is_json: bool) -> Result<(), CtlExit> {
    let board = TopBoard::start(options, ALL_CHOSEN)?;
    let end = Instant::now() + options.interval + PATIENCE;
    while !board.has_looks(2) && Instant::now() < end {
        thread::sleep(NAP);
    }
    let mut rows = board.rows();
    rows.iter_mut().filter(|row| row.heard.is_none() && row.trouble.is_none()).for_each(|row| {
        row.trouble = Some("it does not answer".to_owned());
    });
    let text = if is_json { pretty(&rows.iter().map(value).collect::<Vec<Value>>()) } else { table(&rows) };
    to_stdout(&text)?;
    match rows.iter().all(|row| row.trouble.is_none()) {
        true => Ok(()),
        false => Err(CtlExit::silent(CtlExit::UNAVAILABLE)),
    }
}

/// As the screen's, with every column.
fn table(rows: &[TopRow]) -> String {
    let heads: Vec<String> = COLUMNS.iter().map(|column| column.head.to_owned()).collect();
    let cells = rows.iter().map(|row| COLUMNS.iter().map(|column| (column.cell)(row)).collect());
    let lines: Vec<Vec<String>> = [heads].into_iter().chain(cells).collect();
    let width = |at: usize| lines.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for (number, cells) in lines.iter().enumerate() {
        let trouble = number.checked_sub(1).and_then(|at| rows[at].trouble.as_ref());
        let line = match trouble {
            Some(why) => format!("{:width$}  away: {}", cells[0], harmless(why), width = widths[0]),
            None => cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  ")).collect(),
        };
        text += &format!("{}\n", line.trim_end());
    }
    text
}

fn value(row: &TopRow) -> Value {
    let (lag_ms, sync_percent) = match row.lag {
        Some(TopLag::Behind(ms)) => (Some(ms), None),
        Some(TopLag::Syncing(percent)) => (None, percent),
        None => (None, None),
    };
    let kinds = row.kinds.iter().flatten().map(|kind| {
        let quantile = |at: usize| kind.quantiles.map(|all| all[at]);
        json!({"kind": kind.name, "per_second": kind.per_second, "p50_us": quantile(0), "p90_us": quantile(1),
            "p99_us": quantile(2), "p999_us": quantile(3)})
    });
    let hot_keys = row.hot_keys.iter().flatten().map(|key| {
        json!({"rank": key.rank, "key": key.key, "percent": key.percent, "reads": key.reads, "writes": key.writes,
            "per_second": key.per_second})
    });
    let slabs = row.slabs.iter().flatten().map(|slab| {
        json!({"class": slab.class, "chunk_size": slab.chunk, "total_pages": slab.pages, "used_chunks": slab.used,
            "free_chunks": slab.free, "evicted": slab.evicted, "age": slab.age})
    });
    json!({"server": row.server, "trouble": row.trouble, "role": row.role, "operations_per_second": row.operations,
        "gets_per_second": row.gets, "sets_per_second": row.sets, "others_per_second": row.others,
        "hit_ratio": row.hit_share, "p50_us": row.p50, "p99_us": row.p99, "bytes": row.bytes,
        "limit_bytes": row.limit, "items": row.items, "evictions_per_second": row.evictions,
        "connections": row.connections, "uptime": row.uptime, "lag_ms": lag_ms, "sync_percent": sync_percent,
        "latency": kinds.collect::<Vec<Value>>(), "hot_keys": hot_keys.collect::<Vec<Value>>(),
        "slabs": slabs.collect::<Vec<Value>>()})
}
