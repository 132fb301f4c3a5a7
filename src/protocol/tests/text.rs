//! Lines of the text protocol, whole and cut, good and bad.

use super::*;
use crate::protocol::line::parse;

fn reply(line: &[u8]) -> (String, u64) {
    match parse(line, 0) {
        Parsed::Bad(Bad { reply: Refusal::Line(reply), swallow, .. }) => {
            (String::from_utf8(reply.to_vec()).unwrap(), swallow)
        }
        other => panic!("{}: {other:?}", line.escape_ascii()),
    }
}

#[test]
fn refusals() {
    let format = String::from_utf8(BAD_FORMAT.to_vec()).unwrap();
    for line in ["\r\n", "\n", "a\r\n", "mn\n", "get\r\n", "get \r\n", "gat 0\r\n", "set\r\n", "set foo 0 0\r\n"] {
        assert_eq!(reply(line.as_bytes()), (format.clone(), 0), "{line:?}");
    }
    for line in ["set foo 0 0 -1\r\n", "set foo 0 0 +5\r\n", "set foo 0 0 2147483646\r\n", "touch t\r\n"] {
        assert_eq!(reply(line.as_bytes()), (format.clone(), 0), "{line:?}");
    }
    for line in ["set foo a 0 3\r\n", "set foo 0 abc 3\r\n", "cas cc 0 0 3\r\n", "cas cc 0 0 3 -1\r\n"] {
        assert_eq!(reply(line.as_bytes()), (format.clone(), 5), "{line:?}");
    }
    assert_eq!(reply(b"set foo a 0 3 noreply\r\n"), (String::new(), 5));
    assert_eq!(reply(b"gat abc foo\r\n").0, "CLIENT_ERROR invalid exptime argument\r\n");
    assert_eq!(reply(b"incr n -1\r\n").0, "CLIENT_ERROR invalid numeric delta argument\r\n");
    assert_eq!(reply(b"  get foo\r\n").0, "ERROR\r\n");
    assert_eq!(reply(b"GET foo\r\n").0, "ERROR\r\n");
    assert_eq!(reply(b"foo bar noreply\r\n").0, "");
}

#[test]
fn a_get_taken_up_again_is_the_same() {
    for line in [&b"get a b\r\nx"[..], b"get  a  b \nget c\r\n", b"gets a b\r\n", b"gat  5 a b\r\n", b"gats -1 a\r\n"] {
        let Parsed::Request(Cut { request: Request::Text(TextCommand::Get(first)), head, .. }) = parse(line, 0) else {
            panic!()
        };
        let Request::Text(TextCommand::Get(again)) = get_again(line, head).request else { panic!() };
        // What is left of a line is counted from its end.
        assert!(token::words(first.keys).eq(token::words(again.keys)));
        assert_eq!(first.keys.as_ptr_range().end, again.keys.as_ptr_range().end);
        assert_eq!((first.with_cas, first.exptime), (again.with_cas, again.exptime));
    }
}

#[test]
fn http_closes() {
    let Parsed::Bad(bad) = parse(b"POST /a HTTP/1.0\r\n", 0) else { panic!() };
    assert!(bad.close && bad.reply == Refusal::Line(b""));
}

#[test]
fn long_keys() {
    let key = "k".repeat(251);
    for line in [format!("get {key}\r\n"), format!("get a {key} b\r\n"), format!("delete {key}\r\n")] {
        assert_eq!(reply(line.as_bytes()).0.as_bytes(), BAD_FORMAT);
    }
    assert_eq!(reply(format!("set {key} 0 0 1\r\n").as_bytes()).1, 3);
    assert!(matches!(parse(format!("get {}\r\n", &key[..250]).as_bytes(), 0), Parsed::Request(_)));
}

#[test]
fn compat_noreply_argument() {
    let Parsed::Request(Cut { request: Request::Text(TextCommand::Delete { key, quiet }), .. }) =
        parse(b"delete noreply\r\n", 0)
    else {
        panic!()
    };
    assert_eq!((key, quiet), (b"noreply".as_slice(), true));
    for word in ["incr", "decr", "touch"] {
        assert_eq!(reply(format!("{word} k noreply\r\n").as_bytes()).0, "");
        assert_eq!(reply(format!("{word} noreply\r\n").as_bytes()).0.as_bytes(), BAD_FORMAT);
    }
}

#[test]
fn compat_store_format() {
    for line in ["set k 0 0 x noreply\r\n", "set k 0 0 noreply\r\n", "set noreply\r\n"] {
        assert_eq!(reply(line.as_bytes()), (String::from_utf8(BAD_FORMAT.to_vec()).unwrap(), 0));
    }
    assert_eq!(reply(b"set k x 0 1 noreply\r\n"), (String::new(), 3));
}

#[test]
fn compat_leading_spaces() {
    for word in ["flush_all", "verbosity 1", "slabs automove 1", "lru mode flat", "lru_crawler enable", "shutdown"] {
        assert!(matches!(parse(format!("   {word}\r\n").as_bytes(), 0), Parsed::Request(_)), "{word}");
    }
    for word in ["get a", "version", "stats", "delete a"] {
        assert_eq!(reply(format!(" {word}\r\n").as_bytes()).0.as_bytes(), UNKNOWN);
    }
}

#[test]
fn compat_delete_words() {
    for line in [&b"delete a\r\n"[..], b"delete a 5\r\n", b"delete a 0 noreply\r\n", b"delete a b c d e\r\n"] {
        assert!(matches!(parse(line, 0), Parsed::Request(_)));
    }
}

#[test]
fn a_common_line_is_what_its_tokens_say() {
    let numbers = ["0", "007", "4294967295", "4294967296", "2147483648", "99999999999", "-1", "+1", "1a", ""];
    let ends = ["", " noreply", " 5", " 5 noreply", " ", "  noreply", " noreply "];
    let keys = ["key".to_owned(), String::new(), "k".repeat(250), "k".repeat(251)];
    let mut common = 0;
    for case in 0..keys.len() * ends.len() * numbers.len().pow(3) {
        let (rest, key) = (case / keys.len(), &keys[case % keys.len()]);
        let (rest, end) = (rest / ends.len(), ends[rest % ends.len()]);
        let number = |power| numbers[rest / numbers.len().pow(power) % numbers.len()];
        let line = format!("set {key} {} {} {}{end}", number(0), number(1), number(2));
        common += usize::from(is_common_and_the_same(format!("{line}\r\n").as_bytes()));
        common += usize::from(is_common_and_the_same(format!("{line}\n").as_bytes()));
    }
    assert!(common > 20, "{common}");
    let keys = ["k", "key-of-8", "k\u{e9}y of", "k\ry", "k\ty", "", " ", &"k".repeat(250), &"k".repeat(251)];
    let common = keys.iter().filter(|key| is_common_and_the_same(format!("get {key}\r\nget a\r\n").as_bytes()));
    assert_eq!(common.count(), 3);
    assert!(!is_common_and_the_same(b"get k\n") && !is_common_and_the_same(b"gets k\r\n"));
}

/// Whether a line is a common one; panics when it is parsed differently as a line like any other.
fn is_common_and_the_same(input: &[u8]) -> bool {
    let common = parse_common(input);
    if let Some(cut) = &common {
        let Parsed::Request(any) = parse(input, 0) else { panic!("{}", input.escape_ascii()) };
        assert_eq!(format!("{cut:?}"), format!("{any:?}"), "{}", input.escape_ascii());
    }
    common.is_some()
}

#[test]
fn lines_without_end_are_partial() {
    assert!(matches!(parse(b"get foo", 0), Parsed::Partial { need: 0 }));
    assert!(matches!(parse(b"get foo\r\n", 7), Parsed::Request(Cut { head: 9, .. })));
}
