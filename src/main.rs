//! `twincached`: parse options, build the parts, start, wait for a signal, stop in order.
//!
//! ```text
//! options > process (limits, user, background, signals) > store > control socket > server > port and pid files
//!         > the parent of -d may go
//!         > wait for a signal, ten times a second advancing the clock, filling up the reserve of memory, and feeding the
//!           watchdog if there is one
//!         > server stops > pid file goes > control socket stops > store's background stops
//! ```
//!
//! [`twincache::process`] says why the order is this. The files come last, because whoever reads them may connect at
//! once. The control socket goes on until nothing changes any more, so that replicas get everything.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use twincache::check::check;
use twincache::clock::Clock;
use twincache::command::Shared;
use twincache::config::options::version;
use twincache::config::{Config, Exit, log_level};
use twincache::net::{Control, Server, StartError};
use twincache::process::{self, InBackground, PidFile};
use twincache::store::Store;
use twincache::supervisor::{self, Supervisor};
use twincache::sys::alloc;
use twincache::sys::alloc::ReservingAllocator;
use twincache::sys::process::{Signal, wait_signal};
use twincache::tls::ServerTls;

/// How often the clock is advanced: often enough that a second is never late by much.
const TICK: Duration = Duration::from_millis(100);

/// How often a file of passwords is looked at.
const FOLLOW: Duration = Duration::from_secs(1);

/// The watchdog is fed so often while its patience lasts.
const FEEDS: u32 = 4;

#[global_allocator]
static ALLOCATOR: ReservingAllocator = ReservingAllocator;

fn main() -> ExitCode {
    supervisor::end_on_panic();
    match Config::parse(std::env::args_os().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            // A failure to write is ignored: the exit code still says that something is wrong.
            let _ = std::io::stdout().write_all(exit.stdout.as_bytes());
            if exit.stdout == version() && std::io::stdout().is_terminal() {
                // Scripts expect one line, memcached's; people want to know what they have.
                println!("as offered by twincached {}", env!("CARGO_PKG_VERSION"));
            }
            supervisor::say_error(&exit.stderr);
            ExitCode::from(exit.code as u8)
        }
    }
}

fn run(mut config: Config) -> Result<(), Exit> {
    start_log(&config);
    if config.check {
        return Err(check(&config));
    }
    config.warnings.iter().for_each(|line| log::warn!("{line}"));
    // Before rights are given up that reading the key may need.
    let tls = config.tls.enabled.then(|| ServerTls::new(&config.tls)).transpose().map_err(Exit::usage)?;
    stay_in_front(&mut config);
    process::fit_memory(&mut config);
    let background = process::prepare(&config)?;
    alloc::prepare();
    alloc::refill();
    let shared = share(config, tls)?;
    shared.users.load(&shared.config).map_err(|line| Exit::refuse(1, line))?;
    if serve(&shared, background)? {
        shared.store.close_file();
    }
    Ok(())
}

/// As memcached, with `-vv`.
fn show_classes(store: &Store) {
    for (class, size, per_page) in store.slab_classes() {
        log::debug!("slab class {class:3}: chunk size {size:9} perslab {per_page:7}");
    }
}

/// Serves until the server shall stop. Whether it stopped gracefully; nobody uses the store any more then.
fn serve(shared: &Arc<Shared>, background: Option<InBackground>) -> Result<bool, Exit> {
    show_classes(&shared.store);
    let _background = shared.store.start_background();
    let _control = Control::start(shared).map_err(refuse)?;
    let server = Server::start(shared.clone()).map_err(refuse)?;
    if shared.config.leaves_no_room(server.addresses().len() + server.udp_addresses().len()) {
        return Err(Exit::refuse(1, "Maxconns setting is too low, use -c to increase."));
    }
    if shared.config.unix_socket.is_none() {
        process::write_port_file(server.addresses(), &udp_addresses(&server));
    }
    let _pidfile = PidFile::write(&shared.config);
    let about = about(&shared.config, &server);
    say_hello(&about, background.is_some());
    background.map_or(Ok(()), InBackground::is_up)?;
    let mut supervisor = Supervisor::from_env();
    supervisor.ready(&about);
    follow_users(shared);
    let is_graceful = wait(shared, &server, &supervisor);
    supervisor.stopping();
    server.stop(is_graceful);
    Ok(is_graceful)
}

fn refuse(error: StartError) -> Exit {
    Exit::refuse(error.exit_code, error.message)
}

/// Logs on stderr. The level is `log::max_level`, which the `verbosity` command changes.
fn start_log(config: &Config) {
    supervisor::start_log(log::LevelFilter::Trace);
    log::set_max_level(log_level(config.verbosity));
}

/// A service manager that waits for a word from this process does not get it from another one.
fn stay_in_front(config: &mut Config) {
    if config.daemonize && supervisor::is_there() {
        log::warn!("-d is ignored: a service manager has started this, and waits for it");
        config.daemonize = false;
    }
}

fn share(mut config: Config, tls: Option<ServerTls>) -> Result<Arc<Shared>, Exit> {
    let refuse = |line| Exit::refuse(1, line);
    let file = Store::open_file(&config.store).map_err(refuse)?;
    let resumed = file.as_ref().and_then(|file| file.resumed());
    let clock = Arc::new(resumed.map_or_else(Clock::new, Clock::resumed));
    let mut store = Store::with_file(config.store.clone(), clock.clone(), file);
    if store.is_err() && config.store.preallocate {
        process::take_less(&mut config);
        store = Store::new(config.store.clone(), clock.clone());
    }
    let store = store.map_err(refuse)?;
    Ok(Arc::new(Shared { tls: tls.map(Arc::new), ..Shared::new(config, clock, store) }))
}

/// The addresses of UDP, each once.
fn udp_addresses(server: &Server) -> Vec<SocketAddr> {
    let mut addresses = server.udp_addresses().to_vec();
    addresses.dedup();
    addresses
}

/// What the server does, and with what.
fn about(config: &Config, server: &Server) -> String {
    let tcp = server.addresses().iter().map(ToString::to_string);
    let udp = udp_addresses(server).into_iter().map(|address| format!("{address} (UDP)"));
    let listens: Vec<String> = tcp.chain(udp).chain(config.unix_socket.clone()).collect();
    let (megabytes, threads) = (config.store.memory_limit >> 20, config.threads);
    format!("serves {} with {megabytes} MB and {threads} threads", listens.join(", "))
}

/// A person at a terminal is told what runs now, and how to end it.
fn say_hello(about: &str, is_in_background: bool) {
    let line = format!("twincached {}, which {about}", env!("CARGO_PKG_VERSION"));
    if supervisor::is_journal() || !std::io::stderr().is_terminal() {
        supervisor::milestone(&line);
    } else if is_in_background {
        eprintln!("{line}; kill {} ends it", std::process::id());
    } else {
        eprintln!("{line}; Ctrl-C ends it");
    }
}

/// Returns when the server shall stop, and whether gracefully.
fn wait(shared: &Shared, server: &Server, supervisor: &Supervisor) -> bool {
    let mut watchdog = supervisor.watchdog().map(Watchdog::new);
    loop {
        let signal = wait_signal(TICK);
        // The clock is advanced after a signal, too: a process that sends many must not stop it.
        shared.clock.tick();
        shared.store.keep_file();
        alloc::refill();
        shared.stats.prefixes.give_back();
        watchdog.iter_mut().for_each(|watchdog| watchdog.look(server, supervisor));
        match signal {
            None => {}
            Some(Signal::Reload) => {
                reload_users(shared);
                reload_certificates(shared);
            }
            Some(Signal::Stop) => {
                supervisor::milestone("Exiting normally");
                return false;
            }
            Some(Signal::StopGracefully) => {
                log::warn!("Gracefully stopping");
                return true;
            }
        }
    }
}

/// Reads the files of passwords again. Who was known stays known if that fails.
fn reload_users(shared: &Shared) {
    match shared.users.reload() {
        Ok(()) => log::info!("SIGHUP: files of passwords, if there are any, are read again"),
        Err(line) => log::warn!("{line}; who could log in before still can"),
    }
}

/// Where passwords are in a file that memcached reads at each login, looks once a second whether it has changed. In a
/// thread of its own: a file system that hangs must not stop the clock.
fn follow_users(shared: &Arc<Shared>) {
    if !shared.config.sasl {
        return;
    }
    let shared = Arc::downgrade(shared);
    let follow = move || {
        while let Some(shared) = shared.upgrade() {
            if shared.users.has_changed() {
                reload_users(&shared);
            }
            drop(shared);
            std::thread::sleep(FOLLOW);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("passwords".into()).spawn(follow) {
        log::error!("changes of passwords are not followed until SIGHUP: {error}");
    }
}

/// Reads the certificates again, if there are any. Those that were there stay if that fails.
fn reload_certificates(shared: &Shared) {
    match shared.tls.as_ref().map(|tls| tls.refresh(shared.clock.now())) {
        None => {}
        Some(Ok(())) => log::info!("SIGHUP: the certificates have been read again"),
        Some(Err(why)) => log::error!("SIGHUP: the certificates stay as they were. {why}"),
    }
}

/// Feeds the watchdog for as long as every event loop turns.
struct Watchdog {
    every: Duration,
    due: Instant,
    /// The event loops were asked to show that they turn, and not all of them have.
    is_asked: bool,
}

impl Watchdog {
    fn new(patience: Duration) -> Watchdog {
        Watchdog { every: patience / FEEDS, due: Instant::now(), is_asked: false }
    }

    fn look(&mut self, server: &Server, supervisor: &Supervisor) {
        if self.is_asked && server.all_turned() {
            supervisor.feed_watchdog();
            self.is_asked = false;
        } else if !self.is_asked && Instant::now() >= self.due {
            self.due = Instant::now() + self.every;
            server.ask_for_turns();
            self.is_asked = true;
        }
    }
}
