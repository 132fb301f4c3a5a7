//! A worker's UDP sockets, and their turns.
//!
//! ```text
//!  -U: for each address one socket for every worker (one in all with a list of addresses): the kernel gives all datagrams
//!      of a client to the same one, and nobody is woken in vain
//!
//!  event ──> receive ── answered ──> send ── all gone ──> receive …   until nothing is there, or the turn is over
//!                                     ├── no room ──> wait for it; nothing is received meanwhile
//!                                     └── the turn is over ──> the rest in the next one
//! ```
//!
//! So what a flood of datagrams can take is a turn of [`TURN`], and what one datagram asks for, for each turn of the
//! worker's connections, and the memory of one answer. To send a megabyte of an answer takes several turns.
//!
//! Not here: sending (`udp_port`), what datagrams mean (`net::datagram`), which sockets there are (`net::listen`).

use super::udp_port::{UdpPort, UdpSent};
use super::{TURN, Worker};
use crate::command::Context;
use crate::net::admission::{ConnRecord, Gate, Permit};
use crate::net::datagram;
use mio::net::UdpSocket;
use mio::{Interest, Token};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The tokens of UDP sockets are counted down from this one.
const FIRST_KEY: usize = usize::MAX - 2;

impl Worker {
    /// Gives the worker a socket. Before it runs.
    pub(in crate::net) fn add_udp(&mut self, mut socket: UdpSocket, gate: &Arc<Gate>) -> io::Result<()> {
        let token = Token(FIRST_KEY - self.udp.len());
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        let fd = socket.as_raw_fd();
        log::debug!("<{fd} server listening (udp)");
        let record = ConnRecord::udp(&self.shared, fd, socket.local_addr()?);
        let permit = Permit::of_own(gate);
        self.udp.push(UdpPort::new(socket, record, permit));
        Ok(())
    }

    /// What is to be done for an event, or a place in the ready queue, that is no connection's.
    #[cold]
    pub(super) fn serve_udp(&mut self, key: usize, is_late: bool) {
        let index = FIRST_KEY.wrapping_sub(key);
        if index >= self.udp.len() {
            return;
        }
        if is_late {
            return self.queue_udp(key);
        }
        let token = Token(key);
        let end = Instant::now() + TURN;
        loop {
            let port = &mut self.udp[index];
            let sent = port.send(&self.counters, end);
            port.watch_room(sent == UdpSent::NoRoom, self.poll.registry(), token);
            match sent {
                UdpSent::NoRoom => return,
                UdpSent::All if Instant::now() <= end => {}
                UdpSent::All | UdpSent::Late => return self.queue_udp(key),
            }
            match port.socket.recv_from(&mut self.buffer) {
                Ok((n, peer)) => self.answer_datagram(index, n, peer),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // What an answer met, each once.
                Err(_) => {}
            }
        }
    }

    fn queue_udp(&mut self, key: usize) {
        let port = &mut self.udp[FIRST_KEY - key];
        if !std::mem::replace(&mut port.is_queued, true) {
            self.ready.push_back((key, self.meter.since()));
        }
    }

    /// Goes on with a socket of the ready queue.
    #[cold]
    pub(super) fn resume_udp(&mut self, key: usize) {
        let Some(port) = self.udp.get_mut(FIRST_KEY.wrapping_sub(key)) else { return };
        if std::mem::replace(&mut port.is_queued, false) {
            self.serve_udp(key, false);
        }
    }

    fn answer_datagram(&mut self, index: usize, len: usize, peer: SocketAddr) {
        let port = &mut self.udp[index];
        self.counters.bytes_read.add(len as u64);
        port.record.info().last_cmd.store(self.shared.clock.now(), Ordering::Relaxed);
        port.peer = Some(peer);
        let mut context = Context {
            shared: &self.shared,
            counters: &self.counters,
            fd: port.socket.as_raw_fd(),
            last_lsn: &self.last_lsn,
            source: None,
            replies_at: 0,
            resume: 0,
            is_checking: false,
            part: usize::MAX,
            may_be_long: false,
            joined_at_once: datagram::ANSWER_MAX,
            room: usize::MAX,
            reads_copy: false,
        };
        let waits = self.reply_hold.is_on();
        datagram::answer(&self.buffer[..len], waits, &mut context, &mut self.out, &mut port.answer);
        self.clean_output();
    }
}
