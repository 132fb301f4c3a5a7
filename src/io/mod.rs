//! Bytes in and out of a socket.

pub mod edge;
pub mod stream;
