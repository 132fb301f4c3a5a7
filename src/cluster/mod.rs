//! What a shard's nodes agree on, and the way to it: etcd's JSON gateway.
//!
//! ```text
//!   sidecar, twincachectl
//!      | options   --etcd, --etcd-user, --etcd-ca, …, --cluster
//!      | keys      /twincache/<cluster>/shards/<shard>, …
//!      | record    the values there, as JSON
//!      v
//!     etcd         get, list, put, delete, swap: one request, one answer
//!     watch        a stream of changes
//!      |
//!   transport      endpoints, deadlines, the token ── tls, names
//!      |           wire: what is sent and what may come back
//!      v
//!     HTTP/1.1 (ureq, rustls) ──> etcd 3.4 or later
//! ```
//!
//! Invariants: every call ends at its deadline; what etcd sends is bounded and checked before it is believed; a write
//! is sent once, and whoever asked for it learns whether it may have been applied ([`EtcdError`]).
//!
//! Not here: who decides what is written, which are the sidecar's lease and twincachectl.

mod error;
mod etcd;
pub mod keys;
mod names;
pub mod options;
pub mod record;
mod tls;
mod transport;
mod watch;
mod wire;

pub use error::EtcdError;
pub use etcd::{Also, Etcd, Listing, Snapshot, Swap, Versioned};
pub use watch::{WatchEnd, WatchEvent};
