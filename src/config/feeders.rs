//! Who may feed this server: the addresses of `-o standby`.
//!
//! ```text
//! 10.0.0.1   10.0.0.0/24   2001:db8::1   2001:db8::/64   0.0.0.0/0: whoever connects
//! ```
//!
//! Not here: what a feeder may do (`store::role`), and how a server that is told its role knows one (by a key).

use super::exit::Exit;
use std::net::IpAddr;

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    address: IpAddr,
    /// So many bits are the same.
    bits: u32,
}

impl AddressRange {
    /// Every address there is, and whoever has none.
    pub const ALL: AddressRange = AddressRange { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), bits: 0 };

    /// Whether an address is one of them.
    pub fn has(&self, address: Option<IpAddr>) -> bool {
        if self.bits == 0 {
            return true;
        }
        match (self.address, address.map(|address| address.to_canonical())) {
            (IpAddr::V4(own), Some(IpAddr::V4(other))) => {
                same_bits(own.to_bits().into(), other.to_bits().into(), 32 - self.bits)
            }
            (IpAddr::V6(own), Some(IpAddr::V6(other))) => same_bits(own.to_bits(), other.to_bits(), 128 - self.bits),
            _ => false,
        }
    }
}

/// Whether two numbers are the same but for their lowest bits.
fn same_bits(a: u128, b: u128, lowest: u32) -> bool {
    (a ^ b) >> lowest == 0
}

/// One value of `-o standby`.
pub(super) fn address_range(text: &str) -> Result<AddressRange, Exit> {
    let wrong = || {
        Exit::usage(format!(
            "standby needs the address of who feeds this server, as 10.0.0.1 or 10.0.0.0/24, not \"{text}\""
        ))
    };
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address = address.parse::<IpAddr>().map_err(|_| wrong())?.to_canonical();
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), super::values::whole).filter(|bits| *bits <= most);
    Ok(AddressRange { address, bits: bits.ok_or_else(wrong)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_in_a_range() {
        let table = [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("10.0.0.1/24", "10.0.0.255", true),
            ("10.0.0.1/24", "10.0.1.1", false),
            ("10.0.0.1/31", "10.0.0.0", true),
            ("2001:db8::1", "2001:db8::1", true),
            ("2001:db8::/64", "2001:db8::ffff:1", true),
            ("2001:db8::/64", "2001:db8:1::1", false),
            ("2001:db8::/64", "10.0.0.1", false),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("0.0.0.0/0", "2001:db8::1", true),
        ];
        for (range, address, is_in) in table {
            let range = address_range(range).unwrap_or_else(|_| panic!("{range}"));
            assert_eq!(range.has(Some(address.parse().unwrap())), is_in, "{range:?} {address}");
            assert_eq!(range.has(None), range.bits == 0);
        }
        for text in ["", "localhost", "10.0.0.1:11211", "10.0.0.1/33", "10.0.0.1/", "10.0.0.1/x", "2001:db8::/129"] {
            assert!(address_range(text).is_err(), "{text}");
        }
    }
}
