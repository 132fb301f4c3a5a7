//! Replies that wait for replicas, over sockets, against a server inside the test's own process.
//!
//! The test is the replica: what it says is safe, is safe.

mod common;

use common::{Conn, DEADLINE, Running, Waited, until};
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use twincache::config::Config;
use twincache::journal::acks::Acks;

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// A server that waits for one replica.
struct Waiting(Running);

impl Deref for Waiting {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.0
    }
}

impl Waiting {
    fn start(ack_timeout: Duration, change: impl FnOnce(&mut Config)) -> Waiting {
        let running = Running::start(|config| {
            config.ack_timeout = ack_timeout;
            change(config);
        });
        running.shared.store.journal().set_required(1, Instant::now());
        Waiting(running)
    }

    fn acks(&self) -> &Acks {
        self.shared.store.journal().acks()
    }

    /// The replica has everything.
    fn confirm(&self) {
        self.acks().advance(self.shared.store.journal().lsn());
    }

    fn await_held(&self, replies: u64) {
        until("the count of replies that wait", || {
            self.shared.stats.replies_waiting.load(Ordering::Relaxed) == replies
        });
    }
}

/// Nothing has come so far.
fn expect_nothing(conn: &mut Conn) {
    assert_eq!(conn.receive(Duration::from_millis(1)), Waited::Quiet);
}

#[test]
fn a_held_reply_takes_until_it_is_let_go() {
    let server = Waiting::start(NEVER, |_| {});
    let (mut held, mut other) = (server.connect(), server.connect());
    other.ask(b"get none\r\n", b"END\r\n");
    held.send(b"set key 0 0 1\r\nx\r\n");
    server.await_held(1);
    let wait = Duration::from_millis(20);
    std::thread::sleep(wait);
    other.ask(b"get none\r\n", b"END\r\n");
    server.confirm();
    held.expect("STORED\r\n");
    let kind = |name| server.shared.stats.latencies.kinds().into_iter().find(|kind| kind.name == name).unwrap();
    // It is noted a moment after the reply was written.
    until("the time of the reply", || kind("set").count() == 1);
    assert!(kind("set").longest >= wait, "{:?}", kind("set"));
    until("the times of the others", || kind("get").count() == 2);
}

#[test]
fn a_read_waits_for_what_it_has_read() {
    let running = Waiting::start(NEVER, |config| config.store.linearizable = true);
    let mut writer = running.connect();
    writer.send(b"set a 0 0 1\r\nA\r\nset c 0 0 1\r\nC\r\n");
    running.await_held(2);
    running.confirm();
    writer.expect("STORED\r\nSTORED\r\n");
    // The readers come by all protocols and commands: present, gone, changed.
    let requests: [(&[u8], &str); 6] = [
        (b"get a\r\n", "VALUE a 0 1\r\nB\r\nEND\r\n"),
        (b"get x a\r\n", "VALUE a 0 1\r\nB\r\nEND\r\n"),
        (b"mg a v\r\n", "VA 1\r\nB\r\n"),
        (b"get c\r\n", "END\r\n"),
        (b"mg c v q\r\nmn\r\n", "MN\r\n"),
        (b"add a 0 0 1\r\nX\r\n", "NOT_STORED\r\n"),
    ];
    let mut readers: Vec<Conn> = requests.iter().map(|_| running.connect()).collect();
    writer.send(b"set a 0 0 1\r\nB\r\ndelete c\r\n");
    running.await_held(2);
    for (reader, (request, _)) in readers.iter_mut().zip(requests) {
        reader.send(request);
    }
    running.await_held(2 + requests.len() as u64);
    assert_eq!(running.connect().ask(b"get unrelated\r\n", b"END\r\n"), b"END\r\n", "others go on");
    readers.iter_mut().for_each(expect_nothing);
    running.confirm();
    writer.expect("STORED\r\nDELETED\r\n");
    for (reader, (_, reply)) in readers.iter_mut().zip(requests) {
        reader.expect(reply);
    }
    running.await_held(0);
    assert_eq!(writer.ask(b"get a\r\n", b"END\r\n"), b"VALUE a 0 1\r\nB\r\nEND\r\n", "nothing to wait for");
}

#[test]
fn a_read_after_a_flush_waits_for_it() {
    let running = Waiting::start(NEVER, |config| config.store.linearizable = true);
    let (mut writer, mut reader) = (running.connect(), running.connect());
    writer.send(b"flush_all\r\n");
    running.await_held(1);
    reader.send(b"get a\r\n");
    running.await_held(2);
    expect_nothing(&mut reader);
    running.confirm();
    reader.expect("END\r\n");
}

#[test]
fn a_read_that_waits_in_vain_is_an_error() {
    let running = Waiting::start(Duration::from_millis(100), |config| config.store.linearizable = true);
    let (mut writer, mut reader) = (running.connect(), running.connect());
    writer.send(b"set a 0 0 1\r\nA\r\n");
    // It may wait no more when a busy machine lets this look.
    until("a reply that has waited", || running.shared.stats.totals().replies_held == 1);
    reader.send(b"get a\r\n");
    writer.expect("SERVER_ERROR not replicated\r\n");
    reader.expect("SERVER_ERROR not replicated\r\n");
}

/// An append to a large value is looked at once before it is done: nothing is answered then, although what it met is not
/// confirmed.
#[test]
fn an_append_that_waits_in_vain_is_answered_once() {
    let running = Waiting::start(Duration::from_millis(100), |config| config.store.linearizable = true);
    let value = vec![b'v'; 400_000];
    let set = [b"set k 0 0 400000\r\n", &value[..], b"\r\n"].concat();
    let small = b"ms k 1 MA\r\nx\r\nmn\r\n";
    let large = [b"ms k 400000 MA\r\n", &value[..], b"\r\nmn\r\n"].concat();
    for append in [&small[..], &large] {
        let (mut writer, mut appender) = (running.connect(), running.connect());
        let held = || running.shared.stats.totals().replies_held;
        let before = held();
        writer.send(&set);
        until("a reply that has waited", || held() > before);
        appender.send(append);
        appender.expect("SERVER_ERROR not replicated\r\nMN\r\n");
        expect_nothing(&mut appender);
        writer.expect("SERVER_ERROR not replicated\r\n");
    }
}

#[test]
fn others_go_on_while_a_reply_waits() {
    let running = Waiting::start(NEVER, |_| {});
    let (mut writer, mut reader) = (running.connect(), running.connect());
    writer.send(b"set a 0 0 1\r\nA\r\nget a\r\n");
    running.await_held(1);
    assert_eq!(reader.ask(b"get a\r\n", b"END\r\n"), b"VALUE a 0 1\r\nA\r\nEND\r\n");
    expect_nothing(&mut writer);
    running.confirm();
    writer.expect("STORED\r\nVALUE a 0 1\r\nA\r\nEND\r\n");
    running.await_held(0);
}

#[test]
fn one_confirmation_releases_many() {
    const CLIENTS: u64 = 100;
    let running = Waiting::start(NEVER, |_| {});
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| running.connect()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send(format!("ms {number} 1\r\n{round}\r\nmn\r\n").as_bytes());
        }
        running.await_held(CLIENTS);
        running.confirm();
        clients.iter_mut().for_each(|client| client.expect("HD\r\nMN\r\n"));
    }
    let totals = running.shared.stats.totals();
    assert_eq!((totals.replies_held, totals.replies_timed_out), (5 * CLIENTS, 0));
}

#[test]
fn what_is_not_confirmed_in_time_is_an_error() {
    let running = Waiting::start(Duration::from_millis(20), |_| {});
    let mut client = running.connect();
    for _ in 0..3 {
        client.send(b"set a 0 0 1\r\nA\r\ndelete a noreply\r\nget a\r\n");
        client.expect("SERVER_ERROR not replicated\r\nEND\r\n");
    }
    client.send(b"mn\r\nquit\r\n");
    client.expect("MN\r\n");
    client.expect_end();
    let totals = running.shared.stats.totals();
    assert_eq!((totals.replies_held, totals.replies_timed_out), (3, 3));
    assert!(!running.acks().is_degraded());
}

/// The last of them expires; the first was passed by what is safe, because a replica has refused it.
#[test]
fn what_was_refused_is_not_confirmed_when_another_is_too_late() {
    let running = Waiting::start(Duration::from_millis(20), |_| {});
    let lsn = running.shared.store.journal().lsn();
    running.acks().refuse(lsn, lsn + 1);
    running.acks().advance(lsn + 2);
    let mut client = running.connect();
    client.send(b"set a 0 0 1\r\nA\r\nset b 0 0 1\r\nB\r\nset c 0 0 1\r\nC\r\n");
    client.expect("SERVER_ERROR not replicated\r\nSTORED\r\nSERVER_ERROR not replicated\r\n");
}

#[test]
fn who_may_degrade_answers_as_ever_until_replicas_have_caught_up() {
    let running = Waiting::start(Duration::from_millis(20), |config| config.ack_degrade = true);
    let (mut client, mut other) = (running.connect(), running.connect());
    client.send(b"set a 0 0 1\r\nA\r\n");
    other.send(b"set b 0 0 1\r\nB\r\n");
    client.expect("STORED\r\n");
    other.expect("STORED\r\n");
    assert!(running.acks().is_degraded());
    assert_eq!(client.line("delete a"), "DELETED");
    running.await_held(0);
    running.confirm();
    assert!(!running.acks().is_degraded() && running.acks().holds());
    assert_eq!(running.shared.stats.totals().replies_timed_out, 0);
}

#[test]
fn a_graceful_stop_waits_for_replicas() {
    for is_confirmed in [true, false] {
        let grace = if is_confirmed { DEADLINE } else { Duration::from_millis(100) };
        let running = Waiting::start(NEVER, |config| config.stop_grace = grace);
        let mut client = running.connect();
        client.send(b"set a 0 0 1\r\nA\r\nmn\r\n");
        running.await_held(1);
        let Waiting(Running { server, shared }) = running;
        let stop = std::thread::spawn(move || server.stop(true));
        expect_nothing(&mut client);
        if is_confirmed {
            shared.store.journal().acks().advance(shared.store.journal().lsn());
            client.expect("STORED\r\nMN\r\n");
        }
        client.expect_end();
        stop.join().expect("no panic");
    }
}

#[test]
fn a_stop_does_not_send_what_is_not_safe() {
    let running = Waiting::start(NEVER, |_| {});
    let mut client = running.connect();
    client.send(b"set a 0 0 1\r\nA\r\n");
    running.await_held(1);
    running.0.server.stop(false);
    client.expect_end();
}

#[test]
fn who_hangs_up_is_let_go_of_when_it_is_safe() {
    let running = Waiting::start(NEVER, |_| {});
    let mut client = running.connect();
    client.send(b"set a 0 0 1\r\nA\r\n");
    running.await_held(1);
    drop(client);
    running.confirm();
    running.await_open(1);
    running.await_held(0);
}

#[test]
fn who_is_held_is_not_idle() {
    let running = Waiting::start(NEVER, |config| config.idle_timeout = 1);
    // Only what is added counts.
    running.shared.clock.pause(true);
    let (mut held, mut idle) = (running.connect(), running.connect());
    idle.ask(b"mn\r\n", b"MN\r\n");
    held.send(b"set a 0 0 1\r\nA\r\n");
    running.await_held(1);
    running.shared.clock.advance(60);
    idle.expect_end();
    running.confirm();
    held.expect("STORED\r\n");
}

#[test]
fn switching_it_off_lets_everybody_go() {
    let running = Waiting::start(NEVER, |_| {});
    let mut client = running.connect();
    client.send(b"set a 0 0 1\r\nA\r\n");
    running.await_held(1);
    running.shared.store.journal().set_required(0, Instant::now());
    client.expect("STORED\r\n");
    assert_eq!(client.line("delete a"), "DELETED");
}
