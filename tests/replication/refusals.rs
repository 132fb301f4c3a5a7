//! What must be refused, and in which words.

use crate::common::{DEADLINE, Server, Sidecar, show, until};
use crate::pair::{Pair, PeerKind, Scratch, control, items, scratch, start_primary};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_peer_that_is_the_server_itself() {
    let socket = scratch("control");
    let primary = start_primary(&socket, &[]);
    Sidecar::start(&*socket, primary.addr, &[]).says("itself");
}

#[test]
fn two_that_replicate_to_each_other() {
    let (one, two) = (scratch("control"), scratch("control"));
    let (first, second) = (start_primary(&one, &[]), start_primary(&two, &[]));
    let there = Sidecar::start(&*one, second.addr, &[]);
    there.says(&second.addr.to_string());
    until("the second knows the first", || {
        second.connect().find_stat("replication", "upstream").is_some_and(|run| run != "none")
    });
    Sidecar::start(&*two, first.addr, &[]).says("circle");
}

/// The sidecar of the primary is gone, and the one of the standby takes its chance.
#[test]
fn a_standby_that_would_feed_its_primary_back() {
    let (one, two) = (scratch("control"), scratch("control"));
    let (first, second) = (start_primary(&one, &[]), start_primary(&two, &[]));
    let there = Sidecar::start(&*one, second.addr, &[]);
    there.says("full sync done");
    assert_eq!(first.connect().line("set key 0 0 1\r\nx"), "STORED");
    let back = Sidecar::start(&*two, first.addr, &[]);
    back.says("circle");
    drop(there);
    assert_eq!(first.connect().line("set newest 0 0 1\r\nx"), "STORED");
    back.says("the last to feed this server");
    assert_eq!(first.connect().line("mg newest s"), "HD s1");
    drop(back);
    // Who means it says so.
    Sidecar::start(&*two, first.addr, &["--replace-peer"]).says("full sync done");
    assert_eq!(first.connect().line("mg newest s"), "EN");
}

#[test]
fn three_that_replicate_to_each_other() {
    let sockets = [(); 3].map(|()| scratch("control"));
    let servers = sockets.each_ref().map(|socket| start_primary(socket, &[]));
    let mut sidecars: Vec<Sidecar> = Vec::new();
    for number in 0..2 {
        sidecars.push(Sidecar::start(&*sockets[number], servers[number + 1].addr, &[]));
        sidecars[number].says("full sync done");
    }
    // By now, or soon, the last knows of the first.
    sidecars.push(Sidecar::start(&*sockets[2], servers[0].addr, &[]));
    until("one is refused", || sidecars.iter().any(|sidecar| sidecar.log().contains("circle")));
}

/// What the peer does not take is not confirmed, and nothing else is held up by it.
#[test]
fn a_change_that_the_peer_refuses() {
    let small = ["-m", "64", "-I", "512k"];
    let peers = [(Some(Server::start(&small)), false), (Server::reference(&small), true)];
    for (peer, peer_is_stock) in peers.into_iter().filter_map(|(peer, is_stock)| Some((peer?, is_stock))) {
        let socket = scratch("control");
        let primary = start_primary(&socket, &["-o", "replicas_ack=1", "-o", "ack_timeout=60000"]);
        let _sidecar = Sidecar::start(&*socket, peer.addr, &[]);
        let (mut client, mut standby) = (primary.connect(), peer.connect());
        assert_eq!(client.line("set key 0 0 1\r\nx"), "STORED");
        let large = format!("set key 0 0 600000\r\n{}", "v".repeat(600_000));
        assert_eq!(client.line(&large), "SERVER_ERROR not replicated");
        assert_eq!(standby.line("mg key s"), "EN", "nor does the old value stay");
        assert_eq!(client.line("set other 0 0 1\r\nx"), "STORED");
        assert_eq!(standby.line("mg other s"), "HD s1");
        assert_eq!(client.line("set key 0 0 1\r\nx"), "STORED");
        let stats = client.stats("replication");
        for figure in ["replies_refused", "0:refusals"] {
            assert!(stats.contains(&(figure.into(), "1".into())), "{figure} of {stats:?}");
        }
        // A key that memcached's lines cannot name.
        let key = format!("{} {}", "k".repeat(100), "k".repeat(100));
        let packet =
            [&[0x80, 1, 0, 201, 8, 0, 0, 0, 0, 0, 0, 210], &[0; 12][..], &[0; 8], key.as_bytes(), b"x"].concat();
        let mut binary = primary.connect();
        binary.send(&packet);
        binary.read_until(DEADLINE, |got| got.len() >= 24);
        let status = if peer_is_stock { 0x86 } else { 0 };
        assert_eq!(binary.got[..8], [0x81, 1, 0, 0, 0, 0, 0, status], "{}", show(&binary.got));
        // The base64 of 99 k, of "k k", and of 99 k.
        let (many, middle) = ("a2tr".repeat(33), "ayBr");
        if !peer_is_stock {
            assert_eq!(standby.line(&format!("mg {many}{middle}{many} b s")), "HD s1");
        }
        assert_eq!(client.line("set other 0 0 1\r\ny"), "STORED");
    }
}

/// A primary, and a sidecar that feeds a peer that takes large items and one that does not.
fn with_a_small_peer(options: &[&str]) -> (Server, Sidecar, [Server; 2], Scratch) {
    let (large, small) = (Server::start(&["-m", "64"]), Server::start(&["-m", "64", "-I", "512k"]));
    let socket = scratch("control");
    let primary = start_primary(&socket, options);
    let sidecar = Sidecar::start(&*socket, large.addr, &["--peer", &small.addr.to_string()]);
    until("both are there", || {
        let stats = primary.connect().stats("replication");
        (0..2).all(|n| stats.contains(&(format!("{n}:state"), "streaming".into())))
    });
    (primary, sidecar, [large, small], socket)
}

/// One confirmation is enough, whoever refuses; where both are asked for, one refusal is enough.
#[test]
fn who_refuses_does_not_speak_for_others() {
    let large = "v".repeat(600_000);
    for (required, reply) in [(1, "STORED"), (2, "SERVER_ERROR not replicated")] {
        let ack = format!("replicas_ack={required},ack_timeout=60000");
        let (primary, _sidecar, [taker, _small], _socket) = with_a_small_peer(&["-o", &ack]);
        let mut client = primary.connect();
        for n in 0..20 {
            assert_eq!(client.line(&format!("set small{n} 0 0 1\r\nx")), "STORED", "small{n}, replicas_ack={required}");
            assert_eq!(client.line(&format!("set large{n} 0 0 600000\r\n{large}")), reply, "replicas_ack={required}");
            assert_eq!(taker.connect().line(&format!("mg large{n} s")), "HD s600000", "when it is answered");
        }
        assert_eq!(client.number("replication", "replies_refused"), if required == 1 { 0 } else { 20 });
        assert_eq!(client.number("replication", "replies_timed_out"), 0);
    }
}

/// In a shard its members decide, and no extra copy.
#[test]
fn an_extra_copy_that_refuses_fails_no_write() {
    let large = format!("set large 0 0 600000\r\n{}", "v".repeat(600_000));
    let (primary, _sidecar, [taker, small], socket) = with_a_small_peer(&["-o", "ack_timeout=60000"]);
    let mut client = primary.connect();
    let mut with_members = |names: &[&Server]| {
        let names: Vec<String> = names.iter().map(|server| server.addr.to_string()).collect();
        assert!(control(&socket, &format!("members 1 {}", names.join(" "))).starts_with("members "));
        client.line(&large)
    };
    for _ in 0..5 {
        assert_eq!(with_members(&[&taker]), "STORED");
        assert_eq!(with_members(&[&small]), "SERVER_ERROR not replicated");
        assert_eq!(with_members(&[&taker, &small]), "SERVER_ERROR not replicated");
    }
}

#[test]
fn two_names_of_one_peer() {
    let mut pair = Pair::new(PeerKind::Twincached, &[]).expect("always there");
    pair.start_sidecar();
    pair.settle();
    Sidecar::start(pair.socket(), pair.peer.addr, &[]).says("the same server as another one");
    assert_eq!(pair.number("0:walks_started"), 1, "the first was not disturbed");
}

/// The server cannot tell which of them is right, and both say why they do not stay.
#[test]
fn two_sidecars_for_one_peer() {
    let mut pair = Pair::new(PeerKind::Twincached, &[]).expect("always there");
    pair.start_sidecar();
    pair.settle();
    let other = Sidecar::start(pair.socket(), pair.wire.addr, &[]);
    pair.wait_for_sidecar("the server refuses: another connection of this consumer's name has taken its place");
    other.says("goes on after lsn");
    assert_eq!(pair.number("0:walks_started"), 0, "what was confirmed to one holds for the other");
}

/// The primary comes back empty, and the sidecar with it.
#[test]
fn a_primary_that_has_come_back_empty() {
    for kind in [PeerKind::Twincached, PeerKind::Stock] {
        let Some(mut pair) = Pair::new(kind, &[]) else { continue };
        let mut client = pair.primary.connect();
        (0..100).for_each(|n| assert_eq!(client.line(&format!("set key{n} 0 0 1\r\nx")), "STORED"));
        pair.start_sidecar();
        pair.settle();
        // Another sidecar is no other server: it makes a new copy.
        pair.kill_sidecar();
        pair.start_sidecar();
        pair.settle();
        let mut standby = pair.peer.connect();
        pair.kill_primary();
        pair.restart_primary(&[]);
        let mut client = pair.primary.connect();
        (0..49).for_each(|n| assert_eq!(client.line(&format!("set new{n} 0 0 1\r\nx")), "STORED"));
        // It may look before the last of them.
        pair.wait_for_sidecar("the peer holds 100 items that this server did not send; it has ");
        assert_eq!((items(&mut standby), standby.line("mg key99 s")), (100, "HD s1".into()));
        assert_eq!(pair.number("consumers"), 0);
        assert!(control(pair.socket(), "meet name identity").starts_with("met 49 "));
        // It is a cache again.
        assert_eq!(client.line("set new49 0 0 1\r\nx"), "STORED");
        pair.settle();
        assert_eq!((standby.line("mg key99 s"), standby.line("mg new49 s")), ("EN".into(), "HD s1".into()));
    }
}

#[test]
fn a_peer_that_speaks_no_meta_protocol() {
    let socket = scratch("control");
    let _primary = start_primary(&socket, &[]);
    let Some(binary_only) = Server::reference(&["-B", "binary"]) else { return };
    Sidecar::start(&*socket, binary_only.addr, &[]).says("text port");
}

#[test]
fn a_socket_that_others_can_open() {
    let socket = scratch("control");
    let primary = start_primary(&socket, &[]);
    assert_eq!(std::fs::metadata(&*socket).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&*socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    Sidecar::start(&*socket, primary.addr, &[]).says("chmod 600");
}

#[test]
fn a_socket_that_is_not_there() {
    let nowhere = scratch("nowhere");
    Sidecar::start(&*nowhere, "127.0.0.1:1".parse().unwrap(), &[]).says(nowhere.to_str().unwrap());
}
