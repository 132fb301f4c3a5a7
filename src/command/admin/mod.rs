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
mod tests {
    use super::*;
    use crate::testing::TestServer;

    /// What becomes of the connection.
    fn run(server: &TestServer, line: &str, out: &mut Output) -> Next {
        server.run_one(format!("{line}\r\n").as_bytes(), out).0
    }

    const BAD: &str = "CLIENT_ERROR bad command line format";

    #[test]
    fn dumps_at_a_time_are_few() {
        let server = TestServer::new(|_| {});
        let dump = || run(&server, "lru_crawler metadump all", &mut Output::default());
        let mut dumps: Vec<Next> = (0..4).map(|_| dump()).collect();
        assert!(dumps.iter().all(|next| matches!(next, Next::Dump(_))));
        server.check(&[("lru_crawler mgdump all", "BUSY currently processing crawler request")]);
        dumps.pop();
        assert!(matches!(dump(), Next::Dump(_)));
    }

    #[test]
    fn flush_version_and_memlimit() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("flush_all", "OK"),
            ("flush_all noreply", ""),
            ("flush_all abc", "CLIENT_ERROR invalid exptime argument"),
            ("flush_all abc noreply", ""),
            ("flush_all 4294967296", "CLIENT_ERROR invalid exptime argument"),
            ("flush_all 0", "OK"),
            ("flush_all -5", "OK"),
            ("flush_all 0 noreply", ""),
            ("flush_all 100 200", "OK"),
            ("version", "VERSION 1.6.45"),
            ("version a b", "VERSION 1.6.45"),
            ("cache_memlimit", "ERROR"),
            ("cache_memlimit abc", "ERROR"),
            ("cache_memlimit 7", "MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m"),
            ("cache_memlimit 8", "OK"),
            ("cache_memlimit 64 noreply", ""),
            ("cache_memlimit 1000000001", "MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes"),
            ("refresh_certs", "Error TLS not enabled"),
            ("misbehave", "ERROR"),
        ]);
        assert_eq!(server.shared.stats.totals().flush_cmds, 9);
    }

    #[test]
    fn verbosity_is_a_log_level() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("verbosity", BAD),
            ("verbosity abc", BAD),
            ("verbosity -1", BAD),
            ("verbosity 4294967296", BAD),
            ("verbosity noreply", ""),
            ("verbosity 100 0", "OK"),
        ]);
        assert_eq!(log::max_level(), log_level(2));
        assert!(server.ask("stats settings|").contains("STAT verbosity 2|"));
        server.check(&[("verbosity 0 noreply", "")]);
        assert_eq!(log::max_level(), log_level(0));
    }

    #[test]
    fn slabs_replies() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("slabs", "ERROR"),
            ("slabs foo", "ERROR"),
            ("slabs foo noreply", ""),
            ("slabs reassign", "ERROR"),
            ("slabs reassign 1", "ERROR"),
            ("slabs reassign 1 2", "NOSPARE source class has no spare pages"),
            ("slabs re 1 2", "NOSPARE source class has no spare pages"),
            ("slabs reassign 1 1", "SAME src and dst class are identical"),
            ("slabs reassign 99 1", "BADCLASS invalid src or dst class id"),
            ("slabs reassign a b", BAD),
            ("slabs automove", "ERROR"),
            ("slabs automove 0", "OK"),
            ("slabs automove 3", "ERROR"),
            ("slabs automove abc", BAD),
            ("slabs automove ratio 0.5", "OK"),
            ("slabs automove ratio", "ERROR"),
            ("slabs automove ratio x", "ERROR"),
            ("slabs automove ratio nan", "ERROR"),
            ("slabs automove freeratio 0.02", "OK"),
            ("slabs automove window 20", "OK"),
            ("slabs automove window 2", "CLIENT_ERROR automove window too low or too high"),
            ("slabs automove window 2000", "CLIENT_ERROR automove window too low or too high"),
            ("slabs a 2", "OK"),
        ]);
        let tuning = server.shared.store.tuning();
        assert_eq!((tuning.automove, tuning.automove_window), (2, 20));
        assert_eq!((tuning.automove_ratio, tuning.automove_freeratio), (0.5, 0.02));
        TestServer::new(|config| config.store.slab_reassign = false)
            .check(&[("slabs reassign a b", "CLIENT_ERROR slab reassignment disabled")]);
    }

    #[test]
    fn lru_replies() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("lru", "ERROR"),
            ("lru foo", "ERROR"),
            ("lru tune", "ERROR"),
            ("lru tune 1 2 3", "ERROR"),
            ("lru tune 50 50 0.1 2.0", "ERROR hot and warm pcts must not exceed 80"),
            ("lru tune 4294967295 81 1 1", "ERROR hot and warm pcts must not exceed 80"),
            ("lru tune 10 25 0 2.0", "ERROR hot/warm age factors must be greater than 0"),
            ("lru tune 10 25 nan 2.0", "ERROR"),
            ("lru tune 10 25 0.1 2.5", "OK"),
            ("lru mode foo", "ERROR"),
            ("lru mode flat", "OK"),
            ("lru temp_ttl a", "ERROR"),
            ("lru temp_ttl 60", "OK"),
        ]);
        let tuning = server.shared.store.tuning();
        assert_eq!((tuning.hot_pct, tuning.warm_pct, tuning.segmented), (10, 25, false));
        assert_eq!((tuning.hot_max_factor, tuning.warm_max_factor), (0.1, 2.5));
        assert_eq!(tuning.temporary_ttl, Some(60));
        server.check(&[("lru temp_ttl -1", "OK"), ("lru mode segmented", "OK")]);
        assert_eq!(server.shared.store.tuning().temporary_ttl, None);
        assert!(server.shared.store.tuning().segmented);
        TestServer::new(|config| config.store.maintainer = false).check(&[
            ("lru mode flat", "ERROR"),
            ("lru temp_ttl 5", "ERROR"),
            ("lru tune 10 25 0.1 2.0", "OK"),
        ]);
    }

    #[test]
    fn lru_crawler_replies() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("lru_crawler", "ERROR"),
            ("lru_crawler foo", "ERROR"),
            ("lru_crawler s 5", "OK"),
            ("lru_crawler sleep 1000001", "CLIENT_ERROR sleep must be one second or less"),
            ("lru_crawler sleep x", BAD),
            ("lru_crawler sleep 7 noreply", ""),
            ("lru_crawler tocrawl 9", "OK"),
            ("lru_crawler tocrawl x", BAD),
            ("lru_crawler crawl", "ERROR"),
            ("lru_crawler crawl 99", "BADCLASS invalid class id"),
            ("lru_crawler crawl foo", "BADCLASS invalid class id"),
            ("lru_crawler metadump", "ERROR"),
            ("lru_crawler metadump 99", "BADCLASS invalid class id"),
            ("lru_crawler enable", "ERROR failed to start lru crawler thread"),
            ("lru_crawler disable", "OK"),
            ("lru_crawler disable", "OK"),
            ("lru_crawler crawl all", "CLIENT_ERROR lru crawler disabled"),
            ("lru_crawler metadump 99", "CLIENT_ERROR lru crawler disabled"),
            ("lru_crawler enable", "OK"),
        ]);
        let tuning = server.shared.store.tuning();
        assert_eq!((tuning.crawler_sleep_us, tuning.crawler_tocrawl), (7, 9));
    }

    #[test]
    fn what_may_be_forbidden() {
        let server = TestServer::new(|config| {
            (config.flush_enabled, config.dump_enabled, config.watch_enabled) = (false, false, false);
        });
        server.check(&[
            ("flush_all", "CLIENT_ERROR flush_all not allowed"),
            ("stats cachedump", "CLIENT_ERROR stats cachedump not allowed"),
            ("stats detail", "CLIENT_ERROR stats detail not allowed"),
            ("lru_crawler metadump all", "ERROR metadump not allowed"),
            ("lru_crawler mgdump all", "ERROR key dump not allowed"),
            ("watch fetchers", "CLIENT_ERROR watch commands not allowed"),
        ]);
        assert_eq!(server.shared.stats.totals().flush_cmds, 1);
    }

    #[test]
    fn shutdown_noreply() {
        let off = TestServer::new(|_| {});
        off.check(&[("shutdown", "SERVER_ERROR: shutdown not enabled"), ("shutdown noreply", "")]);
        let on = TestServer::new(|config| config.shutdown_command = true);
        on.check(&[("shutdown foo", "CLIENT_ERROR invalid shutdown mode")]);
        let mut out = Output::default();
        assert!(matches!(run(&on, "shutdown noreply", &mut out), Next::Continue));
        assert!(matches!(run(&on, "shutdown", &mut out), Next::Shutdown { graceful: false }));
        assert!(matches!(run(&on, "shutdown graceful", &mut out), Next::Shutdown { graceful: true }));
        assert!(out.is_empty());
    }

    #[test]
    fn watch_takes_streams() {
        let server = TestServer::new(|_| {});
        let cases = [
            ("watch", Streams::FETCHERS),
            ("watch f m", Streams::FETCHERS.with(Streams::MUTATIONS)),
            ("watch evictions connevents", Streams::EVICTIONS.with(Streams::CONNEVENTS)),
            ("watch deletions sysevents rawcmds", Streams::DELETIONS.with(Streams::SYSEVENTS)),
            ("watch proxyreqs proxyevents proxyuser", Streams(0)),
        ];
        for (line, streams) in cases {
            let mut out = Output::default();
            assert!(matches!(run(&server, line, &mut out), Next::Watch(s) if s == streams), "{line}");
            assert!(out.is_empty());
        }
        server.check(&[("watch foo", "ERROR"), ("watch fetchers foo", "ERROR"), ("watch fetchers noreply", "ERROR")]);
    }

    #[test]
    fn nothing_may_stand_before_a_stream() {
        let server = TestServer::new(|_| {});
        for (line, word) in
            [("watch foo", "watch"), ("lru_crawler metadump 99", "metadump"), ("lru_crawler mgdump all", "mgdump")]
        {
            let mut out = Output::default();
            out.push(b"MN\r\n");
            assert!(matches!(run(&server, line, &mut out), Next::Continue));
            let expected = format!("MN\r\nERROR cannot pipeline other commands before {word}\r\n");
            assert_eq!(String::from_utf8(out.bytes).unwrap(), expected);
        }
    }

    #[test]
    fn extstore_is_only_checked() {
        TestServer::new(|_| {}).check(&[
            ("extstore item_size 100", "OK"),
            ("extstore item_size x", "ERROR"),
            ("extstore max_frag 0.5", "OK"),
            ("extstore foo 1", "ERROR"),
            ("extstore", "ERROR"),
            ("extstore item_age", "ERROR"),
            ("extstore free_memchunks 1 2", "OK"),
            ("extstore free_memchunks 1", "ERROR"),
        ]);
    }

    #[test]
    fn stats_arguments() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("stats foo", "ERROR"),
            ("stats item", "ERROR"),
            ("stats proxy", "ERROR"),
            ("stats noreply", "ERROR"),
            ("stats sizes_enable", "ERROR"),
            ("stats reset", "RESET"),
            ("stats res", "RESET"),
            ("stats reset noreply", "RESET"),
            ("stats sizes", "STAT sizes_status disabled|END"),
            ("stats items", "END"),
            ("stats e", "END"),
            ("stats detail", "CLIENT_ERROR usage: stats detail on|off|dump"),
            ("stats detail o", "CLIENT_ERROR usage: stats detail on|off|dump"),
            ("stats detail on", "OK"),
            ("stats cachedump", "CLIENT_ERROR bad command line"),
            ("stats cachedump 1", "CLIENT_ERROR bad command line"),
            ("stats cachedump 1 0", "END"),
            ("stats c 64 0", "CLIENT_ERROR Illegal slab id"),
            ("stats cachedump abc 0", BAD),
        ]);
        assert!(server.ask("stats s|").starts_with("STAT maxbytes 67108864|STAT maxconns 1024|"));
        assert!(server.shared.stats.prefixes.enabled());
        server.shared.stats.prefixes.count(b"a:b", crate::stats::PrefixEvent::Set);
        server.check(&[("stats d dump", "PREFIX a get 0 hit 0 set 1 del 0|END"), ("stats detail off", "OK")]);
        assert!(!server.shared.stats.prefixes.enabled());
    }

    #[test]
    fn durations_are_told_and_reset() {
        let server = TestServer::new(|_| {});
        let mut timer = server.shared.stats.event_loops.timer();
        timer.begin(true, false);
        timer.count(3);
        timer.end();
        let told = server.ask("stats twincache|");
        assert!(told.starts_with("STAT loop_turns_served 3|STAT loop_turn_p50_us "), "{told}");
        assert!(told.contains("|STAT longest_lock_hold_cpu_us "), "{told}");
        server.check(&[("stats reset", "RESET")]);
        let told = server.ask("stats twincache|");
        assert!(told.starts_with("STAT loop_turns_served 0|"), "{told}");
        assert!(told.contains("STAT longest_loop_turn_us 0|"), "{told}");
    }

    #[cfg(feature = "debug-commands")]
    #[test]
    fn debug_commands() {
        let server = TestServer::new(|_| {});
        let now = server.shared.clock.now();
        server.check(&[
            ("debugtime p", "OK"),
            ("debugtime 100", "OK"),
            ("debugtime", "ERROR"),
            ("debugtime x", "ERROR"),
            ("debugitem", "ERROR"),
            ("debugitem foo k", "ERROR"),
            ("debugitem ref k", "MISS"),
            ("debugitem unref k", "MISS"),
        ]);
        assert_eq!(server.shared.clock.now(), now + 100);
        server.check(&[("debugtime r", "OK")]);
    }

    #[cfg(not(feature = "debug-commands"))]
    #[test]
    fn debug_commands_are_unknown() {
        TestServer::new(|_| {}).check(&[("debugtime p", "ERROR"), ("debugitem lock k", "ERROR")]);
    }
}
