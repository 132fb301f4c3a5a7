//! What certificates the client trusts and shows, read from PEM files when it starts.
//!
//! A server's certificate must come from the given CA and name the URL's host. The system's list of public CAs is not
//! used: whoever can get a certificate from any of them would be believed.
//!
//! Invariant: a file that rustls would not take is an error here, in one line, and not later while connecting.

use super::options::EtcdOptions;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

/// The configuration that the options describe.
pub(super) fn config(options: &EtcdOptions) -> Result<TlsConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = options.ca.as_deref().map(roots).transpose()?.unwrap_or_default();
    let client = match (&options.cert, &options.key) {
        (Some(cert), Some(key)) => Some(client(cert, key, &provider)?),
        _ => None,
    };
    Ok(TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&roots))
        .client_cert(client)
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn roots(file: &Path) -> Result<Vec<Certificate<'static>>, String> {
    let found = certificates("--etcd-ca", file)?;
    let mut store = RootCertStore::empty();
    for certificate in &found {
        store.add(certificate.clone()).map_err(|error| line("--etcd-ca", file, &error))?;
    }
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

fn client(cert: &Path, key: &Path, provider: &CryptoProvider) -> Result<ClientCert, String> {
    let chain = certificates("--etcd-cert", cert)?;
    let pem = read("--etcd-key", key)?;
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| line("--etcd-key", key, &"no private key in PEM"))?;
    // What rustls checks when it connects, and ureq takes for granted.
    rustls::sign::CertifiedKey::from_der(chain.clone(), der, provider)
        .map_err(|error| line("--etcd-key", key, &format!("does not fit {}: {error}", cert.display())))?;
    let chain: Vec<_> = chain.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    let key = PrivateKey::from_pem(&pem).map_err(|error| line("--etcd-key", key, &error))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn certificates(option: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(option, file)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(line(option, file, &"no certificate in PEM")),
    }
}

/// A small file.
pub(super) fn read(option: &str, file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| line(option, file, &error))
}

fn line(option: &str, file: &Path, why: &impl std::fmt::Display) -> String {
    format!("{option} {}: {why}", file.display())
}
