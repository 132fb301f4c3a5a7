//! TLS, on rustls: certificates, what is agreed on, and a socket that speaks it.
//!
//! ```text
//!   options ──> files ──> configurations (server: one for each kind of listener; client)
//!                                │ taken by each new connection
//!   TcpStream <── records ──> TlsStream <── plain bytes ──> whoever had a plain socket before
//! ```
//!
//! A [`TlsStream`] is a non-blocking `Read + Write` that keeps the rules of an edge-triggered socket (`io/edge`), so
//! that connections know nothing of TLS. The cryptography is ring's; there is no OpenSSL.
//!
//! Not here: who shakes hands on which thread (`net/handshake`), when to read or write (`net`, `sidecar`).

mod ciphers;
mod client;
mod files;
mod identity;
mod options;
mod room;
mod server;
mod stream;
mod trust;

pub use client::{ClientFiles, ClientStream};
pub use files::certificate_end;
pub use options::{KeyFormat, TlsOptions, VerifyMode};
pub use server::{ClientCerts, ServerTls};
pub use stream::{ServerStream, TlsStream};
