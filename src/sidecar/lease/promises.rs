//! Asking other nodes for promises, while etcd is away: a short connection to each server's public port.
//!
//! ```text
//!   ask ──> a thread for each node that is not being asked already
//!             replica promise <epoch> <secret> <ms>  ──>  OK  ──> Promised, from when it was asked
//! ```
//!
//! Invariant: a node that says a byte now and then is not waited for: to connect, to shake hands, to log in and the answer
//! have one end together (`TimedSocket`), or it would count as being asked for long, and not be asked again.
//!
//! Not here: what promises are good for (`keeper`).

use super::claim::right_until;
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
            let (epoch, until) = (request.epoch, right_until(time_since_boot(), request.lease));
            match promise(&address, tls.as_ref(), login.as_ref(), &request) {
                Ok(true) => _ = news.send(News::Promised { node: node.clone(), epoch, until }),
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
    let until = Instant::now() + request.lease / 3;
    let found = address.to_socket_addrs()?.next().ok_or(ErrorKind::NotFound)?;
    let socket = TcpStream::connect_timeout(&found, left(until)?)?;
    let socket = TimedSocket { socket, until };
    match tls {
        None => ask_on(socket, login, request),
        Some(files) => ask_on(files.connect(address, socket)?, login, request),
    }
}

fn ask_on(mut socket: impl Read + Write, login: Option<&PeerLogin>, request: &PromiseRequest) -> io::Result<bool> {
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

/// A socket that waits by itself, but not beyond this time.
struct TimedSocket {
    socket: TcpStream,
    until: Instant,
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for TimedSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(left(self.until)?))?;
        self.socket.read(buf)
    }
}

impl Write for TimedSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(left(self.until)?))?;
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    /// Asks a node that says this, byte by byte, and then nothing more.
    fn ask_slow(said: &'static [u8], tls: Option<&ClientFiles>, lease: Duration) -> io::Result<bool> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let node = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            // Who asks may have left.
            let said_all = said.iter().all(|byte| {
                thread::sleep(Duration::from_millis(10));
                socket.write_all(&[*byte]).is_ok()
            });
            assert!(!said_all || io::copy(&mut socket, &mut io::sink()).is_ok());
        });
        let done = promise(&address, tls, None, &PromiseRequest { epoch: 1, secret: "s".to_owned(), lease });
        node.join().unwrap();
        done
    }

    #[test]
    fn a_slow_answer_has_an_end() {
        assert!(ask_slow(b"OK\r\n", None, Duration::from_secs(300)).unwrap());
        let began = Instant::now();
        assert!(ask_slow(&[b'x'; 2000], None, Duration::from_millis(300)).is_err());
        assert!(began.elapsed() < Duration::from_secs(10), "it would say something for 20 s");
    }

    #[test]
    fn a_slow_handshake_has_an_end() {
        let folder = std::env::temp_dir().join(format!("twincache-promises-{}", std::process::id()));
        let made = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let made = made.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        std::fs::write(&folder, made.pem()).unwrap();
        let files = ClientFiles { ca: folder.display().to_string(), own: None };
        files.check().unwrap();
        // A record of a handshake with a long message.
        let mut said = vec![b'\x02'; 2000];
        said[..9].copy_from_slice(&[22, 3, 3, 0x3f, 0xff, 2, 0, 0x3f, 0xf0]);
        let began = Instant::now();
        assert!(ask_slow(said.leak(), Some(&files), Duration::from_millis(300)).is_err());
        std::fs::remove_file(&folder).unwrap();
        assert!(began.elapsed() < Duration::from_secs(10), "it would say something for 20 s");
    }
}
