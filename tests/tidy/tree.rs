//! The module tree of what ships, and which file uses which.
//!
//! ```text
//!   src/lib.rs, src/main.rs, src/bin/*.rs          the roots
//!     └─ `mod x;` ─> file     `mod x {…}` ─> the same file     tests are left out
//!   module { children, items, names: what `use` binds, paths: what the code says }
//!   path ──resolve──> the file that defines the item
//! ```
//!
//! A path is followed through `use` and `pub use` to the file that defines the item, so a `mod.rs` that only declares
//! and re-exports its children uses nothing and is used by nobody. A `use` that binds a module is no edge by itself:
//! the paths that begin with that module are.
//!
//! Limits: a call of a method is no path, so what an `impl` in another file offers is not seen. A name stands for
//! a module only in the module that declares or imports it. Glob imports lead to the file of their module.

use crate::source::{Source, Word, closing};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Formatter};

pub struct Tree<'a> {
    files: &'a [Source],
    modules: Vec<Module<'a>>,
    /// The root module of the library, which `twincache::` leads to.
    library: usize,
}

struct Module<'a> {
    /// Its file, an index.
    file: usize,
    /// The module that declares it; none for a root.
    parent: Option<usize>,
    children: BTreeMap<&'a str, usize>,
    items: BTreeSet<&'a str>,
    /// What `use` binds: a name and the path it stands for.
    names: BTreeMap<&'a str, Vec<&'a str>>,
    paths: Vec<Use<'a>>,
}

/// A path in the code.
struct Use<'a> {
    path: Vec<&'a str>,
    line: usize,
    /// It stands in a `use`.
    is_import: bool,
    /// It stands in a `pub use`, and no code beside it uses the name.
    is_reexport: bool,
}

/// Where a path leads.
#[derive(Clone, Copy)]
enum Target {
    /// To an item defined in this module.
    Item(usize),
    Module(usize),
    /// Out of the project, or nowhere that is known.
    Outside,
}

/// Longest chain of names that stand for names.
const CHAIN_MAX: usize = 16;

/// One file uses another.
pub struct Edge<'a> {
    pub from: &'a str,
    pub to: &'a str,
    /// The paths as they are written, each with the first line where it stands.
    pub places: Vec<(usize, String)>,
}

impl Display for Edge<'_> {
    fn fmt(&self, to: &mut Formatter<'_>) -> std::fmt::Result {
        let places: Vec<String> = self.places.iter().map(|(line, path)| format!("{line} {path}")).collect();
        write!(to, "{} uses {}: {}", self.from, self.to, places.join(", "))
    }
}

impl<'a> Tree<'a> {
    /// Reads the modules that ship. Files that no shipped module declares are left out.
    pub fn new(files: &'a [Source]) -> Tree<'a> {
        let mut tree = Tree { files, modules: Vec::new(), library: 0 };
        for (file, source) in files.iter().enumerate() {
            let is_root = ["src/lib.rs", "src/main.rs"].contains(&source.path.as_str())
                || source.path.strip_prefix("src/bin/").is_some_and(|name| !name.contains('/'));
            if is_root {
                let root = tree.add_file(file, None);
                tree.library = if source.path == "src/lib.rs" { root } else { tree.library };
            }
        }
        tree
    }

    /// The files that ship.
    pub fn files(&self) -> Vec<&'a Source> {
        let shipped: BTreeSet<usize> = self.modules.iter().map(|module| module.file).collect();
        shipped.into_iter().map(|file| &self.files[file]).collect()
    }

    fn add_file(&mut self, file: usize, parent: Option<usize>) -> usize {
        let words = self.files[file].shipped_words();
        self.add(&words, file, parent)
    }

    fn add(&mut self, words: &[Word<'a>], file: usize, parent: Option<usize>) -> usize {
        let index = self.modules.len();
        let (children, items, names, paths) = Default::default();
        self.modules.push(Module { file, parent, children, items, names, paths });
        let mut at = 0;
        while at < words.len() {
            at = self.read(index, words, at);
        }
        self.read_items(index, words);
        self.drop_unused_reexports(index, words);
        index
    }

    /// Reads what begins at `at`: a module, a `use`, a path, or a word that is none of them. Returns what follows it.
    fn read(&mut self, module: usize, words: &[Word<'a>], at: usize) -> usize {
        let text = |at: usize| words.get(at).map_or("", |word| word.text);
        let before = if at == 0 { "" } else { text(at - 1) };
        let Word { text: word, line } = words[at];
        if word == "mod" && is_name(text(at + 1)) && text(at + 2) == ";" {
            let file = self.file_of(module, text(at + 1));
            let child = self.add_file(file, Some(module));
            self.modules[module].children.insert(text(at + 1), child);
            return at + 3;
        }
        if word == "mod" && is_name(text(at + 1)) && text(at + 2) == "{" {
            let end = closing(words, at + 2);
            let child = self.add(&words[at + 3..end], self.modules[module].file, Some(module));
            self.modules[module].children.insert(text(at + 1), child);
            return end + 1;
        }
        if word == "use" && text(at + 1) != "<" {
            let is_reexport = before == "pub" || before == ")";
            return self.read_use(module, words, at + 1, &[], is_reexport) + 1;
        }
        if is_name(word) && text(at + 1) == "::" && before != "::" && before != "." {
            let mut path = vec![word];
            let mut end = at + 1;
            while text(end) == "::" && is_name(text(end + 1)) {
                path.push(text(end + 1));
                end += 2;
            }
            self.modules[module].paths.push(Use { path, line, is_import: false, is_reexport: false });
            return end;
        }
        at + 1
    }

    /// The file of a module declared in another one.
    fn file_of(&self, module: usize, name: &str) -> usize {
        let path = &self.files[self.modules[module].file].path;
        let folder = match path.rsplit_once('/') {
            Some((folder, "lib.rs" | "main.rs" | "mod.rs")) => folder,
            _ if path.starts_with("src/bin/") => "src/bin",
            _ => path.trim_end_matches(".rs"),
        };
        let paths = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
        let found = self.files.iter().position(|file| paths.contains(&file.path));
        found.unwrap_or_else(|| panic!("{path} declares {name}, which is in none of {paths:?}"))
    }

    /// Reads the tree of a `use` from `at` on, its part before `at` being `stem`. Returns the word that ends it.
    fn read_use(
        &mut self,
        module: usize,
        words: &[Word<'a>],
        mut at: usize,
        stem: &[&'a str],
        is_reexport: bool,
    ) -> usize {
        let mut path = stem.to_vec();
        let line = words[at].line;
        let mut name = None;
        while at < words.len() {
            match words[at].text {
                ";" | "," | "}" => break,
                "{" => {
                    let end = closing(words, at);
                    at += 1;
                    while at < end {
                        at = self.read_use(module, words, at, &path, is_reexport);
                        at += usize::from(words[at].text == ",");
                    }
                    return end + 1;
                }
                "as" => {
                    name = Some(words[at + 1].text);
                    at += 2;
                }
                "self" if !path.is_empty() => at += 1,
                "::" => at += 1,
                word => {
                    path.push(word);
                    at += 1;
                }
            }
        }
        if let Some(name) = name.or(path.last().copied()) {
            self.modules[module].names.insert(name, path.clone());
        }
        self.modules[module].paths.push(Use { path, line, is_import: true, is_reexport });
        at
    }

    /// Notes the items that a module defines, in macro calls as well, but not in functions or `impl`s.
    fn read_items(&mut self, module: usize, words: &[Word<'a>]) {
        let mut at = 0;
        while at + 1 < words.len() {
            let Word { text: word, .. } = words[at];
            let next = words[at + 1].text;
            let is_item = matches!(word, "struct" | "enum" | "trait" | "union" | "type" | "fn" | "const" | "static");
            if is_item && is_name(next) && next != "fn" {
                self.modules[module].items.insert(next);
            }
            if word == "macro_rules" {
                self.modules[module].items.insert(words[at + 2].text);
                at += 2;
            }
            let is_macro_call = word == "!" && next == "{";
            at = match word {
                "{" | "(" | "[" => closing(words, at) + 1,
                _ if is_macro_call => at + 2,
                _ => at + 1,
            };
        }
    }

    /// Forgets the re-exports of a module that its own code does not use: they are a façade, if they lie below it.
    fn drop_unused_reexports(&mut self, module: usize, words: &[Word<'a>]) {
        let mut paths = std::mem::take(&mut self.modules[module].paths);
        for path in paths.iter_mut().filter(|path| path.is_reexport) {
            let used = path.path.last().and_then(|name| line_of_use(words, name));
            path.is_reexport = used.is_none();
            path.line = used.unwrap_or(path.line);
        }
        self.modules[module].paths = paths;
    }

    /// Follows a path that stands in `module`.
    fn resolve(&self, module: usize, path: &[&str], chain: usize) -> Target {
        let Some((first, rest)) = path.split_first().filter(|_| chain < CHAIN_MAX) else { return Target::Outside };
        let start = match *first {
            "crate" => Target::Module(self.root_of(module)),
            "twincache" => Target::Module(self.library),
            "self" => Target::Module(module),
            "super" => self.modules[module].parent.map_or(Target::Outside, Target::Module),
            name => self.look_up(module, name, rest.is_empty(), chain).unwrap_or(Target::Outside),
        };
        let mut here = start;
        for (at, name) in rest.iter().enumerate() {
            let Target::Module(module) = here else { return here };
            here = match *name {
                "super" => self.modules[module].parent.map_or(Target::Outside, Target::Module),
                // What a macro makes is an item, too.
                name => self.look_up(module, name, at + 1 == rest.len(), chain).unwrap_or(Target::Item(module)),
            };
        }
        here
    }

    /// What a name means in a module. As the last of a path it is rather an item than a module.
    fn look_up(&self, module: usize, name: &str, is_last: bool, chain: usize) -> Option<Target> {
        let Module { children, items, names, .. } = &self.modules[module];
        let item = items.contains(name).then_some(Target::Item(module));
        let child = children.get(name).map(|&child| Target::Module(child));
        let bound = || names.get(name).map(|path| self.resolve(module, path, chain + 1));
        if is_last { item.or(child).or_else(bound) } else { child.or_else(bound).or(item) }
    }

    fn root_of(&self, mut module: usize) -> usize {
        while let Some(parent) = self.modules[module].parent {
            module = parent;
        }
        module
    }

    fn is_below(&self, mut module: usize, above: usize) -> bool {
        while let Some(parent) = self.modules[module].parent {
            if parent == above {
                return true;
            }
            module = parent;
        }
        false
    }

    /// Which file uses which, and where.
    pub fn edges(&self) -> Vec<Edge<'a>> {
        let mut edges: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for (index, module) in self.modules.iter().enumerate() {
            for used in module.paths.iter().filter(|used| !self.is_imported(index, used)) {
                let Target::Item(target) = self.resolve(index, &used.path, 0) else { continue };
                let is_facade = used.is_reexport && self.is_below(target, index);
                let (from, to) = (module.file, self.modules[target].file);
                if from != to && !is_facade {
                    let ends = (self.files[from].path.as_str(), self.files[to].path.as_str());
                    let places = edges.entry(ends).or_default();
                    places.entry(used.path.join("::")).or_insert(used.line);
                }
            }
        }
        let in_order = |places: BTreeMap<String, usize>| {
            let mut places: Vec<_> = places.into_iter().map(|(path, line)| (line, path)).collect();
            places.sort();
            places
        };
        edges.into_iter().map(|((from, to), places)| Edge { from, to, places: in_order(places) }).collect()
    }

    /// Whether a path begins with an imported item: the import says all.
    fn is_imported(&self, module: usize, used: &Use<'_>) -> bool {
        let first = used.path[0];
        let is_bound = self.modules[module].names.contains_key(first) && !used.is_import;
        is_bound && matches!(self.resolve(module, &[first], 0), Target::Item(_))
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && !word.contains('"')
        && !matches!(word, "as" | "in" | "for" | "dyn" | "mut" | "ref" | "where")
}

/// The line on which a module's code uses a name that it re-exports.
fn line_of_use(words: &[Word<'_>], name: &str) -> Option<usize> {
    let mut is_in_use = false;
    for (at, word) in words.iter().enumerate() {
        is_in_use = (is_in_use || word.text == "use") && word.text != ";";
        let before = if at == 0 { "" } else { words[at - 1].text };
        let after = words.get(at + 1).map_or("", |word| word.text);
        let is_called = name.starts_with(char::is_uppercase) || matches!(after, "(" | "::" | "!");
        if word.text == name && !is_in_use && is_called && !matches!(before, "." | "::" | "fn") {
            return Some(word.line);
        }
    }
    None
}

/// The names of the types that words define, with their lines. Associated types are none.
pub fn types<'a>(words: &[Word<'a>]) -> Vec<Word<'a>> {
    let mut found = Vec::new();
    // For each open brace, whether it is that of an `impl` or a trait.
    let mut open = vec![false];
    let mut opens_impl = false;
    for pair in words.windows(2) {
        let [word, next] = pair else { continue };
        let is_type = next.text.starts_with(char::is_uppercase);
        match word.text {
            "struct" | "enum" | "union" if is_type => found.push(*next),
            "type" if is_type && open.last() == Some(&false) => found.push(*next),
            "trait" if is_type => {
                found.push(*next);
                opens_impl = true;
            }
            "impl" => opens_impl = true,
            "{" => open.push(std::mem::take(&mut opens_impl)),
            "}" => drop(open.pop()),
            ";" => opens_impl = false,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Tree, types};
    use crate::source::{Source, words};

    fn house(files: &[(&str, &str)]) -> Vec<Source> {
        let source = |&(path, text): &(&str, &str)| Source { path: path.into(), text: text.into() };
        files.iter().map(source).collect()
    }

    /// The edges of made-up sources, as `from -> to`.
    fn edges(files: &[(&str, &str)]) -> Vec<String> {
        let files = house(files);
        let short = |path: &str| path.trim_start_matches("src/").to_owned();
        let edges = Tree::new(&files).edges();
        edges.iter().map(|edge| format!("{} -> {}", short(edge.from), short(edge.to))).collect()
    }

    const LIB: (&str, &str) = ("src/lib.rs", "pub mod a;\npub mod b;\npub const VERSION: &str = \"1\";");

    #[test]
    fn a_path_leads_to_the_file_that_defines_its_item() {
        let b = ("src/b/mod.rs", "mod deep;\nmod other;\npub use deep::{Deep, Second as Renamed};\npub struct Own;");
        let deep = ("src/b/deep.rs", "pub struct Deep;\npub struct Second;");
        let other = ("src/b/other.rs", "pub fn f() {}");
        let to = |a: &str| edges(&[LIB, ("src/a.rs", a), b, deep, other]);
        assert_eq!(to("use crate::b::Deep;"), ["a.rs -> b/deep.rs"]);
        assert_eq!(to("use crate::b::{Own, other::{self, f}};"), ["a.rs -> b/mod.rs", "a.rs -> b/other.rs"]);
        assert_eq!(to("use crate::b::Renamed;"), ["a.rs -> b/deep.rs"]);
        assert_eq!(to("use crate::b::deep::Second as X;\nfn f() { X::new() }"), ["a.rs -> b/deep.rs"]);
        assert_eq!(to("use crate::b;"), [""; 0], "a module is only bound");
        assert_eq!(
            to("use crate::b as c;\nfn f() -> c::Renamed { c::other::f() }"),
            ["a.rs -> b/deep.rs", "a.rs -> b/other.rs"]
        );
        assert_eq!(to("fn f() { g::<crate::b::Own>(super::b::other::f) }"), ["a.rs -> b/mod.rs", "a.rs -> b/other.rs"]);
        assert_eq!(to("fn f() {\n    use crate::b::deep;\n    deep::Deep::new();\n}"), ["a.rs -> b/deep.rs"]);
        assert_eq!(to("use std::b::Deep;\nfn f() { ::b::Own; b::Own }"), [""; 0]);
        assert_eq!(to("use crate::VERSION;"), ["a.rs -> lib.rs"]);
        assert_eq!(to("use crate::b::made_by_a_macro;"), ["a.rs -> b/mod.rs"]);
        assert_eq!(to("// use crate::b::Own;\n#[cfg(test)]\nmod tests {\n    use crate::b::Own;\n}"), [""; 0]);
        assert_eq!(to("mod inside {\n    use super::super::b::Own;\n}"), ["a.rs -> b/mod.rs"]);
    }

    #[test]
    fn a_module_is_a_facade_until_it_uses_its_children() {
        let child = ("src/b/child.rs", "pub struct Child;\npub fn run() {}\nuse super::Parent;");
        let to = |b: &str| edges(&[LIB, ("src/a.rs", ""), ("src/b/mod.rs", b), child]);
        let up = "b/child.rs -> b/mod.rs";
        let down = "b/mod.rs -> b/child.rs";
        assert_eq!(to("mod child;\npub use child::{Child, run};\nstruct Parent;"), [up]);
        assert_eq!(to("mod child;\npub(crate) use child::Child;\nstruct Parent(Child);"), [up, down]);
        assert_eq!(to("mod child;\npub use child::run;\nstruct Parent;\nfn f() { run() }"), [up, down]);
        assert_eq!(to("mod child;\nuse child::Child;\nstruct Parent;"), [up, down]);
        assert_eq!(to("mod child;\nstruct Parent;\nfn f() { child::run() }"), [up, down]);
    }

    #[test]
    fn names_are_looked_up_through_parents_and_macros() {
        let b = ("src/b/mod.rs", "mod child;\nuse crate::a::A;\ncounters! {\n    pub struct Counters { x: u8 }\n}");
        let child = ("src/b/child.rs", "use super::{A, Counters};");
        let found = edges(&[LIB, ("src/a.rs", "pub struct A;"), b, child]);
        assert_eq!(found, ["b/child.rs -> a.rs", "b/child.rs -> b/mod.rs", "b/mod.rs -> a.rs"]);
    }

    #[test]
    fn only_what_ships_is_in_the_tree() {
        let a = ("src/a.rs", "#[cfg(test)]\nmod tests;\nmod below;");
        let below = ("src/a/below.rs", "use twincache::b::B;");
        let tests = ("src/a/tests.rs", "use crate::b::B;");
        let main = ("src/main.rs", "use twincache::b::B;\nmod own;\nuse crate::own::Own;");
        let own = ("src/own.rs", "pub struct Own;");
        let files = [LIB, a, below, tests, ("src/b.rs", "pub struct B;"), main, own];
        assert_eq!(edges(&files), ["a/below.rs -> b.rs", "main.rs -> b.rs", "main.rs -> own.rs"]);
        let files = house(&files);
        assert!(Tree::new(&files).files().iter().all(|file| file.path != "src/a/tests.rs"));
    }

    #[test]
    fn associated_types_are_no_types() {
        let text = "struct A; enum B {} trait C { type D; } impl C for A { type D = u8; fn f() { struct E; } }\n\
                    type F = u8; fn g(x: impl C); type G = u8; counters! { pub struct H {} } struct $name;";
        let words = words(text);
        let found: Vec<&str> = types(&words).iter().map(|word| word.text).collect();
        assert_eq!(found, ["A", "B", "C", "E", "F", "G", "H"]);
    }
}
