//! Parser, commands and store: each input is one connection to a server that lives on.
#![no_main]
#![allow(dead_code, reason = "the shared files serve other tests too")]

#[path = "../in_process.rs"]
mod in_process;
#[path = "../replies.rs"]
mod replies;

use std::cell::RefCell;

thread_local! {
    static SERVER: RefCell<in_process::FuzzServer> = RefCell::new(in_process::FuzzServer::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| SERVER.with_borrow_mut(|server| {
    server.feed(data);
    server.check();
}));
