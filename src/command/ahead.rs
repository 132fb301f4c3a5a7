//! Looking ahead: fetching into the cache what the next requests of a batch will need, before the first is run.
//!
//! ```text
//! glance    "get a", "set b", "ms c" -> keys      hash them, fetch all buckets
//! items     of each key's bucket                  fetch all items
//! around    of each item to be set                fetch its neighbours in its LRU
//! ```
//!
//! A request alone waits for each of these in turn; of a batch the waits overlap, and those of a connection's only
//! request are over when other connections were answered meanwhile ([`Wanted`]): of these nothing is fetched around, as
//! most sets leave their items where they are. It only guesses: what it cannot tell at a glance it leaves alone, and
//! nothing depends on it.

use crate::protocol::{KEY_MAX, Protocol, binary, text, token};
use crate::store::{AHEAD_MAX, Hash, Store};

/// Requests that are hashed and prefetched together: enough to overlap their cache misses, few enough that the first
/// is still in the cache when its turn comes.
pub(crate) const BATCH: usize = AHEAD_MAX;

/// Letters of the longest command whose key is looked for alone: `prepend`.
const WORD_MAX: usize = 7;

/// What the only request of a connection will need: a bucket, and the item that it leads to.
#[derive(Clone, Copy, Debug)]
pub struct Wanted(pub(crate) Hash);

impl Wanted {
    /// What the request at the start of `input` looks like it needs.
    #[inline]
    pub fn of(protocol: Protocol, input: &[u8], store: &Store) -> Option<Wanted> {
        let key = match protocol {
            Protocol::Ascii => key_in_line(input)?,
            Protocol::Binary => glance_packet(input)?.key,
        };
        Some(Wanted(store.hash(key)))
    }

    /// Fetches the bucket.
    #[inline]
    pub fn bucket(self, store: &Store) {
        store.prefetch(self.0);
    }
}

/// Fetches the items of up to [`AHEAD_MAX`] of these.
pub fn fetch_items(wanted: &[Option<Wanted>], store: &Store) {
    let (mut hashes, mut len) = ([(Hash(0), false); BATCH], 0);
    for (slot, wanted) in hashes.iter_mut().zip(wanted.iter().flatten()) {
        slot.0 = wanted.0;
        len += 1;
    }
    store.prefetch_items(&hashes[..len]);
}

/// What follows the first word, whatever that is. Does not look for the line's end, unlike [`glance_line`].
#[inline]
fn key_in_line(input: &[u8]) -> Option<&[u8]> {
    let rest = match text::may_be_plain(input) {
        true => &input[4..],
        false => &input[input.iter().take(WORD_MAX + 1).position(|&b| b == b' ')? + 1..],
    };
    let key = &rest[..token::word_len(&rest[..rest.len().min(KEY_MAX + 1)])];
    (key.len() <= KEY_MAX && key.len() < rest.len()).then_some(key)
}

/// What a request looks like.
struct Glance<'a> {
    key: &'a [u8],
    /// Bytes of the line or packet, its value included.
    len: usize,
    stores: bool,
}

/// Looks at the requests at the start of `input`, up to [`BATCH`] of them, and starts fetching what their keys
/// will need. Returns how many bytes that covers. A request without another behind it is left alone.
pub(crate) fn fetch(protocol: Protocol, input: &[u8], store: &Store) -> usize {
    let mut hashes = [(Hash(0), false); BATCH];
    let (mut len, mut at) = (0, 0);
    while len < BATCH
        && let Some(glance) = glance(protocol, &input[at..])
    {
        if len == 0 && glance.len >= input.len() {
            return input.len();
        }
        let hash = store.hash(glance.key);
        store.prefetch(hash);
        hashes[len] = (hash, glance.stores);
        len += 1;
        at = input.len().min(at + glance.len);
    }
    store.prefetch_items(&hashes[..len]);
    store.prefetch_around(&hashes[..len]);
    at
}

#[inline]
fn glance(protocol: Protocol, input: &[u8]) -> Option<Glance<'_>> {
    match protocol {
        Protocol::Ascii => glance_line(input),
        Protocol::Binary => glance_packet(input),
    }
}

#[inline]
fn glance_line(input: &[u8]) -> Option<Glance<'_>> {
    let (word, stores) = match input {
        [b'g', b'e', b't', b' ', ..] => (4, false),
        [b's', b'e', b't', b' ', ..] => (4, true),
        [b'm', b'g', b' ', ..] => (3, false),
        [b'm', b's', b' ', ..] => (3, true),
        _ => return None,
    };
    let rest = &input[word..];
    let end = memchr::memchr(b'\n', rest)?;
    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
    let (key, behind) = line.split_at(memchr::memchr(b' ', line).unwrap_or(line.len()));
    let head = word + end + 1;
    let value = match word {
        _ if !stores => return Some(Glance { key, len: head, stores }),
        // ms: behind the key.
        3 => token::strict_u32(behind.get(1..)?.split(|&b| b == b' ').next()?)?,
        _ => last_number(behind.strip_suffix(b" noreply").unwrap_or(behind))?,
    };
    Some(Glance { key, len: head + value as usize + 2, stores })
}

/// The number behind the last space of a line, if it is not too large for one that lies in a buffer.
#[inline]
fn last_number(line: &[u8]) -> Option<u32> {
    let (mut value, mut weight) = (0, 1);
    for &byte in line.iter().rev().take(9) {
        match byte {
            b'0'..=b'9' => value += u32::from(byte - b'0') * weight,
            b' ' if weight > 1 => return Some(value),
            _ => return None,
        }
        weight *= 10;
    }
    None
}

#[inline]
fn glance_packet(input: &[u8]) -> Option<Glance<'_>> {
    let (header, rest) = input.split_first_chunk::<{ binary::HEADER }>()?;
    let stores = match header[1] {
        // Get, GetQ, GetK, GetKQ.
        0x00 | 0x09 | 0x0c | 0x0d => false,
        // Set, SetQ.
        0x01 | 0x11 => true,
        _ => return None,
    };
    let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let extras = usize::from(header[4]);
    let key = rest.get(extras..)?.get(..u16::from_be_bytes([header[2], header[3]]).into())?;
    Some(Glance { key, len: binary::HEADER + body, stores })
}
