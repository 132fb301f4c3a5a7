//! What the operator has chosen, and which key chooses it.
//!
//! ```text
//!   up, down, k, j, Home, End   another server           tab   what the lower half shows
//!   left, right, < >            another order            r     the other way round
//!   space, p                    stop looking, go on      q, Esc, ctrl-C   the end      ctrl-Z   a pause of the program
//! ```
//!
//! Not here: what is drawn of it (`draw`).

use super::columns::COLUMNS;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What the last line says.
pub(super) const HELP: &str = "q quit  up/down server  left/right sort  r reverse  tab details  space pause";

/// Shorter, for narrow screens.
pub(super) const HELP_SHORT: &str = "q quit  arrows  r  tab  space pause";

/// What the lower half shows of the chosen server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum TopPane {
    #[default]
    HotKeys,
    Latency,
    Slabs,
}

impl TopPane {
    /// The one after it.
    pub(super) fn next(self) -> TopPane {
        match self {
            TopPane::HotKeys => TopPane::Latency,
            TopPane::Latency => TopPane::Slabs,
            TopPane::Slabs => TopPane::HotKeys,
        }
    }
}

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TopChoice {
    /// Which of the servers as they were given.
    pub server: usize,
    /// The column by which they are in order; None: as they were given.
    pub sort: Option<usize>,
    pub is_reversed: bool,
    pub is_paused: bool,
    pub pane: TopPane,
}

/// What a key asks of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TopWish {
    /// Nothing but to be drawn.
    Draw,
    Quit,
    Suspend,
}

impl TopChoice {
    /// Takes a key; `order` has the servers as they stand on the screen.
    pub(super) fn press(&mut self, key: KeyEvent, order: &[usize]) -> TopWish {
        if key.kind == KeyEventKind::Release {
            return TopWish::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => TopWish::Quit,
                KeyCode::Char('z') => TopWish::Suspend,
                _ => TopWish::Draw,
            };
        }
        match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => return TopWish::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.go(order, |at| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.go(order, |at| at.saturating_add(1)),
            KeyCode::Home => self.go(order, |_| 0),
            KeyCode::End => self.go(order, |_| usize::MAX),
            KeyCode::Left | KeyCode::Char('<') => self.sort = self.sort.map_or(Some(COLUMNS.len() - 1), before),
            KeyCode::Right | KeyCode::Char('>') => {
                self.sort = Some(self.sort.map_or(0, |at| at + 1)).filter(|at| *at < COLUMNS.len());
            }
            KeyCode::Char('r') => self.is_reversed = !self.is_reversed,
            KeyCode::Char('p' | ' ') => self.is_paused = !self.is_paused,
            KeyCode::Tab => self.pane = self.pane.next(),
            _ => {}
        }
        TopWish::Draw
    }

    fn go(&mut self, order: &[usize], step: impl Fn(usize) -> usize) {
        let at = order.iter().position(|server| *server == self.server).unwrap_or(0);
        if let Some(server) = order.get(step(at).min(order.len().saturating_sub(1))) {
            self.server = *server;
        }
    }
}

fn before(at: usize) -> Option<usize> {
    at.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(choice: &mut TopChoice, codes: &[KeyCode]) -> TopWish {
        let order = [2, 0, 1];
        let press = |wish, code: &KeyCode| match choice.press((*code).into(), &order) {
            TopWish::Draw => wish,
            wish => wish,
        };
        codes.iter().fold(TopWish::Draw, press)
    }

    #[test]
    fn servers_are_chosen_as_they_stand_on_the_screen() {
        let mut choice = TopChoice { server: 2, ..TopChoice::default() };
        pressed(&mut choice, &[KeyCode::Down]);
        assert_eq!(choice.server, 0);
        pressed(&mut choice, &[KeyCode::Down, KeyCode::Char('j'), KeyCode::Down]);
        assert_eq!(choice.server, 1);
        pressed(&mut choice, &[KeyCode::Home, KeyCode::Up]);
        assert_eq!(choice.server, 2);
        assert_eq!(TopChoice::default().press(KeyCode::Down.into(), &[]), TopWish::Draw);
    }

    #[test]
    fn the_order_goes_round() {
        let mut choice = TopChoice::default();
        pressed(&mut choice, &[KeyCode::Left]);
        assert_eq!(choice.sort, Some(COLUMNS.len() - 1));
        pressed(&mut choice, &[KeyCode::Right]);
        assert_eq!(choice.sort, None);
        pressed(&mut choice, &[KeyCode::Right, KeyCode::Right, KeyCode::Left, KeyCode::Char('r')]);
        assert_eq!((choice.sort, choice.is_reversed), (Some(0), true));
        pressed(&mut choice, &[KeyCode::Left]);
        assert_eq!(choice.sort, None);
    }

    #[test]
    fn the_rest() {
        let mut choice = TopChoice::default();
        assert_eq!(pressed(&mut choice, &[KeyCode::Char(' '), KeyCode::Tab, KeyCode::F(1)]), TopWish::Draw);
        assert_eq!((choice.is_paused, choice.pane), (true, TopPane::Latency));
        assert_eq!(pressed(&mut choice, &[KeyCode::Tab, KeyCode::Tab, KeyCode::Char('q')]), TopWish::Quit);
        assert_eq!(choice.pane, TopPane::HotKeys);
        for (letter, wish) in [('c', TopWish::Quit), ('z', TopWish::Suspend), ('x', TopWish::Draw)] {
            assert_eq!(choice.press(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL), &[]), wish);
        }
    }
}
