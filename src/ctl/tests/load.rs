//! Files that are no dumps, and a server that plays along.

use super::*;
use crate::ctl::options::DialOptions;
use std::io::Write;
use std::net::TcpListener;
use std::thread;

/// A server that says these bytes to the `stats` and the probe, and then `MN` to each `mn`; returns what it was sent.
fn loaded(probe: &'static str, file: &[u8]) -> (Result<String, CtlExit>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut from = io::BufReader::new(socket.try_clone().unwrap());
        let (mut sent, mut line) = (String::new(), String::new());
        while from.read_line(&mut line).is_ok_and(|read| read > 0) {
            match line.as_str() {
                "stats\r\n" => socket.write_all(b"STAT time 1800000000\r\nEND\r\n").unwrap(),
                "ok\r\n" => socket.write_all(probe.as_bytes()).unwrap(),
                "mn\r\n" => socket.write_all(b"MN\r\n").unwrap(),
                _ if line.contains("probe") => {}
                // A key of blanks.
                _ if line.starts_with("mg ICAg") => socket.write_all(b"EN\r\n").unwrap(),
                _ => sent += &line,
            }
            line.clear();
        }
        sent
    });
    let moved = MovedServer { server: &address, dial: &DialOptions::default(), limit_megabits: None };
    let done = load(&moved, &mut io::BufReader::with_capacity(7, file), None);
    (done, server.join().unwrap())
}

fn fails(file: &str, why: &str) {
    let (done, _) = loaded("NS\r\n", file.as_bytes());
    let exit = done.expect_err(file);
    assert!(exit.code == CtlExit::NOT_DONE && exit.stderr.contains(why), "{file:?}: {exit:?}");
}

#[test]
fn what_is_dead_is_left_out_and_what_is_not_known_too() {
    let file =
        "ms a 2 T0 E9 F3\r\nhi\r\nms b 2 T1799999999 q\r\nno\r\nms Eq 0 T1900000000 E5 q\r\n\r\nmd Eq I E7 q\r\nmn\r\n";
    let (done, sent) = loaded("NS\r\n", file.as_bytes());
    assert_eq!(sent, "ms a 2 T0 E9 F3 q\r\nhi\r\nms Eq 0 T1900000000 E5 q\r\n\r\nmd Eq I E7 q\r\n");
    let said = done.unwrap();
    assert!(said.starts_with("2 items sent") && said.contains("1 left out, which were dead"), "{said}");
    let (done, sent) = loaded("CLIENT_ERROR invalid flag\r\n", file.as_bytes());
    assert_eq!(sent, "ms a 2 T0 F3 q\r\nhi\r\nms Eq 0 T1900000000 q\r\n\r\nmd Eq I q\r\n");
    assert!(done.unwrap().contains("without cas uniques"));
}

#[test]
fn files_that_are_no_dumps() {
    fails("", "ends without `mn`");
    fails("ms a 2 T0 q\r\nhi\r\n", "1 items sent");
    fails("flush_all\r\nmn\r\n", "command 1 of the dump: neither");
    fails("ms a 2 T0 q\r\nhi\r\nshutdown\r\n", "command 2 of the dump: neither");
    fails("ms a x T0 q\r\n", "without a key and a length");
    fails("ms a\r\n", "without a key and a length");
    fails("ms a 2 T0 q\r\nh", "ends in the value");
    fails("ms a 2 T0 q\r\nhi", "ends in the value");
    fails("ms a 1 T0 q\r\nhi\r\nmn\r\n", "longer than this line says");
    fails("ms a 2 T0 q", "has no end");
    fails(&"x".repeat(5000), "has no end");
    fails(&format!("ms a {} T0 q\r\n", u64::MAX), "a length of at most 1 GiB");
    fails(&format!("ms a {} T0 q\r\n", 1 << 30), "ends in the value");
    fails("ms a 1 T0 q\r\nx\r\nms a 1 I\r\nx\r\nmn\r\n", "command 2 of the dump: it has a flag");
}
