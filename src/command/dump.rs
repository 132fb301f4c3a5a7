//! Dumps of all keys: `lru_crawler metadump` and `mgdump`.
//!
//! ```text
//! metadump   OK \r\n  key=<uri> exp=… la=… cas=… fetch=… cls=… size=… flags=… \n   …   END \r\n
//! mgdump     OK \r\n  mg <key> \r\n  |  mg <base64> b \r\n                           …   EN \r\n
//! ```
//!
//! A dump is made in bounded pieces, each when the connection has flushed the one before: it takes no more
//! memory for a large cache than for a small one, and a client that stops reading stops it.
//!
//! Not here: when one may begin (`admin/crawler`), walking the items (`store`).

use super::Output;
use super::reply::Reply;
use crate::clock::Clock;
use crate::protocol::base64;
use crate::store;
use crate::store::Item;
use crate::watch::Uri;
use std::io::Write;

/// A piece of a dump ends at this many bytes of output: what a socket takes at once.
const PIECE: usize = 32 << 10;

/// A piece also ends after so many steps of the walk, as there may be little to print in a large table: some 0.2 ms.
const STEPS: usize = 32;

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

    /// Appends a bounded piece of the dump; false when that was the last.
    pub fn fill(&mut self, clock: &Clock, out: &mut Output) -> bool {
        let end = out.bytes.len() + PIECE;
        let form = self.form;
        for _ in 0..STEPS {
            if !self.walk.next(&mut |item| form.line(&item, clock, &mut out.bytes)) {
                out.push(form.end());
                return false;
            }
            if out.bytes.len() >= end {
                break;
            }
        }
        true
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
