//! Who owns the shard: one node's part of the lease, as a state machine without sockets and clocks.
//!
//! ```text
//!   shard record in etcd ──┐                               ┌──> Swap, Read: compare-and-swap of the shard record
//!   answers of the server ─┼─> Keeper: note, then `decide` ┼──> ServerOrder: roles, deadlines, members for the local server
//!   state of the peers ────┤   looks at all that is known  ├──> Promise: ask members to wait, while etcd is away
//!   the time ──────────────┘                               └──> Serve, Retire: the shard's address
//!
//!   by the record, a node is one of these; nothing else is remembered:
//!
//!     unknown   not read yet: the server is left as it is
//!     absent    there is none, or what stands there is none: whoever creates it, after a lease, owns the shard
//!     free      given back: a member takes it at once; without members anybody does, empty
//!     another's a member takes it when the lease has passed; another node after `bootstrap_ms` more, empty
//!     ours      by a run of the server that has gone: it is given back
//!     ours      renewed again and again; the server may answer until the deadline that follows from that
//!     a past one, while etcd was put back: nothing, until whoever owned the shard is silent for certain (`ledger`)
//! ```
//!
//! Invariants (what the lease rests on is in the head of the folder):
//! - the server is never told a deadline later than the last renewal that is known to have succeeded, or all promises,
//!   allow for;
//! - nobody swaps itself in as owner before the server agrees to be a candidate, unless the old owner handed over;
//! - a node that is no member drops what it holds before it serves, and not before it owns the shard;
//! - a member is removed from the record before replies go on without it, and added only when it has everything.
//!
//! Not here: becoming the owner (`takeover`) and giving the shard to another node (`switchover`), sockets and threads
//! (`driver`), who is in sync (`members`), what the server does with its role.

mod switchover;
mod takeover;

use super::claim::{Candidacy, Empties, lease_of, margin_of, right_until};
use super::handover::{Handover, HandoverStep};
use super::ledger::{Ledger, Rights};
use super::local::{LocalServer, ServerFacts, ServerState};
use super::members::{InSync, Peer};
use super::orders::{Effect, KeeperConfig, OrderAnswer, ServerOrder, Sighting, SwapOutcome};
use super::repeats::Repeats;
use super::unwilling::Unwilling;
use crate::cluster::record::{EPOCH_MAX, MemberRecord, RequestKind, RequestRecord, ShardRecord};
use std::collections::VecDeque;
use std::time::Duration;

/// One or two of them may be lost or late.
const RENEWALS_PER_LEASE: u32 = 5;

/// A node that says it knows of an epoch that is higher by more than this is mistaken.
const LEAP_MAX: u64 = 4096;

/// The server was asked for its last change.
const ASKED: u64 = u64::MAX;

/// See the module's head. Times are since boot.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Keeper {
    config: KeeperConfig,
    /// An earlier process may have told the server a deadline of a lease after this,
    started: Duration,
    /// and that lease was the longest that a record of this node has had.
    longest: Option<Duration>,
    effects: VecDeque<Effect>,
    ledger: Ledger,
    server: ServerState,
    candidacy: Option<Candidacy>,
    /// The last change of the server when the shard was handed to it; [`ASKED`] until the server has told it.
    inherited: Option<u64>,
    /// The revision that it wanted to replace last.
    tried: i64,
    /// No new candidacy before this: meanwhile the server follows, and may promise to wait.
    stands_back: Duration,
    members: InSync,
    handover: Option<Handover>,
    /// An operator wants this node to be the owner, member or not: until when, and after the owner of which epoch.
    forced: (Duration, u64),
    is_paused: bool,
    /// Whether the address is here.
    holds_address: bool,
    /// The highest epoch that the server of another node has heard of.
    heard_epoch: u64,
    /// Claims without data.
    empties: Empties,
    /// What the server does not do although this node owns the shard.
    unwilling: Unwilling,
    /// The last epoch of which it was logged that few are left.
    warned_of: u64,
    /// What was logged of the record,
    odd: Repeats,
    /// of what the server does not do,
    refusals: Repeats,
    /// and of why this node does not take over.
    waits: Repeats,
}

impl Keeper {
    /// A node that knows nothing yet.
    pub(crate) fn new(config: KeeperConfig, now: Duration) -> Keeper {
        Keeper {
            ledger: Ledger::new(&config.process),
            config,
            started: now,
            longest: None,
            effects: VecDeque::new(),
            server: ServerState::Unreachable { deadline: Duration::ZERO },
            candidacy: None,
            inherited: None,
            tried: -1,
            stands_back: Duration::ZERO,
            members: InSync::default(),
            handover: None,
            forced: (Duration::ZERO, 0),
            is_paused: false,
            holds_address: false,
            heard_epoch: 0,
            empties: Empties::default(),
            unwilling: Unwilling::default(),
            warned_of: 0,
            odd: Repeats::default(),
            refusals: Repeats::default(),
            waits: Repeats::default(),
        }
    }

    // ---- what the owner of the sockets calls ----

    /// What to do next, until it says None.
    pub(crate) fn effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// The record was read or has changed. Old news changes nothing.
    pub(crate) fn record(&mut self, sighting: Sighting, now: Duration) {
        self.note_record(sighting, now);
        self.decide(now);
    }

    /// The answer to a swap.
    pub(crate) fn swapped(&mut self, outcome: SwapOutcome, now: Duration) {
        match outcome {
            SwapOutcome::Won(revision) => {
                if self.ledger.won(revision, self.rights(), now) {
                    self.record_changed(revision, now);
                }
            }
            SwapOutcome::Lost(sighting) => {
                self.ledger.lost(now);
                self.candidacy = None;
                if !self.note_record(*sighting, now) {
                    self.effects.push_back(Effect::Read); // it is known, or etcd was put back: an answer of later tells
                }
            }
            SwapOutcome::Unknown | SwapOutcome::NotDone => {
                self.ledger.failed(outcome == SwapOutcome::Unknown, now);
                // Without etcd it cannot be done, and the owner may need a promise that no candidate gives.
                if self.candidacy.take().is_some() {
                    self.stands_back = now + self.lease() / 2;
                }
                self.effects.push_back(Effect::Read);
            }
        }
        self.decide(now);
    }

    /// The server is there; a connection of its own is open.
    pub(crate) fn server_up(&mut self, facts: ServerFacts<'_>, now: Duration) {
        self.server = ServerState::Up(LocalServer::new(facts, self.server_deadline(), now));
        self.members.server_changed();
        self.unwilling = Unwilling::default();
        self.decide(now);
    }

    /// The connection to the server has ended, and perhaps its process.
    pub(crate) fn server_down(&mut self, is_gone: bool, now: Duration) {
        self.server = match is_gone {
            true => ServerState::Gone,
            false => ServerState::Unreachable { deadline: self.server_deadline() },
        };
        self.candidacy = None;
        self.handover = None;
        self.decide(now);
    }

    /// The server's answer to the oldest order that it has not answered.
    pub(crate) fn answered(&mut self, answer: OrderAnswer, now: Duration) {
        let ServerState::Up(server) = &mut self.server else { return };
        let Some(order) = server.answered() else { return };
        match answer {
            OrderAnswer::Done { lsn } => {
                server.lsn = server.lsn.max(lsn);
                server.obeyed(&order);
                self.obeyed(&order, lsn);
            }
            OrderAnswer::Refused { why, epoch } => {
                server.epoch = server.epoch.max(epoch);
                server.refused(&order, now);
                self.refused(&order, &why, now);
            }
        }
        self.decide(now);
    }

    /// How the peers are that this node feeds. To be called often: it also tells that time has passed.
    pub(crate) fn peers(&mut self, peers: Vec<Peer>, now: Duration) {
        self.members.note_peers(peers);
        self.decide(now);
    }

    /// The node has promised not to become a candidate, and this one may count on that until then.
    pub(crate) fn promised(&mut self, node: &str, epoch: u64, until: Duration, now: Duration) {
        if self.owned().is_some_and(|record| record.epoch == epoch) {
            self.members.note_promise(node, until);
        }
        self.decide(now);
    }

    /// The server of another node has heard of this epoch, and takes nothing of a lower one.
    pub(crate) fn heard(&mut self, epoch: u64, now: Duration) {
        let known = self.ledger.epoch.max(self.heard_epoch);
        if epoch <= known + LEAP_MAX {
            self.heard_epoch = self.heard_epoch.max(epoch);
        } else if self.odd.is_news("a leap", now) {
            log::error!("a node says that its server knows of epoch {epoch}, and this one of {known}: not believed");
        }
        self.decide(now);
    }

    /// Whether operators have switched off automatic takeovers.
    pub(crate) fn pause(&mut self, is_paused: bool, now: Duration) {
        self.is_paused = is_paused;
        self.decide(now);
    }

    /// An operator wants something.
    pub(crate) fn request(&mut self, request: RequestRecord, now: Duration) {
        match request.what {
            RequestKind::Promote if request.to == self.config.node => self.force(request, now),
            RequestKind::Switchover => self.begin_handover(request, now),
            RequestKind::Promote => {}
        }
        self.decide(now);
    }

    /// The record, if this node owns the shard by it.
    pub(crate) fn owned(&self) -> Option<&ShardRecord> {
        let record = self.known()?;
        let server = self.server.up()?;
        (record.owner == self.config.node && record.run == server.run).then_some(record)
    }

    /// The server beside this keeper, if it is there.
    pub(super) fn local(&self) -> Option<&LocalServer> {
        self.server.up()
    }

    /// The record as it is known.
    pub(crate) fn known(&self) -> Option<&ShardRecord> {
        self.ledger.known()
    }

    /// Until when the server may answer, if it is primary.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let record = self.owned()?;
        // A record that gives the shard away may stand there already if it was sent, and then the next owner does not wait.
        let is_other = |other: &ShardRecord| (&other.owner, &other.run) != (&record.owner, &record.run);
        let lease = right_until(self.ledger.renewed.filter(|_| !self.ledger.records().any(is_other))?, self.right());
        let bootstrap = lease + Duration::from_millis(record.bootstrap_ms);
        let promised = self.members.promised(&self.config.node, self.ledger.records(), bootstrap);
        Some(promised.map_or(lease, |promised| lease.max(promised)))
    }

    /// Why this node has given the shard back, if its server refuses to serve.
    pub(crate) fn refusal(&self) -> Option<&str> {
        self.unwilling.why()
    }

    /// The secret of the feeders, and the epoch that they feed in, while this node feeds.
    pub(crate) fn feeding(&self) -> Option<(u64, &str)> {
        let record = self.owned().filter(|record| !record.drops_all)?;
        self.ledger.renewed?;
        Some((record.epoch, &record.secret))
    }

    /// Who had everything when the shard was handed over, and the last change of this server at that moment: the others
    /// have all up to it.
    pub(crate) fn inherited(&self) -> Option<(Vec<MemberRecord>, u64)> {
        let record = self.owned()?;
        let others = record.handover_from.iter().chain(&record.handover_whole).cloned().collect();
        self.inherited.filter(|lsn| *lsn != ASKED).map(|lsn| (others, lsn))
    }

    // ---- what is known ----

    /// False: that is old news.
    fn note_record(&mut self, sighting: Sighting, now: Duration) -> bool {
        let revision = sighting.revision;
        let is_news = self.ledger.note(sighting, self.rights(), now);
        if is_news {
            if let Some(why) = self.ledger.damage().filter(|why| self.odd.is_news(why, now)) {
                log::error!("the shard record in etcd is damaged: {why}; the owner writes it again");
            }
            self.record_changed(revision, now);
        }
        is_news
    }

    fn record_changed(&mut self, revision: i64, now: Duration) {
        let is_mine = |record: &&ShardRecord| record.owner == self.config.node;
        self.longest = self.longest.max(self.known().filter(is_mine).map(lease_of));
        if revision < self.candidacy.map_or(0, |candidacy| candidacy.expected) {
            self.candidacy = None; // etcd was put back
        }
        let candidacy = self.candidacy.take_if(|candidacy| candidacy.expected < revision);
        if self.owned().is_none() {
            self.members.forget();
            self.inherited = None;
            self.end_handover();
        } else {
            self.forced = (Duration::ZERO, 0);
            candidacy.iter().filter(|candidacy| candidacy.is_empty).for_each(|_| self.empties.note(now));
        }
    }

    /// Until when this node has the right to serve, if it owns the shard.
    fn rights(&self) -> Rights {
        let run = self.server.up().map_or("", |server| &server.run);
        let is_me = |member: &MemberRecord| member.node == self.config.node && member.run == run;
        let is_member = self.known().is_some_and(|record| record.members.iter().any(is_me));
        let wait = self.config.lease + self.config.lease / RENEWALS_PER_LEASE;
        Rights { until: self.deadline(), wait, is_member }
    }

    fn obeyed(&mut self, order: &ServerOrder, lsn: u64) {
        match order {
            ServerOrder::Candidate { epoch } => {
                // It may have been told something else since.
                let is_last = self.server.up().is_some_and(|server| !server.is_asked_for_role());
                let candidacy = self.candidacy.as_mut().filter(|candidacy| candidacy.epoch == *epoch);
                candidacy.into_iter().for_each(|candidacy| candidacy.is_agreed |= is_last);
            }
            ServerOrder::Primary { epoch, .. } => {
                self.unwilling = Unwilling::default();
                if !std::mem::replace(&mut self.holds_address, true) {
                    self.effects.push_back(Effect::Serve { epoch: *epoch });
                }
            }
            ServerOrder::Members(requirement) => self.members.required(&requirement.names, lsn),
            ServerOrder::Hold(_) => self.step_handover(HandoverStep::Holding, HandoverStep::Draining { lsn }),
            ServerOrder::Standby { .. } => self.step_handover(HandoverStep::Stepping, HandoverStep::Settling { lsn }),
            // Only the first one of a tenure asks where it began. Later ones end a switchover that was given up.
            ServerOrder::Go if self.inherited == Some(ASKED) => self.inherited = Some(lsn),
            ServerOrder::Go => {}
        }
    }

    fn refused(&mut self, order: &ServerOrder, why: &str, now: Duration) {
        match order {
            ServerOrder::Primary { epoch, .. } => self.unwilling.refused(*epoch, why, now),
            ServerOrder::Members(_) => self.members.not_required(now),
            _ => {}
        }
        match order {
            ServerOrder::Candidate { .. } => {
                log::debug!("the server is no candidate yet: {why}");
                self.candidacy = None;
            }
            ServerOrder::Hold(_) => self.abandon_handover(&format!("the server does not hold writes: {why}"), now),
            _ if self.refusals.is_news(why, now) => log::warn!("the server does not do as it is told: {why}"),
            _ => {}
        }
    }

    // ---- what to do ----

    /// Looks at all that is known. It may be called at any time, any number of times.
    fn decide(&mut self, now: Duration) {
        if self.ledger.ask(self.lease() / 2, now) {
            self.effects.push_back(Effect::Read);
        }
        if self.ledger.seen.is_none() {
            return;
        }
        match self.known() {
            _ if now < self.ledger.settles() => self.retire(),
            Some(record) if record.owner == self.config.node && self.is_past(record) => self.follow(now),
            Some(record) if record.owner == self.config.node && self.owned().is_some() => self.own(now),
            Some(record) if record.owner == self.config.node => self.part(now),
            _ => self.follow(now),
        }
    }

    /// Whether a later owner is known of than the record's, which this process has not renewed: etcd was put back, or an
    /// earlier process did not end a switchover, as the record says then. Members take over in both.
    fn is_past(&self, record: &ShardRecord) -> bool {
        let known = self.server.up().map_or(0, |server| server.epoch).max(self.ledger.epoch);
        known > record.epoch && self.ledger.renewed.is_none()
    }

    /// This node owns the shard, by the run that its server is.
    fn own(&mut self, now: Duration) {
        let is_heard =
            self.server.up().and_then(LocalServer::silent_since).is_none_or(|since| now < since + self.right() / 2);
        let (known, epoch) = (self.server.up().map(|server| server.epoch), self.owned().map(|record| record.epoch));
        if !is_heard && now >= self.server_deadline() || known > epoch && self.handover.is_none() {
            return self.give_back(now); // or it was told of a successor that the record does not name
        }
        if epoch.is_some_and(|epoch| self.unwilling.is_it(epoch, self.lease(), now)) && now >= self.server_deadline() {
            return self.give_up(now);
        }
        epoch.into_iter().for_each(|epoch| self.warn_of_last(epoch));
        self.keep_members(now);
        if self.hand_over(now) || self.owned().is_none() {
            return;
        }
        let deadline = self.deadline().filter(|deadline| now < *deadline);
        if known < epoch && self.ledger.renewed.is_none() && self.inherited.is_none() {
            // The server is a standby still, which nobody feeds any more.
            self.inherited = Some(ASKED);
            self.order(ServerOrder::Go, now);
        }
        if is_heard {
            self.renew(now);
            if let Some((deadline, record)) = deadline.zip(self.owned()) {
                let order = ServerOrder::Primary { epoch: record.epoch, deadline, drops_all: record.drops_all };
                self.tell_role(order, now);
            }
        }
        if deadline.is_none() && self.holds_address && now >= self.server_deadline() + self.margin() {
            self.retire();
        }
    }

    /// Renews the lease when it is time, or when the members change.
    fn renew(&mut self, now: Duration) {
        let (drops_all, hands_over) = (self.drops_all(), self.handover.is_some());
        let says_else = |record: &ShardRecord| (record.drops_all, record.hands_over) != (drops_all, hands_over);
        let is_due = self.ledger.renewed.is_none()
            || self.ledger.is_replaced()
            || self.owned().is_some_and(says_else)
            || self.ledger.swapped_at.is_none_or(|at| now >= at + self.right() / RENEWALS_PER_LEASE);
        let Some(record) = self.owned() else { return };
        let acks = self.server.up().map_or(0, |server| server.replicas_ack);
        let members = self.members.wanted(acks, &record.members);
        let nodes = self.members.nodes(&record.nodes);
        let is_other = members.len() != record.members.len() || members.iter().any(|it| !record.members.contains(it));
        let is_low = self.lifted(record.epoch).is_some();
        if is_due || is_other || is_low || nodes != record.nodes {
            // Nobody takes over before the latest deadline that the server may have been told.
            let least = if self.server_deadline() > now + self.config.lease { record.lease_ms } else { 0 };
            let mut record =
                self.config.stamp(ShardRecord { members, nodes, drops_all, hands_over, ..record.clone() }, acks);
            record.lease_ms = record.lease_ms.max(least);
            if let Some(epoch) = self.lifted(record.epoch) {
                log::warn!("another server knows of an epoch above {}: goes on in epoch {epoch}", record.epoch);
                record.epoch = epoch;
            }
            self.swap(record, now);
        }
        self.ask_promises(now);
    }

    /// Whether this node owns the shard, and its server is not known to have dropped what it held before.
    fn drops_all(&self) -> bool {
        let dropped_for = self.server.up().map(|server| server.dropped_for);
        self.owned().is_some_and(|record| record.drops_all && dropped_for != Some(record.epoch))
    }

    /// The epoch to go on in, if a server would not be fed in this one.
    fn lifted(&self, epoch: u64) -> Option<u64> {
        let is_low = self.heard_epoch > epoch && self.handover.is_none();
        is_low.then_some(self.heard_epoch + 1).filter(|epoch| *epoch <= EPOCH_MAX)
    }

    /// Asks for promises when the last renewal was long ago.
    fn ask_promises(&mut self, now: Duration) {
        let is_late = self.ledger.renewed.is_some_and(|at| now >= at + self.right() / 2);
        let Some(epoch) = self.owned().map(|record| record.epoch).filter(|_| is_late) else { return };
        let every = self.right() / RENEWALS_PER_LEASE;
        let nodes = self.members.promises_due(&self.config.node, self.ledger.records(), every, now);
        let lease = self.right();
        self.effects.extend(nodes.map(|nodes| Effect::Promise { epoch, lease, nodes }));
    }

    /// Sets from whom the server waits for acknowledgements.
    fn keep_members(&mut self, now: Duration) {
        let Some(server) = self.server.up() else { return };
        if self.owned().is_none() || server.is_asked_for_members() || self.members.is_pausing(now) {
            return;
        }
        let least = server.replicas_ack;
        if let Some(requirement) = self.members.requirement(least, self.ledger.records()) {
            self.order(ServerOrder::Members(requirement), now);
        }
    }

    /// The record names this node, with a run of the server that is not there.
    fn part(&mut self, now: Duration) {
        let is_over = match &self.server {
            ServerState::Gone => true,
            // Another run may be beside it, or a node of the same name elsewhere: its owner would renew.
            _ => now >= (self.ledger.seen_at() + self.lease() + self.margin()).max(self.server.deadline()),
        };
        if is_over {
            self.give_back(now);
        }
    }

    /// Gives the shard back because the server does not serve, and lets others try first.
    fn give_up(&mut self, now: Duration) {
        let (wait, is_first) = self.unwilling.give_back(self.ledger.epoch, self.lease());
        self.stands_back = now + wait;
        if let Some(why) = self.unwilling.why().filter(|_| is_first) {
            let ms = wait.as_millis();
            log::error!("the server refuses to serve, so this node does not claim the shard for {ms} ms: {why}");
        }
        self.give_back(now);
    }

    /// Gives the shard back: a member may take it at once.
    fn give_back(&mut self, now: Duration) {
        self.retire();
        let (Some(record), false) = (self.known(), self.ledger.is_swapping(now)) else { return };
        log::info!("gives the shard back: the server of run {} does not serve any more", record.run);
        let mut members = record.members.clone();
        if self.owned().is_some() && !self.drops_all() {
            let me = MemberRecord { node: record.owner.clone(), run: record.run.clone() };
            if self.handover.is_some() {
                // The successor did not take everything, and this node has it: it goes on at once, before the others.
                members.retain(|member| !self.members.lacks(member));
                members.insert(0, me);
            } else {
                members.push(me); // it hangs, but it has everything, and may be the only one
            }
        }
        // The server may have been told of a successor that does not come: then that epoch is used.
        let told = self.owned().and(self.server.up()).map_or(0, |server| server.epoch);
        let epoch = if told == record.epoch + 1 { told } else { record.epoch };
        self.swap(ShardRecord { epoch, members, ..record.clone().without_owner() }, now);
    }

    /// Sends a swap, unless one is on its way.
    fn swap(&mut self, record: ShardRecord, now: Duration) {
        if !self.ledger.is_swapping(now) {
            let (expected, record) = self.ledger.send(record, now);
            self.effects.push_back(Effect::Swap { expected: Box::new(expected), record: Box::new(record) });
        }
    }

    /// Tells the server its role, unless it was told that.
    fn tell_role(&mut self, order: ServerOrder, now: Duration) {
        if self.server.up().is_some_and(|server| !server.is_pausing(now) && server.wants(&order)) {
            self.order(order, now);
        }
    }

    fn order(&mut self, order: ServerOrder, now: Duration) {
        let ServerState::Up(server) = &mut self.server else { return };
        server.tell(&order, now);
        self.effects.push_back(Effect::Order(order));
    }

    fn reply(&mut self, id: String, is_done: bool, text: &str) {
        self.effects.push_back(Effect::Reply { id, is_done, text: text.to_owned() });
    }

    fn retire(&mut self) {
        if std::mem::take(&mut self.holds_address) {
            self.effects.push_back(Effect::Retire);
        }
    }

    /// The latest deadline that the server may have been told.
    fn server_deadline(&self) -> Duration {
        match self.server {
            ServerState::Gone => Duration::ZERO,
            _ => self.server.deadline().max(self.started + self.longest.unwrap_or_else(|| self.lease())),
        }
    }

    /// How long a renewal is good for: the lease that others wait for, or the one of the options if that is shorter.
    fn right(&self) -> Duration {
        self.lease().min(self.config.lease)
    }

    /// The lease of the record, or of this node's own while there is none.
    fn lease(&self) -> Duration {
        self.known().map_or(self.config.lease, lease_of)
    }

    fn margin(&self) -> Duration {
        self.known().map_or(Duration::ZERO, margin_of)
    }
}

#[cfg(test)]
#[path = "../tests/shift_keeper.rs"]
mod shift;

#[cfg(test)]
#[path = "../tests/keeper.rs"]
mod tests;
