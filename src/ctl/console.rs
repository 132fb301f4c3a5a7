//! What the commands work with: etcd, the names of the keys, and the operator's terminal.

use super::exit::CtlExit;
use crate::cluster::Etcd;
use crate::cluster::keys::ClusterKeys;
use crate::cluster::options::ClusterOptions;
use std::io::Write;

/// See the module's head.
pub(super) struct Console {
    pub etcd: Etcd,
    pub keys: ClusterKeys,
    /// The cluster's name.
    pub cluster: String,
}

impl Console {
    /// Does not connect yet.
    pub(super) fn new(options: &ClusterOptions) -> Result<Console, CtlExit> {
        let cluster = options.cluster.clone();
        Ok(Console { etcd: Etcd::new(&options.etcd)?, keys: ClusterKeys::new(&cluster), cluster })
    }

    /// Prints text. That nobody reads it is no reason to stop half-way.
    pub(super) fn print(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Prints a line.
    pub(super) fn say(&self, line: &str) {
        self.print(&format!("{line}\n"));
    }

    /// Prints a line on stderr.
    pub(super) fn warn(&self, line: &str) {
        let _ = writeln!(std::io::stderr(), "twincachectl: {line}");
    }
}
