//! Threads that shake hands: TLS connections on their way from the acceptor to the workers.
//!
//! ```text
//!  acceptor ── inbox ──> half done ── a record, an event … ──> done ── inbox ──> worker
//!                           └── fails, or takes longer than PATIENCE ──> closed
//! ```
//!
//! A handshake takes 0.1 to 1 ms of CPU, which on a worker all its connections would wait for. So workers never do one:
//! there are threads of their own for that, one for each worker, with a lower priority ([`NICE`]), and a worker gets a
//! connection that may send requests. Beside 2,400 handshakes a second on the worker's own CPU, a get of another client
//! took 62 us in the middle and 1.9 ms at the 99th percentile, on a busy machine (memcached 1.6.18, whose workers shake
//! hands: 102 us and 44 ms beside 1,100).
//!
//! A storm of clients that begin and do not go on is bounded. A server has places for some of them (`places`), each of
//! which holds at most 50 KB; who comes meanwhile waits in the inbox, as part of `-c`. In a crowd nobody has more than
//! [`CROWD_PATIENCE`], so that those who do shake hands are not kept out by those who do not. A thread that waits for a
//! place has some whose time is over then, so nobody has to tell it of others'.
//!
//! Invariant: a thread's half-done connections stand in `order` in the order in which they came, so that the first is the
//! first whose time is over.
//!
//! Not here: records and certificates (`tls`).

use super::admission::{Arrival, ConnRecord, Inbox, Inboxes, Permit, reason};
use super::places::{Place, ThreadPlaces};
use super::stop::{Orders, Stop, StopMode};
use crate::command::Shared;
use crate::io::stream::Stream;
use crate::protocol::Protocol;
use crate::sys::cpu;
use crate::tls::ServerStream;
use crossbeam_channel::Receiver;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a handshake may take: clients are a few round trips away.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long, while places are short.
const CROWD_PATIENCE: Duration = Duration::from_secs(1);

/// How much lower the priority is than that of the workers.
const NICE: i32 = 5;

/// Events taken at a time.
const EVENTS: usize = 64;

/// The waker's token; connections have their slot number.
const WAKER: Token = Token(usize::MAX - 1);

/// One thread's state.
#[derive(Debug)]
pub(super) struct Handshaker {
    shared: Arc<Shared>,
    stop: Orders,
    poll: Poll,
    waker: Arc<Waker>,
    arrivals: Receiver<Arrival>,
    workers: Inboxes,
    half_done: Slab<HalfDone>,
    /// Slots and when they came. Some are done, or belong to others by now.
    order: VecDeque<(usize, Instant)>,
    /// Of which each half-done connection has one.
    places: ThreadPlaces,
}

/// A connection that shakes hands. Dropped in this order, as a worker's client is.
#[derive(Debug)]
struct HalfDone {
    record: ConnRecord,
    stream: ServerStream,
    permit: Permit,
    _place: Place,
    protocol: Option<Protocol>,
    worker: Option<usize>,
    since: Instant,
}

/// The threads that a server needs, which is none without TLS, and how they are dealt to.
pub(super) fn threads(
    shared: &Arc<Shared>,
    stop: &Arc<Stop>,
    workers: &Inboxes,
) -> io::Result<(Vec<Handshaker>, Inboxes)> {
    let count = if shared.config.tls.enabled { shared.config.threads.max(1) } else { 0 };
    let (mut handshakers, mut inboxes) = (Vec::new(), Vec::new());
    for (number, places) in ThreadPlaces::of_threads(count).enumerate() {
        let (handshaker, inbox) = Handshaker::new(shared, stop, workers.beginning_at(number), places)?;
        handshakers.push(handshaker);
        inboxes.push(inbox);
    }
    Ok((handshakers, Inboxes::new(inboxes)))
}

impl Handshaker {
    fn new(
        shared: &Arc<Shared>,
        stop: &Arc<Stop>,
        workers: Inboxes,
        places: ThreadPlaces,
    ) -> io::Result<(Handshaker, Inbox)> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let (inbox, arrivals) = Inbox::new(waker.clone());
        let handshaker = Handshaker {
            shared: shared.clone(),
            stop: Orders::new(stop.clone()),
            poll,
            waker,
            arrivals,
            workers,
            half_done: Slab::new(),
            order: VecDeque::new(),
            places,
        };
        Ok((handshaker, inbox))
    }

    /// What makes it look at its inbox and its stop flag.
    pub(super) fn waker(&self) -> Arc<Waker> {
        self.waker.clone()
    }

    /// Shakes hands until told to stop.
    pub(super) fn run(mut self) {
        cpu::add_nice(NICE);
        let mut events = Events::with_capacity(EVENTS);
        loop {
            if let Err(error) = self.poll.poll(&mut events, self.timeout()) {
                assert_eq!(error.kind(), ErrorKind::Interrupted, "poll failed: {error}");
            }
            if self.stop.mode() != StopMode::Run {
                return;
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                self.go_on(event.token().0);
            }
            self.expire(Instant::now());
            self.welcome();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.arrivals.is_empty() && self.places.are_left() {
            return Some(Duration::ZERO);
        }
        let (_, since) = self.order.front()?;
        let left = (*since + self.patience()).saturating_duration_since(Instant::now());
        // Other threads' clients may make places short meanwhile.
        Some(left.min(CROWD_PATIENCE))
    }

    fn patience(&self) -> Duration {
        if self.places.are_short() { CROWD_PATIENCE } else { PATIENCE }
    }

    /// Closes those whose time is over.
    fn expire(&mut self, now: Instant) {
        while let Some(&(key, since)) = self.order.front() {
            let is_there = self.half_done.get(key).is_some_and(|half_done| half_done.since == since);
            if is_there && now < since + self.patience() {
                return;
            }
            self.order.pop_front();
            if is_there {
                self.give_up(key, &ErrorKind::TimedOut.into());
            }
        }
    }

    /// Begins with some of those who have come, as far as there are places.
    fn welcome(&mut self) {
        for _ in 0..EVENTS {
            let Some(place) = self.places.take() else { return };
            let Ok(arrival) = self.arrivals.try_recv() else { return };
            self.begin(arrival, place);
        }
    }

    fn begin(&mut self, arrival: Arrival, place: Place) {
        let Arrival { stream, record, permit, protocol, tls, worker } = arrival;
        let (Stream::Tcp(socket), Some(certs), Some(tls)) = (stream, tls, &self.shared.tls) else { return };
        let vacant = self.half_done.vacant_entry();
        let key = vacant.key();
        let watched = tls.accept(socket, certs).and_then(|mut stream| {
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(key), both).map(|()| stream)
        });
        match watched {
            Ok(stream) => {
                let since = Instant::now();
                vacant.insert(HalfDone { record, stream, permit, _place: place, protocol, worker, since });
                self.order.push_back((key, since));
                self.go_on(key);
            }
            Err(error) => log::error!("cannot shake hands: {error}"),
        }
    }

    fn go_on(&mut self, key: usize) {
        // An earlier event may have ended it.
        let Some(half_done) = self.half_done.get_mut(key) else { return };
        match half_done.stream.handshake() {
            Ok(false) => {}
            Ok(true) => self.hand_over(key),
            Err(error) => self.give_up(key, &error),
        }
    }

    fn hand_over(&mut self, key: usize) {
        let HalfDone { record, mut stream, permit, protocol, worker, .. } = self.half_done.remove(key);
        if let Err(error) = self.poll.registry().deregister(&mut stream) {
            log::error!("cannot let go of a connection: {error}");
            return;
        }
        if let Some(tls) = self.shared.tls.as_ref().filter(|_| stream.is_new_session()) {
            tls.new_sessions.fetch_add(1, Ordering::Relaxed);
        }
        let stream = Stream::Tls(Box::new(stream));
        self.workers.send(Arrival { stream, record, permit, protocol, tls: None, worker }, worker);
    }

    fn give_up(&mut self, key: usize, error: &io::Error) {
        let mut half_done = self.half_done.remove(key);
        if let Some(tls) = &self.shared.tls {
            tls.handshake_errors.fetch_add(1, Ordering::Relaxed);
        }
        half_done.stream.drain();
        half_done.record.log_tls_error(&self.shared, &reason(error));
        half_done.record.log_close(&self.shared, "error");
        log::info!("a TLS handshake failed: {error}");
    }
}
