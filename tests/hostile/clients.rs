//! Every attack, while others are served, and what memory it takes.

use crate::attacks::{ATTACKS, Attack, Site};
use crate::common::{Conn, DEADLINE, Server, Waited, descriptors_possible, from_env};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Memory limit of the server, in MB.
const MEMORY: u64 = 64;

/// What a server may take beside its memory limit, and for what connections hold together, in MB.
const BESIDE: u64 = 64;
const HELD: u64 = 64;

fn fill(conn: &mut Conn, items: usize) {
    for first in (0..items).step_by(1000) {
        // Keys in base64, of which lists print nothing.
        let set = |i: usize| format!("ms {} 1 b q\r\nx\r\n", base64(&format!("{i:09}")));
        let sets: String = (first..first + 1000).map(set).collect();
        conn.send(sets.as_bytes());
        assert_eq!(conn.line("mn"), "MN");
    }
}

/// Of nine digits, no padding is needed.
fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let number = three.iter().fold(0_usize, |sum, &byte| sum << 8 | usize::from(byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[number >> shift & 63]))
    };
    text.as_bytes().chunks(3).flat_map(digits).collect()
}

/// CPU time that a server has taken.
fn cpu_time(server: &Server) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("the server is alive");
    let (_, rest) = stat.rsplit_once(") ").expect("a name");
    // The first behind the name is the third of all; those of user and system are the 14th and 15th, in hundredths.
    let ticks = rest.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Gets and sets as any client, each answered. What the server has done at most while a get waited, by its CPU time, which a
/// machine with much else to do does not lengthen; and how many of the sets were refused.
fn serve_others(server: &Server, time: Duration) -> (Duration, usize, usize) {
    let mut conns = [server.connect(), server.connect(), server.connect()];
    let (end, mut longest, mut sets, mut refused) = (Instant::now() + time, Duration::ZERO, 0, 0);
    let large = [b"set other 0 0 100000\r\n".as_slice(), &[b'v'; 100_000], b"\r\n"].concat();
    while Instant::now() < end {
        for conn in &mut conns {
            let before = cpu_time(server);
            conn.send(b"get small\r\n");
            assert_eq!(conn.read_until(DEADLINE, |got| got.ends_with(b"END\r\n")), Waited::Done);
            conn.got.clear();
            longest = longest.max(cpu_time(server) - before);
            let reply = String::from_utf8(conn.ask(&large, b"\r\n")).unwrap();
            sets += 1;
            refused += usize::from(reply != "STORED\r\n");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (longest, sets, refused)
}

fn withstand(attack: &Attack) {
    let clients = from_env("HOSTILE_CLIENTS").unwrap_or(150) as usize;
    let items = from_env("HOSTILE_ITEMS").unwrap_or(20_000) as usize;
    descriptors_possible(4 * clients as u64 + 100);
    let memory = MEMORY.to_string();
    let server = Server::start(&["-m", &memory, "-t", "2", "-c", "8000"]);
    let mut conn = server.connect();
    fill(&mut conn, items);
    assert_eq!(conn.line("set small 0 0 1\r\nx"), "STORED");
    let stop = AtomicBool::new(false);
    let site = Site { server: server.addr, clients, stop: &stop };
    let (longest, late) = std::thread::scope(|scope| {
        scope.spawn(|| (attack.run)(&site));
        let during = serve_others(&server, Duration::from_millis(1000));
        // Whoever stands still loses, in a while, what others need.
        let (end, mut late) = (Instant::now() + DEADLINE, serve_others(&server, Duration::from_millis(300)));
        while late.2 > 0 && Instant::now() < end {
            late = serve_others(&server, Duration::from_millis(300));
        }
        stop.store(true, Ordering::Relaxed);
        (during.0.max(late.0), (late.1, late.2))
    });
    let peak = server.memory_kb("VmHWM:") >> 10;
    let turn = conn.number("twincache", "longest_loop_turn_cpu_us");
    let lock = conn.number("twincache", "longest_lock_hold_cpu_us");
    println!(
        "{}: longest {longest:?}, turn {turn} us and lock {lock} us of CPU time; {} of {} sets refused, {peak} MB",
        attack.name, late.1, late.0
    );
    assert!(longest < Duration::from_secs(5), "{}: a get took {longest:?} of CPU time", attack.name);
    assert_eq!(late.1, 0, "{}: sets are refused", attack.name);
    let most = MEMORY + MEMORY / 16 + BESIDE + HELD;
    assert!(peak <= most, "{}: {peak} MB, more than {most}", attack.name);
    assert_eq!(conn.line("mn"), "MN");
}

#[test]
fn attacks_are_withstood() {
    let only = std::env::var("HOSTILE_ONLY").unwrap_or_default();
    ATTACKS.iter().filter(|attack| attack.name.contains(&only)).for_each(withstand);
}
