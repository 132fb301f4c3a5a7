//! The process: its user, its limits, its way into the background, its signals.

use super::check;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// A user of the system, as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    uid: libc::uid_t,
    gid: libc::gid_t,
}

/// Whether the process has root's rights, or may take them back.
pub fn is_root() -> bool {
    // SAFETY: both only read the process's own ids and cannot fail.
    unsafe { libc::getuid() == 0 || libc::geteuid() == 0 }
}

/// The user whose rights the process has.
pub fn effective_user() -> u32 {
    // SAFETY: it only reads the process's own id and cannot fail.
    unsafe { libc::geteuid() }
}

/// Looks a user up by name; None when there is none.
pub fn find_user(name: &str) -> io::Result<Option<User>> {
    let name = CString::new(name)?;
    let mut buffer = vec![0; 16 << 10];
    // SAFETY: all zeros is a valid passwd: numbers and null pointers.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: name is a C string; entry, buffer (with its true length) and found outlive the call.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found) };
    match code {
        0 if found.is_null() => Ok(None),
        0 => Ok(Some(User { uid: entry.pw_uid, gid: entry.pw_gid })),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Leaves all supplementary groups.
pub fn drop_groups() -> io::Result<()> {
    // SAFETY: with a count of 0 the pointer is not read.
    check(unsafe { libc::setgroups(0, std::ptr::null()) })
}

/// Becomes `user` for good. The group is set first, because that needs the rights that setting the user gives up.
pub fn become_user(user: User) -> io::Result<()> {
    // SAFETY: takes a number only.
    check(unsafe { libc::setgid(user.gid) })?;
    // SAFETY: takes a number only.
    check(unsafe { libc::setuid(user.uid) })
}

/// A resource that the kernel limits for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Open file descriptors.
    Files,
    /// Bytes of a core file.
    Core,
    /// Bytes of memory that may be locked.
    LockedMemory,
}

/// No limit.
pub const UNLIMITED: u64 = libc::RLIM_INFINITY;

/// The present soft and hard limit.
pub fn limit(of: Resource) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: limit outlives the call.
    check(unsafe { libc::getrlimit(of.number(), &mut limit) })?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Sets the soft and the hard limit.
pub fn set_limit(of: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: limit outlives the call, which only reads it.
    check(unsafe { libc::setrlimit(of.number(), &limit) })
}

impl Resource {
    fn number(self) -> libc::__rlimit_resource_t {
        match self {
            Resource::Files => libc::RLIMIT_NOFILE,
            Resource::Core => libc::RLIMIT_CORE,
            Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        }
    }
}

/// Lets the kernel write a core file although the process has changed its user.
pub fn allow_core_dump() -> io::Result<()> {
    // SAFETY: PR_SET_DUMPABLE takes one number; the other arguments are not read.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })
}

/// Locks all memory of the process, present and future, page by page as it is first touched: address space that
/// is only reserved takes no memory.
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: changes how pages are kept, not what is in them.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) })
}

/// The process that [`detach`] has left in the foreground.
#[derive(Debug)]
pub struct Parent(PipeWriter);

impl Parent {
    /// Lets it end, with exit code 0.
    pub fn release(mut self) {
        // Whoever has killed it meanwhile does not wait for it.
        let _ = self.0.write_all(b"!");
    }
}

/// Forks and goes on in a child with a session of its own. The parent ends when it is released, or with the exit code of
/// a child that ends before. No other thread may exist yet: it would not exist in the child, and locks that it held
/// would stay locked.
pub fn detach() -> io::Result<Parent> {
    let (mut word, parent) = io::pipe()?;
    // SAFETY: the process has one thread (see above), so the child is whole.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: takes a number, returns nothing.
        0 => check(unsafe { libc::setsid() }).map(|()| Parent(parent)),
        child => {
            // Else the end of the child would not be the end of the pipe.
            drop(parent);
            let code = if word.read_exact(&mut [0]).is_ok() { 0 } else { exit_code_of(child) };
            // SAFETY: ends the process without running what belongs to the child now: buffers, atexit.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Waits for a child to end. Its exit code, or, as a shell has it, 128 and its signal.
fn exit_code_of(child: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: status outlives the call; the child is ours, and nobody else waits for it.
    while let Err(error) = check(unsafe { libc::waitpid(child, &mut status, 0) }) {
        if error.kind() != io::ErrorKind::Interrupted {
            return 1;
        }
    }
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// Puts this thread, and what it starts from now on, into the network namespace that this file names.
pub fn enter_network(namespace: &File) -> io::Result<()> {
    // SAFETY: takes numbers; the descriptor is open, and one of another kind is an error.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) })
}

/// Connects stdin, stdout and stderr to /dev/null.
pub fn close_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for stdio in 0..=2 {
        // SAFETY: both are open descriptors or plain numbers; null stays open until the end.
        check(unsafe { libc::dup2(null.as_raw_fd(), stdio) })?;
    }
    Ok(())
}

/// The signals that the server reacts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT or SIGTERM: stop.
    Stop,
    /// SIGUSR1: stop gracefully.
    StopGracefully,
    /// SIGHUP: read files again.
    Reload,
}

/// Keeps the signals of [`Signal`] from this thread and from those it will start, so that they wait for
/// [`wait_signal`].
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &signal_set(), std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The next signal, or None after about `timeout`. [`block_signals`] comes first.
pub fn wait_signal(timeout: Duration) -> Option<Signal> {
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos() as libc::c_long };
    // SAFETY: set and timeout outlive the call; the details of the signal are not asked for.
    match unsafe { libc::sigtimedwait(&signal_set(), std::ptr::null_mut(), &timeout) } {
        libc::SIGINT | libc::SIGTERM => Some(Signal::Stop),
        libc::SIGUSR1 => Some(Signal::StopGracefully),
        libc::SIGHUP => Some(Signal::Reload),
        // No signal came in time, or a signal that is not one of ours interrupted the call.
        _ => None,
    }
}

/// Whether a signal to stop waits for [`wait_signal`].
pub fn is_told_to_stop() -> bool {
    // SAFETY: all zeros is a valid set of signals, which outlives the calls.
    unsafe {
        let mut waiting = std::mem::zeroed();
        let is_known = libc::sigpending(&mut waiting) == 0;
        is_known && [libc::SIGINT, libc::SIGTERM, libc::SIGUSR1].iter().any(|&it| libc::sigismember(&waiting, it) == 1)
    }
}

/// Whether there is a process of this number, be it one that may not be looked at.
pub fn exists(pid: u32) -> bool {
    // SAFETY: takes two numbers; 0 is no signal.
    let found = check(unsafe { libc::kill(pid as libc::pid_t, 0) });
    found.map_err(|error| error.raw_os_error()) != Err(Some(libc::ESRCH))
}

/// Sends a signal to this process, not to this thread: the thread that calls [`wait_signal`] gets it.
pub fn signal_self(signal: Signal) -> io::Result<()> {
    let number = match signal {
        Signal::Stop => libc::SIGINT,
        Signal::StopGracefully => libc::SIGUSR1,
        Signal::Reload => libc::SIGHUP,
    };
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(libc::getpid(), number) })
}

/// Kills a process, of which this one is the parent and which leads a group of its own, with that group. Until it has been
/// waited for, no other process can have its id.
pub fn kill_group(leader: &Child) -> io::Result<()> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(-(leader.id() as libc::pid_t), libc::SIGKILL) })
}

/// Lets the program of a command be stopped by signals as usual: what [`block_signals`] keeps from this process would
/// be kept from its children, too.
pub fn unblock_signals_for(command: &mut Command) {
    let unblock = || {
        // SAFETY: the set outlives the call; the old mask is not asked for.
        match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &signal_set(), std::ptr::null_mut()) } {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    };
    // SAFETY: it runs between fork and exec, where only what is safe in a handler of signals may be called: it
    // changes the mask and a set on the stack, and neither allocates nor locks.
    unsafe { command.pre_exec(unblock) };
}

fn signal_set() -> libc::sigset_t {
    set_of(&[libc::SIGINT, libc::SIGTERM, libc::SIGUSR1, libc::SIGHUP])
}

/// These signals as a set.
pub(super) fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: a sigset is plain bits; sigemptyset makes a good one of any, and the numbers are signals.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for &signal in signals {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name() {
        assert_eq!(find_user("root").unwrap(), Some(User { uid: 0, gid: 0 }));
        assert_eq!(find_user("no such user").unwrap(), None);
        assert!(find_user("ro\0ot").is_err());
    }

    #[test]
    fn limits_are_read_back() {
        let (soft, hard) = limit(Resource::Files).unwrap();
        assert!(0 < soft && soft <= hard);
        set_limit(Resource::Files, soft, hard).unwrap();
        assert_eq!(limit(Resource::Files).unwrap(), (soft, hard));
        assert!(set_limit(Resource::Files, hard, hard - 1).is_err(), "soft above hard");
    }

    #[test]
    fn processes_exist_until_they_have_been_waited_for() {
        let mut child = Command::new("true").spawn().unwrap();
        assert!(exists(child.id()) && exists(1));
        child.wait().unwrap();
        assert!(!exists(child.id()));
    }

    #[test]
    fn a_blocked_signal_waits_to_be_taken() {
        // A thread of its own: the mask is the thread's, and the signal goes to this thread alone.
        std::thread::spawn(|| {
            block_signals().unwrap();
            assert_eq!(wait_signal(Duration::ZERO), None);
            // SAFETY: takes a number; the signal is blocked, so it ends nothing.
            unsafe { libc::raise(libc::SIGHUP) };
            assert_eq!(wait_signal(Duration::from_secs(1)), Some(Signal::Reload));
        })
        .join()
        .unwrap();
    }
}
