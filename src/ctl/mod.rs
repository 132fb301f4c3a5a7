//! twincachectl: shows who is primary, and changes it when an operator wants that.
//!
//! ```text
//!   options ──> run ──> show                list, status
//!     ^                  └── look ── view   what etcd holds; who is silent
//!     │                      ├── diagnosis  what is wrong, in plain words
//!   defaults                 └── table, json
//! ```
//!
//! All that it does, it does by values in etcd, which the sidecars read. It talks to no server.
//!
//! Not here: what the sidecars make of it (`sidecar::lease`), and the values themselves (`cluster`).

mod console;
mod defaults;
mod diagnosis;
mod exit;
mod json;
mod look;
pub mod options;
mod show;
mod table;
mod view;

use console::Console;
use options::{CtlCommand, CtlOptions};

pub use exit::CtlExit;

/// Does what the command line says.
pub fn run(options: &CtlOptions) -> Result<(), CtlExit> {
    let mut console = Console::new(&options.cluster)?;
    match &options.command {
        CtlCommand::List(shards) => show::list(&mut console, shards, options.is_json),
        CtlCommand::Status(shards) => show::status(&mut console, shards, options.is_json),
    }
}

#[cfg(test)]
#[path = "tests/shown.rs"]
mod tests;
