//! Measures what an unmodified client sees when the owner of a shard dies, is cut off or hands over.
//!
//! ```text
//!   host client:  probe (gets or sets, one at a time)        recording clients, whose history is checked
//!                     └────────── 10.77.0.100, which floats ───────┘
//!   host a, b:    twincached and its sidecar                 host e0: etcd
//! ```
//!
//! The hosts, what breaks them and the checks are those of `tests/failover`. Needs root, `ip`, `nft` and `etcd`.
//!
//! Each row says what is asked for (`asked`) and what was seen. Not here: how fast the server is (`compare`).

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/failover/checks.rs"]
mod checks;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/failover/client.rs"]
mod client;
#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/failover/history.rs"]
mod history;
mod probe;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/failover/rig/mod.rs"]
mod rig;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/failover/workload.rs"]
mod workload;

use checks::{Tenure, deposed, stale};
use getopts::Options;
use probe::{Asked, Asks, End, Probe, first_reply, longest_pause};
use rig::{Cluster, Plan, words};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use workload::Work;

/// Items that are there from the beginning.
const ITEMS: u64 = 10_000;

/// Options of servers whose replies wait for the other one.
const ACKNOWLEDGED: &str = "-o replicas_ack=1,ack_timeout=2000";

/// How long a probe runs before and after what it looks at.
const AROUND: Duration = Duration::from_millis(500);

/// A stall of etcd, and how long it runs between two.
const STALL: Duration = Duration::from_millis(200);
const BETWEEN: Duration = Duration::from_millis(800);

/// How often each thing is done.
struct Scale {
    kills: usize,
    gone: usize,
    switchovers: usize,
    stalled: Duration,
    is_loaded: bool,
}

/// A line of the table.
struct Row {
    event: String,
    asked: &'static str,
    measured: String,
    json: Value,
}

/// What is seen beside the times.
#[derive(Default)]
struct Seen {
    faults: usize,
    acknowledged: usize,
    lost: usize,
    deposed: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("failover: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = Options::new();
    options.optopt("", "kills", "kills of the server (200)", "N");
    options.optopt("", "gone", "times the host goes, for each lease (20)", "N");
    options.optopt("", "switchovers", "switchovers (20)", "N");
    options.optflag(
        "",
        "loaded",
        "something else keeps the machine busy: no loops of its own beside the stalling etcd",
    );
    options.optopt("", "stalled", "seconds with a busy machine and an etcd that stalls (120)", "SECONDS");
    options.optflag("", "quick", "few of each: about two minutes");
    options.optopt("", "out", "folder of failover.json (target/bench)", "DIR");
    options.optflag("h", "help", "this text");
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let matches = options.parse(arguments).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        println!("{}", options.usage("Usage: failover [options]"));
        return Ok(());
    }
    let quick = matches.opt_present("quick");
    let number = |name: &str, full: usize, few: usize| {
        let given = matches.opt_get(name).map_err(|_| format!("--{name}: not a number"))?;
        Ok::<usize, String>(given.unwrap_or(if quick { few } else { full }))
    };
    let scale = Scale {
        kills: number("kills", 200, 5)?,
        gone: number("gone", 20, 3)?,
        switchovers: number("switchovers", 20, 3)?,
        stalled: Duration::from_secs(number("stalled", 120, 10)? as u64),
        is_loaded: matches.opt_present("loaded"),
    };
    let (mut rows, mut seen) = (Vec::new(), Seen::default());
    rows.extend(killed(&scale, &mut seen)?);
    for (lease, asked) in [(1000, "1500 ms"), (500, "800 ms")] {
        rows.push(gone(&scale, lease, asked, &mut seen)?);
    }
    for server in ["", ACKNOWLEDGED] {
        rows.extend(switched(&scale, server)?);
    }
    rows.extend(seen.rows());
    rows.push(stalled(&scale)?);
    print(&rows);
    write(&rows, &matches.opt_str("out").unwrap_or("target/bench".into()))
}

fn progress(what: &str) {
    eprintln!(".. {what}");
}

/// A shard with items in it, whose writes are acknowledged.
fn cluster(lease_ms: u64) -> Result<Cluster, String> {
    cluster_with(lease_ms, ACKNOWLEDGED)
}

fn cluster_with(lease_ms: u64, server: &str) -> Result<Cluster, String> {
    let server = words(server);
    let plan = Plan { lease: Duration::from_millis(lease_ms), server, ..Plan::default() };
    let cluster = Cluster::start(plan).ok_or("the hosts cannot be made")?;
    let address = cluster.address();
    cluster.client.inside(|| {
        let mut conn = common::Conn::to(address);
        for item in 0..ITEMS {
            assert_eq!(conn.line(&format!("set fill:{item} 0 0 10\r\n0123456789")), "STORED");
        }
    });
    Ok(cluster)
}

/// One fault, with a probe that gets and with clients whose history is checked. When the fault began and was there,
/// and what the probe asked.
fn fault(
    cluster: &mut Cluster,
    seen: &mut Seen,
    number: usize,
    fail: fn(&mut Cluster, usize),
) -> Result<((Instant, Instant), Vec<Asked>), String> {
    let owner = cluster.wait_calm();
    let work = Work { clients: 2, ..Work::at(&[cluster.address()], &format!("k{number}")) };
    let (address, seed) = (cluster.address(), number as u64);
    let workload = cluster.client.inside(|| work.start(seed));
    let probe = cluster.client.inside(|| Probe::start(address, Asks::Gets, ITEMS));
    std::thread::sleep(AROUND);
    let from = Instant::now();
    fail(cluster, owner);
    let broke = (from, Instant::now());
    cluster.wait_taken(owner);
    std::thread::sleep(AROUND);
    let asked = probe.stop();
    cluster.mend();
    let mut events = workload.stop();
    events.extend(cluster.client.inside(|| work.read_all()));
    seen.faults += 1;
    seen.acknowledged += events.iter().filter(|event| event.is_acknowledged()).count();
    let (wrong, tenures) = (stale(&events).all(), tenures(cluster));
    let deposed = deposed(&events, &tenures);
    wrong.iter().chain(&deposed).for_each(|wrong| eprintln!("{wrong}"));
    (seen.lost, seen.deposed) = (seen.lost + wrong.len(), seen.deposed + deposed.len());
    Ok((broke, asked))
}

fn tenures(cluster: &Cluster) -> Vec<Tenure> {
    cluster.owners().into_iter().map(|(epoch, server)| Tenure { epoch, server }).collect()
}

fn killed(scale: &Scale, seen: &mut Seen) -> Result<Vec<Row>, String> {
    let mut cluster = cluster(1000)?;
    let (mut times, mut before, mut after) = (Vec::new(), (0, 0), (0, 0));
    for number in 0..scale.kills {
        progress(&format!("kill {} of {}", number + 1, scale.kills));
        let (broke, asked) = fault(&mut cluster, seen, number, |cluster, owner| cluster.nodes[owner].kill_server())?;
        times.push(first_reply(&asked, broke).ok_or("no reply came after a kill")?);
        for Asked { sent, end, .. } in asked {
            let side = if sent < broke.0 { &mut before } else { &mut after };
            side.0 += usize::from(end == End::Good);
            side.1 += usize::from(end == End::Good || end == End::Miss);
        }
    }
    let ratio = |(hits, all): (usize, usize)| 100.0 * hits as f64 / all.max(1) as f64;
    let (before, after) = (ratio(before), ratio(after));
    let hits = Row {
        event: "hit ratio after failover".into(),
        asked: "at most 0.5 points less",
        measured: format!("{before:.2} % before, {after:.2} % after"),
        json: json!({"before": before, "after": after}),
    };
    Ok(vec![Row::times("kill -9 of the server, to the first reply", "p99 300 ms", &times), hits])
}

fn gone(scale: &Scale, lease: u64, asked_for: &'static str, seen: &mut Seen) -> Result<Row, String> {
    let mut cluster = cluster(lease)?;
    let mut times = Vec::new();
    for number in 0..scale.gone {
        progress(&format!("host gone, lease {lease} ms, {} of {}", number + 1, scale.gone));
        let (broke, asked) = fault(&mut cluster, seen, number, |cluster, owner| cluster.nodes[owner].host.link_down())?;
        times.push(first_reply(&asked, broke).ok_or("no reply came after a host was gone")?);
    }
    Ok(Row::times(&format!("host or network gone, lease {lease} ms"), asked_for, &times))
}

fn switched(scale: &Scale, server: &str) -> Result<Vec<Row>, String> {
    let cluster = cluster_with(1000, server)?;
    let how = if server.is_empty() { "switchover" } else { "switchover (replicas_ack)" };
    let (mut pauses, mut errors, mut misses) = (Vec::new(), Vec::new(), 0);
    for number in 0..scale.switchovers {
        progress(&format!("switchover {} of {}", number + 1, scale.switchovers));
        let owner = cluster.wait_calm();
        let address = cluster.address();
        let start = |asks| cluster.client.inside(|| Probe::start(address, asks, ITEMS));
        let (sets, gets) = (start(Asks::Sets), start(Asks::Gets));
        std::thread::sleep(AROUND);
        let began = Instant::now();
        cluster.request_switchover(1 - owner);
        cluster.wait_other(owner);
        cluster.wait_calm();
        std::thread::sleep(AROUND);
        let (sets, gets) = (sets.stop(), gets.stop());
        pauses.push(longest_pause(&sets, began));
        for Asked { end, .. } in sets.iter().chain(&gets) {
            misses += usize::from(*end == End::Miss);
            if let End::Error(error) = end {
                errors.push(error.clone());
            }
        }
    }
    errors.sort();
    let count = errors.len();
    errors.dedup();
    let counts = Row {
        event: format!("{how}, errors but closed connections, and misses"),
        asked: "0 and 0",
        measured: format!("{count} {errors:?} and {misses}"),
        json: json!({"errors": count, "misses": misses}),
    };
    Ok(vec![Row::times(&format!("{how}, longest pause of a write"), "50 ms", &pauses), counts])
}

/// A busy machine, and an etcd that stands still now and then.
fn stalled(scale: &Scale) -> Result<Row, String> {
    let mut cluster = cluster(1000)?;
    let (epochs, stop) = (cluster.owners().len(), AtomicBool::new(false));
    let (busy_before, all_before) = cpu_time();
    std::thread::scope(|scope| {
        let loops = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..if scale.is_loaded { 0 } else { loops } {
            scope.spawn(|| busy(&stop));
        }
        let end = Instant::now() + scale.stalled;
        progress(&format!("{:?} of a busy machine and a stalling etcd", scale.stalled));
        while Instant::now() < end {
            cluster.etcds.members[0].freeze();
            std::thread::sleep(STALL);
            cluster.etcds.members[0].resume();
            std::thread::sleep(BETWEEN);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let count = cluster.owners().len() - epochs;
    let (busy, all) = cpu_time();
    let share = (busy - busy_before) * 100 / (all - all_before).max(1);
    let seconds = scale.stalled.as_secs();
    Ok(Row {
        event: "false failovers, CPU 90 %, etcd stalls for 200 ms each second".into(),
        asked: "0 in 3600 s",
        measured: format!("{count} in {seconds} s, CPU {share} %"),
        json: json!({"failovers": count, "seconds": seconds, "cpu_percent": share}),
    })
}

/// What the CPUs have done since the machine's start, and all that they could have done.
fn cpu_time() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let times: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).take(8).collect();
    let (all, idle) = (times.iter().sum(), times.iter().skip(3).take(2).sum::<u64>());
    (all - idle, all)
}

/// Takes nine tenths of a CPU.
fn busy(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(9) {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Row {
    fn times(event: &str, asked: &'static str, times: &[Duration]) -> Row {
        let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let at = |share: f64| ms.get(((ms.len() as f64 * share).ceil() as usize).max(1) - 1).copied().unwrap_or(0.0);
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(at);
        let measured = format!("p50 {p50:.0}, p90 {p90:.0}, p99 {p99:.0}, max {max:.0} ms of {}", ms.len());
        Row { event: event.into(), asked, measured, json: json!({"p50": p50, "p90": p90, "p99": p99, "ms": ms}) }
    }
}

impl Seen {
    fn rows(&self) -> [Row; 2] {
        let Seen { faults, acknowledged, lost, deposed } = self;
        let row = |event: &str, count: &usize| Row {
            event: event.into(),
            asked: "0",
            measured: format!("{count} in {faults} faults, {acknowledged} acknowledged writes"),
            json: json!({"count": count, "faults": faults, "acknowledged": acknowledged}),
        };
        [
            row("acknowledged writes lost (replicas_ack)", lost),
            row("replies by a deposed owner after the new one served", deposed),
        ]
    }
}

/// As text, in columns that are also a table in Markdown.
fn print(rows: &[Row]) {
    let width = |of: fn(&Row) -> usize, least: usize| rows.iter().map(of).max().unwrap_or(0).max(least);
    let (first, second) = (width(|row| row.event.len(), 5), width(|row| row.asked.len(), 5));
    let third = width(|row| row.measured.len(), 8);
    println!("| {:first$} | {:second$} | {:third$} |", "event", "asked", "measured");
    println!("|-{:-<first$}-|-{:-<second$}-|-{:-<third$}-|", "", "", "");
    for Row { event, asked, measured, .. } in rows {
        println!("| {event:first$} | {asked:second$} | {measured:third$} |");
    }
}

fn write(rows: &[Row], folder: &str) -> Result<(), String> {
    let one = |row: &Row| json!({"event": row.event, "asked": row.asked, "measured": row.measured, "data": row.json});
    let text = serde_json::to_string_pretty(&rows.iter().map(one).collect::<Vec<_>>()).expect("plain values");
    let path = std::path::Path::new(folder).join("failover.json");
    let done = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, text + "\n"));
    done.map_err(|error| format!("{}: {error}", path.display()))
}
