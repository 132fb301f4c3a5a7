//! What a pump is doing, and what it wants done.
//!
//! Not here: what leads from one state to the next (`pump`).

use crate::sidecar::observe::figures::Stage;
use std::time::Duration;

/// What the owner of the sockets has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Connect to the control socket, then call `server_opened` or `server_gone` of the pump.
    OpenServer,
    /// Connect to the peer, then call `peer_opened` or `peer_gone`.
    OpenPeer,
    /// Close the control socket.
    CloseServer,
    /// Close the peer's connection for writing; go on reading.
    ShutPeer,
    /// Close the peer's connection.
    ClosePeer,
}

/// Where a pump is; the head of `pump` has the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PumpState {
    /// The pause before the next attempt; it is longer after a refusal.
    Waiting {
        until: Duration,
        is_refused: bool,
    },
    Greeting,
    /// The peer is asked who it is.
    Identifying,
    Settling {
        until: Duration,
    },
    /// Both sides are asked what they hold.
    Checking,
    Announcing,
    Attaching,
    Attached(StreamState),
    Draining {
        until: Duration,
        is_refused: bool,
    },
}

/// A stream that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamState {
    /// The stage at the end of what was passed on.
    pub stage: Stage,
    /// The stage at the end of what was confirmed, which is what is shown.
    pub shown: Stage,
    /// The last change of the batch whose body is being passed on.
    pub batch_lsn: u64,
}

impl StreamState {
    /// One that begins in this stage, after this change.
    pub(super) fn new(stage: Stage, lsn: u64) -> StreamState {
        StreamState { stage, shown: stage, batch_lsn: lsn }
    }
}
