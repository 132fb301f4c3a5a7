//! Processes that die, and processes that stand still and go on.

use crate::common::seed;
use crate::rig::{Cluster, Node, Plan};
use crate::rounds::{check, count, round, rounds};
use crate::starved::stays;
use crate::workload::Work;
use std::time::Duration;

/// Longer than any lease here.
const PAST_LEASE: Duration = Duration::from_millis(2500);

#[test]
fn a_killed_server_is_replaced() {
    rounds("kill -9 of the server", Plan::default(), |cluster, owner, _| {
        cluster.nodes[owner].kill_server();
        cluster.wait_other(owner);
    });
}

/// The sidecar comes back within the lease, finds its server as it was, and nobody takes over.
#[test]
fn a_killed_sidecar_comes_back_as_the_owner() {
    let plan = Plan { lease: Duration::from_secs(4), ..Plan::default() };
    rounds("kill -9 of the sidecar, restarted", plan, |cluster, _, workload| {
        stays(cluster, |cluster, owner| {
            cluster.nodes[owner].kill_sidecar();
            std::thread::sleep(Duration::from_millis(300));
            cluster.nodes[owner].start_sidecar();
            std::thread::sleep(Duration::from_secs(5));
            workload.wait_for(30);
        });
    });
}

/// The server falls silent by itself.
#[test]
fn a_killed_sidecar_is_replaced() {
    rounds("kill -9 of the sidecar", Plan::default(), |cluster, owner, _| {
        cluster.nodes[owner].kill_sidecar();
        cluster.wait_other(owner);
    });
}

#[test]
fn a_killed_node_is_replaced() {
    rounds("kill -9 of both", Plan::default(), |cluster, owner, _| {
        cluster.nodes[owner].kill_both();
        cluster.wait_other(owner);
    });
}

/// Freezes something of the owner until another node is primary, and lets it go on while clients are served.
fn frozen(name: &str, freeze: fn(&mut Node)) {
    rounds(name, Plan::of_three(), |cluster, owner, workload| {
        freeze(&mut cluster.nodes[owner]);
        cluster.wait_other(owner);
        workload.wait_for(30);
        cluster.nodes[owner].thaw();
        std::thread::sleep(Duration::from_millis(500));
        workload.wait_for(30);
    });
}

#[test]
fn a_frozen_server_is_replaced() {
    frozen("freeze of the server", Node::freeze_server);
}

#[test]
fn a_frozen_sidecar_is_replaced() {
    frozen("freeze of the sidecar", Node::freeze_sidecar);
}

#[test]
fn a_frozen_node_is_replaced() {
    frozen("freeze of both", |node| {
        node.freeze_sidecar();
        node.freeze_server();
    });
}

/// Frozen past its lease, and nobody there to take over: it says nothing before it has its lease again.
#[test]
fn a_frozen_owner_without_others_goes_on() {
    let plan = Plan { nodes: 1, ..Plan::unacknowledged() };
    rounds("freeze of the only node", plan, |cluster, owner, workload| {
        cluster.nodes[owner].freeze_sidecar();
        std::thread::sleep(PAST_LEASE);
        cluster.nodes[owner].thaw();
        workload.wait_for(30);
    });
}

/// Three nodes; who takes over is killed as well.
#[test]
fn two_failovers_in_a_row_lose_nothing() {
    rounds("double failover", Plan::of_three(), |cluster, owner, workload| {
        cluster.nodes[owner].kill_both();
        let second = cluster.wait_other(owner);
        // One more copy is needed before the second can go.
        workload.wait_for(30);
        cluster.nodes[second].kill_both();
        let third = cluster.wait_other(second);
        assert_ne!(third, owner);
    });
}

/// Five nodes, of which the owner dies three times; two are left then.
#[test]
fn five_nodes_outlive_three_owners() {
    rounds("three of five", Plan { nodes: 5, ..Plan::default() }, |cluster, mut owner, workload| {
        for _ in 0..3 {
            cluster.nodes[owner].kill_both();
            owner = cluster.wait_other(owner);
            // Another copy is needed before the next can go.
            workload.wait_for(30);
        }
    });
}

/// Everything dies at once. What was in memory is gone; that is said, and clients are served again.
#[test]
fn a_shard_without_power_comes_back() {
    let (name, seed) = ("power loss of all", seed("TWINCACHE_FAILOVER_SEED"));
    let Some(mut cluster) = Cluster::start(Plan::default()) else { return };
    for number in 0..count() {
        let work = Work::at(&[cluster.address()], &format!("lost{number}"));
        let workload = cluster.client.inside(|| work.start(seed));
        workload.wait_for(300);
        cluster.nodes.iter_mut().for_each(Node::kill_both);
        cluster.etcds.stop();
        let before = workload.stop();
        cluster.mend();
        // Owners by etcd are in order; what was stored before the loss may be absent, so nothing else is checked.
        let first = crate::checks::deposed(&before, &tenures(&cluster));
        assert_eq!(first, [""; 0]);
        round(&mut cluster, name, number, seed, |_, _, workload| workload.wait_for(30));
    }
}

fn tenures(cluster: &Cluster) -> Vec<crate::checks::Tenure> {
    let owners = cluster.owners().into_iter();
    owners.map(|(epoch, server)| crate::checks::Tenure { epoch, server }).collect()
}

/// A handful of faults after each other, chosen at random, under one history per key.
#[test]
fn faults_at_random_lose_nothing() {
    let seed = seed("TWINCACHE_FAILOVER_SEED");
    println!("faults at random: TWINCACHE_FAILOVER_SEED={seed}");
    let mut rng = crate::common::Rng(seed);
    let Some(mut cluster) = Cluster::start(Plan::of_three()) else { return };
    for number in 0..count() {
        let work = Work::at(&[cluster.address()], &format!("m{number}"));
        let workload = cluster.client.inside(|| work.start(seed + number));
        for _ in 0..2 {
            workload.wait_for(200);
            let owner = cluster.wait_calm();
            let fault = rng.below(6);
            println!("round {number}: fault {fault} on {}", cluster.nodes[owner].name);
            let node = &mut cluster.nodes[owner];
            match fault {
                0 => node.kill_server(),
                1 => node.kill_sidecar(),
                2 => node.kill_both(),
                3 => node.freeze_server(),
                4 => node.freeze_sidecar(),
                _ => node.host.link_down(),
            }
            std::thread::sleep(Duration::from_millis(rng.below(2500)));
            cluster.mend();
        }
        workload.wait_for(200);
        let mut events = workload.stop();
        events.extend(cluster.client.inside(|| work.read_all()));
        check(&cluster, &events, "faults at random", seed);
    }
}
