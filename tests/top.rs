//! `twincachectl top`: on a terminal of its own, which util-linux's `script` makes, and without one.

mod common;

use common::{Server, signal, until, wait_for};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a terminal is told when a program takes its other screen, and gives it back.
const TAKEN: &str = "\u{1b}[?1049h";
const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// A shell on a terminal that runs `top`, and says before and behind it how the terminal is set.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn run(words: &[&str]) -> Terminal {
        let program = env!("CARGO_BIN_EXE_twincachectl");
        let line = format!(
            "stty rows 30 cols 110; echo before=$(stty -g).; sh -c 'echo pid=$$.; exec {program} top {}'; \
             echo code=$?.; echo behind=$(stty -g).",
            words.join(" ")
        );
        let mut command = Command::new("script");
        command.args(["-qfc", &line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script of util-linux");
        let (keys, mut out) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let shown = Arc::new(Mutex::new(Vec::new()));
        let filled = shown.clone();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(len @ 1..) = out.read(&mut piece) {
                filled.lock().unwrap().extend_from_slice(&piece[..len]);
            }
        });
        Terminal { child, keys, shown }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// How much was shown, to look only at what comes behind it.
    fn mark(&self) -> usize {
        self.shown.lock().unwrap().len()
    }

    fn shows(&self, part: &str) {
        self.shows_after(0, part);
    }

    fn shows_after(&self, mark: usize, part: &str) {
        let new = || String::from_utf8_lossy(&self.shown.lock().unwrap()[mark..]).into_owned();
        until(&format!("the screen has {part:?}"), || new().contains(part));
    }

    /// What stands between `name` and a dot.
    fn value(&self, name: &str) -> String {
        wait_for(name, || {
            let shown = self.shown();
            let rest = shown.split_once(&format!("{name}="))?.1.to_owned();
            rest.split_once('.').map(|(value, _)| value.to_owned())
        })
    }

    /// It has ended, and the terminal is as it was.
    fn is_restored(&self) {
        assert_eq!(self.value("code"), "0", "{}", self.shown());
        assert_eq!(self.value("before"), self.value("behind"));
        let shown = self.shown();
        assert_eq!(shown.matches(TAKEN).count(), shown.matches(GIVEN_BACK).count(), "{shown:?}");
        assert!(shown.rfind(TAKEN) < shown.rfind(GIVEN_BACK));
        assert!(shown.rfind("\u{1b}[?25l") < shown.rfind("\u{1b}[?25h"), "the cursor is there");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What runs on its terminal gets SIGHUP.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn servers_are_shown_until_q() {
    let server = Server::start(&[]);
    let mut conn = server.connect();
    conn.ask(b"set some-key 0 0 3\r\nabc\r\n", b"STORED\r\n");
    let memcached = Server::reference(&["-u", "nobody"]);
    let address = server.addr.to_string();
    let mut words = vec![address.clone()];
    words.extend(memcached.iter().map(|memcached| memcached.addr.to_string()));
    words.extend(["--interval".to_owned(), "0.1".to_owned()]);
    let mut terminal = Terminal::run(&words.iter().map(String::as_str).collect::<Vec<&str>>());
    for word in &words[..words.len() - 2] {
        terminal.shows(word);
    }
    terminal.shows("standalone");
    until("the key is hot", || {
        (0..200).for_each(|_| drop(conn.ask(b"get some-key\r\n", b"END\r\n")));
        terminal.shown().contains("some-key")
    });
    let mark = terminal.mark();
    terminal.press("\t");
    terminal.shows_after(mark, "P99.9");
    // Over all columns and back, and the other way round.
    terminal.press(&"\u{1b}[C".repeat(17));
    terminal.press("\u{1b}[Dr\u{1b}[B\u{1b}[A");
    let mark = terminal.mark();
    terminal.press(" ");
    terminal.shows_after(mark, "PAUSED");
    terminal.press(" q");
    terminal.is_restored();
}

#[test]
fn a_server_comes_back() {
    let mut server = Server::start(&[]);
    let address = server.addr.to_string();
    let mut terminal = Terminal::run(&[&address, "--interval", "0.1"]);
    terminal.shows("standalone");
    let mark = terminal.mark();
    server.may_exit();
    signal(server.pid(), "KILL");
    terminal.shows_after(mark, "away");
    drop(server);
    let mark = terminal.mark();
    let _again = Server::start(&["-p", address.rsplit_once(':').unwrap().1]);
    terminal.shows_after(mark, "standalone");
    // ctrl-C
    terminal.press("\u{3}");
    terminal.is_restored();
}

#[test]
fn signals_give_the_terminal_back() {
    let server = Server::start(&[]);
    for name in ["TERM", "INT", "HUP"] {
        let terminal = Terminal::run(&[&server.addr.to_string()]);
        terminal.shows("standalone");
        signal(terminal.value("pid").parse().unwrap(), name);
        terminal.is_restored();
    }
}

/// Stopped and let go on, as by a shell.
#[test]
fn a_pause_of_the_program() {
    let server = Server::start(&[]);
    let mut terminal = Terminal::run(&[&server.addr.to_string()]);
    terminal.shows("standalone");
    let pid: u32 = terminal.value("pid").parse().unwrap();
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    for key in [None, Some("\u{1a}")] {
        match key {
            None => signal(pid, "TSTP"),
            Some(key) => terminal.press(key),
        }
        until("it stands still", is_stopped);
        until("it has given the terminal back", || {
            let shown = terminal.shown();
            shown.rfind(TAKEN) < shown.rfind(GIVEN_BACK)
        });
        let mark = terminal.mark();
        signal(pid, "CONT");
        terminal.shows_after(mark, TAKEN);
        terminal.shows_after(mark, "standalone");
    }
    terminal.press("q");
    terminal.is_restored();
}

/// Reading keys from it would not end.
#[test]
fn a_terminal_that_is_gone_ends_it() {
    let server = Server::start(&[]);
    let terminal = Terminal::run(&[&server.addr.to_string()]);
    terminal.shows("standalone");
    let pid = terminal.value("pid");
    drop(terminal);
    until("it has ended", || !std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
}

fn ctl(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_twincachectl")).args(words).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

#[test]
fn a_table_without_a_terminal() {
    let server = Server::start(&[]);
    let address = server.addr.to_string();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, text, _) = ctl(&["top", "--once", "--interval", "0.1", &address]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        code == 0 && lines.len() == 2 && lines[0].starts_with("SERVER") && lines[1].contains("standalone"),
        "{text}"
    );
    let (code, text, _) = ctl(&["top", "--json", "--interval", "0.1", &address, &gone]);
    let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert_eq!((code, &value[0]["role"], &value[0]["trouble"]), (69, &"standalone".into(), &serde_json::Value::Null));
    assert!(value[0]["operations_per_second"].as_f64().is_some() && value[0]["limit_bytes"].as_u64() == Some(64 << 20));
    assert!(value[1]["trouble"].as_str().unwrap().contains("refused"), "{text}");
    let (code, _, said) = ctl(&["top", &address]);
    assert!(code == 64 && said.contains("--once"), "{said}");
    for bad in ["0", "0.09", "3601", "nan", "1e2", "-1", ""] {
        let (code, _, said) = ctl(&["top", "--once", &format!("--interval={bad}"), &address]);
        assert!(code == 64 && said.contains("0.1 to 3600"), "{bad}: {said}");
    }
}

#[test]
fn a_memcached_without_a_terminal() {
    let Some(memcached) = Server::reference(&["-u", "nobody"]) else { return };
    let (code, text, _) = ctl(&["top", "--json", "--interval", "0.1", &memcached.addr.to_string()]);
    let value: serde_json::Value = serde_json::from_str(&text).expect(&text);
    assert_eq!((code, &value[0]["role"], &value[0]["p99_us"]), (0, &serde_json::Value::Null, &serde_json::Value::Null));
    assert!(value[0]["gets_per_second"].as_f64() == Some(0.0) && value[0]["connections"].as_u64() >= Some(1), "{text}");
}

/// A server that answers every request with this.
fn liar(answer: &'static [u8], is_endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 256];
            while let Ok(1..) = stream.read(&mut request) {
                while stream.write_all(answer).is_ok() && is_endless {}
            }
        }
    });
    address
}

#[test]
fn strangers_do_no_harm() {
    let huge = b"STAT role \x1b[2J\x1b]0;x\x07\r\nSTAT pid 1\r\nSTAT cmd_get 18446744073709551615\r\n\
        STAT bytes 18446744073709551615\r\nSTAT uptime 18446744073709551615\r\nSTAT 1:key \x1b[31m\r\nEND\r\n";
    let (code, text, _) = ctl(&["top", "--once", "--interval", "0.1", &liar(huge, false)]);
    assert!(code == 0 && !text.contains('\u{1b}') && text.contains("16.0E") && text.contains(">270y"), "{text:?}");
    for (answer, is_endless, said) in [
        (&b"STAT a 1\r\n"[..], true, "its statistics have no end"),
        (b"STAT a", true, "a line has no end"),
        (b"nonsense\x1b[2J\r\n", false, r"stats : nonsense\u{1b}[2J"),
    ] {
        let (code, text, _) = ctl(&["top", "--once", "--interval", "0.1", &liar(answer, is_endless)]);
        assert!(code == 69 && text.contains(said) && !text.contains('\u{1b}'), "{text:?}");
    }
}
