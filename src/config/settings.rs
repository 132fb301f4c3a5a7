//! Every setting in one table.
//!
//! ```text
//!                                     ┌─> Config, with its defaults
//!  a row   pub field: type = default ─┤
//!          flag, sub: its options     ├─> FLAGS, SUBOPTIONS ──> the parser (`options`), `--help`, tests/man.rs
//!          stat: how it is reported   └─> STATS ──> `stats settings`
//! ```
//!
//! A row without a field belongs to a setting of the store, whose field and default stand in `store/config.rs`, or to
//! an option that sets nothing by itself. Options stand in the order of `--help`, flags before suboptions. The lines of
//! `stats settings` have another order, memcached's, so each carries its number.
//!
//! An option with an empty help text is accepted but not claimed by `--help`: test libraries read that text to
//! learn what is built in. The man page names every option; `tests/man.rs` holds it to that.
//!
//! Not here: what one value may be (`values`), how arguments are read (`options`), what values mean together
//! (`mod.rs`).

use super::exit::Exit;
use super::feeders::{AddressRange, address_range};
use super::listen::{Binding, ListenAddr, protocol};
use super::options::{Argument, OptionRow, help, license, read_list, value_missing, version};
use super::values::{
    HashAlgorithm, MANY_THREADS, PAGE, above_zero, accounting, ack_timeout, automove, automove_freeratio,
    automove_ratio, automove_weight, automove_window, backlog, chunk_max, crawler_sleep, growth_factor, hash_algorithm,
    hash_power, item_size, journal_mem, key_format, lru_factor, lru_policy, lru_share, megabytes, min_version, number,
    octal_mode, off, on, port, refresh_ahead, replicas_ack, scaled, tail_repair_time, text, thread_count, tocrawl,
    verify_mode,
};
use crate::store::StoreConfig;
use crate::tls::TlsOptions;
use Argument::{Needed, Optional, Without};
use std::time::Duration;

/// Descriptors per worker that memcached takes from `-c`.
const RESERVED_PER_WORKER: usize = 5;

/// One line of `stats settings`.
pub(super) struct StatRow {
    pub number: u8,
    name: &'static str,
    value: fn(&Config) -> String,
}

/// `place = parse` puts what `parse` makes of the argument into `config.place`; `cut 'x', place = parse` does so with the
/// number at its start; `|raw, value| …` does what it wants.
macro_rules! taking {
    (cut $letter:literal, $($place:ident).+ = $parse:expr) => {
        |raw, value| {
            raw.config.$($place).+ = ($parse)(raw.cut($letter, value))?;
            Ok(())
        }
    };
    (|$raw:pat_param, $value:pat_param| $body:expr) => {
        |$raw, $value| $body
    };
    ($($place:ident).+ = $parse:expr) => {
        |raw, value| {
            raw.config.$($place).+ = ($parse)(value)?;
            Ok(())
        }
    };
}

macro_rules! settings {
    ($(
        -
        $($(#[doc = $doc:literal])* pub $field:ident: $type:ty = $default:expr;)?
        $(flag($letter:literal, $long:literal, $flag_argument:expr, $flag_help:literal, $($flag_taking:tt)+);)*
        $(long($word:literal, $word_help:literal, $($word_taking:tt)+);)*
        $($(#[cfg($cfg:meta)])? sub($name:literal, $argument:expr, $help:literal, $($taking:tt)+);)*
        $(stat($number:literal, $stat:literal, |$config:pat_param| $value:expr);)*
    )*) => {
        /// Everything the command line decides, validated. What can change at run time is copied out of here at
        /// start: verbosity, the store's tuning and its memory limit.
        #[derive(Clone, Debug)]
        #[allow(missing_docs, reason = "the help text of its option says what a field is")]
        pub struct Config {
            $($($(#[doc = $doc])* pub $field: $type,)?)*
        }

        /// memcached's defaults. A server that a test embeds wants `tcp_port: None`, any free port.
        impl Default for Config {
            fn default() -> Config {
                Config { $($($field: $default,)?)* }
            }
        }

        /// Every option that is no suboption.
        pub const FLAGS: &[OptionRow<RawConfig>] = &[$($(OptionRow {
            letter: Some($letter),
            name: $long,
            argument: $flag_argument,
            help: $flag_help,
            apply: taking!($($flag_taking)+),
        },)*
        $(OptionRow {
            letter: None,
            name: $word,
            argument: Without,
            help: $word_help,
            apply: taking!($($word_taking)+),
        },)*)*];

        /// Every suboption of `-o`.
        pub const SUBOPTIONS: &[OptionRow<RawConfig>] = &[$($($(#[cfg($cfg)])? OptionRow {
            letter: None,
            name: $name,
            argument: $argument,
            help: $help,
            apply: taking!($($taking)+),
        },)*)*];

        pub(super) const STATS: &[StatRow] = &[$($(
            StatRow { number: $number, name: $stat, value: |$config| $value.to_string() },
        )*)*];
    };
}

settings! {
    -   /// 0 off, None any free port.
        pub tcp_port: Option<u16> = Some(11211);
        flag('p', "port", Needed("<num>"), "TCP port to listen on, 0 for none, -1 for any free one (default: 11211)",
            |raw, v| { (raw.config.tcp_port, raw.tcp_given) = (port(v)?, true); Ok(()) });
        stat(3, "tcpport", |c| c.tcp_port.map_or(-1, i32::from));
    -   /// 0 off, None any free port.
        pub udp_port: Option<u16> = Some(0);
        flag('U', "udp-port", Needed("<num>"), "UDP port to listen on, 0 for none, -1 for any free one (default: 0)",
            udp_port = port);
        stat(4, "udpport", |c| c.udp_port.map_or(-1, i32::from));
    -   pub unix_socket: Option<String> = None;
        flag('s', "unix-socket", Needed("<file>"), "UNIX socket to listen on, instead of TCP", unix_socket = text);
        stat(9, "domain_socket", |c| c.unix_socket.as_deref().unwrap_or("NULL"));
    -   pub unix_mask: u32 = 0o700;
        flag('a', "unix-mask", Needed("<mask>"), "access mode of the UNIX socket, in octal (default: 700)",
            unix_mask = octal_mode);
        stat(10, "umask", |c| format_args!("{:o}", c.unix_mask));
    -   pub shutdown_command: bool = false;
        flag('A', "enable-shutdown", Without, "enable the \"shutdown\" command", shutdown_command = on);
        stat(11, "shutdown_command", |c| yes(c.shutdown_command));
    -   /// Every `-l` as it was given, joined by commas.
        pub listen_text: Option<String> = None;
        flag('l', "listen", Needed("<addr>"), "addresses to listen on, host or host:port, comma-separated;\n\
            may be given several times (default: every address)",
            |raw, v| raw.listen(v));
        stat(5, "inter", |c| c.listen_text.as_deref().unwrap_or("NULL"));
    -   /// Each address of `-l`.
        pub listen: Vec<ListenAddr> = Vec::new();
    -   pub daemonize: bool = false;
        flag('d', "daemon", Without, "run in the background", daemonize = on);
    -   /// Raise the core file limit, and stay in the working directory under `-d`.
        pub coredumps: bool = false;
        flag('r', "enable-coredumps", Without, "raise the core file limit", coredumps = on);
    -   pub user: Option<String> = None;
        flag('u', "user", Needed("<user>"), "become this user (needed, and only used, when started as root)",
            user = text);
    -   pub store: StoreConfig = StoreConfig { fits_memory: true, ..StoreConfig::default() };
        flag('m', "memory-limit", Needed("<num>"), "memory for items, in megabytes (default: 64)",
            cut 'm', store.memory_limit = megabytes);
        stat(1, "maxbytes", |c| c.store.memory_limit);
    -   flag('M', "disable-evictions", Without, "answer an error instead of evicting when memory is full",
            store.evict = off);
        stat(8, "evictions", |c| if c.store.evict { "on" } else { "off" });
    -   pub max_conns: u32 = 1024;
        flag('c', "conn-limit", Needed("<num>"), "most connections at once (default: 1024)",
            cut 'c', max_conns = |v| above_zero(v, "Maximum connections must be greater than 0"));
        stat(2, "maxconns", |c| c.max_conns);
    -   pub lock_memory: bool = false;
        flag('k', "lock-memory", Without, "lock all memory, so that nothing is paged out", lock_memory = on);
    -   pub verbosity: u8 = 0;
        flag('v', "verbose", Optional(""), "say more on stderr; -vv: connections, text commands and replies",
            |raw, _| { raw.config.verbosity = raw.config.verbosity.saturating_add(1); Ok(()) });
        stat(6, "verbosity", |c| c.verbosity);
    -   flag('h', "help", Without, "print this help and exit", |_, _| Err(Exit::print(help(FLAGS, SUBOPTIONS))));
    -   flag('i', "license", Without, "print the license and exit", |_, _| Err(Exit::print(license())));
    -   flag('V', "version", Without, "print the version and exit", |_, _| Err(Exit::print(version())));
    -   pub pidfile: Option<String> = None;
        flag('P', "pidfile", Needed("<file>"), "write the process id to a file; removed at exit with -d only",
            pidfile = text);
    -   flag('f', "slab-growth-factor", Needed("<num>"), "growth of chunk sizes from class to class\n\
            (default: finer steps than memcached's 1.25)",
            store.growth_factor = |v| growth_factor(v).map(Some));
        stat(12, "growth_factor", |c| format_args!("{:.2}", c.store.growth_factor.unwrap_or(1.25)));
    -   flag('n', "slab-min-size", Needed("<bytes>"), "least room for key, value and flags (default: 48)",
            cut 'n', store.chunk_size = |v| above_zero(v, "Chunk size must be greater than 0").map(|n| n as usize));
        stat(13, "chunk_size", |c| c.store.chunk_size);
    -   flag('L', "enable-largepages", Without, "take all memory at start", store.preallocate = on);
    -   pub prefix_delimiter: u8 = b':';
        flag('D', "", Needed("<char>"), "character between the prefix of a key and the rest, for \"stats detail\",\n\
            which this turns on (default: \":\", and off)",
            |raw, v| raw.delimiter(v));
        stat(16, "stat_key_prefix", |c| char::from(c.prefix_delimiter));
    -   /// Whether prefixes are counted from the start: when `-D` is given.
        pub detail_enabled: bool = false;
        stat(17, "detail_enabled", |c| yes(c.detail_enabled));
    -   pub threads: usize = 4;
        flag('t', "threads", Needed("<num>"), "worker threads (default: 4)", |raw, v| raw.threads(v));
        stat(14, "num_threads", |c| c.threads);
        stat(15, "num_threads_per_udp", |c| c.threads_per_udp());
    -   pub reqs_per_event: u32 = 20;
        flag('R', "max-reqs-per-event", Needed("<num>"), "most requests of one connection before others have\n\
            their turn (default: 20)",
            cut 'R', reqs_per_event = |v| above_zero(v, "Number of requests per event must be greater than 0"));
        stat(18, "reqs_per_event", |c| c.reqs_per_event);
    -   flag('C', "disable-cas", Without, "keep no cas uniques", store.cas_enabled = off);
        stat(19, "cas_enabled", |c| yes(c.store.cas_enabled));
    -   pub backlog: u32 = 1024;
        flag('b', "listen-backlog", Needed("<num>"), "connections that may wait to be accepted (default: 1024)",
            cut 'b', backlog = backlog);
        stat(20, "tcp_backlog", |c| c.backlog);
    -   /// What clients may speak where `-l` does not say it.
        pub binding: Binding = Binding::Auto;
        flag('B', "protocol", Needed("<name>"), "protocol: auto, ascii or binary (default: auto, by the first byte)",
            |raw, v| { (raw.config.binding, raw.protocol_given) = (protocol(v)?, true); Ok(()) });
        stat(21, "binding_protocol", |c| c.binding.name());
    -   flag('I', "max-item-size", Needed("<num>"), "largest item, in bytes or with k or m\n\
            (default: 1m, least: 1k, most: 1024m)",
            store.item_size_max = item_size);
        stat(24, "item_size_max", |c| c.store.item_size_max);
    -   pub sasl: bool = false;
        flag('S', "enable-sasl", Without, "clients log in, with SASL's PLAIN over the binary protocol; passwords are in\n\
            the file that MEMCACHED_SASL_PWDB names",
            sasl = on);
        stat(22, "auth_enabled_sasl", |c| yes(c.sasl));
    -   pub flush_enabled: bool = true;
        flag('F', "disable-flush-all", Without, "disable the flush_all command", flush_enabled = off);
        stat(36, "flush_enabled", |c| yes(c.flush_enabled));
    -   pub dump_enabled: bool = true;
        flag('X', "disable-dumping", Without, "disable stats cachedump and detail, lru_crawler metadump and mgdump",
            dump_enabled = off);
        stat(37, "dump_enabled", |c| yes(c.dump_enabled));
    -   pub watch_enabled: bool = true;
        flag('W', "disable-watch", Without, "disable the watch command", watch_enabled = off);
    -   pub auth_file: Option<String> = None;
        flag('Y', "auth-file", Needed("<file>"), "clients log in over the text protocol; lines of user:password, at most 8",
            auth_file = text);
        stat(23, "auth_enabled_ascii", |c| c.auth_file.as_deref().unwrap_or("no"));
    -   flag('e', "memory-file", Needed("<file>"), "keep items in a file, which the next server goes on with, also after\n\
            a kill; best on tmpfs or DAX",
            store.memory_file = text);
        stat(66, "memory_file", |c| c.store.memory_file.as_deref().unwrap_or("(null)"));
    -   pub tls: TlsOptions = TlsOptions::default();
        flag('Z', "enable-ssl", Without, "speak TLS with clients that come over TCP: see the ssl_ options",
            tls.enabled = on);
        stat(54, "ssl_enabled", |c| yes(c.tls.enabled));
    -   flag('o', "extended", Needed("<list>"), "comma-separated list of extended options:",
            |raw, v| read_list(v, SUBOPTIONS, raw));
    -   /// Receive queues of the network card; above 0, connections of one go to one worker.
        pub napi_ids: u32 = 0;
        flag('N', "napi-ids", Needed("<num>"), "serve each receive queue of the network card (NAPI id) by one thread",
            napi_ids = |v| above_zero(v, "Maximum number of NAPI IDs must be greater than 0"));
        stat(65, "num_napi_ids", |c| c.napi_ids);
    -   /// Only to find out what would keep a server from starting.
        pub check: bool = false;
        long("check", "say what would keep a server from starting with the other options, and exit", check = on);
    -   pub maxconns_fast: bool = true;
        sub("maxconns_fast", Without, "close connections above -c at once (default)", maxconns_fast = on);
        sub("no_maxconns_fast", Without, "let connections above -c wait instead", maxconns_fast = off);
        stat(25, "maxconns_fast", |c| yes(c.maxconns_fast));
    -   sub("hashpower", Needed("<num>"), "size of the hash table at start, as a power of two: 12 to 32",
            store.hash_power = |v| hash_power(v).map(Some));
        sub("no_hashexpand", Without, "never grow the hash table", store.hash_expand = off);
        stat(26, "hashpower_init", |c| c.store.hash_power.unwrap_or(0));
    -   sub("tail_repair_time", Needed("<sec>"), "accepted and reported: no reference can leak here",
            store.tail_repair_time = tail_repair_time);
        stat(35, "tail_repair_time", |c| c.store.tail_repair_time);
    -   /// Only reported: keys are always hashed by one algorithm here.
        pub hash_algorithm: HashAlgorithm = HashAlgorithm::Murmur3;
        sub("hash_algorithm", Needed("<name>"), "jenkins, murmur3 or xxh3: accepted and reported, keys are always\n\
            hashed by xxh3",
            hash_algorithm = hash_algorithm);
        stat(38, "hash_algorithm", |c| c.hash_algorithm.name());
    -   sub("lru_crawler", Without, "look for expired items in the background (default)", store.crawler = on);
        sub("no_lru_crawler", Without, "do not", store.crawler = off);
        stat(32, "lru_crawler", |c| yes(c.store.crawler));
    -   sub("lru_crawler_sleep", Needed("<usec>"), "microseconds between slices of a crawl (default: 100)",
            store.tuning.crawler_sleep_us = crawler_sleep);
        stat(33, "lru_crawler_sleep", |c| c.store.tuning.crawler_sleep_us);
    -   sub("lru_crawler_tocrawl", Needed("<num>"), "most items to look at per LRU and crawl (default: 0, all)",
            store.tuning.crawler_tocrawl = tocrawl);
        stat(34, "lru_crawler_tocrawl", |c| c.store.tuning.crawler_tocrawl);
    -   sub("lru_maintainer", Without, "segmented LRU, kept in order in the background (default)",
            |raw, _| raw.maintainer(true));
        sub("no_lru_maintainer", Without, "one flat LRU, nothing in the background",
            |raw, _| raw.maintainer(false));
        stat(39, "lru_maintainer_thread", |c| yes(c.store.maintainer));
        stat(40, "lru_segmented", |c| yes(c.store.tuning.segmented));
    -   sub("hot_lru_pct", Needed("<num>"), "share of a class for its hot LRU, percent (default: 20)",
            store.tuning.hot_pct = |v| lru_share("hot_lru_pct", v));
        stat(41, "hot_lru_pct", |c| c.store.tuning.hot_pct);
    -   sub("warm_lru_pct", Needed("<num>"), "share of a class for its warm LRU, percent (default: 40)",
            store.tuning.warm_pct = |v| lru_share("warm_lru_pct", v));
        stat(42, "warm_lru_pct", |c| c.store.tuning.warm_pct);
    -   sub("hot_max_factor", Needed("<num>"), "items idle for longer than the age of the cold LRU times this\n\
            leave the hot one (default: 0.20)",
            store.tuning.hot_max_factor = |v| lru_factor("hot_max_factor", v));
        stat(43, "hot_max_factor", |c| format_args!("{:.2}", c.store.tuning.hot_max_factor));
    -   sub("warm_max_factor", Needed("<num>"), "the same for the warm one (default: 2.00)",
            store.tuning.warm_max_factor = |v| lru_factor("warm_max_factor", v));
        stat(44, "warm_max_factor", |c| format_args!("{:.2}", c.store.tuning.warm_max_factor));
    -   sub("temporary_ttl", Needed("<sec>"), "items with a TTL up to this are never evicted (default: off)",
            store.tuning.temporary_ttl = |v| number("temporary_ttl", v).map(Some));
        stat(45, "temp_lru", |c| yes(c.store.tuning.temporary_ttl.is_some()));
        // memcached prints 61 while it is off and was never set.
        stat(46, "temporary_ttl", |c| c.store.tuning.temporary_ttl.unwrap_or(61));
    -   /// Seconds, 0 never.
        pub idle_timeout: u32 = 0;
        sub("idle_timeout", Needed("<sec>"), "close TCP connections that are idle for this long (default: 0, never)",
            idle_timeout = |v| number("idle_timeout", v));
        stat(47, "idle_timeout", |c| c.idle_timeout);
    -   /// Bytes, 0 none.
        pub read_buf_mem_limit: u64 = 0;
        sub("read_buf_mem_limit", Needed("<MB>"), "limit for connection buffers (default: 0, 32 MB)",
            read_buf_mem_limit = |v| scaled("read_buf_mem_limit", v, 1 << 20));
        stat(50, "read_buf_mem_limit", |c| c.read_buf_mem_limit);
    -   sub("slab_chunk_max", Needed("<KB>"), "larger items are kept in pieces of this size (default: by memory)",
            |raw, v| { (raw.config.store.slab_chunk_max, raw.chunk_max_given) = (chunk_max(v)?, true); Ok(()) });
        sub("no_chunked_items", Without, "keep every item up to a page in one piece",
            |raw, _| { (raw.config.store.slab_chunk_max, raw.asks_chunks) = (PAGE, true); Ok(()) });
        stat(31, "slab_chunk_max", |c| c.store.slab_chunk_max);
    -   sub("slab_sizes", Needed("<a-b-c>"), "chunk sizes of the slab classes, ascending",
            |raw, v| { raw.slab_sizes = Some(v.to_owned()); Ok(()) });
    -   sub("slab_accounting", Needed("<name>"), "native, or memcached: slab classes and item sizes exactly as\n\
            memcached's (default: native)",
            store.accounting = accounting);
    -   sub("lru_policy", Needed("<name>"), "who goes first when memory is full: s3fifo, or memcached: as memcached\n\
            (default: s3fifo)",
            store.lru_policy = lru_policy);
    -   sub("slab_reassign", Without, "allow pages to move between slab classes (default)", store.slab_reassign = on);
        sub("no_slab_reassign", Without, "forbid it", store.slab_reassign = off);
        stat(27, "slab_reassign", |c| yes(c.store.slab_reassign));
    -   sub("slab_automove", Optional("<0|1|2>"), "page mover: off, gentle, at every eviction (default: 1)",
            store.tuning.automove = automove);
        sub("no_slab_automove", Without, "the same as slab_automove=0", store.tuning.automove = |_| Ok::<_, Exit>(0));
        stat(28, "slab_automove", |c| c.store.tuning.automove);
    -   sub("automove_weight", Needed("<name>"), "what the page mover counts: objects, bytes, or balanced: between them\n\
            (default: balanced)",
            store.automove_weight = automove_weight);
    -   sub("slab_automove_ratio", Needed("<num>"), "how much younger a class must be to be given a page (default: 0.80)",
            store.tuning.automove_ratio = automove_ratio);
        stat(29, "slab_automove_ratio", |c| format_args!("{:.2}", c.store.tuning.automove_ratio));
    -   sub("slab_automove_window", Needed("<sec>"), "seconds of history the page mover looks at (default: 10)",
            store.tuning.automove_window = automove_window);
        stat(30, "slab_automove_window", |c| c.store.tuning.automove_window);
    -   sub("slab_automove_freeratio", Needed("<num>"), "share of memory the page mover keeps free (default: 0.010)",
            store.tuning.automove_freeratio = automove_freeratio);
        stat(53, "slab_automove_freeratio", |c| format_args!("{:.3}", c.store.tuning.automove_freeratio));
    -   sub("track_sizes", Without, "keep the histogram of \"stats sizes\"", store.track_sizes = on);
        stat(51, "track_sizes", |c| yes(c.store.track_sizes));
    -   /// Whether the time of requests is measured.
        pub latency: bool = true;
        sub("no_latency", Without, "do not measure how long requests take (\"stats latency\")", latency = off);
    -   /// Whether some of the keys are looked at.
        pub hot_keys: bool = true;
        sub("no_hotkeys", Without, "do not look for the keys that are asked for most (\"stats hotkeys\")",
            hot_keys = off);
    -   /// Percent of an item's TTL, 0 off.
        pub refresh_ahead: u32 = 0;
        sub("refresh_ahead", Needed("<percent>"), "answer one get a second with a miss when a hot item is in the last so many\n\
            percent of its TTL, so that one client makes it anew: 1 to 99 (default: off)",
            refresh_ahead = refresh_ahead);
    -   /// Keys that this is for.
        pub refresh_prefix: String = String::new();
        sub("prefix", Needed("<text>"), "of refresh_ahead: only for keys that begin so (default: all)",
            refresh_prefix = |v: &str| Ok::<_, Exit>(v.to_owned()));
    -   /// Bytes.
        pub watcher_logbuf_size: usize = 256 << 10;
        sub("watcher_logbuf_size", Needed("<KB>"), "buffer of each watcher (default: 256)",
            watcher_logbuf_size = |v| scaled("watcher_logbuf_size", v, 1 << 10));
        stat(48, "watcher_logbuf_size", |c| c.watcher_logbuf_size);
    -   /// Bytes.
        pub worker_logbuf_size: usize = 64 << 10;
        sub("worker_logbuf_size", Needed("<KB>"), "buffer of each worker for what is watched (default: 64)",
            worker_logbuf_size = |v| scaled("worker_logbuf_size", v, 1 << 10));
        stat(49, "worker_logbuf_size", |c| c.worker_logbuf_size);
    -   pub control_socket: Option<String> = None;
        sub("control_socket", Needed("<file>"), "UNIX socket, for this user only, on which changes are streamed to\n\
            twincache-sidecar (default: none)",
            |raw, v| raw.control_socket(v));
    -   sub("managed", Without, "serve nobody until told over the control socket what to be: see twincached(1)",
            store.managed = on);
    -   sub("standby_reads", Without, "answer reads while managed and a standby, with what has come here by then",
            store.standby_reads = on);
    -   /// Who may feed the server, if it is not managed.
        pub standby: Vec<AddressRange> = Vec::new();
        sub("standby", Needed("<addr>"), "let twincache-sidecar of another server, at this address (10.0.0.1) or in this\n\
            network (10.0.0.0/24), keep a copy here; may be repeated (default: nobody)",
            |raw, v| { raw.config.standby.push(address_range(v)?); Ok(()) });
    -   sub("journal_mem", Needed("<MB>"), "memory for changes that are not streamed yet (default: 64)",
            store.journal_bytes = journal_mem);
    -   /// How many replicas a change waits for. The control socket changes it at run time.
        pub replicas_ack: u32 = 0;
        sub("replicas_ack", Needed("<num>"), "answer a change when this many replicas have it (default: 0, at once)",
            replicas_ack = replicas_ack);
    -   pub ack_timeout: Duration = Duration::from_millis(1000);
        sub("ack_timeout", Needed("<ms>"), "how long replicas_ack waits, then it answers an error (default: 1000)",
            ack_timeout = ack_timeout);
    -   pub ack_degrade: bool = false;
        sub("ack_degrade", Without, "no error then: answer, and wait no more until the replicas are back",
            ack_degrade = on);
    -   sub("linearizable", Without, "let reads wait until the replicas have what is read",
            store.linearizable = on);
    -   sub("modern", Without, "no effect: these are the defaults", |_, _| Ok(()));
        sub("no_modern", Without, "memcached 1.4's defaults: a flat LRU, nothing in the background",
            |raw, _| raw.no_modern());
    -   sub("inline_ascii_resp", Without, "", |_, _| Ok(()));
        sub("no_inline_ascii_resp", Without, "", |_, _| Ok(()));
        stat(52, "inline_ascii_response", |_| yes(false));
    -   sub("resp_obj_mem_limit", Optional("<MB>"), "",
            |raw, _| raw.warn("DEPRECATED: resp_obj_mem_limit no longer used. See read_buf_mem_limit,"));
    -   sub("drop_privileges", Without, "", |_, _| Ok(()));
        sub("no_drop_privileges", Without, "", |_, _| Ok(()));
    -   /// The mark of every listening socket, 0 none.
        pub sock_cookie_id: u32 = 0;
        sub("sock_cookie_id", Needed("<num>"), "mark of the listening sockets (SO_MARK), for packet filters",
            sock_cookie_id = |v| number("sock_cookie_id", v));
    -   #[cfg(feature = "debug-commands")]
        sub("relaxed_privileges", Without, "", |_, _| Ok(()));
    -   sub("ssl_chain_cert", Needed("<file>"), "certificate of the server and those that signed it, in PEM",
            tls.chain_cert = text);
        stat(55, "ssl_chain_cert", |c| c.tls.chain_cert.as_deref().unwrap_or("(null)"));
    -   sub("ssl_key", Needed("<file>"), "its private key", tls.key = text);
        stat(56, "ssl_key", |c| c.tls.key.as_deref().unwrap_or("(null)"));
    -   sub("ssl_verify_mode", Needed("<num>"), "certificates of clients: 0 none (default), 1 one that is shown must\n\
            be good, 2 each needs one, 3 the same",
            tls.verify = verify_mode);
        stat(57, "ssl_verify_mode", |c| c.tls.verify as u8);
    -   sub("ssl_keyformat", Needed("<num>"), "format of the key: 1 PEM (default), 2 ASN.1", tls.key_format = key_format);
        stat(58, "ssl_keyformat", |c| c.tls.key_format as u8);
    -   sub("ssl_ciphers", Needed("<list>"), "cipher suites of TLS 1.2, by OpenSSL's names (default: all that are safe)",
            tls.ciphers = text);
        stat(59, "ssl_ciphers", |c| c.tls.ciphers.as_deref().unwrap_or("NULL"));
    -   sub("ssl_ca_cert", Needed("<file>"), "certificates that clients' are signed with, in PEM", tls.ca_cert = text);
        stat(60, "ssl_ca_cert", |c| c.tls.ca_cert.as_deref().unwrap_or("NULL"));
    -   sub("ssl_wbuf_size", Needed("<KB>"), "accepted and reported: 64 KB are encrypted at a time",
            tls.write_buffer = |v| scaled("ssl_wbuf_size", v, 1 << 10));
        stat(61, "ssl_wbuf_size", |c| c.tls.write_buffer);
    -   sub("ssl_session_cache", Without, "keep sessions for clients that take no tickets", tls.session_cache = on);
        stat(62, "ssl_session_cache", |c| yes(c.tls.session_cache));
    -   sub("ssl_kernel_tls", Without, "accepted: the kernel is left out of it",
            |raw, _| raw.warn("ssl_kernel_tls does nothing: TLS is spoken in the server itself"));
        stat(63, "ssl_kernel_tls", |_| yes(false));
    -   sub("ssl_min_version", Needed("<num>"), "2 TLS 1.2 (default), 3 TLS 1.3; 0 and 1 are older and mean 1.2",
            |raw, v| raw.min_version(v));
        stat(64, "ssl_min_version", |c| if c.tls.only_13 { "tlsv1.3" } else { "tlsv1.2" });
    -   /// How long a graceful stop waits for clients that are slow to read, and for replicas. No option: for tests.
        pub stop_grace: Duration = Duration::from_secs(1);
    -   /// What was accepted but deserves a line on stderr.
        pub warnings: Vec<String> = Vec::new();
    -   stat(67, "client_flags_size", |_| size_of::<u32>());
}

impl Config {
    /// Names and values of `stats settings`, in memcached's order. Its number 7, `oldest`, is no setting.
    pub fn stats(&self) -> Vec<(&'static str, String)> {
        let mut rows: Vec<&StatRow> = STATS.iter().collect();
        rows.sort_unstable_by_key(|row| row.number);
        rows.into_iter().map(|row| (row.name, (row.value)(self))).collect()
    }

    /// Whether clients must log in.
    pub fn wants_login(&self) -> bool {
        self.sasl || self.auth_file.is_some()
    }

    /// Whether `-c` is too low for so many listening sockets.
    // COMPAT(maxconns_too_low): memcached counts its listeners and what its threads keep open as connections, and does not
    // start when there is room for no others.
    pub fn leaves_no_room(&self, listeners: usize) -> bool {
        listeners + RESERVED_PER_WORKER * self.threads + 1 >= self.max_conns as usize
    }

    /// How many threads serve each UDP address: one as soon as `-l` holds several of them.
    pub fn threads_per_udp(&self) -> usize {
        let several = self.listen_text.as_ref().is_some_and(|text| text.contains(','));
        if several { 1 } else { self.threads }
    }
}

/// A command line half read: the values so far, and what is needed to check them against each other.
#[derive(Debug, Default)]
pub struct RawConfig {
    pub(super) config: Config,
    pub(super) chunk_max_given: bool,
    /// Another largest chunk than the usual one was asked for.
    pub(super) asks_chunks: bool,
    pub(super) protocol_given: bool,
    pub(super) tcp_given: bool,
    pub(super) slab_sizes: Option<String>,
}

/// What options do that is more than to set one field.
impl RawConfig {
    fn warn(&mut self, line: &str) -> Result<(), Exit> {
        self.config.warnings.push(line.into());
        Ok(())
    }

    /// The number at the start of an option's argument.
    // COMPAT(atoi): memcached reads these with C's `atoi`, so units behind a number do nothing. Start-ups have them.
    fn cut<'t>(&mut self, letter: char, text: &'t str) -> &'t str {
        let number = text.trim_ascii_start();
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = number.split_at(digits);
        if number.is_empty() || rest.is_empty() {
            return text;
        }
        let line =
            format!("-{letter} {text} is read as -{letter} {number}, as memcached reads it: \"{rest}\" does nothing");
        self.config.warnings.push(line);
        number
    }

    fn listen(&mut self, text: &str) -> Result<(), Exit> {
        let joined = self.config.listen_text.take().map(|before| before + "," + text);
        self.config.listen_text = Some(joined.unwrap_or_else(|| text.to_owned()));
        Ok(())
    }

    /// COMPAT(delimiter_of_one_byte): only the first byte counts.
    fn delimiter(&mut self, text: &str) -> Result<(), Exit> {
        let first = text.bytes().next().ok_or_else(|| Exit::refuse(1, "No delimiter specified"))?;
        (self.config.prefix_delimiter, self.config.detail_enabled) = (first, true);
        Ok(())
    }

    fn threads(&mut self, text: &str) -> Result<(), Exit> {
        let threads = thread_count(self.cut('t', text))?;
        (self.config.threads, self.config.store.threads) = (threads, threads);
        if threads <= MANY_THREADS {
            return Ok(());
        }
        self.warn(
            "WARNING: Setting a high number of worker threads is not recommended.\n \
             Set this value to the number of cores in your machine or less.",
        )
    }

    fn maintainer(&mut self, on: bool) -> Result<(), Exit> {
        (self.config.store.maintainer, self.config.store.tuning.segmented) = (on, on);
        Ok(())
    }

    fn control_socket(&mut self, path: &str) -> Result<(), Exit> {
        if path.is_empty() {
            return Err(value_missing("control_socket"));
        }
        self.config.control_socket = Some(path.to_owned());
        Ok(())
    }

    /// rustls speaks nothing that is older than 1.2.
    fn min_version(&mut self, text: &str) -> Result<(), Exit> {
        let version = min_version(text)?;
        self.config.tls.only_13 = version == 3;
        if version < 2 { self.warn("ssl_min_version: TLS 1.2 is the oldest that is spoken here") } else { Ok(()) }
    }

    fn no_modern(&mut self) -> Result<(), Exit> {
        if !self.chunk_max_given {
            self.config.store.slab_chunk_max = PAGE;
            self.asks_chunks = true;
        }
        let config = &mut self.config;
        config.store.slab_reassign = false;
        config.store.tuning.automove = 0;
        config.maxconns_fast = false;
        config.hash_algorithm = HashAlgorithm::Jenkins;
        config.store.crawler = false;
        self.maintainer(false)
    }
}

fn yes(on: bool) -> &'static str {
    if on { "yes" } else { "no" }
}
