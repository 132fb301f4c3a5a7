//! Changes as meta commands: how one server tells another one, or a memcached, what became of an item.
//!
//! ```text
//! ms <key> <length> [b] [F<flags>] T<expiry> [E<cas>] q \r\n <data> \r\n     set, then its marks as below
//! md <key> [b] q                                                          deleted
//! mg <key> [b] T<expiry> q                                                touched
//! mg <key> [b] q                                                          read
//! flush_all [<time>] noreply
//!
//! marks   stale                 md <key> [b] I T<expiry> [E<cas>] q
//!         stale, being renewed  …, then mg <key> [b] q, which takes the win token
//!         fresh, being renewed  mg <key> [b] R<far> T<expiry> q: the item expires before <far>, so this gets the token
//! ```
//!
//! Every command states how things are, and none depends on how they were. So a command does no harm if it is sent
//! again, or if a newer state is there already, as long as later changes are sent after it.
//!
//! `E` is left out for a peer that does not know it. Times are absolute by the clock of the peer, so that they
//! mean the same whenever the command arrives.
//!
//! Not here: parsing (`meta`), which changes there are and when they are sent.

use super::KEY_MAX;
use super::base64;
use super::token::{DIGITS_MAX, decimal};

/// A peer takes times up to this many seconds (30 days) for relative ones.
const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;

/// The latest time that a `T` or an `R` can name, in 2038.
const FAR: i32 = i32::MAX;

/// Longest key whose base64 memcached takes. twincached takes that of any key.
const BASE64_KEY_MAX: usize = KEY_MAX / 4 * 3;

/// Bytes of a line without its key, with room to spare.
const LINE: usize = 112;

/// Which keys a peer can be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKeys {
    /// All: it is a twincached.
    All,
    /// Those that a memcached takes.
    Short,
}

/// A key as it goes on a line.
#[derive(Clone, Copy, Debug)]
pub struct WireKey<'a> {
    bytes: &'a [u8],
    base64: bool,
}

impl<'a> WireKey<'a> {
    /// Encodes a key in base64 if it came so, or if it has bytes that would break a line. None: the peer is a memcached,
    /// the key is too long for its base64, and no meta command can name it there.
    #[inline]
    pub fn new(bytes: &'a [u8], is_binary: bool, peer: PeerKeys) -> Option<WireKey<'a>> {
        if !is_binary && !breaks_a_line(bytes) {
            return Some(WireKey { bytes, base64: false });
        }
        let base64 = peer == PeerKeys::All || bytes.len() <= BASE64_KEY_MAX;
        // memcached takes a carriage return for a byte of the key, unless the line ends there.
        (base64 || !bytes.iter().any(|byte| matches!(byte, b' ' | b'\n' | 0))).then_some(WireKey { bytes, base64 })
    }

    /// Appends the verb and the key, and makes room for `more` bytes after the line.
    #[inline]
    fn begin(self, verb: &[u8; 3], more: usize, out: &mut Vec<u8>) {
        out.reserve(LINE + base64::ENCODED_MAX + more);
        out.extend_from_slice(verb);
        match self.base64 {
            false => out.extend_from_slice(self.bytes),
            true => base64::encode(self.bytes, out),
        }
    }

    /// The flag that says that the key is base64, or nothing.
    #[inline]
    fn flag(self, out: &mut Vec<u8>) {
        if self.base64 {
            out.extend_from_slice(b" b");
        }
    }
}

/// Whether a key has a blank, a line end or a NUL. Eight bytes that are all above a blank have none; to look at eight
/// at a time saves 25 instructions of 593 for a change.
#[inline]
fn breaks_a_line(key: &[u8]) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let above_blank = |word: u64| word.wrapping_sub(ONES * 0x21) & !word & (ONES << 7) == 0;
    let (words, rest) = key.as_chunks::<8>();
    let tail = match (key.last_chunk::<8>(), rest) {
        (Some(last), _) => u64::from_le_bytes(*last),
        (None, rest) => rest.iter().fold(u64::MAX >> 1, |word, &byte| word << 8 | u64::from(byte)),
    };
    let is_plain = words.iter().all(|word| above_blank(u64::from_le_bytes(*word))) && above_blank(tail);
    !is_plain && key.iter().any(|byte| matches!(byte, b' ' | b'\r' | b'\n' | 0))
}

/// A time of expiry as `T` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(i32);

impl Expiry {
    /// Never.
    pub const NEVER: Expiry = Expiry(0);

    /// The expiry at this time by the peer's clock, which shows `now`. It is absolute, but for a peer whose clock shows
    /// the first days of 1970: that would take such a time for a relative one, so it gets one.
    #[inline]
    pub fn at(time: i64, now: i64) -> Expiry {
        match time {
            ..=RELATIVE_MAX if time <= now => Expiry(-1),
            ..=RELATIVE_MAX => Expiry(time.saturating_sub(now).min(RELATIVE_MAX) as i32),
            _ => Expiry(i32::try_from(time).unwrap_or(FAR)),
        }
    }

    /// A time before [`FAR`], as `R` needs it: this expiry, or another one that is corrected afterwards.
    fn before_far(self) -> Expiry {
        if self.0 == 0 || self.0 == FAR { Expiry(FAR - 1) } else { self }
    }

    #[inline]
    fn push(self, out: &mut Vec<u8>) {
        let mut tail = Tail::new(b"");
        tail.put_expiry(self);
        out.extend_from_slice(tail.bytes());
    }
}

/// What is told of an item besides key and value.
#[derive(Clone, Copy, Debug)]
pub struct ItemState {
    /// When it expires.
    pub expiry: Expiry,
    /// Its cas unique, for a peer that takes it.
    pub cas: Option<u64>,
    /// It is stale (meta `I`).
    pub stale: bool,
    /// Somebody was told to renew it (meta `W`).
    pub win: bool,
}

/// Begins a store of a value of `len` bytes. The caller appends the value, and then calls [`set_end`].
#[inline]
pub fn set(key: WireKey<'_>, len: usize, client_flags: u32, state: &ItemState, out: &mut Vec<u8>) {
    set_line(key, len as u64, len, client_flags, state, out);
}

/// As [`set`], for a value that is appended elsewhere: makes room for `more` bytes only.
#[inline]
pub fn set_line(key: WireKey<'_>, len: u64, more: usize, client_flags: u32, state: &ItemState, out: &mut Vec<u8>) {
    let fresh_win = state.win && !state.stale;
    let expiry = if fresh_win { state.expiry.before_far() } else { state.expiry };
    let mut tail = Tail::new(b" q\r\n");
    tail.put_cas(state.cas);
    tail.put_expiry(expiry);
    if client_flags != 0 {
        tail.put_number(client_flags.into());
        tail.put(b" F");
    }
    if key.base64 {
        tail.put(b" b");
    }
    tail.put_number(len);
    tail.put(b" ");
    key.begin(b"ms ", more, out);
    out.extend_from_slice(tail.bytes());
}

/// Ends a store, and sets the item's marks.
#[inline]
pub fn set_end(key: WireKey<'_>, state: &ItemState, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
    if state.stale {
        stale(key, state, out);
    } else if state.win {
        win(key, state.expiry, out);
    }
}

/// Sets the expiry and the marks of an item that has its value.
pub fn marks(key: WireKey<'_>, state: &ItemState, out: &mut Vec<u8>) {
    if state.stale {
        return stale(key, state, out);
    }
    if state.win {
        touch(key, state.expiry.before_far(), out);
        return win(key, state.expiry, out);
    }
    touch(key, state.expiry, out);
}

/// Takes an item away.
pub fn delete(key: WireKey<'_>, out: &mut Vec<u8>) {
    key.begin(b"md ", 0, out);
    key.flag(out);
    out.extend_from_slice(b" q\r\n");
}

/// Sets an item's expiry.
pub fn touch(key: WireKey<'_>, expiry: Expiry, out: &mut Vec<u8>) {
    key.begin(b"mg ", 0, out);
    key.flag(out);
    expiry.push(out);
    out.extend_from_slice(b" q\r\n");
}

/// Reads an item, so that it is not the next to be evicted.
pub fn fetch(key: WireKey<'_>, out: &mut Vec<u8>) {
    key.begin(b"mg ", 0, out);
    key.flag(out);
    out.extend_from_slice(b" q\r\n");
}

/// Takes everything away, now (None) or at a time that an expiry names.
pub fn flush(at: Option<Expiry>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"flush_all");
    if let Some(Expiry(at @ 1..)) = at {
        out.push(b' ');
        number(at.unsigned_abs().into(), out);
    }
    out.extend_from_slice(b" noreply\r\n");
}

fn stale(key: WireKey<'_>, state: &ItemState, out: &mut Vec<u8>) {
    key.begin(b"md ", 0, out);
    key.flag(out);
    out.extend_from_slice(b" I");
    state.expiry.push(out);
    cas(state.cas, out);
    out.extend_from_slice(b" q\r\n");
    if state.win {
        fetch(key, out);
    }
}

/// Marks an item as being renewed. The item must expire [before far](Expiry::before_far) when the command arrives.
fn win(key: WireKey<'_>, expiry: Expiry, out: &mut Vec<u8>) {
    key.begin(b"mg ", 0, out);
    key.flag(out);
    out.extend_from_slice(b" R");
    number(FAR as u64, out);
    expiry.push(out);
    out.extend_from_slice(b" q\r\n");
}

#[inline]
fn cas(cas: Option<u64>, out: &mut Vec<u8>) {
    let mut tail = Tail::new(b"");
    tail.put_cas(cas);
    out.extend_from_slice(tail.bytes());
}

#[inline]
fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(decimal(number, &mut [0; DIGITS_MAX]));
}

/// Bytes behind the key of the longest line.
const TAIL: usize = 96;

/// The end of a line, written from its last byte to its first, since that is the order in which the digits of a number
/// come. A line takes one copy so, not one for each of its pieces: those took a third of the instructions of a whole
/// set.
struct Tail {
    buffer: [u8; TAIL],
    start: usize,
}

impl Tail {
    #[inline]
    fn new<const N: usize>(end: &[u8; N]) -> Tail {
        let mut tail = Tail { buffer: [0; TAIL], start: TAIL };
        tail.put(end);
        tail
    }

    #[inline]
    fn put<const N: usize>(&mut self, text: &[u8; N]) {
        self.start -= N;
        self.buffer[self.start..self.start + N].copy_from_slice(text);
    }

    #[inline]
    fn put_number(&mut self, mut number: u64) {
        while number >= 100 {
            self.put(&PAIRS[(number % 100) as usize]);
            number /= 100;
        }
        match number {
            10.. => self.put(&PAIRS[number as usize]),
            _ => self.put(&[b'0' + number as u8]),
        }
    }

    #[inline]
    fn put_expiry(&mut self, expiry: Expiry) {
        if expiry.0 == 0 {
            return self.put(b" T0");
        }
        self.put_number(expiry.0.unsigned_abs().into());
        if expiry.0 < 0 {
            self.put(b"-");
        }
        self.put(b" T");
    }

    /// Writes the cas unique; an item without one (`-C`) has none to tell.
    #[inline]
    fn put_cas(&mut self, cas: Option<u64>) {
        if let Some(cas) = cas.filter(|&cas| cas != 0) {
            self.put_number(cas);
            self.put(b" E");
        }
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// The two digits of every number below a hundred.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut i = 0;
    while i < 100 {
        pairs[i] = [b'0' + (i / 10) as u8, b'0' + (i % 10) as u8];
        i += 1;
    }
    pairs
};

#[cfg(test)]
#[path = "tests/change.rs"]
mod tests;
