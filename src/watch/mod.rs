//! `watch` streams: log lines from every thread to the clients that asked for them.
//!
//! ```text
//! worker 0 ----> queue -\
//! worker 1 ----> queue --> one writer thread --> a buffer per watcher --> its socket (non-blocking)
//! store's events -----/
//! ```
//!
//! A thread that publishes a line formats it into its own queue and goes on. The writer thread empties the queues
//! every few milliseconds, copies each line to the watchers of its stream and writes as much as their sockets take. It
//! starts with the first watcher, and while there is no watcher it sleeps without waking up.
//!
//! Invariants:
//! - while nobody watches a stream, a line of it costs one relaxed load;
//! - no thread ever waits for a watcher: a full queue drops lines (`log_worker_dropped`), a full buffer of a watcher
//!   skips them (`log_watcher_skipped`, and the watcher gets a line `skipped=<n>`). The lock of a queue is held only
//!   while one line is appended or two queues are swapped;
//! - a watcher gets only lines whose gid is above the last gid before its `OK`.
//!
//! Not here: the command (`command/admin/watch`), which events the store has (`store/events`).

#[cfg(test)]
mod tests;

use crate::sync::{lock, sound};
use std::fmt::{self, Write as _};
use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// As in memcached. One thread writes to all of them in turn.
const WATCHERS_MAX: usize = 20;

/// Queues; more threads than these share them. A queue takes memory when it is first used, so all lines on their way
/// take at most this many times `worker_logbuf_size`.
const QUEUES: usize = 64;

/// How long the writer thread sleeps while lines flow: what a watcher waits for a line at most.
const NAP_MIN: Duration = Duration::from_millis(2);

/// The same after a while without lines: ten wake-ups a second, only while somebody watches.
const NAP_MAX: Duration = Duration::from_millis(100);

/// How often the writer thread reads from a watcher's socket, to see whether the client has closed it.
const CHECK_EVERY: Duration = Duration::from_millis(250);

/// Bytes per read then, and reads at most. What a watcher sends is ignored, but the end of the stream comes after it.
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
    /// Keys that are asked for most.
    pub const HOTKEYS: Streams = Streams(64);

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

/// Where the writer thread gets lines that no thread publishes. A call returns the lines since the last call; from then
/// on lines of the given streams are kept for the next one.
pub type LineSource = Box<dyn FnMut(Streams) -> Vec<(Streams, String)> + Send>;

/// The fields of an `item_store` line.
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
pub struct WatchCounts {
    /// Lines that found their queue full.
    pub worker_dropped: u64,
    /// Lines that went into a queue.
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
    state: Arc<HubState>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Hub {
    /// A hub whose watchers buffer `watcher_logbuf_size` bytes each and whose queues hold `worker_logbuf_size`.
    pub fn new(watcher_logbuf_size: usize, worker_logbuf_size: usize) -> Hub {
        let state =
            HubState { watcher_limit: watcher_logbuf_size, queue_limit: worker_logbuf_size, ..HubState::default() };
        Hub { state: Arc::new(state), writer: Mutex::new(None) }
    }

    /// Whether somebody watches `stream` now.
    #[inline]
    pub fn wants(&self, stream: Streams) -> bool {
        self.state.wanted().intersects(stream)
    }

    /// Publishes one line, without its `ts=… gid=…` prefix and line feed. Ask [`Hub::wants`] first.
    pub fn publish(&self, stream: Streams, line: fmt::Arguments<'_>) {
        self.state.publish(stream, line);
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

    /// Publishes what the network has done to a connection. Ask [`Hub::wants`] first.
    pub fn conn_error(&self, why: &str, fd: i32) {
        self.publish(Streams::CONNEVENTS, format_args!("type=connerr fd={fd} msg={why}"));
    }

    /// Publishes what is wrong with a connection's TLS. Ask [`Hub::wants`] first.
    pub fn tls_error(&self, why: &str, fd: i32) {
        self.publish(Streams::CONNEVENTS, format_args!("type=conntlserr fd={fd} msg={why}"));
    }

    /// Whether there is room for one more watcher.
    pub fn has_room(&self) -> bool {
        self.state.watchers.load(Ordering::Relaxed) < WATCHERS_MAX
    }

    /// Takes over a connection: sends `OK`, then the lines of `streams` until the client closes. The caller has flushed
    /// the connection's output; it leaves the `OK` of the `watch` command to this, because the client may see it only
    /// when its lines are kept. If there are too many watchers, the client is told so and the connection closed.
    pub fn add_watcher(&self, socket: Box<dyn WatcherSocket>, streams: Streams) {
        let mut writer = lock(&self.writer);
        if writer.is_none() {
            let state = self.state.clone();
            let Ok(handle) = std::thread::Builder::new().name("watch".into()).spawn(move || state.run_writer()) else {
                return;
            };
            *writer = Some(handle);
        }
        self.state.add(socket, streams);
    }

    /// Sets where the store's lines come from. Only the first call counts.
    pub fn set_source(&self, source: impl FnOnce() -> LineSource) {
        lock(&self.state.source).get_or_insert_with(source);
    }

    /// Numbers for `stats`.
    pub fn counts(&self) -> WatchCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WatchCounts {
            worker_dropped: get(&self.state.worker_dropped),
            worker_written: get(&self.state.worker_written),
            watcher_skipped: get(&self.state.watcher_skipped),
            watcher_sent: get(&self.state.watcher_sent),
            watchers: self.state.watchers.load(Ordering::Relaxed) as u64,
        }
    }

    /// `stats reset`, as far as it concerns watching.
    pub fn reset(&self) {
        let state = &self.state;
        for count in [&state.worker_dropped, &state.worker_written, &state.watcher_skipped, &state.watcher_sent] {
            count.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        lock(&self.state.arrivals).stop = true;
        self.state.wake.notify_one();
        let writer = lock(&self.writer).take();
        // If a watcher's connection held the last reference to the hub, the writer thread itself runs this.
        if let Some(writer) = writer.filter(|writer| writer.thread().id() != std::thread::current().id()) {
            // A writer thread that has panicked is stopped already.
            let _ = writer.join();
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("wanted", &self.state.wanted()).field("counts", &self.counts()).finish()
    }
}

/// A key as log lines and metadump print it: all but `A-Z a-z 0-9 - . _ ~` as `%XX`.
#[derive(Clone, Copy, Debug)]
pub struct Uri<'a>(pub &'a [u8]);

impl fmt::Display for Uri<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
        // Most keys have nothing to escape, so runs of such bytes are written at once.
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
struct HubState {
    /// The streams of all watchers together.
    wanted: AtomicU8,
    /// Number of the last line.
    gid: AtomicU64,
    queues: LineQueues,
    queue_limit: usize,
    watcher_limit: usize,
    arrivals: Mutex<NewWatchers>,
    wake: Condvar,
    /// Watchers, with those in `arrivals`.
    watchers: AtomicUsize,
    source: Mutex<Option<LineSource>>,
    worker_dropped: AtomicU64,
    worker_written: AtomicU64,
    watcher_skipped: AtomicU64,
    watcher_sent: AtomicU64,
}

impl HubState {
    fn wanted(&self) -> Streams {
        Streams(self.wanted.load(Ordering::Relaxed))
    }

    fn publish(&self, stream: Streams, line: fmt::Arguments<'_>) {
        let mut queue = lock(self.queues.of_this_thread());
        if queue.bytes() >= self.queue_limit {
            self.worker_dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        // Counted under the queue's lock, so that lines of one thread stay in the order of their gids.
        let gid = self.gid.fetch_add(1, Ordering::Relaxed) + 1;
        queue.push(stream, gid, line);
        self.worker_written.fetch_add(1, Ordering::Relaxed);
    }

    fn add(&self, mut socket: Box<dyn WatcherSocket>, streams: Streams) {
        let mut arrivals = lock(&self.arrivals);
        if self.watchers.load(Ordering::Relaxed) >= WATCHERS_MAX {
            // The socket is closed whether or not it takes this.
            let _ = socket.write(b"WATCHER_TOO_MANY log watcher limit reached\r\n");
            return;
        }
        self.watchers.fetch_add(1, Ordering::Relaxed);
        self.wanted.fetch_or(streams.0, Ordering::Relaxed);
        arrivals.list.push(Watcher::new(socket, streams, self.watcher_limit));
        self.wake.notify_one();
    }

    /// The writer thread.
    fn run_writer(&self) {
        let mut writer = Writer::default();
        while let Some(arrivals) = self.wait(&writer) {
            writer.run_once(self, arrivals);
        }
    }

    /// Waits until there is something to do, and returns new watchers; None when the server stops.
    fn wait(&self, writer: &Writer) -> Option<Vec<Watcher>> {
        let idle = |arrivals: &mut NewWatchers| !arrivals.stop && arrivals.list.is_empty();
        let arrivals = lock(&self.arrivals);
        let mut arrivals = match writer.watchers.is_empty() {
            true => sound(self.wake.wait_while(arrivals, idle)),
            false => sound(self.wake.wait_timeout_while(arrivals, writer.nap, idle)).0,
        };
        (!arrivals.stop).then(|| std::mem::take(&mut arrivals.list))
    }

    /// Updates the counts after `gone` watchers went and these are `left`.
    fn remove(&self, gone: usize, left: &[Watcher]) {
        // Under this lock no watcher is added in between.
        let arrivals = lock(&self.arrivals);
        let wanted = left.iter().chain(&arrivals.list).fold(Streams::default(), |all, w| all.with(w.streams));
        self.wanted.store(wanted.0, Ordering::Relaxed);
        self.watchers.fetch_sub(gone, Ordering::Relaxed);
    }

    /// Publishes the lines of the source, and tells it which streams are watched now.
    fn publish_source(&self) {
        let lines = match lock(&self.source).as_mut() {
            Some(source) => source(self.wanted()),
            None => return,
        };
        for (stream, line) in lines {
            self.publish(stream, format_args!("{line}"));
        }
    }
}

/// Watchers that the writer thread does not have yet.
#[derive(Default)]
struct NewWatchers {
    list: Vec<Watcher>,
    stop: bool,
}

/// One queue for each thread that publishes.
struct LineQueues([Mutex<LineQueue>; QUEUES]);

impl LineQueues {
    fn of_this_thread(&self) -> &Mutex<LineQueue> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % QUEUES);
        &self.0[MINE.with(|&mine| mine)]
    }
}

impl Default for LineQueues {
    fn default() -> LineQueues {
        LineQueues(std::array::from_fn(|_| Mutex::default()))
    }
}

/// Lines that the writer thread has not taken yet, oldest first.
#[derive(Default)]
struct LineQueue {
    text: String,
    lines: Vec<Line>,
}

/// A line of a [`LineQueue`]: it begins where the one before it ends.
#[derive(Clone, Copy)]
struct Line {
    stream: Streams,
    gid: u64,
    end: usize,
}

impl LineQueue {
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
    /// Empty; swapped with one queue after the other, so that lines are read without a lock and no memory is freed.
    batch: LineQueue,
    nap: Duration,
    checked: Instant,
}

impl Writer {
    /// Copies what was published to the watchers, adds the new ones and writes.
    fn run_once(&mut self, state: &HubState, arrivals: Vec<Watcher>) {
        state.publish_source();
        let busy = self.distribute(state);
        for mut watcher in arrivals {
            watcher.after = state.gid.load(Ordering::Relaxed);
            watcher.buffer.extend_from_slice(b"OK\r\n");
            self.watchers.push(watcher);
        }
        self.nap = if busy { NAP_MIN } else { (self.nap * 2).min(NAP_MAX) };
        self.flush();
        self.remove_gone(state);
    }

    /// Copies the lines of all queues to those who watch them. True if there was a line.
    fn distribute(&mut self, state: &HubState) -> bool {
        let mut busy = false;
        for queue in &state.queues.0 {
            std::mem::swap(&mut *lock(queue), &mut self.batch);
            for (line, text) in self.batch.iter() {
                busy = true;
                for watcher in self.watchers.iter_mut().filter(|watcher| watcher.sees(line)) {
                    watcher.push(text, state);
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

    fn remove_gone(&mut self, state: &HubState) {
        let before = self.watchers.len();
        self.watchers.retain(|watcher| !watcher.gone);
        let gone = before - self.watchers.len();
        if gone > 0 {
            state.remove(gone, &self.watchers);
            state.publish_source();
        }
    }
}

impl Default for Writer {
    fn default() -> Writer {
        Writer { watchers: Vec::new(), batch: LineQueue::default(), nap: NAP_MIN, checked: Instant::now() }
    }
}

/// One client that watches.
struct Watcher {
    socket: Box<dyn WatcherSocket>,
    streams: Streams,
    /// It gets lines above this gid.
    after: u64,
    buffer: Vec<u8>,
    limit: usize,
    /// Lines skipped since the last one that fitted.
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
    fn push(&mut self, text: &[u8], state: &HubState) {
        let note = if self.skipped > 0 { format!("skipped={}\n", self.skipped) } else { String::new() };
        let bytes = note.len() + text.len();
        if self.buffer.len() + bytes > self.limit {
            self.flush();
        }
        if self.buffer.len() + bytes > self.limit {
            self.skipped += 1;
            state.watcher_skipped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.skipped = 0;
        self.buffer.extend_from_slice(note.as_bytes());
        self.buffer.extend_from_slice(text);
        state.watcher_sent.fetch_add(1, Ordering::Relaxed);
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

    /// Notices that the client has closed.
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
