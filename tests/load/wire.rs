//! The requests of the load and their replies, in all three protocols.
//!
//! ```text
//!   (key, Op) ──encode──> bytes ──> server ──> bytes ──decode──> Reply
//! ```

use super::common::{HEADER, Packet, show};

/// A protocol as these clients use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    Text,
    Meta,
    Binary,
}

/// A request of one key.
#[derive(Clone, Debug)]
pub enum Op {
    Get,
    Set {
        value: Vec<u8>,
        client_flags: u32,
        ttl: u32,
    },
    Add {
        value: Vec<u8>,
    },
    Append {
        value: Vec<u8>,
    },
    Prepend {
        value: Vec<u8>,
    },
    /// A set with the cas unique that the last get showed.
    Cas {
        value: Vec<u8>,
        cas: u64,
    },
    Delete,
    Incr {
        delta: u64,
    },
    Touch {
        ttl: u32,
    },
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Stored, deleted, touched.
    Done,
    NotStored,
    Exists,
    NotFound,
    TooLarge,
    NoMemory,
    Number(u64),
    Hit {
        value: Vec<u8>,
        client_flags: u32,
        cas: u64,
    },
}

/// Appends a request's bytes.
pub fn encode(wire: Wire, key: &str, op: &Op, out: &mut Vec<u8>) {
    match wire {
        Wire::Text => encode_text(key, op, out),
        Wire::Meta => encode_meta(key, op, out),
        Wire::Binary => encode_binary(key, op, out),
    }
}

fn encode_text(key: &str, op: &Op, out: &mut Vec<u8>) {
    let (line, value) = match op {
        Op::Get => (format!("gets {key}"), None),
        Op::Set { value, client_flags, ttl } => {
            (format!("set {key} {client_flags} {ttl} {}", value.len()), Some(value))
        }
        Op::Add { value } => (format!("add {key} 0 0 {}", value.len()), Some(value)),
        Op::Append { value } => (format!("append {key} 0 0 {}", value.len()), Some(value)),
        Op::Prepend { value } => (format!("prepend {key} 0 0 {}", value.len()), Some(value)),
        Op::Cas { value, cas } => (format!("cas {key} 0 0 {} {cas}", value.len()), Some(value)),
        Op::Delete => (format!("delete {key}"), None),
        Op::Incr { delta } => (format!("incr {key} {delta}"), None),
        Op::Touch { ttl } => (format!("touch {key} {ttl}"), None),
    };
    push_line(&line, value, out);
}

fn encode_meta(key: &str, op: &Op, out: &mut Vec<u8>) {
    let (line, value) = match op {
        Op::Get => (format!("mg {key} v f c"), None),
        Op::Set { value, client_flags, ttl } => {
            (format!("ms {key} {} F{client_flags} T{ttl}", value.len()), Some(value))
        }
        Op::Add { value } => (format!("ms {key} {} ME", value.len()), Some(value)),
        Op::Append { value } => (format!("ms {key} {} MA", value.len()), Some(value)),
        Op::Prepend { value } => (format!("ms {key} {} MP", value.len()), Some(value)),
        Op::Cas { value, cas } => (format!("ms {key} {} C{cas}", value.len()), Some(value)),
        Op::Delete => (format!("md {key}"), None),
        Op::Incr { delta } => (format!("ma {key} D{delta} v"), None),
        Op::Touch { ttl } => (format!("mg {key} T{ttl}"), None),
    };
    push_line(&line, value, out);
}

fn push_line(line: &str, value: Option<&Vec<u8>>, out: &mut Vec<u8>) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(value) = value {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_binary(key: &str, op: &Op, out: &mut Vec<u8>) {
    let store = |client_flags: u32, ttl: u32| [client_flags.to_be_bytes(), ttl.to_be_bytes()].concat();
    let (code, extras, value, cas) = match op {
        Op::Get => (0x00, Vec::new(), None, 0),
        Op::Set { value, client_flags, ttl } => (0x01, store(*client_flags, *ttl), Some(value), 0),
        Op::Add { value } => (0x02, store(0, 0), Some(value), 0),
        Op::Append { value } => (0x0e, Vec::new(), Some(value), 0),
        Op::Prepend { value } => (0x0f, Vec::new(), Some(value), 0),
        Op::Cas { value, cas } => (0x01, store(0, 0), Some(value), *cas),
        Op::Delete => (0x04, Vec::new(), None, 0),
        Op::Incr { delta } => (0x05, [&delta.to_be_bytes()[..], &[0; 8], &[0xff; 4]].concat(), None, 0),
        Op::Touch { ttl } => (0x1c, ttl.to_be_bytes().to_vec(), None, 0),
    };
    let value = value.cloned().unwrap_or_default();
    out.extend(Packet { cas, value, ..Packet::new(code, key.as_bytes(), &extras) }.request());
}

/// The reply at the start of `got` to a request of `key`, and its length; None while it is not complete.
pub fn decode(wire: Wire, key: &str, op: &Op, got: &[u8]) -> Option<(Reply, usize)> {
    match wire {
        Wire::Text => text_reply(got, key),
        Wire::Meta => meta_reply(got),
        Wire::Binary => binary_reply(got, op),
    }
}

/// The first line without its end, and where the next begins.
fn first_line(got: &[u8]) -> Option<(&str, usize)> {
    let end = got.iter().take(400).position(|&b| b == b'\n')? + 1;
    Some((std::str::from_utf8(&got[..end - 2]).expect("replies are text"), end))
}

fn text_reply(got: &[u8], key: &str) -> Option<(Reply, usize)> {
    let (line, end) = first_line(got)?;
    let Some(value) = line.strip_prefix("VALUE ") else {
        return Some((plain_reply(line), end));
    };
    let words: Vec<&str> = value.split(' ').collect();
    assert_eq!((words[0], words.len()), (key, 4), "another's reply");
    let len: usize = words[2].parse().unwrap();
    let data = got.get(end..end + len + 7)?;
    assert_eq!(&data[len..], b"\r\nEND\r\n");
    let (client_flags, cas) = (words[1].parse().unwrap(), words[3].parse().unwrap());
    Some((Reply::Hit { value: data[..len].to_vec(), client_flags, cas }, end + len + 7))
}

fn plain_reply(line: &str) -> Reply {
    match line {
        "STORED" | "DELETED" | "TOUCHED" | "HD" => Reply::Done,
        "NOT_STORED" | "NS" => Reply::NotStored,
        "EXISTS" | "EX" => Reply::Exists,
        "NOT_FOUND" | "END" | "NF" | "EN" => Reply::NotFound,
        "SERVER_ERROR object too large for cache" => Reply::TooLarge,
        "SERVER_ERROR out of memory storing object" | "SERVER_ERROR Out of memory during read" => Reply::NoMemory,
        number => Reply::Number(number.parse().unwrap_or_else(|_| panic!("answered {line}"))),
    }
}

fn meta_reply(got: &[u8]) -> Option<(Reply, usize)> {
    let (line, end) = first_line(got)?;
    let Some(value) = line.strip_prefix("VA ") else {
        return Some((plain_reply(line), end));
    };
    let mut words = value.split(' ');
    let len: usize = words.next()?.parse().unwrap();
    let data = got.get(end..end + len + 2)?;
    assert_eq!(&data[len..], b"\r\n");
    let reply = match (words.next(), words.next()) {
        (Some(client_flags), Some(cas)) => Reply::Hit {
            value: data[..len].to_vec(),
            client_flags: client_flags[1..].parse().unwrap(),
            cas: cas[1..].parse().unwrap(),
        },
        _ => Reply::Number(std::str::from_utf8(&data[..len]).unwrap().parse().unwrap()),
    };
    Some((reply, end + len + 2))
}

fn binary_reply(got: &[u8], op: &Op) -> Option<(Reply, usize)> {
    let header: &[u8; HEADER] = got.first_chunk()?;
    let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if got.len() < HEADER + body {
        return None;
    }
    let (packet, len) = Packet::reply(got)?;
    let reply = match (packet.status, op) {
        (0, Op::Get) => {
            let client_flags = u32::from_be_bytes(packet.extras[..].try_into().unwrap());
            Reply::Hit { value: packet.value, client_flags, cas: packet.cas }
        }
        (0, Op::Incr { .. }) => Reply::Number(u64::from_be_bytes(packet.value[..].try_into().unwrap())),
        (0, _) => Reply::Done,
        (1, _) => Reply::NotFound,
        (2, Op::Add { .. }) => Reply::NotStored,
        (2, _) => Reply::Exists,
        (3, _) => Reply::TooLarge,
        (5, _) => Reply::NotStored,
        (0x82, _) => Reply::NoMemory,
        (status, _) => panic!("{op:?} answered {status}: {}", show(&packet.value)),
    };
    Some((reply, len))
}
