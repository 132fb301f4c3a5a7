//! Meta commands: `mg ms md ma me mn`.
//!
//! ```text
//! mg <key> <flag>* \r\n
//! ms <key> <length> <flag>* \r\n <data> \r\n
//! <flag> = one letter and, for some, an argument; each letter at most once; order matters for replies
//! ```
//!
//! Every letter is accepted by every command and ignored where it has no meaning. Arguments are checked here,
//! so that a command can rely on them. `me` alone looks at no flag but a first `b`.
//!
//! A line without faults is gone through once ([`MetaCommand::take_flags`]). Where there is a fault, the line is gone
//! through again as memcached does it, to find the error that it would report ([`fault`]).

use super::base64;
use super::request::{BAD_FORMAT, Cut, Mode, Parsed, Request, StoreHeader, bad};
pub use super::request::{KeyBuffer, LetterSet, MetaCommand, Numbers, Verb};
use super::token;
use super::token::{KEY_MAX, data_length};

/// Most tokens of a line, command and key included.
const TOKENS_MAX: usize = 20;

/// Most flags of a line: all tokens but the command and the key.
const FLAGS_MAX: usize = TOKENS_MAX - 2;

/// Longest opaque token, its `O` included.
const OPAQUE_MAX: usize = 32;

/// Letters with a meaning somewhere, reserved ones included.
const LETTERS: LetterSet = LetterSet::of(b"bNTRlOPLkstcfvhuqxFCEMJDI");

const INVALID_FLAG: &[u8] = b"CLIENT_ERROR invalid flag\r\n";
const DUPLICATE_FLAG: &[u8] = b"CLIENT_ERROR duplicate flag\r\n";
const TOO_MANY_FLAGS: &[u8] = b"CLIENT_ERROR options flags are too long\r\n";
const BAD_TOKEN: &[u8] = b"CLIENT_ERROR bad token in command line format\r\n";
const BAD_KEY: &[u8] = b"CLIENT_ERROR error decoding key\r\n";
const OPAQUE_TOO_LONG: &[u8] = b"CLIENT_ERROR opaque token too long\r\n";
const BAD_INITIAL: &[u8] = b"CLIENT_ERROR invalid numeric initial value\r\n";
const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta value\r\n";
const MA_BAD_FLAG: &[u8] = b"CLIENT_ERROR invalid or duplicate flag\r\n";
const MS_BAD_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ms M token\r\n";
const MA_BAD_MODE: &[u8] = b"CLIENT_ERROR invalid mode for ma M token\r\n";

/// Parses what follows the command word `m<letter>`.
#[inline]
pub(super) fn parse_line(letter: u8, rest: &[u8], consumed: usize) -> Parsed<'_> {
    let verb = match letter {
        b'g' => Verb::Get,
        b's' => Verb::Set,
        b'd' => Verb::Delete,
        b'a' => Verb::Arith,
        b'e' => Verb::Debug,
        _ => return Parsed::Request(Cut::new(Request::Meta(MetaCommand::new(Verb::Noop, b"", b"")), consumed)),
    };
    let mut words = token::words(rest);
    let Some(wire_key) = words.next() else { return bad(consumed, 0, BAD_FORMAT) };
    let (mut body, mut most) = (None, FLAGS_MAX);
    if verb == Verb::Set {
        let Some(len) = words.next().and_then(data_length) else { return bad(consumed, 0, BAD_FORMAT) };
        (body, most) = (Some(len), FLAGS_MAX - 1);
    }
    let mut command = MetaCommand::new(verb, wire_key, words.rest());
    match (command.take_flags(), body) {
        _ if verb == Verb::Debug => parse_debug(command, consumed),
        (Some(count), None) if count <= most => Parsed::Request(Cut::new(Request::Meta(command), consumed)),
        (Some(count), Some(body)) if count <= most => {
            let request = Request::Store(StoreHeader::Meta(command));
            Parsed::Request(Cut { request, head: consumed, body, tail: 2 })
        }
        (_, body) => refuse(&command, most, body, consumed),
    }
}

/// me. Its flags are not checked, but that they could be flags.
// COMPAT(me_flags): `b` counts only as the first flag. Alone it counts here if the key decodes, which is more than
// memcached sees; with something behind it, the key must decode.
#[cold]
fn parse_debug(mut command: MetaCommand<'_>, consumed: usize) -> Parsed<'_> {
    let (is_base64, is_alone) = (command.flags().next() == Some(b"b"), command.flags().nth(1).is_none());
    let decodes = base64::decode(command.wire_key, &mut [0; KEY_MAX]).is_some();
    let is_refused = !command.flags().all(is_flag)
        || (is_base64 && !is_alone && !decodes)
        || (command.wire_key.len() > KEY_MAX && !(is_base64 && decodes));
    if is_refused {
        return bad(consumed, 0, BAD_FORMAT);
    }
    command.seen = if is_base64 && decodes { LetterSet::one(b'b') } else { LetterSet::default() };
    Parsed::Request(Cut::new(Request::Meta(command), consumed))
}

/// Whether a word could be a flag by its first byte.
fn is_flag(word: &[u8]) -> bool {
    matches!(word[0], b'A'..=b'z' | b'0'..=b'9')
}

/// The refusal of a line whose flags are wrong, or more than `most`.
#[cold]
fn refuse<'a>(command: &MetaCommand<'_>, most: usize, body: Option<usize>, consumed: usize) -> Parsed<'a> {
    // A line with a token that cannot be a flag is not a meta line: nothing is swallowed.
    if !command.flags().all(is_flag) {
        return bad(consumed, 0, BAD_FORMAT);
    }
    let reply = match (fault(command, most), command.verb) {
        // COMPAT(ma_flag_error): ma has one text for everything that is wrong with its flags or key.
        (Some(_), Verb::Arith) => MA_BAD_FLAG,
        (Some(error), _) => error,
        (None, _) => late_fault(command),
    };
    bad(consumed, body.map_or(0, |len| len as u64 + 2), reply)
}

/// What is wrong with the flags or the key, as memcached finds it before it looks at what the command needs.
// COMPAT(last_fault): an unknown or repeated letter is reported at once; of other faults the last one is. A wrong `F`
// has no text of its own and leaves that of the fault before it.
fn fault(command: &MetaCommand<'_>, most: usize) -> Option<&'static [u8]> {
    if command.wire_key.len() > KEY_MAX && !command.is_long_base64() {
        return Some(BAD_FORMAT);
    }
    if command.flags().count() > most {
        return Some(TOO_MANY_FLAGS);
    }
    let (mut seen, mut fault) = (LetterSet::default(), None);
    for flag in command.flags() {
        let (letter, argument) = (flag[0], &flag[1..]);
        if !LETTERS.has(letter) {
            return Some(INVALID_FLAG);
        }
        if seen.has(letter) {
            return Some(DUPLICATE_FLAG);
        }
        seen = seen.with(LetterSet::one(letter));
        let is_right = match letter {
            b'b' => base64::decode(command.wire_key, &mut [0; KEY_MAX]).is_some(),
            b'T' | b'N' | b'R' => token::strict_i32(argument).is_some(),
            b'C' | b'E' | b'J' | b'D' => token::strict_u64(argument).is_some(),
            b'F' => token::strict_u32(argument).is_some(),
            _ => true,
        };
        if !is_right {
            fault = Some(match letter {
                b'b' => BAD_KEY,
                b'J' => BAD_INITIAL,
                b'D' => BAD_DELTA,
                b'F' => fault.unwrap_or(BAD_FORMAT),
                _ => BAD_TOKEN,
            });
        }
    }
    fault
}

/// What is wrong with flags whose letters and numbers are right: the mode, which is looked at first, or the opaque.
fn late_fault(command: &MetaCommand<'_>) -> &'static [u8] {
    let has_bad_mode = |verb| command.flags().any(|flag| flag[0] == b'M' && mode_of(verb, &flag[1..]).is_none());
    match command.verb {
        Verb::Set if has_bad_mode(Verb::Set) => MS_BAD_MODE,
        Verb::Arith if has_bad_mode(Verb::Arith) => MA_BAD_MODE,
        _ => OPAQUE_TOO_LONG,
    }
}

impl<'a> MetaCommand<'a> {
    /// The command before its flags are checked.
    #[inline]
    fn new(verb: Verb, wire_key: &'a [u8], text: &'a [u8]) -> MetaCommand<'a> {
        let numbers = Numbers { delta: 1, ..Numbers::default() };
        MetaCommand { verb, mode: Mode::Set, decr: false, wire_key, text, seen: LetterSet::default(), numbers }
    }

    /// Checks letters and arguments, and keeps the arguments. Returns how many flags there are; None when something is
    /// wrong with one of them or with the key.
    #[inline]
    fn take_flags(&mut self) -> Option<usize> {
        if self.wire_key.len() > KEY_MAX && !self.is_long_base64() {
            return None;
        }
        let mut count = 0;
        for token in token::words(self.text) {
            let (letter, argument) = (token[0], &token[1..]);
            if !LETTERS.has(letter) || self.has(letter) {
                return None;
            }
            self.seen = self.seen.with(LetterSet::one(letter));
            self.keep_argument(letter, argument)?;
            count += 1;
        }
        if self.has(b'b') && base64::decode(self.wire_key, &mut [0; KEY_MAX]).is_none() {
            return None;
        }
        Some(count)
    }

    /// Whether this is the base64 of a key that only the binary protocol could name otherwise. memcached takes no token
    /// of more than 250 bytes, so that such a key could not be replicated.
    #[cold]
    fn is_long_base64(&self) -> bool {
        self.flags().any(|flag| flag[0] == b'b') && base64::decode(self.wire_key, &mut [0; KEY_MAX]).is_some()
    }

    #[inline]
    fn keep_argument(&mut self, letter: u8, argument: &[u8]) -> Option<()> {
        let numbers = &mut self.numbers;
        match letter {
            b'T' => numbers.ttl = token::strict_i32(argument)?,
            b'N' => numbers.vivify = token::strict_i32(argument)?,
            b'R' => numbers.recache = token::strict_i32(argument)?,
            b'C' => numbers.compare = token::strict_u64(argument)?,
            b'E' => numbers.cas = token::strict_u64(argument)?,
            b'J' => numbers.initial = token::strict_u64(argument)?,
            b'D' => numbers.delta = token::strict_u64(argument)?,
            b'F' => numbers.client_flags = token::strict_u32(argument)?,
            b'O' if argument.len() >= OPAQUE_MAX => return None,
            b'M' => (self.mode, self.decr) = mode_of(self.verb, argument)?,
            _ => {}
        }
        Some(())
    }
}

/// What `M` says to a command: how to store, and whether to decrement.
// COMPAT(m_first_letter): only the first letter of M's argument counts.
fn mode_of(verb: Verb, argument: &[u8]) -> Option<(Mode, bool)> {
    match (verb, argument.first()) {
        (Verb::Set, Some(b'S')) => Some((Mode::Set, false)),
        (Verb::Set, Some(b'E')) => Some((Mode::Add, false)),
        (Verb::Set, Some(b'A')) => Some((Mode::Append, false)),
        (Verb::Set, Some(b'P')) => Some((Mode::Prepend, false)),
        (Verb::Set, Some(b'R')) => Some((Mode::Replace, false)),
        (Verb::Arith, Some(b'I' | b'+')) => Some((Mode::Set, false)),
        (Verb::Arith, Some(b'D' | b'-')) => Some((Mode::Set, true)),
        (Verb::Set | Verb::Arith, _) => None,
        _ => Some((Mode::Set, false)),
    }
}

#[cfg(test)]
#[path = "tests/meta.rs"]
mod tests;
