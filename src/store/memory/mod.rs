//! Memory of the store: address ranges, pages, chunks and what lies in them.
//!
//! ```text
//! slab ──> pool, classes ──> sizing ──> layout          fields ──> arena ──> layout, prefetcher, work
//! ```

pub(super) mod arena;
pub(super) mod classes;
mod fields;
pub(super) mod layout;
pub(super) mod pool;
pub(super) mod prefetcher;
pub(super) mod sizing;
pub(super) mod slab;
pub(super) mod work;
