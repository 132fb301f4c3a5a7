//! Networks that fail: cables pulled, and frames that are lost one way.

use crate::rig::{Cluster, Plan};
use crate::rounds::rounds;
use crate::starved::stays;
use std::time::Duration;

/// Longer than the leases here.
const PAST_LEASE: Duration = Duration::from_millis(2500);

#[test]
fn an_owner_without_network_is_replaced() {
    rounds("link of the owner down", Plan::of_three(), |cluster, owner, workload| {
        cluster.nodes[owner].host.link_down();
        cluster.wait_taken(owner);
        workload.wait_for(30);
        cluster.nodes[owner].host.link_up();
        std::thread::sleep(Duration::from_millis(500));
        workload.wait_for(30);
    });
}

/// Makes a node deaf or mute, or both, towards everybody.
fn cut(cluster: &Cluster, node: usize, hears: bool, speaks: bool) {
    let host = &cluster.nodes[node].host;
    let others = cluster.nodes.iter().map(|other| &other.host).filter(|other| other.name != host.name);
    let etcds = cluster.etcds.members.iter().map(|member| &member.host);
    for other in others.chain(etcds).chain([&cluster.client]) {
        if !speaks {
            host.drop_to(other);
        }
        if !hears {
            host.drop_from(other);
        }
    }
}

/// Everybody hears the owner's silence, but it hears everybody.
#[test]
fn a_mute_owner_is_replaced() {
    rounds("all that the owner sends is lost", Plan::of_three(), |cluster, owner, workload| {
        cut(cluster, owner, true, false);
        cluster.wait_taken(owner);
        workload.wait_for(30);
    });
}

/// The owner's words arrive, but no answer does.
#[test]
fn a_deaf_owner_is_replaced() {
    rounds("all that is sent to the owner is lost", Plan::of_three(), |cluster, owner, workload| {
        cut(cluster, owner, false, true);
        cluster.wait_taken(owner);
        workload.wait_for(30);
    });
}

/// Both sides reach etcd and the clients, but not each other: the owner stays, and no write is acknowledged that the
/// other side lacks.
fn apart(name: &str, from_owner: bool) {
    rounds(name, Plan::default(), |cluster, _, _| {
        stays(cluster, |cluster, owner| {
            let (a, b) = (&cluster.nodes[owner].host, &cluster.nodes[1 - owner].host);
            if from_owner {
                a.drop_to(b)
            } else {
                b.drop_to(a)
            }
            std::thread::sleep(PAST_LEASE * 2);
        });
    });
}

#[test]
fn changes_that_are_lost_are_not_acknowledged() {
    apart("from the owner to its standby all is lost", true);
}

#[test]
fn confirmations_that_are_lost_are_missed() {
    apart("from the standby to its owner all is lost", false);
}

/// The standby goes; the owner serves, and the other one, which is in sync, is enough for acknowledgements.
#[test]
fn a_lost_standby_does_not_stop_the_others() {
    rounds("link of a standby down", Plan::of_three(), |cluster, _, workload| {
        stays(cluster, |cluster, owner| {
            cluster.nodes[(owner + 1) % 3].host.link_down();
            std::thread::sleep(PAST_LEASE);
            workload.wait_for(300);
        });
    });
}
