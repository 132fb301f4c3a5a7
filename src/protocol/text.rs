//! Classic text commands.

use super::token::Tokens;

/// A command without a data block.
#[derive(Debug)]
pub enum Command<'a> {
    /// Everything administrative, its sub-arguments unparsed: `command::admin` reads them.
    Admin {
        /// Which command.
        verb: Admin,
        /// The whole line, the command word first.
        tokens: Tokens<'a>,
        /// The last token is `noreply`, and this command honours it.
        noreply: bool,
    },
}

/// Administrative commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    Stats,
    FlushAll,
    Version,
    Verbosity,
    Shutdown,
    CacheMemlimit,
    Slabs,
    Lru,
    LruCrawler,
    Watch,
    RefreshCerts,
    Extstore,
    Misbehave,
    Debugtime,
    Debugitem,
}

/// set, add, replace, append, prepend, cas.
#[derive(Debug)]
pub struct Store<'a> {
    pub key: &'a [u8],
}
