//! The keeper's connection to the control socket of the server beside it.
//!
//! ```text
//!   connect ─> greeting: run, lsn ─> status: replicas_ack ─> ServerUp
//!   order ──> socket (from the driver) … answer ──> ServerSays, one for each order, in order
//!   status ─> socket (from the driver) … a row ───> ServerHolds
//!   end of the connection ──> ServerDown, and again from the start
//! ```
//!
//! Not here: what is ordered (`keeper`).

use super::news::{News, ServerHello};
use super::orders::{OrderAnswer, ServerOrder};
use crate::protocol::control::{self, ServerLine};
use crate::sidecar::moment::Trouble;
use crate::sidecar::server_socket;
use crate::sys::{process, socket};
use crossbeam_channel::Sender;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The pause before the server is looked for again: it may be starting.
const RETRY: Duration = Duration::from_millis(20);

/// Longest wait for the first answers.
const HELLO_MAX: Duration = Duration::from_secs(2);

/// Longest wait for room in the socket, when an order is sent.
const SEND_MAX: Duration = Duration::from_millis(5);

/// Stands in a refusal before the epoch that the server has heard of.
const HIGHER: &str = "this server knows of ";

/// Starts the thread.
pub(super) fn start(path: PathBuf, news: Sender<News>) -> io::Result<()> {
    std::thread::Builder::new().name("server".into()).spawn(move || run(&path, &news)).map(drop)
}

fn run(path: &Path, news: &Sender<News>) {
    let mut last = String::new();
    loop {
        let ended = meet(path, news);
        if let Err(trouble) = ended {
            let text = trouble.text();
            if text != last {
                log::info!("{text}");
                last = text;
            }
        } else {
            last.clear();
            if news.send(News::ServerDown).is_err() {
                return;
            }
        }
        std::thread::sleep(RETRY);
    }
}

/// Serves one connection until it ends; an error if it never began.
fn meet(path: &Path, news: &Sender<News>) -> Result<(), Trouble> {
    let broken = |error: io::Error| Trouble::Broken(format!("{}: {error}", path.display()));
    let mut socket = server_socket::connect(path)?;
    socket.set_read_timeout(Some(HELLO_MAX)).map_err(broken)?;
    socket.set_write_timeout(Some(SEND_MAX)).map_err(broken)?;
    socket.write_all(b"status\r\n").map_err(broken)?;
    let mut lines = BufReader::new(socket.try_clone().map_err(broken)?);
    let hello = introduce(&mut lines, socket).map_err(broken)?;
    lines.get_ref().set_read_timeout(None).map_err(broken)?;
    if news.send(News::ServerUp(hello)).is_err() {
        return Ok(());
    }
    let mut line = String::new();
    while next_line(&mut lines, &mut line).is_ok() {
        let told = match ServerLine::parse(line.as_bytes()) {
            Some(ServerLine::Stat("items", items)) => items.parse().ok().map(News::ServerHolds),
            Some(ServerLine::Stat(..)) => None,
            _ => answer_of(&line).map(News::ServerSays),
        };
        if told.is_some_and(|told| news.send(told).is_err()) {
            break;
        }
    }
    Ok(())
}

fn introduce(lines: &mut impl BufRead, socket: UnixStream) -> io::Result<ServerHello> {
    let wrong = |line: &str| io::Error::other(format!("the server says `{line}`"));
    let mut line = String::new();
    next_line(lines, &mut line)?;
    let Some(ServerLine::Greeting(control::VERSION, position)) = ServerLine::parse(line.as_bytes()) else {
        return Err(wrong(&line));
    };
    let (run, lsn) = (position.run.to_owned(), position.lsn);
    let (mut replicas_ack, mut epoch) = (0, 0);
    loop {
        next_line(lines, &mut line)?;
        match ServerLine::parse(line.as_bytes()) {
            Some(ServerLine::Stat("replicas_ack", value)) => replicas_ack = value.parse().unwrap_or(0),
            Some(ServerLine::Stat("epoch", value)) => epoch = value.parse().unwrap_or(0),
            Some(ServerLine::Stat(..)) => {}
            Some(ServerLine::End) => break,
            _ => return Err(wrong(&line)),
        }
    }
    let pid = socket::peer_process(socket.as_raw_fd()).ok();
    Ok(ServerHello { run, lsn, replicas_ack, epoch, pid, socket })
}

fn next_line(lines: &mut impl BufRead, line: &mut String) -> io::Result<()> {
    line.clear();
    if lines.read_line(line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.truncate(line.trim_end().len());
    Ok(())
}

/// The answer of a line; None if it is none.
fn answer_of(line: &str) -> Option<OrderAnswer> {
    let mut words = line.split(' ');
    let lsn = match words.next()? {
        "role" => words.nth(2)?.parse().ok()?,
        "members" | "writes" => words.next()?.parse().ok()?,
        "OK" => 0,
        "CLIENT_ERROR" | "ERROR" | "refused" => {
            let epoch = line.split_once(HIGHER).and_then(|(_, epoch)| epoch.parse().ok()).unwrap_or(0);
            return Some(OrderAnswer::Refused { why: line.to_owned(), epoch });
        }
        _ => return None,
    };
    Some(OrderAnswer::Done { lsn })
}

/// Asks for [`News::ServerHolds`].
pub(super) const ASK: &str = "status\r\n";

/// The line of an order.
pub(super) fn line_of(order: &ServerOrder) -> String {
    match order {
        ServerOrder::Standby { epoch, secret } => format!("role standby {epoch} {secret}\r\n"),
        ServerOrder::Candidate { epoch } => format!("role candidate {epoch}\r\n"),
        ServerOrder::Primary { epoch, deadline, drops_all } => {
            let empty = if *drops_all { " empty" } else { "" };
            format!("role primary {epoch} {}{empty}\r\n", deadline.as_millis())
        }
        ServerOrder::Members(requirement) => {
            let names: String = requirement.names.iter().map(|name| format!(" {name}")).collect();
            format!("members {}{names}\r\n", requirement.least)
        }
        ServerOrder::Hold(time) => format!("writes hold {}\r\n", time.as_millis()),
        ServerOrder::Go => "writes go\r\n".to_owned(),
    }
}

/// Whether a process has ended or is ending. A killed server with much memory lives on for seconds, while the kernel
/// takes its memory apart, and only then its sockets are closed: its flags tell that it ends. Where processes are hidden
/// from each other (ProtectProc), only that it is gone can be told.
pub(super) fn is_ending(pid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return !process::exists(pid) };
    // The name may hold anything, so what counts begins after its last bracket.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut words = rest.split_whitespace();
    let is_dead = matches!(words.next(), Some("Z" | "X"));
    is_dead || words.nth(5).and_then(|flags| flags.parse::<u64>().ok()).is_some_and(|flags| flags & PF_EXITING != 0)
}
