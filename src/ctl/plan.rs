//! `plan`: from users to memory, nodes and network, with each step shown so that it can be argued with.
//!
//! ```text
//!   name=value … ──> PlanInput ──> steps: what, how it comes about, the number ──> table or JSON
//!   memory ─┐
//!   CPU    ─┼─> shards: the most that one of them asks for ──> nodes = shards x copies ──> when one is lost
//!   network ┘
//! ```
//!
//! The figures of this server are the constants below, each with the command that measures it. They hold for the
//! machine of the README; measure them again on yours.
//!
//! Invariant: numbers are finite and not negative, whatever is typed: each input has its range.

use super::exit::CtlExit;
use super::json::pretty;
use super::table::{aligned, scaled};
use serde::Serialize;

/// Bytes of an item besides key and value: a header of 32, and 4 of client flags. See `store/memory/layout`.
const ITEM_BYTES: f64 = 36.0;

/// The part of `-m` that items can have; the rest goes to the table of keys and to what slab classes round up. With
/// `ITEM_BYTES`, this gives the 0.862 bytes of key and value for each byte of `-m` of the README: `scripts/bench.sh memory`.
const ITEMS_SHARE: f64 = 0.98;

/// Resident memory for each byte of `-m`, full: 0.862 / 0.813 of the same table. `scripts/bench.sh memory`.
const RESIDENT: f64 = 1.06;

/// Megabytes of the journal of a server with a copy: 64.4 MiB. `scripts/bench.sh replication`.
const JOURNAL_BYTES: f64 = 64.4 * 1048576.0;

/// Seconds of CPU for a get of a small item, one in flight: 9036 ns. `scripts/bench.sh speed`.
const GET_SECONDS: f64 = 9.036e-6;

/// The same for a set: 9874 ns. `scripts/bench.sh speed`.
const SET_SECONDS: f64 = 9.874e-6;

/// Seconds of CPU for each byte of a value: a get of 1 MiB takes 349 us. `scripts/bench.sh speed`.
const BYTE_SECONDS: f64 = 0.33e-9;

/// A set with a copy attached takes so much of one without. `scripts/bench.sh replication`.
const COPIED: f64 = 1.10;

/// Bytes of a change in the stream besides key and value: a test here writes one.
const STREAM_BYTES: f64 = 52.0;

/// Bytes of a request and its answer besides key and value, with the headers of both packets (66 each on Ethernet).
const REQUEST_BYTES: f64 = 160.0;

/// Items a second of a first copy: 0.96 million of 100 bytes. `scripts/bench.sh replication`.
const COPY_ITEMS: f64 = 0.96e6;

/// What a number of an input counts, and what may follow it as people type it: by how much each multiplies. Letters may
/// be large or small.
#[derive(Clone, Copy, Debug)]
struct InputUnit {
    name: &'static str,
    suffixes: &'static [(&'static str, f64)],
}

const COUNT: InputUnit = unit("", &[("k", 1e3), ("m", 1e6), ("g", 1e9), ("bn", 1e9), ("t", 1e12)]);
const PERCENT: InputUnit = unit("percent", &[("%", 1.0)]);
const SECONDS: InputUnit = unit("seconds", &[("s", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0), ("d", 86400.0)]);
const GIBIBYTES: InputUnit = unit(
    "GiB",
    &[("g", 1.0), ("gb", 1.0), ("gib", 1.0), ("t", 1024.0), ("tb", 1024.0), ("tib", 1024.0), ("m", 1.0 / 1024.0)],
);
const BYTES: InputUnit = unit(
    "bytes",
    &[
        ("b", 1.0),
        ("k", 1024.0),
        ("kb", 1024.0),
        ("kib", 1024.0),
        ("m", 1048576.0),
        ("mb", 1048576.0),
        ("mib", 1048576.0),
    ],
);
const GIGABITS: InputUnit = unit("Gbit/s", &[("g", 1.0), ("gbit", 1.0), ("gbit/s", 1.0), ("m", 1e-3), ("mbit", 1e-3)]);

const fn unit(name: &'static str, suffixes: &'static [(&'static str, f64)]) -> InputUnit {
    InputUnit { name, suffixes }
}

/// An input.
struct PlanRow {
    name: &'static str,
    unit: InputUnit,
    default: f64,
    least: f64,
    most: f64,
    help: &'static str,
}

const fn input(
    name: &'static str,
    unit: InputUnit,
    default: f64,
    (least, most): (f64, f64),
    help: &'static str,
) -> PlanRow {
    PlanRow { name, unit, default, least, most, help }
}

/// Every input.
const INPUTS: [PlanRow; 14] = [
    input("users", COUNT, 1e6, (1.0, 1e12), "users at the busiest time"),
    input("rate", COUNT, 1.0, (0.0, 1e6), "requests a second of one user"),
    input("reads", PERCENT, 90.0, (0.0, 100.0), "percent of the requests that are reads"),
    input("items", COUNT, 10.0, (0.0, 1e9), "items that belong to one user"),
    input("key", BYTES, 32.0, (1.0, 250.0), "bytes of a key"),
    input("value", BYTES, 300.0, (0.0, 1073741824.0), "bytes of a value"),
    input("ttl", SECONDS, 0.0, (0.0, 1e9), "seconds that an item lives (0: for ever)"),
    input("hot", PERCENT, 100.0, (0.1, 100.0), "percent of the items that are to be held; the others may be evicted"),
    input("growth", PERCENT, 50.0, (0.0, 1e6), "percent that users and items grow by before you plan again"),
    input("copies", COUNT, 2.0, (1.0, 5.0), "nodes of a shard: 2 is a primary and a standby"),
    input("memory", GIBIBYTES, 16.0, (0.125, 65536.0), "GiB of a machine that the server may have"),
    input("cores", COUNT, 4.0, (1.0, 1024.0), "cores of a machine that the server may have"),
    input("busy", PERCENT, 60.0, (1.0, 100.0), "percent of CPU and network that are to be in use at most"),
    input("network", GIGABITS, 10.0, (0.01, 1000.0), "gigabits a second of a machine"),
];

/// A step of the reckoning.
#[derive(Debug, Serialize)]
struct PlanStep {
    what: &'static str,
    how: String,
    value: f64,
    unit: StepUnit,
}

/// What the value of a step counts. The names are those of JSON.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum StepUnit {
    Count,
    PerSecond,
    Bytes,
    BitsPerSecond,
    Cores,
    Percent,
    Seconds,
}
use StepUnit::{BitsPerSecond, Bytes, Cores, Count, PerSecond, Percent, Seconds};

/// What `plan` prints for these words.
pub(super) fn plan(words: &[String], is_json: bool) -> Result<String, CtlExit> {
    let steps = steps(&read(words)?);
    if is_json {
        return Ok(pretty(&steps));
    }
    let head = ["STEP", "HOW", "RESULT"].map(str::to_owned);
    let rows = steps.into_iter().map(|step| [step.what.to_owned(), step.how, step.unit.write(step.value)]);
    let inputs = INPUTS.iter().map(|row| [row.name.to_owned(), row.default.to_string(), row.help.to_owned()]);
    let inputs: Vec<[String; 3]> = [["NAME", "DEFAULT", "WHAT"].map(str::to_owned)].into_iter().chain(inputs).collect();
    let steps: Vec<[String; 3]> = [head].into_iter().chain(rows).collect();
    let named = if words.is_empty() {
        format!("\nSay what is so, as in users=5M value=900 reads=95%:\n\n{}", aligned(&inputs))
    } else {
        String::new()
    };
    Ok(aligned(&steps) + &named)
}

/// The inputs in the order of the table.
fn read(words: &[String]) -> Result<[f64; INPUTS.len()], CtlExit> {
    let mut values = INPUTS.map(|row| row.default);
    for word in words {
        let known = word.split_once('=').and_then(|(name, value)| {
            let at = INPUTS.iter().position(|row| row.name == name)?;
            Some((at, value))
        });
        let Some((at, text)) = known else {
            let names: Vec<&str> = INPUTS.iter().map(|row| row.name).collect();
            return Err(CtlExit::usage(&format!("what is `{word}`? plan takes NAME=VALUE of {}", names.join(", "))));
        };
        let PlanRow { name, unit, least, most, .. } = INPUTS[at];
        let value = unit.read(text).filter(|value| (least..=most).contains(value));
        let bad = || {
            let suffixes: Vec<&str> = unit.suffixes.iter().map(|(suffix, _)| *suffix).collect();
            let of = if unit.name.is_empty() { String::new() } else { format!(" of {}", unit.name) };
            let range = format!("a number{of} from {least} to {most} is needed");
            CtlExit::usage(&format!("{name}={text}: {range}, and {} may follow it", suffixes.join(", ")))
        };
        values[at] = value.ok_or_else(bad)?;
    }
    Ok(values)
}

impl InputUnit {
    /// `2M`, `95%`, `1.5GiB` or a bare number.
    fn read(self, text: &str) -> Option<f64> {
        let text = text.to_ascii_lowercase();
        let number = |digits: &str| digits.trim_end().parse::<f64>().ok();
        number(&text).or_else(|| {
            self.suffixes.iter().find_map(|(suffix, factor)| Some(number(text.strip_suffix(suffix)?)? * factor))
        })
    }
}

/// The reckoning, from top to bottom.
fn steps(input: &[f64; INPUTS.len()]) -> Vec<PlanStep> {
    let [users, rate, reads, items, key, value, ttl, hot, growth, ..] = *input;
    let grown = 1.0 + growth / 100.0;
    let mut steps = Vec::new();
    let mut step = |what, how: String, unit: StepUnit, value: f64| {
        steps.push(PlanStep { what, how, value, unit });
        value
    };

    let requests =
        step("requests/s", format!("{users} users x {rate} x {grown} of growth"), PerSecond, users * rate * grown);
    let writes = requests * (100.0 - reads) / 100.0;
    let gets = requests - writes;
    step("writes/s", format!("{} % of that; the other {reads} % are reads", 100.0 - reads), PerSecond, writes);

    let all = users * items * grown;
    let live = if ttl > 0.0 { all.min(writes * ttl) } else { all };
    let how = match ttl > 0.0 {
        true => format!("{users} users x {items} x {grown}, but no more than are written in {ttl} s"),
        false => format!("{users} users x {items} x {grown}"),
    };
    step("items alive", how, Count, live);
    let held = step("items held", format!("{hot} % of those alive"), Count, live * hot / 100.0);
    let each = step(
        "bytes an item",
        format!("key {key} + value {value} + {ITEM_BYTES}, / {ITEMS_SHARE} for the table and rounding"),
        Bytes,
        (key + value + ITEM_BYTES) / ITEMS_SHARE,
    );
    let needed =
        step("memory", "items held x bytes an item: the sum of -m of all primaries".to_owned(), Bytes, held * each);

    nodes(&mut step, input, gets, writes, held, needed);
    steps
}

/// What one node can do, how many that makes, and what is so when one is lost.
fn nodes(
    step: &mut impl FnMut(&'static str, String, StepUnit, f64) -> f64,
    input: &[f64; INPUTS.len()],
    gets: f64,
    writes: f64,
    held: f64,
    needed: f64,
) {
    let [_, _, _, _, key, value, _, _, _, copies, memory, cores, busy, network] = *input;
    let (copies, busy_share, requests) = (copies.floor(), busy / 100.0, gets + writes);
    let journal = if copies > 1.0 { JOURNAL_BYTES } else { 0.0 };
    let limit = (memory * 1073741824.0 - journal) / RESIDENT;
    step(
        "-m of a node",
        format!("({memory} GiB - {} of journal) / {RESIDENT} of resident memory", Bytes.write(journal)),
        Bytes,
        limit,
    );
    let set = SET_SECONDS * if copies > 1.0 { COPIED } else { 1.0 };
    let cpu = gets * (GET_SECONDS + value * BYTE_SECONDS) + writes * (set + value * BYTE_SECONDS);
    step(
        "cores in use",
        format!(
            "reads x {:.1} us + writes x {:.1} us, + {:.2} ns a byte of value; nothing pipelined",
            GET_SECONDS * 1e6,
            set * 1e6,
            BYTE_SECONDS * 1e9
        ),
        Cores,
        cpu,
    );
    let stream = writes * (key + value + STREAM_BYTES) * (copies - 1.0);
    step(
        "stream",
        format!("writes x (key + value + {STREAM_BYTES}) x {} copies", copies - 1.0),
        BitsPerSecond,
        stream * 8.0,
    );
    let traffic = requests * (key + value + REQUEST_BYTES) + stream;
    step(
        "network",
        format!("requests x (key + value + {REQUEST_BYTES}), and the stream"),
        BitsPerSecond,
        traffic * 8.0,
    );

    let by_memory = step(
        "shards for memory",
        "memory / -m of a node, rounded up".to_owned(),
        Count,
        (needed / limit).ceil().max(1.0),
    );
    let by_cpu = (cpu / (cores * busy_share)).ceil().max(1.0);
    step("shards for CPU", format!("cores in use / ({cores} x {busy} %), rounded up"), Count, by_cpu);
    let by_network = (traffic * 8.0 / (network * 1e9 * busy_share)).ceil().max(1.0);
    step("shards for network", format!("network / ({network} Gbit/s x {busy} %), rounded up"), Count, by_network);
    let most = by_memory.max(by_cpu).max(by_network);
    let shards = step("shards", "the largest of the three".to_owned(), Count, most);
    step("nodes", format!("shards x {copies} copies"), Count, shards * copies);

    lost(step, shards, copies, held, gets, cpu / cores);
}

/// What the loss of one node means.
fn lost(
    step: &mut impl FnMut(&'static str, String, StepUnit, f64) -> f64,
    shards: f64,
    copies: f64,
    held: f64,
    gets: f64,
    busy: f64,
) {
    if copies > 1.0 {
        let how = "cores in use / cores / shards: the standby takes over all of its shard, and no other has more to do";
        step("a node is lost: busy", how.to_owned(), Percent, busy / shards * 100.0);
        let seconds = held / shards / COPY_ITEMS;
        let how =
            format!("items of a shard / {COPY_ITEMS} a second, of small items, until there are {copies} copies again");
        step("a new copy takes", how, Seconds, seconds);
        return;
    }
    let left = (shards - 1.0).max(1.0);
    let how = "the others have cores in use / cores / (shards - 1)".to_owned();
    step("a node is lost: busy", how, Percent, busy / left * 100.0);
    let misses = gets / shards;
    step(
        "misses/s at first",
        "reads / shards go to your database, as nothing has a copy".to_owned(),
        PerSecond,
        misses,
    );
}

impl StepUnit {
    /// The number for people.
    fn write(self, number: f64) -> String {
        match self {
            Count | PerSecond => scaled(number.ceil(), 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned(),
            Bytes => scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"]),
            BitsPerSecond => scaled(number, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"]),
            Cores => format!("{number:.1}"),
            Percent => format!("{number:.0} %"),
            Seconds => scaled(number, 60.0, &["s", "min", "h"]),
        }
    }
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
