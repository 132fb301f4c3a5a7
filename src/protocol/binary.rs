//! Binary packets.

/// A packet.
#[derive(Debug)]
pub struct Packet<'a> {
    pub key: &'a [u8],
}
