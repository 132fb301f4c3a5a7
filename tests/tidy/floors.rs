//! The tables in src/lib.rs, and what edges say against them.
//!
//! ```text
//!   a -> b, c              folder a may use the folders b and c
//!   store: x > y, z        floors inside the folder: a use goes to the right, mod is the folder's mod.rs
//!        > w               the same row
//! ```
//!
//! And circles: files of which each uses, over others, each other one.

use crate::tree::Edge;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Folders that must have a line of floors.
const WITH_FLOORS: &[&str] = &["store", "net", "sidecar"];
/// The folder whose files may use each other in a circle: they are one structure behind one lock.
const CIRCLE_ALLOWED: &str = "src/store/shard/";

/// Rows of a table: a name, and names.
pub type Rows = BTreeMap<String, Vec<String>>;

/// The rows `a -> b, c`.
pub fn folders(lib: &str) -> Rows {
    rows(lib, " -> ", &[','])
}

/// The rows `a: b > c, d`.
pub fn floors(lib: &str) -> Rows {
    let mut table = rows(lib, ": ", &['>', ',']);
    let is_name = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_' || c == '/');
    table.retain(|folder, inside| is_name(folder) && inside.len() > 1 && inside.iter().all(is_name));
    table
}

/// The number of floors in the rows `a: b > c, d`.
pub fn count_floors(lib: &str) -> usize {
    let table = floors(lib);
    let lines = lines(lib);
    let rows = lines.iter().filter_map(|line| line.split_once(": "));
    rows.filter(|(folder, _)| table.contains_key(*folder)).map(|(_, row)| row.split('>').count()).sum()
}

fn rows(lib: &str, arrow: &str, commas: &[char]) -> Rows {
    let lines = lines(lib);
    let row = |(from, to): (&str, &str)| {
        let names = without_remarks(to);
        let names = names.split(commas).map(|name| name.trim().to_owned()).collect();
        (from.trim().to_owned(), names)
    };
    lines.iter().filter_map(|line| line.split_once(arrow)).map(row).collect()
}

/// The lines of the file's comment. One that begins with spaces and an arrow carries on the line before it.
fn lines(lib: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
        match lines.last_mut() {
            Some(last) if line.starts_with(' ') && line.trim_start().starts_with('>') => last.push_str(line),
            _ => lines.push(line.to_owned()),
        }
    }
    lines
}

/// A row without what stands in parentheses.
fn without_remarks(row: &str) -> String {
    let mut depth = 0;
    let mut kept = String::new();
    for c in row.chars() {
        depth += i32::from(c == '(');
        if depth == 0 {
            kept.push(c);
        }
        depth -= i32::from(c == ')');
    }
    kept
}

/// The top-level module of a path: `net` for src/net/conn.rs.
fn top(path: &str) -> &str {
    path.trim_start_matches("src/").split('/').next().unwrap_or("").trim_end_matches(".rs")
}

/// Edges that the table of folders does not allow.
pub fn against_folders(edges: &[Edge<'_>], table: &Rows) -> Vec<String> {
    let is_allowed = |from: &str, to: &str| {
        let named = table.get(from).is_some_and(|row| row.iter().any(|name| name == to));
        let is_common = from != "protocol" && ["clock", "stats", "sync"].contains(&to);
        // The root has nothing but constants.
        from == to || named || is_common || to == "lib"
    };
    let broken = edges.iter().filter(|edge| !is_allowed(top(edge.from), top(edge.to)));
    let say = |edge: &Edge<'_>| format!("{edge}: {} may not use {}", top(edge.from), top(edge.to));
    broken.map(say).collect()
}

/// What the files say against the floors: upward edges, and files that have no floor, or floors no file.
pub fn against_floors(files: &[&str], edges: &[Edge<'_>], table: &Rows) -> Vec<String> {
    let missing = WITH_FLOORS.iter().filter(|folder| !table.contains_key(**folder));
    let mut broken: Vec<String> = missing.map(|folder| format!("src/lib.rs has no floors of {folder}")).collect();
    for (folder, row) in table {
        let inside: BTreeSet<&str> = files.iter().filter_map(|file| entry(folder, file)).collect();
        let without = inside.iter().filter(|name| **name != "mod" && !row.iter().any(|other| other == *name));
        broken.extend(without.map(|name| format!("{folder}/{name} has no floor")));
        let gone = row.iter().filter(|name| !inside.contains(name.as_str()));
        broken.extend(gone.map(|name| format!("the floors of {folder} name {name}, which is not there")));
        let floor = |path: &str| row.iter().position(|name| Some(name.as_str()) == entry(folder, path));
        for edge in edges {
            let (Some(from), Some(to)) = (entry(folder, edge.from), entry(folder, edge.to)) else { continue };
            if from != to && (floor(edge.from).is_none() || floor(edge.to) <= floor(edge.from)) {
                broken.push(format!("{edge}: in {folder}, {from} does not stand above {to}"));
            }
        }
    }
    broken
}

/// What holds a file in a folder: `memory` for `store` and src/store/memory/slab.rs, `mod` for src/store/mod.rs.
fn entry<'a>(folder: &str, path: &'a str) -> Option<&'a str> {
    let inside = path.strip_prefix("src/")?.strip_prefix(folder)?.strip_prefix('/')?;
    Some(inside.split('/').next()?.trim_end_matches(".rs"))
}

/// The circles of files, largest first.
pub fn circles<'a>(edges: &[Edge<'a>]) -> Vec<BTreeSet<&'a str>> {
    let mut uses: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for edge in edges {
        uses.entry(edge.from).or_default().insert(edge.to);
    }
    let files: BTreeSet<&str> = edges.iter().map(|edge| edge.from).collect();
    let reached: BTreeMap<&str, BTreeSet<&str>> = files.iter().map(|&file| (file, reached_from(file, &uses))).collect();
    let mut found = BTreeSet::new();
    for (file, reached_here) in reached.iter().filter(|(file, reached_here)| reached_here.contains(*file)) {
        let comes_back = |other: &&str| reached.get(other).is_some_and(|there| there.contains(file));
        found.insert(reached_here.iter().copied().filter(comes_back).collect::<BTreeSet<_>>());
    }
    let mut found: Vec<_> = found.into_iter().collect();
    found.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    found
}

fn reached_from<'a>(file: &'a str, uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        let next = uses.get(file).into_iter().flatten();
        open.extend(next.filter(|&&to| found.insert(to)));
    }
    found
}

/// The circles that are not allowed, each with its files and the lines that make it.
pub fn forbidden_circles(edges: &[Edge<'_>]) -> Vec<String> {
    let all = circles(edges);
    let forbidden = all.iter().filter(|circle| !circle.iter().all(|file| file.starts_with(CIRCLE_ALLOWED)));
    let say = |circle: &BTreeSet<&str>| {
        let files: Vec<&str> = circle.iter().copied().collect();
        let mut said = vec![format!("circle of {} files: {}", files.len(), files.join(", "))];
        let is_inside = |edge: &&Edge<'_>| circle.contains(edge.from) && circle.contains(edge.to);
        said.extend(edges.iter().filter(is_inside).map(Edge::to_string));
        said.join("\n    ")
    };
    forbidden.map(say).collect()
}

/// The shortest way over uses from a file to another, both included.
pub fn way<'a>(edges: &[Edge<'a>], from: &'a str, to: &str) -> Vec<&'a str> {
    let mut ways = VecDeque::from([vec![from]]);
    let mut seen = BTreeSet::from([from]);
    while let Some(way) = ways.pop_front() {
        let here = way[way.len() - 1];
        if here == to {
            return way;
        }
        for edge in edges.iter().filter(|edge| edge.from == here) {
            if seen.insert(edge.to) {
                ways.push_back([&way[..], &[edge.to]].concat());
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! # Who uses whom\n//! net    -> store (its items), watch   (and more)\n//! store -> nothing\n//!\n\
                       //! store:        mod > dump, lock_time\n//!       > shard > kinds\n//! store/shard: mod, table > lru\n\
                       //! Note: a sentence, as others.\n";

    fn edge<'a>(from: &'a str, to: &'a str) -> Edge<'a> {
        Edge { from, to, places: vec![(7, "x".into())] }
    }

    #[test]
    fn the_tables_are_read() {
        assert_eq!(folders(LIB)["net"], ["store", "watch"]);
        let table = floors(LIB);
        assert_eq!(table.keys().collect::<Vec<_>>(), ["store", "store/shard"]);
        assert_eq!(table["store"], ["mod", "dump", "lock_time", "shard", "kinds"]);
        assert_eq!(count_floors(LIB), 6);
    }

    #[test]
    fn folders_use_what_their_row_names() {
        let table = folders(LIB);
        let broken = |from, to| against_folders(&[edge(from, to)], &table).len();
        assert_eq!(broken("src/net/conn/mod.rs", "src/store/mod.rs"), 0);
        assert_eq!(broken("src/net/conn/mod.rs", "src/net/mod.rs"), 0);
        assert_eq!(broken("src/net/mod.rs", "src/clock.rs"), 0);
        assert_eq!(broken("src/net/mod.rs", "src/lib.rs"), 0);
        assert_eq!(broken("src/protocol/mod.rs", "src/clock.rs"), 1);
        assert_eq!(broken("src/store/mod.rs", "src/net/mod.rs"), 1);
    }

    #[test]
    fn a_use_goes_down() {
        let table = floors(LIB);
        let files = ["mod", "dump", "lock_time", "shard/mod", "shard/table", "shard/lru", "kinds"];
        let paths: Vec<String> = files.iter().map(|file| format!("src/store/{file}.rs")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let against = |edges: &[Edge<'_>]| {
            let broken = against_floors(&paths, edges, &table);
            broken.into_iter().filter(|line| !line.starts_with("src/lib.rs has no floors")).collect::<Vec<_>>()
        };
        let down = ["src/store/mod.rs", "src/store/dump.rs", "src/store/lock_time.rs", "src/store/shard/table.rs"];
        let edges: Vec<_> = down.windows(2).map(|pair| edge(pair[0], pair[1])).collect();
        assert_eq!(against(&edges), [""; 0]);
        assert_eq!(against(&[edge("src/store/shard/table.rs", "src/store/shard/lru.rs")]), [""; 0]);
        assert_eq!(against(&[edge("src/store/shard/lru.rs", "src/store/shard/table.rs")]).len(), 1);
        assert_eq!(against(&[edge("src/store/shard/lru.rs", "src/store/dump.rs")]).len(), 1);
        assert_eq!(against(&[edge("src/store/lock_time.rs", "src/store/dump.rs")]).len(), 1, "sideways to the right");
        assert_eq!(against_floors(&[], &[], &table).len(), 2 + 5 + 3, "net, sidecar, and each name");
        assert_eq!(against_floors(&[&paths[..], &["src/store/new.rs"]].concat(), &[], &table).len(), 3);
    }

    #[test]
    fn circles_are_found_whole() {
        let shard = [
            edge("src/store/shard/a.rs", "src/store/shard/b.rs"),
            edge("src/store/shard/b.rs", "src/store/shard/a.rs"),
        ];
        assert_eq!(circles(&shard).len(), 1);
        assert_eq!(forbidden_circles(&shard), [""; 0]);
        let pairs = [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "d"), ("x", "a")];
        let edges = pairs.map(|(from, to)| edge(from, to));
        let found = circles(&edges);
        assert_eq!(found, [BTreeSet::from(["a", "b", "c"]), BTreeSet::from(["d", "e"])]);
        let said = forbidden_circles(&edges);
        assert_eq!(said[1], "circle of 2 files: d, e\n    d uses e: 7 x\n    e uses d: 7 x");
        assert_eq!(way(&edges, "x", "d"), ["x", "a", "b", "c", "d"]);
        assert_eq!(way(&edges, "d", "x"), [""; 0]);
    }
}
