//! The acceptor: one thread that takes connections in and deals them to the workers in turn.
//!
//! ```text
//!  listeners ──> accept ──> below `-c`? ── yes ──> Entry + Slot ──> worker 0, 1, … in turn
//!                                └──────── no ───> refuse (maxconns_fast), or pause until a slot is free
//! ```
//!
//! A connection's [`Entry`] is its line in `stats conns`; its [`Slot`] is its share of `-c`. Both end in `Drop`.
//!
//! Invariants: while paused nothing is accepted and nothing spins: the last `Slot` to go wakes the acceptor. Only
//! the acceptor adds to the count of connections, so testing it and then adding needs no lock.
//!
//! Not here: how sockets are bound (`listen`).

use super::conn::Reason;
use super::listen::{ListenSocket, Listener};
use super::worker::{Arrival, Inbox};
use super::{Stop, StopMode};
use crate::command::Shared;
use crate::config::Binding;
use crate::io::stream::Stream;
use crate::stats::{ConnInfo, Feeder};
use crate::watch::Streams;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Accepts from one listener before the others get theirs.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting stays paused for want of something whose return nobody announces (descriptors, memory).
const RETRY: Duration = Duration::from_millis(100);

/// What one too many is told.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// Index of `conn_listening` in `stats::CONN_STATES`.
const INFO_LISTENING: u8 = 0;

/// Index of `conn_read`.
const INFO_READ: u8 = 1;

/// The waker's token; listeners have their number.
const WAKER: Token = Token(usize::MAX - 1);

/// Accepts connections.
#[derive(Debug)]
pub struct Acceptor {
    shared: Arc<Shared>,
    stop: Arc<Stop>,
    poll: Poll,
    gate: Arc<Gate>,
    /// Dropped before the listeners whose descriptors they name.
    entries: Vec<Entry>,
    listeners: Vec<Waiting>,
    inboxes: Vec<Inbox>,
    next: usize,
    paused: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    since: Instant,
    /// Who came when there was no slot, and by which listener: that somebody waits is known only by accepting.
    held: Option<(usize, Stream, Option<SocketAddr>)>,
    /// It is time to see whether what was lacking has come back. The pause ends when it has.
    probing: bool,
}

#[derive(Debug)]
struct Waiting {
    listener: Listener,
    /// Clients may be waiting.
    ready: bool,
    _slot: Slot,
}

/// What came of one try to accept.
enum Accepted {
    Client(Stream, Option<SocketAddr>),
    Nobody,
    /// Of descriptors or memory.
    Want,
    /// This one was lost; try the next.
    Lost,
}

impl Acceptor {
    /// An acceptor for `listeners` that deals to `inboxes`, and what wakes it.
    pub fn new(
        shared: Arc<Shared>,
        stop: Arc<Stop>,
        listeners: Vec<Listener>,
        inboxes: Vec<Inbox>,
    ) -> io::Result<(Acceptor, Arc<Gate>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let gate = Arc::new(Gate { shared: Arc::downgrade(&shared), is_full: AtomicBool::new(false), waker });
        let mut acceptor = Acceptor {
            shared,
            stop,
            poll,
            gate: gate.clone(),
            entries: Vec::new(),
            listeners: Vec::new(),
            inboxes,
            next: 0,
            paused: None,
        };
        for listener in listeners {
            acceptor.add(listener)?;
        }
        Ok((acceptor, gate))
    }

    fn add(&mut self, mut listener: Listener) -> io::Result<()> {
        let token = Token(self.listeners.len());
        self.poll.registry().register(listener.socket.source(), token, Interest::READABLE)?;
        let info = ConnInfo {
            fd: listener.socket.as_raw_fd(),
            addr: listener.socket.name(),
            listen_addr: None,
            state: AtomicU8::new(INFO_LISTENING),
            last_cmd: AtomicU32::new(self.shared.clock.now()),
            feeder: Feeder::default(),
        };
        log::debug!("<{} server listening ({})", info.fd, speaks(listener.binding));
        self.entries.push(Entry::new(&self.shared, info, None));
        let _slot = Slot::take(&self.shared, &self.gate);
        self.listeners.push(Waiting { listener, ready: true, _slot });
        Ok(())
    }

    /// Accepts until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(self.listeners.len() + 1);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.timeout()) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "poll failed: {error}");
            }
            if self.stop.mode() != StopMode::Run {
                return;
            }
            for event in &events {
                if let Some(waiting) = self.listeners.get_mut(event.token().0) {
                    waiting.ready = true;
                }
            }
            if self.may_accept() {
                self.accept_ready();
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if self.paused.is_some() {
            return Some(RETRY);
        }
        self.listeners.iter().any(|waiting| waiting.ready).then_some(Duration::ZERO)
    }

    fn accept_ready(&mut self) {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let is_paused = self.paused.as_ref().is_some_and(|pause| !pause.probing);
                if !self.listeners[index].ready || is_paused {
                    break;
                }
                self.accept(index);
            }
        }
    }

    fn accept(&mut self, index: usize) {
        match self.listeners[index].listener.socket.accept() {
            Accepted::Client(stream, peer) if !self.is_full() => self.admit(index, stream, peer),
            Accepted::Client(stream, _) if self.shared.config.maxconns_fast => self.refuse(stream),
            Accepted::Client(stream, peer) => self.pause(Some((index, stream, peer))),
            Accepted::Nobody => {
                self.resume();
                self.listeners[index].ready = false;
            }
            Accepted::Want => self.pause(None),
            Accepted::Lost => {}
        }
    }

    fn is_full(&self) -> bool {
        self.shared.stats.curr_conns.load(Ordering::SeqCst) >= u64::from(self.shared.config.max_conns)
    }

    fn admit(&mut self, index: usize, stream: Stream, peer: Option<SocketAddr>) {
        self.resume();
        let listener = &self.listeners[index].listener;
        let info = ConnInfo {
            fd: stream.as_raw_fd(),
            addr: peer.map_or_else(|| "?:<AF 0>".into(), tcp_name),
            listen_addr: Some(listener.socket.local_name(&stream)),
            state: AtomicU8::new(INFO_READ),
            last_cmd: AtomicU32::new(self.shared.clock.now()),
            feeder: Feeder::default(),
        };
        log::debug!("<{} new {} client connection", info.fd, client_kind(listener.binding));
        let entry = Entry::new(&self.shared, info, Some(Peer(peer)));
        let slot = Slot::take(&self.shared, &self.gate);
        let arrival = Arrival { stream, entry, slot, binding: listener.binding };
        self.inboxes[self.next].send(arrival);
        self.next = (self.next + 1) % self.inboxes.len();
    }

    /// The reply is written at once or not at all: a fresh socket has room for it.
    fn refuse(&mut self, mut stream: Stream) {
        let _ = stream.write(TOO_MANY);
        self.shared.stats.rejected_conns.fetch_add(1, Ordering::Relaxed);
        log::debug!("<{} refused: too many open connections", stream.as_raw_fd());
    }

    fn pause(&mut self, held: Option<(usize, Stream, Option<SocketAddr>)>) {
        if let Some(pause) = &mut self.paused {
            (pause.held, pause.probing) = (held, false);
            return;
        }
        let stats = &self.shared.stats;
        self.gate.is_full.store(true, Ordering::SeqCst);
        self.paused = Some(Pause { since: Instant::now(), held, probing: false });
        stats.not_accepting.store(true, Ordering::Relaxed);
        stats.listen_disabled.fetch_add(1, Ordering::Relaxed);
        log::info!("too many open connections: not accepting until one closes");
    }

    /// Whether to try. After a pause, who came first is let in first.
    fn may_accept(&mut self) -> bool {
        if self.paused.is_some() && self.is_full() {
            return false;
        }
        let Some(pause) = &mut self.paused else { return true };
        pause.probing = true;
        let held = pause.held.take();
        for waiting in &mut self.listeners {
            waiting.ready = true;
        }
        if let Some((index, stream, peer)) = held {
            self.admit(index, stream, peer);
        }
        true
    }

    fn resume(&mut self) {
        let Some(pause) = self.paused.take() else { return };
        let stats = &self.shared.stats;
        stats.listen_disabled_us.fetch_add(pause.since.elapsed().as_micros() as u64, Ordering::Relaxed);
        stats.not_accepting.store(false, Ordering::Relaxed);
        self.gate.is_full.store(false, Ordering::SeqCst);
    }
}

/// Who is let in, and who wakes the acceptor.
#[derive(Debug)]
pub struct Gate {
    /// Weak, because watchers hold a [`Slot`] and are themselves held by what is shared.
    shared: Weak<Shared>,
    is_full: AtomicBool,
    waker: Waker,
}

impl Gate {
    /// Makes the acceptor look around.
    pub fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the acceptor: {error}");
        }
    }
}

/// A connection's share of `-c`.
#[derive(Debug)]
pub struct Slot {
    gate: Arc<Gate>,
}

impl Slot {
    fn take(shared: &Shared, gate: &Arc<Gate>) -> Slot {
        let stats = &shared.stats;
        let open = stats.curr_conns.fetch_add(1, Ordering::SeqCst) + 1;
        stats.total_conns.fetch_add(1, Ordering::Relaxed);
        stats.conn_structs.fetch_max(open, Ordering::Relaxed);
        Slot { gate: gate.clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(shared) = self.gate.shared.upgrade() {
            shared.stats.curr_conns.fetch_sub(1, Ordering::SeqCst);
        }
        if self.gate.is_full.load(Ordering::SeqCst) {
            self.gate.wake();
        }
    }
}

/// A connection's line in `stats conns`. Drop it before its descriptor is closed: afterwards the number may be
/// somebody else's.
#[derive(Debug)]
pub struct Entry {
    shared: Weak<Shared>,
    info: Arc<ConnInfo>,
    peer: Option<Peer>,
}

/// The other side; None for a Unix socket.
#[derive(Clone, Copy, Debug)]
struct Peer(Option<SocketAddr>);

impl Entry {
    fn new(shared: &Arc<Shared>, info: ConnInfo, peer: Option<Peer>) -> Entry {
        let info = Arc::new(info);
        shared.stats.conns.lock().unwrap().insert(info.fd, info.clone());
        if let Some(peer) = peer.filter(|_| shared.watch.wants(Streams::CONNEVENTS)) {
            let (rip, rport, transport) = peer.describe();
            shared.watch.conn_new(&rip, rport, transport, info.fd);
        }
        Entry { shared: Arc::downgrade(shared), info, peer }
    }

    /// What `stats conns` prints.
    pub fn info(&self) -> Arc<ConnInfo> {
        self.info.clone()
    }

    /// Tells those who watch that the connection ends.
    pub fn log_close(&self, shared: &Shared, reason: Reason) {
        log::debug!("<{} connection closed.", self.info.fd);
        if let Some(peer) = self.peer.filter(|_| shared.watch.wants(Streams::CONNEVENTS)) {
            let (rip, rport, transport) = peer.describe();
            shared.watch.conn_close(&rip, rport, transport, reason.name(), self.info.fd);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.stats.conns.lock().unwrap().remove(&self.info.fd);
        }
    }
}

impl Peer {
    fn describe(self) -> (String, u16, &'static str) {
        match self.0 {
            Some(address) => (address.ip().to_string(), address.port(), "tcp"),
            None => ("unix".into(), 0, "local"),
        }
    }
}

impl ListenSocket {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            ListenSocket::Tcp(socket, _) => socket,
            ListenSocket::Unix(socket, _) => socket,
        }
    }

    fn accept(&self) -> Accepted {
        let result = match self {
            ListenSocket::Tcp(socket, _) => socket.accept().map(|(s, peer)| (Stream::Tcp(s), Some(peer))),
            ListenSocket::Unix(socket, _) => socket.accept().map(|(s, _)| (Stream::Unix(s), None)),
        };
        match result {
            Ok((stream, peer)) => Accepted::Client(stream, peer),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Accepted::Nobody,
            Err(error) => judge(&error),
        }
    }

    fn name(&self) -> String {
        match self {
            ListenSocket::Tcp(_, address) => tcp_name(*address),
            ListenSocket::Unix(_, path) => format!("unix:{path}"),
        }
    }

    /// The address that the client of `stream` connected to.
    fn local_name(&self, stream: &Stream) -> String {
        match stream {
            Stream::Tcp(socket) => socket.local_addr().map_or_else(|_| self.name(), tcp_name),
            Stream::Unix(_) => self.name(),
        }
    }
}

/// A failed accept is the client's, or there is something we lack.
fn judge(error: &io::Error) -> Accepted {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            log::debug!("cannot accept: {error}");
            Accepted::Want
        }
        _ => Accepted::Lost,
    }
}

/// An address as `stats conns` prints it.
fn tcp_name(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => format!("tcp:{}:{}", v4.ip(), v4.port()),
        SocketAddr::V6(v6) => format!("tcp6:[{}]:{}", v6.ip(), v6.port()),
    }
}

fn speaks(binding: Binding) -> &'static str {
    match binding {
        Binding::Auto => "auto-negotiate",
        Binding::Ascii => "ascii",
        Binding::Binary => "binary",
    }
}

fn client_kind(binding: Binding) -> &'static str {
    match binding {
        Binding::Auto => "auto-negotiating",
        Binding::Ascii => "ascii",
        Binding::Binary => "binary",
    }
}
