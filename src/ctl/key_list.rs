//! The keys of a server, as `lru_crawler metadump` lists them, in a file that has no name.
//!
//! ```text
//!   curr_items ── metadump ──> as many, or as many as the last time? ── no, after a pause: again, at most thrice
//!                                └── yes: what was listed last ──> one key after the other
//! ```
//!
//! A server may go on counting more than it lists: an item that has expired counts until the server comes across it.
//!
//! Not here: what is asked of them (`dump`).

use super::dial::{Dialed, number_of};
use super::exit::CtlExit;
use crate::protocol::KEY_MAX;
use crate::protocol::token::strict_i64;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

/// How often the list is made at most.
const LISTS_MAX: u32 = 4;

/// The pause before it is made again: what was read before is in its place then.
const PAUSE: Duration = Duration::from_millis(300);

/// Longest line of a list: a key of 250 bytes, each as `%XX`, and numbers.
const LINE_MAX: usize = 4096;

/// A key that is to be asked for.
pub(super) struct ListedKey {
    pub key: Vec<u8>,
    /// When it expires, as the list says: 0 is never.
    pub expires_at: i64,
}

/// See the module's head.
pub(super) struct KeyList {
    lines: BufReader<File>,
    len: u64,
    /// What the server counted before.
    counted: u64,
}

impl KeyList {
    /// Lists the keys of a server.
    pub(super) fn of(server: &mut Dialed) -> Result<KeyList, CtlExit> {
        let mut before = None;
        for _ in 1..LISTS_MAX {
            let list = KeyList::once(server)?;
            if list.len >= list.counted || before == Some(list.len) {
                return Ok(list);
            }
            before = Some(list.len);
            std::thread::sleep(PAUSE);
        }
        KeyList::once(server)
    }

    fn once(server: &mut Dialed) -> Result<KeyList, CtlExit> {
        let counted = number_of(&server.stats("")?, "curr_items").unwrap_or(0);
        let mut out = BufWriter::new(nameless().map_err(|error| unlisted(&error))?);
        server.send(b"lru_crawler metadump all\r\n")?;
        let (mut line, mut len) = (Vec::new(), 0);
        loop {
            server.line(&mut line)?;
            match line.as_slice() {
                b"OK" => continue,
                b"END" => break,
                row if wanted(row).is_some() && row.len() < LINE_MAX => len += 1,
                row => {
                    let said = String::from_utf8_lossy(row);
                    return Err(server.refused(&format!("lru_crawler metadump all: {said}")));
                }
            }
            line.push(b'\n');
            out.write_all(&line).map_err(|error| unlisted(&error))?;
        }
        let mut file = out.into_inner().map_err(|error| unlisted(error.error()))?;
        file.rewind().map_err(|error| unlisted(&error))?;
        Ok(KeyList { lines: BufReader::new(file), len, counted })
    }

    /// How many there are.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// How many items the server counted, if that is more than it has listed.
    pub(super) fn missing(&self) -> Option<u64> {
        (self.counted > self.len).then_some(self.counted)
    }

    /// The next one.
    pub(super) fn next(&mut self) -> Result<Option<ListedKey>, CtlExit> {
        let mut line = Vec::new();
        self.lines.read_until(b'\n', &mut line).map_err(|error| unlisted(&error))?;
        line.pop();
        Ok(wanted(&line))
    }
}

/// A file that goes with this process.
fn nameless() -> io::Result<File> {
    let mut number = 0;
    loop {
        let path = std::env::temp_dir().join(format!("twincachectl-keys-{}-{number}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return std::fs::remove_file(&path).map(|()| file),
            Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 100 => number += 1,
            Err(error) => return Err(error),
        }
    }
}

fn unlisted(error: &io::Error) -> CtlExit {
    let folder = std::env::temp_dir();
    CtlExit::not_done(&format!("a list of the keys in {}: {error}; TMPDIR names another folder", folder.display()))
}

/// The key and the time of a line of the list.
pub(super) fn wanted(row: &[u8]) -> Option<ListedKey> {
    let mut words = row.strip_prefix(b"key=")?.split(|byte| *byte == b' ');
    let key = decoded(words.next()?)?;
    let expires_at = strict_i64(words.next()?.strip_prefix(b"exp=")?)?;
    Some(ListedKey { key, expires_at: expires_at.max(0) })
}

/// What stands for `%XX`.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            key.push(byte);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        key.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = behind;
    }
    (1..=KEY_MAX).contains(&key.len()).then_some(key)
}
