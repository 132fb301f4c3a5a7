//! A memcached client without tuning, that says of each operation what it knows of its outcome.
//!
//! ```text
//!   addresses ──connect, 50 ms──> connection ──ask──> Answered
//!       ^                             │   lost, garbled, too late: Unknown, and the connection is given up
//!       └──the next one───────────────┴── SERVER_ERROR not primary: Refused
//! ```
//!
//! It knows one address, which floats, or several, of which it looks for the one that answers. A reply that comes late
//! is never read: the connection it would come on is closed.
//!
//! Invariant: what is not certain is `Unknown`.

use crate::history::{Answer, Op, Outcome};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a client waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection,
    pub connect: Duration,
    /// and for a reply.
    pub reply: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { connect: Duration::from_millis(50), reply: Duration::from_millis(300) }
    }
}

/// See the module's head.
pub struct Client {
    addresses: Vec<SocketAddr>,
    /// Which of them is tried next.
    next: usize,
    link: Option<Link>,
    patience: Patience,
    /// Meta commands instead of text ones.
    pub speaks_meta: bool,
    /// What was read last of a key: its value and its cas unique, which stays good across a takeover.
    tokens: HashMap<String, (u64, u64)>,
    /// Ask each server which process it is.
    pub identifies: bool,
}

struct Link {
    stream: BufReader<TcpStream>,
    /// The server's process, 0 if it was not asked.
    server: u32,
}

impl Client {
    /// A client of one shard, reached at one of these.
    pub fn new(addresses: &[SocketAddr], patience: Patience) -> Client {
        let (addresses, tokens) = (addresses.to_vec(), HashMap::new());
        Client { addresses, next: 0, link: None, patience, speaks_meta: false, tokens, identifies: true }
    }

    /// Connects if it is not connected. Whether it is then.
    pub fn connect(&mut self) -> bool {
        if self.link.is_none() {
            let address = self.addresses[self.next % self.addresses.len()];
            self.link = Link::to(address, self.patience, self.identifies).ok();
            self.next += usize::from(self.link.is_none());
        }
        self.link.is_some()
    }

    /// The process at the other end.
    pub fn server(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.server)
    }

    /// The value that a cas would be compared with, if this key was read.
    pub fn seen(&self, key: &str) -> Option<u64> {
        self.tokens.get(key).map(|&(value, _)| value)
    }

    /// Does one operation on the open connection.
    pub fn run(&mut self, key: &str, op: Op) -> Outcome {
        let request = self.request(key, op);
        let link = self.link.as_mut().expect("connected");
        let reply = link.ask(&request).and_then(|()| link.reply());
        match reply.and_then(|reply| self.outcome(key, op, reply)) {
            Ok(outcome) => outcome,
            Err(_) => {
                self.give_up();
                Outcome::Unknown
            }
        }
    }

    /// Closes the connection, if there is one, and goes on with the next address.
    pub fn give_up(&mut self) {
        self.link = None;
        self.next += 1;
    }

    fn request(&self, key: &str, op: Op) -> String {
        let data = |number: u64| (number.to_string().len(), number);
        let token = self.tokens.get(key).map_or(0, |&(_, token)| token);
        match (op, self.speaks_meta) {
            (Op::Get, false) => format!("gets {key}\r\n"),
            (Op::Get, true) => format!("mg {key} v c\r\n"),
            (Op::Delete, false) => format!("delete {key}\r\n"),
            (Op::Delete, true) => format!("md {key}\r\n"),
            (Op::Incr(by), false) => format!("incr {key} {by}\r\n"),
            (Op::Incr(by), true) => format!("ma {key} v D{by}\r\n"),
            (Op::Set(new) | Op::Add(new) | Op::Cas { new, .. }, is_meta) => {
                let (len, new) = data(new);
                let head = match (op, is_meta) {
                    (Op::Set(_), true) => format!("ms {key} {len}"),
                    (Op::Add(_), true) => format!("ms {key} {len} ME"),
                    (_, true) => format!("ms {key} {len} C{token}"),
                    (Op::Set(_), false) => format!("set {key} 0 0 {len}"),
                    (Op::Add(_), false) => format!("add {key} 0 0 {len}"),
                    (_, false) => format!("cas {key} 0 0 {len} {token}"),
                };
                format!("{head}\r\n{new}\r\n")
            }
        }
    }

    /// What a reply means. An error is one that nobody expects: the connection is not to be used any more.
    fn outcome(&mut self, key: &str, op: Op, reply: Reply) -> Result<Outcome> {
        let answer = match (op, reply) {
            (_, Reply::Line(line)) if line == "SERVER_ERROR not primary" => {
                self.give_up();
                return Ok(Outcome::Refused);
            }
            // It was done, but is not confirmed.
            (_, Reply::Line(line)) if line.starts_with("SERVER_ERROR") => return Ok(Outcome::Unknown),
            (Op::Get, Reply::Item { token, value }) => {
                token.map(|token| self.tokens.insert(key.into(), (value, token)));
                Answer::Value(Some(value))
            }
            (Op::Incr(_), Reply::Item { value, .. }) => Answer::Number(value),
            (Op::Get, Reply::Line(line)) if line == "END" || line == "EN" => {
                self.tokens.remove(key);
                Answer::Value(None)
            }
            (Op::Incr(_), Reply::Line(line)) if line.parse::<u64>().is_ok() => {
                Answer::Number(line.parse().expect("a number"))
            }
            (_, Reply::Line(line)) => match (op, line.as_str()) {
                (Op::Set(_) | Op::Add(_) | Op::Cas { .. }, "STORED" | "HD") => Answer::Stored,
                (_, "DELETED" | "HD") => Answer::Deleted,
                (_, "NOT_STORED" | "NS") => Answer::NotStored,
                (_, "EXISTS" | "EX") => Answer::Exists,
                (_, "NOT_FOUND" | "NF") => Answer::NotFound,
                _ => panic!("{op:?} {key}: {line:?} is no reply to this"),
            },
            (_, Reply::Item { .. }) => panic!("{op:?} {key}: an item is no reply to this"),
        };
        Ok(Outcome::Answered(answer))
    }
}

/// A whole reply.
#[derive(Debug)]
enum Reply {
    Line(String),
    Item { value: u64, token: Option<u64> },
}

impl Link {
    fn to(address: SocketAddr, patience: Patience, identifies: bool) -> Result<Link> {
        let stream = TcpStream::connect_timeout(&address, patience.connect)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience.reply))?;
        stream.set_write_timeout(Some(patience.reply))?;
        let mut link = Link { stream: BufReader::new(stream), server: 0 };
        if identifies {
            link.server = link.process()?;
        }
        Ok(link)
    }

    /// Which process this is: all hosts of a test share one space of process ids.
    fn process(&mut self) -> Result<u32> {
        self.ask("stats\r\n")?;
        let mut found = None;
        loop {
            let line = self.line()?;
            if let Some(pid) = line.strip_prefix("STAT pid ") {
                found = pid.parse().ok();
            }
            if line == "END" {
                return found.ok_or(ErrorKind::InvalidData.into());
            }
            if !line.starts_with("STAT ") {
                return Err(ErrorKind::InvalidData.into());
            }
        }
    }

    fn ask(&mut self, request: &str) -> Result<()> {
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// A line without its end. One that was cut off is an error.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let whole = line.strip_suffix("\r\n");
        whole.map(str::to_owned).ok_or(Error::from(ErrorKind::UnexpectedEof))
    }

    fn reply(&mut self) -> Result<Reply> {
        let line = self.line()?;
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().map_err(|_| Error::from(ErrorKind::InvalidData));
        match words[..] {
            ["VALUE", _, _, len, token] => {
                let value = self.number(number(len)? as usize)?;
                match self.line()?.as_str() {
                    "END" => Ok(Reply::Item { value, token: Some(number(token)?) }),
                    _ => Err(ErrorKind::InvalidData.into()),
                }
            }
            ["VA", len, ref flags @ ..] => {
                let token = flags.iter().find_map(|flag| flag.strip_prefix('c')).map(number).transpose()?;
                Ok(Reply::Item { value: self.number(number(len)? as usize)?, token })
            }
            _ => Ok(Reply::Line(line)),
        }
    }

    /// A value and the end of its line.
    fn number(&mut self, len: usize) -> Result<u64> {
        let mut bytes = vec![0; len + 2];
        self.stream.read_exact(&mut bytes)?;
        let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_suffix("\r\n"));
        text.and_then(|text| text.trim_end().parse().ok()).ok_or(ErrorKind::InvalidData.into())
    }
}
