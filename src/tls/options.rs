//! What the command line says of TLS.
//!
//! Not here: how it is written there (`config`), what is made of it (`server`).

/// Everything behind `-Z` and the `ssl_` options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// `-Z`.
    pub enabled: bool,
    /// The server's certificate and those that signed it, in PEM.
    pub chain_cert: Option<String>,
    /// Its private key.
    pub key: Option<String>,
    /// How the key is written.
    pub key_format: KeyFormat,
    /// Whether clients need certificates.
    pub verify: VerifyMode,
    /// The certificates that clients' are signed with.
    pub ca_cert: Option<String>,
    /// Of TLS 1.2, in OpenSSL's words.
    pub ciphers: Option<String>,
    /// Only reported, in bytes: records are cut and written as it is best here.
    pub write_buffer: usize,
    /// Whether sessions are kept for clients without tickets.
    pub session_cache: bool,
    /// Whether TLS 1.2 is refused.
    pub only_13: bool,
}

impl Default for TlsOptions {
    fn default() -> TlsOptions {
        TlsOptions {
            enabled: false,
            chain_cert: None,
            key: None,
            key_format: KeyFormat::Pem,
            verify: VerifyMode::None,
            ca_cert: None,
            ciphers: None,
            write_buffer: 16 << 10,
            session_cache: false,
            only_13: false,
        }
    }
}

/// `ssl_keyformat`, by memcached's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// Text.
    Pem = 1,
    /// ASN.1, which is DER.
    Der = 2,
}

/// `ssl_verify_mode`, by the numbers under which OpenSSL and `stats settings` know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyMode {
    /// No certificate is asked for.
    None = 0,
    /// One that is shown must be good.
    Request = 1,
    /// Every client must show a good one.
    Require = 3,
    /// The same: nothing is ever asked twice in a session.
    Once = 7,
}
