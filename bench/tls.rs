//! TLS: what requests and handshakes cost a server, and whether handshakes hold up those who have theirs behind them.
//!
//! ```text
//!   load CPU   50 sessions of rustls, in rounds: a request on each, then its reply     handshakes, one after the other
//!   server CPU one worker of twincached, or of memcached with OpenSSL: its CPU time is what is compared
//! ```
//!
//! Both servers have the same certificate (P-256), which the client does not check: it must cost less than they do. The
//! load is closed, so its own cost is in no number but the handshakes a second, which are as many as the slower side does.
//!
//! Not here: requests without TLS (`speed`).

use crate::report::{Row, Table};
use crate::server::{Program, Server};
use crate::{Scale, progress};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 50;

/// Different keys of a row: few, since where values lie is not what is measured.
const KEYS: usize = 1000;

/// Between two gets of the one whose latency is measured.
const EVERY: Duration = Duration::from_micros(500);

/// A kind of request, and how many are sent at a time.
#[derive(Clone, Copy)]
struct Requests {
    title: &'static str,
    value: usize,
    pipeline: usize,
    sets: bool,
}

const REQUESTS: &[Requests] = &[
    Requests { title: "get 100 B", value: 100, pipeline: 1, sets: false },
    Requests { title: "get 100 B, 16 at a time", value: 100, pipeline: 16, sets: false },
    Requests { title: "set 100 B", value: 100, pipeline: 1, sets: true },
    Requests { title: "get 16 KiB", value: 16 << 10, pipeline: 1, sets: false },
    Requests { title: "set 16 KiB", value: 16 << 10, pipeline: 1, sets: true },
    Requests { title: "get 256 KiB", value: 256 << 10, pipeline: 1, sets: false },
];

/// A folder with the servers' certificate, and what starts them.
struct Servers {
    folder: PathBuf,
    programs: [Program; 2],
}

impl Servers {
    fn new(programs: [Program; 2]) -> Result<Servers, String> {
        let folder = std::env::temp_dir().join(format!("twincache-bench-{}", std::process::id()));
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        let certified = rcgen::generate_simple_self_signed(["localhost".into()]).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(&folder).map_err(failed)?;
        std::fs::write(folder.join("cert"), certified.cert.pem()).map_err(failed)?;
        std::fs::write(folder.join("key"), certified.signing_key.serialize_pem()).map_err(failed)?;
        // memcached reads them again as the user that it has become.
        for name in ["", "cert", "key"] {
            std::fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o755)).map_err(failed)?;
        }
        Ok(Servers { folder, programs })
    }

    fn start(&self) -> Result<Vec<(&str, Server)>, String> {
        let file = |name| self.folder.join(name).display().to_string();
        let options = format!("ssl_chain_cert={},ssl_key={}", file("cert"), file("key"));
        let words = ["-m", "1024", "-c", "4096", "-Z", "-o", &options];
        self.programs.iter().map(|program| Ok((program.name.as_str(), program.start(&words)?))).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The tables of TLS.
pub fn run(scale: &Scale, twincached: &Program, memcached: &Program) -> Result<Vec<Table>, String> {
    let programs = [twincached.clone(), memcached.clone()];
    let names: Vec<String> = programs.iter().map(|program| program.name.clone()).collect();
    let servers = Servers::new(programs)?;
    let mut costs = Table::new("tls", "TLS: server CPU, nanoseconds per request or handshake", &names);
    for requests in REQUESTS.iter().filter(|requests| requests.title.contains(&scale.only)) {
        progress(&format!("tls: {}", requests.title));
        costs.rows.push(measure_requests(scale, requests, &servers)?);
    }
    let mut rates = Table::new("handshakes", "TLS: handshakes a second with one CPU", &names);
    let kinds: [(&str, _, _); 3] =
        [("TLS 1.3", &TLS13, false), ("TLS 1.3, resumed", &TLS13, true), ("TLS 1.2", &TLS12, false)];
    for (title, version, resumes) in kinds {
        let title = format!("handshake, {title}");
        if title.contains(&scale.only) {
            progress(&format!("tls: {title}"));
            let (cost, rate) = measure_handshakes(scale, &title, version, resumes, &servers)?;
            costs.rows.push(cost);
            rates.rows.push(rate);
        }
    }
    let mut waits = Table::new("handshake-waits", "TLS: microseconds for a get of another client", &names);
    if "p99".contains(&scale.only) {
        progress("tls: gets beside handshakes");
        waits.rows = measure_waits(scale, &servers)?;
    }
    Ok(vec![costs, rates, waits])
}

fn measure_requests(scale: &Scale, requests: &Requests, servers: &Servers) -> Result<Row, String> {
    let mut row = Row::new(requests.title, "ns", if requests.value == 100 { "at most 0.8 of memcached" } else { "" });
    let running = servers.start()?;
    let mut loads = Vec::new();
    for (name, server) in &running {
        let mut load = Load::connect(server.address, *requests)?;
        load.run(scale.warmup)?;
        loads.push((*name, server, load));
    }
    for _ in 0..scale.rounds {
        for (name, server, load) in &mut loads {
            let before = server.cpu_ns();
            let count = load.run(scale.seconds)?;
            row.add(name, (server.cpu_ns() - before) as f64 / count as f64);
        }
        loads.rotate_left(1);
    }
    Ok(row)
}

fn measure_handshakes(
    scale: &Scale,
    title: &str,
    version: &'static SupportedProtocolVersion,
    resumes: bool,
    servers: &Servers,
) -> Result<(Row, Row), String> {
    let running = servers.start()?;
    let (mut cost, mut rate) = (Row::new(title, "ns", ""), Row::new(title, "/s", "at least memcached's"));
    let config = client(version, resumes)?;
    for _ in 0..scale.rounds {
        for (name, server) in &running {
            shake_hands(server.address, &config)?;
            let (begin, before, mut count) = (Instant::now(), server.cpu_ns(), 0);
            while begin.elapsed().as_secs_f64() < scale.seconds {
                shake_hands(server.address, &config)?;
                count += 1;
            }
            let spent = (server.cpu_ns() - before) as f64;
            cost.add(name, spent / f64::from(count));
            // By the CPU that it takes: one client alone, which waits for each, does not keep a server busy.
            rate.add(name, 1e9 / (spent / f64::from(count)));
        }
    }
    Ok((cost, rate))
}

/// Latencies of one client that asks now and then, without and beside clients that do nothing but shake hands.
fn measure_waits(scale: &Scale, servers: &Servers) -> Result<Vec<Row>, String> {
    let titles =
        ["p50, alone", "p99, alone", "p50, beside handshakes", "p99, beside handshakes", "handshakes a second"];
    let mut rows = titles.map(|title| Row::new(title, if title.starts_with('p') { "us" } else { "/s" }, ""));
    let config = client(&TLS13, false)?;
    for _ in 0..scale.time_rounds {
        for (name, server) in &servers.start()? {
            let (alone, _) = latencies(scale, server, None)?;
            let (beside, rate) = latencies(scale, server, Some(&config))?;
            let part = |found: &[f64], part: f64| found[(found.len() as f64 * part) as usize];
            let values = [part(&alone, 0.5), part(&alone, 0.99), part(&beside, 0.5), part(&beside, 0.99), rate];
            rows.iter_mut().zip(values).for_each(|(row, value)| row.add(name, value));
        }
    }
    Ok(rows.into())
}

/// Sorted latencies in microseconds, and how many handshakes there were a second.
fn latencies(scale: &Scale, server: &Server, storm: Option<&Arc<ClientConfig>>) -> Result<(Vec<f64>, f64), String> {
    let requests = Requests { title: "", value: 100, pipeline: 1, sets: false };
    let mut load = Load::connect(server.address, requests)?;
    load.clients.truncate(1);
    let (address, ends) = (server.address, AtomicBool::new(false));
    std::thread::scope(|scope| {
        let storm = storm.map(|config| {
            let ends = &ends;
            scope.spawn(move || {
                // On the load's CPU, and behind the one whose latency is measured.
                twincache::sys::cpu::add_nice(10);
                let mut count = 0;
                while !ends.load(Ordering::Relaxed) {
                    shake_hands(address, config)?;
                    count += 1;
                }
                Ok::<u32, String>(count)
            })
        });
        let (begin, mut found) = (Instant::now(), Vec::new());
        while begin.elapsed().as_secs_f64() < scale.time_seconds {
            std::thread::sleep(EVERY);
            let asked = Instant::now();
            load.round()?;
            found.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        ends.store(true, Ordering::Relaxed);
        let count = storm.map_or(Ok(Ok(0)), std::thread::ScopedJoinHandle::join).map_err(|_| "a panic")??;
        found.sort_by(f64::total_cmp);
        Ok((found, f64::from(count) / begin.elapsed().as_secs_f64()))
    })
}

type Client = StreamOwned<ClientConnection, TcpStream>;

/// Sessions, and what is asked on them.
struct Load {
    clients: Vec<Client>,
    requests: Requests,
    next: usize,
    reply: Vec<u8>,
}

impl Load {
    /// Connects, and sets every key.
    fn connect(address: SocketAddr, requests: Requests) -> Result<Load, String> {
        let config = client(&TLS13, false)?;
        let clients: Result<Vec<Client>, String> = (0..CONNECTIONS).map(|_| connect(address, &config)).collect();
        let mut load = Load {
            clients: clients?,
            requests: Requests { sets: true, pipeline: 1, ..requests },
            next: 0,
            reply: Vec::new(),
        };
        for _ in 0..KEYS.div_ceil(CONNECTIONS) {
            load.round()?;
        }
        load.requests = requests;
        Ok(load)
    }

    /// Requests until so many seconds are over: how many.
    fn run(&mut self, seconds: f64) -> Result<usize, String> {
        let (begin, mut count) = (Instant::now(), 0);
        while begin.elapsed().as_secs_f64() < seconds {
            self.round()?;
            count += self.clients.len() * self.requests.pipeline;
        }
        Ok(count)
    }

    /// A request on each, then the reply on each.
    fn round(&mut self) -> Result<(), String> {
        let Requests { value, pipeline, sets, .. } = self.requests;
        for client in &mut self.clients {
            let mut request = Vec::new();
            for _ in 0..pipeline {
                self.next = (self.next + 1) % KEYS;
                let key = self.next;
                match sets {
                    true => {
                        request.extend_from_slice(format!("set key-{key:016} 0 0 {value}\r\n").as_bytes());
                        request.resize(request.len() + value, b'v');
                        request.extend_from_slice(b"\r\n");
                    }
                    false => request.extend_from_slice(format!("get key-{key:016}\r\n").as_bytes()),
                }
            }
            client.write_all(&request).and_then(|()| client.flush()).map_err(|error| format!("send: {error}"))?;
        }
        let header = if sets { 0 } else { format!("VALUE key-{:016} 0 {value}\r\n", 0).len() };
        let len = pipeline * if sets { b"STORED\r\n".len() } else { header + value + b"\r\nEND\r\n".len() };
        self.reply.resize(len, 0);
        for client in &mut self.clients {
            client.read_exact(&mut self.reply).map_err(|error| format!("a reply: {error}"))?;
            if !self.reply.ends_with(if sets { b"STORED\r\n" } else { b"\r\nEND\r\n" }) {
                return Err(format!("an unexpected reply: {}", self.reply.escape_ascii()));
            }
        }
        Ok(())
    }
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Client, String> {
    let failed = |error: std::io::Error| format!("connect: {error}");
    let socket = TcpStream::connect(address).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    socket.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
    // Else there would be no ports left.
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).map_err(failed)?;
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let session = ClientConnection::new(config.clone(), name).map_err(|error| error.to_string())?;
    Ok(StreamOwned::new(session, socket))
}

/// A connection, its handshake, and a request, without which the other side might not have come to its end.
fn shake_hands(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<(), String> {
    let mut client = connect(address, config)?;
    let mut reply = [0; 4];
    let asked = client.write_all(b"mn\r\n").and_then(|()| client.flush()).and_then(|()| client.read_exact(&mut reply));
    asked.map_err(|error| format!("a handshake: {error}"))
}

fn client(version: &'static SupportedProtocolVersion, resumes: bool) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(&[version]);
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(Trusting(provider))).with_no_client_auth();
    if !resumes {
        config.resumption = Resumption::disabled();
    }
    Ok(Arc::new(config))
}

/// Believes everything: the server is what is measured.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
