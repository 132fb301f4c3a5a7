//! The thread that tells the server which shards there are, for clients that discover.
//!
//! ```text
//!   topology in etcd ── every second ──> another than was told, or another connection? ──> `topology …` on the
//!                                                                                          server's control socket
//! ```
//!
//! The connection stays open, and is used for nothing else: its end tells that the server has gone, and the next one
//! has to be told again. It is not the keeper's, whose orders are answered in order.
//!
//! Not here: who writes the topology (`twincachectl`), what clients are answered (`command::discovery`).

use crate::cluster::Etcd;
use crate::cluster::keys::ClusterKeys;
use crate::cluster::options::ClusterOptions;
use crate::cluster::record::{TopologyRecord, from_bytes};
use crate::protocol::topology::TopologyLine;
use crate::sidecar::server_socket;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the topology is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Longest wait for etcd, and for each answer of the server.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the server was told last, and the connection on which it was.
type ToldTopology = Option<(UnixStream, String)>;

/// Starts the thread, which ends with the process.
pub(super) fn start(cluster: &ClusterOptions, server: PathBuf) -> Result<(), String> {
    let etcd = Etcd::new(&cluster.etcd).map_err(|error| error.to_string())?;
    let key = ClusterKeys::new(&cluster.cluster).topology();
    let spawned = std::thread::Builder::new().name("topology".into()).spawn(move || run(etcd, &key, &server));
    spawned.map(drop).map_err(|error| format!("cannot start a thread: {error}"))
}

fn run(mut etcd: Etcd, key: &str, server: &Path) {
    let (mut told, mut complaint) = (None, String::new());
    loop {
        match keep_told(&mut etcd, key, server, &mut told) {
            Ok(()) => complaint.clear(),
            Err(why) if why == complaint => {}
            Err(why) => {
                log::warn!("the topology is not told to the server: {why}");
                complaint = why;
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Tells the server the topology unless it knows it. That etcd or the server is away is known by others.
fn keep_told(etcd: &mut Etcd, key: &str, server: &Path, told: &mut ToldTopology) -> Result<(), String> {
    told.take_if(|(socket, _)| !is_open(socket));
    let Some(value) = etcd.get(key, PATIENCE).ok().and_then(|snapshot| snapshot.value) else { return Ok(()) };
    let line = from_bytes::<TopologyRecord>(&value.bytes)?.to_string();
    if told.as_ref().is_some_and(|(_, before)| *before == line) {
        return Ok(());
    }
    if TopologyLine::parse(line.as_bytes()).is_none() {
        return Err(format!("{key} in etcd says `{line}`"));
    }
    *told = None;
    let Ok(socket) = server_socket::connect(server) else { return Ok(()) };
    let answer = tell(&socket, &line).map_err(|error| error.to_string())?;
    if answer != "OK" {
        return Err(format!("it answers `{answer}`"));
    }
    log::info!("the server was told the {line}");
    *told = Some((socket, line));
    Ok(())
}

fn tell(mut socket: &UnixStream, line: &str) -> io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.write_all(format!("{line}\r\n").as_bytes())?;
    let mut lines = BufReader::new(socket).lines();
    let mut next = || lines.next().unwrap_or_else(|| Err(ErrorKind::UnexpectedEof.into()));
    // The greeting comes first.
    next()?;
    let answer = next()?;
    socket.set_nonblocking(true)?;
    Ok(answer)
}

/// Whether the server still holds the connection; it says nothing on it any more.
fn is_open(mut socket: &UnixStream) -> bool {
    matches!(socket.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
