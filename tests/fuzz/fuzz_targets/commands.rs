//! Parser, commands and store: each input is one connection to a server that lives on.
#![no_main]
#![allow(dead_code, reason = "the shared files serve other tests too")]

#[path = "../in_process.rs"]
mod in_process;
#[path = "../replies.rs"]
mod replies;

use std::cell::RefCell;

thread_local! {
    static MACHINE: RefCell<in_process::Machine> = RefCell::new(in_process::Machine::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| MACHINE.with_borrow_mut(|machine| {
    machine.feed(data);
    machine.check();
}));
