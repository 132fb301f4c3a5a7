//! A command line cut into tokens, and numbers as memcached reads them.

/// Tokens kept of a line; later ones are ignored.
pub const TOKENS_MAX: usize = 24;

/// The tokens of a line: slices between spaces.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    list: [&'a [u8]; TOKENS_MAX],
    len: usize,
}

impl<'a> Tokens<'a> {
    /// Cuts a line (without its end) at runs of spaces.
    pub fn new(line: &'a [u8]) -> Tokens<'a> {
        let mut tokens = Tokens { list: [b""; TOKENS_MAX], len: 0 };
        for word in line.split(|&b| b == b' ').filter(|w| !w.is_empty()).take(TOKENS_MAX - 1) {
            tokens.list[tokens.len] = word;
            tokens.len += 1;
        }
        tokens
    }

    /// All tokens, the command word first.
    pub fn as_slice(&self) -> &[&'a [u8]] {
        &self.list[..self.len]
    }
}
