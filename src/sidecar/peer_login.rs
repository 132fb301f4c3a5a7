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

use crate::protocol::login::of_first_line;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::PathBuf;

/// Bytes of the key.
const KEY: usize = 251;

/// What is read of the file.
const FILE_MAX: u64 = 64 << 10;

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
        let mut text = Vec::new();
        let read = File::open(&self.file).and_then(|file| file.take(FILE_MAX).read_to_end(&mut text));
        read.map_err(|error| fault(&error.to_string()))?;
        let Some((user, password)) = of_first_line(&text) else {
            return Err(fault("its first line is to be <user>:<password>"));
        };
        let (key, len) = ("k".repeat(KEY), user.len() + 1 + password.len());
        Ok([format!("set {key} 0 0 {len}\r\n").as_bytes(), user, b" ", password, b"\r\n"].concat())
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
