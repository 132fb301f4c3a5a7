//! A client's side: whom it believes, and what it shows of itself.
//!
//! A server's certificate must be of the given CA (`trust`) and name the host that was asked for. The system's list of public
//! CAs is not used: whoever can get a certificate from any of them would be believed. The files are read for each
//! connection, so that new ones need no restart.
//!
//! Not here: when to connect, and where (`sidecar`).

use super::files;
use super::identity::identity;
use super::stream::TlsStream;
use super::trust::TrustedCerts;
use mio::net::TcpStream;
use rustls::client::UnbufferedClientConnection;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// The client's side of a connection that does not block.
pub type ClientStream = TlsStream<UnbufferedClientConnection>;

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificates that servers' are signed with.
    pub ca: String,
    /// The client's own certificate and its key, if it has one.
    pub own: Option<(String, String)>,
}

impl ClientFiles {
    /// Whether they can be used. The error is one line.
    pub fn check(&self) -> Result<(), String> {
        self.config().map(|_| ())
    }

    /// Begins a session with the server at `host:port` over a socket that does not block. It has to shake hands.
    pub fn begin(&self, address: &str, socket: TcpStream) -> io::Result<ClientStream> {
        let config = self.config().map_err(io::Error::other)?;
        let session = UnbufferedClientConnection::new(config, name(address)?).map_err(io::Error::other)?;
        TlsStream::new(socket, session)
    }

    /// The same over one that blocks, for as long as it does: what it reads and writes shakes hands first.
    pub fn connect<S: Read + Write>(&self, address: &str, socket: S) -> io::Result<StreamOwned<ClientConnection, S>> {
        let config = self.config().map_err(io::Error::other)?;
        let session = ClientConnection::new(config, name(address)?).map_err(io::Error::other)?;
        Ok(StreamOwned::new(session, socket))
    }

    fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).map_err(|error| error.to_string())?;
        let servers = TrustedCerts::read(&self.ca)?.of_servers(&provider)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(servers);
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let own = identity(files::chain(cert)?, files::pem_key(key)?, &provider);
                builder.with_client_cert_resolver(own.map_err(|why| format!("{key} : does not fit {cert}: {why}"))?)
            }
        };
        Ok(Arc::new(config))
    }
}

/// The host of `host:port`, by name or by number.
fn name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    ServerName::try_from(host.to_owned()).map_err(io::Error::other)
}
