//! Meta lines: which error memcached finds, what is swallowed, and what arguments become.

use super::*;
use crate::protocol::line::parse;
use crate::protocol::{Bad, Refusal};

fn reply(line: &str) -> (String, u64) {
    match parse(line.as_bytes(), 0) {
        Parsed::Bad(Bad { reply: Refusal::Line(reply), swallow, .. }) => {
            (String::from_utf8(reply.to_vec()).unwrap(), swallow)
        }
        other => panic!("{line:?}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    reply(line).0.trim_start_matches("CLIENT_ERROR ").trim_end().to_string()
}

#[test]
fn flag_errors() {
    assert_eq!(error("mg a a\r\n"), "invalid flag");
    assert_eq!(error("mg a 1\r\n"), "invalid flag");
    assert_eq!(error("mg a _\r\n"), "invalid flag");
    assert_eq!(error("mg a !\r\n"), "bad command line format");
    assert_eq!(error("mg a v v\r\n"), "duplicate flag");
    for flag in ["T", "Tabc", "N", "Rx", "Cx", "E-1"] {
        assert_eq!(error(&format!("mg a {flag}\r\n")), "bad token in command line format");
    }
    assert_eq!(error("ms a 2 F4294967296\r\n"), "bad command line format");
    assert_eq!(error(&format!("mg a O{}\r\n", "1".repeat(32))), "opaque token too long");
    assert_eq!(error("mg Zm9 b\r\n"), "error decoding key");
    assert_eq!(error("mg a s t c f k h l q u v O1 L P x I E5 D1 J1 F0 MI\r\n"), "options flags are too long");
    assert_eq!(error("mg a s t c f k h l q u v O1 L P x I E5 S\r\n"), "invalid flag");
    assert_eq!(error("mg a J\r\n"), "invalid numeric initial value");
    assert_eq!(error("mg a D-1\r\n"), "invalid numeric delta value");
}

#[test]
fn compat_last_fault() {
    let long = format!("O{}", "o".repeat(32));
    for (flags, text) in [
        ("Tx Dx", "invalid numeric delta value"),
        ("Dx Tx", "bad token in command line format"),
        ("Dx Fx", "invalid numeric delta value"),
        ("Fx Dx", "invalid numeric delta value"),
        ("Tx b", "error decoding key"),
        ("b Fx", "error decoding key"),
        ("Tx v v", "duplicate flag"),
        ("v v A", "duplicate flag"),
        ("A v v", "invalid flag"),
        ("T T", "duplicate flag"),
        (&format!("{long} Tx"), "bad token in command line format"),
        (&format!("{long} Mx"), "opaque token too long"),
    ] {
        assert_eq!(error(&format!("mg n1 {flags}\r\n")), text, "{flags}");
    }
    assert_eq!(error(&format!("ms n1 2 {long} Mx\r\n")), "invalid mode for ms M token");
    assert_eq!(error(&format!("ma n1 {long} Mx\r\n")), "invalid mode for ma M token");
    assert_eq!(error(&format!("ma n1 {long}\r\n")), "opaque token too long");
    assert_eq!(error("ma n1 Mx Tx\r\n"), "invalid or duplicate flag");
}

#[test]
fn compat_me_flags() {
    let key = |line: &[u8]| match parse(line, 0) {
        Parsed::Request(Cut { request: Request::Meta(command), .. }) => Some(command.key(&mut None).to_vec()),
        Parsed::Bad(_) => None,
        other => panic!("{other:?}"),
    };
    for line in ["me k1 0\r\n", "me k1 a a b\r\n", "me k1 b\r\n", "me k1 a b c d e f g h i j k l m n o p q r s t\r\n"] {
        assert_eq!(key(line.as_bytes()).as_deref(), Some(b"k1".as_slice()), "{line}");
    }
    assert_eq!(key(b"me Zm9v b\r\n").as_deref(), Some(b"foo".as_slice()));
    assert_eq!(key(b"me Zm9v b x\r\n").as_deref(), Some(b"foo".as_slice()));
    assert_eq!(key(b"me Zm9v x b\r\n").as_deref(), Some(b"Zm9v".as_slice()));
    assert_eq!((key(b"me k1 b x\r\n"), key(b"me k1 !\r\n")), (None, None));
}

#[test]
fn compat_ma_flag_error() {
    for flags in ["D", "Dx", "J", "v v", "a", "Zm9 b", "s t c f k h l q u v O1 L P x I E5 D1 J1 F0"] {
        assert_eq!(error(&format!("ma n {flags}\r\n")), "invalid or duplicate flag");
    }
    assert_eq!(error(&format!("ma {}\r\n", "k".repeat(251))), "invalid or duplicate flag");
    assert_eq!(error("ma n Mx\r\n"), "invalid mode for ma M token");
    assert_eq!(error("ma n !\r\n"), "bad command line format");
}

#[test]
fn what_ms_swallows() {
    assert_eq!(reply("ms a abc\r\n").1, 0);
    assert_eq!(reply("ms a 2 !\r\n").1, 0);
    assert_eq!(reply("ms a 2 v v\r\n").1, 4);
    assert_eq!(reply("ms a 2 M\r\n").1, 4);
    assert_eq!(reply(&format!("ms {} 2\r\n", "k".repeat(251))).1, 4);
}

#[test]
fn compat_m_first_letter() {
    let line = b"ms a 2 MADD\r\n";
    let Parsed::Request(Cut { request: Request::Store(StoreHeader::Meta(command)), .. }) = parse(line, 0) else {
        panic!()
    };
    assert_eq!(command.mode, Mode::Append);
}

#[test]
fn arguments() {
    let line = b"ma Zm9v b N90 J5 D7 T-1 M- q vjunk\r\n";
    let Parsed::Request(Cut { request: Request::Meta(command), head, .. }) = parse(line, 0) else { panic!() };
    assert_eq!(head, line.len());
    assert_eq!(command.key(&mut None), b"foo");
    assert_eq!((command.vivify(), command.ttl(), command.recache()), (Some(90), Some(-1), None));
    assert_eq!((command.initial(), command.delta(), command.decr), (5, 7, true));
    assert!(command.quiet() && command.has(b'v') && !command.has(b'k'));
    assert_eq!(command.flags().last(), Some(b"vjunk".as_slice()));
}
