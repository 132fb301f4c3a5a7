//! twincachectl: shows who is primary, and changes it when an operator wants that.
//!
//! ```text
//!   options ──> run ──┬── show                list, status
//!     ^               │    └── look ── view   what etcd holds; who is silent
//!     │               │        ├── diagnosis  what is wrong, in plain words
//!   defaults          │        └── table, json
//!                     ├── request             switchover, promote
//!                     ├── edit                pause, resume, remove, topology
//!                     ├── check               shards, servers or sidecars, for nagios
//!                     ├── insight ── dial     latency, hotkeys, slabs: what servers say of themselves
//!                     ├── top ── dial         the same in a terminal, as it is now
//!                     ├── plan                arithmetic alone
//!                     └── dump, load ── dial  items of a server, which may be a memcached: dump by key_list
//! ```
//!
//! What it does to a cluster, it does by values in etcd, which the sidecars read. Only `check`, `insight`, `top`, `dump` and `load`
//! talk to servers, and those may be of no cluster.
//!
//! Not here: what the sidecars make of it (`sidecar::lease`), and the values themselves (`cluster`).

mod check;
mod console;
mod defaults;
mod diagnosis;
mod dial;
mod dump;
mod dump_line;
mod edit;
mod exit;
mod insight;
mod json;
mod key_list;
mod load;
mod look;
pub mod options;
mod pace;
mod plan;
mod request;
mod show;
mod table;
mod top;
mod view;

use crate::cluster::options::ClusterOptions;
use console::Console;
use options::{CtlCommand, CtlOptions, TopOptions};
use pace::MovedServer;
use std::io::{BufReader, BufWriter, IsTerminal};

pub use exit::CtlExit;

/// Does what the command line says.
pub fn run(options: &CtlOptions) -> Result<(), CtlExit> {
    match &options.cluster {
        Some(cluster) => run_in(cluster, options),
        None => run_alone(options),
    }
}

/// What needs no etcd.
fn run_alone(options: &CtlOptions) -> Result<(), CtlExit> {
    let (dial, is_json) = (&options.dial, options.is_json);
    let moved = |server| MovedServer { server, dial, limit_megabits: options.limit_megabits };
    let said = match &options.command {
        CtlCommand::Dump(_) if std::io::stdout().is_terminal() => {
            return Err(CtlExit::usage("a dump belongs in a file: twincachectl dump HOST:PORT > FILE"));
        }
        CtlCommand::Dump(server) => {
            let mut out = BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
            dump::dump(&moved(server), &mut out)?
        }
        CtlCommand::Latency(servers) => return insight::show(&insight::LATENCY, servers, dial, is_json),
        CtlCommand::HotKeys(servers) => return insight::show(&insight::HOT_KEYS, servers, dial, is_json),
        CtlCommand::Slabs(servers) => return insight::show(&insight::SLABS, servers, dial, is_json),
        CtlCommand::Top(wanted) => return top::top(wanted, is_json),
        CtlCommand::Check(addresses) => return Err(check::servers(addresses, dial)),
        CtlCommand::Plan(words) => return Err(CtlExit::print(plan::plan(words, is_json)?)),
        CtlCommand::Load(server) => {
            let mut from = BufReader::with_capacity(64 << 10, std::io::stdin().lock());
            load::load(&moved(server), &mut from, load::left_of_stdin())?
        }
        _ => unreachable!("all others have a cluster"),
    };
    exit::to_stderr(&format!("twincachectl: {said}\n"));
    Ok(())
}

/// What is done by values in etcd.
fn run_in(cluster: &ClusterOptions, options: &CtlOptions) -> Result<(), CtlExit> {
    if let CtlCommand::Check(_) = &options.command {
        return Err(check::cluster(cluster));
    }
    let mut console = Console::new(cluster)?;
    let done = done_in(&mut console, options);
    done.and_then(|()| console.end())
}

fn done_in(console: &mut Console, options: &CtlOptions) -> Result<(), CtlExit> {
    match &options.command {
        CtlCommand::List(shards) => show::list(console, shards, options.is_json),
        CtlCommand::Status(shards) => show::status(console, shards, options.is_json),
        CtlCommand::Switchover(shard, to) => request::switchover(console, shard, to.as_deref()),
        CtlCommand::Promote { shard, node, is_forced, is_dry } => {
            request::promote(console, shard, node, *is_forced, *is_dry)
        }
        CtlCommand::Pause(shards) => edit::pause(console, shards.as_deref(), true),
        CtlCommand::Resume(shards) => edit::pause(console, shards.as_deref(), false),
        CtlCommand::Remove { shard, node, is_dry } => edit::remove(console, shard, node, *is_dry),
        CtlCommand::TopologyList => edit::list_topology(console, options.is_json),
        CtlCommand::TopologyAdd(address) => edit::add_to_topology(console, address),
        CtlCommand::TopologyRemove(shard) => edit::remove_from_topology(console, shard),
        CtlCommand::Top(wanted) => {
            let servers = show::addresses(console)?;
            top::top(&TopOptions { servers, ..wanted.clone() }, options.is_json)
        }
        _ => unreachable!("all others have no cluster"),
    }
}

#[cfg(test)]
#[path = "tests/shown.rs"]
mod tests;
