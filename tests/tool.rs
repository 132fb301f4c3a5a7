//! `twincachectl` on servers without a cluster: `latency`, `hotkeys`, `slabs`, `check` and `plan`.

mod common;

use common::{Server, spare_port, until};
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Exit code and stdout.
fn ctl(words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_twincachectl")).args(words).output().expect("twincachectl");
    (output.status.code().expect("an exit code"), String::from_utf8(output.stdout).expect("text"))
}

fn json(words: &[&str]) -> serde_json::Value {
    let (code, text) = ctl(words);
    assert_eq!(code, 0, "{words:?}");
    serde_json::from_str(&text).expect(&text)
}

#[test]
fn what_servers_say_of_themselves() {
    let server = Server::start(&[]);
    let address = server.addr.to_string();
    let mut conn = server.connect();
    conn.ask(b"set a 0 0 3\r\nabc\r\n", b"STORED\r\n");
    until("the key is hot", || {
        (0..200).for_each(|_| drop(conn.ask(b"get a\r\n", b"END\r\n")));
        json(&["hotkeys", &address, "--json"])[0]["rows"][0]["key"] == "a"
    });
    let (code, text) = ctl(&["latency", &address]);
    let get = text.lines().find(|line| line.contains("  get  ")).expect(&text);
    assert!(code == 0 && text.starts_with("SERVER") && get.contains(" us"), "{text}");
    let (code, text) = ctl(&["hotkeys", &address, &address]);
    assert!(code == 0 && text.lines().count() == 3 && text.contains("  a  "), "{text}");
    let slabs = json(&["slabs", &address, "--json"]);
    assert!(slabs[0]["rows"][0]["used_chunks"].as_u64() == Some(1), "{slabs}");
}

#[test]
fn a_memcached_tells_what_it_can() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let address = memcached.addr.to_string();
    memcached.connect().ask(b"set a 0 0 3\r\nabc\r\n", b"STORED\r\n");
    let (code, text) = ctl(&["slabs", &address]);
    assert!(code == 0 && text.lines().count() == 2, "{text}");
    tells_not(&["latency", &address], "this server does not count latencies (memcached?)");
    tells_not(&["hotkeys", &address], "this server does not count hot keys (memcached?)");
    assert_eq!(ctl(&["check", &address]).0, 0);
}

/// Such a command ends so, says this alone and prints no table.
fn tells_not(words: &[&str], why: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_twincachectl")).args(words).output().expect("twincachectl");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.lines().count() == 1 && said.contains(why), "{said}");
    assert_eq!(String::from_utf8(output.stdout).expect("text"), "");
}

#[test]
fn what_a_server_has_off_is_said() {
    let server = Server::start(&["-o", "no_latency,no_hotkeys"]);
    let address = server.addr.to_string();
    tells_not(&["latency", &address], "this server has latencies off: -o no_latency");
    tells_not(&["hotkeys", &address], "this server has hot keys off: -o no_hotkeys");
    assert_eq!(ctl(&["top", "--once", "--interval", "0.1", &address]).0, 0);
}

#[test]
fn a_check_ends_with_its_code() {
    let server = Server::start(&["-c", "20", "-t", "1"]);
    let address = server.addr.to_string();
    let (code, line) = ctl(&["check", &address]);
    assert!(code == 0 && line.starts_with("TWINCACHE OK - ") && line.lines().count() == 1, "{line}");
    let most = server.connect().number("", "max_connections");
    let _many: Vec<_> = (1..most * 85 / 100).map(|_| server.connect()).collect();
    until("there are many", || ctl(&["check", &address]).0 == 1);
    let gone = format!("127.0.0.1:{}", spare_port());
    let (code, line) = ctl(&["check", &address, &gone]);
    assert!(code == 2 && line.starts_with(&format!("TWINCACHE CRITICAL - {gone}")), "{line}");
    let (code, line) = ctl(&["check", &address, "--auth-file", "/nonexistent"]);
    assert!(code == 3 && line.starts_with("TWINCACHE UNKNOWN - --auth-file /nonexistent: "), "{line}");
    let etcd = format!("http://{gone}");
    let (code, line) = ctl(&["--config", "/dev/null", "--etcd", &etcd, "check"]);
    assert!(code == 3 && line.starts_with("TWINCACHE UNKNOWN - "), "{line}");
}

/// One that says nothing, and one that says a little each second.
#[test]
fn a_check_does_not_wait_for_who_is_slow() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [&silent, &slow].map(|listener| listener.local_addr().unwrap().to_string());
    thread::spawn(move || {
        let (mut stream, _) = slow.accept().unwrap();
        while stream.write_all(b"STAT a b\r\n").is_ok() {
            thread::sleep(Duration::from_secs(1));
        }
    });
    let begun = Instant::now();
    let (code, line) = ctl(&["check", &addresses[0], &format!("http://{}", addresses[0]), &addresses[1]]);
    assert!(code == 2 && line.starts_with("TWINCACHE CRITICAL - "), "{line}");
    assert_eq!(line.matches("no whole answer within 8 s").count(), 3, "{line}");
    assert!(begun.elapsed() < Duration::from_secs(25), "it waits for what one of them does alone");
}

/// etcd that says a little again and again, whatever it is asked.
#[test]
fn a_check_does_not_wait_for_a_slow_etcd() {
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let etcd = format!("http://{}", slow.local_addr().unwrap());
    thread::spawn(move || {
        for stream in slow.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n";
                let mut is_there = stream.write_all(head).is_ok();
                while is_there {
                    thread::sleep(Duration::from_millis(200));
                    is_there = stream.write_all(b" ").is_ok();
                }
            });
        }
    });
    let begun = Instant::now();
    let (code, line) = ctl(&["--config", "/dev/null", "--etcd", &etcd, "check"]);
    assert!(code == 3 && line.starts_with("TWINCACHE UNKNOWN - "), "{line}");
    println!("{line}{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(25), "it waits for etcd");
}

#[test]
fn a_plan_shows_its_steps() {
    let (code, text) = ctl(&["plan", "users=5e6", "value=900"]);
    assert!(code == 0 && text.starts_with("STEP") && text.contains("nodes"), "{text}");
    assert!(json(&["plan", "--json"])[0]["value"].as_f64().is_some());
    assert_eq!(ctl(&["plan", "users=none"]).0, 64);
}

#[test]
fn a_reader_that_leaves_is_no_fault_and_a_full_disk_is_one() {
    let server = Server::start(&[]);
    let address = server.addr.to_string();
    let to = |words: &[&str], stdout: Stdio| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twincachectl"));
        command.args(words).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
    };
    let commands: [&[&str]; 6] = [
        &["slabs", &address],
        &["latency", &address, "--json"],
        &["top", &address, "--once"],
        &["check", &address],
        &["plan"],
        &["--help"],
    ];
    for words in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = to(words, writer.into());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0) && said.is_empty(), "{words:?}: {:?} {said}", output.status);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = to(words, full.into());
        let said = String::from_utf8_lossy(&output.stderr);
        // A check without its line is unknown: 1 would be a warning.
        let code = if words[0] == "check" { 3 } else { 1 };
        assert!(
            output.status.code() == Some(code) && said.contains("stdout: "),
            "{words:?}: {:?} {said}",
            output.status
        );
    }
}
