//! The balancers of `scripts/balancers`, as Debian packages them, before a shard: clients that know one address survive
//! the death of the primary.
//!
//! ```text
//!   host client                         hosts a and b
//!   client ─> haproxy ─ GET /primary ─> twincached, twincache-sidecar
//!   client ─> 10.77.0.200 ────────────> keepalived: the address is where GET /primary is 200
//! ```
//!
//! The files that operators copy are run themselves, with the addresses of the test's hosts in them. Needs root,
//! namespaces, etcd and the two packages; else a test says in one line that it is skipped.
//!
//! Not here: the sidecar's own floating address (`address`, `failover`).

mod common;
#[allow(dead_code, reason = "it is made for more kinds of faults")]
#[path = "failover/rig/mod.rs"]
mod rig;

use common::{DEADLINE, Folder, Host, until, wait_for};
use rig::{Cluster, PORT, Plan, words};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const HAPROXY: &str = include_str!("../scripts/balancers/haproxy.cfg");
const KEEPALIVED: &str = include_str!("../scripts/balancers/keepalived.conf");
const MANUAL: &str = include_str!("../man/twincache.7");

/// The address that keepalived moves.
const FLOATING: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);

/// Items that are stored before the primary dies.
const ITEMS: usize = 100;

/// Two nodes, of which one alone answers reads, and no changes.
fn plan() -> Plan {
    Plan { server: words("-o replicas_ack=1,ack_timeout=2000"), ..Plan::default() }
}

/// A balancer; it ends when it is dropped.
struct Balancer {
    child: Child,
    log: String,
}

impl Balancer {
    fn start(host: &Host, folder: &Folder, program: &str, words: &[&str]) -> Balancer {
        let log = folder.file(&format!("{}.log", host.name));
        let file = fs::File::create(&log).unwrap();
        let mut command = host.command(program);
        command.args(words).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Balancer { child: command.spawn().expect("it is installed"), log }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        // What it has started itself ends with the host.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_installed(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| !Path::new(program).exists());
    missing.inspect(|program| println!("skipped: no {program}")).is_none()
}

/// A configuration with the addresses of the test's hosts, for the node of this number.
fn on_these_hosts(text: &str, cluster: &Cluster, node: usize) -> String {
    let ip = |number: usize| cluster.nodes[number].host.ip4.to_string();
    let text =
        text.replace("10.0.0.100", &FLOATING.to_string()).replace("10.0.0.1:9151", &format!("{}:9091", ip(node)));
    text.replace("9151", "9091")
        .replace("10.0.0.1:", &format!("{}:", ip(0)))
        .replace("10.0.0.2:", &format!("{}:", ip(1)))
}

/// One request on a connection of its own, as a client without patience makes it. None: it was lost, or not answered.
fn ask(address: SocketAddr, request: &str, end: &str) -> Option<String> {
    let patience = Duration::from_millis(500);
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let (mut got, mut piece) = (Vec::new(), [0; 4096]);
    while !got.ends_with(end.as_bytes()) {
        match stream.read(&mut piece) {
            Ok(n @ 1..) => got.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
    String::from_utf8(got).ok()
}

fn set(address: SocketAddr, key: &str) -> bool {
    ask(address, &format!("set {key} 0 0 5\r\nvalue\r\n"), "\r\n").is_some_and(|reply| reply == "STORED\r\n")
}

/// Whether it is there. None: no answer.
fn has(address: SocketAddr, key: &str) -> Option<bool> {
    ask(address, &format!("get {key}\r\n"), "END\r\n").map(|reply| reply.starts_with("VALUE "))
}

/// Which process of a server a client talks to.
fn server(address: SocketAddr) -> Option<u32> {
    let stats = ask(address, "stats\r\n", "END\r\n")?;
    stats.lines().find_map(|line| line.strip_prefix("STAT pid ")?.parse().ok())
}

/// Kills the primary while a client reads at this address, and shows that it finds everything at the other node.
fn survives(cluster: &mut Cluster, address: SocketAddr, name: &str) {
    let primary = cluster.wait_calm();
    let old = cluster.nodes[primary].server.as_ref().expect("it runs").pid();
    // Until HAProxy has asked everybody once, it takes all servers for well, and tries them in turn.
    let is_found = || (0..4).all(|_| server(address) == Some(old));
    cluster.client.inside(|| until("the balancer has found the primary", is_found));
    // Acknowledged: the other node has them.
    let keys = || (0..ITEMS).map(|n| format!("key{n}"));
    cluster.client.inside(|| keys().for_each(|key| until("it is stored", || set(address, &key))));
    cluster.nodes[primary].kill_server();
    let began = Instant::now();
    cluster.client.inside(|| until("it is read again", || has(address, "key0") == Some(true)));
    println!("{name}: read again {} ms after kill -9", began.elapsed().as_millis());
    // A client without patience asks again, on a machine with much to do; but what it is told must be right.
    let is_there = |key: &str| wait_for("an answer", || has(address, key));
    cluster.client.inside(|| keys().for_each(|key| assert!(is_there(&key), "{name}: {key}")));
    let other = cluster.wait_other(primary);
    let new = cluster.nodes[other].server.as_ref().expect("it runs").pid();
    assert_eq!(cluster.client.inside(|| wait_for("statistics", || server(address))), new);
    // The old one is back, and changes are acknowledged again.
    cluster.mend();
    cluster.client.inside(|| until("it is written again", || set(address, "again")));
    assert!(began.elapsed() < DEADLINE);
}

#[test]
fn a_client_behind_haproxy_survives_its_primary() {
    if !is_installed(&["/usr/sbin/haproxy"]) {
        return;
    }
    let Some(mut cluster) = Cluster::start(plan()) else { return };
    let folder = Folder::new();
    fs::write(folder.file("haproxy.cfg"), on_these_hosts(HAPROXY, &cluster, 0)).unwrap();
    let words = ["-db", "-f", &folder.file("haproxy.cfg")];
    let _haproxy = Balancer::start(&cluster.client, &folder, "/usr/sbin/haproxy", &words);
    let address = (cluster.client.ip4, PORT).into();
    survives(&mut cluster, address, "haproxy");
}

#[test]
fn keepalived_moves_the_address() {
    if !is_installed(&["/usr/sbin/keepalived", "/usr/bin/curl"]) {
        return;
    }
    let Some(mut cluster) = Cluster::start(plan()) else { return };
    let folder = Folder::new();
    let start = |number: usize| {
        let host = &cluster.nodes[number].host;
        let file = |kind: &str| folder.file(&format!("{}.{kind}", host.name));
        fs::write(file("conf"), on_these_hosts(KEEPALIVED, &cluster, number)).unwrap();
        let (conf, pid, vrrp, checkers) = (file("conf"), file("pid"), file("vrrp"), file("checkers"));
        let words = ["-n", "-l", "-D", "-P", "-f", &conf, "-p", &pid, "-r", &vrrp, "-c", &checkers];
        Balancer::start(host, &folder, "/usr/sbin/keepalived", &words)
    };
    let _keepalived = [0, 1].map(start);
    let holds = |cluster: &Cluster, node: usize| {
        let addresses = cluster.nodes[node].host.run("ip -o -4 address show dev eth0");
        addresses.contains(&format!(" {FLOATING}/24 "))
    };
    let first = cluster.wait_calm();
    until("the primary has the address", || holds(&cluster, first) && !holds(&cluster, 1 - first));
    survives(&mut cluster, (FLOATING, PORT).into(), "keepalived");
    until("the other node has the address", || holds(&cluster, 1 - first) && !holds(&cluster, first));
}

/// What operators read in the manual is what runs here.
#[test]
fn the_manual_has_the_same_text() {
    let plain = MANUAL.replace("\\-", "-").replace("\\(dq", "\"").replace("\\&", "");
    for (name, text) in [("haproxy.cfg", HAPROXY), ("keepalived.conf", KEEPALIVED)] {
        let lines = text.lines().skip_while(|line| line.starts_with('#') || line.is_empty());
        let text: Vec<&str> = lines.collect();
        assert!(plain.contains(&text.join("\n")), "the text of {name} is not in the manual");
    }
}
