//! What a keeper knows of the server beside it: what it was told, what it has not answered, until when it may serve.
//!
//! Not here: what it is told (`keeper`).

use super::orders::ServerOrder;
use std::collections::VecDeque;
use std::time::Duration;

/// Renewals that a silent server has not answered; more would tell it nothing new.
const UNANSWERED_MAX: usize = 4;

/// The pause after the first order that a server refuses,
const RETRY: Duration = Duration::from_millis(20);
/// the longest one, after more of them in a row,
const RETRY_MAX: Duration = Duration::from_secs(1);
/// and when it does not agree to be a candidate.
const CANDIDATE_RETRY_MAX: Duration = Duration::from_millis(80);
/// After so many the pause grows no more.
const REFUSALS_MAX: u32 = 6;

/// What is known of the local server.
#[derive(Clone, Debug, Hash)]
pub(super) struct LocalServer {
    pub run: String,
    pub lsn: u64,
    /// Replies to changes wait for at least so many replicas.
    pub replicas_ack: u32,
    /// The highest epoch that it knows of: it takes no role of a lower one.
    pub epoch: u64,
    /// When it was met.
    pub met: Duration,
    /// The role that it was told last.
    pub told: Option<ServerOrder>,
    /// The one before, which it still has when it refuses to be a candidate.
    told_before: Option<ServerOrder>,
    /// Orders that it has not answered, with the time of each.
    asked: VecDeque<(ServerOrder, Duration)>,
    /// The latest deadline that it has taken.
    deadline: Duration,
    /// The last epoch for which it has dropped what it held.
    pub dropped_for: u64,
    /// Orders that it has refused since it took a role,
    refusals: u32,
    /// and when it may be told again.
    retry_at: Duration,
}

/// What a server says of itself when it is met.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerFacts<'a> {
    /// Its run.
    pub run: &'a str,
    /// Its last change.
    pub lsn: u64,
    /// For how many replicas replies wait.
    pub replicas_ack: u32,
    /// The highest epoch that it knows of.
    pub epoch: u64,
}

/// Whether the server is there.
#[derive(Clone, Debug, Hash)]
pub(super) enum ServerState {
    /// It cannot be reached. It may be there all the same, and serve until its deadline.
    Unreachable {
        deadline: Duration,
    },
    /// Its process has certainly ended.
    Gone,
    Up(LocalServer),
}

impl LocalServer {
    /// A server that was told nothing yet by this process, but may have been told a deadline.
    pub(super) fn new(hello: ServerFacts<'_>, deadline: Duration, met: Duration) -> LocalServer {
        let ServerFacts { run, lsn, replicas_ack, epoch } = hello;
        let run = run.to_owned();
        LocalServer {
            run,
            lsn,
            replicas_ack,
            epoch,
            met,
            told: None,
            told_before: None,
            asked: VecDeque::new(),
            deadline,
            dropped_for: 0,
            refusals: 0,
            retry_at: Duration::ZERO,
        }
    }

    /// Notes that it is told this.
    pub(super) fn tell(&mut self, order: &ServerOrder, now: Duration) {
        if let ServerOrder::Standby { epoch, .. } | ServerOrder::Primary { epoch, .. } = order {
            self.epoch = self.epoch.max(*epoch);
        }
        if is_role(order) {
            self.told_before = self.told.replace(order.clone());
        }
        self.asked.push_back((order.clone(), now));
    }

    /// Whether it has to be told this role.
    pub(super) fn wants(&self, order: &ServerOrder) -> bool {
        let is_full = self.asked.len() > UNANSWERED_MAX && matches!(order, ServerOrder::Primary { .. });
        self.told.as_ref() != Some(order) && !is_full
    }

    /// Whether it was told a role in which it serves, perhaps by an earlier process.
    pub(super) fn may_serve(&self) -> bool {
        self.epoch > 0 && matches!(self.told, None | Some(ServerOrder::Primary { .. }))
    }

    /// Whether it was told to follow, and has answered.
    pub(super) fn follows(&self) -> bool {
        let is_pending = |(order, _): &(ServerOrder, Duration)| matches!(order, ServerOrder::Standby { .. });
        matches!(self.told, Some(ServerOrder::Standby { .. })) && !self.asked.iter().any(is_pending)
    }

    /// The order that is answered now.
    pub(super) fn answered(&mut self) -> Option<ServerOrder> {
        self.asked.pop_front().map(|(order, _)| order)
    }

    /// It has done that.
    pub(super) fn obeyed(&mut self, order: &ServerOrder) {
        if let ServerOrder::Primary { epoch, drops_all: true, .. } = order {
            self.dropped_for = *epoch;
        }
        if let ServerOrder::Primary { deadline, .. } = order {
            self.deadline = self.deadline.max(*deadline);
        }
        // Who agrees to be a candidate may refuse to be primary all the same.
        if is_role(order) && !matches!(order, ServerOrder::Candidate { .. }) {
            self.refusals = 0;
        }
    }

    /// Until when it may serve: by what it has taken, or not answered yet. What it has refused it does not do.
    fn deadline(&self) -> Duration {
        let asked = self.asked.iter().filter_map(|(order, _)| match order {
            ServerOrder::Primary { deadline, .. } => Some(*deadline),
            _ => None,
        });
        asked.fold(self.deadline, Duration::max)
    }

    /// It has refused that, and is left alone for a moment: for longer each time, since it is not going to change its
    /// mind. What it has promised ends soon, so that a candidate waits but little.
    pub(super) fn refused(&mut self, order: &ServerOrder, now: Duration) {
        if !is_role(order) {
            return;
        }
        let most = if matches!(order, ServerOrder::Candidate { .. }) { CANDIDATE_RETRY_MAX } else { RETRY_MAX };
        self.retry_at = now + (RETRY * (1 << self.refusals.min(REFUSALS_MAX))).min(most);
        self.refusals = (self.refusals + 1).min(REFUSALS_MAX);
        self.told = self.told_before.take().filter(|_| matches!(order, ServerOrder::Candidate { .. }));
    }

    /// Whether it is left alone.
    pub(super) fn is_pausing(&self, now: Duration) -> bool {
        now < self.retry_at
    }

    /// Whether it was told, and has not answered yet, for whom replies wait.
    pub(super) fn is_asked_for_members(&self) -> bool {
        self.asked.iter().any(|(order, _)| matches!(order, ServerOrder::Members(_)))
    }

    /// Whether it was told a role, and has not answered yet.
    pub(super) fn is_asked_for_role(&self) -> bool {
        self.asked.iter().any(|(order, _)| is_role(order))
    }

    /// Since when it owes an answer.
    pub(super) fn silent_since(&self) -> Option<Duration> {
        self.asked.front().map(|(_, at)| *at)
    }
}

fn is_role(order: &ServerOrder) -> bool {
    matches!(order, ServerOrder::Primary { .. } | ServerOrder::Standby { .. } | ServerOrder::Candidate { .. })
}

impl ServerState {
    /// Until when it may serve, by what it was told.
    pub(super) fn deadline(&self) -> Duration {
        match self {
            ServerState::Up(server) => server.deadline(),
            ServerState::Unreachable { deadline } => *deadline,
            ServerState::Gone => Duration::ZERO,
        }
    }

    /// The server, if it can be told something.
    pub(super) fn up(&self) -> Option<&LocalServer> {
        if let ServerState::Up(server) = self { Some(server) } else { None }
    }
}

#[cfg(test)]
#[path = "tests/shift_local.rs"]
mod shift;
