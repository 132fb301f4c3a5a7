//! `twincached`: parse options, build the parts, start, wait for a signal, stop in order.
//!
//! ```text
//! options > process (limits, user, background, signals) > store > control socket > server > port and pid files
//!         > wait for a signal, ten times a second advancing the clock
//!         > server stops > pid file goes > control socket stops > store's background stops
//! ```
//!
//! [`twincache::process`] says why the order is this. The files come last, because whoever reads them may connect at
//! once. The control socket goes on until nothing changes any more, so that replicas get everything.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use twincache::clock::Clock;
use twincache::command::Shared;
use twincache::config::{Config, Exit, log_level};
use twincache::net::{Control, Server, StartError};
use twincache::process::{self, PidFile};
use twincache::store::Store;
use twincache::sys::process::{Signal, wait_signal};

/// How often the clock is advanced: often enough that a second is never late by much.
const TICK: Duration = Duration::from_millis(100);

/// Descriptors per worker that memcached takes from `-c`.
const RESERVED_PER_WORKER: usize = 5;

fn main() -> ExitCode {
    match Config::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // A failure to write is ignored: the exit code still says that something is wrong.
            let _ = std::io::stdout().write_all(exit.stdout.as_bytes());
            let _ = std::io::stderr().write_all(exit.stderr.as_bytes());
            ExitCode::from(exit.code as u8)
        }
    }
}

fn run(config: Config) -> Result<(), Exit> {
    start_log(&config);
    process::prepare(&config)?;
    let shared = share(config)?;
    let _background = shared.store.start_background();
    let _control = Control::start(&shared).map_err(refuse)?;
    let server = Server::start(shared.clone()).map_err(refuse)?;
    check_conn_limit(&shared.config, server.addresses().len())?;
    if shared.config.unix_socket.is_none() {
        process::write_port_file(server.addresses());
    }
    let _pidfile = PidFile::write(&shared.config);
    server.stop(wait(&shared.clock));
    Ok(())
}

fn refuse(error: StartError) -> Exit {
    Exit::refuse(error.exit_code, error.message)
}

/// Logs lines without a prefix on stderr. The level is `log::max_level`, which the `verbosity` command changes.
fn start_log(config: &Config) {
    env_logger::Builder::new()
        .filter_module("twincache", log::LevelFilter::Trace)
        .format(|out, record| writeln!(out, "{}", record.args()))
        .init();
    log::set_max_level(log_level(config.verbosity));
    for line in &config.warnings {
        log::warn!("{line}");
    }
}

fn share(config: Config) -> Result<Arc<Shared>, Exit> {
    let clock = Arc::new(Clock::new());
    let store = Store::new(config.store.clone(), clock.clone()).map_err(|line| Exit::refuse(1, line))?;
    Ok(Arc::new(Shared::new(config, clock, store)))
}

/// COMPAT(maxconns_too_low): memcached counts its listeners and what its threads keep open as connections, and
/// does not start when `-c` leaves room for no others.
fn check_conn_limit(config: &Config, listeners: usize) -> Result<(), Exit> {
    if listeners + RESERVED_PER_WORKER * config.threads + 1 >= config.max_conns as usize {
        return Err(Exit::refuse(1, "Maxconns setting is too low, use -c to increase."));
    }
    Ok(())
}

/// Returns when the server shall stop, and whether gracefully.
fn wait(clock: &Clock) -> bool {
    loop {
        let signal = wait_signal(TICK);
        // The clock is advanced after a signal, too: a process that sends many must not stop it.
        clock.tick();
        match signal {
            None => {}
            Some(Signal::Reload) => log::info!("SIGHUP: there is nothing to read again"),
            Some(Signal::Stop) => {
                log::info!("Exiting normally");
                return false;
            }
            Some(Signal::StopGracefully) => {
                log::warn!("Gracefully stopping");
                return true;
            }
        }
    }
}
