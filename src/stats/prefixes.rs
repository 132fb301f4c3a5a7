//! Counts per prefix of keys: `stats detail`, `-D`.

use crate::sync::lock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The most prefixes that are counted, so that a client that makes prefixes up cannot fill the memory.
const PREFIXES_MAX: usize = 65536;

/// Lines of a dump that are made under the lock, for which every counted key waits: 50 us.
const LINES: usize = 128;

/// How often all may be forgotten before the memory is given back: 20 MB each time, at worst.
const FORGOTTEN_MAX: usize = 2;

/// Counts per key prefix: the part of a key before the first delimiter. Keys without one are not counted.
#[derive(Debug)]
pub struct Prefixes {
    enabled: AtomicBool,
    delimiter: AtomicU8,
    counts: Mutex<PrefixMap>,
    /// What was forgotten, until somebody has the time to give it back: see [`Prefixes::give_back`].
    forgotten: Mutex<Vec<PrefixMap>>,
}

type PrefixMap = BTreeMap<Box<[u8]>, PrefixCounts>;

/// What happened to a key, for [`Prefixes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixEvent {
    /// A lookup that found nothing.
    Miss,
    /// A lookup that found the item.
    Hit,
    /// A store.
    Set,
    /// A delete.
    Delete,
}

impl Prefixes {
    /// Whether prefixes are counted.
    #[inline]
    pub fn enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// `stats detail on|off`.
    pub fn enable(&self, on: bool) {
        self.enabled.store(on, Ordering::Relaxed);
    }

    /// Sets the delimiter of `-D`. Call this before anything is counted.
    pub fn set_delimiter(&self, delimiter: u8) {
        self.delimiter.store(delimiter, Ordering::Relaxed);
    }

    /// Counts one event. Call only while [`Prefixes::enabled`].
    pub fn count(&self, key: &[u8], event: PrefixEvent) {
        let Some(end) = memchr::memchr(self.delimiter.load(Ordering::Relaxed), key) else { return };
        let prefix = &key[..end];
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(prefix) {
            count.add(event);
        } else if counts.len() < PREFIXES_MAX {
            counts.entry(prefix.into()).or_default().add(event);
        }
    }

    /// Forgets all counts. Who asks for that serves others, too, so he does not give the memory back: 65,536 prefixes take
    /// some milliseconds.
    pub fn clear(&self) {
        let counts = std::mem::take(&mut *lock(&self.counts));
        let mut forgotten = lock(&self.forgotten);
        if !counts.is_empty() && forgotten.len() < FORGOTTEN_MAX {
            forgotten.push(counts);
        }
    }

    /// Gives back the memory of what was forgotten. Who calls this, again and again, keeps nobody waiting.
    pub fn give_back(&self) {
        let forgotten = std::mem::take(&mut *lock(&self.forgotten));
        drop(forgotten);
    }

    /// Appends some lines of `stats detail dump`, in order of prefixes. False when these were the last ones.
    pub fn dump_some(&self, walk: &mut PrefixWalk, out: &mut Vec<u8>) -> bool {
        let counts = lock(&self.counts);
        let start = walk.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut lines = counts.range::<[u8], _>((start, Bound::Unbounded));
        let mut last = None;
        for (prefix, PrefixCounts { gets, hits, sets, deletes }) in lines.by_ref().take(LINES) {
            out.extend_from_slice(b"PREFIX ");
            out.extend_from_slice(prefix);
            out.extend_from_slice(format!(" get {gets} hit {hits} set {sets} del {deletes}\r\n").as_bytes());
            last = Some(prefix);
        }
        let more = lines.next().is_some();
        walk.last = last.cloned();
        more
    }
}

/// How far a dump of all prefixes has got.
#[derive(Debug, Default)]
pub struct PrefixWalk {
    /// The last prefix that was shown.
    last: Option<Box<[u8]>>,
}

impl Default for Prefixes {
    fn default() -> Prefixes {
        let (enabled, delimiter) = (AtomicBool::new(false), AtomicU8::new(b':'));
        Prefixes { enabled, delimiter, counts: Mutex::default(), forgotten: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct PrefixCounts {
    gets: u64,
    hits: u64,
    sets: u64,
    deletes: u64,
}

impl PrefixCounts {
    fn add(&mut self, event: PrefixEvent) {
        match event {
            PrefixEvent::Miss => self.gets += 1,
            PrefixEvent::Hit => (self.gets, self.hits) = (self.gets + 1, self.hits + 1),
            PrefixEvent::Set => self.sets += 1,
            PrefixEvent::Delete => self.deletes += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_counted() {
        let prefixes = Prefixes::default();
        for key in ["a:b", "a:c:d", "none", ":x", "b:"] {
            prefixes.count(key.as_bytes(), PrefixEvent::Set);
        }
        prefixes.count(b"a:b", PrefixEvent::Hit);
        prefixes.count(b"a:b", PrefixEvent::Miss);
        prefixes.count(b"a:b", PrefixEvent::Delete);
        assert_eq!(
            dump(&prefixes),
            "PREFIX  get 0 hit 0 set 1 del 0\r\nPREFIX a get 2 hit 1 set 2 del 1\r\nPREFIX b get 0 hit 0 set 1 del 0\r\n"
        );
        prefixes.clear();
        prefixes.set_delimiter(b'/');
        prefixes.count(b"a:b/c", PrefixEvent::Miss);
        assert_eq!(dump(&prefixes), "PREFIX a:b get 1 hit 0 set 0 del 0\r\n");
    }

    #[test]
    fn prefixes_are_bounded() {
        let prefixes = Prefixes::default();
        for n in 0..PREFIXES_MAX + 10 {
            prefixes.count(format!("{n}:").as_bytes(), PrefixEvent::Set);
        }
        prefixes.count(b"0:", PrefixEvent::Set);
        let dump = dump(&prefixes);
        assert_eq!(dump.lines().count(), PREFIXES_MAX);
        assert!(dump.contains("PREFIX 0 get 0 hit 0 set 2 del 0\r\n"));
    }

    #[test]
    fn who_forgets_gives_no_memory_back() {
        let prefixes = Prefixes::default();
        for _ in 0..2 {
            prefixes.count(b"a:b", PrefixEvent::Set);
            prefixes.clear();
            prefixes.clear();
        }
        assert_eq!(dump(&prefixes), "");
        assert_eq!(lock(&prefixes.forgotten).len(), 2);
        prefixes.give_back();
        assert!(lock(&prefixes.forgotten).is_empty());
    }

    fn dump(prefixes: &Prefixes) -> String {
        let (mut walk, mut out, mut lines) = (PrefixWalk::default(), Vec::new(), 0);
        while prefixes.dump_some(&mut walk, &mut out) {
            let now = out.iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(now - std::mem::replace(&mut lines, now), LINES);
        }
        String::from_utf8(out).unwrap()
    }
}
