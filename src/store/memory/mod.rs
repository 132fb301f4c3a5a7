//! Memory of the store: address ranges, pages, chunks and what lies in them.
//!
//! ```text
//! slab ──> pool, classes ──> sizing ──> layout          arena ──> layout
//! ```

pub(super) mod arena;
pub(super) mod classes;
pub(super) mod layout;
pub(super) mod pool;
pub(super) mod sizing;
pub(super) mod slab;
