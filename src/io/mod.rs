//! Bytes in and out of sockets, for the server and the sidecar.

pub mod edge;
pub mod stream;
