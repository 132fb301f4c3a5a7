//! What can be asked of etcd, one request each.
//!
//! ```text
//!   swap:  if key is still of this revision  ── yes ──> put it (and what goes with it) ──> Won
//!                                            ── no ───> read it ──> Lost, with what is there
//!   take:  the same, but delete it
//!   either may depend on the value as well: etcd that was restored from a backup gives revisions out again
//! ```
//!
//! Invariants: reads are linearizable; an answer is believed only if it is about the key that was asked for and its
//! revisions can be; no call repeats a write.

use super::error::EtcdError;
use super::options::EtcdOptions;
use super::transport::Transport;
use super::wire::{
    Base64, Compare, DeleteRequest, Int64, KeyValue, Operation, PutRequest, RangeAnswer, RangeRequest, TxnAnswer,
    TxnRequest, WriteAnswer, end_of,
};
use std::time::{Duration, Instant};

/// Keys that one request of a list asks for, so that an answer stays short.
const PAGE: i64 = 500;

/// Most keys of a list; a cluster of ours has a few for each shard and node.
const LIST_MAX: usize = 50_000;

/// A client of etcd. A clone shares its connections; each thread has one.
#[derive(Clone)]
pub struct Etcd {
    pub(super) transport: Transport,
}

/// What was at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision of all of etcd, at which that was so.
    pub revision: i64,
    /// Its value, if it had one.
    pub value: Option<Versioned>,
}

impl Snapshot {
    /// What a swap of this value expects.
    pub fn mod_revision(&self) -> i64 {
        self.value.as_ref().map_or(0, |value| value.mod_revision)
    }
}

/// A value and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// The value.
    pub bytes: Vec<u8>,
    /// The revision of the change that made it.
    pub mod_revision: i64,
    /// How often the key was put since it was absent.
    pub version: i64,
}

/// What was under a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision of all of etcd, at which that was so. A watch from the next one misses nothing.
    pub revision: i64,
    /// Keys and values, ordered by key.
    pub items: Vec<(String, Versioned)>,
}

/// What became of a swap, or a take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swap {
    /// It was done, at this revision.
    Won(i64),
    /// A key was of another revision; this is what is at the first key now.
    Lost(Snapshot),
}

/// What a swap, or a take, does besides, or not at all.
#[derive(Clone, Copy, Debug)]
pub enum Also<'a> {
    /// Puts a value at another key.
    Put(&'a str, &'a [u8]),
    /// Deletes another key, which must be of this revision.
    Delete(&'a str, i64),
    /// Does nothing but if the key has this value.
    If(&'a str, &'a [u8]),
}

impl Etcd {
    /// Reads the files that the options name; does not connect yet.
    pub fn new(options: &EtcdOptions) -> Result<Etcd, EtcdError> {
        Transport::new(options).map(|transport| Etcd { transport }).map_err(EtcdError::Refused)
    }

    /// Reads a key.
    pub fn get(&mut self, key: &str, timeout: Duration) -> Result<Snapshot, EtcdError> {
        let request = RangeRequest { key: key.into(), ..RangeRequest::default() };
        let answer: RangeAnswer = self.transport.call("/v3/kv/range", &request, timeout)?;
        let snapshot = snapshot(key, answer.header.revision, answer.kvs);
        snapshot.ok_or_else(|| self.malformed())
    }

    /// Reads all keys that begin with a prefix, as they were at one moment.
    pub fn list(&mut self, prefix: &str, timeout: Duration) -> Result<Listing, EtcdError> {
        let until = Instant::now() + timeout;
        let mut list = Listing { revision: 0, items: Vec::new() };
        let mut from = Base64::from(prefix);
        loop {
            let request = RangeRequest {
                key: from,
                range_end: Some(end_of(prefix)),
                limit: Some(Int64(PAGE)),
                revision: (list.revision > 0).then_some(Int64(list.revision)),
            };
            let left = until.saturating_duration_since(Instant::now());
            let answer: RangeAnswer = self.transport.call("/v3/kv/range", &request, left)?;
            if list.revision == 0 {
                list.revision = answer.header.revision.0;
            }
            let is_good = list.take(prefix, answer.kvs);
            match list.items.last() {
                Some((last, _)) if is_good && answer.more => from = Base64([last.as_bytes(), &[0]].concat()),
                _ if is_good && !answer.more => return Ok(list),
                _ => return Err(self.malformed()),
            }
        }
    }

    /// Puts a value, whatever is there. Gives its revision.
    pub fn put(&mut self, key: &str, value: &[u8], timeout: Duration) -> Result<i64, EtcdError> {
        let request = PutRequest { key: key.into(), value: Base64(value.to_vec()) };
        let answer: WriteAnswer = self.transport.call("/v3/kv/put", &request, timeout)?;
        self.revision(answer.header.revision)
    }

    /// Deletes a key, if it is there. Gives the revision after that.
    pub fn delete(&mut self, key: &str, timeout: Duration) -> Result<i64, EtcdError> {
        let request = DeleteRequest { key: key.into() };
        let answer: WriteAnswer = self.transport.call("/v3/kv/deleterange", &request, timeout)?;
        self.revision(answer.header.revision)
    }

    /// Puts a value if the key is of that revision; 0: if it is absent.
    pub fn swap(&mut self, key: &str, expected: i64, value: &[u8], timeout: Duration) -> Result<Swap, EtcdError> {
        self.swap_with(key, expected, value, &[], timeout)
    }

    /// As [`Etcd::swap`], and does something else in the same moment; all of it or nothing.
    pub fn swap_with(
        &mut self,
        key: &str,
        expected: i64,
        value: &[u8],
        also: &[Also<'_>],
        timeout: Duration,
    ) -> Result<Swap, EtcdError> {
        self.change(key, expected, put_of(key, value), also, timeout)
    }

    /// Deletes a key that is of that revision, and does something else in the same moment; all of it or nothing.
    pub fn take(&mut self, key: &str, expected: i64, also: &[Also<'_>], timeout: Duration) -> Result<Swap, EtcdError> {
        self.change(key, expected, delete_of(key), also, timeout)
    }

    fn change(
        &mut self,
        key: &str,
        expected: i64,
        first: Operation,
        also: &[Also<'_>],
        timeout: Duration,
    ) -> Result<Swap, EtcdError> {
        let mut compare = vec![Compare::new(key, expected)];
        let mut success = vec![first];
        for also in also {
            match *also {
                Also::Put(key, value) => success.push(put_of(key, value)),
                Also::Delete(key, expected) => {
                    compare.push(Compare::new(key, expected));
                    success.push(delete_of(key));
                }
                Also::If(key, value) => compare.push(Compare::value(key, value)),
            }
        }
        let failure = vec![Operation::Range(RangeRequest { key: key.into(), ..RangeRequest::default() })];
        let request = TxnRequest { compare, success, failure };
        let answer: TxnAnswer = self.transport.call("/v3/kv/txn", &request, timeout)?;
        if answer.succeeded {
            return self.revision(answer.header.revision).map(Swap::Won);
        }
        let found = answer.responses.into_iter().find_map(|part| part.response_range);
        let found = found.and_then(|range| snapshot(key, answer.header.revision, range.kvs));
        found.map(Swap::Lost).ok_or_else(|| self.malformed())
    }

    fn revision(&mut self, revision: Int64) -> Result<i64, EtcdError> {
        if revision.0 > 0 { Ok(revision.0) } else { Err(self.malformed()) }
    }

    fn malformed(&mut self) -> EtcdError {
        self.transport.failed(EtcdError::Malformed, "an answer that is none to the request")
    }
}

impl Listing {
    /// Takes a page; false if it is none of this list.
    fn take(&mut self, prefix: &str, page: Vec<KeyValue>) -> bool {
        for item in page {
            let Some((key, value)) = named(item, self.revision) else { return false };
            let is_next = self.items.last().is_none_or(|(last, _)| *last < key);
            if !key.starts_with(prefix) || !is_next || self.items.len() >= LIST_MAX {
                return false;
            }
            self.items.push((key, value));
        }
        self.revision > 0
    }
}

fn put_of(key: &str, value: &[u8]) -> Operation {
    Operation::Put(PutRequest { key: key.into(), value: Base64(value.to_vec()) })
}

fn delete_of(key: &str) -> Operation {
    Operation::Delete(DeleteRequest { key: key.into() })
}

/// What a range of one key says; None if it cannot be.
fn snapshot(key: &str, revision: Int64, found: Vec<KeyValue>) -> Option<Snapshot> {
    let mut found = found.into_iter();
    let value = match found.next() {
        Some(item) => Some(named(item, revision.0).filter(|(name, _)| name == key)?.1),
        None => None,
    };
    (revision.0 > 0 && found.next().is_none()).then_some(Snapshot { revision: revision.0, value })
}

/// A key and its value; None if it cannot be at that revision.
pub(super) fn named(item: KeyValue, revision: i64) -> Option<(String, Versioned)> {
    let key = String::from_utf8(item.key.0).ok()?;
    let value = Versioned { bytes: item.value.0, mod_revision: item.mod_revision.0, version: item.version.0 };
    ((1..=revision).contains(&value.mod_revision) && value.version > 0).then_some((key, value))
}
