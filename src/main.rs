//! `twincached`: parse options, build the parts, start, wait for a signal, stop in order.

use std::io::Write;
use std::process::ExitCode;
use twincache::config::{Config, Exit};
use twincache::process;

fn main() -> ExitCode {
    match Config::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // Nobody may be reading; the exit code still says it.
            let _ = std::io::stdout().write_all(exit.stdout.as_bytes());
            let _ = std::io::stderr().write_all(exit.stderr.as_bytes());
            ExitCode::from(exit.code as u8)
        }
    }
}

fn run(config: Config) -> Result<(), Exit> {
    process::prepare(&config)
}
