//! The real twincache-sidecar.

use super::{Folder, signal, wait_for};
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A running sidecar; killed when dropped.
pub struct Sidecar {
    child: Child,
    /// Where its log is.
    folder: Folder,
}

impl Sidecar {
    /// Starts one between the server behind a control socket and a peer.
    pub fn start(socket: impl AsRef<Path>, peer: SocketAddr, options: &[&str]) -> Sidecar {
        let folder = Folder::new();
        let log = File::create(folder.file("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_twincache-sidecar"))
            .args(["--server", &format!("unix:{}", socket.as_ref().display()), "--peer", &peer.to_string()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the sidecar starts");
        Sidecar { child, folder }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).unwrap_or_default()
    }

    /// Waits until it has said this; all that it has said.
    pub fn says(&self, part: &str) -> String {
        wait_for(&format!("the sidecar says {part:?}"), || Some(self.log()).filter(|log| log.contains(part)))
    }

    /// Asks it to stop, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        wait_for("the sidecar to stop", || self.child.try_wait().unwrap())
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("a sidecar's log:\n{}", self.log());
        }
    }
}
