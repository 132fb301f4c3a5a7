//! A session in the middle of a value: small ones wait until they are whole, large ones go straight to where they are stored.
//!
//! Not here: the other states of a session (`session`), the bytes of a large value (`upload`).

use super::session::{SMALL_BODY_MAX, Session, SessionState, Step};
use super::turn::{LARGE, Quota, SLICE, TurnContext};
use super::upload::{Joining, UploadRooms, Uploading};
use crate::command;
use crate::command::{JoinStep, LongJoin, Next};
use crate::net::reply_hold::OutputPlace;
use crate::protocol;
use crate::protocol::{Bad, Cut, Parsed};
use crate::store::CopyPlace;

impl Session {
    /// Where the next bytes of a large value go, at most `max`. None when no large value is on its way.
    pub(crate) fn upload_rooms(&mut self, max: usize, turn: &mut TurnContext<'_>) -> Option<UploadRooms<'_>> {
        // The room is asked for twice because a borrow that may be returned cannot be given up on the way.
        let SessionState::Upload(uploading) = &mut self.state else { return None };
        if uploading.missing() > 0 && uploading.rooms(max).is_err() {
            self.abandon_upload(turn);
        }
        match &mut self.state {
            SessionState::Upload(uploading) if uploading.missing() > 0 => uploading.rooms(max).ok(),
            _ => None,
        }
    }

    /// Whether the memory for what comes next of a large value is not ready yet.
    pub(crate) fn waits_for_memory(&self) -> bool {
        matches!(&self.state, SessionState::Upload(uploading) if uploading.must_wait())
    }

    /// Bytes of a large value that are still to come.
    #[inline]
    pub(crate) fn upload_missing(&self) -> usize {
        match &self.state {
            SessionState::Upload(uploading) => uploading.missing(),
            _ => 0,
        }
    }

    /// Memory of the line of a large value, which is kept until the value is there.
    #[inline]
    pub(crate) fn held(&self) -> usize {
        match &self.state {
            SessionState::Upload(uploading) => uploading.head.len(),
            SessionState::Join(joining) => joining.head.len(),
            _ => 0,
        }
    }

    /// Bytes of a large value that are to be moved: received, or copied.
    #[inline]
    pub(crate) fn large_missing(&self) -> usize {
        match &self.state {
            SessionState::Join(joining) => joining.join.missing(),
            _ => self.upload_missing(),
        }
    }

    /// Whether the next request is likely to be a large value. Says so once for each one that there was.
    pub(crate) fn expects_upload(&mut self) -> bool {
        std::mem::take(&mut self.after_upload)
    }

    /// Says that the first `n` bytes of that room were filled.
    pub(crate) fn upload_filled(&mut self, n: usize) {
        if let SessionState::Upload(uploading) = &mut self.state {
            uploading.filled(n);
        }
    }

    /// A store some of whose value has not come: small and to be waited for, or large and to be received in pieces.
    pub(super) fn begin_value(
        &mut self,
        input: &[u8],
        cut: &Cut<'_>,
        turn: &mut TurnContext<'_>,
        quota: &mut Quota,
    ) -> Step {
        if cut.body + cut.tail <= SMALL_BODY_MAX || !cut.is_store() {
            self.restart_idle(turn.now);
            return self.await_bytes(cut.size(), SessionState::Body);
        }
        // Not where much of the value has come already: all of that would be held while the connection waits in line.
        if cut.body > quota.room && input.len() < LARGE {
            return quota.get_in_line(Step::Ends(0));
        }
        quota.take_requests(1);
        self.restart_idle(turn.now);
        if self.other_end.is_barred(turn.voice)
            && let Some(reply) = command::barred::refusal(&cut.request, turn.shared)
        {
            let swallow = (cut.body + cut.tail) as u64;
            return self.refuse(Bad { consumed: cut.head, swallow, reply, close: false }, turn);
        }
        // Nor here, where memory is short.
        if (input.len() < LARGE || !turn.is_tight)
            && command::must_wait(cut.store_header(), cut.body, &self.context(turn))
        {
            return quota.wait_for_memory(Step::Ends(0));
        }
        match command::begin(cut.store_header(), cut.body, &self.context(turn)) {
            Ok(upload) => {
                self.state = SessionState::Upload(Box::new(Uploading::new(input, cut, upload)));
                Step::Took(cut.head)
            }
            Err(bad) => self.refuse(Bad { consumed: cut.head, ..bad }, turn),
        }
    }

    /// Takes a piece of a large value, and its tail; stores it when that was the last.
    pub(super) fn receive(&mut self, input: &[u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> Step {
        let SessionState::Upload(uploading) = &mut self.state else { return Step::Ends(0) };
        match uploading.take(input) {
            Err(used) => {
                self.abandon_upload(turn);
                Step::Took(used)
            }
            Ok(used) if uploading.is_complete() => {
                quota.take_requests(1);
                self.finish_upload(turn);
                if self.is_joining() { quota.get_in_line(Step::Ends(used)) } else { Step::Took(used) }
            }
            Ok(used) if used < input.len() => quota.wait_for_memory(Step::Ends(used)),
            Ok(0) => Step::Ends(0),
            Ok(used) => Step::Took(used),
        }
    }

    fn finish_upload(&mut self, turn: &mut TurnContext<'_>) {
        let SessionState::Upload(uploading) = std::mem::replace(&mut self.state, SessionState::Command) else { return };
        let Uploading { head, upload, tail, tail_len, .. } = *uploading;
        self.after_upload = true;
        // The client was not idle while it sent its value, however long that took.
        self.restart_idle(turn.now);
        let (cut, start, before) = (self.cut_again(&head), OutputPlace::end_of(turn.out), turn.last_lsn.get());
        let next = command::finish(cut.store_header(), upload, &tail[..tail_len], &self.context(turn), turn.out);
        if turn.counters.keys.due(1).is_some() {
            command::sample_upload(cut.store_header(), cut.body, &self.context(turn));
        }
        if let Next::Join(upload) = next {
            turn.forget_seen();
            self.state = SessionState::Join(Box::new(Joining { head, in_input: 0, join: LongJoin::new(upload) }));
        } else if turn.notes_change(before) {
            turn.reply_hold.mark_reply(&cut.request, start, false, turn.out);
        }
    }

    /// Whether there is something to do for which nothing need come.
    pub(crate) fn is_at_work(&self) -> bool {
        self.is_dumping() || self.is_joining()
    }

    /// Does some of that. The output must be empty. How much of the input is used up.
    pub(crate) fn work(&mut self, input: &[u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> usize {
        if self.is_joining() {
            return self.join_some(input, turn, quota);
        }
        self.dump(turn, quota);
        0
    }

    /// Its place among those who copy, while it waits for its turn.
    pub(crate) fn copy_place(&self) -> Option<&CopyPlace> {
        match &self.state {
            SessionState::Join(joining) if joining.join.is_waiting() => joining.join.place(),
            _ => None,
        }
    }

    /// Whether it is in the middle of an append to a large value.
    #[inline]
    pub(crate) fn is_joining(&self) -> bool {
        matches!(self.state, SessionState::Join(_))
    }

    /// Goes on with such an append: a slice of it, and then others have their turns. Nothing waits to be written: who has its
    /// turn to copy must not stand still.
    fn join_some(&mut self, input: &[u8], turn: &mut TurnContext<'_>, quota: &mut Quota) -> usize {
        let state = std::mem::replace(&mut self.state, SessionState::Command);
        let SessionState::Join(mut joining) = state else { unreachable!("it is joining") };
        let Joining { head, in_input, join } = &mut *joining;
        let (cut, start, before) = (self.cut_again(head), OutputPlace::end_of(turn.out), turn.last_lsn.get());
        let added = if *in_input > 0 { &input[cut.head..cut.head + cut.body] } else { &[] };
        let most = quota.bytes.min(SLICE);
        let step = join.go_on(cut.store_header(), added, most, &self.context(turn), turn.out);
        let used = if join.is_waiting() { 0 } else { std::mem::take(in_input) };
        match step {
            JoinStep::Waits => quota.wait_to_copy(()),
            JoinStep::WaitsForMemory => quota.wait_for_memory(()),
            JoinStep::GoesOn => quota.get_in_line(()),
            JoinStep::Ends(copied) => {
                quota.take_bytes(copied);
                if turn.notes_change(before) {
                    turn.reply_hold.mark_reply(&cut.request, start, false, turn.out);
                }
            }
        }
        if !matches!(step, JoinStep::Ends(_)) {
            turn.forget_seen();
            self.state = SessionState::Join(joining);
        }
        if self.other_end.is_replaced(turn.voice) {
            self.fall_silent(input, turn);
        }
        used
    }

    /// No memory half way: what is still to come is swallowed.
    fn abandon_upload(&mut self, turn: &mut TurnContext<'_>) {
        let SessionState::Upload(uploading) = std::mem::replace(&mut self.state, SessionState::Command) else { return };
        let left = uploading.missing_with_tail();
        let before = turn.last_lsn.get();
        let cut = self.cut_again(&uploading.head);
        let bad = command::out_of_memory(cut.store_header(), left as u64, &self.context(turn));
        self.refuse(bad, turn);
        turn.notes_change(before);
    }

    /// The request of an upload, which was cut once before.
    fn cut_again<'a>(&self, line: &'a [u8]) -> Cut<'a> {
        let protocol = self.protocol.expect("an upload began, so the protocol is known");
        match protocol::parse(protocol, line, 0) {
            Parsed::Request(cut) => cut,
            other => unreachable!("a store header parsed differently the second time: {other:?}"),
        }
    }
}
