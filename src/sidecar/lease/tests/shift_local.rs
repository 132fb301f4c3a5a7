//! Moves the times of a server back, for `tests::model`.

use super::super::tests::shift::Shift;
use super::LocalServer;

impl LocalServer {
    pub(in super::super) fn shift(&mut self, by: Shift) {
        self.told.iter_mut().chain(&mut self.told_before).for_each(|order| by.order(order));
        for (order, at) in &mut self.asked {
            by.order(order);
            by.time(at);
        }
        by.time(&mut self.deadline);
        by.time(&mut self.met);
        by.time(&mut self.retry_at);
    }
}
