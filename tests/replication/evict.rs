//! What a client has invalidated stays so on the copy, whatever either side has evicted.
//!
//! The memories differ and are small, so each side holds keys that the other has dropped. Every key has one writer,
//! which knows what was last done to it:
//!
//! ```text
//!   last done to a key          the standby may say
//!   set, number n               n, or nothing (evicted)
//!   delete, refused set, …      nothing
//!   marked stale                stale, or nothing
//!   value taken away (md x)     an empty value, or nothing
//! ```

use crate::common::{Conn, DEADLINE, Packet, Rng, Waited, from_env, seed, show, until};
use crate::pair::Pair;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long clients write, unless REPLICATION_SECONDS says otherwise.
const SECONDS: u64 = 6;

/// Clients, each with keys of its own.
const WRITERS: usize = 4;

/// Keys of a writer: together several times what the smaller side can hold.
const KEYS: usize = 8000;

/// Commands in a batch.
const BATCH: usize = 32;

/// Bytes of a value beside its number.
const PADDING: usize = 900;

/// A value beyond this is refused by a primary with [`SMALL_ITEMS`].
const TOO_LARGE: usize = 40_000;
const SMALL_ITEMS: [&str; 4] = ["-I", "32k", "-o", "slab_chunk_max=16"];

/// Evictions of the primary without which a storm shows nothing.
const EVICTED_MIN: u64 = 200;

/// Longest life of an item that was touched to end soon, and a second of which either side may be late.
const SHORT_LIFE: Duration = Duration::from_millis(3500);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// It was stored with this number.
    Value(u64),
    /// It was taken away, or has expired.
    Gone,
    /// It will have expired by the time of the comparison.
    Ending,
    /// It was marked stale.
    Stale,
    /// Its value was taken away.
    Empty,
}

struct Writer {
    conn: Conn,
    number: usize,
    rng: Rng,
    last: Vec<Last>,
    count: u64,
}

fn key(writer: usize, index: usize) -> String {
    format!("evict{writer}:{index}")
}

impl Writer {
    fn run(mut self, stop: &AtomicBool) -> Vec<Last> {
        while !stop.load(Ordering::Relaxed) {
            self.batch();
        }
        self.last
    }

    fn batch(&mut self) {
        let mut request = Vec::new();
        for _ in 0..BATCH {
            let index = self.rng.below(KEYS);
            self.command(index, &mut request);
        }
        request.extend_from_slice(b"mn\r\n");
        self.conn.send(&request);
        let waited = self.conn.read_until(DEADLINE, |got| got.ends_with(b"MN\r\n"));
        assert_eq!(waited, Waited::Done, "writer {} is not answered", self.number);
        self.conn.got.clear();
    }

    fn command(&mut self, index: usize, out: &mut Vec<u8>) {
        let key = key(self.number, index);
        let rng = &mut self.rng;
        let noreply = if rng.one_in(2) { " noreply" } else { "" };
        let quiet = if rng.one_in(2) { " q" } else { "" };
        let (line, last) = match rng.below(100) {
            0..65 => {
                self.count += 1;
                let value = format!("{:010}{}", self.count, "x".repeat(rng.below(PADDING)));
                let head = match rng.one_in(2) {
                    true => format!("set {key} 0 0 {}{noreply}", value.len()),
                    false => format!("ms {key} {}{quiet}", value.len()),
                };
                (format!("{head}\r\n{value}"), Some(Last::Value(self.count)))
            }
            65..75 => (format!("delete {key}{noreply}"), Some(Last::Gone)),
            75..80 => (format!("md {key}{quiet}"), Some(Last::Gone)),
            80..81 => (format!("touch {key} -1{noreply}"), Some(Last::Gone)),
            81..83 => (format!("touch {key} 1{noreply}"), Some(Last::Ending)),
            83..85 => (format!("mg {key} T1"), Some(Last::Ending)),
            85..86 => (format!("gat -1 {key}"), Some(Last::Gone)),
            86..89 => (format!("set {key} 0 -1 1{noreply}\r\nx"), Some(Last::Gone)),
            89..90 => {
                let value = "y".repeat(TOO_LARGE);
                let head = match rng.one_in(2) {
                    true => format!("set {key} 0 0 {TOO_LARGE}{noreply}"),
                    false => format!("ms {key} {TOO_LARGE}{quiet}"),
                };
                (format!("{head}\r\n{value}"), Some(Last::Gone))
            }
            90..93 => (format!("md {key} I{quiet}"), Some(Last::Stale)),
            93..94 => {
                // Whether or not it has ended already.
                if self.last[index] == Last::Ending {
                    self.last[index] = Last::Stale;
                }
                (format!("md {key} I T4000{quiet}"), Some(Last::Stale))
            }
            94..95 => (format!("md {key} x{quiet}"), Some(Last::Empty)),
            _ => (format!("mg {key} v"), None),
        };
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
        // What is gone stays so until it is stored anew, and what is empty becomes stale without a value.
        match (self.last[index], last) {
            (_, None)
            | (Last::Gone, Some(Last::Ending | Last::Stale | Last::Empty))
            | (Last::Ending, Some(Last::Stale))
            | (Last::Empty, Some(Last::Stale)) => {}
            (_, Some(last)) => self.last[index] = last,
        }
    }
}

fn write(addr: SocketAddr, seed: u64, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Vec<Last>>> {
    let writer = |number: usize| {
        let rng = Rng(seed ^ (number as u64) << 40);
        let writer = Writer { conn: Conn::to(addr), number, rng, last: vec![Last::Gone; KEYS], count: 0 };
        let stop = stop.clone();
        std::thread::spawn(move || writer.run(&stop))
    };
    (0..WRITERS).map(writer).collect()
}

/// What the standby says of a key, if that is not allowed, and whether it holds it.
fn judge(standby: &mut Conn, key: &str, last: Last) -> (Option<String>, bool) {
    let reply = standby.ask(format!("mg {key} v\r\nmn\r\n").as_bytes(), b"MN\r\n");
    if reply.starts_with(b"EN\r\n") {
        return (None, false);
    }
    let text = show(&reply[..reply.len().min(60)]);
    let line = reply.split(|&byte| byte == b'\r').next().expect("a line");
    let is_stale = line.split(|&byte| byte == b' ').any(|word| word == b"X");
    let number = reply
        .split(|&byte| byte == b'\n')
        .nth(1)
        .and_then(|value| std::str::from_utf8(value.get(..10)?).ok()?.parse::<u64>().ok());
    let is_right = match last {
        Last::Value(n) => number == Some(n) && !is_stale,
        Last::Gone | Last::Ending => false,
        Last::Stale => is_stale,
        Last::Empty => line.starts_with(b"VA 0"),
    };
    ((!is_right).then(|| format!("{key}, last {last:?}: {text}")), true)
}

fn storm(name: &str, primary: &[&str], peer: &[&str]) {
    storm_behind(name, primary, peer, 0, |_| true);
}

fn evicted(conn: &mut Conn) -> u64 {
    conn.number("", "evictions")
}

/// A storm while no more than so many bytes a second get to the standby. It goes on until the primary has evicted many,
/// and `is_enough`, however slow clients are today.
fn storm_behind(name: &str, primary: &[&str], peer: &[&str], limit: u64, is_enough: impl Fn(&Pair) -> bool) -> Pair {
    let seed = seed("REPLICATION_SEED");
    println!("{name}: REPLICATION_SEED={seed}");
    let pair = Pair::start_with(&[primary, &SMALL_ITEMS[..]].concat(), peer);
    pair.wire.limit(limit);
    let stop = Arc::new(AtomicBool::new(false));
    let writers = write(pair.primary.addr, seed, &stop);
    std::thread::sleep(Duration::from_secs(from_env("REPLICATION_SECONDS").unwrap_or(SECONDS)));
    until("the storm shows something", || evicted(&mut pair.primary.connect()) >= EVICTED_MIN && is_enough(&pair));
    stop.store(true, Ordering::Relaxed);
    let known: Vec<Vec<Last>> = writers.into_iter().map(|writer| writer.join().expect("a writer")).collect();
    pair.wire.limit(0);
    pair.settle();
    std::thread::sleep(SHORT_LIFE);
    let (mut held, mut wrong) = (0, Vec::new());
    let mut standby = pair.peer.connect();
    for (number, last) in known.iter().enumerate() {
        for (index, &last) in last.iter().enumerate() {
            let (fault, is_held) = judge(&mut standby, &key(number, index), last);
            held += usize::from(is_held);
            wrong.extend(fault);
        }
    }
    let (ours, theirs) = (evicted(&mut pair.primary.connect()), evicted(&mut standby));
    println!(
        "{name}: {held} of {} keys held by the standby, {} wrong; evicted {ours} and {theirs}",
        WRITERS * KEYS,
        wrong.len()
    );
    assert!(held > 500, "the standby holds only {held}: that shows nothing");
    assert!(wrong.is_empty(), "{} of {held}:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    pair
}

#[test]
fn nothing_invalidated_comes_back_with_equal_memories() {
    storm("equal memories", &["-m", "12"], &["-m", "12"]);
}

#[test]
fn nothing_invalidated_comes_back_with_a_larger_standby() {
    storm("larger standby", &["-m", "8"], &["-m", "64"]);
}

#[test]
fn nothing_invalidated_comes_back_with_a_smaller_standby() {
    storm("smaller standby", &["-m", "16"], &["-m", "8"]);
}

#[test]
fn nothing_invalidated_comes_back_from_an_acknowledged_copy() {
    storm("acknowledged", &["-m", "8", "-o", "replicas_ack=1", "-o", "ack_timeout=10000"], &["-m", "64"]);
}

/// What was lost on the way and is sent anew is told without what was invalidated.
#[test]
fn nothing_invalidated_comes_back_from_a_copy_that_was_overtaken() {
    let is_overtaken = |pair: &Pair| pair.number("0:overtaken") > 0;
    storm_behind("overtaken", &["-m", "8", "-o", "journal_mem=8"], &["-m", "64"], 512 << 10, is_overtaken);
}

/// Each form that takes a key away, after the primary has evicted it: as soon as it is answered, the copy is without.
#[test]
fn an_acknowledged_invalidation_of_an_evicted_key_is_on_the_copy() {
    let options = [&["-m", "8", "-o", "replicas_ack=1", "-o", "ack_timeout=10000"], &SMALL_ITEMS[..]].concat();
    // The standby evicts nothing, for however long the primary takes.
    let pair = Pair::start_with(&options, &["-m", "1024"]);
    let (mut primary, mut standby) = (pair.primary.connect(), pair.peer.connect());
    let large = "y".repeat(TOO_LARGE);
    let text = |line: &str| Form::Text(line.to_owned());
    let forms = [
        ("delete", text("delete K")),
        ("delete_noreply", text("delete K noreply\r\nmn")),
        ("md", text("md K")),
        ("md_q", text("md K q\r\nmn")),
        ("md_I", text("md K I")),
        ("md_I_T", text("md K I T30")),
        ("md_x", text("md K x")),
        ("touch", text("touch K 30")),
        ("gat", text("gat 30 K")),
        ("mg_T", text("mg K T30")),
        ("set_too_large", text(&format!("set K 0 0 {TOO_LARGE}\r\n{large}"))),
        ("ms_too_large", text(&format!("ms K {TOO_LARGE}\r\n{large}"))),
        ("binary_delete", Form::Binary(0x04, &[])),
        ("binary_delete_quiet", Form::Binary(0x14, &[])),
        ("binary_touch", Form::Binary(0x1c, &[0, 0, 0, 30])),
        ("binary_gat", Form::Binary(0x1d, &[0, 0, 0, 30])),
    ];
    // All of one slab class, in which they make room for each other.
    let value = "z".repeat(1000);
    for (key, _) in &forms {
        assert_eq!(primary.line(&format!("set {key} 0 0 1000\r\n{value}")), "STORED");
    }
    let mut filler = 0;
    until("the primary has evicted all of them", || {
        for _ in 0..4000 {
            filler += 1;
            primary.send(format!("set filler{filler} 0 0 1000 noreply\r\n{value}\r\n").as_bytes());
        }
        assert_eq!(primary.line("mn"), "MN");
        // Not with mg: what is fetched is kept.
        forms.iter().all(|(key, _)| primary.line(&format!("me {key}")) == "EN")
    });
    for (key, form) in &forms {
        assert_eq!(standby.line(&format!("mg {key}")), "HD", "{key}: the standby still has it");
        match form {
            Form::Text(line) => _ = primary.line(&line.replacen('K', key, 1)),
            Form::Binary(op, extras) => {
                let noop = Packet::new(0x0a, b"", b"").request();
                let mut binary = pair.primary.connect();
                binary.send(&[Packet::new(*op, key.as_bytes(), extras).request(), noop].concat());
                let waited = binary.read_until(DEADLINE, |got| got.windows(2).any(|part| part == [0x81, 0x0a]));
                assert_eq!(waited, Waited::Done, "{key}");
            }
        }
        assert_eq!(standby.line(&format!("mg {key}")), "EN", "{key}: the standby serves what was invalidated");
    }
}

enum Form {
    /// A line that names the key K.
    Text(String),
    /// An opcode, and its extras.
    Binary(u8, &'static [u8]),
}
