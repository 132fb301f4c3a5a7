//! Tables of measurements: printed, as JSON, and drawn.
//!
//! ```text
//! Table ── Row ── server ── measurements, one a round
//!            └─ shown and compared by their medians
//! ```
//!
//! Not here: what the numbers mean (`speed`, `memory`, `time`).

use plotters::prelude::IntoLogRange;
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend,
    SeriesLabelPosition, WHITE,
};
use plotters::series::LineSeries;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

/// Colours of servers, in their order.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0x1f, 0x77, 0xb4), RGBColor(0xff, 0x7f, 0x0e), RGBColor(0x7f, 0x7f, 0x7f), RGBColor(0xb0, 0xc4, 0xde)];
const GREY: RGBColor = RGBColor(0xcc, 0xcc, 0xcc);

/// Of plots, in pixels: title and legend, the scale below, a bar, the room between two rows, a letter about.
const WIDTH: i32 = 960;
const HEAD: i32 = 70;
const FOOT: i32 = 30;
const BAR: i32 = 17;
const GAP: i32 = 12;
const LETTER: i32 = 6;

/// Bars longer than this many times memcached's are cut: one outlier would make all others unreadable.
const CUT: f64 = 2.0;

/// What is drawn on.
type Area<B> = plotters::drawing::DrawingArea<B, plotters::coord::Shift>;

/// What everything is compared with.
const REFERENCE: &str = "memcached";
const OURS: &str = "twincached";
/// The floors: with one canned reply, and with values from all over as much memory as the others hold.
pub const FLOORS: [&str; 2] = ["floor", "cold floor"];

/// Measurements of the same kind.
pub struct Table {
    pub name: &'static str,
    pub title: &'static str,
    /// Names in the order of columns.
    pub servers: Vec<String>,
    pub rows: Vec<Row>,
    /// Whether its rows are one curve: their `x` across, and their values up.
    pub curve: Option<&'static str>,
}

/// One workload.
pub struct Row {
    pub title: String,
    pub unit: &'static str,
    /// What is asked of twincached, in words. May be empty.
    pub asked: String,
    /// Where it stands on the curve.
    pub x: f64,
    /// What to know about the measurement. May be empty.
    pub note: String,
    pub values: BTreeMap<String, Vec<f64>>,
}

impl Row {
    pub fn new(title: impl Into<String>, unit: &'static str, asked: impl Into<String>) -> Row {
        let (title, asked) = (title.into(), asked.into());
        Row { title, unit, asked, x: 0.0, note: String::new(), values: BTreeMap::new() }
    }

    pub fn add(&mut self, server: &str, value: f64) {
        self.values.entry(server.to_string()).or_default().push(value);
    }

    pub fn median(&self, server: &str) -> Option<f64> {
        let mut values = self.values.get(server)?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(if values.len() % 2 == 1 { values[middle] } else { (values.get(middle - 1)? + values[middle]) / 2.0 })
    }

    /// Its medians and those by memcached's, in the order of these servers.
    fn ratios<'a>(&'a self, servers: &'a [String]) -> impl Iterator<Item = (usize, f64, f64)> + 'a {
        let reference = self.median(REFERENCE).unwrap_or(f64::NAN);
        let value = |(at, server): (usize, &String)| Some((at, self.median(server)?));
        servers.iter().enumerate().filter_map(value).map(move |(at, value)| (at, value, value / reference))
    }

    fn ratio(&self, to: &str) -> Option<f64> {
        Some(self.median(OURS)? / self.median(to)?).filter(|ratio| ratio.is_finite())
    }
}

impl Table {
    pub fn new(name: &'static str, title: &'static str, servers: &[String]) -> Table {
        Table { name, title, servers: servers.to_vec(), rows: Vec::new(), curve: None }
    }

    /// As text, in columns that are also a table in Markdown.
    pub fn text(&self) -> String {
        let floors: Vec<&str> = FLOORS.into_iter().filter(|&floor| self.servers.iter().any(|s| s == floor)).collect();
        let mut lines = vec![self.header(&floors)];
        lines.extend(self.rows.iter().map(|row| self.cells(row, &floors)));
        let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        let mut text = format!("{}\n\n", self.title);
        for (at, line) in lines.iter().enumerate() {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:<width$} "));
            text += &format!("|{}|\n", cells.collect::<Vec<_>>().join("|"));
            if at == 0 {
                let rule = widths.iter().map(|&width| "-".repeat(width + 2)).collect::<Vec<_>>();
                text += &format!("|{}|\n", rule.join("|"));
            }
        }
        let notes = self.rows.iter().filter(|row| !row.note.is_empty());
        notes.for_each(|row| text += &format!("{}: {}\n", row.title, row.note));
        text
    }

    fn header(&self, floors: &[&str]) -> Vec<String> {
        let mut cells = vec!["".to_string(), "unit".into()];
        cells.extend(self.servers.iter().cloned());
        cells.extend(floors.iter().map(|floor| format!("x {floor}")));
        cells.extend([format!("x {REFERENCE}"), "asked".into()]);
        cells
    }

    fn cells(&self, row: &Row, floors: &[&str]) -> Vec<String> {
        let show = |value: Option<f64>| value.map_or("-".to_string(), figure);
        let ratio = |value: Option<f64>| value.map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
        let mut cells = vec![row.title.clone(), row.unit.into()];
        cells.extend(self.servers.iter().map(|server| show(row.median(server))));
        cells.extend(floors.iter().map(|floor| ratio(row.ratio(floor))));
        cells.extend([ratio(row.ratio(REFERENCE)), row.asked.clone()]);
        cells
    }

    pub fn json(&self) -> Value {
        json!({"title": self.title, "servers": self.servers, "rows": self.rows.iter().map(Self::row_json).collect::<Vec<_>>()})
    }

    fn row_json(row: &Row) -> Value {
        let servers = row
            .values
            .iter()
            .map(|(server, values)| (server.clone(), json!({"median": row.median(server), "rounds": values})));
        json!({
            "title": row.title, "unit": row.unit, "asked": row.asked, "note": row.note,
            "servers": servers.collect::<serde_json::Map<_, _>>(),
            "of_floor": row.ratio(FLOORS[0]), "of_cold_floor": row.ratio(FLOORS[1]), "of_memcached": row.ratio(REFERENCE),
        })
    }

    /// Draws it as SVG.
    pub fn plot(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let path = folder.join(format!("{}.svg", self.name));
        let height =
            if self.curve.is_some() { 480 } else { HEAD + FOOT + self.groups().map(|(_, group)| group).sum::<i32>() };
        let area = SVGBackend::new(&path, (WIDTH as u32, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        match self.curve {
            Some(across) => self.draw_curve(&area, across)?,
            None => self.draw_bars(&area, height)?,
        }
        area.present()?;
        Ok(())
    }

    /// The rows that can be compared, and the height of each one's bars.
    fn groups(&self) -> impl Iterator<Item = (&Row, i32)> {
        let compared = self.rows.iter().filter(|row| row.median(REFERENCE).is_some_and(|value| value > 0.0));
        compared.map(|row| (row, BAR * row.values.len() as i32 + GAP))
    }

    /// A group of bars for each row, against memcached's.
    fn draw_bars<B>(&self, area: &Area<B>, height: i32) -> Result<(), Box<dyn Error>>
    where
        B: plotters::prelude::DrawingBackend,
        B::ErrorType: 'static,
    {
        let label = |row: &Row| format!("{}, {}", row.title, row.unit);
        let left = 30 + self.groups().map(|(row, _)| label(row).chars().count() as i32 * LETTER).max().unwrap_or(0);
        let longest = self
            .groups()
            .flat_map(|(row, _)| row.ratios(&self.servers))
            .map(|(.., ratio)| ratio)
            .fold(1.0, f64::max)
            .min(CUT);
        let across = |ratio: f64| left + (ratio.min(CUT) / longest * f64::from(WIDTH - left - 90)) as i32;
        let text = |text: &str, size: i32, at: (i32, i32)| {
            area.draw_text(text, &("sans-serif", size).into_font().color(&BLACK), at)
        };
        text(&format!("{}, memcached = 1", self.title), 18, (10, 12))?;
        let mut at = left;
        for (i, server) in self.servers.iter().enumerate() {
            area.draw(&Rectangle::new([(at, 42), (at + 10, 52)], colour(i).filled()))?;
            text(server, 12, (at + 15, 42))?;
            at += 40 + server.chars().count() as i32 * LETTER;
        }
        for half in 0..=(longest * 2.0) as i32 {
            let at = across(f64::from(half) / 2.0);
            area.draw(&PathElement::new([(at, HEAD - 8), (at, height - FOOT)], if half == 2 { BLACK } else { GREY }))?;
            text(&format!("{:.1}", f64::from(half) / 2.0), 12, (at - 8, height - FOOT + 6))?;
        }
        let mut y = HEAD;
        for (row, group) in self.groups() {
            text(&label(row), 12, (10, y + (group - GAP) / 2 - 6))?;
            for (bar, (i, value, ratio)) in row.ratios(&self.servers).enumerate() {
                let (top, end) = (y + BAR * bar as i32, across(ratio));
                area.draw(&Rectangle::new([(left, top + 1), (end, top + BAR - 1)], colour(i).filled()))?;
                let cut = if ratio > CUT { " >>" } else { "" };
                text(&format!("{}{cut}", figure(value)), 12, (end + 5, top + 2))?;
            }
            y += group;
        }
        Ok(())
    }

    /// A line for each server.
    fn draw_curve<B>(&self, area: &Area<B>, across: &str) -> Result<(), Box<dyn Error>>
    where
        B: plotters::prelude::DrawingBackend,
        B::ErrorType: 'static,
    {
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.x > 0.0).collect();
        let highest = rows.iter().flat_map(|row| row.values.values().flatten()).copied().fold(1.0, f64::max) * 1.1;
        let (first, last) = (rows.first().map_or(1.0, |row| row.x), rows.last().map_or(10.0, |row| row.x));
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, ("sans-serif", 18))
            .margin(10)
            .margin_right(50)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((first..last * 1.1).log_scale(), 0.0..highest)?;
        let unit = rows.first().map_or("", |row| row.unit);
        chart
            .configure_mesh()
            .x_desc(across)
            .y_desc(unit)
            .x_label_formatter(&|x| with_commas(*x as u64))
            .y_label_formatter(&|y| if highest < 10.0 { format!("{y:.1}") } else { format!("{y:.0}") })
            .max_light_lines(0)
            .draw()?;
        for (i, server) in self.servers.iter().enumerate() {
            let points: Vec<(f64, f64)> = rows.iter().filter_map(|row| Some((row.x, row.median(server)?))).collect();
            chart.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour(i).filled())))?;
            chart
                .draw_series(LineSeries::new(points, colour(i).stroke_width(2)))?
                .label(server.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour(i).stroke_width(2)));
        }
        let labels = &mut chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(GREY).draw()?;
        Ok(())
    }
}

fn colour(server: usize) -> RGBColor {
    COLOURS[server % COLOURS.len()]
}

/// 1,000,000.
pub fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|c| std::str::from_utf8(c).expect("digits")).collect();
    groups.join(",")
}

fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
