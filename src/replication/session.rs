//! One consumer, on a connection of the control socket: lines in; greeting, replies and the stream of changes out.
//!
//! ```text
//!   client's lines ─> ClientLine ─> what it asks for ─> ServerLine ─> output
//!                                    │ attach
//!                                    v
//!                     ChangeStream (stream.rs): journal ─> batches ─> output
//! ```
//!
//! Invariant: nothing of a stream comes before the answer to `attach`.
//!
//! Not here: sockets, clocks and when to send (`net::control`), how lines are written ([`crate::protocol::control`]),
//! what is sent (`stream`).

use super::stream::{ChangeStream, refuse, refuse_ack, say};
use crate::command::admin::stats;
use crate::command::{Output, Shared};
use crate::config::REPLICAS_MAX;
use crate::journal::{Attach, AttachError, is_run_id};
use crate::protocol::change::PeerKeys;
use crate::protocol::control::{self, AttachLine, ClientError, ClientLine, Descent, Position, ServerInfo, ServerLine};
use crate::protocol::duty_line::{ROLE_USAGE, RoleLine, RoleReport};
use crate::protocol::members_line::MEMBERS_USAGE;
use crate::store::{Relation, RoleOrder, Store};
use crate::supervisor;
use std::time::{Duration, Instant};

/// How often a heartbeat is sent. The protocol promises one every tenth of a second, and a busy machine may be late.
const BEAT: Duration = Duration::from_millis(50);

/// The time of a call, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// To tell what is due.
    pub at: Instant,
    /// Unix milliseconds, for the other side to compare its clock with.
    pub unix_ms: i64,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Consumer {
    /// The start of a line that has not ended.
    line: Vec<u8>,
    stream: Option<Box<ChangeStream>>,
    told: Option<AttachNotice>,
    /// When the next heartbeat is due; None before it is attached.
    beat_due: Option<Instant>,
    /// What it was told last of the ranges that the peer lacks. None: nothing since it attached, or refused something.
    lacking: Option<u64>,
    /// What the client says of the peer's clock; see [`ClientLine::Clock`].
    peer_clock: Option<i64>,
}

impl Consumer {
    /// What the server says first.
    pub fn greet(&self, shared: &Shared, out: &mut Output) {
        let journal = shared.store.journal();
        let run = &control::run_word(journal.run_id());
        say(out, ServerLine::Greeting(control::VERSION, Position { run, lsn: journal.lsn() }));
    }

    /// Takes what the client sent; false: close, after `out`.
    pub fn input(&mut self, mut bytes: &[u8], shared: &Shared, now: Now, out: &mut Output) -> bool {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let mut line = std::mem::take(&mut self.line);
            line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let text = line.strip_suffix(b"\r").unwrap_or(&line);
            if text.len() > ClientLine::max_len(text) || !self.obey(text, shared, now, out) {
                return false;
            }
            line.clear();
            self.line = line;
        }
        self.line.extend_from_slice(bytes);
        self.line.len() <= ClientLine::max_len(&self.line)
    }

    /// Puts the next part of the stream into `out`. False: there was nothing.
    pub fn fill(&mut self, shared: &Shared, now: Now, out: &mut Output) -> bool {
        self.stream.as_mut().is_some_and(|stream| stream.fill(shared, now.at, out))
    }

    /// Sends a heartbeat if one is due.
    pub fn beat(&mut self, shared: &Shared, now: Now, out: &mut Output) {
        if self.beat_due.is_some_and(|due| now.at >= due) {
            self.beat_due = Some(now.at + BEAT);
            say(out, ServerLine::Alive(shared.store.journal().lsn(), now.unix_ms));
            let lacking = self.stream.as_ref().map_or(0, |stream| stream.refused_ranges());
            if self.lacking.replace(lacking) != Some(lacking) {
                say(out, ServerLine::Lacking(lacking));
            }
            if let Some(stream) = self.stream.as_ref().filter(|stream| stream.is_full_sync) {
                say(out, ServerLine::FullSyncItems(stream.items()));
            }
        }
    }

    /// Whether the client has become a consumer.
    pub fn is_attached(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether the last [`Consumer::fill`] left something unsent.
    pub fn is_behind(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_behind)
    }

    /// Whether the peer has not confirmed everything that was sent.
    pub fn awaits(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.acked < stream.said)
    }

    /// Whether the stream has ended: another consumer has taken this one's place.
    pub fn is_gone(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_gone)
    }

    /// Whether the peer has not confirmed every change there is.
    pub fn lacks(&self, shared: &Shared) -> bool {
        self.stream.as_ref().is_some_and(|stream| !stream.is_gone && stream.acked < shared.store.journal().lsn())
    }

    fn obey(&mut self, line: &[u8], shared: &Shared, now: Now, out: &mut Output) -> bool {
        match (ClientLine::parse(line), &mut self.stream) {
            (Ok(ClientLine::Ack(lsn)), Some(stream)) => return stream.acknowledge(lsn, true, shared, out),
            (Ok(ClientLine::Refuse(lsn)), Some(stream)) => {
                self.lacking = None;
                return stream.acknowledge(lsn, false, shared, out);
            }
            (Err(ClientError::Lsn), Some(_)) => return refuse_ack(shared, out),
            (Ok(ClientLine::Attach(line)), None) => return self.attach(&line, shared, now, out),
            (Err(ClientError::Attach), None) => return refuse(control::ATTACH_USAGE, out),
            (Ok(ClientLine::Clock(at_boot_ms)), stream) => {
                self.peer_clock = Some(at_boot_ms);
                stream.iter_mut().for_each(|stream| stream.peer_clock = self.peer_clock);
            }
            (Ok(ClientLine::Hello(name, identity)), _) => return inform(name, identity, shared, now, out),
            (Err(ClientError::Hello), _) => return refuse(control::HELLO_USAGE, out),
            (Ok(ClientLine::ReplicasAck(_)), _) if shared.store.is_managed() => {
                out.push(
                    b"CLIENT_ERROR the lease says for whom replies wait: start the servers with -o replicas_ack\r\n",
                );
            }
            (Ok(ClientLine::ReplicasAck(n)), _) if n <= REPLICAS_MAX => {
                shared.store.journal().set_required(n, now.at);
                out.push(b"OK\r\n");
            }
            (Ok(ClientLine::ReplicasAck(_)) | Err(ClientError::ReplicasAck), _) => {
                out.push(b"CLIENT_ERROR replicas_ack takes a number, 0 to 5\r\n");
            }
            (Ok(ClientLine::Topology(line)), _) => out.push(match shared.discovery.tell(line.version, line.servers) {
                true => b"OK\r\n",
                false => b"CLIENT_ERROR another topology is known, of this version or of a later one\r\n",
            }),
            (Err(ClientError::Topology), _) => {
                out.push(format!("CLIENT_ERROR {}\r\n", control::TOPOLOGY_USAGE).as_bytes());
            }
            (Ok(ClientLine::Role(line)), _) => take_role(line, shared, out),
            (Err(ClientError::Role), _) => say(out, ServerLine::Wrong(ROLE_USAGE)),
            (Ok(ClientLine::HoldWrites(ms)), _) => say(out, ServerLine::Writes(shared.store.hold_changes(ms))),
            (Ok(ClientLine::Members(line)), _) if line.least <= REPLICAS_MAX => {
                say(out, ServerLine::Members(shared.store.journal().set_members(line.least, line.names(), now.at)));
            }
            (Ok(ClientLine::Members(_)) | Err(ClientError::Members), _) => say(out, ServerLine::Wrong(MEMBERS_USAGE)),
            (Ok(ClientLine::Status), _) => {
                stats::replication(shared, now.at, &mut |name, value| say(out, ServerLine::Stat(name, value)));
                say(out, ServerLine::End);
            }
            (Ok(ClientLine::Stats(argument)), _) => tell_stats(argument, shared, out),
            _ => out.push(b"ERROR\r\n"),
        }
        true
    }

    fn attach(&mut self, line: &AttachLine<'_>, shared: &Shared, now: Now, out: &mut Output) -> bool {
        let &AttachLine { name, identity, run, lsn, with_cas } = line;
        let Ok(run_id) = run.map(|run| control::parse_run(run).ok_or(())).transpose() else {
            return refuse(control::ATTACH_USAGE, out);
        };
        let subscription = match shared.store.attach(&Attach { name, identity, run_id, lsn }, now.at) {
            Ok(subscription) => subscription,
            Err(error) => return refuse(reason(error), out),
        };
        let keys = if is_run_id(identity) { PeerKeys::All } else { PeerKeys::Short };
        let is_full_sync = subscription.began_with_full_sync();
        let mut stream = ChangeStream::new(subscription, with_cas, keys, now.at);
        stream.peer_clock = self.peer_clock;
        let run = &control::run_word(shared.store.journal().run_id());
        let began = if is_full_sync { ServerLine::FullSync } else { ServerLine::Continuing };
        say(out, began(Position { run, lsn: stream.lsn }));
        self.told = Some(AttachNotice::new(name, is_full_sync, stream.lsn));
        self.stream = Some(Box::new(stream));
        self.beat_due = Some(now.at + BEAT);
        true
    }
}

/// That a consumer is there, as the log tells it: its end, too.
#[derive(Debug)]
struct AttachNotice {
    name: String,
}

impl AttachNotice {
    fn new(name: &str, is_full_sync: bool, lsn: u64) -> AttachNotice {
        let begins = if is_full_sync { "with a full sync from" } else { "and goes on after" };
        supervisor::notice(&format!("consumer {name} attached, {begins} lsn {lsn}"));
        AttachNotice { name: name.to_owned() }
    }
}

impl Drop for AttachNotice {
    fn drop(&mut self) {
        supervisor::notice(&format!("consumer {} detached", self.name));
    }
}

fn inform(name: &str, identity: &str, shared: &Shared, now: Now, out: &mut Output) -> bool {
    let (relation, upstreams) = match shared.store.meet(name, identity, now.at) {
        Ok(known) => known,
        Err(error) => return refuse(reason(error), out),
    };
    let descent = match relation {
        Relation::Stranger => Descent::First,
        Relation::Copy => Descent::Again,
        Relation::Source => Descent::Back,
    };
    let (items, uptime) = (shared.store.stats().curr_items, shared.clock.uptime().into());
    let runs: Vec<String> = upstreams.iter().map(|&run_id| control::run_word(run_id)).collect();
    let upstreams = runs.iter().map(String::as_str).collect();
    say(out, ServerLine::Info(ServerInfo { items, uptime, descent, upstreams }));
    true
}

/// Nothing is changed here: `reset` is for clients.
fn tell_stats(argument: &str, shared: &Shared, out: &mut Output) {
    let asked = (!argument.is_empty()).then_some(argument.as_bytes());
    let is_told =
        argument != "reset" && stats::each(asked, shared, &mut |name, value| say(out, ServerLine::Stat(name, value)));
    say(out, if is_told { ServerLine::End } else { ServerLine::Wrong("there are no such statistics") });
}

fn take_role(line: RoleLine<'_>, shared: &Shared, out: &mut Output) {
    let order = match line {
        RoleLine::Ask => None,
        RoleLine::Waiting => Some(RoleOrder::Waiting),
        RoleLine::Standby { epoch, secret } => Some(RoleOrder::Standby { epoch, secret }),
        RoleLine::Candidate { epoch } => Some(RoleOrder::Candidate { epoch }),
        RoleLine::Primary { epoch, deadline_ms, drops_all } => {
            Some(RoleOrder::Primary { epoch, deadline_ms, drops_all })
        }
    };
    match order.map_or(Ok(()), |order| shared.store.set_role(order)) {
        Ok(()) => say(out, ServerLine::Role(report(&shared.store))),
        Err(error) => say(out, ServerLine::Wrong(&error.to_string())),
    }
}

fn report(store: &Store) -> RoleReport {
    let (name, epoch) = stats::role(store);
    RoleReport { name, epoch, lsn: store.journal().lsn(), items: store.items() }
}

fn reason(error: AttachError) -> &'static str {
    match error {
        AttachError::Itself => "the peer is this server itself",
        AttachError::Upstream => control::FEEDS_US,
        AttachError::TooMany => "there are as many consumers as there may be",
        AttachError::Twice => "the peer is the same server as another one that is fed already",
    }
}
