//! What goes wrong with a server or a peer, and how it shows.

use crate::common::{Conn, DEADLINE, Server, Sidecar, freeze, signal, until, wait_for};
use crate::pair::{control, scratch, start_primary};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Waits until the health is good or bad; the page.
fn until_it_is(sidecar: &Sidecar, is_good: bool) -> String {
    let status = if is_good { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
    wait_for(status, || Some(sidecar.page("/health")).filter(|page| page.starts_with(status)))
}

#[test]
fn a_primary_that_hangs_is_in_bad_health() {
    let (socket, peer) = (scratch("control"), Server::start(&[]));
    let primary = start_primary(&socket, &[]);
    let sidecar = Sidecar::start(&*socket, peer.addr, &["--http", "127.0.0.1:0"]);
    until_it_is(&sidecar, true);
    let began = Instant::now();
    freeze(primary.pid());
    let page = until_it_is(&sidecar, false);
    let took = began.elapsed();
    assert!(page.contains("the server hangs: it has said nothing for "), "{page}");
    sidecar.says("the server hangs: it says nothing on its control socket");
    assert!(until_it_is(&sidecar, false).contains("the server hangs"), "nor does it look like no twincached");
    signal(primary.pid(), "CONT");
    until_it_is(&sidecar, true);
    println!("noticed after {} ms", took.as_millis());
}

/// One client's values are too large for the peer; it alone is told.
#[test]
fn a_refusal_concerns_its_own_change_alone() {
    for is_stock in [false, true] {
        let small = ["-m", "64", "-I", "512k"];
        let peer = if is_stock { Server::reference(&small) } else { Some(Server::start(&small)) };
        let (Some(peer), socket) = (peer, scratch("control")) else { continue };
        let primary = start_primary(&socket, &["-o", "replicas_ack=1", "-o", "ack_timeout=60000"]);
        let sidecar = Sidecar::start(&*socket, peer.addr, &["--http", "127.0.0.1:0"]);
        sidecar.says("full sync done");
        let began = Instant::now();
        let (stop, confirmed) = (AtomicBool::new(false), AtomicU64::new(0));
        let addr = primary.addr;
        std::thread::scope(|scope| {
            let write = |number: usize| {
                let (mut client, mut count) = (Conn::to(addr), 0);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.line(&format!("set w{number}:{} 0 0 1\r\nx", count % 100)), "STORED");
                    count += 1;
                    confirmed.fetch_add(1, Ordering::Relaxed);
                }
            };
            let writers: Vec<_> = (0..8).map(|number| scope.spawn(move || write(number))).collect();
            let mut client = Conn::to(addr);
            let end = Instant::now() + DEADLINE;
            let large = format!("set large 0 0 600000\r\n{}", "v".repeat(600_000));
            let mut replies = Vec::new();
            // More of them where clients are slow.
            while replies.len() < 20 || confirmed.load(Ordering::Relaxed) <= 1000 {
                assert!(Instant::now() < end, "{confirmed:?} changes were confirmed");
                replies.push(client.line(&large));
                // Every now and then long enough after it for the stream to be in batches again.
                std::thread::sleep(Duration::from_millis(if replies.len() % 5 == 0 { 1200 } else { 30 }));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(replies.iter().all(|reply| reply == "SERVER_ERROR not replicated"), "{replies:?}");
            writers.into_iter().for_each(|writer| writer.join().expect("all stored"));
            println!("{confirmed:?} changes were confirmed among {} that were refused", replies.len());
        });
        let page = sidecar.page("/health");
        assert!(page.starts_with("HTTP/1.1 503 ") && page.contains("; it lacks some of 1 ranges of keys"), "{page}");
        // Once a minute, however many there are.
        let lines = sidecar.log().matches("does not take").count() as u64;
        assert!((1..=1 + began.elapsed().as_secs() / 60).contains(&lines), "{}", sidecar.log());
        assert_eq!(primary.connect().line("delete large"), "DELETED");
        let page = until_it_is(&sidecar, true);
        assert!(page.contains("; what it lacked it has by now"), "{page}");
    }
}

/// It may not evict, so it refuses, until there is room.
#[test]
fn a_peer_that_was_full_gets_what_it_lacks() {
    for is_stock in [false, true] {
        let small = ["-m", "8", "-M"];
        let peer = if is_stock { Server::reference(&small) } else { Some(Server::start(&small)) };
        let (Some(peer), socket) = (peer, scratch("control")) else { continue };
        let primary = start_primary(&socket, &[]);
        let sidecar = Sidecar::start(&*socket, peer.addr, &["--http", "127.0.0.1:0"]);
        sidecar.says("full sync done");
        let mut client = primary.connect();
        let value = "v".repeat(2000);
        for n in 0..10_000 {
            assert_eq!(client.line(&format!("set key{n} 0 0 2000\r\n{value}")), "STORED");
        }
        // The server counts what was refused when it has heard of the refusal.
        until("the ranges to be told", || {
            until_it_is(&sidecar, false).contains(" ranges of keys, which are sent again")
        });
        for n in 0..9000 {
            assert_eq!(client.line(&format!("delete key{n}")), "DELETED");
        }
        let began = Instant::now();
        until_it_is(&sidecar, true);
        println!("whole after {} ms", began.elapsed().as_millis());
        let mut standby = peer.connect();
        let held = (0..10_000).filter(|n| standby.line(&format!("mg key{n} s")) == "HD s2000").count();
        assert_eq!(held, 1000, "{}", sidecar.log());
    }
}

#[test]
fn writes_that_fail_for_want_of_a_replica_are_reported() {
    let (socket, mut peer) = (scratch("control"), Server::start(&[]));
    let primary = start_primary(&socket, &["-o", "replicas_ack=1", "-o", "ack_timeout=300"]);
    let sidecar = Sidecar::start(&*socket, peer.addr, &["--http", "127.0.0.1:0"]);
    until_it_is(&sidecar, true);
    assert_eq!(primary.connect().line("set key 0 0 1\r\nx"), "STORED");
    assert!(!sidecar.page("/health").contains("writes fail now"));
    peer.may_exit();
    signal(peer.pid(), "KILL");
    peer.wait();
    let says = "writes fail now: replicas_ack is 1, and 1 of those who must confirm are missing";
    wait_for(says, || Some(sidecar.page("/health")).filter(|page| page.contains(says)));
    assert_eq!(primary.connect().line("set key 0 0 1\r\nx"), "SERVER_ERROR not replicated");
    wait_for("the server's line", || {
        Some(primary.stderr()).filter(|log| log.contains("1 replicas are missing that must confirm a change"))
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(primary.stderr().matches("replicas are missing").count(), 1);
    // What the page says to do helps.
    assert_eq!(control(&socket, "replicas_ack 0"), "OK");
    assert_eq!(primary.connect().line("set key 0 0 1\r\nx"), "STORED");
}
