//! What shells offer behind the names of the three programs: asked of the shells themselves.

mod common;

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use twincache::completion::{CompletedFlag, CompletedProgram, twincache_sidecar, twincached};
use twincache::ctl::options::{COMMANDS, OPTIONS};

fn script(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_twincachectl")).args(["completion", shell]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a shell with these words, the first of them a program for it; None where it is not installed.
fn run(shell: &str, words: &[&str]) -> Option<BTreeSet<String>> {
    let Ok(child) = Command::new(shell).args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() else {
        eprintln!("skipped: {shell} is not installed");
        return None;
    };
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

/// What bash offers for the last of these words, as it cuts them.
fn bash(words: &[&str]) -> BTreeSet<String> {
    let function = format!("_{}", words[0].replace('-', "_"));
    let body = "COMP_WORDS=(\"${@:2}\"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); $1; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let text = script("bash") + body;
    let words: Vec<&str> = ["-c", &text, "bash", &function].iter().chain(words).copied().collect();
    run("bash", &words).expect("bash runs all scripts here")
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn typed(flags: &[CompletedFlag]) -> BTreeSet<String> {
    flags.iter().flat_map(CompletedFlag::typed).collect()
}

/// The options of every program, by the tables.
fn tables() -> [(&'static str, BTreeSet<String>); 3] {
    let own = OPTIONS.iter().map(|row| CompletedFlag::new(row.letter.to_owned(), row.name, row.argument, row.help));
    let own: Vec<CompletedFlag> = own.chain(twincache::completion::cluster_flags()).collect();
    let of = |program: CompletedProgram| (program.name, typed(&program.flags));
    [of(twincached()), of(twincache_sidecar()), ("twincachectl", typed(&own))]
}

#[test]
fn bash_offers_every_option() {
    for (name, expected) in tables() {
        assert!(expected.len() > 10);
        assert_eq!(bash(&[name, "-"]), expected, "{name}");
    }
}

#[test]
fn bash_completes_lists_files_users_and_commands() {
    let some = |text: &str| bash(&["twincached", "-o", text]);
    assert_eq!(some("maxc"), set(&["maxconns_fast"]));
    assert_eq!(some("maxconns_fast,idle"), set(&["maxconns_fast,idle_timeout="]));
    assert_eq!(bash(&["twincached", "-o", "idle_timeout", "=", "60,track"]), set(&["60,track_sizes"]));
    assert_eq!(bash(&["twincached", "--extended", "=", "track"]), set(&["track_sizes"]));
    assert_eq!(some("").len(), twincached().suboptions.len());
    assert_eq!(bash(&["twincached", "--pidf"]), set(&["--pidfile"]));
    assert!(bash(&["twincached", "--pidfile", "=", "/etc/passw"]).contains("/etc/passwd"));
    assert_eq!(bash(&["twincached", "-u", "roo"]), set(&["root"]));
    assert_eq!(bash(&["twincached", "-p", ""]), set(&[""]));
    assert_eq!(bash(&["twincachectl", "--json", "sta"]), set(&["status"]));
    assert_eq!(bash(&["twincachectl", "topology", ""]), set(&["add", "list", "remove"]));
    let firsts: BTreeSet<String> = COMMANDS.iter().map(|row| row.name.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(bash(&["twincachectl", ""]), firsts);
}

#[test]
fn fish_offers_every_option() {
    for (name, expected) in tables() {
        let ask = format!("{}\ncomplete -C '{name} -'; complete -C '{name} --'", script("fish"));
        let Some(offered) = run("fish", &["--no-config", "-c", &ask]) else { return };
        let offered: BTreeSet<String> =
            offered.iter().map(|line| line.split('\t').next().unwrap().trim_end_matches('=').to_owned()).collect();
        assert_eq!(expected.difference(&offered).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
    let ask = format!("{}\ncomplete -C 'twincached -o maxconns_fast,idle'", script("fish"));
    let offered = run("fish", &["--no-config", "-c", &ask]).expect("fish is there");
    let suboptions = twincached().suboptions;
    let about = &suboptions.iter().find(|row| row.name == "idle_timeout").unwrap().about;
    assert_eq!(offered, set(&[&format!("maxconns_fast,idle_timeout=\t{about}")]));
    let ask = format!("{}\ncomplete -C 'twincachectl topology '", script("fish"));
    let offered = run("fish", &["--no-config", "-c", &ask]).expect("fish is there");
    let offered: BTreeSet<String> = offered.iter().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
    assert_eq!(offered, set(&["add", "list", "remove"]));
}

/// zsh completes at a terminal only: it gets one, and a tab. It then lists what there is, with its explanations.
#[test]
fn zsh_offers_every_option() {
    let folder = common::Folder::new();
    std::fs::write(folder.file("_twincache"), script("zsh")).unwrap();
    let ask = r#"
        zmodload zsh/zpty
        zpty z zsh -f -i
        zpty -w z "PS1=; fpath=($1 \$fpath); autoload -U compinit; compinit -D -u; LISTMAX=100000"
        zpty -w z "stty rows 1000 columns 200; bindkey '^I' list-choices; print begin-$((1 + 1))"
        zpty -r -m z reply '*begin-2*'
        zpty -w -n z "$2"$'\t'
        zpty -r -m z list '*--version*'
        zpty -w z $'\x15'"print end-$((1 + 1))"
        zpty -r -m z reply '*end-2*'
        print -r -- $list $reply
        zpty -d z"#;
    let folder_name = folder.path().to_str().unwrap();
    for (name, expected) in tables() {
        // A J is the end of what clears the screen.
        let Some(offered) = run("zsh", &["-f", "-c", ask, "zsh", folder_name, &format!("{name} -")]) else { return };
        let offered: BTreeSet<String> =
            offered.iter().flat_map(|line| line.split([' ', '\r', 'J'])).map(str::to_owned).collect();
        assert_eq!(expected.difference(&offered).collect::<Vec<_>>(), Vec::<&String>::new(), "{name}: {offered:?}");
    }
}

#[test]
fn other_shells_are_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_twincachectl")).args(["completion", "csh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("usage: twincachectl completion bash|zsh|fish"));
}
