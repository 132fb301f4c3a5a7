//! What shells need to complete the options of all three programs: `twincachectl completion bash`.
//!
//! ```text
//!   the tables of options ──> CompletedProgram ──┬── bash
//!                                                ├── zsh     a script, to be loaded by the shell
//!                                                └── fish
//! ```
//!
//! Made from the tables that the parsers read, when it is asked for: no option can be missing. What a program only
//! accepts, and does not claim in `--help`, is not offered.
//!
//! Not here: where the scripts lie (`scripts/install.sh`).

mod bash;
mod fish;
mod program;
mod zsh;

pub use program::{ArgumentKind, CompletedFlag, CompletedProgram};

use crate::cluster::options as cluster;
use crate::config::options::{Argument, OptionRow};
use crate::config::settings::{FLAGS, SUBOPTIONS};
use crate::sidecar::options as sidecar;

/// The script for a shell; None if it is not known. `twincachectl` is the program that calls this.
pub fn script(shell: &str, twincachectl: CompletedProgram) -> Option<String> {
    let programs = [twincached(), twincache_sidecar(), twincachectl];
    match shell {
        "bash" => Some(bash::script(&programs)),
        "zsh" => Some(zsh::script(&programs)),
        "fish" => Some(fish::script(&programs)),
        _ => None,
    }
}

/// The server.
pub fn twincached() -> CompletedProgram {
    CompletedProgram { name: "twincached", flags: rows(FLAGS), suboptions: rows(SUBOPTIONS), commands: Vec::new() }
}

/// The sidecar.
pub fn twincache_sidecar() -> CompletedProgram {
    let own = sidecar::OPTIONS.iter();
    let own = own.map(|row| CompletedFlag::new(row.letter.to_owned(), row.name, row.argument, row.help));
    let flags = own.chain(cluster_flags()).collect();
    CompletedProgram { name: "twincache-sidecar", flags, suboptions: Vec::new(), commands: Vec::new() }
}

/// The options that find etcd.
pub fn cluster_flags() -> impl Iterator<Item = CompletedFlag> {
    cluster::OPTIONS.iter().map(|row| CompletedFlag::new(String::new(), row.name, row.argument, row.help))
}

fn rows<T>(rows: &[OptionRow<T>]) -> Vec<CompletedFlag> {
    let claimed = rows.iter().filter(|row| !row.help.is_empty());
    let flag = |row: &OptionRow<T>| {
        let argument = match row.argument {
            Argument::Without => "",
            Argument::Needed(argument) | Argument::Optional(argument) => argument,
        };
        CompletedFlag::new(row.letter.map(String::from).unwrap_or_default(), row.name, argument, row.help)
    };
    claimed.map(flag).collect()
}
