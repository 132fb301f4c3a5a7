//! The tools that people watch memcached with, each against twincached and against memcached after the same requests:
//! munin's plugin, collectd, netdata's collector, nagios's check and the exporter of Prometheus.
//!
//! ```text
//!   the same requests ──> twincached ──┐
//!                    └──> memcached ───┴──> a tool ──> figures by name: the same names, and the same figures but for
//!                                                      those that are a server's own affair
//! ```
//!
//! A tool that is not installed is named in a line and skipped; without memcached, the figures of twincached are looked
//! at alone. The exporter is seldom packaged: what it makes of which row stands in `data/memcached-exporter.txt`, and
//! where the program itself is in PATH, it is asked as well.

mod common;

use common::{Conn, Folder, Server, Sidecar, spare_port, until};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Figures by name.
type Figures = BTreeMap<String, String>;

/// Servers that have had the same requests: twincached, and memcached where it is installed.
struct Watched(Vec<(&'static str, Server)>);

impl Watched {
    fn start() -> Watched {
        let (options, same_sizes) = (["-m", "64", "-t", "2"], ["-o", "slab_accounting=memcached"]);
        let ours = ("ours", Server::start(&[&options[..], &same_sizes].concat()));
        let theirs = Server::reference(&options).map(|server| ("theirs", server));
        let servers: Vec<_> = [ours].into_iter().chain(theirs).collect();
        servers.iter().for_each(|(_, server)| use_it(&mut server.connect()));
        Watched(servers)
    }

    /// Each server's figures have the same names, and the same values where `own` does not say otherwise.
    fn compare(&self, figures: &[Figures], own: &[&str]) {
        let [ours, theirs] = figures else { return eprintln!("memcached is not installed: nothing to compare with") };
        let names = |of: &Figures| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(ours), names(theirs));
        for (name, value) in ours {
            assert!(own.contains(&name.as_str()) || value == &theirs[name], "{name}: {value} is not {}", theirs[name]);
        }
    }
}

/// One of each, so that every counter has a number of its own.
fn use_it(conn: &mut Conn) {
    let sets: String = (0..20).map(|i| format!("set key-{i} 0 0 5 noreply\r\n12345\r\n")).collect();
    conn.send(sets.as_bytes());
    assert_eq!(conn.line(&format!("set larger 0 0 70\r\n{:70}", "")), "STORED");
    for i in 0..33 {
        conn.ask(format!("get key-{i}\r\n").as_bytes(), b"END\r\n");
    }
    let cas = conn.ask(b"gets key-0\r\n", b"END\r\n");
    let unique = String::from_utf8(cas).unwrap().split_whitespace().nth(4).expect("a cas").to_owned();
    assert_eq!(conn.line(&format!("cas key-0 0 0 1 {unique}\r\n1")), "STORED");
    for (request, times, reply) in [
        ("cas key-0 0 0 1 1\r\n2", 2, "EXISTS"),
        ("cas none 0 0 1 1\r\n2", 3, "NOT_FOUND"),
        ("incr key-0 1", 4, ""),
        ("incr none 1", 5, "NOT_FOUND"),
        ("decr key-0 1", 3, ""),
        ("decr none 1", 6, "NOT_FOUND"),
        ("touch key-1 0", 7, "TOUCHED"),
        ("touch none 0", 8, "NOT_FOUND"),
        ("delete none", 9, "NOT_FOUND"),
        ("delete key-19", 1, "DELETED"),
        ("flush_all 3600", 1, "OK"),
    ] {
        for _ in 0..times {
            let line = conn.line(request);
            assert!(reply.is_empty() || line == reply, "{request}: {line}");
        }
    }
}

/// Whether a file is there; a line says so if not.
fn installed(path: &str) -> bool {
    let is_there = Path::new(path).exists();
    if !is_there {
        eprintln!("{path} is not installed: skipped");
    }
    is_there
}

/// A program that is ended when dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Running {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Running(quiet.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn munin_draws_it() {
    const PLUGIN: &str = "/usr/share/munin/plugins/memcached_";
    if !installed(PLUGIN) || !installed("/usr/share/perl5/Cache/Memcached.pm") {
        return;
    }
    let (watched, folder) = (Watched::start(), Folder::new());
    let graphs = ["rates", "bytes", "counters"];
    // It goes by the name that it is called by.
    let links = graphs.map(|graph| folder.file(&format!("memcached_{graph}")));
    links.iter().for_each(|link| symlink(PLUGIN, link).expect("a link"));
    let figures_of = |server: &Server| {
        let ask = |link: &String, words: &[&str]| {
            let port = server.addr.port().to_string();
            let output = Command::new(link).args(words).env("host", "127.0.0.1").env("port", port).output();
            let output = output.expect("perl");
            assert!(output.status.success(), "{link} {words:?}: {output:?}");
            String::from_utf8(output.stdout).expect("text")
        };
        let mut figures = Figures::new();
        for link in &links {
            let (config, fetched) = (ask(link, &["config"]), ask(link, &[]));
            let drawn = config.lines().filter_map(|line| Some(line.split_once(".label ")?.0.to_owned()));
            let values = fetched.lines().filter_map(|line| line.split_once(".value "));
            let values: Figures = values.map(|(name, value)| (name.into(), value.into())).collect();
            assert_eq!(drawn.collect::<BTreeSet<_>>(), values.keys().cloned().collect(), "{config}{fetched}");
            figures.extend(values);
        }
        figures
    };
    let all: Vec<_> = watched.0.iter().map(|(_, server)| figures_of(server)).collect();
    for (name, value) in [("cache_hits", "21"), ("cache_misses", "13"), ("cmd_set", "27"), ("curr_items", "20")] {
        assert_eq!(all[0][&format!("memcache_{name}")], value, "{name}");
    }
    // Of bytes, those of earlier statistics are told.
    watched.compare(&all, &["memcache_bytes_written"]);
}

#[test]
fn collectd_reads_it() {
    const PROGRAM: &str = "/usr/sbin/collectd";
    if !installed(PROGRAM) || !installed("/usr/lib/collectd/memcached.so") {
        return;
    }
    let (watched, folder) = (Watched::start(), Folder::new());
    let base = folder.path().display();
    let mut config = format!(
        "BaseDir \"{base}\"\nPIDFile \"{base}/pid\"\nHostname \"here\"\nFQDNLookup false\nInterval 1\n\
         LoadPlugin memcached\nLoadPlugin csv\n<Plugin csv>\nDataDir \"{base}/csv\"\n</Plugin>\n<Plugin memcached>\n"
    );
    for (name, server) in &watched.0 {
        let port = server.addr.port();
        let instance =
            format!("<Instance \"{name}\">\nHost \"h\"\nAddress \"127.0.0.1\"\nPort \"{port}\"\n</Instance>\n");
        config.push_str(&instance);
    }
    fs::write(folder.file("conf"), config + "</Plugin>\n").unwrap();
    let _collectd = Running::start(Command::new(PROGRAM).args(["-f", "-C", &folder.file("conf")]));
    // A line of names, and a line for each time that all was read.
    let read = |name: &str| -> Figures {
        let files = fs::read_dir(folder.path().join("csv/h").join(format!("memcached-{name}")));
        let files = files.into_iter().flatten().flatten().map(|entry| entry.path());
        let rows = files.filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            let (_, values) = text.lines().nth(2)?.split_once(',')?;
            // Its end is the date.
            let name = path.file_name()?.to_str()?.rsplitn(4, '-').nth(3)?.to_owned();
            Some((name, values.to_owned()))
        });
        rows.collect()
    };
    until("collectd to read all twice", || watched.0.iter().all(|(name, _)| read(name).len() >= 23));
    let all: Vec<_> = watched.0.iter().map(|(name, _)| read(name)).collect();
    for (name, value) in [("ops-hits", "21"), ("ops-misses", "13"), ("ops-decr_misses", "6"), ("command-touch", "15")] {
        let read: f64 = all[0][&format!("memcached_{name}")].parse().expect("a number");
        assert_eq!(read.to_string(), value, "{name}");
    }
    // memcached counts threads of its own kind.
    watched.compare(&all, &["memcached_octets", "ps_count", "ps_cputime", "uptime"]);
}

#[test]
fn netdata_charts_it() {
    const PLUGIN: &str = "/usr/lib/netdata/plugins.d/python.d.plugin";
    if !installed(PLUGIN) || !installed("/usr/lib/netdata/python.d/memcached.chart.py") {
        return;
    }
    let (watched, folder) = (Watched::start(), Folder::new());
    fs::create_dir(folder.path().join("python.d")).unwrap();
    let jobs = watched.0.iter().map(|(name, server)| {
        format!("{name}: {{name: {name}, host: 127.0.0.1, port: {}, update_every: 1}}\n", server.addr.port())
    });
    fs::write(folder.file("python.d/memcached.conf"), jobs.collect::<String>()).unwrap();
    fs::write(folder.file("python.d.conf"), "default_run: no\nmemcached: yes\n").unwrap();
    let mut plugin = Command::new(PLUGIN);
    plugin.args(["memcached", "1", "nolock"]).env("NETDATA_USER_CONFIG_DIR", folder.path());
    plugin.env("NETDATA_STOCK_CONFIG_DIR", "/usr/lib/netdata/conf.d").env("NETDATA_LIB_DIR", folder.path());
    let mut plugin = Running::start(&mut plugin);
    let mut lines = BufReader::new(plugin.0.stdout.take().expect("a pipe")).lines().map(|line| line.expect("text"));
    // The last chart of a job ends what it has to say in a second.
    let (mut charts, mut values, mut waiting) = (BTreeSet::new(), BTreeMap::new(), watched.0.len());
    let mut chart = String::new();
    while waiting > 0 {
        let line = lines.next().expect("the plugin goes on");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["CHART", name, ..] if name.starts_with("memcached_") => chart = name.to_owned(),
            ["BEGIN", name, ..] => chart = name.to_owned(),
            ["DIMENSION", name, ..] if chart.starts_with("memcached_") => _ = charts.insert(format!("{chart} {name}")),
            ["SET", name, "=", value] => _ = values.insert(format!("{chart} {name}"), value.to_owned()),
            ["END"] if chart.ends_with(".touch_rate") => waiting -= 1,
            _ => {}
        }
    }
    values.retain(|name, _| name.starts_with("memcached_"));
    assert_eq!(charts, values.keys().cloned().collect(), "each line of a chart has its figure");
    let of = |server: &str| -> Figures {
        let prefix = format!("memcached_{server}.");
        values.iter().filter_map(|(name, value)| Some((name.strip_prefix(&prefix)?.into(), value.clone()))).collect()
    };
    let all: Vec<_> = watched.0.iter().map(|(name, _)| of(name)).collect();
    for (name, value) in [("get 'get_hits'", "21"), ("cas 'cas_misses'", "3"), ("touch 'touch_misses'", "8")] {
        assert_eq!(all[0][name], value, "{name} {:?}", all[0]);
    }
    watched.compare(&all, &["net 'bytes_written'"]);
}

/// Newer collectors of netdata are written in Go and take these rows of `stats`; a row that is not a number is lost.
#[test]
fn netdata_finds_every_row() {
    let rows = "limit_maxbytes bytes bytes_read bytes_written cas_badval cas_hits cas_misses cmd_get cmd_set cmd_touch \
        curr_connections curr_items decr_hits decr_misses delete_hits delete_misses evictions get_hits get_misses \
        incr_hits incr_misses reclaimed rejected_connections total_connections total_items touch_hits touch_misses";
    let server = Server::start(&[]);
    let stats: BTreeMap<_, _> = server.connect().stats("").into_iter().collect();
    for row in rows.split_whitespace() {
        assert!(stats.get(row).is_some_and(|value| value.parse::<i64>().is_ok()), "{row}: {:?}", stats.get(row));
    }
}

/// It keeps what it has seen in the cache itself and says how that went since; here an hour passes by hand.
#[test]
fn nagios_checks_it() {
    const CHECK: &str = "/usr/lib/nagios/plugins/check_memcached";
    if !installed(CHECK) {
        return;
    }
    if Command::new(CHECK).arg("-h").output().is_ok_and(|output| output.status.code() == Some(127)) {
        return eprintln!("{CHECK} lacks its libmemcached: skipped");
    }
    let watched = Watched::start();
    let check = |server: &Server, ratio: &str| {
        let port = server.addr.port().to_string();
        let output = Command::new(CHECK).args(["-H", "127.0.0.1", "-p", &port, "-w", ratio]).output().expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let mut all = Vec::new();
    for (_, server) in &watched.0 {
        let (status, said) = check(server, "1");
        assert!(status == Some(0) && said.starts_with("OK: "), "{status:?} {said}");
        let mut conn = server.connect();
        let kept = String::from_utf8(conn.ask(b"get check_memcached\r\n", b"END\r\n")).unwrap();
        let mut fields: Vec<String> = kept.lines().nth(1).expect("a history").split(' ').map(str::to_owned).collect();
        let seen: u64 = fields[0].strip_prefix("time=").expect("a time").parse().expect("seconds");
        fields[0] = format!("time={}", seen - 3600);
        let older = fields.join(" ") + "\n";
        let set = format!("set check_memcached 0 0 {}\r\n{older}", older.len());
        assert_eq!(conn.line(&set), "STORED");
        for _ in 0..10 {
            conn.ask(b"get key-0 none key-1\r\n", b"END\r\n");
        }
        let verdicts = ["1", "5"].map(|ratio| check(server, ratio));
        let codes = [verdicts[0].0, verdicts[1].0];
        assert_eq!(codes, [Some(0), Some(1)], "{verdicts:?}");
        let figures = verdicts.map(|(_, said)| said.split("time=").next().unwrap_or("").to_owned());
        all.push(["good", "bad"].into_iter().map(str::to_owned).zip(figures).collect());
    }
    watched.compare(&all, &[]);
}

/// What the exporter makes of which row: statistic, row, kind, metric and labels.
fn exporter_table() -> impl Iterator<Item = Vec<&'static str>> {
    let lines = include_str!("data/memcached-exporter.txt").lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(' ').collect())
}

/// A metric with its labels, in one order, and its value.
type Samples = BTreeMap<String, f64>;

/// What a page of metrics says: samples, and the kinds of the families.
fn parse(page: &str) -> (Samples, BTreeMap<String, String>) {
    let (mut samples, mut kinds) = (Samples::new(), BTreeMap::new());
    for line in page.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            kinds.insert(name.to_owned(), kind.to_owned());
        } else if let Some((series, value)) = line.rsplit_once(' ').filter(|_| line.starts_with("memcached_")) {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let mut labels: Vec<_> = labels.trim_end_matches('}').split(',').collect();
            labels.sort_unstable();
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            samples.insert(format!("{name} {}", labels.join(",")).trim_end().to_owned(), value);
        }
    }
    (samples, kinds)
}

/// What the exporter would say of a server now: samples, and the kinds of the families.
fn exported(conn: &mut Conn) -> (Samples, BTreeMap<String, String>) {
    let (mut samples, mut kinds) = (Samples::new(), BTreeMap::new());
    let told: BTreeMap<&str, Figures> = ["general", "settings", "items", "slabs"]
        .map(|name| (name, conn.stats(if name == "general" { "" } else { name }).into_iter().collect()))
        .into();
    for words in exporter_table() {
        let [statistic, row, kind, metric, labels @ ..] = &words[..] else { panic!("{words:?}") };
        for (class, rows) in by_class(&told[statistic]) {
            let class = class.map(|class| format!("slab={class}"));
            let version =
                rows.get("version").filter(|_| *row == "(version)").map(|version| format!("version={version}"));
            let Some(value) = value_of(&rows, row) else { continue };
            let labels = labels.iter().map(|label| label.to_string()).chain(class).chain(version);
            let mut labels: Vec<_> = labels.map(|label| label.replacen('=', "=\"", 1) + "\"").collect();
            labels.sort_unstable();
            samples.insert(format!("{metric} {}", labels.join(",")).trim_end().to_owned(), value);
            kinds.entry((*metric).to_owned()).or_insert_with(|| (*kind).to_owned());
        }
    }
    (samples, kinds)
}

/// Rows `[items:]CLASS:ROW` by class; those without one first.
fn by_class(rows: &Figures) -> BTreeMap<Option<u8>, Figures> {
    let mut classes: BTreeMap<Option<u8>, Figures> = BTreeMap::new();
    for (name, value) in rows {
        let in_class = name.strip_prefix("items:").unwrap_or(name).split_once(':');
        let (class, row) = match in_class.and_then(|(class, row)| Some((class.parse().ok()?, row))) {
            Some((class, row)) => (Some(class), row),
            None => (None, &name[..]),
        };
        classes.entry(class).or_default().insert(row.to_owned(), value.clone());
    }
    classes
}

fn value_of(rows: &Figures, row: &str) -> Option<f64> {
    let number = |row: &str| rows.get(row)?.parse::<f64>().ok();
    match row {
        "(version)" => rows.get("version").map(|_| 1.0),
        "(sets)" => {
            Some(number("cmd_set")? - number("cas_hits")? - number("cas_misses").unwrap_or(0.0) - number("cas_badval")?)
        }
        _ => match rows.get(row)?.as_str() {
            "yes" => Some(1.0),
            "no" => Some(0.0),
            _ => number(row),
        },
    }
}

/// What is not between these, or is not there at all.
fn differences(before: &Samples, shown: &Samples, after: &Samples) -> Vec<String> {
    let differs = |(name, from): (&String, &f64)| {
        let to = after.get(name).unwrap_or(from);
        let is_between = |value: &&f64| (from.min(*to)..=from.max(*to)).contains(value);
        let found = shown.get(name);
        found.filter(is_between).is_none().then(|| format!("{name}: {found:?} is not in {from}..{to}"))
    };
    before.iter().filter_map(differs).collect()
}

/// These would break Prometheus's rules, which want `_total` at the end of a counter: they are gauges here.
const OTHER_KIND: [&str; 6] = [
    "memcached_uptime_seconds",
    "memcached_slab_items_evicted_time_seconds",
    "memcached_slab_items_moves_to_cold",
    "memcached_slab_items_moves_to_warm",
    "memcached_slab_items_moves_within_lru",
    "memcached_slab_mem_requested_bytes",
];

/// A sidecar tells again what it has asked its server less than a second ago.
const OLDEST: Duration = Duration::from_millis(1100);

#[test]
fn nobody_misses_the_exporter() {
    let folder = Folder::new();
    let control = format!("control_socket={}", folder.file("control"));
    // Without it, nothing is told of TEMP.
    let server = Server::start(&["-m", "64", "-t", "2", "-o", "temporary_ttl=61", "-o", &control]);
    use_it(&mut server.connect());
    let sidecar = Sidecar::start_alone(folder.file("control"), &["--http", "127.0.0.1:0"]);
    let mut conn = server.connect();
    let mut found = Vec::new();
    for _ in 0..5 {
        let (before, kinds) = exported(&mut conn);
        std::thread::sleep(OLDEST);
        let (shown, our_kinds) = parse(&sidecar.page("/metrics"));
        let (after, _) = exported(&mut conn);
        let missing = exporter_table().find(|words| !kinds.contains_key(words[3]));
        assert_eq!(missing, None, "the server has a row for each metric");
        for (name, kind) in kinds {
            let expected = if OTHER_KIND.contains(&name.as_str()) { "gauge" } else { &kind };
            assert_eq!(our_kinds.get(&name).map(String::as_str), Some(expected), "{name}");
        }
        let classes = before.keys().filter(|name| name.starts_with("memcached_slab_current_items")).count();
        assert_eq!(classes, 2, "{before:#?}");
        found = differences(&before, &shown, &after);
        if found.is_empty() {
            break;
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    compare_with_program(&server, &sidecar);
}

/// The same with the exporter itself, where there is one.
fn compare_with_program(server: &Server, sidecar: &Sidecar) {
    let names = ["prometheus-memcached-exporter", "memcached_exporter"];
    let folders = std::env::var("PATH").unwrap_or_default();
    let mut programs = folders.split(':').flat_map(|folder| names.map(|name| format!("{folder}/{name}")));
    let Some(program) = programs.find(|path| Path::new(path).exists()) else {
        return eprintln!("memcached_exporter is not installed: only the table of what it does was compared");
    };
    let at = SocketAddr::from(([127, 0, 0, 1], spare_port()));
    let words = [format!("--memcached.address={}", server.addr), format!("--web.listen-address={at}")];
    let _exporter = Running::start(Command::new(program).args(words));
    until("the exporter to listen", || std::net::TcpStream::connect(at).is_ok());
    let mut found = Vec::new();
    for _ in 0..5 {
        let (before, _) = parse(&common::get(at, "/metrics"));
        std::thread::sleep(OLDEST);
        let (shown, _) = parse(&sidecar.page("/metrics"));
        let (after, _) = parse(&common::get(at, "/metrics"));
        // What it says of itself is not of the server, and it counts its own connection.
        let own = |name: &str| name.starts_with("memcached_exporter_") || name == "memcached_current_connections";
        let of_server = before.into_iter().filter(|(name, _)| !own(name));
        found = differences(&of_server.collect(), &shown, &after);
        if found.is_empty() {
            return;
        }
    }
    panic!("{found:#?}");
}
