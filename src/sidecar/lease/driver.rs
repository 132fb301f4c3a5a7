//! The thread of the lease: the keeper between etcd, the server and the peers.
//!
//! ```text
//!   etcd_threads ──┐                         ┌──> etcd_threads: swap, read, tell
//!   server_thread ─┼── News ──> driver ──────┼──> the server's control socket: orders
//!   promises ──────┘    |   keeper, feeds    ├──> promises, feeds (a link to each node)
//!                       └── every tick       └──> address; status, for the pages
//! ```
//!
//! Nothing here waits for anybody: what may take time is done by threads of its own.
//!
//! Not here: what is decided (`keeper`).

use super::address::Address;
use super::etcd_threads::EtcdThreads;
use super::feeds::{Feeds, SharedPeers};
use super::keeper::Keeper;
use super::local::{LocalServer, ServerFacts};
use super::news::{News, ServerHello};
use super::orders::{Effect, KeeperConfig};
use super::promises::{PromiseRequest, Promises};
use super::server_thread::{self, is_ending, line_of};
use super::topology;
use crate::cluster::record::{AnswerRecord, NodeRecord};
use crate::sidecar::link::{FeedResume, FeederKey};
use crate::sidecar::observe::lease_status::LeaseStatus;
use crate::sidecar::options::{LeaseOptions, Options, SidecarExit};
use crate::supervisor;
use crate::sync::lock;
use crate::sys::cpu::time_since_boot;
use crossbeam_channel::{Receiver, unbounded};
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the keeper looks at what time has changed.
const TICK: Duration = Duration::from_millis(5);

/// How often the node's record is written when nothing changes.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Pieces of news that are taken before the keeper's effects are carried out.
const NEWS_MAX: usize = 64;

/// How long the address and the operator's programs have at the end.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Exit code when the system refuses a thread, the same as the server's.
const EX_OSERR: u8 = 71;

/// What is shown, as the driver publishes it.
pub(in crate::sidecar) type SharedStatus = Arc<Mutex<LeaseStatus>>;

/// See the module's head.
struct Driver {
    lease: LeaseOptions,
    max_lag: Duration,
    keeper: Keeper,
    news: Receiver<News>,
    etcd: EtcdThreads,
    /// Why etcd does not answer, if it does not.
    no_etcd: Option<String>,
    promises: Promises,
    feeds: Feeds,
    address: Address,
    nodes: BTreeMap<String, NodeRecord>,
    heard: BTreeMap<String, Duration>,
    server: Option<(UnixStream, Option<u32>)>,
    replicas_ack: u32,
    items: u64,
    /// The epoch that is served in.
    serves: Option<u64>,
    request: LastRequest,
    told: (Duration, NodeRecord),
    status: SharedStatus,
}

/// The request that is being worked on.
#[derive(Debug, Default)]
struct LastRequest {
    id: String,
    revision: i64,
}

impl LastRequest {
    /// Whether it was not told before: a watch that begins again tells what stands there still.
    fn is_news(&mut self, id: &str, revision: i64) -> bool {
        let is_news = (self.id.as_str(), self.revision) != (id, revision);
        *self = LastRequest { id: id.to_owned(), revision };
        is_news
    }
}

/// Starts the lease. Its figures are in `peers` and `status`.
pub(in crate::sidecar) fn start(
    options: &Options,
    lease: &LeaseOptions,
    peers: SharedPeers,
    status: SharedStatus,
    stop: &Arc<AtomicBool>,
) -> Result<JoinHandle<()>, SidecarExit> {
    let refuse = |why: &str| SidecarExit::refuse(EX_OSERR, why);
    let secret = || secret().map_err(|error| refuse(&format!("/dev/urandom: {error}")));
    let (sender, news) = unbounded();
    let address = Address::start(&options.address, &lease.shard, &lease.node)?;
    let etcd = EtcdThreads::start(&lease.cluster, &lease.shard, &lease.node, lease.lease, sender.clone());
    let etcd = etcd.map_err(|why| refuse(&why))?;
    server_thread::start(options.server.clone(), sender.clone()).map_err(|error| refuse(&error.to_string()))?;
    topology::start(&lease.cluster, options.server.clone()).map_err(|why| refuse(&why))?;
    let config = KeeperConfig {
        node: lease.node.clone(),
        advertise: lease.advertise.clone(),
        lease: lease.lease,
        bootstrap_wait: lease.bootstrap_wait,
        secret: secret()?,
        process: secret()?,
    };
    let driver = Driver {
        lease: lease.clone(),
        max_lag: options.max_lag,
        keeper: Keeper::new(config, time_since_boot()),
        news,
        etcd,
        no_etcd: None,
        promises: Promises::new(sender, options.peer_tls.clone(), options.peer_login.clone()),
        feeds: Feeds::new(options, peers),
        address,
        nodes: BTreeMap::new(),
        heard: BTreeMap::new(),
        server: None,
        replicas_ack: 0,
        items: 0,
        serves: None,
        request: LastRequest::default(),
        told: Default::default(),
        status,
    };
    let stop = Arc::clone(stop);
    let spawned = std::thread::Builder::new().name("lease".into()).spawn(move || driver.run(&stop));
    spawned.map_err(|error| refuse(&format!("cannot start a thread: {error}")))
}

impl Driver {
    fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            if let Ok(news) = self.news.recv_timeout(TICK) {
                self.hear(news);
                for _ in 0..NEWS_MAX {
                    let Ok(news) = self.news.try_recv() else { break };
                    self.hear(news);
                }
            }
            self.turn();
        }
        self.address.close(CLOSE_MAX);
    }

    fn hear(&mut self, news: News) {
        let now = time_since_boot();
        match news {
            News::Swapped(outcome) => self.keeper.swapped(outcome, now),
            News::Record(sighting) => self.keeper.record(sighting, now),
            News::Node(node, record) => {
                match record {
                    Some(record) => {
                        if node != self.lease.node {
                            self.keeper.heard(record.highest, now);
                        }
                        self.nodes.insert(node.clone(), record);
                    }
                    None => _ = self.nodes.remove(&node),
                }
                self.heard.insert(node, now);
            }
            News::Request(request, revision) => {
                if self.request.is_news(&request.id, revision) {
                    self.keeper.request(request, now);
                }
            }
            News::Paused(is_paused) => {
                self.no_etcd = None;
                self.keeper.pause(is_paused, now);
            }
            News::NoEtcd(why) => self.no_etcd = Some(why),
            News::ServerUp(hello) => self.meet(hello, now),
            News::ServerSays(answer) => self.keeper.answered(answer, now),
            News::ServerHolds(items) => self.items = items,
            News::ServerDown => {
                let pid = self.server.take().and_then(|(_, pid)| pid);
                self.keeper.server_down(pid.is_some_and(is_ending), now);
            }
            News::Promised { node, epoch, until } => self.keeper.promised(&node, epoch, until, now),
        }
        self.carry_out();
    }

    fn meet(&mut self, hello: ServerHello, now: Duration) {
        let ServerHello { run, lsn, replicas_ack, epoch, pid, socket } = hello;
        log::info!("the server is there: run {run}");
        self.server = Some((socket, pid));
        self.replicas_ack = replicas_ack;
        self.keeper.server_up(ServerFacts { run: &run, lsn, replicas_ack, epoch }, now);
    }

    fn turn(&mut self) {
        let now = time_since_boot();
        if self.server.as_ref().and_then(|(_, pid)| *pid).is_some_and(is_ending) {
            log::warn!("the server ends");
            self.server = None;
            self.keeper.server_down(true, now);
            self.carry_out();
        }
        // While replies wait for a member, no client is served for as long as it is late.
        let allowed = if self.replicas_ack > 0 { self.max_lag.min(self.lease.lease) } else { self.max_lag };
        self.keeper.peers(self.feeds.peers(allowed), now);
        self.carry_out();
        let resume = self.keeper.inherited().map(|(whole, lsn)| {
            let whole = whole.into_iter().map(|member| (member.node, member.run)).collect();
            FeedResume { whole, lsn }
        });
        let key = self.keeper.feeding().map(|(epoch, secret)| FeederKey { epoch, secret: secret.to_owned(), resume });
        self.feeds.follow(key.as_ref(), &self.nodes, &self.lease.node);
        if let (Some(epoch), Some(deadline)) = (self.serves, self.keeper.deadline()) {
            self.address.hold(epoch, deadline);
            if self.have_all_let_go(epoch) {
                self.address.settled();
            }
        }
        self.publish(now);
    }

    /// Whether all other nodes that are known follow this epoch.
    fn have_all_let_go(&self, epoch: u64) -> bool {
        let others = self.nodes.iter().filter(|(name, _)| **name != self.lease.node);
        others.into_iter().all(|(_, record)| record.epoch == epoch && record.role != "primary")
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.keeper.effect() {
            match effect {
                Effect::Swap { expected, record } => self.etcd.swap(*expected, *record),
                Effect::Read => self.etcd.read(),
                Effect::Order(order) => self.say(&line_of(&order)),
                Effect::Promise { epoch, lease, nodes } => self.ask_promises(epoch, lease, &nodes),
                Effect::Serve { epoch } => {
                    supervisor::notice(&format!("shard {}: this node is the primary, epoch {epoch}", self.lease.shard));
                    self.serves = Some(epoch);
                    self.address.hold(epoch, self.keeper.deadline().unwrap_or_default());
                }
                Effect::Retire => {
                    supervisor::notice(&format!("shard {}: this node is not the primary any more", self.lease.shard));
                    self.serves = None;
                    match self.keeper.local().is_some_and(LocalServer::follows) {
                        true => self.address.leave(),
                        false => self.address.release(),
                    }
                }
                Effect::Reply { id, is_done, text } => {
                    // Another one has replaced it, if it is not the last.
                    if self.request.id == id {
                        self.etcd.answer(AnswerRecord { id, is_done, text }, self.request.revision);
                    }
                }
            }
        }
    }

    fn say(&mut self, line: &str) {
        let Some((socket, _)) = &mut self.server else { return };
        // Half a line would make nonsense of the next one.
        if let Err(error) = socket.write_all(line.as_bytes()) {
            log::warn!("the server takes no orders: {error}");
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn ask_promises(&self, epoch: u64, lease: Duration, nodes: &[String]) {
        let Some(record) = self.keeper.owned() else { return };
        let request = PromiseRequest { epoch, secret: record.secret.clone(), lease };
        for node in nodes {
            if let Some(known) = self.nodes.get(node) {
                self.promises.ask(node, &known.advertise, &request);
            }
        }
    }

    /// Tells people, balancers and the other nodes how this one is.
    fn publish(&mut self, now: Duration) {
        let record = self.keeper.known().cloned().unwrap_or_default();
        let me = &self.lease.node;
        let run = self.keeper.local().map(|server| server.run.clone()).unwrap_or_default();
        let lag = self.nodes.get(&record.owner).and_then(|owner| owner.peers.iter().find(|peer| peer.node == *me));
        let heard = self.heard.get(&record.owner).copied().unwrap_or_default();
        let status = LeaseStatus {
            shard: self.lease.shard.clone(),
            node: me.clone(),
            epoch: record.epoch,
            owner: record.owner.clone(),
            deadline: self.keeper.owned().and_then(|_| self.keeper.deadline()),
            is_server_up: self.server.is_some(),
            is_member: record.members.iter().any(|member| member.node == *me && member.run == run),
            lag: lag.map(|peer| (Duration::from_millis(peer.lag_ms), heard)),
            members: record.members.iter().map(|member| member.node.clone()).collect(),
            refusal: self.keeper.refusal().map(str::to_owned),
            no_etcd: self.no_etcd.clone(),
        };
        let role = match (&self.server, self.serves) {
            (None, _) => "down",
            (_, Some(_)) => "primary",
            (_, None) if record.owner.is_empty() => "waiting",
            _ => "standby",
        };
        let mut told = NodeRecord {
            node: me.clone(),
            run,
            advertise: self.lease.advertise.clone(),
            http: self.lease.http.clone(),
            role: role.to_owned(),
            epoch: record.epoch,
            highest: self.keeper.local().map_or(0, |server| server.epoch),
            ..NodeRecord::default()
        };
        *lock(&self.status) = status;
        let is_same = NodeRecord { peers: Vec::new(), unix_ms: 0, lsn: 0, items: 0, ..self.told.1.clone() } == told;
        if is_same && now < self.told.0 + TELL_EVERY {
            return;
        }
        told.peers = self.feeds.records();
        told.lsn = self.keeper.local().map_or(0, |server| server.lsn);
        told.items = self.items;
        told.unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        self.told = (now, told.clone());
        self.etcd.tell(told);
        // For the next time.
        self.say(server_thread::ASK);
    }
}

/// A secret that nobody guesses.
fn secret() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_heard_of_once() {
        let mut last = LastRequest::default();
        let told = [("1", 10), ("1", 10), ("1", 11), ("2", 12), ("2", 12)];
        assert_eq!(told.map(|(id, revision)| last.is_news(id, revision)), [true, false, true, true, false]);
    }
}
