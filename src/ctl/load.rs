//! `load`: stores what `dump` has written, or any file of such commands, in a server, ours or a memcached.
//!
//! ```text
//!   stdin   ms, its data │ md │ mg │ mn ──DumpLine──> sent, 256 commands and then `mn`     values pass through in pieces
//!   server  … MN <── read one round later, so that both sides work at a time
//!            each line before MN is a command that it refused
//! ```
//!
//! A file is a stranger's: only lines that a dump has are sent, and data must end where its line says, so a value is
//! never taken for a command. Items that are dead by the server's clock are left out. `E` is left out for a server that
//! does not know it, and so is an item whose key in base64 is too long for it, which counts as refused.
//!
//! Invariant: it ends well only if the file ended with `mn` and the server took every command.
//!
//! Not here: what writes it (`dump`), what a line may have (`dump_line`).

use super::dial::Dialed;
use super::dump::{END, ToldClock, takes_blanks};
use super::dump_line::DumpLine;
use super::exit::CtlExit;
use super::pace::{MovePace, MoveTotal, MovedServer};
use crate::clock::RELATIVE_MAX;
use crate::protocol::KEY_MAX;
use crate::protocol::base64::ENCODED_MAX;
use crate::protocol::token::words;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, Read, Seek};
use std::os::fd::AsFd;

/// Commands between two `mn`: all of them refused make less than a socket's buffer holds.
const ROUND: u64 = 256;

/// Bytes after which a round ends, too.
const ROUND_BYTES: u64 = 256 << 10;

/// The longest line of a command: that of a server.
const LINE_MAX: u64 = 2048;

/// Whether `E` is taken: by a set that replaces an item that is not there. See `sidecar/link/peer_cas`.
const TAKES_CAS: &[u8] = b"ms twincache.probe 2 MR T-1 E1\r\nok\r\n";

/// How many bytes stdin has, if it is a file.
pub(super) fn left_of_stdin() -> Option<u64> {
    let mut file = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?);
    let size = file.metadata().ok().filter(Metadata::is_file)?.len();
    size.checked_sub(file.stream_position().ok()?)
}

/// Loads `from`, which has so many bytes, if that is known. The text says what was done.
pub(super) fn load(server: &MovedServer, from: &mut impl BufRead, size: Option<u64>) -> Result<String, CtlExit> {
    let mut loader = Loader::new(server, from)?;
    loader.pace.total = size.map(MoveTotal::Bytes);
    let done = loader.run();
    loader.pace.end();
    let said = loader.said();
    match done {
        Err(mut exit) => {
            exit.stderr += &format!("twincachectl: {said}; the rest of the file was not loaded\n");
            Err(exit)
        }
        Ok(()) => match &loader.refusal {
            Some(refusal) => Err(CtlExit::not_done(&format!("{said}; the first answer that was none: {refusal}"))),
            None => Ok(said),
        },
    }
}

struct Loader<'f, R> {
    server: Dialed,
    from: &'f mut R,
    pace: MovePace,
    clock: ToldClock,
    takes_cas: bool,
    /// The longest key in base64 that it takes.
    base64_max: usize,
    /// Which command of the file it is, for errors.
    number: u64,
    /// Bytes of the file so far.
    read: u64,
    /// What goes out next.
    out: Vec<u8>,
    /// Commands and bytes since the last `mn`.
    round: (u64, u64),
    /// Rounds that were sent and not answered.
    owed: u32,
    items: u64,
    dead: u64,
    refused: u64,
    refusal: Option<String>,
}

impl<'f, R: BufRead> Loader<'f, R> {
    fn new(moved: &MovedServer, from: &'f mut R) -> Result<Loader<'f, R>, CtlExit> {
        let mut server = moved.dial()?;
        let rows = server.stats("")?;
        let clock = ToldClock::new(&server, &rows)?;
        let said = server.ask(TAKES_CAS)?;
        let takes_cas = match said.as_str() {
            "NS" => true,
            "CLIENT_ERROR invalid flag" => after_refused_cas(&mut server)?,
            _ => return Err(server.refused(&format!("it takes no changes: {said}"))),
        };
        let base64_max = base64_max(&mut server)?;
        Ok(Loader {
            server,
            from,
            pace: MovePace::new(moved.limit_megabits),
            clock,
            takes_cas,
            base64_max,
            number: 0,
            read: 0,
            out: Vec::new(),
            round: (0, 0),
            owed: 0,
            items: 0,
            dead: 0,
            refused: 0,
            refusal: None,
        })
    }

    fn run(&mut self) -> Result<(), CtlExit> {
        let mut line = Vec::new();
        while self.line(&mut line)? {
            let end = line.len() - b"\r\n".len();
            if self.command(&line[..end])? {
                return self.settle();
            }
            self.flush_if_due()?;
        }
        self.settle()?;
        Err(self.broken("the file ends without `mn`: it is a part of a dump"))
    }

    /// The next line with its end; false at the end of the file.
    fn line(&mut self, line: &mut Vec<u8>) -> Result<bool, CtlExit> {
        line.clear();
        self.number += 1;
        let read = (&mut *self.from).take(LINE_MAX).read_until(b'\n', line);
        let read = read.map_err(|error| self.unread(&error))?;
        self.read += read as u64;
        if read > 0 && !line.ends_with(b"\r\n") {
            return Err(self.broken("the line has no end, or is too long"));
        }
        Ok(read > 0)
    }

    /// Sends one command with its data; true for the end of the dump.
    fn command(&mut self, line: &[u8]) -> Result<bool, CtlExit> {
        if line == b"mn" {
            return Ok(true);
        }
        let read = DumpLine::read(line).map_err(|why| self.broken(why))?;
        match read.len {
            Some(len) => self.set(line, len, &read)?,
            None if read.base64_len <= self.base64_max => self.queue(line),
            // What it would mark was not stored.
            None => {}
        }
        Ok(false)
    }

    fn set(&mut self, line: &[u8], len: u64, read: &DumpLine) -> Result<(), CtlExit> {
        let is_dead = self.is_dead(read);
        let is_unnamed = !is_dead && read.base64_len > self.base64_max;
        let is_dropped = is_dead || is_unnamed;
        if is_unnamed {
            self.refuse(format!("a key of {} characters of base64 is too long for this server", read.base64_len));
        }
        if !is_dropped {
            self.queue(line);
            self.send()?;
        }
        self.value(len, is_dropped)?;
        self.dead += u64::from(is_dead);
        self.items += u64::from(!is_dropped);
        self.pace.shown(self.items + self.dead, self.read);
        Ok(())
    }

    fn refuse(&mut self, refusal: String) {
        self.refused += 1;
        self.refusal.get_or_insert(refusal);
    }

    /// Whether its `T` is over by the server's clock.
    fn is_dead(&self, line: &DumpLine) -> bool {
        line.expiry.is_some_and(|time| time < 0 || time > RELATIVE_MAX && time <= self.clock.now())
    }

    /// Passes the value and its line end on, or drops them.
    fn value(&mut self, mut len: u64, is_dropped: bool) -> Result<(), CtlExit> {
        let mut end = [0; 2];
        while len > 0 {
            let piece = match self.from.fill_buf() {
                Ok(piece) if !piece.is_empty() => piece,
                Ok(_) => return Err(self.broken("the file ends in the value of this line")),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unread(&error)),
            };
            let taken = piece.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            if !is_dropped {
                self.server.send(&piece[..taken])?;
                self.pace.moved(taken);
                self.round.1 += taken as u64;
            }
            self.from.consume(taken);
            self.read += taken as u64;
            len -= taken as u64;
        }
        self.from.read_exact(&mut end).map_err(|_| self.broken("the file ends in the value of this line"))?;
        self.read += end.len() as u64;
        if &end != b"\r\n" {
            return Err(self.broken("the value is longer than this line says"));
        }
        if is_dropped {
            return Ok(());
        }
        self.out.extend_from_slice(&end);
        // A memcached hangs when something follows a value in one record: it reads no further than the value, and no
        // event tells it that OpenSSL has more.
        if self.server.has_records() { self.send() } else { Ok(()) }
    }

    /// Puts a line into what goes out: quiet, and without what the server does not know.
    fn queue(&mut self, line: &[u8]) {
        let first_flag = if line.starts_with(b"ms ") { 3 } else { 2 };
        let mut is_quiet = false;
        for (at, word) in words(line).enumerate() {
            let is_flag = at >= first_flag;
            is_quiet |= is_flag && word == b"q";
            if is_flag && word.starts_with(b"E") && !self.takes_cas {
                continue;
            }
            if at > 0 {
                self.out.push(b' ');
            }
            self.out.extend_from_slice(word);
        }
        self.out.extend_from_slice(if is_quiet { b"\r\n" } else { b" q\r\n" });
        self.round.0 += 1;
    }

    fn send(&mut self) -> Result<(), CtlExit> {
        self.round.1 += self.out.len() as u64;
        self.pace.moved(self.out.len());
        self.server.send(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn flush_if_due(&mut self) -> Result<(), CtlExit> {
        if self.round.0 < ROUND && self.round.1 + (self.out.len() as u64) < ROUND_BYTES {
            return Ok(());
        }
        self.mark()?;
        if self.owed > 1 { self.answers() } else { Ok(()) }
    }

    /// Asks whether all of this was taken.
    fn mark(&mut self) -> Result<(), CtlExit> {
        self.out.extend_from_slice(END);
        self.send()?;
        self.round = (0, 0);
        self.owed += 1;
        Ok(())
    }

    /// Reads the answers of the oldest round.
    fn answers(&mut self) -> Result<(), CtlExit> {
        let mut line = Vec::new();
        loop {
            self.server.line(&mut line)?;
            match line.as_slice() {
                b"MN" => break,
                // A read that took a token, and what is not there to be read.
                b"HD" | b"EN" | b"NF" => {}
                _ if line.starts_with(b"HD ") => {}
                refusal => self.refuse(String::from_utf8_lossy(refusal).into_owned()),
            }
        }
        self.owed -= 1;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), CtlExit> {
        self.mark()?;
        while self.owed > 0 {
            self.answers()?;
        }
        Ok(())
    }

    fn said(&self) -> String {
        let mut text = format!("{} items sent to {}, {}", self.items, self.server.server, self.pace.volume());
        if self.dead > 0 {
            text += &format!("; {} left out, which were dead", self.dead);
        }
        if self.refused > 0 {
            text += &format!("; {} refused", self.refused);
        }
        if !self.takes_cas {
            text += "; without cas uniques, which this server does not take";
        }
        text
    }

    fn broken(&self, why: &str) -> CtlExit {
        CtlExit::not_done(&format!("command {} of the dump: {why}", self.number))
    }

    fn unread(&self, error: &io::Error) -> CtlExit {
        CtlExit::not_done(&format!("stdin: {error}"))
    }
}

/// The longest key in base64 that it takes: memcached counts the characters, and one before 1.6.10 takes none.
fn base64_max(server: &mut Dialed) -> Result<usize, CtlExit> {
    if takes_blanks(server, KEY_MAX)? {
        return Ok(ENCODED_MAX);
    }
    Ok(if takes_blanks(server, 1)? { KEY_MAX } else { 0 })
}

/// A memcached before 1.6.27 refuses the line and swallows the value, or takes it for a command of its own.
fn after_refused_cas(server: &mut Dialed) -> Result<bool, CtlExit> {
    server.send(END)?;
    let mut line = Vec::new();
    while line != b"MN" {
        server.line(&mut line)?;
    }
    Ok(false)
}

#[cfg(test)]
#[path = "tests/load.rs"]
mod tests;
