//! Pages over HTTP, one request a connection.
//!
//! One thread accepts. Each request has a thread of its own, of which there are a few at most, and takes at most 2
//! seconds; if there are too many, the oldest one, who has said nothing for longest, goes first. Requests are parsed by httparse, which is hyper's parser. A whole HTTP server would be more than two pages
//! need, and the small ones either have no time-outs or are no longer maintained.
//!
//! Not here: what the pages say.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The most requests at once; a scraper and some probes need three.
const REQUESTS_MAX: usize = 16;

/// The longest head of a request.
const HEAD_MAX: usize = 8 << 10;

/// Most header lines of a request.
const HEADERS_MAX: usize = 64;

/// The longest time in which a request must arrive, and its reply leave.
const REQUEST_MAX: Duration = Duration::from_secs(2);

/// A page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpPage {
    /// 200 or 503, with its words.
    pub status: &'static str,
    /// Its media type.
    pub media: &'static str,
    /// Its text.
    pub text: String,
}

/// Makes the page of a path, which may have a query; None: there is no such page.
pub(crate) type HttpPages = dyn Fn(&str) -> Option<HttpPage> + Send + Sync;

/// Serves `pages` at `address` from now on.
pub(crate) fn serve(address: SocketAddr, pages: Arc<HttpPages>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    std::thread::Builder::new().name("http".into()).spawn(move || accept(&listener, &pages))?;
    Ok(bound)
}

fn accept(listener: &TcpListener, pages: &Arc<HttpPages>) {
    let mut open: VecDeque<Arc<TcpStream>> = VecDeque::new();
    for stream in listener.incoming() {
        match stream.map(Arc::new) {
            Ok(stream) => {
                // Those whose threads have ended are here alone.
                open.retain(|stream| Arc::strong_count(stream) > 1);
                if open.len() >= REQUESTS_MAX
                    && let Some(oldest) = open.pop_front()
                {
                    // Its thread ends with that. Who has asked has long been answered.
                    let _ = oldest.shutdown(Shutdown::Both);
                }
                let (pages, asker) = (Arc::clone(pages), Arc::clone(&stream));
                let answer = move || {
                    answer(&asker, &*pages);
                    let _ = asker.shutdown(Shutdown::Both);
                };
                match std::thread::Builder::new().name("request".into()).spawn(answer) {
                    Ok(_) => open.push_back(stream),
                    Err(error) => log::warn!("http: {error}"),
                }
            }
            // Most likely there are no descriptors left; some may become free.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Answers one request. A client that breaks off or takes too long gets nothing.
fn answer(mut stream: &TcpStream, pages: &HttpPages) {
    let Some(head) = read_head(stream) else { return };
    let reply = reply(&head, pages);
    let _ = stream.set_write_timeout(Some(REQUEST_MAX));
    let _ = stream.write_all(reply.as_bytes());
}

/// Reads up to the empty line.
fn read_head(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let (end, mut head) = (Instant::now() + REQUEST_MAX, Vec::new());
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD_MAX {
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        let mut piece = [0; 2048];
        match stream.read(&mut piece) {
            Ok(0) => return None,
            Ok(n) => head.extend_from_slice(&piece[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(head)
}

fn reply(head: &[u8], pages: &HttpPages) -> String {
    let plain = |status, text: &str| HttpPage { status, media: "text/plain", text: format!("{text}\n") };
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let page = match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {
            let path = request.path.unwrap_or("");
            match request.method {
                Some("GET" | "HEAD") => {
                    pages(path).unwrap_or_else(|| plain("404 Not Found", "/health, /metrics, /primary or /standby"))
                }
                _ => plain("405 Method Not Allowed", "GET or HEAD"),
            }
        }
        _ => plain("400 Bad Request", "that is no HTTP request"),
    };
    let HttpPage { status, media, text } = page;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    if request.method == Some("HEAD") { head } else { head + &text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str) -> Option<HttpPage> {
        let known = path.split('?').next() == Some("/health");
        known.then(|| HttpPage { status: "503 Service Unavailable", media: "text/plain", text: "no\n".into() })
    }

    #[test]
    fn requests_are_answered() {
        let table = [
            ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503 ", "\r\n\r\nno\n"),
            ("GET /health?full HTTP/1.0\r\n\r\n", "HTTP/1.1 503 ", "\r\n\r\nno\n"),
            ("HEAD /health HTTP/1.1\r\n\r\n", "HTTP/1.1 503 ", "Content-Length: 3\r\nConnection: close\r\n\r\n"),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 ", "/health, /metrics, /primary or /standby\n"),
            ("POST /health HTTP/1.1\r\n\r\n", "HTTP/1.1 405 ", "\n"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400 ", "\n"),
        ];
        for (request, start, end) in table {
            let reply = reply(request.as_bytes(), &page);
            assert!(reply.starts_with(start) && reply.ends_with(end), "{request}: {reply}");
        }
    }

    #[test]
    fn a_request_in_pieces_is_served() {
        let bound = serve("127.0.0.1:0".parse().unwrap(), Arc::new(page)).unwrap();
        let mut stream = TcpStream::connect(bound).unwrap();
        for piece in ["GET /he", "alth HTTP/1.1\r\n", "\r\n"] {
            stream.write_all(piece.as_bytes()).unwrap();
        }
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 503 ") && reply.ends_with("no\n"), "{reply}");
    }

    #[test]
    fn who_says_nothing_keeps_nobody_out() {
        let bound = serve("127.0.0.1:0".parse().unwrap(), Arc::new(page)).unwrap();
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.extend((0..REQUESTS_MAX).map(|_| TcpStream::connect(bound).unwrap()));
            let mut stream = TcpStream::connect(bound).unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\n\r\n").unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).unwrap();
            assert!(reply.starts_with("HTTP/1.1 503 "), "{reply}");
        }
    }
}
