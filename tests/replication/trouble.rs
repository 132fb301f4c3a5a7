//! What goes wrong with a server or a peer, and how it shows.

use crate::common::{Server, Sidecar, freeze, signal, wait_for};
use crate::pair::{scratch, start_primary};
use std::time::Instant;

/// Waits until the health is good or bad; the page.
fn until_it_is(sidecar: &Sidecar, is_good: bool) -> String {
    let status = if is_good { "HTTP/1.1 200 " } else { "HTTP/1.1 503 " };
    wait_for(status, || Some(sidecar.page("/health")).filter(|page| page.starts_with(status)))
}

#[test]
fn a_primary_that_hangs_is_in_bad_health() {
    let (socket, peer) = (scratch("control"), Server::start(&[]));
    let primary = start_primary(&socket, &[]);
    let sidecar = Sidecar::start(&*socket, peer.addr, &["--http", "127.0.0.1:0"]);
    until_it_is(&sidecar, true);
    let began = Instant::now();
    freeze(primary.pid());
    let page = until_it_is(&sidecar, false);
    let took = began.elapsed();
    assert!(page.contains("the server hangs: it has said nothing for "), "{page}");
    sidecar.says("the server hangs: it says nothing on its control socket");
    assert!(until_it_is(&sidecar, false).contains("the server hangs"), "nor does it look like no twincached");
    signal(primary.pid(), "CONT");
    until_it_is(&sidecar, true);
    println!("noticed after {} ms", took.as_millis());
}
