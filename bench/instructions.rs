//! Counts what a request costs in instructions of its worker, and holds that against a table of what it has cost.
//!
//! ```text
//! cargo bench --bench instructions                 fails where a request costs over 50 % more than recorded
//! cargo bench --bench instructions -- --record     writes the table, bench/instructions.txt, anew
//! cargo bench --bench instructions -- --price      what measuring latency and hot keys costs a request
//!
//! valgrind --tool=callgrind twincached -t 1   <── one connection, the same requests each time
//!     └─ a dump before and after them, by thread: the worker's is the one that did most in all
//! ```
//!
//! Time depends on the machine and on who else is on it. Instructions in user mode repeat to the last one, but for
//! the compiler's version and what background work meets, so that a small loss can be seen and a large one stops a
//! build. They say nothing of caches, locks or the kernel.
//!
//! Not here: what a request costs in time (`speed`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/instructions.txt");

/// How much more than recorded a request may cost: compilers differ by some percent, and so does what the C library
/// copies with on other processors.
const MARGIN: f64 = 1.5;

const KEYS: usize = 1000;
const VALUE: [u8; 100] = [b'x'; 100];

/// What is expected where any byte may come.
const ANY: u8 = b'?';

/// Before counting, and counted.
const WARMUP: usize = 320;
const REQUESTS: usize = 3200;

/// Requests in a batch of the pipelined ones, and keys of a multiget.
const PIPELINE: usize = 16;
const MULTIGET: usize = 100;

/// The program starts slowly under valgrind.
const START_MAX: Duration = Duration::from_secs(300);

/// Puts requests for these keys, sent at once, into the first buffer, and what is to come back into the second.
type Batch = fn(&mut dyn Iterator<Item = String>, &mut Vec<u8>, &mut Vec<u8>);

/// What is counted: a name, how many keys go into a batch, and how it looks.
const WORKLOADS: &[(&str, usize, Batch)] = &[
    ("get", 1, get),
    ("get, 16 pipelined", PIPELINE, get),
    ("set", 1, set),
    ("set, 16 pipelined", PIPELINE, set),
    ("get of 100 keys, per key", MULTIGET, multiget),
    ("mg", 1, meta_get),
    ("mg, 16 pipelined", PIPELINE, meta_get),
    ("ms, 16 pipelined", PIPELINE, meta_set),
    ("binary get", 1, binary_get),
    ("binary get, 16 pipelined", PIPELINE, binary_get),
    ("binary set, 16 pipelined", PIPELINE, binary_set),
];

/// From this one on they are sent on a connection of their own: the first byte decides what a connection speaks.
const FIRST_BINARY: &str = "binary get";

fn get(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    for key in keys {
        request.extend(format!("get {key}\r\n").bytes());
        push_value(&key, reply);
        reply.extend(b"END\r\n");
    }
}

fn multiget(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    request.extend(b"get");
    for key in keys {
        request.extend(format!(" {key}").bytes());
        push_value(&key, reply);
    }
    request.extend(b"\r\n");
    reply.extend(b"END\r\n");
}

fn push_value(key: &str, reply: &mut Vec<u8>) {
    reply.extend(format!("VALUE {key} 0 {}\r\n", VALUE.len()).bytes());
    reply.extend(VALUE);
    reply.extend(b"\r\n");
}

fn set(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    for key in keys {
        request.extend(format!("set {key} 0 0 {}\r\n", VALUE.len()).bytes());
        request.extend(VALUE);
        request.extend(b"\r\n");
        reply.extend(b"STORED\r\n");
    }
}

fn meta_get(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    for key in keys {
        request.extend(format!("mg {key} v\r\n").bytes());
        reply.extend(format!("VA {}\r\n", VALUE.len()).bytes());
        reply.extend(VALUE);
        reply.extend(b"\r\n");
    }
}

fn meta_set(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    for key in keys {
        request.extend(format!("ms {key} {}\r\n", VALUE.len()).bytes());
        request.extend(VALUE);
        request.extend(b"\r\n");
        reply.extend(b"HD\r\n");
    }
}

fn binary_get(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    for key in keys {
        push_packet([0x80, 0x00], 0, &[], &key, &[], request);
        push_packet([0x81, 0x00], ANY, &[0; 4], "", &VALUE, reply);
    }
}

fn binary_set(keys: &mut dyn Iterator<Item = String>, request: &mut Vec<u8>, reply: &mut Vec<u8>) {
    for key in keys {
        push_packet([0x80, 0x01], 0, &[0; 8], &key, &VALUE, request);
        push_packet([0x81, 0x01], ANY, &[], "", &[], reply);
    }
}

/// A packet: magic and opcode, lengths, an opaque of 0, eight bytes of cas, the rest.
fn push_packet(start: [u8; 2], cas: u8, extras: &[u8], key: &str, value: &[u8], packet: &mut Vec<u8>) {
    packet.extend(start);
    packet.extend((key.len() as u16).to_be_bytes());
    packet.extend([extras.len() as u8, 0, 0, 0]);
    packet.extend(((extras.len() + key.len() + value.len()) as u32).to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([cas; 8]);
    for part in [extras, key.as_bytes(), value] {
        packet.extend(part);
    }
}

fn main() -> ExitCode {
    let is_given = |option: &str| std::env::args().any(|argument| argument == option);
    if !cfg!(target_arch = "x86_64") {
        println!("instructions are recorded for x86-64 only: skipped");
        return ExitCode::SUCCESS;
    }
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("valgrind is not installed: skipped");
        return ExitCode::SUCCESS;
    }
    let done = match () {
        () if is_given("--price") => price(),
        () if is_given("--record") => count(&[]).and_then(|counts| write_table(&counts)),
        () => count(&[]).and_then(|counts| compare(&counts)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("instructions: {message}");
            ExitCode::FAILURE
        }
    }
}

/// By workload, in its order.
type Counts = Vec<(&'static str, f64)>;

fn write_table(counts: &Counts) -> Result<(), String> {
    let mut text = String::from("# Instructions per request: cargo bench --bench instructions -- --record\n");
    for (name, count) in counts {
        println!("{name:<26} {count:>8.0}");
        let written = writeln!(text, "{name}\t{count:.0}");
        debug_assert!(written.is_ok(), "a String takes everything");
    }
    std::fs::write(TABLE, text).map_err(|error| format!("{TABLE}: {error}"))
}

fn compare(counts: &Counts) -> Result<(), String> {
    let text = std::fs::read_to_string(TABLE).map_err(|error| format!("{TABLE}: {error}"))?;
    let entry =
        |line: &str| line.split_once('\t').and_then(|(name, count)| Some((name.to_owned(), count.parse().ok()?)));
    let recorded: BTreeMap<String, f64> = text.lines().filter_map(entry).collect();
    println!("{:<26} {:>8} {:>8}", "instructions per request", "now", "recorded");
    let mut above = Vec::new();
    for (name, now) in counts {
        let before = *recorded.get(*name).ok_or_else(|| format!("{name} is not in {TABLE}: record it"))?;
        println!("{name:<26} {now:>8.0} {before:>8.0} {:>+5.0} %", (now / before - 1.0) * 100.0);
        if *now > before * MARGIN {
            above.push(*name);
        }
    }
    if above.is_empty() { Ok(()) } else { Err(format!("too many for: {}", above.join("; "))) }
}

/// Prints what a request costs with each part of what the server measures, and by how much that is above nothing at all.
fn price() -> Result<(), String> {
    const WITHOUT: [(&str, &[&str]); 4] = [
        ("both off", &["-o", "no_latency,no_hotkeys"]),
        ("latency", &["-o", "no_hotkeys"]),
        ("hot keys", &["-o", "no_latency"]),
        ("both", &[]),
    ];
    let mut all = Vec::new();
    for (name, options) in WITHOUT {
        eprintln!(".. counting instructions: {name}");
        all.push(count(options)?);
    }
    let heads = WITHOUT.map(|(name, _)| format!("{name:>16}")).concat();
    println!("{:<26}{heads}", "instructions per request");
    for (at, (name, off)) in all[0].iter().enumerate() {
        let more = all[1..].iter().map(|counts| counts[at].1);
        let cells: String = more.map(|now| format!("{now:>8.0} {:>+5.1} %", (now / off - 1.0) * 100.0)).collect();
        println!("{name:<26}{off:>16.0}{cells}");
    }
    println!();
    Ok(())
}

/// Of a server with these options.
fn count(options: &[&str]) -> Result<Counts, String> {
    let mut server = Server::start(options)?;
    let mut client = Client { stream: server.connect()?, next: 0 };
    client.run(1, set, KEYS)?;
    for (name, batch, requests) in WORKLOADS {
        if *name == FIRST_BINARY {
            client.stream = server.connect()?;
        }
        client.run(*batch, *requests, WARMUP)?;
        server.dump()?;
        client.run(*batch, *requests, REQUESTS)?;
        server.dump()?;
    }
    let parts = server.parts()?;
    let mut by_thread = BTreeMap::new();
    parts.iter().for_each(|(&(_, thread), count)| *by_thread.entry(thread).or_insert(0) += count);
    let (&worker, _) = by_thread.iter().max_by_key(|(_, count)| **count).ok_or("no thread has done anything")?;
    // Dump 1 is up to the first workload's begin, dump 2 is that workload, and so on.
    let of = |at: usize| parts.get(&(2 * at + 2, worker)).copied().unwrap_or(0) as f64 / REQUESTS as f64;
    Ok(WORKLOADS.iter().enumerate().map(|(at, (name, ..))| (*name, of(at))).collect())
}

/// Asks for the same keys in the same order each time.
struct Client {
    stream: TcpStream,
    next: usize,
}

impl Client {
    fn run(&mut self, batch: usize, requests: Batch, keys: usize) -> Result<(), String> {
        let (mut request, mut expected, mut reply) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..keys / batch {
            request.clear();
            expected.clear();
            let first = self.next;
            self.next = (first + batch) % KEYS;
            let mut keys = (first..first + batch).map(|key| format!("{:020}", key % KEYS));
            requests(&mut keys, &mut request, &mut expected);
            reply.resize(expected.len(), 0);
            self.stream.write_all(&request).map_err(|error| error.to_string())?;
            self.stream.read_exact(&mut reply).map_err(|error| error.to_string())?;
            if !reply.iter().zip(&expected).all(|(byte, expected)| byte == expected || *expected == ANY) {
                return Err(format!("a wrong answer: {}", String::from_utf8_lossy(&reply)));
            }
        }
        Ok(())
    }
}

/// The server under valgrind. It ends with this value, and its folder, too.
struct Server {
    child: Child,
    folder: PathBuf,
}

impl Server {
    fn start(options: &[&str]) -> Result<Server, String> {
        let folder = std::env::temp_dir().join(format!("twincache-instructions-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--separate-threads=yes"]);
        command.arg(format!("--callgrind-out-file={}", folder.join("out").display()));
        command.arg(env!("CARGO_BIN_EXE_twincached"));
        // The user stays the same, or valgrind could not be asked for dumps.
        command.args(["-t", "1", "-m", "100", "-U", "0", "-l", "127.0.0.1", "-u", "root", "-p", "-1"]);
        command.args(options);
        // It picks its port and writes it down: one that was free could be another's by the time it starts.
        command.env("MEMCACHED_PORT_FILENAME", folder.join("port"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("valgrind: {error}"))?;
        Ok(Server { child, folder })
    }

    fn connect(&mut self) -> Result<TcpStream, String> {
        let end = Instant::now() + START_MAX;
        loop {
            if let Some(port) = self.port() {
                let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| error.to_string())?;
                stream.set_nodelay(true).map_err(|error| error.to_string())?;
                stream.set_read_timeout(Some(START_MAX)).map_err(|error| error.to_string())?;
                return Ok(stream);
            }
            if self.child.try_wait().is_ok_and(|status| status.is_some()) || Instant::now() > end {
                return Err("the server does not start under valgrind".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Of the line `TCP INET: <port>`.
    fn port(&self) -> Option<u16> {
        let text = std::fs::read_to_string(self.folder.join("port")).ok()?;
        text.strip_prefix("TCP INET: ")?.trim().parse().ok()
    }

    /// Writes what was counted since the last dump, and begins anew.
    fn dump(&self) -> Result<(), String> {
        let pid = format!("--pid={}", self.child.id());
        let asked = Command::new("vgdb").args([&pid, "dump"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        match asked {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("vgdb: {status}")),
            Err(error) => Err(format!("vgdb: {error}")),
        }
    }

    /// Instructions by dump and thread, from files `out.<dump>-<thread>`.
    fn parts(&self) -> Result<BTreeMap<(usize, usize), u64>, String> {
        let files = std::fs::read_dir(&self.folder).map_err(|error| error.to_string())?;
        Ok(files.filter_map(|file| part(&file.ok()?.path())).collect())
    }
}

fn part(path: &Path) -> Option<((usize, usize), u64)> {
    let (dump, thread) = path.file_name()?.to_str()?.strip_prefix("out.")?.split_once('-')?;
    let text = std::fs::read_to_string(path).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "))?;
    Some(((dump.parse().ok()?, thread.parse().ok()?), total.trim().parse().ok()?))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing can be done about a process or files that are gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
