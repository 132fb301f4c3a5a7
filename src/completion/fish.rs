//! The script for fish.

use super::program::{ArgumentKind, CompletedFlag, CompletedProgram};
use std::fmt::Write;

/// See the module's head.
pub(super) fn script(programs: &[CompletedProgram]) -> String {
    let mut text = "# fish completion, made by: twincachectl completion fish\n".to_owned();
    programs.iter().for_each(|program| push_program(&mut text, program));
    text
}

fn push_program(text: &mut String, program: &CompletedProgram) {
    let (name, function) = (program.name, format!("__{}_extended", program.name.replace('-', "_")));
    text.push('\n');
    if !program.suboptions.is_empty() {
        let rows = program.suboptions.iter().map(|row| {
            let equals = if row.argument.is_empty() { "" } else { "=" };
            format!("        {}\\t{}\n", quoted(&format!("{}{equals}", row.name)), quoted(&row.about))
        });
        let rows: String = rows.collect();
        let _ = write!(
            text,
            "function {function}\n    printf '%s\\n' \\\n{}\nend\n",
            rows.trim_end().replace('\n', " \\\n")
        );
    }
    let _ = writeln!(text, "complete -c {name} -f");
    for flag in &program.flags {
        let _ = writeln!(text, "complete -c {name}{}", spec(flag, &function));
    }
    push_commands(text, name, &program.commands);
}

fn spec(flag: &CompletedFlag, function: &str) -> String {
    let letter = if flag.letter.is_empty() { String::new() } else { format!(" -s {}", flag.letter) };
    let name = if flag.name.is_empty() { String::new() } else { format!(" -l {}", flag.name) };
    let argument = match flag.kind() {
        ArgumentKind::None => String::new(),
        ArgumentKind::Other => " -x".to_owned(),
        ArgumentKind::File => " -r -F".to_owned(),
        ArgumentKind::User => " -x -a '(__fish_complete_users)'".to_owned(),
        ArgumentKind::Extended => format!(" -x -a '(__fish_complete_list , {function})'"),
    };
    format!("{letter}{name}{argument} -d {}", quoted(&flag.about))
}

fn push_commands(text: &mut String, name: &str, commands: &[CompletedFlag]) {
    let mut groups = Vec::new();
    for command in commands {
        let about = quoted(&command.about);
        let Some((group, second)) = command.name.split_once(' ') else {
            let _ = writeln!(text, "complete -c {name} -n __fish_use_subcommand -a {} -d {about}", command.name);
            continue;
        };
        if !groups.contains(&group) {
            groups.push(group);
            let _ = writeln!(text, "complete -c {name} -n __fish_use_subcommand -a {group}");
        }
        let seen = format!("'__fish_seen_subcommand_from {group}'");
        let _ = writeln!(text, "complete -c {name} -n {seen} -a {second} -d {about}");
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}
