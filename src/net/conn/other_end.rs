//! Who is at the other end of a connection, a client or who feeds this server, and what that allows.
//!
//! ```text
//!   Client  run, while the server is primary or not managed; answered, while it is so still
//!   Feeder  run and answered, until another one takes its place
//! ```
//!
//! Not here: who may become a feeder (`store::role`), when replies may be sent (`voice`).

use crate::net::voice::Voice;
use crate::store::ChangeSource;
use std::sync::Arc;

/// Seconds that a client has to log in, where it must; memcached gives it forever. Otherwise strangers could take all
/// connections (`-c`).
pub(crate) const LOGIN_TIME: u32 = 60;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) enum OtherEnd {
    /// Whoever has connected.
    #[default]
    Client,
    /// Another server's sidecar, which brings that server's changes.
    Feeder(Arc<ChangeSource>),
}

/// What becomes of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// They are run.
    Open,
    /// Those for data are refused.
    Barred,
    /// Those that change data wait.
    Held,
}

impl OtherEnd {
    /// As what its changes are made.
    #[inline]
    pub(crate) fn source(&self) -> Option<&Arc<ChangeSource>> {
        match self {
            OtherEnd::Client => None,
            OtherEnd::Feeder(source) => Some(source),
        }
    }

    /// Whether it is no client.
    #[inline]
    pub(crate) fn is_feeder(&self) -> bool {
        self.source().is_some()
    }

    /// What allows it to be answered; a feeder needs nothing.
    #[inline]
    pub(crate) fn needed_voice<'v>(&self, voice: Option<&'v Voice>) -> Option<&'v Voice> {
        voice.filter(|_| !self.is_feeder())
    }

    /// Whether its requests for data are refused.
    #[inline]
    pub(crate) fn is_barred(&self, voice: Option<&Voice>) -> bool {
        self.needed_voice(voice).is_some_and(|voice| voice.bars_clients())
    }

    /// What becomes of its requests.
    #[inline]
    pub(crate) fn gate(&self, voice: Option<&Voice>) -> Leave {
        match self.needed_voice(voice) {
            None => Leave::Open,
            Some(voice) if voice.bars_clients() => Leave::Barred,
            Some(voice) if voice.holds_changes() => Leave::Held,
            Some(_) => Leave::Open,
        }
    }

    /// Whether the role admits it no more, and some of its requests may not have been applied.
    #[inline]
    pub(crate) fn is_replaced(&self, voice: Option<&Voice>) -> bool {
        match self {
            OtherEnd::Client => voice.is_some_and(|voice| voice.is_stale()),
            OtherEnd::Feeder(source) => source.is_replaced(),
        }
    }
}
