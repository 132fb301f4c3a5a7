//! The Grafana dashboard and the alerts against a real Prometheus that scrapes a pair under load: each question of a panel
//! is answered, and no alert sounds while all is well. What Grafana asks of a file that it imports is checked by reading.
//!
//! ```text
//!   load ──> pair, with its sidecars' /metrics ──scrape──> prometheus, with alerts.yml <──queries── each panel's questions
//! ```

mod common;

use common::{EtcdServer, Folder, PairNode, spare_port, until};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use ureq::Agent;

/// Questions that nothing answers while a pair is in good health: a part of the expression, and why.
const SILENT: [(&str, &str); 1] = [("memcached_slab_items_evicted_time_seconds", "nothing was evicted")];

/// Seconds that what a slow machine has upset may take to pass.
const TRIES: usize = 60;

fn dashboard() -> Value {
    serde_json::from_str(include_str!("../scripts/monitoring/grafana-dashboard.json")).expect("JSON")
}

/// Panels that ask something, and what they ask: title, expression and legend.
fn questions(dashboard: &Value) -> Vec<(String, String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().into_iter().flatten();
        targets.map(|target| [&panel["title"], &target["expr"], &target["legendFormat"]])
    });
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned();
    targets.map(|[title, expr, legend]| (text(title), text(expr), text(legend))).collect()
}

#[test]
fn grafana_can_import_it() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36), "panels name their data source by uid");
    assert!(dashboard["uid"].as_str().is_some_and(|uid| uid.len() <= 40) && dashboard["title"].is_string());
    // An id of another installation would overwrite what is there.
    assert!(dashboard["id"].is_null());
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let variables: BTreeSet<&str> = variables.iter().filter_map(|variable| variable["name"].as_str()).collect();
    let own = ["__rate_interval", "__all"];
    let text = dashboard.to_string();
    for asked in text.split('$').skip(1) {
        let name = asked.trim_start_matches('{').split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        assert!(name.is_some_and(|name| variables.contains(name) || own.contains(&name)), "${asked:.40}");
    }
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        let title = panel["title"].as_str().expect("a title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is another's");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{title} is beside the grid");
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        cells.for_each(|cell| assert!(taken.insert(cell), "{title} lies on another"));
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"], json!({"type": "prometheus", "uid": "${source}"}), "{title}");
        let refs = panel["targets"].as_array().expect("targets").iter().map(|target| target["refId"].as_str());
        let refs: Vec<_> = refs.collect();
        let different: BTreeSet<_> = refs.iter().collect();
        assert!(!refs.is_empty() && refs.len() == different.len() && !refs.contains(&None), "{title}: {refs:?}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
    }
}

/// A Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    at: SocketAddr,
    agent: Agent,
    _folder: Folder,
}

impl Prometheus {
    /// One that scrapes these each second. None, and a line that says so, where it is not installed.
    fn start(scraped: &[SocketAddr]) -> Option<Prometheus> {
        let folder = Folder::new();
        let targets: Vec<String> = scraped.iter().map(ToString::to_string).collect();
        let alerts = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/monitoring/alerts.yml");
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [alerts],
            "scrape_configs": [{"job_name": "twincache", "static_configs": [{"targets": targets}]}],
        });
        std::fs::write(folder.file("config"), config.to_string()).unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], spare_port()));
        let child = Command::new("prometheus")
            .args(["--config.file", &folder.file("config"), "--storage.tsdb.path", &folder.file("data")])
            .arg(format!("--web.listen-address={at}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            eprintln!("prometheus is not installed: nobody asks what the dashboard asks");
            return None;
        };
        let prometheus = Prometheus { child, at, agent: Agent::new_with_defaults(), _folder: folder };
        until("prometheus to listen", || TcpStream::connect(at).is_ok());
        Some(prometheus)
    }

    /// The data of an answer; None while it is not ready, and where it says that there is an error.
    fn ask(&self, path: &str) -> Option<Value> {
        let mut answer = self.agent.get(format!("http://{}{path}", self.at)).call().ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        (answer["status"] == "success").then(|| answer["data"].take())
    }

    /// The labels and the value of each sample that answers a question.
    fn query(&self, expr: &str) -> Vec<Value> {
        let encoded: String = expr.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("/api/v1/query?query={encoded}")).unwrap_or_default();
        data["result"].as_array().cloned().unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_healthy_pair_answers_every_question_and_alarms_nobody() {
    let Some(etcd) = EtcdServer::start(&[]) else { return };
    let pair = PairNode::start_two(&etcd);
    let Some(prometheus) = Prometheus::start(&[pair[0].sidecar.http(), pair[1].sidecar.http()]) else { return };
    let (dashboard, is_over) = (dashboard(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| use_it(&pair[0], &is_over));
        let everything = std::panic::AssertUnwindSafe(|| look(&prometheus, &dashboard));
        let outcome = std::panic::catch_unwind(everything);
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// A bit of everything, until it is over.
fn use_it(primary: &PairNode, is_over: &AtomicBool) {
    let mut conn = primary.server.connect();
    while !is_over.load(Ordering::Relaxed) {
        for i in 0..50 {
            assert_eq!(conn.line(&format!("set key-{i} 0 0 {i}\r\n{:i$}", "")), "STORED");
            conn.ask(format!("get key-{i} key-none\r\n").as_bytes(), b"END\r\n");
            conn.ask(format!("mg key-{i} v\r\nmn\r\n").as_bytes(), b"MN\r\n");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn look(prometheus: &Prometheus, dashboard: &Value) {
    // Of both, and long enough for a rate.
    let ready = "count(count_over_time(memcached_uptime_seconds[20s]) > 8)";
    until("both to be scraped for a while", || prometheus.query(ready).first().is_some_and(|n| n["value"][1] == "2"));
    // A machine that stands still for some seconds leaves gaps, which pass.
    let mut left = Vec::new();
    for _ in 0..TRIES {
        left = unanswered(prometheus, dashboard);
        if left.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(left.is_empty(), "{left:#?}");
    // The variable that chooses sidecars asks for this.
    assert_eq!(prometheus.query("twincached_up == 1").len(), 2);
    let mut alerts = Value::Null;
    for _ in 0..TRIES {
        alerts = prometheus.ask("/api/v1/alerts").unwrap_or_default()["alerts"].take();
        if alerts == json!([]) {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(alerts, json!([]), "all is well");
    let rules = prometheus.ask("/api/v1/rules").expect("rules").to_string();
    assert!(rules.contains("TwincacheNoStandbyInSync") && !rules.contains("\"health\":\"err\""), "{rules}");
}

/// What nothing answers, but for what is silent in good health. Each answer has the labels that its legend names.
fn unanswered(prometheus: &Prometheus, dashboard: &Value) -> Vec<String> {
    let mut left = Vec::new();
    for (title, expr, legend) in questions(dashboard) {
        let expr = expr.replace("$instance", ".+").replace("$__rate_interval", "5s");
        let samples = prometheus.query(&expr);
        let silent = SILENT.iter().find(|(part, _)| expr.contains(part));
        if samples.is_empty() && silent.is_none() {
            left.push(format!("{title}: {expr}"));
        }
        for (sample, name) in samples.iter().flat_map(|sample| names(&legend).map(move |name| (sample, name))) {
            assert!(sample["metric"][name].is_string(), "{title}: {legend}: no {name} in {sample}");
        }
    }
    left
}

/// The labels that a legend names: `{{label}}`.
fn names(legend: &str) -> impl Iterator<Item = &str> {
    legend.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim()))
}
