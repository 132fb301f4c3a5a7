//! What a memory file says of itself: text, at its begin and in `FILE.meta`.
//!
//! ```text
//! Tmain
//! Kname value        one line for each, in any order; K sum last, of all bytes before it
//! ```
//!
//! The form is memcached's. Invariants: a record that is read is one that was written, but for a chance of 2^-64.
//!
//! Not here: what is done with it (`memory_file`).

use super::StoreConfig;
use crate::clock::ClockState;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::str::FromStr;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRecord {
    /// Number of the layout of the whole file.
    pub format: u32,
    /// Grows with each record that is written.
    pub turn: u64,
    /// Written by a graceful stop, after which nothing was changed.
    pub is_closed: bool,
    /// Settings that must be the same again, as text.
    pub settings: Vec<(&'static str, String)>,
    /// Which start of the machine it was.
    pub boot: String,
    pub clock: ClockState,
    /// The last cas unique that was given; of an open record, not the last.
    pub cas: u64,
    /// See [`crate::journal::flush::Flush::state`].
    pub flush: [u64; 3],
    pub hash_seed: u64,
    pub shards: usize,
    /// Bytes of a shard's window.
    pub window: usize,
    /// Buckets of all hash tables at the last graceful stop, at least; 0 if nobody has counted them.
    pub buckets: usize,
}

/// The names and values of a text of this form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields(BTreeMap<String, String>);

/// Settings that must be the same again: memcached's, and how sizes are reckoned.
pub(super) fn settings(config: &StoreConfig) -> Vec<(&'static str, String)> {
    let sizes: Vec<String> = config.slab_sizes.iter().map(ToString::to_string).collect();
    let steps = match config.growth_factor {
        _ if !sizes.is_empty() => sizes.join("-"),
        Some(factor) => format!("{factor}"),
        None => "default".into(),
    };
    vec![
        ("slab_config", steps),
        ("slab_accounting", format!("{:?}", config.accounting)),
        ("maxbytes", config.memory_limit.to_string()),
        ("chunk_size", config.chunk_size.to_string()),
        ("item_size_max", config.item_size_max.to_string()),
        ("slab_chunk_size_max", config.slab_chunk_max.to_string()),
        ("slab_page_size", config.page_size.to_string()),
        ("use_cas", config.cas_enabled.to_string()),
        ("slab_reassign", config.slab_reassign.to_string()),
    ]
}

impl FileRecord {
    /// The text.
    pub(super) fn encode(&self) -> String {
        let mut text = String::from("Tmain\n");
        let mut put = |name: &str, value: &dyn std::fmt::Display| {
            // Writing into a string cannot fail.
            let _ = writeln!(text, "K{name} {value}");
        };
        put("format", &self.format);
        self.settings.iter().for_each(|(name, value)| put(name, value));
        put("turn", &self.turn);
        put("is_closed", &self.is_closed);
        put("boot", &self.boot);
        put("current_time", &self.clock.now);
        put("time_zero", &self.clock.zero_ms);
        put("stop_time", &self.clock.unix_ms);
        put("current_cas", &self.cas);
        put("flush_done", &self.flush[0]);
        put("flush_pending", &self.flush[1]);
        put("flush_floor", &self.flush[2]);
        put("hash_seed", &self.hash_seed);
        put("shards", &self.shards);
        put("window", &self.window);
        put("buckets", &self.buckets);
        let sum = sum(text.as_bytes());
        let _ = writeln!(text, "Ksum {sum}");
        text
    }
}

impl Fields {
    /// Reads a text; None when it is none of this form. Zeros at its end are no part of it.
    pub(super) fn read(bytes: &[u8]) -> Option<Fields> {
        let end = bytes.iter().rposition(|&byte| byte != 0)? + 1;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = text.strip_prefix("Tmain\n")?.lines().filter(|line| !line.is_empty());
        let fields = lines.by_ref().map(|line| line.strip_prefix('K')?.split_once(' '));
        let fields: Option<BTreeMap<String, String>> =
            fields.map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned()))).collect();
        let fields = Fields(fields?);
        let Some(written) = fields.0.get("sum") else {
            // memcached's has no sum, and none of our lines.
            return (!fields.0.contains_key("format")).then_some(fields);
        };
        let body = text.rfind("Ksum ")?;
        (*written == sum(&text.as_bytes()[..body]).to_string()).then_some(fields)
    }

    /// The first setting that is not as it was, and how that was.
    pub(super) fn other_setting(
        &self,
        format: u32,
        settings: &[(&'static str, String)],
    ) -> Option<(&'static str, &str)> {
        let old = |name| self.0.get(name).map_or("none", String::as_str);
        if old("format") != format.to_string() {
            return Some(("format", old("format")));
        }
        settings.iter().find(|(name, value)| old(name) != value).map(|(name, _)| (*name, old(name)))
    }

    /// The record of a server with these settings. None when there is less in it.
    pub(super) fn record(&self, format: u32, settings: Vec<(&'static str, String)>) -> Option<FileRecord> {
        Some(FileRecord {
            format,
            settings,
            turn: self.get("turn")?,
            is_closed: self.get("is_closed")?,
            boot: self.get("boot")?,
            clock: ClockState {
                zero_ms: self.get("time_zero")?,
                now: self.get("current_time")?,
                unix_ms: self.get("stop_time")?,
            },
            cas: self.get("current_cas")?,
            flush: [self.get("flush_done")?, self.get("flush_pending")?, self.get("flush_floor")?],
            hash_seed: self.get("hash_seed")?,
            shards: self.get("shards")?,
            window: self.get("window")?,
            // Servers were without it once, and their files are good.
            buckets: self.get("buckets").unwrap_or(0),
        })
    }

    fn get<T: FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }
}

fn sum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> FileRecord {
        let clock = ClockState { zero_ms: -5, now: 77, unix_ms: 1_700_000_000_123 };
        let settings = settings(&StoreConfig::default());
        let (boot, flush) = ("a-b".to_owned(), [7, 8, 9]);
        let (format, turn, is_closed, cas) = (1, 3, true, u64::MAX);
        let (hash_seed, shards, window, buckets) = (4, 2, 5, 6);
        FileRecord { format, turn, is_closed, settings, boot, clock, cas, flush, hash_seed, shards, window, buckets }
    }

    #[test]
    fn what_is_written_is_read() {
        let record = record();
        let mut bytes = record.encode().into_bytes();
        bytes.resize(4096, 0);
        let fields = Fields::read(&bytes).unwrap();
        assert_eq!(fields.other_setting(1, &record.settings), None);
        assert_eq!(fields.record(1, record.settings.clone()), Some(record.clone()));
        assert_eq!(fields.other_setting(2, &record.settings), Some(("format", "1")));
        let other = settings(&StoreConfig { memory_limit: 1 << 30, ..StoreConfig::default() });
        assert_eq!(fields.other_setting(1, &other), Some(("maxbytes", "67108864")));
    }

    #[test]
    fn no_changed_bit_goes_unseen() {
        let text = record().encode().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = Fields::read(&bytes).and_then(|fields| {
                let same = fields.other_setting(1, &record().settings).is_none();
                fields.0.contains_key("sum").then_some(same)
            });
            assert!(read.is_none(), "bit {bit}: {}", String::from_utf8_lossy(&bytes));
        }
        for len in 0..text.len() - 1 {
            let read = Fields::read(&text[..len]);
            assert!(read.is_none_or(|fields| !fields.0.contains_key("sum")), "{len} bytes");
        }
    }

    #[test]
    fn memcached_has_written_another_one() {
        let fields = Fields::read(b"Tmain\nKslab_config 1.25\nKmaxbytes 67108864\n").unwrap();
        assert_eq!(fields.other_setting(1, &record().settings), Some(("format", "none")));
        assert!(fields.record(1, Vec::new()).is_none());
        assert!(Fields::read(b"").is_none() && Fields::read(b"garbage\n").is_none() && Fields::read(&[0; 9]).is_none());
    }
}
