//! What a program that fills a terminal needs of the system: signals that must not end it with the terminal changed.
//!
//! Not here: what the terminal shows, and its modes.

use super::check;
use super::process::set_of;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// What a signal wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminalSignal {
    /// SIGINT, SIGTERM or SIGHUP: the end.
    End,
    /// SIGTSTP: the terminal is lent to another program.
    Suspend,
    /// SIGCONT: it has it again.
    Resumed,
}

const SIGNALS: [libc::c_int; 5] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGTSTP, libc::SIGCONT];

/// Keeps these signals from this thread and from those it will start, so that they wait for [`wait_terminal_signal`].
pub fn block_terminal_signals() -> io::Result<()> {
    // SAFETY: the set outlives the call; the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set_of(&SIGNALS), std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// The next signal, or None after about `timeout`. [`block_terminal_signals`] comes first.
pub fn wait_terminal_signal(timeout: Duration) -> Option<TerminalSignal> {
    match wait_for(&SIGNALS, timeout) {
        libc::SIGINT | libc::SIGTERM | libc::SIGHUP => Some(TerminalSignal::End),
        libc::SIGTSTP => Some(TerminalSignal::Suspend),
        libc::SIGCONT => Some(TerminalSignal::Resumed),
        // No signal came in time, or one that is not ours interrupted the call.
        _ => None,
    }
}

fn wait_for(signals: &[libc::c_int], timeout: Duration) -> libc::c_int {
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs() as libc::time_t, tv_nsec: timeout.subsec_nanos() as libc::c_long };
    // SAFETY: set and timeout outlive the call; the details of the signal are not asked for.
    unsafe { libc::sigtimedwait(&set_of(signals), std::ptr::null_mut(), &timeout) }
}

/// Lets the thread that waits for signals hear that the terminal is to be lent.
pub fn ask_to_suspend() -> io::Result<()> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(libc::getpid(), libc::SIGTSTP) })
}

/// Stops this process; returns when it goes on. For the thread that waits for signals: it takes the one by which the
/// process goes on, or gives that up after a second of running.
pub fn stop_self() -> io::Result<()> {
    // SAFETY: takes two numbers.
    check(unsafe { libc::kill(libc::getpid(), libc::SIGSTOP) })?;
    // Another thread may be the one that is stopped first.
    wait_for(&[libc::SIGCONT], Duration::from_secs(1));
    Ok(())
}

/// Ends this process without anything that is done before its end, such as writing what is still to be written.
pub fn end_at_once(code: i32) -> ! {
    // SAFETY: takes a number, and does not return.
    unsafe { libc::_exit(code) }
}

/// Whether nobody is at the other end of a terminal any more.
pub fn is_hung_up(terminal: BorrowedFd<'_>) -> bool {
    let mut polled = libc::pollfd { fd: terminal.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one pollfd, which outlives the call, and it does not wait.
    let found = unsafe { libc::poll(&mut polled, 1, 0) };
    found == 1 && polled.revents & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_closed_end_is_seen() {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_hung_up(here.as_fd()));
        drop(there);
        assert!(is_hung_up(here.as_fd()));
    }

    #[test]
    fn signals_wait_to_be_taken() {
        // A thread of its own: the mask is the thread's, and the signal goes to this thread alone.
        std::thread::spawn(|| {
            block_terminal_signals().unwrap();
            assert_eq!(wait_terminal_signal(Duration::ZERO), None);
            // SAFETY: takes a number; the signal is blocked, so it stops nothing.
            unsafe { libc::raise(libc::SIGTSTP) };
            assert_eq!(wait_terminal_signal(Duration::from_secs(1)), Some(TerminalSignal::Suspend));
        })
        .join()
        .unwrap();
    }
}
