//! Connecting to the server's control socket, if that is safe, and asking for the server's status.
//!
//! The process behind the socket decides what the peers hold. So only the owner may have access to the socket: others
//! could read every item, or put a socket of their own there.

use super::moment::Trouble;
use crate::protocol::control::{ClientLine, ServerLine};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for an answer to `status`.
const STATUS_MAX: Duration = Duration::from_secs(1);

/// Most bytes of an answer to `status`: some hundred lines.
const STATUS_BYTES: u64 = 256 << 10;

/// Connects, if that is safe.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Trouble> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::Broken(format!("there is no {shown}: is twincached up, with control_socket?")),
        _ => Trouble::Refused(format!("{shown}: {error}")),
    })?;
    if !meta.file_type().is_socket() {
        return Err(Trouble::Refused(format!("{shown} is not a socket")));
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Trouble::Refused(format!("{shown} is open to others (mode {mode:03o}): chmod 600 it")));
    }
    UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Trouble::Refused(format!("no permission for {shown}: run as the user of twincached (uid {})", meta.uid()))
        }
        ErrorKind::ConnectionRefused => Trouble::Broken(format!("nobody serves {shown}: is twincached up?")),
        _ => Trouble::Broken(format!("{shown}: {error}")),
    })
}

/// The lines of `stats replication`, as (name, value).
pub(super) fn status(path: &Path) -> Result<Vec<(String, String)>, String> {
    let mut socket = connect(path).map_err(Trouble::text)?;
    let asked = socket
        .set_read_timeout(Some(STATUS_MAX))
        .and_then(|()| socket.set_write_timeout(Some(STATUS_MAX)))
        .and_then(|()| socket.write_all(format!("{}\r\n", ClientLine::Status).as_bytes()));
    asked.map_err(|error| error.to_string())?;
    let mut stats = Vec::new();
    for line in BufReader::new(socket.take(STATUS_BYTES)).lines() {
        let line = line.map_err(|error| format!("the server does not answer: {error}"))?;
        match ServerLine::parse(line.as_bytes()) {
            Some(ServerLine::Stat(name, value)) => stats.push((name.to_owned(), value.to_owned())),
            Some(ServerLine::End) => return Ok(stats),
            Some(ServerLine::Greeting(..)) => {}
            _ => return Err(format!("the server answers `{line}`")),
        }
    }
    Err("the server ends the connection".to_owned())
}
