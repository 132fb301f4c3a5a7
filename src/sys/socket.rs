//! Options of sockets.

use super::check;
use std::io;
use std::os::fd::RawFd;

/// The user of the process that listens at the other end of a Unix socket, or connected from there.
pub fn peer_user(socket: RawFd) -> io::Result<u32> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of_val(&found) as libc::socklen_t;
    // SAFETY: `found` and `len`, its true size, outlive the call; a wrong descriptor is an error.
    let done =
        unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut len) };
    check(done).map(|()| found.uid)
}

/// Makes the kernel report a socket's input only when there are so many bytes (SO_RCVLOWAT), or at its end.
pub fn set_receive_low_water(socket: RawFd, bytes: u32) -> io::Result<()> {
    let len = size_of_val(&bytes) as libc::socklen_t;
    // SAFETY: the option is an int, which outlives the call; a wrong descriptor is an error.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, (&raw const bytes).cast(), len) };
    check(done)
}

/// Makes the kernel take no more output for a connection than so many bytes beyond what it can send (TCP_NOTSENT_LOWAT).
pub fn set_unsent_max(socket: RawFd, bytes: u32) -> io::Result<()> {
    let len = size_of_val(&bytes) as libc::socklen_t;
    let (option, value) = (libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast());
    // SAFETY: the option is an int, which outlives the call; a wrong descriptor is an error.
    let done = unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, option, value, len) };
    check(done)
}

/// The number of the receive queue that a socket's connection came in by (SO_INCOMING_NAPI_ID): 0 where it is none of a
/// network card's, or unknown.
pub fn napi_id(socket: RawFd) -> u32 {
    let mut found: libc::c_uint = 0;
    let mut len = size_of_val(&found) as libc::socklen_t;
    let (option, to) = (libc::SO_INCOMING_NAPI_ID, (&raw mut found).cast());
    // SAFETY: `found` and `len`, its true size, outlive the call; a wrong descriptor is an error.
    let done = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, option, to, &raw mut len) };
    check(done).map_or(0, |()| found)
}

/// The process at the other end of a Unix socket, as it was when the connection was made (SO_PEERCRED).
pub fn peer_process(socket: RawFd) -> io::Result<u32> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of_val(&found) as libc::socklen_t;
    let to = (&raw mut found).cast();
    // SAFETY: the kernel writes at most `len` bytes to a struct of plain numbers that outlives the call.
    let done = unsafe { libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_PEERCRED, to, &raw mut len) };
    check(done)?;
    u32::try_from(found.pid).ok().filter(|pid| *pid > 0).ok_or_else(|| io::ErrorKind::NotFound.into())
}
