//! The command line as a typed [`Config`].
//!
//! ```text
//! words ── options ──> rows of settings ── values ──> RawConfig ── finish ──> Config    or an Exit: text, exit code
//! ```
//!
//! Parsing touches neither files, nor sockets, nor the environment. Messages and exit codes are memcached's
//! wherever it has one. Here values are checked against each other.
//!
//! Not here: the single options (`settings`), what is done with them at start (`main`).

mod exit;
mod feeders;
mod listen;
pub mod options;
pub mod settings;
#[cfg(test)]
mod tests;
mod values;

pub use exit::Exit;
pub use feeders::AddressRange;
pub use listen::{Binding, ListenAddr, ListenTls};
pub use settings::Config;
pub use values::{HashAlgorithm, REPLICAS_MAX};

use crate::store::StoreConfig;
use crate::tls::{TlsOptions, VerifyMode};
use settings::{FLAGS, RawConfig};
use std::ffi::OsString;
use values::PAGE;

impl Config {
    /// Reads a command line, without the program's name.
    pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Config, Exit> {
        let args: Result<Vec<String>, OsString> = args.into_iter().map(OsString::into_string).collect();
        let args = args.map_err(|arg| Exit::usage(format!("argument {arg:?} is not UTF-8")))?;
        let mut raw = RawConfig::default();
        for stray in options::read(&args, FLAGS, &mut raw)? {
            // COMPAT(stray_arguments): memcached takes no notice of them, so they may not stop us.
            raw.config.warnings.push(format!("ignoring argument \"{stray}\": it is no option"));
        }
        raw.finish()
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

/// The smallest `-I`.
const ITEM_SIZE_LEAST: usize = 1 << 10;

/// The largest `-I`.
const ITEM_SIZE_MOST: usize = 1 << 30;

/// Chunk sizes are multiples of this.
const CHUNK_ALIGN: usize = 8;

/// The most classes `slab_sizes` may name, as memcached: its class numbers are below 64, 0 is the page pool, the last is added.
const SLAB_SIZES_MAX: usize = 62;

impl RawConfig {
    /// Checks the values against each other, in memcached's order.
    fn finish(mut self) -> Result<Config, Exit> {
        self.check_napi_ids()?;
        self.check_item_size()?;
        self.check_chunk_max()?;
        self.read_slab_sizes()?;
        self.fit_memory();
        self.check_lru()?;
        self.check_refresh()?;
        self.check_replication()?;
        self.check_tls()?;
        self.read_listen()?;
        self.check_login()?;
        self.check_udp()?;
        // The file takes its memory as it is needed, and has items in it.
        self.config.store.preallocate &= self.config.store.memory_file.is_none();
        Ok(self.config)
    }

    fn check_replication(&mut self) -> Result<(), Exit> {
        let config = &self.config;
        if config.replicas_ack > 0 && config.control_socket.is_none() {
            return Err(Exit::usage("replicas_ack needs control_socket: nobody could acknowledge anything"));
        }
        if config.store.managed && config.control_socket.is_none() {
            return Err(Exit::usage("managed needs control_socket: nobody could tell the server its role"));
        }
        if config.store.linearizable && config.replicas_ack == 0 {
            return Err(Exit::usage(
                "linearizable needs replicas_ack: reads wait for what replicas have not confirmed",
            ));
        }
        if config.store.standby_reads && !config.store.managed {
            return Err(Exit::usage("standby_reads is for a managed server: others answer whoever asks"));
        }
        if config.store.managed && !config.standby.is_empty() {
            return Err(Exit::usage("managed and standby exclude each other: a managed server is told who feeds it"));
        }
        if config.store.managed && config.store.memory_file.is_some() {
            return Err(Exit::usage(
                "managed and -e exclude each other: others may have changed what a server kept while it was away",
            ));
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
        let (ids, threads) = (self.config.napi_ids, self.config.threads);
        if ids as usize > threads {
            return Err(Exit::usage(format!(
                "Number of napi_ids({ids}) cannot be greater than number of threads({threads})"
            )));
        }
        Ok(())
    }

    fn check_refresh(&self) -> Result<(), Exit> {
        if self.config.refresh_ahead == 0 && !self.config.refresh_prefix.is_empty() {
            return Err(Exit::usage(
                "prefix says for which keys refresh_ahead is: give refresh_ahead=<percent> as well",
            ));
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
            let size = values::whole::<usize>(word)
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

    /// Who has asked for classes or chunks has them as memcached would make them.
    fn fit_memory(&mut self) {
        let store = &mut self.config.store;
        let asks_classes = store.growth_factor.is_some()
            || !store.slab_sizes.is_empty()
            || store.chunk_size != StoreConfig::default().chunk_size;
        store.fits_memory = !asks_classes && !self.asks_chunks && !self.chunk_max_given;
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

    /// Each way to log in has its own protocol, and there must be no other door.
    fn check_login(&mut self) -> Result<(), Exit> {
        let config = &mut self.config;
        let (only, line) = match (config.sasl, &config.auth_file) {
            (false, None) => return Ok(()),
            (true, None) => (Binding::Binary, "ERROR: You cannot allow the ASCII protocol while using SASL."),
            (_, Some(_)) => {
                (Binding::Ascii, "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.")
            }
        };
        let others = config.listen.iter().filter_map(|address| address.binding).any(|binding| binding != only);
        if config.sasl && only != Binding::Binary || others || (self.protocol_given && config.binding != only) {
            return Err(Exit::usage(line));
        }
        config.binding = only;
        Ok(())
    }

    fn check_tls(&mut self) -> Result<(), Exit> {
        let config = &mut self.config;
        if config.tls.enabled && (config.tcp_port == Some(0) || config.unix_socket.is_some()) {
            return Err(Exit::usage("ERROR: You cannot enable SSL without a TCP port."));
        }
        if !config.tls.enabled && config.tls != TlsOptions::default() {
            config.warnings.push("the ssl_ options do nothing without -Z".into());
        }
        Ok(())
    }

    fn check_udp(&mut self) -> Result<(), Exit> {
        let config = &mut self.config;
        if config.udp_port == Some(0) {
            return Ok(());
        }
        if !self.tcp_given {
            config.tcp_port = config.udp_port;
        }
        if config.sasl {
            return Err(Exit::usage("ERROR: Cannot enable UDP while using binary SASL authentication."));
        }
        if config.auth_file.is_some() {
            return Err(Exit::usage("Cannot use UDP with ascii authentication enabled (-U 0 to disable)"));
        }
        let asks_for_certs = matches!(config.tls.verify, VerifyMode::Require | VerifyMode::Once)
            || config.listen.iter().any(|address| address.tls == Some(ListenTls::Certs));
        if config.tls.enabled && asks_for_certs {
            return Err(Exit::usage(
                "UDP (-U) has no TLS: it would be open to clients without a certificate. Leave -U out, or let those in over \
                 TLS, too (ssl_verify_mode=0 or 1, no mtls:).",
            ));
        }
        if config.store.managed {
            return Err(Exit::usage("managed and UDP (-U) exclude each other: clients must know who is primary"));
        }
        Ok(())
    }

    fn read_listen(&mut self) -> Result<(), Exit> {
        let Some(text) = &self.config.listen_text else { return Ok(()) };
        for address in text.split([',', ';']).filter(|address| !address.is_empty()) {
            let address = ListenAddr::parse(address, self.config.tls.enabled).map_err(|line| {
                Exit::refuse(Exit::OS_ERROR, format!("{line}\nfailed to listen on one of interface(s) {text}"))
            })?;
            self.config.listen.push(address);
        }
        if self.config.listen.is_empty() {
            return Err(Exit::usage("-l needs an address"));
        }
        let needs_ca = self.config.listen.iter().any(|address| address.tls == Some(ListenTls::Certs));
        if needs_ca && self.config.tls.ca_cert.is_none() {
            return Err(Exit::usage("mtls: needs -o ssl_ca_cert=FILE: whose certificates would be good?"));
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
