//! Whether a stock memcached is sent cas uniques: it is asked, and then watched.
//!
//! ```text
//!   ms twincache.probe 2 MR T-1 E1 ──> NS: it takes E           CLIENT_ERROR invalid flag: it does not
//!   attach … cas | nocas
//!   a stream begins, after its flush_all:
//!   ms twincache.probe 2 E1 ──> HD     md twincache.probe ──> HD: kept     NF: dropped, from now on nocas
//! ```
//!
//! memcached takes `E` from 1.6.27 on. The version is not compared, because a fork, a proxy or a build of a distribution
//! may have another number than its commands. The question stores nothing: it replaces an item that is not there, by
//! one that has expired.
//!
//! That is not all. Older versions drop after a flush_all each item whose cas is below their own counter, and an `E` does
//! not move that counter: a copy would lose items without a word. None of those that were tried does both (1.6.24 has
//! no `E`; 1.6.37 and later do not drop), but the ones between were not at hand. So each stream begins with an item of
//! cas 1, which is taken away again. An item without `E` comes before the flush_all, so that the counter is above 1.
//!
//! A server started with `-C` takes `E` and keeps nothing of it, which does no harm.
//!
//! Not here: when that is asked (`sink`).

/// Asks whether `E` is taken.
pub(super) const TAKES_CAS: &[u8] = b"ms twincache.probe 2 MR T-1 E1\r\nok\r\n";

/// Counts one item before a flush_all.
pub(super) const COUNT_ONE: &[u8] = b"ms twincache.probe 2\r\nok\r\n";

/// Stores an item with the lowest cas.
pub(super) const STORE: &[u8] = b"ms twincache.probe 2 E1\r\nok\r\n";

/// Takes it away, and so tells whether it was there.
pub(super) const TAKE_AWAY: &[u8] = b"md twincache.probe\r\n";

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerCas {
    /// The peer that is connected takes it.
    is_taken: bool,
    /// The last item with the lowest cas was stored.
    is_stored: bool,
    /// The peer of this identity drops items by it.
    dropped_by: Option<String>,
}

impl PeerCas {
    /// Whether the peer of this identity is sent any.
    pub(super) fn is_sent_to(&self, identity: &str) -> bool {
        self.is_taken && self.dropped_by.as_deref() != Some(identity)
    }

    /// The peer has answered [`TAKES_CAS`] so. Whether it takes it.
    pub(super) fn asked(&mut self, answer: &[u8]) -> bool {
        self.is_taken = answer == b"NS";
        self.is_taken
    }

    /// The peer has answered [`STORE`] so. One that is full may refuse, which says nothing.
    pub(super) fn stored(&mut self, answer: &[u8]) {
        self.is_stored = answer == b"HD";
    }

    /// The peer of this identity has answered [`TAKE_AWAY`] so. Whether it keeps what it stores.
    pub(super) fn taken_away(&mut self, answer: &[u8], identity: &str) -> bool {
        let is_dropped = std::mem::take(&mut self.is_stored) && answer == b"NF";
        if is_dropped {
            self.dropped_by = Some(identity.to_owned());
        }
        !is_dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cas_goes_to_those_that_take_and_keep_it() {
        let mut cas = PeerCas::default();
        assert!(!cas.is_sent_to("mc-1-9"), "nobody was asked");
        assert!(!cas.asked(b"CLIENT_ERROR invalid flag") && !cas.is_sent_to("mc-1-9"));
        assert!(cas.asked(b"NS") && cas.is_sent_to("mc-1-9"));
        for (stored, taken_away) in [("HD", "HD"), ("SERVER_ERROR out of memory storing object", "NF")] {
            cas.stored(stored.as_bytes());
            assert!(cas.taken_away(taken_away.as_bytes(), "mc-1-9") && cas.is_sent_to("mc-1-9"));
        }
        cas.stored(b"HD");
        assert!(!cas.taken_away(b"NF", "mc-1-9") && !cas.is_sent_to("mc-1-9"));
        assert!(cas.is_sent_to("mc-2-9"), "another server");
    }
}
