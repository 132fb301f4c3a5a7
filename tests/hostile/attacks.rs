//! What a client does that means no good. Each attack goes on until it is told to stop; what it has opened stays open as
//! long. `bench/hostile` does the same to other servers.
//!
//! Not here: what is measured meanwhile.

use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where an attack takes place.
pub struct Site<'a> {
    pub server: SocketAddr,
    /// How many connections misbehave, where one is not enough.
    pub clients: usize,
    pub stop: &'a AtomicBool,
}

/// An attack.
pub struct Attack {
    pub name: &'static str,
    pub run: fn(&Site<'_>),
}

/// All of them; what empties the cache comes last.
pub const ATTACKS: &[Attack] = &[
    Attack { name: "20 cachedumps at a time", run: |site| repeat(site, &"stats cachedump 1 1\r\n".repeat(20), 20) },
    Attack { name: "20 statistics of all connections", run: |site| repeat(site, &"stats conns\r\n".repeat(20), 20) },
    Attack { name: "a large value, never read", run: large_value_unread },
    Attack { name: "copied values, never read", run: copied_values_unread },
    Attack { name: "all prefixes, never read", run: prefixes_unread },
    Attack { name: "all keys, never read", run: keys_unread },
    Attack { name: "uploads that stand still", run: silent_uploads },
    Attack { name: "uploads that begin all at once", run: uploads_at_once },
    Attack { name: "lines that stand still", run: silent_lines },
    Attack { name: "a line of 16 MiB of keys", run: long_line },
    Attack { name: "20 appends to a large value", run: appends },
    Attack { name: "appends, on all connections", run: appends_everywhere },
    Attack { name: "values of 8 KB, on all connections", run: values_everywhere },
    Attack { name: "short lines, on all connections", run: |site| everywhere(site, &"mn\r\n".repeat(1000)) },
    Attack { name: "many keys, on all connections", run: many_keys },
    Attack { name: "statistics, on all connections", run: statistics_everywhere },
    Attack { name: "each value held by a reader", run: all_values_held },
    Attack { name: "40 flush_alls at a time", run: |site| repeat(site, &"flush_all\r\n".repeat(40), 40) },
    Attack {
        name: "the limit down and up",
        run: |site| repeat(site, "cache_memlimit 64\r\ncache_memlimit 1024\r\n", 2),
    },
];

impl Site<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Returns when it is over.
    pub fn wait(&self) {
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.server).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("an option");
        stream.set_write_timeout(Some(Duration::from_millis(100))).expect("an option");
        stream
    }

    /// A connection that takes little before it has to be read.
    fn connect_narrow(&self) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option");
        socket.connect(&self.server.into()).expect("a connection");
        socket.set_write_timeout(Some(Duration::from_millis(100))).expect("an option");
        socket.into()
    }

    /// So many connections that have sent this and do not read.
    fn narrow_with(&self, request: &str) -> Vec<TcpStream> {
        let send = |_| {
            let mut stream = self.connect_narrow();
            // The server may close who holds too much.
            let _ = stream.write(request.as_bytes());
            stream
        };
        (0..self.clients).take_while(|_| self.goes_on()).map(send).collect()
    }

    /// Sends a request, and reads until the reply ends so; false if the server has closed or the attack is over.
    fn ask(&self, stream: &mut TcpStream, request: &[u8], end: &[u8], times: usize) -> bool {
        send(stream, request, self) && self.read(stream, end, times)
    }

    fn read(&self, stream: &mut TcpStream, end: &[u8], mut times: usize) -> bool {
        let (mut kept, mut piece) = (Vec::new(), vec![0; 64 << 10]);
        while times > 0 && self.goes_on() {
            match stream.read(&mut piece) {
                Ok(0) => return false,
                Ok(n) => kept.extend_from_slice(&piece[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => return false,
            }
            while times > 0
                && let Some(at) = kept.windows(end.len()).position(|window| window == end)
            {
                kept.drain(..at + end.len());
                times -= 1;
            }
            let rest = kept.len().saturating_sub(end.len() - 1);
            kept.drain(..rest);
        }
        self.goes_on()
    }

    fn store(&self, key: &str, len: usize) {
        let request = [format!("set {key} 0 0 {len}\r\n").as_bytes(), &vec![b'v'; len], b"\r\n"].concat();
        self.ask(&mut self.connect(), &request, b"\r\n", 1);
    }
}

fn send(stream: &mut TcpStream, mut request: &[u8], site: &Site<'_>) -> bool {
    while !request.is_empty() && site.goes_on() {
        match stream.write(request) {
            Ok(n) => request = &request[n..],
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return false,
        }
    }
    true
}

/// One client that sends the same again and again, and reads what it is sent.
fn repeat(site: &Site<'_>, request: &str, replies: usize) {
    let end: &[u8] = if request.starts_with("stats") { b"END\r\n" } else { b"\r\n" };
    let mut stream = site.connect();
    while site.ask(&mut stream, request.as_bytes(), end, replies) {}
    site.wait();
}

fn large_value_unread(site: &Site<'_>) {
    site.store("big", 1_000_000);
    let _held = site.narrow_with(&format!("get{}\r\n", " big".repeat(16)));
    site.wait();
}

fn copied_values_unread(site: &Site<'_>) {
    site.store("copied", 15_000);
    let _held = site.narrow_with(&"get copied\r\n".repeat(100));
    site.wait();
}

fn prefixes_unread(site: &Site<'_>) {
    let mut stream = site.connect();
    site.ask(&mut stream, b"stats detail on\r\n", b"OK\r\n", 1);
    for first in (0..20_000).step_by(100) {
        let gets: String = (first..first + 100).map(|i| format!("get {i:0200}:k\r\n")).collect();
        site.ask(&mut stream, gets.as_bytes(), b"END\r\n", 100);
    }
    let _held = site.narrow_with("stats detail dump\r\n");
    site.wait();
    let _ = stream.write_all(b"stats detail off\r\n");
    let _ = stream.read(&mut [0; 100]);
}

fn keys_unread(site: &Site<'_>) {
    let _held = site.narrow_with("lru_crawler metadump all\r\n");
    site.wait();
}

fn silent_uploads(site: &Site<'_>) {
    let upload = |i| {
        let mut stream = site.connect();
        let _ = stream.write(format!("set upload{i} 0 0 600000\r\nabc").as_bytes());
        stream
    };
    let _held: Vec<_> = (0..site.clients).take_while(|_| site.goes_on()).map(upload).collect();
    site.wait();
}

/// Large values on all connections at the same time, each of them nearly whole, and then others in their place.
fn uploads_at_once(site: &Site<'_>) {
    let piece = vec![b'v'; 900_000];
    let mut round = 0;
    while site.goes_on() {
        round += 1;
        let mut streams: Vec<_> = (0..site.clients).take_while(|_| site.goes_on()).map(|_| site.connect()).collect();
        for (i, stream) in streams.iter_mut().enumerate() {
            stream.set_nonblocking(true).expect("an option");
            let _ = stream.write(format!("set upload{round}-{i} 0 0 1000000\r\n").as_bytes());
        }
        let mut sent = vec![0; streams.len()];
        while site.goes_on() && sent.iter().any(|&sent| sent < piece.len()) {
            for (stream, sent) in streams.iter_mut().zip(&mut sent) {
                match stream.write(&piece[*sent..]) {
                    Ok(n) => *sent += n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    // The server lets go of some when it has no memory for all.
                    Err(_) => *sent = piece.len(),
                }
            }
        }
    }
}

/// Half a line of a get, half a small value, and a line that grows without end.
fn silent_lines(site: &Site<'_>) {
    let line = |i| {
        let mut stream = site.connect();
        let half = match i % 3 {
            0 => format!("get {}", "k ".repeat(1000)),
            1 => format!("set k 0 0 16000\r\n{}", "x".repeat(15_000)),
            _ => format!("get {}", "key ".repeat(64 << 10)),
        };
        send(&mut stream, half.as_bytes(), site);
        stream
    };
    let _held: Vec<_> = (0..site.clients).take_while(|_| site.goes_on()).map(line).collect();
    site.wait();
}

fn long_line(site: &Site<'_>) {
    let keys = "k ".repeat((8 << 20) - 8);
    let line = format!("get {keys}\r\n");
    while site.goes_on() {
        let mut stream = site.connect();
        if !site.ask(&mut stream, line.as_bytes(), b"END\r\n", 1) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn appends(site: &Site<'_>) {
    site.store("joined", 1_000_000);
    let appends = "append joined 0 0 1\r\nx\r\n".repeat(20);
    let mut stream = site.connect();
    while site.ask(&mut stream, appends.as_bytes(), b"STORED\r\n", 20) {}
    site.wait();
}

/// Connections that ask for as much as 4 KB can ask for, and read what they are sent.
fn everywhere(site: &Site<'_>, request: &str) {
    let mut streams: Vec<_> = (0..site.clients).take_while(|_| site.goes_on()).map(|_| site.connect()).collect();
    let mut piece = vec![0; 256 << 10];
    streams.iter().for_each(|stream| stream.set_nonblocking(true).expect("an option"));
    while site.goes_on() {
        let mut moved = false;
        for stream in &mut streams {
            moved |= stream.write(request.as_bytes()).is_ok();
            moved |= stream.read(&mut piece).is_ok();
        }
        if !moved {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// To a value of just less than what is done in turns.
fn appends_everywhere(site: &Site<'_>) {
    site.store("medium", 262_000);
    everywhere(site, &"append medium 0 0 0\r\n\r\n".repeat(20));
}

fn values_everywhere(site: &Site<'_>) {
    site.store("eight", 8000);
    everywhere(site, &"get eight\r\n".repeat(20));
}

fn many_keys(site: &Site<'_>) {
    let keys: String = (0..450).map(|i| format!(" key{i:05}")).collect();
    everywhere(site, &format!("get{keys}\r\n"));
}

fn statistics_everywhere(site: &Site<'_>) {
    everywhere(site, &"stats conns\r\nstats items\r\nstats slabs\r\n".repeat(20));
}

/// As many values as there is memory for, each in the hands of somebody who does not read.
fn all_values_held(site: &Site<'_>) {
    let mut held = Vec::new();
    for i in 0..site.clients {
        if !site.goes_on() {
            break;
        }
        site.store(&format!("held{i}"), 500_000);
        let mut stream = site.connect_narrow();
        let _ = stream.write(format!("get held{i}\r\n").as_bytes());
        held.push(stream);
    }
    site.wait();
}
