//! The lines of the server's control socket, as values.
//!
//! ```text
//!   twincache 1 <run id> <lsn>       on accept
//!   met <items> <uptime> <again> …   answer to `meet`; or refused
//!   continuing | walk | refused      answers to `attach`; walk also in mid-stream
//!   batch <last lsn> <bytes>         and that many bytes of body, which are not looked at here
//!   walked  overtaken  caught-up  alive
//! ```
//!
//! Not here: the bodies, and what the lines mean for the peer (`pump`).

/// Longest line of the control socket: a refusal with its reason is the longest that there is.
pub const LINE_MAX: usize = 1024;

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is a control socket of this version of the protocol.
    Greeting {
        /// The version.
        version: u64,
        /// The server's run.
        run: String,
    },
    /// What there is to copy.
    Met(Met),
    /// The stream goes on after this lsn.
    Continuing(u64),
    /// A full walk begins.
    Walk(u64),
    /// The server will not have this consumer.
    Refused(String),
    /// A batch follows whose last lsn this is.
    Batch {
        /// The last lsn.
        lsn: u64,
        /// Bytes of body that follow the line.
        bytes: u64,
    },
    /// The body of the last batch has passed.
    BodyEnd,
    /// Everything of the walk was sent.
    Walked(u64),
    /// Records were lost; this many ranges are walked again.
    Overtaken {
        /// Where the stream stood.
        lsn: u64,
        /// Ranges to walk again.
        ranges: u64,
    },
    /// What was lost has been walked again.
    CaughtUp(u64),
    /// The server's last lsn.
    Alive(u64),
}

/// What the server says of itself to a peer that is about to be fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Items that it holds.
    pub items: u64,
    /// Seconds since it started.
    pub uptime: u64,
    /// It has fed this very peer before.
    pub again: bool,
    /// This very peer was the last to feed it.
    pub back: bool,
    /// Run ids of the servers whose changes it gets, the nearest first, each after a blank.
    pub upstreams: String,
}

/// The value of a line without its line end; None when it makes no sense.
pub fn parse(line: &[u8]) -> Option<Said> {
    let line = std::str::from_utf8(line).ok()?;
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = rest.split(' ');
    let mut number = || words.next()?.parse::<u64>().ok();
    Some(match verb {
        "batch" => Said::Batch { lsn: number()?, bytes: number()? },
        "alive" => Said::Alive(number()?),
        "walked" => Said::Walked(number()?),
        "overtaken" => Said::Overtaken { lsn: number()?, ranges: number()? },
        "caught-up" => Said::CaughtUp(number()?),
        "met" => {
            let (items, uptime) = (number()?, number()?);
            let (again, back) = match words.next()? {
                "first" => (false, false),
                "again" => (true, false),
                "back" => (false, true),
                _ => return None,
            };
            let upstreams = words.map(|run| format!(" {run}")).collect();
            Said::Met(Met { items, uptime, again, back, upstreams })
        }
        "refused" => Said::Refused(rest.to_owned()),
        "continuing" => Said::Continuing(after_run(rest)?),
        "walk" => Said::Walk(after_run(rest)?),
        "twincache" => {
            let version = number()?;
            Said::Greeting { version, run: words.next().filter(|run| is_word(run))?.to_owned() }
        }
        _ => return None,
    })
}

/// The number of `<run id> <lsn>`.
fn after_run(text: &str) -> Option<u64> {
    text.split_once(' ')?.1.parse().ok()
}

/// Whether this can stand as one word on the control socket: printable, without blanks, not too long.
pub fn is_word(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_values() {
        let table: &[(&str, Said)] = &[
            ("twincache 1 00ab 7", Said::Greeting { version: 1, run: "00ab".into() }),
            ("met 12 3 again", Said::Met(Met { items: 12, uptime: 3, again: true, back: false, upstreams: "".into() })),
            ("met 0 3 back", Said::Met(Met { items: 0, uptime: 3, again: false, back: true, upstreams: "".into() })),
            (
                "met 0 3 first ab cd",
                Said::Met(Met { items: 0, uptime: 3, again: false, back: false, upstreams: " ab cd".into() }),
            ),
            ("continuing 00ab 12", Said::Continuing(12)),
            ("walk 00ab 13", Said::Walk(13)),
            ("refused it is the server itself", Said::Refused("it is the server itself".into())),
            ("batch 9 262144", Said::Batch { lsn: 9, bytes: 262_144 }),
            ("walked 9", Said::Walked(9)),
            ("overtaken 10 3", Said::Overtaken { lsn: 10, ranges: 3 }),
            ("caught-up 11", Said::CaughtUp(11)),
            ("alive 11 1700000000000", Said::Alive(11)),
        ];
        for (line, said) in table {
            assert_eq!(parse(line.as_bytes()).as_ref(), Some(said), "{line}");
        }
    }

    #[test]
    fn nonsense_is_none() {
        let table =
            ["", "ERROR", "batch", "batch 1", "batch x 1", "walk 5", "twincache 1", "twincache x y", "alive -1"];
        for line in [&table[..], &["met 1 2", "met 1 2 x"]].concat() {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
        assert_eq!(parse(b"batch \xff 1"), None);
        assert!(is_word("localhost:11211") && !is_word("") && !is_word("a b") && !is_word(&"x".repeat(129)));
    }
}
