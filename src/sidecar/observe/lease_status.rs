//! What the lease shows of itself: for balancers, for people, for metrics.
//!
//! ```text
//!   GET /primary            200 while this node's server may answer clients, else 503
//!   GET /standby            200 while it follows an owner and is in sync, else 503
//!   GET /standby?lag=MS     the same, if it is at most so far behind
//! ```

use crate::sys::cpu::time_since_boot;
use std::time::Duration;

/// The state of now.
#[derive(Clone, Debug, Default)]
pub(in crate::sidecar) struct LeaseStatus {
    pub shard: String,
    pub node: String,
    /// By the record.
    pub epoch: u64,
    pub owner: String,
    /// Until when this node's server answers clients, by the time since boot.
    pub deadline: Option<Duration>,
    /// Whether the server is there.
    pub is_server_up: bool,
    /// Whether this node may take over.
    pub is_member: bool,
    /// How far this node is behind, as the owner says, and when that was heard.
    pub lag: Option<(Duration, Duration)>,
    /// InSync of the shard, by name.
    pub members: Vec<String>,
    /// Why this node does not serve although it could own the shard, if its server refuses.
    pub refusal: Option<String>,
    /// Why etcd does not answer, if it does not: then nobody takes over, and the owner goes on by the promises of others.
    pub no_etcd: Option<String>,
}

impl LeaseStatus {
    /// The answer to a balancer: whether that is so, and a line.
    pub(in crate::sidecar) fn is_primary(&self) -> (bool, String) {
        let is_it = self.deadline.is_some_and(|deadline| time_since_boot() < deadline);
        (is_it, self.line())
    }

    /// See [`LeaseStatus::is_primary`]; it may be so far behind.
    pub(in crate::sidecar) fn is_standby(&self, most: Option<Duration>) -> (bool, String) {
        let follows = self.is_server_up && !self.owner.is_empty() && self.owner != self.node && self.is_member;
        let is_near = most.is_none_or(|most| self.lag_now().is_some_and(|lag| lag <= most));
        (follows && is_near, self.line())
    }

    /// How far this node is behind, at most.
    pub(in crate::sidecar) fn lag_now(&self) -> Option<Duration> {
        self.lag.map(|(lag, heard)| lag + time_since_boot().saturating_sub(heard))
    }

    /// What this node is, for people.
    pub(in crate::sidecar) fn state(&self) -> &'static str {
        match self.deadline {
            Some(deadline) if time_since_boot() < deadline => "primary",
            Some(_) => "silent: the lease could not be renewed",
            None if !self.is_server_up => "without a server",
            None if self.owner.is_empty() => "waiting for an owner",
            None if self.is_member => "standby, in sync",
            None => "standby, not in sync",
        }
    }

    /// One line for people.
    pub(in crate::sidecar) fn line(&self) -> String {
        let LeaseStatus { shard, node, epoch, owner, members, .. } = self;
        let role = self.state();
        let named = |name: &str| if name.is_empty() { "nobody".to_owned() } else { name.to_owned() };
        let (owner, members) = (named(owner), named(&members.join(", ")));
        let refusal =
            self.refusal.as_ref().map_or_else(String::new, |why| format!("; the server refuses to serve: {why}"));
        let no_etcd = self.no_etcd.as_ref().map_or_else(String::new, |why| format!("; etcd does not answer: {why}"));
        format!(
            "shard {shard}, node {node}: {role}; epoch {epoch}, owner {owner}, in sync: {members}{refusal}{no_etcd}\n"
        )
    }
}

/// The most lag that a query allows; an error if it is none.
pub(in crate::sidecar) fn lag_of(query: &str) -> Result<Option<Duration>, ()> {
    match query.strip_prefix("lag=") {
        Some(ms) => ms.parse().map(|ms| Some(Duration::from_millis(ms))).map_err(drop),
        None if query.is_empty() => Ok(None),
        None => Err(()),
    }
}
