//! What consumers of the journal are sent.

pub mod session;
#[cfg(test)]
mod tests;
