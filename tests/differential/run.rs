//! Sends the commands and compares the replies.
//!
//! ```text
//!   batch   command command … command, sentinel           the sentinel's reply ends the batch's reply
//!           [ half of the next command ]                  waits while other connections go on
//! ```
//!
//! Batches run one after the other, so both sides see the same order. The reference runs one thread and no
//! maintainer or crawler: memcached rewrites a number in place only while nobody else holds the item, and
//! these would hold it at random. For the same reason a batch ends before a key that it has read is counted.

use crate::common::{Conn, DEADLINE, Packet, Rng, Server, Waited, from_env, seed, show};
use crate::compare::{self, CasPair, CasTable, Owner};
use crate::{binary, keys, malformed, meta, text};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// In the first line of a command: replaced by the cas last seen of the command's key.
pub const CAS: &[u8] = b"<cas>";
/// In the first line of a meta command: an opaque that names the command.
pub const OPAQUE: &str = "O<sequence>";

/// A cas that no server gives.
const NO_CAS: u64 = 1 << 62 | 12345;
/// Connections, the first of the other family: binary among text ones, text among binary ones.
const CONNECTIONS: usize = 4;
/// Longest batch.
const BATCH: usize = 40;
/// Commands remembered for shrinking.
const HISTORY: usize = 3000;
/// How long to try to find a short list of commands that fails.
const SHRINK: Duration = Duration::from_secs(30);
/// Where a half-sent command is cut at the latest: an unfinished line may not be longer than 2048 bytes.
const HALF_MAX: usize = 1500;

/// `stats` that must be equal at the end. The others name the moment, the build or background work.
const COUNTERS: &[&str] = &[
    "cmd_get",
    "cmd_set",
    "cmd_flush",
    "cmd_touch",
    "cmd_meta",
    "get_hits",
    "get_misses",
    "delete_misses",
    "delete_hits",
    "incr_misses",
    "incr_hits",
    "decr_misses",
    "decr_hits",
    "cas_misses",
    "cas_hits",
    "cas_badval",
    "touch_hits",
    "touch_misses",
    "store_too_large",
    "store_no_memory",
    "total_items",
];

/// Which commands a run is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Meta,
    Binary,
}

/// What each side is sent for one command.
#[derive(Clone, Debug)]
pub struct Command {
    /// What the server under test gets.
    pub ours: Vec<u8>,
    /// What the reference gets.
    pub theirs: Vec<u8>,
    packet: bool,
    /// Keys whose value the reply holds.
    reads: u32,
    /// The key that is counted up or down.
    counts: u32,
    /// The key, if it is one.
    key: Option<usize>,
    /// Send the cas that was last seen of this key.
    cas_of: Option<usize>,
}

impl Command {
    /// The same to both.
    pub fn both(bytes: Vec<u8>) -> Command {
        let theirs = bytes.clone();
        Command { ours: bytes, theirs, packet: false, reads: 0, counts: 0, key: None, cas_of: None }
    }

    /// Something else to 1.6.18, which would answer `ours` in another way than 1.6.45.
    pub fn split(ours: Vec<u8>, theirs: Vec<u8>) -> Command {
        Command { theirs, ..Command::both(ours) }
    }

    /// A binary packet.
    pub fn packet(bytes: Vec<u8>) -> Command {
        Command { packet: true, ..Command::both(bytes) }
    }

    /// Its reply holds the values of these keys.
    pub fn reads(self, mask: u32) -> Command {
        let key = (mask.count_ones() == 1).then_some(mask.trailing_zeros() as usize);
        Command { reads: mask, key, ..self }
    }

    /// It is about this key.
    pub fn writes(self, index: usize) -> Command {
        Command { key: Some(index), ..self }
    }

    /// It is about all keys.
    pub fn writes_all(self) -> Command {
        Command { key: None, ..self }
    }

    /// It counts this key up or down.
    pub fn counts(self, index: usize) -> Command {
        Command { counts: 1 << index, key: Some(index), ..self }
    }

    /// Whether it flushes all, now or later.
    fn is_flush(&self) -> bool {
        if self.packet { matches!(self.ours.get(1), Some(0x08 | 0x18)) } else { self.ours.starts_with(b"flush_all") }
    }

    /// It is sent with the cas last seen of this key.
    pub fn with_cas_of(self, index: usize) -> Command {
        Command { cas_of: Some(index), ..self }
    }
}

/// Runs a test of `commands` commands, with these options on both sides.
pub fn run(kind: Kind, commands: u64, options: &[&str]) {
    let seed = seed("DIFF_SEED");
    let commands = from_env("DIFF_COMMANDS").unwrap_or(commands);
    let Some(mut lab) = Lab::start(options) else {
        println!("no memcached to compare with: install Debian's memcached");
        return;
    };
    println!("{kind:?}: DIFF_SEED={seed} DIFF_COMMANDS={commands}");
    let started = Instant::now();
    let mut rng = Rng(seed);
    let mut sent = 0;
    while sent < commands {
        let at = rng.below(CONNECTIONS);
        let at = if at == 0 && !rng.one_in(4) { 1 } else { at };
        match lab.random_batch(&mut rng, kind, at) {
            Ok(count) => sent += count,
            Err(mismatch) => {
                let shrunk = lab.shrink();
                panic!("{kind:?}: DIFF_SEED={seed} differs after {sent} commands\n{mismatch}\n{shrunk}");
            }
        }
    }
    lab.compare_counters().unwrap_or_else(|different| panic!("{kind:?}: DIFF_SEED={seed}: {different}"));
    println!("{kind:?}: {sent} commands, equal, in {:.1} s", started.elapsed().as_secs_f64());
}

/// A connection to each side.
struct ConnPair {
    ours: Conn,
    theirs: Conn,
    half: Option<Sent>,
}

/// A command as it is sent, or what is left of it.
#[derive(Default)]
struct Sent {
    ours: Vec<u8>,
    theirs: Vec<u8>,
    reads: u32,
}

/// Both servers and what is known of them.
struct Lab {
    ours: Server,
    theirs: Server,
    /// The server under test is the reference's version: it gets the reference's commands.
    same_version: bool,
    /// Without cas (`-C`), memcached takes with a flush_all also what is stored in the same second after it.
    flushes: bool,
    pairs: HashMap<(usize, bool), ConnPair>,
    cas: CasTable,
    last_cas: [Option<CasPair>; keys::KEYS],
    keys: HashMap<Vec<u8>, usize>,
    /// The key of each numbered command of late.
    sequence_keys: VecDeque<(u32, Option<usize>)>,
    sequence: u32,
    history: VecDeque<Command>,
}

impl Lab {
    /// None where there is no memcached to compare with.
    fn start(options: &[&str]) -> Option<Lab> {
        let quiet = ["-m", "1024", "-t", "1", "-o", "no_lru_maintainer,no_lru_crawler"];
        let quiet = [&quiet, options].concat();
        let theirs = Server::reference(&quiet)?;
        let same_version = crate::common::under_test().ends_with("memcached");
        let ours = [&["-m", "1024", "-t", "2", "-o", "slab_accounting=memcached"], options].concat();
        let ours = Server::start(if same_version { &quiet } else { &ours });
        Some(Lab {
            ours,
            theirs,
            same_version,
            flushes: !options.contains(&"-C"),
            pairs: HashMap::new(),
            cas: CasTable::default(),
            last_cas: [None; keys::KEYS],
            keys: (0..keys::KEYS).map(|index| (keys::key(index), index)).collect(),
            sequence_keys: VecDeque::new(),
            sequence: 0,
            history: VecDeque::new(),
        })
    }

    /// Sends a batch on a connection; how many commands.
    fn random_batch(&mut self, rng: &mut Rng, kind: Kind, at: usize) -> Result<u64, String> {
        let packets = (kind == Kind::Binary) == (at != 0);
        let pair = self.pairs.get(&(at, packets));
        let read = pair.and_then(|pair| pair.half.as_ref()).map_or(0, |half| half.reads);
        // On a new connection, a packet with a wrong magic would be text.
        let may_close = pair.is_some_and(|pair| pair.half.is_none());
        let closing = (rng.one_in(100) && may_close).then(|| random_closing(rng, packets));
        let (mut commands, half) = random_commands(rng, kind, packets, read);
        commands.retain(|command| self.flushes || !command.is_flush());
        let half = half.filter(|command| self.flushes || !command.is_flush());
        if closing.as_ref().is_some_and(|(_, alone)| *alone) {
            commands.clear();
        }
        let closing = closing.map(|(closing, _)| closing);
        self.remember(commands.iter().chain(&half));
        let count = commands.len() as u64;
        let batch = Batch { packets, commands, closing, half };
        self.batch(&mut Cuts::Random(rng), at, &batch).map(|()| count)
    }

    fn remember<'a>(&mut self, commands: impl Iterator<Item = &'a Command>) {
        self.history.extend(commands.cloned());
        let surplus = self.history.len().saturating_sub(HISTORY);
        self.history.drain(..surplus);
    }

    /// Sends a batch and compares the replies.
    fn batch(&mut self, cuts: &mut Cuts<'_>, at: usize, batch: &Batch) -> Result<(), String> {
        let mut pair = self.pairs.remove(&(at, batch.packets)).unwrap_or_else(|| self.connect());
        let mut sent = pair.half.take().unwrap_or_default();
        for command in batch.commands.iter().chain(&batch.closing) {
            let next = self.resolve(command);
            sent.ours.extend(next.ours);
            sent.theirs.extend(next.theirs);
        }
        let end = if batch.closing.is_some() { Vec::new() } else { self.sentinel(batch.packets, &mut sent) };
        let began = Instant::now();
        cuts.send(&mut pair.ours, &sent.ours);
        cuts.send(&mut pair.theirs, &sent.theirs);
        let replies = [read(&mut pair.ours, &end), read(&mut pair.theirs, &end)];
        self.cas.took(began.elapsed());
        self.compare(batch.packets, replies).map_err(|different| batch.describe(&different, &sent))?;
        if batch.closing.is_none() {
            pair.half = batch.half.as_ref().and_then(|half| cuts.send_half(&mut pair, self.resolve(half)));
            self.pairs.insert((at, batch.packets), pair);
        }
        Ok(())
    }

    fn connect(&self) -> ConnPair {
        ConnPair { ours: self.ours.connect(), theirs: self.theirs.connect(), half: None }
    }

    /// Fills in cas and opaque.
    fn resolve(&mut self, command: &Command) -> Sent {
        self.sequence += 1;
        self.sequence_keys.push_back((self.sequence, command.key));
        if self.sequence_keys.len() > 4 * BATCH * CONNECTIONS {
            self.sequence_keys.pop_front();
        }
        let cas = command.cas_of.map(|index| self.last_cas[index].unwrap_or(CasPair { ours: NO_CAS, theirs: NO_CAS }));
        let ours = if self.same_version { &command.theirs } else { &command.ours };
        let our_cas = cas.map(|pair| pair.ours);
        let their_cas = cas.map(|pair| pair.theirs);
        let fill = if command.packet { fill_packet } else { fill_line };
        let ours = fill(ours, our_cas, self.sequence);
        let theirs = fill(&command.theirs, their_cas, self.sequence);
        Sent { ours, theirs, reads: command.reads }
    }

    /// Appends what ends a batch; the end of the reply.
    fn sentinel(&mut self, packets: bool, sent: &mut Sent) -> Vec<u8> {
        self.sequence += 1;
        let opaque = self.sequence;
        let packet = Packet { opaque, ..Packet::new(binary::NOOP, b"", b"") };
        let (ask, mut end) = match packets {
            true => (packet.request(), packet.request()),
            false => (format!("mg nobody O{opaque}\r\n").into(), format!("EN O{opaque}\r\n").into_bytes()),
        };
        if packets {
            end[0] = 0x81;
        }
        sent.ours.extend_from_slice(&ask);
        sent.theirs.extend_from_slice(&ask);
        end
    }

    fn compare(&mut self, packets: bool, replies: [Result<Vec<u8>, String>; 2]) -> Result<(), String> {
        let [ours, theirs] = match replies {
            [Ok(ours), Ok(theirs)] => [ours, theirs],
            [ours, theirs] => {
                let say = |reply: Result<Vec<u8>, String>| reply.map_or_else(|error| error, |reply| show(&reply));
                return Err(format!("  ours   {}\n  theirs {}", say(ours), say(theirs)));
            }
        };
        let compared = if packets { compare::binary } else { compare::text }(&ours, &theirs, &mut self.cas);
        for (owner, pair) in self.cas.take() {
            if let Some(index) = self.index_of(&owner) {
                self.last_cas[index] = Some(pair);
            }
        }
        compared
            .map_err(|different| format!("{different}\nall of ours   {}\nall of theirs {}", show(&ours), show(&theirs)))
    }

    fn index_of(&self, owner: &Owner) -> Option<usize> {
        match owner {
            Owner::Key(key) => self.keys.get(key).copied(),
            Owner::Sequence(number) => self.sequence_keys.iter().find(|(sequence, _)| sequence == number)?.1,
        }
    }

    fn compare_counters(&self) -> Result<(), String> {
        let [ours, theirs] = [&self.ours, &self.theirs].map(|server| server.connect().stats(""));
        let value = |stats: &[(String, String)], name: &str| {
            stats.iter().find(|stat| stat.0 == name).map_or("missing".into(), |stat| stat.1.clone())
        };
        let pairs = COUNTERS.iter().map(|name| (name, value(&ours, name), value(&theirs, name)));
        let different = pairs.filter(|(_, ours, theirs)| ours != theirs);
        let different: Vec<String> =
            different.map(|(name, ours, theirs)| format!("{name}: ours {ours}, theirs {theirs}")).collect();
        if different.is_empty() { Ok(()) } else { Err(format!("counters differ\n  {}", different.join("\n  "))) }
    }

    /// The shortest list of late commands that still differs when sent one by one.
    fn shrink(&mut self) -> String {
        if !self.flushes {
            return "not shrunk: that begins with a flush_all".into();
        }
        let end = Instant::now() + SHRINK;
        let mut list: Vec<Command> = self.history.drain(..).collect();
        let Some((first, _)) = self.replay(&list) else {
            return "it does not differ when the last commands are sent one by one".into();
        };
        list.truncate(first + 1);
        let mut piece = list.len().div_ceil(2);
        while piece > 0 && Instant::now() < end {
            let mut at = 0;
            while at < list.len() && Instant::now() < end {
                let rest = [&list[..at], &list[(at + piece).min(list.len())..]].concat();
                match self.replay(&rest) {
                    Some((first, _)) => list = rest[..=first].to_vec(),
                    None => at += piece,
                }
            }
            piece /= 2;
        }
        let different = self.replay(&list).map_or("(and now it does not)".into(), |(_, different)| different);
        let lines: Vec<String> = list.iter().map(|command| format!("  {}", show(&command.ours))).collect();
        format!("shrunk to {} commands:\n{}\n{different}", list.len(), lines.join("\n"))
    }

    /// Sends commands one by one to empty servers; the first that differs, and how.
    fn replay(&mut self, commands: &[Command]) -> Option<(usize, String)> {
        self.pairs.clear();
        self.cas = CasTable::default();
        self.last_cas = [None; keys::KEYS];
        for server in [&self.ours, &self.theirs] {
            server.connect().ask(b"flush_all\r\n", b"OK\r\n");
        }
        commands.iter().enumerate().find_map(|(at, command)| {
            let commands = vec![command.clone()];
            let batch = Batch { packets: command.packet, commands, closing: None, half: None };
            self.batch(&mut Cuts::None, 0, &batch).err().map(|different| (at, different))
        })
    }
}

/// What is sent at once.
struct Batch {
    packets: bool,
    commands: Vec<Command>,
    closing: Option<Command>,
    half: Option<Command>,
}

impl Batch {
    fn describe(&self, different: &str, sent: &Sent) -> String {
        let commands = self.commands.iter().chain(&self.closing);
        let lines: Vec<String> = commands.map(|command| format!("    {}", show(&command.ours))).collect();
        let translated = if sent.ours == sent.theirs { "" } else { " (theirs was sent something else in part)" };
        format!("{different}\n  batch{translated}:\n{}", lines.join("\n"))
    }
}

/// A command that closes the connection, and whether it must be alone: replies that memcached has not sent by
/// then may be lost.
fn random_closing(rng: &mut Rng, packets: bool) -> (Command, bool) {
    match packets {
        true if rng.one_in(2) => (malformed::closing_packet(rng), false),
        true => binary::closing(rng),
        false => text::closing(rng),
    }
}

/// The commands of a batch, and now and then one more to send half of. `read` are the keys that the connection
/// is about to read anyway.
fn random_commands(rng: &mut Rng, kind: Kind, packets: bool, mut read: u32) -> (Vec<Command>, Option<Command>) {
    let count = if rng.one_in(3) { 1 } else { 1 + rng.below(BATCH) };
    let mut commands: Vec<Command> = Vec::with_capacity(count);
    for _ in 0..count {
        let command = random_command(rng, kind, packets);
        if command.counts & read != 0 {
            break;
        }
        read |= command.reads;
        commands.push(command);
    }
    let half = rng.one_in(10).then(|| random_command(rng, kind, packets));
    (commands, half.filter(|half| half.ours == half.theirs && half.counts == 0))
}

fn random_command(rng: &mut Rng, kind: Kind, packets: bool) -> Command {
    let meta = if kind == Kind::Meta { !rng.one_in(7) } else { rng.one_in(7) };
    match (packets, meta) {
        (true, _) if rng.one_in(12) => malformed::packet(rng),
        (false, true) if rng.one_in(12) => malformed::meta(rng),
        (false, false) if rng.one_in(12) => malformed::text(rng),
        (true, _) => binary::command(rng),
        (false, true) => meta::command(rng),
        (false, false) => text::command(rng),
    }
}

fn fill_packet(bytes: &[u8], cas: Option<u64>, sequence: u32) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[12..16].copy_from_slice(&sequence.to_be_bytes());
    if let Some(cas) = cas {
        bytes[16..24].copy_from_slice(&cas.to_be_bytes());
    }
    bytes
}

fn fill_line(bytes: &[u8], cas: Option<u64>, sequence: u32) -> Vec<u8> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let mut line = bytes[..end].to_vec();
    if let Some(cas) = cas {
        replace(&mut line, CAS, &cas.to_string());
    }
    replace(&mut line, &OPAQUE.as_bytes()[1..], &sequence.to_string());
    line.extend_from_slice(&bytes[end..]);
    line
}

fn replace(line: &mut Vec<u8>, what: &[u8], by: &str) {
    if let Some(at) = line.windows(what.len()).position(|window| window == what) {
        line.splice(at..at + what.len(), by.bytes());
    }
}

/// Where what is sent is cut.
enum Cuts<'a> {
    Random(&'a mut Rng),
    None,
}

impl Cuts<'_> {
    fn send(&mut self, conn: &mut Conn, bytes: &[u8]) {
        let Cuts::Random(rng) = self else { return conn.send(bytes) };
        let pieces = if rng.one_in(2) { 1 } else { 1 + rng.below(6) };
        let mut places: Vec<usize> = (1..pieces).map(|_| rng.below(bytes.len() + 1)).collect();
        places.extend([0, bytes.len()]);
        places.sort_unstable();
        let pause = rng.one_in(50);
        for range in places.windows(2) {
            conn.send(&bytes[range[0]..range[1]]);
            if pause {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Sends the first part of a command that is the same on both sides; what is left.
    fn send_half(&mut self, pair: &mut ConnPair, command: Sent) -> Option<Sent> {
        let Cuts::Random(rng) = self else { return None };
        let shorter = command.ours.len().min(command.theirs.len()).min(runs_at(&command.ours));
        let at = 1 + rng.below(shorter.min(HALF_MAX) - 1);
        pair.ours.send(&command.ours[..at]);
        pair.theirs.send(&command.theirs[..at]);
        Some(Sent { ours: command.ours[at..].to_vec(), theirs: command.theirs[at..].to_vec(), ..command })
    }
}

/// Bytes of a packet up to its key's end: some run then, whatever should follow, and one that nobody waits for would run
/// before or after what other connections send next.
fn runs_at(bytes: &[u8]) -> usize {
    match *bytes {
        [0x80, _, high, low, extras, ..] => 24 + usize::from(extras) + usize::from(u16::from_be_bytes([high, low])),
        _ => usize::MAX,
    }
}

/// Reads a reply up to `end`, or up to the close of the connection if `end` is empty.
fn read(conn: &mut Conn, end: &[u8]) -> Result<Vec<u8>, String> {
    let waited = conn.read_until(DEADLINE, |got| !end.is_empty() && got.ends_with(end));
    let got = std::mem::take(&mut conn.got);
    match (waited, end.is_empty()) {
        (Waited::Done, _) | (Waited::Closed, true) => Ok(got),
        (Waited::Closed, false) => Err(format!("closed after {}", show(&got))),
        (Waited::Quiet, true) => Err(format!("not closed after {}", show(&got))),
        (Waited::Quiet, false) => Err(format!("no end after {}", show(&got))),
    }
}
