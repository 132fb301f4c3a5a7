//! What can be asked, as values: of text, meta and binary alike. The parsers make them, commands run them.
//!
//! ```text
//! Parsed = Request(Cut { Request, where its value lies }) | Partial | Bad { Refusal, what to swallow }
//!                        Request = Text | Meta | Binary | Store(StoreHeader) | Login
//! ```
//!
//! Keys and tokens are slices of the input. Not here: how bytes become a request (`text`, `meta`, `binary`).

use super::base64;
pub use super::status::Status;
use super::token::{self, KEY_MAX};

/// Bytes of a header.
pub const HEADER: usize = 24;

/// First byte of a response.
pub const RESPONSE: u8 = 0x81;

/// Answer to a line that does not have the form of its command.
pub const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";

/// What the bytes at the start of the input are.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A request; its value need not be complete.
    Request(Cut<'a>),
    /// A request that is not complete. Call again when there are more bytes, and at least `need` in all.
    Partial {
        /// A lower bound of the bytes needed; 0 when it is not known.
        need: usize,
    },
    /// A client's mistake.
    Bad(Bad),
}

/// A request and its lengths: `head` bytes, then `body` bytes of value, then `tail` bytes.
#[derive(Debug)]
pub struct Cut<'a> {
    /// What is asked for.
    pub request: Request<'a>,
    /// Bytes of the line, its end included, or of the packet before the value.
    pub head: usize,
    /// Bytes of the value; 0 when there is none.
    pub body: usize,
    /// Bytes after the value: 2 for text and meta, if there is a value, and 0 for binary.
    pub tail: usize,
}

impl<'a> Cut<'a> {
    /// A request without a value.
    #[inline]
    pub(super) fn new(request: Request<'a>, head: usize) -> Cut<'a> {
        Cut { request, head, body: 0, tail: 0 }
    }

    /// Whether it stores a value.
    #[inline]
    pub fn is_store(&self) -> bool {
        matches!(self.request, Request::Store(_))
    }

    /// The store that it is known to be.
    pub fn store_header(&self) -> &StoreHeader<'a> {
        let Request::Store(header) = &self.request else { unreachable!("only a store has a value that is large") };
        header
    }

    /// All its bytes.
    #[inline]
    pub fn size(&self) -> usize {
        self.head + self.body + self.tail
    }
}

/// A request that was refused while parsing, or by a command before its data came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Bytes of the line or packet that are done with.
    pub consumed: usize,
    /// Bytes after those to read and drop before the reply is sent.
    pub swallow: u64,
    /// What to answer.
    pub reply: Refusal,
    /// Close after answering.
    pub close: bool,
}

/// A refused text or meta line; `reply` is sent after `swallow` more bytes were dropped.
pub(super) fn bad<'a>(consumed: usize, swallow: u64, reply: &'static [u8]) -> Parsed<'a> {
    Parsed::Bad(Bad { consumed, swallow, reply: Refusal::Line(reply), close: false })
}

/// The answer to a refused request. It is made of constants, so that it can be kept until it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Complete with its line end; empty for nothing.
    Line(&'static [u8]),
    /// A packet: the opcode and opaque of the request, and what the body says.
    #[allow(missing_docs, reason = "told above")]
    Packet { opcode: u8, opaque: [u8; 4], status: Status, text: &'static [u8] },
}

impl Refusal {
    /// Appends it.
    pub fn push_to(self, out: &mut Vec<u8>) {
        match self {
            Refusal::Line(line) => out.extend_from_slice(line),
            Refusal::Packet { opcode, opaque, status, text } => {
                Response { opcode, status, opaque, cas: 0, extras: b"", key: b"", value_len: text.len() }.encode(out);
                out.extend_from_slice(text);
            }
        }
    }
}

/// What a client asks for.
#[derive(Debug)]
pub enum Request<'a> {
    /// A text command without a value.
    Text(TextCommand<'a>),
    /// A meta command without a value.
    Meta(MetaCommand<'a>),
    /// A packet without a value.
    Binary(Packet<'a>),
    /// A store of any protocol; its value stands behind it.
    Store(StoreHeader<'a>),
    /// An attempt to log in; what it says of the client stands behind it.
    Login(Login<'a>),
}

impl<'a> Request<'a> {
    /// The key as it is stored, decoded into `buffer` if need be; empty where there is not one key.
    #[inline]
    pub fn key<'k>(&'k self, buffer: &'k mut KeyBuffer) -> &'k [u8] {
        match self {
            Request::Text(command) => command.key(),
            Request::Meta(command) | Request::Store(StoreHeader::Meta(command)) => command.key(buffer),
            Request::Binary(packet) | Request::Store(StoreHeader::Binary(packet)) => packet.key,
            Request::Store(StoreHeader::Text(store)) => store.key,
            Request::Login(_) => b"",
        }
    }

    /// The refusal of this request that says `line` in text and meta, `status` and `text` in binary.
    pub fn refusal(&self, line: &'static [u8], status: Status, text: &'static [u8]) -> Refusal {
        match self {
            Request::Binary(packet) | Request::Store(StoreHeader::Binary(packet)) => packet.refusal(status, text),
            _ => Refusal::Line(line),
        }
    }
}

/// A store request without its value.
#[derive(Debug)]
pub enum StoreHeader<'a> {
    /// set, add, replace, append, prepend, cas.
    Text(TextStore<'a>),
    /// ms.
    Meta(MetaCommand<'a>),
    /// Set, Add, Replace, Append, Prepend and their quiet twins.
    Binary(Packet<'a>),
}

/// How a client says who it is.
#[derive(Debug)]
pub enum Login<'a> {
    /// `<user> <password>`, as the value of a set.
    Text,
    /// What a SASL mechanism is told.
    Sasl(SaslLogin<'a>),
}

/// A packet of a SASL mechanism; its key is the mechanism's name.
#[derive(Debug)]
pub struct SaslLogin<'a> {
    /// The packet.
    pub packet: Packet<'a>,
    /// Goes on with what was begun.
    pub is_step: bool,
    /// Something was begun.
    pub is_started: bool,
}

/// What a store command does with an existing or missing item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Stores whether or not something is there.
    Set,
    /// Stores only when nothing is there.
    Add,
    /// Stores only when something is there.
    Replace,
    /// Adds behind the existing value.
    Append,
    /// Adds in front of the existing value.
    Prepend,
}

/// A command without a data block.
#[derive(Debug)]
pub enum TextCommand<'a> {
    /// get, gets, gat, gats.
    Get(Get<'a>),
    /// delete.
    Delete {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// Answer nothing.
        quiet: bool,
    },
    /// incr, decr.
    Arith {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// Incr, not decr.
        incr: bool,
        /// By how much.
        delta: u64,
        /// Answer nothing.
        quiet: bool,
    },
    /// touch.
    Touch {
        /// 1 to 250 bytes.
        key: &'a [u8],
        /// As on the wire.
        exptime: i32,
        /// Answer nothing.
        quiet: bool,
    },
    /// quit.
    Quit,
    /// Everything administrative, its sub-arguments unparsed: `command::admin` reads them.
    Admin {
        /// Which command.
        verb: Admin,
        /// The whole line, cut into tokens when it is run: to keep these would make each request 370 bytes larger.
        line: &'a [u8],
        /// The last token is `noreply`, and this command honours it.
        noreply: bool,
    },
}

/// get, gets, gat, gats.
#[derive(Debug)]
pub struct Get<'a> {
    /// One or more keys between spaces, each of 1 to 250 bytes, up to the end of the line.
    pub keys: &'a [u8],
    /// `keys` is one key and nothing else, which is the common case.
    pub single: bool,
    /// Answer with the cas unique.
    pub with_cas: bool,
    /// gat and gats: the new exptime, as on the wire.
    pub exptime: Option<i32>,
}

/// Administrative commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the command of its name")]
pub enum Admin {
    Stats,
    FlushAll,
    Version,
    Verbosity,
    Shutdown,
    CacheMemlimit,
    Slabs,
    Lru,
    LruCrawler,
    Watch,
    RefreshCerts,
    Extstore,
    Config,
    Replica,
    Misbehave,
    Debugtime,
    Debugitem,
}

impl Admin {
    pub(super) fn honours_noreply(self) -> bool {
        !matches!(self, Admin::Stats | Admin::Version | Admin::Watch)
    }
}

/// set, add, replace, append, prepend, cas.
#[derive(Debug)]
pub struct TextStore<'a> {
    /// What to do with an existing or missing item; cas is `Set` with `compare`.
    pub mode: Mode,
    /// 1 to 250 bytes.
    pub key: &'a [u8],
    /// Stored beside the value.
    pub client_flags: u32,
    /// As on the wire.
    pub exptime: i32,
    /// cas: the unique that the item must have.
    pub compare: Option<u64>,
    /// Answer nothing.
    pub quiet: bool,
}

impl<'a> TextCommand<'a> {
    /// The key, where there is one and no other.
    #[inline]
    pub(super) fn key(&self) -> &'a [u8] {
        match self {
            TextCommand::Get(Get { keys: key, single: true, .. })
            | TextCommand::Delete { key, .. }
            | TextCommand::Arith { key, .. }
            | TextCommand::Touch { key, .. } => key,
            TextCommand::Get(_) | TextCommand::Quit | TextCommand::Admin { .. } => b"",
        }
    }
}

/// Which meta command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// mg.
    Get,
    /// ms.
    Set,
    /// md.
    Delete,
    /// ma.
    Arith,
    /// me.
    Debug,
    /// mn.
    Noop,
}

/// Where a base64 key is decoded to; other keys leave it untouched.
pub type KeyBuffer = Option<[u8; KEY_MAX]>;

/// A meta command; `ms` without its data. Each flag is there at most once, its argument checked.
#[derive(Debug)]
pub struct MetaCommand<'a> {
    /// Which.
    pub verb: Verb,
    /// ms: what M says. ma: `Append` stands for nothing.
    pub mode: Mode,
    /// ma: M says decr.
    pub decr: bool,
    /// As on the wire: base64 when the `b` flag is there. Empty for mn.
    pub wire_key: &'a [u8],
    /// The flags: the end of the line. They are cut again each time that they are gone through, because a list of them
    /// would make the command 290 bytes larger.
    pub(super) text: &'a [u8],
    /// Letters that are there.
    pub(super) seen: LetterSet,
    pub(super) numbers: Numbers,
}

/// Arguments of flags that are numbers.
#[derive(Debug, Default)]
pub struct Numbers {
    /// `T`: new TTL.
    pub ttl: i32,
    /// `N`: TTL of an item made on a miss.
    pub vivify: i32,
    /// `R`: recache below this TTL.
    pub recache: i32,
    /// `F`: client flags.
    pub client_flags: u32,
    /// `C`: compare cas.
    pub compare: u64,
    /// `E`: cas to give.
    pub cas: u64,
    /// `J`: initial value.
    pub initial: u64,
    /// `D`: delta.
    pub delta: u64,
}

impl<'a> MetaCommand<'a> {
    /// The key as it is stored: decoded into `buffer` when the `b` flag is there.
    #[inline]
    pub fn key<'k>(&'k self, buffer: &'k mut KeyBuffer) -> &'k [u8] {
        if !self.has(b'b') {
            return self.wire_key;
        }
        base64::decode(self.wire_key, buffer.insert([0; KEY_MAX])).expect("the parser refuses keys that do not decode")
    }

    /// Whether success (for mg: a miss) is not answered.
    pub fn quiet(&self) -> bool {
        self.has(b'q')
    }

    /// Whether `letter` is there.
    #[inline]
    pub fn has(&self, letter: u8) -> bool {
        self.seen.has_any(LetterSet::one(letter))
    }

    /// Whether one of `letters` is there.
    #[inline]
    pub fn has_any(&self, letters: LetterSet) -> bool {
        self.seen.has_any(letters)
    }

    /// All flags in the order of the request, letter first.
    pub fn flags(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        token::words(self.text)
    }

    /// `T`, when it is there.
    pub fn ttl(&self) -> Option<i32> {
        self.has(b'T').then_some(self.numbers.ttl)
    }

    /// `N`, when it is there.
    pub fn vivify(&self) -> Option<i32> {
        self.has(b'N').then_some(self.numbers.vivify)
    }

    /// `R`, when it is there.
    pub fn recache(&self) -> Option<i32> {
        self.has(b'R').then_some(self.numbers.recache)
    }

    /// `F`, 0 when it is not there.
    pub fn client_flags(&self) -> u32 {
        self.numbers.client_flags
    }

    /// `C`, when it is there.
    pub fn compare(&self) -> Option<u64> {
        self.has(b'C').then_some(self.numbers.compare)
    }

    /// `E`, when it is there.
    pub fn cas(&self) -> Option<u64> {
        self.has(b'E').then_some(self.numbers.cas)
    }

    /// `J`, 0 when it is not there.
    pub fn initial(&self) -> u64 {
        self.numbers.initial
    }

    /// `D`, 1 when it is not there.
    pub fn delta(&self) -> u64 {
        self.numbers.delta
    }
}

/// Letters of flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct LetterSet(u64);

impl LetterSet {
    /// The set of these, all of `A` to `z`.
    pub const fn of(letters: &[u8]) -> LetterSet {
        let (mut set, mut at) = (LetterSet(0), 0);
        while at < letters.len() {
            set = set.with(LetterSet::one(letters[at]));
            at += 1;
        }
        set
    }

    #[inline]
    pub(super) const fn one(letter: u8) -> LetterSet {
        LetterSet(1 << (letter - b'A'))
    }

    /// Whether a letter is in it.
    #[inline]
    pub fn has(self, letter: u8) -> bool {
        matches!(letter, b'A'..=b'z') && self.has_any(LetterSet::one(letter))
    }

    /// Whether one of these is in it.
    #[inline]
    pub fn has_any(self, letters: LetterSet) -> bool {
        self.0 & letters.0 != 0
    }

    /// Both sets together.
    #[inline]
    pub const fn with(self, letters: LetterSet) -> LetterSet {
        LetterSet(self.0 | letters.0)
    }
}

/// What a packet asks for. Extras are in the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum Op {
    Get,
    /// Set, Add, Replace, Append, Prepend.
    Store {
        mode: Mode,
        client_flags: u32,
        exptime: u32,
    },
    Delete,
    Arith {
        incr: bool,
        delta: u64,
        initial: u64,
        exptime: u32,
    },
    Quit,
    Flush {
        exptime: u32,
    },
    Noop,
    Version,
    Stat,
    /// Which SASL mechanisms there are.
    Mechanisms,
    /// What one of them is told.
    Sasl,
    /// ElastiCache's `config get`, of which there is but one.
    Config,
    Touch {
        exptime: u32,
    },
    GetAndTouch {
        exptime: u32,
    },
}

/// A packet without its value.
#[derive(Debug)]
pub struct Packet<'a> {
    /// What it asks for.
    pub op: Op,
    /// As it came in: replies repeat it.
    pub opcode: u8,
    /// Success (for gets: a miss) is not answered.
    pub quiet: bool,
    /// Gets: the reply carries the key.
    pub with_key: bool,
    /// 0 to 250 bytes.
    pub key: &'a [u8],
    /// Repeated in replies.
    pub opaque: [u8; 4],
    /// 0: do not compare.
    pub cas: u64,
}

/// A response's parts.
#[derive(Debug)]
pub struct Response<'a> {
    /// The opcode of the request.
    pub opcode: u8,
    /// Its outcome.
    pub status: Status,
    /// The opaque of the request.
    pub opaque: [u8; 4],
    /// The item's cas unique, or 0.
    pub cas: u64,
    /// Before the key.
    pub extras: &'a [u8],
    /// Often empty.
    pub key: &'a [u8],
    /// Bytes of the value that follows.
    pub value_len: usize,
}

impl Response<'_> {
    /// Appends header, extras and key to `out`; the value is up to the caller.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        let body = self.extras.len() + self.key.len() + self.value_len;
        let mut header = [0; HEADER];
        header[0] = RESPONSE;
        header[1] = self.opcode;
        header[2..4].copy_from_slice(&(self.key.len() as u16).to_be_bytes());
        header[4] = self.extras.len() as u8;
        header[6..8].copy_from_slice(&(self.status as u16).to_be_bytes());
        header[8..12].copy_from_slice(&(body as u32).to_be_bytes());
        header[12..16].copy_from_slice(&self.opaque);
        header[16..24].copy_from_slice(&self.cas.to_be_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(self.extras);
        out.extend_from_slice(self.key);
    }
}

impl Packet<'_> {
    /// The response to this packet that says `status` with `text`.
    pub fn refusal(&self, status: Status, text: &'static [u8]) -> Refusal {
        Refusal::Packet { opcode: self.opcode, opaque: self.opaque, status, text }
    }
}
