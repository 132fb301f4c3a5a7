//! What a server answers that may not serve clients: it is no primary.
//!
//! ```text
//! reads and changes of data        SERVER_ERROR not primary, or nothing where the client wants no answer
//! all else: version, stats, mn …   as always
//!
//! just after a demotion            the connection is closed without an answer: the client tries again, and the address
//!                                  has moved by then
//! ```
//!
//! Not here: when clients are barred (`store::role`).

use super::Shared;
use crate::protocol::binary::{Op, Status};
use crate::protocol::meta::Verb;
use crate::protocol::text::{Admin, TextCommand};
use crate::protocol::token::{Tokens, means};
use crate::protocol::{Refusal, Request, StoreHeader};

/// What takes the place of a reply in text and meta.
const NOT_PRIMARY: &[u8] = b"SERVER_ERROR not primary\r\n";

/// In binary: what clients that know the number take for a temporary failure.
const TRY_AGAIN: Status = Status::NotReplicated;

/// The answer to this request of a client that is barred. None: it gets the usual one.
pub fn refusal(request: &Request<'_>, shared: &Shared) -> Option<Refusal> {
    let is_free = match request {
        // Who asks for the servers of the ring may ask any of them.
        Request::Text(TextCommand::Get(get)) => get.exptime.is_none() && shared.discovery.has_all(get.keys),
        Request::Text(TextCommand::Quit) => true,
        Request::Text(TextCommand::Admin { verb, line, .. }) => !concerns_data(*verb, line),
        Request::Text(_) | Request::Store(_) => false,
        Request::Meta(command) => command.verb == Verb::Noop,
        Request::Binary(packet) => concerns_no_item(packet.op),
        Request::Login(_) => true,
    };
    let line = if wants_no_answer(request) { b"" } else { NOT_PRIMARY };
    (!is_free).then(|| request.refusal(line, TRY_AGAIN, b"Not primary"))
}

/// Whether a request reads items and leaves them as they are. That one may take the win token of an item, and does not
/// where it reads a copy, is its command's affair.
pub(super) fn is_read(request: &Request<'_>) -> bool {
    match request {
        Request::Text(TextCommand::Get(get)) => get.exptime.is_none(),
        Request::Text(TextCommand::Admin { verb: Admin::LruCrawler, line, .. }) => {
            concerns_data(Admin::LruCrawler, line)
        }
        Request::Meta(command) => match command.verb {
            Verb::Get => command.vivify().is_none() && command.ttl().is_none(),
            verb => verb == Verb::Debug,
        },
        Request::Binary(packet) => packet.op == Op::Get,
        Request::Text(_) | Request::Store(_) | Request::Login(_) => false,
    }
}

/// Whether a request certainly changes items, or may: a meta get is none that does, although its flags may change what it
/// finds.
pub fn changes_items(request: &Request<'_>) -> bool {
    match request {
        Request::Text(TextCommand::Get(get)) => get.exptime.is_some(),
        Request::Text(TextCommand::Quit) | Request::Login(_) => false,
        Request::Text(TextCommand::Admin { verb, .. }) => matches!(verb, Admin::FlushAll),
        Request::Text(_) | Request::Store(_) => true,
        Request::Meta(command) => !matches!(command.verb, Verb::Get | Verb::Noop | Verb::Debug),
        Request::Binary(packet) => packet.op != Op::Get && !concerns_no_item(packet.op),
    }
}

fn concerns_no_item(op: Op) -> bool {
    matches!(op, Op::Noop | Op::Version | Op::Stat | Op::Config | Op::Mechanisms | Op::Quit)
}

/// Whether a command reads or changes items, and not just how they are kept.
fn concerns_data(verb: Admin, line: &[u8]) -> bool {
    match verb {
        Admin::FlushAll | Admin::Debugitem => true,
        Admin::LruCrawler => {
            let tokens = Tokens::new(line);
            tokens.get(1).is_some_and(|word| means(word, "metadump") || means(word, "mgdump"))
        }
        _ => false,
    }
}

fn wants_no_answer(request: &Request<'_>) -> bool {
    match request {
        Request::Text(TextCommand::Admin { noreply: quiet, .. })
        | Request::Text(
            TextCommand::Delete { quiet, .. } | TextCommand::Arith { quiet, .. } | TextCommand::Touch { quiet, .. },
        ) => *quiet,
        Request::Store(StoreHeader::Text(store)) => store.quiet,
        _ => false,
    }
}
