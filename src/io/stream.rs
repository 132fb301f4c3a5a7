//! A client's socket: TCP, Unix, or TLS over TCP behind one `Read + Write`. None of them blocks.
//!
//! Not here: when to read or write (`edge`), how sockets are made (`acceptor`).

use crate::sys::socket;
use crate::tls::ServerStream;
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};

/// A socket.
pub trait Socket: Read + Write {
    /// Asks the kernel to report input only when there are so many bytes.
    fn set_low_water(&mut self, bytes: u32);

    /// Asks the kernel to take no more output than so many bytes beyond what it can send.
    fn set_unsent_max(&mut self, bytes: u32);

    /// Whether the last read stopped before the socket was empty, because of what it had cost. It is to go on, after
    /// others.
    fn is_paused(&self) -> bool;

    /// Bytes of memory that it holds between two calls.
    fn held(&self) -> usize;
}

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// IPv4 or IPv6.
    Tcp(TcpStream),
    /// `-s`.
    Unix(UnixStream),
    /// `-Z`. The handshake is done.
    Tls(Box<ServerStream>),
}

impl Stream {
    /// Whether it is a TCP socket, with or without TLS. The idle timeout is for those only.
    pub fn is_tcp(&self) -> bool {
        !matches!(self, Stream::Unix(_))
    }

    /// Whether there is something to read that the poll does not report.
    pub fn has_input(&self) -> bool {
        matches!(self, Stream::Tls(socket) if socket.has_input())
    }

    /// How the other side has broken TLS, if it has.
    pub fn tls_fault(&self) -> Option<&str> {
        if let Stream::Tls(socket) = self { socket.fault() } else { None }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(socket) => socket,
            Stream::Unix(socket) => socket,
            Stream::Tls(socket) => socket.as_mut(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(socket) => socket.as_raw_fd(),
            Stream::Unix(socket) => socket.as_raw_fd(),
            Stream::Tls(socket) => socket.as_raw_fd(),
        }
    }
}

impl Socket for Stream {
    fn set_low_water(&mut self, bytes: u32) {
        // A kernel that does not support this reports earlier, which does no harm. Of TLS, some of those bytes may have
        // been read.
        if let Stream::Tcp(_) = self {
            let _ = socket::set_receive_low_water(self.as_raw_fd(), bytes);
        }
    }

    fn set_unsent_max(&mut self, bytes: u32) {
        // A Unix socket never takes more than its buffer holds, which does not grow.
        if self.is_tcp() {
            let _ = socket::set_unsent_max(self.as_raw_fd(), bytes);
        }
    }

    #[inline]
    fn is_paused(&self) -> bool {
        matches!(self, Stream::Tls(socket) if socket.is_paused())
    }

    #[inline]
    fn held(&self) -> usize {
        if let Stream::Tls(socket) = self { socket.held() } else { 0 }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.read(buf),
            Stream::Unix(socket) => socket.read(buf),
            Stream::Tls(socket) => socket.read(buf),
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.read_vectored(bufs),
            Stream::Unix(socket) => socket.read_vectored(bufs),
            Stream::Tls(socket) => socket.read_vectored(bufs),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.write(buf),
            Stream::Unix(socket) => socket.write(buf),
            Stream::Tls(socket) => socket.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(socket) => socket.write_vectored(bufs),
            Stream::Unix(socket) => socket.write_vectored(bufs),
            Stream::Tls(socket) => socket.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Stream {
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
