//! The floor: what a server costs that does no cache work at all.
//!
//! One event loop: `epoll_wait`, one `recv`, a canned reply for each request it holds, one `send`. What lies
//! between this and a real server is the server's own work; what lies below is the kernel's.
//!
//! It knows just enough text to count requests: a line beginning with `g` is a get (answered with a value of
//! `--values` bytes for each key), one with `s` is a set whose data block of that size follows.
//!
//! Not here: anything a client could rely on.

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};

const LISTENER: Token = Token(usize::MAX);

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    out: Vec<u8>,
}

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str, default: usize| {
        let at = arguments.iter().position(|a| a == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let port = value("-p", 11211);
    let len = value("--values", 100);
    let canned = format!("VALUE {} 0 {len}\r\n{}\r\n", "0".repeat(20), "x".repeat(len)).into_bytes();
    serve(format!("127.0.0.1:{port}").parse().expect("a port"), len, &canned)
}

fn serve(address: std::net::SocketAddr, len: usize, canned: &[u8]) -> std::io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Connection> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            match event.token() {
                LISTENER => accept(&listener, &poll, &mut connections)?,
                Token(i) => turn(&mut connections[i], &mut buffer, len, canned),
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Vec<Connection>) -> std::io::Result<()> {
    while let Ok((mut stream, _)) = listener.accept() {
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(connections.len()), interest)?;
        connections.push(Connection { stream, input: Vec::new(), out: Vec::new() });
    }
    Ok(())
}

fn turn(connection: &mut Connection, buffer: &mut [u8], len: usize, canned: &[u8]) {
    loop {
        match connection.stream.read(buffer) {
            Ok(0) => return,
            Ok(n) if connection.input.is_empty() => {
                let used = reply(&buffer[..n], len, canned, &mut connection.out);
                connection.input.extend_from_slice(&buffer[used..n]);
                flush(connection);
                if n < buffer.len() {
                    return;
                }
            }
            Ok(n) => {
                connection.input.extend_from_slice(&buffer[..n]);
                let used = reply(&connection.input, len, canned, &mut connection.out);
                connection.input.drain(..used);
                flush(connection);
                if n < buffer.len() {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return flush(connection),
            Err(_) => return,
        }
    }
}

/// Appends the replies to all whole requests; the bytes they took.
fn reply(input: &[u8], len: usize, canned: &[u8], out: &mut Vec<u8>) -> usize {
    let mut used = 0;
    while let Some(end) = memchr::memchr(b'\n', &input[used..]) {
        let line = &input[used..used + end];
        let mut next = used + end + 1;
        if line.first() == Some(&b's') {
            next += len + 2;
            if next > input.len() {
                break;
            }
            out.extend_from_slice(b"STORED\r\n");
        } else {
            for _ in 0..line.iter().filter(|&&b| b == b' ').count() {
                out.extend_from_slice(canned);
            }
            out.extend_from_slice(b"END\r\n");
        }
        used = next;
    }
    used
}

fn flush(connection: &mut Connection) {
    let mut sent = 0;
    while sent < connection.out.len() {
        match connection.stream.write(&connection.out[sent..]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    connection.out.drain(..sent);
}
