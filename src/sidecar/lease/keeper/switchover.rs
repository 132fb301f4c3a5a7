//! How the owner gives the shard to another node because an operator wants it; the steps are those of `handover`.
//!
//! Not here: the rest of the keeper (`keeper`), whom it can be given to (`members`).

use super::super::handover::{Handover, HandoverStep};
use super::super::orders::ServerOrder;
use super::Keeper;
use crate::cluster::record::{EPOCH_MAX, MemberRecord, RequestRecord, ShardRecord};
use std::time::Duration;

/// Members that confirm the last change within this time need no full sync from the successor. Writes wait meanwhile.
const PATIENCE: Duration = Duration::from_millis(20);

impl Keeper {
    pub(super) fn begin_handover(&mut self, request: RequestRecord, now: Duration) {
        let Some(record) = self.owned().filter(|_| self.ledger.renewed.is_some()) else { return };
        let is_past = request.epoch > 0 && request.epoch != record.epoch;
        if is_past && record.handover_from.is_some() {
            return; // it may be the one that was done just now, whose answer is on its way
        }
        let found = match self.handover {
            _ if is_past => Err("the owner has changed since that was asked for".to_owned()),
            _ if record.drops_all => Err("the owner has just taken the shard without data".to_owned()),
            _ if record.epoch >= EPOCH_MAX => Err("all epochs of the shard are used".to_owned()),
            Some(_) => Err("a switchover is under way".to_owned()),
            None => self.members.successor(&request.to, record),
        };
        let to = match found {
            Ok(to) => to,
            Err(why) => return self.reply(request.id, false, &why),
        };
        log::info!("hands the shard over to {}: writes wait", to.node);
        let until = now + self.lease() / 2;
        self.handover =
            Some(Handover { id: request.id, to, step: HandoverStep::Holding, until, patience: now + PATIENCE });
        self.order(ServerOrder::Hold(self.lease()), now);
    }

    pub(super) fn step_handover(&mut self, from: HandoverStep, to: HandoverStep) {
        self.handover.iter_mut().filter(|handover| handover.step == from).for_each(|handover| handover.step = to);
    }

    /// Goes on with a switchover. Whether the server does not serve any more.
    pub(super) fn hand_over(&mut self, now: Duration) -> bool {
        let Some(handover) = self.handover.clone() else { return false };
        let successor = self.members.peer(&handover.to.node).filter(|peer| peer.run == handover.to.run);
        let confirmed = successor.filter(|peer| peer.is_streaming).map(|peer| peer.confirmed);
        let Some(record) = self.owned() else { return false };
        if now >= handover.until && handover.can_be_abandoned() {
            self.abandon_handover("the successor did not confirm everything in time", now);
            return false;
        }
        // What the successor has refused meanwhile would be lost with it, and nobody serves any more.
        let is_unfit = matches!(handover.step, HandoverStep::Settling { .. }) && self.members.lacks(&handover.to);
        if is_unfit || now >= handover.until + self.lease() {
            self.give_back(now);
            return true;
        }
        match handover.step {
            HandoverStep::Draining { lsn }
                if self.ledger.records().all(|record| record.hands_over)
                    && confirmed >= Some(lsn)
                    && successor.is_some_and(|peer| !peer.lacks)
                    && (now >= handover.patience || self.members.are_whole(&record.members, lsn)) =>
            {
                let order = ServerOrder::Standby { epoch: record.epoch + 1, secret: record.secret.clone() };
                self.step_handover(handover.step, HandoverStep::Stepping);
                self.order(order, now);
            }
            HandoverStep::Settling { lsn } if confirmed >= Some(lsn) => {
                self.step_handover(handover.step, HandoverStep::Swapping { lsn });
                return self.hand_over(now);
            }
            HandoverStep::Swapping { lsn } => {
                let whole = self.members.whole(lsn).filter(|member| *member != handover.to).collect();
                let me = MemberRecord { node: record.owner.clone(), run: record.run.clone() };
                let others = record.members.iter().filter(|member| member.node != handover.to.node);
                let members = [me.clone()].into_iter().chain(others.cloned()).collect();
                let record = ShardRecord {
                    epoch: record.epoch + 1,
                    owner: handover.to.node,
                    run: handover.to.run,
                    members,
                    hands_over: false,
                    handover_from: Some(me),
                    handover_whole: whole,
                    ..record.clone()
                };
                self.swap(record, now);
            }
            _ => {}
        }
        !self.handover.as_ref().is_some_and(Handover::can_be_abandoned)
    }

    pub(super) fn abandon_handover(&mut self, why: &str, now: Duration) {
        if let Some(handover) = self.handover.take() {
            log::warn!("the switchover to {} is abandoned: {why}", handover.to.node);
            self.reply(handover.id, false, why);
            self.order(ServerOrder::Go, now);
        }
    }

    pub(super) fn end_handover(&mut self) {
        if let Some(handover) = self.handover.take() {
            let (is_done, text) = handover.outcome(self.known().map_or("", |record| &record.owner));
            self.reply(handover.id, is_done, &text);
        }
    }
}
