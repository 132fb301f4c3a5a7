//! What clients get of a server that is told its role, and that nothing is changed or said when it is primary no more.
//!
//! ```text
//!   client      a turn with much input:  set … set … [ shard locked by the test ] set … set
//!   role                     standby ── barred ── passes every shard ── waits for the voice ── done
//!                                                                                              └── nothing from here on
//! ```

use super::connection::TestConnection;
use crate::command::Shared;
use crate::net::conn::turn::{After, CloseReason};
use crate::store::{RoleError, RoleOrder};
use crate::sys::cpu::time_since_boot;
use crate::testing::{Rng, packet, until};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

/// Two shards, so that one can stand still.
fn server() -> Arc<Shared> {
    TestConnection::new(|config| (config.store.managed, config.store.shards) = (true, Some(2))).shared
}

fn order(shared: &Shared, order: RoleOrder<'_>) {
    assert_eq!(shared.store.set_role(order), Ok(()), "{order:?}");
}

fn promote(shared: &Shared, epoch: u64) {
    let deadline_ms = time_since_boot().as_millis() as u64 + 3_600_000;
    order(shared, RoleOrder::Primary { epoch, deadline_ms, drops_all: true });
}

fn demote(shared: &Shared, epoch: u64) {
    order(shared, RoleOrder::Standby { epoch, secret: "secret" });
}

fn client(shared: &Arc<Shared>) -> TestConnection {
    let mut conn = TestConnection::on(shared.clone());
    conn.pipe().room = usize::MAX / 2;
    conn
}

/// How the last turn ended of a connection that nothing was said to.
fn silence(conn: &mut TestConnection, script: &str) -> After {
    conn.send(script.as_bytes());
    let after = conn.settle();
    assert_eq!(String::from_utf8(conn.replies()), Ok(String::new()));
    after
}

const ENDED: After = After::Close(CloseReason::Error);

#[test]
fn clients_are_told_the_servers_in_every_role() {
    let shared = server();
    let no = "SERVER_ERROR not primary\r\n";
    let body = "3\na|10.0.0.1|11211\n";
    let (config, get) = ("config get cluster\r\n", "get AmazonElastiCache:cluster\r\n");
    assert_eq!(client(&shared).ask([config, get].concat().as_bytes()), format!("ERROR\r\n{no}"));
    assert!(shared.discovery.tell(3, "a|10.0.0.1|11211"));
    let value = format!("VALUE AmazonElastiCache:cluster 0 19\r\n{body}\r\nEND\r\n");
    for set_role in [|_: &Shared| {}, |shared: &Shared| demote(shared, 1), |shared: &Shared| promote(shared, 2)] {
        set_role(&shared);
        let mut conn = client(&shared);
        assert_eq!(conn.ask(config.as_bytes()), format!("CONFIG cluster 0 19\r\n{body}\r\nEND\r\n"));
        for text in [get, "get AmazonElastiCache:cluster \r\n"] {
            assert_eq!(conn.ask(text.as_bytes()), value);
        }
        if shared.store.bars_clients() {
            assert_eq!(conn.ask(b"get AmazonElastiCache:cluster other\r\n"), no);
        }
        let mut binary = client(&shared);
        binary.send(&packet(0x60, b"", b"cluster", b"", 7, 0));
        assert_eq!(binary.settle(), After::Wait);
        assert!(binary.replies().ends_with(body.as_bytes()));
    }
}

#[test]
fn data_is_refused_and_nothing_else() {
    let (shared, no) = (server(), "SERVER_ERROR not primary\r\n");
    let large = "x".repeat(50_000);
    let table = [
        ("get a\r\n", no),
        ("gets a b\r\n", no),
        ("gat 1 a\r\n", no),
        ("mg a v\r\n", no),
        ("me a\r\n", no),
        ("set a 0 0 1\r\nx\r\nmn\r\n", "SERVER_ERROR not primary\r\nMN\r\n"),
        ("set a 0 0 1 noreply\r\nx\r\nmn\r\n", "MN\r\n"),
        ("ms a 1 q\r\nx\r\nmn\r\n", "SERVER_ERROR not primary\r\nMN\r\n"),
        ("incr a 1\r\n", no),
        ("incr a 1 noreply\r\nma a\r\n", no),
        ("touch a 1\r\n", no),
        ("delete a noreply\r\ndelete a\r\n", no),
        ("md a\r\n", no),
        ("flush_all\r\n", no),
        ("flush_all noreply\r\n", ""),
        ("lru_crawler metadump all\r\n", no),
        ("lru_crawler disable\r\n", "OK\r\n"),
        ("version\r\n", "VERSION 1.6.45\r\n"),
        ("verbosity 0\r\n", "OK\r\n"),
        ("cache_memlimit 64\r\n", "OK\r\n"),
        ("nonsense\r\n", "ERROR\r\n"),
    ];
    for standby in [false, true] {
        if standby {
            demote(&shared, 1);
        }
        let mut conn = client(&shared);
        for (script, reply) in table {
            assert_eq!(conn.ask(script.as_bytes()), reply, "{script}");
        }
        assert_eq!(conn.ask(format!("set a 0 0 50000\r\n{large}\r\nmn\r\n").as_bytes()), format!("{no}MN\r\n"));
        assert!(conn.ask(b"stats\r\n").ends_with("END\r\n"));
        let mut binary = client(&shared);
        for (opcode, status) in [(0x00, 0x86), (0x01, 0x86), (0x0a, 0), (0x0b, 0), (0x10, 0)] {
            let (extras, key): (&[u8], &[u8]) = match opcode {
                0x00 => (&[], b"a"),
                0x01 => (&[0; 8], b"a"),
                _ => (&[], b""),
            };
            binary.send(&packet(opcode, extras, key, b"", 7, 0));
            assert_eq!(binary.settle(), After::Wait);
            assert_eq!(binary.replies()[7], status, "{opcode}");
        }
        assert_eq!(shared.store.items(), 0);
    }
    assert!(shared.discovery.tell(1, "a|10.0.0.1|1"));
    let answer = client(&shared).ask(b"get AmazonElastiCache:cluster\r\n");
    assert!(answer.contains("a|10.0.0.1|1"), "any server of the ring may be asked for it: {answer}");
}

#[test]
fn a_primary_serves_until_its_deadline() {
    let shared = server();
    promote(&shared, 1);
    let mut conn = client(&shared);
    assert_eq!(conn.ask(b"set a 0 0 1\r\nx\r\nget a\r\n"), "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    demote(&shared, 2);
    assert_eq!(silence(&mut conn, "get a\r\n"), After::Close(CloseReason::Normal), "it was served in another term");
    // The deadline has passed before anything could be said; nor does an earlier one take back a later one.
    order(&shared, RoleOrder::Primary { epoch: 3, deadline_ms: 1, drops_all: false });
    for _ in 0..2 {
        assert_eq!(silence(&mut client(&shared), "get a\r\n"), ENDED);
        assert_eq!(silence(&mut client(&shared), "set b 0 0 1\r\nx\r\nget a\r\nmn\r\n"), ENDED);
        assert_eq!(silence(&mut client(&shared), "version\r\n"), ENDED);
    }
    promote(&shared, 3);
    order(&shared, RoleOrder::Primary { epoch: 3, deadline_ms: 1, drops_all: false });
    assert_eq!(client(&shared).ask(b"get a\r\n"), "VALUE a 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn what_is_stuck_is_not_sent_after_a_demotion() {
    let shared = server();
    promote(&shared, 1);
    let mut conn = TestConnection::on(shared.clone());
    conn.send(b"set a 0 0 1\r\nx\r\nget a\r\n");
    assert_eq!(conn.settle(), After::Wait);
    demote(&shared, 2);
    promote(&shared, 3);
    conn.take(1000);
    assert_eq!(conn.settle(), ENDED);
    assert!(conn.replies().is_empty());
}

#[test]
fn nothing_that_was_read_is_applied_or_answered_after_a_demotion() {
    let shared = server();
    promote(&shared, 1);
    let key = (0..).map(|i| format!("key{i}")).find(|key| shared.store.hash(key.as_bytes()).0 >> 63 == 0).unwrap();
    let script = format!("set {key} 0 0 1\r\nx\r\nmd {key}\r\nflush_all\r\nset other 0 0 1\r\nx\r\nmn\r\n");
    let mut old = client(&shared);
    let counters = old.counters.clone();
    let lock = shared.store.lock(shared.store.hash(key.as_bytes()));
    thread::scope(|scope| {
        let old = scope.spawn(|| silence(&mut old, &script));
        until("all is read", || counters.bytes_read.get() == script.len() as u64);
        let demotion = scope.spawn(|| demote(&shared, 2));
        until("clients are barred", || shared.store.bars_clients());
        assert!(!demotion.is_finished(), "it is answered when every lock was given back");
        drop(lock);
        assert_eq!(old.join().expect("no panic"), After::Close(CloseReason::Normal));
    });
    assert_eq!(shared.store.items(), 0);
}

/// At any moment: what was written and said by the time the demotion is done is all.
#[test]
fn when_a_demotion_is_done_nothing_more_is_changed_or_said() {
    let (shared, mut rng) = (server(), Rng(1));
    let mut cut_short = 0;
    for round in 0..200 {
        promote(&shared, 2 * round + 1);
        assert_eq!(shared.store.items(), 0);
        let script: String = (0..300).map(|at| format!("set {round}:{at} 0 0 1\r\nx\r\n")).collect();
        let mut old = client(&shared);
        let (written, state) = (old.pipe().written.clone(), old.voice.as_ref().expect("it is managed").state());
        shared.store.on_silence(move || state.wait_for_silence());
        let later = rng.below(60_000);
        let (items, said) = thread::scope(|scope| {
            let old = scope.spawn(|| {
                old.send(script.as_bytes());
                old.settle()
            });
            (0..later).for_each(|_| std::hint::spin_loop());
            demote(&shared, 2 * round + 2);
            let then = (shared.store.items(), written.load(Ordering::SeqCst));
            cut_short += u32::from(matches!(old.join().expect("no panic"), After::Close(_)));
            then
        });
        assert_eq!((items, said), (shared.store.items(), written.load(Ordering::SeqCst)), "round {round}");
        assert!(said % b"STORED\r\n".len() == 0 && said / b"STORED\r\n".len() <= items as usize, "round {round}");
    }
    assert!(cut_short > 10, "{cut_short}");
}

#[test]
fn a_server_that_was_not_started_for_it_takes_no_roles() {
    let shared = TestConnection::new(|_| {}).shared;
    assert_eq!(shared.store.set_role(RoleOrder::Waiting), Err(RoleError::Unmanaged));
    assert_eq!(client(&shared).ask(b"get a\r\n"), "END\r\n");
}
