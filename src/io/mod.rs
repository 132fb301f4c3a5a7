//! Bytes in and out of a socket.

pub mod stream;
