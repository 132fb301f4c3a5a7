//! From a request to the function of its verb, for each protocol.
//!
//! Not here: what a verb does.

use super::reply::{respond, respond_text, respond_unless_quiet, response};
use super::{Context, Next, Output, admin, arith, auth, delete, read, write};
use crate::protocol::binary::{HEADER, Op, Packet, Status};
use crate::protocol::token::Tokens;
use crate::protocol::{Request, meta, text};
use crate::stats::{CommandKind, PrefixWalk};
use crate::store::Hash;

/// `stat detail dump` is one packet, made in one go: about so many bytes of it, which are 5,000 prefixes.
const DETAIL_MAX: usize = 256 << 10;

/// Answers a request with this hash of its key; a store's `value` has `body` bytes, and then what follows it.
#[inline(always)]
pub(super) fn request(
    request: &Request<'_>,
    hash: Hash,
    (value, body): (&[u8], usize),
    context: &mut Context<'_>,
    out: &mut Output,
) -> Next {
    match request {
        Request::Text(command) => run_text(command, hash, context, out),
        Request::Store(header) => {
            let (value, tail) = value.split_at(body);
            write::run(header, hash, write::Value::Bytes(value), tail, context, out)
        }
        Request::Meta(command) => {
            let next = run_meta(command, hash, context, out);
            counted(CommandKind::Meta, next, context)
        }
        Request::Binary(packet) => run_binary(packet, hash, context, out),
        Request::Login(login) => {
            context.count(CommandKind::Other);
            auth::log_in(login, (value, body), context, out)
        }
    }
}

#[inline]
fn run_text(command: &text::TextCommand<'_>, hash: Hash, context: &mut Context<'_>, out: &mut Output) -> Next {
    match command {
        text::TextCommand::Get(get) if get.single => return read::get_one(get, hash, context, out),
        text::TextCommand::Get(get) => return run_multiget(get, context, out),
        text::TextCommand::Delete { key, quiet } => {
            context.count(CommandKind::Delete);
            delete::text(key, hash, *quiet, context, out);
        }
        text::TextCommand::Arith { key, incr, delta, quiet } => {
            let next = arith::text((key, hash), *incr, *delta, *quiet, context, out);
            return counted(CommandKind::Arith, next, context);
        }
        text::TextCommand::Touch { key, exptime, quiet } => {
            context.count(CommandKind::Touch);
            read::touch(key, hash, *exptime, *quiet, context, out);
        }
        text::TextCommand::Quit => return Next::Close,
        text::TextCommand::Admin { verb, .. }
            if !context.may_be_long && admin::may_be_long(*verb, context.is_first_reply(out)) =>
        {
            return Next::Later;
        }
        text::TextCommand::Admin { verb, line, noreply } => {
            context.count(CommandKind::Other);
            return admin::run(*verb, &Tokens::new(line), *noreply, context, out);
        }
    }
    Next::Continue
}

/// Counts a request once, in however many parts it is answered.
fn run_multiget(get: &text::Get<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
    let next = read::get_many(get, context, out);
    if matches!(next, Next::Continue) {
        context.count(if get.exptime.is_none() { CommandKind::Multiget } else { CommandKind::Touch });
    }
    next
}

/// Counts a request unless it has to be run again.
#[inline(always)]
fn counted(kind: CommandKind, next: Next, context: &Context<'_>) -> Next {
    if !matches!(next, Next::InLine) {
        context.count(kind);
    }
    next
}

#[inline]
fn run_meta(command: &meta::MetaCommand<'_>, hash: Hash, context: &mut Context<'_>, out: &mut Output) -> Next {
    let mut buffer = None;
    let key = command.key(&mut buffer);
    match command.verb {
        meta::Verb::Get => read::meta_get(command, (key, hash), context, out),
        meta::Verb::Delete => delete::meta(command, (key, hash), context, out),
        meta::Verb::Arith => return arith::meta(command, (key, hash), context, out),
        meta::Verb::Debug => read::meta_debug((key, hash), context, out),
        meta::Verb::Noop => {
            if context.source.is_some_and(|source| !source.is_replaced()) {
                context.shared.store.copied().heard();
            }
            out.push(b"MN\r\n");
        }
        meta::Verb::Set => unreachable!("the parser gives ms as a store request"),
    }
    Next::Continue
}

fn run_binary(packet: &Packet<'_>, hash: Hash, context: &mut Context<'_>, out: &mut Output) -> Next {
    match packet.op {
        Op::Flush { .. } | Op::Stat if !context.may_be_long => return Next::Later,
        Op::Arith { incr, delta, initial, exptime } => {
            let create = (exptime != arith::NEVER_CREATE).then_some((initial, exptime));
            let next = arith::binary(packet, hash, incr, delta, create, context, out);
            return counted(CommandKind::Arith, next, context);
        }
        _ => context.count(kind_of(packet.op)),
    }
    match packet.op {
        Op::Get => read::binary_get(packet, hash, None, context, out),
        Op::GetAndTouch { exptime } => read::binary_get(packet, hash, Some(exptime), context, out),
        Op::Touch { exptime } => read::binary_touch(packet, hash, exptime, context, out),
        Op::Delete => delete::binary(packet, hash, context, out),
        Op::Noop => respond(packet, Status::Ok, out),
        Op::Version => respond_text(packet, Status::Ok, crate::VERSION.as_bytes(), out),
        Op::Flush { exptime } => binary_flush(packet, exptime, context, out),
        Op::Stat => binary_stat(packet, context, out),
        Op::Config if context.shared.discovery.answer_packet(packet, out) => {}
        Op::Config => respond(packet, Status::UnknownCommand, out),
        Op::Quit => {
            respond_unless_quiet(packet, out);
            return Next::Close;
        }
        Op::Mechanisms => auth::mechanisms(packet, context, out),
        Op::Arith { .. } => unreachable!("it is answered above"),
        Op::Store { .. } | Op::Sasl => unreachable!("the parser gives it as a request of another kind"),
    }
    Next::Continue
}

#[inline]
fn kind_of(op: Op) -> CommandKind {
    match op {
        Op::Get => CommandKind::Get,
        Op::GetAndTouch { .. } | Op::Touch { .. } => CommandKind::Touch,
        Op::Delete => CommandKind::Delete,
        _ => CommandKind::Other,
    }
}

fn binary_flush(packet: &Packet<'_>, exptime: u32, context: &mut Context<'_>, out: &mut Output) {
    if !context.shared.config.flush_enabled {
        return respond(packet, Status::AuthError, out);
    }
    context.counters.flush_cmds.add(1);
    match context.flush_all(exptime.into()) {
        true => respond_unless_quiet(packet, out),
        false => respond(packet, Status::Busy, out),
    }
}

fn binary_stat(packet: &Packet<'_>, context: &mut Context<'_>, out: &mut Output) {
    let (start, mut fits) = (out.bytes.len(), true);
    let known = match packet.key.strip_prefix(b"detail") {
        Some(argument) => binary_stat_detail(packet, argument, context, out),
        None => {
            admin::stats::each((!packet.key.is_empty()).then_some(packet.key), context.shared, &mut |name, value| {
                fits = fits && push_stat(packet, name.as_bytes(), value.as_bytes(), out);
            })
        }
    };
    match known {
        _ if !fits => {
            out.bytes.truncate(start);
            respond(packet, Status::NoMemory, out);
        }
        true => respond(packet, Status::Ok, out),
        false => respond(packet, Status::NotFound, out),
    }
}

/// `detail on|off|dump`; false for anything else, and for all of it under `-X`.
fn binary_stat_detail(packet: &Packet<'_>, argument: &[u8], context: &Context<'_>, out: &mut Output) -> bool {
    if !context.shared.config.dump_enabled {
        return false;
    }
    let prefixes = &context.shared.stats.prefixes;
    match argument {
        b" on" => prefixes.enable(true),
        b" off" => prefixes.enable(false),
        b" dump" => {
            let (mut text, mut at) = (Vec::new(), PrefixWalk::default());
            while text.len() < DETAIL_MAX && prefixes.dump_some(&mut at, &mut text) {}
            text.extend_from_slice(b"END\r\n");
            push_stat(packet, b"detailed", &text, out);
        }
        _ => return false,
    }
    true
}

/// False: the system has no memory for it.
fn push_stat(packet: &Packet<'_>, name: &[u8], value: &[u8], out: &mut Output) -> bool {
    if out.bytes.try_reserve(HEADER + name.len() + value.len()).is_err() {
        return false;
    }
    response(packet, Status::Ok, 0, b"", name, value.len()).encode(&mut out.bytes);
    out.push(value);
    true
}
