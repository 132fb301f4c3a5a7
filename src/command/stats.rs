//! `stats` and its sub-commands, for text and binary.

use super::Context;

/// Hands every statistic of `stats <argument>` to `emit`; false when there is no such argument. `None` is plain
/// `stats`. For the arguments that both protocols know: none, `settings`, `items`, `slabs`, `sizes`, `reset`.
pub fn each(_argument: Option<&[u8]>, _context: &mut Context<'_>, _emit: &mut dyn FnMut(&str, &str)) -> bool {
    todo!()
}
