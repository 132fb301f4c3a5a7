//! Etcd that is away, slow, without quorum, or out of reach of one side: nobody may be promoted without it, and who
//! serves goes on as long as the others promise to wait.

use crate::rig::{Cluster, Plan, RECORD};
use crate::rounds::rounds;
use crate::starved::{GAP, unless_starved};
use crate::workload::Workload;
use std::time::Duration;

/// Several leases.
const LONG: Duration = Duration::from_secs(4);

/// The owner goes on serving for a while, and nobody else is promoted.
fn goes_on(cluster: &mut Cluster, workload: &Workload, way: impl Fn(&mut Cluster, usize)) {
    unless_starved(GAP, || {
        let (owner, epochs) = (cluster.wait_calm(), cluster.owners().len());
        way(cluster, owner);
        std::thread::sleep(LONG);
        let (is_served, primary) = (workload.is_served(300), cluster.primary());
        let state = if is_served && primary == Some(owner) { String::new() } else { cluster.state() };
        cluster.mend();
        workload.wait_for(30);
        let after = (cluster.wait_primary(), cluster.owners().len());
        let is_same = is_served && primary == Some(owner) && after == (owner, epochs);
        is_same.then_some(()).ok_or(format!("served: {is_served}, {primary:?} and {after:?} of {owner}:\n{state}"))
    });
}

#[test]
fn an_owner_goes_on_without_etcd() {
    rounds("etcd stopped", Plan::default(), |cluster, _, workload| {
        goes_on(cluster, workload, |cluster, _| cluster.etcds.stop());
    });
}

#[test]
fn an_owner_goes_on_while_etcd_stands_still() {
    rounds("etcd frozen", Plan::default(), |cluster, _, workload| {
        goes_on(cluster, workload, |cluster, _| cluster.etcds.members[0].freeze());
    });
}

/// Without etcd nobody takes over, and when it is there again a member does.
#[test]
fn nobody_is_promoted_without_etcd() {
    rounds("etcd stopped and the owner killed", Plan::default(), |cluster, owner, _| {
        let epochs = cluster.owners().len();
        cluster.etcds.stop();
        std::thread::sleep(LONG / 2);
        cluster.nodes[owner].kill_both();
        std::thread::sleep(LONG);
        assert_eq!(cluster.primary(), None, "nobody may say so");
        cluster.etcds.resume();
        cluster.wait_other(owner);
        assert_eq!(cluster.owners().len(), epochs + 1);
    });
}

#[test]
fn a_slow_etcd_changes_nothing() {
    rounds("etcd slow by 200 ms", Plan::default(), |cluster, _, workload| {
        goes_on(cluster, workload, |cluster, _| cluster.etcds.delay(Duration::from_millis(200)));
    });
}

/// Stalls of 200 ms, one after the other.
#[test]
fn a_stalling_etcd_changes_nothing() {
    rounds("etcd stalls for 200 ms", Plan::default(), |cluster, _, workload| {
        goes_on(cluster, workload, |cluster, _| {
            for _ in 0..5 {
                cluster.etcds.members[0].freeze();
                std::thread::sleep(Duration::from_millis(200));
                cluster.etcds.members[0].resume();
                std::thread::sleep(Duration::from_millis(200));
            }
        });
    });
}

#[test]
fn an_owner_goes_on_without_quorum() {
    let plan = Plan { etcds: 3, ..Plan::default() };
    rounds("etcd without quorum", plan, |cluster, _, workload| {
        // One that still answers is asked first.
        goes_on(cluster, workload, |cluster, _| {
            cluster.etcds.members[1].stop();
            cluster.etcds.members[2].stop();
        });
    });
}

/// One of three dies: the sidecars go on with the others, and a takeover works.
#[test]
fn one_etcd_of_three_is_not_missed() {
    let plan = Plan { etcds: 3, ..Plan::of_three() };
    rounds("one of three etcds killed", plan, |cluster, owner, workload| {
        cluster.etcds.members[0].stop();
        std::thread::sleep(LONG / 2);
        workload.wait_for(30);
        assert_eq!(cluster.wait_primary(), owner);
        cluster.nodes[owner].kill_server();
        cluster.wait_other(owner);
        workload.wait_for(30);
    });
}

/// Nothing of etcd's reaches the owner, nor the other way. It may go on by promises, or be replaced, but clients are served.
#[test]
fn an_owner_cut_off_from_etcd_is_no_second_voice() {
    rounds("etcd partitioned from the owner", Plan::of_three(), |cluster, owner, workload| {
        let (etcd, host) = (&cluster.etcds.members[0].host, &cluster.nodes[owner].host);
        etcd.drop_to(host);
        etcd.drop_from(host);
        std::thread::sleep(LONG);
        workload.wait_for(300);
    });
}

#[test]
fn a_standby_cut_off_from_etcd_changes_nothing() {
    rounds("etcd partitioned from the standby", Plan::default(), |cluster, _, workload| {
        goes_on(cluster, workload, |cluster, owner| {
            let (etcd, host) = (&cluster.etcds.members[0].host, &cluster.nodes[1 - owner].host);
            etcd.drop_to(host);
            etcd.drop_from(host);
        });
    });
}

/// etcd comes back as it was before a takeover. Who serves goes on, although another one owns the shard by what stands there.
#[test]
fn an_owner_outlives_a_restored_etcd() {
    rounds("etcd restored", Plan::default(), |cluster, owner, workload| {
        cluster.etcds.back_up();
        workload.wait_for(30);
        cluster.nodes[owner].kill_server();
        let other = cluster.wait_other(owner);
        cluster.mend();
        cluster.etcds.put_back();
        for _ in 0..20 {
            assert_ne!(cluster.primary(), Some(owner), "{}", cluster.state());
            std::thread::sleep(LONG / 20);
        }
        workload.wait_for(100);
        assert_eq!(cluster.wait_calm(), other);
    });
}

/// The record is overwritten with nonsense, and then deleted: the owner writes it again.
#[test]
fn an_owner_writes_a_damaged_record_again() {
    rounds("a damaged record", Plan::default(), |cluster, owner, workload| {
        for words in [&["put", RECORD, "nonsense"][..], &["del", RECORD]] {
            cluster.etcds.ask(words).expect("etcd takes it");
            workload.wait_for(100);
            assert_eq!(
                (cluster.wait_calm(), cluster.etcds.get(RECORD).expect("JSON")["epoch"].as_u64()),
                (owner, Some(1))
            );
        }
    });
}
