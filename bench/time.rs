//! What takes time: tails of latency while a server is busy with itself, starting, and growth with size.
//!
//! ```text
//! capacity = answers a second of the slower server, one request in flight on each of 50 connections
//! quiet load = 60 % of it in gets; busy load = 30 % in gets, and sets of new items in batches beside them
//! ```
//!
//! Both servers are brought into the same state, and then loaded in turn for a second or two at a time; a row is the median
//! of such windows. So a hiccup of the machine, which on one where others run is longer than anything a server does,
//! spoils a window and not a row.
//!
//! ```text
//! twincached  | fill |      | window |        | window | …
//! memcached   |      | fill |        | window |        | …
//! ```
//!
//! Latencies are the client's, counted from when a request was due. How late the load generator itself was is noted.
//! What twincached measures inside itself (`stats twincache`) has rows of its own. Its longest pauses are told by the
//! clock, in which others on its CPU have a part, and by CPU time, which is its work and what a hypervisor takes
//! without telling. The longest of all windows is noted.
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
use std::sync::atomic::{AtomicBool, Ordering};
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

/// Items that are fetched meanwhile, about once a second each: while all else goes within some seconds, an LRU that works
/// keeps them. The share of hits is noted.
const RECENT: u64 = 10_000;

/// Windows in a round, and how long they are at least.
const WINDOWS: usize = 3;
const WINDOW_MIN: f64 = 1.0;

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
    for at in chosen {
        let seen = observe(scale, &programs, at, capacity * 0.6)?;
        std::iter::zip(&programs, &seen).for_each(|(program, seen)| add(&mut table.rows, program, at, seen));
    }
    let start = table.rows.last_mut().expect("has rows");
    if start.title.contains(&scale.only) {
        starts(&programs, start)?;
    }
    table.rows.retain(|row| !row.values.is_empty());
    let sizes = by_size(scale, &programs, &names)?;
    Ok((table, sizes))
}

/// A server in some state, and what to do to it.
struct Scene {
    server: Server,
    generator: Generator,
    /// Commands that keep it busy meanwhile.
    nudges: Vec<String>,
    /// The last window ends when all is fed, or after this time.
    fed_within: Option<f64>,
    /// What of the plain statistics is worth telling.
    tell: &'static str,
}

/// What was seen of one server in all windows, and what to say of it.
struct Seen {
    tallies: Vec<Tally>,
    inside: Vec<Inside>,
    note: String,
}

/// Windows of a scenario, of one server and the other in turn.
fn observe(scale: &Scale, programs: &[Program], at: usize, rate: f64) -> Result<Vec<Seen>, String> {
    let (title, set_up) = SCENARIOS[at];
    let mut scenes = Vec::new();
    for program in programs {
        progress(&format!("time: {title}, {}", program.name));
        scenes.push((
            set_up(scale, program, rate)?,
            Seen { tallies: Vec::new(), inside: Vec::new(), note: String::new() },
        ));
    }
    let windows = scale.time_rounds * WINDOWS;
    for window in 0..windows {
        for turn in 0..scenes.len() {
            let which = (window + turn) % scenes.len();
            let (scene, seen) = &mut scenes[which];
            seen.tallies.push(scene.window(scale, windows, window + 1 == windows)?);
            seen.inside.push(Inside::of(&scene.server));
        }
    }
    for (scene, seen) in &mut scenes {
        let told = scene.server.stats("").get(scene.tell).cloned().unwrap_or_default();
        seen.note = if scene.tell.is_empty() { String::new() } else { format!(", in the end {} {told}", scene.tell) };
    }
    Ok(scenes.into_iter().map(|(_, seen)| seen).collect())
}

impl Scene {
    fn new(server: Server, load: Load) -> Result<Scene, String> {
        let generator = Generator::connect(load)?;
        Ok(Scene { server, generator, nudges: Vec::new(), fed_within: None, tell: "" })
    }

    fn window(&mut self, scale: &Scale, windows: usize, is_last: bool) -> Result<Tally, String> {
        let nudger = (!self.nudges.is_empty()).then(|| Nudger::start(self.server.address, self.nudges.clone()));
        let nudger = nudger.transpose()?;
        self.generator.run(Until::Seconds(scale.warmup))?;
        self.server.reset();
        let tally = self.generator.run(match self.fed_within {
            Some(most) if is_last => Until::Fed(most),
            Some(_) => Until::Seconds(scale.growth_seconds / windows as f64),
            None => Until::Seconds((scale.time_seconds / WINDOWS as f64).max(WINDOW_MIN)),
        });
        if let Some(nudger) = nudger {
            nudger.stop();
        }
        tally
    }
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

type Scenario = fn(&Scale, &Program, f64) -> Result<Scene, String>;

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
    seen.tallies.iter().for_each(|tally| row.add(&program.name, tally.quantile_us(quantile)));
    let middle = |of: &dyn Fn(&Tally) -> f64| median(seen.tallies.iter().map(of).collect());
    row.note += &format!(
        "{}{}: {:.0} requests/s, p50 {:.0} us, max {:.0} us, hits {:.3}, generator late by {:.0} us{}",
        if row.note.is_empty() { "" } else { "; " },
        program.name,
        middle(&Tally::rate),
        middle(&|tally| tally.quantile_us(0.5)),
        seen.tallies.iter().map(|tally| tally.quantile_us(1.0)).fold(0.0, f64::max),
        middle(&Tally::hit_ratio),
        middle(&|tally| tally.late_us(quantile)),
        seen.note,
    );
    for inside in &seen.inside {
        let longest = |names: [&str; 2]| names.iter().filter_map(|name| inside.us(name)).reduce(f64::max);
        let by_clock = longest(["longest_loop_turn_us", "longest_lock_hold_us"]);
        let value = if is_fixed { inside.us("inside_p99_us") } else { by_clock };
        value.into_iter().for_each(|us| rows[SCENARIOS.len() + at].add(&program.name, us));
        let by_cpu = longest(["longest_loop_turn_cpu_us", "longest_lock_hold_cpu_us"]);
        by_cpu.into_iter().for_each(|us| rows[2 * SCENARIOS.len() + at].add(&program.name, us));
    }
    rows[SCENARIOS.len() + at].note += &told(&seen.inside);
}

/// Of what is measured inside, the longest of all windows where it is a longest time, else the median.
fn told(inside: &[Inside]) -> String {
    let Some(first) = inside.first() else { return String::new() };
    let tell = |name: &String| {
        let values: Vec<f64> = inside.iter().filter_map(|inside| inside.us(name)).collect();
        let is_longest = name.starts_with("longest");
        let value = if is_longest { values.into_iter().fold(0.0, f64::max) } else { median(values) };
        format!("{name} {value:.0}")
    };
    first.0.keys().map(tell).collect::<Vec<_>>().join(", ")
}

fn median(values: Vec<f64>) -> f64 {
    let mut row = Row::new("", "", "");
    values.into_iter().for_each(|value| row.add("", value));
    row.median("").unwrap_or(0.0)
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

fn quiet(scale: &Scale, program: &Program, rate: f64) -> Result<Scene, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let load = Load { rate: Some(rate), ..Load::gets(server.address, items) };
    Scene::new(server, load)
}

fn hundred_thousand(scale: &Scale, program: &Program, _rate: f64) -> Result<Scene, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let load = Load { rate: Some(100_000.0), get_percent: 95, ..Load::gets(server.address, items) };
    Scene::new(server, load)
}

fn growing(scale: &Scale, program: &Program, rate: f64) -> Result<Scene, String> {
    let items = Items::plain(GROWTH.0, 100);
    let server = filled(program, "4096", items)?;
    let new = Items { first: GROWTH.0, count: GROWTH.1 - GROWTH.0, ..items };
    let feed = Feed { items: new, rate: new.count as f64 / scale.growth_seconds, batch: FEED_BATCH };
    let load = Load { rate: Some(rate / 2.0), feed: Some(feed), ..Load::gets(server.address, items) };
    let fed_within = Some(scale.growth_seconds * GROWTH_PATIENCE);
    Ok(Scene { fed_within, tell: "curr_items", ..Scene::new(server, load)? })
}

fn evicting(_scale: &Scale, program: &Program, rate: f64) -> Result<Scene, String> {
    let items = Items::plain(1_000_000, 100);
    let server = filled(program, "64", items)?;
    let new = Items { first: items.count, count: u64::MAX >> 1, ..items };
    let feed = Feed { items: new, rate: EVICTING_RATE, batch: FEED_BATCH };
    let recent = Items { first: items.count - RECENT, count: RECENT, ..items };
    let load = Load { rate: Some(rate / 2.0), feed: Some(feed), ..Load::gets(server.address, recent) };
    Ok(Scene { tell: "evictions", ..Scene::new(server, load)? })
}

fn moving(_scale: &Scale, program: &Program, rate: f64) -> Result<Scene, String> {
    let small = Items::plain(400_000, 100);
    let large = Items { first: small.count, count: 100_000, ..Items::plain(0, 600) };
    let server = filled(program, "256", small)?;
    Generator::connect(Load::gets(server.address, large))?.fill()?;
    let (a, b) = two_classes(&server)?;
    let nudges = vec![format!("slabs reassign {a} {b}"), format!("slabs reassign {b} {a}")];
    server.ask("slabs automove 0")?;
    let load = Load { rate: Some(rate), ..Load::gets(server.address, small) };
    Ok(Scene { nudges, tell: "slabs_moved", ..Scene::new(server, load)? })
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

fn crawling(scale: &Scale, program: &Program, rate: f64) -> Result<Scene, String> {
    let items = Items::plain(scale.keys, 100);
    let server = filled(program, "2048", items)?;
    let load = Load { rate: Some(rate), ..Load::gets(server.address, items) };
    let nudges = vec!["lru_crawler crawl all".into()];
    Ok(Scene { nudges, tell: "crawler_items_checked", ..Scene::new(server, load)? })
}

/// A thread that gives a server commands again and again.
struct Nudger {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Nudger {
    fn start(address: SocketAddr, commands: Vec<String>) -> Result<Nudger, String> {
        let mut session = Session::open(address)?;
        let over = Arc::new(AtomicBool::new(false));
        let is_over = over.clone();
        let thread = std::thread::spawn(move || {
            for command in commands.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                // Refused while the one before is not done.
                let _ = session.ask(command);
                std::thread::sleep(NUDGE);
            }
        });
        Ok(Nudger { over, thread })
    }

    fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        // A panic over there has been printed.
        let _ = self.thread.join();
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
