//! What a server tells of the time that requests take, against the running server.

mod common;

use common::{Conn, Packet, Server};
use std::collections::BTreeMap;

fn kinds(conn: &mut Conn) -> BTreeMap<String, f64> {
    conn.stats("latency").into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect()
}

/// How many there were of each kind, but for the turns.
fn counts(conn: &mut Conn) -> [u64; 8] {
    let all = kinds(conn);
    ["get", "multiget", "set", "delete", "arith", "touch", "meta", "other"]
        .map(|kind| all[&format!("{kind}:count")] as u64)
}

#[test]
fn each_request_counts_once_by_its_kind() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    assert_eq!(conn.line("stats reset"), "RESET");
    // `stats reset` itself is over when the turn is.
    assert_eq!(counts(&mut conn), [0, 0, 0, 0, 0, 0, 0, 1]);
    for (request, end) in [
        ("set a 0 0 1\r\n1\r\n", "STORED\r\n"),
        ("append a 0 0 1\r\n1\r\n", "STORED\r\n"),
        ("get a\r\n", "END\r\n"),
        ("gets a\r\n", "END\r\n"),
        ("get a b c\r\n", "END\r\n"),
        ("gat 0 a\r\n", "END\r\n"),
        ("touch a 0\r\n", "TOUCHED\r\n"),
        ("incr a 1\r\n", "12\r\n"),
        ("delete b\r\n", "NOT_FOUND\r\n"),
        ("mg a v\r\n", "12\r\n"),
        ("ms m 1\r\n1\r\n", "HD\r\n"),
        ("mn\r\n", "MN\r\n"),
        ("nonsense\r\n", "ERROR\r\n"),
    ] {
        conn.ask(request.as_bytes(), end.as_bytes());
    }
    assert_eq!(counts(&mut conn), [2, 1, 2, 1, 1, 2, 3, 3]);
    let mut binary = server.connect();
    binary.ask(&Packet::new(0x00, b"a", b"").request(), b"12");
    binary.ask(&Packet::new(0x0b, b"", b"").request(), b"1.6.45");
    let other = server.connect().stats("latency").len();
    assert_eq!(other, 9 * 6);
}

#[test]
fn many_requests_at_once_count_as_many() {
    let server = Server::start(&["-t", "1", "-I", "2m"]);
    let mut conn = server.connect();
    let value = "x".repeat(1 << 20);
    conn.ask(format!("set large 0 0 {}\r\n{value}\r\n", value.len()).as_bytes(), b"STORED\r\n");
    let many = "get large ".to_owned() + &"none ".repeat(3000) + "large\r\n";
    conn.ask(many.as_bytes(), b"END\r\n");
    conn.ask(("get none\r\n".repeat(1000) + "mn\r\n").as_bytes(), b"MN\r\n");
    conn.ask(("set k 0 0 1 noreply\r\n1\r\n".repeat(1000) + "mn\r\n").as_bytes(), b"MN\r\n");
    assert_eq!(counts(&mut conn), [1000, 1, 1001, 0, 0, 0, 2, 0]);
}

#[test]
fn quantiles_and_buckets_agree() {
    let server = Server::start(&["-t", "1"]);
    let mut conn = server.connect();
    for _ in 0..200 {
        conn.ask(b"get none\r\n", b"END\r\n");
    }
    let told = kinds(&mut conn);
    let of = |name: &str| told[&format!("get:{name}")];
    assert_eq!(of("count"), 200.0);
    let quantiles = ["p50_us", "p90_us", "p99_us", "p999_us", "max_us"].map(of);
    assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{quantiles:?}");
    assert!(told["turn:count"] >= 200.0);
    let buckets = conn.stats("latency buckets");
    let rows: Vec<_> = buckets.iter().filter_map(|(name, value)| Some((name.strip_prefix("get:")?, value))).collect();
    assert_eq!(rows[0], ("count", &"200".to_owned()));
    let sum: f64 = rows[1].1.parse().unwrap();
    assert!(rows[1].0 == "sum_ns" && sum / 200.0 / 1e3 <= of("max_us"));
    let bounds: Vec<u64> = rows[2..].iter().map(|(bound, _)| bound.parse().unwrap()).collect();
    let counts: Vec<u64> = rows[2..].iter().map(|(_, count)| count.parse().unwrap()).collect();
    assert!(bounds.is_sorted() && counts.iter().all(|&count| count > 0));
    assert_eq!(counts.iter().sum::<u64>(), 200);
    assert!(*bounds.last().unwrap() as f64 / 1e3 > of("max_us") * 0.99);
    assert_eq!(conn.line("stats latency bucket"), "CLIENT_ERROR usage: stats latency [buckets]");
    assert_eq!(conn.line("stats reset"), "RESET");
    let told = kinds(&mut conn);
    assert_eq!((told["get:count"], told["get:max_us"]), (0.0, 0.0));
}

#[test]
fn nothing_is_measured_when_it_is_off() {
    let server = Server::start(&["-o", "no_latency"]);
    let mut conn = server.connect();
    conn.ask(b"get none\r\n", b"END\r\n");
    assert_eq!(conn.line("stats latency"), "END");
    assert_eq!(conn.line("stats latency buckets"), "END");
}
