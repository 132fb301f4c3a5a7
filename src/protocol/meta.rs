//! Meta commands.

/// mg ms md ma mn me.
#[derive(Debug)]
pub struct Command<'a> {
    pub key: &'a [u8],
}
