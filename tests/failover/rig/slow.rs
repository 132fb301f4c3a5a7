//! A relay on a host that makes answers late: the kernel may have no netem.
//!
//! ```text
//!   sidecar ──> relay, port 2378 ──> etcd, port 2379
//!           <── `delay` later ──────
//! ```

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// See the module's head; gone when it is dropped.
pub struct Slow {
    at: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    delay_ms: AtomicU64,
    ended: AtomicBool,
}

impl Slow {
    /// Listens on this port of the host that the calling thread is on.
    pub fn start(port: u16, target: SocketAddr) -> Slow {
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || accept(&listener, target, &shared));
        Slow { at: ([127, 0, 0, 1], port).into(), state }
    }

    /// From now on answers are late by so much.
    pub fn delay(&self, delay: Duration) {
        self.state.delay_ms.store(delay.as_millis() as u64, Ordering::Relaxed);
    }

    /// Ends it. Must be called on its host.
    pub fn end(&self) {
        self.state.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.at, Duration::from_secs(1));
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, state: &Arc<State>) {
    for near in listener.incoming() {
        if state.ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(near) = near else { continue };
        let Ok(far) = TcpStream::connect_timeout(&target, Duration::from_secs(1)) else { continue };
        let _ = near.set_nodelay(true).and_then(|()| far.set_nodelay(true));
        let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
        std::thread::spawn(move || copy(near, far));
        let state = state.clone();
        std::thread::spawn(move || copy_late(far_too, near_too, &state));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Pieces on their way, each with the moment when it is due; an empty one is the end.
type Pieces = (Mutex<VecDeque<(Instant, Vec<u8>)>>, Condvar);

fn copy_late(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let pieces = Arc::new(Pieces::default());
    let (sent, from_too) = (pieces.clone(), from.try_clone());
    let sender = std::thread::spawn(move || {
        loop {
            let mut queue = sent.0.lock().unwrap();
            let (due, piece) = loop {
                match queue.pop_front() {
                    Some(piece) => break piece,
                    None => queue = sent.1.wait(queue).unwrap(),
                }
            };
            drop(queue);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if piece.is_empty() || to.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from_too.map(|from| from.shutdown(Shutdown::Both));
    });
    let mut piece = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut piece).unwrap_or(0);
        let due = Instant::now() + Duration::from_millis(state.delay_ms.load(Ordering::Relaxed));
        pieces.0.lock().unwrap().push_back((due, piece[..count].to_vec()));
        pieces.1.notify_one();
        if count == 0 {
            break;
        }
    }
    let _ = sender.join();
}
