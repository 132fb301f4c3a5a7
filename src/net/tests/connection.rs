//! A connection over a socket in memory that cuts what goes in and out at random.
//!
//! ```text
//!  script ── random pieces ──> Pipe.inbound ──> Connection ──> Pipe.outbound (takes `room` bytes) ──> replies
//! ```
//!
//! The pipe behaves like an edge-triggered kernel socket: a read that filled less than its buffer has drained
//! it, a write that took less than it was offered has filled it, and both are announced anew when that changes.
//! Replies must be equal, byte for byte, to those of the same script sent in one piece to a client that reads
//! at once. `TWINCACHE_SEED` replays one seed; it is printed.

use crate::command::batch::Batch;
use crate::command::{Output, Shared};
use crate::config::Config;
use crate::io::edge::{Edge, Readiness};
use crate::io::stream::Socket;
use crate::journal::acks::LastLsn;
use crate::net::conn::long_line::GET_LINE_MAX;
use crate::net::conn::session::SMALL_BODY_MAX;
use crate::net::conn::turn::{After, CloseReason, LARGE, OUTPUT_HIGH, Quota, TurnContext};
use crate::net::conn::{Connection, READ_BUFFER};
use crate::net::reply_hold::ReplyHold;
use crate::net::voice::Voice;
use crate::protocol::Protocol;
use crate::stats::event_loop::LoopTimer;
use crate::stats::{ConnInfo, Counters};
use crate::testing::{Rng, TestServer, packet, seeds};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Instant;

/// Seeds per protocol in an ordinary run.
const SEEDS: u64 = 30;

/// Requests per script.
const REQUESTS: usize = 150;

/// Turns without any byte moved after which a connection counts as hung.
const STUCK_TURNS: usize = 10_000;

#[derive(Default)]
pub(crate) struct Pipe {
    inbound: Vec<u8>,
    /// Bytes of it that were read.
    taken: usize,
    pub(crate) outbound: Vec<u8>,
    /// Bytes the peer takes before it must be asked again.
    pub(crate) room: usize,
    /// The client has closed its side.
    pub(crate) is_ended: bool,
    pub(crate) interrupts: bool,
    low_water: usize,
    pub(crate) unsent_max: Option<u32>,
    reads: usize,
    writes: usize,
    /// Bytes written, for other threads.
    pub(crate) written: Arc<AtomicUsize>,
}

impl Pipe {
    pub(crate) fn waiting(&self) -> usize {
        self.inbound.len() - self.taken
    }

    fn interrupt(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.interrupts) { Err(ErrorKind::Interrupted.into()) } else { Ok(()) }
    }
}

impl Socket for Pipe {
    fn set_low_water(&mut self, bytes: u32) {
        self.low_water = bytes as usize;
    }

    fn set_unsent_max(&mut self, bytes: u32) {
        self.unsent_max = Some(bytes);
    }

    fn is_paused(&self) -> bool {
        false
    }

    fn held(&self) -> usize {
        0
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [io::IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        self.interrupt()?;
        self.reads += 1;
        let mut total = 0;
        for buf in bufs {
            let n = buf.len().min(self.waiting());
            buf[..n].copy_from_slice(&self.inbound[self.taken..self.taken + n]);
            self.taken += n;
            total += n;
        }
        if total == 0 && !self.is_ended { Err(ErrorKind::WouldBlock.into()) } else { Ok(total) }
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.interrupt()?;
        self.writes += 1;
        let before = self.outbound.len();
        for buf in bufs {
            let n = buf.len().min(self.room);
            self.room -= n;
            self.outbound.extend_from_slice(&buf[..n]);
        }
        let n = self.outbound.len() - before;
        self.written.fetch_add(n, Ordering::SeqCst);
        if n == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection, its worker's belongings, and a store of its own.
pub(crate) struct TestConnection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<Counters>,
    out: Output,
    buffer: Box<[u8]>,
    pub(in crate::net) connection: Connection<Pipe>,
    /// What other connections hold for long lines.
    pub(crate) is_tight: bool,
    /// What it may do in a turn.
    pub(in crate::net) quota: Quota,
    reply_hold: ReplyHold,
    pub(crate) last_lsn: LastLsn,
    meter: LoopTimer,
    /// What the worker's clock says.
    pub(crate) time: Instant,
    reads_early: bool,
    pub(in crate::net) voice: Option<Voice>,
}

impl TestConnection {
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> TestConnection {
        TestConnection::on(TestServer::new(change).shared)
    }

    /// A connection to a server that there is already, by a worker of its own.
    pub(crate) fn on(shared: Arc<Shared>) -> TestConnection {
        let (counters, meter) = (shared.stats.worker(), shared.stats.event_loops.timer());
        let info = Arc::new(ConnInfo {
            fd: 7,
            addr: "tcp:127.0.0.1:1".into(),
            listen_addr: None,
            state: AtomicU8::new(1),
            last_cmd: AtomicU32::new(0),
        });
        let protocol = crate::net::admission::first_protocol(shared.config.binding, &shared.config);
        let connection = Connection::new(Edge::new(Pipe::default()), info, protocol, shared.clock.now());
        let buffer = vec![0; READ_BUFFER].into();
        let reply_hold = ReplyHold::new(shared.config.ack_timeout);
        let (voice, quota) = (Voice::new(&shared.store), Quota::new(&shared.config, 0));
        TestConnection {
            shared,
            counters,
            out: Output::default(),
            buffer,
            connection,
            is_tight: false,
            quota,
            reply_hold,
            last_lsn: LastLsn::default(),
            meter,
            time: Instant::now(),
            reads_early: false,
            voice,
        }
    }

    pub(crate) fn pipe(&mut self) -> &mut Pipe {
        self.connection.socket().socket()
    }

    pub(crate) fn turn(&mut self) -> After {
        // What others are sent is before it in the output, unless replies may have to wait.
        let time = self.time;
        self.reply_hold.begin_loop(self.shared.store.journal().acks(), || time);
        let others: &[u8] = if self.reply_hold.is_on() { b"" } else { b"others' replies" };
        let mut turn = TurnContext {
            shared: &self.shared,
            counters: &self.counters,
            meter: &self.meter,
            out: &mut self.out,
            replies_at: 0,
            now: self.shared.clock.now(),
            output_high: OUTPUT_HIGH,
            part: OUTPUT_HIGH,
            is_tight: self.is_tight,
            may_be_long: !self.reads_early,
            room: self.quota.room,
            reply_hold: &mut self.reply_hold,
            last_lsn: &self.last_lsn,
            voice: self.voice.as_ref(),
            waits_for_nobody: false,
        };
        let mut quota = self.quota;
        // Every other turn as a worker makes it that reads for several connections before the first has its turn.
        self.reads_early = !self.reads_early;
        let mut room = [0; 3000];
        let (connection, buffer) = (&mut self.connection, &mut self.buffer);
        let read = match self.reads_early && connection.can_read_early() {
            true => connection.read_early(&mut room),
            false => Ok(0),
        };
        let after = match read {
            Err(reason) => After::Close(reason),
            Ok(0) => {
                connection.begin_turn(&mut turn);
                connection.turn(&[], buffer, &mut turn, &mut quota)
            }
            Ok(n) => run_with_others(connection, &room[..n], others, buffer, &mut turn, &mut quota),
        };
        assert!(self.out.is_empty(), "a turn left output with the worker");
        after
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.pipe().inbound.extend_from_slice(bytes);
        let readable = self.pipe().waiting() >= self.pipe().low_water;
        self.connection.socket().note(Readiness { readable, ..Readiness::default() });
    }

    pub(crate) fn take(&mut self, room: usize) {
        self.pipe().room += room;
        self.connection.socket().note(Readiness { writable: true, ..Readiness::default() });
    }

    /// Turns until nothing moves any more.
    pub(crate) fn settle(&mut self) -> After {
        loop {
            match self.turn() {
                After::Again | After::Large => {}
                after => return after,
            }
        }
    }

    pub(crate) fn replies(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pipe().outbound)
    }

    /// What a client with an endless appetite gets for `script` sent at once.
    pub(crate) fn ask(&mut self, script: &[u8]) -> String {
        self.pipe().room = usize::MAX / 2;
        self.send(script);
        self.settle();
        String::from_utf8_lossy(&self.replies()).into_owned()
    }
}

const NOOPS: [u8; 64] =
    *b"mn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\nmn\r\n";

/// As a worker does with what several connections have sent.
fn run_with_others(
    connection: &mut Connection<Pipe>,
    input: &[u8],
    others: &[u8],
    buffer: &mut [u8],
    turn: &mut TurnContext<'_>,
    quota: &mut Quota,
) -> After {
    let mut batch = Batch::default();
    // Another connection's requests stand before it, and do not leave room for all of a long input.
    let before = input.len() % 16;
    batch.cut(Protocol::Ascii, &NOOPS, 0, before, &turn.shared.store);
    connection.cut(input, quota.requests as usize, &mut batch, &turn.shared.store);
    batch.prefetch(&turn.shared.store);
    turn.out.push(others);
    turn.replies_at = others.len();
    let rest = connection.run(&batch, before..batch.count(), input, turn, quota);
    assert!(turn.out.bytes.starts_with(others));
    turn.out.drop_front(others.len());
    turn.replies_at = 0;
    match rest {
        Some(rest) => connection.turn(rest, buffer, turn, quota),
        None => {
            let replies = std::mem::take(&mut turn.out.bytes);
            connection.send(&replies, turn.counters, turn.voice, turn.now).unwrap_or(After::Wait)
        }
    }
}

/// Sends `script` in random pieces to a client that reads in random pieces, and returns the replies.
fn dribble(rig: &mut TestConnection, script: &[u8], rng: &mut Rng) -> Vec<u8> {
    let (mut sent, mut idle) = (0, 0);
    // Tiny pieces find the cuts, and a large one now and then gets through the large values in time.
    let tiny = [2, 40, 3000, 30_000][rng.below(4)];
    let large = script.len() / 50 + 1;
    let piece = |rng: &mut Rng| {
        let max = if rng.below(16) == 0 { large } else { tiny };
        1 + rng.below(max)
    };
    while idle < STUCK_TURNS {
        let before = (sent, rig.pipe().outbound.len());
        rig.pipe().interrupts = rng.below(4) == 0;
        if rng.below(3) > 0 {
            let end = script.len().min(sent + piece(rng));
            rig.send(&script[sent..end]);
            sent = end;
        }
        if rng.below(3) > 0 {
            rig.take(piece(rng));
        }
        let all = Quota::new(&rig.shared.config, 0);
        rig.quota = match rng.below(4) {
            0 => all.with_room(LARGE),
            1 => all.with_slice(1 + rng.below(100_000)),
            _ => all,
        };
        let after = rig.turn();
        assert!(!matches!(after, After::Close(_)), "closed: {after:?} after {sent} bytes");
        let is_done = sent == script.len() && after == After::Wait && rig.pipe().waiting() == 0;
        idle = if before == (sent, rig.pipe().outbound.len()) { idle + 1 } else { 0 };
        if is_done && idle > 20 {
            return rig.replies();
        }
    }
    panic!("no byte moved in {STUCK_TURNS} turns");
}

fn check_seed(seed: u64, write_script: fn(&mut Rng) -> Vec<u8>) {
    let mut rng = Rng(seed);
    let script = write_script(&mut rng);
    let mut whole = TestConnection::new(|_| {});
    whole.pipe().room = usize::MAX / 2;
    whole.send(&script);
    assert_eq!(whole.settle(), After::Wait);
    let expected = whole.replies();
    let mut cut = TestConnection::new(|_| {});
    let got = dribble(&mut cut, &script, &mut rng);
    if got != expected {
        let at = got.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let around = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(80).min(bytes.len())..bytes.len().min(at + 80)])
                .into_owned()
        };
        panic!("replies differ at byte {at} of {}:\n{:?}\n{:?}", expected.len(), around(&got), around(&expected));
    }
    assert_eq!(whole.counters.bytes_read.get(), script.len() as u64);
    assert_eq!(cut.counters.bytes_written.get(), expected.len() as u64);
    assert_eq!(cut.connection.memory(), 0, "an idle connection holds no buffer");
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(12) {
        0 => 0,
        1..8 => rng.below(100),
        8 | 9 => rng.below(SMALL_BODY_MAX + 100),
        10 => SMALL_BODY_MAX - 4 + rng.below(8),
        _ => rng.below(700_000),
    };
    rng.bytes(len)
}

fn ascii_script(rng: &mut Rng) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..REQUESTS {
        ascii_request(rng, &mut script);
    }
    script
}

fn ascii_request(rng: &mut Rng, script: &mut Vec<u8>) {
    let key = format!("key{}", rng.below(8));
    let quiet = rng.pick(&["", "", " noreply"]);
    match rng.below(16) {
        0..4 => {
            let verb = rng.pick(&["set", "set", "set", "add", "replace", "append", "prepend"]);
            let data = value(rng);
            push(script, &format!("{verb} {key} {} 0 {}{quiet}\r\n", rng.below(70_000), data.len()));
            script.extend_from_slice(&data);
            push(script, "\r\n");
        }
        4 => {
            let data = value(rng);
            push(script, &format!("ms {key} {} {}\r\n", data.len(), rng.pick(&["", "q", "k O1 c", "MA", "I C1"])));
            script.extend_from_slice(&data);
            push(script, "\r\n");
        }
        // Wrong tail: the two bytes are eaten, the rest is a command.
        5 => push(script, &format!("set {key} 0 0 3{quiet}\r\nabcXYmn\r\n")),
        // Refused while parsing or by size, and swallowed.
        6 => swallowed(rng, script, quiet),
        7 => push(script, &format!("get {key}\r\n")),
        8 | 9 => push(script, &format!("gets {key} key1 nothing key2 key3 key4\r\n")),
        10 => push(script, &format!("mg {key} {}\r\n", rng.pick(&["v", "v q k", "s t f", "", "k c v O7"]))),
        11 => push(script, &format!("{} {key}{quiet}\r\n", rng.pick(&["delete", "incr", "touch"]))),
        12 => push(script, &format!("incr {key} 7{quiet}\r\n")),
        13 => push(script, rng.pick(&["mn\r\n", "\r\n", "bogus\r\n", "version\r\n", "get\n", "verbosity 0\r\n"])),
        14 => push(script, &format!("md {key} q\r\nms num 2\r\n10\r\nma num v\r\n")),
        _ => push(script, &format!("cas {key} 0 0 2 {}{quiet}\r\nzz\r\n", rng.below(50))),
    }
}

fn swallowed(rng: &mut Rng, script: &mut Vec<u8>, quiet: &str) {
    let (head, len) = match rng.below(4) {
        0 => (format!("set {} 0 0 9{quiet}\r\n", "k".repeat(251)), 9),
        1 => (format!("set big 0 0 1500000{quiet}\r\n"), 1_500_000),
        2 => (format!("set k zz 0 40000{quiet}\r\n"), 40_000),
        _ => ("ms k 5 !!\r\n".to_string(), 5),
    };
    push(script, &head);
    script.extend(std::iter::repeat_n(b'#', len));
    push(script, "\r\n");
}

fn binary_script(rng: &mut Rng) -> Vec<u8> {
    let mut script = Vec::new();
    for number in 0..REQUESTS {
        binary_request(rng, &mut script, number as u32);
    }
    script
}

fn binary_request(rng: &mut Rng, script: &mut Vec<u8>, opaque: u32) {
    let key = format!("key{}", rng.below(8));
    match rng.below(8) {
        0..3 => {
            let opcode = [0x01, 0x02, 0x03, 0x11, 0x12, 0x13][rng.below(6)];
            let data = if rng.below(20) == 0 { vec![b'#'; 1_500_000] } else { value(rng) };
            script.extend(packet(opcode, &[0, 0, 0, rng.next() as u8, 0, 0, 0, 0], key.as_bytes(), &data, opaque, 0));
        }
        3 => script.extend(packet([0x0e, 0x0f, 0x19, 0x1a][rng.below(4)], &[], key.as_bytes(), &value(rng), opaque, 0)),
        4 | 5 => script.extend(packet([0x00, 0x09, 0x0c, 0x0d][rng.below(4)], &[], key.as_bytes(), &[], opaque, 0)),
        6 => script.extend(packet([0x04, 0x14][rng.below(2)], &[], key.as_bytes(), &[], opaque, 0)),
        _ => script.extend(packet([0x0a, 0x0b, 0x77][rng.below(3)], &[], &[], &[], opaque, 0)),
    }
}

pub(crate) fn push(script: &mut Vec<u8>, text: &str) {
    script.extend_from_slice(text.as_bytes());
}

#[test]
fn ascii_replies_do_not_depend_on_how_bytes_arrive() {
    seeds(SEEDS).for_each(|seed| check_seed(seed, ascii_script));
}

#[test]
fn binary_replies_do_not_depend_on_how_bytes_arrive() {
    seeds(SEEDS).for_each(|seed| check_seed(seed, binary_script));
}

#[test]
fn a_batch_costs_one_read_and_one_write() {
    let mut rig = TestConnection::new(|_| {});
    assert_eq!(
        rig.ask(b"set a 0 0 1\r\nA\r\nget a\r\nmn\r\nget b\r\n"),
        "STORED\r\nVALUE a 0 1\r\nA\r\nEND\r\nMN\r\nEND\r\n"
    );
    assert_eq!((rig.pipe().reads, rig.pipe().writes), (1, 1));
    assert_eq!(rig.connection.memory(), 0);
}

#[test]
fn a_body_on_its_way_costs_no_parsing_and_no_reply() {
    let mut rig = TestConnection::new(|_| {});
    assert_eq!(rig.ask(b"set a 0 0 10\r\n01234"), "");
    assert_eq!(rig.connection.session().info_state_name(), "conn_nread");
    assert_eq!(rig.ask(b"5678"), "");
    assert_eq!(rig.ask(b"9\r\nget a\r\n"), "STORED\r\nVALUE a 0 10\r\n0123456789\r\nEND\r\n");
    assert_eq!(rig.connection.session().info_state_name(), "conn_read");
}

#[test]
fn a_stuck_client_is_not_read_from() {
    let mut rig = TestConnection::new(|_| {});
    rig.ask(&[b"set a 0 0 1000\r\n".as_slice(), &[b'x'; 1000], b"\r\n"].concat());
    rig.pipe().room = 100;
    rig.send(b"get a\r\n");
    assert_eq!(rig.turn(), After::Wait);
    let reads = rig.pipe().reads;
    rig.send(&b"get a\r\n".repeat(50));
    for _ in 0..10 {
        assert_eq!(rig.turn(), After::Wait);
    }
    assert_eq!(rig.pipe().reads, reads, "read while output is stuck");
    assert_eq!(rig.pipe().waiting(), 350);
    rig.take(usize::MAX / 2);
    assert_eq!(rig.settle(), After::Wait);
    let replies = rig.replies();
    assert_eq!(replies.len(), 51 * ("VALUE a 0 1000\r\n".len() + 1000 + 2 + 5));
}

#[test]
fn output_is_written_in_the_middle_of_a_batch() {
    let mut rig = TestConnection::new(|config| config.reqs_per_event = 1000);
    rig.ask(&[b"set a 0 0 10000\r\n".as_slice(), &[b'x'; 10_000], b"\r\n"].concat());
    let writes = rig.pipe().writes;
    let replies = rig.ask(&b"get a\r\n".repeat(200));
    assert_eq!(replies.len(), 200 * ("VALUE a 0 10000\r\n".len() + 10_000 + 2 + 5));
    assert!(rig.pipe().writes - writes >= 7, "{} writes", rig.pipe().writes - writes);
}

#[test]
fn many_requests_give_way_to_others() {
    let mut rig = TestConnection::new(|config| config.reqs_per_event = 5);
    rig.pipe().room = usize::MAX / 2;
    rig.send(&b"mn\r\n".repeat(12));
    for answered in [5, 10] {
        assert_eq!(rig.turn(), After::Again);
        assert_eq!(rig.pipe().outbound, b"MN\r\n".repeat(answered), "replies leave before others get their turn");
    }
    assert_eq!(rig.turn(), After::Wait);
    assert_eq!(rig.replies(), b"MN\r\n".repeat(12));
    assert_eq!(rig.counters.conn_yields.get(), 2);
}

#[test]
fn swallowed_data_is_not_answered_before_it_came() {
    let mut rig = TestConnection::new(|_| {});
    assert_eq!(rig.ask(b"set big 0 0 2000000\r\n"), "");
    assert_eq!(rig.connection.session().info_state_name(), "conn_swallow");
    assert_eq!(rig.ask(&vec![b'x'; 2_000_001]), "");
    assert_eq!(rig.connection.memory(), 0);
    assert_eq!(rig.ask(b"\nmn\r\n"), "SERVER_ERROR object too large for cache\r\nMN\r\n");
}

#[test]
fn quit_flushes_and_closes() {
    let mut rig = TestConnection::new(|_| {});
    rig.pipe().room = 3;
    rig.send(b"mn\r\nquit\r\nmn\r\n");
    assert_eq!(rig.turn(), After::Wait);
    rig.take(1);
    assert_eq!(rig.turn(), After::Close(CloseReason::Normal));
    assert_eq!(rig.replies(), b"MN\r\n");
}

#[test]
fn unread_input_is_drained_before_closing() {
    let mut rig = TestConnection::new(|_| {});
    rig.pipe().room = usize::MAX / 2;
    rig.send(b"mn\r\nquit\r\n");
    rig.send(&[b'x'; 3 * READ_BUFFER]);
    assert_eq!(rig.turn(), After::Close(CloseReason::Normal));
    assert!(rig.pipe().waiting() > 0);
    rig.connection.farewell(&mut rig.buffer);
    assert_eq!(rig.pipe().waiting(), 0);
    assert_eq!(rig.replies(), b"MN\r\n");
}

#[test]
fn the_end_of_input_closes_after_the_replies() {
    let mut rig = TestConnection::new(|_| {});
    rig.pipe().room = usize::MAX / 2;
    rig.pipe().is_ended = true;
    rig.connection.socket().note(Readiness { hangup: true, ..Readiness::default() });
    rig.send(b"mn\r\nget unfini");
    assert_eq!(rig.turn(), After::Close(CloseReason::Normal));
    assert_eq!(rig.replies(), b"MN\r\n");
}

#[test]
fn compat_long_line() {
    let long = |start: &str, len: usize| [start.as_bytes(), &vec![b'k'; len - start.len()]].concat();
    for (line, closes) in [
        (long("get ", 2048), false),
        (long("get ", 2049), false),
        (long("gets ", 100_000), false),
        (long(&(" ".repeat(100) + "get "), 3000), false),
        (long(&(" ".repeat(101) + "get "), 3000), true),
        (long("gat 0 ", 2048), false),
        (long("gat 0 ", 2049), true),
        (long("set ", 2049), true),
        (long("get", 2049), true),
        (vec![b' '; 2049], true),
    ] {
        let mut rig = TestConnection::new(|_| {});
        rig.pipe().room = usize::MAX / 2;
        rig.send(&line);
        let wanted = if closes { After::Close(CloseReason::Error) } else { After::Wait };
        assert_eq!(rig.settle(), wanted, "{:?}… of {} bytes", String::from_utf8_lossy(&line[..20]), line.len());
        assert_eq!(rig.replies(), b"");
    }
}

#[test]
fn a_long_get_line_is_answered_however_it_comes() {
    let mut rig = TestConnection::new(|_| {});
    rig.ask(b"set a 0 0 1\r\nA\r\n");
    assert_eq!(rig.ask(b"get"), "");
    for _ in 0..400 {
        assert_eq!(rig.ask(&b" nothing".repeat(40)), "");
    }
    assert_eq!(rig.ask(b" a\r\nmn\r\n"), "VALUE a 0 1\r\nA\r\nEND\r\nMN\r\n");
    assert_eq!(rig.connection.memory(), 0);
}

#[test]
fn a_line_of_many_keys_gives_way_to_others() {
    let mut rig = TestConnection::new(|_| {});
    rig.ask(b"set a 0 0 1\r\nA\r\n");
    for (key, reply) in [("nothing ", 0), ("a ", b"VALUE a 0 1\r\nA\r\n".len())] {
        const KEYS: usize = 200_000;
        rig.pipe().room = usize::MAX / 2;
        rig.send(format!("get {}\r\n", key.repeat(KEYS)).as_bytes());
        let mut at = rig.counters.get_cmds.get();
        let end = at + KEYS as u64;
        let mut is_done = false;
        while !is_done {
            is_done = rig.turn() != After::Again;
            let now = rig.counters.get_cmds.get();
            assert!(now - at <= 40_000, "{} keys answered in one turn", now - at);
            at = now;
        }
        assert_eq!(rig.counters.get_cmds.get(), end);
        assert_eq!(rig.replies().len(), KEYS * reply + b"END\r\n".len());
    }
}

#[test]
fn a_dump_gives_way_to_others_after_each_piece() {
    let mut rig = TestConnection::new(|_| {});
    let sets: Vec<u8> = (0..5000).flat_map(|i| format!("set key{i} 0 0 1 noreply\r\nv\r\n").into_bytes()).collect();
    assert_eq!(rig.ask(&sets), "");
    // Flushed, they take time and print nothing.
    for (command, lines) in [("", 5000), ("flush_all\r\n", 0)] {
        rig.ask(command.as_bytes());
        rig.send(b"lru_crawler metadump all\r\n");
        let (mut dump, mut turns) = (Vec::new(), 0);
        while !dump.ends_with(b"END\r\n") {
            rig.turn();
            turns += 1;
            let piece = rig.replies();
            assert!(piece.len() < 100_000, "{} in one turn", piece.len());
            dump.extend(piece);
        }
        // 8192 buckets.
        assert!(turns >= 16, "{turns}");
        assert_eq!(dump.iter().filter(|&&byte| byte == b'\n').count(), lines + 2);
    }
}

#[test]
fn the_list_of_connections_is_made_in_pieces() {
    const CONNS: i32 = 1000;
    let mut rig = TestConnection::new(|_| {});
    let shared = rig.shared.clone();
    for fd in 1..=CONNS {
        let (state, last_cmd) = (AtomicU8::new(1), AtomicU32::new(0));
        let info = ConnInfo { fd, addr: "tcp:127.0.0.1:1".into(), listen_addr: None, state, last_cmd };
        shared.stats.conns.lock().unwrap().insert(fd, Arc::new(info));
    }
    rig.pipe().room = usize::MAX / 2;
    rig.send(b"stats conns\r\nmn\r\n");
    let (mut list, mut turns) = (String::new(), 0);
    while !list.ends_with("MN\r\n") {
        rig.turn();
        turns += 1;
        let piece = String::from_utf8(rig.replies()).unwrap();
        assert!(piece.lines().count() < 1000, "{} lines in one turn", piece.lines().count());
        list.push_str(&piece);
        // Whose rows are there may go, and others come.
        shared.stats.conns.lock().unwrap().remove(&1);
    }
    assert!(turns > 5, "{turns}");
    let of = |fd: i32| {
        let state = if fd == 7 { "conn_parse_cmd" } else { "conn_read" };
        let name = |name: &str| format!("STAT {fd}:{name}");
        let rows = [("addr", "tcp:127.0.0.1:1"), ("state", state), ("secs_since_last_cmd", "")];
        rows.map(|(row, value)| format!("{} {value}", name(row)))
    };
    let expected: Vec<String> = (1..=CONNS).flat_map(of).collect();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), expected.len() + 2, "END and MN");
    std::iter::zip(lines, &expected)
        .for_each(|(line, expected)| assert!(line.starts_with(expected.as_str()), "{line}"));
}

#[test]
fn a_get_line_has_a_bound() {
    let mut rig = TestConnection::new(|_| {});
    rig.pipe().room = usize::MAX / 2;
    rig.send(b"get ");
    for _ in 0..=GET_LINE_MAX >> 20 {
        rig.send(&vec![b'k'; 1 << 20]);
        if rig.settle() == After::Close(CloseReason::Error) {
            assert_eq!(rig.replies(), b"SERVER_ERROR out of memory reading request\r\n");
            return;
        }
    }
    panic!("a line of any length is kept");
}

#[test]
fn long_get_lines_have_a_bound_together() {
    let refusal = "SERVER_ERROR out of memory reading request\r\n";
    for (is_tight, reply) in [(false, ""), (true, refusal)] {
        let mut rig = TestConnection::new(|_| {});
        rig.is_tight = is_tight;
        assert_eq!(rig.ask(&[b"get ", &b"nothing ".repeat(1000)[..]].concat()), "", "who wants little gets it");
        assert_eq!(rig.ask(&b"nothing ".repeat(20_000)), reply);
        assert_eq!(rig.connection.memory() > 64 << 10, reply.is_empty());
    }
}

#[test]
fn idle_is_who_begins_nothing_and_who_stands_still() {
    let mut rig = TestConnection::new(|_| {});
    let start = rig.shared.clock.now();
    rig.ask(b"mn\r\n");
    assert!(!rig.connection.session().is_idle(start + 5, 5, false));
    assert!(rig.connection.session().is_idle(start + 6, 5, false));
    rig.shared.clock.advance(60);
    let sent = rig.shared.clock.now();
    rig.ask(b"set a 0 0 5\r\nabc");
    assert!(!rig.connection.session().is_idle(sent + 5, 5, false), "in the middle of a data block");
    rig.shared.clock.advance(5);
    rig.ask(b"d");
    assert!(!rig.connection.session().is_idle(sent + 10, 5, false), "it moves");
    assert!(rig.connection.session().is_idle(sent + 11, 5, false), "in the middle of a data block, and silent");
}

#[test]
fn who_reads_a_reply_slowly_is_not_idle() {
    let mut rig = TestConnection::new(|_| {});
    rig.take(1);
    rig.send(b"mn\r\n");
    assert_eq!(rig.settle(), After::Wait);
    rig.shared.clock.advance(60);
    rig.take(10);
    assert_eq!(rig.settle(), After::Wait);
    assert_eq!(rig.replies(), b"MN\r\n");
    assert!(!rig.connection.session().is_idle(rig.shared.clock.now(), 5, false));
}

#[test]
fn who_sends_a_value_slowly_is_not_idle() {
    let mut rig = TestConnection::new(|_| {});
    rig.ask(format!("set a 0 0 {}\r\n", SMALL_BODY_MAX + 1).as_bytes());
    rig.shared.clock.advance(60);
    assert_eq!(rig.ask(&[&vec![b'x'; SMALL_BODY_MAX + 1][..], b"\r\n"].concat()), "STORED\r\n");
    assert!(!rig.connection.session().is_idle(rig.shared.clock.now(), 5, false));
}

#[test]
fn a_connection_is_small() {
    assert!(std::mem::size_of::<Connection<crate::io::stream::Stream>>() <= 256);
    let rig = TestConnection::new(|_| {});
    assert_eq!(rig.connection.memory(), 0);
    assert_eq!(rig.shared.stats.curr_conns.load(Ordering::Relaxed), 0);
}
