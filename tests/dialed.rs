//! `twincachectl` and servers that want TLS or a login.

mod common;

use common::{Folder, Pki, Server};
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn ctl(words: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_twincachectl"));
    let command = command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("twincachectl");
    // It may end before it has read all, and what is sent here fits into the pipe.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().expect("twincachectl")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Loads an item, dumps it again, and looks at the server by every command.
fn works(address: &str, how: &[&str]) {
    let ask = |words: &[&str], input: &[u8]| {
        let output = ctl(&[words, how].concat(), input);
        assert!(output.status.success(), "{words:?} {how:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    ask(&["load", address], b"ms some-key 3 T0\r\nabc\r\nmn\r\n");
    let dumped = ask(&["dump", address], b"");
    assert!(
        dumped.contains("ms some-key 3 ") && dumped.contains("\r\nabc\r\n") && dumped.ends_with("mn\r\n"),
        "{dumped}"
    );
    assert!(!dumped.contains("login"), "nothing was stored by logging in: {dumped}");
    assert!(ask(&["check", address], b"").starts_with("TWINCACHE OK"));
    assert!(ask(&["slabs", address], b"").lines().count() >= 2);
    let top = ask(&["top", "--once", "--interval", "0.1", address], b"");
    assert!(top.contains(address) && !top.contains("away"), "{top}");
}

/// What is said of a server that cannot be spoken to so.
fn fails(address: &str, how: &[&str]) -> String {
    let output = ctl(&[&["slabs", address], how].concat(), b"");
    assert!([Some(64), Some(69)].contains(&output.status.code()), "{how:?}: {}", said(&output));
    assert_eq!(said(&output).lines().count(), 1);
    said(&output)
}

#[test]
fn servers_that_speak_tls() {
    let (pki, stranger) = (Pki::new(), Pki::new());
    let (ca, cert, key) = (pki.file("ca.pem"), pki.file("client.pem"), pki.file("client.key"));
    let by_ca = ["--tls", "--tls-ca", &ca];
    let options = pki.options(&format!("ssl_ca_cert={ca}"));
    let words = ["-Z", "-o", &options];
    let servers = [Some(Server::start(&words)), Server::reference(&[&words[..], &["-u", "nobody"]].concat())];
    for server in servers.iter().flatten() {
        let address = server.addr.to_string();
        works(&address, &by_ca);
        fails(&address, &[]);
        let said = fails(&address, &["--tls", "--tls-ca", &stranger.file("ca.pem")]);
        assert!(said.contains("certificate"), "{said}");
    }
    let options = pki.options(&format!("ssl_ca_cert={ca},ssl_verify_mode=2"));
    let server = Server::start(&["-Z", "-o", &options]);
    let address = server.addr.to_string();
    works(&address, &[&by_ca[..], &["--tls-cert", &cert, "--tls-key", &key]].concat());
    fails(&address, &by_ca);
}

#[test]
fn servers_that_want_a_login() {
    let folder = Folder::new();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.file(name), text).unwrap();
        folder.file(name)
    };
    let good = file("good", "user:pass:word\nother:x\n");
    let words = ["-Y", &good];
    let servers = [Some(Server::start(&words)), Server::reference(&["-Y", &good, "-u", "root"])];
    for server in servers.iter().flatten() {
        let address = server.addr.to_string();
        works(&address, &["--auth-file", &good]);
        assert!(fails(&address, &[]).contains("it wants a login: --auth-file"));
        let said = fails(&address, &["--auth-file", &file("bad", "user:nonsense\n")]);
        assert!(said.contains("does not take the login") && !said.contains("nonsense"), "{said}");
        let said = fails(&address, &["--auth-file", &file("empty", "\n")]);
        assert!(said.contains("user:password"), "{said}");
        assert!(fails(&address, &["--auth-file", "/nonexistent"]).contains("/nonexistent"));
    }
    // Who wants no login is told none.
    let open = Server::start(&[]);
    works(&open.addr.to_string(), &["--auth-file", &good]);
}

#[test]
fn tls_and_a_login() {
    let pki = Pki::new();
    let folder = Folder::new();
    std::fs::write(folder.file("auth"), "user:password\n").unwrap();
    let (options, auth) = (pki.options("ssl_session_cache"), folder.file("auth"));
    let server = Server::start(&["-Z", "-o", &options, "-Y", &auth]);
    let how = ["--tls", "--tls-ca", &pki.file("ca.pem"), "--auth-file", &auth];
    works(&server.addr.to_string(), &how);
}
