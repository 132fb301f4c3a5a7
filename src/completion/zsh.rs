//! The script for zsh, on its `_arguments`.

use super::program::{ArgumentKind, CompletedFlag, CompletedProgram};
use std::fmt::Write;

/// See the module's head.
pub(super) fn script(programs: &[CompletedProgram]) -> String {
    let names: Vec<&str> = programs.iter().map(|program| program.name).collect();
    let mut text = format!("#compdef {}\n# Made by: twincachectl completion zsh\n", names.join(" "));
    programs.iter().for_each(|program| push_program(&mut text, program));
    text += "\n_${service//-/_}\n";
    text
}

fn push_program(text: &mut String, program: &CompletedProgram) {
    let function = format!("_{}", program.name.replace('-', "_"));
    if !program.suboptions.is_empty() {
        let rows = program.suboptions.iter().map(|row| {
            let argument = if row.argument.is_empty() { String::new() } else { format!(":{}:", row.argument_name()) };
            format!(" \\\n        '{}[{}]{argument}'", row.name, escaped(&row.about))
        });
        let rows: String = rows.collect();
        let _ = write!(text, "\n{function}_extended() {{\n    _values -s , 'extended option'{rows}\n}}\n");
    }
    if !program.commands.is_empty() {
        push_commands(text, &function, &program.commands);
    }
    let rows: String = program.flags.iter().map(|flag| format!(" \\\n        {}", spec(flag, &function))).collect();
    let commands =
        if program.commands.is_empty() { "" } else { &format!(" \\\n        '*::command:{function}_command'") };
    let _ = write!(text, "\n{function}() {{\n    _arguments -s{rows}{commands}\n}}\n");
}

/// Commands of two words have their first one once, and the second ones behind it.
fn push_commands(text: &mut String, function: &str, commands: &[CompletedFlag]) {
    let row = |name: &str, about: &str| format!(" \\\n            '{name}:{}'", escaped(about));
    let (doubles, singles): (Vec<_>, Vec<_>) = commands.iter().partition(|command| command.name.contains(' '));
    let mut firsts: String = singles.iter().map(|command| row(command.name, &command.about)).collect();
    let mut cases = String::new();
    let split = |command: &CompletedFlag| command.name.split_once(' ').unwrap_or((command.name, ""));
    let mut groups: Vec<&str> = doubles.iter().map(|command| split(command).0).collect();
    groups.dedup();
    for group in groups {
        let members = doubles.iter().filter(|command| split(command).0 == group);
        let members: String = members.map(|command| row(split(command).1, &command.about)).collect();
        firsts += &row(group, "more of them");
        let _ = write!(
            cases,
            "    elif ((CURRENT == 2)) && [[ $words[1] = {group} ]]; then\n        names=({members})\n        \
            _describe 'command' names\n"
        );
    }
    let _ = write!(
        text,
        "\n{function}_command() {{\n    local -a names\n    if ((CURRENT == 1)); then\n        names=({firsts})\n        \
        _describe 'command' names\n{cases}    fi\n}}\n"
    );
}

/// An option for `_arguments`. What has both a letter and a name is typed once.
fn spec(flag: &CompletedFlag, function: &str) -> String {
    let action = match flag.kind() {
        ArgumentKind::None => String::new(),
        ArgumentKind::Other => format!(":{}:", flag.argument_name()),
        ArgumentKind::File => format!(":{}:_files", flag.argument_name()),
        ArgumentKind::User => format!(":{}:_users", flag.argument_name()),
        ArgumentKind::Extended => format!(":{}:{function}_extended", flag.argument_name()),
    };
    let about = format!("[{}]{action}", escaped(&flag.about));
    let takes = flag.kind() != ArgumentKind::None;
    let (short, long) = (if takes { "+" } else { "" }, if takes { "=" } else { "" });
    match &flag.typed()[..] {
        [letter, name] => format!("'({letter} {name})'{{{letter}{short},{name}{long}}}'{about}'"),
        [one] if one.starts_with("--") => format!("'{one}{long}{about}'"),
        other => format!("'{}{short}{about}'", other.concat()),
    }
}

/// Inside single quotes, and inside of brackets there.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "'\\''").replace(':', "\\:").replace('[', "\\[").replace(']', "\\]")
}
