//! What the end-to-end tests share: a server under test, connections with deadlines, binary packets and a
//! replayable random number generator.
//!
//! ```text
//!   Server::start(args) ──spawn──> $TWINCACHED, or the twincached that cargo built
//!   Server::reference(args) ─────> Debian's memcached, if it is installed
//!        | drop: killed by its pid; a server that has died before is a failure, and its stderr is shown
//! ```
//!
//! Invariants: everything runs on 127.0.0.1 with a port that was free; nothing waits without a deadline, and no test
//! fails because the machine is slow: a deadline only ends what hangs.
#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this file")]

mod browser;
mod etcd;
mod folder;
mod netns;
mod pair;
mod rng;
mod running;
mod sidecar;
mod terminal;
mod tls;

pub use browser::Browser;
pub use etcd::EtcdServer;
pub use folder::Folder;
pub use netns::{Host, Net};
pub use pair::PairNode;
pub use rng::Rng;
pub use running::{Running, address};
pub use sidecar::{Sidecar, get};
pub use terminal::{GIVEN_BACK, TAKEN, Terminal};
pub use tls::{Pki, RecordWriter, ThinWire, TlsConn};

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use twincache::sys::process::{Resource, limit, set_limit};

/// Longest wait for anything that is certain to come, on a machine that has much else to do.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Lets any server's sidecar feed a server.
pub const FED_BY: &str = "standby=0.0.0.0/0";

/// Where Debian installs the memcached that we compare with.
pub const REFERENCE: &str = "/usr/bin/memcached";

/// A running server; killed when dropped.
pub struct Server {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where its port file is.
    pub folder: Folder,
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    may_exit: bool,
}

impl Server {
    /// Starts the server under test on a free port and waits until it listens.
    pub fn start(args: &[&str]) -> Server {
        Server::start_in(Folder::new(), args)
    }

    /// As [`Server::start`], in this folder.
    pub fn start_in(folder: Folder, args: &[&str]) -> Server {
        start_binary(&under_test(), folder, args, &[])
            .unwrap_or_else(|failure| panic!("twincached {args:?}: {failure}"))
    }

    /// As [`Server::start`], of this program, with more environment.
    pub fn start_program(program: &str, args: &[&str], environment: &[(&str, String)]) -> Server {
        start_binary(program, Folder::new(), args, environment)
            .unwrap_or_else(|failure| panic!("{program} {args:?}: {failure}"))
    }

    /// As [`Server::start`]; a server that exits is an answer: its status and stderr.
    pub fn try_start(args: &[&str]) -> Result<Server, String> {
        start_binary(&under_test(), Folder::new(), args, &[])
    }

    /// Debian's memcached, or None where it is not installed.
    pub fn reference(args: &[&str]) -> Option<Server> {
        let start = || start_binary(REFERENCE, Folder::new(), args, &[]);
        let is_there = Path::new(REFERENCE).exists();
        is_there.then(|| start().unwrap_or_else(|failure| panic!("{REFERENCE} {args:?}: {failure}")))
    }

    /// The server under test, with these options alone, which may not be listening yet.
    pub fn spawn(folder: Folder, args: &[&str]) -> Server {
        Server::run(command(&under_test(), args), folder).expect("twincached")
    }

    fn run(mut command: Command, folder: Folder) -> std::io::Result<Server> {
        command.env("MEMCACHED_PORT_FILENAME", folder.file("ports")).current_dir(folder.path());
        let mut child = command.spawn()?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let reader = collect(child.stderr.take().unwrap(), Arc::clone(&stderr));
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Server { addr, folder, child, stderr, reader: Some(reader), may_exit: false })
    }

    /// A connection to it.
    pub fn connect(&self) -> Conn {
        Conn::to(self.addr)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// Its listening sockets, as `TCP INET` or `UDP INET` and the port, when it has written them down.
    pub fn ports(&self) -> Vec<(String, u16)> {
        let text = wait_for("the port file", || std::fs::read_to_string(self.folder.file("ports")).ok());
        let ports = text.lines().map(|line| line.split_once(": ").expect("NAME: PORT"));
        ports.map(|(name, port)| (name.to_owned(), port.trim().parse().expect("a port"))).collect()
    }

    /// What a line of a file in /proc/PID has behind `name`.
    pub fn proc_line(&self, file: &str, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).expect("the server is alive");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
    }

    /// KiB of memory, by their name in /proc/PID/status.
    pub fn memory_kb(&self, name: &str) -> u64 {
        self.proc_line("status", name).split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Waits for it to exit by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.may_exit = true;
        wait_for("the server to stop", || self.child.try_wait().unwrap())
    }

    /// Waits for it to exit by itself: its exit code, and all that it wrote to stderr.
    pub fn exit(&mut self) -> (Option<i32>, String) {
        let status = self.wait();
        let _ = self.reader.take().map(JoinHandle::join);
        (status.code(), self.stderr())
    }

    /// Sends it a signal that ends it, and waits: as [`Server::exit`].
    pub fn stop(&mut self, name: &str) -> (Option<i32>, String) {
        signal(self.pid(), name);
        self.exit()
    }

    /// From now on its exit is not a failure.
    pub fn may_exit(&mut self) {
        self.may_exit = true;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let died = self.child.try_wait().ok().flatten();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if let (Some(status), false) = (died, self.may_exit) {
            let message = format!("the server died: {status}\n{}", self.stderr());
            if std::thread::panicking() {
                eprintln!("{message}");
            } else {
                panic!("{message}");
            }
        }
    }
}

/// The binary under test.
pub fn under_test() -> String {
    let given = std::env::var("TWINCACHED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_twincached").to_owned());
    let path = std::path::absolute(given).expect("a path");
    path.to_str().expect("UTF-8").to_owned()
}

/// Whether these tests run as root: memcached then asks for `-u`.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// How many of the descriptors that are wanted this process, and so a child of it, can have; asks for them at once.
pub fn descriptors_possible(wanted: u64) -> usize {
    let (soft, hard) = limit(Resource::Files).expect("the limit of descriptors");
    if soft < wanted && (hard >= wanted || set_limit(Resource::Files, wanted, wanted).is_err()) {
        set_limit(Resource::Files, hard.min(wanted), hard).expect("up to the hard limit");
    }
    limit(Resource::Files).expect("the limit of descriptors").0.min(wanted) as usize
}

/// A command that runs a server with these words, as root if we are root and the words name nobody else.
pub fn command(binary: &str, words: &[&str]) -> Command {
    let mut command = Command::new(binary);
    if is_root() && !words.contains(&"-u") {
        command.args(["-u", "root"]);
    }
    command.args(words).env_remove("MEMCACHED_PORT_FILENAME");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The server picks its port and writes it down: one that we found free could be another's by now. To try whether it
/// accepts connections would leave one that it counts.
fn start_binary(binary: &str, folder: Folder, args: &[&str], environment: &[(&str, String)]) -> Result<Server, String> {
    // Sidecars of tests may feed what is ours, but for who says who may.
    let is_told = args.iter().any(|arg| arg.contains("managed") || arg.contains("standby="));
    let fed: &[&str] = if is_told || binary.ends_with("memcached") { &[] } else { &["-o", FED_BY] };
    let args = [&["-l", "127.0.0.1", "-p", "-1", "-U", "0"], fed, args].concat();
    let mut command = command(binary, &args);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let started = Server::run(command, folder);
    let mut server = started.map_err(|error| format!("cannot start {binary}: {error}"))?;
    let port = wait_for("the server to say where it listens, or to exit", || {
        // With -d the process that we started exits, well, at once.
        match server.child.try_wait().unwrap().filter(|status| !status.success()) {
            Some(status) => Some(Err(status)),
            None => written_port(&server.folder.file("ports")).map(Ok),
        }
    });
    match port {
        Ok(port) => server.addr.set_port(port),
        Err(status) => return Err(format!("exited at once: {status}\n{}", server.exit().1)),
    }
    Ok(server)
}

/// The port of the line `TCP INET: <port>`.
fn written_port(file: &str) -> Option<u16> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("TCP INET: ")?.trim().parse().ok())
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut piece) {
            into.lock().unwrap().extend_from_slice(&piece[..n]);
        }
    })
}

/// How a wait for input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Done,
    /// Nothing (more) came in time.
    Quiet,
    /// The server closed the connection.
    Closed,
}

/// A client's connection: what was received and not yet taken is in `got`.
pub struct Conn {
    stream: TcpStream,
    /// Received bytes.
    pub got: Vec<u8>,
    /// The server has closed.
    pub closed: bool,
}

impl Conn {
    /// Connects.
    pub fn to(addr: SocketAddr) -> Conn {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("connect");
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Conn { stream, got: Vec::new(), closed: false }
    }

    /// Where it comes from.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Sends all of it, reading what arrives meanwhile only if the server does not take it at once. A server
    /// that has closed is seen by the next read.
    pub fn send(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.write_some(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(_) => return,
            }
        }
    }

    /// A blocking write could wait for ever for a server that itself waits for us to read.
    fn write_some(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let end = Instant::now() + DEADLINE;
        self.stream.set_nonblocking(true)?;
        let result = loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(Instant::now() < end, "the server does not take its input");
                    self.stream.set_nonblocking(false)?;
                    self.receive(Duration::from_millis(1));
                    self.stream.set_nonblocking(true)?;
                }
                other => break other,
            }
        };
        self.stream.set_nonblocking(false)?;
        result
    }

    /// Reads until `done` says so of all that was received, the server closes, or nothing comes for `quiet`.
    pub fn read_until(&mut self, quiet: Duration, mut done: impl FnMut(&[u8]) -> bool) -> Waited {
        loop {
            if done(&self.got) {
                return Waited::Done;
            }
            match self.receive(quiet) {
                Waited::Done => {}
                ended => return ended,
            }
        }
    }

    /// Reads once.
    pub fn receive(&mut self, timeout: Duration) -> Waited {
        if self.closed {
            return Waited::Closed;
        }
        self.stream.set_read_timeout(Some(timeout)).unwrap();
        let mut piece = [0; 65536];
        let read = loop {
            match self.stream.read(&mut piece) {
                // A process that was stopped and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(0) => self.closed = true,
            Ok(n) => self.got.extend_from_slice(&piece[..n]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Waited::Quiet,
            Err(_) => self.closed = true,
        }
        if self.closed { Waited::Closed } else { Waited::Done }
    }

    /// Sends a text command and takes its reply, which must end with `end`.
    pub fn ask(&mut self, command: &[u8], end: &[u8]) -> Vec<u8> {
        self.send(command);
        let waited = self.read_until(DEADLINE, |got| got.ends_with(end));
        assert_eq!(waited, Waited::Done, "{}: got {}", show(command), show(&self.got));
        std::mem::take(&mut self.got)
    }

    /// Sends a text command and takes its reply of one line.
    pub fn line(&mut self, command: &str) -> String {
        let reply = self.ask(format!("{command}\r\n").as_bytes(), b"\r\n");
        String::from_utf8_lossy(&reply).trim_end().to_owned()
    }

    /// `stats` or one of its sub-commands, as (name, value) in order.
    pub fn stats(&mut self, argument: &str) -> Vec<(String, String)> {
        let reply = self.ask(format!("stats {argument}\r\n").as_bytes(), b"END\r\n");
        let text = String::from_utf8(reply).expect("stats are text");
        let stats = text.lines().filter_map(|line| line.strip_prefix("STAT "));
        stats.filter_map(|line| line.split_once(' ')).map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// One row of `stats` or of a sub-command, if it is there.
    pub fn find_stat(&mut self, argument: &str, name: &str) -> Option<String> {
        self.stats(argument).into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// One row of `stats` or of a sub-command.
    pub fn stat(&mut self, argument: &str, name: &str) -> String {
        self.find_stat(argument, name).unwrap_or_else(|| panic!("stats {argument} has no {name}"))
    }

    /// One row that is a number.
    pub fn number(&mut self, argument: &str, name: &str) -> u64 {
        let value = self.stat(argument, name);
        value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
    }

    /// Waits for this reply and takes it.
    pub fn expect(&mut self, reply: &str) {
        let waited = self.read_until(DEADLINE, |got| got.len() >= reply.len());
        assert_eq!(show(&std::mem::take(&mut self.got)), show(reply.as_bytes()), "{waited:?}");
    }

    /// Says that no more comes, and reads until the server closes.
    pub fn finish(&mut self) {
        // It may have closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
        let waited = self.read_until(DEADLINE, |_| false);
        assert_eq!(waited, Waited::Closed, "not closed after the end of its input: {}", show(&self.got));
    }

    /// Waits until the server closes the connection, and says nothing before.
    pub fn expect_end(&mut self) {
        assert_eq!(self.read_until(DEADLINE, |got| !got.is_empty()), Waited::Closed, "{}", show(&self.got));
    }
}

/// Bytes as a person can read them; runs and long texts are shortened.
pub fn show(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = bytes;
    while let Some(&byte) = rest.first() {
        let run = rest.iter().take_while(|next| **next == byte).count();
        let (shown, taken) = if run > 20 { (1, run) } else { (run, run) };
        (0..shown).for_each(|_| text.push_str(&byte.escape_ascii().to_string()));
        if shown < taken {
            text.push_str(&format!("{{x{run}}}"));
        }
        rest = &rest[taken..];
    }
    if text.len() <= 600 {
        return text;
    }
    format!("{} ... {} [{} bytes]", &text[..400], &text[text.len() - 150..], bytes.len())
}

/// A binary request or reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Operation.
    pub op: u8,
    /// vbucket of a request, status of a reply.
    pub status: u16,
    /// Opaque.
    pub opaque: u32,
    /// Cas.
    pub cas: u64,
    /// Extras.
    pub extras: Vec<u8>,
    /// Key.
    pub key: Vec<u8>,
    /// Value.
    pub value: Vec<u8>,
}

/// Length of a binary header.
pub const HEADER: usize = 24;

impl Packet {
    /// A request without value.
    pub fn new(op: u8, key: &[u8], extras: &[u8]) -> Packet {
        Packet { op, key: key.to_vec(), extras: extras.to_vec(), ..Packet::default() }
    }

    /// The bytes of a request.
    pub fn request(&self) -> Vec<u8> {
        self.encode(0x80)
    }

    fn encode(&self, magic: u8) -> Vec<u8> {
        let body = self.extras.len() + self.key.len() + self.value.len();
        let mut out = vec![magic, self.op];
        out.extend_from_slice(&(self.key.len() as u16).to_be_bytes());
        out.extend_from_slice(&[self.extras.len() as u8, 0]);
        out.extend_from_slice(&self.status.to_be_bytes());
        out.extend_from_slice(&(body as u32).to_be_bytes());
        out.extend_from_slice(&self.opaque.to_be_bytes());
        out.extend_from_slice(&self.cas.to_be_bytes());
        for part in [&self.extras, &self.key, &self.value] {
            out.extend_from_slice(part);
        }
        out
    }

    /// The reply at the start of `bytes` and its length; None while it is not complete.
    pub fn reply(bytes: &[u8]) -> Option<(Packet, usize)> {
        let header: &[u8; HEADER] = bytes.first_chunk()?;
        assert_eq!(header[0], 0x81, "not a binary reply: {}", show(bytes));
        let (key, extras) = (usize::from(u16::from_be_bytes([header[2], header[3]])), usize::from(header[4]));
        let body = u32::from_be_bytes(*header[8..].first_chunk()?) as usize;
        let end = HEADER + body;
        let body = bytes.get(HEADER..end)?;
        let packet = Packet {
            op: header[1],
            status: u16::from_be_bytes([header[6], header[7]]),
            opaque: u32::from_be_bytes(*header[12..].first_chunk()?),
            cas: u64::from_be_bytes(*header[16..].first_chunk()?),
            extras: body[..extras].to_vec(),
            key: body[extras..extras + key].to_vec(),
            value: body[extras + key..].to_vec(),
        };
        Some((packet, end))
    }
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// Looks until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a signal to a process that a test started.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "cannot signal {pid}");
}

/// Stops a process, and returns when the last of its threads stands still: `kill` returns long before.
pub fn freeze(pid: u32) {
    signal(pid, "STOP");
    let stands = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
    };
    until("all threads to stop", || std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").all(stands));
}

/// A port of 127.0.0.1 where nobody listens, for who cannot be told to let the kernel choose. The kernel gives it to nobody
/// who does: those are above 32,767, and one of them could be another test's a moment later.
pub fn spare_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap();
    loop {
        let port = 10_000 + (RandomState::new().hash_one(()) % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return port;
        }
    }
}

/// A number from the environment, such as a seed.
pub fn from_env(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// `seed` from the environment variable, or one that differs from run to run.
pub fn seed(name: &str) -> u64 {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    from_env(name).unwrap_or_else(|| now().as_nanos() as u64 % 1_000_000_000)
}
