//! Moves the times of claims back, for `tests::model`.

use super::super::tests::shift::Shift;
use super::Empties;

impl Empties {
    pub(in super::super) fn shift(&mut self, by: Shift) {
        by.time(&mut self.last);
        // A model is too short for them to slow anything down.
        self.count = 0;
    }
}
