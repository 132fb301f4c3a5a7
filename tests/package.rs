//! The Debian package: what is in it, what lintian says, and what it leaves behind when it is installed, upgraded,
//! removed and purged.
//!
//! ```text
//!   this system, read only ──overlay──> a root of its own: dpkg, adduser and deb-systemd-helper run there
//!                          └─ upper ──> what they have changed, which is looked at
//! ```
//!
//! Nothing of this system is changed. With units that really start: `scripts/nspawn.sh package`.

mod common;

use common::{Folder, is_root, under_test};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", "command -v \"$0\" >/dev/null", program]).status();
    let is_there = found.is_ok_and(|status| status.success());
    if !is_there {
        eprintln!("skipped: {program} is not installed");
    }
    is_there
}

/// Builds the package of this version, fast; None where dpkg is missing.
fn build(folder: &Folder, version: &str) -> Option<PathBuf> {
    if !is_there("dpkg-deb") {
        return None;
    }
    let mut command = Command::new(format!("{SCRIPTS}/package.sh"));
    command.arg(folder.path()).env("BINARY", under_test()).env("VERSION", version);
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip").env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    let path = said(&command.output().unwrap());
    Some(PathBuf::from(path.trim()))
}

/// What a program that ended well has said.
fn said(output: &Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

fn dpkg_deb(words: &[&str], package: &Path) -> String {
    said(&Command::new("dpkg-deb").args(words).arg(package).output().unwrap())
}

#[test]
fn it_has_what_install_puts_in_and_no_more() {
    let folder = Folder::new();
    let Some(package) = build(&folder, "1.2.3") else { return };
    assert_eq!(dpkg_deb(&["--show", "--showformat=${Package} ${Version}"], &package), "twincache 1.2.3");
    let listed = dpkg_deb(&["--contents"], &package);
    let rows: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().all(|row| row[1] == "root/root"), "{listed}");
    let files: BTreeSet<&str> = rows.iter().filter(|row| row[0].starts_with('-')).map(|row| &row[5][1..]).collect();
    let target = Folder::new();
    let mut install = Command::new(format!("{SCRIPTS}/install.sh"));
    install.env("DESTDIR", target.path()).env("PREFIX", "/usr").env("BINARY", under_test());
    said(&install.output().unwrap());
    let find = Command::new("find").arg(target.path()).args(["-type", "f", "-printf", "/%P\n"]).output().unwrap();
    let installed = said(&find).replace("/zsh/site-functions/", "/zsh/vendor-completions/");
    let page = |line: &str| if line.contains("/man/") { format!("{line}.gz") } else { line.to_owned() };
    let mut expected: BTreeSet<String> = installed.lines().map(page).collect();
    let more = ["doc/twincache/README.md", "doc/twincache/changelog.gz", "doc/twincache/copyright"];
    expected.extend(more.iter().chain(&["lintian/overrides/twincache"]).map(|name| format!("/usr/share/{name}")));
    assert_eq!(files, expected.iter().map(String::as_str).collect());
    let conffiles = dpkg_deb(&["--info"], &package);
    assert!(conffiles.contains("Maintainer: ") && conffiles.contains("Depends: libc6"), "{conffiles}");
}

#[test]
fn lintian_has_no_complaint() {
    let folder = Folder::new();
    if !is_there("lintian") {
        return;
    }
    let Some(package) = build(&folder, "1.2.3") else { return };
    let output = Command::new("lintian").args(["--allow-root", "--fail-on", "error,warning"]).arg(package).output();
    assert_eq!(said(&output.unwrap()), "");
}

/// Runs as root in an overlay of this system's files, in $1; the packages are $2 and $3.
const ON_A_COPY: &str = r#"
set -e
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
cp "$2" "$1/old.deb"
cp "$3" "$1/new.deb"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root" 2>/dev/null || exit 77
cd "$1"
mount --rbind /dev root/dev
mount -t proc proc root/proc
mkdir -p root/tmp root/run
cp old.deb new.deb root/run
inside() { chroot root "$@"; }
step() { echo "== $1"; }
left() { find upper ! -type d -path '*twincache*' ! -path 'upper/var/*' -printf '%P\n' | sort; }
inside dpkg --force-unsafe-io --force-confold --install /run/old.deb >log 2>&1 || { cat log; exit 1; }
step installed
inside dpkg-query -W -f '${Version} ${Status}\n' twincache
inside getent passwd twincached | cut -d: -f6,7
readlink upper/etc/systemd/system/multi-user.target.wants/twincached.service
inside twincached -V
inside twincachectl -V
echo 'OPTIONS="-m 1"' >root/etc/default/twincached
inside dpkg --force-unsafe-io --force-confold --install /run/new.deb >log 2>&1 || { cat log; exit 1; }
step upgraded
inside dpkg-query -W -f '${Version} ${Status}\n' twincache
cat root/etc/default/twincached
inside dpkg --force-unsafe-io --remove twincache >log 2>&1 || { cat log; exit 1; }
step removed
left
inside dpkg --force-unsafe-io --install /run/new.deb >log 2>&1 || { cat log; exit 1; }
step again
cat root/etc/default/twincached
mkdir -p root/var/lib/twincached/file root/var/lib/twincached-one/file root/var/lib/twincached-else
inside chown -R twincached /var/lib/twincached /var/lib/twincached-one
inside dpkg --force-unsafe-io --purge twincache >log 2>&1 || { cat log; exit 1; }
step purged
left
(cd root/var/lib && find . -maxdepth 1 -name 'twincached*')
inside getent passwd twincached || true
find root/var/lib/systemd -name '*twincache*' 2>/dev/null
find root/var/lib/dpkg/info -name '*twincache*'
"#;

#[test]
fn it_is_installed_upgraded_removed_and_purged() {
    let folder = Folder::new();
    if !is_root() || ["unshare", "adduser", "deb-systemd-helper"].iter().any(|program| !is_there(program)) {
        eprintln!("skipped: it takes root, and a Debian");
        return;
    }
    let (Some(old), Some(new)) = (build(&folder, "1.0"), build(&folder, "1.1")) else { return };
    let place = folder.file("place");
    fs::create_dir(&place).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ON_A_COPY, "sh", &place]);
    let output = command.arg(old).arg(new).output().unwrap();
    if output.status.code() == Some(77) || String::from_utf8_lossy(&output.stderr).contains("unshare failed") {
        eprintln!("skipped: this system lets nobody make an overlay");
        return;
    }
    let expected = "\
        == installed\n\
        1.0 install ok installed\n\
        /nonexistent:/usr/sbin/nologin\n\
        /lib/systemd/system/twincached.service\n\
        memcached 1.6.45\n\
        twincachectl 0.1.0\n\
        == upgraded\n\
        1.1 install ok installed\n\
        OPTIONS=\"-m 1\"\n\
        == removed\n\
        etc/default/twincache-sidecar\n\
        etc/default/twincachectl\n\
        etc/default/twincached\n\
        etc/systemd/system/multi-user.target.wants/twincached.service\n\
        == again\n\
        OPTIONS=\"-m 1\"\n\
        == purged\n\
        ./twincached-else\n";
    assert_eq!(said(&output), expected);
}
