//! What consumers of the journal are sent.

pub mod session;
pub mod stream;
#[cfg(test)]
mod tests;
