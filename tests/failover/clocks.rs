//! Wall clocks that are wrong, and that are stepped under load. No decision may hang on them.

use crate::rig::{Cluster, Plan};
use crate::rounds::rounds_of;
use crate::starved::stays;
use std::time::Duration;

/// Seconds that clocks are wrong by, one after the other.
const STEPS: [i64; 5] = [3600, -3600, 86_400, -5, 0];

#[test]
fn a_stepped_wall_clock_changes_nothing() {
    let Some(mut cluster) = Cluster::start_with_clocks(Plan::default()) else { return };
    rounds_of(&mut cluster, "steps of the owner's wall clock", |cluster, _, workload| {
        stays(cluster, |cluster, owner| {
            for step in STEPS {
                cluster.nodes[owner].clock.as_ref().expect("it has one").step(step);
                std::thread::sleep(Duration::from_millis(700));
                workload.wait_for(100);
            }
        });
    });
}

/// The clocks of the two are an hour apart when one takes over.
#[test]
fn a_takeover_compares_no_wall_clocks() {
    let Some(mut cluster) = Cluster::start_with_clocks(Plan::default()) else { return };
    rounds_of(&mut cluster, "kill -9 of both, clocks an hour apart", |cluster, owner, _| {
        for (node, step) in [(owner, 3600), (1 - owner, -60)] {
            cluster.nodes[node].clock.as_ref().expect("it has one").step(step);
        }
        std::thread::sleep(Duration::from_millis(700));
        cluster.nodes[owner].kill_both();
        cluster.wait_other(owner);
    });
}
