//! `top`: several servers at once, in a terminal, as they are now.
//!
//! ```text
//!   poll (a thread a server) ──> TopBoard ──rows──> draw ──> screen
//!        dial, rates, latency       ^                ^
//!                                   └─── keys ───────┘   the chosen server, the order, a pause
//!   without a terminal: once ──> a plain table or JSON
//! ```
//!
//! It shows a memcached, too, as far as that tells. What it asks costs a server a few `stats` an interval.
//!
//! Not here: the tables of what servers have counted since they started (`insight`).

mod columns;
mod draw;
mod figures;
mod keys;
mod latency;
mod once;
mod poll;
mod rates;
mod screen;

use super::exit::CtlExit;
use super::options::TopOptions;
use columns::in_order;
use draw::TopView;
use keys::{TopChoice, TopWish};
use poll::TopBoard;
use ratatui::crossterm::event::{self, Event};
use screen::Screen;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// The most servers: each has a thread.
const SERVERS_MAX: usize = 512;

/// How soon the screen shows what a thread has left for it.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often it is drawn if nothing happens: a server that says nothing has said nothing for longer.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// Shows these servers until the operator has seen enough.
pub(super) fn top(options: &TopOptions, is_json: bool) -> Result<(), CtlExit> {
    let servers = options.servers.len();
    if servers > SERVERS_MAX {
        return Err(CtlExit::usage(&format!("{servers} servers are too many: at most {SERVERS_MAX}")));
    }
    if options.is_once || is_json {
        return once::once(options, is_json);
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(CtlExit::usage("top needs a terminal; --once prints a table without one"));
    }
    let screen = Screen::open().map_err(|error| lost(&error))?;
    // After the screen: its threads leave signals to the one that is for them.
    let shown = TopBoard::start(options, 0).and_then(|board| {
        let looked = look(&screen, &board, options.interval);
        looked.map_err(|error| lost(&error))
    });
    screen.close();
    shown
}

fn lost(error: &io::Error) -> CtlExit {
    CtlExit::not_done(&format!("the terminal: {error}"))
}

fn look(screen: &Screen, board: &TopBoard, interval: Duration) -> io::Result<()> {
    let (mut choice, mut rows) = (TopChoice::default(), board.rows());
    let (mut drawn, mut seen) = (None::<Instant>, u64::MAX);
    loop {
        let (now, version) = (Instant::now(), board.version());
        if version != seen || drawn.is_none_or(|drawn| now >= drawn + DRAW_EVERY) {
            if version != seen {
                rows = board.rows();
            }
            screen.draw(&TopView { rows: &rows, choice: &choice, interval, now })?;
            (drawn, seen) = (Some(now), version);
        }
        if !event::poll(LOOK_EVERY)? {
            continue;
        }
        if let Event::Key(key) = event::read()? {
            match choice.press(key, &in_order(&rows, choice.sort, choice.is_reversed)) {
                TopWish::Draw => board.choose(choice.server, choice.is_paused),
                TopWish::Quit => return Ok(()),
                TopWish::Suspend => screen.suspend()?,
            }
        }
        // A key or another size.
        drawn = None;
    }
}
