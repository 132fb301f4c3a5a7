//! The lines that tell a server its role, and its answer.
//!
//! ```text
//! client   role                                   what is it now?
//!          role waiting                           answer nobody
//!          role standby <epoch> <secret>          take the changes of who owns this epoch and knows the secret
//!          role candidate <epoch>                 a standby that is about to become the owner of this epoch
//!          role primary <epoch> <deadline>        answer clients until then, by milliseconds of CLOCK_BOOTTIME
//!          role primary <epoch> <deadline> empty  the same, and drop all that was held before this epoch first
//! server   role <name> <epoch> <lsn> <items>      what it is now, its last change, and how much it holds
//! ```
//!
//! Invariant: what is written and parsed again is the same value. Not here: what a role allows (`store::role`).

use super::token::{strict_u64, word};
use std::fmt;

/// How a role is to be told.
pub const ROLE_USAGE: &str =
    "usage: role [waiting|standby <epoch> <secret>|candidate <epoch>|primary <epoch> <deadline> [empty]]";

/// What a client says of the server's role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "told above")]
pub enum RoleLine<'a> {
    Ask,
    Waiting,
    Standby { epoch: u64, secret: &'a str },
    Candidate { epoch: u64 },
    Primary { epoch: u64, deadline_ms: u64, drops_all: bool },
}

/// The name of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the role of its name")]
pub enum RoleName {
    Standalone,
    Waiting,
    Standby,
    Candidate,
    Primary,
}

/// What the server says of its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleReport {
    /// Its role.
    pub name: RoleName,
    /// The epoch of that, 0 for none.
    pub epoch: u64,
    /// Its last change.
    pub lsn: u64,
    /// Items that it holds.
    pub items: u64,
}

impl<'a> RoleLine<'a> {
    /// The value of the words after `role`.
    pub fn parse(arguments: &[&'a [u8]]) -> Option<RoleLine<'a>> {
        Some(match arguments {
            [] => RoleLine::Ask,
            [b"waiting"] => RoleLine::Waiting,
            [b"standby", epoch, secret] => RoleLine::Standby { epoch: strict_u64(epoch)?, secret: word(secret)? },
            [b"candidate", epoch] => RoleLine::Candidate { epoch: strict_u64(epoch)? },
            [b"primary", epoch, deadline] => primary(epoch, deadline, false)?,
            [b"primary", epoch, deadline, b"empty"] => primary(epoch, deadline, true)?,
            _ => return None,
        })
    }
}

fn primary(epoch: &[u8], deadline: &[u8], drops_all: bool) -> Option<RoleLine<'static>> {
    Some(RoleLine::Primary { epoch: strict_u64(epoch)?, deadline_ms: strict_u64(deadline)?, drops_all })
}

impl fmt::Display for RoleLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleLine::Ask => f.write_str("role"),
            RoleLine::Waiting => f.write_str("role waiting"),
            RoleLine::Standby { epoch, secret } => write!(f, "role standby {epoch} {secret}"),
            RoleLine::Candidate { epoch } => write!(f, "role candidate {epoch}"),
            RoleLine::Primary { epoch, deadline_ms, drops_all } => {
                write!(f, "role primary {epoch} {deadline_ms}{}", if *drops_all { " empty" } else { "" })
            }
        }
    }
}

impl RoleName {
    /// All of them.
    pub const ALL: [RoleName; 5] =
        [RoleName::Standalone, RoleName::Waiting, RoleName::Standby, RoleName::Candidate, RoleName::Primary];

    /// As it stands in lines.
    pub fn name(self) -> &'static str {
        match self {
            RoleName::Standalone => "standalone",
            RoleName::Waiting => "waiting",
            RoleName::Standby => "standby",
            RoleName::Candidate => "candidate",
            RoleName::Primary => "primary",
        }
    }
}

impl RoleReport {
    /// The value of what follows `role `.
    pub fn parse(text: &str) -> Option<RoleReport> {
        let mut words = text.split(' ');
        let name = words.next()?;
        let name = RoleName::ALL.into_iter().find(|known| known.name() == name)?;
        let mut number = || strict_u64(words.next()?.as_bytes());
        Some(RoleReport { name, epoch: number()?, lsn: number()?, items: number()? })
    }
}

impl fmt::Display for RoleReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RoleReport { name, epoch, lsn, items } = self;
        write!(f, "role {} {epoch} {lsn} {items}", name.name())
    }
}
