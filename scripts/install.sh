#!/bin/sh
# Installs twincached, twincache-sidecar and twincachectl, their man pages, the systemd units of the first two, the
# files with their options and what bash, zsh and fish need to complete those; or takes them away again.
#
#   cargo build --release && sudo scripts/install.sh
#   sudo scripts/install.sh uninstall
#
# PREFIX      where to, /usr/local by default; one that you may write to needs no root
# SYSCONFDIR  where the folder "default" with the options files lies: /etc for /usr and /usr/local, else PREFIX/etc
# DESTDIR     put in front of every path, for packages
# ZSH_COMPLETIONS  PREFIX/share/zsh/site-functions by default
# BINARY      the server to install, target/release/twincached by default; the other programs lie beside it
#
# Creates no user: the units have one of their own while they run. Starts nothing. "uninstall" takes away what this
# PREFIX has, and stops the services only where their units are those of this PREFIX. An options file that is there
# stays, and is only taken away when nobody has changed it and no other installation uses it.
# What -e has left in /var/lib/twincached stays.
#
# Several servers on one machine: twincached@NAME.service takes its options from SYSCONFDIR/default/twincached-NAME, and
# has /run/twincached-NAME and /var/lib/twincached-NAME for files; twincache-sidecar@NAME.service is the sidecar beside it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
# absolute PATH: it, from here if need be, and with no slash too many.
absolute() {
    case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$(pwd)/$1" ;; esac | sed -e 's|//*|/|g' -e 's|\(.\)/$|\1|'
}

PREFIX=$(absolute "${PREFIX:-/usr/local}")
DESTDIR=${DESTDIR:-}
BINARY=${BINARY:-$here/../target/release/twincached}
case $PREFIX in
/usr | /usr/local) SYSCONFDIR=${SYSCONFDIR:-/etc} ;;
*) SYSCONFDIR=${SYSCONFDIR:-$PREFIX/etc} ;;
esac
SYSCONFDIR=$(absolute "$SYSCONFDIR")
case $PREFIX$SYSCONFDIR in
*[!A-Za-z0-9/._+@-]*)
    echo "install.sh: systemd's units cannot name $PREFIX or $SYSCONFDIR: use letters, digits and /._+@- only" >&2
    exit 64
    ;;
esac

units=$DESTDIR$PREFIX/lib/systemd/system
pages=$DESTDIR$PREFIX/share/man/man1
operations=$DESTDIR$PREFIX/share/man/man7/twincache.7
defaults=$DESTDIR$SYSCONFDIR/default
bash_completions=$DESTDIR$PREFIX/share/bash-completion/completions
zsh_completions=$DESTDIR${ZSH_COMPLETIONS:-$PREFIX/share/zsh/site-functions}
fish_completions=$DESTDIR$PREFIX/share/fish/vendor_completions.d
services="twincached twincache-sidecar"
programs="$services twincachectl"

binary_of() {
    if [ "$1" = twincached ]; then echo "$BINARY"; else echo "$(dirname "$BINARY")/$1"; fi
}

put_in() {
    for name in $programs; do
        if [ ! -x "$(binary_of "$name")" ]; then
            echo "install.sh: there is no $(binary_of "$name"): run cargo build --release first, or say" >&2
            echo "BINARY=/path/to/twincached where it is, with the other programs beside it" >&2
            exit 1
        fi
    done
    # All folders first: where one cannot be made, nothing has been put in.
    for folder in "$DESTDIR$PREFIX/bin" "$units" "$pages" "$(dirname "$operations")" "$defaults" \
        "$bash_completions" "$zsh_completions" "$fish_completions"; do
        if ! mkdir -p "$folder" || [ ! -w "$folder" ]; then
            echo "install.sh: cannot write to $folder: run it as root, or give a PREFIX of your own" >&2
            exit 1
        fi
    done
    for name in $programs; do
        install -D -m 755 "$(binary_of "$name")" "$DESTDIR$PREFIX/bin/$name"
        install -D -m 644 "$here/../man/$name.1" "$pages/$name.1"
        put_options "$name"
    done
    for name in $services; do
        put_unit <"$here/$name.service" >"$units/$name.service"
        put_unit <"$here/$name.service" | of_instance "$name" >"$units/$name@.service"
        chmod 644 "$units/$name.service" "$units/$name@.service"
    done
    put_completions
    install -D -m 644 "$here/../man/twincache.7" "$operations"
    say_how_to_start
}

# The unit as it is here, with the paths of this PREFIX.
put_unit() {
    sed -e "s|^ExecStart=/usr/local/|ExecStart=$PREFIX/|" \
        -e "s|^EnvironmentFile=-/etc/|EnvironmentFile=-$SYSCONFDIR/|"
}

# The same for one of several: what is named for the program is named for the instance. Without a file of options it is
# not started; it would be one more server on the same port.
of_instance() {
    sed -e "s|^Description=.*|& (%i)|" \
        -e "s|^\[Unit\]|&\nAssertPathExists=$SYSCONFDIR/default/$1-%i|" \
        -e "s|^EnvironmentFile=-.*|EnvironmentFile=$SYSCONFDIR/default/$1-%i|" \
        -e "s|^RuntimeDirectory=.*|&-%i|" -e "s|^StateDirectory=.*|&-%i|" \
        -e "s|twincached\.service|twincached@%i.service|" \
        -e "s|^# The options of .*|# One of several: the part of its name behind the @ is that of its options file.|"
}

# One script for all three, which the shells find by the name of what is typed.
put_completions() {
    "$(binary_of twincachectl)" completion zsh >"$zsh_completions/_twincache"
    for name in $programs; do
        "$(binary_of twincachectl)" completion bash >"$bash_completions/$name"
        "$(binary_of twincachectl)" completion fish >"$fish_completions/$name.fish"
    done
    chmod 644 "$zsh_completions/_twincache" "$bash_completions"/twincache* "$fish_completions"/twincache*.fish
}

say_how_to_start() {
    if is_running twincached; then
        echo "installed. The server that runs is still the old one; with an empty cache the new one takes its place by:"
        echo "  systemctl daemon-reload && systemctl restart twincached"
        return
    fi
    case $PREFIX in
    /usr | /usr/local) echo "installed. To start it: systemctl daemon-reload && systemctl enable --now twincached" ;;
    *) echo "installed. To start it: $PREFIX/bin/twincached, or as root: systemctl enable --now $PREFIX/lib/systemd/system/twincached.service" ;;
    esac
    echo "For a second copy: edit $SYSCONFDIR/default/twincache-sidecar, then enable twincache-sidecar in the same way"
}

# Whether systemd runs this service from the unit of this PREFIX.
is_running() {
    is_ours "$1" && systemctl is-active --quiet "$1.service"
}

# Whether the unit that systemd knows by this name is that of this PREFIX; for one of several, the one behind them.
is_ours() {
    case $1 in *@*) file=${1%%@*}@.service ;; *) file=$1.service ;; esac
    # shellcheck disable=SC3013 # dash, bash and busybox have -ef.
    systemd_runs && [ "$(systemctl show -p FragmentPath --value "$1.service")" -ef "$units/$file" ]
}

put_options() {
    options=$defaults/$1
    if [ -e "$options" ]; then
        echo "kept $options"
    else
        install -D -m 644 "$here/$1.default" "$options"
    fi
}

# The sidecar goes on until the server has gone, to bring its last changes away.
stop() {
    for name in $services; do
        for unit in "$name" $(instances "$name"); do
            if is_ours "$unit"; then
                systemctl disable --now "$unit.service" 2>/dev/null ||
                    echo "systemctl could not stop $unit: if it runs, it goes on"
            fi
        done
    done
}

# The units NAME@… that run or are enabled, without their ending.
instances() {
    systemd_runs || return 0
    {
        systemctl list-units --all --plain --no-legend "$1@*.service" | cut -d' ' -f1
        find /etc/systemd/system -name "$1@?*.service" -type l -exec basename {} \; 2>/dev/null
    } | sed 's|\.service$||' | sort -u
}

take_out() {
    stop
    for name in $programs; do
        rm -f "$DESTDIR$PREFIX/bin/$name" "$pages/$name.1" "$units/$name.service" "$units/$name@.service"
        rm -f "$bash_completions/$name" "$fish_completions/$name.fish"
        options=$defaults/$name
        if is_shared "$name"; then
            echo "kept $options: another installation uses it"
        elif cmp -s "$here/$name.default" "$options"; then
            rm -f "$options"
        elif [ -e "$options" ]; then
            echo "kept $options: it was changed"
        fi
    done
    rm -f "$operations" "$zsh_completions/_twincache"
    if systemd_runs; then systemctl daemon-reload || true; fi
}

# Whether another installation has its options of this program in the same file, now that what this one had of it is away:
# one in /usr or /usr/local, or a unit that systemd finds. Without its file a server listens on every address.
is_shared() {
    file=$SYSCONFDIR/default/$1
    grep -RqsxF -e "EnvironmentFile=-$file" -e "EnvironmentFile=$file" "$DESTDIR/etc/systemd/system" \
        "$DESTDIR/run/systemd/system" "$DESTDIR/usr/local/lib/systemd/system" "$DESTDIR/usr/lib/systemd/system" \
        "$DESTDIR/lib/systemd/system" && return
    # shellcheck disable=SC3013 # as above.
    [ "$defaults" -ef "$DESTDIR/etc/default" ] && { [ -e "$DESTDIR/usr/bin/$1" ] || [ -e "$DESTDIR/usr/local/bin/$1" ]; }
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
