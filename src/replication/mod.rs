//! What the consumers of the journal are sent, and what they say.

pub mod session;
pub mod stream;
#[cfg(test)]
mod tests;
