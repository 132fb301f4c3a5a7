//! The same random commands to the server under test and to Debian's memcached, side by side: the replies
//! must be equal.
//!
//! ```text
//!              Command { ours, theirs }            random, from a seed; see text.rs, meta.rs, binary.rs, malformed.rs
//!                |            |
//!     several connections  several connections     cut at random places, now and then left half-sent
//!                |            |
//!           under test    memcached 1.6.18
//!                |            |
//!              reply ──────reply                   compare.rs: equal, but for what names the moment
//! ```
//!
//! Where 1.6.18 answers otherwise than 1.6.45, which is our contract, it is sent a command that makes it
//! answer what 1.6.45 would: `theirs` differs from `ours`, and the generator says why. So replies are never
//! loosened, and what both sides hold stays equal.
//!
//! `DIFF_SEED=n` replays a run, `DIFF_COMMANDS=n` makes it shorter or longer. A mismatch prints the seed, the
//! batch, both replies and, when it can be reproduced, the shortest list of commands that still differs.
//!
//! Not generated: what 1.6.18 cannot do (md x, mg C, ms s, ms append with N) and what memcached leaves to
//! chance (eviction, expiry by time passing). `tests/exchanges.rs`, `tests/malformed.rs` and the store's model cover those.

mod binary;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod keys;
mod malformed;
mod meta;
mod run;
mod text;

use run::Kind;

/// Commands per protocol.
const COMMANDS: u64 = 200_000;

#[test]
fn text() {
    run::run(Kind::Text, COMMANDS, &[]);
}

#[test]
fn meta() {
    run::run(Kind::Meta, COMMANDS, &[]);
}

#[test]
fn binary() {
    run::run(Kind::Binary, COMMANDS, &[]);
}

#[test]
fn without_cas() {
    for kind in [Kind::Text, Kind::Meta, Kind::Binary] {
        run::run(kind, COMMANDS / 4, &["-C", "-t", "1"]);
    }
}
