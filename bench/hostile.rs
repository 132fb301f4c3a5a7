//! Attacks servers, and measures how long another client waits meanwhile and what memory it takes.
//!
//! ```text
//! CPU 0   the server, one worker
//! CPU 1   the other client: a get every 0.2 ms ─ ahead of ─ who attacks (`tests/hostile/attacks`)
//! ```
//!
//! Each server is attacked in the same way in the same run, with millions of items and a thousand connections. The worst
//! wait counts, and the first row says what it is when nobody attacks: machines have pauses of their own, of which some are
//! told as stolen, in ms. A server that has hung itself up is started anew for the next attack.
//!
//! Not here: what must hold (`tests/hostile`).

#[path = "../tests/hostile/attacks.rs"]
mod attacks;
#[allow(dead_code, reason = "other benchmarks use the rest")]
mod server;

use attacks::{ATTACKS, Attack, Site};
use getopts::{Matches, Options};
use serde_json::{Value, json};
use server::{Program, Server, field, pin_self};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use twincache::sys::cpu;

const NOTHING: Attack = Attack { name: "nothing", run: |site| site.wait() };

/// Who has not been answered for so long never is: a server may hang itself up.
const NEVER: Duration = Duration::from_secs(20);

/// Pause of the other client between two gets.
const PAUSE: Duration = Duration::from_micros(200);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hostile: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = Options::new();
    options.optopt("", "items", "items that the servers hold (4000000)", "N");
    options.optopt("", "clients", "connections that misbehave (1000)", "N");
    options.optopt("", "seconds", "for each attack (4)", "SECONDS");
    options.optopt("", "only", "only attacks with this in their name", "TEXT");
    options.optopt("", "twincached", "another binary than the one built here", "PATH");
    options.optopt("", "memcached", "another binary than the memcached in PATH", "PATH");
    options.optopt("", "out", "folder of hostile.json (target/bench)", "DIR");
    options.optflag("h", "help", "this text");
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let matches = options.parse(arguments).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        println!("{}", options.usage("Usage: hostile [options]"));
        return Ok(());
    }
    pin_self()?;
    let programs =
        [Program::twincached(matches.opt_str("twincached")), Program::memcached(matches.opt_str("memcached"))];
    let results = programs.iter().map(|program| measure(program, &matches)).collect::<Result<Vec<_>, _>>()?;
    print(&programs, &results);
    write(&programs, &results, &matches.opt_str("out").unwrap_or_else(|| "target/bench".into()))
}

/// A number of the command line.
fn number<T: FromStr>(matches: &Matches, name: &str, default: T) -> Result<T, String> {
    let given = matches.opt_str(name).map(|text| text.parse().map_err(|_| format!("--{name} {text} is no number")));
    given.unwrap_or(Ok(default))
}

/// What came of an attack.
struct Outcome {
    attack: &'static str,
    worst: Duration,
    gets: u64,
    peak_mb: u64,
    /// For how long other guests of the machine had its CPUs meanwhile, all of them together: a long wait may be theirs.
    stolen: Duration,
}

fn measure(program: &Program, matches: &Matches) -> Result<Vec<Outcome>, String> {
    let (items, clients) = (number(matches, "items", 4_000_000)?, number(matches, "clients", 1000)?);
    let time = Duration::from_secs_f64(number(matches, "seconds", 4.0)?);
    let only = matches.opt_str("only").unwrap_or_default();
    eprintln!(".. {}: {items} items", program.name);
    let start = || {
        let server = program.start(&["-m", "1024", "-c", "8000"])?;
        fill(&server, items).map(|()| server)
    };
    let mut server = start()?;
    let attacks = std::iter::once(&NOTHING).chain(ATTACKS.iter().filter(|attack| attack.name.contains(&only)));
    let mut outcomes = Vec::new();
    for attack in attacks {
        eprintln!(".. {}: {}", program.name, attack.name);
        server.settle();
        let outcome = attack_once(&server, attack, clients, time)?;
        let hangs = outcome.worst >= NEVER;
        outcomes.push(outcome);
        if hangs {
            server = start()?;
        }
    }
    Ok(outcomes)
}

/// Stores items under base64 keys, of which lists print nothing.
fn fill(server: &Server, items: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("filling: {error}");
    let mut stream = TcpStream::connect(server.address).map_err(failed)?;
    for first in (0..items).step_by(1000) {
        let sets: String = (first..(first + 1000).min(items)).map(|i| format!("ms {i:012} 1 b q\r\nx\r\n")).collect();
        stream.write_all(format!("{sets}mn\r\n").as_bytes()).map_err(failed)?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).map_err(failed)?;
        if line != "MN\r\n" {
            return Err(format!("filling: {line}"));
        }
    }
    server.ask("set small 0 0 1\r\nx").map(|_| ())
}

fn attack_once(server: &Server, attack: &'static Attack, clients: usize, time: Duration) -> Result<Outcome, String> {
    let (pid, stolen_before) = (server.pid(), stolen()?);
    // The peak begins anew.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").map_err(|error| format!("clear_refs: {error}"))?;
    let stop = AtomicBool::new(false);
    let site = Site { server: server.address, clients, stop: &stop };
    let (worst, gets) = std::thread::scope(|scope| {
        scope.spawn(|| {
            cpu::add_nice(19);
            (attack.run)(&site);
        });
        let waited = wait_as_other(server, time);
        stop.store(true, Ordering::Relaxed);
        waited
    })?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
    let peak_mb = field(&status, "VmHWM:").unwrap_or(0) >> 10;
    Ok(Outcome { attack: attack.name, worst, gets, peak_mb, stolen: stolen()? - stolen_before })
}

/// Time that other guests of the machine have had since it was started, as `steal` of proc_stat(5) has it, in ticks of 10 ms.
fn stolen() -> Result<Duration, String> {
    let stat = std::fs::read_to_string("/proc/stat").map_err(|error| format!("/proc/stat: {error}"))?;
    let steal = stat.lines().next().and_then(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(Duration::from_millis(10 * steal.unwrap_or_default()))
}

/// Gets one item again and again: the longest that took, and how many there were.
fn wait_as_other(server: &Server, time: Duration) -> Result<(Duration, u64), String> {
    let failed = |error: std::io::Error| format!("a get: {error}");
    let mut stream = TcpStream::connect(server.address).map_err(failed)?;
    stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(NEVER))).map_err(failed)?;
    let mut replies = BufReader::new(stream.try_clone().map_err(failed)?);
    let (end, mut worst, mut gets, mut line) = (Instant::now() + time, Duration::ZERO, 0, String::new());
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(b"get small\r\n").map_err(failed)?;
        line.clear();
        while line != "END\r\n" {
            line.clear();
            match replies.read_line(&mut line) {
                Ok(0) => return Err("the server has closed the other client's connection".into()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok((began.elapsed(), gets)),
                read => read.map(drop).map_err(failed)?,
            }
        }
        worst = worst.max(began.elapsed());
        gets += 1;
        std::thread::sleep(PAUSE);
    }
    Ok((worst, gets))
}

fn print(programs: &[Program], results: &[Vec<Outcome>]) {
    print!("{:32}", "worst wait of another client, ms");
    programs.iter().for_each(|program| print!("  {:>12}  {:>8} {:>7}", program.name, "peak MB", "stolen"));
    println!();
    for (row, first) in results[0].iter().enumerate() {
        print!("{:32}", first.attack);
        for result in results {
            let Outcome { worst, peak_mb, stolen, .. } = result[row];
            print!("  {:12.2}  {peak_mb:8} {:7}", worst.as_secs_f64() * 1e3, stolen.as_millis());
        }
        println!();
    }
}

fn write(programs: &[Program], results: &[Vec<Outcome>], folder: &str) -> Result<(), String> {
    let outcome = |outcome: &Outcome| {
        let Outcome { attack, worst, gets, peak_mb, stolen } = outcome;
        let (worst, stolen) = (worst.as_secs_f64() * 1e3, stolen.as_millis() as u64);
        json!({ "attack": attack, "worst_ms": worst, "gets": gets, "peak_mb": peak_mb, "stolen_ms": stolen })
    };
    let server = |(program, result): (&Program, &Vec<Outcome>)| json!({ "program": program.name, "attacks": result.iter().map(outcome).collect::<Vec<Value>>() });
    let all: Vec<Value> = std::iter::zip(programs, results).map(server).collect();
    std::fs::create_dir_all(folder).map_err(|error| format!("{folder}: {error}"))?;
    let path = format!("{folder}/hostile.json");
    std::fs::write(&path, format!("{:#}\n", Value::from(all))).map_err(|error| format!("{path}: {error}"))
}
