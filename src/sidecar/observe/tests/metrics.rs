//! The text of `/metrics`: its form, and the names that dashboards ask for.

use super::*;
use crate::sidecar::observe::figures::Stage;
use crate::sidecar::server_socket::StatRows;
use std::collections::BTreeSet;

fn streaming() -> Figures {
    let (phase, lag) = (PeerPhase::Attached(Stage::Clean), Some(Duration::from_millis(1500)));
    Figures { phase, lag, head: 9, confirmed: 7, kind: "twincached".into(), ..Figures::default() }
}

fn rows(rows: &[(&str, &str)]) -> StatRows {
    rows.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn server() -> ServerStats {
    ServerStats {
        general: rows(&[
            ("version", "1.6.45"),
            ("uptime", "7"),
            ("rusage_user", "1.250000"),
            ("cmd_set", "10"),
            ("cas_hits", "2"),
            ("cas_misses", "1"),
            ("cas_badval", "1"),
            ("get_hits", "5"),
            ("time", "not a number"),
        ]),
        settings: rows(&[("maxconns", "1024"), ("lru_crawler", "yes"), ("lru_maintainer_thread", "no")]),
        items: rows(&[("items:3:number", "4"), ("items:3:hits_to_cold", "8"), ("items:3:mem_requested", "96")]),
        slabs: rows(&[("3:chunk_size", "120"), ("3:cmd_set", "6"), ("active_slabs", "1"), ("total_malloced", "65536")]),
        own: rows(&[("ghost_hits", "11")]),
        hot_keys: rows(&[
            ("seconds", "60"),
            ("operations", "640"),
            ("1:key", "a%20b"),
            ("1:operations", "320"),
            ("1:percent", "50.00"),
            ("1:reads", "256"),
            ("1:writes", "64"),
            ("1:bytes_sent", "1000"),
            ("2:key", "c"),
            ("2:reads", "64"),
        ]),
        buckets: rows(&[
            ("get:count", "10"),
            ("get:sum_ns", "1500000"),
            ("get:9984", "4"),
            ("get:10112", "5"),
            ("get:20000000000", "1"),
            ("turn:count", "1"),
            ("turn:sum_ns", "5"),
            ("turn:8", "1"),
        ]),
        replication: rows(&[
            ("run_id", "0011223344556677"),
            ("role", "standby"),
            ("lsn", "12"),
            ("copy", "whole"),
            ("copy_silent_ms", "250"),
            ("0:name", "a:1"),
            ("0:lag_bytes", "5"),
            ("1:name", "b:2"),
            ("1:lag_ms", "6"),
            ("1:state", "walking"),
        ]),
        ..ServerStats::default()
    }
}

/// Checks the form: HELP and TYPE before the samples of a name, no name and no sample twice; and the rules for names
/// that promtool has.
fn check(text: &str) {
    let (mut families, mut samples, mut family, mut kind) = (BTreeSet::new(), BTreeSet::new(), "", "");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let help;
            (family, help) = rest.split_once(' ').expect("a help text");
            assert!(families.insert(family), "{family} twice");
            assert!(help.ends_with('.'), "{family}: {help}");
            kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {family} "))).expect("a type");
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{family}: {kind:?}");
            assert!(family.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{family}");
            assert_eq!(kind == "counter", family.ends_with("_total"), "{family}");
            assert!(!["_ms", "_us", "_ns"].iter().any(|end| family.ends_with(end)), "{family}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().unwrap();
        let name = match kind {
            "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name),
            _ => name,
        };
        assert!(name == family && value.parse::<f64>().is_ok() && samples.insert(series), "{line}");
        assert!(!series.contains('{') || (series.ends_with("\"}") && series.contains("=\"")), "{line}");
    }
}

/// A healthy pair has two: an alert sounds where there are fewer.
#[test]
fn an_owner_counts_among_those_in_sync() {
    let lease = |node: &str, owner: &str, members: &[&str]| LeaseStatus {
        node: node.into(),
        owner: owner.into(),
        is_member: members.contains(&node),
        members: members.iter().map(|name| (*name).to_owned()).collect(),
        ..LeaseStatus::default()
    };
    for (node, owner, members, in_sync, count) in [
        ("a", "a", &["b"][..], 1, 2),
        ("b", "a", &["b"], 1, 2),
        ("c", "a", &["b"], 0, 2),
        ("a", "a", &[], 1, 1),
        ("b", "", &["a", "b"], 1, 2),
        ("a", "", &[], 0, 0),
    ] {
        let text = metrics(&[], Some(&lease(node, owner, members)), &Err("no".into()), (&[], false));
        for (name, value) in [("in_sync", in_sync), ("members", count)] {
            let line = format!("twincache_shard_{name}{{shard=\"\",node=\"{node}\"}} {value}\n");
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}

#[test]
fn the_format_is_prometheus() {
    let peers = [("a:1".to_owned(), streaming()), ("b\"\\:2".to_owned(), Figures::default())];
    let lease = LeaseStatus { shard: "s".into(), node: "n".into(), epoch: 7, ..LeaseStatus::default() };
    let text = metrics(&peers, Some(&lease), &Ok(server()), (&[], false));
    check(&text);
    for line in [
        "twincache_sidecar_lag_changes{peer=\"a:1\"} 2",
        "twincache_sidecar_lag_seconds{peer=\"a:1\"} 1.500",
        "twincache_sidecar_peer_state{peer=\"a:1\",state=\"streaming\"} 1",
        "twincache_sidecar_peer_info{peer=\"b\\\"\\\\:2\",kind=\"\"} 1",
        "twincached_up 1",
        "twincached_role{role=\"standby\"} 1",
        "twincached_role{role=\"primary\"} 0",
        "twincached_copy_state{state=\"whole\"} 1",
        "twincached_copy_silent_seconds 0.250",
        "twincached_replication_lsn 12",
        "twincached_consumer_lag_bytes{consumer=\"a:1\"} 5",
        "twincached_consumer_lag_seconds{consumer=\"b:2\"} 0.006",
        "twincached_consumer_state{consumer=\"b:2\",state=\"walking\"} 1",
        "twincached_run_info{run_id=\"0011223344556677\"} 1",
        "twincached_ghost_hits_total 11",
        "twincached_request_duration_seconds_bucket{kind=\"get\",le=\"0.00001\"} 4",
        "twincached_request_duration_seconds_bucket{kind=\"get\",le=\"0.00002\"} 9",
        "twincached_request_duration_seconds_bucket{kind=\"get\",le=\"10\"} 9",
        "twincached_request_duration_seconds_bucket{kind=\"get\",le=\"+Inf\"} 10",
        "twincached_request_duration_seconds_sum{kind=\"get\"} 0.0015",
        "twincached_request_duration_seconds_count{kind=\"get\"} 10",
        "twincached_loop_turn_duration_seconds_bucket{le=\"0.00001\"} 1",
        "twincache_shard_epoch{shard=\"s\",node=\"n\"} 7",
        "twincache_shard_has_owner{shard=\"s\",node=\"n\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let text = metrics(&peers, None, &Err("no".into()), (&[], false));
    check(&text);
    assert!(text.contains("\ntwincached_up 0\n") && text.contains("\nmemcached_up 0\n"));
    assert!(!text.contains("memcached_uptime") && !text.contains("twincache_shard"));
}

#[test]
fn hot_keys_are_named_only_if_that_is_asked_for() {
    let text = |shows_keys| metrics(&[], None, &Ok(server()), (&[], shows_keys));
    let hidden = text(false);
    check(&hidden);
    assert!(hidden.contains("\ntwincached_hot_key_operations{rank=\"1\",kind=\"read\"} 256\n"), "{hidden}");
    assert!(hidden.contains("\ntwincached_hot_key_bytes{rank=\"1\",direction=\"sent\"} 1000\n"), "{hidden}");
    assert!(!hidden.contains("a%20b"));
    let shown = text(true);
    check(&shown);
    assert!(shown.contains("\ntwincached_hot_key_operations{rank=\"1\",kind=\"write\",key=\"a%20b\"} 64\n"), "{shown}");
}

/// Dashboards ask for these, letter for letter.
#[test]
fn the_server_is_told_as_the_exporter_does() {
    let text = metrics(&[], None, &Ok(server()), (&[], false));
    for line in [
        "memcached_up 1",
        "memcached_version{version=\"1.6.45\"} 1",
        "memcached_uptime_seconds 7",
        "memcached_process_user_cpu_seconds_total 1.250000",
        "memcached_commands_total{command=\"get\",status=\"hit\"} 5",
        "memcached_commands_total{command=\"set\",status=\"hit\"} 6",
        "memcached_commands_total{command=\"cas\",status=\"badval\"} 1",
        "memcached_max_connections 1024",
        "memcached_lru_crawler_enabled 1",
        "memcached_lru_crawler_maintainer_thread 0",
        "memcached_malloced_bytes 65536",
        "memcached_slab_current_items{slab=\"3\"} 4",
        "memcached_slab_lru_hits_total{slab=\"3\",lru=\"cold\"} 8",
        "memcached_slab_chunk_size_bytes{slab=\"3\"} 120",
        "memcached_slab_mem_requested_bytes{slab=\"3\"} 96",
        "memcached_slab_commands_total{slab=\"3\",command=\"set\",status=\"hit\"} 6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("memcached_time_seconds"), "what is no number makes no sample");
}

#[test]
fn certificates_say_when_they_end() {
    let folder = std::env::temp_dir().join(format!("twincache-certificates-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = |name: &str, year: i32| {
        let mut options = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        options.not_after = rcgen::date_time_ymd(year, 1, 1);
        options.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    let (chain, own, none) = ["chain", "own", "none"].map(|name| folder.join(name).display().to_string()).into();
    std::fs::write(&chain, made("a", 2035) + &made("b", 2030)).unwrap();
    std::fs::write(&own, made("c", 2040)).unwrap();
    std::fs::write(&none, "no certificate").unwrap();
    let settings = rows(&[("ssl_chain_cert", &chain)]);
    let server = Ok(ServerStats { settings, ..ServerStats::default() });
    let text = metrics(&[], None, &server, (&[own.clone(), none.clone(), own.clone()], false));
    for (file, end) in [(&chain, 1_893_456_000), (&own, 2_208_988_800_i64)] {
        let line = format!("twincache_certificate_end_time_seconds{{file=\"{file}\"}} {end}");
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(&none));
    std::fs::remove_dir_all(&folder).unwrap();
}
