//! What a worker has of each connection.
//!
//! Not here: what a connection does (`conn`).

use crate::command::Shared;
use crate::io::edge::Edge;
use crate::io::stream::Stream;
use crate::net::admission::{Arrival, ConnRecord, Permit};
use crate::net::conn::turn::CloseReason;
use crate::net::conn::{Connection, Holdings};
use mio::{Registry, Token};
use slab::Slab;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;

/// A connection and what its worker knows of it. The fields are dropped in this order: the record names the descriptor
/// that the connection closes, and the permit goes back to the acceptor when the descriptor is free as well.
#[derive(Debug)]
pub(super) struct Client {
    /// Its line in `stats conns`.
    pub record: ConnRecord,
    /// The connection.
    pub connection: Connection<Stream>,
    /// Its share of `-c`.
    pub permit: Permit,
    /// It is in one of the queues.
    pub queued: bool,
    /// What the connection held after its last turn.
    pub holdings: Holdings,
}

impl Client {
    /// Makes an arrival a client whose socket the poll reports as `token`.
    pub(super) fn new(arrival: Arrival, registry: &Registry, token: Token, now: u32) -> io::Result<Client> {
        let Arrival { stream, record, permit, protocol, .. } = arrival;
        // A TCP socket reports room only after it had none, so asking from the start saves a call per stuck reply. A
        // Unix socket reports it whenever its peer has read something, which would be one wake-up per reply.
        let is_tcp = stream.is_tcp();
        let socket = Edge::new(stream).watch(registry, token, is_tcp)?;
        let connection = Connection::new(socket, record.info(), protocol, now);
        Ok(Client { record, connection, permit, queued: false, holdings: Holdings::default() })
    }

    /// Has the poll report room from now on, if there is output that waits for it.
    pub(super) fn ask_for_room(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if !self.connection.is_stuck() || self.connection.waits_for_acks() {
            return Ok(());
        }
        self.connection.socket().ask_for_room(registry, token)
    }

    /// Whether nothing has come from it, or is taken by it, for more than `limit` seconds.
    pub(super) fn is_idle(&mut self, now: u32, limit: u32) -> bool {
        let may_be = !self.queued && !self.connection.waits_for_acks() && self.connection.socket().socket().is_tcp();
        may_be && self.connection.session().is_idle(now, limit, self.connection.is_stuck())
    }

    /// Counts how it ends, and tells those who watch.
    pub(super) fn tell_end(&mut self, shared: &Shared, reason: CloseReason) {
        if let (Some(tls), Some(why)) = (&shared.tls, self.connection.socket().socket_ref().tls_fault()) {
            tls.protocol_errors.fetch_add(1, Ordering::Relaxed);
            self.record.log_tls_error(shared, why);
        } else if let CloseReason::Lost(number) = reason {
            self.record.log_error(shared, &io::Error::from_raw_os_error(number));
        }
        self.record.log_close(shared, reason.name());
    }

    /// Whether it was to log in, and has taken too long.
    pub(super) fn is_late(&self, now: u32) -> bool {
        self.connection.session().is_late(now)
    }
}

/// Whether there is memory for one more. It is asked for before the slots grow, because to be refused it then would end the
/// program.
pub(super) fn may_grow(clients: &Slab<Client>) -> bool {
    // What `Slab` adds to a client is its tag.
    let bytes = 2 * clients.capacity() * (size_of::<Client>() + size_of::<usize>());
    clients.len() < clients.capacity() || Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// A connection that only receives log lines now. Dropped in this order, as [`Client`] is.
pub(super) struct Watched {
    _record: ConnRecord,
    stream: Stream,
    _permit: Permit,
}

impl Watched {
    /// Takes over what a client had.
    pub(super) fn new(record: ConnRecord, stream: Stream, permit: Permit) -> Watched {
        Watched { _record: record, stream, _permit: permit }
    }
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Watched {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
