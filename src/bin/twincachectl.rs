//! The program `twincachectl`: command line in, exit code out. All else is in the library's `ctl`.

use std::io::Write;
use std::process::ExitCode;
use twincache::ctl::{self, options::CtlOptions};

fn main() -> ExitCode {
    let environment = |name: &str| std::env::var(name).ok();
    match CtlOptions::parse(std::env::args_os().skip(1), environment).and_then(|options| ctl::run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // A failure to write is ignored: the exit code still says that something is wrong.
            let _ = std::io::stdout().write_all(exit.stdout.as_bytes());
            let _ = std::io::stderr().write_all(exit.stderr.as_bytes());
            ExitCode::from(exit.code)
        }
    }
}
