//! The shard's address, on hosts that are network namespaces. Needs root; else each test says that it is skipped.

mod common;

use common::{Host, Net, until};
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Whether one host reaches the other, at most a moment later.
fn reaches(from: &Host, to: &Host) -> bool {
    from.inside(|| {
        let udp = UdpSocket::bind((from.ip4, 0)).unwrap();
        let answer = to.inside(|| UdpSocket::bind((to.ip4, 0)).unwrap());
        answer.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        udp.send_to(b"?", answer.local_addr().unwrap()).unwrap();
        answer.recv(&mut [0; 8]).is_ok()
    })
}

#[test]
fn hosts_have_cables_that_lose_what_they_should() {
    let Some(net) = Net::start() else { return };
    let (a, b, c) = (net.host("a"), net.host("b"), net.host("c"));
    assert!(reaches(&a, &b) && reaches(&b, &a) && reaches(&c, &a));
    a.run(&format!("ping -c 1 -W 5 {}", b.ip6));
    a.drop_to(&b);
    assert!(!reaches(&a, &b) && reaches(&b, &c) && reaches(&a, &c));
    a.heal();
    a.drop_from(&c);
    assert!(reaches(&a, &b) && reaches(&a, &c) && !reaches(&c, &a));
    a.heal();
    assert!(reaches(&c, &a));
    a.link_down();
    assert!(!reaches(&b, &a));
    a.link_up();
    assert!(reaches(&b, &a) && reaches(&a, &b));
    assert_eq!(a.run("ip -6 -o address show eth0").lines().count(), 2, "its address and the one of the link");
    assert_ne!(a.mac(), b.mac());
}

#[test]
fn hosts_go_with_what_runs_on_them() {
    let Some(net) = Net::start() else { return };
    let host = net.host("a");
    let mut child = host.command("sleep").arg("1000").spawn().unwrap();
    let pids = || Command::new("ip").args(["netns", "pids", &host.namespace]).output().unwrap().stdout;
    until("it runs there", || String::from_utf8(pids()).unwrap().trim() == child.id().to_string());
    let file = PathBuf::from("/run/netns").join(&host.namespace);
    assert!(file.exists());
    let failed = std::thread::spawn(move || {
        let _host = host;
        panic!("as a test does that fails");
    });
    assert!(failed.join().is_err());
    assert!(!child.wait().unwrap().success() && !file.exists());
}
