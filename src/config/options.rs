//! What an option is, how command lines are read, what `--help` says.
//!
//! ```text
//! -p 11211 -vA --list=… -o modern,idle_timeout=5
//!    read (getopt_long's rules)  -> (row of the flags, argument)…        -> row.apply(target, argument)
//!                                   -o: (row of the suboptions, value)…  -> row.apply(target, value)
//! ```
//!
//! Command lines are read here and not by a crate, because both unique prefixes of long names and the order between
//! different options (`-o no_modern` before `-o slab_reassign`) matter to those who wrote the command lines that this
//! server takes over.
//!
//! Not here: the options themselves (`settings`).

use super::exit::Exit;
use Argument::{Needed, Optional, Without};
use std::fmt::Write;
use std::iter::repeat;

/// One option, which changes a `T`.
#[derive(Debug)]
pub struct OptionRow<T: 'static> {
    /// The letter of a flag.
    pub letter: Option<char>,
    /// The long name of a flag, empty when it has none; the name of a suboption.
    pub name: &'static str,
    /// What it takes.
    pub argument: Argument,
    /// What `--help` says; empty: nothing.
    pub help: &'static str,
    /// What it does with its argument.
    pub apply: fn(&mut T, &str) -> Result<(), Exit>,
}

/// What an option takes, and how `--help` calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    Without,
    /// A value.
    Needed(&'static str),
    /// A value, or nothing: then it is applied with an empty one.
    Optional(&'static str),
}

/// Applies every option among the words, in order. Returns the words that are no options.
pub fn read<'a, T>(words: &'a [String], flags: &[OptionRow<T>], target: &mut T) -> Result<Vec<&'a str>, Exit> {
    let mut words = words.iter().map(String::as_str);
    let mut strays = Vec::new();
    while let Some(word) = words.next() {
        if word == "--" {
            strays.extend(words.by_ref());
        } else if let Some(long) = word.strip_prefix("--") {
            apply_long(long, &mut words, flags, target)?;
        } else if word.len() > 1 && word.starts_with('-') {
            apply_letters(&word[1..], &mut words, flags, target)?;
        } else {
            strays.push(word);
        }
    }
    Ok(strays)
}

/// `name`, `name=value` or `name` with the next word.
fn apply_long<'a, T>(
    text: &'a str,
    rest: &mut impl Iterator<Item = &'a str>,
    flags: &[OptionRow<T>],
    target: &mut T,
) -> Result<(), Exit> {
    let (name, value) = split_value(text);
    let row = find_long(name, flags)?;
    let value = match (row.argument, value) {
        (Without, None) => "",
        (Without, Some(_)) => return Err(misused(&format!("option '--{}' doesn't allow an argument", row.name))),
        (Needed(_), None) => {
            rest.next().ok_or_else(|| misused(&format!("option '--{}' requires an argument", row.name)))?
        }
        (_, value) => value.unwrap_or_default(),
    };
    (row.apply)(target, value)
}

/// The flag of this long name, or of the only one that begins so.
fn find_long<'f, T>(name: &str, flags: &'f [OptionRow<T>]) -> Result<&'f OptionRow<T>, Exit> {
    let named = || flags.iter().filter(|row| !row.name.is_empty());
    if let Some(exact) = named().find(|row| row.name == name) {
        return Ok(exact);
    }
    let found: Vec<&OptionRow<T>> = named().filter(|row| row.name.starts_with(name)).collect();
    match found[..] {
        [only] => Ok(only),
        [] => Err(misused(&format!("unrecognized option '--{name}'"))),
        _ => {
            let mut line = format!("option '--{name}' is ambiguous; possibilities:");
            for row in found {
                let _ = write!(line, " '--{}'", row.name);
            }
            Err(misused(&line))
        }
    }
}

/// The letters behind one dash. The first that needs an argument takes the rest, or the next word.
fn apply_letters<'a, T>(
    text: &'a str,
    rest: &mut impl Iterator<Item = &'a str>,
    flags: &[OptionRow<T>],
    target: &mut T,
) -> Result<(), Exit> {
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        let found = flags.iter().find(|row| row.letter == Some(letter));
        let row = found.ok_or_else(|| misused(&format!("invalid option -- '{letter}'")))?;
        if !matches!(row.argument, Needed(_)) {
            (row.apply)(target, "")?;
            continue;
        }
        let value = match letters.as_str() {
            "" => rest.next().ok_or_else(|| misused(&format!("option requires an argument -- '{letter}'")))?,
            attached => attached,
        };
        return (row.apply)(target, value);
    }
    Ok(())
}

fn misused(line: &str) -> Exit {
    Exit::refuse(1, format!("twincached: {line}\nIllegal argument \"?\""))
}

/// Applies each suboption of a list, in order.
pub fn read_list<T>(list: &str, suboptions: &[OptionRow<T>], target: &mut T) -> Result<(), Exit> {
    // One comma at the end is no empty suboption.
    let list = list.strip_suffix(',').unwrap_or(list);
    if list.is_empty() {
        return Ok(());
    }
    for text in list.split(',') {
        let (name, value) = split_value(text);
        let found = suboptions.iter().find(|row| row.name == name);
        let row = found.ok_or_else(|| Exit::refuse(1, format!("Illegal suboption \"{text}\"")))?;
        if matches!(row.argument, Needed(_)) && value.is_none() {
            return Err(value_missing(name));
        }
        (row.apply)(target, value.unwrap_or_default())?;
    }
    Ok(())
}

fn split_value(text: &str) -> (&str, Option<&str>) {
    text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)))
}

/// A suboption that needs a value has none.
pub fn value_missing(name: &str) -> Exit {
    let line = match name {
        "hashpower" | "tail_repair_time" | "idle_timeout" => format!("Missing numeric argument for {name}"),
        "lru_crawler_sleep" | "lru_crawler_tocrawl" => format!("Missing {name} value"),
        _ => format!("Missing {name} argument"),
    };
    Exit::refuse(1, line)
}

/// Where the explanations of `--help` begin, and how wide they are: a terminal has 80 columns.
const HELP_COLUMN: usize = 26;
const HELP_WIDTH: usize = 80 - HELP_COLUMN;

/// The text of `--help`.
pub fn help<T>(flags: &[OptionRow<T>], suboptions: &[OptionRow<T>]) -> String {
    let mut text = version();
    let _ = writeln!(text, "as offered by twincached {}", env!("CARGO_PKG_VERSION"));
    for (row, is_flag) in flags.iter().zip(repeat(true)).chain(suboptions.iter().zip(repeat(false))) {
        if !row.help.is_empty() {
            push_help(&mut text, &usage(row, is_flag), row.help);
        }
    }
    text
}

fn usage<T>(row: &OptionRow<T>, is_flag: bool) -> String {
    match (row.letter, row.name, row.argument) {
        (Some(letter), "", Needed(argument)) => format!("-{letter} {argument}"),
        (Some(letter), name, Needed(argument)) => format!("-{letter}, --{name}={argument}"),
        (Some(letter), name, _) => format!("-{letter}, --{name}"),
        (None, name, _) if is_flag => format!("    --{name}"),
        (None, name, Without) => format!("   - {name}:"),
        (None, name, Needed(argument)) => format!("   - {name}={argument}:"),
        (None, name, Optional(argument)) => format!("   - {name}[={argument}]:"),
    }
}

/// One option: its usage, then its explanation in a column, on the next line where the usage is too wide.
fn push_help(text: &mut String, usage: &str, help: &str) {
    let _ = write!(text, "{usage:HELP_COLUMN$}");
    let mut width = if usage.len() < HELP_COLUMN { 0 } else { HELP_WIDTH };
    for word in help.split_whitespace() {
        let is_first = width == 0;
        width += usize::from(!is_first) + word.len();
        if width > HELP_WIDTH {
            let _ = write!(text, "\n{:HELP_COLUMN$}{word}", "");
            width = word.len();
        } else {
            let _ = write!(text, "{}{word}", if is_first { "" } else { " " });
        }
    }
    text.push('\n');
}

/// The text of `-V`. Scripts cut the number out of the first line and expect no second one.
pub fn version() -> String {
    format!("memcached {}\n", crate::VERSION)
}

/// The text of `-i`.
pub fn license() -> String {
    format!("{}twincached {}\n\n{}", version(), env!("CARGO_PKG_VERSION"), include_str!("../../LICENSE"))
}
