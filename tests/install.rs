//! The scripts that put the server and the sidecar on a machine, run against directories of their own.

mod common;

use common::{Folder, is_root, under_test};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use twincache::sidecar;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

/// A folder to install into.
struct Target(Folder);

impl Target {
    fn new() -> Target {
        Target(Folder::new())
    }

    /// Runs install.sh with this as DESTDIR, for the prefix /opt/t.
    fn install(&self, words: &[&str]) -> Output {
        let mut command = Command::new(format!("{SCRIPTS}/install.sh"));
        command.args(words).env("DESTDIR", self.0.path()).env("PREFIX", "/opt/t").env("BINARY", under_test());
        command.output().expect("install.sh")
    }

    fn installed(&self, words: &[&str]) -> String {
        let output = self.install(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Every file below, with its access mode.
    fn files(&self) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
                let meta = entry.metadata().unwrap();
                if meta.is_dir() {
                    folders.push(entry.path());
                } else {
                    let name = entry.path().strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned();
                    found.push((name, meta.permissions().mode() & 0o7777));
                }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn installs_and_uninstalls() {
    let target = Target::new();
    target.installed(&[]);
    let expected = [
        ("opt/t/bin/twincache-sidecar", 0o755),
        ("opt/t/bin/twincachectl", 0o755),
        ("opt/t/bin/twincached", 0o755),
        ("opt/t/etc/default/twincache-sidecar", 0o644),
        ("opt/t/etc/default/twincachectl", 0o644),
        ("opt/t/etc/default/twincached", 0o644),
        ("opt/t/lib/systemd/system/twincache-sidecar.service", 0o644),
        ("opt/t/lib/systemd/system/twincache-sidecar@.service", 0o644),
        ("opt/t/lib/systemd/system/twincached.service", 0o644),
        ("opt/t/lib/systemd/system/twincached@.service", 0o644),
        ("opt/t/share/bash-completion/completions/twincache-sidecar", 0o644),
        ("opt/t/share/bash-completion/completions/twincachectl", 0o644),
        ("opt/t/share/bash-completion/completions/twincached", 0o644),
        ("opt/t/share/fish/vendor_completions.d/twincache-sidecar.fish", 0o644),
        ("opt/t/share/fish/vendor_completions.d/twincachectl.fish", 0o644),
        ("opt/t/share/fish/vendor_completions.d/twincached.fish", 0o644),
        ("opt/t/share/man/man1/twincache-sidecar.1", 0o644),
        ("opt/t/share/man/man1/twincachectl.1", 0o644),
        ("opt/t/share/man/man1/twincached.1", 0o644),
        ("opt/t/share/man/man7/twincache.7", 0o644),
        ("opt/t/share/zsh/site-functions/_twincache", 0o644),
    ];
    assert_eq!(target.files(), expected.map(|(name, mode)| (name.to_owned(), mode)));
    for (name, version) in [("twincached", "memcached 1.6.45\n"), ("twincache-sidecar", "twincache-sidecar 0.1.0\n")] {
        let unit = fs::read_to_string(target.path(&format!("opt/t/lib/systemd/system/{name}.service"))).unwrap();
        assert!(unit.contains(&format!("\nExecStart=/opt/t/bin/{name} $OPTIONS\n")), "{unit}");
        assert!(unit.contains(&format!("\nEnvironmentFile=-/opt/t/etc/default/{name}\n")), "{unit}");
        let told = Command::new(target.path(&format!("opt/t/bin/{name}"))).arg("-V").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&told.stdout), version);
    }
    target.installed(&["uninstall"]);
    assert_eq!(target.files(), []);
    target.installed(&["uninstall"]);
}

#[test]
fn changed_options_are_kept() {
    let target = Target::new();
    target.installed(&["install"]);
    let options = target.path("opt/t/etc/default/twincached");
    fs::write(&options, "OPTIONS=\"-m 1024\"\n").unwrap();
    assert!(target.installed(&["install"]).contains("kept "));
    assert!(target.installed(&["uninstall"]).contains("kept "));
    assert_eq!(fs::read_to_string(&options).unwrap(), "OPTIONS=\"-m 1024\"\n");
    assert_eq!(target.files().len(), 1);
}

/// /usr and /usr/local have their options files in common.
#[test]
fn one_of_two_installations_is_taken_away() {
    let target = Target::new();
    let with_prefix = |prefix: &str, word: &str| {
        let mut command = Command::new(format!("{SCRIPTS}/install.sh"));
        command.arg(word).env("DESTDIR", target.0.path()).env("PREFIX", prefix).env("BINARY", under_test());
        let output = command.output().expect("install.sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    with_prefix("/usr", "install");
    let alone = target.files();
    assert!(alone.iter().any(|(name, _)| name == "etc/default/twincached"));
    for other in ["/usr/local", "/usr//local/"] {
        with_prefix(other, "install");
        with_prefix(other, "uninstall");
        assert_eq!(target.files(), alone);
    }
    with_prefix("/usr/", "uninstall");
    assert_eq!(target.files(), []);
}

/// Runs as root in a mount namespace: /etc and /run are copies in $1, where systemd seems to run, and systemctl is a file
/// that writes down what it is asked. $2 is install.sh, and $3 are the steps.
const BESIDE_A_SYSTEM: &str = r#"
set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/run" "$1/bin" "$1/active"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/upper,workdir=$1/work" /etc 2>/dev/null || exit 77
rm -rf /etc/systemd/system /etc/default/twincache*
mkdir -p /etc/systemd/system /etc/default "$1/run/systemd/system"
mount --bind "$1/run" /run
cat >"$1/bin/systemctl" <<'EOF'
#!/bin/sh
case $1 in
show) readlink -f "/etc/systemd/system/$(echo "$5" | sed 's/@.*\./@./')" ;;
is-active) [ -e "$FAKE/active/$3" ] ;;
list-units) for unit in "$FAKE/active"/${5}; do [ ! -e "$unit" ] || echo "${unit##*/} loaded active running"; done ;;
disable) echo "$*" && rm "$FAKE/active/$3" ;;
daemon-reload) echo "$*" ;;
esac
EOF
chmod 755 "$1/bin/systemctl"
export FAKE="$1" PATH="$1/bin:$PATH"
script=$2
install_to() { echo "== $2 $1"; PREFIX=$FAKE/$1 "$script" "$2" | sed "s|$FAKE|FAKE|g"; }
# runs WHERE UNIT...: systemd runs them from there.
runs() {
    prefix=$FAKE/$1
    shift
    for unit in "$@"; do
        file=$(echo "$unit" | sed 's/@.*\./@./')
        ln -sfn "$prefix/lib/systemd/system/$file" "/etc/systemd/system/$file"
        touch "$FAKE/active/$unit"
    done
}
eval "$3"
"#;

/// What the steps said, if this system lets them be taken.
fn beside_a_system(steps: &str) -> Option<String> {
    if !is_root() {
        eprintln!("skipped: it takes root");
        return None;
    }
    let place = Folder::new();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", BESIDE_A_SYSTEM, "sh", place.path().to_str().unwrap()]);
    command.args([&format!("{SCRIPTS}/install.sh"), steps]).env("BINARY", under_test());
    let output = command.env_remove("DESTDIR").env_remove("SYSCONFDIR").output().expect("unshare");
    let complaints = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || complaints.contains("unshare failed") {
        eprintln!("skipped: this system lets nobody make an overlay");
        return None;
    }
    assert!(output.status.success(), "{complaints}{}", String::from_utf8_lossy(&output.stdout));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_options_of_another_installation_stay() {
    let steps = r#"
        export SYSCONFDIR=/etc
        (install_to a install && install_to b install) >"$FAKE/log"
        runs a twincached.service
        install_to b uninstall
        find "$FAKE/b/bin" "$FAKE/b/lib" "$FAKE/active" /etc/default -type f -name 'twincache*' -printf '%f\n'
        install_to a uninstall
        find "$FAKE/a" "$FAKE/active" /etc/default -type f -name 'twincache*'"#;
    let Some(said) = beside_a_system(steps) else { return };
    let expected = "\
        == uninstall b\n\
        kept /etc/default/twincached: another installation uses it\n\
        daemon-reload\n\
        twincached.service\n\
        twincached\n\
        == uninstall a\n\
        disable --now twincached.service\n\
        daemon-reload\n";
    assert_eq!(said, expected);
}

#[test]
fn stops_what_its_own_units_run_and_nothing_else() {
    let steps = r#"
        install_to a install | head -n 2 | cut -c -40
        runs a twincached.service twincached@one.service twincache-sidecar@one.service
        mkdir /etc/systemd/system/multi-user.target.wants
        ln -s "$FAKE/a/lib/systemd/system/twincached@.service" \
            /etc/systemd/system/multi-user.target.wants/twincached@two.service
        touch "$FAKE/active/twincached@two.service"
        install_to a install | tail -n 2
        install_to b install | head -n 2 | cut -c -40
        install_to b uninstall
        mv "$FAKE/active" "$FAKE/away"
        install_to a install | tail -n 2 | head -n 1 | cut -c -40
        install_to a uninstall
        mv "$FAKE/away" "$FAKE/active"
        install_to a install >"$FAKE/log"
        install_to a uninstall
        ls "$FAKE/active""#;
    let Some(said) = beside_a_system(steps) else { return };
    let expected = "\
        == install a\n\
        installed. To start it: FAKE/a/bin/twinc\n\
        installed. The server that runs is still the old one; with an empty cache the new one takes its place by:\n  \
          systemctl daemon-reload && systemctl restart twincached\n\
        == install b\n\
        installed. To start it: FAKE/b/bin/twinc\n\
        == uninstall b\n\
        daemon-reload\n\
        installed. To start it: FAKE/a/bin/twinc\n\
        == uninstall a\n\
        disable --now twincached.service\n\
        systemctl could not stop twincached: if it runs, it goes on\n\
        disable --now twincached@two.service\n\
        systemctl could not stop twincached@two: if it runs, it goes on\n\
        daemon-reload\n\
        == uninstall a\n\
        disable --now twincached.service\n\
        disable --now twincached@one.service\n\
        disable --now twincached@two.service\n\
        disable --now twincache-sidecar@one.service\n\
        daemon-reload\n";
    assert_eq!(said, expected);
}

#[test]
fn a_prefix_that_cannot_be_written_to_gets_nothing() {
    let target = Target::new();
    // Root may write everywhere, but not make a folder of a file.
    fs::write(target.path("share"), "in the way").unwrap();
    let mut command = Command::new(format!("{SCRIPTS}/install.sh"));
    let output = command.env("PREFIX", target.0.path()).env("BINARY", under_test()).output().expect("install.sh");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to"));
    assert_eq!(target.files().len(), 1);
}

/// What a unit cannot name is refused before anything is there; what is not absolute is from here.
#[test]
fn places_are_absolute_and_can_be_named() {
    let target = Target::new();
    let with = |prefix: &str, config: Option<&str>| {
        let mut command = Command::new(format!("{SCRIPTS}/install.sh"));
        command.current_dir(target.0.path()).env("PREFIX", prefix).env("BINARY", under_test());
        command.envs(config.map(|config| ("SYSCONFDIR", config)));
        command.output().expect("install.sh")
    };
    for (prefix, config) in [("/opt/a b", None), ("/opt/a|b", None), ("x", Some("/etc&"))] {
        let output = with(prefix, config);
        assert_eq!(output.status.code(), Some(64), "{prefix}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("units cannot name"), "{output:?}");
    }
    assert_eq!(target.files(), []);
    assert!(with("here", Some("conf")).status.success());
    let folder = target.0.path().canonicalize().unwrap();
    let unit = fs::read_to_string(folder.join("here/lib/systemd/system/twincached.service")).unwrap();
    let folder = folder.to_str().unwrap();
    assert!(unit.contains(&format!("\nExecStart={folder}/here/bin/twincached $OPTIONS\n")), "{unit}");
    assert!(unit.contains(&format!("\nEnvironmentFile=-{folder}/conf/default/twincached\n")), "{unit}");
}

#[test]
fn bad_usage_changes_nothing() {
    let target = Target::new();
    assert_eq!(target.install(&["remove"]).status.code(), Some(64));
    let output = Command::new(format!("{SCRIPTS}/install.sh"))
        .env("DESTDIR", target.0.path())
        .env("BINARY", "/nonexistent")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("BINARY=/path/to/twincached"));
    assert_eq!(target.files(), []);
}

#[test]
fn the_options_file_holds_good_options() {
    let config = twincache::config::Config::parse(default_options("twincached")).expect("good options");
    assert_eq!((config.listen.len(), config.warnings.len()), (1, 0));
    let sidecar = sidecar::options::Options::parse(default_options("twincache-sidecar").into_iter());
    assert_eq!(sidecar.expect("good options").peers.len(), 1);
}

/// The example of a warm restart lies where the unit lets the server write, and is closed by the signal that ends it.
#[test]
fn the_options_file_shows_a_warm_restart() {
    let config = twincache::config::Config::parse(options_behind("# OPTIONS=\"", "twincached")).expect("good options");
    assert_eq!(config.store.memory_file.as_deref(), Some("/var/lib/twincached/memory"));
    let unit = fs::read_to_string(format!("{SCRIPTS}/twincached.service")).unwrap();
    for line in ["KillSignal=SIGUSR1", "StateDirectory=twincached"] {
        assert!(unit.lines().any(|found| found == line), "no {line}");
    }
    // It would move to /run/private, where the sidecar finds no socket.
    assert!(unit.contains("\nRuntimeDirectory=twincached\n") && !unit.contains("\nRuntimeDirectoryPreserve="));
}

/// The example of a shard is as good as what stands in force.
#[test]
fn the_options_file_shows_good_options_of_a_shard() {
    let options = options_behind("# OPTIONS=\"", "twincache-sidecar");
    let options = sidecar::options::Options::parse(options.into_iter()).expect("good options");
    let lease = options.lease.expect("a lease");
    assert_eq!((options.peers.len(), lease.shard.as_str(), lease.node.as_str()), (0, "cache", "a"));
}

/// Every line is a comment; without its `#` it is one that the program takes.
#[test]
fn the_file_of_twincachectl_holds_good_options() {
    let target = Target::new();
    let text = fs::read_to_string(format!("{SCRIPTS}/twincachectl.default")).unwrap();
    let lines: String =
        text.lines().filter_map(|line| line.strip_prefix("#TWINCACHE")).fold(String::new(), |all, line| {
            let line = if line.starts_with("_ETCD=") { line.replace("http:", "https:") } else { line.to_owned() };
            all + "TWINCACHE" + &line + "\n"
        });
    assert_eq!(lines.lines().count(), 7);
    fs::write(target.path("all"), lines).unwrap();
    for (file, code) in [(target.path("all"), 69), (PathBuf::from(format!("{SCRIPTS}/twincachectl.default")), 64)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_twincachectl"));
        let output = command.arg("--config").arg(file).arg("list").output().unwrap();
        // The first fails at the files, which are not there; the second says nothing of etcd.
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn default_options(name: &str) -> Vec<std::ffi::OsString> {
    options_behind("OPTIONS=\"", name)
}

fn options_behind(start: &str, name: &str) -> Vec<std::ffi::OsString> {
    let text = fs::read_to_string(format!("{SCRIPTS}/{name}.default")).unwrap();
    let options = text.lines().find_map(|line| line.strip_prefix(start)?.strip_suffix('"')).expect("OPTIONS");
    options.split_whitespace().map(std::ffi::OsString::from).collect()
}

#[test]
fn shellcheck_has_no_complaint() {
    let mut find = Command::new("find");
    let find = find.args([SCRIPTS, concat!(env!("CARGO_MANIFEST_DIR"), "/tests")]);
    let find = find.args(["-name", "*.sh", "-o", "-name", "p*inst", "-o", "-name", "p*rm"]).output().unwrap();
    let scripts = String::from_utf8(find.stdout).unwrap();
    assert!(scripts.lines().count() > 8, "{scripts}");
    let Ok(output) = Command::new("shellcheck").args(["-S", "warning"]).args(scripts.lines()).output() else {
        eprintln!("skipped: shellcheck is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn systemd_has_no_complaint() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    let target = Target::new();
    target.installed(&[]);
    let here = target.0.path().to_str().unwrap();
    let names = ["twincached", "twincache-sidecar", "twincached@", "twincache-sidecar@"];
    let units = names.map(|name| format!("{name}.service")).map(|name| {
        let text = fs::read_to_string(target.path(&format!("opt/t/lib/systemd/system/{name}"))).unwrap();
        // The program that the unit starts has to be there.
        fs::write(target.path(&name), text.replace("ExecStart=/opt", &format!("ExecStart={here}/opt"))).unwrap();
        target.path(&name.replace('@', "@a"))
    });
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_us: Vec<&str> = complaints.lines().filter(|line| line.contains("twincache")).collect();
    assert!(output.status.success() && about_us.is_empty(), "{complaints}");
}

/// One of several has nothing in common with another one, or with the one that has no name.
#[test]
fn each_instance_has_its_own_files() {
    let target = Target::new();
    target.installed(&[]);
    for name in ["twincached", "twincache-sidecar"] {
        let unit = |at: &str| {
            let text = fs::read_to_string(target.path(&format!("opt/t/lib/systemd/system/{name}{at}.service")));
            text.unwrap().lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        let (one, several) = (unit(""), unit("@"));
        let options = format!("/opt/t/etc/default/{name}-%i");
        let assertion = format!("AssertPathExists={options}");
        let changed: Vec<&String> = several.iter().filter(|line| !one.contains(line)).collect();
        let expected: &[&str] = match name {
            "twincached" => &[
                &assertion,
                "Description=twincached, a memory cache server (%i)",
                &format!("EnvironmentFile={options}"),
                "RuntimeDirectory=twincached-%i",
                "StateDirectory=twincached-%i",
            ],
            _ => &[
                &assertion,
                "Description=twincache-sidecar, a second copy of twincached (%i)",
                "Before=twincached@%i.service",
                &format!("EnvironmentFile={options}"),
                "WantedBy=twincached@%i.service",
            ],
        };
        assert_eq!(changed, expected);
        assert_eq!(several.len(), one.len() + 1);
    }
}

#[test]
fn the_sidecar_is_as_confined_as_the_server() {
    let confinement = |name: &str| {
        let text = fs::read_to_string(format!("{SCRIPTS}/{name}.service")).unwrap();
        // The sidecar has to see that the server is ending.
        let is_setting = |line: &&str| !line.is_empty() && !line.starts_with('#') && !line.starts_with("ProtectProc=");
        let lines = text.lines().filter(is_setting).map(str::to_owned);
        let lines = lines.skip_while(|line| !line.starts_with("CapabilityBoundingSet"));
        lines.take_while(|line| line != "[Install]").collect::<Vec<_>>()
    };
    assert_eq!(confinement("twincached"), confinement("twincache-sidecar"));
    assert!(confinement("twincached").len() > 20);
}

#[test]
fn the_sidecar_starts_with_the_server_and_outlives_it() {
    let unit = fs::read_to_string(format!("{SCRIPTS}/twincache-sidecar.service")).unwrap();
    assert!(unit.contains("Before=twincached.service") && unit.contains("WantedBy=twincached.service"));
    // Somebody has to hand the shard over, and what stops or fails takes those with it that are bound to it.
    assert!(["BindsTo", "PartOf", "Requires", "StopPropagatedFrom"].iter().all(|bond| !unit.contains(bond)));
}

#[test]
fn units_are_started_again_for_as_long_as_it_takes() {
    for name in ["twincached", "twincache-sidecar"] {
        let unit = fs::read_to_string(format!("{SCRIPTS}/{name}.service")).unwrap();
        for line in [
            "Type=notify",
            "Wants=network-online.target",
            "After=network-online.target",
            "Restart=always",
            "RestartSec=1",
            "RestartPreventExitStatus=64",
            "StartLimitIntervalSec=0",
        ] {
            assert!(unit.lines().any(|found| found == line), "{name}: no {line}");
        }
    }
}

#[test]
fn cargo_runs_the_server_as_nobody_for_root() {
    let words = ["sh", "-c"].map(str::to_owned);
    // A program of another name is started as it is.
    let script = format!("{SCRIPTS}/run.sh");
    let plain = Command::new(&script).args(words).arg("echo \"$@\"").args(["sh", "-x"]).output().unwrap();
    assert_eq!(plain.stdout, b"-x\n");
    let folder = Target::new();
    let fake = folder.path("twincached");
    // Written by a child: what this process has open for writing, another test's child may hold, and then it cannot run.
    let write = "printf '#!/bin/sh\necho \"$@\"\n' > \"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("sh").args(["-c", write]).arg(&fake).status().unwrap().success());
    let server = Command::new(&script).arg(&fake).args(["-p", "1"]).output().unwrap();
    let expected: &[u8] = if is_root() { b"-u nobody -p 1\n" } else { b"-p 1\n" };
    assert_eq!(server.stdout, expected);
}
