//! One keeper, an etcd that answers at once (or not at all), and a server that does what it is told (or refuses).
//!
//! What many schedules of several nodes bring about is in `simulation` and `model`; here are single rules and their
//! times, each of which was broken once.

use super::super::local::ServerFacts;
use super::super::members::Peer;
use super::super::orders::{
    Effect, Expected, KeeperConfig, OrderAnswer, RecordValue, ServerOrder, Sighting, SwapOutcome,
};
use super::Keeper;
use crate::cluster::record::{EPOCH_MAX, MemberRecord, RequestKind, RequestRecord, ShardRecord};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const LEASE: Duration = Duration::from_secs(1);
const BOOTSTRAP: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_millis(10);

/// Time since boot, at the start.
const START: Duration = Duration::from_secs(1000);

struct Rig {
    keeper: Keeper,
    now: Duration,
    /// How often it looks around.
    tick: Duration,
    /// The revisions of etcd, and of the value there.
    store: i64,
    revision: i64,
    value: RecordValue,
    /// etcd does not answer, and does nothing;
    is_away: bool,
    /// it does not answer reads,
    is_blind: bool,
    /// nor, for the moment, these swaps.
    is_slow: bool,
    slow: Vec<(Expected, ShardRecord)>,
    run: String,
    peers: Vec<Peer>,
    /// What the server says to a role.
    refusal: Option<(String, u64)>,
    /// It does not answer.
    is_mute: bool,
    /// It does not know these orders.
    knows_not: fn(&ServerOrder) -> bool,
    orders: Vec<(Duration, ServerOrder)>,
    replies: Vec<(bool, String)>,
}

impl Rig {
    /// The node `a`, with a server that is there, and nothing in etcd.
    fn new() -> Rig {
        let mut rig = Rig::with(LEASE);
        rig.meet("r1");
        rig
    }

    fn with(lease: Duration) -> Rig {
        Rig {
            keeper: Keeper::new(config(lease), START),
            now: START,
            tick: TICK,
            store: 100,
            revision: 0,
            value: RecordValue::default(),
            is_away: false,
            is_blind: false,
            is_slow: false,
            slow: Vec::new(),
            run: String::new(),
            peers: Vec::new(),
            refusal: None,
            is_mute: false,
            knows_not: |_| false,
            orders: Vec::new(),
            replies: Vec::new(),
        }
    }

    /// It owns the shard, and its server serves.
    fn owner() -> Rig {
        let mut rig = Rig::new();
        rig.pass(2 * LEASE);
        assert!(rig.serves());
        rig
    }

    /// A server is there.
    fn meet(&mut self, run: &str) {
        self.meet_in(run, 0);
    }

    /// The same, which knows of this epoch.
    fn meet_in(&mut self, run: &str, epoch: u64) {
        self.run = run.to_owned();
        self.keeper.server_up(ServerFacts { run, lsn: 0, replicas_ack: 0, epoch }, self.now);
        self.carry_out();
    }

    /// Somebody else writes this, or takes it away.
    fn put(&mut self, value: RecordValue) {
        let follows = Some(self.sighting(false).revision);
        self.store += 1;
        (self.revision, self.value) = (self.store, value);
        let sighting = Sighting { follows, ..self.sighting(false) };
        self.keeper.record(sighting, self.now);
        self.carry_out();
    }

    fn put_record(&mut self, record: ShardRecord) {
        self.put(RecordValue { record: Some(record), odd: None });
    }

    fn sighting(&self, is_asked: bool) -> Sighting {
        let is_there = self.value != RecordValue::default();
        let revision = if is_there { self.revision } else { self.store };
        let asked = is_asked.then_some(self.now);
        Sighting { revision, store: self.store, asked, follows: None, value: self.value.clone() }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += self.tick;
            self.keeper.peers(self.peers.clone(), self.now);
            self.carry_out();
        }
    }

    fn carry_out(&mut self) {
        let mut effects = 0;
        while let Some(effect) = self.keeper.effect() {
            effects += 1;
            assert!(effects < 1000, "it never stops: {effect:?}");
            match effect {
                Effect::Swap { expected, record } if self.is_slow => self.slow.push((*expected, *record)),
                Effect::Swap { expected, record } => {
                    let outcome = self.swap(*expected, *record);
                    self.keeper.swapped(outcome, self.now);
                }
                Effect::Read if !self.is_away && !self.is_blind => {
                    let sighting = self.sighting(true);
                    self.keeper.record(sighting, self.now);
                }
                Effect::Order(order) => {
                    let answer = self.answer(&order);
                    self.orders.push((self.now, order));
                    if !self.is_mute {
                        self.keeper.answered(answer, self.now);
                    }
                }
                Effect::Reply { is_done, text, .. } => self.replies.push((is_done, text)),
                Effect::Read | Effect::Promise { .. } | Effect::Serve { .. } | Effect::Retire => {}
            }
        }
    }

    /// etcd answers what it has not answered.
    fn answer_swaps(&mut self) {
        for (expected, record) in std::mem::take(&mut self.slow) {
            let outcome = self.swap(expected, record);
            self.keeper.swapped(outcome, self.now);
            self.carry_out();
        }
    }

    fn swap(&mut self, expected: Expected, record: ShardRecord) -> SwapOutcome {
        if self.is_away {
            return SwapOutcome::Unknown;
        }
        let revision = if self.value == RecordValue::default() { 0 } else { self.revision };
        if revision != expected.revision || self.value != expected.value {
            return SwapOutcome::Lost(Box::new(self.sighting(true)));
        }
        self.store += 1;
        (self.revision, self.value) = (self.store, RecordValue { record: Some(record), odd: None });
        SwapOutcome::Won(self.store)
    }

    fn answer(&self, order: &ServerOrder) -> OrderAnswer {
        let is_role = matches!(order, ServerOrder::Primary { .. } | ServerOrder::Standby { .. });
        match &self.refusal {
            Some((why, epoch)) if is_role => OrderAnswer::Refused { why: why.clone(), epoch: *epoch },
            _ if (self.knows_not)(order) => OrderAnswer::Refused { why: "CLIENT_ERROR bad".into(), epoch: 0 },
            _ => OrderAnswer::Done { lsn: 7 },
        }
    }

    fn record(&self) -> &ShardRecord {
        self.value.record.as_ref().expect("a record")
    }

    fn serves(&self) -> bool {
        self.keeper.deadline().is_some_and(|deadline| self.now < deadline)
            && matches!(self.orders.last(), Some((_, ServerOrder::Primary { .. })))
    }

    /// The latest that the server was told.
    fn last_deadline(&self) -> Duration {
        let deadlines = self.orders.iter().filter_map(|(_, order)| match order {
            ServerOrder::Primary { deadline, .. } => Some(*deadline),
            _ => None,
        });
        deadlines.max().unwrap_or_default()
    }

    /// Whether it serves, and its server has dropped what it held.
    fn has_dropped(&self) -> bool {
        let is_it =
            |(_, order): &(Duration, ServerOrder)| matches!(order, ServerOrder::Primary { drops_all: true, .. });
        self.serves() && self.orders.iter().any(is_it) && !self.record().drops_all
    }

    /// How long it is until the server is told this for the first time, within the time.
    fn until(&mut self, most: Duration, is_it: fn(&ServerOrder) -> bool) -> Option<Duration> {
        let from = self.now;
        self.orders.clear();
        while self.now < from + most {
            self.pass(TICK);
            if let Some((at, _)) = self.orders.iter().find(|(_, order)| is_it(order)) {
                return Some(*at - from);
            }
        }
        None
    }

    fn until_candidate(&mut self) -> Option<Duration> {
        self.until(60 * LEASE, |order| matches!(order, ServerOrder::Candidate { .. }))
    }
}

fn config(lease: Duration) -> KeeperConfig {
    KeeperConfig {
        node: "a".into(),
        advertise: "a:1".into(),
        lease,
        bootstrap_wait: BOOTSTRAP,
        secret: "secret".into(),
        process: "p".into(),
    }
}

fn member(node: &str, run: &str) -> MemberRecord {
    MemberRecord { node: node.into(), run: run.into() }
}

/// A record of the owner `b`, with these members.
fn of_b(epoch: u64, members: Vec<MemberRecord>) -> ShardRecord {
    ShardRecord {
        epoch,
        owner: "b".into(),
        run: "rb".into(),
        seq: 10 * epoch,
        lease_ms: 1000,
        members,
        nodes: vec!["a".into(), "b".into()],
        bootstrap_ms: BOOTSTRAP.as_millis() as u64,
        secret: "secret".into(),
        ..ShardRecord::default()
    }
}

fn free(record: ShardRecord) -> ShardRecord {
    ShardRecord { owner: String::new(), run: String::new(), ..record }
}

fn promote(epoch: u64) -> RequestRecord {
    RequestRecord { id: "p".into(), what: RequestKind::Promote, to: "a".into(), epoch }
}

/// The sidecar was started anew, has read the record, and stood still. Meanwhile a renewal was done that the process
/// before it had sent, and says the same as its own: the right of that one may be over.
#[test]
fn a_renewal_of_the_process_before_is_not_ours() {
    let mut rig = Rig::owner();
    let read = rig.sighting(true);
    rig.pass(LEASE / 4);
    let follows = Some(read.revision);
    let late = Sighting { follows, ..rig.sighting(false) };
    assert_eq!(late.revision, read.revision + 1);

    rig.keeper = Keeper::new(KeeperConfig { process: "q".into(), ..config(LEASE) }, rig.now);
    rig.now += 3 * LEASE;
    rig.is_blind = true;
    rig.meet_in("r1", 1);
    rig.keeper.record(read, rig.now);
    let has_sent = std::iter::from_fn(|| rig.keeper.effect()).any(|effect| matches!(effect, Effect::Swap { .. }));
    assert!(has_sent, "it does not renew the lease");
    rig.keeper.record(late, rig.now);
    assert_eq!(rig.keeper.deadline(), None);
}

// ---- etcd that was put back, and records that are damaged or deleted ----

/// The owner writes its record again, over whatever stands there now, and serves all the time.
#[test]
fn an_owner_goes_on_when_its_record_is_lost() {
    let lost = [
        RecordValue::default(),
        RecordValue::new(Some(b"{".to_vec())),
        RecordValue { record: Some(free(of_b(1, vec![]))), odd: None },
    ];
    for value in lost {
        let mut rig = Rig::owner();
        // As a restored etcd has it: nobody is told, and revisions are lower.
        (rig.store, rig.revision, rig.value) = (50, 40, value.clone());
        for _ in 0..300 {
            rig.pass(TICK);
            assert!(rig.serves(), "{value:?}");
        }
        assert_eq!((rig.record().owner.as_str(), rig.record().epoch), ("a", 1));
    }
}

/// Whoever owned the shard by what is lost may serve until the end of a lease, whatever stands there now.
#[test]
fn a_record_of_the_past_gives_no_right_at_once() {
    let past = [
        Some(free(of_b(1, vec![member("a", "r1")]))),
        Some(ShardRecord { owner: "a".into(), run: "r1".into(), ..of_b(1, vec![]) }),
        Some(ShardRecord { owner: "a".into(), run: "r0".into(), ..of_b(1, vec![]) }),
        None,
    ];
    for record in past {
        let mut rig = Rig::new();
        rig.put_record(of_b(3, vec![member("a", "r1")]));
        rig.pass(LEASE / 5);
        (rig.store, rig.revision, rig.value) = (50, 40, RecordValue { record: record.clone(), odd: None });
        let waited = rig.until(10 * LEASE, |order| !matches!(order, ServerOrder::Standby { .. }));
        assert!(waited.is_some_and(|waited| waited >= LEASE + LEASE / 10), "{record:?}: {waited:?}");
        rig.pass(2 * LEASE);
        assert!(rig.serves() && rig.record().epoch > 3, "{record:?}: {:?}", rig.record());
    }
}

/// etcd is put back twice: the record of a later owner is seen and not believed yet, so the server does not hear of it,
/// when this node's own older record stands there again. It does not go on in that epoch.
#[test]
fn a_record_of_its_own_from_before_another_owner_gives_no_right() {
    let mut rig = Rig::new();
    let own = ShardRecord { owner: "a".into(), run: "r1".into(), ..of_b(1, vec![]) };
    for (store, record) in [(50, of_b(2, vec![])), (45, own)] {
        rig.pass(LEASE);
        (rig.store, rig.revision) = (store, store);
        rig.value = RecordValue { record: Some(record), odd: None };
    }
    rig.orders.clear();
    rig.pass(3 * LEASE + 2 * BOOTSTRAP);
    let served = rig.orders.iter().filter_map(|(_, order)| match order {
        ServerOrder::Primary { epoch, .. } => Some(*epoch),
        _ => None,
    });
    let served: Vec<u64> = served.collect();
    assert!(served.first().is_some_and(|epoch| *epoch > 2) && rig.has_dropped(), "{served:?}");
}

/// The revision that a node has seen last comes again, with another owner's record: that one is not replaced.
#[test]
fn a_revision_that_comes_again_is_not_ours() {
    let mut rig = Rig::new();
    rig.put_record(of_b(1, vec![member("a", "r1")]));
    rig.is_blind = true;
    rig.value = RecordValue { record: Some(of_b(2, vec![])), odd: None };
    let waited = rig.until_candidate();
    assert!(waited.is_some_and(|waited| waited < 2 * LEASE), "{waited:?}");
    rig.pass(LEASE / 5);
    assert_eq!((rig.record().owner.as_str(), rig.record().epoch), ("b", 2));
}

/// A value that is no record: an owner that is silent for longer than its lease has no more right to it than others.
#[test]
fn a_damaged_record_is_as_good_as_none_after_a_lease() {
    let mut rig = Rig::new();
    rig.put_record(of_b(3, vec![member("a", "r1")]));
    rig.put(RecordValue::new(Some(b"nonsense".to_vec())));
    let waited = rig.until_candidate().expect("a candidacy");
    assert!(waited >= LEASE + LEASE / 10 && waited < 2 * LEASE, "{waited:?}");
    rig.pass(LEASE);
    assert!(rig.serves() && rig.record().epoch == 4);
}

#[test]
fn a_record_with_impossible_numbers_is_damaged() {
    for odd in [r#""epoch":18446744073709551615"#, r#""epoch":1,"lease_ms":18446744073709551615"#] {
        let text = format!(r#"{{"owner":"b","run":"r","seq":1,"advertise":"","lease_ms":1000,{odd}}}"#);
        assert!(RecordValue::new(Some(text.clone().into_bytes())).damage().is_some(), "{text}");
    }
}

/// A field that a later version has added is written back as part of what is expected, or nothing could be replaced.
#[test]
fn a_record_of_another_version_can_be_replaced() {
    let bytes = br#"{"epoch":3,"owner":"","run":"","seq":4,"lease_ms":1000,"advertise":"","colour":1}"#;
    let value = RecordValue::new(Some(bytes.to_vec()));
    assert_eq!(value.bytes().as_deref(), Some(&bytes[..]));
    let mut rig = Rig::new();
    rig.put(value);
    rig.pass(2 * LEASE);
    assert!(rig.serves());
}

#[test]
fn a_deleted_record_is_not_created_before_the_owner_is_silent() {
    let mut rig = Rig::new();
    rig.put_record(of_b(3, vec![member("a", "r1")]));
    rig.pass(LEASE / 2);
    rig.put(RecordValue::default());
    let waited = rig.until_candidate().expect("a candidacy");
    assert!(waited >= LEASE + LEASE / 10 && waited < 2 * LEASE, "{waited:?}");
}

/// What was acknowledged is with the members, whether or not the record says so still.
/// Members are silent for as long as they have promised: who takes over from members that are no more counts that, too.
#[test]
fn who_was_no_member_waits_for_what_members_may_have_promised() {
    let past = ShardRecord { members: vec![member("a", "r1")], ..of_b(3, vec![]) };
    for (is_member, is_restored) in [(true, true), (false, true), (true, false), (false, false)] {
        let mut rig = Rig::new();
        rig.put_record(past.clone());
        rig.pass(LEASE / 2);
        let members = if is_member { vec![member("a", "r1")] } else { vec![member("c", "rc")] };
        rig.put_record(ShardRecord { seq: 50, ..of_b(4, members) });
        rig.pass(LEASE / 10);
        match is_restored {
            true => rig.put_record(free(past.clone())),
            false => rig.put(RecordValue::default()),
        }
        let waited = rig.until_candidate().expect("a candidacy");
        let least = LEASE + LEASE / 10 + if is_member { Duration::ZERO } else { BOOTSTRAP };
        assert!(waited >= least && waited < least + LEASE / 2, "{is_member} {is_restored} {waited:?}");
    }
}

#[test]
fn a_deleted_record_is_left_to_members() {
    for value in [RecordValue::default(), RecordValue::new(Some(b"{".to_vec()))] {
        let mut rig = Rig::new();
        rig.put_record(of_b(3, vec![member("c", "rc")]));
        rig.put(value);
        let waited = rig.until_candidate().expect("a candidacy");
        // The owner may have lived on promises for so long, and ends a lease after they have.
        let least = LEASE + LEASE / 10 + BOOTSTRAP;
        assert!(waited >= least && waited < least + LEASE, "{waited:?}");
        rig.pass(LEASE);
        assert!(rig.has_dropped());
        assert!(rig.serves() && rig.record().epoch == 4 && rig.record().secret == "secret");
    }
}

/// It was a member by the last record that it saw. Another one came after that, which it has not seen: others may have
/// promised the owner to wait since.
#[test]
fn a_member_that_has_missed_a_record_waits_for_promises() {
    for is_missed in [false, true] {
        let mut rig = Rig::new();
        rig.put_record(of_b(3, vec![member("a", "r1")]));
        rig.store += u64::from(is_missed) as i64;
        rig.revision = if is_missed { rig.store } else { rig.revision };
        rig.put(RecordValue::default());
        let waited = rig.until_candidate().expect("a candidacy");
        let least = LEASE + LEASE / 10 + if is_missed { BOOTSTRAP } else { Duration::ZERO };
        assert!(waited >= least && waited < least + LEASE / 2, "{is_missed} {waited:?}");
    }
}

/// A promise that the run before has given lasts for a lease.
#[test]
fn a_run_that_comes_after_a_record_was_lost_waits_for_what_the_last_one_promised() {
    for value in [RecordValue::default(), RecordValue { record: Some(free(of_b(1, vec![]))), odd: None }] {
        let mut rig = Rig::new();
        rig.put_record(of_b(3, vec![member("a", "r1")]));
        rig.put(value.clone());
        rig.pass(LEASE);
        rig.keeper.server_down(true, rig.now);
        rig.pass(5 * TICK);
        rig.meet("r2");
        let waited = rig.until_candidate().expect("a candidacy");
        assert!(waited >= LEASE + LEASE / 10, "{value:?} {waited:?}");
    }
}

/// The record was deleted before the sidecar was started: nobody knows who was in sync, and an owner may live on promises.
#[test]
fn a_server_with_a_past_begins_no_new_shard_at_once() {
    let mut rig = Rig::with(LEASE);
    rig.meet_in("r1", 4);
    let waited = rig.until_candidate().expect("a candidacy");
    assert!(waited >= LEASE + BOOTSTRAP && waited < 3 * LEASE + BOOTSTRAP, "{waited:?}");
    rig.pass(LEASE);
    assert!(rig.has_dropped() && rig.record().epoch == 5, "{:?}", rig.record());
    // An operator knows better.
    let mut rig = Rig::with(LEASE);
    rig.meet_in("r1", 4);
    rig.keeper.request(promote(0), rig.now);
    rig.pass(3 * LEASE + BOOTSTRAP);
    assert!(rig.serves() && !rig.has_dropped() && rig.record().epoch == 5, "{:?}", rig.record());
}

/// etcd was put back before the sidecar was started; its server has heard of a later owner than the record.
#[test]
fn a_record_that_is_older_than_the_server_is_believed_by_nobody() {
    let me = vec![member("a", "r1")];
    let owned = ShardRecord { owner: "a".into(), run: "r1".into(), ..of_b(3, vec![member("c", "rc")]) };
    for record in [free(of_b(3, me.clone())), of_b(3, me), owned] {
        let mut rig = Rig::with(LEASE);
        rig.meet_in("r1", 5);
        rig.put_record(record.clone());
        let waited = rig.until(60 * LEASE, |order| !matches!(order, ServerOrder::Standby { .. }));
        assert!(waited.is_some_and(|waited| waited >= LEASE + BOOTSTRAP), "{record:?} {waited:?}");
        rig.pass(LEASE);
        assert!(rig.has_dropped() && rig.record().epoch == 6, "{:?}", rig.record());
    }
}

/// The same, with the very next owner: it may serve still, and have acknowledged what this node lacks.
#[test]
fn a_record_that_is_one_epoch_old_is_no_more_believed() {
    let mut rig = Rig::with(LEASE);
    rig.meet_in("r1", 6);
    let record = ShardRecord { owner: "a".into(), run: "r1".into(), ..of_b(5, vec![member("b", "rb")]) };
    rig.put_record(record.clone());
    rig.pass(LEASE / 2);
    assert_eq!(rig.record(), &record, "others count from here");
    let waited = rig.until(60 * LEASE, |order| !matches!(order, ServerOrder::Standby { .. }));
    assert!(waited.is_some_and(|waited| waited >= LEASE / 2 + BOOTSTRAP), "{waited:?}");
    rig.pass(LEASE);
    assert!(rig.has_dropped() && rig.record().epoch == 7, "{:?}", rig.record());
}

/// The nodes that the record names were replaced: an operator may say that this one takes the shard, and nobody else.
#[test]
fn a_past_record_of_other_nodes_is_left_to_operators() {
    let past = ShardRecord { nodes: vec!["b".into(), "c".into()], ..of_b(3, vec![member("c", "rc")]) };
    let mut rig = Rig::with(LEASE);
    rig.meet_in("r1", 5);
    rig.put_record(past);
    assert_eq!(rig.until_candidate(), None);
    rig.keeper.request(promote(3), rig.now);
    rig.pass(2 * LEASE);
    assert!(rig.serves() && rig.record().epoch == 6, "{:?}", rig.record());
    assert!(rig.replies.iter().all(|(is_done, _)| *is_done), "{:?}", rig.replies);
    // Is it none of the past, then its owner may live on promises, and asks this node for none.
    let mut rig = Rig::new();
    rig.put_record(ShardRecord { nodes: vec!["b".into(), "c".into()], ..of_b(3, vec![]) });
    rig.keeper.request(promote(3), rig.now);
    rig.carry_out();
    assert!(matches!(&rig.replies[..], [(false, why)] if why.contains("does not name")), "{:?}", rig.replies);
    assert_eq!(rig.until_candidate(), None);
}

/// Servers of the lost past refuse whoever is below what they know.
#[test]
fn an_owner_lifts_itself_above_all_that_it_hears_of() {
    let mut rig = Rig::owner();
    rig.keeper.heard(9, rig.now);
    rig.pass(LEASE);
    assert!(rig.serves() && rig.record().epoch == 10, "{:?}", rig.record());
    rig.keeper.heard(u64::MAX, rig.now);
    rig.keeper.heard(EPOCH_MAX, rig.now);
    rig.pass(LEASE);
    assert!(rig.serves() && rig.record().epoch == 10, "a leap is not believed: {:?}", rig.record());
    let mut rig = Rig::new();
    rig.keeper.heard(9, rig.now);
    // There was a record, and whoever owned the shard by it may live on promises.
    rig.pass(2 * LEASE + BOOTSTRAP);
    assert_eq!(rig.record().epoch, 10);
}

// ---- what is tried again, and how often ----

#[test]
fn a_server_that_refuses_is_asked_less_and_less() {
    let mut rig = Rig::owner();
    rig.refusal = Some(("CLIENT_ERROR the epoch has passed".to_owned(), 0));
    rig.orders.clear();
    rig.pass(10 * LEASE);
    let roles = rig.orders.len();
    assert!((5..25).contains(&roles), "{roles} orders in ten seconds");
    rig.refusal = None;
    rig.pass(2 * LEASE);
    assert!(rig.serves());
}

/// An older server does not know `empty`: the node must not hold the shard, so that another one may serve.
#[test]
fn a_shard_is_given_back_if_the_server_refuses_to_serve() {
    let mut rig = Rig::new();
    rig.knows_not = |order| matches!(order, ServerOrder::Primary { drops_all: true, .. });
    rig.put_record(free(of_b(3, vec![])));
    rig.pass(LEASE / 10);
    assert_eq!(rig.record().owner, "a", "it has tried");
    rig.pass(LEASE + LEASE / 2);
    assert_eq!((rig.record().owner.as_str(), rig.record().members.len()), ("", 0), "{:?}", rig.record());
    assert_eq!(rig.keeper.refusal(), Some("CLIENT_ERROR bad"));
    // It tries again, but most of the time others may.
    let mut free = 0;
    for _ in 0..60 {
        rig.pass(LEASE);
        free += u32::from(rig.record().owner.is_empty());
    }
    assert!((45..60).contains(&free), "free for {free} s of 60");
    assert!(rig.record().epoch < 12, "{:?}", rig.record());
    // An operator who has put that right need not wait.
    rig.knows_not = |_| false;
    rig.keeper.request(promote(0), rig.now);
    rig.pass(LEASE + BOOTSTRAP);
    assert!(rig.serves() && rig.keeper.refusal().is_none());
}

/// The same without a drop: it has everything, so it stays a member, and another member may serve.
#[test]
fn who_refuses_to_go_on_keeps_what_it_has() {
    let mut rig = Rig::owner();
    rig.knows_not = |order| matches!(order, ServerOrder::Primary { .. });
    rig.pass(LEASE);
    assert_eq!(rig.record().owner, "a", "it may serve still");
    rig.pass(LEASE);
    assert_eq!((rig.record().owner.as_str(), &rig.record().members[..]), ("", &[member("a", "r1")][..]));
    rig.meet("r1");
    rig.knows_not = |_| false;
    rig.pass(2 * LEASE);
    assert!(rig.serves());
}

/// What is refused once may be taken later.
#[test]
fn members_are_told_again_when_the_server_refuses_them() {
    let mut rig = Rig::with(LEASE);
    rig.run = "r1".into();
    rig.knows_not = |order| matches!(order, ServerOrder::Members(_));
    rig.keeper.server_up(ServerFacts { run: "r1", lsn: 0, replicas_ack: 1, epoch: 0 }, rig.now);
    rig.pass(10 * LEASE);
    let told = |rig: &Rig| rig.orders.iter().filter(|(_, order)| matches!(order, ServerOrder::Members(_))).count();
    assert!((5..15).contains(&told(&rig)), "told {} times in ten seconds", told(&rig));
    assert!(rig.serves(), "reads are answered");
    rig.knows_not = |_| false;
    rig.pass(2 * LEASE);
    let before = told(&rig);
    rig.pass(5 * LEASE);
    assert_eq!(told(&rig), before);
}

/// The server knows of a higher epoch than the record has.
#[test]
fn a_refusal_tells_the_epoch_to_go_on_in() {
    let mut rig = Rig::new();
    rig.put_record(free(of_b(1, vec![])));
    rig.refusal = Some(("CLIENT_ERROR the epoch has passed: this server knows of 7".to_owned(), 7));
    rig.pass(LEASE / 2);
    rig.refusal = None;
    // The record is of the past.
    rig.pass(3 * LEASE + BOOTSTRAP);
    assert!(rig.serves() && rig.record().epoch == 8, "{:?}", rig.record());
}

/// etcd hangs, and the members change all the time.
#[test]
fn doubts_do_not_pile_up() {
    let mut rig = Rig::owner();
    rig.is_away = true;
    for number in 0..300 {
        let peer =
            |node: usize| Peer { node: format!("n{node}"), run: "r".into(), is_streaming: true, ..Peer::default() };
        rig.peers = (0..8).filter(|node| number >> node & 1 == 1).map(peer).collect();
        rig.pass(LEASE / 5);
        let records = rig.keeper.records();
        assert!(records <= 20, "{records} records may stand in etcd");
    }
    rig.is_away = false;
    rig.pass(2 * LEASE);
    assert!(rig.serves() && rig.keeper.records() <= 2);
}

// ---- epochs ----

/// The only server crashes a second after each start, for a day.
#[test]
fn a_loop_of_crashes_leaves_epochs_for_weeks() {
    let mut rig = Rig::owner();
    rig.tick = LEASE / 5;
    let day = Duration::from_secs(24 * 3600);
    while rig.now < START + day {
        rig.keeper.server_down(true, rig.now);
        rig.pass(LEASE);
        rig.meet(&format!("{:?}", rig.now));
        rig.pass(LEASE);
        for _ in 0..70 {
            if !rig.serves() {
                rig.pass(LEASE);
            }
        }
        assert!(rig.serves(), "epoch {}", rig.record().epoch);
    }
    let epoch = rig.record().epoch;
    assert!((1000..1600).contains(&epoch), "{epoch} epochs in a day");
}

/// One crash, or three, wait for nothing.
#[test]
fn a_few_crashes_are_no_loop() {
    let mut rig = Rig::owner();
    for number in 2..5 {
        rig.keeper.server_down(true, rig.now);
        rig.pass(TICK);
        rig.meet(&format!("r{number}"));
        rig.pass(5 * TICK);
        assert!(rig.serves() && rig.record().epoch == number);
    }
}

#[test]
fn the_last_epoch_is_served_in_and_no_other() {
    let mut rig = Rig::new();
    rig.put_record(free(of_b(EPOCH_MAX - 1, vec![])));
    rig.pass(61 * LEASE);
    assert!(rig.serves() && rig.record().epoch == EPOCH_MAX);
    let to_b = RequestRecord { id: "s".into(), what: RequestKind::Switchover, to: String::new(), epoch: 0 };
    rig.keeper.request(to_b, rig.now);
    rig.carry_out();
    assert_eq!(rig.replies, [(false, "all epochs of the shard are used".to_owned())]);
    rig.keeper.server_down(true, rig.now);
    rig.meet("r2");
    assert_eq!(rig.until_candidate(), None);
    assert_eq!((rig.record().epoch, rig.record().owner.as_str()), (EPOCH_MAX, ""));
}

/// It has become the owner by a switchover, or lifts itself above what others know of: that uses epochs, too.
#[test]
fn an_owner_that_goes_on_warns_of_the_last_epochs() {
    let mut rig = Rig::new();
    rig.put_record(ShardRecord { owner: "a".into(), run: "r1".into(), ..of_b(EPOCH_MAX / 2, vec![]) });
    rig.pass(LEASE);
    assert!(rig.serves() && rig.keeper.warned_of == 0);
    rig.keeper.heard(EPOCH_MAX / 2 + 1, rig.now);
    rig.pass(LEASE);
    assert_eq!((rig.record().epoch, rig.keeper.warned_of), (EPOCH_MAX / 2 + 2, EPOCH_MAX / 2 + 2));
}

// ---- operators ----

/// An owner that is cut off lives on the promises of members for so long.
#[test]
fn a_forced_takeover_waits_as_long_as_promises_may_last() {
    let mut rig = Rig::new();
    rig.put_record(of_b(3, vec![member("c", "rc")]));
    rig.keeper.request(promote(3), rig.now);
    let waited = rig.until_candidate().expect("a candidacy");
    assert!(waited >= LEASE + LEASE / 10 + BOOTSTRAP && waited < 2 * LEASE + BOOTSTRAP, "{waited:?}");
}

/// Operators pause while the server thinks about it.
#[test]
fn a_pause_stops_a_claim_that_is_under_way() {
    let mut rig = Rig::new();
    rig.put_record(of_b(3, vec![member("a", "r1")]));
    rig.is_mute = true;
    rig.until_candidate().expect("a candidacy");
    rig.keeper.pause(true, rig.now);
    rig.is_mute = false;
    rig.keeper.answered(OrderAnswer::Done { lsn: 7 }, rig.now);
    rig.pass(5 * LEASE);
    assert_eq!((rig.record().owner.as_str(), rig.record().epoch), ("b", 3));
    assert!(matches!(rig.orders.last(), Some((_, ServerOrder::Standby { .. }))), "{:?}", rig.orders.last());
    rig.keeper.pause(false, rig.now);
    rig.pass(LEASE);
    assert!(rig.serves());
}

/// A request that was not needed is no right to take the shard months later.
#[test]
fn a_forced_takeover_is_void_after_a_while() {
    let renewed = |rig: &mut Rig, time: Duration| {
        let end = rig.now + time;
        while rig.now < end {
            let mut record =
                rig.value.record.clone().unwrap_or_else(|| of_b(3, vec![member("a", "r0"), member("c", "rc")]));
            record.seq += 1;
            rig.put_record(record);
            rig.pass(LEASE / 5);
        }
    };
    let mut rig = Rig::new();
    renewed(&mut rig, LEASE);
    rig.keeper.request(promote(3), rig.now);
    renewed(&mut rig, 2 * (LEASE + BOOTSTRAP));
    let record = free(rig.record().clone());
    rig.orders.clear();
    rig.put_record(record);
    rig.pass(BOOTSTRAP - LEASE);
    let is_candidate = |(_, order): &(Duration, ServerOrder)| matches!(order, ServerOrder::Candidate { .. });
    assert!(!rig.orders.iter().any(is_candidate), "members come first");
}

/// Links go on after the change with which a tenure began. Were that moved on by the end of a switchover that is given
/// up, a node that was away meanwhile would skip what came between.
#[test]
fn a_switchover_that_is_given_up_moves_no_beginning() {
    let mut rig = Rig::new();
    let from = Some(member("b", "rb"));
    let given = of_b(4, vec![member("a", "r1")]);
    rig.put_record(ShardRecord { owner: "a".into(), run: "r1".into(), handover_from: from, ..given });
    rig.pass(LEASE);
    let began = rig.keeper.inherited().expect("a beginning");
    assert_eq!(began.1, 7);
    rig.keeper.obeyed(&ServerOrder::Go, 9);
    assert_eq!(rig.keeper.inherited(), Some(began));
}

#[test]
fn requests_are_void_after_another_owner() {
    let mut rig = Rig::new();
    rig.put_record(of_b(4, vec![]));
    rig.keeper.request(promote(3), rig.now);
    rig.carry_out();
    let text = "the owner has changed since that was asked for".to_owned();
    assert_eq!(rig.replies, [(false, text.clone())]);
    let mut rig = Rig::owner();
    let switchover = RequestRecord { id: "s".into(), what: RequestKind::Switchover, to: String::new(), epoch: 7 };
    rig.keeper.request(switchover, rig.now);
    rig.carry_out();
    assert_eq!(rig.replies, [(false, text)]);
    // A request that was granted before another owner came is none for that one.
    let mut rig = Rig::new();
    rig.put_record(of_b(3, vec![member("c", "rc")]));
    rig.keeper.request(promote(3), rig.now);
    rig.put_record(of_b(4, vec![member("c", "rc")]));
    let waited = rig.until_candidate().expect("a candidacy, empty");
    assert!(waited >= LEASE + BOOTSTRAP);
    rig.pass(LEASE);
    assert!(rig.has_dropped());
}

/// The successor begins to refuse changes when the owner has stepped down: the owner goes on at once, and with all.
#[test]
fn who_begins_to_lack_something_in_a_switchover_gets_nothing() {
    let peer = |node: &str, confirmed: u64| Peer {
        node: node.into(),
        run: format!("r{node}"),
        is_streaming: true,
        confirmed,
        ..Peer::default()
    };
    let mut rig = Rig::owner();
    rig.peers = vec![peer("b", 7), peer("c", 6)];
    rig.pass(LEASE);
    assert_eq!(rig.record().members.len(), 2);
    let to_b = RequestRecord { id: "s".into(), what: RequestKind::Switchover, to: "b".into(), epoch: 0 };
    rig.is_mute = true;
    rig.orders.clear();
    rig.keeper.request(to_b, rig.now);
    rig.carry_out();
    rig.keeper.answered(OrderAnswer::Done { lsn: 7 }, rig.now);
    rig.pass(5 * TICK);
    assert!(matches!(rig.orders.last(), Some((_, ServerOrder::Standby { .. }))), "{:?}", rig.orders);
    rig.peers[0].lacks = true;
    rig.keeper.peers(rig.peers.clone(), rig.now);
    rig.is_mute = false;
    while rig.keeper.local().is_some_and(|server| server.silent_since().is_some()) {
        rig.keeper.answered(OrderAnswer::Done { lsn: 7 }, rig.now);
    }
    rig.pass(5 * TICK);
    assert!(rig.serves() && rig.record().owner == "a", "{:?}", rig.record());
    assert!(rig.orders.iter().all(|(_, order)| !matches!(order, ServerOrder::Primary { drops_all: true, .. })));
    assert!(rig.replies.iter().all(|(is_done, _)| !is_done) && rig.replies.len() == 1, "{:?}", rig.replies);
}

/// Two sidecars end in the middle of a switchover, and the successor's server with its own. Who stepped down has everything,
/// and goes on with it, once whoever may have taken over is silent.
#[test]
fn who_stepped_down_for_nobody_keeps_what_it_has() {
    let hands_over = |run: &str, epoch: u64| ShardRecord {
        owner: "a".into(),
        run: run.into(),
        hands_over: true,
        ..of_b(epoch, vec![member("b", "rb")])
    };
    let takes_over = |order: &ServerOrder| matches!(order, ServerOrder::Candidate { .. });
    let mut rig = Rig::with(LEASE);
    rig.meet_in("r1", 6);
    rig.put_record(hands_over("r1", 5));
    let waited = rig.until(60 * LEASE, takes_over).expect("a candidacy");
    assert!((LEASE + LEASE / 10..2 * LEASE).contains(&waited), "{waited:?}");
    rig.pass(LEASE);
    assert!(rig.serves() && rig.record().epoch == 7 && !rig.record().hands_over, "{:?}", rig.record());
    assert!(rig.orders.iter().all(|(_, order)| !matches!(order, ServerOrder::Primary { drops_all: true, .. })));
    // With a third node a successor may have lived on its promises, had etcd been put back to this record.
    let mut rig = Rig::with(LEASE);
    rig.meet_in("r1", 6);
    rig.put_record(ShardRecord { nodes: ["a", "b", "c"].map(String::from).to_vec(), ..hands_over("r1", 5) });
    let waited = rig.until(60 * LEASE, takes_over).expect("a candidacy");
    assert!(waited >= LEASE + BOOTSTRAP, "{waited:?}");
    // Somebody has served in the next epoch, by another node or by what stood there before.
    for is_heard in [true, false] {
        let mut rig = Rig::with(LEASE);
        rig.meet_in("r1", 6);
        match is_heard {
            true => rig.keeper.heard(6, rig.now),
            false => rig.put_record(of_b(6, vec![])),
        }
        rig.store = 10;
        rig.put_record(hands_over("r1", 5));
        let waited = rig.until(60 * LEASE, takes_over);
        assert!(waited.is_none_or(|waited| waited >= LEASE + BOOTSTRAP), "{is_heard}: {waited:?}");
        rig.pass(LEASE);
        assert!(!rig.serves() || rig.has_dropped(), "{is_heard}: {:?}", rig.record());
    }
    // Another run has nothing, and an epoch beyond the next is that of somebody who has served.
    for (run, epoch) in [("r0", 5), ("r1", 4)] {
        let mut rig = Rig::with(LEASE);
        rig.meet_in("r1", 6);
        rig.put_record(hands_over(run, epoch));
        let waited = rig.until(60 * LEASE, takes_over);
        assert!(waited.is_none_or(|waited| waited >= LEASE + BOOTSTRAP), "{run}, {epoch}: {waited:?}");
        rig.pass(LEASE);
        assert!(!rig.serves() || rig.has_dropped(), "{run}, {epoch}: {:?}", rig.record());
    }
}

/// It is told before the server steps down, and not longer than the switchover goes on.
#[test]
fn a_switchover_stands_in_the_record() {
    let mut rig = Rig::owner();
    let mut peer = Peer { node: "b".into(), run: "rb".into(), is_streaming: true, confirmed: 6, ..Peer::default() };
    rig.peers = vec![peer.clone()];
    rig.pass(LEASE);
    let to_b = RequestRecord { id: "s".into(), what: RequestKind::Switchover, to: "b".into(), epoch: 0 };
    rig.keeper.request(to_b.clone(), rig.now);
    rig.pass(TICK);
    assert!(rig.record().hands_over);
    rig.pass(LEASE);
    assert_eq!(rig.replies.len(), 1, "b has not confirmed everything");
    assert!(rig.serves() && !rig.record().hands_over, "{:?}", rig.record());
    rig.is_away = true;
    peer.confirmed = 7;
    rig.peers = vec![peer];
    rig.orders.clear();
    rig.keeper.request(to_b, rig.now);
    rig.pass(LEASE / 2);
    let steps = |rig: &Rig| rig.orders.iter().any(|(_, order)| matches!(order, ServerOrder::Standby { .. }));
    assert!(!steps(&rig), "etcd does not know of it");
    rig.is_away = false;
    rig.pass(LEASE);
    assert!(rig.serves() && !steps(&rig), "it is given up");
}

// ---- names, runs and leases ----

/// Another machine has the same name: its server's run is not ours, and it renews.
#[test]
fn a_node_of_the_same_name_elsewhere_is_left_alone() {
    let mut rig = Rig::new();
    for seq in 0..50 {
        let record = ShardRecord { owner: "a".into(), run: "elsewhere".into(), seq: 100 + seq, ..of_b(3, vec![]) };
        rig.put_record(record);
        rig.pass(LEASE / 5);
        assert_eq!(rig.record().owner, "a");
    }
    rig.pass(LEASE / 10 * 8);
    assert_eq!(rig.record().run, "elsewhere", "it may serve for so long");
    rig.pass(LEASE / 2);
    assert_ne!(rig.record().run, "elsewhere", "it is silent");
}

/// The sidecar comes back with a shorter lease: the server was told a deadline by the longer one.
#[test]
fn a_shorter_lease_counts_when_the_longer_one_is_over() {
    let long = 10 * LEASE;
    let mut rig = Rig::with(long);
    rig.meet("r1");
    rig.pass(2 * long);
    assert_eq!(rig.record().lease_ms, 10_000);
    let told = rig.last_deadline();
    assert!(told > rig.now + LEASE);
    rig.keeper = Keeper::new(config(LEASE), rig.now);
    rig.meet("r1");
    for _ in 0..1000 {
        rig.pass(TICK);
        assert!(rig.serves());
        // By what stands there, others may take over after that.
        let lease = Duration::from_millis(rig.record().lease_ms);
        assert!(told.max(rig.last_deadline()) <= rig.now + lease, "{:?}", rig.now);
        if lease == LEASE {
            break;
        }
    }
    assert!(rig.serves() && rig.record().lease_ms == 1000);
    rig.pass(LEASE);
    assert!(rig.serves());
}

/// A renewal is answered when the server has been silent for so long that it is told nothing, and the record that gives the
/// shard back is on its way when it answers again: it is not told to go on, since who takes the shard then does not wait.
#[test]
fn who_gives_the_shard_back_tells_no_later_deadline() {
    let mut rig = Rig::owner();
    rig.is_mute = true;
    let before = rig.orders.len();
    while rig.orders.len() == before {
        rig.pass(TICK);
    }
    rig.is_slow = true;
    rig.pass(LEASE * 2 / 3);
    let told = rig.last_deadline();
    rig.answer_swaps();
    assert!(rig.keeper.deadline().is_some_and(|deadline| deadline > told), "nothing was renewed");
    rig.pass(told - rig.now + TICK);
    assert!(rig.slow.iter().any(|(_, record)| record.owner.is_empty()), "{:?}", rig.slow);
    rig.keeper.answered(OrderAnswer::Done { lsn: 7 }, rig.now);
    rig.carry_out();
    assert_eq!((rig.last_deadline(), rig.keeper.deadline()), (told, None));
    // It was not done: it goes on.
    rig.slow.clear();
    rig.is_slow = false;
    rig.is_mute = false;
    rig.keeper.swapped(SwapOutcome::NotDone, rig.now);
    rig.carry_out();
    rig.pass(LEASE);
    assert!(rig.serves());
}

/// The server that has promised to wait has died, and the promise with it.
#[test]
fn a_run_that_was_just_met_has_promised_nothing() {
    let mut rig = Rig::new();
    rig.put_record(of_b(3, vec![]));
    rig.pass(BOOTSTRAP);
    rig.keeper.server_down(true, rig.now);
    rig.pass(LEASE / 2);
    rig.meet("r2");
    let waited = rig.until_candidate().expect("a candidacy");
    assert!(waited >= LEASE + LEASE / 10, "{waited:?}");
    assert!(waited < LEASE * 2 + 5 * MS);
}
