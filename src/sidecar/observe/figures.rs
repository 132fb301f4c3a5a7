//! The numbers behind `/health` and `/metrics`, which each peer's thread publishes.

use std::time::Duration;

/// What is going on with a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PeerPhase {
    /// Nothing is open; the next attempt comes soon.
    #[default]
    Waiting,
    /// The server or the peer said no. They are asked again every few seconds.
    Refused,
    /// The old connection is ending; a new one begins only after that.
    Draining,
    /// Connecting, and asking both sides who they are and what they hold.
    Connecting,
    /// There is a stream, in this stage.
    Attached(Stage),
}

/// What was sent up to some place is …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// … part of a full sync.
    #[default]
    Syncing,
    /// … everything.
    Clean,
    /// … with gaps: the journal went past the peer, and what changed is being sent again.
    Lagged,
}

impl PeerPhase {
    /// All of them, for a metric that has one line each.
    pub(crate) const ALL: [PeerPhase; 7] = [
        PeerPhase::Waiting,
        PeerPhase::Refused,
        PeerPhase::Draining,
        PeerPhase::Connecting,
        PeerPhase::Attached(Stage::Syncing),
        PeerPhase::Attached(Stage::Clean),
        PeerPhase::Attached(Stage::Lagged),
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            PeerPhase::Waiting => "waiting",
            PeerPhase::Refused => "refused",
            PeerPhase::Draining => "draining",
            PeerPhase::Connecting => "connecting",
            PeerPhase::Attached(Stage::Syncing) => "walking",
            PeerPhase::Attached(Stage::Clean) => "streaming",
            PeerPhase::Attached(Stage::Lagged) => "overtaken",
        }
    }

    /// Whether the peer has everything, up to the lag.
    pub(crate) fn is_streaming(self) -> bool {
        self == PeerPhase::Attached(Stage::Clean)
    }
}

/// A peer by name.
pub(crate) type NamedFigures = (String, Figures);

/// The figures of one peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Where it is.
    pub phase: PeerPhase,
    /// For how long the server has said nothing, when that means that it hangs.
    pub server_silent: Option<Duration>,
    /// Why the peer is not streaming; empty when nothing went wrong since it last was.
    pub trouble: String,
    /// How long ago that was said last.
    pub trouble_ago: Duration,
    /// `twincached`, `memcached <version>`, or empty while it is not known.
    pub kind: String,
    /// The run of the peer that is connected, or was last; empty while it is not known.
    pub identity: String,
    /// The server's last known lsn. This, `confirmed` and `bytes_in_flight` are up to date only while there is a
    /// stream.
    pub head: u64,
    /// The last lsn that the peer confirmed.
    pub confirmed: u64,
    /// For how long the peer has not had everything, or has not answered; None when it never had everything.
    pub lag: Option<Duration>,
    /// Bytes of bodies that were read from the server and not confirmed by the peer.
    pub bytes_in_flight: u64,
    /// Streams begun, by a full sync or by going on.
    pub attached: u64,
    /// Of these, those that went on without a full sync.
    pub continued: u64,
    /// Full syncs begun and finished.
    pub walks_started: u64,
    /// See `walks_started`.
    pub walks_finished: u64,
    /// The full sync that goes on, or the last that ended.
    pub sync: SyncFigures,
    /// Times that the journal went past this peer.
    pub overtaken: u64,
    /// Batches read.
    pub batches: u64,
    /// Bytes of bodies read.
    pub body_bytes: u64,
    /// Bytes written to the peer.
    pub sent_bytes: u64,
    /// Barriers that the peer answered.
    pub barriers: u64,
    /// Changes that the peer answered with an error.
    pub errors: u64,
    /// The last of these errors, and how long ago it was.
    pub error: String,
    /// See `error`.
    pub error_ago: Option<Duration>,
    /// Ranges of keys of which the peer has refused something and lacks it still; None: not told since the last error.
    pub lacking: Option<u64>,
    /// Times that a connection broke.
    pub breaks: u64,
    /// Whether the peer is left alone, because it holds items that would be lost.
    pub is_guarded: bool,
    /// Whether the server does not feed the peer because the peer feeds the server.
    pub is_upstream: bool,
    /// Times that the server or the peer refused.
    pub refusals: u64,
    /// Bounds of the offset of the peer's wall clock from this machine's.
    pub clock: Option<ClockBounds>,
    /// Whether the peer's wall clock is off by more than is allowed.
    pub clock_is_off: bool,
    /// The same of the server's wall clock, as the server takes it.
    pub server_clock: Option<ClockBounds>,
    /// See `server_clock`.
    pub server_clock_is_off: bool,
    /// Times that the clock by which the peer takes expiries has jumped.
    pub clock_jumps: u64,
}

impl Figures {
    /// Whether a full sync goes on.
    pub(crate) fn is_syncing(&self) -> bool {
        self.phase == PeerPhase::Attached(Stage::Syncing)
    }
}

/// How far a full sync has come, or how much it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncFigures {
    /// Items that were sent.
    pub items: u64,
    /// Items that there were to send when it began.
    pub expected: u64,
    /// Bytes that were sent, of items and of changes.
    pub bytes: u64,
    /// For how long it has gone on, or how long it took.
    pub took: Duration,
}

impl SyncFigures {
    /// Which part was sent, of a hundred.
    pub(crate) fn percent(&self) -> u64 {
        self.items.saturating_mul(100).checked_div(self.expected).map_or(100, |percent| percent.min(100))
    }

    /// How much longer it takes, if it goes on like this. None: nobody can say.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = self.expected.saturating_sub(self.items) as f64;
        (self.items > 0).then(|| self.took.mul_f64(left / self.items as f64))
    }
}

/// Bounds of the offset, in milliseconds: positive when the peer is ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockBounds {
    /// At least this.
    pub low: i64,
    /// At most this.
    pub high: i64,
}

impl Default for ClockBounds {
    /// Nothing is known of the clock.
    fn default() -> ClockBounds {
        ClockBounds { low: i64::MIN, high: i64::MAX }
    }
}

impl ClockBounds {
    /// From one to the other.
    pub(crate) fn width(self) -> i64 {
        self.high.saturating_sub(self.low)
    }

    /// The middle.
    pub(crate) fn middle(self) -> i64 {
        self.low + (self.high - self.low) / 2
    }
}
