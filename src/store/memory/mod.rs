//! Memory for items: address ranges, and slab pages cut into chunks.

pub mod arena;
pub mod slab;
