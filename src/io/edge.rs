//! A socket under an edge-triggered poll: what "drained" and "writable again" mean.
//!
//! ```text
//! event says   until                                                  so
//! readable     a read fills less than its room, or would block         nothing is read before the next event
//! writable     a write takes less than it was offered                  nothing is written before the next event
//! hangup       for ever                                                it is read until its end, however little comes
//! ```
//!
//! The poll tells each change once. A Unix socket that is watched for room wakes its
//! thread whenever the other side has read something, so it asks for that only where there was no room:
//! [`Edge::ask_for_room`]. A TCP socket tells of room only after it had none, and is watched for it from the start.
//!
//! Not here: what is read and written, and what becomes of a socket that fails.

use mio::event::{Event, Source};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read};

/// The events that are reported for a socket that asks for room.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// What an event says of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Readiness {
    /// There may be bytes, or the end, to read.
    pub readable: bool,
    /// There may be room for output.
    pub writable: bool,
    /// The other side has closed or broken the connection. The poll reports that once, perhaps before the last bytes are
    /// read: only a read that finds the end has seen everything.
    pub hangup: bool,
}

impl From<&Event> for Readiness {
    /// An error shows at the next read or write, so it counts as both.
    fn from(event: &Event) -> Readiness {
        let hangup = event.is_read_closed() || event.is_error();
        Readiness {
            readable: event.is_readable() || hangup,
            writable: event.is_writable() || event.is_write_closed() || event.is_error(),
            hangup,
        }
    }
}

/// A socket with what is known of its readiness.
#[derive(Debug)]
pub struct Edge<S> {
    socket: S,
    ready: Readiness,
    /// The poll reports when there is room for output again.
    reports_room: bool,
}

impl<S> Edge<S> {
    /// A new socket, which must not block. It counts as writable; the first event tells whether it has input.
    pub fn new(socket: S) -> Edge<S> {
        Edge { socket, ready: Readiness { writable: true, ..Readiness::default() }, reports_room: false }
    }

    /// The socket itself.
    #[inline]
    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// The socket itself, to be asked.
    #[inline]
    pub fn socket_ref(&self) -> &S {
        &self.socket
    }

    /// Gives the socket away.
    pub fn into_socket(self) -> S {
        self.socket
    }

    /// Notes what an event of the poll says.
    #[inline]
    pub fn note(&mut self, news: Readiness) {
        self.ready.hangup |= news.hangup;
        self.ready.readable |= news.readable;
        self.ready.writable |= news.writable;
    }

    /// Whether there may be something to read.
    #[inline]
    pub fn is_readable(&self) -> bool {
        self.ready.readable
    }

    /// Whether the socket may take output.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.ready.writable
    }

    /// Reads once by `call`, which offers the socket so much room. None: there is nothing to read now. 0: the end.
    #[inline(always)]
    pub fn read_by(&mut self, room: usize, call: impl FnMut(&mut S) -> io::Result<usize>) -> io::Result<Option<usize>> {
        let read = self.once(call);
        self.ready.readable = matches!(read, Ok(Some(n)) if n == room || n > 0 && self.ready.hangup);
        read
    }

    /// Writes once by `call`, which offers the socket so many bytes. None: the socket takes nothing now.
    #[inline(always)]
    pub fn write_by(
        &mut self,
        offered: usize,
        call: impl FnMut(&mut S) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let written = self.once(call);
        self.ready.writable = matches!(written, Ok(Some(n)) if n == offered);
        written
    }

    #[inline(always)]
    fn once(&mut self, mut call: impl FnMut(&mut S) -> io::Result<usize>) -> io::Result<Option<usize>> {
        loop {
            match call(&mut self.socket) {
                Ok(n) => return Ok(Some(n)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl<S: Read> Edge<S> {
    /// Reads once into a `buffer` that has room. None: there is nothing to read now. 0: the end.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.read_by(buffer.len(), |socket| socket.read(buffer))
    }
}

impl<S: Source> Edge<S> {
    /// Has the poll watch the socket: for room from the start on, or only when that is asked for.
    pub fn watch(mut self, registry: &Registry, token: Token, for_room: bool) -> io::Result<Edge<S>> {
        registry.register(&mut self.socket, token, if for_room { BOTH } else { Interest::READABLE })?;
        self.reports_room = for_room;
        Ok(self)
    }

    /// Asks the poll to report room if there was none, and to stop if there was. Room that appeared meanwhile is
    /// reported, too.
    pub fn ask_for_room(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.ready.writable == self.reports_room {
            let interest = if self.ready.writable { Interest::READABLE } else { BOTH };
            registry.reregister(&mut self.socket, token, interest)?;
            self.reports_room = !self.ready.writable;
        }
        Ok(())
    }
}
