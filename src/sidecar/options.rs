//! The sidecar's command line.
//!
//! One table gives the parser, `--help` and, through `tests/man.rs`, the man page.

use crate::cluster::options::{self, ClusterOptions};
use crate::protocol::control;
use crate::sidecar::peer_login::PeerLogin;
use crate::tls::ClientFiles;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// The most peers: a replication factor of five needs four, and the server takes eight consumers.
const PEERS_MAX: usize = 8;

/// Largest `--limit-mbps`: a terabit a second.
const MEGABITS_MAX: u64 = 1_000_000;

/// How far behind a healthy peer may be, unless `--max-lag-ms` says otherwise. It is longer than a stall of the
/// network, and shorter than what anybody wants to lose.
const MAX_LAG: Duration = Duration::from_secs(10);

/// Largest `--max-lag-ms`: a day.
const MAX_LAG_MS_MAX: u64 = 86_400_000;

/// Longest name of a network interface, in bytes.
const INTERFACE_MAX: usize = 15;

/// The lease, unless `--lease-ms` says otherwise: an owner that is gone is noticed after little more.
const LEASE_MS: u64 = 1000;

/// Shortest and longest lease: etcd has to answer several times within it.
const LEASE_MS_MIN: u64 = 100;
const LEASE_MS_MAX: u64 = 60_000;

/// `--bootstrap-wait`, unless it is given.
const BOOTSTRAP_MS: u64 = 60_000;

/// Exit code of bad usage, the same as the server's.
const EX_USAGE: u8 = 64;

/// One option.
#[derive(Debug)]
pub struct SidecarOption {
    /// Its letter, or empty.
    pub letter: &'static str,
    /// Its long name.
    pub name: &'static str,
    /// The name of its argument, or empty.
    pub argument: &'static str,
    /// May be given several times.
    pub repeats: bool,
    /// What `--help` says.
    pub help: &'static str,
}

const fn opt(letter: &'static str, name: &'static str, argument: &'static str, help: &'static str) -> SidecarOption {
    SidecarOption { letter, name, argument, repeats: false, help }
}

/// Every option.
pub const OPTIONS: &[SidecarOption] = &[
    opt("", "server", "unix:<path>", "control socket of the local twincached (its -o control_socket)"),
    SidecarOption {
        repeats: true,
        ..opt("", "peer", "<host>:<port>", "a server to keep equal; may be given several times")
    },
    opt("", "peer-tls", "", "speak TLS with peers, which has to be what their ports speak"),
    opt("", "peer-ca", "<file>", "certificates that those of peers are signed with, in PEM"),
    opt("", "peer-cert", "<file>", "certificate to show to peers, in PEM"),
    opt("", "peer-key", "<file>", "its private key"),
    opt("", "peer-auth-file", "<file>", "log in to peers as the user of the first line, <user>:<password>"),
    opt("", "limit-mbps", "<num>", "most megabits a second to each peer (default: no limit)"),
    opt("", "replace-peer", "", "copy the server that is there now even if the peer holds more, and lose that"),
    opt("", "http", "<addr>:<port>", "serve a status page, /health and /metrics there (default: not at all)"),
    opt("", "http-token", "<file>", "show figures only to who sends the token in this file"),
    opt("", "http-keys", "", "show hot keys by name, not by rank only"),
    opt("", "max-lag-ms", "<num>", "/health is bad when a peer is behind by more (default: 10000)"),
    opt("", "max-lag", "<num>", "the same as --max-lag-ms"),
    opt("", "shard", "<name>", "name of the shard that this node belongs to"),
    opt("", "node", "<name>", "name of this node in the shard"),
    opt("", "advertise", "<host>:<port>", "where clients and the other nodes reach the local twincached"),
    opt("", "lease-ms", "<num>", "how long the primary may serve without renewing its lease (default: 1000)"),
    opt(
        "",
        "bootstrap-wait",
        "<num>",
        "milliseconds after which a node without the data claims the shard (default: 60000)",
    ),
    opt("", "vip", "<addr>/<len>", "address that the shard's primary has, on the interface of --dev"),
    opt("", "dev", "<interface>", "network interface for the address of --vip"),
    opt("", "on-promote", "<command>", "run this when this node has become primary"),
    opt("", "on-demote", "<command>", "run this when this node is not primary any more"),
    opt("u", "user", "<user>", "become this user (only used when started as root; not with --vip)"),
    opt("", "check", "", "say what would keep a sidecar from starting with the other options, and exit"),
    opt("v", "verbose", "", "say more on stderr"),
    opt("h", "help", "", "print this help and exit"),
    opt("V", "version", "", "print the version and exit"),
];

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The control socket.
    pub server: PathBuf,
    /// The peers, as they were given.
    pub peers: Vec<String>,
    /// The certificates, if peers are spoken to by TLS.
    pub peer_tls: Option<ClientFiles>,
    /// Who logs in to peers, if they ask for that.
    pub(crate) peer_login: Option<PeerLogin>,
    /// Megabits a second to each peer.
    pub limit_megabits: Option<u64>,
    /// Whether what a peer holds may be lost.
    pub may_replace: bool,
    /// Where to serve HTTP.
    pub http: Option<SocketAddr>,
    /// What holds the token that guards the figures.
    pub http_token_file: Option<PathBuf>,
    /// Whether hot keys are shown by name.
    pub shows_keys: bool,
    /// How far behind a healthy peer may be.
    pub max_lag: Duration,
    /// The shard that this node belongs to.
    pub lease: Option<LeaseOptions>,
    /// How clients find the shard's primary.
    pub address: AddressOptions,
    /// Whom to become.
    pub user: Option<String>,
    /// Whether to look only for what would keep it from starting.
    pub is_check: bool,
    /// Whether to log more.
    pub is_verbose: bool,
}

/// This node's place in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseOptions {
    /// Where etcd is, and the name of the cluster.
    pub cluster: ClusterOptions,
    /// The shard's name.
    pub shard: String,
    /// This node's name.
    pub node: String,
    /// Where clients and peers reach its server.
    pub advertise: String,
    /// Where its sidecar serves HTTP, or empty.
    pub http: String,
    /// For how long a renewal is good.
    pub lease: Duration,
    /// When a node that is no member may claim the shard, after the lease.
    pub bootstrap_wait: Duration,
}

/// How clients find the shard's primary, apart from asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressOptions {
    /// The floating address.
    pub vip: Option<Vip>,
    /// For /bin/sh, when this node has become primary.
    pub on_promote: Option<String>,
    /// For /bin/sh, when it is not primary any more.
    pub on_demote: Option<String>,
}

/// An address that is where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub ip: IpAddr,
    /// The length of its network's prefix.
    pub bits: u8,
    /// The interface that it is added to.
    pub interface: String,
}

impl fmt::Display for Vip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

impl Vip {
    /// Whether an address with a prefix of this length is in a network that this address is in, too.
    pub fn is_in_network_of(&self, ip: IpAddr, bits: u8) -> bool {
        let differ = match (self.ip, ip) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => return false,
        };
        differ >= u32::from(bits)
    }
}

/// How the program ends: what it prints, and its exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct SidecarExit {
    /// The exit code.
    pub code: u8,
    /// For stdout.
    pub stdout: String,
    /// For stderr.
    pub stderr: String,
}

impl SidecarExit {
    pub(super) fn print(stdout: String) -> SidecarExit {
        SidecarExit { code: 0, stdout, stderr: String::new() }
    }

    /// Ends with an error of one line.
    pub fn refuse(code: u8, line: &str) -> SidecarExit {
        SidecarExit { code, stdout: String::new(), stderr: format!("twincache-sidecar: {line}\n") }
    }

    /// Ends with a mistake in the command line.
    pub(super) fn usage(line: &str) -> SidecarExit {
        SidecarExit::refuse(EX_USAGE, &format!("{line} (see --help)"))
    }
}

impl Options {
    /// Parses the arguments after the program's name.
    pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Options, SidecarExit> {
        let words: Vec<OsString> = words.collect();
        let found = parser().parse(&words).map_err(|error| SidecarExit::usage(&error.to_string()))?;
        if found.opt_present("help") {
            return Err(SidecarExit::print(help()));
        }
        if found.opt_present("version") {
            return Err(SidecarExit::print(format!("twincache-sidecar {}\n", env!("CARGO_PKG_VERSION"))));
        }
        if let Some(word) = found.free.first() {
            return Err(SidecarExit::usage(&format!("what is `{word}`?")));
        }
        let server = found.opt_str("server").ok_or_else(|| SidecarExit::usage("--server unix:PATH is needed"))?;
        let number_of = |name, max| found.opt_str(name).map(|text| number(name, &text, max)).transpose();
        let lease = lease_options(&found)?;
        if found.opt_present("user") && found.opt_present("vip") {
            return Err(SidecarExit::usage("--user and --vip exclude each other: an address takes rights to add it"));
        }
        Ok(Options {
            server: path(&server)?,
            peers: peers(found.opt_strs("peer"), lease.is_some() || found.opt_present("http"))?,
            peer_tls: peer_tls(&found)?,
            peer_login: found.opt_str("peer-auth-file").map(|file| PeerLogin::new(file.into())),
            limit_megabits: number_of("limit-mbps", MEGABITS_MAX)?,
            may_replace: found.opt_present("replace-peer"),
            http: http(&found)?,
            http_token_file: found.opt_str("http-token").map(PathBuf::from),
            shows_keys: found.opt_present("http-keys"),
            max_lag: max_lag(&found)?,
            address: address_options(&found, lease.is_some())?,
            lease,
            user: found.opt_str("user"),
            is_check: found.opt_present("check"),
            is_verbose: found.opt_present("verbose"),
        })
    }
}

impl Options {
    /// The first line of the file that holds the token.
    pub(super) fn http_token(&self) -> Result<Option<String>, SidecarExit> {
        let Some(file) = &self.http_token_file else { return Ok(None) };
        let usage = |why: &str| SidecarExit::usage(&format!("--http-token {}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| usage(&error.to_string()))?;
        let token = text.lines().next().unwrap_or_default().trim();
        match token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            _ if token.is_empty() => Err(usage("its first line is empty")),
            true => Ok(Some(token.to_owned())),
            false => Err(usage("a token has letters, digits and -._~ only, so that it can stand in an address")),
        }
    }
}

fn max_lag(found: &getopts::Matches) -> Result<Duration, SidecarExit> {
    let given =
        ["max-lag-ms", "max-lag"].map(|name| found.opt_str(name).map(|text| number(name, &text, MAX_LAG_MS_MAX)));
    match given {
        [Some(_), Some(_)] => Err(SidecarExit::usage("--max-lag and --max-lag-ms are the same: give one of them")),
        [None, None] => Ok(MAX_LAG),
        [one, other] => one.or(other).transpose().map(|ms| ms.map_or(MAX_LAG, Duration::from_millis)),
    }
}

fn http(found: &getopts::Matches) -> Result<Option<SocketAddr>, SidecarExit> {
    let Some(text) = found.opt_str("http") else {
        let other = ["http-token", "http-keys"].into_iter().find(|name| found.opt_present(name));
        return other.map_or(Ok(None), |name| Err(SidecarExit::usage(&format!("--{name}: --http is needed, too"))));
    };
    address(&text).map(Some)
}

fn parser() -> getopts::Options {
    let mut parser = getopts::Options::new();
    for opt in OPTIONS {
        match (opt.argument, opt.repeats) {
            ("", _) => parser.optflag(opt.letter, opt.name, opt.help),
            (argument, false) => parser.optopt(opt.letter, opt.name, opt.help, argument),
            (argument, true) => parser.optmulti(opt.letter, opt.name, opt.help, argument),
        };
    }
    options::add_to(&mut parser);
    parser
}

fn help() -> String {
    let brief = "twincache-sidecar keeps other memcached servers equal to the local twincached\n\n\
        usage: twincache-sidecar --server unix:PATH --peer HOST:PORT [--peer …]";
    parser().usage(brief)
}

fn path(text: &str) -> Result<PathBuf, SidecarExit> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(path.into()),
        _ => Err(SidecarExit::usage(&format!("--server {text}: unix: and a path are needed"))),
    }
}

fn lease_options(found: &getopts::Matches) -> Result<Option<LeaseOptions>, SidecarExit> {
    let usage = |line: String| SidecarExit::usage(&line);
    const NAMES: [&str; 5] = ["shard", "node", "advertise", "lease-ms", "bootstrap-wait"];
    let Some(cluster) = ClusterOptions::read(found).map_err(usage)? else {
        let other = NAMES.into_iter().find(|name| found.opt_present(name));
        return other.map_or(Ok(None), |name| Err(usage(format!("--{name}: --etcd is needed, too"))));
    };
    let needed =
        |name: &str| found.opt_str(name).ok_or_else(|| SidecarExit::usage(&format!("--etcd needs --{name}, too")));
    let (shard, node, advertise) = (needed("shard")?, needed("node")?, needed("advertise")?);
    options::check_name("shard", &shard).and(options::check_name("node", &node)).map_err(usage)?;
    if let Some(mistake) = mistake_in(&advertise) {
        return Err(usage(format!("--advertise {advertise}: {mistake}, as in 10.0.0.2:11211 or [::1]:11211")));
    }
    let ms = |name, min, max, default| {
        let text = found.opt_str(name).unwrap_or_else(|| format!("{default}"));
        let ms = text.parse().ok().filter(|ms| (min..=max).contains(ms));
        ms.map(Duration::from_millis).ok_or_else(|| usage(format!("--{name} {text}: {min} to {max} are possible")))
    };
    Ok(Some(LeaseOptions {
        cluster,
        shard,
        node,
        advertise,
        http: found.opt_str("http").unwrap_or_default(),
        lease: ms("lease-ms", LEASE_MS_MIN, LEASE_MS_MAX, LEASE_MS)?,
        bootstrap_wait: ms("bootstrap-wait", 0, MAX_LAG_MS_MAX, BOOTSTRAP_MS)?,
    }))
}

/// Without peers and a lease it can still show the server by HTTP.
fn peers(texts: Vec<String>, has_work: bool) -> Result<Vec<String>, SidecarExit> {
    if texts.is_empty() && !has_work {
        return Err(SidecarExit::usage("--peer HOST:PORT is needed, or --etcd, or --http to show the server"));
    }
    if texts.len() > PEERS_MAX {
        return Err(SidecarExit::usage(&format!("more than {PEERS_MAX} peers")));
    }
    for (number, text) in texts.iter().enumerate() {
        if let Some(mistake) = mistake_in(text) {
            return Err(SidecarExit::usage(&format!("--peer {text}: {mistake}, as in 10.0.0.2:11211 or [::1]:11211")));
        }
        if texts[..number].contains(text) {
            return Err(SidecarExit::usage(&format!("--peer {text} is given twice")));
        }
    }
    Ok(texts)
}

fn peer_tls(found: &getopts::Matches) -> Result<Option<ClientFiles>, SidecarExit> {
    let usage = |line: &str| Err(SidecarExit::usage(line));
    let (ca, cert, key) = (found.opt_str("peer-ca"), found.opt_str("peer-cert"), found.opt_str("peer-key"));
    if !found.opt_present("peer-tls") {
        let is_lost = ca.or(cert).or(key).is_some();
        return if is_lost { usage("--peer-ca, --peer-cert and --peer-key need --peer-tls, too") } else { Ok(None) };
    }
    let Some(ca) = ca else { return usage("--peer-tls needs --peer-ca: whose certificates are good?") };
    let own = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return usage("--peer-cert and --peer-key need each other"),
    };
    Ok(Some(ClientFiles { ca, own }))
}

/// What is wrong with a host and a port.
fn mistake_in(text: &str) -> Option<&'static str> {
    let Some((host, port)) = text.rsplit_once(':') else {
        let is_port = text.parse::<u16>().is_ok();
        return Some(if is_port { "a host is needed before the port" } else { "a port is needed" });
    };
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() {
        Some("a host is needed")
    } else if host.contains(':') && !is_v6 {
        Some("an IPv6 address stands in brackets, and a port behind it")
    } else if !matches!(port.parse::<u16>(), Ok(1..)) {
        Some("a port is a number from 1 to 65535")
    } else if !control::is_word(text) {
        Some("at most 128 characters are possible, without blanks")
    } else {
        None
    }
}

/// The number of an option, from 1 on.
fn number(option: &str, text: &str, max: u64) -> Result<u64, SidecarExit> {
    let number = text.parse().ok().filter(|number| (1..=max).contains(number));
    number.ok_or_else(|| SidecarExit::usage(&format!("--{option} {text}: 1 to {max} are possible")))
}

fn address(text: &str) -> Result<SocketAddr, SidecarExit> {
    let bad = |why: &str| SidecarExit::usage(&format!("--http {text}: {why}"));
    if let Some(mistake) = mistake_in(text).filter(|_| !text.ends_with(":0")) {
        return Err(bad(&format!("{mistake}, as in 127.0.0.1:9151")));
    }
    let mut found = text.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
    found.next().ok_or_else(|| bad("no such address"))
}

fn address_options(found: &getopts::Matches, has_lease: bool) -> Result<AddressOptions, SidecarExit> {
    let vip = match (found.opt_str("vip"), found.opt_str("dev")) {
        (Some(vip), Some(dev)) => Some(vip_of(&vip, dev)?),
        (None, None) => None,
        (Some(_), None) => return Err(SidecarExit::usage("--vip needs --dev, the interface to add the address to")),
        (None, Some(_)) => return Err(SidecarExit::usage("--dev needs --vip, the address to add to the interface")),
    };
    let options =
        AddressOptions { vip, on_promote: found.opt_str("on-promote"), on_demote: found.opt_str("on-demote") };
    if !has_lease && options != AddressOptions::default() {
        return Err(SidecarExit::usage("--vip, --on-promote and --on-demote need --etcd: who is primary?"));
    }
    Ok(options)
}

fn vip_of(text: &str, interface: String) -> Result<Vip, SidecarExit> {
    let bad = |why: &str| Err(SidecarExit::usage(&format!("--vip {text}: {why}, as in 10.0.0.100/24 or fd00::100/64")));
    let Some((ip, bits)) = text.split_once('/') else { return bad("the length of the prefix is needed") };
    let Ok(ip) = ip.parse::<IpAddr>() else { return bad("an address is needed") };
    let longest = if ip.is_ipv4() { 32 } else { 128 };
    let Some(bits) = bits.parse().ok().filter(|bits| (1..=longest).contains(bits)) else {
        return bad(&format!("the length is 1 to {longest}"));
    };
    let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || is_link_local {
        return bad("one that other hosts can reach is needed");
    }
    let is_name = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
    if interface.is_empty() || interface.len() > INTERFACE_MAX || !interface.chars().all(is_name) {
        return Err(SidecarExit::usage(&format!("--dev {interface}: the name of an interface is needed, as in eth0")));
    }
    Ok(Vip { ip, bits, interface })
}

#[cfg(test)]
#[path = "tests/options.rs"]
mod tests;
