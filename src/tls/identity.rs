//! What a side shows of itself: its certificate, those that signed it, and its key.
//!
//! Whether a certificate is good is for the other side to say. So the own one may be of X.509 version 1, or a CA's that has
//! signed itself, which OpenSSL makes where it is told nothing else; it only has to have the key.
//!
//! Not here: how files are read (`files`), what the other side shows (`trust`).

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::sync::Arc;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Lengths in bits of RSA keys that ring signs with.
const RSA_BITS: [usize; 3] = [2048, 3072, 4096];

/// What shows this to whoever connects, or is connected to. The error says why it cannot be shown.
pub(super) fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<SingleCertAndKey>, String> {
    let (rest, first) = x509_parser::parse_x509_certificate(&chain[0]).map_err(|error| error.to_string())?;
    if !rest.is_empty() {
        return Err("something follows the certificate within it".into());
    }
    let public = &first.tbs_certificate.subject_pki;
    let key = provider.key_provider.load_private_key(key).map_err(|_| unusable(public))?;
    if key.public_key().is_some_and(|own| own.as_ref() != public.raw) {
        return Err("the key is another certificate's".into());
    }
    Ok(Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key))))
}

/// Says so of the certificate's key: that of the file cannot be read.
fn unusable(public: &SubjectPublicKeyInfo<'_>) -> String {
    let bits = public.parsed().map_or(0, |public| public.key_size());
    let is_rsa = public.algorithm.algorithm == x509_parser::oid_registry::OID_PKCS1_RSAENCRYPTION;
    let what = match (is_rsa, RSA_BITS.contains(&bits)) {
        (true, true) => return "the key is damaged, or is another certificate's".into(),
        (true, false) => format!("an RSA key of {bits} bits"),
        (false, _) => "a key of this kind".into(),
    };
    format!(
        "{what} cannot be used: make one of RSA with 2048, 3072 or 4096 bits, of ECDSA on P-256 or P-384, or of Ed25519"
    )
}
