//! What a second copy costs, and how far behind it is.
//!
//! ```text
//! load, CPU 1 ──> primary, CPU 0 ── control socket ──> sidecar, CPU 1 ──> peer, CPU 1        cost
//! load, primary, sidecar and peer wherever the scheduler puts them         lag, walk, pauses, acknowledged sets
//! ```
//!
//! What is compared is measured in turn, in many short windows on servers that stay up, since the machine's own ups and
//! downs are larger than what is asked: A B C, C B A, …. A row is the median of its windows, a ratio that of the ratios
//! of windows that follow each other. Below the table stand the middle half of the windows, and "doubtful" where what
//! is asked lies within it: that row says nothing either way, and wants a quieter machine.
//!
//! The primary's CPU time is that of all its threads, the one that serves the control socket included.
//!
//! What a walk does to clients (`pauses`) is what the primary and its sidecar do to them. The standby and the clients
//! belong on other machines, and here all of them share two CPUs: so the standby runs at nice 19, with what the others
//! leave, and the load naps between its requests, where elsewhere it spins. Both are so in the windows without a walk,
//! too. How fast a walk can be is measured apart, with nobody else on the machine.
//!
//! Not here: whether the copy is one: `tests/replication`.

use crate::draw::Items;
use crate::load::{Generator, Load, Until};
use crate::pair::{MEMORY, Primary};
use crate::report::{Row, Table};
use crate::server::{Process, Program, Server, Session};
use crate::{Scale, progress};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Lets the sidecar feed a peer.
const FED: &str = "standby=127.0.0.1";

/// The column of everything measured here.
const MEASURED: &str = "twincached";

/// Sets a second while their cost and the lag are measured.
const COST_RATE: f64 = 100_000.0;
const LAG_RATE: f64 = 50_000.0;

/// Gets a second while a walk is on: few enough for the load to nap between them.
const WALK_RATE: f64 = 10_000.0;

/// Items of a walk.
const WALK_ITEMS: u64 = 2_000_000;

/// Seconds of a window, and of what goes before it, unmeasured.
const COST_WINDOW: f64 = 0.8;
const LAG_WINDOW: f64 = 1.5;
const WALK_WINDOW: f64 = 0.8;
const ACK_WINDOW: f64 = 0.8;
const BEFORE: f64 = 0.1;

/// Sets of 100 bytes that run through the ring twice.
const RING_FULL: u64 = 1_000_000;

/// Between two samples of the lag, and between two looks for one: a twentieth of what is asked.
const SAMPLE_EVERY: Duration = Duration::from_millis(4);
const LOOK_EVERY: Duration = Duration::from_micros(250);

/// What is asked of a row.
#[derive(Clone, Copy)]
enum Asked {
    Nothing,
    AtMost(f64),
    AtLeast(f64),
    /// 1, but for noise.
    One,
}

/// The rows.
const ROWS: &[(&str, &str, Asked)] = &[
    ("set, 16 pipelined, no control socket", "ns", Asked::Nothing),
    ("set, 16 pipelined, nobody attached", "ns", Asked::Nothing),
    ("set, 16 pipelined, one attached", "ns", Asked::Nothing),
    ("of that, the control socket's thread", "ns", Asked::Nothing),
    ("the sidecar's CPU for a set", "ns", Asked::Nothing),
    ("nobody attached, of no control socket", "x", Asked::One),
    ("one attached, of nobody attached", "x", Asked::AtMost(1.15)),
    ("memory that the primary grew by, ring full", "MiB", Asked::AtMost(64.0 + 16.0)),
    ("lag at 50,000 sets a second, p50", "ms", Asked::Nothing),
    ("lag at 50,000 sets a second, p99", "ms", Asked::AtMost(10.0)),
    ("sets a second meanwhile", "1/s", Asked::Nothing),
    ("full walk of 2 M items", "items/s", Asked::AtLeast(500_000.0)),
    ("memory that the primary grew by in a walk", "MiB", Asked::AtMost(64.0 + 16.0)),
    ("p99 of 10,000 gets a second, idle", "us", Asked::Nothing),
    ("p99 of the same during a walk", "us", Asked::Nothing),
    ("during a walk, of idle", "x", Asked::AtMost(2.0)),
    ("items a second of that walk", "items/s", Asked::Nothing),
    ("sets a second, 50 connections, replicated", "1/s", Asked::Nothing),
    ("the same, acknowledged", "1/s", Asked::Nothing),
    ("acknowledged, of replicated", "x", Asked::AtLeast(0.6)),
    ("p99 of acknowledged sets", "us", Asked::Nothing),
];

type Part = fn(&Scale, &Program, &mut Windows) -> Result<(), String>;

/// What is measured together, and the number of its first row.
const PARTS: &[(&str, usize, Part)] = &[
    ("cost", 0, costs),
    ("lag", 8, lag),
    ("walk", 11, walk),
    ("pauses", 13, pauses),
    ("acknowledged sets", 17, acknowledged),
];

/// The fourth table.
pub fn run(scale: &Scale, twincached: &Program) -> Result<Table, String> {
    let mut windows = Windows(Vec::new());
    for (number, &(name, first, part)) in PARTS.iter().enumerate() {
        let last = PARTS.get(number + 1).map_or(ROWS.len(), |next| next.1);
        if ROWS[first..last].iter().any(|row| row.0.contains(&scale.only)) {
            progress(&format!("replication: {name}"));
            part(scale, twincached, &mut windows)?;
        }
    }
    let mut table = Table::new("replication", "A second copy", &[MEASURED.into()]);
    let asked_for = windows.0.into_iter().filter(|row| row.title.contains(&scale.only));
    table.rows.extend(asked_for.map(judged));
    table.rows.sort_by_key(|row| ROWS.iter().position(|known| known.0 == row.title));
    Ok(table)
}

/// What was measured so far.
struct Windows(Vec<Row>);

impl Windows {
    /// Adds what a window has shown.
    fn add(&mut self, title: &str, value: f64) {
        if !self.0.iter().any(|row| row.title == title) {
            let (_, unit, _) = known(title);
            self.0.push(Row::new(title, unit, ""));
        }
        let row = self.0.iter_mut().find(|row| row.title == title).expect("just made");
        row.add(MEASURED, value);
    }
}

fn known(title: &str) -> (&'static str, &'static str, Asked) {
    *ROWS.iter().find(|row| row.0 == title).expect("a row of the table")
}

/// Says how far its windows lie apart, and whether what was asked is met.
fn judged(mut row: Row) -> Row {
    let mut values = row.values[MEASURED].clone();
    values.sort_by(f64::total_cmp);
    let (middle, last) = (row.median(MEASURED).unwrap_or(f64::NAN), values.len() - 1);
    let (low, high) = (values[(last + 1) / 4], values[last - (last + 1) / 4]);
    row.note = format!("{} window(s), the middle half {} to {}", values.len(), shown(low), shown(high));
    let (text, bound, is_met) = match known(&row.title).2 {
        Asked::Nothing => return row,
        Asked::AtMost(most) => (format!("<= {most}"), most, middle <= most),
        Asked::AtLeast(least) => (format!(">= {least}"), least, middle >= least),
        Asked::One => {
            let is_noise = low <= 1.0 && 1.0 <= high;
            row.asked = format!("1, within noise: {}", if is_noise { "met" } else { "not met" });
            return row;
        }
    };
    let is_doubtful = low < bound && bound < high;
    let said = if is_met { "met" } else { "not met" };
    row.asked = if is_doubtful { format!("{text}: doubtful") } else { format!("{text}: {said}") };
    row
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

fn sets(server: &Server, items: Items) -> Load {
    Load { get_percent: 0, ..Load::gets(server.address, items) }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

fn costs(scale: &Scale, program: &Program, windows: &mut Windows) -> Result<(), String> {
    let items = Items::plain(scale.keys, 100);
    let plain = program.start_on("0", &["-m", MEMORY])?;
    let (idle, primary) = (Primary::start(program, "0")?, Primary::start(program, "0")?);
    let mut loads = Vec::new();
    for server in [&plain, &idle.server, &primary.server] {
        let load = Load { pipeline: 16, rate: Some(COST_RATE), ..sets(server, items) };
        Generator::connect(Load { rate: None, ..load.clone() })?.fill()?;
        server.settle();
        loads.push((server, Generator::connect(load)?));
    }
    let before = primary.server.rss();
    let peer = program.start_on("1", &["-m", MEMORY, "-o", FED])?;
    let sidecar = primary.replicate(program, "1", &peer)?;
    primary.wait()?;
    for round in 0..2 * scale.rounds {
        let mut spent = [0.0; 3];
        for place in 0..3 {
            let which = if round % 2 == 0 { place } else { 2 - place };
            let (server, generator) = &mut loads[which];
            generator.run(Until::Seconds(BEFORE))?;
            let begin = (server.cpu_ns(), server.thread_ns("control"), sidecar.cpu_ns());
            let requests = generator.run(Until::Seconds(COST_WINDOW))?.requests as f64;
            let each = |end: u64, begin: u64| (end - begin) as f64 / requests;
            spent[which] = each(server.cpu_ns(), begin.0);
            if which == 2 {
                windows.add(ROWS[3].0, each(server.thread_ns("control"), begin.1));
                windows.add(ROWS[4].0, each(sidecar.cpu_ns(), begin.2));
            }
        }
        (0..3).for_each(|which| windows.add(ROWS[which].0, spent[which]));
        windows.add(ROWS[5].0, spent[1] / spent[0]);
        windows.add(ROWS[6].0, spent[2] / spent[1]);
    }
    let overtaken = primary.server.stats("replication").get("0:overtaken").cloned().unwrap_or_default();
    progress(&format!("overtaken {overtaken} times while the cost was taken"));
    // More than the ring holds, while nobody reads it.
    sidecar.stop()?;
    let mut generator = Generator::connect(sets(&primary.server, items))?;
    for _ in 0..(RING_FULL / scale.keys).max(1) {
        generator.fill()?;
    }
    windows.add(ROWS[7].0, mib(primary.server.rss().saturating_sub(before)));
    Ok(())
}

fn lag(scale: &Scale, program: &Program, windows: &mut Windows) -> Result<(), String> {
    let items = Items::plain(scale.keys, 100);
    let primary = Primary::start(program, "0,1")?;
    let peer = program.start_on("0,1", &["-m", MEMORY, "-o", FED])?;
    let _sidecar = primary.replicate(program, "0,1", &peer)?;
    primary.wait()?;
    let mut generator = Generator::connect(Load { rate: Some(LAG_RATE), ..sets(&primary.server, items) })?;
    generator.run(Until::Seconds(LAG_WINDOW))?;
    for _ in 0..scale.rounds {
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, addresses) = (over.clone(), (primary.server.address, peer.address));
        let sampler = std::thread::spawn(move || samples(addresses, &is_over));
        let tally = generator.run(Until::Seconds(LAG_WINDOW))?;
        over.store(true, Ordering::Relaxed);
        let mut lags = sampler.join().map_err(|_| "the sampler failed")??;
        lags.sort_unstable();
        let quantile = |q: f64| lags[((lags.len() - 1) as f64 * q) as usize].as_secs_f64() * 1000.0;
        windows.add(ROWS[8].0, quantile(0.5));
        windows.add(ROWS[9].0, quantile(0.99));
        windows.add(ROWS[10].0, tally.rate());
    }
    Ok(())
}

/// From the answer to a set until the peer has it, again and again; at least once.
fn samples(
    (primary, peer): (std::net::SocketAddr, std::net::SocketAddr),
    over: &AtomicBool,
) -> Result<Vec<Duration>, String> {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    let (mut near, mut far) = (Session::open(primary)?, Session::open(peer)?);
    let mut lags = vec![];
    while lags.is_empty() || !over.load(Ordering::Relaxed) {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        near.ask(&format!("ms lag 20\r\n{number:020}"))?;
        let begin = Instant::now();
        // The sum of a number and nothing is the number.
        while far.ask("incr lag 0")?[0].parse::<u64>().unwrap_or(0) < number {
            std::thread::sleep(LOOK_EVERY);
        }
        lags.push(begin.elapsed());
        std::thread::sleep(SAMPLE_EVERY);
    }
    Ok(lags)
}

/// A primary with all items of a walk.
fn filled(program: &Program) -> Result<(Primary, Items), String> {
    let items = Items::plain(WALK_ITEMS, 100);
    let primary = Primary::start(program, "0,1")?;
    Generator::connect(sets(&primary.server, items))?.fill()?;
    primary.server.settle();
    Ok((primary, items))
}

fn walk(scale: &Scale, program: &Program, windows: &mut Windows) -> Result<(), String> {
    let (primary, _) = filled(program)?;
    let before = primary.server.rss();
    for _ in 0..scale.rounds {
        let peer = program.start_on("0,1", &["-m", MEMORY, "-o", FED])?;
        let _sidecar = primary.replicate(program, "0,1", &peer)?;
        primary.wait_for("walking")?;
        let begin = Instant::now();
        primary.wait()?;
        windows.add(ROWS[11].0, WALK_ITEMS as f64 / begin.elapsed().as_secs_f64());
        windows.add(ROWS[12].0, mib(primary.server.rss().saturating_sub(before)));
    }
    Ok(())
}

fn pauses(scale: &Scale, program: &Program, windows: &mut Windows) -> Result<(), String> {
    let (primary, items) = filled(program)?;
    let gets = Load { rate: Some(WALK_RATE), naps: true, ..Load::gets(primary.server.address, items) };
    let mut generator = Generator::connect(gets)?;
    let mut observe = |seconds| Ok::<_, String>(generator.run(Until::Seconds(seconds))?.quantile_us(0.99));
    observe(BEFORE)?;
    for _ in 0..scale.rounds + 2 {
        let peer = program.clone().nice().start_on("0,1", &["-m", MEMORY, "-o", FED])?;
        let idle = observe(WALK_WINDOW)?;
        let _sidecar: Process = primary.replicate(program, "0,1", &peer)?;
        primary.wait_for("walking")?;
        let (begin, held) = (Instant::now(), peer.items());
        let busy = observe(WALK_WINDOW)?;
        let (seconds, walked) = (begin.elapsed().as_secs_f64(), peer.items() - held);
        if primary.state().as_deref() != Some("walking") {
            progress("the walk was over before its window: its p99 is left out");
            continue;
        }
        windows.add(ROWS[13].0, idle);
        windows.add(ROWS[14].0, busy);
        windows.add(ROWS[15].0, busy / idle);
        windows.add(ROWS[16].0, walked as f64 / seconds);
    }
    Ok(())
}

fn acknowledged(scale: &Scale, program: &Program, windows: &mut Windows) -> Result<(), String> {
    let items = Items::plain(scale.keys, 100);
    let primary = Primary::start(program, "0,1")?;
    let peer = program.start_on("0,1", &["-m", MEMORY, "-o", FED])?;
    let _sidecar = primary.replicate(program, "0,1", &peer)?;
    primary.wait()?;
    let mut generator = Generator::connect(sets(&primary.server, items))?;
    generator.fill()?;
    for _ in 0..2 * scale.rounds {
        let mut observe = |replicas: &str| {
            primary.wait()?;
            primary.tell(replicas)?;
            generator.run(Until::Seconds(BEFORE))?;
            generator.run(Until::Seconds(ACK_WINDOW))
        };
        let (free, held) = (observe("replicas_ack 0")?, observe("replicas_ack 1")?);
        windows.add(ROWS[17].0, free.rate());
        windows.add(ROWS[18].0, held.rate());
        windows.add(ROWS[19].0, held.rate() / free.rate());
        windows.add(ROWS[20].0, held.quantile_us(0.99));
    }
    Ok(())
}
