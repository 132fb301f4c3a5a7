//! What the commands work with: etcd, the names of the keys, and the operator's terminal.

use super::exit::{CtlExit, to_stderr, to_stdout};
use crate::cluster::Etcd;
use crate::cluster::keys::ClusterKeys;
use crate::cluster::options::ClusterOptions;
use std::cell::RefCell;

/// See the module's head.
pub(super) struct Console {
    pub etcd: Etcd,
    pub keys: ClusterKeys,
    /// The cluster's name.
    pub cluster: String,
    /// Why stdout did not take something, the first time.
    unprinted: RefCell<Option<CtlExit>>,
}

impl Console {
    /// Does not connect yet.
    pub(super) fn new(options: &ClusterOptions) -> Result<Console, CtlExit> {
        let cluster = options.cluster.clone();
        Ok(Console {
            etcd: Etcd::new(&options.etcd)?,
            keys: ClusterKeys::new(&cluster),
            cluster,
            unprinted: RefCell::default(),
        })
    }

    /// Prints text. That nobody reads it, or that it is lost, is no reason to stop half-way.
    pub(super) fn print(&self, text: &str) {
        if let Err(lost) = to_stdout(text) {
            self.unprinted.borrow_mut().get_or_insert(lost);
        }
    }

    /// What it printed is there.
    pub(super) fn end(self) -> Result<(), CtlExit> {
        self.unprinted.into_inner().map_or(Ok(()), Err)
    }

    /// Prints a line.
    pub(super) fn say(&self, line: &str) {
        self.print(&format!("{line}\n"));
    }

    /// Prints a line on stderr.
    pub(super) fn warn(&self, line: &str) {
        to_stderr(&format!("twincachectl: {line}\n"));
    }
}
