//! One fault under load, and what must hold of it afterwards.
//!
//! ```text
//!   calm ─> clients start ─> fault, and what is expected of it ─> mend ─> calm ─> clients stop ─> read all ─> check
//! ```
//!
//! `TWINCACHE_FAILOVER_ROUNDS` is how often each fault happens (1), `TWINCACHE_FAILOVER_SEED` replays the clients'
//! choices.

use crate::checks::{Tenure, deposed, longest_silence, stale};
use crate::common::{from_env, seed};
use crate::history::{Event, Outcome, line, now};
use crate::linear;
use crate::rig::{Cluster, Plan};
use crate::workload::{Work, Workload};
use std::time::Duration;

/// Answers that clients get before something breaks, and after it was mended.
const ANSWERS: u64 = 400;

/// Broken things that are shown.
const SHOWN: usize = 8;

/// Runs rounds of one fault on one cluster; `fault` is told who is the owner.
pub fn rounds(name: &str, plan: Plan, mut fault: impl FnMut(&mut Cluster, usize, &Workload)) {
    if let Some(mut cluster) = Cluster::start(plan) {
        rounds_of(&mut cluster, name, &mut fault);
    }
}

/// As [`rounds`], on a cluster that is there.
pub fn rounds_of(cluster: &mut Cluster, name: &str, mut fault: impl FnMut(&mut Cluster, usize, &Workload)) {
    let seed = seed("TWINCACHE_FAILOVER_SEED");
    for number in 0..count() {
        round(cluster, name, number, seed + number, &mut fault);
    }
}

/// How many rounds there are to be.
pub fn count() -> u64 {
    from_env("TWINCACHE_FAILOVER_ROUNDS").unwrap_or(1)
}

/// One round; fails if anything is wrong with it.
pub fn round(
    cluster: &mut Cluster,
    name: &str,
    number: u64,
    seed: u64,
    mut fault: impl FnMut(&mut Cluster, usize, &Workload),
) {
    println!("{name}, round {number}: TWINCACHE_FAILOVER_SEED={seed}");
    let before = cluster.wait_calm();
    let work = Work::at(&[cluster.address()], &format!("r{number}"));
    let workload = cluster.client.inside(|| work.start(seed));
    workload.wait_for(ANSWERS);
    let broke = now();
    fault(cluster, before, &workload);
    let after = cluster.mend();
    workload.wait_for(ANSWERS);
    let mut events = workload.stop();
    let silence = Duration::from_nanos(longest_silence(&events, broke, now()));
    events.extend(cluster.client.inside(|| work.read_all()));
    check(cluster, &events, name, seed);
    let of = |wanted: Outcome| events.iter().filter(|event| event.outcome == wanted).count();
    let (all, unknown, refused) = (events.len(), of(Outcome::Unknown), of(Outcome::Refused));
    let nodes = [before, after].map(|at| cluster.nodes[at].name.as_str()).join(" -> ");
    println!("{name}: {nodes}, {all} operations, {unknown} unknown, {refused} refused, silence {silence:.0?}");
}

/// All checks.
pub fn check(cluster: &Cluster, events: &[Event], name: &str, seed: u64) {
    let owners = cluster.owners();
    let tenures: Vec<Tenure> = owners.iter().map(|&(epoch, server)| Tenure { epoch, server }).collect();
    let mut broken = stale(events).all();
    broken.extend(deposed(events, &tenures).into_iter().map(|reply| format!("a deposed owner answered: {reply}")));
    if cluster.plan.server.iter().any(|word| word.contains("linearizable")) {
        let (wrong, undecided) = linear::check(events);
        broken.extend(wrong);
        if undecided > 0 {
            println!("{name}: {undecided} keys have too long a history to decide");
        }
    }
    if broken.is_empty() {
        return;
    }
    let mut all = events.to_vec();
    all.sort_by_key(|event| event.start);
    cluster.keep("history.txt", &all.iter().map(line).collect::<Vec<_>>().join("\n"));
    let shown = broken[..broken.len().min(SHOWN)].join("\n");
    panic!("{name}, TWINCACHE_FAILOVER_SEED={seed}: {} wrong, owners {owners:?}:\n{shown}", broken.len());
}
