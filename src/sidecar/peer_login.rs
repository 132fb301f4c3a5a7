//! Logging in to a peer whose clients have to (`-Y`): user and password, before anything else is said.
//!
//! ```text
//!   set <a key of 251 bytes> 0 0 <len>\r\n<user> <password>\r\n  ──>  STORED: logged in
//! ```
//!
//! Who asks for a login does not look at the key. Who does not ask for one would store the password: so the key is longer
//! than any may be.
//!
//! Invariants: the password is in memory only while it is sent, and in no message; the file is read for each connection, so
//! what changes in it counts from the next one on.
//!
//! Not here: sockets (`link::peer_socket`, `lease::promises`).

use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;

/// Bytes of the key.
const KEY: usize = 251;

/// Most bytes of user and password.
const LOGIN_MAX: usize = 1000;

/// Most bytes of an answer.
const ANSWER_MAX: usize = 200;

/// Where user and password are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerLogin {
    file: PathBuf,
}

impl PeerLogin {
    /// In the first line of this file.
    pub(super) fn new(file: PathBuf) -> PeerLogin {
        PeerLogin { file }
    }

    /// What is wrong with the file, if anything is.
    pub(super) fn check(&self) -> Option<String> {
        self.request().err()
    }

    /// Logs in. `wait` is called when the stream has nothing to read, or no room, and returns when that may have changed.
    pub(super) fn log_in<S: Read + Write>(
        &self,
        stream: &mut S,
        mut wait: impl FnMut(&mut S) -> io::Result<()>,
    ) -> io::Result<()> {
        let request = self.request().map_err(|line| io::Error::new(ErrorKind::InvalidInput, line))?;
        let (mut sent, mut answer, mut piece) = (0, Vec::new(), [0; ANSWER_MAX]);
        while !answer.ends_with(b"\n") {
            let moved = match request.get(sent..).filter(|rest| !rest.is_empty()) {
                Some(rest) => stream.write(rest).map(|n| sent += n),
                None => stream.read(&mut piece).and_then(|n| {
                    answer.extend_from_slice(&piece[..n]);
                    let is_over = n == 0 || answer.len() > ANSWER_MAX;
                    if is_over { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
                }),
            };
            match moved {
                Err(error) if error.kind() == ErrorKind::WouldBlock => wait(stream)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                moved => moved?,
            }
        }
        judge(answer.trim_ascii())
    }

    fn request(&self) -> Result<Vec<u8>, String> {
        let fault = |why: &str| format!("--peer-auth-file {}: {why}", self.file.display());
        let text = std::fs::read_to_string(&self.file).map_err(|error| fault(&error.to_string()))?;
        let line = text.lines().next().unwrap_or_default();
        match line.split_once(':') {
            Some((user, password)) if !user.is_empty() && !user.contains(' ') && line.len() <= LOGIN_MAX => {
                let key = "k".repeat(KEY);
                Ok(format!("set {key} 0 0 {}\r\n{user} {password}\r\n", line.len()).into_bytes())
            }
            _ => Err(fault("its first line is to be <user>:<password>")),
        }
    }
}

fn judge(answer: &[u8]) -> io::Result<()> {
    let refuse = |text: String| Err(io::Error::new(ErrorKind::PermissionDenied, text));
    match answer {
        b"STORED" => Ok(()),
        b"CLIENT_ERROR authentication failure" => {
            refuse("it does not take the user and password of --peer-auth-file".to_owned())
        }
        other => {
            let answer = other.escape_ascii();
            refuse(format!(
                "it answers `{answer}` to a login: it is to be started with -Y, or --peer-auth-file left out"
            ))
        }
    }
}
