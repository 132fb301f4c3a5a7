//! What the server says of itself: its statistics, asked for over the control socket, with which nobody has to log in.
//!
//! Not here: what is made of them (`server_metrics`, `replication_metrics`, `page`).

use crate::protocol::control::ClientLine;
use crate::sidecar::server_socket::{self, StatRows};
use std::path::Path;

/// Rows of each kind, in the server's order. A server that does not know a kind has none of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerStats {
    /// `stats`.
    pub general: StatRows,
    /// `stats settings`.
    pub settings: StatRows,
    /// `stats items`: `items:<class>:<figure>`.
    pub items: StatRows,
    /// `stats slabs`: `<class>:<figure>`.
    pub slabs: StatRows,
    /// `stats twincache`.
    pub own: StatRows,
    /// `stats latency`.
    pub latency: StatRows,
    /// `stats latency buckets`.
    pub buckets: StatRows,
    /// `stats hotkeys`.
    pub hot_keys: StatRows,
    /// `stats replication`.
    pub replication: StatRows,
}

impl ServerStats {
    /// Asks the server at this control socket, or says why that cannot be.
    pub(crate) fn ask(path: &Path) -> Result<ServerStats, String> {
        let words = ["", "settings", "items", "slabs", "twincache", "latency", "latency buckets", "hotkeys"];
        let lines: Vec<ClientLine<'_>> = words.into_iter().map(ClientLine::Stats).chain([ClientLine::Status]).collect();
        let answers: Result<[StatRows; 9], _> = server_socket::ask(path, &lines)?.try_into();
        let [general, settings, items, slabs, own, latency, buckets, hot_keys, replication] =
            answers.map_err(|_| "it does not answer everything".to_owned())?;
        Ok(ServerStats { general, settings, items, slabs, own, latency, buckets, hot_keys, replication })
    }
}

/// The value of a row.
pub(crate) fn value<'r>(rows: &'r StatRows, name: &str) -> Option<&'r str> {
    rows.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// The value of a row that is a number.
pub(crate) fn number(rows: &StatRows, name: &str) -> Option<u64> {
    value(rows, name)?.parse().ok()
}
