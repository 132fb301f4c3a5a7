//! Changes as meta commands, read back by the parser.

use super::*;
use crate::protocol::{Parsed, Protocol, Request, StoreHeader, meta, parse};

const STATE: ItemState = ItemState { expiry: Expiry(0), cas: Some(7), stale: false, win: false };

/// Every command of `wire` as verb, key, and flags in their order; the length of the data stands for ms's.
fn read_back(mut wire: &[u8]) -> Vec<(meta::Verb, Vec<u8>, String)> {
    let mut commands = Vec::new();
    while !wire.is_empty() {
        let Parsed::Request(cut) = parse(Protocol::Ascii, wire, 0) else { panic!("{}", wire.escape_ascii()) };
        let (Request::Meta(command) | Request::Store(StoreHeader::Meta(command))) = &cut.request else {
            panic!("{cut:?}")
        };
        let flags: Vec<_> = command.flags().map(|flag| String::from_utf8_lossy(flag)).collect();
        commands.push((command.verb, command.key(&mut None).to_vec(), flags.join(" ")));
        wire = &wire[cut.size()..];
    }
    commands
}

fn told(key: &[u8], is_binary: bool, state: ItemState) -> Vec<(meta::Verb, Vec<u8>, String)> {
    let key = WireKey::new(key, is_binary, PeerKeys::All).expect("fits a line");
    let mut wire = Vec::new();
    set(key, 5, 9, &state, &mut wire);
    wire.extend_from_slice(b"hello");
    set_end(key, &state, &mut wire);
    marks(key, &state, &mut wire);
    delete(key, &mut wire);
    fetch(key, &mut wire);
    touch(key, state.expiry, &mut wire);
    read_back(&wire)
}

fn flags(commands: &[(meta::Verb, Vec<u8>, String)]) -> Vec<&str> {
    commands.iter().map(|(_, _, flags)| flags.as_str()).collect()
}

#[test]
fn what_is_told_is_what_is_read() {
    use meta::Verb;
    let plain = told(b"foo", false, STATE);
    assert_eq!(flags(&plain), ["F9 T0 E7 q", "T0 q", "q", "q", "T0 q"]);
    let verbs: Vec<_> = plain.iter().map(|(verb, _, _)| *verb).collect();
    assert_eq!(verbs, [Verb::Set, Verb::Get, Verb::Delete, Verb::Get, Verb::Get]);
    let stale = ItemState { expiry: Expiry::at(1_800_000_000, 1_700_000_000), stale: true, cas: None, ..STATE };
    let commands = told(b"foo", true, stale);
    let md = "b I T1800000000 q";
    assert_eq!(flags(&commands), ["b F9 T1800000000 q", md, md, "b q", "b q", "b T1800000000 q"]);
    assert!(commands.iter().all(|(_, key, _)| key == b"foo"));
    let renewed = told(b"foo", false, ItemState { win: true, cas: Some(0), ..stale });
    let md = "I T1800000000 q";
    assert_eq!(flags(&renewed), ["F9 T1800000000 q", md, "q", md, "q", "q", "q", "T1800000000 q"]);
    let won = told(b"foo", false, ItemState { win: true, ..STATE });
    let far = "T2147483646 q";
    assert_eq!(flags(&won)[..4], ["F9 T2147483646 E7 q", "R2147483647 T0 q", far, "R2147483647 T0 q"]);
}

#[test]
fn every_key_that_can_be_named_is() {
    for key in [&[b'k'; 250][..], b"a\tb\x7f", b"\xff\xfe"] {
        assert!(told(key, false, STATE).iter().all(|(_, read, flags)| read == key && !flags.contains('b')));
    }
    for key in [b"a b".as_slice(), b"\r", b"a\nb", b"\0", &[b' '; BASE64_KEY_MAX]] {
        assert!(told(key, false, STATE).iter().all(|(_, read, flags)| read == key && flags.contains('b')));
    }
    let long = [b"a b\0\n\r".as_slice(), &[b'k'; 244]].concat();
    for len in BASE64_KEY_MAX + 1..=KEY_MAX {
        assert!(WireKey::new(&long[..len], false, PeerKeys::Short).is_none());
        assert!(
            told(&long[..len], false, STATE).iter().all(|(_, read, flags)| read == &long[..len] && flags.contains('b'))
        );
    }
    // A memcached keeps it under the same bytes, however they were sent.
    let returning = [b"a\rb".as_slice(), &[b'k'; 247]].concat();
    for is_binary in [true, false] {
        let mut wire = Vec::new();
        delete(WireKey::new(&returning, is_binary, PeerKeys::Short).unwrap(), &mut wire);
        assert_eq!(wire, [b"md ", &returning[..], b" q\r\n"].concat());
    }
    let longest = [0xff; BASE64_KEY_MAX];
    assert!(told(&longest, true, STATE).iter().all(|(_, read, _)| read == &longest));
}

#[test]
fn keys_that_break_a_line() {
    for len in 1..40 {
        for at in 0..len {
            for (byte, breaks) in [(b' ', true), (b'\r', true), (b'\n', true), (0, true), (1, false), (0x80, false)] {
                let mut key = vec![b'!'; len];
                assert!(!breaks_a_line(&key));
                key[at] = byte;
                assert_eq!(breaks_a_line(&key), breaks, "{}", key.escape_ascii());
            }
        }
    }
}

#[test]
fn expiries() {
    let times = [0, 1, -5, RELATIVE_MAX, RELATIVE_MAX + 1, 2_147_483_647, 4_000_000_000];
    let expected = [-1, -1, -1, -1, RELATIVE_MAX as i32 + 1, FAR, FAR];
    assert_eq!(times.map(|time| Expiry::at(time, 1_800_000_000).0), expected);
    // A peer that has no date would take these for relative times.
    let times = [i64::MIN, 999, 1000, 1001, RELATIVE_MAX, RELATIVE_MAX + 1];
    let expected = [-1, -1, -1, 1, RELATIVE_MAX as i32 - 1000, RELATIVE_MAX as i32 + 1];
    assert_eq!(times.map(|time| Expiry::at(time, 1000).0), expected);
    assert_eq!(Expiry::at(5, i64::MIN).0, RELATIVE_MAX as i32);
    let mut wire = Vec::new();
    touch(WireKey::new(b"k", false, PeerKeys::Short).unwrap(), Expiry::at(1, 2), &mut wire);
    assert_eq!(wire, b"mg k T-1 q\r\n");
}

#[test]
fn flushes() {
    let mut wire = Vec::new();
    flush(None, &mut wire);
    flush(Some(Expiry::at(1, 2)), &mut wire);
    assert_eq!(wire, b"flush_all noreply\r\nflush_all noreply\r\n");
    wire.clear();
    flush(Some(Expiry::at(1_800_000_000, 1_700_000_000)), &mut wire);
    flush(Some(Expiry::at(50, 20)), &mut wire);
    assert_eq!(wire, b"flush_all 1800000000 noreply\r\nflush_all 30 noreply\r\n");
}
