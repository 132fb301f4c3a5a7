//! What clients are told that find the servers of their ring by asking one of them, as Amazon's ElastiCache tells it.
//!
//! ```text
//! config get cluster              CONFIG cluster 0 <bytes>\r\n<body>\r\nEND\r\n
//! get AmazonElastiCache:cluster   VALUE AmazonElastiCache:cluster 0 <bytes>\r\n<body>\r\nEND\r\n      gets: the version as cas
//! binary 0x60, key cluster        4 bytes of client flags, which are 0, and the body
//!
//! body                            <version>\n<host>|<ip>|<port> <host>|<ip>|<port> …\n
//! ```
//!
//! Whoever knows the servers says them to the control socket (`topology`). Before that all of this is answered as
//! memcached does, which knows none of it: an error, a miss, an unknown command. Every role answers.
//!
//! The key is looked for among the items first, so that a server that was told nothing, and a hit, pay nothing for it; an
//! item of this name hides what gets are told. `mg`, and gets of the binary protocol, ask for items alone.
//!
//! Invariant: the version grows with each change of the body.
//!
//! Not here: which bodies are allowed ([`crate::protocol::topology`]).

use super::Output;
use super::reply::{END, response};
use crate::protocol::binary::{Packet, Status};
use crate::protocol::token::words;
use crate::sync::lock;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name by which clients ask who do not know `config get cluster`.
const KEY: &[u8] = b"AmazonElastiCache:cluster";

/// See the module's head.
#[derive(Debug, Default)]
pub struct Discovery {
    is_told: AtomicBool,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// 0 before anything was told.
    version: u32,
    body: Vec<u8>,
}

impl Discovery {
    /// Tells these servers from now on. False: what is told is of this version or of a later one, and says something else.
    pub fn tell(&self, version: u32, servers: &str) -> bool {
        let body = format!("{version}\n{servers}\n").into_bytes();
        let mut told = lock(&self.told);
        if version <= told.version {
            return body == told.body;
        }
        *told = Told { version, body };
        self.is_told.store(true, Ordering::Relaxed);
        true
    }

    /// Whether there is something to tell. Who is a moment late sees what there was a moment ago.
    #[inline]
    pub(super) fn is_told(&self) -> bool {
        self.is_told.load(Ordering::Relaxed)
    }

    /// Whether a get of this key is answered here.
    #[inline]
    pub(super) fn has(&self, key: &[u8]) -> bool {
        self.is_told() && key == KEY
    }

    /// Whether gets of these keys ask for nothing else. Some clients send a space behind the key.
    pub(super) fn has_all(&self, keys: &[u8]) -> bool {
        self.is_told() && words(keys).all(|key| key == KEY)
    }

    /// Answers `config get cluster`; false if there is nothing to tell.
    pub(super) fn answer_config(&self, out: &mut Output) -> bool {
        if !self.is_told() {
            return false;
        }
        lock(&self.told).push(b"CONFIG cluster 0 ", false, b"\r\n", out);
        out.push(END);
        true
    }

    /// Answers a get of the key with `end` behind the body; how many bytes that were.
    #[cold]
    pub(super) fn answer_get(&self, with_cas: bool, end: &[u8], out: &mut Output) -> usize {
        let before = out.bytes.len();
        lock(&self.told).push(b"VALUE AmazonElastiCache:cluster 0 ", with_cas, end, out);
        out.bytes.len() - before
    }

    /// Answers a packet whose key is `cluster`; false if there is nothing to tell.
    pub(super) fn answer_packet(&self, packet: &Packet<'_>, out: &mut Output) -> bool {
        if packet.key != b"cluster" || !self.is_told() {
            return false;
        }
        let told = lock(&self.told);
        response(packet, Status::Ok, 0, &[0; 4], b"", told.body.len()).encode(&mut out.bytes);
        out.push(&told.body);
        true
    }
}

impl Told {
    fn push(&self, line: &[u8], with_cas: bool, end: &[u8], out: &mut Output) {
        out.push(line);
        out.push_number(self.body.len() as u64);
        if with_cas {
            out.push(b" ");
            out.push_number(self.version.into());
        }
        out.push(b"\r\n");
        out.push(&self.body);
        out.push(end);
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{TestServer, packet};

    const GET: &str = "get AmazonElastiCache:cluster";

    #[test]
    fn who_was_told_nothing_answers_as_memcached() {
        let server = TestServer::new(|_| {});
        server.check(&[
            ("config get cluster", "ERROR"),
            ("config get cluster noreply", ""),
            ("config", "ERROR"),
            (GET, "END"),
            ("set AmazonElastiCache:cluster 1 0 2|hi", "STORED"),
            (GET, "VALUE AmazonElastiCache:cluster 1 2|hi|END"),
        ]);
        for (key, value) in [(&b"cluster"[..], &b""[..]), (b"other", b""), (b"", b""), (b"cluster", b"value")] {
            for extras in [&b""[..], b"1234"] {
                let unknown = server.send(&packet(0x1b, extras, key, value, 9, 5));
                let mut reply = server.send(&packet(0x60, extras, key, value, 9, 5));
                assert_eq!(reply[1], 0x60);
                reply[1] = 0x1b;
                assert_eq!(reply, unknown, "{}", key.escape_ascii());
            }
        }
    }

    #[test]
    fn all_ways_to_ask() {
        let server = TestServer::new(|_| {});
        assert!(server.shared.discovery.tell(3, "a.b|10.0.0.1|11211 c||11212"));
        let body = "3\na.b|10.0.0.1|11211 c||11212\n";
        let (config, value) =
            (format!("CONFIG cluster 0 30|{body}|END"), format!("VALUE AmazonElastiCache:cluster 0 30|{body}|"));
        let gets = format!("VALUE AmazonElastiCache:cluster 0 30 3|{body}|END");
        server.check(&[
            ("config get cluster", &config),
            ("config get cluster ", &config),
            ("config get others", "ERROR"),
            ("config set cluster", "ERROR"),
            ("config get cluster noreply", ""),
            (GET, &format!("{value}END")),
            ("gets AmazonElastiCache:cluster", &gets),
            ("get AmazonElastiCache:cluster ", &format!("{value}END")),
            ("get x AmazonElastiCache:cluster y", &format!("{value}END")),
            ("mg AmazonElastiCache:cluster v", "EN"),
            ("gat 0 AmazonElastiCache:cluster", "END"),
            ("set AmazonElastiCache:cluster 1 0 2|hi", "STORED"),
            (GET, "VALUE AmazonElastiCache:cluster 1 2|hi|END"),
        ]);
        assert_eq!(
            server.send(b"config get cluster\n"),
            format!("CONFIG cluster 0 30\r\n{body}\r\nEND\r\n").as_bytes()
        );
        let reply = server.send(&packet(0x60, b"", b"cluster", b"", 9, 5));
        assert_eq!(
            reply,
            [&[0x81, 0x60, 0, 0, 4, 0, 0, 0, 0, 0, 0, 34, 0, 0, 0, 9][..], &[0; 12], body.as_bytes()].concat()
        );
        assert_eq!(server.send(&packet(0x60, b"", b"clusters", b"", 9, 5))[7], 0x81);
    }

    #[test]
    fn a_version_says_one_thing() {
        let server = TestServer::new(|_| {});
        let discovery = &server.shared.discovery;
        for (version, servers, is_told) in [
            (2, "a||1", true),
            (2, "a||1", true),
            (2, "b||1", false),
            (1, "a||1", false),
            (4, "b||1", true),
            (3, "b||1", false),
        ] {
            assert_eq!(discovery.tell(version, servers), is_told, "{version} {servers}");
        }
        server.check(&[("config get cluster", "CONFIG cluster 0 7|4\nb||1\n|END")]);
    }
}
