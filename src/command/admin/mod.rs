//! Administrative text commands, `stats` among them.
//!
//! Each command is a function from its arguments to one of memcached's replies; replies are constants. The
//! order of checks inside a command is memcached's, so that a line with two mistakes gets the same answer.
//!
//! Sub-words may be cut short: any beginning of a word stands for it, and where several words begin so, the
//! first in memcached's order wins.
//!
//! Not here: what statistics there are (`stats`).

mod cache;
mod crawler;
mod debug;
mod insight;
mod replica;
mod sheet;
pub mod stats;
pub mod watch;

use super::dump::{ColdDump, ConnWalk, Filled, LongAnswer};
use super::{Context, Next, Output};
use crate::VERSION;
use crate::command::reply::{END, OK, Reply};
use crate::config::log_level;
use crate::protocol::BAD_FORMAT;
use crate::protocol::text::{Admin, UNKNOWN};
use crate::protocol::token::{Tokens, means, strict_u32};
use crate::stats::PrefixWalk;
use crate::watch::Streams;
use crawler::{classes, lru_crawler};
use watch::HotKeysLines;

/// `verbosity` above this means this: what lies above is for debugging the event loop, and comes from `-v`.
const VERBOSITY_MAX: u32 = 2;

/// Whether it may take long, so that those who ask for little come first. The word of a server that feeds this one keeps
/// its place: what came before it, from whoever fed this one until then, is not to be run after it. A stream or a dump
/// keeps it behind another reply (`is_first_reply` is false): it is refused there, and not where it would be put off to.
pub fn may_be_long(verb: Admin, is_first_reply: bool) -> bool {
    match verb {
        Admin::Version | Admin::Verbosity | Admin::Config | Admin::Replica => false,
        Admin::Watch | Admin::LruCrawler => is_first_reply,
        _ => true,
    }
}

/// Runs an administrative text command.
pub fn run(verb: Admin, tokens: &Tokens<'_>, noreply: bool, context: &mut Context<'_>, out: &mut Output) -> Next {
    let args = arguments(tokens, noreply);
    let answer: Result<Next, Reply> = match verb {
        Admin::Stats => return statistics(args, context, out),
        Admin::Version => return version(out),
        Admin::FlushAll => Err(cache::flush_all(args, context)),
        Admin::Verbosity => Err(verbosity(args)),
        Admin::Shutdown => shutdown(tokens, context),
        Admin::CacheMemlimit => Err(cache::cache_memlimit(args, context)),
        Admin::Slabs => Err(cache::slabs(args, context)),
        Admin::Lru => Err(cache::lru(args, context)),
        Admin::LruCrawler => lru_crawler(args, context, out),
        Admin::Watch => watch(args, context, context.is_first_reply(out)),
        Admin::RefreshCerts => return refresh_certs(noreply, context, out),
        Admin::Extstore => Err(cache::extstore(args)),
        Admin::Config if context.shared.discovery.answer_config(out) => Ok(Next::Continue),
        Admin::Config => Err(UNKNOWN),
        Admin::Replica => return replica::run(args, noreply, context, out),
        // memcached tries here what its system call filter should forbid. There is no filter to try.
        Admin::Misbehave => Err(UNKNOWN),
        Admin::Debugtime => Err(debug::debugtime(args, context)),
        Admin::Debugitem => Err(debug::debugitem(args, context)),
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

/// What follows the command word, without `noreply`.
fn arguments<'t, 'a>(tokens: &'t Tokens<'a>, noreply: bool) -> &'t [&'a [u8]] {
    match tokens.as_slice() {
        [_, args @ .., _] if noreply => args,
        [_, args @ ..] => args,
        [] => &[],
    }
}

fn refresh_certs(noreply: bool, context: &Context<'_>, out: &mut Output) -> Next {
    let done = match &context.shared.tls {
        Some(tls) => tls.refresh(context.shared.clock.now()),
        None => Err("Error TLS not enabled".into()),
    };
    match done {
        _ if noreply => {}
        Ok(()) => out.push(OK),
        Err(why) => {
            out.push(why.as_bytes());
            out.push(b"\r\n");
        }
    }
    Next::Continue
}

fn version(out: &mut Output) -> Next {
    out.push(b"VERSION ");
    out.push(VERSION.as_bytes());
    out.push(b"\r\n");
    Next::Continue
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

fn watch(args: &[&[u8]], context: &Context<'_>, output_is_empty: bool) -> Result<Next, Reply> {
    if !context.shared.config.watch_enabled {
        return Err(b"CLIENT_ERROR watch commands not allowed\r\n");
    }
    if !output_is_empty {
        return Err(b"ERROR cannot pipeline other commands before watch\r\n");
    }
    let streams = streams(args).ok_or(UNKNOWN)?;
    if streams.intersects(Streams::HOTKEYS) && !context.shared.config.hot_keys {
        return Err(b"CLIENT_ERROR hotkeys are off: -o no_hotkeys\r\n");
    }
    if !context.shared.watch.has_room() {
        return Err(b"WATCHER_TOO_MANY log watcher limit reached\r\n");
    }
    let shared = context.shared;
    let hot_keys = HotKeysLines::new(shared.stats.hot_keys.clone(), shared.clock.clone());
    shared.watch.set_source(|| watch::source(shared.store.clone(), hot_keys));
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
        if *arg == b"hotkeys" {
            return Some(all.with(Streams::HOTKEYS));
        }
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
            stats::each(Some(b"reset"), context.shared, &mut |_, _| {});
            out.push(b"RESET\r\n");
        }
        Some(&"detail") => return detail(rest, context, out),
        Some(&"settings") => return emit_each(Some(b"settings"), context, out),
        Some(&"cachedump") => return cachedump(rest, context, out),
        Some(&"conns") => return list(LongAnswer::Conns(ConnWalk::new(context.fd)), context, out),
        Some(_) => out.push(END),
        None if *word == b"latency" => return latency(rest, context, out),
        None if *word == b"hotkeys" => return hot_keys(rest, context, out),
        None => return emit_each(Some(word), context, out),
    }
    Next::Continue
}

fn latency(args: &[&[u8]], context: &mut Context<'_>, out: &mut Output) -> Next {
    match args {
        [] => return emit_each(Some(b"latency"), context, out),
        [b"buckets"] => return emit_each(Some(b"latency buckets"), context, out),
        _ => out.push(b"CLIENT_ERROR usage: stats latency [buckets]\r\n"),
    }
    Next::Continue
}

fn hot_keys(args: &[&[u8]], context: &mut Context<'_>, out: &mut Output) -> Next {
    if !context.shared.config.dump_enabled {
        out.push(b"CLIENT_ERROR stats hotkeys not allowed\r\n");
        return Next::Continue;
    }
    match args {
        [] => return emit_each(Some(b"hotkeys"), context, out),
        [number] if strict_u32(number).is_some() => {
            return emit_each(Some(&[b"hotkeys ", *number].concat()), context, out);
        }
        _ => out.push(b"CLIENT_ERROR usage: stats hotkeys [number]\r\n"),
    }
    Next::Continue
}

fn emit_each(argument: Option<&[u8]>, context: &mut Context<'_>, out: &mut Output) -> Next {
    let (start, mut fits) = (out.bytes.len(), true);
    let known = stats::each(argument, context.shared, &mut |name, value| fits = fits && stat_line(name, value, out));
    match known {
        _ if !fits => {
            out.bytes.truncate(start);
            out.push(b"SERVER_ERROR out of memory writing stats\r\n");
        }
        true => out.push(END),
        false => out.push(UNKNOWN),
    }
    Next::Continue
}

/// False: the system has no memory for it. There may be any number of sizes.
fn stat_line(name: &str, value: &str, out: &mut Output) -> bool {
    let parts = ["STAT ", name, " ", value, "\r\n"];
    let fits = out.bytes.try_reserve(parts.iter().map(|part| part.len()).sum()).is_ok();
    if fits {
        parts.iter().for_each(|part| out.push(part.as_bytes()));
    }
    fits
}

fn detail(args: &[&[u8]], context: &Context<'_>, out: &mut Output) -> Next {
    let prefixes = &context.shared.stats.prefixes;
    let answer = match args.first().copied() {
        _ if !context.shared.config.dump_enabled => b"CLIENT_ERROR stats detail not allowed\r\n",
        Some(b"on") => {
            prefixes.enable(true);
            OK
        }
        Some(b"off") => {
            prefixes.enable(false);
            OK
        }
        Some(b"dump") => return list(LongAnswer::Prefixes(PrefixWalk::default()), context, out),
        _ => b"CLIENT_ERROR usage: stats detail on|off|dump\r\n",
    };
    out.push(answer);
    Next::Continue
}

fn cachedump(args: &[&[u8]], context: &Context<'_>, out: &mut Output) -> Next {
    match cachedump_arguments(args, context) {
        Ok((class, limit)) => {
            let walk = context.shared.store.cold_items(class);
            list(LongAnswer::Cold(ColdDump::new(walk, limit)), context, out)
        }
        Err(reply) => {
            out.push(reply);
            Next::Continue
        }
    }
}

/// Class and number of lines.
fn cachedump_arguments(args: &[&[u8]], context: &Context<'_>) -> Result<(u8, usize), Reply> {
    if !context.shared.config.dump_enabled {
        return Err(b"CLIENT_ERROR stats cachedump not allowed\r\n");
    }
    let [class, limit, ..] = args else { return Err(b"CLIENT_ERROR bad command line\r\n") };
    let (Some(class), Some(limit)) = (strict_u32(class), strict_u32(limit)) else { return Err(BAD_FORMAT) };
    if class >= classes(&context.shared.store) {
        return Err(b"CLIENT_ERROR Illegal slab id\r\n");
    }
    Ok((class as u8, limit as usize))
}

/// Begins an answer that is made in pieces, of which the first may be all.
fn list(mut listing: LongAnswer, context: &Context<'_>, out: &mut Output) -> Next {
    match listing.fill(&context.shared.clock, &context.shared.stats, out) {
        Filled::More => Next::Dump(Box::new(listing)),
        Filled::End => Next::Continue,
        Filled::Lost => Next::Close,
    }
}

#[cfg(test)]
mod tests;
