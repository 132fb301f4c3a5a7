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
#[cfg(test)]
mod tests;

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

impl Binding {
    /// As `stats settings` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Auto => "auto-negotiate",
            Binding::Ascii => "ascii",
            Binding::Binary => "binary",
        }
    }
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
    /// How long a graceful stop waits for clients that are slow to read, and for replicas. No option: for tests.
    pub stop_grace: Duration,
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
            stop_grace: Duration::from_secs(1),
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
