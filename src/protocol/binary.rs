//! Binary packets.
//!
//! ```text
//!  0      1       2       4       5         6        8        12      16   24
//!  | 0x80 | opcode| keylen| extlen| datatype| vbucket| bodylen| opaque| cas | extras | key | value
//!  | 0x81 |       |       |       |        0| status |        |       |     |
//! ```
//!
//! All numbers are big endian; bodylen counts extras, key and value. Quiet opcodes become the `quiet` field;
//! replies carry the opcode that came in.

use super::request::{Bad, Cut, Login, Mode, Parsed, Refusal, Request, SaslLogin, StoreHeader};
pub use super::request::{HEADER, Op, Packet, RESPONSE, Response, Status};
use super::token::KEY_MAX;

/// First byte of a request.
pub const REQUEST: u8 = 0x80;

/// The opcode that goes on with a SASL mechanism.
const SASL_STEP: u8 = 0x22;

/// Larger bodies are refused: nothing that large can be stored.
const BODY_MAX: u32 = 1 << 30;

/// Most bytes that a SASL mechanism is told at a time.
pub(super) const SASL_MAX: usize = 16 << 10;

/// The fixed fields of a request.
struct PacketHeader {
    opcode: u8,
    key: usize,
    extras: usize,
    body: u32,
    opaque: [u8; 4],
    cas: u64,
}

impl PacketHeader {
    fn read(bytes: &[u8; HEADER]) -> PacketHeader {
        PacketHeader {
            opcode: bytes[1],
            key: usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
            extras: usize::from(bytes[4]),
            body: u32::from_be_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            opaque: [bytes[12], bytes[13], bytes[14], bytes[15]],
            cas: u64::from_be_bytes(bytes[16..24].try_into().expect("eight bytes")),
        }
    }

    /// Bytes of the value; only after the lengths were checked against each other.
    fn value(&self) -> usize {
        self.body as usize - self.key - self.extras
    }

    /// The refusal of an unknown opcode.
    // COMPAT(unknown_opcode): memcached drops extras and key, and then as many bytes as the whole body has, which are
    // those of the next packet. It does so here for opcodes that nobody has defined; one that the protocol defines may
    // come from a client in good faith, and is dropped as it is.
    fn unknown<'a>(&self) -> Parsed<'a> {
        let again = match self.opcode {
            0x1b | 0x30..=0x3c | 0x60 => 0,
            _ => self.extras + self.key,
        };
        self.bad(Status::UnknownCommand, u64::from(self.body) + again as u64, false)
    }

    fn bad<'a>(&self, status: Status, swallow: u64, close: bool) -> Parsed<'a> {
        let reply = Refusal::Packet { opcode: self.opcode, opaque: self.opaque, status, text: status.text() };
        Parsed::Bad(Bad { consumed: HEADER, swallow, reply, close })
    }
}

/// Parses the packet at the start of `input`.
#[inline]
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let Some(header) = input.first_chunk::<HEADER>() else {
        return Parsed::Partial { need: HEADER };
    };
    if header[0] != REQUEST {
        return Parsed::Bad(Bad { consumed: 0, swallow: 0, reply: Refusal::Line(b""), close: true });
    }
    let header = PacketHeader::read(header);
    if header.key + header.extras > header.body as usize {
        return header.bad(Status::UnknownCommand, 0, true);
    }
    if header.body > BODY_MAX || header.key > KEY_MAX {
        return header.bad(Status::Invalid, 0, true);
    }
    let Some(shape) = Shape::of(header.opcode).filter(|shape| shape.kind != Kind::Config || shape.fits(&header)) else {
        return header.unknown();
    };
    if !shape.fits(&header) {
        return header.bad(Status::Invalid, 0, true);
    }
    if shape.kind == Kind::Sasl && header.value() > SASL_MAX {
        return header.bad(Status::UnknownCommand, u64::from(header.body), false);
    }
    let head = HEADER + header.extras + header.key;
    match input.get(HEADER..head) {
        Some(rest) => packet(&header, shape.kind, rest.split_at(header.extras), head),
        None => Parsed::Partial { need: head },
    }
}

fn packet<'a>(header: &PacketHeader, kind: Kind, (extras, key): (&[u8], &'a [u8]), head: usize) -> Parsed<'a> {
    let (opcode, opaque, cas) = (header.opcode, header.opaque, header.cas);
    let quiet = matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24);
    let with_key = matches!(opcode, 0x0c | 0x0d | 0x23 | 0x24);
    let packet = Packet { op: op(kind, extras), opcode, quiet, with_key, key, opaque, cas };
    Parsed::Request(match packet.op {
        Op::Store { .. } => {
            Cut { request: Request::Store(StoreHeader::Binary(packet)), head, body: header.value(), tail: 0 }
        }
        Op::Sasl => {
            let login = SaslLogin { packet, is_step: opcode == SASL_STEP, is_started: false };
            Cut { request: Request::Login(Login::Sasl(login)), head, body: header.value(), tail: 0 }
        }
        _ => Cut::new(Request::Binary(packet), head),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    Store(Mode),
    Delete,
    Incr,
    Decr,
    Quit,
    Flush,
    Noop,
    Version,
    Stat,
    Config,
    Mechanisms,
    Sasl,
    Touch,
    GetAndTouch,
}

/// Whether a packet has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    No,
    Yes,
    Maybe,
}

/// What an opcode's packet must look like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    kind: Kind,
    extras: &'static [usize],
    key: Key,
    value: bool,
}

impl Shape {
    fn of(opcode: u8) -> Option<Shape> {
        let shape = |kind, extras, key, value| Some(Shape { kind, extras, key, value });
        match opcode {
            0x00 | 0x09 | 0x0c | 0x0d => shape(Kind::Get, &[0], Key::Yes, false),
            0x01 | 0x11 => shape(Kind::Store(Mode::Set), &[8], Key::Yes, true),
            0x02 | 0x12 => shape(Kind::Store(Mode::Add), &[8], Key::Yes, true),
            0x03 | 0x13 => shape(Kind::Store(Mode::Replace), &[8], Key::Yes, true),
            0x04 | 0x14 => shape(Kind::Delete, &[0], Key::Yes, false),
            0x05 | 0x15 => shape(Kind::Incr, &[20], Key::Yes, false),
            0x06 | 0x16 => shape(Kind::Decr, &[20], Key::Yes, false),
            0x07 | 0x17 => shape(Kind::Quit, &[0], Key::No, false),
            0x08 | 0x18 => shape(Kind::Flush, &[0, 4], Key::No, false),
            0x0a => shape(Kind::Noop, &[0], Key::No, false),
            0x0b => shape(Kind::Version, &[0], Key::No, false),
            0x0e | 0x19 => shape(Kind::Store(Mode::Append), &[0], Key::Yes, true),
            0x0f | 0x1a => shape(Kind::Store(Mode::Prepend), &[0], Key::Yes, true),
            // COMPAT(value_behind_touch): memcached does not look whether there is a value, and takes it for the next packet.
            0x10 => shape(Kind::Stat, &[0], Key::Maybe, true),
            0x1c => shape(Kind::Touch, &[4], Key::Yes, true),
            0x1d | 0x1e | 0x23 | 0x24 => shape(Kind::GetAndTouch, &[4], Key::Yes, true),
            0x20 => shape(Kind::Mechanisms, &[0], Key::No, false),
            0x21 | SASL_STEP => shape(Kind::Sasl, &[0], Key::Yes, true),
            0x60 => shape(Kind::Config, &[0], Key::Yes, false),
            _ => None,
        }
    }

    fn fits(&self, header: &PacketHeader) -> bool {
        let key = match self.key {
            Key::No => header.key == 0,
            Key::Yes => header.key > 0,
            Key::Maybe => true,
        };
        key && self.extras.contains(&header.extras) && (self.value || header.value() == 0)
    }
}

/// The operation with its extras, whose length was checked.
fn op(kind: Kind, extras: &[u8]) -> Op {
    let u32_at = |at: usize| extras.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let u64_at = |at: usize| u64::from(u32_at(at)) << 32 | u64::from(u32_at(at + 4));
    match kind {
        Kind::Get => Op::Get,
        Kind::Store(mode) => Op::Store { mode, client_flags: u32_at(0), exptime: u32_at(4) },
        Kind::Delete => Op::Delete,
        Kind::Incr | Kind::Decr => {
            Op::Arith { incr: kind == Kind::Incr, delta: u64_at(0), initial: u64_at(8), exptime: u32_at(16) }
        }
        Kind::Quit => Op::Quit,
        Kind::Flush => Op::Flush { exptime: u32_at(0) },
        Kind::Noop => Op::Noop,
        Kind::Version => Op::Version,
        Kind::Stat => Op::Stat,
        Kind::Config => Op::Config,
        Kind::Mechanisms => Op::Mechanisms,
        Kind::Sasl => Op::Sasl,
        Kind::Touch => Op::Touch { exptime: u32_at(0) },
        Kind::GetAndTouch => Op::GetAndTouch { exptime: u32_at(0) },
    }
}

#[cfg(test)]
#[path = "tests/binary.rs"]
mod tests;
