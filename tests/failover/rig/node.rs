//! A node: a host with a server and its sidecar, and what can happen to them.

use super::clock::Clock;
use super::process::Process;
use crate::common::{Host, signal, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where servers listen,
pub const PORT: u16 = 11211;
/// and sidecars answer HTTP.
const HTTP_PORT: u16 = 9091;

/// Longest wait for an answer over HTTP: a frozen process gives none.
const ANSWER_MAX: Duration = Duration::from_millis(300);

/// See the module's head.
pub struct Node {
    pub name: String,
    pub host: Host,
    pub server: Option<Process>,
    pub sidecar: Option<Process>,
    /// Servers that have run here: the run's id, and its process.
    pub runs: Vec<(String, u32)>,
    /// Its wall clock, if that can be stepped.
    pub clock: Option<Clock>,
    server_words: Vec<String>,
    sidecar_words: Vec<String>,
    folder: PathBuf,
}

impl Node {
    /// A node whose programs do not run yet.
    pub fn new(host: Host, folder: &Path, server: &[String], sidecar: &[String]) -> Node {
        let name = host.name.clone();
        let socket = folder.join(format!("{name}.control"));
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
        let managed = format!("managed,control_socket={}", socket.display());
        let port = PORT.to_string();
        let server_words =
            [&words(&["-u", "root", "-p", &port, "-U", "0", "-m", "256", "-t", "2", "-o", &managed]), server].concat();
        let (unix, address) = (format!("unix:{}", socket.display()), format!("{}:{PORT}", host.ip4));
        let http = format!("0.0.0.0:{HTTP_PORT}");
        let own = ["--server", &unix, "--node", &name, "--advertise", &address, "--http", &http];
        let own = [&own[..], &["--dev", host.interface()]].concat();
        let sidecar_words = [&words(&own), sidecar].concat();
        let (runs, folder, clock) = (Vec::new(), folder.to_owned(), None);
        Node { name, host, server: None, sidecar: None, runs, clock, server_words, sidecar_words, folder }
    }

    /// Starts both.
    pub fn start(&mut self) {
        self.start_server();
        self.start_sidecar();
    }

    /// Starts a server, and waits until it has its control socket.
    pub fn start_server(&mut self) {
        assert!(self.server.is_none(), "{}: one is running", self.name);
        // A killed server leaves it.
        let _ = std::fs::remove_file(self.socket());
        let log = self.folder.join(format!("{}-server.log", self.name));
        let program = crate::common::under_test();
        let mut server = Process::start(&self.host, &program, &self.server_words, &log, self.clock.as_ref());
        let greeting = wait_for("the control socket", || {
            let ended = server.ended();
            assert!(ended.is_none(), "{}: the server ended: {ended:?}", self.name);
            greeting(&self.socket())
        });
        let run = greeting.split(' ').nth(2).expect("a run id").to_owned();
        self.runs.push((run, server.pid()));
        self.server = Some(server);
    }

    /// Starts a sidecar.
    pub fn start_sidecar(&mut self) {
        assert!(self.sidecar.is_none(), "{}: one is running", self.name);
        let log = self.folder.join(format!("{}-sidecar.log", self.name));
        let program = std::env::var("TWINCACHE_SIDECAR");
        let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_twincache-sidecar").to_owned());
        self.sidecar = Some(Process::start(&self.host, &program, &self.sidecar_words, &log, self.clock.as_ref()));
    }

    /// Starts what is not running, lets go on what is frozen, and puts the cable in: what a good operator would do.
    pub fn mend(&mut self) {
        self.host.link_up();
        self.host.heal();
        for process in [&mut self.server, &mut self.sidecar].into_iter().flatten() {
            process.thaw();
        }
        if self.server.is_none() {
            self.start_server();
        }
        // As systemd does it.
        if self.sidecar.as_mut().is_some_and(|sidecar| sidecar.ended().is_some()) {
            self.sidecar = None;
        }
        if self.sidecar.is_none() {
            self.start_sidecar();
        }
    }

    /// kill -9 of the server.
    pub fn kill_server(&mut self) {
        self.server.take().expect("it runs").kill();
    }

    /// kill -9 of the sidecar.
    pub fn kill_sidecar(&mut self) {
        self.sidecar.take().expect("it runs").kill();
    }

    /// kill -9 of both, neither seeing the other go.
    pub fn kill_both(&mut self) {
        let (server, sidecar) = (self.server.take().expect("it runs"), self.sidecar.take().expect("it runs"));
        signal(sidecar.pid(), "STOP");
        server.kill();
        sidecar.kill();
    }

    /// Freezes the server.
    pub fn freeze_server(&mut self) {
        self.server.as_mut().expect("it runs").freeze();
    }

    /// Freezes the sidecar.
    pub fn freeze_sidecar(&mut self) {
        self.sidecar.as_mut().expect("it runs").freeze();
    }

    /// Lets go on what is frozen.
    pub fn thaw(&mut self) {
        [&mut self.server, &mut self.sidecar].into_iter().flatten().for_each(Process::thaw);
    }

    /// Whether its sidecar says, over HTTP and on the host itself, that it is primary.
    pub fn is_primary(&self) -> bool {
        self.status("/primary") == Some(200)
    }

    /// The status that the sidecar answers to a path. None if nobody answers.
    pub fn status(&self, path: &str) -> Option<u16> {
        let answer = self.host.inside(|| http(([127, 0, 0, 1], HTTP_PORT).into(), path)).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.control", self.name))
    }
}

fn greeting(socket: &Path) -> Option<String> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(ANSWER_MAX)).ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    line.starts_with("twincache 1 ").then_some(line)
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, ANSWER_MAX)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(stream)
}

fn http(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
