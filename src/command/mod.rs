//! What a verb means: the only place that knows both `protocol` and `store`.
//!
//! ```text
//! net ── Batch::cut(input) … prefetch ── Prepared::run(context, output) ──> Next     whole requests (batch.rs)
//!     ── begin(header, len, context) ──────────────────────────> Upload | Bad       a large value is on its way
//!             … net reads the value straight into the upload …
//!     ── finish(header, upload, context, output)
//! ```
//!
//! Each call locks one shard at a time and leaves none locked. Replies go to [`Output`]; what the connection
//! must do besides is the returned [`Next`]; whether something was changed shows in [`Context::last_lsn`].

pub mod admin;
mod arith;
mod auth;
pub mod barred;
pub mod batch;
mod context;
mod delete;
mod discovery;
mod dump;
mod join;
mod lookup;
pub mod output;
mod read;
mod refresh;
mod reply;
mod run;
mod upload;
mod users;
mod write;

#[cfg(test)]
mod tests;

use context::JOINED_MIN;
pub use context::{Context, JOINED_AT_ONCE, Next, Shared};
pub use discovery::Discovery;
pub use dump::{Filled, LongAnswer};
pub use join::{JoinStep, LongJoin};
pub use output::Output;
pub use upload::{begin, finish, must_wait, out_of_memory, sample_upload};
pub use users::Users;
