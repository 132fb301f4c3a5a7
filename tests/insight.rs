//! What a server tells of the time that requests take, and of the keys that are asked for most, against the running server.

mod common;

use common::{Conn, Packet, Server, wait_for};
use std::collections::BTreeMap;
use std::time::Duration;

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

fn hot_keys(conn: &mut Conn, argument: &str) -> BTreeMap<String, String> {
    conn.stats(&format!("hotkeys{argument}")).into_iter().collect()
}

fn percent(told: &BTreeMap<String, String>, rank: u32) -> f64 {
    told[&format!("{rank}:percent")].parse().unwrap()
}

/// Half of the gets are of one key, and a fifth of all are sets of another one.
#[test]
fn hot_keys_are_told_by_rank() {
    let server = Server::start(&["-t", "2"]);
    let mut conns = [server.connect(), server.connect(), server.connect()];
    let value = "x".repeat(1000);
    conns[0].ask(format!("set h\u{e9}%t 0 0 1000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
    for round in 0..2000 {
        let batch: String = (0..8).map(|i| format!("get h\u{e9}%t\r\nget cold{round}_{i}\r\n")).collect();
        let sets = format!("set written 0 0 100 noreply\r\n{}\r\n", &value[..100]).repeat(4);
        conns[round % 3].ask(format!("{batch}{sets}mn\r\n").as_bytes(), b"MN\r\n");
    }
    let told = hot_keys(&mut conns[0], " 3");
    assert_eq!(told["seconds"], "60");
    let of = |name: &str| told[name].parse::<f64>().unwrap();
    // 2000 requests of 20 keys: 625 samples.
    assert!((30_000.0..50_000.0).contains(&of("operations")), "{told:?}");
    assert_eq!((&*told["1:key"], &*told["2:key"]), ("h%C3%A9%25t", "written"));
    assert!((30.0..50.0).contains(&percent(&told, 1)) && (13.0..27.0).contains(&percent(&told, 2)), "{told:?}");
    assert_eq!((of("1:reads"), of("1:writes")), (of("1:operations"), 0.0));
    assert_eq!((of("2:reads"), of("2:writes")), (0.0, of("2:operations")));
    assert!(of("1:bytes_sent") == 1000.0 * of("1:reads") && of("1:bytes_received") == 0.0, "{told:?}");
    assert_eq!((of("2:bytes_sent"), of("2:bytes_received")), (0.0, 100.0 * of("2:writes")));
    assert_eq!(told.keys().filter(|name| name.ends_with(":key")).count(), 3);
    assert_eq!(hot_keys(&mut conns[1], "").keys().filter(|name| name.ends_with(":key")).count(), 20, "the default");
    assert_eq!(conns[0].line("stats hotkeys x"), "CLIENT_ERROR usage: stats hotkeys [number]");
}

#[test]
fn keys_of_multigets_and_large_values_are_hot_as_well() {
    let server = Server::start(&["-t", "1"]);
    let mut conn = server.connect();
    let many = "get ".to_owned() + &"a b c d ".repeat(25) + "\r\n";
    for _ in 0..200 {
        conn.ask(many.as_bytes(), b"END\r\n");
    }
    let large = format!("set large 0 0 30000\r\n{}\r\n", "x".repeat(30_000));
    let mut other = server.connect();
    for _ in 0..1000 {
        other.ask(large.as_bytes(), b"STORED\r\n");
    }
    let told = hot_keys(&mut conn, "");
    assert!((1..=4).all(|rank| (12.0..40.0).contains(&percent(&told, rank))), "{told:?}");
    let of = |name: &str| told[&format!("5:{name}")].as_str();
    assert_eq!((of("key"), of("reads")), ("large", "0"));
    assert_eq!(of("bytes_received").parse::<u64>().unwrap(), 30_000 * of("writes").parse::<u64>().unwrap());
}

#[test]
fn hot_keys_are_watched() {
    let server = Server::start(&["-t", "1"]);
    let mut watcher = server.connect();
    assert_eq!(watcher.line("watch hotkeys"), "OK");
    let mut conn = server.connect();
    let line = wait_for("a line", || {
        conn.ask(("get hot\r\n".repeat(200) + "mn\r\n").as_bytes(), b"MN\r\n");
        watcher.read_until(Duration::from_millis(20), |bytes| bytes.ends_with(b"\n"));
        let text = String::from_utf8_lossy(&watcher.got).into_owned();
        text.lines().next().map(str::to_owned)
    });
    let fields: Vec<&str> = line.split(' ').map(|field| field.split('=').next().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "ts",
            "gid",
            "type",
            "rank",
            "key",
            "operations",
            "percent",
            "reads",
            "writes",
            "bytes_sent",
            "bytes_received"
        ]
    );
    assert!(line.contains(" rank=1 key=hot "), "{line}");
    assert_eq!(conn.line("watch hotkey"), "ERROR");
}

#[test]
fn hot_keys_can_be_off_and_are_keys() {
    let server = Server::start(&["-o", "no_hotkeys"]);
    let mut conn = server.connect();
    conn.ask(("get hot\r\n".repeat(1000) + "mn\r\n").as_bytes(), b"MN\r\n");
    let told = hot_keys(&mut conn, "");
    assert_eq!((told["operations"].as_str(), told["seconds"].as_str()), ("0", "0"));
    assert_eq!(conn.line("watch evictions hotkeys"), "CLIENT_ERROR hotkeys are off: -o no_hotkeys");
    let server = Server::start(&["-X"]);
    let mut conn = server.connect();
    assert_eq!(conn.line("stats hotkeys"), "CLIENT_ERROR stats hotkeys not allowed");
}

/// Asks for a key that lives 3 seconds until it is gone. How often it missed before that.
fn early_misses(conn: &mut Conn, key: &str) -> usize {
    conn.ask(format!("set {key} 0 3 1\r\nx\r\n").as_bytes(), b"STORED\r\n");
    let batch = format!("get {key}\r\n").repeat(16) + "mn\r\n";
    let mut missed = 0;
    loop {
        let reply = conn.ask(batch.as_bytes(), b"MN\r\n");
        let hits = reply.windows(5).filter(|window| window == b"VALUE").count();
        if hits == 0 {
            return missed;
        }
        // The last ones may be those of an item that has just expired.
        missed += usize::from(hits == 15);
    }
}

#[test]
fn a_hot_item_is_missed_once_a_second_before_it_expires() {
    let server = Server::start(&["-t", "1", "-o", "refresh_ahead=70,prefix=p:"]);
    let mut conn = server.connect();
    // On a machine that stands still nothing is hot.
    let missed = wait_for("an early miss", || Some(early_misses(&mut conn, "p:hot")).filter(|&missed| missed > 0));
    let counted = conn.number("twincache", "refresh_ahead_misses");
    assert!(counted >= 1 && missed <= 5, "{counted} early misses, {missed} of the last item");
    early_misses(&mut conn, "other");
    assert_eq!(conn.number("twincache", "refresh_ahead_misses"), counted);
    assert_eq!(conn.line("stats reset"), "RESET");
    assert_eq!(conn.number("twincache", "refresh_ahead_misses"), 0);
}

#[test]
fn a_prefix_needs_what_it_is_for() {
    let refused = Server::try_start(&["-o", "prefix=p:"]).err().expect("it says nothing");
    assert!(refused.contains("refresh_ahead"), "{refused}");
    let refused = Server::try_start(&["-o", "refresh_ahead=100"]).err().expect("there is no such share");
    assert!(refused.contains("between 1 and 99"), "{refused}");
    assert_eq!(Server::start(&[]).connect().find_stat("twincache", "refresh_ahead_misses"), None);
}
