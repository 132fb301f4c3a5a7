//! The lines of the control socket and of `replica`, in both directions.
//!
//! ```text
//! server, first   twincache 1 <run id> <lsn>
//! client          meet <name> <identity>
//! server          met <items> <uptime> <first|again|back> <run id>…
//!                                                  what there is to copy; whether this peer got it before, or it came
//!                                                  from there; the servers whose changes come here, the nearest first
//!                 refused <reason>                 as for attach
//! client          attach <name> <identity> <run id|-> <lsn|-> <cas|nocas>
//!                                                  - 0: from the beginning, whatever was confirmed
//! server          continuing <run id> <lsn>        the stream goes on after lsn
//!                 walk <run id> <lsn>              first comes a full sync; also later, when too much was lost
//!                 refused <reason>                 and closes
//! then, server    batch <lsn> <bytes> \r\n <body>  whole meta commands, no line end after them; zeros before numbers
//!                 walking <items>                  so many items of the full sync have been sent; now and then
//!                 walked <lsn>                     all of the full sync has been sent
//!                 overtaken <lsn> <ranges>         changes were lost: so many ranges of keys are sent again
//!                 caught-up <lsn>                  they have been sent
//!                 lacking <ranges>                 the peer has refused some of so many ranges of keys, which are sent
//!                                                  again now and then; when that number has changed, and after a
//!                                                  `refuse` and an attach in any case
//!                 alive <lsn> <unix ms>            every tenth of a second at least: the last change, and the clock
//! client          clock <ms>                       what the peer's clock showed when this machine had just booted:
//!                                                  expiries are sent by it; before the attach, and when it changes
//!                 ack <lsn>                        the peer has everything up to here
//!                 refuse <lsn>                     the same, but for some of what came since the last: it was refused
//! any client      replicas_ack <n>                 OK
//!                 topology …                       OK: see `topology`
//!                 members …                        members <lsn>: see `members_line`
//!                 writes hold <ms>, writes go      writes <lsn>: changes of clients wait for so long at most, reads go on
//!                 role …                           role <name> <epoch> <lsn> <items>: see `duty_line`
//!                 status                           STAT <name> <value> for each row of `stats replication`, END
//!                 stats [<word>…]                  the same of `stats`, with one of the arguments that only ask
//! server          CLIENT_ERROR <why>               what a line was that could not be obeyed
//!
//! a peer is told  replica who                      OK <run id> <told ms> <unix ms>
//!                                                  the time by which it wants expiries, and its wall clock
//!                 replica key <epoch> <secret>     OK: it is fed by this connection, if it is a standby of the epoch
//!                 replica promise <epoch> <secret> <ms>   OK <ms>: it becomes the owner of no other epoch for so long
//!                 replica from <run id>…           the same: who feeds it, who feeds that one, and so on
//!                 replica begin [<items>]          OK; what there is to send
//!                 replica sent <items> <bytes>     OK; of the full sync, now and then
//!                 replica end                      OK
//!                 replica at <lsn>                 OK; the peer has everything of the feeder's run up to here
//!                 replica overtaken, caught-up     OK; changes were lost, and have been sent again
//! ```
//!
//! Lines end in `\r\n`; a client may leave out the `\r`. A run id is 16 hex digits, for one start of one server; a
//! client only compares it, so to the client it is a word. An lsn numbers the changes of a run; the lsn of a batch says
//! that everything up to there has been sent.
//!
//! Invariant: what is written and parsed again is the same value. Not here: what the lines mean (`replication` for the
//! server, `sidecar` for the client), and the bodies (`protocol::change`).

use super::duty_line::{RoleLine, RoleReport};
use super::members_line::{MembersLine, NAMES_MAX};
use super::token::{strict_u32, strict_u64, word, words};
use super::topology::{TOPOLOGY_LINE_MAX, TopologyLine};
use std::fmt;

/// The version of the protocol that is spoken here.
pub const VERSION: u64 = 1;

/// Longest line of either side but for `topology`: a refusal with its reason is the longest that there is.
pub const LINE_MAX: usize = 1024;

/// Bytes of the line before a body, with its end. Its numbers have leading zeros, so that the line fills the room that
/// was left for it, and the body need not be moved.
pub const BATCH_LINE: usize = 6 + 20 + 1 + 10 + 2;

/// The most words after the first one of a client's line; `members` has so many.
const ARGUMENTS_MAX: usize = 1 + NAMES_MAX;

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerLine<'a> {
    /// This is a control socket of this version of the protocol, and this is the server's run and last change.
    Greeting(u64, Position<'a>),
    /// `met`: what there is to copy to a peer.
    Info(ServerInfo<'a>),
    /// The stream goes on after this change.
    Continuing(Position<'a>),
    /// `walk`: a full sync begins, and this is the server's last change.
    FullSync(Position<'a>),
    /// The server will not have this consumer, for this reason.
    Refused(&'a str),
    /// With the body of so many bytes that follows, everything up to this lsn has been sent: `Batch(lsn, bytes)`.
    Batch(u64, u64),
    /// `walking`: so many items of the full sync were sent.
    FullSyncItems(u64),
    /// `walked`: everything of the full sync was sent.
    FullSyncEnd(u64),
    /// `overtaken`: changes were lost at this lsn, and so many ranges of keys are sent again.
    Lagged(u64, u64),
    /// What was lost has been sent again.
    CaughtUp(u64),
    /// Of so many ranges of keys the peer has refused something, and was not sent it again with success.
    Lacking(u64),
    /// The server's last change, and its clock in Unix milliseconds.
    Alive(u64, i64),
    /// Name and value of a row of `stats replication`.
    Stat(&'a str, &'a str),
    /// There are no more rows.
    End,
    /// The server's role.
    Role(RoleReport),
    /// `members`: replies wait for those who were named, from the change after this one on.
    Members(u64),
    /// `writes`: this was the last change when they began to wait, or went on.
    Writes(u64),
    /// `OK`: it is done.
    Done,
    /// `CLIENT_ERROR`: it is not, for this reason.
    Wrong(&'a str),
}

/// A place in the changes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    /// The server's run.
    pub run: &'a str,
    /// The last change.
    pub lsn: u64,
}

/// What the server says of itself to a peer that is about to be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo<'a> {
    /// Items that the server holds.
    pub items: u64,
    /// Seconds since the server started.
    pub uptime: u64,
    /// Who of the two has its items from the other.
    pub descent: Descent,
    /// Runs of the servers whose changes it gets, the nearest first.
    pub upstreams: Vec<&'a str>,
}

/// Whether a server has its items from a peer, or the peer from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// Neither has its items from the other.
    First,
    /// The server has fed this very peer before.
    Again,
    /// This very peer was the last to feed the server.
    Back,
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLine<'a> {
    /// `meet`, with the consumer's name and the peer's identity: what is there to copy?
    Hello(&'a str, &'a str),
    /// The client wants every change.
    Attach(AttachLine<'a>),
    /// The peer has everything up to here.
    Ack(u64),
    /// The same, but something since the last acknowledgement was refused.
    Refuse(u64),
    /// `clock`: what the peer's clock showed when this machine had just booted, in Unix milliseconds. From now on
    /// expiries are sent by that.
    Clock(i64),
    /// How many consumers have to confirm a change.
    ReplicasAck(u32),
    /// The servers that clients are to be told.
    Topology(TopologyLine<'a>),
    /// `writes`: changes of clients wait for so many milliseconds; `writes go` is 0.
    HoldWrites(u64),
    /// For which consumers replies wait.
    Members(MembersLine<'a>),
    /// The server's role.
    Role(RoleLine<'a>),
    /// The client asks for `stats replication`.
    Status,
    /// The client asks for `stats`, with this argument; empty: without one.
    Stats(&'a str),
}

/// What a client says that wants every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachLine<'a> {
    /// The consumer's name.
    pub name: &'a str,
    /// The peer's identity.
    pub identity: &'a str,
    /// The run whose changes the peer has, if that is known.
    pub run: Option<&'a str>,
    /// The last of these changes.
    pub lsn: Option<u64>,
    /// The peer takes cas uniques.
    pub with_cas: bool,
}

/// What is wrong with a client's line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// There is no such command, or not with so many words.
    Unknown,
    /// The lsn that is acknowledged is no number.
    Lsn,
    /// The number of consumers is not a number.
    ReplicasAck,
    /// The arguments of `topology` are wrong: see [`TOPOLOGY_USAGE`].
    Topology,
    /// The arguments of `members` are wrong: see [`super::members_line::MEMBERS_USAGE`].
    Members,
    /// The arguments of `role` are wrong: see [`super::duty_line::ROLE_USAGE`].
    Role,
    /// The arguments of `meet` are wrong: see [`HELLO_USAGE`].
    Hello,
    /// The arguments of `attach` are wrong: see [`ATTACH_USAGE`].
    Attach,
}

/// Why a server refuses a peer that feeds it.
pub const FEEDS_US: &str = "replication would go in a circle: the peer is the server that this one follows";

/// How `meet` is to be said.
pub const HELLO_USAGE: &str = "usage: meet <name> <identity>";

/// How `attach` is to be said.
pub const ATTACH_USAGE: &str = "usage: attach <name> <identity> <run id|-> <lsn|-> <cas|nocas>";

/// How `topology` is to be said.
pub const TOPOLOGY_USAGE: &str = "usage: topology <version> <host>|<ip>|<port> ...";

/// What a peer is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicaLine<'a> {
    /// Which run is the peer?
    Who,
    /// The sender is the owner of this epoch, and knows this secret: `Key(epoch, secret)`.
    Key(u64, &'a str),
    /// The runs whose changes it is sent, the nearest first.
    From(Vec<&'a str>),
    /// Everything is going to be sent; there are so many items.
    Begin(Option<u64>),
    /// So many items and bytes of it have been sent.
    Sent(u64, u64),
    /// Everything has been sent.
    End,
    /// The peer has everything up to here.
    At(u64),
    /// Changes were lost.
    Overtaken,
    /// It does not take over for so many milliseconds from the owner of this epoch, who knows this secret.
    Promise {
        /// The owner's.
        epoch: u64,
        /// The shard's.
        secret: &'a str,
        /// For so long.
        ms: u64,
    },
    /// What was lost has been sent again.
    CaughtUp,
}

/// What a peer answers to `replica who` and `replica from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction<'a> {
    /// Its run.
    pub run: &'a str,
    /// The time by which it takes expiries from who feeds it, in Unix milliseconds. It never steps.
    pub told_ms: i64,
    /// Its wall clock, in Unix milliseconds.
    pub unix_ms: i64,
}

impl<'a> ServerLine<'a> {
    /// The value of a line without its end; None when it makes no sense.
    pub fn parse(line: &'a [u8]) -> Option<ServerLine<'a>> {
        let line = std::str::from_utf8(line).ok()?;
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        Some(match verb {
            "batch" => ServerLine::Batch(number(&mut words)?, number(&mut words)?),
            "alive" => ServerLine::Alive(number(&mut words)?, words.next()?.parse().ok()?),
            "walking" => ServerLine::FullSyncItems(number(&mut words)?),
            "walked" => ServerLine::FullSyncEnd(number(&mut words)?),
            "overtaken" => ServerLine::Lagged(number(&mut words)?, number(&mut words)?),
            "lacking" => ServerLine::Lacking(number(&mut words)?),
            "caught-up" => ServerLine::CaughtUp(number(&mut words)?),
            "met" => ServerLine::Info(ServerInfo::parse(&mut words)?),
            "refused" => ServerLine::Refused(rest),
            "continuing" => ServerLine::Continuing(Position::parse(&mut words)?),
            "walk" => ServerLine::FullSync(Position::parse(&mut words)?),
            "twincache" => ServerLine::Greeting(number(&mut words)?, Position::parse(&mut words)?),
            "STAT" => rest.split_once(' ').map(|(name, value)| ServerLine::Stat(name, value))?,
            "END" => ServerLine::End,
            "role" => ServerLine::Role(RoleReport::parse(rest)?),
            "members" => ServerLine::Members(number(&mut words)?),
            "writes" => ServerLine::Writes(number(&mut words)?),
            "OK" => ServerLine::Done,
            "CLIENT_ERROR" => ServerLine::Wrong(rest),
            _ => return None,
        })
    }
}

impl fmt::Display for ServerLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerLine::Greeting(version, Position { run, lsn }) => write!(f, "twincache {version} {run} {lsn}"),
            ServerLine::Info(ServerInfo { items, uptime, descent, upstreams }) => {
                write!(f, "met {items} {uptime} {}", descent.name())?;
                upstreams.iter().try_for_each(|run| write!(f, " {run}"))
            }
            ServerLine::Continuing(Position { run, lsn }) => write!(f, "continuing {run} {lsn}"),
            ServerLine::FullSync(Position { run, lsn }) => write!(f, "walk {run} {lsn}"),
            ServerLine::Refused(reason) => write!(f, "refused {reason}"),
            ServerLine::Batch(lsn, bytes) => write!(f, "batch {lsn:020} {bytes:010}"),
            ServerLine::FullSyncItems(items) => write!(f, "walking {items}"),
            ServerLine::FullSyncEnd(lsn) => write!(f, "walked {lsn}"),
            ServerLine::Lagged(lsn, ranges) => write!(f, "overtaken {lsn} {ranges}"),
            ServerLine::Lacking(ranges) => write!(f, "lacking {ranges}"),
            ServerLine::CaughtUp(lsn) => write!(f, "caught-up {lsn}"),
            ServerLine::Alive(lsn, unix_ms) => write!(f, "alive {lsn} {unix_ms}"),
            ServerLine::Stat(name, value) => write!(f, "STAT {name} {value}"),
            ServerLine::End => f.write_str("END"),
            ServerLine::Role(report) => report.fmt(f),
            ServerLine::Members(lsn) => write!(f, "members {lsn}"),
            ServerLine::Writes(lsn) => write!(f, "writes {lsn}"),
            ServerLine::Done => f.write_str("OK"),
            ServerLine::Wrong(why) => write!(f, "CLIENT_ERROR {why}"),
        }
    }
}

impl<'a> Position<'a> {
    fn parse(words: &mut impl Iterator<Item = &'a str>) -> Option<Position<'a>> {
        Some(Position { run: word(words.next()?.as_bytes())?, lsn: number(words)? })
    }
}

impl<'a> ServerInfo<'a> {
    fn parse(words: &mut impl Iterator<Item = &'a str>) -> Option<ServerInfo<'a>> {
        let (items, uptime, name) = (number(words)?, number(words)?, words.next()?);
        let descent = Descent::ALL.into_iter().find(|descent| descent.name() == name)?;
        let upstreams = words.map(|run| word(run.as_bytes())).collect::<Option<_>>()?;
        Some(ServerInfo { items, uptime, descent, upstreams })
    }
}

impl Descent {
    const ALL: [Descent; 3] = [Descent::First, Descent::Again, Descent::Back];

    fn name(self) -> &'static str {
        match self {
            Descent::First => "first",
            Descent::Again => "again",
            Descent::Back => "back",
        }
    }
}

impl<'a> ClientLine<'a> {
    /// Bytes of the longest line that begins so.
    pub fn max_len(line: &[u8]) -> usize {
        if TopologyLine::is_begun(line) { TOPOLOGY_LINE_MAX } else { LINE_MAX }
    }

    /// The value of a line without its end.
    pub fn parse(line: &'a [u8]) -> Result<ClientLine<'a>, ClientError> {
        if TopologyLine::is_begun(line) {
            return TopologyLine::parse(line).map(ClientLine::Topology).ok_or(ClientError::Topology);
        }
        if let Some(argument) = line.strip_prefix(b"stats").and_then(stats_argument) {
            return Ok(ClientLine::Stats(argument));
        }
        let mut words = words(line);
        let verb = words.next().unwrap_or_default();
        // There is room for one word too many, so that it is noticed.
        let mut found = [b"".as_slice(); ARGUMENTS_MAX + 1];
        let count = found.iter_mut().zip(words).map(|(slot, word)| *slot = word).count();
        match (verb, &found[..count]) {
            (b"ack", [lsn]) => strict_u64(lsn).map(ClientLine::Ack).ok_or(ClientError::Lsn),
            (b"refuse", [lsn]) => strict_u64(lsn).map(ClientLine::Refuse).ok_or(ClientError::Lsn),
            (b"clock", [ms]) => signed(ms).map(ClientLine::Clock).ok_or(ClientError::Unknown),
            (b"meet", [name, identity]) => match (word(name), word(identity)) {
                (Some(name), Some(identity)) => Ok(ClientLine::Hello(name, identity)),
                _ => Err(ClientError::Hello),
            },
            (b"attach", arguments) => AttachLine::parse(arguments).map(ClientLine::Attach).ok_or(ClientError::Attach),
            (b"replicas_ack", [n]) => strict_u32(n).map(ClientLine::ReplicasAck).ok_or(ClientError::ReplicasAck),
            (b"role", arguments) => RoleLine::parse(arguments).map(ClientLine::Role).ok_or(ClientError::Role),
            (b"writes", [b"go"]) => Ok(ClientLine::HoldWrites(0)),
            (b"writes", [b"hold", ms]) => strict_u64(ms).map(ClientLine::HoldWrites).ok_or(ClientError::Unknown),
            (b"members", arguments) => {
                MembersLine::parse(arguments).map(ClientLine::Members).ok_or(ClientError::Members)
            }
            (b"status", []) => Ok(ClientLine::Status),
            _ => Err(ClientError::Unknown),
        }
    }
}

impl fmt::Display for ClientLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ClientLine::Hello(name, identity) => write!(f, "meet {name} {identity}"),
            ClientLine::Attach(AttachLine { name, identity, run, lsn, with_cas }) => {
                let (run, cas) = (run.unwrap_or("-"), if with_cas { "cas" } else { "nocas" });
                match lsn {
                    Some(lsn) => write!(f, "attach {name} {identity} {run} {lsn} {cas}"),
                    None => write!(f, "attach {name} {identity} {run} - {cas}"),
                }
            }
            ClientLine::Ack(lsn) => write!(f, "ack {lsn}"),
            ClientLine::Refuse(lsn) => write!(f, "refuse {lsn}"),
            ClientLine::Clock(ms) => write!(f, "clock {ms}"),
            ClientLine::ReplicasAck(n) => write!(f, "replicas_ack {n}"),
            ClientLine::Topology(line) => line.fmt(f),
            ClientLine::Members(line) => line.fmt(f),
            ClientLine::HoldWrites(0) => f.write_str("writes go"),
            ClientLine::HoldWrites(ms) => write!(f, "writes hold {ms}"),
            ClientLine::Role(line) => line.fmt(f),
            ClientLine::Status => f.write_str("status"),
            ClientLine::Stats("") => f.write_str("stats"),
            ClientLine::Stats(argument) => write!(f, "stats {argument}"),
        }
    }
}

impl<'a> AttachLine<'a> {
    fn parse(arguments: &[&'a [u8]]) -> Option<AttachLine<'a>> {
        let &[name, identity, run, lsn, cas] = arguments else { return None };
        let with_cas = match cas {
            b"cas" => true,
            b"nocas" => false,
            _ => return None,
        };
        let run = if run == b"-" { None } else { Some(word(run)?) };
        let lsn = if lsn == b"-" { None } else { Some(strict_u64(lsn)?) };
        Some(AttachLine { name: word(name)?, identity: word(identity)?, run, lsn, with_cas })
    }
}

impl<'a> ReplicaLine<'a> {
    /// The value of the words after `replica`. A run id that is not a word comes out empty.
    pub fn parse(arguments: &[&'a [u8]]) -> Option<ReplicaLine<'a>> {
        Some(match arguments {
            [b"who"] => ReplicaLine::Who,
            [b"key", epoch, secret] => ReplicaLine::Key(strict_u64(epoch)?, word(secret)?),
            [b"from", runs @ ..] if !runs.is_empty() => {
                ReplicaLine::From(runs.iter().map(|run| word(run).unwrap_or_default()).collect())
            }
            [b"begin"] => ReplicaLine::Begin(None),
            [b"begin", items] => ReplicaLine::Begin(Some(strict_u64(items)?)),
            [b"sent", items, bytes] => ReplicaLine::Sent(strict_u64(items)?, strict_u64(bytes)?),
            [b"end"] => ReplicaLine::End,
            [b"at", lsn] => ReplicaLine::At(strict_u64(lsn)?),
            [b"overtaken"] => ReplicaLine::Overtaken,
            [b"promise", epoch, secret, ms] => {
                ReplicaLine::Promise { epoch: strict_u64(epoch)?, secret: word(secret)?, ms: strict_u64(ms)? }
            }
            [b"caught-up"] => ReplicaLine::CaughtUp,
            _ => return None,
        })
    }
}

impl fmt::Display for ReplicaLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplicaLine::Who => f.write_str("replica who"),
            ReplicaLine::Key(epoch, secret) => write!(f, "replica key {epoch} {secret}"),
            ReplicaLine::From(runs) => {
                f.write_str("replica from")?;
                runs.iter().try_for_each(|run| write!(f, " {run}"))
            }
            ReplicaLine::Begin(None) => f.write_str("replica begin"),
            ReplicaLine::Begin(Some(items)) => write!(f, "replica begin {items}"),
            ReplicaLine::Sent(items, bytes) => write!(f, "replica sent {items} {bytes}"),
            ReplicaLine::End => f.write_str("replica end"),
            ReplicaLine::At(lsn) => write!(f, "replica at {lsn}"),
            ReplicaLine::Overtaken => f.write_str("replica overtaken"),
            ReplicaLine::Promise { epoch, secret, ms } => write!(f, "replica promise {epoch} {secret} {ms}"),
            ReplicaLine::CaughtUp => f.write_str("replica caught-up"),
        }
    }
}

impl<'a> Introduction<'a> {
    /// The value of a line without its end.
    pub fn parse(text: &'a str) -> Option<Introduction<'a>> {
        let mut words = text.strip_prefix("OK ")?.split(' ');
        let (run, told_ms) = (word(words.next()?.as_bytes())?, words.next()?.parse().ok()?);
        // A server that says no more judges expiries by its wall clock.
        let unix_ms = words.next().map_or(Some(told_ms), |unix_ms| unix_ms.parse().ok())?;
        words.next().is_none().then_some(Introduction { run, told_ms, unix_ms })
    }
}

impl fmt::Display for Introduction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OK {} {} {}", self.run, self.told_ms, self.unix_ms)
    }
}

/// A run id as it stands in lines.
pub fn run_word(run_id: u64) -> String {
    format!("{run_id:016x}")
}

/// The run id of a word.
pub fn parse_run(word: &str) -> Option<u64> {
    u64::from_str_radix(word, 16).ok()
}

/// Whether this can stand as one word: printable, without blanks, not too long.
pub fn is_word(text: &str) -> bool {
    word(text.as_bytes()).is_some()
}

/// What follows `stats`, which ends the line or is printable.
fn stats_argument(rest: &[u8]) -> Option<&str> {
    match rest {
        [] => Some(""),
        [b' ', argument @ ..] if argument.iter().all(|byte| (b' '..=b'~').contains(byte)) => {
            std::str::from_utf8(argument).ok().filter(|argument| !argument.is_empty())
        }
        _ => None,
    }
}

fn signed(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    strict_u64(words.next()?.as_bytes())
}

#[cfg(test)]
#[path = "tests/control.rs"]
mod tests;
