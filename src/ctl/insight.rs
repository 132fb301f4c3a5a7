//! `latency`, `hotkeys` and `slabs`: what several servers say of themselves, as a table or as JSON.
//!
//! ```text
//!   STAT get:p99_us 81.9 ──> InsightSheet: server, totals, groups (get: p99_us 81.9, …) ──> a row for each group
//! ```
//!
//! A memcached has no `stats latency` and no `stats hotkeys`; its slabs are told as ours. A server may have both off.
//!
//! Not here: how the columns are put side by side (`table`).

use super::dial::{Dialed, ToldStats, number_of};
use super::exit::{CtlExit, harmless, to_stderr, to_stdout};
use super::json::pretty;
use super::options::DialOptions;
use super::table::{aligned, scaled};
use serde_json::{Map, Value};

/// What is shown of one kind of statistics.
pub(super) struct Insight {
    /// What follows `stats`.
    pub asks: &'static [&'static str],
    /// What it is, in words.
    about: &'static str,
    /// Whether a server says by its answer that it has this off, and the option that does it.
    is_off: (fn(&ToldStats) -> bool, &'static str),
    /// What a group is.
    pub group: &'static str,
    /// The head of each column, its statistic, and how it is written.
    pub columns: [(&'static str, &'static str, Unit); 7],
}

/// How a number is written.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// As it is.
    Plain,
    /// Microseconds.
    Micros,
    /// Bytes.
    Bytes,
    /// Seconds.
    Seconds,
}
use Unit::{Bytes, Micros, Plain, Seconds};

/// `latency`.
pub(super) const LATENCY: Insight = Insight {
    asks: &["latency"],
    about: "latencies",
    is_off: (is_latency_off, "-o no_latency"),
    group: "kind",
    columns: [
        ("COUNT", "count", Plain),
        ("P50", "p50_us", Micros),
        ("P90", "p90_us", Micros),
        ("P99", "p99_us", Micros),
        ("P99.9", "p999_us", Micros),
        ("MAX", "max_us", Micros),
        ("", "", Plain),
    ],
};

/// `hotkeys`.
pub(super) const HOT_KEYS: Insight = Insight {
    asks: &["hotkeys"],
    about: "hot keys",
    is_off: (are_hot_keys_off, "-o no_hotkeys"),
    group: "rank",
    columns: [
        ("KEY", "key", Plain),
        ("OPERATIONS", "operations", Plain),
        ("PERCENT", "percent", Plain),
        ("READS", "reads", Plain),
        ("WRITES", "writes", Plain),
        ("SENT", "bytes_sent", Bytes),
        ("RECEIVED", "bytes_received", Bytes),
    ],
};

/// `slabs`.
pub(super) const SLABS: Insight = Insight {
    asks: &["slabs", "items"],
    about: "slab classes",
    is_off: (|_| false, ""),
    group: "class",
    columns: [
        ("CHUNK", "chunk_size", Bytes),
        ("PAGES", "total_pages", Plain),
        ("USED", "used_chunks", Plain),
        ("FREE", "free_chunks", Plain),
        ("ASKED FOR", "mem_requested", Bytes),
        ("EVICTED", "evicted", Plain),
        ("AGE", "age", Seconds),
    ],
};

/// What one server says.
struct InsightSheet {
    server: String,
    totals: Vec<(String, String)>,
    /// In the order in which they come.
    groups: Vec<(String, Vec<(String, String)>)>,
}

/// Shows it of these servers. One that does not answer is named, and the others are shown.
pub(super) fn show(insight: &Insight, servers: &[String], dial: &DialOptions, is_json: bool) -> Result<(), CtlExit> {
    let (mut sheets, mut trouble) = (Vec::new(), None);
    for server in servers {
        match InsightSheet::ask(insight, server, dial) {
            Ok(sheet) => sheets.push(sheet),
            Err(exit) => {
                to_stderr(&exit.stderr);
                trouble = Some(CtlExit::silent(exit.code));
            }
        }
    }
    let text = match is_json {
        true => json(insight, &sheets),
        // Heads without rows would look like an answer.
        false if sheets.is_empty() => String::new(),
        false => table(insight, &sheets),
    };
    to_stdout(&text)?;
    trouble.map_or(Ok(()), Err)
}

/// A server that measures has at least the kinds.
pub(super) fn is_latency_off(rows: &ToldStats) -> bool {
    rows.is_empty()
}

/// Whether no second is looked at.
pub(super) fn are_hot_keys_off(rows: &ToldStats) -> bool {
    number_of(rows, "seconds") == Some(0)
}

impl InsightSheet {
    fn ask(insight: &Insight, server: &str, dial: &DialOptions) -> Result<InsightSheet, CtlExit> {
        let mut dialed = Dialed::to(server, dial)?;
        let mut sheet = InsightSheet { server: server.to_owned(), totals: Vec::new(), groups: Vec::new() };
        for what in insight.asks {
            let rows = match dialed.try_stats(what)? {
                Ok(rows) => rows,
                Err(said) if said == "ERROR" => {
                    return Err(dialed.refused(&format!("this server does not count {} (memcached?)", insight.about)));
                }
                Err(said) => return Err(dialed.no_stats(what, &said)),
            };
            let (is_off, option) = insight.is_off;
            if is_off(&rows) {
                return Err(dialed.refused(&format!("this server has {} off: {option}", insight.about)));
            }
            rows.into_iter().for_each(|(name, value)| sheet.put(&name, value));
        }
        Ok(sheet)
    }

    /// Puts a row to its group: `1:chunk_size`, or `items:1:age` of another `stats`.
    fn put(&mut self, name: &str, value: String) {
        let name = name.strip_prefix("items:").unwrap_or(name);
        let Some((group, field)) = name.split_once(':') else {
            return self.totals.push((name.to_owned(), value));
        };
        let at = self.groups.iter().position(|(found, _)| found == group).unwrap_or_else(|| {
            self.groups.push((group.to_owned(), Vec::new()));
            self.groups.len() - 1
        });
        let fields = &mut self.groups[at].1;
        if fields.iter().all(|(found, _)| found != field) {
            fields.push((field.to_owned(), value));
        }
    }
}

fn table(insight: &Insight, sheets: &[InsightSheet]) -> String {
    let mut head = vec!["SERVER".to_owned(), insight.group.to_uppercase()];
    head.extend(insight.columns.iter().map(|(name, _, _)| (*name).to_owned()));
    let mut rows: Vec<[String; 9]> = vec![std::array::from_fn(|at| head[at].clone())];
    for sheet in sheets {
        for (group, fields) in &sheet.groups {
            let find = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
            let cell = |at: usize| match (at, insight.columns.get(at.wrapping_sub(2))) {
                (0, _) => sheet.server.clone(),
                (1, _) => harmless(group),
                (_, Some((_, "", _)) | None) => String::new(),
                (_, Some((_, name, unit))) => find(name).map_or("-".to_owned(), |value| unit.write(value)),
            };
            rows.push(std::array::from_fn(cell));
        }
    }
    aligned(&rows)
}

impl Unit {
    fn write(self, text: &str) -> String {
        let Ok(number) = text.parse::<f64>() else { return harmless(text) };
        match self {
            Plain => text.to_owned(),
            Micros => scaled(number, 1000.0, &["us", "ms", "s"]),
            Bytes => scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"]),
            Seconds => scaled(number, 60.0, &["s", "min", "h"]),
        }
    }
}

fn json(insight: &Insight, sheets: &[InsightSheet]) -> String {
    let sheet = |sheet: &InsightSheet| {
        let mut server = Map::new();
        server.insert("server".to_owned(), Value::from(sheet.server.as_str()));
        sheet.totals.iter().for_each(|(name, value)| drop(server.insert(name.clone(), value_of(value))));
        let groups = sheet.groups.iter().map(|(name, fields)| {
            let mut group = Map::new();
            group.insert(insight.group.to_owned(), value_of(name));
            fields.iter().for_each(|(name, value)| drop(group.insert(name.clone(), typed(name, value))));
            Value::Object(group)
        });
        server.insert("rows".to_owned(), groups.collect());
        Value::Object(server)
    };
    pretty(&sheets.iter().map(sheet).collect::<Vec<Value>>())
}

/// A key stays a text, whatever it looks like.
fn typed(name: &str, text: &str) -> Value {
    if name == "key" { Value::from(text) } else { value_of(text) }
}

fn value_of(text: &str) -> Value {
    let number = text.parse::<u64>().map(Value::from).ok();
    number
        .or_else(|| text.parse::<f64>().ok().filter(|number| number.is_finite()).map(Value::from))
        .unwrap_or_else(|| Value::from(text))
}

#[cfg(test)]
#[path = "tests/insight.rs"]
mod tests;
