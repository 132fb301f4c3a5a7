//! Replays what memcached 1.6.45 was recorded to answer (`data/exchanges-1.6.45.txt`), byte for byte.
//!
//! ```text
//!   ==================== GROUP                       one server per group, started with the group's options
//!   label                                            one connection per exchange
//!       > chunk chunk <0.3s> chunk                   what is sent: escaped, k{x251} is 251 times k
//!       < reply   [CLOSED]                           what came back, and whether the server closed
//! ```
//!
//! Where we answer something else on purpose, [`DIFFERENCES`] says what and why, and our own answer is
//! tested instead. An entry that is no longer needed fails.

mod common;

use common::{Conn, DEADLINE, Server, Waited, show};
use std::time::{Duration, Instant};

/// The recording.
const TRANSCRIPT: &str = include_str!("data/exchanges-1.6.45.txt");

/// The server options of each group of the recording. Item sizes and classes were recorded from memcached.
const GROUPS: &[(&str, &[&str])] = &[
    ("default", &[]),
    ("meta", &[]),
    ("binary", &[]),
    ("-B ascii -B ascii", &["-B", "ascii"]),
    ("-B binary -B binary", &["-B", "binary"]),
    ("-F -X -W -F -X -W", &["-F", "-X", "-W"]),
    ("-C -C", &["-C"]),
    ("-A -A", &["-A"]),
    ("-M -m 8? small -M -m 8 -I 1m", &["-M", "-m", "8", "-I", "1m"]),
    (
        "no_lru_crawler etc -o no_lru_crawler,no_lru_maintainer,no_slab_reassign",
        &["-o", "no_lru_crawler,no_lru_maintainer,no_slab_reassign"],
    ),
    ("track_sizes -o track_sizes", &["-o", "track_sizes"]),
    ("-c 3 maxconns -c 1024", &["-c", "1024"]),
    ("-Y -Y AUTHFILE", &["-Y", "AUTHFILE"]),
];

/// Groups whose options are refused until the feature is built in: exit status 64 and a line that says so.
const NOT_BUILT_IN: &[&str] = &[];

/// How one of our answers may differ from the recording.
enum Difference {
    /// The answer names the moment: both sides are compared after this.
    Moment(fn(&str) -> String),
    /// We answer this (escaped, `   [CLOSED]` appended if we close), but for seconds.
    Ours(&'static str),
}
use Difference::{Moment, Ours};

/// (group, label, difference, why).
const DIFFERENCES: &[(&str, &str, Difference, &str)] = &[
    ("default", "stats prefix match", Moment(settings_of_this_build), "port, time; nothing built in for ext_"),
    ("default", "lru_crawler dumps", Moment(dump_in_any_order), "Unix times, and no order is promised"),
    // Upstream's own bugs: an empty line after the error, and the same even where noreply silences the error.
    ("default", "get 251", Ours(r"CLIENT_ERROR bad command line format\r\n"), "no empty line after the error"),
    (
        "default",
        "get ok+251",
        Ours(r"STORED\r\nCLIENT_ERROR bad command line format\r\nVERSION 1.6.45\r\n"),
        "no empty line after the error",
    ),
    ("default", "get noreply err", Ours(r"VERSION 1.6.45\r\n"), "no empty line for an error that is silenced"),
    // Before a login upstream keeps one reply: the next one takes its place, and an end of the connection drops it.
    (
        "-Y -Y AUTHFILE",
        "not set",
        Ours(r"CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n"),
        "one per line",
    ),
    ("-Y -Y AUTHFILE", "ms", Ours(r"CLIENT_ERROR unauthenticated\r\nCLIENT_ERROR unauthenticated\r\n"), "one per line"),
    (
        "-Y -Y AUTHFILE",
        "bad term",
        Ours(r"CLIENT_ERROR bad command line termination\r\n   [CLOSED]"),
        "the reply is sent before the connection is closed",
    ),
    // Upstream swallows the body twice and so eats the packet after it.
    (
        "binary",
        "verbosity 1b",
        Ours(
            r"\x81\x1b\x00\x00\x00\x00\x00\x81\x00\x00\x00\x0f\xde\xad\xbe\xef\x00\x00\x00\x00\x00\x00\x00\x00Unknown command",
        ),
        "the body is swallowed once",
    ),
    // Upstream's me sees b only when another flag follows.
    ("meta", "base64", Ours(BASE64), "me knows its b flag"),
    #[cfg(not(feature = "debug-commands"))]
    ("default", "debugtime", Ours(r"ERROR\r\nERROR\r\nERROR\r\nERROR\r\n"), "recorded from a debug build"),
];

/// As recorded, but for the first `ME` line.
const BASE64: &str = concat!(
    r"HD\r\nVALUE foo 0 2\r\nhi\r\nEND\r\nVA 2 kZm9v b\r\nhi\r\nVA 2 kZm9v b\r\nhi\r\nHD kZm9v b O9 s2\r\n",
    r"CLIENT_ERROR error decoding key\r\nHD\r\nCLIENT_ERROR error decoding key\r\n",
    r"ME Zm9v exp=-1 la=0 cas=9 fetch=yes cls=1 size=64\r\nME Zm9v exp=-1 la=0 cas=9 fetch=yes cls=1 size=64\r\n",
    r"MN\r\nNF kZm9v b\r\nEN kZm9v b\r\n",
);

/// Input that the recording abbreviates, or whose blanks cannot be told from those between chunks.
fn unreadable_input(label: &str) -> Option<Vec<Step>> {
    let chunks: Vec<Vec<u8>> = match label {
        "get line >2048 no LF" => vec![format!("get {}", "k ".repeat(1100)).into(), b"\r\n".into()],
        "spaces then get >2048" => {
            vec![format!("{}get {}", " ".repeat(50), "k ".repeat(1100)).into(), b"\r\n".into()]
        }
        "gat line >2048" => vec![format!("gat 0 {}", "k ".repeat(1100)).into(), b"\r\n".into()],
        "incr leading space" => {
            vec![b"set n 0 0 3\r\n 10\r\n".into(), b"incr n 1\r\n".into(), b"get n\r\n".into()]
        }
        "ascii after binary" => vec![
            common::Packet { opaque: 0xdead_beef, ..common::Packet::new(0x0a, b"", b"") }.request(),
            b"version\r\n".into(),
        ],
        "fill" => fill_small_memory(),
        _ => return None,
    };
    Some(chunks.into_iter().map(Step::Send).collect())
}

fn fill_small_memory() -> Vec<Vec<u8>> {
    let value = "x".repeat(500_000);
    let fill: String = (0..30).map(|i| format!("set k{i} 0 0 500000 noreply\r\n{value}\r\n")).collect();
    vec![
        fill.into(),
        b"version\r\n".into(),
        format!("set z 0 0 500000\r\n{value}\r\n").into(),
        format!("ms z 500000\r\n{value}\r\n").into(),
    ]
}

/// One exchange of the recording.
struct Exchange {
    label: &'static str,
    steps: Vec<Step>,
    reply: Vec<u8>,
    closed: bool,
}

enum Step {
    Send(Vec<u8>),
    Pause(Duration),
}

/// A chunk's reply has begun by now, if there is one.
const FIRST_BYTE: Duration = Duration::from_millis(500);
/// A chunk's reply is over when nothing comes for this long.
const NEXT_BYTE: Duration = Duration::from_millis(5);
/// Nothing more comes after an exchange when nothing has come for this long.
const SURPLUS: Duration = Duration::from_millis(15);

#[test]
fn exchanges() {
    let groups = groups(TRANSCRIPT);
    assert!(groups.iter().map(|group| group.0).eq(GROUPS.iter().map(|group| group.0)), "unknown groups");
    let failures: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> =
            groups.iter().map(|(title, exchanges)| scope.spawn(move || run_group(title, exchanges))).collect();
        running.into_iter().flat_map(|group| group.join().expect("a group's thread")).collect()
    });
    assert!(failures.is_empty(), "{} exchanges differ:\n{}", failures.len(), failures.join("\n"));
}

/// Runs a group's exchanges; what differs.
fn run_group(title: &'static str, exchanges: &[Exchange]) -> Vec<String> {
    let options = GROUPS.iter().find(|group| group.0 == title).expect("a known group").1;
    let folder = common::Folder::new();
    let file = folder.file("users");
    std::fs::write(&file, "user:pass\nuser2:pass2\n").expect("a new file");
    let options = options.iter().map(|&word| if word == "AUTHFILE" { file.as_str() } else { word });
    let args: Vec<&str> = ["-o", "slab_accounting=memcached"].into_iter().chain(options).collect();
    let started = Server::try_start(&args);
    let mut server = match started {
        Ok(server) => server,
        Err(reason) if NOT_BUILT_IN.contains(&title) => return not_built_in(title, &reason),
        Err(reason) => return vec![format!("[{title}] does not start: {reason}")],
    };
    if title.starts_with("-A") {
        server.may_exit();
    }
    exchanges.iter().filter_map(|exchange| difference(title, exchange, &server)).collect()
}

fn not_built_in(title: &str, reason: &str) -> Vec<String> {
    let clear = reason.contains("exit status: 64") && reason.contains("not built in");
    if clear { Vec::new() } else { vec![format!("[{title}] must say that it is not built in: {reason}")] }
}

/// Runs one exchange and compares; None when it is as it must be.
fn difference(title: &str, exchange: &Exchange, server: &Server) -> Option<String> {
    let began = Instant::now();
    let late = || SECONDS + began.elapsed().as_secs() as u32;
    let mut conn = talk(exchange, server);
    // What must come may take its time; nothing more may come after it.
    conn.read_until(DEADLINE, |got| judge(title, exchange, transcribed(got, false), late()).is_none());
    conn.read_until(SURPLUS, |_| false);
    judge(title, exchange, transcribed(&conn.got, conn.closed), late())
}

/// Whether an answer is the recorded one, or the one that [`DIFFERENCES`] has; `late` as in [`same`].
fn judge(title: &str, exchange: &Exchange, ours: String, late: u32) -> Option<String> {
    let theirs = transcribed(&exchange.reply, exchange.closed);
    let listed = DIFFERENCES.iter().find(|entry| entry.0 == title && entry.1 == exchange.label);
    let (expected, actual) = match listed {
        None => (theirs, ours),
        Some((_, _, Moment(normal), _)) => (normal(&theirs), normal(&ours)),
        Some((_, _, Ours(answer), _)) if same(answer, &theirs, late) => ("no entry in DIFFERENCES".into(), ours),
        Some((_, _, Ours(answer), _)) => ((*answer).to_owned(), ours),
    };
    (!same(&expected, &actual, late))
        .then(|| format!("[{title}] {}\n    expected {expected}\n    answered {actual}", exchange.label))
}

/// The script that made the recording, run on our server: `ORACLE_SCRIPT` is its path.
#[test]
#[ignore = "scripts/test.sh runs it where the script is"]
fn the_recordings_own_script() {
    let Ok(script) = std::env::var("ORACLE_SCRIPT") else { return println!("ORACLE_SCRIPT is not set") };
    let mut command = std::process::Command::new("python3");
    command.arg(script).arg(common::under_test()).env("SERVER_ARGS", "-o slab_accounting=memcached");
    let output = command.output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let transcript: &str = String::from_utf8(output.stdout).expect("text").leak();
    let (recorded, ours) = (groups(TRANSCRIPT), groups(transcript));
    assert_eq!(recorded.len(), ours.len(), "groups in {transcript}");
    let mut failures = Vec::new();
    for ((title, recorded), (_, ours)) in recorded.iter().zip(&ours) {
        if ours.is_empty() && NOT_BUILT_IN.contains(title) {
            continue;
        }
        assert_eq!(recorded.len(), ours.len(), "exchanges of {title}: {transcript}");
        let pairs = recorded.iter().zip(ours);
        failures.extend(pairs.filter_map(|(recorded, ours)| {
            assert_eq!(recorded.label, ours.label);
            judge(title, recorded, transcribed(&ours.reply, ours.closed), SECONDS)
        }));
    }
    assert!(failures.is_empty(), "{} exchanges differ:\n{}", failures.len(), failures.join("\n"));
}

/// Sends the chunks of an exchange, each when the reply to the one before has come.
fn talk(exchange: &Exchange, server: &Server) -> Conn {
    let mut conn = server.connect();
    for step in &exchange.steps {
        match step {
            Step::Pause(time) => std::thread::sleep(*time),
            Step::Send(bytes) => conn.send(bytes),
        }
        let before = conn.got.len();
        if matches!(step, Step::Send(_)) && conn.read_until(FIRST_BYTE, |got| got.len() > before) == Waited::Done {
            conn.read_until(NEXT_BYTE, |_| false);
        }
        if conn.closed {
            break;
        }
    }
    conn
}

/// A reply in the recording's notation, but never shortened.
fn transcribed(reply: &[u8], closed: bool) -> String {
    let mut text = String::new();
    for &byte in reply {
        match byte {
            b'\\' => text.push_str(r"\\"),
            b'\r' => text.push_str(r"\r"),
            b'\n' => text.push_str(r"\n"),
            b'\t' => text.push_str(r"\t"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text.push_str(&format!(r"\x{byte:02x}")),
        }
    }
    text + if closed { "   [CLOSED]" } else { "" }
}

/// Lines of `stats settings` that name features which are not built in are left out on both sides, as are
/// values that name the moment.
fn settings_of_this_build(reply: &str) -> String {
    let kept = reply.split_inclusive(r"\r\n").filter(|line| !line.starts_with("STAT ext_"));
    let kept = kept.filter(|line| !line.starts_with("STAT slab_automove_freeratio"));
    kept.map(|line| if line.starts_with("STAT tcpport ") || line.starts_with("STAT oldest ") { "" } else { line })
        .collect()
}

/// The lines of each dump, sorted, without Unix times.
fn dump_in_any_order(reply: &str) -> String {
    let mut out: Vec<String> = Vec::new();
    let mut dump: Vec<String> = Vec::new();
    for line in reply.split(r"\n") {
        if line.starts_with("key=") || line.starts_with("mg ") {
            dump.push(without_unix_times(line));
        } else {
            dump.sort();
            out.append(&mut dump);
            out.push(line.to_owned());
        }
    }
    out.join(r"\n")
}

fn without_unix_times(line: &str) -> String {
    let word = |word: &str| match word.split_once('=') {
        Some((name @ ("exp" | "la"), value)) if value != "-1" => format!("{name}=TIME"),
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Seconds that may pass between two commands of an exchange, besides those that ours takes: the recording waited.
const SECONDS: u32 = 3;

/// Whether two transcribed answers are equal, but for seconds: the recording crossed some, and so may we, `late` at most.
fn same(expected: &str, actual: &str, late: u32) -> bool {
    let words = |text: &str| text.replace(r"\r\n", r" \r\n ").split(' ').map(str::to_owned).collect::<Vec<_>>();
    let (expected, actual) = (words(expected), words(actual));
    expected.len() == actual.len() && expected.iter().zip(&actual).all(|(a, b)| a == b || same_time(a, b, late))
}

/// Seconds left (`t`, `exp=`) and since the last access (`l`, `la=`). `t` of an item that has expired is minus
/// the uptime, as unsigned 32 bits.
fn same_time(expected: &str, actual: &str, late: u32) -> bool {
    ["t", "l", "exp=", "la="].iter().any(|name| {
        let seconds = |word: &str| word.strip_prefix(name)?.parse::<u32>().ok();
        let both = seconds(expected).zip(seconds(actual));
        both.is_some_and(|(a, b)| a.abs_diff(b) <= late || a.min(b) >= 1 << 31)
    })
}

/// A transcript's exchanges, by group.
fn groups(transcript: &'static str) -> Vec<(&'static str, Vec<Exchange>)> {
    let mut groups: Vec<(&str, Vec<Exchange>)> = Vec::new();
    let mut lines = transcript.lines().filter(|line| *line != "  server did not start");
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("==================== ") {
            groups.push((title.trim_end(), Vec::new()));
            continue;
        }
        let (sent, reply) = (lines.next().expect("what was sent"), lines.next().expect("a reply"));
        let exchange = exchange(line.trim_end(), sent, reply);
        groups.last_mut().expect("a group").1.push(exchange);
    }
    groups
}

fn exchange(label: &'static str, sent: &str, reply: &str) -> Exchange {
    let sent = sent.strip_prefix("    > ").expect("a line of what was sent");
    let reply = reply.strip_prefix("    < ").expect("a line of what came back");
    let (reply, closed) = reply.strip_suffix("   [CLOSED]").map_or((reply, false), |reply| (reply, true));
    let steps = unreadable_input(label).unwrap_or_else(|| chunks(sent).map(step).collect());
    Exchange { label, steps, reply: unescaped(reply), closed }
}

fn step(chunk: &str) -> Step {
    let pause = chunk.strip_prefix('<').and_then(|chunk| chunk.strip_suffix("s>"));
    match pause.map(str::parse) {
        Some(Ok(seconds)) => Step::Pause(Duration::from_secs_f64(seconds)),
        _ => Step::Send(abbreviated_in_its_cas(chunk).unwrap_or_else(|| unescaped(chunk))),
    }
}

/// A binary chunk that the recording breaks off inside the last packet's cas, which is 0.
fn abbreviated_in_its_cas(chunk: &str) -> Option<Vec<u8>> {
    let (kept, len) = chunk.strip_suffix(" bytes]")?.split_once("...[")?;
    let kept = kept.strip_suffix(r"\x0").filter(|kept| kept.ends_with(r"\xde\xad\xbe\xef\x00\x00\x00\x00\x00"))?;
    let mut bytes = unescaped(kept);
    bytes.resize(len.parse().expect("a length"), 0);
    Some(bytes)
}

/// Cuts at the blanks between chunks: those before a binary header, else those after a line end or a pause.
fn chunks(sent: &str) -> impl Iterator<Item = &str> {
    let binary = sent.starts_with(r"\x80");
    let mut rest = Some(sent);
    std::iter::from_fn(move || {
        let text = rest?;
        let cut = text.match_indices(' ').map(|(at, _)| at).find(|&at| {
            let (before, after) = (&text[..at], &text[at + 1..]);
            let ended = before.ends_with(r"\n") || (before.starts_with('<') && before.ends_with("s>"));
            if binary { after.starts_with(r"\x80") } else { ended && !after.starts_with(' ') }
        });
        let (chunk, left) = cut.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        rest = left;
        Some(chunk)
    })
}

/// The bytes of escaped text: `\r`, `\x80`, and `k{x251}` for 251 times k.
fn unescaped(text: &str) -> Vec<u8> {
    assert!(!text.contains("...["), "abbreviated in the recording: {text}");
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let (byte, after) = if byte == b'\\' { escape(after) } else { (byte, after) };
        let (times, after) = repeat(after);
        out.extend(std::iter::repeat_n(byte, times));
        rest = after;
    }
    out
}

fn escape(text: &[u8]) -> (u8, &[u8]) {
    match text {
        [b'r', rest @ ..] => (b'\r', rest),
        [b'n', rest @ ..] => (b'\n', rest),
        [b't', rest @ ..] => (b'\t', rest),
        [b'\\', rest @ ..] => (b'\\', rest),
        [b'x', high, low, rest @ ..] => {
            let digits = [*high, *low];
            let digits = std::str::from_utf8(&digits).expect("hex digits");
            (u8::from_str_radix(digits, 16).expect("hex digits"), rest)
        }
        _ => panic!("unknown escape: {}", show(text)),
    }
}

fn repeat(text: &[u8]) -> (usize, &[u8]) {
    let Some(rest) = text.strip_prefix(b"{x") else { return (1, text) };
    let end = rest.iter().position(|&byte| byte == b'}').expect("a closing brace");
    let times = std::str::from_utf8(&rest[..end]).expect("digits").parse().expect("a number of times");
    (times, &rest[end + 1..])
}

#[test]
fn the_notation_is_read_right() {
    let chunks = |text| chunks(text).collect::<Vec<_>>();
    assert_eq!(chunks(r"  get foo\r\n"), [r"  get foo\r\n"]);
    assert_eq!(
        chunks(r"set a 0 0 1\r\nx\r\n get a\r\n <0.3s> mn\r\n"),
        [r"set a 0 0 1\r\nx\r\n", r"get a\r\n", "<0.3s>", r"mn\r\n"]
    );
    assert_eq!(chunks(r"\x80 \x00k \x80$\x00"), [r"\x80 \x00k", r"\x80$\x00"]);
    assert_eq!(unescaped(r"k{x3}\r\n\xff{x2}\\"), b"kkk\r\n\xff\xff\\");
    assert!(same(r"HD t99 l0\r\nHD t4294967229\r\n", r"HD t100 l1\r\nHD t4294967290\r\n", SECONDS));
    assert!(!same(r"HD t99\r\n", r"HD t95\r\n", SECONDS) && !same(r"HD s2\r\n", r"HD s3\r\n", SECONDS));
}
