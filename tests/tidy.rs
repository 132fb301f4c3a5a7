//! The rules of the house, read from the sources as text.
//!
//! ```text
//!   src/lib.rs, its table "who may import whom" ──> every `crate::…` of every file in src
//! ```
//!
//! Sources are formatted by rustfmt, which these readings rely on. What the compiler or clippy can check is
//! not here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest file in src, without its inline tests.
const LINES_MAX: usize = 900;
/// Longest function that is not one flat match.
const FUNCTION_MAX: usize = 70;
/// Files that may hold unsafe code.
const UNSAFE: &[&str] = &["src/sys/mod.rs", "src/store/memory/arena.rs"];

/// A file of the project.
struct Source {
    /// Its path from the project's root.
    path: String,
    text: String,
    /// It is declared as a module of tests.
    is_tests: bool,
}

impl Source {
    /// Its code without comments.
    fn code(&self) -> String {
        self.text.lines().map(without_comment).collect::<Vec<_>>().join("\n")
    }

    /// Its code without comments and inline tests; nothing of a file that is all tests.
    fn shipped(&self) -> String {
        if self.is_tests {
            return String::new();
        }
        let code = self.code();
        let tests = code.match_indices("#[cfg(test)]\nmod ").map(|(at, _)| at);
        let end = tests.filter(|&at| code[at..].lines().nth(1).is_some_and(|line| line.ends_with('{'))).min();
        code[..end.unwrap_or(code.len())].to_owned()
    }

    /// The files that it declares as modules of tests.
    fn test_modules(&self) -> Vec<String> {
        let folder = self.path.strip_suffix("mod.rs").map_or_else(|| self.path.replace(".rs", "/"), str::to_owned);
        let lines: Vec<&str> = self.text.lines().collect();
        let declared = lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]");
        let names = declared.filter_map(|pair| pair[1].strip_prefix("mod ")?.strip_suffix(';'));
        names.map(|name| format!("{folder}{name}.rs")).collect()
    }

    /// The top-level module it belongs to: `net` for src/net/conn.rs.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        Some(inside.split('/').next()?.trim_end_matches(".rs"))
    }
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.find(" // ").map_or(line, |at| &line[..at])
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(source(path));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let tests: Vec<String> = files.iter().flat_map(Source::test_modules).collect();
    let is_tests = |path: &String| tests.contains(path) || path.contains("/tests/");
    files.iter_mut().for_each(|file| file.is_tests = is_tests(&file.path));
    files
}

fn source(path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).expect("UTF-8");
    let path = path.strip_prefix(root()).expect("inside the project");
    Source { path: path.to_string_lossy().into_owned(), text, is_tests: false }
}

fn everything() -> Vec<Source> {
    ["src", "tests", "bench", "fuzz"].into_iter().flat_map(sources).collect()
}

fn fail_if_any(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn modules_import_only_what_the_table_allows() {
    let table = import_table();
    let mut broken = Vec::new();
    for file in sources("src").iter().filter(|file| file.path != "src/lib.rs") {
        let module = file.module().expect("a module");
        let common = if module == "protocol" { vec![] } else { vec!["clock", "stats"] };
        let allowed = table.get(module).cloned().unwrap_or_default();
        for import in imports(&file.shipped()) {
            let known = import == module || allowed.contains(&import) || common.contains(&import.as_str());
            let item_of_root = import.chars().next().is_some_and(char::is_uppercase);
            if !known && !item_of_root {
                broken.push(format!("{}: {module} may not import {import}", file.path));
            }
        }
    }
    fail_if_any("the table in src/lib.rs", broken);
}

/// The rows `a -> b, c` of the table in src/lib.rs.
fn import_table() -> BTreeMap<String, BTreeSet<String>> {
    let lib = std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let rows = lib.lines().filter_map(|line| line.strip_prefix("//! ")?.split_once(" -> "));
    let row = |(from, to): (&str, &str)| {
        let names = to.split('(').next().unwrap_or("").split(',').map(|name| name.trim().to_owned());
        (from.trim().to_owned(), names.collect())
    };
    let table: BTreeMap<_, _> = rows.map(row).collect();
    assert!(table.contains_key("net") && table.contains_key("protocol"), "no table in src/lib.rs");
    table
}

/// The first path segments after `crate::` or the crate's name.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for root in ["crate::", "twincache::"] {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => found.extend(first_segments(list)),
                None => found.extend(first_word(rest)),
            }
        }
    }
    found
}

/// The first segments of the entries of a `{…}` list, up to its closing brace.
fn first_segments(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut entries = vec![String::new()];
    for c in list.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => entries.push(String::new()),
            _ if depth == 0 => entries.last_mut().expect("an entry").push(c),
            _ => {}
        }
    }
    entries.iter().filter_map(|entry| first_word(entry.trim())).collect()
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

#[test]
fn no_glob_imports() {
    let is_glob = |line: &&str| {
        let line = line.trim_start();
        let imports = line.starts_with("use ") || line.starts_with("pub use ");
        imports && line.contains("::*") && line != "use super::*;"
    };
    let mut broken = Vec::new();
    for file in everything() {
        broken.extend(file.code().lines().filter(is_glob).map(|line| format!("{}: {line}", file.path)));
        if file.shipped().contains("use super::*;") && file.path.starts_with("src/") {
            broken.push(format!("{}: use super::* outside of inline tests", file.path));
        }
    }
    fail_if_any("no glob imports", broken);
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let is_unsafe =
        |file: &Source| file.code().split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let broken = sources("src").into_iter().filter(|file| !UNSAFE.contains(&file.path.as_str()) && is_unsafe(file));
    fail_if_any("unsafe code only in sys and arena", broken.map(|file| file.path).collect());
}

#[test]
fn unsafe_blocks_name_their_invariant() {
    let mut broken = Vec::new();
    for file in sources("src").iter().filter(|file| UNSAFE.contains(&file.path.as_str())) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let opens = without_comment(line).contains("unsafe {") || without_comment(line).contains("unsafe impl");
            let before = &lines[at.saturating_sub(6)..=at];
            if opens && !before.iter().any(|line| line.contains("// SAFETY:")) {
                broken.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    fail_if_any("each unsafe block has its // SAFETY:", broken);
}

#[test]
fn every_file_says_what_it_is() {
    let broken = everything().into_iter().filter(|file| !file.text.starts_with("//! "));
    fail_if_any("each file opens with //!", broken.map(|file| file.path).collect());
}

#[test]
fn no_file_is_too_long() {
    let too_long = |file: &Source| file.shipped().lines().count() > LINES_MAX;
    let broken = sources("src").into_iter().filter(too_long).map(|file| file.path);
    fail_if_any(&format!("no file in src has more than {LINES_MAX} lines"), broken.collect());
}

#[test]
fn no_function_is_too_long() {
    let mut broken = Vec::new();
    for file in sources("src") {
        let code = file.shipped();
        let lines: Vec<&str> = code.lines().collect();
        let starts = (0..lines.len()).filter(|&at| is_function(lines[at]));
        for body in starts.filter_map(|at| block(&lines[at..])) {
            if body.len() > FUNCTION_MAX && !is_flat_match(body) {
                broken.push(format!("{}: {} lines: {}", file.path, body.len(), body[0].trim()));
            }
        }
    }
    fail_if_any(&format!("no function has more than {FUNCTION_MAX} lines"), broken);
}

fn is_function(line: &str) -> bool {
    let words = line.trim_start().split(' ');
    let mut words = words.skip_while(|word| matches!(*word, "const" | "unsafe" | "extern") || word.starts_with("pub"));
    words.next() == Some("fn")
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The lines of the block that the first line opens.
fn block<'a, 'b>(lines: &'a [&'b str]) -> Option<&'a [&'b str]> {
    let ends = |line: &&str| indent(line) == indent(lines[0]) && line.trim_start().starts_with('}');
    let end = lines.iter().skip(1).position(ends)?;
    Some(&lines[..end + 2])
}

/// Whether a match makes up most of a function.
fn is_flat_match(body: &[&str]) -> bool {
    let inside = indent(body[0]) + 4;
    let at = body.iter().position(|line| indent(line) == inside && line.contains("match ") && line.ends_with('{'));
    at.and_then(|at| block(&body[at..])).is_some_and(|block| block.len() * 5 >= body.len() * 4)
}

/// Ids of `COMPAT(id):` comments, as they stand in the names of tests.
fn compat_ids(file: &Source) -> Vec<String> {
    let comments = file.text.lines().filter_map(|line| line.split_once("// COMPAT(")?.1.split_once(')'));
    comments.map(|(id, _)| id.replace('-', "_")).collect()
}

fn test_names() -> Vec<String> {
    let mut names = Vec::new();
    for file in everything() {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        let tests = lines.windows(4).filter(|window| window[0] == "#[test]");
        let functions = tests.filter_map(|window| window.iter().find_map(|line| line.strip_prefix("fn ")));
        names.extend(functions.filter_map(first_word));
    }
    names
}

#[test]
fn every_copied_quirk_has_its_test() {
    let names = test_names();
    let ids: Vec<String> = sources("src").iter().flat_map(compat_ids).collect();
    let untested = ids.iter().filter(|id| !names.iter().any(|name| name.contains(*id)));
    let mut broken: Vec<String> = untested.map(|id| format!("COMPAT({id}) has no test of that name")).collect();
    let named = names.iter().filter_map(|name| name.strip_prefix("compat_"));
    let gone = named.filter(|name| !ids.iter().any(|id| name.starts_with(id.as_str())));
    broken.extend(gone.map(|name| format!("compat_{name}: there is no such COMPAT")));
    fail_if_any("COMPAT(id) and tests belong together", broken);
}

#[test]
fn nothing_is_left_to_do() {
    let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "//! placeholder"];
    let mut broken = Vec::new();
    for file in everything().iter().filter(|file| file.path != "tests/tidy.rs") {
        for (at, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                broken.push(format!("{}:{}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    fail_if_any("nothing is left to do", broken);
}

#[test]
fn the_readings_work() {
    let found = imports("use crate::net::Conn;\nuse crate::{\n    stats,\n    store::{Store, Upload},\n};");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["net", "stats", "store"]);
    let lines = ["fn a() {", "    match x {", "        1 => 2,", "    }", "}", "fn b() {"];
    assert_eq!(block(&lines).map(<[_]>::len), Some(5));
    assert!(is_function("    pub(crate) const fn a() {") && !is_function("    // fn a"));
    assert!(import_table()["config"].contains("store"));
}
