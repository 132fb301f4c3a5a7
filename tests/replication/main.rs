//! Replication end to end: a primary, its sidecar and a peer, each a real process.
//!
//! ```text
//!   clients: every mutating command,        ┌─────────┐  control   ┌─────────┐   wire    ┌──────────────┐
//!   all protocols, at full speed ─────────> │ primary │ ─────────> │ sidecar │ ────────> │ peer         │
//!                                           └─────────┘  socket    └─────────┘  (cuts,   │ twincached,  │
//!                                                                             throttles) │ or memcached │
//!   then quiet: every key equal on both sides                                            └──────────────┘
//! ```
//!
//! While the clients write, one thing goes wrong, by the test: the sidecar is killed, the peer is killed and comes
//! back empty, connections are cut anywhere, the peer stands still, or the way to it is slow.
//!
//! `REPLICATION_SECONDS` is how long clients write (6), `REPLICATION_KEYS` over how many keys (60000),
//! `REPLICATION_SEED` replays their choices, `REPLICATION_KILLS` is how often the primary is killed in the test of
//! acknowledged writes (10).

mod acked;
mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod converge;
mod evict;
mod pair;
mod refusals;
mod standby;
mod storm;
mod trouble;
mod wire;
