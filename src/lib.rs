//! twincache: a memcached drop-in.
//!
//! ```text
//!  any memcached client
//!      |  text / meta / binary
//!  +---v------------------------------------------------------+
//!  | net       acceptor -> worker loops -> connections        |
//!  | protocol  bytes -> requests                              |
//!  | command   what a verb means                              |
//!  | store     shards of (hash table, slab pages, LRUs)       |
//!  +----------------------------------------------------------+
//! ```
//!
//! # The way of a request
//!
//! ```text
//! 1 net/worker    poll -> token -> connection
//! 2 net/conn      read into the worker's shared buffer
//! 3 protocol      parse: Request | NeedBody | Partial | Bad
//! 4 command       run(request, context, output)
//! 5 store         hash once, lock one shard, probe once
//! 6 command       encode the reply straight into the output
//! 7 net/conn      one write for everything that was answered; stay, yield or close
//! ```
//!
//! # Who may import whom
//!
//! ```text
//! main        -> config, process, net, sys, command, store              (to put the parts together)
//! process     -> config, sys
//! net         -> command, replication, io, protocol, store, journal, config, watch, sys
//! replication -> command, store, journal, protocol, config
//! command     -> protocol, store, journal, config, watch
//! io          -> sys
//! config      -> store                                                  (what a store is built with)
//! store       -> journal, sys
//! journal     -> nothing
//! clock       -> sys                                                    (time since boot)
//! stats       -> sys                                                    (CPU time)
//! sync        -> nothing
//! protocol    -> nothing
//! sidecar     -> protocol, io, sys                                      (a client, in a process of its own)
//! bin         -> sidecar
//! ```
//!
//! Inside a folder a use goes to the right; `mod` is its `mod.rs`:
//!
//! ```text
//! sidecar: mod > link > observe > server_socket > moment, options, pace
//! sidecar/link: mod > pump > sink, source > answers, clock_skew, guard, lag, relay
//! sidecar/observe: mod > health, http, metrics > figures
//! ```
//!
//! Everyone but `protocol` may import `clock`, `stats` and `sync`, and `main` the crate's root.
//!
//! `protocol` and `store` never meet except in `command`.
//!
//! # The floors inside the folders
//!
//! A file uses only what stands to its right in its folder's row; `mod` is the folder's own `mod.rs`.
//!
//! ```text
//! store:            admin > dump, resync, sources > background > mod > lock_time > shard > pin, upload > memory
//!                   > requests, role > events, stats, config > kinds
//! store/memory:     slab > arena, pool, classes, sizing > layout
//! store/background: mod > prefault, crawler, maintainer, mover > balance
//! journal:          mod > readers > reader, ring > record, acks, flush
//! net:              mod > acceptor, control > listen > worker > conn > admission, stop
//! net/worker:       mod > batch, reply_hold
//! net/conn:         mod > session > buffer
//! sidecar:          mod > link > observe, server_socket, pace, options > moment
//! sidecar/link:     mod > pump > sink, source > relay, answers, guard, clock_skew, lag
//! sidecar/observe:  mod > http, metrics, health > figures
//! ```
//!
//! `tests/tidy` holds the sources to both tables, and to have no circles but in `store/shard`.

pub mod clock;
pub mod command;
pub mod config;
pub mod io;
pub mod journal;
pub mod net;
pub mod process;
pub mod protocol;
pub mod replication;
pub mod sidecar;
pub mod stats;
pub mod store;
pub mod sync;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod watch;

/// What clients see as the server's version. Clients compare it with memcached's numbers to decide
/// what the server can do, so it names the memcached release whose surface this server offers.
pub const VERSION: &str = "1.6.45";
