//! What is owed, held, and refused, without connections.

use super::*;
use crate::protocol::{Parsed, Protocol, parse};
use crate::testing::packet;

fn meta() -> Request<'static> {
    request(b"mn\r\n")
}

fn request(input: &[u8]) -> Request<'_> {
    let protocol = if input[0] == 0x80 { Protocol::Binary } else { Protocol::Ascii };
    match parse(protocol, input, 0) {
        Parsed::Request(cut) => cut.request,
        other => panic!("{other:?}"),
    }
}

fn ack(lsn: u64, start: Instant, ms: u64) -> PendingAck {
    PendingAck { lsn, deadline: start + Duration::from_millis(ms) }
}

#[test]
fn only_what_is_not_safe_is_refused() {
    let mut reply_hold = ReplyHold::new(Duration::from_secs(1));
    let mut out = Output::default();
    let requests = [(1, "STORED\r\n"), (0, "END\r\n"), (2, ""), (3, "HD\r\n"), (0, "MN\r\n"), (4, "HD\r\n")];
    for (lsn, reply) in requests {
        let start = OutputPlace::end_of(&out);
        out.push(reply.as_bytes());
        if lsn > 0 {
            reply_hold.note_change(lsn);
            reply_hold.mark_reply(&meta(), start, lsn == 4, &out);
        }
    }
    let marks = reply_hold.take_marks();
    let refused = refuse(&mut out, &marks, |lsn| lsn > 1);
    assert_eq!(refused, Refused { replies: 3, cuts_get: true });
    let text = "STORED\r\nEND\r\n@@MN\r\n@".replace('@', "SERVER_ERROR not replicated\r\n");
    assert_eq!(String::from_utf8_lossy(&out.bytes), text);
}

#[test]
fn each_protocol_has_its_refusal() {
    let set = packet(0x11, &[0; 8], b"key", b"", 0x0102_0304, 0);
    let header = b"\x81\x11\0\0\0\0\0\x86\0\0\0\x0e\x01\x02\x03\x04\0\0\0\0\0\0\0\0";
    for (input, refusal) in
        [(&b"delete a\r\n"[..], REFUSAL), (b"md a q\r\n", REFUSAL), (&set, &[header, &b"Not replicated"[..]].concat())]
    {
        let (mut reply_hold, mut out) = (ReplyHold::new(Duration::from_secs(1)), Output::default());
        out.push(b"a reply");
        reply_hold.note_change(1);
        reply_hold.mark_reply(&request(input), OutputPlace { bytes: 0, values: 0 }, false, &out);
        refuse(&mut out, &reply_hold.take_marks(), |_| true);
        assert_eq!(out.bytes, refusal, "{}", input.escape_ascii());
    }
}

fn safe_to(lsn: u64) -> Acks {
    let acks = Acks::default();
    acks.set_required(1, lsn);
    acks
}

/// It became safe before its turn was over, and was refused.
#[test]
fn what_is_refused_at_once_waits_to_be_told() {
    for (refused, holds) in [((0, 1), true), ((1, 2), true), ((2, 3), false)] {
        let (mut reply_hold, acks, mut out) = (ReplyHold::new(Duration::from_secs(1)), safe_to(3), Output::default());
        acks.refuse(refused.0, refused.1);
        for lsn in [1, 2] {
            let start = OutputPlace::end_of(&out);
            out.push(b"HD\r\n");
            reply_hold.note_change(lsn);
            reply_hold.mark_reply(&meta(), start, false, &out);
        }
        assert_eq!(reply_hold.take_pending(&acks, &out).is_some(), holds, "{refused:?}");
        let marks = reply_hold.take_marks();
        let told = refuse(&mut out, &marks, |lsn| acks.is_refused(lsn));
        assert_eq!(told.replies, u64::from(holds));
    }
}

#[test]
fn a_quiet_text_command_gets_no_refusal() {
    let mut reply_hold = ReplyHold::new(Duration::from_secs(1));
    let out = Output::default();
    reply_hold.note_change(1);
    reply_hold.mark_reply(&request(b"delete a\r\n"), OutputPlace::end_of(&out), false, &out);
    assert_eq!(reply_hold.take_pending(&safe_to(0), &out), None, "there is nothing to hold");
    assert!(reply_hold.has_pending());
    reply_hold.mark_reply(&meta(), OutputPlace::end_of(&out), false, &out);
    assert_eq!(reply_hold.take_pending(&safe_to(0), &out).map(|ack| ack.lsn), Some(1));
    assert_eq!(reply_hold.take_marks().len(), 1);
}

#[test]
fn what_is_pending_is_forgotten_when_it_is_safe_or_too_late() {
    let start = Instant::now();
    let reply = Output { bytes: b"MN\r\n".to_vec(), values: vec![] };
    for (safe, later, holds) in [(6, 0, true), (7, 0, false), (6, 100, false)] {
        let mut reply_hold = ReplyHold::new(Duration::from_secs(1));
        reply_hold.now = start + Duration::from_millis(later);
        reply_hold.begin_turn(Some(ack(7, start, 100)));
        assert_eq!(reply_hold.take_pending(&safe_to(safe), &reply).is_some(), holds);
        assert_eq!(reply_hold.end_turn(), None);
    }
}

#[test]
fn the_queue_is_in_order_of_what_is_waited_for() {
    let start = Instant::now();
    let mut queue = AckQueue::default();
    for (lsn, key) in [(2, 20), (4, 40), (4, 41), (3, 30), (9, 90)] {
        queue.push(ack(lsn, start, lsn), key);
    }
    assert_eq!(queue.pop_safe(1), None);
    let safe: Vec<_> = std::iter::from_fn(|| queue.pop_safe(3)).collect();
    assert_eq!(safe, [20, 30]);
    let now = start + Duration::from_millis(4);
    assert_eq!(queue.pop_expired(now, 4), None, "it is safe: it just has not been let go of");
    let expired: Vec<_> = std::iter::from_fn(|| queue.pop_expired(now, 3)).collect();
    assert_eq!(expired, [40, 41]);
    assert_eq!(queue.first().map(|ack| ack.lsn), Some(9));
    assert_eq!(queue.pop_safe(u64::MAX), Some(90));
    assert!(queue.is_empty());
}

#[test]
fn a_worker_is_woken_once() {
    let mut poll = mio::Poll::new().expect("a poll");
    let ack_waker = AckWaker::new(Arc::new(Waker::new(poll.registry(), mio::Token(0)).expect("a waker")));
    let mut rings = || {
        let mut events = mio::Events::with_capacity(1);
        poll.poll(&mut events, Some(Duration::ZERO)).expect("a poll");
        !events.is_empty()
    };
    ack_waker.on_safe(u64::MAX);
    assert!(!rings(), "it is not set");
    ack_waker.wait_for(Some(ack(5, Instant::now(), 0)));
    ack_waker.on_safe(4);
    assert!(!rings());
    ack_waker.on_safe(5);
    assert!(rings());
    ack_waker.on_safe(6);
    assert!(!rings());
}
