//! A server under measurement: started on its own CPU, asked over its port, watched through /proc, ended on drop.
//!
//! Not here: load (`load`), what is measured (`speed`, `memory`, `time`).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The CPU that servers run on. The load runs on the other: [`pin_self`].
pub const SERVER_CPU: &str = "0";
pub const LOAD_CPU: &str = "1";

/// How long a server may take to accept connections.
const START_MAX: Duration = Duration::from_secs(20);

/// A server that has run for less than a hundredth of this has nothing to do.
const SETTLE: Duration = Duration::from_millis(300);

/// How long an answer to a command may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A server that can be started.
#[derive(Clone, Debug)]
pub struct Program {
    /// What it is called in tables.
    pub name: String,
    path: PathBuf,
    arguments: Vec<String>,
    is_floor: bool,
    is_nice: bool,
}

impl Program {
    pub fn twincached(path: Option<String>) -> Program {
        let path = path.unwrap_or_else(|| env!("CARGO_BIN_EXE_twincached").into());
        Program { name: "twincached".into(), path: path.into(), arguments: Vec::new(), is_floor: false, is_nice: false }
    }

    pub fn memcached(path: Option<String>) -> Program {
        let path = path.unwrap_or_else(|| "memcached".into());
        Program { name: "memcached".into(), path: path.into(), arguments: Vec::new(), is_floor: false, is_nice: false }
    }

    /// The floor, which is a part of this program, under one of its names.
    pub fn floor(name: &str) -> Result<Program, String> {
        let path = std::env::current_exe().map_err(|error| error.to_string())?;
        Ok(Program { name: name.into(), path, arguments: vec!["floor".into()], is_floor: true, is_nice: false })
    }

    /// The same with further options, which become part of its name.
    pub fn with(mut self, arguments: &[&str]) -> Program {
        self.name = format!("{} {}", self.name, arguments.join(" "));
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// What it says of its version; None when it cannot be run.
    pub fn version(&self) -> Option<String> {
        let output = Command::new(&self.path).arg("-V").output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_string())
    }

    /// Starts it with one worker, pinned, and waits until it accepts.
    pub fn start(&self, arguments: &[&str]) -> Result<Server, String> {
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CPU]).arg(&self.path);
        if !self.is_floor {
            command.args(["-t", "1"]);
        }
        self.launch(command, arguments)
    }

    /// Starts it with two workers, wherever they run, and waits until it accepts.
    pub fn start_wide(&self, arguments: &[&str]) -> Result<Server, String> {
        let mut command = Command::new("taskset");
        command.args(["-c", &format!("{SERVER_CPU},{LOAD_CPU}")]).arg(&self.path).args(["-t", "2"]);
        self.launch(command, arguments)
    }

    /// The same that takes what others leave of the CPUs.
    pub fn nice(mut self) -> Program {
        self.is_nice = true;
        self
    }

    /// Starts it on these CPUs.
    pub fn start_on(&self, cpus: &str, arguments: &[&str]) -> Result<Server, String> {
        let mut command = Command::new("nice");
        command.args(["-n", if self.is_nice { "19" } else { "0" }]);
        command.args(["taskset", "-c", cpus]).arg(&self.path).args(["-t", "1"]);
        self.launch(command, arguments)
    }

    /// Starts the sidecar that lies beside it.
    pub fn sidecar(&self, cpus: &str, arguments: &[&str]) -> Result<Process, String> {
        let path = self.path.with_file_name("twincache-sidecar");
        let child = Command::new("taskset").args(["-c", cpus]).arg(&path).args(arguments).spawn();
        Ok(Process(child.map_err(|error| format!("cannot start {}: {error}", path.display()))?))
    }

    /// Starts it as it is, and says how long it took until it answered.
    pub fn start_timed(&self, arguments: &[&str]) -> Result<(Server, Duration), String> {
        let begin = Instant::now();
        let server = self.launch(Command::new(&self.path), arguments)?;
        server.ask("get nothing")?;
        Ok((server, begin.elapsed()))
    }

    fn launch(&self, mut command: Command, arguments: &[&str]) -> Result<Server, String> {
        let address = free_address()?;
        command.args(&self.arguments).args(["-p", &address.port().to_string()]).args(arguments);
        if !self.is_floor {
            command.args(["-l", "127.0.0.1", "-U", "0"]);
            if is_root() {
                command.args(["-u", "nobody"]);
            }
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let child = child.map_err(|error| format!("cannot start {}: {error}", self.path.display()))?;
        let mut server = Server { child: Process(child), address, waited: Cell::new(0) };
        server.wait(&self.name)?;
        Ok(server)
    }
}

/// An address that was free a moment ago.
pub fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    field(&status, "Uid:").is_some_and(|uid| uid == 0)
}

/// Moves this process, and what it starts later, to the CPU that servers leave alone.
pub fn pin_self() -> Result<(), String> {
    pin(LOAD_CPU, &std::process::id().to_string())
}

/// Moves the calling thread to a CPU.
pub fn pin_thread(cpu: &str) -> Result<(), String> {
    let path = std::fs::read_link("/proc/thread-self").map_err(|error| error.to_string())?;
    pin(cpu, &path.file_name().unwrap_or_default().to_string_lossy())
}

fn pin(cpu: &str, thread: &str) -> Result<(), String> {
    let status = Command::new("taskset").args(["-cp", cpu, thread]).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        _ => Err("taskset does not work here, or there is no second CPU".into()),
    }
}

/// A running process. It ends with this value.
pub struct Process(Child);

impl Process {
    /// Nanoseconds that it has run so far.
    pub fn cpu_ns(&self) -> u64 {
        cpu_ns(self.0.id())
    }

    /// Lets it stand still.
    pub fn stop(&self) -> Result<(), String> {
        let status = Command::new("kill").args(["-STOP", &self.0.id().to_string()]).status();
        if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err("kill does not work here".into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a process that is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server. It ends with this value.
pub struct Server {
    child: Process,
    pub address: SocketAddr,
    /// How long its threads had waited for a CPU when it was told to count from then on.
    waited: Cell<u64>,
}

impl Server {
    fn wait(&mut self, name: &str) -> Result<(), String> {
        let end = Instant::now() + START_MAX;
        while TcpStream::connect(self.address).is_err() {
            if let Ok(Some(status)) = self.child.0.try_wait() {
                return Err(format!("{name} did not start: {status}"));
            }
            if Instant::now() > end {
                return Err(format!("{name} accepts no connections"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// Nanoseconds that it has run so far.
    pub fn cpu_ns(&self) -> u64 {
        cpu_ns(self.pid())
    }

    /// The same of those of its threads that have this name.
    pub fn thread_ns(&self, name: &str) -> u64 {
        schedstat(self.pid(), 0, name)
    }

    /// Bytes of memory that it has in use.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        field(&status, "VmRSS:").unwrap_or(0) * 1024
    }

    /// Sends a line; the lines of the answer, up to one that ends it.
    pub fn ask(&self, line: &str) -> Result<Vec<String>, String> {
        Session::open(self.address)?.ask(line)
    }

    /// What a `stats` command answers. Empty where there is no such command.
    pub fn stats(&self, of: &str) -> BTreeMap<String, String> {
        let lines = self.ask(format!("stats {of}").trim_end()).unwrap_or_default();
        let pair = |line: &String| {
            let (name, value) = line.strip_prefix("STAT ")?.split_once(' ')?;
            Some((name.to_string(), value.to_string()))
        };
        lines.iter().filter_map(pair).collect()
    }

    /// How long its threads have waited for a CPU that others had, since it counts.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(schedstat(self.pid(), 1, "").saturating_sub(self.waited.get()))
    }

    /// Lets it count from now on.
    pub fn reset(&self) {
        self.waited.set(schedstat(self.pid(), 1, ""));
        // A server that does not answer will be noticed by the load.
        let _ = self.ask("stats reset");
    }

    /// Items that it holds.
    pub fn items(&self) -> u64 {
        self.stats("").get("curr_items").and_then(|items| items.parse().ok()).unwrap_or(0)
    }

    /// Waits until it has nothing to do any more: its table is as large as it wants to be, memory is put in order.
    pub fn settle(&self) {
        let end = Instant::now() + Duration::from_secs(30);
        while self.stats("").get("hash_is_expanding").is_some_and(|v| v != "0") && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut before = self.cpu_ns();
        while Instant::now() < end {
            std::thread::sleep(SETTLE);
            let now = self.cpu_ns();
            if now - before < SETTLE.as_nanos() as u64 / 100 {
                return;
            }
            before = now;
        }
    }
}

/// Nanoseconds that a process's threads have run so far, by the scheduler's accounting.
pub fn cpu_ns(pid: u32) -> u64 {
    schedstat(pid, 0, "")
}

/// The sum of a field of its threads of this name, or of all: 0 is nanoseconds on a CPU, 1 those waiting for one.
fn schedstat(pid: u32, field: usize, name: &str) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let run = |path: PathBuf| {
        if !name.is_empty() && std::fs::read_to_string(path.join("comm")).ok()?.trim_end() != name {
            return None;
        }
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().nth(field)?.parse::<u64>().ok()
    };
    tasks.filter_map(|task| run(task.ok()?.path())).sum()
}

/// The first number behind a name in a file of /proc.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A connection for commands.
pub struct Session {
    reader: BufReader<TcpStream>,
}

impl Session {
    pub fn open(address: SocketAddr) -> Result<Session, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        stream.set_read_timeout(Some(ANSWER_MAX)).map_err(|error| error.to_string())?;
        Ok(Session { reader: BufReader::with_capacity(512, stream) })
    }

    /// Sends a line; the lines of the answer.
    pub fn ask(&mut self, line: &str) -> Result<Vec<String>, String> {
        let failed = |error: std::io::Error| format!("{line}: {error}");
        self.reader.get_mut().write_all(format!("{line}\r\n").as_bytes()).map_err(failed)?;
        let mut lines = Vec::new();
        loop {
            let mut answer = String::new();
            if self.reader.read_line(&mut answer).map_err(failed)? == 0 {
                return Err(format!("{line}: the server closed the connection"));
            }
            let answer = answer.trim_end().to_string();
            let more = answer.starts_with("STAT ") || answer.starts_with("VALUE ");
            lines.push(answer);
            if !more {
                return Ok(lines);
            }
        }
    }
}
