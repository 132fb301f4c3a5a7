//! Datagrams in, datagrams out.

use super::*;
use crate::stats::ConnInfo;
use crate::testing::{TestServer, packet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32};

/// The answer to a datagram of request 7: `sequence/total text` of each.
fn ask(server: &TestServer, text: &str) -> Vec<String> {
    let datagram = [b"\0\x07\0\0\0\x01\0\0".as_slice(), text.replace('|', "\r\n").as_bytes()].concat();
    told(&raw(server, &datagram, false))
}

fn raw(server: &TestServer, datagram: &[u8], waits: bool) -> Vec<Vec<u8>> {
    let (mut out, mut reply) = (Output::default(), UdpAnswer::default());
    let mut context = Context { joined_at_once: ANSWER_MAX, ..server.context() };
    answer(datagram, waits, &mut context, &mut out, &mut reply);
    assert!(out.is_empty());
    let mut all = Vec::new();
    while let Some(bytes) = reply.next() {
        all.push(bytes.to_vec());
        reply.advance();
    }
    reply.clear();
    assert!(reply.next().is_none());
    all
}

fn told(datagrams: &[Vec<u8>]) -> Vec<String> {
    let one = |bytes: &Vec<u8>| {
        let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!((number(0), number(6)), (7, 0));
        format!("{}/{} {}", number(2), number(4), String::from_utf8_lossy(&bytes[8..]).replace("\r\n", "|"))
    };
    datagrams.iter().map(one).collect()
}

#[test]
fn each_request_is_a_message() {
    let server = TestServer::new(|_| {});
    assert_eq!(ask(&server, "set a 0 0 1|A|set b 0 0 1 noreply|B|get a|"), ["0/1 STORED|", "0/1 VALUE a 0 1|A|END|"]);
    assert_eq!(ask(&server, "get a b|"), ["0/1 VALUE a 0 1|A|", "0/1 VALUE b 0 1|B|END|"]);
    assert_eq!(ask(&server, "mn|foo|mg a v|"), ["0/1 MN|", "0/1 ERROR|", "0/1 VA 1|A|"]);
    assert_eq!(ask(&server, "mg none v q|get a|get"), ["0/1 VALUE a 0 1|A|END|"]);
    assert_eq!(ask(&server, "gats 100 a b|").len(), 2);
}

#[test]
fn what_an_append_copies_counts_as_requests() {
    let server = TestServer::new(|_| {});
    for (len, answers) in [(100_000, 11), (200_000, 6), (1_000_000, 2)] {
        server.check(&[(&format!("set k 0 0 {len}|{}|", "v".repeat(len)), "STORED|")]);
        let requests = "append k 0 0 1|x|".repeat(10) + "mn|";
        assert_eq!(ask(&server, &requests).len(), answers, "to {len} bytes");
    }
}

#[test]
fn connections_are_listed_as_far_as_they_fit() {
    let server = TestServer::new(|_| {});
    for (count, ends) in [(1, "END|"), (300, "END|"), (20_000, "SERVER_ERROR reply too large for UDP|")] {
        for fd in 0..count {
            let (addr, listen_addr) = ("tcp:127.0.0.1:1".into(), None);
            let info = ConnInfo { fd, addr, listen_addr, state: AtomicU8::new(1), last_cmd: AtomicU32::new(2) };
            server.shared.stats.conns.lock().unwrap().insert(fd, Arc::new(info));
        }
        let answers = ask(&server, "stats conns|mn|");
        assert!(answers[answers.len() - 2].ends_with(ends) && answers[answers.len() - 1] == "0/1 MN|", "{count}");
        let text: String = answers.iter().map(|answer| answer.split_once(' ').unwrap().1).collect();
        assert_eq!(text.matches(":addr ").count(), if count < 20_000 { count as usize } else { 0 });
    }
}

#[test]
fn compat_udp_empty_message() {
    let server = TestServer::new(|_| {});
    ask(&server, "set a 0 0 1|A|");
    assert_eq!(ask(&server, "get x a|"), ["0/0 ", "0/1 VALUE a 0 1|A|END|"]);
    assert_eq!(ask(&server, "get x y|"), ["0/0 ", "0/1 END|"]);
    assert_eq!(ask(&server, "get x|"), ["0/1 END|"]);
    assert_eq!(ask(&server, "get x y z a|"), ["0/0 ", "0/1 VALUE a 0 1|A|END|"]);
    assert_eq!(ask(&server, "get a x a|"), ["0/1 VALUE a 0 1|A|", "0/1 VALUE a 0 1|A|END|"]);
    assert_eq!(ask(&server, "get a x|"), ["0/1 VALUE a 0 1|A|", "0/1 END|"]);
    assert_eq!(ask(&server, "mn|quit|get a|"), ["0/1 MN|"]);
    let (quiet, noop) = (packet(0x09, b"", b"x", b"", 0, 0), packet(0x0a, b"", b"", b"", 0, 0));
    let sizes = |packets: &[&[u8]]| {
        let datagram = [b"\0\x07\0\0\0\x01\0\0", packets.concat().as_slice()].concat();
        raw(&server, &datagram, false).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&[&quiet]), [8]);
    assert_eq!(sizes(&[&quiet, &quiet, &noop, &quiet, &noop]), [8, 32, 8, 32]);
}

#[test]
fn what_is_not_whole_is_not_answered() {
    let server = TestServer::new(|_| {});
    for text in ["", "g", "get a", "set a 0 0 10|abc", "set a 0 0 2000000|", "set a 0 0 1|"] {
        assert!(ask(&server, text).is_empty(), "{text}");
    }
    for header in [b"\0\x07\0\0\0\0\0\0", b"\0\x07\0\0\0\x02\0\0", b"\0\x07\0\0\x01\x01\0\0"] {
        assert!(raw(&server, &[header.as_slice(), b"mn\r\n"].concat(), false).is_empty());
    }
    for len in 0..8 {
        assert!(raw(&server, &b"\0\x07\0\0\0\x01\0\0"[..len], false).is_empty());
    }
    // Sequence and what is reserved do not matter.
    assert_eq!(raw(&server, b"\0\x07\0\x09\0\x01\x05\x05mn\r\n", false), [b"\0\x07\0\0\0\x01\0\0MN\r\n"]);
}

#[test]
fn long_messages_are_cut() {
    let server = TestServer::new(|_| {});
    for len in [1, PAYLOAD - 30, PAYLOAD, 3000, 20_000, 300_000, (1 << 20) - 200] {
        let value: String = (0..len).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
        server.check(&[(&format!("set k 0 0 {len}|{value}|"), "STORED|")]);
        let datagrams = raw(&server, b"\0\x07\0\0\0\x01\0\0get k\r\n", false);
        let expected = format!("VALUE k 0 {len}\r\n{value}\r\nEND\r\n");
        let joined: Vec<u8> = datagrams.iter().flat_map(|datagram| datagram[8..].to_vec()).collect();
        assert!(joined == expected.as_bytes(), "{len}");
        assert_eq!(datagrams.len(), expected.len().div_ceil(PAYLOAD));
        for (i, datagram) in datagrams.iter().enumerate() {
            let header = [0, 7, 0, 0, 0, 0, 0, 0];
            let [high, low] = (i as u16).to_be_bytes();
            let [total_high, total_low] = (datagrams.len() as u16).to_be_bytes();
            assert_eq!(datagram[..8], [header[0], header[1], high, low, total_high, total_low, 0, 0]);
            assert!(datagram.len() == DATAGRAM || i + 1 == datagrams.len());
        }
    }
}

#[test]
fn an_answer_is_bounded() {
    let server = TestServer::new(|config| config.store.item_size_max = 8 << 20);
    let value = "x".repeat(3 << 20);
    server.check(&[(&format!("set large 0 0 {}|{value}|", value.len()), "STORED|")]);
    assert_eq!(ask(&server, "get large|mn|"), ["0/1 SERVER_ERROR reply too large for UDP|", "0/1 MN|"]);
    let get = [b"\0\x07\0\0\0\x01\0\0".as_slice(), &packet(0x00, b"", b"large", b"", 0, 0)].concat();
    assert!(told(&raw(&server, &get, false))[0].ends_with("Too large."));
    let value = "x".repeat(400_000);
    server.check(&[(&format!("set k 0 0 {}|{value}|", value.len()), "STORED|")]);
    let bytes = |text: &str| ask(&server, text).iter().map(String::len).sum::<usize>();
    assert!(bytes(&format!("get{}|", " k".repeat(100))) < 2 * ANSWER_MAX);
    assert!(bytes(&"get k|".repeat(100)) < 2 * ANSWER_MAX);
    for text in ["|".repeat(5000), format!("get{}|", " x".repeat(5000)), "quit x|".repeat(5000)] {
        assert!(ask(&server, &text).len() <= REQUESTS_MAX, "{text:.20}");
    }
}

#[test]
fn an_append_is_bounded_and_its_refusal_is_in_the_words_of_its_client() {
    let server = TestServer::new(|config| config.store.item_size_max = 8 << 20);
    let value = "x".repeat(1 << 20);
    server.check(&[(&format!("set k 0 0 {}|{value}|", value.len()), "STORED|")]);
    let too_long = "0/1 SERVER_ERROR value too large to append to over UDP|";
    let y = "y".repeat(2000);
    assert_eq!(ask(&server, &format!("append k 0 0 2000|{y}|")), [too_long]);
    assert_eq!(ask(&server, &format!("ms k 2000 MP q|{y}|")), [too_long]);
    assert!(ask(&server, &format!("append k 0 0 2000 noreply|{y}|")).is_empty());
    let binary = |opcode, len: usize| {
        let packet = packet(opcode, b"", b"k", &y.as_bytes()[..len], 9, 0);
        raw(&server, &[b"\0\x07\0\0\0\x01\0\0".as_slice(), &packet].concat(), false)
    };
    for opcode in [0x0e, 0x0f, 0x19, 0x1a] {
        let [answer] = &binary(opcode, 2000)[..] else { panic!("one answer") };
        assert_eq!((answer[8], answer[9], &answer[14..16], answer[23]), (0x81, opcode, &[0, 3][..], 9));
    }
    assert_eq!(ask(&server, "mg k s|"), [format!("0/1 HD s{}|", value.len())], "nothing was done");
    // As far as it may go, all is as with small values.
    assert_eq!(ask(&server, "append k 0 0 1|y|"), ["0/1 STORED|"]);
    assert!(ask(&server, "append k 0 0 1 noreply|y|").is_empty());
    assert_eq!(binary(0x0e, 1)[0].len(), 8 + 24);
    assert_eq!(binary(0x19, 1), [[0, 7, 0, 0, 0, 0, 0, 0]], "COMPAT(udp_empty_message)");
    assert_eq!(ask(&server, "mg k s|"), [format!("0/1 HD s{}|", value.len() + 4)]);
}

#[test]
fn what_needs_a_connection_is_not_done() {
    let server = TestServer::new(|config| config.shutdown_command = true);
    assert_eq!(ask(&server, "shutdown|mn|"), ["0/1 SERVER_ERROR shutdown is not done over UDP|", "0/1 MN|"]);
    let off = TestServer::new(|_| {});
    assert_eq!(ask(&off, "shutdown|mn|"), ["0/1 SERVER_ERROR: shutdown not enabled|", "0/1 MN|"]);
    assert_eq!(ask(&server, "watch fetchers|mn|"), ["0/1 MN|"]);
    assert_eq!(ask(&server, "lru_crawler metadump all|mn|"), ["0/1 MN|"]);
    assert_eq!(ask(&server, "replica x|mn|"), ["0/1 ERROR|", "0/1 MN|"]);
}

#[test]
fn changes_that_must_wait_are_refused() {
    let server = TestServer::new(|_| {});
    ask(&server, "set a 0 0 1|A|");
    let said = raw(&server, b"\0\x07\0\0\0\x01\0\0set a 0 0 1\r\nB\r\nget a\r\n", true);
    let expected = ["0/1 SERVER_ERROR changes over UDP cannot wait for replicas|", "0/1 VALUE a 0 1|A|END|"];
    assert_eq!(told(&said), expected);
}
