//! Servers that are no etcd: what they answer is an error in time, and never believed.

use crate::common::{Rng, seed};
use crate::{LONG, patiently};
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use twincache::cluster::options::EtcdOptions;
use twincache::cluster::{Etcd, EtcdError, Swap, WatchEnd, WatchEvent};

/// What a connection that has asked gets: everything that is to be written.
type Reply = Arc<dyn Fn(&mut TcpStream) + Send + Sync>;

/// A server whose reply is always the same. Its thread ends with the test's process.
struct Fake {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    reply: Arc<Mutex<Reply>>,
}

impl Fake {
    fn new() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let reply: Arc<Mutex<Reply>> = Arc::new(Mutex::new(Arc::new(|_| {})));
        let (counted, replies) = (Arc::clone(&requests), Arc::clone(&reply));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (counted, reply) = (Arc::clone(&counted), Arc::clone(&replies.lock().unwrap()));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    take_request(&stream);
                    counted.fetch_add(1, Ordering::SeqCst);
                    reply(&mut stream);
                });
            }
        });
        Fake { address, requests, reply }
    }

    fn replies(&self, reply: impl Fn(&mut TcpStream) + Send + Sync + 'static) {
        *self.reply.lock().unwrap() = Arc::new(reply);
    }

    /// Answers with these bytes and closes.
    fn sends(&self, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        // The client may have had enough.
        self.replies(move |stream| drop(stream.write_all(&bytes)));
    }

    fn client(&self) -> Etcd {
        client_of(self.address)
    }
}

fn client_of(address: SocketAddr) -> Etcd {
    let endpoints = vec![format!("http://{address}")];
    Etcd::new(&EtcdOptions { endpoints, ..EtcdOptions::default() }).unwrap()
}

fn take_request(stream: &TcpStream) {
    let mut lines = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().unwrap();
        }
    }
    let _ = lines.read_exact(&mut vec![0; length]);
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// The kinds of errors, to stand in tables.
fn kind(error: &EtcdError) -> &'static str {
    match error {
        EtcdError::Refused(_) => "refused",
        EtcdError::Unknown(_) => "unknown",
        EtcdError::Denied(_) => "denied",
        EtcdError::Malformed(_) => "malformed",
    }
}

#[test]
fn what_is_no_answer_is_not_believed() {
    let fake = Fake::new();
    let kv = |key: &str, rest: &str| {
        answer("200 OK", &format!(r#"{{"header":{{"revision":"9"}},"kvs":[{{"key":"{key}",{rest}}}]}}"#))
    };
    let good = r#""mod_revision":"5","version":"1""#;
    let table = [
        (String::new(), "unknown"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}".into(), "unknown"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{}".into(), "unknown"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n".into(), "malformed"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".into(), "malformed"),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".into(), "unknown"),
        (answer("200 OK", ""), "malformed"),
        (answer("200 OK", "{}"), "malformed"),
        (answer("200 OK", "null"), "malformed"),
        (answer("200 OK", "<html>"), "malformed"),
        (answer("200 OK", r#"{"header":{}}"#), "malformed"),
        (answer("200 OK", r#"{"header":{"revision":"-1"}}"#), "malformed"),
        (answer("200 OK", r#"{"header":{"revision":"99999999999999999999"}}"#), "malformed"),
        (answer("200 OK", r#"{"header":{"revision":1.5}}"#), "malformed"),
        (answer("200 OK", r#"{"header":{"revision":"9"},"kvs":{}}"#), "malformed"),
        (answer("200 OK", &"[".repeat(100_000)), "malformed"),
        (answer("200 OK", &format!(r#"{{"header":"{}"}}"#, "long\\n".repeat(100_000))), "malformed"),
        (answer("503 Unavailable", &format!(r#"{{"message":"{}"}}"#, "long\\n".repeat(100_000))), "unknown"),
        (kv("!", good), "malformed"),
        (kv("eA==", good), "malformed"),
        (kv("aw==", r#""mod_revision":"10","version":"1""#), "malformed"),
        (kv("aw==", r#""mod_revision":"0","version":"1""#), "malformed"),
        (kv("aw==", r#""mod_revision":"5","version":"-1""#), "malformed"),
        (kv("aw==", &format!("{good}}},{{\"key\":\"aw==\",{good}")), "malformed"),
        (answer("404 Not Found", "404 page not found"), "refused"),
        (answer("400 Bad Request", r#"{"message":"etcdserver: key is not provided","code":3}"#), "refused"),
        (answer("429 Too Many", r#"{"message":"etcdserver: too many requests","code":8}"#), "refused"),
        (answer("401 Unauthorized", r#"{"message":"etcdserver: invalid auth token","code":16}"#), "denied"),
        (answer("403 Forbidden", r#"{"message":"etcdserver: permission denied","code":7}"#), "denied"),
        (answer("503 Unavailable", r#"{"message":"etcdserver: no leader","code":14}"#), "unknown"),
        (answer("502 Bad Gateway", "<html>"), "unknown"),
        (answer("400 Bad Request", "CommonName of client sending a request will be ignored\n"), "denied"),
        (answer("500 Internal", ""), "unknown"),
        (answer("500 Internal", r#"{"code":"x"}"#), "unknown"),
    ];
    for (reply, expected) in table {
        fake.sends(reply.clone());
        let error = fake.client().get("k", LONG).expect_err(&reply);
        assert_eq!(kind(&error), expected, "{reply:.200}: {error:?}");
        let text = error.to_string();
        assert!(text.lines().count() == 1 && text.len() < 400, "{text}");
    }
    fake.sends(kv("aw==", good));
    assert_eq!(fake.client().get("k", LONG).expect("this is one").mod_revision(), 5);
}

#[test]
fn a_swap_is_sent_once_and_never_won_by_mistake() {
    let fake = Fake::new();
    let table = [
        ("200 OK", r#"{"succeeded":true}"#),
        ("200 OK", r#"{"header":{"revision":"9"},"succeeded":"yes"}"#),
        ("200 OK", r#"{"header":{"revision":"9"}}"#),
        ("200 OK", r#"{"header":{"revision":"9"},"responses":[{"response_put":{}}]}"#),
        ("200 OK", r#"{"header":{"revision":"0"},"succeeded":true}"#),
        ("503 Unavailable", r#"{"message":"etcdserver: request timed out","code":14}"#),
        ("503 Unavailable", ""),
    ];
    for (number, (status, body)) in table.into_iter().enumerate() {
        fake.sends(answer(status, body));
        let error = fake.client().swap("k", 0, b"v", LONG).expect_err(body);
        assert!(error.may_be_applied(), "{body}: {error:?}");
        assert_eq!(fake.requests.load(Ordering::SeqCst), number + 1, "sent once");
    }
    fake.sends(answer("200 OK", r#"{"header":{"revision":"9"},"responses":[{"response_range":{}}]}"#));
    let Ok(Swap::Lost(there)) = fake.client().swap("k", 7, b"v", LONG) else { panic!("not lost") };
    assert_eq!((there.revision, there.value), (9, None));
}

#[test]
fn a_host_that_takes_no_connection_was_told_nothing() {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    // As with a host that is gone, nothing answers from when the queue is full.
    let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
    let _queue: Vec<TcpStream> = (0..20).map_while(connect).collect();
    let mut etcd = client_of(address);
    let began = Instant::now();
    let error = etcd.put("k", b"v", Duration::from_millis(200)).unwrap_err();
    assert_eq!(kind(&error), "refused", "{error:?}");
    assert!(began.elapsed() < LONG);
}

/// An answer in which something is another byte, missing, twice or cut off.
fn spoiled(good: &str, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = good.as_bytes().to_vec();
    for _ in 0..=rng.below(2) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 => bytes[at] = rng.next() as u8,
            1 => bytes[at] = rng.pick(b"0123456789-\"{}[]:,."),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, bytes[at]),
            4 => (0..20).for_each(|_| bytes.insert(at, b'9')),
            _ => bytes.truncate(at + 1),
        }
    }
    bytes
}

#[test]
fn a_spoiled_answer_does_no_harm() {
    let seed = seed("ETCD_SEED");
    eprintln!("ETCD_SEED={seed}");
    let mut rng = Rng(seed);
    let fake = Fake::new();
    let kv = |key: &str| format!(r#"{{"key":"{key}","value":"dg==","mod_revision":"5","version":"1"}}"#);
    let range = format!(r#"{{"header":{{"revision":"9"}},"kvs":[{}]}}"#, kv("L2EvMQ=="));
    let txn = format!(r#"{{"header":{{"revision":"9"}},"responses":[{{"response_range":{range}}}]}}"#);
    let event = format!(r#"{{"result":{{"events":[{{"kv":{}}}]}}}}"#, kv("L2EvMQ=="));
    let watch = format!("{{\"result\":{{\"created\":true}}}}\n{event}\n{event}\n");
    for _ in 0..200 {
        let respond = |body: Vec<u8>| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            fake.sends([head.as_bytes(), &body].concat());
        };
        respond(spoiled(&range, &mut rng));
        if let Ok(there) = fake.client().get("/a/1", LONG) {
            assert!((0..=there.revision).contains(&there.mod_revision()), "{there:?}");
        }
        if let Ok(list) = fake.client().list("/a/", LONG) {
            assert!(list.items.iter().all(|(key, _)| key.starts_with("/a/")), "{list:?}");
        }
        respond(spoiled(&txn, &mut rng));
        if let Ok(Swap::Lost(there)) = fake.client().swap("/a/1", 0, b"v", LONG) {
            assert!((0..=there.revision).contains(&there.mod_revision()), "{there:?}");
        }
        respond(spoiled(&watch, &mut rng));
        let mut last = 4;
        let _ = fake.client().watch("/a/", 5, LONG, |event| {
            let (WatchEvent::Changed { revision, .. } | WatchEvent::UpTo(revision)) = event;
            assert!(revision >= last, "{event:?} after {last}");
            last = revision;
            true
        });
        // What is no answer of HTTP, either.
        let whole = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{range}", range.len());
        fake.sends(spoiled(&whole, &mut rng));
        let _ = fake.client().get("/a/1", LONG);
    }
}

#[test]
fn a_watch_notices_that_etcd_was_put_back() {
    let fake = Fake::new();
    fake.replies(|stream| {
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"result\":{\"header\":{\"revision\":\"7\"},\"created\":true}}\n");
        let _ = stream.read(&mut [0]);
    });
    let watch = |from, most| {
        patiently(Duration::from_millis(500), |idle| {
            let mut opened = 0;
            let end = fake.client().watch("/a/", from, idle, |_| {
                opened += 1;
                opened < most
            });
            Ok((end?, opened))
        })
    };
    assert_eq!(watch(8, 3), Ok((WatchEnd::Stopped, 3)), "it has all that was told");
    assert_eq!(watch(9, 100), Ok((WatchEnd::Compacted, 1)), "one that is late for a moment is not taken for that");
}

/// Writes pieces, slowly, until the client has had enough.
fn dribble(stream: &mut TcpStream, first: &str, piece: &[u8], pause: Duration) {
    let mut is_open = stream.write_all(first.as_bytes()).is_ok();
    while is_open {
        std::thread::sleep(pause);
        is_open = stream.write_all(piece).is_ok();
    }
}

#[test]
fn an_answer_that_does_not_end_ends_at_the_deadline() {
    let fake = Fake::new();
    let heads = ["", "HTTP/1.1 200 OK\r\nx: ", "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"];
    for head in heads {
        fake.replies(move |stream| dribble(stream, head, b"H", Duration::from_millis(5)));
        let began = Instant::now();
        let error = fake.client().get("k", Duration::from_millis(200)).unwrap_err();
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
        assert!(matches!(error, EtcdError::Unknown(_) | EtcdError::Malformed(_)), "{head}: {error:?}");
    }
    // Nor does one fill the memory.
    for head in ["HTTP/1.1 200 OK\r\nx: ", "HTTP/1.1 200 OK\r\n\r\n"] {
        fake.replies(move |stream| dribble(stream, head, &[b' '; 65536], Duration::ZERO));
        let error = fake.client().get("k", LONG).unwrap_err();
        assert_eq!(kind(&error), "malformed", "{head}: {error:?}");
    }
}

#[test]
fn a_list_that_does_not_go_on_ends() {
    let fake = Fake::new();
    let item = r#"{"key":"L2EvMQ==","mod_revision":"5","version":"1"}"#;
    // The same page again and again, and pages without anything.
    for kvs in [item, ""] {
        fake.sends(answer("200 OK", &format!(r#"{{"header":{{"revision":"9"}},"more":true,"kvs":[{kvs}]}}"#)));
        let error = fake.client().list("/a/", LONG).unwrap_err();
        assert_eq!(kind(&error), "malformed", "{error:?}");
    }
    fake.sends(answer("200 OK", &format!(r#"{{"header":{{"revision":"9"}},"kvs":[{item}]}}"#)));
    assert_eq!(fake.client().list("/b/", LONG).map_err(|error| kind(&error)), Err("malformed"), "another's keys");
    assert_eq!(fake.client().list("/a/", LONG).unwrap().items.len(), 1);
}

#[test]
fn a_watch_of_nonsense_ends() {
    let fake = Fake::new();
    let created = r#"{"result":{"header":{"revision":"9"},"created":true}}"#;
    let event = |revision: &str, key: &str, kind: &str| {
        let kv = format!(r#"{{"key":"{key}","mod_revision":"{revision}","version":"1"}}"#);
        format!(r#"{{"result":{{"events":[{{"type":"{kind}","kv":{kv}}}]}}}}"#)
    };
    let table = [
        (String::new(), "malformed"),
        ("nonsense".into(), "malformed"),
        ("{}".into(), "malformed"),
        (r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#.into(), "unknown"),
        (r#"{"error":{"grpc_code":7,"message":"etcdserver: permission denied"}}"#.into(), "denied"),
        (r#"{"result":{"canceled":true,"cancel_reason":"etcdserver: permission denied"}}"#.into(), "denied"),
        (r#"{"result":{"canceled":true}}"#.into(), "unknown"),
        (event("4", "L2EvMQ==", "PUT"), "malformed"),
        (event("5", "L2IvMQ==", "PUT"), "malformed"),
        (event("5", "L2EvMQ==", "DANCE"), "malformed"),
        (event("0", "L2EvMQ==", "DELETE"), "malformed"),
        (event("-7", "L2EvMQ==", "DELETE"), "malformed"),
        (event("9223372036854775807", "L2EvMQ==", "PUT"), "malformed"),
        (format!("{}\n{}", event("6", "L2EvMQ==", "PUT"), event("6", "L2EvMQ==", "PUT")), "malformed"),
    ];
    for (lines, expected) in table {
        fake.sends(format!("HTTP/1.1 200 OK\r\n\r\n{created}\n{lines}\n"));
        let error = fake.client().watch("/a/", 5, LONG, |_| true).expect_err(&lines);
        assert_eq!(kind(&error), expected, "{lines}: {error:?}");
    }
    // One that never says that it watches, and one that stops within a line.
    for (head, line) in [("HTTP/1.1 200 OK\r\n\r\n", ""), ("HTTP/1.1 200 OK\r\n\r\n", r#"{"result":{"created":true}}"#)]
    {
        let text = if line.is_empty() { head.to_owned() } else { format!("{head}{line}\n{{") };
        fake.replies(move |stream| {
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.read(&mut [0]);
        });
        let error = fake.client().watch("/a/", 5, Duration::from_millis(100), |_| true).unwrap_err();
        assert_eq!(kind(&error), "unknown", "{error:?}");
    }
}
