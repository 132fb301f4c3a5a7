//! A file of the project as text, as words, and without its tests.
//!
//! ```text
//!   text ──words──> Word { text, line } … ──shipped_words──> the words that ship
//!           no comments, strings as one word              no `#[cfg(test)]` item, no `#[test]` function
//! ```
//!
//! Not here: what the words mean, which is in `tree`.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// A file of the project.
pub struct Source {
    /// Its path from the project's root.
    pub path: String,
    pub text: String,
}

/// A word or a sign of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    pub text: &'a str,
    /// Counted from 1.
    pub line: usize,
}

/// Words before which the item under an attribute does not end with a comma.
const KEYWORDS: &[&str] = &[
    "pub",
    "fn",
    "mod",
    "use",
    "struct",
    "enum",
    "union",
    "trait",
    "type",
    "impl",
    "const",
    "static",
    "unsafe",
    "extern",
    "macro_rules",
    "let",
];

impl Source {
    /// Its code without comments.
    pub fn code(&self) -> String {
        self.text.lines().map(without_comment).collect::<Vec<_>>().join("\n")
    }

    /// Its code without comments and tests, each line where it was.
    pub fn shipped_code(&self) -> String {
        let tests = self.test_lines();
        let lines = self.text.lines().zip(1..);
        let line = |(line, at)| if is_in(&tests, at) { "" } else { without_comment(line) };
        lines.map(line).collect::<Vec<_>>().join("\n")
    }

    /// The number of its lines without tests. Comments and empty lines count.
    pub fn shipped_lines(&self) -> usize {
        let tests = self.test_lines();
        (1..=self.text.lines().count()).filter(|&at| !is_in(&tests, at)).count()
    }

    /// The lines of its longest piece that is only there for tests.
    pub fn longest_test(&self) -> usize {
        self.test_lines().into_iter().map(Iterator::count).max().unwrap_or(0)
    }

    fn test_lines(&self) -> Vec<RangeInclusive<usize>> {
        let words = words(&self.text);
        let ranges = test_ranges(&words).into_iter();
        ranges.map(|(from, end)| words[from].line..=words[end - 1].line).collect()
    }

    /// The words that ship.
    pub fn shipped_words(&self) -> Vec<Word<'_>> {
        let words = words(&self.text);
        let mut shipped = Vec::new();
        let mut at = 0;
        for (from, end) in test_ranges(&words) {
            shipped.extend_from_slice(&words[at..from.max(at)]);
            at = end.max(at);
        }
        shipped.extend_from_slice(&words[at..]);
        shipped
    }

    /// The top-level module it belongs to: `net` for src/net/conn.rs.
    pub fn folder(&self) -> &str {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        inside.split('/').next().unwrap_or("").trim_end_matches(".rs")
    }
}

fn is_in(ranges: &[RangeInclusive<usize>], line: usize) -> bool {
    ranges.iter().any(|range| range.contains(&line))
}

pub fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.find(" // ").map_or(line, |at| &line[..at])
}

/// The project's root, or that of the tree named by `TIDY_ROOT`.
pub fn root() -> PathBuf {
    std::env::var_os("TIDY_ROOT").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).to_owned(), PathBuf::from)
}

/// All sources in a folder of the project, by path.
pub fn sources(folder: &str) -> Vec<Source> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let path = path.strip_prefix(&root).expect("inside the project");
                files.push(Source { path: path.to_string_lossy().into_owned(), text });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The words of a text: names and numbers, `::`, strings and characters as one word each, other signs singly.
pub fn words(text: &str) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < text.len() {
        let rest = &text[at..];
        let length = word_length(rest);
        let word = &rest[..length];
        let is_nothing = word.trim().is_empty() || word.starts_with("//") || word.starts_with("/*");
        if !is_nothing {
            found.push(Word { text: word, line });
        }
        line += word.matches('\n').count();
        at += length;
    }
    found
}

fn word_length(rest: &str) -> usize {
    let first = rest.chars().next().expect("not at the end");
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return rest.find("*/").map_or(rest.len(), |end| end + 2);
    }
    if rest.starts_with("::") {
        return 2;
    }
    if let Some(length) = string_length(rest) {
        return length;
    }
    if first == '\'' {
        return character_length(rest);
    }
    if is_of_name(first) {
        return rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
    }
    first.len_utf8()
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of the string that a text begins with, if it does: `"…"`, `b"…"`, `r"…"`, `r#"…"#`.
fn string_length(rest: &str) -> Option<usize> {
    let quote = rest.find('"').filter(|&at| at <= 4)?;
    let prefix = rest[..quote].trim_end_matches('#');
    let hashes = quote - prefix.len();
    let is_raw = prefix.ends_with('r');
    if !matches!(prefix, "" | "b" | "c" | "r" | "br" | "cr") || (hashes > 0 && !is_raw) {
        return None;
    }
    let inside = &rest[quote + 1..];
    if is_raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return inside.find(&end).map(|at| quote + 1 + at + end.len());
    }
    let mut is_escaped = false;
    let ends = |c: char| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    };
    inside.find(ends).map(|at| quote + 2 + at)
}

/// The length of `'c'`, `'\n'`, or of the quote of a lifetime.
fn character_length(rest: &str) -> usize {
    let inside = &rest[1..];
    let end = match inside.strip_prefix('\\') {
        Some(escaped) => escaped.chars().next().and_then(|c| escaped[c.len_utf8()..].find('\'')).map(|at| at + 2),
        None => inside.chars().next().map(char::len_utf8).filter(|&length| inside[length..].starts_with('\'')),
    };
    end.map_or(1, |end| end + 2)
}

/// Where tests stand: from the `#` of their attribute to behind their last word.
fn test_ranges(words: &[Word<'_>]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for at in 0..words.len() {
        let is_inside = ranges.last().is_some_and(|&(_, end)| at < end);
        if !is_inside && is_test_attribute(&words[at..]) {
            let inner = words[at + 1].text == "!";
            ranges.push((at, if inner { words.len() } else { end_of_item(words, at) }));
        }
    }
    ranges
}

/// Whether words begin with `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]` or `#![cfg(test)]`.
fn is_test_attribute(words: &[Word<'_>]) -> bool {
    let texts: Vec<&str> = words.iter().take(8).map(|word| word.text).filter(|&text| text != "!").collect();
    let begins = |with: &[&str]| texts.starts_with(with);
    begins(&["#", "[", "test", "]"])
        || begins(&["#", "[", "cfg", "(", "test", ")"])
        || begins(&["#", "[", "cfg", "(", "all", "(", "test"])
}

/// Behind the item whose attributes begin at `at`.
fn end_of_item(words: &[Word<'_>], mut at: usize) -> usize {
    while words.get(at).is_some_and(|word| word.text == "#") {
        at = closing(words, at + 1) + 1;
    }
    let ends_with_comma = words.get(at).is_some_and(|word| !KEYWORDS.contains(&word.text));
    while at < words.len() {
        match words[at].text {
            ";" => return at + 1,
            "," if ends_with_comma => return at + 1,
            "}" | ")" | "]" => return at,
            "{" => {
                at = closing(words, at) + 1;
                let follows = |text| words.get(at).is_some_and(|word| word.text == text);
                return if follows(";") || follows(",") { at + 1 } else { at };
            }
            "(" | "[" => at = closing(words, at) + 1,
            _ => at += 1,
        }
    }
    at
}

/// Where the bracket closes that opens at `at`.
pub fn closing(words: &[Word<'_>], at: usize) -> usize {
    let mut depth = 0;
    for (here, word) in words.iter().enumerate().skip(at) {
        match word.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return here;
        }
    }
    words.len() - 1
}

#[test]
fn words_leave_out_comments_and_keep_strings_whole() {
    let text = "a::b(\"x // \\\" y\", 'c', '\\'', r#\"q\"q\"#) // no\n/* no */ &'a str";
    let found: Vec<&str> = words(text).iter().map(|word| word.text).collect();
    let expected = [
        "a",
        "::",
        "b",
        "(",
        "\"x // \\\" y\"",
        ",",
        "'c'",
        ",",
        "'\\''",
        ",",
        "r#\"q\"q\"#",
        ")",
        "&",
        "'",
        "a",
        "str",
    ];
    assert_eq!(found, expected);
    assert_eq!(words(text).last().map(|word| word.line), Some(2));
}

#[test]
fn tests_do_not_ship() {
    let text = "struct A {\n    #[cfg(test)]\n    x: u8,\n    y: u8,\n}\n#[cfg(test)]\n#[path = \"t.rs\"]\nmod t;\n\
                #[cfg(test)]\nfn f<A, B>() {\n    g();\n}\nfn h() {}\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
    let source = Source { path: "src/a.rs".into(), text: text.into() };
    let shipped: Vec<&str> = source.shipped_words().iter().map(|word| word.text).collect();
    assert_eq!(shipped.join(" "), "struct A { y : u8 , } fn h ( ) { }");
    assert_eq!(source.shipped_lines(), 4);
    assert_eq!(source.shipped_code().lines().nth(12), Some("fn h() {}"));
    let whole = Source { path: "src/b.rs".into(), text: "//! b\n#![cfg(test)]\nfn f() {}\n".into() };
    assert!(whole.shipped_words().is_empty());
}
