//! `-e FILE`: items that outlive the process.
//!
//! ```text
//! FILE        | record 4 KiB | … 2 MiB | window of shard 0 | window of shard 1 | …      sparse, mapped and shared
//! window      | page 0: of each page, class and chunks carved | page 1 | page 2 | …     as in memory, see `memory`
//! FILE.meta   the record of a graceful stop; whoever starts reads and removes it, as in memcached
//!
//!               start                      graceful stop
//!  (nothing) ──────────> open ───────────────────────────────────> closed, and FILE.meta
//!                          │ killed: the same machine, not restarted      │
//!                          └───────> crashed ──> open <───────────────────┘
//!  anything else: other settings, another format, a record or length that is wrong, closed without FILE.meta, open
//!  when the machine stopped, a wall clock that has gone back ──> emptied, open
//! ```
//!
//! What is proven, and by what:
//!
//! ```text
//! the file is ours and has these settings    the record's sum; every item that is believed has a seal
//! an item is whole                           its seal (`shard::seal`), whichever way the last process ended
//! it was not deleted, replaced, evicted      it is linked: a process that is killed has made all changes that it had made,
//!                                            in their order as far as a lock or a reply tells it
//! it was not flushed                         the record has the flush_alls; it is written before the reply
//! it has not expired                         the clock goes on: see `clock`
//! no cas unique is given twice               the record has one, which is at most half of CAS_LEAP behind; who finds an open
//!                                            record goes on after the leap, and after every item's
//! ```
//!
//! A process that is killed leaves its memory as it is: the pages are the kernel's. A machine that loses power does not,
//! whatever the file lies on; so an open file is only believed as long as the machine has not been restarted. A closed one
//! is on the disk, if it is a disk, before FILE.meta is.
//!
//! The record is one page, which is written by one call. A call is not cut short by a signal within a page.
//!
//! A server with a role (`-o managed`) may not have such a file: while it was away others may have changed what it holds,
//! and nothing here could tell. It is empty when it starts, and gets its copy from whoever has it.
//!
//! Nobody else may write to the file; a second server is kept away by a lock (flock). What others could have put there, or
//! can still change, is refused: a symbolic link, a file with a second name, another user's, one that others may write to.
//!
//! Not here: what becomes of the pages (`shard::restore`), the text of a record (`file_record`).

use super::StoreConfig;
use super::file_record::{Fields, FileRecord, settings};
use crate::clock::{Clock, Resumed};
use crate::sync::lock;
use crate::sys::memory::{NO_DETOUR, UNNAMED, free_bytes, is_link, lock_file, take_blocks};
use crate::sys::process::effective_user;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{Error, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Bytes of a record, which is text of about 600.
const RECORD_BYTES: usize = 4096;

/// Where the windows begin: huge pages begin so.
const WINDOWS_AT: u64 = 2 << 20;

/// The most shards, and bytes of a window, as [`super::Store`] makes them.
const SHARDS_MAX: usize = 1024;
const WINDOW_MAX: usize = 32 << 30;

/// Stamps of items are below: seconds, and a number of four bits.
const STAMPS: u64 = 1 << 35;

/// memcached's memory files are whole pages of it.
const MEMCACHED_PAGE: u64 = 1 << 20;

/// More bytes than this are no FILE.meta.
const META_MAX: u64 = 64 << 10;

/// Cas uniques that are left out after a crash: as many as can be given while the record is not written anew, which is
/// tried ten times a second.
const CAS_LEAP: u64 = 1 << 40;

/// The highest cas unique of an item that is believed after a crash: above it is what clients have asked for.
const CAS_BELIEVED: u64 = 1 << 62;

/// Bytes of what `st_blocks` counts.
const STAT_BLOCK: u64 = 512;

/// How often a start asks for the lock of its file, and how long it waits in between.
const LOCK_TRIES: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A setting that must be the same again, as text.
type Setting = (&'static str, String);

/// What is in a file, or in a word why nothing of it can be believed; no word for a new one.
type Judged = Result<(FileFound, FileRecord, Resumed), String>;

/// The file of a store that is being built, or runs. See the module's head.
#[derive(Debug)]
pub struct MemoryFile {
    path: String,
    file: Arc<File>,
    found: FileFound,
    resumed: Option<Resumed>,
    /// What stands in the file.
    record: Mutex<FileRecord>,
}

/// What was in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFound {
    /// Nothing that could be believed.
    Nothing,
    /// What a graceful stop has left.
    Closed,
    /// What a process has left that was killed.
    Crashed,
}

/// How the memory of a store is cut, unless the file says that it was cut otherwise.
#[derive(Clone, Copy, Debug)]
pub struct FileShape {
    /// Shards.
    pub shards: usize,
    /// Bytes of a window, of which any will do that the file system can count to, down to the last.
    pub windows: [usize; 2],
    /// See [`super::memory::layout::FORMAT`].
    pub format: u32,
}

impl MemoryFile {
    /// Opens or creates a file. The error is one line for the operator.
    pub fn open(path: &str, config: &StoreConfig, shape: FileShape) -> Result<MemoryFile, String> {
        let file = open_locked(path, true).map_err(|error| not_opened(path, &error))?;
        let settings = settings(config);
        let (found, record, resumed) = match look_into(path, &file, shape.format, &settings)? {
            Ok((found, record, resumed)) => (found, record, Some(resumed)),
            Err(why) => {
                clean_start(&why).iter().for_each(|line| log::warn!("{line}"));
                let record = empty(&file, shape, settings).map_err(|error| no_size(path, &error))?;
                little_room(path, &file, config.memory_limit).iter().for_each(|line| log::warn!("{line}"));
                (FileFound::Nothing, record, None)
            }
        };
        Ok(MemoryFile { path: path.into(), file: Arc::new(file), found, resumed, record: Mutex::new(record) })
    }

    /// What [`MemoryFile::open`] would warn of, or refuse. What is there stays as it is, and nothing is left behind.
    pub fn check(path: &str, config: &StoreConfig, shape: FileShape) -> Result<Vec<String>, String> {
        let settings = settings(config);
        let (file, is_new) = match open_locked(path, false) {
            Err(error) if error.kind() == ErrorKind::NotFound => match unnamed_beside(path) {
                Err(error) if cannot_be_unnamed(&error) => return Ok(Vec::new()),
                opened => (opened.map_err(|error| not_opened(path, &error))?, true),
            },
            opened => (opened.map_err(|error| not_opened(path, &error))?, false),
        };
        let Err(why) = look_into(path, &file, shape.format, &settings)? else { return Ok(Vec::new()) };
        if is_new {
            empty(&file, shape, settings).map_err(|error| no_size(path, &error))?;
        }
        Ok(clean_start(&why).into_iter().chain(little_room(path, &file, config.memory_limit)).collect())
    }

    /// What was in it.
    pub fn found(&self) -> FileFound {
        self.found
    }

    /// How the clock goes on, if there are items that know its seconds.
    pub fn resumed(&self) -> Option<Resumed> {
        self.resumed
    }

    /// The record as it was found, or made.
    pub fn record(&self) -> FileRecord {
        lock(&self.record).clone()
    }

    /// The file, and where the window of a shard begins in it.
    pub fn window(&self, shard: usize) -> (Arc<File>, u64) {
        (self.file.clone(), WINDOWS_AT + shard as u64 * self.record().window as u64)
    }

    /// The first cas unique that is certainly new, but for those of the items, of which this is the highest.
    pub fn next_cas(&self, of_items: u64) -> u64 {
        let cas = self.record().cas;
        match self.found {
            FileFound::Crashed if of_items < CAS_BELIEVED => cas.saturating_add(CAS_LEAP).max(of_items),
            FileFound::Crashed => cas.saturating_add(CAS_LEAP),
            FileFound::Closed | FileFound::Nothing => cas,
        }
    }

    /// Says that the store lives: from now on the file is open.
    pub fn begin(&self, clock: &Clock, cas: u64) {
        self.write(|record| {
            (record.is_closed, record.boot) = (false, boot());
            (record.clock, record.cas) = (clock.state(), cas);
        });
        if let Err(error) = fs::remove_file(meta_path(&self.path))
            && error.kind() != ErrorKind::NotFound
        {
            log::warn!("[restart] cannot remove {}: {error}", meta_path(&self.path));
        }
    }

    /// Writes down what has moved on, if it is time for that.
    pub fn keep(&self, clock: &Clock, cas: u64) {
        let (state, before) = (clock.state(), self.record());
        if state.zero_ms != before.clock.zero_ms || cas.saturating_sub(before.cas) > CAS_LEAP / 2 {
            self.write(|record| (record.clock, record.cas) = (state, cas));
        }
    }

    /// Writes down which flush_alls there were, before anybody is told of the last one. `state` is asked when nobody else
    /// writes.
    pub fn keep_flush(&self, state: impl FnOnce() -> [u64; 3]) {
        self.write(|record| record.flush = state());
    }

    /// Closes it after a graceful stop. Nothing may change any more.
    pub fn close(&self, clock: &Clock, cas: u64, flush: [u64; 3], buckets: usize) {
        let mut record = self.record();
        (record.turn, record.is_closed) = (record.turn + 1, true);
        (record.clock, record.cas, record.flush, record.buckets) = (clock.state(), cas, flush, buckets);
        if let Err(error) = self.write_closed(&record) {
            log::error!("[restart] cannot write {}: {error}", meta_path(&self.path));
        }
    }

    // FILE.meta comes before the record: whoever is killed between the two leaves an open file.
    fn write_closed(&self, record: &FileRecord) -> std::io::Result<()> {
        self.file.sync_all()?;
        let (path, new) = (meta_path(&self.path), format!("{}.meta.new", self.path));
        // What lies there was left by who was killed, or was put there by somebody else.
        let _ = fs::remove_file(&new);
        let mut meta = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        meta.write_all(record.encode().as_bytes())?;
        meta.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(folder_of(&path))?.sync_all()?;
        write_record(&self.file, record)?;
        self.file.sync_all()
    }

    /// Changes the record. When that fails, the file may not be believed by the next who comes: it goes.
    fn write(&self, change: impl FnOnce(&mut FileRecord)) {
        let mut record = lock(&self.record);
        change(&mut record);
        record.turn += 1;
        if let Err(error) = write_record(&self.file, &record) {
            log::error!("[restart] cannot write {}, it is removed: {error}", self.path);
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn not_opened(path: &str, error: &Error) -> String {
    format!("failed to open memory file {path}: {error}")
}

fn no_size(path: &str, error: &Error) -> String {
    format!("failed to give memory file {path} its size: {error}")
}

/// What to say where nothing in a file is believed.
fn clean_start(why: &str) -> Option<String> {
    (!why.is_empty()).then(|| format!("[restart] {why}, starting with a clean cache"))
}

/// What does not fit later is answered with an error then. What the file has taken is its own.
fn little_room(path: &str, file: &File, wanted: u64) -> Option<String> {
    let free = free_bytes(file).ok()? + file.metadata().ok()?.blocks() * STAT_BLOCK;
    (free < wanted).then(|| {
        let (free, wanted) = (free >> 20, wanted >> 20);
        format!(
            "the file system of {path} has {free} MB free, and -m allows {wanted} MB: sets will be refused when it is full"
        )
    })
}

/// A file where that of this path would be made.
fn unnamed_beside(path: &str) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(UNNAMED).open(folder_of(path))
}

/// Whether the error is the file system's, and not the folder's: it knows no such files.
fn cannot_be_unnamed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::IsADirectory | ErrorKind::InvalidInput)
}

fn folder_of(path: &str) -> &Path {
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

fn open_locked(path: &str, create: bool) -> std::io::Result<File> {
    if path.ends_with('/') {
        return Err(Error::other("it names a folder"));
    }
    let mut options = OpenOptions::new();
    let file = open_own(options.read(true).write(true).create(create).truncate(false).mode(0o600), path)?;
    // Who only looks at it (`--check`) is done in a moment.
    for _ in 0..LOCK_TRIES {
        match lock_file(&file) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(LOCK_PAUSE),
            locked => return locked.map(|()| file),
        }
    }
    Err(Error::other("another process uses it"))
}

/// Opens a file that belongs to this server's user, or to root, and to which nobody else may write.
fn open_own(options: &mut OpenOptions, path: &str) -> std::io::Result<File> {
    let refuse = |why: String| Err(Error::other(why));
    let file = match options.custom_flags(NO_DETOUR).open(path) {
        Err(error) if is_link(&error) => return refuse("it is a symbolic link: name the file itself".into()),
        opened => opened?,
    };
    let (about, we) = (file.metadata()?, effective_user());
    let (owner, mode, names) = (about.uid(), about.mode() & 0o777, about.nlink());
    if !about.is_file() {
        return refuse("it is no regular file".into());
    }
    if owner != we && owner != 0 {
        return refuse(format!("it belongs to user {owner}, and the server runs as user {we}: chown or remove it"));
    }
    if mode & 0o022 != 0 {
        return refuse(format!("others may write to it (mode {mode:03o}): chmod 600 it"));
    }
    if names > 1 {
        return refuse(format!("it has {names} names (hard links): remove the others, or this one"));
    }
    Ok(file)
}

/// What is in a file that was opened, as [`judge`] has it, or why no server may start on it.
fn look_into(path: &str, file: &File, format: u32, settings: &[Setting]) -> Result<Judged, String> {
    let meta = read_meta(path)?;
    if is_strange(file) {
        return Err(format!("{path} is no memory file: remove it, or give -e another"));
    }
    Ok(judge(file, meta.as_ref(), format, settings))
}

/// Whether it can be neither a server's of any version nor memcached's, but something that somebody may miss.
fn is_strange(file: &File) -> bool {
    let mut begin = [0; 6];
    let len = file.metadata().map_or(0, |about| about.len());
    let is_ours = file.read_exact_at(&mut begin, 0).is_ok() && begin == *b"Tmain\n";
    !is_ours && !len.is_multiple_of(MEMCACHED_PAGE)
}

/// COMPAT(meta_corrupt): as memcached does, a server does not start on a metadata file that cannot be read.
fn read_meta(path: &str) -> Result<Option<Fields>, String> {
    let path = meta_path(path);
    let mut bytes = Vec::new();
    match open_own(OpenOptions::new().read(true), &path).and_then(|file| file.take(META_MAX).read_to_end(&mut bytes)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("[restart] cannot read {path}: {error}")),
        Ok(_) => match Fields::read(&bytes) {
            Some(fields) => Ok(Some(fields)),
            None => Err(format!("[restart] corrupt metadata file {path}: remove it to start with a clean cache")),
        },
    }
}

/// Says what is in a file.
fn judge(file: &File, meta: Option<&Fields>, format: u32, settings: &[Setting]) -> Judged {
    let mut bytes = [0; RECORD_BYTES];
    let len = file.metadata().map_or(0, |about| about.len());
    if len == 0 && meta.is_none() {
        return Err(String::new());
    }
    let is_read = file.read_exact_at(&mut bytes, 0).is_ok();
    let fields = if is_read { Fields::read(&bytes) } else { None }.ok_or("the memory file has no whole record")?;
    if let Some((name, old)) = fields.other_setting(format, settings) {
        return Err(format!("restart incompatible due to setting for [{name}] [old value: {old}]"));
    }
    let record = fields.record(format, settings.to_vec()).ok_or("the memory file's record has too little in it")?;
    if !is_possible(&record) {
        return Err("the memory file's record says what cannot be".into());
    }
    if len != file_len(&record) {
        return Err(format!("the memory file has {len} bytes and should have {}", file_len(&record)));
    }
    let same_boot = record.boot == boot();
    let meta = meta.and_then(|meta| meta.record(format, settings.to_vec()));
    let found = match record.is_closed {
        true if meta.is_some_and(|meta| meta.turn == record.turn) => FileFound::Closed,
        true => return Err("no metadata save file".into()),
        false if same_boot => FileFound::Crashed,
        false => return Err("the machine stopped while the server ran".into()),
    };
    let resumed = record.clock.resume(same_boot).ok_or("the clock is behind the time of the stop")?;
    Ok((found, record, resumed))
}

/// Whether a store can be built by it. The sum keeps out damage, but not who writes what he likes.
fn is_possible(record: &FileRecord) -> bool {
    let [done, pending, floor] = record.flush;
    let windows = WINDOWS_AT as usize..=WINDOW_MAX;
    (1..=SHARDS_MAX).contains(&record.shards)
        && record.shards.is_power_of_two()
        && windows.contains(&record.window)
        && record.window.is_multiple_of(WINDOWS_AT as usize)
        && done.max(floor) < STAMPS
        && u32::try_from(pending).is_ok_and(|second| second < u32::MAX / 2)
}

/// Empties a file and gives it its size.
fn empty(file: &File, shape: FileShape, settings: Vec<(&'static str, String)>) -> std::io::Result<FileRecord> {
    file.set_len(0)?;
    let hash_seed = RandomState::new().hash_one(0);
    let FileShape { shards, format, .. } = shape;
    let mut record = FileRecord { format, settings, hash_seed, shards, cas: 1, ..FileRecord::default() };
    let mut error = None;
    for window in shape.windows {
        record.window = window;
        match file.set_len(file_len(&record)) {
            // Where blocks cannot be taken at all, that is to be said now.
            Ok(()) => return take_blocks(file, 0, WINDOWS_AT as usize).map(|()| record),
            Err(larger) => error = Some(larger),
        }
    }
    Err(error.expect("there is a window's size"))
}

fn file_len(record: &FileRecord) -> u64 {
    (record.shards as u64).saturating_mul(record.window as u64).saturating_add(WINDOWS_AT)
}

fn write_record(file: &File, record: &FileRecord) -> std::io::Result<()> {
    let mut bytes = record.encode().into_bytes();
    assert!(bytes.len() <= RECORD_BYTES, "a record is one page");
    bytes.resize(RECORD_BYTES, 0);
    file.write_all_at(&bytes, 0)
}

fn meta_path(path: &str) -> String {
    format!("{path}.meta")
}

/// Which start of the machine this is; empty where the system does not say, which is like no other.
fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match boot.trim() {
        "" => format!("none-{}", RandomState::new().hash_one(0)),
        boot => boot.into(),
    }
}
