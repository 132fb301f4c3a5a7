//! What a second copy costs, and how far behind it is.
//!
//! ```text
//! load ──> primary, CPU 0 ── control socket ──> sidecar, CPU 1 ──> peer, CPU 1        cost
//! load, primary, sidecar and peer wherever the scheduler puts them                    lag, walk, acknowledged sets
//! ```
//!
//! The primary's CPU time is that of all its threads, the one that serves the control socket included.
//!
//! What a walk does to clients is measured in [`WALK_WINDOWS`] pairs of windows, one without a walk and then one within
//! a walk to a new peer, each with gets at a rate that all four processes can bear; the table has the median of each
//! window's p99, and of the ratio of each pair. A window that outlasted its walk is left out.
//!
//! Not here: whether the copy is one: `tests/replication`.

use crate::draw::Items;
use crate::load::{Generator, Load, Tally, Until};
use crate::report::{Row, Table};
use crate::server::{Process, Program, Server, Session};
use crate::speed::cost;
use crate::{Scale, progress};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MEMORY: &str = "4096";

/// The column of everything measured here.
const MEASURED: &str = "twincached";

/// Sets a second while their cost and the lag are measured.
const COST_RATE: f64 = 100_000.0;
const LAG_RATE: f64 = 50_000.0;

/// Gets a second while a walk is on.
const WALK_RATE: f64 = 20_000.0;

/// Items of a walk.
const WALK_ITEMS: u64 = 2_000_000;

/// Windows without a walk, and with one, in turn, and seconds of each: less than half of what a walk takes.
const WALK_WINDOWS: usize = 5;
const WALK_WINDOW: f64 = 1.0;

/// Longest wait for a copy to be whole.
const WHOLE_MAX: Duration = Duration::from_secs(120);

/// Between two samples of the lag.
const SAMPLE_EVERY: Duration = Duration::from_millis(4);

/// The fourth table.
pub fn run(scale: &Scale, twincached: &Program) -> Result<Table, String> {
    let mut table = Table::new("replication", "A second copy", &[MEASURED.into()]);
    for round in 0..scale.time_rounds {
        progress(&format!("replication, round {} of {}: cost", round + 1, scale.time_rounds));
        costs(scale, twincached, &mut table)?;
        progress(&format!("replication, round {} of {}: lag", round + 1, scale.time_rounds));
        lag(scale, twincached, &mut table)?;
        progress(&format!("replication, round {} of {}: walk", round + 1, scale.time_rounds));
        walk(twincached, &mut table)?;
        progress(&format!("replication, round {} of {}: acknowledged sets", round + 1, scale.time_rounds));
        acknowledged(scale, twincached, &mut table)?;
    }
    Ok(table)
}

fn add(table: &mut Table, title: &str, unit: &'static str, asked: &str, value: f64) {
    if !table.rows.iter().any(|row| row.title == title) {
        table.rows.push(Row::new(title, unit, asked));
    }
    let row = table.rows.iter_mut().find(|row| row.title == title).expect("just made");
    row.add(MEASURED, value);
}

fn load(server: &Server, items: Items) -> Load {
    Load { get_percent: 0, ..Load::gets(server.address, items) }
}

/// A primary with a control socket, and what replicates it.
struct Primary {
    server: Server,
    socket: PathBuf,
}

impl Primary {
    fn start(program: &Program, cpus: &str, extra: &[&str]) -> Result<Primary, String> {
        let socket = std::env::temp_dir().join(format!("twincache-bench-{}.control", std::process::id()));
        let control = format!("control_socket={}", socket.display());
        let arguments = [&["-m", MEMORY, "-o", control.as_str()], extra].concat();
        Ok(Primary { server: program.start_on(cpus, &arguments)?, socket })
    }

    fn replicate(&self, program: &Program, cpus: &str, peer: &Server) -> Result<Process, String> {
        let (server, peer) = (format!("unix:{}", self.socket.display()), peer.address.to_string());
        program.sidecar(cpus, &["--server", &server, "--peer", &peer])
    }

    /// Waits until the copy is whole and confirmed.
    fn wait(&self) -> Result<(), String> {
        let end = Instant::now() + WHOLE_MAX;
        loop {
            let stats = self.server.stats("replication");
            let streams = stats.get("0:state").is_some_and(|state| state == "streaming");
            if streams && stats.get("0:acked_lsn") == stats.get("lsn") {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the copy does not become whole: {stats:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// How its only consumer stands.
    fn state(&self) -> Option<String> {
        self.server.stats("replication").get("0:state").cloned()
    }

    fn wait_for(&self, state: &str) -> Result<(), String> {
        let end = Instant::now() + WHOLE_MAX;
        while self.state().as_deref() != Some(state) {
            if Instant::now() > end {
                return Err(format!("the consumer is never {state}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn tell(&self, line: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.socket.display());
        let mut stream = UnixStream::connect(Path::new(&self.socket)).map_err(failed)?;
        stream.write_all(format!("{line}\r\n").as_bytes()).map_err(failed)?;
        for answer in BufReader::new(stream).lines() {
            match answer.map_err(failed)?.as_str() {
                "OK" => return Ok(()),
                "ERROR" => return Err(format!("{line}: refused")),
                _ => {}
            }
        }
        Err(format!("{line}: no answer"))
    }
}

fn costs(scale: &Scale, program: &Program, table: &mut Table) -> Result<(), String> {
    let items = Items::plain(scale.keys, 100);
    let sets = |server: &Server| -> Result<f64, String> {
        let closed = load(server, items);
        Generator::connect(closed.clone())?.fill()?;
        Ok(cost(scale, server, Load { pipeline: 16, rate: Some(COST_RATE), ..closed })?.0)
    };
    let plain = sets(&program.start_on("0", &["-m", MEMORY])?)?;
    let (idle, attached) = {
        let primary = Primary::start(program, "0", &[])?;
        let idle = sets(&primary.server)?;
        let peer = program.start_on("1", &["-m", MEMORY])?;
        let _sidecar = primary.replicate(program, "1", &peer)?;
        primary.wait()?;
        let attached = sets(&primary.server)?;
        let overtaken = primary.server.stats("replication").get("0:overtaken").cloned().unwrap_or_default();
        progress(&format!("overtaken {overtaken} times while the cost was taken"));
        (idle, attached)
    };
    add(table, "set, 16 pipelined, no control socket", "ns", "", plain);
    add(table, "set, 16 pipelined, nobody attached", "ns", "as without", idle);
    add(table, "set, 16 pipelined, one attached", "ns", "", attached);
    add(table, "nobody attached, of no control socket", "x", "1, within noise", idle / plain);
    add(table, "one attached, of nobody attached", "x", "<= 1.15", attached / idle);
    Ok(())
}

fn lag(scale: &Scale, program: &Program, table: &mut Table) -> Result<(), String> {
    let items = Items::plain(scale.keys, 100);
    let primary = Primary::start(program, "0,1", &[])?;
    let peer = program.start_on("0,1", &["-m", MEMORY])?;
    let _sidecar = primary.replicate(program, "0,1", &peer)?;
    primary.wait()?;
    let over = Arc::new(AtomicBool::new(false));
    let (is_over, addresses) = (over.clone(), (primary.server.address, peer.address));
    let sampler = std::thread::spawn(move || samples(addresses, &is_over));
    let mut generator = Generator::connect(Load { rate: Some(LAG_RATE), ..load(&primary.server, items) })?;
    let tally = generator.run(Until::Seconds(scale.time_seconds))?;
    over.store(true, Ordering::Relaxed);
    let mut lags = sampler.join().map_err(|_| "the sampler failed")??;
    lags.sort_unstable();
    let quantile = |q: f64| lags[((lags.len() - 1) as f64 * q) as usize].as_secs_f64() * 1000.0;
    add(table, "lag at 50,000 sets a second, p50", "ms", "", quantile(0.5));
    add(table, "lag at 50,000 sets a second, p99", "ms", "< 10", quantile(0.99));
    add(table, "sets a second meanwhile", "1/s", "50000", tally.rate());
    Ok(())
}

/// From the answer to a set until the peer has it, again and again.
fn samples(
    (primary, peer): (std::net::SocketAddr, std::net::SocketAddr),
    over: &AtomicBool,
) -> Result<Vec<Duration>, String> {
    let (mut near, mut far) = (Session::open(primary)?, Session::open(peer)?);
    let mut lags = vec![];
    for number in 1_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        near.ask(&format!("ms lag 20\r\n{number:020}"))?;
        let begin = Instant::now();
        // The sum of a number and nothing is the number.
        while far.ask("incr lag 0")?[0].parse::<u64>().unwrap_or(0) < number {
            std::thread::yield_now();
        }
        lags.push(begin.elapsed());
        std::thread::sleep(SAMPLE_EVERY);
    }
    Ok(lags)
}

fn walk(program: &Program, table: &mut Table) -> Result<(), String> {
    let items = Items::plain(WALK_ITEMS, 100);
    let primary = Primary::start(program, "0,1", &[])?;
    Generator::connect(load(&primary.server, items))?.fill()?;
    primary.server.settle();
    let gets = Load { rate: Some(WALK_RATE), get_percent: 100, ..load(&primary.server, items) };
    let before = primary.server.rss();

    // Nobody else on the machine.
    let peer = program.start_on("0,1", &["-m", MEMORY])?;
    let begin = Instant::now();
    let sidecar = primary.replicate(program, "0,1", &peer)?;
    primary.wait()?;
    let seconds = begin.elapsed().as_secs_f64();
    add(table, "full walk of 2 M items", "items/s", ">= 500000", WALK_ITEMS as f64 / seconds);
    let grown = primary.server.rss().saturating_sub(before) as f64 / (1 << 20) as f64;
    add(table, "memory that the primary grew by", "MiB", "<= 64 + 16", grown);
    drop((sidecar, peer));

    for _ in 0..WALK_WINDOWS {
        let idle = observe(gets.clone(), WALK_WINDOW)?.quantile_us(0.99);
        let peer = program.start_on("0,1", &["-m", MEMORY])?;
        let _sidecar = primary.replicate(program, "0,1", &peer)?;
        primary.wait_for("walking")?;
        let busy = observe(gets.clone(), WALK_WINDOW)?.quantile_us(0.99);
        if primary.state().as_deref() != Some("walking") {
            progress("the walk was over before its window: its p99 is left out");
            continue;
        }
        add(table, "p99 of 20,000 gets a second, idle", "us", "", idle);
        add(table, "p99 of the same during a walk", "us", "", busy);
        add(table, "during a walk, of idle", "x", "<= 2", busy / idle);
    }
    Ok(())
}

fn observe(load: Load, seconds: f64) -> Result<Tally, String> {
    Generator::connect(load)?.run(Until::Seconds(seconds))
}

fn acknowledged(scale: &Scale, program: &Program, table: &mut Table) -> Result<(), String> {
    let items = Items::plain(scale.keys, 100);
    let primary = Primary::start(program, "0,1", &[])?;
    let peer = program.start_on("0,1", &["-m", MEMORY])?;
    let _sidecar = primary.replicate(program, "0,1", &peer)?;
    primary.wait()?;
    let free = observe(load(&primary.server, items), scale.time_seconds)?.rate();
    primary.wait()?;
    primary.tell("replicas_ack 1")?;
    let held = observe(load(&primary.server, items), scale.time_seconds)?;
    add(table, "sets a second, 50 connections, replicated", "1/s", "", free);
    add(table, "the same, acknowledged", "1/s", "", held.rate());
    add(table, "acknowledged, of replicated", "x", ">= 0.60", held.rate() / free);
    add(table, "p99 of acknowledged sets", "us", "", held.quantile_us(0.99));
    Ok(())
}
