//! What the programs tell the service manager, and what they write to its journal.

mod common;

use common::{Folder, Running, Server, freeze, is_root, signal, under_test, until, wait_for};

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where notes arrive.
struct Manager {
    folder: Folder,
    socket: UnixDatagram,
}

impl Manager {
    fn new() -> Manager {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.file("notify")).unwrap();
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        Manager { folder, socket }
    }

    fn path(&self) -> String {
        self.folder.file("notify")
    }

    fn note(&self) -> String {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).expect("a note");
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    /// Whether a note comes soon.
    fn hears(&self, patience: Duration) -> bool {
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let heard = self.socket.recv(&mut [0; 4096]).is_ok();
        self.socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        heard
    }
}

#[test]
fn the_server_says_when_it_listens_and_when_it_stops() {
    let manager = Manager::new();
    // Options of a memcached.conf may have a -d, which is not for a service.
    let words = ["-t", "3", "-d", "-v"];
    let mut server = Server::start_program(&under_test(), &words, &[("NOTIFY_SOCKET", manager.path())]);
    let port = server.ports()[0].1;
    let about = format!("serves 127.0.0.1:{port} with 64 MB and 3 threads");
    assert_eq!(manager.note(), format!("READY=1\nSTATUS={about}"));
    assert_eq!(server.connect().line("version"), "VERSION 1.6.45");
    let (code, stderr) = server.stop("TERM");
    let start = format!("twincached {}, which {about}\n", env!("CARGO_PKG_VERSION"));
    let expected = "-d is ignored: a service manager has started this, and waits for it\n".to_owned() + &start;
    assert_eq!((code, stderr), (Some(0), expected + "Exiting normally\n"));
    assert_eq!(manager.note(), "STOPPING=1");
    assert!(!manager.hears(Duration::from_millis(10)), "no watchdog was asked for");
}

#[test]
fn the_watchdog_is_fed_while_the_server_is_idle_and_not_while_it_is_frozen() {
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", "200000".to_owned())];
    let mut server = Server::start_program(&under_test(), &[], &environment);
    assert!(manager.note().starts_with("READY=1\n"));
    (0..5).for_each(|_| assert_eq!(manager.note(), "WATCHDOG=1"));
    freeze(server.pid());
    while manager.hears(Duration::from_millis(500)) {}
    signal(server.pid(), "CONT");
    assert_eq!(manager.note(), "WATCHDOG=1");
    server.stop("TERM");
    // Somebody else's watchdog, as of a child that inherits the variables.
    let strangers = [&environment[..], &[("WATCHDOG_PID", "1".to_owned())]].concat();
    let _server = Server::start_program(&under_test(), &[], &strangers);
    while !manager.note().starts_with("READY=1\n") {}
    assert!(!manager.hears(Duration::from_millis(500)));
}

#[test]
fn a_worker_that_hangs_is_noticed_and_an_idle_one_is_not() {
    let running = Running::start(|config| config.threads = 2);
    let turns = || {
        running.server.ask_for_turns();
        until("every event loop turns", || running.server.all_turned());
    };
    turns();
    let hash = running.shared.store.hash(b"key");
    let locked = running.shared.store.lock(hash);
    let mut client = running.connect();
    client.send(b"get key\r\n");
    // It takes a while until the worker is there, and hangs.
    wait_for("a loop that does not turn", || {
        running.server.ask_for_turns();
        std::thread::sleep(Duration::from_millis(100));
        (!running.server.all_turned()).then_some(())
    });
    drop(locked);
    until("the worker goes on", || running.server.all_turned());
    client.expect("END\r\n");
    turns();
}

#[test]
fn the_sidecar_says_when_it_runs_and_when_it_stops() {
    let manager = Manager::new();
    let program = Path::new(&under_test()).with_file_name("twincache-sidecar");
    let mut command = Command::new(program);
    command.args(["--server", "unix:/nonexistent/control", "--peer", "127.0.0.1:1"]).stderr(Stdio::null());
    let mut sidecar = command.env("NOTIFY_SOCKET", manager.path()).spawn().unwrap();
    assert_eq!(manager.note(), "READY=1\nSTATUS=copies /nonexistent/control to 127.0.0.1:1");
    signal(sidecar.id(), "TERM");
    assert_eq!(manager.note(), "STOPPING=1");
    assert!(sidecar.wait().unwrap().success());
}

#[test]
fn lines_have_priorities_in_the_journal_and_nowhere_else() {
    let folder = Folder::new();
    let said = |stream: &dyn Fn(&File) -> String, words: &[&str]| {
        let journal = File::create(folder.file("journal")).unwrap();
        let mut command = Command::new(under_test());
        let user: &[&str] = if is_root() { &["-u", "root"] } else { &[] };
        command.args(["-l", "127.0.0.1", "-p", "-1"]).args(user).args(words);
        command.env("JOURNAL_STREAM", stream(&journal)).stderr(journal);
        let mut child = command.spawn().unwrap();
        let text =
            wait_for("a line", || fs::read_to_string(folder.file("journal")).ok().filter(|text| text.ends_with('\n')));
        let _ = child.kill();
        child.wait().unwrap();
        text
    };
    let inode = |file: &File| file.metadata().map(|meta| format!("{}:{}", meta.dev(), meta.ino())).unwrap();
    let start = format!("twincached {}, which serves", env!("CARGO_PKG_VERSION"));
    assert!(said(&inode, &[]).starts_with(&format!("<5>{start}")));
    assert!(said(&|_| "1:1".to_owned(), &["-v"]).starts_with(&start));
    assert!(said(&inode, &["-t", "0"]).starts_with("<3>"));
}
