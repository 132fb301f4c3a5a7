//! UDP (`-U`): datagrams to the real binary, and to memcached where it is installed.

mod common;

use common::{Folder, Packet, Rng, Server, seed};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// An answer is over when nothing has come for this long after its end could have come.
const QUIET: Duration = Duration::from_millis(100);

/// A client.
struct Client(UdpSocket);

impl Client {
    fn of(server: &Server) -> Client {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.connect(udp_address(server)).unwrap();
        Client(socket)
    }

    fn send(&self, payload: &[u8]) {
        let datagram = [b"\x01\x02\0\0\0\x01\0\0".as_slice(), payload].concat();
        self.0.send(&datagram).unwrap();
    }

    /// The next datagram; None if none comes in time.
    fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65536];
        self.0.set_read_timeout(Some(patience)).unwrap();
        let n = self.0.recv(&mut bytes).ok()?;
        bytes.truncate(n);
        Some(bytes)
    }

    /// All datagrams that answer this.
    fn ask(&self, payload: &[u8]) -> Vec<Vec<u8>> {
        self.send(payload);
        self.receive_all(0)
    }

    /// All datagrams that come, of which so many must.
    fn receive_all(&self, least: usize) -> Vec<Vec<u8>> {
        let mut all: Vec<_> = (0..least).map_while(|_| self.receive(common::DEADLINE)).collect();
        while let Some(datagram) = self.receive(QUIET) {
            all.push(datagram);
        }
        all
    }

    /// The text of the one datagram that answers this.
    fn line(&self, payload: &str) -> String {
        self.send(payload.as_bytes());
        let datagram = self.receive(common::DEADLINE).expect("an answer");
        String::from_utf8_lossy(&datagram[8..]).into_owned()
    }
}

fn udp_address(server: &Server) -> SocketAddr {
    let ports = server.ports();
    let port = ports.iter().find(|(name, _)| name == "UDP INET").expect("a UDP port").1;
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn start(options: &[&str]) -> Server {
    Server::start(&[&["-U", "-1"], options].concat())
}

#[test]
fn requests_over_udp() {
    let server = start(&[]);
    let client = Client::of(&server);
    assert_eq!(client.line("set a 0 0 1\r\nx\r\n"), "STORED\r\n");
    let mut tcp = server.connect();
    tcp.send(b"get a\r\n");
    tcp.expect("VALUE a 0 1\r\nx\r\nEND\r\n");
    assert_eq!(client.line("incr n 1\r\n"), "NOT_FOUND\r\n");
    client.send(&Packet::new(0x0a, b"", b"").request());
    assert_eq!(client.receive(common::DEADLINE).expect("an answer").len(), 8 + 24);
}

#[test]
fn a_large_value_arrives_in_order() {
    let server = start(&[]);
    let value: Vec<u8> = (0..50_000_u32).map(|i| b'a' + (i % 23) as u8).collect();
    let mut tcp = server.connect();
    tcp.send(&[format!("set big 0 0 {}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat());
    tcp.expect("STORED\r\n");
    let client = Client::of(&server);
    client.send(b"get big\r\n");
    let first = client.receive(common::DEADLINE).expect("a datagram");
    let total = u16::from_be_bytes([first[4], first[5]]);
    let mut text = first[8..].to_vec();
    for sequence in 1..total {
        let datagram = client.receive(common::DEADLINE).expect("a datagram");
        assert_eq!(datagram[..8], [1, 2, (sequence >> 8) as u8, sequence as u8, first[4], first[5], 0, 0]);
        text.extend_from_slice(&datagram[8..]);
    }
    assert!(text == [b"VALUE big 0 50000\r\n".as_slice(), &value, b"\r\nEND\r\n"].concat());
}

#[test]
fn what_statistics_say_of_it() {
    let server = start(&["-t", "3"]);
    let (client, mut tcp) = (Client::of(&server), server.connect());
    assert_eq!(tcp.stat("settings", "num_threads_per_udp"), "3");
    assert_eq!(tcp.number("", "curr_connections"), 1 + 3 + 1 - 1);
    let before = (tcp.number("", "cmd_get"), tcp.number("", "bytes_read"));
    tcp.ask(b"mn\r\n", b"MN\r\n");
    let cost = tcp.number("", "bytes_read") - before.1;
    client.line("get a\r\n");
    assert_eq!(tcp.number("", "cmd_get"), before.0 + 1);
    tcp.ask(b"mn\r\n", b"MN\r\n");
    assert!(tcp.number("", "bytes_read") >= before.1 + cost + 15);
    let conns = tcp.stats("conns");
    let udp = conns.iter().filter(|(name, value)| name.ends_with(":UDP") && value == "UDP").count();
    let address = format!("udp:{}", udp_address(&server));
    let named = conns.iter().filter(|(name, value)| name.ends_with(":addr") && *value == address).count();
    assert_eq!((udp, named), (3, 3), "{conns:?}");
}

#[test]
fn several_addresses_have_a_socket_each() {
    let folder = Folder::new();
    let server = Server::spawn(folder, &["-l", "127.0.0.1,127.0.0.2", "-p", "-1", "-U", "-1"]);
    let ports = common::wait_for("the port file", || Some(server.ports()).filter(|ports| ports.len() == 4));
    let udp: Vec<u16> = ports.iter().filter(|(name, _)| name == "UDP INET").map(|(_, port)| *port).collect();
    for (address, port) in ["127.0.0.1", "127.0.0.2"].into_iter().zip(udp) {
        let client = Client(UdpSocket::bind(("127.0.0.1", 0)).unwrap());
        client.0.connect((address, port)).unwrap();
        assert_eq!(client.line("mn\r\n"), "MN\r\n");
    }
}

#[test]
fn a_port_in_use_is_an_error() {
    let other = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let port = other.local_addr().unwrap().port().to_string();
    let error = Server::try_start(&["-U", &port]).map(|_| ()).unwrap_err();
    assert!(error.contains("71") && error.contains("failed to listen on"), "{error}");
    let server = start(&[]);
    let taken = udp_address(&server).port().to_string();
    let error = Server::try_start(&["-U", &taken]).map(|_| ()).unwrap_err();
    assert!(error.contains("in use"), "{error}");
}

/// A flood, whose answers nobody takes, and whose senders may be anybody, leaves room for others.
#[test]
fn a_flood_leaves_room_for_others() {
    let server = start(&["-t", "1"]);
    let mut tcp = server.connect();
    let value = vec![b'x'; 1_000_000];
    tcp.send(&[b"set big 0 0 1000000\r\n".as_slice(), &value, b"\r\n"].concat());
    tcp.expect("STORED\r\n");
    let flood = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let to = udp_address(&server);
    let many = [b"\0\0\0\0\0\x01\0\0".as_slice(), b"get", &b" big".repeat(10_000), b"\r\n"].concat();
    let before = server.memory_kb("VmRSS:");
    for _ in 0..200 {
        // The kernel drops what the server does not take.
        let _ = flood.send_to(&many, to);
        let _ = flood.send_to(b"\0\0\0\0\0\x01\0\0get big\r\n", to);
        tcp.send(b"mn\r\n");
        tcp.expect("MN\r\n");
    }
    let grown = server.memory_kb("VmRSS:").saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KB");
    // As long as the flood has not been worked off, the kernel drops others' datagrams, too.
    let client = Client::of(&server);
    let answered = common::wait_for("an answer", || {
        client.send(b"mn\r\n");
        client.receive(QUIET)
    });
    assert_eq!(answered[8..], *b"MN\r\n");
}

/// Lines that are no requests count as well, whatever was answered before them.
#[test]
fn one_datagram_has_so_many_answers() {
    let server = start(&[]);
    let client = Client::of(&server);
    for (keys, wrong) in [(1024, 30_000), (1023, 30_000), (0, 30_000), (1024, 0)] {
        let payload = [b"get".as_slice(), &b" a".repeat(keys), b"\r\n", &b"x\n".repeat(wrong)].concat();
        let answers = client.ask(&payload).len();
        assert!((1..=1024).contains(&answers), "{answers} for {keys} keys and {wrong} wrong lines");
    }
    let long = [b"gets".as_slice(), &b" a".repeat(1024), b" ", &[b'k'; 251], b"\r\n"].concat();
    assert!(client.ask(&long).len() <= 1024);
    assert_eq!(client.line("mn\r\n"), "MN\r\n");
}

/// Somebody may send in the name of another server, which would answer the answer, and so on.
#[test]
fn answers_of_a_server_are_not_answered() {
    let (one, other) = (start(&[]), start(&[]));
    let client = Client::of(&one);
    for answer in ["ERROR\r\n", "END\r\n", "CLIENT_ERROR bad command line format\r\n", "HD\r\n", "\u{81}"] {
        assert_eq!(client.ask(answer.as_bytes()), [b""; 0], "{answer}");
    }
    let mut packet = Packet::new(0x0b, b"", b"").request();
    packet[0] = 0x81;
    assert_eq!(client.ask(&packet), [b""; 0]);
    assert_eq!((client.line("foo\r\n"), Client::of(&other).line("mn\r\n")), ("ERROR\r\n".into(), "MN\r\n".into()));
}

#[test]
fn garbage_harms_nobody() {
    let server = start(&[]);
    let client = Client::of(&server);
    let seed = seed("UDP_SEED");
    let mut rng = Rng(seed);
    for _ in 0..3000 {
        let len = rng.below(300);
        let mut bytes = rng.bytes(len);
        if bytes.len() > 8 && !rng.one_in(4) {
            bytes[4..6].copy_from_slice(&[0, 1]);
            bytes[8] = if rng.one_in(2) { 0x80 } else { bytes[8] };
        }
        client.0.send(&bytes).unwrap();
    }
    while client.receive(QUIET).is_some() {}
    assert_eq!(client.line("mn\r\n"), "MN\r\n", "seed {seed}");
}

/// What memcached 1.6.45 was recorded to send, datagram by datagram.
#[test]
fn recorded_answers_are_given() {
    let server = start(&[]);
    let (client, mut tcp) = (Client::of(&server), server.connect());
    tcp.send(
        format!("set a 0 0 1\r\nA\r\nset b 0 0 1\r\nB\r\nset big 0 0 3000\r\n{}\r\n", "x".repeat(3000)).as_bytes(),
    );
    tcp.expect("STORED\r\nSTORED\r\nSTORED\r\n");
    let raw = |datagram: &[u8], answers| {
        client.0.send(datagram).unwrap();
        client.receive_all(answers)
    };
    let whole = |text: &str| [b"\0\x07\0\0\0\x01\0\0", text.as_bytes()].concat();
    let answers: [(&str, &[&str]); 5] = [
        ("get a b\r\n", &["VALUE a 0 1\r\nA\r\n", "VALUE b 0 1\r\nB\r\nEND\r\n"]),
        ("get a\r\nget b\r\n", &["VALUE a 0 1\r\nA\r\nEND\r\n", "VALUE b 0 1\r\nB\r\nEND\r\n"]),
        ("watch\r\n", &[]),
        ("set a 0 0 1 noreply\r\nQ\r\n", &[]),
        ("get a\r\n", &["VALUE a 0 1\r\nQ\r\nEND\r\n"]),
    ];
    for (request, expected) in answers {
        let expected: Vec<_> = expected.iter().map(|text| whole(text)).collect();
        assert_eq!(raw(&whole(request), expected.len()), expected, "{request}");
    }
    let big: Vec<_> = raw(&whole("get big\r\n"), 3).iter().map(|all| (all.len(), all[..8].to_vec())).collect();
    let head = |sequence| vec![0, 7, 0, sequence, 0, 3, 0, 0];
    assert_eq!(big, [(1400, head(0)), (1400, head(1)), (249, head(2))]);
    for nothing in [&b"\0\x07\0\0\0\x02\0\0get a\r\n"[..], &whole(""), &whole("get a")] {
        assert_eq!(raw(nothing, 0), [b""; 0], "{}", common::show(nothing));
    }
}

#[test]
fn answers_are_memcacheds() {
    let options = ["-U", "-1", "-t", "1", "-o", "slab_accounting=memcached"];
    let ours = Server::start(&options);
    let Some(theirs) = Server::reference(&options[..4]) else {
        return println!("no memcached to compare with: install Debian's memcached");
    };
    let (ours, theirs) = (Client::of(&ours), Client::of(&theirs));
    let packet = |op: u8, key: &[u8]| Packet::new(op, key, b"").request();
    let long = format!("set big 0 0 5000\r\n{}\r\n", "x".repeat(5000));
    let text = [
        "set a 0 0 1\r\nA\r\n",
        "set b 7 0 1 noreply\r\nB\r\n",
        &long,
        "get a\r\n",
        "get a b\r\n",
        "get x a y b\r\n",
        "get x y\r\n",
        "get x\r\n",
        "get a x\r\n",
        "get big a\r\n",
        "get a\r\nget b\r\n",
        "gat 100 a b\r\n",
        "mg a v\r\nmn\r\n",
        "mg x v q\r\nmn\r\n",
        "mg big v\r\n",
        "foo\r\nget a\r\n",
        "get a\r\nget",
        "get a",
        "verbosity 0\r\n",
        "incr a 1\r\n",
        "delete x noreply\r\nget a\r\n",
        "set c 0 0 1 noreply\r\nC\r\nget x a\r\n",
    ];
    let binary = [
        packet(0x0a, b""),
        packet(0x0c, b"none"),
        packet(0x09, b"none"),
        [packet(0x09, b"none"), packet(0x09, b"none"), packet(0x0a, b"")].concat(),
        [packet(0x0a, b""), packet(0x09, b"none"), packet(0x0a, b"")].concat(),
        packet(0x07, b""),
        packet(0x17, b""),
        packet(0x77, b""),
        packet(0x00, b""),
        packet(0x0a, b"")[..20].to_vec(),
    ];
    for request in text.iter().map(|text| text.as_bytes()).chain(binary.iter().map(Vec::as_slice)) {
        let show = |all: Vec<Vec<u8>>| all.iter().map(|bytes| common::show(bytes)).collect::<Vec<_>>();
        assert_eq!(show(ours.ask(request)), show(theirs.ask(request)), "{}", common::show(request));
    }
}
