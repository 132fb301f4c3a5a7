#!/bin/sh
# Installs twincached and twincache-sidecar, their man pages, their systemd units and the files with their options;
# or takes them away again.
#
#   cargo build --release && sudo scripts/install.sh
#   sudo scripts/install.sh uninstall
#
# PREFIX   where to, /usr/local by default
# DESTDIR  put in front of every path, for packages
# BINARY   the server to install, target/release/twincached by default; the sidecar lies beside it
#
# Creates no user: the units have one of their own while they run. Starts nothing, but stops what it takes away. An
# options file that is there stays, and is only taken away when nobody has changed it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
BINARY=${BINARY:-$here/../target/release/twincached}

units=$DESTDIR$PREFIX/lib/systemd/system
pages=$DESTDIR$PREFIX/share/man/man1
programs="twincached twincache-sidecar"

binary_of() {
    if [ "$1" = twincached ]; then echo "$BINARY"; else echo "$(dirname "$BINARY")/$1"; fi
}

put_in() {
    for name in $programs; do
        if [ ! -x "$(binary_of "$name")" ]; then
            echo "install.sh: there is no $(binary_of "$name"): run cargo build --release first, or say" >&2
            echo "BINARY=/path/to/twincached where it is, with twincache-sidecar beside it" >&2
            exit 1
        fi
    done
    for name in $programs; do
        install -D -m 755 "$(binary_of "$name")" "$DESTDIR$PREFIX/bin/$name"
        install -D -m 644 "$here/../man/$name.1" "$pages/$name.1"
        install -D -m 644 "$here/$name.service" "$units/$name.service"
        sed -i "s|^ExecStart=/usr/local/|ExecStart=$PREFIX/|" "$units/$name.service"
        put_options "$name"
    done
    echo "installed. To start it: systemctl daemon-reload && systemctl enable --now twincached"
    echo "For a second copy: edit /etc/default/twincache-sidecar, then systemctl enable --now twincache-sidecar"
}

put_options() {
    options=$DESTDIR/etc/default/$1
    if [ -e "$options" ]; then
        echo "kept $options"
    else
        install -D -m 644 "$here/$1.default" "$options"
    fi
}

# The sidecar goes on until the server has gone, to bring its last changes away.
stop() {
    if [ -e "$units/twincached.service" ] && systemd_runs; then
        systemctl disable --now twincached.service twincache-sidecar.service 2>/dev/null ||
            echo "systemctl could not stop the services: if they run, they go on"
    fi
}

take_out() {
    stop
    for name in $programs; do
        rm -f "$DESTDIR$PREFIX/bin/$name" "$pages/$name.1" "$units/$name.service"
        options=$DESTDIR/etc/default/$name
        if cmp -s "$here/$name.default" "$options"; then
            rm -f "$options"
        elif [ -e "$options" ]; then
            echo "kept $options: it was changed"
        fi
    done
    if systemd_runs; then systemctl daemon-reload || true; fi
}

# Not in a container, say, nor where files are put into a package.
systemd_runs() {
    [ -z "$DESTDIR" ] && [ -d /run/systemd/system ] && command -v systemctl >/dev/null
}

case ${1:-install} in
install) put_in ;;
uninstall) take_out ;;
-h | --help) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" ;;
*)
    echo "usage: install.sh [install|uninstall]" >&2
    exit 64
    ;;
esac
