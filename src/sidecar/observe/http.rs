//! Pages over HTTP, one request a connection.
//!
//! One thread accepts. Each request has a thread of its own, of which there are a few at most, and takes at most 2
//! seconds; if there are too many, the oldest one, who has said nothing for longest, goes first. Requests are parsed by
//! httparse, which is hyper's parser. A whole HTTP server would be more than some pages need, and the small ones either
//! have no time-outs or are no longer maintained.
//!
//! With a token, what shows figures is shown to those only who send it, as `Authorization: Bearer <token>` or as the
//! argument `token` of the path, which a browser can keep. What balancers and alarms ask for is for everybody.
//!
//! Not here: what the pages say.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
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

/// What may be asked for.
const PATHS: &str = "/, /status, /metrics, /health, /primary or /standby";

/// A page is nobody's frame, and its figures are of now.
const GUARDS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n";

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

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HttpQuestion<'a> {
    /// The path, without its query.
    pub path: &'a str,
    /// What follows its question mark, or nothing.
    pub query: &'a str,
    /// The token that came with it.
    pub token: Option<&'a str>,
}

impl HttpQuestion<'_> {
    /// Whether the query has this word, with or without a value.
    pub(crate) fn has(&self, word: &str) -> bool {
        self.query.split('&').any(|part| part.split('=').next() == Some(word))
    }

    /// Whether it may see what the token guards.
    pub(crate) fn may_see(&self, token: Option<&str>) -> bool {
        token.is_none_or(|token| self.token.is_some_and(|given| is_same(given.as_bytes(), token.as_bytes())))
    }
}

/// Compares in a time that depends on the lengths alone.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

/// Makes the page that is asked for; None: there is no such page.
pub(crate) type HttpPages = dyn Fn(HttpQuestion<'_>) -> Option<HttpPage> + Send + Sync;

/// Serves `pages` to who connects to this socket from now on.
pub(crate) fn serve(listener: TcpListener, pages: Arc<HttpPages>) -> std::io::Result<()> {
    std::thread::Builder::new().name("http".into()).spawn(move || accept(&listener, &pages)).map(drop)
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
        Ok(httparse::Status::Complete(_)) => match request.method {
            Some("GET" | "HEAD") => pages(question(&request)).unwrap_or_else(|| plain("404 Not Found", PATHS)),
            _ => plain("405 Method Not Allowed", "GET or HEAD"),
        },
        _ => plain("400 Bad Request", "that is no HTTP request"),
    };
    let HttpPage { status, media, text } = page;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {}\r\n{GUARDS}Connection: close\r\n\r\n",
        text.len()
    );
    if request.method == Some("HEAD") { head } else { head + &text }
}

fn question<'a>(request: &httparse::Request<'_, 'a>) -> HttpQuestion<'a> {
    let path = request.path.unwrap_or("");
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("authorization"));
    let bearer = header.and_then(|header| std::str::from_utf8(header.value).ok()?.strip_prefix("Bearer "));
    let argument = query.split('&').find_map(|part| part.strip_prefix("token="));
    HttpQuestion { path, query, token: bearer.map(str::trim).or(argument) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(asked: HttpQuestion<'_>) -> Option<HttpPage> {
        let known = asked.path == "/health" || asked.path == "/status" && asked.may_see(Some("s3cret"));
        known.then(|| HttpPage { status: "503 Service Unavailable", media: "text/plain", text: "no\n".into() })
    }

    fn serve_pages() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = listener.local_addr().unwrap();
        serve(listener, Arc::new(page)).unwrap();
        bound
    }

    #[test]
    fn requests_are_answered() {
        let table = [
            ("GET /health HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 503 ", "\r\n\r\nno\n"),
            ("GET /health?full HTTP/1.0\r\n\r\n", "HTTP/1.1 503 ", "\r\n\r\nno\n"),
            ("HEAD /health HTTP/1.1\r\n\r\n", "HTTP/1.1 503 ", "\r\nConnection: close\r\n\r\n"),
            ("GET /other HTTP/1.1\r\n\r\n", "HTTP/1.1 404 ", "/health, /primary or /standby\n"),
            ("GET /status HTTP/1.1\r\n\r\n", "HTTP/1.1 404 ", "\n"),
            ("GET /status?history&token=s3cret HTTP/1.1\r\n\r\n", "HTTP/1.1 503 ", "no\n"),
            ("GET /status?token=s3cre HTTP/1.1\r\n\r\n", "HTTP/1.1 404 ", "\n"),
            ("GET /status HTTP/1.1\r\nauthorization: Bearer s3cret\r\n\r\n", "HTTP/1.1 503 ", "no\n"),
            ("GET /status HTTP/1.1\r\nAuthorization: Basic s3cret\r\n\r\n", "HTTP/1.1 404 ", "\n"),
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
        let bound = serve_pages();
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
        let bound = serve_pages();
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
