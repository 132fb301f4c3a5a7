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
    BLACK, ChartBuilder, Color, IntoDrawingArea, IntoFont, PathElement, RGBColor, Rectangle, SVGBackend, WHITE,
};
use plotters::series::LineSeries;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

/// Colours of servers, in their order.
const COLOURS: [RGBColor; 3] = [RGBColor(0x1f, 0x77, 0xb4), RGBColor(0xff, 0x7f, 0x0e), RGBColor(0x7f, 0x7f, 0x7f)];

/// What everything is compared with.
const REFERENCE: &str = "memcached";
const OURS: &str = "twincached";
const FLOOR: &str = "floor";

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
        let has_floor = self.servers.iter().any(|server| server == FLOOR);
        let mut lines = vec![self.header(has_floor)];
        lines.extend(self.rows.iter().map(|row| self.cells(row, has_floor)));
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

    fn header(&self, has_floor: bool) -> Vec<String> {
        let mut cells = vec!["".to_string(), "unit".into()];
        cells.extend(self.servers.iter().cloned());
        if has_floor {
            cells.push("x floor".into());
        }
        cells.extend([format!("x {REFERENCE}"), "asked".into()]);
        cells
    }

    fn cells(&self, row: &Row, has_floor: bool) -> Vec<String> {
        let show = |value: Option<f64>| value.map_or("-".to_string(), figure);
        let ratio = |value: Option<f64>| value.map_or("-".to_string(), |ratio| format!("{ratio:.2}"));
        let mut cells = vec![row.title.clone(), row.unit.into()];
        cells.extend(self.servers.iter().map(|server| show(row.median(server))));
        if has_floor {
            cells.push(ratio(row.ratio(FLOOR)));
        }
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
            "of_floor": row.ratio(FLOOR), "of_memcached": row.ratio(REFERENCE),
        })
    }

    /// Draws it as SVG.
    pub fn plot(&self, folder: &Path) -> Result<(), Box<dyn Error>> {
        let path = folder.join(format!("{}.svg", self.name));
        let height = if self.curve.is_some() { 480 } else { 90 + 26 * (self.rows.len() * (self.servers.len() + 1)) };
        let area = SVGBackend::new(&path, (960, height as u32)).into_drawing_area();
        area.fill(&WHITE)?;
        match self.curve {
            Some(across) => self.draw_curve(&area, across)?,
            None => self.draw_bars(&area)?,
        }
        area.present()?;
        Ok(())
    }

    /// A group of bars for each row, against memcached's.
    fn draw_bars<B>(
        &self,
        area: &plotters::drawing::DrawingArea<B, plotters::coord::Shift>,
    ) -> Result<(), Box<dyn Error>>
    where
        B: plotters::prelude::DrawingBackend,
        B::ErrorType: 'static,
    {
        let step = self.servers.len() + 1;
        let bars = self.rows.iter().enumerate().flat_map(|(at, row)| {
            let reference = row.median(REFERENCE).unwrap_or(f64::NAN);
            let bar = move |(i, server): (usize, &String)| Some((at * step + i, i, row.median(server)? / reference));
            self.servers.iter().enumerate().filter_map(bar).collect::<Vec<_>>()
        });
        let bars: Vec<(usize, usize, f64)> = bars.filter(|bar| bar.2.is_finite()).collect();
        let longest = bars.iter().map(|bar| bar.2).fold(1.2, f64::max) * 1.05;
        let total = (self.rows.len() * step) as f64;
        let title = format!("{} (memcached = 1)", self.title);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(300)
            .build_cartesian_2d(0.0..longest, total..0.0)?;
        chart.configure_mesh().disable_y_mesh().disable_y_axis().y_labels(0).draw()?;
        for (at, row) in self.rows.iter().enumerate() {
            let place = chart.backend_coord(&(0.0, (at * step) as f64 + 0.3));
            let label = format!("{}, {}", row.title, row.unit);
            let style = ("sans-serif", 12).into_font().color(&BLACK);
            area.draw_text(&label, &style, (10, place.1))?;
        }
        for (i, server) in self.servers.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let mine = bars.iter().filter(|bar| bar.1 == i);
            let shape = |bar: &(usize, usize, f64)| {
                Rectangle::new([(0.0, bar.0 as f64 + 0.1), (bar.2, bar.0 as f64 + 0.9)], colour.filled())
            };
            chart
                .draw_series(mine.map(shape))?
                .label(server.as_str())
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        Ok(())
    }

    /// A line for each server.
    fn draw_curve<B>(
        &self,
        area: &plotters::drawing::DrawingArea<B, plotters::coord::Shift>,
        across: &str,
    ) -> Result<(), Box<dyn Error>>
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
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d((first..last * 1.1).log_scale(), 0.0..highest)?;
        let unit = rows.first().map_or("", |row| row.unit);
        chart.configure_mesh().x_desc(across).y_desc(unit).draw()?;
        for (i, server) in self.servers.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let points = rows.iter().filter_map(|row| Some((row.x, row.median(server)?)));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(server.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        Ok(())
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        large if large >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}
