//! What the process does to itself at start and stop: limits, user, background, memory lock, pid and port files.
//!
//! The order of [`prepare`] is memcached's, and each step needs its place:
//!
//! ```text
//! 1 limits      raising them needs root
//! 2 user        dropped before anything is opened, so that sockets and files belong to the user; hence a
//!               port below 1024 takes CAP_NET_BIND_SERVICE, not root
//! 3 background  fork, before any thread exists: a child has only the thread that forked. The parent and stderr stay
//!               until the server listens: whoever started it learns what became of it
//! 4 memory      a memory lock does not survive fork
//! 5 signals     blocked before any thread exists, because threads inherit the mask: they wait for main
//! ```
//!
//! SIGPIPE needs no step: Rust's runtime ignores it.
//!
//! Not here: options ([`crate::config`]), system calls ([`crate::sys`]).

use crate::config::{Config, Exit};
use crate::sys::machine::MachineMemory;
use crate::sys::process::{self, Parent, Resource, UNLIMITED};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Descriptors beyond connections: stdio, listeners, and an event loop and a waker per worker.
const FILES_RESERVED: u64 = 64;
const FILES_PER_WORKER: u64 = 4;

/// Everything that comes before the first thread and the first socket. See the module's head for the order.
pub fn prepare(config: &Config) -> Result<Option<InBackground>, Exit> {
    if config.coredumps {
        raise_core_limit()?;
    }
    raise_file_limit(config)?;
    if config.lock_memory {
        // Only root may raise this limit. lock_memory below sees whether it was raised.
        let _ = process::set_limit(Resource::LockedMemory, UNLIMITED, UNLIMITED);
    }
    if process::is_root() {
        drop_root(config)?;
    }
    let background = if config.daemonize { Some(go_to_background(config).map_err(no_background)?) } else { None };
    if config.lock_memory {
        lock_memory();
    }
    process::block_signals().map_err(|error| os_error(format!("failed to block signals: {error}")))?;
    Ok(background)
}

/// What [`prepare`] would refuse. The process has no more rights than a server's afterwards.
pub fn check_rights(config: &Config) -> Vec<Exit> {
    let cores = if config.coredumps { raise_core_limit() } else { Ok(()) };
    let files = raise_file_limit(config);
    let user = if process::is_root() { drop_root(config) } else { Ok(()) };
    let folder = if config.daemonize { leave_folder(config).map_err(no_background) } else { Ok(()) };
    [cores, files, user, folder].into_iter().filter_map(Result::err).collect()
}

/// Says so where `-m` is more than the system has. What it has not got now is not taken at start either: the system would
/// not refuse it, but end this process, or another one.
pub fn fit_memory(config: &mut Config) {
    if let Some(line) = memory_warning(config) {
        log::warn!("{line}");
    }
    let (store, Some(memory)) = (&config.store, MachineMemory::now()) else { return };
    if store.preallocate && store.memory_limit > memory.available {
        take_less(config);
    }
}

/// What to say of an `-m` that is more than the system has.
pub fn memory_warning(config: &Config) -> Option<String> {
    let (limit, memory) = (config.store.memory_limit, MachineMemory::now()?);
    let whose = if memory.is_limited { "the control group of this process may have" } else { "this machine has" };
    (limit > memory.total).then(|| {
        format!(
            "warning: -m {} is more than the {} MB that {whose}: when the cache has filled them, the system swaps, or \
             ends the server. Give it a smaller -m",
            limit >> 20,
            memory.total >> 20
        )
    })
}

/// COMPAT(large_pages_not_had): where not all memory can be had at start, it is taken as it is needed.
pub fn take_less(config: &mut Config) {
    log::warn!("Warning: Failed to allocate requested memory in one large chunk.\nWill allocate in smaller chunks");
    config.store.preallocate = false;
}

fn raise_core_limit() -> Result<(), Exit> {
    if process::set_limit(Resource::Core, UNLIMITED, UNLIMITED).is_err()
        && let Ok((_, hard)) = process::limit(Resource::Core)
    {
        let _ = process::set_limit(Resource::Core, hard, hard);
    }
    match process::limit(Resource::Core) {
        Ok((soft, _)) if soft > 0 => Ok(()),
        _ => Err(os_error("failed to ensure corefile creation")),
    }
}

/// Raises the limit of open files for `-c` connections and our own descriptors. Room for the connections alone will do
/// where no more is allowed.
fn raise_file_limit(config: &Config) -> Result<(), Exit> {
    let limits = process::limit(Resource::Files);
    let (soft, hard) = limits.map_err(|_| os_error("failed to getrlimit number of files"))?;
    let needed = u64::from(config.max_conns);
    let wanted = needed + FILES_RESERVED + FILES_PER_WORKER * config.threads as u64;
    if soft >= wanted || process::set_limit(Resource::Files, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    if hard >= needed && process::set_limit(Resource::Files, hard, hard).is_ok() {
        return Ok(());
    }
    Err(os_error("failed to set rlimit for open files. Try starting as root or requesting smaller maxconns value."))
}

/// Becomes the user of `-u`.
fn drop_root(config: &Config) -> Result<(), Exit> {
    let name = config.user.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Err(Exit::usage("must add '-u root' to start as root"));
    }
    let nobody = || Exit::refuse(Exit::NO_USER, format!("can't find the user {name} to switch to"));
    let user = process::find_user(name).ok().flatten().ok_or_else(nobody)?;
    if let Err(error) = process::drop_groups() {
        let line = format!("failed to drop supplementary groups: {error}");
        // EPERM: in a user namespace there may be no groups to drop, or no right to drop them.
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Err(os_error(line));
        }
        log::warn!("{line}");
    }
    process::become_user(user).map_err(|_| os_error(format!("failed to assume identity of user {name}")))?;
    if config.coredumps {
        let _ = process::allow_core_dump();
    }
    Ok(())
}

/// A server in the background, whose parent still waits for it.
#[derive(Debug)]
pub struct InBackground {
    parent: Parent,
    keeps_stdio: bool,
}

impl InBackground {
    /// Lets the parent go: the server is up. From now on nothing is said on the terminal, unless by `-v`.
    pub fn is_up(self) -> Result<(), Exit> {
        if !self.keeps_stdio {
            process::close_stdio().map_err(no_background)?;
        }
        self.parent.release();
        Ok(())
    }
}

fn go_to_background(config: &Config) -> io::Result<InBackground> {
    let parent = process::detach()?;
    leave_folder(config)?;
    Ok(InBackground { parent, keeps_stdio: config.verbosity > 0 })
}

/// A core file is written to the working directory, so that stays as it is when one is wanted.
fn leave_folder(config: &Config) -> io::Result<()> {
    if config.coredumps { Ok(()) } else { std::env::set_current_dir("/") }
}

fn no_background(_: io::Error) -> Exit {
    Exit::refuse(1, "failed to daemon() in order to daemonize")
}

/// Locks memory only where no limit is set. Under a limit the lock would succeed now, and every later allocation beyond
/// the limit would fail.
fn lock_memory() {
    let locked = match process::limit(Resource::LockedMemory) {
        Ok((UNLIMITED, _)) => process::lock_memory().map_err(|error| error.to_string()),
        Ok((soft, _)) => Err(format!("only {soft} bytes may be locked. Start with -u root, or raise ulimit -l")),
        Err(error) => Err(error.to_string()),
    };
    if let Err(reason) = locked {
        log::warn!("warning: -k invalid, mlockall() failed: {reason}");
    }
}

fn os_error(line: impl Into<String>) -> Exit {
    Exit::refuse(Exit::OS_ERROR, line)
}

/// The file of `-P`, for as long as the server runs.
#[derive(Debug)]
pub struct PidFile<'a> {
    path: &'a str,
    remove: bool,
}

impl PidFile<'_> {
    /// Writes the file if there is to be one. The server starts even if that fails.
    pub fn write(config: &Config) -> Option<PidFile<'_>> {
        let path = config.pidfile.as_deref()?;
        warn_if_running(path);
        if let Err(error) = replace(path, &format!("{}\n", std::process::id())) {
            log::warn!("Could not open the pid file {path}.tmp for writing: {error}");
            return None;
        }
        Some(PidFile { path, remove: config.daemonize })
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if self.remove
            && let Err(error) = std::fs::remove_file(self.path)
        {
            log::warn!("Could not remove the pid file {}: {error}", self.path);
        }
    }
}

fn warn_if_running(path: &str) {
    let pid = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    if let Some(pid) = pid.filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()) {
        log::warn!("WARNING: The pid file contained the following (running) pid: {pid}");
    }
}

/// Writes a file beside it and renames that, so that nobody ever reads half a file.
fn replace(path: &str, text: &str) -> io::Result<()> {
    let temporary = format!("{path}.tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, path)
}

/// Writes the ports that were bound to the file that MEMCACHED_PORT_FILENAME names, for a caller that asked for any
/// free port.
pub fn write_port_file(tcp: &[SocketAddr], udp: &[SocketAddr]) {
    let Some(path) = std::env::var_os("MEMCACHED_PORT_FILENAME") else { return };
    let mut temporary = path.clone();
    temporary.push(".lck");
    let written = OpenOptions::new()
        .append(true)
        .create(true)
        .open(&temporary)
        .and_then(|mut file| file.write_all(ports(tcp, udp).as_bytes()))
        .and_then(|()| std::fs::rename(&temporary, &path));
    if let Err(error) = written {
        log::warn!("Failed to write the port file {}: {error}", path.display());
    }
}

fn ports(tcp: &[SocketAddr], udp: &[SocketAddr]) -> String {
    let all = tcp.iter().map(|address| ("TCP", address)).chain(udp.iter().map(|address| ("UDP", address)));
    let line = |(kind, address): (&str, &SocketAddr)| {
        format!("{kind} {}: {}\n", if address.is_ipv4() { "INET" } else { "INET6" }, address.port())
    };
    all.map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_listed_per_family() {
        let addresses = ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        assert_eq!(ports(&addresses, &addresses[..1]), "TCP INET: 1\nTCP INET6: 2\nUDP INET: 1\n");
    }
}
