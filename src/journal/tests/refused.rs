//! Which changes count as refused, and when what was refused is sent again.

use super::*;

const RANGES: u32 = 64;

fn suspects(lsns: &[u64]) -> Vec<Suspect> {
    lsns.iter().map(|&lsn| Suspect { lsn, key: vec![], key_is_binary: false, range: lsn as u32 % RANGES }).collect()
}

fn closed(refused: &[(u64, u64)]) -> Verdict {
    Verdict { refused: refused.to_vec(), is_open: false }
}

#[test]
fn each_of_several_suspects_gets_its_own_verdict() {
    let (mut refused, now) = (PeerRefusals::new(RANGES), Instant::now());
    let verdict = refused.judge((10, 20), Some(&suspects(&[11, 15, 20])), true, now);
    assert_eq!(verdict, Verdict { refused: vec![], is_open: true });
    refused.sent_again(&[(11, 31), (15, 32), (20, 33)]);
    refused.confirm(30, now);
    assert!(refused.is_held(), "what was sent before says nothing");
    refused.confirm(31, now);
    assert_eq!(refused.judge((31, 32), Some(&suspects(&[32])), true, now), closed(&[(14, 15), (31, 32)]));
    assert!(refused.is_held());
    refused.confirm(33, now);
    assert!(!refused.is_held());
    assert_eq!(refused.count(), 1, "the range of the one");
}

#[test]
fn who_was_sent_again_among_others_is_sent_once_more() {
    let (mut refused, now) = (PeerRefusals::new(RANGES), Instant::now());
    refused.judge((0, 2), Some(&suspects(&[1, 2])), true, now);
    refused.sent_again(&[(1, 5), (2, 6)]);
    let verdict = refused.judge((2, 6), Some(&suspects(&[4, 5, 6])), true, now);
    assert!(verdict.is_open);
    refused.sent_again(&[(4, 7), (5, 8), (6, 9)]);
    assert_eq!(refused.judge((6, 7), Some(&suspects(&[7])), true, now).refused, [(3, 4), (6, 7)]);
    assert_eq!(refused.judge((7, 9), Some(&suspects(&[9])), true, now).refused, [(1, 2), (8, 9)]);
    assert!(!refused.is_held(), "8 stood for 1, and was not refused");
}

#[test]
fn where_nobody_waits_or_nobody_knows_all_are_noted() {
    let (mut refused, now) = (PeerRefusals::new(RANGES), Instant::now());
    assert_eq!(refused.judge((1, 4), Some(&suspects(&[2, 3])), false, now), closed(&[(1, 4)]));
    assert_eq!(refused.count(), 2);
    assert_eq!(refused.judge((4, 9), None, true, now), closed(&[(4, 9)]));
    assert_eq!(refused.judge((9, 9), Some(&[]), true, now), closed(&[(9, 9)]));
    assert_eq!(refused.count(), u64::from(RANGES));
    let many: Vec<u64> = (10..=10 + HELD_MAX as u64).collect();
    assert!(!refused.judge((9, 1 << 20), Some(&suspects(&many)), true, now).is_open);
}

/// Ranges 1 to 20 were refused, and range 5 always is.
#[test]
fn what_was_refused_is_tried_again_until_it_is_taken() {
    let (mut refused, mut now) = (PeerRefusals::new(RANGES), Instant::now());
    let began = now;
    refused.judge((0, 20), Some(&suspects(&(1..=20).collect::<Vec<_>>())), false, now);
    assert_eq!(refused.next(20, now), None, "not at once");
    let (mut lsn, mut tried) = (64, Vec::new());
    while now < began + Duration::from_secs(100) {
        now += Duration::from_millis(100);
        let (mut attempt, acked) = (Vec::new(), lsn);
        while let Some(range) = refused.next(acked, now) {
            lsn += 64;
            refused.range_done(lsn, acked, now);
            attempt.push((range, lsn));
        }
        for &(range, at) in &attempt {
            let itself = at / 64 * 64 + u64::from(range) - 64;
            match range {
                5 => drop(refused.judge((itself - 1, itself), Some(&suspects(&[itself])), true, now)),
                _ => refused.confirm(itself, now),
            }
        }
        refused.confirm(lsn, now);
        tried.extend(attempt.iter().map(|&(range, _)| range));
    }
    assert!((1..=20).all(|range| tried.contains(&range)), "{tried:?}");
    let often = tried.iter().filter(|&&range| range == 5).count();
    assert!((5..12).contains(&often) && tried.len() == 19 + often, "{tried:?}");
    assert_eq!(refused.count(), 1);
    // A reader that goes in the middle of an attempt has not got it.
    now += PAUSE_MAX;
    assert_eq!(refused.next(lsn, now), Some(5));
    assert_eq!(refused.remembered().ranges.count, 1);
}
