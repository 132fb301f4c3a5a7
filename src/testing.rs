//! What tests of several modules share: random numbers, and the seeds that replay them.
//!
//! `TWINCACHE_SEED` replays one seed, and `TWINCACHE_SEEDS` says how many seeds from it on, or from a random one, are
//! tried. Each is printed before it is tried.

#[path = "../tests/common/rng.rs"]
mod rng;

pub use rng::Rng;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Whether somebody has chosen the seeds: what is sure to happen in many runs need not happen in these.
pub fn is_replay() -> bool {
    number("TWINCACHE_SEED").is_some()
}

/// As many seeds, which differ from run to run.
pub fn seeds(count: u64) -> impl Iterator<Item = u64> {
    seeds_from(std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64), count)
}

/// As many seeds, the same ones in every run.
pub fn seeds_from(first: u64, count: u64) -> impl Iterator<Item = u64> {
    let (first, count) = number("TWINCACHE_SEED").map_or((first, count), |chosen| (chosen, 1));
    let count = number("TWINCACHE_SEEDS").unwrap_or(count);
    (0..count).map(move |i| first.wrapping_add(i)).inspect(|seed| println!("TWINCACHE_SEED={seed}"))
}
