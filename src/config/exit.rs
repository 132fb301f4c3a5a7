//! How the process ends when the command line does not lead to a server.

/// Why there is no [`Config`](super::Config): the process ends with this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: i32,
    /// What goes to stdout: `--help` and the like.
    pub stdout: String,
    /// What goes to stderr, ending in a line feed unless empty.
    pub stderr: String,
}

impl Exit {
    /// Bad usage; sysexits' EX_USAGE.
    pub const USAGE: i32 = 64;
    /// No such user; sysexits' EX_NOUSER.
    pub const NO_USER: i32 = 67;
    /// The operating system said no; sysexits' EX_OSERR.
    pub const OS_ERROR: i32 = 71;

    /// An exit with a message.
    pub fn refuse(code: i32, message: impl Into<String>) -> Exit {
        Exit { code, stdout: String::new(), stderr: message.into() + "\n" }
    }

    /// An exit for bad usage.
    pub fn usage(message: impl Into<String>) -> Exit {
        Exit::refuse(Exit::USAGE, message)
    }

    /// A good exit that prints something.
    pub fn print(text: String) -> Exit {
        Exit { code: 0, stdout: text, stderr: String::new() }
    }
}
