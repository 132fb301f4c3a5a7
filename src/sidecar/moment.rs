//! What the parts of a link pass to each other: the time of a call, and why a connection cannot be used.

use std::time::Duration;

/// The time of a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// Since the start of the program.
    pub at: Duration,
    /// Milliseconds since 1970, by the wall clock.
    pub unix_ms: i64,
    /// Milliseconds since the machine booted.
    pub boot_ms: i64,
}

/// Why a connection cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It broke or could not be made: soon tried again.
    Broken(String),
    /// The server's socket is not there, or nobody serves it: soon tried again, and reported when it lasts.
    Absent(String),
    /// One side said no, or is not what it should be. It is tried again now and then.
    Refused(String),
    /// The guard said no. It looks again now and then.
    Guarded(String),
}

impl Trouble {
    /// What to say of it.
    pub(super) fn text(self) -> String {
        let (Trouble::Broken(text) | Trouble::Absent(text) | Trouble::Refused(text) | Trouble::Guarded(text)) = self;
        text
    }
}
