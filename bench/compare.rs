//! Measures twincached beside memcached and the floor.
//!
//! ```text
//! compare [all | speed | hot | memory | time | replication | tls | latency | price]
//!                     starts servers on CPU 0, drives them from CPU 1, prints tables, writes results.json and plots
//! compare load …      the load generator alone, against any server
//! compare floor …     the floor alone
//! ```
//!
//! Absolute figures drift with the machine. The ratios, taken in turn within one run, are what counts.
//!
//! Not here: building, and other people's load generators: `scripts/bench.sh`.

mod alone;
mod draw;
mod fit;
mod floor;
mod hiccup;
mod hot;
mod inside;
mod load;
mod memory;
mod pair;
mod replication;
mod report;
mod server;
mod speed;
mod time;
mod tls;

use getopts::{Matches, Options};
use hiccup::Hiccups;
use report::Table;
use serde_json::{Map, Value, json};
use server::Program;
use std::path::Path;
use std::process::ExitCode;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Of the first and the fourth table and, where it is given, of the third.
    pub rounds: usize,
    /// Keys with 100-byte values.
    pub keys: u64,
    /// Seconds before a measurement,
    pub warmup: f64,
    /// and of it.
    pub seconds: f64,
    /// `-m` of the second table.
    pub memory: u64,
    /// Gets that the hit ratio is taken of, after as many that fill the cache.
    pub hit_requests: u64,
    /// Of the third table,
    pub time_rounds: usize,
    /// and how long each takes.
    pub time_seconds: f64,
    /// How long a table takes to grow.
    pub growth_seconds: f64,
    /// Numbers of items whose cost is compared.
    pub sizes: &'static [u64],
    /// Of all but the second table, only the rows that have this in their title; all if it is empty.
    pub only: String,
}

const FULL: Scale = Scale {
    rounds: 5,
    keys: 1_000_000,
    warmup: 0.3,
    seconds: 1.5,
    memory: 128,
    hit_requests: 6_000_000,
    time_rounds: 3,
    time_seconds: 6.0,
    growth_seconds: 20.0,
    sizes: &[10_000, 100_000, 1_000_000, 10_000_000, 50_000_000],
    only: String::new(),
};

/// A look, in about three minutes.
const QUICK: Scale = Scale {
    rounds: 1,
    keys: 200_000,
    warmup: 0.1,
    seconds: 0.4,
    memory: 128,
    hit_requests: 900_000,
    time_rounds: 1,
    time_seconds: 1.0,
    growth_seconds: 15.0,
    sizes: &[10_000, 100_000, 1_000_000],
    only: String::new(),
};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let named = arguments.first().is_some_and(|argument| !argument.starts_with('-'));
    let verb = if named { arguments.remove(0) } else { "all".into() };
    let done = match verb.as_str() {
        "floor" => floor::main(&arguments),
        "load" => alone::main(&arguments),
        verb => compare(verb, &arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("compare: {message}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Options {
    let mut options = Options::new();
    options.optflag("", "quick", "fewer keys, one round: about three minutes");
    options.optopt("", "rounds", "rounds of the first, the third and the fourth table", "N");
    options.optopt("", "only", "of all but the second table, only rows with this in their title (all)", "TEXT");
    options.optopt("", "twincached", "the binary (the one built with this)", "PATH");
    options.optopt("", "memcached", "what to compare with (memcached)", "PATH");
    options.optopt("", "out", "folder of results.json and the plots (target/bench)", "DIR");
    options.optflag("h", "help", "this text");
    options
}

fn compare(verb: &str, arguments: &[String]) -> Result<(), String> {
    let matches = options().parse(arguments).map_err(|error| error.to_string())?;
    if matches.opt_present("help") {
        println!(
            "{}",
            options().usage(
                "Usage: compare [all | speed | hot | memory | time | replication | tls | latency | price | load | floor] [options]"
            )
        );
        return Ok(());
    }
    let verbs = ["all", "speed", "hot", "memory", "time", "replication", "tls", "latency", "price"];
    if !verbs.contains(&verb) {
        return Err(format!("{verb}: none of {}, load, floor", verbs.join(", ")));
    }
    let scale = scale(&matches)?;
    let twincached = Program::twincached(matches.opt_str("twincached"));
    let memcached = Program::memcached(matches.opt_str("memcached"));
    let version = memcached.version().ok_or("there is no memcached to compare with: --memcached PATH")?;
    server::pin_self()?;
    let out = matches.opt_str("out").unwrap_or("target/bench".into());
    let mut results = Results { out, all: Map::new() };
    results.all.insert("machine".into(), machine(&twincached, &version));
    println!("{}\n", results.all["machine"]);
    if ["all", "speed"].contains(&verb) {
        results.add(&speed::run(&scale, &twincached, &memcached)?)?;
    }
    if ["all", "hot"].contains(&verb) {
        results.add(&hot::run(&scale, &twincached, &memcached)?)?;
    }
    if ["all", "memory"].contains(&verb) {
        results.add(&memory::run(&scale, &twincached, &memcached)?)?;
        results.add(&fit::run(&twincached, &memcached)?)?;
    }
    if ["all", "time"].contains(&verb) {
        results.hiccups("before")?;
        let (table, sizes) = time::run(&scale, &twincached, &memcached)?;
        results.hiccups("after")?;
        results.add(&table)?;
        results.add(&sizes)?;
    }
    if ["all", "replication"].contains(&verb) {
        results.add(&replication::run(&scale, &twincached)?)?;
    }
    if ["all", "tls"].contains(&verb) {
        tls::run(&scale, &twincached, &memcached)?.iter().try_for_each(|table| results.add(table))?;
    }
    if ["all", "latency"].contains(&verb) {
        results.add(&inside::latency(&scale, &twincached)?)?;
    }
    if ["all", "price"].contains(&verb) {
        results.add(&inside::watched(&scale, &twincached)?)?;
    }
    Ok(())
}

fn scale(matches: &Matches) -> Result<Scale, String> {
    let mut scale = if matches.opt_present("quick") { QUICK } else { FULL };
    if let Some(rounds) = matches.opt_get("rounds").map_err(|_| "--rounds: not a number")? {
        scale.rounds = rounds;
        scale.time_rounds = rounds;
    }
    scale.only = matches.opt_str("only").unwrap_or_default();
    Ok(scale)
}

/// Says on stderr what is being done.
pub fn progress(what: &str) {
    eprintln!(".. {what}");
}

/// Tables so far. Written as they come, so that what is done is kept when the rest fails.
struct Results {
    out: String,
    all: Map<String, Value>,
}

impl Results {
    /// What the machine itself holds up just now.
    fn hiccups(&mut self, when: &str) -> Result<(), String> {
        progress(&format!("hiccups of the machine, {when} the latencies"));
        let hiccups = Hiccups::look()?;
        println!("{}\n", hiccups.text(&format!("{when} the latencies")));
        self.all.insert(format!("hiccups_{when}"), hiccups.json());
        Ok(())
    }

    fn add(&mut self, table: &Table) -> Result<(), String> {
        if table.rows.is_empty() {
            return Ok(());
        }
        println!("{}", table.text());
        self.all.insert(table.name.into(), table.json());
        let folder = Path::new(&self.out);
        let text = serde_json::to_string_pretty(&self.all).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(folder.join("results.json"), text + "\n"))
            .map_err(|error| format!("{}: {error}", self.out))?;
        table.plot(folder).map_err(|error| format!("{}: {error}", table.name))
    }
}

/// Where, when and of what the measurements are.
fn machine(twincached: &Program, memcached: &str) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    json!({
        "cpu": model.map(|(_, name)| name),
        "cpus": cpus.lines().filter(|line| line.starts_with("processor")).count(),
        "memory_mib": server::field(&read("/proc/meminfo"), "MemTotal:").unwrap_or(0) / 1024,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "load_average": read("/proc/loadavg").split(' ').next(),
        "unix_time": seconds.map_or(0, |since| since.as_secs()),
        "twincached": twincached.version().map(|offered| format!("{} (as {offered})", env!("CARGO_PKG_VERSION"))),
        "memcached": memcached,
    })
}
