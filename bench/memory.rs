//! What fits: user bytes held, hits of a cache that is too small, and what connections take.
//!
//! The items: keys of 20 to 44 bytes, evenly; values of 20 bytes and an exponential on top, cut at 1500, with a
//! mean of 230. Every server gets the same ones in the same order.
//!
//! Not here: what it costs (`speed`).

use crate::draw::Items;
use crate::load::{Generator, Load, Protocol, Tally, Until};
use crate::report::{Row, Table};
use crate::server::{Program, Server};
use crate::{Scale, progress};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Mean bytes of key and value.
const ITEM_MEAN: u64 = 262;

/// What is written to a full cache, as a multiple of its memory.
const WRITTEN: u64 = 3;

/// Keys of the hit ratio, and the exponent of their popularity.
const HIT_KEYS: u64 = 2_000_000;
const HIT_ZIPF: f64 = 0.9;

/// Gets a second while the hit ratio is taken, so that times to live weigh the same for every server.
const HIT_RATE: f64 = 150_000.0;

/// Idle connections.
const IDLE: usize = 20_000;
/// Descriptors left for everything else.
const IDLE_SPARE: usize = 300;
/// Connections that are opened before the others, so that what the first one brings does not count; and
/// how many are opened at once.
const IDLE_FIRST: usize = 100;

/// The second table.
pub fn run(scale: &Scale, twincached: &Program, memcached: &Program) -> Result<Table, String> {
    let programs = [twincached.clone(), memcached.clone(), memcached.clone().with(&["-f", "1.08"])];
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let idle = IDLE.min(descriptors().saturating_sub(IDLE_SPARE));
    let mut table = Table::new("memory", "Memory", &names);
    table.rows = vec![
        Row::new("user bytes held per byte of -m", "ratio", ">= 0.87"),
        Row::new("user bytes held per byte of RSS", "ratio", ">= 0.80"),
        Row::new("hit ratio, get-then-set, Zipf 0.9", "ratio", ">= 0.74"),
        Row::new(format!("RSS growth of {idle} idle connections"), "MiB", "<= memcached, <= 20"),
    ];
    table.rows[0].note = format!("-m {}, after {WRITTEN} times as much was written", scale.memory);
    table.rows[2].note = format!(
        "{} gets of {HIT_KEYS} keys after as many that are not counted, {HIT_RATE} a second",
        scale.hit_requests
    );
    for program in &programs {
        progress(&format!("memory: bytes held by {}", program.name));
        let held = held(scale, program)?;
        progress(&format!("memory: hit ratio of {}", program.name));
        let hits = hit_ratio(scale, program)?;
        progress(&format!("memory: idle connections of {}", program.name));
        let values = [held.of_limit, held.of_rss, hits.hit_ratio(), idle_growth(program, idle)?];
        table.rows.iter_mut().zip(values).for_each(|(row, value)| row.add(&program.name, value));
        for (at, refused) in [(0, held.refused), (2, hits.refused)] {
            if refused > 0 {
                table.rows[at].note += &format!("; {} refused {refused} sets for want of memory", program.name);
            }
        }
    }
    Ok(table)
}

/// What a full cache holds.
struct Held {
    /// User bytes per byte of `-m`.
    of_limit: f64,
    /// User bytes per byte of RSS.
    of_rss: f64,
    /// Sets that got no memory.
    refused: u64,
}

/// Writes more than fits, and reads what is left of it.
fn held(scale: &Scale, program: &Program) -> Result<Held, String> {
    let memory = scale.memory << 20;
    let server = program.start(&["-m", &scale.memory.to_string()])?;
    let mut generator = Generator::connect(load(&server, Items::spread(memory * WRITTEN / ITEM_MEAN)))?;
    let refused = generator.fill()?.refused;
    server.settle();
    let rss = server.rss();
    stop_page_mover(server.address)?;
    let bytes = generator.read_all()?.hit_bytes as f64;
    Ok(Held { of_limit: bytes / memory as f64, of_rss: bytes / rss as f64, refused })
}

/// To read is not to change what is held: all keys that were evicted last are asked for in a row, just before those that are
/// there, which looks like a load for which pages should move.
fn stop_page_mover(address: SocketAddr) -> Result<(), String> {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"slabs automove 0\r\n")?;
        stream.read_exact(&mut [0; 4])
    };
    ask().map_err(|error: std::io::Error| format!("slabs automove: {error}"))
}

fn load(server: &Server, items: Items) -> Load {
    // Releases of memcached such as 1.6.18 answer each pipelined `get` with a system call, but not each `mg`.
    Load { protocol: Protocol::Meta, pipeline: 16, ..Load::gets(server.address, items) }
}

fn hit_ratio(scale: &Scale, program: &Program) -> Result<Tally, String> {
    let server = program.start(&["-m", &scale.memory.to_string()])?;
    let items = Items { mortal: true, ..Items::spread(HIT_KEYS) };
    let load = Load { zipf: Some(HIT_ZIPF), rate: Some(HIT_RATE), set_on_miss: true, ..load(&server, items) };
    let mut generator = Generator::connect(load)?;
    let seconds = scale.hit_requests as f64 / HIT_RATE;
    let filling = generator.run(Until::Seconds(seconds))?;
    let mut tally = generator.run(Until::Seconds(seconds))?;
    tally.refused += filling.refused;
    Ok(tally)
}

/// MiB that a server grows by when so many connections have asked for one key each, and stay.
fn idle_growth(program: &Program, count: usize) -> Result<f64, String> {
    let server = program.start(&["-m", "64", "-c", &(count + IDLE_FIRST).to_string()])?;
    let first = open_and_ask(server.address, IDLE_FIRST)?;
    let before = server.rss();
    let mut connections = Vec::new();
    while connections.len() < count {
        connections.extend(open_and_ask(server.address, IDLE_FIRST.min(count - connections.len()))?);
    }
    let grown = server.rss().saturating_sub(before);
    drop((first, connections));
    Ok(grown as f64 / f64::from(1 << 20))
}

/// Connections that have had an answer each.
fn open_and_ask(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>, String> {
    let ask = || {
        let mut streams = (0..count).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>()?;
        streams.iter_mut().try_for_each(|stream| stream.write_all(b"get nothing\r\n"))?;
        streams.iter_mut().try_for_each(|stream| stream.read_exact(&mut [0; 5]))?;
        Ok(streams)
    };
    ask().map_err(|error: std::io::Error| format!("idle connections: {error}"))
}

/// Files that this process may open.
fn descriptors() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    crate::server::field(&limits, "Max open files").unwrap_or(1024) as usize
}
