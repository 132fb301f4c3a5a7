//! One etcd or three, each on a host of its own, and what stands in them.

use super::process::Process;
use super::slow::Slow;
use crate::common::{Folder, Host, Net, until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Where clients reach it,
const PORT: u16 = 2379;
/// other members,
const PEER_PORT: u16 = 2380;
/// and those clients whose answers can be made late.
const SLOW_PORT: u16 = 2378;

/// See the module's head.
pub struct Etcds {
    pub members: Vec<Etcd>,
}

/// One of them.
pub struct Etcd {
    pub host: Host,
    words: Vec<String>,
    process: Option<Process>,
    slow: Slow,
    log: std::path::PathBuf,
    data: Folder,
}

impl Etcds {
    /// Starts so many, and waits until they answer.
    pub fn start(net: &Net, count: usize, logs: &Path) -> Etcds {
        let hosts: Vec<Host> = (0..count).map(|number| net.host(&format!("e{number}"))).collect();
        let peers: Vec<String> =
            hosts.iter().map(|host| format!("{}=http://{}:{PEER_PORT}", host.name, host.ip4)).collect();
        let peers = peers.join(",");
        let members = hosts.into_iter().map(|host| Etcd::start(host, &peers, logs)).collect();
        let etcds = Etcds { members };
        until("etcd answers", || etcds.ask(&["endpoint", "health"]).is_some());
        etcds
    }

    /// What `--etcd` is to say: all of them, by the relays that can make them slow.
    pub fn urls(&self) -> String {
        let url = |member: &Etcd| format!("http://{}:{SLOW_PORT}", member.host.ip4);
        self.members.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// From now on answers are late by so much.
    pub fn delay(&self, delay: Duration) {
        self.members.iter().for_each(|member| member.slow.delay(delay));
    }

    /// Stops them all.
    pub fn stop(&mut self) {
        self.members.iter_mut().for_each(Etcd::stop);
    }

    /// Starts those that are stopped, and waits until they answer.
    pub fn resume(&mut self) {
        self.members.iter_mut().for_each(Etcd::resume);
        until("etcd answers again", || self.ask(&["endpoint", "health"]).is_some());
    }

    /// Runs etcdctl on the first one's host; what it prints.
    pub fn ask(&self, words: &[&str]) -> Option<String> {
        let mut command = self.members[0].host.command("etcdctl");
        command.args(["--command-timeout=2s", "--endpoints", &self.endpoints()]).args(words).env("ETCDCTL_API", "3");
        let output = command.stdin(Stdio::null()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Keeps what they hold, for [`Etcds::put_back`].
    pub fn back_up(&mut self) {
        self.stop();
        self.members.iter().for_each(|member| member.copy("data", "backup"));
        self.resume();
    }

    /// Kills them, and starts them with what was kept.
    pub fn put_back(&mut self) {
        self.stop();
        self.members.iter().for_each(|member| member.copy("backup", "data"));
        self.resume();
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<Value> {
        serde_json::from_str(&self.ask(&["get", "--print-value-only", key])?).ok()
    }

    /// All values that a key has had, the oldest first.
    pub fn history(&self, key: &str) -> Vec<Value> {
        let answer = self.ask(&["get", "-w", "json", key]).expect("etcd answers");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let Some(last) = answer["kvs"][0]["mod_revision"].as_u64() else { return Vec::new() };
        let mut watch = self.members[0].host.command("etcdctl");
        watch.args(["--endpoints", &self.endpoints(), "watch", "--rev=1", "-w", "json", key]);
        watch.env("ETCDCTL_API", "3").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut watch = watch.spawn().expect("etcdctl");
        let lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let mut values = Vec::new();
        'all: for line in lines {
            let response: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
            for event in response["Events"].as_array().into_iter().flatten() {
                values.extend(event["kv"]["value"].as_str().and_then(decoded));
                if event["kv"]["mod_revision"].as_u64() >= Some(last) {
                    break 'all;
                }
            }
        }
        let _ = watch.kill();
        let _ = watch.wait();
        values
    }

    fn endpoints(&self) -> String {
        let url = |member: &Etcd| format!("http://{}:{PORT}", member.host.ip4);
        self.members.iter().map(url).collect::<Vec<_>>().join(",")
    }
}

/// JSON in base64.
fn decoded(text: &str) -> Option<Value> {
    let mut bytes = Vec::new();
    let alphabet = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bits, mut count) = (0_u32, 0);
    for six in text.bytes().filter_map(alphabet) {
        (bits, count) = (bits << 6 | u32::from(six), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    serde_json::from_slice(&bytes).ok()
}

impl Etcd {
    fn start(host: Host, peers: &str, logs: &Path) -> Etcd {
        // A busy disk would be a fault of its own: seconds for one fdatasync have been seen.
        let (name, ip, data) = (&host.name, host.ip4, Folder::new_in_memory());
        let client = format!("http://{ip}:{PORT}");
        let peer = format!("http://{ip}:{PEER_PORT}");
        let words = [
            ["--name", name],
            ["--data-dir", &data.file("data")],
            ["--listen-client-urls", &format!("http://0.0.0.0:{PORT}")],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", peers],
            ["--initial-cluster-state", "new"],
            ["--initial-cluster-token", "failover"],
            // A leader is found within a second.
            ["--heartbeat-interval", "50"],
            ["--election-timeout", "500"],
            ["--logger", "zap"],
            ["--log-outputs", "stderr"],
            ["--log-level", "warn"],
        ];
        let words = words.concat().iter().map(|word| (*word).to_owned()).collect();
        let slow = host.inside(|| Slow::start(SLOW_PORT, ([127, 0, 0, 1], PORT).into()));
        let log = logs.join(format!("{name}-etcd.log"));
        let mut etcd = Etcd { host, words, process: None, slow, log, data };
        etcd.resume();
        etcd
    }

    fn copy(&self, from: &str, to: &str) {
        let (from, to) = (self.data.file(from), self.data.file(to));
        let _ = std::fs::remove_dir_all(&to);
        let copied = std::process::Command::new("cp").args(["-r", &from, &to]).status();
        assert!(copied.is_ok_and(|status| status.success()), "cp -r {from} {to}");
    }

    /// kill -9.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stands still for as long as this takes.
    pub fn freeze(&mut self) {
        self.process.as_mut().expect("it runs").freeze();
    }

    /// Goes on, or starts again with the data that it had.
    pub fn resume(&mut self) {
        match &mut self.process {
            Some(process) => process.thaw(),
            None => self.process = Some(Process::start(&self.host, "etcd", &self.words, &self.log, None)),
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.host.inside(|| self.slow.end());
    }
}
