//! The admission of a connection: its permit, its record, and its way from the acceptor to a worker.
//!
//! ```text
//!  acceptor ── Gate: fewer open than `-c`? ── yes ──> ConnRecord + Permit ──> Arrival ── Inbox ──> worker
//!                 ^                                                  │
//!                 └────── a Permit is dropped: one fewer, and the waiting acceptor is woken
//! ```
//!
//! A connection's [`ConnRecord`] is its line in `stats conns`; its [`Permit`] is its share of `-c`. Both end in `Drop`.
//!
//! Invariant: only the acceptor takes permits, so it can test the count and then add to it without a lock.
//!
//! Not here: when to accept, pause or refuse (`acceptor`), what a worker does with an arrival (`worker`).

use crate::command::Shared;
use crate::config::{Binding, Config};
use crate::io::stream::Stream;
use crate::protocol::Protocol;
use crate::stats::ConnInfo;
use crate::sync::lock;
use crate::tls::ClientCerts;
use crate::watch::Streams;
use crossbeam_channel::{Receiver, Sender};
use mio::Waker;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

/// Index of `conn_listening` in `stats::CONN_STATES`.
const STATE_LISTENING: u8 = 0;

/// Index of `conn_read`.
const STATE_READ: u8 = 1;

/// Counts the open connections against `-c`, and wakes the acceptor.
#[derive(Debug)]
pub(super) struct Gate {
    limit: u64,
    /// Permits that are out.
    open: AtomicU64,
    /// The acceptor waits for a permit to come back.
    is_full: AtomicBool,
    waker: Waker,
    /// For the statistics. Weak, because watchers hold a [`Permit`] and are themselves held by what is shared.
    shared: Weak<Shared>,
}

impl Gate {
    /// A gate without connections, for the acceptor that `waker` wakes.
    pub(super) fn new(shared: &Arc<Shared>, waker: Waker) -> Gate {
        Gate {
            limit: shared.config.max_conns.into(),
            open: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            waker,
            shared: Arc::downgrade(shared),
        }
    }

    /// Whether all of `-c` is taken.
    pub(super) fn is_full(&self) -> bool {
        self.open.load(Ordering::SeqCst) >= self.limit
    }

    /// Whether the acceptor is to be woken by the next permit that comes back.
    pub(super) fn wake_on_return(&self, on: bool) {
        self.is_full.store(on, Ordering::SeqCst);
    }

    /// Makes the acceptor look around.
    pub(super) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake the acceptor: {error}");
        }
    }
}

/// A connection's share of `-c`, in which the server's own sockets have no part: its listeners, and those of UDP.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    /// 0 for one of the server's own.
    share: u64,
}

impl Permit {
    /// Takes a share. The caller has asked [`Gate::is_full`].
    pub(super) fn take(gate: &Arc<Gate>) -> Permit {
        Permit::new(gate, 1)
    }

    /// That of a socket of the server's own, which takes no share but is counted by the statistics.
    pub(super) fn of_own(gate: &Arc<Gate>) -> Permit {
        Permit::new(gate, 0)
    }

    fn new(gate: &Arc<Gate>, share: u64) -> Permit {
        gate.open.fetch_add(share, Ordering::SeqCst);
        if let Some(shared) = gate.shared.upgrade() {
            let stats = &shared.stats;
            let open = stats.curr_conns.fetch_add(1, Ordering::Relaxed) + 1;
            stats.total_conns.fetch_add(1, Ordering::Relaxed);
            stats.conn_structs.fetch_max(open, Ordering::Relaxed);
        }
        Permit { gate: gate.clone(), share }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(shared) = self.gate.shared.upgrade() {
            shared.stats.curr_conns.fetch_sub(1, Ordering::Relaxed);
        }
        self.gate.open.fetch_sub(self.share, Ordering::SeqCst);
        if self.gate.is_full.load(Ordering::SeqCst) {
            self.gate.wake();
        }
    }
}

/// A connection's line in `stats conns`. Where its descriptor is closed first, the number may be another one's by then, whose
/// line stays.
#[derive(Debug)]
pub(super) struct ConnRecord {
    shared: Weak<Shared>,
    info: Arc<ConnInfo>,
    /// None for a listener.
    peer: Option<Remote>,
}

/// The other side; None for a Unix socket.
#[derive(Clone, Copy, Debug)]
struct Remote(Option<SocketAddr>);

impl ConnRecord {
    /// The line of a listening socket.
    pub(super) fn listener(shared: &Arc<Shared>, fd: i32, addr: String) -> ConnRecord {
        ConnRecord::new(shared, fd, addr, None, None)
    }

    /// The line of a client that came from `peer` by way of the listener at `listen_addr`.
    pub(super) fn client(shared: &Arc<Shared>, fd: i32, peer: Option<SocketAddr>, listen_addr: String) -> ConnRecord {
        let addr = peer.map_or_else(|| "?:<AF 0>".into(), tcp_name);
        let record = ConnRecord::new(shared, fd, addr, Some(listen_addr), Some(Remote(peer)));
        if let Some((rip, rport, transport)) = record.watched_peer(shared) {
            shared.watch.conn_new(&rip, rport, transport, fd);
        }
        record
    }

    /// The line of a UDP socket.
    pub(super) fn udp(shared: &Arc<Shared>, fd: i32, address: SocketAddr) -> ConnRecord {
        let record = ConnRecord::new(shared, fd, tcp_name(address).replacen("tcp", "udp", 1), None, None);
        record.info.state.store(STATE_READ, Ordering::Relaxed);
        record
    }

    fn new(
        shared: &Arc<Shared>,
        fd: i32,
        addr: String,
        listen_addr: Option<String>,
        peer: Option<Remote>,
    ) -> ConnRecord {
        let state = AtomicU8::new(if peer.is_some() { STATE_READ } else { STATE_LISTENING });
        let last_cmd = AtomicU32::new(shared.clock.now());
        let info = Arc::new(ConnInfo { fd, addr, listen_addr, state, last_cmd });
        lock(&shared.stats.conns).insert(fd, info.clone());
        ConnRecord { shared: Arc::downgrade(shared), info, peer }
    }

    /// What `stats conns` prints.
    pub(super) fn info(&self) -> Arc<ConnInfo> {
        self.info.clone()
    }

    /// Tells those who watch that the network has lost the connection.
    pub(super) fn log_error(&self, shared: &Shared, error: &io::Error) {
        if shared.watch.wants(Streams::CONNEVENTS) {
            shared.watch.conn_error(&reason(error), self.info.fd);
        }
    }

    /// Tells those who watch that its TLS has failed.
    pub(super) fn log_tls_error(&self, shared: &Shared, why: &str) {
        if shared.watch.wants(Streams::CONNEVENTS) {
            shared.watch.tls_error(why, self.info.fd);
        }
    }

    /// Tells those who watch that the connection ends, and why.
    pub(super) fn log_close(&self, shared: &Shared, reason: &str) {
        log::debug!("<{} connection closed.", self.info.fd);
        if let Some((rip, rport, transport)) = self.watched_peer(shared) {
            shared.watch.conn_close(&rip, rport, transport, reason, self.info.fd);
        }
    }

    /// Address, port and transport of the client as `watch connevents` prints them, if somebody watches.
    fn watched_peer(&self, shared: &Shared) -> Option<(String, u16, &'static str)> {
        let peer = self.peer.filter(|_| shared.watch.wants(Streams::CONNEVENTS))?;
        Some(match peer.0 {
            Some(address) => (address.ip().to_string(), address.port(), "tcp"),
            None => ("unix".into(), 0, "local"),
        })
    }
}

impl Drop for ConnRecord {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut conns = lock(&shared.stats.conns);
        // Where the socket was closed before, the number may be another one's.
        if conns.get(&self.info.fd).is_some_and(|info| Arc::ptr_eq(info, &self.info)) {
            conns.remove(&self.info.fd);
        }
    }
}

/// The system's own words, without the number that Rust adds.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

/// An address as `stats conns` prints it.
pub(super) fn tcp_name(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => format!("tcp:{}:{}", v4.ip(), v4.port()),
        SocketAddr::V6(v6) => format!("tcp6:[{}]:{}", v6.ip(), v6.port()),
    }
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The socket.
    pub stream: Stream,
    /// Its line in `stats conns`.
    pub record: ConnRecord,
    /// Its share of `-c`.
    pub permit: Permit,
    /// What it speaks, if its first byte does not decide that.
    pub protocol: Option<Protocol>,
    /// It has to shake hands first.
    pub tls: Option<ClientCerts>,
    /// Who is to serve it, if not whose turn it is.
    pub worker: Option<usize>,
}

/// What a new connection speaks. Where clients must log in, it is the protocol in which they can.
pub(super) fn first_protocol(binding: Binding, config: &Config) -> Option<Protocol> {
    match binding {
        _ if config.sasl => Some(Protocol::BinaryLogin { is_started: false }),
        _ if config.auth_file.is_some() => Some(Protocol::AsciiLogin),
        Binding::Auto => None,
        Binding::Ascii => Some(Protocol::Ascii),
        Binding::Binary => Some(Protocol::Binary),
    }
}

/// Where connections are left for one thread: a worker, or one that shakes hands.
#[derive(Clone, Debug)]
pub(super) struct Inbox {
    sender: Sender<Arrival>,
    waker: Arc<Waker>,
}

impl Inbox {
    /// An inbox for the thread that `waker` wakes, and the end where it takes its arrivals out.
    pub(super) fn new(waker: Arc<Waker>) -> (Inbox, Receiver<Arrival>) {
        let (sender, arrivals) = crossbeam_channel::unbounded();
        (Inbox { sender, waker }, arrivals)
    }

    /// Hands over a connection. The channel needs no bound of its own: what is in it holds permits.
    pub(super) fn send(&self, arrival: Arrival) {
        // A worker that is gone has been stopped; the connection is closed with it.
        if self.sender.send(arrival).is_ok()
            && let Err(error) = self.waker.wake()
        {
            log::error!("cannot wake a worker: {error}");
        }
    }
}

/// The inboxes of threads that are dealt to in turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Inboxes {
    inboxes: Vec<Inbox>,
    next: usize,
}

impl Inboxes {
    /// To be dealt to from the first on.
    pub(super) fn new(inboxes: Vec<Inbox>) -> Inboxes {
        Inboxes { inboxes, next: 0 }
    }

    /// The same for somebody else who deals, from this number on.
    pub(super) fn beginning_at(&self, next: usize) -> Inboxes {
        Inboxes { inboxes: self.inboxes.clone(), next }
    }

    /// Hands a connection to this one, or to whose turn it is. There is somebody.
    pub(super) fn send(&mut self, arrival: Arrival, to: Option<usize>) {
        if let Some(to) = to {
            return self.inboxes[to].send(arrival);
        }
        self.inboxes[self.next].send(arrival);
        self.next = (self.next + 1) % self.inboxes.len();
    }
}
