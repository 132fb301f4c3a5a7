//! Sending whole Ethernet frames.

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::os::fd::AsRawFd;

/// Length of a frame's head: two hardware addresses and the kind of what follows.
const HEAD: usize = 14;

/// A socket that sends frames, on any interface, and receives none.
#[derive(Debug)]
pub struct PacketSocket(Socket);

impl PacketSocket {
    /// Opens one, in the network namespace of this thread. It takes CAP_NET_RAW.
    pub fn open() -> io::Result<PacketSocket> {
        // Protocol 0 is none: nothing is received.
        let socket = Socket::new(Domain::from(libc::AF_PACKET), Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        Ok(PacketSocket(socket))
    }

    /// Sends a frame on the interface of this number. Never waits: what finds no room is an error.
    pub fn send(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        let kind = frame.get(HEAD - 2..HEAD).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: all zeros is a valid sockaddr_ll: plain numbers.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = u16::from_ne_bytes([kind[0], kind[1]]);
        to.sll_ifindex = interface as i32;
        let (socket, length) = (self.0.as_raw_fd(), size_of_val(&to) as libc::socklen_t);
        // SAFETY: frame and address outlive the call, with their true lengths; the descriptor is open.
        let sent =
            unsafe { libc::sendto(socket, frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length) };
        if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
