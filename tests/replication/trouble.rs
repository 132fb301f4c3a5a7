//! What goes wrong with a server or a peer, and how it shows.

use crate::common::{Server, Sidecar, freeze, signal, wait_for};
use crate::pair::{scratch, start_primary};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// Where a sidecar serves HTTP.
fn http(sidecar: &Sidecar) -> SocketAddr {
    let log = sidecar.says("serves http://");
    let rest = log.split("serves http://").nth(1).expect("an address");
    rest.split('/').next().unwrap().parse().expect("an address")
}

fn health(at: SocketAddr) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

/// Waits until the health is good or bad; the page.
fn until_it_is(at: SocketAddr, is_good: bool) -> String {
    let status = if is_good { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
    wait_for(status, || Some(health(at)).filter(|page| page.starts_with(status)))
}

#[test]
fn a_primary_that_hangs_is_in_bad_health() {
    let (socket, peer) = (scratch("control"), Server::start(&[]));
    let primary = start_primary(&socket, &[]);
    let sidecar = Sidecar::start(&*socket, peer.addr, &["--http", "127.0.0.1:0"]);
    let at = http(&sidecar);
    until_it_is(at, true);
    let began = Instant::now();
    freeze(primary.pid());
    let page = until_it_is(at, false);
    let took = began.elapsed();
    assert!(page.contains("the server hangs: it has said nothing for "), "{page}");
    sidecar.says("the server hangs: it says nothing on its control socket");
    assert!(until_it_is(at, false).contains("the server hangs"), "nor does it look like no twincached");
    signal(primary.pid(), "CONT");
    until_it_is(at, true);
    println!("noticed after {} ms", took.as_millis());
}
