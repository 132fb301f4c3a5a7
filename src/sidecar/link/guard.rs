//! Whether a peer may be made equal to the server: a full sync drops what the peer holds.
//!
//! ```text
//!   with --replace-peer, if the server ran before the sidecar          allowed: an operator has said so
//!   the peer was the last to feed this server (`met` … back)           refused: what the peer holds is newer
//!   this server has fed this peer before (`met` … again)               allowed: what the peer holds is from the server
//!   the peer holds at most twice as many items as the server           allowed: the pair gets a second copy
//!   else                                                               refused, and asked again every few seconds
//! ```
//!
//! A server that was restarted, after a crash or not, is a new run and empty, while its peer holds what is left of the
//! data. Nothing may be copied to the peer then unless an operator says so. The server remembers the runs of the peers
//! that it has fed, and forgets them with its own run, so this memory is never wrong. No flag is needed for an empty
//! peer, for a peer that was replaced, or when only the sidecar was restarted.
//!
//! The limit is twice as many items because a peer also counts items that have expired but were not touched since. It
//! also lets a server go on that came back empty and was filled again: by then the peer's items are old.
//!
//! The flag counts only for a server that was there before the sidecar. If the flag stands in a unit file, a crash or a
//! boot starts both, and no operator has decided that the copy may be lost.
//!
//! Two sidecars may be set up so that each feeds the other's server. While one of them works, the other is refused. If
//! the first one died, the second would copy in the wrong direction, and the latest writes would be lost: `back` stops
//! that.
//!
//! Not here: which side is asked what, and when (`pump`).

use crate::protocol::control::{Descent, ServerInfo};
use std::time::Duration;

/// A server with so many times fewer items than the peer does not replace what the peer holds.
const FEWER: u64 = 2;

/// The permission counts if the server is at least so many seconds older than the sidecar. A server reports an age that
/// is two seconds too large.
const THERE_BEFORE: u64 = 4;

/// Refuses to lose a copy. See the module's head.
#[derive(Debug)]
pub(in crate::sidecar) struct OverwriteGuard {
    may_replace: bool,
    /// The lease has decided whose data counts.
    is_of_shard: bool,
}

impl OverwriteGuard {
    /// One that is told whether a server that was there before may replace whatever there is.
    pub(in crate::sidecar) fn new(may_replace: bool) -> OverwriteGuard {
        OverwriteGuard { may_replace, is_of_shard: false }
    }

    /// One that lets the owner of a shard replace what the other nodes hold.
    pub(in crate::sidecar) fn of_a_shard() -> OverwriteGuard {
        OverwriteGuard { may_replace: true, is_of_shard: true }
    }

    /// Why the server that `info` is about shall not be copied to a peer with so many items by a sidecar of this age.
    pub(super) fn objection(&self, info: &ServerInfo<'_>, peer_items: u64, age: Duration) -> Option<String> {
        let is_told_to = self.may_replace && info.uptime >= age.as_secs() + THERE_BEFORE;
        if is_told_to || self.is_of_shard || peer_items == 0 {
            return None;
        }
        if info.descent == Descent::Back {
            return Some(format!(
                "left as it is: the peer was the last to feed this server, and may have newer items. Restart the \
                 peer, or {}, when clients write to this server from now on",
                self.permission()
            ));
        }
        if info.descent == Descent::Again || info.items.saturating_mul(FEWER) >= peer_items {
            return None;
        }
        let ServerInfo { items, uptime, .. } = info;
        Some(format!(
            "left as it is: the peer holds {peer_items} items that this server did not send; it has {items} itself, \
             {uptime} s after its start. Copy the other way round, if it is a twincached; or restart the peer, \
             or {}, to lose them",
            self.permission()
        ))
    }

    fn permission(&self) -> &'static str {
        match self.may_replace {
            false => "restart this sidecar with --replace-peer",
            true => {
                "restart this sidecar (--replace-peer does not count for a server that started with it or after it)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_peer_of_an_emptier_server_that_never_fed_it_is_left_alone() {
        let info = |items, descent| ServerInfo { items, uptime: 5, descent, upstreams: vec![] };
        let table = [
            (info(0, Descent::First), 0, true),
            (info(0, Descent::Again), 1000, true),
            (info(0, Descent::First), 1, false),
            (info(499, Descent::First), 1000, false),
            (info(500, Descent::First), 1000, true),
            (info(1000, Descent::First), 3, true),
            (info(u64::MAX, Descent::First), u64::MAX, true),
        ];
        for (info, peer_items, goes_on) in table {
            let objection = OverwriteGuard::new(false).objection(&info, peer_items, Duration::ZERO);
            assert_eq!(objection.is_none(), goes_on, "{info:?} {peer_items}: {objection:?}");
        }
        let text = OverwriteGuard::new(false).objection(&info(12, Descent::First), 1000, Duration::ZERO).unwrap();
        assert!(text.contains("holds 1000 items") && text.contains("has 12 itself, 5 s after its start"), "{text}");
    }

    #[test]
    fn who_was_fed_by_the_peer_does_not_feed_it_back() {
        let info = ServerInfo { items: 1000, uptime: 9, descent: Descent::Back, upstreams: vec![] };
        let objection = |told, items| OverwriteGuard::new(told).objection(&info, items, Duration::ZERO);
        assert!(objection(false, 10).is_some_and(|text| text.contains("the last to feed this server")));
        assert!(objection(false, 0).is_none() && objection(true, 10).is_none());
    }

    /// A crash or a boot restarts both, and the flag may stand in a unit file.
    #[test]
    fn a_permission_counts_for_a_server_that_was_there_before() {
        let guard = OverwriteGuard::new(true);
        for (uptime, age, goes_on) in [(2, 0, false), (3, 0, false), (4, 0, true), (500, 496, true), (500, 497, false)]
        {
            let info = ServerInfo { items: 0, uptime, descent: Descent::First, upstreams: vec![] };
            let objection = guard.objection(&info, 9, Duration::from_secs(age));
            assert_eq!(objection.is_none(), goes_on, "{uptime} {age}: {objection:?}");
        }
    }
}
