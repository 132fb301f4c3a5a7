//! A primary with a control socket, and what replicates or shows it.
//!
//! ```text
//! Primary ── control socket ──> Process (sidecar) ──> Server (its peer)
//! ```
//!
//! Not here: what is measured of them (`replication`).

use crate::server::{LOAD_CPU, Process, Program, Server};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of every server here.
pub const MEMORY: &str = "4096";

/// Longest wait for a copy to be whole.
const WHOLE_MAX: Duration = Duration::from_secs(120);

/// Between two questions how far a copy is: each is a connection for the one worker.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// See the module's head.
pub struct Primary {
    pub server: Server,
    socket: PathBuf,
}

impl Primary {
    pub fn start(program: &Program, cpus: &str) -> Result<Primary, String> {
        static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("twincache-bench-{}-{number}.control", std::process::id());
        let socket = std::env::temp_dir().join(name);
        let control = format!("control_socket={}", socket.display());
        Ok(Primary { server: program.start_on(cpus, &["-m", MEMORY, "-o", &control])?, socket })
    }

    /// A sidecar that feeds this peer.
    pub fn replicate(&self, program: &Program, cpus: &str, peer: &Server) -> Result<Process, String> {
        let (server, peer) = (format!("unix:{}", self.socket.display()), peer.address.to_string());
        program.sidecar(cpus, &["--server", &server, "--peer", &peer])
    }

    /// A sidecar that only shows it, once it can be asked.
    pub fn show(&self, program: &Program, http: SocketAddr) -> Result<Process, String> {
        let (server, address) = (format!("unix:{}", self.socket.display()), http.to_string());
        let sidecar = program.sidecar(LOAD_CPU, &["--server", &server, "--http", &address])?;
        let end = Instant::now() + WHOLE_MAX;
        while TcpStream::connect(http).is_err() {
            if Instant::now() > end {
                return Err(format!("the sidecar does not listen at {http}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(sidecar)
    }

    /// Waits until the copy is whole and confirmed.
    pub fn wait(&self) -> Result<(), String> {
        let end = Instant::now() + WHOLE_MAX;
        loop {
            let stats = self.server.stats("replication");
            let streams = stats.get("0:state").is_some_and(|state| state == "streaming");
            if streams && stats.get("0:acked_lsn") == stats.get("lsn") {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the copy does not become whole: {stats:?}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// How its only consumer stands.
    pub fn state(&self) -> Option<String> {
        self.server.stats("replication").get("0:state").cloned()
    }

    pub fn wait_for(&self, state: &str) -> Result<(), String> {
        let end = Instant::now() + WHOLE_MAX;
        while self.state().as_deref() != Some(state) {
            if Instant::now() > end {
                return Err(format!("the consumer is never {state}"));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Gives an administrative line to the control socket.
    pub fn tell(&self, line: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", self.socket.display());
        let mut stream = UnixStream::connect(Path::new(&self.socket)).map_err(failed)?;
        stream.write_all(format!("{line}\r\n").as_bytes()).map_err(failed)?;
        for answer in BufReader::new(stream).lines() {
            match answer.map_err(failed)?.as_str() {
                "OK" => return Ok(()),
                "ERROR" => return Err(format!("{line}: refused")),
                _ => {}
            }
        }
        Err(format!("{line}: no answer"))
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // The server is killed, and leaves its socket.
        let _ = std::fs::remove_file(&self.socket);
    }
}
