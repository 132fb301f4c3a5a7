//! The command line as a typed [`Config`]: defaults, the checks of values against each other, `-l` addresses.
//!
//! ```text
//! arguments ── options::apply_all ──> Draft ── finish ──> Config      or an Exit: text, exit code
//! ```
//!
//! Parsing touches neither files, nor sockets, nor the environment. Messages and exit codes are memcached's
//! wherever it has one. Numbers are taken strictly: what C's `atoi` would cut short is refused.
//!
//! Not here: the single options ([`options`]), what is done with them at start (`main`).

pub mod options;

use options::PAGE;
use std::ffi::OsString;
use std::time::Duration;

/// Which protocols a listening socket speaks (`-B`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// By the first byte of each connection.
    #[default]
    Auto,
    /// Text and meta only.
    Ascii,
    /// Binary only.
    Binary,
}

/// Everything the command line decides, validated. What can change at run time is copied out of here at
/// start: verbosity, the store's tuning and its memory limit.
#[derive(Clone, Debug)]
pub struct Config {
    /// `-p`: 0 off, None any free port.
    pub tcp_port: Option<u16>,
    /// `-l`, each already split: (host or `*`, port if given, protocol if given).
    pub listen: Vec<ListenAddr>,
    /// `-s`.
    pub unix_socket: Option<String>,
    /// `-a`.
    pub unix_mask: u32,
    /// `-b`.
    pub backlog: u32,
    /// `-c`.
    pub max_conns: u32,
    /// `-o maxconns_fast`.
    pub maxconns_fast: bool,
    /// `-t`.
    pub threads: usize,
    /// `-R`.
    pub reqs_per_event: u32,
    /// `-B`.
    pub binding: Binding,
    /// `-o idle_timeout`, seconds, 0 never.
    pub idle_timeout: u32,
    /// `-v` count.
    pub verbosity: u8,
    /// `-A`.
    pub shutdown_command: bool,
    /// `-F` turns it off.
    pub flush_enabled: bool,
    /// `-X` turns it off.
    pub dump_enabled: bool,
    /// `-W` turns it off.
    pub watch_enabled: bool,
    /// `-D`.
    pub prefix_delimiter: u8,
    /// `-D` given: prefixes are counted from the start.
    pub detail_enabled: bool,
    /// `-o watcher_logbuf_size`, bytes.
    pub watcher_logbuf_size: usize,
    /// `-o worker_logbuf_size`, bytes.
    pub worker_logbuf_size: usize,
    /// `-o read_buf_mem_limit`, bytes, 0 none.
    pub read_buf_mem_limit: u64,
    /// `-o control_socket`.
    pub control_socket: Option<String>,
    /// `-o replicas_ack`, 0 none. The control socket changes it at run time.
    pub replicas_ack: u32,
    /// `-o ack_timeout`.
    pub ack_timeout: Duration,
    /// `-o ack_degrade`.
    pub ack_degrade: bool,
    /// What the store is built with.
    pub store: crate::store::StoreConfig,
    /// `-d`: run in the background.
    pub daemonize: bool,
    /// `-u`: the user to become when started as root.
    pub user: Option<String>,
    /// `-P`.
    pub pidfile: Option<String>,
    /// `-k`: lock all memory, present and future.
    pub lock_memory: bool,
    /// `-r`: raise the core file limit, and stay in the working directory under `-d`.
    pub coredumps: bool,
    /// `-o sock_cookie_id`: the mark of every listening socket, 0 none.
    pub sock_cookie_id: u32,
    /// `-o hash_algorithm`, only reported: keys are always hashed by one algorithm here.
    pub hash_algorithm: HashAlgorithm,
    /// Every `-l` as it was given, joined by commas: `inter` of `stats settings`.
    pub listen_text: Option<String>,
    /// What was accepted but deserves a line on stderr.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads a command line, without the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Config, Exit> {
        let args: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
        let args = args.map_err(|arg| Exit::usage(format!("argument {arg:?} is not UTF-8")))?;
        let mut draft = Draft::default();
        options::apply_all(&args, &mut draft)?;
        draft.finish()
    }

    /// `growth_factor` of `stats settings`.
    pub fn growth_factor(&self) -> f64 {
        self.store.growth_factor.unwrap_or(1.25)
    }

    /// `num_threads_per_udp` of `stats settings`: one as soon as `-l` holds several addresses.
    pub fn threads_per_udp(&self) -> usize {
        let several = self.listen_text.as_ref().is_some_and(|text| text.contains(','));
        if several { 1 } else { self.threads }
    }
}

/// memcached's defaults. A server that a test embeds wants `tcp_port: None`, any free port.
impl Default for Config {
    fn default() -> Config {
        Config {
            tcp_port: Some(11211),
            listen: Vec::new(),
            unix_socket: None,
            unix_mask: 0o700,
            backlog: 1024,
            max_conns: 1024,
            maxconns_fast: true,
            threads: 4,
            reqs_per_event: 20,
            binding: Binding::Auto,
            idle_timeout: 0,
            verbosity: 0,
            shutdown_command: false,
            flush_enabled: true,
            dump_enabled: true,
            watch_enabled: true,
            prefix_delimiter: b':',
            detail_enabled: false,
            watcher_logbuf_size: 256 << 10,
            worker_logbuf_size: 64 << 10,
            read_buf_mem_limit: 0,
            control_socket: None,
            replicas_ack: 0,
            ack_timeout: Duration::from_millis(1000),
            ack_degrade: false,
            store: crate::store::StoreConfig::default(),
            daemonize: false,
            user: None,
            pidfile: None,
            lock_memory: false,
            coredumps: false,
            sock_cookie_id: 0,
            hash_algorithm: HashAlgorithm::default(),
            listen_text: None,
            warnings: Vec::new(),
        }
    }
}

/// `-o hash_algorithm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// memcached's default.
    #[default]
    Murmur3,
    /// Bob Jenkins' one.
    Jenkins,
    /// What really hashes here.
    Xxh3,
}

impl HashAlgorithm {
    /// As `stats settings` prints it.
    pub fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Murmur3 => "murmur3",
            HashAlgorithm::Jenkins => "jenkins",
            HashAlgorithm::Xxh3 => "xxh3",
        }
    }
}

/// The log level that goes with a verbosity: errors and warnings always, then one more level per `-v`.
pub fn log_level(verbosity: u8) -> log::LevelFilter {
    match verbosity {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    }
}

/// One `-l` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// Host name, IPv4 or IPv6 address; `*` is any.
    pub host: String,
    /// Port if given; 0 is any free one.
    pub port: Option<u16>,
    /// `proto[…]:` if given.
    pub binding: Option<Binding>,
}

impl ListenAddr {
    /// Reads one address: `[proto[ascii|binary|negotiating]:][tag[name]:|tag_name_:]host[:port]`. Tags are for
    /// memcached's proxy only and are dropped. The error is one line.
    pub fn parse(text: &str) -> Result<ListenAddr, String> {
        let rest = without_tls(text)?;
        let (binding, rest) = split_binding(rest)?;
        let (host, port) = split_port(without_tag(rest)?)?;
        if host.is_empty() {
            return Err(format!("No host in \"{text}\""));
        }
        let port = match port {
            Some(port) => Some(options::whole(port).ok_or_else(|| format!("Invalid port number: \"{port}\""))?),
            None => None,
        };
        Ok(ListenAddr { host: host.to_owned(), port, binding })
    }
}

/// Refuses the prefixes that say how TLS is used: there is none.
fn without_tls(text: &str) -> Result<&str, String> {
    for word in ["notls", "btls", "mtls"] {
        if text.strip_prefix(word).is_some_and(|rest| rest.starts_with(':')) {
            return Err(format!("'{word}' option is valid only when SSL is enabled"));
        }
    }
    Ok(text)
}

/// `proto[word]:`; any beginning of a word will do.
fn split_binding(text: &str) -> Result<(Option<Binding>, &str), String> {
    let Some(inner) = text.strip_prefix("proto[") else { return Ok((None, text)) };
    let (word, rest) = inner.split_once("]:").ok_or_else(|| format!("Invalid protocol spec: \"{text}\""))?;
    let binding = match word {
        "" => return Err(format!("Invalid protocol spec: \"{text}\"")),
        _ if "ascii".starts_with(word) => Binding::Ascii,
        _ if "binary".starts_with(word) => Binding::Binary,
        _ if "negotiating".starts_with(word) => Binding::Auto,
        _ if "proxy".starts_with(word) => return Err(format!("Server not built with proxy: \"proto[{word}\"")),
        _ => return Err(format!("Invalid protocol spec: \"proto[{word}\"")),
    };
    Ok((Some(binding), rest))
}

/// The longest tag that memcached takes.
const TAG_MAX: usize = 8;

fn without_tag(text: &str) -> Result<&str, String> {
    let (tag, rest) = if let Some(inner) = text.strip_prefix("tag[") {
        inner.split_once("]:").ok_or_else(|| format!("Invalid tag in socket config: \"{text}\""))?
    } else if let Some(inner) = text.strip_prefix("tag_") {
        inner.split_once("_:").ok_or_else(|| format!("Invalid tag in socket config: \"{text}\""))?
    } else {
        return Ok(text);
    };
    if (1..=TAG_MAX).contains(&tag.len()) {
        return Ok(rest);
    }
    Err(format!("Listener tags must be between 1 and {TAG_MAX} characters: \"{tag}\""))
}

/// `[v6]`, `[v6]:port`, bare v6 (more than one colon, so without a port), `host`, `host:port`.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let invalid = || format!("Invalid IPV6 address: \"{text}\"");
        let (host, rest) = inner.split_once(']').ok_or_else(invalid)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(invalid()),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Ok((host, Some(port))),
        _ => Ok((text, None)),
    }
}

/// Why there is no [`Config`]: the process ends with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: i32,
    /// What goes to stdout: `--help` and the like.
    pub stdout: String,
    /// What goes to stderr, ending in a line feed unless empty.
    pub stderr: String,
}

impl Exit {
    /// Bad usage; sysexits' EX_USAGE.
    pub const USAGE: i32 = 64;
    /// No such user; sysexits' EX_NOUSER.
    pub const NO_USER: i32 = 67;
    /// The operating system said no; sysexits' EX_OSERR.
    pub const OS_ERROR: i32 = 71;

    /// An exit with a message.
    pub fn refuse(code: i32, message: impl Into<String>) -> Exit {
        Exit { code, stdout: String::new(), stderr: message.into() + "\n" }
    }

    /// An exit for bad usage.
    pub fn usage(message: impl Into<String>) -> Exit {
        Exit::refuse(Exit::USAGE, message)
    }

    /// A good exit that prints something.
    pub fn print(text: String) -> Exit {
        Exit { code: 0, stdout: text, stderr: String::new() }
    }
}

/// A command line half read: the values so far, and what [`Draft::finish`] needs to know besides.
#[derive(Default)]
struct Draft {
    config: Config,
    chunk_max_given: bool,
    protocol_given: bool,
    sasl: bool,
    napi_ids: u32,
    slab_sizes: Option<String>,
}

/// The smallest `-I`.
const ITEM_SIZE_LEAST: usize = 1 << 10;

/// The largest `-I`.
const ITEM_SIZE_MOST: usize = 1 << 30;

/// Chunk sizes are multiples of this.
const CHUNK_ALIGN: usize = 8;

/// The most classes `slab_sizes` may name: class numbers are below 64, 0 is the page pool, the last is added.
const SLAB_SIZES_MAX: usize = 62;

impl Draft {
    /// COMPAT(stray_arguments): memcached takes no notice of arguments that are no options, so they may not stop us.
    fn stray<'a>(&mut self, args: impl Iterator<Item = &'a str>) {
        self.config.warnings.extend(args.map(|arg| format!("ignoring argument \"{arg}\": it is no option")));
    }

    /// `-l`, once more.
    fn listen(&mut self, text: &str) {
        let joined = self.config.listen_text.take().map(|before| before + "," + text);
        self.config.listen_text = Some(joined.unwrap_or_else(|| text.to_owned()));
    }

    /// Checks the values against each other, in memcached's order.
    fn finish(mut self) -> Result<Config, Exit> {
        self.check_napi_ids()?;
        self.check_item_size()?;
        self.check_chunk_max()?;
        self.read_slab_sizes()?;
        self.check_lru()?;
        self.check_sasl()?;
        self.check_replication()?;
        self.read_listen()?;
        Ok(self.config)
    }

    fn check_replication(&mut self) -> Result<(), Exit> {
        let config = &self.config;
        if config.replicas_ack > 0 && config.control_socket.is_none() {
            return Err(Exit::usage("replicas_ack needs control_socket: nobody could acknowledge anything"));
        }
        if config.control_socket.is_some() && config.control_socket == config.unix_socket {
            return Err(Exit::usage("control_socket and -s cannot be the same socket"));
        }
        let has_more = config.ack_degrade || config.ack_timeout != Config::default().ack_timeout;
        if config.replicas_ack == 0 && has_more {
            let line =
                "ack_timeout and ack_degrade do nothing until replicas_ack is set, here or on the control socket";
            self.config.warnings.push(line.into());
        }
        Ok(())
    }

    fn check_napi_ids(&self) -> Result<(), Exit> {
        let (ids, threads) = (self.napi_ids, self.config.threads);
        if ids as usize > threads {
            return Err(Exit::usage(format!(
                "Number of napi_ids({ids}) cannot be greater than number of threads({threads})"
            )));
        }
        if ids > 0 {
            return Err(Exit::usage("Choosing workers by NAPI id (-N) is not built in yet"));
        }
        Ok(())
    }

    fn check_item_size(&self) -> Result<(), Exit> {
        let (size, memory) = (self.config.store.item_size_max, self.config.store.memory_limit);
        if size < ITEM_SIZE_LEAST {
            return Err(Exit::usage("Item max size cannot be less than 1024 bytes."));
        }
        if size as u64 > memory / 2 {
            return Err(Exit::usage("Cannot set item size limit higher than 1/2 of memory max."));
        }
        if size > ITEM_SIZE_MOST {
            return Err(Exit::usage("Cannot set item size limit higher than a gigabyte."));
        }
        Ok(())
    }

    fn check_chunk_max(&mut self) -> Result<(), Exit> {
        let store = &mut self.config.store;
        if store.item_size_max > PAGE && !self.chunk_max_given {
            store.slab_chunk_max = PAGE / 2;
        }
        let (chunk, item) = (store.slab_chunk_max, store.item_size_max);
        if store.chunk_size > chunk {
            return Err(Exit::usage(format!(
                "-n (chunk_size: {}) cannot be larger than slab_chunk_max (bytes: {chunk})",
                store.chunk_size
            )));
        }
        if chunk > item {
            return Err(Exit::usage(format!(
                "slab_chunk_max (bytes: {chunk}) cannot be larger than -I (item_size_max {item})"
            )));
        }
        if !item.is_multiple_of(chunk) {
            return Err(Exit::usage(format!(
                "-I (item_size_max: {item}) must be evenly divisible by slab_chunk_max (bytes: {chunk})"
            )));
        }
        if !PAGE.is_multiple_of(chunk) {
            return Err(Exit::usage(format!(
                "slab_chunk_max (bytes: {chunk}) must divide evenly into {PAGE} (slab_page_size)"
            )));
        }
        Ok(())
    }

    fn read_slab_sizes(&mut self) -> Result<(), Exit> {
        let Some(text) = &self.slab_sizes else { return Ok(()) };
        let store = &self.config.store;
        let mut sizes: Vec<usize> = Vec::new();
        for word in text.split('-') {
            let size = options::whole::<usize>(word)
                .filter(|size| (store.chunk_size..=store.slab_chunk_max).contains(size))
                .ok_or_else(|| Exit::usage(format!("slab size {word} is out of valid range")))?;
            check_next_size(sizes.last().copied(), size)?;
            sizes.push(size);
        }
        if sizes.len() > SLAB_SIZES_MAX {
            return Err(Exit::usage("too many slab classes specified"));
        }
        self.config.store.slab_sizes = sizes;
        Ok(())
    }

    fn check_lru(&self) -> Result<(), Exit> {
        let tuning = &self.config.store.tuning;
        if tuning.hot_pct + tuning.warm_pct > 80 {
            return Err(Exit::usage("hot_lru_pct + warm_lru_pct cannot be more than 80% combined"));
        }
        if tuning.temporary_ttl.is_some() && !self.config.store.maintainer {
            return Err(Exit::usage("temporary_ttl requires lru_maintainer to be enabled"));
        }
        Ok(())
    }

    fn check_sasl(&self) -> Result<(), Exit> {
        if !self.sasl {
            return Ok(());
        }
        if self.protocol_given && self.config.binding != Binding::Binary {
            return Err(Exit::usage("ERROR: You cannot allow the ASCII protocol while using SASL."));
        }
        Err(Exit::usage("SASL authentication (-S) is not built in yet"))
    }

    fn read_listen(&mut self) -> Result<(), Exit> {
        let Some(text) = &self.config.listen_text else { return Ok(()) };
        for address in text.split([',', ';']).filter(|address| !address.is_empty()) {
            let address = ListenAddr::parse(address).map_err(|line| {
                Exit::refuse(Exit::OS_ERROR, format!("{line}\nfailed to listen on one of interface(s) {text}"))
            })?;
            self.config.listen.push(address);
        }
        if self.config.listen.is_empty() {
            return Err(Exit::usage("-l needs an address"));
        }
        Ok(())
    }
}

fn check_next_size(last: Option<usize>, size: usize) -> Result<(), Exit> {
    let Some(last) = last else { return Ok(()) };
    if size <= last {
        return Err(Exit::usage(format!("slab size {size} cannot be lower than or equal to a previous class size")));
    }
    if size <= last + CHUNK_ALIGN {
        return Err(Exit::usage(format!(
            "slab size {size} must be at least {CHUNK_ALIGN} bytes larger than previous class"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Accounting;

    /// Parses words separated by blanks.
    fn parse(line: &str) -> Result<Config, Exit> {
        Config::parse(line.split_whitespace().map(OsString::from))
    }

    fn good(line: &str) -> Config {
        parse(line).unwrap_or_else(|exit| panic!("{line}: {exit:?}"))
    }

    fn refused(line: &str) -> (i32, String) {
        let exit = parse(line).expect_err(line);
        (exit.code, exit.stderr)
    }

    fn assert_refused(cases: &[(&str, i32, &str)]) {
        for (line, code, message) in cases {
            assert_eq!(refused(line), (*code, format!("{message}\n")), "{line}");
        }
    }

    #[test]
    fn nothing_given_is_the_default() {
        assert_eq!(format!("{:?}", good("")), format!("{:?}", Config::default()));
    }

    #[test]
    fn letters_bundle_and_take_arguments() {
        let config = good("-vvA -p7 -s /a/b -Mv -t 2 --");
        assert_eq!((config.verbosity, config.shutdown_command, config.tcp_port), (3, true, Some(7)));
        assert_eq!((config.unix_socket.as_deref(), config.threads, config.store.threads), (Some("/a/b"), 2, 2));
        assert!(!config.store.evict);
        assert_eq!(good("-vp 8").tcp_port, Some(8));
        assert_eq!(good("-p -1").tcp_port, None);
        assert_eq!(good("-p 1 -p 2").tcp_port, Some(2));
    }

    #[test]
    fn long_names_may_be_cut_short() {
        assert_eq!(good("--port=7").tcp_port, Some(7));
        assert_eq!(good("--por 7").tcp_port, Some(7));
        assert_eq!(good("--user --daemon").user.as_deref(), Some("--daemon"));
        assert_eq!(good("--verbose=3 --verb").verbosity, 2);
        assert_eq!(good("--listen ::1").listen.len(), 1);
        let ambiguous = "twincached: option '--list' is ambiguous; possibilities: '--listen' '--listen-backlog'\n\
                         Illegal argument \"?\"";
        assert_refused(&[
            ("--list ::1", 1, ambiguous),
            ("--nosuch", 1, "twincached: unrecognized option '--nosuch'\nIllegal argument \"?\""),
            ("--daemon=1", 1, "twincached: option '--daemon' doesn't allow an argument\nIllegal argument \"?\""),
            ("--port", 1, "twincached: option '--port' requires an argument\nIllegal argument \"?\""),
            ("-p", 1, "twincached: option requires an argument -- 'p'\nIllegal argument \"?\""),
            ("-q", 1, "twincached: invalid option -- 'q'\nIllegal argument \"?\""),
            ("-F=1", 1, "twincached: invalid option -- '='\nIllegal argument \"?\""),
        ]);
    }

    #[test]
    fn compat_stray_arguments() {
        assert_eq!(good("11211").warnings, ["ignoring argument \"11211\": it is no option"]);
        let config = good("-v -- -A");
        assert!(!config.shutdown_command);
        assert_eq!(config.warnings.len(), 1);
    }

    #[test]
    fn the_first_exit_wins() {
        assert_eq!(parse("-V -o bogus").expect_err("exits").code, 0);
        assert_eq!(parse("-o bogus -V").expect_err("exits").code, 1);
    }

    #[test]
    fn bad_numbers() {
        assert_refused(&[
            ("-p 70000", 64, "ERROR: Invalid port number 70000."),
            ("-p -2", 64, "ERROR: Invalid port number -2."),
            ("-p 11211x", 64, "ERROR: Invalid port number 11211x."),
            ("-m 64m", 64, "-m needs a whole number of megabytes, at most 1000000000, not \"64m\""),
            (
                "-m 99999999999999999999",
                64,
                "-m needs a whole number of megabytes, at most 1000000000, not \"99999999999999999999\"",
            ),
            ("-a 999", 64, "-a needs an access mode in octal, 0 to 777, not \"999\""),
            ("-a 1777", 64, "-a needs an access mode in octal, 0 to 777, not \"1777\""),
            ("-c 0", 1, "Maximum connections must be greater than 0"),
            ("-c 1k", 1, "Maximum connections must be greater than 0"),
            ("-t 0", 1, "Number of threads must be greater than 0"),
            ("-t 1025", 1, "Number of threads must be at most 1024"),
            ("-R 0", 1, "Number of requests per event must be greater than 0"),
            ("-b x", 64, "-b needs a whole number, not \"x\""),
            ("-f 1", 1, "Factor must be greater than 1"),
            ("-f nan", 1, "Factor must be greater than 1"),
            ("-f inf", 1, "Factor must be greater than 1"),
            ("-n 0", 1, "Chunk size must be greater than 0"),
            ("-n 524289", 64, "-n (chunk_size: 524289) cannot be larger than slab_chunk_max (bytes: 524288)"),
            ("-B x", 64, "Invalid value for binding protocol: x\n -- should be one of auto, binary, or ascii"),
            ("-I 1x", 64, "-I needs a number of bytes, or one with k or m, not \"1x\""),
            ("-I k", 64, "-I needs a number of bytes, or one with k or m, not \"k\""),
        ]);
        assert_eq!(Config::parse(["-D", ""].map(OsString::from)).expect_err("-D").stderr, "No delimiter specified\n");
    }

    #[test]
    fn many_threads_are_warned_of() {
        assert!(good("-t 64").warnings.is_empty());
        assert_eq!(good("-t 65").warnings.len(), 1);
    }

    #[test]
    fn the_item_size_fits_memory_and_chunks() {
        assert_eq!(good("-I 512k").store.item_size_max, 512 << 10);
        assert_eq!(good("-I 2M -o no_chunked_items").store.slab_chunk_max, 512 << 10);
        assert_eq!(good("-I 1024m -m 2048").store.item_size_max, 1 << 30);
        assert_eq!(good("-I 128k -o slab_chunk_max=16").store.slab_chunk_max, 16 << 10);
        assert_refused(&[
            ("-m 0", 64, "Cannot set item size limit higher than 1/2 of memory max."),
            ("-m 1", 64, "Cannot set item size limit higher than 1/2 of memory max."),
            ("-I 600m", 64, "Cannot set item size limit higher than 1/2 of memory max."),
            ("-I 1025m -m 4000", 64, "Cannot set item size limit higher than a gigabyte."),
            ("-I 1023", 64, "Item max size cannot be less than 1024 bytes."),
            ("-I 1500k", 64, "-I (item_size_max: 1536000) must be evenly divisible by slab_chunk_max (bytes: 524288)"),
            ("-I 128k", 64, "slab_chunk_max (bytes: 524288) cannot be larger than -I (item_size_max 131072)"),
            (
                "-o no_modern -I 512k",
                64,
                "slab_chunk_max (bytes: 1048576) cannot be larger than -I (item_size_max 524288)",
            ),
            (
                "-I 3m -o slab_chunk_max=768",
                64,
                "slab_chunk_max (bytes: 786432) must divide evenly into 1048576 (slab_page_size)",
            ),
        ]);
    }

    #[test]
    fn suboptions_are_a_list() {
        let config = good("-o modern,idle_timeout=5 -o no_lru_crawler,");
        assert_eq!((config.idle_timeout, config.store.crawler), (5, false));
        assert!(Config::parse(["-o", ""].map(OsString::from)).is_ok());
        assert_refused(&[
            ("-o bogus", 1, "Illegal suboption \"bogus\""),
            ("-o bogus=3", 1, "Illegal suboption \"bogus=3\""),
            ("-o ,modern", 1, "Illegal suboption \"\""),
            ("-o modern,,modern", 1, "Illegal suboption \"\""),
            ("-o ext_path=/a:1m", 1, "Illegal suboption \"ext_path=/a:1m\""),
            ("-o proxy_config=/a", 1, "Illegal suboption \"proxy_config=/a\""),
            ("-o hashpower", 1, "Missing numeric argument for hashpower"),
            ("-o lru_crawler_tocrawl", 1, "Missing lru_crawler_tocrawl value"),
            ("-o slab_sizes", 1, "Missing slab_sizes argument"),
            ("-o ssl_key=/a", 64, "TLS (-Z and the ssl_ options) is not built in yet"),
        ]);
    }

    #[test]
    fn suboptions_check_their_values() {
        let too_high = "Initial hashtable multiplier of 33 is too high\n\
                        Choose a value based on \"STAT hash_power_level\" from a running instance";
        assert_refused(&[
            ("-o hashpower=11", 1, "Initial hashtable multiplier of 11 is too low"),
            ("-o hashpower=33", 1, too_high),
            ("-o hashpower=x", 1, "could not parse argument to hashpower"),
            ("-o tail_repair_time=9", 1, "Cannot set tail_repair_time to less than 10 seconds"),
            ("-o hash_algorithm=md5", 1, "Unknown hash_algorithm option (jenkins, murmur3, xxh3)"),
            ("-o slab_accounting=x", 1, "Unknown slab_accounting option (native, memcached)"),
            ("-o lru_crawler_sleep=1000001", 1, "LRU crawler sleep must be between 0 and 1 second"),
            ("-o lru_crawler_sleep=-1", 1, "LRU crawler sleep must be between 0 and 1 second"),
            ("-o lru_crawler_tocrawl=x", 1, "lru_crawler_tocrawl takes a numeric 32bit value"),
            ("-o hot_lru_pct=0", 1, "hot_lru_pct must be > 1 and < 80"),
            ("-o warm_lru_pct=80", 1, "warm_lru_pct must be > 1 and < 80"),
            ("-o hot_max_factor=0", 1, "hot_max_factor must be > 0"),
            ("-o slab_automove=3", 1, "slab_automove must be between 0 and 2"),
            ("-o slab_automove_ratio=1.5", 1, "slab_automove_ratio must be > 0 and < 1"),
            ("-o slab_automove_window=2", 1, "slab_automove_window must be > 2"),
            ("-o slab_automove_window=1801", 1, "slab_automove_window must be at most 1800"),
            ("-o slab_chunk_max=0", 1, "slab_chunk_max must be 1 to 1024 kilobytes"),
            ("-o watcher_logbuf_size=99999999999999999", 1, "could not parse argument to watcher_logbuf_size"),
            ("-o control_socket", 1, "Missing control_socket argument"),
            ("-o control_socket=", 1, "Missing control_socket argument"),
            ("-o journal_mem=7", 1, "journal_mem must be 8 to 65536 megabytes"),
            ("-o journal_mem=65537", 1, "journal_mem must be 8 to 65536 megabytes"),
            ("-o journal_mem=64m", 1, "could not parse argument to journal_mem"),
            ("-o replicas_ack=6", 1, "replicas_ack must be 0 to 5"),
            ("-o replicas_ack=-1", 1, "could not parse argument to replicas_ack"),
            ("-o ack_timeout=0", 1, "ack_timeout must be 1 to 3600000 milliseconds"),
            ("-o ack_timeout=3600001", 1, "ack_timeout must be 1 to 3600000 milliseconds"),
            ("-o read_buf_mem_limit=x", 1, "could not parse argument to read_buf_mem_limit"),
        ]);
        assert_eq!(good("-o slab_automove").store.tuning.automove, 1);
        assert_eq!(good("-o slab_automove=2,no_slab_automove").store.tuning.automove, 0);
        assert_eq!(good("-o slab_accounting=memcached").store.accounting, Accounting::Memcached);
        assert_eq!(good("-o worker_logbuf_size=2").worker_logbuf_size, 2048);
        assert_eq!(good("-o resp_obj_mem_limit=2").warnings.len(), 1);
    }

    #[test]
    fn compat_automove_ratio_of_one() {
        assert_eq!(good("-o slab_automove_ratio=1").store.tuning.automove_ratio, 1.0);
    }

    #[test]
    fn compat_delimiter_of_one_byte() {
        let config = good("-D ab");
        assert_eq!((config.prefix_delimiter, config.detail_enabled), (b'a', true));
    }

    #[test]
    fn values_are_checked_against_each_other() {
        assert_refused(&[
            ("-o temporary_ttl=5,no_lru_maintainer", 64, "temporary_ttl requires lru_maintainer to be enabled"),
            ("-o hot_lru_pct=50,warm_lru_pct=40", 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
            ("-o slab_sizes=10-20", 64, "slab size 10 is out of valid range"),
            ("-o slab_sizes=100-x", 64, "slab size x is out of valid range"),
            ("-o slab_sizes=100-524289", 64, "slab size 524289 is out of valid range"),
            ("-o slab_sizes=100-100", 64, "slab size 100 cannot be lower than or equal to a previous class size"),
            ("-o slab_sizes=100-108", 64, "slab size 108 must be at least 8 bytes larger than previous class"),
        ]);
        assert_eq!(good("-o slab_sizes=100-200-1000").store.slab_sizes, [100, 200, 1000]);
        let sizes = |n: usize| (1..=n).map(|i| (i * 100).to_string()).collect::<Vec<_>>().join("-");
        assert_eq!(good(&format!("-o slab_sizes={}", sizes(62))).store.slab_sizes.len(), 62);
        assert_refused(&[(&format!("-o slab_sizes={}", sizes(63)), 64, "too many slab classes specified")]);
    }

    #[test]
    fn replication_needs_its_socket() {
        assert_refused(&[
            ("-o replicas_ack=1", 64, "replicas_ack needs control_socket: nobody could acknowledge anything"),
            ("-s /run/a -o control_socket=/run/a", 64, "control_socket and -s cannot be the same socket"),
        ]);
        for words in ["-o ack_timeout=50", "-o ack_degrade"] {
            assert_eq!(good(words).warnings.len(), 1, "{words}");
        }
        let config = good("-o control_socket=/run/a,replicas_ack=2,ack_timeout=50,ack_degrade,journal_mem=8");
        assert_eq!((config.control_socket.as_deref(), config.store.journal_bytes), (Some("/run/a"), 8 << 20));
        assert_eq!((config.replicas_ack, config.ack_timeout.as_millis(), config.ack_degrade), (2, 50, true));
        assert_eq!(good("").store.journal_bytes, 64 << 20);
    }

    #[test]
    fn no_modern_undoes_what_came_after_1_4() {
        let config = good("-o no_modern");
        assert!(!config.maxconns_fast && !config.store.slab_reassign && !config.store.maintainer);
        assert!(!config.store.crawler && !config.store.tuning.segmented);
        assert_eq!((config.store.tuning.automove, config.store.slab_chunk_max), (0, 1 << 20));
        assert_eq!(config.hash_algorithm.name(), "jenkins");
        assert!(good("-o no_modern,slab_reassign").store.slab_reassign);
        assert!(!good("-o slab_reassign,no_modern").store.slab_reassign);
    }

    #[test]
    fn what_is_not_built_in_says_so() {
        assert_refused(&[
            ("-S", 64, "SASL authentication (-S) is not built in yet"),
            ("-S -B ascii", 64, "ERROR: You cannot allow the ASCII protocol while using SASL."),
            ("-Z", 64, "TLS (-Z) is not built in yet"),
            ("-Y /a", 64, "Authentication for the text protocol (-Y) is not built in yet"),
            ("-e /a", 64, "Warm restart (-e) is not built in yet"),
            ("-U 11211", 64, "UDP (-U other than 0) is not built in yet"),
            ("-N 2", 64, "Choosing workers by NAPI id (-N) is not built in yet"),
            ("-N 99", 64, "Number of napi_ids(99) cannot be greater than number of threads(4)"),
            ("-N 0", 1, "Maximum number of NAPI IDs must be greater than 0"),
        ]);
        assert_eq!(good("-U 0").tcp_port, Some(11211));
    }

    #[test]
    fn relaxed_privileges_are_for_test_builds() {
        let built_in = cfg!(feature = "debug-commands");
        match parse("-o relaxed_privileges") {
            Ok(_) => assert!(built_in),
            Err(exit) => {
                assert!(!built_in);
                assert_eq!((exit.code, exit.stderr.as_str()), (1, "Illegal suboption \"relaxed_privileges\"\n"));
            }
        }
    }

    #[test]
    fn addresses() {
        let config = good("-l 127.0.0.1,[::1]:7;::1 -l proto[bin]:tag[a]:*:0 -l tag_b_:h:8");
        let expected = [
            ("127.0.0.1", None, None),
            ("::1", Some(7), None),
            ("::1", None, None),
            ("*", Some(0), Some(Binding::Binary)),
            ("h", Some(8), None),
        ];
        let expected = expected.map(|(host, port, binding)| ListenAddr { host: host.to_owned(), port, binding });
        assert_eq!(config.listen, expected);
        let text = "127.0.0.1,[::1]:7;::1,proto[bin]:tag[a]:*:0,tag_b_:h:8";
        assert_eq!((config.listen_text.as_deref(), config.threads_per_udp()), (Some(text), 1));
        assert_eq!(good("-l 127.0.0.1").threads_per_udp(), 4);
    }

    #[test]
    fn bad_addresses() {
        let cases = [
            ("notls:127.0.0.1", "'notls' option is valid only when SSL is enabled"),
            ("tag[toolongtag]:127.0.0.1", "Listener tags must be between 1 and 8 characters: \"toolongtag\""),
            ("tag[]:127.0.0.1", "Listener tags must be between 1 and 8 characters: \"\""),
            ("proto[proxy]:127.0.0.1", "Server not built with proxy: \"proto[proxy\""),
            ("proto[]:127.0.0.1", "Invalid protocol spec: \"proto[]:127.0.0.1\""),
            ("proto[x]:127.0.0.1", "Invalid protocol spec: \"proto[x\""),
            ("127.0.0.1:abc", "Invalid port number: \"abc\""),
            ("127.0.0.1:70000", "Invalid port number: \"70000\""),
            ("[::1", "Invalid IPV6 address: \"[::1\""),
            ("[::1]7", "Invalid IPV6 address: \"[::1]7\""),
            (":7", "No host in \":7\""),
        ];
        for (address, line) in cases {
            let (code, text) = refused(&format!("-l {address}"));
            assert_eq!((code, text), (71, format!("{line}\nfailed to listen on one of interface(s) {address}\n")));
        }
        assert_eq!(refused("-l ,").0, 64);
    }

    #[test]
    fn help_claims_only_what_is_built_in() {
        let help = parse("-h").expect_err("exits").stdout.to_lowercase();
        for word in ["sasl", "ext_path", "enable-ssl", "proxy_config", "drop_privileges", "auth-file"] {
            assert!(!help.contains(word), "{word}");
        }
        assert!(help.starts_with("memcached 1.6.45\n") && help.contains("unix-socket"));
        assert!(help.lines().all(|line| line.len() <= 110), "too wide");
    }

    #[test]
    fn version_is_one_line_that_scripts_can_cut() {
        let exit = parse("--version").expect_err("exits");
        assert_eq!((exit.code, exit.stdout.as_str()), (0, "memcached 1.6.45\n"));
        assert!(parse("-i").expect_err("exits").stdout.contains("MIT License"));
    }

    /// xorshift64*.
    fn next(state: &mut u64, below: usize) -> usize {
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    #[test]
    fn no_words_make_it_panic() {
        let given = std::env::var("TWINCACHE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64));
        println!("TWINCACHE_SEED={seed}");
        let names = options::FLAGS.iter().map(|opt| format!("--{}", opt.name));
        let letters = options::FLAGS.iter().filter_map(|opt| opt.letter).map(|letter| format!("-{letter}"));
        let extended = options::SUBOPTIONS.iter().map(|opt| format!("{}=", opt.name));
        let values = [
            "",
            "0",
            "-1",
            "1",
            "9",
            "64",
            "1024k",
            "18446744073709551616",
            "-9223372036854775808",
            "1e400",
            "nan",
            "é",
            "=",
            ",",
            "-",
            "--",
            ":",
            "[",
            "]:",
            "proto[a]:",
            "tag[é]:",
            "100-200",
            "k",
            "\0",
        ];
        let words: Vec<String> =
            names.chain(letters).chain(extended).chain(values.map(str::to_owned)).chain(["-o".to_owned()]).collect();
        let mut state = seed | 1;
        let mut good = 0;
        for _ in 0..20_000 {
            let args: Vec<OsString> = (0..next(&mut state, 5))
                .map(|_| (0..1 + next(&mut state, 3)).map(|_| words[next(&mut state, words.len())].as_str()).collect())
                .map(|word: String| word.into())
                .collect();
            match Config::parse(args) {
                Ok(_) => good += 1,
                Err(exit) => assert!(exit.code == 0 || exit.stderr.ends_with('\n')),
            }
        }
        assert!(good > 100, "hardly any good line among them: {good}");
    }
}
