//! Sends what memcached 1.6.45 was recorded to answer on lines and packets that are wrong, or odd, in every place
//! (`data/malformed-1.6.45.txt`): word counts, numbers, noreply, pairs of bad flags, binary lengths that do not fit.
//!
//! ```text
//!   < reply                what came before the answers to a blank line and to `mn`, or to a no-op, which follow each case
//!   = reply [silent]       all that came; `[silent]` nothing more, `[CLOSED]` the server closed
//!   set k1 0/ab/           a case: a connection of its own, where `n1` is 10 and `k1` is `ab`
//!   1b 4 2 6               a packet: opcode, bytes of extras, key and body
//! ```
//!
//! A reply stands before the cases that got it, one after the other as they were sent. `/` is a line end, `!` is
//! `CLIENT_ERROR `, `~` a zero byte, `k{x251}` is 251 times k, `{04}text` a packet of that status and nothing else. `#`
//! and `<cas....` stand for numbers that differ from run to run.
//!
//! Where we answer something else on purpose, [`DIFFERENCES`] says what and why, and our own answer is tested instead.
//! A row that is no longer needed fails.

mod common;

use common::{Conn, DEADLINE, Packet, Server};
use std::time::{Duration, Instant};

/// The recording.
const ROWS: &str = include_str!("data/malformed-1.6.45.txt");

/// What upstream does wrong: the cases, our answer to them, and why it is not upstream's.
const DIFFERENCES: &[(&[&str], &str, &str)] = &[
    (
        &["get k{x251}/", "gets k{x251}/", "gat 0 k{x251}/", "gats 0 k{x251}/"],
        "!bad command line format/",
        "upstream sends an empty line after the error, which clients take for the next reply",
    ),
    (
        &["1b 8 2 12", "1b 4 2 6", "1b 20 2 22", "1b 0 2 2", "1b 9 2 13", "1b 8 0 8", "1b 4 0 4", "1b 24 2 26"],
        "{81}Unknown command",
        "verbosity: upstream lacks it, and drops so much that it takes the next packet along",
    ),
    (
        &["30 8 2 12", "30 4 2 6", "30 20 2 22", "30 0 2 2", "30 9 2 13", "30 8 0 8", "30 4 0 4", "30 24 2 26"],
        "{81}Unknown command",
        "a range command: the same",
    ),
    (
        &["60 8 2 12", "60 4 2 6", "60 20 2 22", "60 0 2 2", "60 9 2 13", "60 8 0 8", "60 4 0 4", "60 24 2 26"],
        "{81}Unknown command",
        "ElastiCache's config get, which we have: the same",
    ),
];

/// Cases with items, or a flush_all, of one second, which may end between two of their requests: what is wrong of them must
/// be so again.
const OF_A_SECOND: &[&str] = &[
    "set e1 0 1 1/v/get e1/",
    "set e2 0 0 1/v/flush_all 1/get e2/touch e2 1/get e2/flush_all 0/",
    "ms e3 1 T1/v/mg e3 v/",
    "gat 1 e3/",
    "mg e3 v T1/get e3/",
];

/// Most cases that may differ.
const DIFFERENT_MAX: usize = 60;

/// The opaque of each case's packet, and that of the no-op behind it.
const OPAQUE: u32 = 0xdead_beef;
const BARRIER_OPAQUE: u32 = 0xfeed_face;

/// Nothing more comes when nothing has come for this long.
const SURPLUS: Duration = Duration::from_millis(15);

/// The crawler has just begun to crawl by itself, as memcached's does: the case is sent again.
const BUSY: &[u8] = b"BUSY currently processing crawler request\r\n";

/// How long a reply may take once one has failed: the others are only to be listed then.
const SHORT: Duration = Duration::from_secs(1);

#[test]
fn malformed() {
    let different = DIFFERENCES.iter().flat_map(|row| row.0);
    assert!(different.clone().count() <= DIFFERENT_MAX);
    let named = different.chain(OF_A_SECOND);
    let unknown: Vec<_> = named.filter(|&case| !cases().any(|(known, _)| known == *case)).collect();
    assert!(unknown.is_empty(), "not in the recording: {unknown:?}");
    assert!(cases().count() > 4_500, "{} cases", cases().count());
    let mut wrong = failures();
    if !wrong.is_empty() && wrong.iter().all(|(case, _)| OF_A_SECOND.contains(case)) {
        wrong = failures();
    }
    let lines: Vec<_> = wrong.iter().map(|(case, how)| format!("{case}{how}")).collect();
    assert!(lines.is_empty(), "{} cases differ:\n{}", lines.len(), lines.join("\n"));
}

/// Sends all cases to a new server; those whose answers are not as they must be, and how they are.
fn failures() -> Vec<(&'static str, String)> {
    let server = Server::start(&["-o", "slab_accounting=memcached"]);
    let mut failures = Vec::new();
    for (case, reply) in cases() {
        let patience = if failures.is_empty() { DEADLINE } else { SHORT };
        failures.extend(difference(case, reply, &server, patience).map(|how| (case, how)));
    }
    failures
}

/// The cases, each with the line of its reply.
fn cases() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut reply = "";
    ROWS.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        if line.starts_with(['<', '=']) {
            reply = line;
            return None;
        }
        Some((line, reply))
    })
}

/// Runs a case; None when the answer is as it must be.
fn difference(case: &str, reply: &str, server: &Server, patience: Duration) -> Option<String> {
    let recorded = Answer::of(case, reply);
    let ours = DIFFERENCES.iter().find(|row| row.0.contains(&case));
    let expected = ours.map_or_else(|| recorded.clone(), |row| Answer::of(case, &format!("< {}", row.1)));
    if ours.is_some() && expected == recorded {
        return Some(": no row of DIFFERENCES is needed".to_owned());
    }
    let end = Instant::now() + patience;
    let answer = loop {
        let answer = answer(case, &expected, server, patience);
        if answer == expected || !answer.bytes.starts_with(BUSY) || Instant::now() > end {
            break answer;
        }
        std::thread::sleep(SURPLUS);
    };
    (answer != expected).then(|| format!("\n    expected {expected:?}\n    answered {answer:?}"))
}

/// What comes back, and how it ends.
#[derive(Clone, PartialEq)]
struct Answer {
    bytes: Vec<u8>,
    closed: bool,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", common::show(&self.bytes), if self.closed { " [CLOSED]" } else { "" })
    }
}

impl Answer {
    /// The answer to a case that a line of replies says.
    fn of(case: &str, line: &str) -> Answer {
        let (kind, text) = line.split_at(2);
        let is_whole = kind == "= ";
        let (text, closed) = text.strip_suffix(" [CLOSED]").map_or((text, false), |text| (text, true));
        let mut bytes = read_reply(case, text.strip_suffix(" [silent]").unwrap_or(text));
        if !is_whole {
            bytes.extend(barrier(case).1);
        }
        Answer { bytes, closed }
    }
}

/// What follows each case, and what is answered to it.
fn barrier(case: &str) -> (Vec<u8>, Vec<u8>) {
    match packet(case) {
        None => (b"\r\nmn\r\n".to_vec(), b"CLIENT_ERROR bad command line format\r\nMN\r\n".to_vec()),
        Some(_) => {
            let noop = Packet { opaque: BARRIER_OPAQUE, ..Packet::new(0x0a, b"", b"") }.request();
            let mut reply = noop.clone();
            reply[0] = 0x81;
            (noop, reply)
        }
    }
}

/// Sends a case, and what follows each case, on a connection of its own.
fn answer(case: &str, expected: &Answer, server: &Server, patience: Duration) -> Answer {
    let mut conn = server.connect();
    let (request, is_binary) = match packet(case) {
        Some(packet) => (packet, true),
        None => {
            conn.ask(b"set n1 0 0 2\r\n10\r\nset k1 0 0 2\r\nab\r\n", b"STORED\r\nSTORED\r\n");
            (read_notation(case), false)
        }
    };
    conn.got.clear();
    conn.send(&[request, barrier(case).0].concat());
    let normal = |got: &[u8]| if is_binary { without_cas(got) } else { without_numbers(got) };
    conn.read_until(patience, |got| normal(got).len() >= expected.bytes.len() && !expected.closed);
    // What a number hides may be cut short, and a silent one must stay silent.
    let is_over = |conn: &Conn| conn.closed || normal(&conn.got).ends_with(&barrier(case).1);
    if !is_over(&conn) {
        conn.read_until(SURPLUS, |_| false);
    }
    Answer { bytes: normal(&conn.got), closed: conn.closed }
}

/// The packet that a case describes; None when it is a line.
fn packet(case: &str) -> Option<Vec<u8>> {
    let words: Vec<&str> = case.split(' ').collect();
    let [opcode, extras, key, body] = words[..] else { return None };
    let opcode = u8::from_str_radix(opcode, 16).ok().filter(|_| opcode.len() == 2)?;
    let (extras, key, body): (u8, u16, u32) = (extras.parse().ok()?, key.parse().ok()?, body.parse().ok()?);
    let mut bytes = vec![0x80, opcode];
    bytes.extend(key.to_be_bytes());
    bytes.extend([extras, 0, 0, 0]);
    bytes.extend(body.to_be_bytes());
    bytes.extend(OPAQUE.to_be_bytes());
    bytes.extend([0; 8]);
    let fill = [vec![0; extras.into()], vec![b'k'; key.into()], vec![b'v'; body as usize]].concat();
    bytes.extend(&fill[..body as usize]);
    Some(bytes)
}

/// The bytes of a reply in the notation of the recording.
fn read_reply(case: &str, text: &str) -> Vec<u8> {
    let refused = text.strip_prefix('{').and_then(|text| text.split_once('}'));
    let Some((status, message)) = refused else { return read_notation(&text.replace('!', "CLIENT_ERROR ")) };
    let opcode = packet(case).expect("a packet")[1];
    let status = u8::from_str_radix(status, 16).expect("a status");
    let mut bytes = vec![0x81, opcode, 0, 0, 0, 0, 0, status];
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(OPAQUE.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(message.as_bytes());
    bytes
}

/// The bytes that the recording's notation stands for.
fn read_notation(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some(char) = rest.chars().next() {
        let mut len = 1;
        match char {
            '/' => bytes.extend(b"\r\n"),
            '~' => bytes.push(0),
            '\\' if rest.as_bytes()[1] == b'x' => {
                len = 4;
                bytes.push(u8::from_str_radix(&rest[2..4], 16).expect("two digits"));
            }
            '\\' => {
                len = 2;
                bytes.push(match rest.as_bytes()[1] {
                    b'r' => b'\r',
                    b'n' => b'\n',
                    b't' => b'\t',
                    other => other,
                });
            }
            '{' if rest.starts_with("{x") => {
                len = rest.find('}').expect("a closing brace") + 1;
                let times: usize = rest[2..len - 1].parse().expect("a number of times");
                bytes.extend(vec![*bytes.last().expect("what is repeated"); times - 1]);
            }
            _ => bytes.push(char as u8),
        }
        rest = &rest[len..];
    }
    bytes
}

/// A text reply with `#` for what differs from run to run: seconds since an access, and cas numbers.
fn without_numbers(reply: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), reply);
    while let Some((&byte, after)) = rest.split_first() {
        let names: [(&[u8], usize); 3] = [(b"la=", 1), (b"cas=", 1), (b"c", 2)];
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        match names.iter().find(|(name, least)| rest.starts_with(name) && digits(name.len()) >= *least) {
            Some((name, _)) => {
                out.extend([name, &b"#"[..]].concat());
                rest = &rest[name.len() + digits(name.len())..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

/// Packets with `<cas....` for each cas number but 0.
fn without_cas(replies: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (replies.to_vec(), 0);
    while let Some((_, len)) = Packet::reply(&replies[at..]) {
        let cas = &mut out[at + 16..at + 24];
        if cas != [0; 8] {
            cas.copy_from_slice(b"<cas....");
        }
        at += len;
    }
    out
}

#[test]
fn the_notation_is_read_right() {
    assert_eq!(read_notation(r"get k{x3}~\xff\n/"), b"get kkk\0\xff\n\r\n");
    assert_eq!(without_numbers(b"ME a la=12 cas=7 c1 c12 c\r\n"), b"ME a la=# cas=# c1 c# c\r\n");
    let refused = Answer::of("1b 4 0 4", "= {81}no [CLOSED]");
    assert_eq!(refused.bytes, b"\x81\x1b\0\0\0\0\0\x81\0\0\0\x02\xde\xad\xbe\xef\0\0\0\0\0\0\0\0no");
    assert!(refused.closed && packet("get 0 1 2").is_none());
    assert_eq!(packet("1b 1 2 4").unwrap()[24..], *b"\0kkv");
}
