//! TLS, against the real binary: handshakes of every kind, certificates, records in pieces, clients that misbehave.

mod common;

use common::{
    Conn, Folder, Pki, RecordWriter, Rng, Server, Sidecar, ThinWire, TlsConn, Waited, freeze, seed, signal, until,
};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ContentType, HandshakeKind, StreamOwned, SupportedProtocolVersion};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Nothing that is on its way takes so long.
const QUIET: Duration = Duration::from_millis(300);

/// A server that speaks TLS at its address, and a plain connection for statistics.
struct Rig {
    pki: Pki,
    server: Server,
    admin: Conn,
}

impl Rig {
    fn new(options: &str, words: &[&str]) -> Rig {
        let pki = Pki::new();
        let options = pki.options(options);
        let server = Server::start(&[&["-l", "notls:127.0.0.1:0", "-Z", "-o", &options], words].concat());
        let plain = server.ports()[1].1;
        let admin = Conn::to(SocketAddr::from(([127, 0, 0, 1], plain)));
        Rig { pki, server, admin }
    }

    /// A client that trusts the CA.
    fn connect(&self) -> TlsConn {
        self.connect_with(self.pki.client())
    }

    fn connect_with(&self, config: ClientConfig) -> TlsConn {
        TlsConn::to(self.server.addr, &Arc::new(config))
    }

    /// `stats` as far as they are TLS's, with what stands before and behind.
    fn stats_of_tls(&mut self) -> Vec<String> {
        let names: Vec<String> = self.admin.stats("").into_iter().map(|(name, _)| name).collect();
        let at = |wanted: &str| names.iter().position(|name| name == wanted).unwrap();
        names[at("log_watchers")..=at("unexpected_napi_ids")].to_vec()
    }

    /// What becomes of a client of this version with this certificate: whether it is served.
    fn serves(&self, version: &'static SupportedProtocolVersion, cert: Option<&str>) -> bool {
        serves(self.server.addr, self.pki.client_of(&[version], cert))
    }

    fn stat(&mut self, name: &str) -> u64 {
        self.admin.number("", name)
    }
}

fn serves(address: SocketAddr, config: ClientConfig) -> bool {
    match TlsConn::to(address, &Arc::new(config)).try_ask(b"mn\r\n", b"MN\r\n") {
        Ok(answer) => answer == b"MN\r\n",
        Err(error) => {
            assert!(!matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it hangs: {error}");
            false
        }
    }
}

#[test]
fn both_versions_serve_gets_and_sets() {
    let rig = Rig::new("", &[]);
    for version in [&TLS12, &TLS13] {
        let mut conn = rig.connect_with(rig.pki.client_of(&[version], None));
        conn.ask("set k 7 0 5\r\nhello\r\n", "STORED\r\n");
        conn.ask("get k\r\nmg k v\r\n", "VALUE k 7 5\r\nhello\r\nEND\r\nVA 5\r\nhello\r\n");
        assert_eq!(conn.0.conn.protocol_version(), Some(version.version));
    }
}

#[test]
fn the_oldest_version_and_the_suites_are_the_operators() {
    let rig = Rig::new("ssl_min_version=3", &[]);
    assert!(!rig.serves(&TLS12, None) && rig.serves(&TLS13, None));
    let rig = Rig::new("ssl_ciphers=ECDHE-ECDSA-CHACHA20-POLY1305:!aNULL:NONSENSE", &[]);
    let mut conn = rig.connect_with(rig.pki.client_of(&[&TLS12], None));
    conn.ask("mn\r\n", "MN\r\n");
    let suite = conn.0.conn.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
    let refused = Server::try_start(&["-Z", "-o", &rig.pki.options("ssl_ciphers=RC4-MD5")]).err().unwrap();
    assert!(refused.contains("Error setting the provided cipher(s): RC4-MD5"), "{refused}");
}

#[test]
fn a_key_may_be_in_asn_1() {
    let pki = Pki::new();
    let pem = std::fs::read(pki.file("server.key")).unwrap();
    let key = <rustls::pki_types::PrivateKeyDer as rustls::pki_types::pem::PemObject>::from_pem_slice(&pem).unwrap();
    std::fs::write(pki.file("server.der"), key.secret_der()).unwrap();
    let (cert, key) = (pki.file("server.pem"), pki.file("server.der"));
    let server = Server::start(&["-Z", "-o", &format!("ssl_chain_cert={cert},ssl_key={key},ssl_keyformat=2")]);
    assert!(serves(server.addr, pki.client()));
}

#[test]
fn a_server_is_not_started_with_what_it_cannot_use() {
    let (pki, other) = (Pki::new(), Pki::new());
    let (cert, key, ca) = (pki.file("server.pem"), other.file("server.key"), pki.file("server.key"));
    let cases = [
        (format!("ssl_chain_cert={key}"), "Error loading the certificate chain: "),
        (format!("ssl_chain_cert={cert}"), "Error loading the key: give -o ssl_key=FILE"),
        (format!("ssl_chain_cert={cert},ssl_key={cert}"), "Error loading the key: "),
        (format!("ssl_chain_cert={cert},ssl_key={key}"), "Error validating the certificate: "),
        (pki.options(&format!("ssl_ca_cert={ca}")), "Error loading the CA certificate: "),
        (pki.options("ssl_verify_mode=2"), "Error loading the CA certificate: ssl_verify_mode needs "),
    ];
    for (options, line) in cases {
        let refused = Server::try_start(&["-Z", "-o", &options]).err().expect("an exit");
        assert!(refused.contains(line) && refused.contains("exit status: 64"), "{options}: {refused}");
    }
}

#[test]
fn a_client_that_does_not_trust_the_server_says_so_and_is_counted() {
    let mut rig = Rig::new("", &[]);
    let stranger = Pki::new();
    assert!(!serves(rig.server.addr, stranger.client()));
    until("the error", || rig.stat("ssl_handshake_errors") == 1);
    assert!(rig.serves(&TLS13, None));
    assert_eq!(rig.stat("ssl_proto_errors"), 0);
}

#[test]
fn certificates_of_clients_are_asked_for_as_the_mode_says() {
    let stranger = Pki::new();
    for (mode, without) in [(0, true), (1, true), (2, false), (3, false)] {
        let pki = Pki::new();
        let ca = pki.file("ca.pem");
        let options = pki.options(&format!("ssl_ca_cert={ca},ssl_verify_mode={mode}"));
        let server = Server::start(&["-Z", "-o", &options]);
        for file in ["stranger.pem", "stranger.key"] {
            std::fs::copy(stranger.file(&file.replace("stranger", "client")), pki.file(file)).unwrap();
        }
        for version in [&TLS12, &TLS13] {
            let serves = |cert| serves(server.addr, pki.client_of(&[version], cert));
            assert_eq!(serves(None), without, "{mode}");
            assert!(serves(Some("client")), "{mode}");
            assert_eq!(serves(Some("stranger")), mode == 0, "{mode}");
        }
    }
}

#[test]
fn each_listener_has_its_own_kind() {
    let pki = Pki::new();
    let options = pki.options(&format!("ssl_ca_cert={},ssl_verify_mode=2", pki.file("ca.pem")));
    let server = Server::start(&["-l", "notls:127.0.0.1:0,btls:127.0.0.1:0,mtls:127.0.0.1:0", "-Z", "-o", &options]);
    let address = |number: usize| SocketAddr::from(([127, 0, 0, 1], server.ports()[number].1));
    let serves = |number, cert| serves(address(number), pki.client_of(&[&TLS13, &TLS12], cert));
    assert_eq!(Conn::to(address(1)).line("mn"), "MN");
    assert_eq!([0, 2, 3].map(|number| serves(number, None)), [false, true, false]);
    assert_eq!([0, 2, 3].map(|number| serves(number, Some("client"))), [true; 3]);
    assert_eq!(Conn::to(address(1)).line("refresh_certs"), "OK");
}

#[test]
fn certificates_are_read_again_on_command_and_on_sighup() {
    let mut rig = Rig::new("", &[]);
    let shown = |conn: &TlsConn| conn.0.conn.peer_certificates().unwrap()[0].to_vec();
    let mut first = rig.connect();
    first.ask("mn\r\n", "MN\r\n");
    rig.pki.certify("server", "another");
    assert_eq!(rig.admin.line("refresh_certs"), "OK");
    let mut second = rig.connect();
    second.ask("mn\r\n", "MN\r\n");
    assert_ne!(shown(&first), shown(&second));

    std::fs::write(rig.pki.file("server.pem"), "nothing").unwrap();
    let file = rig.pki.file("server.pem");
    let line = format!("Error loading the certificate chain: {file} : no certificate in PEM");
    assert_eq!(rig.admin.line("refresh_certs"), line);
    let mut third = rig.connect();
    third.ask("refresh_certs noreply\r\nmn\r\n", "MN\r\n");
    assert_eq!(shown(&second), shown(&third));

    rig.pki.certify("server", "a third");
    signal(rig.server.pid(), "HUP");
    until("the new certificate", || {
        let mut fourth = rig.connect();
        fourth.ask("mn\r\n", "MN\r\n");
        shown(&fourth) != shown(&second)
    });
    first.ask("mn\r\n", "MN\r\n");
    let mut before = 0;
    until("some seconds", || {
        before = rig.stat("time_since_server_cert_refresh");
        before > 2
    });
    assert_eq!(rig.admin.line("refresh_certs"), "OK");
    assert!(rig.stat("time_since_server_cert_refresh") < before);
}

#[test]
fn a_refresh_that_failed_for_want_of_descriptors_is_tried_again() {
    let mut rig = Rig::new("", &[]);
    rig.pki.certify("server", "another");
    let pid = rig.server.pid().to_string();
    let limit = |soft: &str| {
        let limit = format!("--nofile={soft}:");
        let set = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("prlimit of util-linux");
        assert!(set.success());
    };
    limit("4");
    assert!(rig.admin.line("refresh_certs").ends_with("Too many open files (os error 24)"));
    limit("1000");
    until("the same files to be read", || rig.admin.line("refresh_certs") == "OK");
}

#[test]
fn statistics_and_settings_stand_where_memcached_has_them() {
    let with = ["log_watchers", "ssl_new_sessions", "ssl_handshake_errors", "ssl_proto_errors"];
    let end = ["time_since_server_cert_refresh", "unexpected_napi_ids"];
    assert_eq!(Rig::new("ssl_session_cache", &[]).stats_of_tls(), [&with[..], &end].concat());
    let without: Vec<&str> = with.into_iter().filter(|name| *name != "ssl_new_sessions").collect();
    assert_eq!(Rig::new("", &[]).stats_of_tls(), [&without[..], &end].concat());

    // OpenSSL's numbers of `ssl_verify_mode`.
    for (mode, number) in [(0, "0"), (1, "1"), (2, "3"), (3, "7")] {
        let pki = Pki::new();
        let (cert, key, ca) = (pki.file("server.pem"), pki.file("server.key"), pki.file("ca.pem"));
        let more = format!("ssl_ca_cert={ca},ssl_verify_mode={mode},ssl_min_version={mode},ssl_ciphers=HIGH");
        let words = ["-l", "notls:127.0.0.1:0", "-Z", "-o", &pki.options(&more)];
        let server = Server::start(&words);
        let shown = Conn::to(SocketAddr::from(([127, 0, 0, 1], server.ports()[1].1))).stats("settings");
        let ours: Vec<(&str, &str)> = shown
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| name.starts_with("ssl_"))
            .collect();
        let version = if mode == 3 { "tlsv1.3" } else { "tlsv1.2" };
        let wanted = [
            ("ssl_enabled", "yes"),
            ("ssl_chain_cert", &cert),
            ("ssl_key", &key),
            ("ssl_verify_mode", number),
            ("ssl_keyformat", "1"),
            ("ssl_ciphers", "HIGH"),
            ("ssl_ca_cert", &ca),
            ("ssl_wbuf_size", "16384"),
            ("ssl_session_cache", "no"),
            ("ssl_kernel_tls", "no"),
            ("ssl_min_version", version),
        ];
        assert_eq!(ours, wanted);
    }
}

#[test]
fn a_reset_of_the_statistics_is_one_of_tls_too() {
    let mut rig = Rig::new("ssl_session_cache", &[]);
    let count =
        |rig: &mut Rig| ["ssl_new_sessions", "ssl_handshake_errors", "ssl_proto_errors"].map(|name| rig.stat(name));
    for _ in 0..2 {
        assert!(!serves(rig.server.addr, Pki::new().client()) && rig.serves(&TLS13, None));
        let mut conn = rig.connect();
        conn.ask("mn\r\n", "MN\r\n");
        conn.0.sock.write_all(&[[23, 3, 3, 0, 20].as_slice(), &[7; 20]].concat()).unwrap();
        until("the counts", || count(&mut rig) == [2, 1, 1]);
        assert_eq!(rig.admin.line("stats reset"), "RESET");
        assert_eq!(count(&mut rig), [0; 3]);
    }
}

#[test]
fn sessions_go_on_until_the_certificates_are_read_again() {
    let mut rig = Rig::new("ssl_session_cache", &[]);
    let stored = rig.admin.stat("settings", "ssl_session_cache");
    assert_eq!(stored, "yes");
    for version in [&TLS12, &TLS13] {
        let before = rig.stat("ssl_new_sessions");
        let config = Arc::new(rig.pki.client_of(&[version], None));
        let kind = || {
            let mut conn = TlsConn::to(rig.server.addr, &config);
            conn.ask("mn\r\n", "MN\r\n");
            conn.0.conn.handshake_kind().unwrap()
        };
        assert_eq!([kind(), kind(), kind()], [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
        assert_eq!(rig.admin.line("refresh_certs"), "OK");
        assert_eq!(kind(), HandshakeKind::Resumed, "nothing has changed");
        rig.pki.certify("server", "server");
        assert_eq!(rig.admin.line("refresh_certs"), "OK");
        assert_eq!(kind(), HandshakeKind::Full);
        assert_eq!(rig.stat("ssl_new_sessions"), before + 2);
    }
}

#[test]
fn large_values_and_long_pipelines_go_through() {
    let rig = Rig::new("", &["-m", "256", "-I", "8m"]);
    let seed = seed("TLS_SEED");
    let mut rng = Rng(seed);
    for version in [&TLS12, &TLS13] {
        let mut conn = rig.connect_with(rig.pki.client_of(&[version], None));
        for len in [0, 1, 1000, 16 << 10, (16 << 10) + 1, 100_000, 1 << 20, 5 << 20] {
            let value: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            let request = [format!("set k 0 0 {len}\r\n").as_bytes(), &value, b"\r\n"].concat();
            assert_eq!(conn.try_ask(&request, b"STORED\r\n").unwrap(), b"STORED\r\n", "seed {seed}");
            let answer = [format!("VALUE k 0 {len}\r\n").as_bytes(), &value, b"\r\nEND\r\n"].concat();
            assert!(conn.try_ask(b"get k\r\n", &answer).unwrap() == answer, "{len}, seed {seed}");
        }
        conn.ask("set s 0 0 3\r\nabc\r\n", "STORED\r\n");
        let answer = "VALUE s 0 3\r\nabc\r\nEND\r\n".repeat(3000);
        conn.ask(&"get s\r\n".repeat(3000), &answer);
    }
}

#[test]
fn records_may_come_in_pieces_of_any_size() {
    let rig = Rig::new("", &[]);
    for (version, step, fragment) in
        [(&TLS12, 1, None), (&TLS13, 1, None), (&TLS13, 7, Some(64)), (&TLS13, 5000, Some(100))]
    {
        let mut config = rig.pki.client_of(&[version], None);
        config.max_fragment_size = fragment;
        let socket = TcpStream::connect(rig.server.addr).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut conn = StreamOwned::new(session, ThinWire { socket, step });
        let value = "x".repeat(3000);
        conn.write_all(format!("set k 0 0 3000\r\n{value}\r\nget k\r\n").as_bytes()).unwrap();
        conn.flush().unwrap();
        let wanted = format!("STORED\r\nVALUE k 0 3000\r\n{value}\r\nEND\r\n");
        let mut got = vec![0; wanted.len()];
        conn.read_exact(&mut got).unwrap();
        assert_eq!(got, wanted.as_bytes());
    }
}

/// More of them than are taken apart at a time, of requests and of messages of the handshake.
#[test]
fn many_small_records_at_once_are_all_taken() {
    let pki = Pki::new();
    let options = pki.options(&format!("ssl_ca_cert={},ssl_verify_mode=2", pki.file("ca.pem")));
    let server = Server::start(&["-Z", "-o", &options]);
    for version in [&TLS12, &TLS13] {
        let mut config = pki.client_of(&[version], Some("client"));
        config.max_fragment_size = Some(40);
        let mut conn = TlsConn::to(server.addr, &Arc::new(config));
        conn.0.conn.set_buffer_limit(None);
        conn.ask("mn\r\n", "MN\r\n");
        let requests = 700;
        (0..requests).for_each(|_| conn.0.conn.writer().write_all(b"mn\r\n").unwrap());
        let mut records = Vec::new();
        while conn.0.conn.wants_write() {
            conn.0.conn.write_tls(&mut records).unwrap();
        }
        conn.0.sock.write_all(&records).unwrap();
        let mut got = vec![0; requests * 4];
        conn.0.read_exact(&mut got).unwrap();
        assert_eq!(got, b"MN\r\n".repeat(requests));
        conn.ask("mn\r\n", "MN\r\n");
    }
}

/// The first bytes of requests come with the last of the handshake, and nothing follows by which a poll could tell.
#[test]
fn requests_that_come_with_the_handshake_are_answered() {
    let rig = Rig::new("", &[]);
    for _ in 0..20 {
        let mut conn = rig.connect();
        // Its last flight stays here until the request is behind it.
        while conn.0.conn.is_handshaking() {
            if conn.0.conn.wants_write() {
                conn.0.conn.write_tls(&mut conn.0.sock).unwrap();
            } else {
                conn.0.conn.read_tls(&mut conn.0.sock).unwrap();
                conn.0.conn.process_new_packets().unwrap();
            }
        }
        conn.0.conn.writer().write_all(b"mn\r\n").unwrap();
        let mut flight = Vec::new();
        while conn.0.conn.wants_write() {
            conn.0.conn.write_tls(&mut flight).unwrap();
        }
        conn.0.sock.write_all(&flight).unwrap();
        conn.ask("", "MN\r\n");
    }
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_and_loses_nothing() {
    let mut rig = Rig::new("", &["-m", "128", "-t", "1"]);
    let value = "v".repeat(500_000);
    let mut slow = rig.connect();
    slow.ask(&format!("set k 0 0 500000\r\n{value}\r\n"), "STORED\r\n");
    slow.ask(&format!("set s 0 0 40\r\n{}\r\n", "w".repeat(40)), "STORED\r\n");
    // Far more than sockets take: values by reference, and replies that are copied.
    let request = format!("{}{}", "get k\r\n".repeat(40), "get s\r\n".repeat(2000));
    slow.0.write_all(request.as_bytes()).unwrap();
    let mut quick = rig.connect();
    for _ in 0..100 {
        quick.ask("get s\r\n", &format!("VALUE s 0 40\r\n{}\r\nEND\r\n", "w".repeat(40)));
    }
    let wanted = format!("VALUE k 0 500000\r\n{value}\r\nEND\r\n").repeat(40)
        + &format!("VALUE s 0 40\r\n{}\r\nEND\r\n", "w".repeat(40)).repeat(2000);
    assert!(slow.try_ask(b"", wanted.as_bytes()).unwrap() == wanted.as_bytes());
    assert_eq!(rig.stat("ssl_proto_errors"), 0);
}

#[test]
fn a_close_notify_ends_a_connection_that_stays_open_below() {
    let rig = Rig::new("", &[]);
    for version in [&TLS12, &TLS13] {
        let mut conn = rig.connect_with(rig.pki.client_of(&[version], None));
        conn.ask("mn\r\n", "MN\r\n");
        conn.0.conn.writer().write_all(b"mn\r\n").unwrap();
        conn.0.conn.send_close_notify();
        let mut rest = Vec::new();
        // To the server's own close_notify.
        conn.0.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"MN\r\n");
    }
}

#[test]
fn an_end_of_the_socket_alone_is_an_end() {
    let rig = Rig::new("", &[]);
    let mut conn = rig.connect();
    conn.ask("mn\r\n", "MN\r\n");
    conn.0.sock.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    conn.0.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn a_broken_record_ends_its_connection_and_is_counted() {
    let mut rig = Rig::new("", &[]);
    let mut conn = rig.connect();
    conn.ask("mn\r\n", "MN\r\n");
    // Of application data, and not under the keys.
    conn.0
        .sock
        .write_all(&[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20])
        .unwrap();
    assert!(conn.0.read_to_end(&mut Vec::new()).is_err(), "an alert, or a reset");
    until("the error", || rig.stat("ssl_proto_errors") == 1);
    assert!(rig.serves(&TLS13, None));
}

#[test]
fn plain_text_to_a_port_with_tls_is_refused_at_once() {
    let mut rig = Rig::new("", &[]);
    let mut conn = rig.server.connect();
    conn.send(b"get a\r\n");
    assert_eq!(conn.read_until(common::DEADLINE, |_| false), Waited::Closed);
    assert!(!conn.got.windows(3).any(|word| word == b"END"));
    until("the error", || rig.stat("ssl_handshake_errors") == 1);
    // And the other way round.
    let plain = SocketAddr::from(([127, 0, 0, 1], rig.server.ports()[1].1));
    let mut wrong = TlsConn::to(plain, &Arc::new(rig.pki.client()));
    wrong.0.sock.set_read_timeout(Some(QUIET)).unwrap();
    assert!(wrong.try_ask(b"mn\r\n", b"MN\r\n").is_err());
}

#[test]
fn handshakes_that_are_never_finished_are_bounded_and_end() {
    let mut rig = Rig::new("", &["-c", "4096"]);
    let begin = |rig: &Rig| {
        let mut socket = TcpStream::connect(rig.server.addr).unwrap();
        // The header of a record that never comes.
        socket.write_all(&[22, 3, 1, 0, 200, 1]).unwrap();
        socket
    };
    // More than have a place: the first go after a second, which is what a crowd gets.
    let held: Vec<TcpStream> = (0..1500).map(|_| begin(&rig)).collect();
    until("those in the way to go", || rig.stat("ssl_handshake_errors") >= 200);
    assert!(rig.serves(&TLS13, None) && rig.serves(&TLS12, None));
    drop(held);
    until("all to be gone", || rig.stat("ssl_handshake_errors") == 1500);
    // One that is alone has longer, and is closed by the server as well.
    let (mut alone, since) = (begin(&rig), Instant::now());
    alone.set_read_timeout(Some(common::DEADLINE)).unwrap();
    assert!(matches!(alone.read(&mut [0; 64]), Ok(_) | Err(_)));
    assert!(since.elapsed() > Duration::from_secs(2));
    until("its error", || rig.stat("ssl_handshake_errors") == 1501);
    // Two listeners and the one that asks, of which one is not counted. An error is counted before its connection goes.
    until("all to be gone", || rig.stat("curr_connections") == 2);
}

#[test]
fn watching_the_idle_timeout_and_the_end_of_the_server_work_as_without() {
    let mut rig = Rig::new("idle_timeout=2", &[]);
    let mut watcher = rig.connect();
    watcher.ask("watch connevents\r\n", "OK\r\n");
    let mut idle = rig.connect();
    idle.ask("mn\r\n", "MN\r\n");
    let line = watcher.read_to("", "\n");
    assert!(line.contains("type=conn_new") && line.contains("transport=tcp"), "{line}");
    let mut rest = Vec::new();
    idle.0.read_to_end(&mut rest).expect("a close_notify");
    until("the kick", || rig.server.stderr().is_empty() && Conn::to(rig.admin_address()).number("", "idle_kicks") > 0);
    let mut open = rig.connect();
    open.ask("mn\r\n", "MN\r\n");
    let (code, _) = rig.server.stop("TERM");
    assert_eq!(code, Some(0));
    assert!(open.0.read_to_end(&mut rest).is_ok() || rest.is_empty());
}

#[test]
fn watchers_are_told_what_is_wrong_with_a_connection() {
    let rig = Rig::new("", &["-t", "1"]);
    let mut watcher = rig.connect();
    watcher.ask("watch connevents\r\n", "OK\r\n");
    // The lines until a connection ends, the last but one of which tells why.
    let mut told = |kind: &str, why: &str| {
        let end = watcher.read_to("", " reason=error ");
        let mut lines = end.lines().rev();
        let (close, error) = (lines.next().unwrap(), lines.next().unwrap());
        let fd = watcher.read_to("", "\n").trim_end().replace("cfd=", "");
        assert!(
            close.contains("type=conn_close ") && error.contains(&format!("type={kind} fd={fd} msg={why}")),
            "{end}"
        );
    };
    let mut plain = rig.server.connect();
    plain.send(b"get a\r\n");
    told("conntlserr", "received corrupt message of type InvalidContentType");
    assert!(!serves(rig.server.addr, Pki::new().client()));
    told("conntlserr", "received fatal alert: ");
    drop(TcpStream::connect(rig.server.addr).unwrap());
    told("conntlserr", "unexpected end of file");
    let mut conn = rig.connect();
    conn.ask("mn\r\n", "MN\r\n");
    conn.0.sock.write_all(&[[23, 3, 3, 0, 20].as_slice(), &[7; 20]].concat()).unwrap();
    told("conntlserr", "cannot decrypt peer's message");
    let gone = |socket: &TcpStream| socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO)).unwrap();
    let mut conn = rig.connect();
    conn.ask("mn\r\n", "MN\r\n");
    gone(&conn.0.sock);
    drop(conn);
    told("connerr", "Connection reset by peer");
    let mut plain = TcpStream::connect(rig.admin_address()).unwrap();
    plain.write_all(b"mn\r\n").unwrap();
    plain.read_exact(&mut [0; 4]).unwrap();
    gone(&plain);
    drop(plain);
    told("connerr", "Connection reset by peer");
}

impl Rig {
    /// The idle timeout closes the plain connection, too.
    fn admin_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.server.ports()[1].1))
    }
}

/// A message of a handshake may come in parts, with the server's replies between them.
#[test]
fn messages_in_parts_after_the_handshake_do_no_harm() {
    let mut rig = Rig::new("", &[]);
    let mut config = rig.pki.client_of(&[&TLS13], None);
    config.enable_secret_extraction = true;
    let mut conn = rig.connect_with(config);
    conn.ask("set k 0 0 1\r\nx\r\n", "STORED\r\n");
    let StreamOwned { conn: session, sock: mut socket } = conn.0;
    let mut writer = RecordWriter::of(session);
    // A request and the beginning of an update of keys, in one packet: the reply is made while the rest is missing.
    let first =
        [writer.record(ContentType::ApplicationData, b"get k\r\n"), writer.record(ContentType::Handshake, &[24, 0])];
    socket.write_all(&first.concat()).unwrap();
    let mut reply = [0; 64];
    assert!(socket.read(&mut reply).unwrap() > 5);
    // Anything but the rest is against the rules.
    let second = writer.record(ContentType::ApplicationData, b"get k\r\n");
    socket.write_all(&second).unwrap();
    until("the error", || rig.stat("ssl_proto_errors") == 1);
    assert!(rig.serves(&TLS13, None));
}

/// No bytes whatever may end the server: flights of real clients with a few bytes changed, cut, or sent twice.
#[test]
fn bytes_that_are_changed_on_their_way_end_their_connection_only() {
    let rig = Rig::new("", &[]);
    let seed = seed("TLS_SEED");
    let mut rng = Rng(seed);
    for round in 0..200 {
        let version = if rng.one_in(2) { &TLS12 } else { &TLS13 };
        let mut conn = rig.connect_with(rig.pki.client_of(&[version], None));
        conn.0.sock.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
        let spoilt = rng.below(4_u64);
        let mut sent = 0;
        conn.0.conn.writer().write_all(b"mn\r\nget k\r\n").unwrap();
        for _ in 0..8 {
            let mut flight = Vec::new();
            while conn.0.conn.wants_write() {
                conn.0.conn.write_tls(&mut flight).unwrap();
            }
            if !flight.is_empty() && (sent == spoilt || round % 2 == 1) {
                let at = rng.below(flight.len());
                match rng.below(3_u64) {
                    0 => flight[at] ^= 1 << rng.below(8_u32),
                    1 => flight.truncate(at),
                    _ => flight.extend_from_within(at..),
                }
            }
            sent += u64::from(!flight.is_empty());
            let ended = conn.0.sock.write_all(&flight).is_err()
                || !matches!(conn.0.conn.read_tls(&mut conn.0.sock), Ok(1..))
                || conn.0.conn.process_new_packets().is_err();
            if ended {
                break;
            }
        }
    }
    assert!(rig.serves(&TLS13, None) && rig.serves(&TLS12, None), "seed {seed}");
}

/// The way from a primary to its copy: both certificates are checked, and a peer that stands still is waited for.
#[test]
fn a_pair_is_kept_equal_over_tls() {
    let pki = Pki::new();
    let ca = pki.file("ca.pem");
    let peer_options = pki.options(&format!("ssl_ca_cert={ca},ssl_verify_mode=2"));
    let peer = Server::start(&["-l", "notls:127.0.0.1:0", "-m", "512", "-Z", "-o", &peer_options]);
    let mut copy = Conn::to(SocketAddr::from(([127, 0, 0, 1], peer.ports()[1].1)));
    let folder = Folder::new();
    let socket = folder.file("control");
    let primary = Server::start(&["-m", "512", "-o", &format!("control_socket={socket}")]);
    let mut client = primary.connect();
    client.ask(b"set before 3 0 5\r\nhello\r\n", b"STORED\r\n");
    let (cert, key) = (pki.file("client.pem"), pki.file("client.key"));
    let words = ["--peer-tls", "--peer-ca", &ca, "--peer-cert", &cert, "--peer-key", &key, "--http", "127.0.0.1:0"];
    let sidecar = Sidecar::start(&socket, peer.addr, &words);
    until("the first item", || copy.ask(b"get before\r\n", b"END\r\n") == b"VALUE before 3 5\r\nhello\r\nEND\r\n");

    // Far more than sockets hold, while the peer takes nothing.
    freeze(peer.pid());
    let value = "v".repeat(400_000);
    for number in 0..64 {
        client.ask(format!("set large-{number} 0 0 400000\r\n{value}\r\n").as_bytes(), b"STORED\r\n");
        client.ask(format!("set small-{number} 0 0 1\r\n{}\r\n", number % 10).as_bytes(), b"STORED\r\n");
    }
    std::thread::sleep(QUIET);
    signal(peer.pid(), "CONT");
    client.ask(b"set last 0 0 1\r\nx\r\n", b"STORED\r\n");
    until("the last item", || copy.ask(b"mg last\r\n", b"\r\n") == b"HD\r\n");
    // A peer that was too slow is sent some keys again, in another order.
    for number in 0..64 {
        for (key, value) in [("large", value.as_str()), ("small", &format!("{}", number % 10))] {
            let answer = format!("VALUE {key}-{number} 0 {}\r\n{value}\r\nEND\r\n", value.len());
            let request = format!("get {key}-{number}\r\n");
            until(&request, || copy.ask(request.as_bytes(), b"END\r\n") == answer.as_bytes());
        }
    }
    assert_eq!(copy.number("", "ssl_proto_errors"), 0);
    until("health", || sidecar.page("/health").contains("200 OK"));
}

#[test]
fn a_sidecar_says_why_tls_with_a_peer_does_not_work() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let (ca, wrong) = (pki.file("ca.pem"), stranger.file("ca.pem"));
    let peer_options = pki.options(&format!("ssl_ca_cert={ca},ssl_verify_mode=2"));
    let peer = Server::start(&["-l", "notls:127.0.0.1:0", "-Z", "-o", &peer_options]);
    let plain = SocketAddr::from(([127, 0, 0, 1], peer.ports()[1].1));
    let folder = Folder::new();
    let socket = folder.file("control");
    let _primary = Server::start(&["-o", &format!("control_socket={socket}")]);
    let says = |address, words: &[&str], part: &str| _ = Sidecar::start(&socket, address, words).says(part);
    says(peer.addr, &["--peer-tls", "--peer-ca", &wrong], "TLS: invalid peer certificate");
    says(peer.addr, &["--peer-tls", "--peer-ca", &ca], "CertificateRequired");
    says(plain, &["--peer-tls", "--peer-ca", &ca], "TLS: ");
    says(peer.addr, &["--peer-tls", "--peer-ca", "/nonexistent"], "--peer-tls: /nonexistent : No such file");
}

/// memcached reads no further than a large value, and what follows it in the same record only when more comes.
#[test]
fn a_stock_peer_over_tls_confirms_at_once() {
    let (pki, folder) = (Pki::new(), Folder::new());
    let peer_options = pki.options(&format!("ssl_ca_cert={}", pki.file("ca.pem")));
    let words = ["-l", "127.0.0.1:0", "-Z", "-o", &peer_options, "-u", "nobody"];
    let Some(peer) = Server::reference(&words) else {
        eprintln!("skipped: no memcached here");
        return;
    };
    let socket = folder.file("control");
    let options = format!("control_socket={socket},replicas_ack=1,ack_timeout=10000");
    let primary = Server::start(&["-o", &options]);
    let _sidecar = Sidecar::start(&socket, peer.addr, &["--peer-tls", "--peer-ca", &pki.file("ca.pem")]);
    let mut client = primary.connect();
    until("a confirmed change", || client.ask(b"set first 0 0 1\r\n1\r\n", b"\r\n") == b"STORED\r\n");
    let (value, began) = ("v".repeat(100_000), Instant::now());
    for number in 0..40 {
        // A batch that ends in a large value, and one that ends in a small one after it.
        let large = format!("set large-{number} 0 0 100000\r\n{value}\r\n");
        client.ask(large.as_bytes(), b"STORED\r\n");
        client.ask(format!("{large}set small 0 0 1\r\n1\r\n").as_bytes(), b"STORED\r\nSTORED\r\n");
    }
    // The question of each second would wake it.
    assert!(began.elapsed() < Duration::from_secs(30), "80 changes took {:?}", began.elapsed());
}
