//! The arithmetic, and that the figures agree with those that they come from.

use super::*;
use crate::protocol::change::{self, Expiry, ItemState, PeerKeys, WireKey};

fn planned(line: &str) -> Vec<PlanStep> {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    steps(&read(&words).expect(line))
}

fn value(line: &str, what: &str) -> f64 {
    let steps = planned(line);
    steps.iter().find(|step| step.what == what).unwrap_or_else(|| panic!("{line}: no {what}")).value
}

fn is_about(is: f64, wanted: f64) {
    assert!((is / wanted - 1.0).abs() < 0.01, "{is}, wanted {wanted}");
}

#[test]
fn requests_items_and_memory() {
    let line = "users=1000 rate=2 growth=50 reads=90 items=4 hot=25 key=32 value=230";
    assert_eq!(
        (value(line, "requests/s"), value(line, "items alive"), value(line, "items held")),
        (3000.0, 6000.0, 1500.0)
    );
    is_about(value(line, "writes/s"), 300.0);
    is_about(value(line, "memory"), 1500.0 * 298.0 / 0.98);
    is_about(value(&format!("{line} ttl=10"), "items alive"), 3000.0);
    is_about(value(&format!("{line} ttl=1000000"), "items alive"), 6000.0);
    // The README's table: bytes of key and value for each byte of -m.
    is_about(262.0 / value(line, "bytes an item"), 0.862);
}

#[test]
fn each_of_the_three_can_be_the_reason() {
    let memory = "users=1e6 rate=0.001 items=1000 value=1000 growth=0 memory=16";
    is_about(
        value(memory, "shards for memory"),
        (1e9_f64 * 1068.0 / 0.98 / ((16384.0 - 64.4) * 1048576.0 / 1.06)).ceil(),
    );
    assert_eq!(value(memory, "shards"), value(memory, "shards for memory"));
    let cpu = "users=1e6 rate=1 items=0 value=0 growth=0 reads=100 cores=1 busy=100 network=1000";
    assert_eq!((value(cpu, "shards"), value(cpu, "nodes")), (10.0, 20.0));
    let network = "users=1e5 rate=1 items=0 value=100000 growth=0 reads=100 cores=64 network=10 busy=100";
    assert_eq!(value(network, "shards"), 9.0);
    assert_eq!(value("users=1 rate=0 items=0", "nodes"), 2.0);
}

#[test]
fn what_a_lost_node_means() {
    let line = "users=1e6 rate=1 items=0 value=0 growth=0 reads=100 cores=1 busy=100 network=1000";
    is_about(value(line, "a node is lost: busy"), 90.36);
    let alone = format!("{line} copies=1");
    is_about(value(&alone, "a node is lost: busy"), 9.036 / 9.0 * 100.0);
    is_about(value(&alone, "misses/s at first"), 1e5);
    assert_eq!(value(&alone, "stream"), 0.0);
}

#[test]
fn bytes_of_a_change_are_those_of_the_stream() {
    let (key, len) = ([b'k'; 32], 300);
    let state =
        ItemState { expiry: Expiry::at(1_800_000_000, 1_700_000_000), cas: Some(1 << 50), stale: false, win: false };
    let mut out = Vec::new();
    change::set(WireKey::new(&key, false, PeerKeys::All).unwrap(), len, 12345, &state, &mut out);
    out.resize(out.len() + len, b'x');
    change::set_end(WireKey::new(&key, false, PeerKeys::All).unwrap(), &state, &mut out);
    let more = (out.len() - key.len() - len) as f64;
    assert!((STREAM_BYTES - more).abs() <= 4.0, "a change has {more} bytes more");
}

#[test]
fn inputs_are_what_people_type() {
    let read = |word: &str, name: &str| {
        let at = INPUTS.iter().position(|row| row.name == name).unwrap();
        read(&[format!("{name}={word}")]).expect(word)[at]
    };
    for (word, number) in [("2M", 2e6), ("2m", 2e6), ("5e6", 5e6), ("1.5k", 1500.0), ("1bn", 1e9), ("3 G", 3e9)] {
        assert_eq!(read(word, "users"), number, "{word}");
    }
    assert_eq!((read("95%", "reads"), read("95 %", "hot"), read("95", "busy")), (95.0, 95.0, 95.0));
    assert_eq!((read("2h", "ttl"), read("30min", "ttl"), read("7d", "ttl")), (7200.0, 1800.0, 604_800.0));
    assert_eq!((read("4k", "value"), read("1MiB", "value"), read("64B", "key")), (4096.0, 1_048_576.0, 64.0));
    assert_eq!((read("16GiB", "memory"), read("512m", "memory"), read("1T", "memory")), (16.0, 0.5, 1024.0));
    assert_eq!((read("10Gbit", "network"), read("100mbit", "network")), (10.0, 0.1));
}

#[test]
fn inputs_have_ranges() {
    for bad in [
        "users",
        "users=",
        "users=0",
        "users=-1",
        "users=NaN",
        "users=inf",
        "reads=101",
        "memory=0",
        "x=1",
        "ttl=1e10",
        "users=5%",
        "users=M",
        "users=2MM",
        "reads=2k",
        "reads=%",
        "users=2é",
    ] {
        let exit = read(&[bad.to_owned()]).expect_err(bad);
        assert_eq!(exit.code, CtlExit::USAGE, "{bad}");
    }
    // The extremes of every input give numbers.
    for pick in [|row: &PlanRow| row.least, |row: &PlanRow| row.most] {
        assert!(steps(&INPUTS.map(|row| pick(&row))).iter().all(|step| step.value.is_finite() && step.value >= 0.0));
    }
    let text = plan(&["users=5".to_owned()], false).unwrap();
    assert!(text.starts_with("STEP") && !text.contains("NAME"), "{text}");
    assert!(plan(&[], false).unwrap().contains("busiest"));
}
