//! The thread of one peer: a [`Pump`] between two sockets.
//!
//! ```text
//!   Poll ── server, peer, wake ──> turn: read the peer, acknowledge, read the server, act, write
//!                                  … again while anything moved; only then poll, at most until the pump's deadline
//! ```
//!
//! To connect blocks the thread, which has nothing else to do meanwhile.
//!
//! Not here: what the bytes mean (`pump`), when a socket is tried again (`io::edge`).

mod answers;
pub(super) mod clock_skew;
pub(super) mod guard;
mod lag;
mod peer_cas;
mod peer_clock;
mod peer_info;
mod peer_socket;
pub(super) mod pump;
mod pump_state;
mod relay;
mod sink;
mod source;

use super::observe::figures::Figures;
use super::options::Options;
use super::server_socket;
use crate::io::edge::{Edge, Readiness};
use crate::sidecar::moment::{Moment, Trouble};
use crate::sidecar::peer_login::PeerLogin;
use crate::sync::lock;
use crate::sys::cpu;
use crate::tls::ClientFiles;
use guard::OverwriteGuard;
use mio::net::UnixStream;
use mio::{Events, Poll, Token};
use peer_socket::PeerSocket;
use pump::{Action, Pump};
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SERVER: Token = Token(0);
const PEER: Token = Token(1);
/// Of the waker that stops the thread.
const WAKE: Token = Token(2);

/// The reason that is given when the other side has closed a connection.
const CLOSED: &str = "closed by the other side";

/// Bytes of answers read at once; the answer to a barrier has 4.
const ANSWERS_SIZE: usize = 16 << 10;

/// Longest sleep, so that a stop is noticed without a waker, too.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What the thread of a peer shares with the HTTP server.
#[derive(Debug)]
pub(super) struct PeerFigures {
    /// The consumer's name: the peer as it was given, or the name of a node.
    pub name: String,
    /// The peer's host and port.
    pub address: String,
    figures: Mutex<Figures>,
}

impl PeerFigures {
    /// Of a peer that was not tried yet.
    pub(super) fn new(name: &str, address: &str) -> PeerFigures {
        PeerFigures { name: name.to_owned(), address: address.to_owned(), figures: Mutex::default() }
    }

    /// The figures of now.
    pub(super) fn figures(&self) -> Figures {
        lock(&self.figures).clone()
    }

    fn publish(&self, figures: &Figures) {
        lock(&self.figures).clone_from(figures);
    }
}

/// What makes this sidecar the feeder of a shard's servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeederKey {
    /// The epoch in which the server beside it owns the shard.
    pub epoch: u64,
    /// The shard's secret.
    pub secret: String,
    /// Who need not be sent everything, after the shard was handed over.
    pub resume: Option<FeedResume>,
}

/// Nodes that have everything up to a change of the server beside this sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeedResume {
    /// The name and the run of each.
    pub whole: Vec<(String, String)>,
    /// The change.
    pub lsn: u64,
}

/// The peer of a link.
#[derive(Debug)]
pub(super) struct LinkTarget {
    /// What is shown of it.
    pub figures: Arc<PeerFigures>,
    /// Only in a shard: then what the peer holds is the shard's, and the owner's data replaces it.
    pub key: Option<FeederKey>,
}

/// The thread of a link.
pub(super) struct LinkThread {
    waker: mio::Waker,
    is_stopped: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

impl LinkThread {
    /// Starts it.
    pub(super) fn start(mut link: Link) -> io::Result<LinkThread> {
        let waker = mio::Waker::new(link.poll.registry(), WAKE)?;
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopped);
        let handle = std::thread::Builder::new().name("peer".into()).spawn(move || link.run(&stop))?;
        Ok(LinkThread { waker, is_stopped, handle })
    }

    /// Tells it to end, and does not wait for that: it may be connecting, or looking up a name.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
    }

    /// Whether it has ended.
    pub(super) fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

/// See the module's head.
pub(super) struct Link {
    pump: Pump,
    poll: Poll,
    server: Option<Edge<UnixStream>>,
    peer: Option<Edge<PeerSocket>>,
    path: PathBuf,
    /// How the peer is spoken to, if by TLS.
    tls: Option<ClientFiles>,
    login: Option<PeerLogin>,
    shown: Arc<PeerFigures>,
    started: Instant,
    answers: Box<[u8]>,
}

impl Link {
    /// A link from the server's control socket to this peer.
    pub(super) fn new(options: &Options, target: LinkTarget) -> io::Result<Link> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let seed = time ^ u64::from(std::process::id());
        let guard = match target.key {
            Some(_) => OverwriteGuard::of_a_shard(),
            None => OverwriteGuard::new(options.may_replace),
        };
        let name = target.figures.name.clone();
        let (key, resume) = target.key.map(|key| ((key.epoch, key.secret), key.resume)).unzip();
        let resume = resume.flatten().and_then(|FeedResume { whole, lsn }| {
            let run = whole.into_iter().find(|(node, _)| *node == name).map(|(_, run)| run)?;
            Some((run, lsn))
        });
        let pump = Pump::new(&target.figures.name, options.limit_megabits, guard, seed).with_key(key, resume);
        Ok(Link {
            pump: pump.over_tls(options.peer_tls.is_some()),
            poll: Poll::new()?,
            server: None,
            peer: None,
            path: options.server.clone(),
            tls: options.peer_tls.clone(),
            login: options.peer_login.clone(),
            shown: target.figures,
            started: Instant::now(),
            answers: vec![0; ANSWERS_SIZE].into(),
        })
    }

    /// Runs until `stop` is set.
    pub(super) fn run(&mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(8);
        while !stop.load(Ordering::Relaxed) {
            while self.turn() {}
            let now = self.now();
            self.shown.publish(self.pump.figures(now));
            if let Err(error) = self.poll.poll(&mut events, Some(self.sleep(now))) {
                assert!(error.kind() == ErrorKind::Interrupted, "epoll: {error}");
            }
            for event in &events {
                match event.token() {
                    SERVER => self.server.iter_mut().for_each(|server| server.note(event.into())),
                    PEER => self.peer.iter_mut().for_each(|peer| peer.note(event.into())),
                    _ => {}
                }
            }
        }
    }

    fn sleep(&self, now: Moment) -> Duration {
        let can_write = self.peer.as_ref().is_some_and(Edge::is_writable);
        let write_at = self.pump.bandwidth_at().filter(|_| can_write).unwrap_or(Duration::MAX);
        let hangs_at = self.pump.hangs_at().filter(|&at| at > now.at).unwrap_or(Duration::MAX);
        let until = self.pump.deadline().min(write_at).min(hangs_at).saturating_sub(now.at);
        // epoll counts in milliseconds, and mio rounds up.
        until.min(SLEEP_MAX)
    }

    fn now(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let boot_ms = cpu::time_since_boot().as_millis() as i64;
        Moment { at: self.started.elapsed(), unix_ms: unix, boot_ms }
    }

    /// Reads, acts and writes once. True when anything moved.
    fn turn(&mut self) -> bool {
        let now = self.now();
        let mut moved = self.read_peer(now);
        // Acknowledgements go out before the next read, because a client may be waiting for one.
        moved |= self.write_server(now);
        moved |= self.read_server(now);
        // Actions come before the writes, because they may put something into the output.
        while let Some(action) = self.pump.action(now) {
            self.act(action);
            moved = true;
        }
        moved |= self.write_peer(now);
        moved | self.write_server(now)
    }

    fn read_peer(&mut self, now: Moment) -> bool {
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.is_readable()) else { return false };
        match peer.read(&mut self.answers) {
            Ok(Some(0)) => self.pump.peer_gone(CLOSED, now),
            Ok(Some(n)) => {
                let now = if self.pump.awaits_clock() { self.now() } else { now };
                self.pump.peer_read(&self.answers[..n], now);
            }
            Ok(None) => return false,
            Err(error) => self.pump.peer_gone(&error.to_string(), now),
        }
        true
    }

    fn read_server(&mut self, now: Moment) -> bool {
        let Some(server) = self.server.as_mut().filter(|server| server.is_readable()) else { return false };
        let room = self.pump.server_room();
        if room.is_empty() {
            return false;
        }
        match server.read(room) {
            Ok(Some(0)) => self.server_gone(CLOSED, now),
            Ok(Some(n)) => self.pump.server_read(n, now),
            Ok(None) => return false,
            Err(error) => self.server_gone(&error.to_string(), now),
        }
        true
    }

    fn write_peer(&mut self, now: Moment) -> bool {
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.is_writable()) else { return false };
        let slices = self.pump.peer_output(now);
        if slices.is_empty() {
            return false;
        }
        let offered = slices.iter().map(|slice| slice.len()).sum();
        match peer.write_by(offered, |socket| socket.write_vectored(&slices)) {
            Ok(Some(n)) => self.pump.peer_wrote(n, now),
            Ok(None) => return false,
            Err(error) => self.pump.peer_gone(&error.to_string(), now),
        }
        true
    }

    fn write_server(&mut self, now: Moment) -> bool {
        let Some(server) = self.server.as_mut().filter(|server| server.is_writable()) else { return false };
        let bytes = self.pump.server_output();
        if bytes.is_empty() {
            return false;
        }
        let wrote = server.write_by(bytes.len(), |socket| socket.write(bytes));
        match server.ask_for_room(self.poll.registry(), SERVER).and(wrote) {
            Ok(Some(n)) => self.pump.server_wrote(n),
            Ok(None) => return false,
            Err(error) => self.server_gone(&error.to_string(), now),
        }
        true
    }

    fn server_gone(&mut self, why: &str, now: Moment) {
        self.pump.server_gone(Trouble::Broken(format!("the server: {why}")), now);
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::OpenServer => {
                let opened = server_socket::connect(&self.path).and_then(|socket| self.register_server(socket));
                match opened {
                    Ok(()) => self.pump.server_opened(self.now()),
                    Err(trouble) => self.pump.server_gone(trouble, self.now()),
                }
            }
            Action::OpenPeer => match self.open_peer() {
                Ok(()) => self.pump.peer_opened(self.now()),
                Err(error) => self.pump.peer_gone(&error.to_string(), self.now()),
            },
            Action::CloseServer => self.server = None,
            Action::ShutPeer => {
                // If the connection is broken already, the next read tells.
                let _ = self.peer.as_mut().map(|peer| peer.socket().end_writing());
            }
            Action::ClosePeer => self.peer = None,
        }
    }

    /// Watches the control socket for input only. A Unix socket reports room whenever the server has read something,
    /// and to wake this thread for that costs the server's control thread 70 ns for each change (520 and not 450). So
    /// room is asked for only when there was none.
    fn register_server(&mut self, socket: std::os::unix::net::UnixStream) -> Result<(), Trouble> {
        let made = socket
            .set_nonblocking(true)
            .and_then(|()| Edge::new(UnixStream::from_std(socket)).watch(self.poll.registry(), SERVER, false));
        self.server = Some(made.map_err(|error| Trouble::Broken(format!("the control socket: {error}")))?);
        Ok(())
    }

    fn open_peer(&mut self) -> io::Result<()> {
        let socket = PeerSocket::connect(&self.shown.address, self.tls.as_ref(), self.login.as_ref())?;
        let readable = socket.has_input();
        let mut peer = Edge::new(socket).watch(self.poll.registry(), PEER, true)?;
        peer.note(Readiness { readable, ..Readiness::default() });
        self.peer = Some(peer);
        Ok(())
    }
}
