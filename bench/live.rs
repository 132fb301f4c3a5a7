//! A load sent to running servers: each batch to all of them before the next, so that they see the same requests at the
//! same time and the same pace.
//!
//! ```text
//! batch ── deletes of what has expired, sets of what the last batch missed, gets ──> twincached ── hits, misses
//!     └────────────────────────────── the same ──────────────────────────────────> memcached  ── hits, misses
//! ```
//!
//! A batch is one write on one connection. No key is in it twice, so a key is always set before it is asked for again.
//!
//! The load's time is not the servers': it runs at its own rate, faster or slower than requests are sent. A stock memcached
//! cannot be told what time it is, so items are set to live for ever, and each is deleted when its time is over in the load's
//! time. Page movers live in the servers' time: no more requests a second are sent than the pace allows.
//!
//! Not here: what the load is, and the store that replays it beside them (`replay`); the servers themselves (`server`).

use crate::traces::{Op, Request};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Most requests in a batch.
const BATCH: usize = 32;

/// Most bytes of a value that are sent.
const VALUE_MAX: usize = 1 << 20;

/// What an answer is waited for.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Sleeps shorter than this are saved up.
const SLEEP_LEAST: Duration = Duration::from_millis(1);

/// How often it is said how far it has come.
const SAY_EVERY: Duration = Duration::from_secs(4);

/// How fast a load runs.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most requests in one of the servers' seconds,
    pub requests: u64,
    /// and requests in one of the load's.
    pub rate: u64,
    /// Requests at the beginning that are not counted.
    pub uncounted: u64,
}

/// What a server answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadAnswers {
    pub gets: u64,
    pub hits: u64,
    pub bytes: u64,
    pub hit_bytes: u64,
    /// Sets that were not stored.
    pub refused: u64,
}

/// Sends the load to all of them. What each answered, in their order, and the requests a second that it came to.
pub fn send(
    requests: impl Iterator<Item = Request>,
    servers: &[SocketAddr],
    pace: Pace,
    say: impl Fn(u64),
) -> Result<(Vec<LoadAnswers>, u64), String> {
    let mut lines = servers.iter().map(|address| LoadLine::open(*address)).collect::<Result<Vec<_>, _>>()?;
    let mut requests = (0..).zip(requests.map(printable)).peekable();
    let mut batch: Vec<(u64, Request)> = Vec::with_capacity(BATCH);
    let (began, mut said, mut sent) = (Instant::now(), Instant::now(), 0_u64);
    loop {
        batch.clear();
        while batch.len() < BATCH
            && let Some(next) = requests.next_if(|(_, next)| batch.iter().all(|(_, other)| other.key != next.key))
        {
            batch.push(next);
        }
        if batch.is_empty() {
            break;
        }
        let now = sent / pace.rate;
        lines.iter_mut().try_for_each(|line| line.ask(&batch, now))?;
        lines.iter_mut().try_for_each(|line| line.hear(&batch, now, pace.uncounted))?;
        sent += batch.len() as u64;
        let due = Duration::from_secs_f64(sent as f64 / pace.requests as f64);
        let ahead = due.saturating_sub(began.elapsed());
        if ahead >= SLEEP_LEAST {
            std::thread::sleep(ahead);
        }
        if said.elapsed() > SAY_EVERY {
            said = Instant::now();
            say(sent);
        }
    }
    let per_second = sent as f64 / began.elapsed().as_secs_f64().max(1e-9);
    Ok((lines.iter().map(|line| line.answered).collect(), per_second as u64))
}

/// Keys of traces may hold what the text protocol does not allow.
fn printable(mut request: Request) -> Request {
    request.key.iter_mut().filter(|byte| **byte <= b' ' || **byte == 127).for_each(|byte| *byte = b'_');
    request
}

/// A connection to a server, and what this client knows of what it has set there.
struct LoadLine {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    line: Vec<u8>,
    /// What the next write begins with: sets of what the last batch missed,
    out: Vec<u8>,
    /// so many of them.
    sets: usize,
    /// When the items that do not live for ever end, in the load's seconds,
    ends: HashMap<Vec<u8>, u64>,
    /// and the keys by that second; those that have been set again since stand here twice.
    ending: BTreeMap<u64, Vec<Vec<u8>>>,
    answered: LoadAnswers,
}

impl LoadLine {
    fn open(address: SocketAddr) -> Result<LoadLine, String> {
        let failed = |error: std::io::Error| format!("{address}: {error}");
        let stream = TcpStream::connect(address).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(failed)?;
        stream.set_write_timeout(Some(ANSWER_MAX)).map_err(failed)?;
        let reader = BufReader::with_capacity(1 << 16, stream.try_clone().map_err(failed)?);
        let (line, out, answered) = (Vec::new(), Vec::new(), LoadAnswers::default());
        Ok(LoadLine { stream, reader, line, out, sets: 0, ends: HashMap::new(), ending: BTreeMap::new(), answered })
    }

    /// Writes what is left of the last batch, and the gets and deletes of this one.
    fn ask(&mut self, batch: &[(u64, Request)], now: u64) -> Result<(), String> {
        self.bury(now);
        for (_, request) in batch {
            match request.op {
                Op::Get => self.push(&[b"get ", &request.key, b"\r\n"]),
                Op::Set => {}
                Op::Delete => {
                    self.ends.remove(&request.key);
                    self.push(&[b"delete ", &request.key, b" noreply\r\n"]);
                }
            }
        }
        self.stream.write_all(&self.out).map_err(|error| format!("a server takes no requests: {error}"))?;
        self.out.clear();
        Ok(())
    }

    /// Reads the answers, and prepares the sets that follow from them.
    fn hear(&mut self, batch: &[(u64, Request)], now: u64, uncounted: u64) -> Result<(), String> {
        for _ in 0..std::mem::take(&mut self.sets) {
            self.read_line()?;
            self.answered.refused += u64::from(self.line != b"STORED");
        }
        for (number, request) in batch {
            let is_hit = request.op == Op::Get && self.read_value(request)?;
            if *number >= uncounted && request.op == Op::Get {
                let bytes = (request.key.len() + request.len.unwrap_or(0)) as u64;
                self.answered.gets += 1;
                self.answered.bytes += bytes;
                self.answered.hits += u64::from(is_hit);
                self.answered.hit_bytes += if is_hit { bytes } else { 0 };
            }
            if let Some(len) = request.len.filter(|_| request.op != Op::Delete && !is_hit) {
                self.set(request, len.min(VALUE_MAX), now);
            }
        }
        Ok(())
    }

    /// Deletes what has lived long enough.
    fn bury(&mut self, now: u64) {
        while let Some(second) = self.ending.first_entry().filter(|second| *second.key() <= now) {
            let (end, keys) = second.remove_entry();
            for key in keys {
                if self.ends.get(&key) == Some(&end) {
                    self.ends.remove(&key);
                    self.push(&[b"delete ", &key, b" noreply\r\n"]);
                }
            }
        }
    }

    fn set(&mut self, request: &Request, len: usize, now: u64) {
        self.push(&[b"set ", &request.key, format!(" 0 0 {len}\r\n").as_bytes()]);
        self.out.resize(self.out.len() + len, b'v');
        self.push(&[b"\r\n"]);
        self.sets += 1;
        if request.ttl == 0 {
            self.ends.remove(&request.key);
        } else {
            let end = now.saturating_add(request.ttl);
            self.ends.insert(request.key.clone(), end);
            self.ending.entry(end).or_default().push(request.key.clone());
        }
    }

    fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
    }

    /// The answer to a get: whether it hit.
    fn read_value(&mut self, request: &Request) -> Result<bool, String> {
        self.read_line()?;
        if self.line == b"END" {
            return Ok(false);
        }
        let text = String::from_utf8_lossy(&self.line).into_owned();
        let mut words = text.split(' ');
        let len = words.next_back().and_then(|len| len.parse::<usize>().ok()).filter(|len| *len <= VALUE_MAX);
        let (true, Some(len)) = (words.next() == Some("VALUE"), len) else {
            return Err(format!("a server answered a get with {text:?}"));
        };
        if words.next().map(str::as_bytes) != Some(&request.key[..]) {
            return Err(format!("a server answered for another key: {text:?}"));
        }
        self.skip(len + 2)?;
        self.read_line()?;
        if self.line == b"END" { Ok(true) } else { Err("a server's value does not end with END".into()) }
    }

    /// The next line, without its end.
    fn read_line(&mut self) -> Result<(), String> {
        self.line.clear();
        self.reader.read_until(b'\n', &mut self.line).map_err(|error| format!("no answer: {error}"))?;
        match self.line.strip_suffix(b"\r\n").map(<[u8]>::len) {
            Some(len) => {
                self.line.truncate(len);
                Ok(())
            }
            None => Err("a server closed the connection".into()),
        }
    }

    fn skip(&mut self, mut len: usize) -> Result<(), String> {
        while len > 0 {
            let here = self.reader.fill_buf().map_err(|error| format!("no answer: {error}"))?.len().min(len);
            if here == 0 {
                return Err("a server closed the connection".into());
            }
            self.reader.consume(here);
            len -= here;
        }
        Ok(())
    }
}
