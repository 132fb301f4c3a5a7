//! Connections: many of them, too many, idle ones, slow readers, floods, and every kind of listener.
//!
//! Against the real binary. Memory is what the server's process has mapped for itself (RssAnon); what the
//! kernel keeps for a socket is not counted.

mod common;

use common::{Conn, DEADLINE, Folder, Rng, Server, Waited, descriptors_possible, freeze, signal, until};
use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How many connections the server shall hold, if this machine lets both sides open so many descriptors.
const MANY: usize = 20_000;
/// Descriptors that each side needs besides: other tests run in this process, too.
const SPARE: usize = 600;
/// The most that an idle connection may take of the server's memory.
const IDLE_BYTES: u64 = 1024;
/// What a client that does not read may cost the server, in KiB: the reply that is stuck and what is queued behind.
const STUCK_KB: u64 = 16 << 10;

/// Who may not mark sockets is told so once for each address, and served.
#[test]
fn compat_mark_refused() {
    // Without effect for whoever is not root, and may not do it either.
    let server = Server::start(&["-u", "nobody", "-U", "-1", "-o", "sock_cookie_id=5"]);
    assert_eq!(server.connect().line("mn"), "MN");
    let line =
        "sock_cookie_id: a socket has no mark, which takes the capability CAP_NET_ADMIN: Operation not permitted\n";
    assert_eq!(server.stderr(), line.repeat(2));
}

#[test]
fn many_connections_are_held() {
    let possible = descriptors_possible(26_000);
    let count = MANY.min(possible - SPARE);
    if count < MANY {
        eprintln!("{count} connections instead of {MANY}: the limit of descriptors is {possible}");
    }
    let limit = if count < MANY { possible } else { 25_000 };
    let server = Server::start(&["-c", &limit.to_string(), "-t", "2"]);
    let mut admin = server.connect();
    let mut conns: Vec<TcpStream> = Vec::with_capacity(count);
    // The first thousand pays for what is shared by all.
    connect_and_ask(&server, &mut conns, 1000.min(count));
    let (before, first) = (memory(&server), conns.len());
    connect_and_ask(&server, &mut conns, count);
    let each = (memory(&server).saturating_sub(before) * 1024) / (conns.len() - first).max(1) as u64;
    eprintln!("{} connections held, {each} bytes each of the last {}", conns.len(), conns.len() - first);
    assert!(admin.number("", "curr_connections") >= count as u64);
    let mut rng = Rng(common::seed("CONNECTIONS_SEED"));
    for _ in 0..1000 {
        let conn = &mut conns[rng.below(count)];
        assert_eq!(ask(conn, b"mn\r\n", 4), b"MN\r\n");
    }
    // What else the server does at the time must not count for much.
    let shows_something = conns.len() - first >= 5000;
    assert!(each < IDLE_BYTES || !shows_something, "an idle connection takes {each} bytes");
    drop(conns);
    until("connections are gone", || admin.number("", "curr_connections") < 20);
}

/// Connects until there are `count`; each does one request.
fn connect_and_ask(server: &Server, conns: &mut Vec<TcpStream>, count: usize) {
    while conns.len() < count {
        let mut conn = TcpStream::connect(server.addr).expect("accepted");
        conn.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(ask(&mut conn, b"get nothing\r\n", 5), b"END\r\n");
        conns.push(conn);
    }
}

/// KiB of anonymous memory.
fn memory(server: &Server) -> u64 {
    server.memory_kb("RssAnon:")
}

fn ask(conn: &mut (impl Read + Write), request: &[u8], len: usize) -> Vec<u8> {
    conn.write_all(request).expect("the server takes it");
    let mut reply = vec![0; len];
    conn.read_exact(&mut reply).expect("the server answers");
    reply
}

#[test]
fn too_many_are_refused_fast() {
    let server = Server::start(&["-c", "60", "-t", "1"]);
    let mut admin = server.connect();
    assert_eq!(admin.line("mn"), "MN");
    let mut held = Vec::new();
    let refused = loop {
        let mut conn = server.connect();
        conn.send(b"mn\r\n");
        if conn.read_until(DEADLINE, |got| got == b"MN\r\n") != Waited::Done {
            break conn;
        }
        held.push(conn);
        assert!(held.len() < 60, "-c 60 holds no more");
    };
    assert!(held.len() > 20, "only {} held", held.len());
    assert!(refused.closed);
    assert_eq!(refused.got, b"ERROR Too many open connections\r\n");
    assert_eq!(admin.number("", "rejected_connections"), 1);
    assert_eq!(admin.number("", "accepting_conns"), 1);
    assert_eq!(admin.number("", "max_connections"), 60);
    held.truncate(10);
    until("room again", || server_answers(&server));
}

/// Whether a new connection is served.
fn server_answers(server: &Server) -> bool {
    let mut conn = server.connect();
    conn.send(b"mn\r\n");
    conn.read_until(DEADLINE, |got| got == b"MN\r\n") == Waited::Done
}

/// Clients beyond the limit wait, in the kernel, and are served when others leave.
#[test]
fn too_many_wait_without_maxconns_fast() {
    const CLIENTS: usize = 80;
    let server = Server::start(&["-c", "60", "-t", "1", "-o", "no_maxconns_fast"]);
    let mut admin = server.connect();
    assert_eq!(admin.line("mn"), "MN");
    let (answered, leave) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut conn = server.connect();
                assert_eq!(conn.line("mn"), "MN");
                answered.fetch_add(1, Ordering::SeqCst);
                until("others may come in", || leave.load(Ordering::SeqCst));
            });
        }
        until("accepting pauses", || admin.number("", "accepting_conns") == 0);
        assert!(admin.number("", "listen_disabled_num") >= 1);
        assert!(answered.load(Ordering::SeqCst) < CLIENTS, "all were served at once");
        leave.store(true, Ordering::SeqCst);
    });
    assert_eq!(answered.load(Ordering::SeqCst), CLIENTS);
    until("accepting goes on", || admin.number("", "accepting_conns") == 1);
    assert!(admin.number("", "time_in_listen_disabled_us") > 0);
}

#[test]
fn idle_connections_are_kicked() {
    // So long that a busy machine lets the busy one ask in time.
    let server = Server::start(&["-o", "idle_timeout=10"]);
    let (mut idle, mut half, mut busy) = (server.connect(), server.connect(), server.connect());
    assert_eq!(idle.line("mn"), "MN");
    half.send(b"get unfini");
    until("both are kicked", || {
        assert_eq!(busy.line("mn"), "MN");
        idle.receive(Duration::from_millis(50));
        half.receive(Duration::from_millis(50));
        idle.closed && half.closed
    });
    assert_eq!(busy.number("", "idle_kicks"), 2);
    assert!(!busy.closed);
}

#[test]
fn unix_socket() {
    let folder = Folder::new();
    let path = folder.file("socket");
    let server = Server::spawn(folder, &["-s", &path, "-a", "0770"]);
    until("the socket listens", || UnixStream::connect(&path).is_ok());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o770);
    let mut conns: Vec<UnixStream> = (0..50).map(|_| UnixStream::connect(&path).unwrap()).collect();
    for (i, conn) in conns.iter_mut().enumerate() {
        conn.set_read_timeout(Some(DEADLINE)).unwrap();
        assert_eq!(ask(conn, format!("set u{i} 0 0 2\r\nhi\r\n").as_bytes(), 8), b"STORED\r\n");
    }
    let reply = ask(&mut conns[0], b"get u49\r\n", 24);
    assert_eq!(reply, b"VALUE u49 0 2\r\nhi\r\nEND\r\n"[..].to_vec());
    assert!(!Path::new(&server.folder.file("ports")).exists(), "a unix socket has no port");
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.file("socket");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    // Another test's child may hold the listener until it executes its program.
    until("nobody listens", || UnixStream::connect(&path).is_err());
    let _server = Server::spawn(folder, &["-s", &path]);
    until("the socket listens", || UnixStream::connect(&path).is_ok());
}

#[test]
fn several_listeners_and_ipv6() {
    if TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("skipped: there is no IPv6 here");
    }
    let server = Server::spawn(Folder::new(), &["-l", "127.0.0.1,127.0.0.2", "-l", "[::1]", "-p", "-1"]);
    let ports = server.ports();
    let kinds: Vec<&str> = ports.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["TCP INET", "TCP INET", "TCP INET6"]);
    let hosts = ["127.0.0.1", "127.0.0.2", "::1"].map(|host| host.parse().unwrap());
    let addresses: Vec<SocketAddr> =
        hosts.iter().zip(&ports).map(|(&host, (_, port))| SocketAddr::new(host, *port)).collect();
    for (i, &addr) in addresses.iter().enumerate() {
        let mut conn = Conn::to(addr);
        assert_eq!(conn.line(&format!("set at{i} 0 0 1\r\nx")), "STORED");
        assert_eq!(conn.line("incr missing 1"), "NOT_FOUND");
    }
    let mut conn = Conn::to(addresses[0]);
    assert_eq!(conn.ask(b"get at0 at1 at2\r\n", b"END\r\n").len(), 3 * 18 + 5);
}

/// The default listens on IPv4 and IPv6, one socket each.
#[test]
fn default_listens_on_both_families() {
    let server = Server::spawn(Folder::new(), &["-p", "-1"]);
    let ports = server.ports();
    let find = |kind: &str| ports.iter().find(|(name, _)| name == kind).map(|&(_, port)| port);
    let v4 = SocketAddr::new("127.0.0.1".parse().unwrap(), find("TCP INET").expect("IPv4"));
    assert_eq!(Conn::to(v4).line("mn"), "MN");
    if let Some(port) = find("TCP INET6") {
        assert_eq!(Conn::to(SocketAddr::new("::1".parse().unwrap(), port)).line("mn"), "MN");
    }
}

/// Values that the slow readers ask for: 9 of 100,000 bytes, each filled with its own digit.
fn fill_digits(conn: &mut Conn) {
    for digit in 1..=9u8 {
        let value = vec![b'0' + digit; 100_000];
        conn.send(format!("set digit{digit} 0 0 100000\r\n").as_bytes());
        conn.send(&value);
        assert_eq!(conn.ask(b"\r\n", b"\r\n"), b"STORED\r\n");
    }
}

/// A client pipelines thousands of large gets and does not read: the server stops reading it, its memory stays,
/// others are served. Then the client reads, and every reply is there, whole and in order.
#[test]
fn slow_reader_is_not_read_from() {
    let server = Server::start(&["-t", "1"]);
    let mut other = server.connect();
    fill_digits(&mut other);
    let before = memory(&server);
    let mut slow = TcpStream::connect(server.addr).unwrap();
    let mut requests = Vec::new();
    let digits: Vec<u8> = (0..2000).map(|i| 1 + (i * 7 % 9) as u8).collect();
    digits.iter().for_each(|digit| requests.extend_from_slice(format!("get digit{digit}\r\n").as_bytes()));
    let sent = write_until_stuck(&mut slow, &requests);
    for _ in 0..200 {
        assert_eq!(other.line("mn"), "MN");
    }
    let grown = memory(&server).saturating_sub(before);
    eprintln!("{sent} of {} bytes taken, {grown} KiB grown", requests.len());
    assert!(grown < STUCK_KB, "{grown} KiB for one client that does not read");
    let mut writer = slow.try_clone().unwrap();
    let rest = requests[sent..].to_vec();
    let sender = std::thread::spawn(move || writer.write_all(&rest).expect("the server takes the rest"));
    read_digits(slow, &digits);
    sender.join().unwrap();
}

/// Writes until nothing more is taken for a while; leaves the stream blocking.
fn write_until_stuck(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(1500))).unwrap();
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(_) => break,
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    stream.set_write_timeout(None).unwrap();
    sent
}

fn read_digits(stream: TcpStream, digits: &[u8]) {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut reader = BufReader::with_capacity(1 << 20, stream);
    let mut reply = vec![0; format!("VALUE digit1 0 100000\r\n{}\r\nEND\r\n", " ".repeat(100_000)).len()];
    for (i, &digit) in digits.iter().enumerate() {
        reader.read_exact(&mut reply).unwrap_or_else(|error| panic!("reply {i}: {error}"));
        let (head, rest) = reply.split_at(23);
        assert_eq!(head, format!("VALUE digit{digit} 0 100000\r\n").as_bytes(), "reply {i}");
        let (value, end) = rest.split_at(100_000);
        assert!(value.iter().all(|&b| b == b'0' + digit), "reply {i} holds another value");
        assert_eq!(end, b"\r\nEND\r\n");
    }
}

/// Output that is stuck while the items behind it are replaced and deleted leaves as it was when it was asked for.
#[test]
fn stuck_output_is_not_changed() {
    let server = Server::start(&["-t", "2", "-m", "64"]);
    let mut other = server.connect();
    fill_digits(&mut other);
    let mut slow = TcpStream::connect(server.addr).unwrap();
    let digits: Vec<u8> = (0..300).map(|i| 1 + (i % 9) as u8).collect();
    let requests: Vec<u8> = digits.iter().flat_map(|digit| format!("get digit{digit}\r\n").into_bytes()).collect();
    slow.write_all(&requests).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    // Everything is replaced by values of the same digit, so any reply is right, and torn ones show.
    for round in 0..20 {
        fill_digits(&mut other);
        for i in 0..60 {
            let value = "x".repeat(90_000 + round);
            assert_eq!(other.line(&format!("set filler{i} 0 0 {}\r\n{value}", value.len())), "STORED");
        }
    }
    read_digits(slow, &digits);
}

/// One connection pipelines without end on the only worker; another must still get its turns.
#[test]
fn a_flood_does_not_starve_others() {
    let server = Server::start(&["-t", "1", "-R", "20"]);
    let mut victim = server.connect();
    assert_eq!(victim.line("set k 0 0 1\r\nx"), "STORED");
    let flooder = TcpStream::connect(server.addr).unwrap();
    let mut writer = flooder.try_clone().unwrap();
    let sender = std::thread::spawn(move || {
        let batch = b"get k\r\n".repeat(1000);
        // The test ends the flood when it has seen enough.
        while writer.write_all(&batch).is_ok() {}
    });
    let mut reader = BufReader::with_capacity(1 << 16, flooder.try_clone().unwrap());
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        while let Ok(1..) = reader.read(&mut buffer) {}
    });
    until("the flood gives way", || victim.number("", "conn_yields") > 0);
    for _ in 0..100 {
        assert_eq!(victim.line("mn"), "MN");
    }
    assert!(!sender.is_finished() && !drain.is_finished(), "the flood goes on");
    let (seen, yields) = (victim.number("", "cmd_get"), victim.number("", "conn_yields"));
    eprintln!("{seen} of the flood's gets before the other's hundredth answer, {yields} yields");
    let _ = flooder.shutdown(std::net::Shutdown::Both);
    sender.join().unwrap();
    drain.join().unwrap();
}

#[test]
fn who_asks_before_a_long_turn_is_answered_before_it() {
    let server = Server::start(&["-t", "1"]);
    let (mut first, mut uploader) = (server.connect(), server.connect());
    assert_eq!((first.line("mn"), uploader.line("mn")), ("MN".into(), "MN".into()));
    // So far that it waits for the rest of the value.
    uploader.send(&[b"set k 0 0 40000\r\n".as_slice(), &[b'v'; 10_000]].concat());
    assert_eq!(first.line("mn"), "MN");
    // Both are there when the server looks.
    freeze(server.pid());
    first.send(b"get k\r\n");
    until("it is there", || has_arrived(first.local_addr()));
    uploader.send(&[[b'v'; 30_000].as_slice(), b"\r\n"].concat());
    signal(server.pid(), "CONT");
    assert_eq!(uploader.ask(b"", b"\r\n"), b"STORED\r\n");
    let answer = first.ask(b"", b"END\r\n");
    assert!(answer == b"END\r\n", "what came later was done before: {}", common::show(&answer));
}

/// Whether the server's kernel has bytes for it from the client with this address of IPv4.
fn has_arrived(client: SocketAddr) -> bool {
    // Lines `number: local remote state tx_queue:rx_queue …`, all of it in hexadecimal.
    let remote = format!(":{:04X}", client.port());
    let table = fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).any(|words| {
        words[2].ends_with(&remote) && words[4].split_once(':').is_some_and(|(_, waiting)| waiting != "00000000")
    })
}

#[test]
fn what_a_source_has_left_behind_is_not_run_after_the_next_ones_word() {
    let server = Server::start(&["-t", "1"]);
    let (mut old, mut new) = (server.connect(), server.connect());
    assert!(old.line("replica from 1234").starts_with("OK ") && new.line("mn") == "MN");
    let mut others: Vec<Conn> = (0..20).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|conn| assert_eq!(conn.line("mn"), "MN"));
    // All are there when the server looks, in this order.
    freeze(server.pid());
    new.send(b"replica from 1234\r\n");
    until("it is there", || has_arrived(new.local_addr()));
    others.iter_mut().for_each(|conn| conn.send(b"get k\r\n"));
    until("they are there", || others.iter().all(|conn| has_arrived(conn.local_addr())));
    old.send(b"set k 0 0 1\r\nv\r\n");
    until("it is there", || has_arrived(old.local_addr()));
    signal(server.pid(), "CONT");
    assert!(new.ask(b"", b"\r\n").starts_with(b"OK "));
    assert_eq!(old.read_until(DEADLINE, |got| !got.is_empty()), Waited::Closed);
    others.iter_mut().for_each(|conn| assert_eq!(conn.ask(b"", b"END\r\n"), b"END\r\n"));
    assert_eq!(new.ask(b"get k\r\n", b"END\r\n"), b"END\r\n");
}

#[test]
fn requests_that_are_there_at_once_get_each_its_own_answer() {
    let server = Server::start(&["-t", "1"]);
    let mut rng = Rng(common::seed("WAVE_SEED"));
    let mut clients: Vec<(Conn, Vec<u8>)> = (0..50).map(|_| (server.connect(), Vec::new())).collect();
    for (i, (conn, value)) in clients.iter_mut().enumerate() {
        let (request, reply) = own_request(0, i, value, &mut rng);
        assert_eq!(conn.ask(&request, b"\r\n"), reply);
    }
    for round in 0..30 {
        freeze(server.pid());
        let replies = clients.iter_mut().enumerate().map(|(i, (conn, value))| {
            let (request, reply) = own_request(rng.below(8), i, value, &mut rng);
            conn.send(&request);
            reply
        });
        let replies: Vec<Vec<u8>> = replies.collect();
        signal(server.pid(), "CONT");
        for ((conn, _), reply) in clients.iter_mut().zip(replies) {
            let waited = conn.read_until(DEADLINE, |got| got.len() >= reply.len());
            assert!(waited == Waited::Done && conn.got == reply, "round {round}: {}", common::show(&conn.got));
            conn.got.clear();
            if reply.is_empty() {
                assert_eq!(conn.line("mn"), "MN", "what went before has been taken, too");
            }
        }
    }
}

/// A request of client `i` for its own key, and the reply. Some are answered together, some need a turn.
fn own_request(kind: usize, i: usize, value: &mut Vec<u8>, rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let text = |value: &[u8]| [format!("VALUE own{i} 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
    let get = format!("get own{i}\r\n").into_bytes();
    match kind {
        0..3 => {
            let len = rng.pick(&[0, 1, 100, 5000, 16_000, 17_000, 20_000]);
            *value = vec![b'a' + rng.below(26) as u8; len];
            let (quiet, reply) = if kind == 1 { (" noreply", b"".as_slice()) } else { ("", b"STORED\r\n".as_slice()) };
            let head = format!("set own{i} 0 0 {len}{quiet}\r\n");
            ([head.as_bytes(), value, b"\r\n"].concat(), reply.to_vec())
        }
        3..6 => (get, [&text(value)[..], b"END\r\n"].concat()),
        6 => (get.repeat(2), [&text(value)[..], b"END\r\n"].concat().repeat(2)),
        _ => (format!("mg own{i} s\r\n").into_bytes(), format!("HD s{}\r\n", value.len()).into_bytes()),
    }
}

/// Clients that begin large values and never end them take part of the memory, not all of it, and give it back
/// when they leave.
#[test]
fn slow_uploaders_do_not_take_all_memory() {
    let server = Server::start(&["-m", "64", "-t", "2"]);
    let mut other = server.connect();
    let before = memory(&server);
    for _ in 0..3 {
        let mut uploads: Vec<TcpStream> = Vec::new();
        for i in 0..300 {
            let mut conn = TcpStream::connect(server.addr).unwrap();
            conn.write_all(format!("set upload{i} 0 0 1000000\r\n").as_bytes()).unwrap();
            // What the server refuses it swallows, so a write never fails.
            conn.write_all(&[b'u'; 20_000]).unwrap();
            uploads.push(conn);
        }
        for i in 0..2000 {
            let value = "v".repeat(10 + i * 7 % 20_000);
            assert_eq!(other.line(&format!("set other{i} 0 0 {}\r\n{value}", value.len())), "STORED", "value {i}");
        }
        let grown = memory(&server).saturating_sub(before);
        assert!(grown < (64 + 32) << 10, "{grown} KiB with -m 64");
        drop(uploads);
        until("the uploads are gone", || other.number("", "curr_connections") < 10);
    }
    let value = "w".repeat(900_000);
    for i in 0..200 {
        assert_eq!(other.line(&format!("set large{i} 0 0 {}\r\n{value}", value.len())), "STORED", "large value {i}");
    }
    assert_eq!(other.line("get upload0"), "END");
    let get_last = other.ask(b"get large199\r\n", b"END\r\n");
    assert_eq!(get_last.len(), "VALUE large199 0 900000\r\n\r\nEND\r\n".len() + value.len());
}

/// Many append to one large value at a time, over several workers. Then the server ends while they do.
#[test]
fn who_appends_to_a_large_value_waits_for_the_others() {
    let mut server = Server::start(&["-m", "64", "-t", "3"]);
    let mut conn = server.connect();
    let value = "v".repeat(900_000);
    assert_eq!(conn.line(&format!("set k 0 0 {}\r\n{value}", value.len())), "STORED");
    let mut clients: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(server.addr).unwrap()).collect();
    clients.iter().for_each(|client| client.set_read_timeout(Some(DEADLINE)).unwrap());
    clients.iter_mut().for_each(|client| client.write_all(b"append k 0 0 1\r\nx\r\n").unwrap());
    for client in &mut clients {
        let mut reply = [0; 8];
        client.read_exact(&mut reply).unwrap();
        assert_eq!(&reply, b"STORED\r\n");
    }
    assert_eq!(conn.line("mg k s"), "HD s900060");
    // Some hang up, the first among them.
    clients.iter_mut().for_each(|client| client.write_all(&b"append k 0 0 1\r\ny\r\n".repeat(20)).unwrap());
    clients.drain(..20);
    clients.iter().for_each(|client| {
        let mut replies = BufReader::new(client).take(20 * 8);
        let mut all = Vec::new();
        replies.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"STORED\r\n".repeat(20));
    });
    clients.iter_mut().for_each(|client| client.write_all(&b"append k 0 0 1\r\nz\r\n".repeat(100)).unwrap());
    assert_eq!(server.stop("USR1").0, Some(0));
}
