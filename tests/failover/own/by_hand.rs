//! Histories made by hand.

use crate::history::{Answer, Event, FOREVER, Op, Outcome};

/// An operation on key 0 that was answered by server 1.
pub fn told(client: u32, op: Op, answer: Answer, start: u64, end: u64) -> Event {
    Event { client, key: 0, op, outcome: Outcome::Answered(answer), server: 1, start, end }
}

/// One that was not.
pub fn unknown(client: u32, op: Op, start: u64) -> Event {
    Event { client, key: 0, op, outcome: Outcome::Unknown, server: 1, start, end: FOREVER }
}

pub fn set(client: u32, value: u64, start: u64, end: u64) -> Event {
    told(client, Op::Set(value), Answer::Stored, start, end)
}

pub fn get(client: u32, value: impl Into<Option<u64>>, start: u64, end: u64) -> Event {
    told(client, Op::Get, Answer::Value(value.into()), start, end)
}

pub fn delete(client: u32, start: u64, end: u64) -> Event {
    told(client, Op::Delete, Answer::Deleted, start, end)
}

/// The same, of another server.
pub fn at(server: u32, event: Event) -> Event {
    Event { server, ..event }
}
