//! Journal, consumer and a peer through schedules of cut writes, loss, cut connections and full walks, without sockets and
//! with a clock of its own.
//!
//! ```text
//!  random commands ──> primary ── journal ── Consumer ──> wire, cut anywhere ──> Sidecar ──> peer
//!                         │                                                     │ ack      │
//!                         └──────────────── in the end, the same items ─────────┴──────────┘
//! ```
//!
//! The primary and the peer are real stores behind the real commands; the sidecar is the simplest that can be right.
//! `TWINCACHE_SEED` replays a run, `TWINCACHE_SEEDS` says how many.

use crate::clock::Clock;
use crate::command::Output;
use crate::config::Config;
use crate::protocol::base64;
use crate::replication::session::{Consumer, Now};
use crate::testing::{Rng, TestServer, flatten, is_replay, packet, seeds};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Few, so that keys are rewritten and meet each other.
const KEYS: usize = 60;

/// In an ordinary run.
const SCHEDULES: u64 = 1500;

/// Of the journal: so small that a few hundred changes overtake a reader.
const JOURNAL_BYTES: usize = 40 << 10;

/// A server with a small journal.
fn server(clock: &Arc<Clock>) -> TestServer {
    let change = |config: &mut Config| {
        config.store.memory_limit = 16 << 20;
        config.store.hash_power = Some(12);
        config.store.journal_bytes = JOURNAL_BYTES;
        config.store.threads = 1;
    };
    TestServer::with_clock(clock, change)
}

/// What a client can find out about an item; the expiry is a Unix time.
type Seen = (Vec<u8>, u32, i64, u64, bool, bool);

fn items(server: &TestServer) -> BTreeMap<Vec<u8>, Seen> {
    let keys = (0..KEYS).map(|i| key(i).0);
    let items = keys.filter_map(|key| {
        let hash = server.shared.store.hash(&key);
        let mut shard = server.shared.store.lock(hash);
        let id = shard.find(&key, hash).ok()?;
        let item = shard.item(id);
        let mut value = Vec::new();
        item.copy_value(&mut value);
        let expiry = if item.expires_at() == 0 { 0 } else { server.shared.clock.unix(item.expires_at()) };
        Some((key, (value, item.client_flags(), expiry, item.cas(), item.is_stale(), item.is_win_sent())))
    });
    items.collect()
}
/// A key, and as the text protocol names it, with the flag that this takes.
fn key(i: usize) -> (Vec<u8>, String, &'static str) {
    let name = format!("key{i}");
    match i % 5 {
        0 => {
            let raw = format!("bin {i}\r\n").into_bytes();
            let mut text = Vec::new();
            base64::encode(&raw, &mut text);
            (raw, String::from_utf8(text).unwrap(), " b")
        }
        _ => (name.clone().into_bytes(), name, ""),
    }
}

/// A random command that changes, or reads, something.
fn command(rng: &mut Rng) -> Vec<u8> {
    let i = rng.below(KEYS);
    let (raw, name, b) = key(i);
    let len = if rng.one_in(40) { 16_000 + rng.below(1_000) } else { rng.below(300) };
    let value = (b'a' + rng.below(26) as u8) as char;
    let value = value.to_string().repeat(len);
    let number = rng.below(100_000);
    let ttl = [0, 0, 0, 3, 20, 100, 5_000, -1][rng.below(8)];
    let flags = rng.below(3);
    let text = b.is_empty();
    let line = match rng.below(24) {
        0..6 => format!("ms {name} {len}{b} T{ttl} F{flags}\r\n{value}\r\n"),
        6 if text => format!("set {name} {flags} {ttl} {len}\r\n{value}\r\n"),
        7 => format!("ms {name} {}{b} T{ttl}\r\n{number}\r\n", number.to_string().len()),
        8 => format!("ms {name} 3{b} M{}\r\nabc\r\n", ["A", "P", "E", "R"][rng.below(4)]),
        9 | 10 => format!("ma {name}{b} D{number} M{}\r\n", ["+", "-"][rng.below(2)]),
        11 => format!("ma {name}{b} N{} J5\r\n", ttl.max(0)),
        12 | 13 => format!("md {name}{b}\r\n"),
        14 => format!("md {name}{b} I T{}\r\n", [30, 300][rng.below(2)]),
        15 => format!("md {name}{b} x\r\n"),
        16 => format!("mg {name}{b} v T{}\r\n", [0, 7, 70][rng.below(3)]),
        17 => format!("mg {name}{b} v N{}\r\n", [30, 0][rng.below(2)]),
        18 => format!("mg {name}{b} v R{}\r\n", [30, 1000][rng.below(2)]),
        19 if text => format!("touch {name} {ttl}\r\n"),
        20 if text => format!("gat {} {name}\r\n", ttl.max(0)),
        21 if text => format!("delete {name}\r\n"),
        22 if !text => {
            return packet(1, &[0, 0, 0, flags as u8, 0, 0, 0, 0], &raw, number.to_string().as_bytes(), 0, 0);
        }
        23 if rng.one_in(12) => format!("flush_all{}\r\n", [" 2", "", ""][rng.below(3)]),
        _ => format!("mg {name}{b} v\r\n"),
    };
    line.into_bytes()
}

/// What the sidecar knows of a stream's position that the peer has in full.
type Position = Option<(u64, u64)>;

/// One connection of the sidecar, and what it remembers from one to the next.
struct Sidecar {
    identity: String,
    connected: bool,
    /// Received and not yet taken.
    wire: Vec<u8>,
    run_id: u64,
    is_clean: bool,
    position: Position,
    /// Acknowledgements on their way back.
    acks: Vec<u8>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    walks: u64,
    continued: u64,
    overtaken: u64,
    batches: u64,
    alive: u64,
}

impl Sidecar {
    /// Takes every whole line and batch off the wire, and lets the peer have them.
    fn take(&mut self, peer: &TestServer) {
        let wire = std::mem::take(&mut self.wire);
        let mut at = 0;
        while let Some(end) = wire[at..].windows(2).position(|pair| pair == b"\r\n") {
            let line = std::str::from_utf8(&wire[at..at + end]).expect("a line");
            let words: Vec<&str> = line.split(' ').collect();
            let start = at + end + 2;
            let mut next = start;
            let lsn = || words[words.len().min(3) - 1].parse::<u64>().expect(line);
            match words[0] {
                "batch" => {
                    let len: usize = words[2].parse().unwrap();
                    let Some(body) = wire.get(start..start + len) else { break };
                    let (taken, replies) = peer.run(body);
                    assert_eq!(taken, len, "a batch of parts: {}", body.escape_ascii());
                    assert!(!String::from_utf8_lossy(&replies).contains("ERROR"), "{}", replies.escape_ascii());
                    self.counts.batches += 1;
                    self.confirm(words[1].parse().unwrap());
                    next = start + len;
                }
                "walk" => {
                    self.counts.walks += 1;
                    self.begin(&words, false, peer);
                    assert_eq!(peer.ask("replica begin|"), "OK|");
                }
                "continuing" => {
                    self.counts.continued += 1;
                    self.begin(&words, true, peer);
                }
                "walked" => {
                    assert_eq!(peer.ask("replica end|"), "OK|");
                    self.is_clean = true;
                    self.confirm(words[1].parse().unwrap());
                }
                "overtaken" => {
                    self.counts.overtaken += 1;
                    self.is_clean = false;
                    self.position = None;
                }
                "caught-up" => {
                    self.is_clean = true;
                    self.confirm(words[1].parse().unwrap());
                }
                "alive" => self.counts.alive += 1,
                "lacking" => assert_eq!(words[1], "0", "{}", lsn()),
                "walking" => assert!(!self.is_clean, "items of no full sync, {}", lsn()),
                "twincache" => assert_eq!((words[1], words.len()), ("1", 4)),
                _ => panic!("{line}, {}", lsn()),
            }
            at = next;
        }
        self.wire = wire[at..].to_vec();
    }

    fn begin(&mut self, words: &[&str], is_clean: bool, peer: &TestServer) {
        self.run_id = u64::from_str_radix(words[1], 16).unwrap();
        self.follow(peer);
        self.is_clean = is_clean;
        self.position = is_clean.then(|| (self.run_id, words[2].parse().unwrap()));
    }

    /// Said every second.
    fn follow(&self, peer: &TestServer) {
        let reply = peer.ask(&format!("replica from {:016x}|", self.run_id));
        let own = peer.shared.store.journal().run_id();
        assert!(reply.starts_with(&format!("OK {own:016x} ")), "{reply}");
    }

    fn confirm(&mut self, lsn: u64) {
        if self.is_clean {
            self.position = Some((self.run_id, lsn));
        }
        self.acks.extend_from_slice(format!("ack {lsn}\r\n").as_bytes());
    }

    fn attach_line(&self, given: bool) -> String {
        let (run_id, lsn) = match self.position.filter(|_| given) {
            Some((run_id, lsn)) => (format!("{run_id:016x}"), lsn.to_string()),
            None => ("-".into(), "-".into()),
        };
        format!("attach there {} {run_id} {lsn} cas\r\n", self.identity)
    }
}

struct Schedule {
    rng: Rng,
    clock: Arc<Clock>,
    now: Instant,
    primary: TestServer,
    peer: TestServer,
    consumer: Consumer,
    /// What the consumer has said and the wire has not taken.
    out: Vec<u8>,
    sidecar: Sidecar,
    peers: u64,
}

impl Schedule {
    fn new(seed: u64) -> Schedule {
        let clock = Arc::new(Clock::new());
        clock.pause(true);
        let sidecar = Sidecar {
            identity: "peer-0".into(),
            connected: false,
            wire: Vec::new(),
            run_id: 0,
            is_clean: false,
            position: None,
            acks: Vec::new(),
            counts: Counts::default(),
        };
        let (primary, peer) = (server(&clock), server(&clock));
        let (out, consumer) = (Vec::new(), Consumer::default());
        Schedule { rng: Rng(seed), clock, now: Instant::now(), primary, peer, consumer, out, sidecar, peers: 0 }
    }

    fn run(mut self) -> Counts {
        for _ in 0..120 {
            match self.rng.below(100) {
                0..45 => self.write_some(),
                45..66 => drop(self.send()),
                66..86 => self.deliver(),
                86..93 => self.acknowledge(),
                93..96 => self.pass(),
                96 => self.disconnect(),
                97 if self.rng.one_in(4) => self.replace_peer(),
                _ => self.connect(),
            }
        }
        self.settle();
        self.sidecar.counts
    }

    fn now(&self) -> Now {
        Now { at: self.now, unix_ms: 1_800_000_000_000 }
    }

    fn write_some(&mut self) {
        let most = if self.rng.one_in(20) { 200 } else { 8 };
        for _ in 0..self.rng.below(most) {
            let command = command(&mut self.rng);
            let replies = self.primary.send(&command);
            assert!(!replies.starts_with(b"ERROR"), "{}", command.escape_ascii());
        }
    }

    /// The consumer is asked for more only when the wire has taken what it said, as a socket's owner does.
    fn send(&mut self) -> bool {
        if !self.sidecar.connected || !self.out.is_empty() {
            return false;
        }
        let mut out = Output::default();
        let filled = self.consumer.fill(&self.primary.shared, self.now(), &mut out);
        self.consumer.beat(&self.primary.shared, self.now(), &mut out);
        self.out.append(&mut flatten(&out));
        assert!(!self.consumer.is_gone());
        filled
    }

    fn deliver(&mut self) {
        let n = if self.rng.one_in(3) { self.out.len() } else { self.rng.below(self.out.len() + 1) };
        self.sidecar.wire.extend(self.out.drain(..n));
        self.sidecar.take(&self.peer);
    }

    fn acknowledge(&mut self) {
        let n = if self.rng.one_in(2) { self.sidecar.acks.len() } else { self.rng.below(self.sidecar.acks.len() + 1) };
        let acks: Vec<u8> = self.sidecar.acks.drain(..n).collect();
        self.say(&acks);
    }

    fn say(&mut self, bytes: &[u8]) {
        let mut out = Output::default();
        let now = self.now();
        assert!(self.consumer.input(bytes, &self.primary.shared, now, &mut out), "{}", out.bytes.escape_ascii());
        self.out.append(&mut flatten(&out));
    }

    /// A little time, or so much that a detached consumer is forgotten.
    fn pass(&mut self) {
        let seconds = if self.rng.one_in(20) { 90 } else { self.rng.below(4) as i64 };
        if seconds > 5 {
            self.disconnect();
        }
        self.now += Duration::from_secs(seconds as u64) + Duration::from_millis(30);
        self.clock.advance(seconds);
        self.primary.shared.store.journal().tick(self.now);
        self.peer.shared.store.journal().tick(self.now);
        if self.sidecar.connected && self.sidecar.run_id != 0 {
            self.sidecar.follow(&self.peer);
        }
    }

    fn connect(&mut self) {
        if self.sidecar.connected {
            return;
        }
        self.consumer = Consumer::default();
        self.sidecar.connected = true;
        let mut out = Output::default();
        self.consumer.greet(&self.primary.shared, &mut out);
        self.out.append(&mut flatten(&out));
        let given = self.rng.one_in(2);
        let line = self.sidecar.attach_line(given);
        self.say(line.as_bytes());
    }

    /// In the middle of a line, a batch, or an acknowledgement, as it happens.
    fn disconnect(&mut self) {
        self.consumer = Consumer::default();
        self.sidecar.connected = false;
        self.out.clear();
        self.sidecar.wire.clear();
        self.sidecar.acks.clear();
    }

    /// The peer is killed, and comes back empty.
    fn replace_peer(&mut self) {
        self.disconnect();
        self.peers += 1;
        self.peer = server(&self.clock);
        self.sidecar.identity = format!("peer-{}", self.peers);
        self.sidecar.position = None;
    }

    /// Nobody writes any more: in the end both have the same items.
    fn settle(&mut self) {
        self.connect();
        for _ in 0..100_000 {
            self.sidecar.wire.append(&mut self.out);
            let sent = self.send();
            self.sidecar.wire.append(&mut self.out);
            self.sidecar.take(&self.peer);
            let acks = std::mem::take(&mut self.sidecar.acks);
            self.say(&acks);
            if !sent && !self.consumer.is_behind() {
                break;
            }
        }
        assert!(self.sidecar.is_clean, "the stream does not end");
        let head = self.primary.shared.store.journal().status(self.now).lsn;
        assert_eq!(self.sidecar.position, Some((self.primary.shared.store.journal().run_id(), head)));
        assert!(!self.consumer.lacks(&self.primary.shared));
        let (primary, peer) = (items(&self.primary), items(&self.peer));
        for (key, item) in &primary {
            assert_eq!(peer.get(key), Some(item), "{}", key.escape_ascii());
        }
        let left: Vec<_> = peer.keys().filter(|key| !primary.contains_key(*key)).collect();
        assert!(left.is_empty(), "only the peer has {left:?}");
    }
}

#[test]
fn a_peer_has_in_the_end_what_the_primary_has() {
    let mut sum = Counts::default();
    for seed in seeds(SCHEDULES) {
        let counts = Schedule::new(seed).run();
        sum.walks += counts.walks;
        sum.continued += counts.continued;
        sum.overtaken += counts.overtaken;
        sum.batches += counts.batches;
        sum.alive += counts.alive;
    }
    println!("{sum:?}");
    assert!(is_replay() || (sum.continued > 40 && sum.overtaken > 40 && sum.alive > 100), "{sum:?}");
}

/// Who has said that something was refused is told what is lacking, even if that is as before; and so is who attaches.
#[test]
fn what_is_lacking_is_told_after_each_refusal() {
    let primary = server(&Arc::new(Clock::new()));
    let (mut consumer, mut now) = (Consumer::default(), Now { at: Instant::now(), unix_ms: 0 });
    for (line, is_told) in [("attach there peer-0 - - cas\r\n", true), ("ack 1\r\n", false), ("refuse 1\r\n", true)] {
        let mut out = Output::default();
        assert!(consumer.input(line.as_bytes(), &primary.shared, now, &mut out));
        for beat in 0..3 {
            now.at += Duration::from_secs(1);
            let mut out = Output::default();
            consumer.beat(&primary.shared, now, &mut out);
            let told = String::from_utf8_lossy(&out.bytes).contains("lacking ");
            assert_eq!(told, is_told && beat == 0, "{line}: {}", out.bytes.escape_ascii());
        }
    }
}
