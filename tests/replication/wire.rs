//! The way from the sidecar to the peer: a relay that can be cut, slowed down, and pointed at another peer.
//!
//! One thread per direction of a connection; all of them end with their connection or with the wire.

use crate::common::DEADLINE;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Bytes passed on at a time: small, so that a cut falls anywhere.
const PIECE: usize = 16 << 10;

/// See the module's head.
pub struct Wire {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<State>,
}

struct State {
    target: Mutex<SocketAddr>,
    open: Mutex<Vec<TcpStream>>,
    /// Bytes a second towards the peer; 0 is no limit.
    limit: AtomicU64,
    /// Whether the peer passes for a memcached: it does not know `replica`.
    is_stock: bool,
    /// Bytes that went towards the peer.
    passed: AtomicU64,
    ended: AtomicBool,
}

impl Wire {
    /// A relay to `target`.
    pub fn to(target: SocketAddr) -> Wire {
        Wire::new(target, false)
    }

    /// A relay to a twincached, which answers through it as a new memcached does: to `replica who`, too, with `ERROR`.
    pub fn to_disguised(target: SocketAddr) -> Wire {
        Wire::new(target, true)
    }

    fn new(target: SocketAddr, is_stock: bool) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            target: Mutex::new(target),
            open: Mutex::new(Vec::new()),
            limit: AtomicU64::new(0),
            is_stock,
            passed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let shared = state.clone();
        std::thread::spawn(move || accept(&listener, &shared));
        Wire { addr, state }
    }

    /// From now on connections lead there.
    pub fn lead_to(&self, target: SocketAddr) {
        *self.state.target.lock().unwrap() = target;
    }

    /// Breaks all connections, wherever they are.
    pub fn cut(&self) {
        for stream in self.state.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Lets no more than this many bytes a second through; 0 is no limit.
    pub fn limit(&self, bytes_per_second: u64) {
        self.state.limit.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Bytes that have gone to the peer.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        self.cut();
        // Wakes the accepting thread.
        let _ = TcpStream::connect_timeout(&self.addr, DEADLINE);
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for near in listener.incoming() {
        if state.ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(near) = near else { continue };
        let target = *state.target.lock().unwrap();
        // A peer that is not there: the connection just ends.
        let Ok(far) = TcpStream::connect_timeout(&target, DEADLINE) else { continue };
        for stream in [&near, &far] {
            stream.set_nodelay(true).unwrap();
            state.open.lock().unwrap().push(stream.try_clone().unwrap());
        }
        let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
        let towards = state.clone();
        std::thread::spawn(move || relay(near, far, Some(&towards)));
        std::thread::spawn(move || relay(far_too, near_too, None));
    }
}

/// Passes the first lines on, up to `replica who`, of which another word is made.
fn disguise(from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
    let mut lines = Vec::new();
    while !lines.ends_with(b"replica who\r\n") {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        lines.push(byte[0]);
        assert!(lines.len() < 100, "no `replica who` at the beginning");
    }
    let kept = lines.len() - b"replica who\r\n".len();
    to.write_all(&[&lines[..kept], b"unknown who\r\n"].concat())
}

fn relay(mut from: TcpStream, mut to: TcpStream, towards: Option<&State>) {
    let mut piece = vec![0; PIECE];
    let mut due = Instant::now();
    if towards.is_some_and(|state| state.is_stock) && disguise(&mut from, &mut to).is_err() {
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        return;
    }
    loop {
        let n = match from.read(&mut piece) {
            Ok(n @ 1..) => n,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            _ => break,
        };
        if to.write_all(&piece[..n]).is_err() {
            break;
        }
        let Some(state) = towards else { continue };
        state.passed.fetch_add(n as u64, Ordering::Relaxed);
        let limit = state.limit.load(Ordering::Relaxed);
        if limit > 0 {
            due = due.max(Instant::now()) + Duration::from_secs_f64(n as f64 / limit as f64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
