//! Memory of the store: address ranges, pages, chunks and what lies in them.
//!
//! ```text
//! slab ──> pool, classes ──> sizing ──> layout          arena ──> layout
//! ```

pub mod arena;
pub mod classes;
pub mod layout;
pub mod pool;
pub mod sizing;
pub mod slab;
