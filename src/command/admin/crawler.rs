//! `lru_crawler`: the crawler, and where dumps of all keys begin.
//!
//! Not here: what a dump prints (`command/dump`), walking the items (`store`).

use crate::command::dump::{DumpForm, KeyDump, LongAnswer};
use crate::command::reply::{OK, Reply};
use crate::command::{Context, Next, Output};
use crate::protocol::BAD_FORMAT;
use crate::protocol::text::UNKNOWN;
use crate::protocol::token::{means, strict_u32};
use crate::store::{ClassSet, Store, Tuning};

/// A longer pause between two slices would be no crawler any more.
const SLEEP_MAX_US: u32 = 1_000_000;

/// memcached's slab classes are numbered below this.
const CLASSES: u32 = 64;

/// Slab classes are numbered below this. Where there are more than memcached has they can be named, too.
pub(super) fn classes(store: &Store) -> u32 {
    CLASSES.max(u32::from(store.largest_class()) + 1)
}

/// lru_crawler: a reply, or a dump to go on with.
pub(crate) fn lru_crawler(args: &[&[u8]], context: &Context<'_>, out: &mut Output) -> Result<Next, Reply> {
    // COMPAT(crawler_words): one word too many makes an unknown command of each.
    match args {
        [word, classes] if means(word, "crawl") => Err(crawl(classes, context)),
        [word, classes] if means(word, "metadump") => start(DumpForm::Meta, classes, context, out),
        [word, classes] if means(word, "mgdump") => start(DumpForm::Get, classes, context, out),
        [word, count] if means(word, "tocrawl") => Err(tocrawl(count, context)),
        [word, us] if means(word, "sleep") => Err(sleep(us, context)),
        [word] if means(word, "enable") => Err(enable(context)),
        [word] if means(word, "disable") => Err(disable(context)),
        _ => Err(UNKNOWN),
    }
}

fn start(form: DumpForm, classes: &[u8], context: &Context<'_>, out: &mut Output) -> Result<Next, Reply> {
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
        _ => class_set(classes, self::classes(&context.shared.store))?,
    };
    let walk = context.shared.store.dump(classes).ok_or(BUSY)?;
    out.push(OK);
    Ok(Next::Dump(Box::new(LongAnswer::Keys(KeyDump::new(form, walk)))))
}

const BAD_CLASS: Reply = b"BADCLASS invalid class id\r\n";
const BUSY: Reply = b"BUSY currently processing crawler request\r\n";
const NOT_STARTED: Reply = b"NOTSTARTED no items to crawl\r\n";

fn crawl(classes: &[u8], context: &Context<'_>) -> Reply {
    if !context.shared.store.crawler_enabled() {
        return b"CLIENT_ERROR lru crawler disabled\r\n";
    }
    let classes = match class_set(classes, self::classes(&context.shared.store)) {
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

/// Changes a setting of the store.
pub(super) fn tune(context: &Context<'_>, change: impl FnOnce(&mut Tuning)) -> Reply {
    context.shared.store.tune(change);
    OK
}

/// `all`, or class numbers between commas, which are less than `below`.
fn class_set(text: &[u8], below: u32) -> Result<ClassSet, Reply> {
    if text == b"all" {
        return Ok(ClassSet::ALL);
    }
    let numbers = text.split(|&byte| byte == b',').filter(|number| !number.is_empty());
    let set = numbers.map(strict_u32).try_fold(0, |set, class| -> Result<_, Reply> {
        let class = class.filter(|class| (1..below).contains(class)).ok_or(BAD_CLASS)?;
        Ok(set | 1 << class)
    })?;
    if set == 0 { Err(NOT_STARTED) } else { Ok(ClassSet(set)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_sets() {
        let cases: [(&str, Result<u128, Reply>); 14] = [
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
            assert_eq!(class_set(text.as_bytes(), CLASSES), set.map(ClassSet), "{text}");
        }
        let more = [("101,64", Ok(ClassSet(1 << 64 | 1 << 101))), ("102", Err(BAD_CLASS))];
        for (text, set) in more {
            assert_eq!(class_set(text.as_bytes(), 102), set, "{text}");
        }
    }
}
