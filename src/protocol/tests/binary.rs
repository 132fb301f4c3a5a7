//! Packets, whole and cut, good and bad.

use super::*;
use crate::protocol::request::RESPONSE;

fn request(opcode: u8, extras: &[u8], key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let response =
        Response { opcode, status: Status::Ok, opaque: [1, 2, 3, 4], cas: 7, extras, key, value_len: value.len() };
    response.encode(&mut out);
    out[0] = REQUEST;
    out.extend_from_slice(value);
    out
}

fn bad(input: &[u8]) -> (u16, u64, bool) {
    match parse(input) {
        Parsed::Bad(Bad { reply: Refusal::Packet { status, .. }, swallow, close, .. }) => {
            (status as u16, swallow, close)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_store() {
    let input = request(0x11, &[0, 0, 0, 5, 0, 0, 1, 0], b"key", b"value");
    for cut in 0..HEADER + 8 + 3 {
        assert!(matches!(parse(&input[..cut]), Parsed::Partial { need } if need > cut), "{cut}");
    }
    let Parsed::Request(Cut { request: Request::Store(StoreHeader::Binary(packet)), head, body, tail }) = parse(&input)
    else {
        panic!()
    };
    assert_eq!((head, body, tail), (35, 5, 0));
    assert_eq!(packet.op, Op::Store { mode: Mode::Set, client_flags: 5, exptime: 256 });
    assert_eq!((packet.key, packet.quiet, packet.cas, packet.opaque), (b"key".as_slice(), true, 7, [1, 2, 3, 4]));
}

#[test]
fn arithmetic_extras() {
    let mut extras = [0; 20];
    extras[7] = 9;
    extras[8] = 1;
    extras[19] = 3;
    let input = request(0x06, &extras, b"n", b"");
    let Parsed::Request(Cut { request: Request::Binary(packet), .. }) = parse(&input) else { panic!() };
    assert_eq!(packet.op, Op::Arith { incr: false, delta: 9, initial: 1 << 56, exptime: 3 });
}

#[test]
fn refusals() {
    assert_eq!(bad(&request(0x01, b"", b"k", b"x")), (4, 0, true));
    assert_eq!(bad(&request(0x00, b"", b"", b"")), (4, 0, true));
    assert_eq!(bad(&request(0x00, b"", &[b'k'; 251], b"")), (4, 0, true));
    let mut short = request(0x00, b"", b"kkk", b"");
    short[11] = 1;
    assert_eq!(bad(&short), (0x81, 0, true));
    let mut huge = request(0x01, &[0; 8], b"k", b"");
    huge[8..12].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
    assert_eq!(bad(&huge), (4, 0, true));
}

#[test]
fn compat_unknown_opcode() {
    assert_eq!(bad(&request(0x1b, b"", b"key", b"val")), (0x81, 6, false));
    assert_eq!(bad(&request(0x60, b"", b"key", b"val")), (0x81, 6, false));
    assert_eq!(bad(&request(0x77, b"", b"key", b"val")), (0x81, 9, false));
    assert_eq!(bad(&request(0x77, b"1234", b"key", b"val")), (0x81, 17, false));
    assert_eq!(bad(&request(0x77, b"", b"", b"val")), (0x81, 3, false));
}

#[test]
fn compat_value_behind_touch() {
    for (opcode, extras) in [(0x1c, &b"1234"[..]), (0x1d, b"1234"), (0x24, b"1234"), (0x10, b"")] {
        let input = request(opcode, extras, b"key", b"value");
        let Parsed::Request(cut) = parse(&input) else { panic!("{opcode:#x}") };
        assert_eq!(cut.size(), input.len() - 5);
    }
    assert_eq!(bad(&request(0x04, b"", b"key", b"value")), (4, 0, true));
}

#[test]
fn a_wrong_magic_closes() {
    let Parsed::Bad(bad) = parse(&[RESPONSE; HEADER]) else { panic!() };
    assert!(bad.close && bad.reply == Refusal::Line(b""));
    assert!(matches!(parse(b""), Parsed::Partial { need: HEADER }));
}
