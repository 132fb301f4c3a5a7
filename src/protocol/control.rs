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
//! server          continuing <run id> <lsn>        the stream goes on after lsn
//!                 walk <run id> <lsn>              first comes a full sync; also later, when too much was lost
//!                 refused <reason>                 and closes
//! then, server    batch <lsn> <bytes> \r\n <body>  whole meta commands, no line end after them; zeros before numbers
//!                 walked <lsn>                     all of the full sync has been sent
//!                 overtaken <lsn> <ranges>         changes were lost: so many ranges of keys are sent again
//!                 caught-up <lsn>                  they have been sent
//!                 alive <lsn> <unix ms>            every tenth of a second at least: the last change, and the clock
//! client          ack <lsn>                        the peer has everything up to here
//!                 refuse <lsn>                     the same, but for some of what came since the last: it was refused
//! any client      replicas_ack <n>                 OK
//!                 status                           what `stats replication` tells
//!
//! a peer is told  replica who                      OK <run id> <unix ms>
//!                 replica from <run id>…           the same: who feeds it, who feeds that one, and so on
//!                 replica begin, replica end       OK
//! ```
//!
//! Lines end in `\r\n`; a client may leave out the `\r`. A run id is 16 hex digits, for one start of one server; a
//! client only compares it, so to it it is a word. An lsn numbers the changes of a run; the lsn of a batch says that
//! everything up to there has been sent.
//!
//! Invariant: what is written and parsed again is the same value. Not here: what the lines mean (`replication` for the
//! server, `sidecar` for the client), and the bodies (`protocol::change`).

use super::token::{strict_u32, strict_u64};
use std::fmt;

/// The version of the protocol that is spoken here.
pub const VERSION: u64 = 1;

/// Longest line of either side: a refusal with its reason is the longest that there is.
pub const LINE_MAX: usize = 1024;

/// Longest word: a name, an identity, a run id.
const WORD_MAX: usize = 128;

/// What the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerLine<'a> {
    /// It is a control socket of this version of the protocol.
    Greeting {
        /// The version.
        version: u64,
        /// The server's run.
        run: &'a str,
        /// Its last change.
        lsn: u64,
    },
    /// What there is to copy to a peer.
    Met(ServerInfo<'a>),
    /// The stream goes on after this lsn.
    Continuing {
        /// The server's run.
        run: &'a str,
        /// The last change that the peer has.
        lsn: u64,
    },
    /// A full sync begins.
    Walk {
        /// The server's run.
        run: &'a str,
        /// Its last change.
        lsn: u64,
    },
    /// The server will not have this consumer, for this reason.
    Refused(&'a str),
    /// A body follows.
    Batch {
        /// With it everything up to here has been sent.
        lsn: u64,
        /// Bytes of the body.
        bytes: u64,
    },
    /// Everything of the full sync was sent.
    Walked(u64),
    /// Changes were lost.
    Overtaken {
        /// Where the stream stood.
        lsn: u64,
        /// Ranges of keys that are sent again.
        ranges: u64,
    },
    /// What was lost has been sent again.
    CaughtUp(u64),
    /// The server runs.
    Alive {
        /// Its last change.
        lsn: u64,
        /// Its clock, in Unix milliseconds.
        unix_ms: i64,
    },
}

/// What the server says of itself to a peer that is about to be fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerInfo<'a> {
    /// Items that it holds.
    pub items: u64,
    /// Seconds since it started.
    pub uptime: u64,
    /// Who of the two has its items from the other.
    pub descent: Descent,
    /// Run ids of the servers whose changes it gets, the nearest first, with a blank before each.
    pub upstreams: &'a str,
}

/// Which of a server and a peer has its items from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Descent {
    /// Neither.
    First,
    /// The server has fed this very peer before.
    Again,
    /// This very peer was the last to feed the server.
    Back,
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLine<'a> {
    /// It asks what there is to copy to a peer.
    Meet {
        /// The consumer's name.
        name: &'a str,
        /// The peer's identity.
        identity: &'a str,
    },
    /// It wants every change.
    Attach(AttachLine<'a>),
    /// The peer has everything up to here.
    Ack(u64),
    /// The same, but something since the last acknowledgement was refused.
    Refuse(u64),
    /// How many consumers have to confirm a change.
    ReplicasAck(u32),
    /// It asks for `stats replication`.
    Status,
}

/// Who wants every change.
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

/// Why a line of a client is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// There is no such command.
    Unknown,
    /// Its arguments are wrong: how they should be.
    Usage(&'static str),
    /// The number of `replicas_ack` is none.
    ReplicasAck,
}

/// How `meet` is to be said.
const MEET_USAGE: &str = "usage: meet <name> <identity>";
/// How `attach` is to be said.
pub const ATTACH_USAGE: &str = "usage: attach <name> <identity> <run id|-> <lsn|-> <cas|nocas>";

impl<'a> ServerLine<'a> {
    /// The value of a line without its end; None when it makes no sense.
    pub fn parse(line: &'a [u8]) -> Option<ServerLine<'a>> {
        let line = std::str::from_utf8(line).ok()?;
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut words = rest.split(' ');
        Some(match verb {
            "batch" => ServerLine::Batch { lsn: number(&mut words)?, bytes: number(&mut words)? },
            "alive" => ServerLine::Alive { lsn: number(&mut words)?, unix_ms: words.next()?.parse().ok()? },
            "walked" => ServerLine::Walked(number(&mut words)?),
            "overtaken" => ServerLine::Overtaken { lsn: number(&mut words)?, ranges: number(&mut words)? },
            "caught-up" => ServerLine::CaughtUp(number(&mut words)?),
            "met" => ServerLine::Met(ServerInfo::parse(rest)?),
            "refused" => ServerLine::Refused(rest),
            "continuing" => ServerLine::Continuing { run: word(words.next()?)?, lsn: number(&mut words)? },
            "walk" => ServerLine::Walk { run: word(words.next()?)?, lsn: number(&mut words)? },
            "twincache" => {
                let version = number(&mut words)?;
                ServerLine::Greeting { version, run: word(words.next()?)?, lsn: number(&mut words)? }
            }
            _ => return None,
        })
    }
}

impl fmt::Display for ServerLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ServerLine::Greeting { version, run, lsn } => write!(f, "twincache {version} {run} {lsn}"),
            ServerLine::Met(ServerInfo { items, uptime, descent, upstreams }) => {
                write!(f, "met {items} {uptime} {}{upstreams}", descent.name())
            }
            ServerLine::Continuing { run, lsn } => write!(f, "continuing {run} {lsn}"),
            ServerLine::Walk { run, lsn } => write!(f, "walk {run} {lsn}"),
            ServerLine::Refused(reason) => write!(f, "refused {reason}"),
            // As long as it always is: the body stands behind room that was left for it.
            ServerLine::Batch { lsn, bytes } => write!(f, "batch {lsn:020} {bytes:010}"),
            ServerLine::Walked(lsn) => write!(f, "walked {lsn}"),
            ServerLine::Overtaken { lsn, ranges } => write!(f, "overtaken {lsn} {ranges}"),
            ServerLine::CaughtUp(lsn) => write!(f, "caught-up {lsn}"),
            ServerLine::Alive { lsn, unix_ms } => write!(f, "alive {lsn} {unix_ms}"),
        }
    }
}

/// Bytes of the line before a body, with its end.
pub const BATCH_LINE: usize = 6 + 20 + 1 + 10 + 2;

impl<'a> ServerInfo<'a> {
    fn parse(text: &'a str) -> Option<ServerInfo<'a>> {
        let mut words = text.splitn(3, ' ');
        let (items, uptime) = (number(&mut words)?, number(&mut words)?);
        let rest = words.next()?;
        let (name, upstreams) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
        let descent = Descent::ALL.into_iter().find(|descent| descent.name() == name)?;
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
    /// The value of a line without its end.
    pub fn parse(line: &'a [u8]) -> Result<ClientLine<'a>, ClientError> {
        let line = std::str::from_utf8(line).map_err(|_| ClientError::Unknown)?;
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let verb = words.next().unwrap_or_default();
        // One more than any command takes: it makes them too many.
        let mut args = [""; 6];
        let count = args.iter_mut().zip(&mut words).map(|(arg, word)| *arg = word).count();
        let lsn = || strict_u64(args[0].as_bytes()).ok_or(ClientError::Usage("usage: ack <lsn> or refuse <lsn>"));
        match (verb, count) {
            ("ack", 1) => lsn().map(ClientLine::Ack),
            ("refuse", 1) => lsn().map(ClientLine::Refuse),
            ("meet", 2) => match (word(args[0]), word(args[1])) {
                (Some(name), Some(identity)) => Ok(ClientLine::Meet { name, identity }),
                _ => Err(ClientError::Usage(MEET_USAGE)),
            },
            ("attach", _) => AttachLine::parse(&args[..count]).map(ClientLine::Attach),
            ("replicas_ack", 1) => {
                strict_u32(args[0].as_bytes()).map(ClientLine::ReplicasAck).ok_or(ClientError::ReplicasAck)
            }
            ("status", 0) => Ok(ClientLine::Status),
            _ => Err(ClientError::Unknown),
        }
    }
}

impl fmt::Display for ClientLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ClientLine::Meet { name, identity } => write!(f, "meet {name} {identity}"),
            ClientLine::Attach(AttachLine { name, identity, run, lsn, with_cas }) => {
                write!(f, "attach {name} {identity} {} ", run.unwrap_or("-"))?;
                match lsn {
                    Some(lsn) => write!(f, "{lsn}")?,
                    None => f.write_str("-")?,
                }
                f.write_str(if with_cas { " cas" } else { " nocas" })
            }
            ClientLine::Ack(lsn) => write!(f, "ack {lsn}"),
            ClientLine::Refuse(lsn) => write!(f, "refuse {lsn}"),
            ClientLine::ReplicasAck(n) => write!(f, "replicas_ack {n}"),
            ClientLine::Status => f.write_str("status"),
        }
    }
}

impl<'a> AttachLine<'a> {
    fn parse(args: &[&'a str]) -> Result<AttachLine<'a>, ClientError> {
        AttachLine::read(args).ok_or(ClientError::Usage(ATTACH_USAGE))
    }

    fn read(args: &[&'a str]) -> Option<AttachLine<'a>> {
        let [name, identity, run, lsn, cas] = *<&[&str; 5]>::try_from(args).ok()?;
        let with_cas = match cas {
            "cas" => true,
            "nocas" => false,
            _ => return None,
        };
        let run = if run == "-" { None } else { Some(word(run)?) };
        let lsn = if lsn == "-" { None } else { Some(strict_u64(lsn.as_bytes())?) };
        Some(AttachLine { name: word(name)?, identity: word(identity)?, run, lsn, with_cas })
    }
}

/// What a peer that is a twincached answers to `replica who` and `replica from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduction<'a> {
    /// Its run.
    pub run: &'a str,
    /// Its clock, in Unix milliseconds.
    pub unix_ms: i64,
}

impl<'a> Introduction<'a> {
    /// The value of a line without its end.
    pub fn parse(text: &'a str) -> Option<Introduction<'a>> {
        let (run, unix_ms) = text.strip_prefix("OK ")?.split_once(' ')?;
        Some(Introduction { run: word(run)?, unix_ms: unix_ms.parse().ok()? })
    }
}

impl fmt::Display for Introduction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OK {} {}", self.run, self.unix_ms)
    }
}

/// A run id as it stands in lines.
pub fn run_word(run_id: u64) -> String {
    format!("{run_id:016x}")
}

/// The run id of a word.
pub fn parse_run(word: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

/// Whether this can stand as one word: printable, without blanks, not too long.
pub fn is_word(text: &str) -> bool {
    (1..=WORD_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn word(text: &str) -> Option<&str> {
    Some(text).filter(|text| is_word(text))
}

fn number<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    strict_u64(words.next()?.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_lines() {
        let info = |items, descent, upstreams| ServerLine::Met(ServerInfo { items, uptime: 3, descent, upstreams });
        let table = [
            ("twincache 1 00ab 7", ServerLine::Greeting { version: 1, run: "00ab", lsn: 7 }),
            ("met 12 3 again", info(12, Descent::Again, "")),
            ("met 0 3 back", info(0, Descent::Back, "")),
            ("met 0 3 first ab cd", info(0, Descent::First, " ab cd")),
            ("continuing 00ab 12", ServerLine::Continuing { run: "00ab", lsn: 12 }),
            ("walk 00ab 13", ServerLine::Walk { run: "00ab", lsn: 13 }),
            ("refused it is the server itself", ServerLine::Refused("it is the server itself")),
            ("batch 00000000000000000009 0000262144", ServerLine::Batch { lsn: 9, bytes: 262_144 }),
            ("walked 9", ServerLine::Walked(9)),
            ("overtaken 10 3", ServerLine::Overtaken { lsn: 10, ranges: 3 }),
            ("caught-up 11", ServerLine::CaughtUp(11)),
            ("alive 11 1700000000000", ServerLine::Alive { lsn: 11, unix_ms: 1_700_000_000_000 }),
        ];
        for (text, line) in table {
            assert_eq!(ServerLine::parse(text.as_bytes()), Some(line), "{text}");
            assert_eq!(line.to_string(), text);
        }
        assert_eq!(ServerLine::Batch { lsn: u64::MAX, bytes: 0 }.to_string().len() + 2, BATCH_LINE);
    }

    #[test]
    fn client_lines() {
        let attach =
            |run, lsn, with_cas| ClientLine::Attach(AttachLine { name: "a:1", identity: "00cd", run, lsn, with_cas });
        let table = [
            ("meet a:1 00cd", ClientLine::Meet { name: "a:1", identity: "00cd" }),
            ("attach a:1 00cd - - nocas", attach(None, None, false)),
            ("attach a:1 00cd 00ab 7 cas", attach(Some("00ab"), Some(7), true)),
            ("ack 7", ClientLine::Ack(7)),
            ("refuse 18446744073709551615", ClientLine::Refuse(u64::MAX)),
            ("replicas_ack 2", ClientLine::ReplicasAck(2)),
            ("status", ClientLine::Status),
        ];
        for (text, line) in table {
            assert_eq!(ClientLine::parse(text.as_bytes()), Ok(line), "{text}");
            assert_eq!(line.to_string(), text);
        }
        let introduction = Introduction { run: "00ab", unix_ms: -5 };
        assert_eq!(Introduction::parse(&introduction.to_string()), Some(introduction));
    }

    #[test]
    fn nonsense_is_refused() {
        let table =
            ["", "ERROR", "batch", "batch 1", "batch x 1", "walk 5", "twincache 1", "twincache x y", "alive -1"];
        for line in [&table[..], &["met 1 2", "met 1 2 x", "batch +1 1"]].concat() {
            assert_eq!(ServerLine::parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(ServerLine::parse(b"batch \xff 1"), None);
        for line in ["", "acknowledge 1", "ack 1 2", "status now", "meet a", "replicas_ack 1 2 3 4 5 6 7"] {
            assert_eq!(ClientLine::parse(line.as_bytes()), Err(ClientError::Unknown), "{line}");
        }
        let table = ["ack x", "attach", "attach a b - - maybe", "attach a b - - cas more", "attach a b x\ty - cas"];
        for line in table {
            assert!(matches!(ClientLine::parse(line.as_bytes()), Err(ClientError::Usage(_))), "{line}");
        }
        assert!(is_word("localhost:11211") && !is_word("") && !is_word("a b") && !is_word(&"x".repeat(129)));
    }

    /// Whatever one side may hear: no line of random words makes a parser panic, and what is understood stays itself.
    #[test]
    fn what_is_understood_is_written_as_it_was_meant() {
        let words =
            ["batch", "met", "attach", "ack", "-", "7", "00ab", "first", "cas", "", "é", "99999999999999999999"];
        let mut random = 7_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..7 {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                text += words[(random >> 33) as usize % words.len()];
                text.push(' ');
            }
            for text in [text.as_str(), text.trim_end()] {
                if let Some(line) = ServerLine::parse(text.as_bytes()) {
                    assert_eq!(ServerLine::parse(line.to_string().as_bytes()), Some(line), "{text}");
                }
                if let Ok(line) = ClientLine::parse(text.as_bytes()) {
                    assert_eq!(ClientLine::parse(line.to_string().as_bytes()), Ok(line), "{text}");
                }
            }
        }
    }
}
