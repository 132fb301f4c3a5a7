//! What one UDP datagram asks for, and the datagrams that answer it: bytes in, bytes out, no socket.
//!
//! ```text
//!  0         2         4         6         8                        all numbers are big endian
//!  | request | sequence| total   | 0       | a line, or a packet, …  total must be 1 in a request
//!
//!  get a b\r\nmn\r\n ──> VALUE a …\r\n | VALUE b …\r\nEND\r\n | MN\r\n        three messages, each of 1 to n datagrams
//! ```
//!
//! Every request, and every key of a get, is answered by a message of its own, in datagrams of up to [`DATAGRAM`] bytes.
//! What is not whole is not answered; it is no part of the next datagram.
//!
//! One request of a datagram may take longer than a lookup, as statistics do; what is behind another one is not read. What
//! an append copies counts as requests.
//!
//! Bounds, since whoever is answered may not be who has asked: one datagram is read as [`REQUESTS_MAX`] requests and keys
//! at most, and once its answer has [`ANSWER_MAX`] bytes nothing more of it is read. A message of which more than that
//! would be sent is an error instead. What looks like a reply is not answered: whoever forges a server's address could
//! have two servers answer each other for ever.
//!
//! Invariant: nothing is added to an answer unless there was room for it before.
//!
//! Not here: sockets and turns (`worker::datagrams`), what requests do (`command`).

use crate::command::batch::{BATCH, Batch, End, Prepared};
use crate::command::{Context, Filled, LongAnswer, Next, Output, barred};
use crate::protocol::binary::{self, Op, Status};
use crate::protocol::text::{Admin, Get, TextCommand};
use crate::protocol::{BAD_FORMAT, Cut, KEY_MAX, Protocol, Refusal, Request, StoreHeader, token};

/// Bytes of the header.
const HEADER: usize = 8;

/// Longest datagram that is sent: one that fits into an Ethernet frame.
const DATAGRAM: usize = 1400;

/// Bytes of a message in each.
const PAYLOAD: usize = DATAGRAM - HEADER;

/// Requests and keys of one datagram that are answered: twice as many as fit into an Ethernet frame. Sending their
/// answers takes 2 ms.
const REQUESTS_MAX: usize = 1024;

/// So many bytes that a request copies within the store count as another one: behind a value of 1 MiB nothing more is read.
const SPENT_BYTES: usize = 1 << 10;

/// Bytes of an answer: a value of the default size limit, and its line. An append makes no longer value either: nothing goes
/// on here for several turns.
pub(super) const ANSWER_MAX: usize = (1 << 20) + (1 << 10);

const END: &[u8] = b"END\r\n";
const TOO_LARGE: &[u8] = b"SERVER_ERROR reply too large for UDP\r\n";
const TOO_LONG: &[u8] = b"SERVER_ERROR value too large to append to over UDP\r\n";
const NO_ACKS: &[u8] = b"SERVER_ERROR changes over UDP cannot wait for replicas\r\n";
const NO_SHUTDOWN: &[u8] = b"SERVER_ERROR shutdown is not done over UDP\r\n";

/// The answer to one datagram, as datagrams.
#[derive(Debug, Default)]
pub(super) struct UdpAnswer {
    /// All of them, one behind the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// How many have been sent.
    sent: usize,
}

impl UdpAnswer {
    /// The next datagram to send.
    pub(super) fn next(&self) -> Option<&[u8]> {
        let end = *self.ends.get(self.sent)?;
        let start = self.sent.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// Says that it was sent.
    pub(super) fn advance(&mut self) {
        self.sent += 1;
    }

    /// Forgets all, and gives memory back that an ordinary answer does not need.
    pub(super) fn clear(&mut self) {
        if self.bytes.capacity() > ANSWER_MAX / 4 {
            *self = UdpAnswer::default();
        }
        self.bytes.clear();
        self.ends.clear();
        self.sent = 0;
    }

    /// Adds a message, and empties the output. One for which the system has no memory is lost, as any may be on its way.
    fn push(&mut self, request: [u8; 2], out: &mut Output) {
        let total = out.len().div_ceil(PAYLOAD);
        let (datagrams, bytes) = (total.max(1), out.len() + HEADER * total.max(1));
        if self.bytes.try_reserve(bytes).is_ok() && self.ends.try_reserve(datagrams).is_ok() {
            self.write(request, total as u16, out);
        }
        out.bytes.clear();
        out.values.clear();
    }

    fn write(&mut self, request: [u8; 2], total: u16, out: &Output) {
        let mut writer = MessageWriter { answer: self, request, total, sequence: 0, room: 0 };
        let (mut from, mut slices) = (0, Vec::new());
        for inserted in &out.values {
            writer.write(&out.bytes[from..inserted.at]);
            inserted.value.io_slices(0, &mut slices);
            slices.drain(..).for_each(|slice| writer.write(&slice));
            from = inserted.at;
        }
        writer.write(&out.bytes[from..]);
        // What has no bytes is a header that says so.
        if total == 0 {
            writer.begin();
        }
        writer.end();
    }
}

/// Cuts a message into datagrams.
struct MessageWriter<'a> {
    answer: &'a mut UdpAnswer,
    request: [u8; 2],
    total: u16,
    sequence: u16,
    /// Bytes that the last datagram has room for.
    room: usize,
}

impl MessageWriter<'_> {
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.room == 0 {
                self.begin();
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.room));
            self.answer.bytes.extend_from_slice(now);
            self.room -= now.len();
            bytes = rest;
        }
    }

    fn begin(&mut self) {
        if self.sequence > 0 {
            self.end();
        }
        let (sequence, total) = (self.sequence.to_be_bytes(), self.total.to_be_bytes());
        self.answer.bytes.extend_from_slice(&self.request);
        self.answer.bytes.extend_from_slice(&[sequence[0], sequence[1], total[0], total[1], 0, 0]);
        self.sequence += 1;
        self.room = PAYLOAD;
    }

    fn end(&mut self) {
        self.answer.ends.push(self.answer.bytes.len());
    }
}

/// Answers a datagram. `waits` says that clients are told of changes only when replicas have them.
pub(super) fn answer(
    datagram: &[u8],
    waits: bool,
    context: &mut Context<'_>,
    out: &mut Output,
    answer: &mut UdpAnswer,
) {
    let Some((&[id_high, id_low, _, _, 0, 1, _, _], input)) = datagram.split_first_chunk::<HEADER>() else { return };
    let Some(&first) = input.first() else { return };
    if is_reply(first) {
        return;
    }
    let protocol = if first == binary::REQUEST { Protocol::Binary } else { Protocol::Ascii };
    let request = [id_high, id_low];
    DatagramReader { protocol, request, waits, left: REQUESTS_MAX, is_first: true, has_been_long: false, answer }
        .read(input, context, out);
    out.bytes.clear();
    out.values.clear();
}

/// Whether a server's message begins so: its words are in upper case, a client's in lower case.
fn is_reply(first: u8) -> bool {
    first == binary::RESPONSE || first.is_ascii_uppercase()
}

/// Reads one datagram.
struct DatagramReader<'a> {
    protocol: Protocol,
    request: [u8; 2],
    waits: bool,
    /// Requests and keys that are still answered.
    left: usize,
    /// No message has been added yet.
    is_first: bool,
    /// A request has been run that takes longer than a lookup.
    has_been_long: bool,
    answer: &'a mut UdpAnswer,
}

impl DatagramReader<'_> {
    fn read(&mut self, mut input: &[u8], context: &mut Context<'_>, out: &mut Output) {
        while !input.is_empty() && self.has_room() {
            let mut batch = Batch::default();
            let end = batch.cut(self.protocol, input, 0, BATCH.min(self.left), &context.shared.store);
            batch.prefetch(&context.shared.store);
            for prepared in batch.requests(0..batch.count()) {
                input = &input[prepared.cut.size()..];
                if !self.has_room() || !self.run(prepared, context, out) {
                    return;
                }
            }
            match end {
                End::Full if batch.count() > 0 => {}
                End::Bad(bad) => {
                    let used = bad.consumed.saturating_add(bad.swallow as usize);
                    if used > input.len() || !self.has_room() {
                        return;
                    }
                    input = &input[used..];
                    bad.reply.push_to(&mut out.bytes);
                    self.take(false, out);
                    if bad.close {
                        return;
                    }
                }
                End::Full | End::Partial(_) | End::Value(_) => return,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.left > 0 && self.answer.bytes.len() < ANSWER_MAX
    }

    /// Runs a request. Whether to go on.
    fn run(&mut self, prepared: &Prepared<'_>, context: &mut Context<'_>, out: &mut Output) -> bool {
        match &prepared.cut.request {
            Request::Text(TextCommand::Get(get)) if !get.single => self.run_keys(get, context, out),
            // Whoever asks may be anybody. Where nobody may, that is said as always.
            Request::Text(TextCommand::Admin { verb: Admin::Shutdown, .. })
                if context.shared.config.shutdown_command =>
            {
                self.say(NO_SHUTDOWN, out);
            }
            // Who feeds a server does not do it so.
            Request::Text(TextCommand::Admin { verb: Admin::Replica, .. }) => self.say(b"ERROR\r\n", out),
            request if self.waits && barred::changes_items(request) => {
                request.refusal(NO_ACKS, Status::NotReplicated, Status::NotReplicated.text()).push_to(&mut out.bytes);
                self.take(false, out);
            }
            request => {
                let goes_on = self.run_one(prepared, self.protocol == Protocol::Binary, context, out);
                self.is_first |= matches!(request, Request::Binary(packet) if packet.op == Op::Noop);
                return goes_on;
            }
        }
        true
    }

    /// Runs a request whose reply is one message, which may be an empty one.
    fn run_one(
        &mut self,
        prepared: &Prepared<'_>,
        may_be_empty: bool,
        context: &mut Context<'_>,
        out: &mut Output,
    ) -> bool {
        let before = context.last_lsn.get();
        let mut next = self.run_even_if_long(prepared, context, out);
        if let Next::Join(_) = next {
            refuse_join(prepared.cut.store_header(), out);
        }
        let lists_all = match &mut next {
            Next::Dump(list) if matches!(**list, LongAnswer::Conns(_)) => {
                let (clock, stats) = (&context.shared.clock, &context.shared.stats);
                while out.len() <= ANSWER_MAX && list.fill(clock, stats, out) == Filled::More {}
                true
            }
            _ => false,
        };
        if self.must_wait(before, context) || matches!(next, Next::Watch(_) | Next::Dump(_)) && !lists_all {
            self.drop_reply(out);
            return true;
        }
        self.take(may_be_empty, out);
        if let Next::Spent(bytes) = next {
            self.left = self.left.saturating_sub(bytes / SPENT_BYTES);
        }
        lists_all || matches!(next, Next::Continue | Next::Spent(_))
    }

    /// Runs a request; the first that takes long, and no other one.
    fn run_even_if_long(&mut self, prepared: &Prepared<'_>, context: &mut Context<'_>, out: &mut Output) -> Next {
        let next = prepared.run(context, out);
        if !matches!(next, Next::Later) || std::mem::replace(&mut self.has_been_long, true) {
            return next;
        }
        context.may_be_long = true;
        let next = prepared.run(context, out);
        context.may_be_long = false;
        next
    }

    /// Whether the reply tells of something that replicas may not have. There is nobody to keep it for.
    fn must_wait(&self, before: u64, context: &Context<'_>) -> bool {
        let (last, seen) = (context.last_lsn.get(), context.last_lsn.take_seen());
        let has_changed = self.waits && last != before;
        has_changed || seen > context.shared.store.journal().acks().replicated_lsn()
    }

    /// Answers each key of a get.
    fn run_keys(&mut self, get: &Get<'_>, context: &mut Context<'_>, out: &mut Output) {
        let mut keys = token::words(get.keys).peekable();
        while keys.peek().is_some() && self.has_room() {
            let mut batch = Batch::default();
            while let Some(key) = keys.next_if(|key| !batch.is_full() && key.len() <= KEY_MAX) {
                let (with_cas, exptime) = (get.with_cas, get.exptime);
                let request = Request::Text(TextCommand::Get(Get { keys: key, single: true, with_cas, exptime }));
                batch.push(Cut { request, head: 0, body: 0, tail: 0 }, b"", &context.shared.store);
            }
            batch.prefetch(&context.shared.store);
            for (i, prepared) in batch.requests(0..batch.count()).enumerate() {
                if !self.has_room() {
                    return;
                }
                let is_last = i + 1 == batch.count() && keys.peek().is_none();
                self.run_key(prepared, is_last, context, out);
            }
            // Of a long line not all keys have been looked at.
            if self.has_room() && keys.peek().is_some_and(|key| key.len() > KEY_MAX) {
                return self.say(BAD_FORMAT, out);
            }
        }
    }

    fn run_key(&mut self, prepared: &Prepared<'_>, is_last: bool, context: &mut Context<'_>, out: &mut Output) {
        let before = context.last_lsn.get();
        self.run_even_if_long(prepared, context, out);
        if self.must_wait(before, context) {
            return self.drop_reply(out);
        }
        if !is_last && out.bytes.ends_with(END) {
            out.bytes.truncate(out.bytes.len() - END.len());
        }
        self.take(true, out);
    }

    fn say(&mut self, line: &[u8], out: &mut Output) {
        out.push(line);
        self.take(true, out);
    }

    /// Adds the output as a message.
    // COMPAT(udp_empty_message): an empty one is sent if nothing is sent before it, or nothing since a noop.
    fn take(&mut self, may_be_empty: bool, out: &mut Output) {
        self.left -= 1;
        if out.len() > ANSWER_MAX {
            self.refuse(out);
        }
        if !out.is_empty() || (may_be_empty && self.is_first) {
            self.answer.push(self.request, out);
            self.is_first = false;
        }
    }

    fn drop_reply(&mut self, out: &mut Output) {
        self.left -= 1;
        out.bytes.clear();
        out.values.clear();
    }

    /// Says that the reply is too large, instead of it.
    fn refuse(&self, out: &mut Output) {
        out.values.clear();
        match self.protocol {
            Protocol::Ascii => {
                out.bytes.clear();
                out.push(TOO_LARGE);
            }
            _ => {
                let header: [u8; binary::HEADER] = *out.bytes.first_chunk().expect("a packet has a header");
                out.bytes.clear();
                let opaque = [header[12], header[13], header[14], header[15]];
                let (status, text) = (Status::TooLarge, Status::TooLarge.text());
                Refusal::Packet { opcode: header[1], opaque, status, text }.push_to(&mut out.bytes);
            }
        }
    }
}

/// An append to a value that is longer than what may be answered is not done.
fn refuse_join(header: &StoreHeader<'_>, out: &mut Output) {
    let status = Status::TooLarge;
    match header {
        StoreHeader::Text(store) if store.quiet => {}
        StoreHeader::Text(_) | StoreHeader::Meta(_) => out.push(TOO_LONG),
        StoreHeader::Binary(packet) => packet.refusal(status, status.text()).push_to(&mut out.bytes),
    }
}

#[cfg(test)]
#[path = "tests/datagram.rs"]
mod tests;
