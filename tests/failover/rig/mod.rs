//! A shard on hosts that are network namespaces, with real etcds and a floating address.
//!
//! ```text
//!   host a              host b             host e0 (e1, e2)      host client
//!   twincached          twincached         etcd                  the test's clients
//!   twincache-sidecar   twincache-sidecar  relay (late answers)
//!       └───────────────────┴───── bridge ──────┴──────────────────────┘
//!                  10.77.0.100 floats between a and b
//! ```
//!
//! Each process has a log in the cluster's folder; if the test fails, their last lines are printed and the folder stays.
//!
//! Not here: what breaks when, and what is expected then (the tests).

mod clock;
mod etcds;
mod node;
mod process;
mod slow;

pub use clock::Clock;
pub use etcds::Etcds;
pub use node::{Node, PORT};

use crate::common::{DEADLINE, Folder, Host, Net};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The shard's address.
const FLOATING: &str = "10.77.0.100";

/// Lines of each log that are shown when a test fails.
const SHOWN: usize = 30;

/// The shard's record in etcd.
pub const RECORD: &str = "/twincache/test/shards/s";

/// Where operators ask for something.
const REQUEST: &str = "/twincache/test/requests/s";

/// How a cluster is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub etcds: usize,
    pub lease: Duration,
    /// More options of the servers,
    pub server: Vec<String>,
    /// and of the sidecars.
    pub sidecar: Vec<String>,
}

impl Default for Plan {
    /// Acknowledged, linearizable, two nodes, one etcd.
    fn default() -> Plan {
        let server = words("-o replicas_ack=1,ack_timeout=2000,linearizable");
        Plan { nodes: 2, etcds: 1, lease: Duration::from_secs(1), server, sidecar: Vec::new() }
    }
}

impl Plan {
    /// As the default with three nodes: writes are acknowledged while one is away.
    pub fn of_three() -> Plan {
        Plan { nodes: 3, ..Plan::default() }
    }

    /// As the default without acknowledgements: what is lost is what was not sent yet.
    pub fn unacknowledged() -> Plan {
        Plan { server: Vec::new(), ..Plan::default() }
    }
}

/// Words of a command line.
pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// See the module's head. The parts end in this order.
pub struct Cluster {
    pub nodes: Vec<Node>,
    pub etcds: Etcds,
    /// Where clients are.
    pub client: Host,
    pub plan: Plan,
    folder: Option<Folder>,
    _net: Net,
}

impl Cluster {
    /// Starts all of it, and waits until the shard has a primary and all others are in sync. None, and a printed line,
    /// where it cannot be.
    pub fn start(plan: Plan) -> Option<Cluster> {
        let mut cluster = Cluster::prepare(plan)?;
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_calm();
        Some(cluster)
    }

    /// Starts etcd and makes the hosts, but starts no node.
    pub fn prepare(plan: Plan) -> Option<Cluster> {
        let net = Net::start()?;
        if std::process::Command::new("etcd").arg("--version").output().is_err() {
            println!("skipped: etcd is not installed");
            return None;
        }
        let folder = Folder::new();
        let etcds = Etcds::start(&net, plan.etcds, folder.path());
        let lease = plan.lease.as_millis();
        let all = format!("--cluster test --shard s --etcd {} --lease-ms {lease} --vip {FLOATING}/24", etcds.urls());
        let all = [words(&all), words("--bootstrap-wait 1000"), plan.sidecar.clone()].concat();
        let name = |number: usize| char::from(b'a' + number as u8).to_string();
        let host = |number: usize| net.host(&name(number));
        let node = |number: usize| Node::new(host(number), folder.path(), &plan.server, &all);
        let nodes = (0..plan.nodes).map(node).collect();
        let client = net.host("client");
        Some(Cluster { nodes, etcds, client, plan, folder: Some(folder), _net: net })
    }

    /// As [`Cluster::start`], with wall clocks that can be stepped, or None where there are none.
    pub fn start_with_clocks(plan: Plan) -> Option<Cluster> {
        let mut cluster = Cluster::prepare(plan)?;
        let folder = cluster.folder.as_ref().expect("it is there until the end").path();
        for node in &mut cluster.nodes {
            node.clock = Some(Clock::new(folder, &node.name)?);
        }
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_calm();
        Some(cluster)
    }

    /// Where the shard's clients connect.
    pub fn address(&self) -> SocketAddr {
        format!("{FLOATING}:{PORT}").parse().expect("an address")
    }

    /// Every node's own address.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| (node.host.ip4, PORT).into()).collect()
    }

    /// The only node that says that it is primary.
    pub fn primary(&self) -> Option<usize> {
        let mut primaries = (0..self.nodes.len()).filter(|&at| self.nodes[at].is_primary());
        primaries.next().filter(|_| primaries.next().is_none())
    }

    /// Waits until there is exactly one.
    pub fn wait_primary(&self) -> usize {
        self.wait("there is one primary", || self.primary())
    }

    /// Waits until a node other than this one is the only primary.
    pub fn wait_other(&self, old: usize) -> usize {
        self.wait("another node is primary", || self.primary().filter(|&at| at != old))
    }

    /// As [`Cluster::wait_other`], of a node whose own word does not count: it may not know better.
    pub fn wait_taken(&self, old: usize) -> usize {
        let others = (0..self.nodes.len()).filter(|&at| at != old);
        self.wait("another node takes over", || others.clone().find(|&at| self.nodes[at].is_primary()))
    }

    /// Waits until there is a primary and every other node is in sync. Which it is.
    pub fn wait_calm(&self) -> usize {
        self.wait("all nodes are in sync", || {
            let (primary, record) = (self.primary()?, self.etcds.get(RECORD)?);
            let members = record["members"].as_array()?.len();
            let is_whole = members + 1 == self.nodes.len() && record["owner"] == self.nodes[primary].name.as_str();
            is_whole.then_some(primary)
        })
    }

    /// Nodes that are in sync, by etcd.
    pub fn members(&self) -> Vec<String> {
        let record = self.etcds.get(RECORD).unwrap_or_default();
        let members = record["members"].as_array().cloned().unwrap_or_default();
        members.iter().filter_map(|member| Some(member["node"].as_str()?.to_owned())).collect()
    }

    /// Every owner that there was: its epoch, and the process of its server. In the order of the epochs.
    pub fn owners(&self) -> Vec<(u64, u32)> {
        let mut owners: Vec<(u64, u32)> = Vec::new();
        let runs = || self.nodes.iter().flat_map(|node| &node.runs);
        for record in self.etcds.history(RECORD) {
            let (Some(epoch), Some(run)) = (record["epoch"].as_u64(), record["run"].as_str()) else { continue };
            let Some((_, process)) = runs().find(|(known, _)| known == run) else { continue };
            if record["owner"] != "" && owners.last() != Some(&(epoch, *process)) {
                owners.push((epoch, *process));
            }
        }
        owners
    }

    /// Asks the owner to hand over to this node.
    pub fn request_switchover(&self, to: usize) {
        let request = serde_json::json!({"id": "1", "what": "switchover", "to": self.nodes[to].name});
        self.etcds.ask(&["put", REQUEST, &request.to_string()]).expect("etcd takes it");
    }

    /// Mends everything, and waits until all are in sync again. Which is primary.
    pub fn mend(&mut self) -> usize {
        self.etcds.members.iter().for_each(|member| member.host.heal());
        self.etcds.delay(Duration::ZERO);
        self.etcds.resume();
        self.nodes.iter_mut().for_each(Node::mend);
        self.wait_calm()
    }

    /// Keeps a text beside the logs.
    pub fn keep(&self, name: &str, text: &str) {
        let folder = self.folder.as_ref().expect("it is there until the end");
        std::fs::write(folder.path().join(name), text).expect("a file");
    }

    /// As `common::wait_for`, with more to say when it is in vain.
    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE / 3;
        loop {
            if let Some(found) = look() {
                return found;
            }
            if Instant::now() > end {
                panic!("waited in vain: {what}\n{}", self.state());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What stands in etcd, and what each sidecar says.
    pub fn state(&self) -> String {
        let mut text = self.etcds.ask(&["get", "--prefix", "/twincache"]).unwrap_or("etcd does not answer\n".into());
        for node in &self.nodes {
            let [primary, standby] = ["/primary", "/standby"].map(|path| node.status(path));
            text.push_str(&format!("{}: /primary {primary:?}, /standby {standby:?}\n", node.name));
        }
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folder = self.folder.take().expect("it is kept until here");
            eprintln!("{}", process::last_lines(folder.path(), SHOWN));
            eprintln!("logs are kept in {}", folder.path().display());
            std::mem::forget(folder);
        }
    }
}
