//! Why a server does not take a role, a feeder, or a promise.
//!
//! Not here: when that is so (`role`).

use std::fmt;

/// The highest epoch: it stands in the upper bits of cas uniques, of which the highest stays 0.
pub const EPOCH_MAX: u64 = (1 << 15) - 1;

/// Why a server does not take a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleError {
    /// It was not started for this.
    Unmanaged,
    /// The order is of a lower epoch than this one, which is known.
    Old(u64),
    /// The epoch does not fit in a cas unique.
    TooHigh,
    /// Another server owns this epoch.
    Taken,
    /// It is primary, which cannot be a candidate.
    Primary,
    /// It has promised the owner of this epoch to wait.
    Promised(u64),
}

impl fmt::Display for RoleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RoleError::Unmanaged => f.write_str("this server takes no roles: start it with -o managed"),
            RoleError::Old(epoch) => write!(f, "the epoch has passed: this server knows of {epoch}"),
            RoleError::TooHigh => write!(f, "the epoch is above {EPOCH_MAX}"),
            RoleError::Taken => f.write_str("another server owns this epoch"),
            RoleError::Primary => f.write_str("a primary cannot be a candidate"),
            RoleError::Promised(epoch) => write!(f, "this server has promised the owner of epoch {epoch} to wait"),
        }
    }
}

/// Why a connection does not become a feeder's, or is promised nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyError {
    /// Nobody tells the server who may feed it.
    Unmanaged,
    /// It is no standby.
    NoStandby,
    /// The secret is another one.
    WrongSecret,
    /// The epoch is lower than this one, which is known.
    Old(u64),
    /// It does not fit in a cas unique.
    TooHigh,
    /// The server is about to become primary.
    Candidate,
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Unmanaged => f.write_str("this server takes no key: it was not started with -o managed"),
            KeyError::NoStandby => f.write_str("this server is no standby"),
            KeyError::WrongSecret => f.write_str("this is not the secret"),
            KeyError::Old(epoch) => RoleError::Old(*epoch).fmt(f),
            KeyError::TooHigh => RoleError::TooHigh.fmt(f),
            KeyError::Candidate => f.write_str("this server is about to become primary"),
        }
    }
}

/// Why a connection cannot be a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// It would bring this server's own changes.
    Itself,
    /// It would bring the changes of a server that this one feeds.
    Circle,
    /// Another connection has taken its place. This one must be closed without an answer.
    Replaced,
    /// This server is told what it is, and it is no standby.
    NoStandby,
    /// It has not shown the key of the present epoch.
    NoKey,
}
