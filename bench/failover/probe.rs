//! A client that nobody has tuned, and that looks at the clock: one connection to one address, a request at a time,
//! connected again when it is lost.
//!
//! ```text
//!   sent ──── reply        sent ── closed · connect · refused · connect · · connected      sent ── reply
//!        good                  closed                                                          good
//! ```

use crate::common::Rng;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longest wait for a connection and for a reply.
const CONNECT: Duration = Duration::from_millis(50);
const REPLY: Duration = Duration::from_millis(500);

/// Between two tries to connect, and between two requests.
const PAUSE: Duration = Duration::from_millis(1);

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Reads of keys that are there.
    Gets,
    /// Writes.
    Sets,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Good,
    /// Not there.
    Miss,
    /// The connection was lost or timed out.
    Closed,
    /// An error as a reply.
    Error(String),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub sent: Instant,
    pub ended: Instant,
    pub end: End,
}

/// A client at work. It stops when told to or dropped.
pub struct Probe {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Asked>>>,
}

impl Probe {
    /// Asks for keys `fill:0` to `fill:<keys>`, one after the other, from a thread on the host that this is called on.
    pub fn start(address: SocketAddr, asks: Asks, keys: u64) -> Probe {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = stop.clone();
        let thread = std::thread::spawn(move || {
            let (mut link, mut rng, mut all) = (None, Rng(keys), Vec::new());
            while !shared.load(Ordering::Relaxed) {
                all.extend(ask(&mut link, address, asks, rng.below(keys)));
                std::thread::sleep(PAUSE);
            }
            all
        });
        Probe { stop, thread: Some(thread) }
    }

    /// Stops it. All that it asked.
    pub fn stop(mut self) -> Vec<Asked> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it runs").join().expect("a probe fails at nothing")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// One request, if there is a connection for it.
fn ask(link: &mut Option<BufReader<TcpStream>>, address: SocketAddr, asks: Asks, key: u64) -> Option<Asked> {
    if link.is_none() {
        let stream = TcpStream::connect_timeout(&address, CONNECT).ok()?;
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(REPLY))).ok()?;
        *link = Some(BufReader::new(stream));
    }
    let stream = link.as_mut().expect("connected");
    let sent = Instant::now();
    let end = exchange(stream, asks, key).unwrap_or(End::Closed);
    // As clients do: what has failed is not used again.
    if !matches!(end, End::Good | End::Miss) {
        *link = None;
    }
    Some(Asked { sent, ended: Instant::now(), end })
}

fn exchange(stream: &mut BufReader<TcpStream>, asks: Asks, key: u64) -> std::io::Result<End> {
    let request = match asks {
        Asks::Gets => format!("get fill:{key}\r\n"),
        Asks::Sets => format!("set probe:{key} 0 0 4\r\nabcd\r\n"),
    };
    stream.get_mut().write_all(request.as_bytes())?;
    let mut line = String::new();
    stream.read_line(&mut line)?;
    Ok(match line.trim_end() {
        "STORED" => End::Good,
        "END" => End::Miss,
        "" => End::Closed,
        value if value.starts_with("VALUE ") => {
            let len = value.rsplit(' ').next().and_then(|len| len.parse::<usize>().ok()).unwrap_or(0);
            stream.read_exact(&mut vec![0; len + b"\r\nEND\r\n".len()])?;
            End::Good
        }
        error => End::Error(error.to_owned()),
    })
}

/// From the beginning of a fault to the first reply that is no error to what was sent after its end: how long it takes
/// to kill something counts.
pub fn first_reply(asked: &[Asked], (from, to): (Instant, Instant)) -> Option<Duration> {
    let is_reply = |asked: &&Asked| asked.sent >= to && matches!(asked.end, End::Good | End::Miss);
    Some(asked.iter().find(is_reply)?.ended - from)
}

/// The longest time between two good replies of which the later came after `since`.
pub fn longest_pause(asked: &[Asked], since: Instant) -> Duration {
    let good: Vec<Instant> = asked.iter().filter(|asked| asked.end == End::Good).map(|asked| asked.ended).collect();
    let pauses = good.windows(2).filter(|pair| pair[1] >= since).map(|pair| pair[1] - pair[0]);
    pauses.max().unwrap_or(Duration::ZERO)
}
