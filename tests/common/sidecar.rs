//! The real twincache-sidecar.

use super::{Folder, signal, wait_for};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
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
        Sidecar::start_alone(socket, &[&["--peer", &peer.to_string()], options].concat())
    }

    /// Starts one with these options beside the server behind a control socket.
    pub fn start_alone(socket: impl AsRef<Path>, options: &[&str]) -> Sidecar {
        let folder = Folder::new();
        let log = File::create(folder.file("log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_twincache-sidecar"))
            .args(["--server", &format!("unix:{}", socket.as_ref().display())])
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the sidecar starts");
        Sidecar { child, folder }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.file("log")).unwrap_or_default()
    }

    /// Waits until it has said this; all that it has said.
    pub fn says(&self, part: &str) -> String {
        wait_for(&format!("the sidecar says {part:?}"), || Some(self.log()).filter(|log| log.contains(part)))
    }

    /// Where it serves HTTP, if it was started with `--http`.
    pub fn http(&self) -> SocketAddr {
        let log = self.says("serves http://");
        let rest = log.split("serves http://").nth(1).expect("an address");
        rest.split('/').next().unwrap().parse().expect("an address")
    }

    /// A page of it, with its head.
    pub fn page(&self, path: &str) -> String {
        get(self.http(), path)
    }

    /// Asks it to stop, and waits.
    pub fn stop(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        wait_for("the sidecar to stop", || self.child.try_wait().unwrap())
    }
}

/// A page of an HTTP server, with its head.
pub fn get(at: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
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
