//! Servers that are killed in the middle of what several writers do, again and again, with one memory file.
//!
//! Each writer has keys of its own and waits for each reply, so at the kill it knows every key but one for certain. That
//! one may be as it was before the last request, as it is after it, or gone. Where memory is short, any key may be gone;
//! never may one be what it was before. Replay a failure with `TWINCACHE_SEED=<the printed seed>`.

use super::{Kept, end};
use crate::common::{Conn, Rng, Server, Waited, show, signal};
use std::collections::BTreeMap;
use std::time::Duration;

const WRITERS: usize = 3;

/// Keys of a writer.
const KEYS: u64 = 60;

/// What a key must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    value: Option<Vec<u8>>,
    client_flags: u32,
    stale: bool,
    /// The cas unique, where a reply has told it.
    cas: Option<u64>,
}

/// What one writer knows.
struct Writer {
    number: usize,
    rng: Rng,
    keys: BTreeMap<String, Known>,
    /// A request that nobody has answered: the key, and what it would be then. None: all keys, which are flushed.
    unanswered: Option<(Option<String>, Known)>,
    /// The highest cas unique that was seen.
    cas: u64,
    flushes: bool,
}

impl Writer {
    fn new(number: usize, seed: u64, flushes: bool) -> Writer {
        Writer { number, rng: Rng(seed), keys: BTreeMap::new(), unanswered: None, cas: 0, flushes }
    }

    /// Sends requests until the server is gone.
    fn run(&mut self, mut conn: Conn) {
        loop {
            let key = format!("writer{}-{}", self.number, self.rng.below(KEYS));
            let before = self.keys.get(&key).cloned().unwrap_or_default();
            let (request, after) = self.request(&key, before);
            let is_flush = request.starts_with(b"flush_all");
            self.unanswered = Some((if is_flush { None } else { Some(key.clone()) }, after.clone()));
            conn.send(&request);
            let waited = conn.read_until(Duration::from_secs(60), |got| got.ends_with(b"\r\n"));
            if waited != Waited::Done {
                return;
            }
            let reply = String::from_utf8(std::mem::take(&mut conn.got)).expect("a line");
            self.unanswered = None;
            self.answered(key, after, reply.trim_end(), is_flush);
        }
    }

    /// A request, and what the key is after it.
    fn request(&mut self, key: &str, before: Known) -> (Vec<u8>, Known) {
        match self.rng.below(20_u32) {
            0..3 => (format!("md {key}\r\n").into_bytes(), Known::default()),
            3 => (format!("md {key} I\r\n").into_bytes(), Known { stale: before.value.is_some(), cas: None, ..before }),
            4..6 => {
                let more = self.rng.bytes(3);
                let value = before.value.as_ref().map(|value| [&value[..], &more].concat());
                let request = [format!("ms {key} 3 MA c\r\n").as_bytes(), &more, b"\r\n"].concat();
                // One that is appended to is a new item.
                (request, Known { value, stale: false, cas: None, ..before })
            }
            6 => (format!("mg {key} T10000\r\n").into_bytes(), before),
            7 if self.flushes && self.rng.one_in(4) => (b"flush_all\r\n".into(), Known::default()),
            _ => {
                let most = self.rng.pick(&[10, 200, 200, 3000, 100_000, 1_500_000]);
                let len = match &before.value {
                    // Into the same chunk.
                    Some(value) if self.rng.one_in(2) => value.len(),
                    _ => self.rng.below(most),
                };
                let (value, client_flags) = (self.rng.bytes(len), self.rng.below(3));
                let head = format!("ms {key} {len} F{client_flags} c\r\n");
                let request = [head.as_bytes(), &value, b"\r\n"].concat();
                (request, Known { value: Some(value), client_flags, stale: false, cas: None })
            }
        }
    }

    fn answered(&mut self, key: String, mut after: Known, reply: &str, is_flush: bool) {
        if is_flush {
            assert_eq!(reply, "OK");
            return self.keys.clear();
        }
        let word = reply.split(' ').next().expect("a word");
        assert!(matches!(word, "HD" | "EN" | "NS" | "NF" | "SERVER_ERROR"), "{reply}");
        if let Some(cas) = reply.strip_prefix("HD c") {
            let cas = cas.parse().expect("a cas unique");
            assert!(cas > self.cas, "{key}: cas {cas} was given after {}", self.cas);
            (self.cas, after.cas) = (cas, Some(cas));
        }
        // Nothing was appended: the key was evicted, or there is no memory for both values and it stays as it was.
        if word == "NS" {
            return;
        }
        // Otherwise it is not there: it was deleted, or evicted.
        if word == "HD" && after.value.is_some() {
            self.keys.insert(key, after);
        } else {
            self.keys.remove(&key);
        }
    }

    /// Compares with what the next server has, and learns what it could not know. How many keys were as they must be.
    fn compare(&mut self, conn: &mut Conn, may_be_gone: bool) -> usize {
        let (unanswered, mut right) = (self.unanswered.take(), 0);
        for number in 0..KEYS {
            let key = format!("writer{}-{number}", self.number);
            let before = self.keys.remove(&key).unwrap_or_default();
            let found = look(conn, &key);
            let is_gone = found.value.is_none();
            let is_right = match &unanswered {
                Some((None, _)) => is_gone || same(&found, &before),
                Some((Some(other), after)) if *other == key => is_gone || same(&found, &before) || same(&found, after),
                _ => same(&found, &before) || is_gone && may_be_gone,
            };
            assert!(
                is_right,
                "{key} is {}, was {}; unanswered: {:?}",
                tell(&found),
                tell(&before),
                unanswered.map(|it| it.0)
            );
            right += usize::from(!is_gone);
            if !is_gone {
                self.keys.insert(key, found);
            }
        }
        right
    }
}

fn same(found: &Known, expected: &Known) -> bool {
    let is_cas = found.cas == expected.cas || expected.cas.is_none();
    (&found.value, found.client_flags, found.stale) == (&expected.value, expected.client_flags, expected.stale)
        && is_cas
        || found.value.is_none() && expected.value.is_none()
}

fn tell(known: &Known) -> String {
    let value = known.value.as_ref().map(|value| (value.len(), value.first().copied()));
    format!("{value:?} F{} stale {} cas {:?}", known.client_flags, known.stale, known.cas)
}

fn look(conn: &mut Conn, key: &str) -> Known {
    conn.send(format!("mg {key} f c v\r\nmn\r\n").as_bytes());
    // A value may end with MN, too.
    let waited = conn.read_until(Duration::from_secs(60), |got| got.ends_with(b"\r\nMN\r\n"));
    assert_eq!(waited, Waited::Done, "mg {key}");
    let got = std::mem::take(&mut conn.got);
    if got.starts_with(b"EN\r\n") {
        return Known::default();
    }
    let line_end = got.iter().position(|&byte| byte == b'\r').expect("a line");
    let head = String::from_utf8(got[..line_end].to_vec()).expect("a head");
    let words: Vec<&str> = head.split(' ').collect();
    assert!(words.len() > 1, "mg {key}: {}", show(&got));
    let len: usize = words[1].parse().expect("VA len");
    let number = |letter: char| words.iter().find_map(|word| word.strip_prefix(letter)?.parse::<u64>().ok());
    Known {
        value: Some(got[line_end + 2..line_end + 2 + len].to_vec()),
        client_flags: number('f').expect("f") as u32,
        stale: words.contains(&"X"),
        cas: number('c'),
    }
}

/// Rounds of writing and a kill.
fn storm(options: &[&str], may_be_gone: bool, flushes: bool, rounds: usize) {
    for seed in seeds() {
        let mut rng = Rng(seed);
        let kept = Kept::new(options);
        let count = if flushes { 1 } else { WRITERS };
        let mut writers: Vec<Writer> = (0..count).map(|number| Writer::new(number, rng.next(), flushes)).collect();
        let (mut right, mut dropped) = (0, 0);
        for _ in 0..rounds {
            let mut server = kept.start();
            server.may_exit();
            let pid = server.pid();
            let pause = Duration::from_millis(20 + rng.below(150_u64));
            std::thread::scope(|scope| {
                for writer in &mut writers {
                    let conn = server.connect();
                    scope.spawn(|| writer.run(conn));
                }
                std::thread::sleep(pause);
                signal(pid, "KILL");
            });
            dead(server);
            let server = kept.start();
            let mut conn = server.connect();
            right += writers.iter_mut().map(|writer| writer.compare(&mut conn, may_be_gone)).sum::<usize>();
            let highest = writers.iter().map(|writer| writer.cas).max().unwrap_or(0);
            writers.iter_mut().for_each(|writer| writer.cas = highest);
            let stderr = end(server, if rng.one_in(2) { "USR1" } else { "KILL" });
            dropped += dropped_of(&stderr);
        }
        println!("{right} items were right in {rounds} rounds, {dropped} were dropped");
        assert!(right > rounds * count * 3, "{right}");
        assert!(dropped <= (rounds * count * 2) as u64, "a kill costs each writer one item at most, and its copy");
    }
}

fn dead(mut server: Server) {
    let (code, stderr) = server.exit();
    assert_eq!(code, None, "{stderr}");
}

fn dropped_of(stderr: &str) -> u64 {
    let line = stderr.lines().find(|line| line.contains("items kept in"));
    let line = line.unwrap_or_else(|| panic!("no word of what was kept: {stderr}"));
    let word = line.split(" ms, ").nth(1).and_then(|rest| rest.split(' ').next());
    word.and_then(|word| word.parse().ok()).expect("a number")
}

fn seeds() -> impl Iterator<Item = u64> {
    let given = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64);
    let (first, count) = (given("TWINCACHE_SEED").unwrap_or(now), given("TWINCACHE_SEEDS").unwrap_or(1));
    (0..count).map(move |i| first.wrapping_add(i)).inspect(|seed| println!("TWINCACHE_SEED={seed}"))
}

#[test]
fn kills_in_a_storm() {
    storm(&["-m", "1024", "-I", "2m", "-t", "2"], false, false, 12);
}

#[test]
fn kills_in_a_storm_with_little_memory() {
    storm(&["-m", "16", "-I", "2m", "-t", "3"], true, false, 8);
}

#[test]
fn kills_among_flush_alls() {
    storm(&["-m", "1024", "-I", "2m"], false, true, 8);
}

#[test]
fn kills_in_a_storm_with_memcacheds_sizes() {
    storm(&["-m", "100", "-o", "slab_accounting=memcached,no_lru_maintainer"], true, false, 6);
}

/// Bytes of a value that is set in the place of the one before, again and again: as many as go through the worker's buffer.
const LONG: usize = 12_000;

/// Sets the same keys without waiting for each reply, until the server is gone. The last version that was answered for, and
/// the last that was sent.
fn overwrite(mut conn: Conn, number: usize, keys: usize, (mut answered, mut version): (u32, u32)) -> (u32, u32) {
    loop {
        let mut batch = Vec::new();
        for _ in 0..4 {
            version += 1;
            for key in 0..keys {
                batch.extend_from_slice(format!("ms long{number}-{key} {LONG} q\r\n{version:08}").as_bytes());
                batch.resize(batch.len() + LONG - 8, version as u8);
                batch.extend_from_slice(b"\r\n");
            }
        }
        batch.extend_from_slice(b"mn\r\n");
        conn.send(&batch);
        if conn.read_until(Duration::from_secs(60), |got| got.ends_with(b"MN\r\n")) != Waited::Done {
            return (answered, version);
        }
        conn.got.clear();
        answered = version;
    }
}

#[test]
fn kills_in_the_middle_of_values() {
    const KEYS_EACH: usize = 5;
    for seed in seeds() {
        let mut rng = Rng(seed);
        let kept = Kept::new(&["-m", "1024", "-t", "2"]);
        let (mut dropped, mut from) = (0, [(0, 0); WRITERS]);
        for _ in 0..15 {
            let mut server = kept.start();
            server.may_exit();
            let pause = Duration::from_millis(10 + rng.below(60_u64));
            let told: Vec<(u32, u32)> = std::thread::scope(|scope| {
                let conns = (0..WRITERS).map(|number| (number, server.connect(), from[number]));
                let threads =
                    conns.map(|(number, conn, from)| scope.spawn(move || overwrite(conn, number, KEYS_EACH, from)));
                let threads: Vec<_> = threads.collect();
                std::thread::sleep(pause);
                signal(server.pid(), "KILL");
                threads.into_iter().map(|thread| thread.join().expect("a writer")).collect()
            });
            dead(server);
            let server = kept.start();
            let mut conn = server.connect();
            for (number, &(answered, sent)) in told.iter().enumerate() {
                let mut gone = 0;
                for key in 0..KEYS_EACH {
                    let Some(value) = look(&mut conn, &format!("long{number}-{key}")).value else {
                        gone += 1;
                        continue;
                    };
                    let version: u32 = std::str::from_utf8(&value[..8]).expect("digits").parse().expect("digits");
                    let is_whole = value.len() == LONG && value[8..].iter().all(|&byte| byte == version as u8);
                    assert!(
                        is_whole && (answered..=sent).contains(&version),
                        "{version}, whole: {is_whole}, {answered} to {sent}"
                    );
                }
                assert!(gone <= 1 || answered == 0, "{gone} are gone of writer {number}");
                from[number] = (answered, sent);
            }
            dropped += dropped_of(&end(server, "KILL"));
        }
        println!("{dropped} items were dropped");
    }
}
