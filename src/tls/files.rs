//! Certificates and keys, read from their files.
//!
//! Invariant: a file that does not hold what it is to hold is an error here, in one line, and not later in a handshake.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;

/// A chain of certificates, at least one. The error says why not.
pub(super) fn chain(file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(line(file, &"no certificate in PEM")),
    }
}

/// When the first of the certificates in a file ends, in Unix seconds. None: they cannot be read.
pub fn certificate_end(file: &str) -> Option<i64> {
    let end = |certificate: &CertificateDer<'_>| {
        let (_, read) = x509_parser::parse_x509_certificate(certificate).ok()?;
        Some(read.validity().not_after.timestamp())
    };
    let ends: Option<Vec<i64>> = chain(file).ok()?.iter().map(end).collect();
    ends?.into_iter().min()
}

/// A private key in PEM.
pub(super) fn pem_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|_| line(file, &"no private key in PEM, or one that is encrypted"))
}

/// A private key in DER.
pub(super) fn der_key(file: &str) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::try_from(read(file)?).map_err(|why| line(file, &why))
}

/// What changes with a file: when it was written or put in its place, its number and its length. None: it is not there.
pub(super) fn stamp(file: &str) -> Option<[i64; 6]> {
    let found = std::fs::metadata(file).ok()?;
    let times = [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()];
    Some([times[0], times[1], times[2], times[3], found.ino() as i64, found.len() as i64])
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| line(file, &error))
}

/// A line about a file.
pub(super) fn line(file: &str, why: &impl Display) -> String {
    format!("{file} : {why}")
}
