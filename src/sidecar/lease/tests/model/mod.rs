//! All schedules of a small world, with real keepers in it: whatever goes wrong, and whenever, up to some faults.
//!
//! ```text
//!   steady ──> tick │ fault (counted): a crash, a cut, a freeze, a letter that is late or lost, drift, a request
//!     ^          │  │ recovery (free): a start, a thaw, a late letter that arrives
//!     └──────────┘  │ a write of a client (counted)
//! ```
//!
//! What always holds: one voice; epochs of replies never go back; nothing of an older epoch is applied after a promotion;
//! what was acknowledged is at every member, and at whoever serves, unless every server has crashed that had it by the
//! record; who was no member drops what it held before it serves; a promise is kept; four leases after the last fault
//! somebody serves. Each of these is broken by breaking one rule, which shows
//! that the model would notice. The model, too, must not be empty: what ought to happen sometimes does.
//!
//! `TWINCACHE_MODEL_FAULTS=n` allows for n faults in each search; what takes minutes anyway is among the ignored tests.
//!
//! Not here: the world and its simplifications (`world`); odder times than multiples of 100 ms (`simulation`).

mod world;

use crate::cluster::record::RequestKind;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::time::{Duration, Instant};
use world::{Late, Role, World};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    /// Standbys take over as soon as the owner falls silent by an exact clock.
    Margin,
    /// etcd replaces the record, whatever its revision is.
    Compare,
    /// Servers answer after their deadline.
    Deadline,
    /// Replies go on without a member before it is out of the record.
    RemovedAfter,
    /// A renewal counts from when its answer came.
    RenewedWhenReceived,
    /// A promise counts from when it came.
    PromisedWhenReceived,
    /// Servers become candidates whatever they have promised.
    Promise,
    /// A server applies what any owner sends.
    Fence,
    /// No server agrees to a candidacy but the first.
    Candidacy,
    /// Servers drop nothing, whatever they are told.
    Drop,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fault {
    StopServer,
    StopKeeper,
    /// Both.
    StopNode,
    BreakSocket,
    CutFromEtcd,
    CutFromPeers,
    FreezeServer,
    StallKeeper,
    FreezeNode,
    Drift,
    /// Nobody reaches etcd.
    StopEtcd,
    Switchover,
    Promote,
    Late(Late),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Fault(Fault, usize),
    StartServer(usize),
    StartKeeper(usize),
    ReachEtcd(usize),
    ReachPeers(usize),
    Thaw(usize),
    Arrive(usize),
    Write,
}

const ONE_VOICE: &str = "one voice";
const EPOCHS: &str = "epochs never go back";
const FENCED: &str = "nothing of an older epoch is applied";
const KEPT: &str = "acknowledged is kept";
const PROMISED: &str = "a promise is kept";
const SERVED: &str = "somebody serves again";
const STALE: &str = "who was no member serves nothing of before";

/// How far is searched.
#[derive(Clone, Debug)]
struct Scope {
    nodes: usize,
    /// `replicas_ack`.
    least: u32,
    bootstrap: Duration,
    kinds: &'static [Fault],
    faults: u8,
    writes: u8,
    epochs: u64,
    margins_of_drift: u32,
    broken: Option<Broken>,
}

const CRASHES: &[Fault] = &[Fault::StopServer, Fault::StopKeeper, Fault::StopNode, Fault::BreakSocket];
const LETTERS: &[Fault] = &[
    Fault::Late(Late::Swap),
    Fault::Late(Late::SwapAnswer),
    Fault::Late(Late::Known),
    Fault::Late(Late::AskPromise),
    Fault::Late(Late::Promised),
    Fault::Late(Late::Batch),
];
const ALL: &[Fault] = &[
    Fault::StopServer,
    Fault::StopKeeper,
    Fault::StopNode,
    Fault::BreakSocket,
    Fault::CutFromEtcd,
    Fault::CutFromPeers,
    Fault::StopEtcd,
    Fault::FreezeServer,
    Fault::StallKeeper,
    Fault::FreezeNode,
    Fault::Drift,
    Fault::Switchover,
    Fault::Promote,
    Fault::Late(Late::Swap),
    Fault::Late(Late::SwapAnswer),
    Fault::Late(Late::Known),
    Fault::Late(Late::AskPromise),
    Fault::Late(Late::Promised),
    Fault::Late(Late::Batch),
];

const NEVER: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(300);

impl Scope {
    fn new(nodes: usize, least: u32, kinds: &'static [Fault], faults: u8) -> Scope {
        let asked = std::env::var("TWINCACHE_MODEL_FAULTS").ok().and_then(|faults| faults.parse().ok());
        let faults = asked.unwrap_or(faults);
        Scope {
            nodes,
            least,
            bootstrap: NEVER,
            kinds,
            faults,
            writes: least.min(1) as u8,
            epochs: 4,
            margins_of_drift: 1,
            broken: None,
        }
    }

    fn strike(&self, world: &mut World, fault: Fault, at: usize) -> bool {
        let node = &mut world.nodes[at];
        let is_free = match fault {
            Fault::StopServer | Fault::FreezeServer => node.server.is_up && !node.server.is_frozen,
            Fault::StopKeeper | Fault::StallKeeper => node.keeper.is_some() && !node.is_stalled,
            Fault::StopNode | Fault::BreakSocket | Fault::FreezeNode => {
                node.server.is_up && node.keeper.is_some() && !node.server.is_frozen && !node.is_stalled
            }
            Fault::CutFromEtcd => node.no_etcd.is_none(),
            Fault::CutFromPeers => !node.no_peers,
            Fault::StopEtcd => at == 0 && world.nodes.iter().all(|node| node.no_etcd.is_none()),
            Fault::Drift => !world.has_drifted,
            Fault::Switchover | Fault::Promote | Fault::Late(_) => true,
        };
        if !is_free {
            return false;
        }
        world.faults += 1;
        let node = &mut world.nodes[at];
        match fault {
            Fault::StopServer => world.stop_server(self, at),
            Fault::StopKeeper => world.stop_keeper(at),
            Fault::StopNode => {
                world.stop_keeper(at);
                world.stop_server(self, at);
            }
            Fault::BreakSocket => world.break_socket(self, at),
            Fault::CutFromEtcd => node.no_etcd = Some(0),
            Fault::CutFromPeers => node.no_peers = true,
            Fault::StopEtcd => world.nodes.iter_mut().for_each(|node| node.no_etcd = Some(0)),
            Fault::FreezeServer => node.server.is_frozen = true,
            Fault::StallKeeper => node.is_stalled = true,
            Fault::FreezeNode => (node.server.is_frozen, node.is_stalled) = (true, true),
            Fault::Drift => {
                world.has_drifted = true;
                world.drift(self, at);
            }
            Fault::Switchover => world.request(self, RequestKind::Switchover, at),
            Fault::Promote => world.request(self, RequestKind::Promote, at),
            Fault::Late(late) => return world.tick(self, Some((late, at))),
        }
        true
    }
}

impl Model for Scope {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if !world.violated.is_empty() {
            return;
        }
        actions.push(Action::Tick);
        for (at, node) in world.nodes.iter().enumerate() {
            if world.faults < self.faults {
                actions.extend(self.kinds.iter().map(|fault| Action::Fault(*fault, at)));
            }
            let free = [
                (!node.server.is_up, Action::StartServer(at)),
                (node.keeper.is_none(), Action::StartKeeper(at)),
                (node.no_etcd.is_some(), Action::ReachEtcd(at)),
                (node.no_peers, Action::ReachPeers(at)),
                (node.server.is_frozen || node.is_stalled, Action::Thaw(at)),
            ];
            actions.extend(free.into_iter().filter(|(is_free, _)| *is_free).map(|(_, action)| action));
        }
        actions.extend((0..world.late.len()).map(Action::Arrive));
        if world.writes < self.writes {
            actions.push(Action::Write);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        let has_happened = match action {
            Action::Tick => world.tick(self, None),
            Action::Fault(fault, node) => self.strike(&mut world, fault, node),
            Action::StartServer(node) => {
                world.start_server(self, node);
                true
            }
            Action::StartKeeper(node) => {
                world.start_keeper(self, node);
                true
            }
            Action::ReachEtcd(node) => world.nodes[node].no_etcd.take().is_some(),
            Action::ReachPeers(node) => std::mem::take(&mut world.nodes[node].no_peers),
            Action::Thaw(node) => {
                world.thaw(self, node);
                true
            }
            Action::Arrive(late) => {
                world.release(self, late);
                true
            }
            Action::Write => world.write(self),
        };
        has_happened.then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE_VOICE, |_, world: &World| !world.violated.contains(&ONE_VOICE)),
            Property::always(EPOCHS, |_, world: &World| !world.violated.contains(&EPOCHS)),
            Property::always(FENCED, |_, world: &World| !world.violated.contains(&FENCED)),
            Property::always(KEPT, |_, world: &World| !world.violated.contains(&KEPT)),
            Property::always(PROMISED, |_, world: &World| !world.violated.contains(&PROMISED)),
            Property::always(SERVED, |_, world: &World| !world.violated.contains(&SERVED)),
            Property::always(STALE, |_, world: &World| !world.violated.contains(&STALE)),
            Property::sometimes("a takeover", |scope: &Scope, world: &World| {
                (1..scope.nodes).any(|node| world.serves(scope, node) && world.nodes[node].server.epoch > 1)
            }),
            Property::sometimes("promises outlast a lease", |scope: &Scope, world: &World| {
                (0..scope.nodes).any(|node| world.serves(scope, node) && world.nodes[node].no_etcd > Some(11))
            }),
            Property::sometimes("a switchover", |_, world: &World| world.sights.switchover),
            Property::sometimes("a member removed", |_, world: &World| world.sights.removed),
            Property::sometimes("a member added", |_, world: &World| world.sights.added),
            Property::sometimes("a candidate that waits", |_, world: &World| {
                world.nodes.iter().any(|node| node.server.role == Role::Candidate)
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.record.as_ref().is_none_or(|record| record.epoch <= self.epochs)
    }
}

/// The actions as one line.
fn told(actions: &[Action]) -> String {
    let runs = actions.chunk_by(|one, next| one == next);
    let told =
        runs.map(|run| if run.len() > 1 { format!("{} {:?}", run.len(), run[0]) } else { format!("{:?}", run[0]) });
    told.collect::<Vec<_>>().join(", ")
}

/// Searches until the property does not hold; without one, everything.
fn search(scope: &Scope, until: Option<&'static str>) -> impl Checker<Scope> + use<> {
    let begun = Instant::now();
    let (threads, enough) = match until {
        Some(property) => (1, HasDiscoveries::AnyOf([property].into())),
        None => (2, HasDiscoveries::All),
    };
    let found = scope.clone().checker().threads(threads).finish_when(enough).spawn_bfs().join();
    let (states, time) = (found.unique_state_count(), begun.elapsed().as_secs_f32());
    let Scope { nodes, least, faults, broken, .. } = scope;
    println!("{nodes} nodes, {least} acks, {faults} faults, broken: {broken:?}: {states} states in {time:.1} s");
    found
}

/// Everything that always holds does so.
fn holds(scope: &Scope) -> impl Checker<Scope> + use<> {
    let found = search(scope, None);
    for (name, path) in found.discoveries() {
        let is_bad = [ONE_VOICE, EPOCHS, FENCED, KEPT, PROMISED, SERVED, STALE].contains(&name);
        assert!(!is_bad, "{scope:?}\n{name}: {}", told(&path.into_actions()));
    }
    found
}

#[test]
fn any_fault_on_two_nodes() {
    holds(&Scope::new(2, 1, ALL, 1)).assert_properties();
    holds(&Scope::new(2, 0, ALL, 1)).assert_properties();
}

#[test]
fn any_fault_on_three_nodes() {
    holds(&Scope::new(3, 1, ALL, 1)).assert_properties();
    holds(&Scope { bootstrap: SOON, ..Scope::new(3, 0, ALL, 1) }).assert_properties();
}

#[test]
fn two_faults_while_etcd_is_away() {
    // A server that was restarted becomes a member again, of which its own sidecar does not hear, among others.
    holds(&Scope { bootstrap: SOON, ..Scope::new(2, 1, &[Fault::CutFromEtcd, Fault::StopServer], 2) });
}

/// The owner has removed its standby from the members, and has died.
const NO_MEMBER: &[(usize, Action)] = &[
    (1, Action::Write),
    (1, Action::Tick),
    (1, Action::Fault(Fault::CutFromPeers, 1)),
    (6, Action::Tick),
    (1, Action::Fault(Fault::StopNode, 0)),
    (12, Action::Tick),
];

/// Who was no member claims the shard, and something fails at any moment: the sidecar or the server dies, etcd is away, the
/// claim or the answer to it is late. Then all is mended, but for the old owner.
#[test]
fn any_fault_of_a_claim_without_data() {
    let scope = Scope { bootstrap: SOON, writes: 2, ..Scope::new(2, 0, ALL, 3) };
    let alone = play(&scope, NO_MEMBER);
    assert_eq!(alone.nodes[1].server.data, [1]);
    for fault in ALL.iter().filter(|fault| **fault != Fault::Promote) {
        for moment in 0..8 {
            let world = go_on(&scope, alone.clone(), &[(moment, Action::Tick)]);
            let Some(world) = scope.next_state(&world, Action::Fault(*fault, 1)) else { continue };
            for later in [1, 4, 12] {
                let world = mended(&scope, go_on(&scope, world.clone(), &[(later, Action::Tick)]));
                let world = go_on(&scope, world, &[(30, Action::Tick)]);
                let told = format!("{fault:?} after {moment}, mended after {later}: {:?}", world.record);
                assert_eq!(world.violated, [""; 0], "{told}");
                assert!(world.serves(&scope, 1) && world.nodes[1].server.data.is_empty(), "{told}");
            }
        }
    }
}

/// All is well again, but for the first node.
fn mended(scope: &Scope, mut world: World) -> World {
    let is_cure = |action: &Action| match action {
        Action::StartServer(node) | Action::StartKeeper(node) => *node > 0,
        Action::ReachEtcd(_) | Action::ReachPeers(_) | Action::Thaw(_) | Action::Arrive(_) => true,
        Action::Tick | Action::Fault(..) | Action::Write => false,
    };
    loop {
        let mut actions = Vec::new();
        scope.actions(&world, &mut actions);
        let Some(cure) = actions.into_iter().find(is_cure) else { return world };
        world = scope.next_state(&world, cure).expect("it is possible");
    }
}

#[test]
fn two_faults_of_a_switchover() {
    let kinds = &[Fault::Switchover, Fault::Late(Late::Swap), Fault::StopServer];
    holds(&Scope::new(2, 1, kinds, 2));
}

#[test]
fn two_letters_late() {
    holds(&Scope::new(2, 1, LETTERS, 2));
    holds(&Scope::new(3, 1, LETTERS, 2));
}

#[test]
#[ignore = "takes minutes"]
fn two_crashes() {
    holds(&Scope::new(2, 1, CRASHES, 2));
}

#[test]
#[ignore = "takes minutes"]
fn three_faults_of_a_switchover() {
    let kinds = &[Fault::Switchover, Fault::StopKeeper, Fault::CutFromEtcd];
    holds(&Scope::new(2, 1, kinds, 3));
}

#[test]
fn each_rule_is_needed() {
    use Fault::{CutFromEtcd, CutFromPeers, Drift, StallKeeper, StopKeeper, StopServer, Switchover};
    const CUTS: &[Fault] = &[CutFromEtcd, CutFromPeers, Drift];
    const LATE_ANSWER: &[Fault] = &[Fault::Late(Late::SwapAnswer), StallKeeper];
    const LATE_PROMISE: &[Fault] = &[CutFromEtcd, Fault::Late(Late::Promised), CutFromPeers];
    let cases: [(Broken, &'static [Fault], u8, &str); 8] = [
        (Broken::Margin, CUTS, 3, ONE_VOICE),
        (Broken::Deadline, &[StopKeeper], 1, ONE_VOICE),
        (Broken::RemovedAfter, &[CutFromPeers, StopKeeper], 2, KEPT),
        (Broken::RenewedWhenReceived, LATE_ANSWER, 2, ONE_VOICE),
        (Broken::PromisedWhenReceived, LATE_PROMISE, 3, ONE_VOICE),
        (Broken::Promise, &[CutFromEtcd], 1, PROMISED),
        (Broken::Fence, &[Fault::Late(Late::Batch), Switchover], 2, FENCED),
        (Broken::Candidacy, &[StopServer], 1, SERVED),
    ];
    for (rule, kinds, faults, property) in cases {
        let writes = u8::from(property == KEPT);
        let scope = Scope { broken: Some(rule), faults, writes, ..Scope::new(2, 1, kinds, faults) };
        let Some(path) = search(&scope, Some(property)).discovery(property) else {
            panic!("{rule:?} may be broken, and there is always: {property}");
        };
        println!("{rule:?}: not always {property}: {}", told(&path.into_actions()));
    }
    let scope = Scope { bootstrap: SOON, writes: 1, broken: Some(Broken::Drop), ..Scope::new(2, 0, ALL, 2) };
    let world = go_on(&scope, play(&scope, NO_MEMBER), &[(6, Action::Tick)]);
    assert!(world.violated.contains(&STALE), "{:?}", world.record);
}

/// The owner dies, and both of the others claim the shard. What the first one sends to etcd comes after the other's, of
/// which it has not heard.
#[test]
fn etcd_takes_one_of_two_claims() {
    for broken in [None, Some(Broken::Compare)] {
        let scope = Scope { broken, ..Scope::new(3, 1, ALL, 3) };
        let mut world = play(&scope, &[(1, Action::Fault(Fault::StopNode, 0))]);
        let late = loop {
            let late = scope.next_state(&world, Action::Fault(Fault::Late(Late::Swap), 1));
            match late {
                Some(late) => break late,
                None => world = scope.next_state(&world, Action::Tick).expect("a tick"),
            }
        };
        let unheard = Action::Fault(Fault::Late(Late::Known), 1);
        let world = go_on(&scope, late, &[(1, unheard), (1, Action::Arrive(0))]);
        assert_eq!(world.violated.contains(&ONE_VOICE), broken.is_some(), "{:?}", world.violated);
    }
}

/// What comes of these actions.
fn play(scope: &Scope, actions: &[(usize, Action)]) -> World {
    go_on(scope, World::new(scope), actions)
}

fn go_on(scope: &Scope, mut world: World, actions: &[(usize, Action)]) -> World {
    for (times, action) in actions {
        for _ in 0..*times {
            world = scope.next_state(&world, action.clone()).unwrap_or_else(|| panic!("{action:?} does nothing"));
        }
    }
    world
}

/// The owner's sidecar dies when the server follows its successor already, and the record does not name that yet.
#[test]
fn a_switchover_that_is_cut_short_leaves_somebody_serving() {
    let scope = Scope::new(2, 1, ALL, 4);
    let world = play(
        &scope,
        &[
            (1, Action::Write),
            (1, Action::Fault(Fault::Switchover, 1)),
            (1, Action::Fault(Fault::CutFromEtcd, 0)),
            (2, Action::Tick),
            (1, Action::Fault(Fault::StopKeeper, 0)),
            (1, Action::ReachEtcd(0)),
            (1, Action::StartKeeper(0)),
            (39, Action::Tick),
        ],
    );
    assert!((0..2).any(|node| world.serves(&scope, node)));
}

/// A server promises, dies, and is there again: without a promise, and without what would make it a member.
#[test]
fn a_server_that_has_forgotten_its_promise_takes_nothing() {
    let scope = Scope { bootstrap: Duration::from_millis(300), ..Scope::new(2, 1, ALL, 4) };
    let world = play(
        &scope,
        &[
            (1, Action::Fault(Fault::CutFromEtcd, 0)),
            (17, Action::Tick),
            (1, Action::Fault(Fault::StopServer, 1)),
            (1, Action::StartServer(1)),
            (1, Action::Tick),
        ],
    );
    assert!(world.serves(&scope, 0), "the owner serves by promises");
    assert_eq!(world.violated, [""; 0]);
}

/// The owner's sidecar is away until another node has taken over, and that one's server dies: the first server is a
/// primary of the past, which is no candidate before it is told to follow.
#[test]
fn a_primary_of_the_past_takes_over_again() {
    let scope = Scope::new(2, 1, ALL, 4);
    let world = play(
        &scope,
        &[
            (1, Action::Tick),
            (1, Action::Write),
            (1, Action::Tick),
            (1, Action::Fault(Fault::StopKeeper, 0)),
            (13, Action::Tick),
            (1, Action::Fault(Fault::StopServer, 1)),
            (4, Action::Tick),
            (1, Action::StartKeeper(0)),
            (4, Action::Tick),
            (1, Action::StartServer(1)),
            (20, Action::Tick),
        ],
    );
    assert!((0..2).any(|node| world.serves(&scope, node)), "{:?}", world.record);
}
