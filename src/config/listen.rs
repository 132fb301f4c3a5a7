//! Where to listen, and what to speak there: the addresses of `-l`, the protocols of `-B`.
//!
//! Not here: how sockets are bound (`net/listen`).

use super::exit::Exit;
use super::values;

/// Which protocols a listening socket speaks (`-B`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// By the first byte of each connection.
    #[default]
    Auto,
    /// Text and meta only.
    Ascii,
    /// Binary only.
    Binary,
}

impl Binding {
    /// As `stats settings` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Auto => "auto-negotiate",
            Binding::Ascii => "ascii",
            Binding::Binary => "binary",
        }
    }
}

/// The value of `-B`.
pub(super) fn protocol(text: &str) -> Result<Binding, Exit> {
    match text {
        "auto" => Ok(Binding::Auto),
        "ascii" => Ok(Binding::Ascii),
        "binary" => Ok(Binding::Binary),
        _ => Err(Exit::usage(format!(
            "Invalid value for binding protocol: {text}\n -- should be one of auto, binary, or ascii"
        ))),
    }
}

/// One `-l` address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// Host name, IPv4 or IPv6 address; `*` is any.
    pub host: String,
    /// Port if given; 0 is any free one.
    pub port: Option<u16>,
    /// `proto[…]:` if given.
    pub binding: Option<Binding>,
    /// `notls:`, `btls:` or `mtls:` if given.
    pub tls: Option<ListenTls>,
}

/// How TLS is used at one address of a server that speaks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenTls {
    /// Not at all.
    Plain,
    /// Clients need no certificate.
    NoCerts,
    /// Every client needs one.
    Certs,
}

impl ListenAddr {
    /// Reads one address: `[notls:|btls:|mtls:][proto[ascii|binary|negotiating]:][tag[name]:|tag_name_:]host[:port]`.
    /// Tags are for memcached's proxy only and are dropped. The error is one line.
    pub fn parse(text: &str, has_tls: bool) -> Result<ListenAddr, String> {
        let (tls, rest) = split_tls(text, has_tls)?;
        let (binding, rest) = split_binding(rest)?;
        let (host, port) = split_port(without_tag(rest)?)?;
        if host.is_empty() {
            return Err(format!("No host in \"{text}\""));
        }
        let port = match port {
            Some(port) => Some(values::whole(port).ok_or_else(|| format!("Invalid port number: \"{port}\""))?),
            None => None,
        };
        Ok(ListenAddr { host: host.to_owned(), port, binding, tls })
    }
}

fn split_tls(text: &str, has_tls: bool) -> Result<(Option<ListenTls>, &str), String> {
    for (word, tls) in [("notls", ListenTls::Plain), ("btls", ListenTls::NoCerts), ("mtls", ListenTls::Certs)] {
        match text.strip_prefix(word).and_then(|rest| rest.strip_prefix(':')) {
            Some(_) if !has_tls => return Err(format!("'{word}' option is valid only when SSL is enabled")),
            Some(rest) => return Ok((Some(tls), rest)),
            None => {}
        }
    }
    Ok((None, text))
}

/// `proto[word]:`; any beginning of a word will do.
fn split_binding(text: &str) -> Result<(Option<Binding>, &str), String> {
    let Some(inner) = text.strip_prefix("proto[") else { return Ok((None, text)) };
    let (word, rest) = inner.split_once("]:").ok_or_else(|| format!("Invalid protocol spec: \"{text}\""))?;
    let binding = match word {
        "" => return Err(format!("Invalid protocol spec: \"{text}\"")),
        _ if "ascii".starts_with(word) => Binding::Ascii,
        _ if "binary".starts_with(word) => Binding::Binary,
        _ if "negotiating".starts_with(word) => Binding::Auto,
        _ if "proxy".starts_with(word) => return Err(format!("Server not built with proxy: \"proto[{word}\"")),
        _ => return Err(format!("Invalid protocol spec: \"proto[{word}\"")),
    };
    Ok((Some(binding), rest))
}

/// The longest tag that memcached takes.
const TAG_MAX: usize = 8;

fn without_tag(text: &str) -> Result<&str, String> {
    let (tag, rest) = if let Some(inner) = text.strip_prefix("tag[") {
        inner.split_once("]:").ok_or_else(|| format!("Invalid tag in socket config: \"{text}\""))?
    } else if let Some(inner) = text.strip_prefix("tag_") {
        inner.split_once("_:").ok_or_else(|| format!("Invalid tag in socket config: \"{text}\""))?
    } else {
        return Ok(text);
    };
    if (1..=TAG_MAX).contains(&tag.len()) {
        return Ok(rest);
    }
    Err(format!("Listener tags must be between 1 and {TAG_MAX} characters: \"{tag}\""))
}

/// `[v6]`, `[v6]:port`, bare v6 (more than one colon, so without a port), `host`, `host:port`.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if let Some(inner) = text.strip_prefix('[') {
        let invalid = || format!("Invalid IPV6 address: \"{text}\"");
        let (host, rest) = inner.split_once(']').ok_or_else(invalid)?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(invalid()),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Ok((host, Some(port))),
        _ => Ok((text, None)),
    }
}
