//! Whether two quiet servers hold the same.

use crate::common::{Conn, DEADLINE, Waited, show};
use crate::pair::{Pair, PeerKind, items};
use crate::storm::Keys;
use std::time::Instant;

/// Keys asked for at a time.
const BATCH: usize = 500;

/// Differences shown.
const SHOWN: usize = 10;

/// Each server counts seconds from its own start, and tells what is left by a second that may be late: an expiry within
/// one second of the other's may look so far away. Besides there is the time that asking takes.
const TTL_SLACK: u64 = 2;

/// Panics unless every key is equal in value, client flags, expiry, cas and stale state. An old memcached has no say
/// in cas.
pub fn assert_equal(pair: &Pair, keys: Keys) {
    let (mut ours, mut theirs) = (pair.primary.connect(), pair.peer.connect());
    let flags: &[u8] = match pair.kind() {
        PeerKind::Twincached | PeerKind::StockWithCas => b" s f t v c\r\n",
        PeerKind::Stock => b" s f t v\r\n",
    };
    let (mut held, mut differ, mut examples) = (0, 0, Vec::new());
    let all: Vec<usize> = (0..keys.count).collect();
    for batch in all.chunks(BATCH) {
        // The copy first: what asking does to a stale item of the primary reaches the copy.
        let began = Instant::now();
        let copies = ask(&mut theirs, keys, batch, flags);
        let replies = ask(&mut ours, keys, batch, flags);
        let slack = TTL_SLACK + began.elapsed().as_secs();
        for ((index, reply), copy) in batch.iter().zip(&replies).zip(&copies) {
            held += usize::from(reply.line != b"EN");
            if let Some(difference) = reply.difference(copy, slack) {
                differ += 1;
                if examples.len() < SHOWN {
                    examples.push(format!("{}: {difference}", show(&keys.key(*index))));
                }
            }
        }
    }
    assert!(differ == 0, "{differ} of {} keys differ:\n{}", keys.count, examples.join("\n"));
    assert!(held > keys.count / 200, "only {held} of {} keys are held: that shows nothing", keys.count);
    let (ours, theirs) = (items(&mut ours), items(&mut theirs));
    println!("{} keys equal, {held} of them held; items {ours} and {theirs}", keys.count);
}

/// What a server says of a key: the line without the expiry, the expiry, and the value.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    line: Vec<u8>,
    ttl: i64,
    value: Vec<u8>,
}

impl Reply {
    fn difference(&self, other: &Reply, slack: u64) -> Option<String> {
        let same_ttl =
            self.ttl == other.ttl || self.ttl >= 0 && other.ttl >= 0 && self.ttl.abs_diff(other.ttl) <= slack;
        if self.line == other.line && same_ttl && self.value == other.value {
            return None;
        }
        let text = |reply: &Reply| format!("{} t{} {}", show(&reply.line), reply.ttl, show(&reply.value));
        Some(format!("{}\n    and {}", text(self), text(other)))
    }
}

fn ask(conn: &mut Conn, keys: Keys, batch: &[usize], flags: &[u8]) -> Vec<Reply> {
    let mut request = Vec::new();
    for &index in batch {
        let (word, base64) = keys.word(index);
        request.extend_from_slice(&[b"mg ", &word[..], base64, flags].concat());
    }
    request.extend_from_slice(b"mn\r\n");
    conn.send(&request);
    assert_eq!(conn.read_until(DEADLINE, |got| got.ends_with(b"\r\nMN\r\n")), Waited::Done, "not answered");
    let got = std::mem::take(&mut conn.got);
    let mut rest = &got[..];
    batch.iter().map(|_| take(&mut rest)).collect()
}

fn take(rest: &mut &[u8]) -> Reply {
    let end = rest.iter().position(|&byte| byte == b'\n').expect("a whole line");
    let line = rest[..end].trim_ascii_end();
    *rest = &rest[end + 1..];
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let ttl = words.iter().find(|word| word[0] == b't').and_then(|word| number(&word[1..]));
    let mut value = Vec::new();
    if words[0] == b"VA" {
        let len = number(words[1]).expect("a length") as usize;
        value.extend_from_slice(&rest[..len]);
        *rest = &rest[len + 2..];
    }
    let kept: Vec<&[u8]> = words.into_iter().filter(|word| word[0] != b't').collect();
    Reply { line: kept.join(&b' '), ttl: ttl.unwrap_or(-1), value }
}
