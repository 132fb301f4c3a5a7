//! `switchover` and `promote`: asks the sidecars, and waits until the new owner serves.
//!
//! ```text
//!   look: may it be asked for? ── no ──> says why not
//!     v
//!   requests/s is absent ── swap ──> ours ──> answers/s with our id ──> shards/s: its owner is the one that was
//!      another's: wait for its end, REPLACE_AFTER at most                asked for ──> nodes/s/n says `primary`
//!      nobody answers: ours is taken back
//! ```
//!
//! Two operators cannot overwrite each other's request: it is put only where there is none. One that stays for
//! [`REPLACE_AFTER`] belongs to a tool that has gone, and is replaced.
//!
//! Not here: how the shard is handed over (`sidecar::lease`).

use super::console::Console;
use super::exit::CtlExit;
use super::look::{PATIENCE, glance, look};
use super::show::no_shard;
use super::view::ShardView;
use crate::cluster::record::{AnswerRecord, RequestKind, RequestRecord, from_bytes, to_bytes};
use crate::cluster::{EtcdError, Swap};
use std::io::Read;
use std::time::{Duration, Instant};

/// How long another's request is waited for before it is replaced.
const REPLACE_AFTER: Duration = Duration::from_secs(60);

/// The pause between two looks at the answer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Longest wait for an answer, on top of the lease: the owner of the shard looks for requests all the time.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Longest wait for the new owner, after the answer and on top of the lease.
const SERVE_MAX: Duration = Duration::from_secs(15);

/// Gives a shard to a node that is in sync.
pub(super) fn switchover(console: &mut Console, name: &str, to: Option<&str>) -> Result<(), CtlExit> {
    let shard = shard(console, name)?;
    let not_done = |line: String| Err(CtlExit::not_done(&line));
    let owner = match shard.owner() {
        Some(owner) if !shard.is_owner_silent => owner,
        Some(owner) => return not_done(format!("{owner} owns {name} and is silent, so it cannot hand it over: {HOW}")),
        None => return not_done(format!("nobody owns {name}, so nobody can hand it over: {HOW}")),
    };
    if to == Some(owner) {
        console.say(&format!("{owner} owns {name} already"));
        return Ok(());
    }
    if let Some(to) = to {
        check_node(name, to, &shard)?;
        if !shard.is_in_sync(to) {
            return not_done(format!("{to} is not in sync: what it does not have would be lost"));
        }
    } else if shard.in_sync() == 0 {
        return not_done("nobody is in sync, so nobody can take over with the data".to_owned());
    }
    let to = to.unwrap_or_default();
    ask(console, name, &shard, RequestKind::Switchover, to)
}

/// What to do about an owner that cannot hand over.
const HOW: &str = "a node in sync takes over by itself unless that is paused, another one by `promote`";

/// Makes a node the owner whatever it has; only says what that would be without `is_forced`.
pub(super) fn promote(
    console: &mut Console,
    name: &str,
    node: &str,
    is_forced: bool,
    is_dry: bool,
) -> Result<(), CtlExit> {
    let shard = shard(console, name)?;
    check_node(name, node, &shard)?;
    if let Some(owner) = shard.owner().filter(|_| !shard.is_owner_silent) {
        if owner == node {
            console.say(&format!("{node} owns {name} already"));
            return Ok(());
        }
        return Err(CtlExit::not_done(&format!("{owner} owns {name} and serves: use `switchover {name} --to {node}`")));
    }
    if shard.nodes.get(node).is_none_or(|view| view.is_silent) {
        return Err(CtlExit::not_done(&format!("{node} is not heard of, so it cannot take over")));
    }
    what_is_lost(&shard, node).iter().for_each(|line| console.say(line));
    match (is_dry, is_forced) {
        (true, _) => Ok(()),
        (false, false) => Err(CtlExit::not_done("not done: say --force to promote it all the same")),
        (false, true) => ask(console, name, &shard, RequestKind::Promote, node),
    }
}

/// What a promotion of a node would cost.
pub(super) fn what_is_lost(shard: &ShardView, node: &str) -> Vec<String> {
    let items = |node: &str| shard.node_record(node).map_or(0, |record| record.items);
    let mut lines = vec![format!("{node} holds {} items", items(node))];
    for (other, view) in shard.nodes.iter().filter(|(other, _)| *other != node) {
        let Some(record) = view.record() else { continue };
        let when = if view.is_silent { "held, when it was last heard of," } else { "holds" };
        let role = if shard.is_owner(other) { ", which owns the shard," } else { "" };
        lines.push(format!("{other}{role} {when} {} items", record.items));
    }
    lines.push(match shard.is_in_sync(node) {
        true => format!("{node} is in sync: nothing that it should have is missing"),
        false => {
            format!("{node} is not in sync: what others have and it does not have is lost, and what it has may be old")
        }
    });
    lines
}

/// The shard, with who is silent.
pub(super) fn shard(console: &mut Console, name: &str) -> Result<ShardView, CtlExit> {
    let mut shards = look(&mut console.etcd, &console.keys)?.shards;
    let found = shards.remove(name);
    found.ok_or_else(|| CtlExit::not_done(&no_shard(&console.cluster, name, &shards)))
}

/// Whether the shard has such a node.
pub(super) fn check_node(name: &str, node: &str, shard: &ShardView) -> Result<(), CtlExit> {
    if shard.nodes.contains_key(node) {
        return Ok(());
    }
    let names: Vec<&str> = shard.nodes.keys().map(String::as_str).collect();
    Err(CtlExit::not_done(&format!("{name} has no node {node}, only {}", names.join(", "))))
}

fn ask(console: &mut Console, name: &str, shard: &ShardView, what: RequestKind, to: &str) -> Result<(), CtlExit> {
    let lease = Duration::from_millis(shard.record().map_or(0, |record| record.lease_ms));
    let epoch = shard.record().map_or(0, |record| record.epoch);
    let request = RequestRecord { id: id()?, what, to: to.to_owned(), epoch };
    let revision = put(console, name, &request)?;
    let start = Instant::now();
    console.say(&format!("{name}: asked for a {request}"));
    let answer = answer(console, name, &request.id, lease + ANSWER_MAX)?;
    let Some(answer) = answer else {
        return Err(take_back(console, name, revision));
    };
    console.say(&format!("{name}: {}", answer.text));
    if !answer.is_done {
        return Err(CtlExit::not_done("not done"));
    }
    await_owner(console, name, to, epoch, lease + SERVE_MAX, start)
}

/// Puts the request where there is none. Its revision.
fn put(console: &mut Console, name: &str, request: &RequestRecord) -> Result<i64, CtlExit> {
    let key = console.keys.request(name);
    let mut seen = (0, Instant::now());
    let mut expected = 0;
    loop {
        match console.etcd.swap(&key, expected, &to_bytes(request), PATIENCE) {
            Ok(Swap::Won(revision)) => return Ok(revision),
            Ok(Swap::Lost(there)) => {
                let Some(value) = &there.value else {
                    expected = 0;
                    continue;
                };
                let other = from_bytes::<RequestRecord>(&value.bytes);
                // It was put after all, and its answer has not come.
                if other.as_ref().is_ok_and(|other| other.id == request.id) {
                    return Ok(value.mod_revision);
                }
                if value.mod_revision != seen.0 {
                    let other = other.map_or("something unreadable".to_owned(), |other| other.to_string());
                    let most = REPLACE_AFTER.as_secs();
                    console.say(&format!("{name}: was asked for a {other} before; that is replaced after {most} s"));
                    seen = (value.mod_revision, Instant::now());
                }
                expected = if seen.1.elapsed() >= REPLACE_AFTER { value.mod_revision } else { 0 };
            }
            Err(error @ EtcdError::Unknown(_)) => console.warn(&format!("etcd: {error}")),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(LOOK_EVERY * 5);
    }
}

/// The answer to a request; None if there was none in time.
fn answer(console: &mut Console, name: &str, id: &str, most: Duration) -> Result<Option<AnswerRecord>, CtlExit> {
    let (key, start) = (console.keys.answer(name), Instant::now());
    while start.elapsed() < most {
        let there = console.etcd.get(&key, PATIENCE)?.value;
        let answer = there.and_then(|value| from_bytes::<AnswerRecord>(&value.bytes).ok());
        if let Some(answer) = answer.filter(|answer| answer.id == id) {
            return Ok(Some(answer));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(None)
}

/// Takes a request away that nobody has answered.
fn take_back(console: &mut Console, name: &str, revision: i64) -> CtlExit {
    let key = console.keys.request(name);
    match console.etcd.take(&key, revision, &[], PATIENCE) {
        Ok(Swap::Won(_)) => CtlExit::not_done("nobody has answered: the request was taken back"),
        Ok(Swap::Lost(_)) => CtlExit::not_done("the request was taken, but nobody has answered: see `status`"),
        Err(error) => CtlExit::not_done(&format!("nobody has answered, and the request is still there: {error}")),
    }
}

/// Waits until the new owner serves; `to` is empty if any will do.
fn await_owner(
    console: &mut Console,
    name: &str,
    to: &str,
    epoch: u64,
    most: Duration,
    start: Instant,
) -> Result<(), CtlExit> {
    let mut said = None;
    let answered = Instant::now();
    while answered.elapsed() < most {
        let view = glance(&mut console.etcd, &console.keys)?;
        let shard = view.shards.get(name).filter(|shard| shard.record().is_some_and(|record| record.epoch > epoch));
        if let Some((shard, owner)) = shard.and_then(|shard| Some((shard, shard.owner()?)))
            && (to.is_empty() || owner == to)
        {
            let epoch = shard.record().map_or(0, |record| record.epoch);
            if said != Some(epoch) {
                console.say(&format!("{name}: {owner} is the owner in epoch {epoch}"));
                said = Some(epoch);
            }
            let serves = |role: &str, of: u64| role == "primary" && of >= epoch;
            if shard.node_record(owner).is_some_and(|record| serves(&record.role, record.epoch)) {
                let ms = start.elapsed().as_millis();
                console.say(&format!("{name}: {owner} is primary, {ms} ms after it was asked for"));
                return Ok(());
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(CtlExit::not_done(&format!("it was promised, but nobody has become primary in {} s", most.as_secs())))
}

/// Something that no other request has.
fn id() -> Result<String, CtlExit> {
    let mut bytes = [0; 8];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| CtlExit::not_done(&format!("/dev/urandom: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
