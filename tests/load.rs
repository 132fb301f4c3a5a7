//! Load: a full, evicting cache, clients of all three protocols at once, and no wrong value, ever.
//!
//! ```text
//!   client i (text | meta | binary): batches of pipelined requests on keys of its own ──┐
//!      its model knows what each key may hold: this very value, or nothing              ├──> server
//!   all clients: keys in common, whose values carry their key and a checksum ───────────┤
//!   an operator: moves pages, tunes LRUs, crawls, dumps, changes the memory limit ──────┘
//!   at the end: the clients' tallies == `stats`, dump == curr_items and bytes, every shard's check()
//! ```
//!
//! Once against the real binary, once in process, where the store's structures can be checked. `LOAD_SECONDS`
//! (20) is shared by the two; `LOAD_SEED` replays the clients' choices; `LOAD_ARGS` are more options for the real
//! binary (such that leave the maintainer and the crawler on). A cache may forget: a key that should hold a value
//! may be missing (evicted), but then it stays missing until it is stored again.

mod common;
#[path = "load/wire.rs"]
mod wire;

use common::{Conn, DEADLINE, Rng, Running, Server, Waited, from_env, seed, show, until};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::{Op, Reply, Wire, decode, encode};

/// Clients, one connection each; client i speaks protocol i mod 3.
const CLIENTS: usize = 6;
/// Keys that one client has to itself.
const OWN_KEYS: usize = 4000;
/// Keys that all clients share.
const COMMON_KEYS: usize = 500;
/// The server's item memory in MiB, far less than all values together.
const MEMORY_MB: usize = 64;
/// The most requests in one batch.
const BATCH: usize = 24;
/// The fewest batches of a client, however slow the machine: these fill the memory.
const ROUNDS_MIN: usize = 800;
/// The largest value; with key and header it still fits into the default `-I`.
const LARGEST: usize = (1 << 20) - 600;
/// Pieces of a value (set, then appended and prepended to) that a model keeps.
const PIECES: usize = 6;
/// An expired item must be gone this long after its time, in seconds: clock steps and a busy machine.
const LATE: u64 = 6;

/// What one client did, by memcached's names for it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    cmd_get: u64,
    get_hits: u64,
    get_misses: u64,
    cmd_set: u64,
    delete_hits: u64,
    delete_misses: u64,
    incr_hits: u64,
    incr_misses: u64,
    cas_hits: u64,
    cas_misses: u64,
    cas_badval: u64,
    cmd_touch: u64,
    touch_hits: u64,
    touch_misses: u64,
    store_too_large: u64,
    store_no_memory: u64,
}

impl Tally {
    fn named(&self) -> [(&'static str, u64); 16] {
        [
            ("cmd_get", self.cmd_get),
            ("get_hits", self.get_hits),
            ("get_misses", self.get_misses),
            ("cmd_set", self.cmd_set),
            ("delete_hits", self.delete_hits),
            ("delete_misses", self.delete_misses),
            ("incr_hits", self.incr_hits),
            ("incr_misses", self.incr_misses),
            ("cas_hits", self.cas_hits),
            ("cas_misses", self.cas_misses),
            ("cas_badval", self.cas_badval),
            ("cmd_touch", self.cmd_touch),
            ("touch_hits", self.touch_hits),
            ("touch_misses", self.touch_misses),
            ("store_too_large", self.store_too_large),
            ("store_no_memory", self.store_no_memory),
        ]
    }
}

/// A piece of a value: `len` bytes that follow from (key, version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    version: u32,
    len: usize,
}

/// What a key of one client's own may hold.
#[derive(Clone, Debug, Default)]
struct KeyState {
    /// The pieces of its value, in order; none: it must be missing.
    pieces: VecDeque<Piece>,
    /// Its value is this number instead.
    number: Option<u64>,
    client_flags: u32,
    /// When it must be gone.
    dead_at: Option<Instant>,
    /// The cas unique of the last get, if nothing has changed the item since.
    cas: Option<u64>,
}

impl KeyState {
    fn is_missing(&self) -> bool {
        self.pieces.is_empty() && self.number.is_none()
    }

    fn len(&self) -> usize {
        self.pieces.iter().map(|piece| piece.len).sum()
    }
}

/// The bytes of a piece: a checksum can show that a value is wrong, this shows what it should have been.
fn piece_bytes(key: &str, piece: Piece, out: &mut Vec<u8>) {
    let mut rng =
        Rng(u64::from(piece.version) ^ key.bytes().fold(7, |sum: u64, b| sum.wrapping_mul(31).wrapping_add(b.into())));
    let end = out.len() + piece.len;
    while out.len() + 8 <= end {
        out.extend_from_slice(&rng.next().to_le_bytes());
    }
    let last = rng.next().to_le_bytes();
    out.extend_from_slice(&last[..end - out.len()]);
}

/// A value of a key in common: `<key> <checksum> <filler>`.
fn common_value(key: &str, rng: &mut Rng) -> Vec<u8> {
    let mut filler = Vec::new();
    let piece = Piece { version: rng.next() as u32, len: size(rng) };
    piece_bytes(key, piece, &mut filler);
    let mut value = format!("{key} {:016x} ", checksum(&filler)).into_bytes();
    value.extend_from_slice(&filler);
    value.truncate(LARGEST);
    if value.len() == LARGEST { common_value(key, rng) } else { value }
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum: u64, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

fn check_common(key: &str, value: &[u8]) {
    let head = key.len() + 18;
    assert!(value.len() >= head, "{key}: {}", show(value));
    let expected = format!("{key} {:016x} ", checksum(&value[head..]));
    assert_eq!(show(&value[..head]), show(expected.as_bytes()), "{key} holds another's or a torn value");
}

/// Mostly small: 80 % up to 200 bytes, 15 % to 4 KB, 4.5 % to 64 KB, the rest to 1 MiB.
fn size(rng: &mut Rng) -> usize {
    match rng.below(200) {
        0..160 => 1 + rng.below(200),
        160..190 => 200 + rng.below(4000),
        190..199 => 4000 + rng.below(60_000),
        _ => 64_000 + rng.below(LARGEST - 64_000),
    }
}

/// One client: a connection, its keys and its tally.
struct Client {
    wire: Wire,
    conn: Conn,
    rng: Rng,
    number: usize,
    version: u32,
    models: Vec<KeyState>,
    tally: Tally,
}

/// A request on its way.
struct Sent {
    key: String,
    /// Which of the own keys; None for one in common.
    own: Option<usize>,
    op: Op,
    /// The piece that a store adds.
    piece: Option<Piece>,
}

impl Client {
    fn new(addr: SocketAddr, number: usize, seed: u64) -> Client {
        let wire = [Wire::Text, Wire::Meta, Wire::Binary][number % 3];
        let rng = Rng(seed ^ (number as u64) << 40);
        let models = vec![KeyState::default(); OWN_KEYS];
        Client { wire, conn: Conn::to(addr), rng, number, version: 0, models, tally: Tally::default() }
    }

    /// Sends one batch and checks every reply.
    fn round(&mut self) {
        let mut batch: Vec<Sent> = Vec::new();
        let mut request = Vec::new();
        for _ in 0..1 + self.rng.below(BATCH) {
            let sent = self.choose();
            // Two requests on one key in a batch would need a model of what is in between.
            if batch.iter().all(|other| other.key != sent.key) {
                encode(self.wire, &sent.key, &sent.op, &mut request);
                batch.push(sent);
            }
        }
        let asked = Instant::now();
        self.conn.send(&request);
        for sent in batch {
            let reply = receive(&mut self.conn, self.wire, &sent);
            count(&mut self.tally, self.wire, &sent.op, &reply);
            match sent.own {
                Some(own) => self.check_own(own, sent, reply, asked),
                None => check_reply_in_common(&sent, &reply),
            }
        }
    }

    fn choose(&mut self) -> Sent {
        if self.rng.one_in(5) {
            let key = format!("common:{}", self.rng.below(COMMON_KEYS));
            let op = match self.rng.below(10) {
                0..6 => Op::Get,
                6..9 => Op::Set { value: common_value(&key, &mut self.rng), client_flags: 0, ttl: 0 },
                _ => Op::Delete,
            };
            return Sent { key, own: None, op, piece: None };
        }
        let own = self.rng.below(OWN_KEYS);
        let key = key_of(self.number, own);
        let (op, piece) =
            if own.is_multiple_of(10) { (self.choose_number(own), None) } else { self.choose_value(own, &key) };
        Sent { key, own: Some(own), op, piece }
    }

    /// Every tenth key holds a number.
    fn choose_number(&mut self, own: usize) -> Op {
        match self.rng.below(8) {
            0 => Op::Delete,
            1 => Op::Get,
            2..4 => {
                let value = self.rng.below(1_000_000).to_string().into_bytes();
                Op::Set { value, client_flags: own as u32, ttl: 0 }
            }
            _ => Op::Incr { delta: self.rng.next() >> self.rng.below(64) },
        }
    }

    fn choose_value(&mut self, own: usize, key: &str) -> (Op, Option<Piece>) {
        self.version += 1;
        let piece = Piece { version: self.version, len: size(&mut self.rng) };
        let mut value = Vec::new();
        let model = &self.models[own];
        let grows = !model.pieces.is_empty() && model.pieces.len() < PIECES && model.len() + piece.len <= LARGEST;
        match self.rng.below(40) {
            0..16 => return (Op::Get, None),
            16..18 => return (Op::Delete, None),
            18..20 => return (Op::Touch { ttl: [0, 1, 2, 100][self.rng.below(4)] }, None),
            _ => piece_bytes(key, piece, &mut value),
        }
        let op = match self.rng.below(20) {
            0 | 1 if grows => Op::Append { value },
            2 | 3 if grows => Op::Prepend { value },
            4..8 if model.cas.is_some() => Op::Cas { value, cas: model.cas.unwrap() },
            8 => Op::Add { value },
            9 if self.rng.one_in(20) => {
                return (Op::Set { value: vec![b'x'; (1 << 20) + 1], client_flags: 0, ttl: 0 }, None);
            }
            n => {
                Op::Set { value, client_flags: self.rng.next() as u32, ttl: if n == 10 { 1 + n as u32 % 3 } else { 0 } }
            }
        };
        (op, Some(piece))
    }

    /// Compares a reply with what the model allows, then brings the model up to date.
    fn check_own(&mut self, own: usize, sent: Sent, reply: Reply, asked: Instant) {
        let Sent { key, op, piece, .. } = sent;
        let model = &mut self.models[own];
        let overdue = model.dead_at.is_some_and(|at| asked > at);
        match (&op, &reply) {
            (Op::Get | Op::Cas { .. } | Op::Delete | Op::Incr { .. } | Op::Touch { .. }, Reply::NotFound) => {
                *model = KeyState::default();
            }
            // Missing, or no memory for the joined value: then the old one stays.
            (Op::Append { .. } | Op::Prepend { .. }, Reply::NotStored) => {}
            (Op::Set { ttl, client_flags, value }, Reply::Done) => {
                let number = piece.is_none().then(|| std::str::from_utf8(value).unwrap().parse().unwrap());
                let dead_at = (*ttl > 0).then(|| gone_at(*ttl));
                *model = KeyState {
                    pieces: piece.into_iter().collect(),
                    number,
                    client_flags: *client_flags,
                    dead_at,
                    cas: None,
                };
            }
            (Op::Set { value, .. }, Reply::TooLarge) if value.len() > LARGEST => *model = KeyState::default(),
            // A refused set, and any refused ms, has removed the old item.
            (Op::Set { .. }, Reply::NoMemory) => *model = KeyState::default(),
            (_, Reply::NoMemory) if self.wire == Wire::Meta => *model = KeyState::default(),
            (_, Reply::NoMemory) => {}
            (Op::Add { .. }, Reply::Done) => {
                *model = KeyState { pieces: piece.into_iter().collect(), ..KeyState::default() }
            }
            // It may have been found missing by nobody yet; it must be there, else add would have stored.
            (Op::Add { .. }, Reply::NotStored) => {
                assert!(!model.is_missing() && !overdue, "{key}: add finds what is gone")
            }
            (Op::Cas { cas, .. }, Reply::Done) => {
                assert_eq!(model.cas, Some(*cas));
                *model = KeyState { pieces: piece.into_iter().collect(), ..KeyState::default() };
            }
            _ => check_present(&key, model, overdue, &op, piece, &reply),
        }
    }

    /// Deletes every key that may yet expire, so that what is counted later stays.
    fn settle(&mut self) {
        for own in 0..OWN_KEYS {
            if self.models[own].dead_at.take().is_some() {
                let sent = Sent { key: key_of(self.number, own), own: Some(own), op: Op::Delete, piece: None };
                let mut request = Vec::new();
                encode(self.wire, &sent.key, &sent.op, &mut request);
                self.conn.send(&request);
                let reply = receive(&mut self.conn, self.wire, &sent);
                count(&mut self.tally, self.wire, &sent.op, &reply);
            }
        }
    }
}

fn key_of(client: usize, own: usize) -> String {
    format!("client{client}:{own}")
}

fn gone_at(ttl: u32) -> Instant {
    Instant::now() + Duration::from_secs(u64::from(ttl) + LATE)
}

/// Replies that say that the key is there.
fn check_present(key: &str, model: &mut KeyState, overdue: bool, op: &Op, piece: Option<Piece>, reply: &Reply) {
    if matches!((op, reply), (Op::Delete, Reply::Done)) && model.is_missing() {
        panic!("{key}: deleted, though it was gone");
    }
    assert!(!model.is_missing(), "{key}: back from nothing, {op:?} {reply:?}");
    assert!(!overdue, "{key}: found long after its time");
    match (op, reply) {
        (Op::Get, Reply::Hit { value, client_flags, cas }) => {
            check_value(key, model, value);
            assert_eq!(*client_flags, model.client_flags, "{key}");
            model.cas = Some(*cas);
        }
        (Op::Delete, Reply::Done) => *model = KeyState::default(),
        (Op::Touch { ttl }, Reply::Done) => model.dead_at = (*ttl > 0).then(|| gone_at(*ttl)),
        (Op::Append { .. }, Reply::Done) => {
            model.pieces.extend(piece);
            model.cas = None;
        }
        (Op::Prepend { .. }, Reply::Done) => {
            model.pieces.push_front(piece.unwrap());
            model.cas = None;
        }
        (Op::Incr { delta }, Reply::Number(number)) => {
            let expected = model.number.expect("a number").wrapping_add(*delta);
            assert_eq!(*number, expected, "{key}");
            model.number = Some(expected);
        }
        _ => panic!("{key}: {op:?} answered {reply:?}; expected {model:?}"),
    }
}

fn check_value(key: &str, model: &KeyState, value: &[u8]) {
    if let Some(number) = model.number {
        assert_eq!(String::from_utf8_lossy(value).trim_end(), number.to_string(), "{key}");
        return;
    }
    let mut expected = Vec::with_capacity(model.len());
    model.pieces.iter().for_each(|&piece| piece_bytes(key, piece, &mut expected));
    if value != expected {
        let at = value.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(value.len().min(expected.len()));
        panic!("{key}: wrong from byte {at}; {} bytes, expected {}: {:?}", value.len(), expected.len(), model.pieces);
    }
}

fn check_reply_in_common(sent: &Sent, reply: &Reply) {
    match (&sent.op, reply) {
        (Op::Get, Reply::Hit { value, .. }) => check_common(&sent.key, value),
        (Op::Get | Op::Delete, Reply::NotFound) | (Op::Set { .. }, Reply::Done | Reply::NoMemory) => {}
        (Op::Delete, Reply::Done) => {}
        _ => panic!("{}: {:?} answered {reply:?}", sent.key, sent.op),
    }
}

fn count(tally: &mut Tally, wire: Wire, op: &Op, reply: &Reply) {
    let hit = *reply != Reply::NotFound;
    let split = |hits: &mut u64, misses: &mut u64| *if hit { hits } else { misses } += 1;
    match op {
        Op::Get => {
            tally.cmd_get += 1;
            split(&mut tally.get_hits, &mut tally.get_misses);
        }
        Op::Delete => split(&mut tally.delete_hits, &mut tally.delete_misses),
        Op::Incr { .. } => split(&mut tally.incr_hits, &mut tally.incr_misses),
        Op::Touch { .. } => {
            // A meta touch is a get with a new TTL, counted as both.
            tally.cmd_touch += u64::from(wire != Wire::Meta || hit);
            match wire {
                Wire::Meta if hit => tally.touch_hits += 1,
                Wire::Meta => tally.get_misses += 1,
                _ => split(&mut tally.touch_hits, &mut tally.touch_misses),
            }
            tally.cmd_get += u64::from(wire == Wire::Meta && !hit);
        }
        _ if *reply == Reply::NoMemory => tally.store_no_memory += u64::from(wire != Wire::Binary),
        _ if *reply == Reply::TooLarge => tally.store_too_large += u64::from(wire != Wire::Binary),
        Op::Cas { .. } => {
            tally.cmd_set += 1;
            match reply {
                Reply::Done => tally.cas_hits += 1,
                Reply::Exists => tally.cas_badval += 1,
                _ => tally.cas_misses += 1,
            }
        }
        _ => tally.cmd_set += 1,
    }
}

/// The reply to one request.
fn receive(conn: &mut Conn, wire: Wire, sent: &Sent) -> Reply {
    let mut found = None;
    let waited = conn.read_until(DEADLINE, |got| {
        found = decode(wire, &sent.key, &sent.op, got);
        found.is_some()
    });
    assert_eq!(waited, Waited::Done, "no reply to {} for {}", sent.key, show(&conn.got));
    let (reply, len) = found.unwrap();
    conn.got.drain(..len);
    reply
}

/// Ends the load when the thread that holds it panics.
struct EndOnPanic<'a>(&'a AtomicBool);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs all clients for the time given, then compares their tallies and a dump with the server's statistics.
fn load(addr: SocketAddr, seconds: u64) {
    let seed = seed("LOAD_SEED");
    eprintln!("LOAD_SEED={seed} LOAD_SECONDS={seconds} (of this half)");
    let mut admin = Conn::to(addr);
    assert_eq!(admin.line("stats reset"), "RESET");
    let over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let clients: Vec<Client> = std::thread::scope(|scope| {
        let run = |number| {
            let _end = EndOnPanic(&over);
            let mut client = Client::new(addr, number, seed);
            let mut rounds = 0;
            while (Instant::now() < end || rounds < ROUNDS_MIN) && !over.load(Ordering::Relaxed) {
                client.round();
                rounds += 1;
            }
            client.settle();
            client
        };
        let threads: Vec<_> = (0..CLIENTS).map(|number| scope.spawn(move || run(number))).collect();
        operate(addr, Rng(!seed), || Instant::now() < end && !over.load(Ordering::Relaxed));
        threads.into_iter().map(|thread| thread.join().expect("a client found something wrong")).collect()
    });
    check_counters(&mut admin, &clients);
    check_dump(&mut admin);
}

/// What an operator may do at any time without a value being wrong.
fn operate(addr: SocketAddr, mut rng: Rng, mut goes_on: impl FnMut() -> bool) {
    let mut conn = Conn::to(addr);
    while goes_on() {
        let (class, other) = (rng.below(40), rng.below(40));
        match rng.below(12) {
            0..4 => drop(conn.line(&format!("slabs reassign {class} {other}"))),
            4 => drop(conn.line(&format!("slabs automove {}", rng.below(3)))),
            5 => drop(conn.line(&format!("lru tune {} {} 0.2 2.0", 5 + rng.below(30), 5 + rng.below(40)))),
            6 => drop(conn.line(&format!("lru temp_ttl {}", rng.below(4) as i64 - 1))),
            7 => drop(conn.line("lru_crawler crawl all")),
            8 => dump(&mut conn),
            9 => drop(conn.line(&format!("cache_memlimit {}", MEMORY_MB - rng.below(24)))),
            _ => drop(conn.stats(rng.pick(&["", "items", "slabs", "conns", "sizes"]))),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    conn.line(&format!("cache_memlimit {MEMORY_MB}"));
    // A page that moves would take items along between two looks at them.
    conn.line("slabs automove 0");
    until("no page moves", || stat(&conn.stats(""), "slab_reassign_running") == 0);
    // `stats items` names the TEMP list only while it is in use.
    conn.line("lru temp_ttl 3");
}

/// A metadump, or its refusal while a crawl runs.
fn dump(conn: &mut Conn) {
    conn.send(b"lru_crawler metadump all\r\n");
    let refused =
        |got: &[u8]| [&b"BUSY"[..], b"ERROR"].iter().any(|word| got.starts_with(word)) && got.ends_with(b"\n");
    let waited = conn.read_until(DEADLINE, |got| got.ends_with(b"END\r\n") || refused(got));
    assert_eq!(waited, Waited::Done, "metadump: {}", show(&conn.got));
    conn.got.clear();
}

fn stat(stats: &[(String, String)], name: &str) -> u64 {
    let (_, value) = stats.iter().find(|(key, _)| key == name).unwrap_or_else(|| panic!("no {name}"));
    value.parse().unwrap_or_else(|_| panic!("{name} {value}"))
}

fn check_counters(admin: &mut Conn, clients: &[Client]) {
    let stats = admin.stats("");
    let sums = clients[0].tally.named().map(|(name, _)| name);
    for (i, name) in sums.iter().enumerate() {
        let expected: u64 = clients.iter().map(|client| client.tally.named()[i].1).sum();
        assert_eq!(stat(&stats, name), expected, "{name}");
    }
    assert_eq!(stat(&stats, "get_hits") + stat(&stats, "get_misses"), stat(&stats, "cmd_get"));
    let evictions = stat(&stats, "evictions");
    let (items, bytes) = (stat(&stats, "curr_items"), stat(&stats, "bytes"));
    eprintln!(
        "{} gets ({} hits), {} sets, {} refused for memory, {evictions} evictions; {items} items of {bytes} bytes at the end",
        stat(&stats, "cmd_get"),
        stat(&stats, "get_hits"),
        stat(&stats, "cmd_set"),
        stat(&stats, "store_no_memory"),
    );
    assert!(evictions > 100, "the memory was never full: {evictions} evictions");
    assert!(bytes <= stat(&stats, "limit_maxbytes"), "{bytes} bytes");
    check_classes(admin, items, bytes);
}

/// The classes' numbers add up to the whole.
fn check_classes(admin: &mut Conn, items: u64, bytes: u64) {
    let stats = admin.stats("items");
    let sum = |suffix: &str| -> u64 {
        stats.iter().filter(|(name, _)| name.ends_with(suffix)).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    };
    assert_eq!(sum(":number"), items, "items per class");
    let lists = ["hot", "warm", "cold", "temp"].map(|list| sum(&format!(":number_{list}")));
    assert_eq!(lists.iter().sum::<u64>(), items, "items per list: {lists:?}");
    assert_eq!(sum(":mem_requested"), bytes, "bytes per class");
    let slabs = admin.stats("slabs");
    for (name, used) in slabs.iter().filter(|(name, _)| name.ends_with(":used_chunks")) {
        let class = name.split(':').next().unwrap();
        let value = |what: &str| stat(&slabs, &format!("{class}:{what}"));
        let chunks = value("total_pages") * value("chunks_per_page");
        assert_eq!(value("total_chunks"), chunks, "class {class}");
        assert!(used.parse::<u64>().unwrap() <= chunks, "class {class} uses {used} of {chunks}");
    }
}

/// A dump shows curr_items items, whose sizes make `bytes`.
fn check_dump(admin: &mut Conn) {
    let dump = admin.ask(b"lru_crawler metadump hash\r\n", b"END\r\n");
    let text = String::from_utf8(dump).unwrap();
    let sizes: Vec<u64> = text.lines().filter(|line| line.starts_with("key=")).map(size_in_dump).collect();
    let stats = admin.stats("");
    assert_eq!(sizes.len() as u64, stat(&stats, "curr_items"), "items in the dump");
    assert_eq!(sizes.iter().sum::<u64>(), stat(&stats, "bytes"), "bytes in the dump");
}

fn size_in_dump(line: &str) -> u64 {
    let size = line.split(' ').find_map(|word| word.strip_prefix("size="));
    size.unwrap_or_else(|| panic!("no size: {line}")).parse().unwrap()
}

fn seconds() -> u64 {
    from_env("LOAD_SECONDS").unwrap_or(20).div_ceil(2)
}

#[test]
fn full_and_evicting_binary() {
    let more = std::env::var("LOAD_ARGS").unwrap_or_default();
    let memory = MEMORY_MB.to_string();
    let args = ["-t", "2", "-m", &memory].into_iter().chain(more.split_whitespace());
    let server = Server::start(&args.collect::<Vec<_>>());
    load(server.addr, seconds());
    assert_eq!(server.connect().line("mn"), "MN");
}

#[test]
fn full_and_evicting_in_process() {
    let Running { server, shared } = Running::start(|config| {
        config.store.memory_limit = (MEMORY_MB << 20) as u64;
        config.store.threads = 2;
    });
    let (clock, store, addr) = (&shared.clock, &shared.store, server.addresses()[0]);
    let background = store.start_background();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                clock.tick();
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let result = std::panic::catch_unwind(|| load(addr, seconds()));
        over.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    store.check().expect("every structure agrees while connections are open");
    server.stop(false);
    drop(background);
    store.check().expect("every structure agrees at the end");
}

/// An mg with `T` is a touch when it hits, and a get when it misses.
#[test]
fn mg_counts() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    assert_eq!(conn.line("ms a 1\r\nx"), "HD");
    let names = ["cmd_get", "get_hits", "get_misses", "cmd_touch", "touch_hits", "touch_misses"];
    let requests =
        [("mg a s", [1, 1, 0, 0, 0, 0]), ("mg a T100", [0, 0, 0, 1, 1, 0]), ("mg no T100", [1, 0, 1, 0, 0, 0])];
    for (request, expected) in requests {
        assert_eq!(conn.line("stats reset"), "RESET");
        conn.line(request);
        let stats = conn.stats("");
        assert_eq!(names.map(|name| stat(&stats, name)), expected, "{request}");
    }
}
