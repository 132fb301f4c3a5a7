//! Whether a hot key makes anybody wait: gets at two workers, half of which are of one key, beside the same over all keys
//! evenly.
//!
//! ```text
//!  generator ── 50 connections, 16 gets at once ──> worker 1 ─┐
//!                                              ──> worker 2 ─┴─ the shard, or the lock, of the hot key
//! ```
//!
//! Both loads run on the same server in slices, in turn, so that what else the machine does falls on both. The load shares
//! its CPU with a worker, as it does for every server.
//!
//! Not here: what one worker's requests cost (`speed`).

use crate::draw::Items;
use crate::load::{Generator, Load, Until};
use crate::report::{Row, Table};
use crate::server::{Program, Server};
use crate::{Scale, progress};
use std::time::Instant;

/// Slices of load that a round's seconds are cut into.
const SLICES: usize = 6;

/// Titles of the two rows, and how many of a hundred gets are of the first key.
const LOADS: [(&str, u64, &str); 2] =
    [("get, evenly", 0, ""), ("get, half of one key", 50, "<= 1.05 of evenly, by the same server")];

/// Its table.
pub fn run(scale: &Scale, twincached: &Program, memcached: &Program) -> Result<Table, String> {
    let programs = [twincached, memcached];
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let mut table = Table::new("hot", "Two workers, nanoseconds per request, by the clock", &names);
    table.rows = LOADS.iter().map(|(title, _, asked)| Row::new(*title, "ns", *asked)).collect();
    for program in programs {
        progress(&format!("hot: {}", program.name));
        let server = program.start_wide(&["-m", "1024"])?;
        let mut loads =
            LOADS.iter().map(|(_, hot, _)| generator(scale, &server, *hot)).collect::<Result<Vec<_>, _>>()?;
        loads[0].fill()?;
        server.settle();
        for generator in &mut loads {
            generator.run(Until::Seconds(scale.warmup))?;
        }
        for _ in 0..scale.rounds * SLICES {
            for (row, generator) in table.rows.iter_mut().zip(&mut loads) {
                let began = Instant::now();
                let tally = generator.run(Until::Seconds(scale.seconds / SLICES as f64))?;
                row.add(&program.name, began.elapsed().as_nanos() as f64 / tally.requests.max(1) as f64);
            }
        }
    }
    Ok(table)
}

fn generator(scale: &Scale, server: &Server, hot: u64) -> Result<Generator, String> {
    let items = Items::plain(scale.keys, 100);
    Generator::connect(Load { pipeline: 16, hot, ..Load::gets(server.address, items) })
}
