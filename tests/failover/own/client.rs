//! The client understands each answer of a real server.

use crate::client::{Client, Patience};
use crate::common::Server;
use crate::history::{Answer, Op, Outcome};

fn told(client: &mut Client, key: &str, op: Op) -> Answer {
    assert!(client.connect());
    match client.run(key, op) {
        Outcome::Answered(answer) => answer,
        other => panic!("{op:?}: {other:?}"),
    }
}

#[test]
fn each_operation_is_understood_in_both_protocols() {
    let mut server = Server::start(&[]);
    // The first address answers nobody.
    let mut client = Client::new(&["127.0.0.1:1".parse().unwrap(), server.addr], Patience::default());
    assert!(!client.connect() && client.connect());
    assert_eq!(client.server(), server.pid());
    for (key, speaks_meta) in [("text", false), ("meta", true)] {
        client.speaks_meta = speaks_meta;
        let cas = |seen, new| Op::Cas { seen, new };
        let steps = [
            (Op::Get, Answer::Value(None)),
            (Op::Add(1), Answer::Stored),
            (Op::Add(2), Answer::NotStored),
            (Op::Get, Answer::Value(Some(1))),
            (cas(1, 3), Answer::Stored),
            (cas(1, 4), Answer::Exists),
            (Op::Incr(9), Answer::Number(12)),
            (Op::Set(5), Answer::Stored),
            (Op::Get, Answer::Value(Some(5))),
            (Op::Delete, Answer::Deleted),
            (Op::Delete, Answer::NotFound),
            (Op::Incr(1), Answer::NotFound),
            (cas(5, 6), Answer::NotFound),
        ];
        for (op, expected) in steps {
            assert_eq!(told(&mut client, key, op), expected, "{op:?} {key}");
        }
    }
    server.stop("KILL");
    assert_eq!(client.run("text", Op::Set(1)), Outcome::Unknown);
    assert!(!client.connect());
}
