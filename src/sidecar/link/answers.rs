//! The peer's answers: cut into lines, and each assigned to the command that it answers.
//!
//! ```text
//!   sent       body… mn  replica from  body… mn        (our own commands stand right after a barrier)
//!   expected         Barrier  Line           Barrier
//!   answered   HD, SERVER_ERROR … MN  OK  CLIENT_ERROR … MN
//! ```
//!
//! Quiet commands are answered only if something went wrong. So a line that comes while a barrier is expected, and is
//! not its `MN`, belongs to the bodies before it. If the barrier after a body is not sent yet, a line of that body
//! comes while nothing is expected.

use std::collections::VecDeque;

/// The rest of a line that is longer than this is dropped.
const LINE_MAX: usize = 2048;

/// What is expected of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect<M> {
    /// `MN`, which confirms everything before.
    Barrier(M),
    /// One line.
    Line(Query),
    /// `STAT` lines and `END`.
    Stats,
}

/// When something was asked, in milliseconds, by two clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AskedAt {
    pub unix_ms: i64,
    /// Since the machine booted.
    pub boot_ms: i64,
}

/// A question of ours that is answered by one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Query {
    /// `mn`, the first command of a connection.
    Hello,
    /// `replica who`, sent then.
    Who(AskedAt),
    /// `replica from`, sent then.
    ReplicaFrom(AskedAt),
    /// `replica key`: this feeder is known.
    Key,
    /// `version`.
    Version,
    /// An `ms` that stores nothing, to see whether its form is understood.
    Probe,
    /// The same, to see whether it takes a cas.
    TakesCas,
    /// An `ms` of an item with a low cas.
    CasStored,
    /// The `md` of that item.
    CasKept,
    /// Of something whose answer does not matter.
    Any,
    /// `replica begin` or `flush_all`.
    Begin,
    /// What is said of a full sync besides.
    Progress,
    /// `replica end`.
    End,
}

/// What a line of the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer<'a, M> {
    /// The peer has done everything before this barrier.
    Confirmed(M),
    /// The answer to a question.
    Line(Query, &'a [u8]),
    /// A statistic: name and value.
    Stat(&'a [u8], &'a [u8]),
    /// The end of the statistics; false when they were refused.
    StatsEnd(bool),
    /// The peer has refused a change, for this reason.
    Error(&'a [u8]),
    /// Nothing of interest, as the answer to a touch.
    Nothing,
}

/// Cuts what the peer sends into lines, and knows which answers are expected.
#[derive(Debug)]
pub(super) struct Answers<M> {
    /// Each with the number of bytes that go to the peer up to the end of the command.
    expected: VecDeque<(Expect<M>, u64)>,
    /// The start of a line that has not ended.
    partial: Vec<u8>,
}

impl<M> Default for Answers<M> {
    fn default() -> Answers<M> {
        Answers { expected: VecDeque::new(), partial: Vec::new() }
    }
}

impl<M: Copy> Answers<M> {
    /// Forgets everything: the connection is new.
    pub(super) fn clear(&mut self) {
        self.expected.clear();
        self.partial.clear();
    }

    /// A command was put on its way whose answer this is; with its end, so many bytes have gone to the peer.
    pub(super) fn expect(&mut self, what: Expect<M>, end: u64) {
        self.expected.push_back((what, end));
    }

    /// How many answers are missing.
    pub(super) fn count(&self) -> usize {
        self.expected.len()
    }

    /// Whether the peer could answer the next one when so many bytes have gone to it.
    pub(super) fn is_due(&self, sent: u64) -> bool {
        self.expected.front().is_some_and(|&(_, end)| end <= sent)
    }

    /// Whether any answer is missing.
    pub(super) fn is_owed(&self) -> bool {
        !self.expected.is_empty()
    }

    /// What is expected next.
    pub(super) fn next_expected(&self) -> Option<Expect<M>> {
        self.expected.front().map(|&(what, _)| what)
    }

    /// Takes the first line of `bytes`, or adds what there is of it to what came before. Returns the line with its
    /// length in `bytes`, or None when it has not ended.
    pub(super) fn line<'a>(&mut self, bytes: &'a [u8], joined: &'a mut Vec<u8>) -> Option<(&'a [u8], usize)> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            self.partial.extend_from_slice(&bytes[..bytes.len().min(LINE_MAX.saturating_sub(self.partial.len()))]);
            return None;
        };
        if self.partial.is_empty() {
            return Some((without_end(&bytes[..end]), end + 1));
        }
        joined.clear();
        joined.append(&mut self.partial);
        joined.extend_from_slice(&bytes[..end.min(LINE_MAX)]);
        Some((without_end(joined), end + 1))
    }

    /// What this line is.
    pub(super) fn take<'a>(&mut self, line: &'a [u8]) -> Answer<'a, M> {
        match self.next_expected() {
            Some(Expect::Barrier(mark)) if line == b"MN" => {
                self.expected.pop_front();
                Answer::Confirmed(mark)
            }
            Some(Expect::Line(ask)) => {
                self.expected.pop_front();
                Answer::Line(ask, line)
            }
            Some(Expect::Stats) => self.take_stat(line),
            _ => of_a_change(line),
        }
    }

    fn take_stat<'a>(&mut self, line: &'a [u8]) -> Answer<'a, M> {
        if let Some(stat) = line.strip_prefix(b"STAT ") {
            let blank = memchr::memchr(b' ', stat).unwrap_or(stat.len());
            return Answer::Stat(&stat[..blank], stat.get(blank + 1..).unwrap_or_default());
        }
        self.expected.pop_front();
        Answer::StatsEnd(line == b"END")
    }
}

/// What a line says of a change. Touches and sampled reads may hit or miss, since the peer has its own memory.
fn of_a_change<M>(line: &[u8]) -> Answer<'_, M> {
    match line.get(..2) {
        Some(b"HD" | b"EN" | b"NF") => Answer::Nothing,
        _ => Answer::Error(line),
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    const ANSWERS: &[u8] = b"HD\r\nSERVER_ERROR out of memory storing object\r\nMN\r\nOK abc 5\r\nNF\r\nMN\r\n\
        STAT pid 12\r\nSTAT version 1.6.18 x\r\nEND\r\nEN\r\nERROR\r\n";

    fn expecting() -> Answers<u64> {
        let mut answers = Answers::default();
        for what in [Expect::Barrier(1), Expect::Line(Query::End), Expect::Barrier(2), Expect::Stats] {
            answers.expect(what, 0);
        }
        answers
    }

    /// What was answered, with the pieces cut at random.
    fn cut(seed: u64) -> Vec<String> {
        let (mut answers, mut rng) = (expecting(), Rng(seed));
        let (mut rest, mut found, mut joined) = (ANSWERS, Vec::new(), Vec::new());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((1 + rng.below(40) as usize).min(rest.len()));
            rest = after;
            let mut at = 0;
            while let Some((line, len)) = answers.line(&piece[at..], &mut joined) {
                found.push(format!("{:?}", answers.take(line)));
                at += len;
            }
        }
        assert!(!answers.is_owed());
        found
    }

    #[test]
    fn each_line_is_given_to_what_it_answers() {
        let expected: Vec<String> = [
            Answer::Nothing,
            Answer::Error(b"SERVER_ERROR out of memory storing object"),
            Answer::Confirmed(1u64),
            Answer::Line(Query::End, b"OK abc 5"),
            Answer::Nothing,
            Answer::Confirmed(2),
            Answer::Stat(b"pid", b"12"),
            Answer::Stat(b"version", b"1.6.18 x"),
            Answer::StatsEnd(true),
            Answer::Nothing,
            Answer::Error(b"ERROR"),
        ]
        .iter()
        .map(|answer| format!("{answer:?}"))
        .collect();
        for seed in 0..200 {
            assert_eq!(cut(seed), expected, "seed {seed}");
        }
    }

    #[test]
    fn a_long_line_takes_no_memory() {
        let mut answers: Answers<u64> = Answers::default();
        let mut joined = Vec::new();
        for _ in 0..100 {
            assert!(answers.line(&[b'x'; 1000], &mut joined).is_none());
        }
        let (line, len) = answers.line(b"y\r\n", &mut joined).unwrap();
        assert_eq!((line.len(), len), (LINE_MAX + 1, 3));
    }
}
