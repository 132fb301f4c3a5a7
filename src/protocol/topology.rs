//! The servers that clients who discover are told, as the control socket's line says them.
//!
//! ```text
//! topology <version> <host>|<ip>|<port> …        each change of the list makes the version larger
//!                    10.0.0.1 or nothing between the bars
//! ```
//!
//! The servers are written just as clients get them, so a line that was checked is passed on as it is. Its bounds are
//! those of what clients read: Dalli and pymemcache cut a host from other text by these characters.
//!
//! Not here: what clients are answered (`command::discovery`).

use super::token::strict_u32;
use std::net::IpAddr;

/// The most servers of a line. A ring of more is not what clients that discover were made for.
const SERVERS_MAX: usize = 64;

/// The longest name of a host that the domain name system has.
const HOST_MAX: usize = 253;

/// Bytes of the longest address: an IPv6 address with an IPv4 address at its end.
const IP_MAX: usize = 45;

/// Longest line, without its end.
pub const TOPOLOGY_LINE_MAX: usize =
    VERB.len() + "2147483647".len() + SERVERS_MAX * (HOST_MAX + IP_MAX + "| |65535".len());

/// How such a line begins.
const VERB: &str = "topology ";

/// What the line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopologyLine<'a> {
    /// 1 to 2^31 - 1: clients keep it in a signed number.
    pub version: u32,
    /// The servers with one space between them.
    pub servers: &'a str,
}

impl<'a> TopologyLine<'a> {
    /// Whether the beginning of a line is that of such a line.
    pub fn is_begun(line: &[u8]) -> bool {
        line.starts_with(VERB.as_bytes())
    }

    /// The value of a line without its end; None when something in it is out of bounds.
    pub fn parse(line: &'a [u8]) -> Option<TopologyLine<'a>> {
        let line = std::str::from_utf8(line).ok()?;
        let (version, servers) = line.strip_prefix(VERB)?.split_once(' ')?;
        let version = strict_u32(version.as_bytes()).filter(|version| (1..1 << 31).contains(version))?;
        let fits = servers.len() <= TOPOLOGY_LINE_MAX
            && servers.split(' ').count() <= SERVERS_MAX
            && servers.split(' ').all(is_server);
        fits.then_some(TopologyLine { version, servers })
    }
}

impl std::fmt::Display for TopologyLine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{VERB}{} {}", self.version, self.servers)
    }
}

fn is_server(text: &str) -> bool {
    let mut parts = text.split('|');
    let (Some(host), Some(ip), Some(port), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    is_host(host) && (ip.is_empty() || ip.parse::<IpAddr>().is_ok()) && is_port(port)
}

fn is_host(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    (1..=HOST_MAX).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// As people write it, without zeros in front.
fn is_port(text: &str) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    is_number && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_they_are_written_from() {
        let longest = format!("{}|{}|65535", "h".repeat(HOST_MAX), "0000:0000:0000:0000:0000:ffff:255.255.255.255");
        for servers in ["a.b-c|10.0.0.1|11211", "a||1 b|::1|65535", &vec![longest.as_str(); SERVERS_MAX].join(" ")] {
            for version in [1, 7, (1 << 31) - 1] {
                let line = TopologyLine { version, servers };
                let text = line.to_string();
                assert!(TopologyLine::is_begun(text.as_bytes()) && text.len() <= TOPOLOGY_LINE_MAX);
                assert_eq!(TopologyLine::parse(text.as_bytes()), Some(line));
            }
        }
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let table = [
            "topology",
            "topology ",
            "topology 1",
            "topology 1 ",
            "topology a||1",
            "topology x a||1",
            "topology 0 a||1",
            "topology 2147483648 a||1",
            "topology 1 a||1 ",
            "topology 1  a||1",
            "topology 1 a||1  b||1",
            "topology 1 a|1",
            "topology 1 ||1",
            "topology 1 a||0",
            "topology 1 a||65536",
            "topology 1 a||01",
            "topology 1 a||+1",
            "topology 1 a||",
            "topology 1 a_b||1",
            "topology 1 a|b|1",
            "topology 1 a||1|",
            "topology 1 ä||1",
            "topology 1 a|10.0.0.256|1",
            "topologies 1 a||1",
        ];
        let long_host = format!("topology 1 {}||1", "h".repeat(HOST_MAX + 1));
        let many = format!("topology 1 {}", vec!["a||1"; SERVERS_MAX + 1].join(" "));
        for text in table.into_iter().chain([long_host.as_str(), &many]) {
            assert_eq!(TopologyLine::parse(text.as_bytes()), None, "{text}");
        }
    }
}
