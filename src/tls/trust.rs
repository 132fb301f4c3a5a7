//! Whom a side believes: certificates that come from one of a file, and those of the file themselves.
//!
//! ```text
//!   the other side's certificate ──> rustls: signed by one of the file, in its time, for its use, with the name
//!                                      │ no
//!                                      └──> a CA's that stands in the file, byte for byte? in its time, for its use,
//!                                           with the name
//! ```
//!
//! The second is for a side that shows what is a CA's: `openssl req -x509` makes certificates so where it is told nothing
//! else, and rustls does not take them from the other side, whoever has signed them. Who has the key of one could sign
//! another. Only what stands in the file is looked into here.
//!
//! Invariant: nobody is believed whose certificate is neither in the file nor signed by one that is.
//!
//! Not here: that the other side has the key (rustls, which both verifiers ask), the own certificate (`identity`).

use super::files;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ExtendedKeyUsage;
use x509_parser::time::ASN1Time;

/// The certificates of a file.
#[derive(Clone, Debug)]
pub(super) struct TrustedCerts {
    roots: Arc<RootCertStore>,
    certificates: Arc<Vec<CertificateDer<'static>>>,
}

impl TrustedCerts {
    /// Reads them. The error is one line.
    pub(super) fn read(file: &str) -> Result<TrustedCerts, String> {
        let certificates = files::chain(file)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| files::line(file, &error))?;
        }
        Ok(TrustedCerts { roots: Arc::new(roots), certificates: Arc::new(certificates) })
    }

    /// What a server asks about its clients, of which each needs a certificate or those that show one.
    pub(super) fn of_clients(
        &self,
        provider: &Arc<CryptoProvider>,
        is_needed: bool,
    ) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let builder = if is_needed { builder } else { builder.allow_unauthenticated() };
        let inner = builder.build().map_err(|error| error.to_string())?;
        Ok(Arc::new(TrustedClients { inner, trusted: self.clone() }))
    }

    /// What a client asks about its server.
    pub(super) fn of_servers(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let builder = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider.clone());
        let inner = builder.build().map_err(|error| error.to_string())?;
        Ok(Arc::new(TrustedServers { inner, trusted: self.clone() }))
    }

    /// What becomes of a certificate that rustls has refused.
    fn look_again(
        &self,
        shown: &CertificateDer<'_>,
        now: UnixTime,
        is_for: fn(&ExtendedKeyUsage<'_>) -> bool,
        refused: Error,
    ) -> Result<(), Error> {
        if !self.certificates.iter().any(|trusted| trusted.as_ref() == shown.as_ref()) {
            return Err(explained(refused));
        }
        let Ok((_, read)) = x509_parser::parse_x509_certificate(shown) else { return Err(refused) };
        if !read.is_ca() {
            return Err(explained(refused));
        }
        let now = ASN1Time::from_timestamp(now.as_secs() as i64).map_err(|_| CertificateError::BadEncoding)?;
        if now < read.validity().not_before {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > read.validity().not_after {
            return Err(CertificateError::Expired.into());
        }
        if allows(&read, is_for) { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) }
    }
}

/// Whether its key may sign handshakes of that side. A certificate that does not say for what it is is for all.
fn allows(read: &X509Certificate<'_>, is_for: fn(&ExtendedKeyUsage<'_>) -> bool) -> bool {
    let (Ok(usage), Ok(extended)) = (read.key_usage(), read.extended_key_usage()) else { return false };
    usage.is_none_or(|usage| usage.value.digital_signature()) && extended.is_none_or(|extended| is_for(extended.value))
}

/// The same, with what to do where it is what OpenSSL makes by default.
fn explained(refused: Error) -> Error {
    let reason = format!("{refused:?}");
    if reason.contains("UnsupportedCertVersion") {
        because("X.509 version 1 is not taken: give openssl x509 -req an -extfile with subjectAltName")
    } else if reason.contains("CaUsedAsEndEntity") {
        because("a CA's certificate (CA:TRUE) is taken only if it stands itself in the file of CAs")
    } else {
        refused
    }
}

fn because(why: &'static str) -> Error {
    CertificateError::Other(OtherError(Arc::new(CertRefusal(why)))).into()
}

/// rustls shows the reasons of others as they debug themselves.
struct CertRefusal(&'static str);

impl fmt::Debug for CertRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for CertRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for CertRefusal {}

#[derive(Debug)]
struct TrustedClients {
    inner: Arc<dyn ClientCertVerifier>,
    trusted: TrustedCerts,
}

impl ClientCertVerifier for TrustedClients {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner.verify_client_cert(end_entity, intermediates, now).or_else(|refused| {
            self.trusted.look_again(end_entity, now, |usage| usage.client_auth, refused)?;
            Ok(ClientCertVerified::assertion())
        })
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct TrustedServers {
    inner: Arc<WebPkiServerVerifier>,
    trusted: TrustedCerts,
}

impl ServerCertVerifier for TrustedServers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let judged = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        judged.or_else(|refused| {
            self.trusted.look_again(end_entity, now, |usage| usage.server_auth, refused)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            Ok(ServerCertVerified::assertion())
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
