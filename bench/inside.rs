//! What the server says of its own time beside what its clients see, and what it costs to be watched.
//!
//! ```text
//!  client: ├── due ─ sent ───────────────────────────────────────────── answer read ┤    its own queue, both kernels, the
//!  server:                    ├ read that brought it ─ … ─ write of its reply ┤          network: what only the client sees
//! ```
//!
//! Both are of the same requests: the server's counters are reset when the client begins to count. Where
//! memtier_benchmark is in PATH it is the client as well.
//!
//! Watching is a sidecar that is asked for its metrics, or its page, once a second: CPU time of both programs, less what
//! they take when nobody asks. What measuring costs each request is counted in instructions (`instructions --price`).
//!
//! Not here: latencies of a server that is busy (`time`).

use crate::draw::Items;
use crate::load::{Generator, Load, Until};
use crate::pair::Primary;
use crate::report::{Row, Table};
use crate::server::{Process, Program, SERVER_CPU, Server, free_address};
use crate::{Scale, progress};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The columns of the first table.
const CLIENT: &str = "client";
const SERVER: &str = "stats latency";

/// Name of a quantile, as `stats latency` and memtier_benchmark have it, and the quantile.
const QUANTILES: [(&str, &str, &str, f64); 3] =
    [("p50", "p50_us", "p50.00", 0.5), ("p99", "p99_us", "p99.00", 0.99), ("p99.9", "p999_us", "p99.90", 0.999)];

/// What is done to the server: title, connections, gets at once on each, share of what the server can take if by the clock.
const LOADS: &[(&str, usize, usize, Option<f64>)] = &[
    ("one connection, one get at a time", 1, 1, None),
    ("50 connections at a quarter of the rate they could have", 50, 1, Some(0.25)),
    ("50 connections, one get at a time", 50, 1, None),
    ("50 connections, 16 gets at a time", 50, 16, None),
];

/// Times that what is watched is measured, and how long each.
const WATCHES: usize = 3;
const WATCH: Duration = Duration::from_secs(5);

/// The pages that are asked for: what for, and where.
const PAGES: [(&str, Option<&str>); 3] =
    [("nobody asks", None), ("/metrics each second", Some("/metrics")), ("a status page is open", Some("/status"))];

/// Latency, from both sides.
pub fn latency(scale: &Scale, program: &Program) -> Result<Table, String> {
    let mut table = Table::new("latency", "Gets, from both sides", &[CLIENT.into(), SERVER.into()]);
    let items = Items::plain(scale.keys, 100);
    let server = program.start(&["-m", "1024"])?;
    let gets = Load::gets(server.address, items);
    let mut generator = Generator::connect(gets.clone())?;
    generator.fill()?;
    server.settle();
    generator.run(Until::Seconds(scale.warmup))?;
    let most = generator.run(Until::Seconds(scale.seconds))?.rate();
    for &(title, connections, pipeline, share) in LOADS.iter().filter(|load| load.0.contains(&scale.only)) {
        progress(&format!("latency: {title}"));
        let load = Load { connections, pipeline, rate: share.map(|share| share * most), ..gets.clone() };
        table.rows.extend(both_sides(scale, &server, title, load)?);
    }
    match by_memtier(scale, &server) {
        Some(rows) => table.rows.extend(rows?),
        None => progress("latency: memtier_benchmark is not installed, left out"),
    }
    Ok(table)
}

/// A row for each quantile; the last says what lies between the two.
fn both_sides(scale: &Scale, server: &Server, title: &str, load: Load) -> Result<Vec<Row>, String> {
    let mut rows = QUANTILES.map(|(name, ..)| Row::new(format!("{name}, {title}"), "us", ""));
    let (mut late, mut waited, mut rate) = (Row::new("", "", ""), Row::new("", "", ""), Row::new("", "", ""));
    let queue = match load.connections * load.pipeline {
        1 => String::new(),
        all => format!(", the wait in the socket while the worker is at others of up to {all} requests"),
    };
    let mut generator = Generator::connect(load)?;
    for _ in 0..scale.rounds {
        generator.run(Until::Seconds(scale.warmup))?;
        server.reset();
        let tally = generator.run(Until::Seconds(scale.seconds))?;
        let told = server.stats("latency");
        for (row, (.., of_server, _, quantile)) in rows.iter_mut().zip(QUANTILES) {
            row.add(CLIENT, tally.quantile_us(quantile));
            told.get(&format!("get:{of_server}"))
                .and_then(|us| us.parse().ok())
                .into_iter()
                .for_each(|us| row.add(SERVER, us));
        }
        rate.add("", tally.rate());
        late.add("", tally.late_us(0.99));
        waited.add("", server.waited().as_secs_f64() / tally.seconds * 100.0);
    }
    let of = |row: &Row, column: &str| row.median(column).unwrap_or(f64::NAN);
    let [.., middle, _] = &rows;
    let between = of(middle, CLIENT) - of(middle, SERVER);
    rows[2].note = format!(
        "{:.0} gets/s; {between:.0} us of the client's p99 are not the server's: the way through both kernels{queue}, and the \
         wait of the answer until the client reads it. The client itself was late by {:.0} us (p99). The worker waited for \
         its CPU for {:.1} % of the time, of which it sees what falls between a read and a write.",
        of(&rate, ""),
        of(&late, ""),
        of(&waited, ""),
    );
    Ok(rows.into())
}

/// The same with memtier_benchmark as the client; None where there is none.
fn by_memtier(scale: &Scale, server: &Server) -> Option<Result<Vec<Row>, String>> {
    let there = Command::new("memtier_benchmark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    there.ok().filter(|status| status.success())?;
    progress("latency: memtier_benchmark");
    Some(run_memtier(scale, server))
}

fn run_memtier(scale: &Scale, server: &Server) -> Result<Vec<Row>, String> {
    let file = std::env::temp_dir().join(format!("twincache-memtier-{}.json", std::process::id()));
    let mut memtier = Command::new("memtier_benchmark");
    memtier.args(["-s", "127.0.0.1", "-p", &server.address.port().to_string(), "-P", "memcache_text", "-t", "1"]);
    memtier.args(["-c", "50", "-d", "100", "--ratio", "1:19", "--hide-histogram", "--print-percentiles", "50,99,99.9"]);
    memtier.args(["--test-time", &scale.seconds.ceil().to_string()]).arg("--json-out-file").arg(&file);
    server.reset();
    let status = memtier.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    // It may have written nothing.
    let _ = std::fs::remove_file(&file);
    let told = server.stats("latency");
    let result: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("memtier_benchmark: {status:?}, its JSON: {error}"))?;
    let gets = &result["ALL STATS"]["Gets"]["Percentile Latencies"];
    let row = |(name, of_server, of_memtier, _): (&str, &str, &str, f64)| {
        let mut row = Row::new(format!("{name}, memtier_benchmark, 50 connections, 95 % get"), "us", "");
        let ms = gets[of_memtier].as_f64().ok_or_else(|| format!("memtier_benchmark tells no {of_memtier}: {gets}"))?;
        row.add(CLIENT, ms * 1000.0);
        told.get(&format!("get:{of_server}"))
            .and_then(|us| us.parse().ok())
            .into_iter()
            .for_each(|us| row.add(SERVER, us));
        Ok(row)
    };
    QUANTILES.into_iter().map(row).collect()
}

/// What it costs to be watched.
pub fn watched(scale: &Scale, program: &Program) -> Result<Table, String> {
    let names = ["twincached".to_string(), "sidecar".to_string()];
    let mut table = Table::new("watched", "CPU time in a second of being watched", &names);
    let primary = Primary::start(program, SERVER_CPU)?;
    Generator::connect(Load::gets(primary.server.address, Items::plain(scale.keys, 100)))?.fill()?;
    primary.server.settle();
    let http = free_address()?;
    let sidecar = primary.show(program, http)?;
    table.rows = PAGES.iter().map(|(title, _)| Row::new(*title, "us", "")).collect();
    for watch in 0..WATCHES {
        for (row, (title, page)) in table.rows.iter_mut().zip(PAGES) {
            progress(&format!("price: {title}, {} of {WATCHES}", watch + 1));
            let cpu = |sidecar: &Process| [primary.server.cpu_ns(), sidecar.cpu_ns()];
            let before = cpu(&sidecar);
            let end = Instant::now() + WATCH;
            while Instant::now() < end {
                if let Some(page) = page {
                    fetch(http, page)?;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
            for ((name, before), after) in names.iter().zip(before).zip(cpu(&sidecar)) {
                row.add(name, (after - before) as f64 / 1000.0 / WATCH.as_secs_f64());
            }
        }
    }
    table.rows[0].note =
        "10,000 us are 1 % of a CPU. The sidecar keeps its hour of history whether or not anybody asks.".into();
    Ok(table)
}

/// Takes a page.
fn fetch(at: SocketAddr, page: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("http://{at}{page}: {error}");
    let mut stream = TcpStream::connect(at).map_err(failed)?;
    stream.write_all(format!("GET {page} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).map_err(failed)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(failed)?;
    if text.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(format!("http://{at}{page}: {text}")) }
}
