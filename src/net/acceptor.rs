//! The acceptor: one thread that takes connections in and deals them to the workers in turn.
//!
//! ```text
//!  listeners ──> accept ──> below `-c`? ── yes ──> ConnRecord + Permit ──> worker 0, 1, … in turn, or by queue (`napi`)
//!                                │                          └─ TLS ──> handshaker 0, 1, … in turn ──> worker
//!                                └──────── no ───> refuse (maxconns_fast), or pause until a permit comes back
//! ```
//!
//! Invariant: while paused nothing is accepted and nothing spins: a permit that comes back wakes the acceptor.
//!
//! Not here: how sockets are bound (`listen`), what a connection gets with its admission (`admission`).

use super::admission::{Arrival, ConnRecord, Gate, Inboxes, Permit, first_protocol, tcp_name};
use super::listen::{ListenSocket, Listener};
use super::napi::NapiIds;
use super::stop::{Orders, Stop, StopMode};
use crate::command::Shared;
use crate::config::Binding;
use crate::io::stream::Stream;
use crate::sys::socket::napi_id;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token, Waker};
use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Accepts from one listener before the others get theirs.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting stays paused for want of something whose return nobody announces (descriptors, memory).
const RETRY: Duration = Duration::from_millis(100);

/// What one too many is told.
const TOO_MANY: &[u8] = b"ERROR Too many open connections\r\n";

/// The waker's token; listeners have their number.
const WAKER: Token = Token(usize::MAX - 1);

/// Accepts connections.
#[derive(Debug)]
pub(super) struct Acceptor {
    shared: Arc<Shared>,
    stop: Orders,
    poll: Poll,
    gate: Arc<Gate>,
    /// Dropped before the listeners whose descriptors they name.
    records: Vec<ConnRecord>,
    listeners: Vec<Waiting>,
    workers: Inboxes,
    /// The threads that shake hands, if TLS is spoken.
    handshakers: Inboxes,
    /// With `-N`.
    napi_ids: Option<NapiIds>,
    paused: Option<Pause>,
}

#[derive(Debug)]
struct Pause {
    since: Instant,
    /// Who came when there was no permit, and by which listener: that somebody waits is known only by accepting.
    held: Option<(usize, Stream, Option<SocketAddr>)>,
    /// It is time to see whether what was lacking has come back. The pause ends when it has.
    probing: bool,
}

#[derive(Debug)]
struct Waiting {
    listener: Listener,
    /// Clients may be waiting.
    ready: bool,
    _permit: Permit,
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
    /// An acceptor for `listeners` that deals to `workers`, by way of `handshakers` with TLS, and what wakes it.
    pub(super) fn new(
        shared: Arc<Shared>,
        stop: Arc<Stop>,
        listeners: Vec<Listener>,
        workers: Inboxes,
        handshakers: Inboxes,
    ) -> io::Result<(Acceptor, Arc<Gate>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let gate = Arc::new(Gate::new(&shared, waker));
        let napi_ids = (shared.config.napi_ids > 0).then(|| NapiIds::new(shared.config.threads));
        let mut acceptor = Acceptor {
            napi_ids,
            shared,
            stop: Orders::new(stop),
            poll,
            gate: gate.clone(),
            records: Vec::new(),
            listeners: Vec::new(),
            workers,
            handshakers,
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
        let fd = listener.socket.as_raw_fd();
        log::debug!("<{fd} server listening ({})", listener.binding.name());
        self.records.push(ConnRecord::listener(&self.shared, fd, listener.socket.name()));
        self.listeners.push(Waiting { listener, ready: true, _permit: Permit::of_own(&self.gate) });
        Ok(())
    }

    /// Accepts until told to stop.
    pub(super) fn run(mut self) {
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
            Accepted::Client(stream, peer) if !self.gate.is_full() => self.admit(index, stream, peer),
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

    fn admit(&mut self, index: usize, stream: Stream, peer: Option<SocketAddr>) {
        self.resume();
        let listener = &self.listeners[index].listener;
        let fd = stream.as_raw_fd();
        log::debug!("<{fd} new {} client connection", client_kind(listener.binding));
        let record = ConnRecord::client(&self.shared, fd, peer, listener.socket.local_name(&stream));
        let permit = Permit::take(&self.gate);
        let protocol = first_protocol(listener.binding, &self.shared.config);
        let worker = self.napi_ids.as_mut().and_then(|ids| ids.worker(napi_id(fd), &self.shared.stats));
        let arrival = Arrival { stream, record, permit, protocol, tls: listener.tls, worker };
        match arrival.tls {
            Some(_) => self.handshakers.send(arrival, None),
            None => self.workers.send(arrival, worker),
        }
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
        self.gate.wake_on_return(true);
        self.paused = Some(Pause { since: Instant::now(), held, probing: false });
        stats.not_accepting.store(true, Ordering::Relaxed);
        stats.listen_disabled.fetch_add(1, Ordering::Relaxed);
        log::info!("too many open connections: not accepting until one closes");
    }

    /// Whether to try. After a pause, who came first is let in first.
    fn may_accept(&mut self) -> bool {
        if self.paused.is_some() && self.gate.is_full() {
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
        self.gate.wake_on_return(false);
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
            Stream::Unix(_) | Stream::Tls(_) => self.name(),
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

fn client_kind(binding: Binding) -> &'static str {
    match binding {
        Binding::Auto => "auto-negotiating",
        one => one.name(),
    }
}
