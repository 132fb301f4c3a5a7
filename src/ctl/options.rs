//! The command line of `twincachectl`, and the file and the environment that may stand in for a part of it.
//!
//! ```text
//!   --etcd … on the command line > TWINCACHE_ETCD of the environment > TWINCACHE_ETCD= in /etc/default/twincachectl
//!   COMMAND [ARGUMENT…] ──> a row of COMMANDS ──> Command
//! ```
//!
//! Two tables give the parser, `--help` and, through `tests/man.rs`, the man page.
//!
//! Not here: what the file's lines are (`defaults`), what the commands do.

use super::defaults::{self, Defaults};
use super::exit::CtlExit;
use crate::cluster::options::{self as cluster, ClusterOptions};
use crate::cluster::record::{ShardAddress, TopologyRecord};
use crate::completion::{self, CompletedFlag, CompletedProgram};
use crate::protocol::topology::TopologyLine;
use crate::tls::ClientFiles;
use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

/// One option.
#[derive(Debug)]
pub struct CtlOption {
    /// Its letter, or empty.
    pub letter: &'static str,
    /// Its long name.
    pub name: &'static str,
    /// The name of its argument, or empty.
    pub argument: &'static str,
    /// What `--help` says.
    pub help: &'static str,
}

const fn opt(letter: &'static str, name: &'static str, argument: &'static str, help: &'static str) -> CtlOption {
    CtlOption { letter, name, argument, help }
}

/// Every option but those of the cluster.
pub const OPTIONS: &[CtlOption] = &[
    opt("", "to", "<node>", "switchover: to this node, not to the first that is in sync"),
    opt("", "force", "", "promote: do it"),
    opt("", "all", "", "pause, resume: every shard"),
    opt("", "ip", "<addr>", "topology add: the address of the host, for clients that want one"),
    opt("n", "dry-run", "", "promote, remove: only say what would be done, and to how many items"),
    opt("", "json", "", "list, status, topology list, latency, hotkeys, slabs, top, plan: as JSON"),
    opt("", "interval", "<seconds>", "top: how often servers are asked, from 0.1 to 3600 (default: 1)"),
    opt("", "once", "", "top: print a table and end"),
    opt("", "tls", "", "servers are spoken to over TLS"),
    opt("", "tls-ca", "<file>", "certificates that those of servers are signed with, in PEM"),
    opt("", "tls-cert", "<file>", "certificate to show to servers, in PEM"),
    opt("", "tls-key", "<file>", "its private key"),
    opt("", "auth-file", "<file>", "log in to servers as the user:password of its first line"),
    opt("", "limit-mbps", "<num>", "dump, load: most megabits a second (default: no limit)"),
    opt("", "config", "<file>", "read this file instead of /etc/default/twincachectl"),
    opt("h", "help", "", "print this help and exit"),
    opt("V", "version", "", "print the version and exit"),
];

/// How servers are spoken to: options of each command that has `dial` among its options.
const DIAL: &str = "dial";
const DIAL_OPTIONS: &[&str] = &["tls", "tls-ca", "tls-cert", "tls-key", "auth-file"];

/// One command.
#[derive(Debug)]
pub struct CommandRow {
    /// Its name, of one word or two.
    pub name: &'static str,
    /// What follows, as one would type it.
    pub arguments: &'static str,
    /// The options that it takes.
    options: &'static [&'static str],
    /// What `--help` says.
    pub help: &'static str,
}

const fn row(
    name: &'static str,
    arguments: &'static str,
    options: &'static [&'static str],
    help: &'static str,
) -> CommandRow {
    CommandRow { name, arguments, options, help }
}

/// Every command.
pub const COMMANDS: &[CommandRow] = &[
    row("list", "[SHARD...]", &["json"], "a table of shards and nodes"),
    row("status", "[SHARD...]", &["json"], "shards in detail; code 1 if something is wrong"),
    row("switchover", "SHARD", &["to"], "hand it to a node in sync; nothing is lost"),
    row("promote", "SHARD NODE", &["force", "dry-run"], "make a node its primary, whatever is lost"),
    row("pause", "SHARD...|--all", &["all"], "no node takes over by itself"),
    row("resume", "SHARD...|--all", &["all"], "nodes take over by themselves again"),
    row("remove", "SHARD NODE", &["dry-run"], "forget a node that is not there any more"),
    row("topology list", "", &["json"], "where clients that discover are sent"),
    row("topology add", "SHARD HOST:PORT", &["ip"], "add a shard, or give it another address"),
    row("topology remove", "SHARD", &[], "take a shard out"),
    row("dump", "HOST:PORT", &["limit-mbps", DIAL], "write all items of a server to stdout"),
    row("load", "HOST:PORT", &["limit-mbps", DIAL], "store what dump has written, from stdin"),
    row("latency", "HOST:PORT...", &["json", DIAL], "how long servers take for requests"),
    row("hotkeys", "HOST:PORT...", &["json", DIAL], "which keys are asked for most"),
    row("slabs", "HOST:PORT...", &["json", DIAL], "what slab classes hold, of a memcached, too"),
    row("top", "[HOST:PORT...]", &["interval", "once", "json", DIAL], "what servers do now, in a terminal"),
    row("check", "[ADDRESS...]", &[DIAL], "one line and exit codes 0 to 3, for nagios"),
    row("plan", "[NAME=VALUE...]", &["json"], "from users to memory, nodes and network"),
    row("completion", "bash|zsh|fish", &[], "what a shell needs to complete options"),
];

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CtlCommand {
    /// One table; no shard is all.
    List(Vec<String>),
    /// In detail.
    Status(Vec<String>),
    /// Hand a shard over, perhaps to this node.
    Switchover(String, Option<String>),
    /// Make a node the owner.
    Promote {
        /// The shard.
        shard: String,
        /// The node.
        node: String,
        /// Whatever is lost.
        is_forced: bool,
        /// Only say what is.
        is_dry: bool,
    },
    /// No automatic takeover in these shards; None is all.
    Pause(Option<Vec<String>>),
    /// The opposite.
    Resume(Option<Vec<String>>),
    /// Forget a node.
    Remove {
        /// The shard.
        shard: String,
        /// The node.
        node: String,
        /// Only say what would be done.
        is_dry: bool,
    },
    /// Show where clients are sent.
    TopologyList,
    /// Send them there for this shard.
    TopologyAdd(ShardAddress),
    /// Not any more.
    TopologyRemove(String),
    /// All items of this server to stdout.
    Dump(String),
    /// Items from stdin to this server.
    Load(String),
    /// Statistics of these servers.
    Latency(Vec<String>),
    /// Statistics of these servers.
    HotKeys(Vec<String>),
    /// Statistics of these servers.
    Slabs(Vec<String>),
    /// What these servers do now; none is those of the cluster.
    Top(TopOptions),
    /// Whether these servers and sidecars are well; none is the cluster.
    Check(Vec<String>),
    /// What these users need.
    Plan(Vec<String>),
}

/// How servers are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialOptions {
    /// Over TLS, by these files.
    pub tls: Option<ClientFiles>,
    /// Its first line is what to log in with.
    pub auth_file: Option<String>,
}

/// What `top` is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopOptions {
    /// `HOST:PORT` of each; none: those of the cluster.
    pub servers: Vec<String>,
    /// How often each is asked.
    pub interval: Duration,
    /// Whether to print a table and end.
    pub is_once: bool,
    /// How they are spoken to.
    pub dial: DialOptions,
}

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CtlOptions {
    /// Where etcd is, and the name of the cluster; None for commands that need no etcd.
    pub cluster: Option<ClusterOptions>,
    /// What is to be done.
    pub command: CtlCommand,
    /// Whether to print JSON.
    pub is_json: bool,
    /// How servers are spoken to.
    pub dial: DialOptions,
    /// Megabits a second that a dump or a load may take.
    pub limit_megabits: Option<u64>,
}

impl CtlCommand {
    /// Whether it talks to servers and not to etcd.
    fn is_local(&self) -> bool {
        use CtlCommand::{Check, Dump, HotKeys, Latency, Load, Plan, Slabs, Top};
        match self {
            Dump(_) | Load(_) | Latency(_) | HotKeys(_) | Slabs(_) | Plan(_) => true,
            Check(addresses) => !addresses.is_empty(),
            Top(options) => !options.servers.is_empty(),
            _ => false,
        }
    }
}

impl CtlOptions {
    /// Parses the arguments after the program's name. `environment` has the variables.
    pub fn parse(
        words: impl Iterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<CtlOptions, CtlExit> {
        let words: Vec<OsString> = words.collect();
        let found = parser().parse(&words).map_err(|error| CtlExit::usage(&error.to_string()))?;
        if found.opt_present("help") {
            return Err(CtlExit::print(help()));
        }
        if found.opt_present("version") {
            return Err(CtlExit::print(format!("twincachectl {}\n", env!("CARGO_PKG_VERSION"))));
        }
        let (command, is_json) = (command(&found)?, found.opt_present("json"));
        let dial = dial(&found)?;
        let limit_megabits = number(&found, "limit-mbps", 1..=1_000_000)?;
        if command.is_local() {
            return Ok(CtlOptions { cluster: None, command, is_json, dial, limit_megabits });
        }
        let file = found.opt_str("config");
        let file = Defaults::read(file.as_deref()).map_err(|line| CtlExit::refuse(CtlExit::USAGE, &line))?;
        let cluster = cluster_of(&words, &found, |name| environment(name).or_else(|| file.get(name)))?;
        Ok(CtlOptions { cluster: Some(cluster), command, is_json, dial, limit_megabits })
    }
}

/// The options of the cluster, of which those that are not on the command line come from elsewhere.
fn cluster_of(
    words: &[OsString],
    found: &getopts::Matches,
    elsewhere: impl Fn(&str) -> Option<String>,
) -> Result<ClusterOptions, CtlExit> {
    let absent = cluster::OPTIONS.iter().filter(|row| !found.opt_present(row.name));
    let more = absent.filter_map(|row| {
        let value = elsewhere(&defaults::variable(row.name)).filter(|value| !value.is_empty())?;
        Some(format!("--{}={value}", row.name).into())
    });
    let words: Vec<OsString> = more.chain(words.iter().cloned()).collect();
    let found = parser().parse(&words).map_err(|error| CtlExit::usage(&error.to_string()))?;
    let read = ClusterOptions::read(&found).map_err(|line| CtlExit::usage(&line))?;
    let missing = || format!("--etcd is needed, or TWINCACHE_ETCD= in {}", defaults::FILE);
    read.ok_or_else(|| CtlExit::usage(&missing()))
}

fn parser() -> getopts::Options {
    let mut parser = getopts::Options::new();
    for opt in OPTIONS {
        match opt.argument {
            "" => parser.optflag(opt.letter, opt.name, opt.help),
            argument => parser.optopt(opt.letter, opt.name, opt.help, argument),
        };
    }
    cluster::add_to(&mut parser);
    parser
}

fn help() -> String {
    let typed = |row: &CommandRow| format!("{} {}", row.name, row.arguments);
    let width = COMMANDS.iter().map(|row| typed(row).len()).max().unwrap_or(0);
    let commands: String =
        COMMANDS.iter().map(|row| format!("    {:width$}  {}\n", typed(row).trim_end(), row.help)).collect();
    let brief = format!(
        "twincachectl shows and changes who is primary\n\n\
        usage: twincachectl [option ...] command [argument ...]\n\nCommands:\n{commands}"
    );
    parser().usage(brief.trim_end())
}

/// The command of the words that are no options.
fn command(found: &getopts::Matches) -> Result<CtlCommand, CtlExit> {
    let words: Vec<&str> = found.free.iter().map(String::as_str).collect();
    let is_meant = |row: &&CommandRow| {
        let name: Vec<&str> = row.name.split(' ').collect();
        words.starts_with(&name)
    };
    let Some(row) = COMMANDS.iter().find(is_meant) else {
        let names: Vec<&str> = COMMANDS.iter().map(|row| row.name).collect();
        return Err(CtlExit::usage(&match words.first() {
            None => format!("a command is needed: {}", names.join(", ")),
            Some(word) => format!("what is `{word}`? The commands are {}", names.join(", ")),
        }));
    };
    let is_foreign = |opt: &&CtlOption| {
        let is_for_all = ["config", "help", "version"].contains(&opt.name);
        let name = if DIAL_OPTIONS.contains(&opt.name) { DIAL } else { opt.name };
        found.opt_present(opt.name) && !is_for_all && !row.options.contains(&name)
    };
    if let Some(opt) = OPTIONS.iter().find(is_foreign) {
        return Err(CtlExit::usage(&format!("`{}` has no --{}", row.name, opt.name)));
    }
    let arguments = &words[row.name.split(' ').count()..];
    let command = row.command(arguments, found)?;
    command.ok_or_else(|| CtlExit::usage(&format!("usage: twincachectl {} {}", row.name, row.arguments)))
}

impl CommandRow {
    /// The command with its arguments; None if they are too few or too many.
    fn command(&self, arguments: &[&str], found: &getopts::Matches) -> Result<Option<CtlCommand>, CtlExit> {
        let is_dry = found.opt_present("dry-run");
        Ok(Some(match (self.name, arguments) {
            ("list", shards) => CtlCommand::List(names(shards)?),
            ("status", shards) => CtlCommand::Status(names(shards)?),
            ("switchover", [shard]) => {
                CtlCommand::Switchover(name(shard)?, found.opt_str("to").map(|to| name(&to)).transpose()?)
            }
            ("promote", [shard, node]) => CtlCommand::Promote {
                shard: name(shard)?,
                node: name(node)?,
                is_forced: found.opt_present("force"),
                is_dry,
            },
            ("pause" | "resume", shards) => {
                let shards = match (shards.is_empty(), found.opt_present("all")) {
                    (true, true) => None,
                    (false, false) => Some(names(shards)?),
                    _ => return Ok(None),
                };
                if self.name == "pause" { CtlCommand::Pause(shards) } else { CtlCommand::Resume(shards) }
            }
            ("remove", [shard, node]) => CtlCommand::Remove { shard: name(shard)?, node: name(node)?, is_dry },
            ("topology list", []) => CtlCommand::TopologyList,
            ("topology add", [shard, address]) => {
                CtlCommand::TopologyAdd(shard_address(name(shard)?, address, found.opt_str("ip"))?)
            }
            ("topology remove", [shard]) => CtlCommand::TopologyRemove(name(shard)?),
            ("dump", [server]) => CtlCommand::Dump(server_address(server)?),
            ("load", [server]) => CtlCommand::Load(server_address(server)?),
            ("latency", [_, ..]) => CtlCommand::Latency(server_addresses(arguments)?),
            ("hotkeys", [_, ..]) => CtlCommand::HotKeys(server_addresses(arguments)?),
            ("slabs", [_, ..]) => CtlCommand::Slabs(server_addresses(arguments)?),
            ("top", servers) => CtlCommand::Top(TopOptions {
                servers: server_addresses(servers)?,
                interval: interval(found)?,
                is_once: found.opt_present("once"),
                dial: dial(found)?,
            }),
            ("check", addresses) => CtlCommand::Check(checked_addresses(addresses)?),
            ("plan", words) => CtlCommand::Plan(words.iter().map(|word| (*word).to_owned()).collect()),
            ("completion", [shell]) => return completion_for(shell).map_or(Ok(None), |text| Err(CtlExit::print(text))),
            _ => return Ok(None),
        }))
    }
}

/// The script for a shell. It needs no etcd: it is printed as `--help` is.
fn completion_for(shell: &str) -> Option<String> {
    let own = OPTIONS.iter();
    let own = own.map(|row| CompletedFlag::new(row.letter.to_owned(), row.name, row.argument, row.help));
    let flags = own.chain(completion::cluster_flags()).collect();
    let commands = COMMANDS.iter().map(|row| CompletedFlag::new(String::new(), row.name, row.arguments, row.help));
    let commands = commands.collect();
    completion::script(shell, CompletedProgram { name: "twincachectl", flags, suboptions: Vec::new(), commands })
}

/// An option that is a number.
fn number(found: &getopts::Matches, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, CtlExit> {
    let Some(text) = found.opt_str(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (least, most) = (range.start(), range.end());
    let bad = || CtlExit::usage(&format!("--{name} {text}: a number from {least} to {most} is needed"));
    number.map(Some).ok_or_else(bad)
}

/// How servers are spoken to.
fn dial(found: &getopts::Matches) -> Result<DialOptions, CtlExit> {
    let usage = |line: &str| Err(CtlExit::usage(line));
    let auth_file = found.opt_str("auth-file");
    let (ca, cert, key) = (found.opt_str("tls-ca"), found.opt_str("tls-cert"), found.opt_str("tls-key"));
    if !found.opt_present("tls") {
        let is_lost = ca.or(cert).or(key).is_some();
        return match is_lost {
            true => usage("--tls-ca, --tls-cert and --tls-key need --tls, too"),
            false => Ok(DialOptions { tls: None, auth_file }),
        };
    }
    let Some(ca) = ca else { return usage("--tls needs --tls-ca: whose certificates are good?") };
    let own = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        _ => return usage("--tls-cert and --tls-key need each other"),
    };
    let files = ClientFiles { ca, own };
    files.check().map_err(|why| CtlExit::refuse(CtlExit::USAGE, &why))?;
    Ok(DialOptions { tls: Some(files), auth_file })
}

/// How often servers are asked.
fn interval(found: &getopts::Matches) -> Result<Duration, CtlExit> {
    let Some(text) = found.opt_str("interval") else { return Ok(Duration::from_secs(1)) };
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = text.parse().ok().filter(|seconds| is_plain && (0.1..=3600.0).contains(seconds));
    let bad = || CtlExit::usage(&format!("--interval {text}: seconds from 0.1 to 3600 are needed"));
    seconds.map(Duration::from_secs_f64).ok_or_else(bad)
}

/// Where a server is.
fn server_address(address: &str) -> Result<String, CtlExit> {
    let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
    match port.and_then(|port| port.parse::<u16>().ok()) {
        Some(1..) => Ok(address.to_owned()),
        _ => Err(CtlExit::usage(&format!("{address}: a host and a port are needed, as in 10.0.0.1:11211"))),
    }
}

fn server_addresses(addresses: &[&str]) -> Result<Vec<String>, CtlExit> {
    addresses.iter().map(|address| server_address(address)).collect()
}

/// Servers, or the HTTP of sidecars.
fn checked_addresses(addresses: &[&str]) -> Result<Vec<String>, CtlExit> {
    let one = |address: &&str| match address.strip_prefix("http://") {
        Some(sidecar) => server_address(sidecar.trim_end_matches('/')).map(|sidecar| format!("http://{sidecar}")),
        None => server_address(address),
    };
    addresses.iter().map(one).collect()
}

/// Where clients find a shard.
fn shard_address(name: String, address: &str, ip: Option<String>) -> Result<ShardAddress, CtlExit> {
    let bad = |why: &str| CtlExit::usage(&format!("{address}: {why}, as in cache-1.example:11211"));
    let (host, port) = address.rsplit_once(':').ok_or_else(|| bad("a port is needed"))?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad("a port is a number from 1 to 65535"))?;
    if let Some(ip) = ip.as_deref().filter(|ip| ip.parse::<IpAddr>().is_err()) {
        return Err(CtlExit::usage(&format!("--ip {ip}: an address is needed, as in 10.0.0.1 or fd00::1")));
    }
    let own = host.parse::<IpAddr>().map_or(String::new(), |_| host.to_owned());
    let address = ShardAddress { name, host: host.to_owned(), ip: ip.unwrap_or(own), port };
    let record = TopologyRecord { version: 1, shards: vec![address.clone()] };
    match TopologyLine::parse(record.to_string().as_bytes()) {
        Some(_) => Ok(address),
        None => Err(bad("a host has 1 to 253 of -.a-zA-Z0-9, and an IPv6 address goes into --ip")),
    }
}

/// The names of shards or nodes.
fn names(words: &[&str]) -> Result<Vec<String>, CtlExit> {
    words.iter().map(|word| name(word)).collect()
}

fn name(word: &str) -> Result<String, CtlExit> {
    if crate::cluster::keys::is_name(word) {
        return Ok(word.to_owned());
    }
    let most = crate::cluster::keys::NAME_MAX;
    Err(CtlExit::usage(&format!("{word:?} is no name: names have 1 to {most} of -.a-zA-Z0-9")))
}

#[cfg(test)]
#[path = "tests/options.rs"]
mod tests;
