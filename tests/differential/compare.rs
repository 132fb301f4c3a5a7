//! Whether two replies say the same.
//!
//! ```text
//!   VALUE k 0 5 17      VALUE k 0 5 904       equal, if 17 on our side has always been 904 on theirs
//!   HD t999 l3          HD t998 l0            equal: t up to two seconds, l names the moment
//! ```
//!
//! Everything else must be equal byte for byte. In `me`, 1.6.18 prints exp negated.

use crate::common::{Packet, show};
use std::collections::HashMap;
use std::time::Duration;

/// Seconds that two servers' clocks, and our asking one after the other, may lie apart.
const SECONDS: u64 = 2;

/// Two cas values that were seen to be the same item's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CasPair {
    pub ours: u64,
    pub theirs: u64,
}

/// What a cas belongs to, as far as a reply says so.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    Key(Vec<u8>),
    Sequence(u32),
}

/// Which cas on our side is which on theirs.
#[derive(Debug, Default)]
pub struct CasTable {
    ours: HashMap<u64, u64>,
    theirs: HashMap<u64, u64>,
    /// What was seen since the last [`CasTable::take`].
    seen: Vec<(Owner, CasPair)>,
    /// Seconds by which they were asked one after the other, at most, when that took long.
    late: u64,
}

impl CasTable {
    /// Notes how long it took to have both servers do the same: expiries lie as far apart from then on.
    pub fn took(&mut self, time: Duration) {
        self.late = self.late.max((2 * time).as_secs());
    }

    /// The pairs that were seen, and whose they are.
    pub fn take(&mut self) -> Vec<(Owner, CasPair)> {
        std::mem::take(&mut self.seen)
    }

    fn same(&mut self, pair: CasPair) -> bool {
        let CasPair { ours, theirs } = pair;
        if ours == 0 || theirs == 0 {
            return ours == theirs;
        }
        *self.ours.entry(ours).or_insert(theirs) == theirs && *self.theirs.entry(theirs).or_insert(ours) == ours
    }

    fn note(&mut self, owner: Owner, pair: CasPair) {
        if pair.ours != 0 && pair.theirs != 0 {
            self.seen.push((owner, pair));
        }
    }
}

/// Compares replies of text and meta commands.
pub fn text(mut ours: &[u8], mut theirs: &[u8], cas: &mut CasTable) -> Result<(), String> {
    while !(ours.is_empty() && theirs.is_empty()) {
        let (our_line, their_line) = (take_line(&mut ours), take_line(&mut theirs));
        if !lines(our_line, their_line, cas) {
            return Err(format!("  ours   {}\n  theirs {}", show(our_line), show(their_line)));
        }
        let Some(len) = data_len(our_line) else { continue };
        let (our_data, their_data) = (take(&mut ours, len + 2), take(&mut theirs, len + 2));
        if our_data != their_data {
            let data = format!("  ours   {}\n  theirs {}", show(our_data), show(their_data));
            return Err(format!("data of {}:\n{data}", show(our_line)));
        }
    }
    Ok(())
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = from.split_at(len.min(from.len()));
    *from = rest;
    taken
}

fn take_line<'a>(from: &mut &'a [u8]) -> &'a [u8] {
    let len = from.iter().position(|&byte| byte == b'\n').map_or(from.len(), |at| at + 1);
    take(from, len)
}

/// Bytes of data after a line, if it is one with data.
fn data_len(line: &[u8]) -> Option<usize> {
    let mut words = line.trim_ascii_end().split(|&byte| byte == b' ');
    let len = match words.next()? {
        b"VALUE" => words.nth(2)?,
        b"VA" => words.next()?,
        _ => return None,
    };
    std::str::from_utf8(len).ok()?.parse().ok()
}

fn lines(ours: &[u8], theirs: &[u8], cas: &mut CasTable) -> bool {
    let words = |line| <[u8]>::split(line, |&byte| byte == b' ').map(<[u8]>::trim_ascii_end).collect::<Vec<_>>();
    let line_end = |line: &[u8]| line[line.trim_ascii_end().len()..].to_vec();
    let (our_words, their_words): (Vec<&[u8]>, Vec<&[u8]>) = (words(ours), words(theirs));
    if our_words.len() != their_words.len() || line_end(ours) != line_end(theirs) || our_words[0] != their_words[0] {
        return false;
    }
    match our_words[0] {
        b"VERSION" => true,
        b"VALUE" => value_lines(&our_words, &their_words, cas),
        b"ME" => debug_lines(&our_words, &their_words, cas),
        b"HD" | b"VA" | b"EN" | b"NF" | b"NS" | b"EX" => meta_lines(&our_words, &their_words, cas),
        _ => ours == theirs,
    }
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

fn cas_pair(ours: &[u8], theirs: &[u8]) -> Option<CasPair> {
    Some(CasPair { ours: number(ours)?, theirs: number(theirs)? })
}

fn value_lines(ours: &[&[u8]], theirs: &[&[u8]], cas: &mut CasTable) -> bool {
    let same = ours[..4.min(ours.len())] == theirs[..4.min(theirs.len())];
    match (ours.get(4), theirs.get(4)) {
        (Some(our_cas), Some(their_cas)) => {
            let Some(pair) = cas_pair(our_cas, their_cas) else { return false };
            cas.note(Owner::Key(ours[1].to_vec()), pair);
            same && cas.same(pair)
        }
        _ => same,
    }
}

fn debug_lines(ours: &[&[u8]], theirs: &[&[u8]], cas: &mut CasTable) -> bool {
    ours.iter().zip(theirs).all(|(ours, theirs)| match (split_at_equals(ours), split_at_equals(theirs)) {
        ((b"exp", our_value), (b"exp", their_value)) => {
            // Both have a minus when the reference is compared with itself.
            let both = our_value.strip_prefix(b"-").filter(|value| *value != b"1");
            let their_value = their_value.strip_prefix(b"-").unwrap_or(b"never");
            ours == theirs || near(both.unwrap_or(our_value), their_value, cas.late)
        }
        ((b"la", _), (b"la", _)) => true,
        ((b"cas", ours), (b"cas", theirs)) => cas_pair(ours, theirs).is_some_and(|pair| cas.same(pair)),
        _ => ours == theirs,
    })
}

fn split_at_equals(word: &[u8]) -> (&[u8], &[u8]) {
    word.iter().position(|&byte| byte == b'=').map_or((word, b""), |at| (&word[..at], &word[at + 1..]))
}

fn near(ours: &[u8], theirs: &[u8], late: u64) -> bool {
    let apart = number(ours).zip(number(theirs)).map(|(ours, theirs)| ours.abs_diff(theirs));
    ours == theirs || apart.is_some_and(|apart| apart <= SECONDS + late)
}

fn meta_lines(ours: &[&[u8]], theirs: &[&[u8]], cas: &mut CasTable) -> bool {
    let flags = if ours[0] == b"VA" { 2 } else { 1 };
    if ours[..flags.min(ours.len())] != theirs[..flags.min(theirs.len())] {
        return false;
    }
    let sequence = ours.iter().skip(flags).find_map(|flag| number(flag.strip_prefix(b"O")?));
    ours.iter().zip(theirs).skip(flags).all(|(ours, theirs)| match (ours.split_first(), theirs.split_first()) {
        (Some((b'c', ours)), Some((b'c', theirs))) => {
            let Some(pair) = cas_pair(ours, theirs) else { return false };
            if let Some(sequence) = sequence {
                cas.note(Owner::Sequence(sequence as u32), pair);
            }
            cas.same(pair)
        }
        (Some((b't', ours)), Some((b't', theirs))) => {
            near(ours, theirs, cas.late) || (wrapped(ours) && wrapped(theirs))
        }
        (Some((b'l', _)), Some((b'l', _))) => true,
        _ => ours == theirs,
    })
}

/// Seconds left of an item that has expired: minus the uptime, as unsigned 32 bits.
fn wrapped(seconds: &[u8]) -> bool {
    number(seconds).is_some_and(|seconds| seconds >= 1 << 31)
}

/// The version in the reply to this operation is not compared.
const VERSION: u8 = 0x0b;

/// Compares binary replies.
pub fn binary(mut ours: &[u8], mut theirs: &[u8], cas: &mut CasTable) -> Result<(), String> {
    while !(ours.is_empty() && theirs.is_empty()) {
        let (our_packet, their_packet) = (take_packet(&mut ours), take_packet(&mut theirs));
        if !packets(our_packet.as_ref(), their_packet.as_ref(), cas) {
            return Err(format!("  ours   {}\n  theirs {}", show_packet(&our_packet), show_packet(&their_packet)));
        }
    }
    Ok(())
}

fn take_packet(from: &mut &[u8]) -> Option<Packet> {
    let (packet, len) = Packet::reply(from)?;
    take(from, len);
    Some(packet)
}

fn packets(ours: Option<&Packet>, theirs: Option<&Packet>, cas: &mut CasTable) -> bool {
    let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
    let pair = CasPair { ours: ours.cas, theirs: theirs.cas };
    cas.note(Owner::Sequence(ours.opaque), pair);
    let same_value = ours.op == VERSION || ours.value == theirs.value;
    let head = |packet: &Packet| (packet.op, packet.status, packet.opaque);
    head(ours) == head(theirs)
        && cas.same(pair)
        && same_value
        && (&ours.extras, &ours.key) == (&theirs.extras, &theirs.key)
}

fn show_packet(packet: &Option<Packet>) -> String {
    let Some(packet) = packet else { return "nothing".into() };
    let Packet { op, status, opaque, cas, .. } = packet;
    let parts = [&packet.extras, &packet.key, &packet.value].map(|part| show(part));
    format!("op {op:#04x} status {status:#x} opaque {opaque} cas {cas} [{}]", parts.join("] ["))
}

#[test]
fn what_is_the_same_and_what_is_not() {
    let mut cas = CasTable::default();
    let mut same = |ours: &str, theirs: &str| text(ours.as_bytes(), theirs.as_bytes(), &mut cas).is_ok();
    assert!(same("VALUE a 0 2 7\r\nhi\r\nEND\r\n", "VALUE a 0 2 8\r\nhi\r\nEND\r\n"));
    assert!(same("HD c7 t100\r\n", "HD c8 t99\r\n"));
    assert!(!same("HD c7\r\n", "HD c9\r\n"));
    assert!(!same("HD c6\r\n", "HD c8\r\n"));
    assert!(!same("VALUE a 0 2\r\nhi\r\n", "VALUE a 0 2\r\nho\r\n"));
    assert!(!same("HD t100\r\n", "HD t90\r\n"));
    assert!(!same("HD\r\n", "HD\n"));
    assert!(!same("HD\r\n", "HD\r\nHD\r\n"));
    assert!(same("ME a exp=100 la=3 cas=7 fetch=no\r\n", "ME a exp=-100 la=0 cas=8 fetch=no\r\n"));
    assert!(!same("ME a exp=-1 la=3 cas=7 fetch=no\r\n", "ME a exp=-100 la=0 cas=8 fetch=no\r\n"));
}
