//! A socket under an edge-triggered poll: what "drained" and "writable again" mean.
//!
//! ```text
//! event says        until                                            so
//! readable          a read fills less than its room, or would block   nothing is read before the next event
//! writable          a write takes less than it was offered            nothing is written before the next event
//! ended             for ever                                          it is read until its end, however little comes
//! ```
//!
//! The poll tells each change once, and tells it to whoever asked. A socket that is always watched for room wakes its
//! thread whenever the other side has read something, so a socket may ask for that only where there was no room:
//! [`Edge::ask_for_room`].
//!
//! Not here: what is read and written, and what becomes of a socket that fails.

use mio::event::{Event, Source};
use mio::{Interest, Registry, Token};
use std::io::{self, ErrorKind, Read, Write};

/// What a socket is watched for that asks for room.
const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// A socket with what is known of its readiness. A new one is tried in both directions.
#[derive(Debug)]
pub struct Edge<S> {
    socket: S,
    is_readable: bool,
    is_writable: bool,
    /// The other side has closed, which is announced once, maybe before the last bytes are read.
    has_ended: bool,
    /// The poll reports when there is room for output again.
    reports_room: bool,
}

impl<S: Source + Read + Write> Edge<S> {
    /// Watches a socket, which must not block.
    pub fn new(mut socket: S, registry: &Registry, token: Token, watches_room: bool) -> io::Result<Edge<S>> {
        registry.register(&mut socket, token, if watches_room { BOTH } else { Interest::READABLE })?;
        Ok(Edge { socket, is_readable: true, is_writable: true, has_ended: false, reports_room: watches_room })
    }

    /// The socket itself.
    pub fn socket(&mut self) -> &mut S {
        &mut self.socket
    }

    /// Takes what the poll says.
    pub fn note(&mut self, event: &Event) {
        self.has_ended |= event.is_read_closed() || event.is_error();
        self.is_readable |= event.is_readable() || self.has_ended;
        self.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Whether there may be something to read.
    pub fn is_readable(&self) -> bool {
        self.is_readable
    }

    /// Whether the socket may take output.
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Reads once, into a `buffer` with room. None: there is nothing at present. 0: the end, after which nothing is read.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = until_not_interrupted(|| self.socket.read(buffer));
        self.is_readable = matches!(read, Ok(n) if n == buffer.len() || n > 0 && self.has_ended);
        none_if_blocked(read)
    }

    /// Calls `write`, which offers the socket so many bytes once. None: it takes nothing at present.
    pub fn write(
        &mut self,
        offered: usize,
        mut write: impl FnMut(&mut S) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let written = until_not_interrupted(|| write(&mut self.socket));
        self.is_writable = matches!(written, Ok(n) if n == offered);
        none_if_blocked(written)
    }

    /// Says that the socket took less than it was offered.
    pub fn was_full(&mut self) {
        self.is_writable = false;
    }

    /// Asks to be told of room if there was none, and no more if there was. What there is by now is told, too.
    pub fn ask_for_room(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        if self.is_writable == self.reports_room {
            let interest = if self.is_writable { Interest::READABLE } else { BOTH };
            registry.reregister(&mut self.socket, token, interest)?;
            self.reports_room = !self.is_writable;
        }
        Ok(())
    }
}

fn until_not_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn none_if_blocked(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
