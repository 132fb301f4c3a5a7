//! Hosts and etcds fail as they are told.

use crate::common::{Folder, Net};
use crate::rig::{Clock, Cluster, Etcds, Plan};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Etcds that stand still, are late, are cut off and are killed, and go on with what they had.
#[test]
fn etcds_fail_as_they_are_told() {
    let Some(net) = Net::start() else { return };
    let folder = Folder::new();
    let mut etcds = Etcds::start(&net, 3, folder.path());
    let client = net.host("client");
    for number in 0..3 {
        etcds.ask(&["put", "a", &format!("{{\"number\":{number}}}")]).expect("it is stored");
    }
    let numbers: Vec<u64> = etcds.history("a").iter().map(|value| value["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(etcds.get("a").unwrap()["number"], 2);
    let took = || {
        let began = Instant::now();
        client.run(&format!("ETCDCTL_API=3 etcdctl --endpoints {} get a", etcds.urls()));
        began.elapsed()
    };
    took();
    etcds.delay(Duration::from_millis(500));
    assert!(took() > Duration::from_millis(500));
    etcds.members[1].freeze();
    etcds.members[2].stop();
    // It may be stored when there is one again.
    assert_eq!(etcds.ask(&["put", "b", "{}"]), None, "without quorum");
    etcds.resume();
    assert_eq!(etcds.get("a").unwrap()["number"], 2);
}

/// Nodes start and die without anybody who leads them.
#[test]
fn nodes_can_be_made_and_hosts_tell_them_apart() {
    let Some(cluster) = Cluster::prepare(Plan { nodes: 3, ..Plan::default() }) else { return };
    assert_eq!(cluster.addresses().len(), 3);
    assert_eq!((cluster.primary(), cluster.members().len(), cluster.owners().len()), (None, 0, 0));
    assert!(cluster.nodes.iter().all(|node| node.status("/primary").is_none()));
}

/// A stepped clock shows another time to what has it, and leaves the others alone.
#[test]
fn clocks_are_stepped_for_one_process() {
    let folder = Folder::new();
    let Some(clock) = Clock::new(folder.path(), "a") else { return };
    // It asks as Rust does.
    let date = |variables: &[(&str, &Path)]| -> i64 {
        let output = Command::new("date").arg("+%s").envs(variables.iter().copied()).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().expect("seconds")
    };
    let stepped = || date(&clock.variables()) - date(&[]);
    for step in [0, 5000, -7200] {
        clock.step(step);
        assert!((step - 5..=step).contains(&stepped()), "{step}");
    }
}
