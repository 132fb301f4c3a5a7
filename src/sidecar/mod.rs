//! twincache-sidecar: keeps other memcached servers equal to the local twincached.
//!
//! ```text
//!   options ──> run ──┬── link (a thread for each peer) ── pump ── source, sink, relay, guard
//!                     │        control socket  <──────────────>  peer's port
//!                     ├── observe: http ── metrics <── figures of each peer, `status` of the server
//!                     └── waits for a signal
//! ```
//!
//! To the peer, the sidecar is an ordinary memcached client. It knows nothing of the store: it passes the server's
//! batches on as they are, puts a barrier (`mn`) after each, and acknowledges what the peer has confirmed.
//!
//! Not here: the order of changes, which the server decides, and what a peer does with them.

pub mod lease;
mod link;
mod moment;
mod observe;
pub mod options;
mod pace;
mod server_socket;
#[cfg(test)]
mod tests;

use crate::supervisor::{self, Supervisor};
use crate::sync::lock;
use crate::sys::process::{self, Signal};
use lease::driver::{self, SharedStatus};
use lease::feeds::SharedPeers;
use lease::status::lag_of;
use link::{Link, LinkTarget, LinkThread, PeerFigures};
use observe::figures::Figures;
use observe::http::{self, HttpPage};
use observe::standby::StandbyHealth;
use observe::{health, metrics};
use options::{AddressOptions, LeaseOptions, Options, SidecarExit};
use std::io::ErrorKind;
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
    drop_root(&options)?;
    process::block_signals().map_err(|error| SidecarExit::refuse(EX_OSERR, &format!("signals: {error}")))?;
    if let Some(line) = options.peer_tls.as_ref().and_then(|files| files.check().err()) {
        return Err(SidecarExit::usage(&format!("--peer-tls: {line}")));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let peers: Vec<Arc<PeerFigures>> =
        options.peers.iter().map(|name| Arc::new(PeerFigures::new(name, name))).collect();
    let (nodes, status) = (SharedPeers::default(), SharedStatus::default());
    // Before anything is sent: if the port is taken, nothing has been changed yet.
    if let Some(address) = options.http {
        let bound = http::serve(address, pages(peers.clone(), &nodes, &status, &options));
        let bound = bound.map_err(|error| SidecarExit::refuse(EX_OSERR, &format!("--http {address}: {error}")))?;
        log::info!("serves http://{bound}/health and /metrics");
    }
    let refuse = |error| SidecarExit::refuse(EX_OSERR, &format!("cannot start a thread: {error}"));
    let start = |figures: &Arc<PeerFigures>| {
        let target = LinkTarget { figures: Arc::clone(figures), key: None };
        Link::new(&options, target).and_then(LinkThread::start)
    };
    let threads = peers.iter().map(start).collect::<Result<Vec<_>, _>>().map_err(refuse)?;
    let start = |lease| driver::start(&options, lease, nodes, Arc::clone(&status), &stop);
    let lease = options.lease.as_ref().map(start).transpose()?;
    let about = about(&options);
    supervisor::notice(&format!("twincache-sidecar {}, which {about}", env!("CARGO_PKG_VERSION")));
    let mut supervisor = Supervisor::from_env();
    supervisor.ready(&about);
    let state = || lease.as_ref().map(|_| lock(&status).line());
    wait_for_stop(&mut supervisor, state);
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

/// Meanwhile the supervisor is told the state, if there is one to tell.
fn wait_for_stop(supervisor: &mut Supervisor, state: impl Fn() -> Option<String>) {
    loop {
        state().iter().for_each(|state| supervisor.status(state.trim_end()));
        match process::wait_signal(LOOK_EVERY) {
            Some(Signal::Stop | Signal::StopGracefully) => return,
            Some(Signal::Reload) => log::info!("SIGHUP: there is nothing to read again"),
            None => {}
        }
    }
}

/// The pages: of the peers that were named, of the nodes that are fed, and of the lease.
fn pages(
    peers: Vec<Arc<PeerFigures>>,
    nodes: &SharedPeers,
    status: &SharedStatus,
    options: &Options,
) -> Arc<http::HttpPages> {
    let (server, max_lag, has_lease) = (options.server.clone(), options.max_lag, options.lease.is_some());
    let (nodes, status) = (Arc::clone(nodes), Arc::clone(status));
    Arc::new(move |path: &str| {
        let figures = || -> Vec<_> {
            let nodes = lock(&nodes).clone();
            peers.iter().chain(&nodes).map(|peer| (peer.name.clone(), peer.figures())).collect()
        };
        let lease = || lock(&status).clone();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match path {
            "/health" => {
                let figures = figures();
                // Who feeds peers shows by them how it is.
                let is_well = |figures: &Figures| figures.phase.is_streaming() && !figures.is_upstream;
                let asks = figures.is_empty() || !figures.iter().all(|(_, figures)| is_well(figures));
                let rows = if asks { server_socket::status(&server).unwrap_or_default() } else { Vec::new() };
                let (is_good, text) = health::health(&figures, StandbyHealth::of(&rows).as_ref(), max_lag);
                let line = if has_lease { lease().line() } else { String::new() };
                Some(judged((is_good, text + &health::writes(&rows) + &line)))
            }
            "/metrics" => {
                let text = metrics::metrics(&figures(), &server_socket::status(&server));
                Some(HttpPage { status: "200 OK", media: metrics::MEDIA, text })
            }
            "/primary" if has_lease => Some(judged(lease().is_primary())),
            "/standby" if has_lease => Some(judged(match lag_of(query) {
                Ok(most) => lease().is_standby(most),
                Err(()) => (false, "the query may be lag=<milliseconds>\n".to_owned()),
            })),
            _ => None,
        }
    })
}

fn judged((is_good, text): (bool, String)) -> HttpPage {
    HttpPage { status: if is_good { "200 OK" } else { "503 Service Unavailable" }, media: "text/plain", text }
}
