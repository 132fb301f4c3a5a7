//! Who may use a server whose clients must log in: the text protocol's `-Y`, and SASL (`-S`).

mod common;

use common::{Conn, Folder, Packet, Server, Sidecar, until};
use std::fs;

const MECHANISMS: u8 = 0x20;
const AUTH: u8 = 0x21;
const STEP: u8 = 0x22;
const GET: u8 = 0x00;
const NOOP: u8 = 0x0a;
const VERSION: u8 = 0x0b;
const ALICE: &[u8] = b"\0alice\0secret";

/// A server with a file of passwords, in its folder.
fn with_passwords(text: &str, options: &[&str]) -> (Server, String) {
    let folder = Folder::new();
    let file = folder.file("passwords");
    fs::write(&file, text).expect("a new file");
    let options: Vec<&str> = options.iter().map(|&word| if word == "FILE" { file.as_str() } else { word }).collect();
    (Server::start_in(folder, &options), file)
}

/// A server with SASL, whose passwords are `text`.
fn with_sasl(text: &str) -> (Server, Folder) {
    let folder = Folder::new();
    let file = folder.file("passwords");
    fs::write(&file, text).expect("a new file");
    let server = Server::start_program(&common::under_test(), &["-S"], &[("MEMCACHED_SASL_PWDB", file)]);
    (server, folder)
}

fn told(op: u8, mechanism: &[u8], data: &[u8]) -> Packet {
    Packet { value: data.to_vec(), ..Packet::new(op, mechanism, b"") }
}

/// The status and text of the reply.
fn ask(conn: &mut Conn, packet: &Packet) -> (u16, String) {
    let before = conn.got.len();
    conn.send(&packet.request());
    let done = |got: &[u8]| Packet::reply(&got[before..]).is_some();
    assert_eq!(conn.read_until(common::DEADLINE, done), common::Waited::Done);
    let (reply, _) = Packet::reply(&conn.got[before..]).expect("a reply");
    (reply.status, String::from_utf8_lossy(&reply.value).into_owned())
}

/// What the mechanisms answer, recorded from memcached 1.6.18 with libsasl, whose list also names CRAM-MD5: packets, then
/// `status text` of each reply, and `CLOSED`.
#[test]
fn compat_sasl_answers() {
    let (server, _folder) = with_sasl("alice:secret\n");
    let realm = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let with_realm = [b"\0alice@", realm.trim().as_bytes(), b"\0secret"].concat();
    let wrong = b"\0alice\0wrong".as_slice();
    let (ok, failure) = ("0 Authenticated", "32 Auth failure.");
    let plain = |data: &[u8]| told(AUTH, b"PLAIN", data);
    let noop = || Packet::new(NOOP, b"", b"");
    let cases: &[(&str, Vec<Packet>, &[&str])] = &[
        ("list", vec![Packet::new(MECHANISMS, b"", b"")], &["0 PLAIN"]),
        ("list with a key", vec![Packet::new(MECHANISMS, b"k", b"")], &["4 Invalid arguments", "CLOSED"]),
        ("right", vec![plain(ALICE), Packet::new(GET, b"a", b"")], &[ok, "1 Not found"]),
        ("small letters", vec![told(AUTH, b"plain", ALICE), noop()], &[ok, "0 "]),
        ("with the realm", vec![plain(&with_realm), noop()], &[ok, "0 "]),
        ("wrong, then right", vec![plain(wrong), plain(ALICE), noop()], &[failure, ok, "0 "]),
        ("right, then wrong", vec![plain(ALICE), plain(wrong), noop()], &[ok, failure, failure, "CLOSED"]),
        ("step", vec![plain(b""), told(STEP, b"PLAIN", ALICE), noop()], &["33 ", ok, "0 "]),
        ("step under another name", vec![plain(b""), told(STEP, b"FOO", ALICE), noop()], &["33 ", ok, "0 "]),
        (
            "a wrong step, then a right one",
            vec![plain(b""), told(STEP, b"PLAIN", wrong), told(STEP, b"PLAIN", ALICE), noop()],
            &["33 ", failure, ok, "0 "],
        ),
        ("step without start", vec![told(STEP, b"PLAIN", ALICE), noop()], &[failure, failure, "CLOSED"]),
        (
            "step after the login",
            vec![plain(ALICE), told(STEP, b"PLAIN", ALICE), noop()],
            &[ok, failure, failure, "CLOSED"],
        ),
        ("unknown", vec![told(AUTH, b"FOO", ALICE), noop()], &[failure, failure, "CLOSED"]),
        ("no mechanism", vec![told(AUTH, b"", ALICE)], &["4 Invalid arguments", "CLOSED"]),
        (
            "a long mechanism",
            vec![told(AUTH, &[b'P'; 33], ALICE), Packet::new(VERSION, b"", b"")],
            &["4 Invalid arguments", "0 1.6.45"],
        ),
        ("version", vec![Packet::new(VERSION, b"", b""), noop()], &["0 1.6.45", failure, "CLOSED"]),
        ("quit", vec![Packet::new(0x07, b"", b"")], &[failure, "CLOSED"]),
        ("unknown packet", vec![Packet::new(0x77, b"abc", b"")], &[failure, "CLOSED"]),
        ("store", vec![Packet::new(0x01, b"a", &[0; 8])], &[failure, "CLOSED"]),
        ("as somebody else", vec![plain(b"bob\0alice\0secret"), noop()], &[failure, failure, "CLOSED"]),
        ("no password", vec![plain(b"\0alice")], &[failure]),
        ("four parts", vec![plain(b"\0alice\0secret\0")], &[failure]),
        ("much", vec![plain(&[b'x'; 16000]), Packet::new(VERSION, b"", b"")], &[failure, "0 1.6.45"]),
    ];
    for (name, packets, expected) in cases {
        let mut conn = server.connect();
        let mut got = Vec::new();
        for packet in packets {
            let (status, text) = ask(&mut conn, packet);
            got.push(format!("{status} {text}"));
        }
        if expected.contains(&"CLOSED") {
            conn.got.clear();
            conn.expect_end();
            got.push("CLOSED".into());
        }
        assert_eq!(got, *expected, "{name}");
    }
}

/// memcached forgets a login when it is asked for the mechanisms afterwards; here that changes nothing.
#[test]
fn a_login_outlives_the_question_for_mechanisms() {
    let (server, _folder) = with_sasl("alice:secret\n");
    let mut conn = server.connect();
    for (packet, status) in [(told(AUTH, b"PLAIN", ALICE), 0), (Packet::new(MECHANISMS, b"", b""), 0)] {
        assert_eq!(ask(&mut conn, &packet).0, status);
    }
    assert_eq!(ask(&mut conn, &Packet::new(NOOP, b"", b"")), (0, String::new()));
}

#[test]
fn logins_are_counted() {
    let (server, _folder) = with_sasl("alice:secret\n");
    let mut conn = server.connect();
    for data in [b"\0alice\0wrong".as_slice(), b"", ALICE] {
        ask(&mut conn, &told(AUTH, b"PLAIN", data));
    }
    conn.got.clear();
    conn.send(&Packet::new(0x10, b"", b"").request());
    let mut stats = Vec::new();
    loop {
        conn.read_until(common::DEADLINE, |got| Packet::reply(got).is_some());
        let (reply, len) = Packet::reply(&conn.got).expect("a statistic");
        conn.got.drain(..len);
        if reply.key.is_empty() {
            break;
        }
        stats.push((String::from_utf8(reply.key).unwrap(), String::from_utf8(reply.value).unwrap()));
    }
    let value = |name: &str| stats.iter().find(|stat| stat.0 == name).expect(name).1.clone();
    assert_eq!((value("auth_cmds"), value("auth_errors")), ("2".into(), "1".into()));
}

#[test]
fn logins_over_text_are_counted() {
    let (server, _) = with_passwords("user:pass\n", &["-Y", "FILE"]);
    let mut conn = server.connect();
    // Of what is refused, only a user with a password is a try: memcached 1.6.45 counts when it compares them.
    let refused = "get a\r\nset a 0 0 4\r\nuser\r\nset a 0 0 9\r\nuser passxxset a 0 0 9\r\nuser fail\r\n";
    conn.send(refused.as_bytes());
    conn.expect(
        "CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR bad authentication token format\r\n\
         CLIENT_ERROR bad command line termination\r\nCLIENT_ERROR authentication failure\r\n",
    );
    assert_eq!(conn.line("set a 0 0 9\r\nuser pass"), "STORED");
    assert_eq!((conn.number("", "auth_cmds"), conn.number("", "auth_errors")), (2, 1));
}

/// As libsasl does, the server reads the first `memcached.conf` in the folders, or the first file, that are named.
#[test]
fn the_configuration_of_sasl_is_looked_for_where_it_is_said_to_be() {
    let folder = Folder::new();
    let passwords = folder.file("passwords");
    fs::write(&passwords, "alice:secret\n").expect("a new file");
    let files = [
        ("plain", "memcached.conf", "mech_list: cram-md5 plain\n"),
        ("other", "memcached.conf", "log_level: 1\n mech_list : CRAM-MD5 PLAINER\n"),
        ("comment", "memcached.conf", "#mech_list: CRAM-MD5\n"),
        ("file", "of_another_name", "mech_list: CRAM-MD5"),
        ("another_name", "memcached2.conf", "mech_list: CRAM-MD5"),
    ];
    for (place, file, text) in files {
        fs::create_dir(folder.file(place)).expect("a new folder");
        fs::write(folder.file(&format!("{place}/{file}")), text).expect("a new file");
    }
    let cases = [
        ("plain", None),
        ("comment", None),
        ("other", Some("other/memcached.conf")),
        ("file/of_another_name", Some("file/of_another_name")),
        ("nowhere:other", Some("other/memcached.conf")),
        (":another_name:other", Some("other/memcached.conf")),
        ("plain:other", None),
        ("other:plain", Some("other/memcached.conf")),
        ("plain/memcached.conf", None),
    ];
    for (said, refused) in cases {
        let places: Vec<String> =
            said.split(':').map(|place| if place.is_empty() { String::new() } else { folder.file(place) }).collect();
        let mut check = common::command(&common::under_test(), &["-l", "127.0.0.1", "-p", "-1", "-S", "--check"]);
        check.envs([("MEMCACHED_SASL_PWDB", &passwords), ("SASL_CONF_PATH", &places.join(":"))]);
        let output = check.output().expect("twincached");
        let (code, stderr) = (output.status.code(), String::from_utf8(output.stderr).unwrap());
        let line = refused.map_or_else(String::new, |file| {
            let file = folder.file(file);
            format!("{file}: mech_list does not name PLAIN, the only SASL mechanism that is built in\n")
        });
        assert_eq!((code, stderr), (Some(i32::from(refused.is_some())), line), "{said}");
    }
}

#[test]
fn without_sasl_its_packets_are_unknown() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    let unknown = (0x81, "Unknown command".to_owned());
    let large = told(AUTH, b"PLAIN", &[b'x'; 100_000]);
    for packet in [Packet::new(MECHANISMS, b"", b""), told(AUTH, b"PLAIN", ALICE), told(STEP, b"P", b""), large] {
        assert_eq!(ask(&mut conn, &packet), unknown);
    }
    assert_eq!(ask(&mut conn, &Packet::new(NOOP, b"", b"")).0, 0);
    assert_eq!(ask(&mut conn, &told(AUTH, b"", ALICE)).0, 4);
    conn.got.clear();
    conn.expect_end();
}

#[test]
fn requests_behind_a_login_are_answered_after_it() {
    let (server, _folder) = with_sasl("alice:secret\n");
    let mut conn = server.connect();
    let packets = [told(AUTH, b"PLAIN", ALICE), Packet::new(NOOP, b"", b""), Packet::new(GET, b"a", b"")];
    conn.send(&packets.iter().flat_map(Packet::request).collect::<Vec<u8>>());
    conn.read_until(common::DEADLINE, |got| got.len() >= 3 * 24 + 13 + 9);
    assert!(conn.got.ends_with(b"Not found"), "{}", common::show(&conn.got));

    let (server, _) = with_passwords("user:pass\n", &["-Y", "FILE"]);
    let mut conn = server.connect();
    conn.send(b"set a 0 0 9\r\nuser pass\r\nset b 0 0 1\r\nx\r\nget b\r\nmn\r\n");
    conn.expect("STORED\r\nSTORED\r\nVALUE b 0 1\r\nx\r\nEND\r\nMN\r\n");
}

#[test]
fn the_text_file_is_read_again_when_told() {
    let (server, file) = with_passwords("user:pass\n", &["-Y", "FILE"]);
    let log_in = |password: &str| {
        let mut conn = server.connect();
        let token = format!("user {password}");
        conn.send(format!("set a 0 0 {}\r\n{token}\r\n", token.len()).as_bytes());
        conn.read_until(common::DEADLINE, |got| got.ends_with(b"\n"));
        conn.got == b"STORED\r\n"
    };
    assert!(log_in("pass") && !log_in("next"));
    fs::write(&file, "user:next").unwrap();
    common::signal(server.pid(), "HUP");
    until("the new password counts", || log_in("next"));
    assert!(!log_in("pass"));
    fs::write(&file, "broken").unwrap();
    common::signal(server.pid(), "HUP");
    until("the server complains", || server.stderr().contains("malformed entry"));
    assert!(log_in("next"));
}

#[test]
fn the_sasl_file_is_followed() {
    let (server, folder) = with_sasl("alice:old\n");
    let is_let_in = || ask(&mut server.connect(), &told(AUTH, b"PLAIN", ALICE)).0 == 0;
    assert!(!is_let_in());
    fs::write(folder.file("passwords"), "alice:secret\n").unwrap();
    until("the new password counts", is_let_in);
}

#[test]
fn nothing_that_could_be_a_password_is_logged() {
    let (server, _) = with_passwords("user:hunter2\n", &["-Y", "FILE", "-vvv"]);
    let mut conn = server.connect();
    conn.send(b"set a 0 0 4\r\nuser hunter2 hunter2\r\nset a 0 0 13\r\nuser xhunter2\r\nset a 0 0 12\r\nuser hunter2\r\nmn\r\n");
    conn.read_until(common::DEADLINE, |got| got.ends_with(b"MN\r\n"));
    until("what was asked is logged", || server.stderr().contains("mn"));
    assert!(!server.stderr().contains("hunter2"), "{}", server.stderr());
}

#[test]
fn lines_of_strangers_are_short() {
    let (server, _) = with_passwords("user:pass\n", &["-Y", "FILE"]);
    let mut conn = server.connect();
    conn.send(&[b"get ".as_slice(), &[b'k'; 3000]].concat());
    conn.expect_end();
}

/// A sidecar that logs in with this file, beside a primary that has an item.
fn copy_to(peer: &Server, passwords: &str) -> (Server, Sidecar, Folder) {
    let folder = Folder::new();
    let (socket, file) = (folder.file("control"), folder.file("login"));
    fs::write(&file, passwords).expect("a new file");
    let primary = Server::start(&["-o", &format!("control_socket={socket}")]);
    primary.connect().ask(b"set copied 0 0 5\r\nhello\r\n", b"STORED\r\n");
    let sidecar = Sidecar::start(&socket, peer.addr, &["--peer-auth-file", &file, "-v"]);
    (primary, sidecar, folder)
}

#[test]
fn a_sidecar_logs_in_to_its_peer() {
    let (peer, _) = with_passwords("user:hunter2 and 3\n", &["-Y", "FILE", "-o", "standby=127.0.0.1"]);
    let (_primary, sidecar, _folder) = copy_to(&peer, "user:hunter2 and 3\nother:one\n");
    let mut conn = peer.connect();
    conn.ask(b"set login 0 0 18\r\nuser hunter2 and 3\r\n", b"STORED\r\n");
    until("the copy", || conn.ask(b"get copied\r\n", b"END\r\n") == b"VALUE copied 0 5\r\nhello\r\nEND\r\n");
    assert!(!sidecar.log().contains("hunter2"), "{}", sidecar.log());
}

#[test]
fn a_sidecar_says_why_it_cannot_log_in() {
    let (peer, _) = with_passwords("user:right\n", &["-Y", "FILE", "-o", "standby=127.0.0.1"]);
    let (_primary, sidecar, _folder) = copy_to(&peer, "user:hunter2\n");
    let log = sidecar.says("it does not take the user and password of --peer-auth-file");
    assert!(!log.contains("hunter2"), "{log}");
    let (_primary, sidecar, _folder) = copy_to(&peer, "nobody\n");
    sidecar.says("its first line is to be <user>:<password>");
    // Who asks for no login is not to keep the password.
    let peer = Server::start(&["-o", "standby=127.0.0.1"]);
    let (_primary, sidecar, _folder) = copy_to(&peer, "user:hunter2\n");
    let log = sidecar.says("it is to be started with -Y, or --peer-auth-file left out");
    assert!(!log.contains("hunter2"), "{log}");
    assert_eq!(peer.connect().number("", "total_items"), 0);
}
