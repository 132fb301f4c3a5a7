//! Acknowledged writes: the primary is killed at random under load, and every write that a client was told is
//! stored must be on the standby.

use crate::common::{Conn, DEADLINE, Rng, Waited, freeze, from_env, seed, signal, until};
use crate::pair::{Pair, PeerKind, control};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Times the primary is killed, unless REPLICATION_KILLS says otherwise.
const KILLS: u64 = 10;

/// Clients, each with keys of its own.
const WRITERS: usize = 8;

/// Keys of a writer, written again and again.
const KEYS: usize = 400;

/// Writes in a batch.
const BATCH: usize = 16;

/// Acknowledged writes before the primary is killed, at least: fewer would show nothing.
const ACKED_MIN: u64 = 200;

const STRICT: &[&str] = &["-o", "replicas_ack=1", "-o", "ack_timeout=10000"];

/// While a peer stands still every write waits as long, and while it does not, each must be confirmed within: a busy
/// machine takes its time.
const PATIENT: &str = "ack_timeout=10000";

/// What a writer knows of its keys: the number last acknowledged, and the one last sent.
#[derive(Clone, Debug)]
struct Known {
    acked: Vec<u64>,
    sent: Vec<u64>,
    /// Acknowledged writes.
    count: u64,
}

struct Writer {
    conn: Conn,
    number: usize,
    rng: Rng,
    known: Known,
    /// Acknowledged writes of all writers.
    acked: Arc<AtomicU64>,
}

fn key(writer: usize, index: usize) -> String {
    format!("w{writer}:{index}")
}

impl Writer {
    /// Writes until the primary is gone or `stop` says so.
    fn run(mut self, stop: &AtomicBool) -> Known {
        while !stop.load(Ordering::Relaxed) && self.batch() {}
        self.known
    }

    /// False when the primary is gone.
    fn batch(&mut self) -> bool {
        let (mut request, mut sent) = (String::new(), Vec::new());
        for _ in 0..BATCH {
            let index = self.rng.below(KEYS);
            self.known.sent[index] += 1;
            let value = self.known.sent[index].to_string();
            request.push_str(&format!("set {} 0 0 {}\r\n{value}\r\n", key(self.number, index), value.len()));
            sent.push((index, self.known.sent[index]));
        }
        self.conn.send(request.as_bytes());
        let whole = BATCH * b"STORED\r\n".len();
        let waited = self.conn.read_until(DEADLINE, |got| got.len() >= whole);
        let replies = std::mem::take(&mut self.conn.got);
        for (reply, (index, number)) in replies.split_inclusive(|&byte| byte == b'\n').zip(sent) {
            if reply == b"STORED\r\n" {
                self.known.acked[index] = number;
                self.known.count += 1;
                self.acked.fetch_add(1, Ordering::Relaxed);
            }
        }
        assert_ne!(waited, Waited::Quiet, "writer {} is not answered", self.number);
        waited == Waited::Done
    }
}

fn write(addr: SocketAddr, seed: u64, stop: &Arc<AtomicBool>, acked: &Arc<AtomicU64>) -> Vec<JoinHandle<Known>> {
    let writer = |number: usize| {
        let known = Known { acked: vec![0; KEYS], sent: vec![0; KEYS], count: 0 };
        let rng = Rng(seed ^ (number as u64) << 40);
        let writer = Writer { conn: Conn::to(addr), number, rng, known, acked: acked.clone() };
        let stop = stop.clone();
        std::thread::spawn(move || writer.run(&stop))
    };
    (0..WRITERS).map(writer).collect()
}

/// Acknowledged writes that the standby lacks.
fn lost(standby: &mut Conn, number: usize, known: &Known) -> u64 {
    let mut lost = 0;
    for index in 0..KEYS {
        let reply = standby.ask(format!("get {}\r\n", key(number, index)).as_bytes(), b"END\r\n");
        let text = String::from_utf8(reply).unwrap();
        let value: u64 = text.lines().nth(1).map_or(0, |value| value.parse().expect("a number"));
        assert!(value <= known.sent[index], "the standby holds {value}, which nobody wrote");
        lost += u64::from(value < known.acked[index]);
    }
    lost
}

#[test]
fn no_acknowledged_write_is_lost() {
    let (seed, kills) = (seed("REPLICATION_SEED"), from_env("REPLICATION_KILLS").unwrap_or(KILLS));
    println!("acknowledged writes: REPLICATION_SEED={seed}");
    let mut rng = Rng(seed);
    let (mut acked, mut missing) = (0, 0);
    for kill in 0..kills {
        let mut pair = Pair::start(PeerKind::Twincached, STRICT).expect("always there");
        let (stop, so_far) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let writers = write(pair.primary.addr, seed + kill, &stop, &so_far);
        until("some writes are acknowledged", || so_far.load(Ordering::Relaxed) >= ACKED_MIN);
        std::thread::sleep(Duration::from_millis(rng.below(700) as u64));
        pair.kill_primary();
        let known: Vec<Known> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
        let mut standby = pair.peer.connect();
        for (number, known) in known.iter().enumerate() {
            acked += known.count;
            missing += lost(&mut standby, number, known);
        }
        if kill % 20 == 19 {
            println!("{} kills, {acked} acknowledged writes, {missing} of them missing", kill + 1);
        }
    }
    println!("{kills} kills, {acked} acknowledged writes, {missing} of them missing");
    assert!(acked >= kills * ACKED_MIN);
    assert_eq!(missing, 0);
}

/// Strict: the client is told, other connections go on, and the server is itself again when the peer is.
#[test]
fn a_write_that_is_not_confirmed_in_time_is_an_error() {
    let pair = Pair::start(PeerKind::Twincached, &["-o", "replicas_ack=1", "-o", PATIENT]).unwrap();
    let mut conn = pair.primary.connect();
    assert_eq!(conn.line("set a 0 0 1\r\nx"), "STORED");
    freeze(pair.peer.pid());
    let reply = conn.ask(b"get a\r\nset a 0 0 1\r\ny\r\nget a\r\nmn\r\n", b"MN\r\n");
    let expected = "VALUE a 0 1\r\nx\r\nEND\r\nSERVER_ERROR not replicated\r\nVALUE a 0 1\r\ny\r\nEND\r\nMN\r\n";
    assert_eq!(String::from_utf8(reply).unwrap(), expected);
    assert_eq!(pair.primary.connect().line("mg a s"), "HD s1");
    assert!(pair.number("replies_timed_out") > 0);
    signal(pair.peer.pid(), "CONT");
    pair.settle();
    assert_eq!(conn.line("set a 0 0 1\r\nz"), "STORED");
}

/// Degrading: the client is answered, the statistics tell, and it ends by itself.
#[test]
fn a_degrading_server_answers_and_says_so() {
    let options = ["-o", "replicas_ack=1", "-o", PATIENT, "-o", "ack_degrade"];
    let pair = Pair::start(PeerKind::Twincached, &options).unwrap();
    let mut conn = pair.primary.connect();
    freeze(pair.peer.pid());
    assert_eq!(conn.line("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(pair.figure("degraded").as_deref(), Some("1"));
    assert_eq!(conn.line("set b 0 0 1\r\nx"), "STORED");
    signal(pair.peer.pid(), "CONT");
    until("it degrades no more", || pair.figure("degraded").as_deref() == Some("0"));
    assert_eq!(conn.line("set c 0 0 1\r\nx"), "STORED");
    assert_eq!(pair.peer.connect().line("mg c s"), "HD s1");
}

/// Switched on and off while the server runs.
#[test]
fn acknowledgement_is_switched_on_the_control_socket() {
    let pair = Pair::start(PeerKind::Twincached, &["-o", PATIENT]).unwrap();
    assert_eq!(control(pair.socket(), "replicas_ack 1"), "OK");
    let mut conn = pair.primary.connect();
    assert_eq!(conn.line("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(pair.peer.connect().line("mg a s"), "HD s1");
    freeze(pair.peer.pid());
    assert_eq!(conn.line("set a 0 0 1\r\nx"), "SERVER_ERROR not replicated");
    assert_eq!(control(pair.socket(), "replicas_ack 0"), "OK");
    assert_eq!(conn.line("set a 0 0 1\r\nx"), "STORED");
    signal(pair.peer.pid(), "CONT");
}
