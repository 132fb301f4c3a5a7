//! Every call to the operating system that std, mio and socket2 lack.
//!
//! Beside the store's arena this is the only place that may hold `unsafe`; each block names the invariant it rests on.
//! Not here: policy. A function does one call and returns its error.
#![allow(unsafe_code)]

pub mod alloc;
pub mod cpu;
pub mod machine;
pub mod memory;
pub mod netlink;
pub mod packet;
pub mod process;
pub mod socket;
pub mod stderr;
pub mod terminal;

use std::io;

/// The error of a call that returned -1.
fn check(returned: libc::c_int) -> io::Result<()> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
