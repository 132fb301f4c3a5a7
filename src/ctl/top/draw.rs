//! What stands on the screen.
//!
//! ```text
//!   twincachectl top   3 servers, 1 away   every 1 s                    title
//!   SERVER        ROLE     OPS/S   HIT …                                heads; the order is by the one in reverse
//!   10.0.0.1:11211 primary  12.3k 98.1% …                               a row for each server, the chosen one marked
//!   10.0.0.2:11211 away 12 s: connection refused
//!   ── hot keys of 10.0.0.1:11211 ──   ── latency ──                    as many panes as there is room for
//!   q quit …                                                            help
//! ```
//!
//! Columns leave, the least important first, until the rest fits; a screen of any size is drawn, if only a part of it.
//!
//! Invariant: nothing that a server said is drawn before it went through `harmless`.

use super::super::exit::harmless;
use super::columns::{COLUMNS, TopColumn, in_order, known, known_whole};
use super::figures::{UNKNOWN, percent, short, short_bytes, short_micros, short_seconds};
use super::keys::{HELP, HELP_SHORT, TopChoice, TopPane};
use super::rates::TopRow;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use std::time::{Duration, Instant};

/// The widest name of a server.
const NAME_MAX: usize = 30;

/// A pane has at least so many columns, and so many lines with its title.
const PANE_WIDTH: u16 = 46;
const PANE_HEIGHT: u16 = 4;

/// From so many lines on the last one is help.
const HELP_FROM: u16 = 5;

/// Blanks between two columns.
const GAP: usize = 2;

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct TopView<'r> {
    /// In the order in which the servers were given.
    pub rows: &'r [TopRow],
    pub choice: &'r TopChoice,
    pub interval: Duration,
    pub now: Instant,
}

/// Cells, of which the texts stand to the left and the numbers to the right.
type Cells = Vec<String>;

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, view: &TopView<'_>) {
    let area = frame.area();
    if area.is_empty() {
        return;
    }
    let lines = area.height;
    put(frame, 0, &title(view), Style::new().add_modifier(Modifier::BOLD));
    let wanted = u16::try_from(view.rows.len() + 1).unwrap_or(u16::MAX);
    let has_help = lines >= HELP_FROM;
    let between = lines.saturating_sub(1 + u16::from(has_help));
    let has_panes = between > wanted.min(between / 2).max(2) + PANE_HEIGHT;
    let most = if has_panes { (between - PANE_HEIGHT - 1).min(between / 2 + 1) } else { between };
    let table = Rect::new(0, 1, area.width, wanted.min(most));
    draw_table(frame, table, view);
    if has_panes {
        let top = table.bottom() + 1;
        draw_panes(frame, Rect::new(0, top, area.width, lines - 1 - top), view);
    }
    if has_help {
        let help = if usize::from(area.width) < HELP.len() { HELP_SHORT } else { HELP };
        put(frame, lines - 1, help, Style::new().add_modifier(Modifier::DIM));
    }
}

fn title(view: &TopView<'_>) -> String {
    let away = view.rows.iter().filter(|row| complaint(row, view).is_some()).count();
    let away = if away == 0 { String::new() } else { format!(", {away} away") };
    let servers = if view.rows.len() == 1 { "server" } else { "servers" };
    let seconds = view.interval.as_secs_f64();
    let paused = if view.choice.is_paused { "   PAUSED" } else { "" };
    format!("twincachectl top{paused}   {} {servers}{away}   every {seconds} s", view.rows.len())
}

// ---- the table ----

fn draw_table(frame: &mut Frame<'_>, area: Rect, view: &TopView<'_>) {
    let name = view.rows.iter().map(|row| harmless(&row.server).chars().count()).max().unwrap_or(0);
    let columns = columns_for(usize::from(area.width), name.clamp(COLUMNS[0].width, NAME_MAX));
    draw_heads(frame, area.y, &columns, view.choice);
    let order = in_order(view.rows, view.choice.sort, view.choice.is_reversed);
    let room = usize::from(area.height.saturating_sub(1));
    let chosen = order.iter().position(|server| *server == view.choice.server).unwrap_or(0);
    let skipped = (chosen + 1).saturating_sub(room);
    for (line, &server) in (area.y + 1..area.bottom()).zip(order.iter().skip(skipped)) {
        let (row, mut style) = (&view.rows[server], Style::new());
        let why = complaint(row, view);
        if server == view.choice.server {
            style = style.add_modifier(Modifier::REVERSED);
        }
        if why.is_some() {
            style = style.fg(Color::Red);
        }
        let text = match why {
            Some(why) => format!("{:width$}  {why}", cut(&harmless(&row.server), columns[0].1), width = columns[0].1),
            None => line_of(columns.iter().map(|(column, width)| (*width, (column.cell)(row), is_text(column)))),
        };
        // The mark of the chosen one goes from edge to edge.
        put(frame, line, &format!("{text:width$}", width = usize::from(area.width)), style);
    }
}

/// The columns that there is room for, with their widths.
fn columns_for(room: usize, name: usize) -> Vec<(&'static TopColumn, usize)> {
    let mut fitting: Vec<(&TopColumn, usize)> = COLUMNS.iter().map(|column| (column, column.width)).collect();
    fitting[0].1 = name;
    let width = |columns: &[(&TopColumn, usize)]| columns.iter().map(|(_, width)| width + GAP).sum::<usize>() - GAP;
    while fitting.len() > 1 && width(&fitting) > room {
        let last = fitting.iter().map(|(column, _)| column.leaves).max();
        fitting.retain(|(column, _)| Some(column.leaves) != last);
    }
    fitting
}

fn draw_heads(frame: &mut Frame<'_>, line: u16, columns: &[(&TopColumn, usize)], choice: &TopChoice) {
    let mut at = 0;
    let sorted = choice.sort.map(|sort| COLUMNS[sort].head);
    for (column, width) in columns {
        let text = line_of([(*width, column.head.to_owned(), is_text(column))].into_iter());
        let mut style = Style::new().add_modifier(Modifier::BOLD);
        if sorted == Some(column.head) {
            style = style.add_modifier(Modifier::REVERSED);
        }
        put_at(frame, (u16::try_from(at).unwrap_or(u16::MAX), line), &text, style);
        at += width + GAP;
    }
}

fn is_text(column: &TopColumn) -> bool {
    ["SERVER", "ROLE"].contains(&column.head)
}

/// Why a row has no figures, or old ones.
fn complaint(row: &TopRow, view: &TopView<'_>) -> Option<String> {
    let ago = row.heard.map(|heard| view.now.saturating_duration_since(heard));
    let is_late = |ago: &Duration| !view.choice.is_paused && *ago > view.interval * 2 + Duration::from_secs(2);
    match (&row.trouble, ago) {
        (Some(why), None) => Some(format!("away: {}", harmless(why))),
        (Some(why), Some(ago)) => Some(format!("away {}: {}", short_seconds(ago.as_secs()), harmless(why))),
        (None, None) => Some("connecting".to_owned()),
        (None, Some(ago)) if is_late(&ago) => Some(format!("says nothing for {}", short_seconds(ago.as_secs()))),
        (None, Some(_)) => None,
    }
}

// ---- the panes ----

fn draw_panes(frame: &mut Frame<'_>, area: Rect, view: &TopView<'_>) {
    let Some(row) = view.rows.get(view.choice.server) else { return };
    let count = (area.width / PANE_WIDTH).clamp(1, 3);
    let width = area.width / count;
    let mut pane = view.choice.pane;
    for number in 0..count {
        let place = Rect::new(area.x + number * width, area.y, width - u16::from(number + 1 < count), area.height);
        draw_pane(frame, place, pane, row);
        pane = pane.next();
    }
}

fn draw_pane(frame: &mut Frame<'_>, area: Rect, pane: TopPane, row: &TopRow) {
    let width = usize::from(area.width);
    let title = match pane {
        TopPane::HotKeys => "hot keys",
        TopPane::Latency => "latency",
        TopPane::Slabs => "slab classes",
    };
    let title = format!("── {title} of {} ", harmless(&row.server));
    let title = cut(&title, width);
    let title = format!("{title}{}", "─".repeat(width.saturating_sub(title.chars().count())));
    put_at(frame, (area.x, area.y), &title, Style::new());
    let lines = match pane {
        TopPane::HotKeys => hot_keys(row),
        TopPane::Latency => kinds(row),
        TopPane::Slabs => slabs(row),
    };
    let lines = lines.unwrap_or_else(|| vec!["  the server does not tell".to_owned()]);
    for (line, text) in (area.y + 1..area.bottom()).zip(lines) {
        put_at(frame, (area.x, line), &cut(&text, width), Style::new());
    }
}

fn hot_keys(row: &TopRow) -> Option<Vec<String>> {
    let keys = row.hot_keys.as_ref()?;
    if row.are_hot_keys_off {
        return Some(vec!["  off on this server: -o no_hotkeys".to_owned()]);
    }
    let line = |per_second: String, share: String, reads: String, key: &str| {
        format!("{per_second:>5}  {share:>6}  {reads:>6}  {key}")
    };
    let mut lines = vec![line("/S".into(), "SHARE".into(), "READS".into(), "KEY")];
    lines.extend(keys.iter().map(|key| {
        let share = |share| known(share, percent);
        let (of_all, reads) = (key.percent.map(|percent| percent / 100.0), key.read_share());
        line(known(key.per_second, short), share(of_all), share(reads), &harmless(&key.key))
    }));
    Some(lines)
}

fn kinds(row: &TopRow) -> Option<Vec<String>> {
    let kinds = row.kinds.as_ref()?;
    if kinds.is_empty() {
        return Some(vec!["  off on this server: -o no_latency".to_owned()]);
    }
    let table = kinds.iter().map(|kind| {
        let quantile = |at: usize| known(kind.quantiles.map(|all| all[at]), short_micros);
        let mut cells = vec![cut(&harmless(&kind.name), 8), known(kind.per_second, short)];
        cells.extend((0..4).map(quantile));
        cells
    });
    Some(sheet(&["KIND", "/S", "P50", "P90", "P99", "P99.9"], &[8, 5, 6, 6, 6, 6], table))
}

fn slabs(row: &TopRow) -> Option<Vec<String>> {
    let table = row.slabs.as_ref()?.iter().map(|slab| {
        let number = |number| known_whole(number, short);
        vec![
            short(slab.class as f64),
            known_whole(slab.chunk, short_bytes),
            number(slab.pages),
            number(slab.used),
            number(slab.free),
            number(slab.evicted),
            slab.age.map_or(UNKNOWN.to_owned(), short_seconds),
        ]
    });
    Some(sheet(&["CLASS", "CHUNK", "PAGES", "USED", "FREE", "EVICT", "AGE"], &[5, 5, 5, 5, 5, 5, 6], table))
}

/// A table in a pane: the first column of texts, if it is wide, to the left.
fn sheet(heads: &[&str], widths: &[usize], rows: impl Iterator<Item = Cells>) -> Vec<String> {
    let heads: Cells = heads.iter().map(|head| (*head).to_owned()).collect();
    let is_text = heads[0] == "KIND";
    let line = |cells: Cells| {
        let cells = cells.into_iter().zip(widths).enumerate();
        line_of(cells.map(|(at, (cell, width))| (*width, cell, is_text && at == 0)))
    };
    [heads].into_iter().chain(rows).map(line).collect()
}

// ---- lines ----

/// Cells with their widths, and whether they stand to the left.
fn line_of(cells: impl Iterator<Item = (usize, String, bool)>) -> String {
    let cell = |(width, text, is_text): (usize, String, bool)| match is_text {
        true => format!("{:width$}", cut(&text, width)),
        false => format!("{text:>width$}"),
    };
    cells.map(cell).collect::<Vec<String>>().join(&" ".repeat(GAP))
}

/// The first characters of a text, with a mark if there are more.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(Some('~')).take(most).collect()
}

fn put(frame: &mut Frame<'_>, line: u16, text: &str, style: Style) {
    put_at(frame, (0, line), text, style);
}

/// What does not fit is not drawn.
fn put_at(frame: &mut Frame<'_>, (x, y): (u16, u16), text: &str, style: Style) {
    let area = frame.area();
    if x < area.right() && y < area.bottom() {
        frame.buffer_mut().set_stringn(x, y, text, usize::from(area.right() - x), style);
    }
}

#[cfg(test)]
#[path = "tests/draw.rs"]
mod tests;
