//! The script for bash. It needs nothing but bash itself.

use super::program::{ArgumentKind, CompletedFlag, CompletedProgram};
use std::fmt::Write;

/// What all programs have in common. bash cuts the words at each `=`, and replaces what is behind the last one.
const COMMON: &str = r#"# bash completion of twincached, twincache-sidecar and twincachectl, made by: twincachectl completion bash

# _twincache FLAGS WITH_ARGUMENT WITH_FILE WITH_USER SUBOPTIONS COMMANDS
_twincache() {
    local i=$COMP_CWORD word="${COMP_WORDS[COMP_CWORD]}" option
    while ((i > 1)) && [[ ${COMP_WORDS[i]} = "=" || ${COMP_WORDS[i - 1]} = "=" ]]; do
        ((i -= 1))
        word=${COMP_WORDS[i]}$word
    done
    option=${COMP_WORDS[i - 1]}
    if [[ $word = --*=* ]]; then
        option=${word%%=*} word=${word#*=}
    fi
    COMPREPLY=()
    if [[ $option = -o || $option = --extended ]] && [[ -n $5 ]]; then
        _twincache_list "$word" "$5"
    elif [[ " $3 " = *" $option "* ]]; then
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    elif [[ " $4 " = *" $option "* ]]; then
        mapfile -t COMPREPLY < <(compgen -u -- "$word")
    elif [[ " $2 " = *" $option "* ]]; then
        :
    elif [[ $word = -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$1" -- "$word")
    elif [[ -n $6 ]]; then
        _twincache_command "$word" "$6"
    fi
}

# The last of a list: what is before it stays, from the last "=" on, which is where bash's word begins.
_twincache_list() {
    local last=${1##*,} name before
    before=${1%"$last"}
    before=${before##*=}
    [[ $last != *=* ]] || return 0
    for name in $2; do
        [[ $name != "$last"* ]] || COMPREPLY+=("$before$name")
    done
    compopt -o nospace 2>/dev/null
}

# A command is the first word that is no option, or the first two.
_twincache_command() {
    local first="" word names
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ " $2 " != *" $word"[\ /]* ]] || first=$word
    done
    if [[ -n $first ]]; then
        names=$(tr ' ' '\n' <<<"$2" | sed -n "s|^$first/||p")
    else
        names=$(tr ' ' '\n' <<<"$2" | sed 's|/.*||' | sort -u)
    fi
    mapfile -t COMPREPLY < <(compgen -W "$names" -- "$1")
}
"#;

/// See the module's head.
pub(super) fn script(programs: &[CompletedProgram]) -> String {
    programs.iter().fold(COMMON.to_owned(), |mut text, program| {
        push_program(&mut text, program);
        text
    })
}

fn push_program(text: &mut String, program: &CompletedProgram) {
    let function = format!("_{}", program.name.replace('-', "_"));
    let typed = |is_meant: &dyn Fn(&CompletedFlag) -> bool| {
        let flags = program.flags.iter().filter(|flag| is_meant(flag));
        flags.flat_map(CompletedFlag::typed).collect::<Vec<_>>().join(" ")
    };
    let of_kind = |kind| typed(&|flag: &CompletedFlag| flag.kind() == kind);
    let suboption = |row: &CompletedFlag| format!("{}{}", row.name, if row.argument.is_empty() { "" } else { "=" });
    let suboptions: Vec<String> = program.suboptions.iter().map(suboption).collect();
    let commands: Vec<String> = program.commands.iter().map(|row| row.name.replace(' ', "/")).collect();
    let words = [
        typed(&|_| true),
        typed(&|flag| flag.kind() != ArgumentKind::None),
        of_kind(ArgumentKind::File),
        of_kind(ArgumentKind::User),
        suboptions.join(" "),
        commands.join(" "),
    ];
    let words: String = words.iter().map(|list| format!(" \\\n        '{list}'")).collect();
    let _ = write!(text, "\n{function}() {{\n    _twincache{words}\n}}\ncomplete -F {function} {}\n", program.name);
}
