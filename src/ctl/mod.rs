//! twincachectl: shows who is primary, and changes it when an operator wants that.
//!
//! ```text
//!   options ──> run ──┬── show                list, status
//!     ^               │    └── look ── view   what etcd holds; who is silent
//!     │               │        ├── diagnosis  what is wrong, in plain words
//!   defaults          │        └── table, json
//!                     ├── request             switchover, promote
//!                     └── edit                pause, resume, remove, topology
//! ```
//!
//! All that it does, it does by values in etcd, which the sidecars read. It talks to no server.
//!
//! Not here: what the sidecars make of it (`sidecar::lease`), and the values themselves (`cluster`).

mod console;
mod defaults;
mod diagnosis;
mod edit;
mod exit;
mod json;
mod look;
pub mod options;
mod request;
mod show;
mod table;
mod view;

use console::Console;
use options::{CtlCommand, CtlOptions};

pub use exit::CtlExit;

/// Does what the command line says.
pub fn run(options: &CtlOptions) -> Result<(), CtlExit> {
    let mut console = Console::new(&options.cluster)?;
    let console = &mut console;
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
    }
}

#[cfg(test)]
#[path = "tests/shown.rs"]
mod tests;
