//! How the copy of the sidecar's own server is, when that is a standby: it is fed by another sidecar.
//!
//! A standby is in good health when its copy is whole and its feeder speaks. Then this sidecar has nothing to do, and
//! that is no trouble.
//!
//! Not here: the copies that this sidecar makes (`health`).

use std::time::Duration;

/// A feeder says something every second. This is long enough for a busy machine, and short enough to be an alarm.
const SILENT_MAX: Duration = Duration::from_secs(3);

/// What is said of the server's own copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StandbyHealth {
    /// Whether the copy is whole and up to date.
    pub is_good: bool,
    /// A line without its end.
    pub text: String,
}

impl StandbyHealth {
    /// From the rows of `stats replication`; None: the server is no standby.
    pub(crate) fn of(rows: &[(String, String)]) -> Option<StandbyHealth> {
        let get = |name: &str| rows.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
        if !["standby", "candidate"].contains(&get("role")) {
            return None;
        }
        let (copy, from, run) = (get("copy"), get("copy_from"), get("copy_from_run"));
        let silent = get("copy_silent_ms").parse().map(Duration::from_millis);
        let is_good = copy == "whole" && silent.as_ref().is_ok_and(|silent| *silent <= SILENT_MAX);
        let mut text = match copy {
            "none" => "the server is a standby, and has no copy yet".to_owned(),
            _ => format!("the server is a standby, its copy is {copy}, fed by {from} (run {run})"),
        };
        if copy == "partial" {
            let (percent, items, expected) = (get("copy_percent"), get("copy_items"), get("copy_items_expected"));
            text += &format!(", full sync {percent} %, {items} of {expected} items");
        }
        if let Ok(silent) = silent {
            text += &format!(", last word {} ms ago", silent.as_millis());
        }
        Some(StandbyHealth { is_good, text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &str) -> Vec<(String, String)> {
        let words: Vec<&str> = rows.split_whitespace().collect();
        words.chunks(2).map(|row| (row[0].to_owned(), row[1].to_owned())).collect()
    }

    #[test]
    fn a_whole_copy_that_is_fed_is_good() {
        let told =
            "copy_from tcp:10.0.0.1:5 copy_from_run 00ab copy_items 12345 copy_items_expected 28000 copy_percent 44";
        let of = |what: &str| StandbyHealth::of(&rows(&format!("{what} {told}")));
        assert_eq!(of("role standalone copy whole"), None);
        let whole = of("role standby copy whole copy_silent_ms 120").unwrap();
        let text = "the server is a standby, its copy is whole, fed by tcp:10.0.0.1:5 (run 00ab), last word 120 ms ago";
        assert_eq!((whole.is_good, whole.text.as_str()), (true, text));
        assert!(!of("role standby copy whole copy_silent_ms 3001").unwrap().is_good);
        assert!(!of("role standby copy overtaken copy_silent_ms 1").unwrap().is_good);
        let partial = of("role standby copy partial copy_silent_ms 7").unwrap();
        let end = "(run 00ab), full sync 44 %, 12345 of 28000 items, last word 7 ms ago";
        assert!(!partial.is_good && partial.text.ends_with(end), "{}", partial.text);
        let none = StandbyHealth::of(&rows("role standby copy none")).unwrap();
        assert!(!none.is_good && none.text.ends_with("has no copy yet"));
    }
}
