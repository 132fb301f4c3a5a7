//! Whoever started this program and looks after it: what systemd is told, and how its journal is written to.
//!
//! ```text
//! NOTIFY_SOCKET    one datagram for each: READY=1, STATUS=<a line>, WATCHDOG=1, STOPPING=1
//! WATCHDOG_USEC    without WATCHDOG=1 for so long, the program is ended; it is for the process WATCHDOG_PID
//! JOURNAL_STREAM   device and inode of the journal: if stderr is that, lines there begin with <3> error, <4> warning,
//!                  <5> what an operator wants to find again (see `notice`), <6> information, <7> debugging
//! ```
//!
//! Without these variables nothing is told, and lines have no prefix. The variables are as they were at the start: a
//! child process does not get to speak for this one, because units accept notes of their main process only.
//!
//! Not here: what is worth telling, and whether the program is well (`main`, `sidecar`).

use crate::sync::lock;
use crate::sys::stderr;
use log::{Level, Log, Metadata, Record};
use std::fmt;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Lines with this target are of every verbosity, and have a priority of their own.
const NOTICE: &str = "twincache::notice";

/// Whether stderr is the journal, as the first line finds it.
static IS_JOURNAL: OnceLock<bool> = OnceLock::new();

/// What the service manager is told.
#[derive(Debug)]
pub struct Supervisor {
    /// None: nobody wants to be told.
    socket: Option<UnixDatagram>,
    /// What it was told last.
    status: String,
}

impl Supervisor {
    /// The one of the environment.
    pub fn from_env() -> Supervisor {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| {
            let connected = connect(name.as_bytes());
            connected.inspect_err(|error| log::warn!("cannot notify {}: {error}", name.display())).ok()
        });
        Supervisor { socket, status: String::new() }
    }

    /// The program does what it is there for.
    pub fn ready(&mut self, status: &str) {
        status.clone_into(&mut self.status);
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// One line about what it does just now; told if it is another one than before.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            self.tell(&format!("STATUS={status}"));
        }
    }

    /// The program is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The program is well.
    pub fn feed_watchdog(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Without a word for so long it is taken for dead. None: nobody waits for a word.
    pub fn watchdog(&self) -> Option<Duration> {
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let time = number("WATCHDOG_USEC").filter(|&usec| is_ours && usec > 0).map(Duration::from_micros);
        time.filter(|_| self.socket.is_some())
    }

    /// A note that is lost is no reason to end: the manager's patience ends instead.
    fn tell(&self, note: &str) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(note.as_bytes())) {
            log::warn!("cannot notify the service manager: {error}");
        }
    }
}

/// Whether somebody wants to be told.
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| !name.is_empty())
}

/// A name that begins with `@` is an abstract one.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Logs to stderr from now on, up to this level. [`log::set_max_level`] may be lower, or be changed.
///
/// Nobody waits for whoever reads stderr: lines that find no room are counted, and told of when there is room again.
pub fn start_log(level: log::LevelFilter) {
    let log = StderrLog { level };
    log::set_boxed_logger(Box::new(log)).expect("one log");
    log::set_max_level(level);
}

struct StderrLog {
    level: log::LevelFilter,
}

/// What is known of stderr. Locked while something is written there.
struct StderrState {
    /// Lines that found no room.
    lost: u64,
    /// A line without an end stands there, which the next one replaces: see [`show`].
    has_passing: bool,
}

static STDERR: Mutex<StderrState> = Mutex::new(StderrState { lost: 0, has_passing: false });

/// Moves to the beginning of a terminal's line, and deletes it.
const ERASE: &[u8] = b"\r\x1b[K";

/// Shows a line at a terminal, cut to its width, which the next one replaces, be it logged or shown; None takes it away.
/// Elsewhere nothing is written.
pub fn show(line: Option<&str>) {
    let mut state = lock(&STDERR);
    if line.is_none() && !state.has_passing || !io::stderr().is_terminal() {
        return;
    }
    let line = [ERASE, stderr::fitting(line.unwrap_or_default()).as_bytes()].concat();
    stderr::write(&line, Duration::ZERO);
    state.has_passing = line.len() > ERASE.len();
}

impl Log for StderrLog {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.level() <= self.level && about.target().starts_with("twincache")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = format!("{}{}\n", prefix(record.level(), record.target()), record.args());
        let mut state = lock(&STDERR);
        if std::mem::take(&mut state.has_passing) {
            stderr::write(ERASE, Duration::ZERO);
        }
        let lost = &mut state.lost;
        if *lost > 0 {
            let note = format!("{}{lost} lines are missing: nobody read them\n", prefix(Level::Warn, ""));
            if !stderr::write(note.as_bytes(), Duration::ZERO) {
                *lost += 1;
                return;
            }
            *lost = 0;
        }
        *lost += u64::from(!stderr::write(line.as_bytes(), Duration::ZERO));
    }

    fn flush(&self) {}
}

/// From now on a panic is a line on stderr and the end of the program, whatever RUST_BACKTRACE says: there may be no
/// memory for more, and a program that hangs in its panic is not started again.
pub fn end_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        let mut line = ShortLine { bytes: [0; LINE_MAX], len: 0 };
        let priority = if IS_JOURNAL.get() == Some(&true) { "<3>" } else { "" };
        let _ = write!(line, "{priority}panicked");
        if let Some(place) = info.location() {
            let _ = write!(line, " at {}:{}", place.file(), place.line());
        }
        let what = info.payload();
        let text = what.downcast_ref::<&str>().copied().or_else(|| what.downcast_ref::<String>().map(|text| &**text));
        let _ = write!(line, ": {}", text.unwrap_or("for a reason that is no text"));
        line.bytes[line.len] = b'\n';
        stderr::write(&line.bytes[..=line.len], LAST_WORD);
        std::process::abort();
    }));
}

/// Bytes of the line of a panic.
const LINE_MAX: usize = 1024;

/// How long a panic waits for room on stderr.
const LAST_WORD: Duration = Duration::from_millis(200);

/// Text in place, cut to what fits, with room for a line feed.
struct ShortLine {
    bytes: [u8; LINE_MAX],
    len: usize,
}

impl fmt::Write for ShortLine {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.len().min(LINE_MAX - 1 - self.len);
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

/// Logs a line that says what the program is about: its start, a copy that begins or ends, another role.
pub fn notice(line: &str) {
    log::warn!(target: NOTICE, "{line}");
}

/// Logs a line about a server's life: a notice in the journal. Elsewhere it takes a `-v`, because memcached is silent there.
pub fn milestone(line: &str) {
    if is_journal() { notice(line) } else { log::info!("{line}") }
}

/// Whether stderr is the journal.
pub fn is_journal() -> bool {
    let stream = || std::env::var("JOURNAL_STREAM").ok();
    *IS_JOURNAL.get_or_init(|| is_stream(stream().as_deref(), io::stderr()))
}

/// Says on stderr why the program ends; whether or not anything is logged.
pub fn say_error(lines: &str) {
    let prefix = prefix(Level::Error, "");
    let text: String = lines.split_inclusive('\n').flat_map(|line| [prefix, line]).collect();
    // A failure to write is ignored: the exit code still says that something is wrong.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn prefix(level: Level, target: &str) -> &'static str {
    match level {
        _ if !is_journal() => "",
        _ if target == NOTICE => "<5>",
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// Whether this file is the journal, which JOURNAL_STREAM names as `device:inode`.
fn is_stream(stream: Option<&str>, file: impl AsFd) -> bool {
    let numbers = stream.and_then(|stream| stream.split_once(':'));
    let Some((Ok(device), Ok(inode))) = numbers.map(|(device, inode)| (device.parse::<u64>(), inode.parse::<u64>()))
    else {
        return false;
    };
    let owned = file.as_fd().try_clone_to_owned();
    let meta = owned.map(std::fs::File::from).and_then(|file| file.metadata());
    meta.is_ok_and(|meta| (meta.dev(), meta.ino()) == (device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_reach_a_path_and_an_abstract_name() {
        let path = std::env::temp_dir().join(format!("twincache-notify-{}", std::process::id()));
        let name = format!("twincache-notify-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let names = [path.as_os_str().as_bytes().to_vec(), format!("@{name}").into_bytes()];
        for (receiver, name) in [by_path, by_name].into_iter().zip(names) {
            let mut supervisor = Supervisor { socket: Some(connect(&name).unwrap()), status: String::new() };
            supervisor.ready("serves");
            supervisor.status("serves");
            supervisor.status("waits");
            supervisor.feed_watchdog();
            supervisor.stopping();
            receiver.set_nonblocking(true).unwrap();
            let mut buffer = [0; 256];
            for note in ["READY=1\nSTATUS=serves", "STATUS=waits", "WATCHDOG=1", "STOPPING=1"] {
                let len = receiver.recv(&mut buffer).expect(note);
                assert_eq!(&buffer[..len], note.as_bytes());
            }
            assert!(receiver.recv(&mut buffer).is_err(), "the same status twice");
        }
        std::fs::remove_file(path).unwrap();
        assert!(connect(b"/nonexistent/socket").is_err());
    }

    #[test]
    fn the_journal_is_known_by_its_inode() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let meta = file.metadata().unwrap();
        assert!(is_stream(Some(&format!("{}:{}", meta.dev(), meta.ino())), &file));
        for stream in [None, Some(""), Some("1:2"), Some("x:y"), Some(&*format!("{}", meta.dev()))] {
            assert!(!is_stream(stream, &file), "{stream:?}");
        }
    }
}
