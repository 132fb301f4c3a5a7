//! The program `twincachectl`: command line in, exit code out. All else is in the library's `ctl`.

use std::process::ExitCode;
use twincache::ctl::{self, options::CtlOptions};

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    match CtlOptions::parse(std::env::args_os().skip(1), environment).and_then(|options| ctl::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => ExitCode::from(exit.tell()),
    }
}
