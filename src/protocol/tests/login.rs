//! What may be said before a login.

use super::*;
use crate::protocol::binary::{Packet, Response};
use crate::protocol::{Protocol, SaslLogin, parse};

/// What becomes of a line: `login <head> <body>`, `more`, or the refusal, with `!` if the connection ends.
fn line(text: &str) -> String {
    told(parse(Protocol::AsciiLogin, text.replace('|', "\r\n").as_bytes(), 0))
}

fn told(parsed: Parsed<'_>) -> String {
    match parsed {
        Parsed::Request(Cut { request: Request::Login(Login::Text), head, body, tail: 2 }) => {
            format!("login {head} {body}")
        }
        Parsed::Request(Cut { request: Request::Login(Login::Sasl(sasl)), head, body, tail: 0 }) => {
            let SaslLogin { packet: Packet { key, .. }, is_step, is_started } = sasl;
            format!("sasl {} {head} {body} {is_step} {is_started}", String::from_utf8_lossy(key))
        }
        Parsed::Request(cut) => format!("{:?}", cut.request),
        Parsed::Partial { .. } => "more".into(),
        Parsed::Bad(Bad { reply: Refusal::Line(line), close, swallow: 0, .. }) => {
            String::from_utf8_lossy(line).trim_end().to_owned() + if close { "!" } else { "" }
        }
        Parsed::Bad(Bad { reply: Refusal::Packet { status, .. }, close, swallow, .. }) => {
            format!("{:#x} {swallow}{}", status as u16, if close { "!" } else { "" })
        }
        Parsed::Bad(bad) => format!("{bad:?}"),
    }
}

#[test]
fn compat_login_is_any_set() {
    assert_eq!(line("set a 0 0 9|user pass|"), "login 13 9");
    assert_eq!(line("set x y z 9 noreply more|"), "login 26 9");
    assert_eq!(line("set a 0 0 16384|"), "login 17 16384");
    assert_eq!(line("set a 0 0 16385|"), "CLIENT_ERROR auth token too long");
    for text in ["get foo|", "add a 0 0 9|", "set a 0 0|", "set a 0 0 x|", "set a 0 0 -1|", " version|", "ms a 9|"] {
        assert_eq!(line(text), "CLIENT_ERROR unauthenticated", "{text}");
    }
}

#[test]
fn compat_short_line_before_login() {
    assert_eq!([line("mn|"), line("quit|"), line("|")], ["!", "!", "!"]);
    assert_eq!(line("get a|"), "CLIENT_ERROR unauthenticated");
    assert_eq!([line(""), line("get a"), line(&"x".repeat(2048))], ["more", "more", "more"]);
    assert_eq!(line(&("get ".to_owned() + &"x".repeat(2048))), "!");
}

fn packet(opcode: u8, key: &[u8], value_len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let status = Status::Ok;
    Response { opcode, status, opaque: [1, 2, 3, 4], cas: 0, extras: b"", key, value_len }.encode(&mut out);
    out[0] = REQUEST;
    out
}

#[test]
fn packets_of_strangers() {
    let told = |bytes: &[u8]| told(parse(Protocol::BinaryLogin { is_started: true }, bytes, 0));
    assert_eq!(told(&packet(0x21, b"PLAIN", 7)), "sasl PLAIN 29 7 false true");
    assert_eq!(told(&packet(0x22, b"PLAIN", 0)), "sasl PLAIN 29 0 true true");
    assert!(told(&packet(0x20, b"", 0)).starts_with("Binary") && told(&packet(0x0b, b"", 0)).starts_with("Binary"));
    for opcode in [0x00, 0x01, 0x07, 0x0a, 0x10, 0x17, 0x60, 0x77, 0xff] {
        assert_eq!(told(&packet(opcode, b"", 0)), "0x20 0!", "{opcode}");
        assert_eq!(told(&packet(opcode, &[b'k'; 251], 1 << 20)), "0x20 0!", "{opcode}");
    }
    assert_eq!(told(&packet(0x21, b"", 3)), "0x4 0!");
    assert_eq!(told(&packet(0x21, b"PLAIN", LOGIN_MAX + 1)), "0x82 0!");
    let mut odd = packet(0x00, b"kkk", 0);
    odd[11] = 1;
    assert_eq!(told(&odd), "0x81 0!");
    assert_eq!([told(b"\x81garbage"), told(&[b'g'; HEADER])], ["more", "!"]);
}

#[test]
fn a_login_of_a_file() {
    let found = |file: &[u8]| {
        let (user, password) = of_first_line(file)?;
        Some((String::from_utf8_lossy(user).into_owned(), String::from_utf8_lossy(password).into_owned()))
    };
    let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
    assert_eq!(found(b"user:pass:wo rd\nother:x\n"), pair("user", "pass:wo rd"));
    assert_eq!((found(b"u:p\r\n"), found(b"u:")), (pair("u", "p"), pair("u", "")));
    for file in [&b""[..], b"\nu:p", b"u", b":p", b"a b:p"] {
        assert_eq!(found(file), None, "{}", file.escape_ascii());
    }
    let long = |len: usize| [b"u:".as_slice(), &vec![b'p'; len]].concat();
    assert!(found(&long(LOGIN_MAX - 2)).is_some() && found(&long(LOGIN_MAX - 1)).is_none());
}
