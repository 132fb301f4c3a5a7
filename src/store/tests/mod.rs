//! Tests of the store.

pub(crate) mod copy;
pub(crate) mod model;
mod restart;
pub(crate) mod rig;
mod role;
mod sizing;

use super::*;
