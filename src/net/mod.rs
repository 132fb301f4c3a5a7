//! Sockets, event loops and connections.
//!
//! ```text
//!  Server ── acceptor thread ── listeners
//!    │            │ channel + Waker, with TLS by way of handshake threads
//!    └───── worker threads ── connections
//!  Control ── control thread ── control socket, if there is one
//! ```
//!
//! Invariant: nothing here is process-wide; a test may run several servers.
//!
//! Not here: what bytes mean (`protocol`), what requests do (`command`), signals (`main`).

mod acceptor;
mod admission;
mod conn;
mod control;
mod datagram;
mod handshake;
mod listen;
mod napi;
mod places;
mod reply_hold;
mod stop;
#[cfg(test)]
pub(crate) mod tests;
mod voice;
mod worker;

pub use control::Control;
pub use listen::{StartError, check_addresses};

use crate::command::Shared;
use acceptor::Acceptor;
use admission::{Gate, Inboxes};
use handshake::Handshaker;
use listen::{ListenSocket, Listener, UdpListener};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use stop::{Stop, StopMode};
use worker::Worker;

/// A running server: its listening sockets are open, its threads serve. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    udp_addresses: Vec<SocketAddr>,
    stop: Arc<Stop>,
    gate: Arc<Gate>,
    wakers: Vec<Arc<mio::Waker>>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Opens the listening sockets of `shared.config` and starts the acceptor and the workers.
    ///
    /// The `shutdown` command reaches the caller as a signal: SIGINT, or SIGUSR1 when graceful.
    pub fn start(shared: Arc<Shared>) -> Result<Server, StartError> {
        let listeners = listen::listen(&shared.config)?;
        let udp = listen::listen_udp(&shared.config)?;
        Server::spawn(&shared, listeners, udp).map_err(|error| StartError {
            message: format!("cannot start the server's threads: {}", admission::reason(&error)),
            exit_code: listen::EXIT_OSERR,
        })
    }

    /// The bound TCP addresses, in the order they were asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The address of each UDP socket. Several may share one.
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        &self.udp_addresses
    }

    /// Asks every thread to show that its event loop turns; idle ones are woken for it.
    pub fn ask_for_turns(&self) {
        self.stop.ask();
        self.wake();
    }

    /// Whether every thread's event loop has turned since [`Server::ask_for_turns`].
    pub fn all_turned(&self) -> bool {
        self.stop.all_turned()
    }

    /// Closes the listening sockets, lets the batch that each worker runs just now end, and closes all
    /// connections. When graceful, requests that have been read are run first, and a client that is slow to read has
    /// a second to take its replies. Returns when all threads have ended.
    pub fn stop(mut self, graceful: bool) {
        self.halt(if graceful { StopMode::Graceful } else { StopMode::Now });
    }

    fn spawn(shared: &Arc<Shared>, listeners: Vec<Listener>, udp: Vec<UdpListener>) -> io::Result<Server> {
        let addresses = listeners.iter().filter_map(|listener| tcp_address(&listener.socket)).collect();
        let udp_addresses = udp.iter().map(|udp| udp.socket.local_addr()).collect::<io::Result<_>>()?;
        let stop = Arc::new(Stop::default());
        let mut workers = Vec::new();
        let mut inboxes = Vec::new();
        for _ in 0..shared.config.threads.max(1) {
            let (worker, inbox) = Worker::new(shared.clone(), stop.clone())?;
            workers.push(worker);
            inboxes.push(inbox);
        }
        let mut wakers: Vec<_> = workers.iter().map(Worker::waker).collect();
        let alarms: Vec<_> = workers.iter().map(Worker::ack_waker).collect();
        shared.store.journal().acks().listen(move |safe| alarms.iter().for_each(|ack_waker| ack_waker.on_safe(safe)));
        let voices: Vec<_> = workers.iter().filter_map(Worker::voice_state).collect();
        let woken = wakers.clone();
        shared.store.on_silence(move || {
            woken.iter().for_each(|waker| wake(waker));
            voices.iter().for_each(|voice| voice.wait_for_silence());
        });
        let inboxes = Inboxes::new(inboxes);
        let (handshakers, handshake_inboxes) = handshake::threads(shared, &stop, &inboxes)?;
        wakers.extend(handshakers.iter().map(Handshaker::waker));
        let (acceptor, gate) = Acceptor::new(shared.clone(), stop.clone(), listeners, inboxes, handshake_inboxes)?;
        for UdpListener { socket, worker } in udp {
            workers[worker].add_udp(socket, &gate)?;
        }
        // From here on a failure stops, by drop, the threads that run already.
        let mut server = Server { addresses, udp_addresses, stop, gate, wakers, threads: Vec::new() };
        for (number, worker) in workers.into_iter().enumerate() {
            server.thread(format!("worker-{number}"), move || worker.run())?;
        }
        for (number, handshaker) in handshakers.into_iter().enumerate() {
            server.thread(format!("handshake-{number}"), move || handshaker.run())?;
        }
        server.thread("acceptor".into(), move || acceptor.run())?;
        Ok(server)
    }

    fn thread(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name).spawn(body)?);
        Ok(())
    }

    fn halt(&mut self, mode: StopMode) {
        self.stop.set(mode);
        self.wake();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of the server had panicked");
            }
        }
    }

    fn wake(&self) {
        self.gate.wake();
        self.wakers.iter().for_each(|waker| wake(waker));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.halt(StopMode::Now);
        }
    }
}

fn wake(worker: &mio::Waker) {
    if let Err(error) = worker.wake() {
        log::error!("cannot wake a worker: {error}");
    }
}

fn tcp_address(socket: &ListenSocket) -> Option<SocketAddr> {
    match socket {
        ListenSocket::Tcp(_, address) => Some(*address),
        ListenSocket::Unix(..) => None,
    }
}
