//! twincachectl against a real etcd: with records that the test writes, and with real nodes.

mod common;

use common::{EtcdServer, Folder, Server, spare_port, wait_for};
use serde::Serialize;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use twincache::cluster::record::{
    AnswerRecord, EPOCH_MAX, MemberRecord, NodeRecord, PeerRecord, RequestKind, RequestRecord, ShardRecord,
    TopologyRecord, from_bytes, to_bytes,
};
use twincache::cluster::{Also, Etcd, Swap};

const LONG: Duration = Duration::from_secs(20);

/// An etcd, and the tool.
struct Cluster {
    server: EtcdServer,
    etcd: Etcd,
}

impl Cluster {
    fn start() -> Option<Cluster> {
        let server = EtcdServer::start(&[])?;
        let etcd = server.client();
        Some(Cluster { server, etcd })
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twincachectl"));
        command.args(["--config", "/dev/null", "--etcd", &self.server.url, "--cluster", "c"]);
        command.args(line.split(' '));
        command
    }

    /// Runs it: exit code, stdout and stderr.
    fn run(&self, line: &str) -> (i32, String, String) {
        said(&self.command(line).output().expect("twincachectl"))
    }

    /// Runs it, and it has to end well.
    fn good(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "{line}: {out}");
        out
    }

    /// Runs it, and it has to fail with this on stderr.
    fn bad(&self, line: &str, part: &str) {
        let (code, out, err) = self.run(line);
        assert!(code == 1 && err.contains(part) && err.lines().count() == 1, "{line}: {code} {out}{err}");
    }

    fn put(&mut self, key: &str, record: &impl Serialize) {
        self.etcd.put(&format!("/twincache/c/{key}"), &to_bytes(record), LONG).expect("a put");
    }

    fn get<T: serde::de::DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        let value = self.etcd.get(&format!("/twincache/c/{key}"), LONG).expect("a get").value;
        value.map(|value| from_bytes(&value.bytes).expect(key))
    }

    /// The owner of the shard `s` is `a`, and `b` is in sync.
    fn pair(&mut self) {
        self.put("shards/s", &shard("a", 3));
        self.put("nodes/s/a", &node("a", "primary", 3));
        self.put("nodes/s/b", &node("b", "standby", 3));
    }

    /// Does what an owner does until the test is over: renews, and calls `turn` again and again.
    fn own<T>(&self, mut turn: impl FnMut(&mut Etcd) + Send, test: impl FnOnce() -> T) -> T {
        let key = "/twincache/c/shards/s";
        let renew = move |etcd: &mut Etcd| {
            let there = etcd.get(key, LONG).unwrap().value.expect("a shard");
            let mut record: ShardRecord = from_bytes(&there.bytes).unwrap();
            record.seq += 1;
            etcd.swap(key, there.mod_revision, &to_bytes(&record), LONG).unwrap();
            turn(etcd);
        };
        self.meanwhile(renew, test)
    }

    /// Calls `turn` again and again until the test is over.
    fn meanwhile<T>(&self, mut turn: impl FnMut(&mut Etcd) + Send, test: impl FnOnce() -> T) -> T {
        let (mut etcd, stop) = (self.server.client(), AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    turn(&mut etcd);
                    thread::sleep(Duration::from_millis(20));
                }
            });
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            stop.store(true, Ordering::Relaxed);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    (output.status.code().expect("an exit code"), text(&output.stdout), text(&output.stderr))
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn shard(owner: &str, epoch: u64) -> ShardRecord {
    let other = if owner == "a" { "b" } else { "a" };
    ShardRecord {
        epoch,
        owner: owner.into(),
        run: format!("run-{owner}"),
        lease_ms: 1000,
        members: vec![MemberRecord { node: other.into(), run: format!("run-{other}") }],
        nodes: vec!["a".into(), "b".into()],
        ..ShardRecord::default()
    }
}

/// A node as it says it is now.
fn node(name: &str, role: &str, epoch: u64) -> NodeRecord {
    let peer = PeerRecord { node: "b".into(), state: "streaming".into(), lag_ms: 1, lag_bytes: 0, sync_percent: None };
    NodeRecord {
        node: name.into(),
        run: format!("run-{name}"),
        advertise: format!("{name}:11211"),
        role: role.into(),
        epoch,
        items: 7,
        unix_ms: unix_ms(),
        peers: if role == "primary" { vec![peer] } else { vec![] },
        ..NodeRecord::default()
    }
}

/// Writes both nodes' records again.
fn nodes_live(etcd: &mut Etcd, primary: &str, epoch: u64) {
    for name in ["a", "b"] {
        let role = if name == primary { "primary" } else { "standby" };
        etcd.put(&format!("/twincache/c/nodes/s/{name}"), &to_bytes(&node(name, role, epoch)), LONG).unwrap();
    }
}

#[test]
fn it_shows_a_pair_and_what_is_wrong_with_it() {
    let Some(mut cluster) = Cluster::start() else { return };
    assert_eq!(cluster.good("list"), "cluster c has no shards\n");
    cluster.bad("status", "has no shards");
    cluster.pair();
    let table = "\
SHARD  NODE  ROLE     EPOCH  LAG   IN SYNC  ITEMS  ADDRESS
s      a     primary  3      -     -        7      a:11211
s      b     standby  3      1 ms  yes      7      b:11211
";
    let live = |etcd: &mut Etcd| nodes_live(etcd, "a", 3);
    let (list, status, json) =
        cluster.own(live, || (cluster.good("list"), cluster.good("status s"), cluster.good("list --json")));
    assert_eq!(list, table);
    assert!(status.contains(table) && status.ends_with("\nall is well\n"), "{status}");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((&json["cluster"], &json["shards"][0]["owner"]), (&"c".into(), &"a".into()));
    let (code, out, _) = cluster.run("status");
    assert!(code == 1 && out.contains("\nwhat is wrong:\n  the owner is silent: a does not renew"), "{out}");
    cluster.bad("status t", "there is no shard t; cluster c has these: s");
    cluster.server.kill();
    let (code, _, err) = cluster.run("list");
    assert!(code == 69 && err.starts_with("twincachectl: etcd: ") && err.lines().count() == 1, "{code}: {err}");
}

#[test]
fn a_switchover_is_asked_for_and_waited_for() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.pair();
    cluster.bad("switchover s", "a owns s and is silent, so it cannot hand it over");
    let mut is_asked = false;
    let hand_over = |etcd: &mut Etcd| {
        let there = etcd.get("/twincache/c/requests/s", LONG).unwrap();
        if let Some(value) = &there.value {
            let request: RequestRecord = from_bytes(&value.bytes).unwrap();
            assert_eq!((request.what, request.to.as_str()), (RequestKind::Switchover, "b"));
            etcd.put("/twincache/c/shards/s", &to_bytes(&shard("b", 4)), LONG).unwrap();
            let answer = AnswerRecord { id: request.id, is_done: true, text: "b owns the shard".into() };
            etcd.put("/twincache/c/answers/s", &to_bytes(&answer), LONG).unwrap();
            etcd.delete("/twincache/c/requests/s", LONG).unwrap();
            is_asked = true;
        }
        nodes_live(etcd, if is_asked { "b" } else { "a" }, if is_asked { 4 } else { 3 });
    };
    let text = cluster.own(hand_over, || {
        cluster.bad("switchover s --to c", "s has no node c, only a, b");
        assert_eq!(cluster.good("switchover s --to a"), "a owns s already\n");
        cluster.good("switchover s --to b")
    });
    for part in ["asked for a switchover to b", "b owns the shard", "b is the owner in epoch 4", "b is primary, "] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_request_of_another_is_waited_for_and_ours_is_refused() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.pair();
    let other = RequestRecord { id: "other".into(), what: RequestKind::Switchover, to: String::new(), epoch: 0 };
    cluster.put("requests/s", &other);
    let mut etcd = cluster.server.client();
    let refuse = |etcd: &mut Etcd| {
        nodes_live(etcd, "a", 3);
        let Some(value) = etcd.get("/twincache/c/requests/s", LONG).unwrap().value else { return };
        let request: RequestRecord = from_bytes(&value.bytes).unwrap();
        if request.id != "other" {
            let answer = AnswerRecord { id: request.id, is_done: false, text: "not today".into() };
            etcd.put("/twincache/c/answers/s", &to_bytes(&answer), LONG).unwrap();
            etcd.delete("/twincache/c/requests/s", LONG).unwrap();
        }
    };
    cluster.own(refuse, || {
        let mut child: Child =
            cluster.command("switchover s").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        assert!(line.contains("was asked for a switchover before; that is replaced after 60 s"), "{line}");
        let there = etcd.get("/twincache/c/requests/s", LONG).unwrap().value.expect("the other request");
        assert_eq!(from_bytes::<RequestRecord>(&there.bytes).unwrap().id, "other");
        assert!(matches!(etcd.take("/twincache/c/requests/s", there.mod_revision, &[], LONG), Ok(Swap::Won(_))));
        let (code, _, err) = said(&child.wait_with_output().unwrap());
        let rest: Vec<String> = out.lines().map(Result::unwrap).collect();
        assert_eq!((code, err.as_str()), (1, "twincachectl: not done\n"));
        assert_eq!(rest, ["s: asked for a switchover", "s: not today"]);
    });
}

/// Somebody's tool has died, and its request stays. A minute passes at once.
#[test]
fn a_request_that_nobody_answers_is_replaced_after_a_minute() {
    let Some(mut cluster) = Cluster::start() else { return };
    let folder = Folder::new();
    let (library, clock) = (folder.file("clock.so"), folder.file("clock"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-DSTEPPED=CLOCK_MONOTONIC", "-x", "c", "-o", &library]);
    match compiler.arg("tests/failover/rig/clock.c").status() {
        Ok(status) if status.success() => std::fs::write(&clock, 0_i64.to_ne_bytes()).unwrap(),
        _ => return println!("skipped: no clock that can be stepped: no C compiler"),
    }
    cluster.pair();
    let other = RequestRecord { id: "other".into(), what: RequestKind::Switchover, to: String::new(), epoch: 3 };
    cluster.put("requests/s", &other);
    let mut is_put = false;
    let refuse = |etcd: &mut Etcd| {
        nodes_live(etcd, "a", 3);
        let Some(value) = etcd.get("/twincache/c/requests/s", LONG).unwrap().value else { return };
        let request: RequestRecord = from_bytes(&value.bytes).unwrap();
        if request.id != "other" {
            assert_eq!((request.to.as_str(), request.epoch), ("b", 3));
            let answer = AnswerRecord { id: request.id, is_done: false, text: "not today".into() };
            let answer = to_bytes(&answer);
            let also = [Also::Put("/twincache/c/answers/s", &answer)];
            is_put |= matches!(etcd.take("/twincache/c/requests/s", value.mod_revision, &also, LONG), Ok(Swap::Won(_)));
        }
    };
    let lines = cluster.own(refuse, || {
        let mut command = cluster.command("switchover s --to b");
        command.env("LD_PRELOAD", &library).env("TWINCACHE_TEST_CLOCK", &clock);
        let mut child: Child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert!(line.contains("that is replaced after 60 s"), "{line}");
        thread::sleep(Duration::from_millis(500));
        assert_eq!(child.try_wait().unwrap(), None, "it waits");
        let file = std::fs::File::options().write(true).open(&clock).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &61_i64.to_ne_bytes(), 0).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1));
        out.lines().map(Result::unwrap).collect::<Vec<_>>()
    });
    assert_eq!(lines, ["s: asked for a switchover to b", "s: not today"]);
    assert!(is_put);
}

#[test]
fn a_promotion_says_what_is_lost_and_needs_force() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.pair();
    cluster.put("shards/s", &ShardRecord { members: vec![], ..shard("a", 3) });
    cluster.put("nodes/s/a", &NodeRecord { items: 120, unix_ms: unix_ms() - 60_000, ..node("a", "primary", 3) });
    let live = |etcd: &mut Etcd| {
        etcd.put("/twincache/c/nodes/s/b", &to_bytes(&node("b", "standby", 3)), LONG).unwrap();
    };
    let (dry, unforced) =
        cluster.meanwhile(live, || (cluster.good("promote s b --dry-run"), cluster.run("promote s b")));
    let losses =
        "b holds 7 items\na, which owns the shard, held, when it was last heard of, 120 items\nb is not in sync: ";
    assert!(dry.starts_with(losses), "{dry}");
    let (code, out, err) = unforced;
    assert!(code == 1 && out == dry && err.contains("say --force"), "{out}{err}");
    assert_eq!(cluster.get::<RequestRecord>("requests/s"), None);
    cluster.bad("promote s a --force", "a is not heard of, so it cannot take over");
}

#[test]
fn shards_are_paused_and_resumed() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.pair();
    cluster.put("shards/t", &shard("a", 1));
    cluster.bad("pause u", "there is no shard u");
    assert_eq!(cluster.good("pause --all").lines().count(), 2);
    let is_paused =
        |cluster: &mut Cluster, name: &str| cluster.get::<serde_json::Value>(&format!("pause/{name}")).is_some();
    assert!(is_paused(&mut cluster, "s") && is_paused(&mut cluster, "t"));
    assert!(cluster.run("status s").1.contains("  paused: no node takes over by itself until `resume`\n"));
    cluster.good("resume s");
    assert!(!is_paused(&mut cluster, "s") && is_paused(&mut cluster, "t"));
}

#[test]
fn a_node_that_is_gone_is_removed_while_the_owner_renews() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.pair();
    cluster.put("nodes/s/b", &NodeRecord { unix_ms: 1, ..node("b", "standby", 3) });
    cluster.bad("remove s a", "a owns s");
    let live = |etcd: &mut Etcd| {
        etcd.put("/twincache/c/nodes/s/a", &to_bytes(&node("a", "primary", 3)), LONG).unwrap();
    };
    let dry = cluster.own(live, || cluster.good("remove s b --dry-run"));
    assert_eq!(dry, "b holds 7 items, and is in sync; 1 other nodes remain\n");
    assert!(cluster.get::<NodeRecord>("nodes/s/b").is_some());
    cluster.own(live, || cluster.good("remove s b"));
    let record: ShardRecord = cluster.get("shards/s").unwrap();
    assert_eq!((record.members, record.nodes, record.owner.as_str()), (vec![], vec!["a".to_owned()], "a"));
    assert_eq!(cluster.get::<NodeRecord>("nodes/s/b"), None);
}

#[test]
fn the_topology_grows_at_its_end_and_counts_its_changes() {
    let Some(mut cluster) = Cluster::start() else { return };
    assert!(cluster.good("topology list").starts_with("no topology"));
    cluster.good("topology add s cache-1:11211");
    cluster.bad("topology remove s", "s is the only one");
    cluster.good("topology add t 10.0.0.2:11211");
    assert!(cluster.good("topology add t 10.0.0.2:11211").contains("is that already, in version 2"));
    cluster.good("topology add s cache-9:11211 --ip 10.0.0.9");
    let expected = "version 3\nSHARD  HOST      IP        PORT\ns      cache-9   10.0.0.9  11211\nt      10.0.0.2  10.0.0.2  11211\n";
    assert_eq!(cluster.good("topology list"), expected);
    cluster.good("topology remove s");
    let record: TopologyRecord = cluster.get("topology").unwrap();
    assert_eq!((record.version, record.shards.len(), record.shards[0].name.as_str()), (4, 1, "t"));
}

/// The sidecars and the servers have the number each in a place of its own.
#[test]
fn the_last_epoch_is_the_last_of_a_server() {
    assert_eq!(EPOCH_MAX, twincache::store::EPOCH_MAX);
}

/// A node of the shard `s`.
struct Node {
    server: Server,
    sidecar: Child,
}

impl Node {
    fn start(cluster: &Cluster, name: &str) -> Node {
        Node::start_with(cluster, name, &[])
    }

    fn start_with(cluster: &Cluster, name: &str, more: &[&str]) -> Node {
        let folder = Folder::new();
        let socket = folder.file("control");
        let server = Server::start_in(folder, &["-o", &format!("managed,control_socket={socket}")]);
        let sidecar = Command::new(env!("CARGO_BIN_EXE_twincache-sidecar"))
            .args(["--server", &format!("unix:{socket}"), "--etcd", &cluster.server.url, "--cluster", "c"])
            .args(["--shard", "s", "--node", name, "--advertise", &server.addr.to_string(), "--lease-ms", "2000"])
            .args(more)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the sidecar starts");
        Node { server, sidecar }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.sidecar.kill();
        let _ = self.sidecar.wait();
    }
}

/// What a server answers at once; nothing if it ends the connection.
fn answer(server: &Server, command: &str) -> String {
    let mut stream = TcpStream::connect(server.addr).expect("a connection");
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = [0; 1024];
    let sent = stream.write_all(format!("{command}\r\n").as_bytes());
    let len = sent.and_then(|()| stream.read(&mut buffer)).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

/// Nobody takes over by itself; an operator makes a node the owner, which has what it has.
#[test]
fn a_real_node_is_promoted_by_force() {
    let Some(cluster) = Cluster::start() else { return };
    let more = ["--bootstrap-wait", "1000"];
    let mut nodes = ["a", "b"].map(|name| Some(Node::start_with(&cluster, name, &more)));
    wait_for("a pair in good health", || (cluster.run("status s").0 == 0).then_some(()));
    let json: serde_json::Value = serde_json::from_str(&cluster.good("list --json")).unwrap();
    let is_b = json["shards"][0]["owner"] == "b";
    let (old, new) = if is_b { ("b", "a") } else { ("a", "b") };
    let line = nodes[usize::from(is_b)].as_ref().unwrap().server.connect().line("set key 0 0 5\r\nvalue");
    assert_eq!(line, "STORED");
    cluster
        .bad(&format!("promote s {new} --force"), &format!("{old} owns s and serves: use `switchover s --to {new}`"));
    cluster.good("pause s");
    // What is paused is looked at once a second.
    thread::sleep(Duration::from_millis(2500));
    nodes[usize::from(is_b)] = None;
    wait_for("the owner to be silent", || cluster.run("status s").1.contains("silent").then_some(()));
    thread::sleep(Duration::from_secs(4));
    let left = &nodes[usize::from(!is_b)].as_ref().unwrap().server;
    assert_eq!(answer(left, "mg key v"), "SERVER_ERROR not primary\r\n", "it is paused");
    cluster.bad(&format!("promote s {new}"), "say --force");
    let text = cluster.good(&format!("promote s {new} --force"));
    assert!(text.contains(&format!("s: {new} is primary, ")), "{text}");
    assert_eq!(left.connect().line("mg key v"), "VA 5\r\nvalue");
}

#[test]
fn a_real_pair_is_switched_over_and_back() {
    let Some(cluster) = Cluster::start() else { return };
    let nodes = [Node::start(&cluster, "a"), Node::start(&cluster, "b")];
    let await_good = || wait_for("a pair in good health", || (cluster.run("status s").0 == 0).then_some(()));
    await_good();
    let json: serde_json::Value = serde_json::from_str(&cluster.good("list --json")).unwrap();
    let owner = json["shards"][0]["owner"].as_str().unwrap().to_owned();
    let [old, new] = if owner == "a" { ["a", "b"] } else { ["b", "a"] };
    let server = |name: &str| &nodes[usize::from(name == "b")].server;
    assert_eq!(server(old).connect().line("set key 0 0 5\r\nvalue"), "STORED");
    wait_for("both to be shown with the item", || {
        let json: serde_json::Value = serde_json::from_str(&cluster.good("list --json")).unwrap();
        (0..2).all(|node| json["shards"][0]["nodes"][node]["items"] == 1).then_some(())
    });
    cluster.good("topology add s localhost:11211");
    let text = cluster.good("switchover s");
    println!("{text}");
    assert!(text.contains(&format!("s: {new} is primary, ")), "{text}");
    assert_eq!(server(new).connect().line("mg key v"), "VA 5\r\nvalue");
    // For a moment after its demotion it says nothing.
    wait_for("the old primary to refuse", || {
        (answer(server(old), "mg key v") == "SERVER_ERROR not primary\r\n").then_some(())
    });
    for name in [old, new] {
        wait_for("the topology", || {
            answer(server(name), "config get cluster").contains("\n1\nlocalhost||11211\n").then_some(())
        });
    }
    await_good();
    let text = cluster.good(&format!("switchover s --to {old}"));
    assert!(text.contains(&format!("s: {old} is primary, ")), "{text}");
    assert_eq!(server(old).connect().line("mg key v"), "VA 5\r\nvalue");
}

/// A port that was free.
fn free_address() -> String {
    format!("127.0.0.1:{}", spare_port())
}

#[test]
fn a_real_pair_is_checked_and_watched() {
    let Some(cluster) = Cluster::start() else { return };
    let http = [free_address(), free_address()];
    let mut nodes: Vec<Node> = [("a", &http[0]), ("b", &http[1])]
        .map(|(name, http)| Node::start_with(&cluster, name, &["--http", http]))
        .into();
    let await_code = |what: &str, wanted: i32| {
        wait_for(what, || Some(cluster.run("check").1).filter(|line| code_of(line) == wanted))
    };
    assert!(await_code("a pair in good health", 0).starts_with("TWINCACHE OK - shard s: all is well"));
    let sidecars = format!("check http://{} http://{}/", http[0], http[1]);
    wait_for("both sidecars to be healthy", || (cluster.run(&sidecars).0 == 0).then_some(()));
    let rows: serde_json::Value = serde_json::from_str(&cluster.good("top --json --interval 0.1")).unwrap();
    let roles: Vec<&str> = (0..2).map(|at| rows[at]["role"].as_str().expect("a role")).collect();
    assert!(roles.contains(&"primary") && roles.contains(&"standby"), "{roles:?}");
    let primary = roles.iter().position(|role| *role == "primary").unwrap();
    assert!(rows[primary]["lag_ms"].is_u64(), "{rows}");
    // The node that is not the owner goes, and then the other one.
    let mut standby = nodes.remove(1 - primary);
    standby.server.may_exit();
    common::signal(standby.server.pid(), "KILL");
    let line = await_code("the copy to be missed", 1);
    assert!(line.starts_with("TWINCACHE WARNING - shard s: "), "{line}");
    let named = format!("sidecar {}: HTTP/1.1 503", http[1 - primary]);
    let line = wait_for("its sidecar to say so", || {
        let (code, line, _) = cluster.run(&sidecars);
        (code == 2 && line.contains(&named)).then_some(line)
    });
    assert!(line.starts_with("TWINCACHE CRITICAL - "), "{line}");
    drop(nodes);
    let line = await_code("the owner to be missed", 2);
    assert!(line.contains("the owner is silent"), "{line}");
}

/// The exit code that the words of `check` stand for.
fn code_of(line: &str) -> i32 {
    let word = line.split(' ').nth(1).unwrap_or_default();
    ["OK", "WARNING", "CRITICAL"].iter().position(|known| *known == word).map_or(3, |at| at as i32)
}
