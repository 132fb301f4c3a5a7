//! The rules of the house, read from the sources as text.
//!
//! ```text
//!   src, tests, bench ──source──> text and words, with and without tests
//!   src               ──tree────> modules ──> which file uses which
//!   src/lib.rs        ──floors──> its tables; what the edges say against them; circles
//! ```
//!
//! Sources are formatted by rustfmt, which these readings rely on. What the compiler or clippy can check is
//! not here. Figures of the house: `cargo test --test tidy -- --ignored --nocapture`.

mod floors;
mod source;
mod tree;

use source::{Source, root, sources, without_comment};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use tree::{Edge, Tree, types};

/// Longest file in src, without its inline tests.
const LINES_MAX: usize = 600;
/// Longest tests among what ships: a table or two.
const INLINE_MAX: usize = 80;
/// Longest function that is not one flat match.
const FUNCTION_MAX: usize = 70;
/// Longest subject of a commit, in characters.
const SUBJECT_MAX: usize = 60;
/// The last commit whose subject may be longer.
const SUBJECTS_SINCE: &str = "fdb92c7";
/// Files and folders that may hold unsafe code.
const UNSAFE: &[&str] = &["src/sys/", "src/store/memory/arena.rs"];
/// The one test-only file that stands beside shipped ones.
const TESTING: &str = "src/testing.rs";

fn everything() -> Vec<Source> {
    ["src", "tests", "bench", "fuzz"].into_iter().flat_map(sources).collect()
}

fn may_be_unsafe(file: &Source) -> bool {
    UNSAFE.iter().any(|path| file.path == *path || (path.ends_with('/') && file.path.starts_with(path)))
}

/// Fails if something is against a rule.
fn check(rule: &str, says: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}: {says}:\n  {}", broken.join("\n  "));
}

fn lib() -> String {
    std::fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs")
}

#[test]
fn folders_use_only_what_the_table_allows() {
    let files = sources("src");
    let table = floors::folders(&lib());
    assert!(table.contains_key("net") && table.contains_key("protocol"), "no table in src/lib.rs");
    check("folders", "the table in src/lib.rs", &floors::against_folders(&Tree::new(&files).edges(), &table));
}

#[test]
fn files_use_only_what_stands_below_them() {
    let files = sources("src");
    let tree = Tree::new(&files);
    let paths: Vec<&str> = tree.files().iter().map(|file| file.path.as_str()).collect();
    let broken = floors::against_floors(&paths, &tree.edges(), &floors::floors(&lib()));
    check("floors", "the floors in src/lib.rs", &broken);
}

#[test]
fn files_use_each_other_in_no_circle() {
    let files = sources("src");
    let broken = floors::forbidden_circles(&Tree::new(&files).edges());
    check("circles", "files use each other in a circle only in src/store/shard", &broken);
}

#[test]
fn a_type_name_occurs_once() {
    let files = sources("src");
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for file in Tree::new(&files).files() {
        for name in types(&file.shipped_words()) {
            places.entry(name.text).or_default().push(format!("{}:{}", file.path, name.line));
        }
    }
    let twice = places.iter().filter(|(_, places)| places.len() > 1);
    let broken: Vec<String> = twice.map(|(name, places)| format!("{name}: {}", places.join(", "))).collect();
    check("type names", "a type name occurs once", &broken);
}

#[test]
fn tests_stand_in_their_folders() {
    let files = sources("src");
    let shipped: BTreeSet<&str> = Tree::new(&files).files().iter().map(|file| file.path.as_str()).collect();
    let is_out_of_place = |path: &&str| !path.contains("/tests/") && *path != TESTING && !shipped.contains(path);
    let broken = files.iter().map(|file| file.path.as_str()).filter(is_out_of_place).map(str::to_owned);
    check("test files", "what does not ship lies in a folder named tests", &broken.collect::<Vec<_>>());
}

#[test]
fn tests_beside_what_ships_are_short() {
    let files = sources("src");
    let lengths = Tree::new(&files).files().into_iter().map(|file| (&file.path, file.longest_test()));
    let too_long = lengths.filter(|&(_, lines)| lines > INLINE_MAX);
    let broken: Vec<String> = too_long.map(|(path, lines)| format!("{path}: {lines}")).collect();
    check("inline tests", &format!("tests of more than {INLINE_MAX} lines lie in a folder named tests"), &broken);
}

#[test]
fn subjects_of_commits_are_short() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root()).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(log) = git(&["log", "--format=%h %s", &format!("{SUBJECTS_SINCE}..HEAD")]) else {
        return println!("passed: there is no history with {SUBJECTS_SINCE} here");
    };
    let is_long = |line: &&str| line.split_once(' ').is_some_and(|(_, subject)| subject.chars().count() > SUBJECT_MAX);
    let broken: Vec<String> = log.lines().filter(is_long).map(str::to_owned).collect();
    check("subjects", &format!("the subject of a commit has at most {SUBJECT_MAX} characters"), &broken);
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
    }
    let files = sources("src");
    let shipped = Tree::new(&files).files().into_iter();
    let globs = shipped.filter(|file| file.shipped_code().contains("use super::*;"));
    broken.extend(globs.map(|file| format!("{}: use super::* outside of tests", file.path)));
    check("globs", "no glob imports", &broken);
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let is_unsafe =
        |file: &Source| file.code().split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe");
    let broken = sources("src").into_iter().filter(|file| !may_be_unsafe(file) && is_unsafe(file));
    check("unsafe", "unsafe code only in sys and arena", &broken.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn unsafe_blocks_name_their_invariant() {
    let mut broken = Vec::new();
    for file in sources("src").iter().filter(|file| may_be_unsafe(file)) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let opens = without_comment(line).contains("unsafe {") || without_comment(line).contains("unsafe impl");
            let before = &lines[at.saturating_sub(6)..=at];
            if opens && !before.iter().any(|line| line.contains("// SAFETY:")) {
                broken.push(format!("{}:{}", file.path, at + 1));
            }
        }
    }
    check("invariants", "each unsafe block has its // SAFETY:", &broken);
}

#[test]
fn every_file_says_what_it_is() {
    let broken = everything().into_iter().filter(|file| !file.text.starts_with("//! "));
    check("file heads", "each file opens with //!", &broken.map(|file| file.path).collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    let files = sources("src");
    let lengths = Tree::new(&files).files().into_iter().map(|file| (&file.path, file.shipped_lines()));
    let too_long = lengths.filter(|&(_, lines)| lines > LINES_MAX);
    let broken: Vec<String> = too_long.map(|(path, lines)| format!("{path}: {lines}")).collect();
    check("long files", &format!("no shipped file has more than {LINES_MAX} lines"), &broken);
}

#[test]
fn no_function_is_too_long() {
    let files = sources("src");
    let mut broken = Vec::new();
    for file in Tree::new(&files).files() {
        let code = file.shipped_code();
        let lines: Vec<&str> = code.lines().collect();
        let starts = (0..lines.len()).filter(|&at| is_function(lines[at]));
        for body in starts.filter_map(|at| block(&lines[at..])) {
            if body.len() > FUNCTION_MAX && !is_flat_match(body) {
                broken.push(format!("{}: {} lines: {}", file.path, body.len(), body[0].trim()));
            }
        }
    }
    check("long functions", &format!("no function has more than {FUNCTION_MAX} lines"), &broken);
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

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
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
    check("quirks", "COMPAT(id) and tests belong together", &broken);
}

#[test]
fn nothing_is_left_to_do() {
    let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!(", "//! placeholder"];
    let mut broken = Vec::new();
    for file in everything().iter().filter(|file| file.path != "tests/tidy/main.rs") {
        for (at, line) in file.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                broken.push(format!("{}:{}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    check("nothing to do", "nothing is left to do", &broken);
}

#[test]
fn the_readings_work() {
    let lines = ["fn a() {", "    match x {", "        1 => 2,", "    }", "}", "fn b() {"];
    assert_eq!(block(&lines).map(<[_]>::len), Some(5));
    assert!(is_function("    pub(crate) const fn a() {") && !is_function("    // fn a"));
}

/// Prints the size of the house. `WAY_FROM` and `WAY_TO` name two files, to count the files on the way between.
#[test]
#[ignore = "prints figures and checks nothing"]
fn the_house_in_figures() {
    let files = sources("src");
    let tree = Tree::new(&files);
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    tree.files().iter().for_each(|file| *folders.entry(file.folder()).or_default() += file.shipped_lines());
    folders.iter().for_each(|(folder, lines)| println!("{lines:7} {folder}"));
    println!("{:7} shipped lines in {} files", folders.values().sum::<usize>(), tree.files().len());
    let number_of_types = tree.files().iter().map(|file| types(&file.shipped_words()).len()).sum::<usize>();
    println!("{number_of_types:7} types");
    let edges = tree.edges();
    let circles = floors::circles(&edges);
    let sizes: Vec<usize> = circles.iter().map(BTreeSet::len).collect();
    println!("{:7} circles, of {sizes:?} files", circles.len());
    println!("{:7} floors inside folders", floors::count_floors(&lib()));
    let name = |variable: &str, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    print_way(&edges, &name("WAY_FROM", "src/net/worker/mod.rs"), &name("WAY_TO", "src/store/shard/table.rs"));
}

fn print_way(edges: &[Edge<'_>], from: &str, to: &str) {
    let way = floors::way(edges, from, to);
    println!("{:7} files from {from} to {to}: {}", way.len(), way.join(", "));
}
