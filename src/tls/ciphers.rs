//! OpenSSL's names of cipher suites, as `ssl_ciphers` has them: those of TLS 1.2. TLS 1.3's are always on.
//!
//! A list is names between colons: of suites, or of what suites have (`ECDHE+AESGCM`, `HIGH`), each with a sign before
//! it: `!` and `-` take suites out, `+` moves them to the end, which does nothing here. What is not known is passed over,
//! as OpenSSL does; a list that leaves nothing is an error.
//!
//! Not here: in which order suites are preferred (rustls).

use rustls::crypto::CryptoProvider;
use rustls::{CipherSuite, SupportedCipherSuite};

/// Names of suites of TLS 1.2, and the words that each goes by.
const SUITES: &[(CipherSuite, &str, &[&str])] = &[
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, "ECDHE-ECDSA-AES256-GCM-SHA384", &ECDSA_AES256),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, "ECDHE-ECDSA-AES128-GCM-SHA256", &ECDSA_AES128),
    (CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-ECDSA-CHACHA20-POLY1305", &ECDSA_CHACHA),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, "ECDHE-RSA-AES256-GCM-SHA384", &RSA_AES256),
    (CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, "ECDHE-RSA-AES128-GCM-SHA256", &RSA_AES128),
    (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", &RSA_CHACHA),
];

const ECDSA_AES256: [&str; 5] = ["aECDSA", "ECDSA", "AES256", "AESGCM", "SHA384"];
const ECDSA_AES128: [&str; 5] = ["aECDSA", "ECDSA", "AES128", "AESGCM", "SHA256"];
const ECDSA_CHACHA: [&str; 3] = ["aECDSA", "ECDSA", "CHACHA20"];
const RSA_AES256: [&str; 5] = ["aRSA", "RSA", "AES256", "AESGCM", "SHA384"];
const RSA_AES128: [&str; 5] = ["aRSA", "RSA", "AES128", "AESGCM", "SHA256"];
const RSA_CHACHA: [&str; 3] = ["aRSA", "RSA", "CHACHA20"];

/// Words that all of them go by.
const ALL: [&str; 10] =
    ["ALL", "DEFAULT", "COMPLEMENTOFDEFAULT", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "TLSv1.2", "AES"];

/// Leaves of a provider's suites those that the list allows, and TLS 1.3's.
pub(super) fn restrict(provider: &mut CryptoProvider, list: &str) -> Result<(), String> {
    let allowed = allowed(list);
    if allowed.is_empty() {
        return Err(format!("Error setting the provided cipher(s): {list}"));
    }
    let is_allowed = |suite: &SupportedCipherSuite| suite.tls13().is_some() || allowed.contains(&suite.suite());
    provider.cipher_suites.retain(is_allowed);
    Ok(())
}

fn allowed(list: &str) -> Vec<CipherSuite> {
    let mut allowed: Vec<CipherSuite> = Vec::new();
    let mut banned: Vec<CipherSuite> = Vec::new();
    for word in list.split([':', ' ', ',']).filter(|word| !word.is_empty() && !word.starts_with('@')) {
        let name = word.trim_start_matches(['!', '-', '+']);
        let named = SUITES.iter().filter(|(_, suite, words)| means(name, suite, words)).map(|(suite, ..)| *suite);
        match word.as_bytes()[0] {
            b'!' => {
                banned.extend(named);
                allowed.retain(|suite| !banned.contains(suite));
            }
            b'-' => {
                let gone: Vec<CipherSuite> = named.collect();
                allowed.retain(|suite| !gone.contains(suite));
            }
            b'+' => {}
            _ => allowed.extend(named.filter(|suite| !banned.contains(suite))),
        }
    }
    allowed
}

/// Whether a word of a list stands for a suite.
fn means(name: &str, suite: &str, words: &[&str]) -> bool {
    name == suite
        || name
            .split('+')
            .all(|part| ALL.contains(&part) && (part != "AES" || words.contains(&"AESGCM")) || words.contains(&part))
}
