//! How a call of etcd fails.
//!
//! What counts for a write is whether it may have been applied: a caller of [`EtcdError::Unknown`] or
//! [`EtcdError::Malformed`] reads before it goes on, and never supposes either.

use std::fmt;

/// Why a call failed. The text is one line and names the endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdError {
    /// The request was certainly not applied: etcd was not reached, or has said no.
    Refused(String),
    /// The request may have been applied, or may be later: there was no answer in time, or etcd itself does not know.
    Unknown(String),
    /// A password, a token or a permission is wrong; certainly not applied.
    Denied(String),
    /// The answer is none of etcd's. The request may have been applied.
    Malformed(String),
}

impl EtcdError {
    /// Whether a write may have been applied all the same.
    pub fn may_be_applied(&self) -> bool {
        matches!(self, EtcdError::Unknown(_) | EtcdError::Malformed(_))
    }
}

impl fmt::Display for EtcdError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EtcdError::Refused(why) | EtcdError::Unknown(why) | EtcdError::Malformed(why) => out.write_str(why),
            EtcdError::Denied(why) => write!(out, "access denied: {why}"),
        }
    }
}

impl std::error::Error for EtcdError {}
