//! What is sent to etcd's JSON gateway, and what may come back.
//!
//! ```text
//!   bytes      base64                   "key":"Zm9v"
//!   int64      a string, or a number    "revision":"12"
//!   absent     0, "", [], false: the gateway leaves out what is nothing
//! ```
//!
//! Invariants: whatever comes back gives a value or an error, and nothing is believed about a number but that it is an
//! i64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// Bytes that travel as base64.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Base64(pub(super) Vec<u8>);

impl From<&str> for Base64 {
    fn from(text: &str) -> Base64 {
        Base64(text.as_bytes().to_vec())
    }
}

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Base64, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Base64).map_err(D::Error::custom)
    }
}

/// An int64 of protobuf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Int64(pub(super) i64);

impl Serialize for Int64 {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Int64, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Int64;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an int64")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Int64, E> {
                Ok(Int64(number))
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Int64, E> {
                i64::try_from(number).map(Int64).map_err(E::custom)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Int64, E> {
                text.parse().map(Int64).map_err(E::custom)
            }
        }
        from.deserialize_any(Number)
    }
}

/// `/v3/kv/range`.
#[derive(Debug, Default, Serialize)]
pub(super) struct RangeRequest {
    pub(super) key: Base64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) range_end: Option<Base64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<Int64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revision: Option<Int64>,
}

/// `/v3/kv/put`.
#[derive(Debug, Serialize)]
pub(super) struct PutRequest {
    pub(super) key: Base64,
    pub(super) value: Base64,
}

/// `/v3/kv/deleterange`.
#[derive(Debug, Serialize)]
pub(super) struct DeleteRequest {
    pub(super) key: Base64,
}

/// `/v3/kv/txn`.
#[derive(Debug, Serialize)]
pub(super) struct TxnRequest {
    pub(super) compare: Vec<Compare>,
    pub(super) success: Vec<Operation>,
    pub(super) failure: Vec<Operation>,
}

/// Whether a key is of a revision (0: absent), or has a value.
#[derive(Debug, Serialize)]
pub(super) struct Compare {
    key: Base64,
    target: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<Int64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Base64>,
}

impl Compare {
    pub(super) fn new(key: &str, mod_revision: i64) -> Compare {
        let mod_revision = Some(Int64(mod_revision));
        Compare { key: key.into(), target: "MOD", result: "EQUAL", mod_revision, value: None }
    }

    pub(super) fn value(key: &str, value: &[u8]) -> Compare {
        let value = Some(Base64(value.to_vec()));
        Compare { key: key.into(), target: "VALUE", result: "EQUAL", mod_revision: None, value }
    }
}

/// A part of a transaction.
#[derive(Debug, Serialize)]
pub(super) enum Operation {
    #[serde(rename = "request_range")]
    Range(RangeRequest),
    #[serde(rename = "request_put")]
    Put(PutRequest),
    #[serde(rename = "request_delete_range")]
    Delete(DeleteRequest),
}

/// `/v3/watch`.
#[derive(Debug, Serialize)]
pub(super) struct WatchRequest {
    pub(super) create_request: WatchCreate,
}

/// What is to be watched.
#[derive(Debug, Serialize)]
pub(super) struct WatchCreate {
    pub(super) key: Base64,
    pub(super) range_end: Base64,
    pub(super) start_revision: Int64,
}

/// `/v3/auth/authenticate`.
#[derive(Serialize)]
pub(super) struct AuthenticateRequest<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

/// What stands in each answer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub(super) revision: Int64,
}

/// A key and its value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KeyValue {
    pub(super) key: Base64,
    pub(super) value: Base64,
    pub(super) mod_revision: Int64,
    pub(super) version: Int64,
}

#[derive(Debug, Deserialize)]
pub(super) struct RangeAnswer {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
    #[serde(default)]
    pub(super) more: bool,
}

/// The answer to a put or a delete.
#[derive(Debug, Deserialize)]
pub(super) struct WriteAnswer {
    pub(super) header: Header,
}

#[derive(Debug, Deserialize)]
pub(super) struct TxnAnswer {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) succeeded: bool,
    #[serde(default)]
    pub(super) responses: Vec<TxnPart>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TxnPart {
    pub(super) response_range: Option<PartRange>,
}

/// A range in a transaction has a header of its own, which says nothing.
#[derive(Debug, Deserialize)]
pub(super) struct PartRange {
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
}

#[derive(Deserialize)]
pub(super) struct AuthenticateAnswer {
    pub(super) token: String,
}

/// A line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct WatchLine {
    pub(super) result: Option<WatchAnswer>,
    pub(super) error: Option<Failure>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WatchAnswer {
    pub(super) header: Header,
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) compact_revision: Int64,
    pub(super) cancel_reason: String,
    pub(super) events: Vec<WireEvent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WireEvent {
    /// Absent for a put.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) kv: KeyValue,
}

/// What etcd says when it does not do it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failure {
    pub(super) message: String,
    /// The text again, in older versions alone.
    pub(super) error: String,
    /// gRPC's code.
    pub(super) code: Option<i32>,
    /// The same in a line of a watch.
    pub(super) grpc_code: Option<i32>,
    /// HTTP says that it is the client's mistake.
    #[serde(skip)]
    pub(super) is_ours: bool,
}

impl Failure {
    /// What an answer says that is not 200. Not all of them are JSON.
    pub(super) fn of(status: u16, bytes: &[u8]) -> Failure {
        let parsed: Option<Failure> = serde_json::from_slice(bytes).ok();
        let parsed = parsed.filter(|failure| !failure.text().is_empty());
        let as_text = || {
            let text = String::from_utf8_lossy(bytes);
            Failure { message: format!("HTTP status {status}: {}", text.trim()), ..Failure::default() }
        };
        Failure { is_ours: (400..500).contains(&status), ..parsed.unwrap_or_else(as_text) }
    }

    pub(super) fn code(&self) -> Option<i32> {
        self.code.or(self.grpc_code)
    }

    pub(super) fn text(&self) -> &str {
        if self.message.is_empty() { &self.error } else { &self.message }
    }
}

/// The end of the range of keys that begin with `prefix`.
pub(super) fn end_of(prefix: &str) -> Base64 {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Base64(end);
        }
    }
    // To etcd this is the end of all keys.
    Base64(vec![0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_strings_or_numbers_within_their_type() {
        for (text, number) in [("\"12\"", 12), ("12", 12), ("\"-1\"", -1), ("\"9223372036854775807\"", i64::MAX)] {
            assert_eq!(serde_json::from_str::<Int64>(text).unwrap(), Int64(number));
        }
        for text in ["\"\"", "\"1.5\"", "1.5", "9223372036854775808", "\"9223372036854775808\"", "null", "[]", "\" 1\""]
        {
            assert!(serde_json::from_str::<Int64>(text).is_err(), "{text}");
        }
        assert_eq!(serde_json::to_string(&Int64(7)).unwrap(), "\"7\"");
    }

    #[test]
    fn requests_look_as_the_gateway_wants_them() {
        let put = Operation::Put(PutRequest { key: "k".into(), value: "v".into() });
        let txn = TxnRequest { compare: vec![Compare::new("k", 0)], success: vec![put], failure: vec![] };
        let expected = r#"{"compare":[{"key":"aw==","target":"MOD","result":"EQUAL","mod_revision":"0"}],"success":[{"request_put":{"key":"aw==","value":"dg=="}}],"failure":[]}"#;
        assert_eq!(serde_json::to_string(&txn).unwrap(), expected);
        let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        assert_eq!(serde_json::to_string(&range).unwrap(), r#"{"key":"aw=="}"#);
    }

    #[test]
    fn a_prefix_ends_before_the_next() {
        assert_eq!(end_of("/a/"), "/a0".into());
        assert_eq!(end_of(""), Base64(vec![0]));
    }
}
