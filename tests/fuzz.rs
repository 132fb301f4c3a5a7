//! Bad input, end to end and in process.
//!
//! ```text
//!   attackers: valid streams, mutated streams, any bytes ──┐
//!              half-closed, slow, reset, never reading ────┼──> the real binary
//!   watchman:  a fresh connection must answer, always ─────┘     alive? memory? descriptors?
//! ```
//!
//! `FUZZ_SECONDS` (20) is how long the attack lasts, `FUZZ_SEED` replays its random choices; both are printed.
//! The in-process tests drive the same functions as the targets of cargo-fuzz in `fuzz/`.

mod common;
#[path = "fuzz/grammar.rs"]
mod grammar;
#[path = "fuzz/in_process.rs"]
mod in_process;
#[path = "fuzz/replies.rs"]
mod replies;

use common::{Conn, DEADLINE, HEADER, Packet, Rng, Server, Waited, from_env, seed, show, until};
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Attacking threads, each with one connection at a time, besides those that it leaves hanging.
const ATTACKERS: usize = 8;
/// Connections that one attacker keeps open unread.
const HANGING: usize = 16;
/// The server's item memory in MiB.
const MEMORY_MB: u64 = 32;
/// Growth of the server's memory that is no leak, in KiB. During the attack each of the open connections
/// may hold a value of 1 MiB on its way in, or as much stuck output; after it only allocator slack remains.
const GROWTH_DURING_KB: u64 = 200 << 10;
const GROWTH_AFTER_KB: u64 = 32 << 10;

/// What all threads of the attack share.
struct Attack {
    addr: std::net::SocketAddr,
    over: AtomicBool,
    connections: AtomicU64,
    answered: AtomicU64,
    largest_kb: AtomicU64,
}

/// Ends the attack when the thread that holds it panics.
struct EndOnPanic<'a>(&'a Attack);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.over.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn the_server_survives_an_attack() {
    let (seed, seconds) = (seed("FUZZ_SEED"), from_env("FUZZ_SECONDS").unwrap_or(20));
    eprintln!("FUZZ_SEED={seed} FUZZ_SECONDS={seconds}");
    let server = Server::start(&["-m", &MEMORY_MB.to_string(), "-t", "2", "-c", "1000"]);
    fill(&server);
    let (memory, descriptors) = (rss_kb(&server), descriptors(&server));
    let attack = Attack {
        addr: server.addr,
        over: AtomicBool::new(false),
        connections: AtomicU64::new(0),
        answered: AtomicU64::new(0),
        largest_kb: AtomicU64::new(memory),
    };
    std::thread::scope(|scope| {
        for n in 0..ATTACKERS as u64 {
            let (attack, rng) = (&attack, Rng(seed.wrapping_add(n << 32)));
            scope.spawn(move || attacker(attack, rng));
        }
        scope.spawn(|| watchman(&attack, &server));
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end && !attack.over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        attack.over.store(true, Ordering::Relaxed);
    });
    until("descriptors are closed", || descriptors_now(&server) <= descriptors);
    let after = rss_kb(&server);
    eprintln!(
        "{} connections, {} probes answered; RSS {memory} KiB before, {} at most, {after} after; {descriptors} descriptors",
        attack.connections.load(Ordering::Relaxed),
        attack.answered.load(Ordering::Relaxed),
        attack.largest_kb.load(Ordering::Relaxed),
    );
    assert!(attack.largest_kb.load(Ordering::Relaxed) <= memory + GROWTH_DURING_KB, "memory grew during the attack");
    assert!(after <= memory + GROWTH_AFTER_KB, "memory stayed grown after the attack");
    assert_eq!(server.connect().line("mn"), "MN");
}

/// Fills the item memory, so that what grows later is something else.
fn fill(server: &Server) {
    let mut conn = server.connect();
    for len in [10, 100, 1000, 10_000, 100_000, 500_000] {
        let value = vec![b'v'; len];
        for i in 0..(MEMORY_MB as usize * 220_000 / (len + 60)) {
            conn.send(format!("set fill:{len}:{i} 0 0 {len} noreply\r\n").as_bytes());
            conn.send(&value);
            conn.send(b"\r\n");
        }
    }
    assert_eq!(conn.line("mn"), "MN");
}

/// A fresh connection is answered all the time, and memory stays within bounds.
fn watchman(attack: &Attack, server: &Server) {
    let _end = EndOnPanic(attack);
    while !attack.over.load(Ordering::Relaxed) {
        assert_eq!(server.connect().line("mn"), "MN");
        let noop = Packet::new(0x0a, b"", b"").request();
        let mut conn = server.connect();
        conn.send(&noop);
        assert_eq!(conn.read_until(DEADLINE, |got| got.len() >= HEADER), Waited::Done, "noop");
        attack.answered.fetch_add(2, Ordering::Relaxed);
        attack.largest_kb.fetch_max(rss_kb(server), Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn attacker(attack: &Attack, mut rng: Rng) {
    let _end = EndOnPanic(attack);
    let mut hanging: Vec<TcpStream> = Vec::new();
    while !attack.over.load(Ordering::Relaxed) {
        attack.connections.fetch_add(1, Ordering::Relaxed);
        match rng.below(16) {
            0 => reset(attack, &mut rng),
            1 => slow(attack, &mut rng),
            2 => {
                hanging.push(never_reading(attack, &mut rng));
                if hanging.len() > HANGING {
                    hanging.swap_remove(rng.below(HANGING));
                }
            }
            3 => valid_is_answered(attack, &mut rng),
            4 => garbage_is_answered_or_closed(attack, &mut rng),
            5..8 => half_closed(attack, &mut rng, 1),
            _ => half_closed(attack, &mut rng, 8),
        }
    }
}

/// A stream of one protocol, and whether that is binary.
fn stream(rng: &mut Rng, mutated: bool) -> (bool, Vec<u8>) {
    let (binary, count) = (rng.one_in(2), 1 + rng.below(40));
    let mut bytes = if binary { grammar::binary(rng, count) } else { grammar::text(rng, count) };
    if mutated {
        grammar::mutate(rng, &mut bytes);
    }
    (binary, bytes)
}

/// Sends a mutated stream in pieces, says that no more comes, and reads: the server must close in time, and
/// everything that it said must be replies. The last of them may be cut off by a reset.
fn half_closed(attack: &Attack, rng: &mut Rng, pieces: usize) {
    let bytes = stream(rng, true).1;
    let mut conn = Conn::to(attack.addr);
    bytes.chunks(bytes.len() / pieces + 1).for_each(|piece| conn.send(piece));
    conn.finish();
    match bytes.first() {
        Some(0x80) => replies::check_binary(&conn.got, false),
        _ => replies::check_text(&conn.got, false),
    }
}

/// A stream that ends with a request of known reply is answered to its end.
fn valid_is_answered(attack: &Attack, rng: &mut Rng) {
    let (binary, mut bytes) = stream(rng, false);
    let mut conn = Conn::to(attack.addr);
    let marker = rng.next() as u32;
    let noop = Packet { opaque: marker, ..Packet::new(0x0a, b"", b"") };
    bytes.extend(if binary { noop.request() } else { b"mn\r\n".to_vec() });
    conn.send(&bytes);
    let waited =
        conn.read_until(DEADLINE, |got| if binary { ends_with_noop(got, marker) } else { got.ends_with(b"MN\r\n") });
    let may_close = binary && has_quit(&bytes);
    assert!(waited == Waited::Done || may_close && waited == Waited::Closed, "{waited:?}: {}", show(&bytes));
    match binary {
        true => replies::check_binary(&conn.got, true),
        false => replies::check_text(&conn.got, true),
    }
}

fn ends_with_noop(got: &[u8], opaque: u32) -> bool {
    let mut reply = Packet { opaque, ..Packet::new(0x0a, b"", b"") }.request();
    reply[0] = 0x81;
    got.ends_with(&reply)
}

/// Whether a packet of a stream of the grammar may end the connection: quit, and SASL without a mechanism.
fn has_quit(mut bytes: &[u8]) -> bool {
    while bytes.len() >= HEADER {
        if matches!(bytes[1], 0x07 | 0x17 | 0x21 | 0x22) {
            return true;
        }
        let body = u32::from_be_bytes(*bytes[8..].first_chunk().unwrap()) as usize;
        bytes = &bytes[(HEADER + body).min(bytes.len())..];
    }
    false
}

/// After lines of any bytes (no request with data is among them) the connection answers, or is closed.
fn garbage_is_answered_or_closed(attack: &Attack, rng: &mut Rng) {
    let len = 1 + rng.below(6000);
    let mut bytes = grammar::bytes(rng, len);
    bytes[0] &= 0x7f;
    let mut conn = Conn::to(attack.addr);
    conn.send(&bytes);
    conn.send(b"\r\nmn\r\n");
    let waited = conn.read_until(DEADLINE, |got| got.ends_with(b"MN\r\n"));
    assert_ne!(waited, Waited::Quiet, "neither answered nor closed: {}", show(&bytes));
    replies::check_text(&conn.got, waited == Waited::Done);
}

/// Sends one byte at a time.
fn slow(attack: &Attack, rng: &mut Rng) {
    let (_, mut bytes) = stream(rng, true);
    bytes.truncate(300);
    let mut conn = Conn::to(attack.addr);
    bytes.chunks(1).for_each(|byte| conn.send(byte));
    conn.finish();
}

/// Leaves with a reset in the middle.
fn reset(attack: &Attack, rng: &mut Rng) {
    let (_, bytes) = stream(rng, true);
    let mut conn = TcpStream::connect(attack.addr).expect("connect");
    let _ = conn.write_all(&bytes[..rng.below(bytes.len() + 1)]);
    if rng.one_in(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
    socket2::SockRef::from(&conn).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Asks for much and reads nothing.
fn never_reading(attack: &Attack, rng: &mut Rng) -> TcpStream {
    let mut conn = TcpStream::connect(attack.addr).expect("connect");
    conn.set_nonblocking(true).unwrap();
    let request: &[u8] = match rng.below(6) {
        0 => b"stats\r\nlru_crawler metadump all\r\n",
        1 => b"set never:read 0 0 1000000\r\n",
        2 => b"watch fetchers mutations evictions connevents deletions sysevents\r\n",
        3 => &Packet::new(0x00, b"fill:500000:1", b"").request(),
        _ => b"get fill:500000:1 fill:100000:1 fill:500000:2\r\n",
    };
    for _ in 0..1000 {
        if conn.write(request).is_err() {
            break;
        }
    }
    conn
}

fn rss_kb(server: &Server) -> u64 {
    server.memory_kb("VmRSS:")
}

/// The number of open descriptors once it no longer changes.
fn descriptors(server: &Server) -> usize {
    let mut last = 0;
    until("descriptors stay as they are", || {
        let before = std::mem::replace(&mut last, descriptors_now(server));
        std::thread::sleep(Duration::from_millis(200));
        before == last
    });
    last
}

fn descriptors_now(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("the server is alive").count()
}

/// Input, everything that comes back, and whether the connection is closed then.
struct Fate {
    input: Vec<u8>,
    output: Vec<u8>,
    closed: bool,
}

fn text_fate(input: impl Into<Vec<u8>>, output: &str, closed: bool) -> Fate {
    Fate { input: input.into(), output: output.into(), closed }
}

/// A packet with a header as given, and the status and text that answer it before the connection is closed.
fn binary_fate(change: impl Fn(&mut Vec<u8>), status: u16, text: &str) -> Fate {
    let mut input = Packet { opaque: 7, ..Packet::new(0x00, b"key", b"") }.request();
    change(&mut input);
    let op = input[1];
    let mut output = Packet { op, status, opaque: 7, value: text.into(), ..Packet::default() }.request();
    output[0] = 0x81;
    Fate { input, output: if status == 0 { Vec::new() } else { output }, closed: true }
}

fn fates() -> Vec<Fate> {
    let bad = "CLIENT_ERROR bad command line format\r\n";
    let long = "k".repeat(251);
    vec![
        text_fate("mn\r\nquit\r\nmn\r\n", "MN\r\n", true),
        text_fate("GET / HTTP/1.1\r\n", "", true),
        text_fate(vec![b'x'; 2049], "", true),
        text_fate(vec![b'x'; 2000], "", false),
        text_fate(format!("{}\r\nmn \r\n", "x".repeat(2000)), "ERROR\r\nMN\r\n", false),
        text_fate([vec![b' '; 101], b"get ".to_vec(), vec![b'a'; 2000]].concat(), "", true),
        text_fate([b"get ".to_vec(), b"aa ".repeat(4000)].concat(), "", false),
        text_fate([b"gat 0 ".to_vec(), b"aa ".repeat(4000)].concat(), "", true),
        text_fate("\r\nmn \r\n", &format!("{bad}MN\r\n"), false),
        text_fate("a\0b\tc\r\nmn \r\n", "ERROR\r\nMN\r\n", false),
        text_fate(format!("set {long} 0 0 2\r\nhi\r\nmn \r\n"), &format!("{bad}MN\r\n"), false),
        text_fate("set a 0 0 -1\r\nmn \r\n", &format!("{bad}MN\r\n"), false),
        text_fate("set a 0 0 99999999999\r\nmn \r\n", &format!("{bad}MN\r\n"), false),
        text_fate("set a 0 0 2\r\nhiXXmn \r\n", "CLIENT_ERROR bad data chunk\r\nMN\r\n", false),
        text_fate("set a 0 0 2147483645\r\nhi", "", false),
        binary_fate(|packet| packet[2..4].copy_from_slice(&[0, 251]), 0x0081, "Unknown command"),
        binary_fate(|packet| packet[4] = 200, 0x0081, "Unknown command"),
        binary_fate(|packet| packet[8..12].copy_from_slice(&[0x40, 0, 0, 1]), 0x0004, "Invalid arguments"),
        binary_fate(
            |packet| packet[2..12].copy_from_slice(&[0, 251, 0, 0, 0, 0, 0, 0, 1, 0]),
            0x0004,
            "Invalid arguments",
        ),
        binary_fate(|packet| packet[1] = 0x01, 0x0004, "Invalid arguments"),
        Fate {
            input: [Packet::new(0x0a, b"", b"").request(), b"mn\r\n".repeat(8)].concat(),
            closed: true,
            ..noop_fate()
        },
        noop_fate(),
    ]
}

fn noop_fate() -> Fate {
    let input = Packet::new(0x0a, b"", b"").request();
    let mut output = input.clone();
    output[0] = 0x81;
    Fate { input, output, closed: false }
}

#[test]
fn fates_of_connections() {
    let server = Server::start(&["-m", "64"]);
    for Fate { input, output, closed } in fates() {
        let mut conn = server.connect();
        conn.send(&input);
        conn.read_until(DEADLINE, |got| got.len() >= output.len());
        let patience = if closed { DEADLINE } else { Duration::from_millis(100) };
        let waited = conn.read_until(patience, |_| false);
        assert_eq!(show(&conn.got), show(&output), "to {}", show(&input));
        assert_eq!(waited == Waited::Closed, closed, "{waited:?} after {}", show(&input));
    }
    assert_eq!(server.connect().line("mn"), "MN");
}

/// What is sent before the client closes its half is answered in full, then the server closes too.
#[test]
fn half_close_is_answered() {
    let server = Server::start(&[]);
    for request in
        [&b"set a 0 0 2\r\nhi\r\nget a\r\nmn\r\nget"[..], b"set a 0 0 2\r\nhi\r\nget a\r\nmn\r\nset b 0 0 9\r\nxx"]
    {
        let mut conn = server.connect();
        conn.send(request);
        conn.finish();
        assert_eq!(show(&conn.got), show(b"STORED\r\nVALUE a 0 2\r\nhi\r\nEND\r\nMN\r\n"));
    }
}

/// Inputs of the in-process tests: valid and mutated streams of both protocols, and any bytes.
fn input(rng: &mut Rng) -> Vec<u8> {
    let count = 1 + rng.below(12);
    let mut data = match rng.below(5) {
        0 | 1 => grammar::text(rng, count),
        2 | 3 => grammar::binary(rng, count),
        _ => grammar::bytes(rng, 1 + count * 20),
    };
    if !rng.one_in(4) {
        grammar::mutate(rng, &mut data);
    }
    data
}

/// Runs `each` on inputs until a share of `FUZZ_SECONDS` is over; a failing input is printed with its seed.
fn in_process(each: &mut dyn FnMut(&mut Rng, &[u8])) {
    let (seed, seconds) = (seed("FUZZ_SEED"), from_env("FUZZ_SECONDS").unwrap_or(20) / 4 + 1);
    eprintln!("FUZZ_SEED={seed}");
    let mut rng = Rng(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut runs = 0;
    while Instant::now() < end {
        let data = input(&mut rng);
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| each(&mut rng, &data))).is_err();
        assert!(!failed, "FUZZ_SEED={seed}, input {runs}: b\"{}\"", show(&data));
        runs += 1;
    }
    eprintln!("{runs} inputs");
}

#[test]
fn parser_keeps_its_promises() {
    in_process(&mut |_, data| in_process::parse_all(data));
}

#[test]
fn commands_and_store_stand_any_input() {
    let mut server = in_process::FuzzServer::new();
    in_process(&mut |rng, data| {
        server.feed(data);
        if rng.one_in(50) {
            server.advance(rng.below(100) as i64);
        }
        if rng.one_in(200) {
            server.check();
        }
    });
    server.check();
}
