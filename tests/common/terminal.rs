//! A terminal for a program, which util-linux's `script` makes.

use super::{signal, until, wait_for};
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What a terminal is told when a program takes its other screen, and gives it back.
pub const TAKEN: &str = "\u{1b}[?1049h";
pub const GIVEN_BACK: &str = "\u{1b}[?1049l";

/// A shell on a terminal that runs a program, and says before and behind it how the terminal is set.
pub struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Runs this command line.
    pub fn run(command: &str) -> Terminal {
        let line = format!(
            "stty rows 30 cols 110; echo before=$(stty -g).; sh -c 'echo pid=$$.; exec {command}'; \
             echo code=$?.; echo behind=$(stty -g).",
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

    /// Presses these keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Reads nothing more of what the program writes, or goes on to read.
    pub fn stall(&self, is_stalled: bool) {
        signal(self.child.id(), if is_stalled { "STOP" } else { "CONT" });
    }

    /// Everything that was shown, with what moves the cursor.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    /// How much was shown, to look only at what comes behind it.
    pub fn mark(&self) -> usize {
        self.shown.lock().unwrap().len()
    }

    /// Waits until this was shown in one piece.
    pub fn shows(&self, part: &str) {
        self.shows_after(0, part);
    }

    /// The same behind a mark.
    pub fn shows_after(&self, mark: usize, part: &str) {
        let new = || String::from_utf8_lossy(&self.shown.lock().unwrap()[mark..]).into_owned();
        until(&format!("the screen has {part:?}"), || new().contains(part));
    }

    /// What stands between `name` and a dot.
    pub fn value(&self, name: &str) -> String {
        wait_for(name, || {
            let shown = self.shown();
            let rest = shown.split_once(&format!("{name}="))?.1.to_owned();
            rest.split_once('.').map(|(value, _)| value.to_owned())
        })
    }

    /// It has ended, and the terminal is as it was.
    pub fn is_restored(&self) {
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
