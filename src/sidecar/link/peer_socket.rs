//! The socket to a peer, with or without TLS.
//!
//! To connect, to shake hands and to log in blocks the link's thread, which has nothing else to do meanwhile.
//!
//! Not here: what is sent (`pump`), what a login is (`peer_login`), which certificates are good (`tls`).

use crate::sidecar::peer_login::PeerLogin;
use crate::tls::{ClientFiles, ClientStream};
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Longest wait for one address of a peer, and for a handshake.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// How soon the kernel notices that a peer's machine is gone, by data or by probes that are not answered.
const TCP_DEAD_AFTER: Duration = Duration::from_secs(15);
const TCP_PROBE_EVERY: Duration = Duration::from_secs(5);

/// A connected socket, which does not block.
#[derive(Debug)]
pub(super) enum PeerSocket {
    Plain(TcpStream),
    Tls(Box<ClientStream>),
}

impl PeerSocket {
    /// Connects to the first address of a peer that takes it, and logs in where that is asked for.
    pub(super) fn connect(peer: &str, tls: Option<&ClientFiles>, login: Option<&PeerLogin>) -> io::Result<PeerSocket> {
        let socket = connect(peer)?;
        let mut socket = match tls {
            None => PeerSocket::Plain(socket),
            Some(files) => {
                let mut stream = files.begin(peer, socket)?;
                shake_hands(&mut stream)?;
                PeerSocket::Tls(Box::new(stream))
            }
        };
        login.map_or(Ok(()), |login| socket.log_in(login))?;
        Ok(socket)
    }

    fn log_in(&mut self, login: &PeerLogin) -> io::Result<()> {
        let mut waiting = SocketNews::of(self)?;
        login.log_in(self, |_| waiting.wait("does not answer to the login"))?;
        waiting.poll.registry().deregister(self)
    }

    /// Whether there is something to read that a poll does not report.
    pub(super) fn has_input(&self) -> bool {
        matches!(self, PeerSocket::Tls(stream) if stream.has_input())
    }

    /// Says that nothing more is sent.
    pub(super) fn end_writing(&mut self) -> io::Result<()> {
        match self {
            PeerSocket::Plain(socket) => socket.shutdown(Shutdown::Write),
            PeerSocket::Tls(stream) => stream.end_writing(),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            PeerSocket::Plain(socket) => socket,
            PeerSocket::Tls(stream) => stream.as_mut(),
        }
    }
}

fn connect(peer: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "has no address");
    for address in peer.to_socket_addrs()? {
        match std::net::TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(socket) => return set_up(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn set_up(socket: std::net::TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let options = socket2::SockRef::from(&socket);
    options.set_tcp_user_timeout(Some(TCP_DEAD_AFTER))?;
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_PROBE_EVERY).with_interval(TCP_PROBE_EVERY);
    options.set_tcp_keepalive(&keepalive.with_retries(2))?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket))
}

fn shake_hands(stream: &mut ClientStream) -> io::Result<()> {
    let mut waiting = SocketNews::of(stream)?;
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("TLS: {error}"));
    while !stream.handshake().map_err(failed)? {
        waiting.wait("TLS: the other side does not shake hands")?;
    }
    waiting.poll.registry().deregister(stream)
}

/// Waits for news of a socket, for [`CONNECT_MAX`] in all.
struct SocketNews {
    poll: Poll,
    events: Events,
    end: Instant,
}

impl SocketNews {
    fn of(socket: &mut impl Source) -> io::Result<SocketNews> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(2));
        poll.registry().register(socket, Token(0), Interest::READABLE | Interest::WRITABLE)?;
        Ok(SocketNews { poll, events, end: Instant::now() + CONNECT_MAX })
    }

    fn wait(&mut self, too_long: &'static str) -> io::Result<()> {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(ErrorKind::TimedOut, too_long));
        }
        match self.poll.poll(&mut self.events, Some(left)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        }
    }
}

impl Read for PeerSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            PeerSocket::Plain(socket) => socket.read(buf),
            PeerSocket::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for PeerSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            PeerSocket::Plain(socket) => socket.write_vectored(bufs),
            PeerSocket::Tls(stream) => stream.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for PeerSocket {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.source().register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
