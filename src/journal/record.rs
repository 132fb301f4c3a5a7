//! A record: the bytes that the journal holds of one change.
//!
//! ```text
//! record   | Head 32 | key | client flags 4, unless 0 | value | up to 8 bytes of nothing, to a multiple of 8 |
//! Head     value length 4, kind 1, bits 1, key length 1, 0, range 4, 0 0 0 0, expires_at 4, 0 0 0 0, cas 8
//! pad      value length 4 (of the whole pad), kind 0, …           fills the ring up to its end
//! ```
//!
//! Key, client flags and value lie as they do in an item, so that one copy takes them all. The same bytes lie in the
//! ring, in snapshot slices, and in what a subscription hands out; `replication` turns them into meta commands.
//! `expires_at` is a second of the server's clock, 0 never: what time that is for a peer is decided when it is sent.

/// Bytes before the key.
pub const HEAD: usize = 32;

/// Values from this size on are not copied into the ring: the record names the key, and when it is sent, the value of
/// that moment is looked up. From this size on values are sent to clients by reference, too. It bounds the time for
/// which an append takes the journal's lock to some 2 us.
pub const BIG: usize = 16 << 10;

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RecordKind {
    /// An item with its value.
    Set = 1,
    /// An item whose value is large: look it up, and send what is there now, or a delete.
    SetBig,
    /// Only `expires_at` is new.
    Touch,
    /// Only cas, `expires_at`, stale and win are new.
    State,
    /// A client deleted it.
    Delete,
    /// flush_all of all keys, at the second `expires_at`; 0 is now.
    Flush,
    /// A client read it.
    Hit,
}

/// Kind of a pad.
pub const PAD: u8 = 0;
/// Kind of a record that an item was evicted, or found expired. Readers get a [`RecordKind::Delete`] of it, or nothing.
pub const EVICTED: u8 = 8;
/// Kind of a record that is nothing but an lsn, so that this can be acknowledged. Readers never get it.
pub const CHECKPOINT: u8 = 9;

/// Bits of a record: the item is stale.
pub const STALE: u8 = 1;
/// Bits of a record: a client was told to recache.
pub const WIN: u8 = 2;
/// Bits of a record: the key came base64-encoded.
pub const BINARY_KEY: u8 = 4;
/// Bits of a record: client flags stand between key and value.
pub const CLIENT_FLAGS: u8 = 8;

const KINDS: [RecordKind; 7] = [
    RecordKind::Set,
    RecordKind::SetBig,
    RecordKind::Touch,
    RecordKind::State,
    RecordKind::Delete,
    RecordKind::Flush,
    RecordKind::Hit,
];

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What happened.
    pub kind: RecordKind,
    /// The raw key; empty for [`RecordKind::Flush`].
    pub key: &'a [u8],
    /// The key came base64-encoded.
    pub key_is_binary: bool,
    /// Of [`RecordKind::Set`] only.
    pub value: &'a [u8],
    /// Of [`RecordKind::Set`] only.
    pub client_flags: u32,
    /// A second of the server's clock, 0 never.
    pub expires_at: u32,
    /// 0 without cas.
    pub cas: u64,
    /// The meta stale mark.
    pub stale: bool,
    /// The win token was handed out.
    pub win: bool,
}

/// A record that is to be written.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the fields of a record: see the module's head")]
pub struct RecordDraft<'a> {
    pub kind: u8,
    pub bits: u8,
    pub key_len: u8,
    pub value_len: u32,
    pub range: u32,
    pub expires_at: u32,
    pub cas: u64,
    /// Key, client flags if the bits say so, value.
    pub body: &'a [u8],
}

impl RecordDraft<'_> {
    /// A record with nothing but a kind, a range and a key.
    pub fn of(kind: u8, range: u32, key: &[u8], key_is_binary: bool) -> RecordDraft<'_> {
        let bits = if key_is_binary { BINARY_KEY } else { 0 };
        RecordDraft { kind, bits, key_len: key.len() as u8, value_len: 0, range, expires_at: 0, cas: 0, body: key }
    }

    /// Bytes that the record takes.
    #[inline]
    pub fn size(&self) -> usize {
        (HEAD + self.body.len()).next_multiple_of(8)
    }

    /// Writes the record to `to`, which has exactly its length.
    #[inline]
    pub fn write(&self, to: &mut [u8]) {
        let (head, rest) = to.split_first_chunk_mut::<HEAD>().expect("room for a head");
        let first = u64::from(self.value_len)
            | u64::from(self.kind) << 32
            | u64::from(self.bits) << 40
            | u64::from(self.key_len) << 48;
        head[..8].copy_from_slice(&first.to_le_bytes());
        head[8..16].copy_from_slice(&u64::from(self.range).to_le_bytes());
        head[16..24].copy_from_slice(&u64::from(self.expires_at).to_le_bytes());
        head[24..].copy_from_slice(&self.cas.to_le_bytes());
        rest[..self.body.len()].copy_from_slice(self.body);
    }

    /// Appends the record to `out`.
    pub fn push(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.resize(start + self.size(), 0);
        self.write(&mut out[start..]);
    }
}

/// What a reader looks at in a record before it is copied.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// The kind of the record.
    pub kind: u8,
    bits: u8,
    key_len: u8,
    value_len: u32,
}

impl Head {
    /// The head of the record or pad at the start of `bytes`.
    #[inline]
    pub fn read(bytes: &[u8]) -> Head {
        let (first, _) = bytes.split_first_chunk::<8>().expect("a head");
        let first = u64::from_le_bytes(*first);
        Head {
            kind: (first >> 32) as u8,
            bits: (first >> 40) as u8,
            key_len: (first >> 48) as u8,
            value_len: first as u32,
        }
    }

    /// Bytes that the record takes.
    #[inline]
    pub fn size(&self) -> usize {
        if self.kind == PAD {
            return self.value_len as usize;
        }
        (HEAD + usize::from(self.key_len) + self.flags_len() + self.value_len as usize).next_multiple_of(8)
    }

    #[inline]
    fn flags_len(&self) -> usize {
        usize::from(self.bits & CLIENT_FLAGS) / 2
    }

    /// Whether the record is about one item, so that a reader is sent it unless its range is dirty.
    #[inline]
    pub fn is_change(&self) -> bool {
        (RecordKind::Set as u8..=RecordKind::Hit as u8).contains(&self.kind)
    }

    /// The key of the record that begins at `bytes`.
    pub fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[HEAD..][..usize::from(self.key_len)]
    }

    /// Whether the key came base64-encoded.
    pub fn key_is_binary(&self) -> bool {
        self.bits & BINARY_KEY != 0
    }
}

/// The range of the record at the start of `bytes`.
#[inline]
pub fn range_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"))
}

/// Makes a pad of `bytes`, whose length is a multiple of 8.
pub fn write_pad(bytes: &mut [u8]) {
    let first = bytes.len() as u64 | u64::from(PAD) << 32;
    bytes[..8].copy_from_slice(&first.to_le_bytes());
}

/// Turns the record at the start of `bytes` into a Delete.
pub fn make_delete(bytes: &mut [u8]) {
    bytes[4] = RecordKind::Delete as u8;
}

/// The changes that [`crate::store::Subscription::next`] has handed out, in order.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { rest: bytes }
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    /// The bytes of the records that were not taken yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (record, rest) = self.rest.split_at(Head::read(self.rest).size());
        self.rest = rest;
        Some(decode(record))
    }
}

#[inline]
fn decode(bytes: &[u8]) -> Record<'_> {
    let head = Head::read(bytes);
    let (fixed, body) = bytes.split_first_chunk::<HEAD>().expect("a head");
    let number = |at: usize| u64::from_le_bytes(fixed[at..at + 8].try_into().expect("eight bytes"));
    let (key, rest) = body.split_at(usize::from(head.key_len));
    let (flags, rest) = rest.split_at(head.flags_len());
    Record {
        kind: *KINDS.get(usize::from(head.kind).wrapping_sub(1)).expect("a kind that readers are given"),
        key,
        key_is_binary: head.key_is_binary(),
        value: &rest[..head.value_len as usize],
        client_flags: flags.try_into().map_or(0, u32::from_le_bytes),
        expires_at: number(16) as u32,
        cas: number(24),
        stale: head.bits & STALE != 0,
        win: head.bits & WIN != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        for (i, &kind) in KINDS.iter().enumerate() {
            assert_eq!(kind as usize, i + 1);
            let (key, flags) = (vec![b'k'; i * 40], if i % 2 == 0 { &[1, 2, 3, 4][..] } else { b"" });
            let value = vec![7; if kind == RecordKind::Set { 1000 + i } else { 0 }];
            let entry = RecordDraft {
                bits: i as u8 & 7 | if flags.is_empty() { 0 } else { CLIENT_FLAGS },
                value_len: value.len() as u32,
                expires_at: u32::MAX - i as u32,
                cas: u64::MAX - i as u64,
                body: &[&key, flags, &value].concat(),
                ..RecordDraft::of(kind as u8, 12345, &key, false)
            };
            let start = bytes.len();
            entry.push(&mut bytes);
            assert_eq!(bytes.len() - start, entry.size());
            assert_eq!(
                (range_of(&bytes[start..]), Head::read(&bytes[start..]).key(&bytes[start..])),
                (12345, &key[..])
            );
            let record = records(&bytes).last().unwrap();
            assert_eq!((record.kind, record.key, record.value), (kind, &key[..], &value[..]));
            assert_eq!(record.client_flags, if i % 2 == 0 { 0x0403_0201 } else { 0 });
            assert_eq!((record.expires_at, record.cas), (u32::MAX - i as u32, entry.cas));
            assert_eq!((record.stale, record.win, record.key_is_binary), (i & 1 != 0, i & 2 != 0, i & 4 != 0));
        }
        assert_eq!(records(&bytes).count(), KINDS.len());
    }
}
