//! The program `twincache-sidecar`: options in, exit code out. All else is in the library's `sidecar`.

use std::io::Write;
use std::process::ExitCode;
use twincache::sidecar::{self, options::Options};
use twincache::supervisor;

fn main() -> ExitCode {
    supervisor::end_on_panic();
    match Options::parse(std::env::args_os().skip(1)).and_then(sidecar::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // A failure to write is ignored: the exit code still says that something is wrong.
            let _ = std::io::stdout().write_all(exit.stdout.as_bytes());
            supervisor::say_error(&exit.stderr);
            ExitCode::from(exit.code)
        }
    }
}
