//! What watchers are told, and what happens to slow ones.

use super::*;
use std::io;

/// The client's end of an in-memory connection.
#[derive(Clone, Default)]
struct Client(Arc<Mutex<ClientState>>);

#[derive(Default)]
struct ClientState {
    received: Vec<u8>,
    /// Bytes it would take now.
    room: usize,
    /// Bytes it has said, which nobody wants to hear.
    said: usize,
    closed: bool,
    /// The server has dropped its end.
    dropped: bool,
}

struct ServerEnd(Client);

impl Read for ServerEnd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = lock(&self.0.0);
        let n = buffer.len().min(state.said);
        state.said -= n;
        if n > 0 || state.closed { Ok(n) } else { Err(ErrorKind::WouldBlock.into()) }
    }
}

impl Write for ServerEnd {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.0.0);
        let n = bytes.len().min(state.room);
        if n == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.room -= n;
        state.received.extend_from_slice(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        lock(&self.0.0).dropped = true;
    }
}

impl Client {
    fn with_room(room: usize) -> Client {
        let client = Client::default();
        lock(&client.0).room = room;
        client
    }

    fn end(&self) -> Box<dyn WatcherSocket> {
        Box::new(ServerEnd(self.clone()))
    }

    /// Lines received so far, without their time.
    fn take(&self) -> Vec<String> {
        let received = std::mem::take(&mut lock(&self.0).received);
        let text = String::from_utf8(received).unwrap();
        text.lines().map(|line| line.split_once(" gid=").map_or(line, |(_, rest)| rest).to_string()).collect()
    }

    fn close(&self) {
        lock(&self.0).closed = true;
    }

    fn is_dropped(&self) -> bool {
        lock(&self.0).dropped
    }
}

/// A hub without its thread: the test takes the turns.
struct TestHub {
    hub: Hub,
    writer: Writer,
}

impl TestHub {
    fn new(watcher: usize, worker: usize) -> TestHub {
        TestHub { hub: Hub::new(watcher, worker), writer: Writer::default() }
    }

    fn watch(&mut self, client: &Client, streams: Streams) {
        self.hub.state.add(client.end(), streams);
        self.turn();
    }

    fn turn(&mut self) {
        let arrivals = std::mem::take(&mut lock(&self.hub.state.arrivals).list);
        self.writer.checked = Instant::now() - CHECK_EVERY;
        self.writer.run_once(&self.hub.state, arrivals);
    }

    fn line(&self, stream: Streams, line: &str) {
        self.hub.publish(stream, format_args!("{line}"));
    }
}

#[test]
fn only_the_streams_asked_for() {
    let mut rig = TestHub::new(1 << 16, 1 << 16);
    let (a, b) = (Client::with_room(1 << 16), Client::with_room(1 << 16));
    assert!(!rig.hub.wants(Streams::FETCHERS));
    rig.watch(&a, Streams::FETCHERS);
    rig.watch(&b, Streams::FETCHERS.with(Streams::MUTATIONS));
    assert!(rig.hub.wants(Streams::FETCHERS) && rig.hub.wants(Streams::MUTATIONS));
    assert!(!rig.hub.wants(Streams::DELETIONS));
    rig.line(Streams::FETCHERS, "one");
    rig.line(Streams::MUTATIONS, "two");
    rig.turn();
    assert_eq!(a.take(), ["OK", "1 one"]);
    assert_eq!(b.take(), ["OK", "1 one", "2 two"]);
    assert_eq!(rig.hub.counts().watcher_sent, 3);
    assert_eq!(rig.hub.counts().worker_written, 2);
}

#[test]
fn older_lines_are_not_shown() {
    let mut rig = TestHub::new(1 << 16, 1 << 16);
    let (a, b) = (Client::with_room(1 << 16), Client::with_room(1 << 16));
    rig.watch(&a, Streams::FETCHERS);
    rig.line(Streams::FETCHERS, "before");
    rig.watch(&b, Streams::FETCHERS);
    rig.line(Streams::FETCHERS, "after");
    rig.turn();
    assert_eq!(a.take(), ["OK", "1 before", "2 after"]);
    assert_eq!(b.take(), ["OK", "2 after"]);
}

#[test]
fn a_full_ring_drops() {
    let mut rig = TestHub::new(1 << 16, 200);
    let client = Client::with_room(1 << 16);
    rig.watch(&client, Streams::FETCHERS);
    for _ in 0..10 {
        rig.line(Streams::FETCHERS, "x");
    }
    let counts = rig.hub.counts();
    assert_eq!(counts.worker_written + counts.worker_dropped, 10);
    assert!(counts.worker_dropped > 0 && counts.worker_written > 0, "{counts:?}");
    rig.turn();
    assert_eq!(client.take().len() as u64, 1 + counts.worker_written);
    rig.line(Streams::FETCHERS, "room again");
    rig.turn();
    assert_eq!(client.take().len(), 1);
    rig.hub.reset();
    assert_eq!(rig.hub.counts(), WatchCounts { watchers: 1, ..WatchCounts::default() });
}

#[test]
fn a_slow_watcher_skips() {
    let mut rig = TestHub::new(100, 1 << 16);
    let client = Client::with_room(4);
    rig.watch(&client, Streams::FETCHERS);
    for _ in 0..10 {
        rig.line(Streams::FETCHERS, "x");
        rig.turn();
    }
    let sent = rig.hub.counts().watcher_sent;
    assert!((1..10).contains(&sent), "{sent}");
    assert_eq!(rig.hub.counts().watcher_skipped, 10 - sent);
    client.0.lock().unwrap().room = 1 << 16;
    rig.line(Streams::FETCHERS, "last");
    rig.turn();
    let lines = client.take();
    assert_eq!(lines.len() as u64, 1 + sent + 2);
    assert_eq!(lines[lines.len() - 2..], [format!("skipped={}", 10 - sent), "11 last".to_string()]);
}

#[test]
fn a_closed_watcher_is_let_go() {
    let mut rig = TestHub::new(100, 1 << 16);
    let client = Client::with_room(100);
    rig.watch(&client, Streams::DELETIONS);
    assert_eq!(rig.hub.counts().watchers, 1);
    client.close();
    rig.turn();
    assert!(client.is_dropped());
    assert!(!rig.hub.wants(Streams::DELETIONS));
    assert_eq!(rig.hub.counts().watchers, 0);
}

#[test]
fn the_end_of_a_watcher_is_found_behind_what_it_said() {
    let mut rig = TestHub::new(100, 100);
    let client = Client::with_room(100);
    rig.watch(&client, Streams::DELETIONS);
    client.0.lock().unwrap().said = 100_000;
    client.close();
    rig.turn();
    assert!(client.is_dropped());
}

#[test]
fn twenty_and_no_more() {
    let mut rig = TestHub::new(100, 100);
    let clients: Vec<Client> = (0..21).map(|_| Client::with_room(100)).collect();
    for client in &clients {
        assert_eq!(rig.hub.has_room(), rig.hub.counts().watchers < 20);
        rig.watch(client, Streams::FETCHERS);
    }
    assert_eq!(clients[19].take(), ["OK"]);
    assert_eq!(clients[20].take(), ["WATCHER_TOO_MANY log watcher limit reached"]);
    assert!(clients[20].is_dropped() && !clients[19].is_dropped());
}

#[test]
fn the_source_hears_what_is_wanted() {
    let mut rig = TestHub::new(1 << 16, 1 << 16);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    rig.hub.set_source(move || {
        Box::new(move |streams| {
            log.lock().unwrap().push(streams);
            vec![(Streams::EVICTIONS, "gone".to_string())]
        })
    });
    let client = Client::with_room(1 << 16);
    rig.watch(&client, Streams::EVICTIONS);
    rig.turn();
    assert_eq!(client.take(), ["OK", "2 gone"]);
    client.close();
    rig.turn();
    assert_eq!(asked.lock().unwrap().last(), Some(&Streams::default()));
}

#[test]
fn lines_of_each_kind() {
    let mut rig = TestHub::new(1 << 16, 1 << 16);
    let client = Client::with_room(1 << 16);
    rig.watch(&client, Streams(0xff));
    let hub = &rig.hub;
    hub.item_get(b"a,b", "not_found", 0, 36, 0);
    let store = ItemStore { key: b"foo", status: "stored", cmd: "set", ttl: 100, class: 1, fd: 36, size: 3 };
    hub.item_store(&store);
    hub.deleted(b"n", "delete", 1, 1);
    hub.conn_new("127.0.0.1", 48002, "tcp", 38);
    hub.conn_close("127.0.0.1", 48002, "tcp", "normal", 38);
    hub.conn_error("Connection reset by peer", 38);
    hub.tls_error("timed out", 38);
    rig.turn();
    let expected = [
        "OK",
        "1 type=item_get key=a%2Cb status=not_found clsid=0 cfd=36 size=0",
        "2 type=item_store key=foo status=stored cmd=set ttl=100 clsid=1 cfd=36 size=3",
        "3 type=deleted key=n cmd=delete clsid=1 size=1",
        "4 type=conn_new rip=127.0.0.1 rport=48002 transport=tcp cfd=38",
        "5 type=conn_close rip=127.0.0.1 rport=48002 transport=tcp reason=normal cfd=38",
        "6 type=connerr fd=38 msg=Connection reset by peer",
        "7 type=conntlserr fd=38 msg=timed out",
    ];
    assert_eq!(client.take(), expected);
}

#[test]
fn watch_usec() {
    let mut queue = LineQueue::default();
    queue.push(Streams::FETCHERS, 7, format_args!("x"));
    let (ts, rest) = queue.text.split_once(' ').unwrap();
    assert_eq!(rest, "gid=7 x\n");
    let (sec, usec) = ts.strip_prefix("ts=").unwrap().split_once('.').unwrap();
    assert!(sec.parse::<u64>().is_ok());
    assert_eq!(usec, usec.parse::<u32>().unwrap().to_string(), "not padded");
}

#[test]
fn the_thread_serves_and_stops() {
    let hub = Hub::new(256 << 10, 64 << 10);
    let client = Client::with_room(1 << 16);
    hub.add_watcher(client.end(), Streams::FETCHERS);
    while client.0.lock().unwrap().received != b"OK\r\n" {
        std::thread::yield_now();
    }
    client.take();
    hub.publish(Streams::FETCHERS, format_args!("hello"));
    while client.0.lock().unwrap().received.is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(client.take(), ["1 hello"]);
    drop(hub);
    assert!(client.is_dropped());
}

#[test]
fn the_thread_may_be_the_last_to_hold_the_hub() {
    /// A watcher's connection that is gone and lets go of the hub.
    struct Last(Option<Arc<Hub>>, std::sync::mpsc::Sender<()>);

    impl Read for Last {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
    }

    impl Write for Last {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Ok(0)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Drop for Last {
        fn drop(&mut self) {
            let hub = self.0.take().expect("dropped once");
            while Arc::strong_count(&hub) > 1 {
                std::thread::yield_now();
            }
            drop(hub);
            self.1.send(()).expect("the test waits");
        }
    }

    let hub = Arc::new(Hub::new(256 << 10, 64 << 10));
    let (sender, dropped) = std::sync::mpsc::channel();
    hub.add_watcher(Box::new(Last(Some(hub.clone()), sender)), Streams::FETCHERS);
    drop(hub);
    dropped.recv().expect("the writer thread lets go of the hub and goes on");
}

#[test]
fn uri() {
    assert_eq!(Uri(b"aZ09-._~").to_string(), "aZ09-._~");
    assert_eq!(Uri(b"a b%\x00\xff").to_string(), "a%20b%25%00%FF");
}
