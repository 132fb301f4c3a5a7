//! Meta commands: `mg ms md ma me mn`.
//!
//! ```text
//! mg <key> <flag>* \r\n
//! ms <key> <length> <flag>* \r\n <data> \r\n
//! <flag> = one letter and, for some, an argument; each letter at most once; order matters for replies
//! ```
//!
//! Every letter is accepted by every command and ignored where it has no meaning. Arguments are checked here,
//! so that a command can rely on them.

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
        (Ok(count), None) if count <= most => Parsed::Request(Cut::new(Request::Meta(command), consumed)),
        (Ok(count), Some(body)) if count <= most => {
            let request = Request::Store(StoreHeader::Meta(command));
            Parsed::Request(Cut { request, head: consumed, body, tail: 2 })
        }
        (result, body) => refuse(&command, result.err(), most, body, consumed),
    }
}

/// The refusal of wrong flags, as memcached words it. `error` was found first; None: there are too many flags.
#[cold]
fn refuse<'a>(
    command: &MetaCommand<'_>,
    error: Option<&'static [u8]>,
    most: usize,
    body: Option<usize>,
    consumed: usize,
) -> Parsed<'a> {
    // A line with a token that cannot be a flag is not a meta line: nothing is swallowed.
    if command.flags().any(|word| !matches!(word[0], b'A'..=b'z' | b'0'..=b'9')) {
        return bad(consumed, 0, BAD_FORMAT);
    }
    let reply = match error {
        Some(error) if command.flags().count() <= most => match command.verb {
            // COMPAT(ma_flag_error): ma has one text for everything that is wrong with its flags or key.
            Verb::Arith if error != MA_BAD_MODE => MA_BAD_FLAG,
            _ => error,
        },
        _ => TOO_MANY_FLAGS,
    };
    bad(consumed, body.map_or(0, |len| len as u64 + 2), reply)
}

impl<'a> MetaCommand<'a> {
    /// The command before its flags are checked.
    #[inline]
    fn new(verb: Verb, wire_key: &'a [u8], text: &'a [u8]) -> MetaCommand<'a> {
        let numbers = Numbers { delta: 1, ..Numbers::default() };
        MetaCommand { verb, mode: Mode::Set, decr: false, wire_key, text, seen: LetterSet::default(), numbers }
    }

    /// Checks letters and arguments, and keeps the arguments. Returns how many flags there are.
    #[inline]
    fn take_flags(&mut self) -> Result<usize, &'static [u8]> {
        if self.wire_key.len() > KEY_MAX && !self.is_long_base64() {
            return Err(BAD_FORMAT);
        }
        let mut count = 0;
        for token in token::words(self.text) {
            let (letter, argument) = (token[0], &token[1..]);
            if !LETTERS.has(letter) {
                return Err(INVALID_FLAG);
            }
            if self.has(letter) {
                return Err(DUPLICATE_FLAG);
            }
            self.seen = self.seen.with(LetterSet::one(letter));
            self.keep_argument(letter, argument)?;
            count += 1;
        }
        if self.has(b'b') && base64::decode(self.wire_key, &mut [0; KEY_MAX]).is_none() {
            return Err(BAD_KEY);
        }
        Ok(count)
    }

    /// Whether this is the base64 of a key that only the binary protocol could name otherwise. memcached takes no token
    /// of more than 250 bytes, so that such a key could not be replicated.
    #[cold]
    fn is_long_base64(&self) -> bool {
        self.flags().any(|flag| flag[0] == b'b') && base64::decode(self.wire_key, &mut [0; KEY_MAX]).is_some()
    }

    #[inline]
    fn keep_argument(&mut self, letter: u8, argument: &[u8]) -> Result<(), &'static [u8]> {
        let numbers = &mut self.numbers;
        match letter {
            b'T' => numbers.ttl = token::strict_i32(argument).ok_or(BAD_TOKEN)?,
            b'N' => numbers.vivify = token::strict_i32(argument).ok_or(BAD_TOKEN)?,
            b'R' => numbers.recache = token::strict_i32(argument).ok_or(BAD_TOKEN)?,
            b'C' => numbers.compare = token::strict_u64(argument).ok_or(BAD_TOKEN)?,
            b'E' => numbers.cas = token::strict_u64(argument).ok_or(BAD_TOKEN)?,
            b'J' => numbers.initial = token::strict_u64(argument).ok_or(BAD_TOKEN)?,
            b'D' => numbers.delta = token::strict_u64(argument).ok_or(BAD_TOKEN)?,
            b'F' => numbers.client_flags = token::strict_u32(argument).ok_or(BAD_FORMAT)?,
            b'O' if argument.len() >= OPAQUE_MAX => return Err(OPAQUE_TOO_LONG),
            b'M' => self.keep_mode(argument)?,
            _ => {}
        }
        Ok(())
    }

    // COMPAT(m_first_letter): only the first letter of M's argument counts.
    fn keep_mode(&mut self, argument: &[u8]) -> Result<(), &'static [u8]> {
        match (self.verb, argument.first()) {
            (Verb::Set, Some(b'S')) => self.mode = Mode::Set,
            (Verb::Set, Some(b'E')) => self.mode = Mode::Add,
            (Verb::Set, Some(b'A')) => self.mode = Mode::Append,
            (Verb::Set, Some(b'P')) => self.mode = Mode::Prepend,
            (Verb::Set, Some(b'R')) => self.mode = Mode::Replace,
            (Verb::Arith, Some(b'I' | b'+')) => self.decr = false,
            (Verb::Arith, Some(b'D' | b'-')) => self.decr = true,
            (Verb::Set, _) => return Err(MS_BAD_MODE),
            (Verb::Arith, _) => return Err(MA_BAD_MODE),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::line::parse;
    use crate::protocol::{Bad, Refusal};

    fn reply(line: &str) -> (String, u64) {
        match parse(line.as_bytes(), 0) {
            Parsed::Bad(Bad { reply: Refusal::Line(reply), swallow, .. }) => {
                (String::from_utf8(reply.to_vec()).unwrap(), swallow)
            }
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn error(line: &str) -> String {
        reply(line).0.trim_start_matches("CLIENT_ERROR ").trim_end().to_string()
    }

    #[test]
    fn flag_errors() {
        assert_eq!(error("mg a a\r\n"), "invalid flag");
        assert_eq!(error("mg a 1\r\n"), "invalid flag");
        assert_eq!(error("mg a _\r\n"), "invalid flag");
        assert_eq!(error("mg a !\r\n"), "bad command line format");
        assert_eq!(error("mg a v v\r\n"), "duplicate flag");
        for flag in ["T", "Tabc", "N", "Rx", "Cx", "E-1", "J", "Dx"] {
            assert_eq!(error(&format!("mg a {flag}\r\n")), "bad token in command line format");
        }
        assert_eq!(error("ms a 2 F4294967296\r\n"), "bad command line format");
        assert_eq!(error(&format!("mg a O{}\r\n", "1".repeat(32))), "opaque token too long");
        assert_eq!(error("mg Zm9 b\r\n"), "error decoding key");
        assert_eq!(error("mg a s t c f k h l q u v O1 L P x I E5 D1 J1 F0 MI\r\n"), "options flags are too long");
        assert_eq!(error("mg a s t c f k h l q u v O1 L P x I E5 S\r\n"), "invalid flag");
    }

    #[test]
    fn compat_ma_flag_error() {
        for flags in ["D", "Dx", "J", "v v", "a", "Zm9 b"] {
            assert_eq!(error(&format!("ma n {flags}\r\n")), "invalid or duplicate flag");
        }
        assert_eq!(error(&format!("ma {}\r\n", "k".repeat(251))), "invalid or duplicate flag");
        assert_eq!(error("ma n Mx\r\n"), "invalid mode for ma M token");
        assert_eq!(error("ma n !\r\n"), "bad command line format");
    }

    #[test]
    fn what_ms_swallows() {
        assert_eq!(reply("ms a abc\r\n").1, 0);
        assert_eq!(reply("ms a 2 !\r\n").1, 0);
        assert_eq!(reply("ms a 2 v v\r\n").1, 4);
        assert_eq!(reply("ms a 2 M\r\n").1, 4);
        assert_eq!(reply(&format!("ms {} 2\r\n", "k".repeat(251))).1, 4);
    }

    #[test]
    fn compat_m_first_letter() {
        let line = b"ms a 2 MADD\r\n";
        let Parsed::Request(Cut { request: Request::Store(StoreHeader::Meta(command)), .. }) = parse(line, 0) else {
            panic!()
        };
        assert_eq!(command.mode, Mode::Append);
    }

    #[test]
    fn arguments() {
        let line = b"ma Zm9v b N90 J5 D7 T-1 M- q vjunk\r\n";
        let Parsed::Request(Cut { request: Request::Meta(command), head, .. }) = parse(line, 0) else { panic!() };
        assert_eq!(head, line.len());
        assert_eq!(command.key(&mut None), b"foo");
        assert_eq!((command.vivify(), command.ttl(), command.recache()), (Some(90), Some(-1), None));
        assert_eq!((command.initial(), command.delta(), command.decr), (5, 7, true));
        assert!(command.quiet() && command.has(b'v') && !command.has(b'k'));
        assert_eq!(command.flags().last(), Some(b"vjunk".as_slice()));
    }
}
