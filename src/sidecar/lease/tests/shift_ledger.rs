//! Moves the times and revisions of a ledger back, and breaks its rules, for `tests::model`.

use super::super::tests::shift::Shift;
use super::{Duration, Ledger};

impl Ledger {
    pub(in super::super) fn shift(&mut self, by: Shift) {
        if let Some(seen) = &mut self.seen {
            by.time(&mut seen.at);
            by.revision(&mut seen.revision);
            by.time(&mut seen.settles);
            seen.run_waits = seen.run_waits.min(Duration::from_secs(60));
            let records = seen.value.record.iter_mut().chain(&mut seen.kept);
            records.for_each(|record| by.record(record));
        }
        for sent in self.doubts.iter_mut().chain(&mut self.flight) {
            by.time(&mut sent.at);
            by.record(&mut sent.record);
        }
        for time in [&mut self.renewed, &mut self.swapped_at, &mut self.asked_at].into_iter().flatten() {
            by.time(time);
        }
        by.time(&mut self.retry_at);
        by.seq(&mut self.seq);
        by.seq(&mut self.place.1);
        by.revision(&mut self.store.0);
        by.time(&mut self.store.1);
    }

    pub(in super::super) fn forget_when_it_was_sent(&mut self, now: Duration) {
        self.flight.iter_mut().for_each(|sent| sent.at = now);
        self.renewed = self.renewed.map(|_| now);
    }
}
