//! One connection: read, run, write, in order and within bounds.
//!
//! ```text
//!   socket ── read ──> worker's buffer ── Session ──> worker's output ── write ──> socket
//!                        │        ^                      │        ^
//!           not a whole  v        │         not taken,  v        │ room again,
//!             request   Leftover ─┘         or waits   Pending ──┘ or replicas have it (`reply_hold`)
//! ```
//!
//! A turn is: read; run what was read; write; and so on until the socket has no more, takes no more, or the turn's quota
//! is spent. Who is to write or to receive something large while others wait has to get in line for that first, and then
//! moves a slice of it at a time. A connection that rests between two requests is read before its turn ([`Connection::read_early`]), and what
//! it has sent is run with what others have sent ([`Connection::run`]). If that is all, its replies are written
//! ([`Connection::send`]) and the turn is over; else it goes on ([`Connection::turn`]). Input that is run lies in the
//! worker's read buffers or, after a turn that was cut short, in the connection's [`Leftover`].
//!
//! Invariants:
//! - nothing is read and no request is run while output is stuck or waits for replicas (`pending`);
//! - the worker's output is empty before and after a turn;
//! - no memory is held by a connection that waits for a request, but for what its socket has of one (TLS).
//!
//! Not here: what the bytes of a request do to a connection (`session`), when a turn comes (`worker`).

pub(super) mod buffer;
mod chat;
pub(super) mod long_line;
pub(super) mod other_end;
pub(super) mod session;
pub(super) mod turn;
mod upload;
mod values;

use super::reply_hold::{PendingAck, Refused};
use super::voice::Voice;
use crate::command::batch::Batch;
use crate::io::edge::{Edge, Readiness};
use crate::io::stream::Socket;
use crate::protocol::Protocol;
use crate::stats::event_loop::LoopTimer;
use crate::stats::latency::Withheld;
use crate::stats::{ConnInfo, Counters};
use crate::store::Store;
use buffer::{Cursor, Leftover, Pending, Sent, write_bytes};
use session::{Session, Step};
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use turn::{After, CloseReason, LARGE, Quota, TurnContext};
use upload::UploadRooms;

/// Bytes of the worker's shared read buffer. A batch of a thousand short requests fits, and it stays in a core's
/// second-level cache beside what the requests touch.
pub(super) const READ_BUFFER: usize = 64 << 10;

/// Least room for a read behind what is left over. With less, the new bytes are appended to the leftover.
const READ_MIN: usize = READ_BUFFER / 4;

/// Bytes read where another large value is expected: its line and little of the value, so that the rest is read to
/// where it will be stored and not copied there: 5 % less for a set of 100 KiB.
const READ_LINE: usize = 1 << 10;

/// A large value of which at least [`LOW_WATER_MIN`] bytes are missing is read when this much of it has come, not as it
/// trickles in. The kernel keeps it meanwhile: less than the store keeps for the value. A set of 1 MiB takes 5 reads
/// and 3 polls instead of 9 and 6, and 0.87 of the CPU time.
const LOW_WATER: usize = 256 << 10;
const LOW_WATER_MIN: usize = 64 << 10;

/// Unread input dropped before closing, so that the kernel ends the connection in order and does not throw away
/// replies on their way. More than this in flight, and the client is not listening anyway.
const FAREWELL_MAX: usize = 256 << 10;

/// The kernel takes 2.5 MB for each client that does not read, of memory that all connections of the machine share. It may
/// do so for this many of them. With more, each has [`UNSENT_MAX`] bytes beyond what can be sent: a thousand who ask for
/// large values then delay others by 16 ms instead of 2 s, and take 180 MB instead of 1.7 GB. Who reads fast needs the larger
/// buffers: with smaller ones from the start, a get of 1 MB costs 1.5 times the CPU time.
const UNREAD_MAX: u64 = 64;
const UNSENT_MAX: u32 = 128 << 10;

/// As the system has it.
const UNSENT_ANY: u32 = 0;

/// Memory that a connection holds between its turns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Holdings {
    /// For input.
    pub input: usize,
    /// For replies that are not read.
    pub output: usize,
}

/// A client's connection over the socket `S`.
#[derive(Debug)]
pub(super) struct Connection<S> {
    socket: Edge<S>,
    session: Session,
    leftover: Leftover,
    pending: Option<Box<Pending>>,
    /// A change that is not safe yet and had no reply, or one that has gone.
    pending_ack: Option<PendingAck>,
    /// Bytes from which on the socket reports that there is something to read.
    low_water: u32,
    /// The kernel takes [`UNSENT_MAX`] for it.
    is_narrow: bool,
}

impl<S: Socket> Connection<S> {
    /// A connection that has just been accepted. `now` is the clock's second.
    pub(super) fn new(socket: Edge<S>, info: Arc<ConnInfo>, protocol: Option<Protocol>, now: u32) -> Connection<S> {
        Connection {
            socket,
            session: Session::new(info, protocol, now),
            leftover: Leftover::default(),
            pending: None,
            pending_ack: None,
            low_water: 1,
            is_narrow: false,
        }
    }

    /// The socket.
    #[inline]
    pub(super) fn socket(&mut self) -> &mut Edge<S> {
        &mut self.socket
    }

    /// Gives the socket away.
    pub(super) fn into_socket(self) -> S {
        self.socket.into_socket()
    }

    /// What it is in the middle of.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether there is output that cannot leave for now.
    pub(super) fn is_stuck(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether that is because it waits for replicas.
    pub(super) fn waits_for_acks(&self) -> bool {
        self.waits_for().is_some()
    }

    /// What it waits for, if it does.
    pub(super) fn waits_for(&self) -> Option<PendingAck> {
        self.pending.as_ref().and_then(|pending| pending.waits_for())
    }

    /// How many replies to changes wait for replicas.
    pub(super) fn waiting_replies(&self) -> u64 {
        self.pending.as_ref().map_or(0, |pending| pending.waiting_replies())
    }

    /// Keeps what was measured of the output that waits.
    pub(super) fn withhold(&mut self, withheld: Option<Withheld>) {
        self.pending.iter_mut().for_each(|pending| pending.withheld = withheld);
    }

    /// What was measured of it.
    pub(super) fn withheld(&self) -> Option<Withheld> {
        self.pending.as_ref().and_then(|pending| pending.withheld)
    }

    /// When the requests were read that wait for a turn, if any do.
    #[inline]
    pub(super) fn input_read_at(&self) -> Option<Instant> {
        self.has_input().then(|| self.leftover.read_at()).flatten()
    }

    /// Lets output go that was held: replies to changes of which `is_missing` become errors.
    pub(super) fn release_but(&mut self, is_missing: impl Fn(u64) -> bool) -> Refused {
        let refused = self.pending.as_mut().map_or_else(Refused::default, |pending| pending.refuse(is_missing));
        if refused.cuts_get {
            self.session.cut_get();
        }
        refused
    }

    /// Bytes of memory held for input and output.
    #[inline]
    pub(super) fn holdings(&self) -> Holdings {
        let input = self.leftover.capacity() + self.session.held();
        let of_socket = self.socket.socket_ref().held();
        match self.is_stuck() {
            true => Holdings { input, output: self.held_output() + of_socket },
            false => Holdings { input: input + of_socket, output: 0 },
        }
    }

    /// One more than what it is, so that who is stuck with large values alone holds something.
    #[cold]
    fn held_output(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| 1 + pending.capacity())
    }

    /// Whether values stay where they are because its client takes them too slowly.
    pub(super) fn blocks_values(&self, now: u32) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.blocks_values(now))
    }

    /// Bytes of memory held for input and output.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        let Holdings { input, output } = self.holdings();
        input + output
    }

    /// Whether it rests between two requests and may have something to read: then [`Connection::read_early`] reads it, and
    /// its turn begins with [`Connection::run`]. Who holds something may have to go while others are answered.
    #[inline]
    pub(super) fn can_read_early(&self) -> bool {
        let is_at_rest = self.pending.is_none() && self.leftover.is_empty() && self.session.is_at_rest();
        self.socket.is_readable() && is_at_rest && self.socket.socket_ref().held() == 0
    }

    /// Reads for its next turn. 0 is: nothing there, and no turn needed unless it is still readable.
    #[inline(always)]
    pub(super) fn read_early(&mut self, room: &mut [u8]) -> Result<usize, CloseReason> {
        let len = if self.session.expects_upload() { room.len().min(READ_LINE) } else { room.len() };
        read_once(&mut self.socket, &mut room[..len])
    }

    /// Bytes that it would move in its next turn without a bound: replies to be written, or a large value to be read.
    pub(super) fn in_hand(&self) -> usize {
        match &self.pending {
            Some(pending) if self.socket.is_writable() && pending.waits_for().is_none() => pending.len(),
            Some(_) => 0,
            None => self.session.large_missing(),
        }
    }

    /// Keeps what was read early for a later turn.
    pub(super) fn keep_input(&mut self, input: &[u8], counters: &Counters, meter: &LoopTimer) {
        counters.bytes_read.add(input.len() as u64);
        self.leftover.keep(input, 0, meter);
    }

    /// Cuts up to `most` requests of what was read early, as far as the batch has room, to be run a little later.
    #[inline(always)]
    pub(super) fn cut<'a>(&mut self, input: &'a [u8], most: usize, batch: &mut Batch<'a>, store: &Store) {
        self.session.cut(input, most, batch, store);
    }

    /// Begins a turn with some requests of a batch, which are the first of what was read early. What is left of that, with
    /// which [`Connection::turn`] goes on; None if the turn is over when [`Connection::send`] has sent the replies.
    #[inline]
    pub(super) fn run<'a>(
        &mut self,
        batch: &Batch<'_>,
        range: Range<usize>,
        input: &'a [u8],
        turn: &mut TurnContext<'_>,
        quota: &mut Quota,
    ) -> Option<&'a [u8]> {
        self.begin_turn(turn);
        turn.counters.bytes_read.add(input.len() as u64);
        quota.take_bytes(input.len());
        match self.session.run(batch, range, input, turn, quota) {
            Step::Took(used) if used < input.len() || !self.is_answered(turn) => Some(&input[used..]),
            Step::Took(_) => None,
            Step::Ends(used) => {
                self.leftover.keep(&input[used..], self.session.want(), turn.meter);
                Some(&[])
            }
        }
    }

    /// Whether it rests again, and its replies are bytes that need not wait.
    fn is_answered(&self, turn: &TurnContext<'_>) -> bool {
        self.session.is_at_rest() && turn.out.values.is_empty() && !turn.reply_hold.has_pending()
    }

    /// Ends a turn that consisted of [`Connection::run`] by writing its replies. None, nearly always: all were taken, and
    /// it waits for the next request.
    #[inline]
    pub(super) fn send(
        &mut self,
        replies: &[u8],
        counters: &Counters,
        voice: Option<&Voice>,
        now: u32,
    ) -> Option<After> {
        if !replies.is_empty() {
            let voice = self.session.other_end().needed_voice(voice);
            let (sent, n) = write_bytes(&mut self.socket, replies, voice);
            counters.bytes_written.add(n as u64);
            match sent {
                Sent::All => {}
                Sent::Blocked | Sent::Paused => return Some(self.keep_replies(&replies[n..], now)),
                Sent::Broken | Sent::Withheld => return Some(After::Close(CloseReason::Error)),
            }
        }
        self.session.end_turn(false);
        self.socket.is_readable().then_some(After::Again)
    }

    #[cold]
    fn keep_replies(&mut self, rest: &[u8], now: u32) -> After {
        let Some(pending) = Pending::of(rest, now) else { return After::Close(CloseReason::Error) };
        self.pending = Some(Box::new(pending));
        self.session.end_turn(true);
        After::Wait
    }

    /// Begins a turn.
    #[inline]
    pub(super) fn begin_turn(&mut self, turn: &mut TurnContext<'_>) {
        self.session.begin_turn(turn.now);
        if turn.reply_hold.is_on() {
            turn.waits_for_nobody = self.waits_for_nobody(turn);
            turn.reply_hold.begin_turn(self.pending_ack.take());
        }
    }

    fn waits_for_nobody(&self, turn: &TurnContext<'_>) -> bool {
        turn.voice.is_some() && self.session.other_end.is_feeder()
    }

    /// Goes on with a turn that has begun, and does what can be done now. `input` is the rest of what was read early, and
    /// `buffer` is the worker's, of [`READ_BUFFER`] bytes.
    pub(super) fn turn(
        &mut self,
        input: &[u8],
        buffer: &mut [u8],
        turn: &mut TurnContext<'_>,
        quota: &mut Quota,
    ) -> After {
        // A batch may have begun this turn in a context of its own.
        turn.waits_for_nobody = turn.reply_hold.is_on() && self.waits_for_nobody(turn);
        if !input.is_empty() {
            let used = self.session.consume(input, turn, quota);
            self.leftover.keep(&input[used..], self.session.want(), turn.meter);
        }
        let after = loop {
            match self.flush(turn, quota) {
                Sent::All => {}
                Sent::Paused => break After::Large,
                Sent::Blocked => break After::Wait,
                Sent::Broken => break After::Close(CloseReason::Error),
                Sent::Withheld => break After::WaitForAcks,
            }
            if let Some(end) = self.session.end() {
                break end;
            }
            if self.leftover.is_lost() {
                break After::Close(CloseReason::Error);
            }
            if !self.has_work() {
                break After::Wait;
            }
            if quota.is_spent() {
                turn.counters.conn_yields.add(u64::from(quota.requests == 0));
                break quota.after(self.session.large_missing() > 0);
            }
            if let Err(reason) = self.advance(buffer, turn, quota) {
                break After::Close(reason);
            }
        };
        self.session.end_turn(self.is_stuck());
        if turn.reply_hold.is_on() {
            self.pending_ack = turn.reply_hold.end_turn();
        }
        self.set_low_water();
        after
    }

    #[inline]
    fn set_low_water(&mut self) {
        let missing = self.session.upload_missing();
        let bytes = if missing < LOW_WATER_MIN { 1 } else { missing.min(LOW_WATER) as u32 };
        if bytes != self.low_water {
            self.low_water = bytes;
            self.socket.socket().set_low_water(bytes);
        }
    }

    /// Writes what is stuck, as far as the socket takes it.
    pub(super) fn flush_pending(&mut self, counters: &Counters, voice: Option<&Voice>, now: u32) -> Sent {
        self.write_pending(counters, voice, now, usize::MAX).0
    }

    /// The same of so many bytes at most; and how many went.
    fn write_pending(&mut self, counters: &Counters, voice: Option<&Voice>, now: u32, most: usize) -> (Sent, usize) {
        let Some(pending) = &mut self.pending else { return (Sent::All, 0) };
        if pending.waits_for().is_some() {
            return (Sent::Blocked, 0);
        }
        let (sent, n) = pending.write(&mut self.socket, self.session.other_end().needed_voice(voice), now, most);
        counters.bytes_written.add(n as u64);
        if sent == Sent::All {
            self.pending = None;
        }
        (sent, n)
    }

    /// Reads and drops what has come in already, so that closing is in order. See [`FAREWELL_MAX`].
    pub(super) fn farewell(&mut self, buffer: &mut [u8]) {
        let mut dropped = 0;
        while self.socket.is_readable() && dropped < FAREWELL_MAX {
            match read_once(&mut self.socket, buffer) {
                Ok(n @ 1..) => dropped += n,
                Ok(0) | Err(_) => return,
            }
        }
    }

    fn flush(&mut self, turn: &mut TurnContext<'_>, quota: &mut Quota) -> Sent {
        if let Some(pending) = &self.pending {
            if pending.len() >= LARGE {
                self.narrow(turn);
            }
            let (sent, n) = match self.socket.is_writable() {
                true => self.write_pending(turn.counters, turn.voice, turn.now, quota.slice),
                false => (Sent::Blocked, 0),
            };
            quota.take_written(n);
            if sent == Sent::All {
                // Only now has the client all replies that its next request may have waited for.
                self.session.restart_idle(turn.now);
                self.widen(turn);
            }
            return sent;
        }
        if turn.reply_hold.has_pending() && self.hold(turn) {
            return Sent::Withheld;
        }
        if turn.out.is_empty() {
            return Sent::All;
        }
        let (mut cursor, len) = (Cursor::default(), turn.out.len());
        if len >= LARGE {
            self.narrow(turn);
        }
        let voice = self.session.other_end().needed_voice(turn.voice);
        // Where memory is short the kernel is offered all at once: what it takes is not held here.
        let (sent, n) = match len > quota.room && !turn.is_tight {
            true => (Sent::Paused, 0),
            false => cursor.write(&mut self.socket, turn.out, voice, quota.slice),
        };
        turn.counters.bytes_written.add(n as u64);
        quota.take_written(n);
        if matches!(sent, Sent::Blocked | Sent::Paused) {
            let Some(pending) = Pending::take(turn.out, cursor, turn.now) else { return Sent::Broken };
            self.pending = Some(Box::new(pending));
        } else {
            turn.out.bytes.clear();
            turn.out.values.clear();
        }
        sent
    }

    /// Bounds what the kernel takes of large replies, if many clients do not read theirs.
    fn narrow(&mut self, turn: &TurnContext<'_>) {
        if !self.is_narrow && turn.shared.stats.held_outputs.load(Ordering::Relaxed) >= UNREAD_MAX {
            self.is_narrow = true;
            self.socket.socket().set_unsent_max(UNSENT_MAX);
        }
    }

    /// The client has taken all that waited, and few do not read theirs: it may have large buffers again.
    fn widen(&mut self, turn: &TurnContext<'_>) {
        if self.is_narrow && turn.shared.stats.held_outputs.load(Ordering::Relaxed) < UNREAD_MAX {
            self.is_narrow = false;
            self.socket.socket().set_unsent_max(UNSENT_ANY);
        }
    }

    /// Holds the output if it has to wait.
    #[cold]
    fn hold(&mut self, turn: &mut TurnContext<'_>) -> bool {
        let Some(pending_ack) = turn.reply_hold.take_pending(turn.shared.store.journal().acks(), turn.out) else {
            return false;
        };
        self.pending = Some(Box::new(Pending::hold(turn.out, turn.reply_hold, pending_ack, turn.now)));
        true
    }

    fn has_work(&self) -> bool {
        self.socket.is_readable() || self.has_input() || self.session.is_at_work()
    }

    fn has_input(&self) -> bool {
        !self.leftover.is_empty() && self.leftover.len() >= self.session.want()
    }

    /// One piece of work that is not writing. The error is: close at once.
    fn advance(&mut self, buffer: &mut [u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> Result<(), CloseReason> {
        if self.session.is_at_work() {
            let used = self.session.work(self.leftover.bytes(), turn, quota);
            self.leftover.advance(used);
            return Ok(());
        }
        if self.has_input() {
            self.run_leftover(turn, quota);
            return Ok(());
        }
        if self.session.waits_for_memory() {
            quota.wait_for_memory(());
            return Ok(());
        }
        let read = match self.session.upload_rooms(quota.bytes, turn) {
            Some(rooms) => {
                let len = rooms.len;
                let n = read_value(&mut self.socket, rooms, buffer)?;
                self.run_upload(&buffer[..n.saturating_sub(len)], n.min(len), turn, quota);
                Ok(())
            }
            None => self.read_input(buffer, turn, quota),
        };
        if self.socket.socket_ref().is_paused() { quota.put_off(read) } else { read }
    }

    fn run_leftover(&mut self, turn: &mut TurnContext<'_>, quota: &mut Quota) {
        let mut input = std::mem::take(&mut self.leftover);
        let used = self.session.consume(input.bytes(), turn, quota);
        input.advance(used);
        self.leftover = input;
    }

    /// Notes that a large value got `filled` bytes, and runs what followed it.
    fn run_upload(&mut self, behind: &[u8], filled: usize, turn: &mut TurnContext<'_>, quota: &mut Quota) {
        let n = filled + behind.len();
        turn.counters.bytes_read.add(n as u64);
        quota.take_bytes(n);
        self.session.upload_filled(filled);
        let used = self.session.consume(behind, turn, quota);
        self.leftover.keep(&behind[used..], self.session.want(), turn.meter);
    }

    /// Reads behind what is left over and runs both.
    fn read_input(
        &mut self,
        buffer: &mut [u8],
        turn: &mut TurnContext<'_>,
        quota: &mut Quota,
    ) -> Result<(), CloseReason> {
        let kept = self.leftover.len();
        // A leftover too long for the buffer, a get line, grows where it is.
        let start = if kept + READ_MIN > buffer.len() { 0 } else { kept };
        let end = if self.session.expects_upload() { start + READ_LINE } else { buffer.len() };
        let n = read_once(&mut self.socket, &mut buffer[start..end])?;
        turn.counters.bytes_read.add(n as u64);
        quota.take_bytes(n);
        if start < kept || kept + n < self.session.want() {
            self.leftover.append(&buffer[start..start + n], turn.meter);
        } else if n > 0 {
            buffer[..kept].copy_from_slice(self.leftover.bytes());
            let used = self.session.consume(&buffer[..kept + n], turn, quota);
            self.leftover.keep(&buffer[used..kept + n], self.session.want(), turn.meter);
        }
        Ok(())
    }
}

/// One read of a large value, and of what follows it into `buffer`; 0 is: nothing there, or not yet.
fn read_value<'a>(
    socket: &mut Edge<impl Socket>,
    rooms: UploadRooms<'a>,
    buffer: &'a mut [u8],
) -> Result<usize, CloseReason> {
    let UploadRooms { mut slices, mut count, mut len, are_last } = rooms;
    if are_last {
        len += buffer.len();
        slices[count] = IoSliceMut::new(buffer);
        count += 1;
    }
    read_by(socket, len, |stream| stream.read_vectored(&mut slices[..count]))
}

/// One read; 0 is: nothing there, or not yet.
#[inline(always)]
fn read_once(socket: &mut Edge<impl Socket>, room: &mut [u8]) -> Result<usize, CloseReason> {
    read_by(socket, room.len(), |stream| stream.read(room))
}

#[inline(always)]
fn read_by<S: Socket>(
    socket: &mut Edge<S>,
    room: usize,
    call: impl FnMut(&mut S) -> std::io::Result<usize>,
) -> Result<usize, CloseReason> {
    let read = socket.read_by(room, call);
    if socket.socket_ref().is_paused() {
        socket.note(Readiness { readable: true, ..Readiness::default() });
    }
    match read {
        Ok(Some(0)) => Err(CloseReason::Normal),
        Ok(n) => Ok(n.unwrap_or(0)),
        Err(error) => Err(error.raw_os_error().map_or(CloseReason::Error, CloseReason::Lost)),
    }
}
