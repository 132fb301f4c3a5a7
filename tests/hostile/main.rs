//! What one client, or a thousand, can do to a server: attacks, each with the bound that must hold.
//!
//! Each test says what is done, that others are served meanwhile, and what memory it may take. Times are generous: a
//! server that has the fault takes many times as long. `HOSTILE_ITEMS` is how many items the server holds meanwhile
//! (20,000 unless set); `scripts/bench.sh hostile` measures delays at four million, beside memcached.
//!
//! Not here: what is merely wrong (`exchanges`, `fuzz`).

mod attacks;
mod clients;
#[path = "../common/mod.rs"]
mod common;
mod system;
mod tls;
