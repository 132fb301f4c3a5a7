//! `debugtime` and `debugitem`, for tests: unknown commands unless the feature `debug-commands` is on.

use crate::command::Context;
#[cfg(feature = "debug-commands")]
use crate::command::reply::OK;
use crate::command::reply::Reply;
use crate::protocol::text::UNKNOWN;

#[cfg(not(feature = "debug-commands"))]
pub(super) fn debugtime(_args: &[&[u8]], _context: &Context<'_>) -> Reply {
    UNKNOWN
}

#[cfg(feature = "debug-commands")]
pub(super) fn debugtime(args: &[&[u8]], context: &Context<'_>) -> Reply {
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
pub(super) fn debugitem(_args: &[&[u8]], _context: &Context<'_>) -> Reply {
    UNKNOWN
}

/// lock and ref hold the item as a reader outside the lock does: it can be neither freed nor moved. They give
/// no exclusion, for no lock outlives a command here.
#[cfg(feature = "debug-commands")]
pub(super) fn debugitem(args: &[&[u8]], context: &Context<'_>) -> Reply {
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
            let pinned = shard.pin(id);
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
