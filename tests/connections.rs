//! Listening, limits, time-outs and endings, against a server inside the test's own process.

mod common;

use common::{Conn, DEADLINE, Folder, Running, Waited, address, descriptors_possible, until};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::Duration;
use twincache::config::Binding;
use twincache::net::StartError;

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn several_addresses_are_served() {
    let mut listen = vec![address("127.0.0.1", None), address("localhost", None), address("127.0.0.2", None)];
    if has_ipv6() {
        listen.push(address("[::1]", None));
    }
    let wanted = listen.len();
    let running = Running::start(|config| config.listen = listen);
    assert!(running.server.addresses().len() >= wanted, "{:?}", running.server.addresses());
    for address in running.server.addresses() {
        assert_eq!(Conn::to(*address).line("mn"), "MN");
    }
}

#[test]
fn without_an_address_any_is_served() {
    let running = Running::start(|config| config.listen = Vec::new());
    let families: Vec<bool> = running.server.addresses().iter().map(SocketAddr::is_ipv6).collect();
    assert_eq!(families, if has_ipv6() { vec![false, true] } else { vec![false] });
    let port = running.address().port();
    assert_eq!(Conn::to(SocketAddr::from(([127, 0, 0, 1], port))).line("mn"), "MN");
}

#[test]
fn a_taken_port_is_said() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let host = format!("127.0.0.1:{port}");
    let error = Running::try_start(|config| {
        config.listen = vec![address("127.0.0.1", Some(port))];
        config.listen_text = Some(host.clone());
    });
    let wanted =
        format!("failed to listen on one of interface(s) {host}: 127.0.0.1 port {port}: Address already in use");
    assert_eq!(error.err(), Some(StartError { message: wanted, exit_code: 71 }));
}

#[test]
fn port_0_is_no_tcp() {
    let running = Running::start(|config| config.tcp_port = Some(0));
    assert!(running.server.addresses().is_empty());
}

#[test]
fn a_unix_socket_replaces_tcp() {
    let folder = Folder::new();
    let path = folder.file("unix");
    // A socket file that somebody left behind is in the way, and goes.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let running = Running::start(|config| {
        config.unix_socket = Some(path.clone());
        config.unix_mask = 0o750;
    });
    assert!(running.server.addresses().is_empty());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o750);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"stats conns\r\nquit\r\n").unwrap();
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    for wanted in
        [format!(":addr unix:{path}\r\n"), ":addr ?:<AF 0>\r\n".into(), format!(":listen_addr unix:{path}\r\n")]
    {
        assert!(reply.contains(&wanted), "{wanted:?} is not in {reply:?}");
    }
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let path = folder.file("file");
    std::fs::write(&path, "precious").unwrap();
    let error = Running::try_start(|config| config.unix_socket = Some(path.clone())).err().unwrap();
    assert!(error.message.starts_with("failed to listen on UNIX socket: "), "{error:?}");
    assert_eq!(error.exit_code, 71);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn one_too_many_is_refused() {
    // Listeners do not count.
    let running = Running::start(|config| config.max_conns = 3);
    let mut clients: Vec<Conn> = (0..3).map(|_| running.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.line("mn"), "MN"));
    let mut refused = running.connect();
    assert_eq!(refused.read_until(DEADLINE, |_| false), Waited::Closed);
    assert_eq!(refused.got, b"ERROR Too many open connections\r\n");
    assert_eq!(running.shared.stats.rejected_conns.load(Ordering::Relaxed), 1);
    clients.pop();
    running.await_open(3);
    assert_eq!(running.connect().line("mn"), "MN");
    assert_eq!(running.shared.stats.total_conns.load(Ordering::Relaxed), 5, "listener and 4 clients");
}

#[test]
fn one_too_many_waits() {
    let running = Running::start(|config| (config.max_conns, config.maxconns_fast) = (2, false));
    let stats = &running.shared.stats;
    let mut clients: Vec<Conn> = (0..2).map(|_| running.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.line("mn"), "MN"));
    let mut waiting = running.connect();
    waiting.send(b"mn\r\n");
    until("accepting stops", || stats.not_accepting.load(Ordering::Relaxed));
    assert_eq!(waiting.receive(Duration::from_millis(300)), Waited::Quiet);
    assert_eq!(stats.listen_disabled.load(Ordering::Relaxed), 1);
    clients.pop();
    assert_eq!(waiting.read_until(DEADLINE, |got| got == b"MN\r\n"), Waited::Done);
    assert!(!stats.not_accepting.load(Ordering::Relaxed));
    assert!(stats.listen_disabled_us.load(Ordering::Relaxed) > 0);
    assert_eq!(stats.rejected_conns.load(Ordering::Relaxed), 0);
}

#[test]
fn who_says_nothing_for_too_long_is_closed() {
    let running = Running::start(|config| config.idle_timeout = 10);
    // Only what is added counts.
    running.shared.clock.pause(true);
    let (mut idle, mut busy) = (running.connect(), running.connect());
    assert_eq!((idle.line("mn"), busy.line("mn")), ("MN".into(), "MN".into()));
    running.shared.clock.advance(8);
    assert_eq!(busy.line("mn"), "MN");
    running.shared.clock.advance(8);
    idle.expect_end();
    assert_eq!(running.shared.stats.totals().idle_kicks, 1);
    assert_eq!(busy.line("mn"), "MN");
}

#[test]
fn the_end_is_orderly_though_input_is_unread() {
    let running = Running::start(|config| config.threads = 1);
    for _ in 0..50 {
        let mut client = running.connect();
        client.send(&[b"mn\r\nquit\r\n".as_slice(), &[b'x'; 50_000]].concat());
        // Input that comes after the server has looked a last time makes a reset of the end; the reply is there.
        assert_eq!(client.read_until(DEADLINE, |_| false), Waited::Closed);
        assert_eq!(client.got, b"MN\r\n");
    }
}

#[test]
fn a_client_that_only_listens_gets_all_its_replies() {
    let running = Running::start(|_| {});
    let mut client = running.connect();
    client.send(&b"mn\r\n".repeat(1000));
    client.finish();
    assert_eq!(client.got, b"MN\r\n".repeat(1000));
}

#[test]
fn who_never_reads_hinders_nobody() {
    let running = Running::start(|config| config.threads = 1);
    let mut deaf = TcpStream::connect(running.address()).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let mut other = running.connect();
    let value = vec![b'v'; 100_000];
    assert_eq!(other.ask(&[b"set v 0 0 100000\r\n".as_slice(), &value, b"\r\n"].concat(), b"\r\n"), b"STORED\r\n");
    let mut sent = 0;
    // Far more is asked for than kernel buffers take, until the server does not even read any more.
    until("the server stops reading", || {
        while let Ok(n) = deaf.write(&b"get v\r\n".repeat(1000)) {
            sent += n;
        }
        let written = running.shared.stats.totals().bytes_written;
        std::thread::sleep(Duration::from_millis(100));
        sent > 100_000 && written > 0 && written == running.shared.stats.totals().bytes_written
    });
    assert_eq!(other.line("mn"), "MN");
    drop(deaf);
    running.await_open(2);
}

#[test]
fn uploads_in_pieces_of_any_size_arrive() {
    let running = Running::start(|config| config.threads = 1);
    let mut slow = running.connect();
    let value: Vec<u8> = (0..900_000u32).map(|i| (i % 251) as u8).collect();
    slow.send(b"set big 0 0 900000\r\n");
    let mut other = running.connect();
    for piece in value.chunks(70_001) {
        slow.send(piece);
        assert_eq!(other.line("mn"), "MN");
    }
    assert_eq!(slow.ask(b"\r\n", b"\r\n"), b"STORED\r\n");
    let got = other.ask(b"get big\r\n", b"END\r\n");
    assert_eq!(got, [b"VALUE big 0 900000\r\n".as_slice(), &value, b"\r\nEND\r\n"].concat());
    // Half an upload, and gone: nothing of it stays.
    slow.send(b"set big 0 0 900000\r\nabc");
    drop(slow);
    running.await_open(2);
    assert_eq!(other.ask(b"get big\r\n", b"END\r\n").len(), got.len());
}

#[test]
fn a_socket_speaks_only_what_it_is_told() {
    let running = Running::start(|config| config.binding = Binding::Binary);
    let mut text = running.connect();
    text.send(b"mn\r\nand so on until it is longer than a header\r\n");
    text.expect_end();
    let running = Running::start(|config| config.binding = Binding::Ascii);
    let mut binary = running.connect();
    binary.send(&[0x80; 24]);
    assert_eq!(binary.line(""), "ERROR");
}

#[test]
fn watchers_see_connections_come_and_go() {
    let running = Running::start(|config| config.max_conns = 2);
    let mut watcher = running.connect();
    assert_eq!(watcher.line("watch connevents"), "OK");
    let mut client = running.connect();
    client.send(b"quit\r\n");
    client.expect_end();
    let is_whole = |got: &[u8]| got.iter().filter(|&&b| b == b'\n').count() == 2;
    assert_eq!(watcher.read_until(DEADLINE, is_whole), Waited::Done);
    let lines = String::from_utf8(std::mem::take(&mut watcher.got)).unwrap();
    assert!(lines.contains(" type=conn_new rip=127.0.0.1 rport="), "{lines}");
    assert!(lines.contains(" transport=tcp cfd="), "{lines}");
    assert!(lines.contains(" type=conn_close rip=127.0.0.1 rport="), "{lines}");
    assert!(lines.contains(" transport=tcp reason=normal cfd="), "{lines}");
    running.await_open(2);
    drop(watcher);
    running.await_open(1);
}

#[test]
fn a_graceful_stop_delivers_what_is_owed() {
    let running = Running::start(|config| (config.threads, config.stop_grace) = (1, DEADLINE));
    let mut client = running.connect();
    let value = vec![b'v'; 1_000_000];
    client.ask(&[b"set v 0 0 1000000\r\n".as_slice(), &value, b"\r\n"].concat(), b"\r\n");
    let before = running.shared.stats.totals().bytes_written;
    client.send(&b"get v\r\n".repeat(40));
    until("replies", || running.shared.stats.totals().bytes_written > before);
    let reader = std::thread::spawn(move || {
        client.read_until(DEADLINE, |_| false);
        client.got
    });
    running.server.stop(true);
    let got = reader.join().unwrap();
    assert!(got.ends_with(b"\r\nEND\r\n"), "{} bytes", got.len());
    assert_eq!(got.len() % (b"VALUE v 0 1000000\r\n\r\nEND\r\n".len() + value.len()), 0);
}

#[test]
fn thousands_of_connections_are_held() {
    // Both ends of each are here, and other tests have some, too.
    let count = 4000.min((descriptors_possible(10_000) - 1000) / 2);
    let running = Running::start(|config| config.max_conns = 10_000);
    let mut clients: Vec<Conn> = (0..count).map(|_| running.connect()).collect();
    running.await_open(count as u64 + 1);
    for client in &mut clients {
        client.send(b"mn\r\n");
    }
    for client in &mut clients {
        assert_eq!(client.read_until(DEADLINE, |got| got == b"MN\r\n"), Waited::Done);
    }
    assert_eq!(running.shared.stats.conns.lock().unwrap().len(), count + 1);
    drop(clients);
    running.await_open(1);
    assert_eq!(running.shared.stats.conns.lock().unwrap().len(), 1);
}
