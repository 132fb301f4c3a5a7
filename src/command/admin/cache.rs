//! What the store is told to do or to be: `flush_all`, `cache_memlimit`, `slabs`, `lru`, `extstore`.
//!
//! Not here: the crawler (`crawler`).

use super::crawler::tune;
use crate::command::Context;
use crate::command::reply::{OK, Reply};
use crate::protocol::BAD_FORMAT;
use crate::protocol::text::{BAD_EXPTIME, UNKNOWN};
use crate::protocol::token::{means, strict_i32, strict_u32};
use crate::store::{Reassign, Tuning};

/// `cache_memlimit` in MiB: memcached's bounds.
const MEMLIMIT_MIN: u32 = 8;
const MEMLIMIT_MAX: u32 = 1_000_000_000;

/// HOT and WARM together, percent: COLD must keep a share to evict from.
const HOT_WARM_MAX: u64 = 80;

/// Seconds of history that the page mover may look at.
const WINDOW: std::ops::RangeInclusive<u32> = 3..=1800;

pub(super) fn flush_all(args: &[&[u8]], context: &Context<'_>) -> Reply {
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
    match context.flush_all(exptime.into()) {
        true => OK,
        false => b"SERVER_ERROR too many flush_alls of late: try again in a second\r\n",
    }
}

pub(super) fn cache_memlimit(args: &[&[u8]], context: &Context<'_>) -> Reply {
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

pub(super) fn slabs(args: &[&[u8]], context: &Context<'_>) -> Reply {
    match args {
        // COMPAT(reassign_words): one word too many makes an unknown command of it, as nowhere else here.
        [word, src, dst] if means(word, "reassign") => slabs_reassign(src, dst, context),
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

pub(super) fn lru(args: &[&[u8]], context: &Context<'_>) -> Reply {
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
pub(super) fn extstore(args: &[&[u8]]) -> Reply {
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
