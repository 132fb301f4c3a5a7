//! The kernel's interfaces and their addresses, over a socket of rtnetlink(7).
//!
//! ```text
//!   message     length u32 | kind u16 | flags u16 | number u32 | port u32 | body
//!   body        ifinfomsg (16 bytes) or ifaddrmsg (8 bytes), then attributes: length u16 | kind u16 | data, to 4 bytes
//!   an answer   any messages, then an error, where 0 is "done", or, after a list, NLMSG_DONE
//! ```
//!
//! All numbers have the machine's byte order. The kernel has its answer ready when `send` returns, so nothing here
//! waits for anybody; the timeout is there for what cannot be.
//!
//! Not here: which address is wanted, and what its absence means.

use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The kernel sends lists in pieces of up to 32 KiB.
const PIECE_MAX: usize = 64 << 10;

/// Lengths of the heads of a message and of an attribute.
const HEAD: usize = 16;
const ATTRIBUTE_HEAD: usize = 4;

/// Attribute with all flags of an address, and the flag that keeps the kernel from adding a route; libc lacks both.
const IFA_FLAGS: u16 = 8;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

/// The metric of routes that others come before: those that belong to the host's own addresses have 0 to some thousands.
const LAST_METRIC: u32 = 1 << 20;

/// A lifetime without an end.
const FOREVER: u32 = u32::MAX;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Somebody has switched it on.
    pub is_up: bool,
    /// There is a cable, and something at its other end.
    pub has_carrier: bool,
    /// Its hardware address, if it is an Ethernet.
    pub mac: Option<[u8; 6]>,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The interface's number.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// The length of its network's prefix.
    pub bits: u8,
    /// It has no end of its own.
    pub is_permanent: bool,
}

/// A socket for questions and orders, which are answered one after the other.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    number: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens one, in the network namespace of this thread.
    pub fn open() -> io::Result<Netlink> {
        let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_ROUTE)))?;
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        Ok(Netlink { socket, number: 0, buffer: vec![0; PIECE_MAX] })
    }

    /// The interface of this name, or the error ENODEV.
    pub fn interface(&mut self, name: &str) -> io::Result<Interface> {
        let mut body = vec![0; 16];
        attribute(&mut body, libc::IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat());
        let mut found = None;
        self.ask(libc::RTM_GETLINK, libc::NLM_F_ACK, &body, |kind, body| {
            found = found.take().or_else(|| interface_in(kind, body));
        })?;
        found.ok_or_else(|| io::Error::from(ErrorKind::InvalidData))
    }

    /// All addresses of all interfaces, of the same family as this one.
    pub fn addresses_like(&mut self, ip: IpAddr) -> io::Result<Vec<InterfaceAddress>> {
        let mut found = Vec::new();
        self.ask(libc::RTM_GETADDR, libc::NLM_F_DUMP, &address_head(0, ip, 0), |kind, body| {
            found.extend(address_in(kind, body));
        })?;
        Ok(found)
    }

    /// Adds an address that goes by itself after this time, or changes when the present one goes, without asking whether
    /// another host has it. `has_route`: the way to its prefix is known already, so it adds none. An IPv6 address is
    /// not used for connections that begin here: those would break when it goes.
    pub fn add_address(&mut self, address: &InterfaceAddress, stays: Duration, has_route: bool) -> io::Result<()> {
        let mut body = address_body(address);
        let flags = libc::IFA_F_NODAD | if has_route { IFA_F_NOPREFIXROUTE } else { 0 };
        attribute(&mut body, IFA_FLAGS, &flags.to_ne_bytes());
        let valid = u32::try_from(stays.as_secs()).unwrap_or(FOREVER);
        let preferred = if address.ip.is_ipv6() { 0 } else { valid };
        attribute(&mut body, libc::IFA_CACHEINFO, &[preferred, valid, 0, 0].map(u32::to_ne_bytes).concat());
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.ask(libc::RTM_NEWADDR, flags, &body, |_, _| {})
    }

    /// Makes an IPv4 network reachable on an interface, from this address, unless there is a better way. The kernel removes
    /// the route with the address.
    pub fn add_route(&mut self, interface: u32, from: Ipv4Addr, bits: u8) -> io::Result<()> {
        let network = Ipv4Addr::from_bits(from.to_bits() & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0));
        // An rtmsg: no source, no type of service, no flags.
        let mut body = vec![libc::AF_INET as u8, bits, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC];
        body.extend([libc::RT_SCOPE_LINK, libc::RTN_UNICAST, 0, 0, 0, 0]);
        attribute(&mut body, libc::RTA_DST, &network.octets());
        attribute(&mut body, libc::RTA_OIF, &interface.to_ne_bytes());
        attribute(&mut body, libc::RTA_PREFSRC, &from.octets());
        attribute(&mut body, libc::RTA_PRIORITY, &LAST_METRIC.to_ne_bytes());
        let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        self.ask(libc::RTM_NEWROUTE, flags, &body, |_, _| {})
    }

    /// Removes an address; false when it is not there, or its interface is not.
    pub fn remove_address(&mut self, address: &InterfaceAddress) -> io::Result<bool> {
        match self.ask(libc::RTM_DELADDR, libc::NLM_F_ACK, &address_body(address), |_, _| {}) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL | libc::ENODEV | libc::ENXIO) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Sends a message, and shows all that is answered.
    fn ask(&mut self, kind: u16, flags: i32, body: &[u8], mut show: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.number = self.number.wrapping_add(1);
        self.socket.send(&message(kind, flags, self.number, body))?;
        loop {
            let received = (&self.socket).read(&mut self.buffer)?;
            let messages = Messages(&self.buffer[..received]).filter(|message| message.number == self.number);
            for message in messages {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return outcome(message.body),
                    _ => show(message.kind, message.body),
                }
            }
        }
    }
}

fn outcome(body: &[u8]) -> io::Result<()> {
    match number_at(body, 0) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error((code as i32).wrapping_neg())),
        None => Err(io::Error::from(ErrorKind::InvalidData)),
    }
}

fn message(kind: u16, flags: i32, number: u32, body: &[u8]) -> Vec<u8> {
    let mut message = ((HEAD + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    message.extend(number.to_ne_bytes());
    // To the kernel, which knows where to answer.
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    message
}

fn attribute(body: &mut Vec<u8>, kind: u16, data: &[u8]) {
    body.extend(((ATTRIBUTE_HEAD + data.len()) as u16).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(data);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// An ifaddrmsg.
fn address_head(index: u32, ip: IpAddr, bits: u8) -> Vec<u8> {
    let family = if ip.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let mut head = vec![family as u8, bits, 0, 0];
    head.extend(index.to_ne_bytes());
    head
}

fn address_body(address: &InterfaceAddress) -> Vec<u8> {
    let mut body = address_head(address.index, address.ip, address.bits);
    let bytes = match address.ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    attribute(&mut body, libc::IFA_LOCAL, &bytes);
    attribute(&mut body, libc::IFA_ADDRESS, &bytes);
    body
}

fn interface_in(kind: u16, body: &[u8]) -> Option<Interface> {
    if kind != libc::RTM_NEWLINK {
        return None;
    }
    let flags = number_at(body, 8)? as i32;
    let is_ethernet = body.get(2..4)? == libc::ARPHRD_ETHER.to_ne_bytes();
    let mac = Attributes(body.get(16..)?).find(|(kind, _)| *kind == libc::IFLA_ADDRESS);
    Some(Interface {
        index: number_at(body, 4)?,
        is_up: flags & libc::IFF_UP != 0,
        has_carrier: flags & libc::IFF_LOWER_UP != 0,
        mac: mac.filter(|_| is_ethernet).and_then(|(_, mac)| mac.try_into().ok()),
    })
}

fn address_in(kind: u16, body: &[u8]) -> Option<InterfaceAddress> {
    if kind != libc::RTM_NEWADDR {
        return None;
    }
    // On a point-to-point link IFA_ADDRESS is that of the other end; IPv6 has no IFA_LOCAL without one.
    let attribute = |wanted| Attributes(body.get(8..)?).find(|(kind, _)| *kind == wanted).map(|(_, data)| data);
    let ip = ip_of(attribute(libc::IFA_LOCAL).or_else(|| attribute(libc::IFA_ADDRESS))?)?;
    let is_permanent = u32::from(*body.get(2)?) & libc::IFA_F_PERMANENT != 0;
    Some(InterfaceAddress { index: number_at(body, 4)?, ip, bits: *body.get(1)?, is_permanent })
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// One message of an answer.
struct NetlinkMessage<'a> {
    kind: u16,
    number: u32,
    body: &'a [u8],
}

/// The messages of a piece.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = NetlinkMessage<'a>;

    fn next(&mut self) -> Option<NetlinkMessage<'a>> {
        let length = number_at(self.0, 0)? as usize;
        let kind = number_at(self.0, 4)?.to_ne_bytes();
        let body = self.0.get(HEAD..length)?;
        let number = number_at(self.0, 8)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(NetlinkMessage { kind: u16::from_ne_bytes([kind[0], kind[1]]), number, body })
    }
}

/// The attributes of a body, as (kind, data).
struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let [a, b, c, d] = number_at(self.0, 0)?.to_ne_bytes();
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let data = self.0.get(ATTRIBUTE_HEAD..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]), data))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_found_with_its_address() {
        let mut netlink = Netlink::open().unwrap();
        let lo = netlink.interface("lo").unwrap();
        assert!(lo.index > 0 && lo.is_up && lo.mac.is_none(), "{lo:?}");
        let all = netlink.addresses_like(Ipv4Addr::LOCALHOST.into()).unwrap();
        let expected =
            InterfaceAddress { index: lo.index, ip: Ipv4Addr::LOCALHOST.into(), bits: 8, is_permanent: true };
        assert!(all.contains(&expected), "{all:?}");
        let error = netlink.interface("no such one").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{error}");
        assert_eq!(netlink.interface("lo").unwrap(), lo, "an error does not confuse what follows");
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        let ip = IpAddr::from([10, 0, 0, 1]);
        let address = InterfaceAddress { index: 7, ip, bits: 24, is_permanent: false };
        let whole = message(libc::RTM_NEWADDR, 0, 5, &address_body(&address));
        for length in 0..whole.len() {
            assert!(Messages(&whole[..length]).next().is_none());
            let _ = address_in(libc::RTM_NEWADDR, &whole[..length]);
            let _ = interface_in(libc::RTM_NEWLINK, &whole[..length]);
        }
        let twice = [whole.clone(), whole].concat();
        let found: Vec<_> =
            Messages(&twice).map(|message| (message.number, address_in(message.kind, message.body))).collect();
        assert_eq!(found, [(5, Some(address)), (5, Some(address))]);
    }

    #[test]
    fn attributes_fill_up_to_four_bytes() {
        let mut body = Vec::new();
        attribute(&mut body, 3, b"eth0\0");
        attribute(&mut body, 4, b"");
        assert_eq!(body.len(), 12 + 4);
        assert_eq!(Attributes(&body).collect::<Vec<_>>(), [(3, &b"eth0\0"[..]), (4, b"")]);
        assert_eq!(Attributes(&[0; 4]).next(), None, "a length that cannot be ends the list");
    }
}
