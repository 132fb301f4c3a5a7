//! Who a peer is, and what its statistics tell of it.
//!
//! A twincached says by `replica who` which run it is. A stock memcached says no such thing: its process and the moment of
//! its start stand for a run.
//!
//! Not here: when it is asked (`sink`).

use crate::protocol::control;

/// Who the peer is.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerInfo {
    /// Its run, or what stands for one with a stock memcached.
    pub identity: String,
    /// Whether the peer is a stock memcached, and no twincached.
    pub is_stock: bool,
    /// Items that the peer holds.
    pub items: Option<u64>,
    pid: String,
    /// Its wall clock in seconds, when it told its statistics.
    pub time: i64,
    uptime: i64,
}

impl PeerInfo {
    /// A twincached of this run.
    pub(super) fn twincached(run: &str) -> PeerInfo {
        PeerInfo { identity: run.to_owned(), ..PeerInfo::default() }
    }

    /// A memcached whose statistics have not come.
    pub(super) fn stock() -> PeerInfo {
        PeerInfo { is_stock: true, ..PeerInfo::default() }
    }

    /// Completes what the statistics have told; false when they left out what has to be known.
    pub(super) fn complete(&mut self) -> bool {
        if self.is_stock {
            // This is constant while the process runs: memcached makes both numbers from the same clock.
            let started = self.time.saturating_sub(self.uptime);
            self.identity = format!("mc-{}-{started}", self.pid);
        }
        self.time > 0 && self.items.is_some() && control::is_word(&self.pid)
    }

    /// Takes a line of its statistics.
    pub(super) fn learn(&mut self, name: &[u8], value: &[u8]) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        match name {
            b"pid" => self.pid = text.to_owned(),
            b"time" => self.time = text.parse().unwrap_or(0),
            b"uptime" => self.uptime = text.parse().unwrap_or(0),
            b"curr_items" => self.items = text.parse().ok(),
            _ => {}
        }
    }
}
