//! `dump`: every item of a server, ours or a memcached, as the commands of the meta protocol that store it again.
//!
//! ```text
//!   one connection   lru_crawler metadump all ──> key=… exp=…  ──> a file without a name   (`key_list`)
//!   another          mg <key> f t c v, 64 at a time ──> VA … ──┐   a value passes through in pieces
//!                        EN: it is gone meanwhile              v
//!   stdout           ms <key> <len> [b] [F…] T<absolute> [E…] q, data        …        mn: this is the end
//! ```
//!
//! metadump and not mgdump, which newer servers have and which is shorter: only metadump tells to the second when an item ends,
//! and `t` of an answer does not say which second it is counted from.
//!
//! The list is whole before the first value is asked for: a memcached moves what is read within its lists, and its crawler then
//! misses it. That goes on for a moment after the last read, so a list that is shorter than what the server counts is made again.
//!
//! Times are absolute, so that an item that has died before it is loaded stays dead. What the dump does not know to the
//! second is told as earlier: no item lives longer for having been dumped. A stale item stays stale; reading it takes
//! the token of its renewal, so it is marked stale again at once, and the next client is asked as before.
//!
//! Invariants: memory is bounded whatever the number and the size of the items; a file without `mn` at its end is a part.
//!
//! Not here: the list (`key_list`), what reads the dump (`load`).

use super::dial::{Dialed, number_of};
use super::exit::CtlExit;
use super::key_list::{KeyList, ListedKey};
use super::pace::{MovePace, MoveTotal, MovedServer};
use crate::protocol::KEY_MAX;
use crate::protocol::change::{self, Expiry, ItemState, PeerKeys, WireKey};
use crate::protocol::token::{strict_i64, strict_u32, strict_u64};
use std::io::Write;
use std::ops::RangeInclusive;
use std::time::Instant;

/// Keys that are asked for at once: what comes is read as it comes, so this costs the server no memory.
const BATCH: usize = 64;

/// Says that a dump is whole. A server answers `MN`.
pub(super) const END: &[u8] = b"mn\r\n";

/// Dumps a server to `out`. The text says what was done.
pub(super) fn dump(server: &MovedServer, out: &mut impl Write) -> Result<String, CtlExit> {
    let mut dumper = Dumper::new(server, out)?;
    let done = dumper.run();
    dumper.pace.end();
    let said = dumper.said();
    match done {
        Err(mut exit) => {
            exit.stderr += &format!("twincachectl: {said}; this is a part, and ends without `mn`\n");
            Err(exit)
        }
        // Whoever trusts the exit code must not miss an item.
        Ok(()) if dumper.unnamed > 0 => Err(CtlExit::not_done(&said)),
        Ok(()) => Ok(said),
    }
}

struct Dumper<'o, W> {
    list: KeyList,
    values: Dialed,
    out: &'o mut W,
    pace: MovePace,
    clock: ToldClock,
    /// Whether keys of any kind can be named.
    peer: PeerKeys,
    items: u64,
    gone: u64,
    unnamed: u64,
}

/// What an item is besides its key and value.
struct DumpedItem {
    len: u64,
    client_flags: u32,
    expiry: Expiry,
    cas: Option<u64>,
    is_stale: bool,
    is_win: bool,
    is_renewed: bool,
    is_binary: bool,
}

impl<'o, W: Write> Dumper<'o, W> {
    fn new(server: &MovedServer, out: &'o mut W) -> Result<Dumper<'o, W>, CtlExit> {
        let (mut keys, mut values) = (server.dial()?, server.dial()?);
        let rows = values.stats("")?;
        let clock = ToldClock::new(&values, &rows)?;
        let mut pace = MovePace::new(server.limit_megabits);
        let said = values.ask(b"mn\r\n")?;
        if said != "MN" {
            return Err(values.refused("it has no meta protocol; that came with memcached 1.6"));
        }
        let peer = match takes_blanks(&mut values, KEY_MAX)? {
            true => PeerKeys::All,
            false => PeerKeys::Short,
        };
        let list = KeyList::of(&mut keys)?;
        pace.total = Some(MoveTotal::Items(list.len()));
        Ok(Dumper { list, values, out, pace, clock, peer, items: 0, gone: 0, unnamed: 0 })
    }

    fn run(&mut self) -> Result<(), CtlExit> {
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(key) = self.list.next()? {
            batch.push(key);
            if batch.len() == BATCH {
                self.fetch(&mut batch)?;
            }
        }
        self.fetch(&mut batch)?;
        self.write(END)?;
        self.out.flush().map_err(|error| unwritten(&error))
    }

    /// Asks for these, and writes what is still there.
    fn fetch(&mut self, batch: &mut Vec<ListedKey>) -> Result<(), CtlExit> {
        let now = self.clock.now();
        let mut request = Vec::new();
        let peer = self.peer;
        let before = batch.len();
        batch.retain(|wanted| ask_for(&wanted.key, peer, b" f t c v\r\n", &mut request));
        self.unnamed += (before - batch.len()) as u64;
        self.values.send(&request)?;
        let mut spent = Vec::new();
        for wanted in batch.iter() {
            self.take(wanted, now, &mut spent)?;
        }
        self.give_back(&spent)?;
        batch.clear();
        self.pace.shown(self.items, self.items + self.gone + self.unnamed);
        Ok(())
    }

    /// Reads one answer.
    fn take(&mut self, wanted: &ListedKey, now: i64, spent: &mut Vec<(Vec<u8>, Expiry)>) -> Result<(), CtlExit> {
        let mut line = Vec::new();
        self.values.line(&mut line)?;
        if line == b"EN" {
            self.gone += 1;
            return Ok(());
        }
        let found = DumpedItem::parse(&line, wanted, now..=self.clock.now());
        let Some(found) = found else {
            return Err(self.values.refused(&format!("mg: {}", line.escape_ascii())));
        };
        let key = WireKey::new(&wanted.key, found.is_binary, PeerKeys::All).expect("any key has a base64");
        let state = found.state();
        let mut bytes = Vec::new();
        change::set_line(key, found.len, 0, found.client_flags, &state, &mut bytes);
        self.write(&bytes)?;
        let (values, out, pace) = (&mut self.values, &mut *self.out, &mut self.pace);
        values.copy(found.len, |piece| {
            pace.moved(piece.len());
            out.write_all(piece).map_err(|error| unwritten(&error))
        })?;
        self.values.line(&mut line)?;
        if !line.is_empty() {
            return Err(self.values.refused("a value has no end"));
        }
        bytes.clear();
        change::set_end(key, &state, &mut bytes);
        self.write(&bytes)?;
        self.items += 1;
        if found.is_stale && found.is_win {
            spent.push((wanted.key.clone(), found.expiry));
        }
        Ok(())
    }

    /// Marks those stale again whose token was taken. What a client has renewed meanwhile is renewed
    /// once more.
    fn give_back(&mut self, spent: &[(Vec<u8>, Expiry)]) -> Result<(), CtlExit> {
        for (key, expiry) in spent {
            let Some(key) = WireKey::new(key, false, self.peer) else { continue };
            let state = ItemState { expiry: *expiry, cas: None, stale: true, win: false };
            let mut bytes = Vec::new();
            change::marks(key, &state, &mut bytes);
            bytes.extend_from_slice(END);
            self.values.send(&bytes)?;
            let mut line = Vec::new();
            while line != b"MN" {
                self.values.line(&mut line)?;
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CtlExit> {
        self.pace.moved(bytes.len());
        self.out.write_all(bytes).map_err(|error| unwritten(&error))
    }

    fn said(&self) -> String {
        let mut text = format!("{} items of {}, {}", self.items, self.values.server, self.pace.volume());
        if self.gone > 0 {
            text += &format!("; {} were gone before they were read", self.gone);
        }
        if let Some(counted) = self.list.missing() {
            text += &format!("; the server counts {counted}, of which it lists {}", self.list.len());
        }
        if self.unnamed > 0 {
            text += &format!("; {} left out, whose keys are too long for this memcached's base64", self.unnamed);
        }
        text
    }
}

impl DumpedItem {
    /// `VA <len> f… t… c… [W] [X] [Z] [b]`.
    /// It was answered at one of these times.
    fn parse(line: &[u8], wanted: &ListedKey, now: RangeInclusive<i64>) -> Option<DumpedItem> {
        let mut words = line.strip_prefix(b"VA ")?.split(|byte| *byte == b' ');
        let mut found = DumpedItem {
            len: strict_u64(words.next()?)?,
            client_flags: 0,
            expiry: Expiry::NEVER,
            cas: None,
            is_stale: false,
            is_win: false,
            is_renewed: false,
            is_binary: false,
        };
        for word in words {
            let Some((letter, rest)) = word.split_first() else { continue };
            match letter {
                b'f' => found.client_flags = strict_u32(rest)?,
                b't' => found.expiry = expiry(strict_i64(rest)?, wanted.expires_at, &now),
                b'c' => found.cas = Some(strict_u64(rest)?),
                b'X' => found.is_stale = true,
                b'W' => found.is_win = true,
                b'Z' => found.is_renewed = true,
                b'b' => found.is_binary = true,
                _ => {}
            }
        }
        Some(found)
    }

    fn state(&self) -> ItemState {
        ItemState { expiry: self.expiry, cas: self.cas, stale: self.is_stale, win: self.is_renewed }
    }
}

/// The seconds that an item has left, as an absolute time: that of the list if it can be the same, since it is exact. The
/// server answered at one of these times, by a clock that may be a second ahead of what it told.
fn expiry(left: i64, listed: i64, now: &RangeInclusive<i64>) -> Expiry {
    if left < 0 {
        return Expiry::NEVER;
    }
    let at = now.start().saturating_add(left);
    let latest = now.end().saturating_add(left).saturating_add(3);
    let is_same = (at..=latest).contains(&listed);
    Expiry::at(if is_same { listed } else { at }, *now.start())
}

/// Appends an `mg`, if the server can be told of the key.
fn ask_for(key: &[u8], peer: PeerKeys, tail: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(wire) = WireKey::new(key, false, peer) else { return false };
    change::fetch(wire, out);
    // `fetch` is quiet about a miss; this wants an answer for each.
    let kept = out.len() - b" q\r\n".len();
    out.truncate(kept);
    out.extend_from_slice(tail);
    true
}

/// Whether base64 may name keys of so many bytes. memcached takes at most 250 characters of it.
pub(super) fn takes_blanks(server: &mut Dialed, len: usize) -> Result<bool, CtlExit> {
    let mut request = Vec::new();
    ask_for(&[b' '; KEY_MAX][..len], PeerKeys::All, b"\r\n", &mut request);
    let said = server.ask(&request)?;
    Ok(!said.starts_with("CLIENT_ERROR"))
}

fn unwritten(error: &std::io::Error) -> CtlExit {
    CtlExit::not_done(&format!("stdout: {error}"))
}

/// What time it is at a server, and never later than it is.
#[derive(Debug)]
pub(super) struct ToldClock {
    said: i64,
    heard: Instant,
}

impl ToldClock {
    /// By the `time` of its statistics.
    pub(super) fn new(from: &Dialed, rows: &[(String, String)]) -> Result<ToldClock, CtlExit> {
        let said = number_of(rows, "time").and_then(|time| i64::try_from(time).ok());
        let said = said.ok_or_else(|| from.refused("its stats have no `time`"))?;
        Ok(ToldClock { said, heard: Instant::now() })
    }

    /// In seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.said.saturating_add(i64::try_from(self.heard.elapsed().as_secs()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
#[path = "tests/dump.rs"]
mod tests;
