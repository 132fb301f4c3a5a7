//! `twincachectl top`, and the progress of a full sync: on a terminal, and without one.

mod common;

use common::{FED_BY, Folder, GIVEN_BACK, Server, Sidecar, TAKEN, Terminal, signal, spare_port, until, wait_for};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

/// Runs `top` with these arguments.
fn run(words: &[&str]) -> Terminal {
    Terminal::run(&format!("{} top {}", env!("CARGO_BIN_EXE_twincachectl"), words.join(" ")))
}

#[test]
fn servers_are_shown_until_q() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.ask(b"set some-key 0 0 3\r\nabc\r\n", b"STORED\r\n");
    let memcached = Server::reference(&["-u", "nobody"]);
    let address = server.addr.to_string();
    let mut words = vec![address.clone()];
    words.extend(memcached.iter().map(|memcached| memcached.addr.to_string()));
    words.extend(["--interval".to_owned(), "0.1".to_owned()]);
    let mut terminal = run(&words.iter().map(String::as_str).collect::<Vec<&str>>());
    for word in &words[..words.len() - 2] {
        terminal.shows(word);
    }
    terminal.shows("standalone");
    until("the key is hot", || {
        (0..200).for_each(|_| drop(conn.ask(b"get some-key\r\n", b"END\r\n")));
        terminal.shown().contains("some-key")
    });
    let mark = terminal.mark();
    terminal.press("\t");
    terminal.shows_after(mark, "P99.9");
    // Over all columns and back, and the other way round.
    terminal.press(&"\u{1b}[C".repeat(17));
    terminal.press("\u{1b}[Dr\u{1b}[B\u{1b}[A");
    let mark = terminal.mark();
    terminal.press(" ");
    terminal.shows_after(mark, "PAUSED");
    terminal.press(" q");
    terminal.is_restored();
}

#[test]
fn a_server_comes_back() {
    let mut server = Server::start(&[]);
    let address = server.addr.to_string();
    let mut terminal = run(&[&address, "--interval", "0.1"]);
    terminal.shows("standalone");
    let mark = terminal.mark();
    server.may_exit();
    signal(server.pid(), "KILL");
    terminal.shows_after(mark, "away");
    drop(server);
    let mark = terminal.mark();
    let _again = Server::start(&["-p", address.rsplit_once(':').unwrap().1]);
    terminal.shows_after(mark, "standalone");
    // ctrl-C
    terminal.press("\u{3}");
    terminal.is_restored();
}

#[test]
fn signals_give_the_terminal_back() {
    let server = Server::start(&[]);
    for name in ["TERM", "INT", "HUP"] {
        let terminal = run(&[&server.addr.to_string()]);
        terminal.shows("standalone");
        signal(terminal.value("pid").parse().unwrap(), name);
        terminal.is_restored();
    }
}

/// Stopped and let go on, as by a shell.
#[test]
fn a_pause_of_the_program() {
    let server = Server::start(&[]);
    let mut terminal = run(&[&server.addr.to_string()]);
    terminal.shows("standalone");
    let pid: u32 = terminal.value("pid").parse().unwrap();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    for key in [None, Some("\u{1a}")] {
        match key {
            None => signal(pid, "TSTP"),
            Some(key) => terminal.press(key),
        }
        until("it stands still", is_stopped);
        until("it has given the terminal back", || {
            let shown = terminal.shown();
            shown.rfind(TAKEN) < shown.rfind(GIVEN_BACK)
        });
        let mark = terminal.mark();
        signal(pid, "CONT");
        terminal.shows_after(mark, TAKEN);
        terminal.shows_after(mark, "standalone");
    }
    terminal.press("q");
    terminal.is_restored();
}

/// Reading keys from it would not end.
#[test]
fn a_terminal_that_is_gone_ends_it() {
    let server = Server::start(&[]);
    let terminal = run(&[&server.addr.to_string()]);
    terminal.shows("standalone");
    let pid = terminal.value("pid");
    drop(terminal);
    until("it has ended", || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
}

/// Drawing waits then, and so would whoever waits for the drawing to end.
#[test]
fn a_terminal_that_nobody_reads_does_not_hold_it() {
    let server = Server::start(&[]);
    let address = server.addr.to_string();
    let terminal = run(&[&[&address[..]; 20][..], &["--interval", "0.1"]].concat());
    terminal.shows("standalone");
    let pid = terminal.value("pid");
    // What it sends to servers does not count here.
    let written = || std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap().lines().nth(1).unwrap().to_owned();
    terminal.stall(true);
    let (mut conn, mut count) = (server.connect(), 0);
    until("it cannot write", || {
        let before = written();
        for _ in 0..10 {
            count += 97;
            (0..count % 1000).for_each(|_| drop(conn.ask(b"get a\r\n", b"END\r\n")));
            thread::sleep(Duration::from_millis(100));
        }
        before == written()
    });
    signal(pid.parse().unwrap(), "CONT");
    signal(pid.parse().unwrap(), "TERM");
    until("it has ended", || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    terminal.stall(false);
    assert_eq!(terminal.value("code"), "0");
    assert_eq!(terminal.value("before"), terminal.value("behind"));
}

fn ctl(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_twincachectl")).args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn a_table_without_a_terminal() {
    let server = Server::start(&[]);
    let address = server.addr.to_string();
    let gone = format!("127.0.0.1:{}", spare_port());
    let (code, text, _) = ctl(&["top", "--once", "--interval", "0.1", &address]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        code == 0 && lines.len() == 2 && lines[0].starts_with("SERVER") && lines[1].contains("standalone"),
        "{text}"
    );
    let (code, text, _) = ctl(&["top", "--json", "--interval", "0.1", &address, &gone]);
    let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert_eq!((code, &value[0]["role"], &value[0]["trouble"]), (69, &"standalone".into(), &serde_json::Value::Null));
    assert!(value[0]["operations_per_second"].as_f64().is_some() && value[0]["limit_bytes"].as_u64() == Some(64 << 20));
    assert!(value[1]["trouble"].as_str().unwrap().contains("refused"), "{text}");
    let (code, _, said) = ctl(&["top", &address]);
    assert!(code == 64 && said.contains("--once"), "{said}");
    for bad in ["0", "0.09", "3601", "nan", "1e2", "-1", ""] {
        let (code, _, said) = ctl(&["top", "--once", &format!("--interval={bad}"), &address]);
        assert!(code == 64 && said.contains("0.1 to 3600"), "{bad}: {said}");
    }
}

#[test]
fn a_memcached_without_a_terminal() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let (code, text, _) = ctl(&["top", "--json", "--interval", "0.1", &memcached.addr.to_string()]);
    let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert_eq!((code, &value[0]["role"], &value[0]["p99_us"]), (0, &serde_json::Value::Null, &serde_json::Value::Null));
    assert!(value[0]["gets_per_second"].as_f64() == Some(0.0) && value[0]["connections"].as_u64() >= Some(1), "{text}");
}

/// A server that answers every request with this.
fn liar(answer: &'static [u8], is_endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                let mut request = [0; 256];
                while let Ok(1..) = stream.read(&mut request) {
                    while stream.write_all(answer).is_ok() && is_endless {}
                }
            });
        }
    });
    address
}

#[test]
fn strangers_do_no_harm() {
    let huge = b"STAT role \x1b[2J\x1b]0;x\x07\r\nSTAT pid 1\r\nSTAT cmd_get 18446744073709551615\r\n\
        STAT bytes 18446744073709551615\r\nSTAT uptime 18446744073709551615\r\nSTAT 1:key \x1b[31m\r\nEND\r\n";
    let (code, text, _) = ctl(&["top", "--once", "--interval", "0.1", &liar(huge, false)]);
    assert!(code == 0 && !text.contains('\u{1b}') && text.contains("16.0E") && text.contains(">270y"), "{text:?}");
    for (answer, is_endless, said) in [
        (&b"STAT a 1\r\n"[..], true, "its statistics have no end"),
        (b"STAT a", true, "a line has no end"),
        (b"nonsense\x1b[2J\r\n", false, r"stats : nonsense\u{1b}[2J"),
    ] {
        // One that has to wait for the processor is late, which is said of it, too.
        let (code, text) = wait_for("an answer in time", || {
            let (code, text, _) = ctl(&["top", "--once", "--interval", "0.1", &liar(answer, is_endless)]);
            (!text.contains("it does not answer")).then_some((code, text))
        });
        assert!(code == 69 && text.contains(said) && !text.contains('\u{1b}'), "{text:?}");
    }
}

/// A server with 20 MB, its control socket, and a peer.
fn full_server() -> (Server, String, Server) {
    let folder = Folder::new();
    let socket = folder.file("control");
    let from = Server::start_in(folder, &["-o", &format!("control_socket={socket}")]);
    let mut conn = from.connect();
    let value = "x".repeat(1000);
    for round in 0..20 {
        let sets: String = (0..1000).map(|at| format!("set {round}-{at} 0 0 1000 noreply\r\n{value}\r\n")).collect();
        conn.ask((sets + "mn\r\n").as_bytes(), b"MN\r\n");
    }
    (from, socket, Server::start(&["-o", FED_BY]))
}

#[test]
fn tables_and_errors_have_no_escapes() {
    let rows = b"STAT \x1b[2J:count \x1b[31m\r\nSTAT curr_connections 1\r\nSTAT max_connections 9\r\nEND\r\n";
    let servers = [liar(rows, false), liar(b"no\x1b[2J \xc2\x9b\r\n", false)];
    for command in ["latency", "hotkeys", "slabs", "check", "dump"] {
        for server in &servers {
            let (_, text, said) = ctl(&[command, server]);
            assert!(!text.contains(['\u{1b}', '\u{9b}']) && !said.contains(['\u{1b}', '\u{9b}']), "{text:?} {said:?}");
            assert!(!text.is_empty() || !said.is_empty(), "{command}");
        }
    }
}

#[test]
fn a_terminal_shows_a_full_sync() {
    let (_from, socket, to) = full_server();
    let sidecar = env!("CARGO_BIN_EXE_twincache-sidecar");
    let terminal = Terminal::run(&format!("{sidecar} --server unix:{socket} --peer {} --limit-mbps 40", to.addr));
    let line = wait_for("the line", || {
        let shown = terminal.shown();
        shown.rsplit("\r\u{1b}[K").find(|line| line.ends_with(" s left")).map(str::to_owned)
    });
    let start = format!("{}: full sync ", to.addr);
    assert!(line.starts_with(&start), "{line:?}");
    let (percent, items) = line[start.len()..].split_once(" %, ").expect(&line);
    assert!(percent.parse::<u64>().unwrap() <= 100 && items.contains(" of 20000 items, "), "{line:?}");
    // A server that is fed says it, too.
    let role = wait_for("the copy's percent", || {
        let (_, text, _) = ctl(&["top", "--json", "--interval", "0.1", &to.addr.to_string()]);
        let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
        value[0]["sync_percent"].is_u64().then(|| value[0]["role"].clone())
    });
    assert_eq!(role, "standby");
    until("all is there", || to.connect().number("", "curr_items") == 20_000);
    until("the line is gone", || {
        let shown = terminal.shown();
        shown.rsplit("\r\u{1b}[K").next().is_some_and(|last| !last.contains(" of 20000 items, "))
    });
    signal(terminal.value("pid").parse().unwrap(), "TERM");
    assert_eq!(terminal.value("code"), "0");
}

#[test]
fn a_log_has_no_such_line() {
    let (_from, socket, to) = full_server();
    let mut sidecar = Sidecar::start(socket, to.addr, &[]);
    until("all is there", || to.connect().number("", "curr_items") == 20_000);
    sidecar.stop();
    assert!(
        !sidecar.log().contains('\u{1b}') && sidecar.log().contains("full sync of 20000 items"),
        "{}",
        sidecar.log()
    );
}
