//! The control socket of the real binary: who may open it, what it says, and that nobody waits for who reads it.

mod common;

use common::{Conn, DEADLINE, Folder, Server, until};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

/// A control socket, in a folder of its own.
struct Place(Folder);

impl Place {
    fn new() -> Place {
        Place(Folder::new())
    }

    fn path(&self) -> String {
        self.0.file("control")
    }

    fn option(&self) -> String {
        format!("control_socket={}", self.path())
    }

    fn start(&self, more: &[&str]) -> Server {
        Server::start(&[&["-o", &self.option()], more].concat())
    }

    fn connect(&self) -> Control {
        let stream = UnixStream::connect(self.path()).expect("the control socket");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut control = Control { stream, got: Vec::new() };
        assert!(control.line().starts_with("twincache 1 "));
        control
    }

    /// A consumer, and what it was told first.
    fn attach(&self, name: &str, identity: &str) -> (Control, String) {
        let mut control = self.connect();
        control.say(&format!("attach {name} {identity} - - cas"));
        let line = control.line();
        (control, line)
    }
}

struct Control {
    stream: UnixStream,
    got: Vec<u8>,
}

impl Control {
    fn say(&mut self, line: &str) {
        self.stream.write_all(format!("{line}\r\n").as_bytes()).expect("the server reads");
    }

    /// False at the end of the stream.
    fn receive(&mut self) -> bool {
        let mut piece = [0; 65536];
        loop {
            match self.stream.read(&mut piece) {
                Ok(n) => {
                    self.got.extend_from_slice(&piece[..n]);
                    return n > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("nothing comes after {}: {error}", common::show(&self.got)),
            }
        }
    }

    /// The next line that is no heartbeat; empty at the end of the stream.
    fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.got.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.got.split_off(end + 2);
                let line = std::mem::replace(&mut self.got, rest);
                let line = String::from_utf8(line[..end].to_vec()).expect("a line is text");
                if line.starts_with("alive ") || line.starts_with("walking ") || line == "lacking 0" {
                    continue;
                }
                return line;
            }
            if !self.receive() {
                return String::new();
            }
        }
    }

    /// The body of a batch, by the words of its line.
    fn body(&mut self, words: &[&str]) -> String {
        assert_eq!(words[0], "batch", "{words:?}");
        let size: usize = words[2].parse().unwrap();
        while self.got.len() < size {
            assert!(self.receive(), "the stream ends in a batch");
        }
        String::from_utf8(self.got.drain(..size).collect()).expect("these bodies are text")
    }

    /// The bodies of the next batches, until they are `len` bytes; all are acknowledged. Whether a hit of the key
    /// `before` is among them is left to chance: hits are sampled.
    fn bodies(&mut self, len: usize) -> String {
        let mut bodies = String::new();
        while bodies.len() < len {
            let line = self.line();
            let words: Vec<&str> = line.split(' ').collect();
            bodies += &self.body(&words).replace("mg before q\r\n", "");
            self.say(&format!("ack {}", words[1]));
        }
        bodies
    }
}

fn stat(conn: &mut Conn, name: &str) -> String {
    conn.stat("replication", name)
}

#[test]
fn only_the_user_may_open_it_and_a_stale_one_is_replaced() {
    let place = Place::new();
    drop(UnixListener::bind(place.path()).unwrap());
    // Another test's child may hold the listener until it executes its program.
    until("nobody listens", || UnixStream::connect(place.path()).is_err());
    let _server = place.start(&[]);
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let taken = Server::try_start(&["-o", &place.option()]).err().expect("the socket is another server's");
    assert!(
        taken.contains("failed to listen on the control socket: ") && taken.contains("another server is behind it")
    );
    assert!(place.connect().stream.write_all(b"status\r\n").is_ok());
    let file = Place::new();
    fs::write(file.path(), "no socket").unwrap();
    let refused = Server::try_start(&["-o", &file.option()]).err().expect("what is there is no socket");
    assert!(refused.contains("a file is there that is no socket"), "{refused}");
    assert_eq!(fs::read(file.path()).unwrap(), b"no socket");
    for (path, why) in [("/tmp", "it is a folder: name a file in it"), ("/nonexistent/x", "there is no such folder")] {
        let refused = Server::try_start(&["-o", &format!("control_socket={path}")]).err().expect(why);
        assert!(refused.contains(&format!("{path}: {why}")), "{refused}");
    }
}

#[test]
fn nothing_of_it_is_there_without_the_option() {
    let threads = |server: &Server| {
        let names = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let names = names.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
        names.filter(|name| name.trim() == "control").count()
    };
    assert_eq!(threads(&Server::start(&[])), 0);
    let place = Place::new();
    let server = place.start(&[]);
    until("the thread has its name", || threads(&server) == 1);
}

/// Whoever connects to the public port cannot begin, end or hold up the feeding of a server that was not told of him.
#[test]
fn only_who_is_named_feeds_a_server() {
    for option in ["standby=10.0.0.1", "standby=::1", "standby=10.0.0.0/8,standby=127.0.0.2"] {
        let server = Server::start(&["-o", option]);
        let mut stranger = server.connect();
        for line in ["from 00000000000000ab", "begin", "begin 5", "sent 1 1", "end", "at 5", "overtaken", "caught-up"] {
            let answer = stranger.line(&format!("replica {line}"));
            assert!(answer.starts_with("CLIENT_ERROR this server takes no changes from this address"), "{answer}");
        }
        assert!(stranger.line("replica key 1 secret").starts_with("CLIENT_ERROR this server takes no key"));
        assert!(stranger.line("replica promise 1 secret 5").starts_with("CLIENT_ERROR this server takes no key"));
        assert!(stranger.line("replica who").starts_with("OK "));
        assert_eq!(stat(&mut stranger, "upstream"), "none");
        assert_eq!(stranger.line("set a 0 0 1\r\nx"), "STORED");
    }
    let server = Server::start(&["-o", "standby=10.0.0.1,standby=127.0.0.0/8"]);
    assert!(server.connect().line("replica from 00000000000000ab").starts_with("OK "));
    for (option, why) in [("standby=here", "needs the address"), ("managed,control_socket=x,standby=::1", "exclude")] {
        let refused = Server::try_start(&["-o", option]).err().expect(why);
        assert!(refused.contains(why), "{refused}");
    }
}

#[test]
fn a_consumer_sees_what_commands_do() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut client = server.connect();
    assert_eq!(client.line("set before 5 0 5\r\nhello"), "STORED");
    let (mut control, line) = place.attach("me", "peer");
    let run_id = stat(&mut client, "run_id");
    assert!(line.starts_with(&format!("walk {run_id} ")), "{line}");
    let expected = "ms before 5 F5 T0 E2 q\r\nhello\r\n";
    assert_eq!(control.bodies(expected.len()), expected);
    assert!(control.line().starts_with("walked "));
    // Until it has read all for the first time, what was touched is told with its value, as it is by then.
    for cas in [3, 4] {
        assert_eq!(client.line("set first 0 0 1\r\nx"), "STORED");
        let expected = format!("ms first 1 T0 E{cas} q\r\nx\r\n");
        assert_eq!(control.bodies(expected.len()), expected);
    }
    for (command, reply) in [
        ("set n 0 0 1\r\n5", "STORED"),
        ("incr n 3", "8"),
        ("md n I T0", "HD"),
        ("touch before 0", "TOUCHED"),
        ("delete nosuch", "NOT_FOUND"),
        ("delete n", "DELETED"),
        ("ms YSBi 2 b F7 T0\r\nhi", "HD"),
        ("get before n", "VALUE before 5 5\r\nhello\r\nEND"),
        ("flush_all", "OK"),
    ] {
        assert_eq!(
            client.ask(format!("{command}\r\n").as_bytes(), format!("{reply}\r\n").as_bytes()).len(),
            reply.len() + 2
        );
    }
    let expected = "ms n 1 T0 E5 q\r\n5\r\nms n 1 T0 E6 q\r\n8\r\nmd n I T0 E7 q\r\nmg before T0 q\r\nmd nosuch q\r\n\
                    md n q\r\nms YSBi 2 b F7 T0 E8 q\r\nhi\r\nflush_all noreply\r\n";
    assert_eq!(control.bodies(expected.len()), expected);
    until("everything is acknowledged", || stat(&mut client, "0:lag_lsn") == "0");
    assert_eq!(stat(&mut client, "0:state"), "streaming");
    assert_eq!(stat(&mut client, "0:acked_lsn"), stat(&mut client, "lsn"));
    drop(control);
    until("it is detached", || stat(&mut client, "consumers") == "0");
    assert_eq!(client.line("set after 0 0 1\r\nx"), "STORED");
    let (mut control, line) = place.attach("me", "peer");
    assert!(line.starts_with(&format!("continuing {run_id} ")), "{line}");
    let expected = "ms after 1 T0 E9 q\r\nx\r\n";
    assert_eq!(control.bodies(expected.len()), expected);
}

#[test]
fn the_form_without_cas_names_none() {
    let place = Place::new();
    let server = place.start(&[]);
    assert_eq!(server.connect().line("set k 0 0 1\r\nx"), "STORED");
    let mut control = place.connect();
    control.say("attach me peer - - nocas");
    assert!(control.line().starts_with("walk "));
    assert_eq!(control.bodies(1), "ms k 1 T0 q\r\nx\r\n");
}

#[test]
fn lines_that_ask_and_lines_that_are_wrong() {
    let place = Place::new();
    let server = place.start(&[]);
    let own = stat(&mut server.connect(), "run_id");
    let mut control = place.connect();
    let usage = "refused usage: attach <name> <identity> <run id|-> <lsn|-> <cas|nocas>";
    for (line, reply) in [
        ("", "ERROR"),
        ("nonsense", "ERROR"),
        ("ack 5", "ERROR"),
        ("replicas_ack", "ERROR"),
        ("replicas_ack 6", "CLIENT_ERROR replicas_ack takes a number, 0 to 5"),
        ("replicas_ack 2", "OK"),
        ("replicas_ack 0", "OK"),
    ] {
        control.say(line);
        assert_eq!(control.line(), reply, "{line}");
    }
    control.say("status");
    assert_eq!(control.line(), format!("STAT run_id {own}"));
    while control.line() != "END" {}
    let itself = format!("attach me {own} - - cas");
    let long = format!("attach {} b - - cas", "a".repeat(129));
    for (line, reply) in [
        ("attach me", usage),
        ("attach me peer - - maybe", usage),
        ("attach me peer x - cas", usage),
        ("attach me peer - - cas cas", usage),
        (&long, usage),
        (&itself, "refused the peer is this server itself"),
    ] {
        let mut control = place.connect();
        control.say(line);
        assert_eq!((control.line(), control.line()), (reply.to_owned(), String::new()), "{line}");
    }
    let mut control = place.connect();
    control.stream.write_all(&[b'x'; 2000]).unwrap();
    assert_eq!(control.line(), "");
    let (mut control, _) = place.attach("me", "peer");
    control.say("ack 1000000");
    while !control.line().is_empty() {}
}

#[test]
fn circles_and_crowds_are_refused() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut client = server.connect();
    let own = stat(&mut client, "run_id");
    assert!(client.line("replica from 00000000000000ab").starts_with(&format!("OK {own} ")));
    assert_eq!(stat(&mut client, "upstream"), "00000000000000ab");
    assert_eq!(client.line(&format!("replica from {own}")), "CLIENT_ERROR this is the server itself");
    assert_eq!(client.line("replica from x"), "CLIENT_ERROR a run id is 16 hex digits");
    assert_eq!(client.line("replica"), "ERROR");
    assert_eq!(client.line("replica end"), "CLIENT_ERROR nothing was begun, or it is too long ago");
    let (_, line) = place.attach("me", "00000000000000ab");
    assert!(line.starts_with("refused replication would go in a circle"), "{line}");
    let mut consumers = Vec::new();
    for i in 0..8 {
        let (consumer, line) = place.attach(&format!("c{i}"), &format!("{:016x}", 0xc0 + i));
        assert!(line.starts_with("walk "), "{line}");
        consumers.push(consumer);
    }
    assert_eq!(client.line("replica from 00000000000000c3"), "CLIENT_ERROR replication would go in a circle");
    let (_, line) = place.attach("c8", "other");
    assert_eq!(line, "refused there are as many consumers as there may be");
    // The same again takes its own place.
    let (_newer, line) = place.attach("c0", "00000000000000c0");
    assert!(line.starts_with("walk "), "{line}");
    while !consumers[0].line().is_empty() {}
    let _more: Vec<Control> = (0..4).map(|_| place.connect()).collect();
    let mut stream = UnixStream::connect(place.path()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "refused too many connections on the control socket\r\n");
}

/// How often the control thread has gone to sleep.
fn sleeps(server: &Server) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let statuses = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default());
    let own = statuses.into_iter().find(|status| status.starts_with("Name:\tcontrol\n")).expect("a control thread");
    let sleeps = own.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).expect("a count");
    sleeps.trim().parse().unwrap()
}

/// Who is away for a while, or does not read, does not cost a wake-up for each change.
#[test]
fn nobody_is_woken_who_can_send_nothing() {
    const CHANGES: u64 = 3000;
    for is_away in [true, false] {
        let place = Place::new();
        let server = place.start(&[]);
        let mut client = server.connect();
        let consumer = Some(place.attach("me", "peer")).filter(|_| !is_away);
        if is_away {
            until("it is detached", || stat(&mut client, "consumers") == "0");
        }
        // More than sockets hold.
        let big = "v".repeat(10_000);
        (0..300).for_each(|n| assert_eq!(client.line(&format!("set big{n} 0 0 10000\r\n{big}")), "STORED"));
        std::thread::sleep(std::time::Duration::from_millis(100));
        let (before, began) = (sleeps(&server), Instant::now());
        (0..CHANGES).for_each(|_| assert_eq!(client.line("set key 0 0 1\r\nx"), "STORED"));
        let woken = sleeps(&server) - before;
        // It winds the journal's clockwork now and then, however long this takes.
        let wound = began.elapsed().as_millis() as u64 / 20;
        assert!(woken < CHANGES / 3 + wound, "away: {is_away}; woken {woken} times");
        drop(consumer);
    }
}

/// A change that no command can name, of before a walk: the walk cannot tell it, either.
#[test]
fn what_a_walk_cannot_tell_is_not_confirmed() {
    let place = Place::new();
    let server = place.start(&["-o", "replicas_ack=1,ack_timeout=60000"]);
    let mut client = server.connect();
    let key = format!("{} {}", "k".repeat(100), "k".repeat(100));
    let head = [0x80, 1, 0, 201, 8, 0, 0, 0, 0, 0, 0, 210];
    client.send(&[&head, &[0; 12][..], &[0; 8], key.as_bytes(), b"x"].concat());
    until("the reply waits", || stat(&mut server.connect(), "replies_waiting") == "1");
    let (mut control, line) = place.attach("me", "peer");
    assert!(line.starts_with("walk "), "{line}");
    // As the sidecar acknowledges: when the walk is over, and then each batch by itself.
    let mut is_walking = true;
    loop {
        let line = control.line();
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "walked" => is_walking = false,
            "batch" if is_walking => continue,
            _ => assert_eq!(words[0], "batch", "{line}"),
        }
        control.say(&format!("ack {}", words[1]));
        if words[0] == "batch" {
            break;
        }
    }
    client.read_until(DEADLINE, |got| got.len() >= 24);
    assert_eq!(client.got[..8], *b"\x81\x01\0\0\0\0\0\x86");
}

#[test]
fn the_newest_connection_feeds() {
    let server = Server::start(&[]);
    let [mut old, mut other, mut new] = [(); 3].map(|()| server.connect());
    for (client, run) in [(&mut old, "ab"), (&mut other, "ac"), (&mut new, "ab")] {
        (0..2).for_each(|_| assert!(client.line(&format!("replica from 00000000000000{run}")).starts_with("OK ")));
    }
    old.send(b"set late 0 0 1\r\nx\r\n");
    old.expect_end();
    assert_eq!(other.line("set a 0 0 1\r\nx"), "STORED");
    assert_eq!(new.line("mg late"), "EN");
}

#[test]
fn a_refresh_drops_what_was_not_sent_again() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.line("set old 0 0 1\r\nx"), "STORED");
    assert!(client.line("replica from 00000000000000ab").starts_with("OK "));
    assert_eq!(client.line("replica begin"), "OK");
    assert_eq!(client.line("ms new 1 T0 E100\r\nx"), "HD");
    assert_eq!(client.line("replica end noreply\r\nmg old"), "EN");
    assert_eq!(client.line("mg new c"), "HD c100");
    assert_eq!(client.line("set next 0 0 1\r\nx"), "STORED");
    assert_eq!(client.line("mg next c"), "HD c101");
    let server = Server::start(&["-F"]);
    assert_eq!(server.connect().line("replica begin"), "CLIENT_ERROR flush_all not allowed");
}

/// While the walk stands, because nobody reads, an item changes that it has sent already. The change comes as soon as
/// what was under way has been read, and not when the walk has ended.
#[test]
fn a_walk_lets_changes_pass() {
    const ITEMS: usize = 5_000;
    const VALUE: usize = 8_000;
    let place = Place::new();
    let server = place.start(&["-m", "256"]);
    let mut client = server.connect();
    let value = "v".repeat(VALUE);
    (0..ITEMS).for_each(|n| client.send(format!("set walked{n} 0 0 {VALUE} noreply\r\n{value}\r\n").as_bytes()));
    assert_eq!(client.line("mn"), "MN");
    let (mut control, line) = place.attach("slow", "peer");
    assert!(line.starts_with("walk "));
    let mut changed = None;
    let mut came_after = 0;
    loop {
        let line = control.line();
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "batch", "{line}: the walk ends before the change has come");
        let body = control.body(&words);
        let Some(key) = &changed else {
            let key = body.split(' ').nth(1).filter(|key| key.starts_with("walked")).map(str::to_owned);
            if let Some(key) = key {
                assert_eq!(client.line(&format!("set {key} 0 0 7\r\nchanged")), "STORED");
                changed = Some(key);
            }
            continue;
        };
        if body.contains(&format!("ms {key} 7 ")) {
            break;
        }
        came_after += body.len();
    }
    // The socket's buffers and a batch or two may be under way; a walk that has its way is thirty times as much.
    assert!(came_after < ITEMS * VALUE / 4, "{came_after} bytes of the walk came first");
}

/// Large and small items, so many that ring and sockets overflow while nobody reads; then everything comes.
#[test]
fn who_does_not_read_holds_up_nobody() {
    let place = Place::new();
    let option = place.option() + ",journal_mem=8";
    let server = Server::start(&["-m", "256", "-o", &option]);
    let (mut control, line) = place.attach("slow", "peer");
    assert!(line.starts_with("walk "));
    assert!(control.line().starts_with("walked "));
    let mut client = server.connect();
    let (small, large) = ("s".repeat(1000), "l".repeat(100_000));
    for round in 0..3 {
        for i in 0..6_000 {
            client.send(format!("set s{i} 0 0 1000 noreply\r\n{small}\r\n").as_bytes());
            if i % 100 == 0 {
                client.send(format!("set l{i} {round} 0 100000 noreply\r\n{large}\r\n").as_bytes());
            }
        }
        assert_eq!(client.line("mn"), "MN");
    }
    assert_eq!(client.line("delete s7"), "DELETED");
    let mut copy = std::collections::BTreeSet::new();
    let mut overtaken = 0;
    loop {
        let line = control.line();
        let words: Vec<&str> = line.split(' ').collect();
        match words[0] {
            "overtaken" => overtaken += 1,
            "caught-up" => break,
            "batch" => {
                let body = control.body(&words);
                assert!(body.len() <= 256 << 10, "{line}");
                apply(body.as_bytes(), &mut copy);
                control.say(&format!("ack {}", words[1]));
            }
            _ => panic!("{line}"),
        }
    }
    assert!(overtaken > 0);
    assert_eq!(copy.len(), 6_000 + 60 - 1);
    assert!(!copy.contains("s7"));
    assert_eq!(stat(&mut client, "0:state"), "streaming");
}

/// Follows the keys of a batch of ms and md.
fn apply(mut body: &[u8], copy: &mut std::collections::BTreeSet<String>) {
    while !body.is_empty() {
        let end = body.windows(2).position(|pair| pair == b"\r\n").expect("whole commands");
        let line = std::str::from_utf8(&body[..end]).unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let data = if words[0] == "ms" { words[2].parse::<usize>().unwrap() + 2 } else { 0 };
        match words[0] {
            "ms" => drop(copy.insert(words[1].to_owned())),
            "md" => drop(copy.remove(words[1])),
            _ => panic!("{line}"),
        }
        body = &body[end + 2 + data..];
    }
}

#[test]
fn clients_that_discover_are_told_the_servers() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut client = server.connect();
    assert_eq!(client.line("config get cluster"), "ERROR");
    let longest = |version| {
        let servers = (10..74).map(|i| format!("{i}{}|2001:db8:ffff:ffff:ffff:ffff:ffff:ff{i}|65535", "h".repeat(251)));
        format!("topology {version} {}", servers.collect::<Vec<_>>().join(" "))
    };
    let mut control = place.connect();
    for (line, reply) in [
        ("topology 1 a|10.0.0.1|11211 b||11212", "OK"),
        (
            "topology 1 a|10.0.0.1|11211 c||11212",
            "CLIENT_ERROR another topology is known, of this version or of a later one",
        ),
        ("topology 2 a_b||11211", "CLIENT_ERROR usage: topology <version> <host>|<ip>|<port> ..."),
        ("topology", "ERROR"),
        (&longest(7), "OK"),
    ] {
        control.say(line);
        assert_eq!(control.line(), reply, "{line}");
    }
    let body = longest(7)["topology ".len()..].replacen(' ', "\n", 1) + "\n";
    let reply = format!("CONFIG cluster 0 {}\r\n{body}\r\nEND\r\n", body.len());
    // Some clients end lines so.
    for command in ["config get cluster\r\n", "config get cluster\n", "config get cluster \r\n"] {
        assert_eq!(client.ask(command.as_bytes(), b"END\r\n"), reply.as_bytes());
    }
    control.say(&format!("topology 8 {}", "a".repeat(20_000)));
    assert_eq!(control.line(), "", "longer than the longest: closed");
}
