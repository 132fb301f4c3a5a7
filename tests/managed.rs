//! A server that is told its role (`-o managed`), as a process: whom it answers, and whom it does not.

mod common;

use common::{Conn, DEADLINE, Folder, Server, Waited, show, until};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use twincache::sys::cpu::time_since_boot;

/// A managed server, and a connection to its control socket.
struct Managed {
    server: Server,
    control: BufReader<UnixStream>,
}

impl Managed {
    fn start(more: &[&str]) -> Managed {
        let folder = Folder::new();
        let socket = folder.file("control");
        let options = format!("managed,control_socket={socket}");
        let server = Server::start_in(folder, &[&["-o", &options], more].concat());
        let stream = UnixStream::connect(socket).expect("the control socket");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut managed = Managed { server, control: BufReader::new(stream) };
        assert!(managed.hear().starts_with("twincache 1 "));
        managed
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn tell(&mut self, line: &str) -> String {
        self.control.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.hear()
    }

    /// Makes it primary for so long.
    fn promote(&mut self, epoch: u64, time: Duration) {
        let deadline = (time_since_boot() + time).as_millis();
        let answer = self.tell(&format!("role primary {epoch} {deadline}"));
        assert!(answer.starts_with(&format!("role primary {epoch} ")), "{answer}");
    }

    fn connect(&self) -> Conn {
        self.server.connect()
    }
}

const HOUR: Duration = Duration::from_secs(3600);
/// For so long after a demotion clients are sent away.
const MOVING: Duration = Duration::from_secs(1);

const NOT_PRIMARY: &str = "SERVER_ERROR not primary";

#[test]
fn it_needs_somebody_to_tell_it() {
    let refused = Server::try_start(&["-o", "managed"]).err().expect("it has no control socket");
    assert!(refused.contains("managed needs control_socket: nobody could tell the server its role"), "{refused}");
}

#[test]
fn who_waits_answers_nobody_and_a_primary_does() {
    let mut managed = Managed::start(&[]);
    let mut conn = managed.connect();
    assert_eq!(managed.tell("role"), "role waiting 0 0 0");
    assert_eq!(conn.line("set a 0 0 1\r\nx"), NOT_PRIMARY);
    assert_eq!(conn.line("get a"), NOT_PRIMARY);
    assert_eq!(conn.line("mn"), "MN");
    assert!(conn.line("version").starts_with("VERSION "));
    assert!(conn.number("", "pid") > 0);
    managed.promote(1, HOUR);
    assert_eq!(conn.line("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(managed.tell("role"), "role primary 1 0 1");
    let begin = Instant::now();
    assert_eq!(managed.tell("role standby 2 secret"), "role standby 2 0 1");
    conn.expect_end();
    // Clients that come now may look for the new primary; who still comes later is told.
    let mut early = managed.connect();
    early.send(b"get a\r\n");
    let waited = early.read_until(DEADLINE, |got| got.ends_with(b"\n"));
    // On a machine that has stood still meanwhile this one has come later.
    let is_late = begin.elapsed() >= MOVING && early.got == format!("{NOT_PRIMARY}\r\n").as_bytes();
    assert!(waited == Waited::Closed && early.got.is_empty() || is_late, "{waited:?}: {}", show(&early.got));
    std::thread::sleep(Duration::from_millis(1100));
    let mut conn = managed.connect();
    assert_eq!(conn.line("get a"), NOT_PRIMARY);
    for line in ["role primary 1 5", "role primary 1 5 empty"] {
        assert_eq!(managed.tell(line), "CLIENT_ERROR the epoch has passed: this server knows of 2");
    }
    assert_eq!(managed.tell("role candidate 3"), "role candidate 3 0 1");
    assert!(managed.tell("role king").starts_with("CLIENT_ERROR usage: role "));
    assert!(managed.tell("role primary 3 5 full").starts_with("CLIENT_ERROR usage: role "));
    // A claim without data: what was held goes with the order that lets clients in, and only with the first one.
    let late = (time_since_boot() + HOUR).as_millis();
    let bare = format!("role primary 3 {late} empty");
    assert_eq!(managed.tell(&bare), "role primary 3 0 0");
    assert_eq!(conn.ask(b"get a\r\n", b"END\r\n"), b"END\r\n");
    assert_eq!(conn.line("set b 0 0 1\r\nx"), "STORED");
    assert_eq!(managed.tell(&bare), "role primary 3 0 1");
}

const FROM: &str = "replica from 00000000000000ab";
const NO_KEY: &str = "CLIENT_ERROR only who knows the key of its epoch feeds this server";

#[test]
fn only_who_has_the_key_feeds_it() {
    let mut managed = Managed::start(&[]);
    let mut stranger = managed.connect();
    assert_eq!(stranger.line("replica key 0 secret"), "CLIENT_ERROR this server is no standby");
    managed.tell("role standby 3 secret");
    assert_eq!(stranger.line("replica key 3 guess"), "CLIENT_ERROR this is not the secret");
    assert!(stranger.line("replica key 2 secret").starts_with("CLIENT_ERROR the epoch has passed"));
    for line in [FROM, "replica begin 1", "replica end", "replica sent 1 1", "replica overtaken"] {
        assert_eq!(stranger.line(line), NO_KEY, "{line}");
    }
    assert!(stranger.line("replica who").starts_with("OK "));
    assert_eq!(stranger.line("ms a 1\r\nx"), NOT_PRIMARY);
    let mut feeder = managed.connect();
    assert_eq!(feeder.line("replica key 3 secret"), "OK");
    assert!(feeder.line(FROM).starts_with("OK "));
    assert_eq!(feeder.line("ms a 1 T0 E5\r\nx"), "HD");
    assert!(managed.tell("role").ends_with(" 1"));
    assert_eq!(stranger.line("replica promise 3 guess 1000"), "CLIENT_ERROR this is not the secret");
    assert_eq!(stranger.line("replica promise 3 secret 3600000"), "OK 60000");
    assert!(managed.tell("role candidate 4").starts_with("CLIENT_ERROR this server has promised"));
    // The next owner of the shard is here before the sidecar is.
    let mut next = managed.connect();
    assert_eq!(next.line("replica key 4 secret"), "OK");
    feeder.send(b"ms a 1\r\ny\r\n");
    feeder.expect_end();
    assert!(next.line(FROM).starts_with("OK "));
    assert_eq!(next.ask(b"mg a v\r\n", b"x\r\n"), b"VA 1\r\nx\r\n");
    assert_eq!(managed.tell("role"), "role standby 4 0 1");
}

/// A standby that is set up as its primary is: it answers its feeder at once, however much comes at a time.
#[test]
fn a_feeder_waits_for_nobody() {
    let mut managed = Managed::start(&["-o", "replicas_ack=1", "-o", "ack_timeout=60000"]);
    managed.tell("role standby 3 secret");
    let mut feeder = managed.connect();
    assert_eq!(feeder.line("replica key 3 secret"), "OK");
    assert!(feeder.line("replica from 0123456789abcdef").starts_with("OK "));
    let sets: String = (0..500).map(|key| format!("ms key:{key} 5\r\nvalue\r\n")).collect();
    let replies = feeder.ask(format!("{sets}mn\r\n").as_bytes(), b"MN\r\n");
    assert_eq!(replies.len(), 500 * b"HD\r\n".len() + b"MN\r\n".len());
    assert_eq!(managed.connect().number("replication", "replies_held"), 0);
}

#[test]
fn a_standby_may_answer_reads_and_nothing_else() {
    let refused = Server::try_start(&["-o", "standby_reads"]).err().expect("it is not managed");
    assert!(refused.contains("standby_reads is for a managed server"), "{refused}");
    let mut managed = Managed::start(&["-o", "standby_reads"]);
    let mut conn = managed.connect();
    assert_eq!(conn.line("get a"), NOT_PRIMARY, "who waits has no copy");
    managed.tell("role standby 1 secret");
    let mut feeder = managed.connect();
    assert_eq!(feeder.line("replica key 1 secret"), "OK");
    assert!(feeder.line(FROM).starts_with("OK "));
    assert_eq!(feeder.line("ms a 1 T0 E5\r\nx"), "HD");
    assert_eq!(feeder.line("ms old 1 T0 E6\r\nx"), "HD");
    assert_eq!(feeder.line("md old I T0"), "HD");
    for (line, reply) in [
        ("get a", "VALUE a 0 1\r\nx\r\nEND\r\n"),
        ("gets a b", "VALUE a 0 1 5\r\nx\r\nEND\r\n"),
        ("mg a v c", "VA 1 c5\r\nx\r\n"),
        ("mg b v", "EN\r\n"),
        ("mg old", "HD X W\r\n"),
        ("mg old", "HD X W\r\n"),
    ] {
        assert_eq!(
            common::show(&conn.ask(format!("{line}\r\n").as_bytes(), reply.as_bytes())),
            common::show(reply.as_bytes())
        );
    }
    for line in ["gat 1 a", "mg a T1", "mg b N1", "set a 0 0 1\r\ny", "incr a 1", "touch a 1", "md a", "flush_all"] {
        assert_eq!(conn.line(line), NOT_PRIMARY, "{line}");
    }
    managed.promote(2, HOUR);
    assert_eq!(conn.line("mg old"), "HD X W");
    assert_eq!(conn.line("mg old"), "HD Z X", "somebody renews it");
    assert!(managed.connect().line("gat 0 a").starts_with("VALUE a 0 1"));
}

#[test]
fn past_its_deadline_it_says_nothing() {
    let mut managed = Managed::start(&[]);
    managed.promote(1, Duration::from_millis(300));
    until("the deadline", || {
        let mut conn = managed.connect();
        conn.send(b"get a\r\n");
        conn.read_until(DEADLINE, |got| !got.is_empty());
        conn.closed
    });
    for request in ["get a\r\n", "set a 0 0 1\r\nx\r\n", "version\r\n", "stats\r\n"] {
        let mut conn = managed.connect();
        conn.send(request.as_bytes());
        conn.expect_end();
    }
    managed.promote(1, HOUR);
    assert_eq!(managed.connect().line("set a 0 0 1\r\nx"), "STORED");
}

/// Clients that write all the time: each demotion finds the last change made, and ends what they have.
#[test]
fn promotions_and_demotions_under_load() {
    let mut managed = Managed::start(&["-t", "2"]);
    let (done, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let addr = managed.server.addr;
    thread::scope(|scope| {
        for client in 0..4 {
            let (done, stored) = (&done, &stored);
            scope.spawn(move || {
                let mut number = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut conn = Conn::to(addr);
                    while !done.load(Ordering::Relaxed) && !conn.closed {
                        conn.send(format!("set {client}:{number} 0 0 1\r\nx\r\n").as_bytes());
                        conn.read_until(DEADLINE, |got| got.ends_with(b"\r\n"));
                        match std::mem::take(&mut conn.got).as_slice() {
                            b"STORED\r\n" => stored.fetch_add(1, Ordering::Relaxed),
                            b"SERVER_ERROR not primary\r\n" | b"" => 0,
                            other => panic!("{}", common::show(other)),
                        };
                        number += 1;
                    }
                }
            });
        }
        for epoch in 0..30 {
            managed.promote(2 * epoch + 1, HOUR);
            let before = stored.load(Ordering::Relaxed);
            until("clients are served", || stored.load(Ordering::Relaxed) > before + 20);
            let answer = managed.tell(&format!("role standby {} secret", 2 * epoch + 2));
            let items = answer.rsplit(' ').next().unwrap().to_owned();
            thread::sleep(Duration::from_millis(10));
            assert_eq!(managed.tell("role"), answer, "something was stored after the demotion was answered");
            assert!(stored.load(Ordering::Relaxed) <= items.parse().unwrap(), "{answer}");
        }
        done.store(true, Ordering::Relaxed);
    });
}
