#!/usr/bin/env bash
# Every test of the project: scripts/test.sh [STAGE…]; without arguments all stages, in this order:
#   format clippy doc build unit house e2e exchanges differential oracle clients features instructions
#
# Installs what it needs where it runs as root and finds it missing (Debian's memcached, libmemcached-tools,
# valgrind, etcd, balancers, shells, lintian, a browser, prometheus and plugins of munin, collectd, netdata and nagios;
# tests/clients/run.sh sees to its clients), else says in one line what it goes without.
# Says each minute what it is at, and at the end how many tests there were; what tests that were killed have left of files
# is taken away, in memory (/dev/shm) too. Each client of tests/clients/run.sh counts as a test. DIFF_SEED=n and
# DIFF_COMMANDS=n replay a differential run; ORACLE_DIR is where the script that made the recording in tests/data lies,
# if it is at hand.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

readonly all=(format clippy doc build unit house e2e exchanges differential oracle clients features instructions)
readonly oracle=${ORACLE_DIR:-../shared/oracle}
readonly own_stages=(tidy exchanges differential)
passed=0
failed=()
tests=0
ignored=0

main() {
    local stages=("$@") stage
    [[ $# -gt 0 ]] || stages=("${all[@]}")
    for stage in "${stages[@]}"; do
        [[ " ${all[*]} " == *" $stage "* ]] || usage "$stage"
    done
    own_temporary_files
    install_packages
    for stage in "${stages[@]}"; do
        run_stage "$stage"
    done
    [[ ${#failed[@]} -eq 0 ]] || echo "failed: ${failed[*]}"
    echo "$passed stages passed, ${#failed[@]} failed; $tests tests passed, $ignored are for other occasions; $SECONDS s"
    [[ ${#failed[@]} -eq 0 ]]
}

usage() {
    if [[ $1 == -h || $1 == --help ]]; then
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' scripts/test.sh
        exit
    fi
    echo "usage: scripts/test.sh [STAGE…], by default all of: ${all[*]}" >&2
    exit 64
}

# Folders for all that tests write, on disk and in memory, which go when this ends. Servers of other users have to reach theirs.
own_temporary_files() {
    TMPDIR=$(mktemp -d "${TMPDIR:-/tmp}/tw.XXXXXX") || exit
    MEMORY_TMPDIR=
    [[ ! -d /dev/shm ]] || MEMORY_TMPDIR=$(mktemp -d "/dev/shm/${TMPDIR##*/}.XXXXXX")
    chmod 1777 "$TMPDIR" ${MEMORY_TMPDIR:+"$MEMORY_TMPDIR"}
    export TMPDIR MEMORY_TMPDIR
    trap 'stop_heart; rm -rf "$TMPDIR" ${MEMORY_TMPDIR:+"$MEMORY_TMPDIR"}' EXIT
    trap 'exit 130' HUP INT TERM
}

install_packages() {
    local package
    for package in memcached libmemcached-tools valgrind etcd-server etcd-client nftables iproute2 iputils-ping haproxy keepalived curl \
        zsh fish shellcheck lintian chromium chromium-driver prometheus munin-plugins-extra libcache-memcached-perl \
        collectd-core netdata-plugins-python monitoring-plugins-contrib; do
        installed "$package" && continue
        echo "-- installing $package"
        if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
            [[ -n ${updated-} ]] || apt-get update -qq >/dev/null 2>&1
            updated=1
            # The daemon must not start: the tests start their own.
            DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$package" >/dev/null 2>&1
        fi
        installed "$package" || echo "$package is missing and cannot be installed here: the tests that need it are skipped"
    done
}

installed() {
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'
}

run_stage() {
    local began=$SECONDS
    echo "== $1"
    beat "$1"
    if "stage_$1"; then
        passed=$((passed + 1))
        echo "== $1 ok, $((SECONDS - began)) s"
    else
        failed+=("$1")
        echo "== $1 FAILED, $((SECONDS - began)) s"
    fi
    stop_heart
}

# Says each minute that there is still something to wait for.
beat() {
    while sleep 60; do
        echo "-- $1 goes on, $SECONDS s since the start"
    done 2>/dev/null &
    heart=$!
}

# The sleep goes with its loop.
stop_heart() {
    [[ -n ${heart-} ]] || return 0
    pkill -P "$heart" 2>/dev/null
    kill "$heart" 2>/dev/null
    wait "$heart" 2>/dev/null
    heart=
}

# cargo_test WORDS…: as cargo test --quiet, and counts.
cargo_test() {
    counted cargo test --quiet "$@"
}

# counted COMMAND…: runs it, and adds up the tests that it says it has run.
counted() {
    local output=$TMPDIR/output status=0
    "$@" 2>&1 | tee "$output" || status=1
    tests=$((tests + $(total passed "$output")))
    ignored=$((ignored + $(total ignored "$output")))
    return "$status"
}

# total WORD FILE: the sum of the numbers before it in the lines of results.
total() {
    sed -n "s/^\(test result\|clients\):.* \([0-9]*\) $1;.*/\2/p" "$2" | awk '{ sum += $1 } END { print sum + 0 }'
}

stage_format() {
    cargo fmt --check
}

stage_clippy() {
    cargo clippy --quiet --all-targets --all-features -- -D warnings
}

stage_doc() {
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --document-private-items
}

stage_build() {
    cargo test --no-run && cargo build
}

stage_unit() {
    cargo_test --lib --bins && cargo_test --doc
}

stage_house() {
    cargo_test --test tidy
}

# Every file of tests/ that has no stage of its own.
stage_e2e() {
    local file name names=() number=0 status=0
    for file in tests/*.rs tests/*/main.rs; do
        name=${file#tests/}
        name=${name%/main.rs}
        name=${name%.rs}
        [[ " ${own_stages[*]} " == *" $name "* ]] || names+=("$name")
    done
    for name in "${names[@]}"; do
        number=$((number + 1))
        echo "-- $name, $number of ${#names[@]}"
        cargo_test --test "$name" || status=1
    done
    return "$status"
}

stage_exchanges() {
    cargo_test --test exchanges
}

stage_differential() {
    if ! installed memcached; then
        echo "no memcached to compare with: skipped"
        return 0
    fi
    cargo_test --test differential -- --nocapture
}

stage_oracle() {
    if [[ ! -f $oracle/exchange.py ]]; then
        echo "no exchange.py in $oracle: skipped; the exchanges stage has replayed its recording"
        return 0
    fi
    ORACLE_SCRIPT=$(realpath "$oracle/exchange.py") cargo_test --test exchanges -- --ignored own_script
}

stage_clients() {
    if [[ ! -x tests/clients/run.sh ]]; then
        echo "no tests/clients/run.sh: skipped"
        return 0
    fi
    counted tests/clients/run.sh "$(realpath "${CARGO_TARGET_DIR:-target}/debug/twincached")"
}

# What only a build with all features has. Its own folder, so that the other stages keep their binary.
stage_features() {
    local target=${CARGO_TARGET_DIR:-target}/features
    CARGO_TARGET_DIR=$target cargo_test --all-features --lib -- command:: config:: &&
        CARGO_TARGET_DIR=$target cargo_test --all-features --test exchanges
}

# Counts instructions per request under valgrind, of a release build. After a change that is worth what it costs:
# cargo bench --bench instructions -- --record
stage_instructions() {
    cargo bench --quiet --bench instructions
}

main "$@"
