//! Base64 of binary keys in the meta protocol.
