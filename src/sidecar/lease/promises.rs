//! Asking other nodes for promises, while etcd is away: a short connection to each server's public port.
//!
//! ```text
//!   ask ──> a thread for each node that is not being asked already
//!             replica promise <epoch> <secret> <ms>  ──>  OK  ──> Promised, from when it was asked
//! ```
//!
//! Invariant: a node that says a byte now and then is not waited for: login and answer have one end (`TimedSocket`), or it
//! would count as being asked for long, and not be asked again.
//!
//! Not here: what promises are good for (`keeper`).

use super::news::News;
use crate::sidecar::peer_login::PeerLogin;
use crate::sync::lock;
use crate::sys::cpu::time_since_boot;
use crate::tls::ClientFiles;
use crossbeam_channel::Sender;
use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Longest answer that is read.
const ANSWER_MAX: u64 = 256;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct PromiseRequest {
    pub epoch: u64,
    pub secret: String,
    /// For how long.
    pub lease: Duration,
}

/// See the module's head.
pub(super) struct Promises {
    news: Sender<News>,
    /// Nodes that are being asked.
    asked: Arc<Mutex<BTreeSet<String>>>,
    /// How they are spoken to, if by TLS.
    tls: Option<ClientFiles>,
    login: Option<PeerLogin>,
}

impl Promises {
    pub(super) fn new(news: Sender<News>, tls: Option<ClientFiles>, login: Option<PeerLogin>) -> Promises {
        Promises { news, asked: Arc::default(), tls, login }
    }

    /// Asks the server at this address of this node, unless that is under way.
    pub(super) fn ask(&self, node: &str, address: &str, request: &PromiseRequest) {
        if !lock(&self.asked).insert(node.to_owned()) {
            return;
        }
        let (news, asked, request) = (self.news.clone(), Arc::clone(&self.asked), request.clone());
        let (node, address) = (node.to_owned(), address.to_owned());
        let (tls, login) = (self.tls.clone(), self.login.clone());
        let name = node.clone();
        let body = move || {
            let at = time_since_boot();
            match promise(&address, tls.as_ref(), login.as_ref(), &request) {
                Ok(true) => _ = news.send(News::Promised { node: node.clone(), epoch: request.epoch, asked: at }),
                Ok(false) => log::debug!("{node} does not promise to wait"),
                Err(error) => log::debug!("{node} at {address} does not promise: {error}"),
            }
            lock(&asked).remove(&node);
        };
        if let Err(error) = std::thread::Builder::new().name("promise".into()).spawn(body) {
            log::warn!("cannot start a thread: {error}");
            lock(&self.asked).remove(&name);
        }
    }
}

/// Whether the server has promised.
fn promise(
    address: &str,
    tls: Option<&ClientFiles>,
    login: Option<&PeerLogin>,
    request: &PromiseRequest,
) -> io::Result<bool> {
    let patience = request.lease / 3;
    let found = address.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let socket = TcpStream::connect_timeout(&found, patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    match tls {
        None => ask_on(socket, login, request),
        Some(files) => ask_on(files.connect(address, socket)?, login, request),
    }
}

fn ask_on(socket: impl Read + Write, login: Option<&PeerLogin>, request: &PromiseRequest) -> io::Result<bool> {
    let mut socket = TimedSocket { socket, until: Instant::now() + request.lease / 3 };
    if let Some(login) = login {
        // The socket waits by itself, for as long as it may.
        login.log_in(&mut socket, |_| Err(ErrorKind::TimedOut.into()))?;
    }
    let PromiseRequest { epoch, secret, lease } = request;
    socket.write_all(format!("replica promise {epoch} {secret} {}\r\n", lease.as_millis()).as_bytes())?;
    let mut line = String::new();
    BufReader::new(socket.take(ANSWER_MAX)).read_line(&mut line)?;
    Ok(line.starts_with("OK"))
}

/// A socket that waits by itself, for the last time when this time has come.
struct TimedSocket<S> {
    socket: S,
    until: Instant,
}

impl<S> TimedSocket<S> {
    fn in_time(&mut self) -> io::Result<&mut S> {
        if Instant::now() < self.until { Ok(&mut self.socket) } else { Err(ErrorKind::TimedOut.into()) }
    }
}

impl<S: Read> Read for TimedSocket<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.in_time()?.read(buf)
    }
}

impl<S: Write> Write for TimedSocket<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.in_time()?.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.in_time()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says this, byte by byte.
    struct SlowSocket(io::Cursor<Vec<u8>>);

    impl Read for SlowSocket {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(Duration::from_millis(10));
            self.0.read(&mut buf[..1])
        }
    }

    impl Write for SlowSocket {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            Ok(buf.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_slow_answer_has_an_end() {
        let ask = |said: &[u8], lease| {
            let request = PromiseRequest { epoch: 1, secret: "s".to_owned(), lease };
            ask_on(SlowSocket(io::Cursor::new(said.to_vec())), None, &request)
        };
        assert!(ask(b"OK\r\n", Duration::from_secs(300)).unwrap());
        let error = ask(&[b'x'; 250], Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
