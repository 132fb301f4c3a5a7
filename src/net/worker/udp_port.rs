//! A UDP socket of a worker, and the answer that it is sending.
//!
//! Not here: when it has its turns (`datagrams`), what datagrams mean (`net::datagram`).

use crate::net::admission::{ConnRecord, Permit};
use crate::net::datagram::UdpAnswer;
use crate::stats::Counters;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// A UDP socket. The fields are dropped in this order, as a connection's are.
#[derive(Debug)]
pub(super) struct UdpPort {
    /// Its line in `stats conns`.
    pub record: ConnRecord,
    /// The socket.
    pub socket: UdpSocket,
    _permit: Permit,
    /// It is in the worker's ready queue.
    pub is_queued: bool,
    /// The poll reports when there is room.
    waits_for_room: bool,
    /// What is being sent.
    pub answer: UdpAnswer,
    /// To whom.
    pub peer: Option<SocketAddr>,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UdpSent {
    /// All of it is gone.
    All,
    /// The socket takes no more now.
    NoRoom,
    /// It is others' turn.
    Late,
}

impl UdpPort {
    /// With nothing to send.
    pub(super) fn new(socket: UdpSocket, record: ConnRecord, permit: Permit) -> UdpPort {
        let (answer, peer) = (UdpAnswer::default(), None);
        UdpPort { record, socket, _permit: permit, is_queued: false, waits_for_room: false, answer, peer }
    }

    /// Sends the answer, as far as there is room and time.
    pub(super) fn send(&mut self, counters: &Counters, until: Instant) -> UdpSent {
        let Some(peer) = self.peer else { return UdpSent::All };
        while let Some(bytes) = self.answer.next() {
            match self.socket.send_to(bytes, peer) {
                Ok(n) => counters.bytes_written.add(n as u64),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return UdpSent::NoRoom,
                // What an earlier answer met is told now, or this one cannot be sent. It is UDP: it may get lost.
                Err(error) => log::debug!("<{} a datagram is lost: {error}", self.socket.as_raw_fd()),
            }
            self.answer.advance();
            if self.answer.next().is_some() && Instant::now() > until {
                return UdpSent::Late;
            }
        }
        self.answer.clear();
        UdpSent::All
    }

    /// Has the poll report room, or not. A UDP socket that is watched for it reports each datagram that leaves.
    pub(super) fn watch_room(&mut self, wanted: bool, registry: &Registry, token: Token) {
        if std::mem::replace(&mut self.waits_for_room, wanted) == wanted {
            return;
        }
        let interest = if wanted { Interest::READABLE.add(Interest::WRITABLE) } else { Interest::READABLE };
        if let Err(error) = registry.reregister(&mut self.socket, token, interest) {
            log::error!("cannot watch a UDP socket: {error}");
        }
    }
}
