//! A switchover, as the owner goes through it: nothing is lost, and nobody is refused.
//!
//! ```text
//!   Holding ── writes wait, reads go on; the last change is lsn ──> Draining ── the successor has confirmed lsn, and the
//!   other members, too, or they have had their time; and the record says that the shard is handed over ──>
//!   Stepping ── the server is a standby, its last change is lsn ──> Settling ── the successor has confirmed that, too ──>
//!   Swapping ── the record names the successor
//!
//!   until Stepping it can be abandoned, and writes go on; from there on the shard is given back if it does not succeed
//! ```
//!
//! The record tells it beforehand, since from Stepping on the server knows an epoch that no record has. A sidecar that is
//! started then could not tell a switchover that was cut short from an etcd that was put back, after which somebody may
//! have served in that epoch, and would have to drop everything. It is written while the server is told to hold writes.
//!
//! The new owner goes on from where it stands with each node that had everything at that moment: the old owner, and those
//! that had confirmed the same last change. No full sync is needed, since its own journal begins behind what they have.
//!
//! After a takeover there is a full sync with each of the others. They have all that was acknowledged, but each may have
//! more, of what the old owner sent and nobody acknowledged: changes that the new owner does not know, and that have to be
//! undone. Where a node stands is told by the old owner's numbers, which mean nothing in the new owner's journal. To go on
//! there, each standby would have to keep which of its own changes belong to which of the owner's.
//!
//! Not here: orders and swaps (`keeper`).

use crate::cluster::record::MemberRecord;
use std::time::Duration;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum HandoverStep {
    /// The server was told that changes have to wait.
    Holding,
    /// The successor has to confirm everything up to this change.
    Draining { lsn: u64 },
    /// The server was told that it is a standby.
    Stepping,
    /// The successor has to confirm everything up to this change, which is the last that the server has made.
    Settling { lsn: u64 },
    /// The record has to name the successor. That was the last change.
    Swapping { lsn: u64 },
}

/// See the module's head. Times are since boot.
#[derive(Clone, Debug, Hash)]
pub(super) struct Handover {
    /// Of the request.
    pub id: String,
    /// The successor.
    pub to: MemberRecord,
    pub step: HandoverStep,
    /// When it is abandoned, if that is possible.
    pub until: Duration,
    /// Nobody but the successor is waited for after this.
    pub patience: Duration,
}

impl Handover {
    /// What to say of it, now that this node owns the shard: whether it was done, and a line.
    pub(super) fn outcome(&self, owner: &str) -> (bool, String) {
        match owner {
            "" => (false, "nobody owns the shard now".to_owned()),
            _ => (owner == self.to.node, format!("{owner} owns the shard")),
        }
    }

    /// Whether the server still serves.
    pub(super) fn can_be_abandoned(&self) -> bool {
        matches!(self.step, HandoverStep::Holding | HandoverStep::Draining { .. })
    }
}
