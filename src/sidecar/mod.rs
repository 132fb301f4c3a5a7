//! twincache-sidecar: keeps other memcached servers equal to the local twincached.
//!
//! ```text
//!   options ──> run ──┬── link (a thread for each peer) ── pump ── source, sink, relay, guard
//!                     │        control socket  <──────────────>  peer's port
//!                     ├── observe: http ── pages <── figures of each peer, statistics of the server
//!                     └── waits for a signal
//!           ──> check  instead, with --check
//! ```
//!
//! To the peer, the sidecar is an ordinary memcached client. It knows nothing of the store: it passes the server's
//! batches on as they are, puts a barrier (`mn`) after each, and acknowledges what the peer has confirmed.
//!
//! Not here: the order of changes, which the server decides, and what a peer does with them.

mod check;
pub mod lease;
mod link;
mod moment;
mod observe;
pub mod options;
mod pace;
mod peer_login;
mod progress;
mod server_socket;
#[cfg(test)]
mod tests;

use crate::supervisor::{self, Supervisor};
use crate::sync::lock;
use crate::sys::process::{self, Signal};
use lease::driver::{self, SharedStatus};
use lease::feeds::SharedPeers;
use link::{Link, LinkTarget, LinkThread, PeerFigures};
use observe::monitor::{Monitor, Sources};
use observe::pages::PageOptions;
use observe::{http, pages};
use options::{AddressOptions, LeaseOptions, Options, SidecarExit};
use peer_login::PeerLogin;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the main thread wakes up while it waits for a signal.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the threads have to end. A thread that is connecting, or looking up a name, may take longer, and is not
/// waited for.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Exit code when the system refuses a socket, the same as the server's.
const EX_OSERR: u8 = 71;

/// Exit code when there is no such user; sysexits' EX_NOUSER.
const EX_NOUSER: u8 = 67;

/// Runs until a signal says stop.
pub fn run(options: Options) -> Result<(), SidecarExit> {
    supervisor::start_log(if options.is_verbose { log::LevelFilter::Debug } else { log::LevelFilter::Info });
    if options.is_check {
        return Err(check::check(&options, drop_root(&options).err()));
    }
    drop_root(&options)?;
    process::block_signals().map_err(|error| SidecarExit::refuse(EX_OSERR, &format!("signals: {error}")))?;
    if let Some(line) = options.peer_tls.as_ref().and_then(|files| files.check().err()) {
        return Err(SidecarExit::usage(&format!("--peer-tls: {line}")));
    }
    if let Some(line) = options.peer_login.as_ref().and_then(PeerLogin::check) {
        return Err(SidecarExit::usage(&line));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let peers: Vec<Arc<PeerFigures>> =
        options.peers.iter().map(|name| Arc::new(PeerFigures::new(name, name))).collect();
    let (nodes, status) = (SharedPeers::default(), SharedStatus::default());
    // Before anything is sent: if the port is taken, nothing has been changed yet.
    let refuse = |error| SidecarExit::refuse(EX_OSERR, &format!("cannot start a thread: {error}"));
    if let Some(address) = options.http {
        let taken = |error| SidecarExit::refuse(EX_OSERR, &format!("--http {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(taken)?;
        let bound = listener.local_addr().map_err(taken)?;
        let (max_lag, token, shows_keys) = (options.max_lag, options.http_token()?, options.shows_keys);
        let monitor = Monitor::start(sources(peers.clone(), &nodes, &status, &options)).map_err(refuse)?;
        let pages = pages::pages(monitor, PageOptions { max_lag, token, shows_keys });
        http::serve(listener, pages).map_err(refuse)?;
        log::info!("serves http://{bound}/, /status, /health and /metrics");
    }
    let start = |figures: &Arc<PeerFigures>| {
        let target = LinkTarget { figures: Arc::clone(figures), key: None };
        Link::new(&options, target).and_then(LinkThread::start)
    };
    let threads = peers.iter().map(start).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
    let feeds = Arc::clone(&nodes);
    let start = |lease| driver::start(&options, lease, nodes, Arc::clone(&status), &stop);
    let lease = options.lease.as_ref().map(start).transpose()?;
    let about = about(&options);
    supervisor::notice(&format!("twincache-sidecar {}, which {about}", env!("CARGO_PKG_VERSION")));
    let mut supervisor = Supervisor::from_env();
    supervisor.ready(&about);
    let state = || lease.as_ref().map(|_| lock(&status).line());
    let shown = || progress::show(&peers, &feeds);
    wait_for_stop(&mut supervisor, state, shown);
    supervisor.stopping();
    log::info!("stops");
    stop.store(true, Ordering::Relaxed);
    threads.iter().for_each(LinkThread::stop);
    let end = Instant::now() + STOP_MAX;
    let has_ended = || threads.iter().all(LinkThread::is_finished) && lease.iter().all(JoinHandle::is_finished);
    while Instant::now() < end && !has_ended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Becomes the user of `--user`, before anything is opened. What runs as root for nothing is told so.
fn drop_root(options: &Options) -> Result<(), SidecarExit> {
    if !process::is_root() {
        return Ok(());
    }
    let Some(name) = &options.user else {
        // An address, and perhaps programs that are run, need it.
        if options.address == AddressOptions::default() {
            log::warn!("runs as root, for which it has no use: --user NAME makes it the server's user");
        }
        return Ok(());
    };
    let user = process::find_user(name).ok().flatten();
    let user = user.ok_or_else(|| SidecarExit::refuse(EX_NOUSER, &format!("--user {name}: there is no such user")))?;
    match process::drop_groups() {
        // In a user namespace there may be no groups to drop, or no right to drop them.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => log::warn!("--user {name}: groups stay: {error}"),
        dropped => dropped.map_err(|error| refuse_user(name, &error))?,
    }
    process::become_user(user).map_err(|error| refuse_user(name, &error))
}

fn refuse_user(name: &str, error: &std::io::Error) -> SidecarExit {
    SidecarExit::refuse(EX_OSERR, &format!("--user {name}: {error}"))
}

/// What the sidecar does, and with what.
fn about(options: &Options) -> String {
    let server = options.server.display();
    let lease = options.lease.as_ref().map(|lease| {
        let LeaseOptions { shard, node, advertise, .. } = lease;
        let ms = lease.lease.as_millis();
        format!("keeps shard {shard} as node {node} with {server}, reached at {advertise}, by leases of {ms} ms")
    });
    let peers = (!options.peers.is_empty()).then(|| format!("copies {server} to {}", options.peers.join(", ")));
    let http = options.http.map(|address| format!("tells how it goes at http://{address}/health"));
    [lease, peers, http].into_iter().flatten().collect::<Vec<_>>().join(", and ")
}

/// Meanwhile the supervisor is told the state, if there is one to tell, and a terminal shows how far full syncs are.
fn wait_for_stop(supervisor: &mut Supervisor, state: impl Fn() -> Option<String>, show: impl Fn()) {
    loop {
        show();
        state().iter().for_each(|state| supervisor.status(state.trim_end()));
        match process::wait_signal(LOOK_EVERY) {
            Some(Signal::Stop | Signal::StopGracefully) => return,
            Some(Signal::Reload) => log::info!("SIGHUP: there is nothing to read again"),
            None => {}
        }
    }
}

/// What is looked at for the pages: the peers that were named, the nodes that are fed, and the lease.
fn sources(peers: Vec<Arc<PeerFigures>>, nodes: &SharedPeers, status: &SharedStatus, options: &Options) -> Sources {
    let (nodes, status, has_lease) = (Arc::clone(nodes), Arc::clone(status), options.lease.is_some());
    let figures = move || {
        let nodes = lock(&nodes).clone();
        peers.iter().chain(&nodes).map(|peer| (peer.name.clone(), peer.figures())).collect()
    };
    Sources {
        server: options.server.clone(),
        figures: Box::new(figures),
        lease: Box::new(move || has_lease.then(|| lock(&status).clone())),
        certificates: certificates(options),
    }
}

/// Files of the certificates that this process uses.
fn certificates(options: &Options) -> Vec<String> {
    let peers = options.peer_tls.iter().flat_map(|files| [Some(&files.ca), files.own.as_ref().map(|own| &own.0)]);
    let etcd = options.lease.iter().flat_map(|lease| [&lease.cluster.etcd.ca, &lease.cluster.etcd.cert]);
    let etcd = etcd.flatten().map(|file| file.display().to_string());
    peers.flatten().cloned().chain(etcd).collect()
}
