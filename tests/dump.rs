//! `twincachectl dump` and `load`, between this server and a memcached, in all directions.

mod common;

use common::{Rng, Server, seed, spare_port, until};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

/// Key in base64: value, client flags, and the time of expiry or 0.
type Items = BTreeMap<String, (Vec<u8>, u32, i64)>;

fn ctl(words: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twincachectl"));
    let command = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("twincachectl");
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // It may end before it has read all.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("twincachectl")
    })
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn dump(server: &Server) -> Vec<u8> {
    let output = ctl(&["dump", &server.addr.to_string()], b"");
    assert!(output.status.success(), "{}", said(&output));
    output.stdout
}

fn load(server: &Server, file: &[u8]) -> String {
    let output = ctl(&["load", &server.addr.to_string()], file);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

fn base64(key: &[u8]) -> String {
    let mut text = Vec::new();
    twincache::protocol::base64::encode(key, &mut text);
    String::from_utf8(text).unwrap()
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Random items: keys and values of any bytes, some long, some with a time, some stored under base64.
fn fill(server: &Server, rng: &mut Rng, count: usize) -> Items {
    let mut conn = server.connect();
    let mut items = Items::new();
    for number in 0..count {
        // A memcached takes keys of up to 187 bytes in base64.
        let mut key = rng.bytes(1 + number % 180);
        key.extend_from_slice(format!("{number}").as_bytes());
        let len = if number % 40 == 0 { 200_000 } else { rng.below(300usize) };
        let value = rng.bytes(len);
        let flags = if rng.one_in(2) { rng.next() as u32 } else { 0 };
        let expires_at = if rng.one_in(2) { now() + 1000 + rng.below(100_000i64) } else { 0 };
        let key = base64(&key);
        conn.send(format!("ms {key} {} b F{flags} T{expires_at}\r\n", value.len()).as_bytes());
        conn.send(&value);
        assert_eq!(conn.ask(b"\r\n", b"\r\n"), b"HD\r\n");
        items.insert(key, (value, flags, expires_at));
    }
    items
}

/// What there is of these; times within two seconds count as the same.
fn check(server: &Server, items: &Items) {
    let mut conn = server.connect();
    for (key, (value, flags, expires_at)) in items {
        let reply = conn.ask(format!("mg {key} b f t s v\r\nmn\r\n").as_bytes(), b"MN\r\n");
        let end = reply.iter().position(|byte| *byte == b'\n').unwrap();
        let head = String::from_utf8_lossy(&reply[..end]).trim_end().to_owned();
        let time: i64 = head.split(' ').find_map(|word| word.strip_prefix('t')).expect(&head).parse().unwrap();
        let left = if *expires_at == 0 { -1..=-1 } else { expires_at - now() - 3..=expires_at - now() + 1 };
        assert!(left.contains(&time), "{key}: {head}, wanted {left:?}");
        assert!(head.contains(&format!(" f{flags} ")), "{key}: {head}, wanted f{flags}");
        assert_eq!(&reply[end + 1..reply.len() - b"\r\nMN\r\n".len()], &value[..], "{key}");
    }
    assert_eq!(conn.number("", "curr_items"), items.len() as u64);
}

#[test]
fn ours_to_ours_keeps_everything() {
    let mut rng = Rng(seed("ours_to_ours_keeps_everything"));
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let items = fill(&from, &mut rng, 500);
    let mut conn = from.connect();
    conn.ask(b"ms cas 1 E4711\r\nx\r\n", b"HD\r\n");
    conn.ask(b"ms stale 1 T5000\r\nx\r\nmd stale I T3000\r\n", b"HD\r\nHD\r\n");
    let file = dump(&from);
    assert!(file.ends_with(b"\r\nmn\r\n"));
    load(&to, &file);
    let mut conn = to.connect();
    assert_eq!(conn.line("mg cas c"), "HD c4711");
    for server in [&from, &to] {
        let mut conn = server.connect();
        assert_eq!(conn.line("mg stale"), "HD X W", "the next client is asked to renew it");
        assert_eq!(conn.line("mg stale"), "HD Z X");
        conn.ask(b"md cas\r\nmd stale\r\n", b"HD\r\nHD\r\n");
    }
    check(&to, &items);
}

#[test]
fn memcached_to_ours_and_back() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let mut rng = Rng(seed("memcached_to_ours_and_back"));
    let ours = Server::start(&[]);
    let items = fill(&memcached, &mut rng, 300);
    load(&ours, &dump(&memcached));
    check(&ours, &items);
    memcached.connect().ask(b"flush_all\r\n", b"OK\r\n");
    // memcached drops what is stored in the second of a flush_all.
    until("memcached stores again", || {
        let mut conn = memcached.connect();
        conn.ask(b"set a 0 0 1\r\nx\r\n", b"STORED\r\n");
        thread::sleep(std::time::Duration::from_millis(1100));
        conn.line("mg a") == "HD" && conn.line("md a") == "HD"
    });
    let text = load(&memcached, &dump(&ours));
    assert!(text.contains("without cas uniques"), "{text}");
    check(&memcached, &items);
}

/// Its crawler misses items that move within its lists, and to read them for a dump moves them.
#[test]
fn dumps_of_a_memcached_one_after_the_other_are_whole() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let mut conn = memcached.connect();
    let sets: String = (0..3000).map(|number| format!("set key{number} 0 0 5 noreply\r\nvalue\r\n")).collect();
    conn.ask(format!("{sets}mn\r\n").as_bytes(), b"MN\r\n");
    for number in 0..8 {
        let file = dump(&memcached);
        let items = file.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"ms ")).count();
        assert_eq!(items, 3000, "dump {number}");
    }
}

#[test]
fn what_has_died_stays_dead() {
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let mut conn = from.connect();
    conn.ask(b"ms short 1 T1\r\nx\r\nms gone 1 T-1\r\nx\r\nms long 1 T1000\r\nx\r\n", b"HD\r\nHD\r\nHD\r\n");
    let file = dump(&from);
    until("it has died", || conn.line("mg short") == "EN");
    load(&to, &file);
    let mut conn = to.connect();
    assert_eq!((conn.line("mg gone"), conn.line("mg long")), ("EN".into(), "HD".into()));
    // The seconds of two servers do not begin together.
    until("it to be dead there, too", || conn.line("mg short") == "EN");
    assert_eq!(conn.line("mg long"), "HD");
}

#[test]
fn a_dump_under_writes() {
    let mut rng = Rng(seed("a_dump_under_writes"));
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let items = fill(&from, &mut rng, 2000);
    let is_over = AtomicBool::new(false);
    let file = thread::scope(|scope| {
        scope.spawn(|| {
            let mut conn = from.connect();
            for number in 0u64.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let key = number % 1000;
                conn.ask(
                    format!("set w{key} 0 0 3\r\nabc\r\nmd w{}\r\nmn\r\n", (key * 7) % 1000).as_bytes(),
                    b"MN\r\n",
                );
            }
        });
        let file = dump(&from);
        is_over.store(true, Ordering::Relaxed);
        file
    });
    load(&to, &file);
    let mut conn = to.connect();
    for number in 0..1000 {
        conn.ask(format!("md w{number} q\r\nmn\r\n").as_bytes(), b"MN\r\n");
    }
    check(&to, &items);
}

#[test]
fn trouble_is_told() {
    let server = Server::start(&[]);
    let address = server.addr.to_string();
    let output = ctl(&["load", &address], b"ms a 1 T0 q\r\nx\r\nms b 50 T0 q\r\nx");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("ends in the value") && said(&output).contains("1 items sent"), "{}", said(&output));
    assert_eq!(server.connect().line("mg a"), "HD", "what was whole is there");
    let large = format!("ms a 1 T0\r\ny\r\nms b 2000000 T0 q\r\n{}\r\nms c 1 T0\r\nz\r\nmn\r\n", "x".repeat(2000000));
    let output = ctl(&["load", &address], large.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("1 refused") && said(&output).contains("too large"), "{}", said(&output));
    assert_eq!(server.connect().line("mg c"), "HD", "what comes behind it is loaded");
    let closed = format!("127.0.0.1:{}", spare_port());
    let barred = Server::start(&["-X"]);
    for (command, server) in [("dump", &closed), ("load", &closed), ("dump", &barred.addr.to_string())] {
        let output = ctl(&[command, server], b"");
        assert!(output.status.code() == Some(69) && said(&output).contains(server.as_str()), "{}", said(&output));
    }
}

#[test]
fn a_server_that_dies_leaves_a_part() {
    let mut server = Server::start(&[]);
    fill(&server, &mut Rng(7), 200);
    let address = server.addr.to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_twincachectl"));
    // A megabit a second takes a while for a megabyte.
    let command = command.args(["dump", &address, "--limit-mbps", "1"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("twincachectl");
    let mut conn = server.connect();
    until("it has begun", || conn.number("", "get_hits") > 0);
    server.may_exit();
    common::signal(server.pid(), "KILL");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code() == Some(69) && said(&output).contains("this is a part"), "{}", said(&output));
    let to = Server::start(&[]);
    let output = ctl(&["load", &to.addr.to_string()], &output.stdout);
    assert!(output.status.code() == Some(1) && said(&output).contains("the file ends"), "{}", said(&output));
}

/// memcached refuses some lines of `ms` without swallowing the value, which it then takes for commands.
#[test]
fn a_file_runs_no_command() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let address = memcached.addr.to_string();
    let mut conn = memcached.connect();
    conn.ask(b"set kept 0 0 1\r\nx\r\n", b"STORED\r\n");
    let flags: String = ('a'..='z').map(|flag| format!(" {flag}")).collect();
    let (long, base64) = ("a".repeat(300), "AAAA".repeat(100));
    let lines = [
        format!("ms {long} 11"),
        format!("ms {base64} 11 b"),
        format!("ms k 11{flags}"),
        format!("ms k 11{}", " T0".repeat(30)),
        "ms k\0 11 T0".to_owned(),
        "ms a 11 b".to_owned(),
        "ms k 11 I".to_owned(),
        "ms k 11 Tx".to_owned(),
        "ms k 11 T99999999999999999999".to_owned(),
    ];
    for line in lines {
        let output = ctl(&["load", &address], format!("{line}\r\nflush_all\r\n\r\nmn\r\n").as_bytes());
        assert_eq!(conn.number("", "cmd_flush"), 0, "{line:?}");
        assert_eq!(output.status.code(), Some(1), "{line:?}");
        assert!(said(&output).contains("command 1 of the dump: "), "{line:?}: {}", said(&output));
    }
    // A dump of ours may hold it, and memcached takes no base64 of that length.
    let ours = base64_of_blanks(200);
    let file = format!("ms {ours} 11 b T0 q\r\nflush_all\r\n\r\nmd {ours} b I T0 q\r\nms k 1 T0 q\r\nx\r\nmn\r\n");
    let output = ctl(&["load", &address], file.as_bytes());
    assert_eq!(conn.number("", "cmd_flush"), 0);
    assert!(output.status.code() == Some(1) && said(&output).contains("1 refused"), "{}", said(&output));
    assert_eq!((conn.line("mg k"), conn.line("mg kept")), ("HD".into(), "HD".into()));
}

fn base64_of_blanks(len: usize) -> String {
    base64(&vec![b' '; len])
}

#[test]
fn what_cannot_be_asked_for_is_told() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let mut conn = memcached.connect();
    // The binary protocol stores any key: this one has a blank, and its base64 is longer than memcached takes.
    let key = [b' '; 200];
    let mut request = vec![0x80, 1, 0, key.len() as u8, 8, 0, 0, 0];
    request.extend_from_slice(&(8 + key.len() as u32).to_be_bytes());
    request.extend_from_slice(&[0; 12 + 8]);
    request.extend_from_slice(&key);
    memcached.connect().ask(&request, b"\0\0\0\0\0\0\0\x01");
    assert_eq!(conn.number("", "curr_items"), 1);
    let output = ctl(&["dump", &memcached.addr.to_string()], b"");
    assert!(output.stdout == b"mn\r\n" && said(&output).contains("1 left out"), "{}", said(&output));
    assert_eq!(output.status.code(), Some(1));
}
