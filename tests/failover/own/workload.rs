//! The whole way of a history, of one server, good and bad.

use crate::checks::{Tenure, deposed, stale};
use crate::common::Server;
use crate::linear;
use crate::workload::Work;

/// The whole way: one server, nothing breaks, and every check is content.
#[test]
fn one_server_is_linearizable() {
    let server = Server::start(&[]);
    let work = Work { pause: std::time::Duration::ZERO, ..Work::at(&[server.addr], "one") };
    let workload = work.start(1);
    workload.wait_for(4000);
    let mut events = workload.stop();
    events.extend(work.read_all());
    assert_eq!(stale(&events).all(), [""; 0]);
    assert_eq!(linear::check(&events), (Vec::new(), 0));
    assert_eq!(deposed(&events, &[Tenure { epoch: 1, server: server.pid() }]), [""; 0]);
}

/// A server that comes back empty: every check but that of owners must see it.
#[test]
fn a_restarted_server_is_found_out() {
    let mut first = Server::start(&[]);
    let mut work = Work { pause: std::time::Duration::ZERO, ..Work::at(&[first.addr], "gone") };
    let workload = work.start(1);
    workload.wait_for(2000);
    let mut events = workload.stop();
    first.stop("KILL");
    let second = Server::start(&[]);
    work.addresses = vec![second.addr];
    work.counters = 0;
    events.extend(work.read_all());
    assert!(!stale(&events).lost.is_empty());
    assert!(!linear::check(&events).0.is_empty());
    assert_eq!(deposed(&events, &[Tenure { epoch: 1, server: first.pid() }]).len(), work.keys as usize);
}
