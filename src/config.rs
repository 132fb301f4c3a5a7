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
    // Start-up and process options, and values kept only for `stats settings`, follow here.
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
