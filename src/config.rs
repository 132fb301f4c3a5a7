//! The OPTIONS table: one source for option parsing, `--help` and the man page's check; and the typed
//! [`Config`] that everything else reads.

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
    /// Port if given.
    pub port: Option<u16>,
    /// `proto[…]:` if given.
    pub binding: Option<Binding>,
}
