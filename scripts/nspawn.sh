#!/usr/bin/env bash
# Boots two machines with real systemd, installs twincache on both with install.sh, and checks what the units promise.
#
#   cargo build --release && sudo scripts/nspawn.sh          takes 5 minutes
#   sudo BINARY=target/debug/twincached scripts/nspawn.sh [pair] [shard] [warm] [package]
#
#      etcd 10.99.0.10 ──┐
#      this script .1 ───┼── bridge, in a network namespace of its own
#      a, b .11, .12 ────┘      systemd-nspawn on copies of a debootstrap folder; the shard's address is .20
#
# Needs root, and of Debian systemd-container, debootstrap (with a mirror, the first time) and etcd-server. Everything
# runs in namespaces of its own, and ends with this script. WORK (/var/tmp/twincache-nspawn) keeps the folder for the
# next time, and the consoles and journals of this one. Exit code 1: a check failed; 77: something is missing here.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-/var/tmp/twincache-nspawn}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
SUITE=${SUITE:-bookworm}
export BINARY=${BINARY:-$here/../target/release/twincached}
readonly net=10.99.0
declare -A nspawn=()
checks=0 failures=0

prepare() {
    local tool part
    for part in "$@"; do
        [[ $part =~ ^(pair|shard|warm|package)$ ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; exit 64; }
    done
    [[ $EUID -eq 0 ]] || missing "root"
    for tool in systemd-nspawn debootstrap etcd nsenter unshare curl; do
        command -v "$tool" >/dev/null || [[ -x /usr/sbin/$tool ]] || missing "$tool"
    done
    [[ -x $BINARY ]] || missing "$BINARY (cargo build --release)"
    mkdir -p "$WORK"
    # Held by all that is started from here on.
    exec 8>"$WORK/lock"
    flock -n 8 || missing "the other run with WORK=$WORK to end"
    if [[ ! -d $WORK/base ]]; then
        rm -rf "$WORK/base.new"
        debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2 "$SUITE" "$WORK/base.new" "$MIRROR" \
            >"$WORK/debootstrap.log" 2>&1 || missing "a Debian mirror (see $WORK/debootstrap.log)"
        mv "$WORK/base.new" "$WORK/base"
    fi
    # All that is started ends with the first process of the namespace, and the network goes with it.
    exec unshare --net --pid --mount --fork --mount-proc --kill-child env NSPAWN_INSIDE=1 "$0" "$@"
}

missing() {
    echo "nspawn.sh: needs $1" >&2
    exit 77
}

# --- the machines ---

# machine NAME NUMBER: makes its folder, with an address that comes by itself.
machine() {
    local root=$WORK/$1
    rm -rf "$root"
    cp -a --reflink=auto "$WORK/base" "$root"
    echo "$1" >"$root/etc/hostname"
    DESTDIR=$root PREFIX=/usr "$here/install.sh" >/dev/null
    mkdir -p "$root/var/log/journal"
    # Nothing waits for this: so is a network that says that it is online, and gets its address later.
    cat >"$root/etc/systemd/system/address.service" <<EOF
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/sh -c 'sleep \$(cat /etc/address-delay); ip link set host0 up; ip address add $net.$2/24 dev host0'
RemainAfterExit=yes
[Install]
WantedBy=sysinit.target
EOF
    echo 0 >"$root/etc/address-delay"
    systemctl --root="$root" --quiet enable address.service twincached.service
    systemctl --root="$root" --quiet mask getty.target console-getty.service apt-daily.timer apt-daily-upgrade.timer
}

# on_disk NAME FILE: writes a file of a machine from stdin.
on_disk() {
    mkdir -p "$(dirname "$WORK/$1$2")"
    cat >"$WORK/$1$2"
}

# Each machine has control groups of its own, of which it sees no others.
boot() {
    local name=$1 group
    for group in systemd unified; do mkdir -p "/sys/fs/cgroup/$group/twincache-$name"; done
    (
        for group in systemd unified; do echo "$BASHPID" >"/sys/fs/cgroup/$group/twincache-$name/cgroup.procs"; done
        exec systemd-nspawn --register=no --keep-unit --private-network --network-bridge=shard --machine="$name" \
            --directory="$WORK/$name" --boot </dev/null >>"$WORK/$name.console" 2>&1
    ) &
    nspawn[$name]=$!
    within 60 booted "$name" || { echo "nspawn.sh: $name does not boot: see $WORK/$name.console" >&2; exit 1; }
}

# The first process of a machine.
leader() {
    local children
    children=$(cat "/proc/${nspawn[$1]}/task/${nspawn[$1]}/children" 2>/dev/null) || return
    echo "${children%% *}"
}

# in_it NAME COMMAND…: runs it on a machine.
in_it() {
    local pid
    pid=$(leader "$1")
    [[ -n $pid ]] && nsenter -t "$pid" -m -u -i -n -p -C -- "${@:2}"
}

booted() { in_it "$1" systemctl is-active --quiet multi-user.target 2>/dev/null; }
of_unit() { in_it "$1" systemctl show -p "$3" --value "$2"; }
is_active() { [[ $(of_unit "$1" "$2" ActiveState 2>/dev/null) = active ]]; }
says() { in_it "$1" journalctl -b -u "$2" -o cat -p "$3" 2>/dev/null | grep -q -- "$4"; }

# reboot NAME: as an operator does it; returns when it is up again.
reboot() {
    order_reboot "$1"
    boot_again "$1"
}

order_reboot() { in_it "$1" systemctl reboot 2>/dev/null || true; }

boot_again() {
    local code=0
    wait "${nspawn[$1]}" || code=$?
    # By this systemd-nspawn says that it is to be started again.
    [[ $code -eq 133 ]] && boot "$1"
}

# The power goes: nothing is stopped, nothing is said.
cut_power() {
    kill -KILL "$(leader "$1")" "${nspawn[$1]}"
    wait "${nspawn[$1]}" 2>/dev/null || true
    # The kernel takes its time to do it by itself, and the next boot needs the name.
    ip link delete "vb-$1" 2>/dev/null || true
}

# --- what is asked ---

# within SECONDS COMMAND…: whether it becomes true.
within() {
    local end=$((SECONDS + $1))
    until "${@:2}"; do
        [[ $SECONDS -lt $end ]] || return 1
        sleep 0.05
    done
}

# ask HOST LINE: the first line of a server's answer, if it comes soon.
ask() {
    timeout 0.25 bash -c 'exec 3<>"/dev/tcp/$0/11211" && printf "%s\r\n" "$1" >&3 && IFS= read -r line <&3 && echo "${line%$'"'\r'"'}"' \
        "$1" "$2" 2>/dev/null
}

answers() { [[ $(ask "$1" "$2") = "$3" ]]; }
http() { curl -s -o /dev/null -w '%{http_code}' --max-time 2 "http://$1" || true; }
http_is() { [[ $(http "$1") = "$2" ]]; }

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# check WHAT COMMAND…
check() {
    checks=$((checks + 1))
    if "${@:2}"; then
        echo "ok $checks - $1"
    else
        failures=$((failures + 1))
        echo "not ok $checks - $1"
    fi
}

# took WHAT SECONDS COMMAND…: as check, for what takes its time; says how long.
took() {
    local began
    began=$(now_ms)
    if within "$2" "${@:3}"; then
        check "$1: $(($(now_ms) - began)) ms" true
    else
        check "$1: not within $2 s" false
    fi
}

not() { ! "$@"; }

# --- a pair that is configured by hand ---

pair() {
    local unit sidecar before
    machine a 11
    machine b 12
    on_disk a /etc/default/twincached <<<"OPTIONS=\"-m 64 -l $net.11 -o control_socket=/run/twincached/control\""
    on_disk b /etc/default/twincached \
        <<<"OPTIONS=\"-m 64 -l $net.12 -o control_socket=/run/twincached/control,standby=$net.11\""
    on_disk a /etc/default/twincache-sidecar \
        <<<"OPTIONS=\"--server unix:/run/twincached/control --peer $net.12:11211 --http $net.11:9151\""
    systemctl --root="$WORK/a" --quiet enable twincache-sidecar.service
    boot b
    boot a
    took "a's server is active after the boot" 30 is_active a twincached
    took "a's sidecar is active after the boot" 30 is_active a twincache-sidecar
    took "b's server is active after the boot" 30 is_active b twincached
    for unit in twincached twincache-sidecar; do
        check "$unit.service is active when it says so" test "$(of_unit a $unit Type)" = notify
        check "$unit.service has a status: $(of_unit a $unit StatusText)" test -n "$(of_unit a $unit StatusText)"
        check "$unit says in the journal, as a notice, what it is about" says a $unit notice "^$unit "
    done
    check "the systems have no failed unit" test -z "$(in_it a systemctl --failed -q --plain)$(in_it b systemctl --failed -q --plain)"
    took "the pair is in good health" 30 http_is $net.11:9151/health 200
    check "a change is stored at a" answers $net.11 $'set k 0 0 1\r\nx' STORED
    took "and arrives at b" 10 answers $net.12 "mg k s" "HD s1"

    sidecar=$(of_unit a twincache-sidecar MainPID)
    in_it a systemctl kill -s KILL --kill-whom=main twincached
    took "a's server is there again after kill -9" 20 answers $net.11 "version" "VERSION 1.6.45"
    check "its sidecar went on" test "$(of_unit a twincache-sidecar MainPID)" = "$sidecar"
    check "b has what it had" answers $net.12 "mg k s" "HD s1"

    before=$(of_unit b twincached NRestarts)
    in_it b systemctl kill -s STOP --kill-whom=main twincached
    took "the watchdog ends b's frozen server, which is there again" 40 answers $net.12 "version" "VERSION 1.6.45"
    check "that was the watchdog" says b twincached warning "Watchdog timeout"
    check "it was started again once" test "$(of_unit b twincached NRestarts)" = $((before + 1))

    took "b reboots" 0 reboot b
    took "b's server is active after the reboot" 30 is_active b twincached
    took "the pair is in good health again" 30 http_is $net.11:9151/health 200

    echo 10 | on_disk b /etc/address-delay
    took "b reboots, with an address that comes after 10 s" 0 reboot b
    took "b's server is there in spite of that" 40 answers $net.12 "version" "VERSION 1.6.45"
    check "its unit had tried before: $(of_unit b twincached NRestarts) times" test "$(of_unit b twincached NRestarts)" -ge 3
    took "the pair is in good health again" 30 http_is $net.11:9151/health 200
    echo 0 | on_disk b /etc/address-delay

    in_it a systemctl stop twincached twincache-sidecar
    in_it a systemctl start twincached
    took "the sidecar starts with its server" 20 is_active a twincache-sidecar

    on_disk b /etc/default/twincached <<<'OPTIONS="-m x"'
    in_it b systemctl restart twincached 2>/dev/null || true
    sleep 3
    check "wrong options are not tried again" test "$(of_unit b twincached ActiveState)" = failed
    check "the journal says why, as an error" says b twincached err "megabytes"
    power_off_all
}

# --- a shard that takes over by itself ---

start_etcd() {
    ip netns exec etcd etcd --data-dir "$WORK/etcd" --log-level error --listen-client-urls http://$net.10:2379 \
        --advertise-client-urls http://$net.10:2379 --listen-peer-urls http://127.0.0.1:2380 \
        --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster default=http://127.0.0.1:2380 \
        >>"$WORK/etcd.log" 2>&1 &
    etcd=$!
    within 30 http_is $net.10:2379/health 200
}

host_of_etcd() {
    rm -rf "$WORK/etcd" "$WORK/etcd.log"
    ip netns add etcd
    ip link add etcd0 master shard up type veth peer name eth0 netns etcd
    ip -n etcd link set lo up
    ip -n etcd link set eth0 up
    ip -n etcd address add $net.10/24 dev eth0
}

# node NAME NUMBER: a machine of the shard. Nothing but its options says which one it is.
node() {
    machine "$1" "$2"
    on_disk "$1" /etc/default/twincached <<<'OPTIONS="-m 64 -o managed,control_socket=/run/twincached/control"'
    on_disk "$1" /etc/default/twincache-sidecar <<<"OPTIONS=\"--server unix:/run/twincached/control --etcd http://$net.10:2379 \
--shard cache --node $1 --advertise $net.$2:11211 --vip $net.20/24 --dev host0 --http $net.$2:9151 --bootstrap-wait 3000\""
    on_disk "$1" /etc/systemd/system/twincache-sidecar.service.d/address.conf <<EOF
[Service]
PrivateUsers=no
CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW
AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW
RestrictAddressFamilies=AF_NETLINK AF_PACKET
EOF
    systemctl --root="$WORK/$1" --quiet enable twincache-sidecar.service
}

is_primary() { http_is "$(address_of "$1"):9151/primary" 200; }
is_standby() { http_is "$(address_of "$1"):9151/standby" 200; }
address_of() { if [[ $1 = a ]]; then echo $net.11; else echo $net.12; fi; }
other() { if [[ $1 = a ]]; then echo b; else echo a; fi; }
has_status() { of_unit "$1" twincache-sidecar StatusText | grep -q -- "$2"; }
is_pair() { (is_primary a && is_standby b) || (is_primary b && is_standby a); }
primary() { if is_primary a; then echo a; else echo b; fi; }
address_answers() { answers $net.20 "$1" "$2"; }

# takes_over WHAT NAME COMMAND…: does that to the primary NAME. The address answers again, from the other node, with
# what was stored; then the old one is back as a standby in sync.
takes_over() {
    local what=$1 name=$2 began
    check "$what: before it, a change is stored" address_answers "set k$checks 0 0 1"$'\r\nx' STORED
    local key=k$((checks - 1))
    began=$(now_ms)
    "${@:3}"
    if within 20 moved_with "$key" "$name"; then
        check "$what: the other node answers, with what was stored: $(($(now_ms) - began)) ms" true
    else
        check "$what: the other node answers, with what was stored: not within 20 s" false
    fi
    check "$what: the old one does not" not answers "$(address_of "$name")" "mg $key s" "HD s1"
}

moved_with() { address_answers "mg $1 s" "HD s1" && is_primary "$(other "$2")"; }

# back WHAT NAME: it follows again.
back() {
    took "$1: $2 follows as a standby in sync" 60 is_standby "$2"
    check "$1: and there is one primary" is_primary "$(other "$2")"
}

shard() {
    local first
    host_of_etcd
    start_etcd
    node a 11
    node b 12
    boot a
    boot b
    took "one node is the primary, the other follows in sync" 60 is_pair
    first=$(primary)
    took "its sidecar says so to systemd" 5 has_status "$first" ": primary;"
    check "and in the journal, as a notice" says "$first" twincache-sidecar notice "this node is the primary"

    first=$(primary)
    takes_over "kill -9 of the server" "$first" in_it "$first" systemctl kill -s KILL --kill-whom=main twincached
    back "kill -9 of the server" "$first"

    first=$(primary)
    takes_over "server frozen" "$first" in_it "$first" systemctl kill -s STOP --kill-whom=main twincached
    back "server frozen, ended by the watchdog" "$first"

    first=$(primary)
    takes_over "systemctl stop of the server" "$first" in_it "$first" systemctl stop twincached
    in_it "$first" systemctl start twincached
    back "systemctl start of the server" "$first"

    first=$(primary)
    takes_over "reboot of the machine" "$first" order_reboot "$first"
    took "reboot of the machine: it is up again" 0 boot_again "$first"
    back "reboot of the machine" "$first"

    first=$(primary)
    takes_over "power cut" "$first" cut_power "$first"
    boot "$first"
    back "power again" "$first"

    first=$(primary)
    kill "$etcd" && wait "$etcd" || true
    sleep 5
    check "etcd is away for 5 s: the primary serves all the same" address_answers "mg k$((checks - 3)) s" EN
    check "etcd is away: it is the same node" is_primary "$first"
    start_etcd
    took "etcd is back: the shard is whole" 30 is_pair

    cut_power a
    cut_power b
    echo 10 | on_disk a /etc/address-delay
    echo 10 | on_disk b /etc/address-delay
    boot a
    boot b
    took "power cut of both, and addresses that come after 10 s: the shard is whole again, empty" 90 is_pair
    check "the address answers" address_answers version "VERSION 1.6.45"
    check "the systems have no failed unit" test -z "$(in_it a systemctl --failed -q --plain)$(in_it b systemctl --failed -q --plain)"
    power_off_all
}

# --- a server whose items outlive it, and that needs what only root can read ---

# options NAME TEXT: of its server.
options() { on_disk "$1" /etc/default/twincached <<<"OPTIONS=\"-v -m 64 -l $net.11 $2\""; }
restarted() { in_it a systemctl restart twincached; }
store() { check "a change is stored" answers $net.11 "set k 0 0 1"$'\r\nx' STORED; }

warm() {
    local credentials=/run/credentials/twincached.service
    machine a 11
    options a "-e /var/lib/twincached/memory"
    boot a
    took "the server is active" 30 answers $net.11 version "VERSION 1.6.45"
    store
    check "it is restarted" restarted
    took "the item is there again" 20 answers $net.11 "mg k s" "HD s1"
    check "all were, after a graceful stop" says a twincached info "the last server stopped: 1 items kept"
    in_it a systemctl kill -s KILL --kill-whom=main twincached
    took "the item is there again after kill -9" 20 answers $net.11 "mg k s" "HD s1"
    in_it a systemctl stop twincached
    check "a stop is no failure" test "$(of_unit a twincached Result)" = success
    in_it a systemctl start twincached
    took "the item is there again after a stop" 20 answers $net.11 "mg k s" "HD s1"
    took "reboot" 0 reboot a
    took "the item is there again after the reboot" 30 answers $net.11 "mg k s" "HD s1"

    on_disk a /etc/fstab <<<"tmpfs /var/lib/private/twincached tmpfs size=100M,mode=755 0 0"
    took "reboot, with memory where the file was" 0 reboot a
    took "there it is empty" 30 answers $net.11 "mg k s" EN
    store
    check "it is restarted" restarted
    took "the item is there again" 20 answers $net.11 "mg k s" "HD s1"
    check "in memory" test "$(in_it a stat -f -c %T /var/lib/twincached/memory)" = tmpfs

    options a ""
    check "it is restarted without -e" restarted
    store
    check "and again" restarted
    took "then it is empty" 20 answers $net.11 "mg k s" EN

    on_disk a /etc/twincache/users <<<"anna:secret"
    on_disk a /etc/systemd/system/twincached.service.d/credentials.conf <<EOF
[Service]
LoadCredential=users:/etc/twincache/users
EOF
    chmod 600 "$WORK/a/etc/twincache/users"
    options a "-Y $credentials/users"
    in_it a systemctl daemon-reload
    check "it is restarted with passwords that only root can read" restarted
    took "a stranger is asked to log in" 20 answers $net.11 "mg k s" "CLIENT_ERROR unauthenticated"
    check "who has the password is let in" answers $net.11 "set k 0 0 11"$'\r\nanna secret' STORED
    check "the system has no failed unit" test -z "$(in_it a systemctl --failed -q --plain)"
    power_off_all
}

# --- the Debian package, on a machine that has nothing of ours ---

version_in_it() {
    in_it "$1" timeout 5 bash -c "exec 3<>/dev/tcp/127.0.0.1/$2 && printf 'version\r\n' >&3 && IFS= read -r line <&3 && echo \"\$line\"" |
        grep -q "VERSION 1.6.45"
}
has_user() { in_it "$1" getent passwd twincached >/dev/null; }
dpkg_in() { in_it "$1" env DEBIAN_FRONTEND=noninteractive LC_ALL=C dpkg "${@:2}" >"$WORK/dpkg.log" 2>&1; }

package() {
    local old new pid
    old=$(VERSION=0.0.1 "$here/package.sh" "$WORK")
    new=$(VERSION=0.0.2 "$here/package.sh" "$WORK")
    machine a 11
    DESTDIR=$WORK/a PREFIX=/usr "$here/install.sh" uninstall >/dev/null
    rm -f "$WORK/a/etc/systemd/system/multi-user.target.wants/twincached.service"
    cp "$old" "$WORK/a/root/old.deb"
    cp "$new" "$WORK/a/root/new.deb"
    rm -f "$old" "$new"
    boot a

    check "the package is installed" dpkg_in a --install /root/old.deb
    check "its server runs at once" is_active a twincached
    check "and answers" version_in_it a 11211
    pid=$(of_unit a twincached MainPID)
    check "as the package's user" test "$(in_it a stat -c %U "/proc/$pid")" = twincached
    check "the sidecar, which has no options yet, does not" not is_active a twincache-sidecar
    on_disk a /etc/default/twincached-two <<<'OPTIONS="-m 64 -l 127.0.0.1 -p 11212 -o control_socket=/run/twincached-two/control"'
    on_disk a /etc/default/twincache-sidecar-two <<<'OPTIONS="--server unix:/run/twincached-two/control --peer 127.0.0.1:11211"'
    in_it a systemctl enable --quiet --now twincached@two twincache-sidecar@two
    took "a second server runs beside it" 10 version_in_it a 11212
    took "with a sidecar of its own" 10 is_active a twincache-sidecar@two
    check "a third one without options is not started" not in_it a systemctl start twincached@three 2>/dev/null

    check "an upgrade" dpkg_in a --install /root/new.deb
    check "it leaves the server running" test "$(of_unit a twincached MainPID)" = "$pid"
    check "and says so" grep -q "is still the old one" "$WORK/dpkg.log"
    in_it a systemctl restart twincached
    check "the new one takes its place" version_in_it a 11211

    check "the package is removed" dpkg_in a --remove twincache
    check "and nothing of it runs" not in_it a sh -c "cat /proc/[0-9]*/comm | grep -q ^twincache"
    check "it is purged" dpkg_in a --purge twincache
    check "and its user is gone" not has_user a
    check "the system has no failed unit" test -z "$(in_it a systemctl --failed -q --plain)"

    power_off_all
}

inside() {
    local part
    mount --make-rprivate /
    # systemd-nspawn reboots a machine only if this is no disk.
    mount -t tmpfs tmpfs /run
    ip link set lo up
    ip link add shard type bridge
    ip address add $net.1/24 dev shard
    ip link set shard up
    rm -f "$WORK"/*.console
    trap 'clean_up' EXIT
    [[ $# -gt 0 ]] || set -- pair shard warm package
    for part in "$@"; do "$part"; done
    echo "1..$checks"
    echo "nspawn.sh: $((checks - failures)) of $checks checks passed, in $SECONDS s"
    [[ $failures -eq 0 ]]
}

# The journals stay where the machines' folders were.
power_off_all() {
    local name
    for name in "${!nspawn[@]}"; do
        in_it "$name" journalctl --no-pager -o short-precise -u twincached -u twincache-sidecar 2>/dev/null \
            >"$WORK/$name.${FUNCNAME[1]}.journal" || true
        cut_power "$name" 2>/dev/null || true
        unset "nspawn[$name]"
        rm -rf "${WORK:?}/$name"
    done
}

clean_up() {
    local name
    power_off_all
    [[ -z ${etcd:-} ]] || kill "$etcd" 2>/dev/null || true
    for name in a b; do
        find /sys/fs/cgroup/*/"twincache-$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    done
}

if [[ -n ${NSPAWN_INSIDE:-} ]]; then inside "$@"; else prepare "$@"; fi
