//! A socket that speaks TLS, to be read and written as one that does not.
//!
//! ```text
//!             socket ── read ──> this thread's buffer ── records ──> the reader's room
//!                                  │ ^                        └ more than fits ──> plain ──> the next read
//!   a record's beginning, or whole v │
//!   ones that wait for a turn    cipher
//!
//!   the writer's bytes ── records ──> this thread's buffer ── write ──> socket
//!                                               └ not taken ──> out ──> first of the next write
//! ```
//!
//! It keeps the rules that an edge-triggered socket has (`io/edge`), on which its users rely:
//! - a read that fills less than its room has emptied the socket; unless it has taken so many records apart that others
//!   are to have their turn ([`TlsStream::is_paused`]);
//! - a write that takes less than it was offered has filled it. Records that the socket did not take are kept, and what
//!   is in them counts as not written (`owed`): the writer offers it again, and it is counted when they have gone;
//! - an end that is not one of the socket (a close_notify, a broken record) shuts the socket's reading side, by which the
//!   poll reports it.
//!
//! Invariants: between calls it holds no memory but for what is not taken apart, for plain bytes that found no room, and
//! for records that the socket did not take; each of those is bounded ([`CIPHER_MAX`], [`READ_MOST`], [`OUT_MAX`]), and the sum
//! is told ([`TlsStream::held`]).
//!
//! Not here: which certificates are good (`trust`).

use super::room::{
    BUFFERS, Buffers, CIPHER_MAX, KeptBytes, OUT_MAX, OVERHEAD, Pieces, READ_LEAST, READ_MOST, Room, WRITE_MOST,
    end_of_records,
};
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus, WriteTraffic};
use rustls::{CommonState, HandshakeKind};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};

/// Why a session ends for which the system has no memory.
const NO_MEMORY: &str = "there is no memory for it";

/// The server's side of a connection.
pub type ServerStream = TlsStream<UnbufferedServerConnection>;

/// A side of a session.
pub trait TlsSession {
    /// What rustls knows of this side.
    type Data;

    /// Whether its reader can go on with a read that was cut short.
    const PAUSES: bool;

    /// Takes records apart, and says what to do next.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// How far it has come.
    fn state(&self) -> &CommonState;
}

impl TlsSession for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    const PAUSES: bool = true;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ServerConnectionData> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

impl TlsSession for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    const PAUSES: bool = false;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, ClientConnectionData> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }
}

/// See the module's head.
pub struct TlsStream<S: TlsSession> {
    socket: TcpStream,
    session: S,
    /// What is not taken apart: the beginning of a record, or whole ones for which there was no time.
    cipher: Vec<u8>,
    /// It begins with a whole one.
    has_record: bool,
    /// What was read and had no room.
    plain: KeptBytes,
    /// Records that the socket did not take.
    out: KeptBytes,
    /// Plain bytes in them that the writer will offer again.
    owed: usize,
    end: Option<TlsEnd>,
}

/// Nothing can be read any more.
#[derive(Debug)]
enum TlsEnd {
    /// In order.
    Closed,
    /// The other side broke the protocol.
    Failed(String),
}

impl<S: TlsSession> TlsStream<S> {
    /// Begins a session over a socket that does not block.
    pub fn new(socket: TcpStream, session: S) -> io::Result<TlsStream<S>> {
        let (cipher, plain, out) = (Vec::new(), KeptBytes::default(), KeptBytes::default());
        let mut stream = TlsStream { socket, session, cipher, has_record: false, plain, out, owed: 0, end: None };
        // A client speaks first.
        stream.take_apart(&mut [], &mut Room::default());
        Ok(stream)
    }

    /// Goes on with the handshake as far as the socket allows. Whether it is done. The error is for the log.
    pub fn handshake(&mut self) -> io::Result<bool> {
        loop {
            let has_gone = self.send_out()?;
            match &self.end {
                Some(TlsEnd::Closed) => return Err(ErrorKind::UnexpectedEof.into()),
                Some(TlsEnd::Failed(why)) => return Err(io::Error::new(ErrorKind::InvalidData, why.clone())),
                None if !has_gone => return Ok(false),
                None if !self.session.state().is_handshaking() => return Ok(true),
                None => {}
            }
            match self.receive(&mut Room::default()) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the handshake was a whole one, not that of a session that goes on.
    pub fn is_new_session(&self) -> bool {
        self.session.state().handshake_kind() != Some(HandshakeKind::Resumed)
    }

    /// Whether there is something to read that the poll does not know of.
    pub fn has_input(&self) -> bool {
        !self.plain.is_empty() || self.has_record || self.end.is_some()
    }

    /// How the other side has broken the protocol, if it has.
    pub fn fault(&self) -> Option<&str> {
        match &self.end {
            Some(TlsEnd::Failed(why)) => Some(why),
            _ => None,
        }
    }

    /// Whether the last read stopped because it had taken apart as many records as there is time for.
    pub fn is_paused(&self) -> bool {
        self.has_record
    }

    /// Bytes of memory that it holds, beside what rustls needs for each session.
    pub fn held(&self) -> usize {
        self.cipher.capacity() + self.plain.capacity() + self.out.capacity()
    }

    /// Says that nothing more is sent, and shuts the socket's writing side.
    pub fn end_writing(&mut self) -> io::Result<()> {
        self.say_end();
        self.socket.shutdown(Shutdown::Write)
    }

    fn say_end(&mut self) {
        if !self.out.is_empty() || self.session.state().is_handshaking() {
            return;
        }
        let mut notice = [0; OVERHEAD];
        if let Some(Ok(n)) = self.traffic().map(|mut traffic| traffic.queue_close_notify(&mut notice)) {
            let _ = self.socket.write(&notice[..n]);
        }
    }

    /// Reads and drops some of what has come, so that the kernel ends the connection in order, and the other side is
    /// told why.
    pub fn drain(&mut self) {
        BUFFERS.with_borrow_mut(|buffers| {
            let mut is_there = || matches!(self.socket.read(&mut buffers.incoming), Ok(1..));
            let _ = is_there() && is_there();
        });
    }

    /// Reads once from the socket, unless whole records wait, and takes apart what has come. Whether that has emptied the
    /// socket.
    fn receive(&mut self, room: &mut Room<'_, '_>) -> io::Result<bool> {
        BUFFERS.with_borrow_mut(|buffers| {
            let kept = self.cipher.len();
            let want = if self.has_record { 0 } else { room.left().clamp(READ_LEAST, READ_MOST) };
            let n = if want == 0 { 0 } else { self.socket.read(&mut buffers.incoming[kept..kept + want])? };
            if n == 0 && want > 0 {
                self.end = Some(TlsEnd::Closed);
                return Ok(true);
            }
            let input = &mut buffers.incoming[..kept + n];
            input[..kept].copy_from_slice(&self.cipher);
            let pause = self.pause_in(input, room);
            let mut used = self.take_apart(&mut input[..pause.unwrap_or(kept + n)], room);
            self.has_record = pause == Some(used) && self.end.is_none();
            if pause.is_some() && !self.has_record && self.end.is_none() {
                // A message of the protocol itself goes on behind it.
                used += self.take_apart(&mut input[used..], room);
            }
            self.keep_cipher(&input[used..]);
            if self.owed == 0 {
                self.send_out()?;
            }
            Ok(n < want)
        })
    }

    /// Where to stop in `input` because there is no time for more, if what follows can be kept. A handshake has threads of
    /// its own; and where rustls has a part of a message, its place and its bytes are no more what they were on the wire.
    fn pause_in(&self, input: &[u8], room: &Room<'_, '_>) -> Option<usize> {
        let has_part = !self.has_record && end_of_records(&self.cipher, 0).is_some();
        if !S::PAUSES || has_part || self.session.state().is_handshaking() {
            return None;
        }
        let most = room.records_most();
        let mut pause = end_of_records(input, most)?;
        while input.len() - pause > CIPHER_MAX {
            pause += end_of_records(&input[pause..], most)?;
        }
        Some(pause)
    }

    /// Takes records apart, as far as they are whole. How many bytes that were.
    fn take_apart(&mut self, input: &mut [u8], room: &mut Room<'_, '_>) -> usize {
        let (mut used, mut has_room) = (0, true);
        loop {
            let UnbufferedStatus { discard, state, .. } = self.session.process(&mut input[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        let n = room.put(record.payload);
                        has_room &= self.plain.push(&record.payload[n..]);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, &mut self.out),
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.note_end(TlsEnd::Closed),
                Err(error) if self.end.is_none() => self.note_end(TlsEnd::Failed(error.to_string())),
                _ => return used + discard,
            }
            used += discard;
            if !has_room {
                self.note_end(TlsEnd::Failed(NO_MEMORY.into()));
                return used;
            }
            // What follows a mistake is not looked at; but the alert that says so is sent.
            if self.fault().is_some() && !self.session.state().wants_write() {
                return used;
            }
        }
    }

    fn keep_cipher(&mut self, rest: &[u8]) {
        if rest.len() > CIPHER_MAX || self.out.len() > OUT_MAX {
            self.note_end(TlsEnd::Failed("it sends too much at once".into()));
        }
        self.cipher.clear();
        if rest.is_empty() || self.end.is_some() || rest.len() < self.cipher.capacity() / 2 {
            self.cipher = Vec::new();
        }
        if self.end.is_none() {
            match self.cipher.try_reserve_exact(rest.len()) {
                Ok(()) => self.cipher.extend_from_slice(rest),
                Err(_) => self.note_end(TlsEnd::Failed(NO_MEMORY.into())),
            }
        }
    }

    /// The poll reports an end of the socket only, so there has to be one.
    fn note_end(&mut self, end: TlsEnd) {
        self.end = Some(end);
        let _ = self.socket.shutdown(Shutdown::Read);
    }

    /// Writes what has waited. Whether all of it has gone.
    fn send_out(&mut self) -> io::Result<bool> {
        while !self.out.is_empty() {
            match self.socket.write(self.out.bytes()) {
                Ok(n) => self.out.advance(n),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Puts bytes of the protocol itself behind those that wait.
fn encode<D>(data: &mut EncodeTlsData<'_, D>, out: &mut KeptBytes) {
    if let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) {
        let room = out.grow(size.required_size);
        let encoded = data.encode(room);
        debug_assert!(encoded.is_ok(), "there is as much room as it asked for");
    }
}

impl<S: TlsSession> Read for TlsStream<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_vectored(&mut [IoSliceMut::new(buf)])
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut room = Room::new(bufs);
        let n = room.put(self.plain.bytes());
        self.plain.advance(n);
        while room.left() > 0 {
            match &self.end {
                Some(_) if room.filled() > 0 => break,
                Some(TlsEnd::Closed) => return Ok(0),
                Some(TlsEnd::Failed(why)) => return Err(io::Error::new(ErrorKind::InvalidData, why.clone())),
                None => {}
            }
            match self.receive(&mut room) {
                Ok(_) if self.has_record => break,
                Ok(true) if room.filled() > 0 => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Where it is an error, the next read has it, too.
                Err(_) if room.filled() > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if room.filled() == 0 && self.has_record {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(room.filled())
    }
}

impl<S: TlsSession> Write for TlsStream<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(buf)])
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if !self.send_out()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut pieces = Pieces::new(bufs);
        let mut done = pieces.skip(self.owed);
        self.owed -= done;
        if self.owed > 0 {
            return Ok(done);
        }
        BUFFERS.with_borrow_mut(|Buffers { outgoing, gathered, .. }| {
            loop {
                let (plain, records) = self.make_records(&mut pieces, gathered, outgoing)?;
                if plain == 0 {
                    return Ok(done);
                }
                let n = match self.socket.write(&outgoing[..records]) {
                    Ok(n) => n,
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                    Err(error) => return Err(error),
                };
                if n < records {
                    if !self.out.push(&outgoing[n..records]) {
                        // Its end of the stream is lost, and so is the rest.
                        self.note_end(TlsEnd::Failed(NO_MEMORY.into()));
                        return Err(ErrorKind::OutOfMemory.into());
                    }
                    self.owed = plain;
                    return if done > 0 { Ok(done) } else { Err(ErrorKind::WouldBlock.into()) };
                }
                done += plain;
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: TlsSession> TlsStream<S> {
    /// Makes records of the next bytes: how many, and how long the records are.
    fn make_records(
        &mut self,
        pieces: &mut Pieces<'_>,
        gathered: &mut [u8],
        outgoing: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        let (mut plain, mut records) = (0, 0);
        while plain < WRITE_MOST {
            let piece = pieces.next(gathered);
            if piece.is_empty() {
                break;
            }
            records += self.encrypt(piece, &mut outgoing[records..])?;
            plain += piece.len();
        }
        Ok((plain, records))
    }

    fn encrypt(&mut self, piece: &[u8], outgoing: &mut [u8]) -> io::Result<usize> {
        let mut traffic = self.traffic().ok_or(ErrorKind::BrokenPipe)?;
        traffic.encrypt(piece, outgoing).map_err(io::Error::other)
    }

    /// What encrypts, unless the session is broken. rustls has its place in what it was shown last, and wants to see the
    /// same again: the beginning of a record, or a message of a handshake that came in parts. Whole records that wait it has
    /// not been shown, and it would take them apart here.
    fn traffic(&mut self) -> Option<WriteTraffic<'_, S::Data>> {
        if self.fault().is_some() {
            return None;
        }
        // Everything else was done with when it was read.
        let shown = if self.has_record { &mut [] } else { &mut self.cipher[..] };
        match self.session.process(shown).state {
            Ok(ConnectionState::WriteTraffic(traffic)) => Some(traffic),
            _ => None,
        }
    }
}

impl<S: TlsSession> Drop for TlsStream<S> {
    /// Says that it ends, where that can be understood.
    fn drop(&mut self) {
        self.say_end();
    }
}

impl<S: TlsSession> AsRawFd for TlsStream<S> {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl<S: TlsSession> Source for TlsStream<S> {
    fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.socket.register(registry, token, interest)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        self.socket.reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.socket.deregister(registry)
    }
}

impl<S: TlsSession> fmt::Debug for TlsStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TlsStream { socket, owed, end, .. } = self;
        f.debug_struct("TlsStream")
            .field("socket", socket)
            .field("owed", owed)
            .field("end", end)
            .finish_non_exhaustive()
    }
}
