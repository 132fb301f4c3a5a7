//! A load generator for servers that speak memcached's protocols.
//!
//! ```text
//! one thread, one Poll ── N connections, each: queue of requests in flight (when due, kind, key, expected length)
//! closed loop: a connection whose requests are all answered sends the next `pipeline` as one batch
//! open loop (rate): batches fall due by the clock, at random (Poisson); a late answer counts from when its request
//!                   was due, not from when it could be sent, so a stalled server cannot hide what it held up
//! feed:         sets of new items on a connection of their own, by the clock, not counted
//! ```
//!
//! Every answer is parsed and its value's length is held against what was stored under that key; a wrong one ends
//! the run with an error. Nothing is allocated per request, and values are skipped, not collected, so that the
//! generator stays cheaper than the servers it drives. `late` says by how much the generator itself missed the time
//! at which a request was due: where that is not small against the latencies, they are its own.
//!
//! Not here: what belongs to a key (`draw`), servers and what they consume (`server`).

use crate::draw::{Items, Rng, Zipf};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Bytes read from a socket at a time.
const READ_BUFFER: usize = 256 * 1024;

/// Longest latency told apart, in nanoseconds: a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Bytes in flight on a connection while keys are written before the measurement, and the fewest requests.
const FILL_BYTES: usize = 32 * 1024;
const FILL_PIPELINE: usize = 4;

/// Most sets of a feed in flight: a server that falls behind is not buried.
const FEED_IN_FLIGHT: usize = 4096;

/// How long answers may fail to come at the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Closer to the next due time than this the generator spins: epoll cannot wait for less.
const SPIN: Duration = Duration::from_millis(2);

/// Longest sleep of a load that naps: answers wait for as long.
const NAP: Duration = Duration::from_micros(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Text,
    Meta,
    Binary,
}

/// What to do to a server.
#[derive(Clone, Debug)]
pub struct Load {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub connections: usize,
    /// Requests in a batch.
    pub pipeline: usize,
    /// Keys in a get. In meta and binary each is a request of its own.
    pub multiget: usize,
    pub get_percent: u64,
    pub items: Items,
    /// Exponent of Zipf's law; evenly without.
    pub zipf: Option<f64>,
    /// So many of a hundred are of the first key, whatever is drawn for the others.
    pub hot: u64,
    /// Open loop with so many requests a second.
    pub rate: Option<f64>,
    /// Sleeps where it would spin, and is late by some 100 us for that: leaves its CPU to others.
    pub naps: bool,
    /// A get that misses is followed by a set of its key.
    pub set_on_miss: bool,
    pub feed: Option<Feed>,
    pub seed: u64,
}

impl Load {
    /// Gets in text, one in flight on each of 50 connections, evenly over these items, as fast as they are answered.
    pub fn gets(address: SocketAddr, items: Items) -> Load {
        Load {
            address,
            protocol: Protocol::Text,
            connections: 50,
            pipeline: 1,
            multiget: 1,
            get_percent: 100,
            items,
            zipf: None,
            hot: 0,
            rate: None,
            naps: false,
            set_on_miss: false,
            feed: None,
            seed: 1,
        }
    }
}

/// Items written beside an open loop.
#[derive(Clone, Copy, Debug)]
pub struct Feed {
    pub items: Items,
    /// Sets a second.
    pub rate: f64,
    /// Sets sent at once.
    pub batch: usize,
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    Seconds(f64),
    /// The feed is written, or so many seconds are over: an overloaded server may never get there.
    Fed(f64),
}

/// What a run saw.
#[derive(Clone, Debug)]
pub struct Tally {
    pub requests: u64,
    pub hits: u64,
    pub misses: u64,
    /// Sets that were answered "out of memory".
    pub refused: u64,
    /// Bytes of the keys and values that were found. Only of gets of one key.
    pub hit_bytes: u64,
    pub seconds: f64,
    /// Nanoseconds.
    pub latencies: Histogram<u64>,
    /// Nanoseconds from when a request was due to when it was sent.
    pub late: Histogram<u64>,
}

impl Tally {
    fn new() -> Tally {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("bounds in order");
        Tally {
            requests: 0,
            hits: 0,
            misses: 0,
            refused: 0,
            hit_bytes: 0,
            seconds: 0.0,
            latencies: histogram.clone(),
            late: histogram,
        }
    }

    /// Microseconds within which this share of the answers came.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// The same of how late the generator was.
    pub fn late_us(&self, quantile: f64) -> f64 {
        self.late.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds
    }

    /// Keys found among those asked for.
    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

/// Connections to one server, and the load on them.
pub struct Generator {
    load: Load,
    zipf: Option<Zipf>,
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    rng: Rng,
    value: Vec<u8>,
    missed: Vec<u64>,
    tally: Tally,
    stopping: bool,
    next_due: Instant,
    next_connection: usize,
    feed_due: Instant,
    fed: u64,
}

impl Generator {
    pub fn connect(load: Load) -> Result<Generator, String> {
        let poll = Poll::new().map_err(|error| error.to_string())?;
        let count = load.connections + usize::from(load.feed.is_some());
        let connections = (0..count).map(|i| Connection::open(&load, &poll, i)).collect::<Result<_, _>>()?;
        let longest = load.items.sizes.max().max(load.feed.map_or(0, |feed| feed.items.sizes.max()));
        Ok(Generator {
            zipf: load.zipf.map(|exponent| Zipf::new(load.items.count, exponent)),
            poll,
            events: Events::with_capacity(1024),
            connections,
            buffer: vec![0; READ_BUFFER],
            rng: Rng(load.seed),
            value: vec![b'x'; longest],
            missed: Vec::new(),
            tally: Tally::new(),
            stopping: false,
            next_due: Instant::now(),
            next_connection: 0,
            feed_due: Instant::now(),
            fed: 0,
            load,
        })
    }

    /// Writes every item once.
    pub fn fill(&mut self) -> Result<Tally, String> {
        self.sweep(false)
    }

    /// Reads every item once.
    pub fn read_all(&mut self) -> Result<Tally, String> {
        self.sweep(true)
    }

    fn sweep(&mut self, get: bool) -> Result<Tally, String> {
        self.start();
        let (mut next, end) = (self.load.items.first, self.load.items.first + self.load.items.count);
        let pipeline = (FILL_BYTES / (self.load.items.sizes.max() + 64)).max(FILL_PIPELINE);
        self.stopping = true;
        while next < end {
            let now = Instant::now();
            for i in 0..self.load.connections {
                if !self.connections[i].in_flight.is_empty() {
                    continue;
                }
                let batch = next..end.min(next + pipeline as u64);
                next = batch.end;
                batch.for_each(|key| if get { self.push_get_of(i, key, now) } else { self.push_set(i, key, now) });
                self.connections[i].flush()?;
            }
            self.turn(Some(Duration::from_millis(100)))?;
        }
        self.drain()?;
        Ok(self.tally.clone())
    }

    /// Runs the load, and returns when everything that was asked is answered.
    pub fn run(&mut self, until: Until) -> Result<Tally, String> {
        self.start();
        let begin = Instant::now();
        (self.next_due, self.feed_due) = (begin, begin);
        if self.load.rate.is_none() {
            for i in 0..self.load.connections {
                self.issue(i, begin)?;
            }
        }
        loop {
            let now = Instant::now();
            let over = match until {
                Until::Seconds(seconds) => (now - begin).as_secs_f64() >= seconds,
                Until::Fed(most) => self.is_fed() || (now - begin).as_secs_f64() >= most,
            };
            if over {
                break;
            }
            let wait = self.issue_due(now)?;
            self.turn(Some(wait))?;
        }
        self.drain()?;
        self.tally.seconds = begin.elapsed().as_secs_f64();
        Ok(self.tally.clone())
    }

    fn start(&mut self) {
        self.tally = Tally::new();
        self.stopping = false;
    }

    fn drain(&mut self) -> Result<(), String> {
        self.stopping = true;
        let end = Instant::now() + PATIENCE;
        while self.connections.iter().any(|c| !c.in_flight.is_empty()) {
            if Instant::now() > end {
                return Err("the server stopped answering".into());
            }
            self.turn(Some(Duration::from_millis(100)))?;
        }
        Ok(())
    }

    /// Open loop: sends what has fallen due; how long to wait for answers.
    fn issue_due(&mut self, now: Instant) -> Result<Duration, String> {
        self.feed(now)?;
        let Some(rate) = self.load.rate else { return Ok(Duration::from_millis(100)) };
        let gap = self.load.pipeline as f64 / rate;
        while self.next_due <= now {
            let due = self.next_due;
            self.next_due += Duration::from_secs_f64(-(1.0 - self.rng.unit()).ln() * gap);
            let i = self.next_connection;
            self.next_connection = (i + 1) % self.load.connections;
            let late = Instant::now().saturating_duration_since(due).as_nanos() as u64;
            self.tally.late.saturating_record(late);
            self.issue(i, due)?;
        }
        if self.load.naps {
            std::thread::sleep((self.next_due - now).min(NAP));
            return Ok(Duration::ZERO);
        }
        Ok(if self.next_due - now > SPIN { Duration::from_millis(1) } else { Duration::ZERO })
    }

    fn feed(&mut self, now: Instant) -> Result<(), String> {
        let Some(feed) = self.load.feed else { return Ok(()) };
        let i = self.load.connections;
        while self.feed_due <= now && self.fed < feed.items.count {
            self.feed_due += Duration::from_secs_f64(feed.batch as f64 / feed.rate);
            if self.connections[i].in_flight.len() >= FEED_IN_FLIGHT {
                continue;
            }
            for _ in 0..feed.batch {
                let key = feed.items.first + self.fed;
                self.fed += 1;
                push_set(&mut self.connections[i].out, &feed.items, self.load.protocol, key, &self.value);
                self.connections[i].in_flight.push_back(InFlight { due: now, kind: Kind::Fed, key, expected: 0 });
            }
            self.connections[i].flush()?;
        }
        Ok(())
    }

    fn is_fed(&self) -> bool {
        self.load.feed.is_none_or(|feed| self.fed >= feed.items.count)
    }

    /// Sends a batch on connection `i`.
    fn issue(&mut self, i: usize, due: Instant) -> Result<(), String> {
        for _ in 0..self.load.pipeline {
            if self.rng.below(100) < self.load.get_percent {
                self.push_get(i, due);
            } else {
                let key = self.draw_key();
                self.push_set(i, key, due);
            }
        }
        self.connections[i].flush()
    }

    fn draw_key(&mut self) -> u64 {
        if self.load.hot > 0 && self.rng.below(100_u64) < self.load.hot {
            return self.load.items.first;
        }
        let rank = match &self.zipf {
            None => self.rng.below(self.load.items.count),
            Some(zipf) => zipf.draw(&mut self.rng),
        };
        self.load.items.first + rank
    }

    fn push_get(&mut self, i: usize, due: Instant) {
        let count = self.load.multiget;
        if count == 1 || self.load.protocol != Protocol::Text {
            for _ in 0..count {
                let key = self.draw_key();
                self.push_get_of(i, key, due);
            }
            return;
        }
        self.connections[i].out.extend_from_slice(b"get");
        let mut expected = 0;
        for _ in 0..count {
            let key = self.draw_key();
            expected = self.load.items.value_len(key);
            let out = &mut self.connections[i].out;
            out.push(b' ');
            self.load.items.push_key(out, key);
        }
        self.connections[i].out.extend_from_slice(b"\r\n");
        // Which key a value belongs to is not read; with values of one length there is nothing more to know.
        let expected = if matches!(self.load.items.sizes, crate::draw::Sizes::Fixed(_)) { expected } else { ANY };
        self.connections[i].in_flight.push_back(InFlight { due, kind: Kind::Get(count), key: 0, expected });
    }

    fn push_get_of(&mut self, i: usize, key: u64, due: Instant) {
        let items = &self.load.items;
        let connection = &mut self.connections[i];
        let out = &mut connection.out;
        match self.load.protocol {
            Protocol::Text => {
                out.extend_from_slice(b"get ");
                items.push_key(out, key);
                out.extend_from_slice(b"\r\n");
            }
            Protocol::Meta => {
                out.extend_from_slice(b"mg ");
                items.push_key(out, key);
                out.extend_from_slice(b" v\r\n");
            }
            Protocol::Binary => {
                push_header(out, 0, 0, items.key_len(key), 0);
                items.push_key(out, key);
            }
        }
        connection.in_flight.push_back(InFlight { due, kind: Kind::Get(1), key, expected: items.value_len(key) });
    }

    fn push_set(&mut self, i: usize, key: u64, due: Instant) {
        let connection = &mut self.connections[i];
        push_set(&mut connection.out, &self.load.items, self.load.protocol, key, &self.value);
        connection.in_flight.push_back(InFlight { due, kind: Kind::Set, key, expected: 0 });
    }

    /// Waits, reads what came, and goes on where a batch is answered.
    fn turn(&mut self, wait: Option<Duration>) -> Result<(), String> {
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.to_string()),
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let done = events.iter().try_for_each(|event| self.ready(event.token().0));
        self.events = events;
        done
    }

    fn ready(&mut self, i: usize) -> Result<(), String> {
        self.connections[i].flush()?;
        self.read(i)?;
        let mut missed = std::mem::take(&mut self.missed);
        if self.load.set_on_miss && !missed.is_empty() {
            let now = Instant::now();
            missed.iter().for_each(|&key| self.push_set(i, key, now));
            self.connections[i].flush()?;
        }
        missed.clear();
        self.missed = missed;
        let closed_loop = self.load.rate.is_none() && i < self.load.connections;
        if closed_loop && !self.stopping && self.connections[i].in_flight.is_empty() {
            return self.issue(i, Instant::now());
        }
        Ok(())
    }

    fn read(&mut self, i: usize) -> Result<(), String> {
        let connection = &mut self.connections[i];
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => {
                    let mut sink = Sink {
                        protocol: self.load.protocol,
                        items: &self.load.items,
                        now: Instant::now(),
                        tally: &mut self.tally,
                        missed: &mut self.missed,
                    };
                    connection.take(&self.buffer[..n], &mut sink)?;
                    // A read that does not fill the buffer has drained the socket.
                    if n < READ_BUFFER {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Of so many keys.
    Get(usize),
    Set,
    /// A set that does not count.
    Fed,
}

/// How a set is answered for which there is no memory. Not an error of the run, but not a good sign either.
const REFUSED: &[u8] = b"SERVER_ERROR out of memory";

/// A value may have any length.
const ANY: usize = usize::MAX;

#[derive(Debug)]
struct InFlight {
    due: Instant,
    kind: Kind,
    /// The only key of a get.
    key: u64,
    /// The value's length.
    expected: usize,
}

/// Where answers are counted.
struct Sink<'a> {
    protocol: Protocol,
    items: &'a Items,
    now: Instant,
    tally: &'a mut Tally,
    missed: &'a mut Vec<u64>,
}

struct Connection {
    stream: TcpStream,
    in_flight: VecDeque<InFlight>,
    out: Vec<u8>,
    sent: usize,
    /// The beginning of a line or header whose end has not come.
    partial: Vec<u8>,
    /// Bytes of a value still to come.
    skip: usize,
    /// Whether the first request in flight is answered when they have come.
    last: bool,
    /// Values that it was answered with.
    hits: usize,
    /// Whether it was answered that there is no memory.
    refused: bool,
}

impl Connection {
    fn open(load: &Load, poll: &Poll, i: usize) -> Result<Connection, String> {
        let open = || {
            let stream = std::net::TcpStream::connect(load.address)?;
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(i), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        let stream = open().map_err(|error: std::io::Error| format!("cannot connect to {}: {error}", load.address))?;
        Ok(Connection {
            stream,
            in_flight: VecDeque::new(),
            out: Vec::new(),
            sent: 0,
            partial: Vec::new(),
            skip: 0,
            last: false,
            hits: 0,
            refused: false,
        })
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Takes what was received.
    fn take(&mut self, mut bytes: &[u8], sink: &mut Sink) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = self.skip.min(bytes.len());
                self.skip -= n;
                bytes = &bytes[n..];
            } else {
                let Some(len) = self.head_len(bytes, sink.protocol) else {
                    self.partial.extend_from_slice(bytes);
                    return Ok(());
                };
                self.take_head(&bytes[..len], sink)?;
                bytes = &bytes[len..];
            }
            if self.skip == 0 && self.last {
                self.finish(sink);
            }
        }
        Ok(())
    }

    /// How many bytes of `bytes` end the line, or the binary header, that they are in; None when they do not.
    fn head_len(&self, bytes: &[u8], protocol: Protocol) -> Option<usize> {
        match protocol {
            Protocol::Binary => Some(24 - self.partial.len()).filter(|&rest| rest <= bytes.len()),
            _ => memchr::memchr(b'\n', bytes).map(|at| at + 1),
        }
    }

    fn take_head(&mut self, bytes: &[u8], sink: &Sink) -> Result<(), String> {
        if self.partial.is_empty() {
            return self.head(bytes, sink.protocol);
        }
        let mut head = std::mem::take(&mut self.partial);
        head.extend_from_slice(bytes);
        let done = self.head(&head, sink.protocol);
        head.clear();
        self.partial = head;
        done
    }

    /// Understands a whole line or header.
    fn head(&mut self, head: &[u8], protocol: Protocol) -> Result<(), String> {
        let wrong = || format!("an answer that fits no request: {:?}", String::from_utf8_lossy(head));
        let request = self.in_flight.front().ok_or_else(wrong)?;
        let value = match (protocol, request.kind) {
            (Protocol::Binary, kind) => binary_value(head, kind).ok_or_else(wrong)?,
            (_, Kind::Set | Kind::Fed) => {
                self.refused = head.starts_with(REFUSED);
                self.last = self.refused || head == b"STORED\r\n" || head == b"HD\r\n";
                return if self.last { Ok(()) } else { Err(wrong()) };
            }
            (Protocol::Meta, Kind::Get(_)) => meta_value(head).ok_or_else(wrong)?,
            (Protocol::Text, Kind::Get(_)) => text_value(head).ok_or_else(wrong)?,
        };
        if let Some(len) = value.len {
            self.hits += 1;
            if request.expected != ANY && request.expected != len {
                return Err(format!("a value of {len} bytes where {} were stored", request.expected));
            }
        }
        self.skip = value.skip;
        self.last = value.last;
        Ok(())
    }

    /// The first request in flight is answered.
    fn finish(&mut self, sink: &mut Sink) {
        self.last = false;
        let hits = std::mem::take(&mut self.hits);
        sink.tally.refused += u64::from(std::mem::take(&mut self.refused));
        let Some(request) = self.in_flight.pop_front() else { return };
        if request.kind == Kind::Fed {
            return;
        }
        let tally = &mut *sink.tally;
        tally.requests += 1;
        tally.latencies.saturating_record(sink.now.saturating_duration_since(request.due).as_nanos() as u64);
        if let Kind::Get(keys) = request.kind {
            tally.hits += hits as u64;
            tally.misses += (keys - hits.min(keys)) as u64;
            if keys == 1 && hits == 1 {
                tally.hit_bytes += (sink.items.key_len(request.key) + request.expected) as u64;
            } else if keys == 1 {
                sink.missed.push(request.key);
            }
        }
    }
}

/// What a line or header says about the value behind it.
struct Head {
    /// Its length, where there is one.
    len: Option<usize>,
    /// Bytes to skip.
    skip: usize,
    /// Whether the answer ends behind them.
    last: bool,
}

fn binary_value(header: &[u8], kind: Kind) -> Option<Head> {
    let number = |at: usize| usize::from(header[at]) << 8 | usize::from(header[at + 1]);
    let (status, body) = (number(6), number(8) << 16 | number(10));
    let is_get = matches!(kind, Kind::Get(_));
    if header[0] != 0x81 || header[1] != u8::from(!is_get) || status > 1 || (status == 1 && !is_get) {
        return None;
    }
    let before = usize::from(header[4]) + number(2);
    Some(Head { len: (status == 0 && is_get).then(|| body - before), skip: body, last: true })
}

fn meta_value(line: &[u8]) -> Option<Head> {
    if line == b"EN\r\n" {
        return Some(Head { len: None, skip: 0, last: true });
    }
    let len = parse_number(line.strip_prefix(b"VA ")?);
    Some(Head { len: Some(len), skip: len + 2, last: true })
}

fn text_value(line: &[u8]) -> Option<Head> {
    if line == b"END\r\n" {
        return Some(Head { len: None, skip: 0, last: true });
    }
    let rest = line.strip_prefix(b"VALUE ")?;
    let len = parse_number(&rest[memchr::memrchr(b' ', rest)? + 1..]);
    Some(Head { len: Some(len), skip: len + 2, last: false })
}

fn parse_number(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, &b| n * 10 + usize::from(b - b'0'))
}

fn push_set(out: &mut Vec<u8>, items: &Items, protocol: Protocol, key: u64, value: &[u8]) {
    let value = &value[..items.value_len(key)];
    let ttl = items.ttl(key);
    match protocol {
        Protocol::Text => {
            out.extend_from_slice(b"set ");
            items.push_key(out, key);
            out.extend_from_slice(b" 0 ");
            push_number(out, ttl as usize);
            out.push(b' ');
            push_number(out, value.len());
        }
        Protocol::Meta => {
            out.extend_from_slice(b"ms ");
            items.push_key(out, key);
            out.push(b' ');
            push_number(out, value.len());
            if ttl > 0 {
                out.extend_from_slice(b" T");
                push_number(out, ttl as usize);
            }
        }
        Protocol::Binary => {
            push_header(out, 1, 8, items.key_len(key), value.len());
            out.extend_from_slice(&[0; 4]);
            out.extend_from_slice(&(ttl as u32).to_be_bytes());
            items.push_key(out, key);
            return out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn push_number(out: &mut Vec<u8>, number: usize) {
    if number >= 10 {
        push_number(out, number / 10);
    }
    out.push(b'0' + (number % 10) as u8);
}

fn push_header(out: &mut Vec<u8>, opcode: u8, extras: usize, key: usize, value: usize) {
    out.extend_from_slice(&[0x80, opcode, 0, key as u8, extras as u8, 0, 0, 0]);
    out.extend_from_slice(&((extras + key + value) as u32).to_be_bytes());
    out.extend_from_slice(&[0; 12]);
}
