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

#[cfg(test)]
mod tests {
    use super::{Tenure, deposed, longest_silence, stale};
    use crate::history::by_hand::{at, delete, get, set, told, unknown};
    use crate::history::{Answer, COUNTERS, Event, Op, Outcome};

    /// How many were lost, came back, and were invented.
    fn counts(events: &[Event]) -> (usize, usize, usize) {
        let stale = stale(events);
        (stale.lost.len(), stale.undeleted.len(), stale.invented.len())
    }

    #[test]
    fn reads_of_the_newest_are_good() {
        let good: [&[Event]; 7] = [
            &[get(0, None, 0, 1), set(0, 1, 2, 3), get(0, 1, 4, 5)],
            // Concurrent writes: either may be the last.
            &[set(0, 1, 0, 10), set(1, 2, 5, 12), get(0, 1, 20, 21)],
            &[set(0, 1, 0, 10), set(1, 2, 5, 12), get(0, 2, 20, 21)],
            // A later write that is in doubt, seen or not seen.
            &[set(0, 1, 0, 10), unknown(1, Op::Set(2), 11), get(0, 1, 20, 21), get(0, 2, 30, 31)],
            &[set(0, 1, 0, 10), unknown(1, Op::Delete, 11), get(0, None, 20, 21)],
            // One in doubt may take effect even after a later one that was acknowledged.
            &[unknown(1, Op::Set(2), 0), set(0, 1, 10, 20), get(0, 2, 30, 31)],
            &[set(0, 1, 0, 10), delete(0, 20, 30), get(1, 1, 25, 40), get(1, None, 50, 60)],
        ];
        for events in good {
            assert_eq!(counts(events), (0, 0, 0), "{events:?}");
        }
    }

    #[test]
    fn lost_writes_are_found() {
        assert_eq!(counts(&[set(0, 1, 0, 10), get(0, None, 20, 21)]), (1, 0, 0));
        assert_eq!(counts(&[set(0, 1, 0, 10), set(0, 2, 20, 30), get(0, 1, 40, 41)]), (1, 0, 0));
        let cas = told(0, Op::Cas { seen: 1, new: 2 }, Answer::Stored, 20, 30);
        assert_eq!(counts(&[set(0, 1, 0, 10), cas, get(0, 1, 40, 41)]), (1, 0, 0));
        // Refused: it can be no excuse.
        let refused = Event { outcome: Outcome::Refused, ..unknown(1, Op::Delete, 11) };
        assert_eq!(counts(&[set(0, 1, 0, 10), refused, get(0, None, 20, 21)]), (1, 0, 0));
    }

    #[test]
    fn what_was_deleted_and_comes_back_is_found() {
        assert_eq!(counts(&[set(0, 1, 0, 10), delete(0, 20, 30), get(0, 1, 40, 41)]), (0, 1, 0));
        let not_found = told(0, Op::Delete, Answer::NotFound, 20, 30);
        assert_eq!(counts(&[set(0, 1, 0, 10), not_found, get(0, 1, 40, 41)]), (0, 1, 0));
    }

    #[test]
    fn values_from_nowhere_are_found() {
        assert_eq!(counts(&[get(0, 5, 0, 10)]), (0, 0, 1));
        assert_eq!(counts(&[get(0, 5, 0, 10), set(0, 5, 20, 30)]), (0, 0, 1));
        let refused = Event { outcome: Outcome::Refused, ..unknown(1, Op::Set(2), 0) };
        assert_eq!(counts(&[refused, get(0, 2, 20, 21)]), (0, 0, 1));
    }

    #[test]
    fn counters_are_counted() {
        let on = |events: &[Event]| counts(&events.iter().map(|&e| Event { key: COUNTERS, ..e }).collect::<Vec<_>>());
        let incr = |number, start| told(0, Op::Incr(1), Answer::Number(number), start, start + 5);
        assert_eq!(on(&[incr(1, 0), unknown(1, Op::Incr(1), 3), incr(3, 10), get(0, 3, 20, 21)]), (0, 0, 0));
        assert_eq!(on(&[incr(1, 0), incr(1, 10)]), (1, 0, 0));
        assert_eq!(on(&[incr(1, 0), get(0, 0, 10, 11)]), (1, 0, 0));
        assert_eq!(on(&[incr(2, 0)]), (0, 0, 1));
    }

    #[test]
    fn a_deposed_owner_that_answers_is_found() {
        let tenure = |epoch, server| Tenure { epoch, server };
        let (a, b) = (|start| at(1, get(0, None, start, start + 5)), |start| at(2, get(1, None, start, start + 5)));
        let once = [tenure(1, 1), tenure(2, 2)];
        assert_eq!(deposed(&[a(0), a(10), b(12), b(20)], &once), [""; 0]);
        // Sent before the new owner's first reply was seen: nobody can tell which was first.
        assert_eq!(deposed(&[b(10), a(14)], &once), [""; 0]);
        assert_eq!(deposed(&[a(0), b(10), a(16), b(20)], &once).len(), 1);
        // It became the owner again.
        let again = [tenure(1, 1), tenure(2, 2), tenure(4, 1)];
        assert_eq!(deposed(&[a(0), b(10), a(20)], &again), [""; 0]);
        assert_eq!(deposed(&[a(0), b(10), a(20), b(30)], &again).len(), 1);
        // A server that never was an owner.
        assert_eq!(deposed(&[at(3, get(0, None, 0, 5))], &again).len(), 1);
    }

    #[test]
    fn silence_is_measured() {
        let events = [get(0, None, 0, 10), get(0, None, 15, 30), unknown(0, Op::Get, 31), get(0, None, 90, 95)];
        assert_eq!(longest_silence(&events, 0, 100), 65);
        assert_eq!(longest_silence(&events, 20, 60), 30);
    }
}
