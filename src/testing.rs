//! What tests of several modules share: random numbers and the seeds that replay them, and servers without sockets.
//!
//! ```text
//! Rng         from a seed; `seeds` chooses seeds, prints them, and replays the one of TWINCACHE_SEED
//! TestServer  what the workers of a server share, and runs requests: bytes in, replies out
//! ```
//!
//! `TWINCACHE_SEEDS` says how many seeds from the one chosen on, or from a random one, are tried.
//!
//! Not here: a store and its background work, step by step (`store::tests::rig`); a connection over a socket in
//! memory (`net::tests::connection`).

#[path = "../tests/common/rng.rs"]
#[allow(unreachable_pub, reason = "the crates of the tests have it, too")]
mod rng;

pub(crate) use rng::Rng;

use crate::clock::Clock;
use crate::command::batch::{Batch, End};
use crate::command::{Context, Next, Output, Shared};
use crate::config::{AddressRange, Config};
use crate::journal::acks::LastLsn;
use crate::protocol::Protocol;
use crate::stats::Counters;
use crate::store::Store;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
}

/// Whether somebody has chosen the seed: what is sure to happen in many runs need not happen in one.
pub(crate) fn is_replay() -> bool {
    number("TWINCACHE_SEED").is_some()
}

/// As many seeds, which differ from run to run.
pub(crate) fn seeds(count: u64) -> impl Iterator<Item = u64> {
    seeds_from(RandomState::new().hash_one(0), count)
}

/// As many seeds, the same ones in every run.
pub(crate) fn seeds_from(first: u64, count: u64) -> impl Iterator<Item = u64> {
    let (first, count) = number("TWINCACHE_SEED").map_or((first, count), |chosen| (chosen, 1));
    let count = number("TWINCACHE_SEEDS").unwrap_or(count);
    (0..count).map(move |i| first.wrapping_add(i)).inspect(|seed| println!("TWINCACHE_SEED={seed}"))
}

/// Waits until something is so that is certain to come; on a busy machine that may take its time.
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(90);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A server without sockets and threads: a worker's belongings, and a store of its own.
pub(crate) struct TestServer {
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
    pub last_lsn: LastLsn,
}

impl TestServer {
    /// With the default options but for these changes.
    pub(crate) fn new(change: impl FnOnce(&mut Config)) -> TestServer {
        TestServer::with_clock(&Arc::new(Clock::new()), change)
    }

    /// As [`TestServer::new`], with a clock that the test drives, or that servers share.
    pub(crate) fn with_clock(clock: &Arc<Clock>, change: impl FnOnce(&mut Config)) -> TestServer {
        let mut config = Config { standby: vec![AddressRange::ALL], ..Config::default() };
        change(&mut config);
        let store = Store::new(config.store.clone(), clock.clone()).expect("a store");
        let shared = Arc::new(Shared::new(config, clock.clone(), store));
        let counters = shared.stats.worker();
        TestServer { shared, counters, last_lsn: LastLsn::default() }
    }

    /// What a command runs in.
    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            shared: &self.shared,
            counters: &self.counters,
            fd: 5,
            last_lsn: &self.last_lsn,
            source: None,
            replies_at: 0,
            resume: 0,
            is_checking: false,
            part: 256 << 10,
            may_be_long: true,
            joined_at_once: usize::MAX,
            room: usize::MAX,
            reads_copy: false,
        }
    }

    /// Runs the request at the start of `input`. How many bytes it took, 0 if it is not whole.
    pub(crate) fn run_one(&self, input: &[u8], out: &mut Output) -> (Next, usize) {
        let protocol = if input[0] == 0x80 { Protocol::Binary } else { Protocol::Ascii };
        let mut batch = Batch::default();
        match batch.cut(protocol, input, 0, 1, &self.shared.store) {
            End::Partial(_) | End::Value(_) => return (Next::Continue, 0),
            End::Bad(bad) => {
                bad.reply.push_to(&mut out.bytes);
                return (Next::Continue, bad.consumed + bad.swallow as usize);
            }
            End::Full => {}
        }
        let prepared = batch.requests(0..1).next().expect("a whole request");
        (prepared.run(&mut self.context(), out), prepared.cut.size())
    }

    /// Runs every whole request at the start of `input`. How many bytes they took, and the replies.
    pub(crate) fn run(&self, input: &[u8]) -> (usize, Vec<u8>) {
        let (mut at, mut out) = (0, Output::default());
        while at < input.len() {
            let (next, used) = self.run_one(&input[at..], &mut out);
            assert!(
                matches!(next, Next::Continue | Next::Spent(_) | Next::Source(_)),
                "{next:?}: {}",
                input[at..].escape_ascii()
            );
            if used == 0 {
                break;
            }
            at += used;
        }
        (at, flatten(&out))
    }

    /// Runs whole requests.
    pub(crate) fn send(&self, input: &[u8]) -> Vec<u8> {
        let (used, replies) = self.run(input);
        assert_eq!(used, input.len(), "half a request: {}", input[used..].escape_ascii());
        replies
    }

    /// Runs text requests, line ends written as `|`; the replies in the same notation.
    pub(crate) fn ask(&self, script: &str) -> String {
        let replies = self.send(script.replace('|', "\r\n").as_bytes());
        String::from_utf8(replies).expect("text").replace("\r\n", "|")
    }

    /// Runs scripts, one after the other, whose replies must be these. The last line ends may be left out.
    pub(crate) fn check(&self, scripts: &[(&str, &str)]) {
        let whole = |text: &str| if text.is_empty() || text.ends_with('|') { text.into() } else { format!("{text}|") };
        for (script, replies) in scripts {
            assert_eq!(self.ask(&whole(script)), whole(replies), "{script}");
        }
    }
}

/// What a client is sent, the values that leave by reference in their places.
pub(crate) fn flatten(out: &Output) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::new(), 0);
    for inserted in &out.values {
        bytes.extend_from_slice(&out.bytes[at..inserted.at]);
        let mut slices = Vec::new();
        inserted.value.io_slices(0, &mut slices);
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        at = inserted.at;
    }
    bytes.extend_from_slice(&out.bytes[at..]);
    bytes
}

/// A binary request.
pub(crate) fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8], opaque: u32, cas: u64) -> Vec<u8> {
    let body = extras.len() + key.len() + value.len();
    let mut packet = vec![0x80, opcode, 0, key.len() as u8, extras.len() as u8, 0, 0, 0];
    packet.extend_from_slice(&(body as u32).to_be_bytes());
    packet.extend_from_slice(&opaque.to_be_bytes());
    packet.extend_from_slice(&cas.to_be_bytes());
    [&packet, extras, key, value].concat()
}
