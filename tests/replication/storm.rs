//! Clients that send every mutating command there is, as fast as they are answered.

use crate::common::{Conn, DEADLINE, HEADER, Packet, Rng, Waited};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};
use twincache::protocol::base64;

/// Clients; client i speaks protocol i mod 3.
const CLIENTS: usize = 8;

/// Commands in a batch.
const BATCH: usize = 48;

/// One command in so many has a value in chained chunks, one in so many a large one.
const HUGE: usize = 20_000;
const LARGE: usize = 1000;

/// One command in so many is a flush_all.
const FLUSH: u64 = 2_000_000;

/// Commands after the last flush_all at least, however slow the machine: so many that there is something to compare.
const COMMANDS_MIN: u64 = 10_000;

/// An absolute exptime far away.
const LATER: u64 = 90_000;

/// The keys that are used, by number.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// How many.
    pub count: usize,
}

impl Keys {
    /// One in eight is binary: it has bytes that a text command cannot name.
    pub fn is_binary(self, index: usize) -> bool {
        index % 8 == 7
    }

    /// A key's bytes.
    pub fn key(self, index: usize) -> Vec<u8> {
        match self.is_binary(index) {
            true => [&b"\0b \xff"[..], index.to_string().as_bytes()].concat(),
            false => format!("key:{index}").into(),
        }
    }

    /// As a meta command names it: the word, and the flag that tells of base64.
    pub fn word(self, index: usize) -> (Vec<u8>, &'static [u8]) {
        let key = self.key(index);
        match self.is_binary(index) {
            true => {
                let mut word = Vec::new();
                base64::encode(&key, &mut word);
                (word, b" b")
            }
            false => (key, b""),
        }
    }

    /// A key that a text command can name.
    fn speakable(self, rng: &mut Rng) -> Vec<u8> {
        let index = rng.below(self.count);
        self.key(if self.is_binary(index) { index - 1 } else { index })
    }
}

/// Writing clients; they stop when told to or dropped.
pub struct Storm {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What all clients share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    commands: AtomicU64,
    since_flush: AtomicU64,
}

impl Storm {
    /// Starts the clients.
    pub fn start(addr: SocketAddr, keys: Keys, seed: u64) -> Storm {
        let shared = Arc::new(Shared::default());
        let client = |number: usize| {
            let (shared, rng) = (shared.clone(), Rng(seed ^ (number as u64) << 32));
            std::thread::spawn(move || Client { conn: Conn::to(addr), keys, rng, number, shared }.run())
        };
        let threads = (0..CLIENTS).map(client).collect();
        Storm { shared, threads }
    }

    /// Commands answered so far.
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Ordering::Relaxed)
    }

    /// Lets the clients finish their batches. How many commands were answered.
    pub fn stop(mut self) -> u64 {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client failed");
        }
        self.commands()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

struct Client {
    conn: Conn,
    keys: Keys,
    rng: Rng,
    number: usize,
    shared: Arc<Shared>,
}

impl Client {
    fn run(mut self) {
        let mut batch = Vec::new();
        while !self.may_stop() {
            batch.clear();
            for _ in 0..BATCH {
                match self.number % 3 {
                    0 => self.text(&mut batch),
                    1 => self.meta(&mut batch),
                    _ => self.binary(&mut batch),
                }
            }
            self.finish(&mut batch);
            self.shared.commands.fetch_add(BATCH as u64, Ordering::Relaxed);
            self.shared.since_flush.fetch_add(BATCH as u64, Ordering::Relaxed);
        }
    }

    fn may_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed) && self.shared.since_flush.load(Ordering::Relaxed) >= COMMANDS_MIN
    }

    /// Whether to flush now.
    fn flushes(&mut self) -> bool {
        let flushes = self.rng.one_in(FLUSH);
        if flushes {
            self.shared.since_flush.store(0, Ordering::Relaxed);
        }
        flushes
    }

    /// Sends a batch and takes its replies, up to that of the barrier at its end.
    fn finish(&mut self, batch: &mut Vec<u8>) {
        let is_binary = self.number % 3 == 2;
        let barrier = Packet { opaque: 0x7777_7777, ..Packet::new(0x0a, b"", b"") };
        match is_binary {
            true => batch.extend_from_slice(&barrier.request()),
            false => batch.extend_from_slice(b"mn\r\n"),
        }
        self.conn.send(batch);
        let is_done = |got: &[u8]| match is_binary {
            true => got.len() >= HEADER && got[got.len() - HEADER..][12..16] == [0x77; 4],
            false => got.ends_with(b"MN\r\n"),
        };
        let waited = self.conn.read_until(DEADLINE, is_done);
        assert_eq!(waited, Waited::Done, "client {} is not answered", self.number);
        self.conn.got.clear();
    }

    fn text(&mut self, out: &mut Vec<u8>) {
        let key = self.keys.speakable(&mut self.rng);
        let key = String::from_utf8(key).expect("speakable");
        let flushes = self.flushes();
        let rng = &mut self.rng;
        let (ttl, quiet) = (exptime(rng), if rng.one_in(4) { " noreply" } else { "" });
        let line = match rng.below(100) {
            _ if flushes => "flush_all\r\n".into(),
            0..50 => {
                let verb = rng.pick(&["set", "set", "set", "add", "replace", "append", "prepend"]);
                let value = value(rng);
                let head = format!("{verb} {key} {} {ttl} {}{quiet}\r\n", client_flags(rng), value.len());
                out.extend_from_slice(head.as_bytes());
                out.extend_from_slice(&value);
                "\r\n".into()
            }
            50..55 => format!("cas {key} 1 {ttl} 3 {}{quiet}\r\nold\r\n", 1 + rng.below(1_000_000)),
            55..65 => format!("incr {key} {}{quiet}\r\n", rng.next() >> 20),
            65..72 => format!("decr {key} {}{quiet}\r\n", rng.next() >> 50),
            72..80 => format!("touch {key} {ttl}{quiet}\r\n"),
            80..85 => format!("gat {ttl} {key}\r\n"),
            85..88 => format!("gats {ttl} {key} absent {key}\r\n"),
            _ => format!("delete {key}{quiet}\r\n"),
        };
        out.extend_from_slice(line.as_bytes());
    }

    fn meta(&mut self, out: &mut Vec<u8>) {
        let (word, base64) = self.keys.word(self.rng.below(self.keys.count));
        let rng = &mut self.rng;
        let (ttl, quiet) = (exptime(rng), if rng.one_in(4) { " q" } else { "" });
        let mut data = None;
        let (verb, flags) = match rng.below(100) {
            0..45 => {
                data = Some(value(rng));
                let mode = rng.pick(&["", "", "", " ME", " MR", " MA", " MP", " MA N300", " I C5"]);
                ("ms", format!(" F{} T{ttl}{mode}{quiet}", client_flags(rng)))
            }
            45..55 => ("md", quiet.to_owned()),
            55..60 => ("md", format!(" I T{}{quiet}", 300 + rng.below(1000))),
            60..63 => ("md", format!(" I{quiet}")),
            63..66 => ("md", format!(" x{quiet}")),
            66..68 => ("md", format!(" x I T500 F7{quiet}")),
            68..72 => ("mg", " s c".into()),
            72..77 => ("mg", format!(" N{} c", 300 + rng.below(1000))),
            77..80 => ("mg", format!(" R{} t", 100 + rng.below(100_000))),
            80..86 => ("mg", format!(" T{ttl} f")),
            86..96 => ("ma", format!(" D{}{}", rng.below(1000), rng.pick(&["", " MD", " N500 J77", " T600", " q"]))),
            _ => ("md", format!(" C7{quiet}")),
        };
        out.extend_from_slice(verb.as_bytes());
        out.push(b' ');
        out.extend_from_slice(&word);
        if let Some(data) = &data {
            out.extend_from_slice(format!(" {}", data.len()).as_bytes());
        }
        out.extend_from_slice(base64);
        out.extend_from_slice(flags.as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(data) = data {
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        }
    }

    fn binary(&mut self, out: &mut Vec<u8>) {
        let key = self.keys.key(self.rng.below(self.keys.count));
        let flushes = self.flushes();
        let rng = &mut self.rng;
        // Below 0 is a time beyond 2038 in this protocol, which no meta command can name.
        let ttl = exptime(rng).max(0).to_be_bytes();
        let quiet = rng.one_in(3);
        let packet = match rng.below(100) {
            _ if flushes => Packet::new(if quiet { 0x18 } else { 8 }, b"", b""),
            0..50 => {
                let op = if quiet { rng.pick(&[0x11, 0x12, 0x13]) } else { rng.pick(&[1, 1, 2, 3]) };
                let extras = [client_flags(rng).to_be_bytes(), ttl].concat();
                Packet { value: value(rng), ..Packet::new(op, &key, &extras) }
            }
            50..58 => {
                let op = rng.pick(&[0x0e, 0x0f, 0x19, 0x1a]);
                Packet { value: b"and more".to_vec(), ..Packet::new(op, &key, b"") }
            }
            58..75 => {
                let op = rng.pick(&[5, 6, 0x15, 0x16]);
                let numbers = [rng.next() >> 40, rng.next() >> 40].map(u64::to_be_bytes).concat();
                let ttl = if rng.one_in(3) { [0xff; 4] } else { ttl };
                Packet::new(op, &key, &[&numbers[..], &ttl].concat())
            }
            75..82 => Packet::new(0x1c, &key, &ttl),
            82..88 => Packet::new(0x1d, &key, &ttl),
            _ => Packet::new(if quiet { 0x14 } else { 4 }, &key, b""),
        };
        out.extend_from_slice(&packet.request());
    }
}

fn client_flags(rng: &mut Rng) -> u32 {
    if rng.one_in(2) { 0 } else { rng.next() as u32 }
}

/// Never, at once, in an hour or more, or an absolute time; nothing that comes while sides are compared.
fn exptime(rng: &mut Rng) -> i32 {
    match rng.below(10) {
        0..5 => 0,
        5 if rng.one_in(4) => -1,
        5..8 => 4000 + rng.below(100_000),
        _ => (unix() + LATER) as i32 + rng.below(1000),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(HUGE) {
        0 => 600_000 + rng.below(300_000),
        n if n < HUGE / LARGE => 10_000 + rng.below(30_000),
        n if n % 4 == 0 => return (rng.next() >> (3 + rng.below(60))).to_string().into(),
        n => n % 180,
    };
    let (first, step) = (rng.next() as u8, rng.next() as u8 | 1);
    (0..len).map(|i| first.wrapping_add(step.wrapping_mul(i as u8))).collect()
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
