//! The real twincache-sidecar between a control socket that these tests serve themselves and Debian's memcached.
//!
//! ```text
//!   the test ── Fake (a Unix socket) ── twincache-sidecar ── memcached, or a port that the test serves, too
//! ```

mod common;

use common::{Conn, DEADLINE, Folder, Server, Sidecar, get, until, wait_for};
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A control socket, and the files of one test.
struct Fake {
    folder: Folder,
    listener: UnixListener,
}

impl Fake {
    fn new() -> Fake {
        let folder = Folder::new();
        let listener = UnixListener::bind(folder.file("control")).unwrap();
        fs::set_permissions(folder.file("control"), Permissions::from_mode(0o600)).unwrap();
        Fake { folder, listener }
    }

    fn path(&self) -> String {
        self.folder.file("control")
    }

    fn feed(&self, peer: SocketAddr, more: &[&str]) -> Sidecar {
        Sidecar::start(self.path(), peer, more)
    }

    /// The next connection of a link, greeted. A page that asks for the status connects, too, and says so at once; a link
    /// waits for the greeting.
    fn accept(&self, run: &str, lsn: u64) -> Line<UnixStream> {
        self.listener.set_nonblocking(true).unwrap();
        loop {
            let stream = wait_for("the sidecar to connect", || self.listener.accept().ok()).0;
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let mut line = Line(BufReader::new(stream));
            if line.0.fill_buf().is_ok() {
                continue;
            }
            line.0.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
            line.say(&format!("twincache 1 {run} {lsn}\r\n"));
            return line;
        }
    }
}

/// A connection that is served line by line.
struct Line<S: Read + Write>(BufReader<S>);

impl<S: Read + Write> Line<S> {
    fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn batch(&mut self, lsn: u64, body: &str) {
        self.say(&format!("batch {lsn} {}\r\n{body}", body.len()));
    }

    /// What the sidecar asks for, once it knows that this server has so many items and never fed the peer.
    fn attach_with(&mut self, items: u64) -> String {
        let meet = self.hear();
        assert!(meet.starts_with("meet "), "{meet}");
        self.say(&format!("met {items} 9 first\r\n"));
        let clock = self.hear_all();
        assert!(clock.starts_with("clock "), "what the peer's clock shows comes first: {clock}");
        self.hear()
    }

    fn attach(&mut self) -> String {
        self.attach_with(1000)
    }

    /// The next line that is not about the peer's clock, of which there may be news at any time.
    fn hear(&mut self) -> String {
        loop {
            let line = self.hear_all();
            if !line.starts_with("clock ") {
                return line;
            }
        }
    }

    fn hear_all(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

fn stock() -> Option<Server> {
    let server = Server::reference(&[]);
    if server.is_none() {
        eprintln!("skipped: memcached is not installed");
    }
    server
}

/// Far enough for what is left to have four digits for an hour.
fn far_future() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() + 5000
}

#[test]
fn a_stock_memcached_gets_a_walk_and_then_every_change() {
    let Some(peer) = stock() else { return };
    let mut client = peer.connect();
    client.line("set old 0 0 1\r\nx");
    let fake = Fake::new();
    let mut sidecar = fake.feed(peer.addr, &["--http", "127.0.0.1:0"]);
    let mut server = fake.accept("run1", 7);
    let attach = server.attach();
    let words: Vec<&str> = attach.split(' ').collect();
    let [verb, name, identity, "-", "-", "nocas"] = words[..] else { panic!("{attach}") };
    assert_eq!((verb, name), ("attach", peer.addr.to_string().as_str()));
    assert!(identity.starts_with(&format!("mc-{}-", peer.pid())), "{attach}");
    let at = sidecar.http();
    assert!(get(at, "/health").starts_with("HTTP/1.1 503 "));

    server.say("walk run1 7\r\n");
    let big = "v".repeat(700_000);
    let expiry = far_future();
    server.batch(
        7,
        &format!("ms a 1 F5 T0 q\r\n1\r\nms YiBi 2 b F0 T{expiry} q\r\nbb\r\nms big 700000 T0 q\r\n{big}\r\n"),
    );
    server.batch(7, "ms c 1 T0 q\r\nc\r\n");
    server.say("walked 7\r\nalive 7 1\r\n");
    assert_eq!(server.hear(), "ack 7", "one, when the walk is done");
    assert_eq!(client.line("mg old v"), "EN", "what was there before is gone");
    assert_eq!(client.line("mg a f s"), "HD f5 s1");
    assert_eq!(client.ask(b"mg YiBi b t v\r\n", b"bb\r\n").len(), "VA 2 t5000\r\nbb\r\n".len());
    assert_eq!(client.line("mg big s"), "HD s700000");

    server.batch(9, &format!("md a q\r\nmg c T{expiry} q\r\n"));
    assert_eq!(server.hear(), "ack 9");
    assert_eq!(client.line("mg a v"), "EN");
    assert!(client.line("mg c t").starts_with("HD t"), "touched");
    let health = wait_for("good health", || Some(get(at, "/health")).filter(|page| page.starts_with("HTTP/1.1 200 ")));
    assert!(health.contains(": streaming, "), "{health}");
    let metrics = get(at, "/metrics");
    for line in ["full_syncs_finished_total", "confirmed_lsn", "lag_seconds"] {
        assert!(metrics.contains(&format!("twincache_sidecar_{line}{{peer=\"{}\"}} ", peer.addr)), "{metrics}");
    }
    assert!(metrics.contains("kind=\"memcached 1.6."), "{metrics}");
    assert_eq!(sidecar.stop().code(), Some(0));
}

/// One that hangs is not well, whether or not there are changes for it.
#[test]
fn a_peer_that_hangs_is_in_bad_health() {
    let Some(peer) = stock() else { return };
    let fake = Fake::new();
    let sidecar = fake.feed(peer.addr, &["--http", "127.0.0.1:0", "--max-lag-ms", "700"]);
    let mut server = fake.accept("run1", 0);
    server.attach();
    server.say("walk run1 0\r\nwalked 0\r\nalive 0 5\r\n");
    assert_eq!(server.hear(), "ack 0");
    let is_well = |well: bool| {
        let status = if well { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
        wait_for(status, || {
            server.say("alive 0 5\r\n");
            Some(get(sidecar.http(), "/health")).filter(|page| page.starts_with(status))
        })
    };
    let mut is_well = is_well;
    is_well(true);
    common::freeze(peer.pid());
    let health = is_well(false);
    common::signal(peer.pid(), "CONT");
    assert!(health.contains(": streaming, "), "{health}");
    is_well(true);
}

#[test]
fn the_stream_goes_on_where_it_was_confirmed() {
    let Some(peer) = stock() else { return };
    let fake = Fake::new();
    let _sidecar = fake.feed(peer.addr, &[]);
    let mut server = fake.accept("run1", 0);
    let identity = server.attach().split(' ').nth(2).unwrap().to_owned();
    server.say("walk run1 0\r\nwalked 0\r\n");
    assert_eq!(server.hear(), "ack 0");
    server.batch(5, "ms a 1 T0 q\r\n1\r\n");
    assert_eq!(server.hear(), "ack 5");
    // Half a change: not confirmed, and not done.
    server.say("batch 6 100\r\nms a 1 T0 q\r\n2");
    drop(server);
    let mut server = fake.accept("run1", 6);
    assert_eq!(server.attach(), format!("attach {} {identity} run1 5 nocas", peer.addr));
    assert_eq!(peer.connect().ask(b"mg a v\r\n", b"1\r\n"), b"VA 1\r\n1\r\n");
    server.say("continuing run1 5\r\n");
    server.batch(6, "ms a 1 T0 q\r\n2\r\n");
    assert_eq!(server.hear(), "ack 6");
    // Another run of the server: nothing of the old one counts.
    drop(server);
    let mut server = fake.accept("run2", 6);
    assert!(server.attach().ends_with(" - - nocas"));
}

/// The worst that could happen: the server has come back empty, and empties who has the rest of the data.
#[test]
fn a_peer_that_holds_more_is_left_alone() {
    let Some(peer) = stock() else { return };
    let mut client = peer.connect();
    (0..100).for_each(|n| assert_eq!(client.line(&format!("set key{n} 0 0 1\r\nx")), "STORED"));
    let fake = Fake::new();
    let sidecar = fake.feed(peer.addr, &["--http", "127.0.0.1:0"]);
    let mut server = fake.accept("run2", 3);
    server.hear();
    server.say("met 49 5 first\r\n");
    sidecar.says("the peer holds 100 items that this server did not send; it has 49 itself, 5 s after its start");
    assert_eq!(server.hear(), "", "the sidecar goes, and comes back later");
    let is_left = |health: &String| health.starts_with("HTTP/1.1 503 ") && health.contains("left as it is");
    wait_for("bad health", || Some(get(sidecar.http(), "/health")).filter(is_left));
    assert_eq!(client.line("mg key99 s"), "HD s1");
    // It is filled again.
    let mut server = fake.accept("run2", 3);
    assert!(server.attach_with(50).ends_with(" - - nocas"));
    server.say("walk run2 3\r\nwalked 3\r\n");
    assert_eq!(server.hear(), "ack 3");
    assert_eq!(client.line("mg key99 s"), "EN");
    // Not before: it asks the server, too.
    let guarded = format!("peer_guarded{{peer=\"{}\"}} 0\n", peer.addr);
    assert!(get(sidecar.http(), "/metrics").contains(&guarded));
}

#[test]
fn who_says_so_replaces_what_a_peer_holds_once() {
    let Some(peer) = stock() else { return };
    let mut client = peer.connect();
    client.line("set old 0 0 1\r\nx");
    let fake = Fake::new();
    let sidecar = fake.feed(peer.addr, &["--replace-peer"]);
    let mut server = fake.accept("run1", 0);
    server.attach_with(0);
    server.say("walk run1 0\r\nwalked 0\r\n");
    assert_eq!(server.hear(), "ack 0");
    assert_eq!(client.line("mg old s"), "EN");
    client.line("set new 0 0 1\r\nx");
    drop(server);
    let mut server = fake.accept("run2", 0);
    server.hear();
    server.say("met 0 1 first\r\n");
    sidecar.says("left as it is");
}

#[test]
fn errors_of_the_peer_are_counted_and_do_not_stop_the_stream() {
    let Some(peer) = stock() else { return };
    let fake = Fake::new();
    let sidecar = fake.feed(peer.addr, &["--http", "127.0.0.1:0"]);
    let mut server = fake.accept("run1", 0);
    server.attach();
    server.say("walk run1 0\r\nwalked 0\r\n");
    assert_eq!(server.hear(), "ack 0");
    let big = "v".repeat(2 << 20);
    server.batch(1, &format!("ms big {} T0 q\r\n{big}\r\n", big.len()));
    assert_eq!(server.hear(), "refuse 1", "it is not confirmed");
    server.batch(2, "ms a 1 T0 q\r\n1\r\n");
    assert_eq!(server.hear(), "ack 2");
    assert_eq!(peer.connect().line("mg a s"), "HD s1");
    let health = get(sidecar.http(), "/health");
    assert!(health.starts_with("HTTP/1.1 503 ") && health.contains("1 change refused, the last "), "{health}");
    assert!(get(sidecar.http(), "/metrics").contains(&format!("peer_errors_total{{peer=\"{}\"}} 1\n", peer.addr)));
    sidecar.says("the peer does not take a change: SERVER_ERROR object too large for cache");
}

#[test]
fn a_limit_slows_the_stream_down() {
    let Some(peer) = stock() else { return };
    let fake = Fake::new();
    let _sidecar = fake.feed(peer.addr, &["--limit-mbps", "8"]);
    let mut server = fake.accept("run1", 0);
    server.attach();
    server.say("walk run1 0\r\nwalked 0\r\n");
    assert_eq!(server.hear(), "ack 0");
    let began = Instant::now();
    let body = format!("ms big 600000 T0 q\r\n{}\r\n", "v".repeat(600_000));
    server.batch(1, &body);
    assert_eq!(server.hear(), "ack 1");
    // 0.6 MB at 1 MB a second; a twentieth of a second may go at once.
    assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
}

const VERSION: &str = "VERSION 1.6.45\r\n";

/// Of a peer that holds nothing.
const STATS: &str = "STAT pid 7\r\nSTAT time 9\r\nSTAT uptime 2\r\nSTAT curr_items 0\r\nEND\r\n";

/// A peer that answers the first lines with these, and the address of it.
fn scripted_peer(answers: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut peer = Line(BufReader::new(stream.unwrap()));
            for answer in answers {
                peer.hear();
                peer.say(answer);
            }
            // Then it is silent until the sidecar goes; one that has nothing to say hangs up at once.
            while !answers.is_empty() && !peer.hear().is_empty() {}
        }
    });
    addr
}

#[test]
fn peers_that_will_not_do_are_refused_by_name() {
    let table: &[(&[&str], &str)] = &[
        (&["ERROR\r\n"], "the peer answers `ERROR` to `mn`: memcached 1.6 or later is needed"),
        (&["CLIENT_ERROR unauthenticated\r\n"], "the peer answers `CLIENT_ERROR unauthenticated` to `mn`"),
        (&["MN\r\n", VERSION, "OK run1 5\r\n"], "the peer is the server itself"),
        (&["MN\r\n", VERSION, "OK run2 5\r\n", "END\r\n"], "the peer does not tell pid, time and curr_items"),
        (
            &["MN\r\n", VERSION, "OK run2 5\r\n", STATS, "CLIENT_ERROR replication would go in a circle\r\n"],
            "the peer refuses: CLIENT_ERROR replication",
        ),
        (&[], "the peer ends the connection at `mn`"),
    ];
    for (answers, expected) in table {
        let fake = Fake::new();
        let sidecar = fake.feed(scripted_peer(answers), &["--http", "127.0.0.1:0"]);
        let mut server = fake.accept("run1", 0);
        if answers.contains(&STATS) {
            server.hear();
            server.say("met 0 9 first\r\n");
        }
        sidecar.says(expected);
        // It may be trying again just now.
        let at = sidecar.http();
        wait_for("the reason in /health", || Some(get(at, "/health")).filter(|page| page.contains(expected)));
        assert!(get(at, "/health").starts_with("HTTP/1.1 503 "));
    }
}

#[test]
fn a_server_that_refuses_is_quoted() {
    let fake = Fake::new();
    let sidecar = fake.feed(scripted_peer(&["MN\r\n", VERSION, "OK run2 5\r\n", STATS, "OK run2 5\r\n"]), &[]);
    let mut server = fake.accept("run1", 0);
    assert!(server.attach().ends_with(" run2 - - cas"));
    server.say("refused this peer feeds the server\r\n");
    sidecar.says("the server refuses: this peer feeds the server");
}

/// A peer that does all it is asked for and takes every change, with a clock that is so many milliseconds ahead.
fn peer_ahead(ahead: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut peer = Line(BufReader::new(listener.accept().unwrap().0));
        loop {
            let line = peer.hear();
            match line.as_str() {
                "" => return,
                "mn" => peer.say("MN\r\n"),
                "version" => peer.say(VERSION),
                "stats" => peer.say(STATS),
                "replica begin 1000" | "replica end" | "replica sent 0 0" | "replica at 0" => peer.say("OK\r\n"),
                _ if line.starts_with("replica ") => peer.say(&format!("OK run2 {}\r\n", unix_ms() + ahead)),
                _ => panic!("the peer is asked `{line}`"),
            }
        }
    });
    addr
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// It takes twenty samples, one a second.
#[test]
fn a_peer_whose_clock_is_off_is_reported() {
    const AHEAD: u64 = 3_600_000;
    let fake = Fake::new();
    let sidecar = fake.feed(peer_ahead(AHEAD), &["--http", "127.0.0.1:0"]);
    let mut server = fake.accept("run1", 0);
    server.attach();
    server.say("walk run1 0\r\nwalked 0\r\n");
    assert_eq!(server.hear(), "ack 0");
    server.0.get_ref().set_nonblocking(true).unwrap();
    let (end, mut asked, mut health) = (Instant::now() + 10 * DEADLINE, String::new(), String::new());
    while !health.contains("clock") {
        assert!(Instant::now() < end, "never in bad health: {health}\n{}", sidecar.log());
        server.say(&format!("alive 0 {}\r\n", unix_ms()));
        // It asks again now and then who it is.
        if server.0.read_line(&mut asked).is_ok() {
            assert!(asked.starts_with("meet ") || asked.starts_with("clock "), "{asked}");
            if asked.starts_with("meet ") {
                server.say("met 1000 9 again\r\n");
            }
            asked.clear();
        }
        std::thread::sleep(Duration::from_millis(50));
        health = get(sidecar.http(), "/health");
    }
    let off = health.split("its wall clock is ").nth(1).expect("by how much");
    let off: u64 = off.split(' ').next().unwrap().parse().unwrap();
    // Half an hour is more than any answer here takes.
    assert!(off.abs_diff(AHEAD) < AHEAD / 2, "{health}");
    sidecar.says("the peer's wall clock is ");
}

#[test]
fn control_sockets_that_will_not_do_are_refused_by_name() {
    let fake = Fake::new();
    let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let refused = |prepare: &dyn Fn(), expected: &str| {
        prepare();
        fake.feed(peer, &[]).says(expected);
    };
    let mode = |mode| fs::set_permissions(fake.path(), Permissions::from_mode(mode)).unwrap();
    for open in [0o660, 0o606, 0o601] {
        refused(&|| mode(open), "is open to others (mode ");
    }
    let talk = || {
        mode(0o600);
        let listener = fake.listener.try_clone().unwrap();
        listener.set_nonblocking(false).unwrap();
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"ERROR\r\n").unwrap());
    };
    refused(&talk, "this is no control socket of twincached: `ERROR`");
    if common::is_root() {
        let nobody = |uid| std::os::unix::fs::chown(fake.path(), Some(uid), None).unwrap();
        refused(&|| nobody(65534), "belongs to user 65534, and the sidecar runs as user 0");
        nobody(0);
        // The file is root's, and who listens is not.
        let listen = "import os, socket, sys, time\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\n\
            os.chdir(sys.argv[1])\ns.bind('other')\ns.listen()\nprint('listens', flush=True)\ntime.sleep(600)";
        let served = Folder::new();
        fs::set_permissions(served.file(""), Permissions::from_mode(0o777)).unwrap();
        let mut child =
            Command::new("python3").args(["-c", listen, &served.file("")]).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 7];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        std::os::unix::fs::chown(served.file("other"), Some(0), None).unwrap();
        fs::set_permissions(served.file("other"), Permissions::from_mode(0o600)).unwrap();
        Sidecar::start(served.file("other"), peer, &[]).says("is served by user 65534");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    refused(&|| fs::remove_file(fake.path()).unwrap(), "is twincached up, with control_socket?");
    refused(&|| fs::write(fake.path(), "").unwrap(), "is not a socket");
}

/// Units start the sidecar first.
#[test]
fn a_server_that_is_still_starting_is_no_news() {
    // How long it may be away.
    let starting = Duration::from_secs(5);
    let said_early = |said: &str| {
        (0..10).find_map(|_| {
            let (folder, began) = (Folder::new(), Instant::now());
            let peer = "127.0.0.1:9".parse().unwrap();
            let sidecar = Sidecar::start(folder.file("control"), peer, &["--http", "127.0.0.1:0"]);
            let at = sidecar.http();
            until("the reason in /health", || get(at, "/health").contains(said));
            std::thread::sleep(Duration::from_secs(2));
            let log = sidecar.log();
            // Else the machine has stood still, and the time is over.
            let is_early = began.elapsed() < starting;
            sidecar.says(said);
            is_early.then_some(log)
        })
    };
    let said = "is twincached up, with control_socket?";
    let log = said_early(said).expect("a machine that lets this run for two seconds of five");
    assert!(!log.contains(said), "{log}");
}

#[test]
fn several_peers_are_fed_at_once() {
    let (Some(one), Some(two)) = (stock(), stock()) else { return };
    let fake = Fake::new();
    let _sidecar = fake.feed(one.addr, &["--peer", &two.addr.to_string()]);
    let mut servers = [fake.accept("run1", 0), fake.accept("run1", 0)];
    let mut names = servers.each_mut().map(|server| server.attach().split(' ').nth(1).unwrap().to_owned());
    names.sort();
    let mut expected = [one.addr.to_string(), two.addr.to_string()];
    expected.sort();
    assert_eq!(names, expected);
    for server in &mut servers {
        server.say("walk run1 0\r\nwalked 0\r\n");
        assert_eq!(server.hear(), "ack 0");
        server.batch(1, "ms a 1 T0 q\r\n1\r\n");
        assert_eq!(server.hear(), "ack 1");
    }
    for peer in [one, two] {
        assert_eq!(Conn::to(peer.addr).line("mg a s"), "HD s1");
    }
}

#[test]
fn a_second_twincached_is_kept_equal() {
    let fake = Fake::new();
    let control = fake.folder.file("real");
    let server = Server::start(&["-o", &format!("control_socket={}", control)]);
    let peer = Server::start(&[]);
    let (mut here, mut there) = (server.connect(), peer.connect());
    there.line("set stale 0 0 1\r\nx");
    here.line("set walked 3 0 2\r\nab");
    fs::remove_file(fake.path()).unwrap();
    std::os::unix::fs::symlink(&control, fake.path()).unwrap();
    let _sidecar = fake.feed(peer.addr, &[]);
    let mut is = |key: &str, expected: &str| {
        let command = format!("mg {key} s t f c");
        wait_for(&format!("{key} to be {expected}"), || (there.line(&command) == expected).then_some(()));
    };
    let walked = here.line("mg walked s t f c");
    is("walked", &walked);
    is("stale", "EN");
    here.line("set live 1 0 1\r\n1");
    here.line("incr live 4711");
    let live = here.line("mg live s t f c");
    assert!(live.starts_with("HD s4 t-1 f1 c"), "{live}");
    is("live", &live);
    here.line("touch live 0");
    here.line("delete walked");
    is("walked", "EN");
    here.line("flush_all");
    is("live", "EN");
}

#[test]
fn root_becomes_the_user() {
    if !common::is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let start = |options: &[&str]| {
        let sidecar = Sidecar::start("/nonexistent/control", "127.0.0.1:9".parse().unwrap(), options);
        let log = sidecar.says("which copies");
        let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).unwrap();
        let ids: Vec<String> = status.lines().filter(|line| line.starts_with("Uid:")).map(str::to_owned).collect();
        (log, ids.concat())
    };
    let (log, ids) = start(&[]);
    assert!(log.contains("runs as root, for which it has no use") && ids.starts_with("Uid:\t0\t"), "{log}{ids}");
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let nobody = passwd.lines().find_map(|line| line.strip_prefix("nobody:")?.split(':').nth(1)).expect("a nobody");
    let (log, ids) = start(&["-u", "nobody"]);
    assert!(!log.contains("runs as root"), "{log}");
    assert_eq!(ids, format!("Uid:\t{}", [nobody; 4].join("\t")));
    let run = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_twincache-sidecar")).args(words).output().unwrap();
    let output = run(&["--server", "unix:/x", "--peer", "127.0.0.1:9", "--user", "nosuchuser"]);
    assert_eq!(output.status.code(), Some(67));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is no such user"));
}

/// Every fault has its line, nobody is connected to, and the exit code is that of a start.
#[test]
fn check_says_all_that_would_keep_it_from_starting() {
    let run = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_twincache-sidecar")).args(words).output().unwrap();
    let (fake, taken) = (Fake::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (server, http) = (format!("unix:{}", fake.path()), taken.local_addr().unwrap().to_string());
    let etcd = "--etcd https://127.0.0.1:9 --cluster c --shard s --node a --advertise 127.0.0.1:9";
    let etcd: Vec<&str> = etcd.split(' ').collect();
    let lost = ["--http", &http, "--http-token", "/nonexistent/token", "--etcd-ca", "/nonexistent/ca", "--peer-tls"];
    let lost = [&lost[..], &["--peer-ca", "/nonexistent/peers", "--check", "--server", "unix:/nonexistent/socket"]];
    let output = run(&[&lost.concat(), &etcd[..]].concat());
    // As root it says that it has no use for that.
    let said = |output: &std::process::Output| {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.lines().filter(|line| !line.starts_with("runs as root")).map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = said(&output);
    assert_eq!((output.status.code(), lines.len()), (Some(64), 5), "{lines:?}");
    assert!(lines[0].starts_with("warning: there is no /nonexistent/socket: is twincached up"), "{lines:?}");
    for (line, part) in lines[1..].iter().zip(["--peer-tls: ", "--http-token ", &format!("--http {http}: "), "ca"]) {
        assert!(line.starts_with("twincache-sidecar: ") && line.contains(part), "{part}: {lines:?}");
    }
    let good = [&["--check", "--server", &server, "--http", "127.0.0.1:0", "--etcd", "http://127.0.0.1:9"], &etcd[2..]];
    let output = run(&good.concat());
    assert_eq!((output.status.code(), said(&output)), (Some(0), Vec::new()));
    assert_eq!(output.stdout, b"a sidecar would start with these options\n");
    fake.listener.set_nonblocking(true).unwrap();
    assert!(fake.listener.accept().is_err(), "the server was not asked");
    assert_eq!(run(&["--check", "--server", &server]).status.code(), Some(64));
}

#[test]
fn bad_usage_is_refused() {
    let run = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_twincache-sidecar")).args(words).output().unwrap();
    let output = run(&["--server", "unix:/x"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        output.stderr,
        b"twincache-sidecar: --peer HOST:PORT is needed, or --etcd, or --http to show the server (see --help)\n"
    );
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap().to_string();
    let output = run(&["--server", "unix:/x", "--peer", "127.0.0.1:9", "--http", &http]);
    assert_eq!(output.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("--http {http}: ")), "{output:?}");
    // Nothing was begun: the server was not even asked.
    let fake = Fake::new();
    let server = format!("unix:{}", fake.path());
    assert_eq!(run(&["--server", &server, "--peer", "127.0.0.1:9", "--http", &http]).status.code(), Some(71));
    fake.listener.set_nonblocking(true).unwrap();
    assert!(fake.listener.accept().is_err());
    assert!(run(&["--help"]).stdout.starts_with(b"twincache-sidecar keeps"));
}
