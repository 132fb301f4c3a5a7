//! The world of the model: real keepers; servers, etcd, clients and a network as small as they can be.
//!
//! ```text
//!   tick: 100 ms pass ─> links move data ─> each keeper looks around ─> letters are delivered until there are none
//!                                                                          └─ but those that are late, or kept from a
//!                                                                             node that is cut off or stands still
//! ```
//!
//! What is simpler than the truth: all that is not late arrives at once, in the order in which it was sent; a copy is
//! whole after one tick; the server's role is its rules only, without connections. Time that has passed is subtracted
//! from all times ([`super::super::shift`]), so that there are finitely many states.
//!
//! Not here: what may go wrong when, and what is checked (`model`).

use super::super::super::claim::right_until;
use super::super::super::keeper::Keeper;
use super::super::super::local::ServerFacts;
use super::super::super::members::{Peer, Requirement};
use super::super::super::orders::{
    Effect, Expected, KeeperConfig, OrderAnswer, RecordValue, ServerOrder, Sighting, SwapOutcome,
};
use super::super::shift::{COUNT, NOW, Shift};
use super::{Broken, EPOCHS, FENCED, KEPT, ONE_VOICE, PROMISED, SERVED, STALE, Scope};
use crate::cluster::record::{RequestKind, RequestRecord, ShardRecord};
use std::collections::VecDeque;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

pub(super) const TICK: Duration = Duration::from_millis(100);
pub(super) const LEASE: Duration = Duration::from_millis(1000);
/// A request to etcd has failed after so many ticks.
const PATIENCE: u8 = 3;
/// What is late is lost after so many ticks.
const LATE_MAX: u8 = 13;
/// A standby that was not fed for so many ticks is late.
const LAG_MAX: u8 = 4;
/// A cut or a freeze ends after so many ticks.
const FAULT_MAX: u8 = 20;
/// More ticks than this are not counted.
pub(super) const COUNT_MAX: u8 = 40;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Role {
    #[default]
    Waiting,
    Standby,
    Candidate,
    Primary,
}

/// A server by the rules of its role. Times are its clock's.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Server {
    pub run: u8,
    pub is_up: bool,
    pub is_frozen: bool,
    pub role: Role,
    pub epoch: u64,
    /// Whether it knows the owner of the epoch.
    has_owner: bool,
    deadline: Duration,
    promised: Duration,
    holds: Duration,
    /// Its writes, in order. The first `lsn` are numbered.
    pub data: Vec<u8>,
    least: usize,
    names: Vec<String>,
    /// Replies that wait for acknowledgements of the first so many writes.
    unanswered: Vec<usize>,
    /// Orders while it is frozen.
    waiting: Vec<ServerOrder>,
}

/// What an owner's sidecar knows of a peer that it feeds.
#[derive(Clone, Debug, Default, Hash)]
struct Feed {
    run: u8,
    epoch: u64,
    is_streaming: bool,
    confirmed: usize,
    /// Ticks since it had everything.
    age: u8,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Node {
    pub keeper: Option<Keeper>,
    /// How many keepers it has had.
    starts: u8,
    pub is_stalled: bool,
    /// For how many ticks it, or its server, has.
    stands_still: u8,
    pub server: Server,
    feeds: Vec<Feed>,
    /// For how many ticks etcd cannot be reached.
    pub no_etcd: Option<u8>,
    pub no_peers: bool,
    /// Ticks until the swap that was sent has failed.
    pending: Option<u8>,
    /// What arrived while the sidecar stood still.
    inbox: Vec<Letter>,
}

#[derive(Clone, Debug, Hash)]
pub(super) enum Letter {
    Swap { node: usize, is_awaited: bool, expected: Box<Expected>, record: ShardRecord },
    SwapAnswer { node: usize, outcome: SwapOutcome },
    Known { node: usize, revision: i64, record: Option<ShardRecord> },
    Order { node: usize, run: u8, order: ServerOrder },
    Answered { node: usize, run: u8, answer: OrderAnswer },
    AskPromise { from: usize, to: usize, epoch: u64, asked: Duration },
    Promised { to: usize, of: usize, epoch: u64, asked: Duration },
    Batch { from: usize, to: usize, run: u8, epoch: u64, data: Vec<u8> },
}

/// What may be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Late {
    Swap,
    SwapAnswer,
    Known,
    AskPromise,
    Promised,
    Batch,
}

/// What has happened in the last tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Sights {
    pub switchover: bool,
    pub removed: bool,
    pub added: bool,
    pub acknowledged: bool,
}

#[derive(Clone, Debug, Hash)]
#[expect(clippy::derived_hash_with_manual_eq, reason = "equal is what has the same hash")]
pub(super) struct World {
    pub nodes: Vec<Node>,
    pub record: Option<ShardRecord>,
    prompt: VecDeque<Letter>,
    pub late: Vec<(Letter, u8)>,
    /// Which letter is late next.
    arming: Option<(Late, usize)>,
    runs: u8,
    pub writes: u8,
    acked: Vec<u8>,
    /// Runs that had everything before the present epoch.
    holders: Vec<String>,
    /// An epoch that was claimed by a node that was no member, and how many writes there were before.
    bare: (u64, u8),
    /// An operator has wanted a node to be the owner, whatever is lost.
    has_forced: bool,
    served_epoch: u64,
    pub faults: u8,
    pub has_drifted: bool,
    /// Ticks in which nobody served, though nothing is wrong any more.
    pub silent: u8,
    pub sights: Sights,
    pub violated: Vec<&'static str>,
}

/// The checker asks for it, and tells states apart by their hashes.
impl PartialEq for World {
    fn eq(&self, other: &World) -> bool {
        let hash = |world: &World| BuildHasherDefault::<DefaultHasher>::default().hash_one(world);
        hash(self) == hash(other)
    }
}

/// As a watch tells it.
fn sighting(revision: i64, record: Option<ShardRecord>) -> Sighting {
    Sighting { revision, store: revision, value: RecordValue { record, odd: None }, ..Sighting::default() }
}

pub(super) fn name(node: usize) -> String {
    ["a", "b", "c"][node].to_owned()
}

fn number(name: &str) -> usize {
    (0..3).find(|node| self::name(*node) == name).expect("a node's name")
}

impl Letter {
    fn kind(&self) -> Option<(Late, usize)> {
        match self {
            Letter::Swap { node, .. } => Some((Late::Swap, *node)),
            Letter::SwapAnswer { node, .. } => Some((Late::SwapAnswer, *node)),
            Letter::Known { node, .. } => Some((Late::Known, *node)),
            Letter::AskPromise { from, .. } => Some((Late::AskPromise, *from)),
            Letter::Promised { of, .. } => Some((Late::Promised, *of)),
            Letter::Batch { from, .. } => Some((Late::Batch, *from)),
            Letter::Order { .. } | Letter::Answered { .. } => None,
        }
    }

    /// `clock`: the node whose clock has moved; None: all.
    fn shift(&mut self, by: Shift, clock: Option<usize>) {
        match self {
            Letter::Swap { expected, record, .. } => {
                by.revision(&mut expected.revision);
                expected.value.record.iter_mut().chain([record]).for_each(|record| by.record(record));
            }
            Letter::SwapAnswer { outcome: SwapOutcome::Won(revision), .. } => by.revision(revision),
            Letter::SwapAnswer { outcome: SwapOutcome::Lost(sighting), .. } => {
                by.revision(&mut sighting.revision);
                by.revision(&mut sighting.store);
                sighting.value.record.iter_mut().for_each(|record| by.record(record));
            }
            Letter::Known { revision, record, .. } => {
                by.revision(revision);
                record.iter_mut().for_each(|record| by.record(record));
            }
            Letter::AskPromise { from: node, asked, .. } | Letter::Promised { to: node, asked, .. } => {
                if clock.is_none_or(|clock| clock == *node) {
                    by.time(asked);
                }
            }
            Letter::Order { node, order, .. } => {
                if clock.is_none_or(|clock| clock == *node) {
                    by.order(order);
                }
            }
            Letter::SwapAnswer { .. } | Letter::Answered { .. } | Letter::Batch { .. } => {}
        }
    }
}

impl Node {
    fn shift(&mut self, by: Shift) {
        self.keeper.iter_mut().for_each(|keeper| keeper.shift(by));
        let server = &mut self.server;
        for time in [&mut server.deadline, &mut server.promised, &mut server.holds] {
            by.time(time);
        }
        server.waiting.iter_mut().for_each(|order| by.order(order));
    }
}

impl World {
    /// All nodes are up; the first owns the shard, and the others are in sync.
    pub(super) fn new(scope: &Scope) -> World {
        let node = |_| Node {
            keeper: None,
            starts: 0,
            is_stalled: false,
            stands_still: 0,
            server: Server::default(),
            feeds: vec![Feed::default(); scope.nodes],
            no_etcd: None,
            no_peers: false,
            pending: None,
            inbox: Vec::new(),
        };
        let mut world = World {
            nodes: (0..scope.nodes).map(node).collect(),
            record: None,
            prompt: VecDeque::new(),
            late: Vec::new(),
            arming: None,
            runs: 0,
            writes: 0,
            acked: Vec::new(),
            holders: Vec::new(),
            bare: (0, 0),
            has_forced: false,
            served_epoch: 0,
            faults: 0,
            has_drifted: false,
            silent: 0,
            sights: Sights::default(),
            violated: Vec::new(),
        };
        for node in 0..scope.nodes {
            world.start_server(scope, node);
            world.start_keeper(scope, node);
            world.deliver(scope);
        }
        (0..40).for_each(|_| _ = world.tick(scope, None));
        let members = world.record.as_ref().map_or(0, |record| record.members.len());
        assert!(world.serves(scope, 0) && members == scope.nodes - 1, "{:?}", world.record);
        world
    }

    // ---- what may happen ----

    /// Time passes. False: nothing of the kind that should be late was sent.
    pub(super) fn tick(&mut self, scope: &Scope, late: Option<(Late, usize)>) -> bool {
        self.arming = late;
        self.sights = Sights::default();
        self.shift(Shift { time: TICK, ..Shift::default() }, None);
        self.late.iter_mut().for_each(|(_, age)| *age += 1);
        self.late.retain(|(_, age)| *age <= LATE_MAX);
        for node in 0..self.nodes.len() {
            self.endure(scope, node);
        }
        for node in 0..self.nodes.len() {
            self.feed(node);
            self.deliver(scope);
            self.acknowledge(scope, node);
            if self.nodes[node].is_stalled || self.nodes[node].keeper.is_none() {
                continue;
            }
            self.time_out(node);
            let peers = self.figures(node);
            self.tell(node, |keeper| keeper.peers(peers, NOW));
            self.deliver(scope);
        }
        let is_well = self.late.is_empty()
            && self.nodes.iter().all(|node| {
                let Node { keeper, is_stalled, server, no_etcd, no_peers, .. } = node;
                keeper.is_some() && !is_stalled && server.is_up && !server.is_frozen && no_etcd.is_none() && !no_peers
            });
        let is_served = (0..self.nodes.len()).any(|node| self.serves(scope, node));
        self.silent = if is_well && !is_served { (self.silent + 1).min(COUNT_MAX) } else { 0 };
        if self.silent == COUNT_MAX {
            self.violate(SERVED);
        }
        self.arming.take().is_none()
    }

    /// No cut from etcd lasts for ever, nor does anything stand still for ever.
    fn endure(&mut self, scope: &Scope, at: usize) {
        let node = &mut self.nodes[at];
        node.no_etcd = node.no_etcd.map(|age| age + 1).filter(|age| *age <= FAULT_MAX);
        if node.is_stalled || node.server.is_frozen {
            node.stands_still += 1;
            if node.stands_still > FAULT_MAX {
                self.thaw(scope, at);
            }
        }
    }

    pub(super) fn start_server(&mut self, scope: &Scope, node: usize) {
        self.runs += 1;
        self.nodes[node].server = Server { run: self.runs, is_up: true, ..Server::default() };
        self.introduce(scope, node);
    }

    pub(super) fn start_keeper(&mut self, scope: &Scope, node: usize) {
        self.nodes[node].starts += 1;
        let config = KeeperConfig {
            node: name(node),
            advertise: String::new(),
            lease: LEASE,
            bootstrap_wait: scope.bootstrap,
            secret: "s".to_owned(),
            process: format!("{node}.{}", self.nodes[node].starts),
        };
        self.nodes[node].keeper = Some(Keeper::new(config, NOW));
        self.introduce(scope, node);
        self.tell(node, |keeper| keeper.peers(Vec::new(), NOW));
    }

    pub(super) fn stop_server(&mut self, scope: &Scope, node: usize) {
        self.nodes[node].server = Server::default();
        self.tell(node, |keeper| keeper.server_down(true, NOW));
        self.deliver(scope);
    }

    pub(super) fn stop_keeper(&mut self, node: usize) {
        let Node { keeper, pending, is_stalled, inbox, feeds, .. } = &mut self.nodes[node];
        (*keeper, *pending, *is_stalled) = (None, None, false);
        inbox.clear();
        feeds.fill(Feed::default());
        self.hang_up(node);
    }

    /// The connection to the server ends, and is made anew.
    pub(super) fn break_socket(&mut self, scope: &Scope, node: usize) {
        self.tell(node, |keeper| keeper.server_down(false, NOW));
        self.introduce(scope, node);
        self.deliver(scope);
    }

    pub(super) fn thaw(&mut self, scope: &Scope, node: usize) {
        self.nodes[node].stands_still = 0;
        self.nodes[node].server.is_frozen = false;
        for order in std::mem::take(&mut self.nodes[node].server.waiting) {
            self.obey(scope, node, order);
        }
        self.nodes[node].is_stalled = false;
        self.prompt.extend(std::mem::take(&mut self.nodes[node].inbox));
        self.deliver(scope);
    }

    /// The clock of the node has gained the margin.
    pub(super) fn drift(&mut self, scope: &Scope, node: usize) {
        let by = Shift { time: LEASE / 10 * scope.margins_of_drift, ..Shift::default() };
        self.nodes[node].shift(by);
        for letter in self.letters() {
            letter.shift(by, Some(node));
        }
    }

    pub(super) fn request(&mut self, scope: &Scope, what: RequestKind, to: usize) {
        let id = if what == RequestKind::Switchover { "switchover" } else { "promote" };
        let request = RequestRecord { id: id.to_owned(), what, to: name(to), epoch: 0 };
        self.has_forced |= what == RequestKind::Promote;
        for node in 0..self.nodes.len() {
            if !self.nodes[node].is_stalled && self.nodes[node].no_etcd.is_none() {
                self.tell(node, |keeper| keeper.request(request.clone(), NOW));
            }
        }
        self.deliver(scope);
    }

    /// A client writes at whoever serves.
    pub(super) fn write(&mut self, scope: &Scope) -> bool {
        let Some(node) = (0..self.nodes.len()).find(|node| self.serves(scope, *node)) else { return false };
        let server = &mut self.nodes[node].server;
        if server.holds > NOW {
            return false;
        }
        self.writes += 1;
        server.data.push(self.writes);
        server.unanswered.push(server.data.len());
        self.acknowledge(scope, node);
        true
    }

    pub(super) fn release(&mut self, scope: &Scope, late: usize) {
        let (letter, _) = self.late.remove(late);
        self.prompt.push_back(letter);
        self.deliver(scope);
    }

    // ---- what is looked at ----

    pub(super) fn serves(&self, scope: &Scope, node: usize) -> bool {
        let Node { server, .. } = &self.nodes[node];
        let is_in_time = NOW < server.deadline || scope.broken == Some(Broken::Deadline);
        server.is_up && !server.is_frozen && server.role == Role::Primary && is_in_time
    }

    fn violate(&mut self, what: &'static str) {
        if !self.violated.contains(&what) {
            self.violated.push(what);
        }
    }

    fn check(&mut self, scope: &Scope) {
        let serving: Vec<usize> = (0..self.nodes.len()).filter(|node| self.serves(scope, *node)).collect();
        if serving.len() > 1 {
            self.violate(ONE_VOICE);
        }
        let newest = serving.iter().map(|node| self.nodes[*node].server.epoch).max();
        self.served_epoch = newest.map_or(self.served_epoch, |epoch| epoch.max(self.served_epoch));
        for node in serving {
            let server = &self.nodes[node].server;
            if server.epoch < self.served_epoch {
                self.violate(EPOCHS);
                continue;
            }
            let (epoch, before) = self.bare;
            let is_stale = server.epoch == epoch && server.data.iter().any(|write| *write <= before);
            let lost: Vec<u8> = self.acked.iter().filter(|write| !server.data.contains(write)).copied().collect();
            let had_all = |server: &Server| server.is_up && self.holders.contains(&server.run.to_string());
            if !lost.is_empty() && self.nodes.iter().any(|node| had_all(&node.server)) {
                self.violate(KEPT);
            }
            if is_stale {
                self.violate(STALE);
            }
            self.acked.retain(|write| !lost.contains(write));
        }
        self.check_members();
    }

    /// Who may take over has everything.
    fn check_members(&mut self) {
        let Some(record) = &self.record else { return };
        let is_member = |server: &Server| record.members.iter().any(|member| member.run == server.run.to_string());
        let has_all = |server: &Server| self.acked.iter().all(|write| server.data.contains(write));
        if self.nodes.iter().any(|Node { server, .. }| server.is_up && is_member(server) && !has_all(server)) {
            self.violate(KEPT);
        }
    }

    // ---- how it goes on ----

    fn letters(&mut self) -> impl Iterator<Item = &mut Letter> {
        let inboxes = self.nodes.iter_mut().flat_map(|node| &mut node.inbox);
        self.late.iter_mut().map(|(letter, _)| letter).chain(&mut self.prompt).chain(inboxes)
    }

    fn shift(&mut self, by: Shift, clock: Option<usize>) {
        self.nodes.iter_mut().for_each(|node| node.shift(by));
        self.letters().for_each(|letter| letter.shift(by, clock));
        self.record.iter_mut().for_each(|record| by.record(record));
    }

    /// Nobody waits for the answer to a swap any more.
    fn hang_up(&mut self, of: usize) {
        self.late.retain(|(letter, _)| !matches!(letter, Letter::SwapAnswer { node, .. } if *node == of));
        for letter in self.letters() {
            if let Letter::Swap { node, is_awaited, .. } = letter
                && *node == of
            {
                *is_awaited = false;
            }
        }
    }

    fn time_out(&mut self, node: usize) {
        let pending = &mut self.nodes[node].pending;
        *pending = pending.map(|ticks| ticks - 1);
        if *pending == Some(0) {
            *pending = None;
            self.hang_up(node);
            self.tell(node, |keeper| keeper.swapped(SwapOutcome::Unknown, NOW));
        }
    }

    fn introduce(&mut self, scope: &Scope, node: usize) {
        let Server { run, is_up, epoch, ref data, .. } = self.nodes[node].server;
        let lsn = data.len() as u64;
        if is_up {
            self.tell(node, |keeper| {
                let run = run.to_string();
                keeper.server_up(ServerFacts { run: &run, lsn, replicas_ack: scope.least, epoch }, NOW);
            });
        }
    }

    /// Tells the keeper something, if it runs, and does what it wants done.
    fn tell(&mut self, node: usize, what: impl FnOnce(&mut Keeper)) {
        if let Some(keeper) = &mut self.nodes[node].keeper {
            what(keeper);
        }
        while let Some(effect) = self.nodes[node].keeper.as_mut().and_then(Keeper::effect) {
            self.act(node, effect);
        }
    }

    fn act(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Swap { expected, record } => {
                self.nodes[node].pending = Some(PATIENCE);
                self.prompt.push_back(Letter::Swap { node, is_awaited: true, expected, record: *record });
            }
            Effect::Read if self.nodes[node].no_etcd.is_none() => {
                self.prompt.push_back(Letter::Known { node, revision: COUNT, record: self.record.clone() });
            }
            Effect::Order(order) => {
                let run = self.nodes[node].server.run;
                self.prompt.push_back(Letter::Order { node, run, order });
            }
            Effect::Promise { epoch, nodes, .. } => {
                let letters =
                    nodes.iter().map(|to| Letter::AskPromise { from: node, to: number(to), epoch, asked: NOW });
                self.prompt.extend(letters);
            }
            Effect::Reply { is_done, id, .. } => self.sights.switchover |= is_done && id == "switchover",
            Effect::Read | Effect::Serve { .. } | Effect::Retire => {}
        }
    }

    fn deliver(&mut self, scope: &Scope) {
        self.check(scope);
        while let Some(letter) = self.prompt.pop_front() {
            if self.arming.is_some() && letter.kind() == self.arming {
                self.arming = None;
                self.late.push((letter, 0));
                continue;
            }
            self.arrive(scope, letter);
            self.check(scope);
        }
    }

    fn arrive(&mut self, scope: &Scope, letter: Letter) {
        if let Letter::SwapAnswer { node, .. }
        | Letter::Known { node, .. }
        | Letter::Answered { node, .. }
        | Letter::Promised { to: node, .. } = &letter
            && self.nodes[*node].is_stalled
        {
            let node = *node;
            return self.nodes[node].inbox.push(letter);
        }
        match letter {
            Letter::Swap { node, is_awaited, expected, record } => {
                if self.nodes[node].no_etcd.is_none() || !is_awaited {
                    let outcome = self.apply(scope, *expected, record);
                    if is_awaited {
                        self.prompt.push_back(Letter::SwapAnswer { node, outcome });
                    }
                }
            }
            Letter::SwapAnswer { node, outcome } => {
                if self.nodes[node].no_etcd.is_none() && self.nodes[node].pending.take().is_some() {
                    self.tell(node, |keeper| {
                        if scope.broken == Some(Broken::RenewedWhenReceived) && matches!(outcome, SwapOutcome::Won(_)) {
                            keeper.forget_when_it_was_sent(NOW);
                        }
                        keeper.swapped(outcome, NOW);
                    });
                }
            }
            Letter::Known { node, revision, mut record } => {
                let is_mine = record.as_ref().is_some_and(|record| record.owner == name(node));
                if scope.broken == Some(Broken::Margin) && !is_mine {
                    record.iter_mut().for_each(|record| record.lease_ms = record.lease_ms * 9 / 11);
                }
                if self.nodes[node].no_etcd.is_none() {
                    self.tell(node, |keeper| keeper.record(sighting(revision, record), NOW));
                }
            }
            Letter::Order { node, run, order } => {
                let server = &mut self.nodes[node].server;
                if !server.is_up || server.run != run {
                    return;
                }
                match server.is_frozen {
                    true => server.waiting.push(order),
                    false => self.obey(scope, node, order),
                }
            }
            Letter::Answered { node, run, answer } => {
                if self.nodes[node].server.run == run {
                    self.tell(node, |keeper| keeper.answered(answer, NOW));
                }
            }
            Letter::AskPromise { from, to, epoch, asked } => self.promise(from, to, epoch, asked),
            Letter::Promised { to, of, epoch, asked } => {
                let is_late = scope.broken == Some(Broken::PromisedWhenReceived);
                let asked = if is_late { NOW } else { asked };
                self.tell(to, |keeper| keeper.promised(&name(of), epoch, right_until(asked, LEASE), NOW));
            }
            Letter::Batch { from, to, run, epoch, data } => self.take_batch(scope, from, (to, run), epoch, data),
        }
    }

    // ---- etcd ----

    fn apply(&mut self, scope: &Scope, expected: Expected, record: ShardRecord) -> SwapOutcome {
        let current = if self.record.is_some() { COUNT } else { 0 };
        // Who is told a shorter lease does not know what stands there.
        let is_same = self.record == expected.value.record || scope.broken == Some(Broken::Margin);
        let is_it = current == expected.revision && is_same;
        if !is_it && scope.broken != Some(Broken::Compare) {
            return SwapOutcome::Lost(Box::new(sighting(COUNT, self.record.clone())));
        }
        let seqs = record.seq as i64 - COUNT;
        if let Some(old) = self.record.replace(record.clone()) {
            if old.epoch != record.epoch {
                self.holders = old.members.iter().map(|member| member.run.clone()).chain([old.run.clone()]).collect();
                let is_claim = record.handover_from.is_none() && !self.has_forced;
                if is_claim && !self.holders.contains(&record.run) {
                    // After the wait for a bootstrap, what members hold that cannot be reached is given up.
                    self.bare = (record.epoch, self.writes);
                    self.acked.clear();
                }
            }
            let is_same = old.epoch == record.epoch;
            self.sights.removed |= is_same && old.members.iter().any(|member| !record.members.contains(member));
            self.sights.added |= is_same && record.members.iter().any(|member| !old.members.contains(member));
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].no_etcd.is_none() {
                let record = Some(record.clone());
                self.prompt.push_back(Letter::Known { node, revision: COUNT + 1, record });
            }
        }
        self.shift(Shift { revisions: 1, seqs, ..Shift::default() }, None);
        SwapOutcome::Won(COUNT)
    }

    // ---- servers ----

    /// What `obey` in the server's role says.
    fn obey(&mut self, scope: &Scope, node: usize, order: ServerOrder) {
        let server = &mut self.nodes[node].server;
        let has_promised = server.promised > NOW;
        let keeps = scope.broken != Some(Broken::Promise);
        let mut is_broken = false;
        let was_primary = server.role == Role::Primary;
        let mut refused = None;
        match order {
            ServerOrder::Standby { epoch, .. }
            | ServerOrder::Candidate { epoch }
            | ServerOrder::Primary { epoch, .. }
                if epoch < server.epoch =>
            {
                refused = Some("old");
            }
            ServerOrder::Standby { epoch, .. } => {
                (server.role, server.epoch, server.has_owner) = (Role::Standby, epoch, true);
            }
            ServerOrder::Candidate { epoch } if epoch > 1 && scope.broken == Some(Broken::Candidacy) => {
                refused = Some("never");
            }
            ServerOrder::Candidate { .. } if was_primary => refused = Some("primary"),
            ServerOrder::Candidate { .. } | ServerOrder::Primary { .. }
                if server.role == Role::Standby && has_promised && keeps =>
            {
                refused = Some("promised");
            }
            ServerOrder::Candidate { epoch } | ServerOrder::Primary { epoch, .. }
                if epoch == server.epoch && server.has_owner =>
            {
                refused = Some("taken");
            }
            ServerOrder::Candidate { .. } => {
                is_broken = has_promised;
                server.role = Role::Candidate;
            }
            ServerOrder::Primary { epoch, deadline, drops_all } => {
                is_broken = has_promised && !was_primary;
                if drops_all && !was_primary && epoch > server.epoch && scope.broken != Some(Broken::Drop) {
                    server.data.clear();
                }
                if !was_primary || server.epoch != epoch {
                    (server.role, server.epoch, server.has_owner) = (Role::Primary, epoch, false);
                    (server.deadline, server.holds) = (Duration::ZERO, Duration::ZERO);
                }
                server.deadline = server.deadline.max(deadline);
            }
            ServerOrder::Members(Requirement { least, names }) => {
                (server.least, server.names) = (least as usize, names);
            }
            ServerOrder::Hold(time) => server.holds = NOW + time,
            ServerOrder::Go => server.holds = Duration::ZERO,
        }
        if server.role != Role::Primary {
            server.unanswered.clear();
        }
        let (lsn, epoch) = (server.data.len() as u64, server.epoch);
        let answer = refused.map_or(OrderAnswer::Done { lsn }, |why| OrderAnswer::Refused {
            why: why.to_owned(),
            epoch: if why == "old" { epoch } else { 0 },
        });
        let run = server.run;
        if is_broken {
            self.violate(PROMISED);
        }
        self.prompt.push_back(Letter::Answered { node, run, answer });
    }

    fn promise(&mut self, from: usize, to: usize, epoch: u64, asked: Duration) {
        let is_cut = self.nodes[from].no_peers || self.nodes[to].no_peers;
        let server = &mut self.nodes[to].server;
        let is_fit = server.role == Role::Standby && server.epoch == epoch;
        if !is_cut && server.is_up && !server.is_frozen && is_fit {
            server.promised = server.promised.max(NOW + LEASE);
            self.prompt.push_back(Letter::Promised { to: from, of: to, epoch, asked });
        }
    }

    /// Sends what this node has to the others, if its keeper owns the shard.
    fn feed(&mut self, from: usize) {
        let Node { keeper, is_stalled, server, no_peers, .. } = &self.nodes[from];
        let feeding = keeper.as_ref().and_then(|keeper| keeper.feeding().map(|(epoch, _)| epoch));
        let is_cut = *no_peers;
        let data = server.data.clone();
        let (Some(epoch), true) = (feeding, server.is_up && !server.is_frozen && !is_stalled) else {
            if !is_stalled {
                self.nodes[from].feeds.fill(Feed::default());
            }
            return;
        };
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let run = self.nodes[to].server.run;
            let is_there = !is_cut && !self.nodes[to].no_peers && self.nodes[to].server.is_up;
            let feed = &mut self.nodes[from].feeds[to];
            feed.age = (feed.age + 1).min(LAG_MAX + 1);
            if is_there && (feed.run != run || feed.epoch != epoch) {
                *feed = Feed { run, epoch, age: feed.age, ..Feed::default() };
            }
            if is_there {
                self.prompt.push_back(Letter::Batch { from, to, run, epoch, data: data.clone() });
            }
        }
    }

    fn take_batch(&mut self, scope: &Scope, from: usize, (to, run): (usize, u8), epoch: u64, data: Vec<u8>) {
        let server = &mut self.nodes[to].server;
        if !server.is_up || server.run != run || server.is_frozen {
            return;
        }
        let is_fenced = server.role == Role::Waiting || server.role == Role::Primary || server.epoch != epoch;
        if is_fenced && scope.broken != Some(Broken::Fence) {
            return;
        }
        let is_older = epoch < server.epoch || server.role == Role::Primary;
        // Batches of one epoch come in order: an older one tells nothing new.
        if is_older || data.len() >= server.data.len() || !server.data.starts_with(&data) {
            server.data.clone_from(&data);
        }
        if is_older {
            self.violate(FENCED);
        }
        let feed = &mut self.nodes[from].feeds[to];
        if feed.run == run && feed.epoch == epoch {
            (feed.is_streaming, feed.age) = (true, 0);
            feed.confirmed = feed.confirmed.max(data.len());
        }
    }

    fn figures(&self, node: usize) -> Vec<Peer> {
        let feeds = self.nodes[node].feeds.iter().enumerate().filter(|(to, _)| *to != node);
        let peer = |(to, feed): (usize, &Feed)| Peer {
            node: name(to),
            run: feed.run.to_string(),
            is_streaming: feed.is_streaming,
            is_late: !feed.is_streaming || feed.age > LAG_MAX,
            confirmed: feed.confirmed as u64,
            lacks: false,
        };
        feeds.map(peer).collect()
    }

    /// Lets replies go that everybody has who is waited for.
    fn acknowledge(&mut self, scope: &Scope, node: usize) {
        let Node { server, feeds, is_stalled, .. } = &self.nodes[node];
        if !self.serves(scope, node) || *is_stalled || server.names.len() < server.least {
            return;
        }
        let has = |name: &String, place: usize| {
            let Some((name, run)) = name.split_once('@') else { return false };
            let feed = &feeds[number(name)];
            let is_skipped = scope.broken == Some(Broken::RemovedAfter) && feed.age > 0;
            is_skipped || feed.run.to_string() == run && feed.is_streaming && feed.confirmed >= place
        };
        let is_done = |place: &usize| server.names.iter().all(|name| has(name, *place));
        let (done, unanswered): (Vec<_>, Vec<_>) = server.unanswered.iter().partition(|place| is_done(place));
        let acked: Vec<u8> = done.iter().map(|place: &usize| server.data[*place - 1]).collect();
        if server.least > 0 {
            self.sights.acknowledged |= !acked.is_empty();
            self.acked.extend(acked);
        }
        self.nodes[node].server.unanswered = unanswered;
    }
}
