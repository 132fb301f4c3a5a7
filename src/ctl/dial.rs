//! A connection to a cache server, ours or a memcached, in its text and meta protocols.
//!
//! ```text
//!   to ──> TLS? ──> a login? ──> send … ──> line, copy, stats, ask
//! ```
//!
//! Invariants: nothing waits for longer than a server's patience ([`SILENCE_MAX`]) for one that says nothing; a line is
//! read up to [`LINE_MAX`] bytes and statistics up to [`STATS_MAX`], so a server that never ends them takes no memory.
//! Values are copied in pieces.
//!
//! Not here: what is asked.

use super::exit::CtlExit;
use super::options::DialOptions;
use crate::protocol::login::of_first_line;
use crate::tls::ClientFiles;
use rustls::{ClientConnection, StreamOwned};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a server may say nothing, or take nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The longest line of a reply, with room to spare: a metadump line with a key of 250 bytes takes less than 1000.
const LINE_MAX: u64 = 8 << 10;

/// The most bytes of a `stats` reply.
const STATS_MAX: usize = 16 << 20;

/// What is read of a file with passwords: the server's own bounds are smaller.
const AUTH_FILE_MAX: u64 = 64 << 10;

/// What a server says to who has not logged in.
const UNAUTHENTICATED: &str = "CLIENT_ERROR unauthenticated";

/// Names and values of a `stats` command, in the order that they come in.
pub(super) type ToldStats = Vec<(String, String)>;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Dialed {
    /// As it was typed.
    pub server: String,
    socket: BufReader<DialedSocket>,
    /// How long it may say nothing.
    patience: Duration,
}

/// With or without TLS.
#[derive(Debug)]
enum DialedSocket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Dialed {
    /// Connects to `HOST:PORT`.
    pub(super) fn to(server: &str, options: &DialOptions) -> Result<Dialed, CtlExit> {
        Dialed::with_patience(server, options, SILENCE_MAX)
    }

    /// The same; it may say nothing for so long.
    pub(super) fn with_patience(server: &str, options: &DialOptions, patience: Duration) -> Result<Dialed, CtlExit> {
        let mut dialed = Dialed::connect(server, options.tls.as_ref(), patience)?;
        if let Some(file) = &options.auth_file {
            dialed.log_in(file)?;
        }
        Ok(dialed)
    }

    fn connect(server: &str, tls: Option<&ClientFiles>, patience: Duration) -> Result<Dialed, CtlExit> {
        let failed = |error: io::Error| CtlExit::refuse(CtlExit::UNAVAILABLE, &format!("{server}: {error}"));
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in server.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, CONNECT_MAX) {
                Ok(socket) => return Dialed::over(server, socket, tls, patience).map_err(failed),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn over(server: &str, socket: TcpStream, tls: Option<&ClientFiles>, patience: Duration) -> io::Result<Dialed> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        socket.set_write_timeout(Some(patience))?;
        let socket = match tls {
            None => DialedSocket::Plain(socket),
            Some(files) => DialedSocket::Tls(Box::new(files.connect(server, socket)?)),
        };
        Ok(Dialed { server: server.to_owned(), socket: BufReader::with_capacity(64 << 10, socket), patience })
    }

    /// Logs in, if the server wants that: one that does not would store what is said.
    fn log_in(&mut self, file: &str) -> Result<(), CtlExit> {
        let (user, password) = login(file).map_err(|why| CtlExit::refuse(CtlExit::USAGE, &why))?;
        if self.ask(b"version\r\n")? != UNAUTHENTICATED {
            return Ok(());
        }
        let said = [&user[..], b" ", &password[..]].concat();
        let command = [format!("set login 0 0 {}\r\n", said.len()).as_bytes(), &said[..], b"\r\n"].concat();
        match self.ask(&command)?.as_str() {
            "STORED" => Ok(()),
            refusal => Err(self.refused(&format!("it does not take the login of {file}: {refusal}"))),
        }
    }

    /// Whether what is sent at once is a record of TLS.
    pub(super) fn has_records(&self) -> bool {
        matches!(self.socket.get_ref(), DialedSocket::Tls(_))
    }

    /// Sends all of it.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), CtlExit> {
        let socket = self.socket.get_mut();
        let sent = socket.write_all(bytes).and_then(|()| socket.flush());
        sent.map_err(|error| self.broken(&error))
    }

    /// The next line, without its end.
    pub(super) fn line(&mut self, line: &mut Vec<u8>) -> Result<(), CtlExit> {
        line.clear();
        let read = (&mut self.socket).take(LINE_MAX).read_until(b'\n', line);
        read.map_err(|error| self.broken(&error))?;
        if line.pop() != Some(b'\n') {
            let what = if line.len() as u64 + 1 >= LINE_MAX { "a line has no end" } else { "it closed the connection" };
            return Err(self.refused(what));
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(())
    }

    /// Copies so many bytes to `out` in pieces; what `out` cannot take is an error of this program, not of the server.
    pub(super) fn copy(
        &mut self,
        mut len: u64,
        mut out: impl FnMut(&[u8]) -> Result<(), CtlExit>,
    ) -> Result<(), CtlExit> {
        while len > 0 {
            let piece = match self.socket.fill_buf() {
                Ok([]) => return Err(self.refused("it closed the connection in a value")),
                Ok(piece) => piece,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(&error)),
            };
            let taken = piece.len().min(usize::try_from(len).unwrap_or(usize::MAX));
            out(&piece[..taken])?;
            self.socket.consume(taken);
            len -= taken as u64;
        }
        Ok(())
    }

    /// Asks for statistics.
    pub(super) fn stats(&mut self, what: &str) -> Result<ToldStats, CtlExit> {
        self.try_stats(what)?.map_err(|said| self.no_stats(what, &said))
    }

    /// The end of a command because the server says this instead of statistics.
    pub(super) fn no_stats(&self, what: &str, said: &str) -> CtlExit {
        match said {
            UNAUTHENTICATED => self.refused("it wants a login: --auth-file"),
            _ => self.refused(&format!("stats {what}: {said}")),
        }
    }

    /// The same; or the line by which the server says that it does not tell.
    pub(super) fn try_stats(&mut self, what: &str) -> Result<Result<ToldStats, String>, CtlExit> {
        self.send(format!("{}\r\n", format!("stats {what}").trim_end()).as_bytes())?;
        let (mut rows, mut line, mut bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            self.line(&mut line)?;
            bytes += line.len();
            if bytes > STATS_MAX {
                return Err(self.refused("its statistics have no end"));
            }
            let text = String::from_utf8_lossy(&line);
            match text.strip_prefix("STAT ").and_then(|row| row.split_once(' ')) {
                Some((name, value)) => rows.push((name.to_owned(), value.to_owned())),
                None if text == "END" || text == "RESET" => return Ok(Ok(rows)),
                None if text.starts_with("STAT ") => {}
                None => return Ok(Err(text.into_owned())),
            }
        }
    }

    /// Sends a command, and reads its answer of one line.
    pub(super) fn ask(&mut self, command: &[u8]) -> Result<String, CtlExit> {
        self.send(command)?;
        let mut line = Vec::new();
        self.line(&mut line)?;
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    /// The end of a command because of what the server said or did.
    pub(super) fn refused(&self, what: &str) -> CtlExit {
        CtlExit::refuse(CtlExit::UNAVAILABLE, &format!("{}: {what}", self.server))
    }

    fn broken(&self, error: &io::Error) -> CtlExit {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                self.refused(&format!("it says nothing for {} s", self.patience.as_secs()))
            }
            _ => self.refused(&error.to_string()),
        }
    }
}

impl Read for DialedSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            DialedSocket::Plain(socket) => socket.read(buf),
            DialedSocket::Tls(stream) => stream.read(buf),
        }
    }
}

impl Write for DialedSocket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            DialedSocket::Plain(socket) => socket.write(buf),
            DialedSocket::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            DialedSocket::Plain(socket) => socket.flush(),
            DialedSocket::Tls(stream) => stream.flush(),
        }
    }
}

/// User and password of the first line of a file. The error is one line.
fn login(file: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(AUTH_FILE_MAX).read_to_end(&mut text));
    read.map_err(|error| format!("--auth-file {file}: {error}"))?;
    let found =
        of_first_line(&text).ok_or_else(|| format!("--auth-file {file}: its first line is to be user:password"))?;
    Ok((found.0.to_vec(), found.1.to_vec()))
}

/// The value of a row of statistics as a number.
pub(super) fn number_of(rows: &[(String, String)], name: &str) -> Option<u64> {
    rows.iter().find(|(found, _)| found == name)?.1.parse().ok()
}
