//! The floor: what a server costs that does no cache work at all.
//!
//! One event loop: `epoll_wait`, one `recv`, a canned reply for each request it holds, one `send`. What lies
//! between this and a real server is the server's own work; what lies below is the kernel's.
//!
//! It knows just enough text to count requests: a line beginning with `g` is a get (answered with a value of
//! `--values` bytes for each key), one with `s` is a set whose data block of that size follows and is skipped.
//!
//! With `--cold BYTES` values are sent from random places of so much memory, not from one buffer that stays in the
//! cache: what a server of that many values must pay for memory, though it finds them for nothing. The memory has small
//! pages.
//!
//! Not here: anything a client could rely on.

use crate::draw::Rng;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{IoSlice, Read, Write};

const LISTENER: Token = Token(usize::MAX);

/// Bytes read at a time.
const READ_BUFFER: usize = 256 * 1024;

/// Serves until it is killed: `-p PORT --values BYTES --cold BYTES`.
pub fn main(arguments: &[String]) -> Result<(), String> {
    let value = |name: &str, default: usize| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], value("-p", 11211) as u16));
    serve(address, &mut Canned::new(value("--values", 100), value("--cold", 0))).map_err(|error| error.to_string())
}

/// What everything is answered with.
struct Canned {
    /// Bytes of a value.
    len: usize,
    value: Vec<u8>,
    /// A value and the end: the answer to a get of one key.
    single: Vec<u8>,
    /// Where values are sent from, if not from there.
    cold: Vec<u8>,
    rng: Rng,
}

impl Canned {
    fn new(len: usize, cold: usize) -> Canned {
        let value = format!("VALUE {} 0 {len}\r\n{}\r\n", "0".repeat(20), "x".repeat(len)).into_bytes();
        let cold = (0..cold).map(|at| b'a' + (at % 26) as u8).collect();
        Canned { len, single: [&value[..], b"END\r\n"].concat(), value, cold, rng: Rng(1) }
    }

    /// Sends the answer to a get of one key as far as it goes at once, and returns how much that was.
    fn send(&mut self, stream: &mut TcpStream) -> std::io::Result<usize> {
        if self.cold.len() <= self.len {
            return stream.write(&self.single);
        }
        let at = self.rng.below((self.cold.len() - self.len) as u64) as usize;
        let (line, tail) = (self.value.len() - self.len - 2, self.value.len() - 2);
        let parts = [&self.single[..line], &self.cold[at..at + self.len], &self.single[tail..]];
        stream.write_vectored(&parts.map(IoSlice::new))
    }
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a line.
    partial: Vec<u8>,
    /// Bytes of a data block still to come.
    skip: usize,
    out: Vec<u8>,
}

fn serve(address: std::net::SocketAddr, canned: &mut Canned) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Connection> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections)?,
                Token(i) => connections[i].turn(&mut buffer, canned),
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Vec<Connection>) -> std::io::Result<()> {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(connections.len()), interest)?;
        connections.push(Connection { stream, partial: Vec::new(), skip: 0, out: Vec::new() });
    }
    Ok(())
}

impl Connection {
    fn turn(&mut self, buffer: &mut [u8], canned: &mut Canned) {
        self.flush();
        while let Ok(n) = self.stream.read(buffer) {
            if self.is_single_get(&buffer[..n]) {
                self.answer(canned);
            } else {
                self.reply(&buffer[..n], canned);
                self.flush();
            }
            if n < buffer.len() {
                return;
            }
        }
    }

    fn is_single_get(&self, input: &[u8]) -> bool {
        let idle = self.skip == 0 && self.partial.is_empty() && self.out.is_empty();
        idle && input.first() == Some(&b'g')
            && memchr::memchr(b'\n', input) == Some(input.len() - 1)
            && memchr::memchr_iter(b' ', input).count() == 1
    }

    /// Sends without a copy what can be sent at once.
    fn answer(&mut self, canned: &mut Canned) {
        let sent = canned.send(&mut self.stream).unwrap_or(0);
        self.out.extend_from_slice(&canned.single[sent..]);
    }

    /// Collects the replies to all whole requests.
    fn reply(&mut self, mut input: &[u8], canned: &Canned) {
        while !input.is_empty() {
            let skipped = self.skip.min(input.len());
            self.skip -= skipped;
            input = &input[skipped..];
            if skipped > 0 && self.skip == 0 {
                self.out.extend_from_slice(b"STORED\r\n");
            }
            let Some(end) = memchr::memchr(b'\n', input) else {
                self.partial.extend_from_slice(input);
                return;
            };
            let line = &input[..end];
            if self.partial.first().or(line.first()) == Some(&b's') {
                self.skip = canned.len + 2;
            } else {
                let keys = [&self.partial[..], line].iter().map(|part| memchr::memchr_iter(b' ', part).count()).sum();
                for _ in 0..keys {
                    self.out.extend_from_slice(&canned.value);
                }
                self.out.extend_from_slice(b"END\r\n");
            }
            self.partial.clear();
            input = &input[end + 1..];
        }
    }

    fn flush(&mut self) {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(n) => sent += n,
                Err(_) => break,
            }
        }
        self.out.drain(..sent);
    }
}
