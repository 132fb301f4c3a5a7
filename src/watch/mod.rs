//! `watch` streams: log lines from every thread to the clients that asked for them.
//!
//! ```text
//! worker 0 ----> ring -\
//! worker 1 ----> ring --> one writer thread --> a buffer per watcher --> its socket (non-blocking)
//! source(store) ------/
//! ```
//!
//! A thread that publishes formats its line into a ring of its own and goes on. The writer thread empties
//! the rings every few milliseconds, hands each line to the watchers of its stream and writes what their
//! sockets take. It starts with the first watcher and sleeps, without waking, while there is none.
//!
//! Invariants:
//! - a line costs nothing but one relaxed load while nobody watches its stream;
//! - nobody ever waits for a watcher: a full ring drops lines (`log_worker_dropped`), a full watcher
//!   buffer skips them (`log_watcher_skipped`, and a line `skipped=<n>` for the watcher). The lock of a
//!   ring is only ever held to append one line or to swap two pointers;
//! - a watcher sees only lines whose gid is above the one at which it was told `OK`.
//!
//! Not here: who may watch and how a client asks for it (`command/admin.rs`), what the store's events mean.

#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// memcached's limit; one thread writes to all of them in turn.
const WATCHERS_MAX: usize = 20;

/// Rings, shared by threads in turn when there are more threads than these. Each takes memory only once it
/// is used, so this bounds what publishing can take to this many times `worker_logbuf_size`.
const RINGS: usize = 64;

/// What a watcher may have to wait for a line while lines flow, and the share of one CPU that goes into it.
const NAP_MIN: Duration = Duration::from_millis(2);

/// The same when no line came for a while: ten wake-ups a second, only while somebody watches.
const NAP_MAX: Duration = Duration::from_millis(100);

/// How often a watcher's socket is asked whether the client is still there.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// What is read at a time of bytes that a watcher sends, and how often per check; they are ignored, but only behind
/// them is the end to be found. A client that sends more than this is not waited for.
const DISCARD: usize = 4096;
const DISCARDS: usize = 64;

/// A set of streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams(pub u8);

impl Streams {
    /// Lookups.
    pub const FETCHERS: Streams = Streams(1);
    /// Stores.
    pub const MUTATIONS: Streams = Streams(2);
    /// Evictions.
    pub const EVICTIONS: Streams = Streams(4);
    /// Connections opened and closed.
    pub const CONNEVENTS: Streams = Streams(8);
    /// Deletes.
    pub const DELETIONS: Streams = Streams(16);
    /// Crawler and page mover.
    pub const SYSEVENTS: Streams = Streams(32);

    /// Whether the two sets share a stream.
    pub fn intersects(self, other: Streams) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    pub fn with(self, other: Streams) -> Streams {
        Streams(self.0 | other.0)
    }
}

/// A watcher's connection: non-blocking. Dropping it closes and un-counts the connection.
pub trait WatcherSocket: Read + Write + Send {}

impl<T: Read + Write + Send> WatcherSocket for T {}

/// Where lines come from that no thread publishes: called by the writer thread, it gives the lines since its
/// last call and keeps those of the given streams from now on.
pub type Source = Box<dyn FnMut(Streams) -> Vec<(Streams, String)> + Send>;

/// What an `item_store` line says.
#[derive(Clone, Copy, Debug)]
pub struct ItemStore<'a> {
    /// The key, raw.
    pub key: &'a [u8],
    /// `stored`, `not_stored`, `exists`, `not_found`, `too_large`, `no_memory`.
    pub status: &'a str,
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`.
    pub cmd: &'a str,
    /// Seconds to live, 0 none.
    pub ttl: i64,
    /// Slab class, 0 when there is no item.
    pub class: u8,
    /// The client's file descriptor.
    pub fd: i32,
    /// Bytes of the value.
    pub size: usize,
}

/// Lines since start or the last [`Hub::reset`], and watchers now; for `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that found their ring full.
    pub worker_dropped: u64,
    /// Lines that went into a ring.
    pub worker_written: u64,
    /// Lines that found a watcher's buffer full.
    pub watcher_skipped: u64,
    /// Lines that went into a watcher's buffer.
    pub watcher_sent: u64,
    /// Watchers.
    pub watchers: u64,
}

/// What every worker and background thread publishes to.
pub struct Hub {
    board: Arc<Board>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Hub {
    /// A hub whose watchers buffer `watcher_logbuf_size` bytes each and whose rings hold `worker_logbuf_size`.
    pub fn new(watcher_logbuf_size: usize, worker_logbuf_size: usize) -> Hub {
        let board = Board { watcher_limit: watcher_logbuf_size, ring_limit: worker_logbuf_size, ..Board::default() };
        Hub { board: Arc::new(board), writer: Mutex::new(None) }
    }

    /// Whether somebody watches `stream` now.
    #[inline]
    pub fn wants(&self, stream: Streams) -> bool {
        self.board.wanted().intersects(stream)
    }

    /// Publishes one line, without its `ts=… gid=…` prefix and line feed. Ask [`Hub::wants`] first.
    pub fn publish(&self, stream: Streams, line: fmt::Arguments<'_>) {
        self.board.publish(stream, line);
    }

    /// Publishes a lookup; `status` is `found`, `not_found`, `expired` or `flushed`. Ask [`Hub::wants`] first.
    pub fn item_get(&self, key: &[u8], status: &str, class: u8, fd: i32, size: usize) {
        let key = Uri(key);
        self.publish(
            Streams::FETCHERS,
            format_args!("type=item_get key={key} status={status} clsid={class} cfd={fd} size={size}"),
        );
    }

    /// Publishes a store. Ask [`Hub::wants`] first.
    pub fn item_store(&self, line: &ItemStore<'_>) {
        let ItemStore { key, status, cmd, ttl, class, fd, size } = *line;
        let key = Uri(key);
        self.publish(
            Streams::MUTATIONS,
            format_args!(
                "type=item_store key={key} status={status} cmd={cmd} ttl={ttl} clsid={class} cfd={fd} size={size}"
            ),
        );
    }

    /// Publishes a delete that found its key; `cmd` is `delete` or `md`. Ask [`Hub::wants`] first.
    pub fn deleted(&self, key: &[u8], cmd: &str, class: u8, size: usize) {
        let key = Uri(key);
        self.publish(Streams::DELETIONS, format_args!("type=deleted key={key} cmd={cmd} clsid={class} size={size}"));
    }

    /// Publishes a new connection; `rip` is an address or `unix`, `transport` is `local`, `tcp` or `udp`.
    /// Ask [`Hub::wants`] first.
    pub fn conn_new(&self, rip: &str, rport: u16, transport: &str, fd: i32) {
        self.publish(
            Streams::CONNEVENTS,
            format_args!("type=conn_new rip={rip} rport={rport} transport={transport} cfd={fd}"),
        );
    }

    /// Publishes the end of a connection; `reason` is `normal`, `error`, `idle_timeout` or `shutdown`.
    /// Ask [`Hub::wants`] first.
    pub fn conn_close(&self, rip: &str, rport: u16, transport: &str, reason: &str, fd: i32) {
        self.publish(
            Streams::CONNEVENTS,
            format_args!("type=conn_close rip={rip} rport={rport} transport={transport} reason={reason} cfd={fd}"),
        );
    }

    /// Whether one more watcher would be taken.
    pub fn has_room(&self) -> bool {
        self.board.watchers.load(Ordering::Relaxed) < WATCHERS_MAX
    }

    /// Takes over a connection: sends it `OK`, then the lines of `streams` until it goes away. The connection's
    /// own output must have been flushed (the `watch` command itself queues no reply: its `OK` may only be
    /// seen once lines are kept). One too many is told so and closed.
    pub fn adopt(&self, socket: Box<dyn WatcherSocket>, streams: Streams) {
        let mut writer = self.writer.lock().unwrap();
        if writer.is_none() {
            let board = self.board.clone();
            let Ok(handle) = std::thread::Builder::new().name("watch".into()).spawn(move || board.write_on()) else {
                return;
            };
            *writer = Some(handle);
        }
        self.board.join(socket, streams);
    }

    /// Sets where the lines of the store come from. Only the first call counts.
    pub fn set_source(&self, source: impl FnOnce() -> Source) {
        self.board.source.lock().unwrap().get_or_insert_with(source);
    }

    /// Numbers for `stats`.
    pub fn counts(&self) -> Counts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            worker_dropped: get(&self.board.worker_dropped),
            worker_written: get(&self.board.worker_written),
            watcher_skipped: get(&self.board.watcher_skipped),
            watcher_sent: get(&self.board.watcher_sent),
            watchers: self.board.watchers.load(Ordering::Relaxed) as u64,
        }
    }

    /// `stats reset`, as far as it concerns watching.
    pub fn reset(&self) {
        let board = &self.board;
        for count in [&board.worker_dropped, &board.worker_written, &board.watcher_skipped, &board.watcher_sent] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Default for Hub {
    fn default() -> Hub {
        Hub::new(256 << 10, 64 << 10)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.board.arrivals.lock().unwrap().stop = true;
        self.board.wake.notify_one();
        let writer = self.writer.lock().unwrap().take();
        // A watcher's connection may be what held the hub last, and then the writer thread itself is here.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id()) {
            // A writer that panicked has nothing left to stop.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("wanted", &self.board.wanted()).field("counts", &self.counts()).finish()
    }
}

/// A key as log lines and metadump print it: all but `A-Z a-z 0-9 - . _ ~` as `%XX`.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a>(pub &'a [u8]);

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        // Most keys are plain from end to end, so runs are written at once.
        for run in self.0.chunk_by(|a, b| is_plain(a) && is_plain(b)) {
            match std::str::from_utf8(run) {
                Ok(plain) if is_plain(&run[0]) => f.write_str(plain)?,
                _ => write!(f, "%{:02X}", run[0])?,
            }
        }
        Ok(())
    }
}

/// What publishers and the writer thread share.
#[derive(Default)]
struct Board {
    /// The streams of all watchers together.
    wanted: AtomicU8,
    /// Number of the last line.
    gid: AtomicU64,
    rings: Rings,
    ring_limit: usize,
    watcher_limit: usize,
    arrivals: Mutex<Arrivals>,
    wake: Condvar,
    /// Watchers, those on their way to the writer thread included.
    watchers: AtomicUsize,
    source: Mutex<Option<Source>>,
    worker_dropped: AtomicU64,
    worker_written: AtomicU64,
    watcher_skipped: AtomicU64,
    watcher_sent: AtomicU64,
}

impl Board {
    fn wanted(&self) -> Streams {
        Streams(self.wanted.load(Ordering::Relaxed))
    }

    fn publish(&self, stream: Streams, line: fmt::Arguments<'_>) {
        let mut ring = self.rings.mine().lock().unwrap();
        if ring.bytes() >= self.ring_limit {
            self.worker_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Numbered under the ring's lock: lines of one thread stay in order of gid.
        let gid = self.gid.fetch_add(1, Ordering::Relaxed) + 1;
        ring.push(stream, gid, line);
        self.worker_written.fetch_add(1, Ordering::Relaxed);
    }

    fn join(&self, mut socket: Box<dyn WatcherSocket>, streams: Streams) {
        let mut arrivals = self.arrivals.lock().unwrap();
        if self.watchers.load(Ordering::Relaxed) >= WATCHERS_MAX {
            // Best effort: the socket is closed either way.
            let _ = socket.write(b"WATCHER_TOO_MANY log watcher limit reached\r\n");
            return;
        }
        self.watchers.fetch_add(1, Ordering::Relaxed);
        self.wanted.fetch_or(streams.0, Ordering::Relaxed);
        arrivals.list.push(Watcher::new(socket, streams, self.watcher_limit));
        self.wake.notify_one();
    }

    /// The writer thread.
    fn write_on(&self) {
        let mut writer = Writer::default();
        while let Some(arrivals) = self.wait(&writer) {
            writer.turn(self, arrivals);
        }
    }

    /// Waits until there is something to do; None when the server stops.
    fn wait(&self, writer: &Writer) -> Option<Vec<Watcher>> {
        let idle = |arrivals: &mut Arrivals| !arrivals.stop && arrivals.list.is_empty();
        let arrivals = self.arrivals.lock().unwrap();
        let mut arrivals = match writer.watchers.is_empty() {
            true => self.wake.wait_while(arrivals, idle).unwrap(),
            false => self.wake.wait_timeout_while(arrivals, writer.nap, idle).unwrap().0,
        };
        (!arrivals.stop).then(|| std::mem::take(&mut arrivals.list))
    }

    /// Notes which watchers are left after `gone` of them went.
    fn leave(&self, gone: usize, left: &[Watcher]) {
        // Under this lock nobody joins in between.
        let arrivals = self.arrivals.lock().unwrap();
        let wanted = left.iter().chain(&arrivals.list).fold(Streams::default(), |all, w| all.with(w.streams));
        self.wanted.store(wanted.0, Ordering::Relaxed);
        self.watchers.fetch_sub(gone, Ordering::Relaxed);
    }

    /// Publishes what the source has, and tells it what is wanted.
    fn ask_source(&self) {
        let lines = match self.source.lock().unwrap().as_mut() {
            Some(source) => source(self.wanted()),
            None => return,
        };
        for (stream, line) in lines {
            self.publish(stream, format_args!("{line}"));
        }
    }
}

/// Watchers that the writer thread has not met yet.
#[derive(Default)]
struct Arrivals {
    list: Vec<Watcher>,
    stop: bool,
}

/// One ring for each thread that publishes.
struct Rings([Mutex<Ring>; RINGS]);

impl Rings {
    fn mine(&self) -> &Mutex<Ring> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % RINGS);
        &self.0[MINE.with(|&mine| mine)]
    }
}

impl Default for Rings {
    fn default() -> Rings {
        Rings(std::array::from_fn(|_| Mutex::default()))
    }
}

/// Lines on their way, oldest first.
#[derive(Default)]
struct Ring {
    text: String,
    lines: Vec<Line>,
}

/// A line of a [`Ring`]: it begins where the one before it ends.
#[derive(Clone, Copy)]
struct Line {
    stream: Streams,
    gid: u64,
    end: usize,
}

impl Ring {
    fn bytes(&self) -> usize {
        self.text.len() + std::mem::size_of_val(&self.lines[..])
    }

    fn push(&mut self, stream: Streams, gid: u64, line: fmt::Arguments<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // COMPAT(watch-usec): the microseconds are not padded with zeros.
        let (sec, usec) = (now.as_secs(), now.subsec_micros());
        let written = writeln!(self.text, "ts={sec}.{usec} gid={gid} {line}");
        debug_assert!(written.is_ok(), "a String takes everything");
        self.lines.push(Line { stream, gid, end: self.text.len() });
    }

    fn clear(&mut self) {
        self.text.clear();
        self.lines.clear();
    }

    fn iter(&self) -> impl Iterator<Item = (Line, &[u8])> {
        let starts = std::iter::once(0).chain(self.lines.iter().map(|line| line.end));
        self.lines.iter().zip(starts).map(|(line, start)| (*line, &self.text.as_bytes()[start..line.end]))
    }
}

/// What the writer thread owns.
struct Writer {
    watchers: Vec<Watcher>,
    /// Swapped with each ring in turn, so that a ring keeps its memory.
    batch: Ring,
    nap: Duration,
    checked: Instant,
}

impl Writer {
    /// Hands round what was published, then lets `arrivals` in.
    fn turn(&mut self, board: &Board, arrivals: Vec<Watcher>) {
        board.ask_source();
        let busy = self.hand_round(board);
        for mut watcher in arrivals {
            watcher.after = board.gid.load(Ordering::Relaxed);
            watcher.buffer.extend_from_slice(b"OK\r\n");
            self.watchers.push(watcher);
        }
        self.nap = if busy { NAP_MIN } else { (self.nap * 2).min(NAP_MAX) };
        self.flush();
        self.bury(board);
    }

    /// True when there was a line.
    fn hand_round(&mut self, board: &Board) -> bool {
        let mut busy = false;
        for ring in &board.rings.0 {
            std::mem::swap(&mut *ring.lock().unwrap(), &mut self.batch);
            for (line, text) in self.batch.iter() {
                busy = true;
                for watcher in self.watchers.iter_mut().filter(|watcher| watcher.sees(line)) {
                    watcher.offer(text, board);
                }
            }
            self.batch.clear();
        }
        busy
    }

    fn flush(&mut self) {
        let check = self.checked.elapsed() >= CHECK_EVERY;
        for watcher in &mut self.watchers {
            watcher.flush();
            if check {
                watcher.check();
            }
        }
        if check {
            self.checked = Instant::now();
        }
    }

    fn bury(&mut self, board: &Board) {
        let before = self.watchers.len();
        self.watchers.retain(|watcher| !watcher.gone);
        let gone = before - self.watchers.len();
        if gone > 0 {
            board.leave(gone, &self.watchers);
            board.ask_source();
        }
    }
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { watchers: Vec::new(), batch: Ring::default(), nap: NAP_MIN, checked: Instant::now() }
    }
}

/// One client that watches.
struct Watcher {
    socket: Box<dyn WatcherSocket>,
    streams: Streams,
    /// It sees lines above this gid.
    after: u64,
    buffer: Vec<u8>,
    limit: usize,
    /// Lines that did not fit since the last one that did.
    skipped: u64,
    gone: bool,
}

impl Watcher {
    fn new(socket: Box<dyn WatcherSocket>, streams: Streams, limit: usize) -> Watcher {
        Watcher { socket, streams, after: u64::MAX, buffer: Vec::new(), limit, skipped: 0, gone: false }
    }

    fn sees(&self, line: Line) -> bool {
        self.streams.intersects(line.stream) && line.gid > self.after
    }

    /// Buffers a line, or skips it when there is no room.
    fn offer(&mut self, text: &[u8], board: &Board) {
        let note = if self.skipped > 0 { format!("skipped={}\n", self.skipped) } else { String::new() };
        let bytes = note.len() + text.len();
        if self.buffer.len() + bytes > self.limit {
            self.flush();
        }
        if self.buffer.len() + bytes > self.limit {
            self.skipped += 1;
            board.watcher_skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.skipped = 0;
        self.buffer.extend_from_slice(note.as_bytes());
        self.buffer.extend_from_slice(text);
        board.watcher_sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes what the socket takes.
    fn flush(&mut self) {
        let mut done = 0;
        while done < self.buffer.len() && !self.gone {
            match self.socket.write(&self.buffer[done..]) {
                Ok(0) => self.gone = true,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.gone = true,
            }
        }
        self.buffer.drain(..done);
    }

    /// Finds out whether the client has closed. What it says is ignored.
    fn check(&mut self) {
        for _ in 0..DISCARDS {
            match self.socket.read(&mut [0; DISCARD]) {
                Ok(0) => self.gone = true,
                Ok(_) => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => self.gone = true,
            }
            return;
        }
    }
}
