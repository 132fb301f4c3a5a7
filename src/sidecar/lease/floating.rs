//! An address that goes with the shard's primary, on an interface of this host.
//!
//! ```text
//!   open    the interface is there, up, and may be changed; what an earlier run left is removed
//!   renew   added if it is gone; the kernel keeps it for some seconds more, then removes it by itself
//!   announce, remove
//! ```
//!
//! The kernel's own removal is a second line: a sidecar that is gone for good, or stopped, does not leave the address on
//! two hosts for ever.
//!
//! What could fail at night is asked for at the start: each error says what to do. An address that came with the host, not
//! from a sidecar, is never removed: it would take the host off the network.
//!
//! Not here: when any of this happens.

use super::frames::announcement;
use crate::sidecar::options::Vip;
use crate::sys::netlink::{Interface, InterfaceAddress, Netlink};
use crate::sys::packet::PacketSocket;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// What lets a program without root's rights do this.
const RIGHTS: &str = "CAP_NET_ADMIN and CAP_NET_RAW are needed (twincache-sidecar(1) has the lines for the unit)";

/// The address, and the sockets to move it.
pub(super) struct Floating {
    vip: Vip,
    netlink: Netlink,
    packets: PacketSocket,
    /// As it was when last seen.
    interface: Interface,
}

impl Floating {
    /// Looks whether everything is there that it takes, and removes the address if an earlier run has left it. The error
    /// is one line for the operator.
    pub(super) fn open(vip: &Vip) -> Result<Floating, String> {
        let mut floating = Floating::look(vip)?;
        floating.remove_leftover()?;
        Ok(floating)
    }

    /// The same, but changes nothing.
    pub(super) fn look(vip: &Vip) -> Result<Floating, String> {
        let name = &vip.interface;
        let mut netlink = Netlink::open().map_err(|error| refused("a netlink socket", &error))?;
        let interface = netlink.interface(name).map_err(|error| match error.raw_os_error() {
            Some(_) => format!("--dev {name}: there is no such interface (`ip link` lists them)"),
            None => format!("--dev {name}: {error}"),
        })?;
        if !interface.is_up {
            return Err(format!("--dev {name}: it is down (`ip link set {name} up`)"));
        }
        if vip.ip.is_ipv6() && !has_ipv6(name) {
            return Err(format!("--dev {name}: IPv6 is off there (`sysctl net.ipv6.conf.{name}.disable_ipv6=0`)"));
        }
        let packets = PacketSocket::open().map_err(|error| refused("a packet socket", &error))?;
        if !interface.has_carrier {
            log::warn!("--dev {name}: there is no carrier (is the cable in?)");
        }
        Ok(Floating { vip: vip.clone(), netlink, packets, interface })
    }

    fn remove_leftover(&mut self) -> Result<(), String> {
        let Vip { ip, interface: name, .. } = self.vip.clone();
        let all = self.netlink.addresses_like(ip).map_err(|error| refused("to list addresses", &error))?;
        if all.iter().any(|other| other.ip == ip && other.index != self.interface.index) {
            return Err(format!(
                "--vip {ip} is on another interface than {name} (`ip address` tells): remove it there"
            ));
        }
        let here = || all.iter().filter(|other| other.index == self.interface.index);
        let is_ours = |other: &&InterfaceAddress| other.ip == ip;
        // Those of sidecars are not permanent; an operator may have added one by hand.
        if here().any(|found| found.ip == ip && found.is_permanent)
            && here().all(|found| is_ours(&found) || is_link_local(found))
        {
            return Err(format!(
                "--vip {ip} is the only address of {name}: the shard needs one that is not the host's own"
            ));
        }
        match self.remove() {
            Ok(true) => log::info!("removed {} from {name}: it was left there", self.vip),
            Ok(false) => {}
            Err(error) => return Err(refused("to change addresses", &error)),
        }
        Ok(())
    }

    /// Adds the address if it is gone, and has the kernel keep it for so long. Whether it was gone, or may be unknown to
    /// the network since the interface has changed: it has to be announced.
    pub(super) fn renew(&mut self, keep: Duration) -> io::Result<bool> {
        let before = self.interface.clone();
        self.interface = self.netlink.interface(&self.vip.interface)?;
        let all = self.netlink.addresses_like(self.vip.ip)?;
        let mut here = all.iter().filter(|other| other.index == self.interface.index);
        let is_gone = !here.clone().any(|found| found.ip == self.vip.ip);
        let has_route = here.any(|other| other.ip != self.vip.ip && self.vip.is_in_network_of(other.ip, other.bits));
        self.netlink.add_address(&self.address(), keep, has_route)?;
        if let (IpAddr::V4(ip), false) = (self.vip.ip, has_route) {
            self.netlink.add_route(self.interface.index, ip, self.vip.bits)?;
        }
        let now = &self.interface;
        let is_other = (now.index, now.mac) != (before.index, before.mac);
        Ok(is_gone || is_other || (now.has_carrier && !before.has_carrier))
    }

    /// Removes the address. Whether it was there.
    pub(super) fn remove(&mut self) -> io::Result<bool> {
        let all = self.netlink.addresses_like(self.vip.ip)?;
        let ours = all.into_iter().filter(|found| found.index == self.interface.index && found.ip == self.vip.ip);
        // Even if it is not there: so it is known early whether it may be removed.
        let ours: Vec<_> = ours.chain([self.address()]).collect();
        let mut was_there = false;
        for address in ours {
            was_there |= self.netlink.remove_address(&address)?;
        }
        Ok(was_there)
    }

    /// Tells the network where the address is now; nothing where there are no hardware addresses, and nothing more once
    /// it is too late, which is asked before each frame.
    pub(super) fn announce(&self, is_late: impl Fn() -> bool) -> io::Result<()> {
        let Some(mac) = self.interface.mac else { return Ok(()) };
        let frames = announcement(self.vip.ip, mac);
        let mut in_time = frames.iter().take_while(|_| !is_late());
        in_time.try_for_each(|frame| self.packets.send(self.interface.index, frame))
    }

    /// An IPv4 address is alone in its network, and has a route for the real one if the host has none. In the real one, it
    /// could become the first, of which the kernel takes the host's own address for a secondary, and removes both.
    fn address(&self) -> InterfaceAddress {
        let bits = if self.vip.ip.is_ipv4() { 32 } else { self.vip.bits };
        InterfaceAddress { index: self.interface.index, ip: self.vip.ip, bits, is_permanent: false }
    }
}

/// What the system has refused, and what helps: rights, as a rule.
fn refused(what: &str, error: &io::Error) -> String {
    format!("--vip: {what}: {error}: {RIGHTS}")
}

fn is_link_local(found: &InterfaceAddress) -> bool {
    matches!(found.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn has_ipv6(interface: &str) -> bool {
    match std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")) {
        Ok(text) => text.trim() == "0",
        // The kernel has no IPv6; or these files are hidden, and it is not known.
        Err(_) => !Path::new("/proc/sys/net").exists(),
    }
}
