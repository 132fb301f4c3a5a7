//! A primary, its sidecar and a peer behind a wire.

use crate::common::{Conn, DEADLINE, Server, Sidecar, signal};
use crate::wire::Wire;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// The server under test.
    Twincached,
    /// Debian's memcached, which does not take cas uniques.
    Stock,
    /// A memcached that takes them: a twincached behind a wire that hides what else it knows.
    StockWithCas,
}

/// Memory of the servers: nothing is to be evicted.
const MEMORY: [&str; 2] = ["-m", "2048"];

/// Longest wait until a quiet pair is equal, on a machine that has much else to do.
const CONVERGED: Duration = Duration::from_secs(300);

/// See the module's head. The parts end in this order.
pub struct Pair {
    sidecar: Option<Sidecar>,
    /// The way to the peer.
    pub wire: Wire,
    /// Who is written to.
    pub primary: Server,
    /// Who gets the copy.
    pub peer: Server,
    kind: PeerKind,
    socket: Scratch,
}

impl Pair {
    /// Starts servers, not yet the sidecar. None where Debian's memcached is not installed and asked for.
    pub fn new(kind: PeerKind, primary_options: &[&str]) -> Option<Pair> {
        let socket = scratch("control");
        let peer = start_peer(kind)?;
        let primary = start_primary(&socket, primary_options);
        let wire = match kind {
            PeerKind::StockWithCas => Wire::to_disguised(peer.addr),
            PeerKind::Twincached | PeerKind::Stock => Wire::to(peer.addr),
        };
        Some(Pair { sidecar: None, wire, primary, peer, kind, socket })
    }

    /// Starts servers and sidecar, and waits until the first walk is done.
    pub fn start(kind: PeerKind, primary_options: &[&str]) -> Option<Pair> {
        let mut pair = Pair::new(kind, primary_options)?;
        pair.start_sidecar();
        pair.settle();
        Some(pair)
    }

    /// As [`Pair::start`], of twincacheds; the peer with options of its own.
    pub fn start_with(primary_options: &[&str], peer_options: &[&str]) -> Pair {
        let socket = scratch("control");
        let peer = Server::start(&[&MEMORY, peer_options].concat());
        let primary = start_primary(&socket, primary_options);
        let wire = Wire::to(peer.addr);
        let mut pair = Pair { sidecar: None, wire, primary, peer, kind: PeerKind::Twincached, socket };
        pair.start_sidecar();
        pair.settle();
        pair
    }

    /// Starts the sidecar.
    pub fn start_sidecar(&mut self) {
        assert!(self.sidecar.is_none(), "one is running");
        self.sidecar = Some(Sidecar::start(self.socket(), self.wire.addr, &[]));
    }

    /// Kills the sidecar.
    pub fn kill_sidecar(&mut self) {
        self.sidecar = None;
    }

    /// Kills the peer; an empty one takes its place.
    pub fn replace_peer(&mut self) {
        self.peer.may_exit();
        signal(self.peer.pid(), "KILL");
        self.peer = start_peer(self.kind).expect("it could be started before");
        self.wire.lead_to(self.peer.addr);
        self.wire.cut();
    }

    /// Kills the primary, and waits until the sidecar has seen it.
    pub fn kill_primary(&mut self) {
        self.primary.may_exit();
        signal(self.primary.pid(), "KILL");
        self.primary.wait();
    }

    /// Starts another primary, with the same control socket.
    pub fn restart_primary(&mut self, options: &[&str]) {
        self.primary = start_primary(&self.socket, options);
    }

    /// Waits until the running sidecar has said this.
    pub fn wait_for_sidecar(&self, text: &str) {
        self.sidecar.as_ref().expect("it runs").says(text);
    }

    /// What the peer is.
    pub fn kind(&self) -> PeerKind {
        self.kind
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A figure of `stats replication` of the primary.
    pub fn figure(&self, name: &str) -> Option<String> {
        self.primary.connect().find_stat("replication", name)
    }

    /// A figure that is a number.
    pub fn number(&self, name: &str) -> u64 {
        self.primary.connect().number("replication", name)
    }

    /// Waits until the peer has confirmed everything. Nobody may write meanwhile.
    pub fn settle(&self) {
        let end = Instant::now() + CONVERGED;
        loop {
            let stats = self.primary.connect().stats("replication");
            let get = |name: &str| stats.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
            if get("0:state") == Some("streaming") && get("0:acked_lsn") == get("lsn") {
                return;
            }
            assert!(Instant::now() < end, "not settled: {stats:?}\n{}", self.sidecar_log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What the running sidecar has said.
    pub fn sidecar_log(&self) -> String {
        self.sidecar.as_ref().map_or_else(|| "no sidecar".into(), Sidecar::log)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("sidecar: {}\nprimary: {}", self.sidecar_log(), self.primary.stderr());
        }
        self.sidecar = None;
    }
}

/// A primary with a control socket.
pub fn start_primary(socket: &Path, options: &[&str]) -> Server {
    let control = format!("control_socket={}", socket.display());
    Server::start(&[&MEMORY, &["-o", control.as_str()][..], options].concat())
}

fn start_peer(kind: PeerKind) -> Option<Server> {
    match kind {
        PeerKind::Twincached | PeerKind::StockWithCas => Some(Server::start(&MEMORY)),
        PeerKind::Stock => Server::reference(&MEMORY),
    }
}

/// A path that nobody else uses; what is there is removed when it is dropped.
pub struct Scratch(PathBuf);

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A new one.
pub fn scratch(name: &str) -> Scratch {
    static USED: AtomicUsize = AtomicUsize::new(0);
    let number = USED.fetch_add(1, Ordering::Relaxed);
    Scratch(std::env::temp_dir().join(format!("twincache-{}-{number}.{name}", std::process::id())))
}

/// One command line to the control socket, and the first line of its answer behind the greeting.
pub fn control(socket: &Path, line: &str) -> String {
    use std::io::{BufRead, BufReader, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("a control socket");
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("a line"));
    let greeting = lines.next().expect("a greeting");
    assert!(greeting.starts_with("twincache 1 "), "{greeting}");
    lines.find(|line| !line.starts_with("alive ")).expect("an answer")
}

/// `curr_items` of a server.
pub fn items(conn: &mut Conn) -> u64 {
    conn.number("", "curr_items")
}
