//! What clients asked and were told: the history that the checks read.
//!
//! ```text
//!   client 1   |-- set k 7 --| STORED        |-- get k --| 7
//!   client 2          |-- delete k ------------------------------------------ unknown: no reply came
//!              start         end             start       end                  end = FOREVER
//! ```
//!
//! Times are nanoseconds of one monotonic clock, the same for all clients. An operation took effect at some moment
//! between its start and its end; one whose reply never came may have taken effect at any time after its start, or
//! not at all; one that was refused has not taken effect.
//!
//! Values are numbers, and but for counters no number is written twice, so a read names the write that it saw.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

/// The end of an operation whose reply never came.
pub const FOREVER: u64 = u64::MAX;

/// Keys from here on are counters: they are added to, not set.
pub const COUNTERS: u32 = 1 << 20;

/// What a client asks of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Stores a number.
    Set(u64),
    /// Stores a number if nothing is there.
    Add(u64),
    /// Reads.
    Get,
    /// Removes.
    Delete,
    /// Stores `new` if the item is still the one whose value was `seen`. On the wire this is a cas unique.
    Cas { seen: u64, new: u64 },
    /// Adds to a number.
    Incr(u64),
}

/// What it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Stored,
    NotStored,
    Exists,
    NotFound,
    Deleted,
    /// What a get found.
    Value(Option<u64>),
    /// What an incr made.
    Number(u64),
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered(Answer),
    /// It may have taken effect, and may still do so.
    Unknown,
    /// It has not taken effect, and will not.
    Refused,
}

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Who asked; each client asks one thing after the other.
    pub client: u32,
    pub key: u32,
    pub op: Op,
    pub outcome: Outcome,
    /// The process that the connection led to.
    pub server: u32,
    pub start: u64,
    pub end: u64,
}

impl Event {
    /// The answer, if there is one.
    pub fn answer(&self) -> Option<Answer> {
        match self.outcome {
            Outcome::Answered(answer) => Some(answer),
            _ => None,
        }
    }

    /// What the key holds after this, if it has taken effect and is no incr: `Some(None)` after a delete.
    pub fn writes(&self) -> Option<Option<u64>> {
        match self.op {
            Op::Set(new) | Op::Add(new) | Op::Cas { new, .. } => Some(Some(new)),
            Op::Delete => Some(None),
            Op::Get | Op::Incr(_) => None,
        }
    }

    /// Whether the client was told that a write has taken effect. A key that a delete did not find is gone as well.
    pub fn is_acknowledged(&self) -> bool {
        let told = self.answer();
        self.writes().is_some() && matches!(told, Some(Answer::Stored | Answer::Deleted))
            || self.op == Op::Delete && told == Some(Answer::NotFound)
    }
}

/// Operations of each key, by their starts.
pub fn by_key(events: &[Event]) -> BTreeMap<u32, Vec<Event>> {
    let mut keys: BTreeMap<u32, Vec<Event>> = BTreeMap::new();
    events.iter().for_each(|event| keys.entry(event.key).or_default().push(*event));
    keys.values_mut().for_each(|events| events.sort_by_key(|event| event.start));
    keys
}

/// Nanoseconds since this was first asked.
pub fn now() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// A line for a person.
pub fn line(event: &Event) -> String {
    let ms = |at: u64| at as f64 / 1e6;
    let end = if event.end == FOREVER { "never".into() } else { format!("{:.3}", ms(event.end)) };
    let Event { client, key, op, outcome, server, start, .. } = event;
    format!("{:.3}..{end} ms client {client} key {key} at {server}: {op:?} -> {outcome:?}", ms(*start))
}
