//! Connecting to the server's control socket, if that is safe, and asking for the server's status.
//!
//! The process behind the socket decides what the peers hold. So only its owner may have access to the socket, since
//! others could read every item; and the owner must be the user of this process, or root. Else anybody who may write to
//! the folder (`/tmp`, say) could put a socket of his own there. The path may lead elsewhere between the look at its
//! owner and the connection, so the process at the other end is looked at, too.

use super::moment::Trouble;
use crate::protocol::control::{ClientLine, ServerLine};
use crate::sys::{process, socket};
use std::fmt::Display;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest wait for a part of an answer.
const STATUS_MAX: Duration = Duration::from_secs(1);

/// Most bytes of all answers: some lines of 127 slab classes, of buckets and of keys.
const STATUS_BYTES: u64 = 1 << 20;

/// Connects, if that is safe.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Trouble> {
    let shown = path.display();
    let meta = std::fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Trouble::Absent(format!("there is no {shown}: is twincached up, with control_socket?")),
        _ => Trouble::Refused(format!("{shown}: {error}")),
    })?;
    if !meta.file_type().is_socket() {
        return Err(Trouble::Refused(format!("{shown} is not a socket")));
    }
    let mode = meta.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Trouble::Refused(format!("{shown} is open to others (mode {mode:03o}): chmod 600 it")));
    }
    let we = process::effective_user();
    let may_be_trusted = |uid| uid == we || uid == 0;
    if !may_be_trusted(meta.uid()) {
        return Err(Trouble::Refused(not_ours(&shown, "belongs to", meta.uid(), we)));
    }
    let socket = UnixStream::connect(path).map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => {
            Trouble::Refused(format!("no permission for {shown}: run as the user of twincached ({})", meta.uid()))
        }
        ErrorKind::ConnectionRefused => Trouble::Absent(format!("nobody serves {shown}: is twincached up?")),
        _ => Trouble::Broken(format!("{shown}: {error}")),
    })?;
    match socket::peer_user(socket.as_raw_fd()) {
        Ok(uid) if may_be_trusted(uid) => Ok(socket),
        Ok(uid) => Err(Trouble::Refused(not_ours(&shown, "is served by", uid, we))),
        Err(error) => Err(Trouble::Broken(format!("{shown}: {error}"))),
    }
}

fn not_ours(shown: &impl Display, what: &str, uid: u32, we: u32) -> String {
    format!("{shown} {what} user {uid}, and the sidecar runs as user {we}: run it as the user of twincached")
}

/// Rows of statistics: names and values.
pub(super) type StatRows = Vec<(String, String)>;

/// Asks for statistics by these lines, and returns the rows of each. What the server does not know has none. The error is
/// why there is no answer: who shows it says that there is none.
pub(super) fn ask(path: &Path, lines: &[ClientLine<'_>]) -> Result<Vec<StatRows>, String> {
    let mut socket = connect(path).map_err(Trouble::text)?;
    let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    let asked = socket
        .set_read_timeout(Some(STATUS_MAX))
        .and_then(|()| socket.set_write_timeout(Some(STATUS_MAX)))
        .and_then(|()| socket.write_all(text.as_bytes()));
    asked.map_err(|error| error.to_string())?;
    let (mut answers, mut rows) = (Vec::with_capacity(lines.len()), StatRows::new());
    for line in BufReader::new(socket.take(STATUS_BYTES)).lines() {
        let line = line.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("it says nothing for {} s", STATUS_MAX.as_secs()),
            _ => error.to_string(),
        })?;
        match ServerLine::parse(line.as_bytes()) {
            Some(ServerLine::Stat(name, value)) => rows.push((name.to_owned(), value.to_owned())),
            Some(ServerLine::End | ServerLine::Wrong(_)) => answers.push(std::mem::take(&mut rows)),
            Some(ServerLine::Greeting(..)) => {}
            // An older server answers so to what it does not know.
            None if line == "ERROR" => answers.push(StatRows::new()),
            _ => return Err(format!("it says `{line}`")),
        }
        if answers.len() == lines.len() {
            return Ok(answers);
        }
    }
    Err("it ends the connection".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn why_there_is_no_answer_is_said_once() {
        let path = std::env::temp_dir().join(format!("twincache-silent-{}", std::process::id()));
        let _silent = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let said = ask(&path, &[ClientLine::Status]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(said.unwrap_err(), "it says nothing for 1 s");
    }
}
