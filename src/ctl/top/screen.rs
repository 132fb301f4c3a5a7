//! The terminal while `top` has it, and how it gets back what it was.
//!
//! ```text
//!   open ──> raw, the other screen      draw │ keys           close, a panic ──> as before
//!     └── a thread for signals:   TERM, INT, HUP, or nobody at the other end ──> as before, exit
//!                                 TSTP, ctrl-Z ──> as before, stop … CONT ──> raw, drawn anew
//! ```
//!
//! The thread is needed because reading keys from a terminal that is gone may never return.
//!
//! Invariants: who changes the terminal or draws has the lock, and who ends the program keeps it. Writing to a terminal that
//! nobody reads waits, with the lock: so a signal to end waits for [`STALLED_MAX`] only. After that the modes are given
//! back, for which nothing is written, and the other screen is not left.

use super::draw::{TopView, draw};
use crate::sync::{lock, try_lock};
use crate::sys::terminal::{
    TerminalSignal, ask_to_suspend, block_terminal_signals, end_at_once, is_hung_up, stop_self, wait_terminal_signal,
};
use ratatui::DefaultTerminal;
use ratatui::crossterm::terminal::{Clear, ClearType, disable_raw_mode};
use ratatui::crossterm::{cursor, execute};
use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::process;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// How soon it is noticed that the terminal is gone.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a terminal may take nothing when it is to be given back.
const STALLED_MAX: Duration = Duration::from_secs(1);

/// A pause between two tries to have the terminal.
const NAP: Duration = Duration::from_millis(20);

/// See the module's head. The lock has the terminal.
#[derive(Clone)]
pub(super) struct Screen(Arc<Mutex<DefaultTerminal>>);

impl Screen {
    /// Takes the terminal. Threads that were started before do not keep signals back.
    pub(super) fn open() -> io::Result<Screen> {
        block_terminal_signals()?;
        let screen = Screen(Arc::new(Mutex::new(take()?)));
        give_back_on_panic();
        let watched = screen.clone();
        let started = thread::Builder::new().name("signals".to_owned()).spawn(move || watched.watch());
        started.map(|_| screen).inspect_err(|_| give_back())
    }

    pub(super) fn draw(&self, view: &TopView<'_>) -> io::Result<()> {
        lock(&self.0).draw(|frame| draw(frame, view)).map(drop)
    }

    /// Gives it back.
    pub(super) fn close(&self) {
        let _terminal = lock(&self.0);
        give_back();
    }

    /// Lets the thread for signals give it back and stop the process, until somebody lets it go on.
    pub(super) fn suspend(&self) -> io::Result<()> {
        ask_to_suspend()
    }

    fn watch(&self) {
        loop {
            let done = match wait_terminal_signal(LOOK_EVERY) {
                Some(TerminalSignal::End) => self.end(),
                Some(TerminalSignal::Suspend) => self.lend(stop_self),
                // Whoever had it meanwhile may have left it otherwise.
                Some(TerminalSignal::Resumed) => self.lend(|| Ok(())),
                None if is_hung_up(io::stdin().as_fd()) => self.end(),
                None => Ok(()),
            };
            if done.is_err() {
                let _ = self.end();
            }
        }
    }

    /// Gives it back for as long as this takes.
    fn lend(&self, meanwhile: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        // Whoever waits here for a terminal that is stalled hears no signal to end.
        let Some(mut terminal) = self.try_have(STALLED_MAX) else { return Ok(()) };
        give_back();
        meanwhile()?;
        // All of it is drawn anew. `Terminal::clear` would ask where the cursor is, which not every terminal answers.
        *terminal = take()?;
        execute!(io::stdout(), Clear(ClearType::All))
    }

    /// The terminal, if it can be had before this has passed.
    fn try_have(&self, patience: Duration) -> Option<MutexGuard<'_, DefaultTerminal>> {
        let until = Instant::now() + patience;
        loop {
            let terminal = try_lock(&self.0);
            if terminal.is_some() || Instant::now() >= until {
                return terminal;
            }
            thread::sleep(NAP);
        }
    }

    fn end(&self) -> io::Result<()> {
        // Giving it back writes, too, so it is not the lock alone that may be waited for.
        let late = || {
            thread::sleep(STALLED_MAX);
            let _ = disable_raw_mode();
            end_at_once(0)
        };
        let _ = thread::Builder::new().name("end".to_owned()).spawn(late);
        let _terminal = lock(&self.0);
        give_back();
        process::exit(0)
    }
}

/// Raw, with the other screen; or as it was, where that fails halfway.
fn take() -> io::Result<DefaultTerminal> {
    ratatui::try_init().inspect_err(|_| give_back())
}

/// The terminal as it was. That it cannot be done is no reason to leave the rest.
fn give_back() {
    let _ = ratatui::try_restore();
    let _ = execute!(io::stdout(), cursor::Show);
}

/// A program that ends with its first panic drops nothing.
fn give_back_on_panic() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        give_back();
        usual(what);
    }));
}
