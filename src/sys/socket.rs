//! Options of sockets.

use super::check;
use std::io;
use std::os::fd::RawFd;

/// Makes the kernel report a socket's input only when there are so many bytes (SO_RCVLOWAT), or at its end.
pub fn set_receive_low_water(socket: RawFd, bytes: u32) -> io::Result<()> {
    let len = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the option is an int, which outlives the call; a wrong descriptor is an error.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), len) };
    check(done)
}
