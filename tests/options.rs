//! The command line, signals and files of the real binary: what it refuses and how, and what it does to itself.
//!
//! As root every server gets `-u root` unless the test gives a `-u`.

mod common;

use common::{Folder, Server, is_root, under_test, wait_for};
use std::fs;
use std::io::{BufRead, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Runs the binary with these words until it exits by itself.
fn run(words: &[&str]) -> Output {
    let mut command = common::command(&under_test(), words);
    command.stdout(Stdio::piped());
    let mut child = command.spawn().expect("twincached");
    wait_for(&format!("{words:?} to exit"), || child.try_wait().unwrap());
    child.wait_with_output().unwrap()
}

fn answers(server: &Server, request: &str, expected: &str) {
    let mut conn = server.connect();
    conn.send(request.as_bytes());
    conn.expect(expected);
}

/// A process in the background; killed by its pid when dropped.
struct Daemon {
    pid: u32,
}

impl Daemon {
    /// The one that writes this pid file.
    fn of(path: &str) -> Daemon {
        let pid = wait_for("the pid file", || fs::read_to_string(path).ok());
        Daemon { pid: pid.trim().parse().expect("a pid") }
    }

    fn link(&self, name: &str) -> PathBuf {
        fs::read_link(format!("/proc/{}/{name}", self.pid)).expect(name)
    }

    fn stop(&self, signal: &str) {
        common::signal(self.pid, signal);
        wait_for("the daemon's end", || (!alive(self.pid)).then_some(()));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if alive(self.pid) {
            common::signal(self.pid, "KILL");
        }
    }
}

fn alive(pid: u32) -> bool {
    // A zombie that nobody has waited for is gone, as far as we care.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Start-ups that memcached 1.6.45 was recorded to refuse: words, exit code, first line on stderr.
const RECORDED: &[(&[&str], i32, &str)] = &[
    (&["-m", "0"], 64, "Cannot set item size limit higher than 1/2 of memory max."),
    (&["-I", "600m"], 64, "Cannot set item size limit higher than 1/2 of memory max."),
    (&["-I", "1500k"], 64, "-I (item_size_max: 1536000) must be evenly divisible by slab_chunk_max (bytes: 524288)"),
    (&["-o", "bogus"], 1, "Illegal suboption \"bogus\""),
    (&["-o", "hashpower=11"], 1, "Initial hashtable multiplier of 11 is too low"),
    (&["-n", "0"], 1, "Chunk size must be greater than 0"),
    (&["-f", "1"], 1, "Factor must be greater than 1"),
    (&["-B", "x"], 64, "Invalid value for binding protocol: x"),
    (&["-S", "-B", "ascii"], 64, "ERROR: You cannot allow the ASCII protocol while using SASL."),
    (&["-l", "notls:127.0.0.1"], 71, "'notls' option is valid only when SSL is enabled"),
    (&["-l", "tag[toolongtag]:127.0.0.1"], 71, "Listener tags must be between 1 and 8 characters: \"toolongtag\""),
    (&["-l", "proto[proxy]:127.0.0.1"], 71, "Server not built with proxy: \"proto[proxy\""),
    (&["-p", "70000"], 64, "ERROR: Invalid port number 70000."),
    (&["-D", ""], 1, "No delimiter specified"),
    (&["-o", "slab_sizes=10-20"], 64, "slab size 10 is out of valid range"),
    (&["-o", "temporary_ttl=5,no_lru_maintainer"], 64, "temporary_ttl requires lru_maintainer to be enabled"),
    (&["-o", "hot_lru_pct=50,warm_lru_pct=40"], 64, "hot_lru_pct + warm_lru_pct cannot be more than 80% combined"),
    (&["-N", "99"], 64, "Number of napi_ids(99) cannot be greater than number of threads(4)"),
    // Under its own name, this one.
    (&["--nosuch"], 1, "twincached: unrecognized option '--nosuch'"),
];

/// Refusals of this server alone, and those that were recorded with a library's words on stderr.
const REFUSED: &[(&[&str], i32, &str)] = &[
    (&["-Z"], 64, "Error loading the certificate chain: give -o ssl_chain_cert=FILE"),
    (
        &["-Z", "-o", "ssl_chain_cert=/nonexistent"],
        64,
        "Error loading the certificate chain: /nonexistent : No such file or directory (os error 2)",
    ),
    (
        &["-S"],
        1,
        "SASL (-S) needs passwords: set MEMCACHED_SASL_PWDB to a file with lines user:password. sasldb, saslauthd and \
         other sources of libsasl are not built in.",
    ),
    (&["-Y", "/nonexistent"], 1, "Could not open authfile [/nonexistent] for reading, error No such file or directory"),
    (
        &["-Y", "/a", "-B", "auto"],
        64,
        "ERROR: You cannot allow the BINARY protocol while using ascii authentication tokens.",
    ),
    (&["-o", "ext_path=/tmp/x:64m"], 1, "Illegal suboption \"ext_path=/tmp/x:64m\""),
    (
        &["-c", "2000000000"],
        71,
        "failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value.",
    ),
];

#[test]
fn refuses_what_memcached_refuses() {
    for (words, code, line) in RECORDED.iter().chain(REFUSED) {
        let output = run(words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().next()), (Some(*code), Some(*line)), "{words:?}");
    }
}

#[test]
fn compat_maxconns_too_low() {
    for words in [["-t", "4", "-c", "22"], ["-t", "1", "-c", "7"]] {
        let output = run(&[&words[..], &["-l", "127.0.0.1", "-p", "-1"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = "Maxconns setting is too low, use -c to increase.\n";
        assert_eq!((output.status.code(), stderr.as_str()), (Some(1), expected), "{words:?}");
    }
}

#[test]
fn serves_with_every_value_at_its_limit() {
    let cases: &[&[&str]] = &[
        &["-m", "2"],
        &["-m", "1000000"],
        &["-I", "1024m", "-m", "2048"],
        &["-I", "1k", "-o", "slab_chunk_max=1"],
        &["-f", "1.0001"],
        &["-f", "1e300"],
        &["-n", "1"],
        &["-n", "524288"],
        &["-L", "-M", "-C", "-R", "1", "-b", "0"],
        &["-t", "1", "-c", "9"],
        &["-t", "65"],
        &["-o", "hashpower=12,no_hashexpand"],
        &["-o", "hashpower=32"],
        &["-o", "no_modern"],
        &["-o", "slab_accounting=memcached,slab_sizes=96-200,track_sizes"],
        &["-o", "watcher_logbuf_size=0,worker_logbuf_size=0,read_buf_mem_limit=1"],
        &["-o", "hot_lru_pct=1,warm_lru_pct=79,hot_max_factor=0.0001,temporary_ttl=0,slab_automove=2"],
        &["-o", "lru_crawler_sleep=0,lru_crawler_tocrawl=4294967295,tail_repair_time=10,slab_automove_window=3"],
    ];
    for words in cases {
        let mut server = Server::start(words);
        answers(&server, "set a 1 0 3 noreply\r\nxyz\r\nmg a v f\r\n", "VA 3 f1\r\nxyz\r\n");
        assert_eq!(server.stop("TERM").0, Some(0), "{words:?}");
    }
}

/// With 300 MB to write into at most. Nothing here may take the memory of the machine that the tests run on.
#[test]
fn compat_large_pages_not_had() {
    let folder = Folder::new();
    let limited = folder.file("limited");
    // Written by a child: what this process has open for writing, another test's child may hold, and then it cannot run.
    let text = format!("#!/bin/sh\nulimit -d 300000\nexec {} \"$@\"\n", under_test());
    let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("sh").args(["-c", write, &limited, &text]).status().unwrap().success());
    let not_had = "Warning: Failed to allocate requested memory in one large chunk.\nWill allocate in smaller chunks\n";
    for (megabytes, is_warned) in [("1000000", true), ("500", false)] {
        let mut server = Server::start_program(&limited, &["-L", "-t", "1", "-m", megabytes], &[]);
        answers(&server, "set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
        assert!(server.memory_kb("VmRSS:") < 100_000);
        let (code, stderr) = server.stop("TERM");
        let (before, after) = stderr.split_at(stderr.find("Warning: Failed").expect("memcached's words"));
        assert_eq!((code, after), (Some(0), not_had));
        assert_eq!(before.starts_with("warning: -m 1000000 is more than the "), is_warned, "{stderr}");
    }
    // What there is, is taken.
    let server = Server::start_program(&limited, &["-L", "-t", "1", "-m", "100"], &[]);
    assert!(server.memory_kb("VmRSS:") > 100_000);
    assert_eq!(server.stderr(), "");
}

#[test]
fn prints_and_exits() {
    for (word, start) in [("-h", "memcached 1.6.45\n"), ("-V", "memcached 1.6.45\n"), ("-i", "memcached 1.6.45\n")] {
        let output = run(&[word]);
        assert!(output.status.success() && output.stderr.is_empty(), "{word}");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(start), "{word}");
    }
}

#[test]
fn a_taken_port_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let both = format!("127.0.0.2:0,127.0.0.1:{port}");
    for (words, interfaces) in [(&["-l", "127.0.0.1", "-p", &port][..], "127.0.0.1"), (&["-l", &both], &both)] {
        let expected = format!(
            "failed to listen on one of interface(s) {interfaces}: 127.0.0.1 port {port}: Address already in use\n"
        );
        // In the background as well: whoever starts it learns what became of it.
        for background in [&[][..], &["-d"]] {
            let output = run(&[words, background].concat());
            assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
            assert_eq!(output.status.code(), Some(71), "{words:?} {background:?}");
        }
    }
}

#[test]
fn signals_stop_it() {
    for (signal, expected) in
        [("TERM", "Exiting normally\n"), ("INT", "Exiting normally\n"), ("USR1", "Gracefully stopping\n")]
    {
        let mut server = Server::start(&["-v"]);
        let (code, stderr) = server.stop(signal);
        assert_eq!(code, Some(0), "{signal}: {stderr}");
        assert!(stderr.ends_with(expected), "{signal}: {stderr}");
    }
    // As memcached, it says nothing by itself.
    assert_eq!(Server::start(&[]).stop("TERM"), (Some(0), String::new()));
    assert_eq!(Server::start(&[]).stop("USR1"), (Some(0), "Gracefully stopping\n".to_owned()));
}

/// A program that runs at a terminal of its own.
fn at_a_terminal(words: &str) -> Option<std::process::Child> {
    let user = if is_root() { "-u root" } else { "" };
    let typed = format!("exec {} {user} -l 127.0.0.1 -p -1 {words}", under_test());
    let mut script = Command::new("script");
    script.args(["-q", "-e", "-c", &typed, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    script.spawn().ok()
}

#[test]
fn a_person_at_a_terminal_is_told_what_runs() {
    let Some(mut script) = at_a_terminal("") else {
        eprintln!("skipped: the program script is not installed");
        return;
    };
    let mut shown = std::io::BufReader::new(script.stdout.take().unwrap());
    let mut line = String::new();
    shown.read_line(&mut line).unwrap();
    assert!(line.starts_with("twincached 0.1.0, which serves 127.0.0.1:"), "{line}");
    assert!(line.ends_with(" with 64 MB and 4 threads; Ctrl-C ends it\r\n"), "{line}");
    script.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let mut rest = String::new();
    shown.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), script.wait().unwrap().code()), ("^C", Some(0)));
}

#[test]
fn a_person_who_sends_it_to_the_background_is_told_its_pid() {
    let folder = Folder::new();
    let path = folder.file("pid");
    let Some(script) = at_a_terminal(&format!("-d -P {path}")) else {
        eprintln!("skipped: the program script is not installed");
        return;
    };
    let shown = String::from_utf8(script.wait_with_output().unwrap().stdout).unwrap();
    let daemon = Daemon::of(&path);
    assert!(shown.ends_with(&format!(" threads; kill {} ends it\r\n", daemon.pid)), "{shown}");
    daemon.stop("TERM");
}

#[test]
fn other_signals_do_not() {
    let mut server = Server::start(&[]);
    for signal in ["HUP", "PIPE"] {
        common::signal(server.pid(), signal);
    }
    answers(&server, "mn\r\n", "MN\r\n");
    assert_eq!(server.stop("TERM").0, Some(0));
}

/// A process that sends signals all the time does not stop the clock.
#[test]
fn signals_do_not_stop_the_clock() {
    let server = Server::start(&[]);
    answers(&server, "set a 0 1 1\r\nx\r\n", "STORED\r\n");
    let storm = format!("while kill -HUP {} 2>/dev/null; do :; done", server.pid());
    let mut storm = Command::new("sh").args(["-c", &storm]).spawn().expect("sh");
    wait_for("the item expires", || {
        let reply = server.connect().ask(b"mg a\r\nmn\r\n", b"MN\r\n");
        (reply == b"EN\r\nMN\r\n").then_some(())
    });
    storm.kill().and_then(|()| storm.wait()).expect("it ends");
}

#[test]
fn the_shutdown_command_is_a_signal() {
    for (command, expected) in
        [("shutdown\r\n", "Exiting normally\n"), ("shutdown graceful\r\n", "Gracefully stopping\n")]
    {
        let mut server = Server::start(&["-A", "-v"]);
        server.connect().send(command.as_bytes());
        let (code, stderr) = server.exit();
        assert_eq!(code, Some(0), "{command}: {stderr}");
        assert!(stderr.ends_with(expected), "{command}: {stderr}");
    }
}

#[test]
fn the_pid_file_stays_in_the_foreground() {
    let folder = Folder::new();
    let path = folder.file("pid");
    let mut server = Server::start_in(folder, &["-P", &path]);
    let pid = wait_for("the pid file", || fs::read_to_string(&path).ok());
    assert_eq!(pid, format!("{}\n", server.pid()));
    assert_eq!(server.stop("TERM").0, Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), pid);
    assert!(!Path::new(&format!("{path}.tmp")).exists());
}

#[test]
fn a_pid_file_of_a_running_process_draws_a_warning() {
    let folder = Folder::new();
    let path = folder.file("pid");
    fs::write(&path, format!("{}\n", std::process::id())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let mut server = Server::start_in(folder, &["-P", &path]);
    wait_for("the new pid", || fs::read_to_string(&path).ok().filter(|text| text.trim() == server.pid().to_string()));
    let expected = format!("WARNING: The pid file contained the following (running) pid: {}\n", std::process::id());
    assert_eq!(server.stop("TERM"), (Some(0), expected));
}

#[test]
fn the_daemon_leaves_nothing_but_its_pid_file() {
    let folder = Folder::new();
    let path = folder.file("pid");
    let mut server = Server::start_in(folder, &["-d", "-P", &path]);
    let daemon = Daemon::of(&path);
    assert_eq!(server.exit(), (Some(0), String::new()), "the process that was started");
    assert_ne!(daemon.pid, server.pid());
    assert_eq!(daemon.link("cwd"), Path::new("/"));
    for descriptor in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(daemon.link(descriptor), Path::new("/dev/null"), "{descriptor}");
    }
    answers(&server, "mn\r\n", "MN\r\n");
    daemon.stop("TERM");
    assert!(!Path::new(&path).exists(), "the pid file is still there");
}

#[test]
fn a_daemon_that_may_dump_core_stays_in_its_directory() {
    let folder = Folder::new();
    let (path, here) = (folder.file("pid"), folder.path().canonicalize().unwrap());
    let mut server = Server::start_in(folder, &["-d", "-r", "-v", "-P", &path]);
    server.may_exit();
    let daemon = Daemon::of(&path);
    assert_eq!(daemon.link("cwd"), here);
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid)).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a core limit");
    assert!(!core.contains(" 0 "), "{core}");
    daemon.stop("INT");
}

#[test]
fn the_port_file_has_a_line_per_socket() {
    let folder = Folder::new();
    let ports = folder.file("ports");
    let mut server = Server::spawn(folder, &["-l", "127.0.0.1,127.0.0.2", "-p", "-1"]);
    assert_eq!(server.ports().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["TCP INET"; 2]);
    assert!(!Path::new(&format!("{ports}.lck")).exists());
    assert_eq!(server.stop("TERM").0, Some(0));
}

#[test]
fn a_unix_socket_has_the_mode_of_its_mask() {
    let folder = Folder::new();
    let path = folder.file("socket");
    let mut server = Server::spawn(folder, &["-s", &path, "-a", "0750"]);
    let mut stream = wait_for("the socket", || UnixStream::connect(&path).ok());
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o750);
    stream.write_all(b"mn\r\nquit\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "MN\r\n");
    assert_eq!(server.stop("TERM"), (Some(0), String::new()));
    assert!(Path::new(&path).exists(), "memcached leaves it, too");
}

#[test]
fn there_are_descriptors_for_every_connection() {
    let server = Server::start(&["-c", "5000"]);
    let soft = server.proc_line("limits", "Max open files");
    let soft: u64 = soft.split_whitespace().next().unwrap().parse().unwrap();
    assert!(soft >= 5000, "{soft}");
}

#[test]
fn memory_is_locked_or_a_warning_given() {
    let mut server = Server::start(&["-k"]);
    let locked = server.proc_line("status", "VmLck:");
    let limit = server.proc_line("limits", "Max locked memory");
    let (code, stderr) = server.stop("TERM");
    assert_eq!(code, Some(0));
    if limit.starts_with("unlimited") {
        assert!(locked != "0 kB" || stderr.starts_with("warning: -k invalid, mlockall() failed: "), "{stderr}");
    } else {
        assert!(stderr.starts_with("warning: -k invalid, mlockall() failed: only "), "{stderr}");
        assert_eq!(locked, "0 kB");
    }
}

#[test]
fn root_needs_a_user() {
    if !is_root() {
        eprintln!("skipped: only root can give up being root");
        return;
    }
    let output = Command::new(under_test()).args(["-l", "127.0.0.1", "-p", "-1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(output.stderr, b"must add '-u root' to start as root\n");
    assert_eq!(run(&["-u", ""]).status.code(), Some(64));
    let output = run(&["-u", "nosuchuser"]);
    assert_eq!(output.status.code(), Some(67));
    assert_eq!(output.stderr, b"can't find the user nosuchuser to switch to\n");
}

#[test]
fn root_becomes_the_user() {
    if !is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let folder = Folder::new();
    let path = folder.file("pid");
    let mut server = Server::start_in(folder, &["-u", "nobody", "-P", &path]);
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let fields: Vec<&str> = passwd.lines().find(|line| line.starts_with("nobody:")).unwrap().split(':').collect();
    let four_times = |id: &str| [id; 4].join("\t");
    assert_eq!(server.proc_line("status", "Uid:"), four_times(fields[2]));
    assert_eq!(server.proc_line("status", "Gid:"), four_times(fields[3]));
    assert_eq!(server.proc_line("status", "Groups:"), "");
    wait_for("the pid file", || fs::metadata(&path).ok());
    assert_eq!(fs::metadata(&path).unwrap().uid().to_string(), fields[2]);
    assert_eq!(fs::metadata(server.folder.file("ports")).unwrap().uid().to_string(), fields[2]);
    answers(&server, "mn\r\n", "MN\r\n");
    assert_eq!(server.stop("TERM").0, Some(0));
}

/// As recorded of memcached.
#[test]
fn very_verbose_shows_slab_classes() {
    let mut server = Server::start(&["-vv", "-o", "slab_accounting=memcached"]);
    let (_, log) = server.stop("TERM");
    let classes: Vec<&str> = log.lines().filter(|line| line.starts_with("slab class")).collect();
    assert_eq!(classes.len(), 39);
    assert_eq!(classes[0], "slab class   1: chunk size        96 perslab   10922");
    assert_eq!(classes[38], "slab class  39: chunk size    524288 perslab       2");
}

#[test]
fn very_verbose_shows_commands_and_replies() {
    let mut server = Server::start(&["-vv", "-o", "slab_accounting=memcached"]);
    answers(&server, "set a 0 0 6\r\nsecret\r\nget a b\r\n", "STORED\r\nVALUE a 0 6\r\nsecret\r\nEND\r\n");
    answers(&server, "mg a v\r\n", "VA 6\r\nsecret\r\n");
    let mut binary = server.connect();
    binary.send(&common::Packet::new(0x0a, b"", b"").request());
    binary.read_until(common::DEADLINE, |got| got.len() == common::HEADER);
    let (_, log) = server.stop("TERM");
    for line in [
        " set a 0 0 6",
        " STORED",
        " get a b",
        " END",
        " mg a v",
        " VA 6",
        " Read binary protocol data:",
        "    0x80 0x0a 0x00 0x00",
        " Writing bin response:",
        "slab class   1: chunk size        96 perslab   10922",
    ] {
        assert!(log.lines().any(|logged| logged.ends_with(line)), "{line:?} is missing in:\n{log}");
    }
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn very_verbose_says_a_long_get_once_and_not_all_of_it() {
    const KEYS: usize = 50_000;
    let mut server = Server::start(&["-vv"]);
    let mut conn = server.connect();
    conn.line("set k 0 0 6\r\nsecret");
    conn.send(format!("get{}\r\nget {}\r\nmn\r\n", " k".repeat(KEYS), "k ".repeat(1000)).as_bytes());
    conn.read_until(common::DEADLINE, |got| got.ends_with(b"MN\r\n"));
    let (_, log) = server.stop("TERM");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(" get k")).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].ends_with("k k ...") && lines[0].len() < 2100, "{}", lines[0]);
    assert!(lines[1].ends_with("k ".repeat(1000).trim_end()), "{}", lines[1]);
    assert_eq!(log.lines().filter(|line| line.ends_with(" END")).count(), 2);
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn check_says_all_that_would_keep_it_from_starting() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("{address},127.0.0.1:{}", address.port());
    let words =
        ["--check", "-l", &listen, "-Y", "/nonexistent", "-o", "control_socket=/nonexistent/socket", "-m", "999999999"];
    let output = run(&words);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(1), 5), "{stderr}");
    assert!(lines[0].starts_with("warning: -m 999999999 is more than the "), "{stderr}");
    assert!(lines[1].starts_with("Could not open authfile [/nonexistent]"), "{stderr}");
    assert!(lines[2].ends_with("/nonexistent/socket: there is no such folder"), "{stderr}");
    assert!(lines[3..].iter().all(|line| line.contains("use")), "{stderr}");
    let output = run(&["--check", "-c", "5", "-l", "127.0.0.1", "-p", "-1"]);
    assert_eq!(output.stderr, b"Maxconns setting is too low, use -c to increase.\n");
    let output = run(&["-p", "-1", "--check", "-U", "-1", "-l", "127.0.0.1"]);
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
    assert_eq!(output.stdout, b"a server would start with these options\n");
    assert_eq!(run(&["--check", "-p", "70000"]).stderr, b"ERROR: Invalid port number 70000.\n");
}
