#!/bin/sh
# Installs twincached, its man page, its systemd unit and the file with its options; or takes them away again.
#
#   cargo build --release && sudo scripts/install.sh
#   sudo scripts/install.sh uninstall
#
# PREFIX   where to, /usr/local by default
# DESTDIR  put in front of every path, for packages
# BINARY   what to install, target/release/twincached by default
#
# Creates no user: the unit has one of its own while it runs. Starts nothing. An options file that is there stays,
# and is only taken away when nobody has changed it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PREFIX=${PREFIX:-/usr/local}
DESTDIR=${DESTDIR:-}
BINARY=${BINARY:-$here/../target/release/twincached}

program=$DESTDIR$PREFIX/bin/twincached
page=$DESTDIR$PREFIX/share/man/man1/twincached.1
unit=$DESTDIR$PREFIX/lib/systemd/system/twincached.service
options=$DESTDIR/etc/default/twincached

put_in() {
    if [ ! -x "$BINARY" ]; then
        echo "install.sh: there is no $BINARY: run cargo build --release first" >&2
        exit 1
    fi
    install -D -m 755 "$BINARY" "$program"
    install -D -m 644 "$here/../man/twincached.1" "$page"
    install -D -m 644 "$here/twincached.service" "$unit"
    sed -i "s|^ExecStart=/usr/local/|ExecStart=$PREFIX/|" "$unit"
    if [ -e "$options" ]; then
        echo "kept $options"
    else
        install -D -m 644 "$here/twincached.default" "$options"
    fi
    echo "installed. To start it: systemctl daemon-reload && systemctl enable --now twincached"
}

take_out() {
    rm -f "$program" "$page" "$unit"
    if cmp -s "$here/twincached.default" "$options"; then
        rm -f "$options"
    elif [ -e "$options" ]; then
        echo "kept $options: it was changed"
    fi
}

case ${1:-install} in
install) put_in ;;
uninstall) take_out ;;
*)
    echo "usage: install.sh [install|uninstall]" >&2
    exit 64
    ;;
esac
