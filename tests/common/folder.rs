//! A folder of one test's own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A new folder that anybody may write to; removed with all that is in it when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        Folder::new_in(&std::env::temp_dir())
    }

    /// As [`Folder::new`], in memory where that can be: for what waits for the disk and must not. MEMORY_TMPDIR says where.
    pub fn new_in_memory() -> Folder {
        let memory = std::env::var_os("MEMORY_TMPDIR").filter(|place| !place.is_empty());
        let memory = memory.map_or("/dev/shm".into(), PathBuf::from);
        Folder::new_in(if memory.is_dir() { &memory } else { Path::new("/tmp") })
    }

    fn new_in(parent: &Path) -> Folder {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("twincache-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = parent.join(name);
        fs::create_dir(&path).expect("a new folder");
        fs::set_permissions(&path, Permissions::from_mode(0o777)).expect("it is ours");
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it, as words of a command line are.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
