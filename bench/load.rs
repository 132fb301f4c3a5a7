//! A load generator for servers that speak memcached's protocols.
//!
//! ```text
//! one thread, one Poll ── N connections, each: queue of requests in flight (intended start, kind, key)
//! closed loop: a connection keeps `pipeline` requests in flight, sent as one batch when all are answered
//! open loop (--rate): requests fall due by the clock; a late one's latency counts from when it was due
//! ```
//!
//! Every reply is parsed and its length checked; a wrong one ends the run with an error. Latencies go to an
//! HdrHistogram. With `--pid`, the server's CPU time over the measured span is read from the scheduler's
//! accounting of its threads, and divided by the requests answered. The result is one JSON line on stdout.
//!
//! Not here: starting servers, rounds and tables: `scripts/bench.sh`.

use getopts::{Matches, Options};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Bytes read from a socket at a time.
const READ_BUFFER: usize = 256 * 1024;

/// Longest latency told apart, in nanoseconds: a minute.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Requests in flight on a connection while the keys are written before the measurement.
const FILL_PIPELINE: usize = 64;

fn main() {
    let settings = Settings::parse();
    let mut run = Run::connect(&settings);
    if settings.fill {
        run.fill();
    }
    run.measure(settings.warmup);
    let report = run.measured(settings.seconds);
    println!("{report}");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Text,
    Meta,
    Binary,
}

/// How keys are drawn.
#[derive(Clone, Debug)]
enum Keys {
    Uniform,
    /// Exponent, and the constants of rejection-inversion sampling.
    Zipf(Zipf),
}

#[derive(Clone, Debug)]
struct Settings {
    address: SocketAddr,
    connections: usize,
    pipeline: usize,
    multiget: usize,
    get_percent: u64,
    keys: u64,
    key_length: usize,
    distribution: Keys,
    values: (usize, usize),
    protocol: Protocol,
    rate: Option<f64>,
    warmup: f64,
    seconds: f64,
    fill: bool,
    pid: Option<u32>,
    seed: u64,
}

impl Settings {
    fn parse() -> Settings {
        let options = options();
        let matches = options.parse(std::env::args().skip(1)).unwrap_or_else(|error| fail(&error.to_string()));
        if matches.opt_present("help") {
            print!("{}", options.usage("Usage: load [options]"));
            std::process::exit(0);
        }
        Settings {
            address: address(&text(&matches, "address", "127.0.0.1:11211")),
            connections: number(&matches, "connections", 50.0) as usize,
            pipeline: (number(&matches, "pipeline", 1.0) as usize).max(1),
            multiget: (number(&matches, "multiget", 1.0) as usize).max(1),
            get_percent: number(&matches, "get", 95.0) as u64,
            keys: (number(&matches, "keys", 1e6) as u64).max(1),
            key_length: number(&matches, "key-length", 20.0) as usize,
            distribution: distribution(&matches),
            values: sizes(&text(&matches, "values", "100")),
            protocol: protocol(&text(&matches, "protocol", "text")),
            rate: matches.opt_present("rate").then(|| number(&matches, "rate", 0.0)),
            warmup: number(&matches, "warmup", 1.0),
            seconds: number(&matches, "seconds", 5.0),
            fill: !matches.opt_present("no-fill"),
            pid: matches.opt_present("pid").then(|| number(&matches, "pid", 0.0) as u32),
            seed: number(&matches, "seed", 1.0) as u64,
        }
    }
}

fn options() -> Options {
    let mut options = Options::new();
    options.optopt("", "address", "server (127.0.0.1:11211)", "HOST:PORT");
    options.optopt("", "connections", "connections (50)", "N");
    options.optopt("", "pipeline", "requests in flight per connection (1)", "N");
    options.optopt("", "multiget", "keys per get (1)", "N");
    options.optopt("", "get", "share of gets, percent (95)", "P");
    options.optopt("", "keys", "number of keys (1000000)", "N");
    options.optopt("", "key-length", "bytes of a key (20)", "N");
    options.optopt("", "zipf", "draw keys by Zipf's law with this exponent (uniform)", "S");
    options.optopt("", "values", "bytes of a value, one number or MIN-MAX (100)", "N");
    options.optopt("", "protocol", "text, meta or binary (text)", "P");
    options.optopt("", "rate", "open loop: requests a second in all (closed loop)", "N");
    options.optopt("", "warmup", "seconds before the measurement (1)", "S");
    options.optopt("", "seconds", "seconds of the measurement (5)", "S");
    options.optopt("", "pid", "the server's process id, to read its CPU time", "PID");
    options.optopt("", "seed", "seed of the random numbers (1)", "N");
    options.optflag("", "no-fill", "do not write every key first");
    options.optflag("", "bench", "ignored: cargo bench passes it");
    options.optflag("h", "help", "this text");
    options
}

fn text(matches: &Matches, name: &str, default: &str) -> String {
    matches.opt_str(name).unwrap_or_else(|| default.to_string())
}

fn number(matches: &Matches, name: &str, default: f64) -> f64 {
    match matches.opt_str(name) {
        None => default,
        Some(text) => text.parse().unwrap_or_else(|_| fail(&format!("--{name}: {text:?} is not a number"))),
    }
}

fn address(text: &str) -> SocketAddr {
    let found = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    found.unwrap_or_else(|| fail(&format!("--address: cannot resolve {text:?}")))
}

fn sizes(text: &str) -> (usize, usize) {
    let parse = |part: &str| part.parse().unwrap_or_else(|_| fail(&format!("--values: {text:?} is no size")));
    match text.split_once('-') {
        Some((least, most)) => (parse(least), parse(most)),
        None => (parse(text), parse(text)),
    }
}

fn protocol(text: &str) -> Protocol {
    match text {
        "text" => Protocol::Text,
        "meta" => Protocol::Meta,
        "binary" => Protocol::Binary,
        _ => fail(&format!("--protocol: {text:?} is none of text, meta, binary")),
    }
}

fn distribution(matches: &Matches) -> Keys {
    match matches.opt_present("zipf") {
        true => Keys::Zipf(Zipf::new(number(matches, "keys", 1e6) as u64, number(matches, "zipf", 0.9))),
        false => Keys::Uniform,
    }
}

fn fail(message: &str) -> ! {
    eprintln!("load: {message}");
    std::process::exit(2);
}

/// splitmix64: small, and good enough to draw keys.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Zipf's law by rejection-inversion (Hörmann and Derflinger, 1996): constant time and memory.
#[derive(Clone, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    h_first: f64,
    h_last: f64,
    s: f64,
}

impl Zipf {
    fn new(count: u64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { count: count as f64, exponent, h_first: 0.0, h_last: 0.0, s: 0.0 };
        zipf.h_first = zipf.integral(1.5) - 1.0;
        zipf.h_last = zipf.integral(zipf.count + 0.5);
        zipf.s = 2.0 - zipf.inverse(zipf.integral(2.5) - 2f64.powf(-exponent));
        zipf
    }

    fn integral(&self, x: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { x.ln() } else { (x.powf(power) - 1.0) / power }
    }

    fn inverse(&self, y: f64) -> f64 {
        let power = 1.0 - self.exponent;
        if power.abs() < 1e-9 { y.exp() } else { (y * power + 1.0).powf(1.0 / power) }
    }

    /// A rank from 0 on, the most popular first.
    fn draw(&self, random: &mut Random) -> u64 {
        loop {
            let u = self.h_last + random.unit() * (self.h_first - self.h_last);
            let x = self.inverse(u);
            let rank = x.round().clamp(1.0, self.count);
            if rank - x <= self.s || u >= self.integral(rank + 0.5) - rank.powf(-self.exponent) {
                return rank as u64 - 1;
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Of so many keys.
    Get(usize),
    Set,
}

#[derive(Debug)]
struct InFlight {
    due: Instant,
    kind: Kind,
}

struct Connection {
    stream: TcpStream,
    in_flight: VecDeque<InFlight>,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    next_due: Instant,
}

struct Run<'a> {
    settings: &'a Settings,
    poll: Poll,
    connections: Vec<Connection>,
    random: Random,
    value: Vec<u8>,
    latencies: Histogram<u64>,
    answered: u64,
    hits: u64,
    misses: u64,
    recording: bool,
}

impl<'a> Run<'a> {
    fn connect(settings: &'a Settings) -> Run<'a> {
        let poll = Poll::new().unwrap_or_else(|error| fail(&error.to_string()));
        let connections = (0..settings.connections).map(|i| connection(settings, &poll, i)).collect();
        Run {
            settings,
            poll,
            connections,
            random: Random(settings.seed),
            value: vec![b'x'; settings.values.1],
            latencies: Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("bounds in order"),
            answered: 0,
            hits: 0,
            misses: 0,
            recording: false,
        }
    }

    /// Writes every key once.
    fn fill(&mut self) {
        let mut next = 0;
        let keys = self.settings.keys;
        let mut open = true;
        while open {
            for i in 0..self.connections.len() {
                while self.connections[i].in_flight.len() < FILL_PIPELINE && next < keys {
                    self.push_set(i, next, Instant::now());
                    next += 1;
                }
            }
            self.turn(Some(Duration::from_millis(100)));
            open = next < keys || self.connections.iter().any(|c| !c.in_flight.is_empty());
        }
    }

    /// Runs the mix for a while.
    fn measure(&mut self, seconds: f64) {
        let start = Instant::now();
        let end = start + Duration::from_secs_f64(seconds);
        let spacing = self.settings.rate.map(|rate| Duration::from_secs_f64(self.connections.len() as f64 / rate));
        for (i, connection) in self.connections.iter_mut().enumerate() {
            let share = spacing.unwrap_or_default().mul_f64(i as f64 / self.settings.connections as f64);
            connection.next_due = start + share;
        }
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            let wait = match spacing {
                Some(spacing) => self.issue_due(now, spacing),
                None => self.issue_batches(now),
            };
            self.turn(wait);
        }
        self.drain();
    }

    fn measured(&mut self, seconds: f64) -> String {
        self.recording = true;
        (self.answered, self.hits, self.misses) = (0, 0, 0);
        let before = self.settings.pid.map(cpu_ns);
        let start = Instant::now();
        self.measure(seconds);
        let elapsed = start.elapsed().as_secs_f64();
        let cpu = self.settings.pid.zip(before).map(|(pid, before)| cpu_ns(pid).saturating_sub(before));
        self.report(elapsed, cpu)
    }

    fn report(&self, elapsed: f64, cpu: Option<u64>) -> String {
        let answered = self.answered.max(1);
        let quantile = |q: f64| self.latencies.value_at_quantile(q) as f64 / 1000.0;
        let cpu = cpu.map_or("null".into(), |ns| format!("{:.1}", ns as f64 / answered as f64));
        format!(
            concat!(
                "{{\"requests\":{},\"seconds\":{:.3},\"rate\":{:.0},\"hits\":{},\"misses\":{},",
                "\"cpu_ns\":{},\"p50_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1}}}"
            ),
            self.answered,
            elapsed,
            self.answered as f64 / elapsed,
            self.hits,
            self.misses,
            cpu,
            quantile(0.5),
            quantile(0.99),
            quantile(0.999),
            self.latencies.max() as f64 / 1000.0,
        )
    }

    /// Closed loop: a connection whose requests are all answered sends the next batch.
    fn issue_batches(&mut self, now: Instant) -> Option<Duration> {
        for i in 0..self.connections.len() {
            if self.connections[i].in_flight.is_empty() {
                for _ in 0..self.settings.pipeline {
                    self.push_random(i, now);
                }
            }
        }
        Some(Duration::from_millis(100))
    }

    /// Open loop: sends what is due; how long until the next falls due.
    fn issue_due(&mut self, now: Instant, spacing: Duration) -> Option<Duration> {
        let mut next = now + Duration::from_millis(100);
        for i in 0..self.connections.len() {
            while self.connections[i].next_due <= now {
                let due = self.connections[i].next_due;
                self.push_random(i, due);
                self.connections[i].next_due = due + spacing;
            }
            next = next.min(self.connections[i].next_due);
        }
        // Sleep in whole milliseconds only when far off: epoll cannot wait for less.
        Some(if next - now > Duration::from_millis(2) { Duration::from_millis(1) } else { Duration::ZERO })
    }

    fn drain(&mut self) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.connections.iter().any(|c| !c.in_flight.is_empty()) {
            if Instant::now() > end {
                fail("the server stopped answering");
            }
            self.turn(Some(Duration::from_millis(100)));
        }
    }

    fn push_random(&mut self, i: usize, due: Instant) {
        if self.random.below(100) < self.settings.get_percent {
            self.push_get(i, due);
        } else {
            let key = self.draw_key();
            self.push_set(i, key, due);
        }
    }

    fn draw_key(&mut self) -> u64 {
        match &self.settings.distribution {
            Keys::Uniform => self.random.below(self.settings.keys),
            Keys::Zipf(zipf) => zipf.draw(&mut self.random),
        }
    }

    fn push_get(&mut self, i: usize, due: Instant) {
        let count = self.settings.multiget;
        let drawn: Vec<u64> = (0..count).map(|_| self.draw_key()).collect();
        let keys: Vec<Vec<u8>> = drawn.into_iter().map(|key| self.key(key)).collect();
        let connection = &mut self.connections[i];
        match self.settings.protocol {
            Protocol::Text => {
                connection.out.extend_from_slice(b"get");
                for key in &keys {
                    connection.out.push(b' ');
                    connection.out.extend_from_slice(key);
                }
                connection.out.extend_from_slice(b"\r\n");
                connection.in_flight.push_back(InFlight { due, kind: Kind::Get(count) });
            }
            Protocol::Meta | Protocol::Binary => {
                for key in &keys {
                    if self.settings.protocol == Protocol::Meta {
                        connection.out.extend_from_slice(b"mg ");
                        connection.out.extend_from_slice(key);
                        connection.out.extend_from_slice(b" v\r\n");
                    } else {
                        push_packet(&mut connection.out, 0, b"", key, b"");
                    }
                    connection.in_flight.push_back(InFlight { due, kind: Kind::Get(1) });
                }
            }
        }
    }

    fn push_set(&mut self, i: usize, key: u64, due: Instant) {
        let (least, most) = self.settings.values;
        let len = least + (mix(key) as usize) % (most - least + 1);
        let key = self.key(key);
        let out = &mut self.connections[i].out;
        let value = &self.value[..len];
        match self.settings.protocol {
            Protocol::Text => write!(out, "set {} 0 0 {len}\r\n", String::from_utf8_lossy(&key)).expect("memory"),
            Protocol::Meta => write!(out, "ms {} {len}\r\n", String::from_utf8_lossy(&key)).expect("memory"),
            Protocol::Binary => push_packet(out, 1, &[0; 8], &key, value),
        }
        if self.settings.protocol != Protocol::Binary {
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        self.connections[i].in_flight.push_back(InFlight { due, kind: Kind::Set });
    }

    fn key(&self, key: u64) -> Vec<u8> {
        format!("{key:0>width$}", width = self.settings.key_length).into_bytes()
    }

    /// Writes what is queued, waits, reads what came.
    fn turn(&mut self, wait: Option<Duration>) {
        for connection in &mut self.connections {
            connection.flush();
        }
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, wait) {
            Err(error) if error.kind() != ErrorKind::Interrupted => fail(&error.to_string()),
            _ => {}
        }
        for event in &events {
            self.read(event.token().0);
        }
    }

    fn read(&mut self, i: usize) {
        let mut buffer = std::mem::take(&mut self.connections[i].input);
        loop {
            let start = buffer.len();
            buffer.resize(start + READ_BUFFER, 0);
            match self.connections[i].stream.read(&mut buffer[start..]) {
                Ok(0) => fail("the server closed a connection"),
                Ok(n) => {
                    buffer.truncate(start + n);
                    let used = self.answers(i, &buffer);
                    buffer.drain(..used);
                    if n < READ_BUFFER {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    buffer.truncate(start);
                    break;
                }
                Err(error) => fail(&error.to_string()),
            }
        }
        self.connections[i].input = buffer;
    }

    /// Takes whole answers off the input; the bytes taken.
    fn answers(&mut self, i: usize, input: &[u8]) -> usize {
        let now = Instant::now();
        let mut used = 0;
        while let Some(request) = self.connections[i].in_flight.front() {
            let kind = request.kind;
            let Some((len, hits)) = answer(self.settings.protocol, kind, &input[used..]) else { break };
            used += len;
            let due = request.due;
            self.connections[i].in_flight.pop_front();
            self.answered += 1;
            if let Kind::Get(keys) = kind {
                self.hits += hits as u64;
                self.misses += (keys - hits) as u64;
            }
            if self.recording {
                self.latencies.saturating_record(now.saturating_duration_since(due).as_nanos() as u64);
            }
        }
        used
    }
}

impl Connection {
    fn flush(&mut self) {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => fail(&error.to_string()),
            }
        }
        self.out.clear();
        self.sent = 0;
    }
}

fn connection(settings: &Settings, poll: &Poll, i: usize) -> Connection {
    let stream = std::net::TcpStream::connect(settings.address).unwrap_or_else(|error| fail(&error.to_string()));
    stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).unwrap_or_else(|e| fail(&e.to_string()));
    let mut stream = TcpStream::from_std(stream);
    poll.registry()
        .register(&mut stream, Token(i), Interest::READABLE | Interest::WRITABLE)
        .unwrap_or_else(|error| fail(&error.to_string()));
    Connection {
        stream,
        in_flight: VecDeque::new(),
        out: Vec::new(),
        sent: 0,
        input: Vec::new(),
        next_due: Instant::now(),
    }
}

fn push_packet(out: &mut Vec<u8>, opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) {
    let body = extras.len() + key.len() + value.len();
    out.extend_from_slice(&[0x80, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0]);
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&[0; 12]);
    out.extend_from_slice(extras);
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

/// The first answer in `input`: its length and how many keys it found; None when it is not complete.
fn answer(protocol: Protocol, kind: Kind, input: &[u8]) -> Option<(usize, usize)> {
    match (protocol, kind) {
        (Protocol::Binary, _) => {
            let header = input.get(..24)?;
            let len = 24 + u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
            (input.len() >= len).then_some((len, usize::from(header[7] == 0)))
        }
        (_, Kind::Set) => {
            let line = line(input)?;
            if !line.starts_with(b"STORED") && !line.starts_with(b"HD") {
                fail(&format!("a set was answered {:?}", String::from_utf8_lossy(line)));
            }
            Some((line.len(), 0))
        }
        (Protocol::Meta, Kind::Get(_)) => {
            let line = line(input)?;
            let len = line.strip_prefix(b"VA ").map_or(0, |rest| parse_number(rest) + 2);
            (input.len() >= line.len() + len).then_some((line.len() + len, usize::from(len > 0)))
        }
        (Protocol::Text, Kind::Get(_)) => text_answer(input),
    }
}

fn text_answer(input: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut hits) = (0, 0);
    loop {
        let line = line(&input[at..])?;
        at += line.len();
        if line == b"END\r\n" {
            return Some((at, hits));
        }
        if !line.starts_with(b"VALUE ") {
            fail(&format!("a get was answered {:?}", String::from_utf8_lossy(line)));
        }
        let len = line.rsplit(|&b| b == b' ').next().map_or(0, parse_number);
        at += len + 2;
        hits += 1;
        if at > input.len() {
            return None;
        }
    }
}

fn line(input: &[u8]) -> Option<&[u8]> {
    memchr::memchr(b'\n', input).map(|end| &input[..=end])
}

fn parse_number(text: &[u8]) -> usize {
    text.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, &b| n * 10 + usize::from(b - b'0'))
}

/// Nanoseconds that a process's threads have run so far, by the scheduler's accounting.
fn cpu_ns(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap_or_else(|e| fail(&format!("--pid: {e}")));
    let run = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    tasks.filter_map(|task| run(task.ok()?.path())).sum()
}
