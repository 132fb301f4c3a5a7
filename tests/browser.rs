//! The sidecar's status page in a real browser: what it shows of one server, of a pair, and without etcd; on a desk and on a
//! phone, light and dark; and that it asks nobody else for anything.
//!
//! `SCREENSHOTS=FOLDER cargo test --test browser` keeps pictures of what was seen.

mod common;

use common::{Browser, Conn, EtcdServer, Folder, PairNode, Server, Sidecar, signal, until};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// Starts a server with a control socket in a folder.
fn serve(folder: &Folder) -> Server {
    Server::start(&["-m", "64", "-t", "2", "-o", &format!("control_socket={}", folder.file("control"))])
}

/// A bit of everything, in several slab classes, with a key that is hot.
fn use_it(conn: &mut Conn) {
    for i in 0..600 {
        let len = i * i / 20;
        conn.send(format!("set user:{i}:profile 0 0 {len} noreply\r\n{:len$}\r\n", "").as_bytes());
    }
    for i in 0..1500 {
        conn.ask(format!("get user:{i}:profile session user:{}:profile\r\n", i % 7).as_bytes(), b"END\r\n");
        conn.ask(format!("get user:{}:profile\r\n", i % 700).as_bytes(), b"END\r\n");
    }
    assert_eq!(conn.line("delete user:1:profile"), "DELETED");
}

/// The page of a sidecar, once it shows this.
fn look(browser: &Browser, sidecar: &Sidecar, query: &str, part: &str) {
    browser.open(&format!("http://{}/{query}", sidecar.http()));
    until(&format!("the page to show {part:?}"), || browser.text().contains(part));
}

/// What the page says in its head that the server is.
fn role(browser: &Browser) -> String {
    browser.eval("document.getElementById('role').textContent").as_str().expect("a text").to_owned()
}

/// As everybody may look at it: nothing sticks out sideways, and nothing was said on the console or asked of others.
fn is_tidy(browser: &Browser, sidecar: &Sidecar, name: &str) {
    for (screen, width, height, is_phone) in [("desk", 1280, 900, false), ("phone", 375, 740, true)] {
        browser.resize(width, height, is_phone);
        for scheme in ["light", "dark"] {
            browser.prefer(scheme);
            let widths = browser.eval("[document.documentElement.scrollWidth, window.innerWidth]");
            assert!(widths[0].as_u64() <= widths[1].as_u64(), "{name} on a {screen}: {widths}");
            assert_eq!(widths[1], width, "{name} on a {screen}");
            let back = browser.eval("getComputedStyle(document.body).backgroundColor");
            let lightness: u32 =
                back.as_str().unwrap().split(|c: char| !c.is_ascii_digit()).flat_map(str::parse::<u32>).take(3).sum();
            assert_eq!(lightness > 3 * 128, scheme == "light", "{name}, {scheme}: {back}");
            browser.picture(&format!("{name}-{screen}-{scheme}"));
        }
    }
    browser.resize(1280, 900, false);
    let (console, asked) = browser.logs();
    assert_eq!(console, [""; 0], "{name}");
    let own = format!("http://{}/", sidecar.http());
    assert!(asked.iter().any(|(page, url)| page.starts_with(&own) && url.starts_with(&own)), "{asked:?}");
    // The page looked at before goes on to ask until it is left.
    let origin = |page: &str| page.splitn(4, '/').take(3).map(|part| format!("{part}/")).collect::<String>();
    let is_own = |(page, url): &(String, String)| url.starts_with(&origin(page)) || url.starts_with("data:");
    assert!(asked.iter().all(is_own), "{asked:?}");
}

#[test]
fn one_server_is_shown_and_goes_on() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    let mut server = serve(&folder);
    let sidecar = Sidecar::start_alone(folder.file("control"), &[&HTTP[..], &["--http-keys"]].concat());
    let mut conn = server.connect();
    use_it(&mut conn);
    look(&browser, &sidecar, "", "standalone");
    until("hot keys to be told", || browser.text().contains("user:0:profile"));
    for part in ["Hit ratio", "of 64.0 MiB", "Latency p99", "lost to rounding", "the server answers"] {
        assert!(browser.text().to_lowercase().contains(&part.to_lowercase()), "{part} is not in\n{}", browser.text());
    }
    // What comes later is shown in the same page.
    browser.eval("window.mark = 'same page'");
    assert!(!browser.text().contains("12.3 k"), "{}", browser.text());
    let more: String = (0..11_700).map(|i| format!("set more:{i} 0 0 1 noreply\r\n1\r\n")).collect();
    conn.send(more.as_bytes());
    until("the page to show more items", || browser.text().contains("12.3 k"));
    assert_eq!(browser.eval("window.mark"), "same page");
    until("the charts to be drawn", || {
        browser.eval("document.querySelectorAll('svg path[d^=M]').length").as_u64() > Some(6)
    });
    is_tidy(&browser, &sidecar, "alone");
    server.may_exit();
    signal(server.pid(), "KILL");
    server.wait();
    until("the page to say that the server is gone", || browser.text().contains("The server does not answer"));
    assert_eq!(role(&browser), "no answer");
    is_tidy(&browser, &sidecar, "gone");
    let _server = serve(&folder);
    until("the page to find the server again by itself", || role(&browser) == "standalone");
    assert_eq!(browser.eval("document.getElementById('error').textContent"), "");
    assert_eq!(browser.eval("window.mark"), "same page");
}

#[test]
fn a_copy_is_shown_from_where_it_is_made() {
    let Some(browser) = Browser::start() else { return };
    let (folder, peer) = (Folder::new(), Server::start(&[]));
    let server = serve(&folder);
    use_it(&mut server.connect());
    let sidecar = Sidecar::start(folder.file("control"), peer.addr, &HTTP);
    until("the peer to have it", || sidecar.page("/health").starts_with("HTTP/1.1 200 "));
    look(&browser, &sidecar, "", &peer.addr.to_string());
    assert!(
        browser.text().contains("Copies that are made") && browser.text().contains("names are shown with --http-keys")
    );
    is_tidy(&browser, &sidecar, "copied");
}

#[test]
fn a_pair_is_shown_with_and_without_etcd() {
    let (Some(browser), Some(etcd)) = (Browser::start(), EtcdServer::start(&[])) else { return };
    let [primary, standby] = PairNode::start_two(&etcd);
    use_it(&mut primary.server.connect());
    look(&browser, &primary.sidecar, "", "primary");
    until("the copy to be whole", || browser.text().contains("streaming"));
    is_tidy(&browser, &primary.sidecar, "primary");
    look(&browser, &standby.sidecar, "", "standby");
    until("its copy to be told", || browser.text().contains("The copy that this server holds"));
    is_tidy(&browser, &standby.sidecar, "standby");
    drop(etcd);
    // The standby promises not to take over, so that the primary goes on.
    look(&browser, &primary.sidecar, "", "shard s, node ");
    until("etcd to be told missing, and the primary to go on", || {
        browser.text().contains("does not answer") && role(&browser) == "primary"
    });
    is_tidy(&browser, &primary.sidecar, "without-etcd");
    drop(standby);
    until("the primary to fall silent", || browser.text().contains("silent: the lease could not be renewed"));
    assert_eq!(role(&browser), "silent");
    is_tidy(&browser, &primary.sidecar, "silent");
}

#[test]
fn a_token_is_asked_for() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    std::fs::write(folder.file("token"), "s3cret-0\n").unwrap();
    let _server = serve(&folder);
    let sidecar =
        Sidecar::start_alone(folder.file("control"), &[&HTTP[..], &["--http-token", &folder.file("token")]].concat());
    browser.open(&format!("http://{}/", sidecar.http()));
    assert!(browser.text().contains("token") && !browser.text().contains("Hit ratio"), "{}", browser.text());
    let (console, _) = browser.logs();
    // Only the refusal itself, and the icon that a browser asks for by itself.
    assert!(console.iter().all(|line| line.contains("403") || line.contains("favicon")), "{console:?}");
    look(&browser, &sidecar, "?token=s3cret-0", "standalone");
    is_tidy(&browser, &sidecar, "token");
}
