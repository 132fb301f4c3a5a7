//! What is done about the shard's address, and when. Without sockets, threads and clocks: time is an argument.
//!
//! ```text
//!            here(epoch, until)             3 sent            1 s after settled, or after 10 s
//!   away ───────────────────────> 0, 10, 50 ms ───> every 200 ms ───────────────────────> every 10 s
//!     ^                             ^                                                        |
//!     |                             +── the address was gone, the cable was out ─────────────+
//!     +───────────────────────────── away, from every state
//!     +── after 200 ms ── leaving <─ leaving, from every state
//! ```
//!
//! Who hands over leaves: its server closes connections, and that has to reach the clients, who would otherwise wait
//! for replies that nobody sends, and connect to a host that drops what they send, until the next owner is announced.
//!
//! A frozen process has a live kernel, which goes on answering for the address. So the announcements are repeated while
//! the old owner may still do so, and, slowly, for as long as the address is held: what one announcement missed, the
//! next one corrects.
//!
//! Invariants:
//!
//! - nothing is renewed, announced or promoted at or after `until`: a process that was frozen meanwhile would draw
//!   clients away from the new owner. What is late is done when `until` is later again. The clock is read before each
//!   frame, which is as near as a program comes: one that was frozen between that and the sending sends this one frame
//!   when it goes on. The new owner's next announcement takes it back, at the latest the one that follows when this node
//!   has learned who is owner now;
//! - nothing is announced that is not on the interface;
//! - each promotion is answered by one demotion before the next one, and they are told in order.
//!
//! Not here: how any of this is done.

use std::collections::VecDeque;
use std::time::Duration;

/// How often the address is looked for on its interface, and given more time. Whoever removes it, such as a service that
/// configures the network anew, does not remove it for longer.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// The pause after the address could not be added.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How much longer than the right to hold it the kernel keeps the address without being told so again. It is a second
/// line: longer than a sidecar takes to be started again, and short against a night in which two hosts have it.
const KEPT_FOR: Duration = Duration::from_secs(20);

/// When the first announcements are sent, after the first one.
const FIRST: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(40)];

/// The pause between announcements while somebody else may still answer for the address, and how long that may last.
const FAST: Duration = Duration::from_millis(200);
const FAST_FOR: Duration = Duration::from_secs(10);

/// For so long somebody who is said to have let go may still be leaving.
const SETTLES: Duration = Duration::from_secs(1);

/// How long the address stays after this node has handed over.
const LEAVES_AFTER: Duration = Duration::from_millis(200);

/// The pause between announcements after that.
const SLOW: Duration = Duration::from_secs(10);

/// What the lease says about the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing yet.
    Unknown,
    /// This node is not the owner.
    Away,
    /// It is not any more, and its server sends clients away.
    Leaving,
    /// This node is the owner until then, and nobody else answers for the address any more if it is settled.
    Here { epoch: u64, until: Duration, is_settled: bool },
}

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressStep {
    /// Adds the address if it is gone, and lets the kernel keep it for so long. The outcome is told to
    /// [`Announcing::renewed`].
    Renew(Duration),
    Announce,
    Remove,
    /// Runs the operator's program for this epoch.
    Promote(u64),
    Demote(u64),
}

/// Where things stand.
#[derive(Debug)]
pub(super) struct Announcing {
    tenure: Option<Tenure>,
    /// When the address goes that was left here.
    leaves_at: Option<Duration>,
    /// The last promotion, until its demotion. Epoch 0 is that of a run before this one, if there was any.
    promoted: Option<u64>,
    /// What must be done whatever comes.
    owed: VecDeque<AddressStep>,
}

/// The time in which this node is owner in one epoch.
#[derive(Debug)]
struct Tenure {
    epoch: u64,
    until: Duration,
    is_settled: bool,
    is_promoted: bool,
    /// The address is on the interface.
    is_up: bool,
    /// When fast announcements end.
    fast_until: Duration,
    /// Announcements of this burst.
    sent: usize,
    announce_at: Duration,
    renew_at: Duration,
}

impl Announcing {
    /// Nothing is known yet.
    pub(super) fn new() -> Announcing {
        Announcing { tenure: None, leaves_at: None, promoted: Some(0), owed: VecDeque::new() }
    }

    /// Follows what the lease says now, as often as anybody likes.
    pub(super) fn follow(&mut self, wish: Wish, now: Duration) {
        match (wish, &mut self.tenure) {
            (Wish::Unknown, _) => {}
            (Wish::Away, tenure) => {
                let is_there = tenure.take().is_some() || self.leaves_at.take().is_some();
                self.demote();
                self.owed.extend(is_there.then_some(AddressStep::Remove));
            }
            (Wish::Leaving, tenure) => {
                if tenure.take().is_some() {
                    self.leaves_at = Some(now + LEAVES_AFTER);
                }
                self.demote();
            }
            (Wish::Here { epoch, until, is_settled }, Some(tenure)) if tenure.epoch == epoch => {
                // Late: the kernel may have dropped the address meanwhile.
                if tenure.until <= now {
                    tenure.renew_at = now;
                }
                tenure.until = until;
                tenure.settle(is_settled, now);
            }
            (Wish::Here { epoch, until, is_settled }, tenure) => {
                // The address stays where it is: this node is the next owner, too.
                self.leaves_at = None;
                let before = tenure.replace(Tenure::new(epoch, until, is_settled, now));
                if before.is_some() {
                    self.demote();
                }
            }
        }
    }

    fn demote(&mut self) {
        self.owed.extend(self.promoted.take().map(AddressStep::Demote));
    }

    /// What is to be done now, or None until [`Announcing::due`].
    pub(super) fn next(&mut self, now: Duration) -> Option<AddressStep> {
        if let Some(step) = self.owed.pop_front() {
            return Some(step);
        }
        if self.leaves_at.take_if(|at| *at <= now).is_some() {
            return Some(AddressStep::Remove);
        }
        let step = self.tenure.as_mut().filter(|tenure| now < tenure.until)?.next(now);
        if let Some(AddressStep::Promote(epoch)) = step {
            self.promoted = Some(epoch);
        }
        step
    }

    /// Whether nothing may be announced any more.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        self.tenure.as_ref().is_none_or(|tenure| tenure.until <= now)
    }

    /// The outcome of a renewal; `is_new`: the address was not there, or was not announced to the cable of now.
    pub(super) fn renewed(&mut self, is_up: bool, is_new: bool, now: Duration) {
        let Some(tenure) = &mut self.tenure else { return };
        tenure.is_up = is_up;
        if !is_up {
            tenure.renew_at = now + RETRY_AFTER;
        }
        if is_new || !is_up {
            tenure.sent = 0;
            tenure.announce_at = now;
        }
    }

    /// When there is something to do again, if nothing is said meanwhile.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        if self.leaves_at.is_some() {
            return self.leaves_at;
        }
        let tenure = self.tenure.as_ref().filter(|tenure| now < tenure.until)?;
        let announce_at = tenure.is_up.then_some(tenure.announce_at);
        Some(announce_at.map_or(tenure.renew_at, |at| at.min(tenure.renew_at))).filter(|due| *due < tenure.until)
    }
}

impl Tenure {
    fn new(epoch: u64, until: Duration, is_settled: bool, now: Duration) -> Tenure {
        let (is_promoted, is_up, sent) = (false, false, 0);
        let fast_until = now + if is_settled { SETTLES } else { FAST_FOR };
        Tenure { epoch, until, is_settled, is_promoted, is_up, fast_until, sent, announce_at: now, renew_at: now }
    }

    /// Those who have asked the old owner just before it let go are told once more, at once.
    fn settle(&mut self, is_settled: bool, now: Duration) {
        if is_settled && !self.is_settled {
            self.announce_at = self.announce_at.min(now);
            self.fast_until = self.fast_until.min(now + SETTLES);
        }
        self.is_settled |= is_settled;
    }

    fn next(&mut self, now: Duration) -> Option<AddressStep> {
        if self.renew_at <= now {
            self.renew_at = now + RENEW_EVERY;
            return Some(AddressStep::Renew(self.until.saturating_sub(now).saturating_add(KEPT_FOR)));
        }
        if self.is_up && self.announce_at <= now {
            self.announce_at = now + self.pause(now);
            self.sent += 1;
            return Some(AddressStep::Announce);
        }
        if !self.is_promoted {
            self.is_promoted = true;
            return Some(AddressStep::Promote(self.epoch));
        }
        None
    }

    fn pause(&self, now: Duration) -> Duration {
        let usual = if now >= self.fast_until { SLOW } else { FAST };
        FIRST.get(self.sent).copied().unwrap_or(usual)
    }
}

#[cfg(test)]
#[path = "tests/announcing.rs"]
mod tests;
