//! A line of text or meta: where it ends, and which of the two it is.
//!
//! ```text
//! m<letter> …\n              meta::parse_line
//! <anything else> …\n        text::parse_line
//! ```
//!
//! The line end is the first `\n`; one `\r` before it is dropped.

use super::request::{BAD_FORMAT, Parsed, bad};
use super::{meta, text, token};

/// A line shorter than this, its end included, is refused.
const LINE_MIN: usize = 4;

/// Parses the line at the start of `input`. The first `scanned` bytes hold no line feed.
pub fn parse(input: &[u8], scanned: usize) -> Parsed<'_> {
    let Some(found) = memchr::memchr(b'\n', &input[scanned..]) else {
        return Parsed::Partial { need: 0 };
    };
    let (line, consumed) = (token::without_end(&input[..scanned + found]), scanned + found + 1);
    match line {
        _ if consumed < LINE_MIN => bad(consumed, 0, BAD_FORMAT),
        [b'm', letter @ (b'g' | b's' | b'd' | b'a' | b'e' | b'n'), rest @ ..] if matches!(rest, [] | [b' ', ..]) => {
            meta::parse_line(*letter, rest, consumed)
        }
        _ => text::parse_line(line, consumed),
    }
}
