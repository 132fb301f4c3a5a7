//! The frames that tell a network which hardware address an IP address has now.
//!
//! ```text
//!   gratuitous ARP                  unsolicited neighbour advertisement
//!   ff:ff:ff:ff:ff:ff | mac | 0806  33:33:00:00:00:01 | mac | 86dd
//!   request: who has ip? (from ip)  IPv6: ip -> ff02::1, 32 bytes of ICMPv6, hop limit 255
//!   reply:   ip is at mac           type 136, override: ip is at mac
//! ```
//!
//! Some systems believe only the request, some only the reply, so both are sent. Neither makes a neighbour remember an
//! address that it does not know; it changes what it knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
pub(super) type Mac = [u8; 6];

const EVERYBODY: Mac = [0xff; 6];
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const REQUEST: u8 = 1;
const REPLY: u8 = 2;

/// The kind of payload in an IPv6 packet.
const ICMPV6: u8 = 58;

/// Frames that announce that `ip` is at `mac`.
pub(super) fn announcement(ip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(REQUEST, ip, mac), arp(REPLY, ip, mac)],
        IpAddr::V6(ip) => vec![neighbour_advertisement(ip, mac)],
    }
}

fn arp(operation: u8, ip: Ipv4Addr, mac: Mac) -> Vec<u8> {
    // Whom a request asks for is not known; a reply that Linux takes for a gratuitous one is to its sender.
    let target = if operation == REQUEST { [0; 6] } else { mac };
    // Ethernet and IPv4, with addresses of 6 and 4 bytes.
    let kinds = [0, 1, 8, 0, 6, 4, 0, operation];
    [&EVERYBODY[..], &mac, &[8, 6], &kinds, &mac, &ip.octets(), &target, &ip.octets()].concat()
}

fn neighbour_advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    // Type, code, room for the checksum, and flags: override.
    let mut message = vec![136, 0, 0, 0, 0x20, 0, 0, 0];
    message.extend(ip.octets());
    // Option 2, of one unit of 8 bytes: the hardware address of the target.
    message.extend([2, 1]);
    message.extend(mac);
    let addresses = [ip.octets(), ALL_NODES.octets()].concat();
    let sum = checksum([&addresses[..], &[0, 0, 0, message.len() as u8, 0, 0, 0, ICMPV6], &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let head = [0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, 255];
    [&ALL_NODES_MAC[..], &mac, &[0x86, 0xdd], &head, &addresses, &message].concat()
}

/// The Internet checksum of parts that have even lengths.
fn checksum(parts: [&[u8]; 3]) -> u16 {
    let pairs = parts.into_iter().flat_map(|part| part.chunks_exact(2));
    let sum: u32 = pairs.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 0x2a];

    fn hex(frame: &[u8]) -> String {
        frame.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn arp_is_asked_and_answered() {
        let frames = announcement(IpAddr::from([10, 0, 0, 100]), MAC);
        let expected = [
            "ffffffffffff02000000002a0806000108000604000102000000002a0a0000640000000000000a000064",
            "ffffffffffff02000000002a0806000108000604000202000000002a0a00006402000000002a0a000064",
        ];
        assert_eq!(frames.iter().map(|frame| hex(frame)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_advertisement_has_a_sum_of_zero() {
        let frames = announcement("fd00::100".parse().unwrap(), MAC);
        let [frame] = &frames[..] else { panic!("one frame") };
        let (head, message) = frame[14..].split_at(40);
        assert_eq!((frame.len(), head[7], message.len()), (86, 255, 32));
        assert_eq!(hex(&message[8..]), "fd000000000000000000000000000100020102000000002a");
        assert_eq!(checksum([&head[8..], &[0, 0, 0, 32, 0, 0, 0, 58], message]), 0);
        assert_eq!(checksum([&[0, 1], &[0xf2, 3], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2, "RFC 1071's example");
    }
}
