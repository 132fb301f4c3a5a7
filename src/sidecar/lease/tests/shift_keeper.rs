//! Moves the times and revisions of a keeper back, and breaks its rules, for `tests::model`.

use super::super::tests::shift::{NOW, Shift};
use super::{Duration, Effect, Keeper, ServerState};

/// What ends after this ends never.
const FAR: Duration = Duration::from_secs(60);

impl Keeper {
    pub(crate) fn shift(&mut self, by: Shift) {
        by.time(&mut self.started);
        by.time(&mut self.stands_back);
        if self.forced.0 < NOW + FAR {
            by.time(&mut self.forced.0);
        }
        self.empties.shift(by);
        self.unwilling.shift(by);
        // For what is logged only.
        self.tried = -1;
        (self.odd, self.refusals, self.waits) = Default::default();
        self.ledger.shift(by);
        self.members.shift(by);
        if let Some(candidacy) = &mut self.candidacy {
            by.revision(&mut candidacy.expected);
        }
        if let Some(handover) = &mut self.handover {
            by.time(&mut handover.until);
            by.time(&mut handover.patience);
        }
        match &mut self.server {
            ServerState::Up(server) => server.shift(by),
            ServerState::Unreachable { deadline } => by.time(deadline),
            ServerState::Gone => {}
        }
        for effect in &mut self.effects {
            assert!(!matches!(effect, Effect::Swap { .. } | Effect::Order(_)), "the effects were carried out");
        }
    }

    /// How many records may stand in etcd.
    pub(crate) fn records(&self) -> usize {
        self.ledger.records().count()
    }

    /// Breaks a rule: the swap that is on its way counts as sent now.
    pub(crate) fn forget_when_it_was_sent(&mut self, now: Duration) {
        self.ledger.forget_when_it_was_sent(now);
    }
}
