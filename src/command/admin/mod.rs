//! Administrative text commands, `stats` among them.
//!
//! Each command is a function from its arguments to one of memcached's replies; replies are constants. The
//! order of checks inside a command is memcached's, so that a line with two mistakes gets the same answer.
//!
//! Sub-words may be cut short: any beginning of a word stands for it, and where several words begin so, the
//! first in memcached's order wins.
//!
//! Not here: `lru_crawler` and its dumps (`dump.rs`), what statistics there are (`stats.rs`).

mod crawler;
mod replica;
pub mod stats;
pub mod watch;

use super::{Context, Next, Output};
use crate::VERSION;
use crate::command::reply::{END, OK, Reply};
use crate::config::log_level;
use crate::protocol::BAD_FORMAT;
use crate::protocol::text::{Admin, BAD_EXPTIME, UNKNOWN};
use crate::protocol::token::{Tokens, strict_i32, strict_u32};
use crate::store::{Reassign, Tuning};
use crate::watch::Streams;
use crawler::lru_crawler;

pub use crawler::Dump;

/// `verbosity` above this means this: what lies above is for debugging the event loop, and comes from `-v`.
const VERBOSITY_MAX: u32 = 2;

/// `cache_memlimit` in MiB: memcached's bounds.
const MEMLIMIT_MIN: u32 = 8;
const MEMLIMIT_MAX: u32 = 1_000_000_000;

/// HOT and WARM together, percent: COLD must keep a share to evict from.
const HOT_WARM_MAX: u64 = 80;

/// Seconds of history that the page mover may look at.
const WINDOW: std::ops::RangeInclusive<u32> = 3..=1800;

/// Slab classes are numbered below this.
pub(crate) const CLASSES: u32 = 64;

/// `stats cachedump` stops here: it is made in one piece, in memory.
const CACHEDUMP_MAX: usize = 2 << 20;

/// Runs an administrative text command.
pub fn run(verb: Admin, tokens: &Tokens<'_>, noreply: bool, context: &mut Context<'_>, out: &mut Output) -> Next {
    let args = arguments(tokens, noreply);
    let answer: Result<Next, Reply> = match verb {
        Admin::Stats => return statistics(args, context, out),
        Admin::Version => return version(out),
        Admin::FlushAll => Err(flush_all(args, context)),
        Admin::Verbosity => Err(verbosity(args)),
        Admin::Shutdown => shutdown(tokens, context),
        Admin::CacheMemlimit => Err(cache_memlimit(args, context)),
        Admin::Slabs => Err(slabs(args, context)),
        Admin::Lru => Err(lru(args, context)),
        Admin::LruCrawler => lru_crawler(args, context, out),
        Admin::Watch => watch(args, context, context.is_first_reply(out)),
        Admin::RefreshCerts => Err(b"Error TLS not enabled\r\n"),
        Admin::Extstore => Err(extstore(args)),
        Admin::Replica => return replica::run(args, noreply, context, out),
        // memcached tries here what its system call filter should forbid. There is no filter to try.
        Admin::Misbehave => Err(UNKNOWN),
        Admin::Debugtime => Err(debugtime(args, context)),
        Admin::Debugitem => Err(debugitem(args, context)),
    };
    match answer {
        Ok(next) => next,
        Err(reply) => {
            if !noreply {
                out.push(reply);
            }
            Next::Continue
        }
    }
}

/// Whether `text` stands for `word`.
pub(crate) fn means(text: &[u8], word: &str) -> bool {
    word.as_bytes().starts_with(text)
}

/// What follows the command word, without `noreply`.
fn arguments<'t, 'a>(tokens: &'t Tokens<'a>, noreply: bool) -> &'t [&'a [u8]] {
    match tokens.as_slice() {
        [_, args @ .., _] if noreply => args,
        [_, args @ ..] => args,
        [] => &[],
    }
}

fn version(out: &mut Output) -> Next {
    out.push(b"VERSION ");
    out.push(VERSION.as_bytes());
    out.push(b"\r\n");
    Next::Continue
}

fn flush_all(args: &[&[u8]], context: &Context<'_>) -> Reply {
    context.counters.flush_cmds.add(1);
    if !context.shared.config.flush_enabled {
        return b"CLIENT_ERROR flush_all not allowed\r\n";
    }
    let exptime = match args.first() {
        None => 0,
        Some(text) => match strict_i32(text) {
            None => return BAD_EXPTIME,
            Some(exptime) => exptime.max(0),
        },
    };
    context.flush_all(exptime.into());
    OK
}

fn verbosity(args: &[&[u8]]) -> Reply {
    let Some(level) = args.first().and_then(|text| strict_u32(text)) else { return BAD_FORMAT };
    log::set_max_level(log_level(level.min(VERBOSITY_MAX) as u8));
    OK
}

// COMPAT(shutdown-noreply): `noreply` is taken for a mode, so the server neither stops nor answers.
fn shutdown(tokens: &Tokens<'_>, context: &Context<'_>) -> Result<Next, Reply> {
    if !context.shared.config.shutdown_command {
        return Err(b"SERVER_ERROR: shutdown not enabled\r\n");
    }
    match tokens.get(1) {
        None => Ok(Next::Shutdown { graceful: false }),
        Some(b"graceful") => Ok(Next::Shutdown { graceful: true }),
        Some(_) => Err(b"CLIENT_ERROR invalid shutdown mode\r\n"),
    }
}

fn cache_memlimit(args: &[&[u8]], context: &Context<'_>) -> Reply {
    let Some(mib) = args.first().and_then(|text| strict_u32(text)) else { return UNKNOWN };
    match mib {
        0..MEMLIMIT_MIN => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
        MEMLIMIT_MIN..=MEMLIMIT_MAX => match context.shared.store.set_memory_limit(u64::from(mib) << 20) {
            true => OK,
            false => b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
        },
        _ => b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n",
    }
}

fn slabs(args: &[&[u8]], context: &Context<'_>) -> Reply {
    match args {
        [word, src, dst, ..] if means(word, "reassign") => slabs_reassign(src, dst, context),
        [word, args @ ..] if means(word, "automove") => slabs_automove(args, context),
        _ => UNKNOWN,
    }
}

fn slabs_reassign(src: &[u8], dst: &[u8], context: &Context<'_>) -> Reply {
    if !context.shared.config.store.slab_reassign {
        return b"CLIENT_ERROR slab reassignment disabled\r\n";
    }
    let (Some(src), Some(dst)) = (strict_i32(src), strict_i32(dst)) else { return BAD_FORMAT };
    match context.shared.store.reassign(src.into(), dst.into()) {
        Reassign::Ok => OK,
        Reassign::Same => b"SAME src and dst class are identical\r\n",
        Reassign::BadClass => b"BADCLASS invalid src or dst class id\r\n",
        Reassign::NoSpare => b"NOSPARE source class has no spare pages\r\n",
        Reassign::Busy => b"BUSY currently processing reassign request\r\n",
    }
}

fn slabs_automove(args: &[&[u8]], context: &Context<'_>) -> Reply {
    let [word, rest @ ..] = args else { return UNKNOWN };
    if means(word, "ratio") {
        return tune_factor(rest, context, |tuning, ratio| tuning.automove_ratio = ratio);
    }
    if means(word, "freeratio") {
        return tune_factor(rest, context, |tuning, ratio| tuning.automove_freeratio = ratio);
    }
    if means(word, "window") {
        return match rest.first().and_then(|text| strict_u32(text)) {
            None => UNKNOWN,
            Some(window) if !WINDOW.contains(&window) => b"CLIENT_ERROR automove window too low or too high\r\n",
            Some(window) => tune(context, |tuning| tuning.automove_window = window),
        };
    }
    match strict_u32(word) {
        None => BAD_FORMAT,
        Some(mode @ 0..=2) => tune(context, |tuning| tuning.automove = mode as u8),
        Some(_) => UNKNOWN,
    }
}

fn lru(args: &[&[u8]], context: &Context<'_>) -> Reply {
    let maintainer = context.shared.config.store.maintainer;
    match args {
        [word, hot, warm, hot_age, warm_age, ..] if means(word, "tune") => {
            lru_tune([hot, warm], [hot_age, warm_age], context)
        }
        [word, mode, ..] if means(word, "mode") && maintainer => lru_mode(mode, context),
        [word, ttl, ..] if means(word, "temp_ttl") && maintainer => lru_temp_ttl(ttl, context),
        _ => UNKNOWN,
    }
}

fn lru_tune(percents: [&[u8]; 2], ages: [&[u8]; 2], context: &Context<'_>) -> Reply {
    let [Some(hot), Some(warm)] = percents.map(strict_u32) else { return UNKNOWN };
    let [Some(hot_age), Some(warm_age)] = ages.map(decimal) else { return UNKNOWN };
    if u64::from(hot) + u64::from(warm) > HOT_WARM_MAX {
        return b"ERROR hot and warm pcts must not exceed 80\r\n";
    }
    if hot_age <= 0.0 || warm_age <= 0.0 {
        return b"ERROR hot/warm age factors must be greater than 0\r\n";
    }
    tune(context, |tuning| {
        (tuning.hot_pct, tuning.warm_pct) = (hot, warm);
        (tuning.hot_max_factor, tuning.warm_max_factor) = (hot_age, warm_age);
    })
}

fn lru_mode(mode: &[u8], context: &Context<'_>) -> Reply {
    if means(mode, "flat") {
        return tune(context, |tuning| tuning.segmented = false);
    }
    if means(mode, "segmented") {
        return tune(context, |tuning| tuning.segmented = true);
    }
    UNKNOWN
}

fn lru_temp_ttl(ttl: &[u8], context: &Context<'_>) -> Reply {
    match strict_i32(ttl) {
        None => UNKNOWN,
        Some(ttl) => tune(context, |tuning| tuning.temporary_ttl = u32::try_from(ttl).ok()),
    }
}

pub(crate) fn tune(context: &Context<'_>, change: impl FnOnce(&mut Tuning)) -> Reply {
    context.shared.store.tune(change);
    OK
}

fn tune_factor(args: &[&[u8]], context: &Context<'_>, set: impl FnOnce(&mut Tuning, f64)) -> Reply {
    match args.first().and_then(|text| decimal(text)) {
        Some(value) => tune(context, |tuning| set(tuning, value)),
        None => UNKNOWN,
    }
}

/// A decimal number, finite: what is not a number would compare with nothing.
fn decimal(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Settings of a tier that is not built in are checked and forgotten.
fn extstore(args: &[&[u8]]) -> Reply {
    const NUMBERS: [&str; 8] =
        ["item_size", "item_age", "low_ttl", "recache_rate", "compact_under", "drop_under", "max_sleep", "drop_unread"];
    let known = match args {
        [word, _, _, ..] if means(word, "free_memchunks") => true,
        [word, number, ..] if NUMBERS.iter().any(|known| means(word, known)) => strict_u32(number).is_some(),
        [word, number, ..] if means(word, "max_frag") => decimal(number).is_some(),
        _ => false,
    };
    if known { OK } else { UNKNOWN }
}

fn watch(args: &[&[u8]], context: &Context<'_>, output_is_empty: bool) -> Result<Next, Reply> {
    if !context.shared.config.watch_enabled {
        return Err(b"CLIENT_ERROR watch commands not allowed\r\n");
    }
    if !output_is_empty {
        return Err(b"ERROR cannot pipeline other commands before watch\r\n");
    }
    let streams = streams(args).ok_or(UNKNOWN)?;
    if !context.shared.watch.has_room() {
        return Err(b"WATCHER_TOO_MANY log watcher limit reached\r\n");
    }
    context.shared.watch.set_source(|| watch::source(context.shared.store.clone()));
    Ok(Next::Watch(streams))
}

/// The streams of `watch <stream>*`; None when one is unknown.
fn streams(args: &[&[u8]]) -> Option<Streams> {
    const NAMES: [(&str, Streams); 10] = [
        ("rawcmds", Streams(0)),
        ("evictions", Streams::EVICTIONS),
        ("fetchers", Streams::FETCHERS),
        ("mutations", Streams::MUTATIONS),
        ("sysevents", Streams::SYSEVENTS),
        ("connevents", Streams::CONNEVENTS),
        ("proxyreqs", Streams(0)),
        ("proxyevents", Streams(0)),
        ("proxyuser", Streams(0)),
        ("deletions", Streams::DELETIONS),
    ];
    if args.is_empty() {
        return Some(Streams::FETCHERS);
    }
    args.iter().try_fold(Streams::default(), |all, arg| {
        let (_, stream) = NAMES.iter().find(|(name, _)| means(arg, name))?;
        Some(all.with(*stream))
    })
}

fn statistics(args: &[&[u8]], context: &mut Context<'_>, out: &mut Output) -> Next {
    // In memcached's order; the last three want the whole word.
    const PREFIXES: [&str; 6] = ["reset", "detail", "settings", "cachedump", "conns", "extstore"];
    let [word, rest @ ..] = args else { return emit_each(None, context, out) };
    match PREFIXES.iter().find(|known| means(word, known)) {
        Some(&"reset") => {
            stats::each(Some(b"reset"), context, &mut |_, _| {});
            out.push(b"RESET\r\n");
        }
        Some(&"detail") => detail(rest, context, out),
        Some(&"settings") => return emit_each(Some(b"settings"), context, out),
        Some(&"cachedump") => cachedump(rest, context, out),
        Some(&"conns") => {
            stats::conns(context, &mut |name, value| stat_line(name, value, out));
            out.push(END);
        }
        Some(_) => out.push(END),
        None => return emit_each(Some(word), context, out),
    }
    Next::Continue
}

fn emit_each(argument: Option<&[u8]>, context: &mut Context<'_>, out: &mut Output) -> Next {
    let known = stats::each(argument, context, &mut |name, value| stat_line(name, value, out));
    out.push(if known { END } else { UNKNOWN });
    Next::Continue
}

fn stat_line(name: &str, value: &str, out: &mut Output) {
    for part in ["STAT ", name, " ", value, "\r\n"] {
        out.push(part.as_bytes());
    }
}

fn detail(args: &[&[u8]], context: &Context<'_>, out: &mut Output) {
    let prefixes = &context.shared.stats.prefixes;
    if !context.shared.config.dump_enabled {
        return out.push(b"CLIENT_ERROR stats detail not allowed\r\n");
    }
    match args.first().copied() {
        Some(b"on") => prefixes.enable(true),
        Some(b"off") => prefixes.enable(false),
        Some(b"dump") => {
            prefixes.dump(&mut out.bytes);
            return out.push(END);
        }
        _ => return out.push(b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
    }
    out.push(OK);
}

fn cachedump(args: &[&[u8]], context: &Context<'_>, out: &mut Output) {
    if !context.shared.config.dump_enabled {
        return out.push(b"CLIENT_ERROR stats cachedump not allowed\r\n");
    }
    let [class, limit, ..] = args else { return out.push(b"CLIENT_ERROR bad command line\r\n") };
    let (Some(class), Some(limit)) = (strict_u32(class), strict_u32(limit)) else { return out.push(BAD_FORMAT) };
    if class >= CLASSES {
        return out.push(b"CLIENT_ERROR Illegal slab id\r\n");
    }
    cachedump_lines(class as u8, limit as usize, context, out);
    out.push(END);
}

fn cachedump_lines(class: u8, limit: usize, context: &Context<'_>, out: &mut Output) {
    let end = out.bytes.len() + CACHEDUMP_MAX;
    let mut shown = 0;
    // The limit counts lines, and keys that came base64-encoded make none, so it is not the store's limit.
    context.shared.store.cachedump(class, 0, &mut |item| {
        if item.key_is_binary() {
            return true;
        }
        let expires_at = match item.expires_at() {
            0 => 0,
            second => context.shared.clock.unix(second),
        };
        let rest = format!(" [{} b; {expires_at} s]\r\n", item.value_len());
        if out.bytes.len() + b"ITEM ".len() + item.key().len() + rest.len() + END.len() > end {
            return false;
        }
        out.push(b"ITEM ");
        out.push(item.key());
        out.push(rest.as_bytes());
        shown += 1;
        shown != limit
    });
}

#[cfg(not(feature = "debug-commands"))]
fn debugtime(_args: &[&[u8]], _context: &Context<'_>) -> Reply {
    UNKNOWN
}

#[cfg(feature = "debug-commands")]
fn debugtime(args: &[&[u8]], context: &Context<'_>) -> Reply {
    let clock = &context.shared.clock;
    match args.first().copied() {
        Some(b"p") => clock.pause(true),
        Some(b"r") => clock.pause(false),
        Some(seconds) => match crate::protocol::token::strict_i64(seconds) {
            Some(seconds) => clock.advance(seconds),
            None => return UNKNOWN,
        },
        None => return UNKNOWN,
    }
    OK
}

#[cfg(not(feature = "debug-commands"))]
fn debugitem(_args: &[&[u8]], _context: &Context<'_>) -> Reply {
    UNKNOWN
}

/// lock and ref hold the item as a reader outside the lock does: it can be neither freed nor moved. They give
/// no exclusion, for no lock outlives a command here.
#[cfg(feature = "debug-commands")]
fn debugitem(args: &[&[u8]], context: &Context<'_>) -> Reply {
    use std::sync::Mutex;
    static HELD: Mutex<Vec<(Vec<u8>, crate::store::Pinned)>> = Mutex::new(Vec::new());
    const MISS: Reply = b"MISS\r\n";
    let [word, key, ..] = args else { return UNKNOWN };
    let mut held = HELD.lock().unwrap();
    match *word {
        b"lock" | b"ref" => {
            let hash = context.shared.store.hash(key);
            let mut shard = context.lock(hash);
            let Ok(id) = shard.find(key, hash) else { return MISS };
            let Some(pinned) = shard.pin(id) else { return MISS };
            held.push((key.to_vec(), pinned));
            OK
        }
        b"unlock" | b"unref" => match held.iter().position(|(k, _)| k == key) {
            None => MISS,
            Some(at) => {
                drop(held.swap_remove(at));
                OK
            }
        },
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests;
