#!/bin/sh
# Builds a Debian package of what install.sh installs, with dpkg's own tools. Needs no root.
#
#   cargo build --release && scripts/package.sh [FOLDER]      FOLDER/twincache_VERSION_ARCH.deb, by default in target
#
# BINARY   the server, target/release/twincached by default; the other programs lie beside it
# VERSION  that of Cargo.toml by default
#
# The package starts the server, on 127.0.0.1, and leaves it running when it is upgraded: what it holds is not lost
# because of that. It has a user "twincached", which is taken away when it is purged. What it does at these times stands
# in scripts/debian.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
-h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit ;;
-*) echo "usage: package.sh [FOLDER]" >&2 && exit 64 ;;
esac
folder=${1:-$here/../target}
BINARY=${BINARY:-$here/../target/release/twincached}
VERSION=${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' "$here/../Cargo.toml" | head -n 1)}
command -v dpkg-deb >/dev/null || { echo "package.sh: needs dpkg-deb, of Debian's dpkg" >&2 && exit 1; }

arch=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
root=$work/root
umask 022

# Of the commit, so that the same sources make the same package.
date=${SOURCE_DATE_EPOCH:-$(git -C "$here" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH="$date"

put_files() {
    DESTDIR=$root PREFIX=/usr SYSCONFDIR=/etc BINARY=$BINARY ZSH_COMPLETIONS=/usr/share/zsh/vendor-completions \
        "$here/install.sh" >/dev/null
    if command -v strip >/dev/null; then
        strip --strip-unneeded --remove-section=.comment "$root"/usr/bin/*
    fi
    gzip -9n "$root"/usr/share/man/man*/*
    doc=$root/usr/share/doc/twincache
    install -D -m 644 "$here/../README.md" "$doc/README.md"
    install -D -m 644 "$here/debian/lintian-overrides" "$root/usr/share/lintian/overrides/twincache"
    {
        echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
        echo "Upstream-Name: twincache"
        echo
        echo "Files: *"
        sed -n 's/^Copyright (c) /Copyright: /p' "$here/../LICENSE"
        echo "License: Expat"
        sed -e '1,/^Copyright/d' -e 's/^$/./' -e 's/^/ /' "$here/../LICENSE" | sed '1{/^ \.$/d}'
    } >"$doc/copyright"
    {
        echo "twincache ($VERSION) unstable; urgency=medium"
        echo
        echo "  * What has changed stands under \"Changes\" in README.md beside this file."
        echo
        echo " -- $maintainer  $(date -uRd "@$date")"
    } | gzip -9n >"$doc/changelog.gz"
}

# What the programs are linked with, as this system has it.
dependencies() {
    mkdir -p "$work/debian"
    : >"$work/debian/control"
    if command -v dpkg-shlibdeps >/dev/null && (cd "$work" && dpkg-shlibdeps -O root/usr/bin/*) >"$work/depends" 2>/dev/null; then
        sed -n 's/^shlibs:Depends=//p' "$work/depends"
    else
        echo "libc6, libgcc-s1"
    fi
}

put_control() {
    mkdir -p "$root/DEBIAN"
    cat >"$root/DEBIAN/control" <<EOF
Package: twincache
Version: $VERSION
Architecture: $arch
Maintainer: $maintainer
Installed-Size: $(du -sk --apparent-size "$root" | cut -f1)
Pre-Depends: init-system-helpers (>= 1.54~)
Depends: $(dependencies), adduser
Suggests: etcd-server
Section: database
Priority: optional
Description: memory cache for memcached's clients that keeps a second copy
 twincached speaks memcached's protocols and takes its options. Beside it,
 twincache-sidecar sends every change to a second server, which takes over
 when the first one dies. twincachectl shows and changes who is primary.
EOF
    (cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
    (cd "$root" && find usr -type f -exec md5sum {} + | sort -k 2) >"$root/DEBIAN/md5sums"
    for script in postinst prerm postrm; do
        install -m 755 "$here/debian/$script" "$root/DEBIAN/$script"
    done
}

maintainer="twincache maintainers <maintainers@twincache.invalid>"
put_files
put_control
mkdir -p "$folder"
dpkg-deb --root-owner-group --build "$root" "$work/package.deb" >/dev/null
# Nobody finds half a package.
mv "$work/package.deb" "$folder/twincache_${VERSION}_$arch.deb"
echo "$folder/twincache_${VERSION}_$arch.deb"
