//! Sockets, event loops and connections.
