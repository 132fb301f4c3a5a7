//! What a server may say: a stream of replies is cut into replies, and anything that is none is a panic.

/// First words of text and meta replies that are whole lines.
const WORDS: [&str; 42] = [
    "ERROR",
    "CLIENT_ERROR",
    "SERVER_ERROR",
    "SERVER_ERROR:",
    "STORED",
    "NOT_STORED",
    "EXISTS",
    "NOT_FOUND",
    "DELETED",
    "TOUCHED",
    "OK",
    "END",
    "VERSION",
    "STAT",
    "RESET",
    "ITEM",
    "PREFIX",
    "HD",
    "EN",
    "NF",
    "NS",
    "EX",
    "MN",
    "ME",
    "mg",
    "BUSY",
    "BADCLASS",
    "NOSPARE",
    "SAME",
    "NOTSTARTED",
    "MEMLIMIT_TOO_SMALL",
    "MEMLIMIT_ADJUST_FAILED",
    "WATCHER_TOO_MANY",
    "WATCHER_FAILED",
    "Error",
    "VALUE",
    "VA",
    "HDR",
    "ERROR:",
    "[",
    "RESET",
    "HD",
];

/// Text and meta replies. `whole`: the stream ends with the end of a reply.
pub fn check_text(stream: &[u8], whole: bool) {
    let mut rest = stream;
    while !rest.is_empty() {
        match text_reply(rest) {
            Some(len) => rest = &rest[len..],
            None if whole => panic!("half a reply at {} of {}", show(rest), stream.len()),
            None => return,
        }
    }
}

/// Length of the reply at the start of `rest`; None while it is not complete.
fn text_reply(rest: &[u8]) -> Option<usize> {
    // Keys that came in binary packets may hold line ends, and these lists show them raw.
    for (start, end) in [(&b"PREFIX "[..], &b"\r\nEND\r\n"[..]), (b"ITEM ", b"\r\nEND\r\n"), (b"mg ", b"\r\nEN\r\n")] {
        if rest.starts_with(start) {
            return rest.windows(end.len()).position(|window| window == end).map(|at| at + end.len());
        }
    }
    let end = rest.iter().position(|&b| b == b'\n')? + 1;
    let line = &rest[..end];
    if line.starts_with(b"key=") || line.starts_with(b"ts=") || line.starts_with(b"skipped=") {
        return Some(end);
    }
    assert!(line.ends_with(b"\r\n"), "a line without CR: {}", show(line));
    let words: Vec<&[u8]> = line[..end - 2].split(|&b| b == b' ').collect();
    let size = match words[0] {
        b"VALUE" => decimal(words.get(3)?),
        b"VA" => decimal(words.get(1)?),
        first => {
            let known = first.is_empty()
                || WORDS.iter().any(|word| word.as_bytes() == first)
                || first.iter().all(u8::is_ascii_digit);
            assert!(known, "not a reply: {}", show(rest));
            return Some(end);
        }
    };
    let total = end + size + 2;
    let data = rest.get(..total)?;
    assert!(data.ends_with(b"\r\n"), "no line end after the value: {}", show(data));
    Some(total)
}

fn decimal(digits: &[u8]) -> usize {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not a length: {}", show(digits)))
}

/// Binary replies. `whole`: the stream ends with the end of a reply.
pub fn check_binary(stream: &[u8], whole: bool) {
    let mut rest = stream;
    while !rest.is_empty() {
        match packet_len(rest) {
            Some(len) => rest = &rest[len..],
            None if whole => panic!("half a packet at {}", show(rest)),
            None => return,
        }
    }
}

/// Length of the packet at the start of `rest`; None while it is not complete.
fn packet_len(rest: &[u8]) -> Option<usize> {
    let header: &[u8; 24] = rest.first_chunk()?;
    assert_eq!(header[0], 0x81, "not a binary reply: {}", show(rest));
    let key = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let body = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
    assert!(key + usize::from(header[4]) <= body, "key and extras beyond the body: {}", show(rest));
    (rest.len() >= 24 + body).then_some(24 + body)
}

fn show(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(300)].escape_ascii().to_string()
}
