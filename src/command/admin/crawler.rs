//! `lru_crawler`, and the dumps of all keys that it offers.
//!
//! ```text
//! metadump   OK \r\n  key=<uri> exp=… la=… cas=… fetch=… cls=… size=… flags=… \n   …   END \r\n
//! mgdump     OK \r\n  mg <key> \r\n  |  mg <base64> b \r\n                           …   EN \r\n
//! ```
//!
//! A dump is made in bounded pieces, each when the connection has flushed the one before: it takes no more
//! memory for a large cache than for a small one, and a client that stops reading stops it.
//!
//! Not here: walking the items (`store`).

use super::{CLASSES, means, tune};
use crate::clock::Clock;
use crate::command::reply::{OK, Reply};
use crate::command::{Context, Next, Output};
use crate::protocol::BAD_FORMAT;
use crate::protocol::base64;
use crate::protocol::text::UNKNOWN;
use crate::protocol::token::strict_u32;
use crate::store;
use crate::store::{ClassSet, Item};
use crate::watch::Uri;
use std::io::Write;

/// A longer pause between two slices would be no crawler any more.
const SLEEP_MAX_US: u32 = 1_000_000;

/// A piece of a dump ends at this many bytes of output: what a socket takes at once.
const PIECE: usize = 32 << 10;

/// A piece also ends after so many steps of the walk, as there may be little to print in a large table: some 0.2 ms.
const STEPS: usize = 32;

/// lru_crawler: a reply, or a dump to go on with.
pub(crate) fn lru_crawler(args: &[&[u8]], context: &Context<'_>, out: &mut Output) -> Result<Next, Reply> {
    match args {
        [word, classes, ..] if means(word, "crawl") => Err(crawl(classes, context)),
        [word, classes, ..] if means(word, "metadump") => Dump::start(Form::Meta, classes, context, out),
        [word, classes, ..] if means(word, "mgdump") => Dump::start(Form::Get, classes, context, out),
        [word, count, ..] if means(word, "tocrawl") => Err(tocrawl(count, context)),
        [word, us, ..] if means(word, "sleep") => Err(sleep(us, context)),
        [word] if means(word, "enable") => Err(enable(context)),
        [word] if means(word, "disable") => Err(disable(context)),
        _ => Err(UNKNOWN),
    }
}

/// A metadump or mgdump in progress.
#[derive(Debug)]
pub struct Dump {
    form: Form,
    walk: store::Dump,
}

impl Dump {
    /// Appends a bounded piece of the dump; false when that was the last.
    pub fn fill(&mut self, context: &mut Context<'_>, out: &mut Output) -> bool {
        let end = out.bytes.len() + PIECE;
        let clock = &context.shared.clock;
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

    fn start(form: Form, classes: &[u8], context: &Context<'_>, out: &mut Output) -> Result<Next, Reply> {
        if !context.shared.store.crawler_enabled() {
            return Err(b"CLIENT_ERROR lru crawler disabled\r\n");
        }
        if !context.shared.config.dump_enabled {
            return Err(form.not_allowed());
        }
        if !context.is_first_reply(out) {
            return Err(form.not_pipelined());
        }
        let classes = match classes {
            b"hash" => ClassSet::ALL,
            _ => class_set(classes)?,
        };
        let walk = context.shared.store.dump(classes).ok_or(BUSY)?;
        out.push(OK);
        Ok(Next::Dump(Box::new(Dump { form, walk })))
    }
}

const BAD_CLASS: Reply = b"BADCLASS invalid class id\r\n";
const BUSY: Reply = b"BUSY currently processing crawler request\r\n";
const NOT_STARTED: Reply = b"NOTSTARTED no items to crawl\r\n";

#[derive(Clone, Copy, Debug)]
enum Form {
    Meta,
    Get,
}

impl Form {
    fn line(self, item: &Item<'_>, clock: &Clock, out: &mut Vec<u8>) {
        match self {
            Form::Meta => metadump_line(item, clock, out),
            Form::Get => mgdump_line(item.key(), item.key_is_binary(), out),
        }
    }

    fn end(self) -> Reply {
        match self {
            Form::Meta => b"END\r\n",
            Form::Get => b"EN\r\n",
        }
    }

    fn not_allowed(self) -> Reply {
        match self {
            Form::Meta => b"ERROR metadump not allowed\r\n",
            Form::Get => b"ERROR key dump not allowed\r\n",
        }
    }

    fn not_pipelined(self) -> Reply {
        match self {
            Form::Meta => b"ERROR cannot pipeline other commands before metadump\r\n",
            Form::Get => b"ERROR cannot pipeline other commands before mgdump\r\n",
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

fn crawl(classes: &[u8], context: &Context<'_>) -> Reply {
    if !context.shared.store.crawler_enabled() {
        return b"CLIENT_ERROR lru crawler disabled\r\n";
    }
    let classes = match class_set(classes) {
        Ok(classes) => classes,
        Err(reply) => return reply,
    };
    if context.shared.store.crawl(classes) { OK } else { BUSY }
}

fn tocrawl(count: &[u8], context: &Context<'_>) -> Reply {
    match strict_u32(count) {
        None => BAD_FORMAT,
        Some(count) => tune(context, |tuning| tuning.crawler_tocrawl = count),
    }
}

fn sleep(us: &[u8], context: &Context<'_>) -> Reply {
    match strict_u32(us) {
        None => BAD_FORMAT,
        Some(us) if us > SLEEP_MAX_US => b"CLIENT_ERROR sleep must be one second or less\r\n",
        Some(us) => tune(context, |tuning| tuning.crawler_sleep_us = us),
    }
}

fn enable(context: &Context<'_>) -> Reply {
    match context.shared.store.enable_crawler(true) {
        true => OK,
        false => b"ERROR failed to start lru crawler thread\r\n",
    }
}

fn disable(context: &Context<'_>) -> Reply {
    // Already off is as good.
    context.shared.store.enable_crawler(false);
    OK
}

/// `all`, or class numbers between commas.
fn class_set(text: &[u8]) -> Result<ClassSet, Reply> {
    if text == b"all" {
        return Ok(ClassSet::ALL);
    }
    let numbers = text.split(|&byte| byte == b',').filter(|number| !number.is_empty());
    let set = numbers.map(strict_u32).try_fold(0, |set, class| {
        let class = class.filter(|class| (1..CLASSES).contains(class)).ok_or(BAD_CLASS)?;
        Ok(set | 1 << class)
    })?;
    if set == 0 { Err(NOT_STARTED) } else { Ok(ClassSet(set)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_sets() {
        let cases: [(&str, Result<u64, Reply>); 14] = [
            ("all", Ok(!1)),
            ("1", Ok(2)),
            ("1,3,5", Ok(0b101010)),
            ("63", Ok(1 << 63)),
            (",2,", Ok(4)),
            ("1,1", Ok(2)),
            ("0", Err(BAD_CLASS)),
            ("64", Err(BAD_CLASS)),
            ("1,64", Err(BAD_CLASS)),
            ("4294967297", Err(BAD_CLASS)),
            ("foo", Err(BAD_CLASS)),
            ("-1", Err(BAD_CLASS)),
            ("+1", Err(BAD_CLASS)),
            (",", Err(NOT_STARTED)),
        ];
        for (text, set) in cases {
            assert_eq!(class_set(text.as_bytes()), set.map(ClassSet), "{text}");
        }
    }

    #[test]
    fn mgdump_lines() {
        let mut out = Vec::new();
        mgdump_line(b"dk%a", false, &mut out);
        mgdump_line(&[0, 1, 2, 3], true, &mut out);
        assert_eq!(out, b"mg dk%a\r\nmg AAECAw== b\r\n");
    }
}
