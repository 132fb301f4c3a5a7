//! Requests out of a file: lines of our own, or a trace of a cache that somebody has published.
//!
//! ```text
//! plain     key size [seconds to live]                                         a get, and a set if it misses
//! twitter   timestamp,key,key size,value size,client id,operation,TTL          no names of columns
//! kvcache   op_time,key,key_size,op,op_count,size,cache_hits,ttl,…             names in the first line, in any order
//! ```
//!
//! In the second (github.com/twitter/cache-trace) keys may hold commas. In the third (CacheLib's traces of Meta's key-value
//! cache) one line stands for `op_count` requests. Where a trace has no size of what a get missed, the get sets nothing: the
//! trace has the set that followed. A line that cannot be read is passed over; a file without any that can is an error.
//!
//! Not here: what is done with a request (`replay`), how to unpack a trace (`zstd -dc trace.zst | … -`).

use std::io::{BufRead, BufReader, Cursor, Read};
use std::sync::OnceLock;

/// Longest key.
const KEY_MAX: usize = 250;

/// One line stands for so many requests at most.
const REPEATS_MAX: u64 = 10_000;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// And a set if it misses.
    Get,
    Set,
    Delete,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub op: Op,
    pub key: Vec<u8>,
    /// Bytes of the value; None where that is not known.
    pub len: Option<usize>,
    /// Seconds, 0 for ever.
    pub ttl: u64,
}

/// How the lines of a file are made.
#[derive(Clone, Debug)]
enum Format {
    Plain,
    Twitter,
    /// Where each column is.
    KvCache(Columns),
}

#[derive(Clone, Debug)]
struct Columns {
    key: usize,
    key_size: Option<usize>,
    op: usize,
    op_count: Option<usize>,
    size: usize,
    ttl: Option<usize>,
}

/// The requests of a file, `-` for what comes on stdin.
pub fn read(path: &str) -> Result<Box<dyn Iterator<Item = Request>>, String> {
    let source: Box<dyn BufRead> = if path == "-" {
        Box::new(Cursor::new(stdin()?))
    } else {
        let file = std::fs::File::open(path);
        Box::new(BufReader::new(file.map_err(|error| format!("{path} is neither a load nor a file: {error}"))?))
    };
    let mut lines = source.split(b'\n').map_while(Result::ok).map(|line| String::from_utf8_lossy(&line).into_owned());
    let first = lines.next().unwrap_or_default();
    let format = Format::of(&first);
    let lines = std::iter::once(first).chain(lines);
    let requests = lines.filter_map(move |line| format.parse(line.trim_end()));
    let mut requests = requests.flat_map(|(request, times)| std::iter::repeat_n(request, times as usize)).peekable();
    match requests.peek() {
        Some(_) => Ok(Box::new(requests)),
        None => Err(format!("{path} has no line that is a request: see --help for what can be read")),
    }
}

/// All of it, as each run reads it again.
fn stdin() -> Result<&'static [u8], String> {
    static READ: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map_err(|error| format!("stdin: {error}"))?;
        Ok(bytes)
    });
    read.as_deref().map_err(String::clone)
}

impl Format {
    fn of(first: &str) -> Format {
        let names: Vec<&str> = first.trim_end().split(',').map(str::trim).collect();
        let at = |name: &str| names.iter().position(|other| *other == name);
        match (at("key"), at("op"), at("size")) {
            (Some(key), Some(op), Some(size)) => {
                let (key_size, op_count, ttl) = (at("key_size"), at("op_count"), at("ttl"));
                Format::KvCache(Columns { key, key_size, op, op_count, size, ttl })
            }
            _ if names.len() >= 7 => Format::Twitter,
            _ => Format::Plain,
        }
    }

    /// A request, and how often it was made; None for what is none.
    fn parse(&self, line: &str) -> Option<(Request, u64)> {
        match self {
            Format::Plain => {
                let mut words = line.split_ascii_whitespace();
                let (key, len) = (words.next()?, words.next()?.parse().ok()?);
                let ttl = words.next().and_then(|ttl| ttl.parse().ok()).unwrap_or(0);
                Some((Request { op: Op::Get, key: key_of(key, 0), len: Some(len), ttl }, 1))
            }
            Format::Twitter => {
                // From the end, as a key may hold commas.
                let (_, rest) = line.split_once(',')?;
                let mut fields = rest.rsplitn(6, ',');
                let (ttl, op, _client) = (fields.next()?.parse().ok()?, fields.next()?, fields.next()?);
                let (len, key_len) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
                Some((request(op, key_of(fields.next()?, key_len), len, ttl)?, 1))
            }
            Format::KvCache(columns) => {
                let fields: Vec<&str> = line.split(',').collect();
                let number = |at: Option<usize>| at.and_then(|at| fields.get(at)?.parse::<u64>().ok());
                let key = key_of(fields.get(columns.key)?, number(columns.key_size).unwrap_or(0) as usize);
                let (len, ttl) = (number(Some(columns.size))? as usize, number(columns.ttl).unwrap_or(0));
                let times = number(columns.op_count).unwrap_or(1).clamp(1, REPEATS_MAX);
                Some((request(fields.get(columns.op)?, key, len, ttl)?, times))
            }
        }
    }
}

/// None for an operation that says nothing about what is cached.
fn request(op: &str, key: Vec<u8>, len: usize, ttl: u64) -> Option<Request> {
    let op = match op.trim().to_ascii_lowercase().as_str() {
        "get" | "gets" | "get_lease" => Op::Get,
        "set" | "set_lease" | "add" | "replace" | "cas" | "append" | "prepend" | "incr" | "decr" => Op::Set,
        "delete" => Op::Delete,
        _ => return None,
    };
    let is_known = len > 0 || op != Op::Get;
    Some(Request { op, key, len: is_known.then_some(len), ttl })
}

/// A key that was made shorter to hide it is as long as it was.
fn key_of(text: &str, len: usize) -> Vec<u8> {
    let mut key = text.as_bytes()[..text.len().min(KEY_MAX)].to_vec();
    key.resize(key.len().max(len.min(KEY_MAX)).max(1), b'_');
    key
}
