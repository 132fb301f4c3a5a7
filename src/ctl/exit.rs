//! How the program ends, when not just well.
//!
//! All that goes to stdout, but dumps, goes through [`to_stdout`]: a reader that has left is no fault, a full disk is one.
//!
//! Invariant: what servers said is in no error before it went through [`harmless`].

use crate::cluster::EtcdError;
use std::io::{self, ErrorKind, Write};

/// What it prints, and its exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct CtlExit {
    /// The exit code.
    pub code: u8,
    /// The exit code, if stdout does not take what it prints and that is no smaller.
    pub lost_code: u8,
    /// For stdout.
    pub stdout: String,
    /// For stderr.
    pub stderr: String,
}

impl CtlExit {
    /// What was asked for was not done, or not all is well.
    pub const NOT_DONE: u8 = 1;
    /// Bad usage, the same as the server's.
    pub const USAGE: u8 = 64;
    /// etcd was not reached, or has said no; sysexits' EX_UNAVAILABLE.
    pub const UNAVAILABLE: u8 = 69;

    /// A good end that prints something.
    pub(super) fn print(stdout: String) -> CtlExit {
        CtlExit { stdout, ..CtlExit::silent(0) }
    }

    /// An end with an error of one line.
    pub(super) fn refuse(code: u8, line: &str) -> CtlExit {
        CtlExit { stderr: format!("twincachectl: {}\n", harmless(line)), ..CtlExit::silent(code) }
    }

    pub(super) fn usage(line: &str) -> CtlExit {
        CtlExit::refuse(CtlExit::USAGE, &format!("{line} (see --help)"))
    }

    pub(super) fn not_done(line: &str) -> CtlExit {
        CtlExit::refuse(CtlExit::NOT_DONE, line)
    }

    /// What an error says, without the program's name.
    pub(super) fn reason(&self) -> &str {
        let text = self.stderr.trim_end();
        text.strip_prefix("twincachectl: ").unwrap_or(text)
    }

    /// Prints what it has; returns the exit code, which says so if stdout does not take it.
    pub fn tell(mut self) -> u8 {
        if let Err(lost) = to_stdout(&self.stdout) {
            self.stderr += &lost.stderr;
            self.code = self.code.max(self.lost_code);
        }
        to_stderr(&self.stderr);
        self.code
    }

    /// An end of which everything has been said.
    pub(super) fn silent(code: u8) -> CtlExit {
        CtlExit { code, lost_code: CtlExit::NOT_DONE, stdout: String::new(), stderr: String::new() }
    }
}

/// Prints this. It is well if nobody reads it, as with the tools of a shell; all else that goes wrong is an error.
pub(super) fn to_stdout(text: &str) -> Result<(), CtlExit> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(CtlExit::not_done(&format!("stdout: {error}"))),
        _ => Ok(()),
    }
}

/// Says this to the operator. If that fails, there is nobody to tell.
pub(super) fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// A text of a stranger, as a terminal may have it. Doing it twice changes nothing.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '\'' | '\\' => shown.push(letter),
            _ => shown.extend(letter.escape_debug()),
        }
    }
    shown
}

impl From<EtcdError> for CtlExit {
    fn from(error: EtcdError) -> CtlExit {
        CtlExit::refuse(CtlExit::UNAVAILABLE, &format!("etcd: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_stranger() {
        let shown = harmless("a'b\u{1b}[2J\u{202e}\u{9b}\té\\");
        assert_eq!(shown, "a'b\\u{1b}[2J\\u{202e}\\u{9b}\\té\\");
        assert_eq!(harmless(&shown), shown);
        assert_eq!(CtlExit::not_done("a\nb\u{7}").stderr, "twincachectl: a\\nb\\u{7}\n");
    }
}
