//! Batches of connections of a worker that is driven step by step.

use super::*;
use crate::config::{Binding, Config, ListenAddr};
use crate::net::acceptor::Acceptor;
use crate::net::admission::{Gate, Inboxes};
use crate::net::listen::listen;
use crate::testing::TestServer;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A worker that does what it is told, step by step, and its clients, in the order of their slots.
struct TestWorker {
    worker: Worker,
    reads: ReadBatch,
    clients: Vec<TcpStream>,
    gate: Arc<Gate>,
}

impl TestWorker {
    fn new(clients: usize) -> TestWorker {
        TestWorker::with(clients, |_| {})
    }

    fn with(clients: usize, set: impl FnOnce(&mut Config)) -> TestWorker {
        let address = ListenAddr { host: "127.0.0.1".into(), port: Some(0), binding: Some(Binding::Ascii), tls: None };
        let listen_there = |config: &mut Config| {
            (config.tcp_port, config.listen) = (None, vec![address]);
            set(config);
        };
        let shared = TestServer::new(listen_there).shared;
        let (stop, listeners) = (Arc::new(Stop::default()), listen(&shared.config).expect("a free port"));
        let address = crate::net::tcp_address(&listeners[0].socket).expect("an address");
        let (worker, inbox) = Worker::new(shared.clone(), stop.clone()).expect("a worker");
        let (workers, handshakers) = (Inboxes::new(vec![inbox]), Inboxes::default());
        let (acceptor, gate) =
            Acceptor::new(shared, stop.clone(), listeners, workers, handshakers).expect("an acceptor");
        let acceptor = std::thread::spawn(move || acceptor.run());
        let mut rig = TestWorker { worker, reads: ReadBatch::new(), clients: Vec::new(), gate: gate.clone() };
        for number in 1..=clients {
            rig.clients.push(TcpStream::connect(address).expect("a connection"));
            while rig.worker.clients.len() < number {
                rig.poll();
                rig.worker.welcome();
            }
        }
        stop.set(StopMode::Now);
        gate.wake();
        acceptor.join().expect("it ends");
        rig
    }

    /// Tells the connections what poll tells.
    fn poll(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        self.worker.poll.poll(&mut events, Some(Duration::from_millis(10))).expect("a poll");
        for event in &events {
            if let Some(client) = self.worker.clients.get_mut(event.token().0) {
                client.connection.socket().note(event.into());
            }
        }
    }

    /// Sends a request and waits until it can be read.
    fn send(&mut self, key: usize, request: &[u8]) {
        self.clients[key].write_all(request).expect("it is small");
        while !self.worker.clients[key].connection.can_read_early() {
            self.poll();
        }
    }

    /// Queues connections, and gives them their turns a little later.
    fn run(&mut self, keys: Range<usize>, later: Duration) {
        self.worker.meter.begin(false, false);
        keys.for_each(|key| self.worker.enqueue(key, Instant::now()));
        std::thread::sleep(later);
        self.worker.run_ready(&mut self.reads);
    }

    fn reply(&mut self, key: usize, end: &[u8]) -> usize {
        let mut reply = Vec::new();
        while !reply.ends_with(end) {
            let mut buffer = [0; 4096];
            let len = self.clients[key].read(&mut buffer).expect("a reply");
            assert!(len > 0, "closed");
            reply.extend_from_slice(&buffer[..len]);
        }
        reply.len()
    }

    fn queued(&self) -> Vec<usize> {
        self.worker.ready.iter().map(|&(key, _)| key).collect()
    }
}

#[test]
fn a_batch_of_large_values_is_put_off_when_it_takes_long() {
    let mut rig = TestWorker::new(4);
    let set = [b"set large 0 0 16384\r\n".as_slice(), &[b'v'; 16384], b"\r\n"].concat();
    rig.send(0, &set);
    rig.run(0..1, Duration::ZERO);
    assert_eq!(rig.reply(0, b"\r\n"), b"STORED\r\n".len());
    (0..4).for_each(|key| rig.send(key, if key == 0 { b"get small\r\n" } else { b"get large\r\n" }));
    // The clock is looked at for the first time when the first large value has gone.
    rig.run(0..4, 2 * BATCH_TIME);
    assert_eq!(rig.queued(), [2, 3]);
    while !rig.queued().is_empty() {
        rig.run(0..0, Duration::ZERO);
    }
    let whole = b"VALUE large 0 16384\r\n\r\nEND\r\n".len() + 16384;
    assert_eq!([0, 1, 2, 3].map(|key| rig.reply(key, b"END\r\n")), [5, whole, whole, whole]);
}

#[test]
fn a_large_reply_leaves_no_memory_behind() {
    let mut rig = TestWorker::new(1);
    for (capacity, kept) in [(OUTPUT_KEEP, OUTPUT_KEEP), (2 * OUTPUT_KEEP, 0)] {
        rig.worker.out.bytes = Vec::with_capacity(capacity);
        rig.send(0, b"get missing\r\n");
        rig.run(0..1, Duration::ZERO);
        rig.reply(0, b"END\r\n");
        assert_eq!(rig.worker.out.bytes.capacity(), kept);
    }
}

/// Who comes before a connection in a turn may be what makes it the one that holds too much.
#[test]
fn who_is_closed_for_what_it_holds_has_no_turn_any_more() {
    let mut rig = TestWorker::with(3, |config| (config.threads, config.read_buf_mem_limit) = (1, 100 << 10));
    let line = |len: usize| [b"get ".as_slice(), &b"key ".repeat(len / 4)].concat();
    for (key, len) in [(0, 60_000), (1, 30_000)] {
        rig.send(key, &line(len));
        rig.run(key..key + 1, Duration::ZERO);
    }
    assert_eq!(rig.worker.clients.len(), 3, "there is room for what two of them hold");
    // Little enough to be answered together with others.
    rig.send(2, &line(14_000));
    rig.clients[0].write_all(b"more").unwrap();
    while !rig.worker.clients[0].connection.socket().is_readable() {
        rig.poll();
    }
    rig.worker.meter.begin(false, false);
    [2, 0].iter().for_each(|key| rig.worker.enqueue(*key, Instant::now()));
    rig.worker.run_ready(&mut rig.reads);
    assert!(!rig.worker.clients.contains(0) && rig.worker.clients.contains(2));
}

#[test]
fn the_line_of_a_large_value_counts_as_held_until_the_value_is_there() {
    let mut rig = TestWorker::with(3, |config| (config.threads, config.read_buf_mem_limit) = (1, 100 << 10));
    rig.send(0, &[b"set large 0 0 17000\r\n".as_slice(), &[b'v'; 17_000], b"\r\n"].concat());
    rig.run(0..1, Duration::ZERO);
    rig.reply(0, b"\r\n");
    let line = |words: &str| [words.as_bytes(), &[b' '; 60_000], b"\r\n"].concat();
    let held = |rig: &TestWorker| rig.worker.shared.stats.held_input.load(Ordering::Relaxed);
    for (key, words) in [(1, "set other 0 0 20000"), (2, "append large 0 0 20000")] {
        rig.clients[key].write_all(&line(words)).unwrap();
        let begins = |client: &Client| client.connection.session().upload_missing() > 0;
        while rig.worker.clients.get(key).is_some_and(|client| !begins(client)) {
            rig.poll();
            rig.run(key..key + 1, Duration::ZERO);
        }
        assert!((60_000..61_000).contains(&held(&rig)), "{} bytes", held(&rig));
    }
    assert_eq!(rig.worker.clients.len(), 2, "there is no room for two");
    let left = if rig.worker.clients.contains(1) { 1 } else { 2 };
    rig.clients[left].write_all(&[&[b'v'; 20_000][..], b"\r\n"].concat()).unwrap();
    while held(&rig) > 0 {
        rig.poll();
        rig.worker.meter.begin(false, false);
        if !rig.worker.clients[left].queued {
            rig.worker.enqueue(left, Instant::now());
        }
        rig.worker.run_ready(&mut rig.reads);
        rig.worker.run_large(true);
    }
    assert_eq!(rig.reply(left, b"\r\n"), b"STORED\r\n".len());
}

#[test]
fn sockets_of_the_server_take_no_share_of_the_connections() {
    let mut rig = TestWorker::with(1, |config| config.max_conns = 2);
    let gate = rig.gate.clone();
    let open = |rig: &TestWorker| rig.worker.shared.stats.curr_conns.load(Ordering::Relaxed);
    let before = open(&rig);
    for _ in 0..3 {
        let socket = mio::net::UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
        rig.worker.add_udp(socket, &gate).expect("it is watched");
    }
    assert_eq!(open(&rig), before + 3, "they are counted");
    assert!(!gate.is_full(), "there is room for one more client");
}

#[test]
fn a_long_answer_over_udp_is_sent_in_several_turns() {
    let mut rig = TestWorker::new(1);
    let socket = mio::net::UdpSocket::bind("127.0.0.1:0".parse().expect("an address")).expect("a socket");
    let (server, gate) = (socket.local_addr().expect("an address"), rig.gate.clone());
    rig.worker.add_udp(socket, &gate).expect("it is watched");
    rig.send(0, &[b"set large 0 0 50000\r\n".as_slice(), &[b'v'; 50_000], b"\r\n"].concat());
    rig.run(0..1, Duration::ZERO);
    assert_eq!(rig.reply(0, b"\r\n"), b"STORED\r\n".len());
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let request = [b"\0\x07\0\0\0\x01\0\0get".as_slice(), &b" large".repeat(20), b"\r\n"].concat();
    client.send_to(&request, server).expect("it is sent");
    let (before, mut turns) = (rig.worker.counters.bytes_written.get(), 0);
    while rig.worker.counters.bytes_written.get() - before < 1_000_000 {
        turns += 1;
        rig.worker.meter.begin(false, false);
        match rig.worker.ready.pop_front() {
            Some((key, _)) => rig.worker.resume_udp(key),
            None => rig.worker.serve_udp(usize::MAX - 2, false),
        }
    }
    assert!(turns > 1, "700 datagrams in one turn");
}

#[test]
fn who_asks_for_little_does_not_wait_for_a_crowd_that_asks_for_much() {
    const LEN: usize = 60_000;
    let mut rig = TestWorker::new(20);
    rig.send(0, &[format!("set large 0 0 {LEN}\r\n").as_bytes(), &[b'v'; LEN], b"\r\n"].concat());
    rig.run(0..1, Duration::ZERO);
    assert_eq!(rig.reply(0, b"\r\n"), b"STORED\r\n".len());
    (0..20).for_each(|key| rig.send(key, if key == 19 { b"get small\r\n" } else { b"get large\r\n" }));
    let (counters, mut before) = (rig.worker.counters.clone(), rig.worker.counters.bytes_written.get());
    rig.worker.begin_loop(20);
    rig.run(0..20, Duration::ZERO);
    while !rig.queued().is_empty() {
        rig.run(0..0, Duration::ZERO);
    }
    assert_eq!(counters.bytes_written.get() - before, b"END\r\n".len() as u64, "the others have got in line");
    assert_eq!(rig.reply(19, b"END\r\n"), b"END\r\n".len());
    // Who comes later stands behind them.
    rig.send(19, b"get large\r\n");
    rig.worker.begin_loop(1);
    rig.run(19..20, Duration::ZERO);
    assert_eq!(rig.worker.large.back().map(|&(key, _)| key), Some(19));
    while rig.worker.has_queues() {
        before = counters.bytes_written.get();
        rig.worker.meter.begin(false, false);
        rig.worker.run_large(true);
        assert!(counters.bytes_written.get() > before, "one has its turn at least");
    }
    let whole = format!("VALUE large 0 {LEN}\r\n\r\nEND\r\n").len() + LEN;
    (0..20).for_each(|key| assert_eq!(rig.reply(key, b"END\r\n"), whole));
}

#[test]
fn who_is_alone_is_sent_a_large_value_at_once() {
    let mut rig = TestWorker::new(1);
    rig.send(0, &[b"set large 0 0 60000\r\n".as_slice(), &[b'v'; 60_000], b"\r\n"].concat());
    rig.run(0..1, Duration::ZERO);
    rig.send(0, b"get large\r\n");
    rig.worker.begin_loop(1);
    rig.run(0..1, Duration::ZERO);
    assert!(!rig.worker.has_queues());
    assert!(rig.reply(0, b"END\r\n") > 60_000);
}

#[test]
fn many_that_are_idle_are_closed_a_few_at_a_time() {
    // Also when the last is closed before the sweep has been at all slots.
    for count in [20, 24] {
        let mut rig = TestWorker::with(count, |config| config.idle_timeout = 10);
        rig.worker.shared.clock.advance(60);
        rig.worker.idle_sweep.pause_at(0);
        let (mut left, mut sweeps) = (count, 0);
        while rig.worker.idle_sweep.is_on() {
            rig.worker.sweep();
            let now = rig.worker.clients.len();
            assert!(left - now <= 8, "{} in one turn", left - now);
            (left, sweeps) = (now, sweeps + 1);
            assert!(sweeps < 100, "a sweep never ends, and no poll waits");
        }
        assert_eq!(left, 0);
    }
}
