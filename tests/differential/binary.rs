//! Random binary packets, good and bad.
//!
//! The opaque of a packet is set when it is sent; see run.rs.

use crate::common::{Packet, Rng};
use crate::keys;
use crate::run::Command;

/// The operation that ends a batch.
pub const NOOP: u8 = 0x0a;

/// A command.
pub fn command(rng: &mut Rng) -> Command {
    match rng.below(100) {
        0..35 => get(rng),
        35..62 => store(rng),
        62..70 => append(rng),
        70..78 => delete(rng),
        78..88 => arith(rng),
        88..95 => touch(rng),
        _ => other(rng),
    }
}

/// A command that closes the connection, and whether it must be alone.
pub fn closing(rng: &mut Rng) -> (Command, bool) {
    let key = keys::key(0);
    let packets = [
        Packet::new(0x07, b"", b""),
        Packet::new(0x17, b"", b""),
        Packet::new(0x00, b"", b""),
        Packet::new(0x01, &key, b""),
        Packet::new(0x00, &keys::too_long(), b""),
        Packet::new(0x1c, &key, b"\0\0"),
        Packet::new(0x07, &key, b""),
    ];
    let bad_magic = [&[0x81][..], &Packet::new(NOOP, b"", b"").request()[1..]].concat();
    let alone = rng.one_in(8);
    (Command::packet(if alone { bad_magic } else { packets[rng.below(packets.len())].request() }), alone)
}

/// Now and then the quiet twin.
fn quiet(rng: &mut Rng, op: u8, twin: u8) -> u8 {
    if rng.one_in(4) { twin } else { op }
}

fn get(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let (get, get_key) = (quiet(rng, 0x00, 0x09), quiet(rng, 0x0c, 0x0d));
    let op = if rng.one_in(2) { get } else { get_key };
    Command::packet(Packet::new(op, &keys::key(index), b"").request()).reads(1 << index)
}

fn flags_and_exptime(rng: &mut Rng) -> Vec<u8> {
    let flags: u32 = keys::flags(rng).parse().expect("u32");
    [flags.to_be_bytes(), exptime(rng)].concat()
}

/// Unsigned here: what has expired is a time long ago.
fn exptime(rng: &mut Rng) -> [u8; 4] {
    keys::exptime(rng).parse().unwrap_or(keys::LONG_AGO).to_be_bytes()
}

fn store(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let (op, twin) = rng.pick(&[(0x01, 0x11), (0x01, 0x11), (0x01, 0x11), (0x02, 0x12), (0x03, 0x13)]);
    let extras = flags_and_exptime(rng);
    let mut packet = Packet::new(quiet(rng, op, twin), &keys::key(index), &extras);
    packet.value = keys::value(rng, index);
    compared(rng, Command::packet(packet.request()).writes(index), index)
}

/// Now and then with the cas that was last seen, or a wrong one.
fn compared(rng: &mut Rng, mut command: Command, index: usize) -> Command {
    match rng.below(8) {
        0 | 1 => command.with_cas_of(index),
        2 => {
            for side in [&mut command.ours, &mut command.theirs] {
                side[16] = 0x80;
            }
            command
        }
        _ => command,
    }
}

fn append(rng: &mut Rng) -> Command {
    let index = keys::joined(rng);
    let (op, twin) = rng.pick(&[(0x0e, 0x19), (0x0f, 0x1a)]);
    let mut packet = Packet::new(quiet(rng, op, twin), &keys::key(index), b"");
    packet.value = keys::value(rng, index);
    compared(rng, Command::packet(packet.request()).writes(index), index)
}

fn delete(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let op = quiet(rng, 0x04, 0x14);
    compared(rng, Command::packet(Packet::new(op, &keys::key(index), b"").request()).writes(index), index)
}

fn arith(rng: &mut Rng) -> Command {
    let index = keys::number(rng);
    let (op, twin) = rng.pick(&[(0x05, 0x15), (0x06, 0x16)]);
    let (delta, initial) = (keys::step(rng), keys::start(rng));
    let exptime = if rng.one_in(3) { [0xff; 4] } else { exptime(rng) };
    let extras = [&delta.to_be_bytes()[..], &initial.to_be_bytes(), &exptime].concat();
    let op = quiet(rng, op, twin);
    compared(rng, Command::packet(Packet::new(op, &keys::key(index), &extras).request()).counts(index), index)
}

fn touch(rng: &mut Rng) -> Command {
    let index = keys::any(rng);
    let op = rng.pick(&[0x1c, 0x1d, 0x1e, 0x23, 0x24]);
    let exptime = exptime(rng);
    Command::packet(Packet::new(op, &keys::key(index), &exptime).request()).reads(1 << index)
}

fn other(rng: &mut Rng) -> Command {
    let flush = rng.one_in(10);
    let packet = match rng.below(11) {
        0 if flush => Packet::new(0x08, b"", b""),
        1 if flush => Packet::new(0x18, b"", &[0; 4]),
        0..3 => Packet::new(NOOP, b"", b""),
        3 | 4 => Packet::new(0x0b, b"", b""),
        5 => Packet::new(0x10, b"nonsense", b""),
        6 => Packet::new(0x77, b"", b""),
        7 => Packet { value: b"swallowed".to_vec(), ..Packet::new(0x77, b"", b"") },
        8 => Packet::new(0x20, b"", b""),
        9 => Packet::new(0x60, b"", b""),
        _ => Packet { status: 7, ..Packet::new(NOOP, b"", b"") },
    };
    let mut command = Command::packet(packet.request());
    if packet.op == 0x60 {
        // memcached swallows a key twice, and with it what follows.
        command.ours = Packet::new(0x60, b"cluster", b"").request();
    }
    if matches!(packet.op, 0x08 | 0x18) { command.writes_all() } else { command }
}
