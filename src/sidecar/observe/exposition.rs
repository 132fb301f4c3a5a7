//! Prometheus's text format, version 0.0.4: HELP and TYPE once per name, then all its samples.
//!
//! ```text
//!   family("a_total", Counter, "What it counts.") ─> # HELP, # TYPE
//!   sample(&[("peer", "b:1")], 7)                 ─> a_total{peer="b:1"} 7
//! ```
//!
//! Invariant: a family without samples leaves no trace. Not here: which names there are (`metrics`, `server_metrics`).

use std::fmt::{Display, Write};

/// The media type of the text.
pub(super) const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What becomes of the numbers of a family with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetricKind {
    /// They go up and down.
    Gauge,
    /// They go up, and begin again at 0 when the process that counts does.
    Counter,
    /// They are the buckets of a histogram, its sum and its count.
    Histogram,
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            MetricKind::Gauge => "gauge",
            MetricKind::Counter => "counter",
            MetricKind::Histogram => "histogram",
        }
    }
}

/// The text so far.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    /// The name of the family that was begun, and its head while nobody needs it.
    family: String,
    head: String,
}

impl Exposition {
    /// Begins a family: samples are of this name from now on.
    pub(super) fn family(&mut self, name: &str, kind: MetricKind, help: &str) {
        self.family.clear();
        self.family.push_str(name);
        self.head.clear();
        let _ = writeln!(self.head, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    }

    /// Adds a sample of the family that was begun.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// Adds a sample whose name ends so: `_bucket`, `_sum` or `_count` of a histogram.
    pub(super) fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&std::mem::take(&mut self.head));
        let Exposition { text, family, .. } = self;
        let _ = write!(text, "{family}{suffix}");
        for (number, (name, value)) in labels.iter().enumerate() {
            let _ = write!(text, "{}{name}=\"{}\"", if number == 0 { '{' } else { ',' }, escaped(value));
        }
        let _ = writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: MetricKind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// The whole text.
    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Seconds of a number of milliseconds, to the last digit.
pub(super) fn seconds(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_one_head_and_none_without_samples() {
        let mut text = Exposition::default();
        text.family("nothing", MetricKind::Gauge, "Nothing.");
        text.family("a_total", MetricKind::Counter, "Some.");
        text.sample(&[("peer", "a\"\\\n"), ("state", "x")], 1);
        text.sample(&[], -2);
        text.single("b", MetricKind::Gauge, "More.", "1.5");
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total{peer=\"a\\\"\\\\\\n\",state=\"x\"} 1\n\
                        a_total -2\n# HELP b More.\n# TYPE b gauge\nb 1.5\n";
        assert_eq!(text.into_text(), expected);
    }

    #[test]
    fn milliseconds_become_seconds() {
        let cases = [(0, "0.000"), (1, "0.001"), (-1500, "-1.500"), (i64::MIN, "-9223372036854775.808")];
        cases.into_iter().for_each(|(ms, text)| assert_eq!(seconds(ms), text));
    }
}
