//! Moves the times of refusals back, for `tests::model`.

use super::super::tests::shift::Shift;
use super::Unwilling;

impl Unwilling {
    pub(in super::super) fn shift(&mut self, by: Shift) {
        self.refusal.iter_mut().for_each(|(_, since, _)| by.time(since));
    }
}
