//! The control socket: one thread that streams every change to its consumers (twincache-sidecar), and takes a few
//! administrative lines.
//!
//! ```text
//!  Unix listener, mode 0600 ── accept ──> client: input line ──> consumer ──> output ──> socket
//!                                                                 ^
//!  worker: append … nudge ── waker, if this thread is idle ───────┘ journal, full sync
//! ```
//!
//! Its lines stand in [`crate::protocol::control`].
//!
//! How soon a change is sent: while replies wait for acknowledgements (`replicas_ack`), as soon as those before it are
//! acknowledged. Else, while there are changes, every [`NAP`] or [`LONG_NAP`]: one wake-up then serves all changes of
//! that time, and no worker pays for one. After [`NAPS_MAX`] naps without a change the thread is idle, and the next
//! change wakes it.
//!
//! Invariants: a client's output holds at most one batch beside replies; while it is not with the kernel nothing is
//! read from the journal for this client; nobody but this client waits for it. Without `-o control_socket` nothing
//! of this exists.
//!
//! Not here: what lines mean and what is sent (`replication`), the order of changes (`journal`).

use super::admission::reason;
use super::conn::buffer::{Cursor, Sent};
use super::listen::{self, StartError};
use crate::command::{Output, Shared};
use crate::io::edge::Edge;
use crate::replication::session::{Consumer, Now};
use mio::event::Event;
use mio::net::{UnixListener, UnixStream};
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Connections at a time: eight consumers, and a few that ask for the status.
const CLIENTS_MAX: usize = 12;

/// What one too many is told.
const TOO_MANY: &[u8] = b"refused too many connections on the control socket\r\n";

/// Time for changes to gather: at 50,000 a second 50 share a wake-up, and it is a tenth of the lag we allow.
const NAP: Duration = Duration::from_millis(1);

/// Time for them to gather when there are [`MANY`]: to sleep, and to wake the reader, takes some 30 us here, however much
/// is sent. At 100,000 a second this thread took 409 ns of CPU for one with naps of 2 ms, and 277 with 4 ms and one
/// batch for each; it is less than half of the lag we allow.
const LONG_NAP: Duration = Duration::from_millis(4);

/// So many changes in a [`NAP`] are many: what they cost counts for more than another millisecond of lag.
const MANY: u64 = 75;

/// Naps without a change before the thread is idle: pauses of a busy server are shorter.
const NAPS_MAX: u32 = 20;

/// How often the journal's clockwork is wound: heartbeats are due twice in a tenth of a second.
const TICK: Duration = Duration::from_millis(25);

/// Batches that one client gets before the others have their turn.
const BATCHES_PER_TURN: usize = 8;

/// Input read from one client before the others have their turn.
const INPUT_PER_TURN: usize = 16 << 10;

/// A client with this many bytes of output waiting (values by reference not counted) asks without ever reading.
const OUTPUT_MAX: usize = 2 << 20;

/// Memory a client's output keeps after a batch that was larger.
const OUTPUT_KEEP: usize = 512 << 10;

/// How long a server that stops waits for consumers to take what they lack.
const GRACE: Duration = Duration::from_secs(1);

const LISTENER: Token = Token(usize::MAX - 1);
const WAKER: Token = Token(usize::MAX - 2);
/// The running control socket. Dropping it gives consumers a moment to take what they lack, and then stops it: drop
/// it when nothing changes any more.
#[derive(Debug)]
pub struct Control {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Opens the control socket of `shared.config` and starts its thread; None when none is asked for.
    pub fn start(shared: &Arc<Shared>) -> Result<Option<Control>, StartError> {
        let Some(path) = &shared.config.control_socket else { return Ok(None) };
        let listener = listen::listen_control(path, shared.config.backlog)?;
        let started = Control::spawn(shared, listener).map_err(|error| StartError {
            message: format!("cannot start the control socket's thread: {}", reason(&error)),
            exit_code: listen::EXIT_OSERR,
        })?;
        Ok(Some(started))
    }

    fn spawn(shared: &Arc<Shared>, mut listener: UnixListener) -> io::Result<Control> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let body = Loop::new(shared.clone(), poll, listener, stop.clone());
        let nudged = waker.clone();
        shared.store.journal().set_waker(move || wake(&nudged));
        let journal = shared.store.journal();
        match shared.store.is_managed() {
            // Until it is told for whom, every reply waits.
            true => _ = journal.set_members(shared.config.replicas_ack, &[], Instant::now()),
            false => journal.set_required(shared.config.replicas_ack, Instant::now()),
        }
        let thread = std::thread::Builder::new().name("control".into()).spawn(move || body.run())?;
        Ok(Control { stop, waker, thread: Some(thread) })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        wake(&self.waker);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the control socket's thread had panicked");
        }
    }
}

fn wake(waker: &Waker) {
    if let Err(error) = waker.wake() {
        log::error!("cannot wake the control socket's thread: {error}");
    }
}

/// What the thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Go on at once.
    None,
    /// Let changes gather.
    Nap,
    /// Until something happens.
    Idle,
}

#[derive(Debug)]
struct Loop {
    shared: Arc<Shared>,
    poll: Poll,
    listener: UnixListener,
    stop: Arc<AtomicBool>,
    clients: Slab<ControlClient>,
    /// Naps in a row without a change.
    naps: u32,
    /// Before this, changes gather.
    due: Instant,
    /// When they last began to, and after which.
    gathers: (Instant, u64),
    ticked: Instant,
}

impl Loop {
    fn new(shared: Arc<Shared>, poll: Poll, listener: UnixListener, stop: Arc<AtomicBool>) -> Loop {
        let now = Instant::now();
        Loop {
            shared,
            poll,
            listener,
            stop,
            clients: Slab::new(),
            naps: NAPS_MAX,
            due: now,
            gathers: (now, 0),
            ticked: now,
        }
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(2 * CLIENTS_MAX);
        let mut rest = Rest::Idle;
        while !self.stop.load(Ordering::Relaxed) {
            rest = self.turn(&mut events, rest);
        }
        let end = Instant::now() + GRACE;
        while self.clients.iter().any(|(_, client)| client.consumer.lacks(&self.shared)) && Instant::now() < end {
            rest = self.turn(&mut events, if rest == Rest::Idle { Rest::Nap } else { rest });
        }
    }

    /// Waits, serves the clients that there is something for, and says how to wait next.
    fn turn(&mut self, events: &mut Events, rest: Rest) -> Rest {
        // To sleep through what the clients send: woken by each acknowledgement, a change cost 850 ns and not 670.
        let is_prompt = self.shared.store.journal().acks().required() > 0;
        if rest == Rest::Nap && !is_prompt && !self.clients.iter().any(|(_, client)| !client.socket.is_writable()) {
            std::thread::sleep(self.due.saturating_duration_since(Instant::now()));
        }
        if let Err(error) = self.poll.poll(events, self.timeout(rest)) {
            assert_eq!(error.kind(), ErrorKind::Interrupted, "poll failed: {error}");
        }
        let now = Now { at: Instant::now(), unix_ms: self.shared.clock.unix_ms() };
        let mut nudged = false;
        for event in events.iter() {
            match event.token() {
                LISTENER => self.accept(),
                WAKER => nudged = true,
                Token(key) => self.notify(key, event),
            }
        }
        self.read(now);
        if now.at.saturating_duration_since(self.ticked) >= TICK {
            self.ticked = now.at;
            self.shared.store.journal().tick(now.at);
        }
        self.send(now, nudged)
    }

    fn timeout(&self, rest: Rest) -> Option<Duration> {
        if rest == Rest::None || self.clients.iter().any(|(_, client)| client.socket.is_readable()) {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let nap = (rest == Rest::Nap).then(|| self.due.saturating_duration_since(now));
        // An enabled journal has its times even without consumers.
        let wound = !self.clients.is_empty() || self.shared.store.journal().enabled();
        let tick = wound.then(|| (self.ticked + TICK).saturating_duration_since(now));
        nap.into_iter().chain(tick).min()
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of descriptors, most likely. Whoever waits is accepted together with the next one.
                    log::warn!("cannot accept on the control socket: {error}");
                    return;
                }
            }
        }
    }

    fn admit(&mut self, mut stream: UnixStream) {
        if self.clients.len() >= CLIENTS_MAX {
            // A fresh socket has room for it.
            let _ = io::Write::write(&mut stream, TOO_MANY);
            return;
        }
        let vacant = self.clients.vacant_entry();
        let watched = Edge::new(stream).watch(self.poll.registry(), Token(vacant.key()), false);
        let socket = match watched {
            Ok(socket) => socket,
            Err(error) => return log::error!("cannot watch a connection of the control socket: {error}"),
        };
        let mut client = ControlClient::new(socket);
        client.consumer.greet(&self.shared, &mut client.out);
        vacant.insert(client);
    }

    fn notify(&mut self, key: usize, event: &Event) {
        let Some(client) = self.clients.get_mut(key) else { return };
        client.socket.note(event.into());
    }

    fn read(&mut self, now: Now) {
        for (_, client) in &mut self.clients {
            if client.socket.is_readable() {
                client.read(&self.shared, now);
            }
        }
    }

    /// Sends what there is. Changes are left to gather for a while; if somebody waits for their acknowledgement, while
    /// those before them are not acknowledged, and for a [`NAP`] at most: each batch costs some 40 us here, and as much
    /// in the sidecar and at the peer. With 50 connections 25 sets share one so, and 18 without; p99 of the sets was
    /// 1.5 ms, and 2.3 ms without.
    fn send(&mut self, now: Now, nudged: bool) -> Rest {
        let is_prompt = self.shared.store.journal().acks().required() > 0;
        let is_due = nudged || now.at >= self.due;
        let sent = self.send_to_all(now, is_due, is_prompt);
        if sent.more {
            return Rest::None;
        }
        if is_due || sent.something {
            self.due = now.at + if is_prompt { NAP } else { self.nap(now.at) };
            self.naps = if sent.something { 0 } else { self.naps.saturating_add(1) };
        }
        // Who has acknowledged all is sent the next change at once, although others, which may walk or stand, have not.
        let gathers =
            !(is_prompt && self.clients.iter().any(|(_, client)| client.takes_changes() && client.is_ready()));
        if gathers && self.naps < NAPS_MAX {
            return Rest::Nap;
        }
        // Where nothing can be sent, because nobody is there or nobody reads, no change has to wake it.
        if !self.clients.iter().any(|(_, client)| client.takes_changes()) {
            return Rest::Idle;
        }
        // From here on a change wakes the thread; one that came before that was said is seen now.
        self.shared.store.journal().set_idle();
        if self.send_to_all(now, true, is_prompt).something { Rest::None } else { Rest::Idle }
    }

    /// For how long to let changes gather, after as many as there were since this was last asked.
    fn nap(&mut self, now: Instant) -> Duration {
        let lsn = self.shared.store.journal().lsn();
        let (began, before) = std::mem::replace(&mut self.gathers, (now, lsn));
        let passed = now.saturating_duration_since(began).max(NAP).as_micros();
        let changes = u128::from(lsn.saturating_sub(before)) * NAP.as_micros();
        if changes >= u128::from(MANY) * passed { LONG_NAP } else { NAP }
    }

    fn send_to_all(&mut self, now: Now, is_due: bool, is_prompt: bool) -> Progress {
        let mut sent = Progress::default();
        for (key, client) in &mut self.clients {
            let is_due = is_due || is_prompt && client.is_ready();
            sent = sent.and(client.send(&self.shared, now, is_due));
            if !client.is_broken {
                client.ask_for_room(&self.poll, key);
            }
        }
        self.clients.retain(|_, client| !client.is_closing);
        sent
    }
}

/// What came of a try to send.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// There were changes.
    something: bool,
    /// There may be more at once.
    more: bool,
}

impl Progress {
    fn and(self, other: Progress) -> Progress {
        Progress { something: self.something || other.something, more: self.more || other.more }
    }
}

#[derive(Debug)]
struct ControlClient {
    /// Watched for room only where there was none: else whatever the other side reads would be a wake-up.
    socket: Edge<UnixStream>,
    consumer: Consumer,
    out: Output,
    cursor: Cursor,
    /// To be closed, after its output if the socket takes that at once.
    is_closing: bool,
    /// To be closed, and nothing can be written.
    is_broken: bool,
}

impl ControlClient {
    fn new(socket: Edge<UnixStream>) -> ControlClient {
        ControlClient {
            socket,
            consumer: Consumer::default(),
            out: Output::default(),
            cursor: Cursor::default(),
            is_closing: false,
            is_broken: false,
        }
    }

    fn read(&mut self, shared: &Shared, now: Now) {
        let mut buffer = [0; 4096];
        let mut left = INPUT_PER_TURN;
        while left > 0 && self.socket.is_readable() {
            match self.socket.read(&mut buffer) {
                Ok(Some(n @ 1..)) => {
                    left = left.saturating_sub(n);
                    let goes_on = self.consumer.input(&buffer[..n], shared, now, &mut self.out);
                    if !goes_on || self.out.bytes.len() > OUTPUT_MAX {
                        self.is_closing = true;
                        return;
                    }
                }
                Ok(Some(_)) => {
                    self.is_closing = true;
                    return;
                }
                Ok(None) => return,
                Err(_) => return self.give_up(),
            }
        }
    }

    fn give_up(&mut self) {
        (self.is_closing, self.is_broken) = (true, true);
    }

    /// Sends what waits, then, if it is time for changes, those.
    fn send(&mut self, shared: &Shared, now: Now, is_due: bool) -> Progress {
        let mut progress = Progress::default();
        for _ in 0..BATCHES_PER_TURN {
            if self.is_broken || !self.socket.is_writable() || !self.write() || self.is_closing {
                return progress;
            }
            if is_due || self.consumer.is_behind() {
                progress.something |= self.consumer.fill(shared, now, &mut self.out);
            }
            self.is_closing |= self.consumer.is_gone();
            self.consumer.beat(shared, now, &mut self.out);
            // What came meanwhile gathers for the next time: to send a few costs nearly as much as to send many.
            if self.out.is_empty() || !self.consumer.is_behind() && shared.store.journal().acks().required() == 0 {
                self.write();
                return Progress { more: self.consumer.is_behind(), ..progress };
            }
        }
        Progress { something: true, more: self.write() }
    }

    /// Whether all of the output is with the kernel.
    fn write(&mut self) -> bool {
        if self.out.is_empty() {
            return true;
        }
        let (sent, _) = self.cursor.write(&mut self.socket, &self.out, None, usize::MAX);
        match sent {
            Sent::All => self.clear(),
            Sent::Blocked => {}
            Sent::Broken => self.give_up(),
            Sent::Withheld | Sent::Paused => unreachable!("nothing here is a reply to a change, and all is written"),
        }
        sent == Sent::All
    }

    fn clear(&mut self) {
        self.cursor = Cursor::default();
        self.out.values.clear();
        self.out.bytes.clear();
        if self.out.bytes.capacity() > OUTPUT_KEEP {
            self.out.bytes = Vec::new();
        }
    }

    fn takes_changes(&self) -> bool {
        self.consumer.is_attached() && self.socket.is_writable()
    }

    /// Whether it has acknowledged all that it was sent.
    fn is_ready(&self) -> bool {
        !self.consumer.awaits()
    }

    fn ask_for_room(&mut self, poll: &Poll, key: usize) {
        if let Err(error) = self.socket.ask_for_room(poll.registry(), Token(key)) {
            log::error!("cannot watch a connection of the control socket: {error}");
            self.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestServer;

    #[test]
    fn who_has_acknowledged_all_does_not_wait_for_others() {
        let shared = TestServer::new(|_| {}).shared;
        let path = std::env::temp_dir().join(format!("twincache-control-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut body = Loop::new(shared.clone(), Poll::new().unwrap(), listener, Arc::default());
        let now = Now { at: Instant::now(), unix_ms: 0 };
        shared.store.journal().set_required(1, now.at);
        let _ends = [0, 1].map(|_| {
            let (near, far) = UnixStream::pair().unwrap();
            body.admit(near);
            far
        });
        let say = |body: &mut Loop, key: usize, line: String| {
            let client = &mut body.clients[key];
            assert!(client.consumer.input(line.as_bytes(), &shared, now, &mut client.out));
        };
        (0..2).for_each(|key| say(&mut body, key, format!("attach {key} {key} - - cas\r\n")));
        for _ in 0..2 {
            // Until all is sent, the notes of ends of walks that this makes included.
            let mut before = None;
            while body.send(now, true) == Rest::None || before != Some(shared.store.journal().lsn()) {
                before = Some(shared.store.journal().lsn());
            }
            // The other one, which is still told of a walk, say, confirms nothing.
            say(&mut body, 0, format!("ack {}\r\n", shared.store.journal().lsn()));
            assert!(body.clients[0].is_ready() && !body.clients[1].is_ready());
            assert_eq!(body.send(now, false), Rest::Idle, "the next change wakes it");
            shared.store.flush_all(0, None);
            assert_eq!(body.send(now, true), Rest::Nap, "until it is acknowledged");
        }
    }
}
