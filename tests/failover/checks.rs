//! What must hold of every history: nothing acknowledged is lost, nothing invalidated comes back, and who was
//! deposed says nothing more.
//!
//! ```text
//!   set 1   |---| STORED
//!   delete           |---| DELETED              <- acknowledged, and it began after `set 1` had ended:
//!   get                       |---| 1           <- this read may not see 1
//! ```
//!
//! A read may see a write unless another one, acknowledged before the read began, began after that one had ended.
//! This is necessary for linearizability and needs no search, so it is done for all reads of the longest history, and
//! names what is wrong. It holds without `-o linearizable` as well, once writes are acknowledged by all members.
//!
//! Not here: whether the history as a whole is linearizable (`linear`).

use crate::history::{Answer, COUNTERS, Event, FOREVER, Op, Outcome, by_key, line};

/// Time in which one server was the shard's owner; in their order these are the epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    pub epoch: u64,
    /// As [`Event::server`].
    pub server: u32,
}

/// What is wrong with the reads.
#[derive(Debug, Default)]
pub struct Stale {
    /// Acknowledged writes that were not read later.
    pub lost: Vec<String>,
    /// Values read after their acknowledged delete.
    pub undeleted: Vec<String>,
    /// Values that nobody had written.
    pub invented: Vec<String>,
}

impl Stale {
    /// All of it.
    pub fn all(self) -> Vec<String> {
        [self.lost, self.undeleted, self.invented].concat()
    }
}

/// Looks at every read.
pub fn stale(events: &[Event]) -> Stale {
    let mut stale = Stale::default();
    for (key, events) in by_key(events) {
        match key >= COUNTERS {
            true => miscounted(&events, &mut stale),
            false => misread(&events, &mut stale),
        }
    }
    stale
}

fn misread(events: &[Event], stale: &mut Stale) {
    let writes = Writes::new(events);
    for read in events {
        let Some(Answer::Value(value)) = read.answer() else { continue };
        let newest = writes.newest_before(read.start);
        let mut sources = writes.all.iter().filter(|write| write.writes() == Some(value) && write.start < read.end);
        let since = newest.map_or(0, |write| write.start);
        let is_current = |write: &Event| write.end >= since || write.outcome == Outcome::Unknown;
        let was_never_there = newest.is_none() && value.is_none();
        if was_never_there || sources.clone().any(is_current) {
            continue;
        }
        let text = |newest: Event| format!("{}\n  after {}", line(read), line(&newest));
        match newest {
            Some(newest) if newest.op == Op::Delete => stale.undeleted.push(text(newest)),
            Some(newest) if value.is_none() || sources.next().is_some() => stale.lost.push(text(newest)),
            _ => stale.invented.push(line(read)),
        }
    }
}

/// What may have changed a key, and what was acknowledged.
struct Writes {
    all: Vec<Event>,
    /// Ends of acknowledged writes in order, and of all up to there the one that began last.
    newest: Vec<(u64, Event)>,
}

impl Writes {
    fn new(events: &[Event]) -> Writes {
        let may_have = |event: &&Event| event.is_acknowledged() || event.outcome == Outcome::Unknown;
        let writes = events.iter().filter(|event| event.writes().is_some()).filter(may_have);
        let all: Vec<Event> = writes.copied().collect();
        let mut acknowledged: Vec<Event> = all.iter().filter(|event| event.is_acknowledged()).copied().collect();
        acknowledged.sort_by_key(|event| event.end);
        let mut newest: Vec<(u64, Event)> = Vec::new();
        for event in acknowledged {
            let last = newest.last().map(|&(_, last)| last).filter(|last| last.start > event.start);
            newest.push((event.end, last.unwrap_or(event)));
        }
        Writes { all, newest }
    }

    /// Of the writes acknowledged before this moment, the one that began last.
    fn newest_before(&self, moment: u64) -> Option<Event> {
        let count = self.newest.partition_point(|&(end, _)| end < moment);
        Some(self.newest[count.checked_sub(1)?].1)
    }
}

/// A counter's reads lie between what was acknowledged before them and what may have been added by their end.
fn miscounted(events: &[Event], stale: &mut Stale) {
    let of = |event: &Event| if let Op::Incr(by) = event.op { by } else { 0 };
    for read in events {
        let found = match read.answer() {
            Some(Answer::Value(value)) => value.unwrap_or(0),
            Some(Answer::Number(number)) => number,
            _ => continue,
        };
        let others = || events.iter().filter(|other| *other != read);
        let told = others().filter(|other| matches!(other.answer(), Some(Answer::Number(_))) && other.end < read.start);
        let least = told.map(of).sum::<u64>() + of(read);
        let maybe = others().filter(|other| other.outcome != Outcome::Refused && other.start < read.end);
        let most = maybe.map(of).sum::<u64>() + of(read);
        if found < least {
            stale.lost.push(format!("{}: {least} were acknowledged", line(read)));
        }
        if found > most {
            stale.invented.push(format!("{}: {most} at most were added", line(read)));
        }
    }
}

/// Replies of a server that was not the owner any more: another one of a later tenure had answered before the request
/// was sent.
pub fn deposed(events: &[Event], tenures: &[Tenure]) -> Vec<String> {
    let mut replies: Vec<&Event> = events.iter().filter(|event| event.answer().is_some()).collect();
    replies.sort_by_key(|event| event.start);
    // Tenures that replies are known to come from, and when the first of these was there.
    let mut known: Vec<(u64, usize, &Event)> = Vec::new();
    let mut broken = Vec::new();
    for reply in replies {
        let ended = known.iter().filter(|(end, ..)| *end < reply.start);
        let after = ended.max_by_key(|(_, tenure, _)| *tenure);
        let from = after.map_or(0, |(_, tenure, _)| *tenure);
        match (from..tenures.len()).find(|&at| tenures[at].server == reply.server) {
            Some(tenure) => {
                if !known.iter().any(|(end, other, _)| *other >= tenure && *end <= reply.end) {
                    known.push((reply.end, tenure, reply));
                }
            }
            None => {
                let newer = after.map_or("nothing, and never an owner".into(), |(.., newer)| line(newer));
                broken.push(format!("{}\n  after {newer}", line(reply)));
            }
        }
    }
    broken
}

/// The longest time within `from..to` in which no client got an answer, in nanoseconds.
pub fn longest_silence(events: &[Event], from: u64, to: u64) -> u64 {
    let answered = events.iter().filter(|event| event.answer().is_some() && event.end < FOREVER);
    let mut moments: Vec<u64> = answered.map(|event| event.end).filter(|end| (from..to).contains(end)).collect();
    moments.extend([from, to]);
    moments.sort_unstable();
    moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}
