//! Bodies pass whole, our own commands stand between them, and what is no line is refused.

use super::*;
use crate::protocol::control::ServerLine;
use crate::testing::Rng;

/// Reads a stream of batches in random pieces and writes it in random pieces; returns what was written.
fn through(stream: &[u8], rng: &mut Rng) -> Vec<u8> {
    let (mut relay, mut read, mut out) = (Relay::default(), 0, Vec::new());
    let mut line = Vec::new();
    while read < stream.len() || relay.pending() > 0 {
        let room = relay.room();
        let n = room.len().min(stream.len() - read).min(1 + rng.below(300_000) as usize);
        room[..n].copy_from_slice(&stream[read..read + n]);
        relay.filled(n);
        read += n;
        while let Some(piece) = relay.next(&mut line).unwrap() {
            match piece {
                Incoming::BodyEnd => relay.add(b"mn\r\n".as_slice()),
                Incoming::Line => {
                    if let Some(ServerLine::Batch(_, bytes)) = ServerLine::parse(&line) {
                        relay.begin_body(bytes);
                    }
                }
            }
        }
        let mut bytes = Vec::new();
        relay
            .slices(rng.below(400_000) as usize, rng.below(2) == 0)
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        let n = rng.below(bytes.len() as u64 + 1) as usize;
        out.extend_from_slice(&bytes[..n]);
        relay.written(n);
    }
    out
}

#[test]
fn bodies_pass_whole_however_they_are_cut() {
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for lsn in 0..30 {
            let len: usize = [0, 1, 100, 20_000, 262_144, 1_000_000][rng.below(6) as usize];
            let body = lsn.to_string().repeat(len);
            let body = &body.as_bytes()[..len];
            stream.extend_from_slice(format!("batch {lsn} {len}\r\n").as_bytes());
            stream.extend_from_slice(body);
            stream.extend_from_slice(b"alive 5 5\r\n");
            expected.extend_from_slice(body);
            expected.extend_from_slice(b"mn\r\n");
        }
        assert!(through(&stream, &mut rng) == expected, "seed {seed}");
    }
}

#[test]
fn our_commands_stand_apart_from_a_body_before_them() {
    let mut relay = Relay::default();
    relay.add(b"mn\r\n".as_slice());
    relay.room()[..4].copy_from_slice(b"body");
    relay.filled(4);
    relay.begin_body(4);
    assert_eq!(relay.next(&mut Vec::new()), Ok(Some(Incoming::BodyEnd)));
    relay.add(b"stats\r\n".as_slice());
    let sent =
        |relay: &Relay, apart| -> Vec<u8> { relay.slices(100, apart).iter().flat_map(|it| it.to_vec()).collect() };
    assert_eq!(sent(&relay, false), b"mn\r\nbodystats\r\n");
    assert_eq!(sent(&relay, true), b"mn\r\nbody");
    relay.written(6);
    assert_eq!(sent(&relay, true), b"dy");
    relay.written(2);
    assert_eq!(sent(&relay, true), b"stats\r\n");
}

#[test]
fn a_line_without_end_is_refused() {
    let mut relay = Relay::default();
    relay.room()[..2000].fill(b'x');
    relay.filled(2000);
    assert!(relay.next(&mut Vec::new()).is_err());
}
