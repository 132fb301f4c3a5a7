//! The man pages name exactly the options that there are, with what they take, and are well-formed.

use std::collections::BTreeSet;
use std::process::Command;
use twincache::config::options::{Argument, OptionRow};
use twincache::config::settings::{FLAGS, SUBOPTIONS};
use twincache::{cluster, ctl, sidecar};

const PAGE: &str = include_str!("../man/twincached.1");
const SIDECAR_PAGE: &str = include_str!("../man/twincache-sidecar.1");
const CTL_PAGE: &str = include_str!("../man/twincachectl.1");

/// The lines after `.TP` of a section, as one would type them: `-p, --port=<num>`.
fn tags(page: &str, section: &str) -> BTreeSet<String> {
    let start = page.find(&format!("\n.SH {section}\n")).expect(section) + 1;
    let body = &page[start..];
    let body = body[1..].find("\n.SH ").map_or(body, |end| &body[..end + 1]);
    let lines: Vec<&str> = body.lines().collect();
    lines.windows(2).filter(|pair| pair[0] == ".TP").map(|pair| typed(pair[1])).collect()
}

fn typed(tag: &str) -> String {
    let plain = tag.replace("\\-", "-").replace("\\fB", "");
    let mut text = String::new();
    for (number, piece) in plain.split("\\fI").enumerate() {
        match piece.split_once("\\fR") {
            Some((argument, rest)) if number > 0 => text += &format!("<{argument}>{rest}"),
            _ => text += piece,
        }
    }
    text.replace("\\fR", "")
}

fn flag<T>(opt: &OptionRow<T>) -> String {
    let Some(letter) = opt.letter else { return format!("--{}", opt.name) };
    let name = if opt.name.is_empty() { String::new() } else { format!(", --{}", opt.name) };
    match opt.argument {
        Argument::Needed(argument) if opt.name.is_empty() => format!("-{letter} {argument}"),
        Argument::Needed(argument) => format!("-{letter}{name}={argument}"),
        Argument::Without | Argument::Optional(_) => format!("-{letter}{name}"),
    }
}

fn suboption<T>(opt: &OptionRow<T>) -> String {
    match opt.argument {
        Argument::Needed(argument) => format!("{}={argument}", opt.name),
        Argument::Optional(argument) => format!("{}[={argument}]", opt.name),
        Argument::Without => opt.name.to_owned(),
    }
}

#[test]
fn every_flag_is_in_the_man_page_and_no_other() {
    assert_eq!(tags(PAGE, "OPTIONS"), FLAGS.iter().map(flag).collect());
}

#[test]
fn every_suboption_is_in_the_man_page_and_no_other() {
    // For test suites only, and only in builds for them.
    let documented = SUBOPTIONS.iter().filter(|opt| opt.name != "relaxed_privileges");
    assert_eq!(tags(PAGE, "EXTENDED OPTIONS"), documented.map(suboption).collect());
}

#[test]
fn every_option_of_the_sidecar_is_in_its_man_page_and_no_other() {
    let own = sidecar::options::OPTIONS.iter().map(|opt| tag(opt.letter, opt.name, opt.argument));
    assert_eq!(tags(SIDECAR_PAGE, "OPTIONS"), own.chain(cluster_tags()).collect());
}

#[test]
fn every_option_and_command_of_twincachectl_is_in_its_man_page_and_no_other() {
    let own = ctl::options::OPTIONS.iter().map(|opt| tag(opt.letter, opt.name, opt.argument));
    assert_eq!(tags(CTL_PAGE, "OPTIONS"), own.chain(cluster_tags()).collect());
    let typed = |row: &ctl::options::CommandRow| match row.arguments {
        "" => row.name.to_owned(),
        arguments => format!("{} <{arguments}>", row.name),
    };
    assert_eq!(tags(CTL_PAGE, "COMMANDS"), ctl::options::COMMANDS.iter().map(typed).collect());
}

/// `typed` puts brackets around what is in italics; these arguments have some of their own inside.
fn tag(letter: &str, name: &str, argument: &str) -> String {
    let letter = if letter.is_empty() { String::new() } else { format!("-{letter}, ") };
    let argument = if argument.is_empty() { String::new() } else { format!("=<{argument}>") };
    format!("{letter}--{name}{argument}")
}

fn cluster_tags() -> impl Iterator<Item = String> {
    cluster::options::OPTIONS.iter().map(|opt| tag("", opt.name, opt.argument))
}

#[test]
fn names_are_unique() {
    let letters: BTreeSet<_> = FLAGS.iter().map(|opt| opt.letter).collect();
    let long: BTreeSet<_> = FLAGS.iter().map(|opt| opt.name).collect();
    let suboptions: BTreeSet<_> = SUBOPTIONS.iter().map(|opt| opt.name).collect();
    assert_eq!((letters.len(), long.len(), suboptions.len()), (FLAGS.len(), FLAGS.len(), SUBOPTIONS.len()));
}

#[test]
fn groff_has_no_complaint() {
    for name in ["twincached.1", "twincache-sidecar.1", "twincachectl.1", "twincache.7"] {
        let page = format!("{}/man/{name}", env!("CARGO_MANIFEST_DIR"));
        let Ok(output) = Command::new("groff").args(["-man", "-ww", "-z", "-Tutf8", &page]).output() else {
            eprintln!("skipped: groff is not installed");
            return;
        };
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
