//! A worker: one thread, one poll, its connections.
//!
//! ```text
//!  acceptor ── channel + Waker ──> inbox ─┐
//!                                         v
//!  poll ──> event ──> connection slot ──> read ──> batch ──> write ──> wait for the next event
//!                          ^                         ├─────> ready queue, when the time of the turn was spent
//!                          ├────── ready queue <─────┤
//!                          ├─ then, large queue <────┤ when it has something large to write or to receive
//!                          └─ last, long queue <─────┘ when its quota was spent, or what it asks for takes long
//! ```
//!
//! Who asks for little is not to wait for those who ask for much, be they a thousand. So who has spent its quota, or asks
//! for what takes long (statistics, lists), waits until nobody is left who has not; and while many wait, quotas are small.
//! The long queue gets a turn every [`LONG_EVERY`] at least.
//!
//! To move a large value takes as long as many requests do, and before its connection is read nobody knows of it. So what
//! all move together who have their first turns in a turn of the loop is bounded: by one value of the default size limit,
//! of which each has its part, and that is `LARGE` at least, or half of that in a crowd and while others are in line. Who wants more has its requests run, and gets in line. The large queue has its time in
//! each turn of the loop: a slice for one of them at least, and then the next one's turn.
//!
//! Events are edge-triggered, so a connection that stops early, or whose event came late in a long turn, is remembered
//! in the ready queue; poll does not block while one of the queues is not empty, and the next turn begins with it. Connections that
//! rest between two requests are read first, and then answered together (`batch`); one alone is answered so as well. Who
//! is in the middle of something has a turn by itself, which may be a long one, after those who were read before. Two
//! read buffers and one output serve all connections of the worker. A connection whose output waits
//! for replicas is in a queue, by which the worker finds what an acknowledgement releases and what has
//! waited for too long without looking at the others.
//!
//! Invariants: a connection is in one of the queues at most, and once; in the output are only replies of those in `unsent`, in
//! that order, and of the connection whose turn it is, so that nobody ever gets what was meant for another.
//!
//! Not here: who waits (`queues`), how it ends (`ending`), memory that connections hold (`budget`), who is closed for it (`standing`), what happens when replicas have what is waited for (`waiting`), or when clients are to be answered no more
//! (`silence`), what a turn does (`conn`), who may connect (`acceptor`), what comes with a connection (`admission`).

mod batch;
mod budget;
mod client;
mod datagrams;
mod ending;
mod hungry;
mod idle;
mod queues;
mod silence;
mod standing;
#[cfg(test)]
mod tests;
mod udp_port;
mod waiting;

use super::admission::{Arrival, Inbox};
use super::conn::turn::{After, CloseReason, OUTPUT_HIGH, Quota, Share, TURN_BYTES, TurnContext};
use super::conn::{Holdings, READ_BUFFER};
use super::reply_hold::{AckQueue, AckWaker, PendingAck, ReplyHold};
use super::stop::{Orders, Stop, StopMode};
use super::voice::{Voice, VoiceState};
use crate::command::batch::Batch;
use crate::command::{Output, Shared};
use crate::io::edge::Readiness;
use crate::journal::acks::LastLsn;
use crate::stats::Counters;
use crate::stats::event_loop::LoopTimer;
use crate::watch::Streams;
use batch::{MEMBERS, Members, ReadBatch};
use budget::Budget;
use client::{Client, Watched};
use crossbeam_channel::Receiver;
use hungry::{Hungry, MEMORY_NAP};
use idle::IdleSweep;
use mio::event::Event;
use mio::{Events, Poll, Token, Waker};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use udp_port::UdpPort;

/// Events taken from the kernel at a time: two batches of connections with single requests, 0.6 ms at 10 us each.
const EVENTS: usize = 64;

/// Connections that are welcomed in a turn: 2 us each.
const ARRIVALS: usize = 64;

/// A turn that is longer than this at a look at the clock, after each batch of connections and each that had its turn by
/// itself, leaves the rest for the next one.
const TURN: Duration = Duration::from_micros(400);

/// How long those wait at most who ask for much, while there are others.
const LONG_EVERY: Duration = Duration::from_millis(4);

/// A batch of connections goes on for longer, up to this: it is made of requests that are answered in 10 us each, unless
/// they ask for large values, or many of them.
const BATCH_TIME: Duration = Duration::from_micros(600);

/// The clock is looked at when connections of a batch have used so much of their quotas: 40 us.
const LOOK_EVERY: usize = TURN_BYTES / 10;

/// Replies to several connections are written when there are so many bytes of them, while they are in the first-level
/// cache.
const SEND_AT: usize = 8 << 10;

/// Memory the shared output keeps after a reply that was larger.
const OUTPUT_KEEP: usize = 2 * OUTPUT_HIGH;

/// The inbox's token; connections have their slot number.
const WAKER: Token = Token(usize::MAX - 1);

/// One worker's state.
#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    meter: LoopTimer,
    stop: Orders,
    poll: Poll,
    arrivals: Receiver<Arrival>,
    waker: Arc<Waker>,
    clients: Slab<Client>,
    /// Slots, and since when they may have waited.
    ready: VecDeque<(usize, Instant)>,
    /// The same of those who move large values.
    large: VecDeque<(usize, Instant)>,
    /// The same of those who ask for much.
    long: VecDeque<(usize, Instant)>,
    /// When the last of those had its turn.
    long_at: Instant,
    /// Those who wait until memory is ready.
    hungry: Hungry,
    /// What each connection may do in its turn now, and for how many that is.
    each: Share,
    each_of: usize,
    buffer: Box<[u8]>,
    out: Output,
    /// Who is to be sent what the output begins with: slots, and the end of each one's replies.
    unsent: Vec<(usize, usize)>,
    budget: Budget,
    /// What a long get may produce at a time: as much as is written at once, if nobody waits.
    part_high: usize,
    idle_sweep: IdleSweep,
    reply_hold: ReplyHold,
    /// The last change that this worker's requests have journalled, and what it was when the journal's readers were
    /// last woken.
    last_lsn: LastLsn,
    told_lsn: u64,
    waiting: AckQueue,
    ack_waker: Arc<AckWaker>,
    /// Its right to answer clients, where that can be taken away.
    voice: Option<Voice>,
    /// Its UDP sockets (`-U`).
    udp: Vec<UdpPort>,
}

impl Worker {
    /// Makes a worker, not yet running, and where to leave connections for it.
    pub(super) fn new(shared: Arc<Shared>, stop: Arc<Stop>) -> io::Result<(Worker, Inbox)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let ack_waker = Arc::new(AckWaker::new(waker.clone()));
        let (inbox, arrivals) = Inbox::new(waker.clone());
        shared.stats.read_buf_bytes.fetch_add(2 * READ_BUFFER as u64, Ordering::Relaxed);
        let reply_hold = ReplyHold::new(shared.config.ack_timeout);
        let idle_sweep = IdleSweep::new(shared.config.idle_timeout > 0 || shared.config.wants_login());
        let counters = shared.stats.worker();
        let meter = shared.stats.event_loops.timer();
        let requests = shared.config.latency.then(|| shared.stats.latencies.timer(counters.clone()));
        let worker = Worker {
            budget: Budget::new(&shared.config),
            counters,
            each: Share::new(Quota::new(&shared.config, 0), OUTPUT_HIGH, OUTPUT_HIGH),
            each_of: usize::MAX,
            voice: Voice::new(&shared.store),
            meter: meter.with_requests(requests),
            shared,
            stop: Orders::new(stop),
            poll,
            arrivals,
            waker,
            clients: Slab::new(),
            ready: VecDeque::new(),
            large: VecDeque::new(),
            long: VecDeque::new(),
            long_at: Instant::now(),
            hungry: Hungry::default(),
            buffer: vec![0; READ_BUFFER].into(),
            out: Output::default(),
            unsent: Vec::with_capacity(MEMBERS),
            part_high: OUTPUT_HIGH,
            idle_sweep,
            reply_hold,
            last_lsn: LastLsn::default(),
            told_lsn: 0,
            waiting: AckQueue::default(),
            ack_waker,
            udp: Vec::new(),
        };
        Ok((worker, inbox))
    }

    /// What makes the worker look at its inbox and its stop flag.
    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// What wakes the worker when a change is safe that its connections wait for.
    pub(super) fn ack_waker(&self) -> Arc<AckWaker> {
        self.ack_waker.clone()
    }

    /// What a demotion looks at, where there can be one.
    pub(super) fn voice_state(&self) -> Option<Arc<VoiceState>> {
        self.voice.as_ref().map(Voice::state)
    }

    /// Serves until told to stop.
    pub(super) fn run(mut self) {
        let (mut events, mut reads) = (Events::with_capacity(EVENTS), ReadBatch::new());
        loop {
            if !self.hungry.is_empty() {
                self.feed_hungry();
            }
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "poll failed: {error}");
            }
            let mode = self.stop.mode();
            if mode == StopMode::Now {
                self.flush_pending();
                return;
            }
            let count = events.iter().count();
            self.meter.begin(timeout != Some(Duration::ZERO), count == EVENTS);
            self.reply_hold.begin_loop(self.shared.store.journal().acks(), || self.meter.began());
            if self.voice.as_ref().is_some_and(Voice::is_stale) {
                self.fall_silent();
            }
            self.begin_loop(count);
            if !self.ready.is_empty() {
                self.run_ready(&mut reads);
            }
            for event in &events {
                self.handle(event, &mut reads);
            }
            self.answer_batch(&mut reads);
            if !self.large.is_empty() {
                self.run_large(count == EVENTS);
            }
            if !self.long.is_empty() {
                self.run_long(&mut reads, count == EVENTS);
            }
            self.release_waiting();
            self.sweep();
            let last_lsn = self.last_lsn.get();
            if last_lsn != std::mem::replace(&mut self.told_lsn, last_lsn) {
                self.shared.store.journal().nudge();
            }
            self.meter.end();
            if mode == StopMode::Graceful {
                return self.finish(reads);
            }
        }
    }

    #[inline]
    fn timeout(&self) -> Option<Duration> {
        if self.has_queues() || self.idle_sweep.is_on() {
            return Some(Duration::ZERO);
        }
        let is_quiet = !self.sweeps() && self.waiting.is_empty() && self.hungry.is_empty();
        if is_quiet { None } else { self.timeout_of_some() }
    }

    /// For how long to sleep at most where something is due.
    #[cold]
    fn timeout_of_some(&self) -> Option<Duration> {
        let sweep = self.sweeps().then(|| self.idle_sweep.due_in());
        let timeout = if self.waiting.is_empty() { sweep } else { self.timeout_of_waiting(sweep) };
        if self.hungry.is_empty() { timeout } else { Some(timeout.map_or(MEMORY_NAP, |left| left.min(MEMORY_NAP))) }
    }

    /// For how long to sleep at most for those who wait for replicas, with a wake-up prepared.
    #[cold]
    fn timeout_of_waiting(&self, sweep: Option<Duration>) -> Option<Duration> {
        let first = self.waiting.first();
        self.ack_waker.wait_for(first);
        let PendingAck { lsn, deadline } = first?;
        // Whoever advances it from now on wakes this thread.
        let is_safe = self.shared.store.journal().acks().replicated_lsn() >= lsn;
        let left = if is_safe { Duration::ZERO } else { deadline.saturating_duration_since(Instant::now()) };
        Some(sweep.map_or(left, |sweep| sweep.min(left)))
    }

    /// How much is to be done for each of those who wait now.
    fn begin_loop(&mut self, events: usize) {
        // Of those whose events did not fit, there is no telling.
        let crowd = if events == EVENTS { self.clients.len() } else { events + self.ready.len() };
        let part_high = self.budget.output_high(&self.shared.stats);
        if crowd != self.each_of || part_high != self.part_high || !self.large.is_empty() {
            self.part_high = part_high;
            self.share(crowd);
        }
    }

    fn handle(&mut self, event: &Event, reads: &mut ReadBatch) {
        if event.token() == WAKER {
            return self.welcome();
        }
        let key = event.token().0;
        // It is a UDP socket's, or an earlier event of the same round has closed its connection.
        let Some(client) = self.clients.get_mut(key) else {
            return self.serve_udp(key, self.meter.is_longer_than(TURN));
        };
        client.connection.socket().note(event.into());
        if client.queued {
            return;
        }
        if self.meter.is_longer_than(TURN) {
            return self.enqueue(key, self.meter.since());
        }
        self.serve(key, reads, false);
    }

    /// Reads from a connection, to answer it with others, or gives it a turn by itself.
    #[inline(always)]
    fn serve(&mut self, key: usize, reads: &mut ReadBatch, may_be_long: bool) {
        self.meter.count(1);
        let connection = &mut self.clients[key].connection;
        if !connection.can_read_early() {
            // Its turn may be a long one. Who was read before comes first.
            if !reads.is_empty() {
                self.answer_batch(reads);
                self.meter.end_requests();
            }
            // They may hold so much now that this one had to go.
            if let Some(client) = self.clients.get(key) {
                if client.connection.in_hand() > self.each.quota.room {
                    self.meter.discount();
                    return self.enqueue_large(key);
                }
                self.turn(key, may_be_long);
            }
            return self.meter.look();
        }
        match connection.read_early(reads.room(self.each.first_read)) {
            Ok(0) => return self.come_to_nothing(key),
            Ok(n) => reads.join(key, n),
            Err(reason) => {
                self.follow(key, After::Close(reason));
                return self.meter.tick();
            }
        }
        if reads.is_full() {
            self.answer_batch(reads);
            self.meter.look();
        }
    }

    /// Answers those who were read, as far as there is time: the others keep what they have sent.
    fn answer_batch(&mut self, reads: &mut ReadBatch) {
        let members = reads.members();
        let mut next = 0;
        while next < members.len() && !self.meter.is_longer_than(BATCH_TIME) {
            next = self.answer_some(members, next);
            if next < members.len() {
                self.meter.tick();
            }
        }
        for i in next..members.len() {
            let (key, input) = members.get(i);
            self.postpone(key, input);
        }
        if self.shared.tls.is_some() {
            self.account_sockets(reads.members());
        }
        reads.clear();
    }

    /// Cuts, fetches and runs requests of as many members as fill a batch, and writes the replies. The member to go on with.
    fn answer_some(&mut self, members: Members<'_>, first: usize) -> usize {
        let (mut batch, mut ends) = (Batch::default(), [0_u8; MEMBERS]);
        let most = self.each.quota.requests as usize;
        let mut next = first;
        while next < members.len() && !batch.is_full() {
            let (key, input) = members.get(next);
            self.clients[key].connection.cut(input, most, &mut batch, &self.shared.store);
            ends[next - first] = batch.count() as u8;
            next += 1;
        }
        batch.prefetch(&self.shared.store);
        let (mut start, mut spent) = (0, 0);
        for at in first..next {
            let end = usize::from(ends[at - first]);
            spent += self.run_member(members.get(at), &batch, start..end);
            start = end;
            if spent >= LOOK_EVERY && at + 1 < next {
                self.meter.tick();
                if self.meter.is_longer_than(BATCH_TIME) {
                    next = at + 1;
                    break;
                }
                spent = 0;
            }
        }
        self.send_replies();
        self.clean_output();
        batch.sample(&self.shared, &self.counters);
        next
    }

    /// Runs what a member has in a batch; how much of its quota that took.
    fn run_member(&mut self, (key, input): (usize, &[u8]), batch: &Batch<'_>, range: Range<usize>) -> usize {
        let mut quota = self.each.quota;
        let full = quota.bytes;
        self.meter.begin_connection();
        let mut turn = TurnContext {
            shared: &self.shared,
            counters: &self.counters,
            meter: &self.meter,
            replies_at: self.out.bytes.len(),
            output_high: self.out.bytes.len() + self.each.output_high,
            out: &mut self.out,
            now: self.shared.clock.now(),
            part: self.each.part,
            is_tight: false,
            may_be_long: false,
            room: quota.room,
            reply_hold: &mut self.reply_hold,
            last_lsn: &self.last_lsn,
            voice: self.voice.as_ref(),
            waits_for_nobody: false,
        };
        match self.clients[key].connection.run(batch, range, input, &mut turn, &mut quota) {
            None => {
                self.unsent.push((key, self.out.bytes.len()));
                // What has to wait is marked by its place in the output, which is then the connection's own.
                if self.out.bytes.len() >= SEND_AT || self.reply_hold.is_on() {
                    self.send_replies();
                }
            }
            Some(rest) => {
                self.send_replies();
                self.meter.end_those_before();
                self.go_on(key, Some(rest), &mut quota, false);
                // That may have taken long.
                return LOOK_EVERY;
            }
        }
        full - quota.bytes
    }

    /// Writes the replies of those who were run and whose turns are over with that. What stands behind them is left.
    #[inline]
    fn send_replies(&mut self) {
        let (mut start, now) = (0, self.shared.clock.now());
        for i in 0..self.unsent.len() {
            let (key, end) = self.unsent[i];
            let after = self.clients[key].connection.send(
                &self.out.bytes[start..end],
                &self.counters,
                self.voice.as_ref(),
                now,
            );
            start = end;
            if let Some(after) = after {
                self.follow(key, after);
            }
        }
        self.unsent.clear();
        self.out.drop_front(start);
    }

    fn welcome(&mut self) {
        for _ in 0..ARRIVALS {
            let Some(arrival) = self.next_arrival() else { return };
            let vacant = self.clients.vacant_entry();
            let token = Token(vacant.key());
            let has_input = arrival.stream.has_input();
            match Client::new(arrival, self.poll.registry(), token, self.shared.clock.now()) {
                Ok(client) => {
                    vacant.insert(client);
                    if has_input {
                        self.enqueue_unreported(token.0);
                    }
                }
                Err(error) => log::error!("cannot watch a connection: {error}"),
            }
        }
        // There may be more of them.
        if let Err(error) = self.waker.wake() {
            log::error!("cannot wake a worker: {error}");
        }
    }

    /// A handshake has read more than its end.
    #[cold]
    fn enqueue_unreported(&mut self, key: usize) {
        let news = Readiness { readable: true, ..Readiness::default() };
        self.clients[key].connection.socket().note(news);
        self.enqueue(key, Instant::now());
    }

    /// Lets a connection wait for news of its socket.
    fn watch(&mut self, key: usize) {
        if let Err(error) = self.clients[key].ask_for_room(self.poll.registry(), Token(key)) {
            log::error!("cannot watch a connection: {error}");
            self.close(key, CloseReason::Error);
        }
    }

    /// Gives a connection a turn by itself.
    fn turn(&mut self, key: usize, may_be_long: bool) {
        let mut quota = self.each.quota;
        self.meter.begin_connection();
        if let Some(read_at) = self.clients[key].connection.input_read_at() {
            self.meter.read_before(read_at);
        }
        self.go_on(key, None, &mut quota, may_be_long);
    }

    /// Begins a connection's turn, or goes on with it where there is a rest of its input.
    fn go_on(&mut self, key: usize, rest: Option<&[u8]>, quota: &mut Quota, may_be_long: bool) {
        let client = &mut self.clients[key];
        let mut turn = TurnContext {
            shared: &self.shared,
            counters: &self.counters,
            meter: &self.meter,
            out: &mut self.out,
            replies_at: 0,
            now: self.shared.clock.now(),
            output_high: self.each.output_high,
            part: quota.part().min(self.part_high),
            is_tight: self.budget.is_tight(client.holdings.input, &self.shared.stats),
            may_be_long,
            room: quota.room,
            reply_hold: &mut self.reply_hold,
            last_lsn: &self.last_lsn,
            voice: self.voice.as_ref(),
            waits_for_nobody: false,
        };
        let rest = rest.unwrap_or_else(|| {
            client.connection.begin_turn(&mut turn);
            &[]
        });
        let after = client.connection.turn(rest, &mut self.buffer, &mut turn, quota);
        self.follow(key, after);
        self.clean_output();
    }

    fn follow(&mut self, key: usize, after: After) {
        if !self.account(key) {
            return;
        }
        match after {
            After::Wait => self.watch(key),
            After::WaitForAcks => self.hold(key),
            After::Again => self.enqueue_long(key),
            After::Large => self.enqueue_large(key),
            After::WaitForMemory => self.enqueue_hungry(key),
            After::WaitToCopy => self.enqueue_copier(key),
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

    fn close(&mut self, key: usize, reason: CloseReason) {
        if self.clients[key].connection.waits_for_acks() && self.waiting.remove(key) {
            let replies = self.clients[key].connection.waiting_replies();
            self.shared.stats.replies_waiting.fetch_sub(replies, Ordering::Relaxed);
        }
        let mut client = self.clients.remove(key);
        self.budget.change(key, client.holdings, Holdings::default(), &self.shared.stats);
        client.tell_end(&self.shared, reason);
    }

    fn hand_over(&mut self, key: usize, streams: Streams) {
        let Client { record, connection, permit, holdings, .. } = self.clients.remove(key);
        self.budget.change(key, holdings, Holdings::default(), &self.shared.stats);
        let mut stream = connection.into_socket();
        if let Err(error) = self.poll.registry().deregister(&mut stream) {
            log::error!("cannot let go of a connection: {error}");
            return;
        }
        self.shared.watch.add_watcher(Box::new(Watched::new(record, stream, permit)), streams);
    }
}
