//! The fuzz targets themselves: bytes into the parser, and bytes through parser, commands and store.
//!
//! ```text
//!   data ─> parse, whole and cut short ─> same answer, and no claim on bytes that are not there
//!   data ─> Batch ─> run, or begin, pieces, finish ─> Output ─> well-formed replies
//! ```
//!
//! Used by `cargo fuzz` and, with random input, by an ordinary test. A failed invariant is a panic.

use super::replies;
use std::sync::Arc;
use twincache::clock::Clock;
use twincache::command::batch::Batch;
use twincache::command::{self, Context, Filled, Next, Output, Shared};
use twincache::config::Config;
use twincache::journal::acks::LastLsn;
use twincache::protocol::{Bad, Cut, Parsed, Protocol, Request, StoreHeader, parse};
use twincache::store::{Store, StoreConfig};

/// Above this a line without its end may close the connection, so where the input was cut then matters.
const LINE_MAX: usize = 2048;

/// The most that a SASL mechanism is told at a time.
const LOGIN_MAX: usize = 16 << 10;

/// Every parse of `data`, and of each tail that a parse leaves, holds the parser's promises.
pub fn parse_all(data: &[u8]) {
    let protocol = protocol_of(data);
    let mut rest = data;
    while !rest.is_empty() {
        let whole = parse(protocol, rest, 0);
        check_claims(&whole, rest.len());
        check_cuts(protocol, rest, &whole);
        match step(&whole) {
            Some(n) => rest = &rest[n.min(rest.len())..],
            None => return,
        }
    }
}

fn protocol_of(data: &[u8]) -> Protocol {
    if data.first() == Some(&0x80) { Protocol::Binary } else { Protocol::Ascii }
}

/// Bytes until the next request; None when there is none.
fn step(parsed: &Parsed<'_>) -> Option<usize> {
    match parsed {
        Parsed::Request(cut) => Some(cut.size()),
        Parsed::Partial { .. } => None,
        Parsed::Bad(bad) if bad.close => None,
        Parsed::Bad(bad) => Some(bad.consumed.saturating_add(usize::try_from(bad.swallow).unwrap())),
    }
}

fn check_claims(parsed: &Parsed<'_>, len: usize) {
    match parsed {
        Parsed::Request(cut @ Cut { head, body, tail, .. }) => {
            assert!((1..=len).contains(head), "{head} of {len}");
            assert!(*body <= 1 << 31 && matches!(tail, 0 | 2), "{body} {tail}");
            // What a login brings is waited for in a buffer, so it is short.
            let is_login = matches!(cut.request, Request::Login(_)) && *body <= LOGIN_MAX;
            assert!(cut.is_store() || is_login || body + tail == 0, "{body} {tail}");
        }
        Parsed::Partial { need } => assert!(*need == 0 || *need > len, "needs {need}, has {len}"),
        Parsed::Bad(bad) => {
            assert!(bad.consumed <= len, "{} of {len}", bad.consumed);
            assert!(bad.close || bad.consumed > 0, "no way forward");
            assert!(bad.swallow <= (1 << 32) + 1024, "{}", bad.swallow);
        }
    }
}

/// The same input cut short says the same, or asks for no more than the rest. What is known to hold no line
/// feed may be said or not.
fn check_cuts(protocol: Protocol, data: &[u8], whole: &Parsed<'_>) {
    let expected = format!("{whole:?}");
    let used = claimed(whole).min(data.len());
    let scanned = data.iter().position(|&b| b == b'\n').unwrap_or(data.len());
    if protocol == Protocol::Ascii && scanned <= LINE_MAX {
        assert_eq!(format!("{:?}", parse(protocol, data, scanned)), expected, "scanned {scanned}");
    }
    let cuts = if used <= 64 { (1..used).collect() } else { vec![1, 2, 23, 24, used / 2, used - 2, used - 1] };
    for cut in cuts {
        if protocol == Protocol::Ascii && cut > LINE_MAX.min(scanned) {
            continue;
        }
        match parse(protocol, &data[..cut], 0) {
            Parsed::Partial { need } => {
                assert!(need <= used || matches!(whole, Parsed::Partial { .. }), "{need} > {used}")
            }
            early => assert_eq!(format!("{early:?}"), expected, "cut at {cut}"),
        }
    }
}

/// Bytes that the parser looked at for its answer.
fn claimed(parsed: &Parsed<'_>) -> usize {
    match parsed {
        Parsed::Request(cut) => cut.head,
        Parsed::Partial { .. } => usize::MAX,
        Parsed::Bad(bad) => bad.consumed,
    }
}

/// A small server without sockets.
pub struct FuzzServer {
    shared: Shared,
    counters: Arc<twincache::stats::Counters>,
    last_lsn: LastLsn,
}

impl FuzzServer {
    /// An empty one of 4 MiB.
    pub fn new() -> FuzzServer {
        let clock = Arc::new(Clock::new());
        let store = StoreConfig { memory_limit: 4 << 20, shards: Some(2), ..StoreConfig::default() };
        let config = Config { store: store.clone(), ..Config::default() };
        let store = Store::new(store, Arc::clone(&clock)).expect("a store of 4 MiB");
        let shared = Shared::new(config, clock, store);
        let counters = shared.stats.worker();
        FuzzServer { shared, counters, last_lsn: LastLsn::default() }
    }

    /// Feeds one connection's input; its replies must be well-formed.
    pub fn feed(&mut self, data: &[u8]) {
        let protocol = protocol_of(data);
        let mut out = Output::default();
        self.requests(protocol, data, &mut out);
        let bytes = written(&out);
        match protocol {
            Protocol::Ascii => replies::check_text(&bytes, true),
            _ => replies::check_binary(&bytes, true),
        }
    }

    /// Every structure of the store agrees with every other.
    pub fn check(&self) {
        self.shared.store.check().expect("the store is consistent");
    }

    /// Lets time pass.
    pub fn advance(&self, seconds: i64) {
        self.shared.clock.advance(seconds);
    }

    fn requests(&mut self, protocol: Protocol, mut data: &[u8], out: &mut Output) {
        while !data.is_empty() {
            let parsed = parse(protocol, data, 0);
            let (used, goes_on) = match &parsed {
                Parsed::Request(cut) => match &cut.request {
                    Request::Store(header) if cut.size() > data.len() || cut.body % 2 == 1 => {
                        match self.upload(header, cut, &data[cut.head..], out) {
                            Some(used) => (cut.head as u64 + used, true),
                            None => return,
                        }
                    }
                    // What a login brings is waited for, as the rest of a line is.
                    Request::Login(_) if cut.size() > data.len() => return,
                    _ => (cut.size() as u64, self.run(protocol, data, out)),
                },
                Parsed::Partial { .. } => return,
                Parsed::Bad(bad) => {
                    if refused(bad, data.len() - bad.consumed, out).is_none() {
                        return;
                    }
                    (bad.consumed as u64 + bad.swallow, !bad.close)
                }
            };
            if !goes_on {
                return;
            }
            data = &data[(used as usize).min(data.len())..];
        }
    }

    /// Runs the first request of `data`.
    fn run(&mut self, protocol: Protocol, data: &[u8], out: &mut Output) -> bool {
        let mut batch = Batch::default();
        batch.cut(protocol, data, 0, 1, &self.shared.store);
        batch.prefetch(&self.shared.store);
        let request = batch.requests(0..1).next().expect("it was parsed");
        let mut context = Context { room: 0, ..self.context() };
        loop {
            match request.run(&mut context, out) {
                Next::Continue | Next::Spent(_) | Next::Source(_) => return true,
                Next::More(resume) => (context.resume, context.is_checking) = (resume, false),
                Next::Check(resume) => (context.resume, context.is_checking) = (resume, true),
                Next::InLine => context.room = usize::MAX,
                Next::Later | Next::Join(_) => panic!("it may be long"),
                Next::Dump(mut dump) => {
                    while dump.fill(&self.shared.clock, &self.shared.stats, out) == Filled::More {}
                    return true;
                }
                Next::Close | Next::Watch(_) | Next::Shutdown { .. } | Next::Speak(_) => return false,
            }
        }
    }

    fn context(&self) -> Context<'_> {
        let FuzzServer { shared, counters, last_lsn } = self;
        Context {
            shared,
            counters,
            fd: 7,
            last_lsn,
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

    /// A store request whose value comes in pieces. None: the input ends first.
    fn upload(&mut self, header: &StoreHeader<'_>, cut: &Cut<'_>, rest: &[u8], out: &mut Output) -> Option<u64> {
        let (context, body, tail) = (self.context(), cut.body, cut.tail);
        let mut upload = match command::begin(header, body, &context) {
            Ok(upload) => upload,
            Err(bad) => return refused(&bad, rest.len(), out),
        };
        let mut at = 0;
        while !upload.is_complete() {
            let Ok(room) = upload.room() else {
                drop(upload);
                let bad = command::out_of_memory(header, (body + tail - at) as u64, &context);
                return refused(&bad, rest.len() - at, out).map(|swallowed| at as u64 + swallowed);
            };
            assert!(!room.is_empty(), "no room in an incomplete upload");
            let n = room.len().min(rest.len() - at).min(1000);
            if n == 0 {
                return None;
            }
            room[..n].copy_from_slice(&rest[at..at + n]);
            upload.filled(n);
            at += n;
        }
        assert_eq!(at, body);
        let end = rest.get(body..body + tail)?;
        command::finish(header, upload, end, &context, out);
        Some((body + tail) as u64)
    }
}

/// Queues a refusal's reply if all that it swallows is there, and says how much that was.
fn refused(bad: &Bad, left: usize, out: &mut Output) -> Option<u64> {
    if bad.swallow > left as u64 {
        return None;
    }
    bad.reply.push_to(&mut out.bytes);
    Some(bad.swallow)
}

/// What a connection would write.
fn written(out: &Output) -> Vec<u8> {
    let (mut bytes, mut at) = (Vec::with_capacity(out.len()), 0);
    for inserted in &out.values {
        assert!(inserted.at >= at && inserted.at <= out.bytes.len(), "values out of order");
        bytes.extend_from_slice(&out.bytes[at..inserted.at]);
        at = inserted.at;
        let mut slices = Vec::new();
        inserted.value.io_slices(0, &mut slices);
        let before = bytes.len();
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        assert_eq!(bytes.len() - before, inserted.value.len());
    }
    bytes.extend_from_slice(&out.bytes[at..]);
    bytes
}
