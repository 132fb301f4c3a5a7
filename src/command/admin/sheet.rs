//! Statistics on their way out: names and values are formatted without an allocation for each.
//!
//! Not here: which there are (`stats`, `insight`), how one is framed (`admin`, and `binary` of the protocol).

use std::fmt::{self, Display, Write};
use std::time::Duration;

/// Formats names and values without an allocation for each.
pub(super) struct Sheet<'a> {
    emit: &'a mut dyn FnMut(&str, &str),
    name: String,
    value: String,
}

impl<'a> Sheet<'a> {
    /// One that hands each row to `emit`.
    pub(super) fn new(emit: &'a mut dyn FnMut(&str, &str)) -> Sheet<'a> {
        Sheet { emit, name: String::new(), value: String::new() }
    }

    /// A row.
    pub(super) fn put(&mut self, name: &str, value: impl Display) {
        self.value.clear();
        let written = write!(self.value, "{value}");
        debug_assert!(written.is_ok(), "a String takes everything");
        (self.emit)(name, &self.value);
    }

    /// Several.
    pub(super) fn all<const N: usize>(&mut self, rows: [(&str, u64); N]) {
        for (name, value) in rows {
            self.put(name, value);
        }
    }

    /// As [`Sheet::put`], for a name that is made up of parts.
    pub(super) fn row(&mut self, name: fmt::Arguments<'_>, value: impl Display) {
        let mut text = std::mem::take(&mut self.name);
        text.clear();
        let written = text.write_fmt(name);
        debug_assert!(written.is_ok(), "a String takes everything");
        self.put(&text, value);
        self.name = text;
    }

    /// Rows under one class: `<prefix><class>:<name>`.
    pub(super) fn class(&mut self, prefix: &str, class: u8, rows: &[(&str, u64)]) {
        for (name, value) in rows {
            self.row(format_args!("{prefix}{class}:{name}"), value);
        }
    }
}

/// Seconds with six decimals.
pub(super) struct Seconds(pub(super) Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0.as_secs(), self.0.subsec_micros())
    }
}

/// Microseconds with one decimal.
pub(super) struct Micros(pub(super) Duration);

impl Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1}", self.0.as_nanos() as f64 / 1e3)
    }
}
