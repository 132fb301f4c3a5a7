//! Administrative commands.

use super::{Context, Next, Output};
use crate::protocol::text::Admin;
use crate::protocol::token::Tokens;

/// Runs an administrative text command.
pub fn run(_verb: Admin, _tokens: &Tokens<'_>, _noreply: bool, _context: &mut Context<'_>, _out: &mut Output) -> Next {
    todo!()
}

/// A metadump or mgdump in progress.
#[derive(Debug)]
pub struct Dump {}

impl Dump {
    /// Appends a bounded piece of the dump; false when that was the last.
    pub fn fill(&mut self, _context: &mut Context<'_>, _out: &mut Output) -> bool {
        todo!()
    }
}
