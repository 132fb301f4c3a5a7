//! What makes two moments the same to a model: only times from now on, and the order of revisions, count.
//!
//! The clock of a model stands still. When time passes, every time that a keeper knows is moved back instead, and so are
//! revisions and sequence numbers when the record changes. What is further back than anything looks is moved no further.
//! So states that differ in nothing but when they are reached are one state.

use super::super::orders::ServerOrder;
use crate::cluster::record::ShardRecord;
use std::time::Duration;

/// What the clocks of a model show.
pub(crate) const NOW: Duration = Duration::from_secs(100);

/// No rule looks further back than this, nor at a revision that is older by more than `FLOOR_COUNT` below the newest.
const FLOOR: Duration = Duration::from_millis(98_400);

/// The revision and the sequence number that the record has.
pub(crate) const COUNT: i64 = 1000;
const FLOOR_COUNT: i64 = COUNT - 500;

/// By how much all is moved back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shift {
    pub time: Duration,
    pub revisions: i64,
    pub seqs: i64,
}

impl Shift {
    pub(crate) fn time(self, time: &mut Duration) {
        if *time > FLOOR {
            *time = (*time - self.time).max(FLOOR);
        }
    }

    pub(crate) fn revision(self, revision: &mut i64) {
        if *revision > FLOOR_COUNT {
            *revision = (*revision - self.revisions).max(FLOOR_COUNT);
        }
    }

    pub(crate) fn seq(self, seq: &mut u64) {
        *seq = (*seq as i64 - self.seqs).max(FLOOR_COUNT) as u64;
    }

    pub(crate) fn record(self, record: &mut ShardRecord) {
        self.seq(&mut record.seq);
    }

    pub(crate) fn order(self, order: &mut ServerOrder) {
        if let ServerOrder::Primary { deadline, .. } = order {
            self.time(deadline);
        }
    }
}
