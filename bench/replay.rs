//! What the store keeps of a load, and so how often it hits: the shipped store itself, without sockets and without
//! waiting, in seconds instead of hours.
//!
//! ```text
//! cargo bench --bench replay -- [OPTIONS] [LOAD…]
//!
//! load ── key, size, time to live ──> get ── a miss ──> set ──> Store     each 128 requests: a step of the background,
//!                                                                         for as long as they took at --rate
//! ```
//!
//! A load is a name (`zipf:0.9`, `shift`, `scan`, `onehit`, `calc`, `tenants`, `feed`, `ttl`), or a file of requests. Each
//! runs in every policy with every memory; the first quarter of a named load is not counted.
//!
//! With `--out` what is hit is drawn over the memory, too: a plot for each load of objects, and one of bytes.
//!
//! With `--live` the same requests go to a twincached and a memcached over loopback, too (`live`), and the store's hits
//! stand beside theirs: whether the replay tells the truth.
//!
//! Not here: what files may look like (`traces`), how the load is sent to servers (`live`).

#[allow(dead_code, reason = "the load generator uses more of it")]
mod draw;
mod live;
#[allow(dead_code, reason = "tables of the comparison have more to them")]
mod report;
#[allow(dead_code, reason = "the comparison pins servers and asks them more")]
mod server;
mod traces;

use draw::{Items, Rng, Sizes, Zipf};
use getopts::{Matches, Options};
use live::{LoadAnswers, Pace};
use report::{Row, Table};
use server::Program;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use traces::{Op, Request};
use twincache::clock::Clock;
use twincache::store::{Accounting, AutomoveWeight, BackgroundWorker, ItemSpec, LruPolicy, Part, Store, StoreConfig};

/// Requests between two steps of the background.
const STEP: u64 = 128;

/// What a named load is without arguments.
const ALL: &[&str] = &["zipf:0.9", "shift", "scan", "onehit", "calc", "tenants", "feed", "ttl"];

/// The same with `--live`, where each takes its time.
const LIVE: &[&str] = &["zipf:0.9", "calc", "scan", "onehit", "tenants"];

/// What `--help` says after the options.
const LOADS: &str = "
A LOAD is a name (zipf:EXPONENT, shift, scan, onehit, calc, tenants, feed, ttl:EXPONENT), a file, or - for stdin:
    key size [ttl]                                                  a get, and a set of so many bytes if it misses
    timestamp,key,key size,value size,client id,operation,TTL       Twitter's traces (github.com/twitter/cache-trace)
    op_time,key,key_size,op,op_count,size,cache_hits,ttl,...        Meta's (CacheLib's kvcache), with this first line;
                                                                    the columns may stand in another order
    zstd -dc cluster52.zst | head -n 20000000 | cargo bench --bench replay -- -m 256,1024 -
Times are those of --rate, not of the trace. What a get missed is set if the line says its size.

With --live each load is also sent to a twincached and a memcached with the same -m, otherwise as they are by default:
batches of up to 32 gets on one connection each, then the sets of what they missed; a batch goes to both before the next.
Times to live are those of --rate, too: items are set to live for ever and deleted when their time is over, the same in both.
At most --pace requests a second are sent, which is the time that page movers have; the replay's mover gets as much: fewer
let them do more. Of two numbers in a column the first is twincached's, the second memcached's. Without other words it is
1,200,000 requests of zipf:0.9, calc, scan, onehit and tenants with -m 64,128, in two to three minutes.
";

/// Hits of gets, and of the bytes that they asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    gets: u64,
    hits: u64,
    bytes: u64,
    hit_bytes: u64,
    /// Bytes of keys and values at the end.
    held: u64,
    moved: u64,
    ghost_hits: u64,
}

/// How a run is called, and what it runs with.
type Policy = (&'static str, LruPolicy, Accounting);

/// The first stands for memcached itself: its sizes, its classes, its lists and its mover.
const POLICIES: [Policy; 3] = [
    ("memcached", LruPolicy::Memcached, Accounting::Memcached),
    ("lists", LruPolicy::Memcached, Accounting::Native),
    ("s3fifo", LruPolicy::S3Fifo, Accounting::Native),
];

struct Settings {
    memory: Vec<u64>,
    requests: u64,
    rate: u64,
    /// The same in the background's time.
    pace: u64,
    policies: Vec<Policy>,
    automove: u8,
    weight: AutomoveWeight,
    /// Bytes of a page; by the memory without.
    page: Option<usize>,
    slab_sizes: Vec<usize>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("replay: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = Options::new();
    options.optopt("m", "memory", "megabytes, with commas (32,128)", "MB");
    options.optopt("n", "requests", "of a named load (4000000)", "N");
    options.optopt("r", "rate", "requests a second (50000)", "N");
    options.optopt(
        "p",
        "policy",
        "memcached: its lists and its sizes; lists: its lists in our sizes; s3fifo (all)",
        "NAME",
    );
    options.optopt("a", "automove", "the page mover's mode (1)", "0|1|2");
    options.optopt("w", "weight", "what it counts: objects, balanced or bytes (balanced)", "NAME");
    options.optopt("", "page", "kilobytes of a page (what the server would take)", "KB");
    options.optopt("", "slab-sizes", "chunk sizes of the slab classes", "A-B-C");
    options.optopt("o", "out", "also draw hits over memory there, as SVG", "DIR");
    options.optflagopt("", "live", "hits of a twincached and this memcached beside (that in PATH)", "MEMCACHED");
    options.optopt("", "twincached", "with --live: which (the one built here)", "PATH");
    options.optopt("", "pace", "with --live: most requests a second that are sent (100000)", "N");
    options.optflag("h", "help", "this text");
    options.optflag("", "bench", "what cargo says");
    let matches = options.parse(std::env::args().skip(1)).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        print!("{}{LOADS}", options.usage("cargo bench --bench replay -- [OPTIONS] [LOAD…]"));
        return Ok(());
    }
    let number =
        |name: &str, usual: u64| matches.opt_get_default(name, usual).map_err(|_| format!("--{name}: not a number"));
    let policy = matches.opt_str("policy").unwrap_or("all".into());
    let is_live = matches.opt_present("live");
    let rate = number("rate", 50_000)?.max(1);
    let settings = Settings {
        memory: matches
            .opt_str("memory")
            .unwrap_or(if is_live { "64,128" } else { "32,128" }.into())
            .split(',')
            .filter_map(|mb| mb.parse().ok())
            .collect(),
        requests: number("requests", if is_live { 1_200_000 } else { 4_000_000 })?,
        rate,
        pace: number("pace", if is_live { 100_000 } else { rate })?.max(1),
        policies: POLICIES.into_iter().filter(|(name, ..)| policy == "all" || policy == *name).collect(),
        weight: match matches.opt_str("weight").as_deref() {
            None | Some("balanced") => AutomoveWeight::Balanced,
            Some("objects") => AutomoveWeight::Objects,
            Some("bytes") => AutomoveWeight::Bytes,
            Some(other) => return Err(format!("--weight {other}: objects, balanced or bytes")),
        },
        automove: number("automove", 1)? as u8,
        page: matches.opt_get("page").map_err(|_| "--page: not a number")?.map(|kilobytes: usize| kilobytes << 10),
        slab_sizes: matches
            .opt_str("slab-sizes")
            .unwrap_or_default()
            .split('-')
            .filter_map(|n| n.parse().ok())
            .collect(),
    };
    let usual = if is_live { LIVE } else { ALL };
    let names =
        if matches.free.is_empty() { usual.iter().map(ToString::to_string).collect() } else { matches.free.clone() };
    if is_live {
        return beside(&names, settings, &matches);
    }
    println!(
        "| load | -m | policy | hits | of bytes | misses | held | pages moved | back from the ghost | ns a request |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for name in names {
        let mut plots = [("objects", "Gets that hit"), ("bytes", "Bytes that were hit")]
            .map(|plot| plot_of(&name, plot, &settings));
        for megabytes in &settings.memory {
            compare(&name, *megabytes, &settings, &mut plots)?;
        }
        if let Some(folder) = matches.opt_str("out") {
            let drawn = |plot: &Table| plot.plot(Path::new(&folder));
            plots.iter().try_for_each(drawn).map_err(|error| format!("{folder}: {error}"))?;
        }
    }
    Ok(())
}

/// An empty plot of a load.
fn plot_of(load: &str, (what, title): (&str, &str), settings: &Settings) -> Table {
    let file: String = load.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' }).collect();
    let policies: Vec<String> = settings.policies.iter().map(|policy| policy.0.to_owned()).collect();
    // Two of each load, which live as long as the program.
    let (name, title) = (format!("replay-{file}-{what}").leak(), format!("{title}, {load}").leak());
    Table { curve: Some("-m, megabytes"), ..Table::new(name, title, &policies) }
}

fn compare(name: &str, megabytes: u64, settings: &Settings, plots: &mut [Table; 2]) -> Result<(), String> {
    let mut before: Option<Hits> = None;
    for plot in &mut *plots {
        plot.rows.push(Row { x: megabytes as f64, ..Row::new(format!("{megabytes} MB"), "ratio", "") });
    }
    for policy in &settings.policies {
        let load = load(name, settings.requests)?;
        let began = Instant::now();
        let hits = replay(load, megabytes << 20, *policy, settings);
        let nanoseconds = began.elapsed().as_nanos() as u64 / settings.requests.max(1);
        let misses = |hits: &Hits| (hits.gets - hits.hits) as f64;
        let change =
            before.map_or(String::new(), |before| format!("{:+.1} %", (misses(&hits) / misses(&before) - 1.0) * 100.0));
        let ratios = [hits.hits as f64 / hits.gets as f64, hits.hit_bytes as f64 / hits.bytes as f64];
        for (plot, ratio) in plots.iter_mut().zip(ratios) {
            plot.rows.last_mut().expect("the row of this memory").add(policy.0, ratio);
        }
        println!(
            "| {name} | {megabytes} | {} | {:.4} | {:.4} | {change} | {:.4} | {} | {} | {nanoseconds} |",
            policy.0,
            ratios[0],
            ratios[1],
            hits.held as f64 / (megabytes << 20) as f64,
            hits.moved,
            hits.ghost_hits
        );
        before = before.or(Some(hits));
    }
    Ok(())
}

/// The table of servers and, beside each, of the store that stands for it.
fn beside(names: &[String], mut settings: Settings, matches: &Matches) -> Result<(), String> {
    let only_here = ["policy", "weight", "page", "slab-sizes", "out"];
    if let Some(name) = only_here.into_iter().find(|name| matches.opt_present(name)) {
        return Err(format!("--{name} is not for --live, which runs servers as they are by default"));
    }
    let programs = [Program::twincached(matches.opt_str("twincached")), Program::memcached(matches.opt_str("live"))];
    for program in &programs {
        let version = program.version().ok_or(format!("{} cannot be run: see --help", program.name))?;
        eprintln!(".. {}: {version}", program.name);
    }
    println!(
        "| load | -m | hits of | twincached | its replay | memcached | its replay | pages moved | sets refused | requests/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let pace = settings.pace;
    for name in names {
        for megabytes in settings.memory.clone() {
            settings.pace = pace;
            let (answered, moved) = send(name, megabytes, &programs, &mut settings)?;
            let refused = format!("{}, {}", answered[0].refused, answered[1].refused);
            let (mut objects, mut bytes) = (Vec::new(), Vec::new());
            // The policies that stand for the servers, in their order.
            for (live, policy) in answered.iter().zip([POLICIES[2], POLICIES[0]]) {
                let store = replay(load(name, settings.requests)?, megabytes << 20, policy, &settings);
                objects.extend([ratio(live.hits, live.gets), ratio(store.hits, store.gets)]);
                bytes.extend([ratio(live.hit_bytes, live.bytes), ratio(store.hit_bytes, store.bytes)]);
            }
            for (what, ratios) in [("objects", objects), ("bytes", bytes)] {
                let (ratios, pace) = (ratios.join(" | "), settings.pace);
                println!("| {name} | {megabytes} | {what} | {ratios} | {moved} | {refused} | {pace} |");
            }
        }
    }
    Ok(())
}

fn ratio(part: u64, whole: u64) -> String {
    format!("{:.4}", part as f64 / whole.max(1) as f64)
}

/// Sends a load to one of each, started for it. What they answered, and how many pages they moved; the pace becomes the one
/// that was reached.
fn send(
    name: &str,
    megabytes: u64,
    programs: &[Program],
    settings: &mut Settings,
) -> Result<(Vec<LoadAnswers>, String), String> {
    let (memory, automove) = (megabytes.to_string(), format!("slab_automove={}", settings.automove));
    let mut servers = Vec::new();
    for program in programs {
        servers.push(program.start_timed(&["-m", &memory, "-o", &automove])?.0);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let load = load(name, settings.requests)?;
    let pace = Pace { requests: settings.pace, rate: settings.rate, uncounted: load.uncounted };
    let say = |sent: u64| eprintln!(".. {name} -m {megabytes}: {sent} requests");
    say(0);
    let (answered, reached) = live::send(load.requests, &addresses, pace, say)?;
    settings.pace = reached.max(1);
    let moved = |server: &server::Server| server.stats("").get("slabs_moved").cloned().unwrap_or_default();
    Ok((answered, servers.iter().map(moved).collect::<Vec<_>>().join(", ")))
}

fn replay(load: Load, memory_limit: u64, (_, lru_policy, accounting): Policy, settings: &Settings) -> Hits {
    let usual = StoreConfig { memory_limit, accounting, fits_memory: true, ..StoreConfig::default() }.fitted();
    let mut config = StoreConfig {
        memory_limit,
        page_size: settings.page.unwrap_or(usual.page_size),
        slab_chunk_max: settings.slab_sizes.last().copied().unwrap_or(usual.slab_chunk_max),
        slab_sizes: settings.slab_sizes.clone(),
        shards: Some(1),
        lru_policy,
        accounting,
        automove_weight: settings.weight,
        ..StoreConfig::default()
    };
    config.tuning.automove = settings.automove;
    let clock = Arc::new(Clock::new());
    clock.pause(true);
    let store = Store::new(config, clock.clone()).expect("address range");
    let mut background = BackgroundWorker::new(&store);
    let (mut hits, mut second) = (Hits::default(), 0);
    let value = vec![b'v'; 1 << 20];
    let (uncounted, step) = (load.uncounted, Duration::from_nanos(STEP * 1_000_000_000 / settings.pace));
    for (number, request) in load.requests.enumerate() {
        let number = number as u64;
        if number.is_multiple_of(STEP) {
            let now = number / settings.rate;
            clock.advance((now - std::mem::replace(&mut second, now)) as i64);
            background.step(&store, step);
        }
        let is_hit = ask(&store, &clock, &request, &value);
        if number >= uncounted && request.op == Op::Get {
            let bytes = (request.key.len() + request.len.unwrap_or(0)) as u64;
            hits.gets += 1;
            hits.bytes += bytes;
            hits.hits += u64::from(is_hit);
            hits.hit_bytes += if is_hit { bytes } else { 0 };
        }
    }
    let stats = store.stats();
    // What an item takes beside key and value.
    let extra = if accounting == Accounting::Memcached { 59 } else { 32 };
    let held = stats.bytes - stats.curr_items * extra;
    Hits { held, moved: stats.slabs_moved, ghost_hits: stats.ghost_hits, ..hits }
}

/// Does what is asked for. Whether a get hit.
fn ask(store: &Store, clock: &Clock, request: &Request, value: &[u8]) -> bool {
    let hash = store.hash(&request.key);
    let mut locked = store.lock(hash);
    let found = locked.find(&request.key, hash).ok();
    match (request.op, found) {
        (Op::Get, Some(id)) => {
            locked.count_get(id);
            locked.bump(id);
            return true;
        }
        (Op::Get, None) => locked.count_miss(hash),
        (Op::Delete, Some(id)) => locked.unlink(id, hash),
        _ => {}
    }
    let Some(len) = request.len.filter(|_| request.op != Op::Delete) else { return false };
    let expires_at = clock.expires_at(request.ttl as i64);
    let spec = ItemSpec { key: &request.key, key_is_binary: false, client_flags: 0, expires_at };
    if let Ok(id) = locked.create(&spec, &[Part::Bytes(&value[..len.min(value.len())])]) {
        locked.class_counters(id).cmd_set += 1;
        // To make it may have evicted what was there.
        match locked.find(&request.key, hash) {
            Ok(old) => locked.replace(old, id, hash, None),
            Err(_) => locked.link(id, hash, None),
        }
    }
    false
}

/// Requests, and how many of them are not counted.
struct Load {
    requests: Box<dyn Iterator<Item = Request>>,
    uncounted: u64,
}

fn load(name: &str, requests: u64) -> Result<Load, String> {
    let mut rng = Rng(1);
    let word = name.split(':').next().unwrap_or_default();
    let exponent = name.split_once(':').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0.9);
    let named: Box<dyn Iterator<Item = Request>> = match word {
        "zipf" => {
            let (items, zipf) = (Items { mortal: true, ..Items::spread(2_000_000) }, Zipf::new(2_000_000, exponent));
            Box::new((0..requests).map(move |_| request(&items, zipf.draw(&mut rng))))
        }
        "ttl" => {
            let (items, zipf) = (Items::spread(2_000_000), Zipf::new(2_000_000, exponent));
            Box::new((0..requests).map(move |_| {
                let key = zipf.draw(&mut rng);
                Request { ttl: 5 + key * 7 % 56, ..request(&items, key) }
            }))
        }
        "fill" => {
            let items = Items::spread(u64::MAX);
            Box::new((0..requests).map(move |number| request(&items, number)))
        }
        "shift" => {
            let (items, zipf) = (Items::spread(u64::MAX), Zipf::new(500_000, exponent));
            let (mut keys, mut next): (Vec<u64>, u64) = ((0..500_001).collect(), 500_001);
            Box::new((0..requests).map(move |number| {
                if number % 100_000 == 0 {
                    for _ in 0..10_000 {
                        let rank = rng.below(500_000_usize);
                        (keys[rank], next) = (next, next + 1);
                    }
                }
                request(&items, keys[zipf.draw(&mut rng) as usize])
            }))
        }
        "scan" => {
            let (items, zipf, mut at) = (Items::spread(u64::MAX), Zipf::new(1_000_000, exponent), 0);
            Box::new((0..requests).map(move |number| {
                let is_scan = number % 12_500 < 2500;
                at += u64::from(is_scan);
                request(&items, if is_scan { 2_000_000 + at % 1_000_000 } else { zipf.draw(&mut rng) })
            }))
        }
        "onehit" => {
            let (items, zipf) = (Items::spread(u64::MAX), Zipf::new(1_000_000, exponent));
            Box::new((0..requests).map(move |number| {
                let is_new = rng.below(10) < 3;
                request(&items, if is_new { 10_000_000 + number } else { zipf.draw(&mut rng) })
            }))
        }
        "calc" => {
            let zipf = Zipf::new(500_000, exponent);
            let small = Items { sizes: Sizes::Range(20, 120), ..Items::spread(u64::MAX) };
            let large = Items { first: 1_000_000, sizes: Sizes::Range(250, 700), ..small };
            Box::new((0..requests).map(move |number| {
                let items = if number < requests / 4 { &small } else { &large };
                request(items, items.first + zipf.draw(&mut rng))
            }))
        }
        "tenants" => {
            let (often, seldom) = (Zipf::new(1_000_000, 0.9), Zipf::new(50_000, 0.6));
            let small = Items { sizes: Sizes::Range(20, 200), ..Items::spread(u64::MAX) };
            let large = Items { first: 5_000_000, sizes: Sizes::Range(2000, 7000), ..small };
            Box::new((0..requests).map(move |_| {
                let is_small = rng.below(10) < 7;
                let (items, zipf) = if is_small { (&small, &often) } else { (&large, &seldom) };
                request(items, items.first + zipf.draw(&mut rng))
            }))
        }
        "feed" => {
            let (items, mut next) = (Items::spread(u64::MAX), 1_u64);
            Box::new((0..requests).map(move |_| {
                let is_new = rng.below(100) < 15;
                next += u64::from(is_new);
                let age = (-(1.0 - rng.unit()).ln() * 100_000.0) as u64;
                request(&items, if is_new { next } else { next - age.min(next - 1) })
            }))
        }
        _ => return Ok(Load { requests: traces::read(name)?, uncounted: 0 }),
    };
    Ok(Load { requests: named, uncounted: requests / 4 })
}

fn request(items: &Items, number: u64) -> Request {
    let mut key = Vec::with_capacity(44);
    items.push_key(&mut key, number);
    Request { op: Op::Get, key, len: Some(items.value_len(number)), ttl: items.ttl(number) }
}
