//! What takes time: tails of latency while a server is busy with itself, starting, and growth with size.
//!
//! ```text
//! capacity = answers a second of the slower server, one request in flight on each of 50 connections
//! quiet load = 60 % of it in gets; busy load = 30 % in gets, and sets of new items in batches beside them
//! ```
//!
//! Latencies are the client's, counted from when a request was due. How late the load generator itself was is
//! noted: on a machine where others run, it has the larger part in the longest of them.
//! What twincached measures inside itself (`stats twincache`) has rows of its own: from before the warm-up on. Its
//! longest pauses are told by the clock, in which others on its CPU have a part, and by CPU time, which is its work.
//!
//! Not here: server CPU per request of one size (`speed`).

use crate::draw::Items;
use crate::load::{Feed, Generator, Load, Protocol, Tally, Until};
use crate::report::{Row, Table, with_commas};
use crate::server::{Program, Server, Session, field};
use crate::speed::cost;
use crate::{Scale, progress};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Items at the beginning and the end of a table's growth.
const GROWTH: (u64, u64) = (1 << 16, 1 << 22);
/// How much longer than planned the growth may take.
const GROWTH_PATIENCE: f64 = 3.0;

/// Sets sent at once beside the gets.
const FEED_BATCH: usize = 16;

/// Sets a second into a full cache.
const EVICTING_RATE: f64 = 100_000.0;

/// Between two commands that keep a server busy.
const NUDGE: Duration = Duration::from_millis(50);

/// Bytes of `-m` for each item of a table of sizes, which is more than either server takes.
const ITEM_COST: u64 = 160;

/// Times that starting is measured.
const STARTS: usize = 5;

/// The third table, and the cost of a get by the number of items.
pub fn run(scale: &Scale, twincached: &Program, memcached: &Program) -> Result<(Table, Table), String> {
    let programs = [twincached.clone(), memcached.clone()];
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let mut table = Table::new("time", "Latency at 60 % load, and starting", &names);
    let mut capacity = f64::MAX;
    for program in &programs {
        progress(&format!("time: capacity of {}", program.name));
        capacity = capacity.min(closed_rate(scale, program)?);
    }
    let chosen: Vec<usize> = (0..SCENARIOS.len()).filter(|&at| SCENARIOS[at].0.contains(&scale.only)).collect();
    table.rows = rows(capacity);
    for round in 0..scale.time_rounds {
        for turn in 0..programs.len() {
            let program = &programs[(round + turn) % programs.len()];
            for &at in &chosen {
                let (title, scenario) = SCENARIOS[at];
                progress(&format!("time, round {} of {}: {}, {title}", round + 1, scale.time_rounds, program.name));
                let seen = scenario(scale, program, capacity * 0.6)?;
                add(&mut table.rows, program, at, &seen);
            }
        }
    }
    let start = table.rows.last_mut().expect("has rows");
    if start.title.contains(&scale.only) {
        starts(&programs, start)?;
    }
    table.rows.retain(|row| !row.values.is_empty());
    let sizes = by_size(scale, &programs, &names)?;
    Ok((table, sizes))
}

/// What a scenario saw, and what to say of it.
struct Seen {
    tally: Tally,
    note: String,
    inside: Inside,
}

/// What twincached itself knows of its pauses, by the names of `stats twincache`. Empty for memcached.
struct Inside(BTreeMap<String, String>);

impl Inside {
    fn of(server: &Server) -> Inside {
        let mut inside = server.stats("twincache");
        if !inside.is_empty() {
            inside.insert("waited_for_cpu_us".into(), server.waited().as_micros().to_string());
        }
        Inside(inside)
    }

    fn us(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.parse().ok()
    }
}

type Scenario = fn(&Scale, &Program, f64) -> Result<Seen, String>;

const SCENARIOS: &[(&str, Scenario)] = &[
    ("quiet", quiet),
    ("while the table grows from 2^16 to 2^22 items", growing),
    ("while evicting", evicting),
    ("while pages move", moving),
    ("while the crawler runs", crawling),
    (FIXED, hundred_thousand),
];

/// The scenario whose load does not depend on what a server can take.
const FIXED: &str = "100,000 requests a second, 95 % get";

/// Three rows for each scenario, latencies of clients, pauses inside and work at a time, and one for starting.
fn rows(capacity: f64) -> Vec<Row> {
    let clients = SCENARIOS.iter().map(|&(title, _)| match title {
        FIXED => Row::new(format!("p99, {title}"), "us", ""),
        "quiet" => Row::new(format!("p99.9 of gets, {title}"), "us", ""),
        _ => Row::new(format!("p99.9 of gets {title}"), "us", "<= memcached"),
    });
    let inside = SCENARIOS.iter().map(|&(title, _)| match title {
        FIXED => Row::new(format!("p99 inside the server, {title}"), "us", "<= 1000"),
        title => Row::new(format!("longest pause inside the server, {title}"), "us", "<= 1000"),
    });
    let work = SCENARIOS
        .iter()
        .map(|&(title, _)| Row::new(format!("longest work at a time inside the server, {title}"), "us", "<= 1000"));
    let mut rows: Vec<Row> = clients.chain(inside).chain(work).collect();
    rows[0].note = format!("60 % load is {:.0} gets a second.", capacity * 0.6);
    rows.push(Row::new("start with -m 16384 to first answer", "ms", "<= 50"));
    rows
}

fn add(rows: &mut [Row], program: &Program, at: usize, seen: &Seen) {
    let is_fixed = SCENARIOS[at].0 == FIXED;
    let quantile = if is_fixed { 0.99 } else { 0.999 };
    let row = &mut rows[at];
    row.add(&program.name, seen.tally.quantile_us(quantile));
    row.note += &format!(
        "{}{}: {:.0} requests/s, p50 {:.0} us, max {:.0} us, hits {:.3}, generator late by {:.0} us{}",
        if row.note.is_empty() { "" } else { "; " },
        program.name,
        seen.tally.rate(),
        seen.tally.quantile_us(0.5),
        seen.tally.quantile_us(1.0),
        seen.tally.hit_ratio(),
        seen.tally.late_us(quantile),
        seen.note,
    );
    let longest = |names: [&str; 2]| names.iter().filter_map(|name| seen.inside.us(name)).reduce(f64::max);
    let by_clock = longest(["longest_loop_turn_us", "longest_lock_hold_us"]);
    let value = if is_fixed { seen.inside.us("inside_p99_us") } else { by_clock };
    let row = &mut rows[SCENARIOS.len() + at];
    let Some(value) = value else { return };
    row.add(&program.name, value);
    let all: Vec<String> = seen.inside.0.iter().map(|(name, value)| format!("{name} {value}")).collect();
    row.note += &format!("{}{}", if row.note.is_empty() { "" } else { "; " }, all.join(", "));
    if let Some(value) = longest(["longest_loop_turn_cpu_us", "longest_lock_hold_cpu_us"]) {
        rows[2 * SCENARIOS.len() + at].add(&program.name, value);
    }
}

/// A server that holds these items.
fn filled(program: &Program, memory: &str, items: Items) -> Result<Server, String> {
    let server = program.start(&["-m", memory])?;
    Generator::connect(Load::gets(server.address, items))?.fill()?;
    server.settle();
    Ok(server)
}

fn closed_rate(scale: &Scale, program: &Program) -> Result<f64, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let mut generator = Generator::connect(Load::gets(server.address, items))?;
    generator.run(Until::Seconds(scale.warmup))?;
    Ok(generator.run(Until::Seconds(scale.seconds))?.rate())
}

fn observe(scale: &Scale, server: &Server, load: Load) -> Result<Tally, String> {
    server.reset();
    let mut generator = Generator::connect(load)?;
    generator.run(Until::Seconds(scale.warmup))?;
    generator.run(Until::Seconds(scale.time_seconds))
}

fn quiet(scale: &Scale, program: &Program, rate: f64) -> Result<Seen, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let tally = observe(scale, &server, Load { rate: Some(rate), ..Load::gets(server.address, items) })?;
    Ok(Seen { tally, note: String::new(), inside: Inside::of(&server) })
}

fn hundred_thousand(scale: &Scale, program: &Program, _rate: f64) -> Result<Seen, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let load = Load { rate: Some(100_000.0), get_percent: 95, ..Load::gets(server.address, items) };
    let tally = observe(scale, &server, load)?;
    Ok(Seen { tally, note: String::new(), inside: Inside::of(&server) })
}

fn growing(scale: &Scale, program: &Program, rate: f64) -> Result<Seen, String> {
    let items = Items::plain(GROWTH.0, 100);
    let server = filled(program, "4096", items)?;
    let new = Items { first: GROWTH.0, count: GROWTH.1 - GROWTH.0, ..items };
    let feed = Feed { items: new, rate: new.count as f64 / scale.growth_seconds, batch: FEED_BATCH };
    let load = Load { rate: Some(rate / 2.0), feed: Some(feed), ..Load::gets(server.address, items) };
    server.reset();
    let tally = Generator::connect(load)?.run(Until::Fed(scale.growth_seconds * GROWTH_PATIENCE))?;
    let count = server.stats("").get("curr_items").cloned().unwrap_or_default();
    Ok(Seen { tally, note: format!(", {count} items at the end"), inside: Inside::of(&server) })
}

fn evicting(scale: &Scale, program: &Program, rate: f64) -> Result<Seen, String> {
    let items = Items::plain(1_000_000, 100);
    let server = filled(program, "64", items)?;
    let new = Items { first: items.count, count: u64::MAX >> 1, ..items };
    let feed = Feed { items: new, rate: EVICTING_RATE, batch: FEED_BATCH };
    let recent = Items { first: 900_000, count: 100_000, ..items };
    let load = Load { rate: Some(rate / 2.0), feed: Some(feed), ..Load::gets(server.address, recent) };
    let tally = observe(scale, &server, load)?;
    let note = format!(", {} evictions", count(&server, "evictions"));
    Ok(Seen { tally, note, inside: Inside::of(&server) })
}

/// Of the plain statistics.
fn count(server: &Server, name: &str) -> u64 {
    server.stats("").get(name).and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn moving(scale: &Scale, program: &Program, rate: f64) -> Result<Seen, String> {
    let small = Items::plain(400_000, 100);
    let large = Items { first: small.count, count: 100_000, ..Items::plain(0, 600) };
    let server = filled(program, "256", small)?;
    Generator::connect(Load::gets(server.address, large))?.fill()?;
    let (a, b) = two_classes(&server)?;
    let commands = vec![format!("slabs reassign {a} {b}"), format!("slabs reassign {b} {a}")];
    server.ask("slabs automove 0")?;
    let nudger = Nudger::start(server.address, commands)?;
    let tally = observe(scale, &server, Load { rate: Some(rate), ..Load::gets(server.address, small) })?;
    let accepted = nudger.stop();
    let note = format!(", {} pages moved of {accepted} asked", count(&server, "slabs_moved"));
    Ok(Seen { tally, note, inside: Inside::of(&server) })
}

/// The two slab classes with the most pages.
fn two_classes(server: &Server) -> Result<(u64, u64), String> {
    let stats = server.stats("slabs");
    let pages = stats.iter().filter_map(|(name, value)| {
        let class = name.strip_suffix(":total_pages")?.parse().ok()?;
        Some((value.parse::<u64>().ok()?, class))
    });
    let mut classes: Vec<(u64, u64)> = pages.collect();
    classes.sort_unstable();
    match classes[..] {
        [.., (_, b), (_, a)] => Ok((a, b)),
        _ => Err("fewer than two slab classes are in use".into()),
    }
}

fn crawling(scale: &Scale, program: &Program, rate: f64) -> Result<Seen, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let nudger = Nudger::start(server.address, vec!["lru_crawler crawl all".into()])?;
    let tally = observe(scale, &server, Load { rate: Some(rate), ..Load::gets(server.address, items) })?;
    let note = format!(", {} crawls", nudger.stop());
    Ok(Seen { tally, note, inside: Inside::of(&server) })
}

/// A thread that gives a server commands again and again.
struct Nudger {
    over: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Nudger {
    fn start(address: SocketAddr, commands: Vec<String>) -> Result<Nudger, String> {
        let mut session = Session::open(address)?;
        let over = Arc::new(AtomicBool::new(false));
        let accepted = Arc::new(AtomicU64::new(0));
        let (is_over, count) = (over.clone(), accepted.clone());
        let thread = std::thread::spawn(move || {
            for command in commands.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                if session.ask(command).is_ok_and(|lines| lines[0] == "OK") {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(NUDGE);
            }
        });
        Ok(Nudger { over, accepted, thread })
    }

    /// How many commands were accepted.
    fn stop(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        // A panic over there has been printed, and cost only the count.
        let _ = self.thread.join();
        self.accepted.load(Ordering::Relaxed)
    }
}

fn starts(programs: &[Program], row: &mut Row) -> Result<(), String> {
    for _ in 0..STARTS {
        for program in programs {
            let (_server, took) = program.start_timed(&["-m", "16384"])?;
            row.add(&program.name, took.as_secs_f64() * 1000.0);
        }
    }
    Ok(())
}

/// Cost of a pipelined get with more and more items.
fn by_size(scale: &Scale, programs: &[Program], names: &[String]) -> Result<Table, String> {
    let mut table = Table::new("size", "Server CPU per meta get by number of items of 20 bytes, 16 pipelined", names);
    table.curve = Some("items");
    let chosen = |count: &u64| table.title.contains(&scale.only) && fits(*count);
    let counts: Vec<u64> = scale.sizes.iter().copied().filter(chosen).collect();
    table.rows =
        counts.iter().map(|&count| Row { x: count as f64, ..Row::new(with_commas(count), "ns", "") }).collect();
    if counts.is_empty() {
        return Ok(table);
    }
    let memory = counts.last().copied().unwrap_or(0) * ITEM_COST / (1 << 20) + 128;
    for program in programs {
        let server = program.start(&["-m", &memory.to_string()])?;
        let mut have = 0;
        for (row, &count) in table.rows.iter_mut().zip(&counts) {
            progress(&format!("time: {}, cost of a get among {count} items", program.name));
            let new = Items { first: have, ..Items::plain(count - have, 20) };
            Generator::connect(Load::gets(server.address, new))?.fill()?;
            server.settle();
            have = count;
            // Meta: see `memory`, where load is pipelined, too.
            let items = Items::plain(count, 20);
            let load = Load { protocol: Protocol::Meta, pipeline: 16, ..Load::gets(server.address, items) };
            let (cost, tally) = cost(scale, &server, load)?;
            row.add(&program.name, cost);
            if tally.misses > 0 {
                row.note += &format!("{} missed {} keys. ", program.name, tally.misses);
            }
        }
    }
    table.rows.push(growth(&table.rows, names));
    Ok(table)
}

fn growth(rows: &[Row], names: &[String]) -> Row {
    let mut row = Row::new("growth from the first to the last", "ns", "<= memcached");
    if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
        for name in names {
            row.add(name, last.median(name).unwrap_or(0.0) - first.median(name).unwrap_or(0.0));
        }
    }
    row
}

/// Whether the machine has the memory for so many items, and as much again.
fn fits(count: u64) -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = field(&text, "MemAvailable:").unwrap_or(0) * 1024;
    count * ITEM_COST * 3 / 2 < available
}
