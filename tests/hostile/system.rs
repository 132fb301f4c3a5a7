//! What the system refuses, and what nobody reads.

use crate::common::{Conn, DEADLINE, Folder, Server, Waited, under_test, until};
use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::Duration;
use twincache::sys::alloc;

#[global_allocator]
static ALLOCATOR: alloc::ReservingAllocator = alloc::ReservingAllocator;

/// A program in `folder` that is the server after these lines of shell.
fn wrapped(folder: &Folder, lines: &str) -> String {
    let path = folder.file("server");
    let mut file = std::fs::File::create(&path).unwrap();
    write!(file, "#!/bin/sh\n{lines}\nexec '{}' \"$@\"\n", under_test()).unwrap();
    file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_nobody() {
    let folder = Folder::new();
    let pipe = folder.file("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both, so that it is there without a reader; its 64 KiB are soon full.
    let server = Server::start_program(&wrapped(&folder, &format!("exec 2<>'{pipe}'")), &["-vv"], &[]);
    let mut conn = server.connect();
    for i in 0..3000 {
        assert_eq!(conn.line(&format!("set k{i:060} 0 0 1\r\nx")), "STORED");
    }
    // Who reads at last learns that something is missing.
    let mut reader = std::fs::OpenOptions::new().read(true).custom_flags(0o4000).open(&pipe).unwrap();
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    until("the note of lost lines", || {
        assert_eq!(conn.line("mn"), "MN");
        while let Ok(n @ 1..) = reader.read(&mut piece) {
            text.extend_from_slice(&piece[..n]);
        }
        String::from_utf8_lossy(&text).contains("lines are missing: nobody read them")
    });
}

/// Panics as `main` would, in a process of its own: the other half of the next test.
#[test]
fn child_that_panics() {
    if std::env::var_os("HOSTILE_CHILD").is_some() {
        twincache::supervisor::end_on_panic();
        let worker = std::thread::Builder::new().name("worker-0".into());
        let _ = worker.spawn(|| panic!("out of {}", "order")).unwrap().join();
        std::thread::sleep(DEADLINE);
    }
}

#[test]
fn a_panic_is_one_line_and_the_end() {
    for backtrace in ["0", "1", "full"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "system::child_that_panics", "--nocapture"]);
        child.env("HOSTILE_CHILD", "1").env("RUST_BACKTRACE", backtrace).stdout(Stdio::null()).stderr(Stdio::piped());
        let output = child.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.signal(), Some(6), "{stderr}");
        let line = stderr.strip_prefix("panicked at tests/hostile/system.rs:").expect(&stderr);
        assert!(line.ends_with(": out of order\n") && line.lines().count() == 1, "{stderr}");
    }
}

/// Sets so many small items, and says how many were stored and how many refused; any other end is a failure.
fn fill(conn: &mut Conn, items: usize) -> (usize, usize) {
    let (mut stored, mut refused) = (0, 0);
    for first in (0..items).step_by(1000) {
        let sets: String = (first..first + 1000).map(|i| format!("set key{i} 0 0 1\r\nx\r\n")).collect();
        conn.send(sets.as_bytes());
        let lines = |got: &[u8]| got.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(conn.read_until(DEADLINE, |got| lines(got) == 1000), Waited::Done);
        for line in String::from_utf8(std::mem::take(&mut conn.got)).unwrap().lines() {
            match line {
                "STORED" => stored += 1,
                "SERVER_ERROR out of memory storing object" => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    (stored, refused)
}

#[test]
fn memory_that_the_system_refuses_is_an_error_to_one_request() {
    let items = 80_000;
    // A table that may not grow puts nearly all items into its overflow; one that may wants buckets.
    for options in ["no_hashexpand,hashpower=12", "hashpower=12"] {
        let mut seen = (0, 0);
        for megabytes in [19, 22, 25] {
            let folder = Folder::new();
            let program = wrapped(&folder, &format!("ulimit -d {}", megabytes << 10));
            let args = ["-M", "-m", "256", "-t", "1", "-o", options];
            let environment = [("RUST_BACKTRACE", "1".to_owned())];
            let server = Server::start_program(&program, &args, &environment);
            let mut conn = server.connect();
            let (stored, refused) = fill(&mut conn, items);
            seen = (seen.0 + stored, seen.1 + refused);
            assert_eq!(server.connect().line("mn"), "MN", "with {megabytes} MB");
            assert!(conn.ask(b"get key0 key79999 none\r\n", b"END\r\n").ends_with(b"END\r\n"));
        }
        assert!(seen.0 > 0 && seen.1 > 0, "{options}: {seen:?}");
    }
}

/// From now on a server may have so many KB more than it has.
fn leave(server: &Server, kilobytes: u64) {
    let most = server.proc_line("status", "VmData:").trim_end_matches("kB").trim().parse::<u64>().unwrap() + kilobytes;
    let (pid, data) = (server.pid().to_string(), format!("--data={}", most << 10));
    assert!(Command::new("prlimit").args(["--pid", &pid, &data]).status().unwrap().success());
}

#[test]
fn an_answer_for_which_the_system_has_no_memory_is_lost() {
    const LARGE: usize = 1_000_000;
    for kilobytes in [0, 500, 1000, 1500] {
        let server = Server::start(&["-m", "64", "-t", "1", "-U", "-1"]);
        let mut conn = server.connect();
        assert_eq!(conn.line(&format!("set large 0 0 {LARGE}\r\n{}", "v".repeat(LARGE))), "STORED");
        let port = server.ports().iter().find(|(name, _)| name == "UDP INET").expect("a UDP port").1;
        let udp = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        leave(&server, kilobytes);
        for request in ["get large\r\n", "stats\r\n", "stats conns\r\n"].repeat(2) {
            udp.send_to(&[b"\0\x01\0\0\0\x01\0\0", request.as_bytes()].concat(), ("127.0.0.1", port)).unwrap();
            while udp.recv(&mut [0; 2000]).is_ok() {}
        }
        let mut others: Vec<Conn> = (0..50).map(|_| server.connect()).collect();
        others.iter_mut().for_each(|other| other.send(b"get large\r\nstats conns\r\nmn\r\n"));
        for other in &mut others {
            other.read_until(DEADLINE, |got| got.ends_with(b"MN\r\n"));
            assert!(other.closed || other.got.len() > LARGE, "{} bytes", other.got.len());
        }
        assert_eq!(conn.line("mn"), "MN", "with {kilobytes} KB");
    }
}

/// Threads that are refused memory at the same moment, in a process that may have little, until somebody lets go of what he
/// holds: the other half of the next test.
#[test]
fn child_that_is_short_of_memory() {
    const THREADS: usize = 16;
    if std::env::var_os("HOSTILE_CHILD").is_none() {
        return;
    }
    twincache::supervisor::end_on_panic();
    alloc::prepare();
    alloc::refill();
    let (begin, end) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let wants_much = || {
        begin.wait();
        let blocks: Vec<Vec<u8>> = (0..100).map(|_| vec![1; 8 << 10]).collect();
        end.wait();
        assert!(blocks.iter().all(|block| block.iter().all(|&byte| byte == 1)));
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, wants_much).unwrap();
        }
        let (mut held, mut block) = (Vec::<Vec<u8>>::with_capacity(1000), Vec::new());
        // Once all of them run.
        std::thread::sleep(Duration::from_millis(100));
        // For so large ones the reserve is not there.
        while block.try_reserve_exact(1_100_000).is_ok() {
            held.push(std::mem::take(&mut block));
        }
        begin.wait();
        until("the shortage", alloc::is_short);
        drop(held);
        end.wait();
    });
}

#[test]
fn memory_that_is_refused_to_many_threads_comes_when_others_let_go() {
    let program = std::env::current_exe().unwrap();
    let child = format!("ulimit -d 32768; exec '{}' --exact system::child_that_is_short_of_memory", program.display());
    for _ in 0..5 {
        let output = Command::new("sh").args(["-c", &child]).env("HOSTILE_CHILD", "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}
