//! The server's side: its certificate, whom it asks for one, and what it has counted.
//!
//! ```text
//!   new, refresh ── files ──> one configuration for each kind of listener ──> new connections
//!                                   (those that are there keep theirs, and their tickets)
//! ```
//!
//! A refresh that fails changes nothing. Sessions go on by tickets, under keys that are this process's and end with the
//! configuration: whoever was let in by a CA that is taken away has to show a certificate again. Files that are as they were
//! are not read again, unless that failed.

use super::ciphers;
use super::files;
use super::identity::identity;
use super::options::{KeyFormat, TlsOptions, VerifyMode};
use super::stream::ServerStream;
use super::trust::TrustedCerts;
use crate::sync::lock;
use mio::net::TcpStream;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage, ServerSessionMemoryCache, UnbufferedServerConnection};
use rustls::sign::SingleCertAndKey;
use rustls::version::{TLS12, TLS13};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Sessions kept with `ssl_session_cache` for clients without tickets: 1 to 4 KB each.
const SESSIONS: usize = 4096;

/// Tickets sent after a handshake. Clients get a new one with each resumption, and may use one more than once.
const TICKETS: usize = 1;

/// Whether the clients of a listener are asked for certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCerts {
    /// As `ssl_verify_mode` says.
    ByOption,
    /// Never: `btls:`.
    Never,
    /// Each needs one: `mtls:`.
    Needed,
}

/// See the module's head.
#[derive(Debug)]
pub struct ServerTls {
    options: TlsOptions,
    configs: Mutex<Configs>,
    read: Mutex<LastRead>,
    /// The clock's second of the last refresh.
    refreshed: AtomicU32,
    /// Handshakes that failed or took too long.
    pub handshake_errors: AtomicU64,
    /// Connections that broke the protocol after their handshakes.
    pub protocol_errors: AtomicU64,
    /// Handshakes that were not resumptions.
    pub new_sessions: AtomicU64,
}

/// The files as they were when they were last read, and what came of it.
#[derive(Debug)]
struct LastRead {
    stamps: Stamps,
    made: Result<(), String>,
    /// The clock's second.
    at: u32,
}

/// One for each kind of listener.
#[derive(Clone, Debug)]
struct Configs {
    by_option: Arc<ServerConfig>,
    never: Arc<ServerConfig>,
    /// None without a CA.
    needed: Option<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Reads what the options name. The error is one line, as memcached says it.
    pub fn new(options: &TlsOptions) -> Result<ServerTls, String> {
        let stamps = stamps(options);
        Ok(ServerTls {
            configs: Mutex::new(configs(options)?),
            read: Mutex::new(LastRead { stamps, made: Ok(()), at: 0 }),
            options: options.clone(),
            refreshed: AtomicU32::new(0),
            handshake_errors: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            new_sessions: AtomicU64::new(0),
        })
    }

    /// Reads the files again, for connections that come from now on. `now` is the clock's second. Any client may ask for
    /// it, as often as it likes: where the files are those of the last time, so is the answer, and tickets stay good. What
    /// has failed is tried again in another second: descriptors may have been short.
    pub fn refresh(&self, now: u32) -> Result<(), String> {
        let (mut read, stamps) = (lock(&self.read), stamps(&self.options));
        if read.stamps != stamps || (read.made.is_err() && read.at != now) {
            let made = configs(&self.options).map(|configs| *lock(&self.configs) = configs);
            *read = LastRead { stamps, made, at: now };
        }
        if read.made.is_ok() {
            self.refreshed.store(now, Ordering::Relaxed);
        }
        read.made.clone()
    }

    /// When that was last, by the clock's second.
    pub fn refreshed(&self) -> u32 {
        self.refreshed.load(Ordering::Relaxed)
    }

    /// `stats reset`.
    pub fn reset_counts(&self) {
        for count in [&self.handshake_errors, &self.protocol_errors, &self.new_sessions] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// The server's side of a connection that has just been accepted. It has to shake hands.
    pub fn accept(&self, socket: TcpStream, certs: ClientCerts) -> io::Result<ServerStream> {
        let configs = lock(&self.configs).clone();
        let config = match certs {
            ClientCerts::ByOption => configs.by_option,
            ClientCerts::Never => configs.never,
            ClientCerts::Needed => configs.needed.ok_or(io::ErrorKind::Unsupported)?,
        };
        let session = UnbufferedServerConnection::new(config).map_err(io::Error::other)?;
        ServerStream::new(socket, session)
    }
}

/// Of chain, key and CA.
type Stamps = [Option<[i64; 6]>; 3];

fn stamps(options: &TlsOptions) -> Stamps {
    [&options.chain_cert, &options.key, &options.ca_cert].map(|file| file.as_deref().and_then(files::stamp))
}

fn configs(options: &TlsOptions) -> Result<Configs, String> {
    let mut provider = default_provider();
    if let Some(list) = &options.ciphers {
        ciphers::restrict(&mut provider, list)?;
    }
    let provider = Arc::new(provider);
    let chain_file =
        options.chain_cert.as_deref().ok_or("Error loading the certificate chain: give -o ssl_chain_cert=FILE")?;
    let chain = files::chain(chain_file).map_err(|why| format!("Error loading the certificate chain: {why}"))?;
    let key_file = options.key.as_deref().ok_or("Error loading the key: give -o ssl_key=FILE")?;
    let key = match options.key_format {
        KeyFormat::Pem => files::pem_key(key_file),
        KeyFormat::Der => files::der_key(key_file),
    };
    let key = key.map_err(|why| format!("Error loading the key: {why}"))?;
    let own = identity(chain, key, &provider).map_err(|why| format!("Error validating the certificate: {why}"))?;
    let no_ca = |why: String| format!("Error loading the CA certificate: {why}");
    let trusted = options.ca_cert.as_deref().map(TrustedCerts::read).transpose().map_err(no_ca)?;
    let make = |verifier| config(options, &provider, verifier, &own);
    let verifier = |is_needed| {
        let verifier = trusted.as_ref().map(|trusted| trusted.of_clients(&provider, is_needed));
        verifier.transpose().map_err(no_ca)
    };
    let never = make(Arc::new(NoClientAuth))?;
    let needed = verifier(true)?.map(make).transpose()?;
    let by_option = match options.verify {
        VerifyMode::None => never.clone(),
        // Without a CA nobody's certificate is good, and nobody is asked for one.
        VerifyMode::Request => verifier(false)?.map_or_else(|| Ok(never.clone()), make)?,
        VerifyMode::Require | VerifyMode::Once => {
            needed.clone().ok_or("Error loading the CA certificate: ssl_verify_mode needs -o ssl_ca_cert=FILE")?
        }
    };
    Ok(Configs { by_option, never, needed })
}

fn config(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    own: &Arc<SingleCertAndKey>,
) -> Result<Arc<ServerConfig>, String> {
    let versions: &[_] = if options.only_13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let invalid = |error: rustls::Error| format!("Error validating the certificate: {error}");
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(invalid)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own.clone());
    config.ticketer = Ticketer::new().map_err(invalid)?;
    config.send_tls13_tickets = TICKETS;
    config.session_storage = match options.session_cache {
        true => ServerSessionMemoryCache::new(SESSIONS),
        false => Arc::new(NoServerSessionStorage {}),
    };
    Ok(Arc::new(config))
}
