//! Wrong wall clocks: an item lives on the standby as long as on the primary, whatever either machine takes for now.
//!
//! libfaketime (Debian's `faketime`) gives one server another wall clock, and leaves the clocks that cannot be set
//! alone. Where it is not installed the tests are skipped.

use crate::common::{Conn, Folder, REFERENCE, Server, Sidecar, under_test, until};
use crate::pair::{Scratch, scratch};
use std::path::Path;
use std::time::Duration;

/// Where Debian installs it.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// By how much the remaining life on the two sides may differ, in seconds: one of the rule, one because the sides are
/// not asked at the same moment.
const NEAR: i64 = 2;

/// A server whose wall clock can be set.
struct Faked {
    server: Server,
    folder: Folder,
}

impl Faked {
    /// Starts one whose wall clock is so many seconds ahead.
    fn start(program: &str, ahead: i64, options: &[&str]) -> Faked {
        Faked::start_with(program, ahead, options, &[("DONT_FAKE_MONOTONIC", "1".to_owned())])
    }

    /// Starts one all whose clocks can be set, as if its machine had stood still or the others had.
    fn start_paused(ahead: i64) -> Faked {
        Faked::start_with(&under_test(), ahead, &[], &[])
    }

    fn start_with(program: &str, ahead: i64, options: &[&str], more: &[(&str, String)]) -> Faked {
        let folder = Folder::new();
        set(&folder, ahead);
        let environment = [
            ("LD_PRELOAD", LIBRARY.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", folder.file("time")),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
        ];
        Faked { server: Server::start_program(program, options, &[&environment, more].concat()), folder }
    }

    fn step(&self, ahead: i64) {
        set(&self.folder, ahead);
    }
}

fn set(folder: &Folder, ahead: i64) {
    let new = folder.file("new");
    std::fs::write(&new, format!("{ahead:+}\n")).unwrap();
    std::fs::rename(new, folder.file("time")).unwrap();
}

fn is_there() -> bool {
    let is_there = Path::new(LIBRARY).exists();
    if !is_there {
        eprintln!("skipped: there is no {LIBRARY} (Debian's package faketime)");
    }
    is_there
}

/// A faked primary, its sidecar, and a faked peer.
struct FakedPair {
    sidecar: Sidecar,
    primary: Faked,
    peer: Faked,
    /// It is there as long as this is.
    _socket: Scratch,
}

impl FakedPair {
    fn start(primary: i64, peer: i64, peer_program: &str) -> FakedPair {
        FakedPair::with(primary, Faked::start(peer_program, peer, &[]))
    }

    fn with(primary: i64, peer: Faked) -> FakedPair {
        let socket = scratch("control");
        let control = format!("control_socket={}", socket.display());
        let primary = Faked::start(&under_test(), primary, &["-o", &control]);
        let sidecar = Sidecar::start(&*socket, peer.server.addr, &[]);
        let pair = FakedPair { sidecar, primary, peer, _socket: socket };
        pair.settle();
        pair
    }

    fn settle(&self) {
        until("the peer to have everything", || {
            let mut conn = self.primary.server.connect();
            let stats = conn.stats("replication");
            let get = |name: &str| stats.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
            get("0:state") == Some("streaming") && get("0:acked_lsn") == get("lsn")
        });
    }

    /// Checks that these items live as long on both sides.
    fn compare(&self, keys: &[String]) {
        self.settle();
        let (mut primary, mut peer) = (self.primary.server.connect(), self.peer.server.connect());
        for key in keys {
            let (here, there) = (life(&mut primary, key), life(&mut peer, key));
            let is_near = matches!((here, there), (Some(here), Some(there)) if (here - there).abs() <= NEAR);
            assert!(is_near, "{key}: {here:?} s left at the primary, {there:?} at the peer\n{}", self.sidecar.log());
        }
    }
}

impl Drop for FakedPair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let stats = self.primary.server.connect().stats("replication");
            eprintln!("the sidecar: {}\nthe primary: {stats:?}", self.sidecar.log());
        }
    }
}

/// Seconds that an item has left.
fn life(conn: &mut Conn, key: &str) -> Option<i64> {
    let line = conn.line(&format!("mg {key} t"));
    line.trim().strip_prefix("HD t").map(|seconds| seconds.parse().expect("a number"))
}

fn store(conn: &mut Conn, key: &str, ttl: i64) -> String {
    conn.line(&format!("ms {key} 1 T{ttl}\r\nv"));
    key.to_owned()
}

/// Items of many lives, before and after the attach, with a touch, and one that dies while it is watched.
fn check_lives(pair: &FakedPair) {
    let mut conn = pair.primary.server.connect();
    let keys: Vec<String> = [5, 60, 3600, 86_400 * 29].map(|ttl| store(&mut conn, &format!("k{ttl}"), ttl)).into();
    store(&mut conn, "touched", 60);
    conn.line("mg touched T7200");
    store(&mut conn, "brief", 2);
    pair.compare(&[keys, vec!["touched".to_owned()]].concat());
    until("the brief one to die", || life(&mut conn, "brief").is_none());
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(life(&mut pair.peer.server.connect(), "brief"), None, "it outlives its time");
}

#[test]
fn a_wall_clock_that_was_wrong_at_the_start_changes_no_life() {
    if !is_there() {
        return;
    }
    for (primary, peer) in [(-7200, 0), (7200, 0), (0, -7200), (0, 7200), (-1_600_000_000, 300)] {
        eprintln!("the primary is {primary} s ahead, the peer {peer}");
        check_lives(&FakedPair::start(primary, peer, &under_test()));
    }
}

#[test]
fn a_machine_without_the_date_is_a_peer_all_the_same() {
    if !is_there() {
        return;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    check_lives(&FakedPair::start(10_000 - now, 0, &under_test()));
    check_lives(&FakedPair::start(0, 10_000 - now, &under_test()));
}

#[test]
fn a_stock_peer_with_a_wrong_clock_gets_the_lives_that_it_can_count() {
    if !is_there() || !Path::new(REFERENCE).exists() {
        return;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    for (primary, peer) in [(0, -7200), (-7200, 300), (0, 10_000 - now)] {
        eprintln!("the primary is {primary} s ahead, the memcached {peer}");
        check_lives(&FakedPair::start(primary, peer, REFERENCE));
    }
}

#[test]
fn a_wall_clock_that_steps_changes_no_life_of_what_is_on_its_way() {
    if !is_there() {
        return;
    }
    let pair = FakedPair::start(0, 0, &under_test());
    let mut conn = pair.primary.server.connect();
    let mut keys = Vec::new();
    for (round, (primary, peer)) in [(-7200, 0), (-7200, 7200), (0, 0), (86_400, -300)].into_iter().enumerate() {
        pair.primary.step(primary);
        pair.peer.step(peer);
        // The step is seen somewhere among these.
        for i in 0..300 {
            keys.push(store(&mut conn, &format!("r{round}:{i}"), 600));
            std::thread::sleep(Duration::from_millis(8));
        }
        pair.compare(&keys);
    }
}

/// The primary's virtual machine is paused with its sidecar: time goes on at the standby. What is stored after that lives
/// as long on both sides, although some of it was sent by the old time. (The other way round no library can do it to a
/// process; thousands of schedules are in the sidecar's simulation.)
#[test]
fn a_machine_that_stood_still_costs_no_life_of_what_is_stored_afterwards() {
    if !is_there() {
        return;
    }
    let pair = FakedPair::with(0, Faked::start_paused(0));
    let mut conn = pair.primary.server.connect();
    let mut watcher = pair.peer.server.connect();
    for (round, ahead) in [10_000, 10_300].into_iter().enumerate() {
        let before = watcher.number("", "time");
        pair.peer.step(ahead);
        // What was stored before the jump has aged with the peer, as long as that takes to see it.
        let mut early = 0;
        until("the peer's clock to jump", || {
            store(&mut conn, &format!("early{round}:{early}"), 600);
            early += 1;
            watcher.number("", "time") >= before + 200
        });
        // What comes after it lives as long on both sides. The sidecar sees the jump somewhere among these.
        let mut keys = Vec::new();
        until("the jump to be seen", || {
            for _ in 0..100 {
                keys.push(store(&mut conn, &format!("r{round}:{}", keys.len()), 600));
                std::thread::sleep(Duration::from_millis(10));
            }
            pair.sidecar.log().matches("clock has jumped by ").count() == round + 1
        });
        pair.compare(&keys);
    }
}
