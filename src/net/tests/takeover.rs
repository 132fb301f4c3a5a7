//! A source that is replaced while what it has sent is being run.
//!
//! ```text
//!   old source   a turn with much input:  write … write … [ shard locked by the test ] write … write
//!   new source                      replica from ── replaced ── passes every shard ── OK
//!                                                                                     └── from here on: nothing of the old
//! ```

use super::connection::TestConnection;
use crate::command::Shared;
use crate::net::conn::turn::{After, CloseReason};
use crate::testing::{Rng, until};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// As a sidecar says it, and as the next one says it, to be told apart.
const FROM: &str = "replica from 00000000000000ab\r\n";
const FROM_ANOTHER: &str = "replica from 00000000000000ab 00000000000000cd\r\n";

/// Two shards, so that one can stand still.
fn server() -> Arc<Shared> {
    TestConnection::new(|config| config.store.shards = Some(2)).shared
}

/// What a connection is answered, and how its last turn ends.
fn ask(conn: &mut TestConnection, script: &str) -> (String, After) {
    conn.pipe().room = usize::MAX / 2;
    conn.send(script.as_bytes());
    let after = conn.settle();
    (String::from_utf8(conn.replies()).expect("text"), after)
}

/// A connection that has said that it is the source.
fn source(shared: &Arc<Shared>) -> TestConnection {
    let mut source = TestConnection::on(shared.clone());
    let (answer, _) = ask(&mut source, FROM);
    assert!(answer.starts_with("OK "), "{answer}");
    source
}

/// A key of a shard.
fn key_of(shared: &Shared, shard: u64) -> String {
    let mut keys = (0..).map(|i| format!("key{i}"));
    keys.find(|key| shared.store.hash(key.as_bytes()).0 >> 63 == shard).expect("there is one")
}

/// Each way that a source has to change something, for a key.
fn changes(key: &str) -> String {
    format!(
        "ms {key} 3 T0 E7 q\r\nnew\r\nset {key} 0 0 3\r\nnew\r\nappend {key} 0 0 3\r\nnew\r\nms {key} 4 MA N9\r\nmore\r\n\
         incr {key} 1\r\nma {key} N0 q\r\ntouch {key} 1\r\nmg {key} T1 N1\r\ngat 1 {key}\r\nmd {key} x\r\n\
         md {key} I\r\ndelete {key}\r\nadd {key} 0 0 3\r\nnew\r\nflush_all\r\nreplica begin\r\nreplica end\r\nmn\r\n"
    )
}

fn replaced_while_it_is_run(replicas_ack: u32) {
    let shared = server();
    let (still, other) = (key_of(&shared, 0), key_of(&shared, 1));
    let mut client = TestConnection::on(shared.clone());
    for key in [&still, &other] {
        assert_eq!(ask(&mut client, &format!("ms {key} 1 E5\r\n1\r\n")).0, "HD\r\n");
    }
    shared.store.journal().set_required(replicas_ack, Instant::now());
    let (mut old, mut new) = (source(&shared), TestConnection::on(shared.clone()));
    let (script, counters) = (changes(&still) + &changes(&other), old.counters.clone());
    let all_read = FROM.len() + script.len();
    let lock = shared.store.lock(shared.store.hash(still.as_bytes()));
    thread::scope(|scope| {
        let old = scope.spawn(|| ask(&mut old, &script));
        until("all is read", || counters.bytes_read.get() == all_read as u64);
        let new = scope.spawn(|| ask(&mut new, FROM_ANOTHER));
        let upstreams = || shared.store.meet("name", "peer", Instant::now()).expect("no circle").1.len();
        until("the new one is the source", || upstreams() == 2);
        assert!(!new.is_finished(), "it is answered when every lock was given back");
        drop(lock);
        let answer = new.join().expect("no panic").0;
        assert!(answer.starts_with("OK "), "{answer}");
        assert_eq!(old.join().expect("no panic"), (String::new(), After::Close(CloseReason::Normal)));
    });
    for key in [&still, &other] {
        assert_eq!(ask(&mut client, &format!("mg {key} c t v\r\n")).0, "VA 1 c5 t-1\r\n1\r\n");
    }
}

#[test]
fn nothing_that_was_read_of_a_replaced_source_is_applied() {
    replaced_while_it_is_run(0);
}

#[test]
fn nothing_that_was_read_of_a_replaced_source_is_applied_where_replies_wait() {
    replaced_while_it_is_run(1);
}

/// At any moment: what the old source has written by the time the new one is answered is all that it ever writes.
#[test]
fn when_the_next_source_is_answered_the_old_one_has_written_its_last() {
    let (shared, mut rng) = (server(), Rng(1));
    let mut cut_short = 0;
    for round in 0..200 {
        let sets = |at: usize| {
            format!("ms {round}:{at} 1 E5\r\nx\r\nset plain{round}:{at} 0 0 1\r\nx\r\nmd {round}:{}\r\n", at / 2)
        };
        let script: String = (0..300).map(sets).collect();
        let (mut old, mut new, mut client) =
            (source(&shared), TestConnection::on(shared.clone()), TestConnection::on(shared.clone()));
        let gets: String = (0..300).map(|at| format!("mg {round}:{at}\r\nget plain{round}:{at}\r\n")).collect();
        let later = rng.below(60_000);
        let (then, old) = thread::scope(|scope| {
            let old = scope.spawn(|| ask(&mut old, &script));
            (0..later).for_each(|_| std::hint::spin_loop());
            assert!(ask(&mut new, FROM_ANOTHER).0.starts_with("OK "));
            (ask(&mut client, &gets).0, old.join().expect("no panic"))
        });
        assert!(ask(&mut client, &gets).0 == then, "round {round}");
        cut_short += u32::from(old.1 == After::Close(CloseReason::Normal));
    }
    assert!(cut_short > 10, "{cut_short}");
}
