//! The members of a shard: the nodes that may take over because they have everything, and what they promise.
//!
//! ```text
//!   a peer streams ──> [replies wait for acknowledgements?]
//!                        no  ──> a member while it is less than the allowed lag behind
//!                        yes ──> the server waits for it, too, from lsn n on ── it has confirmed n ──> a member
//!   a member is behind ──> out of the record ──> the server no longer waits for it
//! ```
//!
//! Invariants: the server waits for every member that the record has or may have; a peer becomes a member only when it
//! has everything that was ever acknowledged; no member is given up if too few would be left.
//!
//! Not here: the record itself and the lease (`keeper`).

use crate::cluster::record::{MemberRecord, ShardRecord};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A consumer that there never is.
const NOBODY: &str = "-";

/// The pause after the server has refused to be told whom replies wait for.
const RETRY: Duration = Duration::from_secs(1);

/// A node that the owner feeds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    /// Its name.
    pub node: String,
    /// The run of its server that is fed, or was last.
    pub run: String,
    /// Whether it is sent every change, and has had everything.
    pub is_streaming: bool,
    /// Whether it has not had everything for longer than is allowed.
    pub is_late: bool,
    /// The last change that it has confirmed.
    pub confirmed: u64,
    /// Whether it has refused some changes, and is not known to have taken them since.
    pub lacks: bool,
}

impl Peer {
    /// As it stands in the record.
    pub(super) fn member(&self) -> MemberRecord {
        MemberRecord { node: self.node.clone(), run: self.run.clone() }
    }
}

/// From whom replies wait for acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Requirement {
    /// How many there must be at least; 0: replies wait for nobody.
    pub least: u32,
    /// Who they are.
    pub names: Vec<String>,
}

/// See the module's head. Times are since boot.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct InSync {
    peers: Vec<Peer>,
    /// What the server was told last.
    told: Option<Requirement>,
    /// When it may be told again, after it has refused.
    tell_again: Duration,
    /// The server waits for this node since this change.
    since: BTreeMap<String, u64>,
    /// Until when a node does not take over.
    promises: BTreeMap<String, Duration>,
    asked_at: Option<Duration>,
}

impl InSync {
    /// This node does not own the shard any more.
    pub(super) fn forget(&mut self) {
        *self = InSync { peers: std::mem::take(&mut self.peers), ..InSync::default() };
    }

    /// The server is a new connection or another run: it was told nothing.
    pub(super) fn server_changed(&mut self) {
        self.told = None;
        self.since.clear();
    }

    /// The server has refused to be told for whom replies wait.
    pub(super) fn not_required(&mut self, now: Duration) {
        (self.told, self.tell_again) = (None, now + RETRY);
    }

    /// Whether it was told that, and is left alone for a moment.
    pub(super) fn is_pausing(&self, now: Duration) -> bool {
        now < self.tell_again
    }

    pub(super) fn note_peers(&mut self, peers: Vec<Peer>) {
        self.peers = peers;
    }

    pub(super) fn peer(&self, node: &str) -> Option<&Peer> {
        self.peers.iter().find(|peer| peer.node == node)
    }

    /// Whether it has refused changes that it is not known to have taken since.
    pub(super) fn lacks(&self, member: &MemberRecord) -> bool {
        self.peers.iter().any(|peer| peer.lacks && peer.node == member.node && peer.run == member.run)
    }

    /// Who can be handed the shard: this node, or the first member if none is named; else why not.
    pub(super) fn successor(&self, to: &str, record: &ShardRecord) -> Result<MemberRecord, String> {
        let is_fit = |peer: &&Peer| peer.is_streaming && !peer.is_late && !peer.lacks;
        let mut members = record.members.iter().map(|member| member.node.as_str());
        let first = members.clone().next().unwrap_or("");
        let fit = members.find(|node| self.peer(node).is_some_and(|peer| is_fit(&peer))).unwrap_or(first);
        let to = if to.is_empty() { fit } else { to };
        let peer = self.peer(to);
        peer.filter(is_fit).map(Peer::member).ok_or_else(|| match (to, peer) {
            ("", _) => "no node is in sync, so none can take over".to_owned(),
            (_, Some(peer)) if peer.is_streaming && !peer.is_late => {
                format!("{to} has refused changes and lacks them still, so it cannot take over: is its memory full?")
            }
            _ => format!("{to} is not in sync, so it cannot take over"),
        })
    }

    /// Who has everything up to this change.
    pub(super) fn whole(&self, lsn: u64) -> impl Iterator<Item = MemberRecord> {
        let has_all = move |peer: &&Peer| peer.is_streaming && !peer.lacks && peer.confirmed >= lsn;
        self.peers.iter().filter(has_all).map(Peer::member)
    }

    /// Whether all these have.
    pub(super) fn are_whole(&self, members: &[MemberRecord], lsn: u64) -> bool {
        members.iter().all(|member| self.whole(lsn).any(|whole| whole == *member))
    }

    /// The server waits for these from this change on.
    pub(super) fn required(&mut self, names: &[String], lsn: u64) {
        self.since.retain(|name, _| names.contains(name));
        for name in names {
            self.since.entry(name.clone()).or_insert(lsn);
        }
    }

    /// What the server has to be told of whom replies wait for, if that has changed. `records` are the record and those
    /// that may become it.
    pub(super) fn requirement<'a>(
        &mut self,
        least: u32,
        records: impl Iterator<Item = &'a ShardRecord> + Clone,
    ) -> Option<Requirement> {
        let mut names = BTreeSet::new();
        if least > 0 {
            names.extend(records.clone().flat_map(|record| &record.members).map(consumer_of));
            // Replies wait until the record has enough members: who is not in it yet cannot take over.
            if records.clone().any(|record| record.members.len() < least as usize) {
                names.insert(NOBODY.to_owned());
            }
            let fit = self.peers.iter().filter(|peer| peer.is_streaming && !peer.is_late);
            names.extend(fit.map(|peer| consumer_of(&peer.member())));
        }
        let wanted = Requirement { least, names: names.into_iter().collect() };
        if self.told.as_ref() == Some(&wanted) || self.told.is_none() && least == 0 {
            return None;
        }
        self.told = Some(wanted.clone());
        Some(wanted)
    }

    /// Who the members should be, those with the most changes first, if they are these now.
    pub(super) fn wanted(&self, least: u32, now: &[MemberRecord]) -> Vec<MemberRecord> {
        let mut wanted: Vec<&Peer> = self.peers.iter().filter(|peer| self.is_member(peer, least, now)).collect();
        wanted.sort_by_key(|peer| std::cmp::Reverse(peer.confirmed));
        let mut members: Vec<MemberRecord> = wanted.iter().map(|peer| peer.member()).collect();
        if members.len() < least as usize {
            // Replies are refused anyway, so each of the others still has everything that was acknowledged.
            let others = now.iter().filter(|member| !wanted.iter().any(|peer| peer.node == member.node));
            members.extend(others.cloned());
        }
        members
    }

    fn is_member(&self, peer: &Peer, least: u32, now: &[MemberRecord]) -> bool {
        let is_one = now.contains(&peer.member());
        let has_all =
            least == 0 || self.since.get(&consumer_of(&peer.member())).is_some_and(|lsn| peer.confirmed >= *lsn);
        !peer.is_late && (is_one || peer.is_streaming && has_all)
    }

    /// All nodes of the shard, if these were known.
    pub(super) fn nodes(&self, known: &[String]) -> Vec<String> {
        let mut nodes = known.to_vec();
        nodes.extend(self.peers.iter().map(|peer| peer.node.clone()).filter(|node| !known.contains(node)));
        nodes
    }

    pub(super) fn note_promise(&mut self, node: &str, until: Duration) {
        let known = self.promises.entry(node.to_owned()).or_default();
        *known = until.max(*known);
    }

    /// Until when nobody but `me` takes over, by what was promised; `records` may be the record. If only members have
    /// promised, it is not after `bootstrap`.
    pub(super) fn promised<'a>(
        &self,
        me: &str,
        records: impl Iterator<Item = &'a ShardRecord> + Clone,
        bootstrap: Duration,
    ) -> Option<Duration> {
        let all = self.earliest(&others(me, records.clone()));
        let members = records.flat_map(|record| &record.members).map(|member| member.node.as_str()).collect();
        let members = self.earliest(&members).map(|until| until.min(bootstrap));
        members.and(all).into_iter().chain(members).max()
    }

    /// Until when all of these have promised; None if one has not, or there are none.
    fn earliest(&self, nodes: &BTreeSet<&str>) -> Option<Duration> {
        let promises = nodes.iter().map(|node| self.promises.get(*node).copied());
        promises.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Whom to ask for promises, if there are members and it is time.
    pub(super) fn promises_due<'a>(
        &mut self,
        me: &str,
        records: impl Iterator<Item = &'a ShardRecord> + Clone,
        every: Duration,
        now: Duration,
    ) -> Option<Vec<String>> {
        let is_time = self.asked_at.is_none_or(|at| now >= at + every);
        if !is_time || records.clone().all(|record| record.members.is_empty()) {
            return None;
        }
        self.asked_at = Some(now);
        Some(others(me, records).into_iter().map(str::to_owned).collect())
    }
}

/// As the server knows it: a consumer, of one run. A run that has come after it does not count for it.
fn consumer_of(member: &MemberRecord) -> String {
    format!("{}@{}", member.node, member.run)
}

/// All nodes that some of the records name, but this.
fn others<'a>(me: &str, records: impl Iterator<Item = &'a ShardRecord> + Clone) -> BTreeSet<&'a str> {
    let members = records.clone().flat_map(|record| &record.members).map(|member| member.node.as_str());
    let nodes = records.flat_map(|record| &record.nodes).map(String::as_str);
    members.chain(nodes).filter(|node| *node != me).collect()
}

#[cfg(test)]
#[path = "tests/shift_members.rs"]
mod shift;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(members: &[(&str, &str)]) -> ShardRecord {
        let member = |(node, run): &(&str, &str)| MemberRecord { node: (*node).into(), run: (*run).into() };
        ShardRecord { members: members.iter().map(member).collect(), ..ShardRecord::default() }
    }

    fn streaming(node: &str, run: &str) -> Peer {
        Peer { node: node.into(), run: run.into(), is_streaming: true, confirmed: 9, ..Peer::default() }
    }

    fn waits_for(in_sync: &mut InSync, least: u32, records: &[ShardRecord]) -> Vec<String> {
        in_sync.requirement(least, records.iter()).expect("it has changed").names
    }

    /// The member's server was restarted, and fed again: as long as the record names the run before, the new one is
    /// waited for as well, and does not do instead.
    #[test]
    fn another_run_of_a_member_does_not_count_for_it() {
        let mut in_sync = InSync::default();
        in_sync.note_peers(vec![streaming("b", "r2")]);
        assert_eq!(waits_for(&mut in_sync, 1, &[record(&[("b", "r1")])]), ["b@r1", "b@r2"]);
        in_sync.required(&["b@r1".to_owned()], 5);
        assert_eq!(in_sync.wanted(1, &record(&[("b", "r1")]).members), record(&[("b", "r1")]).members);
        in_sync.required(&["b@r1".to_owned(), "b@r2".to_owned()], 9);
        assert_eq!(in_sync.wanted(1, &record(&[("b", "r1")]).members), record(&[("b", "r2")]).members);
    }

    /// Enough peers stream, and have everything: but nobody could take over as long as the record does not say so, be it
    /// only perhaps.
    #[test]
    fn replies_wait_until_the_record_has_enough_members() {
        let mut in_sync = InSync::default();
        in_sync.note_peers(vec![streaming("b", "r1")]);
        assert_eq!(waits_for(&mut in_sync, 1, &[record(&[])]), ["-", "b@r1"]);
        assert_eq!(waits_for(&mut in_sync, 1, &[record(&[("b", "r1")])]), ["b@r1"]);
        assert_eq!(waits_for(&mut in_sync, 1, &[record(&[("b", "r1")]), record(&[])]), ["-", "b@r1"]);
        assert_eq!(waits_for(&mut in_sync, 2, &[record(&[("b", "r1")])]), ["-", "b@r1"]);
    }
    /// A member that is full is streamed to and confirms, but what it has refused would be lost.
    #[test]
    fn who_lacks_something_is_no_successor() {
        let mut in_sync = InSync::default();
        let (b, c) = (Peer { lacks: true, ..streaming("b", "r1") }, streaming("c", "r2"));
        in_sync.note_peers(vec![b.clone(), c.clone()]);
        let record = record(&[("b", "r1"), ("c", "r2")]);
        let why = in_sync.successor("b", &record).unwrap_err();
        assert!(why.starts_with("b has refused changes and lacks them still"), "{why}");
        assert_eq!(in_sync.successor("", &record), Ok(c.member()));
        in_sync.note_peers(vec![b, Peer { is_late: true, ..c }]);
        assert!(in_sync.successor("", &record).is_err());
        assert_eq!(in_sync.successor("c", &record).unwrap_err(), "c is not in sync, so it cannot take over");
    }

    /// Who goes on without a full sync after a switchover has every change, and has refused none.
    #[test]
    fn whole_is_who_lacks_nothing() {
        let mut in_sync = InSync::default();
        let b = streaming("b", "r1");
        let others = [Peer { lacks: true, ..b.clone() }, Peer { confirmed: 8, ..b.clone() }];
        for other in others.into_iter().chain([Peer { is_streaming: false, ..b.clone() }]) {
            in_sync.note_peers(vec![b.clone(), Peer { node: "c".into(), ..other }]);
            assert_eq!(in_sync.whole(9).collect::<Vec<_>>(), [b.member()]);
        }
        assert!(in_sync.are_whole(&record(&[("b", "r1")]).members, 9));
        assert!(!in_sync.are_whole(&record(&[("b", "r2")]).members, 9));
    }
}
