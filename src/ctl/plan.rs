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
use super::insight::scaled;
use super::json::pretty;
use super::table::aligned;
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

/// An input.
struct PlanRow {
    name: &'static str,
    default: f64,
    least: f64,
    most: f64,
    help: &'static str,
}

const fn input(name: &'static str, default: f64, least: f64, most: f64, help: &'static str) -> PlanRow {
    PlanRow { name, default, least, most, help }
}

/// Every input.
const INPUTS: [PlanRow; 14] = [
    input("users", 1e6, 1.0, 1e12, "users at the busiest time"),
    input("rate", 1.0, 0.0, 1e6, "requests a second of one user"),
    input("reads", 90.0, 0.0, 100.0, "percent of the requests that are reads"),
    input("items", 10.0, 0.0, 1e9, "items that belong to one user"),
    input("key", 32.0, 1.0, 250.0, "bytes of a key"),
    input("value", 300.0, 0.0, 1073741824.0, "bytes of a value"),
    input("ttl", 0.0, 0.0, 1e9, "seconds that an item lives (0: for ever)"),
    input("hot", 100.0, 0.1, 100.0, "percent of the items that are to be held; the others may be evicted"),
    input("growth", 50.0, 0.0, 1e6, "percent that users and items grow by before you plan again"),
    input("copies", 2.0, 1.0, 5.0, "nodes of a shard: 2 is a primary and a standby"),
    input("memory", 16.0, 0.125, 65536.0, "GiB of a machine that the server may have"),
    input("cores", 4.0, 1.0, 1024.0, "cores of a machine that the server may have"),
    input("busy", 60.0, 1.0, 100.0, "percent of CPU and network that are to be in use at most"),
    input("network", 10.0, 0.01, 1000.0, "gigabits a second of a machine"),
];

/// A step of the reckoning.
#[derive(Debug, Serialize)]
struct PlanStep {
    what: &'static str,
    how: String,
    value: f64,
    #[serde(skip)]
    shown: String,
}

/// What `plan` prints for these words.
pub(super) fn plan(words: &[String], is_json: bool) -> Result<String, CtlExit> {
    let steps = steps(&read(words)?);
    if is_json {
        return Ok(pretty(&steps));
    }
    let head = ["STEP", "HOW", "RESULT"].map(str::to_owned);
    let rows = steps.into_iter().map(|step| [step.what.to_owned(), step.how, step.shown]);
    let inputs = INPUTS.iter().map(|row| [row.name.to_owned(), row.default.to_string(), row.help.to_owned()]);
    let inputs: Vec<[String; 3]> = [["NAME", "DEFAULT", "WHAT"].map(str::to_owned)].into_iter().chain(inputs).collect();
    let steps: Vec<[String; 3]> = [head].into_iter().chain(rows).collect();
    let named = if words.is_empty() {
        format!("\nSay what is so, as in users=5e6 value=900:\n\n{}", aligned(&inputs))
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
        let PlanRow { name, least, most, .. } = INPUTS[at];
        let value = text.parse::<f64>().ok().filter(|value| (least..=most).contains(value));
        let bad = || CtlExit::usage(&format!("{name}={text}: a number from {least} to {most} is needed"));
        values[at] = value.ok_or_else(bad)?;
    }
    Ok(values)
}

/// The reckoning, from top to bottom.
fn steps(input: &[f64; INPUTS.len()]) -> Vec<PlanStep> {
    let [users, rate, reads, items, key, value, ttl, hot, growth, ..] = *input;
    let grown = 1.0 + growth / 100.0;
    let mut steps = Vec::new();
    let mut step = |what, how: String, value: f64, shown: String| {
        steps.push(PlanStep { what, how, value, shown });
        value
    };

    let requests = step(
        "requests/s",
        format!("{users} users x {rate} x {grown} of growth"),
        users * rate * grown,
        count(users * rate * grown),
    );
    let writes = requests * (100.0 - reads) / 100.0;
    let gets = requests - writes;
    step("writes/s", format!("{} % of that; the other {reads} % are reads", 100.0 - reads), writes, count(writes));

    let all = users * items * grown;
    let live = if ttl > 0.0 { all.min(writes * ttl) } else { all };
    let how = match ttl > 0.0 {
        true => format!("{users} users x {items} x {grown}, but no more than are written in {ttl} s"),
        false => format!("{users} users x {items} x {grown}"),
    };
    step("items alive", how, live, count(live));
    let held = step("items held", format!("{hot} % of those alive"), live * hot / 100.0, count(live * hot / 100.0));
    let each = step(
        "bytes an item",
        format!("key {key} + value {value} + {ITEM_BYTES}, / {ITEMS_SHARE} for the table and rounding"),
        (key + value + ITEM_BYTES) / ITEMS_SHARE,
        bytes((key + value + ITEM_BYTES) / ITEMS_SHARE),
    );
    let needed = step(
        "memory",
        "items held x bytes an item: the sum of -m of all primaries".to_owned(),
        held * each,
        bytes(held * each),
    );

    nodes(&mut step, input, gets, writes, held, needed);
    steps
}

/// What one node can do, how many that makes, and what is so when one is lost.
fn nodes(
    step: &mut impl FnMut(&'static str, String, f64, String) -> f64,
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
        format!("({memory} GiB - {} of journal) / {RESIDENT} of resident memory", bytes(journal)),
        limit,
        bytes(limit),
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
        cpu,
        format!("{cpu:.1}"),
    );
    let stream = writes * (key + value + STREAM_BYTES) * (copies - 1.0);
    step(
        "stream",
        format!("writes x (key + value + {STREAM_BYTES}) x {} copies", copies - 1.0),
        stream * 8.0,
        bits(stream * 8.0),
    );
    let traffic = requests * (key + value + REQUEST_BYTES) + stream;
    step(
        "network",
        format!("requests x (key + value + {REQUEST_BYTES}), and the stream"),
        traffic * 8.0,
        bits(traffic * 8.0),
    );

    let by_memory = step(
        "shards for memory",
        "memory / -m of a node, rounded up".to_owned(),
        (needed / limit).ceil().max(1.0),
        count((needed / limit).ceil().max(1.0)),
    );
    let by_cpu = (cpu / (cores * busy_share)).ceil().max(1.0);
    step("shards for CPU", format!("cores in use / ({cores} x {busy} %), rounded up"), by_cpu, count(by_cpu));
    let by_network = (traffic * 8.0 / (network * 1e9 * busy_share)).ceil().max(1.0);
    step(
        "shards for network",
        format!("network / ({network} Gbit/s x {busy} %), rounded up"),
        by_network,
        count(by_network),
    );
    let most = by_memory.max(by_cpu).max(by_network);
    let shards = step("shards", "the largest of the three".to_owned(), most, count(most));
    step("nodes", format!("shards x {copies} copies"), shards * copies, count(shards * copies));

    lost(step, shards, copies, held, gets, cpu / cores);
}

/// What the loss of one node means.
fn lost(
    step: &mut impl FnMut(&'static str, String, f64, String) -> f64,
    shards: f64,
    copies: f64,
    held: f64,
    gets: f64,
    busy: f64,
) {
    if copies > 1.0 {
        let how = "cores in use / cores / shards: the standby takes over all of its shard, and no other has more to do";
        step("a node is lost: busy", how.to_owned(), busy / shards * 100.0, format!("{:.0} %", busy / shards * 100.0));
        let seconds = held / shards / COPY_ITEMS;
        let how =
            format!("items of a shard / {COPY_ITEMS} a second, of small items, until there are {copies} copies again");
        step("a new copy takes", how, seconds, scaled(seconds, 60.0, &["s", "min", "h"]));
        return;
    }
    let left = (shards - 1.0).max(1.0);
    let how = "the others have cores in use / cores / (shards - 1)".to_owned();
    step("a node is lost: busy", how, busy / left * 100.0, format!("{:.0} %", busy / left * 100.0));
    let misses = gets / shards;
    step(
        "misses/s at first",
        "reads / shards go to your database, as nothing has a copy".to_owned(),
        misses,
        count(misses),
    );
}

fn count(number: f64) -> String {
    scaled(number.ceil(), 1000.0, &["", "k", "M", "G", "T"]).trim_end().to_owned()
}

fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

fn bits(number: f64) -> String {
    scaled(number, 1000.0, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
