//! Held replies on a socket that cuts at random, with replicas that confirm at random or too late.
//!
//! ```text
//!  script ── one request at a time, nothing held ──> per request: its reply, the lsn of its change
//!         ── random pieces ──> connection ──> queue, as a worker's ──> replies
//!                  random: what is safe, how late it is, whether anybody waits at all
//! ```
//!
//! At each step no more may have left than what is safe (or was given up) allows; in the end every reply is there,
//! in order, as in the run in which nothing waited, but for the errors in the places of those given up.
//! `TWINCACHE_SEED` replays one seed; it is printed.

use crate::io::edge::Readiness;
use crate::journal::acks::{Acks, EVERYTHING};
use crate::net::conn::turn::{After, CloseReason, OUTPUT_HIGH};
use crate::net::reply_hold::{AckQueue, PendingAck, REFUSAL};
use crate::net::tests::connection::{TestConnection, push};
use crate::protocol::Parsed;
use crate::protocol::binary::{Status, parse};
use crate::testing::{Rng, packet, seeds};
use std::time::Duration;

/// Seeds per protocol in an ordinary run.
const SEEDS: u64 = 12;

/// Requests per script.
const REQUESTS: usize = 120;

/// So small that what is refused for its size costs little time, and large enough for values in several chunks.
const ITEM_MAX: usize = 128 << 10;
const TOO_LARGE: usize = ITEM_MAX + 10_000;

/// Steps without any byte moved after which a connection counts as hung.
const STUCK_STEPS: usize = 10_000;

/// How long a change may take to become safe.
const TIMEOUT: Duration = Duration::from_millis(100);

/// A request of a script.
struct Request {
    bytes: Vec<u8>,
    /// What takes the place of its reply, if anything.
    refusal: Option<Vec<u8>>,
}

/// What came of it when nothing waited.
struct Asked {
    request: Request,
    reply: Vec<u8>,
    /// Its last change, 0 none.
    lsn: u64,
    /// The last change up to it.
    behind: u64,
}

fn rig() -> TestConnection {
    let rig = TestConnection::new(|config| {
        config.ack_timeout = TIMEOUT;
        config.store.journal_bytes = 8 << 20;
        config.store.item_size_max = ITEM_MAX;
    });
    rig.shared.store.journal().set_required(1, rig.time);
    rig
}

fn ask_all(script: Vec<Request>) -> Vec<Asked> {
    let mut rig = rig();
    // Replies are marked, and nothing waits.
    rig.shared.store.journal().acks().set_required(1, EVERYTHING - 1);
    rig.pipe().room = usize::MAX / 2;
    let ask = |request: Request| {
        let before = rig.last_lsn.get();
        rig.send(&request.bytes);
        assert_eq!(rig.settle(), After::Wait);
        let behind = rig.last_lsn.get();
        Asked { request, reply: rig.replies(), lsn: if behind > before { behind } else { 0 }, behind }
    };
    script.into_iter().map(ask).collect()
}

/// How replicas behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    /// They confirm before it is too late.
    InTime,
    /// They may not, and clients are told.
    Late,
    /// They may not, and nobody waits until they have caught up.
    Degrading,
}

/// A connection with what its worker does for it.
struct Run {
    rig: TestConnection,
    queue: AckQueue,
    mood: Mood,
    /// When each lsn was appended, as time since the start.
    appended: Vec<Duration>,
    passed: Duration,
    /// Everything up to here may leave: it is safe, was given up, or nobody waited.
    excused: u64,
    /// The last change before those whose replies are held.
    held_after: u64,
    /// After one, up to the other.
    refused: Vec<(u64, u64)>,
}

impl Run {
    fn new(mood: Mood) -> Run {
        let rig = rig();
        let (queue, appended, passed) = (AckQueue::default(), vec![Duration::ZERO], Duration::ZERO);
        Run { rig, queue, mood, appended, passed, excused: 0, held_after: 0, refused: Vec::new() }
    }

    /// The last change so far.
    fn last_lsn(&self) -> u64 {
        self.rig.last_lsn.get()
    }

    fn acks(&self) -> &Acks {
        self.rig.shared.store.journal().acks()
    }

    fn turn(&mut self) -> After {
        let before = self.last_lsn();
        let after = self.rig.turn();
        let appended = self.last_lsn() as usize + 1;
        self.appended.resize(appended, self.passed);
        match after {
            After::WaitForAcks => {
                assert!(self.queue.is_empty(), "held twice");
                let owed = self.rig.connection.waits_for().expect("it is held");
                assert!(owed.lsn > self.acks().replicated_lsn() && owed.deadline > self.rig.time);
                self.queue.push(owed, 0);
                self.held_after = before;
            }
            _ => assert!(self.queue.is_empty() || after == After::Wait, "{after:?} while held"),
        }
        self.note();
        after
    }

    /// Notes what may leave from now on, even if more is asked of replicas later.
    fn note(&mut self) {
        let free = if self.acks().holds() { self.acks().replicated_lsn() } else { self.last_lsn() };
        self.excused = self.excused.max(free);
    }

    fn pass(&mut self, time: Duration) {
        self.passed += time;
        self.rig.time += time;
    }

    /// Replicas confirm some of what they lack, or somebody changes what is asked of them.
    fn replicas(&mut self, rng: &mut Rng) {
        let safe = if self.acks().holds() { self.acks().replicated_lsn() } else { 0 };
        let confirmed = safe + rng.below((self.last_lsn() - safe) as usize + 1) as u64;
        match rng.below(40) {
            0 => self.acks().set_required(0, 0),
            1 => self.acks().set_required(2, confirmed),
            _ => self.acks().advance(confirmed),
        }
        self.note();
    }

    /// What the worker does between two polls.
    fn release(&mut self) {
        while self.queue.pop_safe(self.acks().replicated_lsn()).is_some() {
            self.rig.connection.release_but(|_| false);
            self.turn();
        }
        let Some(PendingAck { lsn, deadline }) = self.queue.first() else { return };
        if deadline > self.rig.time {
            return;
        }
        if self.mood == Mood::Degrading {
            self.acks().degrade(self.last_lsn());
            self.note();
            return;
        }
        let safe = self.acks().replicated_lsn();
        assert_eq!(self.queue.pop_expired(self.rig.time, safe), Some(0));
        self.rig.connection.release_but(|lsn| lsn > safe);
        self.refused.push((safe.max(self.held_after), lsn));
        self.excused = self.excused.max(lsn);
        self.turn();
    }

    fn is_refused(&self, lsn: u64) -> bool {
        self.refused.iter().any(|&(safe, upto)| lsn > safe && lsn <= upto)
    }

    fn reply<'a>(&self, asked: &'a Asked) -> &'a [u8] {
        match &asked.request.refusal {
            Some(refusal) if self.is_refused(asked.lsn) => refusal,
            _ => &asked.reply,
        }
    }

    fn may_leave(&self, behind: u64) -> bool {
        let may_wait_no_more = |&at: &Duration| at + TIMEOUT <= self.passed;
        behind <= self.excused || self.appended.get(behind as usize).is_some_and(may_wait_no_more)
    }

    fn check(&mut self, asked: &[Asked]) {
        let may = |asked: &&Asked| self.may_leave(asked.behind);
        let allowed: usize = asked.iter().take_while(may).map(|asked| self.reply(asked).len()).sum();
        let sent = self.rig.pipe().outbound.len();
        assert!(sent <= allowed, "{sent} bytes have left, and {allowed} may");
    }
}

fn check_seed(seed: u64, mood: Mood, make: fn(&mut Rng) -> Request) {
    let mut rng = Rng(seed);
    let requests = (0..REQUESTS).map(|_| make(&mut rng)).collect();
    // In a thread of its own, as the other run, so that both sample the same hits for the journal.
    let asked = std::thread::spawn(|| ask_all(requests)).join().expect("no panic");
    let script: Vec<u8> = asked.iter().flat_map(|asked| asked.request.bytes.iter().copied()).collect();
    let mut run = Run::new(mood);
    let pieces = [2, 60, 3000, 30_000][rng.below(4)];
    let large = script.len() / 50 + 1;
    let piece = |rng: &mut Rng| {
        let max = if rng.below(16) == 0 { large } else { pieces };
        1 + rng.below(max)
    };
    let (mut at, mut idle) = (0, 0);
    loop {
        let before = (at, run.rig.pipe().outbound.len());
        run.rig.pipe().interrupts = rng.below(8) == 0;
        if rng.below(3) > 0 {
            let end = script.len().min(at + piece(&mut rng));
            run.rig.send(&script[at..end]);
            at = end;
        }
        if rng.below(3) > 0 {
            run.rig.take(piece(&mut rng));
        }
        if rng.below(if mood == Mood::InTime { 3 } else { 12 }) == 0 {
            run.replicas(&mut rng);
        }
        if mood != Mood::InTime && rng.below(4) == 0 {
            run.pass(TIMEOUT / [1, 4, 20][rng.below(3)]);
        }
        run.release();
        let after = run.turn();
        run.check(&asked);
        let is_done = at == script.len() && after == After::Wait && run.rig.pipe().waiting() == 0;
        idle = if before == (at, run.rig.pipe().outbound.len()) { idle + 1 } else { 0 };
        if is_done && idle > 30 && run.queue.is_empty() && !run.rig.connection.is_stuck() {
            break;
        }
        assert!(idle < STUCK_STEPS, "no byte moved in {STUCK_STEPS} steps");
    }
    finish(&mut run, &asked);
}

fn finish(run: &mut Run, asked: &[Asked]) {
    assert_eq!(run.last_lsn(), asked.last().map_or(0, |asked| asked.behind), "the same changes");
    let got = run.rig.replies();
    let mut at = 0;
    for (number, asked) in asked.iter().enumerate() {
        let reply = run.reply(asked);
        let end = got.len().min(at + reply.len());
        let text = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned();
        let request = text(&asked.request.bytes);
        assert!(got[at..end] == *reply, "{number} {request:?}: {:?} not {:?}", text(&got[at..end]), text(reply));
        at = end;
    }
    assert_eq!(at, got.len(), "more than all replies");
    assert_eq!(run.rig.connection.memory(), 0, "an idle connection holds no buffer");
    if run.mood == Mood::InTime {
        assert!(run.refused.is_empty());
    }
}

/// Small ones, ones that are uploaded and leave by reference, and ones that are too large.
fn value(rng: &mut Rng) -> Vec<u8> {
    let len = match rng.below(24) {
        0..16 => rng.below(100),
        16..20 => rng.below(3000),
        20..22 => 15_000 + rng.below(20_000),
        22 => rng.below(ITEM_MAX - 1000),
        _ => TOO_LARGE,
    };
    rng.bytes(len)
}

fn text(bytes: String, data: Option<&[u8]>, quiet: bool) -> Request {
    let mut bytes = bytes.into_bytes();
    if let Some(data) = data {
        bytes.extend_from_slice(data);
        push(&mut bytes, "\r\n");
    }
    // Refused for its size, and the old value is gone: answered as ever, when it has been swallowed.
    let is_too_large = data.is_some_and(|data| data.len() == TOO_LARGE);
    Request { bytes, refusal: (!quiet && !is_too_large).then(|| REFUSAL.to_vec()) }
}

fn text_request(rng: &mut Rng) -> Request {
    let key = format!("key{}", rng.below(6));
    let is_quiet = rng.below(3) == 0;
    let quiet = if is_quiet { " noreply" } else { "" };
    match rng.below(12) {
        0..4 => {
            let verb = rng.pick(&["set", "set", "set", "add", "replace", "append", "prepend"]);
            let data = value(rng);
            text(format!("{verb} {key} 0 0 {}{quiet}\r\n", data.len()), Some(&data), is_quiet)
        }
        4 => text(format!("cas {key} 0 0 2 {}{quiet}\r\n", rng.below(50)), Some(b"zz"), is_quiet),
        5 => text(format!("delete {key}{quiet}\r\n"), None, is_quiet),
        6 => text(format!("touch {key} 100{quiet}\r\n"), None, is_quiet),
        7 => text(format!("incr {key} 7{quiet}\r\n"), None, is_quiet),
        8 => text(format!("gats 100 {key} key1 nothing\r\n"), None, false),
        9 if rng.below(8) == 0 => text(format!("flush_all{quiet}\r\n"), None, is_quiet),
        9 | 10 => text(format!("gets {key} key1 nothing key2 key3\r\n"), None, false),
        _ => text(rng.pick(&["mn\r\n", "version\r\n", "bogus\r\n", "get key1\r\n"]).into(), None, false),
    }
}

fn meta_request(rng: &mut Rng) -> Request {
    let key = format!("key{}", rng.below(6));
    let quiet = rng.pick(&["", " q"]);
    match rng.below(9) {
        0..4 => {
            let data = value(rng);
            let flags = rng.pick(&["", "k O1 c", "MA", "I C1", "T30", "ME"]);
            text(format!("ms {key} {} {flags}{quiet}\r\n", data.len()), Some(&data), false)
        }
        4 => text(format!("md {key} {}{quiet}\r\n", rng.pick(&["", "I T30", "k O2", "x"])), None, false),
        5 => text(format!("ma {key} {}{quiet}\r\n", rng.pick(&["", "N30 J5 v", "MD D2 c"])), None, false),
        6 => text(format!("mg {key} {}{quiet}\r\n", rng.pick(&["v T90", "s v T30 N30", "k R30 t", "T0"])), None, false),
        7 => text(format!("mg {key} {}\r\n", rng.pick(&["v", "v q k", "s t f", "", "k c v O7"])), None, false),
        _ => text("mn\r\n".into(), None, false),
    }
}

fn binary_request(rng: &mut Rng) -> Request {
    let key = format!("key{}", rng.below(6));
    let opaque = rng.next() as u32;
    let mut bytes = Vec::new();
    let flags_and_expiry = [0, 0, 0, 5, 0, 0, 0, 0];
    let mut make = |opcode, extras: &[u8], key: &str, value: &[u8]| {
        bytes = packet(opcode, extras, key.as_bytes(), value, opaque, 0);
    };
    match rng.below(10) {
        0..4 => make([0x01, 0x02, 0x03, 0x11, 0x12, 0x13][rng.below(6)], &flags_and_expiry, &key, &value(rng)),
        4 => make([0x0e, 0x0f, 0x19, 0x1a][rng.below(4)], &[], &key, &value(rng)),
        5 => make([0x04, 0x14][rng.below(2)], &[], &key, &[]),
        6 => make([0x05, 0x15][rng.below(2)], &[[0; 7].as_slice(), &[1], &[0; 12]].concat(), &key, &[]),
        7 => make([0x1c, 0x1d, 0x1e, 0x23][rng.below(4)], &[0, 0, 0, 90], &key, &[]),
        8 => make([0x00, 0x09, 0x0c, 0x0d][rng.below(4)], &[], &key, &[]),
        _ => make([0x0a, 0x0b, 0x08, 0x18][rng.below(4)], &[], "", &[]),
    }
    let Parsed::Request(cut) = parse(&bytes) else { panic!("a request is refused") };
    let mut refusal = Vec::new();
    let status = Status::NotReplicated;
    cut.request.refusal(REFUSAL, status, status.text()).push_to(&mut refusal);
    let is_too_large = bytes.len() > TOO_LARGE;
    Request { bytes, refusal: (!is_too_large).then_some(refusal) }
}

fn check_all(make: fn(&mut Rng) -> Request) {
    for seed in seeds(SEEDS) {
        let mood = [Mood::InTime, Mood::Late, Mood::Degrading][seed as usize % 3];
        let run = std::thread::Builder::new().name("run".into());
        let run = run.spawn(move || check_seed(seed, mood, make)).expect("a thread");
        assert!(run.join().is_ok(), "TWINCACHE_SEED={seed} {mood:?}");
    }
}

#[test]
fn text_replies_wait_for_replicas() {
    check_all(text_request);
}

#[test]
fn meta_replies_wait_for_replicas() {
    check_all(meta_request);
}

#[test]
fn binary_replies_wait_for_replicas() {
    check_all(binary_request);
}

/// A connection whose replies wait; what was sent has been run.
fn held(script: &[u8]) -> Run {
    let mut run = Run::new(Mood::Late);
    run.rig.pipe().room = usize::MAX / 2;
    run.rig.send(script);
    while run.turn() == After::Again {}
    assert!(run.rig.connection.waits_for_acks());
    assert_eq!(run.rig.replies(), b"");
    run
}

impl Run {
    fn sent(&mut self) -> String {
        String::from_utf8_lossy(&self.rig.replies()).into_owned()
    }

    /// All there is becomes safe.
    fn confirm(&mut self) {
        self.acks().advance(self.last_lsn());
        self.release();
    }

    fn expire(&mut self) {
        self.pass(TIMEOUT);
        self.release();
    }
}

#[test]
fn a_reply_goes_when_its_change_is_safe_and_no_sooner() {
    let mut run = held(b"set a 0 0 1\r\nA\r\nset b 0 0 1\r\nB\r\nget a\r\n");
    run.acks().advance(run.last_lsn() - 1);
    run.release();
    assert_eq!(run.sent(), "", "they leave together");
    run.confirm();
    assert_eq!(run.sent(), "STORED\r\nSTORED\r\nVALUE a 0 1\r\nA\r\nEND\r\n");
    run.rig.ask(b"get b\r\n");
    assert!(!run.rig.connection.is_stuck(), "nothing is owed");
}

#[test]
fn a_reply_that_waits_for_too_long_is_an_error() {
    let mut run = held(b"set a 0 0 1\r\nA\r\nset b 0 0 1\r\nB\r\nget a\r\nmd b q\r\nincr a 1\r\n");
    run.acks().advance(run.last_lsn() - 2);
    run.expire();
    let refusal = "SERVER_ERROR not replicated\r\n";
    let non_numeric = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    assert_eq!(run.sent(), format!("STORED\r\n{refusal}VALUE a 0 1\r\nA\r\nEND\r\n{refusal}{non_numeric}"));
    assert_eq!(run.rig.ask(b"get b\r\n"), "END\r\n", "the change itself is done");
}

#[test]
fn who_read_nothing_meanwhile_is_not_read_from() {
    let mut run = held(b"set a 0 0 1\r\nA\r\n");
    run.rig.send(b"get a\r\n");
    for _ in 0..3 {
        assert_eq!(run.turn(), After::Wait);
    }
    assert_eq!(run.rig.pipe().waiting(), 7);
    assert_eq!(run.rig.connection.session().info_state_name(), "conn_mwrite");
    run.confirm();
    assert_eq!(run.sent(), "STORED\r\nVALUE a 0 1\r\nA\r\nEND\r\n");
}

#[test]
fn a_read_waits_for_the_quiet_change_before_it() {
    for (waits, reply) in [(false, "MN\r\n"), (true, "")] {
        let mut run = Run::new(Mood::Late);
        assert_eq!(run.rig.ask(b"set a 0 0 1 noreply\r\nA\r\n"), "");
        assert!(!run.rig.connection.is_stuck(), "there is nothing to hold");
        if !waits {
            run.pass(TIMEOUT);
        }
        run.rig.send(b"mn\r\n");
        run.turn();
        assert_eq!(run.sent(), reply);
        run.expire();
        assert_eq!(run.sent(), if waits { "MN\r\n" } else { "" }, "the quiet command is not answered");
    }
}

#[test]
fn quit_waits_as_well() {
    for (confirmed, reply) in [(true, "STORED\r\n"), (false, "SERVER_ERROR not replicated\r\n")] {
        let mut run = held(b"set a 0 0 1\r\nA\r\nquit\r\nmn\r\n");
        if confirmed {
            assert_eq!(run.queue.pop_safe(run.last_lsn()), Some(0));
            run.rig.connection.release_but(|_| false);
        } else {
            run.rig.connection.release_but(|_| true);
            run.queue = AckQueue::default();
        }
        assert_eq!(run.turn(), After::Close(CloseReason::Normal));
        assert_eq!(run.sent(), reply);
    }
}

#[test]
fn who_hangs_up_is_kept_until_it_is_safe() {
    let mut run = held(b"set a 0 0 1\r\nA\r\n");
    run.rig.pipe().is_ended = true;
    run.rig.connection.socket().note(Readiness { readable: true, writable: true, hangup: true });
    assert_eq!(run.turn(), After::Wait);
    assert_eq!(run.queue.pop_safe(run.last_lsn()), Some(0));
    run.rig.connection.release_but(|_| false);
    assert_eq!(run.turn(), After::Close(CloseReason::Normal));
    assert_eq!(run.sent(), "STORED\r\n");
}

#[test]
fn who_is_held_is_not_idle() {
    let mut run = held(b"set a 0 0 1\r\nA\r\n");
    run.rig.shared.clock.advance(60);
    run.confirm();
    assert_eq!(run.sent(), "STORED\r\n");
    assert!(!run.rig.connection.session().is_idle(run.rig.shared.clock.now(), 5, false));
}

#[test]
fn a_value_by_reference_is_dropped_with_its_reply() {
    let value = vec![b'x'; 100_000];
    let mut run = held(&[b"set a 0 0 100000\r\n".as_slice(), &value, b"\r\n"].concat());
    run.confirm();
    run.sent();
    run.rig.send(b"get a\r\ngat 100 a\r\nmn\r\nget a\r\n");
    run.turn();
    run.expire();
    let head = "VALUE a 0 100000\r\n".len() + 100_000 + "\r\nEND\r\n".len();
    let sent = run.sent();
    assert_eq!(sent.len(), 2 * head + "SERVER_ERROR not replicated\r\nMN\r\n".len());
    assert_eq!(&sent[head - 5..head + 33], "END\r\nSERVER_ERROR not replicated\r\nMN\r\n");
}

#[test]
fn a_get_that_is_refused_half_way_ends_there() {
    let mut run = Run::new(Mood::Late);
    let value = vec![b'x'; 10_000];
    let set = [b"set a 0 0 10000 noreply\r\n".as_slice(), &value, b"\r\n"].concat();
    run.rig.ask(&set);
    let keys = "a ".repeat(200);
    run.rig.send(format!("gat 100 {keys}\r\nmn\r\n").as_bytes());
    run.turn();
    assert!(run.rig.connection.memory() < 2 * OUTPUT_HIGH, "held: {}", run.rig.connection.memory());
    run.confirm();
    let first = run.rig.replies().len();
    assert!(
        first > OUTPUT_HIGH / 2 && run.rig.connection.waits_for_acks(),
        "{first} bytes, then the next part is held"
    );
    run.expire();
    while run.turn() == After::Again {}
    assert_eq!(run.sent(), "SERVER_ERROR not replicated\r\nMN\r\n");
    assert_eq!(run.rig.connection.memory(), 0);
}

#[test]
fn what_is_held_is_bounded() {
    let mut run = Run::new(Mood::Late);
    run.rig.pipe().room = usize::MAX / 2;
    let value = vec![b'x'; 10_000];
    run.rig.ask(&[b"set a 0 0 10000 noreply\r\n".as_slice(), &value, b"\r\n"].concat());
    run.rig.send(&b"get a\r\n".repeat(1000));
    while run.turn() == After::Again {}
    assert!(run.rig.connection.waits_for_acks());
    assert!(run.rig.connection.memory() < 2 * OUTPUT_HIGH);
    run.confirm();
    while run.turn() == After::Again {}
    assert_eq!(run.rig.replies().len(), 1000 * ("VALUE a 0 10000\r\n".len() + 10_000 + "\r\nEND\r\n".len()));
}

#[test]
fn a_dump_waits_for_what_is_before_it() {
    let mut run = Run::new(Mood::Late);
    run.rig.ask(b"set a 0 0 1 noreply\r\nA\r\n");
    run.rig.send(b"lru_crawler metadump all\r\n");
    while run.turn() == After::Again {}
    assert!(run.rig.connection.waits_for_acks());
    assert_eq!(run.sent(), "");
    run.confirm();
    while run.turn() == After::Again {}
    let sent = run.sent();
    assert!(sent.starts_with("OK\r\nkey=a ") && sent.ends_with("END\r\n"), "{sent:?}");
}

#[test]
fn nothing_waits_while_it_is_switched_off() {
    let mut run = held(b"set a 0 0 1\r\nA\r\n");
    run.acks().set_required(0, 0);
    run.release();
    assert_eq!(run.sent(), "STORED\r\n");
    assert_eq!(run.rig.ask(b"delete a\r\n"), "DELETED\r\n");
    run.acks().set_required(1, 0);
    assert_eq!(run.rig.ask(b"get a\r\n"), "END\r\n");
    assert_eq!(run.rig.ask(b"incr a 1\r\n"), "NOT_FOUND\r\n", "nothing was changed");
    assert_eq!(run.rig.ask(b"md a\r\n"), "", "a copy may have what is not here");
    assert_eq!(run.rig.ask(b"ms a 1\r\nA\r\n"), "");
}
