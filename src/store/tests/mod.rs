//! Tests of the store.

pub(crate) mod copy;
pub(crate) mod model;
mod sizing;
pub(crate) mod stand;

use super::*;
