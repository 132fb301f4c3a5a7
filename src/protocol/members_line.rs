//! The line that names the replicas for which replies to changes wait.
//!
//! ```text
//! client   members <least> [<name> ...]   wait for all of these, and refuse changes while there are fewer than `least`
//! server   members <lsn>                  so it is for every change after this one
//! ```
//!
//! Invariant: what is written and parsed again is the same value. Not here: how replies wait (`journal`).

use super::token::{strict_u32, word};
use std::fmt;

/// The most names: as many consumers as there may be.
pub const NAMES_MAX: usize = 8;

/// How `members` is to be said.
pub const MEMBERS_USAGE: &str = "usage: members <least> [<name> ...], with 8 names at most";

/// What a client says of the replicas that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MembersLine<'a> {
    /// How many there must be; 0: no reply waits.
    pub least: u32,
    names: [&'a str; NAMES_MAX],
    count: usize,
}

impl<'a> MembersLine<'a> {
    /// A line with these names; None if there are too many.
    pub fn new(least: u32, given: &[&'a str]) -> Option<MembersLine<'a>> {
        let mut names = [""; NAMES_MAX];
        names.get_mut(..given.len())?.copy_from_slice(given);
        Some(MembersLine { least, names, count: given.len() })
    }

    /// The value of the words after `members`.
    pub fn parse(arguments: &[&'a [u8]]) -> Option<MembersLine<'a>> {
        let (least, names) = arguments.split_first()?;
        let names = names.iter().map(|name| word(name)).collect::<Option<Vec<_>>>()?;
        MembersLine::new(strict_u32(least)?, &names)
    }

    /// The names.
    pub fn names(&self) -> &[&'a str] {
        &self.names[..self.count]
    }
}

impl fmt::Display for MembersLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "members {}", self.least)?;
        self.names().iter().try_for_each(|name| write!(f, " {name}"))
    }
}
