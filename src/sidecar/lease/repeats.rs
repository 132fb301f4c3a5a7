//! Lines of the log that would come again and again: the same text is news once a minute.
//!
//! Not here: what is logged.

use std::time::Duration;

/// How long a text is no news.
const EVERY: Duration = Duration::from_secs(60);

/// The last text of a kind, and when it was news. Times are since boot.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Repeats {
    last: Option<(String, Duration)>,
}

impl Repeats {
    /// Whether this text has to be logged.
    pub(super) fn is_news(&mut self, text: &str, now: Duration) -> bool {
        if self.last.as_ref().is_some_and(|(last, at)| last == text && now < *at + EVERY) {
            return false;
        }
        self.last = Some((text.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_or_another_minute_is_news() {
        let at = Duration::from_secs;
        let mut repeats = Repeats::default();
        let told = [("a", 1), ("a", 2), ("b", 3), ("a", 4), ("a", 63), ("a", 64), ("a", 65)];
        assert_eq!(
            told.map(|(text, time)| repeats.is_news(text, at(time))),
            [true, false, true, true, false, true, false]
        );
    }
}
