//! After a storm, with or without accidents, both sides hold the same.

use crate::common::{Rng, freeze, from_env, seed, signal, until};
use crate::compare::assert_equal;
use crate::pair::{Pair, PeerKind};
use crate::storm::{Keys, Storm};
use std::time::{Duration, Instant};

/// How long clients write, unless REPLICATION_SECONDS says otherwise.
const SECONDS: u64 = 6;

/// Over how many keys, unless REPLICATION_KEYS says otherwise.
const KEYS: u64 = 60_000;

/// How long it is looked how fast clients write, before the wire is made slower than that.
const PROBE: Duration = Duration::from_secs(1);

/// No slower, in bytes a second, however slow they were meanwhile: all keys shall get through in some seconds.
const SLOWEST: u64 = 1 << 20;

fn seconds() -> Duration {
    Duration::from_secs(from_env("REPLICATION_SECONDS").unwrap_or(SECONDS))
}

fn keys() -> Keys {
    Keys { count: from_env("REPLICATION_KEYS").unwrap_or(KEYS) as usize }
}

/// A storm of the usual length, `accident` again and again meanwhile, and then equality.
fn survive(name: &str, kind: PeerKind, accident: impl FnMut(&mut Pair, &mut Rng)) {
    let Some(pair) = Pair::start(kind, &[]) else {
        return println!("no memcached to replicate to: skipped");
    };
    survive_with(name, pair, accident);
}

fn survive_with(name: &str, mut pair: Pair, mut accident: impl FnMut(&mut Pair, &mut Rng)) {
    let seed = seed("REPLICATION_SEED");
    println!("{name}: REPLICATION_SEED={seed}");
    let mut rng = Rng(seed);
    let end = Instant::now() + seconds();
    let storm = Storm::start(pair.primary.addr, keys(), seed);
    while Instant::now() < end {
        accident(&mut pair, &mut rng);
    }
    let commands = storm.stop();
    let quiet = Instant::now();
    pair.settle();
    println!(
        "{name}: {commands} commands, {} bytes to the peer, equal after {:?}; walks {}, overtaken {}",
        pair.wire.passed(),
        quiet.elapsed(),
        pair.number("walks_started"),
        pair.number("0:overtaken"),
    );
    assert_equal(&pair, keys());
}

fn nap(rng: &mut Rng, from_ms: usize, to_ms: usize) {
    std::thread::sleep(Duration::from_millis((from_ms + rng.below(to_ms - from_ms)) as u64));
}

fn nothing(_: &mut Pair, rng: &mut Rng) {
    nap(rng, 100, 200);
}

#[test]
fn with_twincached() {
    survive("twincached", PeerKind::Twincached, nothing);
}

#[test]
fn with_a_stock_memcached() {
    survive("memcached", PeerKind::Stock, nothing);
}

fn kill_sidecar(pair: &mut Pair, rng: &mut Rng) {
    nap(rng, 300, 2500);
    pair.kill_sidecar();
    nap(rng, 0, 500);
    pair.start_sidecar();
}

#[test]
fn when_the_sidecar_is_killed() {
    survive("sidecar killed", PeerKind::Twincached, kill_sidecar);
}

#[test]
fn when_the_sidecar_to_a_stock_memcached_is_killed() {
    survive("sidecar to memcached killed", PeerKind::Stock, kill_sidecar);
}

/// Nothing that has an order is ordered by cas uniques.
#[test]
fn when_the_sidecar_between_servers_without_cas_is_killed() {
    survive_with("sidecar killed, -C", Pair::start_with(&["-C"], &["-C"]), kill_sidecar);
}

/// Also one that goes on where the last sidecar ended.
#[test]
fn when_the_sidecar_to_a_memcached_that_takes_cas_is_killed() {
    survive("sidecar to a memcached with cas killed", PeerKind::StockWithCas, kill_sidecar);
}

#[test]
fn when_the_peer_is_replaced_by_an_empty_one() {
    survive("peer replaced", PeerKind::Twincached, |pair, rng| {
        nap(rng, 1000, 3000);
        pair.replace_peer();
    });
}

#[test]
fn when_connections_are_cut() {
    survive("connections cut", PeerKind::Twincached, |pair, rng| {
        nap(rng, 20, 1500);
        pair.wire.cut();
    });
}

/// Both at once, and a stock peer.
#[test]
fn when_a_stock_peer_is_cut_off_and_replaced() {
    survive("memcached cut off and replaced", PeerKind::Stock, |pair, rng| {
        nap(rng, 20, 1500);
        match rng.one_in(4) {
            true => pair.replace_peer(),
            false => pair.wire.cut(),
        }
    });
}

#[test]
fn when_the_peer_stands_still() {
    let still = (seconds() / 2).min(Duration::from_secs(10));
    survive("peer stands still", PeerKind::Twincached, |pair, rng| {
        nap(rng, 500, 1000);
        freeze(pair.peer.pid());
        std::thread::sleep(still);
        signal(pair.peer.pid(), "CONT");
    });
}

/// A small journal, so that it is overtaken soon.
#[test]
fn when_the_peer_is_slower_than_the_writers() {
    let pair = Pair::start(PeerKind::Twincached, &["-o", "journal_mem=8"]).expect("always there");
    let mut limited = false;
    survive_with("slow peer", pair, |pair, rng| {
        if limited {
            return nap(rng, 100, 200);
        }
        let before = pair.wire.passed();
        std::thread::sleep(PROBE);
        let rate = pair.wire.passed() - before;
        let limit = (rate / 4).max(SLOWEST);
        pair.wire.limit(limit);
        println!("slow peer: {rate} bytes a second were written, {limit} get through");
        limited = true;
    });
}

/// Items written, and deleted, while nobody replicates, and what the peer had of old.
#[test]
fn what_happened_before_and_during_an_outage() {
    let seed = seed("REPLICATION_SEED");
    println!("outage: REPLICATION_SEED={seed}");
    for kind in [PeerKind::Twincached, PeerKind::Stock] {
        let Some(mut pair) = Pair::new(kind, &[]) else { continue };
        for key in ["stranger", "key:0"] {
            assert_eq!(pair.peer.connect().line(&format!("set {key} 0 0 1\r\nx")), "STORED");
        }
        for outage in 0..2 {
            let storm = Storm::start(pair.primary.addr, keys(), seed + outage);
            std::thread::sleep(seconds() / 4);
            storm.stop();
            pair.start_sidecar();
            pair.settle();
            assert_eq!(pair.peer.connect().line("mg stranger s"), "EN");
            assert_equal(&pair, keys());
            pair.kill_sidecar();
        }
    }
}

/// What the standby gives out when it takes over is above all that it has received.
#[test]
fn cas_goes_on_above_what_was_received() {
    let pair = Pair::start(PeerKind::Twincached, &[]).expect("always there");
    let storm = Storm::start(pair.primary.addr, Keys { count: 1000 }, seed("REPLICATION_SEED"));
    until("clients have written", || storm.commands() > 1000);
    storm.stop();
    let cas = |reply: String| reply.strip_prefix("HD c").and_then(|cas| cas.parse::<u64>().ok()).expect("a cas");
    let last = cas(pair.primary.connect().line("ms last 1 c\r\nx"));
    pair.settle();
    let next = cas(pair.peer.connect().line("ms next 1 c\r\nx"));
    println!("last cas of the primary {last}, next of the standby {next}");
    assert!(next > last);
}
