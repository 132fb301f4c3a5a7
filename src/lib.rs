//! twincache: a memcached drop-in that keeps its data in two places.
//!
//! ```text
//!    any memcached client
//!        |  text / meta / binary
//!   +----v---------------------------+                    +------------------------+
//!   | twincached (primary)           |                    | twincached (standby)   |
//!   |  net > command > store         |                    |                        |
//!   |                    | journal   |                    |                        |
//!   +--------------------+-----------+                    +-----------^------------+
//!                        | unix socket: every change, in order        | memcached's meta protocol
//!   +--------------------v-----------+                                | (a stock memcached works, too)
//!   | twincache-sidecar              +--------------------------------+
//!   +--------------------------------+
//! ```
//!
//! The stream of changes is memcached's own meta protocol, with absolute expiry, client flags and cas. The server knows
//! nothing of peers: it orders changes, tells what has changed since a number, and can hold a reply until somebody says
//! that this number is safe.
//!
//! # The way of a request: one way for all
//!
//! ```text
//! 1 net/worker   poll -> token -> connection; what is readable is read into the worker's buffer
//! 2 net/conn     where its connection stands: between requests, in a value, in a dump
//! 3 command      a batch of up to 16 requests, of one connection or of many: cut, hash, prefetch, run
//! 4 store        lock one shard, probe once
//! 5 command      encode the reply straight into the output; say which change it made, if replies wait for replicas
//! 6 net/conn     one write for everything that was answered; stay, yield or close
//! ```
//!
//! # Words
//!
//! ```text
//! item, key, value        as in memcached; client flags are the 32 bits that a client stores with an item
//! cas                     the number that a change gives to an item, by which a client compares
//! exptime, expires_at     when an item ends: as the request says it, as the store keeps it
//! slab class, page, chunk an item lies in a chunk of its size's class; pages are cut into chunks; the pool has the rest
//! HOT, WARM, COLD, TEMP   the LRU lists of a class
//! evict, reclaim          to drop a live item for room, to drop one that is dead
//! shard                   a part of one server's store, behind a lock of its own
//! batch, prefetch         requests that are run together, and hints to the CPU before that
//! prefault                to touch memory before it is needed
//! pin                     to keep an item where it is while it is sent or received outside the lock
//! journal, lsn            every change in order, and the number of one
//! full sync, lagged       a consumer is sent everything; a consumer has missed what the journal could not hold
//! reply hold              a reply that waits until replicas have its change
//! primary, standby, peer  who is written to, who has the copy, and whom a sidecar sends to
//! role, source            what a server may do, and the connection that feeds it
//! ```
//!
//! # Who may import whom
//!
//! ```text
//! main        -> check, config, process, net, sys, tls, command, store, supervisor (puts the parts together)
//! check       -> config, process, net, tls, command, store              (the start without a server)
//! process     -> config, sys
//! net         -> command, replication, io, protocol, store, journal, config, watch, sys, tls
//! replication -> command, store, journal, protocol, config, supervisor
//! command     -> protocol, store, journal, config, watch, supervisor, tls
//! io          -> tls, sys
//! config      -> store, tls                                             (what they are built with)
//! store       -> journal, sys
//! journal     -> nothing
//! tls         -> nothing                                                (certificates, and sockets that speak it)
//! clock       -> sys                                                    (time since boot)
//! stats       -> sys                                                    (CPU time)
//! sync        -> nothing
//! supervisor  -> sys                                                    (systemd, its journal, and stderr)
//! protocol    -> nothing
//! sidecar     -> cluster, protocol, io, sys, tls, supervisor            (a client, in a process of its own)
//! ctl         -> cluster, protocol, completion, sys, tls                (the operator's tool)
//! completion  -> config, sidecar, cluster                               (their tables of options)
//! cluster     -> nothing                                                (etcd, for the sidecar and its tools)
//! bin         -> sidecar, ctl, supervisor
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
//! store:            admin > background > cold, dump, duties, resync, sources > restart > mod > lock_time, join > upload, pin
//!                   > shard > memory > requests, role > memory_file > file_record
//!                   > copied, copy_line, events, lent, refusals, slots, stats, config > kinds
//! store/memory:     slab, fields > arena, pool, classes, sizing > layout, prefetcher, work
//! store/background: mod > prefault, crawler, maintainer, mover > balance > gradient
//! protocol:         mod > line, login > text, meta, binary, change, control > request, status, duty_line, members_line, topology > base64 > token
//! command:          mod > batch > barred, run > admin > arith, auth, delete, join > upload > write > read > lookup > context > dump, discovery, refresh, users > reply > output
//! command/admin:    mod > cache, debug, replica > crawler > stats, watch > insight > sheet
//! replication:      mod > session > stream
//! journal:          mod > readers > reader, ring > refused > ranges, record, acks, flush > lsn_ranges
//! net:              mod > acceptor, control > listen, handshake, napi > worker > conn, datagram > admission, places, reply_hold, stop, voice
//! net/worker:       datagrams, ending, queues, silence, standing, waiting > mod > batch, budget, client, hungry, idle, udp_port
//! net/conn:         mod > values > session > buffer, chat, other_end, turn, upload > long_line
//! cluster:          mod > watch > etcd > transport > tls, names, wire > error > options > keys, record
//! tls:              mod > server, client > trust > identity, stream > room, options, ciphers, files
//! ctl:              mod > top, check, load, plan > dump, dump_line, insight > pace, key_list > dial > edit > request > show > json > table, diagnosis > look > view, console > options > defaults > exit
//! ctl/top:          mod > once > screen, poll > draw > keys > columns > rates > latency > figures
//! completion:       mod > bash, fish, zsh > program
//! sidecar:          mod > check, progress > lease > link > observe > server_socket, pace, options > moment, peer_login
//! sidecar/lease:    mod > driver > feeds, topology, etcd_threads, server_thread, promises, keeper, address > news, announcing, floating, hooks > ledger > claim, handover, local, frames, repeats, unwilling > orders > members
//! sidecar/lease/keeper: switchover, takeover > mod
//! sidecar/link:     mod > pump, peer_socket > pump_state, sink, source > relay, answers, guard, lag, peer_cas, peer_clock, peer_info > clock_skew
//! sidecar/observe:  mod > pages > http, page, metrics, health > monitor, server_metrics, replication_metrics, process > history, standby > exposition, figures, server_stats, lease_status
//! ```
//!
//! `tests/tidy` holds the sources to both tables, and to have no circles but in `store/shard`.

// Here and not in Cargo.toml: the crates of tests and benches share files in which everything is `pub`.
#![warn(unreachable_pub)]

pub mod check;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod completion;
pub mod config;
pub mod ctl;
pub mod io;
pub mod journal;
pub mod net;
pub mod process;
pub mod protocol;
pub mod replication;
pub mod sidecar;
pub mod stats;
pub mod store;
pub mod supervisor;
pub mod sync;
pub mod sys;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod watch;

/// What clients see as the server's version. Clients compare it with memcached's numbers to decide
/// what the server can do, so it names the memcached release whose surface this server offers.
pub const VERSION: &str = "1.6.45";
