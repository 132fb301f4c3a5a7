//! Every call to the operating system that std, mio and socket2 lack.
//!
//! One of the two modules that may hold `unsafe`; each block names the invariant it rests on.
//! Not here: policy. A function does one call and returns its error.
#![allow(unsafe_code)]
