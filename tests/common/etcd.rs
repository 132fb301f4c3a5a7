//! A real etcd, if it is installed.

use super::{DEADLINE, Folder, signal, spare_port, wait_for};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use twincache::cluster::Etcd;
use twincache::cluster::options::EtcdOptions;

/// Where Debian installs it.
const BINARY: &str = "/usr/bin/etcd";

/// A running member; killed when dropped.
pub struct EtcdServer {
    /// `http://127.0.0.1:PORT`, or https.
    pub url: String,
    folder: Folder,
    words: Vec<String>,
    child: Child,
}

impl EtcdServer {
    /// Starts one that stands alone, on free ports of 127.0.0.1, with these options too, and waits until it listens.
    /// None, and a line that says so, where it is not installed.
    pub fn start(options: &[&str]) -> Option<EtcdServer> {
        EtcdServer::start_with("http", options)
    }

    /// As [`EtcdServer::start`], for clients that come with TLS.
    pub fn start_secure(options: &[&str]) -> Option<EtcdServer> {
        EtcdServer::start_with("https", options)
    }

    fn start_with(scheme: &str, options: &[&str]) -> Option<EtcdServer> {
        if !EtcdServer::is_installed() {
            return None;
        }
        // A port that was free may be another's by now.
        for _ in 0..10 {
            let [client, peer] = spare_ports();
            let (client, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let cluster = format!("default={peer}");
            let words = [&alone(&client, &peer, &cluster)[..], options].concat();
            let mut server = EtcdServer::spawn(client.clone(), &words);
            if server.await_port() {
                return Some(server);
            }
        }
        panic!("etcd does not start");
    }

    /// Three members that know each other, of which a majority is there.
    pub fn start_three() -> Option<[EtcdServer; 3]> {
        if !EtcdServer::is_installed() {
            return None;
        }
        // As with one.
        let servers = (0..10).find_map(|_| EtcdServer::try_three(spare_ports()));
        Some(servers.expect("three members of etcd do not start"))
    }

    fn try_three(ports: [u16; 6]) -> Option<[EtcdServer; 3]> {
        let peer = |at: usize| format!("http://127.0.0.1:{}", ports[at + 3]);
        let cluster = [0, 1, 2].map(|at| format!("m{at}={}", peer(at))).join(",");
        let mut servers = [0, 1, 2].map(|at| {
            let client = format!("http://127.0.0.1:{}", ports[at]);
            let (name, peer) = (format!("m{at}"), peer(at));
            let words = [&alone(&client, &peer, &cluster)[..], &["--name", &name]].concat();
            EtcdServer::spawn(client.clone(), &words)
        });
        servers.iter_mut().all(EtcdServer::await_port).then_some(servers)
    }

    /// Whether it is; says so in one line if not.
    pub fn is_installed() -> bool {
        let is_there = Path::new(BINARY).exists();
        if !is_there {
            println!("no {BINARY}: skipped");
        }
        is_there
    }

    fn spawn(url: String, words: &[&str]) -> EtcdServer {
        let folder = Folder::new();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let child = run(&folder, &words);
        EtcdServer { url, folder, words, child }
    }

    /// A client of it.
    pub fn client(&self) -> Etcd {
        Etcd::new(&self.options()).expect("a client")
    }

    /// The options of a client of it.
    pub fn options(&self) -> EtcdOptions {
        EtcdOptions { endpoints: vec![self.url.clone()], ..EtcdOptions::default() }
    }

    /// Ends it as a power cut does; its data stay.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on the same ports and with its data.
    pub fn restart(&mut self) {
        self.kill();
        self.child = run(&self.folder, &self.words);
        assert!(self.await_port(), "etcd does not start again: {}", self.log());
    }

    /// Freezes it; [`EtcdServer::thaw`] goes on.
    pub fn freeze(&self) {
        signal(self.child.id(), "STOP");
    }

    pub fn thaw(&self) {
        signal(self.child.id(), "CONT");
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).unwrap_or_default()
    }

    /// Waits until it serves clients; false if it has exited.
    fn await_port(&mut self) -> bool {
        let address: SocketAddr = self.url.rsplit('/').next().unwrap().parse().unwrap();
        wait_for("etcd to listen", || {
            if self.child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let is_ready = self.log().contains("serving client traffic");
            (is_ready && TcpStream::connect_timeout(&address, DEADLINE).is_ok()).then_some(true)
        })
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("the end of etcd's log:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

fn alone<'a>(client: &'a str, peer: &'a str, cluster: &'a str) -> [&'a str; 13] {
    [
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
        "--initial-cluster",
        cluster,
        "--logger=zap",
        "--heartbeat-interval=50",
        "--election-timeout=500",
    ]
}

fn run(folder: &Folder, words: &[String]) -> Child {
    let log = File::create(folder.file("log")).expect("a log");
    Command::new(BINARY)
        .args(["--data-dir", &folder.file("data")])
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("etcd starts")
}

fn spare_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| spare_port())
}
