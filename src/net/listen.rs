//! Listening sockets: which addresses to bind, and how.
//!
//! Options that connections inherit from their listener (no delay, keep-alive, no linger) are set here once and
//! not per connection. Not here: accepting (`acceptor`), datagrams (`worker::datagrams`).

use super::admission::reason;
use crate::config::{Binding, Config, ListenAddr, ListenTls};
use crate::tls::ClientCerts;
use log::Level;
use mio::net::{TcpListener, UdpSocket, UnixListener};
use socket2::{Domain, SockAddr, Socket, Type};
use std::borrow::Cow;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// EX_OSERR, memcached's exit code when it cannot listen.
pub(super) const EXIT_OSERR: i32 = 71;

/// Who can open the control socket sees every key and value.
const CONTROL_MODE: u32 = 0o600;

/// Room for the datagrams of an answer.
const UDP_BUFFER: usize = 4 << 20;

/// Why the server did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// One line for stderr, without its end.
    pub message: String,
    /// What the process should exit with.
    pub exit_code: i32,
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) struct Listener {
    /// The socket.
    pub socket: ListenSocket,
    /// What its clients may speak.
    pub binding: Binding,
    /// Whether they speak TLS, and who needs a certificate.
    pub tls: Option<ClientCerts>,
}

/// Either kind of listening socket.
#[derive(Debug)]
pub(super) enum ListenSocket {
    /// With the address it is bound to.
    Tcp(TcpListener, SocketAddr),
    /// With its path.
    Unix(UnixListener, String),
}

impl AsRawFd for ListenSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            ListenSocket::Tcp(socket, _) => socket.as_raw_fd(),
            ListenSocket::Unix(socket, _) => socket.as_raw_fd(),
        }
    }
}

/// Opens every listening socket that the configuration asks for.
pub(super) fn listen(config: &Config) -> Result<Vec<Listener>, StartError> {
    if let Some(path) = &config.unix_socket {
        let socket = listen_unix(path, config)
            .map_err(|error| failure(&format!("failed to listen on UNIX socket: {path}"), &error))?;
        return Ok(vec![Listener { socket, binding: config.binding, tls: None }]);
    }
    if config.tcp_port == Some(0) {
        return Ok(Vec::new());
    }
    let mut listeners = Vec::new();
    for address in wanted(config).iter() {
        let port = address.port.or(config.tcp_port).unwrap_or(0);
        listen_tcp(address, port, config, &mut listeners)
            .map_err(|error| failure(&message(config, "TCP", address, port), &error))?;
    }
    Ok(listeners)
}

/// What [`Server::start`](super::Server::start) and the control socket would meet: each address that cannot be had, and
/// each socket file that cannot be made. Nothing stays open, and no file is touched.
pub fn check_addresses(config: &Config) -> Vec<StartError> {
    let place = |what: &str, path: &str, served: bool| {
        let why = unfit_place(path).or_else(|| (served && is_served(path)).then_some("another server is behind it"))?;
        Some(StartError { message: format!("failed to listen on {what}: {path}: {why}"), exit_code: EXIT_OSERR })
    };
    let control = config.control_socket.as_deref().and_then(|path| place("the control socket", path, true));
    if let Some(path) = &config.unix_socket {
        return control.into_iter().chain(place("UNIX socket", path, false)).collect();
    }
    let (mut found, mut errors) = (0, Vec::from_iter(control));
    for address in wanted(config).iter() {
        // One at a time, so that each is told of.
        let one = Config { listen: vec![address.clone()], ..config.clone() };
        let tcp = listen(&one).map(|listeners| found += listeners.len());
        let udp = listen_udp(&one).map(|listeners| found += listeners.len());
        errors.extend(tcp.err().into_iter().chain(udp.err()));
    }
    if errors.is_empty() && config.leaves_no_room(found) {
        let message = "Maxconns setting is too low, use -c to increase.".into();
        errors.push(StartError { message, exit_code: 1 });
    }
    errors
}

/// memcached's words, and behind them, where several addresses are possible, the one that it is about.
fn message(config: &Config, kind: &str, failed: &ListenAddr, port: u16) -> String {
    match &config.listen_text {
        Some(text) => format!("failed to listen on one of interface(s) {text}: {} port {port}", failed.host),
        None => format!("failed to listen on {kind} port {port}"),
    }
}

/// A UDP socket, and the number of the worker that serves it.
#[derive(Debug)]
pub(super) struct UdpListener {
    /// The socket.
    pub socket: UdpSocket,
    /// Its worker.
    pub worker: usize,
}

/// Opens every UDP socket that the configuration asks for.
pub(super) fn listen_udp(config: &Config) -> Result<Vec<UdpListener>, StartError> {
    let mut listeners = Vec::new();
    if config.unix_socket.is_some() || config.udp_port == Some(0) {
        return Ok(listeners);
    }
    for wanted in wanted(config).iter() {
        let port = wanted.port.or(config.udp_port).unwrap_or(0);
        bind_udp_name(wanted, port, config, &mut listeners)
            .map_err(|error| failure(&message(config, "UDP", wanted, port), &error))?;
    }
    Ok(listeners)
}

/// Binds all addresses that a name stands for. It is enough that one of them works.
fn bind_udp_name(wanted: &ListenAddr, port: u16, config: &Config, listeners: &mut Vec<UdpListener>) -> io::Result<()> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let before = listeners.len();
    for address in resolve(&wanted.host, port)? {
        match bind_udp_shared(address, config) {
            Ok(sockets) => {
                let (first, threads) = (listeners.len(), config.threads);
                let numbered = sockets.into_iter().enumerate();
                listeners.extend(numbered.map(|(i, socket)| UdpListener { socket, worker: (first + i) % threads }));
            }
            Err(error) => failed = error,
        }
    }
    if listeners.len() > before { Ok(()) } else { Err(failed) }
}

/// The sockets that share an address.
fn bind_udp_shared(address: SocketAddr, config: &Config) -> io::Result<Vec<UdpSocket>> {
    // Sharing it with sockets of others would go unnoticed.
    drop(bind_udp(address, false, config)?);
    let first = bind_udp(address, true, config)?;
    let bound = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..config.threads_per_udp() {
        sockets.push(bind_udp(bound, true, config)?);
    }
    Ok(sockets)
}

fn bind_udp(address: SocketAddr, is_shared: bool, config: &Config) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.set_reuse_port(is_shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // The first of an address has told of it.
    mark(&socket, config, if is_shared { Level::Debug } else { Level::Warn });
    // The system gives less where it allows no more.
    socket.set_send_buffer_size(UDP_BUFFER)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket.into()))
}

/// The addresses of `-l`, or any.
fn wanted(config: &Config) -> Cow<'_, [ListenAddr]> {
    match config.listen.is_empty() {
        true => vec![ListenAddr { host: "*".into(), port: None, binding: None, tls: None }].into(),
        false => config.listen.as_slice().into(),
    }
}

/// Binds all addresses that a name stands for. It is enough that one of them works.
fn listen_tcp(wanted: &ListenAddr, port: u16, config: &Config, listeners: &mut Vec<Listener>) -> io::Result<()> {
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let before = listeners.len();
    let (binding, tls) = (wanted.binding.unwrap_or(config.binding), tls_of(wanted, config));
    for address in resolve(&wanted.host, port)? {
        match bind_tcp(address, config) {
            Ok(socket) => listeners.push(Listener { socket, binding, tls }),
            Err(error) => failed = error,
        }
    }
    if listeners.len() > before { Ok(()) } else { Err(failed) }
}

fn tls_of(wanted: &ListenAddr, config: &Config) -> Option<ClientCerts> {
    let certs = match wanted.tls {
        Some(ListenTls::Plain) => None,
        Some(ListenTls::NoCerts) => Some(ClientCerts::Never),
        Some(ListenTls::Certs) => Some(ClientCerts::Needed),
        None => Some(ClientCerts::ByOption),
    };
    certs.filter(|_| config.tls.enabled)
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host == "*" {
        return Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]);
    }
    let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Ok((host, port).to_socket_addrs()?.collect())
}

fn bind_tcp(address: SocketAddr, config: &Config) -> io::Result<ListenSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that the two families can have a listener each on one port.
        socket.set_only_v6(true)?;
    }
    socket.set_keepalive(true)?;
    socket.set_linger(None)?;
    socket.set_tcp_nodelay(true)?;
    mark(&socket, config, Level::Warn);
    socket.bind(&address.into())?;
    start(&socket, config.backlog)?;
    let listener = TcpListener::from_std(socket.into());
    let bound = listener.local_addr()?;
    Ok(ListenSocket::Tcp(listener, bound))
}

/// Marks a socket, if that is asked for.
// COMPAT(mark_refused): who may not do that is told so, and served without.
fn mark(socket: &Socket, config: &Config, level: Level) {
    if config.sock_cookie_id == 0 {
        return;
    }
    if let Err(error) = socket.set_mark(config.sock_cookie_id) {
        let why = reason(&error);
        log::log!(level, "sock_cookie_id: a socket has no mark, which takes the capability CAP_NET_ADMIN: {why}");
    }
}

fn listen_unix(path: &str, config: &Config) -> io::Result<ListenSocket> {
    Ok(ListenSocket::Unix(bind_unix(path, config.unix_mask & 0o777, config.backlog)?, path.into()))
}

/// Opens the control socket. Another server's is not taken from it.
pub(super) fn listen_control(path: &str, backlog: u32) -> Result<UnixListener, StartError> {
    let what = format!("failed to listen on the control socket: {path}");
    let refuse = |why: &str| StartError { message: format!("{what}: {why}"), exit_code: EXIT_OSERR };
    match unfit_place(path) {
        Some(why) => Err(refuse(why)),
        None if is_served(path) => Err(refuse("another server is behind it")),
        None => bind_unix(path, CONTROL_MODE, backlog).map_err(|error| failure(&what, &error)),
    }
}

/// Why no socket can be made there. The system calls each of these an address in use, or just knows no such file.
fn unfit_place(path: &str) -> Option<&'static str> {
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Some("it is a folder: name a file in it"),
        Ok(found) if !found.file_type().is_socket() => Some("a file is there that is no socket"),
        Err(_) if folder.is_some_and(|folder| !folder.exists()) => Some("there is no such folder"),
        _ => None,
    }
}

/// Whether somebody accepts connections there, or would if fewer were waiting.
fn is_served(path: &str) -> bool {
    let tried = SockAddr::unix(path).and_then(|address| {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&address)
    });
    tried.map_or_else(|error| error.kind() == io::ErrorKind::WouldBlock, |()| true)
}

/// The socket file gets its mode before the socket listens, so nobody can connect who may not.
fn bind_unix(path: &str, mode: u32, backlog: u32) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    start(&socket, backlog)?;
    Ok(UnixListener::from_std(socket.into()))
}

fn start(socket: &Socket, backlog: u32) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

fn failure(what: &str, error: &io::Error) -> StartError {
    StartError { message: format!("{what}: {}", reason(error)), exit_code: EXIT_OSERR }
}
