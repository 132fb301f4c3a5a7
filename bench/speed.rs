//! What a request costs: CPU time of the server, by the scheduler's accounting of its threads.
//!
//! All servers run at once, filled and settled, on the same CPU, and get short slices of load in turn: what the
//! machine's other users do falls on all alike. A server that waits costs nothing meanwhile; wall time is not looked
//! at.
//!
//! A floor answers from one buffer that stays in the cache; for gets of large values there is a cold one beside it,
//! which sends from all over as much memory as the others hold. What lies between the two is the memory's share.
//!
//! Not here: what takes time rather than work (`time`).

use crate::draw::{Items, Sizes};
use crate::load::{Generator, Load, Protocol, Tally, Until};
use crate::report::{FLOORS, Row, Table};
use crate::server::{Program, Server};
use crate::{Scale, progress};

/// Memory of the servers, in megabytes: nothing is to be evicted.
const MEMORY: &str = "2048";

/// Largest item, so that values of 1 MiB have room.
const LARGEST: &str = "2m";

/// Share of gets that must find their key for a measurement to count.
const HITS_MIN: f64 = 0.9999;

/// Slices of load that a round's seconds are cut into.
const SLICES: usize = 6;

/// Least values for which there is a cold floor.
const COLD_MIN: usize = 10 << 10;

/// Numbers of the keys of different value lengths are this far apart.
const KEYS_APART: u64 = 1_000_000_000;

/// One workload.
struct Workload {
    title: &'static str,
    asked: &'static str,
    protocol: Protocol,
    pipeline: usize,
    multiget: usize,
    get_percent: u64,
    /// Bytes of a value.
    value: usize,
}

const fn text(title: &'static str, get_percent: u64, pipeline: usize, value: usize, asked: &'static str) -> Workload {
    Workload { title, asked, protocol: Protocol::Text, pipeline, multiget: 1, get_percent, value }
}

const fn other(title: &'static str, protocol: Protocol) -> Workload {
    Workload { title, asked: "", protocol, pipeline: 16, multiget: 1, get_percent: 95, value: 100 }
}

/// In the order in which they are run: those of equal values stand together.
const WORKLOADS: &[Workload] = &[
    text("95 % get, one in flight", 95, 1, 100, "<= 1.05 floor, <= 0.88 memcached"),
    text("95 % get, 16 pipelined", 95, 16, 100, "<= 1.5 floor, <= 0.50 memcached"),
    text("set, one in flight", 0, 1, 100, "<= 1.08 floor"),
    text("set, 16 pipelined", 0, 16, 100, "<= 1.7 floor, <= 0.45 memcached"),
    Workload {
        multiget: 100,
        get_percent: 100,
        ..text("multiget of 100 keys, per key", 100, 1, 100, "<= 0.50 memcached")
    },
    other("meta, 95 % get, 16 pipelined", Protocol::Meta),
    other("binary, 95 % get, 16 pipelined", Protocol::Binary),
    text("get of 10 KiB", 100, 1, 10 << 10, "<= 1.05 floor"),
    text("get of 100 KiB", 100, 1, 100 << 10, "<= 0.95 memcached"),
    text("set of 100 KiB", 0, 1, 100 << 10, "<= 0.95 memcached"),
    text("get of 1 MiB", 100, 1, 1 << 20, "<= 0.95 memcached"),
    text("set of 1 MiB", 0, 1, 1 << 20, "<= 0.95 memcached"),
];

impl Workload {
    fn items(&self, scale: &Scale) -> Items {
        let count = match self.value {
            ..1024 => scale.keys,
            10_240 => scale.keys / 100,
            102_400 => 1000,
            _ => 100,
        };
        Items { first: self.value as u64 * KEYS_APART, sizes: Sizes::Fixed(self.value), ..Items::plain(count, 0) }
    }

    fn load(&self, scale: &Scale, server: &Server) -> Load {
        Load {
            protocol: self.protocol,
            pipeline: self.pipeline,
            multiget: self.multiget,
            get_percent: self.get_percent,
            ..Load::gets(server.address, self.items(scale))
        }
    }

    /// Whether this server can take it. Small values are copied wherever they lie: no floor is cold for them.
    fn suits(&self, server: &str) -> bool {
        match server {
            _ if server == FLOORS[0] => self.protocol == Protocol::Text,
            _ if server == FLOORS[1] => self.value >= COLD_MIN && self.get_percent == 100,
            _ => true,
        }
    }
}

/// The first table.
pub fn run(scale: &Scale, twincached: &Program, memcached: &Program) -> Result<Table, String> {
    let [floor, cold] = FLOORS.map(Program::floor);
    let programs = [twincached.clone(), memcached.clone(), floor?, cold?];
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let mut table = Table::new("speed", "Server CPU, nanoseconds per request", &names);
    let wanted: Vec<&Workload> = WORKLOADS.iter().filter(|workload| workload.title.contains(&scale.only)).collect();
    for equal in wanted.chunk_by(|one, other| one.value == other.value) {
        progress(&format!("speed: values of {} bytes, filling", equal[0].value));
        let servers = programs.iter().map(|program| filled(scale, program, equal[0]));
        let servers: Vec<Server> = servers.collect::<Result<_, _>>()?;
        for workload in equal {
            progress(&format!("speed: {}", workload.title));
            table.rows.push(measure(scale, workload, &names, &servers)?);
        }
    }
    Ok(table)
}

fn filled(scale: &Scale, program: &Program, workload: &Workload) -> Result<Server, String> {
    let value = workload.value.to_string();
    if program.name == FLOORS[0] {
        return program.start(&["--values", &value]);
    }
    if program.name == FLOORS[1] {
        let all = if workload.value < COLD_MIN { 0 } else { workload.items(scale).count * workload.value as u64 };
        return program.start(&["--values", &value, "--cold", &all.to_string()]);
    }
    let server = program.start(&["-m", MEMORY, "-I", LARGEST, "-c", "1024"])?;
    Generator::connect(workload.load(scale, &server))?.fill()?;
    server.settle();
    Ok(server)
}

fn measure(scale: &Scale, workload: &Workload, names: &[String], servers: &[Server]) -> Result<Row, String> {
    let mut row = Row::new(workload.title, "ns", workload.asked);
    let mut loads = Vec::new();
    for (name, server) in names.iter().zip(servers) {
        if workload.suits(name) {
            let mut generator = Generator::connect(workload.load(scale, server))?;
            generator.run(Until::Seconds(scale.warmup))?;
            loads.push((name, server, generator));
        }
    }
    for _ in 0..scale.rounds * SLICES {
        for (name, server, generator) in &mut loads {
            let (ns, tally) = slice(server, generator, scale.seconds / SLICES as f64)?;
            row.add(name, ns);
            if tally.hit_ratio() < HITS_MIN && workload.get_percent > 0 {
                row.note = format!("{name} found only {:.4} of the keys", tally.hit_ratio());
            }
        }
        // Who is first in a round is last in the next.
        loads.rotate_left(1);
    }
    Ok(row)
}

/// Server CPU per key in nanoseconds, and what else was seen.
fn slice(server: &Server, generator: &mut Generator, seconds: f64) -> Result<(f64, Tally), String> {
    let before = server.cpu_ns();
    let tally = generator.run(Until::Seconds(seconds))?;
    let spent = server.cpu_ns() - before;
    // A set has one key, a get of several has several answers.
    let keys = (tally.hits + tally.misses).max(tally.requests).max(1);
    Ok((spent as f64 / keys as f64, tally))
}

/// Server CPU per key in nanoseconds, and what else was seen.
pub fn cost(scale: &Scale, server: &Server, load: Load) -> Result<(f64, Tally), String> {
    let mut generator = Generator::connect(load)?;
    generator.run(Until::Seconds(scale.warmup))?;
    slice(server, &mut generator, scale.seconds)
}
