//! Appends to large values, in turns with what others do to the same key.

use super::connection::TestConnection;
use crate::config::Config;
use crate::net::conn::turn::{After, CloseReason, Quota};
use crate::store::{RoleOrder, Store};
use crate::sys::cpu::time_since_boot;
use crate::testing::{Rng, TestServer, seeds};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// What a client does to the key, and with what.
#[derive(Clone, Debug)]
enum Act {
    Append(Vec<u8>),
    Prepend(Vec<u8>),
    Set(Vec<u8>),
    Delete,
    Expire,
    Touch,
}

impl Act {
    fn random(rng: &mut Rng) -> Act {
        let len = if rng.one_in(3) { 40_000 + rng.below(300_000) } else { 1 + rng.below(100) };
        let bytes = rng.bytes(len);
        match rng.below(12) {
            0..5 => Act::Append(bytes),
            5..9 => Act::Prepend(bytes),
            9 => Act::Set(bytes.repeat(600_000 / len + 1)),
            10 => [Act::Delete, Act::Expire][rng.below(2_usize)].clone(),
            _ => Act::Touch,
        }
    }

    /// What it makes of a value, and whether it says that it has.
    fn apply(&self, value: Option<Vec<u8>>) -> (Option<Vec<u8>>, bool) {
        match (self, value) {
            (Act::Set(bytes), _) => (Some(bytes.clone()), true),
            (_, None) => (None, false),
            (Act::Append(bytes), Some(value)) => (Some([&value[..], bytes].concat()), true),
            (Act::Prepend(bytes), Some(value)) => (Some([&bytes[..], &value].concat()), true),
            (Act::Delete | Act::Expire, Some(_)) => (None, true),
            (Act::Touch, Some(value)) => (Some(value), true),
        }
    }

    /// In each of three protocols.
    fn request(&self, protocol: usize) -> Vec<u8> {
        let (verb, mode, op, bytes): (_, _, u8, &[u8]) = match self {
            Act::Append(bytes) => ("append", "A", 0x0e, bytes),
            Act::Prepend(bytes) => ("prepend", "P", 0x0f, bytes),
            Act::Set(bytes) => ("set", "S", 0x01, bytes),
            Act::Delete => return [&b"delete k\r\n"[..], b"md k\r\n", &packet(0x04, &[], &[])][protocol].to_vec(),
            Act::Expire => {
                return [&b"touch k -1\r\n"[..], b"mg k T-1\r\n", &packet(0x04, &[], &[])][protocol].to_vec();
            }
            Act::Touch => {
                return [&b"touch k 0\r\n"[..], b"mg k T0\r\n", &packet(0x1c, &[0; 4], &[])][protocol].to_vec();
            }
        };
        let line = match protocol {
            0 => format!("{verb} k 0 0 {}\r\n", bytes.len()),
            1 => format!("ms k {} M{mode}\r\n", bytes.len()),
            _ => return packet(op, if op == 1 { &[0; 8] } else { &[] }, bytes),
        };
        [line.as_bytes(), bytes, b"\r\n"].concat()
    }
}

fn packet(op: u8, extras: &[u8], value: &[u8]) -> Vec<u8> {
    let mut header = [0; 24];
    (header[0], header[1], header[3], header[4]) = (0x80, op, 1, extras.len() as u8);
    header[8..12].copy_from_slice(&((extras.len() + 1 + value.len()) as u32).to_be_bytes());
    [&header[..], extras, b"k", value].concat()
}

fn says_yes(reply: &[u8]) -> bool {
    if reply[0] == 0x81 {
        return reply[6..8] == [0, 0];
    }
    match reply.trim_ascii_end() {
        b"STORED" | b"DELETED" | b"TOUCHED" | b"HD" => true,
        b"NOT_STORED" | b"NOT_FOUND" | b"NS" | b"NF" | b"EN" => false,
        reply => panic!("{}", reply.escape_ascii()),
    }
}

fn clients(count: usize) -> Vec<TestConnection> {
    clients_of(count, |config| config.store.item_size_max = 64 << 20)
}

fn clients_of(count: usize, change: impl FnOnce(&mut Config)) -> Vec<TestConnection> {
    let first = TestConnection::new(change);
    let shared = first.shared.clone();
    let more = (1..count).map(|_| TestConnection::on(shared.clone()));
    let mut all: Vec<_> = std::iter::once(first).chain(more).collect();
    all.iter_mut().for_each(|client| client.pipe().room = usize::MAX / 2);
    all
}

/// A small value of a key.
fn set(client: &mut TestConnection, key: &str, value: &[u8]) {
    let request = [format!("set {key} 0 0 {}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
    assert_eq!(client.ask(&request), "STORED\r\n");
}

/// Turns of so many bytes each from now on.
fn slow_down(client: &mut TestConnection, bytes: usize) {
    client.quota = Quota::new(&client.shared.config, 0).with_slice(bytes);
}

/// Turns until it copies.
fn begin(client: &mut TestConnection) {
    while client.connection.session().large_missing() == 0 {
        assert_eq!(client.turn(), After::Large);
    }
}

/// Chunks that are used.
fn used(store: &Store) -> u64 {
    store.class_stats().iter().map(|class| class.used_chunks).sum()
}

fn value_of(client: &mut TestConnection) -> Option<Vec<u8>> {
    client.send(b"get k\r\n");
    client.settle();
    let reply = client.replies();
    let end = reply.windows(2).position(|two| two == b"\r\n").expect("a line") + 2;
    (end < reply.len()).then(|| reply[end..reply.len() - b"\r\nEND\r\n".len()].to_vec())
}

/// Everything that can come of acts in some order, each with this answer.
fn outcomes(value: &Option<Vec<u8>>, acts: &[(Act, bool)]) -> BTreeSet<Option<Vec<u8>>> {
    if acts.is_empty() {
        return BTreeSet::from([value.clone()]);
    }
    let mut all = BTreeSet::new();
    for i in 0..acts.len() {
        let (after, said) = acts[i].0.apply(value.clone());
        if said == acts[i].1 {
            all.extend(outcomes(&after, &[&acts[..i], &acts[i + 1..]].concat()));
        }
    }
    all
}

#[test]
fn what_several_do_to_a_large_value_at_once_is_as_if_they_had_taken_turns() {
    for seed in seeds(4) {
        let (mut rng, mut clients) = (Rng(seed), clients(4));
        let (mut value, mut long) = (None, 0);
        for round in 0..25 {
            let acts: Vec<Act> = (0..3).map(|_| Act::random(&mut rng)).collect();
            let acts = if value.is_none() { vec![Act::Set(rng.bytes(700_000)); 3] } else { acts };
            for (protocol, (client, act)) in clients.iter_mut().zip(&acts).enumerate() {
                client.send(&act.request(protocol));
            }
            let mut said = [None; 3];
            while said.iter().any(Option::is_none) {
                let i = rng.below(3_usize);
                clients[i].quota = Quota::new(&clients[i].shared.config, 0).with_slice(1 + rng.below(200_000_usize));
                clients[i].turn();
                long += usize::from(clients[i].connection.session().is_joining());
                let reply = clients[i].replies();
                if !reply.is_empty() {
                    assert!(said[i].replace(says_yes(&reply)).is_none(), "two replies");
                }
            }
            let acts: Vec<_> = acts.into_iter().zip(said.map(Option::unwrap)).collect();
            let now = value_of(&mut clients[3]);
            let names = acts.iter().map(|(act, yes)| format!("{:.12} {yes}", format!("{act:?}")));
            assert!(outcomes(&value, &acts).contains(&now), "in round {round}: {:?}", names.collect::<Vec<_>>());
            value = now;
            clients[3].shared.store.check().unwrap();
        }
        assert!(long > 100, "only {long} turns were in the middle of an append");
    }
}

#[test]
fn a_long_append_copies_a_slice_at_a_time_and_others_see_the_old_value_meanwhile() {
    for request in [&b"append k 0 0 3\r\nxyz\r\n"[..], b"prepend k 0 0 3\r\nxyz\r\n"] {
        let mut clients = clients(2);
        let old = vec![b'v'; 5_000_000];
        assert_eq!(clients[0].ask(&[b"set k 7 0 5000000\r\n", &old[..], b"\r\n"].concat()), "STORED\r\n");
        clients[0].replies();
        clients[0].send(&[request, b"get other\r\n"].concat());
        begin(&mut clients[0]);
        let mut missing = 5_000_003;
        while let After::Large = clients[0].turn() {
            let left = clients[0].connection.session().large_missing();
            assert!(missing - left <= 256 << 10, "{} bytes at once", missing - left);
            missing = left;
            if left > 0 {
                assert!(clients[0].replies().is_empty(), "nothing overtakes it");
                assert_eq!(value_of(&mut clients[1]).as_deref(), Some(&old[..]));
            }
        }
        clients[0].settle();
        assert_eq!(clients[0].replies(), b"STORED\r\nEND\r\n");
        assert_eq!(value_of(&mut clients[1]).unwrap().len(), 5_000_003);
        clients[1].shared.store.check().unwrap();
    }
}

#[test]
fn what_is_gone_or_given_up_halfway_leaves_nothing_behind() {
    for (what, value) in [
        (&b"delete k\r\n"[..], None),
        (b"flush_all\r\n", None),
        (b"set k 0 0 3\r\nnew\r\n", Some(&b"newx"[..])),
        (b"ms k 3 T0\r\nnew\r\n", Some(b"newx")),
        (b"touch k -1\r\n", None),
    ] {
        let mut clients = clients(2);
        clients[0].ask(&[b"set k 0 0 900000\r\n", &vec![b'v'; 900_000][..], b"\r\n"].concat());
        clients[0].replies();
        clients[0].send(b"append k 0 0 1\r\nx\r\n");
        begin(&mut clients[0]);
        clients[1].ask(what);
        clients[1].replies();
        clients[0].settle();
        let reply: &[u8] = if value.is_some() { b"STORED\r\n" } else { b"NOT_STORED\r\n" };
        assert_eq!(clients[0].replies(), reply, "after {}", what.escape_ascii());
        assert_eq!(value_of(&mut clients[1]).as_deref(), value);
        // The next one hangs up.
        clients[0].ask(&[b"set k 0 0 900000\r\n", &vec![b'v'; 900_000][..], b"\r\n"].concat());
        clients[0].send(b"append k 0 0 1\r\nx\r\n");
        begin(&mut clients[0]);
        let shared = clients[0].shared.clone();
        clients.remove(0);
        assert_eq!(value_of(&mut clients[0]).map(|value| value.len()), Some(900_000));
        clients[0].ask(b"delete k\r\n");
        shared.store.check().unwrap();
        assert_eq!(shared.store.stats().curr_items, 0);
        assert_eq!(used(&shared.store), 0, "chunks are left");
    }
}

#[test]
fn who_appends_at_the_same_time_to_a_large_value_needs_no_memory_of_its_own() {
    for seed in seeds(2) {
        let (mut rng, mut clients) = (
            Rng(seed),
            clients_of(61, |config| {
                (config.store.memory_limit, config.store.item_size_max) = (64 << 20, 4 << 20);
            }),
        );
        set(&mut clients[60], "k", &[b'v'; 900_000]);
        for (i, client) in clients[..60].iter_mut().enumerate() {
            // Some as an upload.
            let len = [1, 20_000][i % 2];
            client.send(&[format!("append k 0 0 {len}\r\n").as_bytes(), &vec![i as u8; len], b"\r\n"].concat());
            slow_down(client, 100_000);
        }
        let mut left: Vec<usize> = (0..60).collect();
        while !left.is_empty() {
            let at = rng.below(left.len());
            let client = &mut clients[left[at]];
            client.turn();
            let reply = client.replies();
            if !reply.is_empty() {
                assert_eq!(reply, b"STORED\r\n");
                left.swap_remove(at);
            }
        }
        let value = value_of(&mut clients[60]).expect("it is there");
        assert_eq!(value.len(), 900_000 + 30 * 20_001);
        for i in 0..60 {
            let count = value[900_000..].iter().filter(|&&byte| byte == i).count();
            assert_eq!(count, [1, 20_000][usize::from(i % 2)], "what {i} has appended");
        }
        clients[60].shared.store.check().unwrap();
    }
}

#[test]
fn a_slow_appender_beside_a_fast_one_is_answered() {
    let mut clients = clients(2);
    set(&mut clients[0], "k", &vec![b'v'; 2_000_000]);
    clients[1].send(b"append k 0 0 1\r\ns\r\n");
    slow_down(&mut clients[1], 20_000);
    let mut fast = 0;
    for _ in 0..1000 {
        if clients[0].connection.session().is_at_rest() {
            clients[0].send(b"append k 0 0 1\r\nf\r\n");
        }
        for _ in 0..20 {
            clients[0].turn();
        }
        fast += clients[0].replies().len() / b"STORED\r\n".len();
        clients[1].turn();
        if !clients[1].replies().is_empty() {
            assert!(fast <= 5, "{fast} have overtaken it");
            clients[0].settle();
            assert_eq!(value_of(&mut clients[1]).unwrap().iter().filter(|&&byte| byte == b's').count(), 1);
            return;
        }
    }
    panic!("it is never answered");
}

#[test]
fn who_finds_the_value_changed_each_time_is_done_all_the_same() {
    let mut clients = clients(2);
    set(&mut clients[1], "k", &[b'v'; 600_000]);
    clients[0].send(b"prepend k 0 0 1\r\np\r\n");
    slow_down(&mut clients[0], 100_000);
    for round in 0_usize.. {
        assert!(round < 100, "it goes on for ever");
        clients[0].turn();
        let reply = clients[0].replies();
        if !reply.is_empty() {
            assert_eq!(reply, b"STORED\r\n");
            assert!(round > 10, "it has begun anew");
            break;
        }
        set(&mut clients[1], "k", &vec![b'w'; 600_000 + round]);
    }
    let value = value_of(&mut clients[1]).unwrap();
    assert!(value.starts_with(b"pw") && value.len() > 600_000);
    clients[1].shared.store.check().unwrap();
}

#[test]
fn flush_alls_at_any_moment_of_an_append_end_nothing_but_the_value() {
    for seed in seeds(2) {
        let (mut rng, mut clients) = (Rng(seed), clients(1));
        let (client, round, flushed) = (&mut clients[0], AtomicU64::new(0), AtomicU64::new(0));
        let (store, value) = (client.shared.store.clone(), vec![b'v'; 300_000]);
        let mut stored = 0;
        const ROUNDS: u64 = 1000;
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut rng = Rng(seed ^ 1);
                for now in 1..=ROUNDS {
                    while round.load(Ordering::Acquire) < now {
                        thread::yield_now();
                    }
                    (0..rng.below(2000)).for_each(|_| std::hint::spin_loop());
                    store.flush_all(0, None);
                    flushed.store(now, Ordering::Release);
                }
            });
            for now in 1..=ROUNDS {
                set(client, "k", &value);
                client.send(b"append k 0 0 1\r\nx\r\n");
                slow_down(client, 1 + rng.below(300_000_usize));
                begin(client);
                round.store(now, Ordering::Release);
                while matches!(client.turn(), After::Again | After::Large) {
                    // The other thread may have to be given this one's CPU to come in between.
                    (rng.below(8) == 0).then(thread::yield_now);
                }
                let reply = client.replies();
                assert!(reply == b"STORED\r\n" || reply == b"NOT_STORED\r\n", "{}", reply.escape_ascii());
                stored += u64::from(reply == b"STORED\r\n");
                while flushed.load(Ordering::Acquire) < now {
                    thread::yield_now();
                }
            }
        });
        assert!((1..ROUNDS).contains(&stored), "{stored} were stored: the moments are not the right ones");
        client.shared.store.check().unwrap();
        client.ask(b"flush_all\r\nget k\r\n");
        assert_eq!(used(&store), 0, "chunks are left");
    }
}

#[test]
fn a_demotion_in_the_middle_of_an_append_stores_nothing() {
    for deletes in [true, false] {
        let mut clients = clients_of(2, |config| config.store.managed = true);
        let shared = clients[0].shared.clone();
        let deadline_ms = time_since_boot().as_millis() as u64 + 3_600_000;
        shared.store.set_role(RoleOrder::Primary { epoch: 1, deadline_ms, drops_all: true }).unwrap();
        let mut clients: Vec<_> = clients.drain(..).map(|_| TestConnection::on(shared.clone())).collect();
        clients.iter_mut().for_each(|client| client.pipe().room = usize::MAX / 2);
        set(&mut clients[1], "k", &[b'v'; 300_000]);
        clients[0].send(b"ms k 1 MA N0\r\nx\r\n");
        begin(&mut clients[0]);
        slow_down(&mut clients[0], 200_000);
        assert_eq!(clients[0].turn(), After::Large);
        if deletes {
            assert_eq!(clients[1].ask(b"delete k\r\n"), "DELETED\r\n");
        }
        let before = shared.store.stats().total_items;
        shared.store.set_role(RoleOrder::Standby { epoch: 2, secret: "secret" }).unwrap();
        assert_eq!(clients[0].settle(), After::Close(CloseReason::Normal));
        assert!(clients[0].replies().is_empty());
        clients.remove(0);
        let stats = shared.store.stats();
        assert_eq!((stats.curr_items, stats.total_items), (u64::from(!deletes), before));
        shared.store.check().unwrap();
        assert!(!deletes || used(&shared.store) == 0, "chunks are left");
    }
}

#[test]
fn who_does_not_read_keeps_neither_its_turn_nor_values() {
    let mut clients = clients(3);
    set(&mut clients[1], "k", &[b'v'; 900_000]);
    clients[0].pipe().room = 0;
    clients[0].send(b"get none\r\nappend k 0 0 1\r\nx\r\n");
    assert_eq!(clients[0].settle(), After::Wait);
    assert_eq!(clients[0].connection.session().large_missing(), 0);
    let before = used(&clients[1].shared.store);
    set(&mut clients[1], "k", &[b'w'; 900_000]);
    assert_eq!(used(&clients[1].shared.store), before, "the old value is kept");
    assert_eq!(clients[1].ask(b"append k 0 0 1\r\ny\r\n"), "STORED\r\n");
    // Who has its turn, and who waits for its own, hang up.
    clients[1].send(b"append k 0 0 1\r\na\r\n");
    begin(&mut clients[1]);
    clients[2].send(b"append k 0 0 1\r\nb\r\n");
    assert_eq!(clients[2].settle(), After::WaitToCopy);
    clients[0].take(usize::MAX / 4);
    assert_eq!(clients[0].settle(), After::WaitToCopy);
    clients.truncate(1);
    assert_eq!(clients[0].settle(), After::Wait);
    assert_eq!(clients[0].replies(), b"END\r\nSTORED\r\n");
    let value = value_of(&mut clients[0]).unwrap();
    assert!(value.ends_with(b"wyx"), "{}", value[900_000..].escape_ascii());
    clients[0].shared.store.check().unwrap();
}

#[test]
fn uploads_take_no_memory_from_appends_nor_appends_from_uploads() {
    let mut clients = clients_of(3, |config| {
        (config.store.memory_limit, config.store.item_size_max) = (64 << 20, 60 << 20);
    });
    set(&mut clients[0], "k", &vec![b'v'; 20_000_000]);
    clients[2].send(&[b"set other 0 0 14000000\r\n".as_slice(), &vec![b'o'; 13_000_000]].concat());
    clients[2].settle();
    // One waits for its turn with what it has sent, which is an upload.
    clients[0].send(b"append k 0 0 1\r\nx\r\n");
    begin(&mut clients[0]);
    clients[1].send(&[b"append k 0 0 20000\r\n".as_slice(), &[b'y'; 20_000], b"\r\n"].concat());
    clients[1].settle();
    // Nobody of them is silent: they wait for each other.
    thread::sleep(Duration::from_millis(400));
    clients[2].send(&[b'o'; 500_000]);
    clients[2].settle();
    clients[0].shared.store.note_refusal();
    assert_eq!(clients[0].ask(b""), "STORED\r\n");
    assert_eq!(clients[1].ask(b""), "STORED\r\n");
    assert_eq!(clients[2].ask(&[&[b'o'; 500_000][..], b"\r\n"].concat()), "STORED\r\n");
    assert_eq!(value_of(&mut clients[0]).map(|value| value.len()), Some(20_020_001));
    clients[0].shared.store.check().unwrap();
}

/// Appends in turns, and the same ones under the lock.
#[test]
fn a_long_append_is_answered_and_counted_as_a_short_one() {
    let change = |config: &mut Config| {
        (config.store.memory_limit, config.store.item_size_max, config.store.evict) = (8 << 20, 4 << 20, false);
    };
    let (at_once, mut in_turns) = (TestServer::new(change), TestConnection::new(change));
    let value = |len: usize| "v".repeat(len);
    let script = [
        format!("set k 7 0 1000000\r\n{}\r\nmg k c s f\r\n", value(1_000_000)),
        format!("append k 0 0 10\r\n{}\r\nmg k c s f\r\n", value(10)),
        format!("prepend k 0 0 900000\r\n{}\r\nmg k c s f t\r\n", value(900_000)),
        "ms k 1 MA c s k C1\r\nx\r\nms k 1 MA c s k T9\r\nx\r\nms k 2 MP I C99999 c\r\nyz\r\nmg k c s t\r\n".into(),
        format!("append k 0 0 2400000\r\n{}\r\nmg k c s\r\n", value(2_400_000)),
        format!("append k 0 0 2000000\r\n{}\r\nmg k c s\r\n", value(2_000_000)),
        format!("append k 0 0 300000\r\n{}\r\nmg k c s\r\n", value(300_000)),
        format!("append k 0 0 300000 noreply\r\n{}\r\nmg k c s\r\n", value(300_000)),
        "append none 0 0 1\r\nx\r\ndelete k\r\nappend k 0 0 1\r\nx\r\n".into(),
    ];
    let mut answers = BTreeSet::new();
    for request in script {
        let expected = String::from_utf8(at_once.send(request.as_bytes())).unwrap();
        assert_eq!(in_turns.ask(request.as_bytes()), expected, "{request:.30}");
        answers.extend(expected.lines().map(|line| line.split(' ').next().unwrap_or_default().to_owned()));
    }
    assert!(["STORED", "NOT_STORED", "EX", "HD"].iter().all(|answer| answers.contains(*answer)), "{answers:?}");
    let counted = |store: &Store| -> Vec<u64> {
        store.class_stats().iter().map(|class| class.counters.cmd_set).filter(|&count| count > 0).collect()
    };
    assert_eq!(counted(&in_turns.shared.store), counted(&at_once.shared.store));
    let (mut a, mut b) = (in_turns.shared.stats.totals(), at_once.shared.stats.totals());
    (a.bytes_read, a.bytes_written, a.conn_yields) = (0, 0, 0);
    (b.bytes_read, b.bytes_written, b.conn_yields) = (0, 0, 0);
    assert_eq!(a, b);
    in_turns.shared.store.check().unwrap();
}
