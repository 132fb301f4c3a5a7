//! Appends to large values, in turns with what others do to the same key.

use super::connection::TestConnection;
use crate::net::conn::turn::{After, Quota};
use crate::testing::{Rng, seeds};
use std::collections::BTreeSet;

/// What a client does to the key, and with what.
#[derive(Clone, Debug)]
enum Act {
    Append(Vec<u8>),
    Prepend(Vec<u8>),
    Set(Vec<u8>),
    Delete,
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
            10 => Act::Delete,
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
            (Act::Delete, Some(_)) => (None, true),
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
    let first = TestConnection::new(|config| config.store.item_size_max = 64 << 20);
    let shared = first.shared.clone();
    let more = (1..count).map(|_| TestConnection::on(shared.clone()));
    let mut all: Vec<_> = std::iter::once(first).chain(more).collect();
    all.iter_mut().for_each(|client| client.pipe().room = usize::MAX / 2);
    all
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
        assert_eq!(clients[0].turn(), After::Large);
        clients[1].ask(what);
        clients[1].replies();
        clients[0].settle();
        let reply: &[u8] = if value.is_some() { b"STORED\r\n" } else { b"NOT_STORED\r\n" };
        assert_eq!(clients[0].replies(), reply, "after {}", what.escape_ascii());
        assert_eq!(value_of(&mut clients[1]).as_deref(), value);
        // The next one hangs up.
        clients[0].ask(&[b"set k 0 0 900000\r\n", &vec![b'v'; 900_000][..], b"\r\n"].concat());
        clients[0].send(b"append k 0 0 1\r\nx\r\n");
        assert_eq!(clients[0].turn(), After::Large);
        let shared = clients[0].shared.clone();
        clients.remove(0);
        assert_eq!(value_of(&mut clients[0]).map(|value| value.len()), Some(900_000));
        clients[0].ask(b"delete k\r\n");
        shared.store.check().unwrap();
        assert_eq!(shared.store.stats().curr_items, 0);
        let used: u64 = shared.store.class_stats().iter().map(|class| class.used_chunks).sum();
        assert_eq!(used, 0, "chunks are left");
    }
}
