//! How a binary packet was taken.
//!
//! Not here: the response that says so (`request`).

/// A response's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum Status {
    Ok = 0,
    NotFound = 1,
    Exists = 2,
    TooLarge = 3,
    Invalid = 4,
    NotStored = 5,
    NonNumeric = 6,
    AuthError = 0x20,
    AuthContinue = 0x21,
    UnknownCommand = 0x81,
    NoMemory = 0x82,
    Busy = 0x85,
    NotReplicated = 0x86,
}

impl Status {
    /// What the body says of it when it says nothing else.
    pub fn text(self) -> &'static [u8] {
        match self {
            Status::Ok | Status::AuthContinue => b"",
            Status::NotFound => b"Not found",
            Status::Exists => b"Data exists for key.",
            Status::TooLarge => b"Too large.",
            Status::Invalid => b"Invalid arguments",
            Status::NotStored => b"Not stored.",
            Status::NonNumeric => b"Non-numeric server-side value for incr or decr",
            Status::AuthError => b"Auth failure.",
            Status::UnknownCommand => b"Unknown command",
            Status::NoMemory => b"Out of memory allocating item",
            Status::Busy => b"Too many of late: try again in a second",
            Status::NotReplicated => b"Not replicated",
        }
    }
}
