//! Moves the times of the members back, for `tests::model`.

use super::super::tests::shift::Shift;
use super::InSync;

impl InSync {
    pub(in super::super) fn shift(&mut self, by: Shift) {
        self.promises.values_mut().chain(&mut self.asked_at).for_each(|time| by.time(time));
        by.time(&mut self.tell_again);
    }
}
