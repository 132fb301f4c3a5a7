//! TLS, against the real binary: handshakes of every kind, certificates, records in pieces, clients that misbehave.

mod common;

use common::{Pki, Server, TlsConn};
use rustls::version::{TLS12, TLS13};
use std::sync::Arc;

fn start(pki: &Pki, more: &str) -> Server {
    Server::start(&["-Z", "-o", &pki.options(more)])
}

#[test]
fn both_versions_serve_gets_and_sets() {
    let pki = Pki::new();
    let server = start(&pki, "");
    for version in [&TLS12, &TLS13] {
        let mut conn = TlsConn::to(server.addr, &Arc::new(pki.client_of(&[version], None)));
        conn.ask("set k 7 0 5\r\nhello\r\n", "STORED\r\n");
        conn.ask("get k\r\nmg k v\r\n", "VALUE k 7 5\r\nhello\r\nEND\r\nVA 5\r\nhello\r\n");
        assert_eq!(conn.0.conn.protocol_version(), Some(version.version));
    }
}
