//! The parser alone.
#![no_main]
#![allow(dead_code, reason = "the shared files serve other tests too")]

#[path = "../in_process.rs"]
mod in_process;
#[path = "../replies.rs"]
mod replies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| in_process::parse_all(data));
