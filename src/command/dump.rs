//! Answers that are made in pieces: `lru_crawler metadump` and `mgdump`, `stats cachedump`, `stats detail dump`, `stats
//! conns`.
//!
//! ```text
//! metadump   OK \r\n  key=<uri> exp=… la=… cas=… fetch=… cls=… size=… flags=… \n   …   END \r\n
//! mgdump     OK \r\n  mg <key> \r\n  |  mg <base64> b \r\n                           …   EN \r\n
//! cachedump  ITEM <key> [<length> b; <exptime> s] \r\n    …   END \r\n
//! conns      STAT <descriptor>:<name> <value> \r\n  …   END \r\n
//! detail     PREFIX <prefix> get … hit … set … del … \r\n  …   END \r\n
//! ```
//!
//! A dump is made in bounded pieces, each when the connection has flushed the one before: it takes no more
//! memory for a large cache than for a small one, and a client that stops reading stops it. What bounds a piece is what was looked at for it, whether or not that shows.
//!
//! Not here: when one may begin (`admin`), walking the items (`store`) and the prefixes (`stats`), other statistics (`admin/stats`).

use super::Output;
use super::reply::{END, Reply};
use crate::clock::Clock;
use crate::protocol::base64;
use crate::stats::{CONN_STATES, ConnInfo, PrefixWalk, Registry};
use crate::store;
use crate::store::{ColdWalk, Item};
use crate::sync::lock;
use crate::watch::Uri;
use std::io::Write;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A piece of a dump ends at this many bytes of output: what a socket takes at once.
const PIECE: usize = 32 << 10;

/// A piece also ends after so many steps of the walk, as there may be little to print in a large table: some 0.2 ms.
const STEPS: usize = 32;

/// Connections whose rows are a piece: 0.1 ms.
const CONNS: usize = 128;

/// `stats cachedump` has so many bytes at most, as memcached's.
const COLD_MAX: usize = 2 << 20;

/// An answer in progress.
#[derive(Debug)]
pub enum LongAnswer {
    /// metadump, mgdump.
    Keys(KeyDump),
    /// cachedump.
    Cold(ColdDump),
    /// detail dump: where it goes on.
    Prefixes(PrefixWalk),
    /// conns.
    Conns(ConnWalk),
}

/// What a piece of an answer came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// There is more.
    More,
    /// That was all.
    End,
    /// There will be no more, and it is not whole.
    Lost,
}

impl LongAnswer {
    /// Appends a bounded piece of the answer.
    pub fn fill(&mut self, clock: &Clock, stats: &Registry, out: &mut Output) -> Filled {
        match self {
            LongAnswer::Keys(dump) => dump.fill(clock, out),
            LongAnswer::Cold(dump) => dump.fill(clock, out),
            LongAnswer::Prefixes(walk) => match stats.prefixes.dump_some(walk, &mut out.bytes) {
                true => Filled::More,
                false => end(END, out),
            },
            LongAnswer::Conns(walk) => walk.fill(clock, stats, out),
        }
    }
}

fn end(line: Reply, out: &mut Output) -> Filled {
    out.push(line);
    Filled::End
}

/// A cachedump in progress.
#[derive(Debug)]
pub struct ColdDump {
    walk: ColdWalk,
    /// Lines that may still come.
    lines: usize,
    /// Bytes that may still come, the last line among them.
    bytes: usize,
}

impl ColdDump {
    /// One of at most `limit` lines; 0 is any number.
    pub(super) fn new(walk: ColdWalk, limit: usize) -> ColdDump {
        ColdDump { walk, lines: if limit == 0 { usize::MAX } else { limit }, bytes: COLD_MAX }
    }

    fn fill(&mut self, clock: &Clock, out: &mut Output) -> Filled {
        let (lines, bytes) = (&mut self.lines, &mut self.bytes);
        let start = out.bytes.len();
        let more = self.walk.next(&mut |item| {
            // Keys that came base64-encoded make no lines, so they do not count.
            if item.key_is_binary() {
                return true;
            }
            let before = out.bytes.len();
            cachedump_line(&item, clock, &mut out.bytes);
            let len = out.bytes.len() - before;
            if *lines == 0 || len + END.len() > *bytes {
                out.bytes.truncate(before);
                return false;
            }
            (*lines, *bytes) = (*lines - 1, *bytes - len);
            *lines > 0
        });
        debug_assert!(out.bytes.len() - start <= COLD_MAX, "a piece is a part of it");
        if more { Filled::More } else { end(END, out) }
    }
}

fn cachedump_line(item: &Item<'_>, clock: &Clock, out: &mut Vec<u8>) {
    let expires_at = match item.expires_at() {
        0 => 0,
        second => clock.unix(second),
    };
    out.extend_from_slice(b"ITEM ");
    out.extend_from_slice(item.key());
    let written = write!(out, " [{} b; {expires_at} s]\r\n", item.value_len());
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

/// `stats conns` in progress, in order of descriptors.
#[derive(Debug)]
pub struct ConnWalk {
    /// Who asks: it is always in the middle of a command.
    asks: i32,
    /// Whose rows were the last.
    last: i32,
}

impl ConnWalk {
    /// One for the connection of this descriptor.
    pub(super) fn new(asks: i32) -> ConnWalk {
        ConnWalk { asks, last: i32::MIN }
    }

    fn fill(&mut self, clock: &Clock, stats: &Registry, out: &mut Output) -> Filled {
        let after = (Bound::Excluded(self.last), Bound::Unbounded);
        // Who connects or closes waits for the lock, so nothing is formatted meanwhile.
        let conns: Vec<Arc<ConnInfo>> =
            lock(&stats.conns).range(after).take(CONNS).map(|(_, conn)| conn.clone()).collect();
        for conn in &conns {
            let written = conn_rows(conn, self.asks, clock.now(), &mut out.bytes);
            debug_assert!(written.is_ok(), "a Vec takes everything");
            self.last = conn.fd;
        }
        if conns.len() == CONNS { Filled::More } else { end(END, out) }
    }
}

fn conn_rows(conn: &ConnInfo, asks: i32, now: u32, out: &mut Vec<u8>) -> std::io::Result<()> {
    let ConnInfo { fd, addr, .. } = conn;
    if addr.starts_with("udp") {
        write!(out, "STAT {fd}:UDP UDP\r\n")?;
    }
    write!(out, "STAT {fd}:addr {addr}\r\n")?;
    if let Some(listen_addr) = &conn.listen_addr {
        write!(out, "STAT {fd}:listen_addr {listen_addr}\r\n")?;
    }
    let state = match conn.state.load(Ordering::Relaxed) {
        _ if *fd == asks => "conn_parse_cmd",
        state => CONN_STATES.get(usize::from(state)).unwrap_or(&"conn_closing"),
    };
    let idle = now.saturating_sub(conn.last_cmd.load(Ordering::Relaxed));
    write!(out, "STAT {fd}:state {state}\r\nSTAT {fd}:secs_since_last_cmd {idle}\r\n")
}

/// A metadump or mgdump in progress.
#[derive(Debug)]
pub struct KeyDump {
    form: DumpForm,
    walk: store::Dump,
}

impl KeyDump {
    /// A dump of what `walk` finds.
    pub(super) fn new(form: DumpForm, walk: store::Dump) -> KeyDump {
        KeyDump { form, walk }
    }

    fn fill(&mut self, clock: &Clock, out: &mut Output) -> Filled {
        if !self.walk.goes_on() {
            return Filled::Lost;
        }
        let full = out.bytes.len() + PIECE;
        let form = self.form;
        for _ in 0..STEPS {
            if !self.walk.next(&mut |item| form.line(&item, clock, &mut out.bytes)) {
                return end(form.end(), out);
            }
            if out.bytes.len() >= full {
                break;
            }
        }
        Filled::More
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum DumpForm {
    /// metadump.
    Meta,
    /// mgdump.
    Get,
}

impl DumpForm {
    fn line(self, item: &Item<'_>, clock: &Clock, out: &mut Vec<u8>) {
        match self {
            DumpForm::Meta => metadump_line(item, clock, out),
            DumpForm::Get => mgdump_line(item.key(), item.key_is_binary(), out),
        }
    }

    fn end(self) -> Reply {
        match self {
            DumpForm::Meta => b"END\r\n",
            DumpForm::Get => b"EN\r\n",
        }
    }

    /// The answer under `-X`.
    pub(super) fn not_allowed(self) -> Reply {
        match self {
            DumpForm::Meta => b"ERROR metadump not allowed\r\n",
            DumpForm::Get => b"ERROR key dump not allowed\r\n",
        }
    }

    /// The answer when it is not the first reply.
    pub(super) fn not_pipelined(self) -> Reply {
        match self {
            DumpForm::Meta => b"ERROR cannot pipeline other commands before metadump\r\n",
            DumpForm::Get => b"ERROR cannot pipeline other commands before mgdump\r\n",
        }
    }
}

// COMPAT(metadump-line): these lines end in a blank and a line feed alone.
fn metadump_line(item: &Item<'_>, clock: &Clock, out: &mut Vec<u8>) {
    let expires_at = match item.expires_at() {
        0 => -1,
        second => clock.unix(second),
    };
    let written = writeln!(
        out,
        "key={} exp={expires_at} la={} cas={} fetch={} cls={} size={} flags={} ",
        Uri(item.key()),
        clock.unix(item.last_access()),
        item.cas(),
        if item.is_fetched() { "yes" } else { "no" },
        item.class(),
        item.size(),
        item.client_flags(),
    );
    debug_assert!(written.is_ok(), "a Vec takes everything");
}

fn mgdump_line(key: &[u8], is_binary: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b"mg ");
    if is_binary {
        base64::encode(key, out);
        out.extend_from_slice(b" b");
    } else {
        out.extend_from_slice(key);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mgdump_lines() {
        let mut out = Vec::new();
        mgdump_line(b"dk%a", false, &mut out);
        mgdump_line(&[0, 1, 2, 3], true, &mut out);
        assert_eq!(out, b"mg dk%a\r\nmg AAECAw== b\r\n");
    }
}
