//! Numbers and times in few columns.
//!
//! Invariant: nothing is longer than its column in `columns` has room for, whatever the number.

/// A thousand and its powers.
const THOUSANDS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// What stands for a number that is not known.
pub(super) const UNKNOWN: &str = "-";

/// A number of things, or of things a second, in up to five characters.
pub(super) fn short(number: f64) -> String {
    scaled(number, 1000.0)
}

/// Bytes in up to five characters.
pub(super) fn short_bytes(bytes: f64) -> String {
    scaled(bytes, 1024.0)
}

/// Microseconds in up to six characters.
pub(super) fn short_micros(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{}us", three_digits(micros)),
        ..1e6 => format!("{}ms", three_digits(micros / 1e3)),
        ..1e9 => format!("{}s", three_digits(micros / 1e6)),
        _ => ">999s".to_owned(),
    }
}

/// Seconds in up to six characters.
pub(super) fn short_seconds(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match days {
        0 if minutes == 0 => format!("{seconds}s"),
        0 if hours == 0 => format!("{minutes}m{:02}s", seconds % 60),
        0 => format!("{hours}h{:02}m", minutes % 60),
        1..100 => format!("{days}d{:02}h", hours % 24),
        100..100_000 => format!("{days}d"),
        _ => ">270y".to_owned(),
    }
}

/// A share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", (share * 100.0).clamp(0.0, 999.0))
}

fn scaled(mut number: f64, step: f64) -> String {
    let mut unit = 0;
    // What would be written as 1000 is one of the next unit.
    while number >= step.min(999.5) && unit + 1 < THOUSANDS.len() {
        number /= step;
        unit += 1;
    }
    match number {
        _ if number.is_nan() => UNKNOWN.to_owned(),
        1000.0.. => ">999E".to_owned(),
        _ if unit == 0 && number.fract() == 0.0 => format!("{number:.0}"),
        _ => format!("{}{}", three_digits(number), THOUSANDS[unit]),
    }
}

/// A number below 1000 with as many decimals as fit.
fn three_digits(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_few_columns() {
        let table = [
            (0.0, "0"),
            (0.4, "0.40"),
            (999.0, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (99_999.0, "100k"),
            (1e6, "1.00M"),
            (u64::MAX as f64, "18.4E"),
            (f64::MAX, ">999E"),
            (f64::INFINITY, ">999E"),
            (f64::NAN, "-"),
        ];
        for (number, text) in table {
            assert_eq!(short(number), text);
        }
        assert_eq!((short_bytes(1000.0), short_bytes(1024.0)), ("0.98k".into(), "1.00k".into()));
        let micros = [0.1, 8.2, 999.9, 1500.0, 2.5e6, f64::MAX].map(short_micros);
        assert_eq!(micros, ["0.10us", "8.20us", "1000us", "1.50ms", "2.50s", ">999s"]);
        let seconds = [7, 67, 3661, 86400 * 3 + 3600, 86400 * 500, u64::MAX].map(short_seconds);
        assert_eq!(seconds, ["7s", "1m07s", "1h01m", "3d01h", "500d", ">270y"]);
    }
}
