//! What a client can do within TLS: records that are small, or never whole.

use crate::common::{Conn, DEADLINE, Pki, RecordWriter, Server, TlsConn, descriptors_possible, from_env, until};
use rustls::version::TLS13;
use rustls::{ClientConfig, ContentType, StreamOwned};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a record that are sent of the 16 KiB that its header speaks of.
const HALF: usize = 16_000;

struct Site {
    pki: Pki,
    server: Server,
    admin: Conn,
}

impl Site {
    fn new(options: &str) -> Site {
        let pki = Pki::new();
        let options = pki.options(options);
        let server = Server::start(&["-l", "notls:127.0.0.1:0", "-Z", "-t", "1", "-c", "4000", "-o", &options]);
        let admin = Conn::to(SocketAddr::from(([127, 0, 0, 1], server.ports()[1].1)));
        Site { pki, server, admin }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let mut config = self.pki.client_of(&[&TLS13], None);
        config.enable_secret_extraction = true;
        Arc::new(config)
    }

    fn connect(&self, config: &Arc<ClientConfig>) -> TlsConn {
        TlsConn::to(self.server.addr, config)
    }

    /// A client that makes its records itself from now on.
    fn connect_raw(&self) -> (TcpStream, RecordWriter) {
        let mut conn = self.connect(&self.config());
        conn.ask("mn\r\n", "MN\r\n");
        let StreamOwned { conn: session, sock: socket } = conn.0;
        (socket, RecordWriter::of(session))
    }

    /// Sends this, and reads replies until the server has worked it off and ends the connection; others are served
    /// meanwhile.
    fn flood(&mut self, what: &str, socket: TcpStream, bytes: Vec<u8>) {
        let (mut reader, mut writer) = (socket.try_clone().unwrap(), socket);
        let is_over = std::thread::spawn(move || while matches!(reader.read(&mut [0; 65536]), Ok(1..)) {});
        let sender = std::thread::spawn(move || {
            let _ = writer.write_all(&bytes).and_then(|()| writer.shutdown(Shutdown::Write));
        });
        self.serve_others(what, || is_over.is_finished());
        sender.join().unwrap();
    }

    fn serve_others(&mut self, what: &str, is_over: impl Fn() -> bool) {
        let (mut longest, mut gets) = (Duration::ZERO, 0);
        while !is_over() {
            let began = Instant::now();
            assert_eq!(self.admin.ask(b"get small\r\n", b"END\r\n"), b"VALUE small 0 1\r\nx\r\nEND\r\n");
            longest = longest.max(began.elapsed());
            gets += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        let turn = self.admin.number("twincache", "longest_loop_turn_cpu_us");
        println!("{what}: {gets} gets, longest {longest:?}, longest turn {turn} us of CPU time");
        assert!(longest < DEADLINE / 4, "{what}: a get took {longest:?}");
    }
}

/// A record costs as much as the bytes of many requests, whatever is in it.
#[test]
fn tiny_records_hold_up_nobody() {
    let records = from_env("HOSTILE_RECORDS").unwrap_or(400_000) as usize;
    let mut site = Site::new("");
    assert_eq!(site.admin.line("set small 0 0 1\r\nx"), "STORED");
    let data = ContentType::ApplicationData;
    // A value, requests, and nothing, a byte or less in each record. Of empty ones a server takes a few.
    let begin = format!("set large 0 0 {records}\r\n");
    let pieces: [(&str, &[&str]); 3] = [("value", &["v"]), ("requests", &["m", "n", "\r", "\n"]), ("nothing", &[""])];
    for (what, pieces) in pieces {
        let (socket, mut writer) = site.connect_raw();
        let read_before = site.admin.number("", "bytes_read");
        let mut bytes = if what == "value" { writer.record(data, begin.as_bytes()) } else { Vec::new() };
        (0..records).for_each(|i| bytes.extend(writer.record(data, pieces[i % pieces.len()].as_bytes())));
        bytes.extend(writer.record(data, b"\r\n"));
        site.flood(what, socket, bytes);
        match what {
            "value" => assert_eq!(site.admin.number("", "curr_items"), 2),
            "nothing" => assert_eq!(site.admin.number("", "ssl_proto_errors"), 1),
            _ => assert!(site.admin.number("", "bytes_read") >= read_before + records as u64),
        }
    }
    // New keys, again and again.
    let mut conn = site.connect(&site.config());
    conn.ask("mn\r\n", "MN\r\n");
    let mut bytes = Vec::new();
    for _ in 0..records / 20 {
        conn.0.conn.refresh_traffic_keys().unwrap();
        conn.0.conn.write_tls(&mut bytes).unwrap();
    }
    site.flood("keys", conn.0.sock, bytes);
}

/// A message that comes in parts, the second of which looks like records where it lies behind the first.
#[test]
fn what_looks_like_records_within_a_message_is_none() {
    let mut site = Site::new("");
    let begin = [&[1, 0, 7, 0xd0][..], &[0; 46]].concat();
    let record = |payload: &[u8]| [&[22, 3, 1, 0, payload.len() as u8], payload].concat();
    for zeros in [80, 100, 200] {
        let mut socket = TcpStream::connect(site.server.addr).unwrap();
        socket.set_nodelay(true).unwrap();
        for piece in [&[record(&begin), record(&vec![0; zeros])].concat()[..], &[22], &[3, 1, 0, 1, 0]] {
            socket.write_all(piece).unwrap();
            // It is read by then.
            (0..20).for_each(|_| assert_eq!(site.admin.line("mn"), "MN"));
        }
    }
    site.connect(&site.config()).ask("mn\r\n", "MN\r\n");
}

/// A record that is not whole lies in the server's memory, and so it counts.
#[test]
fn records_that_are_never_whole_are_bounded() {
    let clients = from_env("HOSTILE_TLS_CLIENTS").unwrap_or(1000) as usize;
    descriptors_possible(2 * clients as u64 + 100);
    let mut site = Site::new("read_buf_mem_limit=2");
    let config = site.config();
    let connect = || {
        let mut conn = site.connect(&config);
        conn.ask("mn\r\n", "MN\r\n");
        conn
    };
    let mut conns: Vec<TlsConn> = (0..clients).map(|_| connect()).collect();
    let before = site.server.memory_kb("VmRSS:");
    let half = [&[23, 3, 3, 0x40, 0x11][..], &[7; HALF]].concat();
    for conn in &mut conns {
        // It may be closed for what it holds.
        let _ = conn.0.sock.write_all(&half);
    }
    // 2 MB hold some 130 of them.
    let kept = 150;
    until("most of them to be closed", || site.admin.number("", "read_buf_oom") + kept >= clients as u64);
    let grown = site.server.memory_kb("VmRSS:").saturating_sub(before);
    println!("{clients} connections with {HALF} bytes of a record each: {grown} KB more than idle");
    assert!(grown < 8 << 10, "{grown} KB");
    assert_eq!(site.admin.line("mn"), "MN");
    site.connect(&config).ask("mn\r\n", "MN\r\n");
}

/// What was held is given back and no more counted when the rest of a record comes.
#[test]
fn records_that_become_whole_are_not_counted_any_more() {
    let mut site = Site::new("");
    let mut conns: Vec<_> = (0..20).map(|_| site.connect_raw()).collect();
    let held = |site: &mut Site| site.admin.number("", "read_buf_bytes");
    let idle = held(&mut site);
    for round in 0..3 {
        let records: Vec<_> = conns
            .iter_mut()
            .map(|(_, writer)| writer.record(ContentType::ApplicationData, &b"mn\r\n".repeat(4000)))
            .collect();
        for ((socket, _), record) in conns.iter_mut().zip(&records) {
            socket.write_all(&record[..HALF]).unwrap();
        }
        until("what is held", || held(&mut site) >= idle + 20 * HALF as u64);
        for ((socket, _), record) in conns.iter_mut().zip(&records) {
            socket.write_all(&record[HALF..]).unwrap();
        }
        until("nothing to be held", || held(&mut site) == idle);
        assert_eq!(site.admin.line("mn"), "MN", "round {round}");
    }
}
