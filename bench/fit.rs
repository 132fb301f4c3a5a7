//! How many items of one size fit: what a server makes of its memory when all values are as long.
//!
//! ```text
//! each size: a server with -m 64 ── more sets than fit ──> curr_items x (key + value) / 64 MiB
//! ```
//!
//! One mean of many sizes hides that a size just above a chunk's holds a fifth less than one just below it. So each
//! size is a row, and memcached's slabs must not hold more at any.
//!
//! Not here: a load of many sizes, and what is hit (`memory`).

use crate::draw::Items;
use crate::load::{Generator, Load, Protocol};
use crate::progress;
use crate::report::{Row, Table};
use crate::server::Program;

/// `-m`, in megabytes.
const MEMORY: u64 = 64;

/// Lengths of values: from 8 bytes to a megabyte evenly on a scale of doublings, and some at which 15 % less was once held
/// than by memcached.
const LENGTHS: [usize; 40] = [
    8, 11, 16, 23, 33, 47, 68, 96, 138, 196, 280, 400, 571, 815, 1163, 1659, 2368, 3379, 4200, 4822, 6881, 8500, 9820,
    11_000, 12_500, 14_015, 20_000, 28_542, 33_000, 40_732, 50_000, 58_128, 82_954, 118_383, 168_943, 241_098, 344_068,
    491_017, 700_726, 1_000_000,
];

/// Bytes of an item beside key and value that no server does without, so that enough is written.
const LEAST_EXTRA: u64 = 24;

/// Sets in a batch, while they are small.
const PIPELINE: usize = 16;

/// The table.
pub fn run(twincached: &Program, memcached: &Program) -> Result<Table, String> {
    let programs = [twincached, memcached];
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let mut table = Table::new("fit", "Share of -m 64 that holds keys and values, all values of one length", &names);
    table.curve = Some("bytes of a value");
    for len in LENGTHS {
        let mut row = Row { x: len as f64, ..Row::new(format!("{len} bytes"), "ratio", ">= memcached") };
        for program in programs {
            progress(&format!("fit: values of {len} bytes in {}", program.name));
            row.add(&program.name, held(program, len)?);
        }
        table.rows.push(row);
    }
    let mut mean = Row::new("mean", "ratio", ">= 0.88");
    for name in &names {
        let sum: f64 = table.rows.iter().filter_map(|row| row.median(name)).sum();
        mean.add(name, sum / table.rows.len() as f64);
    }
    table.rows.push(mean);
    Ok(table)
}

/// The share of the memory.
fn held(program: &Program, len: usize) -> Result<f64, String> {
    let memory = MEMORY << 20;
    let server = program.start(&["-m", &MEMORY.to_string()])?;
    let one = Items::plain(1, len);
    let bytes = (one.key_len(0) + len) as u64;
    let items = Items { count: memory / (bytes + LEAST_EXTRA) * 9 / 8 + 16, ..one };
    let load =
        Load { protocol: Protocol::Meta, pipeline: PIPELINE, connections: 8, ..Load::gets(server.address, items) };
    Generator::connect(load)?.fill()?;
    Ok((server.items() * bytes) as f64 / memory as f64)
}
