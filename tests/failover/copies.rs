//! Copies that are not whole, and copies that are of another time.

use crate::client::Client;
use crate::common::{Conn, DEADLINE, seed, until};
use crate::history::{Answer, Op, Outcome};
use crate::rig::{Cluster, PORT, Plan};
use crate::rounds::rounds;
use std::net::SocketAddr;
use std::time::Duration;

/// Items that make a full sync long enough to be broken.
const ITEMS: usize = 60_000;

/// Items that are sent before their replies are read.
const BATCH: usize = 200;

/// Stores items, many at a time, again where it was interrupted.
fn fill(address: SocketAddr, items: usize) {
    let (mut conn, value) = (Conn::to(address), "x".repeat(500));
    for from in (0..items).step_by(BATCH) {
        let batch: String =
            (from..from + BATCH).map(|item| format!("set fill:{item} 0 0 500\r\n{value}\r\n")).collect();
        until("items are stored", || {
            conn.send(batch.as_bytes());
            conn.read_until(DEADLINE, |got| got.iter().filter(|&&byte| byte == b'\n').count() >= BATCH);
            let is_stored = std::mem::take(&mut conn.got) == b"STORED\r\n".repeat(BATCH);
            if conn.closed {
                conn = Conn::to(address);
            }
            is_stored
        });
    }
}

/// A node that is being fed, slowly, may not be promoted: the other one is.
#[test]
fn half_a_copy_is_not_promoted() {
    let mut is_filled = false;
    rounds("slow standby in its full sync", Plan::of_three(), |cluster, owner, workload| {
        if !std::mem::replace(&mut is_filled, true) {
            let address = cluster.address();
            cluster.client.inside(|| fill(address, ITEMS));
        }
        let (slow, whole) = ((owner + 1) % 3, (owner + 2) % 3);
        cluster.nodes[slow].kill_server();
        cluster.nodes[slow].mend();
        // It moves for a moment now and then.
        for _ in 0..5 {
            cluster.nodes[slow].freeze_server();
            std::thread::sleep(Duration::from_millis(100));
            cluster.nodes[slow].thaw();
            std::thread::sleep(Duration::from_millis(5));
        }
        cluster.nodes[slow].freeze_server();
        workload.wait_for(30);
        let name = cluster.nodes[slow].name.clone();
        assert!(!cluster.members().contains(&name), "a copy of that size takes longer");
        cluster.nodes[owner].kill_both();
        cluster.nodes[slow].thaw();
        assert_eq!(cluster.wait_other(owner), whole);
    });
}

/// The owner is cut off with changes that nobody else has (no acknowledgements are asked for), and comes back with a
/// higher lsn. It must not be believed: what was written since stays, and what was lost stays lost.
#[test]
fn newer_looking_data_of_an_old_owner_is_dropped() {
    println!("an old owner comes back: TWINCACHE_FAILOVER_SEED={}", seed("TWINCACHE_FAILOVER_SEED"));
    let Some(mut cluster) = Cluster::start(Plan::unacknowledged()) else { return };
    let old = cluster.wait_calm();
    let address = cluster.address();
    tell(&cluster, address, "common", Op::Set(1));
    settle(&cluster);
    let (owner, standby) = (&cluster.nodes[old].host, &cluster.nodes[1 - old].host);
    // Nothing reaches the standby, and etcd does not hear that it is to be taken out.
    owner.drop_to(standby);
    cluster.etcds.members.iter().for_each(|member| owner.drop_to(&member.host));
    let direct = (owner.ip4, PORT).into();
    // It answers as long as its lease is good.
    let mut lost = 0;
    cluster.client.inside(|| {
        let mut client = Client::new(&[direct], Default::default());
        let stored = Outcome::Answered(Answer::Stored);
        let mut stores = |key, number| client.connect() && client.run(key, Op::Set(number)) == stored;
        lost = (2..200).take_while(|&number| stores("common", number) && stores("lost", number)).count();
    });
    assert_ne!(lost, 0, "nothing was stored while the lease was good");
    let new = cluster.wait_taken(old);
    tell(&cluster, address, "common", Op::Set(1000));
    assert_eq!(tell(&cluster, address, "lost", Op::Get), Answer::Value(None));
    assert_eq!(cluster.mend(), new);
    for round in 0..2 {
        assert_eq!(tell(&cluster, address, "common", Op::Get), Answer::Value(Some(1000)), "round {round}");
        assert_eq!(tell(&cluster, address, "lost", Op::Get), Answer::Value(None), "round {round}");
        // Its copy, too, is that of the new owner.
        let owner = cluster.wait_calm();
        cluster.nodes[owner].kill_server();
        cluster.wait_other(owner);
        cluster.mend();
    }
}

/// A standby is started anew while its sidecar does not reach etcd, so it becomes a member of which it does not hear. It
/// wants the shard, without data; but it has to keep what it acknowledges meanwhile, since the owner dies.
#[test]
fn a_member_that_does_not_know_it_keeps_everything() {
    let Some(mut cluster) = Cluster::start(Plan::default()) else { return };
    let owner = cluster.wait_calm();
    let (address, other, key) = (cluster.address(), 1 - owner, |number: u64| format!("kept{number}"));
    let (host, etcd) = (&cluster.nodes[other].host, &cluster.etcds.members[0].host);
    host.drop_to(etcd);
    host.drop_from(etcd);
    cluster.nodes[other].kill_server();
    cluster.nodes[other].start_server();
    for number in 0..20 {
        // Acknowledged, so by the only member that there is.
        assert_eq!(tell(&cluster, address, &key(number), Op::Set(number)), Answer::Stored);
    }
    // A lease and the wait for a bootstrap, by what it knows.
    std::thread::sleep(Duration::from_secs(4));
    cluster.nodes[owner].kill_both();
    cluster.nodes[other].host.heal();
    assert_eq!(cluster.wait_other(owner), other);
    cluster.mend();
    for number in 0..20 {
        assert_eq!(tell(&cluster, address, &key(number), Op::Get), Answer::Value(Some(number)));
    }
}

/// Of three nodes the third goes on as well, where it is.
#[test]
fn a_switchover_of_three_needs_no_full_sync() {
    needs_no_full_sync("switchover of three", Plan::of_three());
}

/// Nobody asks for acknowledgements, so the successor has had no reason to keep a journal.
#[test]
fn a_switchover_without_acknowledgements_needs_no_full_sync() {
    needs_no_full_sync("switchover without acknowledgements", Plan::unacknowledged());
}

fn needs_no_full_sync(name: &str, plan: Plan) {
    rounds(name, plan, |cluster, owner, workload| {
        let to = (owner + 1) % cluster.nodes.len();
        let address = cluster.addresses()[to];
        let full_syncs =
            |cluster: &Cluster| cluster.client.inside(|| Conn::to(address).number("replication", "walks_started"));
        let before = full_syncs(cluster);
        cluster.request_switchover(to);
        assert_eq!(cluster.wait_other(owner), to);
        workload.wait_for(100);
        cluster.wait_calm();
        assert_eq!(full_syncs(cluster), before);
    });
}

/// Waits until the standby has everything.
fn settle(cluster: &Cluster) {
    cluster.wait_calm();
    std::thread::sleep(Duration::from_millis(300));
}

/// Does one operation, again until it is answered.
fn tell(cluster: &Cluster, address: SocketAddr, key: &str, op: Op) -> Answer {
    let mut answer = None;
    cluster.client.inside(|| {
        let mut client = Client::new(&[address], Default::default());
        until("an answer", || {
            if client.connect()
                && let Outcome::Answered(told) = client.run(key, op)
            {
                answer = Some(told);
            }
            answer.is_some()
        });
    });
    answer.expect("it was waited for")
}
