//! A worker: one thread, one poll, its connections.
//!
//! ```text
//!  acceptor ── channel + Waker ──> inbox ─┐
//!                                         v
//!  poll ──> event ──> connection slot ──> wave ──> turn ──> wait for the next event
//!                          ^                        └─────> ready queue, when its quota or the turn's time was spent
//!                          └────── ready queue ───────┘
//! ```
//!
//! Events are edge-triggered, so a connection that stops early, or whose event came late in a long turn, is remembered
//! in the ready queue; poll does not block while that is not empty, and the next turn begins with it. Of several events,
//! those of connections that rest between two requests are read at once, and answered with the rest of their wave
//! (`wave`). It ends before a connection that is in the middle of something, whose turn may be a long one. One read
//! buffer and one output serve all connections of the worker, one turn after the other. A connection whose output waits
//! for replicas is in the queue of the held, by which the worker finds what an acknowledgement releases and what has
//! waited for too long without looking at the others.
//!
//! Invariants: a connection is in the ready queue at most once; the output is empty between turns, so that
//! nobody ever gets what was meant for another.
//!
//! Not here: what a turn does (`conn`), who may connect (`acceptor`), what comes with a connection (`admission`).

pub mod reply_hold;
#[cfg(test)]
mod tests;
mod wave;

use super::admission::{Arrival, ConnRecord, Inbox, Permit};
use super::conn::buffer::Sent;
use super::conn::session::OUTPUT_HIGH;
use super::conn::{After, Ahead, Connection, Lent, READ_BUFFER, Readiness, Reason};
use super::stop::{Stop, StopMode};
use crate::command;
use crate::command::{Lone, Output, Shared, Wanted};
use crate::io::stream::Stream;
use crate::journal::acks::LastLsn;
use crate::stats::Counters;
use crate::stats::event_loop::LoopTimer;
use crate::watch::Streams;
use crossbeam_channel::Receiver;
use mio::event::Event;
use mio::{Events, Interest, Poll, Token, Waker};
use reply_hold::{Alarm, Ledger, Owed, Queue};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use wave::{MEMBERS, Members, TOGETHER, Wave};

/// Events taken from the kernel at a time: two waves of single requests, 0.6 ms at 10 us each.
const EVENTS: usize = 64;

/// Connections that are welcomed in a turn: 2 us each.
const ARRIVALS: usize = 64;

/// A turn that is longer than this at a look at the clock, after each wave and each connection that had its turn by
/// itself, leaves the rest for the next one.
const TURN: Duration = Duration::from_micros(400);

/// A wave goes on for longer, up to this: it is made of requests that are answered in 10 us each, unless they ask for
/// large values, or many of them.
const WAVE: Duration = Duration::from_micros(600);

/// Replies of a wave are written when there are so many bytes of them, while they are in the first-level cache.
const SEND_AT: usize = 8 << 10;

/// How long a turn goes on with those whose replies wait no more; the next poll does not wait while there are others.
const RELEASES: Duration = Duration::from_micros(200);

/// Connections the idle sweep looks at between two polls: a few tens of microseconds.
const SWEEP_SLICE: usize = 4096;

/// How often idle connections are looked for; `idle_timeout` counts whole seconds.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Memory the shared output keeps after a reply that was larger.
const OUTPUT_KEEP: usize = 2 * OUTPUT_HIGH;

/// The inbox's token; connections have their slot number.
const WAKER: Token = Token(usize::MAX - 1);

const BOTH: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// One worker's state.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    meter: LoopTimer,
    stop: Arc<Stop>,
    poll: Poll,
    arrivals: Receiver<Arrival>,
    waker: Arc<Waker>,
    clients: Slab<Client>,
    /// Slots, and since when they may have waited.
    ready: VecDeque<(usize, Instant)>,
    buffer: Box<[u8]>,
    wave: Wave,
    out: Output,
    /// Memory that connections hold for long lines, as of their last turns.
    long_lines: usize,
    sweep: Sweep,
    ledger: Ledger,
    /// The last change that this worker's requests have journalled, and what it was when the journal's readers were
    /// last woken.
    last_lsn: LastLsn,
    told_lsn: u64,
    held: Queue,
    alarm: Arc<Alarm>,
}

/// The fields are dropped in this order: the record names the descriptor that the connection closes, and the
/// permit goes back to the acceptor when the descriptor is free as well.
#[derive(Debug)]
struct Client {
    record: ConnRecord,
    connection: Connection<Stream>,
    permit: Permit,
    queued: bool,
    /// The poll reports when the socket takes output again.
    reports_room: bool,
}

#[derive(Debug)]
struct Sweep {
    due: Instant,
    /// The next slot to look at while a sweep is on.
    at: Option<usize>,
}

impl Worker {
    /// Makes a worker, not yet running, and where to leave connections for it.
    pub fn new(shared: Arc<Shared>, stop: Arc<Stop>) -> io::Result<(Worker, Inbox)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let alarm = Arc::new(Alarm::new(waker.clone()));
        let (inbox, arrivals) = Inbox::new(waker.clone());
        shared.stats.read_buf_bytes.fetch_add(2 * READ_BUFFER as u64, Ordering::Relaxed);
        let ledger = Ledger::new(shared.config.ack_timeout);
        let worker = Worker {
            counters: shared.stats.worker(),
            meter: shared.stats.event_loops.timer(),
            shared,
            stop,
            poll,
            arrivals,
            waker,
            clients: Slab::new(),
            ready: VecDeque::new(),
            buffer: vec![0; READ_BUFFER].into(),
            wave: Wave::new(),
            out: Output::default(),
            long_lines: 0,
            sweep: Sweep { due: Instant::now() + SWEEP_EVERY, at: None },
            ledger,
            last_lsn: LastLsn::default(),
            told_lsn: 0,
            held: Queue::default(),
            alarm,
        };
        Ok((worker, inbox))
    }

    /// What makes the worker look at its inbox and its stop flag.
    pub fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// What wakes the worker when a change is safe that its connections wait for.
    pub fn alarm(&self) -> Arc<Alarm> {
        self.alarm.clone()
    }

    /// Serves until told to stop.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "poll failed: {error}");
            }
            if self.stop.mode() == StopMode::Now {
                self.flush_pending();
                return;
            }
            let count = events.iter().count();
            let began = self.meter.begin(timeout != Some(Duration::ZERO), count == EVENTS);
            self.ledger.begin(self.shared.store.safety(), began);
            let in_company = count + self.ready.len() > 1;
            self.run_ready(in_company);
            for event in &events {
                self.handle(event, in_company);
            }
            self.answer_wave();
            self.release_held();
            self.sweep();
            self.wake_readers();
            self.meter.end();
            if self.stop.mode() == StopMode::Graceful {
                return self.finish();
            }
        }
    }

    /// Wakes whoever reads the journal, if a change was appended.
    #[inline]
    fn wake_readers(&mut self) {
        let last = self.last_lsn.get();
        if last != std::mem::replace(&mut self.told_lsn, last) {
            self.shared.store.journal().nudge();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.sweep.at.is_some() {
            return Some(Duration::ZERO);
        }
        let sweeps = self.shared.config.idle_timeout > 0 && !self.clients.is_empty();
        let sweep = sweeps.then(|| self.sweep.due.saturating_duration_since(Instant::now()));
        if self.held.is_empty() { sweep } else { self.held_timeout(sweep) }
    }

    /// For how long to sleep at most for those who are held, with the alarm set.
    #[cold]
    fn held_timeout(&self, sweep: Option<Duration>) -> Option<Duration> {
        let first = self.held.first();
        self.alarm.set(first);
        let Owed { lsn, deadline } = first?;
        // Whoever advances it from now on sees the alarm.
        let is_safe = self.shared.store.safety().safe_lsn() >= lsn;
        let left = if is_safe { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        Some(sweep.map_or(left, |sweep| sweep.min(left)))
    }

    /// An event that comes `in_company` may wait for the others; alone there is nothing to gain from that.
    fn handle(&mut self, event: &Event, in_company: bool) {
        if event.token() == WAKER {
            return self.welcome();
        }
        let key = event.token().0;
        // An earlier event of the same round may have closed it.
        let Some(client) = self.clients.get_mut(key) else { return };
        client.connection.notify(readiness(event));
        if client.queued {
            return;
        }
        if self.meter.elapsed() > TURN {
            return self.enqueue(key, self.meter.since());
        }
        self.serve(key, in_company);
    }

    /// Gives a connection its turn, or lets it read for it.
    fn serve(&mut self, key: usize, in_company: bool) {
        self.meter.count(1);
        if !in_company {
            return self.turn(key, None);
        }
        let client = &mut self.clients[key];
        if !client.connection.can_read_ahead() {
            // Its turn may be a long one. Who was read before comes first.
            self.answer_wave();
            self.turn(key, None);
            return self.meter.look();
        }
        let read = client.connection.read_ahead(self.wave.room());
        if read == Ok(0) {
            return;
        }
        self.wave.join(key, read);
        if self.wave.is_full() {
            self.answer_wave();
            self.meter.look();
        }
    }

    /// Gives those a turn who have read ahead, as far as there is time: the others keep what they have read.
    #[inline]
    fn answer_wave(&mut self) {
        if self.wave.len() > 0 {
            self.answer_members();
        }
    }

    /// Runs some plain requests, then writes their replies: the one finds the server's code in the cache, the other the
    /// kernel's. What the next ones need is fetched meanwhile. Whoever asks for something else has a turn in their midst.
    fn answer_members(&mut self) {
        let mut wave = std::mem::take(&mut self.wave);
        let (members, replies) = wave.members();
        let (mut lones, mut wanted) = ([None; MEMBERS], [None; MEMBERS]);
        self.look_at(members, &mut lones, &mut wanted);
        let (lones, wanted) = (&lones[..members.len()], &wanted[..members.len()]);
        let (mut at, mut fetched) = (0, 0);
        while at < members.len() && self.meter.elapsed() <= WAVE {
            let soon = members.len().min(at + 2 * TOGETHER);
            command::fetch_items(&wanted[fetched..soon], &self.shared.store);
            fetched = soon;
            let end = members.len().min(at + TOGETHER);
            let (end, ends) = self.run_lones(members, lones, at..end, replies);
            let mut start = 0;
            for (i, next) in (at..end).zip(ends) {
                let (key, ahead) = members.get(i);
                match lones[i] {
                    Some(_) => self.send(key, &replies.bytes[start..next]),
                    None => self.turn_in_wave(key, ahead),
                }
                start = next;
            }
            replies.bytes.clear();
            at = end;
            self.meter.tick();
        }
        for i in at..members.len() {
            let (key, ahead) = members.get(i);
            self.turn_in_wave(key, ahead);
        }
        wave.clear();
        self.wave = wave;
    }

    /// Finds what can be run as a plain request, and starts to fetch the buckets of all.
    #[inline]
    fn look_at<'a>(
        &self,
        members: Members<'a>,
        lones: &mut [Option<Lone<'a>>; MEMBERS],
        wanted: &mut [Option<Wanted>; MEMBERS],
    ) {
        let (shared, takes) = (&*self.shared, !self.ledger.is_on());
        for i in 0..members.len() {
            let (key, Ok(input)) = members.get(i) else { continue };
            let session = self.clients[key].connection.session();
            if takes {
                lones[i] = session.lone(input, shared);
            }
            wanted[i] = match &lones[i] {
                Some(lone) => Some(lone.wanted()),
                None => session.wanted(input, shared),
            };
            wanted[i].inspect(|wanted| wanted.bucket(&shared.store));
        }
    }

    /// Runs those of these that are plain, until there is much to write. Where it ended, and the end of each's replies.
    #[inline]
    fn run_lones(
        &mut self,
        members: Members<'_>,
        lones: &[Option<Lone<'_>>],
        range: Range<usize>,
        replies: &mut Output,
    ) -> (usize, [usize; TOGETHER]) {
        let mut ends = [0; TOGETHER];
        for (i, end) in range.clone().zip(&mut ends) {
            if let Some(lone) = &lones[i] {
                self.run_lone(members.get(i), lone, replies);
            }
            *end = replies.bytes.len();
            if replies.bytes.len() >= SEND_AT || self.meter.elapsed() > WAVE {
                return (i + 1, ends);
            }
        }
        (range.end, ends)
    }

    #[inline]
    fn run_lone(&mut self, (key, ahead): (usize, Ahead<'_>), lone: &Lone<'_>, replies: &mut Output) {
        let start = replies.bytes.len();
        let mut lent = Lent {
            shared: &self.shared,
            counters: &self.counters,
            out: replies,
            now: self.shared.clock.now(),
            long_lines: self.long_lines,
            ledger: &mut self.ledger,
            last_lsn: &self.last_lsn,
        };
        self.clients[key].connection.run_lone(ahead.map_or(0, <[u8]>::len), lone, &mut lent);
        if !replies.values.is_empty() {
            // Not to be copied: it leaves by itself.
            replies.move_to(&mut self.out, start);
            self.turn(key, None);
            self.meter.tick();
        }
    }

    /// Writes replies that were made without a turn.
    #[inline]
    fn send(&mut self, key: usize, replies: &[u8]) {
        // A turn that began with a value by reference may have closed it.
        if let Some(client) = self.clients.get_mut(key) {
            let after = client.connection.send(replies, &self.counters);
            self.follow(key, after);
        }
    }

    fn turn_in_wave(&mut self, key: usize, ahead: Ahead<'_>) {
        match ahead {
            Ok(input) if self.meter.elapsed() > WAVE => self.postpone(key, input),
            ahead => self.turn(key, Some(ahead)),
        }
        self.meter.tick();
    }

    #[cold]
    fn postpone(&mut self, key: usize, input: &[u8]) {
        let client = &mut self.clients[key];
        client.connection.keep_ahead(input, &self.counters);
        self.enqueue(key, self.meter.since());
        self.meter.discount();
    }

    fn enqueue(&mut self, key: usize, since: Instant) {
        let client = &mut self.clients[key];
        // It is there already if it was held, had an event late in a turn, and was let go in the same.
        if !std::mem::replace(&mut client.queued, true) {
            self.ready.push_back((key, since));
        }
    }

    fn welcome(&mut self) {
        for _ in 0..ARRIVALS {
            let Ok(arrival) = self.arrivals.try_recv() else { return };
            let Arrival { mut stream, record, permit, binding } = arrival;
            let vacant = self.clients.vacant_entry();
            let reports_room = stream.is_tcp();
            let interest = if reports_room { BOTH } else { Interest::READABLE };
            if let Err(error) = self.poll.registry().register(&mut stream, Token(vacant.key()), interest) {
                log::error!("cannot watch a connection: {error}");
                continue;
            }
            let connection = Connection::new(stream, record.info(), binding, self.shared.clock.now());
            vacant.insert(Client { record, connection, permit, queued: false, reports_room });
        }
        // There may be more of them.
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake a worker: {error}");
        }
    }

    /// A TCP socket reports room only after it had none, so asking from the start saves a call per stuck reply. A
    /// Unix socket reports it whenever its peer has read something, which would be one wake-up per reply.
    fn ask_for_room(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if client.reports_room || !client.connection.is_stuck() || client.connection.is_held() {
            return;
        }
        client.reports_room = true;
        let registry = self.poll.registry();
        if let Err(error) = registry.reregister(client.connection.stream_mut(), Token(key), BOTH) {
            log::error!("cannot watch a connection: {error}");
            self.close(key, Reason::Error);
        }
    }

    #[cold]
    fn hold(&mut self, key: usize) {
        let connection = &self.clients[key].connection;
        let (Some(owed), replies) = (connection.held_for(), connection.held_replies()) else { return };
        self.counters.replies_held.add(replies);
        self.shared.stats.replies_waiting.fetch_add(replies, Ordering::Relaxed);
        self.held.push(owed, key);
    }

    /// Gives those a turn whose replies wait no more.
    fn release_held(&mut self) {
        if !self.held.is_empty() {
            self.release_safe();
            self.give_up_expired();
            self.alarm.set(None);
        }
    }

    #[cold]
    fn release_safe(&mut self) {
        let shared = self.shared.clone();
        let safety = shared.store.safety();
        let is_refused = |lsn| !shared.config.ack_degrade && safety.is_refused(lsn);
        let safe = safety.safe_lsn();
        let end = self.meter.elapsed() + RELEASES;
        while self.meter.elapsed() <= end
            && let Some(key) = self.held.pop_safe(safe)
        {
            let counters = self.counters.clone();
            // Before they are written: who has read one may ask another worker how many there were.
            self.let_go(key, |connection| counters.replies_refused.add(connection.release_but(is_refused).replies));
        }
    }

    #[cold]
    fn give_up_expired(&mut self) {
        let (now, safe) = (Instant::now(), self.shared.store.safety().safe_lsn());
        // What is safe may still be here, late or not: see `RELEASES`.
        if self.held.first().is_none_or(|owed| !owed.is_late(now, safe)) {
            return;
        }
        let shared = self.shared.clone();
        let safety = shared.store.safety();
        if shared.config.ack_degrade {
            safety.degrade(shared.store.journal().lsn());
            return self.release_safe();
        }
        let is_missing = |lsn| lsn > safe || safety.is_refused(lsn);
        let end = self.meter.elapsed() + RELEASES;
        while self.meter.elapsed() <= end
            && let Some(key) = self.held.pop_expired(now, safe)
        {
            let counters = self.counters.clone();
            self.let_go(key, |connection| counters.replies_timed_out.add(connection.release_but(is_missing).replies));
        }
    }

    /// Lets go of what was held of a connection that is in the queue no more, and gives it its turn.
    fn let_go<R>(&mut self, key: usize, how: impl FnOnce(&mut Connection<Stream>) -> R) -> R {
        let connection = &mut self.clients[key].connection;
        self.shared.stats.replies_waiting.fetch_sub(connection.held_replies(), Ordering::Relaxed);
        let result = how(connection);
        self.turn(key, None);
        self.meter.look();
        result
    }

    /// Serves the connections that are in the queue, as far as there is time.
    fn run_ready(&mut self, in_company: bool) {
        let Some(&(_, oldest)) = self.ready.front() else { return };
        let polled = self.meter.set_since(oldest);
        for _ in 0..self.ready.len() {
            let Some((key, _)) = self.ready.pop_front() else { break };
            // The slot may have changed hands meanwhile.
            match self.clients.get_mut(key) {
                Some(client) if client.queued => client.queued = false,
                _ => continue,
            }
            self.serve(key, in_company);
            if self.meter.elapsed() > TURN {
                break;
            }
        }
        self.answer_wave();
        self.meter.look();
        self.meter.set_since(polled);
    }

    fn turn(&mut self, key: usize, ahead: Option<Ahead<'_>>) {
        let client = &mut self.clients[key];
        self.long_lines -= client.connection.long_line();
        let mut lent = Lent {
            shared: &self.shared,
            counters: &self.counters,
            out: &mut self.out,
            now: self.shared.clock.now(),
            long_lines: self.long_lines,
            ledger: &mut self.ledger,
            last_lsn: &self.last_lsn,
        };
        let after = client.connection.turn(ahead, &mut self.buffer, &mut lent);
        self.long_lines += client.connection.long_line();
        self.follow(key, after);
        self.clean_output();
    }

    #[inline]
    fn follow(&mut self, key: usize, after: After) {
        match after {
            After::Wait => self.ask_for_room(key),
            After::Held => self.hold(key),
            After::Again => self.enqueue(key, Instant::now()),
            After::Close(reason) => {
                self.clients[key].connection.farewell(&mut self.buffer);
                self.close(key, reason);
            }
            After::Watch(streams) => self.hand_over(key, streams),
        }
    }

    fn clean_output(&mut self) {
        assert!(self.out.is_empty(), "a turn left output behind that belongs to its connection");
        if self.out.bytes.capacity() > OUTPUT_KEEP {
            self.out.bytes = Vec::new();
        }
    }

    fn close(&mut self, key: usize, reason: Reason) {
        let client = self.clients.remove(key);
        self.long_lines -= client.connection.long_line();
        client.record.log_close(&self.shared, reason);
    }

    fn hand_over(&mut self, key: usize, streams: Streams) {
        let Client { record, connection, permit, .. } = self.clients.remove(key);
        self.long_lines -= connection.long_line();
        let mut stream = connection.into_stream();
        if let Err(error) = self.poll.registry().deregister(&mut stream) {
            log::error!("cannot let go of a connection: {error}");
            return;
        }
        self.shared.watch.adopt(Box::new(Watched { _record: record, stream, _permit: permit }), streams);
    }

    /// Closes what has been idle for too long, a slice at a time.
    fn sweep(&mut self) {
        let limit = self.shared.config.idle_timeout;
        if limit == 0 || (self.sweep.at.is_none() && Instant::now() < self.sweep.due) {
            return;
        }
        let start = self.sweep.at.unwrap_or(0);
        let end = start + SWEEP_SLICE;
        let now = self.shared.clock.now();
        for key in start..end.min(self.clients.capacity()) {
            if self.clients.get_mut(key).is_some_and(|client| client.is_idle(now, limit)) {
                self.counters.idle_kicks.add(1);
                self.close(key, Reason::IdleTimeout);
            }
        }
        let is_done = end >= self.clients.capacity();
        self.sweep = if is_done {
            Sweep { due: Instant::now() + SWEEP_EVERY, at: None }
        } else {
            Sweep { due: self.sweep.due, at: Some(end) }
        };
    }

    /// Runs the requests that have been read, and waits a moment for those who are slow to take their replies and
    /// for replicas. What is not safe then is not answered.
    fn finish(mut self) {
        let end = Instant::now() + self.shared.config.stop_grace;
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let began = self.meter.begin(false, false);
            self.ledger.begin(self.shared.store.safety(), began);
            self.release_held();
            self.run_ready(true);
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || (self.ready.is_empty() && self.flush_pending()) {
                return;
            }
            let timeout = self.timeout().map_or(left, |timeout| timeout.min(left));
            if self.poll.poll(&mut events, Some(timeout)).is_err() {
                return;
            }
            for event in &events {
                if let Some(client) = self.clients.get_mut(event.token().0) {
                    client.connection.notify(readiness(event));
                }
            }
        }
    }

    /// Whether nobody is owed anything any more.
    fn flush_pending(&mut self) -> bool {
        let mut is_done = true;
        for (_, client) in &mut self.clients {
            is_done &= client.connection.flush_pending(&self.counters) != Sent::Blocked;
        }
        is_done
    }
}

impl Client {
    fn is_idle(&mut self, now: u32, limit: u32) -> bool {
        let may_be = !self.queued && !self.connection.is_stuck() && self.connection.stream_mut().is_tcp();
        may_be && self.connection.session().is_idle(now, limit)
    }
}

/// A connection that only receives log lines now. Dropped in this order, as [`Client`] is.
struct Watched {
    _record: ConnRecord,
    stream: Stream,
    _permit: Permit,
}

impl Read for Watched {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buf)
    }
}

impl Write for Watched {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.stream.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error shows at the next read or write, so it counts as both.
fn readiness(event: &Event) -> Readiness {
    let hangup = event.is_read_closed() || event.is_error();
    Readiness {
        readable: event.is_readable() || hangup,
        writable: event.is_writable() || event.is_write_closed() || event.is_error(),
        hangup,
    }
}
