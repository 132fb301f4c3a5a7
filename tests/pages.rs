//! What a sidecar shows over HTTP: the status page in a real browser, its JSON, metrics as promtool judges them, and
//! who may see them.
//!
//! Chromium and promtool are used where they are installed; else a test says so and looks at the text alone.

mod common;

use common::{Conn, Folder, Server, Sidecar, signal, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

const HTTP: [&str; 2] = ["--http", "127.0.0.1:0"];

/// A server with a control socket, and a sidecar that only shows it.
struct Shown {
    server: Server,
    sidecar: Sidecar,
    folder: Folder,
}

impl Shown {
    fn start(options: &[&str]) -> Shown {
        let folder = Folder::new();
        let server = serve(&folder);
        let sidecar = Sidecar::start_alone(folder.file("control"), &[&HTTP, options].concat());
        Shown { server, sidecar, folder }
    }

    /// The JSON of `/status`.
    fn status(&self, query: &str) -> Value {
        let page = self.sidecar.page(&format!("/status{query}"));
        let (head, body) = page.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/json"), "{head}");
        serde_json::from_str(body).expect("JSON")
    }
}

/// A server that was used, its copy, and the sidecar that makes it. They end in this order.
struct Copied {
    sidecar: Sidecar,
    _servers: [Server; 2],
    _folder: Folder,
}

impl Copied {
    fn start() -> Copied {
        let (folder, peer) = (Folder::new(), Server::start(&[]));
        let server = serve(&folder);
        let sidecar = Sidecar::start(folder.file("control"), peer.addr, &HTTP);
        use_it(&mut server.connect());
        until("the peer to have it", || sidecar.page("/health").starts_with("HTTP/1.1 200 "));
        Copied { sidecar, _servers: [server, peer], _folder: folder }
    }
}

fn serve(folder: &Folder) -> Server {
    let socket = format!("control_socket={}", folder.file("control"));
    Server::start(&["-m", "64", "-o", &socket])
}

/// Does a bit of everything.
fn use_it(conn: &mut Conn) {
    for i in 0..500 {
        conn.send(format!("set <b>{i} 0 0 {len} noreply\r\n{}\r\n", "v".repeat(i), len = i).as_bytes());
    }
    for i in 0..1000 {
        conn.ask(format!("get <b>{i}\r\n").as_bytes(), b"END\r\n");
    }
    assert_eq!(conn.line("delete <b>1"), "DELETED");
}

/// What a browser makes of a page once it has run for a while; None without a browser.
fn seen(url: &str) -> Option<String> {
    let words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=4000", "--dump-dom", url];
    let profile = Folder::new();
    let profile = format!("--user-data-dir={}", profile.path().display());
    let output = Command::new("chromium").arg(profile).args(words).stderr(Stdio::null()).output();
    let Ok(output) = output else {
        eprintln!("chromium is not installed: nobody looks at {url}");
        return None;
    };
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn a_browser_shows_a_server_and_that_it_went() {
    let mut shown = Shown::start(&[]);
    use_it(&mut shown.server.connect());
    until("there to be rates", || shown.status("")["now"]["gets"].is_number());
    let url = format!("http://{}/", shown.sidecar.http());
    let Some(page) = seen(&url) else { return };
    for text in
        [">standalone</span>", "Hit ratio", "of 64.0 MiB", "<td>get</td>", "lost to rounding", "the server answers"]
    {
        assert!(page.contains(text), "{text} is not in\n{page}");
    }
    assert!(page.contains("<path d=\"M"), "there are charts: {page}");
    shown.server.may_exit();
    signal(shown.server.pid(), "KILL");
    shown.server.wait();
    until("the sidecar to notice", || shown.status("")["server"]["up"] == false);
    let page = seen(&url).expect("a browser");
    assert!(page.contains(">no answer</span>") && page.contains("The server does not answer: "), "{page}");
    shown.server = serve(&shown.folder);
    until("it to be back", || shown.status("")["server"]["up"] == true);
    assert!(seen(&url).expect("a browser").contains(">standalone</span>"));
}

#[test]
fn the_json_says_what_the_server_says() {
    let shown = Shown::start(&[]);
    let mut conn = shown.server.connect();
    use_it(&mut conn);
    // What was asked a moment ago is told again.
    until("all to be told", || shown.status("")["server"]["items"] == 499);
    let status = shown.status("?history");
    let of = |name: &str| status["server"][name].as_u64();
    assert_eq!(of("limit_bytes"), Some(64 << 20));
    assert_eq!(of("bytes"), Some(conn.number("", "bytes")));
    assert_eq!(status["server"]["hit_ratio"], 0.5);
    assert!(status["history"].as_array().is_some_and(|samples| !samples.is_empty()));
    let slabs = status["slabs"].as_array().expect("classes");
    let sum = |name: &str| slabs.iter().map(|slab| slab[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("items"), sum("held_bytes")), (499, conn.number("", "bytes")));
    let latency = status["latency"].as_array().expect("kinds");
    let gets = latency.iter().find(|kind| kind["kind"] == "get").expect("gets");
    assert_eq!(gets["count"], 1000);
    assert!(gets["p50_us"].as_f64() <= gets["p99_us"].as_f64() && gets["p99_us"].as_f64() <= gets["max_us"].as_f64());
    assert!(shown.status("").get("history").is_none());
}

#[test]
fn hot_keys_are_named_only_if_that_is_asked_for() {
    for (options, key) in [(&[][..], None), (&["--http-keys"][..], Some("%3Ci%3Ehot"))] {
        let shown = Shown::start(options);
        let mut conn = shown.server.connect();
        conn.send(b"set <i>hot 0 0 3\r\nabc\r\n");
        conn.expect("STORED\r\n");
        let many = b"mg <i>hot v q\r\nmg cold v q\r\nmg <i>hot v q\r\n".repeat(500);
        let hottest = || shown.status("")["hot_keys"][0].clone();
        // Few samples may name the other key first.
        until("many samples to be told", || {
            conn.ask(&[&many[..], b"mn\r\n"].concat(), b"MN\r\n");
            hottest()["operations"].as_f64() > Some(10_000.0)
        });
        assert_eq!(hottest()["key"].as_str(), key, "{options:?}");
        assert!(hottest()["percent"].as_f64().is_some_and(|percent| percent > 50.0), "{}", hottest());
        let metrics = shown.sidecar.page("/metrics");
        assert!(metrics.contains("twincached_hot_key_operations{rank=\"1\",kind=\"read\""), "{metrics}");
        assert_eq!(metrics.contains("%3Ci%3Ehot"), key.is_some());
    }
}

#[test]
fn promtool_finds_nothing_wrong() {
    let Copied { sidecar, .. } = &Copied::start();
    // What was asked a moment ago is told again.
    let hits = "memcached_commands_total{command=\"get\",status=\"hit\"} 500\n";
    until("all to be told", || sidecar.page("/metrics").contains(hits));
    let page = sidecar.page("/metrics");
    let (_, text) = page.split_once("\r\n\r\n").expect("a head");
    for part in ["\nmemcached_up 1\n", "_bucket{kind=\"set\",le=", "\ntwincache_sidecar_lag_seconds{"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let tool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut tool) = tool else { return eprintln!("promtool is not installed: nobody judges the metrics") };
    tool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = tool.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_token_guards_figures_and_not_alarms() {
    let file = Folder::new();
    std::fs::write(file.file("token"), "s3cret-0\nnot this\n").unwrap();
    let shown = Shown::start(&["--http-token", &file.file("token")]);
    for path in ["/", "/status", "/metrics", "/status?history&token=s3cret-1"] {
        let page = shown.sidecar.page(path);
        assert!(page.starts_with("HTTP/1.1 403 ") && !page.contains("memcached_up"), "{path}: {page}");
    }
    for path in ["/?token=s3cret-0", "/metrics?token=s3cret-0", "/health"] {
        assert!(shown.sidecar.page(path).starts_with("HTTP/1.1 200 "), "{path}");
    }
    assert_eq!(shown.status("?token=s3cret-0")["server"]["up"], true);
    let refused = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_twincache-sidecar"))
            .args(["--server", "unix:/x"])
            .args(words)
            .output()
            .expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    std::fs::write(file.file("bad"), "two words\n").unwrap();
    for (words, part) in [
        (["--http", "127.0.0.1:0", "--http-token", &file.file("none")], "No such file"),
        (["--http", "127.0.0.1:0", "--http-token", &file.file("bad")], "letters, digits"),
        (["--peer", "a:1", "--http-token", &file.file("token")], "--http is needed"),
    ] {
        let (code, line) = refused(&words);
        assert!(code == Some(64) && line.contains(part), "{code:?} {line}");
    }
}

/// Dashboard and alerts ask for nothing that there is not.
#[test]
fn dashboards_ask_for_what_is_shown() {
    let Copied { sidecar, .. } = &Copied::start();
    // What was asked a moment ago, of an empty server, is told again.
    let parts = ["twincache_sidecar_lag_seconds{", "memcached_slab_chunks_used{"];
    until("it to be shown", || parts.iter().all(|part| sidecar.page("/metrics").contains(part)));
    let page = sidecar.page("/metrics");
    let shown: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    // These need a lease, a certificate and a consumer that lags.
    let of_lease = ["twincache_shard_primary", "twincache_shard_members", "twincache_shard_etcd_up"];
    let other = [&of_lease[..], &["twincache_certificate_end_time_seconds"]].concat();
    let manifest = env!("CARGO_MANIFEST_DIR");
    for file in ["grafana-dashboard.json", "alerts.yml"] {
        let text = std::fs::read_to_string(format!("{manifest}/scripts/monitoring/{file}")).unwrap();
        if file.ends_with(".json") {
            serde_json::from_str::<Value>(&text).expect("JSON");
        }
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let asked =
            words.filter(|word| ["memcached_", "twincached_", "twincache_"].iter().any(|it| word.starts_with(it)));
        let asked: BTreeSet<&str> = asked.map(|word| word.strip_suffix("_bucket").unwrap_or(word)).collect();
        assert!(asked.len() > 10, "{file}: {asked:?}");
        let missing: Vec<_> = asked.iter().filter(|name| !shown.contains(*name) && !other.contains(name)).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
}

#[test]
fn alerts_sound_when_they_should() {
    let folder = format!("{}/scripts/monitoring", env!("CARGO_MANIFEST_DIR"));
    let run = |words: &[&str]| Command::new("promtool").args(words).current_dir(&folder).output();
    for words in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let Ok(output) = run(&words) else { return eprintln!("promtool is not installed: nobody tries the alerts") };
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
    }
}
