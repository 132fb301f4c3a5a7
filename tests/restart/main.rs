//! Warm restart: what a server with a memory file (`-e`) leaves, and what the next one makes of it.
//!
//! ```text
//! server ── SIGUSR1, SIGTERM or kill -9 ──> FILE, FILE.meta ── as it is, or damaged ──> server with the same options or others
//! ```
//!
//! The files lie in memory where that can be, so that no test waits for a disk.

#[path = "../common/mod.rs"]
mod common;
mod storm;

use common::{Conn, DEADLINE, Folder, Rng, Server, Waited, is_root, under_test, until};
use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

/// A memory file, and the servers that use it one after the other.
struct Kept {
    folder: Folder,
    name: String,
    options: Vec<String>,
}

impl Kept {
    fn new(options: &[&str]) -> Kept {
        let options = options.iter().map(ToString::to_string).collect();
        Kept { folder: Folder::new_in_memory(), name: "memory".into(), options }
    }

    fn file(&self) -> String {
        self.folder.file(&self.name)
    }

    fn meta(&self) -> String {
        self.folder.file("memory.meta")
    }

    fn start(&self) -> Server {
        self.start_with(&[])
    }

    fn start_with(&self, more: &[&str]) -> Server {
        self.try_start(more).unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn try_start(&self, more: &[&str]) -> Result<Server, String> {
        let file = self.file();
        let mut words = vec!["-v", "-e", &file];
        words.extend(self.options.iter().map(String::as_str));
        words.extend(more);
        let (code, checked) = self.check(&words);
        let started = Server::try_start(&words);
        let is_said = |said: &str| checked.lines().all(|line| said.contains(line));
        match &started {
            Ok(server) => {
                assert_eq!(code, Some(0), "{checked}");
                until("what --check has said", || is_said(&server.stderr()));
            }
            Err(failure) => assert!(code == Some(1) && is_said(failure), "{failure}, and --check: {checked}"),
        }
        started
    }

    /// Exit code of --check with these options, and what it says. Files stay as they are.
    fn check(&self, words: &[&str]) -> (Option<i32>, String) {
        let before = self.files();
        let output = common::command(&under_test(), &[words, &["--check", "-p", "-1", "-l", "127.0.0.1"]].concat())
            .current_dir(self.folder.path())
            .output()
            .expect("twincached");
        assert_eq!(self.files(), before);
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    }

    /// Names, lengths and inodes.
    fn files(&self) -> Vec<(OsString, u64, u64, u32)> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name(), entry.metadata().unwrap()))
            .map(|(name, about)| (name, about.len(), about.ino(), about.mode()))
            .collect();
        files.sort();
        files
    }
}

/// Ends a server, and says what it has written.
fn end(mut server: Server, signal: &str) -> String {
    let (code, stderr) = server.stop(signal);
    assert_eq!(code, if signal == "KILL" { None } else { Some(0) }, "{stderr}");
    stderr
}

fn set(conn: &mut Conn, key: &str, flags: u32, exptime: i64, value: &[u8]) {
    conn.send(format!("set {key} {flags} {exptime} {}\r\n", value.len()).as_bytes());
    conn.send(value);
    assert_eq!(conn.ask(b"\r\n", b"\r\n"), b"STORED\r\n", "set {key}");
}

/// Client flags, cas and value of a key.
fn gets(conn: &mut Conn, key: &str) -> Option<(u32, u64, Vec<u8>)> {
    conn.send(format!("gets {key}\r\n").as_bytes());
    let waited = conn.read_until(DEADLINE, |got| got.ends_with(b"END\r\n"));
    assert_eq!(waited, Waited::Done, "gets {key}");
    let got = std::mem::take(&mut conn.got);
    let line_end = got.iter().position(|&byte| byte == b'\r').expect("a line");
    let head = String::from_utf8(got[..line_end].to_vec()).expect("a reply");
    let words: Vec<&str> = head.split(' ').collect();
    if words == ["END"] {
        return None;
    }
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let value = &got[line_end + 2..];
    assert_eq!((words[0], words[1], value.len() as u64), ("VALUE", key, number(3) + 7));
    Some((number(2) as u32, number(4), value[..value.len() - 7].to_vec()))
}

fn get(conn: &mut Conn, key: &str) -> Option<Vec<u8>> {
    gets(conn, key).map(|(_, _, value)| value)
}

#[test]
fn a_graceful_stop_keeps_all() {
    let kept = Kept::new(&["-m", "64", "-I", "8m"]);
    let server = kept.start();
    let mut conn = server.connect();
    assert_eq!(conn.stat("settings", "memory_file"), kept.file());
    assert!(conn.line("cache_memlimit 100").starts_with("MEMLIMIT_ADJUST_FAILED"));
    let mut rng = Rng(1);
    let sizes = [0, 1, 100, 5000, 100_000, 600_000, 3_000_000];
    let values: Vec<Vec<u8>> = (0..70).map(|i| rng.bytes(sizes[i % 7] + i)).collect();
    for (i, value) in values.iter().enumerate() {
        set(&mut conn, &format!("key{i}"), i as u32, if i % 3 == 0 { 1000 } else { 0 }, value);
    }
    assert_eq!(conn.line("md key5"), "HD");
    assert_eq!(conn.line("touch key6 500"), "TOUCHED");
    assert_eq!(conn.line("mg key7 s t q"), "HD s7 t-1");
    assert_eq!(conn.line("md key8 I T30"), "HD");
    set(&mut conn, "count", 0, 0, b"1");
    assert_eq!(conn.line("incr count 4"), "5");
    let before: Vec<_> = (0..70).map(|i| gets(&mut conn, &format!("key{i}"))).collect();
    let (items, bytes) = (conn.number("", "curr_items"), conn.number("", "bytes"));
    let last = gets(&mut conn, "count").expect("count").1;
    let stderr = end(server, "USR1");
    assert!(stderr.contains("Gracefully stopping"), "{stderr}");
    let mode = std::fs::metadata(kept.meta()).expect("FILE.meta").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let server = kept.start();
    assert!(!Path::new(&kept.meta()).exists(), "it is read and removed");
    let mut conn = server.connect();
    assert_eq!((conn.number("", "curr_items"), conn.number("", "bytes")), (items, bytes));
    let after: Vec<_> = (0..70).map(|i| gets(&mut conn, &format!("key{i}"))).collect();
    assert!(after == before, "all is as it was");
    assert!(conn.number("", "uptime") < 60);
    let ttl = |reply: String| reply.strip_prefix("HD t").unwrap().parse::<u32>().unwrap();
    assert!((1..=500).contains(&ttl(conn.line("mg key6 t"))));
    assert!((1..=1000).contains(&ttl(conn.line("mg key3 t"))));
    assert!(
        conn.line("mg key8 s").ends_with(" X W") && conn.line("mg key8 s").ends_with(" Z X"),
        "stale, and one wins"
    );
    assert_eq!(get(&mut conn, "count").as_deref(), Some(&b"5"[..]));
    set(&mut conn, "count", 0, 0, b"new");
    assert_eq!(gets(&mut conn, "count").unwrap().1, last + 1, "cas uniques go on");
    end(server, "USR1");
}

#[test]
fn items_go_on_ageing_and_flush_alls_hold() {
    for signal in ["USR1", "KILL"] {
        let kept = Kept::new(&[]);
        let server = kept.start();
        let mut conn = server.connect();
        set(&mut conn, "flushed", 0, 0, b"value");
        assert_eq!(conn.line("flush_all"), "OK");
        set(&mut conn, "short", 0, 2, b"value");
        set(&mut conn, "kept", 0, 2000, b"value");
        end(server, signal);
        std::thread::sleep(Duration::from_millis(2100));
        let server = kept.start();
        let mut conn = server.connect();
        assert_eq!(get(&mut conn, "flushed"), None, "{signal}");
        assert_eq!(get(&mut conn, "short"), None, "{signal}");
        assert_eq!(get(&mut conn, "kept").as_deref(), Some(&b"value"[..]), "{signal}");
        // One that is to come.
        assert_eq!(conn.line("flush_all 2"), "OK");
        end(server, signal);
        let server = kept.start();
        let mut conn = server.connect();
        until("the flush_all", || get(&mut conn, "kept").is_none());
    }
}

/// As upstream's restart.t has it: the table has the size that it had grown to, whatever is left in it.
#[test]
fn the_hash_table_stays_as_large_as_it_was() {
    let kept = Kept::new(&["-m", "128", "-I", "2m"]);
    let mut server = kept.start();
    let mut conn = server.connect();
    assert_eq!(conn.number("", "hash_power_level"), 16);
    let all = |line: &str| (0..1 << 17).map(|i| line.replace('N', &i.to_string())).collect::<String>();
    conn.send(all("set keyN 0 0 1 noreply\r\nx\r\n").as_bytes());
    assert_eq!(conn.number("", "curr_items"), 1 << 17);
    assert_eq!(conn.number("", "hash_power_level"), 17);
    conn.send(all("delete keyN noreply\r\n").as_bytes());
    assert_eq!(conn.number("", "curr_items"), 0);
    for signal in ["USR1", "USR1", "KILL"] {
        end(server, signal);
        server = kept.start();
        assert_eq!(server.connect().number("", "hash_power_level"), 17, "{signal}");
    }
    end(server, "USR1");
    std::fs::remove_file(kept.meta()).unwrap();
    let emptied = kept.start();
    assert_eq!(emptied.connect().number("", "hash_power_level"), 16);
}

#[test]
fn others_options_start_clean() {
    let changes: [&[&str]; 8] = [
        &["-m", "65"],
        &["-I", "2m"],
        &["-f", "1.1"],
        &["-n", "64"],
        &["-C"],
        &["-o", "slab_chunk_max=256"],
        &["-o", "no_slab_reassign"],
        &["-o", "slab_accounting=memcached"],
    ];
    let kept = Kept::new(&[]);
    for change in changes {
        let server = kept.start();
        set(&mut server.connect(), "key", 0, 0, b"value");
        end(server, "USR1");
        let server = kept.start_with(change);
        assert_eq!(get(&mut server.connect(), "key"), None, "{change:?}");
        let stderr = end(server, "USR1");
        let line = "[restart] restart incompatible due to setting for [";
        assert_eq!(stderr.matches(line).count(), 1, "{change:?}: {stderr}");
        assert!(stderr.contains("starting with a clean cache"), "{stderr}");
    }
    // The items of the file have no cas uniques, and no room for them.
    let kept = Kept::new(&[]);
    for (before, after, was) in [(&["-C"][..], &[][..], "false"), (&[], &["-C"], "true")] {
        let server = kept.start_with(before);
        set(&mut server.connect(), "key", 0, 0, b"value");
        end(server, "KILL");
        let server = kept.start_with(after);
        assert_eq!(get(&mut server.connect(), "key"), None, "{before:?}, then {after:?}");
        let stderr = end(server, "KILL");
        assert!(stderr.contains("[use_cas]") && stderr.contains(was), "{stderr}");
    }
    let kept = Kept::new(&[]);
    // These may differ.
    for change in [&["-t", "9"][..], &["-c", "99"], &["-o", "no_lru_maintainer"], &["-L"]] {
        let server = kept.start();
        set(&mut server.connect(), "key", 0, 0, b"value");
        end(server, "USR1");
        let server = kept.start_with(change);
        assert!(get(&mut server.connect(), "key").is_some(), "{change:?}");
        end(server, "USR1");
    }
}

#[test]
fn meta_corrupt_is_no_start_and_a_missing_one_is_a_clean_start() {
    let kept = Kept::new(&[]);
    let server = kept.start();
    set(&mut server.connect(), "key", 0, 0, b"value");
    end(server, "USR1");
    let good = std::fs::read(kept.meta()).unwrap();
    for bad in [&b""[..], b"garbage\n", &good[..good.len() / 2], &[&good[..9], b"X", &good[10..]].concat()] {
        std::fs::write(kept.meta(), bad).unwrap();
        let refused = kept.try_start(&[]).err().expect("refused");
        assert!(refused.contains("corrupt metadata file"), "{refused}");
        assert!(refused.contains("remove it to start with a clean cache"), "{refused}");
    }
    // memcached's own.
    std::fs::write(kept.meta(), "Tmain\nKslab_config 1.25\nKmaxbytes 67108864\n").unwrap();
    let server = kept.start();
    assert_eq!(get(&mut server.connect(), "key"), None);
    let stderr = end(server, "USR1");
    assert!(stderr.contains("no metadata save file, starting with a clean cache"), "{stderr}");

    std::fs::remove_file(kept.meta()).unwrap();
    let server = kept.start();
    let mut conn = server.connect();
    assert_eq!(conn.number("", "curr_items"), 0);
    set(&mut conn, "key", 0, 0, b"value");
    let stderr = end(server, "TERM");
    assert!(stderr.contains("no metadata save file, starting with a clean cache"), "{stderr}");
    assert!(!Path::new(&kept.meta()).exists());
}

#[test]
fn a_place_for_no_file_is_no_start() {
    let kept = |name: &str| Kept { name: name.into(), ..Kept::new(&[]) };
    for (name, why) in [("none/memory", "No such file or directory"), ("memory/", "it names a folder")] {
        let refused = kept(name).try_start(&[]).err().expect("refused");
        assert!(refused.contains("failed to open memory file") && refused.contains(why), "{refused}");
    }
    // In the background it is another folder that a path begins in.
    let here = kept("memory");
    std::fs::create_dir(here.folder.file("folder")).unwrap();
    for (more, code) in [(&[][..], 0), (&["-d"], 1)] {
        assert_eq!(here.check(&[&["-e", "folder/memory"], more].concat()).0, Some(code), "{more:?}");
    }
    let full = kept("memory");
    std::fs::write(full.file(), "somebody's letters").unwrap();
    let refused = full.try_start(&[]).err().expect("refused");
    assert!(refused.contains("is no memory file"), "{refused}");
    if is_root() {
        let foreign = kept("memory");
        std::fs::set_permissions(foreign.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let refused = foreign.try_start(&["-u", "nobody"]).err().expect("refused");
        assert!(refused.contains("Permission denied"), "{refused}");
    }
}

#[test]
fn two_servers_do_not_share_a_file() {
    let kept = Kept::new(&[]);
    let server = kept.start();
    set(&mut server.connect(), "key", 0, 0, b"value");
    let refused = kept.try_start(&[]).err().expect("refused");
    assert!(refused.contains("another process uses it"), "{refused}");
    assert!(get(&mut server.connect(), "key").is_some());
    let other = Kept::new(&[]);
    std::fs::create_dir(other.file()).unwrap();
    let refused = other.try_start(&[]).err().expect("refused");
    assert!(refused.contains("failed to open memory file"), "{refused}");
}

/// What somebody else could have put there, or can still change, is neither used nor touched.
#[test]
fn a_file_that_is_not_the_servers_alone_is_refused() {
    let kept = Kept::new(&[]);
    let (file, meta, elsewhere) = (kept.file(), kept.meta(), kept.folder.file("elsewhere"));
    let refused = |path: &str, why: &str| {
        let refused = kept.try_start(&[]).err().expect(why);
        assert!(refused.contains(path) && refused.contains(why), "{refused}");
    };
    let mode = |path: &str, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let owner = |path: &str, user| std::os::unix::fs::chown(path, Some(user), None).unwrap();
    // A server's file, as it is left.
    let server = kept.start();
    set(&mut server.connect(), "key", 0, 0, b"value");
    end(server, "USR1");
    for path in [&file, &meta] {
        for (wrong, name) in [(0o602, "602"), (0o620, "620"), (0o666, "666")] {
            mode(path, wrong);
            refused(path, &format!("others may write to it (mode {name}): chmod 600 it"));
            mode(path, 0o600);
        }
        if is_root() {
            owner(path, 65534);
            refused(path, "it belongs to user 65534");
            owner(path, 0);
        }
        std::fs::rename(path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, path).unwrap();
        refused(path, "it is a symbolic link");
        std::fs::remove_file(path).unwrap();
        std::fs::hard_link(&elsewhere, path).unwrap();
        refused(path, "it has 2 names (hard links)");
        std::fs::remove_file(path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        refused(path, "it is no regular file");
        std::fs::rename(&elsewhere, path).unwrap();
    }
    // A link that is left, or put, where FILE.meta is written first.
    std::os::unix::fs::symlink(&elsewhere, format!("{meta}.new")).unwrap();
    let server = kept.start();
    let mut conn = server.connect();
    assert_eq!(get(&mut conn, "key").as_deref(), Some(&b"value"[..]), "none of that has harmed it");
    end(server, "USR1");
    assert!(!Path::new(&elsewhere).exists() && Path::new(&meta).is_file());
}
