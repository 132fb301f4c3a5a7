//! A wall clock of a process that a test steps, without touching the machine's.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable that says where the step stands.
const VARIABLE: &str = "TWINCACHE_TEST_CLOCK";

/// What is preloaded, as source.
const SOURCE: &str = include_str!("clock.c");

/// See the module's head.
pub struct Clock {
    /// What is preloaded.
    library: PathBuf,
    /// Where the step stands.
    file: PathBuf,
}

impl Clock {
    /// A clock that shows the machine's time. None, and a printed line, where there is no C compiler.
    pub fn new(folder: &Path, name: &str) -> Option<Clock> {
        let (library, file) = (folder.join("clock.so"), folder.join(format!("{name}.clock")));
        if !library.exists() && !compile(&library) {
            println!("skipped: no clock that can be stepped: no C compiler");
            return None;
        }
        let clock = Clock { library, file };
        clock.step(0);
        Some(clock)
    }

    /// What the environment of a process must have that is to see it.
    pub fn variables(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), (VARIABLE, &self.file)]
    }

    /// From now on it is wrong by so many seconds.
    pub fn step(&self, seconds: i64) {
        let file = File::options().create(true).truncate(false).write(true).open(&self.file).expect("a file");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("eight bytes");
    }
}

fn compile(library: &Path) -> bool {
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-x", "c", "-o"]).arg(library).arg("-").stdin(Stdio::piped());
    let Ok(mut compiler) = compiler.spawn() else { return false };
    compiler.stdin.take().expect("piped").write_all(SOURCE.as_bytes()).expect("it reads");
    compiler.wait().is_ok_and(|status| status.success())
}
